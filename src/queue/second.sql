-- Jobs of the site's own and jobs with a time of their own, what decides the slots of devices, and lanes that a person
-- has paused.
ALTER TABLE job ADD COLUMN origin TEXT NOT NULL DEFAULT 'cloud';
-- The job whose place it takes.
ALTER TABLE job ADD COLUMN retries BLOB;
-- Not before this instant. Set only while that lies ahead; then the job is as ready as any.
ALTER TABLE job ADD COLUMN due_at INTEGER;
-- Blind indexes: which slot it is about, and in whose reservation's name it works.
ALTER TABLE job ADD COLUMN slot BLOB;
ALTER TABLE job ADD COLUMN reservation BLOB;

-- As before, and with jobs whose time has not come behind all others.
DROP INDEX job_waiting;
CREATE INDEX job_waiting ON job(lane, due_at, retry_at, priority DESC, id) WHERE state = 'waiting';
-- Only for states that few jobs are in. What waits is found by its deadline, and what succeeded is most of the table.
DROP INDEX job_state;
CREATE INDEX job_state ON job(state, id) WHERE state NOT IN ('waiting', 'succeeded');
-- A stay is found by room and reservation.
DROP INDEX stay_begun_by;
CREATE INDEX job_due ON job(due_at) WHERE state = 'waiting' AND due_at IS NOT NULL;
CREATE INDEX job_slot ON job(slot, id) WHERE slot IS NOT NULL AND ended_at IS NULL;
CREATE INDEX job_reservation ON job(reservation, id) WHERE reservation IS NOT NULL AND ended_at IS NULL;
CREATE INDEX job_retries ON job(retries) WHERE retries IS NOT NULL;

CREATE TABLE slot(
  slot BLOB PRIMARY KEY,
  changed_at INTEGER NOT NULL,
  empty INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX slot_empty ON slot(changed_at) WHERE empty;

CREATE TABLE lane_pause(
  lane TEXT PRIMARY KEY,
  since INTEGER NOT NULL,
  by BLOB NOT NULL
) STRICT, WITHOUT ROWID;
