//! How a lock was found over the air, for whoever looks after the site.

use std::{sync::Mutex, sync::PoisonError, time::Duration};

use jiff::Timestamp;

use crate::{
    drivers::{Battery, Came, Misses, Signs},
    model::DeviceName,
    transport::ble::Unreachable,
};

/// What is known of one lock.
#[derive(Default)]
pub(super) struct Log(Mutex<Known>);

#[derive(Default, Clone)]
struct Known {
    reached: u64,
    last: Option<(Timestamp, Option<i16>, Duration)>,
    session: Option<Duration>,
    battery: Option<Battery>,
    misses: Misses,
}

impl Log {
    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A connection was made within this time of being wanted.
    pub(super) fn reached(&self, at: Timestamp, signal: Option<i16>, took: Duration) {
        self.change(|known| {
            known.reached += 1;
            known.last = Some((at, signal, took));
        });
    }

    pub(super) fn missed(&self, why: &Unreachable) {
        self.change(|known| match why {
            Unreachable::NotHeard(_) => known.misses.not_heard += 1,
            Unreachable::NotConnected(_) => known.misses.not_connected += 1,
            Unreachable::OtherDevice(_) => known.misses.other_device += 1,
            Unreachable::Down(_) => known.misses.radio_down += 1,
        });
    }

    /// A conversation of this length ended.
    pub(super) fn held(&self, came: &Came, battery: Option<Battery>, took: Duration) {
        self.change(|known| {
            known.session = Some(took);
            known.battery = battery.or(known.battery);
            if matches!(came, Came::NothingSent(_) | Came::Doubt(_)) {
                known.misses.broken_off += 1;
            }
        });
    }

    /// All of it; none while nobody has wanted the lock yet.
    pub(super) fn signs(&self, lock: &DeviceName) -> Option<Signs> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Known { reached, last, session, battery, misses } = known;
        let millis = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        (0 < reached || misses != Misses::default()).then(|| Signs {
            device: lock.clone(),
            reached,
            reached_at: last.map(|(at, ..)| at),
            signal_dbm: last.and_then(|(_, signal, _)| signal),
            connect_ms: last.map(|(.., took)| millis(took)),
            session_ms: session.map(millis),
            battery,
            misses,
        })
    }
}
