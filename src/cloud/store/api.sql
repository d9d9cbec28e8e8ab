-- What the HTTP API shows. Ids are text, times are milliseconds since 1970 UTC. Every row names its workspace.

CREATE TABLE workspace(
    workspace_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE api_key(
    digest BLOB PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspace,
    created_at INTEGER NOT NULL
) STRICT;

-- Observed: what the sites have and how they are.

CREATE TABLE site(
    bridge_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspace,
    up INTEGER NOT NULL,
    since INTEGER NOT NULL
) STRICT;

CREATE TABLE site_condition(
    workspace_id TEXT NOT NULL,
    bridge_id TEXT NOT NULL REFERENCES site,
    subject TEXT NOT NULL,
    code TEXT NOT NULL,
    severity TEXT NOT NULL,
    message TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT;

CREATE TABLE acs_system(
    acs_system_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    bridge_id TEXT NOT NULL REFERENCES site,
    connected_account_id TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    time_zone TEXT NOT NULL,
    capabilities TEXT NOT NULL,
    checkout_on_last_grant INTEGER NOT NULL,
    connected INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    removed_at INTEGER,
    UNIQUE(workspace_id, bridge_id, name)
) STRICT;

CREATE TABLE acs_entrance(
    acs_entrance_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    acs_system_id TEXT NOT NULL REFERENCES acs_system,
    name TEXT NOT NULL,
    display_name TEXT,
    kind TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    removed_at INTEGER,
    UNIQUE(acs_system_id, name)
) STRICT;

CREATE TABLE acs_encoder(
    acs_encoder_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    acs_system_id TEXT NOT NULL REFERENCES acs_system,
    name TEXT NOT NULL,
    display_name TEXT,
    created_at INTEGER NOT NULL,
    removed_at INTEGER,
    UNIQUE(acs_system_id, name)
) STRICT;

-- A copy of the bridges' door ledgers, from which new hardware starts.
CREATE TABLE door_ledger(
    workspace_id TEXT NOT NULL,
    bridge_id TEXT NOT NULL REFERENCES site,
    system TEXT NOT NULL,
    room TEXT NOT NULL,
    reservation_key TEXT,
    certain INTEGER NOT NULL,
    since INTEGER NOT NULL,
    cards INTEGER NOT NULL,
    PRIMARY KEY(bridge_id, system, room)
) STRICT;

-- Desired: who, where, when, how.

CREATE TABLE user_identity(
    user_identity_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    person BLOB NOT NULL,
    key_index BLOB,
    email_index BLOB,
    phone_index BLOB,
    created_at INTEGER NOT NULL,
    UNIQUE(workspace_id, key_index),
    UNIQUE(workspace_id, email_index),
    UNIQUE(workspace_id, phone_index)
) STRICT;

CREATE TABLE space(
    space_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    name TEXT NOT NULL,
    space_key TEXT,
    customer_key TEXT,
    created_at INTEGER NOT NULL,
    UNIQUE(workspace_id, space_key)
) STRICT;

CREATE TABLE space_entrance(
    workspace_id TEXT NOT NULL,
    space_id TEXT NOT NULL REFERENCES space,
    acs_entrance_id TEXT NOT NULL REFERENCES acs_entrance,
    PRIMARY KEY(space_id, acs_entrance_id)
) STRICT;

CREATE TABLE access_grant(
    access_grant_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    user_identity_id TEXT NOT NULL REFERENCES user_identity,
    access_grant_key TEXT,
    reservation_key TEXT,
    name BLOB,
    starts_at INTEGER NOT NULL,
    ends_at INTEGER,
    created_at INTEGER NOT NULL,
    deleted_at INTEGER,
    UNIQUE(workspace_id, access_grant_key)
) STRICT;
CREATE INDEX access_grant_by_reservation ON access_grant(workspace_id, reservation_key);
CREATE INDEX access_grant_deleted ON access_grant(deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE grant_entrance(
    workspace_id TEXT NOT NULL,
    access_grant_id TEXT NOT NULL REFERENCES access_grant ON DELETE CASCADE,
    place INTEGER NOT NULL,
    acs_entrance_id TEXT NOT NULL REFERENCES acs_entrance,
    PRIMARY KEY(access_grant_id, place)
) STRICT;

CREATE TABLE grant_space(
    workspace_id TEXT NOT NULL,
    access_grant_id TEXT NOT NULL REFERENCES access_grant ON DELETE CASCADE,
    place INTEGER NOT NULL,
    space_id TEXT NOT NULL REFERENCES space,
    PRIMARY KEY(access_grant_id, place)
) STRICT;

CREATE TABLE requested_method(
    workspace_id TEXT NOT NULL,
    access_grant_id TEXT NOT NULL REFERENCES access_grant ON DELETE CASCADE,
    place INTEGER NOT NULL,
    mode TEXT NOT NULL,
    code BLOB,
    created_at INTEGER NOT NULL,
    PRIMARY KEY(access_grant_id, place)
) STRICT;

CREATE TABLE grant_error(
    workspace_id TEXT NOT NULL,
    access_grant_id TEXT NOT NULL REFERENCES access_grant ON DELETE CASCADE,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY(access_grant_id, code)
) STRICT;

CREATE TABLE access_method(
    access_method_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    access_grant_id TEXT NOT NULL REFERENCES access_grant ON DELETE CASCADE,
    place INTEGER NOT NULL,
    acs_system_id TEXT NOT NULL REFERENCES acs_system,
    mode TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX access_method_by_grant ON access_method(access_grant_id);

-- The doors of a reservation, as its first grant named them; kept until its last live grant goes.
CREATE TABLE reservation_entrance(
    workspace_id TEXT NOT NULL,
    reservation_key TEXT NOT NULL,
    acs_entrance_id TEXT NOT NULL REFERENCES acs_entrance,
    PRIMARY KEY(workspace_id, reservation_key, acs_entrance_id)
) STRICT;

-- Observed: what became of a method. No row means that nothing ever left for a device.
CREATE TABLE card_state(
    access_method_id TEXT PRIMARY KEY REFERENCES access_method ON DELETE CASCADE,
    workspace_id TEXT NOT NULL,
    is_issued INTEGER NOT NULL,
    issued_at INTEGER,
    in_doubt INTEGER NOT NULL,
    -- A card left the encoder, or may have: until when it opens (null = until it is taken back).
    may_exist INTEGER NOT NULL,
    opens_until INTEGER
) STRICT;

CREATE TABLE opened_entrance(
    workspace_id TEXT NOT NULL,
    access_grant_id TEXT NOT NULL REFERENCES access_grant ON DELETE CASCADE,
    acs_entrance_id TEXT NOT NULL REFERENCES acs_entrance,
    since INTEGER NOT NULL,
    PRIMARY KEY(access_grant_id, acs_entrance_id)
) STRICT;

-- A record of cards; it outlives its method, because a finished attempt stays readable.
CREATE TABLE acs_credential(
    acs_credential_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    access_method_id TEXT NOT NULL UNIQUE,
    acs_system_id TEXT NOT NULL REFERENCES acs_system,
    user_identity_id TEXT NOT NULL REFERENCES user_identity,
    starts_at INTEGER NOT NULL,
    ends_at INTEGER,
    card_number BLOB,
    proven INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE action_attempt(
    action_attempt_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    access_method_id TEXT NOT NULL,
    acs_encoder_id TEXT NOT NULL REFERENCES acs_encoder,
    job_id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    error_type TEXT,
    error_message TEXT,
    acs_credential_id TEXT REFERENCES acs_credential,
    created_at INTEGER NOT NULL,
    -- Ended then if the job was never handed to the bridge; ended at `silent_at` in any case.
    unsent_at INTEGER NOT NULL,
    silent_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;
CREATE INDEX action_attempt_pending ON action_attempt(access_method_id) WHERE status = 'pending';
CREATE INDEX action_attempt_ended ON action_attempt(ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX action_attempt_card ON action_attempt(acs_credential_id) WHERE acs_credential_id IS NOT NULL;
CREATE INDEX action_attempt_deadline ON action_attempt(unsent_at) WHERE status = 'pending';

-- What a job was ordered for. `revision` is that of the last report applied to it; 0 = none yet.
CREATE TABLE ordered_card(
    job_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    bridge_id TEXT NOT NULL REFERENCES site,
    access_method_id TEXT NOT NULL,
    acs_entrance_ids TEXT NOT NULL,
    starts_at INTEGER NOT NULL,
    ends_at INTEGER,
    revision INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE ordered_checkout(
    job_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    bridge_id TEXT NOT NULL REFERENCES site,
    acs_system_id TEXT NOT NULL REFERENCES acs_system,
    acs_entrance_id TEXT NOT NULL REFERENCES acs_entrance,
    reservation_key TEXT NOT NULL,
    freed INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE event(
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    workspace_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    occurred_at INTEGER NOT NULL,
    access_grant_id TEXT,
    access_method_id TEXT,
    acs_system_id TEXT,
    acs_entrance_id TEXT,
    acs_encoder_id TEXT,
    -- The fields of this type of event; sealed, because a method's events may carry its code.
    fields BLOB NOT NULL
) STRICT;
CREATE INDEX event_by_time ON event(workspace_id, occurred_at);
CREATE INDEX event_by_grant ON event(access_grant_id);
