//! What is not in a segment yet, in memory: every version of every sample, in the order in which segments have it.
//!
//! Guarantees: bounded by whoever fills it; a version that was put in can be taken out again, as long as it was not made durable.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Kind, Quality, Sample, Signal, Timed};

/// What a version of a sample is found by: its signal, its time, and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub signal: u32,
    pub time: i64,
    pub kind: u8,
    pub position: u64,
}

/// What a version says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    /// NaN where it is missing.
    pub value: f64,
    /// Quality, whose time it is, whether it is from a buffer.
    pub marks: u8,
}

/// A version of a sample.
pub(super) type Entry = (Key, Said);

const HISTORICAL: u8 = 1 << 4;

impl Key {
    pub fn of(sample: &Sample, position: u64) -> Self {
        Self {
            signal: sample.signal.0,
            time: sample.time,
            kind: match sample.kind {
                Kind::Value => 0,
                Kind::Alive => 1,
            },
            position,
        }
    }

    /// Whether both are versions of one sample.
    pub fn is_version_of(&self, other: &Key) -> bool {
        (self.signal, self.time, self.kind) == (other.signal, other.time, other.kind)
    }
}

impl Said {
    pub fn of(sample: &Sample) -> Self {
        let quality = match sample.quality {
            Quality::Good => 0,
            Quality::Uncertain => 1,
            Quality::Bad => 2,
        };
        let timed = match sample.timed {
            Timed::Source => 0,
            Timed::Server => 1,
            Timed::Arrival => 2,
        };
        let has_value = sample.quality != Quality::Bad && sample.kind == Kind::Value;
        let value = match sample.value {
            value if has_value && !value.is_nan() => value,
            _ => f64::NAN,
        };
        let historical = if sample.historical { HISTORICAL } else { 0 };
        Self {
            value,
            marks: quality | timed << 2 | historical,
        }
    }

    /// Whether another version of the same sample says anything new.
    pub fn says_the_same(&self, other: &Said) -> bool {
        let quality = |said: &Said| said.marks & 0b11;
        let same = self.value == other.value || (self.value.is_nan() && other.value.is_nan());
        same && quality(self) == quality(other)
    }

    pub fn sample(&self, key: &Key) -> Sample {
        Sample {
            signal: Signal(key.signal),
            time: key.time,
            value: self.value,
            quality: match self.marks & 0b11 {
                0 => Quality::Good,
                1 => Quality::Uncertain,
                _ => Quality::Bad,
            },
            timed: match self.marks >> 2 & 0b11 {
                0 => Timed::Source,
                1 => Timed::Server,
                _ => Timed::Arrival,
            },
            historical: self.marks & HISTORICAL != 0,
            kind: match key.kind {
                0 => Kind::Value,
                _ => Kind::Alive,
            },
        }
    }
}

/// Versions by signal, time and position.
#[derive(Default)]
pub(super) struct Table {
    entries: BTreeMap<Key, Said>,
}

impl Table {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn insert(&mut self, key: Key, said: Said) {
        self.entries.insert(key, said);
    }

    pub fn remove(&mut self, key: &Key) {
        self.entries.remove(key);
    }

    /// The last version of a sample.
    pub fn last(&self, key: &Key) -> Option<Said> {
        let most = Key {
            position: u64::MAX,
            ..*key
        };
        let (found, said) = self.entries.range(..=most).next_back()?;
        found.is_version_of(key).then_some(*said)
    }

    /// All versions, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.entries.iter().map(|(key, said)| (*key, *said))
    }

    /// The versions of a signal's samples from `from` until before `to`.
    pub fn of(&self, signal: u32, from: i64, to: i64) -> impl Iterator<Item = Entry> {
        let key = |time| Key {
            signal,
            time,
            kind: 0,
            position: 0,
        };
        let range = match from < to {
            true => (Bound::Included(key(from)), Bound::Excluded(key(to))),
            false => (Bound::Included(key(from)), Bound::Excluded(key(from))),
        };
        self.entries.range(range).map(|(key, said)| (*key, *said))
    }
}

impl FromIterator<Entry> for Table {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        Self {
            entries: entries.into_iter().collect(),
        }
    }
}
