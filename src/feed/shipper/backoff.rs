//! How long a lane waits after a failed attempt: longer each time, spread at random, and never for good.
//!
//! It draws random numbers and reads no clock.

use std::time::Duration;

use crate::s3::Disposition;

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_THROTTLED: Duration = Duration::from_secs(4);
const BACKOFF_LONGEST: Duration = Duration::from_secs(300);
/// A live window is tried again within this, whatever the pause has grown to.
const BACKOFF_URGENT: Duration = Duration::from_secs(15);
/// Somebody has to act; once they have, uploads go on within a minute.
const BACKOFF_HOLD: Duration = Duration::from_secs(60);

/// Full-jitter exponential backoff, 1 s to 5 min, for ever.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
    urgent: bool,
}

impl Backoff {
    /// One that never waits long.
    pub(super) fn urgent() -> Self {
        Self {
            attempts: 0,
            urgent: true,
        }
    }

    /// How long to wait after another failure of this kind.
    pub(super) fn after(&mut self, disposition: Disposition) -> Duration {
        let (first, longest) = match disposition {
            Disposition::Throttled => (BACKOFF_THROTTLED, BACKOFF_LONGEST),
            Disposition::Hold(_) => (BACKOFF_FIRST, BACKOFF_HOLD),
            Disposition::Retry | Disposition::Exists => (BACKOFF_FIRST, BACKOFF_LONGEST),
        };
        let longest = if self.urgent {
            longest.min(BACKOFF_URGENT)
        } else {
            longest
        };
        let ceiling = first
            .saturating_mul(1 << self.attempts.min(12))
            .min(longest);
        self.attempts = self.attempts.saturating_add(1);
        // At least a tenth of the ceiling, so that full jitter never becomes a busy loop.
        ceiling.mul_f64(0.1 + 0.9 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_longest_and_never_ends() {
        let mut backoff = Backoff::default();
        let mut longest = Duration::ZERO;
        for attempt in 0..10_000 {
            let wait = backoff.after(Disposition::Retry);
            assert!(wait >= Duration::from_millis(100) && wait <= BACKOFF_LONGEST);
            if attempt == 0 {
                assert!(wait <= BACKOFF_FIRST);
            }
            longest = longest.max(wait);
        }
        assert!(longest > BACKOFF_LONGEST / 2);
        let mut held = Backoff {
            attempts: 50,
            urgent: false,
        };
        assert!(held.after(Disposition::Hold("act")) <= BACKOFF_HOLD);
    }

    #[test]
    fn a_live_window_is_tried_again_within_fifteen_seconds_however_long_the_outage() {
        let mut backoff = Backoff::urgent();
        for _ in 0..1_000 {
            for disposition in [
                Disposition::Retry,
                Disposition::Throttled,
                Disposition::Hold("act"),
            ] {
                assert!(backoff.after(disposition) <= Duration::from_secs(15));
            }
        }
    }
}
