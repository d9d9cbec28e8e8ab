//! What happens in a house, for any make.

pub(crate) mod cards;
pub(crate) mod declared;
pub(crate) mod many;
pub(crate) mod trouble;
