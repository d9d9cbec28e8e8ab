-- What is known of people who go, and for how long it is kept.

-- What a system said may name anything: it is sealed from now on. What lies in `error_message` is of before.
ALTER TABLE action_attempt ADD COLUMN error_sealed BLOB;
ALTER TABLE scan_attempt ADD COLUMN error_sealed BLOB;
ALTER TABLE unlock_attempt ADD COLUMN error_sealed BLOB;

-- Whose the grants and methods were that are gone, for as long as events and attempts speak of them. `told_at` is when
-- the last of those was told; `is_bare` says that the codes are out of them.
CREATE TABLE past_grant(
    access_grant_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    user_identity_id TEXT NOT NULL,
    told_at INTEGER NOT NULL,
    is_bare INTEGER NOT NULL
) STRICT;
CREATE INDEX past_grant_of_identity ON past_grant(user_identity_id);
CREATE INDEX past_grant_by_time ON past_grant(told_at);
CREATE INDEX past_grant_with_codes ON past_grant(told_at) WHERE is_bare = 0;

CREATE TABLE past_method(
    access_method_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    access_grant_id TEXT NOT NULL
) STRICT;
CREATE INDEX past_method_of_grant ON past_method(access_grant_id);

CREATE TRIGGER access_grant_gone BEFORE DELETE ON access_grant BEGIN
    INSERT OR REPLACE INTO past_grant VALUES(
        old.access_grant_id, old.workspace_id, old.user_identity_id,
        (SELECT coalesce(max(occurred_at), old.created_at) FROM event WHERE access_grant_id = old.access_grant_id), 0);
END;
CREATE TRIGGER access_method_gone BEFORE DELETE ON access_method BEGIN
    INSERT OR REPLACE INTO past_method VALUES(old.access_method_id, old.workspace_id, old.access_grant_id);
END;

-- What is found by whose it is, or by when it was over.
CREATE INDEX access_grant_by_end ON access_grant(ends_at) WHERE ends_at IS NOT NULL;
CREATE INDEX action_attempt_of_method ON action_attempt(access_method_id);
CREATE INDEX unlock_attempt_of_method ON unlock_attempt(access_method_id);
CREATE INDEX scan_attempt_of_card ON scan_attempt(acs_credential_id) WHERE acs_credential_id IS NOT NULL;
CREATE INDEX ordered_slot_of_method ON ordered_slot(access_method_id);
