-- Datasets, their ingestion jobs, and what training adds to models. `detail` holds members of the API's answers as
-- they are given back, under their names on the wire.

CREATE TABLE dataset (
    name       TEXT PRIMARY KEY,
    uuid       TEXT NOT NULL UNIQUE,
    arn        TEXT NOT NULL,
    status     TEXT NOT NULL,
    schema     TEXT,
    kms_key    TEXT,
    source_arn TEXT,
    -- The job whose rows the dataset holds.
    job_id     TEXT,
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL
) STRICT;

CREATE TABLE ingestion_job (
    id            TEXT PRIMARY KEY,
    dataset_uuid  TEXT NOT NULL REFERENCES dataset (uuid) ON DELETE CASCADE,
    input         TEXT,
    role_arn      TEXT,
    status        TEXT NOT NULL,
    failed_reason TEXT,
    quality       TEXT,
    files         TEXT,
    size          INTEGER,
    start_us      INTEGER,
    end_us        INTEGER,
    -- The job an import copies from.
    source_job    TEXT,
    source_arn    TEXT,
    created_us    INTEGER NOT NULL
) STRICT;

CREATE TABLE sensor_statistics (
    job_id    TEXT NOT NULL REFERENCES ingestion_job (id) ON DELETE CASCADE,
    component TEXT NOT NULL,
    sensor    TEXT NOT NULL,
    summary   TEXT NOT NULL,
    PRIMARY KEY (job_id, component, sensor)
) STRICT, WITHOUT ROWID;

ALTER TABLE model ADD COLUMN dataset_name TEXT;
ALTER TABLE model ADD COLUMN dataset_arn TEXT;
ALTER TABLE model ADD COLUMN previous_version INTEGER;
ALTER TABLE model ADD COLUMN activated_us INTEGER;
ALTER TABLE model ADD COLUMN previous_activated_us INTEGER;
-- LabelsInputConfiguration, RoleArn, ...: what UpdateModel may change and the next training uses.
ALTER TABLE model ADD COLUMN detail TEXT NOT NULL DEFAULT '{}';

ALTER TABLE model_version ADD COLUMN dataset_job TEXT;
ALTER TABLE model_version ADD COLUMN schema TEXT;
ALTER TABLE model_version ADD COLUMN failed_reason TEXT;
ALTER TABLE model_version ADD COLUMN metrics TEXT;
ALTER TABLE model_version ADD COLUMN quality TEXT;
ALTER TABLE model_version ADD COLUMN execution_start_us INTEGER;
ALTER TABLE model_version ADD COLUMN execution_end_us INTEGER;
-- The model file an import copies from.
ALTER TABLE model_version ADD COLUMN source_file TEXT;
ALTER TABLE model_version ADD COLUMN detail TEXT NOT NULL DEFAULT '{}';

CREATE TABLE retraining_scheduler (
    model_name TEXT PRIMARY KEY REFERENCES model (name) ON DELETE CASCADE,
    status     TEXT NOT NULL,
    start_us   INTEGER,
    next_us    INTEGER,
    frequency  TEXT NOT NULL,
    lookback   TEXT NOT NULL,
    promote    TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL
) STRICT;

CREATE TABLE resource_policy (
    arn        TEXT PRIMARY KEY,
    policy     TEXT NOT NULL,
    revision   TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL
) STRICT;
