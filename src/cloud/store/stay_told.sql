-- Whether the lock system was ever told an end of the stay in a room, or may have been: what is ordered later takes the place
-- of what it was told before.
ALTER TABLE stay_end ADD COLUMN was_told INTEGER NOT NULL DEFAULT 0;
UPDATE stay_end SET was_told = 1 WHERE state IN ('succeeded', 'unknown');
