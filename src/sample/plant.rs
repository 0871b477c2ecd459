//! The plant: its signals, units and components, its calendar of stops and faults, and how each signal answers to the
//! machine's state.
//!
//! Guarantees: counts, units, names and order are those of the expander data set's tag list (122 signals in 24
//! components); coefficients depend only on the signal's number, so every seed and length describes the same machine.
//! Deliberately different from the recorded machine: after the trip of November it is repaired and runs as before, and
//! isolated spikes are small, so that its healthy part is healthy to any sound detector.

use super::noise::{hash, signed, unit};

use Unit::*;

/// A unit of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    MicraPp,
    Millimetre,
    Vdc,
    Percent,
    Celsius,
    Rpm,
    MmH2o,
    KgCm2,
    KgCm2g,
    MmSRms,
    KNm3D,
    Megawatt,
    Blank,
}

/// Runs of signals in tag order: how many, in which component, in which unit.
#[rustfmt::skip]
const RUNS: [(usize, u8, Unit); 73] = [
    (4, 5, MicraPp), (4, 8, MicraPp), (4, 6, MicraPp), (3, 7, MicraPp), (1, 9, MicraPp), (1, 7, MicraPp),
    (2, 4, MicraPp), (2, 3, MicraPp), (4, 2, MicraPp), (4, 1, MicraPp), (1, 4, MicraPp), (3, 9, MicraPp),
    (2, 4, Millimetre), (2, 3, Millimetre), (2, 2, Millimetre), (2, 1, Millimetre), (2, 11, Vdc), (2, 9, Vdc),
    (2, 5, Vdc), (2, 8, Vdc), (1, 6, Vdc), (4, 11, MicraPp), (2, 1, Vdc), (1, 2, Vdc), (1, 3, Vdc), (2, 4, Vdc),
    (2, 7, Vdc), (1, 6, Vdc), (1, 2, Vdc), (1, 12, Percent), (1, 4, MicraPp), (1, 19, Celsius), (3, 1, Celsius),
    (1, 10, Rpm), (1, 4, Rpm), (1, 3, Rpm), (1, 2, Rpm), (1, 1, Rpm), (1, 20, MmH2o), (1, 5, KgCm2), (1, 8, KgCm2g),
    (1, 4, KgCm2g), (1, 13, Percent), (1, 5, MmSRms), (1, 7, MmSRms), (1, 24, KgCm2g), (1, 21, KgCm2g),
    (1, 2, KNm3D), (2, 1, MmH2o), (1, 2, Celsius), (1, 15, Blank), (1, 16, Blank), (1, 13, Percent),
    (1, 1, Megawatt), (1, 2, Celsius), (1, 14, Blank), (1, 3, Celsius), (1, 2, Celsius), (1, 22, Celsius),
    (1, 23, Celsius), (1, 18, Celsius), (3, 11, Celsius), (3, 9, Celsius), (2, 5, Celsius), (1, 17, Celsius),
    (1, 8, Celsius), (1, 3, Celsius), (3, 4, Celsius), (2, 7, Celsius), (1, 3, Celsius), (3, 6, Celsius),
    (2, 8, Celsius), (1, 7, Celsius),
];

/// The components that can carry the evaluation fault; the first that a shortened tag list still has is taken.
const FAULT_COMPONENTS: [u8; 2] = [7, 5];

/// A minute of 2015, counted from 1970-01-01T00:00Z.
pub(super) const fn at(month: usize, day: i64, hour: i64, minute: i64) -> i64 {
    const DAYS_BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    const FIRST_DAY: i64 = 16_436;
    ((FIRST_DAY + DAYS_BEFORE[month - 1] + day - 1) * 24 + hour) * 60 + minute
}

/// The minute after the last recorded one.
pub(super) const END: i64 = at(12, 1, 0, 0);

/// The labelled spans, first and last minute.
pub(super) const LABELS: [(i64, i64); 5] = [
    (at(1, 10, 10, 0), at(1, 10, 20, 0)),
    (at(1, 15, 13, 0), at(1, 16, 15, 0)),
    (at(3, 5, 10, 0), at(3, 27, 0, 0)),
    (at(3, 29, 10, 0), at(3, 29, 19, 0)),
    (FAULT_START, FAULT_END),
];

/// When the evaluation fault is labelled, and the drift that announces it.
pub(super) const FAULT_START: i64 = at(11, 11, 18, 0);
pub(super) const FAULT_END: i64 = at(11, 13, 12, 0);
pub(super) const DRIFT_START: i64 = at(11, 8, 0, 0);

/// When the machine stands still.
pub(super) const STOPS: [(i64, i64); 2] = [
    (at(3, 5, 10, 10), at(3, 26, 12, 0)),
    (at(11, 13, 2, 0), at(11, 13, 5, 30)),
];

/// Minutes that were never recorded: 74 in all.
const MISSING: [(i64, i64); 5] = [
    (at(2, 11, 3, 20), 17),
    (at(6, 23, 14, 2), 31),
    (at(9, 17, 8, 11), 6),
    (at(10, 3, 2, 30), 19),
    (at(11, 20, 12, 7), 1),
];

/// When signal-028's transmitter was out.
const SENSOR_GAP: (usize, i64, i64) = (28, at(3, 22, 6, 0), at(3, 26, 9, 0));

/// A fault in one component: it grows for `growth` minutes, and is gone at `to`.
struct Fault {
    component: u8,
    from: i64,
    to: i64,
    growth: i64,
}

const FAULTS: [Fault; 3] = [
    Fault {
        component: 2,
        from: LABELS[0].0,
        to: LABELS[0].1,
        growth: 60,
    },
    Fault {
        component: 3,
        from: LABELS[1].0,
        to: LABELS[1].1,
        growth: 120,
    },
    Fault {
        component: 8,
        from: LABELS[3].0,
        to: LABELS[3].1,
        growth: 30,
    },
];

/// One signal: where it rests, where it runs, and what moves it.
pub(super) struct Signal {
    /// From 1.
    pub number: usize,
    /// From 1.
    pub component: u8,
    pub unit: Unit,
    /// The value at standstill.
    pub rest: f64,
    /// The value of the running machine at mean load and season.
    pub running: f64,
    pub load: f64,
    pub ambient: f64,
    pub component_gain: f64,
    pub wander: f64,
    pub noise: f64,
    pub texture: Texture,
    /// How far a fault of full severity in its component moves it.
    pub fault: f64,
    /// The recorder's resolution.
    pub step: f64,
    /// Whether it follows the machine's heat, which lags, rather than its motion.
    pub thermal: bool,
}

/// What the signal's own scatter looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Texture {
    Gaussian,
    Uniform,
    /// Two levels, changing at random.
    Telegraph,
    /// Gaussian with rare small spikes.
    Spiky,
}

/// The first `count` signals of the plant.
pub(super) fn signals(count: usize) -> Vec<Signal> {
    let all = RUNS
        .iter()
        .flat_map(|(count, component, unit)| (0..*count).map(move |_| (*component, *unit)));
    all.zip(1..)
        .take(count)
        .map(|((component, unit), number)| Signal::new(number, component, unit))
        .collect()
}

/// The number of signals of the whole plant.
pub(super) fn signal_count() -> usize {
    RUNS.iter().map(|(count, _, _)| count).sum()
}

/// The component that fails in November.
pub(super) fn fault_component(signals: &[Signal]) -> u8 {
    FAULT_COMPONENTS
        .into_iter()
        .find(|component| signals.iter().any(|signal| signal.component == *component))
        .unwrap_or(FAULT_COMPONENTS[0])
}

/// A labelled fault.
pub(super) struct LabelledFault {
    pub component: u8,
    /// When it begins to show.
    pub announced: i64,
    /// When its label begins and ends.
    pub from: i64,
    pub to: i64,
}

/// The last fault whose label begins before `end`, given the component of the evaluation fault.
pub(super) fn last_fault(end: i64, fault_component: u8) -> LabelledFault {
    match FAULTS.iter().rev().find(|fault| fault.from < end) {
        Some(fault) if end <= FAULT_START => LabelledFault {
            component: fault.component,
            announced: fault.from,
            from: fault.from,
            to: fault.to,
        },
        _ => LabelledFault {
            component: fault_component,
            announced: DRIFT_START,
            from: FAULT_START,
            to: FAULT_END,
        },
    }
}

/// The component's name in files.
pub(super) fn component_name(component: u8) -> String {
    format!("subsystem-{component:02}")
}

/// Whether the minute was recorded.
pub(super) fn is_recorded(minute: i64) -> bool {
    !MISSING
        .iter()
        .any(|(from, length)| (*from..from + length).contains(&minute))
}

/// Whether the signal has no sample at the minute.
pub(super) fn is_out(signal: &Signal, minute: i64) -> bool {
    signal.number == SENSOR_GAP.0 && (SENSOR_GAP.1..SENSOR_GAP.2).contains(&minute)
}

/// How severe the fault of `component` is at `minute`, 0 to 1.
pub(super) fn severity(component: u8, fault_component: u8, minute: i64) -> f64 {
    let mut severity = 0.0;
    for fault in FAULTS.iter().filter(|fault| fault.component == component) {
        if (fault.from..fault.to).contains(&minute) {
            severity = ((minute - fault.from) as f64 / fault.growth as f64).min(1.0);
        }
    }
    if component == fault_component && (DRIFT_START..STOPS[1].0).contains(&minute) {
        let drift = (minute - DRIFT_START) as f64 / (FAULT_START - DRIFT_START) as f64;
        let trip = ((minute - FAULT_START) as f64 / 120.0).clamp(0.0, 1.0);
        severity = 0.6 * drift.min(1.0) + 0.4 * trip;
    }
    severity
}

impl Signal {
    fn new(number: usize, component: u8, unit: Unit) -> Signal {
        // Draws that belong to the machine, not to a seed.
        let draw = |salt: u64| unit_draw(number, salt);
        let lean = |salt: u64| signed(hash(salt, number as u64));
        let sign = |salt: u64| if lean(salt) < 0.0 { -1.0 } else { 1.0 };
        let plain = Signal {
            number,
            component,
            unit,
            rest: 0.0,
            running: 0.3 + 0.3 * draw(1),
            load: 0.05 * lean(2),
            ambient: 0.02 * lean(3),
            component_gain: sign(4) * (0.03 + 0.03 * draw(4)),
            wander: 0.008,
            noise: 0.012,
            texture: Texture::Gaussian,
            fault: sign(5) * (0.15 + 0.15 * draw(6)),
            step: 1.0 / 1200.0,
            thermal: false,
        };
        let signal = match unit {
            MicraPp | MmSRms => Signal {
                running: 0.2 + 0.2 * draw(1),
                load: 0.04 + 0.06 * draw(2),
                component_gain: 0.04 + 0.05 * draw(4),
                noise: 0.01 + 0.012 * draw(7),
                fault: 0.15 + 0.25 * draw(6),
                ..plain
            },
            Celsius => Signal {
                rest: 0.2 + 0.15 * draw(8),
                running: 0.7 + 0.12 * draw(1),
                load: 0.03 + 0.04 * draw(2),
                ambient: 0.05 + 0.05 * draw(3),
                component_gain: 0.02 + 0.02 * draw(4),
                wander: 0.004,
                noise: 0.003,
                fault: 0.06 + 0.06 * draw(6),
                step: 1.0 / (50.0 + 40.0 * draw(9)),
                thermal: true,
                ..plain
            },
            Rpm => Signal {
                running: 0.997,
                load: -0.0006,
                ambient: 0.0,
                component_gain: 0.0,
                wander: 0.0,
                noise: 0.003,
                texture: Texture::Uniform,
                fault: -0.004,
                step: 1.0 / 8000.0,
                ..plain
            },
            KgCm2 | KgCm2g | KNm3D | MmH2o | Percent | Blank => Signal {
                running: 0.9 + 0.04 * draw(1),
                load: 0.02 + 0.02 * draw(2),
                ambient: 0.006 * lean(3),
                component_gain: 0.01 + 0.01 * draw(4),
                wander: 0.003,
                noise: 0.003,
                fault: -(0.05 + 0.1 * draw(6)),
                step: 1.0 / 2000.0,
                ..plain
            },
            Millimetre => Signal {
                rest: 0.45 + 0.1 * draw(8),
                running: 0.72 + 0.12 * draw(1),
                load: 0.03 * lean(2),
                component_gain: 0.02 + 0.02 * draw(4),
                wander: 0.004,
                noise: 0.003,
                fault: sign(5) * (0.06 + 0.06 * draw(6)),
                ..plain
            },
            Vdc => Signal {
                rest: 0.3 + 0.3 * draw(8),
                noise: 0.006,
                ..plain
            },
            Megawatt => Signal {
                running: 0.3,
                load: 0.12,
                component_gain: 0.01,
                noise: 0.002,
                fault: -0.05,
                ..plain
            },
        };
        match number {
            9 | 13 | 14 | 15 | 27 => Signal {
                texture: Texture::Spiky,
                ..signal
            },
            52 | 54 => Signal {
                running: 0.375,
                load: 0.0,
                ambient: 0.0,
                component_gain: 0.02,
                noise: 0.27,
                texture: Texture::Uniform,
                ..signal
            },
            56 => Signal {
                running: 0.27,
                load: 0.0,
                noise: 0.22,
                texture: Texture::Telegraph,
                ..signal
            },
            97 => Signal {
                running: 0.96,
                load: 0.004,
                ambient: 0.01,
                component_gain: 0.004,
                step: 1.0 / 250.0,
                ..signal
            },
            // The temperatures that flicker between two or three levels.
            111 | 113 => Signal {
                noise: 0.006,
                step: 1.0 / 60.0,
                ..signal
            },
            _ => signal,
        }
    }

    /// The name in files.
    pub fn name(&self) -> String {
        format!("signal-{:03}", self.number)
    }
}

fn unit_draw(number: usize, salt: u64) -> f64 {
    unit(hash(salt, number as u64))
}

impl Unit {
    /// The spelling in the tag list.
    pub fn as_str(self) -> &'static str {
        match self {
            MicraPp => "micra pp",
            Millimetre => "mm",
            Vdc => "Vdc",
            Percent => "%",
            Celsius => "C",
            Rpm => "rpm",
            MmH2o => "mmH2O",
            KgCm2 => "kg/cm2",
            KgCm2g => "kg/cm2g",
            MmSRms => "mm/s rms",
            KNm3D => "kNm3/d",
            Megawatt => "MW",
            Blank => "",
        }
    }
}
