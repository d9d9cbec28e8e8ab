//! Attempts to read the card that lies on an encoder, and which card of ours it is.
//!
//! Reading changes nothing anywhere, so an attempt that nobody answers ends as one that failed, and is not in doubt.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::{
    grants::{CARD_WAIT, Refused, Resource, attempt_end},
    model::{
        AcsCredentialId, AcsEncoderId, AcsSystemId, ActionAttemptId, BridgeId, CardRead, CardSeen,
        EncoderName, Job, JobId, Kind, Order, Outcome, Priority, Report, Success, SystemName, WorkspaceId,
    },
    store::StoreError,
};

use super::{
    Credential, Db, Fault, Tenant,
    attempts::ErrorText,
    chips::chip_number,
    rows::{id, maybe_id, maybe_time, ms, parsed, time},
    split,
};

/// A reading that has not begun by then is not begun: the person has gone.
const START_WITHIN: SignedDuration = SignedDuration::from_secs(75);
/// A little later an attempt ends whose job never reached its bridge.
const UNSENT_AFTER: SignedDuration = SignedDuration::from_secs(80);
/// A reading that began at the last moment, waited for the whole card wait and was answered late is over by then.
const SILENT_AFTER: SignedDuration = SignedDuration::from_secs(75 + 60 + 30);
/// Attempts forgotten at once.
const SLICE: u32 = 500;

/// An attempt to read a card.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) id: ActionAttemptId,
    /// The job that does it.
    pub(crate) job: JobId,
    pub(crate) state: ScanState,
}

/// Where it stands.
#[derive(Debug)]
pub(crate) enum ScanState {
    Pending,
    Seen(Box<Scanned>),
    Error { kind: String, message: String },
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) card: Seen,
    /// The card of ours that it is, as far as that can be told.
    pub(crate) known: Option<Credential>,
}

/// What a card shows that somebody else's program may be told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// A guest's card.
    pub(crate) guest: bool,
    /// Its rooms, the main one first.
    pub(crate) rooms: Vec<String>,
    pub(crate) valid: Option<bool>,
    pub(crate) starts_at: Option<Timestamp>,
    pub(crate) ends_at: Option<Timestamp>,
    /// Of several cards of ours that look the same, it may be any.
    pub(crate) one_of_several: bool,
    /// The number of its chip, where the reader tells it.
    #[serde(default)]
    pub(crate) number: Option<String>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[private]")
    }
}

impl Seen {
    fn of(success: &Success) -> Self {
        let nothing = Self {
            number: success.card.as_ref().and_then(|card| chip_number(card.serial.as_deref()?)),
            guest: false,
            rooms: Vec::new(),
            valid: None,
            starts_at: None,
            ends_at: None,
            one_of_several: false,
        };
        match &success.seen {
            Some(CardSeen::Guest { rooms, valid, starts_at, ends_at, .. }) => Self {
                guest: true,
                rooms: rooms.clone(),
                valid: Some(*valid),
                starts_at: *starts_at,
                ends_at: *ends_at,
                ..nothing
            },
            Some(CardSeen::Invalid) => Self { valid: Some(false), ..nothing },
            Some(CardSeen::Staff | CardSeen::Other { .. }) | None => nothing,
        }
    }
}

/// A card of ours, and what it was written with.
struct Candidate {
    card: AcsCredentialId,
    ends_at: Option<Timestamp>,
    /// The ends that were ordered for it, one for each writing.
    ends_before: Vec<Option<i64>>,
    rooms: Vec<String>,
}

impl Candidate {
    /// Whether it was written with this end once. A card's end is printed to the minute.
    fn had_the_end(&self, end: Option<Timestamp>) -> bool {
        let is_it = |ordered: &Option<i64>| match (ordered, end) {
            (Some(ordered), Some(end)) => (0..60_000).contains(&(ms(end) - ordered)),
            (None, None) => true,
            _ => false,
        };
        self.ends_before.iter().any(is_it)
    }
}

/// An attempt as its bridge's report finds it.
struct Ordered {
    workspace: WorkspaceId,
    attempt: ActionAttemptId,
    system: AcsSystemId,
}

impl Tenant<'_> {
    /// Orders the card on an encoder to be read. While a reading there is under way, it is that one.
    pub(crate) fn scan(
        &mut self,
        now: Timestamp,
        encoder: AcsEncoderId,
    ) -> Result<Result<ActionAttemptId, Refused>, StoreError> {
        split(self.try_scan(now, encoder))
    }

    fn try_scan(&mut self, now: Timestamp, encoder: AcsEncoderId) -> Result<ActionAttemptId, Fault> {
        let at = self.db.one(
            "SELECT e.name AS encoder, s.name AS system, s.acs_system_id, s.bridge_id, s.capabilities
             FROM acs_encoder e JOIN acs_system s USING(acs_system_id)
             WHERE e.acs_encoder_id = ?1 AND e.workspace_id = ?2 AND e.removed_at IS NULL",
            params![encoder.to_string(), self.workspace],
            |row| {
                let names = (parsed::<EncoderName>(row, "encoder")?, parsed::<SystemName>(row, "system")?);
                let ids = (id::<AcsSystemId>(row, "acs_system_id")?, id::<BridgeId>(row, "bridge_id")?);
                let capabilities: crate::model::Capabilities = super::rows::json(row, "capabilities")?;
                Ok((names, ids, capabilities.read_card.is_some()))
            },
        )?;
        let ((encoder_name, system_name), (system, bridge), reads) =
            at.ok_or_else(|| Refused::not_found(Resource::AcsEncoder, encoder))?;
        if !reads {
            return Err(Fault::Refused(Refused::CannotRead { system: system_name }));
        }
        let pending = self.db.one(
            "SELECT action_attempt_id FROM scan_attempt
             WHERE acs_encoder_id = ?1 AND workspace_id = ?2 AND status = 'pending' AND unsent_at > ?3",
            params![encoder.to_string(), self.workspace, ms(now)],
            |row| id(row, "action_attempt_id"),
        )?;
        if let Some(pending) = pending {
            return Ok(pending);
        }
        let (attempt, job_id) =
            (ActionAttemptId(self.db.random.uuid_at(now)), JobId(self.db.random.uuid_at(now)));
        let job = Job {
            job_id,
            system: system_name,
            priority: Priority::Desk,
            created_at: now,
            expires_at: now + START_WITHIN,
            order: Order::CardRead(CardRead {
                encoder: encoder_name,
                card_wait_seconds: u16::try_from(CARD_WAIT.as_secs()).unwrap_or(u16::MAX),
            }),
        };
        self.db.execute(
            "INSERT INTO scan_attempt VALUES(?1, ?2, ?3, ?4, ?5, ?6, 'pending', NULL, NULL, NULL, NULL, ?7, ?8, ?9,
                                             NULL, NULL)",
            params![
                attempt.to_string(),
                self.workspace,
                bridge.to_string(),
                system.to_string(),
                encoder.to_string(),
                job_id.to_string(),
                ms(now),
                ms(now + UNSENT_AFTER),
                ms(now + SILENT_AFTER),
            ],
        )?;
        self.db.enqueue_job(now, bridge, &job)?;
        Ok(attempt)
    }

    pub(crate) fn scanned(&mut self, wanted: ActionAttemptId) -> Result<Option<Scan>, StoreError> {
        let found = self.db.one(
            "SELECT * FROM scan_attempt WHERE action_attempt_id = ?1 AND workspace_id = ?2",
            params![wanted.to_string(), self.workspace],
            |row| {
                let error = (row.get::<_, Option<String>>("error_type")?, ErrorText::of(row)?);
                let seen: (Option<Vec<u8>>, Option<AcsCredentialId>) =
                    (row.get("seen")?, maybe_id(row, "acs_credential_id")?);
                Ok((id::<JobId>(row, "job_id")?, row.get::<_, String>("status")?, error, seen))
            },
        )?;
        let Some((job, status, (kind, message), (seen, card))) = found else {
            return Ok(None);
        };
        let state = match (status.as_str(), seen) {
            ("pending", _) => ScanState::Pending,
            ("success", Some(sealed)) => {
                let place = place(wanted);
                let plain = self.db.seal.open(&place, &sealed)?;
                let known = card.map(|card| self.maybe_credential(card)).transpose()?.flatten();
                ScanState::Seen(Box::new(Scanned {
                    card: serde_json::from_slice(&plain)
                        .map_err(|error| StoreError::corrupt(place, error))?,
                    known,
                }))
            }
            _ => ScanState::Error {
                kind: kind.unwrap_or_else(|| "uncategorized_error".into()),
                message: self.open_error(wanted, message)?,
            },
        };
        Ok(Some(Scan { id: wanted, job, state }))
    }

    /// Which card of ours a card is that was read: the rooms must be those of one card that was written, and the end
    /// that of the only such card; or else one that this card, and no other, was written with before. Where the site
    /// itself wrote one that looks the same, it may be either.
    fn known_card(
        &self,
        now: Timestamp,
        system: AcsSystemId,
        seen: &mut Seen,
    ) -> Result<Option<AcsCredentialId>, StoreError> {
        if let Some(number) = &seen.number {
            return self.db.one(
                "SELECT c.acs_credential_id FROM card_serial JOIN acs_credential c USING(access_method_id)
                 WHERE serial = ?1 AND c.workspace_id = ?2",
                params![self.serial_index(number), self.workspace],
                |row| id(row, "acs_credential_id"),
            );
        }
        if !seen.guest || seen.rooms.is_empty() {
            return Ok(None);
        }
        let mut rooms = seen.rooms.clone();
        rooms.sort_unstable();
        let candidates = self.db.all(
            "SELECT c.acs_credential_id, c.ends_at,
                    (SELECT json_group_array(ends_at) FROM ordered_card w
                     WHERE w.access_method_id = c.access_method_id AND w.revision > 0) AS ends_before,
                    (SELECT json_group_array(name) FROM (
                       SELECT e.name FROM acs_entrance e, json_each(o.acs_entrance_ids) door
                       WHERE e.acs_entrance_id = door.value AND e.kind = 'room' ORDER BY e.name)) AS rooms
             FROM acs_credential c JOIN ordered_card o ON o.rowid =
               (SELECT max(rowid) FROM ordered_card w
                WHERE w.access_method_id = c.access_method_id AND w.revision > 0)
             WHERE c.workspace_id = ?1 AND c.acs_system_id = ?2
               AND (c.ends_at = ?3 OR c.ends_at IS NULL OR c.ends_at > ?4)",
            params![self.workspace, system.to_string(), seen.ends_at.map(ms), ms(now)],
            |row| {
                Ok(Candidate {
                    card: id(row, "acs_credential_id")?,
                    ends_at: maybe_time(row, "ends_at")?,
                    ends_before: super::rows::json(row, "ends_before")?,
                    rooms: super::rows::json(row, "rooms")?,
                })
            },
        )?;
        let mut by_the_site = false;
        for room in &rooms {
            let of_room = |own: &&Candidate| own.ends_at == seen.ends_at && own.rooms.contains(room);
            let ours = candidates.iter().filter(of_room).count();
            by_the_site |= self.site_wrote_more(system, room, seen.ends_at, ours)?;
        }
        let of_rooms: Vec<_> = candidates.into_iter().filter(|own| own.rooms == rooms).collect();
        let same_end: Vec<_> = of_rooms.iter().filter(|own| own.ends_at == seen.ends_at).collect();
        let had_it = |own: &&Candidate| own.had_the_end(seen.ends_at);
        let same_end_before: Vec<_> = of_rooms.iter().filter(had_it).collect();
        seen.one_of_several = same_end.len() > 1 || (by_the_site && !same_end.is_empty());
        Ok(match (same_end.as_slice(), same_end_before.as_slice()) {
            ([one], _) | ([], [one]) if !by_the_site => Some(one.card),
            _ => None,
        })
    }

    /// Whether a room has had more cards with this end than were written from here, some of them by the site's own
    /// jobs: by looks they are the same.
    fn site_wrote_more(
        &self,
        system: AcsSystemId,
        room: &str,
        end: Option<Timestamp>,
        ours: usize,
    ) -> Result<bool, StoreError> {
        let printed = self.db.one(
            "SELECT l.printed_ends FROM door_ledger l JOIN acs_system s ON s.bridge_id = l.bridge_id AND s.name = l.system
             WHERE s.acs_system_id = ?1 AND l.room = ?2 AND l.workspace_id = ?3
               AND EXISTS (SELECT 1 FROM local_job j
                           WHERE j.bridge_id = l.bridge_id AND j.system = l.system AND j.kind = ?4
                             AND j.state IN ('succeeded', 'unknown'))",
            params![system.to_string(), room, self.workspace, Kind::CardEncode.as_str()],
            |row| super::rows::json::<Vec<Timestamp>>(row, "printed_ends"),
        )?;
        let same = printed.unwrap_or_default().into_iter().filter(|printed| Some(*printed) == end).count();
        Ok(same > ours)
    }

    fn end_scan(
        &self,
        now: Timestamp,
        attempt: ActionAttemptId,
        kind: &str,
        message: &str,
    ) -> Result<bool, StoreError> {
        let ended = self.db.execute(
            "UPDATE scan_attempt SET status = 'error', error_type = ?3, error_sealed = ?4, ended_at = ?5
             WHERE action_attempt_id = ?1 AND workspace_id = ?2 AND status = 'pending'",
            params![attempt.to_string(), self.workspace, kind, self.seal_error(attempt, message), ms(now)],
        )?;
        Ok(ended > 0)
    }
}

impl Db {
    /// Takes in how a reading ended. Says whether the job is one.
    pub(super) fn scan_reported(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        report: &Report,
    ) -> Result<bool, StoreError> {
        let Some(scan) = self.ordered_scan(bridge, report.job_id)? else {
            return Ok(false);
        };
        let tenant = self.tenant(scan.workspace);
        let Outcome::Succeeded(success) = &report.outcome else {
            let error = attempt_end(&report.outcome).err();
            let (kind, message) = error.map_or(("uncategorized_error", String::new()), |error| {
                (of_reading(error.kind), error.message)
            });
            // What is unknown after a reading is what lies there, not what was done to it.
            let message = match &report.outcome {
                Outcome::Unknown(why) => why.to_string(),
                _ => message,
            };
            tenant.end_scan(now, scan.attempt, kind, &message)?;
            return Ok(true);
        };
        let mut seen = Seen::of(success);
        let known = tenant.known_card(now, scan.system, &mut seen)?;
        let plain =
            serde_json::to_vec(&seen).map_err(|error| StoreError::corrupt("scan_attempt.seen", error))?;
        let sealed = tenant.db.seal.seal(&place(scan.attempt), &plain);
        tenant.db.execute(
            "UPDATE scan_attempt SET status = 'success', seen = ?2, acs_credential_id = ?3, ended_at = ?4
             WHERE action_attempt_id = ?1 AND status = 'pending'",
            params![scan.attempt.to_string(), sealed, known.map(|card| card.to_string()), ms(now)],
        )?;
        Ok(true)
    }

    /// The bridge has forgotten a job that had been handed to it; if it was a reading, that is over.
    pub(super) fn scan_lost(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        job: JobId,
    ) -> Result<(), StoreError> {
        if let Some(scan) = self.ordered_scan(bridge, job)? {
            let why = "The bridge has lost its memory of this reading";
            self.tenant(scan.workspace).end_scan(now, scan.attempt, "bridge_disconnected", why)?;
        }
        Ok(())
    }

    fn ordered_scan(&self, bridge: BridgeId, job: JobId) -> Result<Option<Ordered>, StoreError> {
        self.one(
            "SELECT * FROM scan_attempt WHERE job_id = ?1 AND bridge_id = ?2",
            params![job.to_string(), bridge.to_string()],
            |row: &Row<'_>| {
                Ok(Ordered {
                    workspace: id(row, "workspace_id")?,
                    attempt: id(row, "action_attempt_id")?,
                    system: id(row, "acs_system_id")?,
                })
            },
        )
    }

    /// Ends readings that nobody else will end. Says whether there were any, and when the next is due.
    pub(super) fn end_overdue_scans(
        &mut self,
        now: Timestamp,
    ) -> Result<(bool, Option<Timestamp>), StoreError> {
        let pending = self.all(
            "SELECT * FROM scan_attempt WHERE status = 'pending' ORDER BY unsent_at, rowid",
            [],
            |row| {
                let ids = (id(row, "workspace_id")?, id::<BridgeId>(row, "bridge_id")?);
                let job = (id(row, "action_attempt_id")?, id::<JobId>(row, "job_id")?);
                Ok((ids, job, time(row, "unsent_at")?, time(row, "silent_at")?))
            },
        )?;
        let (mut changed, mut next) = (false, None::<Timestamp>);
        for ((workspace, bridge), (attempt, job), unsent_at, silent_at) in pending {
            let (kind, why) = if unsent_at > now {
                next = Some(next.map_or(unsent_at, |next| next.min(unsent_at)));
                continue;
            } else if !self.was_handed(job)? {
                // It was not handed, so nothing else becomes of it than that it is withdrawn.
                let _ = self.enqueue_cancel(now, bridge, job)?;
                ("bridge_disconnected", "The property's bridge was not connected")
            } else if silent_at > now {
                next = Some(next.map_or(silent_at, |next| next.min(silent_at)));
                continue;
            } else {
                ("encoder_communication_timeout", "The bridge has not said what lies on the encoder")
            };
            changed |= self.tenant(workspace).end_scan(now, attempt, kind, why)?;
        }
        Ok((changed, next))
    }

    /// Forgets readings that ended before an instant. Says how many.
    pub(super) fn forget_scans(&self, ended_before: i64) -> Result<usize, StoreError> {
        self.execute(
            "DELETE FROM scan_attempt WHERE rowid IN (
               SELECT rowid FROM scan_attempt WHERE ended_at < ?1 LIMIT ?2)",
            params![ended_before, SLICE],
        )
    }
}

/// The error types that a reading may have.
fn of_reading(kind: &'static str) -> &'static str {
    match kind {
        "action_attempt_expired"
        | "no_credential_on_encoder"
        | "encoder_not_online"
        | "encoder_communication_timeout"
        | "bridge_disconnected" => kind,
        _ => "uncategorized_error",
    }
}

fn place(attempt: ActionAttemptId) -> String {
    format!("scan_attempt.seen/{attempt}")
}
