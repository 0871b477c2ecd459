//! What is odd about a scheduler's sensors without being an anomaly of the machine: values that no longer change, and a
//! resolution that differs from training (model.md 3.3; rounding looks like noise that the model never saw).
//!
//! Each is logged once when it begins, and once when it ends, and costs no execution anything. Lives in memory: after a
//! restart what still holds is said again. Bounded: schedulers that were not seen for longest go first.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::model::guard::{ResolutionWatch, Warning};
use crate::model::{Model, Rows, ScoringState};
use crate::service::store::executions::Claim;

/// Schedulers watched at once.
const CAPACITY: usize = 4096;

/// The watches, by scheduler, least recently used first.
#[derive(Default)]
pub struct Health(Mutex<Vec<(String, Watch)>>);

#[derive(Default)]
struct Watch {
    /// Model and version.
    of: (String, i64),
    stuck: BTreeSet<String>,
    resolution: ResolutionWatch,
}

/// What is new in a window.
#[derive(Debug, Default, PartialEq)]
struct News {
    stuck: Vec<String>,
    loose: Vec<String>,
    warnings: Vec<Warning>,
}

impl Health {
    /// Looks at one scored window: its raw rows, and the state after them.
    pub fn look(&self, claim: &Claim, model: &Model, rows: &Rows, state: &ScoringState) {
        let (uuid, scheduler) = (&claim.scheduler.uuid, &claim.scheduler.name);
        let of = (claim.model_uuid.clone(), claim.model_version);
        let news = {
            let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let at = watches.iter().position(|(known, _)| known == uuid);
            let mut watch = at
                .map(|at| watches.remove(at).1)
                .filter(|watch| watch.of == of)
                .unwrap_or_else(|| Watch {
                    of,
                    ..Watch::default()
                });
            let news = watch.observe(model, rows, state);
            if watches.len() >= CAPACITY {
                watches.remove(0);
            }
            watches.push((uuid.clone(), watch));
            news
        };
        for sensor in news.stuck {
            tracing::warn!(
                scheduler,
                sensor,
                "sensor stuck: it shows one value for longer than it ever did in training and counts as missing; check it"
            );
        }
        for sensor in news.loose {
            tracing::info!(scheduler, sensor, "sensor no longer stuck");
        }
        for warning in news.warnings {
            tracing::warn!(scheduler, %warning, "resolution differs from training");
        }
    }
}

impl Watch {
    fn observe(&mut self, model: &Model, rows: &Rows, state: &ScoringState) -> News {
        let sensors = model.stuck_sensors(state);
        let now: BTreeSet<String> = sensors.iter().map(ToString::to_string).collect();
        let news = News {
            stuck: now.difference(&self.stuck).cloned().collect(),
            loose: self.stuck.difference(&now).cloned().collect(),
            warnings: self.resolution.observe(model, rows),
        };
        self.stuck = now;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Options, Sensor, Training};

    const MINUTE: i64 = 60_000_000;

    /// One row a minute with two decimals.
    fn rows(minutes: std::ops::Range<i64>, change: impl Fn(i64, f64) -> f64) -> Rows {
        let mut rows = Rows {
            sensors: 2,
            ..Rows::default()
        };
        for minute in minutes {
            let value = ((minute * 7919 % 1009) as f64 / 10.09).round() / 10.0;
            let other = (value * value * 100.0).round() / 100.0 + 0.01;
            rows.push(minute * MINUTE, &[value, change(minute, other)]);
        }
        rows
    }

    #[test]
    fn a_sensor_that_sticks_or_is_rounded_is_named_once_over_windows_of_five_rows() {
        let sensors = vec![Sensor::new("pump", "a"), Sensor::new("pump", "b")];
        let training = Training::in_memory(sensors, rows(0..2000, |_, value| value), Vec::new());
        let model = Model::fit(training, &Options::default(), &mut |_| {}).unwrap();
        let (mut watch, mut state) = (Watch::default(), model.live_state());
        let mut told = Vec::new();
        for window in 0..20 {
            let (start, end) = (2000 + 5 * window, 2005 + 5 * window);
            // Rounded from the start; stuck from minute 2030 to 2075.
            let rows = rows(start..end, |minute, value| {
                if (2030..2075).contains(&minute) {
                    40.0
                } else {
                    value.round()
                }
            });
            model.score(&mut state, &rows, start * MINUTE - 1, end * MINUTE - 1);
            let news = watch.observe(&model, &rows, &state);
            told.extend(
                news.warnings
                    .iter()
                    .map(|warning| (window, warning.to_string())),
            );
            told.extend(
                news.stuck
                    .into_iter()
                    .map(|sensor| (window, format!("stuck {sensor}"))),
            );
            told.extend(
                news.loose
                    .into_iter()
                    .map(|sensor| (window, format!("loose {sensor}"))),
            );
        }
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told[0].0 <= 3
                && told[0]
                    .1
                    .contains("pump\\b has 2 decimals in training and 0"),
            "{told:?}"
        );
        assert_eq!(told[1].1, "stuck pump\\b");
        assert_eq!(told[2], (15, "loose pump\\b".to_owned()));
    }
}
