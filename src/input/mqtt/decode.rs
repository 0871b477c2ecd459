//! From messages to samples: which tag has which address, and what a message says of it.
//!
//! Guarantees: a message that cannot be read gives no sample and a reason; what it can be read for is taken. A message that the
//! broker kept (retained) and that has no time of its own is no sample, and one that waited in the broker's queue is none of
//! the present. It knows no connection, so that `source test` and the daemon say the same of the same messages.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::packet::Publish;
use super::payload::{self, Form, Reading};
use super::{Config, Payload, topic};
use crate::input::Raw;
use crate::input::sparkplug::{self, Kind, MetricId, NodeId, Nodes, Said, Sampled};
use crate::journal::{Quality, Timed};

/// Every message's way to its tags.
pub struct Decoding {
    payload: Payload,
    form: Form,
    /// Of each topic: tags, and where in the payload they are.
    topics: HashMap<String, Vec<(usize, String)>>,
    /// Of each metric: tags.
    metrics: HashMap<NodeId, HashMap<MetricId, Vec<usize>>>,
    nodes: Nodes,
    began: Instant,
}

/// What a message says.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Samples.
    pub raws: Vec<Raw>,
    /// What of it is none, and why.
    pub refused: Vec<String>,
    /// No tag has its address.
    pub is_strange: bool,
}

impl Decoding {
    /// Of these addresses: the tag's place, and its address. The second are addresses that cannot be used, and why.
    pub fn new<'a>(
        config: &Config,
        addresses: impl Iterator<Item = (usize, &'a str)>,
    ) -> (Self, Vec<(usize, String)>) {
        let mut decoding = Decoding {
            payload: config.payload,
            form: config.form(),
            topics: HashMap::new(),
            metrics: HashMap::new(),
            nodes: Nodes::default(),
            began: Instant::now(),
        };
        let mut faults = Vec::new();
        for (tag, address) in addresses {
            if let Some(fault) = config.address_fault(address) {
                faults.push((tag, fault));
                continue;
            }
            if config.payload == Payload::Sparkplug {
                if let Some((node, metric)) = sparkplug::address(address) {
                    let metrics = decoding.metrics.entry(node).or_default();
                    metrics.entry(metric).or_default().push(tag);
                }
                continue;
            }
            let (topic, pointer) = split(address);
            let tags = decoding.topics.entry(topic.to_owned()).or_default();
            tags.push((tag, pointer.to_owned()));
        }
        (decoding, faults)
    }

    /// The filters that its addresses need.
    pub fn filters(&self) -> Vec<String> {
        let topics = self.topics.keys().cloned();
        let nodes = self.metrics.keys().map(NodeId::filter);
        let mut filters: Vec<String> = topics.chain(nodes).collect();
        filters.sort();
        filters
    }

    /// What a message says that came at `now` (nanoseconds UTC). `waited`: it was in the broker's queue.
    pub fn take(&mut self, message: &Publish, waited: bool, now: i64) -> Decoded {
        match self.payload {
            Payload::Sparkplug => self.sparkplug(message, waited),
            Payload::Number | Payload::Json => self.plain(message, waited, now),
        }
    }

    fn plain(&self, message: &Publish, waited: bool, now: i64) -> Decoded {
        let mut decoded = Decoded::default();
        let Some(tags) = self.topics.get(&message.topic) else {
            decoded.is_strange = true;
            return decoded;
        };
        if self.payload == Payload::Number {
            match payload::number(&message.payload) {
                Ok(reading) => {
                    for (tag, _) in tags {
                        decoded.push(*tag, reading, message, waited);
                    }
                }
                Err(why) => decoded.refused.push(why),
            }
            return decoded;
        }
        let document = match payload::document(&message.payload) {
            Ok(document) => document,
            Err(why) => {
                decoded.refused.push(why);
                return decoded;
            }
        };
        for (tag, pointer) in tags {
            for reading in payload::readings(&document, pointer, &self.form, now) {
                match reading {
                    Ok(reading) => decoded.push(*tag, reading, message, waited),
                    Err(why) => decoded.refused.push(why),
                }
            }
        }
        if decoded.raws.is_empty() && decoded.refused.is_empty() {
            let at = tags.first().map_or("", |(_, pointer)| pointer);
            let value = &self.form.value;
            decoded.refused.push(format!(
                "it has no value at \"{at}\", nor at \"{at}{value}\""
            ));
        }
        decoded
    }

    fn sparkplug(&mut self, message: &Publish, waited: bool) -> Decoded {
        let mut decoded = Decoded::default();
        let Some((kind, node, device)) = sparkplug::topic(&message.topic) else {
            decoded.is_strange = true;
            return decoded;
        };
        let Some(metrics) = self.metrics.get(&node) else {
            decoded.is_strange = true;
            return decoded;
        };
        let at = self.began.elapsed();
        let (again, about) = (message.again, (kind, &node, device));
        let said = self
            .nodes
            .take(about, &message.payload, again, at, fastrand::f64());
        let said = match said {
            Ok(said) => said,
            Err(error) => {
                decoded.refused.push(error.to_string());
                return decoded;
            }
        };
        if said.unnamed > 0 {
            let what = "metrics whose alias has no name until the node says its births again";
            decoded
                .refused
                .push(format!("it has {} {what}", said.unnamed));
        }
        if said.is_of_another_life {
            let why = "the death of another birth of this node, which says nothing of this one";
            decoded.refused.push(why.into());
        }
        for sample in &said.samples {
            let Some(tags) = metrics.get(&sample.metric) else {
                continue;
            };
            match reading_of(sample) {
                Ok(reading) => {
                    for tag in tags {
                        let waited = waited || sample.is_historical;
                        decoded.push(*tag, reading, message, waited);
                        if let (true, Some(raw)) = (sample.is_historical, decoded.raws.last_mut()) {
                            raw.historical = true;
                        }
                    }
                }
                Err(why) => decoded.refused.push(why),
            }
        }
        decoded.raws.extend(dead(metrics, &said, waited || again));
        let _: Kind = kind;
        decoded
    }

    /// Whom to ask for a rebirth now: topics, and what to send there.
    pub fn rebirths(&mut self, millis: u64) -> Vec<(String, Vec<u8>)> {
        let at: Duration = self.began.elapsed();
        let due = self.nodes.to_ask(at);
        due.iter()
            .map(|node| (node.command(), sparkplug::rebirth(millis)))
            .collect()
    }

    /// The tags whose node and device live.
    pub fn alive(&self) -> Vec<usize> {
        let all = self.metrics.iter().flat_map(|(node, metrics)| {
            let alive = |metric: &&MetricId| self.nodes.is_alive(node, metric);
            metrics
                .keys()
                .filter(alive)
                .filter_map(|metric| metrics.get(metric))
        });
        all.flatten().copied().collect()
    }
}

impl Decoded {
    fn push(&mut self, tag: usize, reading: Reading, message: &Publish, waited: bool) {
        if message.retained && reading.time.is_none() {
            let why = "the broker kept it (retained), and it has no time of its own: it may be of any time";
            self.refused.push(why.into());
            return;
        }
        self.raws.push(Raw {
            tag,
            time: reading.time,
            value: reading.value,
            quality: reading.quality,
            timed: if reading.time.is_some() {
                Timed::Source
            } else {
                Timed::Arrival
            },
            historical: waited && reading.time.is_none(),
        });
    }
}

/// The topic of an address, and the pointer behind it.
pub fn split(address: &str) -> (&str, &str) {
    address.split_once('#').unwrap_or((address, ""))
}

/// Why an address is none for messages of this kind.
pub fn fault(address: &str, payload: Payload, topics: &[String]) -> Option<String> {
    if payload == Payload::Sparkplug {
        return sparkplug::address(address).is_none().then(|| {
            "is no metric of Sparkplug B: write it as GROUP/EDGE#METRIC, or GROUP/EDGE/DEVICE#METRIC"
                .to_owned()
        });
    }
    let (topic, pointer) = split(address);
    if topic::is_wild(topic) || address.ends_with('#') {
        return Some(
            "stands for many topics, and a tag has one: wildcards belong into topics".into(),
        );
    }
    if let Some(fault) = topic::fault(topic) {
        return Some(format!("is no topic: {fault}"));
    }
    match (pointer, payload) {
        ("", _) => {}
        (_, Payload::Number) => {
            return Some(
                "has a pointer behind #, and payload is \"number\": set it to \"json\"".into(),
            );
        }
        (pointer, _) if !pointer.starts_with('/') => {
            return Some(
                "has a pointer that does not begin with /, such as plant/pump#/values/amps".into(),
            );
        }
        _ => {}
    }
    let is_taken = topics.is_empty() || topics.iter().any(|filter| topic::takes(filter, topic));
    (!is_taken).then(|| "is taken by none of the filters in topics".to_owned())
}

fn reading_of(sample: &Sampled) -> Result<Reading, String> {
    let time = sample.millis.map(|millis| {
        let nanos = i64::try_from(millis)
            .ok()
            .and_then(|millis| millis.checked_mul(1_000_000));
        nanos.ok_or_else(|| format!("{millis} is no time in milliseconds since 1970"))
    });
    Ok(Reading {
        value: sample.value,
        time: time.transpose()?,
        quality: match sample.quality {
            None | Some(192..=255) => Quality::Good,
            Some(64..=191) => Quality::Uncertain,
            Some(_) => Quality::Bad,
        },
    })
}

/// What a death says of its tags: from now on nothing is known. One that waited in a queue is dated after the last word, so that
/// it does not hide what came after it.
fn dead<'a>(
    metrics: &'a HashMap<MetricId, Vec<usize>>,
    said: &Said,
    waited: bool,
) -> impl Iterator<Item = Raw> + use<'a> {
    let after = said.last_word.and_then(|millis| {
        let nanos = i64::try_from(millis).ok()?.checked_mul(1_000_000)?;
        nanos.checked_add(1_000_000)
    });
    let time = after.filter(|_| waited);
    let died = said.died.clone();
    let is_dead = move |metric: &MetricId| match &died {
        None => false,
        Some(None) => true,
        Some(device) => metric.device == *device,
    };
    metrics
        .iter()
        .filter(move |(metric, _)| is_dead(metric))
        .flat_map(|(_, tags)| tags)
        .map(move |tag| Raw {
            tag: *tag,
            time,
            value: f64::NAN,
            quality: Quality::Bad,
            timed: if time.is_some() {
                Timed::Server
            } else {
                Timed::Arrival
            },
            historical: waited,
        })
}
