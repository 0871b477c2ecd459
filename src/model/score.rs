//! Scoring: raw rows in, one verdict per row out, with a state that can be stored between windows.
//!
//! Scoring a series in windows, storing and loading the state between them, gives the same bits as scoring it at once:
//! every number of a row is computed from that row and the state, never from the rows it shares a batch with.

use serde::{Deserialize, Serialize};

use super::calibrate::Tail;
use super::features::{CLIP, Filler, Recursion};
use super::form::Batch;
use super::intake::{Intake, IntakeRules};
use super::{Model, Rows, Sensor, file};

/// `q2` must be this much less likely than `q1` to decide.
const Q2_HANDICAP: f64 = 0.6;
/// Weight of the newest row in the smoothing of `u`.
const SMOOTHING: f64 = 0.25;
/// Rows multiplied at once.
const BATCH_ROWS: usize = 256;

/// Everything scoring remembers between rows. Belongs to one model and one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoringState {
    model: [u8; 32],
    intake: Intake,
    recursion: Recursion,
    smoothed: Option<f64>,
    last_values: Vec<f64>,
    runs: Vec<u32>,
    last_row: Option<i64>,
    scored_to: Option<i64>,
    expects_past: bool,
}

/// The verdict on one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// UTC microseconds: the right end of the sampling bin, or the row's own time without a sampling rate.
    pub time: i64,
    /// Smoothed -log10 tail probability; 0 where not scored.
    pub u: f64,
    /// `r^2 / (1 + r^2)` with `r = u / threshold`: 0.5 at the threshold. Not rounded.
    pub anomaly_score: f64,
    /// `u` is above the threshold.
    pub prediction: bool,
    /// Why.
    pub reason: Reason,
    /// Share of each of the model's sensors in what is odd about the row, summing to 1; empty where not scored.
    pub contributions: Vec<f64>,
}

/// Why a row got its prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `u` is above the threshold.
    AnomalyDetected,
    /// It is not, or the row holds no value at all.
    NoAnomalyDetected,
    /// The off condition holds, or held less than the grace ago.
    MachineOff,
}

/// What is known about a row before the batch is multiplied.
enum Kind {
    Off,
    Empty,
    /// First row after a gap, or not; and which of the used sensors are missing.
    Live {
        restart: bool,
        missing: Vec<usize>,
    },
}

impl ScoringState {
    /// The state as bytes, checksummed.
    pub fn encode(&self) -> Vec<u8> {
        file::encode(file::STATE, self)
    }

    /// Reads a state back; refuses anything but the bytes that `encode` gave.
    pub fn decode(bytes: &[u8]) -> Result<Self, file::ModelFileError> {
        file::decode(file::STATE, bytes)
    }

    /// The end of the last window scored, UTC microseconds.
    pub fn scored_to(&self) -> Option<i64> {
        self.scored_to
    }
}

impl Reason {
    /// The word of the results file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AnomalyDetected => "ANOMALY_DETECTED",
            Self::NoAnomalyDetected => "NO_ANOMALY_DETECTED",
            Self::MachineOff => "MACHINE_OFF",
        }
    }
}

/// The raw `u` of a row, and whether `q1` decided it.
pub(super) fn fused(tails: &[Tail; 2], q1: f64, q2: f64) -> (f64, bool) {
    let (u1, u2) = (tails[0].u(q1), tails[1].u(q2));
    (u1.max((u2 - Q2_HANDICAP).max(0.0)), u1 >= u2 - Q2_HANDICAP)
}

/// The next value of the smoothed `u`.
pub(super) fn smoothed(state: &mut Option<f64>, raw: f64) -> f64 {
    let next = SMOOTHING * raw + (1.0 - SMOOTHING) * state.unwrap_or(raw);
    *state = Some(next);
    next
}

impl Model {
    /// A state as before the first row of a recorded series: the row before the first is taken as equal to it, as in the
    /// specification and in training.
    pub fn fresh_state(&self) -> ScoringState {
        let used = self.learned.columns.len();
        ScoringState {
            model: self.fingerprint,
            intake: Intake::default(),
            recursion: Recursion::new(used),
            smoothed: None,
            last_values: vec![f64::NAN; used],
            runs: vec![0; used],
            last_row: None,
            scored_to: None,
            expects_past: false,
        }
    }

    /// A state for a machine that is already running when scoring begins: the past of a first row is what is expected given
    /// that row. A past equal to the row is one that no training row has, and would raise an alarm at every start.
    pub fn live_state(&self) -> ScoringState {
        ScoringState {
            expects_past: true,
            ..self.fresh_state()
        }
    }

    /// Scores the raw rows with `start_us < time <= end_us`, columns in `sensors()` order, and moves the state to `end_us`.
    ///
    /// With a sampling rate there is one line per bin that ends in the window and has a row (or follows one that has);
    /// without, one line per raw row. Where windows before were left out, what the state still holds of theirs shapes it
    /// and gives no line: every line has `start_us < time <= end_us`. A state of another model, or one that is already
    /// past `start_us`, is started anew.
    pub fn score(
        &self,
        state: &mut ScoringState,
        raw: &Rows,
        start_us: i64,
        end_us: i64,
    ) -> Vec<Scored> {
        debug_assert_eq!(raw.sensors, self.learned.sensors.len());
        if !self.owns(state) || state.scored_to.is_some_and(|to| to > start_us) {
            let expects_past = state.expects_past;
            *state = self.fresh_state();
            state.expects_past = expects_past;
        }
        let learned = &self.learned;
        let rules = IntakeRules {
            sampling: learned.sampling,
            off: learned
                .off
                .as_ref()
                .and_then(|off| Some((self.column(&off.sensor)?, off))),
            grace: learned.grace,
        };
        let mut intake = std::mem::take(&mut state.intake);
        let mut pass = Pass {
            model: self,
            state,
            filler: Filler::new(&learned.same_time),
            z: vec![0.0; learned.columns.len()],
            features: vec![0.0; 3 * learned.columns.len()],
            batch: Batch::default(),
            waiting: Vec::new(),
            done: Vec::new(),
        };
        for (index, &time) in raw.times.iter().enumerate() {
            if start_us < time && time <= end_us {
                intake.push(&rules, &learned.whole, time, raw.row(index), &mut |row| {
                    pass.take(row.time, row.values, row.off);
                });
            }
        }
        intake.flush(&rules, &learned.whole, end_us, &mut |row| {
            pass.take(row.time, row.values, row.off)
        });
        let mut done = pass.finish();
        done.retain(|line| line.time > start_us);
        state.intake = intake;
        state.scored_to = Some(end_us);
        done
    }

    /// The sensors that have shown the same value for implausibly long and are treated as missing.
    pub fn stuck_sensors(&self, state: &ScoringState) -> Vec<&Sensor> {
        let stuck = state
            .runs
            .iter()
            .zip(&self.learned.stuck)
            .map(|(run, limit)| limit.is_some_and(|limit| *run > limit));
        let columns = self
            .learned
            .columns
            .iter()
            .zip(stuck)
            .filter(|(_, stuck)| *stuck);
        columns
            .map(|(column, _)| &self.learned.sensors[*column])
            .collect()
    }

    /// The state is one of this model's.
    fn owns(&self, state: &ScoringState) -> bool {
        let used = self.learned.columns.len();
        state.model == self.fingerprint
            && state.recursion.is_of(used)
            && state.intake.is_of(self.learned.sensors.len())
            && [state.runs.len(), state.last_values.len()] == [used; 2]
    }

    fn column(&self, sensor: &Sensor) -> Option<usize> {
        self.learned
            .sensors
            .iter()
            .position(|known| known == sensor)
    }
}

struct Pass<'a> {
    model: &'a Model,
    state: &'a mut ScoringState,
    filler: Filler<'a>,
    z: Vec<f64>,
    features: Vec<f64>,
    batch: Batch,
    waiting: Vec<(i64, Kind)>,
    done: Vec<Scored>,
}

impl Pass<'_> {
    /// Takes the next row on the grid.
    fn take(&mut self, time: i64, values: &[f64], off: bool) {
        let step = self.model.learned.step;
        let restart = self
            .state
            .last_row
            .is_none_or(|last| time - last > step + step / 2);
        if restart {
            self.forget();
        }
        self.state.last_row = Some(time);
        let kind = if off {
            self.forget();
            Kind::Off
        } else if let Some(missing) = self.clean(values) {
            if self.state.recursion.is_live() || !self.state.expects_past {
                self.state.recursion.next(&self.z, &mut self.features);
            } else {
                self.begin();
            }
            self.batch.push(&self.model.kernel, &self.features);
            Kind::Live { restart, missing }
        } else {
            self.state.recursion.reset();
            Kind::Empty
        };
        self.waiting.push((time, kind));
        if self.waiting.len() >= BATCH_ROWS {
            self.settle();
        }
    }

    /// The features of the first row of a running machine: the row before and the average are not known, so they are what is
    /// expected given the row.
    fn begin(&mut self) {
        let form = &self.model.learned.form;
        let known = self.z.len();
        self.features.fill(f64::NAN);
        for (at, z) in self.z.iter().enumerate() {
            self.features[at] = ((z - form.mean[at]) / form.sd[at]).clamp(-CLIP, CLIP);
        }
        Filler::new(&form.precision).fill(&mut self.features);
        for (at, value) in self.features.iter_mut().enumerate() {
            *value = *value * form.sd[at] + form.mean[at];
        }
        self.features[..known].copy_from_slice(&self.z);
        self.state.recursion.begin(&self.features);
    }

    /// Standardises and fills a row into `z` and returns the missing columns; none where the row holds nothing.
    fn clean(&mut self, values: &[f64]) -> Option<Vec<usize>> {
        let learned = &self.model.learned;
        let mut missing = Vec::new();
        for (at, column) in learned.columns.iter().enumerate() {
            let value = values[*column];
            let run = &mut self.state.runs[at];
            *run = match value {
                _ if value.is_nan() => 0,
                _ if value == self.state.last_values[at] => run.saturating_add(1),
                _ => 1,
            };
            self.state.last_values[at] = value;
            let stuck = learned.stuck[at].is_some_and(|limit| *run > limit);
            self.z[at] = if stuck {
                f64::NAN
            } else {
                learned.scaling.apply(at, value)
            };
            if self.z[at].is_nan() {
                missing.push(at);
            }
        }
        self.filler.fill(&mut self.z).then_some(missing)
    }

    /// A break in the series: nothing carries over it.
    fn forget(&mut self) {
        self.state.recursion.reset();
        self.state.runs.fill(0);
        self.state.last_values.fill(f64::NAN);
    }

    /// Turns the waiting rows into verdicts.
    fn settle(&mut self) {
        let (model, learned) = (self.model, &self.model.learned);
        self.batch.multiply(&model.kernel);
        let mut index = 0;
        let mut shares = vec![0.0; learned.columns.len()];
        for (time, kind) in self.waiting.drain(..) {
            let mut row = Scored {
                time,
                u: 0.0,
                anomaly_score: 0.0,
                prediction: false,
                reason: Reason::NoAnomalyDetected,
                contributions: Vec::new(),
            };
            match kind {
                Kind::Off => {
                    self.state.smoothed = None;
                    row.reason = Reason::MachineOff;
                }
                Kind::Empty => self.state.smoothed = None,
                Kind::Live { restart, missing } => {
                    if restart {
                        self.state.smoothed = None;
                    }
                    let (q1, q2) = model.kernel.scores(&self.batch, index);
                    let (raw, by_q1) = fused(&learned.tails, q1, q2);
                    row.u = smoothed(&mut self.state.smoothed, raw);
                    let ratio = row.u / learned.threshold;
                    row.anomaly_score = ratio * ratio / (1.0 + ratio * ratio);
                    row.prediction = row.u > learned.threshold;
                    if row.prediction {
                        row.reason = Reason::AnomalyDetected;
                    }
                    model
                        .kernel
                        .contributions(&self.batch, index, by_q1, &mut shares);
                    missing.iter().for_each(|at| shares[*at] = 0.0);
                    let total: f64 = shares.iter().sum();
                    row.contributions = vec![0.0; learned.sensors.len()];
                    for (column, share) in learned.columns.iter().zip(&shares) {
                        row.contributions[*column] = share / total.max(1e-12);
                    }
                    index += 1;
                }
            }
            self.done.push(row);
        }
        self.batch.clear();
    }

    fn finish(mut self) -> Vec<Scored> {
        self.settle();
        self.done
    }
}
