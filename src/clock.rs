//! The only reader of the time. Task loops ask a [`Clock`]; everything below them takes `now` as an argument.
//!
//! Three forms: the system clock, an accelerated clock for demonstrations, replays and simulations, and a manual clock for
//! single steps. All give UTC. Sleeping re-checks the wall clock at least once a second, so a stepped clock delays or
//! advances a wake-up by no more than that. A pause has a length and no time of day: no step prolongs it.
//!
//! It does not schedule anything and knows no cadence; what is due is decided from the ledger and `now`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a sleep may go without looking at the wall clock again.
const RECHECK: Duration = Duration::from_secs(1);

/// A clock that shows less has not been set: nothing of lookoutd existed then. A machine without a battery boots in 1970, or
/// when its system was built.
const EARLIEST: i64 = 1_735_689_600; // 2025-01-01

/// Whether a clock that shows `now` has been set at all.
pub fn is_set(now: DateTime<Utc>) -> bool {
    now.timestamp() >= EARLIEST
}

/// A source of wall-clock time in UTC, cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System,
    Accelerated {
        start: DateTime<Utc>,
        origin: Instant,
        speed: f64,
        /// Microseconds by which it was stepped.
        stepped: Arc<AtomicI64>,
    },
    Manual(Arc<watch::Sender<DateTime<Utc>>>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Kind::System)
    }

    /// A clock that shows `start` now and runs `speed` times as fast as real time. `speed` must be above zero.
    pub fn accelerated(start: DateTime<Utc>, speed: f64) -> Self {
        Self(Kind::Accelerated {
            start,
            origin: Instant::now(),
            speed: speed.max(1e-6),
            stepped: Arc::default(),
        })
    }

    /// A clock that moves only when told to, see [`Clock::advance_to`].
    pub fn manual(start: DateTime<Utc>) -> Self {
        Self(Kind::Manual(Arc::new(watch::Sender::new(start))))
    }

    /// The current time of this clock.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            Kind::System => system_now(),
            Kind::Accelerated {
                start,
                origin,
                speed,
                stepped,
            } => {
                let elapsed = origin.elapsed().as_secs_f64() * speed;
                let stepped = stepped.load(Ordering::Relaxed);
                *start + TimeDelta::microseconds((elapsed * 1e6) as i64 + stepped)
            }
            Kind::Manual(sender) => *sender.borrow(),
        }
    }

    /// How much faster than real time this clock runs: 1 for the system clock, 0 for a manual one.
    pub fn speed(&self) -> f64 {
        match &self.0 {
            Kind::System => 1.0,
            Kind::Accelerated { speed, .. } => *speed,
            Kind::Manual(_) => 0.0,
        }
    }

    /// Whether this is the machine's clock, the form that the cron scheduler serves.
    pub fn is_system(&self) -> bool {
        matches!(self.0, Kind::System)
    }

    /// Returns once [`Clock::now`] is at or after `deadline`.
    pub async fn sleep_until(&self, deadline: DateTime<Utc>) {
        match &self.0 {
            Kind::System => loop {
                let left = deadline - system_now();
                let Ok(left) = left.to_std() else { return };
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(RECHECK)).await;
            },
            Kind::Accelerated { speed, .. } => loop {
                let left = deadline - self.now();
                let Ok(left) = left.to_std() else { return };
                if left.is_zero() {
                    return;
                }
                let left = left.div_f64(*speed).min(RECHECK);
                tokio::time::sleep(left.max(Duration::from_millis(1))).await;
            },
            Kind::Manual(sender) => {
                let mut receiver = sender.subscribe();
                // The sender lives in `self`, so waiting cannot fail while this future is alive.
                let _ = receiver.wait_for(|now| *now >= deadline).await;
            }
        }
    }

    /// Returns once this clock has been set, see [`is_set`].
    pub async fn set(&self) {
        let earliest = DateTime::from_timestamp(EARLIEST, 0).unwrap_or_default();
        self.sleep_until(earliest).await;
    }

    /// Returns after `duration` of this clock's pace, whether the clock is stepped meanwhile or not: for what is to be tried
    /// again in a while. On a manual clock a step back ends the pause, since nothing else passes there.
    pub async fn pause(&self, duration: Duration) {
        match &self.0 {
            Kind::System => tokio::time::sleep(duration).await,
            Kind::Accelerated { speed, .. } => {
                tokio::time::sleep(duration.div_f64(*speed).max(Duration::from_millis(1))).await;
            }
            Kind::Manual(sender) => {
                let begun = self.now();
                let over = begun
                    .checked_add_signed(TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX))
                    .unwrap_or(DateTime::<Utc>::MAX_UTC);
                let mut receiver = sender.subscribe();
                // The sender lives in `self`, so waiting cannot fail while this future is alive.
                let _ = receiver.wait_for(|now| *now >= over || *now < begun).await;
            }
        }
    }

    /// Sets a manual clock to `now`, forward or backward, and wakes its sleepers. Other forms ignore it.
    pub fn advance_to(&self, now: DateTime<Utc>) {
        if let Kind::Manual(sender) = &self.0 {
            sender.send_replace(now);
        }
    }

    /// Moves a manual clock by `step`, or steps an accelerated one, as an operator or NTP steps a machine's. The system
    /// clock ignores it.
    pub fn advance(&self, step: TimeDelta) {
        match &self.0 {
            Kind::System => {}
            Kind::Accelerated { stepped, .. } => {
                let micros = step.num_microseconds().unwrap_or_default();
                stepped.fetch_add(micros, Ordering::Relaxed);
            }
            Kind::Manual(sender) => sender.send_modify(|now| *now += step),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the machine's clock"
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

    #[tokio::test(start_paused = true)]
    async fn accelerated_clock_runs_at_its_speed() {
        let clock = Clock::accelerated(at(1_000), 60.0);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(clock.now(), at(1_300));
        clock.sleep_until(at(1_900)).await;
        assert!(clock.now() >= at(1_900) && clock.now() < at(1_901));
    }

    #[tokio::test(start_paused = true)]
    async fn an_accelerated_clock_that_is_stepped_wakes_its_sleepers_within_a_second() {
        let clock = Clock::accelerated(at(1_000), 60.0);
        let sleeper = {
            let clock = clock.clone();
            tokio::spawn(async move {
                clock.sleep_until(at(10_000)).await;
                Instant::now()
            })
        };
        tokio::time::sleep(Duration::from_millis(500)).await;
        let stepped = Instant::now();
        clock.advance(TimeDelta::hours(3));
        assert!(sleeper.await.unwrap() - stepped <= RECHECK);
        clock.advance(TimeDelta::hours(-3));
        assert!(clock.now() < at(1_100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_as_long_although_the_clock_is_stepped_back() {
        let clock = Clock::accelerated(at(1_000_000), 60.0);
        let begun = Instant::now();
        let sleeper = {
            let clock = clock.clone();
            tokio::spawn(async move {
                clock.pause(Duration::from_secs(600)).await;
                Instant::now()
            })
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        clock.advance(TimeDelta::days(-1));
        assert_eq!(sleeper.await.unwrap() - begun, Duration::from_secs(10));
    }

    #[tokio::test]
    async fn manual_clock_wakes_sleepers_when_it_is_advanced() {
        let clock = Clock::manual(at(0));
        let sleeper = {
            let clock = clock.clone();
            tokio::spawn(async move {
                clock.sleep_until(at(300)).await;
                clock.now()
            })
        };
        tokio::task::yield_now().await;
        clock.advance(TimeDelta::seconds(299));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance_to(at(400));
        assert_eq!(sleeper.await.unwrap(), at(400));
    }
}
