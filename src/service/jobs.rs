//! Background jobs: ingestion, training, imports, and retraining schedules.
//!
//! Guarantees: what is to be done is read from the state, so a job that a crash or restart interrupted is done again from
//! its start; a job ends SUCCESS or FAILED with a reason a person can act on; a store that is away for a moment ends none. One
//! ingestion and one training at a time: each can use every core there is.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::buckets::Buckets;
use super::faults::Fault;
use super::store::{Store, Swept};
use crate::clock::Clock;
use crate::vitals::{Code, Trouble, Vitals};

mod csv_file;
mod ingest;
mod key_pattern;
mod labels;
mod objects;
mod statistics;
mod train;

pub use key_pattern::key_pattern;

/// How long a loop may be silent.
const SILENT: Duration = Duration::from_secs(120);
/// How often schedules and queues are looked at without being told, real time.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often what is too old is forgotten, real time.
const FORGET_AFTER: Duration = Duration::from_secs(6 * 3600);
/// How long PENDING and STOPPING of a retraining scheduler last.
const TRANSITION: Duration = Duration::from_millis(1500);

/// The three kinds of work; the next of each waits for the one before.
#[derive(Clone, Copy)]
enum Queue {
    Ingestion,
    Training,
    Retraining,
}

impl Queue {
    fn name(self) -> &'static str {
        match self {
            Self::Ingestion => "ingestion",
            Self::Training => "training",
            Self::Retraining => "retraining",
        }
    }
}

/// What jobs share.
#[derive(Clone)]
pub struct Jobs {
    /// The state.
    pub store: Store,
    /// Where CSVs and labels are read and diagnostics written.
    pub buckets: Arc<Buckets>,
    /// Time of the schedules.
    pub clock: Clock,
    /// Told when something changed.
    pub changed: watch::Receiver<u64>,
    /// The loops of this process.
    pub vitals: Vitals,
    /// How long executions and events are remembered.
    pub keep_executions: Duration,
}

impl Jobs {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        if let Some(swept) = self.sweep().await {
            say_what_is_odd(&swept);
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.lane(Queue::Ingestion) => {}
            () = self.lane(Queue::Training) => {}
            () = self.lane(Queue::Retraining) => {}
            () = self.forget() => {}
        }
    }

    /// Forgets what is older than is to be kept, now and then; never returns.
    async fn forget(&self) {
        loop {
            // Not at the start, which has other things to do.
            tokio::time::sleep(FORGET_AFTER).await;
            match self
                .store
                .forget_past(self.keep_executions, self.clock.now())
                .await
            {
                Ok(0) => {}
                Ok(gone) => tracing::info!(
                    gone,
                    "executions that are older than service.keep_executions forgotten"
                ),
                Err(fault) => {
                    tracing::warn!(%fault, "old executions not forgotten, trying again later")
                }
            }
        }
    }

    async fn sweep(&self) -> Option<Swept> {
        let swept = self.store.sweep().await;
        swept
            .inspect_err(|fault| tracing::error!(%fault, "unused files cannot be found"))
            .ok()
    }

    /// Works on a queue until it is empty, then again when something changed; never returns.
    async fn lane(&self, queue: Queue) {
        let mut changed = self.changed.clone();
        let pulse = self.vitals.pulse(queue.name(), SILENT);
        loop {
            // A training takes hours; the loop beats while it waits for one.
            let outcome = match queue {
                Queue::Ingestion => pulse.during(ingest::next(self)).await,
                Queue::Training => pulse.during(train::next(self)).await,
                Queue::Retraining => {
                    pulse.beat();
                    self.retraining_schedules().await
                }
            };
            if outcome.is_ok() {
                pulse.troubles().over(Code::JobsFailing, queue.name());
            }
            match outcome {
                Ok(true) => {
                    self.sweep().await;
                    continue;
                }
                Ok(false) => {}
                Err(fault) => {
                    tracing::error!(%fault, queue = queue.name(), "job queue failed, trying again");
                    pulse.troubles().raise(
                        Trouble::new(
                            Code::JobsFailing,
                            self.clock.now(),
                            format!(
                                "the queue of the {} loop cannot be worked on: {fault}",
                                queue.name()
                            ),
                            "see the log for the cause; check the disk of the data directory",
                        )
                        .about(queue.name()),
                    );
                }
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Completes transitions and starts retrainings that are due. Never has more to do at once.
    async fn retraining_schedules(&self) -> Result<bool, Fault> {
        if self.store.retraining_moves().await? {
            tokio::time::sleep(TRANSITION).await;
        }
        self.store.retrain(self.clock.now()).await?;
        Ok(false)
    }
}

/// Files and state that do not fit, once per start.
fn say_what_is_odd(swept: &Swept) {
    for path in &swept.missing {
        tracing::error!(
            path = %path.display(),
            "a model file is missing: its executions fail; put it back from a backup, or train the model again"
        );
    }
    for path in &swept.unknown {
        tracing::warn!(
            path = %path.display(),
            "the state does not know this file: it is left alone; `lookoutd model register` takes a model up, otherwise remove it"
        );
    }
}

/// A `detail` object with one more member.
fn with(detail: &Value, name: &str, value: Value) -> Value {
    let mut detail = if detail.is_object() {
        detail.clone()
    } else {
        json!({})
    };
    detail[name] = value;
    detail
}
