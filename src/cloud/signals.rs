//! Who is woken when something was committed.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// Wakes hub and held requests after a commit. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Signals {
    orders: Arc<Notify>,
    changes: Arc<watch::Sender<u64>>,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            orders: Arc::default(),
            changes: Arc::new(watch::channel(0).0),
        }
    }
}

impl Signals {
    /// New orders for some bridge are durable: the hub looks.
    pub fn orders_queued(&self) {
        self.orders.notify_waiters();
    }

    /// Waits for the next [`Signals::orders_queued`]. Create the future first, then look at the store, then await it:
    /// a signal in between is not lost (call `enable` on the pinned future).
    pub fn orders(&self) -> tokio::sync::futures::Notified<'_> {
        self.orders.notified()
    }

    /// Attempts, methods or events changed: held requests look again.
    pub fn state_changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Sees every [`Signals::state_changed`] from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
