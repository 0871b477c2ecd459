//! What runs in this process, for those who look at it: metrics, health, the console.
//!
//! A [`Site`] names the parts; a part that does not run is `None`. A [`Snapshot`] is what they said at one instant: a
//! bounded number of rows of the ledger and of the service's state, and the loops' own words. It changes nothing.

mod figures;
mod watched;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::health::judge;
use super::inputs::InputSnapshot;
use crate::clock::Clock;
use crate::disk::trend::Trend;
use crate::executions::{
    Answer, Counts, Delivered, LOOKED_BACK, Place, SchedulerRow, State, Unscored,
};
use crate::feed::disk::Room;
use crate::feed::{
    self, Census, Conditions, Entry, Ledger, LedgerError, Spool, State as WindowState, Waiting,
};
use crate::input::Intake;
use crate::s3::{Bucket, Readings};
use crate::signal::{Asset, NameFormat, TagList};
use crate::store::retention::Retention;
use crate::store::standing::Standing as Stored;
use crate::vitals::{Code, Stalled, Trouble, Vitals};

pub use watched::{Standing, Watched};

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
    /// What runs for each asset, in the order of the tag list; one without a name where that names none.
    pub assets: Vec<AssetSite>,
    /// The inputs that run.
    pub inputs: Vec<InputSite>,
    /// Where executions can be looked up.
    pub history: Option<Place>,
    /// The archive beside it, which may know schedulers that were imported or deleted.
    pub archive: Option<Place>,
    /// Where results and input files are read from.
    pub s3: Option<aws_sdk_s3::Client>,
    /// The loops of this process.
    pub vitals: Vitals,
    /// What the embedded store keeps, where it is one's own.
    pub store: Option<Retention>,
}

/// What runs for one asset.
#[derive(Clone, Default)]
pub struct AssetSite {
    /// The asset.
    pub asset: Asset,
    /// Its feeder; `None` while it waits for its history.
    pub feed: Option<Arc<FeedSite>>,
    /// The scheduler that the gateway keeps for it.
    pub watched: Watched,
}

/// An input that runs.
#[derive(Clone)]
pub struct InputSite {
    /// What kind it is of.
    pub kind: &'static str,
    /// Its way in.
    pub intake: Intake,
    /// A tag that brought nothing for so long is silent.
    pub stale: TimeDelta,
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

/// What all parts said at one instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When.
    pub now: DateTime<Utc>,
    /// When this process took its first one.
    pub started: DateTime<Utc>,
    /// What is known of each asset.
    pub assets: Vec<AssetSnapshot>,
    /// The inputs that run.
    pub inputs: Vec<InputSnapshot>,
    /// The service.
    pub service: Option<Counts>,
    /// Finished executions that wait to be archived, where an archive is looked at.
    pub unarchived: Option<u64>,
    /// The embedded store, as it was last looked at.
    pub store: Option<Stored>,
    /// What could not be read.
    pub failures: Vec<String>,
    /// What the loops found wrong.
    pub troubles: Vec<Trouble>,
    /// Loops that do not look at their work, and for how many seconds.
    pub stalled: Vec<Stalled>,
    /// When each reason that stands now was first seen by this process, by its code and asset.
    pub seen: BTreeMap<(Code, String), DateTime<Utc>>,
}

/// What is known of one asset.
#[derive(Clone, Debug, Default)]
pub struct AssetSnapshot {
    /// The asset.
    pub asset: Asset,
    /// The feeder.
    pub feed: Option<FeedSnapshot>,
    /// The watched scheduler.
    pub watched: Option<Standing>,
    /// The end of its newest execution that is known here.
    pub executed: Option<DateTime<Utc>>,
    /// Windows that were delivered and never scored.
    pub unscored: Option<Unscored>,
}

/// A scheduler that runs and executes nothing, and since when.
#[derive(Clone, Copy, Debug)]
pub struct Overdue<'a> {
    /// Its asset.
    pub asset: &'a Asset,
    /// The scheduler.
    pub scheduler: &'a str,
    /// Since when.
    pub since: DateTime<Utc>,
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
    seen: Mutex<BTreeMap<(Code, String), DateTime<Utc>>>,
    trend: Mutex<Trend>,
    /// Looked up now and then, because a look goes through the newest days.
    unscored: Mutex<BTreeMap<Asset, (Instant, Option<Unscored>)>>,
}

/// Which of the newest delivered windows of a ledger no execution of the scheduler looked at, the oldest first. Without a
/// name it is the only one that runs, as in embedded mode.
pub fn never_scored(
    state: &State,
    ledger: &Ledger,
    scheduler: Option<&str>,
    now: DateTime<Utc>,
    allowed: TimeDelta,
) -> Result<Vec<DateTime<Utc>>, String> {
    let scheduler = match scheduler {
        Some(name) => state.scheduler(now, name),
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
    let delivered = ledger.page(None, None, LOOKED_BACK);
    let delivered: Vec<Delivered> = delivered
        .map_err(|error| error.to_string())?
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
        one: &AssetSite,
        now: DateTime<Utc>,
        allowed: TimeDelta,
    ) -> Result<Vec<DateTime<Utc>>, String> {
        let (Some(feed), Some(state)) = (&one.feed, self.service()) else {
            return Ok(Vec::new());
        };
        let scheduler = match one.watched.read() {
            Some(standing) if standing.wanted == "STOPPED" => return Ok(Vec::new()),
            Some(standing) => Some(standing.scheduler),
            None if one.asset.is_named() => return Ok(Vec::new()),
            None => None,
        };
        never_scored(&state, &feed.ledger, scheduler.as_deref(), now, allowed)
    }

    /// The same for each asset of which the judgement knows some.
    pub fn never_scored_of_all(&self, snapshot: &Snapshot) -> Vec<(String, Vec<DateTime<Utc>>)> {
        let of = |known: &AssetSnapshot| {
            let (feed, one) = (known.feed.as_ref()?, self.asset(&known.asset)?);
            known.unscored?;
            let found = self.unscored(one, snapshot.now, feed.allowed()).ok()?;
            Some((known.asset.name().to_owned(), found))
        };
        snapshot.assets.iter().filter_map(of).collect()
    }

    /// Starts of the windows, the oldest first, that were delivered for the scheduler of that name and never scored; none where
    /// the judgement knows of none.
    pub fn never_scored(&self, snapshot: &Snapshot, name: &str) -> Vec<DateTime<Utc>> {
        let Some(known) = snapshot.fed(name) else {
            return Vec::new();
        };
        match (&known.feed, &known.unscored, self.asset(&known.asset)) {
            (Some(feed), Some(_), Some(one)) => self
                .unscored(one, snapshot.now, feed.allowed())
                .unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// The window that begins then and whose files the scheduler of that name reads, as the ledger knows it.
    pub fn window(&self, snapshot: &Snapshot, name: &str, start: DateTime<Utc>) -> Option<Entry> {
        let fed = self.asset(&snapshot.fed(name)?.asset)?;
        fed.feed.as_ref()?.ledger.get(start).ok().flatten()
    }

    /// What runs for that asset.
    pub fn asset(&self, asset: &Asset) -> Option<&AssetSite> {
        self.assets.iter().find(|one| one.asset == *asset)
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

impl Observer {
    /// What the site's parts say now. Blocks for a few queries.
    pub fn look(&self, site: &Site) -> Snapshot {
        let now = site.clock.now();
        let there = |path: &Path| path.symlink_metadata().is_ok();
        site.vitals.troubles().taken_away(there);
        let mut failures = Vec::new();
        let room = site.assets.iter().filter_map(|one| one.feed.as_ref());
        let room = room.map(|feed| (feed.spool.room().ok(), feed.config.min_free.0));
        // All of them lie on one disk.
        let room = room
            .take(1)
            .next()
            .and_then(|(room, min)| Some((room?, min)));
        let days_to_full = room.and_then(|(room, min)| self.forecast(now, room.bytes, min));
        let room = room.map(|(room, _)| room);
        let state = site.service();
        let mut assets = Vec::with_capacity(site.assets.len());
        for one in &site.assets {
            match self.look_at(site, one, state.as_ref(), now) {
                Ok(mut known) => {
                    if let Some(feed) = &mut known.feed {
                        (feed.room, feed.free) = (room, room.map(|room| room.bytes));
                        feed.days_to_full = days_to_full;
                    }
                    assets.push(known);
                }
                Err(error) => {
                    assets.push(AssetSnapshot {
                        asset: one.asset.clone(),
                        watched: one.watched.read(),
                        ..AssetSnapshot::default()
                    });
                    failures.push(error);
                }
            }
        }
        // One ledger that cannot be read is one failure.
        failures.dedup();
        failures.extend(site.history.as_ref().and_then(Place::failure));
        let mut unarchived = None;
        let service = state.and_then(|state| {
            let read = state.counts(now).and_then(|counts| {
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
        let mut snapshot = Snapshot {
            now,
            started: *self.started.get_or_init(|| now),
            assets,
            service,
            unarchived,
            failures,
            ..Snapshot::without_parts(site)
        };
        snapshot.seen = self.first_seen(&snapshot);
        snapshot
    }

    fn look_at(
        &self,
        site: &Site,
        one: &AssetSite,
        state: Option<&State>,
        now: DateTime<Utc>,
    ) -> Result<AssetSnapshot, String> {
        let feed = match &one.feed {
            Some(feed) => Some(feed.look().map_err(|error| error.to_string())?),
            None => None,
        };
        let watched = one.watched.read();
        let executed = match (state, &watched) {
            (Some(state), Some(standing)) => {
                newest(state, now, &standing.scheduler).map_err(|error| error.to_string())?
            }
            _ => None,
        };
        let unscored = match &feed {
            Some(feed) => self.unscored(site, one, feed, now)?,
            None => None,
        };
        Ok(AssetSnapshot {
            asset: one.asset.clone(),
            feed,
            watched,
            executed,
            unscored,
        })
    }

    /// Which of the newest delivered windows were never scored.
    fn unscored(
        &self,
        site: &Site,
        one: &AssetSite,
        feed: &FeedSnapshot,
        now: DateTime<Utc>,
    ) -> Result<Option<Unscored>, String> {
        let mut known = self
            .unscored
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((at, unscored)) = known.get(&one.asset)
            && at.elapsed() < UNSCORED_EVERY
        {
            return Ok(*unscored);
        }
        let found = site.unscored(one, now, feed.allowed())?;
        let unscored = found
            .first()
            .zip(found.last())
            .map(|(first, last)| Unscored {
                windows: found.len(),
                first: *first,
                last: *last,
            });
        known.insert(one.asset.clone(), (Instant::now(), unscored));
        Ok(unscored)
    }

    fn first_seen(&self, snapshot: &Snapshot) -> BTreeMap<(Code, String), DateTime<Utc>> {
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = std::mem::take(&mut *seen);
        for reason in judge(snapshot).reasons {
            let key = (reason.code, reason.subject.asset);
            let since = known.get(&key).copied().unwrap_or(snapshot.now);
            let since = since.min(snapshot.now);
            seen.insert(key, since);
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
            assets: site
                .assets
                .iter()
                .map(|one| AssetSnapshot {
                    asset: one.asset.clone(),
                    watched: one.watched.read(),
                    ..AssetSnapshot::default()
                })
                .collect(),
            inputs: site.inputs.iter().map(|input| input.look(now)).collect(),
            service: None,
            unarchived: None,
            store: site.store.as_ref().and_then(Retention::standing),
            failures: Vec::new(),
            troubles: site.vitals.troubles().now(),
            stalled: site.vitals.stalled(),
            seen: BTreeMap::new(),
        }
    }
}

impl FeedSite {
    fn look(&self) -> Result<FeedSnapshot, LedgerError> {
        let ledger = &self.ledger;
        Ok(FeedSnapshot {
            config: self.config.clone(),
            delay: self.delay,
            census: ledger.census()?,
            waiting: ledger.waiting()?,
            recent: ledger.recent(RECENT)?,
            delivered: ledger.newest_delivered()?,
            free: None,
            room: None,
            days_to_full: None,
            conditions: self.health.now(),
            readings: self.bucket.readings(),
        })
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
