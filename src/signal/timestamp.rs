//! The timestamp formats of input data: the contract's 21, each with or without fractional seconds where it has seconds.
//!
//! ```text
//! yyyy-MM-dd-HH-mm-ss                                        yyyy-MM-dd'T'HH:mm[:ss]   yyyy-MM-dd HH:mm[:ss]   yyyy-MM-dd-HH:mm[:ss]
//! yyyy/MM/dd'T'HH:mm[:ss]   yyyy/MM/dd HH:mm[:ss]            yyyy MM dd'T'HH:mm[:ss]   yyyy MM dd HH:mm[:ss]
//! yyyyMMdd'T'HH:mm[:ss]     yyyyMMdd HH:mm[:ss]              yyyyMMddHHmm[ss]
//! ```
//!
//! All of them are UTC. A trailing `Z` or `+00:00` says the same and is accepted; any other zone is not. Digits beyond
//! microseconds are cut off. Where separators delimit them, month, day and hour may have one digit, as the guide's own
//! sample has them (`2020/1/1 0:00`).

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};

/// What to write in an error about a text that is none of the formats.
pub const EXPECTED: &str = "a UTC timestamp such as 2020-01-31T13:05:00 or 2020-01-31 13:05:00.250";

/// What to write where a zone may stand too.
pub const EXPECTED_ANY: &str =
    "a timestamp such as 2020-01-31T13:05:00 or 2020-01-31 13:05:00.250+01:00";

/// The instant that a person means, on a command line or in a configuration: a timestamp in any of the formats, in UTC where
/// it has no offset, or a date, which is its first moment.
pub fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    let day = || {
        let day = NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").ok()?;
        Some(day.and_time(NaiveTime::MIN).and_utc())
    };
    let time = parse_any(text.as_bytes())
        .and_then(|(micros, _)| DateTime::from_timestamp_micros(micros))
        .or_else(day);
    time.ok_or_else(|| {
        format!("\"{text}\" is not a time: write {EXPECTED_ANY}, UTC unless it says otherwise, or a date")
    })
}

/// UTC microseconds of a timestamp in any of the formats.
pub fn parse(text: &str) -> Option<i64> {
    parse_bytes(text.as_bytes())
}

/// UTC microseconds of a timestamp in any of the formats, as a cell of a file has it.
pub fn parse_bytes(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
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
    let micros = cursor.fraction()?;
    if !cursor.0.is_empty() {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    let time = date.and_hms_opt(hour, minute, second)?.and_utc();
    Some(time.timestamp_micros() + micros)
}

/// Microseconds of a timestamp in any of the formats, with any offset from UTC behind it: the instant where there is one, and
/// whether there is; otherwise what a clock shows, as if in UTC.
pub fn parse_any(text: &[u8]) -> Option<(i64, bool)> {
    let text = text.trim_ascii();
    if let Some((local, offset)) = offset_of(text)
        && let Some(micros) = parse_bytes(local)
    {
        return Some((micros - offset, true));
    }
    parse_bytes(text).map(|micros| (micros, text.ends_with(b"Z")))
}

/// An offset such as +01:00 or -0530 at a text's end, in micros, and what is before it.
fn offset_of(text: &[u8]) -> Option<(&[u8], i64)> {
    let colon = text.len() >= 3 && text[text.len() - 3] == b':';
    let (local, offset) = text.split_at_checked(text.len().checked_sub(5 + usize::from(colon))?)?;
    let sign = match offset[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let mut cursor = Cursor(&offset[1..]);
    let hours = cursor.digits(2, 2)?;
    cursor.skip(usize::from(colon));
    let minutes = cursor.digits(2, 2)?;
    let known = hours < 24 && minutes < 60;
    let offset = sign * i64::from(hours * 3600 + minutes * 60) * 1_000_000;
    known.then_some((local.trim_ascii_end(), offset))
}

/// UTC microseconds as `yyyy-MM-dd'T'HH:mm:ss`, with microseconds where there are some.
pub fn format(micros: i64) -> String {
    let pattern = if micros.rem_euclid(1_000_000) == 0 {
        "%Y-%m-%dT%H:%M:%S"
    } else {
        "%Y-%m-%dT%H:%M:%S%.6f"
    };
    naive(micros).format(pattern).to_string()
}

/// UTC microseconds as `yyyy-MM-dd'T'HH:mm:ss.SSSSSS`, the form of results and metrics.
pub fn format_micros(micros: i64) -> String {
    naive(micros).format("%Y-%m-%dT%H:%M:%S%.6f").to_string()
}

fn naive(micros: i64) -> NaiveDateTime {
    DateTime::from_timestamp_micros(micros)
        .unwrap_or_default()
        .naive_utc()
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

    /// The microseconds of a fraction of a second, if there is one.
    fn fraction(&mut self) -> Option<i64> {
        let (mut micros, mut scale) = (0, 100_000);
        if let Some(b'.' | b',') = self.0.first() {
            self.skip(1);
            self.0.first()?;
            while let Some(digit @ b'0'..=b'9') = self.0.first() {
                micros += i64::from(digit - b'0') * scale;
                scale /= 10;
                self.skip(1);
            }
        }
        Some(micros)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_person_may_write_a_date_a_time_or_a_time_with_an_offset() {
        for (text, time) in [
            ("2026-01-01", "2026-01-01T00:00:00Z"),
            (" 2026-01-01 06:00 ", "2026-01-01T06:00:00Z"),
            ("2026-01-01T06:00:00Z", "2026-01-01T06:00:00Z"),
            ("2026-01-01T06:00:00.250+01:00", "2026-01-01T05:00:00.250Z"),
            ("2026/1/1 6:00", "2026-01-01T06:00:00Z"),
        ] {
            let time: DateTime<Utc> = time.parse().unwrap();
            assert_eq!(instant(text), Ok(time), "{text}");
        }
        for text in ["", "yesterday", "2026-02-30", "06:00", "2026-01-01T25:00"] {
            let refused = instant(text).unwrap_err();
            assert!(
                refused.contains(text) && refused.contains("2020-01-31"),
                "{refused}"
            );
        }
    }

    #[test]
    fn every_format_of_the_contract_is_read() {
        let with_seconds = [
            "2020-01-31-13-05-07",
            "2020-01-31T13:05:07",
            "2020-01-31 13:05:07",
            "2020-01-31-13:05:07",
            "2020/01/31T13:05:07",
            "2020/01/31 13:05:07",
            "2020 01 31T13:05:07",
            "2020 01 31 13:05:07",
            "20200131T13:05:07",
            "20200131 13:05:07",
            "20200131130507",
        ];
        let without = [
            "2020-01-31T13:05",
            "2020-01-31 13:05",
            "2020-01-31-13:05",
            "2020/01/31T13:05",
            "2020/01/31 13:05",
            "2020 01 31T13:05",
            "2020 01 31 13:05",
            "20200131T13:05",
            "20200131 13:05",
            "202001311305",
        ];
        let minute = 1_580_475_900_000_000;
        for text in with_seconds {
            assert_eq!(parse(text), Some(minute + 7_000_000), "{text}");
            assert_eq!(
                parse(&format!("{text}.25")),
                Some(minute + 7_250_000),
                "{text}.25"
            );
        }
        for text in without {
            assert_eq!(parse(text), Some(minute), "{text}");
        }
        assert_eq!(
            parse("2015-01-01T00:00:00.000001Z"),
            Some(1_420_070_400_000_001)
        );
        assert_eq!(parse(" 2020/1/31 13:05 "), Some(minute));
        assert_eq!(parse("2020-01-31 13:05:00+00:00"), Some(minute));
        assert_eq!(parse("1969-12-31T23:59:59,5"), Some(-500_000));
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        for text in [
            "",
            "2020",
            "2020-01-31",
            "2020-13-01T00:00:00",
            "2020-01-31T24:00:00",
            "2020-02-30 00:00:00",
            "2020-01/31 13:05",
            "2020-01-31T13:05:07+01:00",
            "2020-01-31T13:05:07.",
            "2020013113050",
            "31.01.2020 13:05",
            "08:05 2020-03-01",
            "1580475900",
            "2024-01-03 00:00:00+09:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_formatted_time_reads_back() {
        for micros in [0, 1_580_475_900_000_000, 1_580_475_900_250_000, -1] {
            assert_eq!(parse(&format(micros)), Some(micros));
            assert_eq!(parse(&format_micros(micros)), Some(micros));
        }
    }

    proptest! {
        #[test]
        fn written_times_are_read_back(micros in -62_000_000_000_000_000i64..253_000_000_000_000_000) {
            prop_assert_eq!(parse(&format_micros(micros)), Some(micros));
        }
    }
}
