-- Stays as their lock systems know them.

-- Whether the site wants the next card of a stay to begin the stay anew after one of its cards was deleted.
ALTER TABLE acs_system ADD COLUMN override_after_deleted_card INTEGER NOT NULL DEFAULT 0;
-- Whether a card was ordered to do so.
ALTER TABLE ordered_card ADD COLUMN begin_again INTEGER NOT NULL DEFAULT 0;

-- Cards that a later card of their stay has thrown out: once that one is used at a room, they open it no more.
CREATE TABLE overridden_card(
    access_method_id TEXT PRIMARY KEY REFERENCES access_method ON DELETE CASCADE,
    workspace_id TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT;

-- The end of a stay that its lock system was told last, by room; `state` as the job ended, null while it has not.
CREATE TABLE stay_end(
    workspace_id TEXT NOT NULL,
    reservation_key TEXT NOT NULL,
    acs_entrance_id TEXT NOT NULL REFERENCES acs_entrance,
    bridge_id TEXT NOT NULL REFERENCES site,
    job_id TEXT NOT NULL UNIQUE,
    ends_at INTEGER NOT NULL,
    ordered_at INTEGER NOT NULL,
    revision INTEGER NOT NULL DEFAULT 0,
    state TEXT,
    code TEXT,
    PRIMARY KEY(workspace_id, reservation_key, acs_entrance_id)
) STRICT;
CREATE INDEX stay_end_over ON stay_end(ends_at);

CREATE INDEX door_ledger_of_stay ON door_ledger(workspace_id, reservation_key) WHERE reservation_key IS NOT NULL;
