//! Learning a model from history: one pass over the rows, then passes over the table they became.
//!
//! The order is fixed: read, resample, gate; select and scale sensors; same-time precision; fill; features and their
//! moments per fold; out-of-fold scores; tails; threshold. Folds are interleaved blocks of at least 60 rows: contiguous
//! folds would call a season abnormal, in-sample scores would call everything normal. Sums are taken per lane and added in
//! lane order, so the model is the same bits for any number of threads. No randomness, no iteration to convergence.

use super::calibrate::{self, Tail, quantile};
use super::clean::{Cleaned, FOLDS, UNIT_ROWS, Unit, clean, scale, select};
use super::form::{Batch, Form, FormKernel};
use super::guard::Warning;
use super::lanes;
use super::matrix::{Moments, NotInvertible};
use super::reading;
use super::score::{fused, smoothed};
use super::{Learned, Model, Options, Sensor, Span};

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

impl Stage {
    /// What people are told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Cleaning => "scaling and filling",
            Self::Learning => "learning relations",
            Self::Calibrating => "calibrating",
        }
    }
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

/// What one pass over the features gives: the model's form and the moments the fold models are made of.
struct Pass {
    form: Form,
    total: Moments,
    folds: Vec<Moments>,
}

fn learn(table: &Cleaned, units: &[Unit], width: usize, kept: &[bool]) -> Result<Pass, FitError> {
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
    fn out_of_fold(&self, table: &Cleaned, units: &[Unit]) -> Result<Vec<[f64; 2]>, FitError> {
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
fn training_u(table: &Cleaned, scores: &[[f64; 2]], tails: &[Tail; 2], kept: &[bool]) -> Vec<f64> {
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
