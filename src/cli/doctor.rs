//! `latchd doctor`

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;

use super::{print, print_json, table::wrapped};
use crate::{
    agent::doctor::{self, Finding, Tools, Verdict},
    seams::{Clock, Random, SystemNet},
};

/// What `latchd doctor` is told.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The agent's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/latchd.toml")]
    pub config: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let tools = Tools { net: Arc::new(SystemNet), clock: Clock::system(), random: Random::system() };
    let found = doctor::examine(&args.config, &tools).await;
    match args.json {
        true => print_json(&found)?,
        false => print(&found.iter().map(told).collect::<String>())?,
    }
    let worst = found.iter().map(|finding| finding.verdict).max();
    Ok(ExitCode::from(match worst {
        None | Some(Verdict::Ok) => 0,
        Some(Verdict::Warn) => 1,
        Some(Verdict::Fail) => 2,
    }))
}

fn told(finding: &Finding) -> String {
    let verdict = match finding.verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    let head = format!("{verdict:5} ");
    let mut text = wrapped(&format!("{}: {}", finding.subject, finding.message), head.len());
    text.replace_range(..head.len(), &head);
    if let Some(next) = &finding.next {
        text += &wrapped(&format!("-> {next}"), head.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_has_its_verdict_first_and_its_next_step_below() {
        let finding = |verdict, next: Option<&str>| Finding {
            subject: "pairing".into(),
            verdict,
            message: "/var/lib/latchd/pairing.json may be read by others (mode 0644)".into(),
            next: next.map(Into::into),
        };
        assert_eq!(
            told(&finding(Verdict::Warn, Some("chmod 600 /var/lib/latchd/pairing.json"))),
            "\
warn  pairing: /var/lib/latchd/pairing.json may be read by others (mode 0644)
      -> chmod 600 /var/lib/latchd/pairing.json
"
        );
        assert!(told(&finding(Verdict::Ok, None)).starts_with("ok    pairing: "));
    }
}
