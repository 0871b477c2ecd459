//! What happened: which executions, which results, which event runs now, since when, which sensors.
//!
//! ```text
//!  console, health, metrics, notifications, commands ─► executions ─► the service's store, or the archive's index
//! ```
//!
//! One reading of it for everybody who asks, over two backings that hold the only SQL: `service::store::reading` and the
//! archive's index (`inference::Past`). A machine is anomalous while its last SUCCESS had an anomalous row; only a SUCCESS
//! without one ends that, a FAILED or IN_PROGRESS execution says nothing. Start, end and shares of an event are those of its
//! anomalous rows. Guarantees: it changes nothing, and every question is bounded by a limit or by the number of schedulers.

mod rows;
mod scores;
mod unscored;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use tracing::warn;

use crate::inference::Past;
use crate::service::store::reading::Reading;
use crate::signal::{Cadence, NameFormat};

pub use rows::{
    Counts, DatasetRow, EventRow, ExecutionRow, Failing, Input, Inventory, JobRow, LabelRow,
    MOST_ACTIVE, ModelRow, News, SchedulerRow,
};
pub use scores::{LatestScore, Scored, Scores, seconds};
pub use unscored::{Delivered, LOOKED_BACK, Unscored};

/// A backing refused.
#[derive(Debug, thiserror::Error)]
#[error("the executions cannot be read: {0}")]
pub struct ReadError(#[from] rusqlite::Error);

/// An answer.
pub type Answer<T> = Result<T, ReadError>;

/// Whoever knows the executions. Cheap to clone.
#[derive(Clone)]
pub enum State {
    /// A service's own store.
    Service(Reading),
    /// The archive of a gateway whose service is elsewhere.
    Archive(Past),
}

/// Where executions can be looked up. Opened when it is first asked for and there; cheap to clone.
#[derive(Clone)]
pub struct Place {
    path: PathBuf,
    /// Window length and naming of the feeder whose scheduler is archived; `None` for a service's own state.
    archived: Option<(Cadence, NameFormat)>,
    /// The schedulers of an archive that are judged; `None`: all.
    judged: Option<BTreeSet<String>>,
    opened: Arc<Mutex<Opened>>,
}

/// What came of opening it.
#[derive(Default)]
struct Opened {
    state: Option<State>,
    /// Why it could not be opened although it is there.
    failure: Option<String>,
}

impl Place {
    /// A service's own state.
    pub fn service(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            archived: None,
            judged: None,
            opened: Arc::default(),
        }
    }

    /// Of an archive, only these schedulers are judged: that another one was anomalous, or failed, when it last ran is not
    /// the case now.
    pub fn judging(self, schedulers: BTreeSet<String>) -> Self {
        Self {
            judged: Some(schedulers),
            ..self
        }
    }

    /// The index of a gateway's archive, for a scheduler of `cadence` that runs elsewhere.
    pub fn archive(path: impl Into<PathBuf>, cadence: Cadence, naming: NameFormat) -> Self {
        Self {
            archived: Some((cadence, naming)),
            ..Self::service(path)
        }
    }

    /// The state, once it is there.
    pub fn open(&self) -> Option<State> {
        let mut opened = self
            .opened
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if opened.state.is_none() {
            let found = match self.archived {
                None => Reading::open(&self.path).map(|found| found.map(State::Service)),
                Some((cadence, naming)) => {
                    let found = Past::open(&self.path, cadence, naming);
                    let judging = |past: Past| State::Archive(past.judging(self.judged.clone()));
                    found.map(|found| found.map(judging))
                }
            };
            opened.failure = None;
            opened.state = found.unwrap_or_else(|error| {
                let path = self.path.display();
                warn!(%error, %path, "the executions cannot be read");
                opened.failure = Some(format!("the executions in {path} cannot be read: {error}"));
                None
            });
        }
        opened.state.clone()
    }

    /// Why they could not be read when they were last asked for.
    pub fn failure(&self) -> Option<String> {
        let opened = self.opened.lock();
        let opened = opened.unwrap_or_else(|poisoned| poisoned.into_inner());
        opened.failure.clone()
    }
}

impl State {
    /// Whether this is an archive's index, which knows no models and no labels.
    pub fn is_archive(&self) -> bool {
        matches!(self, Self::Archive(_))
    }

    /// Counts over all schedulers.
    pub fn counts(&self, now: DateTime<Utc>) -> Answer<Counts> {
        Ok(match self {
            Self::Service(reading) => reading.counts(now)?,
            Self::Archive(past) => past.counts(now)?,
        })
    }

    /// Finished executions whose results are not archived; a service archives none.
    pub fn waiting(&self) -> Answer<u64> {
        Ok(match self {
            Self::Service(_) => 0,
            Self::Archive(past) => past.waiting()?,
        })
    }

    /// Running schedulers whose last ended execution failed; at most `limit`.
    pub fn failing(&self, now: DateTime<Utc>, limit: usize) -> Answer<Vec<Failing>> {
        Ok(match self {
            Self::Service(reading) => reading.failing(now, limit)?,
            Self::Archive(past) => past.failing(now, limit)?,
        })
    }

    /// Running schedulers that are anomalous, and those whose newest event ended after `since`; at most `limit`.
    pub fn anomalies(
        &self,
        now: DateTime<Utc>,
        since: DateTime<Utc>,
        limit: usize,
    ) -> Answer<Vec<News>> {
        Ok(match self {
            Self::Service(reading) => reading.anomalies(now, since, limit)?,
            Self::Archive(past) => past.anomalies(now, since, limit)?,
        })
    }

    /// Schedulers by name, those after `after` that contain `part`, at most `limit`; of one status or all.
    pub fn schedulers(
        &self,
        now: DateTime<Utc>,
        part: &str,
        status: Option<&str>,
        after: &str,
        limit: usize,
    ) -> Answer<Vec<SchedulerRow>> {
        Ok(match self {
            Self::Service(reading) => reading.schedulers(now, part, status, after, limit)?,
            Self::Archive(past) if status.is_none_or(|status| status == "ARCHIVED") => {
                past.schedulers(now, part, after, limit)?
            }
            Self::Archive(_) => Vec::new(),
        })
    }

    /// The scheduler of that name.
    pub fn scheduler(&self, now: DateTime<Utc>, name: &str) -> Answer<Option<SchedulerRow>> {
        Ok(match self {
            Self::Service(reading) => reading.scheduler(now, name)?,
            Self::Archive(past) => past.scheduler(now, name)?,
        })
    }

    /// Executions of windows that end in `from..before`, newest first, at most `limit`; of one status or all.
    pub fn executions(
        &self,
        uuid: &str,
        status: Option<&str>,
        from: Option<DateTime<Utc>>,
        before: Option<DateTime<Utc>>,
        limit: usize,
    ) -> Answer<Vec<ExecutionRow>> {
        Ok(match self {
            Self::Service(reading) => reading.executions(uuid, status, from, before, limit)?,
            Self::Archive(past) => past.executions(uuid, status, from, before, limit)?,
        })
    }

    /// The highest score of each of `count` stretches of `step` since `from`, the oldest first; `None` for one without a scored
    /// window. Asked of rows, not of results: it reads nothing from the store.
    pub fn peaks(
        &self,
        uuid: &str,
        from: DateTime<Utc>,
        step: TimeDelta,
        count: usize,
    ) -> Answer<Vec<Option<f64>>> {
        Ok(match self {
            Self::Service(reading) => reading.peaks(uuid, from, step, count)?,
            Self::Archive(past) => past.peaks(uuid, from, step, count)?,
        })
    }

    /// Events that overlap `from..before`, newest first, at most `limit`.
    pub fn events(
        &self,
        uuid: &str,
        from: Option<DateTime<Utc>>,
        before: Option<DateTime<Utc>>,
        limit: usize,
    ) -> Answer<Vec<EventRow>> {
        Ok(match self {
            Self::Service(reading) => reading.events(uuid, from, before, limit)?,
            Self::Archive(past) => past.events(uuid, from, before, limit)?,
        })
    }

    /// The event that starts at `start`.
    pub fn event(&self, uuid: &str, start: DateTime<Utc>) -> Answer<Option<EventRow>> {
        Ok(match self {
            Self::Service(reading) => reading.event(uuid, start)?,
            Self::Archive(past) => past.event(uuid, start)?,
        })
    }

    /// Labels of all groups that overlap `from..before`, at most `limit`.
    pub fn labels(
        &self,
        from: DateTime<Utc>,
        before: DateTime<Utc>,
        limit: usize,
    ) -> Answer<Vec<LabelRow>> {
        Ok(match self {
            Self::Service(reading) => reading.labels(from, before, limit)?,
            Self::Archive(_) => Vec::new(),
        })
    }

    /// The status of the model of that name.
    pub fn model(&self, name: &str) -> Answer<Option<String>> {
        Ok(match self {
            Self::Service(reading) => reading.model(name)?,
            Self::Archive(_) => None,
        })
    }

    /// Models by name, those after `after`, and the newest datasets and ingestions, at most `limit` of each.
    pub fn inventory(&self, after: &str, limit: usize) -> Answer<Inventory> {
        Ok(match self {
            Self::Service(reading) => reading.inventory(after, limit)?,
            Self::Archive(_) => Inventory::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::inference::{Archive, Execution, Index, ResultObject, Run, Summary};

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + minutes * 60, 0).unwrap()
    }

    fn run(first: i64, last: i64, window: i64) -> Run {
        Run {
            start_us: at(first).timestamp_micros(),
            end_us: at(last).timestamp_micros(),
            rows: (last - first + 1) as usize,
            shares: vec![(format!("c\\s{window}"), 0.6), ("c\\main".into(), 0.4)],
        }
    }

    #[test]
    fn an_archive_is_read_like_a_services_state() {
        let directory = tempfile::tempdir().unwrap();
        let index = Index::open(&Archive::new(directory.path()), at(0)).unwrap();
        for window in 0..12 {
            let failed = window == 3;
            let execution = Execution {
                scheduler: "pump".into(),
                model: "m".into(),
                model_version: None,
                scheduled: Some(at(window * 5 + 5)),
                data_start: at(window * 5),
                data_end: at(window * 5 + 5),
                status: if failed { "FAILED" } else { "SUCCESS" }.into(),
                failed_reason: failed.then(|| "Could not find data file".into()),
                result: (!failed).then(|| ResultObject {
                    bucket: "b".into(),
                    key: format!("output/{window}"),
                }),
                input: "s3://plant/input/".into(),
            };
            // Two events: windows 5 to 7, and the last one.
            let anomalous = matches!(window, 5..=7 | 11);
            let summary = Summary {
                rows: 5,
                anomalous: if anomalous { 4 } else { 0 },
                score: Some(if window == 6 { 0.9 } else { 0.6 }),
                top: vec![(format!("c\\s{window}"), 0.7)],
                // All rows but the first of a window in which an anomaly begins, 5 of the others.
                runs: match window {
                    5 | 11 => vec![run(window * 5 + 2, window * 5 + 5, window)],
                    6 | 7 => vec![run(window * 5 + 1, window * 5 + 5, window)],
                    _ => Vec::new(),
                },
                step_us: 60_000_000,
            };
            index.note(std::slice::from_ref(&execution)).unwrap();
            index
                .archived(&execution, &summary, at(window * 5 + 6))
                .unwrap();
        }
        index.advance("pump", at(1_000)).unwrap();
        let place = Place::archive(
            directory.path().join("index.db"),
            Cadence::Pt5m,
            NameFormat::default(),
        );
        let state = place.open().unwrap();
        let scheduler = state.scheduler(at(1_000), "pump").unwrap().unwrap();
        assert_eq!(
            (scheduler.model.as_str(), scheduler.latest_result.as_deref()),
            ("m", Some("ANOMALOUS"))
        );
        assert_eq!(
            (
                scheduler.input.bucket.as_str(),
                scheduler.input.prefix.as_str()
            ),
            ("plant", "input/")
        );
        assert_eq!(scheduler.last, Some(("SUCCESS".into(), at(60))));
        let first = state.executions("pump", None, None, None, 8).unwrap();
        let second = state
            .executions("pump", None, None, Some(first[7].end), 8)
            .unwrap();
        let ends: Vec<_> = first.iter().chain(&second).map(|row| row.end).collect();
        assert_eq!(
            ends,
            (1..=12)
                .rev()
                .map(|window| at(window * 5))
                .collect::<Vec<_>>()
        );
        let failed = state
            .executions("pump", Some("FAILED"), None, None, 8)
            .unwrap();
        assert_eq!(
            (failed.len(), failed[0].reason.as_deref()),
            (1, Some("Could not find data file"))
        );
        assert_eq!(first[0].result, Some(("b".into(), "output/11".into())));
        let events = state.events("pump", None, None, 8).unwrap();
        let spans: Vec<_> = events
            .iter()
            .map(|event| (event.start, event.end))
            .collect();
        assert_eq!(spans, [(at(57), at(60)), (at(27), at(40))]);
        // 4, 5 and 5 rows: the mean over all of them.
        let (name, share) = &events[1].shares[0];
        assert_eq!(name, "c\\main");
        assert!((share - 0.4).abs() < 1e-9);
        let (name, share) = &events[1].shares[1];
        assert_eq!(name, "c\\s6");
        assert!((share - 0.6 * 5.0 / 14.0).abs() < 1e-9, "{share}");
        assert_eq!(
            state.event("pump", at(27)).unwrap(),
            Some(events[1].clone())
        );
        let older = state.events("pump", Some(at(30)), Some(at(35)), 8).unwrap();
        assert_eq!(
            older,
            [events[1].clone()],
            "also where only its middle is asked for"
        );
        // Window 6 has the highest; the failed one has none.
        let quarters = state
            .peaks("pump", at(0), TimeDelta::minutes(15), 5)
            .unwrap();
        assert_eq!(quarters, [Some(0.6), Some(0.6), Some(0.9), Some(0.6), None]);
        let failed = state.peaks("pump", at(15), TimeDelta::minutes(5), 1);
        assert_eq!(failed.unwrap(), [None]);
        let counts = state.counts(at(60)).unwrap();
        assert_eq!((counts.active_count, counts.failing), (1, 0));
        assert_eq!(counts.active, [("pump".to_owned(), at(57))]);
        assert_eq!(
            counts.last_hour,
            [("FAILED".to_owned(), 1), ("SUCCESS".to_owned(), 11)]
        );
        assert!(state.labels(at(0), at(60), 5).unwrap().is_empty());
    }
    /// Windows of 5 minutes with 5 rows each: `a` anomalous, `h` healthy, `f` failed, `p` in progress, `u` not archived.
    fn told(windows: &str) -> (tempfile::TempDir, State) {
        let directory = tempfile::tempdir().unwrap();
        let index = Index::open(&Archive::new(directory.path()), at(0)).unwrap();
        for (window, kind) in (0..).zip(windows.chars()) {
            let execution = Execution {
                scheduler: "pump".into(),
                model: "m".into(),
                model_version: None,
                scheduled: None,
                data_start: at(window * 5),
                data_end: at(window * 5 + 5),
                status: match kind {
                    'f' => "FAILED",
                    'p' => "IN_PROGRESS",
                    _ => "SUCCESS",
                }
                .into(),
                failed_reason: None,
                result: None,
                input: "s3://plant/input/".into(),
            };
            index.note(std::slice::from_ref(&execution)).unwrap();
            let summary = match kind {
                'a' => Summary {
                    rows: 5,
                    anomalous: 5,
                    runs: vec![run(window * 5 + 1, window * 5 + 5, window)],
                    step_us: 60_000_000,
                    ..Summary::default()
                },
                'h' => Summary {
                    rows: 5,
                    step_us: 60_000_000,
                    ..Summary::default()
                },
                'f' => Summary::default(),
                _ => continue,
            };
            index
                .archived(&execution, &summary, at(window * 5 + 6))
                .unwrap();
        }
        let place = Place::archive(
            directory.path().join("index.db"),
            Cadence::Pt5m,
            NameFormat::default(),
        );
        let state = place.open().unwrap();
        (directory, state)
    }

    #[test]
    fn only_a_success_without_an_anomalous_row_ends_an_anomaly() {
        for (windows, since) in [
            ("ha", Some(6)),
            ("haa", Some(6)),
            ("haap", Some(6)),
            ("haafff", Some(6)),
            ("haau", Some(6)),
            ("haaffa", Some(6)),
            ("haahffa", Some(31)),
            ("haah", None),
            ("haahf", None),
            ("f", None),
        ] {
            let (_directory, state) = told(windows);
            let counts = state.counts(at(100)).unwrap();
            let found = counts.active.first().map(|(_, since)| *since);
            assert_eq!(found, since.map(at), "{windows}");
            let news = state.anomalies(at(1_000), at(1_000), 5).unwrap();
            assert_eq!(
                news.first().and_then(|news| news.since),
                since.map(at),
                "{windows}"
            );
        }
        let (_directory, state) = told("haah");
        let news = state.anomalies(at(1_000), at(0), 5).unwrap();
        assert!(!news[0].active);
        assert_eq!(news[0].event.as_ref().unwrap().end, at(15));
    }

    #[test]
    fn failing_is_told_since_the_first_failure_after_the_last_success() {
        let (_directory, state) = told("hfffp");
        let failing = state.failing(at(1_000), 5).unwrap();
        assert_eq!(failing[0].since, at(10));
        assert_eq!(failing[0].last.end, at(20));
        let counts = state.counts(at(30)).unwrap();
        assert_eq!(counts.failing_since, [("pump".to_owned(), at(10))]);
        let (_directory, state) = told("hfh");
        assert!(state.failing(at(1_000), 5).unwrap().is_empty());
        assert_eq!(
            state.counts(at(30) + TimeDelta::hours(1)).unwrap().failing,
            0
        );
    }
    #[test]
    fn a_result_of_a_time_to_come_says_nothing_before() {
        // Windows 0 to 2 are of the present, 20 minutes of them; the last one is of a clock that was ahead.
        let windows = |kinds: &str| {
            let (directory, state) = told(kinds);
            (directory, state, at(12))
        };
        let (_directory, state, now) = windows("haaaaaaah");
        let news = state.anomalies(now, at(1_000), 5).unwrap();
        assert_eq!(news[0].since, Some(at(6)), "not over");
        assert_eq!(state.counts(now).unwrap().active_count, 1);
        let row = state.scheduler(now, "pump").unwrap().unwrap();
        assert_eq!(row.latest_result.as_deref(), Some("ANOMALOUS"));
        assert_eq!(row.last, Some(("SUCCESS".into(), at(15))));
        let (_directory, state, now) = windows("hhhpppppa");
        assert!(state.anomalies(now, at(1_000), 5).unwrap().is_empty());
        assert_eq!(state.counts(now).unwrap().active_count, 0);
        assert_eq!(
            state.counts(at(40)).unwrap().active_count,
            1,
            "its time has come"
        );
        let (_directory, state, now) = windows("hffpppppp");
        assert_eq!(state.failing(now, 5).unwrap()[0].since, at(10));
        let (_directory, state, now) = windows("hffppppph");
        assert_eq!(state.failing(now, 5).unwrap()[0].since, at(10));
    }

    #[test]
    fn of_an_archive_what_is_kept_is_judged_and_each_scheduler_has_its_own_window_length() {
        let directory = tempfile::tempdir().unwrap();
        let index = Index::open(&Archive::new(directory.path()), at(0)).unwrap();
        for (scheduler, length) in [("kept", 60), ("imported", 5)] {
            for window in 0..3 {
                let start = window * length;
                let failed = window == 2;
                let execution = Execution {
                    scheduler: scheduler.into(),
                    model: "m".into(),
                    model_version: None,
                    scheduled: None,
                    data_start: at(start),
                    data_end: at(start + length),
                    status: if failed { "FAILED" } else { "SUCCESS" }.into(),
                    failed_reason: None,
                    result: None,
                    input: String::new(),
                };
                let summary = Summary {
                    rows: 5,
                    anomalous: 5,
                    runs: vec![run(start + 1, start + length, window)],
                    step_us: 60_000_000,
                    ..Summary::default()
                };
                let summary = if failed { Summary::default() } else { summary };
                index.note(std::slice::from_ref(&execution)).unwrap();
                index
                    .archived(&execution, &summary, at(start + length))
                    .unwrap();
            }
        }
        let place = || {
            let path = directory.path().join("index.db");
            Place::archive(path, Cadence::Pt5m, NameFormat::default())
        };
        let all = place().open().unwrap();
        let counts = all.counts(at(180)).unwrap();
        assert_eq!((counts.active_count, counts.failing), (2, 2));

        let judging = place().judging(["kept".to_owned()].into()).open().unwrap();
        let counts = judging.counts(at(180)).unwrap();
        assert_eq!(counts.active, [("kept".to_owned(), at(1))]);
        assert_eq!(counts.failing_since, [("kept".to_owned(), at(180))]);
        let news = judging.anomalies(at(180), at(0), 10).unwrap();
        assert_eq!(news.len(), 1);
        // What is not judged can be looked up all the same.
        assert_eq!(
            judging.schedulers(at(180), "", None, "", 10).unwrap().len(),
            2
        );
        assert_eq!(
            judging
                .scheduler(at(180), "kept")
                .unwrap()
                .unwrap()
                .frequency,
            "PT1H"
        );
        // Windows of an hour that end from the first one's end on are all three: none of them was never scored.
        let ends = judging
            .executions("kept", None, Some(at(60)), None, 10)
            .unwrap();
        assert_eq!(ends.len(), 3);
        let delivered = [(at(0), at(60)), (at(60), at(120)), (at(120), at(180))];
        let unscored = judging.unscored("kept", &delivered, at(1_000), TimeDelta::hours(2));
        assert!(unscored.unwrap().is_empty());
    }

    #[test]
    fn an_index_that_cannot_be_opened_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index.db");
        let place = Place::archive(&path, Cadence::Pt5m, NameFormat::default());
        assert!(
            place.open().is_none() && place.failure().is_none(),
            "it is not there yet"
        );
        std::fs::create_dir(&path).unwrap();
        assert!(place.open().is_none());
        let why = place.failure().unwrap();
        assert!(why.contains("index.db"), "{why}");
    }
}
