-- What happened at doors and is not in the outbox yet, oldest first; `body` is sealed, `events` is how many.
CREATE TABLE door_event(
  n INTEGER PRIMARY KEY,
  system TEXT NOT NULL,
  device TEXT NOT NULL,
  events INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;

-- Up to where each device's memory was read, in its driver's words, and how many events were lost that the cloud has not
-- been told of.
CREATE TABLE door_read(
  system TEXT NOT NULL,
  device TEXT NOT NULL,
  mark TEXT,
  lost INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(system, device)
) STRICT, WITHOUT ROWID;
