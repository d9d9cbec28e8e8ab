//! What simulations of the whole system in one process share: the network, both sides with their disks and processes,
//! and who trusts whom. Time is tokio's, paused.

pub(crate) mod api;
pub(crate) mod authority;
pub(crate) mod net;
pub(crate) mod side;
