//! The HTTP API.
//!
//! A table of calls: path, method, declared parameters, handler. This room checks who asks and what they ask; what it
//! means is in [`crate::grants`], and what is so is in [`super::store`]. It holds no state of its own.

mod answers;
mod calls;
mod http;
mod params;
mod problem;

use std::{collections::HashMap, time::Duration};

use tokio::sync::watch;

pub use http::serve;

use super::{Signals, store::Db};
use crate::{
    seams::{Clock, Random},
    store::WriterHandle,
};

/// What the API needs to answer.
pub struct Api {
    db: WriterHandle<Db>,
    signals: Signals,
    clock: Clock,
    random: Random,
    hold: Duration,
    shutdown: watch::Receiver<bool>,
    calls: HashMap<&'static str, &'static calls::Call>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

impl Api {
    /// Puts the API together. `hold` is how long a question about a pending attempt may be held open; `shutdown`
    /// turns true when it is time to stop.
    #[must_use]
    pub fn new(
        db: WriterHandle<Db>,
        signals: Signals,
        clock: Clock,
        random: Random,
        hold: Duration,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let calls = calls::CALLS.iter().flat_map(|calls| calls.iter());
        Self {
            db,
            signals,
            clock,
            random,
            hold,
            shutdown,
            calls: calls.map(|call| (call.path, call)).collect(),
        }
    }
}
