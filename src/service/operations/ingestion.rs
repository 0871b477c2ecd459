//! StartDataIngestionJob, DescribeDataIngestionJob, ListDataIngestionJobs, ListSensorStatistics.
//!
//! The job itself runs in the background (`super::super::jobs`).

use serde_json::{Value, json};

use super::{Request, answer, maybe_time, time};
use crate::service::faults::Fault;
use crate::service::jobs::key_pattern;
use crate::service::store::ingestion::{JobStatus, JobsAsked, NewIngestion};

/// StartDataIngestionJob.
pub async fn start(request: &Request<'_>) -> Result<Value, Fault> {
    let given = request.input;
    let input = given.get("IngestionInputConfiguration").cloned();
    let input = input.unwrap_or_default();
    if let Some(pattern) = input["S3InputConfiguration"]["KeyPattern"].as_str() {
        key_pattern(pattern).map_err(Fault::validation)?;
    }
    let new = NewIngestion {
        dataset: given.required("DatasetName")?.to_owned(),
        job_id: uuid::Uuid::new_v4().simple().to_string(),
        input,
        role_arn: given.required("RoleArn")?.to_owned(),
    };
    let made = request
        .store
        .start_ingestion(request.once(), new, request.now);
    answer(made.await?)
}

/// DescribeDataIngestionJob.
pub async fn describe(request: &Request<'_>) -> Result<Value, Fault> {
    let id = request.input.required("JobId")?;
    let job = request.store.ingestion_job(id).await?;
    Ok(json!({
        "JobId": job.id,
        "DatasetArn": job.dataset_arn,
        "IngestionInputConfiguration": job.input,
        "RoleArn": job.role_arn,
        "CreatedAt": time(job.created_us),
        "Status": job.status,
        "FailedReason": job.failed_reason,
        "DataQualitySummary": job.quality,
        "IngestedFilesSummary": job.files,
        "IngestedDataSize": job.size,
        "DataStartTime": maybe_time(job.start_us),
        "DataEndTime": maybe_time(job.end_us),
        "SourceDatasetArn": job.source_arn,
    }))
}

/// ListDataIngestionJobs, newest first.
pub async fn list(request: &Request<'_>) -> Result<Value, Fault> {
    let page = request.page("ingestion jobs")?;
    let after = page.after().and_then(|key| key.split_once(' '));
    let asked = JobsAsked {
        dataset: request.input.text("DatasetName").map(str::to_owned),
        status: request.input.text("Status").and_then(JobStatus::from_sql),
        after: after.and_then(|(created, id)| Some((created.parse().ok()?, id.to_owned()))),
        limit: page.limit(),
    };
    let jobs = request.store.ingestion_jobs(asked).await?;
    let items = jobs.into_iter().map(|job| {
        let summary = json!({
            "JobId": job.id,
            "DatasetName": job.dataset_name,
            "DatasetArn": job.dataset_arn,
            "IngestionInputConfiguration": job.input,
            "Status": job.status,
        });
        (format!("{} {}", job.created_us, job.id), summary)
    });
    let (summaries, next) = page.cut(items.collect());
    Ok(json!({"NextToken": next, "DataIngestionJobSummaries": summaries}))
}

/// ListSensorStatistics of a job, by default the one whose rows the dataset holds; by component and sensor as strings.
pub async fn statistics(request: &Request<'_>) -> Result<Value, Fault> {
    let dataset = request.input.required("DatasetName")?;
    let job = request.input.text("IngestionJobId").map(str::to_owned);
    let page = request.page(&format!("statistics of {dataset}"))?;
    let after = page.after().and_then(|key| key.split_once('\\'));
    let (component, sensor) = after.unwrap_or_default();
    let found = request
        .store
        .sensor_statistics(
            dataset,
            job,
            (component.to_owned(), sensor.to_owned()),
            page.limit(),
        )
        .await?;
    let items = found
        .into_iter()
        .map(|(component, sensor, summary)| (format!("{component}\\{sensor}"), summary));
    let (summaries, next) = page.cut(items.collect());
    Ok(json!({"SensorStatisticsSummaries": summaries, "NextToken": next}))
}
