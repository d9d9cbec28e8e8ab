-- Who moves a job counts it, together with all that its transaction moves. A trigger has SQLite keep a copy of every page
-- that the statement changes.
DROP TRIGGER job_entered;
DROP TRIGGER job_left;
DROP TRIGGER job_came;
