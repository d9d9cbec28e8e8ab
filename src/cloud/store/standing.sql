-- The ends printed on the cards of a room's stay, as a JSON list of times.
ALTER TABLE door_ledger ADD COLUMN printed_ends TEXT NOT NULL DEFAULT '[]';
-- Since when nobody can say whether the bridge was revoked: the database was put back without the one that knew. Until a
-- person vouches for it, its keys do not count.
ALTER TABLE bridge ADD COLUMN unvouched_at INTEGER;
