-- Cards that were written and are not what they were: a later card has thrown them out of a room, or was written over them.
CREATE TABLE invalid_card(
    access_method_id TEXT PRIMARY KEY REFERENCES access_method ON DELETE CASCADE,
    workspace_id TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT;

-- Which piece of plastic a method's card is, by a blind index of its serial number.
CREATE TABLE card_serial(
    access_method_id TEXT PRIMARY KEY REFERENCES access_method ON DELETE CASCADE,
    workspace_id TEXT NOT NULL,
    serial BLOB NOT NULL
) STRICT;
CREATE INDEX card_serial_of_card ON card_serial(serial);
CREATE INDEX reservation_of_entrance ON reservation_entrance(acs_entrance_id);
