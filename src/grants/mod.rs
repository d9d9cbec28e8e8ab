//! What a grant means: which access methods it needs, what may be asked of them, which jobs follow, and what the
//! outcome of a job changes.
//!
//! Pure: commands and facts come in, plans go out. Nothing here does IO, reads a clock, speaks SQL or HTTP; ids are
//! drawn from the [`Random`](crate::seams::Random) that is handed in. The cloud calls it for what is asked there; the
//! agent calls it for what is asked at its own desk.

pub mod codes;
mod create;
mod delete;
mod encode;
mod enrol;
mod event;
mod follow;
mod outcome;
pub mod pin;
mod refused;
mod stay;
mod target;
mod unlock;
mod update;

pub use create::{
    Created, GrantRequest, Means, MoreMethods, NewMethod, ReservationFacts, plan_create, plan_more_methods,
};
pub use delete::{
    CardFate, Checkout, DeleteFacts, Deleted, MethodFacts, PendingJob, plan_checkouts, plan_delete,
};
pub use encode::{CARD_WAIT, Encode, EncodeFacts, plan_encode};
pub use enrol::{EnrolFacts, plan_enrol};
pub use event::{Event, Subject};
pub use follow::{FollowFacts, Followed, HeldMethod, Request, plan_follow, wanted_modes};
pub use outcome::{AttemptError, CardEnd, attempt_end, card_end};
pub use pin::PinMark;
pub use refused::{Class, Refused, Resource};
pub use stay::{StayEnd, plan_stay_ends};
pub use target::{GrantProblem, Mode, TargetDoor, TargetSystem, Targets};
pub use unlock::{Unlock, UnlockFacts, plan_unlock, unlock_end};
pub use update::{UpdateFacts, Updated, plan_update};
