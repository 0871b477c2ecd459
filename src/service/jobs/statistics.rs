//! Data quality: what ListSensorStatistics and DataQualitySummary tell about ingested rows (contract 1.5 and 6).
//!
//! Thresholds are the contract's: history below 14 days is short, a gap above 30 days is large, 10 or fewer distinct values
//! are categorical. The original's rule for operating modes is not documented; here a sensor may have several when the
//! histogram of its values (64 bins) has two peaks, each with a tenth of the rows, with a valley between them below a
//! quarter of the smaller peak.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::service::history::{Part, each_row};
use crate::service::operations::{maybe_time, time};

const DAY_US: i64 = 86_400_000_000;
const SHORT_US: i64 = 14 * DAY_US;
const LARGE_GAP_US: i64 = 30 * DAY_US;
const CATEGORIES: usize = 10;
const BINS: usize = 64;

/// What only the reader of the CSVs sees.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Rows with a time.
    pub rows: u64,
    /// Rows without.
    pub invalid_times: u64,
    /// Per sensor, cells that are no number.
    pub invalid: Vec<u64>,
}

impl Counts {
    /// Nothing counted yet.
    pub fn new(sensors: usize) -> Counts {
        Counts {
            rows: 0,
            invalid_times: 0,
            invalid: vec![0; sensors],
        }
    }
}

/// The statistics of a component.
pub struct ComponentStatistics {
    component: String,
    duplicates: u64,
    counts: Counts,
    rows: u64,
    sensors: Vec<(String, SensorStatistics)>,
}

#[derive(Debug, Clone)]
struct SensorStatistics {
    values: u64,
    first_us: Option<i64>,
    last_us: Option<i64>,
    low: f64,
    high: f64,
    last: f64,
    distinct: Vec<f64>,
    rises: bool,
    falls: bool,
    large_gaps: u64,
    widest_gap_us: i64,
    bins: Vec<u64>,
}

/// Reads a component's rows twice: once for ranges, once for histograms.
pub fn of(
    directory: &Path,
    number: usize,
    part: &Part,
    counts: &Counts,
) -> Result<ComponentStatistics> {
    let mut sensors = vec![SensorStatistics::new(); part.sensors.len()];
    each_row(directory, number, part, |time, values| {
        for (sensor, value) in sensors
            .iter_mut()
            .zip(values)
            .filter(|(_, value)| !value.is_nan())
        {
            sensor.take(time, *value);
        }
    })?;
    each_row(directory, number, part, |_, values| {
        for (sensor, value) in sensors
            .iter_mut()
            .zip(values)
            .filter(|(_, value)| !value.is_nan())
        {
            sensor.bin(*value);
        }
    })?;
    Ok(ComponentStatistics {
        component: part.component.clone(),
        duplicates: part.duplicates,
        counts: counts.clone(),
        rows: part.rows,
        sensors: part.sensors.iter().cloned().zip(sensors).collect(),
    })
}

impl SensorStatistics {
    fn new() -> SensorStatistics {
        SensorStatistics {
            values: 0,
            first_us: None,
            last_us: None,
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
            last: f64::NAN,
            distinct: Vec::new(),
            rises: false,
            falls: false,
            large_gaps: 0,
            widest_gap_us: 0,
            bins: vec![0; BINS],
        }
    }

    fn take(&mut self, time: i64, value: f64) {
        if let Some(last) = self.last_us {
            let gap = time - last;
            self.widest_gap_us = self.widest_gap_us.max(gap);
            self.large_gaps += u64::from(gap > LARGE_GAP_US);
            self.rises |= value > self.last;
            self.falls |= value < self.last;
        }
        self.values += 1;
        self.first_us.get_or_insert(time);
        (self.last_us, self.last) = (Some(time), value);
        (self.low, self.high) = (self.low.min(value), self.high.max(value));
        if self.distinct.len() <= CATEGORIES && !self.distinct.contains(&value) {
            self.distinct.push(value);
        }
    }

    fn bin(&mut self, value: f64) {
        let width = (self.high - self.low).max(f64::MIN_POSITIVE);
        let bin = ((value - self.low) / width * BINS as f64) as usize;
        self.bins[bin.min(BINS - 1)] += 1;
    }

    fn modes(&self) -> bool {
        let enough = self.values / 10;
        // Peaks are judged over three neighbouring bins, so that a rounded sensor's empty bins are no valleys.
        let around = |bin: usize| {
            self.bins[bin.saturating_sub(1)..(bin + 2).min(BINS)]
                .iter()
                .sum::<u64>()
        };
        let peak = |bins: std::ops::Range<usize>| {
            bins.map(|bin| (around(bin), bin)).max().unwrap_or_default()
        };
        let (_, first) = peak(0..BINS);
        [
            peak(0..first.saturating_sub(4)),
            peak((first + 5).min(BINS)..BINS),
        ]
        .into_iter()
        .any(|(height, second)| {
            let (left, right) = (first.min(second) + 2, first.max(second).saturating_sub(1));
            let valley = (left..right).map(around).min().unwrap_or(u64::MAX);
            height >= enough.max(1) && valley < height / 4
        })
    }

    fn categorical(&self) -> bool {
        self.values > 0 && self.distinct.len() <= CATEGORIES
    }

    fn monotonicity(&self) -> Option<&'static str> {
        match (self.values > 1, self.rises, self.falls) {
            (true, true, false) => Some("INCREASING"),
            (true, false, true) => Some("DECREASING"),
            (true, false, false) => Some("STATIC"),
            _ => None,
        }
    }

    fn short(&self) -> bool {
        self.first_us
            .zip(self.last_us)
            .is_some_and(|(first, last)| last - first < SHORT_US)
    }
}

impl ComponentStatistics {
    /// `component, sensor, SensorStatisticsSummary` of every sensor.
    pub fn summaries(&self) -> Vec<(String, String, Value)> {
        let summary = |(name, sensor): &(String, SensorStatistics)| {
            let index = self
                .sensors
                .iter()
                .position(|(known, _)| known == name)
                .unwrap_or_default();
            (
                self.component.clone(),
                name.clone(),
                self.summary(index, name, sensor),
            )
        };
        self.sensors.iter().map(summary).collect()
    }

    fn missing(&self, sensor: &SensorStatistics) -> u64 {
        self.rows - sensor.values
    }

    fn summary(&self, index: usize, name: &str, sensor: &SensorStatistics) -> Value {
        let total = self.counts.rows + self.counts.invalid_times;
        let issue = |is: bool| {
            if is {
                "POTENTIAL_ISSUE_DETECTED"
            } else {
                "NO_ISSUE_DETECTED"
            }
        };
        let monotonicity = sensor.monotonicity();
        let gaps = sensor.large_gaps > 0;
        json!({
            "ComponentName": self.component,
            "SensorName": name,
            "DataExists": sensor.values > 0,
            "MissingValues": share(self.missing(sensor), self.rows),
            "InvalidValues": share(self.counts.invalid[index], self.rows),
            "InvalidDateEntries": share(self.counts.invalid_times, total),
            "DuplicateTimestamps": share(self.duplicates, self.counts.rows),
            "CategoricalValues": {
                "Status": issue(sensor.categorical()),
                "NumberOfCategory": sensor.categorical().then_some(sensor.distinct.len()),
            },
            "MultipleOperatingModes": {"Status": issue(!sensor.categorical() && sensor.modes())},
            "LargeTimestampGaps": {
                "Status": issue(gaps),
                "NumberOfLargeTimestampGaps": gaps.then_some(sensor.large_gaps),
                "MaxTimestampGapInDays": gaps.then_some(sensor.widest_gap_us / DAY_US),
            },
            "MonotonicValues": {"Status": issue(monotonicity.is_some()), "Monotonicity": monotonicity},
            "DataStartTime": maybe_time(sensor.first_us),
            "DataEndTime": sensor.last_us.map_or(Value::Null, time),
        })
    }
}

/// `DataQualitySummary` over all components.
pub fn quality(components: &[ComponentStatistics]) -> Value {
    let sensors = || {
        components.iter().flat_map(|component| {
            component
                .sensors
                .iter()
                .map(move |(_, sensor)| (component, sensor))
        })
    };
    let affected = |is: &dyn Fn(&ComponentStatistics, &SensorStatistics) -> bool| {
        sensors()
            .filter(|(component, sensor)| is(component, sensor))
            .count()
    };
    let missing: u64 = sensors()
        .map(|(component, sensor)| component.missing(sensor))
        .sum();
    let invalid = components
        .iter()
        .flat_map(|component| component.counts.invalid.iter());
    json!({
        "InsufficientSensorData": {
            "MissingCompleteSensorData": {"AffectedSensorCount": affected(&|_, sensor| sensor.values == 0)},
            "SensorsWithShortDateRange": {"AffectedSensorCount": affected(&|_, sensor| sensor.short())},
        },
        "MissingSensorData": {
            "AffectedSensorCount": affected(&|component, sensor| component.missing(sensor) > 0),
            "TotalNumberOfMissingValues": missing,
        },
        "InvalidSensorData": {
            "AffectedSensorCount": invalid.clone().filter(|count| **count > 0).count(),
            "TotalNumberOfInvalidValues": invalid.sum::<u64>(),
        },
        "UnsupportedTimestamps": {
            "TotalNumberOfUnsupportedTimestamps":
                components.iter().map(|component| component.counts.invalid_times).sum::<u64>(),
        },
        "DuplicateTimestamps": {
            "TotalNumberOfDuplicateTimestamps": components.iter().map(|component| component.duplicates).sum::<u64>(),
        },
    })
}

fn share(count: u64, of: u64) -> Value {
    let percentage = if of == 0 {
        0.0
    } else {
        (count as f64 / of as f64 * 10_000.0).round() / 100.0
    };
    json!({"Count": count, "Percentage": percentage})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sensor(values: impl IntoIterator<Item = f64>) -> SensorStatistics {
        let values: Vec<f64> = values.into_iter().collect();
        let mut sensor = SensorStatistics::new();
        values
            .iter()
            .enumerate()
            .for_each(|(hour, value)| sensor.take(hour as i64 * DAY_US / 24, *value));
        values.iter().for_each(|value| sensor.bin(*value));
        sensor
    }

    #[test]
    fn two_levels_are_two_modes_and_one_hump_is_one() {
        // A hash of n, spread over 0 to 1, and the mean of three: one hump.
        let noise = |n: u32| f64::from(n.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24);
        let hump = |n: u32| (noise(n) + noise(n + 7_919) + noise(n + 104_729)) / 3.0;
        assert!(!sensor((0..5000).map(hump)).modes());
        assert!(sensor((0..5000).map(|n| hump(n) + if n < 3000 { 0.0 } else { 5.0 })).modes());
    }

    #[test]
    fn counters_constants_and_codes_are_recognised() {
        assert_eq!(
            sensor((0..100).map(f64::from)).monotonicity(),
            Some("INCREASING")
        );
        assert_eq!(sensor((0..100).map(|_| 5.0)).monotonicity(), Some("STATIC"));
        assert_eq!(sensor([1.0, 2.0, 1.0]).monotonicity(), None);
        assert!(sensor([1.0, 2.0, 1.0]).categorical());
        assert!(!sensor((0..11).map(f64::from)).categorical());
        assert!(sensor((0..100).map(f64::from)).short());
    }
}
