-- What the desk did to grants, kept beyond the cloud's acknowledgement: the body of its report, by what was done, and
-- until when it is of use, where that is known.
CREATE TABLE desk_fact(
  n INTEGER PRIMARY KEY,
  grant_id BLOB NOT NULL,
  what INTEGER NOT NULL,
  until INTEGER,
  body BLOB NOT NULL,
  UNIQUE(grant_id, what)
) STRICT;
CREATE INDEX desk_fact_until ON desk_fact(until) WHERE until IS NOT NULL;
-- A grant may have been taken back more than once.
INSERT OR REPLACE INTO desk_fact(grant_id, what, body)
  SELECT job_id, revision, body FROM report WHERE revision IN (3, 4) ORDER BY n;

-- Whether it is known of every job which card it was about: an order is sealed, so SQL alone cannot say.
ALTER TABLE memory ADD COLUMN cards_noted INTEGER NOT NULL DEFAULT 0;
