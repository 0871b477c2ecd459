//! The models of the API: `lookoutd model list|show|delete`, and training from one of its datasets.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_sdk_lookoutequipment::operation::describe_model::DescribeModelOutput;
use aws_sdk_lookoutequipment::types::{
    DataPreProcessingConfiguration, LabelsInputConfiguration, LabelsS3InputConfiguration,
    ModelStatus, TargetSamplingRate,
};
use aws_smithy_types::DateTime as Wire;
use chrono::{DateTime, Utc};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::TrainArgs;
use crate::cli::output::{self, Output};
use crate::cli::{ConfigArgs, lookout, runtime};
use crate::inference::ApiError;

/// How often a training is asked about.
const POLL: Duration = Duration::from_millis(500);

/// Arguments of `model list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd model list --config lookoutd.toml")]
pub struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Arguments of `model show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd model show pump-model --config lookoutd.toml")]
pub struct ShowArgs {
    /// The model
    name: String,
    #[command(flatten)]
    config: ConfigArgs,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Arguments of `model delete`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd scheduler delete pump-scheduler --wait && lookoutd model delete pump-model")]
pub struct DeleteArgs {
    /// The model; its schedulers must be deleted first
    name: String,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Where `model train` finds a dataset instead of a file.
#[derive(Debug, Args)]
pub struct DatasetArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Trains from this ingested dataset of the API instead of a file; progress is in the service's log
    #[arg(long, value_name = "NAME", requires = "name", conflicts_with_all = ["history", "out"])]
    pub dataset: Option<String>,
    /// Name of the new model, with --dataset
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Labels in S3, with --dataset: s3://bucket/prefix/
    #[arg(long, value_name = "S3", requires = "dataset")]
    pub labels_s3: Option<String>,
}

/// One model of the API.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    status: String,
    dataset: String,
    created_at: Option<String>,
    active_version: Option<i64>,
}

/// All there is to say of one model.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    status: String,
    dataset: String,
    arn: String,
    created_at: Option<String>,
    failed_reason: Option<String>,
    training: [Option<String>; 2],
    evaluation: [Option<String>; 2],
    sampling: Option<String>,
    off_condition: Option<String>,
    quality: Option<String>,
    active_version: Option<i64>,
    metrics: Option<serde_json::Value>,
}

pub fn list(args: &ListArgs) -> Result<ExitCode> {
    runtime()?.block_on(async {
        let client = lookout::api(&args.config.load()?.config).await?;
        let (mut found, mut token) = (Vec::new(), None);
        loop {
            let page = client
                .list_models()
                .set_next_token(token)
                .send()
                .await
                .map_err(ApiError::of("ListModels"))?;
            for model in page.model_summaries() {
                found.push(Listed {
                    name: text(model.model_name()),
                    status: text(model.status().map(ModelStatus::as_str)),
                    dataset: text(model.dataset_name()),
                    created_at: model.created_at().and_then(time),
                    active_version: model.active_model_version(),
                });
            }
            token = page.next_token().map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        if args.output == Output::Json {
            output::json(&found)?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<_> = found
            .into_iter()
            .map(|model| {
                vec![
                    model.name,
                    model.status,
                    model
                        .active_version
                        .map_or_else(String::new, |version| version.to_string()),
                    model.dataset,
                    model.created_at.unwrap_or_default(),
                ]
            })
            .collect();
        output::table(&["MODEL", "STATUS", "VERSION", "DATASET", "CREATED"], &rows);
        Ok(ExitCode::SUCCESS)
    })
}

pub fn show(args: &ShowArgs) -> Result<ExitCode> {
    runtime()?.block_on(async {
        let client = lookout::api(&args.config.load()?.config).await?;
        let model = client
            .describe_model()
            .model_name(&args.name)
            .send()
            .await
            .map_err(ApiError::of("DescribeModel"))?;
        let shown = Shown::of(&model)?;
        if args.output == Output::Json {
            output::json(&shown)?;
        } else {
            shown.print();
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub fn delete(args: &DeleteArgs) -> Result<ExitCode> {
    runtime()?.block_on(async {
        let client = lookout::api(&args.config.load()?.config).await?;
        client
            .delete_model()
            .model_name(&args.name)
            .send()
            .await
            .map_err(ApiError::of("DeleteModel"))?;
        say!("model {} is deleted", args.name);
        Ok(ExitCode::SUCCESS)
    })
}

/// Has the API train a model from a dataset, and waits for it.
pub fn train(args: &TrainArgs, dataset: &str, ranges: Option<[(i64, i64); 2]>) -> Result<ExitCode> {
    let name = args
        .from_api
        .name
        .as_deref()
        .context("--name is needed with --dataset")?;
    runtime()?.block_on(async {
        let config = args.from_api.config.load()?.config;
        let client = lookout::api(&config).await?;
        let mut request = client
            .create_model()
            .model_name(name)
            .dataset_name(dataset)
            .client_token(uuid::Uuid::new_v4().to_string())
            .role_arn(&config.inference.role_arn);
        if let Some([(start, end), (evaluation_start, evaluation_end)]) = ranges {
            request = request
                .training_data_start_time(wire(start))
                .training_data_end_time(wire(end))
                .evaluation_data_start_time(wire(evaluation_start))
                .evaluation_data_end_time(wire(evaluation_end));
        }
        if let Some(sampling) = args.sampling {
            request = request.data_pre_processing_configuration(
                DataPreProcessingConfiguration::builder()
                    .target_sampling_rate(TargetSamplingRate::from(sampling.to_string().as_str()))
                    .build(),
            );
        }
        if let Some(off) = &args.off {
            request = request.off_condition(off.to_string());
        }
        if let Some(labels) = &args.from_api.labels_s3 {
            let (bucket, prefix) = labels
                .strip_prefix("s3://")
                .and_then(|rest| rest.split_once('/'))
                .with_context(|| {
                    format!("--labels-s3 \"{labels}\": write it as s3://bucket/prefix/")
                })?;
            request = request.labels_input_configuration(
                LabelsInputConfiguration::builder()
                    .s3_input_configuration(
                        LabelsS3InputConfiguration::builder()
                            .bucket(bucket)
                            .prefix(prefix)
                            .build()?,
                    )
                    .build(),
            );
        }
        request.send().await.map_err(ApiError::of("CreateModel"))?;
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
            "{spinner} training {msg} for {elapsed}",
        )?);
        bar.set_message(name.to_owned());
        let model = loop {
            bar.tick();
            let model = client
                .describe_model()
                .model_name(name)
                .send()
                .await
                .map_err(ApiError::of("DescribeModel"))?;
            if model.status() != Some(&ModelStatus::InProgress) {
                break model;
            }
            tokio::time::sleep(POLL).await;
        };
        bar.finish_and_clear();
        let shown = Shown::of(&model)?;
        if model.status() != Some(&ModelStatus::Success) {
            bail!(
                "model {name} is {}: {}",
                shown.status,
                shown.failed_reason.as_deref().unwrap_or("no reason given")
            );
        }
        shown.print();
        Ok(ExitCode::SUCCESS)
    })
}

impl Shown {
    fn of(model: &DescribeModelOutput) -> Result<Self> {
        Ok(Self {
            name: text(model.model_name()),
            status: text(model.status().map(ModelStatus::as_str)),
            dataset: text(model.dataset_name()),
            arn: text(model.model_arn()),
            created_at: model.created_at().and_then(time),
            failed_reason: model.failed_reason().map(str::to_owned),
            training: [
                model.training_data_start_time().and_then(time),
                model.training_data_end_time().and_then(time),
            ],
            evaluation: [
                model.evaluation_data_start_time().and_then(time),
                model.evaluation_data_end_time().and_then(time),
            ],
            sampling: model
                .data_pre_processing_configuration()
                .and_then(|given| given.target_sampling_rate())
                .map(|rate| rate.as_str().to_owned()),
            off_condition: model.off_condition().map(str::to_owned),
            quality: model
                .model_quality()
                .map(|quality| quality.as_str().to_owned()),
            active_version: model.active_model_version(),
            metrics: model
                .model_metrics()
                .map(serde_json::from_str)
                .transpose()
                .context("ModelMetrics is not JSON")?,
        })
    }

    fn print(&self) {
        let line = |name: &str, value: &str| say!("{name:<12} {value}");
        line("model", &self.name);
        line("status", &self.status);
        if let Some(reason) = &self.failed_reason {
            line("why", reason);
        }
        line("dataset", &self.dataset);
        line("arn", &self.arn);
        for (name, value) in [
            ("created", &self.created_at),
            ("sampling", &self.sampling),
            ("off", &self.off_condition),
            ("quality", &self.quality),
        ] {
            if let Some(value) = value {
                line(name, value);
            }
        }
        if let Some(version) = self.active_version {
            line("version", &version.to_string());
        }
        for (name, range) in [
            ("trained on", &self.training),
            ("evaluated on", &self.evaluation),
        ] {
            if let [Some(start), Some(end)] = range {
                line(name, &format!("{start} to {end}"));
            }
        }
        let Some(metrics) = &self.metrics else {
            return;
        };
        let events = &metrics["labeled_event_metrics"];
        if !events.is_null() {
            line(
                "events",
                &format!(
                    "{} of {} labelled events found, {} other detections",
                    events["num_identified"],
                    events["num_labeled"],
                    metrics["unknown_event_metrics"]["num_identified"]
                ),
            );
        }
    }
}

fn text(value: Option<&str>) -> String {
    value.unwrap_or("-").to_owned()
}

fn time(wire: &Wire) -> Option<String> {
    DateTime::<Utc>::from_timestamp(wire.secs(), 0).map(output::utc)
}

fn wire(micros: i64) -> Wire {
    Wire::from_secs(micros.div_euclid(1_000_000))
}
