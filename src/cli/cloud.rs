//! `latchd cloud`

use crate::config::CloudConfig;

/// Runs it until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: CloudConfig) -> anyhow::Result<()> {
    anyhow::bail!("the cloud of {} is not part of this build", config.workspace.name)
}
