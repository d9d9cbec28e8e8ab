//! The agent: the rooms put together.

pub mod admin;
pub mod notify;

use crate::config::AgentConfig;

/// Runs the agent until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: AgentConfig) -> anyhow::Result<()> {
    anyhow::bail!("the agent for {} is not part of this build", config.site.name)
}
