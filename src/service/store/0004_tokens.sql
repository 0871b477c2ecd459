-- What an answered ClientToken made: when that is deleted, however it comes about, the token goes in the same transaction.

ALTER TABLE idempotency ADD COLUMN subject TEXT;

UPDATE idempotency SET subject = CASE operation
    WHEN 'CreateDataset' THEN json_extract(response, '$.DatasetArn')
    WHEN 'ImportDataset' THEN json_extract(response, '$.DatasetArn')
    WHEN 'CreateInferenceScheduler' THEN json_extract(response, '$.InferenceSchedulerArn')
    WHEN 'CreateLabel' THEN json_extract(response, '$.LabelId')
    WHEN 'CreateLabelGroup' THEN json_extract(response, '$.LabelGroupArn')
    WHEN 'CreateModel' THEN json_extract(response, '$.ModelArn')
    WHEN 'CreateRetrainingScheduler' THEN 'retraining of ' || json_extract(response, '$.ModelName')
    WHEN 'ImportModelVersion' THEN json_extract(response, '$.ModelVersionArn')
    WHEN 'PutResourcePolicy' THEN 'policy of ' || json_extract(response, '$.ResourceArn')
    WHEN 'StartDataIngestionJob' THEN json_extract(response, '$.JobId')
END;

DELETE FROM idempotency WHERE subject IS NULL OR subject NOT IN (
    SELECT arn FROM dataset UNION SELECT arn FROM scheduler UNION SELECT id FROM label UNION SELECT arn FROM label_group
    UNION SELECT arn FROM model UNION SELECT 'retraining of ' || model_name FROM retraining_scheduler
    UNION SELECT arn FROM model_version UNION SELECT 'policy of ' || arn FROM resource_policy UNION SELECT id FROM ingestion_job
);

CREATE INDEX idempotency_subject ON idempotency (subject);

CREATE TRIGGER token_of_dataset AFTER DELETE ON dataset
BEGIN DELETE FROM idempotency WHERE subject = OLD.arn; END;

CREATE TRIGGER token_of_scheduler AFTER DELETE ON scheduler
BEGIN DELETE FROM idempotency WHERE subject = OLD.arn; END;

CREATE TRIGGER token_of_label AFTER DELETE ON label
BEGIN DELETE FROM idempotency WHERE subject = OLD.id; END;

CREATE TRIGGER token_of_label_group AFTER DELETE ON label_group
BEGIN DELETE FROM idempotency WHERE subject = OLD.arn; END;

CREATE TRIGGER token_of_model AFTER DELETE ON model
BEGIN DELETE FROM idempotency WHERE subject = OLD.arn; END;

CREATE TRIGGER token_of_model_version AFTER DELETE ON model_version
BEGIN DELETE FROM idempotency WHERE subject = OLD.arn; END;

CREATE TRIGGER token_of_retraining AFTER DELETE ON retraining_scheduler
BEGIN DELETE FROM idempotency WHERE subject = 'retraining of ' || OLD.model_name; END;

CREATE TRIGGER token_of_policy AFTER DELETE ON resource_policy
BEGIN DELETE FROM idempotency WHERE subject = 'policy of ' || OLD.arn; END;

CREATE TRIGGER token_of_ingestion_job AFTER DELETE ON ingestion_job
BEGIN DELETE FROM idempotency WHERE subject = OLD.id; END;
