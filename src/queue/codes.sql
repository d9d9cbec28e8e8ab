-- What the cloud told before may lack the codes of its grants: the version before took none in. It tells all of it again,
-- and what is here stays in use until then.
UPDATE desired SET epoch = 0, n = 1, is_complete = 0 WHERE epoch > 0;
