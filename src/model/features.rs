//! From one cleaned row to one row of features: standardise, fill missing cells, lag, moving average.
//!
//! Every step works on one row and the state left by the rows before it, so a row's bits do not depend on how the series
//! was cut. Per sensor there are three features, in three blocks: `z(t)`, `z(t-1)`, `ewma(z)(t)`.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::matrix::Symmetric;

/// Standardised values are clipped to plus or minus this.
pub const CLIP: f64 = 10.0;
/// Weight of the newest value in the moving average: 2 / (span + 1) with a span of 10 rows.
pub const EWMA: f64 = 2.0 / 11.0;
/// Missing patterns remembered at the same time; more only costs time.
const PATTERNS: usize = 512;

/// Centre and spread of each used sensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// Mean.
    pub mean: Vec<f64>,
    /// Standard deviation, or a floor for a constant sensor.
    pub scale: Vec<f64>,
}

/// Lag and moving average, restarted after rows that are no rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recursion {
    live: bool,
    lag: Vec<f64>,
    ewma: Vec<f64>,
}

/// Fills missing cells by their conditional mean given the sensors present at the same instant:
/// `z_M = -(P_MM)^-1 P_MO z_O`, the conditional mean of a normal vector with precision matrix P.
#[derive(Debug)]
pub struct Filler<'a> {
    precision: &'a Symmetric,
    factors: HashMap<Vec<usize>, Vec<f64>>,
    missing: Vec<usize>,
}

impl Scaling {
    /// The clipped standardised value of `value` for sensor `column`; NaN stays NaN.
    pub fn apply(&self, column: usize, value: f64) -> f64 {
        ((value - self.mean[column]) / self.scale[column]).clamp(-CLIP, CLIP)
    }
}

impl Recursion {
    /// No row yet.
    pub fn new(sensors: usize) -> Self {
        Self {
            live: false,
            lag: vec![0.0; sensors],
            ewma: vec![0.0; sensors],
        }
    }

    /// Forgets the rows before.
    pub fn reset(&mut self) {
        self.live = false;
    }

    /// Whether it was made for that many sensors.
    pub fn is_of(&self, sensors: usize) -> bool {
        self.lag.len() == sensors && self.ewma.len() == sensors
    }

    /// Whether there is a row before the next one.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Goes on after a first row whose features were made up elsewhere.
    pub fn begin(&mut self, features: &[f64]) {
        let sensors = self.lag.len();
        self.lag.copy_from_slice(&features[..sensors]);
        self.ewma.copy_from_slice(&features[2 * sensors..]);
        self.live = true;
    }

    /// Takes the next filled row and writes its features (`3 * sensors`) to `out`.
    pub fn next(&mut self, z: &[f64], out: &mut [f64]) {
        if !self.live {
            self.lag.copy_from_slice(z);
            self.ewma.copy_from_slice(z);
            self.live = true;
        }
        let (now, rest) = out.split_at_mut(z.len());
        let (before, mean) = rest.split_at_mut(z.len());
        now.copy_from_slice(z);
        before.copy_from_slice(&self.lag);
        for ((mean, ewma), z) in mean.iter_mut().zip(&mut self.ewma).zip(z) {
            *ewma = EWMA * z + (1.0 - EWMA) * *ewma;
            *mean = *ewma;
        }
        self.lag.copy_from_slice(z);
    }
}

impl<'a> Filler<'a> {
    /// A filler for the same-time precision matrix of the standardised sensors.
    pub fn new(precision: &'a Symmetric) -> Self {
        Self {
            precision,
            factors: HashMap::new(),
            missing: Vec::new(),
        }
    }

    /// Replaces the NaN cells of a row. False, and the row untouched, where every cell is missing.
    pub fn fill(&mut self, z: &mut [f64]) -> bool {
        self.missing.clear();
        self.missing.extend(
            z.iter()
                .enumerate()
                .filter(|(_, value)| value.is_nan())
                .map(|(column, _)| column),
        );
        if self.missing.is_empty() {
            return true;
        }
        if self.missing.len() == z.len() {
            return false;
        }
        let mut solution: Vec<f64> = Vec::with_capacity(self.missing.len());
        for &row in &self.missing {
            let mut sum = 0.0;
            for (column, value) in z.iter().enumerate().filter(|(_, value)| !value.is_nan()) {
                sum += self.precision.at(row, column) * value;
            }
            solution.push(-sum);
        }
        if self.factors.len() >= PATTERNS && !self.factors.contains_key(&self.missing) {
            self.factors.clear();
        }
        let factor = self
            .factors
            .entry(self.missing.clone())
            .or_insert_with(|| cholesky(self.precision, &self.missing));
        solve(factor, &mut solution);
        for (&column, value) in self.missing.iter().zip(&solution) {
            z[column] = value.clamp(-CLIP, CLIP);
        }
        true
    }
}

/// The Cholesky factor of the rows and columns `of` of a positive definite matrix, lower triangle by rows.
fn cholesky(matrix: &Symmetric, of: &[usize]) -> Vec<f64> {
    let mut factor: Vec<f64> = Vec::with_capacity(of.len() * (of.len() + 1) / 2);
    for (row, &i) in of.iter().enumerate() {
        let start = row * (row + 1) / 2;
        for (column, &j) in of[..=row].iter().enumerate() {
            let other = column * (column + 1) / 2;
            let mut sum = matrix.at(i, j);
            for k in 0..column {
                sum -= factor[start + k] * factor[other + k];
            }
            factor.push(if row == column {
                sum.sqrt()
            } else {
                sum / factor[other + column]
            });
        }
    }
    factor
}

/// Solves `L L' x = b` in place.
fn solve(factor: &[f64], x: &mut [f64]) {
    for row in 0..x.len() {
        let start = row * (row + 1) / 2;
        let mut sum = x[row];
        for k in 0..row {
            sum -= factor[start + k] * x[k];
        }
        x[row] = sum / factor[start + row];
    }
    for row in (0..x.len()).rev() {
        let mut sum = x[row];
        for k in row + 1..x.len() {
            sum -= factor[k * (k + 1) / 2 + row] * x[k];
        }
        x[row] = sum / factor[row * (row + 1) / 2 + row];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_cell_gets_its_conditional_mean() {
        // Correlation 0.8: the conditional mean of one given the other is 0.8 times it.
        let correlation = Symmetric::from_fn(2, |r, c| if r == c { 1.0 } else { 0.8 });
        let precision = correlation.inverse().unwrap();
        let mut row = [1.5, f64::NAN];
        assert!(Filler::new(&precision).fill(&mut row));
        assert!((row[1] - 1.2).abs() < 1e-12, "{row:?}");
        assert!(!Filler::new(&precision).fill(&mut [f64::NAN, f64::NAN]));
    }

    #[test]
    fn filling_does_not_depend_on_the_patterns_seen_before() {
        let precision = Symmetric::from_fn(12, |r, c| {
            if r == c {
                2.0
            } else {
                0.3 / (1.0 + (r - c) as f64)
            }
        });
        let row = |n: usize| -> Vec<f64> {
            (0..12)
                .map(|k| {
                    if (n >> k) & 1 == 1 {
                        f64::NAN
                    } else {
                        (k as f64 - 5.0) / 3.0
                    }
                })
                .collect()
        };
        let mut shared = Filler::new(&precision);
        for n in 0..2000 {
            let (mut a, mut b) = (row(n), row(n));
            assert!(shared.fill(&mut a) && Filler::new(&precision).fill(&mut b));
            assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn lag_and_average_restart_at_the_first_row_after_a_break() {
        let mut recursion = Recursion::new(1);
        let mut out = [0.0; 3];
        recursion.next(&[1.0], &mut out);
        assert_eq!(out[..2], [1.0, 1.0]);
        assert!((out[2] - 1.0).abs() < 1e-15);
        recursion.next(&[2.0], &mut out);
        assert_eq!(out[..2], [2.0, 1.0]);
        assert!((out[2] - (1.0 + EWMA)).abs() < 1e-15);
        recursion.reset();
        recursion.next(&[7.0], &mut out);
        assert_eq!(out[..2], [7.0, 7.0]);
        assert!((out[2] - 7.0).abs() < 1e-14);
    }
}
