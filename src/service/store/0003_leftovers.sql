-- What may be removed from disk: each name is written in the transaction that gives the file up, so that a file which a
-- lost or older database does not know is never taken for one of these.

CREATE TABLE leftover (
    folder TEXT NOT NULL,
    name   TEXT NOT NULL,
    PRIMARY KEY (folder, name)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER model_file_given_up AFTER DELETE ON model_version
BEGIN
    INSERT OR IGNORE INTO leftover (folder, name) VALUES ('models', OLD.model_uuid || '-' || OLD.version || '.model');
END;

CREATE TRIGGER rows_given_up AFTER DELETE ON ingestion_job
BEGIN
    INSERT OR IGNORE INTO leftover (folder, name) VALUES ('datasets', OLD.id);
END;
