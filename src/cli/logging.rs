//! Log lines on standard error.

use std::{
    env,
    io::{self, IsTerminal},
};

use anyhow::Context;
use clap::ValueEnum;
use tracing::Metadata;
use tracing_subscriber::{
    Layer,
    filter::{Targets, filter_fn},
    fmt,
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

/// What is logged: levels, and levels of targets, with commas between them.
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
    let wanted = env::var(FILTER).ok().filter(|wanted| !wanted.is_empty());
    let wanted = wanted.unwrap_or_else(|| default.into());
    let filter: Targets = wanted.parse().with_context(|| format!("understand {FILTER}={wanted:?}"))?;
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => {
            let lines = lines.with_ansi(io::stderr().is_terminal());
            // The journal puts its own time before each line.
            match env::var_os("JOURNAL_STREAM").is_some() {
                true => lines.without_time().boxed(),
                false => lines.boxed(),
            }
        }
    };
    registry().with(lines.with_filter(filter_fn(keeps_secrets))).with(filter).init();
    Ok(())
}

/// Whether a line may be written at all, whatever the filter says: what libraries tell below `info` can hold requests
/// with their tokens, or bodies with guests' names.
fn keeps_secrets(line: &Metadata<'_>) -> bool {
    let ours = ["latchd", "wire"];
    let root = line.target().split("::").next().unwrap_or_default();
    ours.contains(&root) || *line.level() <= tracing::Level::INFO
}
