//! `latchd cloud bridges …` and `latchd cloud signing-keys …`

use std::{
    fmt::Write,
    io::{self, BufRead, IsTerminal, stdin},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::{Span, SpanRelativeTo, Timestamp};
use serde_json::json;

use super::{Person, print, print_json, table::columns};
use crate::{
    cloud::admin::{
        self, BridgeLine, BridgeState, Invited, PairingLine, PairingState, Request, Response, SigningKeyLine,
    },
    config::CloudConfig,
    model::BridgeId,
};

/// What to do with bridges.
#[derive(Debug, Subcommand)]
pub enum BridgesCommand {
    /// Invite a bridge: get a code, wait until its site asks, say yes.
    ///
    /// Prints the code and the line to type at the site. When the site asks, compare the fingerprint shown here with the
    /// one that `latchd pair` shows there. The code counts once, for a short time, and for the keys that asked first.
    Pair(PairArgs),
    /// Say yes to a site that asks, from another terminal or a script.
    Accept(AnswerArgs),
    /// Say no to a site that asks.
    Decline(AnswerArgs),
    /// The bridges, and who was invited.
    List {
        /// Only of this workspace, by name or id [default: all].
        #[arg(long, value_name = "WORKSPACE")]
        workspace: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Cut a bridge off; it cannot come back until its site is paired again.
    ///
    /// Its connection ends at once. Orders that it never heard of are withdrawn. Those it may know of stay open: how they
    /// ended is told when the site is paired again with `pair --replace`, and until then they are in doubt.
    Revoke {
        /// Which, as `latchd cloud bridges list` names it.
        #[arg(value_name = "BRIDGE_ID")]
        bridge: BridgeId,
        /// Why, for the log.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
        #[command(flatten)]
        person: Person,
    },
    /// Say that a bridge was not revoked, where `latchd cloud restore` could not tell.
    ///
    /// Until then it is turned away, and gets no orders. It comes in again by itself within a minute.
    Vouch {
        /// Which, as `latchd cloud restore` and `latchd cloud bridges list` name it.
        #[arg(value_name = "BRIDGE_ID")]
        bridge: BridgeId,
        #[command(flatten)]
        person: Person,
    },
    /// Give a bridge another name.
    Rename {
        /// Which.
        #[arg(value_name = "BRIDGE_ID")]
        bridge: BridgeId,
        /// What people will call it.
        name: String,
        #[command(flatten)]
        person: Person,
    },
}

/// Who is invited.
#[derive(Debug, Args)]
pub struct PairArgs {
    /// What people will call the bridge.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The bridge whose place it takes: new hardware, or a site that is paired again.
    ///
    /// The new one keeps its name and its orders, and starts from the cloud's copy of the door ledger. Whatever had its
    /// keys before is cut off at that moment.
    #[arg(long, value_name = "BRIDGE_ID")]
    replace: Option<BridgeId>,
    /// The workspace it is for, by name or id [default: the replaced bridge's, or the first one].
    #[arg(long, value_name = "WORKSPACE")]
    workspace: Option<String>,
    /// Take in whoever asks first with the code, without a question.
    #[arg(long, conflicts_with = "fingerprint")]
    accept: bool,
    /// Take in the keys with this fingerprint, without a question, and no others.
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<String>,
    /// For how long the code counts, from a minute to a day.
    #[arg(long, value_name = "SPAN", default_value = "15m", value_parser = span)]
    valid: Duration,
    /// The replaced bridge did nothing that the cloud does not know.
    ///
    /// Without this, the new one takes no room's state for certain until a card was read.
    #[arg(long, requires = "replace")]
    ledger_is_current: bool,
    /// As JSON, one line for the invitation and one for what came of it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    person: Person,
}

/// Which site is answered.
#[derive(Debug, Args)]
pub struct AnswerArgs {
    /// The invitation, as `latchd cloud bridges list` names it.
    pairing: String,
    /// The fingerprint that `latchd pair` shows at the site.
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: String,
    #[command(flatten)]
    person: Person,
}

/// What to do with the cloud's keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// The keys, newest first, and how many bridges know which.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make another key; the older ones go on for bridges that know only them.
    ///
    /// Bridges that are connected are told to come again within half a minute, each at its own time, and learn it then.
    Add {
        #[command(flatten)]
        person: Person,
    },
    /// Let a key speak for the cloud no more.
    Retire {
        /// Which.
        key_id: String,
        /// Even where bridges know no newer one: their sites have to be paired again.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        person: Person,
    },
}

/// The cloud that is asked.
pub(super) struct Cloud {
    socket: PathBuf,
}

impl Cloud {
    pub(super) fn of(config: &Path) -> anyhow::Result<Self> {
        Ok(Self { socket: CloudConfig::load(config)?.storage.folder.join(admin::SOCKET) })
    }

    pub(super) async fn ask(&self, request: &Request) -> anyhow::Result<Response> {
        Ok(admin::ask(&self.socket, request).await?)
    }
}

pub(super) fn other_answer<T>() -> anyhow::Result<T> {
    bail!("the cloud answered another question")
}

pub(super) async fn run(what: &BridgesCommand, config: &Path) -> anyhow::Result<ExitCode> {
    let cloud = Cloud::of(config)?;
    match what {
        BridgesCommand::Pair(args) => return pair(&cloud, args).await,
        BridgesCommand::Accept(args) => answer(&cloud, args, true).await?,
        BridgesCommand::Decline(args) => answer(&cloud, args, false).await?,
        BridgesCommand::List { workspace, json } => {
            let request = Request::Bridges { workspace: workspace.clone() };
            let Response::Bridges { bridges, pairings } = cloud.ask(&request).await? else {
                return other_answer();
            };
            match json {
                true => print_json(&json!({"bridges": bridges, "pairings": pairings}))?,
                false => print(&listed(&bridges, &pairings))?,
            }
        }
        BridgesCommand::Revoke { bridge, why, person } => {
            let request = Request::Revoke { bridge_id: *bridge, why: why.clone(), by: person.name()? };
            let Response::Revoked { withdrawn, open } = cloud.ask(&request).await? else {
                return other_answer();
            };
            print(&format!(
                "The bridge is cut off.\n{withdrawn} orders that it never heard of were withdrawn.\n\
                 {open} orders may have been carried out: nobody will know until the site is paired again.\n"
            ))?;
        }
        BridgesCommand::Vouch { bridge, person } => {
            cloud.ask(&Request::Vouch { bridge_id: *bridge, by: person.name()? }).await?;
        }
        BridgesCommand::Rename { bridge, name, person } => {
            let request = Request::Rename { bridge_id: *bridge, name: name.clone(), by: person.name()? };
            cloud.ask(&request).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn answer(cloud: &Cloud, args: &AnswerArgs, accept: bool) -> anyhow::Result<()> {
    let request = Request::Answer {
        pairing: args.pairing.clone(),
        fingerprint: args.fingerprint.clone(),
        accept,
        by: args.person.name()?,
    };
    cloud.ask(&request).await?;
    Ok(())
}

async fn pair(cloud: &Cloud, args: &PairArgs) -> anyhow::Result<ExitCode> {
    let by = args.person.name()?;
    let request = Request::Invite {
        name: args.name.clone(),
        replace: args.replace,
        accept: args.accept,
        fingerprint: args.fingerprint.clone(),
        valid_seconds: u32::try_from(args.valid.as_secs()).unwrap_or(u32::MAX),
        ledger_is_current: args.ledger_is_current,
        workspace: args.workspace.clone(),
        by: by.clone(),
    };
    let Response::Invited(invited) = cloud.ask(&request).await? else { return other_answer() };
    let line = format!(
        "latchd pair {} --code {} --fingerprint {}",
        invited.url, invited.code, invited.cloud_fingerprint
    );
    match args.json {
        true => {
            let mut value = serde_json::to_value(&*invited).context("write JSON")?;
            value["command"] = line.into();
            print(&format!("{value}\n"))?;
        }
        false => print(&invitation(&invited, &line))?,
    }
    let mut state = PairingState::Open;
    loop {
        let request = Request::Pairing { pairing: invited.pairing.clone(), unless: Some(state) };
        let Response::Pairing(line) = cloud.ask(&request).await? else { return other_answer() };
        if line.state == state {
            continue;
        }
        state = line.state;
        match state {
            PairingState::Open | PairingState::Accepted => {}
            PairingState::Asks => ask_the_person(cloud, &line, args.json, &by).await?,
            PairingState::Paired | PairingState::Declined | PairingState::Ended => {
                return ended(&line, args.json);
            }
        }
    }
}

fn invitation(invited: &Invited, line: &str) -> String {
    format!(
        "Code:               {}\nCounts until:       {}\nCloud's address:    {}\nCloud's fingerprint: {}\n\n\
         Type at the site:\n\n    {line}\n\nWaiting for the site to ask; ctrl-c leaves the code as it is.\n",
        invited.code,
        moment(Some(invited.expires_at)),
        invited.url,
        invited.cloud_fingerprint
    )
}

async fn ask_the_person(cloud: &Cloud, line: &PairingLine, json: bool, by: &str) -> anyhow::Result<()> {
    let fingerprint = line.fingerprint.clone().unwrap_or_default();
    let pairing = &line.pairing;
    if json || !stdin().is_terminal() {
        let said = format!(
            "A site asks, with the fingerprint {fingerprint}. If `latchd pair` shows the same there:\n\n    \
             latchd cloud bridges accept {pairing} --fingerprint {fingerprint}\n\n\
             If not: `decline` in place of `accept`.\n"
        );
        match json {
            true => print(&format!("{}\n", serde_json::to_string(line).context("write JSON")?))?,
            false => print(&said)?,
        }
        return Ok(());
    }
    let (from, agent) = (line.from.as_deref().unwrap_or("?"), line.agent.as_deref().unwrap_or("?"));
    print(&format!(
        "\n{agent} at {from} asks, with the fingerprint\n\n    {fingerprint}\n\nDoes `latchd pair` show the same? [yes/no] "
    ))?;
    let typed = tokio::task::spawn_blocking(|| {
        let mut typed = String::new();
        stdin().lock().read_line(&mut typed).map(|_| typed)
    });
    let typed: io::Result<String> = typed.await.context("read the answer")?;
    let accept = matches!(typed.context("read the answer")?.trim(), "yes" | "y" | "Yes" | "YES");
    let request = Request::Answer { pairing: pairing.clone(), fingerprint, accept, by: by.into() };
    cloud.ask(&request).await?;
    Ok(())
}

fn ended(line: &PairingLine, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        print(&format!("{}\n", serde_json::to_string(line).context("write JSON")?))?;
    }
    match (line.state, line.bridge_id) {
        (PairingState::Paired, Some(bridge)) => {
            if !json {
                print(&format!("Paired: bridge {bridge}.\n"))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        (PairingState::Declined, _) => bail!("the site was told no; its code does not count any more"),
        _ => bail!("the code has ended, and no bridge was taken in"),
    }
}

pub(super) async fn keys(what: &KeysCommand, config: &Path) -> anyhow::Result<()> {
    let cloud = Cloud::of(config)?;
    let (request, as_json) = match what {
        KeysCommand::List { json } => (Request::SigningKeys, *json),
        KeysCommand::Add { person } => (Request::AddSigningKey { by: person.name()? }, false),
        KeysCommand::Retire { key_id, force, person } => {
            let (key_id, force) = (key_id.clone(), *force);
            cloud.ask(&Request::RetireSigningKey { key_id, force, by: person.name()? }).await?;
            (Request::SigningKeys, false)
        }
    };
    let Response::SigningKeys { keys } = cloud.ask(&request).await? else { return other_answer() };
    match as_json {
        true => print_json(&keys),
        false => Ok(print(&keys_listed(&keys))?),
    }
}

fn listed(bridges: &[BridgeLine], pairings: &[PairingLine]) -> String {
    let mut rows = Vec::new();
    for bridge in bridges {
        let state = match bridge.state {
            BridgeState::NotPaired => "not paired",
            BridgeState::Connected => "connected",
            BridgeState::Away => "AWAY",
            BridgeState::CertificateEnded => "CERTIFICATE ENDED",
            BridgeState::Revoked => "REVOKED",
            BridgeState::Unvouched => "UNVOUCHED",
        };
        rows.push(vec![
            bridge.bridge_id.to_string(),
            bridge.workspace.clone(),
            bridge.name.clone().unwrap_or_else(|| "-".into()),
            state.into(),
            moment(bridge.seen_at),
            moment(bridge.certificate_ends),
        ]);
    }
    let mut text = columns(&["BRIDGE", "WORKSPACE", "NAME", "STATE", "SEEN", "CERTIFICATE UNTIL"], &rows);
    let open: Vec<_> = pairings
        .iter()
        .filter(|line| matches!(line.state, PairingState::Open | PairingState::Asks | PairingState::Accepted))
        .collect();
    if !open.is_empty() {
        let mut rows = Vec::new();
        for line in open {
            let state = match line.state {
                PairingState::Asks => "ASKS",
                PairingState::Accepted => "accepted",
                _ => "open",
            };
            rows.push(vec![
                line.pairing.clone(),
                line.workspace.clone(),
                state.into(),
                moment(Some(line.expires_at)),
                line.fingerprint.clone().unwrap_or_else(|| "-".into()),
            ]);
        }
        let _ = write!(
            text,
            "\n{}",
            columns(&["INVITATION", "WORKSPACE", "STATE", "UNTIL", "FINGERPRINT"], &rows)
        );
    }
    text
}

fn keys_listed(keys: &[SigningKeyLine]) -> String {
    let mut rows = Vec::new();
    let mut newest = true;
    for key in keys {
        let state = match key.retired_at {
            Some(at) => format!("retired {}", moment(Some(at))),
            None if std::mem::take(&mut newest) => "newest".into(),
            None => "older".into(),
        };
        rows.push(vec![key.key_id.clone(), moment(Some(key.created_at)), state, key.bridges.to_string()]);
    }
    columns(&["KEY", "SINCE", "STATE", "BRIDGES"], &rows)
}

pub(super) fn moment(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".into(), |at| format!("{at:.0}"))
}

fn span(text: &str) -> Result<Duration, String> {
    let length =
        text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours())).ok();
    let length = length.and_then(|length| Duration::try_from(length).ok());
    length.ok_or_else(|| "write it like \"15m\" or \"2h\"".into())
}
