//! What a grant means: which access methods it needs, what may be asked of them, which jobs follow, and what the
//! outcome of a job changes.
//!
//! Pure: commands and facts come in, plans go out. Nothing here does IO, reads a clock, speaks SQL or HTTP; ids are
//! drawn from the [`Random`](crate::seams::Random) that is handed in. The cloud calls it for what is asked there; the
//! agent will call it for what is asked at its own desk.

mod create;
mod delete;
mod encode;
mod event;
mod outcome;
mod refused;
mod target;

pub use create::{
    Created, GrantRequest, NewMethod, ReservationFacts, SpaceChange, plan_create, plan_space_change,
};
pub use delete::{CardFate, Checkout, DeleteFacts, Deleted, MethodFacts, PendingJob, plan_delete};
pub use encode::{CARD_WAIT, Encode, EncodeFacts, plan_encode};
pub use event::{Event, Subject};
pub use outcome::{AttemptError, CardEnd, attempt_end, card_end};
pub use refused::{Class, Refused, Resource};
pub use target::{GrantProblem, Mode, TargetDoor, TargetSystem, Targets};
