//! Learning a model from history: one pass over the rows, then passes over the table they became.
//!
//! The order is fixed: read, resample, gate; select and scale sensors; same-time precision; fill; features and their
//! moments per fold; out-of-fold scores; tails; threshold. Folds are interleaved blocks of at least 60 rows: contiguous
//! folds would call a season abnormal, in-sample scores would call everything normal. Sums are taken per lane and added in
//! lane order, so the model is the same bits for any number of threads. No randomness, no iteration to convergence.

use super::calibrate::{self, Tail, quantile};
use super::features::{Filler, Recursion, Scaling};
use super::form::{Batch, Form, FormKernel, SHRINKAGE};
use super::guard::Warning;
use super::lanes;
use super::matrix::{Moments, NotInvertible, Symmetric};
use super::reading::{self, History};
use super::score::{fused, smoothed};
use super::{Learned, Model, Options, Sensor, Span};

/// Folds of the out-of-fold scores.
const FOLDS: usize = 4;
/// Rows of features in memory per lane.
const UNIT_ROWS: usize = 2048;
/// Fewer healthy rows than this and nothing can be learned.
const FEWEST_ROWS: usize = 120;
/// Rows wanted per feature.
const ROWS_PER_FEATURE: usize = 60;

/// What `Model::fit` is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The step of the work.
    pub stage: Stage,
    /// Rows done in this stage.
    pub rows: usize,
    /// Rows to do in this stage, where known.
    pub total: Option<usize>,
}

/// The steps of training, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Rows are read and resampled.
    Reading,
    /// Sensors are selected, scaled and filled.
    Cleaning,
    /// Relations are learned.
    Learning,
    /// Out-of-fold scores and the threshold are computed.
    Calibrating,
}

/// Why no model could be made.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// The row source failed.
    #[error("the training rows could not be read: {0:#}")]
    Source(anyhow::Error),
    /// Times are not sorted and unique.
    #[error(
        "training rows must be sorted by time without duplicates: {later} came after {earlier} (UTC microseconds)"
    )]
    Unsorted {
        /// The time before.
        earlier: i64,
        /// The time that should have been larger.
        later: i64,
    },
    /// A block of rows does not have one value per sensor.
    #[error("a training row has {found} values, expected one for each of the {expected} sensors")]
    Ragged {
        /// Sensors.
        expected: usize,
        /// Values.
        found: usize,
    },
    /// The off condition names a sensor that the data do not have.
    #[error(
        "the off condition names {0}, which is not among the sensors; check component and signal"
    )]
    OffSensorUnknown(Sensor),
    /// Too few rows remain after off periods, labels and gaps.
    #[error(
        "only {rows} of {read} training rows are usable (the rest is off, labelled or empty); at least {FEWEST_ROWS} are needed, train on a longer range"
    )]
    TooLittleHistory {
        /// Usable rows.
        rows: usize,
        /// Rows on the grid.
        read: usize,
    },
    /// The usable rows lie so close together that no part of them can be held out.
    #[error(
        "all usable training rows lie in one stretch of the range; choose a range that is healthy most of the time"
    )]
    OneStretch,
    /// No sensor has enough values.
    #[error("none of the {0} sensors has enough values in the training range: {1}")]
    NoUsableSensor(usize, String),
    /// An option is out of its range.
    #[error("{0}")]
    Option(&'static str),
    /// Linear algebra failed.
    #[error(transparent)]
    NotInvertible(#[from] NotInvertible),
}

/// Contiguous rows of one fold, with the recursion's state before the first of them.
struct Unit {
    rows: std::ops::Range<usize>,
    fold: usize,
    before: Recursion,
}

/// The cleaned table and what is known about each row.
struct Table {
    history: History,
    /// Rows with at least one used value.
    valid: Vec<bool>,
    threads: usize,
}

pub(super) fn fit(
    training: super::Training,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Model, FitError> {
    if !(0.0..=0.2).contains(&options.trim) {
        return Err(FitError::Option(
            "trim must lie between 0 and 0.2 (20 % of the rows)",
        ));
    }
    if !(options.rate_per_week > 0.0 && options.rate_per_week.is_finite()) {
        return Err(FitError::Option(
            "the rate of events per week must be a positive number",
        ));
    }
    let threads = options.threads.unwrap_or_else(lanes::available);
    let sensors = training.sensors.clone();
    let history = reading::read(training, options, progress)?;
    let read = history.store.rows();
    let mut stage = |stage| {
        progress(Progress {
            stage,
            rows: 0,
            total: Some(read),
        })
    };
    stage(Stage::Cleaning);
    let kept = history.kept.iter().filter(|kept| **kept).count();
    if kept < FEWEST_ROWS {
        return Err(FitError::TooLittleHistory { rows: kept, read });
    }
    let (used, mut warnings) = select(&history, &sensors, kept);
    if used.is_empty() {
        let reasons: Vec<_> = warnings.iter().map(Warning::to_string).collect();
        return Err(FitError::NoUsableSensor(sensors.len(), reasons.join("; ")));
    }
    let (scaling, constant) = scale(&history, &used, threads);
    warnings.extend(constant.into_iter().map(|at| Warning::Constant {
        sensor: sensors[history.inputs[used[at]]].clone(),
        value: scaling.mean[at],
    }));
    let (table, same_time) = clean(history, &used, &scaling, threads)?;
    let width = 3 * used.len();

    stage(Stage::Learning);
    let units = table.units(used.len());
    let mut kept: Vec<bool> = table
        .history
        .kept
        .iter()
        .zip(&table.valid)
        .map(|(kept, valid)| *kept && *valid)
        .collect();
    let mut pass = learn(&table, &units, width, &kept)?;
    stage(Stage::Calibrating);
    let mut scores = pass.out_of_fold(&table, &units)?;
    if options.trim > 0.0 {
        trim(&mut kept, &scores, options.trim);
        pass = learn(&table, &units, width, &kept)?;
        scores = pass.out_of_fold(&table, &units)?;
    }
    let tails = [0, 1].map(|at| {
        let mut of: Vec<f64> = scores
            .iter()
            .zip(&kept)
            .filter(|(_, kept)| **kept)
            .map(|(q, _)| q[at])
            .collect();
        Tail::of(&mut of)
    });
    let u = training_u(&table, &scores, &tails, &kept);
    let history = &table.history;
    let weeks = u.len() as f64 * history.step as f64 / (604_800.0 * 1e6);
    let (threshold, events) = calibrate::threshold(&u, options.rate_per_week, weeks);
    let wanted = ROWS_PER_FEATURE * width;
    if u.len() < wanted || weeks < 2.0 {
        warnings.insert(
            0,
            Warning::ShortTraining {
                rows: u.len(),
                wanted,
                days: weeks * 7.0,
            },
        );
    }
    let columns: Vec<usize> = used.iter().map(|at| history.inputs[*at]).collect();
    Ok(Model::from_learned(Learned {
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        sampling: options.sampling,
        step: history.step,
        off: options.off.clone(),
        grace: options.grace,
        rate_per_week: options.rate_per_week,
        trim: options.trim,
        stuck: used
            .iter()
            .map(|at| history.surveys[*at].stuck_limit(history.kept_rows()))
            .collect(),
        whole: history.whole.clone(),
        decimals: history.decimals.clone(),
        columns,
        scaling,
        same_time,
        form: pass.form,
        tails,
        threshold,
        warnings,
        from: history.times.first().copied().unwrap_or_default(),
        to: history.times.last().copied().unwrap_or_default(),
        rows: u.len(),
        labels: history.labels.clone(),
        weeks,
        training_events: events,
        sensors,
    }))
}

/// The inputs to use, and a warning for each other one and each odd one.
fn select(history: &History, sensors: &[Sensor], kept: usize) -> (Vec<usize>, Vec<Warning>) {
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
fn scale(history: &History, used: &[usize], threads: usize) -> (Scaling, Vec<usize>) {
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
fn clean(
    mut history: History,
    used: &[usize],
    scaling: &Scaling,
    threads: usize,
) -> Result<(Table, Symmetric), FitError> {
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
        Table {
            history,
            valid,
            threads,
        },
        same_time,
    ))
}

impl Table {
    /// Whether the recursion starts anew at a row.
    fn restarts(&self, index: usize) -> bool {
        index > 0
            && self.history.times[index] - self.history.times[index - 1]
                > self.history.step + self.history.step / 2
    }

    /// Cuts the rows into units that lie in one block each. Blocks are at least 60 rows; their folds take turns.
    fn units(&self, sensors: usize) -> Vec<Unit> {
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
    fn features(
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

/// What one pass over the features gives: the model's form and the moments the fold models are made of.
struct Pass {
    form: Form,
    total: Moments,
    folds: Vec<Moments>,
}

fn learn(table: &Table, units: &[Unit], width: usize, kept: &[bool]) -> Result<Pass, FitError> {
    let lanes = lanes::run(table.threads, lanes::deal(units), |lane| {
        let mut folds = vec![Moments::new(width); FOLDS];
        let (mut z, mut features) = (vec![0.0; width / 3], vec![0.0; width]);
        let mut rows = Vec::with_capacity(UNIT_ROWS * width);
        for unit in lane {
            rows.clear();
            let mut recursion = unit.before.clone();
            for index in unit.rows.clone() {
                if table.features(&mut recursion, index, &mut z, &mut features) && kept[index] {
                    rows.extend_from_slice(&features);
                }
            }
            folds[unit.fold].add_rows(&rows);
        }
        folds
    });
    let mut folds = vec![Moments::new(width); FOLDS];
    for lane in &lanes {
        for (fold, part) in folds.iter_mut().zip(lane) {
            fold.add(part, 1.0);
        }
    }
    let mut total = Moments::new(width);
    folds.iter().for_each(|fold| total.add(fold, 1.0));
    Ok(Pass {
        form: Form::of(&total)?,
        total,
        folds,
    })
}

impl Pass {
    /// Both scores of every row from the model that did not see its fold; zero for empty rows.
    fn out_of_fold(&self, table: &Table, units: &[Unit]) -> Result<Vec<[f64; 2]>, FitError> {
        let mut kernels: Vec<FormKernel> = Vec::with_capacity(FOLDS);
        for fold in &self.folds {
            let mut rest = self.total.clone();
            rest.add(fold, -1.0);
            if rest.count < FEWEST_ROWS as f64 / 4.0 {
                return Err(FitError::OneStretch);
            }
            kernels.push(Form::of(&rest)?.kernel());
        }
        let lanes = lanes::run(table.threads, lanes::deal(units), |lane| {
            let mut scores = Vec::new();
            let (mut batch, mut rows) = (Batch::default(), Vec::new());
            for unit in lane {
                let kernel = &kernels[unit.fold];
                let (mut z, mut features) =
                    (vec![0.0; kernel.width() / 3], vec![0.0; kernel.width()]);
                let mut recursion = unit.before.clone();
                // Batches of a few hundred rows stay in the cache.
                for start in unit.rows.clone().step_by(256) {
                    batch.clear();
                    rows.clear();
                    for index in start..(start + 256).min(unit.rows.end) {
                        if table.features(&mut recursion, index, &mut z, &mut features) {
                            batch.push(kernel, &features);
                            rows.push(index);
                        }
                    }
                    batch.multiply(kernel);
                    for (at, index) in rows.iter().enumerate() {
                        let (q1, q2) = kernel.scores(&batch, at);
                        scores.push((*index, [q1, q2]));
                    }
                }
            }
            scores
        });
        let mut scores = vec![[0.0; 2]; table.valid.len()];
        for (index, score) in lanes.into_iter().flatten() {
            scores[index] = score;
        }
        Ok(scores)
    }
}

/// Drops the kept rows with a score above its `1 - share` quantile.
fn trim(kept: &mut [bool], scores: &[[f64; 2]], share: f64) {
    let limits = [0, 1].map(|at| {
        let mut of: Vec<f64> = scores
            .iter()
            .zip(&*kept)
            .filter(|(_, kept)| **kept)
            .map(|(q, _)| q[at])
            .collect();
        quantile(&mut of, 1.0 - share)
    });
    for (kept, score) in kept.iter_mut().zip(scores) {
        *kept &= score[0] <= limits[0] && score[1] <= limits[1];
    }
}

/// The smoothed `u` of the kept rows, in time order.
fn training_u(table: &Table, scores: &[[f64; 2]], tails: &[Tail; 2], kept: &[bool]) -> Vec<f64> {
    let mut u = Vec::new();
    let mut state = None;
    for (index, score) in scores.iter().enumerate() {
        if table.restarts(index) || !table.valid[index] {
            state = None;
        }
        if table.valid[index] {
            let now = smoothed(&mut state, fused(tails, score[0], score[1]).0);
            if kept[index] {
                u.push(now);
            }
        }
    }
    u
}

/// Spans to leave out of training.
pub(super) fn labelled(labels: &[Span], time: i64, width: i64) -> bool {
    labels
        .iter()
        .any(|label| label.start <= time && (label.end > time - width || label.end == time))
}
