//! The cards of access methods as this site knows them: what its own jobs made of each, and what a desk may have written.
//!
//! The cloud's picture of a card may be old while the cloud is away, so what a job here came to counts more. And a desk and
//! a cloud that do not hear each other may order the same card: the later of both orders is not done.

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{
    LocalOrder, Queue,
    ledger::Room,
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
/// Rows of jobs that are gone which are deleted at once.
const FORGOTTEN_AT_ONCE: i64 = 500;

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
    ended_at: Option<Timestamp>,
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
        for CardJob { job_id, state, .. } in self.card_jobs(card.access_method_id)? {
            let state = match state {
                JobState::Received | JobState::Waiting | JobState::Sent => DesiredCardState::BeingEncoded,
                JobState::Unknown => DesiredCardState::InDoubt,
                JobState::Succeeded if self.wrote(job_id, grant, card)? => {
                    match self.is_thrown_out(job_id)? {
                        true => DesiredCardState::EncodingRequired,
                        false => DesiredCardState::Issued,
                    }
                }
                // The grant has changed since: only the cloud knows whether that asks for another card.
                JobState::Succeeded => break,
                JobState::Failed | JobState::Cancelled | JobState::Expired | JobState::Superseded => {
                    was_tried = true;
                    continue;
                }
            };
            return Ok(CardStanding { state, why: None, job_id: Some(job_id) });
        }
        let state = match card.state {
            // The order that the cloud speaks of has ended here.
            DesiredCardState::BeingEncoded if was_tried => DesiredCardState::EncodingRequired,
            state => state,
        };
        Ok(CardStanding { state, why: card.why.clone(), job_id: None })
    }

    /// Whether the card of a job is what its grant says now.
    fn wrote(&self, job_id: JobId, grant: &DesiredGrant, card: &DesiredCard) -> Result<bool, StoreError> {
        let job = self.job(job_id)?.and_then(|detail| detail.job);
        let Some(Job { order: Order::CardEncode(written), .. }) = job else { return Ok(false) };
        let doors = grant.doors_in(&card.system);
        let opens_the_same =
            doors.len() == written.doors.len() && doors.iter().all(|door| written.doors.contains(door));
        Ok(written.window == grant.window && opens_the_same)
    }

    /// Whether the stay of a card that a job wrote has certainly begun anew since in one of its rooms: the card opens that
    /// only until the one that began it is used there.
    fn is_thrown_out(&self, job_id: JobId) -> Result<bool, StoreError> {
        let Some(detail) = self.job(job_id)? else { return Ok(false) };
        let (Some(Job { system, order: Order::CardEncode(written), .. }), Some(sent_at)) =
            (&detail.job, detail.view.sent_at)
        else {
            return Ok(false);
        };
        for door in &written.doors {
            let is_newer =
                |room: Room| room.certain && room.holder == written.reservation_key && sent_at < room.since;
            if written.reservation_key.is_some() && self.room(system, door)?.is_some_and(is_newer) {
                return Ok(true);
            }
        }
        Ok(false)
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

    /// Whether the cloud ordered a card without knowing that the desk has it written, or may have; or the end of a stay
    /// without knowing that the desk has let somebody into it.
    pub(super) fn is_overtaken_at_desk(&self, now: Timestamp, order: &Job) -> Result<bool, StoreError> {
        let card = match &order.order {
            Order::CardEncode(card) => card,
            Order::StayCheckout { reservation_key, .. } => return self.stay_was_made_here(reservation_key),
            _ => return Ok(false),
        };
        for CardJob { job_id, state, origin, ended_at } in self.card_jobs(card.access_method_id)? {
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

    /// Remembers which card a job is about.
    pub(super) fn note_card(&mut self, row: &Row) -> Result<(), StoreError> {
        let Some(Order::CardEncode(card)) = row.body.as_ref().map(|body| &body.job.order) else {
            return Ok(());
        };
        self.connection
            .prepare_cached("INSERT OR IGNORE INTO card_job(method_id, job_id) VALUES (?1, ?2)")?
            .execute(params![card.access_method_id.0.as_bytes(), row.job_id.0.as_bytes()])?;
        Ok(())
    }

    /// Deletes a bounded number of notes of jobs that are gone, and says how many.
    pub(super) fn forget_card_jobs(&mut self) -> Result<usize, StoreError> {
        let sql = "DELETE FROM card_job WHERE (method_id, job_id) IN (SELECT method_id, job_id FROM card_job c \
                   WHERE NOT EXISTS (SELECT 1 FROM job WHERE job.job_id = c.job_id) LIMIT ?1)";
        Ok(self.connection.prepare_cached(sql)?.execute([FORGOTTEN_AT_ONCE])?)
    }

    /// The jobs about a card, newest first.
    fn card_jobs(&self, card: AccessMethodId) -> Result<Vec<CardJob>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT job.job_id, job.state, job.origin, job.ended_at FROM card_job CROSS JOIN job USING(job_id) \
             WHERE method_id = ?1 ORDER BY job.id DESC",
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
                ended_at: instant(row.get(3)?),
            });
        }
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
            Accepted, Rules, Sharing,
            testing::{at, id},
        },
        seal::SealKey,
        seams::{Random, Storage},
    };

    const CARD: AccessMethodId = AccessMethodId(uuid::Uuid::from_u128(0xca4d));

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
            let random = Random::seeded(1);
            let seal = SealKey::new([7; 32], random.clone());
            let rules = Rules {
                systems: [(SystemName::new("salto").unwrap(), Sharing::Exclusive)].into(),
                ..Rules::default()
            };
            let queue = Queue::open(&Storage::folder(folder.path()), seal, random, rules).unwrap();
            let mut desk = Self { queue, n: 0, second: 10, job: None, _folder: folder };
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
            self.queue.desk_card(at(10), wish, |_, door| door.as_str() == "101").unwrap()
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
            self.queue.finish(at(20), id(number), outcome).unwrap();
        }

        /// The cloud ordered the card at this second.
        fn is_ordered(&mut self, number: u128, second: i64) -> Accepted {
            let job = Job { job_id: id(number), created_at: at(second), ..self.job.clone().unwrap() };
            self.take(LocalOrder { job, origin: Origin::Cloud, retries: None })
        }

        fn state(&self) -> DesiredCardState {
            let grant = self.queue.desired_grant_of_card(CARD).unwrap().unwrap();
            self.queue.card_standing(&grant, &grant.cards[0]).unwrap().state
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
            assert!(desk.wish(1, true).is_ok());
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
    fn what_is_known_of_a_cards_jobs_goes_with_them() {
        let mut desk = Desk::new();
        desk.makes(1, false, written());
        let notes = |queue: &Queue| -> i64 {
            queue.connection.query_row("SELECT count(*) FROM card_job", [], |row| row.get(0)).unwrap()
        };
        desk.queue.purge(at(20)).unwrap();
        assert_eq!(notes(&desk.queue), 1);
        while desk.queue.purge(at(1_000_000)).unwrap() > 0 {}
        assert_eq!(notes(&desk.queue), 0);
        assert_eq!(desk.state(), DesiredCardState::EncodingRequired);
    }
}
