//! What most operations of a transaction change alike, and what is therefore written once at its end: the row with both
//! streams' positions, and how many jobs there are of each state and code.

use rusqlite::params;

use super::{Memory, Queue, store::Row};
use crate::{model::JobState, store::StoreError};

/// Not written yet. Empty outside of a transaction.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// The streams' positions, if they moved.
    pub(super) memory: Option<Memory>,
    /// How many jobs came to a state with a code, less those that left it. They are few.
    moved: Vec<(JobState, &'static str, i64)>,
}

impl Owed {
    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_none() && self.moved.is_empty()
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
    pub(super) fn owe_memory(&mut self, memory: Memory) -> Result<(), StoreError> {
        self.owed.memory = Some(memory);
        self.settle_alone()
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
        let Owed { memory, moved } = std::mem::take(&mut self.owed);
        if let Some(Memory { orders_received, reports }) = memory {
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
        for (state, code, jobs) in moved.into_iter().filter(|(_, _, jobs)| *jobs != 0) {
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
            FILE, MIGRATIONS, Rules,
            testing::{at, id, job},
        },
        *,
    };
    use crate::{
        model::{Admission, LaneName, Order},
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
}
