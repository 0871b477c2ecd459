//! How the inputs are, as one look sees them: what console, metrics and commands show of them. It judges nothing.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::site::InputSite;
use crate::input::Figures;

/// So many tags are named.
const NAMED: usize = 5;

/// What is known of an input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InputSnapshot {
    /// Its name.
    pub name: String,
    /// What kind it is of.
    pub kind: String,
    /// The assets that it brings something of; one without a name is an empty text.
    pub assets: Vec<String>,
    /// What is counted of it.
    pub figures: Figures,
    /// The tags that it brings.
    pub tags: usize,
    /// Those that never came, and how many they are.
    pub never: (usize, Vec<String>),
    /// Those that have been silent for longer than a value stands, and how many they are.
    pub silent: (usize, Vec<String>),
}

impl InputSite {
    /// How it is at `now`.
    pub fn look(&self, now: DateTime<Utc>) -> InputSnapshot {
        let intake = &self.intake;
        let mut seen = InputSnapshot {
            name: intake.name().to_owned(),
            kind: self.kind.to_owned(),
            figures: intake.figures(),
            tags: intake.tags().len(),
            ..InputSnapshot::default()
        };
        for (tag, figures) in intake.tags().iter().zip(intake.health().tags()) {
            if seen.assets.last().map(String::as_str) != Some(tag.asset.name()) {
                seen.assets.push(tag.asset.name().to_owned());
            }
            let list = match figures.arrived {
                None => &mut seen.never,
                Some(arrived) if now - arrived > self.stale => &mut seen.silent,
                Some(_) => continue,
            };
            list.0 += 1;
            if list.1.len() < NAMED {
                list.1.push(tag.tag.clone());
            }
        }
        seen.assets.dedup();
        seen
    }
}

impl InputSnapshot {
    /// In one word.
    pub fn state(&self) -> &'static str {
        match &self.figures {
            figures if figures.connected_since.is_none() => "away",
            figures if figures.refusing_since.is_some() => "refusing",
            _ if self.never.0 + self.silent.0 == self.tags => "silent",
            _ => "ok",
        }
    }

    /// Which of its tags are silent, for people; nothing where none is.
    pub fn missing(&self) -> String {
        let list = |(count, named): &(usize, Vec<String>), what: &str| {
            let more = if *count > named.len() { ", ..." } else { "" };
            (*count > 0).then(|| format!("{count} {what} ({}{more})", named.join(", ")))
        };
        let never = list(&self.never, "never came");
        let silent = list(&self.silent, "silent");
        silent
            .into_iter()
            .chain(never)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// How it is, in a line.
    pub fn line(&self, now: DateTime<Utc>) -> String {
        let figures = &self.figures;
        let mut parts = Vec::new();
        match (&figures.connected_since, &figures.error) {
            (Some(since), _) => parts.push(format!("connected for {}", ago(now, *since))),
            (None, Some(error)) => parts.push(format!("not connected: {error}")),
            (None, None) => parts.push("not connected yet".to_owned()),
        }
        match figures.last_sample {
            Some(at) => parts.push(format!("last sample {} ago", ago(now, at))),
            None => parts.push("no sample yet".to_owned()),
        }
        parts.push(format!("{} a minute", figures.per_minute));
        for (count, what) in [(figures.refused(), "refused"), (figures.late, "late")] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        if let Some(offset) = figures.offset_seconds
            && offset.abs() >= 2.0
        {
            parts.push(format!("its clock {offset:+.0} s"));
        }
        let missing = self.missing();
        if !missing.is_empty() {
            parts.push(missing);
        }
        parts.join(", ")
    }
}

fn ago(now: DateTime<Utc>, at: DateTime<Utc>) -> String {
    let passed = (now - at).max(TimeDelta::zero());
    match passed.num_seconds() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
