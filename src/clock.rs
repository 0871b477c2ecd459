//! The time. The only file that reads a clock; everything else takes `now` as an argument.
//!
//! Guarantees: `sleep_until` never returns before its instant by this clock, and a step of the wall clock in either
//! direction is seen within a second. Deliberately no trait: one concrete type with three sources, so that a simulated
//! day runs the same code as a real one.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::time::Instant;

/// How often a sleeping task looks at the wall clock again, so that a stepped clock is noticed.
const RECHECK: Duration = Duration::from_secs(1);

/// Where `now` comes from. Cheap to clone; clones share one time.
#[derive(Clone, Debug)]
pub struct Clock(Time);

#[derive(Clone, Debug)]
enum Time {
    System,
    Accelerated {
        start: DateTime<Utc>,
        began: Instant,
        speed: f64,
    },
    Manual(Arc<watch::Sender<DateTime<Utc>>>),
}

impl Clock {
    /// The wall clock.
    pub fn system() -> Clock {
        Clock(Time::System)
    }

    /// A clock that stands at `start` now and runs `speed` times as fast as the wall clock.
    pub fn accelerated(start: DateTime<Utc>, speed: f64) -> Clock {
        Clock(Time::Accelerated {
            start,
            began: Instant::now(),
            speed: speed.max(f64::MIN_POSITIVE),
        })
    }

    /// A clock that stands still until it is advanced.
    pub fn manual(start: DateTime<Utc>) -> Clock {
        Clock(Time::Manual(Arc::new(watch::Sender::new(start))))
    }

    /// The current time of this clock, UTC.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            Time::System => system_now(),
            Time::Accelerated {
                start,
                began,
                speed,
            } => {
                let elapsed = began.elapsed().as_secs_f64() * speed;
                *start + TimeDelta::microseconds((elapsed * 1e6) as i64)
            }
            Time::Manual(time) => *time.borrow(),
        }
    }

    /// Returns once this clock shows `until` or later.
    pub async fn sleep_until(&self, until: DateTime<Utc>) {
        if let Time::Manual(time) = &self.0 {
            let mut seen = time.subscribe();
            // The sender lives in `self`, so this wait cannot end by a closed channel.
            let _ = seen.wait_for(|now| *now >= until).await;
            return;
        }
        loop {
            let left = until - self.now();
            let Ok(left) = left.to_std() else { return };
            if left.is_zero() {
                return;
            }
            let real = match &self.0 {
                Time::Accelerated { speed, .. } => left.div_f64(speed.max(1e-6)),
                _ => left,
            };
            tokio::time::sleep(real.clamp(Duration::from_micros(100), RECHECK)).await;
        }
    }

    /// Moves a manual clock forward by `by`; the other clocks move by themselves and ignore it.
    pub fn advance(&self, by: TimeDelta) {
        self.advance_to(self.now() + by);
    }

    /// Moves a manual clock to `to` and wakes who waited for it; the other clocks ignore it.
    pub fn advance_to(&self, to: DateTime<Utc>) {
        if let Time::Manual(time) = &self.0 {
            time.send_replace(to);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
fn system_now() -> DateTime<Utc> {
    Utc::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_only_when_advanced_far_enough() {
        let clock = Clock::manual(at(100));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep_until(at(200)).await;
                clock.now()
            }
        });
        clock.advance_to(at(199));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(TimeDelta::seconds(6));
        assert_eq!(sleeper.await.unwrap(), at(205));
    }

    #[tokio::test]
    async fn an_accelerated_clock_sleeps_for_the_scaled_time() {
        let clock = Clock::accelerated(at(0), 600.0);
        let began = Instant::now();
        clock.sleep_until(at(60)).await;
        assert!(clock.now() >= at(60));
        assert!(began.elapsed() >= Duration::from_millis(100));
    }
}
