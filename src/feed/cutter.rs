//! The cutter: finds out what is due, reads it, seals it in the spool and records it.
//!
//! [`Cut`] does one window; [`Cutter`] is the task loop around it. The live window comes first, then the backlog, oldest first. When the disk is full or the source fails, the window stays due
//! and the loop tries again by itself.

mod cut;
mod held;

use std::any::Any;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::cut::HISTORY_OVER;
pub use self::cut::{Cut, CutError};
use self::held::Held;
use super::{
    Config, Due, Entry, Ledger, LedgerError, Policy, Publish, Pulse, Spool, State, blocking,
};
use crate::clock::Clock;
use crate::signal::Window;
use crate::source::{Closed, Progress, SourceError};
use crate::vitals::{Code, Trouble};

/// How long the loop waits before it looks again when nothing wakes it, or after a failure.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// So many windows that wait are asked whether they have closed: more than a day has.
const WAITING: usize = 400;
/// How often it is asked whether a reading goes on.
const BEAT: Duration = Duration::from_secs(1);

/// The task loop.
pub struct Cutter {
    cut: Arc<Mutex<Cut>>,
    ledger: Ledger,
    spool: Spool,
    policy: Policy,
    min_free: u64,
    clock: Clock,
    wake: Arc<Notify>,
    sealed: Arc<Notify>,
    pulse: Pulse,
    held: Held,
    shutdown: CancellationToken,
    progress: Progress,
    gate: Option<Arc<Semaphore>>,
    /// What a source that holds the present tells of windows that wait, and until when they do.
    news: Option<Arc<Notify>>,
    waits: Option<DateTime<Utc>>,
    /// Components without a value in the last live window.
    blank: Vec<String>,
    state: Mood,
    /// When the daemon began to run, and when it began again because its clock had jumped, by the clock of then.
    begun: Vec<DateTime<Utc>>,
    /// The clock has not been set.
    unset: bool,
}

/// What the loop last said about itself, so that it says it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Working,
    Paused,
    Failing,
    Ended,
}

impl Cutter {
    /// A loop that cuts by `config` from now on. `wake` is the hint to look, `sealed` is notified after each window.
    pub fn new(
        config: &Config,
        cut: Cut,
        clock: Clock,
        wake: Arc<Notify>,
        sealed: Arc<Notify>,
        pulse: Pulse,
    ) -> Self {
        let begins = clock.now();
        Self {
            ledger: cut.ledger.clone(),
            spool: cut.spool.clone(),
            progress: cut.source.progress(),
            gate: cut.source.gate(),
            news: cut.source.news(),
            waits: None,
            policy: Policy {
                cadence: config.cadence,
                publish: match cut.source.is_live() {
                    true => Publish::Behind,
                    false => config.publish,
                },
                catch_up: config.catch_up,
                max_age: TimeDelta::from_std(config.max_age.0).unwrap_or(TimeDelta::MAX),
                resumed_at: begins,
            },
            cut: Arc::new(Mutex::new(cut)),
            min_free: config.min_free.0,
            clock,
            wake,
            sealed,
            pulse,
            held: Held::default(),
            shutdown: CancellationToken::new(),
            blank: Vec::new(),
            state: Mood::Working,
            begun: vec![begins],
            unset: false,
        }
    }

    /// What is alive as long as a window is being cut, also when the loop was given up.
    pub fn under_way(&self) -> Weak<dyn Any + Send + Sync> {
        let cut: Weak<Mutex<Cut>> = Arc::downgrade(&self.cut);
        cut
    }

    /// Runs until `shutdown`. A window that is being cut is finished first.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut before = (self.clock.now(), Instant::now());
        self.shutdown = shutdown.clone();
        loop {
            self.watch_for_steps(&mut before);
            let mut looked = self.clock.now();
            while !shutdown.is_cancelled() {
                self.pulse.beat();
                looked = self.clock.now();
                match self.step().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        self.say(Mood::Failing, &format!("{error:#}"));
                        break;
                    }
                }
            }
            self.pulse.beat();
            self.keep_up().await?;
            // From when it looked: a boundary that passed since is due at once.
            let next = self.policy.next_wake(looked);
            let next = self.waits.map_or(next, |waits| waits.min(next));
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.wake.notified() => {}
                () = told(self.news.as_ref()) => {}
                () = self.clock.sleep_until(next) => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Counts what came after its window was cut, and lets go what is shipped.
    pub async fn keep_up(&self) -> anyhow::Result<()> {
        if self.news.is_none() {
            return Ok(());
        }
        let (cut, live) = (self.cut.clone(), self.policy.live(self.clock.now()));
        blocking(move || {
            let mut cut = cut.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            cut.keep_up(&live);
        })
        .await
    }

    /// Of windows that are due the first that has closed; and until when the others wait.
    fn first_closed(
        &mut self,
        due: Vec<(Window, bool)>,
        now: DateTime<Utc>,
    ) -> Option<(Window, bool)> {
        self.waits = None;
        let cut = self
            .cut
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        for (window, live) in due {
            match cut.source.closed(&window, now) {
                Closed::Yes => return Some((window, live)),
                Closed::Until { time, .. } => {
                    let waits = self
                        .waits
                        .map_or(time, |known: DateTime<Utc>| known.min(time));
                    self.waits = Some(waits);
                }
            }
        }
        None
    }

    /// Cuts what is due next, if anything is and the disk allows it; true if there may be more.
    pub async fn step(&mut self) -> anyhow::Result<bool> {
        let now = self.clock.now();
        if !self.clock_is_set(now) {
            return Ok(false);
        }
        let Some((window, live)) = self.next_due(now).await? else {
            return Ok(false);
        };
        if !self.has_room().await? {
            return Ok(false);
        }
        let Some(cut) = self.cut(window, now).await? else {
            return Ok(false);
        };
        match cut {
            Ok(entry) if entry.reason.as_deref() == Some(HISTORY_OVER) => {
                if self.say(Mood::Ended, "") {
                    info!(%window, "the history is over: nothing more to cut");
                }
                Ok(true)
            }
            Ok(entry) => {
                self.held.over(window.start());
                if self.held.is_empty(Instant::now()) {
                    self.say(Mood::Working, "");
                }
                self.tell_blank(&window, &entry, live);
                log_cut(&window, &entry, live);
                self.sealed.notify_waiters();
                Ok(true)
            }
            Err(error) if error.is_full() => {
                self.say(Mood::Paused, &error.to_string());
                Ok(false)
            }
            Err(CutError::Source(error)) if !error.is_retryable() => {
                error!(%window, error = error.causes(), "the window cannot be read and is set aside");
                let ledger = self.ledger.clone();
                let mut entry = Entry::new(&window, State::Quarantined);
                entry.reason = Some(error.causes());
                blocking(move || ledger.record(&entry)).await??;
                Ok(true)
            }
            Err(error) => {
                self.say(Mood::Failing, &error.causes());
                let others_may = matches!(error, CutError::Source(SourceError::Held { .. }));
                if others_may {
                    self.held
                        .put(window.start(), live, LOOK_AGAIN, Instant::now());
                }
                Ok(others_may)
            }
        }
    }

    /// Cuts a window on a thread that may wait; `None` where the loop is told to stop before that begins. The pulse goes on
    /// beating while the source makes progress, however slow it is.
    async fn cut(
        &self,
        window: Window,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Option<Result<Entry, CutError>>> {
        let _turn = match &self.gate {
            Some(gate) => tokio::select! {
                turn = self.going(gate.clone().acquire_owned()) => Some(turn?),
                () = self.shutdown.cancelled() => return Ok(None),
            },
            None => None,
        };
        let cut = self.cut.clone();
        let cutting = tokio::task::spawn_blocking(move || {
            cut.lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .cut(&window, now)
        });
        Ok(Some(self.going(cutting).await?))
    }

    /// Waits for what a reading has to do with, and beats as long as that makes progress.
    async fn going<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut seen = self.progress.seen();
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(BEAT) => {}
            }
            if self.progress.seen() != seen {
                seen = self.progress.seen();
                self.pulse.beat();
            }
        }
    }

    /// The live window if it is not recorded and has closed, else the oldest of the backlog that has: what waits holds nothing up.
    async fn next_due(&mut self, now: DateTime<Utc>) -> anyhow::Result<Option<(Window, bool)>> {
        self.policy.resumed_at = self.resumed_at(now);
        let (ledger, policy, held) = (
            self.ledger.clone(),
            self.policy,
            self.held.alone(Instant::now()),
        );
        let left_alone = held.clone();
        // What is recorded has closed.
        let limit = if self.news.is_some() { WAITING } else { 1 };
        let decided = blocking(move || -> Result<(Due, Vec<Window>, usize), LedgerError> {
            let live = policy.live(now);
            let voided = ledger.void_future(&live, now)?;
            let recorded = ledger
                .get(live.start())?
                .is_some_and(|entry| entry.state != State::Due);
            let frontier = ledger.frontier(live.start())?;
            let due = policy.due(frontier, recorded, now);
            ledger.plan(&due)?;
            ledger.time_came(frontier, &live)?;
            let oldest = ledger.oldest_due_but(&held, limit)?;
            Ok((due, oldest, voided))
        })
        .await?;
        match decided {
            Ok((due, oldest, voided)) => {
                if voided > 0 {
                    warn!(
                        records = voided, %now,
                        "what was decided while the clock was ahead is taken back"
                    );
                }
                if let Some((from, to, reason)) = due.skipped {
                    warn!(%from, %to, reason, "windows skipped");
                }
                if let Some((from, to)) = due.backlog {
                    info!(from = %from.start(), to = %to.start(), "backlog to cut");
                }
                let live = due.live.into_iter();
                let live = live.filter(|window| !left_alone.contains(&window.start()));
                let live = live.map(|window| (window, true));
                let backlog = oldest.into_iter().map(|window| (window, false));
                let due = live.chain(backlog).collect();
                Ok(self.first_closed(due, now))
            }
            Err(error) if error.is_full() => {
                self.say(Mood::Paused, &error.to_string());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether windows can be named by the clock at all; says it where they cannot, and when they can again.
    fn clock_is_set(&mut self, now: DateTime<Utc>) -> bool {
        let set = self.pulse.troubles().clock_is_set(now);
        if set && self.unset {
            info!(%now, "the clock is set");
        }
        if !set && !self.unset {
            warn!(%now, "this machine's clock has not been set: nothing is cut until it is");
        }
        self.unset = !set;
        set
    }

    /// Since when the daemon runs, as seen at `now`: what was noted by a clock that was ahead does not count once it is put
    /// right.
    fn resumed_at(&mut self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.begun.retain(|begun| *begun <= now);
        match self.begun.last() {
            Some(begun) => *begun,
            None => {
                self.begun.push(now);
                now
            }
        }
    }

    async fn has_room(&mut self) -> anyhow::Result<bool> {
        let spool = self.spool.clone();
        match blocking(move || spool.free()).await? {
            Ok(free) if free >= self.min_free => Ok(true),
            Ok(free) => {
                let text = format!("{free} bytes free, feed.min_free is {}", self.min_free);
                self.say(Mood::Paused, &text);
                Ok(false)
            }
            Err(error) => {
                self.say(Mood::Failing, &error.to_string());
                Ok(false)
            }
        }
    }

    /// Says once which components have no value in the live window, and once when all have one again.
    fn tell_blank(&mut self, window: &Window, entry: &Entry, live: bool) {
        if !live {
            return;
        }
        let troubles = self.pulse.troubles();
        for known in troubles.now() {
            if known.code == Code::ComponentsBlank && !entry.blank.contains(&known.subject.thing) {
                troubles.over(known.code, &known.subject.thing);
            }
        }
        for component in &entry.blank {
            let text = format!("component {component} has no value in the window {window}");
            let remedy = "check its sensors and what writes them; the service goes on with their last values";
            let trouble = Trouble::new(Code::ComponentsBlank, self.clock.now(), text, remedy);
            troubles.raise(trouble.about(component));
        }
        if entry.blank == self.blank {
            return;
        }
        if entry.blank.is_empty() {
            info!("every component has values again");
        } else {
            let components = entry.blank.join(", ");
            warn!(components, "components have no value in the live window");
        }
        self.blank = entry.blank.clone();
    }

    /// Logs a change of mood once; true if it changed.
    fn say(&mut self, state: Mood, detail: &str) -> bool {
        let health = self.pulse.health();
        match state {
            Mood::Working | Mood::Ended => health.cutting_works(),
            Mood::Paused => health.paused(detail, self.clock.now()),
            Mood::Failing => health.cutting_failed(detail, self.clock.now()),
        }
        match state {
            Mood::Ended => self.pulse.troubles().raise(Trouble::new(
                Code::HistoryOver,
                self.clock.now(),
                "the history is over: no later window has rows",
                "append to the history, set source.at_end = \"loop\", or stop lookoutd",
            )),
            Mood::Working => self.pulse.troubles().over(Code::HistoryOver, ""),
            Mood::Paused | Mood::Failing => {}
        }
        if self.state == state {
            return false;
        }
        match (self.state, state) {
            (_, Mood::Paused) => error!(
                detail,
                "cutting is paused: the disk is full; free some space, cutting resumes by itself"
            ),
            (_, Mood::Failing) => warn!(detail, "cutting failed and will be tried again"),
            (Mood::Paused | Mood::Failing, Mood::Working) => info!("cutting goes on"),
            _ => {}
        }
        self.state = state;
        true
    }

    /// A wall clock that moved otherwise than time went by is a step. After a long one forward, what lies between is a
    /// downtime, decided once. A manual clock only ever steps, and says nothing by it.
    fn watch_for_steps(&mut self, before: &mut (DateTime<Utc>, Instant)) {
        let (wall, mono) = (self.clock.now(), Instant::now());
        let speed = self.clock.speed();
        if speed > 0.0 {
            let passed = TimeDelta::from_std((mono - before.1).mul_f64(speed)).unwrap_or_default();
            let step = (wall - before.0) - passed;
            // The two are not read at one instant, which a fast clock makes long.
            let noise = TimeDelta::milliseconds((2_000.0 * speed.max(1.0)) as i64);
            if step.abs() > noise {
                warn!(seconds = step.num_seconds(), now = %wall, "the clock was stepped");
                self.pulse.health().stepped(step.num_seconds(), wall);
            }
            if step > self.policy.cadence.duration() {
                // The step came after the last look: what began since then was not missed.
                self.begun.push(before.0 + step);
            }
        }
        *before = (wall, mono);
    }
}

/// Returns when there is news, where there may be.
async fn told(news: Option<&Arc<Notify>>) {
    match news {
        Some(news) => news.notified().await,
        None => std::future::pending().await,
    }
}

fn log_cut(window: &Window, entry: &Entry, live: bool) {
    match entry.state {
        State::Quarantined => {
            error!(%window, reason = entry.reason, "window lost");
        }
        State::Skipped => {
            info!(%window, reason = entry.reason, "the window was given up while it was cut")
        }
        State::Empty => warn!(%window, live, "window is empty: the source has no row in it"),
        _ => info!(
            %window, live, rows = entry.rows, files = entry.files, components = entry.components,
            bytes = entry.bytes, "window cut"
        ),
    }
}
