//! The detector: learns what healthy operation looks like from a plant's own history and says, row by row, how unlikely
//! the present is and which sensors make it so.
//!
//! One closed-form model per asset: standardise, fill missing cells by conditional means, add lag and moving average, then
//! a squared Mahalanobis distance of those features (relations and dynamics) beside a plain sum of squares of the averages
//! (drift), both turned into tail probabilities on out-of-fold training rows. No randomness, no iterations.
//!
//! It guarantees: the same data give the same bits for any number of threads; scoring in windows equals scoring at once;
//! a model file is read back whole or refused. It does not read files or the clock, and it never adapts by itself: a model
//! that follows the plant would learn its wear.
//!
//! All times are UTC microseconds since 1970-01-01T00:00:00Z.

mod calibrate;
mod clean;
pub mod evaluate;
pub mod events;
mod features;
mod file;
mod fit;
mod form;
pub mod guard;
mod intake;
pub mod labels;
mod lanes;
mod matrix;
pub mod metrics;
mod reading;
mod score;
pub mod sensor;
mod store;
mod survey;
pub mod table;

use serde::{Deserialize, Serialize};

pub use crate::signal::timestamp;

pub use file::ModelFileError;
pub use fit::{FitError, Progress, Stage};
pub use guard::Warning;
pub use score::{Reason, Scored, ScoringState};
pub use sensor::{OffCondition, Rows, Sampling, Sensor, Span, WordError};

use calibrate::Tail;
use features::Scaling;
use form::{Form, FormKernel};
use matrix::Symmetric;

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The grid to resample to; none takes rows as they come.
    pub sampling: Option<Sampling>,
    /// When the asset is off. The sensor it names is a switch, not an input: its contribution is always 0.
    pub off: Option<OffCondition>,
    /// Tolerated false events per week: 0.5 is calm, 10 is sensitive.
    pub rate_per_week: f64,
    /// Rows after an off period that still count as off.
    pub grace: usize,
    /// Share of the most unusual training rows to leave out in a second pass, for training ranges that hold unlabelled
    /// faults; 0 to 0.2.
    pub trim: f64,
    /// Threads; none takes what the machine has. The result does not depend on it.
    pub threads: Option<usize>,
}

/// What to train on.
pub struct Training<'a> {
    /// The columns of the rows.
    pub sensors: Vec<Sensor>,
    /// Spans known to be abnormal; nothing is learned from them.
    pub labels: Vec<Span>,
    /// First instant of the training range, if it is bounded.
    pub from: Option<i64>,
    /// Last instant of the training range, if it is bounded.
    pub to: Option<i64>,
    /// Gives the next block of rows in time order, then `None`. Called until then, once.
    pub rows: Box<dyn FnMut() -> anyhow::Result<Option<Rows>> + 'a>,
}

/// A trained detector. Immutable; share it between threads.
#[derive(Clone, Debug)]
pub struct Model {
    learned: Learned,
    kernel: FormKernel,
    fingerprint: [u8; 32],
}

/// Everything a model file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Learned {
    made_by: String,
    sensors: Vec<Sensor>,
    sampling: Option<Sampling>,
    step: i64,
    off: Option<OffCondition>,
    grace: usize,
    rate_per_week: f64,
    trim: f64,
    /// Which sensors the model uses; the vectors below are in this order.
    columns: Vec<usize>,
    scaling: Scaling,
    stuck: Vec<Option<u32>>,
    /// Per sensor, not per used sensor.
    whole: Vec<bool>,
    decimals: Vec<Option<u8>>,
    same_time: Symmetric,
    form: Form,
    tails: [Tail; 2],
    threshold: f64,
    warnings: Vec<Warning>,
    from: i64,
    to: i64,
    rows: usize,
    labels: Vec<Span>,
    weeks: f64,
    training_events: usize,
}

/// Steps before a range that prime the state: the moving averages keep a thousandth of a millionth of what lies further back.
const PRIMING_STEPS: i64 = 300;
/// The longest step between rows that a model may have.
const LONGEST_STEP: i64 = 366 * 86_400 * sensor::SECOND;

impl Learned {
    /// Every part has the size that the others expect of it, so that scoring never looks beyond one.
    fn is_whole(&self) -> bool {
        let (all, used) = (self.sensors.len(), self.columns.len());
        let per_used = [
            self.scaling.mean.len(),
            self.scaling.scale.len(),
            self.stuck.len(),
        ];
        let per_feature = [self.form.mean.len(), self.form.sd.len()];
        used > 0
            && self.columns.iter().all(|column| *column < all)
            && [self.whole.len(), self.decimals.len()] == [all; 2]
            && per_used == [used; 3]
            && per_feature == [3 * used; 2]
            && self.same_time.is_of(used)
            && self.form.precision.is_of(3 * used)
            && (1..=LONGEST_STEP).contains(&self.step)
            && self.threshold > 0.0
    }
}

/// Columns that cannot be scored: a renamed or added sensor is not ignored silently.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model knows no sensor {}; it was trained on other columns: rename them, leave them out, or train again", names(.0))]
pub struct UnknownSensors(pub Vec<Sensor>);

fn names(sensors: &[Sensor]) -> String {
    sensors
        .iter()
        .map(Sensor::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sampling: None,
            off: None,
            rate_per_week: 2.0,
            grace: 12,
            trim: 0.0,
            threads: None,
        }
    }
}

impl Training<'static> {
    /// Training on rows in memory.
    pub fn in_memory(sensors: Vec<Sensor>, rows: Rows, labels: Vec<Span>) -> Self {
        let mut rows = Some(rows);
        Self {
            sensors,
            labels,
            from: None,
            to: None,
            rows: Box::new(move || Ok(rows.take())),
        }
    }
}

impl Model {
    /// Learns a model. `progress` is told what is being done.
    pub fn fit(
        training: Training,
        options: &Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, FitError> {
        fit::fit(training, options, progress)
    }

    /// The model file.
    pub fn encode(&self) -> Vec<u8> {
        file::encode(file::MODEL, &self.learned)
    }

    /// Reads a model file; refuses a damaged, truncated or newer one, and one whose parts do not fit together.
    pub fn decode(bytes: &[u8]) -> Result<Self, ModelFileError> {
        let learned: Learned = file::decode(file::MODEL, bytes)?;
        if !learned.is_whole() {
            return Err(ModelFileError::Content(file::MODEL.name()));
        }
        Ok(Self::with_fingerprint(learned, file::fingerprint(bytes)))
    }

    /// Every sensor of the training data, in its order.
    pub fn sensors(&self) -> &[Sensor] {
        &self.learned.sensors
    }

    /// The sensors the model judges by: all but the off condition's, empty ones and counters.
    pub fn used_sensors(&self) -> impl Iterator<Item = &Sensor> {
        self.learned
            .columns
            .iter()
            .map(|column| &self.learned.sensors[*column])
    }

    /// The grid it was trained on, if it was resampled.
    pub fn sampling(&self) -> Option<Sampling> {
        self.learned.sampling
    }

    /// The step of its rows in microseconds: the sampling rate, or the median interval of training without one.
    pub fn step_us(&self) -> i64 {
        self.learned.step
    }

    /// How long before a range its rows say how the machine came into it: scored from there, the first rows of the range are
    /// judged as if scoring had begun long ago. Nothing that the state holds outlives as many steps but a stuck sensor.
    pub fn priming_us(&self) -> i64 {
        PRIMING_STEPS.saturating_mul(self.learned.step)
    }

    /// About how much memory the decoded model takes: its matrices, which lie there twice, packed for storing and for
    /// multiplying, and its sensors' names.
    pub fn resident_bytes(&self) -> usize {
        let learned = &self.learned;
        let names = learned.sensors.iter();
        let names: usize = names
            .map(|sensor| sensor.component.len() + sensor.signal.len() + size_of::<Sensor>())
            .sum();
        let numbers = learned.same_time.lower.len()
            + learned.form.precision.lower.len()
            + self.kernel.numbers()
            + 8 * learned.columns.len();
        size_of::<Self>() + names + size_of::<f64>() * numbers
    }

    /// When the asset is off.
    pub fn off_condition(&self) -> Option<&OffCondition> {
        self.learned.off.as_ref()
    }

    /// The `u` above which a row is anomalous.
    pub fn threshold(&self) -> f64 {
        self.learned.threshold
    }

    /// Tolerated false events per week.
    pub fn rate_per_week(&self) -> f64 {
        self.learned.rate_per_week
    }

    /// Events that the threshold leaves in the training rows themselves, per week.
    pub fn training_events_per_week(&self) -> f64 {
        self.learned.training_events as f64 / self.learned.weeks.max(1e-9)
    }

    /// Rows learned from.
    pub fn training_rows(&self) -> usize {
        self.learned.rows
    }

    /// First and last row of the training range.
    pub fn training_range(&self) -> Span {
        Span {
            start: self.learned.from,
            end: self.learned.to,
        }
    }

    /// What to know about the training data.
    pub fn warnings(&self) -> &[Warning] {
        &self.learned.warnings
    }

    /// The version of lookoutd that trained it.
    pub fn made_by(&self) -> &str {
        &self.learned.made_by
    }

    /// Where each of the model's sensors is among `columns`; a sensor that is not there is missing, a column that is no
    /// sensor of the model is refused.
    pub fn align(&self, columns: &[Sensor]) -> Result<Vec<Option<usize>>, UnknownSensors> {
        let unknown: Vec<_> = columns
            .iter()
            .filter(|column| !self.learned.sensors.contains(column))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            return Err(UnknownSensors(unknown));
        }
        Ok(self
            .learned
            .sensors
            .iter()
            .map(|sensor| columns.iter().position(|column| column == sensor))
            .collect())
    }

    /// Decimals per sensor in the raw training values.
    fn decimals(&self) -> &[Option<u8>] {
        &self.learned.decimals
    }

    fn from_learned(learned: Learned) -> Self {
        let fingerprint = file::fingerprint(&file::encode(file::MODEL, &learned));
        Self::with_fingerprint(learned, fingerprint)
    }

    fn with_fingerprint(learned: Learned, fingerprint: [u8; 32]) -> Self {
        Self {
            kernel: learned.form.kernel(),
            learned,
            fingerprint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted() -> Model {
        let mut rows = Rows {
            sensors: 2,
            ..Rows::default()
        };
        for row in 0..600_u32 {
            let value = f64::from(row * 7919 % 101);
            rows.push(i64::from(row) * 60 * sensor::SECOND, &[value, value.sqrt()]);
        }
        let sensors = vec![Sensor::new("pump", "a"), Sensor::new("pump", "b")];
        Model::fit(
            Training::in_memory(sensors, rows, Vec::new()),
            &Options::default(),
            &mut |_| {},
        )
        .unwrap()
    }

    /// A file that somebody made, checksum and all, could otherwise ask for any amount of memory.
    #[test]
    fn a_model_file_whose_parts_do_not_fit_together_is_refused() {
        let model = fitted();
        assert!(Model::decode(&model.encode()).is_ok());
        let breaks: [fn(&mut Learned); 6] = [
            |learned| learned.form.precision.order = 1 << 30,
            |learned| learned.columns[0] = 2,
            |learned| learned.scaling.mean.clear(),
            |learned| learned.decimals.clear(),
            |learned| learned.step = 0,
            |learned| learned.threshold = f64::NAN,
        ];
        for (at, spoil) in breaks.into_iter().enumerate() {
            let mut learned = model.learned.clone();
            spoil(&mut learned);
            assert_eq!(
                Model::decode(&file::encode(file::MODEL, &learned)).unwrap_err(),
                ModelFileError::Content("model file"),
                "{at}"
            );
        }
    }
}
