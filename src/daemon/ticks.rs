//! The cron jobs that wake cutters at the boundaries of their cadences: one for each cadence, however many assets there are.
//!
//! A tick only pokes: what is due comes from the ledger and the clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Context;
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler};
use tracing::warn;

use crate::signal::Cadence;

/// Those who wait for one cadence's boundaries.
type Waiting = Arc<Mutex<Vec<Weak<Notify>>>>;

/// The jobs. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ticks {
    cron: Arc<tokio::sync::Mutex<Option<JobScheduler>>>,
    waiting: Arc<Mutex<HashMap<Cadence, Waiting>>>,
}

impl Ticks {
    /// No job yet.
    pub async fn start() -> anyhow::Result<Self> {
        let cron = JobScheduler::new().await.context("cron scheduler")?;
        cron.start().await.context("cron scheduler")?;
        Ok(Self {
            cron: Arc::new(tokio::sync::Mutex::new(Some(cron))),
            waiting: Arc::default(),
        })
    }

    /// Wakes `wake` at each boundary of `cadence`, as long as somebody has it.
    pub async fn wake(&self, cadence: Cadence, wake: &Arc<Notify>) -> anyhow::Result<()> {
        let (waiting, is_new) = {
            let mut all = lock(&self.waiting);
            let is_new = !all.contains_key(&cadence);
            (all.entry(cadence).or_default().clone(), is_new)
        };
        {
            let mut waiting = lock(&waiting);
            waiting.retain(|known| known.strong_count() > 0);
            waiting.push(Arc::downgrade(wake));
        }
        if is_new {
            self.add(cadence, waiting).await?;
        }
        Ok(())
    }

    async fn add(&self, cadence: Cadence, waiting: Waiting) -> anyhow::Result<()> {
        let schedule = match cadence.minutes() {
            60 => "0 0 * * * *".to_owned(),
            minutes => format!("0 */{minutes} * * * *"),
        };
        let job = Job::new_async(schedule.as_str(), move |_, _| {
            let waiting = waiting.clone();
            Box::pin(async move {
                for wake in lock(&waiting).iter().filter_map(Weak::upgrade) {
                    wake.notify_one();
                }
            })
        })
        .with_context(|| format!("cron schedule {schedule}"))?;
        if let Some(cron) = &*self.cron.lock().await {
            cron.add(job).await.context("cron scheduler")?;
        }
        Ok(())
    }

    /// Ends the jobs.
    pub async fn stop(&self) {
        if let Some(mut cron) = self.cron.lock().await.take()
            && let Err(error) = cron.shutdown().await
        {
            warn!(%error, "the cron scheduler did not stop");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
