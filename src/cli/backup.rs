//! `latchd backup`, `latchd restore`, and the same of `latchd cloud`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{print, run::CopyCommand};
use crate::{
    agent,
    cloud::{
        self,
        store::{Restored, Unvouched},
    },
    config::{AgentConfig, CloudConfig},
    seams::{Clock, Random},
};

/// What `latchd backup` is told.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to write; it must not be there yet.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// The agent's configuration, which names its folder.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/latchd.toml")]
    config: PathBuf,
}

/// What `latchd restore` is told.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The copy.
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// The seal key, where the configuration's path leads to it only while the service runs.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The agent's configuration, which names its folder.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/latchd.toml")]
    config: PathBuf,
}

pub(super) fn back_up(args: &BackupArgs) -> anyhow::Result<()> {
    let (bytes, key) = agent::back_up(&AgentConfig::load(&args.config)?, &args.to)?;
    Ok(print(&written(&args.to, bytes, &key))?)
}

pub(super) fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let mut config = AgentConfig::load(&args.config)?;
    config.storage.key_file = args.key_file.clone().or(config.storage.key_file);
    let (aside, restored) = agent::restore(&config, &Random::system(), &args.from, Clock::system().now())?;
    let mut text = put_back(&args.from, aside.as_deref());
    text += &match restored.in_doubt {
        0 => "No job was under way in it.\n".into(),
        count => format!(
            "{count} jobs were under way in it and are in doubt now: `latchd jobs list --state unknown`, once the agent \
             runs.\n"
        ),
    };
    text += "Every room's state is uncertain until a card was read.\n";
    Ok(print(&text)?)
}

pub(super) fn cloud(what: &CopyCommand, config: &Path) -> anyhow::Result<()> {
    let mut config = CloudConfig::load(config)?;
    match what {
        CopyCommand::Backup { to } => {
            let (bytes, key) = cloud::back_up(&config, to)?;
            let mut text = written(to, bytes, &key);
            text += &format!(
                "Nor does it hold what else lies in {}: keep api-key, ca.pem, ca.key, bridges-ca.pem and bridges-ca.key too.\n",
                config.storage.folder.display()
            );
            Ok(print(&text)?)
        }
        CopyCommand::Restore { from, key_file } => {
            config.storage.key_file = key_file.clone().or(config.storage.key_file);
            let Restored { aside, unfinished, unvouched, knows_api_keys } =
                cloud::restore(&config, &Random::system(), from, Clock::system().now())?;
            let mut text = put_back(from, aside.as_deref());
            text +=
                &format!("{unfinished} orders are unfinished in it: the bridges are asked how they ended.\n");
            text += &standing(&unvouched);
            if !knows_api_keys {
                text += "API keys that were revoked since the copy was made count again: look at `latchd cloud keys list`, and revoke \
                         them once more.\n";
            }
            Ok(print(&text)?)
        }
    }
}

/// Which bridges come in again by themselves.
fn standing(unvouched: &[Unvouched]) -> String {
    if unvouched.is_empty() {
        return "No bridge comes in by this copy that may have been revoked since: what was revoked stays revoked.\n".into();
    }
    let mut text = format!(
        "{} bridges may have been revoked or given other hardware since, and nothing here can say which. They get no orders \
         until you have vouched for them, one by one, once the cloud runs; cards that are out and the desks go on meanwhile:\n",
        unvouched.len()
    );
    for Unvouched { bridge, name } in unvouched {
        let name = name.as_deref().map(|name| format!("  # {name}")).unwrap_or_default();
        text += &format!("    latchd cloud bridges vouch {bridge}{name}\n");
    }
    text += "Cut off what was revoked instead, with `latchd cloud bridges revoke`. A bridge that was given other hardware since, \
             or has renewed its certificate, is unknown here: do not vouch for it, but pair its site again with \
             `latchd cloud bridges pair --replace`.\n";
    text
}

fn written(to: &Path, bytes: u64, key: &Path) -> String {
    format!(
        "{} holds {bytes} bytes.\nIt does not hold the key that opens it: keep a copy of {} elsewhere.\n",
        to.display(),
        key.display()
    )
}

fn put_back(from: &Path, aside: Option<&Path>) -> String {
    let kept = aside.map(|aside| format!("What was there before is kept as {}.\n", aside.display()));
    format!("{} was put back.\n{}", from.display(), kept.unwrap_or_default())
}
