//! cli

pub mod sim;
