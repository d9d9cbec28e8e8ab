-- Webhooks, and what is still to be delivered to each.

CREATE TABLE webhook(
    webhook_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspace,
    -- Sealed: addresses often carry a token.
    url BLOB NOT NULL,
    secret BLOB NOT NULL,
    -- A JSON list; ["*"] is every type.
    event_types TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    delivered_at INTEGER,
    -- Rounds in a row in which nothing was taken for a reason that any event would have met, since when tries have failed,
    -- and the last reason.
    failures INTEGER NOT NULL DEFAULT 0,
    failing_since INTEGER,
    trouble TEXT,
    -- Nothing is tried before, where the last reason would meet every event.
    retry_at INTEGER,
    disabled_at INTEGER
) STRICT;
CREATE INDEX webhook_of_workspace ON webhook(workspace_id);

-- One row for each event that a webhook is owed, made with the event and gone when it was taken.
CREATE TABLE webhook_delivery(
    webhook_id TEXT NOT NULL REFERENCES webhook ON DELETE CASCADE,
    -- What the event is about; the events of one resource are delivered one after the other.
    resource TEXT NOT NULL,
    event_n INTEGER NOT NULL REFERENCES event(n),
    tries INTEGER NOT NULL DEFAULT 0,
    -- NULL while an older event of the same resource is owed.
    due_at INTEGER,
    PRIMARY KEY(webhook_id, resource, event_n)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_delivery_first ON webhook_delivery(webhook_id, event_n) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_delivery_due ON webhook_delivery(webhook_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_delivery_of_event ON webhook_delivery(event_n);
