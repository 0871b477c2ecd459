//! Input CSVs, as inference files and training files have them (contract section 4).
//!
//! Guarantees: the left-most column is the time whatever its name, in any of the documented formats, as UTC; a cell that is
//! no number is missing and counted; a row that does not fit the header (too many cells, a quote that is not closed) has no
//! cell that could be trusted, is told with its line, and costs only itself; rows may come in any order. Memory is one
//! record at a time, and a record has a bound. Deliberately not here: which rows to keep.

use std::collections::HashSet;
use std::io::Read;

use crate::records::{RecordError, Records};
use crate::signal::timestamp;

/// Why a file cannot be read at all, or not beyond a place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// Not even a header.
    #[error("the file is empty, expected a header row")]
    Empty,
    /// A quote is missing in the header.
    #[error("the header in line {line}: {problem}")]
    Header {
        /// Its line.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// One column, or none.
    #[error(
        "the header in line {line} has one column, '{shown}': expected a time column and at least one sensor, separated by commas{hint}"
    )]
    TooFewColumns {
        /// Its line.
        line: u64,
        /// The header.
        shown: String,
        /// What the file seems to be.
        hint: &'static str,
    },
    /// A column between others without a name.
    #[error("column {0} of the header has no name")]
    NamelessColumn(usize),
    /// The same header twice.
    #[error("column '{0}' appears twice in the header")]
    DuplicateColumn(String),
    /// Bytes that are no CSV.
    #[error("{0}")]
    Malformed(String),
}

/// A CSV whose header has been read.
pub struct CsvRows<R> {
    records: Records<R>,
    time: String,
    sensors: Vec<String>,
}

/// One cell of a sensor column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell {
    /// A finite number.
    Number(f64),
    /// Nothing, or a word for nothing.
    Missing,
    /// Something else.
    Invalid,
}

/// The rows of a file that do not fit its header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Misfits {
    /// How many.
    pub count: u64,
    /// The line and the fault of the first.
    pub first: Option<(u64, String)>,
}

impl Misfits {
    fn add(&mut self, line: u64, problem: String) {
        self.count += 1;
        self.first.get_or_insert((line, problem));
    }
}

impl std::fmt::Display for Misfits {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.first, self.count) {
            (None, _) => write!(out, "every row fits the header"),
            (Some((line, problem)), 1) => write!(out, "line {line}: {problem}"),
            (Some((line, problem)), count) => {
                write!(
                    out,
                    "line {line}: {problem}, and {} more rows like it",
                    count - 1
                )
            }
        }
    }
}

impl<R: Read> CsvRows<R> {
    /// Reads the header.
    pub fn open(input: R) -> Result<CsvRows<R>, CsvError> {
        let mut records = Records::open(input).map_err(malformed)?;
        if !records.read().map_err(malformed)? {
            return Err(CsvError::Empty);
        }
        let line = records.line();
        if let Some(broken) = records.broken() {
            let problem = format!("{broken}{}", separator(&records.shown()));
            return Err(CsvError::Header { line, problem });
        }
        let mut names: Vec<String> = records
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim().to_owned())
            .collect();
        // A comma at the end of the line is no column.
        while names.len() > 2 && names.last().is_some_and(String::is_empty) {
            names.pop();
        }
        if names.len() < 2 || (names.len() == 2 && names[1].is_empty()) {
            return Err(CsvError::TooFewColumns {
                line,
                shown: records.shown(),
                hint: separator(&names[0]),
            });
        }
        if let Some(nameless) = names.iter().skip(1).position(String::is_empty) {
            return Err(CsvError::NamelessColumn(nameless + 2));
        }
        let mut known = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !known.insert(name.as_str())) {
            return Err(CsvError::DuplicateColumn(twice.clone()));
        }
        records.rows_look_like(names.len(), |first| parse_time(first).is_some());
        let mut names = names.into_iter();
        Ok(CsvRows {
            records,
            time: names.next().unwrap_or_default(),
            sensors: names.collect(),
        })
    }

    /// The name of the time column.
    pub fn time(&self) -> &str {
        &self.time
    }

    /// The sensor columns, in the file's order.
    pub fn sensors(&self) -> &[String] {
        &self.sensors
    }

    /// Whether the header ended within the bytes that were given, where these are only a file's beginning.
    pub fn header_is_whole(&self) -> bool {
        self.records.has_more()
    }

    /// Calls `row` for every row with its time (microseconds, `None` where it cannot be read) and its cells by sensor
    /// column; cells that a short row lacks are missing, those of a row that does not fit are all invalid. Returns how many
    /// do not fit.
    pub fn for_each(
        mut self,
        mut row: impl FnMut(Option<i64>, &Cells<'_, R>),
    ) -> Result<Misfits, CsvError> {
        let mut misfits = Misfits::default();
        while self.records.read().map_err(malformed)? {
            let problem = self.problem();
            let fits = problem.is_none();
            if let Some(problem) = problem {
                misfits.add(self.records.line(), problem);
            }
            let time = self.records.get(0).and_then(parse_time);
            let cells = Cells {
                records: &self.records,
                fits,
            };
            row(time, &cells);
        }
        Ok(misfits)
    }

    /// Why the record is no row of this file.
    fn problem(&self) -> Option<String> {
        if let Some(broken) = self.records.broken() {
            return Some(broken.to_string());
        }
        let (found, wanted) = (self.records.len(), self.sensors.len() + 1);
        let beyond = (wanted..found).filter_map(|cell| self.records.get(cell));
        let too_many =
            found > wanted && beyond.into_iter().any(|cell| !cell.trim_ascii().is_empty());
        too_many.then(|| format!("the row has {found} fields, the header {wanted}"))
    }
}

/// The cells of one row.
pub struct Cells<'a, R> {
    records: &'a Records<R>,
    fits: bool,
}

impl<R> Cells<'_, R> {
    /// The cell of sensor column `index`.
    pub fn get(&self, index: usize) -> Cell {
        if !self.fits {
            return Cell::Invalid;
        }
        self.records.get(index + 1).map_or(Cell::Missing, cell)
    }

    /// Whether the row fits the header.
    pub fn fits(&self) -> bool {
        self.fits
    }
}

fn cell(bytes: &[u8]) -> Cell {
    let text = bytes.trim_ascii();
    if text.is_empty()
        || [&b"nan"[..], b"null", b"none", b"na", b"n/a"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word))
    {
        return Cell::Missing;
    }
    match std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
    {
        Some(number) if number.is_finite() => Cell::Number(number),
        _ => Cell::Invalid,
    }
}

fn separator(header: &str) -> &'static str {
    match header {
        header if header.contains(';') => "; it is separated by semicolons",
        header if header.contains('\t') => "; it is separated by tabs",
        header if header.contains('|') => "; it is separated by bars",
        _ => "",
    }
}

fn malformed(error: RecordError) -> CsvError {
    CsvError::Malformed(error.to_string())
}

/// Reads a timestamp into microseconds since the epoch, UTC.
pub fn parse_time(bytes: &[u8]) -> Option<i64> {
    timestamp::parse_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cells_are_numbers_missing_or_invalid() {
        let file =
            "\u{feff}time,a,b\n2020-03-01T08:05:00,1.5,\n2020-03-01T08:06:00,NaN,abc\nx,inf\n";
        let rows = CsvRows::open(file.as_bytes()).unwrap();
        assert_eq!(rows.sensors(), ["a", "b"]);
        let mut seen = Vec::new();
        rows.for_each(|time, cells| seen.push((time.is_some(), cells.get(0), cells.get(1))))
            .unwrap();
        assert_eq!(
            seen,
            [
                (true, Cell::Number(1.5), Cell::Missing),
                (true, Cell::Missing, Cell::Invalid),
                (false, Cell::Invalid, Cell::Missing),
            ]
        );
    }

    #[test]
    fn unusable_headers_are_refused() {
        let refuse = |text: &str| CsvRows::open(text.as_bytes()).map(|_| ()).unwrap_err();
        assert_eq!(refuse(""), CsvError::Empty);
        assert_eq!(refuse("t,a,a\n"), CsvError::DuplicateColumn("a".into()));
        assert_eq!(refuse("t,a,,b\n"), CsvError::NamelessColumn(3));
        for (text, words) in [
            ("Timestamp\n1\n", ["line 1", "'Timestamp'"]),
            ("\nTimestamp;a;b\n", ["line 2", "semicolons"]),
            ("Timestamp\ta\n", ["one column", "tabs"]),
            ("\"Timestamp\";\"a\"\n", ["line 1", "semicolons"]),
            ("# export\nTimestamp,a\n", ["line 1", "# export"]),
            ("Timestamp,\"a\n2020-01-01 00:00,1\n", ["line 1", "quote"]),
        ] {
            let error = refuse(text).to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        let trailing = CsvRows::open(&b"Date,a,b,\n"[..]).unwrap();
        assert_eq!(
            (trailing.time(), trailing.sensors()),
            ("Date", &["a".to_owned(), "b".to_owned()][..])
        );
    }

    /// Per row whether it has a time and its two cells; and what does not fit.
    fn read(text: &str) -> (Vec<(bool, Cell, Cell)>, Misfits) {
        let mut seen = Vec::new();
        let misfits = CsvRows::open(text.as_bytes())
            .unwrap()
            .for_each(|time, cells| seen.push((time.is_some(), cells.get(0), cells.get(1))))
            .unwrap();
        (seen, misfits)
    }

    #[test]
    fn a_row_that_does_not_fit_has_no_value_and_is_told_with_its_line() {
        use Cell::{Invalid, Missing, Number};
        let head = "t,a,b\n2020-01-01 00:00,1,2\n";
        let (seen, misfits) = read(&format!(
            "{head}2020-01-01 00:01,1,5,2,5\n2020-01-01 00:02,3,4,\n2020-01-01 00:03,5\n"
        ));
        assert_eq!(
            seen,
            [
                (true, Number(1.0), Number(2.0)),
                (true, Invalid, Invalid),
                (true, Number(3.0), Number(4.0)),
                (true, Number(5.0), Missing),
            ]
        );
        assert_eq!(
            misfits.first,
            Some((3, "the row has 5 fields, the header 3".to_owned()))
        );
        let (seen, misfits) = read(&format!(
            "{head}2020-01-01 00:01,\"3,4\n2020-01-01 00:02,5,6\n2020-01-01 00:03,7,\"8\n"
        ));
        assert_eq!(seen.len(), 4);
        assert_eq!(seen[1], (true, Invalid, Invalid));
        assert_eq!(seen[2], (true, Number(5.0), Number(6.0)));
        assert_eq!(
            misfits.to_string(),
            "line 3: a quote is not closed, and 1 more rows like it"
        );
        // A text of two lines in quotes is one cell.
        let (seen, misfits) = read(&format!(
            "{head}2020-01-01 00:01,3,\"two\nlines, \"\"quoted\"\"\"\n2020-01-01 00:02,5,6\n"
        ));
        assert_eq!((seen.len(), misfits.count), (3, 0));
        assert_eq!(seen[1], (true, Number(3.0), Invalid));
    }

    #[test]
    fn quoted_rows_fit_and_a_missing_quote_in_the_time_costs_one_row() {
        let (seen, misfits) = read(
            "\"t\",\"a\",\"b\"\r\n\"2020-01-01 00:00\",\"1\",\"2\"\r\n\"2020-01-01 00:01,\"3\",\"4\"\r\n\"2020-01-01 00:02\",\"5\",\"6\"\r\n",
        );
        assert_eq!((seen.len(), misfits.count), (3, 1));
        assert_eq!(seen[2], (true, Cell::Number(5.0), Cell::Number(6.0)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_time(&bytes);
            if let Ok(rows) = CsvRows::open(bytes.as_slice()) {
                let _ = rows.for_each(|_, cells| { cells.get(0); cells.get(7); });
            }
        }
    }
}
