//! `latchd run` and `latchd cloud`: what they are told.

use std::path::PathBuf;

use clap::Args;

/// Run the agent: bring this property to its cloud.
///
/// Dials out to the cloud, takes jobs, and does each once. SIGTERM or ctrl-c takes no new work, finishes what runs
/// within `stop_deadline`, and leaves; a second signal leaves at once.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The agent's configuration; see config/latchd.example.toml.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/latchd.toml")]
    pub config: PathBuf,
}

/// Run the cloud: the HTTP API, and the place where bridges dial in.
///
/// First start makes API key, bridge token and certificate authority as files of mode 0600 and prints where they are.
#[derive(Debug, Args)]
pub struct CloudArgs {
    /// The cloud's configuration; see config/cloud.example.toml.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/cloud.toml")]
    pub config: PathBuf,
}
