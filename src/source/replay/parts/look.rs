//! What has changed among the files of a history since the last look.
//!
//! Guarantees: up to a thousand files are all asked at each look. Of more, those are that could have rows of the window that is
//! wanted: what covers it, what waits, and what ends nearest before it, as an appended file does; the others in turns. A file
//! that was changed within the last tick of a file system's clock is compared by its footer too.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parquet::file::reader::Length;
use tokio::time::Instant;
use tracing::info;

use super::{File, Names, Parts, State, reason, tail};
use crate::signal::Segment;
use crate::source::SourceError;
use crate::source::replay::follow::{Identity, Listing, Place, not_now};

/// How long a file must stay as it is before it is opened anew, and how long that is waited for.
const REST: Duration = Duration::from_millis(400);
const REST_AT_MOST: Duration = Duration::from_millis(1_600);
/// How often a file is tried that cannot be read now and that no window waits for.
const AGAIN: Duration = Duration::from_secs(2);
/// The coarsest clock of a file system, with some room.
pub(super) const TICK_SECONDS: i64 = 10;
const TICK: Duration = Duration::from_secs(10);
/// Files that are asked at a look: so many near the window, and so many in turns.
const LOOKS: usize = 500;

impl<P: Place> Parts<P> {
    /// Opens and indexes what has changed; whether anything has. `wanted` is what will be read. What is wrong now may be right
    /// at the next look: a right that is taken away, columns that no file has any more.
    pub fn freshen(&mut self, wanted: &[Segment]) -> Result<bool, SourceError> {
        let looked = self.look_again(wanted);
        let complete = looked.and_then(|changed| {
            self.refuse_incomplete()?;
            Ok(changed)
        });
        complete.map_err(|error| match error {
            SourceError::Invalid { name, problems } => not_now(&name, &problems.join("; ")),
            error => error,
        })
    }

    fn look_again(&mut self, wanted: &[Segment]) -> Result<bool, SourceError> {
        let listing = self.place.list()?;
        if listing.files.is_empty() {
            let nothing = "none of its files is there any more: is its share mounted?";
            return Err(not_now(self.place.name(), nothing));
        }
        let mut changed = self.compare(&listing, wanted)?;
        let listed: HashSet<&str> = listing.files.iter().map(|file| &*file.name).collect();
        let before = self.files.len();
        self.files.retain(|file| listed.contains(&*file.name));
        let gone = before - self.files.len();
        self.many = listing.many;
        self.skipped = (listing.skipped, listing.shown);
        if changed.is_empty() && gone == 0 {
            return Ok(false);
        }
        if !self.place.changes_at_once() {
            self.rest(&mut changed)?;
        }
        for name in &changed {
            self.take(name, None)?;
        }
        self.settle();
        info!(
            history = self.name(),
            rows = self.extent().rows(),
            files = self.files.len(),
            changed = changed.len(),
            gone,
            "the history has changed and is read anew"
        );
        Ok(true)
    }

    /// The files that are new, or others than they were.
    fn compare(
        &mut self,
        listing: &Listing,
        wanted: &[Segment],
    ) -> Result<Vec<Arc<str>>, SourceError> {
        let asked = self.must_be_asked(wanted);
        let mut changed = Vec::new();
        for listed in &listing.files {
            let known = self
                .files
                .binary_search_by(|file| file.name.cmp(&listed.name));
            let differs = match (known, &listed.identity) {
                // A link that leads nowhere is no file.
                (Err(_), None) => !matches!(self.place.look(&listed.name), Ok(None)),
                (Err(_), Some(_)) => true,
                (Ok(at), Some(identity)) => self.files[at].identity() != Some(identity),
                (Ok(at), None) if asked[at] => match self.differs(at) {
                    // One of many holds what it could have rows of.
                    Err(error) if self.many => {
                        self.wait(at, reason(&error));
                        false
                    }
                    differs => differs?,
                },
                (Ok(_), None) => false,
            };
            if differs {
                changed.push(listed.name.clone());
            }
        }
        Ok(changed)
    }

    fn wait(&mut self, at: usize, why: String) {
        let File { name, .. } = &self.files[at];
        self.open.retain(|(open, _)| open != name);
        self.files[at].state = State::Waiting {
            identity: None,
            why,
            span: self.files[at].span(),
        };
    }

    fn differs(&mut self, at: usize) -> Result<bool, SourceError> {
        let File { name, state, since } = &mut self.files[at];
        let found = self.place.look(name)?;
        let known = match state {
            State::Known(known) => known,
            State::Waiting { identity, .. } => return Ok(identity.is_none() || found != *identity),
        };
        if found.as_ref() != Some(&known.identity) {
            return Ok(true);
        }
        let Some(hash) = known.unsettled else {
            return Ok(false);
        };
        let (reader, _) = self.place.open(name, &self.progress)?;
        if tail(&reader, reader.len()).ok() != Some(hash) {
            return Ok(true);
        }
        if since.elapsed() > TICK {
            known.unsettled = None;
        }
        Ok(false)
    }

    /// Which files are asked whether they have changed.
    fn must_be_asked(&mut self, wanted: &[Segment]) -> Vec<bool> {
        let due = self.tried.is_none_or(|tried| tried.elapsed() >= AGAIN);
        if due {
            self.tried = Some(Instant::now());
        }
        let wants = |(first, last): (i64, i64)| {
            wanted
                .iter()
                .any(|segment| segment.first <= last && first <= segment.last)
        };
        let few = self.files.len() <= 2 * LOOKS;
        let mut asked: Vec<bool> = (0..self.files.len())
            .map(|at| match &self.files[at].state {
                State::Waiting { .. } => due || wants(self.reach(at)),
                State::Known(_) => few || self.files[at].span().is_some_and(wants),
            })
            .collect();
        if few {
            return asked;
        }
        let begin = wanted.iter().map(|segment| segment.first).max();
        let ends = |at: usize| {
            let (_, last) = self.files[at].span()?;
            Some((last, at)).filter(|(last, _)| begin.is_none_or(|begin| *last < begin))
        };
        let mut before: Vec<(i64, usize)> = (0..self.files.len()).filter_map(ends).collect();
        before.sort_unstable();
        let near = before.iter().rev().take(LOOKS).map(|(_, at)| *at);
        let turns = (0..LOOKS).map(|step| (self.turn + step) % self.files.len());
        near.chain(turns).for_each(|at| asked[at] = true);
        self.turn = (self.turn + LOOKS) % self.files.len();
        asked
    }

    /// Waits until the files stay as they are. Those of many that do not are left for later, and wait.
    fn rest(&mut self, changed: &mut Vec<Arc<str>>) -> Result<(), SourceError> {
        if changed.is_empty() {
            return Ok(());
        }
        let looks = |changed: &[Arc<str>]| -> Result<Vec<Option<Identity>>, SourceError> {
            let look = |name: &Arc<str>| match self.place.look(name) {
                // Opening it says what is wrong.
                Err(_) if self.many => Ok(None),
                looked => looked,
            };
            changed.iter().map(look).collect()
        };
        let since = Instant::now();
        let mut seen = looks(changed)?;
        let moving = loop {
            std::thread::sleep(REST);
            self.progress.made(1);
            let again = looks(changed)?;
            let pairs = changed.iter().zip(again.iter().zip(&seen));
            let moving: Vec<bool> = pairs
                .map(|(name, (again, seen))| again != seen && !is_logging(name, seen, again))
                .collect();
            if !moving.contains(&true) {
                return Ok(());
            }
            if self.many {
                break moving;
            }
            if since.elapsed() > REST_AT_MOST {
                return Err(not_now(self.place.name(), "it is being written"));
            }
            seen = again;
        };
        let names: Vec<Arc<str>> = std::mem::take(changed);
        for (name, moving) in names.into_iter().zip(moving) {
            if !moving {
                changed.push(name);
                continue;
            }
            let span = self.files.iter().find(|file| file.name == name);
            let span = span.and_then(File::span);
            self.open.retain(|(open, _)| *open != name);
            self.put(
                name,
                State::Waiting {
                    identity: None,
                    why: "it is being written".to_owned(),
                    span,
                },
            );
        }
        Ok(())
    }

    /// When the rows of a file that waits can have happened: between those of its neighbours by name, where names go with time.
    pub(super) fn reach(&self, at: usize) -> (i64, i64) {
        let index = |file: &File| file.index().map(|index| index.extent.clone());
        let before = self.files[..at].iter().rev().find_map(index);
        let after = self.files[at + 1..].iter().find_map(index);
        let (first, last) = match self.names {
            Names::Apart => (
                before.map(|extent| extent.last().saturating_add(1)),
                after.map(|extent| extent.first().saturating_sub(1)),
            ),
            Names::Ascending => (
                before.map(|extent| extent.first()),
                after.map(|extent| extent.last()),
            ),
            Names::Mixed => (None, None),
        };
        let (first, last) = (first.unwrap_or(i64::MIN), last.unwrap_or(i64::MAX));
        match self.files[at].span() {
            Some((began, ended)) => (first.min(began), last.max(ended)),
            None => (first, last),
        }
    }
}

/// Whether a CSV has only grown, as a log does all the time: its whole rows can be read meanwhile.
fn is_logging(name: &str, before: &Option<Identity>, after: &Option<Identity>) -> bool {
    name.to_ascii_lowercase().ends_with(".csv")
        && before
            .as_ref()
            .zip(after.as_ref())
            .is_some_and(|(before, after)| after.has_grown_from(before))
}
