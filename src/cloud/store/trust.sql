-- Who may speak. Bearer tokens are void: a bridge shows a certificate, and signs what it says.
UPDATE bridge SET token_hash = NULL;
ALTER TABLE bridge ADD COLUMN name TEXT;
ALTER TABLE bridge ADD COLUMN revoked_at INTEGER;
-- The newest of the cloud's keys that the bridge is known to know.
ALTER TABLE bridge ADD COLUMN cloud_key TEXT;

-- The keys of bridges, pair by pair as their certificates were issued: `tls_key` is the SHA-256 of the public key in the
-- certificate, `signing_key` the public half of what signs on its connections.
CREATE TABLE bridge_key(
    tls_key BLOB PRIMARY KEY,
    signing_key BLOB NOT NULL UNIQUE,
    workspace_id TEXT NOT NULL,
    bridge_id TEXT NOT NULL REFERENCES bridge (id),
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    revoked_at INTEGER
) STRICT;
CREATE INDEX bridge_key_of_bridge ON bridge_key(bridge_id, issued_at);

-- The cloud's own signing keys; `secret` is sealed.
CREATE TABLE cloud_key(
    key_id TEXT PRIMARY KEY,
    secret BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    retired_at INTEGER
) STRICT;

-- Invitations of bridges. `code` is a blind index of the code; `bridge_id` names the bridge whose place the new one
-- takes, and once it was admitted, the bridge. What asked with the code first is bound to it: nobody else can ask.
CREATE TABLE pairing(
    pairing_id TEXT PRIMARY KEY,
    code BLOB NOT NULL UNIQUE,
    workspace_id TEXT NOT NULL,
    bridge_id TEXT REFERENCES bridge (id),
    name TEXT,
    ledger_is_current INTEGER NOT NULL,
    invited_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- The only keys that may ask, where a person said which.
    wanted TEXT,
    -- Who asked: the digest and the fingerprint of the keys, from where, with which program.
    keys TEXT,
    fingerprint TEXT,
    from_address TEXT,
    agent TEXT,
    asked_at INTEGER,
    -- 1 = a person (or the invitation itself) says yes, 0 = no; by whom.
    accepted INTEGER,
    answered_by TEXT,
    -- What the bridge was told; sealed.
    answer BLOB,
    admitted_at INTEGER
) STRICT;
CREATE INDEX pairing_expiry ON pairing(expires_at);
