//! A lock's one link: whose turn it is, and how it is kept for a moment behind a change, so that jobs that come one after
//! the other need one connection together.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, OwnedMutexGuard, watch},
    time::{Instant, sleep},
};

use super::make::GoesOn;
use crate::{seams, transport::ble::Link};

/// How long a link is kept for the next job. A guest's telephone gets none meanwhile.
const KEPT: Duration = Duration::from_millis(500);

/// A link that nobody uses just now.
pub(super) struct Standing {
    pub(super) link: Link,
    pub(super) goes_on: GoesOn,
    /// When it was made.
    pub(super) since: Instant,
}

/// The link of one lock.
#[derive(Default)]
pub(super) struct Links(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    standing: Option<Standing>,
    /// How often somebody's turn has come: who sees another number than his own came too late to end a link.
    turns: u64,
}

/// A turn at a lock. Its link ends with it, unless it is kept.
pub(super) struct Turn(OwnedMutexGuard<State>);

impl Links {
    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Turn {
        let mut state = self.0.clone().lock_owned().await;
        state.turns += 1;
        Turn(state)
    }
}

impl Turn {
    /// The link that was kept, if it still stands.
    pub(super) fn take(&mut self) -> Option<Standing> {
        self.0.standing.take()
    }

    /// Keeps a link for whoever comes soon; it ends in order when nobody does, or when nothing new is begun.
    pub(super) fn keep(mut self, standing: Standing, mut stopping: watch::Receiver<bool>) {
        self.0.standing = Some(standing);
        let (turns, state) = (self.0.turns, OwnedMutexGuard::mutex(&self.0).clone());
        seams::spawn(async move {
            tokio::select! {
                () = sleep(KEPT) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
            let mut state = state.lock().await;
            if state.turns != turns {
                return;
            }
            if let Some(Standing { mut link, goes_on, .. }) = state.standing.take() {
                // Whoever comes meanwhile waits: a lock has one link.
                goes_on.part(&mut link).await;
            }
        });
    }
}
