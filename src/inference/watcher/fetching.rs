//! Fetching: from an execution in the index to its record in the archive and its copy.

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::absent::Why;
use super::{Failure, Watcher, blocking, told};
use crate::inference::api::Advice;
use crate::inference::archive::{Archive, Checksum, Kept};
use crate::inference::execution::Execution;
use crate::inference::hint::{cause, hint};
use crate::inference::result::Summary;
use crate::s3::{Bucket, Created};

/// Executions looked at together, and tried between two listings.
const BATCH: usize = 100;
/// How long a results object may be missing before the execution is archived without it.
const GIVE_UP: TimeDelta = TimeDelta::days(1);

/// What there is of an execution's results.
enum Fetched {
    /// These.
    Results(Vec<u8>),
    /// It has none.
    None,
    /// Their object is not there yet.
    Later,
    /// Their object has not been there for so long that it will not come any more.
    Gone(String),
    /// They were archived once and cannot be had any more.
    Lost,
}

/// How archiving an execution ended.
enum Archived {
    Done,
    /// Its results are not there yet.
    Later,
    /// Without its results, whose object was this.
    Without(String),
}

impl Watcher {
    /// Archives finished executions, the newest batch first; what could not be had before waits for its turn and holds none up.
    /// True where more wait.
    pub(super) async fn archive(&mut self) -> Result<bool, (String, Advice)> {
        let (beyond, mut before) = (self.beyond(), DateTime::<Utc>::MAX_UTC);
        let (mut tried, mut gone, mut newest) = (0, Vec::new(), None);
        let mut unreachable = None;
        'batches: loop {
            let (index, name) = (self.index.clone(), self.parts.target.scheduler.clone());
            let batch = blocking(move || index.to_archive(&name, before, BATCH))
                .await
                .map_err(|error| told(error.into()))?
                .map_err(|error| told(error.into()))?;
            let (Some(oldest), full) = (batch.first(), batch.len() == BATCH) else {
                break;
            };
            before = oldest.data_start;
            if newest.is_none() {
                newest = batch.last().map(|execution| execution.data_start);
            }
            for execution in batch {
                let start = execution.data_start;
                // One of a time to come that is not SUCCESS is done again then.
                let void = execution.status != "SUCCESS" && execution.data_end > beyond;
                // The newest tells whether those before it may be had again.
                if void || newest != Some(start) && !self.absent.is_due(start, Instant::now()) {
                    continue;
                }
                tried += 1;
                match self.archive_one(&execution).await {
                    Ok(Archived::Done) => self.absent.came(start, Instant::now()),
                    Ok(Archived::Without(object)) => {
                        self.absent.came(start, Instant::now());
                        gone.push((execution.window(), object));
                    }
                    Ok(Archived::Later) => self.failed(start, Why::Missing),
                    Err(Failure::S3(error)) => {
                        let failed = error.failure.status.is_none();
                        let (error, advice) = told(Failure::S3(error));
                        if failed {
                            unreachable = Some((error, advice));
                            break 'batches;
                        }
                        self.failed(start, Why::Refused(error, advice));
                    }
                    Err(error) => return Err(told(error)),
                }
            }
            if !full || tried >= BATCH {
                break;
            }
        }
        self.say_gone(&gone);
        self.say_missing(tried < BATCH);
        match unreachable.or_else(|| self.absent.refused()) {
            Some(error) => Err(error),
            None => Ok(tried >= BATCH),
        }
    }

    /// Notes that the results of an execution could not be had.
    fn failed(&mut self, start: DateTime<Utc>, why: Why) {
        let pause = self.real(self.parts.poll);
        self.absent.failed(start, why, pause, Instant::now());
    }

    /// Says what is archived without its results, as a number.
    fn say_gone(&self, gone: &[(String, String)]) {
        if let (Some((_, object)), Some((first, _)), Some((last, _))) =
            (gone.first(), gone.first(), gone.last())
        {
            error!(
                scheduler = self.parts.target.scheduler,
                windows = gone.len(),
                first,
                last,
                object,
                "results objects are gone: their executions are archived without them"
            );
        }
    }

    /// Says which results are not there, as a number; in the log once all of them have been looked for.
    fn say_missing(&mut self, all: bool) {
        let missing = self.absent.missing(Instant::now(), all);
        self.told_missing(missing.as_ref());
        let Some(missing) = missing else {
            return;
        };
        if missing.news {
            warn!(
                scheduler = self.parts.target.scheduler,
                windows = missing.windows,
                first = %missing.first,
                last = %missing.last,
                "results objects are not there, looking again"
            );
        }
    }

    /// Fetches, keeps, copies, records.
    async fn archive_one(&self, execution: &Execution) -> Result<Archived, Failure> {
        let now = self.parts.clock.now();
        let mut archived = Archived::Done;
        let results = match self.results_of(execution).await? {
            Fetched::Results(bytes) => Some(bytes),
            Fetched::None => None,
            Fetched::Later => return Ok(Archived::Later),
            Fetched::Gone(object) => {
                archived = Archived::Without(object);
                None
            }
            Fetched::Lost => {
                error!(
                    scheduler = execution.scheduler,
                    window = execution.window(),
                    "the archived results are damaged and their object is gone: what is left lies beside their place, set aside"
                );
                self.told_lost(execution);
                let (index, row) = (self.index.clone(), execution.clone());
                blocking(move || index.given_up(&row, now)).await??;
                return Ok(Archived::Done);
            }
        };
        let summary = match results.as_deref().map(Summary::of) {
            None => Summary::default(),
            Some(Ok(summary)) => {
                self.told_unreadable(execution, None);
                summary
            }
            Some(Err(error)) => {
                self.told_unreadable(execution, Some(&error.to_string()));
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
            self.told_conflict(execution, aside);
        }
        self.copy(execution).await?;
        let (index, row, counted) = (self.index.clone(), execution.clone(), summary.clone());
        blocking(move || index.archived(&row, &counted, now)).await??;
        let cause = self.cause(execution).await;
        log(execution, &summary, kept == Kept::Late, cause);
        Ok(archived)
    }

    /// Why it failed, where that is known better here than there.
    async fn cause(&self, execution: &Execution) -> Option<String> {
        let deliveries = self.deliveries.clone()?;
        let failed = execution.clone();
        let told = blocking(move || {
            let delivery = deliveries(failed.data_start)?;
            cause(&failed.failed()?, &delivery)
        });
        told.await.ok().flatten()
    }

    /// The results of an execution: from their object; where that is gone, from what lies in the archive or its copy.
    async fn results_of(&self, execution: &Execution) -> Result<Fetched, Failure> {
        if let Some(object) = &execution.result {
            let bucket = Bucket::new(self.parts.s3.clone(), &object.bucket);
            if let Some(bytes) = bucket.get(&object.key).await? {
                return Ok(Fetched::Results(bytes));
            }
        }
        let (archive, of) = (self.parts.archive.clone(), execution.clone());
        let (left, expected) = blocking(move || archive.left_of(&of)).await?;
        if let Some(bytes) = left {
            return Ok(Fetched::Results(bytes));
        }
        if let (Some(expected), Some((bucket, prefix))) = (&expected, &self.parts.copy) {
            let place = Archive::place(execution);
            for name in [".late.jsonl", ".jsonl"] {
                let copy = bucket.get(&format!("{prefix}{place}{name}")).await?;
                if let Some(bytes) = copy.filter(|bytes| Checksum::of(bytes) == *expected) {
                    return Ok(Fetched::Results(bytes));
                }
            }
        }
        let Some(object) = &execution.result else {
            return Ok(match expected {
                Some(_) => Fetched::Lost,
                None => Fetched::None,
            });
        };
        let object = format!("s3://{}/{}", object.bucket, object.key);
        Ok(if self.parts.clock.now() - execution.data_end < GIVE_UP {
            Fetched::Later
        } else if expected.is_some() {
            Fetched::Lost
        } else {
            Fetched::Gone(object)
        })
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
                self.told_copy_differs(execution, &format!("s3://{}/{key}", bucket.name()));
            }
        }
        Ok(())
    }
}

/// One line per execution.
fn log(execution: &Execution, summary: &Summary, late: bool, cause: Option<String>) {
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
            hint = cause
                .as_deref()
                .or_else(|| hint(reason))
                .unwrap_or_default(),
            "execution archived"
        );
    }
}
