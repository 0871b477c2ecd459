//! The cells of one signal: pure, from its samples in the order of their times.

use super::Aggregate;
use crate::journal::{Kind, Sample};

/// The cells of one signal.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cells {
    /// One for each row; NaN where it is empty.
    pub values: Vec<f64>,
    /// Samples in the rows' intervals that have no value.
    pub bad: usize,
}

impl Cells {
    /// Whether the value that stands before `first` may lie further back: there are signs of life, and nothing live before `first` that
    /// says what the value is.
    pub fn need_more(samples: &[Sample], first: i64) -> bool {
        let signs = samples.iter().any(|sample| sample.kind == Kind::Alive);
        let mut before = samples.iter().take_while(|sample| sample.time <= first);
        signs && !before.any(|sample| sample.kind == Kind::Value && !sample.historical)
    }

    /// The cells of `rows`, UTC microseconds, each of the interval of `step` that ends at it, from samples whose times are UTC
    /// nanoseconds. A value stands for `stale` after its last sign of life.
    pub fn of(
        samples: &[Sample],
        rows: &[i64],
        step: i64,
        stale: i64,
        aggregate: Aggregate,
    ) -> Self {
        let mut cells = Cells::default();
        let mut at = 0;
        // What stands: the last live value, and the last sign of life.
        let (mut stands, mut sign) = (f64::NAN, i64::MIN);
        for row in rows {
            let end = row * 1_000;
            let mut interval = Interval::default();
            while let Some(sample) = samples.get(at).filter(|sample| sample.time <= end) {
                at += 1;
                if !sample.historical {
                    sign = sign.max(sample.time);
                }
                if sample.kind == Kind::Alive {
                    continue;
                }
                if sample.time > end - step {
                    interval.take(sample.value);
                }
                if !sample.historical {
                    stands = sample.value;
                }
            }
            cells.bad += interval.missing;
            let value = match interval.samples {
                0 if end.saturating_sub(sign) <= stale => stands,
                0 => f64::NAN,
                _ => interval.value(aggregate),
            };
            cells.values.push(value);
        }
        cells
    }
}

/// The samples of an interval.
#[derive(Default)]
struct Interval {
    samples: usize,
    missing: usize,
    last: f64,
    sum: f64,
    least: Option<f64>,
    most: Option<f64>,
}

impl Interval {
    fn take(&mut self, value: f64) {
        self.samples += 1;
        self.last = value;
        if value.is_nan() {
            self.missing += 1;
            return;
        }
        self.sum += value;
        self.least = Some(self.least.map_or(value, |least| least.min(value)));
        self.most = Some(self.most.map_or(value, |most| most.max(value)));
    }

    fn value(&self, aggregate: Aggregate) -> f64 {
        let values = self.samples - self.missing;
        match aggregate {
            Aggregate::Last => self.last,
            Aggregate::Mean if values > 0 => self.sum / values as f64,
            Aggregate::Mean => f64::NAN,
            Aggregate::Min => self.least.unwrap_or(f64::NAN),
            Aggregate::Max => self.most.unwrap_or(f64::NAN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Journal, Options, Quality, Timed};

    const MINUTE: i64 = 60_000_000_000;
    const STALE: i64 = 10 * MINUTE;

    fn at(minutes: f64) -> i64 {
        30_000_000 * MINUTE + (minutes * MINUTE as f64) as i64
    }

    /// The rows at these minutes.
    fn rows(minutes: std::ops::RangeInclusive<i64>) -> Vec<i64> {
        minutes.map(|minute| at(minute as f64) / 1_000).collect()
    }

    fn sample(minutes: f64, value: f64) -> Sample {
        let directory = tempfile::tempdir().unwrap();
        let disk = std::sync::Arc::new(crate::disk::LocalDisk);
        let journal = Journal::open(directory.path(), disk, Options::default()).unwrap();
        Sample {
            signal: journal.signal("", "a").unwrap(),
            time: at(minutes),
            value,
            quality: Quality::Good,
            timed: Timed::Source,
            historical: false,
            kind: Kind::Value,
        }
    }

    fn cells(samples: &[Sample], aggregate: Aggregate) -> Vec<f64> {
        Cells::of(samples, &rows(1..=5), MINUTE, STALE, aggregate).values
    }

    fn same(found: &[f64], expected: &[f64]) {
        let text = |values: &[f64]| format!("{values:?}");
        assert_eq!(text(found), text(expected));
    }

    const NO: f64 = f64::NAN;

    #[test]
    fn a_cell_is_the_aggregate_of_the_interval_that_ends_at_its_row() {
        // One at the end of an interval is of that interval, one right behind it of the next.
        let samples = [
            sample(0.25, 3.0),
            sample(0.5, 1.0),
            sample(1.0, 5.0),
            sample(1.001, 7.0),
            sample(3.5, 8.0),
        ];
        same(
            &cells(&samples, Aggregate::Last),
            &[5.0, 7.0, 7.0, 8.0, 8.0],
        );
        same(
            &cells(&samples, Aggregate::Mean),
            &[3.0, 7.0, 7.0, 8.0, 8.0],
        );
        same(&cells(&samples, Aggregate::Min), &[1.0, 7.0, 7.0, 8.0, 8.0]);
        same(&cells(&samples, Aggregate::Max), &[5.0, 7.0, 7.0, 8.0, 8.0]);
    }

    #[test]
    fn what_is_constant_for_hours_is_constant_and_a_line_that_is_cut_is_empty() {
        let alive = |minutes: f64| Sample {
            kind: Kind::Alive,
            ..sample(minutes, NO)
        };
        let signs = (0..=18).map(|step| alive(-180.0 + 10.0 * f64::from(step)));
        let samples: Vec<Sample> = [sample(-185.0, 4.0)].into_iter().chain(signs).collect();
        same(&cells(&samples, Aggregate::Last), &[4.0; 5]);
        // The last sign was eight minutes before the first row.
        let cut: Vec<Sample> = samples
            .iter()
            .filter(|one| one.time <= at(-7.0))
            .copied()
            .collect();
        let cut: Vec<Sample> = cut.into_iter().chain([alive(-7.0)]).collect();
        same(&cells(&cut, Aggregate::Last), &[4.0, 4.0, 4.0, NO, NO]);
        assert!(Cells::need_more(&samples[1..], at(0.0)));
        assert!(!Cells::need_more(&samples, at(0.0)));
        assert!(!Cells::need_more(&[], at(0.0)));
    }

    #[test]
    fn what_is_bad_is_missing_until_there_is_a_good_value_again() {
        let samples = [sample(0.5, 4.0), sample(1.5, NO), sample(3.5, 6.0)];
        same(&cells(&samples, Aggregate::Last), &[4.0, NO, NO, 6.0, 6.0]);
        let found = Cells::of(&samples, &rows(1..=5), MINUTE, STALE, Aggregate::Mean);
        same(&found.values, &[4.0, NO, NO, 6.0, 6.0]);
        assert_eq!(found.bad, 1);
        // Beside a good one in its interval it takes nothing from the mean.
        let samples = [sample(0.2, 4.0), sample(0.5, NO)];
        same(&cells(&samples, Aggregate::Mean)[..1], &[4.0]);
        same(&cells(&samples, Aggregate::Last)[..1], &[NO]);
    }

    #[test]
    fn a_sample_of_a_time_gone_by_is_in_its_interval_and_stands_for_no_later_one() {
        let buffered = Sample {
            historical: true,
            ..sample(1.5, 9.0)
        };
        let samples = [sample(0.5, 4.0), buffered, sample(3.5, 6.0)];
        same(
            &cells(&samples, Aggregate::Last),
            &[4.0, 9.0, 4.0, 6.0, 6.0],
        );
        let alone = [buffered];
        same(&cells(&alone, Aggregate::Last), &[NO, 9.0, NO, NO, NO]);
    }
}
