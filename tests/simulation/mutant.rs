//! Broken parts, to show that the judge sees what they break.

use std::sync::Arc;

use latchd::{
    cloud::store::Db,
    drivers::{Driver, Performed, ProgressSink, Work},
    model::{Code, Outcome},
    seams::BoxFuture,
    store::{Reserve, Store, StoreError, vfs::memory::Disk},
};
use rusqlite::Connection;

use crate::simulated::{
    play,
    spoilt::{Spoils, Spoilt},
};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    /// Nothing.
    None,
    /// The driver sends every command a second time when it ended in doubt.
    RepeatsInDoubt,
    /// The driver calls a doubt a failure.
    CallsDoubtFailure,
    /// The driver says done before it was.
    SaysDone,
    /// The cloud takes reports and forgets what they said.
    DropsReports,
    /// The agent's database does not wait for its disk.
    DoesNotSync,
    /// The driver waits for nothing, for ever, where it is in doubt.
    NeverRests,
    /// A statement of the agent's has no end.
    NeverEnds,
    /// The cloud takes reports of jobs that it did not order, and forgets some.
    DropsLocalJobs,
    /// The agent forgets with its next start that a lane is paused.
    ForgetsPauses,
    /// The cloud lets an attempt that has ended follow what is said of its job later.
    EndsTwice,
    /// The cloud calls attempts that failed a success.
    CallsFailureSuccess,
    /// The cloud lets a card that may have been written be written again.
    ForgetsDoubts,
    /// Both sides keep no room on their disks in reserve.
    KeepsNoReserve,
    /// Both sides take a disk that was full for full from then on.
    SeesNoRoom,
    /// The agent takes itself for the only one that makes cards.
    BelievesItIsAlone,
    /// The agent does not remember that it numbered reports before it met its cloud.
    ForgetsItMetNobody,
    /// The agent does not remember that its memory was set back, and does what it is ordered once more.
    ForgetsItWasSetBack,
}

impl play::Mutant for Mutant {
    const NONE: Self = Self::None;
    const ALL: &'static [Self] = &[
        Self::None,
        Self::RepeatsInDoubt,
        Self::CallsDoubtFailure,
        Self::SaysDone,
        Self::DropsReports,
        Self::DoesNotSync,
        Self::NeverRests,
        Self::NeverEnds,
        Self::DropsLocalJobs,
        Self::ForgetsPauses,
        Self::EndsTwice,
        Self::CallsFailureSuccess,
        Self::ForgetsDoubts,
        Self::KeepsNoReserve,
        Self::SeesNoRoom,
        Self::BelievesItIsAlone,
        Self::ForgetsItMetNobody,
        Self::ForgetsItWasSetBack,
    ];
}

pub(super) fn spoil_cloud(mutant: Mutant, db: &mut Db) -> Result<(), StoreError> {
    if mutant == Mutant::DropsReports {
        let forget = "CREATE TRIGGER IF NOT EXISTS forget AFTER INSERT ON job_end WHEN new.decided_at % 7 = 0
                      BEGIN DELETE FROM job_end WHERE job_id = new.job_id; END";
        db.connection().execute_batch(forget)?;
    }
    if mutant == Mutant::DropsLocalJobs {
        let forget =
            "CREATE TRIGGER IF NOT EXISTS forget AFTER INSERT ON local_job WHEN new.reported_at % 2 = 0
                      BEGIN DELETE FROM local_job WHERE job_id = new.job_id; END";
        db.connection().execute_batch(forget)?;
    }
    let spoilt = match mutant {
        Mutant::EndsTwice => {
            "CREATE TRIGGER IF NOT EXISTS spoil AFTER INSERT ON job_end WHEN new.state = 'succeeded'
             BEGIN UPDATE action_attempt SET status = 'success', error_type = NULL
                   WHERE job_id = new.job_id AND status = 'error'; END"
        }
        Mutant::CallsFailureSuccess => {
            "CREATE TRIGGER IF NOT EXISTS spoil AFTER UPDATE OF status ON action_attempt WHEN new.status = 'error'
             BEGIN UPDATE action_attempt SET status = 'success' WHERE rowid = new.rowid; END"
        }
        Mutant::ForgetsDoubts => {
            "CREATE TRIGGER IF NOT EXISTS spoil AFTER INSERT ON card_state WHEN new.in_doubt
             BEGIN UPDATE card_state SET in_doubt = 0 WHERE rowid = new.rowid; END"
        }
        _ => return Ok(()),
    };
    db.connection().execute_batch(spoilt)?;
    Ok(())
}

pub(super) fn spoil_queue(mutant: Mutant, connection: &mut Connection) -> Result<(), StoreError> {
    if mutant == Mutant::DoesNotSync {
        connection.execute_batch("PRAGMA synchronous=OFF")?;
    }
    if mutant == Mutant::ForgetsPauses {
        connection.execute_batch("DELETE FROM lane_pause")?;
    }
    if mutant == Mutant::ForgetsItMetNobody {
        let forget = "CREATE TRIGGER IF NOT EXISTS forget AFTER UPDATE OF reports_n ON memory
                      BEGIN UPDATE memory SET unmet_after = NULL; END";
        connection.execute_batch(forget)?;
    }
    if mutant == Mutant::ForgetsItWasSetBack {
        let forget = "UPDATE memory SET set_back_at = NULL;
                      CREATE TRIGGER IF NOT EXISTS forget AFTER UPDATE OF set_back_at ON memory
                      BEGIN UPDATE memory SET set_back_at = NULL; END";
        connection.execute_batch(forget)?;
    }
    if mutant == Mutant::NeverEnds {
        let count = "CREATE TEMP TRIGGER count AFTER INSERT ON job WHEN new.id = 20 BEGIN
                     SELECT sum(n) FROM (WITH RECURSIVE all_numbers(n) AS
                       (VALUES(1) UNION ALL SELECT n + 1 FROM all_numbers) SELECT n FROM all_numbers); END";
        connection.execute_batch(count)?;
    }
    Ok(())
}

/// What a side keeps in reserve on its disk.
pub(super) fn spoil_reserve(mutant: Mutant, disk: &Disk, bytes: u64) -> Reserve {
    match mutant {
        Mutant::KeepsNoReserve => Reserve::new(disk.storage(), 0),
        Mutant::SeesNoRoom => {
            let begun = disk.changes() == 0;
            Reserve::new(disk.storage().with_free(move || if begun { u64::MAX } else { 0 }), bytes)
        }
        _ => Reserve::new(disk.storage(), bytes),
    }
}

pub(super) fn spoil_driver(mutant: Mutant, driver: Arc<dyn Driver>) -> Arc<dyn Driver> {
    match mutant {
        Mutant::None
        | Mutant::DropsReports
        | Mutant::DoesNotSync
        | Mutant::NeverEnds
        | Mutant::DropsLocalJobs
        | Mutant::ForgetsPauses
        | Mutant::EndsTwice
        | Mutant::CallsFailureSuccess
        | Mutant::ForgetsDoubts
        | Mutant::KeepsNoReserve
        | Mutant::SeesNoRoom
        | Mutant::BelievesItIsAlone
        | Mutant::ForgetsItMetNobody
        | Mutant::ForgetsItWasSetBack => driver,
        Mutant::RepeatsInDoubt | Mutant::CallsDoubtFailure | Mutant::SaysDone | Mutant::NeverRests => {
            Arc::new(Spoilt { spoils: mutant, worker: Arc::clone(&driver), driver })
        }
    }
}

impl Spoils for Mutant {
    fn perform<'a>(
        &'a self,
        worker: &'a dyn Driver,
        work: Work,
        progress: &'a ProgressSink,
    ) -> BoxFuture<'a, Performed> {
        Box::pin(async move {
            let performed = worker.perform(work.clone(), progress).await;
            match (&performed, self) {
                (Performed::Ended(Outcome::Unknown(_)), Self::RepeatsInDoubt) => {
                    worker.perform(work, progress).await
                }
                (Performed::Ended(Outcome::Unknown(_)), Self::CallsDoubtFailure) => {
                    Performed::Ended(Outcome::failed(Code::NoAnswer, "as a careless driver says"))
                }
                (Performed::Ended(Outcome::Unknown(_)), Self::NeverRests) => loop {
                    tokio::task::yield_now().await;
                },
                (Performed::Ended(Outcome::Failed(_)), Self::SaysDone) => {
                    Performed::Ended(Outcome::Succeeded(latchd::model::Success::default()))
                }
                _ => performed,
            }
        })
    }
}
