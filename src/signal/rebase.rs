//! The rebase: the fixed mapping between recorded time and wall-clock UTC.
//!
//! Guarantees: the mapping is a shift, or with a period a shift that repeats; it never depends on when it is asked, so
//! a restart continues exactly where it left. Over one period every recorded row belongs to exactly one window.
//! The period is a multiple of the cadence and starts on a window's edge, so no window mixes the end of the history
//! with its beginning, except that under `(start, end]` a row recorded exactly on the first edge closes the last window.

use serde::{Deserialize, Serialize};

use super::cadence::Cadence;
use super::window::{RowRule, Window};

/// A fixed mapping of recorded time to wall time; all fields in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rebase {
    /// A recorded time: with a period, where each repetition begins.
    pub recorded_start: i64,
    /// The wall time at which `recorded_start` is played.
    pub wall_start: i64,
    /// After how long the recording repeats; `None` where it plays once.
    pub period: Option<i64>,
}

/// A stretch of recorded time that a window plays: rows with `first <= recorded <= last`, at `recorded + shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The first recorded microsecond.
    pub first: i64,
    /// The last recorded microsecond.
    pub last: i64,
    /// What to add to a recorded time to get the wall time.
    pub shift: i64,
}

impl Rebase {
    /// Plays the recording once: the instant recorded as `recorded` happens at `wall`.
    pub const fn once(recorded: i64, wall: i64) -> Rebase {
        Rebase {
            recorded_start: recorded,
            wall_start: wall,
            period: None,
        }
    }

    /// Plays the recording for ever: `recorded` happens at `wall`, and after the window that holds `last` comes the
    /// window that holds `first`. `first` and `last` are the history's first and last recorded times.
    pub const fn looping(
        recorded: i64,
        wall: i64,
        first: i64,
        last: i64,
        cadence: Cadence,
    ) -> Rebase {
        let step = cadence.micros();
        let recorded_start = first - (first - recorded).rem_euclid(step);
        let period = ((last - recorded_start).div_euclid(step) + 1) * step;
        Rebase {
            recorded_start,
            wall_start: wall - (recorded - recorded_start),
            period: Some(period),
        }
    }

    /// The recorded time that is played at `wall`.
    pub const fn recorded(&self, wall: i64) -> i64 {
        let elapsed = wall - self.wall_start;
        match self.period {
            Some(period) => self.recorded_start + elapsed.rem_euclid(period),
            None => self.recorded_start + elapsed,
        }
    }

    /// When `window` plays the row recorded at `recorded`, by `rows`; `None` where it does not.
    pub fn wall(&self, recorded: i64, window: &Window, rows: RowRule) -> Option<i64> {
        self.segments(window, rows)
            .into_iter()
            .find(|segment| segment.first <= recorded && recorded <= segment.last)
            .map(|segment| recorded + segment.shift)
    }

    /// The recorded stretches that `window` plays, in the order of their wall times. One, or two at the wrap.
    pub fn segments(&self, window: &Window, rows: RowRule) -> Vec<Segment> {
        let (mut wall, end) = rows.bounds(window);
        let Some(period) = self.period else {
            let shift = self.wall_start - self.recorded_start;
            return vec![Segment {
                first: wall - shift,
                last: end - shift,
                shift,
            }];
        };
        let mut segments = Vec::new();
        while wall <= end {
            let turn_start = self.wall_start + (wall - self.wall_start).div_euclid(period) * period;
            let last = end.min(turn_start + period - 1);
            let shift = turn_start - self.recorded_start;
            segments.push(Segment {
                first: wall - shift,
                last: last - shift,
                shift,
            });
            wall = last + 1;
        }
        segments
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn window(minutes: i64, cadence: Cadence) -> Window {
        let start = chrono::DateTime::from_timestamp_micros(minutes * MINUTE).unwrap();
        Window::containing(start, cadence)
    }

    #[test]
    fn once_is_a_shift() {
        let rebase = Rebase::once(1_000, 5_000);
        assert_eq!(rebase.recorded(5_007), 1_007);
        assert_eq!(rebase.recorded(0), -4_000);
    }

    #[test]
    fn the_first_window_is_start_and_after_the_end_comes_the_beginning() {
        // A history of minutes 3..=22; playing starts at recorded minute 15, wall minute 1000.
        let rebase = Rebase::looping(
            15 * MINUTE,
            1000 * MINUTE,
            3 * MINUTE,
            22 * MINUTE,
            Cadence::Pt5m,
        );
        assert_eq!(rebase.recorded_start, 0);
        assert_eq!(rebase.period, Some(25 * MINUTE));
        assert_eq!(rebase.recorded(1000 * MINUTE), 15 * MINUTE);
        assert_eq!(rebase.recorded(1005 * MINUTE), 20 * MINUTE);
        assert_eq!(rebase.recorded(1010 * MINUTE), 0);
        assert_eq!(rebase.recorded(975 * MINUTE), 15 * MINUTE);
    }

    #[test]
    fn a_row_on_the_first_edge_closes_the_last_window_under_the_service_rule() {
        let rebase = Rebase::looping(0, 0, 0, 9 * MINUTE, Cadence::Pt5m);
        let last = window(5, Cadence::Pt5m);
        let segments = rebase.segments(&last, RowRule::Service);
        assert_eq!(segments.len(), 2);
        assert_eq!(
            segments[1],
            Segment {
                first: 0,
                last: 0,
                shift: 10 * MINUTE
            }
        );
        assert_eq!(rebase.wall(0, &last, RowRule::Service), Some(10 * MINUTE));
        assert_eq!(
            rebase.wall(0, &window(0, Cadence::Pt5m), RowRule::Service),
            None
        );
        assert_eq!(rebase.segments(&last, RowRule::Notebook).len(), 1);
    }

    #[test]
    fn it_survives_json() {
        let rebase = Rebase::looping(15, 1000, 3, 22, Cadence::Pt1h);
        assert_eq!(
            serde_json::from_str::<Rebase>(&serde_json::to_string(&rebase).unwrap()).unwrap(),
            rebase
        );
    }

    proptest! {
        #[test]
        fn one_period_of_windows_plays_every_row_exactly_once(
            first in -500i64..500,
            length in 0i64..400,
            start in -900i64..900,
            wall in -2000i64..2000,
            cadence in prop::sample::select(Cadence::ALL.to_vec()),
            rows in prop::sample::select(vec![RowRule::Service, RowRule::Notebook]),
        ) {
            let first_window = window(wall, cadence);
            let rebase = Rebase::looping(
                start * MINUTE,
                first_window.start().timestamp_micros(),
                first * MINUTE,
                (first + length) * MINUTE,
                cadence,
            );
            let period = rebase.period.unwrap();
            prop_assert_eq!(period % cadence.micros(), 0);
            if first <= start && start <= first + length {
                prop_assert_eq!(rebase.recorded(first_window.start().timestamp_micros()), start * MINUTE);
            }
            let mut plays = vec![0; length as usize + 1];
            for n in 0..period / cadence.micros() {
                let window = first_window.offset(n);
                for (row, plays) in plays.iter_mut().enumerate() {
                    let recorded = (first + row as i64) * MINUTE;
                    if let Some(wall) = rebase.wall(recorded, &window, rows) {
                        *plays += 1;
                        prop_assert!(rows.contains(&window, wall));
                        prop_assert_eq!(rebase.recorded(wall), recorded);
                    }
                }
            }
            prop_assert!(plays.iter().all(|plays| *plays == 1), "{plays:?}");
        }
    }
}
