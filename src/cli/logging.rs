//! Log lines on standard error.

use std::{
    env,
    io::{self, IsTerminal},
};

use anyhow::Context;
use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, fmt};

/// What is logged, in the syntax of `tracing`.
const FILTER: &str = "LATCHD_LOG";

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs from here on; `default` is what is logged where the environment says nothing.
///
/// # Errors
/// When the environment's filter cannot be understood.
pub(super) fn start(format: LogFormat, default: &str) -> anyhow::Result<()> {
    let wanted = env::var(FILTER).unwrap_or_else(|_| default.into());
    let filter = EnvFilter::try_new(&wanted).with_context(|| format!("understand {FILTER}={wanted:?}"))?;
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Text => {
            let lines = lines.with_ansi(io::stderr().is_terminal());
            // The journal puts its own time before each line.
            match env::var_os("JOURNAL_STREAM").is_some() {
                true => lines.without_time().init(),
                false => lines.init(),
            }
        }
    }
    Ok(())
}
