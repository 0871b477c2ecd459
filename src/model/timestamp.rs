//! The timestamp formats of input data: the contract's 21, each with or without fractional seconds where it has seconds.
//!
//! ```text
//! yyyy-MM-dd-HH-mm-ss                                        yyyy-MM-dd'T'HH:mm[:ss]   yyyy-MM-dd HH:mm[:ss]   yyyy-MM-dd-HH:mm[:ss]
//! yyyy/MM/dd'T'HH:mm[:ss]   yyyy/MM/dd HH:mm[:ss]            yyyy MM dd'T'HH:mm[:ss]   yyyy MM dd HH:mm[:ss]
//! yyyyMMdd'T'HH:mm[:ss]     yyyyMMdd HH:mm[:ss]              yyyyMMddHHmm[ss]
//! ```
//!
//! All of them are UTC. A trailing `Z` says the same and is accepted; any other zone is not. Digits beyond microseconds are
//! cut off.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// What to write in an error about a text that is none of the formats.
pub const EXPECTED: &str = "a UTC timestamp such as 2020-01-31T13:05:00 or 2020-01-31 13:05:00.250";

/// UTC microseconds of a timestamp in any of the formats.
pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim().as_bytes();
    let text = text.strip_suffix(b"Z").unwrap_or(text);
    let (date, separator, rest) = match *text.get(4)? {
        separator @ (b'-' | b'/' | b' ') => {
            if *text.get(7)? != separator {
                return None;
            }
            ([0, 5, 8], Some(separator), text.get(10..)?)
        }
        _ => ([0, 4, 6], None, text.get(8..)?),
    };
    let day = NaiveDate::from_ymd_opt(
        number(text, date[0], 4)?.cast_signed(),
        number(text, date[1], 2)?,
        number(text, date[2], 2)?,
    )?;
    let (joint, between, clock) = match (*rest.first()?, separator) {
        (b'T' | b' ', _) => (1, Some(b':'), rest),
        (b'-', Some(b'-')) => (
            1,
            Some(if rest.get(3) == Some(&b'-') {
                b'-'
            } else {
                b':'
            }),
            rest,
        ),
        (b'0'..=b'9', None) => (0, None, rest),
        _ => return None,
    };
    let (hour, minute, second, fraction) = clock_of(clock.get(joint..)?, between)?;
    let time = day.and_hms_micro_opt(hour, minute, second, fraction)?;
    Some(time.and_utc().timestamp_micros())
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

/// Hour, minute, second, microsecond of `HH?mm[?ss[.f]]`. Dashes and seconds go together.
fn clock_of(clock: &[u8], between: Option<u8>) -> Option<(u32, u32, u32, u32)> {
    let gap = usize::from(between.is_some());
    let joined = |at: usize| between.is_none_or(|byte| clock.get(at) == Some(&byte));
    let hour = number(clock, 0, 2)?;
    if !joined(2) {
        return None;
    }
    let minute = number(clock, 2 + gap, 2)?;
    let end = 4 + gap;
    if clock.len() == end && between != Some(b'-') {
        return Some((hour, minute, 0, 0));
    }
    if !joined(end) {
        return None;
    }
    let second = number(clock, end + gap, 2)?;
    let fraction = match clock.get(end + gap + 2..)? {
        [] => 0,
        [b'.', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            (0..6).fold(0, |sum, at| {
                sum * 10 + digits.get(at).map_or(0, |digit| u32::from(digit - b'0'))
            })
        }
        _ => return None,
    };
    Some((hour, minute, second, fraction))
}

fn number(text: &[u8], from: usize, length: usize) -> Option<u32> {
    let digits = text.get(from..from + length)?;
    digits.iter().try_fold(0, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + u32::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        for text in [
            "",
            "2020",
            "2020-01-31",
            "2020-13-01T00:00:00",
            "2020-01-31T24:00:00",
            "2020-01-31T1:05",
            "2020-01/31 13:05",
            "2020-01-31-13-05",
            "2020-01-31T13:05:07+01:00",
            "2020-01-31T13:05:07.",
            "2020013113050",
            "31.01.2020 13:05",
            "1580475900",
            "2020/01/31-13:05",
            "2020-01-31T13-05-07",
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
}
