//! From recorded rows to messages: which signal is said where, and what goes wrong with it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

use super::{Faults, Form};
use crate::input::mqtt::decode::split;
use crate::signal::{Frame, TagList, Window};

/// A sample that is said.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    /// When it is said, UTC microseconds.
    pub at: i64,
    /// Its own time.
    pub time: i64,
    /// Where: a topic, and a pointer behind #.
    pub address: std::sync::Arc<str>,
    pub value: f64,
    pub is_bad: bool,
}

/// The signals of an asset, in the order of its frames.
pub(super) struct Signals {
    addresses: Vec<Vec<std::sync::Arc<str>>>,
    /// The value recorded last of each, for those who are said regularly.
    last: Vec<Vec<Option<f64>>>,
}

impl Signals {
    pub fn of(tags: &TagList) -> Self {
        let addresses: Vec<Vec<std::sync::Arc<str>>> = tags
            .components
            .iter()
            .map(|component| {
                let tags = component.tags.iter().enumerate();
                tags.map(|(at, tag)| match component.places.get(at) {
                    Some(place) if !place.address.is_empty() => place.address.as_str().into(),
                    _ => topic_of(component.asset.name(), &component.name, tag).into(),
                })
                .collect()
            })
            .collect();
        let none = |of: &Vec<_>| vec![None; of.len()];
        Signals {
            last: addresses.iter().map(none).collect(),
            addresses,
        }
    }

    /// What is said in a window: its rows, or each signal at each multiple of `every`.
    pub fn said(
        &mut self,
        frames: &[Frame],
        window: &Window,
        every: Option<Duration>,
    ) -> Vec<Said> {
        let mut said = Vec::new();
        for (at, frame) in frames.iter().enumerate() {
            for (column, signal) in frame.columns.iter().enumerate() {
                let Some(address) = self.addresses.get(at).and_then(|it| it.get(column)) else {
                    continue;
                };
                let rows = frame.times.iter().enumerate();
                let rows = rows.filter(|(row, _)| !signal.values.is_absent(*row));
                let rows = rows.map(|(row, time)| (*time, signal.values.get(row)));
                let mut push = |time: i64, value: f64| {
                    said.push(Said {
                        at: time,
                        time,
                        address: address.clone(),
                        value,
                        is_bad: false,
                    });
                };
                match every {
                    None => rows.for_each(|(time, value)| push(time, value)),
                    Some(every) => {
                        let last = &mut self.last[at][column];
                        regularly(rows, window, every, last, push);
                    }
                }
            }
        }
        said
    }
}

fn regularly(
    rows: impl Iterator<Item = (i64, f64)>,
    window: &Window,
    every: Duration,
    last: &mut Option<f64>,
    mut push: impl FnMut(i64, f64),
) {
    let step = i64::try_from(every.as_micros())
        .unwrap_or(i64::MAX)
        .max(1000);
    let mut rows = rows.peekable();
    let (start, end) = (
        window.start().timestamp_micros(),
        window.end().timestamp_micros(),
    );
    let mut time = start + (-start).rem_euclid(step);
    while time < end {
        while let Some((_, value)) = rows.next_if(|(recorded, _)| *recorded <= time) {
            *last = Some(value);
        }
        if let Some(value) = *last {
            push(time, value);
        }
        time += step;
    }
    if let Some((_, value)) = rows.last() {
        *last = Some(value);
    }
}

/// The topic of a tag whose list has none: as `lookoutd sample --addresses` writes it.
pub(in crate::cli) fn topic_of(asset: &str, component: &str, tag: &str) -> String {
    let level = |text: &str| text.replace(['/', '+', '#', '\0'], "-");
    let asset = if asset.is_empty() {
        String::new()
    } else {
        format!("{}/", level(asset))
    };
    format!("plant/{asset}{}/{}", level(component), level(tag))
}

/// What goes wrong, by chance that a seed fixes.
pub(super) struct Spoil {
    faults: Faults,
    chance: fastrand::Rng,
    gaps: u64,
    duplicates: u64,
    bad: u64,
}

impl Spoil {
    pub fn new(faults: &Faults) -> Self {
        Spoil {
            faults: faults.clone(),
            chance: fastrand::Rng::with_seed(faults.seed),
            gaps: 0,
            duplicates: 0,
            bad: 0,
        }
    }

    pub fn counts(&self) -> (u64, u64, u64) {
        (self.gaps, self.duplicates, self.bad)
    }

    pub fn spoil(&mut self, mut said: Said) -> impl Iterator<Item = Said> + use<> {
        let mut is_one_of = |share: f64| share > 0.0 && self.chance.f64() < share;
        let is_gap = is_one_of(self.faults.gaps);
        let is_double = is_one_of(self.faults.duplicates);
        said.is_bad = is_one_of(self.faults.bad);
        if let Some(clock) = self.faults.clock {
            said.time += clock.num_microseconds().unwrap_or_default();
        }
        if let Some(jitter) = self.faults.jitter {
            let late = jitter.mul_f64(self.chance.f64());
            said.at += i64::try_from(late.as_micros()).unwrap_or_default();
        }
        let mut found = Vec::new();
        if is_gap {
            self.gaps += 1;
        } else {
            self.bad += u64::from(said.is_bad);
            self.duplicates += u64::from(is_double);
            found.extend(is_double.then(|| said.clone()));
            found.push(said);
        }
        found.into_iter()
    }
}

/// The messages of samples that are said at once: those of one topic and one time are one document.
pub(super) fn documents(said: &[Said], form: Form) -> Vec<(String, Vec<u8>)> {
    let mut messages = Vec::with_capacity(said.len());
    // Of each topic, time and quality: the documents that are open.
    let mut open: BTreeMap<(&str, i64), Vec<usize>> = BTreeMap::new();
    let mut documents: Vec<(&str, i64, Map<String, Value>)> = Vec::new();
    for one in said {
        let (topic, pointer) = split(&one.address);
        if form == Form::Number {
            let text = if one.value.is_nan() {
                "nan".to_owned()
            } else {
                one.value.to_string()
            };
            messages.push((topic.to_owned(), text.into_bytes()));
            continue;
        }
        let quality = if one.is_bad { "bad" } else { "good" };
        let leaf = json!({ "value": number(one.value), "quality": quality });
        let known = open.entry((topic, one.time)).or_default();
        let fits = known.iter().copied().find(|at| {
            let (_, _, document) = &documents[*at];
            !pointer.is_empty() && find(document, pointer).is_none()
        });
        let at = fits.unwrap_or_else(|| {
            documents.push((topic, one.time, Map::new()));
            known.push(documents.len() - 1);
            documents.len() - 1
        });
        put(&mut documents[at].2, pointer, leaf);
    }
    for (topic, time, mut document) in documents {
        let time = DateTime::from_timestamp_micros(time).unwrap_or_default();
        let time = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        document.insert("time".to_owned(), time.into());
        messages.push((
            topic.to_owned(),
            Value::Object(document).to_string().into_bytes(),
        ));
    }
    messages
}

fn number(value: f64) -> Value {
    // Recorded integers are said as such.
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return Value::from(value as i64);
    }
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn names(pointer: &str) -> impl Iterator<Item = String> {
    let names = pointer.split('/').skip(1);
    names.map(|name| name.replace("~1", "/").replace("~0", "~"))
}

fn find<'a>(document: &'a Map<String, Value>, pointer: &str) -> Option<&'a Value> {
    let mut names = names(pointer);
    let first = document.get(&names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

/// Puts a leaf where its pointer leads; without one it is the document itself.
fn put(document: &mut Map<String, Value>, pointer: &str, leaf: Value) {
    let mut names: Vec<String> = names(pointer).collect();
    let Some(last) = names.pop() else {
        if let Value::Object(leaf) = leaf {
            document.extend(leaf);
        }
        return;
    };
    let mut at = document;
    for name in names {
        let next = at.entry(name).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(next) = next else {
            return;
        };
        at = next;
    }
    at.insert(last, leaf);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(address: &str, time: i64, value: f64) -> Said {
        Said {
            at: time,
            time,
            address: address.into(),
            value,
            is_bad: false,
        }
    }

    #[test]
    fn signals_of_one_topic_and_time_are_one_document() {
        let all = [
            said("p/a#/amps", 1_000_000, 1.5),
            said("p/a#/volts", 1_000_000, 230.0),
            said("p/a#/amps", 2_000_000, f64::NAN),
            said("p/b", 1_000_000, 3.0),
            said("p/b", 1_000_000, 3.0),
        ];
        let found = documents(&all, Form::Json);
        let text = |at: usize| String::from_utf8(found[at].1.clone()).unwrap();
        assert_eq!(found.len(), 4);
        assert_eq!(
            text(0),
            r#"{"amps":{"value":1.5,"quality":"good"},"volts":{"value":230,"quality":"good"},"time":"1970-01-01T00:00:01Z"}"#
        );
        assert!(text(1).contains(r#""value":null"#));
        assert_eq!(text(2), text(3));
        let numbers = documents(&all, Form::Number);
        assert_eq!(numbers[0], ("p/a".to_owned(), b"1.5".to_vec()));
    }

    #[test]
    fn what_goes_wrong_is_counted_and_the_same_by_the_same_seed() {
        let faults = Faults {
            jitter: Some(Duration::from_secs(10)),
            gaps: 0.1,
            duplicates: 0.2,
            bad: 0.3,
            clock: Some(chrono::TimeDelta::hours(-1)),
            seed: 7,
        };
        let run = || {
            let mut spoil = Spoil::new(&faults);
            let all = (0..1000).map(|n| said("p", n * 1_000_000, 1.0));
            let found: Vec<Said> = all.flat_map(|it| spoil.spoil(it)).collect();
            (found, spoil.counts())
        };
        let (found, (gaps, duplicates, bad)) = run();
        assert_eq!(run().0, found);
        assert_eq!(found.len() as u64, 1000 - gaps + duplicates);
        assert!((60..140).contains(&gaps) && (130..230).contains(&duplicates) && bad > 200);
        assert!(found.iter().all(|it| it.at >= it.time + 3_600_000_000));
    }

    #[test]
    fn topics_are_made_of_what_the_list_has() {
        assert_eq!(topic_of("", "pump", "A/B"), "plant/pump/A-B");
        assert_eq!(topic_of("p1", "pump", "A"), "plant/p1/pump/A");
    }
}
