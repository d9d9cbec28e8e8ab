//! The pretend lock by itself: what it understands, and what it does not put up with.

use std::time::Duration;

use latchd::{
    drivers::august_yale::{
        codec::{self, COMMAND_WRITE, Chains, SECURE_WRITE, SERVICE, Secure, SecureChannel, SecureOp},
        message::{Access, Answer, Ask, AutoLock, Bolt, Command, Door, Held, ResultCode},
    },
    sim::ble::peripheral::{Act, AttError, Peripheral},
};
use serde_json::json;
use uuid::Uuid;

use super::{opens, pin, pump::Air, slot};

/// A connection without a conversation: commands as they are told.
struct Bare {
    air: Air,
    chains: Chains,
}

impl Bare {
    fn connect() -> Self {
        let mut air = Air::new();
        air.lock.connected(air.now);
        let channel = SecureChannel::new(&air.key.key);
        let first = Secure::ours(SecureOp::Exchange, [1; 8], air.key.slot);
        let acts = air.lock.write(air.now, SECURE_WRITE, &channel.seal(&first)).unwrap();
        let key = codec::session_key([1; 8], channel.open(&values(&acts)[0]).unwrap().data);
        let channel = SecureChannel::new(&key);
        let second = Secure::ours(SecureOp::Initialise, [2; 8], air.key.slot);
        let acts = air.lock.write(air.now, SECURE_WRITE, &channel.seal(&second)).unwrap();
        assert_eq!(channel.open(&values(&acts)[0]).unwrap().op, SecureOp::Initialised);
        Self { air, chains: Chains::new(&key) }
    }

    /// What the lock answers to a command after it has received it.
    fn tell(&mut self, command: &Command) -> Answer {
        let value = self.chains.seal(&command.frame());
        let acts = self.air.lock.write(self.air.now, COMMAND_WRITE, &value).unwrap();
        let answers = values(&acts).into_iter().map(|value| self.chains.open(&value).unwrap());
        let answers: Vec<_> = answers.map(|frame| command.answer(&frame).unwrap()).collect();
        assert_eq!(answers[0], Answer::Received, "{command:?}");
        assert_eq!(answers.len(), 2, "{command:?}");
        answers[1].clone()
    }
}

fn values(acts: &[Act]) -> Vec<Vec<u8>> {
    let value = |act: &Act| match act {
        Act::Notify { value, .. } => value.clone(),
        Act::HangUp { .. } => panic!("the lock hangs up"),
    };
    acts.iter().map(value).collect()
}

#[test]
fn the_commands_that_no_conversation_uses_are_understood_by_the_lock() {
    let mut bare = Bare::connect();
    let times = AutoLock { closed: 30, never_opened: 300 };
    assert_eq!(bare.tell(&Command::WriteAutoLock(times)), Answer::Done);
    assert_eq!(bare.tell(&Command::ReadAutoLock), Answer::AutoLock(times));
    bare.air.control("door ajar");
    assert_eq!(bare.tell(&Command::Status(Ask::Door)), Answer::Door(Door::Ajar));
    assert_eq!(bare.tell(&Command::Status(Ask::Both)), Answer::Both(Bolt::Locked, Door::Ajar));
    for (command, on_the_way, at_the_end) in [
        (Command::Unlatch, Bolt::Unlatching, Bolt::Unlatched),
        (Command::SecureLock, Bolt::Locking, Bolt::Secure),
    ] {
        assert_eq!(bare.tell(&command), Answer::Done);
        assert_eq!(bare.tell(&Command::Status(Ask::Lock)), Answer::Bolt(on_the_way));
        bare.air.now += Duration::from_secs(2);
        assert_eq!(bare.tell(&Command::Status(Ask::Lock)), Answer::Bolt(at_the_end));
    }
    bare.air.control("put 2 4711");
    let clear = |digits| Command::ClearPin { pin: pin(digits), slot: slot(2) };
    assert_eq!(bare.tell(&clear("4712")), Answer::No(ResultCode::NOT_FOUND));
    assert_eq!(bare.tell(&clear("4711")), Answer::Done);
    assert_eq!(bare.tell(&Command::ReadSlot(slot(2))), Answer::Holds(Held::Nothing));
    bare.air.control("put 2 4711");
    bare.air.control("put 3 4712");
    assert_eq!(bare.tell(&Command::ClearAll), Answer::Done);
    assert_eq!(bare.air.control("slots")["slots"], json!([]));
}

#[test]
fn a_pin_of_some_weekdays_opens_on_them() {
    let mut bare = Bare::connect();
    assert_eq!(bare.tell(&Command::SetPin(pin("123456"))), Answer::Done);
    // Monday and Tuesday, from 8 to 10.
    let weekly = Access::Weekly { days: 0b110, from: 8 * 3600, until: 10 * 3600 };
    assert_eq!(bare.tell(&Command::SetAccess(weekly)), Answer::Done);
    assert_eq!(bare.tell(&Command::Commit { pin: pin("123456"), slot: slot(2) }), Answer::Done);
    for (at, expected) in [
        ("2026-11-30T08:00:00Z", true),
        ("2026-12-01T09:59:59Z", true),
        ("2026-12-01T10:00:00Z", false),
        ("2026-12-02T09:00:00Z", false),
        ("2026-11-29T09:00:00Z", false),
    ] {
        assert_eq!(opens(&mut bare.air, "123456", at), expected, "{at}");
    }
}

#[test]
fn the_lock_takes_no_short_cut() {
    let mut bare = Bare::connect();
    let commit = Command::Commit { pin: pin("123456"), slot: slot(2) };
    assert_eq!(bare.tell(&commit), Answer::No(ResultCode(0x37)), "nothing is held ready");
    assert_eq!(bare.tell(&Command::SetAccess(Access::Always)), Answer::No(ResultCode(0x37)));
    assert_eq!(bare.tell(&Command::SetPin(pin("654321"))), Answer::Done);
    assert_eq!(bare.tell(&Command::SetAccess(Access::Always)), Answer::Done);
    assert_eq!(bare.tell(&commit), Answer::No(ResultCode(0x3a)), "another PIN is held ready");
    assert_eq!(bare.tell(&Command::SetPin(pin("1234567"))), Answer::No(ResultCode(0x3a)), "keypads take 6");
    bare.air.control("put 2 4711");
    assert_eq!(bare.tell(&Command::SetPin(pin("123456"))), Answer::Done);
    assert_eq!(bare.tell(&Command::SetAccess(Access::Always)), Answer::Done);
    assert_eq!(bare.tell(&commit), Answer::No(ResultCode::SLOT_IN_USE));
    let backwards = Access::Window { from: 2, until: 1 };
    assert_eq!(bare.tell(&Command::SetPin(pin("123456"))), Answer::Done);
    assert_eq!(bare.tell(&Command::SetAccess(backwards)), Answer::No(ResultCode(0x05)));
}

#[test]
fn the_lock_says_nothing_to_what_it_cannot_read_and_keeps_its_chain() {
    let mut bare = Bare::connect();
    let now = bare.air.now;
    let short = bare.air.lock.write(now, COMMAND_WRITE, &[0; 17]);
    assert_eq!(short, Err(AttError(0x0d)));
    assert_eq!(bare.tell(&Command::Status(Ask::Lock)), Answer::Bolt(Bolt::Locked));
    // A value that is damaged spoils the next one as well.
    for _ in 0..2 {
        let mut value = bare.chains.seal(&Command::Unlock.frame());
        value[5] ^= 0x40;
        assert_eq!(bare.air.lock.write(now, COMMAND_WRITE, &value), Ok(vec![]));
    }
    let spoiled = bare.chains.seal(&Command::Unlock.frame());
    assert_eq!(bare.air.lock.write(now, COMMAND_WRITE, &spoiled), Ok(vec![]));
    assert_eq!(bare.tell(&Command::Status(Ask::Lock)), Answer::Bolt(Bolt::Locked));
}

#[test]
fn the_lock_listens_to_nobody_who_has_not_greeted_it() {
    let mut air = Air::new();
    let unlikely = Err(AttError(0x0e));
    assert_eq!(air.lock.write(air.now, COMMAND_WRITE, &[0; 18]), unlikely, "nobody is connected");
    air.lock.connected(air.now);
    assert_eq!(air.lock.write(air.now, COMMAND_WRITE, &[0; 18]), unlikely);
    let channel = SecureChannel::new(&air.key.key);
    let second = Secure::ours(SecureOp::Initialise, [2; 8], air.key.slot);
    assert_eq!(air.lock.write(air.now, SECURE_WRITE, &channel.seal(&second)), unlikely);
}

#[test]
fn the_lock_shows_its_name_and_its_news_and_dies_of_its_makers_name() {
    let mut air = Air::new();
    let shown = air.lock.advertisement();
    assert_eq!((shown.name.as_str(), &shown.services[..]), ("L100KUZ", &[SERVICE][..]));
    air.control("put 2 4711");
    air.control("type 4711");
    assert_ne!(air.lock.advertisement().manufacturer_data, shown.manufacturer_data);
    air.lock.connected(air.now);
    let information =
        |number: u128| Uuid::from_u128(0x0000_0000_0000_1000_8000_0080_5f9b_34fb | number << 96);
    assert_eq!(air.lock.read(air.now, information(0x2a25)).unwrap(), b"L1GFY00KUZ");
    assert!(air.lock.read(air.now, information(0x2a29)).is_err());
    let acts = air.lock.write(air.now, SECURE_WRITE, &[0; 18]);
    assert_eq!(acts, Ok(vec![Act::HangUp { after: Duration::ZERO }]));
}

#[test]
fn what_is_asked_of_the_lock_in_words_is_done_or_named() {
    let mut air = Air::new();
    air.control("clock set 2026-12-24T18:00:00Z");
    air.control("clock advance 2h");
    air.control("battery 4800");
    let expected =
        json!({ "bolt": "05", "door": 1, "millivolts": 4800, "clock": "2026-12-24T20:00:00Z", "untold": 0 });
    assert_eq!(air.control("state"), expected);
    for wrong in [
        "",
        "put 2 123",
        "put x 1234",
        "try",
        "fault",
        "fault lose 0",
        "fault refuse 1 zz",
        "door",
        "clock set noon",
    ] {
        assert!(air.lock.control(air.now, wrong).is_err(), "{wrong}");
    }
}
