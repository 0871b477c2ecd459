//! The `Date` header of our listeners' answers.
//!
//! The server's own is cached, and the cache only goes forward: after a clock that was ahead it stays ahead until the
//! process ends, and clients that sign by it are refused. So it is switched off, and each answer is stamped with the time
//! at which it is sent.

use chrono::{DateTime, Utc};
use hyper::Response;
use hyper::header::{DATE, HeaderValue};

use crate::clock::Clock;

/// The answer with the present time in it.
pub fn dated<B>(mut answer: Response<B>) -> Response<B> {
    if let Some(date) = header(Clock::system().now()) {
        answer.headers_mut().insert(DATE, date);
    }
    answer
}

/// A time as HTTP writes it; none for a year beyond its four digits.
fn header(now: DateTime<Utc>) -> Option<HeaderValue> {
    let text = now.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    (text.len() == 29)
        .then(|| HeaderValue::try_from(text).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_http_writes_it_and_goes_back_with_the_clock() {
        let text = |time: &str| header(time.parse().unwrap()).unwrap();
        assert_eq!(
            text("2026-11-08T09:05:07.9Z"),
            "Sun, 08 Nov 2026 09:05:07 GMT"
        );
        assert_eq!(
            text("2026-11-06T09:05:07Z"),
            "Fri, 06 Nov 2026 09:05:07 GMT"
        );
        assert_eq!(
            text("1970-01-01T00:00:00Z"),
            "Thu, 01 Jan 1970 00:00:00 GMT"
        );
        assert_eq!(header(DateTime::<Utc>::MAX_UTC), None);
    }
}
