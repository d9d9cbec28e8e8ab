//! Every published value of August and Yale locks, against the codec; what was recorded of a client of theirs, against
//! the pretend lock, too.

#![expect(clippy::unwrap_used, reason = "a test's helpers may stop it")]

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use latchd::{
    drivers::august_yale::{
        codec::{
            self, COMMAND_NOTIFY, COMMAND_WRITE, Chains, Frame, Key, LENGTH, Part, SECURE_NOTIFY,
            SECURE_WRITE, Secure, SecureChannel, SecureOp,
        },
        message::{Access, Activity, Answer, Ask, Bolt, Command, Held, Pin, ResultCode, Slot},
        sim::{AugustLock, Settings},
    },
    sim::ble::peripheral::{Act, Peripheral},
};
use serde::Deserialize;

const KEY: &str = "438b544da1ffd82510a973d5ff9853bb";
const KEY_SLOT: u8 = 3;
const FIRST: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
const SECOND: [u8; 8] = [0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8];
const LOCKS: [u8; 8] = [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18];

#[derive(Deserialize)]
struct Vector {
    id: String,
    direction: String,
    description: String,
    bytes_hex: String,
}

/// The vectors, and which of them were looked at.
struct Vectors {
    all: BTreeMap<u16, Vector>,
    used: BTreeSet<u16>,
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pin(digits: &str) -> Pin {
    Pin::new(digits).unwrap()
}

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn chains() -> Chains {
    Chains::new(&codec::session_key(FIRST, LOCKS))
}

impl Vectors {
    fn load() -> Self {
        let all: Vec<Vector> = serde_json::from_str(include_str!("vectors/august-yale-ble.json")).unwrap();
        let numbered = all
            .into_iter()
            .map(|vector| (vector.id.strip_prefix("august-yale-ble-").unwrap().parse().unwrap(), vector));
        Self { all: numbered.collect(), used: BTreeSet::new() }
    }

    fn take(&mut self, number: u16) -> [u8; LENGTH] {
        self.used.insert(number);
        unhex(&self.all[&number].bytes_hex).try_into().unwrap()
    }

    /// A frame of the handshake: in clear, and as the value after it.
    fn secure(&mut self, number: u16, frame: &Secure, channel: &SecureChannel) {
        let (clear, wire) = (self.take(number), self.take(number + 1));
        assert_eq!(hex(&frame.spell()), hex(&clear), "vector {number}");
        assert_eq!(Secure::read(&clear), Ok(*frame), "vector {number}");
        assert_eq!(hex(&channel.seal(frame)), hex(&wire), "vector {}", number + 1);
        assert_eq!(channel.open(&wire), Ok(*frame), "vector {}", number + 1);
    }

    /// A command: in clear, and as the value after it.
    fn sent(&mut self, number: u16, command: &Command, chains: &mut Chains) {
        let (clear, wire) = (self.take(number), self.take(number + 1));
        assert_eq!(hex(&command.frame().spell()), hex(&clear), "vector {number}");
        assert_eq!(hex(&chains.seal(&command.frame())), hex(&wire), "vector {}", number + 1);
    }

    /// What the lock says to a command: in clear, and as the value after it.
    fn answered(&mut self, number: u16, command: &Command, expected: Answer, chains: &mut Chains) {
        let (clear, wire) = (self.take(number), self.take(number + 1));
        let frame = Frame::read(&clear).unwrap();
        assert_eq!(hex(&frame.spell()), hex(&clear), "vector {number}");
        assert_eq!(chains.open(&wire), Ok(frame), "vector {}", number + 1);
        assert_eq!(command.answer(&frame), Some(expected), "vector {number}");
    }
}

#[test]
fn every_vector_is_spelled_and_read() {
    let mut vectors = Vectors::load();
    handshake(&mut vectors);
    commands(&mut vectors);
    answers(&mut vectors);
    let removal = Command::ClearPin { pin: pin("121290"), slot: slot(0) };
    assert_eq!(hex(&removal.frame().spell()), hex(&vectors.take(59)));
    recorded(&mut vectors);

    // Vectors that no check can use, each with its reason.
    let excused: BTreeMap<u16, &str> = BTreeMap::new();
    let all: BTreeSet<u16> = vectors.all.keys().copied().collect();
    let accounted: BTreeSet<u16> = vectors.used.iter().chain(excused.keys()).copied().collect();
    assert_eq!(all, accounted, "each vector is used or excused");
    assert_eq!(all.len(), 83);
}

fn handshake(vectors: &mut Vectors) {
    let before = SecureChannel::new(&Key::from_hex(KEY).unwrap());
    let after = SecureChannel::new(&codec::session_key(FIRST, LOCKS));
    let locks = |op, data| Secure { op, data, tail: [0, 0] };
    vectors.secure(1, &Secure::ours(SecureOp::Exchange, FIRST, KEY_SLOT), &before);
    vectors.secure(3, &locks(SecureOp::Exchanged, LOCKS), &before);
    vectors.secure(5, &Secure::ours(SecureOp::Initialise, SECOND, KEY_SLOT), &after);
    vectors.secure(7, &locks(SecureOp::Initialised, SECOND), &after);
}

fn commands(vectors: &mut Vectors) {
    let mut chains = chains();
    let window = Access::window(at("2026-12-01T15:00:00Z"), at("2026-12-03T11:00:00Z")).unwrap();
    let commands = [
        Command::Status(Ask::Lock),
        Command::SetClock(1_796_137_200),
        Command::Clear(slot(2)),
        Command::SetPin(pin("123456")),
        Command::SetAccess(window),
        Command::Commit { pin: pin("123456"), slot: slot(2) },
        Command::ReadSlot(slot(2)),
        Command::SetAccess(Access::Always),
        Command::SetPin(pin("12345")),
        Command::Clear(slot(300)),
        Command::Unlock,
        Command::Lock,
        Command::PopActivity,
        Command::Status(Ask::Battery),
    ];
    for (number, command) in (9..).step_by(2).zip(&commands) {
        vectors.sent(number, command, &mut chains);
    }
}

fn answers(vectors: &mut Vectors) {
    let mut chains = chains();
    let commit = Command::Commit { pin: pin("123456"), slot: slot(2) };
    let read = Command::ReadSlot(slot(2));
    let keypad = Activity::Keypad { at: at("2026-12-01T15:01:00Z"), slot: 2 };
    let answers = [
        (&commit, Answer::Received),
        (&commit, Answer::Done),
        (&commit, Answer::No(ResultCode(0x06))),
        (&commit, Answer::No(ResultCode(0x07))),
        (&commit, Answer::No(ResultCode(0x3e))),
        (&read, Answer::Holds(Held::Pin(pin("123456")))),
        (&read, Answer::Holds(Held::Nothing)),
        (&Command::Status(Ask::Lock), Answer::Bolt(Bolt::Locked)),
        (&Command::Status(Ask::Battery), Answer::Battery { millivolts: 5960 }),
        (&Command::PopActivity, Answer::Activity(Some(keypad))),
        (&Command::PopActivity, Answer::Activity(None)),
    ];
    for (number, (command, expected)) in (37..).step_by(2).zip(answers) {
        vectors.answered(number, command, expected, &mut chains);
    }
}

/// What another client of such locks said, and what it was told.
fn recorded(vectors: &mut Vectors) {
    let mut lock = AugustLock::new(Settings {
        serial: "L1GFY00KUZ".into(),
        key: unhex(KEY).try_into().unwrap(),
        key_slot: KEY_SLOT,
        slots: 10,
        nonce: LOCKS,
    });
    let now = at("2026-12-01T15:00:00Z");
    // The slot that is cleared held something.
    lock.control(now, "put 2 4711").unwrap();
    lock.connected(now);
    let expected = [
        Command::Status(Ask::Lock),
        Command::Status(Ask::Battery),
        Command::Unlock,
        Command::Clear(slot(2)),
        Command::SetPin(pin("123456")),
        Command::SetAccess(Access::Always),
        Command::Commit { pin: pin("123456"), slot: slot(2) },
    ];
    let mut commands = expected.iter();
    let (mut up, mut down) = (chains(), chains());
    let mut told = Vec::new();
    let mut asked = &expected[0];
    for number in 60..=83 {
        let value = vectors.take(number);
        let vector = &vectors.all[&number];
        let is_secure = vector.description.ends_with('3') || vector.description.ends_with('4');
        if vector.direction == "client->lock" {
            assert!(told.is_empty(), "before vector {number} the lock tells {told:?}");
            let to = if is_secure { SECURE_WRITE } else { COMMAND_WRITE };
            if !is_secure {
                asked = commands.next().unwrap();
                assert_eq!(hex(&up.seal(&asked.frame())), hex(&value), "vector {number}");
            }
            told = lock.write(now, to, &value).unwrap();
        } else {
            let Act::Notify { from, value: said, .. } = told.remove(0) else {
                panic!("the lock hangs up at vector {number}");
            };
            assert_eq!(from, if is_secure { SECURE_NOTIFY } else { COMMAND_NOTIFY }, "vector {number}");
            assert_eq!(hex(&said), hex(&value), "vector {number}");
            if !is_secure {
                let frame = down.open(&value).unwrap();
                let answer = asked.answer(&frame).unwrap();
                assert_eq!(answer == Answer::Received, frame.part == Part::Received, "vector {number}");
                assert!(!matches!(answer, Answer::No(_)), "vector {number}");
            }
        }
    }
    assert!(commands.next().is_none());
    let slots = lock.control(now, "slots").unwrap();
    assert!(slots.contains("123456") && !slots.contains("4711"), "{slots}");
}
