//! Which bytes of an object a request is about.

use std::ops::Range as Bytes;

use s3s::dto::Range;
use s3s::header::CONTENT_RANGE;
use s3s::{S3Error, S3ErrorCode};

/// The bytes that a header asks for of an object of `size`.
pub fn of_header(range: &Range, size: u64) -> Result<Bytes<u64>, S3Error> {
    let bytes = match *range {
        Range::Int { first, last } => {
            let end = last.map_or(size, |last| last.saturating_add(1).min(size));
            first..end
        }
        // More than there is means all of it.
        Range::Suffix { length } => size.saturating_sub(length)..size,
    };
    if bytes.is_empty() {
        let mut error = S3Error::with_message(
            S3ErrorCode::InvalidRange,
            "The requested range is not satisfiable",
        );
        let mut headers = hyper::HeaderMap::new();
        if let Ok(value) = format!("bytes */{size}").parse() {
            headers.insert(CONTENT_RANGE, value);
        }
        headers.insert(
            hyper::header::CONTENT_TYPE,
            hyper::header::HeaderValue::from_static("application/xml"),
        );
        error.set_headers(headers);
        return Err(error);
    }
    Ok(bytes)
}

/// The bytes of a source that a copied part is of: all of them must be there.
pub fn of_source(header: Option<&str>, size: u64) -> Result<Bytes<u64>, S3Error> {
    let Some(header) = header else {
        return Ok(0..size);
    };
    let invalid = |what: &str| {
        S3Error::with_message(
            S3ErrorCode::InvalidArgument,
            format!("The x-amz-copy-source-range value {what}"),
        )
    };
    let bytes = header
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
        .and_then(|(first, last)| Some((number(first)?, number(last)?)))
        .filter(|(first, last)| first <= last)
        .ok_or_else(|| invalid("must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy"))?;
    if bytes.1 >= size {
        return Err(S3Error::with_message(
            S3ErrorCode::InvalidRange,
            format!("The x-amz-copy-source-range is not valid for a source of {size} bytes"),
        ));
    }
    Ok(bytes.0..bytes.1 + 1)
}

fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// The header of an answer that holds a part.
pub fn to_header(bytes: &Bytes<u64>, size: u64) -> String {
    format!(
        "bytes {}-{}/{size}",
        bytes.start,
        bytes.end.saturating_sub(1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_range_is_cut_to_what_is_there() {
        let of = |header: &str| of_header(&Range::parse(header).unwrap(), 10).ok();
        assert_eq!(of("bytes=0-0"), Some(0..1));
        assert_eq!(of("bytes=3-"), Some(3..10));
        assert_eq!(of("bytes=3-99"), Some(3..10));
        assert_eq!(of("bytes=-3"), Some(7..10));
        assert_eq!(of("bytes=-99"), Some(0..10));
        assert_eq!(of("bytes=10-"), None);
        assert_eq!(of("bytes=-0"), None);
    }

    #[test]
    fn a_copied_part_is_of_bytes_that_are_there() {
        assert_eq!(of_source(Some("bytes=0-9"), 10).ok(), Some(0..10));
        for header in [
            "bytes=0-10",
            "0-2",
            "bytes=0",
            "bytes=hello-world",
            "bytes=5-2",
            "bytes=-3",
            "bytes=0-",
            "bytes=0-2,3-5",
        ] {
            assert!(of_source(Some(header), 10).is_err(), "{header}");
        }
    }
}
