//! The footer of a Parquet file, one row group at a time.
//!
//! Guarantees: neither the footer's bytes nor what they say is ever held whole, so that a history of ten years opens in the
//! memory of one of a month; what is kept is where each row group's entry lies, 16 bytes, and an entry is read again when its
//! rows are. Statistics are decoded for the columns that need them, and for no other.
//! Deliberately absent: what an entry means. Parquet's own reader decodes it; this finds its first and last byte.

use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{
    FooterTail, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
    RowGroupMetaData,
};
use parquet::file::reader::ChunkReader;
use parquet::schema::types::SchemaDescPtr;

use super::compact::{LIST, STRUCTURE, Scan, eof};
use super::contain::contained;
use crate::records::{self, RecordError};

/// Bytes of the footer that are read at once; below the size from which the allocator keeps what it freed.
const BLOCK: u64 = 64 * 1024;

/// What stands before and after one row group's entry to make a footer of it: version, no rows, a list of one structure.
const BEFORE: [u8; 6] = [0x15, 0x02, 0x26, 0x00, 0x19, 0x1c];
const AFTER: u8 = 0;
/// Field of the list of row groups in the footer.
const ROW_GROUPS: i64 = 4;

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
    /// Finds the schema and the list of row groups; what is none, and known for what it is, is refused by that.
    pub fn open(reader: Arc<R>) -> Result<Footer<R>, ParquetError> {
        Self::find(reader.clone()).map_err(|error| match error {
            ParquetError::External(_) => error,
            error => format_of(&*reader).unwrap_or(error),
        })
    }

    fn find(reader: Arc<R>) -> Result<Footer<R>, ParquetError> {
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
        let mut scan = Scan::new(reader.clone(), "the footer", start, length - tail, BLOCK);
        let left = find_row_groups(&mut scan)?;
        let mut head = scan.take();
        head.push(AFTER);
        let schema = contained(|| ParquetMetaDataReader::decode_schema(&head))?;
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
            self.scan.forget();
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
        let decoded = contained(|| {
            ParquetMetaDataReader::decode_metadata_with_options(&footer, Some(&self.options))
        })?;
        decoded
            .into_builder()
            .take_row_groups()
            .pop()
            .ok_or_else(|| eof("a row group's entry is empty".to_owned()))
    }
}

/// What a file is that begins as another format does.
fn format_of<R: ChunkReader>(reader: &R) -> Option<ParquetError> {
    let head = reader.get_bytes(0, 4.min(reader.len() as usize)).ok()?;
    let format = records::format_of(&head).filter(|_| head[..] != *b"PAR1")?;
    Some(ParquetError::General(
        RecordError::Format(format).to_string(),
    ))
}

fn options(schema: &SchemaDescPtr, statistics: &[usize]) -> ParquetMetaDataOptions {
    ParquetMetaDataOptions::new()
        .with_schema(schema.clone())
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_column_stats_policy(ParquetStatisticsPolicy::skip_except(statistics))
}

/// Walks up to the first row group and returns how many there are; what is taken ends before the field.
fn find_row_groups<R: ChunkReader>(scan: &mut Scan<R>) -> Result<u64, ParquetError> {
    let mut field = 0;
    loop {
        let before = scan.walked();
        let Some(kind) = scan.field(&mut field)? else {
            return Err(eof("the footer lists no row groups".to_owned()));
        };
        if field != ROW_GROUPS {
            scan.skip(kind, 0)?;
            continue;
        }
        let (count, element) = match kind {
            LIST => scan.list()?,
            _ => (0, 0),
        };
        if count > 0 && element != STRUCTURE {
            return Err(scan.unknown(element));
        }
        scan.untake(before);
        return Ok(count);
    }
}
