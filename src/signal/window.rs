//! The window: one cadence interval of UTC time, and the rule that says which rows belong to it.
//!
//! Guarantees: a window starts on a multiple of its cadence in UTC epoch seconds, so windows tile time without gap or
//! overlap, also before 1970 and across leap days; there is no local time and no daylight saving here.
//! Instants beyond what `DateTime<Utc>` can hold saturate.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cadence::Cadence;

const MICROS: i64 = 1_000_000;

/// One cadence interval: the service's `DataStartTime` to `DataEndTime` (contract 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    start: DateTime<Utc>,
    cadence: Cadence,
}

/// Why an instant or a text is not a window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The start is not a multiple of the cadence.
    #[error(
        "{} is not the start of a {cadence} window; windows start on multiples of {} minutes of the UTC hour",
        start.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        cadence.minutes()
    )]
    Unaligned {
        /// The refused instant.
        start: DateTime<Utc>,
        /// The cadence it was to be aligned to.
        cadence: Cadence,
    },
    /// The text is not `<start>/<cadence>`.
    #[error("\"{0}\" is not a window; write it as 2026-01-01T00:05:00Z/PT5M")]
    Text(String),
}

/// Which rows belong to a window.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum RowRule {
    /// `(start, end]`: the rows the service scores (contract 3.3).
    #[default]
    Service,
    /// `[start, end)`: the rows the sample notebook writes into the file of the same name.
    Notebook,
}

/// A text that is not a row rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a row rule; use \"service\" for (start, end] or \"notebook\" for [start, end)"
)]
pub struct RowRuleError(pub String);

impl Window {
    /// The window that starts at `start`; refuses an instant that is not a multiple of the cadence.
    pub fn new(start: DateTime<Utc>, cadence: Cadence) -> Result<Window, WindowError> {
        let window = Window::containing(start, cadence);
        if window.start == start {
            Ok(window)
        } else {
            Err(WindowError::Unaligned { start, cadence })
        }
    }

    /// The window with `start <= now < end`.
    pub fn containing(now: DateTime<Utc>, cadence: Cadence) -> Window {
        let seconds = now.timestamp();
        Window {
            start: instant(seconds - seconds.rem_euclid(cadence.seconds())),
            cadence,
        }
    }

    /// The first instant of the window; it names the input files.
    pub fn start(&self) -> DateTime<Utc> {
        self.start
    }

    /// The start of the next window.
    pub fn end(&self) -> DateTime<Utc> {
        instant(self.start.timestamp() + self.cadence.seconds())
    }

    /// The cadence.
    pub fn cadence(&self) -> Cadence {
        self.cadence
    }

    /// The window that follows.
    pub fn next(&self) -> Window {
        self.offset(1)
    }

    /// The window before.
    pub fn previous(&self) -> Window {
        self.offset(-1)
    }

    /// The window `n` cadences later, or earlier where `n` is negative.
    pub fn offset(&self, n: i64) -> Window {
        let seconds = self
            .start
            .timestamp()
            .saturating_add(n.saturating_mul(self.cadence.seconds()));
        Window::containing(instant(seconds), self.cadence)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            self.start.to_rfc3339_opts(SecondsFormat::Secs, true),
            self.cadence
        )
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Window, WindowError> {
        let refuse = || WindowError::Text(text.to_owned());
        let (start, cadence) = text.split_once('/').ok_or_else(refuse)?;
        let start = DateTime::parse_from_rfc3339(start).map_err(|_| refuse())?;
        let cadence = cadence.parse().map_err(|_| refuse())?;
        Window::new(start.with_timezone(&Utc), cadence)
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl RowRule {
    /// Whether the row at `micros` (wall clock, UTC) belongs to `window`.
    pub fn contains(self, window: &Window, micros: i64) -> bool {
        let (first, last) = self.bounds(window);
        first <= micros && micros <= last
    }

    /// The first and the last microsecond (wall clock, UTC, both inclusive) whose row belongs to `window`.
    pub fn bounds(self, window: &Window) -> (i64, i64) {
        let start = window.start().timestamp().saturating_mul(MICROS);
        let end = window.end().timestamp().saturating_mul(MICROS);
        match self {
            RowRule::Service => (start + 1, end),
            RowRule::Notebook => (start, end - 1),
        }
    }

    /// The configuration's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            RowRule::Service => "service",
            RowRule::Notebook => "notebook",
        }
    }
}

impl fmt::Display for RowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RowRule {
    type Err = RowRuleError;

    fn from_str(text: &str) -> Result<RowRule, RowRuleError> {
        match text {
            "service" => Ok(RowRule::Service),
            "notebook" => Ok(RowRule::Notebook),
            _ => Err(RowRuleError(text.to_owned())),
        }
    }
}

fn instant(seconds: i64) -> DateTime<Utc> {
    let limit = if seconds < 0 {
        DateTime::<Utc>::MIN_UTC
    } else {
        DateTime::<Utc>::MAX_UTC
    };
    DateTime::from_timestamp(seconds, 0).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn cadences() -> impl Strategy<Value = Cadence> {
        prop::sample::select(Cadence::ALL.to_vec())
    }

    #[test]
    fn an_unaligned_start_is_refused() {
        for text in [
            "2026-01-01T00:07:00Z",
            "2026-01-01T00:05:01Z",
            "2026-01-01T00:05:00.000001Z",
        ] {
            assert!(
                matches!(
                    Window::new(at(text), Cadence::Pt5m),
                    Err(WindowError::Unaligned { .. })
                ),
                "{text}"
            );
        }
        assert!(Window::new(at("2026-01-01T00:30:00Z"), Cadence::Pt1h).is_err());
        assert!(Window::new(at("2026-01-01T00:30:00Z"), Cadence::Pt30m).is_ok());
    }

    #[test]
    fn windows_step_over_leap_days_and_year_ends() {
        let leap = Window::new(at("2024-02-28T23:55:00Z"), Cadence::Pt5m).unwrap();
        assert_eq!(leap.next().start(), at("2024-02-29T00:00:00Z"));
        let year = Window::new(at("2025-12-31T23:00:00Z"), Cadence::Pt1h).unwrap();
        assert_eq!(year.end(), at("2026-01-01T00:00:00Z"));
        assert_eq!(year.next().previous(), year);
    }

    #[test]
    fn a_window_before_1970_contains_its_instant() {
        let window = Window::containing(at("1969-12-31T23:59:59.5Z"), Cadence::Pt10m);
        assert_eq!(window.start(), at("1969-12-31T23:50:00Z"));
    }

    #[test]
    fn text_and_json_round_trip() {
        let window = Window::new(at("2026-01-01T00:05:00Z"), Cadence::Pt5m).unwrap();
        assert_eq!(window.to_string(), "2026-01-01T00:05:00Z/PT5M");
        assert_eq!(window.to_string().parse(), Ok(window));
        assert_eq!(
            serde_json::from_str::<Window>(&serde_json::to_string(&window).unwrap()).unwrap(),
            window
        );
        for text in [
            "2026-01-01T00:05:00Z",
            "2026-01-01T00:05:00Z/PT6M",
            "x/PT5M",
        ] {
            assert!(
                matches!(text.parse::<Window>(), Err(WindowError::Text(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn the_service_takes_the_end_and_the_notebook_the_start() {
        let window = Window::new(at("2026-01-01T00:05:00Z"), Cadence::Pt5m).unwrap();
        let (start, end) = (
            window.start().timestamp_micros(),
            window.end().timestamp_micros(),
        );
        assert!(!RowRule::Service.contains(&window, start));
        assert!(RowRule::Service.contains(&window, end));
        assert!(RowRule::Notebook.contains(&window, start));
        assert!(!RowRule::Notebook.contains(&window, end));
        assert_eq!("notebook".parse(), Ok(RowRule::Notebook));
        assert_eq!(
            serde_json::to_string(&RowRule::Service).unwrap(),
            "\"service\""
        );
    }

    #[test]
    fn the_ends_of_time_saturate() {
        let last = Window::containing(DateTime::<Utc>::MAX_UTC, Cadence::Pt1h);
        assert_eq!(last.offset(i64::MAX), last);
        let first = Window::containing(
            DateTime::<Utc>::MIN_UTC + Cadence::Pt1h.duration(),
            Cadence::Pt1h,
        );
        assert!(first.offset(i64::MIN) <= first);
    }

    proptest! {
        #[test]
        fn windows_tile_time_without_gap_or_overlap(
            micros in -4_000_000_000_000_000i64..8_000_000_000_000_000,
            cadence in cadences(),
            n in -10_000i64..10_000,
        ) {
            let now = DateTime::from_timestamp_micros(micros).unwrap();
            let window = Window::containing(now, cadence);
            prop_assert!(window.start() <= now && now < window.end());
            prop_assert_eq!(Window::new(window.start(), cadence), Ok(window));
            prop_assert_eq!(window.next().start(), window.end());
            prop_assert_eq!(window.offset(n).offset(-n), window);
            for rule in [RowRule::Service, RowRule::Notebook] {
                let owners = [window.previous(), window, window.next()];
                prop_assert_eq!(owners.iter().filter(|window| rule.contains(window, micros)).count(), 1);
                prop_assert_eq!(rule.bounds(&window).1 + 1, rule.bounds(&window.next()).0);
            }
        }
    }
}
