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
-- By the later of both instants, whatever the clock did between them. Cards of the last hour are among those, and at work.
DROP INDEX card_sent;
DROP INDEX job_over;
CREATE INDEX job_over ON job(max(ended_at, coalesce(sent_at, 0)), kind, sent_at) WHERE ended_at IS NOT NULL;
-- A stay is found by room and reservation.
DROP INDEX stay_begun_by;
CREATE INDEX job_due ON job(due_at) WHERE state = 'waiting' AND due_at IS NOT NULL;
CREATE INDEX job_slot ON job(slot, id) WHERE slot IS NOT NULL AND ended_at IS NULL;
-- What is at work is found by its state.
CREATE INDEX job_reservation ON job(reservation, id) WHERE reservation IS NOT NULL AND state = 'waiting';
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

-- What is at work is few and counted when somebody asks, so that no job pays for it on its way.
DELETE FROM tally WHERE state = 'sent';
DROP TRIGGER job_entered;
DROP TRIGGER job_moved;
CREATE TRIGGER job_entered AFTER INSERT ON job WHEN NEW.state <> 'sent' BEGIN
  INSERT INTO tally VALUES (NEW.state, NEW.code, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER job_left AFTER UPDATE OF state, code ON job
WHEN OLD.state <> 'sent' AND (OLD.state <> NEW.state OR OLD.code <> NEW.code) BEGIN
  UPDATE tally SET jobs = jobs - 1 WHERE state = OLD.state AND code = OLD.code;
END;
CREATE TRIGGER job_came AFTER UPDATE OF state, code ON job
WHEN NEW.state <> 'sent' AND (OLD.state <> NEW.state OR OLD.code <> NEW.code) BEGIN
  INSERT INTO tally VALUES (NEW.state, NEW.code, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;
