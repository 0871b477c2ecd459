-- Why an execution failed, as a word that decisions go by; the text beside it is for people. And when its data were last
-- looked for again, so that every failed window has its turn.

ALTER TABLE execution ADD COLUMN failed_kind TEXT;
ALTER TABLE execution ADD COLUMN looked_us INTEGER;

-- Earlier builds told the kind by the text alone.
UPDATE execution SET failed_kind = CASE
    WHEN failed_reason LIKE 'Could not find data file%' THEN 'NO_FILE'
    WHEN failed_reason LIKE 'Could not find data%' THEN 'NO_ROWS'
    WHEN failed_reason LIKE 'Could not read ''s3:%' OR failed_reason LIKE 'Could not write ''s3:%'
         OR failed_reason LIKE 'cannot list s3:%' THEN 'STORE'
    ELSE 'INTERNAL' END
WHERE status = 'FAILED';
