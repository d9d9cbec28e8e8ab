//! Conversations byte by byte, against a lock that is written by hand.

use std::time::{Duration, Instant};

use aes::{
    Aes128,
    cipher::{BlockModeEncrypt, KeyIvInit},
};
use uuid::Uuid;

use super::*;
use crate::drivers::august_yale::{message::Pin, task::Motion};

const SESSION: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A conversation, its clock, and the lock's own chain.
struct Script {
    talk: Conversation,
    now: Instant,
    chain: cbc::Encryptor<Aes128>,
}

fn manners() -> Manners {
    Manners {
        key: OfflineKey { key: Key::from_hex("438b544da1ffd82510a973d5ff9853bb").unwrap(), slot: 3 },
        nonces: Key::from_hex("0102030405060708a1a2a3a4a5a6a7a8").unwrap(),
        now: "2026-12-01T15:00:00Z".parse().unwrap(),
    }
}

impl Script {
    fn new(task: Task) -> Self {
        Self::of(Conversation::new(task, manners()))
    }

    fn of(talk: Conversation) -> Self {
        Self { talk, now: Instant::now(), chain: cbc::Encryptor::new(&SESSION.into(), &[0; 16].into()) }
    }

    /// The next thing wanted that is no note, and the notes before it.
    fn wanted(&mut self) -> (Vec<Note>, Want<Came, Note>) {
        let mut notes = Vec::new();
        loop {
            match self.talk.poll(self.now) {
                Want::Note(note) => notes.push(note),
                want => return (notes, want),
            }
        }
    }

    fn listens(&mut self, from: Uuid) {
        let (_, want) = self.wanted();
        assert!(want == Want::Subscribe(from), "it should listen to {from}");
    }

    fn writes(&mut self, to: Uuid, expected: &str) -> Vec<Note> {
        match self.wanted() {
            (notes, Want::Write { to: target, value, kind: WriteKind::Request }) => {
                assert_eq!((target, hex(&value).as_str()), (to, expected));
                notes
            }
            _ => panic!("it should write {expected}"),
        }
    }

    /// It waits for just this long; then that time has passed.
    fn waits(&mut self, long: Duration) {
        match self.wanted() {
            (_, Want::Wait { until }) => assert_eq!(until - self.now, long),
            _ => panic!("it should wait for {long:?}"),
        }
        self.now += long;
        self.talk.handle(self.now, Heard::Timeout);
    }

    fn hears(&mut self, from: Uuid, value: &[u8]) {
        self.talk.handle(self.now, Heard::Value { from, value });
    }

    /// The lock says this, given in clear.
    fn is_told(&mut self, clear: &str) {
        let mut value = unhex(clear);
        assert_eq!(value.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 256, 0, "{clear}");
        let block: &mut [u8; 16] = value.first_chunk_mut().unwrap();
        self.chain.encrypt_block(block.into());
        self.hears(COMMAND_NOTIFY, &value);
    }

    fn came(&mut self) -> Came {
        match self.wanted() {
            (_, Want::Done(came)) => came,
            _ => panic!("it should be over"),
        }
    }

    /// The published handshake.
    fn greet(&mut self) {
        self.listens(SECURE_NOTIFY);
        self.writes(SECURE_WRITE, "d7d543457fa5a2233b60a649ed38118d0f03");
        self.hears(SECURE_NOTIFY, &unhex("7f01d98750d61f57cb2717f391d2a1cb0000"));
        self.writes(SECURE_WRITE, "d8a6b73c4ab33ef282b66ece7f87c7330f03");
        self.hears(SECURE_NOTIFY, &unhex("8d7f856e6064028598f3d279eda3635e0000"));
        self.listens(COMMAND_NOTIFY);
    }

    /// It ends in order.
    fn parts(&mut self) {
        self.waits(PAUSE);
        let (_, Want::Write { to: SECURE_WRITE, value, .. }) = self.wanted() else {
            panic!("it should part");
        };
        let key = codec::session_key(SESSION[..8].try_into().unwrap(), SESSION[8..].try_into().unwrap());
        let channel = SecureChannel::new(&key);
        let part = Secure { op: SecureOp::Part, data: [0; 8], tail: [0x0f, 0x00] };
        assert_eq!(channel.open(&value), Ok(part));
        let parted = Secure { op: SecureOp::Parted, data: [0; 8], tail: [0, 0] };
        self.hears(SECURE_NOTIFY, &channel.seal(&parted));
    }

    /// The published commands, up to the one before this step: 1 is the clock, 6 is the look at the slot.
    fn puts_until(&mut self, step: usize) {
        self.greet();
        for (at, (written, received, result)) in PUT.iter().take(step).enumerate() {
            if at > 0 {
                self.waits(PAUSE);
            }
            self.writes(COMMAND_WRITE, written);
            self.is_told(received);
            self.is_told(result);
        }
    }
}

/// What is written, over the air; what is told of it, in clear.
const PUT: [(&str, &str, &str); 7] = [
    (
        "a8ba26582f4096b062bf83560096080c0200",
        "aa0200500200000000000000000000000200",
        "bb02003a0200000005000000000000000200",
    ),
    (
        "1705a02aa3ace424f4b90d1569166dce0200",
        "aa1000fbf0e00e6b00000000000000000200",
        "bb1000330000000000000000000000000200",
    ),
    (
        "83ef82646d9d4aebc84e3e68b3af047e0200",
        "aa280031ffffffffffffff02000000000200",
        "bb28001b0000000000000000000000000200",
    ),
    (
        "13544acd6ea27486ea242de30f05a0220200",
        "aa270095123456ffffffff00000000000200",
        "bb27001c0000000000000000000000000200",
    ),
    (
        "5deef7ae6068ca30a5a373b9ed5188490200",
        "aa2b00e8f0e00e6bb04b116b810000000200",
        "bb2b00180000000000000000000000000200",
    ),
    (
        "5705ce9066bed6004baede12f8dfae520200",
        "aa2c008e123456ffffffff02000000000200",
        "bb2c00170000000000000000000000000200",
    ),
    (
        "55a7d1272c75a26e1567baf533bba2f90200",
        "aa3900190200000000000000000000000200",
        "bb3900700200123456ffffffff0000000200",
    ),
];

fn slot() -> Slot {
    Slot::new(2).unwrap()
}

fn put() -> Task {
    Task::Change(Change::Put {
        slot: slot(),
        pin: Pin::new("123456").unwrap(),
        access: Access::Window { from: 1_796_137_200, until: 1_796_295_600 },
    })
}

fn remove() -> Task {
    Task::Change(Change::Remove { slot: slot() })
}

fn refusal(came: &Came) -> (&'static str, &Refusal) {
    match came {
        Came::Done => panic!("it is done"),
        Came::NothingSent(refusal) => ("nothing sent", refusal),
        Came::NotDone(refusal) => ("not done", refusal),
        Came::Doubt(refusal) => ("doubt", refusal),
    }
}

#[test]
fn the_published_pin_is_put_with_the_published_bytes() {
    let mut script = Script::new(put());
    script.puts_until(7);
    script.parts();
    assert_eq!(script.came(), Came::Done);
}

#[test]
fn it_says_that_the_first_change_leaves_before_it_does() {
    let mut script = Script::new(put());
    script.puts_until(2);
    script.waits(PAUSE);
    assert_eq!(script.writes(COMMAND_WRITE, PUT[2].0), [Note::Leaves]);
}

#[test]
fn the_clock_is_set_to_when_it_leaves() {
    let mut script = Script::new(put());
    script.greet();
    script.writes(COMMAND_WRITE, PUT[0].0);
    script.now += Duration::from_secs(9);
    script.is_told(PUT[0].2);
    script.waits(PAUSE);
    let (_, Want::Write { value, .. }) = script.wanted() else { panic!("it should set the clock") };
    let mut ours = cbc::Decryptor::<Aes128>::new(&SESSION.into(), &unhex(PUT[0].0)[..16].try_into().unwrap());
    let mut block: [u8; 16] = value[..16].try_into().unwrap();
    aes::cipher::BlockModeDecrypt::decrypt_block(&mut ours, (&mut block).into());
    assert_eq!(u32::from_le_bytes(block[4..8].try_into().unwrap()), 1_796_137_200 + 9);
}

#[test]
fn that_a_command_is_received_proves_nothing() {
    for (step, (written, received, _)) in PUT.iter().enumerate() {
        let mut script = Script::new(put());
        script.puts_until(step);
        if step > 0 {
            script.waits(PAUSE);
        }
        script.writes(COMMAND_WRITE, written);
        script.is_told(received);
        script.waits(ANSWER);
        match step {
            0 | 1 => {
                script.parts();
                let came = script.came();
                assert_eq!(refusal(&came).0, "nothing sent", "step {step}");
            }
            2..=4 => {
                script.parts();
                let came = script.came();
                assert_eq!((refusal(&came).0, refusal(&came).1.code), ("doubt", Code::NoAnswer));
            }
            // It looks, or looks again.
            _ => {
                script.waits(PAUSE);
                assert!(matches!(script.wanted(), (_, Want::Write { to: COMMAND_WRITE, .. })), "step {step}");
            }
        }
    }
}

#[test]
fn silence_in_the_handshake_sends_nothing_and_ends_without_a_word() {
    let mut script = Script::new(put());
    script.listens(SECURE_NOTIFY);
    assert!(matches!(script.wanted(), (_, Want::Write { .. })));
    script.waits(ANSWER);
    let came = script.came();
    assert_eq!((refusal(&came).0, refusal(&came).1.code), ("nothing sent", Code::DeviceOffline));
}

#[test]
fn a_first_answer_that_is_none_means_another_key() {
    let damaged = "7f01d98750d61f57cb2717f391d2a1ca0000";
    // The right check, and not the lock's half of the key.
    let other = "d7d543457fa5a2233b60a649ed38118d0000";
    for answer in [damaged, other] {
        let mut script = Script::new(put());
        script.listens(SECURE_NOTIFY);
        assert!(matches!(script.wanted(), (_, Want::Write { .. })));
        script.hears(SECURE_NOTIFY, &unhex(answer));
        let came = script.came();
        assert_eq!((refusal(&came).0, refusal(&came).1.code), ("nothing sent", Code::Auth));
    }
}

#[test]
fn a_refused_first_write_means_another_key_and_a_refused_subscription_does_not() {
    let mut script = Script::new(put());
    script.listens(SECURE_NOTIFY);
    script.talk.handle(script.now, Heard::Refused);
    assert_eq!(refusal(&script.came()).1.code, Code::DeviceOffline);
    let mut script = Script::new(put());
    script.listens(SECURE_NOTIFY);
    assert!(matches!(script.wanted(), (_, Want::Write { .. })));
    script.talk.handle(script.now, Heard::Refused);
    assert_eq!(refusal(&script.came()).1.code, Code::Auth);
}

#[test]
fn values_of_a_wrong_length_are_as_if_they_had_not_come() {
    let mut script = Script::new(put());
    script.listens(SECURE_NOTIFY);
    assert!(matches!(script.wanted(), (_, Want::Write { .. })));
    script.hears(SECURE_NOTIFY, &[0; 17]);
    script.hears(SECURE_NOTIFY, &unhex("7f01d98750d61f57cb2717f391d2a1cb0000"));
    script.writes(SECURE_WRITE, "d8a6b73c4ab33ef282b66ece7f87c7330f03");
    script.hears(SECURE_NOTIFY, &unhex("8d7f856e6064028598f3d279eda3635e0000"));
    script.listens(COMMAND_NOTIFY);
    script.writes(COMMAND_WRITE, PUT[0].0);
    for length in [0, 16, 17, 19] {
        script.hears(COMMAND_NOTIFY, &vec![0x11; length]);
    }
    script.is_told(PUT[0].2);
    script.waits(PAUSE);
    script.writes(COMMAND_WRITE, PUT[1].0);
}

#[test]
fn what_the_lock_tells_by_itself_is_no_answer() {
    let mut script = Script::new(put());
    script.puts_until(3);
    script.waits(PAUSE);
    script.writes(COMMAND_WRITE, PUT[3].0);
    // The bolt was turned by hand.
    script.is_told("bb02003c0200000003000000000000000200");
    script.is_told(PUT[3].1);
    script.is_told(PUT[3].2);
    script.waits(PAUSE);
    script.writes(COMMAND_WRITE, PUT[4].0);
}

#[test]
fn a_lock_that_never_stops_talking_is_given_up_in_time() {
    let mut script = Script::new(put());
    script.greet();
    script.writes(COMMAND_WRITE, PUT[0].0);
    for second in 1..=10 {
        script.now += Duration::from_secs(1);
        script.is_told("bb0200320f00000000000000000000000200");
        let is_waiting = matches!(script.wanted(), (_, Want::Wait { until }) if until > script.now);
        assert!(is_waiting, "second {second}");
    }
    script.waits(PAUSE);
    assert!(matches!(script.wanted(), (_, Want::Write { to: SECURE_WRITE, .. })));
    script.waits(FAREWELL);
    let came = script.came();
    assert_eq!(refusal(&came).0, "nothing sent");
}

#[test]
fn a_slot_that_shows_another_pin_than_was_put_is_a_doubt() {
    for (shown, word) in [
        ("bb39006f0200123457ffffffff0000000200", "another PIN"),
        ("bb39000f0200ffffffffffffff0000000200", "nothing"),
        ("bb3900620200aaaaaaaaaaaaaa0000000200", "what is no PIN"),
    ] {
        let mut script = Script::new(put());
        script.puts_until(6);
        script.waits(PAUSE);
        script.writes(COMMAND_WRITE, PUT[6].0);
        script.is_told(shown);
        script.parts();
        let came = script.came();
        let (kind, refusal) = refusal(&came);
        assert_eq!((kind, refusal.code), ("doubt", Code::ProtocolViolation));
        assert!(refusal.message.ends_with(&format!("slot 2 shows {word}")), "{}", refusal.message);
    }
}

#[test]
fn a_refused_write_had_no_effect() {
    for (step, (written, ..)) in PUT.iter().enumerate() {
        let mut script = Script::new(put());
        script.puts_until(step);
        if step > 0 {
            script.waits(PAUSE);
        }
        script.writes(COMMAND_WRITE, written);
        script.talk.handle(script.now, Heard::Refused);
        script.parts();
        let came = script.came();
        let (kind, refusal) = refusal(&came);
        let (expected, words) = match step {
            0 | 1 => ("nothing sent", ""),
            2 => ("not done", "; slot 2 is as before"),
            3..=5 => ("not done", "; slot 2 is empty now"),
            _ => ("doubt", "; slot 2 holds the PIN, as far as the lock says"),
        };
        assert_eq!(kind, expected, "step {step}");
        assert!(refusal.message.ends_with(words), "step {step}: {}", refusal.message);
    }
}

#[test]
fn a_motor_has_8_seconds_to_be_heard_of_and_12_more_to_stop() {
    let status = PUT[0];
    for (received, patience) in [(false, MOTOR_RECEIVED), (true, MOTOR_DONE)] {
        let mut script = Script::new(Task::Move(Motion::Unlock));
        script.greet();
        script.writes(COMMAND_WRITE, status.0);
        script.is_told(status.2);
        script.waits(PAUSE);
        assert!(matches!(script.wanted(), (_, Want::Write { to: COMMAND_WRITE, .. })));
        script.now += Duration::from_secs(3);
        if received {
            script.is_told("aa0a004a0000000000000000000000000200");
            // Told again, it does not begin anew.
            script.now += Duration::from_secs(1);
            script.is_told("aa0a004a0000000000000000000000000200");
            script.waits(patience - Duration::from_secs(1));
        } else {
            script.waits(patience - Duration::from_secs(3));
        }
        script.parts();
        let came = script.came();
        assert_eq!((refusal(&came).0, refusal(&came).1.code), ("doubt", Code::NoAnswer));
    }
}

#[test]
fn a_slot_that_cannot_be_found_is_empty_now() {
    let mut script = Script::new(remove());
    script.greet();
    script.writes(COMMAND_WRITE, PUT[0].0);
    script.is_told(PUT[0].2);
    script.waits(PAUSE);
    assert!(matches!(script.wanted(), (_, Want::Write { .. })));
    script.is_told("bb2800dc00000000000000000000003f0200");
    script.waits(PAUSE);
    assert!(matches!(script.wanted(), (_, Want::Write { .. })));
    script.is_told("bb3900cb00000000000000000000003f0200");
    script.parts();
    assert_eq!(script.came(), Came::Done);
}

#[test]
fn nothing_of_key_and_pin_is_shown() {
    let script = Script::new(put());
    let shown = format!("{:?} {:?}", script.talk, script.talk.manners);
    assert!(shown.contains("pin: [private]"), "{shown}");
    for secret in ["123456", "67, 139", "438b", "0x43", "161", "a1"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn a_clock_that_the_lock_cannot_keep_sends_nothing() {
    let mut script = Script::new(put());
    script.talk.manners.now = "2106-02-07T06:28:16Z".parse().unwrap();
    script.puts_until(1);
    script.waits(PAUSE);
    script.parts();
    let came = script.came();
    assert_eq!((refusal(&came).0, refusal(&came).1.code), ("nothing sent", Code::BadDates));
}

#[test]
fn one_session_may_do_one_task_after_another_and_ends_with_the_last() {
    let mut script = Script::of(Conversation::new(put(), manners()).staying());
    script.puts_until(7);
    assert_eq!(script.came(), Came::Done);
    assert!(script.talk.stands());
    script.talk.follow(Task::Look { battery: false }, "2026-12-01T15:00:30Z".parse().unwrap());
    assert!(!script.talk.stands());
    // The lock gets its rest between two tasks as between two commands; the chain goes on, so the same command is other
    // bytes than at first.
    script.waits(PAUSE);
    let (_, Want::Write { to: COMMAND_WRITE, value, .. }) = script.wanted() else { panic!("it should look") };
    assert_ne!(hex(&value), PUT[0].0);
    script.is_told(PUT[0].2);
    assert_eq!(script.came(), Came::Done);
    script.talk.part();
    script.parts();
    assert_eq!(script.came(), Came::Done);
}

#[test]
fn a_session_that_is_lost_between_two_tasks_has_sent_nothing_of_the_second() {
    let mut script = Script::of(Conversation::new(put(), manners()).staying());
    script.puts_until(7);
    assert_eq!(script.came(), Came::Done);
    script.talk.follow(remove(), "2026-12-01T15:00:30Z".parse().unwrap());
    script.talk.handle(script.now, Heard::Closed);
    let came = script.came();
    assert_eq!(refusal(&came).0, "nothing sent");
    assert!(!script.talk.stands());
}
