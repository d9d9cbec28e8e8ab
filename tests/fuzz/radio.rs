//! What is thrown at locks with a radio and at who speaks to them.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};
use latchd::{
    drivers::{august_yale as august, ttlock},
    model::Private,
    sim::ble::peripheral::{Act, Peripheral},
    transport::ble::gatt::{Heard, Talk, Want},
};
use uuid::Uuid;

/// More turns than any conversation has.
const TURNS: usize = 200_000;
const PIN: &str = "135790";

fn now() -> Timestamp {
    "2026-12-01T10:00:00Z".parse().expect("a time")
}

/// Plays a conversation in which these values are notified, one whenever something is waited for, and then nothing more.
fn rehearse<T: Talk>(talk: &mut T, from: Uuid, values: &[Vec<u8>]) -> (T::Done, Vec<T::Note>, usize) {
    let (mut now, mut values) = (Instant::now(), values.iter());
    let (mut notes, mut written) = (Vec::new(), 0);
    for _ in 0..TURNS {
        match talk.poll(now) {
            Want::Subscribe(_) => {}
            Want::Write { value, .. } => written += usize::from(!value.is_empty()),
            Want::Wait { until } => match values.next() {
                Some(value) => talk.handle(now, Heard::Value { from, value }),
                None => {
                    now = until.max(now);
                    talk.handle(now, Heard::Timeout);
                }
            },
            Want::Note(note) => notes.push(note),
            Want::Done(done) => return (done, notes, written),
        }
    }
    panic!("a conversation has no end");
}

/// Plays a conversation with a pretend lock over a link that each byte does something to, as long as there are any.
fn disturb<T: Talk>(talk: &mut T, lock: &mut dyn Peripheral, bytes: &[u8]) -> T::Done {
    let mut bytes = bytes.iter().copied();
    let began = Instant::now();
    let mut now = began;
    let mut acts: VecDeque<(Instant, Act)> = VecDeque::new();
    let (mut subscribed, mut open) = (Vec::new(), true);
    let time = |at: Instant| self::now() + (at - began);
    lock.connected(time(now));
    for _ in 0..TURNS {
        match talk.poll(now) {
            Want::Subscribe(_) | Want::Write { .. } if !open => talk.handle(now, Heard::Closed),
            Want::Subscribe(to) => subscribed.push(to),
            Want::Write { to, mut value, .. } => {
                let what = bytes.next().unwrap_or(0);
                match what % 8 {
                    1 => continue,
                    2 => {
                        open = false;
                        lock.disconnected(time(now));
                        talk.handle(now, Heard::Closed);
                        continue;
                    }
                    3 => {
                        let at = usize::from(what / 8) % value.len().max(1);
                        if let Some(byte) = value.get_mut(at) {
                            *byte ^= 1 << (what % 7);
                        }
                    }
                    4 => {
                        talk.handle(now, Heard::Refused);
                        continue;
                    }
                    _ => {}
                }
                match lock.write(time(now), to, &value) {
                    Ok(more) => acts.extend(more.into_iter().map(|act| match act {
                        Act::Notify { after, .. } | Act::HangUp { after } => (now + after, act),
                    })),
                    Err(_) => talk.handle(now, Heard::Refused),
                }
                acts.make_contiguous().sort_by_key(|(due, _)| *due);
            }
            Want::Wait { until } => match acts.front() {
                Some((due, _)) if open && *due <= until => {
                    let (due, act) = acts.pop_front().expect("it was there");
                    now = now.max(due);
                    match act {
                        Act::Notify { from, mut value, .. } if subscribed.contains(&from) => {
                            let what = bytes.next().unwrap_or(0);
                            let at = usize::from(what / 8) % value.len().max(1);
                            match what % 8 {
                                1 => continue,
                                2 => talk.handle(now, Heard::Value { from, value: &value }),
                                3 => {
                                    if let Some(byte) = value.get_mut(at) {
                                        *byte ^= 1 << (what % 7);
                                    }
                                }
                                4 => value.truncate(at),
                                5 => value.fill(what),
                                _ => {}
                            }
                            talk.handle(now, Heard::Value { from, value: &value });
                        }
                        Act::Notify { .. } => {}
                        Act::HangUp { .. } => {
                            open = false;
                            lock.disconnected(time(now));
                            talk.handle(now, Heard::Closed);
                        }
                    }
                }
                _ => {
                    now = until.max(now);
                    talk.handle(now, Heard::Timeout);
                }
            },
            Want::Note(_) => {}
            Want::Done(done) => {
                if open {
                    lock.disconnected(time(now));
                }
                return done;
            }
        }
    }
    panic!("a conversation has no end");
}

/// Parts of an input, each with its length before it.
fn parts(mut bytes: &[u8], longest: usize) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (part, rest) = rest.split_at(usize::from(*length).min(rest.len()).min(longest));
        parts.push(part.to_vec());
        bytes = rest;
    }
    parts
}

/// What stands where a TTLock is expected, and what is written to one.
pub(crate) fn ttlock(bytes: &[u8]) {
    use ttlock::{
        advertisement,
        codec::{Decoded, Header, Key, LONGEST, decode, encode},
        message::{Numbers, Span},
        record,
        session::{Came, Content, Conversation, Keys, Manners, NOTIFY, Note, Task, WRITE},
        sim::{Pairing, TtLock},
    };

    let mut rest = bytes;
    loop {
        let used = match decode(rest) {
            Decoded::Need => break,
            Decoded::Noise { used } | Decoded::Damaged { used } | Decoded::Frame { used, .. } => used,
        };
        assert!(0 < used && used <= rest.len(), "{used}");
        rest = &rest[used..];
    }
    let _ = record::number(&String::from_utf8_lossy(bytes));
    if let Some((company, data)) = bytes.split_first_chunk::<2>() {
        let _ = advertisement::read(u16::from_le_bytes(*company), data);
    }

    let (key, numbers) = ([9; 16], Numbers { admin: 970_456_745, unlock: 344_382_141 });
    let header = Header { scene: 7, ..Header::UNKNOWN };
    let keys = || Keys { header, key: Key::new(key), numbers, flag_position: 0 };
    let conversation = |task: &Task| {
        let manners = Manners {
            answer_timeout: Duration::from_secs(5),
            now: now(),
            zone: TimeZone::UTC,
            keys: match task {
                Task::Introduce => Keys::of_nobody(numbers),
                _ => keys(),
            },
            features: None,
        };
        Conversation::new(task.clone(), manners)
    };
    let span = Span {
        starts_at: jiff::civil::date(2026, 12, 1).at(9, 0, 0, 0),
        ends_at: Some(jiff::civil::date(2026, 12, 3).at(11, 0, 0, 0)),
    };
    let content = Content::Pin(Private::new(PIN));
    let put = Task::Put { content: content.clone(), span, may_hold: vec![] };
    let remove = Task::Remove { may_hold: vec![content.clone()] };
    let tasks = [
        Task::Look,
        put.clone(),
        remove.clone(),
        Task::ProvePut { content: content.clone(), span, may_hold: vec![content] },
        Task::Enrol { span },
        Task::Unlock,
        Task::Watch { from: 3 },
        Task::Introduce,
        Task::Admit,
    ];
    // As it came, and as what a lock would say with the right key.
    let raw: Vec<Vec<u8>> = bytes.chunks(20).map(<[u8]>::to_vec).collect();
    let spoken = |key: &Key| {
        let answers = parts(bytes, LONGEST);
        let frames = answers
            .iter()
            .map(|clear| encode(header, if clear.first() == Some(&0x19) { 0x19 } else { 0x54 }, clear, key));
        frames.collect::<Vec<_>>()
    };
    for task in &tasks {
        let key = if *task == Task::Introduce { Key::FACTORY } else { Key::new(key) };
        for values in [&raw, &spoken(&key)] {
            let (came, notes, _) = rehearse(&mut conversation(task), NOTIFY, values);
            let left = notes.iter().filter(|note| **note == Note::Leaves).count();
            assert!(left <= 1, "told once");
            let changes = matches!(
                task,
                Task::Put { .. } | Task::Remove { .. } | Task::Enrol { .. } | Task::Unlock | Task::Admit
            );
            match came {
                Came::Done => assert_eq!(left, usize::from(changes), "{task:?}"),
                Came::Doubt(_) => assert!(left == 1 || !changes, "{task:?}"),
                Came::NothingSent(_) | Came::NotDone(_) => {}
            }
        }
    }

    // A lock that hears any bytes, and one that is spoken to over a bad link.
    let pairing = Pairing { key, admin: numbers.admin, unlock: numbers.unlock, flag_position: 0 };
    let lock = || TtLock::paired("Room 7", [1, 2, 3, 4, 5, 6], pairing, now());
    let mut stranger = lock();
    stranger.connected(now());
    for value in &raw {
        let _ = stranger.write(now(), WRITE, value);
    }
    let mut lock = lock();
    for (task, holds) in [(put, true), (remove, false)] {
        let came = disturb(&mut conversation(&task), &mut lock, bytes);
        let slots = lock.control(now(), "slots").expect("it has a table");
        if came == Came::Done {
            assert_eq!(slots.contains(PIN), holds, "{slots}");
        }
    }
}

/// What stands where an August lock is expected, and what is written to one.
pub(crate) fn august_yale(bytes: &[u8]) {
    use august::{
        codec::{
            COMMAND_NOTIFY, COMMAND_WRITE, Chains, Frame, Key, OfflineKey, SECURE_NOTIFY, SECURE_WRITE,
            Secure, SecureChannel,
        },
        message::{Access, Ask, Command, Pin, Slot},
        session::{Came, Conversation, Manners, Note},
        sim::{AugustLock, Settings},
        task::{Before, Change, Motion, Task},
    };

    let (key, slot) = ([9; 16], Slot::new(20).expect("a slot"));
    let pin = || Pin::new(PIN).expect("a PIN");
    let _ = (Secure::read(bytes), SecureChannel::new(&Key::new(key)).open(bytes));
    let mut chains = Chains::new(&Key::new(key));
    for value in bytes.chunks(18) {
        let _ = chains.open(value);
        if let Ok(frame) = Frame::read(value) {
            for command in [
                Command::Status(Ask::Lock),
                Command::Status(Ask::Battery),
                Command::ReadSlot(slot),
                Command::Clear(slot),
                Command::Commit { pin: pin(), slot },
                Command::PopActivity,
                Command::Unlock,
            ] {
                let _ = command.answer(&frame);
            }
        }
    }
    let conversation = |task: &Task| {
        let key = OfflineKey { key: Key::new(key), slot: 3 };
        Conversation::new(task.clone(), Manners { key, nonces: Key::new([7; 16]), now: now() })
    };
    let change = Change::Put { slot, pin: pin(), access: Access::Always };
    let put = Task::Change(change.clone());
    let remove = Task::Change(Change::Remove { slot });
    let values = parts(bytes, 20);
    for task in [
        Task::Look { battery: true },
        put.clone(),
        remove.clone(),
        Task::Prove(change, Before::Unknown),
        Task::Move(Motion::Unlock),
        Task::Log { at_most: 3 },
        Task::Read(vec![slot]),
    ] {
        for from in [SECURE_NOTIFY, COMMAND_NOTIFY] {
            let (came, notes, _) = rehearse(&mut conversation(&task), from, &values);
            let left = notes.iter().filter(|note| **note == Note::Leaves).count();
            assert!(left <= 1, "told once");
            if matches!(task, Task::Change(_) | Task::Move(_)) {
                // Nobody but the lock has its key.
                assert_ne!(came, Came::Done, "{task:?}");
            }
        }
    }
    let settings = || Settings { serial: "M100001".into(), key, key_slot: 3, slots: 100, nonce: [5; 8] };
    let mut stranger = AugustLock::new(settings());
    stranger.connected(now());
    for value in bytes.chunks(18) {
        for to in [SECURE_WRITE, COMMAND_WRITE] {
            let _ = stranger.write(now(), to, value);
        }
    }
    let mut lock = AugustLock::new(settings());
    for (task, holds) in [(put, true), (remove, false)] {
        let came = disturb(&mut conversation(&task), &mut lock, bytes);
        let slots = lock.control(now(), "slots").expect("it has a table");
        if came == Came::Done {
            assert_eq!(slots.contains(PIN), holds, "{slots}");
        }
    }
}
