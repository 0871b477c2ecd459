//! The rows of a window, put together from the files that have some.
//!
//! Guarantees: a file that is another than was known is found before its rows are given; after an error every file is opened
//! by its name again.

use std::mem::discriminant;

use parquet::file::reader::Length;

use super::{File, Parts, State, tail};
use crate::signal::{Segment, Values};
use crate::source::replay::History;
use crate::source::replay::columns::{Piece, frames, join, sort_and_keep_last, sort_and_merge};
use crate::source::replay::follow::{Place, not_now};
use crate::source::replay::history::Index;
use crate::source::replay::shelf::Known;
use crate::source::replay::widen::wide;
use crate::source::shape::Shape;
use crate::source::{Reading, SourceError};

impl<P: Place> Parts<P> {
    /// The rows of these segments; `None` where a file has changed while it was read.
    pub fn read(&mut self, segments: &[Segment]) -> Result<Option<Reading>, SourceError> {
        let held = self.waiting().find(|(at, ..)| {
            let (first, last) = self.reach(*at);
            segments
                .iter()
                .any(|segment| segment.first <= last && first <= segment.last)
        });
        if let Some((_, file, why)) = held {
            return Err(SourceError::Held {
                name: file.name.to_string(),
                source: why.into(),
            });
        }
        let mut times: Vec<i64> = Vec::new();
        let mut columns: Vec<Values> = self.forms.iter().map(|form| form.empty()).collect();
        let mut touched = Vec::new();
        let mut pieces: Vec<Piece> = Vec::new();
        for segment in segments {
            for at in self.overlapping(segment) {
                touched.push(at);
                let begin = times.len();
                match self.rows_of(at, segment, &mut times, &mut columns) {
                    Ok(true) => pieces.push((begin..times.len(), self.columns_of(at))),
                    Ok(false) => return Ok(None),
                    Err(error) => {
                        // The next try opens everything by its name, but for what was made of other files.
                        let name = &self.files[at].name;
                        self.open.retain(|(open, replay)| {
                            open != name && replay.history().reader().is_made()
                        });
                        return match self.are_as_known(&touched)? {
                            true => Err(error),
                            false => Ok(None),
                        };
                    }
                }
            }
        }
        // An object is read by its ETag: what was read without an error is of one version.
        // What was made of a file is of one version as well, and the file may grow as fast as it likes.
        touched.retain(|at| !self.is_made(*at));
        if !self.place.changes_at_once() && !self.are_as_known(&touched)? {
            return Ok(None);
        }
        let alike = pieces.windows(2).all(|pair| pair[0].1 == pair[1].1);
        let absent = |column: &Values| (0..column.len()).any(|row| column.is_absent(row));
        let same = alike && (pieces.len() < 2 || !columns.iter().any(absent));
        let duplicates = match same {
            true => sort_and_keep_last(&mut times, &mut columns),
            false => sort_and_merge(&mut times, &mut columns, &pieces),
        };
        Ok(Some(Reading {
            infinite: columns.iter().map(Values::infinite).sum(),
            words: columns.iter().map(Values::words).sum(),
            bad: columns.iter().map(Values::bad).sum(),
            frames: frames(&self.tags, &times, columns),
            duplicates,
            ..Reading::default()
        }))
    }

    /// The first time at or after `from` in any file.
    pub fn next_time(&mut self, from: i64) -> Result<Option<i64>, SourceError> {
        let mut next: Option<i64> = None;
        for at in 0..self.files.len() {
            let span = self.files[at].index().map(|i| (i.earliest(), i.latest()));
            let found = match span {
                Some((first, _)) if first >= from => Some(first),
                Some((_, last)) if last >= from && self.reopen(at)? => {
                    let name = self.files[at].name.clone();
                    let open = self.open.iter_mut().find(|(open, _)| *open == name);
                    match open {
                        Some((_, replay)) => replay.next_time(from)?,
                        None => None,
                    }
                }
                _ => None,
            };
            next = [next, found].into_iter().flatten().min();
        }
        Ok(next)
    }

    fn overlapping(&self, segment: &Segment) -> Vec<usize> {
        let overlaps =
            |index: &Index| index.earliest() <= segment.last && segment.first <= index.latest();
        let files = self.files.iter().enumerate();
        files
            .filter(|(_, file)| file.index().is_some_and(overlaps))
            .map(|(at, _)| at)
            .collect()
    }

    /// Which columns a file has.
    fn columns_of(&self, at: usize) -> Vec<bool> {
        let kinds = self.files[at].rows().map(|(kinds, _)| kinds);
        kinds.map_or_else(Vec::new, |kinds| {
            kinds.iter().map(Option::is_some).collect()
        })
    }

    fn is_made(&self, at: usize) -> bool {
        let name = &self.files[at].name;
        let open = self.open.iter().find(|(open, _)| open == name);
        open.is_some_and(|(_, replay)| replay.history().reader().is_made())
    }

    fn are_as_known(&self, files: &[usize]) -> Result<bool, SourceError> {
        for at in files {
            let file = &self.files[*at];
            if self.place.look(&file.name)?.as_ref() != file.identity() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Appends a file's rows of a segment; false where it is another file than was known.
    fn rows_of(
        &mut self,
        at: usize,
        segment: &Segment,
        times: &mut Vec<i64>,
        columns: &mut [Values],
    ) -> Result<bool, SourceError> {
        let name = self.files[at].name.clone();
        if !self.reopen(at)? {
            self.put(
                name,
                State::Waiting {
                    identity: None,
                    why: "it has changed while it was read".to_owned(),
                    span: self.files[at].span(),
                },
            );
            return Ok(false);
        }
        let Some((_, replay)) = self.open.iter_mut().find(|(open, _)| *open == name) else {
            return Ok(false);
        };
        let mut own = replay.history().empty_columns();
        let alike = own
            .iter()
            .zip(columns.iter())
            .all(|(own, column)| discriminant(own) == discriminant(column));
        if alike {
            replay.rows_of(segment, times, columns)?;
        } else {
            replay.rows_of(segment, times, &mut own)?;
            for (column, own) in columns.iter_mut().zip(&own) {
                join(column, own);
            }
        }
        replay.leave_behind();
        Ok(true)
    }

    /// Has a file open; false where it is another than was known.
    fn reopen(&mut self, at: usize) -> Result<bool, SourceError> {
        let File { name, state, .. } = &self.files[at];
        if self.open.iter().any(|(open, _)| open == name) {
            return Ok(true);
        }
        let State::Known(Known {
            identity: known,
            rows: Some((kinds, index)),
            ..
        }) = state
        else {
            return Ok(false);
        };
        let (reader, identity) = self.place.open(name, &self.progress)?;
        if identity != *known {
            return Ok(false);
        }
        let length = reader.len();
        let end = tail(&reader, length).map_err(|error| not_now(name, &error.to_string()))?;
        let Some(wide) = wide(reader, name, self.wanted())? else {
            return Ok(false);
        };
        if wide.is_made() && !self.has_only_grown(name, &identity, (length, end))? {
            return Ok(false);
        }
        let made = Shape::default();
        let shape = wide.shape(&self.shape, &made);
        let known = index.clone();
        let opened = History::open_known(wide, name, (&self.tags, shape), known, kinds)?;
        let name = name.clone();
        Ok(match opened {
            Some(history) => {
                self.keep_open(name, history);
                true
            }
            None => false,
        })
    }
}
