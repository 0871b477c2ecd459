//! How many uploads go on at once, and how long each may take, found out from how they fare.
//!
//! Guarantees: uploads make progress on every line. On a fast one as many go on at once as a window has components; on a slow one
//! they share it one or a few at a time, so that each is done before its deadline; and a deadline that was too short for its
//! bytes grows until one is done. It reads no clock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Uploads at once: at first, and at most, over both lanes. One round trip for a window of up to this many components.
const AT_FIRST: usize = 4;
const AT_MOST: usize = 32;
/// An upload of less than this leaves room for another one beside it; one of more says that too many share the line.
const QUICK: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(5);
/// Bytes a second that every line is taken to carry at first.
const RATE: u64 = 4_000;
/// How often the time for the bytes is doubled.
const DOUBLINGS: u32 = 6;

/// The pace of both lanes.
pub(super) struct Pace {
    /// What the store may take to answer, whatever the line.
    answer: Duration,
    permits: Semaphore,
    state: Mutex<State>,
}

struct State {
    /// Uploads that may go on at once.
    limit: usize,
    /// Permits to be taken out of use as they come back.
    owed: usize,
    /// How often the time for the bytes was doubled.
    doublings: u32,
}

/// Leave to upload one file.
pub(super) struct Turn<'a> {
    pace: &'a Pace,
    permit: Option<SemaphorePermit<'a>>,
    bytes: u64,
}

/// How an upload fared, as far as the pace goes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fared {
    /// The store has the file, after this long.
    Done(Duration),
    /// It was not done in its time.
    TimedOut,
    /// The store said something else.
    Otherwise,
}

impl Pace {
    /// A pace for a store that may take `answer` to answer, whatever the line.
    pub fn new(answer: Duration) -> Self {
        Self {
            answer,
            permits: Semaphore::new(AT_FIRST),
            state: Mutex::new(State {
                limit: AT_FIRST,
                owed: 0,
                doublings: 0,
            }),
        }
    }

    /// Waits for the turn of a file of so many bytes.
    pub async fn turn(&self, bytes: u64) -> Turn<'_> {
        Turn {
            pace: self,
            permit: self.permits.acquire().await.ok(),
            bytes,
        }
    }

    /// The time that a file of so many bytes has: what an answer takes, and what its bytes take on a line that is shared.
    fn deadline(&self, bytes: u64) -> Duration {
        let state = self.state();
        let millis = bytes.saturating_mul(1000 * state.limit as u64) / RATE;
        self.answer + Duration::from_millis(millis << state.doublings.min(DOUBLINGS))
    }

    fn fared(&self, fared: Fared) {
        let mut state = self.state();
        match fared {
            Fared::Done(took) => {
                // The line carries it: the next may be tried as if nothing had been.
                state.doublings = state
                    .doublings
                    .saturating_sub(u32::from(took < self.answer));
                if took < QUICK && state.limit < AT_MOST {
                    state.limit += 1;
                    if state.owed > 0 {
                        state.owed -= 1;
                    } else {
                        self.permits.add_permits(1);
                    }
                } else if took > SLOW {
                    self.lower(&mut state, 1);
                }
            }
            Fared::TimedOut => {
                let half = state.limit / 2;
                self.lower(&mut state, half);
                state.doublings = (state.doublings + 1).min(DOUBLINGS);
            }
            Fared::Otherwise => {}
        }
    }

    fn lower(&self, state: &mut State, by: usize) {
        let by = by.min(state.limit - 1);
        state.limit -= by;
        state.owed += by - self.permits.forget_permits(by);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// The time this upload has.
    pub fn deadline(&self) -> Duration {
        self.pace.deadline(self.bytes)
    }

    /// Tells how it fared, and lets the next one.
    pub fn over(self, fared: Fared) {
        self.pace.fared(fared);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.pace.state();
        if state.owed > 0
            && let Some(permit) = self.permit.take()
        {
            state.owed -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Duration::from_secs(30))
    }

    /// Sends files one window after the other over a line, all that have a turn sharing it, for so many seconds of its time;
    /// returns how many came through, and how many seconds were spent on what was given up.
    async fn send(rate: f64, file: u64, seconds: f64) -> (usize, f64) {
        let pace = pace();
        let (mut now, mut done, mut lost) = (0.0, 0, 0.0);
        while now < seconds {
            let together = pace.permits.available_permits();
            let mut turns = Vec::new();
            for _ in 0..together {
                turns.push(pace.turn(file).await);
            }
            let took = file as f64 * together as f64 / rate + 0.05;
            let given = turns[0].deadline().as_secs_f64();
            now += took.min(given);
            for turn in turns {
                if took > given {
                    turn.over(Fared::TimedOut);
                } else {
                    done += 1;
                    turn.over(Fared::Done(Duration::from_secs_f64(took)));
                }
            }
            if took > given {
                lost += given;
            }
        }
        (done, lost)
    }

    #[tokio::test]
    async fn every_line_is_used_whatever_it_carries() {
        // 24 files of 50 kB. Side by side they share the line, so that together they take what one after the other takes.
        let (done, lost) = send(25_000.0, 50_000, 60.0).await;
        assert!(done >= 26 && lost == 0.0, "{done} {lost}");
        let (done, lost) = send(4_000.0, 50_000, 300.0).await;
        assert!(done >= 22 && lost == 0.0, "{done} {lost}");
        // A line that carries less than what is expected of it at first finds its pace within minutes.
        let (done, _) = send(1_000.0, 50_000, 1800.0).await;
        assert!(done >= 20, "{done}");
        let (done, _) = send(100.0, 50_000, 6.0 * 3600.0).await;
        assert!(done >= 10, "{done}");
    }

    #[tokio::test]
    async fn a_fast_line_soon_carries_a_window_in_one_round_trip() {
        let pace = pace();
        let mut rounds = 0;
        while pace.state().limit < AT_MOST {
            let together = pace.permits.available_permits();
            let mut turns = Vec::new();
            for _ in 0..together {
                turns.push(pace.turn(3_000).await);
            }
            for turn in turns {
                turn.over(Fared::Done(Duration::from_millis(50)));
            }
            rounds += 1;
        }
        assert_eq!((rounds, pace.permits.available_permits()), (3, AT_MOST));
        assert!(pace.deadline(3_000) < Duration::from_secs(60));
    }

    #[tokio::test]
    async fn uploads_that_are_under_way_when_the_pace_is_lowered_are_the_last_of_theirs() {
        let pace = pace();
        let mut turns = Vec::new();
        for _ in 0..AT_FIRST {
            turns.push(pace.turn(1).await);
        }
        turns.remove(0).over(Fared::TimedOut);
        assert_eq!(
            (pace.state().limit, pace.permits.available_permits()),
            (2, 0)
        );
        turns.remove(0).over(Fared::Otherwise);
        assert_eq!(pace.permits.available_permits(), 0);
        turns.clear();
        assert_eq!(
            (pace.permits.available_permits(), pace.state().owed),
            (2, 0)
        );
        // It never comes to rest.
        for _ in 0..10 {
            pace.turn(1).await.over(Fared::TimedOut);
        }
        assert_eq!(
            (pace.state().limit, pace.permits.available_permits()),
            (1, 1)
        );
    }
}
