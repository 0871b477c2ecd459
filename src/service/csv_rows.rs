//! Input CSVs, as inference files and training files have them (contract section 4).
//!
//! Guarantees: the left-most column is the time whatever its name; all 21 documented timestamp formats, fractions of a
//! second and the unpadded sample of the guide are read, as UTC; a cell that is no number is missing and counted; rows
//! may come in any order. Memory is one record at a time. Deliberately not here: which rows to keep.

use std::io::Read;

/// Why a file cannot be read at all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// Not even a header.
    #[error("the file is empty, expected a header row")]
    Empty,
    /// One column, or none.
    #[error("the header has {0} column, expected a time column and at least one sensor")]
    TooFewColumns(usize),
    /// The same header twice.
    #[error("column '{0}' appears twice in the header")]
    DuplicateColumn(String),
    /// Bytes that are no CSV.
    #[error("not a CSV: {0}")]
    Malformed(String),
}

/// A CSV whose header has been read.
pub struct CsvRows<R> {
    reader: csv::Reader<R>,
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

impl<R: Read> CsvRows<R> {
    /// Reads the header.
    pub fn open(input: R) -> Result<CsvRows<R>, CsvError> {
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .buffer_capacity(1 << 16)
            .from_reader(input);
        let header = reader.byte_headers().map_err(malformed)?;
        let names: Vec<String> = header
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let name = if index == 0 {
                    name.strip_prefix(b"\xef\xbb\xbf").unwrap_or(name)
                } else {
                    name
                };
                String::from_utf8_lossy(name).trim().to_owned()
            })
            .collect();
        match names.len() {
            0 => return Err(CsvError::Empty),
            1 => return Err(CsvError::TooFewColumns(1)),
            _ => {}
        }
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(CsvError::DuplicateColumn(pair[0].clone()));
        }
        Ok(CsvRows {
            reader,
            sensors: names.into_iter().skip(1).collect(),
        })
    }

    /// The sensor columns, in the file's order.
    pub fn sensors(&self) -> &[String] {
        &self.sensors
    }

    /// Calls `row` for every row with its time (microseconds, `None` where it cannot be read) and its cells by sensor
    /// column; cells that a short row lacks are missing.
    pub fn for_each(
        mut self,
        mut row: impl FnMut(Option<i64>, &Cells<'_>),
    ) -> Result<(), CsvError> {
        let mut record = csv::ByteRecord::new();
        while self
            .reader
            .read_byte_record(&mut record)
            .map_err(malformed)?
        {
            let time = record.get(0).and_then(parse_time);
            row(time, &Cells(&record));
        }
        Ok(())
    }
}

/// The cells of one row.
pub struct Cells<'a>(&'a csv::ByteRecord);

impl Cells<'_> {
    /// The cell of sensor column `index`.
    pub fn get(&self, index: usize) -> Cell {
        self.0.get(index + 1).map_or(Cell::Missing, cell)
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

fn malformed(error: csv::Error) -> CsvError {
    CsvError::Malformed(error.to_string())
}

/// Reads a timestamp into microseconds since the epoch, UTC.
///
/// The 21 formats of contract 4.2 are: a date (`yyyy-MM-dd`, `yyyy/MM/dd`, `yyyy MM dd` or `yyyyMMdd`), a `T`, a space,
/// a hyphen or nothing, and a time (`HH:mm`, `HH:mm:ss`, `HH-mm-ss`, `HHmm` or `HHmmss`). Beyond them: fractions of a
/// second, fields without zero padding where separators delimit them, and a `Z` or `+00:00` at the end.
pub fn parse_time(bytes: &[u8]) -> Option<i64> {
    let text = bytes.trim_ascii();
    let text = text
        .strip_suffix(b"Z")
        .or_else(|| text.strip_suffix(b"+00:00"))
        .unwrap_or(text);
    let mut cursor = Cursor(text);
    let year = cursor.digits(4, 4)?;
    let (month, day) = match cursor.0.first()? {
        separator @ (b'-' | b'/' | b' ') => {
            cursor.skip(1);
            let month = cursor.digits(1, 2)?;
            cursor.expect(*separator)?;
            (month, cursor.digits(1, 2)?)
        }
        _ => (cursor.digits(2, 2)?, cursor.digits(2, 2)?),
    };
    let separated = matches!(cursor.0.first()?, b'T' | b' ' | b'-');
    if separated {
        cursor.skip(1);
    }
    let hour = cursor.digits(if separated { 1 } else { 2 }, 2)?;
    let (minute, second) = match cursor.0.first()? {
        separator @ (b':' | b'-') => {
            cursor.skip(1);
            let minute = cursor.digits(2, 2)?;
            let second = if cursor.0.first() == Some(separator) {
                cursor.skip(1);
                cursor.digits(2, 2)?
            } else {
                0
            };
            (minute, second)
        }
        _ => {
            let minute = cursor.digits(2, 2)?;
            (
                minute,
                if cursor.0.is_empty() {
                    0
                } else {
                    cursor.digits(2, 2)?
                },
            )
        }
    };
    let mut micros = 0;
    if let Some(b'.' | b',') = cursor.0.first() {
        cursor.skip(1);
        let mut scale = 100_000;
        if cursor.0.is_empty() {
            return None;
        }
        while let Some(digit @ b'0'..=b'9') = cursor.0.first() {
            micros += i64::from(digit - b'0') * scale;
            scale /= 10;
            cursor.skip(1);
        }
    }
    if !cursor.0.is_empty() {
        return None;
    }
    let date = chrono::NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    let time = date.and_hms_opt(hour, minute, second)?.and_utc();
    Some(time.timestamp_micros() + micros)
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn skip(&mut self, count: usize) {
        self.0 = self.0.get(count..).unwrap_or_default();
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.0.first() == Some(&byte)).then(|| self.skip(1))
    }

    /// Between `least` and `most` digits, as many as there are.
    fn digits(&mut self, least: usize, most: usize) -> Option<u32> {
        let count = self
            .0
            .iter()
            .take(most)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if count < least {
            return None;
        }
        let value = self.0[..count]
            .iter()
            .fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
        self.skip(count);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros(text: &str) -> Option<i64> {
        parse_time(text.as_bytes())
    }

    #[test]
    fn all_documented_formats_and_fractions_name_the_same_instant() {
        let with_seconds = [
            "2020-03-01-08-05-00",
            "2020-03-01T08:05:00",
            "2020-03-01 08:05:00",
            "2020-03-01-08:05:00",
            "2020/03/01T08:05:00",
            "2020/03/01 08:05:00",
            "2020 03 01T08:05:00",
            "2020 03 01 08:05:00",
            "20200301T08:05:00",
            "20200301 08:05:00",
            "20200301080500",
        ];
        let without_seconds = [
            "2020-03-01T08:05",
            "2020-03-01 08:05",
            "2020-03-01-08:05",
            "2020/03/01T08:05",
            "2020/03/01 08:05",
            "2020 03 01T08:05",
            "2020 03 01 08:05",
            "20200301T08:05",
            "20200301 08:05",
            "202003010805",
        ];
        assert_eq!(with_seconds.len() + without_seconds.len(), 21);
        for text in with_seconds.iter().chain(&without_seconds) {
            assert_eq!(micros(text), Some(1_583_049_900_000_000), "{text}");
        }
        for text in [
            "2020-03-01T08:05:00.000000",
            "2020/3/1 8:05",
            "2020-03-01T08:05:00Z",
            " 2020-03-01T08:05:00.0 ",
        ] {
            assert_eq!(micros(text), Some(1_583_049_900_000_000), "{text}");
        }
        assert_eq!(
            micros("2015-01-01T00:00:00.123456"),
            Some(1_420_070_400_123_456)
        );
        assert_eq!(micros("1969-12-31T23:59:59.5"), Some(-500_000));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "2020",
            "2020-03-01",
            "2020-13-01T00:00:00",
            "2020-02-30 00:00:00",
            "2020-03-01T24:00:00",
            "2020-03/01 00:00:00",
            "2020-03-01T08:05:00.",
            "2020-03-01T08:05:00+09:00",
            "08:05 2020-03-01",
            "1583049900",
        ] {
            assert_eq!(micros(text), None, "{text}");
        }
    }

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
        assert_eq!(refuse("Timestamp\n1\n"), CsvError::TooFewColumns(1));
        assert_eq!(refuse("t,a,a\n"), CsvError::DuplicateColumn("a".into()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_time(&bytes);
            if let Ok(rows) = CsvRows::open(bytes.as_slice()) {
                let _ = rows.for_each(|_, cells| { cells.get(0); cells.get(7); });
            }
        }

        #[test]
        fn written_times_are_read_back(micros in -62_000_000_000_000_000i64..253_000_000_000_000_000) {
            let time = chrono::DateTime::from_timestamp_micros(micros).unwrap();
            let text = time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
            prop_assert_eq!(parse_time(text.as_bytes()), Some(micros));
        }
    }
}
