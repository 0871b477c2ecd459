//! When executions are to be listed again, a pure function of what is known and the time.
//!
//! An execution is due when its window has ended and the scheduler's delay has passed. From then on it is asked for, soon and
//! then less and less often up to `inference.poll`, until it is there and final; then nothing can come before the next one is
//! due, and nothing is asked. What is open for another reason keeps being asked for: a hole among those of the last hour,
//! which a service that catches up fills late; one that failed, where the service scores late files.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::signal::{Cadence, Window};

/// How soon after it is due an execution is first asked for; most have ended by then.
const FIRST: Duration = Duration::from_secs(4);
/// The longest that nothing is asked: whoever may do what nobody expects is seen within this.
const LONGEST: Duration = Duration::from_secs(600);

/// What a scheduler's executions go by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub cadence: Cadence,
    /// From the end of a window to its execution.
    pub delay: TimeDelta,
    /// How far back executions may come out of order.
    pub overlap: TimeDelta,
    /// Whether a failed one may be done again.
    pub late: bool,
    pub poll: Duration,
}

/// What is to be done about executions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Something is to be had: list now.
    pub open: bool,
    /// How long nothing has to be looked at then, at the clock's pace.
    pub pause: Duration,
}

impl Rule {
    /// The ends of the first and the last window whose executions matter at `now`.
    pub fn span(&self, now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
        let last = Window::containing(now - self.delay, self.cadence).start();
        let first = Window::containing(last - self.overlap, self.cadence).end();
        (first, last)
    }

    /// What is to be done at `now`. `known` are executions by the start of their windows, whether each is a success, a failure,
    /// or neither yet; the one of the window that ends at `begins` is the first that is waited for, where none is known.
    pub fn look(
        &self,
        now: DateTime<Utc>,
        known: &BTreeMap<DateTime<Utc>, Option<bool>>,
        begins: Option<DateTime<Utc>>,
    ) -> Look {
        let (first, last) = self.span(now);
        let step = self.cadence.duration();
        let settled = |end: DateTime<Utc>| match known.get(&(end - step)) {
            Some(Some(success)) => *success || !self.late,
            Some(None) | None => false,
        };
        let oldest = known.keys().next().map(|start| *start + step);
        // Nobody knows of one: none is missed.
        let from = oldest.into_iter().chain(begins).min();
        let from = from.map_or(DateTime::<Utc>::MAX_UTC, |from| from.max(first));
        let (mut end, mut open) = (last, false);
        while end >= from && !open {
            open = !settled(end);
            end -= step;
        }
        let since = (now - self.delay - last).to_std().unwrap_or_default();
        let until = (last + step + self.delay - now).to_std();
        let next = until.unwrap_or(self.poll) + FIRST;
        let pause = match open {
            false => next,
            true if settled(last) => self.poll,
            true => since.max(FIRST),
        };
        Look {
            open,
            pause: pause.min(self.poll).min(next),
        }
    }

    /// Whether executions are to be listed although nothing is expected, `listed` long ago.
    pub fn is_stale(&self, listed: Duration) -> bool {
        listed >= LONGEST.min(self.cadence.duration().to_std().unwrap_or(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        cadence: Cadence::Pt5m,
        delay: TimeDelta::minutes(1),
        overlap: TimeDelta::hours(1),
        late: false,
        poll: Duration::from_secs(30),
    };

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-03-01T{text}Z").parse().unwrap()
    }

    fn known(of: &[(&str, Option<bool>)]) -> BTreeMap<DateTime<Utc>, Option<bool>> {
        of.iter().map(|(start, how)| (at(start), *how)).collect()
    }

    /// Looks from `from` on as the loop does, until something is final at `done`; when it was listed, in seconds from `from`.
    fn looks(rule: Rule, from: &str, done: i64, seconds: i64) -> Vec<i64> {
        let (from, mut after, mut listed) = (at(from), 0, Vec::new());
        let before = (1..=12).map(|n| (at("10:00:00") - TimeDelta::minutes(5 * n), Some(true)));
        let mut known: BTreeMap<_, _> = before.collect();
        while after < seconds {
            let now = from + TimeDelta::seconds(after);
            if rule.look(now, &known, None).open {
                listed.push(after);
                if after >= done {
                    known.insert(at("10:00:00"), Some(true));
                }
            }
            after += rule.look(now, &known, None).pause.as_secs().max(1) as i64;
        }
        listed
    }

    #[test]
    fn an_execution_is_asked_for_when_it_is_due_and_never_noticed_later_than_by_polling() {
        // The window from 10:00 to 10:05 is due at 10:06.
        let (from, minutes) = ("10:03:10", 7);
        for done in 0..120 {
            let due = 170;
            let listed = looks(RULE, from, due + done, minutes * 60);
            let noticed = *listed.last().unwrap();
            assert!(listed[0] >= due && listed[0] <= due + 4, "{listed:?}");
            assert!(noticed - (due + done) <= 30, "{done}: {listed:?}");
        }
        // What ends at once costs one look, where polling asked ten times.
        assert_eq!(looks(RULE, from, 171, minutes * 60), [174]);
        assert_eq!(looks(RULE, from, 190, minutes * 60), [174, 178, 186, 202]);
    }

    #[test]
    fn nothing_is_asked_while_nothing_can_come_and_a_hole_is_asked_for() {
        let now = at("10:13:00");
        let whole = known(&[
            ("09:55:00", Some(true)),
            ("10:00:00", Some(false)),
            ("10:05:00", Some(true)),
        ]);
        let quiet = RULE.look(now, &whole, None);
        assert_eq!((quiet.open, quiet.pause.as_secs()), (false, 30));
        assert_eq!(RULE.look(at("10:15:55"), &whole, None).pause.as_secs(), 9);
        // One that failed may be scored late, where the service does so.
        let late = Rule { late: true, ..RULE };
        assert!(late.look(now, &whole, None).open);
        let hole = known(&[("09:55:00", Some(true)), ("10:05:00", Some(true))]);
        let look = RULE.look(now, &hole, None);
        assert_eq!((look.open, look.pause.as_secs()), (true, 30));
        let running = known(&[("10:00:00", Some(true)), ("10:05:00", None)]);
        assert!(RULE.look(now, &running, None).open);
        // Before the first nothing is missing, and one older than an hour is not waited for.
        assert!(!RULE.look(now, &known(&[]), None).open);
        assert!(!RULE.look(now, &known(&[]), Some(at("10:15:00"))).open);
        assert!(RULE.look(now, &known(&[]), Some(at("10:10:00"))).open);
        assert!(!RULE.look(at("11:13:00"), &known(&[]), None).open);
    }

    #[test]
    fn a_clock_that_is_stepped_asks_at_once_and_waits_no_longer_than_a_poll() {
        let whole = known(&[("10:00:00", Some(true)), ("10:05:00", Some(true))]);
        assert!(RULE.look(at("12:13:00"), &whole, None).open);
        let before = RULE.look(at("03:13:00"), &whole, None);
        assert!(!before.open && before.pause <= RULE.poll);
        assert!(
            RULE.is_stale(Duration::from_secs(300)) && !RULE.is_stale(Duration::from_secs(299))
        );
        let hourly = Rule {
            cadence: Cadence::Pt1h,
            ..RULE
        };
        assert!(hourly.is_stale(LONGEST) && !hourly.is_stale(LONGEST / 2));
    }
}
