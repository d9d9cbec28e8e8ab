-- Whether the lock system was ever told an end of the stay in a room, or may have been: what is ordered later takes the place
-- of what it was told before.
ALTER TABLE stay_end ADD COLUMN was_told INTEGER NOT NULL DEFAULT 0;
-- An end that is under way may have taken the place of one that was told: once too often is harmless, once too few is not.
UPDATE stay_end SET was_told = 1 WHERE state IS NULL OR state IN ('succeeded', 'unknown');
