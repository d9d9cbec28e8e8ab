//! `latchd cloud webhooks …`

use std::path::Path;

use clap::Subcommand;

use super::{
    Person,
    bridges::{Cloud, moment, other_answer},
    print, print_json,
    table::columns,
};
use crate::{
    cloud::admin::{Request, Response, WebhookLine},
    model::WebhookId,
};

/// What to do with webhooks.
#[derive(Debug, Subcommand)]
pub enum WebhooksCommand {
    /// Whom events are delivered to, oldest first; never the secret part of an address.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let deliveries go on, at once and from the oldest event that is owed.
    Enable {
        /// Which, as `latchd cloud webhooks list` names it.
        #[arg(value_name = "WEBHOOK_ID")]
        webhook_id: WebhookId,
        #[command(flatten)]
        person: Person,
    },
    /// Let nothing be delivered until somebody enables it again. What happens meanwhile is kept for it as long as the feed
    /// of events.
    Disable {
        /// Which, as `latchd cloud webhooks list` names it.
        #[arg(value_name = "WEBHOOK_ID")]
        webhook_id: WebhookId,
        #[command(flatten)]
        person: Person,
    },
}

pub(super) async fn run(what: &WebhooksCommand, config: &Path) -> anyhow::Result<()> {
    let cloud = Cloud::of(config)?;
    let set = |webhook_id: &WebhookId, enabled, person: &Person| {
        anyhow::Ok(Request::SetWebhook { webhook_id: *webhook_id, enabled, by: person.name()? })
    };
    let (request, as_json) = match what {
        WebhooksCommand::List { json } => (Request::Webhooks, *json),
        WebhooksCommand::Enable { webhook_id, person } => (set(webhook_id, true, person)?, false),
        WebhooksCommand::Disable { webhook_id, person } => (set(webhook_id, false, person)?, false),
    };
    let Response::Webhooks { webhooks } = cloud.ask(&request).await? else { return other_answer() };
    match as_json {
        true => print_json(&webhooks),
        false => Ok(print(&listed(&webhooks))?),
    }
}

fn listed(webhooks: &[WebhookLine]) -> String {
    let row = |line: &WebhookLine| {
        let state = match (line.disabled_at, line.failing_since) {
            (Some(at), _) => format!("DISABLED {}", moment(Some(at))),
            (None, Some(since)) => format!("FAILING since {}", moment(Some(since))),
            (None, None) => "delivers".into(),
        };
        vec![
            line.webhook_id.to_string(),
            line.origin.clone(),
            line.event_types.join(" "),
            match line.owed {
                WebhookLine::MOST_COUNTED.. => format!("{}+", WebhookLine::MOST_COUNTED),
                owed => owed.to_string(),
            },
            moment(line.delivered_at),
            match &line.trouble {
                Some(trouble) => format!("{state}: {trouble}"),
                None => state,
            },
        ]
    };
    let rows: Vec<_> = webhooks.iter().map(row).collect();
    columns(&["WEBHOOK", "TO", "EVENTS", "OWED", "LAST TAKEN", "STATE"], &rows)
}
