//! cli

pub mod cloud;
