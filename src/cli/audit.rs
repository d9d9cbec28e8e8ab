//! `latchd audit`

use clap::Args;

use super::{AgentAddress, other_answer, print, print_json, table::columns};
use crate::agent::admin::{AuditReport, Request, Response};

/// Which lines.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    agent: AgentAddress,
    /// Only what is older than this number, as a list before ended.
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &AuditArgs) -> anyhow::Result<()> {
    match args.agent.ask(&Request::Audit { before: args.before, limit: args.limit }).await? {
        Response::Audit { entries, .. } if args.json => print_json(&entries),
        Response::Audit { entries, more } => Ok(print(&listed(&entries, more))?),
        _ => other_answer(),
    }
}

fn listed(entries: &[AuditReport], more: bool) -> String {
    let Some(last) = entries.last() else {
        return "Nothing.\n".into();
    };
    let row = |entry: &AuditReport| {
        let job = entry.job_id.map_or_else(String::new, |job| job.to_string());
        vec![entry.number.to_string(), entry.at.to_string(), entry.what.clone(), job, entry.detail.clone()]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    let mut text = columns(&["Number", "When", "What", "Job", "Detail"], &rows);
    if more {
        text.push_str(&format!("There is more: --before {}\n", last.number));
    }
    text
}
