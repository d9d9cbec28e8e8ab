//! `latchd pair`: a person takes a site into a cloud.

use std::{
    convert::Infallible,
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
    sync::Arc,
};

use anyhow::bail;
use clap::Args;

use super::print;
use crate::{
    agent::{
        admin::{self, AdminError, Request},
        enrol::{Enrolment, Paired, Tools, Wanted},
    },
    config::AgentConfig,
    model::Private,
    seams::{Clock, Random, SystemNet},
};

/// What `latchd pair` is told.
#[derive(Debug, Args)]
pub struct PairArgs {
    /// Where the cloud takes bridges in: https://HOST or https://HOST:PORT.
    #[arg(value_name = "URL")]
    url: String,
    /// The pairing code that the cloud gave for this site.
    #[arg(long, value_name = "CODE", value_parser = private)]
    code: Private,
    /// The cloud's fingerprint as the cloud shows it, in place of a person's answer at the terminal.
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<String>,
    /// The certificate authority that vouches for the cloud, PEM, where neither this system nor the cloud itself names
    /// it.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Pair a site anew that is paired already. What it was stays until the cloud has answered.
    #[arg(long)]
    replace: bool,
    /// The seal key, where the configuration's path leads to it only while the service runs.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The agent's configuration, which names its folder.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/latchd.toml")]
    config: PathBuf,
}

fn private(text: &str) -> Result<Private, Infallible> {
    Ok(Private::new(text))
}

pub(super) async fn run(args: &PairArgs) -> anyhow::Result<()> {
    let mut config = AgentConfig::load(&args.config)?;
    config.storage.key_file = args.key_file.clone().or(config.storage.key_file);
    let socket = config.admin.socket.clone();
    let wanted = Wanted {
        url: args.url.clone(),
        code: args.code.clone(),
        ca_file: args.ca_file.clone(),
        replace: args.replace,
    };
    let tools = Tools { net: Arc::new(SystemNet), clock: Clock::system(), random: Random::system() };
    let enrolment = Enrolment::begin(config, wanted, tools).await?;
    print(&format!(
        "The cloud at {}\n  shows the fingerprint  {}\nThis site\n  has the fingerprint    {}\n\n",
        enrolment.url(),
        enrolment.cloud_fingerprint(),
        enrolment.own_fingerprint()
    ))?;
    agree(args, &enrolment)?;
    print("Asking the cloud; a person there may have to compare this site's fingerprint first.\n")?;
    let mut is_told = false;
    let paired = enrolment.ask(|waiting| {
        if !std::mem::replace(&mut is_told, true) {
            let minutes = waiting.expires_in.div_ceil(60);
            // Whoever does not read along waits all the same.
            let _ = print(&format!("Waiting for a person at the cloud; at most {minutes} min.\n"));
        }
    });
    let paired = paired.await?;
    let is_running = !matches!(admin::ask(&socket, &Request::Status).await, Err(AdminError::NoAgent { .. }));
    Ok(print(&told(&paired, is_running))?)
}

/// Nothing is told to a cloud that nobody has compared.
fn agree(args: &PairArgs, enrolment: &Enrolment) -> anyhow::Result<()> {
    match &args.fingerprint {
        Some(fingerprint) if enrolment.is_cloud(fingerprint) => return Ok(()),
        Some(_) => bail!(
            "the cloud at {} has another fingerprint than --fingerprint says: it is another cloud, or somebody is in \
             between; nothing was sent",
            enrolment.url()
        ),
        None => {}
    }
    if !io::stdin().is_terminal() {
        bail!(
            "nobody is here to compare: look whether the cloud shows this fingerprint, and say so with --fingerprint {}; \
             nothing was sent",
            enrolment.cloud_fingerprint()
        );
    }
    print("Does whoever runs the cloud see the same fingerprint of it? [y/N] ")?;
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        true => Ok(()),
        false => bail!("not paired; nothing was sent"),
    }
}

fn told(paired: &Paired, is_running: bool) -> String {
    let Paired { bridge_id, workspace, expires_at, file, rooms, overridden } = paired;
    let mut text = format!(
        "Paired: this site is bridge {bridge_id} of {workspace}.\n\
         Its certificate counts until {expires_at} and is renewed by itself; all of it is in {}.\n",
        file.display()
    );
    if *rooms > 0 {
        text += &format!(
            "What the cloud knows of {rooms} rooms came along: the agent takes over those that it knows nothing of.\n"
        );
    }
    if let Some(url) = overridden {
        text +=
            &format!("The configuration names another address: `cloud.url` is {url}, and that is dialled.\n");
    }
    text += match is_running {
        true => "The running agent takes it over with `systemctl reload latchd`.\n",
        false => "Start the agent now: `systemctl restart latchd`.\n",
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BridgeId;

    #[test]
    fn whoever_has_paired_is_told_what_comes_next() {
        let mut paired = Paired {
            bridge_id: BridgeId(uuid::Uuid::nil()),
            workspace: "Home".into(),
            expires_at: "2027-02-20T12:00:00Z".parse().unwrap(),
            file: "/var/lib/latchd/pairing.json".into(),
            rooms: 0,
            overridden: None,
        };
        let plain = told(&paired, false);
        assert!(plain.contains("of Home.") && plain.contains("systemctl restart"), "{plain}");
        assert!(!plain.contains("rooms") && !plain.contains("cloud.url"), "{plain}");
        (paired.rooms, paired.overridden) = (12, Some("wss://other.example".into()));
        let more = told(&paired, true);
        for wanted in ["12 rooms", "wss://other.example", "systemctl reload"] {
            assert!(more.contains(wanted), "{wanted}: {more}");
        }
    }
}
