//! A CSV, plain or gzipped: a header, a time column, and a column for each tag, or one of tags and one of values.
//!
//! Guarantees: what is wrong is named with file, line and column, what was expected and what to do; rows may have any order. A
//! row of a file counts once its line has ended: a writer that fills a buffer leaves a part of one at any time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use parquet::file::reader::ChunkReader;

use super::long::Cells;
use super::made::Maker;
use super::sorter::{Sorter, time_of};
use super::{Absent, LongAt, Wanted, invalid, refuse_missing, scratch_failed};
use crate::records::{RecordError, Records};
use crate::source::SourceError;
use crate::source::replay::decode::number_of;
use crate::source::replay::follow::not_now;
use crate::source::replay::history::{NULL_TIME, failed};
use crate::source::shape::Shape;

/// Rows after which a reading is known to go on.
const BEAT: u64 = 1024;

/// A CSV that is being read.
struct CsvFile {
    name: String,
    /// Whether nothing comes after what is there.
    finished: bool,
    /// How long it was, and how much of it was read.
    length: u64,
    read: Arc<AtomicU64>,
    records: Records<Box<dyn Read>>,
    header: Vec<String>,
}

impl CsvFile {
    fn open<R: ChunkReader>(reader: &R, name: &str, finished: bool) -> Result<CsvFile, SourceError>
    where
        R::T: 'static,
    {
        let cannot = |error| failed(name, "cannot be read", error);
        let head = reader.get_bytes(0, 2.min(reader.len() as usize));
        let is_gzip = head.map_err(cannot)?[..] == [0x1f, 0x8b];
        let read = Arc::new(AtomicU64::new(0));
        let plain = BufReader::new(Counted {
            input: reader.get_read(0).map_err(cannot)?,
            read: read.clone(),
        });
        let input: Box<dyn Read> = match is_gzip {
            true => Box::new(MultiGzDecoder::new(plain)),
            false => Box::new(plain),
        };
        let mut file = CsvFile {
            name: name.to_owned(),
            // What was compressed ends where that says.
            finished: finished || is_gzip,
            length: reader.len(),
            read,
            records: Records::open(input).map_err(|error| unread(name, error))?,
            header: Vec::new(),
        };
        let records = &mut file.records;
        let found = records.read().map_err(|error| unread(name, error))?;
        if let Some(problem) = records.broken().filter(|_| found) {
            return Err(invalid(name, format!("the header: {problem}")));
        }
        let cells = records.iter();
        let texts = cells.map(|cell| String::from_utf8_lossy(cell).trim().to_owned());
        let mut header: Vec<String> = texts.collect();
        // A comma at the end of the line is no column.
        while header.len() > 2 && header.last().is_some_and(String::is_empty) {
            header.pop();
        }
        if header.len() < 2 {
            return Err(invalid(
                name,
                format!(
                    "expected a time column and at least one sensor, separated by commas, found `{}`",
                    records.shown()
                ),
            ));
        }
        file.header = header;
        Ok(file)
    }

    /// The time column: the one that is named, else the one called Timestamp, else the first.
    fn time(&self, shape: &Shape) -> Result<usize, SourceError> {
        let called = |name: &str| self.header.iter().position(|own| own == name);
        if !shape.time.is_empty() {
            return called(&shape.time).ok_or_else(|| {
                let problem = format!(
                    "no column is called \"{}\" as source.time_column says; the file has {}",
                    shape.time,
                    super::shown(&self.header)
                );
                invalid(&self.name, problem)
            });
        }
        let is_time = |own: &String| own.eq_ignore_ascii_case("timestamp");
        Ok(self.header.iter().position(is_time).unwrap_or(0))
    }

    /// Reads the next row; false after the last. A row has a cell for every column: one that lacks some is cut off, one that has
    /// more is of another file.
    fn next(&mut self) -> Result<bool, SourceError> {
        let (name, records) = (&self.name, &mut self.records);
        let more = records.read().map_err(|error| unread(name, error))?;
        // A quote that is open in the last line is a part of a row as well; over many lines it is a mistake.
        let is_part = !self.finished && !records.is_complete() && !records.spans_lines();
        if !more || is_part {
            return match self.read.load(Ordering::Relaxed) < self.length {
                true => Err(not_now(name, "it was cut short while it was read")),
                false => Ok(false),
            };
        }
        let line = records.line();
        let width = self.header.len();
        let found = records.len();
        let beyond = (width..found).filter_map(|cell| records.get(cell));
        let fits = found >= width && beyond.into_iter().all(|cell| cell.trim_ascii().is_empty());
        if fits && records.broken().is_none() {
            return Ok(true);
        }
        let problem = match records.broken() {
            Some(broken) => format!("line {line}: {broken}"),
            None => format!("line {line}: the row has {found} fields, the header {width}"),
        };
        // What is behind the last line end is perhaps still being written.
        Err(match !self.finished && !records.is_complete() {
            true => not_now(name, &format!("{problem}: is it still being written?")),
            false => invalid(name, problem),
        })
    }

    fn cell(&self, at: usize) -> &[u8] {
        self.records.get(at).unwrap_or_default()
    }

    /// The time of the row; `None` where its cell is empty.
    fn time_of(&self, at: usize, shape: &Shape) -> Result<Option<i64>, SourceError> {
        let cell = self.cell(at).trim_ascii();
        if cell.is_empty() {
            return Ok(None);
        }
        shape.time_of(cell).map(Some).map_err(|problem| {
            let (line, column) = (self.records.line(), &self.header[at]);
            invalid(
                &self.name,
                format!("line {line} column {column}: {problem}"),
            )
        })
    }
}

/// Counts what is read.
struct Counted<R> {
    input: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// The names of the columns.
pub(super) fn header<R: ChunkReader>(reader: &R, name: &str) -> Result<Vec<String>, SourceError>
where
    R::T: 'static,
{
    Ok(CsvFile::open(reader, name, false)?.header)
}

/// The wide file that a CSV is; `None` where it has nothing of what is wanted.
pub(super) fn wide<R: ChunkReader>(
    reader: &R,
    name: &str,
    wanted: Wanted,
) -> Result<Option<File>, SourceError>
where
    R::T: 'static,
{
    let file = CsvFile::open(reader, name, wanted.finished)?;
    match LongAt::find(&file.header, &wanted) {
        Ok(Some(at)) => long(file, at, wanted),
        Ok(None) => rows(file, wanted),
        // Of many files, one of another kind, such as the tag list beside them.
        Err(_) if wanted.absent == Absent::Empty => Ok(None),
        Err(problem) => Err(invalid(name, problem)),
    }
}

fn long(mut file: CsvFile, at: LongAt, wanted: Wanted) -> Result<Option<File>, SourceError> {
    let time_at = file.time(wanted.shape)?;
    let mut cells = Cells::new(wanted);
    while file.next()? {
        if file.records.line().is_multiple_of(BEAT) {
            wanted.progress.made(1);
        }
        let Some(time) = file.time_of(time_at, wanted.shape)? else {
            continue;
        };
        let mut value = number_of(file.cell(at.value));
        if let Some(quality) = at.quality {
            value = cells.judged(value, file.cell(quality));
        }
        cells.take(time, file.cell(at.tag).trim_ascii(), value)?;
    }
    let name = file.name;
    cells.made(&name)
}

fn rows(mut file: CsvFile, wanted: Wanted) -> Result<Option<File>, SourceError> {
    let mut columns: HashMap<&str, usize> = HashMap::new();
    let mut twice = None;
    for (at, name) in file.header.iter().enumerate() {
        if columns.insert(name, at).is_some() && wanted.tags.tags().any(|(_, tag)| tag == name) {
            twice = Some(name);
        }
    }
    if let Some(name) = twice {
        let problem = format!("column \"{name}\" appears twice; rename or remove one");
        return Err(invalid(&file.name, problem));
    }
    let names = file.header.iter().map(String::as_str);
    refuse_missing(&file.name, &wanted, |tag| columns.contains_key(tag), names)?;
    let listed = wanted.tags.tags().map(|(_, tag)| tag);
    let has: Vec<(&str, usize)> = listed
        .filter_map(|tag| Some((tag, *columns.get(tag)?)))
        .collect();
    if has.is_empty() {
        return Ok(None);
    }
    let time_at = file.time(wanted.shape)?;
    let mut sorter = Sorter::new(8 + 8 * has.len(), wanted.scratch);
    let mut record = vec![0; 8 + 8 * has.len()];
    let mut rows: u64 = 0;
    while file.next()? {
        rows += 1;
        if file.records.line().is_multiple_of(BEAT) {
            wanted.progress.made(1);
        }
        let time = file.time_of(time_at, wanted.shape)?;
        record[..8].copy_from_slice(&time.unwrap_or(NULL_TIME).to_le_bytes());
        for (place, (_, at)) in has.iter().enumerate() {
            let value = number_of(file.cell(*at));
            record[8 + 8 * place..16 + 8 * place].copy_from_slice(&value.to_le_bytes());
        }
        sorter
            .push(&record)
            .map_err(|error| scratch_failed(&wanted, error))?;
    }
    if rows == 0 && !file.finished && wanted.absent == Absent::Empty {
        return Ok(None);
    }
    if rows == 0 && !file.finished {
        return Err(not_now(&file.name, "it has no rows yet"));
    }
    let tags: Vec<&str> = has.iter().map(|(tag, _)| *tag).collect();
    let made = write(sorter, &tags, &mut record, &wanted);
    made.map(Some)
        .map_err(|error| scratch_failed(&wanted, error))
}

fn write(sorter: Sorter, tags: &[&str], record: &mut [u8], wanted: &Wanted) -> io::Result<File> {
    let mut maker = Maker::new(tags, wanted.scratch)?;
    let mut merged = sorter.merged()?;
    while merged.read(record)? {
        let values = record[8..].chunks_exact(8).map(|cell| {
            let mut value = [0; 8];
            value.copy_from_slice(cell);
            f64::from_le_bytes(value)
        });
        maker.row(time_of(record), values)?;
        wanted.progress.made(1);
    }
    maker.close()
}

fn unread(name: &str, error: RecordError) -> SourceError {
    match error {
        RecordError::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            not_now(name, "it is cut short: is it still being written?")
        }
        RecordError::Read(error)
            if error.kind() != io::ErrorKind::InvalidData
                && error.kind() != io::ErrorKind::InvalidInput =>
        {
            SourceError::Unavailable {
                name: name.to_owned(),
                source: error.into(),
            }
        }
        error => invalid(name, error.to_string()),
    }
}
