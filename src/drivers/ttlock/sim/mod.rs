//! A pretend TTLock keypad lock with a radio: its frames, its tables, its clock, its faults. Knows nothing of the driver's
//! codec and session.
//!
//! # Control
//! ```text
//! slots                       each passcode and card, with its dates
//! try DIGITS | try_card N     what the keypad or the reader would do now: `opens`, or why not
//! hold_card N                 the card that the next enrolment finds at the reader
//! foreign DIGITS              a passcode that somebody else's app wrote, for good
//! clock                       what the lock's clock shows
//! clock SECONDS               puts it forward, or back
//! battery N | features HEX | capacity N | pairing | reset
//! lenient                     commands are taken without a login, as some clients expect it
//! fault KIND [N]              what to do wrong with the N-th frame from now on, the next one without N
//! heal                        nothing more of that
//! done                        how many passcodes and cards were written or removed, how often the door was opened
//! ```
//! Faults: `drop_before` and `drop_after` (the link ends before the frame was read, or once it was done), `mute` (done, not
//! answered), `damage` (a wrong byte in the answer), `double` (answered twice), `chatter` (a state told unasked before it),
//! `frozen` (refused), `forgets` (says yes and keeps nothing).

mod lock;
mod wire;

pub use lock::{Pairing, TtLock};
