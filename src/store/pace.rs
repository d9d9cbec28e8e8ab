//! How quick the disk has lately been, as far as commits say.

use std::{collections::VecDeque, time::Duration};

/// A commit that takes no longer may hold up whoever asked for it. On a machine that was idle before, a good disk's takes
/// about one millisecond.
const QUICK: Duration = Duration::from_millis(2);
/// So many commits are remembered.
const LATELY: usize = 8;
/// And so many of them may have been slow: one of some hundred takes a part of the log back into the file. A disk that
/// becomes slow holds somebody up once more than this.
const SLOW: usize = 1;

/// The last commits that wrote something.
#[derive(Debug, Default)]
pub(super) struct Pace {
    lately: VecDeque<Duration>,
}

impl Pace {
    /// A commit took so long.
    pub(super) fn note(&mut self, took: Duration) {
        if self.lately.len() == LATELY {
            self.lately.pop_front();
        }
        self.lately.push_back(took);
    }

    /// Whether the next one is likely to be quick. A disk that nobody knows yet is not.
    pub(super) fn is_quick(&self) -> bool {
        let slow = self.lately.iter().filter(|took| QUICK < **took).count();
        self.lately.len() == LATELY && slow <= SLOW
    }
}
