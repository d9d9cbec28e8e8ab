-- The ids of what is kept of doors: what a device tells once more is known by them, and nothing has to be opened for it.
CREATE TABLE door_event_id(
  system TEXT NOT NULL,
  device TEXT NOT NULL,
  event BLOB NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY(system, device, event)
) STRICT, WITHOUT ROWID;
CREATE INDEX door_event_id_of ON door_event_id(n);
CREATE TRIGGER door_event_gone AFTER DELETE ON door_event BEGIN
  DELETE FROM door_event_id WHERE n = old.n;
END;

-- Whether the ids of what was kept by the version before have been noted.
ALTER TABLE memory ADD COLUMN door_ids_noted INTEGER NOT NULL DEFAULT 0;
