//! One execution, from looking for files to the results object.
//!
//! The order is what makes a crash harmless: the claim was committed before; the results object is created only if it is
//! absent; the end, the scoring state and the events are committed afterwards by the caller. Done again from the same
//! scoring state and files, it gives the same bytes, meets its own object, and finds it equal. If files changed in between
//! the object that is there stays and is the truth, since a client may have read it.
//!
//! Whoever waits, for files or for the store, holds no place: places are for work. Parsing and scoring leave the runtime's
//! threads.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::health::Health;
use super::locate::{Found, Place};
use super::models::Models;
use super::publish::{anomalies, anomalies_of, publish, score_of};
use super::read::{Fetched, Wanted};
use super::{missing, read, results};
use crate::clock::Clock;
use crate::model::{Model, Rows, Scored, ScoringState};
use crate::s3::Attributes;
use crate::service::buckets::Buckets;
use crate::service::operations::schedulers::with_defaults;
use crate::service::patience::Patience;
use crate::service::s3_problem::Problem;
use crate::service::store::Store;
use crate::service::store::executions::{Claim, End, Failed, FailureKind};
use crate::signal::NameFormat;
use crate::vitals::{Code, Trouble, Troubles};

/// Work of one execution, waiting not counted; a hung store ends there.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How often an incomplete set is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The API's limit of a message.
const LONGEST_REASON: usize = 5000;

/// Why an execution has no results.
enum Setback {
    /// These components have no file at this place; to find out why costs listings.
    Missing(Place, Vec<String>),
    /// Anything else.
    Problem(Problem),
}

impl Setback {
    /// Whether it is for lack of files, some of which may come yet; the neighbours of those lie there already.
    fn may_come_right(&self) -> bool {
        match self {
            Self::Missing(..) => true,
            Self::Problem(problem) => problem.failed.kind == FailureKind::NoRows,
        }
    }
}

impl From<Problem> for Setback {
    fn from(problem: Problem) -> Self {
        Setback::Problem(problem)
    }
}

/// What every execution shares.
pub struct Context {
    /// The state; here only the model files.
    pub store: Store,
    /// Where files are read and results written.
    pub buckets: Arc<Buckets>,
    /// Time of the schedules.
    pub clock: Clock,
    /// Decoded models.
    pub models: Models,
    /// Sensors that are stuck or rounded otherwise than in training.
    pub health: Health,
    /// Executions at work at once.
    pub slots: Arc<Semaphore>,
    /// Told when one of them becomes free.
    pub freed: Notify,
    /// Looks at late windows at once.
    pub late_slots: Semaphore,
    /// Schedulers whose input prefix does not fit one listing page.
    pub crowded: Mutex<HashSet<String>>,
    /// What does not work, for health.
    pub troubles: Troubles,
}

/// A place among the executions at work; told when it is given back.
pub struct Slot<'a> {
    _permit: OwnedSemaphorePermit,
    freed: &'a Notify,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.freed.notify_one();
    }
}

impl Context {
    /// A place, as soon as there is one; `permit` is one that is held already.
    async fn slot(&self, permit: Option<OwnedSemaphorePermit>) -> Option<Slot<'_>> {
        let permit = match permit {
            Some(permit) => permit,
            // The semaphore is never closed.
            None => Arc::clone(&self.slots).acquire_owned().await.ok()?,
        };
        Some(Slot {
            _permit: permit,
            freed: &self.freed,
        })
    }
}

/// Runs a claimed execution to its end. Never panics on input; what goes wrong is the reason it failed. A store that is
/// away is waited for a while, or its every restart would cost each scheduler a window; files that have not come are waited
/// for as long as the scheduler's options say.
pub async fn run(
    context: &Context,
    claim: &Claim,
    mut permit: Option<OwnedSemaphorePermit>,
) -> End {
    let mut patience = Patience::begin();
    let delay = TimeDelta::minutes(claim.scheduler.delay_minutes);
    let wait = TimeDelta::from_std(claim.options.wait).unwrap_or_default();
    let deadline = claim.window.end() + delay + wait;
    let mut useless = None;
    let mut failed = loop {
        let slot = context.slot(permit.take()).await;
        let work = tokio::time::timeout(TIMEOUT, async {
            let setback = match attempt(context, claim, &mut useless).await {
                Ok(end) => return Attempt::Ended(end),
                Err(setback) => setback,
            };
            let now = context.clock.now();
            let left = deadline - now;
            // Of a window that has not begun the clock was ahead: what is not there fails it, and that is void.
            if setback.may_come_right() && left > TimeDelta::zero() && claim.window.start() <= now {
                return Attempt::Wait(left.to_std().unwrap_or_default());
            }
            match setback {
                Setback::Missing(place, components) => {
                    let reason = missing::explain(context, claim, &place, &components).await;
                    Attempt::Failed(Problem::new(FailureKind::NoFile, reason))
                }
                Setback::Problem(problem) => Attempt::Failed(problem),
            }
        });
        let work = work.await;
        drop(slot);
        match work {
            Ok(Attempt::Ended(end)) => return end,
            Ok(Attempt::Wait(left)) => {
                context.clock.pause(left.min(LOOK_AGAIN)).await;
                patience = Patience::begin();
            }
            Ok(Attempt::Failed(problem)) if problem.passes && patience.is_left() => {
                tracing::debug!(
                    scheduler = claim.scheduler.name, window = %claim.window, reason = problem.failed.reason,
                    "the store is away, trying again"
                );
                patience.pause().await;
            }
            Ok(Attempt::Failed(problem)) => break problem.failed,
            Err(_) => {
                break Failed::new(
                    FailureKind::Timeout,
                    format!(
                        "The execution did not end within {} seconds",
                        TIMEOUT.as_secs()
                    ),
                );
            }
        }
    };
    failed.reason = failed.reason.chars().take(LONGEST_REASON).collect();
    End::Failed(failed)
}

/// How one attempt ended.
enum Attempt {
    Ended(End),
    /// Files are missing that may come, for as long.
    Wait(Duration),
    Failed(Problem),
}

/// Looks again for the data of a failed window. If it has come it is scored and put like any other, with a `late.json`
/// beside the results that says so; `None` if it has not.
pub async fn run_late(context: &Context, claim: &Claim) -> Option<End> {
    let _slot = context.late_slots.acquire().await;
    let now = context.clock.now();
    if let Err(fault) = context.store.late_look(claim, now).await {
        tracing::warn!(%fault, "a look at a late window is not noted, it may have another turn before the others");
    }
    let end = tokio::time::timeout(TIMEOUT, attempt(context, claim, &mut None))
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
        let attributes = Attributes {
            content_type: "application/json",
            metadata: &[],
        };
        let key = format!("{folder}late.json");
        let body = record.to_string();
        let mut patience = Patience::begin();
        loop {
            let created = async {
                let place = context.buckets.write(bucket, folder).await?;
                place.create_as(&key, body.as_bytes(), attributes).await
            };
            match created.await {
                Ok(_) => break,
                Err(error) if error.passes() && patience.is_left() => patience.pause().await,
                Err(error) => {
                    tracing::warn!(%error, "side record of late results not written");
                    break;
                }
            }
        }
    }
    Some(end)
}

/// Files that were read and had no row of the window, and what that is told as.
type Useless = Option<(Vec<Vec<Found>>, Problem)>;

/// One look for the files and, where they are there, its results. Files that were `useless` are not read again as they were.
async fn attempt(context: &Context, claim: &Claim, useless: &mut Useless) -> Result<End, Setback> {
    let path = context
        .store
        .model_file(&claim.model_uuid, claim.model_version)
        .await
        .map_err(|fault| Problem::new(FailureKind::Internal, fault.message))?;
    let model = context.models.get(&path).await.map_err(|error| {
        let name = &claim.scheduler.model_name;
        tracing::error!(model = name, path = %path.display(), %error, "model file unusable");
        let reason = format!(
            "Model version {} of '{name}' cannot be loaded: {error}",
            claim.model_version
        );
        context.troubles.raise(
            Trouble::new(
                Code::ModelUnusable,
                context.clock.now(),
                format!("{reason} ({})", path.display()),
                "put the file back from a backup, train the model again, or activate another version",
            )
            .about(name),
        );
        Problem::new(FailureKind::Model, reason)
    })?;
    context
        .troubles
        .over(Code::ModelUnusable, &claim.scheduler.model_name);
    let place = place(&claim.scheduler.input)
        .map_err(|reason| Problem::new(FailureKind::Configuration, reason))?;
    let wanted = read::wanted(model.sensors());
    let components: Vec<String> = wanted.iter().map(|group| group.component.clone()).collect();
    let found = locate(context, claim, &place, &components).await?;
    if let Some((_, problem)) = useless.as_ref().filter(|(files, _)| *files == found) {
        return Err(problem.clone().into());
    }
    let bucket = context.buckets.read(&place.bucket);
    let files = read::fetch(&bucket, found.clone(), claim.window).await?;
    let work = Work {
        model: Arc::clone(&model),
        claim: claim.clone(),
        place,
        wanted,
        files,
    };
    let done = tokio::task::spawn_blocking(move || work.score()).await;
    let done = done.unwrap_or_else(|error| {
        tracing::error!(%error, "scoring panicked");
        Err(Problem::new(
            FailureKind::Internal,
            "Internal failure while scoring; the service's log has the cause",
        ))
    });
    if let Err(problem) = &done
        && problem.failed.kind == FailureKind::NoRows
        && found.iter().flatten().all(|file| file.etag.is_some())
    {
        *useless = Some((found, problem.clone()));
    }
    let done = done?;
    // The first window, and one that came late, say nothing of how long a value has stood.
    if claim.scoring_state.is_some() {
        context.health.look(claim, &model, &done.rows, &done.state);
    }
    let output = &claim.scheduler.output["S3OutputConfiguration"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (bucket, prefix) = (text(&output["Bucket"]), text(&output["Prefix"]));
    let key = results::key(&prefix, claim.window.start());
    let place = (bucket.as_str(), prefix.as_str(), key.as_str());
    let kept = publish(&context.buckets, place, &done.body, &claim.scheduler.uuid).await?;
    let (anomalies, score) = match kept {
        None => {
            let scores = done.lines.iter().map(|line| line.anomaly_score);
            (
                anomalies(&done.lines, &done.names),
                scores.max_by(f64::total_cmp),
            )
        }
        Some(stored) => (anomalies_of(&stored), score_of(&stored)),
    };
    Ok(End::Success {
        bucket,
        key,
        scoring_state: Some(done.state.encode()),
        rows: done.lines.len(),
        score,
        anomalies,
        step_us: model.step_us(),
    })
}

/// Finds a file for every component.
async fn locate(
    context: &Context,
    claim: &Claim,
    place: &Place,
    components: &[String],
) -> Result<Vec<Vec<Found>>, Setback> {
    let uuid = &claim.scheduler.uuid;
    let bucket = context.buckets.read(&place.bucket);
    let mut crowded = lock(&context.crowded).contains(uuid);
    let files = place
        .locate(&bucket, components, claim.window, &mut crowded)
        .await
        .map_err(|error| {
            let what = format!("cannot list s3://{}/{}", place.bucket, error.key);
            Problem::store(what, &error)
        })?;
    if crowded {
        lock(&context.crowded).insert(uuid.clone());
    }
    let absent: Vec<String> = components
        .iter()
        .zip(&files)
        .filter(|(_, found)| found.is_empty())
        .map(|(component, _)| component.clone())
        .collect();
    if absent.is_empty() {
        return Ok(files);
    }
    Err(Setback::Missing(place.clone(), absent))
}

/// What is done apart from the runtime's threads.
struct Work {
    model: Arc<Model>,
    claim: Claim,
    place: Place,
    wanted: Vec<Wanted>,
    files: Vec<Vec<Fetched>>,
}

/// What came of it.
struct Done {
    lines: Vec<Scored>,
    names: Vec<String>,
    body: Vec<u8>,
    state: ScoringState,
    rows: Rows,
}

impl Work {
    fn score(self) -> Result<Done, Problem> {
        let (model, window) = (self.model, self.claim.window);
        let sensors = model.sensors().len();
        let rows = read::merge(&self.place, &self.wanted, self.files, window, sensors)?;
        let decoded = self
            .claim
            .scoring_state
            .map(|bytes| ScoringState::decode(&bytes));
        let mut state = match decoded {
            Some(Ok(state)) => state,
            Some(Err(error)) => {
                let scheduler = self.claim.scheduler.name;
                tracing::warn!(scheduler, %error, "scoring state unreadable, starting afresh");
                model.live_state()
            }
            None => model.live_state(),
        };
        let (start, end) = (
            window.start().timestamp_micros(),
            window.end().timestamp_micros(),
        );
        let lines = model.score(&mut state, &rows, start, end);
        let names: Vec<String> = model.sensors().iter().map(ToString::to_string).collect();
        let body = results::render(&lines, &names, self.claim.options.results_format);
        Ok(Done {
            lines,
            names,
            body,
            state,
            rows,
        })
    }
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
