//! Results that are not there, or may not be read: each is tried again after a pause that grows, so that none of them keeps
//! older ones waiting, and all of them together are one line and one number.
//!
//! It holds what this process has tried, and nothing durable: after a restart each is tried once more.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::inference::api::Advice;

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// How often a number that stays is said again.
const REMIND: Duration = Duration::from_secs(3600);

/// What could not be fetched, by data start.
#[derive(Debug, Default)]
pub(super) struct Absent {
    tries: BTreeMap<DateTime<Utc>, Try>,
    /// How many were last said to be missing, and when.
    said: Option<(usize, Instant)>,
}

#[derive(Debug)]
struct Try {
    count: u32,
    next: Instant,
    why: Why,
}

/// Why it could not.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Why {
    /// There is no such object.
    Missing,
    /// The store refuses, with what is told of it.
    Refused(String, Advice),
}

/// Those that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// How many.
    pub windows: usize,
    /// The data start of the oldest and of the newest.
    pub first: DateTime<Utc>,
    /// See `first`.
    pub last: DateTime<Utc>,
    /// Whether the number is news.
    pub news: bool,
}

impl Absent {
    /// Whether it is to be tried now.
    pub(super) fn is_due(&self, start: DateTime<Utc>, now: Instant) -> bool {
        self.tries.get(&start).is_none_or(|tried| tried.next <= now)
    }

    /// It could not be fetched; the first pause is `pause`, each later one twice as long.
    pub(super) fn failed(&mut self, start: DateTime<Utc>, why: Why, pause: Duration, now: Instant) {
        let count = self.tries.get(&start).map_or(0, |tried| tried.count);
        let pause = pause
            .saturating_mul(1 << count.min(10))
            .min(LONGEST_PAUSE.max(pause));
        let tried = Try {
            count: count + 1,
            next: now + pause,
            why,
        };
        self.tries.insert(start, tried);
    }

    /// It is there: what could not be had for the same reason may be there too, and is tried at once.
    pub(super) fn came(&mut self, start: DateTime<Utc>, now: Instant) {
        let Some(came) = self.tries.remove(&start) else {
            return;
        };
        let kind = std::mem::discriminant(&came.why);
        for tried in self.tries.values_mut() {
            if std::mem::discriminant(&tried.why) == kind {
                tried.next = now;
            }
        }
    }

    /// What is told of the newest that the store refuses.
    pub(super) fn refused(&self) -> Option<(String, Advice)> {
        self.tries
            .values()
            .rev()
            .find_map(|tried| match &tried.why {
                Why::Refused(error, advice) => Some((error.clone(), *advice)),
                Why::Missing => None,
            })
    }

    /// Those that are missing, if any are. News is the first number of `all`, one twice as large, and every so often the same.
    pub(super) fn missing(&mut self, now: Instant, all: bool) -> Option<Missing> {
        let missing = self
            .tries
            .iter()
            .filter(|(_, tried)| tried.why == Why::Missing);
        let mut starts = missing.map(|(start, _)| *start);
        let Some(first) = starts.next() else {
            self.said = None;
            return None;
        };
        let (mut windows, mut last) = (1, first);
        for start in starts {
            windows += 1;
            last = start;
        }
        let news = all
            && self
                .said
                .is_none_or(|(said, when)| windows >= said * 2 || now >= when + REMIND);
        if news {
            self.said = Some((windows, now));
        }
        Some(Missing {
            windows,
            first,
            last,
            news,
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        "2026-03-01T10:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::minutes(minutes)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_is_tried_ever_more_seldom_and_said_as_a_number() {
        let mut absent = Absent::default();
        let pause = Duration::from_secs(30);
        let mut tries = 0;
        for _ in 0..240 {
            if absent.is_due(at(0), Instant::now()) {
                tries += 1;
                absent.failed(at(0), Why::Missing, pause, Instant::now());
            }
            tokio::time::sleep(pause).await;
        }
        assert!((10..20).contains(&tries), "{tries} tries in two hours");
        let news: Vec<bool> = (0..4)
            .map(|minutes| {
                absent.failed(at(minutes * 5), Why::Missing, pause, Instant::now());
                absent.missing(Instant::now(), true).unwrap().news
            })
            .collect();
        assert_eq!(news, [true, true, false, true]);
        let missing = absent.missing(Instant::now(), true).unwrap();
        assert_eq!(
            (missing.windows, missing.first, missing.last, missing.news),
            (4, at(0), at(15), false)
        );
        for minutes in 0..4 {
            absent.came(at(minutes * 5), Instant::now());
        }
        assert_eq!(absent.missing(Instant::now(), true), None);
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_store_gives_one_again_the_others_are_tried_at_once() {
        let mut absent = Absent::default();
        let pause = Duration::from_secs(30);
        let refused = Why::Refused("denied".into(), Advice::Retry);
        for minutes in [0, 5] {
            absent.failed(at(minutes), refused.clone(), pause, Instant::now());
        }
        absent.failed(at(10), Why::Missing, pause, Instant::now());
        assert_eq!(absent.refused(), Some(("denied".into(), Advice::Retry)));
        assert!(!absent.is_due(at(0), Instant::now()));
        absent.came(at(5), Instant::now());
        assert!(absent.is_due(at(0), Instant::now()));
        assert!(!absent.is_due(at(10), Instant::now()));
        absent.came(at(0), Instant::now());
        assert_eq!(absent.refused(), None);
        absent.failed(at(15), Why::Missing, pause, Instant::now());
        absent.came(at(15), Instant::now());
        assert!(absent.is_due(at(10), Instant::now()));
    }
}
