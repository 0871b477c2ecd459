//! From the training rows as read to a table of standardised, filled rows, cut into the units of the folds.
//!
//! Selection follows coverage and direction, scaling is mean and standard deviation winsorised once, missing cells get their
//! conditional means. Lag and moving average run through rows nothing is learned from; gaps and empty rows restart them.

use super::features::{Filler, Recursion, Scaling};
use super::form::SHRINKAGE;
use super::guard::Warning;
use super::matrix::{Moments, NotInvertible, Symmetric};
use super::reading::History;
use super::sensor::Sensor;

/// Folds of the out-of-fold scores.
pub const FOLDS: usize = 4;
/// Rows of features in memory per lane.
pub const UNIT_ROWS: usize = 2048;
/// The cleaned table and what is known about each row.
pub(super) struct Cleaned {
    pub history: History,
    /// Rows with at least one used value.
    pub valid: Vec<bool>,
    pub threads: usize,
}

/// Contiguous rows of one fold, with the recursion's state before the first of them.
pub(super) struct Unit {
    pub rows: std::ops::Range<usize>,
    pub fold: usize,
    pub before: Recursion,
}

/// The inputs to use, and a warning for each other one and each odd one.
pub(super) fn select(
    history: &History,
    sensors: &[Sensor],
    kept: usize,
) -> (Vec<usize>, Vec<Warning>) {
    let mut used = Vec::new();
    let mut warnings = Vec::new();
    for (input, survey) in history.surveys.iter().enumerate() {
        let sensor = sensors[history.inputs[input]].clone();
        let coverage = survey.present as f64 / kept as f64;
        if coverage < 0.1 {
            warnings.push(Warning::MostlyMissing {
                sensor,
                share: 1.0 - coverage,
            });
            continue;
        }
        if let Some(direction) = survey.counter() {
            warnings.push(Warning::Counter { sensor, direction });
            continue;
        }
        if let Some(values) = survey.categories() {
            warnings.push(Warning::Categorical { sensor, values });
        }
        used.push(input);
    }
    (used, warnings)
}

/// Mean and population standard deviation of the used inputs, winsorised once at six of them; and which are constant.
pub(super) fn scale(history: &History, used: &[usize], threads: usize) -> (Scaling, Vec<usize>) {
    let counts: Vec<f64> = used
        .iter()
        .map(|at| history.surveys[*at].present as f64)
        .collect();
    let average = |of: &(dyn Fn(usize, f64) -> f64 + Sync)| -> Vec<f64> {
        let sums = history.store.by_lane(threads, |ranges| {
            let mut sums = vec![0.0; used.len()];
            let mut row = vec![0.0; history.store.width()];
            for index in ranges
                .into_iter()
                .flatten()
                .filter(|index| history.kept[*index])
            {
                history.store.read(index, &mut row);
                for (at, (sum, input)) in sums.iter_mut().zip(used).enumerate() {
                    if !row[*input].is_nan() {
                        *sum += of(at, row[*input]);
                    }
                }
            }
            sums
        });
        (0..used.len())
            .map(|at| sums.iter().map(|lane| lane[at]).sum::<f64>() / counts[at])
            .collect()
    };
    let mean = average(&|_, x| x);
    let sd: Vec<f64> = average(&|at, x| (x - mean[at]) * (x - mean[at]))
        .iter()
        .map(|v| v.sqrt())
        .collect();
    let winsorised = |at: usize, x: f64| x.clamp(mean[at] - 6.0 * sd[at], mean[at] + 6.0 * sd[at]);
    let centre = average(&winsorised);
    let spread =
        average(&|at, x| (winsorised(at, x) - centre[at]) * (winsorised(at, x) - centre[at]));
    let mut constant = Vec::new();
    let scale = (0..used.len())
        .map(|at| {
            let (sd, level) = (spread[at].sqrt(), history.surveys[used[at]].level);
            if sd <= 1e-6 * level.max(1e-9) {
                constant.push(at);
                (0.01 * level).max(1e-3)
            } else {
                sd
            }
        })
        .collect();
    (
        Scaling {
            mean: centre,
            scale,
        },
        constant,
    )
}

/// Standardises the table, learns the same-time precision from its kept rows, and fills its missing cells with it.
pub(super) fn clean(
    mut history: History,
    used: &[usize],
    scaling: &Scaling,
    threads: usize,
) -> Result<(Cleaned, Symmetric), NotInvertible> {
    let d = used.len();
    history.store.transform(
        threads,
        d,
        || (),
        |(), _, raw, z| {
            for (column, (z, input)) in z.iter_mut().zip(used).enumerate() {
                *z = scaling.apply(column, raw[*input]);
            }
        },
    );
    let lanes = history.store.by_lane(threads, |ranges| {
        let (mut values, mut presence, mut complete) = (Moments::new(d), Moments::new(d), 0.0);
        let mut empty = Vec::new();
        let mut z = vec![0.0; d];
        for range in ranges {
            let (mut rows, mut present) = (Vec::new(), Vec::new());
            for index in range {
                history.store.read(index, &mut z);
                let missing = z.iter().filter(|value| value.is_nan()).count();
                if missing == d {
                    empty.push(index);
                }
                if !history.kept[index] {
                    continue;
                }
                rows.extend(
                    z.iter()
                        .map(|value| if value.is_nan() { 0.0 } else { *value }),
                );
                if missing == 0 {
                    complete += 1.0;
                } else {
                    present.extend(z.iter().map(|value| if value.is_nan() { 0.0 } else { 1.0 }));
                }
            }
            values.add_rows(&rows);
            presence.add_rows(&present);
        }
        (values, presence, complete, empty)
    });
    let (mut values, mut presence, mut complete) = (Moments::new(d), Moments::new(d), 0.0);
    let mut valid = vec![true; history.store.rows()];
    for (lane_values, lane_presence, lane_complete, empty) in lanes {
        values.add(&lane_values, 1.0);
        presence.add(&lane_presence, 1.0);
        complete += lane_complete;
        empty.into_iter().for_each(|index| valid[index] = false);
    }
    let pairwise = Symmetric::from_fn(d, |row, column| {
        values.gram_at(row, column) / (presence.gram_at(row, column) + complete).max(1.0)
    });
    let same_time = pairwise
        .with_eigenvalues_at_least(1e-6)?
        .shrunk(SHRINKAGE)
        .inverse()?;
    history.store.transform(
        threads,
        d,
        || Filler::new(&same_time),
        |filler, _, old, new| {
            new.copy_from_slice(old);
            if !filler.fill(new) {
                new.fill(0.0);
            }
        },
    );
    Ok((
        Cleaned {
            history,
            valid,
            threads,
        },
        same_time,
    ))
}

impl Cleaned {
    /// Whether the recursion starts anew at a row.
    pub fn restarts(&self, index: usize) -> bool {
        index > 0
            && self.history.times[index] - self.history.times[index - 1]
                > self.history.step + self.history.step / 2
    }

    /// Cuts the rows into units that lie in one block each. Blocks are at least 60 rows; their folds take turns.
    pub fn units(&self, sensors: usize) -> Vec<Unit> {
        let rows = self.history.store.rows();
        let blocks = (rows / 60).clamp(FOLDS, 40);
        let mut units = Vec::new();
        for block in 0..blocks {
            let (mut start, end) = (
                (block * rows).div_ceil(blocks),
                ((block + 1) * rows).div_ceil(blocks),
            );
            while start < end {
                let stop = (start + UNIT_ROWS).min(end);
                units.push(Unit {
                    rows: start..stop,
                    fold: block % FOLDS,
                    before: Recursion::new(sensors),
                });
                start = stop;
            }
        }
        let mut recursion = Recursion::new(sensors);
        let (mut z, mut features) = (vec![0.0; sensors], vec![0.0; 3 * sensors]);
        for unit in &mut units {
            unit.before = recursion.clone();
            for index in unit.rows.clone() {
                self.features(&mut recursion, index, &mut z, &mut features);
            }
        }
        units
    }

    /// Features of one row; false where the row is empty.
    pub fn features(
        &self,
        recursion: &mut Recursion,
        index: usize,
        z: &mut [f64],
        features: &mut [f64],
    ) -> bool {
        if self.restarts(index) {
            recursion.reset();
        }
        if !self.valid[index] {
            recursion.reset();
            return false;
        }
        self.history.store.read(index, z);
        recursion.next(z, features);
        true
    }
}
