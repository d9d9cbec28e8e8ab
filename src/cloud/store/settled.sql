-- How the job of a card ended by its last word: `written`, `not_written` or `in_doubt`; nothing while it may still run.
-- Attempts and reports are forgotten before a method is, so neither can say what is still in doubt.
ALTER TABLE ordered_card ADD COLUMN ended TEXT;
UPDATE ordered_card SET ended =
  CASE
    WHEN revision >= 2 THEN 'not_written'
    WHEN EXISTS (SELECT 1 FROM action_attempt a WHERE a.job_id = ordered_card.job_id AND a.status = 'success') THEN 'written'
    ELSE
      CASE coalesce((SELECT e.state FROM job_end e WHERE e.job_id = ordered_card.job_id ORDER BY e.revision DESC LIMIT 1),
                    (SELECT j.state FROM local_job j WHERE j.job_id = ordered_card.job_id))
        WHEN 'succeeded' THEN 'written'
        WHEN 'unknown' THEN 'in_doubt'
        ELSE
          CASE
            WHEN EXISTS (SELECT 1 FROM action_attempt a JOIN card_state c ON c.access_method_id = ordered_card.access_method_id
                         WHERE a.job_id = ordered_card.job_id AND a.error_type = 'encoding_interrupted' AND c.in_doubt = 1)
              THEN 'in_doubt'
            WHEN revision >= 1 THEN 'not_written'
          END
      END
  END;

CREATE INDEX desired_gone ON desired(bridge_id) WHERE gone = 1;
