//! Drivers: each turns orders into one system's commands and its answers into outcomes.
//!
//! A driver has four parts: `codec` (bytes to frames; pure), `session` (one conversation as a state machine; pure),
//! `driver` (orders to sessions, and the only part that touches a line), and `sim`, the pretend system. A driver never
//! sees the cloud, the queue or SQL. A simulator never uses its driver's codec or session.

pub mod august_yale;
pub mod ble;
pub mod card_reader;
pub mod discover;
pub mod igloohome;
pub mod kaba_messenger;
pub mod probe;
pub mod salto_is;
pub mod sim_lock;
pub mod ttlock;
pub mod uhppote;
pub mod visionline;
pub mod xml;

mod came;
mod local;
mod password;
mod rests;
mod wall;

pub use came::Came;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use crate::{
    config::{Dialect, KabaProduct},
    model::{
        Admission, Capabilities, Code, DeviceName, DoorEvent, EncoderName, JobId, LaneName, Order, Outcome,
        Refusal, SlotNow, StayCards, Success, SystemInventory, SystemKind, SystemName, Treatment,
    },
    protocol::Stage,
    seams::BoxFuture,
};

/// One access system or device family on the site.
pub trait Driver: Send + Sync {
    /// The site's name for it.
    fn system(&self) -> &SystemName;

    /// Its doors and encoders, and what it can do.
    fn inventory(&self) -> SystemInventory;

    /// Its lanes. At most one job of a lane is at work at a time.
    fn lanes(&self) -> Vec<LaneName>;

    /// Judges an order before anything is stored as sent: is it possible at all, which lane does it go to, and which
    /// of its doors follow reservations. Pure: no IO.
    ///
    /// # Errors
    /// A named refusal when the system cannot do it, whatever the treatment.
    fn admit(&self, order: &Order) -> Result<Admission, Refusal>;

    /// Whether its lines are open. A lane whose line is not ready gets no work.
    fn line(&self) -> watch::Receiver<Line>;

    /// What is odd about the system although its line may be open; looked at whenever the line changes.
    fn remark(&self) -> Option<Trouble> {
        None
    }

    /// What of it rests at present: work for it is not marked `sent` before it is over. A rest may begin with a job and end
    /// with one, else it ends by itself.
    fn rests(&self) -> Vec<Resting> {
        Vec::new()
    }

    /// Does the work. Cancel-safe in this sense only: whoever drops the future must treat the job as `unknown`.
    fn perform<'a>(&'a self, work: Work, progress: &'a ProgressSink) -> BoxFuture<'a, Performed>;

    /// Looks for proof of what became of work that was marked `sent` and whose end nobody knows, after a crash or a
    /// doubt. It only reads; it may take as long as reading takes. A driver that can read nothing back proves nothing.
    fn prove<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Proof> {
        let _ = work;
        Box::pin(async { Proof::None })
    }

    /// Its devices that remember what happened at them, and how often that is to be read; none where no device does, or
    /// where nobody wants to know.
    fn observed(&self) -> Option<(Vec<DeviceName>, Duration)> {
        None
    }

    /// Changes whenever a device told by itself that something happened: [`Self::observe`] would show it now. None where
    /// devices wait to be asked.
    fn stirs(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Reads what happened at a device after a mark that an earlier reading gave; without one, all that it remembers. It
    /// only reads.
    ///
    /// # Errors
    /// When the device could not be read to the end of what it told; the next reading begins at the same mark.
    fn observe<'a>(
        &'a self,
        device: &'a DeviceName,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Observed, Refusal>> {
        let _ = after;
        let message = format!("{device} remembers nothing of what happened at it");
        Box::pin(async move { Err(Refusal::new(Code::Unsupported, message)) })
    }

    /// How its devices were found over the air, of those that were wanted since the start.
    fn signs(&self) -> Vec<Signs> {
        Vec::new()
    }

    /// Asks the driver to begin nothing new: work whose command has not left yet comes back as
    /// [`Performed::NothingSent`].
    fn stop(&self);
}

/// How a device was found over the air since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signs {
    /// Which.
    pub device: DeviceName,
    /// How many connections were made.
    pub reached: u64,
    /// When the last one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached_at: Option<Timestamp>,
    /// How strong its signal was then, in dBm, as the adapter told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal_dbm: Option<i16>,
    /// How long it took then until the connection stood, listening for it and waiting for the radio included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u64>,
    /// How long the last conversation that has ended held its link. A guest's telephone gets none meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_ms: Option<u64>,
    /// Its battery, as it last told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub battery: Option<Battery>,
    /// What came to nothing, by cause.
    #[serde(default)]
    pub misses: Misses,
}

/// A battery, in the words of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Battery {
    /// How full it is.
    PerCent(u8),
    /// The voltage of its cells together.
    Millivolts(u16),
}

/// How often a device was wanted in vain, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Misses {
    /// It was not heard for as long as it was listened for.
    pub not_heard: u64,
    /// It was heard, and no connection came of it.
    pub not_connected: u64,
    /// Something else has its address or name.
    pub other_device: u64,
    /// The radio could not be used.
    pub radio_down: u64,
    /// It was reached, and the conversation ended before its end.
    pub broken_off: u64,
}

/// What a make of system can do, as its driver declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Declared {
    /// Which make.
    pub system: SystemKind,
    /// By which line or in which dialect, where that makes a difference: `tcp`, `serial`, `onity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<&'static str>,
    /// What it can do there.
    pub capabilities: Capabilities,
}

/// What every make can do.
#[must_use]
pub fn declared() -> Vec<Declared> {
    let of = |system, line, capabilities| Declared { system, line, capabilities };
    vec![
        of(SystemKind::SaltoIs, None, salto_is::SaltoIs::capabilities(Dialect::Salto)),
        of(SystemKind::Visionline, Some("tcp"), visionline::Visionline::capabilities_over_tcp()),
        of(SystemKind::Visionline, Some("serial"), visionline::Visionline::capabilities_over_serial()),
        of(SystemKind::KabaMessenger, None, kaba_messenger::KabaMessenger::capabilities(KabaProduct::Saflok)),
        of(SystemKind::SaltoIs, Some("salto_hours"), salto_is::SaltoIs::capabilities(Dialect::SaltoHours)),
        of(SystemKind::SaltoIs, Some("onity"), salto_is::SaltoIs::capabilities(Dialect::Onity)),
        of(SystemKind::SaltoIs, Some("amadeus_st40"), salto_is::SaltoIs::capabilities(Dialect::AmadeusSt40)),
        of(SystemKind::TtLock, None, ble::BleLocks::capabilities()),
        of(SystemKind::AugustYale, None, ble::BleLocks::capabilities()),
        of(SystemKind::Igloohome, None, igloohome::Igloohome::capabilities()),
        of(SystemKind::Uhppote, None, uhppote::Uhppote::capabilities()),
        of(SystemKind::CardReader, None, card_reader::CardReaders::capabilities()),
        of(SystemKind::SimLock, None, sim_lock::SimLock::capabilities()),
    ]
}

/// What is known of the line's past when its driver starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Every command had its answer.
    Answered,
    /// The last run ended while a command was under way: its answer may still come over a serial line, and must not be
    /// taken for the next command's.
    AnswerMayCome,
}

/// A lane, or one encoder of a lane, that gets no command for a while: it may still be at work on one that was not
/// answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resting {
    /// Which lane.
    pub lane: LaneName,
    /// Which encoder of it; none where the whole lane rests.
    pub encoder: Option<EncoderName>,
    /// Until when.
    pub until: Instant,
    /// Why, in the words in which work would be refused.
    pub why: Refusal,
}

/// Where a driver tells how a job stands, for screens.
pub type ProgressSink = dyn Fn(Stage) + Send + Sync;

/// One job at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Which job.
    pub job_id: JobId,
    /// What to do.
    pub order: Order,
    /// What the card does to its rooms.
    pub treatment: Treatment,
    /// Of a card that joins where others make cards too and whose system lists them: unless one of these cards is still
    /// good there, the room's stay is not this one any more, and nothing is written.
    pub to_see: Option<StayCards>,
    /// Of an order about a slot: what is known of that.
    pub slot: Option<SlotNow>,
}

impl Work {
    /// Why a slot cannot be emptied at a device that knows an entry by its content or by its place alone: both were forgotten
    /// when the memory here was set back.
    fn forgotten(&self) -> Option<Refusal> {
        let Order::SlotRemove { device, .. } = &self.order else { return None };
        let is_so = self.slot.as_ref().is_some_and(|slot| slot.is_forgotten && slot.may_hold.is_empty());
        is_so.then(|| {
            Refusal::new(
                Code::MemoryRestored,
                format!(
                    "what this slot of {device} held was forgotten when the memory here was set back: look at the \
                     device's own list, and take out by hand what should not be there"
                ),
            )
        })
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Performed {
    /// It ended, one way or another.
    Ended(Outcome),
    /// Proven: no byte of the command was written. The job may wait and be tried again.
    NothingSent(Refusal),
    /// It may have been done, and doing it again is harmless: the device's table ends the same. Only for kinds that are
    /// repeatable; the job stays `sent` and is tried again after a pause.
    MayRepeat(Refusal),
}

/// What a device's own memory says about work whose end nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// It was done.
    Done(Success),
    /// It was not done, and will not be by itself.
    NotDone(Refusal),
    /// The device says nothing about it, or could not be asked.
    None,
}

/// What a device remembers of what happened at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// What happened, in its order.
    pub events: Vec<DoorEvent>,
    /// At least so many before these it remembers no more. A memory that was cleared does not say how many, and counts as
    /// one.
    pub lost: u64,
    /// Where the next reading begins, in the driver's own words.
    pub mark: String,
    /// Whether it remembers more than was read.
    pub more: bool,
}

/// Whether a line is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Being opened for the first time.
    Opening,
    /// Open.
    Ready,
    /// Not open; it is tried again by itself.
    Down(Trouble),
}

/// Why a line is not open, or what is odd about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Stable name: `line_down`, `port_held`, `second_client_refused`.
    pub code: &'static str,
    /// For a person: what is wrong, and what to do.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}
