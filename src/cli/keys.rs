//! `latchd cloud keys …` and `latchd cloud workspaces …`

use std::{
    fs,
    io::{IsTerminal, stdout},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Subcommand;

use super::{
    Person,
    bridges::{Cloud, moment, other_answer},
    print, print_json,
    table::columns,
};
use crate::{
    cloud::{
        admin::{ApiKeyLine, Request, Response, WorkspaceLine},
        keys,
    },
    seal::write_private,
    seams::Random,
};

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum ApiKeysCommand {
    /// Make another API key.
    ///
    /// Its value is shown once: on a terminal, or in a file of mode 0600. The cloud keeps only a digest, so nobody can
    /// show it again.
    Create {
        /// What it is for.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// For which workspace, by name or id [default: the first one].
        #[arg(long, value_name = "WORKSPACE")]
        workspace: Option<String>,
        /// The file to write it to; it must not be there yet. Without it, the key is shown on the terminal.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        #[command(flatten)]
        person: Person,
    },
    /// The API keys, oldest first; never their values.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let an API key count no more; what uses it is refused from then on.
    Revoke {
        /// Which, as `latchd cloud keys list` names it.
        #[arg(value_name = "KEY_ID")]
        key_id: String,
        #[command(flatten)]
        person: Person,
    },
}

/// What to do with workspaces.
#[derive(Debug, Subcommand)]
pub enum WorkspacesCommand {
    /// Make another workspace; it begins without an API key.
    Create {
        /// What people will call it.
        name: String,
        #[command(flatten)]
        person: Person,
    },
    /// The workspaces, oldest first.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn api_keys(what: &ApiKeysCommand, config: &Path) -> anyhow::Result<()> {
    let cloud = Cloud::of(config)?;
    let (request, as_json) = match what {
        ApiKeysCommand::Create { name, workspace, to, person } => {
            return create(&cloud, name.clone(), workspace.clone(), to.as_deref(), person).await;
        }
        ApiKeysCommand::List { json } => (Request::ApiKeys, *json),
        ApiKeysCommand::Revoke { key_id, person } => {
            (Request::RevokeApiKey { key_id: key_id.clone(), by: person.name()? }, false)
        }
    };
    let Response::ApiKeys { keys } = cloud.ask(&request).await? else { return other_answer() };
    match as_json {
        true => print_json(&keys),
        false => Ok(print(&keys_listed(&keys))?),
    }
}

/// The value never leaves this process but for where the person reads it: the cloud is told its digest.
async fn create(
    cloud: &Cloud,
    name: Option<String>,
    workspace: Option<String>,
    to: Option<&Path>,
    person: &Person,
) -> anyhow::Result<()> {
    if to.is_none() && !stdout().is_terminal() {
        bail!("this is no terminal, and an API key is shown nowhere else: name a file with --to");
    }
    let key = keys::new_api_key(&Random::system());
    // The file first: a key that counts but that nobody has could never be used.
    if let Some(to) = to {
        write_private(to, format!("{}\n", key.expose()).as_bytes())
            .with_context(|| format!("write {}", to.display()))?;
    }
    let digest: String = keys::digest(key.expose()).iter().map(|byte| format!("{byte:02x}")).collect();
    let shown = digest[..12].to_owned();
    let asked = match person.name() {
        Ok(by) => cloud.ask(&Request::AddApiKey { digest, workspace, name, by }).await,
        Err(nobody) => Err(nobody),
    };
    if let Err(error) = asked {
        if let Some(to) = to {
            let _ = fs::remove_file(to);
        }
        return Err(error);
    }
    let told = match to {
        Some(to) => format!("API key {shown} is in {}.\n", to.display()),
        None => format!("API key {shown}, shown this once:\n\n    {}\n\n", key.expose()),
    };
    Ok(print(&told)?)
}

pub(super) async fn workspaces(what: &WorkspacesCommand, config: &Path) -> anyhow::Result<()> {
    let cloud = Cloud::of(config)?;
    let (request, as_json) = match what {
        WorkspacesCommand::Create { name, person } => {
            (Request::AddWorkspace { name: name.clone(), by: person.name()? }, false)
        }
        WorkspacesCommand::List { json } => (Request::Workspaces, *json),
    };
    let Response::Workspaces { workspaces } = cloud.ask(&request).await? else { return other_answer() };
    match as_json {
        true => print_json(&workspaces),
        false => Ok(print(&workspaces_listed(&workspaces))?),
    }
}

fn keys_listed(keys: &[ApiKeyLine]) -> String {
    let row = |key: &ApiKeyLine| {
        vec![
            key.key_id.clone(),
            key.workspace.clone(),
            key.name.clone().unwrap_or_else(|| "-".into()),
            moment(Some(key.created_at)),
            key.revoked_at.map_or_else(|| "counts".into(), |at| format!("REVOKED {}", moment(Some(at)))),
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    columns(&["KEY", "WORKSPACE", "NAME", "SINCE", "STATE"], &rows)
}

fn workspaces_listed(workspaces: &[WorkspaceLine]) -> String {
    let row = |line: &WorkspaceLine| {
        vec![line.workspace_id.to_string(), line.name.clone(), moment(Some(line.created_at))]
    };
    let rows: Vec<_> = workspaces.iter().map(row).collect();
    columns(&["WORKSPACE", "NAME", "SINCE"], &rows)
}
