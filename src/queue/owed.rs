//! What most operations of a transaction change alike, and what is therefore written once at its end: the row with both
//! streams' positions, and how many jobs there are of each state and code.
//!
//! An order that is sent when it arrives has its position in its own row, and as long as it is at work that is enough:
//! the way to its first byte then costs no page of `memory`. Whatever takes a job out of `sent` writes that row.

use rusqlite::params;

use super::{Memory, Queue, store::Row};
use crate::{model::JobState, protocol::Position, store::StoreError};

/// Not written yet. Empty outside of a transaction.
#[derive(Debug, Default)]
pub(super) struct Owed {
    moved_streams: Streams,
    /// The last order of this transaction that stands in the row of a job at work.
    in_job: Option<Position>,
    /// How many jobs came to a state with a code, less those that left it. They are few.
    moved: Vec<(JobState, &'static str, i64)>,
}

/// What of the streams' positions is not written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Streams {
    #[default]
    Neither,
    /// Only that of the orders.
    Orders,
    Both,
}

impl Owed {
    pub(super) fn is_empty(&self) -> bool {
        self.moved_streams == Streams::Neither && self.moved.is_empty()
    }

    /// The positions are to be written, unless they are those of an order that stands in the row of a job at work.
    fn unwritten(&self, memory: Memory) -> Option<Memory> {
        let stands_in_job = self.in_job == Some(memory.orders_received);
        match self.moved_streams {
            Streams::Neither => None,
            Streams::Orders => Some(memory).filter(|_| !stands_in_job),
            Streams::Both => Some(memory),
        }
    }

    /// What is not in the tally yet: how many more jobs there are, or fewer.
    pub(super) fn moved(&self) -> impl Iterator<Item = (JobState, &'static str, i64)> {
        self.moved.iter().copied()
    }

    fn count(&mut self, state: JobState, code: &'static str, jobs: i64) {
        // What is at work is few and counted when somebody asks.
        if state == JobState::Sent {
            return;
        }
        match self.moved.iter_mut().find(|(moved, of, _)| *moved == state && *of == code) {
            Some((_, _, sum)) => *sum += jobs,
            None => self.moved.push((state, code, jobs)),
        }
    }
}

impl Queue {
    /// Moves the streams' positions.
    pub(super) fn owe_memory(&mut self, memory: Memory, moved: Streams) -> Result<(), StoreError> {
        self.memory.set(Some(memory));
        self.owed.moved_streams = self.owed.moved_streams.max(moved);
        self.settle_alone()
    }

    /// A job that was not at work yet is sent, and this order's position stands in its row.
    pub(super) fn stands_in_job(&mut self, position: Position) {
        self.owed.in_job = self.owed.in_job.max(Some(position));
    }

    /// Counts a job that came.
    pub(super) fn count_in(&mut self, state: JobState, code: &'static str) -> Result<(), StoreError> {
        self.owed.count(state, code, 1);
        self.settle_alone()
    }

    /// Counts a job elsewhere than where its row was.
    pub(super) fn count_moved(
        &mut self,
        row: &Row,
        state: JobState,
        code: &'static str,
    ) -> Result<(), StoreError> {
        self.owed.count(row.state, row.code_text(), -1);
        self.count_in(state, code)
    }

    /// Without a transaction there is no end to wait for.
    fn settle_alone(&mut self) -> Result<(), StoreError> {
        if self.connection.is_autocommit() { self.write_owed() } else { Ok(()) }
    }

    pub(super) fn write_owed(&mut self) -> Result<(), StoreError> {
        let owed = std::mem::take(&mut self.owed);
        if let Some(Memory { orders_received, reports }) = owed.unwritten(self.memory_of_transaction()?) {
            self.connection
                .prepare_cached(
                    "UPDATE memory SET orders_epoch = ?1, orders_n = ?2, reports_epoch = ?3, reports_n = ?4, \
                     reports_acknowledged = ?5, unmet_after = CASE WHEN met_in = ?6 THEN unmet_after \
                     WHEN reports_epoch <> ?3 THEN NULL WHEN reports_n < ?4 THEN coalesce(unmet_after, reports_n) \
                     ELSE unmet_after END",
                )?
                .execute([
                    orders_received.epoch.cast_signed(),
                    orders_received.n.cast_signed(),
                    reports.last.epoch.cast_signed(),
                    reports.last.n.cast_signed(),
                    reports.acknowledged.cast_signed(),
                    self.life,
                ])?;
        }
        for (state, code, jobs) in owed.moved.into_iter().filter(|(_, _, jobs)| *jobs != 0) {
            self.connection
                .prepare_cached(
                    "INSERT INTO tally VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs",
                )?
                .execute(params![state.as_str(), code, jobs])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Accepted, FILE, MIGRATIONS, Rules,
            testing::{at, card, id, job},
        },
        *,
    };
    use crate::{
        model::{Admission, Code, DoorName, LaneName, Order, Outcome, Refusal, Success},
        seal::SealKey,
        seams::{Random, Storage},
        store::{self, Store},
    };

    fn open(storage: &Storage) -> Queue {
        let random = Random::seeded(1);
        Queue::open(storage, SealKey::new([7; 32], random.clone()), random, Rules::default()).unwrap()
    }

    fn accept(queue: &mut Queue, number: u128) {
        let admission = Admission::to(LaneName::new("salto/1").unwrap(), Vec::new());
        queue.accept(at(0), None, job(number, Order::InventoryRefresh), Ok(admission), false).unwrap();
    }

    fn counted(queue: &Queue) -> [u64; 2] {
        let counts = queue.counts().unwrap().by_state;
        [JobState::Waiting, JobState::Cancelled].map(|state| counts.get(&state).copied().unwrap_or(0))
    }

    #[test]
    fn a_file_of_the_former_schema_is_counted_on_from_where_its_triggers_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let former = store::open(&storage, FILE, &MIGRATIONS[..2]).unwrap();
        former
            .execute_batch(
                "INSERT INTO job(job_id, state, lane, received_at, expires_at) \
                 VALUES (x'00000000000000000000000000000001', 'waiting', 'salto/1', 0, 3600000)",
            )
            .unwrap();
        drop(former);
        let mut queue = open(&storage);
        assert_eq!(counted(&queue), [1, 0]);
        accept(&mut queue, 2);
        assert_eq!(counted(&queue), [2, 0]);
        queue.cancel(at(1), None, id(1)).unwrap();
        assert_eq!(counted(&queue), [1, 1]);
        drop(queue);
        assert_eq!(counted(&open(&storage)), [1, 1]);
    }

    #[test]
    fn what_a_transaction_owes_is_seen_inside_it_and_gone_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = open(&Storage::folder(folder.path()));
        accept(&mut queue, 1);
        queue.connection().execute_batch("BEGIN IMMEDIATE").unwrap();
        // It came and left in one transaction: the tally hears of neither.
        accept(&mut queue, 2);
        assert!(queue.owes());
        assert_eq!(counted(&queue), [2, 0]);
        queue.cancel(at(1), None, id(2)).unwrap();
        assert_eq!(counted(&queue), [1, 1]);
        let reports = queue.memory().unwrap().reports.last.n;
        assert_eq!(reports, 1);
        queue.connection().execute_batch("ROLLBACK").unwrap();
        queue.undone();
        assert_eq!((counted(&queue), queue.memory().unwrap().reports.last.n), ([1, 0], 0));
        queue.connection().execute_batch("BEGIN IMMEDIATE").unwrap();
        queue.cancel(at(1), None, id(1)).unwrap();
        queue.commit().unwrap();
        assert!(!queue.owes());
        assert_eq!((counted(&queue), queue.memory().unwrap().reports.last.n), ([0, 1], 1));
    }

    const FIRST: Position = Position { epoch: 1, n: 1 };
    const SECOND: Position = Position { epoch: 1, n: 2 };

    /// The cloud orders a card, which is sent at once.
    fn send_card(queue: &mut Queue, n: u64) -> Result<(), StoreError> {
        let mut admission =
            Admission::to(LaneName::new("salto/1").unwrap(), vec![DoorName::new("101").unwrap()]);
        admission.printed_end = Some(at(86_400));
        let job = job(n.into(), card(&["101"], &format!("stay-{n}")));
        let sent = queue.accept(at(0), Some(Position { epoch: 1, n }), job, Ok(admission), true)?;
        assert!(matches!(sent, Accepted::Sent(_)), "{sent:?}");
        Ok(())
    }

    fn finish(queue: &mut Queue, n: u64) -> Result<(), StoreError> {
        queue.finish(at(1), id(n.into()), Outcome::Succeeded(Success::default()))
    }

    fn commit(queue: &mut Queue, work: impl FnOnce(&mut Queue) -> Result<(), StoreError>) {
        queue.connection().execute_batch("BEGIN IMMEDIATE").unwrap();
        work(queue).unwrap();
        queue.commit().unwrap();
    }

    fn received(queue: &Queue) -> Position {
        queue.memory().unwrap().orders_received
    }

    #[test]
    fn between_an_order_and_its_first_byte_stand_its_row_with_two_entries_and_its_room() {
        const PAGE: u64 = 4096 + 24;
        let folder = tempfile::tempdir().unwrap();
        let mut queue = open(&Storage::folder(folder.path()));
        let log = folder.path().join(format!("{FILE}-wal"));
        commit(&mut queue, |queue| send_card(queue, 1));
        commit(&mut queue, |queue| finish(queue, 1));
        queue.connection().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        commit(&mut queue, |queue| send_card(queue, 2));
        assert_eq!(log.metadata().unwrap().len() / PAGE, 4);
    }

    #[test]
    fn the_position_of_an_order_at_work_is_held_whatever_becomes_of_the_job_and_whoever_opens_the_file() {
        type End = fn(&mut Queue) -> Result<(), StoreError>;
        let ends: [End; 3] = [
            |queue| finish(queue, 2),
            |queue| queue.unsend(at(1), id(2), &Refusal::new(Code::SystemOffline, "no line")),
            |queue| queue.recover(at(1)).map(drop),
        ];
        for end in ends {
            let folder = tempfile::tempdir().unwrap();
            let storage = Storage::folder(folder.path());
            let mut queue = open(&storage);
            commit(&mut queue, |queue| send_card(queue, 1));
            commit(&mut queue, |queue| finish(queue, 1));
            commit(&mut queue, |queue| send_card(queue, 2));
            assert_eq!(received(&queue), SECOND);
            drop(queue);
            let mut queue = open(&storage);
            assert_eq!(received(&queue), SECOND);
            commit(&mut queue, end);
            assert_eq!(received(&queue), SECOND);
            drop(queue);
            assert_eq!(received(&open(&storage)), SECOND);
        }
    }

    #[test]
    fn the_position_of_an_order_that_was_rolled_back_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = open(&Storage::folder(folder.path()));
        commit(&mut queue, |queue| send_card(queue, 1));
        commit(&mut queue, |queue| finish(queue, 1));
        queue.connection().execute_batch("BEGIN IMMEDIATE").unwrap();
        send_card(&mut queue, 2).unwrap();
        assert_eq!(received(&queue), SECOND);
        queue.connection().execute_batch("ROLLBACK").unwrap();
        queue.undone();
        assert_eq!(received(&queue), FIRST);
    }

    #[test]
    fn the_position_of_a_later_order_that_waits_is_held_beside_that_of_one_at_work() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let mut queue = open(&storage);
        commit(&mut queue, |queue| {
            send_card(queue, 1)?;
            let admission = Admission::to(LaneName::new("salto/1").unwrap(), Vec::new());
            let reading = job(2, Order::InventoryRefresh);
            queue.accept(at(0), Some(SECOND), reading, Ok(admission), false).map(drop)
        });
        drop(queue);
        assert_eq!(received(&open(&storage)), SECOND);
    }
}
