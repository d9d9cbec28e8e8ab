//! Webhooks: who wants to be told of which events, and what each is still owed.
//!
//! An event and the rows that owe it to webhooks are one transaction, so what the feed holds is delivered. A row goes
//! when its receiver has taken the event, and never otherwise but with the event itself when that is forgotten. Of one
//! resource only the oldest owed event is due; the next one is when that was taken. So the order holds for each
//! resource, and an event that its receiver refuses holds up nothing but its own resource.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Row, params};

use crate::{
    cloud::{Signals, webhooks::new_secret},
    grants::{Refused, Resource},
    model::{EventId, Private, WebhookId, WorkspaceId},
    store::StoreError,
};

use super::{
    Db, Fault, Tenant, TimedEvent, events,
    rows::{id, json, maybe_time, ms, time},
    split,
};

/// How many webhooks a workspace may have.
const MOST: u32 = 32;
/// How long after a failure the next try is: of one event, and of any where every event would have failed. When such a
/// round fails after the last of them, with nothing taken in between, the webhook is disabled.
const WAITS: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
    Duration::from_secs(10 * 3600),
];
/// What is owed to a deleted webhook goes so much at a time: some milliseconds.
const DROPPED_AT_ONCE: usize = 500;
/// No try is due later than this, unless the clock was put back since.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(11);
/// Longest reason that is kept, in characters.
const LONGEST_TROUBLE: usize = 256;

/// Who wants to be told.
#[derive(Debug)]
pub(crate) struct Webhook {
    pub(crate) id: WebhookId,
    pub(crate) url: Private,
    pub(crate) secret: Private,
    pub(crate) kinds: Vec<String>,
}

/// A webhook as its operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRow {
    /// Which.
    pub id: WebhookId,
    /// Whose.
    pub workspace: WorkspaceId,
    /// Scheme and host; what follows them may be secret.
    pub origin: String,
    /// What it is told of; `*` is everything.
    pub kinds: Vec<String>,
    /// When something was taken last.
    pub delivered_at: Option<Timestamp>,
    /// Since when nothing was.
    pub failing_since: Option<Timestamp>,
    /// Why the last try failed.
    pub trouble: Option<String>,
    /// Since when nothing is tried any more.
    pub disabled_at: Option<Timestamp>,
    /// How many events it is owed, counted up to [`Self::MOST_COUNTED`].
    pub owed: u64,
}

impl WebhookRow {
    /// No more events than this are counted: whoever looks must not keep the others waiting.
    pub const MOST_COUNTED: u64 = 10_000;
}

/// One event for one webhook.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) webhook: WebhookId,
    pub(crate) workspace: WorkspaceId,
    /// The event's place in the feed.
    pub(crate) n: i64,
    pub(crate) url: Private,
    pub(crate) secret: Private,
    pub(crate) event: TimedEvent,
}

/// What is to be delivered now.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) deliveries: Vec<Delivery>,
    /// When something is due next.
    pub(crate) next: Option<Timestamp>,
}

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// The receiver has it.
    Taken,
    /// It does not, as far as we know.
    Failed {
        why: String,
        /// Whether any other event would have failed the same way.
        whatever_it_was: bool,
    },
}

impl Tenant<'_> {
    pub(crate) fn create_webhook(
        &mut self,
        now: Timestamp,
        url: &Private,
        kinds: &[String],
    ) -> Result<Result<Webhook, Refused>, StoreError> {
        split(self.try_create_webhook(now, url, kinds))
    }

    fn try_create_webhook(
        &mut self,
        now: Timestamp,
        url: &Private,
        kinds: &[String],
    ) -> Result<Webhook, Fault> {
        let there = self.db.one(
            "SELECT COUNT(*) FROM webhook WHERE workspace_id = ?1 AND deleted_at IS NULL",
            [&self.workspace],
            |row| row.get::<_, u32>(0),
        )?;
        if there.unwrap_or_default() >= MOST {
            return Err(Fault::Refused(Refused::TooManyWebhooks { most: MOST }));
        }
        let own = WebhookId(self.db.random.uuid());
        let secret = new_secret(&self.db.random);
        self.db.execute(
            "INSERT INTO webhook(webhook_id, workspace_id, url, secret, event_types, created_at)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                own.to_string(),
                self.workspace,
                self.db.seal.seal(&url_place(own), url.expose().as_bytes()),
                self.db.seal.seal(&secret_place(own), secret.expose().as_bytes()),
                serde_json::Value::from(kinds).to_string(),
                ms(now),
            ],
        )?;
        Ok(Webhook { id: own, url: url.clone(), secret, kinds: kinds.to_vec() })
    }

    /// All of them, oldest first: there are never many.
    pub(crate) fn webhooks(&mut self) -> Result<Vec<Webhook>, StoreError> {
        let rows = self.db.all(
            "SELECT * FROM webhook WHERE workspace_id = ?1 AND deleted_at IS NULL ORDER BY created_at, rowid",
            [&self.workspace],
            Sealed::read,
        )?;
        rows.into_iter().map(|row| self.db.webhook(row)).collect()
    }

    pub(crate) fn webhook(&mut self, wanted: WebhookId) -> Result<Result<Webhook, Refused>, StoreError> {
        let row = self.db.one(
            "SELECT * FROM webhook WHERE webhook_id = ?1 AND workspace_id = ?2 AND deleted_at IS NULL",
            params![wanted.to_string(), self.workspace],
            Sealed::read,
        )?;
        match row {
            Some(row) => Ok(Ok(self.db.webhook(row)?)),
            None => Ok(Err(Refused::not_found(Resource::Webhook, wanted))),
        }
    }

    /// What it is told of from now on; what it is owed stays owed.
    pub(crate) fn update_webhook(
        &mut self,
        wanted: WebhookId,
        kinds: &[String],
    ) -> Result<Result<(), Refused>, StoreError> {
        let changed = self.db.execute(
            "UPDATE webhook SET event_types = ?3 WHERE webhook_id = ?1 AND workspace_id = ?2 AND deleted_at IS NULL",
            params![wanted.to_string(), self.workspace, serde_json::Value::from(kinds).to_string()],
        )?;
        Ok(found(changed, wanted))
    }

    /// Nothing is delivered to it any more. What it is owed goes by and by: it may be months of events.
    pub(crate) fn delete_webhook(
        &mut self,
        now: Timestamp,
        wanted: WebhookId,
    ) -> Result<Result<(), Refused>, StoreError> {
        let changed = self.db.execute(
            "UPDATE webhook SET deleted_at = ?3, disabled_at = coalesce(disabled_at, ?3), event_types = '[]',
               url = x'', secret = x'', trouble = NULL
             WHERE webhook_id = ?1 AND workspace_id = ?2 AND deleted_at IS NULL",
            params![wanted.to_string(), self.workspace, ms(now)],
        )?;
        self.db.drop_deleted_webhooks()?;
        Ok(found(changed, wanted))
    }
}

fn found(rows: usize, wanted: WebhookId) -> Result<(), Refused> {
    match rows {
        0 => Err(Refused::not_found(Resource::Webhook, wanted)),
        _ => Ok(()),
    }
}

/// A webhook as its row has it.
struct Sealed {
    id: WebhookId,
    url: Vec<u8>,
    secret: Vec<u8>,
    kinds: Vec<String>,
}

impl Sealed {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: id(row, "webhook_id")?,
            url: row.get("url")?,
            secret: row.get("secret")?,
            kinds: json(row, "event_types")?,
        })
    }
}

/// A webhook that may be due.
struct Waiting {
    sealed: Sealed,
    workspace: WorkspaceId,
    is_failing: bool,
    retry_at: Option<Timestamp>,
}

/// How many places one workspace takes at most, so that its slow receivers leave some to others.
const OF_ONE_WORKSPACE: usize = 8;

/// An event that is owed.
struct Owed {
    n: i64,
    event: EventId,
    kind: String,
    occurred_at: Timestamp,
    fields: Vec<u8>,
}

impl Db {
    fn webhook(&self, row: Sealed) -> Result<Webhook, StoreError> {
        let open = |place: String, sealed: &[u8]| {
            let plain = self.seal.open(&place, sealed)?;
            String::from_utf8(plain).map(Private::new).map_err(|error| StoreError::corrupt(place, error))
        };
        Ok(Webhook {
            url: open(url_place(row.id), &row.url)?,
            secret: open(secret_place(row.id), &row.secret)?,
            id: row.id,
            kinds: row.kinds,
        })
    }

    /// Wakes whoever delivers when something is owed.
    pub fn wake_deliveries(&mut self, signals: Signals) {
        self.signals = Some(signals);
    }

    /// Owes an event, just told, to every webhook that wants its type, also to disabled ones: whoever enables one again
    /// gets what it missed.
    pub(super) fn owe(
        &self,
        workspace: &str,
        now: Timestamp,
        kind: &str,
        resource: &str,
    ) -> Result<(), StoreError> {
        let n = self.connection.last_insert_rowid();
        let owed = self.execute(
            "INSERT INTO webhook_delivery(webhook_id, resource, event_n, due_at)
             SELECT w.webhook_id, ?2, ?3,
                    CASE WHEN EXISTS(SELECT 1 FROM webhook_delivery d
                                     WHERE d.webhook_id = w.webhook_id AND d.resource = ?2)
                         THEN NULL ELSE ?4 END
             FROM webhook w
             WHERE w.workspace_id = ?1
               AND EXISTS(SELECT 1 FROM json_each(w.event_types) WHERE value IN ('*', ?5))",
            params![workspace, resource, n, ms(now), kind],
        )?;
        // Whoever looks because of this sees it: looks queue up behind this transaction.
        if let Some(signals) = self.signals.as_ref().filter(|_| owed > 0) {
            signals.deliveries_owed();
        }
        Ok(())
    }

    /// What is to be delivered now, oldest first, apart from what is `busy`, at most `room` in all and `each` for one
    /// webhook. One that failed is tried with a single event.
    pub(crate) fn deliveries_due(
        &mut self,
        now: Timestamp,
        busy: &[(WebhookId, i64)],
        room: usize,
        each: usize,
    ) -> Result<Due, StoreError> {
        let mut due = Due::default();
        // A time that no wait can reach is of a clock that was put back since.
        let latest = ms(now.saturating_add(LONGEST_WAIT).unwrap_or(Timestamp::MAX));
        let waiting = self.all(
            "SELECT * FROM webhook WHERE disabled_at IS NULL ORDER BY created_at, rowid",
            [],
            |row| {
                Ok(Waiting {
                    sealed: Sealed::read(row)?,
                    workspace: id(row, "workspace_id")?,
                    is_failing: row.get::<_, Option<i64>>("failing_since")?.is_some(),
                    retry_at: maybe_time(row, "retry_at")?,
                })
            },
        )?;
        let mut places: BTreeMap<WorkspaceId, usize> = BTreeMap::new();
        for Waiting { sealed, workspace, .. } in &waiting {
            let own = busy.iter().filter(|(webhook, _)| *webhook == sealed.id).count();
            *places.entry(*workspace).or_default() += own;
        }
        for Waiting { sealed, workspace, is_failing, retry_at } in waiting {
            if let Some(at) = retry_at.filter(|at| *at > now && ms(*at) <= latest) {
                due.next = due.next.into_iter().chain([at]).min();
                continue;
            }
            let own = sealed.id;
            let under_way: Vec<_> =
                busy.iter().filter(|(webhook, _)| *webhook == own).map(|(_, n)| *n).collect();
            let most = if is_failing { 1 } else { each };
            let taken = places.entry(workspace).or_default();
            let room = room
                .saturating_sub(due.deliveries.len())
                .min(most.saturating_sub(under_way.len()))
                .min(OF_ONE_WORKSPACE.saturating_sub(*taken));
            let soon = self.one(
                "SELECT MIN(due_at) AS due_at FROM webhook_delivery
                 WHERE webhook_id = ?1 AND due_at > ?2 AND due_at <= ?3",
                params![own.to_string(), ms(now), latest],
                |row| maybe_time(row, "due_at"),
            )?;
            due.next = due.next.into_iter().chain(soon.flatten()).min();
            if room == 0 {
                continue;
            }
            let owed = self.all(
                "SELECT d.event_n, e.event_id, e.event_type, e.occurred_at, e.fields
                 FROM webhook_delivery d JOIN event e ON e.n = d.event_n
                 WHERE d.webhook_id = ?1 AND d.due_at IS NOT NULL AND (d.due_at <= ?2 OR d.due_at > ?3)
                   AND d.event_n NOT IN (SELECT value FROM json_each(?4))
                 ORDER BY CASE WHEN ?6 THEN d.tries ELSE 0 END, d.event_n LIMIT ?5",
                params![
                    own.to_string(),
                    ms(now),
                    latest,
                    serde_json::Value::from(under_way).to_string(),
                    i64::try_from(room).unwrap_or(i64::MAX),
                    // Another event may be taken where this one never is.
                    is_failing
                ],
                |row| {
                    Ok(Owed {
                        n: row.get("event_n")?,
                        event: id(row, "event_id")?,
                        kind: row.get("event_type")?,
                        occurred_at: time(row, "occurred_at")?,
                        fields: row.get("fields")?,
                    })
                },
            )?;
            if owed.is_empty() {
                continue;
            }
            *taken += owed.len();
            // A row that cannot be read must not stop the others.
            let webhook = match self.webhook(sealed) {
                Ok(webhook) => webhook,
                Err(error) => {
                    tracing::error!(webhook = %own, error = error.chain(), "a webhook cannot be read");
                    self.disable(now, own, "its address or its secret cannot be read")?;
                    continue;
                }
            };
            for Owed { n, event, kind, occurred_at, fields } in owed {
                match events::opened(&self.seal, event, &fields) {
                    Ok(fields) => due.deliveries.push(Delivery {
                        webhook: own,
                        workspace,
                        n,
                        url: webhook.url.clone(),
                        secret: webhook.secret.clone(),
                        event: TimedEvent { id: event, kind, occurred_at, fields },
                    }),
                    Err(error) => {
                        tracing::error!(%event, error = error.chain(), "an event cannot be read, nor delivered");
                        self.no_longer_owed(now, own, n)?;
                    }
                }
            }
        }
        Ok(due)
    }

    /// Notes how deliveries ended.
    pub(crate) fn delivered(
        &mut self,
        now: Timestamp,
        ends: &[(WebhookId, i64, Delivered)],
    ) -> Result<(), StoreError> {
        for (webhook, n, end) in ends {
            match end {
                Delivered::Taken => {
                    self.no_longer_owed(now, *webhook, *n)?;
                    self.execute(
                        "UPDATE webhook SET delivered_at = ?2, failures = 0, failing_since = NULL, trouble = NULL, retry_at = NULL
                         WHERE webhook_id = ?1",
                        params![webhook.to_string(), ms(now)],
                    )?;
                }
                Delivered::Failed { why, whatever_it_was } => {
                    self.not_delivered(now, *webhook, *n, why, *whatever_it_was)?;
                }
            }
        }
        Ok(())
    }

    fn not_delivered(
        &self,
        now: Timestamp,
        webhook: WebhookId,
        n: i64,
        why: &str,
        whatever_it_was: bool,
    ) -> Result<(), StoreError> {
        let known = self.one(
            "SELECT d.tries, w.failures, w.retry_at IS NOT NULL AND w.retry_at > ?3 AS is_over
             FROM webhook_delivery d JOIN webhook w USING(webhook_id)
             WHERE d.event_n = ?2 AND d.webhook_id = ?1",
            params![webhook.to_string(), n, ms(now)],
            |row| {
                Ok((
                    row.get::<_, u32>("tries")?,
                    row.get::<_, u32>("failures")?,
                    row.get::<_, bool>("is_over")?,
                ))
            },
        )?;
        // Neither is there any more when somebody deleted the webhook meanwhile.
        let Some((tries, failures, is_over)) = known else { return Ok(()) };
        let after = |failures: u32| {
            let wait = WAITS.get(failures as usize).copied();
            now.saturating_add(wait.unwrap_or(WAITS[WAITS.len() - 1])).unwrap_or(Timestamp::MAX)
        };
        self.execute(
            "UPDATE webhook_delivery SET tries = tries + 1, due_at = ?3 WHERE event_n = ?2 AND webhook_id = ?1",
            params![webhook.to_string(), n, ms(after(tries))],
        )?;
        // What failed beside the one that ended a round is of that round.
        let ends_round = whatever_it_was && !is_over;
        if ends_round && failures as usize >= WAITS.len() {
            tracing::warn!(%webhook, why, "a webhook is disabled: it has failed too often");
            return self.disable(now, webhook, why);
        }
        self.execute(
            "UPDATE webhook SET failing_since = COALESCE(failing_since, ?2), trouble = ?3,
               failures = failures + ?4, retry_at = CASE WHEN ?4 THEN ?5 ELSE retry_at END
             WHERE webhook_id = ?1",
            params![webhook.to_string(), ms(now), shortened(why), ends_round, ms(after(failures))],
        )?;
        Ok(())
    }

    fn disable(&self, now: Timestamp, webhook: WebhookId, why: &str) -> Result<(), StoreError> {
        self.execute(
            "UPDATE webhook SET disabled_at = ?2, failing_since = COALESCE(failing_since, ?2), trouble = ?3
             WHERE webhook_id = ?1",
            params![webhook.to_string(), ms(now), shortened(why)],
        )?;
        Ok(())
    }

    /// An event is owed no more, and the next one of its resource is due.
    fn no_longer_owed(&self, now: Timestamp, webhook: WebhookId, n: i64) -> Result<(), StoreError> {
        let resource = self.one(
            "DELETE FROM webhook_delivery WHERE event_n = ?2 AND webhook_id = ?1 RETURNING resource",
            params![webhook.to_string(), n],
            |row| row.get::<_, String>("resource"),
        )?;
        match resource {
            Some(resource) => self.next_is_due(now, &webhook.to_string(), &resource),
            None => Ok(()),
        }
    }

    fn next_is_due(&self, now: Timestamp, webhook: &str, resource: &str) -> Result<(), StoreError> {
        self.execute(
            "UPDATE webhook_delivery SET due_at = ?3
             WHERE webhook_id = ?1 AND resource = ?2 AND due_at IS NULL
               AND event_n = (SELECT MIN(event_n) FROM webhook_delivery WHERE webhook_id = ?1 AND resource = ?2)",
            params![webhook, resource, ms(now)],
        )?;
        Ok(())
    }

    /// Owes nobody what happened before an instant: those events are about to be forgotten.
    pub(super) fn forget_deliveries(
        &self,
        now: Timestamp,
        before: i64,
        slice: u32,
    ) -> Result<usize, StoreError> {
        let gone = self.all(
            "DELETE FROM webhook_delivery WHERE (webhook_id, resource, event_n) IN (
               SELECT d.webhook_id, d.resource, d.event_n
               FROM workspace CROSS JOIN event e USING(workspace_id) CROSS JOIN webhook_delivery d ON d.event_n = e.n
               WHERE e.occurred_at < ?1 LIMIT ?2)
             RETURNING webhook_id, resource",
            params![before, slice],
            |row| Ok((row.get::<_, String>("webhook_id")?, row.get::<_, String>("resource")?)),
        )?;
        for (webhook, resource) in &gone {
            self.next_is_due(now, webhook, resource)?;
        }
        Ok(gone.len())
    }

    /// Drops some of what is owed to webhooks that are deleted, and then them. Says whether more is left.
    pub(super) fn drop_deleted_webhooks(&self) -> Result<bool, StoreError> {
        let going = self.all("SELECT webhook_id FROM webhook WHERE deleted_at IS NOT NULL", [], |row| {
            row.get::<_, String>("webhook_id")
        })?;
        let mut room = DROPPED_AT_ONCE;
        for webhook in &going {
            room -= self.execute(
                "DELETE FROM webhook_delivery WHERE (webhook_id, resource, event_n) IN (
                   SELECT webhook_id, resource, event_n FROM webhook_delivery WHERE webhook_id = ?1 LIMIT ?2)",
                params![webhook, i64::try_from(room).unwrap_or(i64::MAX)],
            )?;
            if room == 0 {
                return Ok(true);
            }
            self.execute("DELETE FROM webhook WHERE webhook_id = ?1", [webhook])?;
        }
        Ok(false)
    }

    /// Every webhook of every workspace, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn every_webhook(&self) -> Result<Vec<WebhookRow>, StoreError> {
        let rows = self.all(
            "SELECT *, (SELECT COUNT(*) FROM (SELECT 1 FROM webhook_delivery d
                                              WHERE d.webhook_id = w.webhook_id LIMIT ?1)) AS owed
             FROM webhook w WHERE deleted_at IS NULL ORDER BY created_at, rowid",
            [i64::try_from(WebhookRow::MOST_COUNTED).unwrap_or(i64::MAX)],
            |row| {
                Ok((
                    Sealed::read(row)?,
                    WebhookRow {
                        id: id(row, "webhook_id")?,
                        workspace: id(row, "workspace_id")?,
                        origin: String::new(),
                        kinds: json(row, "event_types")?,
                        delivered_at: maybe_time(row, "delivered_at")?,
                        failing_since: maybe_time(row, "failing_since")?,
                        trouble: row.get("trouble")?,
                        disabled_at: maybe_time(row, "disabled_at")?,
                        owed: row.get::<_, i64>("owed")?.unsigned_abs(),
                    },
                ))
            },
        )?;
        let shown = rows.into_iter().map(|(sealed, row)| {
            let origin = self.webhook(sealed).map_or_else(
                |_| "(cannot be read)".into(),
                |webhook| webhook.url.expose().splitn(4, '/').take(3).collect::<Vec<_>>().join("/"),
            );
            WebhookRow { origin: origin.split(['?']).next().unwrap_or_default().to_owned(), ..row }
        });
        Ok(shown.collect())
    }

    /// Lets deliveries go on, at once and from the oldest event that is owed. Says whether there is such a webhook.
    ///
    /// # Errors
    /// Those of the database.
    pub fn enable_webhook(&mut self, now: Timestamp, webhook: WebhookId) -> Result<bool, StoreError> {
        let there = self.execute(
            "UPDATE webhook SET disabled_at = NULL, failures = 0, failing_since = NULL, trouble = NULL, retry_at = NULL
             WHERE webhook_id = ?1 AND deleted_at IS NULL",
            [webhook.to_string()],
        )?;
        if there > 0 {
            self.execute(
                "UPDATE webhook_delivery SET tries = 0, due_at = ?2 WHERE webhook_id = ?1 AND due_at IS NOT NULL",
                params![webhook.to_string(), ms(now)],
            )?;
        }
        Ok(there > 0)
    }

    /// Lets nothing be delivered until somebody enables it again. Says whether there is such a webhook.
    ///
    /// # Errors
    /// Those of the database.
    pub fn disable_webhook(&mut self, now: Timestamp, webhook: WebhookId) -> Result<bool, StoreError> {
        let there = self.execute(
            "UPDATE webhook SET disabled_at = COALESCE(disabled_at, ?2) WHERE webhook_id = ?1 AND deleted_at IS NULL",
            params![webhook.to_string(), ms(now)],
        )?;
        Ok(there > 0)
    }
}

fn shortened(why: &str) -> String {
    why.chars().take(LONGEST_TROUBLE).collect()
}

fn url_place(id: WebhookId) -> String {
    format!("webhook.url/{id}")
}

fn secret_place(id: WebhookId) -> String {
    format!("webhook.secret/{id}")
}

#[cfg(test)]
mod tests;
