//! The words the detector's callers use: sensor, sampling rate, off condition, span of time, block of rows.
//!
//! All times are UTC microseconds since 1970-01-01T00:00:00Z. Nothing here computes; parsing refuses what it does not
//! understand and says what it expected.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Microseconds in a second.
pub const SECOND: i64 = 1_000_000;

/// One signal of one component, the unit the detector learns and explains.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sensor {
    /// The group of signals that is written to one file.
    pub component: String,
    /// The signal's column name inside the component.
    pub signal: String,
}

/// A block of raw or resampled rows. A missing value is NaN; `values` is row-major, `times.len() * sensors` long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// UTC microseconds, sorted and unique.
    pub times: Vec<i64>,
    /// Row-major values, NaN where there is none.
    pub values: Vec<f64>,
    /// Columns per row.
    pub sensors: usize,
}

/// The eleven target sampling rates of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the service's own")]
pub enum Sampling {
    Pt1s,
    Pt5s,
    Pt10s,
    Pt15s,
    Pt30s,
    Pt1m,
    Pt5m,
    Pt10m,
    Pt15m,
    Pt30m,
    Pt1h,
}

/// `component\sensor<number` or `component\sensor>number`: the asset is off while the latest received value of that
/// sensor satisfies it. Such rows are left out of training, evaluation and inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OffCondition {
    /// The sensor that tells whether the asset runs.
    pub sensor: Sensor,
    /// True for `<`, false for `>`.
    pub below: bool,
    /// The number compared with.
    pub value: f64,
}

/// A closed span of time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First instant, UTC microseconds.
    pub start: i64,
    /// Last instant, UTC microseconds.
    pub end: i64,
}

/// A text that is no sensor, sampling rate or off condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// No single backslash between a component and a signal.
    #[error("`{0}` is no sensor: expected `component\\signal`")]
    Sensor(String),
    /// Not one of the contract's sampling rates.
    #[error(
        "`{0}` is no sampling rate: expected one of PT1S PT5S PT10S PT15S PT30S PT1M PT5M PT10M PT15M PT30M PT1H"
    )]
    Sampling(String),
    /// Not an off condition.
    #[error(
        "`{0}` is no off condition: expected `component\\sensor<number` or `component\\sensor>number`"
    )]
    OffCondition(String),
}

impl Sensor {
    /// A sensor from its two names.
    pub fn new(component: impl Into<String>, signal: impl Into<String>) -> Self {
        Self {
            component: component.into(),
            signal: signal.into(),
        }
    }
}

impl fmt::Display for Sensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\\{}", self.component, self.signal)
    }
}

impl FromStr for Sensor {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        match text.split_once('\\') {
            Some((component, signal))
                if !component.is_empty() && !signal.is_empty() && !signal.contains('\\') =>
            {
                Ok(Self::new(component, signal))
            }
            _ => Err(WordError::Sensor(text.to_owned())),
        }
    }
}

impl Rows {
    /// The values of row `index`.
    pub fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.sensors..(index + 1) * self.sensors]
    }

    /// Appends one row; `values` must be `sensors` long.
    pub fn push(&mut self, time: i64, values: &[f64]) {
        debug_assert_eq!(values.len(), self.sensors);
        self.times.push(time);
        self.values.extend_from_slice(values);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
}

impl Sampling {
    /// Every rate, fastest first.
    pub const ALL: [Self; 11] = [
        Self::Pt1s,
        Self::Pt5s,
        Self::Pt10s,
        Self::Pt15s,
        Self::Pt30s,
        Self::Pt1m,
        Self::Pt5m,
        Self::Pt10m,
        Self::Pt15m,
        Self::Pt30m,
        Self::Pt1h,
    ];

    /// Length of one step in seconds.
    pub const fn seconds(self) -> i64 {
        match self {
            Self::Pt1s => 1,
            Self::Pt5s => 5,
            Self::Pt10s => 10,
            Self::Pt15s => 15,
            Self::Pt30s => 30,
            Self::Pt1m => 60,
            Self::Pt5m => 300,
            Self::Pt10m => 600,
            Self::Pt15m => 900,
            Self::Pt30m => 1800,
            Self::Pt1h => 3600,
        }
    }

    /// Length of one step in microseconds.
    pub const fn micros(self) -> i64 {
        self.seconds() * SECOND
    }

    /// The text of the API, such as `PT5M`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pt1s => "PT1S",
            Self::Pt5s => "PT5S",
            Self::Pt10s => "PT10S",
            Self::Pt15s => "PT15S",
            Self::Pt30s => "PT30S",
            Self::Pt1m => "PT1M",
            Self::Pt5m => "PT5M",
            Self::Pt10m => "PT10M",
            Self::Pt15m => "PT15M",
            Self::Pt30m => "PT30M",
            Self::Pt1h => "PT1H",
        }
    }
}

impl fmt::Display for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Sampling {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        Self::ALL
            .into_iter()
            .find(|rate| rate.as_str() == text)
            .ok_or_else(|| WordError::Sampling(text.to_owned()))
    }
}

impl OffCondition {
    /// Whether a received value says that the asset is off.
    pub fn holds(&self, value: f64) -> bool {
        if self.below {
            value < self.value
        } else {
            value > self.value
        }
    }
}

impl fmt::Display for OffCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}{}",
            self.sensor,
            if self.below { '<' } else { '>' },
            self.value
        )
    }
}

impl FromStr for OffCondition {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let refuse = || WordError::OffCondition(text.to_owned());
        // The service's own samples also write `comp\tag{<}0.0`.
        let plain = text.replace(['{', '}'], "");
        let at = plain.rfind(['<', '>']).ok_or_else(refuse)?;
        let (name, rest) = plain.split_at(at);
        let value: f64 = rest[1..].trim().parse().map_err(|_| refuse())?;
        if !value.is_finite() {
            return Err(refuse());
        }
        let sensor = name.trim().parse().map_err(|_| refuse())?;
        Ok(Self {
            sensor,
            below: rest.starts_with('<'),
            value,
        })
    }
}

impl Span {
    /// Whether an instant lies in the span.
    pub fn contains(&self, time: i64) -> bool {
        self.start <= time && time <= self.end
    }

    /// Whether the span shares an instant with `start..=end`.
    pub fn overlaps(&self, start: i64, end: i64) -> bool {
        self.start <= end && start <= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_off_condition_reads_with_and_without_spaces() {
        let tight: OffCondition = "AssetX\\Sensor1<10.0".parse().unwrap();
        let wide: OffCondition = "AssetX\\Sensor1 < 10.0".parse().unwrap();
        let braces: OffCondition = "AssetX\\Sensor1{<}10.0".parse().unwrap();
        assert_eq!(tight, wide);
        assert_eq!(tight, braces);
        assert!(tight.holds(9.9) && !tight.holds(10.0) && !tight.holds(f64::NAN));
        assert!(!"comp\\tag>0.0".parse::<OffCondition>().unwrap().below);
    }

    #[test]
    fn a_text_that_is_no_off_condition_is_refused() {
        for text in [
            "", "a\\b", "a\\b<", "a\\b<x", "b<3", "a\\b=3", "a\\b<inf", "\\b<3",
        ] {
            assert!(text.parse::<OffCondition>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_sampling_rate_reads_back_from_its_text() {
        for rate in Sampling::ALL {
            assert_eq!(rate.as_str().parse::<Sampling>().unwrap(), rate);
        }
        assert!("PT2M".parse::<Sampling>().is_err());
    }
}
