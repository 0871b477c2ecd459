-- Times are microseconds since the epoch, UTC. JSON columns hold what the API was given, validated.

CREATE TABLE model (
    name           TEXT PRIMARY KEY,
    uuid           TEXT NOT NULL UNIQUE,
    arn            TEXT NOT NULL,
    status         TEXT NOT NULL,
    schema         TEXT NOT NULL,
    sampling_us    INTEGER,
    quality        TEXT,
    active_version INTEGER,
    created_us     INTEGER NOT NULL,
    updated_us     INTEGER NOT NULL
) STRICT;

CREATE TABLE model_version (
    model_uuid  TEXT NOT NULL REFERENCES model (uuid) ON DELETE CASCADE,
    version     INTEGER NOT NULL,
    arn         TEXT NOT NULL,
    status      TEXT NOT NULL,
    source_type TEXT NOT NULL,
    created_us  INTEGER NOT NULL,
    updated_us  INTEGER NOT NULL,
    PRIMARY KEY (model_uuid, version)
) STRICT;

CREATE TABLE scheduler (
    name             TEXT PRIMARY KEY,
    uuid             TEXT NOT NULL UNIQUE,
    arn              TEXT NOT NULL,
    model_name       TEXT NOT NULL UNIQUE REFERENCES model (name),
    status           TEXT NOT NULL,
    delay_minutes    INTEGER NOT NULL,
    frequency        TEXT NOT NULL,
    input            TEXT NOT NULL,
    output           TEXT NOT NULL,
    role_arn         TEXT NOT NULL,
    kms_key          TEXT,
    created_us       INTEGER NOT NULL,
    updated_us       INTEGER NOT NULL,
    -- The next window's end, and when it is to be run (the delay offset later); NULL until the scheduler first runs.
    next_boundary_us INTEGER,
    due_us           INTEGER,
    latest_result    TEXT,
    -- The model's running state after the last committed execution.
    scoring_state    BLOB
) STRICT;

CREATE INDEX scheduler_due ON scheduler (status, due_us);

-- One row per (scheduler, boundary): the identity of an execution.
CREATE TABLE execution (
    scheduler_uuid    TEXT NOT NULL REFERENCES scheduler (uuid) ON DELETE CASCADE,
    boundary_us       INTEGER NOT NULL,
    start_us          INTEGER NOT NULL,
    scheduled_us      INTEGER NOT NULL,
    status            TEXT NOT NULL,
    input             TEXT NOT NULL,
    output            TEXT NOT NULL,
    model_version     INTEGER NOT NULL,
    model_version_arn TEXT NOT NULL,
    result_bucket     TEXT,
    result_key        TEXT,
    failed_reason     TEXT,
    finished_us       INTEGER,
    rows              INTEGER,
    anomalous         INTEGER,
    PRIMARY KEY (scheduler_uuid, boundary_us)
) STRICT, WITHOUT ROWID;

CREATE INDEX execution_in_progress ON execution (status) WHERE status = 'IN_PROGRESS';

-- A contiguous anomalous span; diagnostics is the mean over its rows, a JSON array of {name, value}.
CREATE TABLE event (
    scheduler_uuid TEXT NOT NULL REFERENCES scheduler (uuid) ON DELETE CASCADE,
    start_us       INTEGER NOT NULL,
    end_us         INTEGER NOT NULL,
    rows           INTEGER NOT NULL,
    diagnostics    TEXT NOT NULL,
    PRIMARY KEY (scheduler_uuid, start_us)
) STRICT, WITHOUT ROWID;

CREATE TABLE tag (
    arn   TEXT NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (arn, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE label_group (
    name        TEXT PRIMARY KEY,
    arn         TEXT NOT NULL,
    fault_codes TEXT NOT NULL,
    created_us  INTEGER NOT NULL,
    updated_us  INTEGER NOT NULL
) STRICT;

CREATE TABLE label (
    label_group TEXT NOT NULL REFERENCES label_group (name) ON DELETE CASCADE,
    id          TEXT NOT NULL,
    start_us    INTEGER NOT NULL,
    end_us      INTEGER NOT NULL,
    rating      TEXT NOT NULL,
    fault_code  TEXT,
    notes       TEXT,
    equipment   TEXT,
    created_us  INTEGER NOT NULL,
    PRIMARY KEY (label_group, id)
) STRICT, WITHOUT ROWID;

-- The answer to a request that carried a ClientToken, replayed when the same request comes again.
CREATE TABLE idempotency (
    operation  TEXT NOT NULL,
    token      TEXT NOT NULL,
    request    TEXT NOT NULL,
    response   TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    PRIMARY KEY (operation, token)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_age ON idempotency (created_us);
