//! What runs in this process, for those who look at it: metrics, health, the console.
//!
//! A [`Site`] names the parts; a part that does not run is `None`. A [`Snapshot`] is what they said at one instant: a
//! bounded number of rows of the ledger and of the service's state, and the loops' own words. It changes nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::health::judge;
use crate::clock::Clock;
use crate::disk::trend::Trend;
use crate::executions::{
    Answer, Counts, Delivered, LOOKED_BACK, Place, SchedulerRow, State, Unscored,
};
use crate::feed::disk::Room;
use crate::feed::{
    self, Census, Conditions, Entry, Ledger, LedgerError, Spool, State as WindowState, Waiting,
};
use crate::s3::{Bucket, Readings};
use crate::signal::{NameFormat, TagList};
use crate::store::retention::Retention;
use crate::store::standing::Standing as Stored;
use crate::vitals::{Code, Trouble, Vitals};

/// Windows a snapshot looks back.
const RECENT: usize = 24;
/// How long an execution may take to be listed, at most.
const LISTED_WITHIN: TimeDelta = TimeDelta::minutes(2);
/// How often it is looked up which windows were never scored.
const UNSCORED_EVERY: Duration = Duration::from_secs(5);

/// The parts of this process.
#[derive(Clone)]
pub struct Site {
    /// The time.
    pub clock: Clock,
    /// The feeder.
    pub feed: Option<FeedSite>,
    /// Where executions can be looked up.
    pub history: Option<Place>,
    /// The archive beside it, which may know schedulers that were imported or deleted.
    pub archive: Option<Place>,
    /// Where results and input files are read from.
    pub s3: Option<aws_sdk_s3::Client>,
    /// The scheduler that the gateway keeps elsewhere.
    pub watched: Watched,
    /// The loops of this process.
    pub vitals: Vitals,
    /// What the embedded store keeps, where it is one's own.
    pub store: Option<Retention>,
}

/// The feeder's parts.
#[derive(Clone)]
pub struct FeedSite {
    /// Its rules.
    pub config: feed::Config,
    /// How files are named.
    pub naming: NameFormat,
    /// Key prefix of the input files.
    pub prefix: String,
    /// Components and their signals.
    pub tags: TagList,
    /// Where files go.
    pub bucket: Bucket,
    /// The windows' states.
    pub ledger: Ledger,
    /// What waits.
    pub spool: Spool,
    /// What its loops count.
    pub health: feed::Health,
    /// How long the scheduler waits after a window's end.
    pub delay: TimeDelta,
}

/// What was last learned of the inference scheduler that this gateway keeps. Written by whoever asks the API.
#[derive(Clone, Debug, Default)]
pub struct Watched(Arc<Mutex<Option<Standing>>>);

/// How a scheduler stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub scheduler: String,
    /// PENDING, RUNNING, STOPPING, STOPPED; `None`: the API knows no such scheduler.
    pub status: Option<String>,
    /// What should be: RUNNING or STOPPED.
    pub wanted: &'static str,
    /// Why the API could not be asked, if the last attempt failed.
    pub failure: Option<String>,
    /// Since when it stands so.
    pub since: DateTime<Utc>,
}

/// What all parts said at one instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When.
    pub now: DateTime<Utc>,
    /// When this process took its first one.
    pub started: DateTime<Utc>,
    /// The feeder.
    pub feed: Option<FeedSnapshot>,
    /// The service.
    pub service: Option<Counts>,
    /// The watched scheduler.
    pub watched: Option<Standing>,
    /// The end of its newest execution that is known here.
    pub executed: Option<DateTime<Utc>>,
    /// Finished executions that wait to be archived, where an archive is looked at.
    pub unarchived: Option<u64>,
    /// Windows that were delivered and never scored.
    pub unscored: Option<Unscored>,
    /// The embedded store, as it was last looked at.
    pub store: Option<Stored>,
    /// What could not be read.
    pub failures: Vec<String>,
    /// What the loops found wrong.
    pub troubles: Vec<Trouble>,
    /// Loops that do not look at their work, and for how many seconds.
    pub stalled: Vec<(&'static str, u64)>,
    /// When each reason that stands now was first seen by this process, by its code.
    pub seen: BTreeMap<Code, DateTime<Utc>>,
}

/// What the feeder said.
#[derive(Clone, Debug)]
pub struct FeedSnapshot {
    /// Its rules.
    pub config: feed::Config,
    /// The scheduler's delay offset.
    pub delay: TimeDelta,
    /// Windows by state.
    pub census: Census,
    /// What is not in the store yet.
    pub waiting: Waiting,
    /// The newest windows, newest first.
    pub recent: Vec<Entry>,
    /// The newest window in the store.
    pub delivered: Option<Entry>,
    /// Bytes free for the spool.
    pub free: Option<u64>,
    /// What is free for the spool, and how it is given out.
    pub room: Option<Room>,
    /// Days until cutting would pause, at the rate space went away lately.
    pub days_to_full: Option<f64>,
    /// What the loops said.
    pub conditions: Conditions,
    /// What the store's answers told.
    pub readings: Readings,
}

/// Takes snapshots, and remembers between them the free space and when each trouble was first seen.
#[derive(Debug, Default)]
pub struct Observer {
    /// When this process began to look.
    started: OnceLock<DateTime<Utc>>,
    seen: Mutex<BTreeMap<Code, DateTime<Utc>>>,
    trend: Mutex<Trend>,
    /// Looked up now and then, because a look goes through the newest days.
    unscored: Mutex<Option<(Instant, Option<Unscored>)>>,
}

impl Site {
    /// The executions, opened for reading; `None` where there are none to look up yet.
    pub fn service(&self) -> Option<State> {
        self.history.as_ref()?.open()
    }

    /// The archive, opened for reading.
    pub fn archived(&self) -> Option<State> {
        self.archive.as_ref()?.open()
    }

    /// Which of the newest delivered windows no execution of the gateway's scheduler looked at, the oldest first; none where
    /// it is not to run.
    fn unscored(
        &self,
        now: DateTime<Utc>,
        allowed: TimeDelta,
    ) -> Result<Vec<DateTime<Utc>>, String> {
        let (Some(feed), Some(state)) = (&self.feed, self.service()) else {
            return Ok(Vec::new());
        };
        let scheduler = match self.watched.read() {
            Some(standing) if standing.wanted == "STOPPED" => return Ok(Vec::new()),
            Some(standing) => state.scheduler(now, &standing.scheduler),
            // In embedded mode without a configured one it is the only one.
            None => state
                .schedulers(now, "", None, "", 2)
                .map(|mut rows| match rows.len() {
                    1 => rows.pop().filter(|row| row.status == "RUNNING"),
                    _ => None,
                }),
        };
        let Some(scheduler) = scheduler.map_err(|error| error.to_string())? else {
            return Ok(Vec::new());
        };
        let delivered = feed
            .ledger
            .page(None, None, LOOKED_BACK)
            .map_err(|error| error.to_string())?;
        let delivered: Vec<Delivered> = delivered
            .iter()
            .filter(|entry| {
                matches!(
                    entry.state,
                    WindowState::Shipped | WindowState::Partial | WindowState::Covered
                )
            })
            .map(|entry| (entry.start, entry.end))
            .collect();
        state
            .unscored(&scheduler.uuid, &delivered, now, allowed)
            .map_err(|error| error.to_string())
    }

    /// Starts of the windows, the oldest first, that were delivered for the scheduler of that name and never scored; none where
    /// the judgement knows of none.
    pub fn never_scored(&self, snapshot: &Snapshot, name: &str) -> Vec<DateTime<Utc>> {
        let standing = snapshot.watched.as_ref();
        let kept = standing.is_none_or(|standing| standing.scheduler == name);
        match (&snapshot.feed, &snapshot.unscored) {
            (Some(feed), Some(_)) if kept => self
                .unscored(snapshot.now, feed.allowed())
                .unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// The scheduler of that name and where it is known; the archive is asked last.
    pub fn scheduler(
        &self,
        now: DateTime<Utc>,
        name: &str,
    ) -> Answer<Option<(State, SchedulerRow)>> {
        for state in [self.service(), self.archived()].into_iter().flatten() {
            if let Some(scheduler) = state.scheduler(now, name)? {
                return Ok(Some((state, scheduler)));
            }
        }
        Ok(None)
    }
}

impl Watched {
    /// The API was asked: the scheduler has this status, or there is none.
    pub fn seen(
        &self,
        scheduler: &str,
        status: Option<&str>,
        wanted: &'static str,
        now: DateTime<Utc>,
    ) {
        self.put(Standing {
            scheduler: scheduler.to_owned(),
            status: status.map(str::to_owned),
            wanted,
            failure: None,
            since: now,
        });
    }

    /// The API could not be asked.
    pub fn failed(&self, scheduler: &str, text: String, now: DateTime<Utc>) {
        let known = self.read();
        self.put(Standing {
            scheduler: scheduler.to_owned(),
            status: known.as_ref().and_then(|known| known.status.clone()),
            wanted: known.map_or("RUNNING", |known| known.wanted),
            failure: Some(text),
            since: now,
        });
    }

    /// What is known.
    pub fn read(&self) -> Option<Standing> {
        self.lock().clone()
    }

    fn put(&self, mut standing: Standing) {
        let mut slot = self.lock();
        if let Some(known) = slot.as_ref()
            && known.status == standing.status
            && known.failure.is_some() == standing.failure.is_some()
        {
            standing.since = known.since;
        }
        *slot = Some(standing);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Standing>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Observer {
    /// What the site's parts say now. Blocks for a few queries.
    pub fn look(&self, site: &Site) -> Snapshot {
        let now = site.clock.now();
        let there = |path: &Path| path.symlink_metadata().is_ok();
        site.vitals.troubles().taken_away(there);
        let mut failures = Vec::new();
        let feed = site.feed.as_ref().and_then(|feed| {
            let room = feed.spool.room().ok();
            let free = room.map(|room| room.bytes);
            let days_to_full =
                free.and_then(|free| self.forecast(now, free, feed.config.min_free.0));
            match feed.look(room, days_to_full) {
                Ok(snapshot) => Some(snapshot),
                Err(error) => {
                    failures.push(error.to_string());
                    None
                }
            }
        });
        let watched = site.watched.read();
        let mut executed = None;
        let mut unarchived = None;
        let service = site.service().and_then(|state| {
            let name = watched.as_ref().map(|standing| standing.scheduler.as_str());
            let read = state.counts(now).and_then(|counts| {
                executed = name.map_or(Ok(None), |name| newest(&state, now, name))?;
                if state.is_archive() {
                    unarchived = Some(state.waiting()?);
                }
                Ok(counts)
            });
            match read {
                Ok(counts) => Some(counts),
                Err(error) => {
                    failures.push(error.to_string());
                    None
                }
            }
        });
        let unscored = feed.as_ref().and_then(|feed| {
            let looked = self.unscored(site, feed, now);
            looked.unwrap_or_else(|error| {
                failures.push(error);
                None
            })
        });
        let mut snapshot = Snapshot {
            now,
            started: *self.started.get_or_init(|| now),
            feed,
            service,
            watched,
            executed,
            unarchived,
            unscored,
            failures,
            ..Snapshot::without_parts(site)
        };
        snapshot.seen = self.first_seen(&snapshot);
        snapshot
    }

    /// Which of the newest delivered windows were never scored.
    fn unscored(
        &self,
        site: &Site,
        feed: &FeedSnapshot,
        now: DateTime<Utc>,
    ) -> Result<Option<Unscored>, String> {
        let mut known = self
            .unscored
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((at, unscored)) = known.as_ref()
            && at.elapsed() < UNSCORED_EVERY
        {
            return Ok(*unscored);
        }
        let found = site.unscored(now, feed.allowed())?;
        let unscored = found
            .first()
            .zip(found.last())
            .map(|(first, last)| Unscored {
                windows: found.len(),
                first: *first,
                last: *last,
            });
        *known = Some((Instant::now(), unscored));
        Ok(unscored)
    }

    fn first_seen(&self, snapshot: &Snapshot) -> BTreeMap<Code, DateTime<Utc>> {
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = std::mem::take(&mut *seen);
        for reason in judge(snapshot).reasons {
            let since = known.get(&reason.code).copied().unwrap_or(snapshot.now);
            seen.insert(reason.code, since);
        }
        seen.clone()
    }

    /// Days until only `min_free` is left, from how the free space went down since the oldest note; `None` while it
    /// does not, or before there is an hour of notes.
    fn forecast(&self, now: DateTime<Utc>, free: u64, min_free: u64) -> Option<f64> {
        let mut trend = self
            .trend
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        trend.forecast(now, -i128::from(free), free.saturating_sub(min_free))
    }
}

impl Snapshot {
    /// What a process says of itself without looking at any file.
    pub fn without_parts(site: &Site) -> Self {
        let now = site.clock.now();
        Self {
            now,
            started: now,
            feed: None,
            service: None,
            watched: site.watched.read(),
            executed: None,
            unarchived: None,
            unscored: None,
            store: site.store.as_ref().and_then(Retention::standing),
            failures: Vec::new(),
            troubles: site.vitals.troubles().now(),
            stalled: site
                .vitals
                .stalled()
                .into_iter()
                .map(|(name, silent)| (name, silent.as_secs()))
                .collect(),
            seen: BTreeMap::new(),
        }
    }
}

impl FeedSite {
    fn look(
        &self,
        room: Option<Room>,
        days_to_full: Option<f64>,
    ) -> Result<FeedSnapshot, LedgerError> {
        let ledger = &self.ledger;
        Ok(FeedSnapshot {
            config: self.config.clone(),
            delay: self.delay,
            census: ledger.census()?,
            waiting: ledger.waiting()?,
            recent: ledger.recent(RECENT)?,
            delivered: ledger.newest_delivered()?,
            free: room.map(|room| room.bytes),
            room,
            days_to_full,
            conditions: self.health.now(),
            readings: self.bucket.readings(),
        })
    }
}

impl Snapshot {
    /// Since when a trouble stands whose cause carries no time of its own: since this process first saw it.
    pub fn first_seen(&self, code: Code) -> DateTime<Utc> {
        self.seen.get(&code).copied().unwrap_or(self.now)
    }

    /// Whether a loop found something of that kind wrong.
    pub fn has(&self, code: Code) -> bool {
        self.troubles.iter().any(|trouble| trouble.code == code)
    }

    /// The scheduler that this gateway keeps, if it runs and has executed nothing for a wake-up and one cadence more than
    /// it should take; and since when.
    pub fn overdue(&self) -> Option<(&str, DateTime<Utc>)> {
        let (feed, standing) = (self.feed.as_ref()?, self.watched.as_ref()?);
        if standing.failure.is_some() || standing.status.as_deref() != Some("RUNNING") {
            return None;
        }
        // Without a service or an archive nobody looks for executions.
        self.service.as_ref()?;
        let last = self
            .executed
            .map_or(standing.since, |end| end.max(standing.since));
        let allowed = feed.allowed();
        (self.now - last > allowed).then_some((standing.scheduler.as_str(), last))
    }
}

impl FeedSnapshot {
    /// How long after a window's end its execution may be known here.
    fn allowed(&self) -> TimeDelta {
        self.config.cadence.duration() * 2 + self.delay + LISTED_WITHIN
    }

    /// When a window that starts at `start` is to be cut.
    pub fn live_at(&self, start: DateTime<Utc>) -> DateTime<Utc> {
        match self.config.publish {
            feed::Publish::Ahead => start,
            feed::Publish::Behind => start + self.config.cadence.duration(),
        }
    }

    /// How long the oldest undelivered window has waited since it was to be cut.
    pub fn oldest_age(&self, now: DateTime<Utc>) -> TimeDelta {
        self.waiting.oldest.map_or(TimeDelta::zero(), |start| {
            (now - self.live_at(start)).max(TimeDelta::zero())
        })
    }

    /// How long before the scheduler looks for it the newest delivered window was complete; negative: too late.
    pub fn slack(&self) -> Option<TimeDelta> {
        let entry = self.delivered.as_ref()?;
        Some(entry.end + self.delay - entry.shipped_at?)
    }

    /// Rows of a window of this cadence as most of the recent ones had them, and none missing: the median of those with
    /// rows.
    pub fn usual_rows(&self) -> Option<u64> {
        let mut rows: Vec<u64> = self
            .recent
            .iter()
            .filter(|entry| entry.rows > 0 && entry.cadence == self.config.cadence)
            .map(|entry| entry.rows)
            .collect();
        rows.sort_unstable();
        (!rows.is_empty()).then(|| rows[rows.len() / 2])
    }

    /// How long an outage of the store can last before cutting pauses, by what the recent windows take on the disk.
    pub fn outage_capacity(&self) -> Option<TimeDelta> {
        let cut = || self.recent.iter().filter(|entry| entry.bytes > 0);
        let count = cut().count() as u64;
        let files: u64 = cut().map(|entry| u64::from(entry.files)).sum();
        let bytes: u64 = cut().map(|entry| entry.bytes).sum();
        let (files, bytes) = (files.checked_div(count)?, bytes.checked_div(count)?);
        let windows = self
            .room?
            .windows(files.max(1), bytes, self.config.min_free.0);
        TimeDelta::try_seconds((windows as i64).saturating_mul(self.config.cadence.seconds()))
    }
}

/// The end of a scheduler's newest execution, those of a time to come left aside.
fn newest(state: &State, now: DateTime<Utc>, name: &str) -> Answer<Option<DateTime<Utc>>> {
    let Some(scheduler) = state.scheduler(now, name)? else {
        return Ok(None);
    };
    let before = now + scheduler.cadence().duration();
    let newest = state.executions(&scheduler.uuid, None, None, Some(before), 1)?;
    Ok(newest.first().map(|execution| execution.end))
}

/// Resident memory of this process in bytes, where the system tells.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_keeps_its_beginning_while_it_lasts() {
        let watched = Watched::default();
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        watched.seen("s", Some("RUNNING"), "RUNNING", at(0));
        watched.seen("s", None, "RUNNING", at(30));
        watched.seen("s", None, "RUNNING", at(60));
        let standing = watched.read().unwrap();
        assert_eq!((standing.status, standing.since), (None, at(30)));
    }
}
