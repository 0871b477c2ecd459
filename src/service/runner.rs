//! The runner: moves schedulers through their states, and runs the executions that are due.
//!
//! Guarantees: what is due is read from the state at every step, so a lost, late or doubled wake-up changes nothing; a
//! scheduler has one execution at a time, in the order of its windows; executions of different schedulers run beside each
//! other up to a limit, and none waits for another's timeout. After a restart every execution that was IN_PROGRESS is run
//! to its end before its scheduler's next one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Semaphore, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::service::faults::Fault;
use crate::service::store::executions::{self, Claim, End};
use crate::service::store::{Store, schedulers};
use crate::vitals::{Code, Pulse, Trouble};
use execute::Context;
use health::Health;
use models::Models;

mod execute;
mod health;
mod locate;
mod models;
mod near_miss;
mod read;
pub mod results;

/// Executions at once; more only queue for the same two cores and the same S3.
const PARALLEL_EXECUTIONS: usize = 32;
/// How long PENDING and STOPPING last in real time: long enough to be seen, short enough that a 5-second poll moves on.
const TRANSITION: Duration = Duration::from_millis(1500);
/// Longest sleep in real time, so that a wall clock that stepped is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// How far back late files are looked for.
const LATE_FOR: chrono::TimeDelta = chrono::TimeDelta::hours(24);
/// What a trouble with the state is about.
const STATE: &str = "service/state.db";
/// How long to wait after the state failed.
const AFTER_FAULT: Duration = Duration::from_secs(1);

/// The runner's parts.
pub struct Runner {
    context: Arc<Context>,
    changed: watch::Receiver<u64>,
    catch_up: bool,
    running: JoinSet<()>,
    /// The execution each task runs.
    tasks: HashMap<Id, (String, i64)>,
    /// When a scheduler that was seen in PENDING or STOPPING leaves it.
    leaving: HashMap<(String, &'static str), Instant>,
    /// Until when that was looked at; whoever should have left before waits for an execution, whose end is told.
    judged: Option<Instant>,
    pulse: Pulse,
}

impl Runner {
    /// A runner over `store`; `changed` is rung when an operation changed something.
    pub fn new(
        store: Store,
        s3: aws_sdk_s3::Client,
        clock: Clock,
        changed: watch::Receiver<u64>,
        catch_up: bool,
        pulse: Pulse,
    ) -> Runner {
        let crowded = std::sync::Mutex::new(HashSet::new());
        Runner {
            context: Arc::new(Context {
                store,
                s3,
                clock,
                models: Models::default(),
                health: Health::default(),
                slots: Semaphore::new(PARALLEL_EXECUTIONS),
                crowded,
            }),
            changed,
            catch_up,
            running: JoinSet::new(),
            tasks: HashMap::new(),
            leaving: HashMap::new(),
            judged: None,
            pulse,
        }
    }

    /// Runs until `shutdown`, then lets executions end for as long as `drain`; what is cut off is run again at the next
    /// start.
    pub async fn run(mut self, shutdown: CancellationToken, drain: Duration) {
        match self
            .context
            .store
            .transact(|db| executions::interrupted(db))
            .await
        {
            Ok(claims) => {
                for claim in claims {
                    tracing::info!(scheduler = claim.scheduler.name, window = %claim.window, "execution resumed");
                    self.start(claim);
                }
            }
            Err(fault) => tracing::error!(%fault, "interrupted executions cannot be read"),
        }
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

    /// Does everything that is due now; returns when the next execution is.
    async fn step(&mut self) -> Result<Option<DateTime<Utc>>, Fault> {
        let now = self.context.clock.now();
        self.transitions(now).await?;
        let busy: HashSet<String> = self.tasks.values().map(|(uuid, _)| uuid.clone()).collect();
        let catch_up = self.catch_up;
        let (claims, next) = self
            .context
            .store
            .transact(move |db| {
                let claims = executions::claim(db, now, catch_up, |uuid| busy.contains(uuid))?;
                Ok((claims, executions::next_due(db, now)?))
            })
            .await?;
        claims.into_iter().for_each(|claim| self.start(claim));
        Ok(next)
    }

    async fn wait(&mut self, shutdown: &CancellationToken, due: Option<DateTime<Utc>>) {
        let clock = self.context.clock.clone();
        let ahead = self.leaving.values().filter(|at| Some(**at) > self.judged);
        let leave = ahead.min().copied();
        let sleep = leave
            .map_or(LONGEST_SLEEP, |at| {
                at.saturating_duration_since(Instant::now())
            })
            .min(LONGEST_SLEEP);
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = self.changed.changed() => {}
            () = tokio::time::sleep(sleep) => {}
            () = async { match due { Some(due) => clock.sleep_until(due).await, None => std::future::pending().await } } => {}
            Some(ended) = self.running.join_next_with_id() => self.ended(ended).await,
        }
    }

    /// Completes PENDING and STOPPING a moment after they were first seen; STOPPING waits for its execution.
    async fn transitions(&mut self, now: DateTime<Utc>) -> Result<(), Fault> {
        let (pending, stopping) = self
            .context
            .store
            .transact(|db| {
                Ok((
                    schedulers::in_status(db, "PENDING")?,
                    schedulers::in_status(db, "STOPPING")?,
                ))
            })
            .await?;
        let seen: HashSet<(String, &'static str)> = pending
            .iter()
            .map(|scheduler| (scheduler.uuid.clone(), "PENDING"))
            .chain(
                stopping
                    .iter()
                    .map(|scheduler| (scheduler.uuid.clone(), "STOPPING")),
            )
            .collect();
        self.leaving.retain(|key, _| seen.contains(key));
        let real_now = Instant::now();
        self.judged = Some(real_now);
        for key in seen {
            self.leaving.entry(key).or_insert(real_now + TRANSITION);
        }
        let ready = |uuid: &str, status: &'static str| {
            self.leaving
                .get(&(uuid.to_owned(), status))
                .is_some_and(|at| *at <= real_now)
        };
        let to_run: Vec<_> = pending
            .into_iter()
            .filter(|scheduler| ready(&scheduler.uuid, "PENDING"))
            .collect();
        let to_stop: Vec<_> = stopping
            .into_iter()
            .filter(|scheduler| ready(&scheduler.uuid, "STOPPING"))
            .collect();
        if to_run.is_empty() && to_stop.is_empty() {
            return Ok(());
        }
        let catch_up = self.catch_up;
        self.context
            .store
            .transact(move |db| {
                for scheduler in &to_run {
                    if schedulers::transition(db, &scheduler.uuid, "PENDING", "RUNNING")? {
                        executions::begin(db, scheduler, now, catch_up)?;
                        tracing::info!(scheduler = scheduler.name, "scheduler running");
                    }
                }
                for scheduler in &to_stop {
                    if !executions::in_progress(db, &scheduler.uuid)?
                        && schedulers::transition(db, &scheduler.uuid, "STOPPING", "STOPPED")?
                    {
                        tracing::info!(scheduler = scheduler.name, "scheduler stopped");
                    }
                }
                Ok(())
            })
            .await
    }

    fn start(&mut self, claim: Claim) {
        let key = (
            claim.scheduler.uuid.clone(),
            claim.window.end().timestamp_micros(),
        );
        let context = Arc::clone(&self.context);
        let task = self.running.spawn(async move {
            let began = Instant::now();
            let end = execute::run(&context, &claim).await;
            log(&claim, &end, began.elapsed());
            let boundary_us = claim.window.end().timestamp_micros();
            record(&context, claim.scheduler.uuid.clone(), boundary_us, end).await;
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
            let reason = "Internal failure; the service's log has the cause".to_owned();
            record(&self.context, uuid, boundary_us, End::Failed(reason)).await;
        }
    }
}

/// Scores the windows before `after` whose data came late.
async fn late(context: &Context, after: &Claim) {
    let (scheduler, since) = (after.scheduler.clone(), after.window.start() - LATE_FOR);
    let found = context
        .store
        .transact(move |db| executions::without_data(db, &scheduler, since))
        .await;
    let claims = found.unwrap_or_else(|fault| {
        tracing::error!(%fault, "windows without data cannot be read");
        Vec::new()
    });
    for claim in claims {
        let Some(end) = execute::run_late(context, &claim).await else {
            continue;
        };
        tracing::info!(scheduler = claim.scheduler.name, window = %claim.window, "late window scored");
        let now = context.clock.now();
        let recorded = context
            .store
            .transact(move |db| executions::finish_late(db, &claim, now, &end))
            .await;
        if let Err(fault) = recorded {
            tracing::error!(%fault, "late window not recorded, it is looked at again");
        }
    }
}

/// Commits how an execution ended, however long the state takes to come back.
async fn record(context: &Context, uuid: String, boundary_us: i64, end: End) {
    let end = Arc::new(end);
    loop {
        let (now, uuid, end) = (context.clock.now(), uuid.clone(), Arc::clone(&end));
        let recorded = context
            .store
            .transact(move |db| executions::finish(db, &uuid, boundary_us, now, &end));
        match recorded.await {
            Ok(()) => return,
            Err(fault) => {
                tracing::error!(%fault, "end of an execution not recorded, trying again");
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
        End::Failed(reason) => {
            tracing::warn!(scheduler, %window, reason, took_ms, "execution failed")
        }
    }
}
