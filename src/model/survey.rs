//! What the training rows say about each sensor before anything is learned: coverage, level, runs of equal values,
//! distinct values, direction, resolution.
//!
//! One value at a time, in time order, over the kept rows only; the raw resolution is looked at on raw rows.

/// More distinct values than this and a sensor is not categorical.
pub const CATEGORIES: usize = 10;
/// A sensor that moved at least this often and never back is a counter.
const COUNTER_STEPS: u32 = 20;
/// More decimals than this are not counted.
pub const FULL_RESOLUTION: u8 = 10;
/// Values beyond this many equal ones in a row are stuck, at the least.
const SHORTEST_STUCK: u32 = 30;

/// The findings on one sensor.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Non-missing values.
    pub present: u64,
    /// Largest absolute value.
    pub level: f64,
    /// Longest run of equal values.
    pub longest_run: u32,
    distinct: Vec<f64>,
    run: u32,
    last_row: f64,
    last_value: f64,
    steps: u32,
    rose: bool,
    fell: bool,
}

/// The direction of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Direction {
    /// Never falls.
    Rising,
    /// Never rises.
    Falling,
}

impl Survey {
    /// Nothing seen.
    pub fn new() -> Self {
        Self {
            present: 0,
            level: 0.0,
            longest_run: 0,
            distinct: Vec::new(),
            run: 0,
            last_row: f64::NAN,
            last_value: f64::NAN,
            steps: 0,
            rose: false,
            fell: false,
        }
    }

    /// Takes the sensor's value of the next kept row, NaN where missing.
    pub fn push(&mut self, value: f64) {
        if value.is_nan() {
            self.run = 0;
            self.last_row = value;
            return;
        }
        self.run = if value == self.last_row {
            self.run + 1
        } else {
            1
        };
        self.longest_run = self.longest_run.max(self.run);
        self.last_row = value;
        self.present += 1;
        self.level = self.level.max(value.abs());
        if value != self.last_value {
            self.rose |= value > self.last_value;
            self.fell |= value < self.last_value;
            self.steps = self.steps.saturating_add(1);
            if self.distinct.len() <= CATEGORIES && !self.distinct.contains(&value) {
                self.distinct.push(value);
            }
            self.last_value = value;
        }
    }

    /// How many identical samples in a row are still plausible: three times the longest run of training and at least 30;
    /// none where such runs are part of normal life (over 2 % of the rows).
    pub fn stuck_limit(&self, kept: usize) -> Option<u32> {
        if f64::from(self.longest_run) > 0.02 * kept as f64 {
            None
        } else {
            Some(SHORTEST_STUCK.max(3 * self.longest_run))
        }
    }

    /// Which way the sensor counts, if it is a counter.
    pub fn counter(&self) -> Option<Direction> {
        match (self.rose, self.fell) {
            (true, false) if self.steps > COUNTER_STEPS => Some(Direction::Rising),
            (false, true) if self.steps > COUNTER_STEPS => Some(Direction::Falling),
            _ => None,
        }
    }

    /// The number of distinct values where there are few of them (2 to 10).
    pub fn categories(&self) -> Option<usize> {
        (2..=CATEGORIES)
            .contains(&self.distinct.len())
            .then_some(self.distinct.len())
    }
}

/// Decimals needed to write a value, at most `FULL_RESOLUTION`.
pub fn decimals(value: f64) -> u8 {
    let mut scale = 1.0;
    for count in 0..FULL_RESOLUTION {
        let scaled: f64 = value * scale;
        if (scaled - scaled.round()).abs() <= 4.0 * f64::EPSILON * scaled.abs() {
            return count;
        }
        scale *= 10.0;
    }
    FULL_RESOLUTION
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(values: impl IntoIterator<Item = f64>) -> Survey {
        let mut survey = Survey::new();
        values.into_iter().for_each(|value| survey.push(value));
        survey
    }

    #[test]
    fn decimals_are_those_a_person_would_write() {
        for (value, expected) in [
            (3.0, 0),
            (0.5, 1),
            (152.977, 3),
            (-0.1, 1),
            (0.017_866, 6),
            (1.0 / 3.0, FULL_RESOLUTION),
        ] {
            assert_eq!(decimals(value), expected, "{value}");
        }
    }

    #[test]
    fn a_missing_value_breaks_a_run() {
        let found = survey([1.0, 1.0, 1.0, f64::NAN, 1.0, 1.0, 2.0]);
        assert_eq!((found.longest_run, found.present), (3, 6));
        assert_eq!(found.stuck_limit(1000), Some(30));
        assert_eq!(found.stuck_limit(100), None);
    }

    #[test]
    fn a_counter_is_told_from_a_switch_and_from_a_constant() {
        assert_eq!(
            survey((0..100).map(f64::from)).counter(),
            Some(Direction::Rising)
        );
        assert_eq!(
            survey((0..100).map(|n| f64::from(-n))).counter(),
            Some(Direction::Falling)
        );
        assert_eq!(survey((0..100).map(|n| f64::from(n / 50))).counter(), None);
        assert_eq!(survey((0..100).map(|n| f64::from(n % 50))).counter(), None);
        assert_eq!(survey([3.0; 100]).counter(), None);
        assert_eq!(survey([3.0; 100]).categories(), None);
        assert_eq!(
            survey((0..100).map(|n| f64::from(n / 50))).categories(),
            Some(2)
        );
        assert_eq!(survey((0..100).map(f64::from)).categories(), None);
    }
}
