//! From raw rows to rows on the model's grid: resampling, forward fill, off condition with grace.
//!
//! A bin is closed on the right and labelled with its right end: the row at `t` is made of the samples in `(t - dt, t]`,
//! their mean, or the last one for signals that only take whole numbers. A bin without any raw row repeats the bin before
//! it once (a row that came late by jitter), then there is no row at all. Without a sampling rate the raw rows pass as
//! they are. The state is complete: cutting a series into windows anywhere, even inside a bin, changes nothing.

use serde::{Deserialize, Serialize};

use super::sensor::{OffCondition, Sampling};

/// What does not change between rows.
#[derive(Clone, Debug)]
pub struct IntakeRules<'a> {
    /// The grid, or none to take rows as they come.
    pub sampling: Option<Sampling>,
    /// The column of the off condition's sensor, and the condition.
    pub off: Option<(usize, &'a OffCondition)>,
    /// Rows after the last off row that still count as off (start-up transient).
    pub grace: usize,
}

/// What is remembered between rows and between windows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Intake {
    open: Option<Bin>,
    carried: Option<(i64, Vec<f64>)>,
    off_value: Option<f64>,
    grace_left: usize,
}

/// One row on the grid.
#[derive(Clone, Copy, Debug)]
pub struct GridRow<'a> {
    /// UTC microseconds; the right end of the bin.
    pub time: i64,
    /// One value per sensor, NaN where missing.
    pub values: &'a [f64],
    /// The asset is off, or was less than `grace` rows ago.
    pub off: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Bin {
    label: i64,
    sums: Vec<f64>,
    counts: Vec<u32>,
    last: Vec<f64>,
}

impl Intake {
    /// Whether what it remembers is of rows with that many sensors.
    pub fn is_of(&self, sensors: usize) -> bool {
        let carried = self
            .carried
            .as_ref()
            .is_none_or(|(_, row)| row.len() == sensors);
        let open = self
            .open
            .as_ref()
            .is_none_or(|bin| [bin.sums.len(), bin.counts.len(), bin.last.len()] == [sensors; 3]);
        carried && open
    }

    /// Takes the next raw row. `whole` tells which signals only take whole numbers.
    pub fn push(
        &mut self,
        rules: &IntakeRules,
        whole: &[bool],
        time: i64,
        values: &[f64],
        emit: &mut dyn FnMut(GridRow),
    ) {
        let Some(sampling) = rules.sampling else {
            let off = self.gate(rules, rules.off.map(|(column, _)| values[column]));
            emit(GridRow { time, values, off });
            return;
        };
        let step = sampling.micros();
        let label = -(-time).div_euclid(step) * step;
        self.advance(rules, whole, step, label - step, emit);
        self.open
            .get_or_insert_with(|| Bin::new(label, values.len()))
            .add(values);
    }

    /// Closes every bin that ends at or before `until`.
    pub fn flush(
        &mut self,
        rules: &IntakeRules,
        whole: &[bool],
        until: i64,
        emit: &mut dyn FnMut(GridRow),
    ) {
        if let Some(sampling) = rules.sampling {
            self.advance(rules, whole, sampling.micros(), until, emit);
        }
    }

    /// Closes the bin that is open, whatever its end.
    pub fn finish(&mut self, rules: &IntakeRules, whole: &[bool], emit: &mut dyn FnMut(GridRow)) {
        if let Some(label) = self.open.as_ref().map(|bin| bin.label) {
            self.flush(rules, whole, label, emit);
        }
    }

    fn advance(
        &mut self,
        rules: &IntakeRules,
        whole: &[bool],
        step: i64,
        until: i64,
        emit: &mut dyn FnMut(GridRow),
    ) {
        loop {
            let open = self.open.as_ref().map(|bin| bin.label);
            if let Some(next) = self.carried.as_ref().map(|(time, _)| time + step)
                && next <= until
            {
                let carried = self.carried.take();
                if let (Some((_, values)), false) = (carried, open == Some(next)) {
                    let off = self.gate(rules, None);
                    emit(GridRow {
                        time: next,
                        values: &values,
                        off,
                    });
                }
            }
            match self.open.take() {
                Some(bin) if bin.label <= until => {
                    let values = bin.values(whole);
                    let off = self.gate(rules, rules.off.map(|(column, _)| bin.last[column]));
                    emit(GridRow {
                        time: bin.label,
                        values: &values,
                        off,
                    });
                    self.carried = Some((bin.label, values));
                }
                open => {
                    self.open = open;
                    return;
                }
            }
        }
    }

    /// Whether the row is off, given the value of the off sensor received with it, if any.
    fn gate(&mut self, rules: &IntakeRules, received: Option<f64>) -> bool {
        let Some((_, condition)) = rules.off else {
            return false;
        };
        if let Some(value) = received.filter(|value| !value.is_nan()) {
            self.off_value = Some(value);
        }
        if self.off_value.is_some_and(|value| condition.holds(value)) {
            self.grace_left = rules.grace;
            return true;
        }
        let graced = self.grace_left > 0;
        self.grace_left = self.grace_left.saturating_sub(1);
        graced
    }
}

impl Bin {
    fn new(label: i64, sensors: usize) -> Self {
        Self {
            label,
            sums: vec![0.0; sensors],
            counts: vec![0; sensors],
            last: vec![f64::NAN; sensors],
        }
    }

    fn add(&mut self, values: &[f64]) {
        for (column, value) in values
            .iter()
            .enumerate()
            .filter(|(_, value)| !value.is_nan())
        {
            self.sums[column] += value;
            self.counts[column] += 1;
            self.last[column] = *value;
        }
    }

    fn values(&self, whole: &[bool]) -> Vec<f64> {
        let value = |column: usize| match self.counts[column] {
            0 | 1 => self.last[column],
            _ if whole[column] => self.last[column],
            count => self.sums[column] / f64::from(count),
        };
        (0..self.sums.len()).map(value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sensor::SECOND;

    const MINUTE: i64 = 60 * SECOND;

    fn grid(
        rules: &IntakeRules,
        whole: &[bool],
        rows: &[(i64, Vec<f64>)],
        until: i64,
    ) -> Vec<(i64, Vec<f64>, bool)> {
        let mut intake = Intake::default();
        let mut out = Vec::new();
        for (time, values) in rows {
            intake.push(rules, whole, *time, values, &mut |row| {
                out.push((row.time, row.values.to_vec(), row.off))
            });
        }
        intake.flush(rules, whole, until, &mut |row| {
            out.push((row.time, row.values.to_vec(), row.off))
        });
        out
    }

    fn rules(sampling: Option<Sampling>) -> IntakeRules<'static> {
        IntakeRules {
            sampling,
            off: None,
            grace: 0,
        }
    }

    #[test]
    fn bins_are_closed_and_labelled_on_the_right() {
        let rows: Vec<_> = [30, 32, 35, 38, 44]
            .map(|minute| (minute * MINUTE, vec![minute as f64]))
            .into();
        let out = grid(&rules(Some(Sampling::Pt15m)), &[false], &rows, 45 * MINUTE);
        assert_eq!(out.len(), 2);
        assert_eq!(out[0], (30 * MINUTE, vec![30.0], false));
        assert_eq!(
            out[1],
            (45 * MINUTE, vec![(32.0 + 35.0 + 38.0 + 44.0) / 4.0], false)
        );
    }

    #[test]
    fn whole_number_signals_take_the_last_value_and_missing_cells_stay_missing() {
        let rows = vec![
            (MINUTE, vec![1.0, f64::NAN, f64::NAN]),
            (2 * MINUTE, vec![4.0, 2.0, f64::NAN]),
            (3 * MINUTE, vec![f64::NAN, 4.0, f64::NAN]),
        ];
        let out = grid(
            &rules(Some(Sampling::Pt5m)),
            &[true, false, false],
            &rows,
            5 * MINUTE,
        );
        assert_eq!(out[0].1[..2], [4.0, 3.0]);
        assert!(out[0].1[2].is_nan());
    }

    #[test]
    fn an_empty_bin_repeats_once_and_then_there_is_no_row() {
        let rows = vec![(MINUTE, vec![1.0]), (5 * MINUTE, vec![5.0])];
        let out = grid(&rules(Some(Sampling::Pt1m)), &[false], &rows, 10 * MINUTE);
        let times: Vec<_> = out
            .iter()
            .map(|(time, values, _)| (time / MINUTE, values[0]))
            .collect();
        assert_eq!(times, vec![(1, 1.0), (2, 1.0), (5, 5.0), (6, 5.0)]);
    }

    #[test]
    fn windows_cut_anywhere_give_the_rows_of_the_whole_series() {
        let rows: Vec<_> = (1..200_i64)
            .filter(|n| n % 7 != 0 && !(90..130).contains(n))
            .map(|n| (n * 13 * SECOND, vec![n as f64]))
            .collect();
        let rules = rules(Some(Sampling::Pt1m));
        let whole = grid(&rules, &[false], &rows, 60 * MINUTE);
        for length in [1, 5, 7] {
            let mut intake = Intake::default();
            let mut out = Vec::new();
            let mut emit = |row: GridRow| out.push((row.time, row.values.to_vec(), row.off));
            let mut start = 0;
            while start < 60 * MINUTE {
                let end = start + length * MINUTE;
                for (time, values) in rows
                    .iter()
                    .filter(|(time, _)| start < *time && *time <= end)
                {
                    intake.push(&rules, &[false], *time, values, &mut emit);
                }
                intake.flush(&rules, &[false], end.min(60 * MINUTE), &mut emit);
                let bytes = postcard::to_allocvec(&intake).unwrap();
                intake = postcard::from_bytes(&bytes).unwrap();
                start = end;
            }
            assert_eq!(out, whole);
        }
    }

    #[test]
    fn off_uses_the_latest_received_value_and_lasts_for_the_grace() {
        let condition: OffCondition = "c\\rpm<100".parse().unwrap();
        let rules = IntakeRules {
            sampling: None,
            off: Some((0, &condition)),
            grace: 2,
        };
        let rpm = [200.0, 50.0, f64::NAN, 150.0, 150.0, 150.0, 150.0];
        let rows: Vec<_> = rpm
            .iter()
            .enumerate()
            .map(|(n, value)| (n as i64, vec![*value]))
            .collect();
        let off: Vec<_> = grid(&rules, &[false], &rows, 10)
            .into_iter()
            .map(|(_, _, off)| off)
            .collect();
        assert_eq!(off, [false, true, true, true, true, false, false]);
    }
}
