//! `lookoutd source browse`: listens for a while and writes what came as a tag list to edit.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::cli::{ConfigArgs, runtime};
use crate::config::Span;
use crate::input::mqtt::packet::Publish;
use crate::input::mqtt::watch::{Seen, Watch};
use crate::input::mqtt::{self, Payload, Spoken, payload};
use crate::input::{Settings, sparkplug};

/// Addresses that are listed at most.
const MOST: usize = 100_000;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd source browse --url mqtt://127.0.0.1:1883 > tags.csv
  lookoutd source browse --url mqtt://127.0.0.1:1883 --topic 'plant/#' --for 2m
  lookoutd source browse --config lookoutd.toml --input plant > tags.csv

The list has a line for each number that came, also inside JSON and Sparkplug B. Subsystem is a guess by the topic: put together
there what belongs to one part of the machine, and leave out what is none of its signals.")]
pub struct BrowseArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The input of the configuration to look through; the only one by default
    #[arg(long, value_name = "NAME")]
    input: Option<String>,
    /// A broker, instead of an input of the configuration
    #[arg(long, value_name = "URL", conflicts_with = "input")]
    url: Option<String>,
    /// Filter of the topics to look at; # is all of them
    #[arg(long, value_name = "FILTER", default_value = "#")]
    topic: String,
    /// MQTT 3.1.1 instead of 5, with --url
    #[arg(long)]
    mqtt3: bool,
    /// How long it is listened
    #[arg(long = "for", value_name = "SPAN", default_value = "30s")]
    lasts: String,
}

/// How many samples came at each address.
type Found = BTreeMap<String, u64>;

pub fn run(args: BrowseArgs) -> anyhow::Result<ExitCode> {
    let lasts: Span = args.lasts.parse().map_err(anyhow::Error::msg)?;
    let (name, config) = broker(&args)?;
    let runtime = runtime()?;
    let found = runtime.block_on(listen(&config, &args.topic, lasts.0));
    runtime.shutdown_timeout(Duration::from_millis(300));
    let found = found?;
    if found.is_empty() {
        complain!("nothing came within {lasts}: look at --topic, and at the broker's access rules");
        return Ok(ExitCode::from(3));
    }
    let mut list = csv::Writer::from_writer(Vec::new());
    list.write_record(["Subsystem", "Tag", "UOM", "Name", "Input", "Address"])?;
    for address in found.keys() {
        let (tag, subsystem) = names(address);
        let name_of = fitting(&tag);
        let name_of = if name_of == tag { "" } else { &name_of };
        list.write_record([&subsystem, &tag, "", name_of, &name, address])?;
    }
    say_part!("{}", String::from_utf8(list.into_inner()?)?);
    let samples: u64 = found.values().sum();
    complain!("{} addresses, {samples} samples in {lasts}", found.len());
    Ok(ExitCode::SUCCESS)
}

fn broker(args: &BrowseArgs) -> anyhow::Result<(String, mqtt::Config)> {
    if let Some(url) = &args.url {
        let config = mqtt::Config {
            url: url.clone(),
            version: if args.mqtt3 {
                Spoken::Three
            } else {
                Spoken::Five
            },
            ..mqtt::Config::default()
        };
        if let Some((_, problem)) = config.problems().into_iter().find(|(key, _)| *key == "url") {
            bail!("--url {problem}");
        }
        return Ok((String::new(), config));
    }
    let loaded = args.config.load()?;
    let inputs = &loaded.config.input;
    let known = || inputs.keys().cloned().collect::<Vec<_>>().join(", ");
    let (name, settings) = match &args.input {
        Some(name) => inputs
            .get_key_value(name)
            .with_context(|| format!("there is no input {name}; there is {}", known()))?,
        None if inputs.len() == 1 => inputs.iter().next().context("one input")?,
        None if inputs.is_empty() => {
            bail!("the configuration has no inputs: name a broker with --url mqtt://HOST:1883")
        }
        None => bail!("which input? name it with --input: there is {}", known()),
    };
    match settings {
        Settings::Mqtt(config) => Ok((name.clone(), config.clone())),
        #[expect(unreachable_patterns, reason = "there is one kind so far")]
        other => bail!(
            "input {name} is of kind {}, which cannot be browsed",
            other.kind()
        ),
    }
}

async fn listen(config: &mqtt::Config, filter: &str, lasts: Duration) -> anyhow::Result<Found> {
    let mut watch = Watch::open(config, &[filter.to_owned()])
        .await
        .with_context(|| format!("the broker {}", config.url))?;
    let mut found = Found::new();
    let mut strange = Vec::new();
    let end = Instant::now() + lasts;
    while let Ok(seen) = timeout_at(end, watch.next()).await {
        for seen in seen.with_context(|| format!("the broker {}", config.url))? {
            match seen {
                Seen::Message(message) => take(&mut found, &mut strange, config, &message),
                Seen::Refused(filter, why) => bail!("the broker does not grant {filter}: {why}"),
                Seen::Oversized(topic, size) => {
                    complain!("{topic}: {size} bytes are more than is read")
                }
            }
        }
    }
    watch.close().await;
    if !strange.is_empty() {
        let shown: Vec<&str> = strange.iter().take(10).map(String::as_str).collect();
        complain!(
            "{} topics hold no number: {}",
            strange.len(),
            shown.join(", ")
        );
    }
    Ok(found)
}

fn take(found: &mut Found, strange: &mut Vec<String>, config: &mqtt::Config, message: &Publish) {
    if found.len() >= MOST {
        return;
    }
    let mut note = |address: String| *found.entry(address).or_default() += 1;
    if let Some((kind, node, device)) = sparkplug::topic(&message.topic) {
        let metrics = sparkplug::wire::read(&message.payload).map(|it| it.metrics);
        // Births have the names.
        for metric in metrics.unwrap_or_default() {
            let name = metric
                .name
                .filter(|name| kind == sparkplug::Kind::Birth && name != "bdSeq");
            if let (Some(name), Some(value)) = (name, metric.value)
                && !name.starts_with("Node Control/")
                && !value.value(metric.datatype).is_nan()
            {
                let device = device.map(|it| format!("/{it}")).unwrap_or_default();
                note(format!("{}/{}{device}#{name}", node.group, node.edge));
            }
        }
        return;
    }
    if message.topic.starts_with("spBv1.0/") {
        return;
    }
    if payload::number(&message.payload).is_ok() {
        return note(message.topic.clone());
    }
    let before = strange.contains(&message.topic);
    match payload::document(&message.payload) {
        Ok(document) => {
            let mut any = false;
            leaves(&document, String::new(), config, &mut |pointer| {
                any = true;
                let address = match pointer {
                    "" => message.topic.clone(),
                    pointer => format!("{}#{pointer}", message.topic),
                };
                note(address);
            });
            if !any && !before {
                strange.push(message.topic.clone());
            }
        }
        Err(_) if !before => strange.push(message.topic.clone()),
        Err(_) => {}
    }
}

/// Every number of a document, by its pointer: an object that has a value at the form's pointer is one signal.
fn leaves(value: &Value, at: String, config: &mqtt::Config, tell: &mut dyn FnMut(&str)) {
    match value {
        Value::Number(_) | Value::Bool(_) => tell(&at),
        Value::Object(members) => {
            let is_signal = config.payload != Payload::Sparkplug
                && value
                    .pointer(&config.value)
                    .is_some_and(|it| !it.is_object());
            if is_signal {
                return tell(&at);
            }
            for (name, value) in members {
                let is_time = ["time", "ts", "timestamp", "t"]
                    .iter()
                    .any(|it| name.eq_ignore_ascii_case(it));
                let name = name.replace('~', "~0").replace('/', "~1");
                let below = format!("{at}/{name}");
                if below != config.time && below != config.quality && !is_time {
                    leaves(value, below, config, tell);
                }
            }
        }
        Value::Array(_) | Value::String(_) | Value::Null => {}
    }
}

/// A tag and a subsystem for an address: all of it, and the level above the last.
fn names(address: &str) -> (String, String) {
    let mut levels: Vec<&str> = address
        .split(['/', '#'])
        .filter(|it| !it.is_empty())
        .collect();
    let last = levels.pop().unwrap_or_default();
    let above = levels.last().copied().unwrap_or(last);
    let tag = address
        .trim_start_matches('/')
        .replace(['/', '#'], ".")
        .replace("..", ".");
    (tag, fitting(above).replace([':', '#', '$'], "_"))
}

/// A name that files and models can have.
fn fitting(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || ":#$.-_".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(topic: &str, payload: &'static [u8]) -> Publish {
        Publish {
            topic: topic.into(),
            payload: Bytes::from_static(payload),
            id: None,
            retained: false,
            again: false,
            subscriptions: Vec::new(),
        }
    }

    #[test]
    fn every_number_that_came_is_an_address_once() {
        let (mut found, mut strange) = (Found::new(), Vec::new());
        let config = mqtt::Config::default();
        for (topic, payload) in [
            ("plant/p1/amps", &b"1.5"[..]),
            ("plant/p1/amps", b"1.6"),
            (
                "plant/p2",
                br#"{"ts":17,"motor":{"amps":1,"on":true},"name":"x","v/a":2}"#,
            ),
            ("plant/p3", br#"{"value":3,"time":17,"quality":"good"}"#),
            ("plant/log", b"started"),
            ("plant/none", br#"{"state":"on"}"#),
        ] {
            take(&mut found, &mut strange, &config, &message(topic, payload));
        }
        let addresses: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(
            addresses,
            [
                "plant/p1/amps",
                "plant/p2#/motor/amps",
                "plant/p2#/motor/on",
                "plant/p2#/v~1a",
                "plant/p3"
            ]
        );
        assert_eq!(found["plant/p1/amps"], 2);
        assert_eq!(strange, ["plant/log", "plant/none"]);
    }

    #[test]
    fn tags_and_subsystems_are_made_of_addresses() {
        let both = |address| {
            let (tag, subsystem) = names(address);
            (tag, subsystem)
        };
        assert_eq!(both("plant/p1/amps"), ("plant.p1.amps".into(), "p1".into()));
        assert_eq!(
            both("plant/p2#/motor/amps"),
            ("plant.p2.motor.amps".into(), "motor".into())
        );
        assert_eq!(both("amps"), ("amps".into(), "amps".into()));
        assert_eq!(fitting("a b\u{e9}"), "a_b_");
    }
}
