//! How long objects are kept: rules of prefixes and spans, looked at again and again, and applied in small steps.
//!
//! Guarantees: an object's age is that of its own last write, judged when it is deleted and by the rule of then. Only keys of
//! the form that a rule names are touched, and none whose window is not before the horizon: what is still to be delivered,
//! scored or archived stays. A pass that would take more than half of a prefix is held until somebody says so
//! (`lookoutd store retention --apply`); one at a time that the clock is not trusted deletes nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};

use super::commit::Turn;
use super::listing::after_all;
use super::standing::{Standing, figures};
use super::{Problem, Store, multipart, objects};
use crate::clock::Clock;
use crate::config::{Keep, KeepRule};
use crate::disk::trend::Trend;
use crate::vitals::{Code, Trouble, Troubles};

/// Deletions of one transaction, and the pause after it: a PUT in between waits for no more than this.
const AT_ONCE: usize = 50;
const PAUSE: Duration = Duration::from_millis(5);
/// Rows of one snapshot.
const PAGE: usize = 2_000;
/// Pages that are given back to the disk at once.
const PAGES: usize = 64;
/// Uploads that were begun and left go after this.
const UPLOADS_MS: i64 = 7 * 86_400_000;
/// Fewer objects than this are no large pass.
const FEW: u64 = 100;
/// Passes are this far apart at least and at most.
const OFTEN: Duration = Duration::from_secs(60);
const SELDOM: Duration = Duration::from_secs(3600);
/// Where it is noted that a pass was asked for.
const ASKED: &str = "apply_retention";
/// A clock that is behind this is wrong.
const LEAST_YEAR_MS: i64 = 1_700_000_000_000;

/// How long the embedded store keeps what `run` writes into it, and what others do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Input files in the embedded store, from their last write on; never one that is not scored and archived. `forever`
    /// keeps them.
    pub keep_input: Keep,
    /// Results in the embedded store, from their last write on; never one that is not archived.
    pub keep_output: Keep,
    /// Other prefixes of the embedded store: `["exports/=30d", "models/=forever"]`; the longest prefix that fits holds.
    pub rules: Vec<KeepRule>,
    /// The data directory lies on a disk that others share (NFS, SMB): one connection, without shared memory.
    pub shared_disk: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keep_input: Keep(Some(Duration::from_secs(7 * 86_400))),
            keep_output: Keep(Some(Duration::from_secs(400 * 86_400))),
            rules: Vec::new(),
            shared_disk: false,
        }
    }
}

/// Tells the window of a key that has the form a rule is about; none for all others.
pub type Form = Arc<dyn Fn(&str) -> Option<DateTime<Utc>> + Send + Sync>;

/// One rule.
#[derive(Clone)]
pub struct Rule {
    /// The bucket, or all.
    pub bucket: Option<String>,
    /// What the keys begin with.
    pub prefix: String,
    /// For how long; none is for ever.
    pub keep: Option<Duration>,
    /// Which of the keys; none are all.
    pub form: Option<Form>,
}

/// What a pass would do, or has done, to one prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prefix {
    /// The bucket.
    pub bucket: String,
    /// The prefix.
    pub prefix: String,
    /// How long its objects are kept, in words.
    pub keep: String,
    /// Its objects of the rule's form.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are to go.
    pub due: u64,
    /// Their bytes.
    pub due_bytes: u64,
    /// Those that are old enough and wait for delivery, scoring or the archive.
    pub waiting: u64,
    /// Whether the pass is held because it is large.
    pub held: bool,
}

/// A key that is to go, and the write that made it old.
pub(super) struct Due {
    bucket: i64,
    key: String,
    written_ms: i64,
}

/// Rules, and what they have come to.
#[derive(Clone)]
pub struct Retention {
    store: Store,
    rules: Arc<Vec<Rule>>,
    standing: Arc<RwLock<Option<Standing>>>,
    growth: Arc<Mutex<Trend>>,
    /// Where a pass that is held is said.
    troubles: Option<Troubles>,
}

impl std::fmt::Debug for Retention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retention").finish_non_exhaustive()
    }
}

impl Retention {
    /// These rules over a store.
    pub fn new(store: Store, rules: Vec<Rule>) -> Self {
        Self {
            store,
            rules: Arc::new(rules),
            standing: Arc::default(),
            growth: Arc::default(),
            troubles: None,
        }
    }

    /// A pass that is held is a trouble there.
    pub fn telling(mut self, troubles: Troubles) -> Self {
        self.store.tell(troubles.clone());
        self.troubles = Some(troubles);
        self
    }

    /// How the store stood when it was last looked at; none before the first look.
    pub fn standing(&self) -> Option<Standing> {
        let standing = self.standing.read();
        standing.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks how the store stands, and again at what was damaged.
    pub fn look(&self, now: DateTime<Utc>) -> Result<(), Problem> {
        self.store.inner.harm.recheck(&self.store, now);
        let bodies = self.store.inner.files.bytes()?;
        let figures = self.store.read_blocking(move |db| figures(db, bodies))?;
        let disk = rustix::fs::statvfs(self.store.root()).ok();
        let free = disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let mut growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        let used = figures.file_bytes.saturating_sub(figures.free_bytes);
        let days_to_full = free.and_then(|free| growth.forecast(now, i128::from(used), free));
        self.change(|standing| {
            standing.figures = figures;
            standing.disk_free_bytes = free;
            standing.days_to_full = days_to_full;
            standing.damaged = self.store.inner.harm.damaged();
        });
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Standing)) {
        let standing = self.standing.write();
        change(
            standing
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_default(),
        );
    }

    /// Says what is kept for how long.
    pub fn announce(&self) {
        if self.rules.is_empty() {
            info!("the embedded store keeps every object until it is deleted");
        }
        for rule in self.rules.iter() {
            info!(
                bucket = rule.bucket.as_deref().unwrap_or("every bucket"),
                prefix = rule.prefix,
                keep = Keep(rule.keep).to_string(),
                "the embedded store keeps objects for so long"
            );
        }
    }

    /// How far apart passes are.
    pub fn pace(&self) -> Duration {
        let shortest = self.rules.iter().filter_map(|rule| rule.keep).min();
        shortest.map_or(SELDOM, |keep| (keep / 20).clamp(OFTEN, SELDOM))
    }

    /// Passes from now on, by a clock; `horizon` is asked before each: what began at or after it stays. Without one nothing
    /// that waits for scoring is deleted.
    pub async fn run<F>(
        self,
        clock: Clock,
        horizon: impl Fn() -> F,
        shutdown: tokio_util::sync::CancellationToken,
    ) where
        F: Future<Output = Option<DateTime<Utc>>>,
    {
        self.announce();
        // What the rules come to is known before the first pass, which is an hour away.
        let (first, waits) = (self.clone(), horizon().await);
        let now_ms = clock.now().timestamp_millis();
        let done = tokio::task::spawn_blocking(move || {
            let rules = first.rules.clone();
            let (kept, _) = first
                .store
                .read_blocking(move |db| look(db, &rules, now_ms, waits))?;
            first.change(|standing| standing.kept = kept);
            Ok(())
        });
        looked_through(done.await);
        loop {
            // Somebody may ask for a pass meanwhile.
            let (mut left, mut apply, mut rest) = (self.pace(), false, Duration::ZERO);
            while !left.is_zero() && !apply {
                if rest.is_zero() {
                    let (looking, now) = (self.clone(), clock.now());
                    let began = Instant::now();
                    looked_through(tokio::task::spawn_blocking(move || looking.look(now)).await);
                    // However much there is, looking takes a hundredth of the time at most.
                    rest = began.elapsed() * 100;
                }
                let step = left.min(OFTEN);
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = clock.pause(step) => {}
                }
                left -= step;
                rest = rest.saturating_sub(step);
                let store = self.store.clone();
                let asked = tokio::task::spawn_blocking(move || asked(&store)).await;
                apply = matches!(asked, Ok(Ok(true)));
            }
            let horizon = horizon().await;
            let pass = self.clone();
            let now_ms = clock.now().timestamp_millis();
            let done =
                tokio::task::spawn_blocking(move || pass.pass(now_ms, horizon, apply).map(drop));
            looked_through(done.await);
        }
    }

    /// One pass; with `apply` also where it is large.
    pub fn pass(
        &self,
        now_ms: i64,
        horizon: Option<DateTime<Utc>>,
        apply: bool,
    ) -> Result<Vec<Prefix>, Problem> {
        let rules = self.rules.clone();
        let (mut prefixes, due) = self
            .store
            .read_blocking(move |db| look(db, &rules, now_ms, horizon))?;
        if now_ms < LEAST_YEAR_MS {
            warn!("the clock is wrong: nothing is deleted from the store");
            return Ok(prefixes);
        }
        for (prefix, due) in prefixes.iter_mut().zip(due) {
            let large = prefix.due > FEW && prefix.due * 2 > prefix.objects;
            prefix.held = large && !apply;
            if prefix.held {
                warn!(
                    prefix = prefix.prefix,
                    due = prefix.due,
                    of = prefix.objects,
                    "more than half of a prefix is old enough to be deleted, which is held: look at `lookoutd store retention --dry-run`, then --apply"
                );
                continue;
            }
            if prefix.due > 0 {
                self.delete(due)?;
                info!(
                    prefix = prefix.prefix,
                    objects = prefix.due,
                    bytes = prefix.due_bytes,
                    "deleted what was kept for long enough"
                );
            }
        }
        self.tell(&prefixes, now_ms);
        self.abort_old_uploads(now_ms)?;
        self.give_back()?;
        let kept = prefixes.clone();
        self.change(|standing| {
            standing.kept = kept;
            standing.last_pass = DateTime::from_timestamp_millis(now_ms);
        });
        Ok(prefixes)
    }

    fn tell(&self, prefixes: &[Prefix], now_ms: i64) {
        let Some(troubles) = &self.troubles else {
            return;
        };
        for prefix in prefixes {
            if !prefix.held {
                troubles.over(Code::RetentionHeld, &prefix.prefix);
                continue;
            }
            let since = DateTime::from_timestamp_millis(now_ms).unwrap_or_default();
            let text = format!(
                "{} of {} objects under {} are old enough to be deleted",
                prefix.due, prefix.objects, prefix.prefix
            );
            let remedy = "look at `lookoutd store retention --dry-run`; `lookoutd store retention --apply` deletes them";
            troubles.raise(
                Trouble::new(Code::RetentionHeld, since, text, remedy).about(&prefix.prefix),
            );
        }
    }

    fn delete(&self, due: Vec<Due>) -> Result<(), Problem> {
        let mut due = due.into_iter().peekable();
        while due.peek().is_some() {
            let some: Vec<Due> = due.by_ref().take(AT_ONCE).collect();
            self.store.write_blocking(move |turn| {
                for one in some {
                    remove_if_unchanged(turn, &one)?;
                }
                Ok(())
            })?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn abort_old_uploads(&self, now_ms: i64) -> Result<(), Problem> {
        let old: Vec<String> = self.store.read_blocking(move |db| {
            let mut find = db.prepare_cached("SELECT id FROM uploads WHERE begun_ms < ?1")?;
            let found = find.query_map([now_ms - UPLOADS_MS], |row| row.get(0))?;
            Ok(found.collect::<Result<_, _>>()?)
        })?;
        for upload in old {
            self.store
                .write_blocking(move |turn| multipart::remove(turn, &upload))?;
            info!("an upload that was begun a week ago and never completed was aborted");
        }
        Ok(())
    }

    /// Gives free pages back to the disk, some at a time.
    fn give_back(&self) -> Result<(), Problem> {
        loop {
            let free: i64 = self.store.write_blocking(|turn| {
                turn.db
                    .execute_batch(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
                Ok(turn
                    .db
                    .query_row("PRAGMA freelist_count", [], |row| row.get(0))?)
            })?;
            // What is free will be written into again.
            if free <= PAGES as i64 {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn looked_through(done: Result<Result<(), Problem>, tokio::task::JoinError>) {
    match done {
        Ok(Ok(())) => {}
        Ok(Err(problem)) => {
            warn!(%problem, "the store could not be looked through for what is old: the next pass tries again")
        }
        Err(error) => warn!(%error, "a pass through the store ended"),
    }
}

/// Whether `lookoutd store retention --apply` has asked for a pass, which is then forgotten.
fn asked(store: &Store) -> Result<bool, Problem> {
    let asked = store.read_blocking(|db| {
        Ok(db
            .prepare_cached("SELECT 1 FROM meta WHERE name = ?1")?
            .exists([ASKED])?)
    })?;
    if asked {
        store.write_blocking(|turn| {
            turn.db
                .execute("DELETE FROM meta WHERE name = ?1", [ASKED])?;
            Ok(())
        })?;
    }
    Ok(asked)
}

/// Asks the process that has the store in `root` for a pass that is not held.
pub fn ask(root: &std::path::Path) -> Result<(), Problem> {
    let db = Connection::open_with_flags(
        root.join(super::DATABASE),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE,
    )?;
    db.busy_timeout(Duration::from_secs(5))?;
    // If that process is gone by now, its log is not ours to put away.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    db.execute(
        "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, '')",
        [ASKED],
    )?;
    Ok(())
}

/// Keys below a prefix with size and time, in pages: no snapshot lasts longer than one.
fn below<'a>(
    db: &'a Connection,
    bucket: i64,
    prefix: &str,
) -> Result<impl Iterator<Item = Result<(String, u64, i64), Problem>> + 'a, Problem> {
    let mut page = db.prepare_cached(
        "SELECT key, size, written_ms FROM objects WHERE bucket = ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3) ORDER BY key
         LIMIT ?4",
    )?;
    let end = after_all(prefix);
    let (mut from, mut ready, mut over) = (prefix.to_owned(), VecDeque::new(), false);
    Ok(std::iter::from_fn(move || {
        if ready.is_empty() && !over {
            let asked = params![bucket, from, end, PAGE as i64];
            let read = page.query_map(asked, |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)? as u64, row.get(2)?))
            });
            match read.and_then(Iterator::collect::<rusqlite::Result<VecDeque<_>>>) {
                Ok(found) => ready = found,
                Err(error) => {
                    over = true;
                    return Some(Err(error.into()));
                }
            }
            over = ready.len() < PAGE;
            if let Some((last, _, _)) = ready.back() {
                // The least key behind it.
                from = format!("{last}\0");
            }
        }
        ready.pop_front().map(Ok)
    }))
}

/// What is there and what is due, rule by rule.
pub(super) fn look(
    db: &Connection,
    rules: &[Rule],
    now_ms: i64,
    horizon: Option<DateTime<Utc>>,
) -> Result<(Vec<Prefix>, Vec<Vec<Due>>), Problem> {
    let (mut prefixes, mut all) = (Vec::new(), Vec::new());
    for bucket in objects::buckets(db)? {
        let here = |rule: &&Rule| rule.bucket.as_ref().is_none_or(|name| *name == bucket.name);
        for rule in rules.iter().filter(here) {
            let mut told = Prefix {
                bucket: bucket.name.clone(),
                prefix: rule.prefix.clone(),
                keep: Keep(rule.keep).to_string(),
                ..Prefix::default()
            };
            let mut due = Vec::new();
            for row in below(db, bucket.id, &rule.prefix)? {
                let (key, size, written_ms) = row?;
                let longer = rules.iter().filter(here).any(|other| {
                    other.prefix.len() > rule.prefix.len() && key.starts_with(&other.prefix)
                });
                if longer {
                    continue;
                }
                let window = match &rule.form {
                    None => None,
                    Some(form) => match form(&key) {
                        None => continue,
                        window => window,
                    },
                };
                told.objects += 1;
                told.bytes += size;
                let Some(keep) = rule.keep else { continue };
                if now_ms.saturating_sub(written_ms) <= keep.as_millis() as i64 {
                    continue;
                }
                if rule.form.is_some()
                    && window
                        .zip(horizon)
                        .is_none_or(|(window, horizon)| window >= horizon)
                {
                    told.waiting += 1;
                    continue;
                }
                told.due += 1;
                told.due_bytes += size;
                due.push(Due {
                    bucket: bucket.id,
                    key,
                    written_ms,
                });
            }
            prefixes.push(told);
            all.push(due);
        }
    }
    Ok((prefixes, all))
}

/// What was written again meanwhile has another age.
fn remove_if_unchanged(turn: &mut Turn<'_>, due: &Due) -> Result<(), Problem> {
    let there = objects::find(turn.db, due.bucket, &due.key)?;
    if there.is_some_and(|there| there.written_ms == due.written_ms) {
        objects::remove(turn, due.bucket, &due.key, |_| Ok(()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;

    const DAY_MS: i64 = 86_400_000;

    fn days(days: u64) -> Option<Duration> {
        Some(Duration::from_secs(days * 86_400))
    }

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(ms).unwrap()
    }

    /// Keys `in/N` whose window is day N.
    fn numbered() -> Form {
        Arc::new(|key| {
            let day: i64 = key.rsplit('/').next()?.parse().ok()?;
            DateTime::from_timestamp_millis(LEAST_YEAR_MS + day * DAY_MS)
        })
    }

    struct Old {
        _directory: tempfile::TempDir,
        clock: Clock,
        store: Store,
    }

    impl Old {
        /// One object a day under `in/`, for so many days.
        fn of(count: i64) -> Old {
            let directory = tempfile::tempdir().unwrap();
            let clock = Clock::manual(at(LEAST_YEAR_MS));
            let options = Options {
                clock: clock.clone(),
                ..Options::default()
            };
            let store = Store::open(directory.path(), &options).unwrap();
            store.create_bucket("b").unwrap();
            for day in 0..count {
                clock.advance_to(at(LEAST_YEAR_MS + day * DAY_MS));
                store.put_blocking("b", &format!("in/{day}"), b"x").unwrap();
            }
            Old {
                _directory: directory,
                clock,
                store,
            }
        }

        fn retention(&self, keep: Option<Duration>, form: Option<Form>) -> Retention {
            let rule = Rule {
                bucket: Some("b".into()),
                prefix: "in/".into(),
                keep,
                form,
            };
            Retention::new(self.store.clone(), vec![rule])
        }

        fn now_ms(&self) -> i64 {
            self.clock.now().timestamp_millis()
        }

        fn keys(&self) -> usize {
            self.store.contents("b").unwrap().len()
        }
    }

    #[test]
    fn what_is_older_than_its_rule_goes_and_what_was_written_again_stays() {
        let old = Old::of(20);
        old.store.put_blocking("b", "in/0", b"again").unwrap();
        old.store.put_blocking("b", "other/0", b"x").unwrap();
        let retention = old.retention(days(10), None);
        let done = retention.pass(old.now_ms(), None, false).unwrap();
        assert_eq!((done[0].objects, done[0].due), (20, 8));
        let keys: Vec<_> = old.store.contents("b").unwrap().into_keys().collect();
        assert_eq!(keys.len(), 13);
        assert!(
            keys.contains(&"in/0".to_owned())
                && keys.contains(&"in/9".to_owned())
                && keys.contains(&"other/0".to_owned())
        );
        // A rule that was made longer saves what was written under the shorter one.
        old.clock.advance_to(at(old.now_ms() + 5 * DAY_MS));
        let longer = old.retention(days(400), None);
        assert_eq!(longer.pass(old.now_ms(), None, false).unwrap()[0].due, 0);
    }

    #[test]
    fn the_longest_prefix_that_fits_holds_and_a_look_deletes_nothing() {
        let old = Old::of(20);
        old.store.put_blocking("b", "in/kept/0", b"x").unwrap();
        old.clock.advance_to(at(old.now_ms() + 30 * DAY_MS));
        let rule = |prefix: &str, keep| Rule {
            bucket: None,
            prefix: prefix.into(),
            keep,
            form: None,
        };
        let rules = vec![
            rule("", days(400)),
            rule("in/", days(10)),
            rule("in/kept/", None),
        ];
        let (told, _) = old
            .store
            .read_blocking({
                let (rules, now) = (rules.clone(), old.now_ms());
                move |db| look(db, &rules, now, None)
            })
            .unwrap();
        let found: Vec<_> = told.iter().map(|one| (one.objects, one.due)).collect();
        assert_eq!(found, [(0, 0), (20, 20), (1, 0)]);
        assert_eq!(old.keys(), 21);
        let retention = Retention::new(old.store.clone(), rules);
        retention.pass(old.now_ms(), None, true).unwrap();
        let left: Vec<_> = old.store.contents("b").unwrap().into_keys().collect();
        assert_eq!(left, ["in/kept/0"]);
    }

    #[test]
    fn what_waits_for_delivery_scoring_or_the_archive_stays_and_so_does_what_has_another_form() {
        let old = Old::of(20);
        old.store.put_blocking("b", "in/notes.txt", b"x").unwrap();
        old.clock.advance_to(at(old.now_ms() + 30 * DAY_MS));
        let retention = old.retention(days(10), Some(numbered()));
        let unknown = retention.pass(old.now_ms(), None, false).unwrap();
        assert_eq!((unknown[0].due, unknown[0].waiting), (0, 20));
        let horizon = at(LEAST_YEAR_MS + 15 * DAY_MS);
        let done = retention.pass(old.now_ms(), Some(horizon), false).unwrap();
        assert_eq!((done[0].due, done[0].waiting), (15, 5));
        assert_eq!(old.keys(), 6);
    }

    #[test]
    fn a_pass_that_would_take_over_half_of_a_prefix_is_held_until_it_is_applied() {
        let old = Old::of(300);
        old.clock.advance_to(at(old.now_ms() + 30 * DAY_MS));
        let retention = old.retention(days(10), None);
        let held = retention.pass(old.now_ms(), None, false).unwrap();
        assert!(held[0].held && held[0].due == 300);
        let standing = retention.standing().unwrap();
        assert_eq!((old.keys(), standing.kept[0].held), (300, true));
        assert_eq!(standing.last_pass, Some(at(old.now_ms())));
        retention.pass(old.now_ms(), None, true).unwrap();
        assert_eq!(old.keys(), 0);
    }

    #[test]
    fn a_clock_that_is_wrong_deletes_nothing() {
        let old = Old::of(3);
        let retention = old.retention(Some(Duration::ZERO), None);
        assert_eq!(retention.pass(0, None, true).unwrap()[0].due, 0);
        assert_eq!(old.keys(), 3);
    }

    #[test]
    fn uploads_that_were_left_go_after_a_week_with_their_bytes() {
        let old = Old::of(1);
        let upload = multipart::Upload {
            id: "left".into(),
            bucket: 0,
            key: "k".into(),
            begun_ms: 0,
            class: None,
            facts: Default::default(),
            tags: Vec::new(),
            algorithm: None,
            full_object: false,
        };
        let files = old.store.inner.files.clone();
        let mut intake = crate::store::bodies::Intake::new(&files, Default::default());
        intake.write(&[7; 100_000]).unwrap();
        let draft = intake.finish().unwrap();
        old.store
            .write_blocking(move |turn| {
                multipart::begin(turn, "b", &upload)?;
                multipart::put_part(turn, ("b", "k", "left"), 1, draft, None)
            })
            .unwrap();
        let bodies = || {
            std::fs::read_dir(old.store.root().join("bodies"))
                .unwrap()
                .count()
        };
        let retention = old.retention(None, None);
        retention
            .pass(old.now_ms() + 6 * DAY_MS, None, false)
            .unwrap();
        assert_eq!(bodies(), 1);
        let found = old.store.read_blocking(|db| figures(db, 0)).unwrap();
        assert_eq!((found.uploads, found.upload_bytes), (1, 100_000));
        retention
            .pass(old.now_ms() + 8 * DAY_MS, None, false)
            .unwrap();
        assert_eq!(bodies(), 0);
    }
}
