-- Cards that devices know by the numbers of their chips. What such a card is for stands with the codes, as `card` methods with
-- a row of their own there.
ALTER TABLE code_request ADD COLUMN is_closed INTEGER NOT NULL DEFAULT 0;

-- Readings at a desk's reader that say which card a method is. `revision` is that of the last report applied to it; 0 = none
-- yet.
CREATE TABLE ordered_chip(
    job_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    bridge_id TEXT NOT NULL REFERENCES site,
    access_method_id TEXT NOT NULL,
    revision INTEGER NOT NULL DEFAULT 0,
    ordered_at INTEGER NOT NULL
) STRICT;
CREATE INDEX ordered_chip_of_method ON ordered_chip(access_method_id);
CREATE INDEX ordered_chip_by_age ON ordered_chip(ordered_at);
