//! Training, retraining and model imports.
//!
//! A version is trained on the rows its dataset held when the training was asked for, evaluated on its evaluation range,
//! and becomes active if it is the model's first or its retraining scheduler promotes it. The model file is durable before
//! the version is SUCCESS.

use std::io::Write;

use anyhow::{Context, Result, anyhow, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::objects::Objects;
use super::{Jobs, labels, with};
use crate::model::evaluate::{Evaluation, Evaluator, ModelQuality};
use crate::model::metrics::model_metrics;
use crate::model::{Model, Options, Rows, Sampling, Span, Training};
use crate::service::faults::Fault;
use crate::service::files::Dataset;
use crate::service::history::History;
use crate::service::options::ResultsFormat;
use crate::service::runner::results;
use crate::service::schema::Schema;
use crate::service::store::making::{self, Making};
use crate::service::store::versions::SourceType;
use crate::service::store::with_range;

/// Sensors a model may learn (contract 4.4).
const MOST_SENSORS: usize = 300;
/// Rows a training may have after resampling, and an evaluation (contract 4.4).
const MOST_ROWS: usize = 1_500_000;

/// A version that was made.
struct Made {
    file: Vec<u8>,
    metrics: Option<String>,
    prior_metrics: Option<String>,
    quality: ModelQuality,
    /// The range it was trained on.
    trained: Span,
    /// For a retraining: whether it is to become active, and why.
    promotion: Option<(bool, &'static str)>,
    /// Gzipped result lines of the diagnosed range.
    diagnostics: Option<Vec<u8>>,
}

/// Makes the oldest version that is to be made; false if there is none.
pub async fn next(jobs: &Jobs) -> Result<bool, Fault> {
    let Some(job) = jobs.store.next_to_make(jobs.clock.now()).await? else {
        return Ok(false);
    };
    tracing::info!(
        model = job.model,
        version = job.version,
        source = %job.source_type,
        "training started"
    );
    let made = match &job.file {
        Some(file) => import(jobs, file).await,
        None => train(jobs, &job).await,
    };
    let outcome = match made {
        Ok(made) => keep(jobs, &job, made).await,
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        let reason = format!("{error:#}");
        tracing::warn!(
            model = job.model,
            version = job.version,
            reason,
            "training failed"
        );
        let now = jobs.clock.now();
        jobs.store.version_failed(&job, &reason, now).await?;
    }
    Ok(true)
}

async fn import(jobs: &Jobs, file: &str) -> Result<Made> {
    let (files, name) = (jobs.store.files().clone(), file.to_owned());
    let file = tokio::task::spawn_blocking(move || files.model(&name)).await??;
    let model = Model::decode(&file).context("the source's model file is unusable")?;
    let quality = ModelQuality::CannotDetermineQuality;
    Ok(Made {
        file,
        metrics: None,
        prior_metrics: None,
        quality,
        trained: model.training_range(),
        promotion: None,
        diagnostics: None,
    })
}

async fn train(jobs: &Jobs, job: &Making) -> Result<Made> {
    let labels = labels::read(jobs, &job.detail["LabelsInputConfiguration"]).await?;
    let Some(name) = job.dataset_file.clone() else {
        bail!("the version has no dataset to be trained on")
    };
    let files = jobs.store.files().clone();
    let prior = job
        .active
        .clone()
        .filter(|_| job.source_type == SourceType::Retraining)
        .and_then(|(_, file)| file);
    let job = job.clone();
    tokio::task::spawn_blocking(move || {
        let prior = prior
            .map(|file| -> Result<Model> { Ok(Model::decode(&files.model(&file)?)?) })
            .transpose()?;
        let dataset = files.dataset(&name)?;
        dataset.verify()?;
        make(&job, &dataset, labels, prior.as_ref())
    })
    .await?
}

/// Fits, evaluates and diagnoses.
fn make(job: &Making, dataset: &Dataset, labels: Vec<Span>, prior: Option<&Model>) -> Result<Made> {
    let schema = Schema::read(&job.schema)
        .map_err(|problem| anyhow!("the model's schema is damaged: {problem}"))?;
    let sensors = schema.sensor_count();
    if sensors > MOST_SENSORS {
        bail!(
            "The model has {sensors} sensors, the limit of a training is {MOST_SENSORS}: create it with a DatasetSchema of \
             fewer"
        );
    }
    let at = |name: &str| {
        job.detail[name]
            .as_f64()
            .map(|seconds| (seconds * 1e6) as i64)
    };
    let evaluation = at("EvaluationDataStartTime").zip(at("EvaluationDataEndTime"));
    let from = at("TrainingDataStartTime");
    // Without an end the training range ends where the evaluation begins, so that a model is not judged on what it learned.
    // Of two ranges that meet the instant between them is the evaluation's.
    let to = at("TrainingDataEndTime");
    let to = match evaluation {
        Some((start, _)) if to.is_none_or(|to| to == start) => Some(start - 1),
        _ => to,
    };
    let mut history = History::open(
        dataset,
        &schema,
        from.unwrap_or(i64::MIN),
        to.unwrap_or(i64::MAX),
    )?;
    let sampling = job.detail["DataPreProcessingConfiguration"]["TargetSamplingRate"].as_str();
    let options = Options {
        sampling: sampling.map(str::parse).transpose()?,
        off: job.detail["OffCondition"]
            .as_str()
            .map(str::parse)
            .transpose()?,
        ..Options::default()
    };
    let mut count = RowCount::at(options.sampling);
    let training = Training {
        sensors: history.sensors().to_vec(),
        labels: labels.clone(),
        from,
        to,
        rows: Box::new(move || {
            let block = history.next_block()?;
            block.iter().try_for_each(|rows| count.add(rows))?;
            Ok(block)
        }),
    };
    let mut stage = None;
    let model = Model::fit(training, &options, &mut |progress| {
        if stage.replace(progress.stage) != Some(progress.stage) {
            let step = progress.stage.as_str();
            tracing::info!(
                model = job.model,
                version = job.version,
                step,
                rows = progress.total,
                "training"
            );
        }
    })?;
    for warning in model.warnings() {
        tracing::warn!(model = job.model, %warning, "training data");
    }
    // With the rows before a range, which prime the detector.
    let open = |model: &Model, (start, end): (i64, i64)| {
        let primed = start.saturating_sub(model.priming_us());
        Ok::<_, anyhow::Error>((History::open(dataset, &schema, primed, end)?, start))
    };
    let judged = evaluation
        .map(|range| evaluate(&model, open(&model, range)?, &labels))
        .transpose()?
        .flatten();
    for warning in judged.iter().flat_map(|judged| &judged.warnings) {
        tracing::warn!(model = job.model, %warning, "evaluation");
    }
    // No version is judged on rows that it has learnt.
    let before = match (prior, evaluation) {
        (Some(prior), Some(range)) if prior.training_range().end < range.0 => {
            evaluate(prior, open(prior, range)?, &labels)?
        }
        _ => None,
    };
    let promotion = (job.source_type == SourceType::Retraining)
        .then(|| promotion(job, judged.as_ref(), before.as_ref()));
    let diagnosed = evaluation.unwrap_or((from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX)));
    let wanted = job.detail["ModelDiagnosticsOutputConfiguration"].is_object();
    let diagnostics = wanted
        .then(|| diagnose(&model, open(&model, diagnosed)?))
        .transpose()?;
    Ok(Made {
        file: model.encode(),
        metrics: judged.as_ref().map(model_metrics),
        prior_metrics: before.as_ref().map(model_metrics),
        quality: judged.map_or(ModelQuality::CannotDetermineQuality, |judged| {
            judged.quality
        }),
        trained: model.training_range(),
        promotion,
        diagnostics,
    })
}

/// Whether a retrained version becomes active. MANAGED: with labels, if it is at least as good on the evaluation range as
/// the version before (points' F1); without, always (contract 6).
fn promotion(
    job: &Making,
    new: Option<&Evaluation>,
    old: Option<&Evaluation>,
) -> (bool, &'static str) {
    if job.detail["PromoteMode"] == "MANUAL" {
        return (false, "The promote mode is MANUAL");
    }
    match (new, old) {
        (Some(new), _) if new.quality == ModelQuality::PoorQualityDetected => {
            (false, "The new version's quality is poor")
        }
        (Some(new), Some(old)) if !new.labelled.is_empty() && new.points.f1() < old.points.f1() => {
            (
                false,
                "The version before is better on the evaluation range",
            )
        }
        (Some(_), Some(_)) => (
            true,
            "The new version is at least as good as the one before",
        ),
        (Some(_), None) => (
            true,
            "The version before has learnt rows of the evaluation range, so the two are not compared",
        ),
        (None, _) => (true, "There is no evaluation range to compare versions on"),
    }
}

/// How many rows a training has on its grid; more than the quota end it before they are held.
struct RowCount {
    step: Option<i64>,
    last_bin: i64,
    rows: usize,
}

impl RowCount {
    fn at(sampling: Option<Sampling>) -> RowCount {
        RowCount {
            step: sampling.map(Sampling::micros),
            last_bin: i64::MIN,
            rows: 0,
        }
    }

    fn add(&mut self, rows: &Rows) -> Result<()> {
        for time in &rows.times {
            let bin = self.step.map_or(*time, |step| time.div_euclid(step));
            self.rows += usize::from(bin != self.last_bin);
            self.last_bin = bin;
        }
        if self.rows > MOST_ROWS {
            bail!(
                "The training range has more than {MOST_ROWS} rows, the limit of a training: choose a shorter range or a \
                 longer TargetSamplingRate"
            );
        }
        Ok(())
    }
}

/// Calls `take` with the lines of every block of `history` from a time on; the rows before it prime the detector.
fn score(
    model: &Model,
    (mut history, from): (History, i64),
    mut take: impl FnMut(&[crate::model::Scored]) -> Result<()>,
) -> Result<()> {
    let mut state = model.fresh_state();
    let mut after: Option<i64> = None;
    while let Some(rows) = history.next_block()? {
        let (first, last) = range(&rows);
        let mut lines = model.score(&mut state, &rows, after.unwrap_or(first - 1), last);
        lines.retain(|line| line.time >= from);
        after = Some(last);
        take(&lines)?;
    }
    Ok(())
}

fn range(rows: &Rows) -> (i64, i64) {
    (
        rows.times.first().copied().unwrap_or_default(),
        rows.times.last().copied().unwrap_or_default(),
    )
}

fn evaluate(model: &Model, history: (History, i64), labels: &[Span]) -> Result<Option<Evaluation>> {
    let mut evaluator = Evaluator::new(model, labels.to_vec());
    let mut rows = 0;
    score(model, history, |lines| {
        rows += lines.len();
        if rows > MOST_ROWS {
            bail!(
                "The evaluation range has more than {MOST_ROWS} rows, the limit of an evaluation: choose a shorter range"
            );
        }
        evaluator.push(lines);
        Ok(())
    })?;
    Ok(evaluator.finish())
}

fn diagnose(model: &Model, history: (History, i64)) -> Result<Vec<u8>> {
    let names: Vec<String> = model.sensors().iter().map(ToString::to_string).collect();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    score(model, history, |lines| {
        Ok(gzip.write_all(&results::render(lines, &names, ResultsFormat::V4))?)
    })?;
    Ok(gzip.finish()?)
}

/// Writes the file and the diagnostics, then makes the version SUCCESS.
async fn keep(jobs: &Jobs, job: &Making, made: Made) -> Result<()> {
    let mut detail = with_range(&job.detail, made.trained);
    if let Some(metrics) = made.prior_metrics {
        detail = with(&detail, "PriorModelMetrics", metrics.into());
    }
    if let Some((promoted, reason)) = made.promotion {
        let result = if promoted {
            "MODEL_PROMOTED"
        } else {
            "MODEL_NOT_PROMOTED"
        };
        detail = with(&detail, "AutoPromotionResult", result.into());
        detail = with(&detail, "AutoPromotionResultReason", reason.into());
    }
    if let Some(body) = made.diagnostics {
        let location = &job.detail["ModelDiagnosticsOutputConfiguration"]["S3OutputConfiguration"];
        let bucket = location["Bucket"].as_str().unwrap_or_default();
        let prefix = location["Prefix"].as_str().unwrap_or_default();
        let key = format!(
            "{prefix}{}/{}/model_diagnostics_results.json.gz",
            job.model, job.version
        );
        // Whoever trains a model of this name again finds the diagnostics of the new one there.
        Objects::of(jobs, bucket)
            .replace(&key, &body, "application/gzip")
            .await?;
        detail = with(
            &detail,
            "ModelDiagnosticsResultsObject",
            json!({"Bucket": bucket, "Key": key}),
        );
    }
    let now = jobs.clock.now();
    let imported = job.source_type == SourceType::Import;
    if imported {
        let ended = crate::service::operations::time(now.timestamp_micros());
        detail = with(&detail, "ImportJobEndTime", ended);
        detail = with(&detail, "ImportedDataSizeInBytes", made.file.len().into());
    }
    let file = if imported {
        None
    } else {
        let files = jobs.store.files().clone();
        let (version, bytes) = (format!("{}-{}", job.model_uuid, job.version), made.file);
        let staged = tokio::task::spawn_blocking(move || files.stage_model(&version, &bytes));
        Some(staged.await?.context("cannot write the model file")?)
    };
    let quality = serde_json::to_value(made.quality)?
        .as_str()
        .map(str::to_owned);
    tracing::info!(
        model = job.model,
        version = job.version,
        quality,
        "training succeeded"
    );
    let made = making::Made {
        file,
        metrics: made.metrics,
        quality,
        detail,
        held_back: made.promotion.is_some_and(|(promoted, _)| !promoted),
    };
    let kept = jobs.store.version_made(job, made, now).await;
    kept.map_err(|fault| anyhow!(fault.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_on_the_grid_and_more_than_the_quota_end_a_training() {
        let minute = 60_000_000;
        let block = |from: usize, count: usize| Rows {
            times: (from..from + count).map(|n| n as i64 * minute).collect(),
            ..Rows::default()
        };
        // Five minutes share a row, also over the end of a block.
        let mut five = RowCount::at(Some(Sampling::Pt5m));
        five.add(&block(0, 7)).unwrap();
        five.add(&block(7, 5)).unwrap();
        assert_eq!(five.rows, 3);
        let mut plain = RowCount::at(None);
        plain.add(&block(0, MOST_ROWS)).unwrap();
        let error = plain.add(&block(MOST_ROWS, 1)).unwrap_err().to_string();
        assert!(error.contains("1500000 rows"), "{error}");
    }
}
