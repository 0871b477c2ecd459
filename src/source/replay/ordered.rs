//! The rows of an unsorted history, put in the order of their times once.
//!
//! Guarantees: putting them in order reads each row once, and a window then reads its own rows and no others; of rows with one
//! time the order is the file's. A small history is kept in memory, a larger one in a scratch file that has no name, so that
//! nothing of it is left behind; memory is 16 bytes a row while rows are put in order, and next to nothing afterwards.
//! Deliberately absent: histories of very many rows, which are read as they are.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use parquet::file::reader::ChunkReader;

use super::history::{Chunk, History, ORDERED_ROWS};
use crate::signal::{Segment, Values};
use crate::source::{Progress, SourceError};

/// Bytes that are kept in memory.
const MEMORY: usize = 48 << 20;
/// Rows that are read at once; the time of the first of them is known.
const STRIDE: usize = 64;

/// A history's rows in the order of their times.
pub(super) struct Ordered {
    rows: Rows,
    width: usize,
    count: usize,
    /// The time of each [`STRIDE`]th row.
    marks: Vec<i64>,
}

enum Rows {
    Memory(Vec<u8>),
    Scratch(File),
}

impl Ordered {
    /// Puts a history's rows in order; `None` where it has too many or the scratch directory has no room for them.
    pub fn of<R: ChunkReader + 'static>(
        history: &History<R>,
        scratch: &Path,
        progress: &Progress,
    ) -> Result<Option<Ordered>, SourceError> {
        if history.rows() > ORDERED_ROWS {
            return Ok(None);
        }
        let times = history.sorted_times()?;
        progress.made(1);
        let mut rank = vec![u32::MAX; history.rows()];
        for (place, (_, row)) in times.iter().enumerate() {
            rank[*row as usize] = place as u32;
        }
        let count = times.len();
        let marks = times
            .iter()
            .step_by(STRIDE)
            .map(|(time, _)| *time)
            .collect();
        drop(times);
        let signals = history.empty_columns().len();
        let width = 8 + 8 * signals + signals.div_ceil(8);
        let mut ordered = Ordered {
            rows: match width.checked_mul(count) {
                Some(bytes) if bytes <= MEMORY => Rows::Memory(vec![0; bytes]),
                _ => match nameless(scratch) {
                    Ok(file) => Rows::Scratch(file),
                    Err(_) => return Ok(None),
                },
            },
            width,
            count,
            marks,
        };
        let mut row = 0;
        let mut record = vec![0; width];
        for index in 0..history.chunk_count() {
            let chunk = history.load(index)?;
            progress.made(1);
            for at in 0..chunk.times.len() {
                if rank[row] != u32::MAX {
                    encode(&chunk, at, &mut record);
                    if ordered.put(rank[row] as usize, &record).is_err() {
                        return Ok(None);
                    }
                }
                row += 1;
            }
        }
        Ok(Some(ordered))
    }

    /// Appends the rows of a segment, with the times at which they are played.
    pub fn read(
        &self,
        segment: &Segment,
        times: &mut Vec<i64>,
        columns: &mut [Values],
    ) -> io::Result<()> {
        let before = self.marks.partition_point(|mark| *mark < segment.first);
        let mut row = before.saturating_sub(1) * STRIDE;
        while row < self.count {
            let block = self.block(row)?;
            for record in block.chunks_exact(self.width) {
                let time = i64::from_le_bytes(cell(record, 0));
                if time > segment.last {
                    return Ok(());
                }
                if time >= segment.first {
                    times.push(time + segment.shift);
                    decode(record, columns);
                }
            }
            row += STRIDE;
        }
        Ok(())
    }

    /// The first time at or after `from`.
    pub fn next_time(&self, from: i64) -> io::Result<Option<i64>> {
        let before = self.marks.partition_point(|mark| *mark < from);
        let mut row = before.saturating_sub(1) * STRIDE;
        while row < self.count {
            let block = self.block(row)?;
            let mut times = block
                .chunks_exact(self.width)
                .map(|record| i64::from_le_bytes(cell(record, 0)));
            if let Some(time) = times.find(|time| *time >= from) {
                return Ok(Some(time));
            }
            row += STRIDE;
        }
        Ok(None)
    }

    fn put(&mut self, place: usize, record: &[u8]) -> io::Result<()> {
        let at = place * self.width;
        match &mut self.rows {
            Rows::Memory(bytes) => {
                bytes[at..at + self.width].copy_from_slice(record);
                Ok(())
            }
            Rows::Scratch(file) => file.write_all_at(record, at as u64),
        }
    }

    /// The records from `row` on, [`STRIDE`] of them or those that are left.
    fn block(&self, row: usize) -> io::Result<std::borrow::Cow<'_, [u8]>> {
        let (at, length) = (row * self.width, STRIDE.min(self.count - row) * self.width);
        match &self.rows {
            Rows::Memory(bytes) => Ok(bytes[at..at + length].into()),
            Rows::Scratch(file) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, at as u64)?;
                Ok(bytes.into())
            }
        }
    }
}

/// A file in `directory` that nobody can open and that is gone when it is closed.
pub(super) fn nameless(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!(".sorted-{:016x}", fastrand::u64(..)));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// A row as a record: its time, each sample, and a bit for each that is missing.
fn encode(chunk: &Chunk, row: usize, record: &mut [u8]) {
    record.fill(0);
    record[..8].copy_from_slice(&chunk.times[row].to_le_bytes());
    let missing = 8 + 8 * chunk.columns.len();
    for (index, column) in chunk.columns.iter().enumerate() {
        let bits = match column {
            Values::F64(values) => Some(values[row].to_bits()),
            Values::F32(values) => Some(u64::from(values[row].to_bits())),
            Values::I64(values) => values[row].map(i64::cast_unsigned),
            Values::Bool(values) => values[row].map(u64::from),
        };
        match bits {
            Some(bits) => {
                record[8 + 8 * index..16 + 8 * index].copy_from_slice(&bits.to_le_bytes());
            }
            None => record[missing + index / 8] |= 1 << (index % 8),
        }
    }
}

/// Appends a record's samples.
fn decode(record: &[u8], columns: &mut [Values]) {
    let missing = 8 + 8 * columns.len();
    for (index, column) in columns.iter_mut().enumerate() {
        let bits = u64::from_le_bytes(cell(record, 8 + 8 * index));
        let there = record[missing + index / 8] & (1 << (index % 8)) == 0;
        match column {
            Values::F64(values) => values.push(f64::from_bits(bits)),
            Values::F32(values) => values.push(f32::from_bits(bits as u32)),
            Values::I64(values) => values.push(there.then_some(bits.cast_signed())),
            Values::Bool(values) => values.push(there.then_some(bits != 0)),
        }
    }
}

fn cell(record: &[u8], at: usize) -> [u8; 8] {
    let mut cell = [0; 8];
    cell.copy_from_slice(&record[at..at + 8]);
    cell
}
