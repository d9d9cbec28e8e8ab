//! Clocks of boards, which keep local time without a zone, and where they send what happens.

use std::{sync::Weak, time::Duration};

use jiff::SignedDuration;
use tokio::sync::watch;

use super::{
    driver::{Board, Uhppote},
    session::{Came, Note, Task},
    values::Listener,
};

/// Clocks are looked at this often, and as soon as the zone's clocks are changed.
const LOOK: Duration = Duration::from_secs(3600);
/// A board that was not reached is tried again after this long.
const AGAIN: Duration = Duration::from_secs(60);
/// A clock may be wrong by this much: a board shows whole seconds.
const BOUND: SignedDuration = SignedDuration::from_secs(1);

/// Keeps boards for as long as their driver lives.
pub(super) async fn keep(boards: Weak<Uhppote>, mut stopping: watch::Receiver<bool>) {
    loop {
        let Some(driver) = boards.upgrade() else { return };
        let mut was_all = true;
        for board in &driver.boards {
            was_all &= driver.keep_board(board).await;
            if *stopping.borrow() {
                return;
            }
        }
        let now = driver.clock.now();
        let change =
            driver.time_zone.following(now).next().map(|change| change.timestamp().duration_since(now));
        let change = change.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or(LOOK);
        let wait = change.min(if was_all { LOOK } else { AGAIN });
        drop(driver);
        tokio::select! {
            // The sender goes with the driver.
            changed = stopping.wait_for(|stop| *stop) => return drop(changed),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Uhppote {
    /// Sets a board right. Whether it could be.
    async fn keep_board(&self, board: &Board) -> bool {
        let task = Task::Clock { now: self.time_zone.to_datetime(self.clock.now()), bound: BOUND };
        let mut tasks = vec![task];
        tasks.extend(
            self.config
                .listener
                .map(|at| Task::Listen(Listener { address: *at.ip(), port: at.port(), every: 0 })),
        );
        for task in tasks {
            let said = self.say_in_turn(board, task, |note| match note {
                Note::ClockOff { by } => {
                    let by = by.map_or("not set at all".into(), |by| format!("{by:#}"));
                    tracing::warn!(system = %self.system, board = board.serial, by, "the board's clock is wrong; it is set");
                }
                Note::ListenedElsewhere(before) => {
                    let before = format!("{}:{}", before.address, before.port);
                    tracing::info!(system = %self.system, board = board.serial, before, "the board sends its events here now");
                }
                _ => {}
            });
            if let Err(Came::NothingSent(refusal) | Came::NotDone(refusal) | Came::Doubt(refusal)) =
                said.await
            {
                tracing::debug!(system = %self.system, board = board.serial, error = %refusal, "the board was not set right");
                return false;
            }
        }
        true
    }
}
