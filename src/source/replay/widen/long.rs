//! A long history: a row for each value, with its time, its tag, and perhaps its quality.
//!
//! Guarantees: of values of one tag at one time the last counts, as pandas' `drop_duplicates(keep="last")` before a `pivot`;
//! a value of bad quality and a word are missing, and are counted. What is kept is 20 bytes a value, in order and mostly in a
//! scratch file; tags that nobody asks for cost nothing.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::sync::Arc;

use parquet::basic::Type as Physical;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::ChunkReader;
use tracing::{info, warn};

use super::made::Maker;
use super::sorter::{Sorter, time_of};
use super::{Absent, LongAt, Wanted, invalid, refuse_missing, scratch_failed};
use crate::signal::{ABSENT, BAD, Values};
use crate::source::SourceError;
use crate::source::replay::contain::contained;
use crate::source::replay::decode::{TimeReader, column_reader, read_rows, read_values};
use crate::source::replay::footer::Footer;
use crate::source::replay::history::{NOT_PARQUET, failed, group_rows};
use crate::source::replay::layout::{SignalColumn, TimeColumn, find_time, kind_of};

/// Rows that are decoded at once.
const ROWS: usize = 64 << 10;
/// Bytes of a cell: its time, which tag, its value.
const WIDTH: usize = 8 + 4 + 8;
/// Names of tags that nobody asks for, to be shown where one is missing.
const OTHERS: usize = 1_000;

/// Takes the values of a long history.
pub(super) struct Cells<'a> {
    wanted: Wanted<'a>,
    sorter: Sorter,
    tags: HashMap<&'a str, u32>,
    seen: Vec<bool>,
    others: BTreeSet<String>,
}

impl<'a> Cells<'a> {
    pub fn new(wanted: Wanted<'a>) -> Self {
        let tags: HashMap<&str, u32> = wanted.tags.tags().map(|(_, tag)| tag).zip(0..).collect();
        Self {
            sorter: Sorter::new(WIDTH, wanted.scratch),
            seen: vec![false; tags.len()],
            tags,
            others: BTreeSet::new(),
            wanted,
        }
    }

    /// Takes a value of a tag, if it is asked for.
    pub fn take(&mut self, time: i64, tag: &[u8], value: f64) -> Result<(), SourceError> {
        let tag = String::from_utf8_lossy(tag);
        let Some(at) = self.tags.get(&*tag) else {
            if self.others.len() < OTHERS && !self.others.contains(&*tag) {
                self.others.insert(tag.into_owned());
            }
            return Ok(());
        };
        self.seen[*at as usize] = true;
        let mut cell = [0; WIDTH];
        cell[..8].copy_from_slice(&time.to_le_bytes());
        cell[8..12].copy_from_slice(&at.to_le_bytes());
        cell[12..].copy_from_slice(&value.to_le_bytes());
        let pushed = self.sorter.push(&cell);
        pushed.map_err(|error| scratch_failed(&self.wanted, error))
    }

    /// The value that a quality leaves.
    pub fn judged(&self, value: f64, quality: &[u8]) -> f64 {
        match self.wanted.shape.is_good(quality) {
            true => value,
            false => BAD,
        }
    }

    /// The wide file; `None` where no value is of a tag that is asked for.
    pub fn made(mut self, name: &str) -> Result<Option<File>, SourceError> {
        let names = self.others.iter().map(String::as_str);
        let all = || self.wanted.tags.tags().map(|(_, tag)| tag);
        if !self.seen.contains(&true) {
            refuse_missing(name, &self.wanted, |_| false, names)?;
            return Ok(None);
        }
        if self.wanted.absent == Absent::Refused {
            // A sensor that is dead, or has yet to speak, is an empty column.
            let silent: Vec<&str> = all()
                .zip(&self.seen)
                .filter(|(_, seen)| !**seen)
                .map(|(tag, _)| tag)
                .collect();
            if !silent.is_empty() {
                warn!(
                    file = name,
                    count = silent.len(),
                    first = silent[0],
                    "tags have no value in the history"
                );
            }
            self.seen.fill(true);
        }
        let has: Vec<&str> = all()
            .zip(&self.seen)
            .filter(|(_, seen)| **seen)
            .map(|(tag, _)| tag)
            .collect();
        let wanted = self.wanted;
        let made = self.write(name, &has);
        made.map(Some)
            .map_err(|error| scratch_failed(&wanted, error))
    }

    fn write(self, name: &str, has: &[&str]) -> io::Result<File> {
        let mut maker = Maker::new(has, self.wanted.scratch)?;
        let mut places = vec![0; self.seen.len()];
        let seen = (0..self.seen.len()).filter(|at| self.seen[*at]);
        seen.zip(0..).for_each(|(at, place)| places[at] = place);
        let mut merged = self.sorter.merged()?;
        let (mut row, mut filled) = (vec![ABSENT; has.len()], vec![false; has.len()]);
        let (mut now, mut doubled) = (None, 0_u64);
        let mut cell = [0; WIDTH];
        loop {
            let more = merged.read(&mut cell)?;
            let time = time_of(&cell);
            if let Some(before) = now
                && (!more || before != time)
            {
                maker.row(before, row.iter().copied())?;
                row.fill(ABSENT);
                filled.fill(false);
                self.wanted.progress.made(1);
            }
            if !more {
                break;
            }
            now = Some(time);
            let (mut tag, mut value) = ([0; 4], [0; 8]);
            tag.copy_from_slice(&cell[8..12]);
            value.copy_from_slice(&cell[12..]);
            let place: usize = places[u32::from_le_bytes(tag) as usize];
            doubled += u64::from(std::mem::replace(&mut filled[place], true));
            row[place] = f64::from_le_bytes(value);
        }
        if doubled > 0 {
            info!(
                file = name,
                doubled, "values were dropped because a later one of their tag has the same time"
            );
        }
        maker.close()
    }
}

/// Reads a long Parquet file.
pub(super) fn wide<R: ChunkReader + 'static>(
    reader: &Arc<R>,
    mut footer: Footer<R>,
    name: &str,
    at: LongAt,
    wanted: Wanted,
) -> Result<Option<File>, SourceError> {
    let columns = Columns::of(&footer, at, &wanted).map_err(|problem| invalid(name, problem))?;
    let mut cells = Cells::new(wanted);
    while let Some(entry) = footer
        .next()
        .map_err(|error| failed(name, NOT_PARQUET, error))?
    {
        let rows = group_rows(&entry) as usize;
        for offset in (0..rows).step_by(ROWS) {
            let count = ROWS.min(rows - offset);
            let batch = columns
                .read(reader, &entry, (offset, count), &wanted)
                .map_err(|error| failed(name, "cannot read its values", error))?;
            batch.give(&mut cells)?;
            wanted.progress.made(1);
        }
    }
    cells.made(name)
}

/// The columns of a long Parquet file.
struct Columns {
    time: TimeColumn,
    tag: usize,
    value: SignalColumn,
    quality: Option<Quality>,
}

enum Quality {
    Text(usize),
    Number(SignalColumn),
}

impl Columns {
    fn of<R: ChunkReader>(
        footer: &Footer<R>,
        at: LongAt,
        wanted: &Wanted,
    ) -> Result<Columns, String> {
        let schema = footer.schema();
        let is_bytes = |at: usize| schema.column(at).physical_type() == Physical::BYTE_ARRAY;
        let number = |index: usize| {
            let descr = schema.column(index);
            match kind_of(&descr) {
                Ok(kind) => Ok(SignalColumn { index, descr, kind }),
                Err(found) => Err(format!(
                    "column \"{}\" is {found}; expected numbers or texts",
                    descr.name()
                )),
            }
        };
        if !is_bytes(at.tag) {
            let found = schema.column(at.tag);
            return Err(format!(
                "column \"{}\" has no texts; expected the names of tags",
                found.name()
            ));
        }
        let quality = match at.quality {
            Some(quality) if is_bytes(quality) => Some(Quality::Text(quality)),
            Some(quality) => Some(Quality::Number(number(quality)?)),
            None => None,
        };
        Ok(Columns {
            time: find_time(schema, wanted.tags, wanted.shape)?,
            tag: at.tag,
            value: number(at.value)?,
            quality,
        })
    }

    fn read<R: ChunkReader + 'static>(
        &self,
        reader: &Arc<R>,
        entry: &RowGroupMetaData,
        (offset, count): (usize, usize),
        wanted: &Wanted,
    ) -> Result<Batch, ParquetError> {
        let all = group_rows(entry);
        let column = |index: usize| column_reader(reader, entry.column(index), all);
        let values = |signal: &SignalColumn| {
            column(signal.index).and_then(|column| read_values(column, signal, offset, count))
        };
        let texts = |index: usize| -> Result<Vec<Option<ByteArray>>, ParquetError> {
            let column = column(index)?;
            contained(|| {
                let mut reader = get_typed_column_reader::<ByteArrayType>(column);
                reader.skip_records(offset)?;
                read_rows(&mut reader, count, |text| text)
            })
        };
        let mut times = TimeReader::new(column(self.time.index)?, &self.time, wanted.shape);
        times.skip(offset)?;
        Ok(Batch {
            times: times.read(count)?,
            tags: texts(self.tag)?,
            values: values(&self.value)?,
            qualities: match &self.quality {
                Some(Quality::Text(index)) => Some(Qualities::Texts(texts(*index)?)),
                Some(Quality::Number(signal)) => Some(Qualities::Numbers(values(signal)?)),
                None => None,
            },
        })
    }
}

/// Rows that were decoded together.
struct Batch {
    times: Vec<Option<i64>>,
    tags: Vec<Option<ByteArray>>,
    values: Values,
    qualities: Option<Qualities>,
}

enum Qualities {
    Texts(Vec<Option<ByteArray>>),
    Numbers(Values),
}

impl Batch {
    fn give(self, cells: &mut Cells) -> Result<(), SourceError> {
        for (row, (time, tag)) in self.times.iter().zip(&self.tags).enumerate() {
            let (Some(time), Some(tag)) = (time, tag) else {
                continue;
            };
            let value = self.values.get(row);
            let value = match &self.qualities {
                None => value,
                Some(Qualities::Texts(texts)) => {
                    let text = texts[row].as_ref().map(ByteArray::data);
                    cells.judged(value, text.unwrap_or_default())
                }
                Some(Qualities::Numbers(numbers)) => {
                    let number = numbers.get(row);
                    match number.is_nan() {
                        true => value,
                        false => cells.judged(value, number.to_string().as_bytes()),
                    }
                }
            };
            cells.take(*time, tag.data(), value)?;
        }
        Ok(())
    }
}
