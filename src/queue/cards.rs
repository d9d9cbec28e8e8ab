//! The cards of access methods as this site knows them: what its own jobs made of each, and what a desk may have written.
//!
//! The cloud's picture of a card may be old while the cloud is away, so what a job here came to counts more. And a desk and
//! a cloud that do not hear each other may order the same card: the later of both orders is not done.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{
    LocalOrder, Queue,
    store::{Row, instant, origin_named, place, state_named},
};
use crate::{
    model::{
        AccessMethodId, CardEncode, DesiredCard, DesiredCardState, DesiredGrant, DoorName, EncoderName, Job,
        JobId, JobState, Order, Origin, Priority, SystemName,
    },
    store::StoreError,
};

/// A card that is not begun by then is not begun: the person has gone.
const START_WITHIN: SignedDuration = SignedDuration::from_secs(75);

/// Where a card stands, by what this site knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardStanding {
    /// Where.
    pub state: DesiredCardState,
    /// Why it cannot be written, for a person, if it cannot.
    pub why: Option<String>,
    /// The job here that says so, if one does.
    pub job_id: Option<JobId>,
}

/// The wish of a person at the desk to have a card written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeskCard {
    /// Which.
    pub access_method_id: AccessMethodId,
    /// Where it will lie.
    pub encoder: EncoderName,
    /// Whether to write it once more if it is written, or being ordered elsewhere.
    pub again: bool,
    /// Whether it begins its stay anew, as [`CardEncode::begin_again`] says: the cure for a card that was lost.
    #[serde(default)]
    pub begin_again: bool,
    /// The job's id: given again, it is the same job.
    pub job_id: JobId,
    /// How long the person may take to lay the card down, in seconds.
    pub card_wait_seconds: u16,
}

/// Why a card is not written at the desk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeskRefused {
    /// The cloud told of no such card, or has taken it back since.
    #[error("this site knows of no such card: `latchd grant list` shows the grants it was told of")]
    NotKnown,
    /// It cannot be written.
    #[error("this card cannot be written: {0}")]
    NotReady(String),
    /// It is written.
    #[error("this card is written already; with --again one more is made, and both open")]
    Written,
    /// A job here is about to write it.
    #[error("this card is being written by job {0}")]
    AtWork(JobId),
    /// The cloud has ordered it.
    #[error(
        "this card was ordered from the cloud, and how that ended is not known here; with --again it is written all the same"
    )]
    OrderedElsewhere,
    /// It may have been written.
    #[error(
        "this card may have been written: read it, and settle the doubt with `latchd jobs resolve`, before another is made"
    )]
    InDoubt,
}

impl DeskRefused {
    /// The stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotKnown => "no_such_card",
            Self::NotReady(_) => "card_not_ready",
            Self::Written => "card_already_written",
            Self::AtWork(_) | Self::OrderedElsewhere => "card_being_encoded",
            Self::InDoubt => "card_in_doubt",
        }
    }
}

/// A job about a card.
struct CardJob {
    job_id: JobId,
    state: JobState,
    origin: Origin,
    sent_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    /// Later jobs have higher ones.
    id: i64,
}

impl Queue {
    /// Where a card stands: by the last job here that wrote it or may have, else by the cloud's picture.
    ///
    /// # Errors
    /// Those of the database.
    pub fn card_standing(
        &self,
        grant: &DesiredGrant,
        card: &DesiredCard,
    ) -> Result<CardStanding, StoreError> {
        let mut was_tried = false;
        for job in self.card_jobs(card.access_method_id)? {
            let state = match job.state {
                JobState::Received | JobState::Waiting | JobState::Sent => DesiredCardState::BeingEncoded,
                JobState::Unknown => DesiredCardState::InDoubt,
                JobState::Succeeded => match self.written(&job, grant, card)? {
                    Some(standing) => return Ok(standing),
                    // The grant has changed since: only the cloud knows whether that asks for another card.
                    None => break,
                },
                JobState::Failed | JobState::Cancelled | JobState::Expired | JobState::Superseded => {
                    was_tried = true;
                    continue;
                }
            };
            return Ok(CardStanding { state, why: None, job_id: Some(job.job_id) });
        }
        let state = match card.state {
            // The order that the cloud speaks of has ended here.
            DesiredCardState::BeingEncoded if was_tried => DesiredCardState::EncodingRequired,
            state => state,
        };
        Ok(CardStanding { state, why: card.why.clone(), job_id: None })
    }

    /// Where a card stands that a job has written, if it is what its grant says now.
    fn written(
        &self,
        by: &CardJob,
        grant: &DesiredGrant,
        card: &DesiredCard,
    ) -> Result<Option<CardStanding>, StoreError> {
        let row = self.known(by.job_id)?;
        let Some(Job { order: Order::CardEncode(written), .. }) = row.body.as_ref().map(|body| &body.job)
        else {
            return Ok(None);
        };
        let doors = grant.doors_in(&card.system);
        let opens_the_same =
            doors.len() == written.doors.len() && doors.iter().all(|door| written.doors.contains(door));
        if written.window != grant.window || !opens_the_same {
            return Ok(None);
        }
        let standing = |state, why| Some(CardStanding { state, why, job_id: Some(by.job_id) });
        for name in &row.rooms {
            let Some(room) = self.room(&card.system, name)? else { continue };
            let is_overtaken = by.sent_at.is_some_and(|sent_at| room.has_begun_after(sent_at));
            let (state, why) = match (is_overtaken, room.certain, room.holder == written.reservation_key) {
                (true, true, true) => (
                    DesiredCardState::EncodingRequired,
                    format!(
                        "it no longer opens room {name}, where a later card began the stay anew: `latchd encode --again` \
                         makes another"
                    ),
                ),
                (true, true, false) => (
                    DesiredCardState::Issued,
                    format!(
                        "room {name} has been checked out or follows another stay by now: this card opens it only until a \
                         card of that stay is used there"
                    ),
                ),
                (true, false, _) => (
                    DesiredCardState::Issued,
                    format!(
                        "it may no longer open room {name}, where a later job may have begun a stay: settle that doubt, \
                         then `latchd encode --again` makes another"
                    ),
                ),
                (false, ..) => continue,
            };
            return Ok(standing(state, Some(why)));
        }
        Ok(standing(DesiredCardState::Issued, None))
    }

    /// The job by which a desk writes a card. It is not in the queue yet: hand it to [`Queue::accept_local`] in the same
    /// transaction. `is_room` says which doors follow reservations.
    ///
    /// # Errors
    /// Those of the database; a refusal is the inner result.
    pub fn desk_card(
        &self,
        now: Timestamp,
        wish: DeskCard,
        is_room: impl Fn(&SystemName, &DoorName) -> bool,
    ) -> Result<Result<LocalOrder, DeskRefused>, StoreError> {
        let of_card = self.desired_grant_of_card(wish.access_method_id)?;
        let found = of_card.as_ref().and_then(|grant| {
            let mut cards = grant.cards.iter();
            cards.find(|card| card.access_method_id == wish.access_method_id).map(|card| (grant, card))
        });
        let Some((grant, card)) = found else { return Ok(Err(DeskRefused::NotKnown)) };
        let CardStanding { state, why, job_id } = self.card_standing(grant, card)?;
        let refused = match (state, job_id) {
            // The same wish twice is the same job.
            (_, Some(job_id)) if job_id == wish.job_id => None,
            (DesiredCardState::InDoubt, _) => Some(DeskRefused::InDoubt),
            (DesiredCardState::BeingEncoded, Some(job_id)) => Some(DeskRefused::AtWork(job_id)),
            (DesiredCardState::BeingEncoded, None) if !wish.again => Some(DeskRefused::OrderedElsewhere),
            (DesiredCardState::Issued, _) if !wish.again => Some(DeskRefused::Written),
            (DesiredCardState::NotReady, _) => Some(DeskRefused::NotReady(why.unwrap_or_default())),
            _ if grant.window.is_over(now) => {
                Some(DeskRefused::NotReady("its access grant has ended".into()))
            }
            _ => None,
        };
        if let Some(refused) = refused {
            return Ok(Err(refused));
        }
        let doors = grant.doors_in(&card.system).to_vec();
        let has_rooms = doors.iter().any(|door| is_room(&card.system, door));
        let order = Order::CardEncode(CardEncode {
            encoder: wish.encoder,
            doors,
            reservation_key: grant.reservation_key.clone().filter(|_| has_rooms),
            window: grant.window,
            access_method_id: wish.access_method_id,
            guest_name: grant.guest_name.clone(),
            card_wait_seconds: wish.card_wait_seconds,
            begin_again: wish.begin_again,
        });
        let job = Job {
            job_id: wish.job_id,
            system: card.system.clone(),
            priority: Priority::Desk,
            created_at: now,
            expires_at: now.saturating_add(START_WITHIN).unwrap_or(Timestamp::MAX),
            order,
        };
        Ok(Ok(LocalOrder { job, origin: Origin::Person, retries: None }))
    }

    /// Whether the cloud ordered a card without knowing that the desk has it written, or may have; the end of a stay
    /// without knowing that the desk has let somebody into it; or a code that the desk has taken back.
    pub(super) fn is_overtaken_at_desk(&self, now: Timestamp, order: &Job) -> Result<bool, StoreError> {
        let card = match &order.order {
            Order::CardEncode(card) => card,
            Order::StayCheckout { reservation_key, .. } => return self.stay_was_made_here(reservation_key),
            Order::SlotPut(_) => return self.was_taken_back_here(now, order),
            _ => return Ok(false),
        };
        for CardJob { job_id, state, origin, ended_at, .. } in self.card_jobs(card.access_method_id)? {
            if origin != Origin::Person {
                continue;
            }
            match state {
                JobState::Received | JobState::Waiting | JobState::Sent => return Ok(true),
                JobState::Succeeded | JobState::Unknown => {
                    // An end that lies ahead was read off a clock that was wrong: it says nothing.
                    let ended_at = ended_at.filter(|ended_at| *ended_at <= now);
                    let was_before = ended_at.is_some_and(|ended_at| order.created_at <= ended_at);
                    return Ok(was_before || self.has_report(job_id)?);
                }
                JobState::Failed | JobState::Cancelled | JobState::Expired | JobState::Superseded => {}
            }
        }
        Ok(false)
    }

    /// The job that is about to write a card, if there is one.
    pub(super) fn card_job_at_work(&self, card: AccessMethodId) -> Result<Option<JobId>, StoreError> {
        let unfinished =
            |job: &CardJob| matches!(job.state, JobState::Received | JobState::Waiting | JobState::Sent);
        Ok(self.card_jobs(card)?.into_iter().find(unfinished).map(|job| job.job_id))
    }

    /// Remembers, once, which cards the jobs were about that were here before anybody did.
    pub(super) fn note_earlier_cards(&mut self) -> Result<(), StoreError> {
        let are_noted = "SELECT 1 FROM memory WHERE cards_noted = 1";
        if self.connection.prepare_cached(are_noted)?.exists([])? {
            return Ok(());
        }
        self.connection.execute_batch("SAVEPOINT earlier_cards")?;
        let jobs = self.ids(
            "SELECT job_id FROM job WHERE kind = 'card.encode' AND card IS NULL AND body IS NOT NULL",
            [],
        )?;
        let (mut noted, mut unreadable) = (0_u64, 0_u64);
        for job_id in jobs {
            match self.known(job_id) {
                Ok(row) => {
                    self.write_card(&row)?;
                    noted += 1;
                }
                Err(error @ (StoreError::Sealed(_) | StoreError::Corrupt { .. })) => {
                    tracing::warn!(job = %job_id, error = error.chain(), "which card it is about cannot be read any more");
                    unreadable += 1;
                }
                Err(error) => return Err(error),
            }
        }
        // With another key none can be read; with the right one they can.
        if noted > 0 || unreadable == 0 {
            self.connection.execute("UPDATE memory SET cards_noted = 1", [])?;
        }
        self.connection.execute_batch("RELEASE earlier_cards")?;
        Ok(())
    }

    /// Writes down the card of a job that was stored without it.
    fn write_card(&mut self, row: &Row) -> Result<(), StoreError> {
        if let Some(Order::CardEncode(card)) = row.body.as_ref().map(|body| &body.job.order) {
            self.connection
                .prepare_cached("UPDATE job SET card = ?1 WHERE job_id = ?2")?
                .execute(params![card.access_method_id.0.as_bytes(), row.job_id.0.as_bytes()])?;
        }
        Ok(())
    }

    /// The jobs about a card, newest first.
    fn card_jobs(&self, card: AccessMethodId) -> Result<Vec<CardJob>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT job_id, state, origin, sent_at, ended_at, id FROM job INDEXED BY job_card \
             WHERE card = ?1 AND card IS NOT NULL AND state <> 'sent' \
             UNION ALL SELECT job_id, state, origin, sent_at, ended_at, id FROM job INDEXED BY job_state \
             WHERE state = 'sent' AND state NOT IN ('waiting', 'succeeded') AND card = ?1",
        )?;
        let mut rows = statement.query([card.0.as_bytes()])?;
        let mut jobs = Vec::new();
        while let Some(row) = rows.next()? {
            let job_id = JobId(uuid::Uuid::from_bytes(row.get(0)?));
            let corrupt = |what: &str| StoreError::corrupt(place(job_id), what);
            let (state, origin): (String, String) = (row.get(1)?, row.get(2)?);
            jobs.push(CardJob {
                job_id,
                state: state_named(&state).ok_or_else(|| corrupt("its state"))?,
                origin: origin_named(&origin).ok_or_else(|| corrupt("its origin"))?,
                sent_at: instant(row.get(3)?),
                ended_at: instant(row.get(4)?),
                id: row.get(5)?,
            });
        }
        jobs.sort_by_key(|job| Reverse(job.id));
        Ok(jobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            AccessGrantId, Admission, Code, DesiredDoors, Outcome, ReservationKey, Success, Window, Written,
        },
        protocol::{Desired, Position},
        queue::{
            Accepted, FILE, MIGRATIONS, Rules, Sharing,
            testing::{self, at, id},
        },
    };

    const CARD: AccessMethodId = AccessMethodId(uuid::Uuid::from_u128(0xca4d));

    fn opened(folder: &tempfile::TempDir) -> Queue {
        let systems = [(SystemName::new("salto").unwrap(), Sharing::Exclusive)].into();
        testing::opened(folder, Rules { systems, ..Rules::default() })
    }

    struct Desk {
        queue: Queue,
        n: u64,
        /// What the clock shows.
        second: i64,
        /// The job by which the card is made.
        job: Option<Job>,
        _folder: tempfile::TempDir,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut desk = Self { queue: opened(&folder), n: 0, second: 10, job: None, _folder: folder };
            desk.is_told(DesiredCardState::EncodingRequired, 1_000);
            desk.job = desk.wish(0, false).ok().map(|order| order.job);
            desk
        }

        /// The cloud tells a card of a grant that ends then.
        fn is_told(&mut self, state: DesiredCardState, ends_at: i64) {
            self.n += 1;
            let salto = SystemName::new("salto").unwrap();
            let doors = vec![DoorName::new("101").unwrap(), DoorName::new("pool").unwrap()];
            let grant = DesiredGrant {
                access_grant_id: AccessGrantId(uuid::Uuid::from_u128(7)),
                access_grant_key: None,
                reservation_key: ReservationKey::new("stay-1").ok(),
                guest_name: None,
                window: Window::new(at(0), Some(at(ends_at))).unwrap(),
                doors: vec![DesiredDoors { system: salto.clone(), doors }],
                cards: vec![DesiredCard { access_method_id: CARD, system: salto, state, why: None }],
                codes: Vec::new(),
            };
            let up_to = Position { epoch: 1, n: self.n };
            let told = Desired { up_to, grants: vec![grant], gone: Vec::new(), complete: true };
            self.queue.take_desired(&told).unwrap();
        }

        fn wish(&self, number: u128, again: bool) -> Result<LocalOrder, DeskRefused> {
            let wish = DeskCard {
                access_method_id: CARD,
                encoder: EncoderName::new("1").unwrap(),
                again,
                begin_again: false,
                job_id: id(number),
                card_wait_seconds: 60,
            };
            self.queue.desk_card(at(self.second), wish, |_, door| door.as_str() == "101").unwrap()
        }

        fn take(&mut self, order: LocalOrder) -> Accepted {
            let rooms = vec![DoorName::new("101").unwrap()];
            let admission = Admission::to(crate::model::LaneName::new("salto/1").unwrap(), rooms);
            self.queue.accept_local(at(self.second), order, Ok(admission), true).unwrap()
        }

        /// A person has the card made; it ends like this.
        fn makes(&mut self, number: u128, again: bool, outcome: Outcome) {
            let order = self.wish(number, again).unwrap();
            assert!(matches!(self.take(order), Accepted::Sent(_)));
            self.queue.finish(at(self.second + 10), id(number), outcome).unwrap();
        }

        /// The cloud ordered the card at this second.
        fn is_ordered(&mut self, number: u128, second: i64) -> Accepted {
            let job = Job { job_id: id(number), created_at: at(second), ..self.job.clone().unwrap() };
            self.take(LocalOrder { job, origin: Origin::Cloud, retries: None })
        }

        fn state(&self) -> DesiredCardState {
            self.standing().state
        }

        fn standing(&self) -> CardStanding {
            let grant = self.queue.desired_grant_of_card(CARD).unwrap().unwrap();
            self.queue.card_standing(&grant, &grant.cards[0]).unwrap()
        }

        /// Some time later, another card begins a stay in the room.
        fn begins(&mut self, number: u128, stay: &str, outcome: Outcome) {
            self.second += 60;
            let (created_at, expires_at) = (at(self.second), at(self.second + 60));
            let mut job = Job { job_id: id(number), created_at, expires_at, ..self.job.clone().unwrap() };
            let Order::CardEncode(card) = &mut job.order else { panic!("a card") };
            card.access_method_id = AccessMethodId(uuid::Uuid::from_u128(number));
            card.reservation_key = ReservationKey::new(stay).ok();
            card.begin_again = true;
            let sent = self.take(LocalOrder { job, origin: Origin::Cloud, retries: None });
            assert!(matches!(sent, Accepted::Sent(_)));
            self.queue.finish(at(self.second), id(number), outcome).unwrap();
        }

        /// As one that was brought over from a version before cards were noted.
        fn by_an_older_version(self) -> Self {
            let Self { queue, n, second, job, _folder } = self;
            let undone = "UPDATE job SET card = NULL; UPDATE memory SET cards_noted = 0";
            queue.connection.execute_batch(undone).unwrap();
            drop(queue);
            Self { queue: opened(&_folder), n, second, job, _folder }
        }
    }

    fn written() -> Outcome {
        Outcome::Succeeded(Success { written: Some(Written::Proven), ..Success::default() })
    }

    #[test]
    fn a_card_of_the_desk_is_what_the_cloud_told_of_it() {
        let desk = Desk::new();
        let order = desk.wish(1, false).unwrap();
        assert_eq!((order.origin, order.job.job_id), (Origin::Person, id(1)));
        let Order::CardEncode(card) = order.job.order else { panic!("a card") };
        assert_eq!(card.doors.iter().map(DoorName::as_str).collect::<Vec<_>>(), ["101", "pool"]);
        assert_eq!(card.reservation_key.unwrap().as_str(), "stay-1");
        assert_eq!(card.access_method_id, CARD);
        let nobody = DeskCard {
            access_method_id: AccessMethodId(uuid::Uuid::nil()),
            encoder: card.encoder,
            again: true,
            begin_again: false,
            job_id: id(2),
            card_wait_seconds: 60,
        };
        let refused = desk.queue.desk_card(at(10), nobody, |_, _| false).unwrap().unwrap_err();
        assert_eq!(refused.code(), "no_such_card");
    }

    #[test]
    fn a_card_that_is_written_or_at_work_is_refused_by_name_and_one_that_failed_is_not() {
        let mut desk = Desk::new();
        desk.makes(1, false, Outcome::failed(Code::NoCard, "nobody laid one down"));
        assert_eq!(desk.state(), DesiredCardState::EncodingRequired);
        let order = desk.wish(2, false).unwrap();
        desk.take(order.clone());
        assert_eq!(desk.state(), DesiredCardState::BeingEncoded);
        assert_eq!(desk.wish(3, true), Err(DeskRefused::AtWork(id(2))));
        // The same wish once more is the same job.
        assert_eq!(desk.wish(2, false).map(|again| desk.take(again)), Ok(Accepted::Duplicate));
        desk.queue.finish(at(20), id(2), written()).unwrap();
        assert_eq!(desk.state(), DesiredCardState::Issued);
        assert_eq!(desk.wish(3, false), Err(DeskRefused::Written));
        desk.makes(3, true, Outcome::failed(Code::NoCard, "nobody laid one down"));
        assert_eq!(desk.state(), DesiredCardState::Issued, "the first card is still what it was");
    }

    #[test]
    fn a_doubt_is_settled_before_another_card_is_made_whoever_wants_it() {
        let mut desk = Desk::new();
        desk.makes(1, false, Outcome::unknown(Code::NoAnswer, "silence"));
        assert_eq!(desk.wish(2, true), Err(DeskRefused::InDoubt));
        desk.is_told(DesiredCardState::EncodingRequired, 1_000);
        assert_eq!(desk.wish(2, true), Err(DeskRefused::InDoubt));
    }

    #[test]
    fn what_the_cloud_says_of_a_card_counts_where_the_site_knows_nothing_newer() {
        let mut desk = Desk::new();
        for (state, refused) in [
            (DesiredCardState::Issued, "card_already_written"),
            (DesiredCardState::BeingEncoded, "card_being_encoded"),
        ] {
            desk.is_told(state, 1_000);
            assert_eq!(desk.wish(1, false).unwrap_err().code(), refused);
            assert_eq!(desk.wish(1, true).map(|order| order.job.job_id), Ok(id(1)));
        }
        for (state, refused) in
            [(DesiredCardState::InDoubt, "card_in_doubt"), (DesiredCardState::NotReady, "card_not_ready")]
        {
            desk.is_told(state, 1_000);
            assert_eq!(desk.wish(1, true).unwrap_err().code(), refused);
        }
        desk.is_told(DesiredCardState::EncodingRequired, 5);
        assert_eq!(desk.wish(1, false).unwrap_err().code(), "card_not_ready", "its grant has ended");
    }

    #[test]
    fn a_card_asks_to_be_written_again_when_its_grant_changes_after_it_was() {
        let mut desk = Desk::new();
        desk.makes(1, false, written());
        desk.is_told(DesiredCardState::EncodingRequired, 2_000);
        assert_eq!(desk.state(), DesiredCardState::EncodingRequired);
        desk.makes(2, false, written());
        assert_eq!(desk.state(), DesiredCardState::Issued);
    }

    #[test]
    fn an_order_that_did_not_know_of_the_desks_card_takes_no_second_one() {
        let mut desk = Desk::new();
        let order = desk.wish(1, false).unwrap();
        desk.take(order);
        let superseded = Accepted::Ended(Outcome::Superseded);
        assert_eq!(desk.is_ordered(2, 15), superseded, "it is at work");
        desk.queue.finish(at(20), id(1), written()).unwrap();
        desk.second = 40;
        assert_eq!(desk.is_ordered(3, 15), superseded, "made before the card was written");
        assert_eq!(desk.is_ordered(4, 30), superseded, "the cloud has not heard of the card");
        let memory = desk.queue.memory().unwrap();
        desk.queue.acknowledge_reports(memory.reports.last);
        assert_eq!(desk.is_ordered(5, 15), superseded, "it was on its way when the cloud heard of the card");
        assert!(matches!(desk.is_ordered(6, 30), Accepted::Sent(_)));
    }

    #[test]
    fn a_clock_that_was_ahead_when_the_desk_wrote_a_card_stands_in_no_orders_way() {
        let mut desk = Desk::new();
        desk.makes(1, false, written());
        let memory = desk.queue.memory().unwrap();
        desk.queue.acknowledge_reports(memory.reports.last);
        desk.second = 19;
        assert!(matches!(desk.is_ordered(2, 18), Accepted::Sent(_)));
    }

    #[test]
    fn a_card_that_another_of_its_stay_throws_out_asks_to_be_written_again() {
        let mut desk = Desk::new();
        desk.makes(1, false, written());
        let of_another_guest = |desk: &Desk, number: u128, begin_again| {
            let mut job = Job { job_id: id(number), ..desk.job.clone().unwrap() };
            let Order::CardEncode(card) = &mut job.order else { panic!("a card") };
            card.access_method_id = AccessMethodId(uuid::Uuid::from_u128(0x07e4));
            card.begin_again = begin_again;
            LocalOrder { job, origin: Origin::Person, retries: None }
        };
        desk.second = 30;
        desk.take(of_another_guest(&desk, 2, false));
        desk.queue.finish(at(31), id(2), written()).unwrap();
        assert_eq!(desk.state(), DesiredCardState::Issued, "who joins throws nobody out");
        desk.second = 40;
        desk.take(of_another_guest(&desk, 3, true));
        desk.queue.finish(at(41), id(3), written()).unwrap();
        assert_eq!(desk.state(), DesiredCardState::EncodingRequired);
        desk.second = 50;
        desk.makes(4, false, written());
        assert_eq!(desk.state(), DesiredCardState::Issued);
    }

    #[test]
    fn a_card_that_the_desk_could_not_write_stands_in_no_orders_way() {
        let mut desk = Desk::new();
        desk.makes(1, false, Outcome::failed(Code::NoCard, "nobody laid one down"));
        assert!(matches!(desk.is_ordered(2, 5), Accepted::Sent(_)));
    }

    #[test]
    fn a_card_that_a_later_one_of_its_stay_threw_out_asks_to_be_written_again_and_says_why() {
        let mut desk = Desk::new();
        desk.makes(1, false, written());
        assert_eq!((desk.state(), desk.standing().why), (DesiredCardState::Issued, None));
        desk.begins(2, "stay-1", Outcome::failed(Code::NoCard, "nobody laid one down"));
        assert_eq!((desk.state(), desk.standing().why), (DesiredCardState::Issued, None));
        desk.begins(3, "stay-1", written());
        let standing = desk.standing();
        assert_eq!((standing.state, standing.job_id), (DesiredCardState::EncodingRequired, Some(id(1))));
        assert!(standing.why.unwrap().contains("latchd encode --again"));
        desk.second += 60;
        desk.makes(4, true, written());
        assert_eq!((desk.state(), desk.standing().why), (DesiredCardState::Issued, None));
    }

    #[test]
    fn a_card_that_may_have_been_thrown_out_or_whose_room_went_to_another_stay_says_so() {
        for (stay, outcome, word) in [
            ("stay-1", Outcome::unknown(Code::NoAnswer, "silence"), "may"),
            ("stay-2", written(), "another stay"),
        ] {
            let mut desk = Desk::new();
            desk.makes(1, false, written());
            desk.begins(2, stay, outcome);
            let CardStanding { state, why, .. } = desk.standing();
            assert_eq!(state, DesiredCardState::Issued);
            let why = why.unwrap();
            assert!(why.contains(word) && why.contains("101"), "{why}");
        }
    }

    #[test]
    fn the_cards_of_jobs_from_before_they_were_noted_are_known() {
        let mut desk = Desk::new();
        desk.makes(1, false, written());
        let desk = desk.by_an_older_version();
        assert_eq!(desk.standing().job_id, Some(id(1)));
        let noted: bool =
            desk.queue.connection.query_row("SELECT cards_noted FROM memory", [], |row| row.get(0)).unwrap();
        assert!(noted);
    }

    #[test]
    fn an_order_that_may_have_been_done_in_its_time_leaves_its_card_in_doubt() {
        let mut desk = Desk::new();
        desk.makes(1, false, Outcome::failed(Code::NoCard, "nobody laid one down"));
        while desk.queue.purge(at(1_000)).unwrap() > 0 {}
        desk.second = 1_100;
        let ended = desk.is_ordered(2, 15);
        assert!(matches!(ended, Accepted::Ended(Outcome::Unknown(_))), "{ended:?}");
        assert_eq!(desk.state(), DesiredCardState::InDoubt);
        assert_eq!(desk.wish(3, true), Err(DeskRefused::InDoubt));
    }

    #[test]
    fn jobs_of_a_file_of_the_former_schema_are_known_by_their_card_at_work_and_over() {
        let folder = tempfile::tempdir().unwrap();
        let storage = crate::seams::Storage::folder(folder.path());
        let former = crate::store::open(&storage, FILE, &MIGRATIONS[..4]).unwrap();
        let insert = "INSERT INTO job(job_id, state, received_at, expires_at) VALUES (?1, ?2, 0, 0)";
        for (number, state) in [(1, "failed"), (2, "sent"), (3, "sent")] {
            former.execute(insert, (id(number).0.as_bytes(), state)).unwrap();
        }
        for number in [1, 2] {
            let note = "INSERT INTO card_job(method_id, job_id) VALUES (?1, ?2)";
            former.execute(note, (CARD.0.as_bytes(), id(number).0.as_bytes())).unwrap();
        }
        drop(former);
        let queue = testing::opened(&folder, Rules::default());
        let known: Vec<_> =
            queue.card_jobs(CARD).unwrap().iter().map(|job| (job.job_id, job.state)).collect();
        assert_eq!(known, [(id(2), JobState::Sent), (id(1), JobState::Failed)]);
    }

    #[test]
    fn what_is_known_of_a_cards_jobs_goes_with_them() {
        let mut desk = Desk::new();
        desk.makes(1, false, written());
        let notes = |queue: &Queue| queue.card_jobs(CARD).unwrap().len();
        desk.queue.purge(at(20)).unwrap();
        assert_eq!(notes(&desk.queue), 1);
        while desk.queue.purge(at(1_000_000)).unwrap() > 0 {}
        assert_eq!(notes(&desk.queue), 0);
        assert_eq!(desk.state(), DesiredCardState::EncodingRequired);
    }
}
