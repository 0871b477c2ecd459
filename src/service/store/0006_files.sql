-- Models and datasets are files that are named by what is in them; rows hold the names. An import has its source's names
-- from the start: there is nothing to copy.

ALTER TABLE model_version ADD COLUMN file TEXT;
-- The index of the rows a version in the making learns from.
ALTER TABLE model_version ADD COLUMN dataset_file TEXT;
-- The index of the rows that a job made, or takes over; NULL again once others have replaced them.
ALTER TABLE ingestion_job ADD COLUMN file TEXT;

-- The files an index names.
CREATE TABLE dataset_part (
    file TEXT NOT NULL,
    part TEXT NOT NULL,
    PRIMARY KEY (file, part)
) STRICT, WITHOUT ROWID;

DROP TRIGGER model_file_given_up;
CREATE TRIGGER model_file_given_up AFTER DELETE ON model_version WHEN OLD.file IS NOT NULL
BEGIN
    INSERT OR IGNORE INTO leftover (folder, name) VALUES ('models', OLD.file);
END;

DROP TRIGGER rows_given_up;
CREATE TRIGGER rows_given_up AFTER DELETE ON ingestion_job WHEN OLD.file IS NOT NULL
BEGIN
    INSERT OR IGNORE INTO leftover (folder, name) VALUES ('datasets', OLD.file);
    INSERT OR IGNORE INTO leftover (folder, name) SELECT 'datasets', part FROM dataset_part WHERE file = OLD.file;
END;

-- The same where a file is given up while its row stays: an import that failed, rows that others replaced.
CREATE TRIGGER model_file_dropped AFTER UPDATE OF file ON model_version WHEN OLD.file IS NOT NULL AND NEW.file IS NOT OLD.file
BEGIN
    INSERT OR IGNORE INTO leftover (folder, name) VALUES ('models', OLD.file);
END;

CREATE TRIGGER rows_dropped AFTER UPDATE OF file ON ingestion_job WHEN OLD.file IS NOT NULL AND NEW.file IS NOT OLD.file
BEGIN
    INSERT OR IGNORE INTO leftover (folder, name) VALUES ('datasets', OLD.file);
    INSERT OR IGNORE INTO leftover (folder, name) SELECT 'datasets', part FROM dataset_part WHERE file = OLD.file;
END;
