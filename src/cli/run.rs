//! `latchd run` and `latchd cloud`: what they are told.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    bridges::{BridgesCommand, KeysCommand},
    keys::{ApiKeysCommand, WorkspacesCommand},
    webhooks::WebhooksCommand,
};

/// What `latchd run` is told.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The agent's configuration; see config/latchd.example.toml.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/latchd.toml")]
    pub config: PathBuf,
}

/// What `latchd cloud` is told.
#[derive(Debug, Args)]
pub struct CloudArgs {
    /// The cloud's configuration; see config/cloud.example.toml.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/cloud.toml", global = true)]
    pub config: PathBuf,
    /// Something else than to run it.
    #[command(subcommand)]
    pub what: Option<CloudCommand>,
}

/// What can be done with the cloud beside running it.
#[derive(Debug, Subcommand)]
pub enum CloudCommand {
    #[command(flatten)]
    Copies(CopyCommand),
    /// Invite bridges, list them, revoke them; the cloud must run.
    ///
    /// A bridge is the latchd at one property. It comes in with a code that `pair` gives, and from then on shows a
    /// certificate and signs what it says.
    Bridges {
        /// What to do.
        #[command(subcommand)]
        what: BridgesCommand,
    },
    /// Make API keys, list them, revoke them; the cloud must run.
    ///
    /// An API key is what your software shows to the HTTP API. It belongs to one workspace and sees nothing of others.
    Keys {
        /// What to do.
        #[command(subcommand)]
        what: ApiKeysCommand,
    },
    /// Make workspaces, and list them; the cloud must run.
    ///
    /// A workspace holds doors, people and grants that no API key of another workspace ever sees.
    Workspaces {
        /// What to do.
        #[command(subcommand)]
        what: WorkspacesCommand,
    },
    /// Whom events are delivered to, and what they are owed; the cloud must run.
    ///
    /// Clients make webhooks over the HTTP API. One that takes nothing for some 28 hours is disabled until somebody enables
    /// it again; what happens meanwhile is kept for it as long as the feed of events.
    Webhooks {
        /// What to do.
        #[command(subcommand)]
        what: WebhooksCommand,
    },
    /// Look at the keys that speak for the cloud, and change them; the cloud must run.
    ///
    /// Each order and acknowledgement is signed with one of them. To change it: `add` a key, wait until every bridge has
    /// been welcomed with it, `retire` the old one.
    SigningKeys {
        /// What to do.
        #[command(subcommand)]
        what: KeysCommand,
    },
}

/// Copies of the cloud's database.
#[derive(Debug, Subcommand)]
pub enum CopyCommand {
    /// Copy the cloud's database to a file, while it works or not.
    ///
    /// The copy is of one moment, whole, and readable by its owner alone. It does not hold the seal key, without which
    /// nobody can use it, nor what lies beside the database: keep seal.key, api-key, ca.pem, ca.key, bridges-ca.pem
    /// and bridges-ca.key elsewhere too, and the configuration with them.
    Backup {
        /// The file to write; it must not be there yet.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Put a copy back in the place of the cloud's database; the cloud must not run.
    ///
    /// The copy is judged before anything is touched, and the present database is kept under another name. Bridges are
    /// asked again how unfinished orders ended; what was ordered after the copy is not known any more. Which bridges may
    /// come in is taken from the present database; where it cannot say, each waits until you vouch for it.
    Restore {
        /// The copy.
        #[arg(value_name = "FILE")]
        from: PathBuf,
        /// The seal key, where it is not where the configuration says.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
}
