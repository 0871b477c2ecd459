//! Whether a clock is to be trusted with deletions: it goes as fast as time does, which no step of it moves.
//!
//! A step is doubted for a day, in which somebody may put it back; then it is taken for what is right. A machine that slept
//! looks as if its clock had been stepped, and is doubted likewise.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

/// So long a step is doubted.
const DOUBTED: Duration = Duration::from_secs(86_400);

/// A clock that is watched.
#[derive(Debug)]
pub struct Trust {
    /// Of its time to real time; none passes on a clock that is moved by hand.
    speed: f64,
    /// When it was right, and what it showed then.
    right: (Instant, DateTime<Utc>),
    /// Since when it is not where it should be.
    stepped: Option<Instant>,
}

impl Trust {
    /// Of a clock that goes so fast and shows `wall` now.
    pub fn new(speed: f64, now: Instant, wall: DateTime<Utc>) -> Self {
        Self {
            speed,
            right: (now, wall),
            stepped: None,
        }
    }

    /// What it shows now is right.
    pub fn begin(&mut self, now: Instant, wall: DateTime<Utc>) {
        self.right = (now, wall);
        self.stepped = None;
    }

    /// Looks at it; a step that is shorter than `harmless` is none.
    pub fn look(&mut self, now: Instant, wall: DateTime<Utc>, harmless: Duration) {
        let of_reading = Duration::from_secs(1).mul_f64(self.speed);
        let off = self.off(now, wall).abs();
        let off = off.to_std().unwrap_or(Duration::MAX);
        if self.speed == 0.0 || off <= harmless.saturating_add(of_reading) {
            // Also after it was put back.
            return self.begin(now, wall);
        }
        let since = *self.stepped.get_or_insert(now);
        if (now - since).mul_f64(self.speed) >= DOUBTED {
            self.begin(now, wall);
        }
    }

    /// Why it is not trusted, where it is not.
    pub fn doubt(&self, now: Instant, wall: DateTime<Utc>) -> Option<String> {
        self.stepped?;
        let off = self.off(now, wall);
        let span = Duration::from_secs(off.num_seconds().unsigned_abs());
        let direction = match off < TimeDelta::zero() {
            true => "back",
            false => "forward",
        };
        Some(format!(
            "the machine's clock was stepped {direction} by {}, or the machine slept",
            humantime::format_duration(span)
        ))
    }

    /// By how much it is ahead of where it should be.
    fn off(&self, now: Instant, wall: DateTime<Utc>) -> TimeDelta {
        let passed = (now - self.right.0).mul_f64(self.speed);
        let passed = TimeDelta::from_std(passed).unwrap_or(TimeDelta::MAX);
        (wall - self.right.1) - passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn a_step_is_doubted_until_it_is_put_back_or_a_day_has_passed() {
        let began = Instant::now();
        let mut trust = Trust::new(1.0, began, at(0));
        let mut look = |hour: u32, wall: i64| {
            let now = began + HOUR * hour;
            trust.look(now, at(wall), HOUR);
            trust.doubt(now, at(wall))
        };
        // A clock that is drawn slowly is none that is stepped, however far it comes.
        for hour in 1..=100 {
            assert_eq!(look(hour, i64::from(hour) * 3_660), None);
        }
        let right = |hour: u32| 100 * 3_660 + (i64::from(hour) - 100) * 3_600;
        let doubt = look(101, right(101) + 3 * 86_400).unwrap();
        assert!(doubt.contains("forward by 3days"), "{doubt}");
        assert_eq!(look(102, right(102)), None, "put back");
        for hour in 103..127 {
            let doubt = look(hour, right(hour) - 2 * 86_400).unwrap();
            assert!(doubt.contains("back by 2days"), "{doubt}");
        }
        assert_eq!(look(127, right(127) - 2 * 86_400), None, "it is what it is");
        assert!(look(128, right(128)).is_some());
    }

    #[test]
    fn a_clock_that_is_moved_by_hand_is_trusted() {
        let began = Instant::now();
        let mut trust = Trust::new(0.0, began, at(0));
        trust.look(began, at(1_000_000), HOUR);
        assert_eq!(trust.doubt(began, at(0)), None);
    }
}
