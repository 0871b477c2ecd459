//! The footer of a Parquet file, one row group at a time.
//!
//! Guarantees: neither the footer's bytes nor what they say is ever held whole, so that a history of ten years opens in the
//! memory of one of a month; what is kept is where each row group's entry lies, 16 bytes, and an entry is read again when its
//! rows are. Statistics are decoded for the columns that need them, and for no other.
//! Deliberately absent: what an entry means. Parquet's own reader decodes it; this finds its first and last byte, for which
//! Thrift's compact protocol need only be skipped.

use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{
    FooterTail, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
    RowGroupMetaData,
};
use parquet::file::reader::ChunkReader;
use parquet::schema::types::SchemaDescPtr;

/// Bytes of the footer that are read at once; below the size from which the allocator keeps what it freed.
const BLOCK: u64 = 64 * 1024;

/// What stands before and after one row group's entry to make a footer of it: version, no rows, a list of one structure.
const BEFORE: [u8; 6] = [0x15, 0x02, 0x26, 0x00, 0x19, 0x1c];
const AFTER: u8 = 0;

/// A reader of row group entries.
pub(super) struct Footer<R> {
    reader: Arc<R>,
    schema: SchemaDescPtr,
    options: ParquetMetaDataOptions,
    /// Where each entry lies in the file.
    entries: Vec<(u64, u32)>,
    scan: Scan<R>,
    /// Entries that `next` has still to visit.
    left: u64,
}

impl<R: ChunkReader> Footer<R> {
    /// Finds the schema and the list of row groups.
    pub fn open(reader: Arc<R>) -> Result<Footer<R>, ParquetError> {
        let length = reader.len();
        let tail = FOOTER_SIZE as u64;
        if length < tail {
            return Err(eof(format!("a file of {length} bytes has no footer")));
        }
        let footer = FooterTail::try_from(&reader.get_bytes(length - tail, FOOTER_SIZE)?[..])?;
        if footer.is_encrypted_footer() {
            return Err(ParquetError::General("its footer is encrypted".to_owned()));
        }
        let start = (length - tail)
            .checked_sub(footer.metadata_length() as u64)
            .ok_or_else(|| {
                eof(format!(
                    "a footer of {} bytes in a file of {length}",
                    footer.metadata_length()
                ))
            })?;
        let mut scan = Scan::new(reader.clone(), start, length - tail);
        let left = scan.find_row_groups()?;
        let mut head = scan.take();
        head.push(AFTER);
        let schema = ParquetMetaDataReader::decode_schema(&head)?;
        Ok(Footer {
            reader,
            options: options(&schema, &[]),
            schema,
            entries: Vec::new(),
            scan,
            left,
        })
    }

    pub fn schema(&self) -> &SchemaDescPtr {
        &self.schema
    }

    /// Decodes the statistics of these columns from now on.
    pub fn keep_statistics(&mut self, columns: &[usize]) {
        self.options = options(&self.schema, columns);
    }

    /// The next row group's entry, each once in the file's order; `None` after the last.
    pub fn next(&mut self) -> Result<Option<RowGroupMetaData>, ParquetError> {
        if self.left == 0 {
            return Ok(None);
        }
        let start = self.scan.position();
        self.scan.skip_structure(0)?;
        let entry = self.scan.take();
        self.left -= 1;
        if self.left == 0 {
            self.scan.block = Bytes::new();
        }
        let length = u32::try_from(entry.len())
            .map_err(|_| ParquetError::General("a row group's entry is over 4 GB".to_owned()))?;
        self.entries.push((start, length));
        self.decode(&entry).map(Some)
    }

    /// The entry of a row group that `next` has visited.
    pub fn entry(&self, group: usize) -> Result<RowGroupMetaData, ParquetError> {
        let (start, length) = self.entries[group];
        self.decode(&self.reader.get_bytes(start, length as usize)?)
    }

    fn decode(&self, entry: &[u8]) -> Result<RowGroupMetaData, ParquetError> {
        let footer = [&BEFORE[..], entry, &[AFTER]].concat();
        let decoded =
            ParquetMetaDataReader::decode_metadata_with_options(&footer, Some(&self.options))?;
        decoded
            .into_builder()
            .take_row_groups()
            .pop()
            .ok_or_else(|| eof("a row group's entry is empty".to_owned()))
    }
}

fn options(schema: &SchemaDescPtr, statistics: &[usize]) -> ParquetMetaDataOptions {
    ParquetMetaDataOptions::new()
        .with_schema(schema.clone())
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_column_stats_policy(ParquetStatisticsPolicy::skip_except(statistics))
}

/// Walks over a part of a file in Thrift's compact protocol, and records what it walked over.
struct Scan<R> {
    reader: Arc<R>,
    next: u64,
    end: u64,
    block: Bytes,
    at: usize,
    taken: Vec<u8>,
}

// Types of the protocol that differ in how they are skipped.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCTURE: u8 = 12;
/// Structures within structures; Parquet's own nest a handful.
const DEPTH: usize = 32;
/// Field of the list of row groups in the footer.
const ROW_GROUPS: i64 = 4;

impl<R: ChunkReader> Scan<R> {
    fn new(reader: Arc<R>, start: u64, end: u64) -> Scan<R> {
        Scan {
            reader,
            next: start,
            end,
            block: Bytes::new(),
            at: 0,
            taken: Vec::new(),
        }
    }

    /// Where in the file the next byte lies.
    fn position(&self) -> u64 {
        self.next - (self.block.len() - self.at) as u64
    }

    /// What was walked over since the last call.
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.taken)
    }

    /// Walks up to the first row group and returns how many there are; what is taken ends before the field.
    fn find_row_groups(&mut self) -> Result<u64, ParquetError> {
        let mut field = 0;
        loop {
            let before = self.taken.len();
            let Some(kind) = self.field(&mut field)? else {
                return Err(eof("the footer lists no row groups".to_owned()));
            };
            if field != ROW_GROUPS {
                self.skip(kind, 0)?;
                continue;
            }
            let (count, element) = match kind {
                LIST => self.list()?,
                _ => (0, 0),
            };
            if count > 0 && element != STRUCTURE {
                return Err(unknown(element));
            }
            self.taken.truncate(before);
            return Ok(count);
        }
    }

    fn skip_structure(&mut self, depth: usize) -> Result<(), ParquetError> {
        if depth > DEPTH {
            return Err(ParquetError::General(
                "the footer nests too deeply".to_owned(),
            ));
        }
        let mut field = 0;
        while let Some(kind) = self.field(&mut field)? {
            self.skip(kind, depth)?;
        }
        Ok(())
    }

    /// The type of the next field, whose number goes to `field`; `None` at the structure's end.
    fn field(&mut self, field: &mut i64) -> Result<Option<u8>, ParquetError> {
        let head = self.byte()?;
        let kind = head & 0x0f;
        if kind == 0 {
            return Ok(None);
        }
        *field = match head >> 4 {
            0 => {
                let zigzag = self.varint()?;
                (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
            }
            step => field.saturating_add(i64::from(step)),
        };
        Ok(Some(kind))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), ParquetError> {
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.bytes(1),
            I16 | I32 | I64 => self.varint().map(|_| ()),
            DOUBLE => self.bytes(8),
            BINARY => {
                let length = self.varint()?;
                self.bytes(length)
            }
            LIST | SET => {
                let (count, element) = self.list()?;
                (0..count).try_for_each(|_| self.element(element, depth))
            }
            MAP => {
                let count = self.varint()?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                (0..count).try_for_each(|_| {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 0x0f, depth)
                })
            }
            STRUCTURE => self.skip_structure(depth + 1),
            other => Err(unknown(other)),
        }
    }

    /// One element of a list or map, where even a boolean has a byte.
    fn element(&mut self, kind: u8, depth: usize) -> Result<(), ParquetError> {
        match kind {
            TRUE | FALSE => self.bytes(1),
            LIST | SET | MAP if depth >= DEPTH => Err(ParquetError::General(
                "the footer nests too deeply".to_owned(),
            )),
            LIST | SET | MAP => self.skip(kind, depth + 1),
            kind => self.skip(kind, depth),
        }
    }

    /// Size and element type of a list.
    fn list(&mut self) -> Result<(u64, u8), ParquetError> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        Ok((count, head & 0x0f))
    }

    fn varint(&mut self) -> Result<u64, ParquetError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ParquetError::General(
            "a number in the footer is too long".to_owned(),
        ))
    }

    fn byte(&mut self) -> Result<u8, ParquetError> {
        self.fill()?;
        let byte = self.block[self.at];
        self.at += 1;
        self.taken.push(byte);
        Ok(byte)
    }

    fn bytes(&mut self, mut count: u64) -> Result<(), ParquetError> {
        while count > 0 {
            self.fill()?;
            let rest = &self.block[self.at..];
            let step = rest.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            self.taken.extend_from_slice(&rest[..step]);
            self.at += step;
            count -= step as u64;
        }
        Ok(())
    }

    /// Makes sure that a byte can be had.
    fn fill(&mut self) -> Result<(), ParquetError> {
        if self.at < self.block.len() {
            return Ok(());
        }
        let length = BLOCK.min(self.end - self.next);
        if length == 0 {
            return Err(eof("the footer ends too early".to_owned()));
        }
        self.block = self.reader.get_bytes(self.next, length as usize)?;
        self.at = 0;
        self.next += length;
        if self.block.is_empty() {
            return Err(eof("the footer ends too early".to_owned()));
        }
        Ok(())
    }
}

fn eof(problem: String) -> ParquetError {
    ParquetError::EOF(problem)
}

fn unknown(kind: u8) -> ParquetError {
    ParquetError::General(format!("the footer has a field of the unknown type {kind}"))
}
