//! How far the samples of one asset have come, which decides when its windows close.
//!
//! An input has passed a time when one of its tags has, and no other is still expected to: a tag that comes every ten seconds is waited
//! for, one that has missed three of its turns is silent and is not, one that comes less often than once a minute is not either. So
//! neither a device whose clock is fast nor one that is off decides for the others.
//! Guarantees: what it knows is bounded by the list of tags; it takes every time as an argument.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::signal::{Cadence, RowRule};

/// One second, in the unit of all times here: UTC nanoseconds.
pub const SECOND: i64 = 1_000_000_000;
/// A tag that comes less often is not waited for.
const SELDOM: i64 = 60 * SECOND;
/// So many turns missed are silence.
const TURNS: i64 = 3;
/// What a turn may be late in any case.
const SLACK: i64 = 2 * SECOND;
/// So many windows and components are remembered until they are counted.
const LATE: usize = 50_000;

/// How far one asset's samples have come. Cheap to clone; shared by its inputs and its source.
#[derive(Clone, Debug)]
pub struct Marks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The names of its inputs, and what of each was late.
    inputs: Vec<(String, AtomicU64)>,
    cadence: Cadence,
    rows: RowRule,
    state: Mutex<State>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    tags: Vec<Tag>,
    /// When each input was connected for the first time.
    connected: Vec<Option<i64>>,
    /// The earliest end that is waited for.
    waiting: Option<i64>,
    /// The end of the newest window that was cut.
    cut: i64,
    late: BTreeMap<(i64, u32), Vec<Arrivals>>,
}

/// A tag of the asset.
#[derive(Clone, Debug)]
pub struct Marked {
    /// Which of the inputs brings it.
    pub input: usize,
    /// Which of the components it is in.
    pub component: u32,
    /// Its name, for people.
    pub tag: String,
}

#[derive(Debug)]
struct Tag {
    is: Marked,
    /// The newest live sample: its time, and when it came.
    newest: Option<(i64, i64)>,
    /// How long it is between its samples; `None` before there are two.
    gap: Option<i64>,
}

/// A sample that is in the journal.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// Which of the tags.
    pub tag: usize,
    /// Its time.
    pub time: i64,
    /// It says something of the present.
    pub live: bool,
    /// It is a value, and not only a sign of life.
    pub is_value: bool,
}

/// Samples that may have come late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Arrivals {
    input: usize,
    position: u64,
    samples: u64,
}

/// Samples that came for a window after others of a later one were cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// Start of the window, seconds since 1970.
    pub start: i64,
    /// Which of the components.
    pub component: u32,
    /// Where they are in the journal.
    pub position: u64,
    /// How many they are.
    pub samples: u64,
}

/// Whether an end was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passed {
    /// By every input.
    Yes,
    /// Not yet; it may be at that time at the earliest, or when more has come.
    Until(i64, Waits),
}

/// What is waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Inputs none of whose tags has passed.
    pub inputs: Vec<String>,
    /// Tags that are expected, of the others; not more than a few.
    pub tags: Vec<String>,
}

impl Waits {
    /// For people.
    pub fn text(&self) -> String {
        let inputs = self.inputs.iter().map(|name| format!("input {name}"));
        let tags = self.tags.iter().map(|name| format!("tag {name}"));
        inputs.chain(tags).collect::<Vec<_>>().join(", ")
    }
}

/// So many tags are named.
const NAMED: usize = 5;

impl Marks {
    /// Of an asset with these inputs and tags, whose windows are of this kind.
    pub fn new(inputs: Vec<String>, tags: Vec<Marked>, cadence: Cadence, rows: RowRule) -> Self {
        let tags = tags.into_iter().map(|is| Tag {
            is,
            newest: None,
            gap: None,
        });
        let state = State {
            tags: tags.collect(),
            connected: vec![None; inputs.len()],
            waiting: None,
            cut: i64::MIN,
            late: BTreeMap::new(),
        };
        Self(Arc::new(Inner {
            inputs: inputs
                .into_iter()
                .map(|name| (name, AtomicU64::new(0)))
                .collect(),
            cadence,
            rows,
            state: Mutex::new(state),
            changed: Arc::default(),
        }))
    }

    /// The names of its tags, as they were given.
    pub fn tags(&self) -> Vec<String> {
        self.lock()
            .tags
            .iter()
            .map(|tag| tag.is.tag.clone())
            .collect()
    }

    /// Where that of an input is, by its name.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.0.inputs.iter().position(|(known, _)| known == name)
    }

    /// What is notified when a window may have closed that was waited for.
    pub fn changed(&self) -> Arc<Notify> {
        self.0.changed.clone()
    }

    /// Whether both are of one asset.
    pub fn is(&self, other: &Marks) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// These samples are in the journal since `now`, all before `position`.
    pub fn took(&self, samples: &[Arrived], position: u64, now: i64) {
        let mut state = self.lock();
        for sample in samples {
            state.took(sample, now);
            if sample.is_value && sample.time <= state.cut {
                let start = self.start_of(sample.time);
                state.may_be_late(sample.tag, start, position);
            }
        }
        let waiting = state.waiting;
        if let Some(end) = waiting
            && state.passed(end, now, &self.0.inputs) == Passed::Yes
        {
            state.waiting = None;
            drop(state);
            self.0.changed.notify_one();
        }
    }

    /// An input is connected.
    pub fn connected(&self, input: usize, now: i64) {
        if let Some(first) = self.lock().connected.get_mut(input) {
            first.get_or_insert(now);
        }
    }

    /// Since when every input has been connected once; `None` where one has not.
    pub fn all_connected(&self) -> Option<i64> {
        let state = self.lock();
        let all = state
            .connected
            .iter()
            .copied()
            .collect::<Option<Vec<_>>>()?;
        all.into_iter().max()
    }

    /// Whether every input has passed `end`, as it is at `now`. Where not, [`Marks::changed`] tells when it may be.
    pub fn passed(&self, end: i64, now: i64) -> Passed {
        let mut state = self.lock();
        let passed = state.passed(end, now, &self.0.inputs);
        if passed != Passed::Yes {
            let earliest = state.waiting.map_or(end, |known| known.min(end));
            state.waiting = Some(earliest);
        }
        passed
    }

    /// What has passed by its end, for those who look: the newest live time of an input's tags.
    pub fn newest(&self, input: usize) -> Option<i64> {
        let state = self.lock();
        let of_input = state.tags.iter().filter(|tag| tag.is.input == input);
        of_input.filter_map(|tag| Some(tag.newest?.0)).max()
    }

    /// A window was cut that ends at `end`: what comes for it from now on is late.
    pub fn cut(&self, end: i64) {
        let mut state = self.lock();
        state.cut = state.cut.max(end);
        state.waiting = None;
    }

    /// Hands on what may be late; `is_late` says whether it is, and counts it.
    pub fn late(&self, is_late: &mut dyn FnMut(&Late) -> bool) {
        let late = std::mem::take(&mut self.lock().late);
        for ((start, component), arrivals) in late {
            for one in arrivals {
                let late = Late {
                    start,
                    component,
                    position: one.position,
                    samples: one.samples,
                };
                if is_late(&late)
                    && let Some((_, counted)) = self.0.inputs.get(one.input)
                {
                    counted.fetch_add(one.samples, Ordering::Relaxed);
                }
            }
        }
    }

    /// How many samples of an input were late.
    pub fn late_of(&self, input: &str) -> u64 {
        let counted = self.0.inputs.iter().find(|(name, _)| name == input);
        counted.map_or(0, |(_, counted)| counted.load(Ordering::Relaxed))
    }

    /// The start of the window of a sample, seconds since 1970.
    fn start_of(&self, time: i64) -> i64 {
        let micros = time.div_euclid(1_000);
        let within = match self.0.rows {
            // The last instant is a window's own.
            RowRule::Service => micros.saturating_sub(1),
            RowRule::Notebook => micros,
        };
        let seconds = within.div_euclid(1_000_000);
        seconds - seconds.rem_euclid(self.0.cadence.seconds())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0
            .state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn took(&mut self, sample: &Arrived, now: i64) {
        let Some(tag) = self.tags.get_mut(sample.tag) else {
            return;
        };
        if !sample.live {
            return;
        }
        match tag.newest {
            None => tag.newest = Some((sample.time, now)),
            Some((newest, _)) if sample.time > newest => {
                let gap = sample.time - newest;
                // A longer one holds for some turns.
                tag.gap = Some(gap.max(tag.gap.unwrap_or(0) / 8 * 7));
                tag.newest = Some((sample.time, now));
            }
            Some((newest, _)) => tag.newest = Some((newest, now)),
        }
    }

    fn may_be_late(&mut self, tag: usize, start: i64, position: u64) {
        let Some(tag) = self.tags.get(tag) else {
            return;
        };
        let key = (start, tag.is.component);
        if self.late.len() >= LATE && !self.late.contains_key(&key) {
            return;
        }
        let input = tag.is.input;
        let arrivals = self.late.entry(key).or_default();
        match arrivals.last_mut() {
            Some(last) if last.input == input && last.position == position => last.samples += 1,
            _ => arrivals.push(Arrivals {
                input,
                position,
                samples: 1,
            }),
        }
        // Those that came first may belong to what was cut later: they are counted apart as long as that is cheap.
        if arrivals.len() > 64 {
            let first = arrivals.remove(0);
            arrivals[0].samples += first.samples;
        }
    }

    fn passed(&self, end: i64, now: i64, inputs: &[(String, AtomicU64)]) -> Passed {
        let mut waits = Waits::default();
        let mut has_passed = vec![false; inputs.len()];
        let (mut earliest, mut expected) = (i64::MAX, 0);
        for tag in &self.tags {
            let Some((newest, arrived)) = tag.newest else {
                continue;
            };
            if newest >= end {
                if let Some(passed) = has_passed.get_mut(tag.is.input) {
                    *passed = true;
                }
                continue;
            }
            let gap = tag.gap.unwrap_or(SELDOM / TURNS);
            if gap > SELDOM {
                continue;
            }
            let silent = arrived.saturating_add(TURNS * gap + SLACK);
            if now < silent {
                expected += 1;
                earliest = earliest.min(silent);
                if waits.tags.len() < NAMED {
                    waits.tags.push(tag.is.tag.clone());
                }
            }
        }
        let has_tags = |input: usize| self.tags.iter().any(|tag| tag.is.input == input);
        for (input, (name, _)) in inputs.iter().enumerate() {
            if !has_passed[input] && has_tags(input) {
                waits.inputs.push(name.clone());
            }
        }
        if waits.inputs.is_empty() && expected == 0 {
            return Passed::Yes;
        }
        Passed::Until(earliest, waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: i64 = 1_800_000_000;

    fn at(seconds: i64) -> i64 {
        (T + seconds) * SECOND
    }

    fn marks(tags: &[(usize, u32)]) -> Marks {
        let inputs = tags.iter().map(|(input, _)| *input).max().unwrap_or(0) + 1;
        let names = (0..inputs).map(|input| format!("in-{input}"));
        let tags = tags
            .iter()
            .enumerate()
            .map(|(at, (input, component))| Marked {
                input: *input,
                component: *component,
                tag: format!("T{at}"),
            });
        Marks::new(
            names.collect(),
            tags.collect(),
            Cadence::Pt5m,
            RowRule::Service,
        )
    }

    fn take(marks: &Marks, tag: usize, seconds: i64) {
        take_at(marks, tag, seconds, seconds);
    }

    fn take_at(marks: &Marks, tag: usize, seconds: i64, now: i64) {
        let sample = Arrived {
            tag,
            time: at(seconds),
            live: true,
            is_value: true,
        };
        marks.took(&[sample], 7, at(now));
    }

    fn is_passed(marks: &Marks, end: i64, now: i64) -> bool {
        marks.passed(at(end), at(now)) == Passed::Yes
    }

    #[test]
    fn every_tag_that_is_expected_is_waited_for_and_a_silent_one_is_not() {
        let marks = marks(&[(0, 0), (0, 1), (0, 1)]);
        for second in (0..=290).step_by(10) {
            take(&marks, 0, second);
            take(&marks, 1, second);
        }
        // The third has never come.
        assert!(!is_passed(&marks, 300, 300));
        take(&marks, 0, 300);
        let Passed::Until(until, waits) = marks.passed(at(300), at(301)) else {
            panic!("passed");
        };
        assert_eq!((until, waits.tags), (at(290 + 32), vec!["T1".to_owned()]));
        // It is silent for three turns: no longer waited for.
        assert!(is_passed(&marks, 300, 322));
        take(&marks, 1, 300);
        assert!(is_passed(&marks, 300, 302));
    }

    #[test]
    fn a_device_whose_clock_is_fast_closes_nothing_for_the_others() {
        let marks = marks(&[(0, 0), (0, 0)]);
        for second in (0..=300).step_by(10) {
            take_at(&marks, 0, second + 50, second);
            take(&marks, 1, second - 1);
        }
        assert!(!is_passed(&marks, 300, 301));
        take(&marks, 1, 309);
        assert!(is_passed(&marks, 300, 309));
    }

    #[test]
    fn one_that_comes_seldom_is_not_waited_for_and_every_input_must_pass() {
        let marks = marks(&[(0, 0), (0, 0), (1, 0)]);
        for second in (0..=300).step_by(10) {
            take(&marks, 0, second);
        }
        take(&marks, 1, 0);
        take(&marks, 1, 200);
        let Passed::Until(_, waits) = marks.passed(at(300), at(300)) else {
            panic!("passed");
        };
        assert_eq!(waits.text(), "input in-1");
        take(&marks, 2, 305);
        assert!(is_passed(&marks, 300, 305));
    }

    #[test]
    fn what_is_of_a_time_gone_by_passes_nothing() {
        let marks = marks(&[(0, 0)]);
        let sample = Arrived {
            tag: 0,
            time: at(400),
            live: false,
            is_value: true,
        };
        marks.took(&[sample], 1, at(400));
        assert!(!is_passed(&marks, 300, 401));
    }

    #[tokio::test]
    async fn who_waits_is_told_when_the_end_is_passed() {
        let marks = marks(&[(0, 0)]);
        take(&marks, 0, 290);
        assert!(!is_passed(&marks, 300, 301));
        take(&marks, 0, 300);
        tokio::time::timeout(
            std::time::Duration::from_secs(5),
            marks.changed().notified(),
        )
        .await
        .unwrap();
    }

    #[test]
    fn late_samples_are_told_by_window_and_component_and_counted_where_they_are() {
        let marks = marks(&[(0, 0), (0, 1)]);
        take(&marks, 0, 10);
        let mut none = 0;
        marks.late(&mut |_| {
            none += 1;
            true
        });
        assert_eq!(none, 0);
        marks.cut(at(300));
        // The last instant of a window is its own.
        take(&marks, 1, 300);
        take(&marks, 1, 299);
        take(&marks, 0, 301);
        let mut seen = Vec::new();
        marks.late(&mut |late| {
            seen.push(*late);
            true
        });
        let start = (T / 300) * 300;
        assert_eq!(T % 300, 0);
        assert_eq!(
            seen,
            [Late {
                start,
                component: 1,
                position: 7,
                samples: 2
            }]
        );
        assert_eq!(marks.late_of("in-0"), 2);
    }
}
