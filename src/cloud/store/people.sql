-- People and spaces that go, and several API keys. An erased person's row stays, without anything of the person in it,
-- while a grant or a card speaks of its id.
ALTER TABLE user_identity ADD COLUMN customer_key TEXT;
ALTER TABLE user_identity ADD COLUMN erased_at INTEGER;
CREATE INDEX user_identity_erased ON user_identity(erased_at) WHERE erased_at IS NOT NULL;
CREATE INDEX acs_credential_by_identity ON acs_credential(user_identity_id);

-- Ids and keys of people who turned out to be somebody else: they lead there. `identity_key` is sealed.
CREATE TABLE merged_identity(
    merged_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    user_identity_id TEXT NOT NULL REFERENCES user_identity,
    identity_key BLOB,
    key_index BLOB,
    merged_at INTEGER NOT NULL,
    UNIQUE(workspace_id, key_index)
) STRICT;
CREATE INDEX merged_into ON merged_identity(user_identity_id);

-- `customer_data` is sealed. A deleted space stays while a grant that is over names it.
ALTER TABLE space ADD COLUMN parent_space_id TEXT REFERENCES space;
ALTER TABLE space ADD COLUMN customer_data BLOB;
ALTER TABLE space ADD COLUMN deleted_at INTEGER;
ALTER TABLE event ADD COLUMN space_id TEXT;
CREATE INDEX space_by_parent ON space(parent_space_id) WHERE parent_space_id IS NOT NULL;

ALTER TABLE api_key ADD COLUMN name TEXT;
ALTER TABLE api_key ADD COLUMN revoked_at INTEGER;
