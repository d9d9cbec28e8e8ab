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
    let filter = filter_of(&env::var(FILTER).unwrap_or_default(), default)?;
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

/// What is logged where the environment asks for `wanted`. The parser takes an empty part for one that wishes for errors
/// only, so a comma too many must not reach it.
fn filter_of(wanted: &str, default: &str) -> anyhow::Result<Targets> {
    let parts: Vec<_> = wanted.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return default.parse().with_context(|| format!("understand the filter {default:?}"));
    }
    parts.join(",").parse().with_context(|| format!("understand {FILTER}={wanted:?}"))
}

/// Whether a line may be written at all, whatever the filter says: what libraries tell below `info` can hold requests
/// with their tokens, or bodies with guests' names.
fn keeps_secrets(line: &Metadata<'_>) -> bool {
    let ours = ["latchd", "wire"];
    let root = line.target().split("::").next().unwrap_or_default();
    ours.contains(&root) || *line.level() <= tracing::Level::INFO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_too_many_silences_nothing() {
        let filter = |wanted: &str| filter_of(wanted, "warn").unwrap();
        for (wanted, meant) in [
            ("info,", "info"),
            (",info", "info"),
            (" info , latchd=debug,, ", "info,latchd=debug"),
            ("", "warn"),
            (" , ,", "warn"),
        ] {
            assert_eq!(filter(wanted), meant.parse::<Targets>().unwrap(), "{wanted:?}");
        }
        assert!(filter_of("latchd=much,", "warn").is_err());
    }
}
