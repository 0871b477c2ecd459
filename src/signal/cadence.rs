//! The cadence: how long a window is, and how often one is due.
//!
//! Guarantees: only the five values of the service's `DataUploadFrequency` exist (contract 3.1), so every cadence
//! divides the hour and its windows align to the UTC hour.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The length of a window: the service's `DataUploadFrequency`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cadence {
    /// Five minutes.
    Pt5m,
    /// Ten minutes.
    Pt10m,
    /// Fifteen minutes.
    Pt15m,
    /// Thirty minutes.
    Pt30m,
    /// One hour.
    Pt1h,
}

/// A text that is not one of the five cadences.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a cadence; use PT5M, PT10M, PT15M, PT30M or PT1H")]
pub struct CadenceError(pub String);

impl Cadence {
    /// Every cadence, shortest first.
    pub const ALL: [Cadence; 5] = [
        Cadence::Pt5m,
        Cadence::Pt10m,
        Cadence::Pt15m,
        Cadence::Pt30m,
        Cadence::Pt1h,
    ];

    /// The length in minutes.
    pub const fn minutes(self) -> i64 {
        match self {
            Cadence::Pt5m => 5,
            Cadence::Pt10m => 10,
            Cadence::Pt15m => 15,
            Cadence::Pt30m => 30,
            Cadence::Pt1h => 60,
        }
    }

    /// The length in seconds.
    pub const fn seconds(self) -> i64 {
        self.minutes() * 60
    }

    /// The length in microseconds.
    pub const fn micros(self) -> i64 {
        self.seconds() * 1_000_000
    }

    /// The length as a duration.
    pub const fn duration(self) -> TimeDelta {
        TimeDelta::minutes(self.minutes())
    }

    /// The API's spelling, `PT5M` to `PT1H`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cadence::Pt5m => "PT5M",
            Cadence::Pt10m => "PT10M",
            Cadence::Pt15m => "PT15M",
            Cadence::Pt30m => "PT30M",
            Cadence::Pt1h => "PT1H",
        }
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Cadence {
    type Err = CadenceError;

    fn from_str(text: &str) -> Result<Self, CadenceError> {
        Cadence::ALL
            .into_iter()
            .find(|cadence| cadence.as_str() == text)
            .ok_or_else(|| CadenceError(text.to_owned()))
    }
}

impl Serialize for Cadence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for Cadence {
    fn schema_name() -> Cow<'static, str> {
        "Cadence".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": Cadence::ALL.map(Cadence::as_str)})
    }
}

impl<'de> Deserialize<'de> for Cadence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cadence_divides_the_hour_and_round_trips() {
        for cadence in Cadence::ALL {
            assert_eq!(60 % cadence.minutes(), 0);
            assert_eq!(cadence.to_string().parse(), Ok(cadence));
            assert_eq!(cadence.duration().num_seconds(), cadence.seconds());
            let json = serde_json::to_string(&cadence).unwrap();
            assert_eq!(json, format!("\"{cadence}\""));
            assert_eq!(serde_json::from_str::<Cadence>(&json).unwrap(), cadence);
        }
    }

    #[test]
    fn an_unknown_cadence_is_refused_with_the_valid_ones() {
        let message = "PT7M".parse::<Cadence>().unwrap_err().to_string();
        assert!(message.contains("PT7M"), "{message}");
        for cadence in Cadence::ALL {
            assert!(message.contains(cadence.as_str()), "{message}");
        }
        assert!("pt5m".parse::<Cadence>().is_err());
    }
}
