-- The codes of a grant are told to the sites of their devices, as its cards are: a desk can take them back then, and tell a
-- guest the PIN, while it is cut off.
CREATE TRIGGER desired_code_made AFTER INSERT ON code_method BEGIN
    INSERT INTO desired_change
    SELECT access_grant_id FROM access_method WHERE access_method_id = new.access_method_id
    ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_code_moved AFTER UPDATE OF device_ids, deleted_at, has_ended ON code_method
WHEN old.device_ids <> new.device_ids OR old.has_ended <> new.has_ended
  OR (old.deleted_at IS NULL) <> (new.deleted_at IS NULL) BEGIN
    INSERT INTO desired_change
    SELECT access_grant_id FROM access_method WHERE access_method_id = new.access_method_id
    ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER desired_code_gone AFTER DELETE ON access_method WHEN old.mode = 'code' BEGIN
    INSERT INTO desired_change VALUES(old.access_grant_id) ON CONFLICT DO NOTHING;
END;
INSERT INTO desired_change
SELECT DISTINCT m.access_grant_id FROM code_method k JOIN access_method m USING(access_method_id)
JOIN access_grant g ON g.access_grant_id = m.access_grant_id
WHERE k.deleted_at IS NULL AND k.has_ended = 0 AND g.deleted_at IS NULL
ON CONFLICT DO NOTHING;
