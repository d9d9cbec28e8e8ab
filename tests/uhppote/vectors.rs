//! Every published frame, read field by field and spelled again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use jiff::civil::{Date, DateTime, Time};
use latchd::drivers::uhppote::{
    reply::{Answer, Pushed, Reply},
    request::Request,
    values::{Card, Device, DoorControl, Event, Held, Listener, Status, TimeProfile},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
pub(crate) struct Vector {
    pub(crate) id: String,
    direction: String,
    bytes_hex: String,
    decoded: Map<String, Value>,
}

impl Vector {
    pub(crate) fn all() -> Vec<Self> {
        serde_json::from_str(include_str!("../vectors/uhppote.json")).unwrap()
    }

    pub(crate) fn is_request(&self) -> bool {
        self.direction == "host->device"
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let pairs = self.bytes_hex.as_bytes().chunks(2);
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// The fields that say something about the function: not its head, nor the magic word.
    fn fields(&self) -> Map<String, Value> {
        let head = ["som", "function", "serial", "magic"];
        self.decoded.clone().into_iter().filter(|(key, _)| !head.contains(&key.as_str())).collect()
    }

    fn serial(&self) -> Option<u64> {
        self.decoded.get("serial").and_then(Value::as_u64)
    }
}

#[test]
fn every_vector_is_read_and_spelled() {
    let vectors = Vector::all();
    let mut used = BTreeSet::new();
    for vector in &vectors {
        let (id, bytes) = (&vector.id, vector.bytes());
        let (serial, shown, spelled) = match vector.direction.as_str() {
            "host->device" => {
                let (serial, request) = Request::decode(&bytes).unwrap();
                (serial, of_request(&request), request.encode(serial).unwrap())
            }
            "device->host" => {
                let reply = Reply::decode(&bytes).unwrap();
                (reply.serial, of_answer(&reply.answer), reply.encode().unwrap())
            }
            "device->host (event)" => {
                let event = Pushed::decode(&bytes).unwrap();
                assert_eq!(event.is_old, vector.decoded["som"] == 0x19, "{id}");
                (event.serial, of_status(&event.status), event.encode().unwrap())
            }
            other => panic!("{id}: {other}"),
        };
        if let Some(expected) = vector.serial() {
            assert_eq!(u64::from(serial), expected, "{id}");
        }
        if shown == json!({ "index": 0 }) {
            // A record that is not there: its other bytes say nothing, and are not spelled.
            assert_eq!((&vector.decoded["index"], &bytes[..12]), (&json!(0), &spelled[..12]), "{id}");
        } else {
            assert_eq!(shown, Value::Object(vector.fields()), "{id}");
            assert_eq!(spelled.to_vec(), bytes, "{id}");
        }
        used.insert(id.clone());
    }

    // Vectors that no check can use, each with its reason.
    let excused: BTreeMap<String, &str> = BTreeMap::new();
    let all: BTreeSet<_> = vectors.iter().map(|vector| vector.id.clone()).collect();
    let accounted: BTreeSet<_> = used.iter().chain(excused.keys()).cloned().collect();
    assert_eq!(all, accounted, "each vector is used or excused");
    assert_eq!(all.len(), 90);
}

fn merged(parts: impl IntoIterator<Item = Value>) -> Value {
    let mut all = Map::new();
    for part in parts {
        let Value::Object(part) = part else { panic!("{part} has no fields") };
        all.extend(part);
    }
    all.into()
}

fn maybe_date(date: Option<Date>) -> Value {
    date.map_or(Value::Null, |date| json!(date.to_string()))
}

fn maybe_time(time: Option<DateTime>) -> Value {
    time.map_or(Value::Null, |time| json!(time.to_string()))
}

fn minute(time: Time) -> String {
    time.strftime("%H:%M").to_string()
}

fn switch(on: bool) -> u8 {
    u8::from(on)
}

fn days(days: &[bool; 7]) -> Value {
    let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    names.into_iter().zip(days).map(|(name, day)| (name.to_owned(), json!(switch(*day)))).collect()
}

fn numbered(name: &str, tail: &str, values: &[bool]) -> Value {
    let one = |(n, value): (usize, &bool)| (format!("{name}{}{tail}", n + 1), json!(switch(*value)));
    values.iter().enumerate().map(one).collect()
}

fn of_card(card: &Card) -> Value {
    json!({
        "card": card.number.expose(), "from": card.from.to_string(), "to": card.to.to_string(),
        "door1": card.doors[0], "door2": card.doors[1], "door3": card.doors[2], "door4": card.doors[3],
        "pin": card.pin.expose(), "first_card_bits": card.first_card,
    })
}

fn no_card(number: u32) -> Value {
    json!({
        "card": number, "from": null, "to": null, "door1": 0, "door2": 0, "door3": 0, "door4": 0, "pin": 0,
        "first_card_bits": 0,
    })
}

fn of_profile(profile: &TimeProfile) -> Value {
    let [first, second, third] = profile.segments.map(|(start, end)| (minute(start), minute(end)));
    let rest = json!({
        "profile": profile.id, "from": profile.from.to_string(), "to": profile.to.to_string(),
        "s1_start": first.0, "s1_end": first.1, "s2_start": second.0, "s2_end": second.1,
        "s3_start": third.0, "s3_end": third.1, "linked": profile.linked,
    });
    merged([rest, days(&profile.days)])
}

fn no_profile() -> Value {
    let rest = json!({
        "profile": 0, "from": null, "to": null, "s1_start": "00:00", "s1_end": "00:00", "s2_start": "00:00",
        "s2_end": "00:00", "s3_start": "00:00", "s3_end": "00:00", "linked": 0,
    });
    merged([rest, days(&[false; 7])])
}

fn of_listener(listener: &Listener) -> Value {
    json!({ "ip": listener.address.to_string(), "port": listener.port, "interval": listener.every })
}

fn of_control(control: &DoorControl) -> Value {
    json!({ "door": control.door, "mode": control.mode as u8, "delay": control.delay })
}

fn of_network(address: &Ipv4Addr, mask: &Ipv4Addr, gateway: &Ipv4Addr) -> Value {
    json!({ "ip": address.to_string(), "mask": mask.to_string(), "gateway": gateway.to_string() })
}

fn of_device(device: &Device) -> Value {
    let mac: Vec<_> = device.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    let [major, minor] = device.version;
    let rest = json!({
        "mac": mac.join(":"), "version": format!("v{major:x}.{minor:02x}"), "released": maybe_date(device.released),
    });
    merged([of_network(&device.address, &device.mask, &device.gateway), rest])
}

fn of_event(event: &Event) -> Value {
    json!({
        "index": event.index, "type": event.kind, "granted": switch(event.granted), "door": event.door,
        "direction": event.direction, "card": event.card.expose(), "timestamp": maybe_time(event.at),
        "reason": event.reason,
    })
}

fn of_status(status: &Status) -> Value {
    let rest = json!({
        "system_error": status.error, "system_time": status.time.to_string(), "sequence": status.sequence,
        "special_info": status.special, "relays": status.relays, "inputs": status.inputs,
        "system_date": maybe_date(status.date),
    });
    let doors = numbered("door", "_open", &status.open);
    merged([of_event(&status.event), doors, numbered("door", "_button", &status.buttons), rest])
}

fn of_request(request: &Request) -> Value {
    match request {
        Request::SetAddress { address, mask, gateway } => of_network(address, mask, gateway),
        Request::SetTime(time) => json!({ "time": time.to_string() }),
        Request::SetListener(listener) => of_listener(listener),
        Request::SetDoorControl(control) => of_control(control),
        Request::GetDoorControl(door) | Request::OpenDoor(door) => json!({ "door": door }),
        Request::PutCard(card) => of_card(card),
        Request::DeleteCard(card) | Request::GetCard(card) => json!({ "card": card.expose() }),
        Request::GetCardByIndex(index) | Request::GetEvent(index) | Request::SetEventIndex(index) => {
            json!({ "index": index })
        }
        Request::SetTimeProfile(profile) => of_profile(profile),
        Request::GetTimeProfile(id) => json!({ "profile": id }),
        Request::SetDoorPasscodes { door, codes: [a, b, c, d] } => json!({
            "door": door, "code1": a.expose(), "code2": b.expose(), "code3": c.expose(), "code4": d.expose(),
        }),
        Request::ActivateKeypads(readers) => numbered("reader", "", readers),
        Request::SetAntiPassback(mode) => json!({ "mode": *mode as u8 }),
        Request::SetInterlock(mode) => json!({ "mode": *mode as u8 }),
        Request::SetPcControl(on) | Request::RecordSpecialEvents(on) => json!({ "enable": switch(*on) }),
        Request::AddTask(task) => {
            let rest = json!({
                "from": task.from.to_string(), "to": task.to.to_string(), "start": minute(task.start),
                "door": task.door, "task": task.task, "more_cards": task.more_cards,
            });
            merged([rest, days(&task.days)])
        }
        // No vector has it: the independent client's encoder judges it.
        Request::SetFirstCard(_) => panic!("{request:?}"),
        Request::GetDevice
        | Request::GetTime
        | Request::GetStatus
        | Request::GetListener
        | Request::DeleteAllCards
        | Request::CountCards
        | Request::ClearTimeProfiles
        | Request::GetAntiPassback
        | Request::ClearTasks
        | Request::RefreshTasks
        | Request::GetEventIndex
        | Request::RestoreDefaults => json!({}),
    }
}

fn of_answer(answer: &Answer) -> Value {
    match answer {
        Answer::Done(done) => json!({ "ok": switch(*done) }),
        Answer::Device(device) => of_device(device),
        Answer::Time(time) => json!({ "time": maybe_time(*time) }),
        Answer::Status(status) => of_status(status),
        Answer::Listener(listener) => of_listener(listener),
        Answer::DoorControl(control) => of_control(control),
        Answer::Cards(count) => json!({ "count": count }),
        Answer::Card(Held::Card(card)) => of_card(card),
        Answer::Card(Held::Nothing) => no_card(0),
        Answer::Card(Held::Deleted) => no_card(u32::MAX),
        Answer::TimeProfile(Some(profile)) => of_profile(profile),
        Answer::TimeProfile(None) => no_profile(),
        Answer::AntiPassback(mode) => json!({ "mode": *mode as u8 }),
        Answer::Event(Some(event)) => of_event(event),
        Answer::Event(None) | Answer::EventIndex(0) => json!({ "index": 0 }),
        Answer::EventIndex(index) => json!({ "index": index }),
    }
}
