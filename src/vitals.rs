//! How the loops of this process are: their pulses, their troubles, and what the feeder counts.
//!
//! Each loop beats its pulse whenever it has looked at its work, and a supervisor asks whether every pulse is fresh. It
//! measures monotonic time, so clock steps do not matter. Whatever a loop finds wrong it raises as a [`Trouble`]. One
//! [`Vitals`] is shared by all loops of a process; watchdog, `/livez` and health read it.

mod health;
mod trouble;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

pub use health::{Conditions, Health, Uploads};
pub use trouble::{Code, Gravity, Subject, Trouble, Troubles};

/// How often a loop beats while it waits for its own work.
const AT_WORK: Duration = Duration::from_secs(5);

/// How all loops of a process are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Vitals {
    pulses: Arc<Mutex<Vec<Beat>>>,
    health: Health,
    troubles: Troubles,
}

/// Name, limit and last beat of one loop.
type Beat = (&'static str, Duration, Instant);

/// One loop's pulse.
#[derive(Clone, Debug)]
pub struct Pulse {
    vitals: Vitals,
    name: &'static str,
}

impl Default for Vitals {
    fn default() -> Self {
        let troubles = Troubles::default();
        Self {
            pulses: Arc::default(),
            health: Health::new(troubles.clone()),
            troubles,
        }
    }
}

impl Vitals {
    /// A pulse that must beat at least every `limit`.
    pub fn pulse(&self, name: &'static str, limit: Duration) -> Pulse {
        let mut pulses = self.lock();
        pulses.retain(|(existing, _, _)| *existing != name);
        pulses.push((name, limit, Instant::now()));
        Pulse {
            vitals: self.clone(),
            name,
        }
    }

    /// What the feeder's loops count and say.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// What the loops found wrong.
    pub fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    /// The loops that have not looked at their work within their limit, and for how long.
    pub fn stalled(&self) -> Vec<(&'static str, Duration)> {
        self.lock()
            .iter()
            .filter_map(|(name, limit, at)| {
                let silent = at.elapsed();
                (silent > *limit).then_some((*name, silent))
            })
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Beat>> {
        self.pulses
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Pulse {
    /// What the feeder's loops count and say.
    pub fn health(&self) -> &Health {
        &self.vitals.health
    }

    /// What the loops found wrong.
    pub fn troubles(&self) -> &Troubles {
        &self.vitals.troubles
    }

    /// The loop is alive.
    pub fn beat(&self) {
        for (name, _, at) in self.vitals.lock().iter_mut() {
            if *name == self.name {
                *at = Instant::now();
            }
        }
    }
}

impl Pulse {
    /// Waits for work that takes as long as it takes, and beats meanwhile: the loop is not stuck, it is at work.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            self.beat();
            if let Ok(done) = tokio::time::timeout(AT_WORK, work.as_mut()).await {
                self.beat();
                return done;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stops_looking_is_named() {
        let vitals = Vitals::default();
        let cutter = vitals.pulse("cutter", Duration::from_secs(60));
        let _shipper = vitals.pulse("shipper", Duration::from_secs(300));
        tokio::time::sleep(Duration::from_secs(50)).await;
        cutter.beat();
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert!(vitals.stalled().is_empty());
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(vitals.stalled(), [("cutter", Duration::from_secs(70))]);
    }
}
