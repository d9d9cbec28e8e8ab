//! What is asked of a board.

use core::net::Ipv4Addr;

use jiff::civil::DateTime;

use super::{
    codec::{Fields, Frame, Function, START, Writer, Wrong, head, wrong},
    values::{
        AntiPassback, Card, CardNumber, DoorControl, DoorMode, FirstCard, FirstCardMode, Interlock, Listener,
        Pin, Task, TimeProfile, profile_id,
    },
};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Who is there; the only one that may go to serial number 0, which is every board.
    GetDevice,
    /// Set the network address. Never answered.
    SetAddress {
        /// The address.
        address: Ipv4Addr,
        /// The subnet's mask.
        mask: Ipv4Addr,
        /// The gateway.
        gateway: Ipv4Addr,
    },
    /// Read the clock.
    GetTime,
    /// Set the clock, in local time.
    SetTime(DateTime),
    /// How is it.
    GetStatus,
    /// Say where events go.
    SetListener(Listener),
    /// Where do events go.
    GetListener,
    /// Say how a door is held.
    SetDoorControl(DoorControl),
    /// How is this door held.
    GetDoorControl(u8),
    /// Open this door once.
    OpenDoor(u8),
    /// Put a card.
    PutCard(Card),
    /// Delete a card.
    DeleteCard(CardNumber),
    /// Delete all cards.
    DeleteAllCards,
    /// How many cards are there.
    CountCards,
    /// Which card has this number.
    GetCard(CardNumber),
    /// Which card is at this place, from 1.
    GetCardByIndex(u32),
    /// Put a time profile.
    SetTimeProfile(TimeProfile),
    /// Which time profile has this number.
    GetTimeProfile(u8),
    /// Delete all time profiles.
    ClearTimeProfiles,
    /// Set the codes that open a door.
    SetDoorPasscodes {
        /// Which, 1 to 4.
        door: u8,
        /// The codes.
        codes: [Pin; 4],
    },
    /// Which readers' keypads are listened to.
    ActivateKeypads([bool; 4]),
    /// Keep people from entering twice.
    SetAntiPassback(AntiPassback),
    /// How is that set.
    GetAntiPassback,
    /// Which doors are never open together.
    SetInterlock(Interlock),
    /// When a first card opens a door for all.
    SetFirstCard(FirstCard),
    /// Let the host decide about cards.
    SetPcControl(bool),
    /// Whether doors and buttons make events too.
    RecordSpecialEvents(bool),
    /// Clear the list of tasks.
    ClearTasks,
    /// Add a task.
    AddTask(Task),
    /// Make added tasks good.
    RefreshTasks,
    /// Which event has this number: 0 the oldest kept, `u32::MAX` the newest.
    GetEvent(u32),
    /// Set the bookmark in the events.
    SetEventIndex(u32),
    /// Where is that.
    GetEventIndex,
    /// Forget everything that was set.
    RestoreDefaults,
}

impl Request {
    /// Its function.
    #[must_use]
    pub fn function(&self) -> Function {
        match self {
            Self::GetDevice => Function::GetDevice,
            Self::SetAddress { .. } => Function::SetAddress,
            Self::GetTime => Function::GetTime,
            Self::SetTime(_) => Function::SetTime,
            Self::GetStatus => Function::GetStatus,
            Self::SetListener(_) => Function::SetListener,
            Self::GetListener => Function::GetListener,
            Self::SetDoorControl(_) => Function::SetDoorControl,
            Self::GetDoorControl(_) => Function::GetDoorControl,
            Self::OpenDoor(_) => Function::OpenDoor,
            Self::PutCard(_) => Function::PutCard,
            Self::DeleteCard(_) => Function::DeleteCard,
            Self::DeleteAllCards => Function::DeleteAllCards,
            Self::CountCards => Function::CountCards,
            Self::GetCard(_) => Function::GetCard,
            Self::GetCardByIndex(_) => Function::GetCardByIndex,
            Self::SetTimeProfile(_) => Function::SetTimeProfile,
            Self::GetTimeProfile(_) => Function::GetTimeProfile,
            Self::ClearTimeProfiles => Function::ClearTimeProfiles,
            Self::SetDoorPasscodes { .. } => Function::SetDoorPasscodes,
            Self::ActivateKeypads(_) => Function::ActivateKeypads,
            Self::SetAntiPassback(_) => Function::SetAntiPassback,
            Self::GetAntiPassback => Function::GetAntiPassback,
            Self::SetInterlock(_) => Function::SetInterlock,
            Self::SetFirstCard(_) => Function::SetFirstCard,
            Self::SetPcControl(_) => Function::SetPcControl,
            Self::RecordSpecialEvents(_) => Function::RecordSpecialEvents,
            Self::ClearTasks => Function::ClearTasks,
            Self::AddTask(_) => Function::AddTask,
            Self::RefreshTasks => Function::RefreshTasks,
            Self::GetEvent(_) => Function::GetEvent,
            Self::SetEventIndex(_) => Function::SetEventIndex,
            Self::GetEventIndex => Function::GetEventIndex,
            Self::RestoreDefaults => Function::RestoreDefaults,
        }
    }

    /// The frame for the board of this serial number.
    ///
    /// # Errors
    /// When a value cannot be put into it, or no board may be told that.
    pub fn encode(&self, serial: u32) -> Result<Frame, Wrong> {
        if serial == 0 && *self != Self::GetDevice {
            return Err(Wrong::Serial);
        }
        let mut to = Writer::new(self.function(), serial);
        match self {
            Self::GetDevice
            | Self::GetTime
            | Self::GetStatus
            | Self::GetListener
            | Self::CountCards
            | Self::GetAntiPassback
            | Self::GetEventIndex => {}
            Self::DeleteAllCards
            | Self::ClearTimeProfiles
            | Self::ClearTasks
            | Self::RefreshTasks
            | Self::RestoreDefaults => to.magic(8),
            Self::SetAddress { address, mask, gateway } => {
                to.bytes(8, &address.octets());
                to.bytes(12, &mask.octets());
                to.bytes(16, &gateway.octets());
                to.magic(20);
            }
            Self::SetTime(time) => to.date_time(8, *time, "time")?,
            Self::SetListener(listener) => listener.write(&mut to),
            Self::SetDoorControl(control) => control.write(&mut to)?,
            Self::GetDoorControl(door) | Self::OpenDoor(door) => to.door(8, *door)?,
            Self::PutCard(card) => {
                card.check()?;
                card.write(&mut to)?;
            }
            Self::DeleteCard(card) | Self::GetCard(card) => to.u32(8, usable(*card)?.expose()),
            Self::GetCardByIndex(index) => to.u32(8, card_index(*index)?),
            Self::GetEvent(index) => to.u32(8, *index),
            Self::SetTimeProfile(profile) => {
                profile.check()?;
                profile.write(&mut to)?;
            }
            Self::GetTimeProfile(id) => to.u8(8, profile_id(*id)?),
            Self::SetDoorPasscodes { door, codes } => {
                to.door(8, *door)?;
                for (code, at) in codes.iter().zip([12, 16, 20, 24]) {
                    to.u32(at, code.expose());
                }
            }
            Self::ActivateKeypads(readers) => to.bools(8, readers),
            Self::SetAntiPassback(mode) => to.u8(8, *mode as u8),
            Self::SetInterlock(mode) => to.u8(8, *mode as u8),
            Self::SetFirstCard(first) => {
                first_card_check(first)?;
                to.door(8, first.door)?;
                to.minute(9, first.start);
                to.u8(11, first.active as u8);
                to.minute(12, first.end);
                to.u8(14, first.inactive as u8);
                to.bools(15, &first.days);
            }
            Self::SetPcControl(on) => {
                to.magic(8);
                to.bools(12, &[*on]);
            }
            Self::RecordSpecialEvents(on) => to.bools(8, &[*on]),
            Self::AddTask(task) => {
                task_check(task)?;
                to.date(8, task.from, "first day")?;
                to.date(12, task.to, "last day")?;
                to.bools(16, &task.days);
                to.minute(23, task.start);
                to.door(25, task.door)?;
                to.bytes(26, &[task.task, task.more_cards]);
            }
            Self::SetEventIndex(index) => {
                to.u32(8, *index);
                to.magic(12);
            }
        }
        Ok(to.end())
    }

    /// Reads a request, and the serial number of the board that it is for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<(u32, Self), Wrong> {
        let (function, serial, of) = head(bytes, &[START])?;
        let request = match function {
            Function::GetDevice => Self::GetDevice,
            Function::GetTime => Self::GetTime,
            Function::GetStatus => Self::GetStatus,
            Function::GetListener => Self::GetListener,
            Function::CountCards => Self::CountCards,
            Function::GetAntiPassback => Self::GetAntiPassback,
            Function::GetEventIndex => Self::GetEventIndex,
            Function::DeleteAllCards => of.magic(8).map(|()| Self::DeleteAllCards)?,
            Function::ClearTimeProfiles => of.magic(8).map(|()| Self::ClearTimeProfiles)?,
            Function::ClearTasks => of.magic(8).map(|()| Self::ClearTasks)?,
            Function::RefreshTasks => of.magic(8).map(|()| Self::RefreshTasks)?,
            Function::RestoreDefaults => of.magic(8).map(|()| Self::RestoreDefaults)?,
            Function::SetAddress => {
                of.magic(20)?;
                Self::SetAddress { address: of.ip(8), mask: of.ip(12), gateway: of.ip(16) }
            }
            Function::SetTime => Self::SetTime(of.date_time(8, "time")?.ok_or(wrong("time", "is missing"))?),
            Function::SetListener => Self::SetListener(Listener::read(&of)),
            Function::SetDoorControl => Self::SetDoorControl(DoorControl::read(&of)?),
            Function::GetDoorControl => Self::GetDoorControl(of.door(8)?),
            Function::OpenDoor => Self::OpenDoor(of.door(8)?),
            Function::PutCard => {
                let card = Card::read(&of)?;
                card.check()?;
                Self::PutCard(card)
            }
            Function::DeleteCard => Self::DeleteCard(usable(of.card(8))?),
            Function::GetCard => Self::GetCard(usable(of.card(8))?),
            Function::GetCardByIndex => Self::GetCardByIndex(card_index(of.u32(8))?),
            Function::GetEvent => Self::GetEvent(of.u32(8)),
            Function::SetTimeProfile => {
                let profile = TimeProfile::read(&of)?;
                profile.check()?;
                Self::SetTimeProfile(profile)
            }
            Function::GetTimeProfile => Self::GetTimeProfile(profile_id(of.u8(8))?),
            Function::SetDoorPasscodes => Self::SetDoorPasscodes {
                door: of.door(8)?,
                codes: {
                    let code = |at| of.code(at, "door code");
                    [code(12)?, code(16)?, code(20)?, code(24)?]
                },
            },
            Function::ActivateKeypads => Self::ActivateKeypads(of.bools(8, "reader")?),
            Function::SetAntiPassback => Self::SetAntiPassback(AntiPassback::of(of.u8(8))?),
            Function::SetInterlock => Self::SetInterlock(Interlock::of(of.u8(8))?),
            Function::SetFirstCard => Self::SetFirstCard(first_card(&of)?),
            Function::SetPcControl => {
                of.magic(8)?;
                Self::SetPcControl(of.bool(12, "switch")?)
            }
            Function::RecordSpecialEvents => Self::RecordSpecialEvents(of.bool(8, "switch")?),
            Function::AddTask => Self::AddTask(task(&of)?),
            Function::SetEventIndex => {
                of.magic(12)?;
                Self::SetEventIndex(of.u32(8))
            }
        };
        if serial == 0 && request != Self::GetDevice {
            return Err(Wrong::Serial);
        }
        Ok((serial, request))
    }
}

fn usable(card: CardNumber) -> Result<CardNumber, Wrong> {
    if card.is_usable() { Ok(card) } else { Err(wrong("card number", "means something else to a board")) }
}

fn card_index(index: u32) -> Result<u32, Wrong> {
    if index == 0 { Err(wrong("place in the list", "is 0; it begins at 1")) } else { Ok(index) }
}

fn first_card(of: &Fields) -> Result<FirstCard, Wrong> {
    let first = FirstCard {
        door: of.door(8)?,
        start: of.minute(9, "start")?,
        active: FirstCardMode::of(of.u8(11))?,
        end: of.minute(12, "end")?,
        inactive: FirstCardMode::of(of.u8(14))?,
        days: of.bools(15, "weekday")?,
    };
    first_card_check(&first)?;
    Ok(first)
}

fn first_card_check(first: &FirstCard) -> Result<(), Wrong> {
    if first.active == FirstCardMode::FirstCardOnly {
        return Err(wrong("first-card mode", "is only for the hours outside"));
    }
    Ok(())
}

fn task(of: &Fields) -> Result<Task, Wrong> {
    let task = Task {
        from: of.date(8, "first day")?,
        to: of.date(12, "last day")?,
        days: of.bools(16, "weekday")?,
        start: of.minute(23, "start")?,
        door: of.door(25)?,
        task: of.u8(26),
        more_cards: of.u8(27),
    };
    task_check(&task)?;
    Ok(task)
}

fn task_check(task: &Task) -> Result<(), Wrong> {
    if task.task > 12 {
        return Err(wrong("task", "is not 0 to 12"));
    }
    if task.to < task.from {
        return Err(wrong("last day", "lies before the first"));
    }
    Ok(())
}

impl Listener {
    pub(super) fn read(of: &Fields) -> Self {
        Self { address: of.ip(8), port: of.u16(12), every: of.u8(14) }
    }

    pub(super) fn write(&self, to: &mut Writer) {
        to.bytes(8, &self.address.octets());
        to.u16(12, self.port);
        to.u8(14, self.every);
    }
}

impl DoorControl {
    pub(super) fn read(of: &Fields) -> Result<Self, Wrong> {
        Ok(Self { door: of.door(8)?, mode: DoorMode::of(of.u8(9))?, delay: of.u8(10) })
    }

    pub(super) fn write(&self, to: &mut Writer) -> Result<(), Wrong> {
        to.door(8, self.door)?;
        to.bytes(9, &[self.mode as u8, self.delay]);
        Ok(())
    }
}
