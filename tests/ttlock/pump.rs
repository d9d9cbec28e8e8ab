//! A conversation and a pretend lock, without a radio: what one writes the other hears, and time is what is waited for.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use latchd::{
    sim::ble::peripheral::{Act, Peripheral},
    transport::ble::gatt::{Heard, Talk, Want},
};

/// Where the link is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Never,
    /// Before this written value arrives.
    Write(usize),
    /// Before this notified value arrives.
    Value(usize),
}

/// What a conversation came to.
pub(crate) struct Pumped<D, N> {
    pub(crate) done: D,
    pub(crate) notes: Vec<N>,
    /// Values written and notified.
    pub(crate) written: usize,
    pub(crate) notified: usize,
    pub(crate) took: Duration,
}

pub(crate) fn pump<T: Talk>(
    talk: &mut T,
    lock: &mut dyn Peripheral,
    began_at: Timestamp,
    cut: Cut,
) -> Pumped<T::Done, T::Note> {
    let began = Instant::now();
    let mut now = began;
    let at = |now: Instant| began_at + (now - began);
    let mut acts: VecDeque<(Instant, Act)> = VecDeque::new();
    let (mut notes, mut written, mut notified) = (Vec::new(), 0, 0);
    let (mut subscribed, mut open) = (Vec::new(), true);
    lock.connected(at(now));
    for _ in 0..100_000 {
        match talk.poll(now) {
            Want::Subscribe(_) | Want::Write { .. } if !open => talk.handle(now, Heard::Closed),
            Want::Subscribe(characteristic) => subscribed.push(characteristic),
            Want::Write { to, value, .. } => {
                if cut == Cut::Write(written) {
                    open = false;
                    lock.disconnected(at(now));
                    talk.handle(now, Heard::Closed);
                    continue;
                }
                written += 1;
                match lock.write(at(now), to, &value) {
                    Ok(more) => acts.extend(more.into_iter().map(|act| match act {
                        Act::Notify { after, .. } | Act::HangUp { after } => (now + after, act),
                    })),
                    Err(_) => talk.handle(now, Heard::Refused),
                }
                // What is due first comes first, and what is due at once in its order.
                acts.make_contiguous().sort_by_key(|(due, _)| *due);
            }
            Want::Wait { until } => match acts.front() {
                Some((due, _)) if open && *due <= until => {
                    let (due, act) = acts.pop_front().unwrap();
                    now = now.max(due);
                    match act {
                        _ if cut == Cut::Value(notified) => {
                            open = false;
                            lock.disconnected(at(now));
                            talk.handle(now, Heard::Closed);
                        }
                        Act::Notify { from, value, .. } => {
                            notified += 1;
                            if subscribed.contains(&from) {
                                talk.handle(now, Heard::Value { from, value: &value });
                            }
                        }
                        Act::HangUp { .. } => {
                            open = false;
                            lock.disconnected(at(now));
                            talk.handle(now, Heard::Closed);
                        }
                    }
                }
                _ => {
                    now = until;
                    talk.handle(now, Heard::Timeout);
                }
            },
            Want::Note(note) => notes.push(note),
            Want::Done(done) => {
                if open {
                    lock.disconnected(at(now));
                }
                return Pumped { done, notes, written, notified, took: now - began };
            }
        }
    }
    panic!("a conversation has no end");
}
