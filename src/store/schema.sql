-- One store is one database. Keys are text and lead nowhere: what lies on disk is named by its content.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE buckets (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    made_ms INTEGER NOT NULL,
    region TEXT,
    tags TEXT
) STRICT;

-- What objects and parts hold: bytes in the row (data), a file named by its content (name), or pieces (neither).
-- `sums` are checksums of the content's blocks; `refs` counts objects, parts and pieces that stand on it.
CREATE TABLE bodies (
    id INTEGER PRIMARY KEY,
    size INTEGER NOT NULL,
    sums BLOB NOT NULL,
    refs INTEGER NOT NULL,
    name TEXT UNIQUE,
    data BLOB
) STRICT;

-- The parts that an object was put together from, in their order.
CREATE TABLE pieces (
    whole INTEGER NOT NULL,
    number INTEGER NOT NULL,
    body INTEGER NOT NULL,
    start INTEGER NOT NULL,
    size INTEGER NOT NULL,
    checksum TEXT,
    PRIMARY KEY (whole, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE objects (
    bucket INTEGER NOT NULL,
    key TEXT NOT NULL,
    body INTEGER NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    written_ms INTEGER NOT NULL,
    class TEXT,
    facts TEXT,
    tags TEXT,
    PRIMARY KEY (bucket, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    bucket INTEGER NOT NULL,
    key TEXT NOT NULL,
    begun_ms INTEGER NOT NULL,
    class TEXT,
    facts TEXT,
    tags TEXT,
    algorithm TEXT,
    full_object INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX uploads_by_key ON uploads (bucket, key, id);

CREATE TABLE parts (
    upload TEXT NOT NULL,
    number INTEGER NOT NULL,
    body INTEGER NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    written_ms INTEGER NOT NULL,
    checksum TEXT,
    PRIMARY KEY (upload, number)
) STRICT, WITHOUT ROWID;

-- Uploads that were completed a while ago: a client that repeats its request is told the same again.
CREATE TABLE completed (
    upload TEXT PRIMARY KEY,
    bucket INTEGER NOT NULL,
    key TEXT NOT NULL,
    etag TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
