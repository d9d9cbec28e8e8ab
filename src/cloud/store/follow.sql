-- Grants that follow their spaces and their sites, methods that nobody wants again, and webhooks that go.

-- Grants that have still to follow a change of a space or of a site. `doors`: where they led before the first of the
-- changes. Without `due_at` their cards wait until one can be what the grant says; then these doors are what they were
-- written for.
CREATE TABLE grant_due(
    access_grant_id TEXT PRIMARY KEY REFERENCES access_grant ON DELETE CASCADE,
    workspace_id TEXT NOT NULL,
    due_at INTEGER,
    doors TEXT NOT NULL
) STRICT;
CREATE INDEX grant_due_by_time ON grant_due(due_at) WHERE due_at IS NOT NULL;

-- Requests for cards and keys whose method in a system was taken back by name; without a system, in all of them.
CREATE TABLE declined_method(
    access_grant_id TEXT NOT NULL REFERENCES access_grant ON DELETE CASCADE,
    workspace_id TEXT NOT NULL,
    place INTEGER NOT NULL,
    acs_system_id TEXT
) STRICT;
CREATE INDEX declined_method_of_grant ON declined_method(access_grant_id);

-- What has no method now, and no error says why, was taken back.
INSERT INTO declined_method
SELECT r.access_grant_id, r.workspace_id, r.place, NULL
FROM requested_method r JOIN access_grant g USING(access_grant_id)
WHERE r.mode IN ('card', 'cloud_key') AND g.deleted_at IS NULL
  AND NOT EXISTS (SELECT 1 FROM grant_error e WHERE e.access_grant_id = r.access_grant_id)
  AND NOT EXISTS (SELECT 1 FROM access_method m
                  WHERE m.access_grant_id = r.access_grant_id AND m.place = r.place
                    AND NOT EXISTS (SELECT 1 FROM method_end o WHERE o.access_method_id = m.access_method_id));

-- A deleted webhook stays, without anything of it, until what it was owed has gone.
ALTER TABLE webhook ADD COLUMN deleted_at INTEGER;
