//! How many uploads go on at once, and how long each may take, found out from how they fare.
//!
//! Guarantees: uploads make progress on every line. On a fast one as many go on at once as a window has components; on a slow one
//! they share it one or a few at a time, so that each is done before its deadline; and a deadline that was too short for its
//! bytes grows until one is done. It reads no clock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::Lane;

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

/// Files read from the spool at once. It takes less time than an upload, and every thread that reads keeps memory.
const READING: usize = 2;

/// The uploads of all shippers of a process. Cheap to clone.
#[derive(Clone)]
pub struct Budget {
    pace: Arc<OnceLock<Arc<Pace>>>,
    reading: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            pace: Arc::default(),
            reading: Arc::new(Semaphore::new(READING)),
        }
    }
}

impl Budget {
    /// The one pace, for a store that may take `answer` to answer, whatever the line.
    pub(super) fn of(&self, answer: Duration) -> Arc<Pace> {
        self.pace
            .get_or_init(|| Arc::new(Pace::new(answer)))
            .clone()
    }

    /// Leave to read one file.
    pub(super) async fn reading(&self) -> Option<SemaphorePermit<'_>> {
        self.reading.acquire().await.ok()
    }
}

/// The pace of all lanes.
pub(super) struct Pace {
    /// What the store may take to answer, whatever the line.
    answer: Duration,
    state: Mutex<State>,
}

struct State {
    /// Uploads that may go on at once.
    limit: usize,
    /// Uploads that go on. It may be more than the limit, where that was lowered.
    busy: usize,
    /// How often the time for the bytes was doubled.
    doublings: u32,
    /// Who waits for a turn, in the order in which they came: an asset has one window of a lane under way, so nobody has two
    /// while another has none.
    live: VecDeque<oneshot::Sender<Leave>>,
    backlog: VecDeque<oneshot::Sender<Leave>>,
}

/// One upload may go on.
struct Leave(Option<Arc<Pace>>);

/// Leave to upload one file.
pub(super) struct Turn {
    pace: Arc<Pace>,
    /// Given back when it is dropped.
    _leave: Leave,
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
            state: Mutex::new(State {
                limit: AT_FIRST,
                busy: 0,
                doublings: 0,
                live: VecDeque::new(),
                backlog: VecDeque::new(),
            }),
        }
    }

    /// Waits for the turn of a file of so many bytes: whatever lane waits, a live window goes first.
    pub async fn turn(self: Arc<Self>, bytes: u64, lane: Lane) -> Turn {
        let waits = {
            let mut state = self.state();
            let is_first = match lane {
                Lane::Live => state.live.is_empty(),
                Lane::Backlog => state.live.is_empty() && state.backlog.is_empty(),
            };
            if is_first && state.busy < state.limit {
                state.busy += 1;
                None
            } else {
                let (given, waits) = oneshot::channel();
                match lane {
                    Lane::Live => state.live.push_back(given),
                    Lane::Backlog => state.backlog.push_back(given),
                }
                Some(waits)
            }
        };
        let leave = match waits {
            None => Leave(Some(self.clone())),
            // Whoever gives turns is this very pace, and it is here.
            Some(waits) => waits.await.unwrap_or(Leave(None)),
        };
        Turn {
            pace: self,
            _leave: leave,
            bytes,
        }
    }

    /// Gives what is free to those who wait.
    fn give(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state();
                if state.busy >= state.limit {
                    return;
                }
                let Some(next) = state.live.pop_front().or_else(|| state.backlog.pop_front())
                else {
                    return;
                };
                state.busy += 1;
                next
            };
            // From one who does not wait any more it goes to the next.
            if let Err(mut back) = next.send(Leave(Some(self.clone()))) {
                back.0 = None;
                self.state().busy -= 1;
            }
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
                } else if took > SLOW {
                    state.limit -= 1.min(state.limit - 1);
                }
            }
            Fared::TimedOut => {
                state.limit -= state.limit / 2;
                state.doublings = (state.doublings + 1).min(DOUBLINGS);
            }
            Fared::Otherwise => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// The time this upload has.
    pub fn deadline(&self) -> Duration {
        self.pace.deadline(self.bytes)
    }

    /// Tells how it fared, and lets the next one.
    pub fn over(self, fared: Fared) {
        self.pace.fared(fared);
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(pace) = self.0.take() {
            pace.state().busy -= 1;
            pace.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Arc<Pace> {
        Arc::new(Pace::new(Duration::from_secs(30)))
    }

    fn free(pace: &Pace) -> usize {
        let state = pace.state();
        state.limit.saturating_sub(state.busy)
    }

    async fn turn(pace: &Arc<Pace>, bytes: u64) -> Turn {
        pace.clone().turn(bytes, Lane::Backlog).await
    }

    /// Sends files one window after the other over a line, all that have a turn sharing it, for so many seconds of its time;
    /// returns how many came through, and how many seconds were spent on what was given up.
    async fn send(rate: f64, file: u64, seconds: f64) -> (usize, f64) {
        let pace = pace();
        let (mut now, mut done, mut lost) = (0.0, 0, 0.0);
        while now < seconds {
            let together = free(&pace);
            let mut turns = Vec::new();
            for _ in 0..together {
                turns.push(turn(&pace, file).await);
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
            let together = free(&pace);
            let mut turns = Vec::new();
            for _ in 0..together {
                turns.push(turn(&pace, 3_000).await);
            }
            for turn in turns {
                turn.over(Fared::Done(Duration::from_millis(50)));
            }
            rounds += 1;
        }
        assert_eq!((rounds, free(&pace)), (3, AT_MOST));
        assert!(pace.deadline(3_000) < Duration::from_secs(60));
    }

    #[tokio::test]
    async fn uploads_that_are_under_way_when_the_pace_is_lowered_are_the_last_of_theirs() {
        let pace = pace();
        let mut turns = Vec::new();
        for _ in 0..AT_FIRST {
            turns.push(turn(&pace, 1).await);
        }
        turns.remove(0).over(Fared::TimedOut);
        let limit = pace.state().limit;
        assert_eq!((limit, free(&pace)), (2, 0));
        turns.remove(0).over(Fared::Otherwise);
        assert_eq!(free(&pace), 0);
        turns.clear();
        let busy = pace.state().busy;
        assert_eq!((free(&pace), busy), (2, 0));
        // It never comes to rest.
        for _ in 0..10 {
            turn(&pace, 1).await.over(Fared::TimedOut);
        }
        let limit = pace.state().limit;
        assert_eq!((limit, free(&pace)), (1, 1));
    }

    #[tokio::test]
    async fn live_windows_go_before_any_backlog_and_who_gives_up_holds_nothing() {
        let pace = pace();
        let mut held = Vec::new();
        for _ in 0..AT_FIRST {
            held.push(turn(&pace, 1).await);
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for (name, lane) in [
            ("backlog 1", Lane::Backlog),
            ("given up", Lane::Live),
            ("backlog 2", Lane::Backlog),
            ("live 1", Lane::Live),
            ("live 2", Lane::Live),
        ] {
            let (pace, order) = (pace.clone(), order.clone());
            waiting.push(tokio::spawn(async move {
                let turn = pace.turn(1, lane).await;
                order.lock().unwrap().push(name);
                turn.over(Fared::Otherwise);
            }));
            tokio::task::yield_now().await;
        }
        waiting.remove(1).abort();
        tokio::task::yield_now().await;
        held.pop();
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(
            *order.lock().unwrap(),
            ["live 1", "live 2", "backlog 1", "backlog 2"]
        );
        held.clear();
        assert_eq!(pace.state().busy, 0);
    }
}
