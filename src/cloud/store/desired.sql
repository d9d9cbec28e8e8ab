-- What is desired of each bridge's site, of which it is told. A row stands for the picture of a grant as it is now; the
-- picture itself is made when it is sent. `epoch` and `n` are where it was handed out last; a row of an earlier epoch than
-- its bridge's, or of (0, 0), is still to be handed out. `gone`: the site has nothing to do with the grant any more; such
-- a row goes when that was acknowledged.
ALTER TABLE bridge ADD COLUMN desired_epoch INTEGER NOT NULL DEFAULT 1;
ALTER TABLE bridge ADD COLUMN desired_last INTEGER NOT NULL DEFAULT 0;
ALTER TABLE bridge ADD COLUMN desired_acknowledged INTEGER NOT NULL DEFAULT 0;
CREATE TABLE desired(
    bridge_id TEXT NOT NULL,
    access_grant_id TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    n INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    PRIMARY KEY(bridge_id, access_grant_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX desired_by_place ON desired(bridge_id, epoch, n);
CREATE INDEX desired_of_grant ON desired(access_grant_id);

-- Grants whose picture may have changed, marked along with the change, whoever makes it. Not by `OR IGNORE`: what the
-- statement says that fires a trigger would take its place.
CREATE TABLE desired_change(
    access_grant_id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
INSERT INTO desired_change SELECT access_grant_id FROM access_grant WHERE deleted_at IS NULL;

CREATE TRIGGER desired_grant_made AFTER INSERT ON access_grant BEGIN
    INSERT INTO desired_change VALUES(new.access_grant_id) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_grant_changed
AFTER UPDATE OF user_identity_id, access_grant_key, reservation_key, starts_at, ends_at, deleted_at ON access_grant BEGIN
    INSERT INTO desired_change VALUES(new.access_grant_id) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_grant_gone AFTER DELETE ON access_grant BEGIN
    INSERT INTO desired_change VALUES(old.access_grant_id) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_method_made AFTER INSERT ON access_method WHEN new.mode = 'card' BEGIN
    INSERT INTO desired_change VALUES(new.access_grant_id) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_method_gone AFTER DELETE ON access_method WHEN old.mode = 'card' BEGIN
    INSERT INTO desired_change VALUES(old.access_grant_id) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_method_going AFTER INSERT ON method_end BEGIN
    INSERT INTO desired_change
    SELECT access_grant_id FROM access_method WHERE access_method_id = new.access_method_id
    ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_card_seen AFTER INSERT ON card_state BEGIN
    INSERT INTO desired_change
    SELECT access_grant_id FROM access_method WHERE access_method_id = new.access_method_id
    ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_card_moved AFTER UPDATE OF is_issued, in_doubt ON card_state
WHEN old.is_issued <> new.is_issued OR old.in_doubt <> new.in_doubt BEGIN
    INSERT INTO desired_change
    SELECT access_grant_id FROM access_method WHERE access_method_id = new.access_method_id
    ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_attempt_made AFTER INSERT ON action_attempt BEGIN
    INSERT INTO desired_change
    SELECT access_grant_id FROM access_method WHERE access_method_id = new.access_method_id
    ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_attempt_moved AFTER UPDATE OF status ON action_attempt WHEN old.status <> new.status BEGIN
    INSERT INTO desired_change
    SELECT access_grant_id FROM access_method WHERE access_method_id = new.access_method_id
    ON CONFLICT DO NOTHING;
END;

-- Where it leads.
CREATE TRIGGER desired_door_added AFTER INSERT ON grant_entrance BEGIN
    INSERT INTO desired_change VALUES(new.access_grant_id) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_door_taken AFTER DELETE ON grant_entrance BEGIN
    INSERT INTO desired_change VALUES(old.access_grant_id) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_space_added AFTER INSERT ON grant_space BEGIN
    INSERT INTO desired_change VALUES(new.access_grant_id) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_space_taken AFTER DELETE ON grant_space BEGIN
    INSERT INTO desired_change VALUES(old.access_grant_id) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_space_grew AFTER INSERT ON space_entrance BEGIN
    INSERT INTO desired_change SELECT access_grant_id FROM grant_space WHERE space_id = new.space_id
    ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_space_shrank AFTER DELETE ON space_entrance BEGIN
    INSERT INTO desired_change SELECT access_grant_id FROM grant_space WHERE space_id = old.space_id
    ON CONFLICT DO NOTHING;
END;

-- And whose it is.
CREATE TRIGGER desired_person_changed AFTER UPDATE OF person, erased_at ON user_identity BEGIN
    INSERT INTO desired_change
    SELECT access_grant_id FROM access_grant WHERE user_identity_id = new.user_identity_id
    ON CONFLICT DO NOTHING;
END;
