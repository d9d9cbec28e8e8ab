-- Jobs that were made up to this instant may have been here and be forgotten, whatever their deadlines: this memory was set
-- back then.
ALTER TABLE memory ADD COLUMN set_back_at INTEGER;
