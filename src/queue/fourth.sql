-- What the cloud wants of this site, so that a desk can go on without it: how far that was told, and in which epoch all of
-- it was.
CREATE TABLE desired(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  epoch INTEGER NOT NULL,
  n INTEGER NOT NULL,
  is_complete INTEGER NOT NULL
) STRICT;
INSERT INTO desired VALUES (1, 0, 0, 0);

-- A grant as it was last told, sealed, and in which epoch that was; `key` and `reservation` are blind indexes.
CREATE TABLE desired_grant(
  grant_id BLOB PRIMARY KEY,
  epoch INTEGER NOT NULL,
  key BLOB,
  reservation BLOB,
  -- The site made it itself, and the cloud has not told it since.
  made_here INTEGER NOT NULL DEFAULT 0,
  body BLOB NOT NULL
) STRICT;
CREATE INDEX desired_grant_epoch ON desired_grant(epoch);
CREATE INDEX desired_grant_key ON desired_grant(key) WHERE key IS NOT NULL;
CREATE INDEX desired_grant_reservation ON desired_grant(reservation) WHERE reservation IS NOT NULL;

-- Whose a card is.
CREATE TABLE desired_card(
  method_id BLOB PRIMARY KEY,
  grant_id BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX desired_card_of_grant ON desired_card(grant_id);

-- Which jobs were about a card.
CREATE TABLE card_job(
  method_id BLOB NOT NULL,
  job_id BLOB NOT NULL,
  PRIMARY KEY(method_id, job_id)
) STRICT, WITHOUT ROWID;
