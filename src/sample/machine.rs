//! The machine's state minute by minute, and the sample each signal records of it.
//!
//! Guarantees: signals share a few causes (load, season and weather, their component's own state), linearly, so that
//! their relations can be learned; outside the labelled spans and the drift before the November fault, everything is
//! stationary and within what the first months show.

use super::noise::{gaussian, hash, signed, smooth, unit, wander, wave};
use super::plant::{STOPS, Signal, Texture, Unit, is_out, severity};

const HOUR: i64 = 60;
const DAY: i64 = 24 * HOUR;
/// How long a load mode is held.
const MODE: i64 = 3 * HOUR;
const MODES: [f64; 4] = [-1.0, -0.3, 0.4, 1.0];

/// Everything the signals share during a stretch of minutes.
pub(super) struct State {
    seed: u64,
    fault_component: u8,
    /// The recorded minutes.
    pub minutes: Vec<i64>,
    motion: Causes,
    heat: Causes,
    ambient: Vec<f64>,
}

/// How much the machine runs (0..1) and at which load (-1..1), as its moving or its hot parts see it.
struct Causes {
    running: Vec<f64>,
    load: Vec<f64>,
}

impl State {
    /// The state at each of `minutes`.
    pub fn new(seed: u64, fault_component: u8, minutes: Vec<i64>) -> State {
        let causes = |ramps: [i64; 3]| Causes {
            running: minutes
                .iter()
                .map(|minute| running(*minute, ramps[0], ramps[1]))
                .collect(),
            load: minutes
                .iter()
                .map(|minute| load(seed, *minute, ramps[2]))
                .collect(),
        };
        let motion = causes([20, 90, 45]);
        let heat = causes([10 * HOUR, 6 * HOUR, 2 * HOUR]);
        let ambient = minutes
            .iter()
            .map(|minute| ambient(seed, *minute))
            .collect();
        State {
            seed,
            fault_component,
            minutes,
            motion,
            heat,
            ambient,
        }
    }

    /// The component's own state at each minute, -1..1, and the severity of its fault.
    pub fn component(&self, component: u8) -> Vec<(f64, f64)> {
        let stream = self.stream(1, u64::from(component));
        self.minutes
            .iter()
            .map(|minute| {
                let own = 0.6 * wander(stream, *minute, 110)
                    + 0.4 * wander(stream ^ 1, *minute, 13 * HOUR);
                (own, severity(component, self.fault_component, *minute))
            })
            .collect()
    }

    /// What `signal` records at each minute, given its component's state; NaN where its transmitter was out.
    pub fn record(&self, signal: &Signal, component: &[(f64, f64)]) -> Vec<f64> {
        let causes = if signal.thermal {
            &self.heat
        } else {
            &self.motion
        };
        let scatter = self.stream(2, signal.number as u64);
        let drift = self.stream(3, signal.number as u64);
        let period = HOUR + signal.number as i64;
        let levels = (1.0 / signal.step).round();
        self.minutes
            .iter()
            .enumerate()
            .map(|(at, minute)| {
                if is_out(signal, *minute) {
                    return f64::NAN;
                }
                let (own, severity) = component[at];
                let season = signal.ambient * self.ambient[at];
                let running = signal.running
                    + signal.load * causes.load[at]
                    + season
                    + signal.component_gain * own
                    + signal.wander * wander(drift, *minute, period)
                    + signal.fault * severity;
                // A cold machine still follows the weather.
                let rest = signal.rest
                    + if signal.unit == Unit::Celsius {
                        season
                    } else {
                        0.0
                    };
                let turns = causes.running[at];
                // At standstill the proximity probes still see the shaft, a little.
                let level = rest + (running - rest) * turns;
                let loudness = 0.15 + 0.85 * self.motion.running[at];
                let value = level + loudness * self.scatter(signal, scatter, *minute);
                (value.clamp(0.0, 1.0) * levels).round() / levels
            })
            .collect()
    }

    fn scatter(&self, signal: &Signal, stream: u64, minute: i64) -> f64 {
        let bits = hash(stream, minute as u64);
        match signal.texture {
            Texture::Gaussian => signal.noise * gaussian(bits),
            Texture::Uniform => signal.noise * signed(bits),
            Texture::Telegraph => {
                let high = hash(stream ^ 1, minute.div_euclid(12) as u64) & 1 == 1;
                signal.noise * if high { 1.0 } else { -1.0 } + 0.004 * gaussian(bits)
            }
            Texture::Spiky => {
                let spike = if unit(hash(stream ^ 1, minute as u64)) < 0.000_2 {
                    3.0
                } else {
                    0.0
                };
                signal.noise * (gaussian(bits) + spike)
            }
        }
    }

    fn stream(&self, kind: u64, index: u64) -> u64 {
        hash(self.seed, kind << 32 | index)
    }
}

/// How much the machine runs: down over `down` minutes after a stop, up over `up` minutes after a start.
fn running(minute: i64, down: i64, up: i64) -> f64 {
    let mut running = 1.0;
    for (stop, start) in STOPS {
        if minute >= stop {
            let stopped = 1.0 - smooth((minute.min(start) - stop) as f64 / down as f64);
            let recovered = smooth((minute - start) as f64 / up as f64);
            running = stopped + (1.0 - stopped) * recovered;
        }
    }
    running
}

/// The load, -1..1: modes of three hours, entered over `ramp` minutes, with a little regulation.
fn load(seed: u64, minute: i64, ramp: i64) -> f64 {
    let stream = hash(seed, 11);
    let mode = |slot: i64| MODES[(hash(stream, slot as u64) & 3) as usize];
    let slot = minute.div_euclid(MODE);
    let entered = smooth(minute.rem_euclid(MODE) as f64 / ramp as f64);
    let level = mode(slot - 1) + (mode(slot) - mode(slot - 1)) * entered;
    level + 0.05 * wander(stream ^ 1, minute, 30)
}

/// The surroundings, -1..1: warmest in late July and in mid-afternoon, with weather.
fn ambient(seed: u64, minute: i64) -> f64 {
    let days = minute as f64 / DAY as f64;
    // 2015-07-25 is day 16,641 since 1970.
    let season = wave((days - 16_641.0) / 365.25);
    let afternoon = wave(minute.rem_euclid(DAY) as f64 / DAY as f64 - 0.625);
    let weather = wander(hash(seed, 12), minute, 2 * DAY);
    0.45 * season + 0.2 * afternoon + 0.35 * weather
}
