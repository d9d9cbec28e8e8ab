//! A job as a person writes it: JSON, judged field by field, every mistake at once.
//!
//! What is wrong is named by its field; what stands in a field that may hold a PIN or a guest's name is never repeated.

use std::{cell::RefCell, fmt};

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{
    agent::admin::NewJob,
    model::{
        AccessMethodId, DeviceName, DoorName, EncoderName, JobId, Kind, Order, Priority, ReservationKey,
        SystemName, Window,
    },
    seams::Random,
};

/// How long a job may wait to be begun where it does not say so: a person stands there.
const EXPIRES_IN: SignedDuration = SignedDuration::from_mins(10);
/// And how long at most.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(366 * 24);
/// How long a card may take to be laid down where the order does not say so, in seconds.
const CARD_WAIT: u16 = 60;

/// What is wrong with a job.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistakes(Vec<String>);

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// Reads a job. What an order needs and a person need not say comes from `random`.
///
/// # Errors
/// Every mistake that could be found.
pub(super) fn read(text: &str, random: &Random) -> Result<NewJob, Mistakes> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Mistakes(vec![format!("this is not JSON, at line {line} column {column}")])
    })?;
    let notes = Notes::default();
    let job = Fields::of(&notes, "", &value).and_then(|fields| job(&fields, random));
    match (job, notes.0.into_inner()) {
        (Some(job), mistakes) if mistakes.is_empty() => Ok(job),
        (_, mistakes) => Err(Mistakes(mistakes)),
    }
}

fn job(fields: &Fields<'_>, random: &Random) -> Option<NewJob> {
    let system: Option<SystemName> = fields.must("system", "the access system it is for");
    let priority: Option<Priority> = fields.may("priority", "\"desk\" or \"background\"");
    let job_id: Option<JobId> = fields.may("job_id", "a UUID");
    let wait = match fields.may::<String>("expires_in", "a length of time like \"10m\"") {
        Some(text) => {
            let wait = text.parse::<SignedDuration>().ok();
            let wait = wait.filter(|wait| (SignedDuration::from_secs(1)..=LONGEST_WAIT).contains(wait));
            if wait.is_none() {
                fields.wrong("expires_in", "expected a length of time from \"1s\" to \"366d\", like \"10m\"");
            }
            wait
        }
        None => Some(EXPIRES_IN),
    };
    let order = fields.inner("order", "what to do: an object with its `kind`");
    let order = order.and_then(|fields| self::order(&fields, random));
    fields.no_more();
    Some(NewJob {
        job_id,
        system: system?,
        priority: priority.unwrap_or(Priority::Desk),
        expires_in_seconds: u32::try_from(wait?.as_secs()).ok()?,
        order: order?,
    })
}

fn order(fields: &Fields<'_>, random: &Random) -> Option<Order> {
    let kinds = Kind::ALL.map(Kind::as_str).join(", ");
    let kind: Kind = fields.must("kind", &format!("one of {kinds}"))?;
    let mut defaults = Map::new();
    match kind {
        Kind::CardEncode => {
            fields.must::<EncoderName>("encoder", "the encoder on which the card will lie");
            fields.must::<Vec<DoorName>>("doors", "a list of the doors it shall open");
            fields.may::<ReservationKey>("reservation_key", "the stay, for rooms");
            window(fields);
            fields.may::<AccessMethodId>("access_method_id", "a UUID");
            fields.may::<String>("guest_name", "a text");
            fields.may::<bool>("begin_again", "true if the card begins its stay anew, else false");
            defaults.insert("reservation_key".into(), Value::Null);
            defaults.insert("access_method_id".into(), json!(AccessMethodId(random.uuid())));
            card_wait(fields, &mut defaults);
        }
        Kind::CardRead => {
            fields.must::<EncoderName>("encoder", "the encoder on which the card will lie");
            card_wait(fields, &mut defaults);
        }
        Kind::StayModify => {
            fields.must::<DoorName>("room", "the room that the stay holds now");
            fields.may::<DoorName>("to_room", "the room that it shall hold");
            fields.must::<ReservationKey>("reservation_key", "the stay that must hold the room");
            fields.must::<Timestamp>("ends_at", "the new end, like \"2026-11-22T12:00:00Z\"");
            defaults.insert("to_room".into(), Value::Null);
        }
        Kind::StayCheckout => {
            fields.must::<DoorName>("room", "the room to free");
            fields.must::<ReservationKey>("reservation_key", "the stay that must hold the room");
        }
        Kind::SlotPut => {
            device(fields);
            fields.must::<String>("slot", "the key of the entry");
            if let Some(content) = fields.inner("content", "an object with `pin` or `card_number`") {
                let held = [
                    content.may::<String>("pin", "digits in quotes"),
                    content.may::<String>("card_number", "a text"),
                ];
                if held.iter().flatten().count() != 1 && !notes_about(fields, "order.content") {
                    fields.wrong("content", "expected one of `pin` and `card_number`");
                }
                content.no_more();
            }
            window(fields);
            fields.must::<u64>("generation", "a number that grows with every change of the entry");
        }
        Kind::SlotRemove => {
            device(fields);
            fields.must::<String>("slot", "the key of the entry");
        }
        Kind::DeviceUnlock | Kind::DeviceRead => device(fields),
        Kind::InventoryRefresh => {}
    }
    fields.no_more();
    if notes_about(fields, "order") {
        return None;
    }
    let whole = defaults.into_iter().chain(fields.object.clone()).collect();
    let order = serde_json::from_value(Value::Object(whole)).ok();
    if order.is_none() {
        fields.wrong("kind", "this order cannot be read as one of its kind");
    }
    order
}

fn notes_about(fields: &Fields<'_>, place: &str) -> bool {
    fields.notes.0.borrow().iter().any(|mistake| mistake.starts_with(place))
}

fn device(fields: &Fields<'_>) {
    fields.must::<DeviceName>("device", "the device's name");
}

fn card_wait(fields: &Fields<'_>, defaults: &mut Map<String, Value>) {
    let wait = fields.may::<u16>("card_wait_seconds", "a number of seconds from 5 to 600");
    if wait.is_some_and(|wait| !(5..=600).contains(&wait)) {
        fields.wrong("card_wait_seconds", "expected a number of seconds from 5 to 600");
    }
    defaults.insert("card_wait_seconds".into(), json!(CARD_WAIT));
}

fn window(fields: &Fields<'_>) {
    let Some(window) = fields.inner("window", "an object with `starts_at` and `ends_at`") else { return };
    let starts_at: Option<Timestamp> = window.must("starts_at", "a time like \"2026-11-22T12:00:00Z\"");
    let ends_at: Option<Timestamp> = window.may("ends_at", "a time like \"2026-11-22T12:00:00Z\"");
    window.no_more();
    if let Some(starts_at) = starts_at
        && let Err(error) = Window::new(starts_at, ends_at)
    {
        fields.wrong("window", &error.to_string());
    }
}

/// What was found to be wrong.
#[derive(Default)]
struct Notes(RefCell<Vec<String>>);

/// The fields of one object.
struct Fields<'v> {
    notes: &'v Notes,
    place: String,
    object: &'v Map<String, Value>,
    known: RefCell<Vec<&'static str>>,
}

impl<'v> Fields<'v> {
    fn of(notes: &'v Notes, place: &str, value: &'v Value) -> Option<Self> {
        let Value::Object(object) = value else {
            let at = if place.is_empty() { "the job" } else { place };
            notes.0.borrow_mut().push(format!("{at}: expected an object in braces"));
            return None;
        };
        Some(Self { notes, place: place.into(), object, known: RefCell::default() })
    }

    fn wrong(&self, field: &str, problem: &str) {
        self.notes.0.borrow_mut().push(format!("{}: {problem}", self.at(field)));
    }

    fn at(&self, field: &str) -> String {
        if self.place.is_empty() { field.into() } else { format!("{}.{field}", self.place) }
    }

    fn find(&self, field: &'static str) -> Option<&'v Value> {
        self.known.borrow_mut().push(field);
        self.object.get(field).filter(|value| !value.is_null())
    }

    /// A field that has to be there.
    fn must<T: DeserializeOwned>(&self, field: &'static str, what: &str) -> Option<T> {
        match self.find(field) {
            Some(value) => self.parsed(field, value, what),
            None => {
                self.wrong(field, &format!("missing; expected {what}"));
                None
            }
        }
    }

    /// A field that may be there.
    fn may<T: DeserializeOwned>(&self, field: &'static str, what: &str) -> Option<T> {
        self.find(field).and_then(|value| self.parsed(field, value, what))
    }

    fn parsed<T: DeserializeOwned>(&self, field: &str, value: &Value, what: &str) -> Option<T> {
        let parsed = T::deserialize(value).ok();
        if parsed.is_none() {
            self.wrong(field, &format!("expected {what}"));
        }
        parsed
    }

    /// A field that is an object of its own, and has to be there.
    fn inner(&self, field: &'static str, what: &str) -> Option<Self> {
        match self.find(field) {
            Some(value) => Self::of(self.notes, &self.at(field), value),
            None => {
                self.wrong(field, &format!("missing; expected {what}"));
                None
            }
        }
    }

    /// Whatever else stands there is a mistake.
    fn no_more(&self) {
        let known = self.known.borrow();
        for field in self.object.keys().filter(|field| !known.contains(&field.as_str())) {
            self.wrong(field, &format!("unknown here; known are {}", known.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SlotContent;

    fn mistakes(job: &Value) -> String {
        read(&job.to_string(), &Random::seeded(1)).unwrap_err().to_string()
    }

    fn card() -> Value {
        json!({
            "system": "salto",
            "order": {
                "kind": "card.encode",
                "encoder": "1",
                "doors": ["0101"],
                "reservation_key": "stay-1",
                "window": { "starts_at": "2026-11-22T12:00:00Z", "ends_at": "2026-11-24T10:00:00Z" },
            },
        })
    }

    #[test]
    fn what_a_person_need_not_say_is_added() {
        let job = read(&card().to_string(), &Random::seeded(1)).unwrap();
        assert_eq!((job.priority, job.expires_in_seconds, job.job_id), (Priority::Desk, 600, None));
        let Order::CardEncode(card) = job.order else { panic!("a card") };
        assert_eq!((card.card_wait_seconds, card.doors[0].as_str()), (60, "0101"));
    }

    #[test]
    fn an_order_of_every_kind_can_be_written() {
        let window = json!({ "starts_at": "2026-11-22T12:00:00Z" });
        for order in [
            json!({ "kind": "card.read", "encoder": "1", "card_wait_seconds": 20 }),
            json!({ "kind": "stay.modify", "room": "101", "reservation_key": "a", "ends_at": "2026-11-22T12:00:00Z" }),
            json!({ "kind": "stay.checkout", "room": "101", "reservation_key": "a" }),
            json!({ "kind": "slot.put", "device": "d", "slot": "s", "content": { "pin": "4711" }, "window": window, "generation": 1 }),
            json!({ "kind": "slot.remove", "device": "d", "slot": "s" }),
            json!({ "kind": "device.unlock", "device": "d" }),
            json!({ "kind": "device.read", "device": "d" }),
            json!({ "kind": "inventory.refresh" }),
        ] {
            let job = json!({ "system": "s", "order": order, "expires_in": "2h", "priority": "background" });
            let read = read(&job.to_string(), &Random::seeded(1)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(read.order.kind().as_str(), order["kind"], "{order}");
            assert_eq!(read.expires_in_seconds, 7200);
            if let Order::SlotPut(slot) = read.order {
                assert!(matches!(slot.content, SlotContent::Pin(_)));
            }
        }
    }

    #[test]
    fn every_mistake_is_named_by_its_field_and_all_at_once() {
        let mut job = card();
        job["expires_in"] = json!("soon");
        job["sistem"] = json!("salto");
        job["order"]["doors"] = json!("0101");
        job["order"]["encoder"] = Value::Null;
        job["order"]["window"]["ends_at"] = json!("2026-11-20T00:00:00Z");
        let told = mistakes(&job);
        for wanted in [
            "expires_in: expected a length of time",
            "sistem: unknown here; known are system, priority",
            "order.doors: expected a list",
            "order.encoder: missing; expected the encoder",
            "order.window: ends_at",
        ] {
            assert!(told.contains(wanted), "{wanted:?} is missing in {told}");
        }
        assert!(mistakes(&json!([])).contains("the job: expected an object"));
        assert!(mistakes(&json!({ "system": "s" })).contains("order: missing"));
        assert!(
            mistakes(&json!({ "system": "s", "order": { "kind": "card.staff" } }))
                .contains("order.kind: expected one of card.encode")
        );
        assert!(read("{\n nonsense", &Random::seeded(1)).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn a_pin_or_a_name_in_the_wrong_form_is_not_repeated() {
        let slot = |content: Value| {
            json!({ "system": "s", "order": {
                "kind": "slot.put", "device": "d", "slot": "s", "content": content,
                "window": { "starts_at": "2026-11-22T12:00:00Z" }, "generation": 1,
            } })
        };
        for content in
            [json!({ "pin": 998_877 }), json!("998877"), json!({ "pin": "998877", "card_number": "1" })]
        {
            let told = mistakes(&slot(content));
            assert!(told.starts_with("order.content") && !told.contains("998877"), "{told}");
        }
        let mut job = card();
        job["order"]["guest_name"] = json!({ "last": "Quicksilver" });
        assert_eq!(mistakes(&job), "order.guest_name: expected a text");
    }
}
