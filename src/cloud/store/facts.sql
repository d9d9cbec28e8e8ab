-- What a site says is a fact, and the last word about it counts.

-- When the site said last how a room is: what it takes back is older than what it had said before.
ALTER TABLE door_ledger ADD COLUMN told_at INTEGER NOT NULL DEFAULT 0;
UPDATE door_ledger SET told_at = since;

-- Cards of desks that nothing speaks of any more.
DELETE FROM ordered_card WHERE NOT EXISTS (SELECT 1 FROM action_attempt a WHERE a.job_id = ordered_card.job_id)
  AND NOT EXISTS (SELECT 1 FROM local_job j WHERE j.job_id = ordered_card.job_id);
