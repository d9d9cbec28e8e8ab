-- Whether an empty memory that says hello is that of new hardware, and not one that has yet to hear its first welcome: since
-- the bridge's last meeting other keys were paired in its place, or this database was set back.
ALTER TABLE bridge ADD COLUMN memory_may_be_new INTEGER NOT NULL DEFAULT 0;
