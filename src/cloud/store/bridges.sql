
-- Bridges and their streams.
CREATE TABLE bridge (
    id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    seen_at INTEGER,
    token_hash BLOB UNIQUE,
    -- The stream `orders`, of which the cloud is the sender.
    orders_epoch INTEGER NOT NULL DEFAULT 1,
    orders_last INTEGER NOT NULL DEFAULT 0,
    orders_acknowledged INTEGER NOT NULL DEFAULT 0,
    -- The stream `reports`, of which it is the receiver.
    reports_epoch INTEGER NOT NULL DEFAULT 0,
    reports_n INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX bridge_of_workspace ON bridge (workspace_id, created_at);

-- Orders in the order of their making. `position` is the place in the bridge's current epoch, given when an order is
-- handed out; `handed` stays once it was, in whichever epoch; `over_at` is when the job's end became known.
CREATE TABLE bridge_order (
    id INTEGER PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    bridge_id TEXT NOT NULL REFERENCES bridge (id),
    job_id TEXT NOT NULL,
    what TEXT NOT NULL CHECK (what IN ('job', 'cancel')),
    body BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    position INTEGER,
    handed INTEGER NOT NULL DEFAULT 0,
    over_at INTEGER,
    UNIQUE (job_id, what)
) STRICT;
CREATE INDEX bridge_order_waiting ON bridge_order (bridge_id, id) WHERE position IS NULL AND over_at IS NULL;
CREATE UNIQUE INDEX bridge_order_position ON bridge_order (bridge_id, position) WHERE position IS NOT NULL;
CREATE INDEX bridge_order_over ON bridge_order (over_at) WHERE over_at IS NOT NULL;
