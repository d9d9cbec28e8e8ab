-- How jobs ended, of whichever kind. Revision 1 is the bridge's word and 2 what settled a doubt; 0 is the cloud's own,
-- for a job that was withdrawn or that its bridge has forgotten. The first word of a revision stands.
CREATE TABLE job_end (
    job_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    workspace_id TEXT NOT NULL,
    bridge_id TEXT NOT NULL REFERENCES bridge (id),
    state TEXT NOT NULL,
    code TEXT,
    decided_at INTEGER NOT NULL,
    taken_at INTEGER NOT NULL,
    PRIMARY KEY (job_id, revision)
) STRICT;
CREATE INDEX job_end_taken ON job_end (taken_at);
