//! The simulated plant: a history whose rows may be missing, come late, or cannot be reached for a while, and a model of it.
//!
//! A sample is a function of its time; whether it is there yet is up to the holes. Everything that the source was ever
//! asked, and what it answered, is kept: a sealed window must hold one of these answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use chrono::{DateTime, TimeDelta, Utc};
use lookoutd::clock::Clock;
use lookoutd::model::{Model, Options, Rows, Sampling, Sensor, Span, Training};
use lookoutd::service::store::NewModel;
use lookoutd::signal::{Column, Frame, RowRule, Values, Window};
use lookoutd::source::{Reading, Source, SourceError};

use tokio::time::Instant;

use crate::rig::{Objects, at, objects_of, tags};

pub const MODEL: &str = "plant-model";
const MINUTE: i64 = 60_000_000;
/// Before any simulated time, for training.
const TRAINED_FROM: &str = "2025-12-29T00:00:00Z";

/// Rows that are not there: from (exclusive) to (inclusive), of one component or all.
#[derive(Clone, Debug)]
pub struct Hole {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub component: Option<usize>,
    /// When the rows come, if ever.
    pub fills: Option<DateTime<Utc>>,
}

/// The history, shared by every source that reads it.
#[derive(Clone)]
pub struct Past {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    holes: Vec<Hole>,
    /// From when on each version of the history holds, UTC microseconds, the oldest first.
    versions: Vec<i64>,
    /// Where it is over, UTC microseconds, and when it is appended to.
    ends: Option<(i64, Instant)>,
    failing: u32,
    broken_until: Option<Instant>,
    /// When it last failed, or was over.
    last_failed: Option<Instant>,
    /// By window start: every different answer, as keys and bytes.
    answers: BTreeMap<i64, Vec<Objects>>,
}

/// A source that reads it.
pub struct Reader(pub Past);

impl Past {
    pub fn new(clock: Clock) -> Past {
        Past {
            clock,
            state: Arc::default(),
        }
    }

    pub fn dig(&self, hole: Hole) {
        self.lock().holes.push(hole);
    }

    /// The next `reads` fail.
    pub fn fail(&self, reads: u32) {
        self.lock().failing = reads;
    }

    /// It is another one from `from` on.
    pub fn rewrite(&self, from: DateTime<Utc>) {
        let mut state = self.lock();
        let from = from.timestamp_micros();
        state.versions.retain(|version| *version < from);
        state.versions.push(from);
    }

    /// It is over at `at` until it is appended to.
    pub fn end(&self, at: DateTime<Utc>, appended: Instant) {
        self.lock().ends = Some((at.timestamp_micros(), appended));
    }

    /// It cannot be read.
    pub fn break_until(&self, mended: Instant) {
        self.lock().broken_until = Some(mended);
    }

    /// It can be read, and is not over.
    pub fn heal(&self) {
        let mut state = self.lock();
        (state.failing, state.broken_until, state.ends) = (0, None, None);
    }

    pub fn is_failing(&self) -> bool {
        let state = self.lock();
        let now = Instant::now();
        state.failing > 0
            || state.broken_until.is_some_and(|mended| now < mended)
            || state.ends.is_some_and(|(_, appended)| now < appended)
    }

    pub fn last_failed(&self) -> Option<Instant> {
        self.lock().last_failed
    }

    /// What was answered for a window, the latest last.
    pub fn answers(&self, start: i64) -> Vec<Objects> {
        self.lock().answers.get(&start).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Source for Reader {
    fn read(&mut self, window: &Window, rows: RowRule) -> Result<Reading, SourceError> {
        let now = self.0.clock.now();
        let mut state = self.0.lock();
        let broken = state
            .broken_until
            .is_some_and(|mended| Instant::now() < mended);
        if broken || state.failing > 0 {
            state.failing = state.failing.saturating_sub(1);
            state.last_failed = Some(Instant::now());
            return Err(SourceError::Unavailable {
                name: "history".into(),
                source: "by the simulation".into(),
            });
        }
        if let Some((end, appended)) = state.ends
            && Instant::now() < appended
            && window.start().timestamp_micros() >= end
        {
            state.last_failed = Some(Instant::now());
            return Ok(Reading {
                ended: true,
                ..Reading::default()
            });
        }
        // What has come stays, whatever the clock does then.
        state
            .holes
            .retain(|hole| hole.fills.is_none_or(|fills| fills > now));
        let (first, last) = rows.bounds(window);
        let mut frames = Vec::new();
        for (index, component) in tags().components.into_iter().enumerate() {
            let is_there = |time: &i64| {
                !state.holes.iter().any(|hole| {
                    hole.component.is_none_or(|of| of == index)
                        && hole.from.timestamp_micros() < *time
                        && *time <= hole.to.timestamp_micros()
                })
            };
            let times: Vec<i64> = (first.div_euclid(MINUTE)..=last.div_euclid(MINUTE))
                .map(|minute| minute * MINUTE)
                .filter(|time| (first..=last).contains(time) && is_there(time))
                .collect();
            let columns = component.signals.iter().map(|signal| Column {
                name: signal.clone(),
                values: Values::F64(
                    times
                        .iter()
                        .map(|time| {
                            let version = state.versions.partition_point(|from| from < time);
                            sample(signal, *time) + version as f64 / 1_024.0
                        })
                        .collect(),
                ),
            });
            frames.push(Frame {
                columns: columns.collect(),
                component: component.name,
                times,
            });
        }
        let objects = objects_of(&frames, window);
        let answers = state.answers.entry(window.start().timestamp()).or_default();
        if answers.last() != Some(&objects) {
            answers.push(objects);
        }
        Ok(Reading {
            frames,
            expected_rows: Some(window.cadence().minutes() as usize),
            duplicates: 0,
            infinite: 0,
            words: 0,
            bad: 0,
            position: None,
            ended: false,
        })
    }
}

/// Four related sensors with a little noise, each a function of time.
fn sample(signal: &str, time: i64) -> f64 {
    let minute = time.div_euclid(MINUTE);
    let noise = |seed: i64| {
        let mixed = (minute.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503))
            .wrapping_mul(2_246_822_519);
        ((mixed >> 8) & 0xffff) as f64 / 65_535.0 - 0.5
    };
    let load = (minute as f64 / 240.0).sin();
    match signal {
        "pressure" => 10.0 + 2.0 * load + 0.2 * noise(1),
        "flow" => 50.0 + 8.0 * load + 0.8 * noise(2),
        "speed" => 1500.0 + 30.0 * load + 3.0 * noise(3),
        _ => 40.0 + 3.0 * load + 0.3 * noise(4),
    }
}

/// The model of the plant, trained once per test binary.
pub fn model() -> NewModel {
    static FILE: OnceLock<(Vec<u8>, Span)> = OnceLock::new();
    let components = tags().components;
    let sensors: Vec<Sensor> = components
        .iter()
        .flat_map(|component| {
            let signals = component.signals.iter();
            signals.map(|signal| Sensor::new(&component.name, signal))
        })
        .collect();
    let (file, trained) = FILE.get_or_init(|| {
        let mut rows = Rows {
            sensors: sensors.len(),
            ..Rows::default()
        };
        for minute in 0..2 * 24 * 60 {
            let time = (at(TRAINED_FROM) + TimeDelta::minutes(minute)).timestamp_micros();
            let values: Vec<f64> = sensors
                .iter()
                .map(|sensor| sample(&sensor.signal, time))
                .collect();
            rows.push(time, &values);
        }
        let options = Options {
            sampling: Some(Sampling::Pt1m),
            ..Options::default()
        };
        let training = Training::in_memory(sensors.clone(), rows, Vec::new());
        let model = Model::fit(training, &options, &mut |_| {}).expect("a model");
        (model.encode(), model.training_range())
    });
    NewModel {
        name: MODEL.into(),
        components: components
            .into_iter()
            .map(|component| (component.name, component.signals))
            .collect(),
        sampling_us: Some(MINUTE),
        trained: *trained,
        file: file.clone(),
        region: "us-east-1".into(),
        account: "000000000000".into(),
    }
}
