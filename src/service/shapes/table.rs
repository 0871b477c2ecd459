//! The input of every operation, as data: members, which are required, and the constraints of each.
//!
//! Source: the service model `lookoutequipment` 2020-12-15 (contract 1.3 and 1.4). A test in `tests/wire` compares this
//! table member by member with the model botocore ships. One member differs on purpose: `ClientToken` is required there
//! because the SDKs fill it in; here a request without one is accepted (contract 1.1).

use super::Kind::{self, Enum, Integer, List, Structure, Text};
use super::{Member, may, must};

pub(super) const ANY: usize = usize::MAX;

pub(super) static AMAZON_RESOURCE_ARN: Kind = Text { min: 1, max: 1011, pattern: "" };
pub(super) static COMMENTS: Kind = Text { min: 1, max: 2560, pattern: r"[\P{M}\p{M}]{1,2560}" };
pub(super) static COMPONENT_TIMESTAMP_DELIMITER: Kind = Text { min: 0, max: 1, pattern: r"^(\-|\_|\s)?$" };
pub(super) static DATASET_ARN: Kind = Text { min: 20, max: 2048, pattern: r"arn:aws(-[^:]+)?:lookoutequipment:[a-zA-Z0-9\-]*:[0-9]{12}:dataset\/[0-9a-zA-Z_-]{1,200}\/.+" };
pub(super) static DATASET_IDENTIFIER: Kind = Text { min: 1, max: 200, pattern: r"^[0-9a-zA-Z_-]{1,200}$" };
pub(super) static DATASET_NAME: Kind = Text { min: 1, max: 200, pattern: r"^[0-9a-zA-Z_-]{1,200}$" };
pub(super) static DATA_DELAY_OFFSET_IN_MINUTES: Kind = Integer { min: 0, max: 60 };
pub(super) static DATA_UPLOAD_FREQUENCY: Kind = Enum(&["PT5M", "PT10M", "PT15M", "PT30M", "PT1H"]);
pub(super) static EQUIPMENT: Kind = Text { min: 1, max: 200, pattern: r"[\P{M}\p{M}]{1,200}" };
pub(super) static FAULT_CODE: Kind = Text { min: 1, max: 100, pattern: r"[\P{M}\p{M}]{1,100}" };
pub(super) static FILE_NAME_TIMESTAMP_FORMAT: Kind = Text { min: 0, max: ANY, pattern: r"^EPOCH|yyyy-MM-dd-HH-mm-ss|yyyyMMddHHmmss$" };
pub(super) static IAM_ROLE_ARN: Kind = Text { min: 20, max: 2048, pattern: r"arn:aws(-[^:]+)?:iam::[0-9]{12}:role/.+" };
pub(super) static IDEMPOTENCE_TOKEN: Kind = Text { min: 1, max: 256, pattern: r"\p{ASCII}{1,256}" };
pub(super) static INFERENCE_DATA_IMPORT_STRATEGY: Kind = Enum(&["NO_IMPORT", "ADD_WHEN_EMPTY", "OVERWRITE"]);
pub(super) static INFERENCE_EXECUTION_STATUS: Kind = Enum(&["IN_PROGRESS", "SUCCESS", "FAILED"]);
pub(super) static INFERENCE_SCHEDULER_IDENTIFIER: Kind = Text { min: 1, max: 200, pattern: r"^[0-9a-zA-Z_-]{1,200}$" };
pub(super) static INFERENCE_SCHEDULER_NAME: Kind = Text { min: 1, max: 200, pattern: r"^[0-9a-zA-Z_-]{1,200}$" };
pub(super) static INFERENCE_SCHEDULER_STATUS: Kind = Enum(&["PENDING", "RUNNING", "STOPPING", "STOPPED"]);
pub(super) static INGESTION_JOB_ID: Kind = Text { min: 0, max: 32, pattern: r"[A-Fa-f0-9]{0,32}" };
pub(super) static INGESTION_JOB_STATUS: Kind = Enum(&["IN_PROGRESS", "SUCCESS", "FAILED", "IMPORT_IN_PROGRESS"]);
pub(super) static INLINE_DATA_SCHEMA: Kind = Text { min: 1, max: 1_000_000, pattern: "" };
pub(super) static KEY_PATTERN: Kind = Text { min: 1, max: 2048, pattern: "" };
pub(super) static LABEL_GROUP_NAME: Kind = Text { min: 1, max: 200, pattern: r"^[0-9a-zA-Z_-]{1,200}$" };
pub(super) static LABEL_ID: Kind = Text { min: 0, max: 32, pattern: r"[A-Fa-f0-9]{0,32}" };
pub(super) static LABEL_RATING: Kind = Enum(&["ANOMALY", "NO_ANOMALY", "NEUTRAL"]);
pub(super) static LOOKBACK_WINDOW: Kind = Text { min: 0, max: ANY, pattern: r"^P180D$|^P360D$|^P540D$|^P720D$" };
pub(super) static MAX_RESULTS: Kind = Integer { min: 1, max: 500 };
pub(super) static MODEL_NAME: Kind = Text { min: 1, max: 200, pattern: r"^[0-9a-zA-Z_-]{1,200}$" };
pub(super) static MODEL_PROMOTE_MODE: Kind = Enum(&["MANAGED", "MANUAL"]);
pub(super) static MODEL_STATUS: Kind = Enum(&["IN_PROGRESS", "SUCCESS", "FAILED", "IMPORT_IN_PROGRESS"]);
pub(super) static MODEL_VERSION: Kind = Integer { min: 1, max: i64::MAX };
pub(super) static MODEL_VERSION_ARN: Kind = Text { min: 20, max: 2048, pattern: r"^arn:aws(-[^:]+)?:lookoutequipment:[a-zA-Z0-9\-]*:[0-9]{12}:model\/[0-9a-zA-Z_-]{1,200}\/.+\/model-version\/[0-9]{1,}$" };
pub(super) static MODEL_VERSION_SOURCE_TYPE: Kind = Enum(&["TRAINING", "RETRAINING", "IMPORT"]);
pub(super) static MODEL_VERSION_STATUS: Kind = Enum(&[
    "IN_PROGRESS", "SUCCESS", "FAILED", "IMPORT_IN_PROGRESS", "CANCELED",
]);
pub(super) static NAME_OR_ARN: Kind = Text { min: 1, max: 2048, pattern: r"^[A-Za-z0-9][A-Za-z0-9:_/+=,@.-]{0,2048}$" };
pub(super) static NEXT_TOKEN: Kind = Text { min: 0, max: 8192, pattern: r"\p{ASCII}{0,8192}" };
pub(super) static OFF_CONDITION: Kind = Text { min: 1, max: 2048, pattern: "" };
pub(super) static POLICY: Kind = Text { min: 1, max: 20000, pattern: r"[\u0009\u000A\u000D\u0020-\u00FF]+" };
pub(super) static POLICY_REVISION_ID: Kind = Text { min: 0, max: 50, pattern: r"[0-9A-Fa-f]+" };
pub(super) static RESOURCE_ARN: Kind = Text { min: 20, max: 2048, pattern: r"arn:aws(-[^:]+)?:lookoutequipment:[a-zA-Z0-9\-]*:[0-9]{12}:.+" };
pub(super) static RETRAINING_FREQUENCY: Kind = Text { min: 1, max: 10, pattern: r"^P(\dY)?(\d{1,2}M)?(\d{1,3}D)?$" };
pub(super) static RETRAINING_SCHEDULER_STATUS: Kind = Enum(&["PENDING", "RUNNING", "STOPPING", "STOPPED"]);
pub(super) static S3_BUCKET: Kind = Text { min: 3, max: 63, pattern: r"^[a-z0-9][\.\-a-z0-9]{1,61}[a-z0-9]$" };
pub(super) static S3_PREFIX: Kind = Text { min: 0, max: 1024, pattern: r"(^$)|([\u0009\u000A\u000D\u0020-\u00FF]{1,1023}/$)" };
pub(super) static TAG_KEY: Kind = Text { min: 1, max: 128, pattern: r"^(?!aws:)[a-zA-Z+-=._:/]+$" };
pub(super) static TAG_VALUE: Kind = Text { min: 0, max: 256, pattern: r"[\s\w+-=\.:/@]*" };
pub(super) static TARGET_SAMPLING_RATE: Kind = Enum(&[
    "PT1S", "PT5S", "PT10S", "PT15S", "PT30S", "PT1M", "PT5M", "PT10M", "PT15M", "PT30M", "PT1H",
]);
pub(super) static TIMESTAMP: Kind = Kind::Time;
pub(super) static TIME_ZONE_OFFSET: Kind = Text { min: 0, max: ANY, pattern: r"^(\+|\-)[0-9]{2}\:[0-9]{2}$" };

pub(super) static DATASET_SCHEMA: Kind = Structure(&[may("InlineDataSchema", &INLINE_DATA_SCHEMA)]);
pub(super) static TAG: Kind = Structure(&[must("Key", &TAG_KEY), must("Value", &TAG_VALUE)]);
pub(super) static TAG_LIST: Kind = List { of: &TAG, min: 0, max: 200 };
pub(super) static INFERENCE_S3_INPUT_CONFIGURATION: Kind = Structure(&[
    must("Bucket", &S3_BUCKET), may("Prefix", &S3_PREFIX),
]);
pub(super) static INFERENCE_INPUT_NAME_CONFIGURATION: Kind = Structure(&[
    may("TimestampFormat", &FILE_NAME_TIMESTAMP_FORMAT),
    may("ComponentTimestampDelimiter", &COMPONENT_TIMESTAMP_DELIMITER),
]);
pub(super) static INFERENCE_INPUT_CONFIGURATION: Kind = Structure(&[
    may("S3InputConfiguration", &INFERENCE_S3_INPUT_CONFIGURATION), may("InputTimeZoneOffset", &TIME_ZONE_OFFSET),
    may("InferenceInputNameConfiguration", &INFERENCE_INPUT_NAME_CONFIGURATION),
]);
pub(super) static INFERENCE_S3_OUTPUT_CONFIGURATION: Kind = Structure(&[
    must("Bucket", &S3_BUCKET), may("Prefix", &S3_PREFIX),
]);
pub(super) static INFERENCE_OUTPUT_CONFIGURATION: Kind = Structure(&[
    must("S3OutputConfiguration", &INFERENCE_S3_OUTPUT_CONFIGURATION), may("KmsKeyId", &NAME_OR_ARN),
]);
pub(super) static FAULT_CODES: Kind = List { of: &FAULT_CODE, min: 0, max: 50 };
pub(super) static LABELS_S3_INPUT_CONFIGURATION: Kind = Structure(&[
    must("Bucket", &S3_BUCKET), may("Prefix", &S3_PREFIX),
]);
pub(super) static LABELS_INPUT_CONFIGURATION: Kind = Structure(&[
    may("S3InputConfiguration", &LABELS_S3_INPUT_CONFIGURATION), may("LabelGroupName", &LABEL_GROUP_NAME),
]);
pub(super) static DATA_PRE_PROCESSING_CONFIGURATION: Kind = Structure(&[may("TargetSamplingRate", &TARGET_SAMPLING_RATE)]);
pub(super) static MODEL_DIAGNOSTICS_S3_OUTPUT_CONFIGURATION: Kind = Structure(&[
    must("Bucket", &S3_BUCKET), may("Prefix", &S3_PREFIX),
]);
pub(super) static MODEL_DIAGNOSTICS_OUTPUT_CONFIGURATION: Kind = Structure(&[
    must("S3OutputConfiguration", &MODEL_DIAGNOSTICS_S3_OUTPUT_CONFIGURATION), may("KmsKeyId", &NAME_OR_ARN),
]);
pub(super) static INGESTION_S3_INPUT_CONFIGURATION: Kind = Structure(&[
    must("Bucket", &S3_BUCKET), may("Prefix", &S3_PREFIX), may("KeyPattern", &KEY_PATTERN),
]);
pub(super) static INGESTION_INPUT_CONFIGURATION: Kind = Structure(&[
    must("S3InputConfiguration", &INGESTION_S3_INPUT_CONFIGURATION),
]);
pub(super) static TAG_KEY_LIST: Kind = List { of: &TAG_KEY, min: 0, max: 200 };

/// Every operation of the API with the members of its request, in the order of the service model.
pub static INPUTS: [(&str, &[Member]); 49] = [
    ("CreateDataset", &[
        must("DatasetName", &DATASET_NAME), may("DatasetSchema", &DATASET_SCHEMA),
        may("ServerSideKmsKeyId", &NAME_OR_ARN), may("ClientToken", &IDEMPOTENCE_TOKEN), may("Tags", &TAG_LIST),
    ]),
    ("CreateInferenceScheduler", &[
        must("ModelName", &MODEL_NAME), must("InferenceSchedulerName", &INFERENCE_SCHEDULER_NAME),
        may("DataDelayOffsetInMinutes", &DATA_DELAY_OFFSET_IN_MINUTES),
        must("DataUploadFrequency", &DATA_UPLOAD_FREQUENCY),
        must("DataInputConfiguration", &INFERENCE_INPUT_CONFIGURATION),
        must("DataOutputConfiguration", &INFERENCE_OUTPUT_CONFIGURATION), must("RoleArn", &IAM_ROLE_ARN),
        may("ServerSideKmsKeyId", &NAME_OR_ARN), may("ClientToken", &IDEMPOTENCE_TOKEN), may("Tags", &TAG_LIST),
    ]),
    ("CreateLabel", &[
        must("LabelGroupName", &LABEL_GROUP_NAME), must("StartTime", &TIMESTAMP), must("EndTime", &TIMESTAMP),
        must("Rating", &LABEL_RATING), may("FaultCode", &FAULT_CODE), may("Notes", &COMMENTS),
        may("Equipment", &EQUIPMENT), may("ClientToken", &IDEMPOTENCE_TOKEN),
    ]),
    ("CreateLabelGroup", &[
        must("LabelGroupName", &LABEL_GROUP_NAME), may("FaultCodes", &FAULT_CODES),
        may("ClientToken", &IDEMPOTENCE_TOKEN), may("Tags", &TAG_LIST),
    ]),
    ("CreateModel", &[
        must("ModelName", &MODEL_NAME), must("DatasetName", &DATASET_IDENTIFIER),
        may("DatasetSchema", &DATASET_SCHEMA), may("LabelsInputConfiguration", &LABELS_INPUT_CONFIGURATION),
        may("ClientToken", &IDEMPOTENCE_TOKEN), may("TrainingDataStartTime", &TIMESTAMP),
        may("TrainingDataEndTime", &TIMESTAMP), may("EvaluationDataStartTime", &TIMESTAMP),
        may("EvaluationDataEndTime", &TIMESTAMP), may("RoleArn", &IAM_ROLE_ARN),
        may("DataPreProcessingConfiguration", &DATA_PRE_PROCESSING_CONFIGURATION),
        may("ServerSideKmsKeyId", &NAME_OR_ARN), may("Tags", &TAG_LIST), may("OffCondition", &OFF_CONDITION),
        may("ModelDiagnosticsOutputConfiguration", &MODEL_DIAGNOSTICS_OUTPUT_CONFIGURATION),
    ]),
    ("CreateRetrainingScheduler", &[
        must("ModelName", &MODEL_NAME), may("RetrainingStartDate", &TIMESTAMP),
        must("RetrainingFrequency", &RETRAINING_FREQUENCY), must("LookbackWindow", &LOOKBACK_WINDOW),
        may("PromoteMode", &MODEL_PROMOTE_MODE), may("ClientToken", &IDEMPOTENCE_TOKEN),
    ]),
    ("DeleteDataset", &[must("DatasetName", &DATASET_IDENTIFIER)]),
    ("DeleteInferenceScheduler", &[must("InferenceSchedulerName", &INFERENCE_SCHEDULER_IDENTIFIER)]),
    ("DeleteLabel", &[must("LabelGroupName", &LABEL_GROUP_NAME), must("LabelId", &LABEL_ID)]),
    ("DeleteLabelGroup", &[must("LabelGroupName", &LABEL_GROUP_NAME)]),
    ("DeleteModel", &[must("ModelName", &MODEL_NAME)]),
    ("DeleteResourcePolicy", &[must("ResourceArn", &RESOURCE_ARN)]),
    ("DeleteRetrainingScheduler", &[must("ModelName", &MODEL_NAME)]),
    ("DescribeDataIngestionJob", &[must("JobId", &INGESTION_JOB_ID)]),
    ("DescribeDataset", &[must("DatasetName", &DATASET_IDENTIFIER)]),
    ("DescribeInferenceScheduler", &[must("InferenceSchedulerName", &INFERENCE_SCHEDULER_IDENTIFIER)]),
    ("DescribeLabel", &[must("LabelGroupName", &LABEL_GROUP_NAME), must("LabelId", &LABEL_ID)]),
    ("DescribeLabelGroup", &[must("LabelGroupName", &LABEL_GROUP_NAME)]),
    ("DescribeModel", &[must("ModelName", &MODEL_NAME)]),
    ("DescribeModelVersion", &[must("ModelName", &MODEL_NAME), must("ModelVersion", &MODEL_VERSION)]),
    ("DescribeResourcePolicy", &[must("ResourceArn", &RESOURCE_ARN)]),
    ("DescribeRetrainingScheduler", &[must("ModelName", &MODEL_NAME)]),
    ("ImportDataset", &[
        must("SourceDatasetArn", &DATASET_ARN), may("DatasetName", &DATASET_NAME),
        may("ClientToken", &IDEMPOTENCE_TOKEN), may("ServerSideKmsKeyId", &NAME_OR_ARN), may("Tags", &TAG_LIST),
    ]),
    ("ImportModelVersion", &[
        must("SourceModelVersionArn", &MODEL_VERSION_ARN), may("ModelName", &MODEL_NAME),
        must("DatasetName", &DATASET_IDENTIFIER), may("LabelsInputConfiguration", &LABELS_INPUT_CONFIGURATION),
        may("ClientToken", &IDEMPOTENCE_TOKEN), may("RoleArn", &IAM_ROLE_ARN),
        may("ServerSideKmsKeyId", &NAME_OR_ARN), may("Tags", &TAG_LIST),
        may("InferenceDataImportStrategy", &INFERENCE_DATA_IMPORT_STRATEGY),
    ]),
    ("ListDataIngestionJobs", &[
        may("DatasetName", &DATASET_NAME), may("NextToken", &NEXT_TOKEN), may("MaxResults", &MAX_RESULTS),
        may("Status", &INGESTION_JOB_STATUS),
    ]),
    ("ListDatasets", &[
        may("NextToken", &NEXT_TOKEN), may("MaxResults", &MAX_RESULTS),
        may("DatasetNameBeginsWith", &DATASET_NAME),
    ]),
    ("ListInferenceEvents", &[
        may("NextToken", &NEXT_TOKEN), may("MaxResults", &MAX_RESULTS),
        must("InferenceSchedulerName", &INFERENCE_SCHEDULER_IDENTIFIER), must("IntervalStartTime", &TIMESTAMP),
        must("IntervalEndTime", &TIMESTAMP),
    ]),
    ("ListInferenceExecutions", &[
        may("NextToken", &NEXT_TOKEN), may("MaxResults", &MAX_RESULTS),
        must("InferenceSchedulerName", &INFERENCE_SCHEDULER_IDENTIFIER), may("DataStartTimeAfter", &TIMESTAMP),
        may("DataEndTimeBefore", &TIMESTAMP), may("Status", &INFERENCE_EXECUTION_STATUS),
    ]),
    ("ListInferenceSchedulers", &[
        may("NextToken", &NEXT_TOKEN), may("MaxResults", &MAX_RESULTS),
        may("InferenceSchedulerNameBeginsWith", &INFERENCE_SCHEDULER_IDENTIFIER), may("ModelName", &MODEL_NAME),
        may("Status", &INFERENCE_SCHEDULER_STATUS),
    ]),
    ("ListLabelGroups", &[
        may("LabelGroupNameBeginsWith", &LABEL_GROUP_NAME), may("NextToken", &NEXT_TOKEN),
        may("MaxResults", &MAX_RESULTS),
    ]),
    ("ListLabels", &[
        must("LabelGroupName", &LABEL_GROUP_NAME), may("IntervalStartTime", &TIMESTAMP),
        may("IntervalEndTime", &TIMESTAMP), may("FaultCode", &FAULT_CODE), may("Equipment", &EQUIPMENT),
        may("NextToken", &NEXT_TOKEN), may("MaxResults", &MAX_RESULTS),
    ]),
    ("ListModelVersions", &[
        must("ModelName", &MODEL_NAME), may("NextToken", &NEXT_TOKEN), may("MaxResults", &MAX_RESULTS),
        may("Status", &MODEL_VERSION_STATUS), may("SourceType", &MODEL_VERSION_SOURCE_TYPE),
        may("CreatedAtEndTime", &TIMESTAMP), may("CreatedAtStartTime", &TIMESTAMP),
        may("MaxModelVersion", &MODEL_VERSION), may("MinModelVersion", &MODEL_VERSION),
    ]),
    ("ListModels", &[
        may("NextToken", &NEXT_TOKEN), may("MaxResults", &MAX_RESULTS), may("Status", &MODEL_STATUS),
        may("ModelNameBeginsWith", &MODEL_NAME), may("DatasetNameBeginsWith", &DATASET_NAME),
    ]),
    ("ListRetrainingSchedulers", &[
        may("ModelNameBeginsWith", &MODEL_NAME), may("Status", &RETRAINING_SCHEDULER_STATUS),
        may("NextToken", &NEXT_TOKEN), may("MaxResults", &MAX_RESULTS),
    ]),
    ("ListSensorStatistics", &[
        must("DatasetName", &DATASET_NAME), may("IngestionJobId", &INGESTION_JOB_ID),
        may("MaxResults", &MAX_RESULTS), may("NextToken", &NEXT_TOKEN),
    ]),
    ("ListTagsForResource", &[must("ResourceArn", &AMAZON_RESOURCE_ARN)]),
    ("PutResourcePolicy", &[
        must("ResourceArn", &RESOURCE_ARN), must("ResourcePolicy", &POLICY),
        may("PolicyRevisionId", &POLICY_REVISION_ID), may("ClientToken", &IDEMPOTENCE_TOKEN),
    ]),
    ("StartDataIngestionJob", &[
        must("DatasetName", &DATASET_IDENTIFIER),
        must("IngestionInputConfiguration", &INGESTION_INPUT_CONFIGURATION), must("RoleArn", &IAM_ROLE_ARN),
        may("ClientToken", &IDEMPOTENCE_TOKEN),
    ]),
    ("StartInferenceScheduler", &[must("InferenceSchedulerName", &INFERENCE_SCHEDULER_IDENTIFIER)]),
    ("StartRetrainingScheduler", &[must("ModelName", &MODEL_NAME)]),
    ("StopInferenceScheduler", &[must("InferenceSchedulerName", &INFERENCE_SCHEDULER_IDENTIFIER)]),
    ("StopRetrainingScheduler", &[must("ModelName", &MODEL_NAME)]),
    ("TagResource", &[must("ResourceArn", &AMAZON_RESOURCE_ARN), must("Tags", &TAG_LIST)]),
    ("UntagResource", &[must("ResourceArn", &AMAZON_RESOURCE_ARN), must("TagKeys", &TAG_KEY_LIST)]),
    ("UpdateActiveModelVersion", &[must("ModelName", &MODEL_NAME), must("ModelVersion", &MODEL_VERSION)]),
    ("UpdateInferenceScheduler", &[
        must("InferenceSchedulerName", &INFERENCE_SCHEDULER_IDENTIFIER),
        may("DataDelayOffsetInMinutes", &DATA_DELAY_OFFSET_IN_MINUTES),
        may("DataUploadFrequency", &DATA_UPLOAD_FREQUENCY),
        may("DataInputConfiguration", &INFERENCE_INPUT_CONFIGURATION),
        may("DataOutputConfiguration", &INFERENCE_OUTPUT_CONFIGURATION), may("RoleArn", &IAM_ROLE_ARN),
    ]),
    ("UpdateLabelGroup", &[must("LabelGroupName", &LABEL_GROUP_NAME), may("FaultCodes", &FAULT_CODES)]),
    ("UpdateModel", &[
        must("ModelName", &MODEL_NAME), may("LabelsInputConfiguration", &LABELS_INPUT_CONFIGURATION),
        may("RoleArn", &IAM_ROLE_ARN),
        may("ModelDiagnosticsOutputConfiguration", &MODEL_DIAGNOSTICS_OUTPUT_CONFIGURATION),
    ]),
    ("UpdateRetrainingScheduler", &[
        must("ModelName", &MODEL_NAME), may("RetrainingStartDate", &TIMESTAMP),
        may("RetrainingFrequency", &RETRAINING_FREQUENCY), may("LookbackWindow", &LOOKBACK_WINDOW),
        may("PromoteMode", &MODEL_PROMOTE_MODE),
    ]),
];
