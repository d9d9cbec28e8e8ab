-- Bridges and their streams.
CREATE TABLE bridge(bridge_id TEXT PRIMARY KEY, workspace_id TEXT NOT NULL, token BLOB) STRICT;
CREATE TABLE bridge_order(
    job_id TEXT PRIMARY KEY,
    bridge_id TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    body BLOB NOT NULL,
    handed INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0
) STRICT;
