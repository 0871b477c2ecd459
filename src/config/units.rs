//! Values with units as people write them: spans of time (`24h`, `90s`) and sizes in bytes (`64MiB`).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time, written like `5m`, `24h` or `1d 12h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A number of bytes, written like `65536`, `512KiB`, `64MiB` or `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// How long something is kept: a span, or `forever`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep(pub Option<Duration>);

/// How long what a prefix holds is kept, written like `exports/=30d`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepRule {
    /// The prefix.
    pub prefix: String,
    /// For how long.
    pub keep: Keep,
}

const UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A number of bytes for people, in the units of the configuration.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Span)
            .map_err(|_| format!("\"{text}\" is not a span of time: write it like 90s, 5m or 24h"))
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(keep) => Span(keep).fmt(f),
            None => f.write_str("forever"),
        }
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "forever" {
            return Ok(Self(None));
        }
        match text.parse() {
            Ok(Span(keep)) if !keep.is_zero() => Ok(Self(Some(keep))),
            _ => Err(format!(
                "\"{text}\" is not how long something is kept: write it like 7d or 12h, or forever"
            )),
        }
    }
}

impl fmt::Display for KeepRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.prefix, self.keep)
    }
}

impl FromStr for KeepRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = text.rsplit_once('=').and_then(|(prefix, keep)| {
            Some(Self {
                prefix: prefix.to_owned(),
                keep: keep.parse().ok()?,
            })
        });
        rule.filter(|rule| !rule.prefix.is_empty()).ok_or_else(|| {
            format!("\"{text}\" is not a rule: write it like exports/=30d or models/=forever")
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in UNITS {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("\"{text}\" is not a size: write it like 65536, 512KiB, 64MiB or 2GiB");
        let trimmed = text.trim();
        let (number, size) = UNITS
            .iter()
            .find_map(|(unit, size)| trimmed.strip_suffix(unit).map(|number| (number, *size)))
            .unwrap_or((trimmed, 1));
        let number: u64 = number.trim().parse().map_err(|_| bad())?;
        number.checked_mul(size).map(ByteSize).ok_or_else(bad)
    }
}

macro_rules! as_string {
    ($name:ident, $pattern:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern})
            }
        }
    };
}

as_string!(Span, r"^\s*(0|(\d+\s*[A-Za-zµ]+\s*)+)\s*$");
as_string!(Keep, r"^\s*(forever|(\d+\s*[A-Za-zµ]+\s*)+)\s*$");
as_string!(KeepRule, r"^.+=\s*(forever|(\d+\s*[A-Za-zµ]+\s*)+)\s*$");
as_string!(ByteSize, r"^\s*\d+\s*(B|KiB|MiB|GiB)?\s*$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_how_long_reads_back_as_written() {
        for text in ["7days", "1h", "forever"] {
            assert_eq!(text.parse::<Keep>().unwrap().to_string(), text);
        }
        assert_eq!(
            "a=b/=30days".parse::<KeepRule>().unwrap().to_string(),
            "a=b/=30days"
        );
        for bad in ["0s", "soon", ""] {
            assert!(bad.parse::<Keep>().is_err(), "{bad}");
            assert!(
                format!("exports/={bad}").parse::<KeepRule>().is_err(),
                "{bad}"
            );
        }
        assert!("=7d".parse::<KeepRule>().is_err());
    }

    #[test]
    fn sizes_and_spans_read_back_as_written() {
        for text in ["64MiB", "2GiB", "513B", "1KiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        assert_eq!("65536".parse::<ByteSize>().unwrap(), ByteSize(65536));
        assert_eq!("1day 12h".parse::<Span>().unwrap().to_string(), "1day 12h");
        assert!("64 bananas".parse::<ByteSize>().is_err());
        assert!("99999999999GiB".parse::<ByteSize>().is_err());
        assert!("soon".parse::<Span>().unwrap_err().contains("soon"));
    }
}
