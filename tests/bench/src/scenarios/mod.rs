//! One file a scenario, each with its floor.

pub mod api;
pub mod burst;
pub mod cost;
pub mod drivers;
pub mod idle;
pub mod peers;
pub mod queue;
pub mod radio;
pub mod reopen;
pub mod start;
pub mod syncs;
pub mod trust;
pub mod wire;

use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Runtime;

/// Nothing of a scenario takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

fn runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Waits for something that must come.
async fn soon<T>(what: &str, coming: impl Future<Output = Option<T>>) -> anyhow::Result<T> {
    let came = tokio::time::timeout(PATIENCE, coming).await;
    came.ok().flatten().with_context(|| format!("waited in vain for {what}"))
}
