//! What lock servers and doors show: the tapes of what was written, and which cards open what.

use jiff::{SignedDuration, Timestamp, civil::DateTime};
use serde_json::Value;

use super::{Desk, Method, STAFF, Writing, text};

/// How long a card that was read may let others join its stay, with what a command may take on its way.
const PROOF: SignedDuration = SignedDuration::from_mins(14);

impl Desk {
    /// Reads what came of orders on the tapes of the lock servers.
    pub(crate) async fn read_tapes(&mut self) {
        for place in 0..self.town.systems.len() {
            let ledger = self.town.systems[place].say("ledger").await;
            let noted = &mut self.town.systems[place].noted;
            let orders = ledger["orders"].as_array().unwrap().iter();
            let mut ended: Vec<_> = orders
                .filter(|order| order["ended_as"].is_u64() && noted.insert(order["n"].as_u64().unwrap()))
                .collect();
            ended.sort_by_key(|order| order["ended_as"].as_u64());
            for order in ended {
                self.take_note(place, order);
            }
        }
    }

    fn take_note(&mut self, system: usize, order: &Value) {
        let field = |n: usize| order["fields"][n].as_str().unwrap_or_default();
        let at: Timestamp = order["ended_at"].as_str().unwrap().parse().unwrap();
        match (field(0).get(..2).unwrap_or_default(), order["result"].as_str().unwrap()) {
            ("CN" | "CC", "written") => {
                let card = (system, text(&order["card"]));
                let end = DateTime::strptime("%H%M%d%m%y", field(10)).unwrap();
                let written_at = self.town.model.local(at).strftime("%H:%M:%S");
                let what = field(0);
                self.town
                    .note(format_args!("tape: {what} {} was written at {written_at}, until {end}", card.1));
                let Some((grant, window)) = self.town.model.grant_by_end(end) else {
                    let wrong = format!("{} is written until {end}, and nobody asked for that", card.1);
                    return self.town.wrong.push(wrong);
                };
                self.town.model.wrote(&card, grant, window, at);
                let of_grant = |it: &&(usize, &Method)| it.1.grant == grant && it.1.system == system;
                let methods = self.methods.iter().enumerate().filter(|it| of_grant(&it));
                let Some((method, it)) =
                    methods.max_by_key(|(number, it)| (!it.is_deleted, it.attempts > 0, *number))
                else {
                    return;
                };
                let writing = Writing { card, method, attempt: it.attempts, is_claimed: false };
                self.writings.push(writing);
            }
            ("CO", "done") => {
                let room = (system, field(2).to_owned());
                self.town.note(format_args!("tape: {} is checked out", room.1));
                self.town.model.freed(&room);
                self.checked_out.insert(room, at);
            }
            ("LT", "done") => {
                for room in order["read"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    self.town.systems[system].proven_until.insert(room.to_owned(), at + PROOF);
                }
            }
            _ => {}
        }
    }

    /// Compares every card in existence with every door.
    pub(crate) async fn judge(&mut self) {
        self.read_tapes().await;
        let now = self.town.now();
        for place in 0..self.town.systems.len() {
            let doors = self.town.systems[place].say("doors").await["doors"].clone();
            for (door, openers) in doors.as_object().unwrap() {
                // Staff cards open everything, and nobody promised otherwise.
                let openers = openers.as_array().unwrap().iter().map(text).filter(|it| it != STAFF).collect();
                let wrong = self.town.model.judge(&(place, door.clone()), &openers, now);
                self.town.wrong.extend(wrong);
            }
        }
        let circles = self.town.circles();
        self.town.wrong.extend(circles);
    }
}
