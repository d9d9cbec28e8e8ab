-- Attempts to read a card. What was seen is sealed: it tells where a guest stays.
CREATE TABLE scan_attempt(
    action_attempt_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    bridge_id TEXT NOT NULL REFERENCES site,
    acs_system_id TEXT NOT NULL REFERENCES acs_system,
    acs_encoder_id TEXT NOT NULL REFERENCES acs_encoder,
    job_id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    error_type TEXT,
    error_message TEXT,
    seen BLOB,
    acs_credential_id TEXT,
    created_at INTEGER NOT NULL,
    -- Ended then if the job was never handed to the bridge; ended at `silent_at` in any case.
    unsent_at INTEGER NOT NULL,
    silent_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;
CREATE INDEX scan_attempt_pending ON scan_attempt(unsent_at) WHERE status = 'pending';
CREATE INDEX scan_attempt_ended ON scan_attempt(ended_at) WHERE ended_at IS NOT NULL;
