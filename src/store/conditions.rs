//! Conditions of requests, judged on the object that is there at that moment.

use s3s::dto::{ETag, ETagCondition, Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode};

/// What a request makes its outcome depend on.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// Only this version.
    pub if_match: Option<ETagCondition>,
    /// Not this version.
    pub if_none_match: Option<ETagCondition>,
    /// Only a later one.
    pub if_modified_since: Option<Timestamp>,
    /// Only an earlier one.
    pub if_unmodified_since: Option<Timestamp>,
}

/// The object as conditions see it.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// Without quotes.
    pub etag: &'a str,
    /// When it was written.
    pub written_ms: i64,
}

impl Conditions {
    /// For a write over `there`, or over nothing.
    pub fn of_write(&self, there: Option<Version<'_>>) -> Result<(), S3Error> {
        if let Some(wanted) = &self.if_match {
            match there {
                None => return Err(no_such_key()),
                Some(there) if !is(wanted, there) => return Err(failed("If-Match")),
                Some(_) => {}
            }
        }
        if let (Some(unwanted), Some(there)) = (&self.if_none_match, there)
            && is(unwanted, there)
        {
            return Err(failed("If-None-Match"));
        }
        Ok(())
    }

    /// For a read; what the client has already is no failure but an answer of its own.
    pub fn of_read(&self, there: Version<'_>) -> Result<(), S3Error> {
        if let Some(wanted) = &self.if_match {
            if !is(wanted, there) {
                return Err(failed("If-Match"));
            }
        } else if self
            .if_unmodified_since
            .as_ref()
            .is_some_and(|since| later(there, since))
        {
            return Err(failed("If-Unmodified-Since"));
        }
        let unchanged = match &self.if_none_match {
            Some(had) => is(had, there),
            None => self
                .if_modified_since
                .as_ref()
                .is_some_and(|since| !later(there, since)),
        };
        if unchanged {
            return Err(S3Error::with_message(
                S3ErrorCode::NotModified,
                "Not Modified",
            ));
        }
        Ok(())
    }

    /// For the source of a copy: whatever does not hold is a failure.
    pub fn of_source(&self, there: Version<'_>) -> Result<(), S3Error> {
        self.of_read(there).map_err(|error| match error.code() {
            S3ErrorCode::NotModified => failed("x-amz-copy-source-If-None-Match"),
            _ => error,
        })
    }
}

fn is(wanted: &ETagCondition, there: Version<'_>) -> bool {
    match wanted {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => same(etag, there.etag),
    }
}

/// Whether an ETag, as clients write them, is that of an object.
pub fn same(etag: &ETag, there: &str) -> bool {
    etag.value() == there
}

/// In whole seconds, as clients know it.
fn later(there: Version<'_>, since: &Timestamp) -> bool {
    there.written_ms.div_euclid(1000) > seconds(since)
}

/// A time in seconds since 1970.
pub fn seconds(time: &Timestamp) -> i64 {
    let mut text = Vec::new();
    let written = time.format(TimestampFormat::EpochSeconds, &mut text);
    let text = String::from_utf8(text).unwrap_or_default();
    let seconds = written.ok().and_then(|()| text.parse::<f64>().ok());
    seconds.unwrap_or_default().floor() as i64
}

fn failed(condition: &'static str) -> S3Error {
    S3Error::with_message(
        S3ErrorCode::PreconditionFailed,
        format!("At least one of the pre-conditions you specified did not hold: {condition}"),
    )
}

/// The answer for a key that is not there.
pub fn no_such_key() -> S3Error {
    S3Error::with_message(S3ErrorCode::NoSuchKey, "The specified key does not exist.")
}
