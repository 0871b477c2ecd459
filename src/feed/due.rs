//! What is due: a pure function of what the ledger knows and of `now`.
//!
//! A tick is only a hint to look. Lost, late or doubled ticks and stepped clocks change nothing here: the live window is
//! due until it is recorded, everything between the last recorded window and the live one is either backlog or skipped by
//! one bounded decision, and a window that is recorded is never due again.

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::signal::{Cadence, Window};

/// Which window is the live one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Publish {
    /// The window that begins now: its rows are known already, as in a replay.
    #[default]
    Ahead,
    /// The window that has just ended: for live sources.
    Behind,
}

impl Publish {
    /// The live window at `now`.
    pub fn live(self, now: DateTime<Utc>, cadence: Cadence) -> Window {
        let current = Window::containing(now, cadence);
        match self {
            Publish::Ahead => current,
            Publish::Behind => current.previous(),
        }
    }
}

/// What happens to the windows of a downtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// Recorded as skipped.
    #[default]
    Skip,
    /// Cut and shipped after the live window, oldest first, as far back as the maximum age.
    Backfill,
}

/// The rules that decide what is due.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Window length.
    pub cadence: Cadence,
    /// Which window is live.
    pub publish: Publish,
    /// What happens to missed windows.
    pub catch_up: CatchUp,
    /// How far back missed windows are cut at all.
    pub max_age: TimeDelta,
    /// When the daemon began to run, or began again after its clock jumped: what was missed before is a downtime.
    pub resumed_at: DateTime<Utc>,
}

/// What is due now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The live window, unless it is recorded.
    pub live: Option<Window>,
    /// Missed windows to cut, oldest first: from (inclusive) and to (exclusive).
    pub backlog: Option<(Window, Window)>,
    /// Missed time that is given up: from, to, and why.
    pub skipped: Option<(DateTime<Utc>, DateTime<Utc>, &'static str)>,
}

impl Policy {
    /// The live window at `now`.
    pub fn live(&self, now: DateTime<Utc>) -> Window {
        self.publish.live(now, self.cadence)
    }

    /// When the live window after the one at `now` begins: the next time to look.
    pub fn next_wake(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        Window::containing(now, self.cadence).end()
    }

    /// Decides. `frontier` is the end of what the ledger has recorded before the live window, `live_recorded` whether the
    /// live window itself has a record.
    pub fn due(
        &self,
        frontier: Option<DateTime<Utc>>,
        live_recorded: bool,
        now: DateTime<Utc>,
    ) -> Due {
        let live = self.live(now);
        let mut due = Due {
            live: (!live_recorded).then_some(live),
            backlog: None,
            skipped: None,
        };
        // Nothing may be recorded yet because the disk has been full since the first start, or the clock was not set.
        let frontier = frontier
            .filter(|frontier| clock::is_set(*frontier))
            .unwrap_or_else(|| self.live(self.resumed_at).start());
        if frontier >= live.start() {
            return due;
        }
        // After a change of cadence the frontier may lie inside a window: the part before the next boundary is over.
        let first = Window::containing(frontier, self.cadence);
        let first = if first.start() < frontier {
            first.next()
        } else {
            first
        };
        let by_age = first_at_or_after(now - self.max_age, self.cadence);
        let by_downtime = match self.catch_up {
            CatchUp::Backfill => first,
            CatchUp::Skip => self.first_after_downtime(),
        };
        let keep = first.max(by_age).max(by_downtime).min(live);
        if frontier < keep.start() {
            let reason = if by_age > first.max(by_downtime) {
                "older than feed.max_age"
            } else {
                "downtime"
            };
            due.skipped = Some((frontier, keep.start(), reason));
        }
        if keep < live {
            due.backlog = Some((keep, live));
        }
        due
    }

    /// The first window that was still live when the daemon resumed.
    fn first_after_downtime(&self) -> Window {
        self.live(self.resumed_at)
    }
}

fn first_at_or_after(time: DateTime<Utc>, cadence: Cadence) -> Window {
    let window = Window::containing(time, cadence);
    if window.start() < time {
        window.next()
    } else {
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-01-01T{text}Z").parse().unwrap()
    }

    fn policy(publish: Publish, catch_up: CatchUp, resumed_at: &str) -> Policy {
        Policy {
            cadence: Cadence::Pt5m,
            publish,
            catch_up,
            max_age: TimeDelta::hours(1),
            resumed_at: at(resumed_at),
        }
    }

    fn window(text: &str) -> Window {
        Window::new(at(text), Cadence::Pt5m).unwrap()
    }

    #[test]
    fn first_start_cuts_the_live_window_and_nothing_else() {
        let ahead = policy(Publish::Ahead, CatchUp::Backfill, "10:07:30");
        let due = ahead.due(None, false, at("10:07:30"));
        assert_eq!(due.live, Some(window("10:05:00")));
        assert_eq!((due.backlog, due.skipped), (None, None));
        let behind = policy(Publish::Behind, CatchUp::Skip, "10:07:30");
        assert_eq!(
            behind.due(None, false, at("10:07:30")).live,
            Some(window("10:00:00"))
        );
    }

    #[test]
    fn a_downtime_is_skipped_or_backfilled_as_configured() {
        let skip = policy(Publish::Ahead, CatchUp::Skip, "10:31:00");
        let due = skip.due(Some(at("10:10:00")), false, at("10:31:00"));
        assert_eq!(due.backlog, None);
        assert_eq!(
            due.skipped,
            Some((at("10:10:00"), at("10:30:00"), "downtime"))
        );
        let fill = policy(Publish::Ahead, CatchUp::Backfill, "10:31:00");
        let due = fill.due(Some(at("10:10:00")), false, at("10:31:00"));
        assert_eq!(due.backlog, Some((window("10:10:00"), window("10:30:00"))));
        assert_eq!(due.skipped, None);
    }

    #[test]
    fn windows_missed_while_running_are_backfilled_even_with_skip() {
        let skip = policy(Publish::Ahead, CatchUp::Skip, "09:00:00");
        let due = skip.due(Some(at("10:10:00")), false, at("10:31:00"));
        assert_eq!(due.backlog, Some((window("10:10:00"), window("10:30:00"))));
    }

    #[test]
    fn what_was_missed_since_the_first_start_is_due_although_nothing_is_recorded() {
        let skip = policy(Publish::Ahead, CatchUp::Skip, "10:07:30");
        let due = skip.due(None, false, at("10:21:00"));
        assert_eq!(due.backlog, Some((window("10:05:00"), window("10:20:00"))));
        assert_eq!(due.skipped, None);
    }

    #[test]
    fn the_maximum_age_bounds_the_backlog() {
        let fill = policy(Publish::Ahead, CatchUp::Backfill, "15:01:00");
        let due = fill.due(Some(at("10:10:00")), false, at("15:01:00"));
        assert_eq!(
            due.skipped,
            Some((at("10:10:00"), at("14:05:00"), "older than feed.max_age"))
        );
        assert_eq!(due.backlog, Some((window("14:05:00"), window("15:00:00"))));
    }

    #[test]
    fn what_was_recorded_before_the_clock_was_set_is_no_beginning_of_a_downtime() {
        let fill = policy(Publish::Ahead, CatchUp::Backfill, "10:07:30");
        let due = fill.due(DateTime::from_timestamp(300, 0), false, at("10:11:00"));
        assert_eq!(due.backlog, Some((window("10:05:00"), window("10:10:00"))));
        assert_eq!(due.skipped, None);
    }

    #[test]
    fn a_backward_step_makes_nothing_due_that_is_recorded() {
        let skip = policy(Publish::Ahead, CatchUp::Skip, "10:31:00");
        let due = skip.due(Some(at("09:30:00")), true, at("09:31:00"));
        assert_eq!(due.live, None);
        assert_eq!((due.backlog, due.skipped), (None, None));
    }

    proptest! {
        #[test]
        fn skipped_backlog_and_live_tile_the_missed_time(
            frontier in 0i64..200_000, ahead in 0i64..400_000, resumed in 0i64..400_000,
            cadence in 0usize..5, backfill: bool, behind: bool, age in 0i64..200_000,
        ) {
            let base = 1_767_225_600;
            let time = |s: i64| DateTime::from_timestamp(base + s, 0).unwrap();
            let cadence = Cadence::ALL[cadence];
            let now = time(frontier + ahead);
            let policy = Policy {
                cadence,
                publish: if behind { Publish::Behind } else { Publish::Ahead },
                catch_up: if backfill { CatchUp::Backfill } else { CatchUp::Skip },
                max_age: TimeDelta::seconds(age),
                resumed_at: time(resumed).min(now),
            };
            let frontier = Window::containing(time(frontier), cadence).start();
            let due = policy.due(Some(frontier), false, now);
            let live = due.live.unwrap();
            let mut reached = frontier;
            if let Some((from, to, _)) = due.skipped {
                prop_assert_eq!(from, reached);
                prop_assert!(to > from);
                reached = to;
            }
            if let Some((from, to)) = due.backlog {
                prop_assert_eq!(from.start(), reached);
                prop_assert!(from < to);
                reached = to.start();
            }
            prop_assert!(reached == live.start() || (reached == frontier && frontier >= live.start()));
        }
    }
}
