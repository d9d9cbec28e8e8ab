//! What the cloud desires, on its way into the queue: frame after frame, in the order in which they came.

use std::{collections::VecDeque, sync::Arc};

use crate::protocol::{DESIRED_AHEAD, Desired, Position};

/// Changes of one frame.
const CHANGES: usize = DESIRED_AHEAD as usize;
/// Frames that wait: each has a change or, behind one that has, says that nothing is left.
const FRAMES: usize = 2 * CHANGES + 1;

/// A frame, and what the cloud had heard of this site when it said it.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) desired: Desired,
    /// The last report that it had acknowledged.
    pub(super) heard: Position,
}

/// More came than a cloud may have under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMuch {
    #[error("a frame of what is desired has {0} changes, and may have {CHANGES}")]
    Changes(usize),
    #[error("more than {FRAMES} frames of what is desired are under way")]
    Frames,
}

/// Frames that are not durable yet. The cloud has a bounded number of changes under way; more are not taken.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: VecDeque<Arc<Came>>,
    under_way: bool,
}

impl Inbox {
    /// A frame came.
    pub(super) fn came(&mut self, desired: Desired, heard: Position) -> Result<(), TooMuch> {
        let changes = desired.grants.len().saturating_add(desired.gone.len());
        if changes > CHANGES {
            return Err(TooMuch::Changes(changes));
        }
        if self.waiting.len() >= FRAMES {
            return Err(TooMuch::Frames);
        }
        self.waiting.push_back(Arc::new(Came { desired, heard }));
        Ok(())
    }

    /// The next one to be stored. One at a time: behind one that cannot be stored, a later one would leave a hole.
    pub(super) fn next(&mut self) -> Option<Arc<Came>> {
        if self.under_way {
            return None;
        }
        let next = self.waiting.front().cloned()?;
        self.under_way = true;
        Some(next)
    }

    /// The one under way was stored, or was not; then it is the next one once more. Says whether it still counts.
    pub(super) fn stored(&mut self, came: &Arc<Came>, is_stored: bool) -> bool {
        self.under_way = false;
        let counts = self.waiting.front().is_some_and(|first| Arc::ptr_eq(first, came));
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
    use crate::model::AccessGrantId;

    fn frame(n: u64) -> Desired {
        Desired { up_to: at(n), grants: Vec::new(), gone: Vec::new(), complete: false }
    }

    fn at(n: u64) -> Position {
        Position { epoch: 1, n }
    }

    #[test]
    fn a_frame_that_could_not_be_stored_goes_before_all_later_ones() {
        let mut inbox = Inbox::default();
        inbox.came(frame(1), at(0)).unwrap();
        inbox.came(frame(2), at(0)).unwrap();
        let first = inbox.next().unwrap();
        assert!(inbox.next().is_none());
        assert!(inbox.stored(&first, false));
        let again = inbox.next().unwrap();
        assert_eq!(again.desired.up_to.n, 1);
        assert!(inbox.stored(&again, true));
        assert_eq!(inbox.next().unwrap().desired.up_to.n, 2);
    }

    #[test]
    fn what_was_under_way_on_a_connection_that_is_gone_counts_no_more() {
        let mut inbox = Inbox::default();
        inbox.came(frame(1), at(0)).unwrap();
        let first = inbox.next().unwrap();
        inbox.clear();
        inbox.came(frame(1), at(0)).unwrap();
        assert!(!inbox.stored(&first, true));
        assert_eq!(inbox.next().unwrap().desired.up_to.n, 1);
    }

    #[test]
    fn more_than_a_cloud_may_have_under_way_is_not_taken() {
        let mut inbox = Inbox::default();
        let gone = vec![AccessGrantId(uuid::Uuid::nil()); CHANGES + 1];
        assert_eq!(inbox.came(Desired { gone, ..frame(1) }, at(0)), Err(TooMuch::Changes(CHANGES + 1)));
        for n in 0..FRAMES as u64 {
            inbox.came(frame(n), at(0)).unwrap();
        }
        assert_eq!(inbox.came(frame(999), at(0)), Err(TooMuch::Frames));
        // What was taken is stored all the same.
        let first = inbox.next().unwrap();
        assert!(inbox.stored(&first, true));
        assert_eq!(inbox.came(frame(999), at(0)), Ok(()));
    }
}
