//! How long objects are kept: rules of prefixes and spans, looked at again and again, and applied in small steps.
//!
//! Guarantees: an object's age is that of its own last write, judged when it is deleted and by the rule of then. Only keys of
//! the form that a rule names are touched, and none that is of a form and whose window is not before the horizon, whichever
//! rule holds for it: what is still to be delivered, scored or archived stays. A pass that would take more than half of a
//! prefix is held until somebody says so (`lookoutd store retention --apply`), and so is one at a time that the clock is not
//! trusted ([`Trust`]); where it is not known what is to be kept there is none.

mod due;
mod trust;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};

use super::standing::{Standing, figures};
use super::{Problem, Store, multipart, takeover};
use crate::clock::Clock;
use crate::config::{Keep, KeepRule};
use crate::disk::trend::Trend;
use crate::vitals::{Code, Trouble, Troubles};
pub(super) use due::look;
use due::{Due, remove_if_unchanged};
use trust::Trust;

/// Deletions of one transaction, and the pause after it: a PUT in between waits for no more than this.
const AT_ONCE: usize = 50;
const PAUSE: Duration = Duration::from_millis(5);
/// Pages that are given back to the disk at once.
const PAGES: usize = 64;
/// Uploads that were begun and left go after this.
const UPLOADS_MS: i64 = 7 * 86_400_000;
/// Fewer objects than this are no large pass.
const FEW: u64 = 100;
/// Passes are this far apart at least and at most.
const OFTEN: Duration = Duration::from_secs(60);
const SELDOM: Duration = Duration::from_secs(3600);
/// So often it is asked what is to be kept, until that is known.
const UNKNOWN: Duration = Duration::from_secs(1);
/// What a pass that is held because of the clock is called among the troubles.
const CLOCK: &str = "clock";
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
    /// Other prefixes of the embedded store: `["exports/=30d", "models/=forever"]`; the longest prefix that fits holds, and
    /// before one of the same length among the two above.
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

/// What a pass goes by.
#[derive(Clone)]
pub struct Terms {
    /// The rules: of two with one prefix the first holds.
    pub rules: Vec<Rule>,
    /// What is of a form and began at or after it stays; without one all that is of a form does.
    pub horizon: Option<DateTime<Utc>>,
    /// Why the clock is not to be trusted, where somebody knows.
    pub doubt: Option<String>,
}

impl std::fmt::Debug for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terms")
            .field("rules", &said(&self.rules))
            .field("horizon", &self.horizon)
            .finish_non_exhaustive()
    }
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

/// Rules, and what they have come to.
#[derive(Clone)]
pub struct Retention {
    store: Store,
    rules: Arc<RwLock<Arc<Vec<Rule>>>>,
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
            rules: Arc::new(RwLock::new(Arc::new(rules))),
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

    fn rules(&self) -> Arc<Vec<Rule>> {
        let rules = self.rules.read();
        rules.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes by these rules from now on.
    fn adopt(&self, rules: Vec<Rule>) {
        let place = self.rules.write();
        *place.unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// Says what is kept for how long.
    pub fn announce(&self) {
        let rules = self.rules();
        if rules.is_empty() {
            info!("the embedded store keeps every object until it is deleted");
        }
        for rule in rules.iter() {
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
        let rules = self.rules();
        let shortest = rules.iter().filter_map(|rule| rule.keep).min();
        shortest.map_or(SELDOM, |keep| (keep / 20).clamp(OFTEN, SELDOM))
    }

    /// Passes from now on, by a clock; what each goes by is asked before it. While that is not known there is none.
    pub async fn run<F>(
        self,
        clock: Clock,
        ask: impl Fn() -> F,
        shutdown: tokio_util::sync::CancellationToken,
    ) where
        F: Future<Output = Option<Terms>>,
    {
        let mut trust = Trust::new(clock.speed(), Instant::now(), clock.now());
        let (mut known, mut apply, mut held) = (None, false, false);
        let mut again = UNKNOWN;
        loop {
            // Somebody may ask for a pass meanwhile; what the clock holds goes on soon after it is trusted.
            let mut left = if held { OFTEN } else { self.pace() };
            let mut rest = Duration::ZERO;
            while !left.is_zero() && !apply {
                if known.is_none() {
                    // What the rules come to is known before the first pass, which is an hour away.
                    known = self.begin(&clock, ask().await).await;
                }
                if rest.is_zero() {
                    let (looking, now) = (self.clone(), clock.now());
                    let began = Instant::now();
                    looked_through(tokio::task::spawn_blocking(move || looking.look(now)).await);
                    // However much there is, looking takes a hundredth of the time at most.
                    rest = began.elapsed() * 100;
                }
                let step = left.min(match known {
                    Some(_) => OFTEN,
                    None => later(&mut again),
                });
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = clock.pause(step) => {}
                }
                left -= step;
                rest = rest.saturating_sub(step);
                trust.look(Instant::now(), clock.now(), self.pace());
                let store = self.store.clone();
                let asked = tokio::task::spawn_blocking(move || asked(&store)).await;
                apply = matches!(asked, Ok(Ok(true)));
            }
            // Whoever asked for a pass gets it when it is known what it goes by.
            let Some(terms) = ask().await else {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = clock.pause(later(&mut again)) => continue,
                }
            };
            again = UNKNOWN;
            let rules = said(&terms.rules);
            self.adopt(terms.rules);
            if known.replace(rules) != known {
                self.announce();
            }
            let doubt = terms
                .doubt
                .or_else(|| trust.doubt(Instant::now(), clock.now()));
            if let Some(doubt) = doubt.filter(|_| !apply) {
                if !held {
                    warn!(
                        doubt,
                        "the clock is not trusted: nothing is deleted from the store"
                    );
                }
                held = true;
                self.hold(&doubt, clock.now());
                continue;
            }
            held = false;
            let (pass, now_ms) = (self.clone(), clock.now().timestamp_millis());
            let done = tokio::task::spawn_blocking(move || {
                pass.pass(now_ms, terms.horizon, apply).map(drop)
            });
            looked_through(done.await);
            if apply {
                trust.begin(Instant::now(), clock.now());
            }
            apply = false;
        }
    }

    /// Says and shows what the rules come to, once they are known.
    async fn begin(&self, clock: &Clock, terms: Option<Terms>) -> Option<Said> {
        let terms = terms?;
        let rules = said(&terms.rules);
        self.adopt(terms.rules);
        self.announce();
        let (first, now_ms) = (self.clone(), clock.now().timestamp_millis());
        let done = tokio::task::spawn_blocking(move || {
            let rules = first.rules();
            let (kept, _) = first
                .store
                .read_blocking(move |db| look(db, &rules, now_ms, terms.horizon))?;
            first.change(|standing| standing.kept = kept);
            Ok(())
        });
        looked_through(done.await);
        Some(rules)
    }

    /// No pass, because of the clock.
    fn hold(&self, doubt: &str, now: DateTime<Utc>) {
        let Some(troubles) = &self.troubles else {
            return;
        };
        let text = format!("nothing is deleted from the embedded store: {doubt}");
        let remedy = "put the clock right, timedatectl or chronyc tracking tell how it stands; where it is right, \
                      `lookoutd store retention --apply` deletes what is old, and else that goes on after a day";
        troubles.raise(Trouble::new(Code::RetentionHeld, now, text, remedy).about(CLOCK));
    }

    /// One pass; with `apply` also where it is large.
    pub fn pass(
        &self,
        now_ms: i64,
        horizon: Option<DateTime<Utc>>,
        apply: bool,
    ) -> Result<Vec<Prefix>, Problem> {
        let rules = self.rules();
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
                    bucket = prefix.bucket,
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
                    bucket = prefix.bucket,
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
        takeover::put_away(&self.store, now_ms)?;
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
        // Also those of rules that are no more, and what the clock had held.
        let held: Vec<String> = prefixes
            .iter()
            .filter(|one| one.held)
            .map(Prefix::name)
            .collect();
        for known in troubles.now() {
            let thing = &known.subject.thing;
            if known.code == Code::RetentionHeld && !held.contains(thing) {
                troubles.over(Code::RetentionHeld, thing);
            }
        }
        for prefix in prefixes.iter().filter(|one| one.held) {
            let since = DateTime::from_timestamp_millis(now_ms).unwrap_or_default();
            let text = format!(
                "{} of {} objects under {} are old enough to be deleted",
                prefix.due,
                prefix.objects,
                prefix.name()
            );
            let remedy = "look at `lookoutd store retention --dry-run`; `lookoutd store retention --apply` deletes them";
            troubles
                .raise(Trouble::new(Code::RetentionHeld, since, text, remedy).about(prefix.name()));
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

impl Prefix {
    /// Bucket and prefix.
    fn name(&self) -> String {
        format!("{}/{}", self.bucket, self.prefix)
    }
}

/// What is said of rules: bucket, prefix, span.
type Said = Vec<(Option<String>, String, Option<Duration>)>;

fn said(rules: &[Rule]) -> Said {
    let rules = rules.iter();
    rules
        .map(|rule| (rule.bucket.clone(), rule.prefix.clone(), rule.keep))
        .collect()
}

/// After how long it is asked again what is to be kept: later and later.
fn later(again: &mut Duration) -> Duration {
    let now = *again;
    *again = (now * 2).min(OFTEN);
    now
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;

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
    fn a_rule_of_the_configuration_takes_the_place_of_one_with_its_prefix_and_takes_nothing_that_waits()
     {
        let old = Old::of(20);
        old.store.put_blocking("b", "in/notes.txt", b"x").unwrap();
        old.clock.advance_to(at(old.now_ms() + 30 * DAY_MS));
        let rule = |bucket: Option<&str>, prefix: &str, keep, form| Rule {
            bucket: bucket.map(str::to_owned),
            prefix: prefix.into(),
            keep,
            form,
        };
        let own = || rule(Some("b"), "in/", days(10), Some(numbered()));
        let horizon = at(LEAST_YEAR_MS + 15 * DAY_MS);
        let due = |rules: Vec<Rule>, horizon| {
            let retention = Retention::new(old.store.clone(), rules);
            let rules = retention.rules();
            let now = old.now_ms();
            let looked = move |db: &Connection| look(db, &rules, now, horizon);
            let (told, due) = old.store.read_blocking(looked).unwrap();
            let told: Vec<_> = told.iter().map(|one| (one.due, one.waiting)).collect();
            assert!(
                told.iter()
                    .zip(&due)
                    .all(|(told, due)| told.0 as usize == due.len())
            );
            told
        };
        // For ever means for ever.
        let forever = vec![rule(None, "in/", None, None), own()];
        assert_eq!(due(forever, Some(horizon)), [(0, 0), (0, 0)]);
        // A shorter span is for what is done with, and for what has no form.
        let shorter = || vec![rule(None, "in/", days(1), None), own()];
        assert_eq!(due(shorter(), Some(horizon)), [(16, 5), (0, 0)]);
        assert_eq!(due(shorter(), None), [(1, 20), (0, 0)]);
        // So is one of a longer prefix.
        let longer = vec![rule(None, "in/1", days(1), None), own()];
        assert_eq!(due(longer, Some(horizon)), [(6, 5), (9, 0)]);
        // Two of the feeder's that share a prefix and differ in form each have their own.
        let other: Form = Arc::new(|key| key.ends_with(".txt").then(|| at(LEAST_YEAR_MS)));
        let both = vec![own(), rule(Some("b"), "in/", days(10), Some(other))];
        assert_eq!(due(both, Some(horizon)), [(15, 5), (1, 0)]);
    }

    #[test]
    fn two_buckets_with_one_prefix_are_held_and_let_go_each_for_itself() {
        let old = Old::of(300);
        old.store.create_bucket("c").unwrap();
        old.store.put_blocking("c", "in/0", b"x").unwrap();
        old.clock.advance_to(at(old.now_ms() + 30 * DAY_MS));
        let rule = Rule {
            bucket: None,
            prefix: "in/".into(),
            keep: days(10),
            form: None,
        };
        let troubles = Troubles::default();
        let retention = Retention::new(old.store.clone(), vec![rule]).telling(troubles.clone());
        retention.pass(old.now_ms(), None, false).unwrap();
        let held = troubles.get(Code::RetentionHeld, "b/in/").unwrap();
        assert!(held.text.contains("300 of 300"), "{}", held.text);
        assert_eq!(troubles.now().len(), 1);
        retention.adopt(Vec::new());
        retention.pass(old.now_ms(), None, false).unwrap();
        assert_eq!(troubles.now().len(), 0, "the rule is no more");
    }

    /// Lets a retention over old objects run by this clock and these terms until something is the case.
    async fn run_until(
        old: &Old,
        clock: &Clock,
        troubles: &Troubles,
        terms: impl Fn() -> Option<Terms>,
        is_so: impl Fn() -> bool,
    ) {
        let retention = old.retention(None, None).telling(troubles.clone());
        let stop = tokio_util::sync::CancellationToken::new();
        let ask = || std::future::ready(terms());
        let run = retention.run(clock.clone(), ask, stop.clone());
        let wait = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
        };
        let both = async { tokio::join!(run, wait) };
        let ended = tokio::time::timeout(Duration::from_secs(60), both).await;
        assert!(ended.is_ok(), "it was not so within a minute");
    }

    fn a_day() -> Terms {
        Terms {
            rules: vec![Rule {
                bucket: None,
                prefix: "in/".into(),
                keep: days(1),
                form: None,
            }],
            horizon: None,
            doubt: None,
        }
    }

    #[tokio::test]
    async fn nothing_is_deleted_while_it_is_not_known_what_is_to_be_kept() {
        let old = Old::of(20);
        let clock = Clock::accelerated(at(old.now_ms() + 30 * DAY_MS), 36_000.0);
        let (troubles, asked) = (Troubles::default(), AtomicUsize::new(0));
        let times = || asked.load(SeqCst);
        ask(old.store.root()).unwrap();
        let unknown = || {
            asked.fetch_add(1, SeqCst);
            None
        };
        run_until(&old, &clock, &troubles, unknown, || times() > 10).await;
        assert_eq!(old.keys(), 20);
        // The rules of now hold, not those of the start.
        let later = || {
            let mut terms = a_day();
            if asked.fetch_add(1, SeqCst) < 12 {
                terms.rules.clear();
            }
            Some(terms)
        };
        asked.store(10, SeqCst);
        run_until(&old, &clock, &troubles, later, || old.keys() == 0).await;
        assert!(times() >= 13);
    }

    #[tokio::test]
    async fn a_clock_that_was_stepped_or_is_doubted_deletes_nothing_until_it_is_trusted() {
        let old = Old::of(20);
        // Nothing is a day old.
        let clock = Clock::accelerated(at(old.now_ms() - 20 * DAY_MS), 36_000.0);
        let troubles = Troubles::default();
        let held = |troubles: &Troubles| troubles.get(Code::RetentionHeld, CLOCK);
        let stepped = async {
            clock.pause(Duration::from_secs(1800)).await;
            clock.advance(chrono::TimeDelta::days(60));
        };
        let is_held = || held(&troubles).is_some();
        let run = run_until(&old, &clock, &troubles, || Some(a_day()), is_held);
        tokio::join!(run, stepped);
        assert_eq!(old.keys(), 20);
        let told = held(&troubles).unwrap();
        assert!(told.text.contains("forward by"), "{}", told.text);
        // Somebody else doubts it.
        let troubles = Troubles::default();
        let doubted = || {
            let doubt = Some("it differs from the store's".into());
            Some(Terms { doubt, ..a_day() })
        };
        let is_held = || held(&troubles).is_some();
        run_until(&old, &clock, &troubles, doubted, is_held).await;
        assert_eq!(old.keys(), 20);
        // Who asks for it gets it.
        ask(old.store.root()).unwrap();
        let is_over = || old.keys() == 0 && held(&troubles).is_none();
        run_until(&old, &clock, &troubles, doubted, is_over).await;
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
