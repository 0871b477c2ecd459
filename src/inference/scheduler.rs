//! One inference scheduler as it is and as it is to be, and the calls that change it.
//!
//! [`Described::differences`] is pure: field, what it has, what it should have. What the service cannot change (name, model,
//! tags) is not among them; a wrong model is an error of [`ensure`](super::ensure()).

use aws_sdk_lookoutequipment::Client;
use aws_sdk_lookoutequipment::operation::describe_inference_scheduler::DescribeInferenceSchedulerOutput;
use aws_sdk_lookoutequipment::types::{
    DataUploadFrequency, InferenceInputConfiguration, InferenceInputNameConfiguration,
    InferenceOutputConfiguration, InferenceS3InputConfiguration, InferenceS3OutputConfiguration,
    InferenceSchedulerStatus, InferenceSchedulerSummary, Tag,
};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::Wanted;
use super::api::{ApiError, from_wire};
use crate::signal::{Cadence, NameFormat};

/// What the scheduler is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its name.
    pub scheduler: String,
    /// Its model.
    pub model: String,
    /// What it is kept as.
    pub wanted: Wanted,
    /// `DataUploadFrequency`: the cadence of the feed.
    pub cadence: Cadence,
    /// Stamp, delimiter and time-zone offset: the naming of the feed.
    pub naming: NameFormat,
    /// `DataDelayOffsetInMinutes`.
    pub delay_minutes: i64,
    /// Where it finds the input files.
    pub input_bucket: String,
    /// Their key prefix.
    pub input_prefix: String,
    /// Where it puts results.
    pub output_bucket: String,
    /// Their key prefix.
    pub output_prefix: String,
    /// The role the service takes.
    pub role_arn: String,
    /// Tags for its creation.
    pub tags: Vec<(String, String)>,
}

/// What the scheduler is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Its model.
    pub model: String,
    /// PENDING, RUNNING, STOPPING or STOPPED.
    pub status: String,
    /// `DataUploadFrequency`.
    pub frequency: String,
    /// `DataDelayOffsetInMinutes`.
    pub delay_minutes: i64,
    /// Bucket of the input files.
    pub input_bucket: String,
    /// Their key prefix.
    pub input_prefix: String,
    /// `TimestampFormat`, where one was given.
    pub timestamp_format: Option<String>,
    /// `ComponentTimestampDelimiter`, where one was given.
    pub delimiter: Option<String>,
    /// `InputTimeZoneOffset`.
    pub zone_offset: String,
    /// Bucket of the results.
    pub output_bucket: String,
    /// Their key prefix.
    pub output_prefix: String,
    /// The role the service takes.
    pub role_arn: String,
    /// ANOMALOUS or NORMAL, once there was a result.
    pub latest_result: Option<String>,
    /// When it was created.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last changed.
    pub updated_at: Option<DateTime<Utc>>,
}

/// One thing in which the scheduler is not what it is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The API's name of it.
    pub field: &'static str,
    /// What the scheduler has.
    pub have: String,
    /// What the configuration wants.
    pub want: String,
    /// The configuration key that says so.
    pub key: &'static str,
}

/// Describes a scheduler; `None` where there is none of that name.
pub async fn describe(client: &Client, scheduler: &str) -> Result<Option<Described>, ApiError> {
    let answer = client
        .describe_inference_scheduler()
        .inference_scheduler_name(scheduler)
        .send()
        .await
        .map_err(ApiError::of("DescribeInferenceScheduler"));
    match answer {
        Ok(output) => Ok(Some(Described::from(output))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Schedulers on a page, the most the service allows.
const PAGE: i32 = 500;

/// Every scheduler whose name begins with `prefix`.
pub async fn list_schedulers(
    client: &Client,
    prefix: &str,
) -> Result<Vec<InferenceSchedulerSummary>, ApiError> {
    let mut found = Vec::new();
    let mut token = None;
    loop {
        let page = client
            .list_inference_schedulers()
            .set_inference_scheduler_name_begins_with(
                (!prefix.is_empty()).then(|| prefix.to_owned()),
            )
            .max_results(PAGE)
            .set_next_token(token)
            .send()
            .await
            .map_err(ApiError::of("ListInferenceSchedulers"))?;
        token = page.next_token().map(str::to_owned);
        found.extend(page.inference_scheduler_summaries.unwrap_or_default());
        if token.is_none() {
            return Ok(found);
        }
    }
}

// === impl Target ===

impl Target {
    /// Asks for the scheduler to be created, which also starts it.
    pub async fn create(&self, client: &Client) -> Result<(), ApiError> {
        let tags: Vec<Tag> = self
            .tags
            .iter()
            .filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok())
            .collect();
        client
            .create_inference_scheduler()
            .inference_scheduler_name(&self.scheduler)
            .model_name(&self.model)
            .data_upload_frequency(self.frequency())
            .data_delay_offset_in_minutes(self.delay_minutes)
            .data_input_configuration(self.input())
            .data_output_configuration(self.output())
            .role_arn(&self.role_arn)
            .set_tags((!tags.is_empty()).then_some(tags))
            .send()
            .await
            .map_err(ApiError::of("CreateInferenceScheduler"))?;
        Ok(())
    }

    /// Brings a stopped scheduler to the configuration.
    pub async fn update(&self, client: &Client) -> Result<(), ApiError> {
        client
            .update_inference_scheduler()
            .inference_scheduler_name(&self.scheduler)
            .data_upload_frequency(self.frequency())
            .data_delay_offset_in_minutes(self.delay_minutes)
            .data_input_configuration(self.input())
            .data_output_configuration(self.output())
            .role_arn(&self.role_arn)
            .send()
            .await
            .map_err(ApiError::of("UpdateInferenceScheduler"))?;
        Ok(())
    }

    /// Starts the stopped scheduler.
    pub async fn start(&self, client: &Client) -> Result<(), ApiError> {
        client
            .start_inference_scheduler()
            .inference_scheduler_name(&self.scheduler)
            .send()
            .await
            .map_err(ApiError::of("StartInferenceScheduler"))?;
        Ok(())
    }

    /// Stops the running scheduler.
    pub async fn stop(&self, client: &Client) -> Result<(), ApiError> {
        client
            .stop_inference_scheduler()
            .inference_scheduler_name(&self.scheduler)
            .send()
            .await
            .map_err(ApiError::of("StopInferenceScheduler"))?;
        Ok(())
    }

    fn frequency(&self) -> DataUploadFrequency {
        DataUploadFrequency::from(self.cadence.as_str())
    }

    fn input(&self) -> InferenceInputConfiguration {
        InferenceInputConfiguration::builder()
            // Building fails only without a bucket, which is set.
            .set_s3_input_configuration(
                InferenceS3InputConfiguration::builder()
                    .bucket(&self.input_bucket)
                    .prefix(&self.input_prefix)
                    .build()
                    .ok(),
            )
            .input_time_zone_offset(self.naming.zone_offset.to_string())
            .inference_input_name_configuration(
                InferenceInputNameConfiguration::builder()
                    .timestamp_format(self.naming.timestamp.to_string())
                    .component_timestamp_delimiter(self.naming.delimiter.as_str())
                    .build(),
            )
            .build()
    }

    fn output(&self) -> InferenceOutputConfiguration {
        InferenceOutputConfiguration::builder()
            .set_s3_output_configuration(
                InferenceS3OutputConfiguration::builder()
                    .bucket(&self.output_bucket)
                    .prefix(&self.output_prefix)
                    .build()
                    .ok(),
            )
            .build()
    }
}

// === impl Described ===

impl Described {
    /// In what the scheduler differs from what it is to be, of the things that can be changed. What it was never told is
    /// compared with what the service assumes then (contract 3.5, 3.6).
    pub fn differences(&self, target: &Target) -> Vec<Difference> {
        let naming = &target.naming;
        let delay = target.delay_minutes.to_string();
        let fields: [(&str, &str, String, String); 10] = [
            (
                "DataUploadFrequency",
                "feed.cadence",
                self.frequency.clone(),
                target.cadence.to_string(),
            ),
            (
                "DataDelayOffsetInMinutes",
                "inference.delay_offset_minutes",
                self.delay_minutes.to_string(),
                delay,
            ),
            (
                "S3InputConfiguration.Bucket",
                "s3.bucket",
                self.input_bucket.clone(),
                target.input_bucket.clone(),
            ),
            (
                "S3InputConfiguration.Prefix",
                "s3.input_prefix",
                self.input_prefix.clone(),
                target.input_prefix.clone(),
            ),
            (
                "TimestampFormat",
                "naming.timestamp",
                self.timestamp_format
                    .clone()
                    .unwrap_or_else(|| "yyyyMMddHHmmss".into()),
                naming.timestamp.to_string(),
            ),
            (
                "ComponentTimestampDelimiter",
                "naming.delimiter",
                self.delimiter.clone().unwrap_or_else(|| "-".into()),
                naming.delimiter.as_str().to_owned(),
            ),
            (
                "InputTimeZoneOffset",
                "naming.zone_offset",
                self.zone_offset.replace("-00:00", "+00:00"),
                naming.zone_offset.to_string(),
            ),
            (
                "S3OutputConfiguration.Bucket",
                "inference.output_bucket",
                self.output_bucket.clone(),
                target.output_bucket.clone(),
            ),
            (
                "S3OutputConfiguration.Prefix",
                "inference.output_prefix",
                self.output_prefix.clone(),
                target.output_prefix.clone(),
            ),
            (
                "RoleArn",
                "inference.role_arn",
                self.role_arn.clone(),
                target.role_arn.clone(),
            ),
        ];
        fields
            .into_iter()
            .filter(|(_, _, have, want)| have != want)
            .map(|(field, key, have, want)| Difference {
                field,
                have,
                want,
                key,
            })
            .collect()
    }
}

impl From<DescribeInferenceSchedulerOutput> for Described {
    fn from(output: DescribeInferenceSchedulerOutput) -> Self {
        let input = output.data_input_configuration();
        let s3 = input.and_then(|input| input.s3_input_configuration());
        let naming = input.and_then(|input| input.inference_input_name_configuration());
        let results = output
            .data_output_configuration()
            .and_then(|results| results.s3_output_configuration());
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Self {
            name: text(output.inference_scheduler_name()),
            arn: text(output.inference_scheduler_arn()),
            model: text(output.model_name()),
            status: text(output.status().map(InferenceSchedulerStatus::as_str)),
            frequency: text(
                output
                    .data_upload_frequency()
                    .map(DataUploadFrequency::as_str),
            ),
            delay_minutes: output.data_delay_offset_in_minutes().unwrap_or(0),
            input_bucket: s3.map(|s3| s3.bucket().to_owned()).unwrap_or_default(),
            input_prefix: text(s3.and_then(|s3| s3.prefix())),
            timestamp_format: naming
                .and_then(|naming| naming.timestamp_format())
                .map(str::to_owned),
            delimiter: naming
                .and_then(|naming| naming.component_timestamp_delimiter())
                .map(str::to_owned),
            zone_offset: input
                .and_then(|input| input.input_time_zone_offset())
                .unwrap_or("+00:00")
                .to_owned(),
            output_bucket: results
                .map(|results| results.bucket().to_owned())
                .unwrap_or_default(),
            output_prefix: text(results.and_then(|results| results.prefix())),
            role_arn: text(output.role_arn()),
            latest_result: output
                .latest_inference_result()
                .map(|result| result.as_str().to_owned()),
            created_at: output.created_at().and_then(from_wire),
            updated_at: output.updated_at().and_then(from_wire),
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: the scheduler has \"{}\", {} says \"{}\"",
            self.field, self.have, self.key, self.want
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn target(wanted: Wanted) -> Target {
        Target {
            scheduler: "s".into(),
            model: "m".into(),
            wanted,
            cadence: Cadence::Pt5m,
            naming: NameFormat::default(),
            delay_minutes: 0,
            input_bucket: "b".into(),
            input_prefix: "input/".into(),
            output_bucket: "b".into(),
            output_prefix: "output/".into(),
            role_arn: "arn:aws:iam::123456789012:role/r".into(),
            tags: Vec::new(),
        }
    }

    pub fn described(status: &str) -> Described {
        let target = target(Wanted::Running);
        Described {
            name: target.scheduler,
            arn: "arn".into(),
            model: target.model,
            status: status.into(),
            frequency: "PT5M".into(),
            delay_minutes: 0,
            input_bucket: target.input_bucket,
            input_prefix: target.input_prefix,
            timestamp_format: Some("yyyyMMddHHmmss".into()),
            delimiter: Some("_".into()),
            zone_offset: "-00:00".into(),
            output_bucket: target.output_bucket,
            output_prefix: target.output_prefix,
            role_arn: target.role_arn,
            latest_result: None,
            created_at: None,
            updated_at: None,
        }
    }

    #[test]
    fn every_changeable_field_is_compared() {
        let want = target(Wanted::Running);
        assert_eq!(described("RUNNING").differences(&want), []);
        let have = Described {
            frequency: "PT1H".into(),
            delay_minutes: 5,
            input_bucket: "other".into(),
            input_prefix: "in/".into(),
            timestamp_format: Some("EPOCH".into()),
            delimiter: None,
            zone_offset: "+05:30".into(),
            output_bucket: "other".into(),
            output_prefix: "out/".into(),
            role_arn: "arn:aws:iam::123456789012:role/q".into(),
            ..described("RUNNING")
        };
        let differences = have.differences(&want);
        assert_eq!(differences.len(), 10);
        let delimiter = &differences[5];
        assert_eq!(
            delimiter.to_string(),
            "ComponentTimestampDelimiter: the scheduler has \"-\", naming.delimiter says \"_\""
        );
    }
}
