-- Which things that happened at doors the feed has told, by the ids that their sites gave them; `at` by the device's clock.
CREATE TABLE told_door_event(
    workspace_id TEXT NOT NULL,
    door_event_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY(workspace_id, door_event_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX told_door_event_by_time ON told_door_event(at);
