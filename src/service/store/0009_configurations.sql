-- The input and output configuration of a scheduler, once per edit: executions refer to the one they were claimed with. Those
-- of earlier builds keep the copies in their own columns, which new ones leave null.
CREATE TABLE scheduler_configuration (
    id             INTEGER PRIMARY KEY,
    scheduler_uuid TEXT NOT NULL REFERENCES scheduler (uuid) ON DELETE CASCADE,
    input          TEXT NOT NULL,
    output         TEXT NOT NULL
) STRICT;

CREATE INDEX scheduler_configuration_latest ON scheduler_configuration (scheduler_uuid, id);

-- No reference that the database holds: deleting a scheduler would look through all executions for each configuration.
ALTER TABLE execution ADD COLUMN configuration_id INTEGER;
