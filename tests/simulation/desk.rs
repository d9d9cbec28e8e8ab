//! The front desk's software: asks for guests' cards at the cloud's HTTP API, and what became of that.
//!
//! A card's end tells whose it is, as for jobs that are ordered otherwise; a guest has one card, however often it is
//! asked for, so its attempts are told apart in the cloud's database and not at the device.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use latchd::{
    cloud::store::Db,
    model::ReservationKey,
    seams::Net,
    store::{Store, StoreError},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::world::{API, Book, first_end, number_by_end, printed_end};

/// What the desk's software shows at the API.
pub(super) const KEY: &str = "seam_simulation";
/// The number of the first guest; jobs that are ordered otherwise have smaller ones.
pub(super) const FIRST: u64 = 50_000;
/// A client that is not answered gives up.
const PATIENCE: Duration = Duration::from_secs(40);

/// What the desk has asked for.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) guests: BTreeMap<u64, Guest>,
}

/// Somebody who wants a card.
pub(super) struct Guest {
    pub(super) stay: ReservationKey,
    /// The cloud's name of the card, once it was told.
    pub(super) method: Option<String>,
}

/// Who checks in, and where the card is to be written.
pub(super) struct Wish {
    pub(super) number: u64,
    pub(super) room: u64,
    /// Which of the encoders.
    pub(super) encoder: usize,
    pub(super) stay: ReservationKey,
}

impl Guest {
    pub(super) fn of(wish: &Wish) -> Self {
        Self { stay: wish.stay.clone(), method: None }
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
        "user_identity": { "user_identity_key": wish.number.to_string() },
        "acs_entrance_ids": [door["acs_entrance_id"]],
        "requested_access_methods": [{ "mode": "card" }],
        "reservation_key": wish.stay.as_str(),
        "starts_at": first_end().to_string(),
        "ends_at": printed_end(wish.number).to_string(),
    });
    let Some(made) = post(&net, "/access_grants/create", &grant).await else { return };
    let Some(method) = made["access_grant"]["access_method_ids"][0].as_str() else { return };
    if let Some(guest) = book.lock().unwrap().desk.guests.get_mut(&wish.number) {
        guest.method = Some(method.to_owned());
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

/// The answer to a call; none where there is none, or a refusal.
async fn post(net: &Arc<dyn Net>, path: &str, body: &Value) -> Option<Value> {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: cloud\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut stream = net.connect("cloud", API).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(PATIENCE, exchange).await.ok()?.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    tracing::debug!(target: "simulation", path, body, "the API answered");
    head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).ok())?
}

/// An attempt, what was said of its job, and how its card's method stands, as the cloud's database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    id: String,
    method: String,
    /// Whose card it is.
    pub(super) guest: u64,
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
    let all = "SELECT a.action_attempt_id, a.access_method_id, g.ends_at, a.status, a.error_type,
                 (SELECT max(revision) FROM job_end e WHERE e.job_id = a.job_id),
                 (SELECT state FROM job_end e WHERE e.job_id = a.job_id ORDER BY revision DESC LIMIT 1),
                 a.rowid = (SELECT max(n.rowid) FROM action_attempt n WHERE n.access_method_id = a.access_method_id),
                 coalesce(c.is_issued, 0), coalesce(c.in_doubt, 0)
               FROM action_attempt a JOIN access_method m USING(access_method_id)
               JOIN access_grant g USING(access_grant_id) LEFT JOIN card_state c USING(access_method_id)
               ORDER BY a.rowid";
    let mut statement = db.connection().prepare(all)?;
    let rows = statement.query_map([], |row| {
        let said: (Option<u8>, Option<String>) = (row.get(5)?, row.get(6)?);
        Ok(Attempt {
            id: row.get(0)?,
            method: row.get(1)?,
            guest: number_by_end(row.get(2)?),
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

/// What was seen of attempts before.
#[derive(Default)]
pub(super) struct Attempts(BTreeMap<String, Attempt>);

impl Attempts {
    /// An attempt ends once, and its method does not leave a doubt by itself.
    pub(super) fn look_at(&mut self, now: Vec<Attempt>, wrong: &mut Vec<String>) {
        for attempt in now {
            let Attempt { id, guest, status, error, .. } = &attempt;
            wrong.extend(attempt.contradiction());
            if let Some(before) = self.0.remove(id)
                && before.status != "pending"
                && (&before.status, &before.error) != (status, error)
            {
                wrong.push(format!(
                    "an attempt at the card of guest {guest} had ended {} and is {status} now",
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

    /// What in it does not go together.
    pub(super) fn contradiction(&self) -> Option<String> {
        let Self { guest, is_issued, in_doubt, .. } = self;
        if self.is_newest && self.is_in_doubt() && !in_doubt {
            return Some(format!(
                "an attempt at the card of guest {guest} is {} and nobody has settled it, and its method is not in doubt \
                 (issued: {is_issued})",
                self.words()
            ));
        }
        if *in_doubt && self.status == "pending" {
            return Some(format!("the card of guest {guest} is being written again while it is in doubt"));
        }
        let said = self.said.as_ref().map(|(_, state)| state.as_str());
        if self.status == "success" && said != Some("succeeded") {
            return Some(format!("an attempt at the card of guest {guest} is success and its job {said:?}"));
        }
        None
    }
}
