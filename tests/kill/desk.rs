//! The people of a house: who orders cards, and who lays them down.

use std::{
    path::PathBuf,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use latchd::{seams::Random, sim::control::BlockingClient};
use serde_json::{Value, json};

use crate::site::{Site, until};

/// What the desks share.
pub(crate) struct House {
    pub(crate) folder: PathBuf,
    entrances: Vec<(String, Value)>,
    encoders: Vec<(String, Value)>,
    /// From which every card's end is counted; each has one of its own, by which the lock server's orders are known.
    first_end: Timestamp,
    cards: AtomicU64,
    blanks: AtomicU64,
    is_closed: AtomicBool,
    orders: Mutex<u64>,
    ordered: Condvar,
    pub(crate) made: Mutex<Vec<Made>>,
}

/// A card that somebody wanted.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) method: String,
    /// The end as the lock server reads it.
    pub(crate) end: String,
    pub(crate) attempts: Vec<String>,
    /// Its grant was deleted, or somebody was about to.
    pub(crate) is_unwanted: bool,
}

/// Closes the house when dropped.
pub(crate) struct Opened<'a>(&'a House);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
    }
}

impl House {
    pub(crate) fn new(site: &Site) -> Self {
        let rooms = ["101", "102", "103", "104", "105"];
        let named = rooms.iter().map(ToString::to_string).zip(site.entrances(&rooms)).collect();
        let encoders = ["1", "2"].map(|name| (name.to_owned(), site.encoder(name))).into();
        let tomorrow = Timestamp::now() + SignedDuration::from_hours(24);
        let folder = site.folder.path().to_owned();
        control(&folder).send("set card-wait 700").unwrap();
        Self {
            folder,
            entrances: named,
            encoders,
            first_end: Timestamp::from_second(tomorrow.as_second() / 60 * 60).unwrap(),
            cards: AtomicU64::new(0),
            blanks: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            orders: Mutex::new(0),
            ordered: Condvar::new(),
            made: Mutex::new(Vec::new()),
        }
    }

    /// Desks work until this is dropped.
    pub(crate) fn open(&self) -> Opened<'_> {
        Opened(self)
    }

    /// Waits for the next order that somebody begins to give, but not for long.
    pub(crate) fn next_order(&self, within: Duration) {
        let orders = self.orders.lock().unwrap();
        let before = *orders;
        drop(self.ordered.wait_timeout_while(orders, within, |now| *now == before).unwrap());
    }

    pub(crate) fn gives_order(&self) {
        *self.orders.lock().unwrap() += 1;
        self.ordered.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }
}

/// The lock server's control socket.
pub(crate) fn control(folder: &std::path::Path) -> BlockingClient {
    BlockingClient::connect(folder.join("property/salto-is.ctl")).unwrap()
}

/// Asks until the cloud answers: it may be dead, or die with the question.
fn asked(site: &Site, path: &str, body: &Value) -> (u16, Value) {
    until("the cloud answers", || site.try_call(path, body))
}

/// Somebody at the desk: a card after the other for this encoder.
pub(crate) fn desk(house: &House, site: &Site, encoder: &str, random: &Random) {
    let encoder = &house.encoders.iter().find(|(name, _)| name == encoder).unwrap().1;
    while !house.is_closed() {
        let card = house.cards.fetch_add(1, Ordering::SeqCst);
        let end = house.first_end + SignedDuration::from_mins(i64::try_from(card).unwrap());
        let room = usize::try_from(random.below(house.entrances.len() as u64)).unwrap();
        // A guest who stays alone, or who shares the room with the one before.
        let stay = if random.below(4) == 0 { card / 8 } else { card };
        let grant = json!({
            "user_identity": { "full_name": "Jane Doe" },
            "acs_entrance_ids": [house.entrances[room].1],
            "requested_access_methods": [{ "mode": "card" }],
            "reservation_key": format!("stay {stay} in {}", house.entrances[room].0),
            "access_grant_key": format!("grant {card}"),
            "starts_at": Timestamp::now(),
            "ends_at": end,
        });
        let (status, answer) = asked(site, "/access_grants/create", &grant);
        let grant = match status {
            200 => answer["access_grant"].clone(),
            // It had been made, and the answer died with the cloud.
            _ if answer.to_string().contains("access_grant_key") => {
                let (status, answer) = asked(
                    site,
                    "/access_grants/get",
                    &json!({ "access_grant_key": format!("grant {card}") }),
                );
                assert_eq!(status, 200, "{answer}");
                answer["access_grant"].clone()
            }
            _ => panic!("{status} {answer}"),
        };
        let method = grant["access_method_ids"][0].clone();
        let local = end.to_zoned(TimeZone::get("Europe/Oslo").unwrap());
        house.made.lock().unwrap().push(Made {
            method: method.as_str().unwrap().to_owned(),
            end: local.strftime("%H%M%d%m%y").to_string(),
            attempts: Vec::new(),
            is_unwanted: false,
        });
        house.gives_order();
        let body = json!({ "access_method_id": method, "acs_encoder_id": encoder });
        let (status, answer) = asked(site, "/access_methods/encode", &body);
        if status != 200 {
            // It had been ordered and has ended already; the answer died with the cloud.
            assert!((400..500).contains(&status), "{status} {answer}");
            continue;
        }
        let attempt = answer["action_attempt"]["action_attempt_id"].as_str().unwrap().to_owned();
        let note = |what: &dyn Fn(&mut Made)| {
            let mut made = house.made.lock().unwrap();
            what(made.iter_mut().find(|made| method == made.method.as_str()).unwrap());
        };
        note(&|made| made.attempts.push(attempt.clone()));
        let delete = |site: &Site| {
            note(&|made| made.is_unwanted = true);
            let body = json!({ "access_grant_id": grant["access_grant_id"] });
            let (status, answer) = asked(site, "/access_grants/delete", &body);
            assert!(status == 200 || status == 404, "{status} {answer}");
        };
        // Somebody changes their mind.
        if random.below(8) == 0 {
            delete(site);
        }
        until("the attempt ends", || {
            let (status, answer) =
                site.try_call("/action_attempts/get", &json!({ "action_attempt_id": attempt }))?;
            assert_eq!(status, 200, "{answer}");
            (answer["action_attempt"]["status"] != "pending").then_some(())
        });
        if random.below(4) == 0 {
            delete(site);
        }
    }
}

/// Who stands at an encoder: lays cards down when it asks for one, but not always.
pub(crate) fn hands(house: &House, site: &Site, encoder: &str, random: &Random) {
    let mut control = control(site.folder.path());
    let mut say = |words: String| control.send(&words);
    while !house.is_closed() {
        if say(format!("wait card-wait {encoder} within 300")).is_err() {
            continue;
        }
        if random.below(8) > 0 {
            let card = house.blanks.fetch_add(1, Ordering::SeqCst);
            say(format!("place card-{card} on {encoder}")).unwrap();
        }
        say(format!("wait idle {encoder} within 120000")).unwrap();
        say(format!("remove {encoder}")).unwrap();
    }
}
