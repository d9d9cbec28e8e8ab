//! The front desk's software: asks for guests' cards at the cloud's HTTP API, changes and deletes their grants, and what
//! became of that.
//!
//! A card's end tells whose it is, as for jobs that are ordered otherwise, and for which of the ends that its grant had: a
//! guest has [`ENDS`] numbers, one for each. For each end a guest has one card, however often it is asked for, so the
//! attempts at it are told apart in the cloud's database and not at the device.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use latchd::{
    cloud::store::Db,
    model::{ReservationKey, Verdict},
    seams::Net,
    store::{Store, StoreError},
};
use serde_json::{Value, json};

use super::{
    simulated::api::call,
    world::{Book, first_end, number_by_end, printed_end},
};

/// The number of the first guest; jobs that are ordered otherwise have smaller ones.
pub(super) const FIRST: u64 = 50_000;
/// So many ends, each a minute after the other, may a grant have one after the other.
const ENDS: u64 = 100;

/// What the desk has asked for.
#[derive(Default)]
pub(super) struct Desk {
    /// By the first of each one's numbers.
    pub(super) guests: BTreeMap<u64, Guest>,
    /// Changes and deletions of grants that the cloud has said to have taken.
    pub(super) changes: u64,
}

impl Desk {
    /// Who has a card with this number, if it is one that was asked for.
    pub(super) fn guest_with(&self, number: u64) -> Option<&Guest> {
        self.guests
            .range(..=number)
            .next_back()
            .map(|(_, guest)| guest)
            .filter(|it| it.ends.contains(&number))
    }

    /// The first number of the next guest.
    pub(super) fn next_guest(&self) -> u64 {
        FIRST + self.guests.len() as u64 * ENDS
    }
}

/// Somebody who wants a card.
pub(super) struct Guest {
    pub(super) stay: ReservationKey,
    /// The cloud's names of the grant and of the card, once they were told.
    pub(super) grant: Option<String>,
    pub(super) method: Option<String>,
    /// The numbers of all ends that were asked for.
    pub(super) ends: BTreeSet<u64>,
}

/// Who checks in, and where the card is to be written.
pub(super) struct Wish {
    /// Of the end of the card.
    pub(super) number: u64,
    /// The first of the guest's.
    pub(super) guest: u64,
    pub(super) room: u64,
    /// Which of the encoders.
    pub(super) encoder: usize,
    pub(super) stay: ReservationKey,
}

impl Guest {
    pub(super) fn of(wish: &Wish) -> Self {
        Self { stay: wish.stay.clone(), grant: None, method: None, ends: [wish.number].into() }
    }

    /// An end that this one's grant never had, earlier or later than the one it has.
    pub(super) fn another_end(&mut self, below: impl FnOnce(u64) -> u64) -> u64 {
        let first = self.ends.first().map_or(FIRST, |any| any - (any - FIRST) % ENDS);
        let free: Vec<_> = (first..first + ENDS).filter(|end| !self.ends.contains(end)).collect();
        let end = free[below(free.len() as u64) as usize];
        self.ends.insert(end);
        end
    }
}

/// Makes a guest's grant, and asks for its card.
pub(super) async fn check_in(net: Arc<dyn Net>, book: Arc<Mutex<Book>>, wish: Wish) {
    let Some(doors) = post(&net, "/acs/entrances/list", &json!({})).await else { return };
    let room = wish.room.to_string();
    let door =
        doors["acs_entrances"].as_array().into_iter().flatten().find(|door| door["display_name"] == room);
    let Some(door) = door else { return };
    let grant = json!({
        "user_identity": { "user_identity_key": wish.guest.to_string() },
        "acs_entrance_ids": [door["acs_entrance_id"]],
        "requested_access_methods": [{ "mode": "card" }],
        "reservation_key": wish.stay.as_str(),
        "starts_at": first_end().to_string(),
        "ends_at": printed_end(wish.number).to_string(),
    });
    let Some(made) = post(&net, "/access_grants/create", &grant).await else { return };
    let Some(method) = made["access_grant"]["access_method_ids"][0].as_str() else { return };
    if let Some(guest) = book.lock().unwrap().desk.guests.get_mut(&wish.guest) {
        guest.method = Some(method.to_owned());
        guest.grant = made["access_grant"]["access_grant_id"].as_str().map(str::to_owned);
    }
    encode(net, method.to_owned(), wish.encoder).await;
}

/// Asks for a card that was granted.
pub(super) async fn encode(net: Arc<dyn Net>, method: String, encoder: usize) {
    let Some(encoders) = post(&net, "/acs/encoders/list", &json!({})).await else { return };
    let wanted = json!({
        "access_method_id": method,
        "acs_encoder_id": encoders["acs_encoders"][encoder]["acs_encoder_id"],
    });
    let _ = post(&net, "/access_methods/encode", &wanted).await;
}

/// A guest leaves sooner or later than was said.
pub(super) async fn change_end(net: Arc<dyn Net>, book: Arc<Mutex<Book>>, grant: String, number: u64) {
    let change = json!({ "access_grant_id": grant, "ends_at": printed_end(number).to_string() });
    if post(&net, "/access_grants/update", &change).await.is_some() {
        book.lock().unwrap().desk.changes += 1;
    }
}

/// A guest does not come, or has left.
pub(super) async fn delete(net: Arc<dyn Net>, book: Arc<Mutex<Book>>, grant: String) {
    if post(&net, "/access_grants/delete", &json!({ "access_grant_id": grant })).await.is_some() {
        book.lock().unwrap().desk.changes += 1;
    }
}

/// The answer to a call; none where there is none, or a refusal.
async fn post(net: &Arc<dyn Net>, path: &str, body: &Value) -> Option<Value> {
    call(net, path, body).await?.granted()
}

/// An attempt, what was said of its job, and how its card's method stands, as the cloud's database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    id: String,
    pub(super) job: String,
    pub(super) method: String,
    /// The number of the card that was ordered.
    pub(super) card: u64,
    /// And that of the card which the grant asks for by now; none where the grant is gone.
    pub(super) wanted: Option<u64>,
    pub(super) status: String,
    pub(super) error: Option<String>,
    /// The last word about its job: the cloud's own is 0, the bridge's 1, and 2 what settled a doubt.
    pub(super) said: Option<(u8, String)>,
    pub(super) is_newest: bool,
    pub(super) is_issued: bool,
    pub(super) in_doubt: bool,
}

/// All attempts, in the order in which they were made.
pub(super) fn attempts(db: &mut Db) -> Result<Vec<Attempt>, StoreError> {
    let all = "SELECT a.action_attempt_id, a.access_method_id, o.ends_at, a.status, a.error_type,
                 (SELECT max(revision) FROM job_end e WHERE e.job_id = a.job_id),
                 (SELECT state FROM job_end e WHERE e.job_id = a.job_id ORDER BY revision DESC LIMIT 1),
                 a.rowid = (SELECT max(n.rowid) FROM action_attempt n WHERE n.access_method_id = a.access_method_id),
                 coalesce(c.is_issued, 0), coalesce(c.in_doubt, 0), g.ends_at, a.job_id
               FROM action_attempt a JOIN ordered_card o USING(job_id)
               LEFT JOIN access_method m ON m.access_method_id = a.access_method_id
               LEFT JOIN access_grant g USING(access_grant_id)
               LEFT JOIN card_state c ON c.access_method_id = a.access_method_id
               ORDER BY a.rowid";
    let mut statement = db.connection().prepare(all)?;
    let rows = statement.query_map([], |row| {
        let said: (Option<u8>, Option<String>) = (row.get(5)?, row.get(6)?);
        Ok(Attempt {
            id: row.get(0)?,
            method: row.get(1)?,
            card: number_by_end(row.get(2)?),
            wanted: row.get::<_, Option<i64>>(10)?.map(number_by_end),
            job: row.get(11)?,
            status: row.get(3)?,
            error: row.get(4)?,
            said: said.0.zip(said.1),
            is_newest: row.get(7)?,
            is_issued: row.get(8)?,
            in_doubt: row.get(9)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What somebody can say of a job in doubt whose card, by its number, the device wrote so often. One that another job is
/// known to have written proves nothing about this one; and which of two wrote it of which that is not known, nobody can
/// say.
pub(super) fn verdict(attempts: &[Attempt], job: &str, card: u64, written: usize) -> Option<Verdict> {
    let others = || attempts.iter().filter(|it| it.card == card && it.job != job);
    let written = written.saturating_sub(others().filter(|it| it.is_done()).count());
    match written {
        0 => Some(Verdict::NotDone),
        _ => others().all(Attempt::is_told).then_some(Verdict::Done),
    }
}

/// What was seen of attempts before.
#[derive(Default)]
pub(super) struct Attempts(BTreeMap<String, Attempt>);

impl Attempts {
    /// An attempt ends once, and its method does not leave a doubt by itself.
    pub(super) fn look_at(&mut self, now: Vec<Attempt>, wrong: &mut Vec<String>) {
        for attempt in now {
            let Attempt { id, card, status, error, .. } = &attempt;
            wrong.extend(attempt.contradiction());
            if let Some(before) = self.0.remove(id)
                && before.status != "pending"
                && (&before.status, &before.error) != (status, error)
            {
                wrong.push(format!(
                    "an attempt at card {card} had ended {} and is {status} now",
                    before.words()
                ));
            }
            self.0.insert(id.clone(), attempt);
        }
    }
}

impl Attempt {
    fn words(&self) -> &str {
        self.error.as_deref().unwrap_or(&self.status)
    }

    /// Whether it is believed that the card may have been written in it, and nobody has said more.
    pub(super) fn is_in_doubt(&self) -> bool {
        match &self.said {
            Some((_, state)) => state == "unknown",
            None => self.error.as_deref() == Some("encoding_interrupted"),
        }
    }

    /// Whether it is believed that the card was written in it.
    pub(super) fn is_done(&self) -> bool {
        self.said.as_ref().is_some_and(|(_, state)| state == "succeeded")
    }

    /// Whether its bridge, or who settled its doubt, has said what became of it. The cloud ends an attempt by itself too,
    /// and its job may have been done all the same.
    fn is_told(&self) -> bool {
        self.said.as_ref().is_some_and(|(revision, state)| 0 < *revision && state != "unknown")
    }

    /// What in it does not go together.
    pub(super) fn contradiction(&self) -> Option<String> {
        let Self { card, is_issued, in_doubt, .. } = self;
        if self.is_newest && self.is_in_doubt() && !in_doubt {
            return Some(format!(
                "an attempt at card {card} is {} and nobody has settled it, and its method is not in doubt \
                 (issued: {is_issued})",
                self.words()
            ));
        }
        if *in_doubt && self.status == "pending" {
            return Some(format!("card {card} is being written again while it is in doubt"));
        }
        let said = self.said.as_ref().map(|(_, state)| state.as_str());
        if self.status == "success" && said != Some("succeeded") {
            return Some(format!("an attempt at card {card} is success and its job {said:?}"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attempt at the card 1, and the last word about its job.
    fn attempt(job: &str, error: Option<&str>, said: Option<(u8, &str)>) -> Attempt {
        Attempt {
            id: job.into(),
            job: job.into(),
            method: "m".into(),
            card: 1,
            wanted: Some(1),
            status: if error.is_some() { "error" } else { "success" }.into(),
            error: error.map(Into::into),
            said: said.map(|(revision, state)| (revision, state.into())),
            is_newest: false,
            is_issued: false,
            in_doubt: false,
        }
    }

    /// What is said of the first job where the card was written so often, and a second job is as that.
    fn said(written: usize, error: Option<&str>, said: Option<(u8, &str)>) -> Option<Verdict> {
        let doubt = attempt("first", Some("encoding_interrupted"), Some((1, "unknown")));
        verdict(&[doubt, attempt("second", error, said)], "first", 1, written)
    }

    #[test]
    fn a_card_that_another_job_may_have_written_settles_no_doubt() {
        assert_eq!(said(1, None, Some((1, "succeeded"))), Some(Verdict::NotDone));
        assert_eq!(said(2, None, Some((1, "succeeded"))), Some(Verdict::Done));
        assert_eq!(said(1, Some("uncategorized_error"), Some((1, "failed"))), Some(Verdict::Done));
        assert_eq!(said(1, Some("encoding_interrupted"), Some((2, "failed"))), Some(Verdict::Done));
        // What the bridge has not said yet may be that it was the second one.
        for (error, word) in [
            (Some("encoding_interrupted"), None),
            (Some("encoding_interrupted"), Some((1, "unknown"))),
            (Some("action_attempt_expired"), None),
            (Some("bridge_disconnected"), Some((0, "expired"))),
        ] {
            assert_eq!(said(1, error, word), None, "{error:?} {word:?}");
            assert_eq!(said(0, error, word), Some(Verdict::NotDone), "{error:?} {word:?}");
        }
    }
}
