//! What a board says: answers, and events by themselves.

use jiff::civil::DateTime;

use super::{
    codec::{Fields, Frame, Function, OLD_EVENT_START, START, Writer, Wrong, head},
    values::{
        AntiPassback, Card, CardNumber, Device, DoorControl, Event, Held, Listener, Status, TimeProfile,
    },
};

/// An answer, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The board that says it.
    pub serial: u32,
    /// To what.
    pub function: Function,
    /// What.
    pub answer: Answer,
}

/// What a board answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done, or refused.
    Done(bool),
    /// Who it is.
    Device(Device),
    /// Its clock, if it is set: read, or as it was set.
    Time(Option<DateTime>),
    /// How it is.
    Status(Status),
    /// Where events go.
    Listener(Listener),
    /// How a door is held.
    DoorControl(DoorControl),
    /// How many cards there are.
    Cards(u32),
    /// A card, or why there is none.
    Card(Held),
    /// A time profile, if it is defined.
    TimeProfile(Option<TimeProfile>),
    /// How people are kept from entering twice.
    AntiPassback(AntiPassback),
    /// An event, if there is one.
    Event(Option<Event>),
    /// The bookmark in the events.
    EventIndex(u32),
}

impl Reply {
    /// Reads an answer.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        let (function, serial, of) = head(bytes, &[START])?;
        if serial == 0 {
            return Err(Wrong::Serial);
        }
        let answer = match function {
            Function::SetAddress => return Err(Wrong::Misplaced(function.code())),
            Function::GetDevice => Answer::Device(device(&of)?),
            Function::GetTime | Function::SetTime => Answer::Time(of.date_time(8, "time")?),
            Function::GetStatus => Answer::Status(Status::read(&of)?),
            Function::GetListener => Answer::Listener(Listener::read(&of)),
            Function::SetDoorControl | Function::GetDoorControl => {
                Answer::DoorControl(DoorControl::read(&of)?)
            }
            Function::CountCards => Answer::Cards(of.u32(8)),
            Function::GetCard | Function::GetCardByIndex => Answer::Card(match of.u32(8) {
                0 => Held::Nothing,
                u32::MAX => Held::Deleted,
                _ => Held::Card(Card::read(&of)?),
            }),
            Function::GetTimeProfile => Answer::TimeProfile(match of.u8(8) {
                0 => None,
                _ => Some(TimeProfile::read(&of)?),
            }),
            Function::GetAntiPassback => Answer::AntiPassback(AntiPassback::of(of.u8(8))?),
            // A record that is not there may hold anything behind its number.
            Function::GetEvent if of.u32(8) == 0 => Answer::Event(None),
            Function::GetEvent => Answer::Event(Some(Event::read(&of)?)),
            Function::GetEventIndex => Answer::EventIndex(of.u32(8)),
            Function::OpenDoor
            | Function::PutCard
            | Function::DeleteCard
            | Function::DeleteAllCards
            | Function::SetAntiPassback
            | Function::SetTimeProfile
            | Function::ClearTimeProfiles
            | Function::SetDoorPasscodes
            | Function::RecordSpecialEvents
            | Function::SetListener
            | Function::SetPcControl
            | Function::SetInterlock
            | Function::ActivateKeypads
            | Function::ClearTasks
            | Function::AddTask
            | Function::SetFirstCard
            | Function::RefreshTasks
            | Function::SetEventIndex
            | Function::RestoreDefaults => Answer::Done(of.bool(8, "answer")?),
        };
        Ok(Self { serial, function, answer })
    }

    /// The frame, as a board would send it.
    ///
    /// # Errors
    /// When a value cannot be put into it.
    pub fn encode(&self) -> Result<Frame, Wrong> {
        if self.serial == 0 {
            return Err(Wrong::Serial);
        }
        let mut to = Writer::new(self.function, self.serial);
        match &self.answer {
            Answer::Done(done) => to.bools(8, &[*done]),
            Answer::Device(device) => {
                to.bytes(8, &device.address.octets());
                to.bytes(12, &device.mask.octets());
                to.bytes(16, &device.gateway.octets());
                to.bytes(20, &device.mac);
                to.bytes(26, &device.version);
                if let Some(released) = device.released {
                    to.date(28, released, "release date")?;
                }
            }
            Answer::Time(Some(time)) => to.date_time(8, *time, "time")?,
            Answer::Status(status) => status.write(&mut to)?,
            Answer::Listener(listener) => listener.write(&mut to),
            Answer::DoorControl(control) => control.write(&mut to)?,
            Answer::Cards(count) => to.u32(8, *count),
            Answer::Card(Held::Card(card)) => card.write(&mut to)?,
            Answer::Card(Held::Deleted) => to.u32(8, CardNumber::new(u32::MAX).expose()),
            Answer::TimeProfile(Some(profile)) => profile.write(&mut to)?,
            Answer::AntiPassback(mode) => to.u8(8, *mode as u8),
            Answer::Event(Some(event)) => event.write(&mut to)?,
            Answer::EventIndex(index) => to.u32(8, *index),
            Answer::Time(None)
            | Answer::Card(Held::Nothing)
            | Answer::TimeProfile(None)
            | Answer::Event(None) => {}
        }
        Ok(to.end())
    }
}

fn device(of: &Fields) -> Result<Device, Wrong> {
    Ok(Device {
        address: of.ip(8),
        mask: of.ip(12),
        gateway: of.ip(16),
        mac: of.bytes(20),
        version: of.bytes(26),
        released: of.maybe_date(28, "release date")?,
    })
}

/// An event that a board sent by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The board.
    pub serial: u32,
    /// Whether it came as firmware 6.62 sends it.
    pub is_old: bool,
    /// How the board is, with the event.
    pub status: Status,
}

impl Pushed {
    /// Reads an event from a listener's port.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        let (function, serial, of) = head(bytes, &[START, OLD_EVENT_START])?;
        if function != Function::GetStatus {
            return Err(Wrong::Misplaced(function.code()));
        }
        if serial == 0 {
            return Err(Wrong::Serial);
        }
        Ok(Self { serial, is_old: bytes[0] == OLD_EVENT_START, status: Status::read(&of)? })
    }

    /// The frame, as a board would send it.
    ///
    /// # Errors
    /// When a value cannot be put into it.
    pub fn encode(&self) -> Result<Frame, Wrong> {
        if self.serial == 0 {
            return Err(Wrong::Serial);
        }
        let mut to = Writer::new(Function::GetStatus, self.serial);
        if self.is_old {
            to.start(OLD_EVENT_START);
        }
        self.status.write(&mut to)?;
        Ok(to.end())
    }
}
