//! The watcher: one loop that keeps the scheduler, lists its executions and archives them.
//!
//! ```text
//!  round: ensure ─► list from the cursor ─► index ─► fetch results ─► archive file ─► copy in S3 ─► index: archived
//! ```
//!
//! Guarantees: nothing here ends the loop but shutdown, so that an unreachable API only delays; a crash between any two
//! steps is repaired by repeating them; history is listed once, afterwards only what is newer than the cursor, with an
//! overlap for what comes out of order. An execution that should have come and did not is said once.

use std::time::Duration;

use anyhow::Context;
use aws_sdk_lookoutequipment::Client;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::Wanted;
use super::api::{Advice, ApiError};
use super::archive::{Archive, Kept};
use super::ensure::ensure;
use super::execution::{Execution, Filter, list_executions};
use super::hint::hint;
use super::index::{Index, Summary};
use super::scheduler::{Described, Target};
use crate::clock::Clock;
use crate::s3::{Bucket, Created, Disposition, S3Error};
use crate::signal::Window;

/// What a watcher is made of.
pub struct Parts {
    /// The API.
    pub client: Client,
    /// What the scheduler is to be.
    pub target: Target,
    /// The store that results are fetched from.
    pub s3: aws_sdk_s3::Client,
    /// Where the archive lies.
    pub archive: Archive,
    /// Bucket and key prefix of a copy of the archive.
    pub copy: Option<(Bucket, String)>,
    /// How often to look.
    pub poll: Duration,
    /// The time.
    pub clock: Clock,
}

/// The loop.
pub struct Watcher {
    parts: Parts,
    index: Index,
    /// The end of the first window whose execution is still to be looked for; `None` while the scheduler does not run.
    expected: Option<DateTime<Utc>>,
    trouble: Trouble,
}

/// Executions fetched between two listings.
const BATCH: usize = 100;
/// Executions asked for one by one between two listings.
const STRAGGLERS: usize = 10;
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long a results object may be missing before the execution is archived without it.
const GIVE_UP: TimeDelta = TimeDelta::days(1);

impl Watcher {
    /// Opens the archive's index, building it again where it is lost.
    pub async fn open(parts: Parts) -> anyhow::Result<Self> {
        let (archive, now) = (parts.archive.clone(), parts.clock.now());
        let index = blocking(move || Index::open(&archive, now)).await??;
        Ok(Self {
            parts,
            index,
            expected: None,
            trouble: Trouble::default(),
        })
    }

    /// The index, to look at.
    pub fn index(&self) -> Index {
        self.index.clone()
    }

    /// Runs until `shutdown`. A round that is cut off is repeated by the next start.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            let more = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                more = self.round() => more,
            };
            if more {
                continue;
            }
            let pause = self.trouble.pause(self.parts.poll);
            let until = self.parts.clock.now()
                + TimeDelta::from_std(pause).unwrap_or(TimeDelta::minutes(5));
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.parts.clock.sleep_until(until) => {}
            }
        }
    }

    /// One round. True where there is more to archive at once.
    pub async fn round(&mut self) -> bool {
        let mut failed = None;
        if self.parts.target.wanted != Wanted::Observe {
            match ensure(&self.parts.client, &self.parts.target).await {
                Ok(ensured) => self.kept(ensured.scheduler, ensured.calls > 0).await,
                Err(error) => {
                    self.expected = None;
                    failed = Some((error.to_string(), error.advice()));
                }
            }
        }
        let mut more = false;
        match self.look().await {
            Ok(left) => more = left,
            Err(error) => failed = failed.or(Some(error)),
        }
        match failed {
            None => {
                self.trouble.over();
                more
            }
            Some((error, advice)) => {
                self.trouble.say(error, advice);
                false
            }
        }
    }

    /// Begins to expect executions where the scheduler runs, from the last known one on if nothing was changed.
    async fn kept(&mut self, scheduler: Option<Described>, changed: bool) {
        let running = scheduler.is_some_and(|scheduler| scheduler.status == "RUNNING");
        if !running {
            self.expected = None;
            return;
        }
        if self.expected.is_some() && !changed {
            return;
        }
        let now = self.parts.clock.now();
        let first = Window::containing(now - self.delay(), self.parts.target.cadence).end();
        let (index, name) = (self.index.clone(), self.parts.target.scheduler.clone());
        let known = match changed {
            true => None,
            false => blocking(move || index.newest(&name))
                .await
                .ok()
                .and_then(Result::ok)
                .flatten(),
        };
        self.expected = Some(match known {
            Some(known) => {
                first.min(known.execution.data_end + self.parts.target.cadence.duration())
            }
            None => first,
        });
    }

    /// Lists, archives, and looks for what did not come.
    async fn look(&mut self) -> Result<bool, (String, Advice)> {
        self.list().await.map_err(told)?;
        let more = self.archive().await?;
        self.missing().await.map_err(told)?;
        Ok(more)
    }

    /// Takes note of every execution since the cursor, and of those that were in progress before.
    async fn list(&self) -> Result<(), Failure> {
        let name = &self.parts.target.scheduler;
        let (index, scheduler) = (self.index.clone(), name.clone());
        let cursor = blocking(move || index.cursor(&scheduler)).await??;
        let after = cursor.map(|cursor| cursor - self.overlap());
        let filter = Filter {
            after,
            ..Filter::default()
        };
        let mut token = None;
        loop {
            let page = list_executions(&self.parts.client, name, &filter, token).await?;
            debug!(
                scheduler = name,
                executions = page.executions.len(),
                "executions listed"
            );
            self.note(page.executions).await?;
            token = page.next;
            if token.is_none() {
                break;
            }
        }
        let (index, scheduler) = (self.index.clone(), name.clone());
        blocking(move || index.advance(&scheduler)).await??;
        let Some(after) = after else { return Ok(()) };
        let (index, scheduler) = (self.index.clone(), name.clone());
        let stragglers =
            blocking(move || index.in_progress(&scheduler, after, STRAGGLERS)).await??;
        for straggler in stragglers {
            let filter = Filter {
                after: Some(straggler.data_start - TimeDelta::seconds(1)),
                before: Some(straggler.data_end + TimeDelta::seconds(1)),
                status: None,
            };
            let page = list_executions(&self.parts.client, name, &filter, None).await?;
            self.note(page.executions).await?;
        }
        Ok(())
    }

    async fn note(&self, executions: Vec<Execution>) -> Result<(), Failure> {
        let index = self.index.clone();
        Ok(blocking(move || index.note(&executions)).await??)
    }

    /// Archives a batch of finished executions. True where more wait.
    async fn archive(&self) -> Result<bool, (String, Advice)> {
        let (index, name) = (self.index.clone(), self.parts.target.scheduler.clone());
        let batch = blocking(move || index.to_archive(&name, BATCH))
            .await
            .map_err(|error| told(error.into()))?
            .map_err(|error| told(error.into()))?;
        let full = batch.len() == BATCH;
        let mut first = None;
        let mut done = 0;
        for execution in batch {
            match self.archive_one(&execution).await {
                Ok(true) => done += 1,
                Ok(false) => {}
                Err(Failure::S3(error)) => {
                    let unreachable = error.failure.status.is_none();
                    first = first.or(Some(told(Failure::S3(error))));
                    if unreachable {
                        break;
                    }
                }
                Err(error) => return Err(told(error)),
            }
        }
        match first {
            Some(error) => Err(error),
            None => Ok(full && done > 0),
        }
    }

    /// Fetches, keeps, copies, records. False where the results are not there yet.
    async fn archive_one(&self, execution: &Execution) -> Result<bool, Failure> {
        let now = self.parts.clock.now();
        let results = match &execution.result {
            None => None,
            Some(object) => {
                let bucket = Bucket::new(self.parts.s3.clone(), &object.bucket);
                match bucket.get(&object.key).await? {
                    Some(bytes) => Some(bytes),
                    None if now - execution.data_end < GIVE_UP => {
                        warn!(
                            scheduler = execution.scheduler,
                            window = execution.window(),
                            object = format!("s3://{}/{}", object.bucket, object.key),
                            "the results object is not there, looking again"
                        );
                        return Ok(false);
                    }
                    None => {
                        error!(
                            scheduler = execution.scheduler,
                            window = execution.window(),
                            object = format!("s3://{}/{}", object.bucket, object.key),
                            "the results object is gone: the execution is archived without it"
                        );
                        None
                    }
                }
            }
        };
        let summary = match results.as_deref().map(Summary::of) {
            None => Summary::default(),
            Some(Ok(summary)) => summary,
            Some(Err(error)) => {
                error!(
                    scheduler = execution.scheduler, window = execution.window(), %error,
                    "the results cannot be read: they are archived as they are"
                );
                Summary::default()
            }
        };
        let (archive, kept) = (self.parts.archive.clone(), execution.clone());
        let kept = blocking(move || archive.keep(&kept, results.as_deref())).await??;
        if let Kept::Conflict(aside) = &kept {
            error!(
                scheduler = execution.scheduler, window = execution.window(), aside = %aside.display(),
                "the archive holds something else for this window: that stays, the new bytes are kept aside"
            );
        }
        self.copy(execution).await?;
        let (index, row, counted) = (self.index.clone(), execution.clone(), summary.clone());
        blocking(move || index.archived(&row, &counted, now)).await??;
        log(execution, &summary, kept == Kept::Late);
        Ok(true)
    }

    /// Copies a record to the archive prefix, which never overwrites either.
    async fn copy(&self, execution: &Execution) -> Result<(), Failure> {
        let Some((bucket, prefix)) = &self.parts.copy else {
            return Ok(());
        };
        let (archive, record) = (self.parts.archive.clone(), execution.clone());
        for (name, bytes) in blocking(move || archive.files(&record)).await?? {
            let key = format!("{prefix}{name}");
            if let Created::Conflict(difference) = bucket.create(&key, &bytes).await? {
                error!(
                    scheduler = execution.scheduler,
                    window = execution.window(),
                    object = format!("s3://{}/{key}", bucket.name()),
                    difference,
                    "the copy of the archive holds something else: it is left alone"
                );
            }
        }
        Ok(())
    }

    /// Says which executions should have come by now and did not: a wake-up and one cadence ago, and nothing listed.
    async fn missing(&mut self) -> Result<(), Failure> {
        let Some(mut end) = self.expected else {
            return Ok(());
        };
        let cadence = self.parts.target.cadence.duration();
        let overdue = self.parts.clock.now() - self.delay() - cadence;
        let mut missing: Vec<DateTime<Utc>> = Vec::new();
        let (index, name) = (self.index.clone(), self.parts.target.scheduler.clone());
        let until = overdue;
        let (ends, next) = blocking(move || -> anyhow::Result<_> {
            let mut ends = Vec::new();
            while end <= until {
                if index.get(&name, end - cadence)?.is_none() {
                    ends.push(end);
                }
                end += cadence;
            }
            Ok((ends, end))
        })
        .await??;
        missing.extend(ends);
        self.expected = Some(next);
        if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
            let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
            warn!(
                scheduler = self.parts.target.scheduler,
                windows = missing.len(),
                first = text(*first - cadence),
                last = text(*last - cadence),
                "expected executions did not come"
            );
        }
        Ok(())
    }

    fn delay(&self) -> TimeDelta {
        TimeDelta::minutes(self.parts.target.delay_minutes)
    }

    /// How far before the cursor is listed again, for executions that come out of order.
    fn overlap(&self) -> TimeDelta {
        TimeDelta::hours(1).max(self.parts.target.cadence.duration() * 3)
    }
}

/// One line per execution.
fn log(execution: &Execution, summary: &Summary, late: bool) {
    let top: Vec<String> = summary
        .top
        .iter()
        .take(3)
        .map(|(sensor, share)| format!("{sensor} {:.0} %", share * 100.0))
        .collect();
    if execution.status == "SUCCESS" {
        info!(
            scheduler = execution.scheduler,
            window = execution.window(),
            status = execution.status,
            rows = summary.rows,
            anomalous = summary.anomalous,
            score = summary.score,
            top = top.join(", "),
            late,
            "execution archived"
        );
    } else {
        let reason = execution
            .failed_reason
            .as_deref()
            .unwrap_or("no reason given");
        warn!(
            scheduler = execution.scheduler,
            window = execution.window(),
            status = execution.status,
            reason,
            hint = hint(reason).unwrap_or_default(),
            "execution archived"
        );
    }
}

/// Anything that ends a round early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    S3(#[from] S3Error),
    #[error(transparent)]
    Index(#[from] super::index::IndexError),
    #[error(transparent)]
    Archive(#[from] super::archive::ArchiveError),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

fn told(failure: Failure) -> (String, Advice) {
    let advice = match &failure {
        Failure::Api(error) => error.advice(),
        Failure::S3(error) => match error.disposition() {
            Disposition::Hold(remedy) => Advice::Hold(remedy),
            _ => Advice::Retry,
        },
        Failure::Index(_) | Failure::Archive(_) => {
            Advice::Hold("check the disk of the data directory")
        }
        Failure::Other(_) => Advice::Retry,
    };
    (failure.to_string(), advice)
}

/// What keeps failing, so that it is said once and its end too.
#[derive(Debug, Default)]
struct Trouble {
    error: Option<String>,
    rounds: u32,
}

impl Trouble {
    fn say(&mut self, error: String, advice: Advice) {
        self.rounds += 1;
        if self.error.as_ref() == Some(&error) {
            debug!(
                error,
                rounds = self.rounds,
                "the inference side still fails"
            );
            return;
        }
        match advice {
            Advice::Retry => warn!(
                error,
                "the inference side fails, trying again; feeding goes on"
            ),
            Advice::Hold(remedy) => {
                error!(
                    error,
                    remedy, "the inference side cannot go on; feeding goes on"
                );
            }
        }
        self.error = Some(error);
    }

    fn over(&mut self) {
        if self.error.take().is_some() {
            info!(rounds = self.rounds, "the inference side works again");
        }
        self.rounds = 0;
    }

    /// The pause after this round: twice as long after every failed one.
    fn pause(&self, poll: Duration) -> Duration {
        poll.saturating_mul(1 << self.rounds.min(10))
            .min(LONGEST_PAUSE.max(poll))
    }
}

/// One blocking hop for disk work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("disk work of the archive")
}
