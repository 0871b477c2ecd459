//! The answer of every operation, as data: members and the constraints of each, from the service model. A test in `tests/wire`
//! compares this table with the model botocore ships. Builds with debug assertions hold every answer against it.

use super::Kind::{self, Enum, Integer, List, Structure, Text};
use super::table::{
    ANY, COMMENTS, DATASET_ARN, DATASET_NAME, DATA_DELAY_OFFSET_IN_MINUTES, DATA_PRE_PROCESSING_CONFIGURATION,
    DATA_UPLOAD_FREQUENCY, EQUIPMENT, FAULT_CODE, FAULT_CODES, IAM_ROLE_ARN, INFERENCE_EXECUTION_STATUS,
    INFERENCE_INPUT_CONFIGURATION, INFERENCE_OUTPUT_CONFIGURATION, INFERENCE_SCHEDULER_NAME,
    INFERENCE_SCHEDULER_STATUS, INGESTION_INPUT_CONFIGURATION, INGESTION_JOB_ID, INGESTION_JOB_STATUS,
    INLINE_DATA_SCHEMA, LABELS_INPUT_CONFIGURATION, LABEL_GROUP_NAME, LABEL_ID, LABEL_RATING, LOOKBACK_WINDOW,
    MODEL_DIAGNOSTICS_OUTPUT_CONFIGURATION, MODEL_NAME, MODEL_PROMOTE_MODE, MODEL_STATUS, MODEL_VERSION,
    MODEL_VERSION_ARN, MODEL_VERSION_SOURCE_TYPE, MODEL_VERSION_STATUS, NEXT_TOKEN, OFF_CONDITION, POLICY,
    POLICY_REVISION_ID, RESOURCE_ARN, RETRAINING_FREQUENCY, RETRAINING_SCHEDULER_STATUS, S3_BUCKET, TAG_LIST,
    TIMESTAMP,
};
use super::{Member, may, must};

static AUTO_PROMOTION_RESULT: Kind = Enum(&[
    "MODEL_PROMOTED", "MODEL_NOT_PROMOTED", "RETRAINING_INTERNAL_ERROR", "RETRAINING_CUSTOMER_ERROR",
    "RETRAINING_CANCELLED",
]);
static AUTO_PROMOTION_RESULT_REASON: Kind = Text { min: 1, max: 256, pattern: "" };
static BOOLEAN: Kind = Kind::Boolean;
static BOUNDED_LENGTH_STRING: Kind = Text { min: 1, max: 5000, pattern: r"[\P{M}\p{M}]{1,5000}" };
static COMPONENT_NAME: Kind = Text { min: 1, max: 200, pattern: r"^[0-9a-zA-Z._\-]{1,200}$" };
static DATASET_STATUS: Kind = Enum(&["CREATED", "INGESTION_IN_PROGRESS", "ACTIVE", "IMPORT_IN_PROGRESS"]);
static DATA_SIZE_IN_BYTES: Kind = Integer { min: 0, max: i64::MAX };
static EVENT_DURATION_IN_SECONDS: Kind = Integer { min: 0, max: i64::MAX };
static FLOAT: Kind = Kind::Float;
static INFERENCE_SCHEDULER_ARN: Kind = Text { min: 20, max: 2048, pattern: r"arn:aws(-[^:]+)?:lookoutequipment:[a-zA-Z0-9\-]*:[0-9]{12}:inference-scheduler\/.+" };
static INTEGER: Kind = Integer { min: i64::MIN, max: i64::MAX };
static KMS_KEY_ARN: Kind = Text { min: 1, max: 1024, pattern: r"arn:aws[a-z\-]*:kms:[a-z0-9\-]*:\d{12}:[\w\-\/]+" };
static LABEL_GROUP_ARN: Kind = Text { min: 20, max: 2048, pattern: r"arn:aws(-[^:]+)?:lookoutequipment:[a-zA-Z0-9\-]*:[0-9]{12}:label-group\/.+" };
static LATEST_INFERENCE_RESULT: Kind = Enum(&["ANOMALOUS", "NORMAL"]);
static MODEL_ARN: Kind = Text { min: 20, max: 2048, pattern: r"arn:aws(-[^:]+)?:lookoutequipment:[a-zA-Z0-9\-]*:[0-9]{12}:model\/.+" };
static MODEL_METRICS: Kind = Text { min: 1, max: 50000, pattern: "" };
static MODEL_QUALITY: Kind = Enum(&["QUALITY_THRESHOLD_MET", "CANNOT_DETERMINE_QUALITY", "POOR_QUALITY_DETECTED"]);
static MONOTONICITY: Kind = Enum(&["DECREASING", "INCREASING", "STATIC"]);
static S3_KEY: Kind = Text { min: 1, max: 1024, pattern: r"[\P{M}\p{M}]{1,1024}[^/]$" };
static SENSOR_NAME: Kind = Text { min: 1, max: 200, pattern: r"^[0-9a-zA-Z:#$.\-_]{1,200}$" };
static STATISTICAL_ISSUE_STATUS: Kind = Enum(&["POTENTIAL_ISSUE_DETECTED", "NO_ISSUE_DETECTED"]);

static MISSING_COMPLETE_SENSOR_DATA: Kind = Structure(&[
    must("AffectedSensorCount", &INTEGER),
]);
static SENSORS_WITH_SHORT_DATE_RANGE: Kind = Structure(&[
    must("AffectedSensorCount", &INTEGER),
]);
static INSUFFICIENT_SENSOR_DATA: Kind = Structure(&[
    must("MissingCompleteSensorData", &MISSING_COMPLETE_SENSOR_DATA),
    must("SensorsWithShortDateRange", &SENSORS_WITH_SHORT_DATE_RANGE),
]);
static MISSING_SENSOR_DATA: Kind = Structure(&[
    must("AffectedSensorCount", &INTEGER), must("TotalNumberOfMissingValues", &INTEGER),
]);
static INVALID_SENSOR_DATA: Kind = Structure(&[
    must("AffectedSensorCount", &INTEGER), must("TotalNumberOfInvalidValues", &INTEGER),
]);
static UNSUPPORTED_TIMESTAMPS: Kind = Structure(&[
    must("TotalNumberOfUnsupportedTimestamps", &INTEGER),
]);
static DUPLICATE_TIMESTAMPS: Kind = Structure(&[
    must("TotalNumberOfDuplicateTimestamps", &INTEGER),
]);
static DATA_QUALITY_SUMMARY: Kind = Structure(&[
    must("InsufficientSensorData", &INSUFFICIENT_SENSOR_DATA), must("MissingSensorData", &MISSING_SENSOR_DATA),
    must("InvalidSensorData", &INVALID_SENSOR_DATA), must("UnsupportedTimestamps", &UNSUPPORTED_TIMESTAMPS),
    must("DuplicateTimestamps", &DUPLICATE_TIMESTAMPS),
]);
static S3_OBJECT: Kind = Structure(&[
    must("Bucket", &S3_BUCKET), must("Key", &S3_KEY),
]);
static LIST_OF_DISCARDED_FILES: Kind = List { of: &S3_OBJECT, min: 0, max: ANY };
static INGESTED_FILES_SUMMARY: Kind = Structure(&[
    must("TotalNumberOfFiles", &INTEGER), must("IngestedNumberOfFiles", &INTEGER),
    may("DiscardedFiles", &LIST_OF_DISCARDED_FILES),
]);
static DATA_INGESTION_JOB_SUMMARY: Kind = Structure(&[
    may("JobId", &INGESTION_JOB_ID), may("DatasetName", &DATASET_NAME), may("DatasetArn", &DATASET_ARN),
    may("IngestionInputConfiguration", &INGESTION_INPUT_CONFIGURATION), may("Status", &INGESTION_JOB_STATUS),
]);
static DATA_INGESTION_JOB_SUMMARIES: Kind = List { of: &DATA_INGESTION_JOB_SUMMARY, min: 0, max: ANY };
static DATASET_SUMMARY: Kind = Structure(&[
    may("DatasetName", &DATASET_NAME), may("DatasetArn", &DATASET_ARN), may("Status", &DATASET_STATUS),
    may("CreatedAt", &TIMESTAMP),
]);
static DATASET_SUMMARIES: Kind = List { of: &DATASET_SUMMARY, min: 0, max: ANY };
static INFERENCE_EVENT_SUMMARY: Kind = Structure(&[
    may("InferenceSchedulerArn", &INFERENCE_SCHEDULER_ARN), may("InferenceSchedulerName", &INFERENCE_SCHEDULER_NAME),
    may("EventStartTime", &TIMESTAMP), may("EventEndTime", &TIMESTAMP), may("Diagnostics", &MODEL_METRICS),
    may("EventDurationInSeconds", &EVENT_DURATION_IN_SECONDS),
]);
static INFERENCE_EVENT_SUMMARIES: Kind = List { of: &INFERENCE_EVENT_SUMMARY, min: 0, max: ANY };
static INFERENCE_EXECUTION_SUMMARY: Kind = Structure(&[
    may("ModelName", &MODEL_NAME), may("ModelArn", &MODEL_ARN),
    may("InferenceSchedulerName", &INFERENCE_SCHEDULER_NAME), may("InferenceSchedulerArn", &INFERENCE_SCHEDULER_ARN),
    may("ScheduledStartTime", &TIMESTAMP), may("DataStartTime", &TIMESTAMP), may("DataEndTime", &TIMESTAMP),
    may("DataInputConfiguration", &INFERENCE_INPUT_CONFIGURATION),
    may("DataOutputConfiguration", &INFERENCE_OUTPUT_CONFIGURATION), may("CustomerResultObject", &S3_OBJECT),
    may("Status", &INFERENCE_EXECUTION_STATUS), may("FailedReason", &BOUNDED_LENGTH_STRING),
    may("ModelVersion", &MODEL_VERSION), may("ModelVersionArn", &MODEL_VERSION_ARN),
]);
static INFERENCE_EXECUTION_SUMMARIES: Kind = List { of: &INFERENCE_EXECUTION_SUMMARY, min: 0, max: ANY };
static INFERENCE_SCHEDULER_SUMMARY: Kind = Structure(&[
    may("ModelName", &MODEL_NAME), may("ModelArn", &MODEL_ARN),
    may("InferenceSchedulerName", &INFERENCE_SCHEDULER_NAME), may("InferenceSchedulerArn", &INFERENCE_SCHEDULER_ARN),
    may("Status", &INFERENCE_SCHEDULER_STATUS), may("DataDelayOffsetInMinutes", &DATA_DELAY_OFFSET_IN_MINUTES),
    may("DataUploadFrequency", &DATA_UPLOAD_FREQUENCY), may("LatestInferenceResult", &LATEST_INFERENCE_RESULT),
]);
static INFERENCE_SCHEDULER_SUMMARIES: Kind = List { of: &INFERENCE_SCHEDULER_SUMMARY, min: 0, max: ANY };
static LABEL_GROUP_SUMMARY: Kind = Structure(&[
    may("LabelGroupName", &LABEL_GROUP_NAME), may("LabelGroupArn", &LABEL_GROUP_ARN), may("CreatedAt", &TIMESTAMP),
    may("UpdatedAt", &TIMESTAMP),
]);
static LABEL_GROUP_SUMMARIES: Kind = List { of: &LABEL_GROUP_SUMMARY, min: 0, max: ANY };
static LABEL_SUMMARY: Kind = Structure(&[
    may("LabelGroupName", &LABEL_GROUP_NAME), may("LabelId", &LABEL_ID), may("LabelGroupArn", &LABEL_GROUP_ARN),
    may("StartTime", &TIMESTAMP), may("EndTime", &TIMESTAMP), may("Rating", &LABEL_RATING),
    may("FaultCode", &FAULT_CODE), may("Equipment", &EQUIPMENT), may("CreatedAt", &TIMESTAMP),
]);
static LABEL_SUMMARIES: Kind = List { of: &LABEL_SUMMARY, min: 0, max: ANY };
static MODEL_VERSION_SUMMARY: Kind = Structure(&[
    may("ModelName", &MODEL_NAME), may("ModelArn", &MODEL_ARN), may("ModelVersion", &MODEL_VERSION),
    may("ModelVersionArn", &MODEL_VERSION_ARN), may("CreatedAt", &TIMESTAMP), may("Status", &MODEL_VERSION_STATUS),
    may("SourceType", &MODEL_VERSION_SOURCE_TYPE), may("ModelQuality", &MODEL_QUALITY),
]);
static MODEL_VERSION_SUMMARIES: Kind = List { of: &MODEL_VERSION_SUMMARY, min: 0, max: ANY };
static MODEL_SUMMARY: Kind = Structure(&[
    may("ModelName", &MODEL_NAME), may("ModelArn", &MODEL_ARN), may("DatasetName", &DATASET_NAME),
    may("DatasetArn", &DATASET_ARN), may("Status", &MODEL_STATUS), may("CreatedAt", &TIMESTAMP),
    may("ActiveModelVersion", &MODEL_VERSION), may("ActiveModelVersionArn", &MODEL_VERSION_ARN),
    may("LatestScheduledRetrainingStatus", &MODEL_VERSION_STATUS),
    may("LatestScheduledRetrainingModelVersion", &MODEL_VERSION), may("LatestScheduledRetrainingStartTime", &TIMESTAMP),
    may("NextScheduledRetrainingStartDate", &TIMESTAMP), may("RetrainingSchedulerStatus", &RETRAINING_SCHEDULER_STATUS),
    may("ModelDiagnosticsOutputConfiguration", &MODEL_DIAGNOSTICS_OUTPUT_CONFIGURATION),
    may("ModelQuality", &MODEL_QUALITY),
]);
static MODEL_SUMMARIES: Kind = List { of: &MODEL_SUMMARY, min: 0, max: ANY };
static RETRAINING_SCHEDULER_SUMMARY: Kind = Structure(&[
    may("ModelName", &MODEL_NAME), may("ModelArn", &MODEL_ARN), may("Status", &RETRAINING_SCHEDULER_STATUS),
    may("RetrainingStartDate", &TIMESTAMP), may("RetrainingFrequency", &RETRAINING_FREQUENCY),
    may("LookbackWindow", &LOOKBACK_WINDOW),
]);
static RETRAINING_SCHEDULER_SUMMARIES: Kind = List { of: &RETRAINING_SCHEDULER_SUMMARY, min: 0, max: ANY };
static COUNT_PERCENT: Kind = Structure(&[
    must("Count", &INTEGER), must("Percentage", &FLOAT),
]);
static CATEGORICAL_VALUES: Kind = Structure(&[
    must("Status", &STATISTICAL_ISSUE_STATUS), may("NumberOfCategory", &INTEGER),
]);
static MULTIPLE_OPERATING_MODES: Kind = Structure(&[
    must("Status", &STATISTICAL_ISSUE_STATUS),
]);
static LARGE_TIMESTAMP_GAPS: Kind = Structure(&[
    must("Status", &STATISTICAL_ISSUE_STATUS), may("NumberOfLargeTimestampGaps", &INTEGER),
    may("MaxTimestampGapInDays", &INTEGER),
]);
static MONOTONIC_VALUES: Kind = Structure(&[
    must("Status", &STATISTICAL_ISSUE_STATUS), may("Monotonicity", &MONOTONICITY),
]);
static SENSOR_STATISTICS_SUMMARY: Kind = Structure(&[
    may("ComponentName", &COMPONENT_NAME), may("SensorName", &SENSOR_NAME), may("DataExists", &BOOLEAN),
    may("MissingValues", &COUNT_PERCENT), may("InvalidValues", &COUNT_PERCENT),
    may("InvalidDateEntries", &COUNT_PERCENT), may("DuplicateTimestamps", &COUNT_PERCENT),
    may("CategoricalValues", &CATEGORICAL_VALUES), may("MultipleOperatingModes", &MULTIPLE_OPERATING_MODES),
    may("LargeTimestampGaps", &LARGE_TIMESTAMP_GAPS), may("MonotonicValues", &MONOTONIC_VALUES),
    may("DataStartTime", &TIMESTAMP), may("DataEndTime", &TIMESTAMP),
]);
static SENSOR_STATISTICS_SUMMARIES: Kind = List { of: &SENSOR_STATISTICS_SUMMARY, min: 0, max: ANY };

/// Every operation of the API with the members of its answer; none where the body is empty.
pub static OUTPUTS: [(&str, &[Member]); 49] = [
    ("CreateDataset", &[
        may("DatasetName", &DATASET_NAME), may("DatasetArn", &DATASET_ARN), may("Status", &DATASET_STATUS),
    ]),
    ("CreateInferenceScheduler", &[
        may("InferenceSchedulerArn", &INFERENCE_SCHEDULER_ARN),
        may("InferenceSchedulerName", &INFERENCE_SCHEDULER_NAME), may("Status", &INFERENCE_SCHEDULER_STATUS),
        may("ModelQuality", &MODEL_QUALITY),
    ]),
    ("CreateLabel", &[may("LabelId", &LABEL_ID)]),
    ("CreateLabelGroup", &[may("LabelGroupName", &LABEL_GROUP_NAME), may("LabelGroupArn", &LABEL_GROUP_ARN)]),
    ("CreateModel", &[may("ModelArn", &MODEL_ARN), may("Status", &MODEL_STATUS)]),
    ("CreateRetrainingScheduler", &[
        may("ModelName", &MODEL_NAME), may("ModelArn", &MODEL_ARN), may("Status", &RETRAINING_SCHEDULER_STATUS),
    ]),
    ("DeleteDataset", &[]),
    ("DeleteInferenceScheduler", &[]),
    ("DeleteLabel", &[]),
    ("DeleteLabelGroup", &[]),
    ("DeleteModel", &[]),
    ("DeleteResourcePolicy", &[]),
    ("DeleteRetrainingScheduler", &[]),
    ("DescribeDataIngestionJob", &[
        may("JobId", &INGESTION_JOB_ID), may("DatasetArn", &DATASET_ARN),
        may("IngestionInputConfiguration", &INGESTION_INPUT_CONFIGURATION), may("RoleArn", &IAM_ROLE_ARN),
        may("CreatedAt", &TIMESTAMP), may("Status", &INGESTION_JOB_STATUS), may("FailedReason", &BOUNDED_LENGTH_STRING),
        may("DataQualitySummary", &DATA_QUALITY_SUMMARY), may("IngestedFilesSummary", &INGESTED_FILES_SUMMARY),
        may("StatusDetail", &BOUNDED_LENGTH_STRING), may("IngestedDataSize", &DATA_SIZE_IN_BYTES),
        may("DataStartTime", &TIMESTAMP), may("DataEndTime", &TIMESTAMP), may("SourceDatasetArn", &DATASET_ARN),
    ]),
    ("DescribeDataset", &[
        may("DatasetName", &DATASET_NAME), may("DatasetArn", &DATASET_ARN), may("CreatedAt", &TIMESTAMP),
        may("LastUpdatedAt", &TIMESTAMP), may("Status", &DATASET_STATUS), may("Schema", &INLINE_DATA_SCHEMA),
        may("ServerSideKmsKeyId", &KMS_KEY_ARN), may("IngestionInputConfiguration", &INGESTION_INPUT_CONFIGURATION),
        may("DataQualitySummary", &DATA_QUALITY_SUMMARY), may("IngestedFilesSummary", &INGESTED_FILES_SUMMARY),
        may("RoleArn", &IAM_ROLE_ARN), may("DataStartTime", &TIMESTAMP), may("DataEndTime", &TIMESTAMP),
        may("SourceDatasetArn", &DATASET_ARN),
    ]),
    ("DescribeInferenceScheduler", &[
        may("ModelArn", &MODEL_ARN), may("ModelName", &MODEL_NAME),
        may("InferenceSchedulerName", &INFERENCE_SCHEDULER_NAME),
        may("InferenceSchedulerArn", &INFERENCE_SCHEDULER_ARN), may("Status", &INFERENCE_SCHEDULER_STATUS),
        may("DataDelayOffsetInMinutes", &DATA_DELAY_OFFSET_IN_MINUTES),
        may("DataUploadFrequency", &DATA_UPLOAD_FREQUENCY), may("CreatedAt", &TIMESTAMP), may("UpdatedAt", &TIMESTAMP),
        may("DataInputConfiguration", &INFERENCE_INPUT_CONFIGURATION),
        may("DataOutputConfiguration", &INFERENCE_OUTPUT_CONFIGURATION), may("RoleArn", &IAM_ROLE_ARN),
        may("ServerSideKmsKeyId", &KMS_KEY_ARN), may("LatestInferenceResult", &LATEST_INFERENCE_RESULT),
    ]),
    ("DescribeLabel", &[
        may("LabelGroupName", &LABEL_GROUP_NAME), may("LabelGroupArn", &LABEL_GROUP_ARN), may("LabelId", &LABEL_ID),
        may("StartTime", &TIMESTAMP), may("EndTime", &TIMESTAMP), may("Rating", &LABEL_RATING),
        may("FaultCode", &FAULT_CODE), may("Notes", &COMMENTS), may("Equipment", &EQUIPMENT),
        may("CreatedAt", &TIMESTAMP),
    ]),
    ("DescribeLabelGroup", &[
        may("LabelGroupName", &LABEL_GROUP_NAME), may("LabelGroupArn", &LABEL_GROUP_ARN),
        may("FaultCodes", &FAULT_CODES), may("CreatedAt", &TIMESTAMP), may("UpdatedAt", &TIMESTAMP),
    ]),
    ("DescribeModel", &[
        may("ModelName", &MODEL_NAME), may("ModelArn", &MODEL_ARN), may("DatasetName", &DATASET_NAME),
        may("DatasetArn", &DATASET_ARN), may("Schema", &INLINE_DATA_SCHEMA),
        may("LabelsInputConfiguration", &LABELS_INPUT_CONFIGURATION), may("TrainingDataStartTime", &TIMESTAMP),
        may("TrainingDataEndTime", &TIMESTAMP), may("EvaluationDataStartTime", &TIMESTAMP),
        may("EvaluationDataEndTime", &TIMESTAMP), may("RoleArn", &IAM_ROLE_ARN),
        may("DataPreProcessingConfiguration", &DATA_PRE_PROCESSING_CONFIGURATION), may("Status", &MODEL_STATUS),
        may("TrainingExecutionStartTime", &TIMESTAMP), may("TrainingExecutionEndTime", &TIMESTAMP),
        may("FailedReason", &BOUNDED_LENGTH_STRING), may("ModelMetrics", &MODEL_METRICS),
        may("LastUpdatedTime", &TIMESTAMP), may("CreatedAt", &TIMESTAMP), may("ServerSideKmsKeyId", &KMS_KEY_ARN),
        may("OffCondition", &OFF_CONDITION), may("SourceModelVersionArn", &MODEL_VERSION_ARN),
        may("ImportJobStartTime", &TIMESTAMP), may("ImportJobEndTime", &TIMESTAMP),
        may("ActiveModelVersion", &MODEL_VERSION), may("ActiveModelVersionArn", &MODEL_VERSION_ARN),
        may("ModelVersionActivatedAt", &TIMESTAMP), may("PreviousActiveModelVersion", &MODEL_VERSION),
        may("PreviousActiveModelVersionArn", &MODEL_VERSION_ARN), may("PreviousModelVersionActivatedAt", &TIMESTAMP),
        may("PriorModelMetrics", &MODEL_METRICS), may("LatestScheduledRetrainingFailedReason", &BOUNDED_LENGTH_STRING),
        may("LatestScheduledRetrainingStatus", &MODEL_VERSION_STATUS),
        may("LatestScheduledRetrainingModelVersion", &MODEL_VERSION),
        may("LatestScheduledRetrainingStartTime", &TIMESTAMP),
        may("LatestScheduledRetrainingAvailableDataInDays", &INTEGER),
        may("NextScheduledRetrainingStartDate", &TIMESTAMP), may("AccumulatedInferenceDataStartTime", &TIMESTAMP),
        may("AccumulatedInferenceDataEndTime", &TIMESTAMP),
        may("RetrainingSchedulerStatus", &RETRAINING_SCHEDULER_STATUS),
        may("ModelDiagnosticsOutputConfiguration", &MODEL_DIAGNOSTICS_OUTPUT_CONFIGURATION),
        may("ModelQuality", &MODEL_QUALITY),
    ]),
    ("DescribeModelVersion", &[
        may("ModelName", &MODEL_NAME), may("ModelArn", &MODEL_ARN), may("ModelVersion", &MODEL_VERSION),
        may("ModelVersionArn", &MODEL_VERSION_ARN), may("Status", &MODEL_VERSION_STATUS),
        may("SourceType", &MODEL_VERSION_SOURCE_TYPE), may("DatasetName", &DATASET_NAME),
        may("DatasetArn", &DATASET_ARN), may("Schema", &INLINE_DATA_SCHEMA),
        may("LabelsInputConfiguration", &LABELS_INPUT_CONFIGURATION), may("TrainingDataStartTime", &TIMESTAMP),
        may("TrainingDataEndTime", &TIMESTAMP), may("EvaluationDataStartTime", &TIMESTAMP),
        may("EvaluationDataEndTime", &TIMESTAMP), may("RoleArn", &IAM_ROLE_ARN),
        may("DataPreProcessingConfiguration", &DATA_PRE_PROCESSING_CONFIGURATION),
        may("TrainingExecutionStartTime", &TIMESTAMP), may("TrainingExecutionEndTime", &TIMESTAMP),
        may("FailedReason", &BOUNDED_LENGTH_STRING), may("ModelMetrics", &MODEL_METRICS),
        may("LastUpdatedTime", &TIMESTAMP), may("CreatedAt", &TIMESTAMP), may("ServerSideKmsKeyId", &KMS_KEY_ARN),
        may("OffCondition", &OFF_CONDITION), may("SourceModelVersionArn", &MODEL_VERSION_ARN),
        may("ImportJobStartTime", &TIMESTAMP), may("ImportJobEndTime", &TIMESTAMP),
        may("ImportedDataSizeInBytes", &DATA_SIZE_IN_BYTES), may("PriorModelMetrics", &MODEL_METRICS),
        may("RetrainingAvailableDataInDays", &INTEGER), may("AutoPromotionResult", &AUTO_PROMOTION_RESULT),
        may("AutoPromotionResultReason", &AUTO_PROMOTION_RESULT_REASON),
        may("ModelDiagnosticsOutputConfiguration", &MODEL_DIAGNOSTICS_OUTPUT_CONFIGURATION),
        may("ModelDiagnosticsResultsObject", &S3_OBJECT), may("ModelQuality", &MODEL_QUALITY),
    ]),
    ("DescribeResourcePolicy", &[
        may("PolicyRevisionId", &POLICY_REVISION_ID), may("ResourcePolicy", &POLICY), may("CreationTime", &TIMESTAMP),
        may("LastModifiedTime", &TIMESTAMP),
    ]),
    ("DescribeRetrainingScheduler", &[
        may("ModelName", &MODEL_NAME), may("ModelArn", &MODEL_ARN), may("RetrainingStartDate", &TIMESTAMP),
        may("RetrainingFrequency", &RETRAINING_FREQUENCY), may("LookbackWindow", &LOOKBACK_WINDOW),
        may("Status", &RETRAINING_SCHEDULER_STATUS), may("PromoteMode", &MODEL_PROMOTE_MODE),
        may("CreatedAt", &TIMESTAMP), may("UpdatedAt", &TIMESTAMP),
    ]),
    ("ImportDataset", &[
        may("DatasetName", &DATASET_NAME), may("DatasetArn", &DATASET_ARN), may("Status", &DATASET_STATUS),
        may("JobId", &INGESTION_JOB_ID),
    ]),
    ("ImportModelVersion", &[
        may("ModelName", &MODEL_NAME), may("ModelArn", &MODEL_ARN), may("ModelVersionArn", &MODEL_VERSION_ARN),
        may("ModelVersion", &MODEL_VERSION), may("Status", &MODEL_VERSION_STATUS),
    ]),
    ("ListDataIngestionJobs", &[
        may("NextToken", &NEXT_TOKEN), may("DataIngestionJobSummaries", &DATA_INGESTION_JOB_SUMMARIES),
    ]),
    ("ListDatasets", &[may("NextToken", &NEXT_TOKEN), may("DatasetSummaries", &DATASET_SUMMARIES)]),
    ("ListInferenceEvents", &[
        may("NextToken", &NEXT_TOKEN), may("InferenceEventSummaries", &INFERENCE_EVENT_SUMMARIES),
    ]),
    ("ListInferenceExecutions", &[
        may("NextToken", &NEXT_TOKEN), may("InferenceExecutionSummaries", &INFERENCE_EXECUTION_SUMMARIES),
    ]),
    ("ListInferenceSchedulers", &[
        may("NextToken", &NEXT_TOKEN), may("InferenceSchedulerSummaries", &INFERENCE_SCHEDULER_SUMMARIES),
    ]),
    ("ListLabelGroups", &[may("NextToken", &NEXT_TOKEN), may("LabelGroupSummaries", &LABEL_GROUP_SUMMARIES)]),
    ("ListLabels", &[may("NextToken", &NEXT_TOKEN), may("LabelSummaries", &LABEL_SUMMARIES)]),
    ("ListModelVersions", &[may("NextToken", &NEXT_TOKEN), may("ModelVersionSummaries", &MODEL_VERSION_SUMMARIES)]),
    ("ListModels", &[may("NextToken", &NEXT_TOKEN), may("ModelSummaries", &MODEL_SUMMARIES)]),
    ("ListRetrainingSchedulers", &[
        may("RetrainingSchedulerSummaries", &RETRAINING_SCHEDULER_SUMMARIES), may("NextToken", &NEXT_TOKEN),
    ]),
    ("ListSensorStatistics", &[
        may("SensorStatisticsSummaries", &SENSOR_STATISTICS_SUMMARIES), may("NextToken", &NEXT_TOKEN),
    ]),
    ("ListTagsForResource", &[may("Tags", &TAG_LIST)]),
    ("PutResourcePolicy", &[may("ResourceArn", &RESOURCE_ARN), may("PolicyRevisionId", &POLICY_REVISION_ID)]),
    ("StartDataIngestionJob", &[may("JobId", &INGESTION_JOB_ID), may("Status", &INGESTION_JOB_STATUS)]),
    ("StartInferenceScheduler", &[
        may("ModelArn", &MODEL_ARN), may("ModelName", &MODEL_NAME),
        may("InferenceSchedulerName", &INFERENCE_SCHEDULER_NAME),
        may("InferenceSchedulerArn", &INFERENCE_SCHEDULER_ARN), may("Status", &INFERENCE_SCHEDULER_STATUS),
    ]),
    ("StartRetrainingScheduler", &[
        may("ModelName", &MODEL_NAME), may("ModelArn", &MODEL_ARN), may("Status", &RETRAINING_SCHEDULER_STATUS),
    ]),
    ("StopInferenceScheduler", &[
        may("ModelArn", &MODEL_ARN), may("ModelName", &MODEL_NAME),
        may("InferenceSchedulerName", &INFERENCE_SCHEDULER_NAME),
        may("InferenceSchedulerArn", &INFERENCE_SCHEDULER_ARN), may("Status", &INFERENCE_SCHEDULER_STATUS),
    ]),
    ("StopRetrainingScheduler", &[
        may("ModelName", &MODEL_NAME), may("ModelArn", &MODEL_ARN), may("Status", &RETRAINING_SCHEDULER_STATUS),
    ]),
    ("TagResource", &[]),
    ("UntagResource", &[]),
    ("UpdateActiveModelVersion", &[
        may("ModelName", &MODEL_NAME), may("ModelArn", &MODEL_ARN), may("CurrentActiveVersion", &MODEL_VERSION),
        may("PreviousActiveVersion", &MODEL_VERSION), may("CurrentActiveVersionArn", &MODEL_VERSION_ARN),
        may("PreviousActiveVersionArn", &MODEL_VERSION_ARN),
    ]),
    ("UpdateInferenceScheduler", &[]),
    ("UpdateLabelGroup", &[]),
    ("UpdateModel", &[]),
    ("UpdateRetrainingScheduler", &[]),
];
