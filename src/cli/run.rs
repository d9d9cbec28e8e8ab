//! `latchd run` and `latchd cloud`: what they are told.

use std::path::PathBuf;

use clap::Args;

/// What `latchd run` is told.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The agent's configuration; see config/latchd.example.toml.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/latchd.toml")]
    pub config: PathBuf,
}

/// What `latchd cloud` is told.
#[derive(Debug, Args)]
pub struct CloudArgs {
    /// The cloud's configuration; see config/cloud.example.toml.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/cloud.toml")]
    pub config: PathBuf,
}
