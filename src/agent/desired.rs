//! What the cloud desires, on its way into the queue: frame after frame, in the order in which they came.

use std::{collections::VecDeque, sync::Arc};

use crate::protocol::Desired;

/// Frames that are not durable yet. The cloud has a bounded number of changes under way, so it is short.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: VecDeque<Arc<Desired>>,
    under_way: bool,
}

impl Inbox {
    /// A frame came.
    pub(super) fn came(&mut self, desired: Desired) {
        self.waiting.push_back(Arc::new(desired));
    }

    /// The next one to be stored. One at a time: behind one that cannot be stored, a later one would leave a hole.
    pub(super) fn next(&mut self) -> Option<Arc<Desired>> {
        if self.under_way {
            return None;
        }
        let next = self.waiting.front().cloned()?;
        self.under_way = true;
        Some(next)
    }

    /// The one under way was stored, or was not; then it is the next one once more. Says whether it still counts.
    pub(super) fn stored(&mut self, desired: &Arc<Desired>, is_stored: bool) -> bool {
        self.under_way = false;
        let counts = self.waiting.front().is_some_and(|first| Arc::ptr_eq(first, desired));
        if counts && is_stored {
            self.waiting.pop_front();
        }
        counts
    }

    /// The conversation is over: what is not durable comes again.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Position;

    fn frame(n: u64) -> Desired {
        Desired { up_to: Position { epoch: 1, n }, grants: Vec::new(), gone: Vec::new(), complete: false }
    }

    #[test]
    fn a_frame_that_could_not_be_stored_goes_before_all_later_ones() {
        let mut inbox = Inbox::default();
        inbox.came(frame(1));
        inbox.came(frame(2));
        let first = inbox.next().unwrap();
        assert!(inbox.next().is_none());
        assert!(inbox.stored(&first, false));
        let again = inbox.next().unwrap();
        assert_eq!(again.up_to.n, 1);
        assert!(inbox.stored(&again, true));
        assert_eq!(inbox.next().unwrap().up_to.n, 2);
    }

    #[test]
    fn what_was_under_way_on_a_connection_that_is_gone_counts_no_more() {
        let mut inbox = Inbox::default();
        inbox.came(frame(1));
        let first = inbox.next().unwrap();
        inbox.clear();
        inbox.came(frame(1));
        assert!(!inbox.stored(&first, true));
        assert_eq!(inbox.next().unwrap().up_to.n, 1);
    }
}
