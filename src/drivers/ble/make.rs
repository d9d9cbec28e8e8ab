//! What differs from make to make: what an order means to a lock, and which conversation does it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::{RoundMode, Timestamp, TimestampRound, Unit, tz::TimeZone};
use ring::digest::{SHA256, digest};
use uuid::Uuid;

use super::{
    keys::{AugustKeys, TtLockKeys},
    *,
};
use crate::{
    config::BleMake,
    drivers::{
        Battery, Came,
        august_yale::{
            self,
            message::{Access, Activity, Bolt},
            task::Change,
        },
        local, ttlock,
    },
    model::{DoorAct, DoorMeans, Window},
    transport::ble::{Link, run},
};

/// How many records are taken out of an August lock's memory at once: so many are lost if power fails just then.
const AT_ONCE: u32 = 16;

/// What to do at a lock.
#[derive(Clone)]
pub(super) enum Task {
    Look,
    Put(SlotPut, SlotNow),
    Remove(SlotNow),
    ProvePut(SlotPut, SlotNow),
    ProveRemove(SlotNow),
    Unlock,
    Watch { from: u16 },
}

impl Task {
    /// Whether others of its kind may follow soon.
    fn comes_with_others(&self) -> bool {
        matches!(self, Self::Put(..) | Self::Remove(_))
    }
}

/// How a conversation may go on over the same link.
pub(super) enum GoesOn {
    /// With another one.
    Anew,
    /// In the same session.
    August(Box<august_yale::session::Conversation>),
}

impl GoesOn {
    /// Ends what goes on no more.
    pub(super) async fn part(self, link: &mut Link) {
        if let Self::August(mut talk) = self {
            talk.part();
            run(link, &mut *talk, |_| {}).await;
        }
    }
}

/// What came of a conversation.
pub(super) struct Held {
    pub(super) came: Came,
    /// What happened at the lock, where that was asked for.
    pub(super) did: Option<Did>,
    /// The lock's battery, where it told of it.
    pub(super) battery: Option<Battery>,
    /// How to go on over the same link, where more may come soon.
    pub(super) goes_on: Option<GoesOn>,
}

impl Held {
    pub(super) fn came(came: Came) -> Self {
        Self { came, did: None, battery: None, goes_on: None }
    }
}

/// What happened at a lock.
pub(super) struct Did {
    pub(super) events: Vec<Event>,
    /// Where to go on.
    pub(super) next: u16,
    /// Whether there is more.
    pub(super) more: bool,
    /// The lock knows the place no more from where to go on.
    pub(super) forgotten: bool,
}

/// One thing that happened. Whose code it was is not kept.
pub(super) struct Event {
    /// By the lock's clock; none where there was no such time of day.
    at: Option<Timestamp>,
    what: DoorAct,
    by: Option<DoorMeans>,
    /// What tells it from the lock's other events.
    mark: String,
}

impl Event {
    /// A record of a TTLock; none where it is of nothing at a door.
    fn of_ttlock(record: &ttlock::message::Record, zone: &TimeZone) -> Option<Self> {
        let (what, by) = match record.kind {
            1 | 28 => (DoorAct::Unlocked, DoorMeans::Remote),
            4 => (DoorAct::Unlocked, DoorMeans::Keycode),
            17 => (DoorAct::Unlocked, DoorMeans::Card),
            26 => (DoorAct::Locked, DoorMeans::Remote),
            47 => (DoorAct::Locked, DoorMeans::Keycode),
            7 | 11 => (DoorAct::AccessDenied, DoorMeans::Keycode),
            25 => (DoorAct::AccessDenied, DoorMeans::Card),
            _ => return None,
        };
        let mark = format!("{}/{}", record.at, record.kind);
        Some(Self { at: zone.to_timestamp(record.at).ok(), what, by: Some(by), mark })
    }

    /// An August lock's; none where it is of nothing at a door.
    fn of_august(activity: Activity) -> Option<Self> {
        match activity {
            Activity::Keypad { at, slot } => {
                let mark = format!("{at}/keypad/{slot}");
                Some(Self { at: Some(at), what: DoorAct::Unlocked, by: Some(DoorMeans::Keycode), mark })
            }
            Activity::Bolt { source, status, remote, at } => {
                let what = match Bolt::of(status) {
                    Bolt::Unlocked | Bolt::Unlatched => DoorAct::Unlocked,
                    Bolt::Locked | Bolt::Secure => DoorAct::Locked,
                    _ => return None,
                };
                let by = match source {
                    0x00 => Some(DoorMeans::Remote),
                    0x01 => Some(DoorMeans::Manual),
                    0x05 => Some(DoorMeans::Automatic),
                    0x0b => Some(DoorMeans::Keycode),
                    _ => None,
                };
                Some(Self { at: Some(at), what, by, mark: format!("{at}/bolt/{source}/{status}/{remote}") })
            }
            Activity::Pin { .. } | Activity::Door { .. } | Activity::Other(_) => None,
        }
    }

    /// The same as a door's event; none where it is at no time.
    pub(super) fn told(&self, system: &SystemName, lock: &DeviceName) -> Option<DoorEvent> {
        let hash = digest(&SHA256, format!("{system}/{lock}/{}", self.mark).as_bytes());
        let bytes = hash.as_ref().first_chunk::<16>().expect("a hash has 32 bytes");
        let door_event_id = uuid::Builder::from_custom_bytes(*bytes).into_uuid();
        Some(DoorEvent {
            door_event_id,
            at: self.at?,
            what: self.what,
            by: self.by,
            slot: None,
            job_id: None,
        })
    }
}

/// What a conversation goes by.
pub(super) struct Manners<'a> {
    pub(super) answer_timeout: Duration,
    pub(super) now: Timestamp,
    pub(super) zone: TimeZone,
    pub(super) nonces: [u8; 16],
    pub(super) config: &'a BleLockConfig,
}

/// What gives rights at a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LockKeys {
    TtLock(TtLockKeys),
    August(AugustKeys),
}

/// A make, with what is known of the one lock.
pub(super) enum Make {
    TtLock {
        /// What it can do, as it last said.
        features: Mutex<Option<u128>>,
    },
    AugustYale,
}

fn unsupported(message: &str) -> Refusal {
    Refusal::new(Code::Unsupported, message)
}

/// A refusal of what was to be put.
type Judged<T> = Result<T, Refusal>;

impl Make {
    pub(super) fn new(make: BleMake) -> Self {
        match make {
            BleMake::TtLock => Self::TtLock { features: Mutex::new(None) },
            BleMake::AugustYale => Self::AugustYale,
        }
    }

    pub(super) fn manufacturer(&self) -> &'static str {
        match self {
            Self::TtLock { .. } => "TTLock",
            Self::AugustYale => "August",
        }
    }

    pub(super) fn service(&self) -> Uuid {
        match self {
            Self::TtLock { .. } => ttlock::session::SERVICE,
            Self::AugustYale => august_yale::codec::SERVICE,
        }
    }

    /// Whether it keeps windows by a local time that it is told.
    pub(super) fn keeps_local_time(&self) -> bool {
        matches!(self, Self::TtLock { .. })
    }

    /// How many codes it takes; 0 where nobody knows.
    pub(super) fn slots(&self, config: &BleLockConfig) -> u16 {
        match self {
            Self::TtLock { .. } => 0,
            Self::AugustYale => config.places.1 - config.places.0 + 1,
        }
    }

    /// Judges what is to be put, before anything is stored.
    pub(super) fn judge(&self, put: &SlotPut, config: &BleLockConfig, zone: &TimeZone) -> Judged<()> {
        match self {
            Self::TtLock { .. } => {
                content(&put.content)?;
                span(put.window, config, zone).map(drop)
            }
            Self::AugustYale => {
                pin(&put.content, config)?;
                access(put.window, config).map(drop)
            }
        }
    }

    /// Holds a conversation about a task, or goes on with the one before over the same link.
    pub(super) async fn converse(
        &self,
        link: &mut Link,
        before: GoesOn,
        task: Task,
        keys: LockKeys,
        manners: Manners<'_>,
        leaves: impl Fn(),
    ) -> Held {
        match (self, keys) {
            (Self::TtLock { features }, LockKeys::TtLock(keys)) => {
                link.forget();
                talk_to_ttlock(link, task, keys, manners, features, leaves).await
            }
            (Self::AugustYale, LockKeys::August(keys)) => {
                talk_to_august(link, before, task, keys, manners, leaves).await
            }
            _ => Held::came(Came::NothingSent(unsupported("the keys are those of another make"))),
        }
    }
}

// TTLock.

/// A PIN, or the number of a card, as a TTLock knows it.
fn content(content: &SlotContent) -> Judged<ttlock::session::Content> {
    match content {
        SlotContent::Pin(pin) => {
            let digits = pin.expose();
            if (4..=9).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit()) {
                return Ok(ttlock::session::Content::Pin(pin.clone()));
            }
            Err(unsupported("`pin`: a TTLock takes 4 to 9 digits"))
        }
        SlotContent::CardNumber(card) => {
            let number = u64::from_str_radix(card.expose(), 16).map_err(|_| {
                unsupported("`card_number`: a TTLock knows a card by up to 16 hexadecimal digits of its chip's number")
            })?;
            Ok(ttlock::session::Content::Card(ttlock::message::CardNumber::new(number)))
        }
    }
}

/// What the slot may hold. What is no content of such a lock never was there.
fn contents(slot: &SlotNow) -> Vec<ttlock::session::Content> {
    slot.may_hold.iter().filter_map(|held| content(held).ok()).collect()
}

/// A window as a TTLock keeps it, to the minute.
fn span(window: Window, config: &BleLockConfig, zone: &TimeZone) -> Judged<ttlock::message::Span> {
    let (starts_at, ends_at) = local::window(window, Unit::Minute, zone);
    let ends_at = ends_at.filter(|_| config.windows);
    let years = 2000..=2099;
    if !years.contains(&starts_at.year()) || ends_at.is_some_and(|end| !years.contains(&end.year())) {
        return Err(Refusal::new(Code::BadDates, "`window`: a TTLock keeps years from 2000 to 2099"));
    }
    Ok(ttlock::message::Span { starts_at, ends_at })
}

async fn talk_to_ttlock(
    link: &mut Link,
    task: Task,
    keys: TtLockKeys,
    manners: Manners<'_>,
    features: &Mutex<Option<u128>>,
    leaves: impl Fn(),
) -> Held {
    use ttlock::session::{Conversation, Manners as TtManners, Note, Task as TtTask};
    let asked = |put: &SlotPut| {
        Ok::<_, Refusal>((content(&put.content)?, span(put.window, manners.config, &manners.zone)?))
    };
    let comes_with_others = task.comes_with_others();
    let task = match task {
        Task::Look => Ok(TtTask::Look),
        Task::Put(put, slot) => {
            asked(&put).map(|(content, span)| TtTask::Put { content, span, may_hold: contents(&slot) })
        }
        Task::ProvePut(put, slot) => {
            asked(&put).map(|(content, span)| TtTask::ProvePut { content, span, may_hold: contents(&slot) })
        }
        Task::Remove(slot) => Ok(TtTask::Remove { may_hold: contents(&slot) }),
        Task::ProveRemove(slot) => Ok(TtTask::ProveRemove { may_hold: contents(&slot) }),
        Task::Unlock => Ok(TtTask::Unlock),
        Task::Watch { from } => Ok(TtTask::Watch { from }),
    };
    let task = match task {
        Ok(task) => task,
        Err(refusal) => return Held::came(Came::NotDone(refusal)),
    };
    let known = *features.lock().unwrap_or_else(PoisonError::into_inner);
    let (now, zone, answer_timeout) = (manners.now, manners.zone, manners.answer_timeout);
    let at = zone.clone();
    let mut talk = Conversation::new(task, TtManners { answer_timeout, now, zone, keys, features: known });
    let (mut did, mut battery) = (None, None);
    let note = |note| match note {
        Note::Leaves => leaves(),
        Note::Features(bits) => *features.lock().unwrap_or_else(PoisonError::into_inner) = Some(bits),
        Note::Battery(per_cent) => battery = Some(Battery::PerCent(per_cent)),
        Note::Locked(locked) => tracing::debug!(locked, "the lock's bolt"),
        Note::Did { records, next, more } => {
            let events = records.iter().filter_map(|record| Event::of_ttlock(record, &at)).collect();
            did = Some(Did { events, next, more, forgotten: false });
        }
        Note::Forgotten => did = Some(Did { events: Vec::new(), next: 0, more: false, forgotten: true }),
        Note::WaitsForCard | Note::Enrolled(_) | Note::Introduced { .. } => {}
    };
    let came = run(link, &mut talk, note).await;
    let goes_on = (comes_with_others && came == Came::Done).then_some(GoesOn::Anew);
    Held { came, did, battery, goes_on }
}

// August and Yale.

fn pin(content: &SlotContent, config: &BleLockConfig) -> Judged<august_yale::message::Pin> {
    let SlotContent::Pin(pin) = content else {
        return Err(unsupported("an August or Yale lock takes PINs; how cards are put into it is not known"));
    };
    let fits = config.pin_lengths.iter().any(|length| usize::from(*length) == pin.expose().len());
    august_yale::message::Pin::new(pin.expose()).filter(|_| fits).ok_or_else(|| {
        let lengths: Vec<_> = config.pin_lengths.iter().map(ToString::to_string).collect();
        unsupported(&format!("`pin`: this lock takes {} digits", lengths.join(", ")))
    })
}

fn access(window: Window, config: &BleLockConfig) -> Judged<Access> {
    let second = |at: Timestamp, mode| {
        let at = at.round(TimestampRound::new().smallest(Unit::Second).mode(mode)).unwrap_or(at);
        u32::try_from(at.as_second())
            .map_err(|_| Refusal::new(Code::BadDates, "`window`: the lock keeps years from 1970 to 2105"))
    };
    match window.ends_at() {
        Some(end) if config.windows => Ok(Access::Window {
            from: second(window.starts_at(), RoundMode::Floor)?,
            until: second(end, RoundMode::Ceil)?,
        }),
        _ => Ok(Access::Always),
    }
}

/// The lock's own number of a slot's place.
fn place(slot: &SlotNow, config: &BleLockConfig) -> Judged<august_yale::message::Slot> {
    let (first, last) = config.places;
    slot.place
        .and_then(|place| u16::try_from(place).ok()?.checked_add(first))
        .filter(|number| *number <= last)
        .and_then(august_yale::message::Slot::new)
        .ok_or_else(|| {
            Refusal::new(
                Code::SlotsFull,
                format!("the places {first} to {last} of the lock are all in use: give latchd more of them (`places`)"),
            )
        })
}

async fn talk_to_august(
    link: &mut Link,
    before: GoesOn,
    task: Task,
    key: AugustKeys,
    manners: Manners<'_>,
    leaves: impl Fn(),
) -> Held {
    use august_yale::{
        session::{Conversation, Manners as AugustManners, Note},
        task::{Before, Motion, Task as AugustTask},
    };
    let put = |put: &SlotPut, slot: &SlotNow| {
        let place = place(slot, manners.config)?;
        let pin = pin(&put.content, manners.config)?;
        Ok::<_, Refusal>(Change::Put { slot: place, pin, access: access(put.window, manners.config)? })
    };
    let remove = |slot: &SlotNow| Ok::<_, Refusal>(Change::Remove { slot: place(slot, manners.config)? });
    // What a slot shows is its PIN alone: that the same one is there proves nothing of its window, if it may have been
    // there before.
    let held_before = |put: &SlotPut, slot: &SlotNow| match slot.may_hold.contains(&put.content) {
        true => Before::Unknown,
        false => Before::Otherwise,
    };
    let comes_with_others = task.comes_with_others();
    let task = match task {
        Task::Look => Ok(AugustTask::Look { battery: false }),
        Task::Put(order, slot) => put(&order, &slot).map(AugustTask::Change),
        Task::Remove(slot) => remove(&slot).map(AugustTask::Change),
        Task::ProvePut(order, slot) => {
            put(&order, &slot).map(|change| AugustTask::Prove(change, held_before(&order, &slot)))
        }
        Task::ProveRemove(slot) => remove(&slot).map(|change| AugustTask::Prove(change, Before::Otherwise)),
        Task::Unlock => Ok(AugustTask::Move(Motion::Unlock)),
        Task::Watch { .. } => Ok(AugustTask::Log { at_most: AT_ONCE }),
    };
    let task = match task {
        Ok(task) => task,
        Err(refusal) => return Held::came(Came::NotDone(refusal)),
    };
    let nonces = august_yale::codec::Key::new(manners.nonces);
    let is_log = matches!(task, AugustTask::Log { .. });
    let (mut happened, mut battery) = (Vec::new(), None);
    let mut talk = match before {
        GoesOn::August(mut talk) => {
            talk.follow(task, manners.now);
            talk
        }
        GoesOn::Anew => {
            let talk = Conversation::new(task, AugustManners { key, nonces, now: manners.now });
            Box::new(if comes_with_others { talk.staying() } else { talk })
        }
    };
    let note = |note| match note {
        Note::Leaves => leaves(),
        Note::Battery { millivolts } => battery = Some(Battery::Millivolts(millivolts)),
        Note::Bolt(bolt) => tracing::debug!(?bolt, "the lock's bolt"),
        Note::Happened(activity) => happened.push(activity),
        Note::Slot { .. } => {}
    };
    let came = run(link, &mut *talk, note).await;
    // What was told is out of the lock's memory, however the conversation ended.
    let did = (is_log && (came == Came::Done || !happened.is_empty())).then(|| Did {
        more: came == Came::Done && u32::try_from(happened.len()).is_ok_and(|count| AT_ONCE <= count),
        events: happened.into_iter().filter_map(Event::of_august).collect(),
        next: 0,
        forgotten: false,
    });
    let goes_on = talk.stands().then_some(GoesOn::August(talk));
    Held { came, did, battery, goes_on }
}
