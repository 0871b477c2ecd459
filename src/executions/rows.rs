//! What is known of schedulers, executions and events, whoever keeps it.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::signal::{Cadence, NameFormat};

/// Counts over all schedulers. One is anomalous while its last SUCCESS had an anomalous row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Schedulers by status.
    pub schedulers: Vec<(String, u64)>,
    /// Schedulers whose last ended execution failed.
    pub failing: u64,
    /// Those, and the end of the first window that failed since the last success, at most [`MOST_ACTIVE`].
    pub failing_since: Vec<(String, DateTime<Utc>)>,
    /// Executions of the last hour by status.
    pub last_hour: Vec<(String, u64)>,
    /// Schedulers that are anomalous and since when, at most [`MOST_ACTIVE`].
    pub active: Vec<(String, DateTime<Utc>)>,
    /// All schedulers that are anomalous.
    pub active_count: u64,
    /// Running schedulers that should have executed and did not, and since when, at most [`MOST_ACTIVE`].
    pub overdue: Vec<(String, DateTime<Utc>)>,
}

/// Schedulers with something that is named one by one.
pub const MOST_ACTIVE: usize = 100;

/// One scheduler.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerRow {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: String,
    /// The model it runs.
    pub model: String,
    /// PENDING, RUNNING, STOPPING or STOPPED.
    pub status: String,
    /// ANOMALOUS or NORMAL once there was a result.
    pub latest_result: Option<String>,
    /// Window length, as the API writes it.
    pub frequency: String,
    /// Minutes after a window's end.
    pub delay_minutes: i64,
    /// When it runs next, if it is running.
    pub wakes: Option<DateTime<Utc>>,
    /// How the last execution ended, and the end of its window.
    pub last: Option<(String, DateTime<Utc>)>,
    /// Where it reads: bucket, prefix, and how files are named.
    pub input: Input,
}

/// Where a scheduler reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    /// The bucket.
    pub bucket: String,
    /// The key prefix.
    pub prefix: String,
    /// How files are named.
    pub naming: NameFormat,
}

/// One execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionRow {
    /// Start of its window.
    pub start: DateTime<Utc>,
    /// End of its window.
    pub end: DateTime<Utc>,
    /// When it was to run.
    pub scheduled: DateTime<Utc>,
    /// When it ended.
    pub finished: Option<DateTime<Utc>>,
    /// IN_PROGRESS, SUCCESS or FAILED.
    pub status: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// Where its results lie: bucket and key.
    pub result: Option<(String, String)>,
    /// Lines, and how many of them are anomalous.
    pub rows: Option<(i64, i64)>,
    /// The archived results, where they lie on this machine.
    pub file: Option<PathBuf>,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// First anomalous line.
    pub start: DateTime<Utc>,
    /// Last anomalous line so far.
    pub end: DateTime<Utc>,
    /// `component\sensor` and its mean share, largest first.
    pub shares: Vec<(String, f64)>,
}

/// One label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRow {
    /// From.
    pub start: DateTime<Utc>,
    /// To.
    pub end: DateTime<Utc>,
    /// ANOMALY, NO_ANOMALY or NEUTRAL.
    pub rating: String,
    /// What the label says.
    pub notes: String,
}

/// A scheduler that is anomalous, or whose last event ended lately.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    /// Its name.
    pub scheduler: String,
    /// Its identity.
    pub uuid: String,
    /// Whether its last SUCCESS was anomalous.
    pub active: bool,
    /// The first row of its newest anomaly: the first anomalous one after a SUCCESS without any, also where it is over.
    pub since: Option<DateTime<Utc>>,
    /// All rows of that anomaly.
    pub event: Option<EventRow>,
}

/// A scheduler whose last ended execution failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failing {
    /// Its name.
    pub scheduler: String,
    /// The execution that failed last.
    pub last: ExecutionRow,
    /// The end of the first window that failed since the last SUCCESS.
    pub since: DateTime<Utc>,
}

/// A model and its newest version.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelRow {
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: String,
    /// The version that scores.
    pub active: Option<i64>,
    /// What it was trained from; `None` where it was imported.
    pub dataset: Option<String>,
    /// Its newest version.
    pub newest: Option<i64>,
    /// That one's status.
    pub newest_status: Option<String>,
    /// Why that one failed.
    pub reason: Option<String>,
    /// When it was made.
    pub created: Option<DateTime<Utc>>,
}

/// A dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetRow {
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: String,
    /// When it was made.
    pub created: DateTime<Utc>,
}

/// An ingestion.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRow {
    /// Its dataset.
    pub dataset: String,
    /// Its status.
    pub status: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// Bytes.
    pub size: Option<i64>,
    /// When it was asked for.
    pub created: DateTime<Utc>,
}

/// Models, datasets and ingestions of a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// Models by name.
    pub models: Vec<ModelRow>,
    /// The newest datasets.
    pub datasets: Vec<DatasetRow>,
    /// The newest ingestions.
    pub jobs: Vec<JobRow>,
}

impl SchedulerRow {
    /// The time up to which it is looked at: one that only the archive knows ended with its last execution.
    pub fn until(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        match &self.last {
            Some((_, end)) if self.status == "ARCHIVED" => (*end).min(now),
            _ => now,
        }
    }

    /// Its window length; five minutes where the text is not one of ours.
    pub fn cadence(&self) -> Cadence {
        self.frequency.parse().unwrap_or(Cadence::Pt5m)
    }
}
