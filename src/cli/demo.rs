//! `latchd demo`

use std::path::PathBuf;

use clap::Args;

/// See the whole road on this machine: cloud, agent and a pretend property.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Exit when the story is told, non-zero if any step did not hold.
    #[arg(long)]
    pub once: bool,
    /// Keep everything in this folder.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When a step did not hold.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    anyhow::bail!("{args:?} is not part of this build")
}
