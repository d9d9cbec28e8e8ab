//! The world as JSON, for the control socket.

use jiff::civil::DateTime;
use serde_json::{Map, Value, json};

use super::{
    cards::{Card, Content},
    world::{Encoder, Room, World},
};

impl World {
    /// For each door, which cards would open it now.
    pub(super) fn doors(&self, now: DateTime) -> Value {
        let openers = |door: &String| -> Vec<&String> {
            let opens = |card: &Card| self.judge(card, door, now).is_ok();
            self.cards.iter().filter(|(_, card)| opens(card)).map(|(name, _)| name).collect()
        };
        let doors = self.rooms.keys().chain(self.common.keys());
        doors.map(|door| (door.clone(), json!(openers(door)))).collect::<Map<_, _>>().into()
    }

    /// Every card: what is on it and where it lies.
    pub(super) fn cards(&self) -> Value {
        let lies = |card: &String| {
            let mut encoders = self.encoders.iter();
            encoders.find_map(|(name, encoder)| (encoder.card.as_ref() == Some(card)).then_some(name))
        };
        let show = |(name, card): (&String, &Card)| {
            let mut shown = match &card.content {
                Content::Other(kind) => json!({ "kind": kind.name() }),
                Content::Guest(guest) => json!({
                    "kind": "guest",
                    "rooms": guest.keys.iter().map(|(room, stay)| json!({ "room": room, "stay": stay }))
                        .collect::<Vec<_>>(),
                    "start": guest.start,
                    "expiry": guest.expiry,
                    "common": self.common.iter().filter(|(_, n)| guest.authorisations.contains(n))
                        .map(|(name, _)| name).collect::<Vec<_>>(),
                    "copy": guest.copy.mark(),
                    "operator": guest.operator,
                }),
            };
            shown["serial"] = json!(card.serial);
            shown["lies_on"] = json!(lies(name));
            (name.clone(), shown)
        };
        self.cards.iter().map(show).collect::<Map<_, _>>().into()
    }

    /// Every room: what the database and the lock think.
    pub(super) fn rooms(&self) -> Value {
        let show = |(name, room): (&String, &Room)| {
            let stay = room
                .stay
                .as_ref()
                .map(|stay| json!({ "number": stay.number, "copies": stay.copies, "expiry": stay.expiry }));
            let room = json!({
                "stay": stay,
                "last_stay": room.last_stay,
                "lock_has_seen": room.lock,
                "out_of_service": room.out_of_service,
            });
            (name.clone(), room)
        };
        self.rooms.iter().map(show).collect::<Map<_, _>>().into()
    }

    /// Every encoder: the card on it and whether it works.
    pub(super) fn encoders(&self) -> Value {
        let show = |(name, encoder): (&String, &Encoder)| {
            let shown = json!({ "card": encoder.card, "busy": encoder.busy.is_some() });
            (name.clone(), shown)
        };
        self.encoders.iter().map(show).collect::<Map<_, _>>().into()
    }
}
