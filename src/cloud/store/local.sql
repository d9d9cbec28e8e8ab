-- Jobs that were made at a site: by a person there, or by the agent's own timers. `card_job_id` is the job the cloud
-- ordered whose place such a job takes in the end; `message` is sealed.
CREATE TABLE local_job(
    job_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    bridge_id TEXT NOT NULL REFERENCES site,
    origin TEXT NOT NULL,
    system TEXT NOT NULL,
    kind TEXT NOT NULL,
    device TEXT,
    created_at INTEGER NOT NULL,
    retries TEXT,
    card_job_id TEXT,
    state TEXT NOT NULL,
    code TEXT,
    message BLOB,
    reported_at INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT;
CREATE INDEX local_job_reported ON local_job(reported_at);
