//! Thrift's compact protocol, in which Parquet's footer and page headers are written, as far as it must be walked over.
//!
//! Guarantees: only the bytes of the given range are read, a block at a time; what was walked over can be taken, to be decoded
//! by Parquet's own reader. Counts that the bytes claim cost nothing: every element is at least one byte of the file.
//! Deliberately absent: what a structure means.

use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;

/// A walk over a part of a file.
pub(super) struct Scan<R> {
    reader: Arc<R>,
    /// What is walked over, for errors.
    what: &'static str,
    next: u64,
    end: u64,
    /// Bytes that are read at once.
    step: u64,
    block: Bytes,
    at: usize,
    taken: Vec<u8>,
}

// Types of the protocol that differ in how they are skipped.
pub(super) const TRUE: u8 = 1;
pub(super) const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
pub(super) const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
pub(super) const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
pub(super) const STRUCTURE: u8 = 12;
/// Structures within structures; Parquet's own nest a handful.
const DEPTH: usize = 32;

impl<R: ChunkReader> Scan<R> {
    /// Walks from `start` to `end`, which lie in the file.
    pub fn new(reader: Arc<R>, what: &'static str, start: u64, end: u64, step: u64) -> Scan<R> {
        Scan {
            reader,
            what,
            next: start,
            end,
            step,
            block: Bytes::new(),
            at: 0,
            taken: Vec::new(),
        }
    }

    /// Where in the file the next byte lies.
    pub fn position(&self) -> u64 {
        self.next - (self.block.len() - self.at) as u64
    }

    /// What was walked over since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.taken)
    }

    /// Length of what was walked over since the last [`Scan::take`].
    pub fn walked(&self) -> usize {
        self.taken.len()
    }

    /// Forgets what was walked over beyond the first `length` bytes.
    pub fn untake(&mut self, length: usize) {
        self.taken.truncate(length);
    }

    /// Gives the memory back; the walk is over.
    pub fn forget(&mut self) {
        self.block = Bytes::new();
        self.at = 0;
        self.next = self.end;
    }

    /// Walks over a structure to its end.
    pub fn skip_structure(&mut self, depth: usize) -> Result<(), ParquetError> {
        if depth > DEPTH {
            return Err(self.problem("nests too deeply"));
        }
        let mut field = 0;
        while let Some(kind) = self.field(&mut field)? {
            self.skip(kind, depth)?;
        }
        Ok(())
    }

    /// The type of the next field, whose number goes to `field`; `None` at the structure's end.
    pub fn field(&mut self, field: &mut i64) -> Result<Option<u8>, ParquetError> {
        let head = self.byte()?;
        let kind = head & 0x0f;
        if kind == 0 {
            return Ok(None);
        }
        *field = match head >> 4 {
            0 => self.number()?,
            step => field.saturating_add(i64::from(step)),
        };
        Ok(Some(kind))
    }

    pub fn skip(&mut self, kind: u8, depth: usize) -> Result<(), ParquetError> {
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
            other => Err(self.unknown(other)),
        }
    }

    /// One element of a list or map, where even a boolean has a byte.
    fn element(&mut self, kind: u8, depth: usize) -> Result<(), ParquetError> {
        match kind {
            TRUE | FALSE => self.bytes(1),
            LIST | SET | MAP if depth >= DEPTH => Err(self.problem("nests too deeply")),
            LIST | SET | MAP => self.skip(kind, depth + 1),
            kind => self.skip(kind, depth),
        }
    }

    /// Size and element type of a list.
    pub fn list(&mut self) -> Result<(u64, u8), ParquetError> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        Ok((count, head & 0x0f))
    }

    pub fn varint(&mut self) -> Result<u64, ParquetError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.problem("has a number that is too long"))
    }

    /// A signed number.
    pub fn number(&mut self) -> Result<i64, ParquetError> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
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
        let length = self.step.min(self.end - self.next);
        if length == 0 {
            return Err(eof(format!("{} ends too early", self.what)));
        }
        self.block = self.reader.get_bytes(self.next, length as usize)?;
        self.at = 0;
        self.next += length;
        if self.block.is_empty() {
            return Err(eof(format!("{} ends too early", self.what)));
        }
        Ok(())
    }

    /// The error of a type that the protocol does not have.
    pub fn unknown(&self, kind: u8) -> ParquetError {
        self.problem(&format!("has a field of the unknown type {kind}"))
    }

    fn problem(&self, problem: &str) -> ParquetError {
        ParquetError::General(format!("{} {problem}", self.what))
    }
}

/// The error of a file that is shorter than it says.
pub(super) fn eof(problem: String) -> ParquetError {
    ParquetError::EOF(problem)
}
