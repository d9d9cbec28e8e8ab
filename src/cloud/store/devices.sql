-- Devices, codes in their slots, and keys that are no card.

CREATE TABLE device(
    device_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    acs_system_id TEXT NOT NULL REFERENCES acs_system,
    name TEXT NOT NULL,
    display_name TEXT,
    -- What its site says of it, as it came.
    declared TEXT NOT NULL,
    connected INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    removed_at INTEGER,
    -- When its table is to be read, and the job that reads it.
    read_due INTEGER,
    read_job TEXT,
    UNIQUE(acs_system_id, name)
) STRICT;
CREATE INDEX device_read_due ON device(read_due) WHERE read_due IS NOT NULL;
CREATE INDEX device_read_job ON device(read_job) WHERE read_job IS NOT NULL;

CREATE TABLE space_device(
    workspace_id TEXT NOT NULL,
    space_id TEXT NOT NULL REFERENCES space ON DELETE CASCADE,
    device_id TEXT NOT NULL REFERENCES device,
    PRIMARY KEY(space_id, device_id)
) STRICT;
CREATE INDEX space_of_device ON space_device(device_id);

CREATE TABLE grant_device(
    workspace_id TEXT NOT NULL,
    access_grant_id TEXT NOT NULL REFERENCES access_grant ON DELETE CASCADE,
    place INTEGER NOT NULL,
    device_id TEXT NOT NULL REFERENCES device,
    PRIMARY KEY(access_grant_id, place)
) STRICT;
CREATE INDEX grant_of_device ON grant_device(device_id);
CREATE INDEX grant_of_space ON grant_space(space_id);
CREATE INDEX grant_of_identity ON access_grant(user_identity_id);

-- Of grants with codes. `due_at`: something is to be looked at then of which nobody else will tell.
CREATE TABLE code_grant(
    access_grant_id TEXT PRIMARY KEY REFERENCES access_grant ON DELETE CASCADE,
    workspace_id TEXT NOT NULL,
    deletion_told INTEGER NOT NULL,
    due_at INTEGER
) STRICT;
CREATE INDEX code_grant_due ON code_grant(due_at) WHERE due_at IS NOT NULL;

CREATE TABLE opened_device(
    workspace_id TEXT NOT NULL,
    access_grant_id TEXT NOT NULL REFERENCES access_grant ON DELETE CASCADE,
    device_id TEXT NOT NULL REFERENCES device,
    since INTEGER NOT NULL,
    PRIMARY KEY(access_grant_id, device_id)
) STRICT;

-- A code. `pin` and `wish` are sealed; `updating_*` is the window before an update that is not in every device yet.
CREATE TABLE code_method(
    access_method_id TEXT PRIMARY KEY REFERENCES access_method ON DELETE CASCADE,
    workspace_id TEXT NOT NULL,
    pin BLOB NOT NULL,
    wish BLOB,
    device_ids TEXT NOT NULL,
    asked_at INTEGER NOT NULL,
    is_issued INTEGER NOT NULL,
    issued_at INTEGER,
    is_updating INTEGER NOT NULL,
    updating_starts_at INTEGER,
    updating_ends_at INTEGER,
    deleted_at INTEGER,
    has_ended INTEGER NOT NULL,
    late_since INTEGER,
    failed_since INTEGER
) STRICT;

-- Desired: what should be in a slot, whose key is the method's id; without a PIN it should be empty.
CREATE TABLE desired_slot(
    device_id TEXT NOT NULL REFERENCES device,
    access_method_id TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    pin BLOB,
    mark BLOB,
    starts_at INTEGER,
    ends_at INTEGER,
    PRIMARY KEY(device_id, access_method_id)
) STRICT;
CREATE INDEX desired_slot_of_method ON desired_slot(access_method_id);

-- Observed: what the last word of a bridge proved. `doubt_job`: nobody knows whether this job was done; `before_*` is
-- what was there before it.
CREATE TABLE observed_slot(
    device_id TEXT NOT NULL REFERENCES device,
    access_method_id TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    generation INTEGER,
    mark BLOB,
    opens_until INTEGER,
    since INTEGER,
    doubt_job TEXT,
    before_generation INTEGER,
    before_mark BLOB,
    before_until INTEGER,
    PRIMARY KEY(device_id, access_method_id)
) STRICT;
CREATE INDEX observed_slot_of_method ON observed_slot(access_method_id);

-- What is done about it. `message` is sealed.
CREATE TABLE slot_work(
    device_id TEXT NOT NULL REFERENCES device,
    access_method_id TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    job_id TEXT,
    -- Earlier orders of which no end is known.
    earlier_job_ids TEXT NOT NULL,
    failures INTEGER NOT NULL,
    not_before INTEGER,
    code TEXT,
    message BLOB,
    trouble_since INTEGER,
    PRIMARY KEY(device_id, access_method_id)
) STRICT;
CREATE INDEX slot_work_of_method ON slot_work(access_method_id);

-- What a job was ordered for; without a generation it empties the slot. `revision` as in `ordered_card`.
CREATE TABLE ordered_slot(
    job_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    bridge_id TEXT NOT NULL REFERENCES site,
    device_id TEXT NOT NULL REFERENCES device,
    access_method_id TEXT NOT NULL,
    generation INTEGER,
    mark BLOB,
    opens_until INTEGER,
    ordered_at INTEGER NOT NULL,
    revision INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX ordered_slot_by_time ON ordered_slot(ordered_at);

-- A mobile or a cloud key; `url` is sealed, and absent where there is none to give out.
CREATE TABLE key_method(
    access_method_id TEXT PRIMARY KEY REFERENCES access_method ON DELETE CASCADE,
    workspace_id TEXT NOT NULL,
    is_issued INTEGER NOT NULL,
    issued_at INTEGER,
    url BLOB,
    problem TEXT
) STRICT;

-- A method that is being deleted while its grant stays.
CREATE TABLE method_end(
    access_method_id TEXT PRIMARY KEY REFERENCES access_method ON DELETE CASCADE,
    workspace_id TEXT NOT NULL,
    deleted_at INTEGER NOT NULL
) STRICT;

-- A card whose grant's times or doors changed after it was written.
CREATE TABLE card_update(
    access_method_id TEXT PRIMARY KEY REFERENCES access_method ON DELETE CASCADE,
    workspace_id TEXT NOT NULL,
    starts_at INTEGER NOT NULL,
    ends_at INTEGER,
    since INTEGER NOT NULL
) STRICT;

CREATE TABLE unlock_attempt(
    action_attempt_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    access_method_id TEXT NOT NULL,
    device_id TEXT NOT NULL REFERENCES device,
    job_id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    error_type TEXT,
    error_message TEXT,
    created_at INTEGER NOT NULL,
    unsent_at INTEGER NOT NULL,
    silent_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;
CREATE INDEX unlock_attempt_pending ON unlock_attempt(unsent_at) WHERE status = 'pending';
CREATE INDEX unlock_attempt_ended ON unlock_attempt(ended_at) WHERE ended_at IS NOT NULL;

ALTER TABLE event ADD COLUMN device_id TEXT;
