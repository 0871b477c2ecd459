//! The pages of one column chunk, each looked at before Parquet's own reader decodes it.
//!
//! Guarantees: where a chunk lies, and what the header of a page claims, is held against the bytes that there are, the rows of
//! the row group and the pages before it; Parquet's reader believes some of it, and panics or takes memory accordingly. A page
//! that is skipped is not read, and a dictionary only where a page needs it.
//! Deliberately absent: decompression and decoding, which are left to Parquet's reader; nested columns.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes, buf};
use parquet::basic::{Compression, Encoding, Type as Physical};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

use super::compact::{FALSE, I32, STRUCTURE, Scan, TRUE, eof};

/// Bytes that are read for a page's header; more where it is longer.
const HEADER: u64 = 512;
/// The most bytes of a page, decompressed. One is 1 MB as Arrow and Spark write it, and a whole column where fastparquet does.
const MOST_PAGE_BYTES: i64 = 512 << 20;

/// A reader of one chunk's pages, in order.
pub(super) struct Pages<R: ChunkReader> {
    reader: Arc<R>,
    next: u64,
    end: u64,
    /// Rows that no page has held yet.
    left: u64,
    /// Bytes of one value; `None` for booleans, eight to a byte.
    width: Option<u64>,
    nullable: bool,
    compression: Compression,
    /// The header of the next page, once it was looked at.
    ahead: Option<Header>,
    dictionary: Dictionary,
    desk: Arc<Desk>,
    decoder: SerializedPageReader<Desk>,
}

enum Dictionary {
    Absent,
    /// Skipped; it is read when a page needs it.
    Skipped(Header),
    Read,
}

/// What a page's header says, checked.
#[derive(Clone, Copy)]
struct Header {
    kind: PageKind,
    /// Where the header begins.
    start: u64,
    /// Bytes of header and page.
    length: u64,
    values: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PageKind {
    Data,
    DataV2,
    Dictionary,
    Other,
}

impl<R: ChunkReader> Pages<R> {
    /// The pages of `chunk`, in a row group of `rows` rows.
    pub fn of(
        reader: Arc<R>,
        chunk: &ColumnChunkMetaData,
        rows: u64,
    ) -> Result<Pages<R>, ParquetError> {
        let data = chunk.data_page_offset();
        // Some writers put a dictionary's offset where there is none: 0, or beyond the first page.
        let start = chunk
            .dictionary_page_offset()
            .filter(|offset| (1..data).contains(offset))
            .unwrap_or(data);
        let length = chunk.compressed_size();
        let (start, end) = u64::try_from(start)
            .ok()
            .zip(u64::try_from(length).ok())
            .and_then(|(start, length)| Some((start, start.checked_add(length)?)))
            .filter(|(_, end)| *end <= reader.len())
            .ok_or_else(|| {
                eof(format!(
                    "the footer says that it has {length} bytes from offset {start}, in a file of {}",
                    reader.len()
                ))
            })?;
        let desk = Arc::new(Desk::default());
        // The decoder sees one page after the other from an offset of its own, and never the end.
        let seen = chunk
            .clone()
            .into_builder()
            .set_dictionary_page_offset(None)
            .set_data_page_offset(0)
            .set_total_compressed_size(i64::MAX)
            .build()?;
        Ok(Pages {
            reader,
            next: start,
            end,
            left: rows,
            width: match chunk.column_type() {
                Physical::INT32 | Physical::FLOAT => Some(4),
                Physical::INT64 | Physical::DOUBLE => Some(8),
                Physical::INT96 => Some(12),
                Physical::FIXED_LEN_BYTE_ARRAY => {
                    u64::try_from(chunk.column_descr().type_length()).ok()
                }
                // The length of each.
                Physical::BYTE_ARRAY => Some(4),
                Physical::BOOLEAN => None,
            },
            nullable: chunk.column_descr().max_def_level() > 0,
            compression: chunk.compression(),
            ahead: None,
            dictionary: Dictionary::Absent,
            decoder: SerializedPageReader::new(desk.clone(), &seen, 0, None)?,
            desk,
        })
    }

    /// The header of the next page; `None` after the last.
    fn look(&mut self) -> Result<Option<Header>, ParquetError> {
        while self.ahead.is_none() && self.next < self.end {
            let header = self.read_header()?;
            if header.kind == PageKind::Other {
                self.next += header.length;
                continue;
            }
            if header.kind == PageKind::Dictionary {
                if !matches!(self.dictionary, Dictionary::Absent) {
                    return Err(problem("it has two dictionaries"));
                }
            } else if header.values > self.left {
                return Err(ParquetError::General(format!(
                    "a page claims {} rows, where its row group has {} left",
                    header.values, self.left
                )));
            }
            self.ahead = Some(header);
        }
        Ok(self.ahead)
    }

    /// The next page, left behind.
    fn pass(&mut self) -> Result<Option<Header>, ParquetError> {
        let Some(header) = self.look()? else {
            return Ok(None);
        };
        self.ahead = None;
        self.next += header.length;
        if header.kind != PageKind::Dictionary {
            self.left -= header.values;
        }
        Ok(Some(header))
    }

    fn read_header(&self) -> Result<Header, ParquetError> {
        let (reader, start) = (self.reader.clone(), self.next);
        let mut scan = Scan::new(reader, "the header of a page", start, self.end, HEADER);
        let claims = Claims::read(&mut scan)?;
        let body = scan.position();
        let room = self.end - body;
        let compressed = u64::try_from(claims.compressed)
            .ok()
            .filter(|compressed| *compressed <= room)
            .ok_or_else(|| {
                eof(format!(
                    "a page claims {} bytes, where {room} are left",
                    claims.compressed
                ))
            })?;
        claims.check_size(self.compression)?;
        Ok(Header {
            kind: claims.kind,
            start,
            length: body - start + compressed,
            values: claims.values()?,
        })
    }

    fn decode(&mut self, header: Header) -> Result<Page, ParquetError> {
        let length = usize::try_from(header.length)
            .map_err(|_| problem("a page is larger than this machine's memory"))?;
        self.desk.lay(self.reader.get_bytes(header.start, length)?);
        let page = self
            .decoder
            .get_next_page()?
            .ok_or_else(|| problem("a page is empty"))?;
        self.check(&page)?;
        Ok(page)
    }

    /// What Parquet's reader takes for granted of a decompressed page.
    fn check(&self, page: &Page) -> Result<(), ParquetError> {
        let (values, have) = (u64::from(page.num_values()), page.buffer().len() as u64);
        let fits = match page {
            Page::DictionaryPage { .. } => self
                .width
                .is_some_and(|width| values.saturating_mul(width) <= have),
            Page::DataPage {
                def_level_encoding, ..
            } => {
                // The levels of a column that is not nested are one bit each; those that are not packed have a length.
                !self.nullable || *def_level_encoding == Encoding::RLE || values.div_ceil(8) <= have
            }
            Page::DataPageV2 {
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len) <= have,
        };
        if !fits {
            return Err(eof(format!(
                "a page claims {values} values, which its {have} bytes cannot hold"
            )));
        }
        let by_dictionary = matches!(
            page.encoding(),
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY
        );
        if page.is_data_page() && by_dictionary && matches!(self.dictionary, Dictionary::Absent) {
            return Err(problem("a page needs a dictionary, and there is none"));
        }
        Ok(())
    }
}

impl<R: ChunkReader> PageReader for Pages<R> {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let Some(header) = self.pass()? else {
            return Ok(None);
        };
        if header.kind == PageKind::Dictionary {
            self.dictionary = Dictionary::Read;
        }
        self.decode(header).map(Some)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        Ok(self.look()?.map(|header| {
            let rows = Some(header.values as usize);
            let is_dict = header.kind == PageKind::Dictionary;
            PageMetadata {
                num_rows: rows.filter(|_| !is_dict),
                num_levels: rows.filter(|_| !is_dict),
                is_dict,
            }
        }))
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        if let Some(header) = self.pass()?
            && header.kind == PageKind::Dictionary
        {
            self.dictionary = Dictionary::Skipped(header);
        }
        Ok(())
    }

    fn supports_deferred_dictionary(&self) -> bool {
        true
    }

    fn take_deferred_dictionary(&mut self) -> Result<Option<Page>, ParquetError> {
        let Dictionary::Skipped(header) = self.dictionary else {
            return Ok(None);
        };
        self.dictionary = Dictionary::Read;
        self.decode(header).map(Some)
    }
}

impl<R: ChunkReader> Iterator for Pages<R> {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// What a page's header says, as it says it.
struct Claims {
    kind: PageKind,
    uncompressed: i64,
    compressed: i64,
    values: Option<i64>,
    nulls: i64,
    rows: Option<i64>,
    levels: i64,
}

impl Claims {
    fn read<R: ChunkReader>(scan: &mut Scan<R>) -> Result<Claims, ParquetError> {
        let [mut kind, mut uncompressed, mut compressed] = [None; 3];
        let (mut data, mut dictionary, mut data_v2) = ([None; 9], [None; 9], [None; 9]);
        let mut field = 0;
        while let Some(wire) = scan.field(&mut field)? {
            match (field, wire) {
                (1, I32) => kind = Some(scan.number()?),
                (2, I32) => uncompressed = Some(scan.number()?),
                (3, I32) => compressed = Some(scan.number()?),
                (5, STRUCTURE) => data = numbers(scan)?,
                (7, STRUCTURE) => dictionary = numbers(scan)?,
                (8, STRUCTURE) => data_v2 = numbers(scan)?,
                _ => scan.skip(wire, 0)?,
            }
        }
        let (kind, [values, nulls, rows]) = match kind {
            Some(0) => (PageKind::Data, [data[1], None, data[1]]),
            Some(2) => (PageKind::Dictionary, [dictionary[1], None, dictionary[1]]),
            Some(3) => (PageKind::DataV2, [data_v2[1], data_v2[2], data_v2[3]]),
            // Pages of an index, of which Parquet's own reader makes nothing either.
            Some(1) => (PageKind::Other, [Some(0), None, Some(0)]),
            _ => return Err(problem("the header of a page has no type that is known")),
        };
        let size =
            |size: Option<i64>| size.ok_or_else(|| problem("the header of a page has no size"));
        Ok(Claims {
            kind,
            uncompressed: size(uncompressed)?,
            compressed: size(compressed)?,
            values,
            nulls: nulls.unwrap_or_default(),
            rows,
            levels: data_v2[5]
                .unwrap_or_default()
                .saturating_add(data_v2[6].unwrap_or_default()),
        })
    }

    /// The values of the page, nulls too. Of a column that is not nested, a row has one.
    fn values(&self) -> Result<u64, ParquetError> {
        self.values
            .filter(|values| self.rows == self.values && (0..=*values).contains(&self.nulls))
            .and_then(|values| u64::try_from(values).ok())
            .ok_or_else(|| {
                ParquetError::General(format!(
                    "a page claims {} values, of which {} nulls, in {} rows",
                    self.values.unwrap_or(-1),
                    self.nulls,
                    self.rows.unwrap_or(-1)
                ))
            })
    }

    fn check_size(&self, compression: Compression) -> Result<(), ParquetError> {
        // The most that a byte can stand for, where the decoder takes the memory before it looks.
        let most = match compression {
            Compression::UNCOMPRESSED => MOST_PAGE_BYTES,
            Compression::SNAPPY => self.compressed.saturating_mul(32),
            Compression::LZ4 | Compression::LZ4_RAW => self.compressed.saturating_mul(256),
            _ => MOST_PAGE_BYTES,
        };
        if self.uncompressed > MOST_PAGE_BYTES {
            return Err(ParquetError::General(format!(
                "a page has {} bytes, at most {MOST_PAGE_BYTES} are read; write the file with smaller pages, 1 MB is usual",
                self.uncompressed
            )));
        }
        if self.uncompressed < 0 || self.uncompressed > most || self.levels > self.uncompressed {
            return Err(eof(format!(
                "a page of {} bytes claims to be {} when decompressed, {} of them levels",
                self.compressed, self.uncompressed, self.levels
            )));
        }
        Ok(())
    }
}

/// The numbers of a structure by field, the first eight.
fn numbers<R: ChunkReader>(scan: &mut Scan<R>) -> Result<[Option<i64>; 9], ParquetError> {
    let mut found = [None; 9];
    let mut field = 0;
    while let Some(wire) = scan.field(&mut field)? {
        match (
            usize::try_from(field).ok().and_then(|at| found.get_mut(at)),
            wire,
        ) {
            (Some(number), I32) => *number = Some(scan.number()?),
            (_, TRUE | FALSE) => {}
            _ => scan.skip(wire, 1)?,
        }
    }
    Ok(found)
}

fn problem(text: &str) -> ParquetError {
    ParquetError::General(text.to_owned())
}

/// Where a page lies for the decoder, which counts its offset from the first page it was given.
#[derive(Default)]
struct Desk(Mutex<(u64, Bytes)>);

impl Desk {
    fn lay(&self, page: Bytes) {
        let mut desk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        desk.0 += desk.1.len() as u64;
        desk.1 = page;
    }

    fn from(&self, offset: u64) -> Option<Bytes> {
        let desk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = usize::try_from(offset.checked_sub(desk.0)?).ok()?;
        (skipped <= desk.1.len()).then(|| desk.1.slice(skipped..))
    }
}

impl Length for Desk {
    fn len(&self) -> u64 {
        i64::MAX as u64
    }
}

impl ChunkReader for Desk {
    type T = buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let page = self.from(start).ok_or_else(|| problem("no page is here"))?;
        Ok(page.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.from(start)
            .filter(|page| length <= page.len())
            .map(|page| page.slice(..length))
            .ok_or_else(|| problem("no page is here"))
    }
}
