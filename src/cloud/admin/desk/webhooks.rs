//! Webhooks, as their operator sees them.

use super::{Desk, Fault, refused};
use crate::{
    cloud::{
        admin::{Response, WebhookLine},
        store::{Db, WebhookRow},
    },
    model::WebhookId,
};

impl Desk {
    pub(super) async fn webhooks(&self) -> Result<Response, Fault> {
        let rows = self.db.run(|db| db.every_webhook()).await?;
        let line = |row: WebhookRow| WebhookLine {
            webhook_id: row.id,
            workspace_id: row.workspace,
            origin: row.origin,
            event_types: row.kinds,
            delivered_at: row.delivered_at,
            failing_since: row.failing_since,
            trouble: row.trouble,
            disabled_at: row.disabled_at,
            owed: row.owed,
        };
        Ok(Response::Webhooks { webhooks: rows.into_iter().map(line).collect() })
    }

    pub(super) async fn set_webhook(
        &self,
        webhook: WebhookId,
        enabled: bool,
        by: String,
    ) -> Result<Response, Fault> {
        let now = self.clock.now();
        let set = move |db: &mut Db| match enabled {
            true => db.enable_webhook(now, webhook),
            false => db.disable_webhook(now, webhook),
        };
        if !self.db.run(set).await? {
            return refused("webhook_unknown", format!("there is no webhook {webhook}"));
        }
        tracing::info!(%webhook, enabled, by, "a person has set a webhook");
        self.signals.deliveries_owed();
        self.webhooks().await
    }
}
