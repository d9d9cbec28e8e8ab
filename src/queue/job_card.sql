-- Which card a job is about stands in its own row. What is at work is few and found by its state, so that the way of an
-- order to its first byte costs no page of this index.
ALTER TABLE job ADD COLUMN card BLOB;
UPDATE job SET card = card_job.method_id FROM card_job WHERE card_job.job_id = job.job_id;
DROP TABLE card_job;
CREATE INDEX job_card ON job(card) WHERE card IS NOT NULL AND state <> 'sent';

-- The place in the stream of orders of a job that was sent when it arrived: while it is at work, `memory` may be behind it.
ALTER TABLE job ADD COLUMN order_epoch INTEGER;
ALTER TABLE job ADD COLUMN order_n INTEGER;
