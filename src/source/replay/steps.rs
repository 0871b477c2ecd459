//! The sampling interval of a history, found while its times stream by.
//!
//! Guarantees: memory is bounded, and the same history gives the same answer; beyond 16,384 steps it is the median of an
//! even selection of them.

/// The median of a stream of steps in bounded memory: every step at first, then every second, every fourth, ...
pub(super) struct Steps {
    kept: Vec<u64>,
    stride: u64,
    seen: u64,
}

impl Default for Steps {
    fn default() -> Self {
        Steps {
            kept: Vec::new(),
            stride: 1,
            seen: 0,
        }
    }
}

impl Steps {
    const KEPT: usize = 16_384;

    /// Adds the distance between two consecutive times; none between equal ones.
    pub fn add(&mut self, step: u64) {
        if step == 0 {
            return;
        }
        self.seen += 1;
        if !self.seen.is_multiple_of(self.stride) {
            return;
        }
        self.kept.push(step);
        if self.kept.len() == Self::KEPT {
            let mut odd = false;
            self.kept.retain(|_| {
                odd = !odd;
                odd
            });
            self.stride *= 2;
        }
    }

    /// The median of what was kept; `None` without a step.
    pub fn median(mut self) -> Option<i64> {
        self.kept.sort_unstable();
        self.kept
            .get(self.kept.len() / 2)
            .and_then(|step| i64::try_from(*step).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn median(steps: impl Iterator<Item = u64>) -> Option<i64> {
        let mut all = Steps::default();
        steps.for_each(|step| all.add(step));
        assert!(all.kept.len() <= Steps::KEPT);
        all.median()
    }

    #[test]
    fn gaps_and_duplicates_do_not_move_the_interval() {
        assert_eq!(
            median([60, 60, 0, 0, 0, 86_400, 60, 30].into_iter()),
            Some(60)
        );
        assert_eq!(median(std::iter::repeat_n(0, 5)), None);
    }

    #[test]
    fn a_long_stream_stays_bounded_and_keeps_its_median() {
        let steps = (0..1_000_000u64).map(|n| if n % 3 == 0 { 1 } else { 60 });
        assert_eq!(median(steps), Some(60));
    }
}
