//! The frame of 64 bytes and the fields in it. No checksum guards it: what is wrong with it shows in its fields.

use core::net::Ipv4Addr;

use jiff::civil::{Date, DateTime, Time};

use super::values::{CardNumber, Pin};

/// How long every frame is, in both directions.
pub const LENGTH: usize = 64;
/// What begins a frame.
pub const START: u8 = 0x17;
/// What begins an event of firmware 6.62, and nothing else.
pub const OLD_EVENT_START: u8 = 0x19;
/// Guards requests that clear something, as it stands on the wire.
const MAGIC: [u8; 4] = [0x55, 0xAA, 0xAA, 0x55];

/// One frame.
pub type Frame = [u8; LENGTH];

/// Why bytes are no frame of ours, or values cannot be put into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Too short or too long.
    #[error("{0} bytes are no frame of 64")]
    Length(usize),
    /// It begins with something else.
    #[error("a frame does not begin with 0x{0:02x}")]
    Start(u8),
    /// Nobody knows this function.
    #[error("function 0x{0:02x} is not known")]
    Function(u8),
    /// The function is known, and never has an answer or is no event.
    #[error("function 0x{0:02x} is not expected here")]
    Misplaced(u8),
    /// No board has the serial number 0.
    #[error("serial number 0 names no board")]
    Serial,
    /// A field says what it cannot.
    #[error("{field}: {why}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

pub(super) fn wrong(field: &'static str, why: &'static str) -> Wrong {
    Wrong::Field { field, why }
}

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What a frame is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Function { $($(#[$doc])* $name = $code,)* }

        impl Function {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The function of this code.
            ///
            /// # Errors
            /// When there is none.
            pub fn of(code: u8) -> Result<Self, Wrong> {
                match code {
                    $($code => Ok(Self::$name),)*
                    _ => Err(Wrong::Function(code)),
                }
            }
        }
    };
}

functions! {
    /// How a board is; also what an event is sent as.
    GetStatus = 0x20,
    /// Set the clock.
    SetTime = 0x30,
    /// Read the clock.
    GetTime = 0x32,
    /// Open a door once.
    OpenDoor = 0x40,
    /// Put a card, replacing what was there of it.
    PutCard = 0x50,
    /// Delete a card.
    DeleteCard = 0x52,
    /// Delete every card.
    DeleteAllCards = 0x54,
    /// How many cards there are.
    CountCards = 0x58,
    /// Read a card by its number.
    GetCard = 0x5A,
    /// Read a card by its place.
    GetCardByIndex = 0x5C,
    /// Say when a door is locked, and for how long it opens.
    SetDoorControl = 0x80,
    /// Read that.
    GetDoorControl = 0x82,
    /// Keep people from entering twice.
    SetAntiPassback = 0x84,
    /// Read that.
    GetAntiPassback = 0x86,
    /// Put a time profile.
    SetTimeProfile = 0x88,
    /// Delete every time profile.
    ClearTimeProfiles = 0x8A,
    /// Set the four codes of a door.
    SetDoorPasscodes = 0x8C,
    /// Whether doors and buttons make events too.
    RecordSpecialEvents = 0x8E,
    /// Say where events are sent.
    SetListener = 0x90,
    /// Read that.
    GetListener = 0x92,
    /// Who is there; with serial number 0, every board answers.
    GetDevice = 0x94,
    /// Set the network address; never answered.
    SetAddress = 0x96,
    /// Read a time profile.
    GetTimeProfile = 0x98,
    /// Let the host decide about cards.
    SetPcControl = 0xA0,
    /// Which doors are never open together.
    SetInterlock = 0xA2,
    /// Which keypads are listened to.
    ActivateKeypads = 0xA4,
    /// Clear the list of tasks.
    ClearTasks = 0xA6,
    /// Add a task.
    AddTask = 0xA8,
    /// Say when a first card opens a door for all.
    SetFirstCard = 0xAA,
    /// Make added tasks good.
    RefreshTasks = 0xAC,
    /// Read an event.
    GetEvent = 0xB0,
    /// Set the bookmark in the events.
    SetEventIndex = 0xB2,
    /// Read that.
    GetEventIndex = 0xB4,
    /// Forget everything that was set.
    RestoreDefaults = 0xC8,
}

impl Function {
    /// Its code.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// The function and the serial number of a frame that begins with one of `starts`.
pub(super) fn head(bytes: &[u8], starts: &[u8]) -> Result<(Function, u32, Fields), Wrong> {
    let frame: Frame = bytes.try_into().map_err(|_| Wrong::Length(bytes.len()))?;
    if !starts.contains(&frame[0]) {
        return Err(Wrong::Start(frame[0]));
    }
    let fields = Fields(frame);
    Ok((Function::of(frame[1])?, fields.u32(4), fields))
}

/// Reads fields of a frame.
pub(super) struct Fields(Frame);

impl Fields {
    pub(super) fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|n| self.0[at + n])
    }

    pub(super) fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    pub(super) fn card(&self, at: usize) -> CardNumber {
        CardNumber::new(self.u32(at))
    }

    pub(super) fn pin(&self, at: usize, field: &'static str) -> Result<Pin, Wrong> {
        let [a, b, c] = self.bytes(at);
        Pin::new(u32::from_le_bytes([a, b, c, 0])).ok_or(wrong(field, "is above 999999"))
    }

    pub(super) fn code(&self, at: usize, field: &'static str) -> Result<Pin, Wrong> {
        Pin::new(self.u32(at)).ok_or(wrong(field, "is above 999999"))
    }

    pub(super) fn ip(&self, at: usize) -> Ipv4Addr {
        Ipv4Addr::from(self.bytes::<4>(at))
    }

    pub(super) fn bool(&self, at: usize, field: &'static str) -> Result<bool, Wrong> {
        match self.u8(at) {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(wrong(field, "is neither 0 nor 1")),
        }
    }

    pub(super) fn bools<const N: usize>(&self, at: usize, field: &'static str) -> Result<[bool; N], Wrong> {
        let mut all = [false; N];
        for (n, one) in all.iter_mut().enumerate() {
            *one = self.bool(at + n, field)?;
        }
        Ok(all)
    }

    pub(super) fn door(&self, at: usize) -> Result<u8, Wrong> {
        match self.u8(at) {
            door @ 1..=4 => Ok(door),
            _ => Err(wrong("door", "is not 1 to 4")),
        }
    }

    pub(super) fn magic(&self, at: usize) -> Result<(), Wrong> {
        if self.bytes(at) == MAGIC { Ok(()) } else { Err(wrong("magic word", "is another")) }
    }

    /// Digits, two a byte.
    fn digits<const N: usize>(&self, at: usize, field: &'static str) -> Result<[i8; N], Wrong> {
        let mut all = [0; N];
        for (two, byte) in all.iter_mut().zip(self.bytes::<N>(at)) {
            let (tens, ones) = (byte >> 4, byte & 15);
            if tens > 9 || ones > 9 {
                return Err(wrong(field, "is not made of digits"));
            }
            // At most 99.
            *two = i8::try_from(tens * 10 + ones).map_err(|_| wrong(field, "is not made of digits"))?;
        }
        Ok(all)
    }

    /// A date; all zeros are none.
    pub(super) fn maybe_date(&self, at: usize, field: &'static str) -> Result<Option<Date>, Wrong> {
        let [century, year, month, day] = self.digits(at, field)?;
        if (century, year, month, day) == (0, 0, 0, 0) {
            return Ok(None);
        }
        let year = i16::from(century) * 100 + i16::from(year);
        Date::new(year, month, day).map(Some).map_err(|_| wrong(field, "is not in the calendar"))
    }

    pub(super) fn date(&self, at: usize, field: &'static str) -> Result<Date, Wrong> {
        self.maybe_date(at, field)?.ok_or(wrong(field, "is missing"))
    }

    /// A date without its century; zeros are none.
    pub(super) fn short_date(&self, at: usize, field: &'static str) -> Result<Option<Date>, Wrong> {
        let [year, month, day] = self.digits(at, field)?;
        if (year, month, day) == (0, 0, 0) {
            return Ok(None);
        }
        let date = Date::new(2000 + i16::from(year), month, day);
        date.map(Some).map_err(|_| wrong(field, "is not in the calendar"))
    }

    /// A date and a time; zeros, or zeros behind the year 2000, are none.
    pub(super) fn date_time(&self, at: usize, field: &'static str) -> Result<Option<DateTime>, Wrong> {
        let [century, _, rest @ ..] = self.digits::<7>(at, field)?;
        if (century == 0 || century == 20) && self.u8(at + 1) == 0 && rest == [0; 5] {
            return Ok(None);
        }
        let date = self.date(at, field)?;
        Ok(Some(DateTime::from_parts(date, self.time(at + 4, field)?)))
    }

    pub(super) fn time(&self, at: usize, field: &'static str) -> Result<Time, Wrong> {
        let [hour, minute, second] = self.digits(at, field)?;
        Time::new(hour, minute, second, 0).map_err(|_| wrong(field, "is no time of day"))
    }

    pub(super) fn minute(&self, at: usize, field: &'static str) -> Result<Time, Wrong> {
        let [hour, minute] = self.digits(at, field)?;
        Time::new(hour, minute, 0, 0).map_err(|_| wrong(field, "is no time of day"))
    }
}

/// Fills fields of a frame.
pub(super) struct Writer(Frame);

impl Writer {
    pub(super) fn new(function: Function, serial: u32) -> Self {
        let mut frame = [0; LENGTH];
        frame[0] = START;
        frame[1] = function.code();
        let mut writer = Self(frame);
        writer.u32(4, serial);
        writer
    }

    pub(super) fn start(&mut self, start: u8) {
        self.0[0] = start;
    }

    pub(super) fn end(self) -> Frame {
        self.0
    }

    pub(super) fn bytes(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, at: usize, value: u8) {
        self.0[at] = value;
    }

    pub(super) fn u16(&mut self, at: usize, value: u16) {
        self.bytes(at, &value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, at: usize, value: u32) {
        self.bytes(at, &value.to_le_bytes());
    }

    pub(super) fn bools(&mut self, at: usize, values: &[bool]) {
        for (n, value) in values.iter().enumerate() {
            self.u8(at + n, u8::from(*value));
        }
    }

    pub(super) fn door(&mut self, at: usize, door: u8) -> Result<(), Wrong> {
        self.u8(at, door);
        Fields(self.0).door(at).map(|_| ())
    }

    pub(super) fn pin(&mut self, at: usize, pin: &Pin) {
        let [a, b, c, _] = pin.expose().to_le_bytes();
        self.bytes(at, &[a, b, c]);
    }

    pub(super) fn magic(&mut self, at: usize) {
        self.bytes(at, &MAGIC);
    }

    fn digits(&mut self, at: usize, values: &[i8]) {
        for (n, value) in values.iter().enumerate() {
            // Parts of dates and times: 0 to 99.
            let value = value.unsigned_abs();
            self.u8(at + n, value / 10 * 16 + value % 10);
        }
    }

    pub(super) fn date(&mut self, at: usize, date: Date, field: &'static str) -> Result<(), Wrong> {
        let [century, year] = [date.year().div_euclid(100), date.year().rem_euclid(100)];
        let part = |value: i16| i8::try_from(value).ok().filter(|part| (0..100).contains(part));
        let (Some(century), Some(year)) = (part(century), part(year)) else {
            return Err(wrong(field, "is outside the years 0 to 9999"));
        };
        self.digits(at, &[century, year, date.month(), date.day()]);
        Ok(())
    }

    pub(super) fn short_date(&mut self, at: usize, date: Date, field: &'static str) -> Result<(), Wrong> {
        let year = i8::try_from(date.year() - 2000).ok().filter(|year| (0..100).contains(year));
        let year = year.ok_or(wrong(field, "is outside the years 2000 to 2099"))?;
        self.digits(at, &[year, date.month(), date.day()]);
        Ok(())
    }

    pub(super) fn date_time(&mut self, at: usize, time: DateTime, field: &'static str) -> Result<(), Wrong> {
        self.date(at, time.date(), field)?;
        self.time(at + 4, time.time());
        Ok(())
    }

    pub(super) fn time(&mut self, at: usize, time: Time) {
        self.digits(at, &[time.hour(), time.minute(), time.second()]);
    }

    pub(super) fn minute(&mut self, at: usize, time: Time) {
        self.digits(at, &[time.hour(), time.minute()]);
    }
}
