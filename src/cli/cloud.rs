//! `latchd cloud`.

use std::io::{IsTerminal, Write, stdout};

use anyhow::Context;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cloud,
    config::CloudConfig,
    seams::{Clock, Random, SystemNet},
};

/// Runs the cloud until SIGTERM or SIGINT.
///
/// Its first line on standard output says in JSON where it listens and where its secrets are; the secrets themselves
/// are shown on the first start only, and only to a person at a terminal.
///
/// # Errors
/// When the configuration cannot be followed.
pub async fn run(config: CloudConfig) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut running = cloud::start(&config, &SystemNet, Clock::system(), Random::system())
        .await
        .context("start the cloud")?;
    let fresh = running.fresh.take();
    announce(&running, fresh.as_ref()).context("say where it listens")?;
    tracing::info!(api = running.api, bridges = running.bridges, "the cloud is up");
    let damage = tokio::select! {
        biased;
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        what = running.damaged() => Some(what),
    };
    tracing::info!("the cloud stops");
    running.stop().await;
    match damage {
        Some(what) => anyhow::bail!(
            "the database is damaged ({what}): the next start saves what can be read of it into a fresh one"
        ),
        None => Ok(()),
    }
}

fn announce(running: &cloud::Running, fresh: Option<&cloud::keys::Fresh>) -> std::io::Result<()> {
    let mut out = stdout().lock();
    let line = json!({
        "api": running.api,
        "bridges": running.bridges,
        "ca_file": running.ca_file,
        "api_key_file": running.api_key_file,
        "admin_socket": running.admin_socket,
    });
    writeln!(out, "{line}")?;
    if let Some(fresh) = fresh.filter(|_| out.is_terminal()) {
        writeln!(out, "API key:      {}", fresh.api_key.expose())?;
    }
    out.flush()
}
