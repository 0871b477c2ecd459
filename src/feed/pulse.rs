//! Progress of the task loops, for the watchdog and for health: each loop beats its pulse whenever it has looked at its
//! work, and a supervisor asks whether every pulse is fresh. It measures monotonic time, so clock steps do not matter.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::Health;

/// The pulses of all loops of a daemon.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    pulses: Arc<Mutex<Vec<Beat>>>,
    health: Health,
}

/// Name, limit and last beat of one loop.
type Beat = (&'static str, Duration, Instant);

/// One loop's pulse.
#[derive(Clone, Debug)]
pub struct Pulse {
    vitals: Vitals,
    name: &'static str,
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

    /// What the loops say about themselves.
    pub fn health(&self) -> &Health {
        &self.health
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
    /// What the loops say about themselves.
    pub fn health(&self) -> &Health {
        &self.vitals.health
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
