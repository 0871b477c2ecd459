//! The two scores of a row of features.
//!
//! `q1 = g' P g` is the squared Mahalanobis distance under the shrunk correlation matrix of the features, which equals
//! Hotelling's T2 plus SPE with every component kept. Its contributions are reconstruction-based (Alcala and Qin 2009):
//! `RBC_i = (P g)_i^2 / P_ii`. `q2` is the sum of squares of the standardised moving averages, which sees the drift along
//! the common factors that `q1` discounts.

use serde::{Deserialize, Serialize};

use super::features::CLIP;
use super::matrix::{Moments, NotInvertible, Panels, Symmetric};

/// Least shrinkage of a correlation matrix towards the identity.
pub const SHRINKAGE: f64 = 0.01;
/// Most shrinkage, reached when rows are scarce.
const MOST_SHRINKAGE: f64 = 0.3;

/// Centre, spread and precision of the features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Form {
    /// Mean of each feature.
    pub mean: Vec<f64>,
    /// Standard deviation of each feature, 1 where it hardly varies.
    pub sd: Vec<f64>,
    /// Inverse of the shrunk correlation matrix.
    pub precision: Symmetric,
}

/// A form laid out for batches.
#[derive(Clone, Debug)]
pub struct FormKernel {
    mean: Vec<f64>,
    sd: Vec<f64>,
    panels: Panels,
    diagonal: Vec<f64>,
}

/// A batch of standardised feature rows and its product with the precision matrix.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    g: Vec<f64>,
    h: Vec<f64>,
}

impl Form {
    /// From the moments of the features of healthy rows.
    pub fn of(moments: &Moments) -> Result<Self, NotInvertible> {
        let width = moments.width;
        let mean: Vec<f64> = moments.sum.iter().map(|sum| sum / moments.count).collect();
        let covariance = |row: usize, column: usize| {
            moments.gram_at(row, column) / moments.count - mean[row] * mean[column]
        };
        let sd: Vec<f64> = (0..width)
            .map(|column| covariance(column, column).max(0.0).sqrt())
            .map(|sd| if sd < 1e-3 { 1.0 } else { sd })
            .collect();
        let amount = (width as f64 / moments.count).clamp(SHRINKAGE, MOST_SHRINKAGE);
        let correlation = Symmetric::from_fn(width, |row, column| {
            covariance(row, column) / (sd[row] * sd[column])
        });
        let precision = correlation.shrunk(amount).inverse()?;
        Ok(Self {
            mean,
            sd,
            precision,
        })
    }

    /// Lays the form out for batches.
    pub fn kernel(&self) -> FormKernel {
        FormKernel {
            mean: self.mean.clone(),
            sd: self.sd.clone(),
            panels: Panels::new(&self.precision),
            diagonal: (0..self.precision.order)
                .map(|at| self.precision.at(at, at))
                .collect(),
        }
    }
}

impl FormKernel {
    /// Numbers it holds.
    pub fn numbers(&self) -> usize {
        self.mean.len() + self.sd.len() + self.diagonal.len() + self.panels.numbers()
    }

    /// Features per row.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// `q1` and `q2` of row `index` of a multiplied batch.
    pub fn scores(&self, batch: &Batch, index: usize) -> (f64, f64) {
        let (g, h) = batch.row(index, self.width());
        let q1: f64 = g.iter().zip(h).map(|(g, h)| g * h).sum();
        let q2: f64 = g[2 * g.len() / 3..].iter().map(|g| g * g).sum();
        (q1.max(0.0), q2)
    }

    /// The share of each sensor in `q1` (`of_q1`) or in `q2` of row `index`, written to `out`, summing to 1.
    pub fn contributions(&self, batch: &Batch, index: usize, of_q1: bool, out: &mut [f64]) {
        let (g, h) = batch.row(index, self.width());
        let sensors = out.len();
        for (sensor, out) in out.iter_mut().enumerate() {
            *out = if of_q1 {
                (0..3)
                    .map(|block| block * sensors + sensor)
                    .map(|at| h[at] * h[at] / self.diagonal[at])
                    .sum()
            } else {
                g[2 * sensors + sensor] * g[2 * sensors + sensor]
            };
        }
        let total: f64 = out.iter().sum();
        for value in out {
            *value /= total.max(1e-12);
        }
    }
}

impl Batch {
    /// Empties the batch.
    pub fn clear(&mut self) {
        self.g.clear();
    }

    /// Adds a row of features.
    pub fn push(&mut self, kernel: &FormKernel, features: &[f64]) {
        let standardised = features.iter().zip(&kernel.mean).zip(&kernel.sd);
        self.g.extend(
            standardised.map(|((value, mean), sd)| ((value - mean) / sd).clamp(-CLIP, CLIP)),
        );
    }

    /// Multiplies all rows by the precision matrix.
    pub fn multiply(&mut self, kernel: &FormKernel) {
        self.h.resize(self.g.len(), 0.0);
        kernel.panels.multiply(&self.g, &mut self.h);
    }

    fn row(&self, index: usize, width: usize) -> (&[f64], &[f64]) {
        let range = index * width..(index + 1) * width;
        (&self.g[range.clone()], &self.h[range])
    }
}
