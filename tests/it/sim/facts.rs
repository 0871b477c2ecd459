//! The reference model of one simulation: what was sealed with which bytes, what was recorded, what may be skipped, which
//! executions there were; and what must hold after every operation.
//!
//! It learns from the disk, the source, the store and the service's own state, never from the code under test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use lookoutd::feed::{Config, Entry, Ledger, State};
use lookoutd::signal::Window;
use rusqlite::{Connection, OpenFlags};

use super::plant::Past;
use super::store::ObjectStore;
use crate::rig::{Objects, PREFIX, objects_under};

/// Rows of the ledger looked at after each operation; all of them now and then.
const RECENT: usize = 150;

/// What is known.
pub struct Facts {
    data_dir: PathBuf,
    ledger: Option<Ledger>,
    service: Option<Connection>,
    /// Sealed windows by start, as keys and bytes, and those that the store does not have yet.
    sealed: BTreeMap<i64, Objects>,
    waiting: BTreeSet<i64>,
    states: BTreeMap<i64, State>,
    /// Spans that a downtime or a step may have given up.
    may_skip: Vec<(i64, i64)>,
    /// The latest time that the wall clock has shown, and the shortest `feed.max_age` so far.
    latest: i64,
    now: i64,
    max_age: i64,
    skips: bool,
    taken: BTreeSet<String>,
    expected: BTreeSet<&'static str>,
    /// By scheduler and boundary (UTC seconds): the status last seen.
    executions: BTreeMap<(String, i64), String>,
    checks: usize,
    /// The clock was not stepped back within the last seconds, so that the loops have seen it.
    pub clock_is_settled: bool,
    /// What failed of windows that end after this was of a time to come once, and may be done again.
    void_after: i64,
}

/// What was known before the clock was put ahead.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    latest: i64,
    may_skip: usize,
    frontier: i64,
}

/// An execution as the service has it.
#[derive(Clone, Debug)]
pub struct Execution {
    pub scheduler: String,
    pub boundary: i64,
    pub status: String,
    pub reason: String,
    pub result: Option<String>,
}

impl Facts {
    pub fn new(data_dir: &Path, config: &Config) -> Facts {
        let mut facts = Facts {
            data_dir: data_dir.to_owned(),
            ledger: None,
            service: None,
            sealed: BTreeMap::new(),
            waiting: BTreeSet::new(),
            states: BTreeMap::new(),
            may_skip: Vec::new(),
            latest: i64::MIN,
            now: 0,
            max_age: i64::MAX,
            skips: false,
            taken: BTreeSet::new(),
            expected: BTreeSet::new(),
            executions: BTreeMap::new(),
            checks: 0,
            clock_is_settled: true,
            void_after: i64::MAX,
        };
        facts.config(config);
        facts
    }

    /// An ERROR with this in it may come from now on.
    pub fn expect(&mut self, part: &'static str) {
        self.expected.insert(part);
    }

    /// This configuration is in force.
    pub fn config(&mut self, config: &Config) {
        self.max_age = self.max_age.min(config.max_age.0.as_secs() as i64);
        self.skips = config.catch_up == lookoutd::feed::CatchUp::Skip;
    }

    /// Somebody else's object lies at this key.
    pub fn taken(&mut self, key: String) {
        self.taken.insert(key);
    }

    pub fn is_sealed(&self, window: &Window) -> bool {
        self.sealed.contains_key(&window.start().timestamp())
    }

    pub fn state(&self, start: i64) -> Option<State> {
        self.states.get(&start).copied()
    }

    pub fn sealed(&self) -> &BTreeMap<i64, Objects> {
        &self.sealed
    }

    /// The latest time that the wall clock has shown.
    pub fn latest(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.latest, 0).unwrap_or_default()
    }

    pub fn is_taken(&self, key: &str) -> bool {
        self.taken.contains(key)
    }

    pub fn status(&self, scheduler: &str, boundary: i64) -> Option<&str> {
        let found = self.executions.get(&(scheduler.to_owned(), boundary));
        found.map(String::as_str)
    }

    /// The daemon begins, or its clock was stepped forward, with `live` as its live window: what is not recorded before it is
    /// a downtime. Call it before the daemon looks.
    pub fn resumes(&mut self, live: DateTime<Utc>) {
        if let Some(ledger) = self.ledger()
            && let Ok(Some(frontier)) = ledger.frontier(live)
        {
            self.may_skip.push((frontier.timestamp(), live.timestamp()));
        }
    }

    /// The clock is put ahead; what is known of the time before.
    pub fn excursion_begins(&mut self, live: DateTime<Utc>) -> Before {
        let frontier = self.ledger().and_then(|ledger| ledger.frontier(live).ok()?);
        Before {
            latest: self.latest,
            may_skip: self.may_skip.len(),
            frontier: frontier.unwrap_or(live).timestamp(),
        }
    }

    /// The clock is put right: nothing that it said counts any more. `began_anew` if the gateway did so meanwhile, and does
    /// not know since when it runs.
    pub fn excursion_ends(
        &mut self,
        before: Before,
        live: DateTime<Utc>,
        now: DateTime<Utc>,
        began_anew: bool,
    ) {
        self.latest = before.latest.max(now.timestamp());
        self.may_skip.truncate(before.may_skip);
        if began_anew {
            self.may_skip.push((before.frontier, live.timestamp()));
        }
        self.voided(now);
    }

    /// The clock went back: what was only decided of windows that end beyond now by more than a cadence is decided again.
    pub fn voided(&mut self, now: DateTime<Utc>) {
        let beyond = now.timestamp();
        self.void_after = self.void_after.min(beyond + 300);
        self.states
            .retain(|start, state| *start <= beyond || !matches!(state, State::Due | State::Empty));
        self.executions
            .retain(|(_, boundary), status| *boundary <= beyond + 300 || status == "SUCCESS");
    }

    /// What a crash left sealed is sealed, whether that was durable already or not.
    pub fn found_in_spool(&mut self) {
        let entries = std::fs::read_dir(self.data_dir.join("spool"));
        for path in entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
        {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if let Some(start) = start_of(&name) {
                self.sealed
                    .entry(start)
                    .or_insert_with(|| keyed(objects_under(&path)));
                self.waiting.insert(start);
            }
        }
    }

    pub fn ledger(&mut self) -> Option<Ledger> {
        if self.ledger.is_none() {
            self.ledger = Ledger::open_existing(&self.data_dir).ok().flatten();
        }
        self.ledger.clone()
    }

    /// Every invariant. `sealed` are the windows sealed since the last call.
    pub fn check(
        &mut self,
        now: DateTime<Utc>,
        sealed: Vec<(String, Objects)>,
        past: &Past,
        store: &ObjectStore,
        errors: Vec<String>,
    ) -> Result<(), String> {
        self.checks += 1;
        self.now = now.timestamp();
        self.latest = self.latest.max(self.now);
        let odd = errors
            .iter()
            .find(|error| !self.expected.iter().any(|part| error.contains(part)));
        if let Some(error) = odd {
            return Err(format!("an ERROR that nothing explains: {error}"));
        }
        self.check_sealed(sealed, past)?;
        self.check_store(store)?;
        self.check_nothing_is_lost(store)?;
        let all = self.checks.is_multiple_of(100);
        self.check_ledger(if all { usize::MAX >> 1 } else { RECENT }, now)?;
        self.check_executions(now)
    }

    fn check_sealed(&mut self, sealed: Vec<(String, Objects)>, past: &Past) -> Result<(), String> {
        for (name, files) in sealed {
            let Some(start) = start_of(&name) else {
                continue;
            };
            let objects = keyed(files);
            if let Some(before) = self.sealed.get(&start).filter(|before| **before != objects) {
                return Err(format!(
                    "{name} was sealed twice: {}",
                    difference(before, &objects)
                ));
            }
            self.sealed.insert(start, objects);
            self.waiting.insert(start);
        }
        for start in &self.waiting {
            let objects = &self.sealed[start];
            if !past.answers(*start).contains(objects) {
                return Err(format!(
                    "window {} holds what the source never said",
                    show(*start)
                ));
            }
        }
        Ok(())
    }

    /// One key, one byte sequence.
    fn check_store(&self, store: &ObjectStore) -> Result<(), String> {
        let mut overwritten = store.overwritten();
        // That record is a note beside the results, with the time it was made.
        overwritten.retain(|key| !key.ends_with("/late.json"));
        if !overwritten.is_empty() {
            return Err(format!("overwritten with other bytes: {overwritten:?}"));
        }
        for key in store.written() {
            if !key.ends_with(".csv") || self.taken.contains(&key) {
                continue;
            }
            let sealed = start_of_key(&key).and_then(|start| self.sealed.get(&start)?.get(&key));
            if sealed != store.get(&key).as_ref() {
                return Err(format!(
                    "{key} was uploaded with bytes that were never sealed"
                ));
            }
        }
        Ok(())
    }

    fn check_nothing_is_lost(&mut self, store: &ObjectStore) -> Result<(), String> {
        let mut there = Vec::new();
        for start in &self.waiting {
            let objects = &self.sealed[start];
            if objects
                .iter()
                .all(|(key, bytes)| store.get(key).as_ref() == Some(bytes))
            {
                there.push(*start);
                continue;
            }
            let name = format!("{}-PT5M", show(*start));
            let quarantined = self.data_dir.join("quarantine").join(&name);
            if !self.data_dir.join("spool").join(&name).is_dir() && !quarantined.is_dir() {
                return Err(format!(
                    "sealed window {name} is neither in the spool nor in the store"
                ));
            }
        }
        for start in there {
            self.waiting.remove(&start);
        }
        Ok(())
    }

    /// States move forward, and nothing is given up that no rule gives up.
    fn check_ledger(&mut self, limit: usize, now: DateTime<Utc>) -> Result<(), String> {
        for entry in self.entries(limit)? {
            let start = entry.start.timestamp();
            let decided = matches!(entry.state, State::Due | State::Empty | State::Skipped)
                && entry.files == 0;
            if self.clock_is_settled && decided && entry.end.timestamp() > now.timestamp() + 600 {
                return Err(format!("decided of a time to come: {entry:?}"));
            }
            if entry.state == State::Skipped && entry.cut_at.is_none() && entry.files == 0 {
                self.check_skip(&entry)?;
            }
            if entry.state == State::Skipped {
                continue;
            }
            if let Some(before) = self.states.insert(start, entry.state)
                && before != entry.state
                && rank(before) >= rank(entry.state)
            {
                return Err(format!(
                    "window {} went back from {} to {}: {:?}",
                    show(start),
                    before.name(),
                    entry.state.name(),
                    entry.reason
                ));
            }
        }
        Ok(())
    }

    fn check_skip(&self, entry: &Entry) -> Result<(), String> {
        // The source said so, which no rule of time can tell.
        if entry.reason.as_deref() == Some("the history is over") {
            return Ok(());
        }
        let (mut at, end) = (entry.start.timestamp(), entry.end.timestamp());
        while at < end {
            let by_age = at < self.latest - self.max_age;
            let by_downtime = self
                .may_skip
                .iter()
                .any(|(from, to)| (*from..*to).contains(&at));
            if !(by_age || by_downtime && self.skipped_by_rule()) {
                return Err(format!(
                    "window {} was skipped ({}) although the daemon ran",
                    show(at),
                    entry.reason.as_deref().unwrap_or_default()
                ));
            }
            at += 300;
        }
        Ok(())
    }

    /// Whether a downtime is skipped at all, now or before a reload.
    fn skipped_by_rule(&self) -> bool {
        self.skips || self.may_skip.len() > 1
    }

    fn check_executions(&mut self, now: DateTime<Utc>) -> Result<(), String> {
        // Those of some hours: later changes of a status are looked at in the end.
        let since = if self.checks.is_multiple_of(100) {
            i64::MIN
        } else {
            (now - TimeDelta::hours(9)).timestamp_micros()
        };
        for execution in self.service_executions(since)? {
            let key = (execution.scheduler.clone(), execution.boundary);
            let before = self.executions.insert(key, execution.status.clone());
            let allowed = match before.as_deref() {
                None | Some("IN_PROGRESS") => true,
                Some("FAILED") => {
                    execution.status != "IN_PROGRESS" || execution.boundary > self.void_after
                }
                Some(before) => before == execution.status,
            };
            if !allowed {
                return Err(format!(
                    "an execution went back from {before:?}: {execution:?}"
                ));
            }
        }
        Ok(())
    }

    /// What the ledger has, newest first.
    pub fn entries(&mut self, limit: usize) -> Result<Vec<Entry>, String> {
        let Some(ledger) = self.ledger() else {
            return Ok(Vec::new());
        };
        let mut found = ledger.list(limit).map_err(|error| error.to_string())?;
        // Those of a time to come may be many, and the present is what counts.
        let soon = DateTime::from_timestamp(self.now + 600, 0);
        if found.len() == limit && found.last().map(|entry| entry.start) > soon {
            let present = ledger.page(None, soon, limit);
            found.extend(present.map_err(|error| error.to_string())?);
        }
        Ok(found)
    }

    /// The executions of every scheduler with a boundary after `since_us`.
    pub fn service_executions(&mut self, since_us: i64) -> Result<Vec<Execution>, String> {
        if self.service.is_none() {
            let path = self.data_dir.with_file_name("service").join("state.db");
            let opened = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE);
            self.service = Some(opened.map_err(|error| error.to_string())?);
        }
        let Some(db) = &self.service else {
            return Ok(Vec::new());
        };
        let read = || -> rusqlite::Result<Vec<Execution>> {
            db.prepare_cached(
                "SELECT scheduler_uuid, boundary_us, status, coalesce(failed_reason, ''), result_key FROM execution
                 WHERE boundary_us > ?1 ORDER BY boundary_us",
            )?
            .query_map([since_us], |row| {
                Ok(Execution {
                    scheduler: row.get(0)?,
                    boundary: row.get::<_, i64>(1)? / 1_000_000,
                    status: row.get(2)?,
                    reason: row.get(3)?,
                    result: row.get(4)?,
                })
            })?
            .collect()
        };
        read().map_err(|error| error.to_string())
    }

    /// Identity and status of the scheduler, if there is one.
    pub fn scheduler(&mut self) -> Result<Option<(String, String)>, String> {
        self.service_executions(i64::MAX)?;
        let Some(db) = &self.service else {
            return Ok(None);
        };
        let found = db.query_row("SELECT uuid, status FROM scheduler", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        });
        match found {
            Ok(found) => Ok(Some(found)),
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn rank(state: State) -> u8 {
    match state {
        State::Due => 0,
        State::Spooled => 1,
        _ => 2,
    }
}

/// Names in an entry of the spool as keys, without the manifest.
fn keyed(files: Objects) -> Objects {
    let files = files.into_iter().filter(|(name, _)| name.ends_with(".csv"));
    files
        .map(|(name, bytes)| (format!("{PREFIX}{name}"), bytes))
        .collect()
}

/// The window start in the name of a spool entry.
fn start_of(name: &str) -> Option<i64> {
    let (stamp, _) = name.split_once('-')?;
    let time = NaiveDateTime::parse_from_str(stamp, "%Y%m%dT%H%M%SZ").ok()?;
    Some(time.and_utc().timestamp())
}

/// The window start in a key.
pub fn start_of_key(key: &str) -> Option<i64> {
    let stamp = key.strip_suffix(".csv")?.rsplit('_').next()?;
    let time = NaiveDateTime::parse_from_str(stamp, "%Y%m%d%H%M%S").ok()?;
    Some(time.and_utc().timestamp())
}

/// A window start as in the name of its entry.
pub fn show(start: i64) -> String {
    let time = DateTime::from_timestamp(start, 0).unwrap_or_default();
    time.format("%Y%m%dT%H%M%SZ").to_string()
}

fn difference(before: &Objects, now: &Objects) -> String {
    let keys: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    let differing = keys
        .into_iter()
        .filter(|key| before.get(*key) != now.get(*key));
    format!("{:?} differ", differing.collect::<Vec<_>>())
}
