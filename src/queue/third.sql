-- In which opening of this file its cloud was met last: what a copy that was put back says of that is never true of the
-- present one.
ALTER TABLE memory ADD COLUMN met_in INTEGER NOT NULL DEFAULT 0;
-- The last report before those that were numbered since without meeting it. If the cloud has heard of a later one than
-- this, it was of a memory that is gone, however often this one was opened since. Absent while there are none.
ALTER TABLE memory ADD COLUMN unmet_after INTEGER;
-- Jobs whose deadlines were before this instant may be forgotten.
ALTER TABLE memory ADD COLUMN purged_before INTEGER NOT NULL DEFAULT 0;

-- Removals that are tried again after a pause.
CREATE INDEX job_pause ON job(due_at) WHERE state = 'waiting' AND due_at IS NOT NULL AND retry_at IS NOT NULL;

-- Who moves a job counts it, together with all that its transaction moves. A trigger has SQLite keep a copy of every page
-- that the statement changes.
DROP TRIGGER job_entered;
DROP TRIGGER job_left;
DROP TRIGGER job_came;
