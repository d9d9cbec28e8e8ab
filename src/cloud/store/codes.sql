-- Codes that are asked for, whether or not there is one, each at its place among what its grant asks for; what is taken
-- back by name is asked for no more. `declined`: devices whose code of it was taken back. `lack_*`: what cannot be had.
CREATE TABLE code_request(
    access_grant_id TEXT NOT NULL REFERENCES access_grant ON DELETE CASCADE,
    workspace_id TEXT NOT NULL,
    place INTEGER NOT NULL,
    declined TEXT NOT NULL,
    lack_since INTEGER,
    lack_devices TEXT,
    PRIMARY KEY(access_grant_id, place)
) STRICT;

-- What has no method now, and no error of codes says why, was taken back.
INSERT INTO code_request
SELECT access_grant_id, r.workspace_id, r.place, '[]', NULL, NULL
FROM requested_method r JOIN access_grant g USING(access_grant_id)
WHERE r.mode = 'code' AND g.deleted_at IS NULL
  AND (EXISTS (SELECT 1 FROM access_method m JOIN code_method k USING(access_method_id)
               WHERE m.access_grant_id = r.access_grant_id AND m.place = r.place AND k.deleted_at IS NULL)
       OR EXISTS (SELECT 1 FROM grant_error e
                  WHERE e.access_grant_id = r.access_grant_id
                    AND (e.message = 'No PIN is left that every targeted device would take'
                         OR e.message || ',' LIKE 'No targeted door supports: code,%'
                         OR e.message || ',' LIKE 'No targeted door supports: %, code,%')));

-- That there is no code is said of the request from now on.
DELETE FROM grant_error
WHERE message IN ('No targeted door supports: code', 'No PIN is left that every targeted device would take');
UPDATE grant_error SET message = replace(message, 'supports: code, ', 'supports: ')
WHERE message LIKE 'No targeted door supports: code, %';
UPDATE grant_error SET message = replace(message, ', code', '') WHERE message LIKE 'No targeted door supports: %, code%';

INSERT INTO code_grant
SELECT DISTINCT access_grant_id, workspace_id, 0, 0 FROM code_request r
WHERE NOT EXISTS (SELECT 1 FROM access_method m JOIN code_method k USING(access_method_id)
                  WHERE m.access_grant_id = r.access_grant_id AND m.place = r.place AND k.deleted_at IS NULL)
ON CONFLICT(access_grant_id) DO UPDATE SET due_at = 0;

-- Devices that came to a code when it was handed out already, and have not had it yet.
ALTER TABLE code_method ADD COLUMN joining TEXT NOT NULL DEFAULT '[]';

-- Every job whose end is in doubt, oldest first. What was observed is from now on what was there before all of them.
ALTER TABLE observed_slot ADD COLUMN doubt_job_ids TEXT NOT NULL DEFAULT '[]';
UPDATE observed_slot SET doubt_job_ids = json_array(doubt_job), generation = before_generation, mark = before_mark,
  opens_until = before_until
WHERE doubt_job IS NOT NULL;
ALTER TABLE observed_slot DROP COLUMN doubt_job;
ALTER TABLE observed_slot DROP COLUMN before_generation;
ALTER TABLE observed_slot DROP COLUMN before_mark;
ALTER TABLE observed_slot DROP COLUMN before_until;

-- A slot that is empty, should be, and waits for nothing has no rows.
DELETE FROM desired_slot WHERE pin IS NULL
  AND NOT EXISTS (SELECT 1 FROM observed_slot o
                  WHERE o.device_id = desired_slot.device_id AND o.access_method_id = desired_slot.access_method_id
                    AND (o.generation IS NOT NULL OR o.doubt_job_ids <> '[]'))
  AND NOT EXISTS (SELECT 1 FROM slot_work w
                  WHERE w.device_id = desired_slot.device_id AND w.access_method_id = desired_slot.access_method_id
                    AND (w.job_id IS NOT NULL OR w.earlier_job_ids <> '[]'));
DELETE FROM observed_slot
WHERE NOT EXISTS (SELECT 1 FROM desired_slot d
                  WHERE d.device_id = observed_slot.device_id AND d.access_method_id = observed_slot.access_method_id);
DELETE FROM slot_work
WHERE NOT EXISTS (SELECT 1 FROM desired_slot d
                  WHERE d.device_id = slot_work.device_id AND d.access_method_id = slot_work.access_method_id);

-- Slots of methods that nobody knows any more. `due_at` as in `code_grant`.
CREATE TABLE stray_slot(
    device_id TEXT NOT NULL REFERENCES device,
    access_method_id TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    due_at INTEGER,
    PRIMARY KEY(device_id, access_method_id)
) STRICT;
CREATE INDEX stray_slot_due ON stray_slot(due_at) WHERE due_at IS NOT NULL;
INSERT INTO stray_slot
SELECT device_id, access_method_id, workspace_id, 0 FROM desired_slot d
WHERE NOT EXISTS (SELECT 1 FROM access_method m WHERE m.access_method_id = d.access_method_id);

-- What a method's cards were written for is asked whenever one of them may open a door that it should not.
CREATE INDEX ordered_card_of_method ON ordered_card(access_method_id);
