//! What simulations of the whole system in one process share: the network, both sides with their disks and processes, who
//! trusts whom, and how seeds are played and drivers broken. Time is tokio's, paused.

pub(crate) mod api;
pub(crate) mod authority;
pub(crate) mod net;
pub(crate) mod play;
pub(crate) mod side;
pub(crate) mod spoilt;
