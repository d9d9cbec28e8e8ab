-- What happened to one card.
ALTER TABLE event ADD COLUMN acs_credential_id TEXT;
CREATE INDEX event_by_credential ON event(acs_credential_id, occurred_at) WHERE acs_credential_id IS NOT NULL;
