//! When a window closes: when every input of its asset has passed its end, and at the latest at a deadline.
//!
//! The deadline is what the scheduler leaves: the window's end and the delay offset, less the time that an upload takes. What had its
//! deadline before this process began is of a downtime, and has what inputs kept meanwhile waited for. Pure.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::marks::{Marks, Passed, SECOND};
use crate::signal::Window;
use crate::source::Closed;

/// Without a scheduler a window closes so long after its end.
const ALONE: TimeDelta = TimeDelta::seconds(60);
/// What inputs kept during a downtime comes so long after they are connected.
const BROUGHT: TimeDelta = TimeDelta::minutes(2);
/// For an input that cannot be connected after a downtime is waited so long.
const PATIENCE: TimeDelta = TimeDelta::minutes(15);
/// A clock that is not trusted is looked at again.
const AGAIN: TimeDelta = TimeDelta::seconds(1);

/// When windows close at the latest. Cheap to clone.
#[derive(Clone)]
pub struct Deadline {
    /// How long after a window's end its scheduler looks for files; `None`: there is none.
    pub delay: Option<TimeDelta>,
    /// How long an upload takes, by the clock that windows go by.
    pub upload: Arc<dyn Fn() -> TimeDelta + Send + Sync>,
    /// Whether this machine's clock cannot be trusted: nothing closes then.
    pub suspect: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Deadline {
    /// When the window closes at the latest.
    pub fn of(&self, window: &Window) -> DateTime<Utc> {
        let after = match self.delay {
            // However long uploads take, samples have half of the delay to come.
            Some(delay) => delay - (self.upload)().min(delay / 2),
            None => ALONE,
        };
        window.end() + after
    }
}

/// Whether a window has closed at `now`, or until when it will not.
pub(super) fn closed(
    marks: &Marks,
    deadline: &Deadline,
    began: DateTime<Utc>,
    window: &Window,
    now: DateTime<Utc>,
) -> Closed {
    if (deadline.suspect)() {
        return Closed::until(now + AGAIN, "this machine's clock");
    }
    let end = window.end();
    if now < end {
        return Closed::until(end, "its end");
    }
    let mut latest = deadline.of(window);
    if latest <= began {
        latest = match marks.all_connected().map(time) {
            Some(connected) => connected.max(began) + BROUGHT,
            None => began + PATIENCE,
        };
    }
    if now >= latest {
        return Closed::Yes;
    }
    match marks.passed(nanos(end), nanos(now)) {
        Passed::Yes => Closed::Yes,
        Passed::Until(may, waits) => Closed::Until {
            time: latest.min(time(may)).max(now),
            latest,
            waits: waits.text(),
        },
    }
}

fn nanos(time: DateTime<Utc>) -> i64 {
    time.timestamp_nanos_opt().unwrap_or(i64::MAX)
}

fn time(nanos: i64) -> DateTime<Utc> {
    let within = nanos.rem_euclid(SECOND) as u32;
    DateTime::from_timestamp(nanos.div_euclid(SECOND), within).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{Cadence, RowRule};
    use crate::source::live::{Arrived, Marked};

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-03-01T{text}Z").parse().unwrap()
    }

    fn deadline(delay: Option<i64>, suspect: bool) -> Deadline {
        Deadline {
            delay: delay.map(TimeDelta::minutes),
            upload: Arc::new(|| TimeDelta::seconds(10)),
            suspect: Arc::new(move || suspect),
        }
    }

    fn marks() -> Marks {
        let tag = Marked {
            input: 0,
            component: 0,
            tag: "a".into(),
        };
        Marks::new(
            vec!["plc".into()],
            vec![tag],
            Cadence::Pt5m,
            RowRule::Service,
        )
    }

    fn take(marks: &Marks, time: &str) {
        let time = nanos(at(time));
        let sample = Arrived {
            tag: 0,
            time,
            live: true,
            is_value: true,
        };
        marks.took(&[sample], 1, time);
    }

    fn window() -> Window {
        Window::new(at("10:00:00"), Cadence::Pt5m).unwrap()
    }

    #[test]
    fn a_window_closes_when_its_end_is_passed_and_at_its_deadline_at_the_latest() {
        let (marks, began) = (marks(), at("09:00:00"));
        let with = deadline(Some(5), false);
        let ask = |now: &str| closed(&marks, &with, began, &window(), at(now));
        assert_eq!(ask("10:04:59"), Closed::until(at("10:05:00"), "its end"));
        let Closed::Until { latest, waits, .. } = ask("10:05:01") else {
            panic!("closed");
        };
        assert_eq!((latest, waits.as_str()), (at("10:09:50"), "input plc"));
        assert_eq!(ask("10:09:50"), Closed::Yes);
        take(&marks, "10:05:00");
        assert_eq!(ask("10:05:01"), Closed::Yes);
        // Without a scheduler a minute is left; and however long uploads take, half of the delay.
        assert_eq!(deadline(None, false).of(&window()), at("10:06:00"));
        let slow = Deadline {
            upload: Arc::new(|| TimeDelta::minutes(9)),
            ..with.clone()
        };
        assert_eq!(slow.of(&window()), at("10:07:30"));
    }

    #[test]
    fn no_window_closes_by_a_clock_that_cannot_be_trusted() {
        let marks = marks();
        take(&marks, "10:06:00");
        let found = closed(
            &marks,
            &deadline(Some(1), true),
            at("09:00:00"),
            &window(),
            at("12:00:00"),
        );
        assert_eq!(found, Closed::until(at("12:00:01"), "this machine's clock"));
    }

    #[test]
    fn after_a_downtime_what_inputs_kept_is_waited_for() {
        let (marks, began) = (marks(), at("11:00:00"));
        let with = deadline(Some(5), false);
        let ask = |now: &str| closed(&marks, &with, began, &window(), at(now));
        assert!(
            matches!(ask("11:10:00"), Closed::Until { latest, .. } if latest == at("11:15:00"))
        );
        marks.connected(0, nanos(at("11:10:00")));
        assert!(
            matches!(ask("11:11:00"), Closed::Until { latest, .. } if latest == at("11:12:00"))
        );
        assert_eq!(ask("11:12:00"), Closed::Yes);
        // It comes in its order: what was kept has passed its end.
        take(&marks, "10:30:00");
        assert_eq!(ask("11:11:01"), Closed::Yes);
    }
}
