//! Fetching: from an execution in the index to its record in the archive and its copy.

use chrono::TimeDelta;
use tracing::{error, info, warn};

use super::{Failure, Watcher, blocking, told};
use crate::inference::api::Advice;
use crate::inference::archive::{Archive, Checksum, Kept};
use crate::inference::execution::Execution;
use crate::inference::hint::hint;
use crate::inference::result::Summary;
use crate::s3::{Bucket, Created};

/// Executions fetched between two listings.
const BATCH: usize = 100;
/// How long a results object may be missing before the execution is archived without it.
const GIVE_UP: TimeDelta = TimeDelta::days(1);

/// What there is of an execution's results.
enum Fetched {
    /// These.
    Results(Vec<u8>),
    /// It has none, or will never have.
    None,
    /// They are not there yet.
    Later,
    /// They were archived once and cannot be had any more.
    Lost,
}

impl Watcher {
    /// Archives a batch of finished executions. True where more wait.
    pub(super) async fn archive(&self) -> Result<bool, (String, Advice)> {
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
        let results = match self.results_of(execution).await? {
            Fetched::Results(bytes) => Some(bytes),
            Fetched::None => None,
            Fetched::Later => return Ok(false),
            Fetched::Lost => {
                error!(
                    scheduler = execution.scheduler,
                    window = execution.window(),
                    "the archived results are damaged and their object is gone: what is left lies beside their place, set aside"
                );
                let (index, row) = (self.index.clone(), execution.clone());
                blocking(move || index.given_up(&row, now)).await??;
                return Ok(true);
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
        let (scheduler, window) = (&execution.scheduler, execution.window());
        if self.parts.clock.now() - execution.data_end < GIVE_UP {
            warn!(
                scheduler,
                window, object, "the results object is not there, looking again"
            );
            return Ok(Fetched::Later);
        }
        if expected.is_some() {
            return Ok(Fetched::Lost);
        }
        error!(
            scheduler,
            window, object, "the results object is gone: the execution is archived without it"
        );
        Ok(Fetched::None)
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
