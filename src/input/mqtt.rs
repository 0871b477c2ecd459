//! MQTT 3.1.1 and 5: a durable session of QoS 1 whose messages are acknowledged when they are in the journal.
//!
//! ```text
//!  broker ─► connection ─► packet ─► decode (payload, Sparkplug B) ─► receive: held, durable, acknowledged
//! ```
//!
//! Guarantees: what the broker kept for this session is in the journal once, or set aside where somebody can see it, whatever dies
//! in between. The protocol is spoken here and not by a library: those at hand end the connection at a message above their limit, which
//! the broker sends again for ever, and bring 57,000 lines for two versions of it.
//! What QoS 1 does not promise stands in docs/sources.md: what the broker threw away, it threw away.

pub mod connection;
pub mod decode;
mod held;
pub mod packet;
pub mod payload;
mod receive;
mod standing;
pub mod topic;
pub mod watch;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::connection::{Broker, Options};
use self::packet::Version;
use self::payload::Form;
use super::Link;
use crate::config::{ByteSize, Span};
use crate::source::shape::Ticks;

/// An input from an MQTT broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the broker is.
    pub url: String,
    /// Which MQTT is spoken, 5 or 3.1.1.
    pub version: Spoken,
    /// Filters to subscribe; empty: the topics of the tag list.
    pub topics: Vec<String>,
    /// What messages hold.
    pub payload: Payload,
    /// JSON: pointer to the value, where the tag's address has none or leads to an object.
    pub value: String,
    /// JSON: pointer to the time; empty: messages are timed by their arrival.
    pub time: String,
    /// JSON: pointer to the quality; empty: all is good.
    pub quality: String,
    /// What a number as time counts since 1970.
    pub time_unit: TimeUnit,
    /// IANA name of the zone of times without one; empty: UTC.
    pub time_zone: String,
    /// Qualities that are good; others are bad, whose values are missing.
    pub good: Vec<String>,
    /// Qualities that are uncertain, whose values are taken and counted.
    pub uncertain: Vec<String>,
    /// Id of the session; empty: one is made and kept in the data directory.
    pub client_id: String,
    /// File with the user's name in its first line.
    pub user_file: String,
    /// File with the password in its first line.
    pub password_file: String,
    /// PEM file of the authorities that are trusted; empty: those of the system.
    pub tls_ca: String,
    /// PEM file of our certificate chain.
    pub tls_cert: String,
    /// PEM file of its private key.
    pub tls_key: String,
    /// The broker is heard of within this time, or is gone.
    pub keep_alive: Span,
    /// How long the broker keeps the session and what it queues while nothing is connected (version 5; with 3.1.1 it decides itself).
    pub session: Span,
    /// Messages that may be without acknowledgement (version 5).
    pub receive_maximum: u16,
    /// Messages above this are passed over, and counted.
    pub max_message: ByteSize,
}

/// Which MQTT is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Spoken {
    /// MQTT 5
    #[serde(rename = "5")]
    Five,
    /// MQTT 3.1.1
    #[serde(rename = "3.1.1")]
    Three,
}

/// What messages hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// A number as text.
    Number,
    /// JSON.
    Json,
    /// Sparkplug B.
    Sparkplug,
}

/// What a number as time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl From<TimeUnit> for Ticks {
    fn from(unit: TimeUnit) -> Ticks {
        match unit {
            TimeUnit::S => Ticks::Seconds,
            TimeUnit::Ms => Ticks::Millis,
            TimeUnit::Us => Ticks::Micros,
            TimeUnit::Ns => Ticks::Nanos,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Config {
            url: "mqtt://127.0.0.1:1883".into(),
            version: Spoken::Five,
            topics: Vec::new(),
            payload: Payload::Number,
            value: "/value".into(),
            time: String::new(),
            quality: String::new(),
            time_unit: TimeUnit::Ms,
            time_zone: String::new(),
            good: words(&["good", "true", "192"]),
            uncertain: words(&["uncertain", "64"]),
            client_id: String::new(),
            user_file: String::new(),
            password_file: String::new(),
            tls_ca: String::new(),
            tls_cert: String::new(),
            tls_key: String::new(),
            keep_alive: Span(Duration::from_secs(30)),
            session: Span(Duration::from_secs(7 * 86_400)),
            receive_maximum: 1000,
            max_message: ByteSize(1 << 20),
        }
    }
}

impl Config {
    /// What is wrong with its values: key and problem.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut say = |key, problem: String| found.push((key, problem));
        match self.url.parse::<Broker>() {
            Err(problem) => say("url", problem),
            Ok(broker) => {
                for (key, file) in [("tls_ca", &self.tls_ca), ("tls_cert", &self.tls_cert)] {
                    if !broker.is_tls && !file.is_empty() {
                        say(key, "is set, and url has no TLS: write mqtts://".into());
                    }
                }
            }
        }
        for filter in &self.topics {
            if let Some(fault) = topic::fault(filter) {
                say(
                    "topics",
                    format!("\"{filter}\" cannot be subscribed: {fault}"),
                );
            }
        }
        let kept = topic::without_covered(&self.topics);
        for filter in self.topics.iter().filter(|it| !kept.contains(it)) {
            let covering = kept.iter().find(|it| topic::covers(it, filter));
            if let Some(covering) = covering {
                say(
                    "topics",
                    format!(
                        "\"{filter}\" is a part of \"{covering}\", and some brokers send its messages twice: leave it out"
                    ),
                );
            }
        }
        if self.version == Spoken::Three {
            for (one, other) in topic::partial_overlaps(&kept) {
                say(
                    "topics",
                    format!(
                        "\"{one}\" and \"{other}\" overlap, and some brokers send what both take twice: write filters that do not, or set version = \"5\", which tells them apart"
                    ),
                );
            }
        }
        for (key, pointer) in [
            ("value", &self.value),
            ("time", &self.time),
            ("quality", &self.quality),
        ] {
            if !pointer.is_empty() && !pointer.starts_with('/') {
                say(
                    key,
                    format!(
                        "\"{pointer}\" is no JSON pointer: it begins with /, such as /data/value"
                    ),
                );
            }
            if self.payload != Payload::Json && *pointer != *default_pointer(key) {
                say(key, "is for JSON: set payload = \"json\"".into());
            }
        }
        if let Err(problem) = Form::zone(&self.time_zone) {
            say("time_zone", problem);
        }
        if self.client_id.len() > 256 || self.client_id.contains(char::is_control) {
            say(
                "client_id",
                "is longer than 256 bytes, or holds control characters".into(),
            );
        }
        if self.user_file.is_empty() && !self.password_file.is_empty() {
            say("user_file", "is needed with password_file".into());
        }
        if let Some(problem) = crate::ops::tls::half(&self.tls_cert, &self.tls_key) {
            say("tls_key", problem.into());
        }
        // A connection that is dead without a word is seen within this.
        if !(2..=60).contains(&self.keep_alive.0.as_secs()) {
            say(
                "keep_alive",
                format!("is {}, expected 2s to 60s", self.keep_alive),
            );
        }
        if self.session.0.as_secs() < 60 {
            say(
                "session",
                format!(
                    "is {}: the broker would forget us at the first break; expected at least 1m",
                    self.session
                ),
            );
        }
        if self.receive_maximum == 0 {
            say("receive_maximum", "is 0, expected 1 to 65535".into());
        }
        if !(1024..=256 << 20).contains(&self.max_message.0) {
            say(
                "max_message",
                format!("is {}, expected 1KiB to 256MiB", self.max_message),
            );
        }
        found
    }

    /// Why a tag's address cannot be used with this input.
    pub fn address_fault(&self, address: &str) -> Option<String> {
        decode::fault(address, self.payload, &self.topics)
    }

    /// Serves the broker until it is told to stop.
    pub async fn run(&self, link: &Link) -> anyhow::Result<()> {
        receive::run(self, link).await
    }

    /// What a connection is made with.
    pub fn options(&self, id: &str) -> Result<Options, String> {
        Ok(Options {
            broker: self.url.parse()?,
            version: match self.version {
                Spoken::Five => Version::V5,
                Spoken::Three => Version::V3,
            },
            id: id.to_owned(),
            clean: false,
            keep_alive: self.keep_alive.0,
            expiry: self.session.0,
            receive_maximum: self.receive_maximum,
            maximum_packet: usize::try_from(self.max_message.0).unwrap_or(usize::MAX),
            login: [self.user_file.clone(), self.password_file.clone()],
            tls: [
                self.tls_ca.clone(),
                self.tls_cert.clone(),
                self.tls_key.clone(),
            ],
        })
    }

    fn form(&self) -> Form {
        Form {
            value: self.value.clone(),
            time: self.time.clone(),
            quality: self.quality.clone(),
            ticks: Some(self.time_unit.into()),
            // What is no zone was refused.
            zone: Form::zone(&self.time_zone).unwrap_or_default(),
            good: self.good.clone(),
            uncertain: self.uncertain.clone(),
        }
    }
}

fn default_pointer(key: &str) -> &'static str {
    if key == "value" { "/value" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut Config)) -> Vec<(&'static str, String)> {
        let mut config = Config::default();
        change(&mut config);
        config.problems()
    }

    #[test]
    fn the_defaults_are_right_and_what_is_wrong_names_its_key() {
        assert_eq!(problems(|_| {}), []);
        let json = |config: &mut Config| config.payload = Payload::Json;
        type Change = Box<dyn FnOnce(&mut Config)>;
        let cases: [(&str, Change); 12] = [
            ("url", Box::new(|it| it.url = "broker".into())),
            ("topics", Box::new(|it| it.topics = vec!["a#".into()])),
            ("value", Box::new(|it| it.value = "/v".into())),
            (
                "time",
                Box::new(move |it| {
                    json(it);
                    it.time = "ts".into()
                }),
            ),
            ("time_zone", Box::new(|it| it.time_zone = "Berlin".into())),
            ("user_file", Box::new(|it| it.password_file = "p".into())),
            ("tls_ca", Box::new(|it| it.tls_ca = "ca.pem".into())),
            (
                "tls_key",
                Box::new(|it| {
                    it.url = "mqtts://b".into();
                    it.tls_cert = "c".into()
                }),
            ),
            (
                "keep_alive",
                Box::new(|it| it.keep_alive = Span(Duration::from_secs(120))),
            ),
            ("session", Box::new(|it| it.session = Span(Duration::ZERO))),
            ("receive_maximum", Box::new(|it| it.receive_maximum = 0)),
            ("max_message", Box::new(|it| it.max_message = ByteSize(10))),
        ];
        for (key, change) in cases {
            let found = problems(change);
            assert_eq!(found.len(), 1, "{key}: {found:?}");
            assert_eq!(found[0].0, key);
        }
    }

    #[test]
    fn the_reference_has_every_key_with_its_default() {
        let reference = include_str!("../../config/lookoutd.toml");
        let (_, block) = reference.split_once("\n# [input.plant]\n").unwrap();
        let lines = block.lines().take_while(|line| line.starts_with('#'));
        let values: Vec<&str> = lines
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| !line.starts_with('#'))
            .collect();
        let text = config::File::from_str(&values.join("\n"), config::FileFormat::Toml);
        let read = config::Config::builder().add_source(text).build().unwrap();
        let mut values: serde_json::Value = read.try_deserialize().unwrap();
        let values = values.as_object_mut().unwrap();
        assert_eq!(values.remove("kind").unwrap(), "mqtt");
        let all = serde_json::to_value(Config::default()).unwrap();
        assert_eq!(values.len(), all.as_object().unwrap().len());
        let read: Config = serde_json::from_value(values.clone().into()).unwrap();
        assert_eq!(read, Config::default());
    }

    /// M9
    #[test]
    fn m9_a_shared_subscription_is_refused_with_what_to_do() {
        let found = problems(|it| it.topics = vec!["$share/pair/plant/#".into()]);
        assert!(
            found[0].1.contains("each gateway with its own session"),
            "{found:?}"
        );
    }

    /// M10
    #[test]
    fn m10_filters_that_overlap_are_named_both() {
        let two = |one: &str, other: &str, version| {
            problems(|it| {
                it.topics = vec![one.into(), other.into()];
                it.version = version;
            })
        };
        let found = two("a/#", "a/b", Spoken::Five);
        assert!(found[0].1.contains("\"a/b\"") && found[0].1.contains("\"a/#\""));
        let found = two("a/+/c", "a/b/+", Spoken::Three);
        assert!(found[0].1.contains("\"a/+/c\"") && found[0].1.contains("\"a/b/+\""));
        // Version 5 says for which of them a message comes.
        assert_eq!(two("a/+/c", "a/b/+", Spoken::Five), []);
        assert_eq!(two("a/+", "b/#", Spoken::Three), []);
    }

    #[test]
    fn addresses_that_cannot_be_are_told_why() {
        let mut config = Config::default();
        assert_eq!(config.address_fault("plant/amps"), None);
        for address in ["plant/#", "plant/+/amps", "", "plant/amps#/value"] {
            assert!(config.address_fault(address).is_some(), "{address}");
        }
        config.payload = Payload::Json;
        assert_eq!(config.address_fault("plant/amps#/value"), None);
        assert!(config.address_fault("plant/amps#value").is_some());
        config.topics = vec!["other/#".into()];
        assert!(config.address_fault("plant/amps").is_some());
        config.payload = Payload::Sparkplug;
        config.topics = vec![];
        assert!(config.address_fault("plant/amps").is_some());
        assert_eq!(config.address_fault("G/E#Motor/Amps"), None);
    }
}
