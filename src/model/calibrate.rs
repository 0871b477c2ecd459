//! From a quadratic form to a tail probability, and from tail probabilities to a threshold.
//!
//! `u` is about -log10 of the probability that a healthy row shows a value as large. Above the 98 % quantile the tail is
//! a power law whose exponent is Hill's estimator (Hill 1975); below it is interpolated through the median.

use serde::{Deserialize, Serialize};

use super::events::training_events;

/// The largest `u` reported: beyond it the numbers say nothing more.
const HIGHEST: f64 = 30.0;
/// -log10(0.02) and -log10(0.5), to the five decimals of the specification.
const U98: f64 = 1.69897;
#[expect(
    clippy::approx_constant,
    reason = "the rounded number is part of the specification"
)]
const U50: f64 = 0.30103;
/// The quantiles tried for the threshold, lowest first.
const CANDIDATES: [f64; 7] = [0.995, 0.996, 0.997, 0.998, 0.9985, 0.999, 0.9995];
/// The threshold is never below this.
const LOWEST_THRESHOLD: f64 = 0.5;

/// The tail of one score on out-of-fold healthy rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// Median.
    pub q50: f64,
    /// 98 % quantile.
    pub q98: f64,
    /// Hill's estimate of the tail index above `q98`, at least 0.02.
    pub xi: f64,
}

impl Tail {
    /// Measures a tail. `scores` is reordered.
    pub fn of(scores: &mut [f64]) -> Self {
        let q50 = quantile(scores, 0.5).max(1e-9);
        let q98 = quantile(scores, 0.98).max(q50 * 1.0001);
        let (mut sum, mut count) = (0.0, 0.0);
        for score in scores.iter().filter(|score| **score > q98) {
            sum += (score.max(1e-12) / q98).ln();
            count += 1.0;
        }
        let xi = if count > 0.0 { sum / count } else { 0.1 };
        Self {
            q50,
            q98,
            xi: xi.max(0.02),
        }
    }

    /// -log10 of the tail probability of `score`, between 0 and 30.
    pub fn u(&self, score: f64) -> f64 {
        let score = score.max(1e-12);
        if score > self.q98 {
            (U98 + (score / self.q98).log10() / self.xi).min(HIGHEST)
        } else {
            let share = (score / self.q50).ln() / (self.q98 / self.q50).ln();
            (U50 + (U98 - U50) * share).max(0.0)
        }
    }
}

/// The quantile `p` of the values with linear interpolation between order statistics (Hyndman and Fan's type 7).
/// `values` is reordered; the quantile of nothing is 0.
pub fn quantile(values: &mut [f64], p: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let position = (values.len() - 1) as f64 * p;
    let below = position.floor() as usize;
    let share = position - below as f64;
    let (_, low, above) = values.select_nth_unstable_by(below, f64::total_cmp);
    let low = *low;
    let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    if share >= 0.5 {
        high - (high - low) * (1.0 - share)
    } else {
        low + (high - low) * share
    }
}

/// The lowest candidate quantile of `u` at which the training rows show at most `rate` events per week.
/// Returns the threshold and the number of training events at it.
pub fn threshold(u: &[f64], rate_per_week: f64, weeks: f64) -> (f64, usize) {
    let mut values = u.to_vec();
    let mut level = LOWEST_THRESHOLD;
    for p in CANDIDATES {
        level = quantile(&mut values, p);
        if training_events(u.iter().map(|value| *value > level)) as f64 <= rate_per_week * weeks {
            break;
        }
    }
    let level = level.max(LOWEST_THRESHOLD);
    (level, training_events(u.iter().map(|value| *value > level)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_between_order_statistics() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&mut values, 0.5), 2.5);
        assert!((quantile(&mut values, 0.98) - 3.94).abs() < 1e-12);
        assert_eq!(quantile(&mut values, 1.0), 4.0);
        assert_eq!(quantile(&mut [7.0], 0.3), 7.0);
    }

    #[test]
    fn u_is_monotone_and_joins_at_the_98_percent_quantile() {
        let mut scores: Vec<f64> = (1..=1000)
            .map(|n| 1.0 / (1.0 - f64::from(n) / 1001.0))
            .collect();
        let tail = Tail::of(&mut scores);
        assert!((tail.u(tail.q50) - U50).abs() < 1e-12);
        assert!((tail.u(tail.q98) - U98).abs() < 1e-12);
        let mut previous = -1.0;
        for n in 0..500 {
            let u = tail.u(f64::from(n) * 0.5);
            assert!(u >= previous && (0.0..=30.0).contains(&u));
            previous = u;
        }
        // A Pareto tail of index 1: probability 1/1000 at 1000.
        assert!((tail.u(1000.0) - 3.0).abs() < 0.3, "{}", tail.u(1000.0));
    }

    #[test]
    fn the_threshold_rises_until_training_is_quiet_enough() {
        let mut u = vec![0.1; 10_000];
        for event in 0..10 {
            for row in 0..6 {
                u[500 + event * 900 + row] = 3.0 + event as f64;
            }
        }
        let (loose, many) = threshold(&u, 100.0, 1.0);
        let (tight, few) = threshold(&u, 2.0, 1.0);
        assert!(tight > loose, "{tight} {loose}");
        assert!(few <= 2 && many > few, "{many} {few}");
    }
}
