//! The mapping of a recorded history that may grow: the rebase of now, and those of the turns before.
//!
//! Guarantees: a window's rebase does not change once its turn is over; where the history has another length than before, the
//! turn that is playing goes on where it is, to the new end, and later turns have the new length.

use serde::{Deserialize, Serialize};

use super::cadence::Cadence;
use super::rebase::Rebase;
use super::window::Window;

/// How many lengths a history may have had of which the windows are still known.
const KEPT: usize = 16;

/// The mapping of recorded time to wall time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The mapping from the present turn on.
    pub now: Rebase,
    /// Those before, oldest first.
    pub earlier: Vec<Earlier>,
}

/// A mapping that was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// Wall time in microseconds: windows that start before it go by this mapping.
    pub until: i64,
    /// The mapping.
    pub rebase: Rebase,
}

impl Mapping {
    /// A mapping that has never been another.
    pub const fn new(now: Rebase) -> Self {
        Self {
            now,
            earlier: Vec::new(),
        }
    }

    /// The rebase of a window.
    pub fn of(&self, window: &Window) -> Rebase {
        let start = window.start().timestamp_micros();
        self.earlier
            .iter()
            .find(|earlier| start < earlier.until)
            .map_or(self.now, |earlier| earlier.rebase)
    }

    /// The mapping for a history that reaches from `first` to `last`, where the turn that plays at `wall` (all micros) goes on
    /// to the new end; `None` where this one fits already, as one without turns always does.
    pub fn fitted(&self, first: i64, last: i64, wall: i64, cadence: Cadence) -> Option<Mapping> {
        let period = self.now.period.filter(|_| first <= last)?;
        let step = cadence.micros();
        let recorded_start = first - (first - self.now.recorded_start).rem_euclid(step);
        let fitting = ((last - recorded_start).div_euclid(step) + 1) * step;
        if (recorded_start, fitting) == (self.now.recorded_start, period) {
            return None;
        }
        let turns = (wall - self.now.wall_start).div_euclid(period).max(0);
        let turn = self.now.wall_start + turns * period;
        let mut earlier = self.earlier.clone();
        if turns > 0 {
            earlier.push(Earlier {
                until: turn,
                rebase: self.now,
            });
        }
        earlier.drain(..earlier.len().saturating_sub(KEPT));
        Some(Mapping {
            now: Rebase {
                recorded_start,
                wall_start: turn + (recorded_start - self.now.recorded_start),
                period: Some(fitting),
            },
            earlier,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn window(minutes: i64) -> Window {
        let start = chrono::DateTime::from_timestamp_micros(minutes * MINUTE).unwrap();
        Window::containing(start, Cadence::Pt5m)
    }

    /// The recorded minute at which each of the windows at these minutes begins.
    fn played(mapping: &Mapping, minutes: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let at = |minute| mapping.of(&window(minute)).recorded(minute * MINUTE) / MINUTE;
        minutes.into_iter().map(at).collect()
    }

    #[test]
    fn a_turn_goes_on_to_the_new_end_and_those_before_stay_as_they_were() {
        let fit = |mapping: &Mapping, minutes: i64, wall: i64| {
            mapping.fitted(0, (minutes - 1) * MINUTE, wall * MINUTE, Cadence::Pt5m)
        };
        let once = Mapping::new(Rebase::looping(
            0,
            1000 * MINUTE,
            0,
            29 * MINUTE,
            Cadence::Pt5m,
        ));
        assert_eq!(fit(&once, 30, 1010), None);
        // In the first turn: nothing is played yet that changes.
        let grown = fit(&once, 40, 1010).unwrap();
        assert_eq!(
            played(&grown, [1000, 1025, 1030, 1035, 1040]),
            [0, 25, 30, 35, 0]
        );
        assert!(grown.earlier.is_empty());
        // In the third turn, at minute 10 of it: that one goes on to minute 49, the two before stay.
        let grown = fit(&once, 50, 1070).unwrap();
        assert_eq!(
            played(
                &grown,
                [1000, 1025, 1030, 1055, 1060, 1070, 1105, 1110, 1160]
            ),
            [0, 25, 0, 25, 0, 10, 45, 0, 0]
        );
        assert_eq!(grown.earlier.len(), 1);
        assert_eq!(fit(&grown, 50, 1300), None);
        // Shorter again: what is beyond the new end wraps.
        let shrunk = fit(&grown, 20, 1075).unwrap();
        assert_eq!(
            played(&shrunk, [1000, 1055, 1060, 1075, 1080]),
            [0, 25, 0, 15, 0]
        );
    }

    #[test]
    fn a_history_that_rolls_goes_on_where_it_is() {
        let day = 1440;
        let rolled = |first: i64| (first * MINUTE, (first + day - 1) * MINUTE);
        let begun = Rebase::looping(
            360 * MINUTE,
            5000 * MINUTE,
            0,
            (day - 1) * MINUTE,
            Cadence::Pt5m,
        );
        let mapping = Mapping::new(begun);
        let (first, last) = rolled(10);
        let next = mapping
            .fitted(first, last, 5005 * MINUTE, Cadence::Pt5m)
            .unwrap();
        assert_eq!(played(&next, [5000, 5005]), [360, 365]);
        assert_eq!(
            played(&next, [5000 + day - 360 + 5, 5000 + day - 360 + 10]),
            [day + 5, 10]
        );
    }

    #[test]
    fn a_history_that_is_played_once_needs_no_fitting() {
        let mapping = Mapping::new(Rebase::once(0, 1000 * MINUTE));
        assert_eq!(
            mapping.fitted(0, 99 * MINUTE, 1010 * MINUTE, Cadence::Pt5m),
            None
        );
    }
}
