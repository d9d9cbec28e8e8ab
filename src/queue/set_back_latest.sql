-- The latest that `set_back_at` was by its cloud's clock. That one is lowered where the clock proves to have been ahead; what
-- was forgotten may have been made by it all the same.
ALTER TABLE memory ADD COLUMN set_back_latest INTEGER;
UPDATE memory SET set_back_latest = set_back_at;
