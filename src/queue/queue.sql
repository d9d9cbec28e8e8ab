CREATE TABLE memory(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  orders_epoch INTEGER NOT NULL,
  orders_n INTEGER NOT NULL,
  reports_epoch INTEGER NOT NULL,
  reports_n INTEGER NOT NULL,
  reports_acknowledged INTEGER NOT NULL
) STRICT;
INSERT INTO memory VALUES (1, 0, 0, 1, 0, 0);

CREATE TABLE job(
  id INTEGER PRIMARY KEY,
  job_id BLOB NOT NULL UNIQUE,
  system TEXT,
  kind TEXT,
  lane TEXT,
  state TEXT NOT NULL,
  code TEXT NOT NULL DEFAULT '',
  priority INTEGER NOT NULL DEFAULT 0,
  attempt INTEGER NOT NULL DEFAULT 0,
  received_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  retry_at INTEGER,
  sent_at INTEGER,
  ended_at INTEGER,
  treatment TEXT,
  cancel_wanted INTEGER NOT NULL DEFAULT 0,
  body BLOB,
  outcome BLOB,
  resolution BLOB
) STRICT;
-- The claim reads the first entry of its lane. Jobs that may not be sent yet stand behind those that may, so that no
-- number of them is ever walked over.
CREATE INDEX job_waiting ON job(lane, retry_at, priority DESC, id) WHERE state = 'waiting';
CREATE INDEX job_expiry ON job(expires_at) WHERE state = 'waiting';
CREATE INDEX job_state ON job(state, id);
CREATE INDEX job_over ON job(ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX card_sent ON job(sent_at) WHERE kind = 'card.encode' AND sent_at IS NOT NULL;

-- Jobs by state and code. Purged jobs stay counted, so that ends are totals since the file was made.
CREATE TABLE tally(
  state TEXT NOT NULL,
  code TEXT NOT NULL,
  jobs INTEGER NOT NULL,
  PRIMARY KEY(state, code)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER job_entered AFTER INSERT ON job BEGIN
  INSERT INTO tally VALUES (NEW.state, NEW.code, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER job_moved AFTER UPDATE OF state, code ON job
WHEN OLD.state <> NEW.state OR OLD.code <> NEW.code BEGIN
  UPDATE tally SET jobs = jobs - 1 WHERE state = OLD.state AND code = OLD.code;
  INSERT INTO tally VALUES (NEW.state, NEW.code, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TABLE cancelled_ahead(
  job_id BLOB PRIMARY KEY,
  at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE report(
  n INTEGER PRIMARY KEY,
  job_id BLOB NOT NULL,
  revision INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;

CREATE TABLE room(
  system TEXT NOT NULL,
  room TEXT NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY(system, room)
) STRICT, WITHOUT ROWID;
-- Which reservations began a stay in a room since it was last free, and by which job.
CREATE TABLE stay(
  system TEXT NOT NULL,
  room TEXT NOT NULL,
  reservation BLOB NOT NULL,
  job_id BLOB NOT NULL,
  PRIMARY KEY(system, room, reservation)
) STRICT, WITHOUT ROWID;
CREATE INDEX stay_begun_by ON stay(job_id);

CREATE TABLE audit(
  id INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  what TEXT NOT NULL,
  job_id BLOB,
  detail BLOB NOT NULL
) STRICT;
CREATE INDEX audit_at ON audit(at);
