//! Histories of another form, made wide once: a CSV, and a long one, which has a row for each value of each tag.
//!
//! Guarantees: what comes out is a wide Parquet file with the same rows in the order of their times, in a scratch file that has
//! no name and is gone when it is closed, so that everything behind this reads one form; memory is bounded, whatever a
//! file has. A wide Parquet file is left as it is. Numbers of a CSV and of a long history are doubles.
//! Deliberately absent: where files lie, and which rows are read.

mod csv;
mod long;
mod made;
mod sorter;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::footer::Footer;
use super::history::{NOT_PARQUET, failed};
use super::layout::{Absent, Layout, describe_missing};
use super::local::PARQUET_ENDS;
use crate::signal::TagList;
use crate::source::shape::Shape;
use crate::source::{Progress, SourceError};

/// What is wanted of a file.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub tags: &'a TagList,
    pub shape: &'a Shape,
    /// What a tag without a column is.
    pub absent: Absent,
    /// Whether nothing is ever appended to a file, as to an object.
    pub finished: bool,
    pub scratch: &'a Path,
    pub progress: &'a Progress,
}

/// A wide Parquet file: the one that lies there, or the one that was made of it.
pub(super) enum Wide<R> {
    Own(Arc<R>),
    Made(File),
}

impl<R> Wide<R> {
    /// Whether it was made of a file, and so stays as it is whatever becomes of that.
    pub fn is_made(&self) -> bool {
        matches!(self, Wide::Made(_))
    }

    /// The shape that it has.
    pub fn shape<'a>(&self, own: &'a Shape, made: &'a Shape) -> &'a Shape {
        match self {
            Wide::Own(_) => own,
            Wide::Made(_) => made,
        }
    }
}

impl<R: Length> Length for Wide<R> {
    fn len(&self) -> u64 {
        match self {
            Wide::Own(reader) => reader.len(),
            Wide::Made(file) => Length::len(file),
        }
    }
}

impl<R: ChunkReader> ChunkReader for Wide<R> {
    type T = Box<dyn Read>;

    /// Never asked for: every part of a Parquet file is read by its length.
    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Err(ParquetError::General(format!(
            "a read without a length at byte {start}"
        )))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        match self {
            Wide::Own(reader) => reader.get_bytes(start, length),
            Wide::Made(file) => file.get_bytes(start, length),
        }
    }
}

/// Makes a file wide that is not; `None` where it has nothing of what is wanted.
pub(super) fn wide<R: ChunkReader + 'static>(
    reader: R,
    name: &str,
    wanted: Wanted,
) -> Result<Option<Wide<R>>, SourceError> {
    let reader = Arc::new(reader);
    let head = reader
        .get_bytes(0, 4.min(reader.len() as usize))
        .map_err(|error| failed(name, "cannot read its first bytes", error))?;
    if is_csv(name, &head) {
        return Ok(csv::wide(&*reader, name, wanted)?.map(Wide::Made));
    }
    // What is no Parquet file is for its own reader to say.
    let Ok(footer) = Footer::open(reader.clone()) else {
        return Ok(Some(Wide::Own(reader)));
    };
    let names: Vec<String> = footer
        .schema()
        .columns()
        .iter()
        .map(|column| column.path().string())
        .collect();
    let long = match LongAt::find(&names, &wanted) {
        Err(_) if wanted.absent == Absent::Empty => return Ok(None),
        long => long.map_err(|problem| invalid(name, problem))?,
    };
    match long {
        Some(at) => Ok(long::wide(&reader, footer, name, at, wanted)?.map(Wide::Made)),
        None if wanted.absent == Absent::Empty
            && !Layout::has_any(footer.schema(), wanted.tags) =>
        {
            Ok(None)
        }
        None => Ok(Some(Wide::Own(reader))),
    }
}

/// The names of a file's columns, or of a long history's tags as far as they are asked for.
pub(super) fn column_names<R: ChunkReader + 'static>(
    reader: R,
    name: &str,
) -> Result<Vec<String>, SourceError> {
    let head = reader
        .get_bytes(0, 4.min(reader.len() as usize))
        .map_err(|error| failed(name, "cannot read its first bytes", error))?;
    if is_csv(name, &head) {
        return csv::header(&reader, name);
    }
    let footer =
        Footer::open(Arc::new(reader)).map_err(|error| failed(name, NOT_PARQUET, error))?;
    let columns = footer.schema().columns().iter();
    Ok(columns
        .map(|column| column.path().parts()[0].clone())
        .collect())
}

/// Whether a file that is not called Parquet begins as a CSV may, plain or gzipped.
fn is_csv(name: &str, head: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    if PARQUET_ENDS.iter().any(|end| lower.ends_with(end)) {
        return false;
    }
    let is_letter = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..);
    !head.is_empty()
        && head != b"PAR1"
        && head != b"PARE"
        && (head.starts_with(&[0x1f, 0x8b]) || head.iter().all(is_letter))
}

/// Where a long history has its tags, values and qualities.
#[derive(Clone, Copy)]
struct LongAt {
    tag: usize,
    value: usize,
    quality: Option<usize>,
}

impl LongAt {
    /// The columns that are configured, or those called tag and value where no column is called like a tag.
    fn find(names: &[String], wanted: &Wanted) -> Result<Option<LongAt>, String> {
        let Some(long) = &wanted.shape.long else {
            let called = |name: &str| names.iter().position(|own| own.eq_ignore_ascii_case(name));
            let is_wide = wanted
                .tags
                .tags()
                .any(|(_, tag)| names.iter().any(|own| own == tag));
            return Ok(match (called("tag"), called("value")) {
                (Some(tag), Some(value)) if !is_wide => Some(LongAt {
                    tag,
                    value,
                    quality: called("quality"),
                }),
                _ => None,
            });
        };
        let called = |name: &str, key: &str| {
            names.iter().position(|own| own == name).ok_or_else(|| {
                format!(
                    "no column is called \"{name}\" as source.{key} says; the file has {}",
                    shown(names)
                )
            })
        };
        Ok(Some(LongAt {
            tag: called(&long.tag, "tag_column")?,
            value: called(&long.value, "value_column")?,
            quality: match long.quality.is_empty() {
                true => None,
                false => Some(called(&long.quality, "quality_column")?),
            },
        }))
    }
}

/// The first of many names.
fn shown(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
}

/// Refuses a file that lacks tags where it must not.
fn refuse_missing<'a>(
    name: &str,
    wanted: &Wanted,
    has: impl Fn(&str) -> bool,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), SourceError> {
    let missing: Vec<&str> = wanted
        .tags
        .tags()
        .map(|(_, tag)| tag)
        .filter(|tag| !has(tag))
        .collect();
    match missing.is_empty() || wanted.absent == Absent::Empty {
        true => Ok(()),
        false => Err(invalid(name, describe_missing(&missing, names))),
    }
}

fn invalid(name: &str, problem: String) -> SourceError {
    SourceError::Invalid {
        name: name.to_owned(),
        problems: vec![problem],
    }
}

/// The error of a scratch file: a disk that is full or away.
fn scratch_failed(wanted: &Wanted, error: io::Error) -> SourceError {
    SourceError::Unavailable {
        name: format!("a scratch file in {}", wanted.scratch.display()),
        source: error.into(),
    }
}
