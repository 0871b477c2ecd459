//! The runner: moves schedulers through their states, and runs the executions that are due.
//!
//! Guarantees: what is due is read from the state at every step, so a lost, late or doubled wake-up changes nothing; a
//! scheduler has one execution at a time, in the order of its windows; executions of different schedulers run beside each
//! other up to a limit, and none waits for another's timeout, files or backlog. No more is claimed than there are places for
//! work. After a restart every execution that was IN_PROGRESS is run to its end before its scheduler's next one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::service::buckets::Buckets;
use crate::service::faults::Fault;
use crate::service::store::Store;
use crate::service::store::executions::{
    CatchUp, Claim, Due, End, Failed, FailureKind, Look, Refused, Rewound,
};
use crate::service::store::schedulers::SchedulerStatus;
use crate::vitals::{Code, Pulse, Trouble};
use execute::Context;
use health::Health;
use models::Models;

mod execute;
mod health;
mod locate;
mod missing;
mod models;
mod near_miss;
mod publish;
mod read;
pub mod results;

/// Executions at work at once; more only queue for the same two cores and the same S3.
const PARALLEL_EXECUTIONS: usize = 32;
/// Looks at late windows at once, beside them.
const PARALLEL_LATE: usize = 4;
/// Late windows that are looked at after an execution; with 288 of them a day each has its turn every two hours.
const LATE_AT_ONCE: usize = 12;
/// How long, in real time, a look at a late window may hold up its scheduler's next one.
const LATE_MAY_HOLD_UP: Duration = Duration::from_secs(10);
/// Claims are made for as many places at least, or after [`CLAIM_ANYWAY`]: each is a transaction.
const CLAIM_TOGETHER: usize = 8;
/// How long places wait for others to become free with them.
const CLAIM_ANYWAY: Duration = Duration::from_millis(250);
/// How long PENDING and STOPPING last in real time: long enough to be seen, short enough that a 5-second poll moves on.
const TRANSITION: Duration = Duration::from_millis(1500);
/// Longest sleep in real time, so that a wall clock that stepped is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(3);
/// How often schedules are looked through for boundaries of the future, beside when the clock is seen to go back.
const REWIND_EVERY: Duration = Duration::from_secs(60);
/// How far back late files are looked for.
const LATE_FOR: TimeDelta = TimeDelta::hours(24);
/// What a trouble with the state is about.
const STATE: &str = "service/state.db";
/// And one with recording in it, which a look at the schedules does not meet.
const ENDS: &str = "service/state.db: executions";
/// How long to wait after the state failed.
const AFTER_FAULT: Duration = Duration::from_secs(1);

/// The runner's parts.
pub struct Runner {
    context: Arc<Context>,
    changed: watch::Receiver<u64>,
    catch_up: CatchUp,
    running: JoinSet<()>,
    /// The execution each task runs.
    tasks: HashMap<Id, (String, i64)>,
    /// When a scheduler that was seen in PENDING or STOPPING leaves it.
    leaving: HashMap<(String, SchedulerStatus), Instant>,
    /// Until when that was looked at; whoever should have left before waits for an execution, whose end is told.
    judged: Option<Instant>,
    pulse: Pulse,
    /// More is due than there were places for.
    more: bool,
    /// When something was last claimed.
    claimed: Option<Instant>,
    /// The latest time that was seen since schedules were last put back, and when that was.
    seen: Option<(DateTime<Utc>, Instant)>,
    /// What a crash interrupted was begun again.
    resumed: bool,
}

impl Runner {
    /// A runner over `store`; `changed` is rung when an operation changed something.
    pub fn new(
        store: Store,
        buckets: Arc<Buckets>,
        clock: Clock,
        changed: watch::Receiver<u64>,
        catch_up: CatchUp,
        pulse: Pulse,
    ) -> Runner {
        Runner {
            context: Arc::new(Context {
                store,
                buckets,
                clock,
                models: Models::default(),
                health: Health::default(),
                slots: Arc::new(Semaphore::new(PARALLEL_EXECUTIONS)),
                freed: Notify::new(),
                late_slots: Semaphore::new(PARALLEL_LATE),
                crowded: Mutex::default(),
                troubles: pulse.troubles().clone(),
            }),
            changed,
            catch_up,
            running: JoinSet::new(),
            tasks: HashMap::new(),
            leaving: HashMap::new(),
            judged: None,
            pulse,
            more: false,
            claimed: None,
            seen: None,
            resumed: false,
        }
    }

    /// Runs until `shutdown`, then lets executions end for as long as `drain`; what is cut off is run again at the next
    /// start.
    pub async fn run(mut self, shutdown: CancellationToken, drain: Duration) {
        while !shutdown.is_cancelled() {
            self.pulse.beat();
            let wait = match self.step().await {
                Ok(next) => {
                    self.pulse.troubles().over(Code::StateUnreadable, STATE);
                    next
                }
                Err(fault) => {
                    tracing::error!(%fault, "schedules cannot be read, trying again");
                    self.pulse.troubles().raise(
                        Trouble::new(
                            Code::StateUnreadable,
                            self.context.clock.now(),
                            format!("the service's schedules cannot be read: {fault}"),
                            "see the log for the cause; check the disk of the data directory",
                        )
                        .about(STATE),
                    );
                    tokio::time::sleep(AFTER_FAULT).await;
                    None
                }
            };
            self.wait(&shutdown, wait).await;
        }
        let drained = tokio::time::timeout(drain, async {
            while let Some(ended) = self.running.join_next_with_id().await {
                self.ended(ended).await;
            }
        });
        if drained.await.is_err() {
            tracing::warn!(
                open = self.running.len(),
                "executions cut off at shutdown, they are run again at the next start"
            );
        }
    }

    /// Does again what a crash interrupted, once.
    async fn resume(&mut self, now: DateTime<Utc>) -> Result<(), Fault> {
        if self.resumed {
            return Ok(());
        }
        let (claims, refused) = self.context.store.interrupted(now).await?;
        tell_refused(&refused);
        for claim in claims {
            tracing::info!(scheduler = claim.scheduler.name, window = %claim.window, "execution resumed");
            self.start(claim, None);
        }
        self.resumed = true;
        Ok(())
    }

    /// Does everything that is due now, as far as there are places; returns when the next execution is.
    async fn step(&mut self) -> Result<Option<DateTime<Utc>>, Fault> {
        let now = self.context.clock.now();
        if !self.pulse.troubles().clock_is_set(now) {
            self.transitions(now).await?;
            return Ok(None);
        }
        // Before anything is claimed: a scheduler's next window is scored from the state after the one before it.
        self.resume(now).await?;
        let rewind = self
            .seen
            .is_none_or(|(seen, at)| now < seen || at.elapsed() > REWIND_EVERY);
        self.transitions(now).await?;
        let free = self.context.slots.available_permits();
        let soon = self
            .claimed
            .is_some_and(|claimed| claimed.elapsed() < CLAIM_ANYWAY);
        let look = Look {
            now,
            catch_up: self.catch_up,
            busy: self.tasks.values().map(|(uuid, _)| uuid.clone()).collect(),
            most: if free < CLAIM_TOGETHER && soon {
                0
            } else {
                free
            },
            rewind,
        };
        let due = self.context.store.claim_due(look).await?;
        self.seen = match self.seen {
            Some((seen, at)) if !rewind => Some((seen.max(now), at)),
            _ => Some((now, Instant::now())),
        };
        tell(&due);
        if !due.claims.is_empty() {
            self.claimed = Some(Instant::now());
        }
        self.more = due.more;
        for claim in due.claims {
            let permit = Arc::clone(&self.context.slots).try_acquire_owned().ok();
            self.start(claim, permit);
        }
        Ok(due.next)
    }

    async fn wait(&mut self, shutdown: &CancellationToken, due: Option<DateTime<Utc>>) {
        let clock = self.context.clock.clone();
        let ahead = self.leaving.values().filter(|at| Some(**at) > self.judged);
        let leave = ahead.min().copied();
        let sleep = leave
            .map_or(LONGEST_SLEEP, |at| {
                at.saturating_duration_since(Instant::now())
            })
            .min(if self.more {
                CLAIM_ANYWAY
            } else {
                LONGEST_SLEEP
            });
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = self.changed.changed() => {}
            () = tokio::time::sleep(sleep) => {}
            () = async { match due { Some(due) => clock.sleep_until(due).await, None => std::future::pending().await } } => {}
            () = self.context.freed.notified(), if self.more => {}
            Some(ended) = self.running.join_next_with_id() => self.ended(ended).await,
        }
    }

    /// Completes PENDING and STOPPING a moment after they were first seen; STOPPING waits for its execution.
    async fn transitions(&mut self, now: DateTime<Utc>) -> Result<(), Fault> {
        let passing: HashSet<(String, SchedulerStatus)> =
            self.context.store.passing().await?.into_iter().collect();
        self.leaving.retain(|key, _| passing.contains(key));
        let real_now = Instant::now();
        self.judged = Some(real_now);
        let mut ready = Vec::new();
        for key in passing {
            let at = self
                .leaving
                .entry(key.clone())
                .or_insert(real_now + TRANSITION);
            if *at <= real_now {
                ready.push(key);
            }
        }
        if ready.is_empty() {
            return Ok(());
        }
        let settled = self.context.store.settle(ready, now, self.catch_up).await?;
        for left in settled {
            let scheduler = left.scheduler;
            match left.from {
                SchedulerStatus::Stopping => tracing::info!(scheduler, "scheduler stopped"),
                _ => tracing::info!(scheduler, "scheduler running"),
            }
        }
        Ok(())
    }

    fn start(&mut self, claim: Claim, permit: Option<OwnedSemaphorePermit>) {
        let key = (
            claim.scheduler.uuid.clone(),
            claim.window.end().timestamp_micros(),
        );
        let context = Arc::clone(&self.context);
        let task = self.running.spawn(async move {
            let began = Instant::now();
            let end = execute::run(&context, &claim, permit).await;
            log(&claim, &end, began.elapsed());
            let boundary_us = claim.window.end().timestamp_micros();
            record(&context, &claim.scheduler.uuid, boundary_us, end).await;
            if claim.options.late_files {
                late(&context, &claim).await;
            }
        });
        self.tasks.insert(task.id(), key);
    }

    /// Forgets a task that has ended; one that panicked has its execution recorded FAILED.
    async fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, panicked) = match ended {
            Ok((id, ())) => (id, false),
            Err(error) => (error.id(), true),
        };
        if let Some((uuid, boundary_us)) = self.tasks.remove(&id)
            && panicked
        {
            tracing::error!(scheduler_uuid = uuid, "execution panicked");
            let failed = Failed::new(
                FailureKind::Internal,
                "Internal failure; the service's log has the cause",
            );
            record(&self.context, &uuid, boundary_us, End::Failed(failed)).await;
        }
    }
}

/// Says what a look at the schedules found beside what is to be executed.
fn tell(due: &Due) {
    for Rewound {
        scheduler,
        from,
        to,
    } in &due.rewound
    {
        let shown = |time: &Option<DateTime<Utc>>| time.map(|time| time.to_rfc3339());
        tracing::warn!(
            scheduler,
            from = shown(from),
            to = shown(to),
            "the schedule waits for a time to come: the clock was ahead, and the schedule goes on from now"
        );
    }
    for (scheduler, missed) in &due.passed {
        tracing::warn!(scheduler, missed, "windows passed without an execution");
    }
    tell_refused(&due.refused);
}

fn tell_refused(refused: &[Refused]) {
    for refused in refused {
        tracing::warn!(
            scheduler = refused.scheduler,
            end = refused.end.to_rfc3339(),
            kind = refused.failed.kind.as_sql(),
            reason = refused.failed.reason,
            "execution failed"
        );
    }
}

/// Scores the windows before `after` whose data came late, until the scheduler's next one is due. That waits for one look at
/// most, and not for a store that hangs.
async fn late(context: &Context, after: &Claim) {
    let now = context.clock.now();
    let (start, scheduler) = (after.window.start(), after.scheduler.clone());
    let next = after.window.next().end() + TimeDelta::minutes(scheduler.delay_minutes);
    let most = if now < next { LATE_AT_ONCE } else { 1 };
    let until = after.window.end();
    let found = context
        .store
        .late_windows(scheduler, start - LATE_FOR, until, now, most)
        .await;
    let claims = found.unwrap_or_else(|fault| {
        tracing::warn!(%fault, "windows without data cannot be read, they are looked at again");
        Vec::new()
    });
    let hurry = async {
        context.clock.sleep_until(next).await;
        tokio::time::sleep(LATE_MAY_HOLD_UP).await;
    };
    let mut hurry = std::pin::pin!(hurry);
    for (nth, claim) in claims.into_iter().enumerate() {
        if nth > 0 && context.clock.now() >= next {
            return;
        }
        // What is cut off is done again at its next turn, with the same bytes.
        let end = tokio::select! {
            () = hurry.as_mut() => return,
            end = execute::run_late(context, &claim) => end,
        };
        let Some(end) = end else { continue };
        tracing::info!(scheduler = claim.scheduler.name, window = %claim.window, "late window scored");
        let now = context.clock.now();
        if let Err(fault) = context.store.end_late(&claim, now, end).await {
            tracing::warn!(%fault, "late window not recorded, it is looked at again");
        }
    }
}

/// Commits how an execution ended, however long the state takes to come back.
async fn record(context: &Context, uuid: &str, boundary_us: i64, end: End) {
    loop {
        let now = context.clock.now();
        let recorded = context
            .store
            .end_execution(uuid, boundary_us, now, end.clone())
            .await;
        match recorded {
            Ok(()) => {
                context.troubles.over(Code::StateUnreadable, ENDS);
                return;
            }
            Err(fault) => {
                tracing::error!(%fault, "end of an execution not recorded, trying again");
                context.troubles.raise(
                    Trouble::new(
                        Code::StateUnreadable,
                        now,
                        format!("the end of an execution cannot be recorded: {fault}"),
                        "see the log for the cause; check the disk of the data directory",
                    )
                    .about(ENDS),
                );
                tokio::time::sleep(AFTER_FAULT).await;
            }
        }
    }
}

fn log(claim: &Claim, end: &End, took: Duration) {
    let (scheduler, window, took_ms) = (&claim.scheduler.name, claim.window, took.as_millis());
    match end {
        End::Success {
            rows, anomalies, ..
        } => {
            tracing::info!(scheduler, %window, rows, anomalous = anomalies.len(), took_ms, "execution succeeded");
        }
        End::Failed(failed) => {
            let (kind, reason) = (failed.kind.as_sql(), &failed.reason);
            tracing::warn!(scheduler, %window, kind, reason, took_ms, "execution failed");
        }
    }
}
