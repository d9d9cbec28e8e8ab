//! What the product is about, in its own words: jobs, doors, stays, windows, outcomes.
//!
//! This room is data and the rules that belong to single values. It does no IO, reads no clock, logs nothing and
//! never sees a socket, a row or a byte of a device.

mod admission;
mod code;
mod condition;
mod desired;
mod door_event;
mod id;
mod inventory;
mod job;
mod key_template;
mod name;
mod outcome;
mod private;
mod state;
mod treatment;
mod whom;
mod window;

pub use admission::Admission;
pub use code::Code;
pub use condition::{Condition, Severity};
pub use desired::{
    DesiredCard, DesiredCardState, DesiredCode, DesiredDevice, DesiredDoors, DesiredGrant, GrantMade,
    GrantRevoked,
};
pub use door_event::{DoorAct, DoorEvent, DoorEvents, DoorMeans};
pub use id::*;
pub use inventory::{
    Capabilities, Device, Door, DoorKind, Encoder, Inventory, PinConstraint, PinRules, ProofLevel,
    SystemInventory, SystemKind,
};
pub use job::{CardEncode, CardRead, Job, Kind, Order, Priority, SlotContent, SlotNow, SlotPut, StayModify};
pub use key_template::{KeyLink, KeyTemplate, KeyTemplateError};
pub use name::{DeviceName, DoorName, EncoderName, LaneName, NameError, ReservationKey, SystemName};
pub use outcome::{
    CardFacts, CardSeen, LocalCard, LocalJob, Origin, Outcome, Refusal, Report, Resolution, RoomState,
    SlotSeen, Success, Verdict, Written,
};
pub use private::{Private, on_the_wire, on_the_wire_optional};
pub use state::JobState;
pub use treatment::{StayCards, Treatment};
pub use whom::Whom;
pub use window::{Window, WindowError};
