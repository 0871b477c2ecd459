//! Executions as the API lists them.
//!
//! Guarantees: a page is read with one call and nothing is read twice by it; an entry without a data start is left out,
//! because that is its identity. An execution is known by (scheduler, data start) everywhere here.

use aws_sdk_lookoutequipment::Client;
use aws_sdk_lookoutequipment::types::{InferenceExecutionStatus, InferenceExecutionSummary};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::api::{ApiError, from_wire, to_wire};

/// One run of a scheduler over one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// The scheduler's name.
    pub scheduler: String,
    /// The model's name.
    pub model: String,
    /// The model's version, where the service has versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_version: Option<i64>,
    /// When it was scheduled, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<DateTime<Utc>>,
    /// Start of its window, UTC, not included.
    pub data_start: DateTime<Utc>,
    /// End of its window, UTC, included.
    pub data_end: DateTime<Utc>,
    /// IN_PROGRESS, SUCCESS or FAILED.
    pub status: String,
    /// Why it failed, in the service's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_reason: Option<String>,
    /// Where its results lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<ResultObject>,
    /// Where it looked for input, `s3://bucket/prefix`.
    pub input: String,
}

/// The object that holds an execution's results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultObject {
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
}

/// Which executions to list. Whether the service takes the times as inclusive is not documented: leave room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `DataStartTimeAfter`.
    pub after: Option<DateTime<Utc>>,
    /// `DataEndTimeBefore`.
    pub before: Option<DateTime<Utc>>,
    /// `Status`.
    pub status: Option<String>,
}

/// One page of executions, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// The executions.
    pub executions: Vec<Execution>,
    /// The token of the next page.
    pub next: Option<String>,
}

/// Executions on a page, the most the service allows.
const PAGE: i32 = 500;

/// One page of a scheduler's executions. A scheduler that does not exist has none.
pub async fn list_executions(
    client: &Client,
    scheduler: &str,
    filter: &Filter,
    token: Option<String>,
) -> Result<ListPage, ApiError> {
    let answer = client
        .list_inference_executions()
        .inference_scheduler_name(scheduler)
        .set_data_start_time_after(filter.after.map(to_wire))
        .set_data_end_time_before(filter.before.map(to_wire))
        .set_status(filter.status.as_deref().map(InferenceExecutionStatus::from))
        .max_results(PAGE)
        .set_next_token(token)
        .send()
        .await
        .map_err(ApiError::of("ListInferenceExecutions"));
    match answer {
        Ok(page) => Ok(ListPage {
            next: page.next_token().map(str::to_owned),
            executions: page
                .inference_execution_summaries()
                .iter()
                .filter_map(|summary| Execution::read(summary, scheduler))
                .collect(),
        }),
        Err(error) if error.is_not_found() => Ok(ListPage {
            executions: Vec::new(),
            next: None,
        }),
        Err(error) => Err(error),
    }
}

impl Execution {
    /// Whether it has come to its end.
    pub fn is_final(&self) -> bool {
        self.status != "IN_PROGRESS"
    }

    /// Its window for people, `start..end`.
    pub fn window(&self) -> String {
        let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        format!("{}..{}", text(self.data_start), text(self.data_end))
    }

    fn read(summary: &InferenceExecutionSummary, scheduler: &str) -> Option<Self> {
        let input = summary
            .data_input_configuration()
            .and_then(|input| input.s3_input_configuration());
        Some(Self {
            scheduler: scheduler.to_owned(),
            model: summary.model_name().unwrap_or_default().to_owned(),
            model_version: summary.model_version(),
            scheduled: summary.scheduled_start_time().and_then(from_wire),
            data_start: summary.data_start_time().and_then(from_wire)?,
            data_end: summary.data_end_time().and_then(from_wire)?,
            status: summary.status()?.as_str().to_owned(),
            failed_reason: summary.failed_reason().map(str::to_owned),
            result: summary.customer_result_object().map(|object| ResultObject {
                bucket: object.bucket().to_owned(),
                key: object.key().to_owned(),
            }),
            input: input.map_or_else(String::new, |input| {
                format!(
                    "s3://{}/{}",
                    input.bucket(),
                    input.prefix().unwrap_or_default()
                )
            }),
        })
    }
}
