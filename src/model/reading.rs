//! The one pass over the training rows: resample, gate, mark, survey, store.
//!
//! Rows outside the training range are skipped. Off rows become empty rows. Rows under a label stay in the sequence, so that
//! moving averages run through, but nothing is learned from them.

use super::fit::{FitError, Progress, Stage, labelled};
use super::intake::{Intake, IntakeRules};
use super::sensor::{SECOND, Span};
use super::store::{EXACT_CELLS, Store};
use super::survey::{Survey, decimals};
use super::{Options, Training};

/// Raw rows whose decimals are looked at: the first ones, and then one in so many.
const DECIMALS_FIRST: usize = 2000;
const DECIMALS_EVERY: usize = 61;

/// The training range as a table.
pub(super) struct History {
    /// The inputs' values: every sensor but the off condition's, NaN where missing or off.
    pub store: Store,
    /// Row times, UTC microseconds.
    pub times: Vec<i64>,
    /// Rows to learn from: running, not labelled, not empty.
    pub kept: Vec<bool>,
    /// What the kept rows say about each input.
    pub surveys: Vec<Survey>,
    /// Which sensor each input is.
    pub inputs: Vec<usize>,
    /// Per sensor: only whole numbers were seen.
    pub whole: Vec<bool>,
    /// Per sensor: decimals of the raw values.
    pub decimals: Vec<Option<u8>>,
    /// The grid's step, or the median interval without one; microseconds.
    pub step: i64,
    /// Labels that overlap the range.
    pub labels: Vec<Span>,
}

impl History {
    /// Number of rows to learn from.
    pub fn kept_rows(&self) -> usize {
        self.kept.iter().filter(|kept| **kept).count()
    }

    fn push(&mut self, time: i64, values: &[f64], off: bool, labelled: bool, row: &mut Vec<f64>) {
        row.clear();
        row.extend(
            self.inputs
                .iter()
                .map(|input| if off { f64::NAN } else { values[*input] }),
        );
        let kept = !labelled && row.iter().any(|value| !value.is_nan());
        if kept {
            for (survey, value) in self.surveys.iter_mut().zip(&*row) {
                survey.push(*value);
            }
        }
        self.store.push(row);
        self.times.push(time);
        self.kept.push(kept);
    }
}

pub(super) fn read(
    mut training: Training,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<History, FitError> {
    let count = training.sensors.len();
    let off = match &options.off {
        None => None,
        Some(condition) => match training
            .sensors
            .iter()
            .position(|sensor| *sensor == condition.sensor)
        {
            Some(column) => Some((column, condition)),
            None => return Err(FitError::OffSensorUnknown(condition.sensor.clone())),
        },
    };
    let rules = IntakeRules {
        sampling: options.sampling,
        off,
        grace: options.grace,
    };
    let inputs: Vec<usize> = (0..count)
        .filter(|column| Some(*column) != off.map(|(column, _)| column))
        .collect();
    let mut history = History {
        store: Store::new(inputs.len(), EXACT_CELLS),
        times: Vec::new(),
        kept: Vec::new(),
        surveys: vec![Survey::new(); inputs.len()],
        inputs,
        whole: vec![true; count],
        decimals: vec![None; count],
        step: options.sampling.map_or(0, |sampling| sampling.micros()),
        labels: Vec::new(),
    };
    // A row on the grid covers the whole bin before it, a raw row only its instant.
    let cover = history.step;
    let labels = training.labels.clone();
    let mut intake = Intake::default();
    let mut row = Vec::new();
    let (mut seen, mut latest) = (0, i64::MIN);
    while let Some(block) = (training.rows)().map_err(FitError::Source)? {
        if block.sensors != count || block.values.len() != block.times.len() * count {
            return Err(FitError::Ragged {
                expected: count,
                found: block.sensors,
            });
        }
        for (index, &time) in block.times.iter().enumerate() {
            if training.from.is_some_and(|from| time < from)
                || training.to.is_some_and(|to| time > to)
            {
                continue;
            }
            if seen > 0 && time <= latest {
                return Err(FitError::Unsorted {
                    earlier: latest,
                    later: time,
                });
            }
            latest = time;
            let values = block.row(index);
            let look = seen < DECIMALS_FIRST || seen % DECIMALS_EVERY == 0;
            observe(&mut history, values, look);
            let whole = history.whole.clone();
            intake.push(&rules, &whole, time, values, &mut |grid| {
                let labelled = labelled(&labels, grid.time, cover);
                history.push(grid.time, grid.values, grid.off, labelled, &mut row);
            });
            seen += 1;
        }
        progress(Progress {
            stage: Stage::Reading,
            rows: seen,
            total: None,
        });
    }
    let whole = history.whole.clone();
    intake.finish(&rules, &whole, &mut |grid| {
        let labelled = labelled(&labels, grid.time, cover);
        history.push(grid.time, grid.values, grid.off, labelled, &mut row);
    });
    if options.sampling.is_none() {
        history.step = median_interval(&history.times);
    }
    if let (Some(first), Some(last)) = (history.times.first(), history.times.last()) {
        history.labels = labels
            .into_iter()
            .filter(|label| label.overlaps(*first, *last))
            .collect();
    }
    Ok(history)
}

fn observe(history: &mut History, values: &[f64], look_at_decimals: bool) {
    for (whole, value) in history.whole.iter_mut().zip(values) {
        *whole &= value.is_nan() || value.fract() == 0.0;
    }
    if look_at_decimals {
        observe_decimals(&mut history.decimals, values);
    }
}

/// Raises the decimals seen per sensor by those of one raw row.
pub(super) fn observe_decimals(seen: &mut [Option<u8>], values: &[f64]) {
    for (seen, value) in seen
        .iter_mut()
        .zip(values)
        .filter(|(_, value)| value.is_finite())
    {
        *seen = (*seen).max(Some(decimals(*value)));
    }
}

fn median_interval(times: &[i64]) -> i64 {
    let mut intervals: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let middle = intervals.len() / 2;
    if intervals.is_empty() {
        60 * SECOND
    } else {
        *intervals.select_nth_unstable(middle).1
    }
}
