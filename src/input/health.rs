//! How an input is: since when it is connected, what it brought, what was refused, and how far its source's clock is off.
//!
//! Guarantees: what is counted only grows; it takes every time as an argument, and its size is that of the list of tags.

use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::journal::{Quality, Timed};

/// Shared between an input and who looks at it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct InputHealth(Arc<Mutex<State>>);

/// What is known of an input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Since when it is connected; `None` while it is not.
    pub connected_since: Option<DateTime<Utc>>,
    /// When it was connected for the first time.
    pub first_connected: Option<DateTime<Utc>>,
    /// Since when it is not connected, from its start or its last connection on.
    pub parted_at: Option<DateTime<Utc>>,
    /// Why it is not connected.
    pub error: Option<String>,
    /// How often its connection was lost.
    pub losses: u64,
    /// When its last sample came.
    pub last_sample: Option<DateTime<Utc>>,
    /// Samples in the last whole minute.
    pub per_minute: u64,
    /// Samples that are in the journal.
    pub taken: u64,
    /// Of those, the ones without a value.
    pub missing: u64,
    /// Values whose quality was bad, and that count as missing.
    pub bad: u64,
    /// Values whose quality was uncertain.
    pub uncertain: u64,
    /// Values that were infinite, and count as missing.
    pub infinite: u64,
    /// Samples without a time of their own, timed when they came.
    pub by_arrival: u64,
    /// Samples that came with their server's time.
    pub by_server: u64,
    /// Samples of a time gone by, as their source says.
    pub historical: u64,
    /// Samples that were there already.
    pub collapsed: u64,
    /// Samples that fell onto another with another value.
    pub differing: u64,
    /// Samples of windows that were cut already.
    pub late: u64,
    /// Samples refused because their time is to come.
    pub future: u64,
    /// Samples refused because their time is before the year 2000.
    pub ancient: u64,
    /// What could not be read, or has no tag.
    pub unreadable: u64,
    /// How far the source's clock is ahead of ours, in seconds, as the quickest sample of the last minutes says; what it has waited on
    /// its way makes it seem behind.
    pub offset_seconds: Option<f64>,
    /// What is wrong though it is connected, for people.
    #[serde(default)]
    pub remarks: Vec<Remark>,
    /// Since when all that comes is refused for its time.
    pub refusing_since: Option<DateTime<Utc>>,
    /// Since when the journal takes nothing, and why.
    pub blocked: Option<(DateTime<Utc>, String)>,
}

impl Figures {
    /// All that was refused.
    pub fn refused(&self) -> u64 {
        self.future + self.ancient + self.unreadable
    }
}

/// Something that is wrong with an input though it is connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remark {
    /// What it is about.
    pub about: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// What is wrong.
    pub text: String,
}

/// What is known of one tag of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TagFigures {
    /// Samples.
    pub samples: u64,
    /// When the last one came.
    pub arrived: Option<DateTime<Utc>>,
    /// The time that it says, UTC nanoseconds.
    pub time: i64,
    /// Its value; NaN where it is missing.
    pub value: f64,
}

#[derive(Debug, Default)]
struct State {
    figures: Figures,
    tags: Vec<TagFigures>,
    /// The minute that is being counted, and its samples.
    minute: (i64, u64),
    /// The greatest offset of the minute that is being counted, and of the one before.
    offsets: [Option<f64>; 2],
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub future: u64,
    pub ancient: u64,
    pub bad: u64,
    pub uncertain: u64,
    pub infinite: u64,
    pub collapsed: u64,
    pub differing: u64,
    /// How far the furthest refused sample is ahead, in seconds.
    pub ahead: Option<f64>,
}

/// A sample as it was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub tag: usize,
    pub time: i64,
    pub value: f64,
    pub quality: Quality,
    pub timed: Timed,
    pub historical: bool,
}

impl InputHealth {
    /// Of an input with so many tags, which begins at `now`.
    pub fn new(tags: usize, now: DateTime<Utc>) -> Self {
        let state = State {
            tags: vec![TagFigures::default(); tags],
            figures: Figures {
                parted_at: Some(now),
                ..Figures::default()
            },
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// What is known of it at `now`.
    pub fn figures(&self, now: DateTime<Utc>) -> Figures {
        let mut state = self.lock();
        state.turn(now);
        let mut figures = state.figures.clone();
        let offsets = state.offsets.iter().flatten().copied();
        figures.offset_seconds = offsets.reduce(f64::max);
        figures
    }

    /// What is known of its tags, in the order of [`super::Intake::tags`].
    pub fn tags(&self) -> Vec<TagFigures> {
        self.lock().tags.clone()
    }

    /// It is connected.
    pub(super) fn connected(&self, now: DateTime<Utc>) {
        let figures = &mut self.lock().figures;
        figures.connected_since.get_or_insert(now);
        figures.first_connected.get_or_insert(now);
        (figures.parted_at, figures.error) = (None, None);
    }

    /// It is not connected, or not any more.
    pub(super) fn parted(&self, why: &str, now: DateTime<Utc>) {
        let figures = &mut self.lock().figures;
        if figures.connected_since.take().is_some() {
            figures.losses += 1;
        }
        figures.parted_at.get_or_insert(now);
        figures.error = Some(why.to_owned());
    }

    /// Something is wrong with it though it is connected, or is not any more.
    pub(super) fn remark(&self, about: &str, text: Option<String>, now: DateTime<Utc>) {
        let remarks = &mut self.lock().figures.remarks;
        let known = remarks.iter().position(|remark| remark.about == about);
        match (text, known) {
            (Some(text), Some(at)) => remarks[at].text = text,
            (Some(text), None) => remarks.push(Remark {
                about: about.to_owned(),
                since: now,
                text,
            }),
            (None, Some(at)) => drop(remarks.remove(at)),
            (None, None) => {}
        }
    }

    /// Something could not be read, or has no tag.
    pub(super) fn unreadable(&self, count: u64) {
        self.lock().figures.unreadable += count;
    }

    /// The journal took something, or did not.
    pub(super) fn journal(&self, failed: Option<String>, now: DateTime<Utc>) {
        let blocked = &mut self.lock().figures.blocked;
        *blocked = failed.map(|why| {
            let since = blocked.as_ref().map_or(now, |(since, _)| *since);
            (since, why)
        });
    }

    /// A batch was judged and what was good of it is durable.
    pub(super) fn took(&self, seen: &[Seen], counts: &Counts, now: DateTime<Utc>) {
        let mut state = self.lock();
        state.turn(now);
        state.minute.1 += seen.len() as u64;
        for sample in seen {
            state.saw(sample, now);
        }
        let figures = &mut state.figures;
        figures.taken += seen.len() as u64;
        figures.future += counts.future;
        figures.ancient += counts.ancient;
        figures.bad += counts.bad;
        figures.uncertain += counts.uncertain;
        figures.infinite += counts.infinite;
        figures.collapsed += counts.collapsed;
        figures.differing += counts.differing;
        if !seen.is_empty() {
            figures.last_sample = Some(now);
            figures.refusing_since = None;
        } else if counts.future + counts.ancient > 0 {
            figures.refusing_since.get_or_insert(now);
        }
        if let Some(ahead) = counts.ahead {
            state.offset(ahead);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// Ends the minutes that are over.
    fn turn(&mut self, now: DateTime<Utc>) {
        let minute = now.timestamp().div_euclid(60);
        if minute == self.minute.0 {
            return;
        }
        let follows = minute == self.minute.0 + 1;
        self.figures.per_minute = if follows { self.minute.1 } else { 0 };
        self.offsets = [None, self.offsets[0].filter(|_| follows)];
        self.minute = (minute, 0);
    }

    fn saw(&mut self, sample: &Seen, now: DateTime<Utc>) {
        let figures = &mut self.figures;
        figures.missing += u64::from(sample.value.is_nan());
        figures.historical += u64::from(sample.historical);
        match sample.timed {
            Timed::Source => {}
            Timed::Server => figures.by_server += 1,
            Timed::Arrival => figures.by_arrival += 1,
        }
        if sample.timed != Timed::Arrival && !sample.historical {
            let ahead = TimeDelta::nanoseconds(sample.time.saturating_sub(nanos(now)));
            self.offset(ahead.num_milliseconds() as f64 / 1_000.0);
        }
        if let Some(tag) = self.tags.get_mut(sample.tag) {
            tag.samples += 1;
            tag.arrived = Some(now);
            (tag.time, tag.value) = (sample.time, sample.value);
        }
    }

    fn offset(&mut self, ahead: f64) {
        let known = self.offsets[0].get_or_insert(ahead);
        *known = known.max(ahead);
    }
}

/// UTC nanoseconds; the ends of what they can hold beyond.
pub(super) fn nanos(time: DateTime<Utc>) -> i64 {
    let beyond = if time.timestamp() < 0 {
        i64::MIN
    } else {
        i64::MAX
    };
    time.timestamp_nanos_opt().unwrap_or(beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn seen(seconds: i64) -> Seen {
        Seen {
            tag: 0,
            time: nanos(at(seconds)),
            value: 1.0,
            quality: Quality::Good,
            timed: Timed::Source,
            historical: false,
        }
    }

    #[test]
    fn samples_of_a_minute_are_counted_and_a_silent_one_has_none() {
        let health = InputHealth::new(1, at(0));
        for second in 0..60 {
            health.took(&[seen(second)], &Counts::default(), at(second));
        }
        assert_eq!(health.figures(at(59)).per_minute, 0);
        assert_eq!(health.figures(at(61)).per_minute, 60);
        assert_eq!(health.figures(at(125)).per_minute, 0);
        assert_eq!(health.figures(at(125)).taken, 60);
        assert_eq!(health.tags()[0].arrived, Some(at(59)));
    }

    #[test]
    fn the_quickest_sample_says_how_far_the_sources_clock_is_off() {
        let health = InputHealth::new(1, at(0));
        health.took(&[seen(-40), seen(-3)], &Counts::default(), at(1));
        assert_eq!(health.figures(at(1)).offset_seconds, Some(-4.0));
        let ahead = Counts {
            future: 1,
            ahead: Some(3_600.0),
            ..Counts::default()
        };
        health.took(&[], &ahead, at(2));
        let figures = health.figures(at(2));
        assert_eq!(figures.offset_seconds, Some(3_600.0));
        assert_eq!(figures.refusing_since, Some(at(2)));
        health.took(&[seen(3)], &Counts::default(), at(3));
        assert_eq!(health.figures(at(3)).refusing_since, None);
        assert_eq!(health.figures(at(300)).offset_seconds, None);
    }

    #[test]
    fn a_connection_that_was_never_made_is_none_that_was_lost() {
        let health = InputHealth::new(0, at(0));
        health.parted("refused", at(1));
        assert_eq!(health.figures(at(1)).losses, 0);
        assert_eq!(health.figures(at(1)).parted_at, Some(at(0)));
        health.connected(at(2));
        assert_eq!(health.figures(at(2)).error, None);
        health.parted("reset by peer", at(5));
        let figures = health.figures(at(5));
        assert_eq!((figures.losses, figures.parted_at), (1, Some(at(5))));
    }
}
