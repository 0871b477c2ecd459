//! The input file's name: `<component><delimiter><stamp>.csv`, written and read.
//!
//! Guarantees: the stamp is the window's start plus the time-zone offset, which shifts only the name and never the rows
//! (contract 3.6); reading takes the components one knows and a fixed-width stamp that must fill the rest, never a
//! split, because components such as `subsystem-01` contain the delimiter (contract 3.5).
//! EPOCH names count seconds and ignore the offset (the contract leaves both open; this is the choice).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Timelike, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const EXTENSION: &str = ".csv";

/// How the stamp is written: the API's `TimestampFormat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampFormat {
    /// `EPOCH`: seconds since 1970, ten digits.
    Epoch,
    /// `yyyy-MM-dd-HH-mm-ss`.
    DashedDateTime,
    /// `yyyyMMddHHmmss`.
    #[default]
    Compact,
}

/// What stands between the component and the stamp: the API's `ComponentTimestampDelimiter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Delimiter {
    /// `-`
    Hyphen,
    /// `_`
    #[default]
    Underscore,
    /// A space.
    Space,
    /// Nothing.
    Empty,
}

/// What is added to a window's start before it is written into a name: the API's `InputTimeZoneOffset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ZoneOffset {
    minutes: i16,
}

/// How input files are named: the API's `InferenceInputNameConfiguration` and `InputTimeZoneOffset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NameFormat {
    /// How the stamp is written.
    pub timestamp: TimestampFormat,
    /// What stands before the stamp.
    pub delimiter: Delimiter,
    /// What is added to the window's start.
    pub zone_offset: ZoneOffset,
}

/// A text that is not a timestamp format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a timestamp format; use EPOCH, yyyy-MM-dd-HH-mm-ss or yyyyMMddHHmmss")]
pub struct TimestampFormatError(pub String);

/// A text that is not a delimiter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a delimiter; use \"-\", \"_\", \" \" or the empty text")]
pub struct DelimiterError(pub String);

/// A text that is not a time-zone offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a time-zone offset; write it as +hh:mm or -hh:mm, up to 14:00")]
pub struct ZoneOffsetError(pub String);

/// Why a file name is not an input file of the known components.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputFileNameError {
    /// The name does not end in `.csv`.
    #[error("\"{name}\" does not end in .csv")]
    Extension {
        /// The file name.
        name: String,
    },
    /// The name starts with no known component followed by the delimiter.
    #[error("\"{name}\" starts with no known component followed by \"{delimiter}\"")]
    Component {
        /// The file name.
        name: String,
        /// The delimiter that was expected.
        delimiter: Delimiter,
    },
    /// What follows the component is not a stamp.
    #[error(
        "\"{name}\" belongs to component {component}, but \"{stamp}\" is not a time of the form {expected}"
    )]
    Stamp {
        /// The file name.
        name: String,
        /// The component it starts with.
        component: String,
        /// What stands in the stamp's place.
        stamp: String,
        /// The format that was expected.
        expected: TimestampFormat,
    },
}

impl NameFormat {
    /// The name of `component`'s input file for the window that starts at `start`.
    ///
    /// Stamps are fixed width for years 0 to 9999; EPOCH for 1970 to 2286.
    pub fn file_name(&self, component: &str, start: DateTime<Utc>) -> String {
        format!(
            "{component}{}{}{EXTENSION}",
            self.delimiter,
            self.stamp(start)
        )
    }

    /// The stamp for the window that starts at `start`.
    pub fn stamp(&self, start: DateTime<Utc>) -> String {
        let local = start + TimeDelta::minutes(i64::from(self.zone_offset.minutes));
        let (year, month, day) = (local.year(), local.month(), local.day());
        let (hour, minute, second) = (local.hour(), local.minute(), local.second());
        match self.timestamp {
            TimestampFormat::Epoch => format!("{:010}", start.timestamp()),
            TimestampFormat::DashedDateTime => {
                format!("{year:04}-{month:02}-{day:02}-{hour:02}-{minute:02}-{second:02}")
            }
            TimestampFormat::Compact => {
                format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
            }
        }
    }

    /// Which of `components` the file belongs to, and the UTC instant its stamp names.
    ///
    /// At most one component fits, since what is left of the name must be as long as a stamp.
    pub fn parse<'a>(
        &self,
        components: impl Iterator<Item = &'a str>,
        file_name: &str,
    ) -> Result<(&'a str, DateTime<Utc>), InputFileNameError> {
        let Some(stem) = file_name.strip_suffix(EXTENSION) else {
            return Err(InputFileNameError::Extension {
                name: file_name.to_owned(),
            });
        };
        let mut nearest: Option<(&str, &str)> = None;
        for component in components {
            let Some(stamp) = stem
                .strip_prefix(component)
                .and_then(|rest| rest.strip_prefix(self.delimiter.as_str()))
            else {
                continue;
            };
            if let Some(start) = self.parse_stamp(stamp) {
                return Ok((component, start));
            }
            if nearest.is_none_or(|(other, _)| other.len() < component.len()) {
                nearest = Some((component, stamp));
            }
        }
        let name = file_name.to_owned();
        Err(match nearest {
            None => InputFileNameError::Component {
                name,
                delimiter: self.delimiter,
            },
            Some((component, stamp)) => InputFileNameError::Stamp {
                name,
                component: component.to_owned(),
                stamp: stamp.to_owned(),
                expected: self.timestamp,
            },
        })
    }

    /// The UTC instant a stamp names; `None` where it is not a stamp of this format.
    pub fn parse_stamp(&self, stamp: &str) -> Option<DateTime<Utc>> {
        let bytes = stamp.as_bytes();
        let dashed;
        let digits = match self.timestamp {
            TimestampFormat::Epoch => {
                return (bytes.len() == 10)
                    .then(|| number(bytes))
                    .flatten()
                    .and_then(|s| DateTime::from_timestamp(s, 0));
            }
            TimestampFormat::Compact => bytes,
            TimestampFormat::DashedDateTime => {
                if bytes.len() != 19 || [4, 7, 10, 13, 16].iter().any(|at| bytes[*at] != b'-') {
                    return None;
                }
                dashed = bytes
                    .iter()
                    .copied()
                    .filter(|byte| *byte != b'-')
                    .collect::<Vec<u8>>();
                dashed.as_slice()
            }
        };
        if digits.len() != 14 {
            return None;
        }
        let field = |from: usize, to: usize| {
            number(&digits[from..to]).and_then(|value| u32::try_from(value).ok())
        };
        let date = NaiveDate::from_ymd_opt(
            i32::try_from(field(0, 4)?).ok()?,
            field(4, 6)?,
            field(6, 8)?,
        )?;
        let local = date.and_hms_opt(field(8, 10)?, field(10, 12)?, field(12, 14)?)?;
        Some(local.and_utc() - TimeDelta::minutes(i64::from(self.zone_offset.minutes)))
    }
}

impl TimestampFormat {
    /// Every format.
    pub const ALL: [TimestampFormat; 3] = [
        TimestampFormat::Epoch,
        TimestampFormat::DashedDateTime,
        TimestampFormat::Compact,
    ];

    /// The API's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            TimestampFormat::Epoch => "EPOCH",
            TimestampFormat::DashedDateTime => "yyyy-MM-dd-HH-mm-ss",
            TimestampFormat::Compact => "yyyyMMddHHmmss",
        }
    }
}

impl Delimiter {
    /// Every delimiter.
    pub const ALL: [Delimiter; 4] = [
        Delimiter::Hyphen,
        Delimiter::Underscore,
        Delimiter::Space,
        Delimiter::Empty,
    ];

    /// The delimiter itself.
    pub const fn as_str(self) -> &'static str {
        match self {
            Delimiter::Hyphen => "-",
            Delimiter::Underscore => "_",
            Delimiter::Space => " ",
            Delimiter::Empty => "",
        }
    }
}

impl ZoneOffset {
    /// No offset.
    pub const UTC: ZoneOffset = ZoneOffset { minutes: 0 };

    /// The offset in minutes east of UTC.
    pub const fn minutes(self) -> i64 {
        self.minutes as i64
    }
}

impl FromStr for TimestampFormat {
    type Err = TimestampFormatError;

    fn from_str(text: &str) -> Result<Self, TimestampFormatError> {
        TimestampFormat::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| TimestampFormatError(text.to_owned()))
    }
}

impl FromStr for Delimiter {
    type Err = DelimiterError;

    fn from_str(text: &str) -> Result<Self, DelimiterError> {
        Delimiter::ALL
            .into_iter()
            .find(|delimiter| delimiter.as_str() == text)
            .ok_or_else(|| DelimiterError(text.to_owned()))
    }
}

impl FromStr for ZoneOffset {
    type Err = ZoneOffsetError;

    fn from_str(text: &str) -> Result<Self, ZoneOffsetError> {
        let parse = || {
            let bytes = text.as_bytes();
            let [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = bytes else {
                return None;
            };
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if minutes > 59 || hours * 60 + minutes > 14 * 60 {
                return None;
            }
            let minutes = i16::try_from(hours * 60 + minutes).ok()?;
            Some(ZoneOffset {
                minutes: if *sign == b'-' { -minutes } else { minutes },
            })
        };
        parse().ok_or_else(|| ZoneOffsetError(text.to_owned()))
    }
}

impl fmt::Display for TimestampFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ZoneOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.minutes < 0 { '-' } else { '+' };
        let minutes = self.minutes.unsigned_abs();
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

macro_rules! serde_as_text {
    ($($kind:ty),*) => {$(
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(TimestampFormat, Delimiter, ZoneOffset);

macro_rules! schema_of_text {
    ($($kind:ident: $schema:tt),*) => {$(
        impl JsonSchema for $kind {
            fn schema_name() -> Cow<'static, str> {
                stringify!($kind).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

schema_of_text!(
    TimestampFormat: {"type": "string", "enum": TimestampFormat::ALL.map(TimestampFormat::as_str)},
    Delimiter: {"type": "string", "enum": Delimiter::ALL.map(Delimiter::as_str)},
    ZoneOffset: {"type": "string", "pattern": "^[+-][0-9]{2}:[0-9]{2}$"}
);

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0i64, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + i64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_default_is_what_the_notebook_writes() {
        let format = NameFormat::default();
        let name = format.file_name("subsystem-01", at("2021-01-27T09:10:00Z"));
        assert_eq!(name, "subsystem-01_20210127091000.csv");
        assert_eq!(
            format.parse(["subsystem-01"].into_iter(), &name).unwrap().1,
            at("2021-01-27T09:10:00Z")
        );
    }

    #[test]
    fn the_offset_shifts_only_dated_names() {
        let zone_offset = "+05:30".parse().unwrap();
        let start = at("2026-01-01T13:00:00Z");
        let name = |timestamp| {
            NameFormat {
                timestamp,
                delimiter: Delimiter::Hyphen,
                zone_offset,
            }
            .file_name("a", start)
        };
        assert_eq!(name(TimestampFormat::Compact), "a-20260101183000.csv");
        assert_eq!(
            name(TimestampFormat::DashedDateTime),
            "a-2026-01-01-18-30-00.csv"
        );
        assert_eq!(name(TimestampFormat::Epoch), "a-1767272400.csv");
    }

    #[test]
    fn offsets_up_to_fourteen_hours_parse() {
        for (text, minutes) in [
            ("+00:00", 0),
            ("-00:30", -30),
            ("+05:45", 345),
            ("+14:00", 840),
            ("-12:00", -720),
        ] {
            let offset: ZoneOffset = text.parse().unwrap();
            assert_eq!(
                (offset.minutes(), offset.to_string().as_str()),
                (minutes, text)
            );
        }
        assert_eq!("-00:00".parse(), Ok(ZoneOffset::UTC));
        for text in ["", "05:30", "+5:30", "+14:01", "+00:60", "+0a:00", "Z"] {
            assert!(text.parse::<ZoneOffset>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_api_strings_are_the_serde_form() {
        let format: NameFormat =
            serde_json::from_str(r#"{"timestamp":"EPOCH","delimiter":" ","zone_offset":"-03:30"}"#)
                .unwrap();
        assert_eq!(format.timestamp, TimestampFormat::Epoch);
        assert_eq!(
            serde_json::to_string(&format).unwrap(),
            r#"{"timestamp":"EPOCH","delimiter":" ","zone_offset":"-03:30"}"#
        );
        assert_eq!(
            serde_json::from_str::<NameFormat>("{}").unwrap(),
            NameFormat::default()
        );
        let error = serde_json::from_str::<NameFormat>(r#"{"delimiter":"+"}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("is not a delimiter"), "{error}");
    }

    #[test]
    fn a_foreign_name_says_what_is_wrong() {
        let format = NameFormat::default();
        let parse = |name: &str| {
            format
                .parse(["pump", "pump_2"].into_iter(), name)
                .unwrap_err()
        };
        assert!(matches!(
            parse("pump_20260101000000.txt"),
            InputFileNameError::Extension { .. }
        ));
        assert!(matches!(
            parse("fan_20260101000000.csv"),
            InputFileNameError::Component { .. }
        ));
        assert!(matches!(
            parse("pump-20260101000000.csv"),
            InputFileNameError::Component { .. }
        ));
        for stamp in [
            "20261301000000",
            "2026010100000",
            "202601010000000",
            "20260101006000",
            "2026-01-01-00-00-00",
            "+2026010100000",
        ] {
            let error = parse(&format!("pump_2_{stamp}.csv"));
            let InputFileNameError::Stamp { component, .. } = &error else {
                panic!("{error}")
            };
            assert_eq!(component, "pump_2");
        }
    }

    proptest! {
        #[test]
        fn names_round_trip(
            timestamp in prop::sample::select(TimestampFormat::ALL.to_vec()),
            delimiter in prop::sample::select(Delimiter::ALL.to_vec()),
            minutes in -840i16..=840,
            seconds in 0i64..9_999_000_000,
            names in prop::collection::hash_set("[a-c0-9._ -]{1,6}", 1..6),
        ) {
            let format = NameFormat { timestamp, delimiter, zone_offset: ZoneOffset { minutes } };
            let start = DateTime::from_timestamp(seconds, 0).unwrap();
            // Each name, a name that continues it, and one that continues it with something like a stamp.
            let components: Vec<String> = names
                .iter()
                .flat_map(|name| [name.clone(), format!("{name}{delimiter}1"), format!("{name}{delimiter}{}", format.stamp(start))])
                .collect();
            for component in &components {
                let name = format.file_name(component, start);
                let parsed = format.parse(components.iter().map(String::as_str), &name);
                prop_assert_eq!(parsed, Ok((component.as_str(), start)), "{}", name);
            }
        }
    }
}
