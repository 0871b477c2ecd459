//! What an operator should know about the data a model was trained on or is asked to judge.
//!
//! Warnings never stop anything; each names the sensor, the number and the remedy. Those of training are kept in the model.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Model;
use super::reading::observe_decimals;
use super::sensor::{Rows, Sensor};
use super::survey::{Direction, FULL_RESOLUTION};

/// Something about the data that costs accuracy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Warning {
    /// Fewer training rows or days than the method wants.
    ShortTraining {
        /// Rows learned from.
        rows: usize,
        /// Rows wanted: 60 per feature.
        wanted: usize,
        /// Days those rows are.
        days: f64,
    },
    /// Fewer than 10 % of the training rows have a value; the sensor is left out.
    MostlyMissing {
        /// The sensor.
        sensor: Sensor,
        /// Share of rows without a value.
        share: f64,
    },
    /// One value throughout training; the sensor stays in, and any change of it will count.
    Constant {
        /// The sensor.
        sensor: Sensor,
        /// Its value.
        value: f64,
    },
    /// Only ever rises or only ever falls, like a running-hours counter; the sensor is left out.
    Counter {
        /// The sensor.
        sensor: Sensor,
        /// Which way.
        direction: Direction,
    },
    /// Between 2 and 10 distinct values; the sensor stays in.
    Categorical {
        /// The sensor.
        sensor: Sensor,
        /// Distinct values.
        values: usize,
    },
    /// The data to judge are rounded differently from the training data.
    Resolution {
        /// The sensor.
        sensor: Sensor,
        /// Decimals in training.
        training: u8,
        /// Decimals in the data to judge.
        inference: u8,
    },
    /// So much of the unlabelled evaluation range is anomalous that the plant runs differently than in training.
    RegimeChange {
        /// Share of unlabelled rows predicted anomalous.
        share: f64,
    },
    /// Sensors of the model that the data to judge do not have; each row is scored without them.
    AbsentSensors(Vec<Sensor>),
}

/// Changes of a sensor that must be seen before its resolution says anything.
const ENOUGH_CHANGES: u32 = 10;

/// Watches data to judge for a resolution that differs from that of training by at least two decimals, over any number
/// of blocks of rows; each sensor is named once.
#[derive(Clone, Debug, Default)]
pub struct ResolutionWatch {
    seen: Vec<Option<u8>>,
    changes: Vec<u32>,
    last: Vec<f64>,
    named: Vec<bool>,
}

impl ResolutionWatch {
    /// Takes the next rows, raw and in the model's order; returns what is new.
    pub fn observe(&mut self, model: &Model, rows: &Rows) -> Vec<Warning> {
        self.seen.resize(rows.sensors, None);
        self.changes.resize(rows.sensors, 0);
        self.last.resize(rows.sensors, f64::NAN);
        self.named.resize(rows.sensors, false);
        for row in 0..rows.len() {
            let values = rows.row(row);
            observe_decimals(&mut self.seen, values);
            for ((changes, last), value) in self
                .changes
                .iter_mut()
                .zip(&mut self.last)
                .zip(values)
                .filter(|(_, value)| !value.is_nan())
            {
                *changes = changes.saturating_add(u32::from(value != last));
                *last = *value;
            }
        }
        let mut warnings = Vec::new();
        for (column, sensor) in model.sensors().iter().enumerate() {
            if let (Some(training), Some(inference)) = (model.decimals()[column], self.seen[column])
                && training.abs_diff(inference) >= 2
                && self.changes[column] >= ENOUGH_CHANGES
                && !std::mem::replace(&mut self.named[column], true)
            {
                warnings.push(Warning::Resolution {
                    sensor: sensor.clone(),
                    training,
                    inference,
                });
            }
        }
        warnings
    }
}

/// [`ResolutionWatch`] over one block of rows.
pub fn resolution(model: &Model, rows: &Rows) -> Vec<Warning> {
    ResolutionWatch::default().observe(model, rows)
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortTraining { rows, wanted, days } => write!(
                f,
                "short training: {rows} rows over {days:.1} days, while {wanted} rows and 14 days are wanted; thresholds are uncertain, train on a longer range"
            ),
            Self::MostlyMissing { sensor, share } => write!(
                f,
                "{sensor} has no value in {:.1} % of the training rows and is left out; check its tag, or train on a range where it reports",
                share * 100.0
            ),
            Self::Constant { sensor, value } => write!(
                f,
                "{sensor} is constant at {value} in training; any change of it will count as anomalous, remove it if it is a setting"
            ),
            Self::Counter { sensor, direction } => write!(
                f,
                "{sensor} only {} and is left out; feed its rate of change instead if it matters",
                match direction {
                    Direction::Rising => "rises",
                    Direction::Falling => "falls",
                }
            ),
            Self::Categorical { sensor, values } => {
                write!(
                    f,
                    "{sensor} takes only {values} distinct values; it stays in, remove it if it is a mode or a code"
                )
            }
            Self::Resolution {
                sensor,
                training,
                inference,
            } => {
                let decimals = |count: &u8| match *count {
                    FULL_RESOLUTION => "full resolution".to_owned(),
                    count => format!("{count} decimals"),
                };
                write!(
                    f,
                    "{sensor} has {} in training and {} now; rounding looks like noise the model never saw, use one resolution for both",
                    decimals(training),
                    decimals(inference)
                )
            }
            Self::RegimeChange { share } => write!(
                f,
                "{:.0} % of the unlabelled rows are anomalous: the plant runs in a way training never saw; retrain on a range that holds it",
                share * 100.0
            ),
            Self::AbsentSensors(sensors) => {
                let names: Vec<_> = sensors.iter().map(Sensor::to_string).collect();
                write!(
                    f,
                    "no column for {}; every row is scored without {}",
                    names.join(", "),
                    if names.len() == 1 { "it" } else { "them" }
                )
            }
        }
    }
}
