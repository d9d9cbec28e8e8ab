//! The HTTP API.
//!
//! A table of calls: path, method, declared parameters, handler. This room checks who asks and what they ask; what it
//! means is in [`crate::grants`], and what is so is in [`super::store`]. It holds no state of its own.

mod answers;
mod calls;
mod http;
mod openapi;
mod own_errors;
mod pages;
mod params;
mod problem;
mod schemas;

use std::{collections::HashMap, time::Duration};

use tokio::sync::{OnceCell, watch};

pub use http::serve;
pub use openapi::openapi;

pub(crate) use answers::event;

use super::{Signals, Simulators, store::Db, webhooks::Reach};
use crate::{
    seams::{Clock, Random},
    store::{StoreError, WriterHandle},
};

/// How the API answers.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How long a question about a pending attempt may be held open.
    pub hold: Duration,
    /// Whether a call that orders a card to be written or read, or a door to be opened, is held open as well.
    pub hold_orders: bool,
    /// Which addresses webhooks may have beside public ones.
    pub reach: Reach,
    /// The simulators that may be told what happens next; without any, no call of theirs is there.
    pub simulators: Simulators,
}

/// What the API needs to answer.
pub struct Api {
    db: WriterHandle<Db>,
    signals: Signals,
    clock: Clock,
    random: Random,
    hold: Duration,
    hold_orders: bool,
    reach: Reach,
    simulators: Simulators,
    shutdown: watch::Receiver<bool>,
    calls: HashMap<&'static str, &'static calls::Call>,
    cursors: OnceCell<pages::Cursors>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

impl Api {
    /// Puts the API together. `shutdown` turns true when it is time to stop.
    #[must_use]
    pub fn new(
        db: WriterHandle<Db>,
        signals: Signals,
        clock: Clock,
        random: Random,
        settings: Settings,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let Settings { hold, hold_orders, reach, simulators } = settings;
        let simulated = if simulators.is_empty() { &[] } else { calls::SIMULATED };
        let calls = calls::CALLS.iter().copied().chain([simulated]).flatten();
        Self {
            db,
            signals,
            clock,
            random,
            hold,
            hold_orders,
            reach,
            simulators,
            shutdown,
            calls: calls.map(|call| (call.path, call)).collect(),
            cursors: OnceCell::new(),
        }
    }

    /// The key is the database's, so that a list goes on after the cloud was started again.
    async fn cursors(&self) -> Result<pages::Cursors, StoreError> {
        let key = async || self.db.run(|db| Ok(pages::Cursors::new(&db.cursor_key()))).await;
        self.cursors.get_or_try_init(key).await.cloned()
    }
}
