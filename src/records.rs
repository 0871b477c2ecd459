//! The records of a CSV: how every file of rows, labels or tags is read.
//!
//! Guarantees: commas, quotes as in RFC 4180, lines that end in LF, CRLF or CR, a byte order mark and blank lines are
//! taken; each record knows the line it begins in; what is no CSV in UTF-8 is refused by what it is. One bad record costs
//! itself and nothing else: a quote that is not closed ends where the next row begins, as far as the reader was told what
//! a row looks like. Memory is one record, and a record has a bound. Deliberately not here: what cells mean.

use std::io::Read;
use std::ops::Range;

/// The longest record in bytes: a header of 3,000 names of 200 characters fits, a file without line ends does not.
pub const MOST_BYTES: usize = 1 << 20;
/// Bytes asked for at once.
const CHUNK: usize = 1 << 16;

/// Why no further record can be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The bytes cannot be had.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// Not a text in UTF-8.
    #[error("{0}: save it as CSV in UTF-8")]
    Format(&'static str),
    /// A record without an end.
    #[error("the record that begins in line {line} has more than {MOST_BYTES} bytes: {cause}")]
    TooLong {
        /// Its first line.
        line: u64,
        /// What that usually comes from.
        cause: &'static str,
    },
}

/// What is wrong with one record; the next can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A quote is open when the next row begins or the file ends.
    #[error("a quote is not closed")]
    Unclosed,
    /// A cell goes on after its closing quote.
    #[error("there is text after a closing quote")]
    AfterQuote,
}

/// What a row looks like: its cells, at least, and whether a text is its first cell.
type RowShape = (usize, fn(&[u8]) -> bool);

/// Reads records one by one.
pub struct Records<R> {
    input: R,
    ended: bool,
    /// What was read and is not yet part of a finished record begins at `from`.
    raw: Vec<u8>,
    from: usize,
    /// A line feed that comes next belongs to the carriage return before it.
    after_return: bool,
    line: u64,
    next_line: u64,
    row: Option<RowShape>,
    cells: Vec<u8>,
    ends: Vec<usize>,
    broken: Option<Broken>,
    /// A cell of the record goes over more than one line.
    spans: bool,
    /// The record has its line end.
    complete: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    CellStart,
    Plain,
    Quoted,
    /// After a quote within quotes: the cell's end, or the first half of a doubled quote.
    Closing,
}

impl<R: Read> Records<R> {
    /// Looks at the first bytes: a byte order mark is skipped, what is no text is refused.
    pub fn open(input: R) -> Result<Records<R>, RecordError> {
        let mut records = Records {
            input,
            ended: false,
            raw: Vec::new(),
            from: 0,
            after_return: false,
            line: 0,
            next_line: 1,
            row: None,
            cells: Vec::new(),
            ends: Vec::new(),
            broken: None,
            spans: false,
            complete: false,
        };
        while records.raw.len() < 4 && records.fill()? {}
        if let Some(format) = format_of(&records.raw) {
            return Err(RecordError::Format(format));
        }
        if records.raw.starts_with(b"\xef\xbb\xbf") {
            records.from = 3;
        }
        Ok(records)
    }

    /// Says what a row looks like, so that a quote that is not closed costs one row: a line within quotes that has at least
    /// `cells` cells, of which `is_first` knows the first, is no text but the next row.
    pub fn rows_look_like(&mut self, cells: usize, is_first: fn(&[u8]) -> bool) {
        self.row = Some((cells, is_first));
    }

    /// Reads the next record that is no blank line; false at the end.
    pub fn read(&mut self) -> Result<bool, RecordError> {
        loop {
            if !self.read_any()? {
                return Ok(false);
            }
            let blank = self.ends.len() == 1 && self.cells.trim_ascii().is_empty();
            if !blank || self.broken.is_some() {
                return Ok(true);
            }
        }
    }

    /// Whether the record that was read last has its line end: without one, more of it may come.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    fn read_any(&mut self) -> Result<bool, RecordError> {
        self.cells.clear();
        self.ends.clear();
        (self.broken, self.spans) = (None, false);
        self.complete = true;
        if std::mem::take(&mut self.after_return) && self.byte(0)? == Some(b'\n') {
            self.from += 1;
        }
        self.line = self.next_line;
        if self.byte(0)?.is_none() {
            return Ok(false);
        }
        let (mut at, mut state) = (0, State::CellStart);
        loop {
            let Some(byte) = self.byte(at)? else {
                if state == State::Quoted {
                    self.broken = Some(Broken::Unclosed);
                }
                self.complete = false;
                break;
            };
            match (state, byte) {
                (State::Quoted, b'"') => (state, at) = (State::Closing, at + 1),
                (State::Quoted, b'\n' | b'\r') => {
                    at = self.line_end_in_quotes(at)?;
                    if self.is_row(at)? {
                        self.broken = Some(Broken::Unclosed);
                        break;
                    }
                }
                (State::Quoted, _) => {
                    at = self.take(at, |byte| matches!(byte, b'"' | b'\n' | b'\r'))
                }
                (State::Closing, b'"') => {
                    self.cells.push(b'"');
                    (state, at) = (State::Quoted, at + 1);
                }
                (State::CellStart, b'"') => (state, at) = (State::Quoted, at + 1),
                (_, b',') => {
                    self.ends.push(self.cells.len());
                    (state, at) = (State::CellStart, at + 1);
                }
                (_, b'\n' | b'\r') => {
                    self.after_return = byte == b'\r';
                    self.next_line += 1;
                    at += 1;
                    break;
                }
                (State::Closing, b' ' | b'\t') => at += 1,
                (State::Closing, _) => {
                    self.broken = Some(Broken::AfterQuote);
                    state = State::Plain;
                }
                (State::CellStart | State::Plain, _) => {
                    at = self.take(at, |byte| matches!(byte, b',' | b'\n' | b'\r'));
                    state = State::Plain;
                }
            }
        }
        self.ends.push(self.cells.len());
        self.from += at;
        Ok(true)
    }

    /// The byte `at` after the record's start, if there is one.
    #[inline]
    fn byte(&mut self, at: usize) -> Result<Option<u8>, RecordError> {
        loop {
            if let Some(byte) = self.raw.get(self.from + at) {
                return Ok(Some(*byte));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Puts the bytes from `at` up to one that ends the run into the cell; returns where that one is.
    #[inline]
    fn take(&mut self, at: usize, ends: impl Fn(u8) -> bool) -> usize {
        let rest = &self.raw[self.from + at..];
        let run = rest
            .iter()
            .position(|byte| ends(*byte))
            .unwrap_or(rest.len());
        self.cells.extend_from_slice(&rest[..run]);
        at + run
    }

    /// Takes a line end that is part of a cell.
    fn line_end_in_quotes(&mut self, at: usize) -> Result<usize, RecordError> {
        let both = self.byte(at)? == Some(b'\r') && self.byte(at + 1)? == Some(b'\n');
        let end = at + 1 + usize::from(both);
        self.cells
            .extend_from_slice(&self.raw[self.from + at..self.from + end]);
        self.next_line += 1;
        self.spans = true;
        Ok(end)
    }

    /// Whether the line that begins `at` after the record's start is a row.
    fn is_row(&mut self, at: usize) -> Result<bool, RecordError> {
        let Some((cells, is_first)) = self.row else {
            return Ok(false);
        };
        let mut length = 0;
        while self
            .byte(at + length)?
            .is_some_and(|byte| !matches!(byte, b'\n' | b'\r'))
        {
            length += 1;
        }
        let line = &self.raw[self.from + at..self.from + at + length];
        let first = line.split(|byte| *byte == b',').next().unwrap_or_default();
        let found = 1 + line.iter().filter(|byte| **byte == b',').count();
        Ok(found >= cells && is_first(unquoted(first.trim_ascii())))
    }

    /// Reads on; false at the end.
    fn fill(&mut self) -> Result<bool, RecordError> {
        if self.ended {
            return Ok(false);
        }
        self.raw.drain(..self.from);
        self.from = 0;
        if self.raw.len() > MOST_BYTES {
            let quoted = self.spans || self.raw.contains(&b'"');
            let cause = if quoted {
                "a quote is not closed"
            } else {
                "there is no line end"
            };
            let line = self.line.max(1);
            return Err(RecordError::TooLong { line, cause });
        }
        let filled = self.raw.len();
        self.raw.resize(filled + CHUNK, 0);
        let read = loop {
            match self.input.read(&mut self.raw[filled..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.raw.truncate(filled + *read.as_ref().unwrap_or(&0));
        self.ended = read? == 0;
        Ok(!self.ended)
    }
}

impl<R> Records<R> {
    /// The line that the record begins in, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The number of cells.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no record was read.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// A cell, without its quotes.
    pub fn get(&self, cell: usize) -> Option<&[u8]> {
        Some(&self.cells[self.range(cell)?])
    }

    /// The cells in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|cell| self.get(cell))
    }

    /// The record as a person would see it, shortened.
    pub fn shown(&self) -> String {
        let cells: Vec<_> = self.iter().map(String::from_utf8_lossy).collect();
        shortened(&cells.join(","))
    }

    /// What is wrong with the record.
    pub fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// Whether a cell of the record goes over more than one line.
    pub fn spans_lines(&self) -> bool {
        self.spans
    }

    /// Whether bytes follow the record that were read with it.
    pub fn has_more(&self) -> bool {
        self.from < self.raw.len()
    }

    fn range(&self, cell: usize) -> Option<Range<usize>> {
        let end = *self.ends.get(cell)?;
        let start = cell.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(start..end)
    }
}

/// A text in an error: one line, no control characters, 80 of its characters.
pub fn shortened(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(80)
        .collect();
    if text.chars().nth(80).is_some() {
        shown.push_str("...");
    }
    shown
}

/// What bytes are that are no text in UTF-8.
pub fn format_of(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("the file is UTF-16"),
        [0, _, ..] | [_, 0, ..] => Some("the file is UTF-16 or no text"),
        [0x1f, 0x8b, ..] => Some("the file is compressed (gzip)"),
        [b'P', b'K', 3, 4, ..] => Some("the file is a ZIP archive, as spreadsheets are"),
        [b'P', b'A', b'R', b'1', ..] => Some("the file is Parquet"),
        _ => None,
    }
}

/// The first cell of a row may be quoted itself.
fn unquoted(text: &[u8]) -> &[u8] {
    let text = text.strip_prefix(b"\"").unwrap_or(text);
    text.strip_suffix(b"\"").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = Vec<(u64, Vec<String>, Option<Broken>)>;

    /// Every record: its line, cells, and what is wrong; the same however the bytes arrive.
    fn all(bytes: &[u8], rows: bool) -> Found {
        let of = |step| {
            let mut records = Records::open(Slow(bytes, step)).unwrap();
            if rows {
                records.rows_look_like(2, |text| text.starts_with(b"20"));
            }
            let mut found = Found::new();
            while records.read().unwrap() {
                let cells = records
                    .iter()
                    .map(|cell| String::from_utf8_lossy(cell).into_owned());
                found.push((records.line(), cells.collect(), records.broken()));
            }
            found
        };
        let found = of(CHUNK);
        assert!(of(1) == found && of(7) == found);
        found
    }

    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(out.len()).min(self.0.len());
            out[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn cells(bytes: &[u8]) -> Vec<Vec<String>> {
        all(bytes, false)
            .into_iter()
            .map(|(_, cells, _)| cells)
            .collect()
    }

    #[test]
    fn line_ends_quotes_marks_and_blank_lines_are_those_of_any_csv() {
        for text in [
            "a,b\n1,2\n",
            "a,b\r\n1,2\r\n",
            "a,b\r1,2\r",
            "a,b\n1,2",
            "\u{feff}a,b\n\n  \n\"1\",\"2\" \n\n",
        ] {
            assert_eq!(cells(text.as_bytes()), [["a", "b"], ["1", "2"]], "{text:?}");
        }
        assert_eq!(
            cells(b"a,\"two\nlines, \"\"quoted\"\"\",\n,,x\n"),
            [["a", "two\nlines, \"quoted\"", ""], ["", "", "x"]]
        );
        // A quote within a plain cell is a character.
        assert_eq!(cells(b"5\" pipe,1\n"), [["5\" pipe", "1"]]);
        assert!(cells(b"").is_empty() && cells(b"\n\r\n \n").is_empty());
    }

    #[test]
    fn each_record_knows_its_line() {
        let lines: Vec<u64> = all(b"a\r\n\r\n\"b\nc\"\n\rd\n", false)
            .into_iter()
            .map(|(line, ..)| line)
            .collect();
        assert_eq!(lines, [1, 3, 6]);
    }

    #[test]
    fn a_quote_that_is_not_closed_costs_its_own_row() {
        let text = b"t,a\n2001,\"1\n2002,2\n2003,\"3\nnote\"\n2004,4\n2005,5\"\n2006,\"6";
        let found = all(text, true);
        let broken: Vec<u64> = found
            .iter()
            .filter(|(.., broken)| broken.is_some())
            .map(|(line, ..)| *line)
            .collect();
        assert_eq!(broken, [2, 8]);
        assert_eq!(
            found.iter().map(|(line, ..)| *line).collect::<Vec<_>>(),
            [1, 2, 3, 4, 6, 7, 8]
        );
        assert_eq!(found[3].1, ["2003", "3\nnote"]);
        // Without the shape of a row the second quote tells.
        let plain = all(b"s1,\"C,a\ns2,\"C,b\ns3,C,c\n", false);
        assert_eq!((plain[0].0, plain[0].2), (1, Some(Broken::AfterQuote)));
        assert_eq!(plain[1].1, ["s3", "C", "c"]);
    }

    #[test]
    fn a_record_has_a_bound_and_the_line_is_named() {
        let mut text = b"a,b\n1,\"2\n".to_vec();
        text.resize(3 * MOST_BYTES, b'x');
        let mut records = Records::open(text.as_slice()).unwrap();
        assert!(records.read().unwrap());
        let error = records.read().unwrap_err().to_string();
        assert!(
            error.contains("line 2") && error.contains("quote is not closed"),
            "{error}"
        );
        assert!(records.raw.capacity() < 2 * MOST_BYTES + 2 * CHUNK);
        let header = vec![b'x'; 2 * MOST_BYTES];
        let mut records = Records::open(header.as_slice()).unwrap();
        assert!(
            records
                .read()
                .unwrap_err()
                .to_string()
                .contains("no line end")
        );
    }

    #[test]
    fn what_is_no_text_is_named() {
        let utf16: Vec<u8> = "Tag,a\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for (bytes, word) in [
            (&b"\xff\xfeT\0"[..], "UTF-16"),
            (utf16.as_slice(), "UTF-16"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"PK\x03\x04", "ZIP"),
            (b"PAR1", "Parquet"),
        ] {
            let Err(error) = Records::open(bytes) else {
                panic!("{word} was taken");
            };
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
