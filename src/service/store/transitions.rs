//! The two states of a scheduler that the runner ends: PENDING becomes RUNNING, STOPPING becomes STOPPED.

use chrono::{DateTime, Utc};

use super::Store;
use super::executions::{self, CatchUp};
use super::schedulers::{self, SchedulerStatus};
use crate::clock;
use crate::service::faults::Fault;

/// A scheduler that left a state that passes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Its name.
    pub scheduler: String,
    /// The state it left.
    pub from: SchedulerStatus,
}

impl Store {
    /// The schedulers in a state that passes, by identity.
    pub async fn passing(&self) -> Result<Vec<(String, SchedulerStatus)>, Fault> {
        self.transact(|db| {
            let sql = "SELECT uuid, status FROM scheduler WHERE status IN ('PENDING', 'STOPPING')";
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Lets schedulers leave these states: those that begin run from their next boundary on, those that stop wait for the
    /// execution under way.
    pub async fn settle(
        &self,
        ready: Vec<(String, SchedulerStatus)>,
        now: DateTime<Utc>,
        catch_up: CatchUp,
    ) -> Result<Vec<Settled>, Fault> {
        self.transact(move |db| {
            let mut settled = Vec::new();
            for (uuid, from) in ready {
                let Some(schedule) = schedulers::schedule(db, &uuid)? else {
                    continue;
                };
                let left = match from {
                    // Its next boundary would be one of 1970.
                    SchedulerStatus::Pending if !clock::is_set(now) => false,
                    SchedulerStatus::Pending => {
                        let left =
                            schedulers::transition(db, &uuid, from, SchedulerStatus::Running)?;
                        if left {
                            executions::begin(db, &schedule, now, catch_up)?;
                        }
                        left
                    }
                    SchedulerStatus::Stopping => {
                        !executions::in_progress(db, &uuid)?
                            && schedulers::transition(db, &uuid, from, SchedulerStatus::Stopped)?
                    }
                    SchedulerStatus::Running | SchedulerStatus::Stopped => false,
                };
                if left {
                    settled.push(Settled {
                        scheduler: schedule.name,
                        from,
                    });
                }
            }
            Ok(settled)
        })
        .await
    }
}
