//! How long a store that is away is waited for, by executions and jobs alike: what it costs to begin again is theirs, that
//! it may come back is the store's. Real time; a schedule has nothing to do with it.

use std::time::Duration;

use tokio::time::Instant;

/// Longer than a store takes to start.
const STORE_MAY_BE_AWAY: Duration = Duration::from_secs(120);
/// First and longest pause between two attempts.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// What is left of it for a piece of work; a new one begins whenever the work gets on.
#[derive(Debug)]
pub struct Patience {
    began: Instant,
    pause: Duration,
}

impl Patience {
    /// All of it.
    pub fn begin() -> Patience {
        Patience {
            began: Instant::now(),
            pause: PAUSES[0],
        }
    }

    /// Whether what passes is tried again.
    pub fn is_left(&self) -> bool {
        self.began.elapsed() < STORE_MAY_BE_AWAY
    }

    /// Waits before the next attempt, each time for longer.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stays_away_is_asked_a_bounded_number_of_times() {
        let mut patience = Patience::begin();
        let mut asked = 1;
        while patience.is_left() {
            patience.pause().await;
            asked += 1;
        }
        assert!((10..20).contains(&asked), "{asked}");
    }
}
