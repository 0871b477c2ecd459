//! One execution, from looking for files to the results object.
//!
//! The order is what makes a crash harmless: the claim was committed before; the results object is created only if it is
//! absent; the end, the scoring state and the events are committed afterwards by the caller. Done again from the same
//! scoring state and files, it gives the same bytes, meets its own object, and finds it equal. If files changed in between
//! the object that is there stays and is the truth, since a client may have read it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::health::Health;
use super::locate::{Found, Place};
use super::models::Models;
use super::{near_miss, read, results};
use crate::clock::Clock;
use crate::model::{Model, Rows, Scored, ScoringState};
use crate::service::operations::schedulers::with_defaults;
use crate::service::s3_problem::{self, Problem};
use crate::service::store::Store;
use crate::service::store::events::Anomaly;
use crate::service::store::executions::{Claim, End};
use crate::signal::NameFormat;

/// Work of one execution, waiting for files not counted; a hung store ends there.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long an execution is tried again while the store is away, in real time: longer than a store takes to start.
const STORE_MAY_BE_AWAY: Duration = Duration::from_secs(120);
/// First and longest pause between two attempts.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
/// How often an incomplete set is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Components whose near misses are looked for; each costs two listings.
const EXPLAINED: usize = 3;
/// The API's limit of a message.
const LONGEST_REASON: usize = 5000;
/// Object metadata that names the scheduler that wrote the results.
const OWNER: &str = "lookoutd-scheduler";

/// Why an execution has no results.
enum Setback {
    /// These components have no file at this place; to find out why costs listings.
    Missing(Place, Vec<String>),
    /// Anything else.
    Problem(Problem),
}

impl<P: Into<Problem>> From<P> for Setback {
    fn from(problem: P) -> Self {
        Setback::Problem(problem.into())
    }
}

/// What every execution shares.
pub struct Context {
    /// The state; here only the model files.
    pub store: Store,
    /// Where files are read and results written.
    pub s3: Client,
    /// Time of the schedules.
    pub clock: Clock,
    /// Decoded models.
    pub models: Models,
    /// Sensors that are stuck or rounded otherwise than in training.
    pub health: Health,
    /// Executions at once. An execution that waits for the store to come back holds no place.
    pub slots: Semaphore,
    /// Schedulers whose input prefix does not fit one listing page.
    pub crowded: Mutex<HashSet<String>>,
}

/// Runs a claimed execution to its end. Never panics on input; what goes wrong is the reason it failed. A store that is
/// away is waited for a while, or its every restart would cost each scheduler a window.
pub async fn run(context: &Context, claim: &Claim) -> End {
    let began = Instant::now();
    let [mut pause, longest] = PAUSES;
    let reason = loop {
        let slot = context.slots.acquire().await;
        let work = async {
            match score_and_put(context, claim).await {
                Ok(end) => Ok(end),
                Err(Setback::Problem(problem)) => Err(problem),
                Err(Setback::Missing(place, components)) => {
                    Err(missing_files(context, claim, &place, &components)
                        .await
                        .into())
                }
            }
        };
        let work = tokio::time::timeout(TIMEOUT + claim.options.wait, work).await;
        drop(slot);
        match work {
            Ok(Ok(end)) => return end,
            Ok(Err(problem)) if problem.passes && began.elapsed() < STORE_MAY_BE_AWAY => {
                tracing::debug!(
                    scheduler = claim.scheduler.name, window = %claim.window, reason = problem.reason,
                    "the store is away, trying again"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
            Ok(Err(problem)) => break problem.reason,
            Err(_) => {
                break format!(
                    "The execution did not end within {} seconds",
                    TIMEOUT.as_secs()
                );
            }
        }
    };
    End::Failed(reason.chars().take(LONGEST_REASON).collect())
}

/// Looks again for the data of a failed window. If it has come it is scored and put like any other, with a `late.json`
/// beside the results that says so; `None` if it has not.
pub async fn run_late(context: &Context, claim: &Claim) -> Option<End> {
    let _slot = context.slots.acquire().await;
    let end = tokio::time::timeout(TIMEOUT, score_and_put(context, claim))
        .await
        .ok()?
        .ok()?;
    if let End::Success { bucket, key, .. } = &end {
        let record = serde_json::json!({
            "late": true,
            "window": claim.window.to_string(),
            "scored_at": context.clock.now().to_rfc3339(),
            "scoring_state": "fresh: later windows had been scored before this one",
        });
        let folder = key.strip_suffix("results.jsonl").unwrap_or(key);
        let body = ByteStream::from(record.to_string().into_bytes());
        let put = context
            .s3
            .put_object()
            .bucket(bucket)
            .key(format!("{folder}late.json"))
            .body(body);
        if let Err(error) = put.send().await {
            tracing::warn!(
                bucket,
                folder,
                error = s3_problem::of(&error),
                "side record of late results not written"
            );
        }
    }
    Some(end)
}

async fn score_and_put(context: &Context, claim: &Claim) -> Result<End, Setback> {
    let path = context
        .store
        .model_file(&claim.model_uuid, claim.model_version);
    let model = context.models.get(&path).await.map_err(|error| {
        tracing::error!(model = claim.scheduler.model_name, path = %path.display(), %error, "model file unusable");
        format!("Model version {} of '{}' cannot be loaded: {error}", claim.model_version, claim.scheduler.model_name)
    })?;
    let place = place(&claim.scheduler.input)?;
    let wanted = read::wanted(model.sensors());
    let components: Vec<String> = wanted.iter().map(|group| group.component.clone()).collect();
    let files = locate(context, claim, &place, &components).await?;
    let rows = read::rows(
        &context.s3,
        &place,
        &wanted,
        &files,
        claim.window,
        model.sensors().len(),
    )
    .await?;

    let (lines, state, rows) = score(Arc::clone(&model), claim, rows).await?;
    // The first window, and one that came late, say nothing of how long a value has stood.
    if claim.scoring_state.is_some() {
        context.health.look(claim, &model, &rows, &state);
    }
    let state = state.encode();
    let names: Vec<String> = model.sensors().iter().map(ToString::to_string).collect();
    let body = results::render(&lines, &names, claim.options.results_format);
    let output = &claim.scheduler.output["S3OutputConfiguration"];
    let bucket = output["Bucket"].as_str().unwrap_or_default();
    let key = results::key(
        output["Prefix"].as_str().unwrap_or_default(),
        claim.window.start(),
    );
    let kept = put(
        &context.s3,
        bucket,
        &key,
        Bytes::from(body),
        &claim.scheduler.uuid,
    )
    .await?;
    let anomalies = match kept {
        None => anomalies(&lines, &names),
        Some(stored) => anomalies_of(&stored),
    };
    Ok(End::Success {
        bucket: bucket.to_owned(),
        key,
        scoring_state: Some(state),
        rows: lines.len(),
        anomalies,
        step_us: model.step_us(),
    })
}

/// Finds a file for every component, looking again while the options let it wait.
async fn locate(
    context: &Context,
    claim: &Claim,
    place: &Place,
    components: &[String],
) -> Result<Vec<Vec<Found>>, Setback> {
    let uuid = &claim.scheduler.uuid;
    let delay = TimeDelta::minutes(claim.scheduler.delay_minutes);
    let wait = TimeDelta::from_std(claim.options.wait).unwrap_or_default();
    let deadline = claim.window.end() + delay + wait;
    loop {
        let mut crowded = lock(&context.crowded).contains(uuid);
        let files = place
            .locate(&context.s3, components, claim.window, &mut crowded)
            .await
            .map_err(|error| Problem {
                reason: error.to_string(),
                passes: error.passes,
            })?;
        if crowded {
            lock(&context.crowded).insert(uuid.clone());
        }
        if files.iter().all(|found| !found.is_empty()) {
            return Ok(files);
        }
        let now = context.clock.now();
        if now >= deadline {
            let missing = components
                .iter()
                .zip(&files)
                .filter(|(_, found)| found.is_empty())
                .map(|(component, _)| component.clone())
                .collect();
            return Err(Setback::Missing(place.clone(), missing));
        }
        let left = (deadline - now).to_std().unwrap_or_default();
        context.clock.pause(left.min(LOOK_AGAIN)).await;
    }
}

/// The original's text first, for clients that match it (with its prefix where the bucket should be, contract 3.7), then
/// everything a person needs.
async fn missing_files(
    context: &Context,
    claim: &Claim,
    place: &Place,
    missing: &[String],
) -> String {
    let window = claim.window;
    let first = missing.first().map_or("", String::as_str);
    let (low, high) = place.range(first, window);
    let shown = |time: DateTime<chrono::Utc>| time.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let prefix = &place.prefix;
    let mut reason = format!(
        "Could not find data file for sensor {first} within expected range of ({}, {}]. Please ensure data is present for \
         all sensors of the machine under prefix 's3://{prefix}{low}' ~ 's3://{prefix}{high}'",
        shown(window.start()),
        shown(window.end()),
    );
    let mut hints = Vec::new();
    for component in missing.iter().take(EXPLAINED) {
        let early = window.offset(-(15 * 3600 / window.cadence().seconds()));
        let own = format!("{prefix}{component}");
        let mut keys = Vec::new();
        for (prefix, after) in [
            (own.as_str(), place.range(component, early).0),
            (prefix, String::new()),
        ] {
            match place.sample(&context.s3, prefix, &after).await {
                Ok(sample) => keys.extend(sample),
                Err(error) => tracing::debug!(%error, "no sample for the explanation"),
            }
        }
        hints.extend(near_miss::explain(place, component, window, &keys));
    }
    reason.push_str(&format!(
        ". {} without a file: {}. Searched: s3://{}/{low}.csv to s3://{}/{high}.csv, likewise for each.",
        if missing.len() == 1 { "Component" } else { "Components" },
        missing.join(", "),
        place.bucket,
        place.bucket,
    ));
    if !hints.is_empty() {
        reason.push_str(&format!(" Near misses: {}.", hints.join("; ")));
    }
    reason
}

async fn score(
    model: Arc<Model>,
    claim: &Claim,
    rows: Rows,
) -> Result<(Vec<Scored>, ScoringState, Rows), String> {
    let stored = claim.scoring_state.clone();
    let (start, end) = (
        claim.window.start().timestamp_micros(),
        claim.window.end().timestamp_micros(),
    );
    let scheduler = claim.scheduler.name.clone();
    let scored = tokio::task::spawn_blocking(move || {
        let decoded = stored.map(|bytes| ScoringState::decode(&bytes));
        let mut state = match decoded {
            Some(Ok(state)) => state,
            Some(Err(error)) => {
                tracing::warn!(scheduler, %error, "scoring state unreadable, starting afresh");
                model.live_state()
            }
            None => model.live_state(),
        };
        let lines = model.score(&mut state, &rows, start, end);
        (lines, state, rows)
    });
    scored.await.map_err(|error| {
        tracing::error!(%error, "scoring panicked");
        "Internal failure while scoring; the service's log has the cause".to_owned()
    })
}

/// Creates the object; `Some` is the content that was already there and stays.
async fn put(
    s3: &Client,
    bucket: &str,
    key: &str,
    body: Bytes,
    owner: &str,
) -> Result<Option<Bytes>, Problem> {
    let created = s3
        .put_object()
        .bucket(bucket)
        .key(key)
        .if_none_match("*")
        .content_type("application/jsonlines")
        .metadata(OWNER, owner)
        .body(ByteStream::from(body.clone()))
        .send()
        .await;
    let error = match created {
        Ok(answer) if answer.e_tag().is_some() => return Ok(None),
        Ok(_) => {
            return Err(Problem {
                reason: format!(
                    "Could not write 's3://{bucket}/{key}': {}",
                    s3_problem::NOT_A_STORE
                ),
                passes: true,
            });
        }
        Err(error) => error,
    };
    let status = error
        .raw_response()
        .map(|response| response.status().as_u16());
    if status != Some(412) {
        return Err(Problem {
            reason: format!(
                "Could not write 's3://{bucket}/{key}': {}",
                s3_problem::of(&error)
            ),
            passes: s3_problem::passes(&error),
        });
    }
    let problem = |cause: String, passes| Problem {
        reason: format!("'s3://{bucket}/{key}' is there and cannot be compared: {cause}"),
        passes,
    };
    let object = s3.get_object().bucket(bucket).key(key).send().await;
    let object =
        object.map_err(|error| problem(s3_problem::of(&error), s3_problem::passes(&error)))?;
    if object.e_tag().is_none() {
        return Err(problem(s3_problem::NOT_A_STORE.to_owned(), true));
    }
    let written_by = object
        .metadata()
        .and_then(|metadata| metadata.get(OWNER))
        .cloned();
    let stored = object
        .body
        .collect()
        .await
        .map_err(|error| problem(error.to_string(), true))?
        .into_bytes();
    if stored == body {
        return Ok(None);
    }
    if written_by.as_deref() != Some(owner) {
        let reason = format!(
            "'s3://{bucket}/{key}' holds other results that this scheduler did not write: give every scheduler an output \
             prefix of its own"
        );
        return Err(reason.into());
    }
    tracing::warn!(
        bucket,
        key,
        "input changed between two attempts, the results written first stay"
    );
    Ok(Some(stored))
}

fn anomalies(lines: &[Scored], names: &[String]) -> Vec<Anomaly> {
    let predicted = lines.iter().filter(|line| line.prediction);
    predicted
        .map(|line| Anomaly {
            time_us: line.time,
            shares: names
                .iter()
                .cloned()
                .zip(line.contributions.iter().copied())
                .collect(),
        })
        .collect()
}

/// The anomalies of a results object of any era.
fn anomalies_of(stored: &[u8]) -> Vec<Anomaly> {
    let lines = stored
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let anomaly = |line: Value| {
        (line["prediction"] == 1).then_some(())?;
        let time_us = crate::service::csv_rows::parse_time(line["timestamp"].as_str()?.as_bytes())?;
        let entries = line["diagnostics"].as_array().into_iter().flatten();
        let shares = entries.filter_map(|entry| {
            Some((entry["name"].as_str()?.to_owned(), entry["value"].as_f64()?))
        });
        Some(Anomaly {
            time_us,
            shares: shares.collect(),
        })
    };
    lines.filter_map(anomaly).collect()
}

/// Where a scheduler's input lies, from its `DataInputConfiguration`.
pub fn place(input: &Value) -> Result<Place, String> {
    let full = with_defaults(input);
    let naming = &full["InferenceInputNameConfiguration"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let format = NameFormat {
        timestamp: text(&naming["TimestampFormat"]).parse().map_err(reason)?,
        delimiter: text(&naming["ComponentTimestampDelimiter"])
            .parse()
            .map_err(reason)?,
        zone_offset: text(&full["InputTimeZoneOffset"]).parse().map_err(reason)?,
    };
    let location = &full["S3InputConfiguration"];
    Ok(Place {
        bucket: text(&location["Bucket"]),
        prefix: text(&location["Prefix"]),
        format,
    })
}

fn reason(error: impl std::fmt::Display) -> String {
    format!("The scheduler's input configuration cannot be used: {error}")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anomalies_are_read_back_from_every_era() {
        let stored = b"{\"timestamp\": \"2021-04-03T06:00:00.000000\", \"prediction\": 0}\n\
            {\"timestamp\": \"2021-04-03T06:01:00.000000\", \"prediction\": 1, \"diagnostics\": [{\"name\": \"c\\\\a\", \
            \"value\": 1.0}]}\n";
        let anomalies = anomalies_of(stored);
        assert_eq!(anomalies.len(), 1);
        assert_eq!(anomalies[0].time_us, 1_617_429_660_000_000);
        assert_eq!(anomalies[0].shares, [("c\\a".to_owned(), 1.0)]);
    }

    #[test]
    fn absent_name_members_take_the_documented_defaults() {
        let place =
            place(&serde_json::json!({"S3InputConfiguration": {"Bucket": "b", "Prefix": "in/"}}))
                .unwrap();
        let name = place
            .format
            .file_name("pump", "2022-05-13T12:10:00Z".parse().unwrap());
        assert_eq!(
            (place.bucket.as_str(), name.as_str()),
            ("b", "pump-20220513121000.csv")
        );
    }
}
