//! What an input refused, kept where somebody can see it: lines of JSON in two files that take turns.
//!
//! Guarantees: both together never hold more than their bound, the oldest goes first; what is there after a crash is whole lines, and
//! the last second may be missing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::intake::{Raw, Refusal, Tag};
use crate::journal::{Quality, Timed};

/// One file holds so much; there are two.
const BOUND: u64 = 4 << 20;
/// So much of a payload is kept.
const PAYLOAD: usize = 1_024;
/// How often it is made durable.
const SYNC: Duration = Duration::from_secs(1);

/// The files' names, newest first.
const NAMES: [&str; 2] = ["refused.jsonl", "refused.1.jsonl"];

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// When it came.
    pub at: String,
    /// Why it was refused.
    pub why: String,
    /// Where it came from: a topic, a line, a file. Empty for a sample.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// The beginning of what it was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub payload: String,
    /// How long it was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// The sample that it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<RefusedSample>,
}

/// A sample that was refused for its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedSample {
    /// The machine; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub asset: String,
    /// The tag.
    pub tag: String,
    /// Its time, UTC nanoseconds.
    pub time: i64,
    /// Its value as it came; none where it is missing.
    pub value: Option<f64>,
    /// Whether its source calls it bad.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bad: bool,
    /// Whether its time is its server's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub server: bool,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The files of one input.
pub(super) struct Aside {
    directory: PathBuf,
    open: Mutex<Option<Open>>,
}

struct Open {
    file: File,
    length: u64,
    synced: Instant,
}

impl Aside {
    /// In this directory, which is made with the first line.
    pub fn at(directory: PathBuf) -> Self {
        Self {
            directory,
            open: Mutex::default(),
        }
    }

    /// Samples that were refused for their times.
    pub fn samples<'a>(
        &self,
        refused: impl Iterator<Item = (&'a Tag, &'a Raw, &'a str)>,
        now: DateTime<Utc>,
    ) -> io::Result<()> {
        let mut lines = Vec::new();
        for (tag, raw, why) in refused {
            let line = Refused {
                at: now.to_rfc3339_opts(SecondsFormat::Millis, true),
                why: why.to_owned(),
                from: String::new(),
                payload: String::new(),
                bytes: 0,
                sample: Some(RefusedSample {
                    asset: tag.asset.name().to_owned(),
                    tag: tag.tag.clone(),
                    time: raw.time.unwrap_or_default(),
                    value: raw.value.is_finite().then_some(raw.value),
                    bad: raw.quality == Quality::Bad,
                    server: raw.timed == Timed::Server,
                }),
            };
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        self.write(&lines)
    }

    /// What could not be read.
    pub fn payload(&self, refusal: &Refusal<'_>, now: DateTime<Utc>) -> io::Result<()> {
        let kept = &refusal.payload[..refusal.payload.len().min(PAYLOAD)];
        let line = Refused {
            at: now.to_rfc3339_opts(SecondsFormat::Millis, true),
            why: refusal.why.to_owned(),
            from: refusal.from.to_owned(),
            payload: String::from_utf8_lossy(kept).into_owned(),
            bytes: refusal.payload.len() as u64,
            sample: None,
        };
        let mut lines = serde_json::to_vec(&line)?;
        lines.push(b'\n');
        self.write(&lines)
    }

    fn write(&self, lines: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|open| open.length >= BOUND) {
            if let Some(full) = open.take() {
                full.file.sync_data()?;
            }
            std::fs::rename(self.directory.join(NAMES[0]), self.directory.join(NAMES[1]))?;
        }
        let open = match &mut *open {
            Some(open) => open,
            none => none.insert(Open::at(&self.directory)?),
        };
        open.file.write_all(lines)?;
        open.length += lines.len() as u64;
        if open.synced.elapsed() >= SYNC {
            open.file.sync_data()?;
            open.synced = Instant::now();
        }
        Ok(())
    }
}

impl Open {
    fn at(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join(NAMES[0]);
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let length = file.metadata()?.len();
        let mut file = file;
        if length > 0 {
            // What a crash left of a line ends here.
            file.write_all(b"\n")?;
        }
        Ok(Self {
            file,
            length: length + 1,
            synced: Instant::now(),
        })
    }
}

/// What was refused by the input whose directory this is, oldest first.
pub fn refused(directory: &Path) -> io::Result<Vec<Refused>> {
    let mut found = Vec::new();
    for name in NAMES.iter().rev() {
        let text = match std::fs::read(directory.join(name)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let lines = text.split(|byte| *byte == b'\n');
        found.extend(lines.filter_map(|line| serde_json::from_slice::<Refused>(line).ok()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_kept_in_order_and_within_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("refused");
        let aside = Aside::at(place.clone());
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let payload = vec![b'x'; 3_000];
        for number in 0..9_000 {
            let from = format!("topic/{number}");
            let refusal = Refusal {
                from: &from,
                why: "is no number",
                payload: &payload,
            };
            aside.payload(&refusal, now).unwrap();
        }
        let size: u64 = NAMES
            .iter()
            .map(|name| std::fs::metadata(place.join(name)).unwrap().len())
            .sum();
        assert!(size <= 2 * BOUND + 4_096, "{size}");
        let kept = refused(&place).unwrap();
        assert_eq!(kept.last().unwrap().from, "topic/8999");
        assert_eq!((kept[0].bytes, kept[0].payload.len()), (3_000, PAYLOAD));
        assert!(kept.windows(2).all(|pair| {
            let number = |one: &Refused| one.from[6..].parse::<u32>().unwrap();
            number(&pair[0]) + 1 == number(&pair[1])
        }));
        // Another process goes on after half a line.
        std::fs::write(place.join(NAMES[0]), "{\"at\":\"2026").unwrap();
        let again = Aside::at(place.clone());
        let refusal = Refusal {
            from: "later",
            why: "is no number",
            payload: b"1,2",
        };
        again.payload(&refusal, now).unwrap();
        assert_eq!(refused(&place).unwrap().last().unwrap().from, "later");
    }
}
