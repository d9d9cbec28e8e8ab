//! What the frames of the command channel say: commands, results, what a slot holds, what happened at the lock.

use std::fmt;

use jiff::Timestamp;
use zeroize::Zeroize;

use super::codec::{Frame, Part};

/// A PIN as the lock knows it: two digits a byte, the first in the high half, filled up with F.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin([u8; 7]);

/// No digits at all, or an empty slot.
const BLANK: [u8; 7] = [0xff; 7];

impl Pin {
    /// Fewest digits of a PIN.
    pub const SHORTEST: usize = 4;
    /// Most digits that the lock's commands carry; keypads take fewer.
    pub const LONGEST: usize = 14;

    /// Takes digits, if they are so many.
    #[must_use]
    pub fn new(digits: &str) -> Option<Self> {
        if !(Self::SHORTEST..=Self::LONGEST).contains(&digits.len()) {
            return None;
        }
        let mut pin = Self(BLANK);
        for (at, digit) in digits.bytes().enumerate() {
            if !digit.is_ascii_digit() {
                return None;
            }
            let digit = digit - b'0';
            let byte = &mut pin.0[at / 2];
            *byte = if at % 2 == 0 { digit << 4 | 0x0f } else { *byte & 0xf0 | digit };
        }
        Some(pin)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private]")
    }
}

/// The number of a slot that PINs may be put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The keypad's master code; the lock names it so in its log.
    pub const MASTER: u16 = 0xffee;

    /// Takes any number but that of the master code.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        (number != Self::MASTER).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When a PIN holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Until it is taken back.
    Always,
    /// Between two instants, in Unix seconds.
    Window {
        /// The first second inside.
        from: u32,
        /// The first second after.
        until: u32,
    },
    /// On some days of the week, between two seconds of the day.
    Weekly {
        /// One bit a day; Monday is bit 1.
        days: u8,
        /// The first second inside.
        from: u32,
        /// The first second after.
        until: u32,
    },
}

impl Access {
    /// Between two instants, if the lock can tell them from each other.
    #[must_use]
    pub fn window(starts_at: Timestamp, ends_at: Timestamp) -> Option<Self> {
        let [from, until] = [unix(starts_at)?, unix(ends_at)?];
        (from < until).then_some(Self::Window { from, until })
    }
}

/// Seconds as the lock counts them: until 2106.
pub(super) fn unix(at: Timestamp) -> Option<u32> {
    at.as_second().try_into().ok()
}

/// What to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The bolt.
    Lock,
    /// The door.
    Door,
    /// Both; some locks answer nonsense.
    Both,
    /// The battery; some locks never answer.
    Battery,
}

impl Ask {
    fn byte(self) -> u8 {
        match self {
            Self::Lock => 0x02,
            Self::Door => 0x2e,
            Self::Both => 0x2f,
            Self::Battery => 0x0f,
        }
    }
}

/// When the lock locks by itself, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoLock {
    /// After the door closed.
    pub closed: u16,
    /// When it was never opened.
    pub never_opened: u16,
}

/// What a lock is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Tell how it is.
    Status(Ask),
    /// Change when it locks by itself.
    WriteAutoLock(AutoLock),
    /// Tell when it locks by itself.
    ReadAutoLock,
    /// Turn the bolt back.
    Unlock,
    /// Turn it back and draw the latch.
    Unlatch,
    /// Turn the bolt out.
    Lock,
    /// Turn it out, and no handle inside opens.
    SecureLock,
    /// Set its clock, to Unix seconds.
    SetClock(u32),
    /// Hold this PIN ready.
    SetPin(Pin),
    /// Empty a slot, whatever it holds.
    Clear(Slot),
    /// Take back a PIN that is known to be in a slot. A removal of 2016 gave slot 0 for one that was not.
    ClearPin {
        /// The PIN.
        pin: Pin,
        /// The slot.
        slot: Slot,
    },
    /// Empty all slots.
    ClearAll,
    /// When the PIN held ready is to hold.
    SetAccess(Access),
    /// Put the PIN held ready into a slot.
    Commit {
        /// The PIN.
        pin: Pin,
        /// The slot.
        slot: Slot,
    },
    /// Tell the oldest thing that happened, and forget it.
    PopActivity,
    /// Tell which PIN a slot holds.
    ReadSlot(Slot),
}

impl Command {
    /// Its number.
    #[must_use]
    pub fn op(&self) -> u8 {
        match self {
            Self::Status(_) => 0x02,
            Self::WriteAutoLock(_) => 0x03,
            Self::ReadAutoLock => 0x04,
            Self::Unlock | Self::Unlatch => 0x0a,
            Self::Lock | Self::SecureLock => 0x0b,
            Self::SetClock(_) => 0x10,
            Self::SetPin(_) => 0x27,
            Self::Clear(_) | Self::ClearPin { .. } => 0x28,
            Self::ClearAll => 0x29,
            Self::SetAccess(_) => 0x2b,
            Self::Commit { .. } => 0x2c,
            Self::PopActivity => 0x2d,
            Self::ReadSlot(_) => 0x39,
        }
    }

    /// Whether it turns the motor: it takes longer then, and is never repeated.
    #[must_use]
    pub fn turns(&self) -> bool {
        matches!(self, Self::Unlock | Self::Unlatch | Self::Lock | Self::SecureLock)
    }

    /// Whether the lock is another one after it; setting its clock right does not count.
    #[must_use]
    pub fn changes(&self) -> bool {
        match self {
            Self::Status(_) | Self::ReadAutoLock | Self::SetClock(_) | Self::ReadSlot(_) => false,
            Self::WriteAutoLock(_)
            | Self::Unlock
            | Self::Unlatch
            | Self::Lock
            | Self::SecureLock
            | Self::SetPin(_)
            | Self::Clear(_)
            | Self::ClearPin { .. }
            | Self::ClearAll
            | Self::SetAccess(_)
            | Self::Commit { .. }
            | Self::PopActivity => true,
        }
    }

    /// Its frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        // Counted from byte 4 of the frame. Byte 8 and 9 of a payload stay zero: the credential is a PIN.
        let mut payload = [0; 12];
        let slot_of_pin = |payload: &mut [u8; 12], pin: &[u8; 7], slot: Slot| {
            payload[..7].copy_from_slice(pin);
            let [low, high] = slot.0.to_le_bytes();
            (payload[7], payload[9]) = (low, high);
        };
        match self {
            Self::Status(ask) => payload[0] = ask.byte(),
            Self::ReadAutoLock => payload[0] = AUTO_LOCK,
            Self::WriteAutoLock(times) => {
                payload[0] = AUTO_LOCK;
                payload[4..6].copy_from_slice(&times.closed.to_le_bytes());
                payload[6..8].copy_from_slice(&times.never_opened.to_le_bytes());
            }
            Self::Unlatch => payload[0] = 0x0a,
            Self::SecureLock => payload[0] = 0x04,
            Self::SetClock(to) => payload[..4].copy_from_slice(&to.to_le_bytes()),
            Self::SetPin(pin) => payload[..7].copy_from_slice(&pin.0),
            Self::Clear(slot) => slot_of_pin(&mut payload, &BLANK, *slot),
            Self::ClearPin { pin, slot } | Self::Commit { pin, slot } => {
                slot_of_pin(&mut payload, &pin.0, *slot);
            }
            Self::SetAccess(access) => {
                let (from, until, kind) = match *access {
                    Access::Always => (0, 0, 0x80),
                    Access::Window { from, until } => (from, until, 0x81),
                    Access::Weekly { days, from, until } => (from, until, days & 0x7f),
                };
                payload[..4].copy_from_slice(&from.to_le_bytes());
                payload[4..8].copy_from_slice(&until.to_le_bytes());
                payload[8] = kind;
            }
            Self::ReadSlot(slot) => payload[..2].copy_from_slice(&slot.0.to_le_bytes()),
            Self::Unlock | Self::Lock | Self::ClearAll | Self::PopActivity => {}
        }
        Frame { part: Part::Request, op: self.op(), payload }
    }

    /// What a frame from the lock says about it; nothing where it is about something else.
    #[must_use]
    pub fn answer(&self, frame: &Frame) -> Option<Answer> {
        if frame.op != self.op() {
            return None;
        }
        match frame.part {
            Part::Request => return None,
            Part::Received => return Some(Answer::Received),
            Part::Result => {}
        }
        let payload = &frame.payload;
        let code = ResultCode(payload[11]);
        if *self == Self::PopActivity {
            // Of someone at the keypad, the last byte belongs to the slot.
            return Some(match Activity::read(payload) {
                Some(Activity::Keypad { at, slot }) => Answer::Activity(Some(Activity::Keypad { at, slot })),
                _ if code == ResultCode::LOG_EMPTY => Answer::Activity(None),
                _ if code != ResultCode::OK => Answer::No(code),
                activity => Answer::Activity(activity),
            });
        }
        if code != ResultCode::OK {
            return Some(Answer::No(code));
        }
        let number = |at: usize| u16::from_le_bytes([payload[at], payload[at + 1]]);
        match self {
            // The lock tells by itself what changes, too.
            Self::Status(ask) if payload[0] != ask.byte() => None,
            Self::Status(Ask::Lock) => Some(Answer::Bolt(Bolt::of(payload[4]))),
            Self::Status(Ask::Door) => Some(Answer::Door(Door::of(payload[4]))),
            Self::Status(Ask::Both) => Some(Answer::Both(Bolt::of(payload[4]), Door::of(payload[5]))),
            Self::Status(Ask::Battery) => Some(Answer::Battery { millivolts: number(4) }),
            Self::ReadAutoLock if payload[0] != AUTO_LOCK => None,
            Self::ReadAutoLock => {
                Some(Answer::AutoLock(AutoLock { closed: number(4), never_opened: number(6) }))
            }
            Self::ReadSlot(slot) if number(0) != slot.0 => None,
            Self::ReadSlot(_) => Some(Answer::Holds(Held::read(payload))),
            Self::WriteAutoLock(_)
            | Self::Unlock
            | Self::Unlatch
            | Self::Lock
            | Self::SecureLock
            | Self::SetClock(_)
            | Self::SetPin(_)
            | Self::Clear(_)
            | Self::ClearPin { .. }
            | Self::ClearAll
            | Self::SetAccess(_)
            | Self::Commit { .. }
            | Self::PopActivity => Some(Answer::Done),
        }
    }
}

/// The setting that says when the lock locks by itself.
const AUTO_LOCK: u8 = 0x28;

/// What the lock says about a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has it; this proves nothing.
    Received,
    /// It did it.
    Done,
    /// It did not.
    No(ResultCode),
    /// How the bolt is.
    Bolt(Bolt),
    /// How the door is.
    Door(Door),
    /// How both are.
    Both(Bolt, Door),
    /// How the battery is.
    Battery {
        /// Its voltage.
        millivolts: u16,
    },
    /// When it locks by itself.
    AutoLock(AutoLock),
    /// What the slot holds.
    Holds(Held),
    /// What happened; nothing when nothing is left.
    Activity(Option<Activity>),
}

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// A PIN.
    Pin(Pin),
    /// What is no PIN.
    Strange,
}

impl Held {
    fn read(payload: &[u8; 12]) -> Self {
        let mut packed = BLANK;
        packed.copy_from_slice(&payload[2..9]);
        if packed == BLANK {
            return Self::Nothing;
        }
        let halves = packed.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]);
        let digits = halves.clone().take_while(|half| *half <= 9).count();
        let is_filled_up = halves.skip(digits).all(|half| half == 0x0f);
        if digits >= Pin::SHORTEST && is_filled_up { Self::Pin(Pin(packed)) } else { Self::Strange }
    }
}

/// How the bolt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bolt {
    /// It learns where its ends are.
    Calibrating,
    /// It turns back.
    Unlocking,
    /// It is back.
    Unlocked,
    /// It turns out.
    Locking,
    /// It is out.
    Locked,
    /// It is stuck.
    Jammed,
    /// The latch is being drawn.
    Unlatching,
    /// The latch is drawn.
    Unlatched,
    /// It is out, and no handle inside opens.
    Secure,
    /// Something else.
    Other(u8),
}

impl Bolt {
    /// How it is, by the lock's number for that.
    #[must_use]
    pub fn of(byte: u8) -> Self {
        match byte {
            0x01 | 0x06 => Self::Calibrating,
            0x02 => Self::Unlocking,
            0x03 => Self::Unlocked,
            0x04 => Self::Locking,
            0x05 => Self::Locked,
            0x07 => Self::Jammed,
            0x09 => Self::Unlatching,
            0x0a => Self::Unlatched,
            0x0c => Self::Secure,
            other => Self::Other(other),
        }
    }
}

/// How the door is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Closed.
    Closed,
    /// Neither closed nor open.
    Ajar,
    /// Open.
    Open,
    /// Something else, or unknown to the lock.
    Other(u8),
}

impl Door {
    fn of(byte: u8) -> Self {
        match byte {
            0x01 => Self::Closed,
            0x02 => Self::Ajar,
            0x03 => Self::Open,
            other => Self::Other(other),
        }
    }
}

/// Something that happened at the lock. Instants are by its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// The bolt was turned.
    Bolt {
        /// By what: 0 from afar, 1 by hand, 5 by itself, 11 with a PIN, as the client `yalexs-ble` has it.
        source: u8,
        /// How it was then.
        status: u8,
        /// From afar, how; 3 is Bluetooth.
        remote: u8,
        /// When.
        at: Timestamp,
    },
    /// Somebody opened at the keypad.
    Keypad {
        /// When.
        at: Timestamp,
        /// With the PIN of this slot, or with [`Slot::MASTER`].
        slot: u16,
    },
    /// Something happened to a PIN.
    Pin {
        /// When.
        at: Timestamp,
        /// Of this slot.
        slot: u16,
        /// What, in the lock's own numbers.
        status: u8,
    },
    /// The door moved.
    Door {
        /// When.
        at: Timestamp,
        /// How it was then.
        door: Door,
    },
    /// Something else, by its number.
    Other(u8),
}

impl Activity {
    /// Nothing where nothing is left.
    fn read(payload: &[u8; 12]) -> Option<Self> {
        let at = |from: usize| {
            let seconds = [payload[from], payload[from + 1], payload[from + 2], payload[from + 3]];
            Timestamp::from_second(u32::from_le_bytes(seconds).into()).unwrap_or(Timestamp::MAX)
        };
        Some(match payload[0] {
            0x00 => Self::Bolt { source: payload[1], status: payload[2], remote: payload[3], at: at(4) },
            0x07 => Self::Keypad { at: at(1), slot: u16::from_le_bytes([payload[10], payload[11]]) },
            0x0e => Self::Pin {
                at: at(1),
                slot: u16::from_le_bytes([payload[6], payload[7]]),
                status: payload[8] & 0x0f,
            },
            0x20 => Self::Door { at: at(1), door: Door::of(payload[5]) },
            0x80 => return None,
            other => Self::Other(other),
        })
    }
}

/// How the lock ended a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultCode(pub u8);

impl ResultCode {
    /// Done.
    pub const OK: Self = Self(0x00);
    /// Nothing happened that has not been told.
    pub const LOG_EMPTY: Self = Self(0x28);
    /// It took too long.
    pub const TIMEOUT: Self = Self(0x08);
    /// There is no such thing.
    pub const NOT_FOUND: Self = Self(0x3f);
    /// Something is there already.
    pub const SLOT_IN_USE: Self = Self(0x45);

    /// What it means, in words that never change.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            0x00 => "ok",
            0x01 => "not_paired",
            0x02 => "not_readable",
            0x03 => "wrong_key",
            0x04 => "keypad_disabled",
            0x05 => "invalid_access",
            0x06 => "code_exists",
            0x07 => "no_space",
            0x08 => "timeout",
            0x0a => "rfid_exists",
            0x0b => "fingerprint_exists",
            0x1e => "stall",
            0x1f => "position",
            0x20 => "polarity",
            0x21 => "calibration",
            0x22 => "back_off",
            0x23 => "handle",
            0x28 => "log_empty",
            0x32 => "battery_low",
            0x33 => "too_hot",
            0x37 => "invalid_operation",
            0x38 => "not_authorised",
            0x39 => "no_buffers",
            0x3a => "invalid",
            0x3e => "busy",
            0x3f => "not_found",
            0x45 => "slot_in_use",
            _ => "unknown",
        }
    }
}

impl fmt::Display for ResultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X} {}", self.0, self.name())
    }
}

#[cfg(test)]
mod tests;
