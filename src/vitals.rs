//! How the loops of this process are: their pulses, their troubles, and what the feeder counts.
//!
//! Each loop beats its pulse whenever it has looked at its work, and a supervisor asks whether every pulse is fresh. It
//! measures monotonic time, so clock steps do not matter. Whatever a loop finds wrong it raises as a [`Trouble`]. One
//! [`Vitals`] is shared by all loops of a process; watchdog, `/livez` and health read it.

mod health;
mod supervise;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

pub use health::{Conditions, Health, Uploads};
pub use supervise::supervise;
pub use trouble::{Code, Gravity, Subject, Trouble, Troubles};

/// The loops that an asset has of its own.
const LINE: [&str; 4] = ["cutter", "shipper", "backlog", "watcher"];
/// How often a loop beats while it waits for its own work.
const AT_WORK: Duration = Duration::from_secs(5);

/// How all loops of a process are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Vitals {
    pulses: Pulses,
    health: Health,
    troubles: Troubles,
    /// Whose loops take their pulse here; empty: the process's own, and those of an asset without a name.
    asset: Arc<str>,
}

/// By asset and loop, of which there may be thousands.
type Pulses = Arc<Mutex<BTreeMap<(Arc<str>, &'static str), Beat>>>;

/// How one loop is.
#[derive(Clone, Debug)]
struct Beat {
    limit: Duration,
    at: Instant,
}

/// A loop that has not looked at its work within its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// Its asset; empty where that has no name.
    pub asset: String,
    /// The loop.
    pub name: &'static str,
    /// For how long it has been silent.
    pub silent: Duration,
}

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
            asset: Arc::default(),
        }
    }
}

impl Vitals {
    /// Those of the loops of one asset, which count for themselves.
    pub fn of(&self, asset: &str) -> Self {
        if asset.is_empty() {
            return self.clone();
        }
        let troubles = self.troubles.of(asset);
        Self {
            pulses: self.pulses.clone(),
            health: Health::new(troubles.clone()),
            troubles,
            asset: asset.into(),
        }
    }

    /// The asset's loops are no more, and nothing is wrong with them.
    pub fn left(&self) {
        self.ended();
        self.troubles.left();
    }

    /// The asset's loops have ended; others may take their place.
    pub fn ended(&self) {
        self.lock()
            .retain(|(asset, name), _| *asset != self.asset || !LINE.contains(name));
    }

    /// A pulse that must beat at least every `limit`.
    pub fn pulse(&self, name: &'static str, limit: Duration) -> Pulse {
        let at = Instant::now();
        self.lock()
            .insert((self.asset.clone(), name), Beat { limit, at });
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
    pub fn stalled(&self) -> Vec<Stalled> {
        self.lock()
            .iter()
            .filter_map(|((asset, name), beat)| {
                let silent = beat.at.elapsed();
                (silent > beat.limit).then(|| Stalled {
                    asset: asset.to_string(),
                    name,
                    silent,
                })
            })
            .collect()
    }

    /// Of those, the ones that the whole process is restarted for: a loop of one asset among several is that asset's trouble as
    /// long as the same loop of another goes on.
    pub fn stuck(&self) -> Vec<Stalled> {
        let mut stalled = self.stalled();
        let pulses = self.lock();
        let fresh = pulses
            .iter()
            .filter(|(_, beat)| beat.at.elapsed() <= beat.limit);
        let fresh: BTreeSet<&str> = fresh.map(|((_, name), _)| *name).collect();
        stalled.retain(|one| one.asset.is_empty() || !fresh.contains(one.name));
        stalled
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Arc<str>, &'static str), Beat>> {
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
        let loop_of = (self.vitals.asset.clone(), self.name);
        if let Some(beat) = self.vitals.lock().get_mut(&loop_of) {
            beat.at = Instant::now();
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
        assert_eq!(vitals.stalled()[0].silent, Duration::from_secs(70));
        assert_eq!(vitals.stuck()[0].name, "cutter");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_of_one_asset_stops_no_others() {
        let vitals = Vitals::default();
        let (one, other) = (vitals.of("pump-1"), vitals.of("pump-2"));
        let _hangs = one.pulse("cutter", Duration::from_secs(60));
        let works = other.pulse("cutter", Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(70)).await;
        works.beat();
        assert_eq!(vitals.stalled().len(), 1);
        assert_eq!(vitals.stalled()[0].asset, "pump-1");
        assert!(vitals.stuck().is_empty());
        tokio::time::sleep(Duration::from_secs(70)).await;
        assert_eq!(vitals.stuck().len(), 2);
        one.ended();
        assert_eq!(vitals.stalled()[0].asset, "pump-2");
    }
}
