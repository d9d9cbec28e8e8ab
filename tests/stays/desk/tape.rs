//! What lock servers and doors show: the tapes of what was written, and which cards open what.

use jiff::{SignedDuration, Timestamp, civil::DateTime};
use serde_json::Value;

use super::{Desk, Method, STAFF, Writing, text};
use crate::{
    model::{Door, Grant, Plastic},
    site::Sharing,
};

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
                let of_grant = |it: &&(usize, &Method)| it.1.grant == grant && it.1.system == system;
                let methods = self.methods.iter().enumerate().filter(|it| of_grant(&it));
                let Some((method, it)) =
                    methods.max_by_key(|(number, it)| (!it.is_deleted, it.orders > 0, *number))
                else {
                    return self.town.wrong.push(format!("{} is written, and nobody asked for it", card.1));
                };
                let begins_again = it.begins_again.unwrap_or(what.starts_with("CN"));
                self.wrote(card, method, window, at, begins_again);
            }
            ("CO", "done") => {
                let room = (system, field(2).to_owned());
                self.town.note(format_args!("tape: {} is checked out", room.1));
                self.town.model.freed(&room);
                self.ends_told.remove(&room);
                self.checked_out.insert(room, at);
            }
            ("MC", "done") => {
                let (room, end) = ((system, field(1).to_owned()), field(3));
                self.stay_was_changed(&room, DateTime::strptime("%H%M%d%m%y", end).unwrap());
            }
            ("LT", "done") => {
                for room in order["read"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    self.town.systems[system].proven_until.insert(room.to_owned(), at + PROOF);
                }
            }
            _ => {}
        }
    }

    fn wrote(
        &mut self,
        card: Plastic,
        method: usize,
        window: (Timestamp, Timestamp),
        at: Timestamp,
        begins_again: bool,
    ) {
        let Method { grant, system, .. } = self.methods[method];
        let Grant { stay, rooms, .. } = &self.town.model.grants[grant];
        for room in rooms.iter().filter(|room| room.0 == system) {
            // A stay that begins has the end of its card.
            if begins_again || self.town.model.stay_in(room) != Some(stay.as_str()) {
                self.ends_told.remove(room);
            }
        }
        if begins_again {
            self.loss.begun_again(system, stay);
            self.town.tally(|tally| tally.begun_again += 1);
        }
        self.town.model.wrote(&card, grant, window, at, begins_again);
        self.writings.push(Writing { card, method, at, told: None });
    }

    /// A lock server was told that the stay in a room ends then.
    fn stay_was_changed(&mut self, room: &Door, end: DateTime) {
        let model = &self.town.model;
        let stay = model.stay_in(room).unwrap_or("somebody else").to_owned();
        self.town.note(format_args!("tape: the stay in {} ends at {end}, and it is of {stay}", room.1));
        let model = &self.town.model;
        let of_stay = model.grants.iter().filter(|grant| grant.stay == stay);
        let mut asked = of_stay.flat_map(|grant| &grant.windows);
        let is_assumed = self.town.systems[room.0].sharing == Sharing::AssumeUnchanged;
        if !is_assumed && !asked.any(|(_, until)| model.printed(*until) == end) {
            let wrong =
                format!("the stay in {} is to end at {end}, and nobody of {stay} asked for that", room.1);
            self.town.wrong.push(wrong);
        }
        self.ends_told.insert(room.clone(), end);
        self.town.tally(|tally| tally.ends_told += 1);
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
