//! A radio without radio: carries values between a conversation and a pretend lock, by a clock of its own.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use latchd::{
    drivers::august_yale::{
        codec::{COMMAND_WRITE, Key, OfflineKey},
        session::{Came, Conversation, Manners, Note},
        sim::{AugustLock, Settings},
        task::Task,
    },
    sim::ble::peripheral::{Act, Peripheral},
    transport::ble::gatt::{Heard, Talk, Want, WriteKind},
};
use serde_json::Value;
use uuid::Uuid;

const KEY: [u8; 16] = *b"sixteen bytes of";
const KEY_SLOT: u8 = 7;
/// More values than any conversation here needs.
const ENOUGH: usize = 500;

/// A lock and the air around it.
pub(crate) struct Air {
    pub lock: AugustLock,
    pub now: Timestamp,
    instant: Instant,
    conversations: u8,
    pub key: OfflineKey,
}

/// How a conversation went.
#[derive(Debug)]
pub(crate) struct Went {
    pub came: Came,
    pub notes: Vec<Note>,
    /// A command that changes something was handed out for writing.
    pub left: bool,
    /// How many commands were written.
    pub commands: usize,
    /// When each command was written, since the beginning.
    pub written: Vec<Duration>,
    /// When each value came, since the beginning.
    pub answered: Vec<Duration>,
    pub closed: bool,
}

impl Air {
    pub(crate) fn new() -> Self {
        Self {
            lock: AugustLock::new(Settings {
                serial: "L1GFY00KUZ".into(),
                key: KEY,
                key_slot: KEY_SLOT,
                slots: 5,
                nonce: [0xfe; 8],
            }),
            now: "2026-12-01T15:00:00Z".parse().unwrap(),
            instant: Instant::now(),
            conversations: 0,
            key: OfflineKey { key: Key::new(KEY), slot: KEY_SLOT },
        }
    }

    /// One command of the lock's control socket.
    pub(crate) fn control(&mut self, command: &str) -> Value {
        serde_json::from_str(&self.lock.control(self.now, command).unwrap()).unwrap()
    }

    fn wait_until(&mut self, instant: Instant) {
        let passed = instant.saturating_duration_since(self.instant);
        self.instant += passed;
        self.now += passed;
    }

    /// Connects, holds a conversation, and hangs up.
    pub(crate) fn hold(&mut self, task: Task) -> Went {
        self.conversations += 1;
        let manners =
            Manners { key: self.key.clone(), nonces: Key::new([self.conversations; 16]), now: self.now };
        let mut talk = Conversation::new(task, manners);
        let begun = self.instant;
        let mut went = Went {
            came: Came::Done,
            notes: Vec::new(),
            left: false,
            commands: 0,
            written: Vec::new(),
            answered: Vec::new(),
            closed: false,
        };
        let mut subscribed: BTreeSet<Uuid> = BTreeSet::new();
        let mut coming: Vec<(Instant, Act)> = Vec::new();
        self.lock.connected(self.now);
        for _ in 0..ENOUGH {
            let wanted = talk.poll(self.instant);
            match wanted {
                Want::Done(came) => {
                    self.lock.disconnected(self.now);
                    went.came = came;
                    return went;
                }
                Want::Note(note) => went.notes.push(note),
                Want::Subscribe(from) => {
                    subscribed.insert(from);
                }
                Want::Write { to, value, kind } => {
                    assert!(!went.closed, "it writes after the link is gone");
                    assert_eq!(kind, WriteKind::Request);
                    if to == COMMAND_WRITE {
                        went.commands += 1;
                        went.written.push(self.instant - begun);
                        went.left |= went.notes.contains(&Note::Leaves);
                    }
                    match self.lock.write(self.now, to, &value) {
                        Err(_) => talk.handle(self.instant, Heard::Refused),
                        Ok(acts) => {
                            let due = |act: Act| match &act {
                                Act::Notify { after, .. } | Act::HangUp { after } => {
                                    (self.instant + *after, act)
                                }
                            };
                            coming.extend(acts.into_iter().map(due));
                            coming.sort_by_key(|(at, _)| *at);
                        }
                    }
                }
                Want::Wait { until } => {
                    if coming.first().is_none_or(|(at, _)| *at > until) {
                        self.wait_until(until);
                        talk.handle(self.instant, Heard::Timeout);
                        continue;
                    }
                    let (at, act) = coming.remove(0);
                    self.wait_until(at);
                    match act {
                        Act::Notify { from, value, .. } if subscribed.contains(&from) => {
                            went.answered.push(self.instant - begun);
                            talk.handle(self.instant, Heard::Value { from, value: &value });
                        }
                        Act::Notify { .. } => panic!("the lock tells what nobody listens to"),
                        Act::HangUp { .. } => {
                            coming.clear();
                            went.closed = true;
                            talk.handle(self.instant, Heard::Closed);
                        }
                    }
                }
            }
        }
        panic!("it comes to no end");
    }
}
