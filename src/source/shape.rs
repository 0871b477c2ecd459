//! What a history looks like: the names of its columns, what its times count, and whose clock they are.
//!
//! Guarantees: a time without a zone becomes the instant that pandas' `tz_localize` gives by the same rule, or an error that
//! names it; what says itself which instant it is (a zone in the type or the text, a count since 1970) is left as it is.
//! Deliberately absent: columns of a file, which `replay` looks for.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeZone};
use chrono_tz::{GapInfo, Tz};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::signal::timestamp;

/// What a number in the time column counts, from 1970 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Ticks {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Millis,
    /// Microseconds.
    #[serde(rename = "us")]
    Micros,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanos,
}

impl Ticks {
    /// The one that is written so.
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "s" => Some(Ticks::Seconds),
            "ms" => Some(Ticks::Millis),
            "us" => Some(Ticks::Micros),
            "ns" => Some(Ticks::Nanos),
            _ => None,
        }
    }

    /// The microseconds of a count; the nearest there are where it is beyond them.
    pub fn micros(self, count: i64) -> i64 {
        match self {
            Ticks::Seconds => count.saturating_mul(1_000_000),
            Ticks::Millis => count.saturating_mul(1000),
            Ticks::Micros => count,
            Ticks::Nanos => count.div_euclid(1000),
        }
    }

    /// The microseconds of a count with a fraction; `None` where it is no number.
    pub fn micros_of(self, count: f64) -> Option<i64> {
        let micros = match self {
            Ticks::Seconds => count * 1e6,
            Ticks::Millis => count * 1e3,
            Ticks::Micros => count,
            Ticks::Nanos => (count / 1e3).floor(),
        };
        count.is_finite().then_some(micros.round() as i64)
    }
}

/// Which instant a local time is that comes twice, as clocks are put back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Twice {
    /// None: the history is refused.
    #[default]
    Refuse,
    /// The first, still in summer time.
    Earlier,
    /// The second, in winter time.
    Later,
}

/// Which instant a local time is that never was, as clocks are put forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Never {
    /// None: the history is refused.
    #[default]
    Refuse,
    /// The first instant after the change.
    Forward,
    /// The last microsecond before it.
    Backward,
}

/// The clock that times without a zone were read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalClock {
    zone: Tz,
    twice: Twice,
    never: Never,
}

impl Default for LocalClock {
    fn default() -> Self {
        Self {
            zone: Tz::UTC,
            twice: Twice::default(),
            never: Never::default(),
        }
    }
}

impl LocalClock {
    /// The clock of a zone by its IANA name; none is UTC.
    pub fn of(zone: &str, twice: Twice, never: Never) -> Result<Self, String> {
        let zone = match zone {
            "" => Tz::UTC,
            name => name.parse().map_err(|_| {
                format!("\"{name}\" is no time zone: write its IANA name, such as Europe/Berlin")
            })?,
        };
        Ok(Self { zone, twice, never })
    }

    /// The instant at which the clock shows `local` (microseconds, as if in UTC); the error says why there is none.
    pub fn instant(&self, local: i64) -> Result<i64, String> {
        if self.zone == Tz::UTC {
            return Ok(local);
        }
        // What lies beyond the years that can be written is refused with its row by whoever reads it.
        let Some(shown) = DateTime::from_timestamp_micros(local).map(|time| time.naive_utc())
        else {
            return Ok(local);
        };
        let at = |offset: i32| local - i64::from(offset) * 1_000_000;
        match self.zone.offset_from_local_datetime(&shown) {
            MappedLocalTime::Single(offset) => Ok(at(offset.fix().local_minus_utc())),
            MappedLocalTime::Ambiguous(earlier, later) => match self.twice {
                Twice::Refuse => Err(self.refusal(
                    local,
                    "comes twice",
                    "time_twice to \"earlier\" or \"later\"",
                )),
                Twice::Earlier => Ok(at(earlier.fix().local_minus_utc())),
                Twice::Later => Ok(at(later.fix().local_minus_utc())),
            },
            MappedLocalTime::None => self.in_gap(local, &shown),
        }
    }

    fn in_gap(&self, local: i64, shown: &NaiveDateTime) -> Result<i64, String> {
        let after = GapInfo::new(shown, &self.zone).and_then(|gap| gap.end);
        match (self.never, after) {
            (Never::Forward, Some(after)) => Ok(after.timestamp_micros()),
            (Never::Backward, Some(after)) => Ok(after.timestamp_micros() - 1),
            _ => Err(self.refusal(
                local,
                "never was",
                "time_never to \"forward\" or \"backward\"",
            )),
        }
    }

    fn refusal(&self, local: i64, what: &str, remedy: &str) -> String {
        format!(
            "{} {what} in {}, as its clocks change: set source.{remedy}, or record in UTC",
            timestamp::format(local),
            self.zone
        )
    }
}

/// Where a long history, which has a row for each value, has what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Long {
    /// The column of tags.
    pub tag: String,
    /// The column of values.
    pub value: String,
    /// The column of qualities; empty where there is none.
    pub quality: String,
}

/// What a history looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The name of the time column; empty: the one that is found.
    pub time: String,
    /// What it counts where it is a number.
    pub ticks: Option<Ticks>,
    /// The clock of times without a zone.
    pub clock: LocalClock,
    /// Its columns, where it is long and they are named; otherwise they are found.
    pub long: Option<Long>,
    /// Qualities of values that count, in small letters.
    pub good: Vec<String>,
}

impl Default for Shape {
    fn default() -> Self {
        super::Config::default().shape()
    }
}

impl Shape {
    /// Whether a value of this quality counts; one without a quality does.
    pub fn is_good(&self, quality: &[u8]) -> bool {
        let quality = String::from_utf8_lossy(quality);
        let quality = quality.trim();
        quality.is_empty()
            || self
                .good
                .iter()
                .any(|good| quality.eq_ignore_ascii_case(good))
    }

    /// Microseconds of a time as a text has it; the error says what is wrong with it.
    pub fn time_of(&self, text: &[u8]) -> Result<i64, String> {
        let shown = || String::from_utf8_lossy(text).trim().to_owned();
        if let Some((micros, zoned)) = timestamp::parse_any(text) {
            return match zoned {
                true => Ok(micros),
                false => self.clock.instant(micros),
            };
        }
        let number = std::str::from_utf8(text).ok().map(str::trim);
        if let (Some(ticks), Some(number)) = (self.ticks, number) {
            if let Ok(count) = number.parse() {
                return Ok(ticks.micros(count));
            }
            if let Some(micros) = number.parse().ok().and_then(|count| ticks.micros_of(count)) {
                return Ok(micros);
            }
        }
        let is_number = number.is_some_and(|number| number.parse::<f64>().is_ok());
        Err(format!(
            "`{}` is no timestamp; {}",
            crate::records::shortened(&shown()),
            match self.ticks {
                Some(_) =>
                    "expected a number, or a timestamp such as 2020-01-31T13:05:00".to_owned(),
                None if is_number =>
                    "set source.time_unit to what it counts from 1970 on, s, ms, us or ns"
                        .to_owned(),
                None => format!("expected {}", timestamp::EXPECTED_ANY),
            }
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(zone: &str, twice: Twice, never: Never) -> LocalClock {
        LocalClock::of(zone, twice, never).unwrap()
    }

    #[test]
    fn local_times_are_the_instants_that_pandas_gives() {
        // From pandas 3, in whose rules changes are on the hour where one never was: pd.Timestamp(local).tz_localize(zone, ambiguous=..., nonexistent=...).tz_convert("UTC").
        let facts = include_str!("../../tests/data/tz_localize.csv");
        let mut seen = 0;
        for line in facts.lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            let [zone, local, rule, expected] = cells[..] else {
                panic!("{line}");
            };
            let (twice, never) = match rule {
                "earlier" => (Twice::Earlier, Never::Refuse),
                "later" => (Twice::Later, Never::Refuse),
                "forward" => (Twice::Refuse, Never::Forward),
                "backward" => (Twice::Refuse, Never::Backward),
                _ => (Twice::Refuse, Never::Refuse),
            };
            let found = clock(zone, twice, never).instant(timestamp::parse(local).unwrap());
            match expected {
                "refused" => assert!(found.is_err(), "{line}: {found:?}"),
                time => assert_eq!(found, Ok(timestamp::parse(time).unwrap()), "{line}"),
            }
            seen += 1;
        }
        assert!(seen > 400, "{seen}");
    }

    #[test]
    fn a_refusal_names_the_time_the_zone_and_the_key() {
        let berlin = clock("Europe/Berlin", Twice::Refuse, Never::Refuse);
        for (local, words) in [
            (
                "2020-10-25T02:30:00",
                ["comes twice in Europe/Berlin", "source.time_twice"],
            ),
            (
                "2020-03-29T02:30:00",
                ["never was in Europe/Berlin", "source.time_never"],
            ),
        ] {
            let error = berlin
                .instant(timestamp::parse(local).unwrap())
                .unwrap_err();
            assert!(error.starts_with(local), "{error}");
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        let error = LocalClock::of("Berlin", Twice::Refuse, Never::Refuse).unwrap_err();
        assert!(error.contains("IANA"), "{error}");
    }

    #[test]
    fn what_says_itself_which_instant_it_is_is_not_moved() {
        let shape = Shape {
            ticks: Some(Ticks::Seconds),
            clock: clock("Asia/Kathmandu", Twice::Refuse, Never::Refuse),
            ..Shape::default()
        };
        let at = |text: &str| shape.time_of(text.as_bytes()).map(timestamp::format);
        for text in [
            "2020-01-01T00:00:00Z",
            "2020-01-01T01:00:00+01:00",
            "2019-12-31 19:00:00.0-0500",
            "1577836800",
            "1577836800.0",
            "2020-01-01 05:45",
        ] {
            assert_eq!(at(text).as_deref(), Ok("2020-01-01T00:00:00"), "{text}");
        }
        assert!(
            at("yesterday")
                .unwrap_err()
                .contains("`yesterday` is no timestamp")
        );
        let plain = Shape::default();
        for count in ["1577836800", "1577836800.5"] {
            let error = plain.time_of(count.as_bytes()).unwrap_err();
            assert!(error.contains("source.time_unit"), "{error}");
        }
        let error = plain.time_of(b"yesterday").unwrap_err();
        assert!(!error.contains("time_unit"), "{error}");
        assert_eq!(
            Ticks::Nanos.micros_of(1_577_836_800_500_000_000.0),
            Some(1_577_836_800_500_000)
        );
        assert_eq!(Ticks::Millis.micros_of(f64::NAN), None);
    }
}
