//! The input file's bytes: header `Timestamp,<signals>`, one line per row, LF.
//!
//! Guarantees: byte-identical to what pandas' `to_csv(index=None)` writes for the same values when the time column was
//! formatted with `%Y-%m-%dT%H:%M:%S.%f` (contract 4.2 accepts it): floats are the shortest text that reads back to
//! the same value, in Python's `repr` form, and a missing value is an empty field. Switches are 1 and 0, and an infinite value
//! is missing, where pandas would write words that the service does not accept.
//! No cell allocates; a year of a plant is written at hundreds of megabytes per CPU-second.

use super::{Frame, Values};

const DAY_SECONDS: i64 = 86_400;
/// Length of `2026-01-01T00:00:00.000000`.
const TIME_LENGTH: usize = 26;

impl Frame {
    /// Appends the frame as a CSV file to `out`.
    pub fn encode_csv(&self, out: &mut Vec<u8>) {
        out.reserve(self.rows() * (TIME_LENGTH + 1 + 12 * self.columns.len()) + 64);
        out.extend_from_slice(b"Timestamp");
        for column in &self.columns {
            out.push(b',');
            push_quoted(out, &column.name);
        }
        out.push(b'\n');
        let mut numbers = Numbers::default();
        let mut times = Times::default();
        for (row, micros) in self.times.iter().enumerate() {
            out.extend_from_slice(times.format(*micros));
            for column in &self.columns {
                out.push(b',');
                numbers.push(out, &column.values, row);
            }
            out.push(b'\n');
        }
    }
}

#[derive(Default)]
struct Numbers {
    shortest: zmij::Buffer,
}

impl Numbers {
    #[inline]
    fn push(&mut self, out: &mut Vec<u8>, values: &Values, row: usize) {
        match values {
            Values::F64(values) => self.push_float(out, values[row], 1e16),
            Values::F32(values) => self.push_float(out, values[row], 1e6),
            Values::I64(values) => {
                if let Some(value) = values[row] {
                    push_integer(out, value);
                }
            }
            Values::Bool(values) => {
                if let Some(value) = values[row] {
                    out.push(if value { b'1' } else { b'0' });
                }
            }
        }
    }

    /// `scientific_from` is where numpy turns to an exponent: 1e16 as Python, and since numpy 2.3 1e6 for floats of
    /// single precision.
    #[inline]
    fn push_float<F: zmij::Float + Into<f64>>(
        &mut self,
        out: &mut Vec<u8>,
        value: F,
        scientific_from: f64,
    ) {
        let wide: f64 = value.into();
        let size = wide.abs();
        if (1e-4..scientific_from).contains(&size) {
            out.extend_from_slice(self.shortest.format_finite(value).as_bytes());
        } else if !wide.is_finite() {
            // A missing sample is an empty field, and an infinite one is missing: the service takes only numbers.
        } else if size == 0.0 {
            out.extend_from_slice(if wide.is_sign_negative() {
                b"-0.0"
            } else {
                b"0.0"
            });
        } else {
            push_scientific(out, self.shortest.format_finite(value).as_bytes());
        }
    }
}

/// Rewrites a shortest decimal of any notation in Python's: `d.ddde-05`, no point after a single digit, a signed
/// exponent of at least two digits.
fn push_scientific(out: &mut Vec<u8>, text: &[u8]) {
    let (mantissa, exponent) = match text.iter().position(|byte| *byte == b'e') {
        Some(at) => (&text[..at], parse_exponent(&text[at + 1..])),
        None => (text, 0),
    };
    let mut digits = [0u8; 32];
    let (mut length, mut point, mut seen_point) = (0usize, 0i32, false);
    for byte in mantissa {
        match byte {
            b'-' => out.push(b'-'),
            b'.' => seen_point = true,
            b'0' if length == 0 => point -= i32::from(seen_point),
            digit => {
                if length < digits.len() {
                    digits[length] = *digit;
                    length += 1;
                }
                point += i32::from(!seen_point);
            }
        }
    }
    while length > 1 && digits[length - 1] == b'0' {
        length -= 1;
    }
    let exponent = exponent + point - 1;
    out.push(digits[0]);
    if length > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..length]);
    }
    out.push(b'e');
    out.push(if exponent < 0 { b'-' } else { b'+' });
    if exponent.unsigned_abs() < 10 {
        out.push(b'0');
    }
    push_integer(out, i64::from(exponent.unsigned_abs()));
}

fn parse_exponent(text: &[u8]) -> i32 {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit());
    let size = digits.fold(0, |value, digit| value * 10 + i32::from(digit - b'0'));
    if text.first() == Some(&b'-') {
        -size
    } else {
        size
    }
}

fn push_integer(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes times of day by hand and the date only when it changes.
struct Times {
    day: i64,
    text: [u8; TIME_LENGTH + 8],
    length: usize,
}

impl Default for Times {
    fn default() -> Self {
        Times {
            day: i64::MIN,
            text: [0; TIME_LENGTH + 8],
            length: 0,
        }
    }
}

impl Times {
    fn format(&mut self, micros: i64) -> &[u8] {
        let seconds = micros.div_euclid(1_000_000);
        let fraction = micros.rem_euclid(1_000_000) as u32;
        let day = seconds.div_euclid(DAY_SECONDS);
        if day != self.day {
            self.day = day;
            self.length = write_date(&mut self.text, day);
        }
        let second = seconds.rem_euclid(DAY_SECONDS) as u32;
        let time = &mut self.text[self.length..self.length + 16];
        time[0] = b'T';
        write_two(&mut time[1..3], second / 3600);
        time[3] = b':';
        write_two(&mut time[4..6], second / 60 % 60);
        time[6] = b':';
        write_two(&mut time[7..9], second % 60);
        time[9] = b'.';
        write_two(&mut time[10..12], fraction / 10_000);
        write_two(&mut time[12..14], fraction / 100 % 100);
        write_two(&mut time[14..16], fraction % 100);
        &self.text[..self.length + 16]
    }
}

/// Writes `yyyy-MM-dd` and returns its length; the date of a day number by Howard Hinnant's civil_from_days.
fn write_date(text: &mut [u8], day: i64) -> usize {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let mut digits = Vec::with_capacity(8);
    if year < 0 {
        digits.push(b'-');
    }
    for scale in [1000, 100, 10] {
        if year.abs() < scale {
            digits.push(b'0');
        }
    }
    push_integer(&mut digits, year.abs());
    text[..digits.len()].copy_from_slice(&digits);
    let rest = &mut text[digits.len()..digits.len() + 6];
    rest[0] = b'-';
    write_two(&mut rest[1..3], month as u32);
    rest[3] = b'-';
    write_two(&mut rest[4..6], day as u32);
    digits.len() + 6
}

fn write_two(text: &mut [u8], value: u32) {
    text[0] = b'0' + (value / 10) as u8;
    text[1] = b'0' + (value % 10) as u8;
}

/// Python's QUOTE_MINIMAL: quotes only where the field would otherwise be read differently.
fn push_quoted(out: &mut Vec<u8>, field: &str) {
    if !field
        .bytes()
        .any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r'))
    {
        out.extend_from_slice(field.as_bytes());
        return;
    }
    out.push(b'"');
    for byte in field.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Column;
    use super::*;

    fn frame(times: Vec<i64>, columns: Vec<(&str, Values)>) -> Frame {
        let columns = columns
            .into_iter()
            .map(|(name, values)| Column {
                name: name.to_owned(),
                values,
            })
            .collect();
        Frame {
            component: "c".to_owned(),
            times,
            columns,
        }
    }

    fn encode(frame: &Frame) -> String {
        let mut out = Vec::new();
        frame.encode_csv(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn float(value: f64) -> String {
        let text = encode(&frame(vec![0], vec![("a", Values::F64(vec![value]))]));
        text.lines()
            .nth(1)
            .unwrap()
            .split_once(',')
            .unwrap()
            .1
            .to_owned()
    }

    #[test]
    fn every_type_is_written_as_pandas_writes_it() {
        let frame = frame(
            vec![1_420_070_400_000_000, 1_420_070_460_000_001],
            vec![
                ("f", Values::F64(vec![0.1, f64::NAN])),
                ("g", Values::F32(vec![0.1, 16_777_216.0])),
                ("i", Values::I64(vec![Some(-7), None])),
                ("b", Values::Bool(vec![Some(true), Some(false)])),
                ("odd,\"name\"", Values::F64(vec![1.0, -2.5])),
            ],
        );
        assert_eq!(
            encode(&frame),
            "Timestamp,f,g,i,b,\"odd,\"\"name\"\"\"\n\
             2015-01-01T00:00:00.000000,0.1,0.1,-7,1,1.0\n\
             2015-01-01T00:01:00.000001,,1.6777216e+07,,0,-2.5\n"
        );
    }

    #[test]
    fn floats_take_pythons_repr_form() {
        // The right-hand side is what CPython's repr prints.
        let cases = [
            (1e-4, "0.0001"),
            (9.999e-5, "9.999e-05"),
            (1e-5, "1e-05"),
            (1.5e-5, "1.5e-05"),
            (-1.25e-7, "-1.25e-07"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1.234567890123456e16, "1.234567890123456e+16"),
            (1.2345678901234567e17, "1.2345678901234566e+17"),
            (1e22, "1e+22"),
            (1e100, "1e+100"),
            (-1.7976931348623157e308, "-1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (2.2250738585072014e-308, "2.2250738585072014e-308"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (100.0, "100.0"),
            (123456.789, "123456.789"),
            (f64::INFINITY, ""),
            (f64::NEG_INFINITY, ""),
            (f64::NAN, ""),
        ];
        for (value, expected) in cases {
            assert_eq!(float(value), expected);
        }
    }

    #[test]
    fn single_floats_take_numpys_form() {
        // The right-hand side is what pandas 3.1 with numpy 2.4 writes.
        let cases = [
            (0.1, "0.1"),
            (999_999.0, "999999.0"),
            (1e6, "1e+06"),
            (16_777_216.0, "1.6777216e+07"),
            (1e-4, "1e-04"),
            (1.0001e-4, "0.00010001"),
            (3.4e38, "3.4e+38"),
            (1e-45, "1e-45"),
        ];
        for (value, expected) in cases {
            let text = encode(&frame(vec![0], vec![("a", Values::F32(vec![value]))]));
            assert_eq!(
                text,
                format!("Timestamp,a\n1970-01-01T00:00:00.000000,{expected}\n")
            );
        }
    }

    #[test]
    fn no_rows_still_have_a_header() {
        assert_eq!(
            encode(&frame(vec![], vec![("a", Values::F64(vec![]))])),
            "Timestamp,a\n"
        );
    }

    proptest! {
        #[test]
        fn csv_parses_back_to_equal_values(
            rows in prop::collection::vec(
                (-60_000_000_000_000_000i64..250_000_000_000_000_000, any::<u64>(), any::<u32>(), any::<Option<i64>>(), any::<Option<bool>>()),
                0..20,
            ),
            name in "[ -~]{1,8}",
        ) {
            let doubles: Vec<f64> = rows.iter().map(|row| f64::from_bits(row.1)).collect();
            let floats: Vec<f32> = rows.iter().map(|row| f32::from_bits(row.2)).collect();
            let frame = frame(rows.iter().map(|row| row.0).collect(), vec![
                (name.as_str(), Values::F64(doubles.clone())),
                ("f", Values::F32(floats.clone())),
                ("i", Values::I64(rows.iter().map(|row| row.3).collect())),
                ("b", Values::Bool(rows.iter().map(|row| row.4).collect())),
            ]);
            let mut out = Vec::new();
            frame.encode_csv(&mut out);
            let mut reader = ::csv::ReaderBuilder::new().from_reader(out.as_slice());
            prop_assert_eq!(reader.headers().unwrap().get(1), Some(name.as_str()));
            let records: Vec<::csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(records.len(), rows.len());
            for (index, record) in records.iter().enumerate() {
                let time = chrono::DateTime::from_timestamp_micros(rows[index].0).unwrap();
                prop_assert_eq!(&record[0], time.format("%Y-%m-%dT%H:%M:%S.%6f").to_string());
                let same = |text: &str, value: f64| if value.is_nan() { text.is_empty() } else { text.parse() == Ok(value) };
                prop_assert!(same(&record[1], doubles[index]), "{} {}", &record[1], doubles[index]);
                let float = floats[index];
                let read = if float.is_nan() { record[2].is_empty() } else { record[2].parse() == Ok(float) };
                prop_assert!(read, "{} {float}", &record[2]);
                prop_assert_eq!(record[3].parse().ok(), rows[index].3);
                prop_assert_eq!(&record[4], match rows[index].4 { Some(true) => "1", Some(false) => "0", None => "" });
            }
        }
    }
}
