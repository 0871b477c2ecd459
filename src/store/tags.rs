//! Tags of objects and buckets.

use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;
use s3s::dto::{Tag, TagSet};
use s3s::{S3Error, s3_error};

use super::Problem;

/// Most tags of an object, and of a bucket.
pub const OF_OBJECT: usize = 10;
pub const OF_BUCKET: usize = 50;
const LONGEST_NAME: usize = 128;
const LONGEST_VALUE: usize = 256;

/// Names and values.
pub type Tags = Vec<(String, String)>;

/// As a request's XML has them.
pub fn of_set(set: TagSet, most: usize) -> Result<Tags, S3Error> {
    let pairs = set.into_iter();
    let tags = pairs.map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()));
    checked(tags.collect(), most)
}

/// As the header `x-amz-tagging` has them.
pub fn of_header(header: Option<&str>) -> Result<Tags, S3Error> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        let decoded = percent_decode_str(&text).decode_utf8();
        decoded.map(|text| text.into_owned())
    };
    let mut tags = Tags::new();
    for pair in header
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Ok(name), Ok(value)) = (decode(name), decode(value)) else {
            return Err(s3_error!(
                InvalidArgument,
                "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates."
            ));
        };
        tags.push((name, value));
    }
    // They are told in this order, as S3 does.
    tags.sort();
    checked(tags, OF_OBJECT)
}

fn checked(tags: Tags, most: usize) -> Result<Tags, S3Error> {
    if tags.len() > most {
        return Err(s3_error!(
            InvalidTag,
            "Object tags cannot be greater than {most}"
        ));
    }
    let mut names = BTreeSet::new();
    for (name, value) in &tags {
        if name.is_empty() || name.chars().count() > LONGEST_NAME {
            return Err(s3_error!(
                InvalidTag,
                "The TagKey you have provided is invalid"
            ));
        }
        if value.chars().count() > LONGEST_VALUE {
            return Err(s3_error!(
                InvalidTag,
                "The TagValue you have provided is invalid"
            ));
        }
        if !names.insert(name) {
            return Err(s3_error!(
                InvalidTag,
                "Cannot provide multiple Tags with the same key"
            ));
        }
    }
    Ok(tags)
}

/// As an answer has them.
pub fn to_set(tags: Tags) -> TagSet {
    tags.into_iter()
        .map(|(key, value)| Tag {
            key: Some(key),
            value: Some(value),
        })
        .collect()
}

/// The text in the row.
pub fn to_text(tags: &Tags) -> Result<Option<String>, Problem> {
    if tags.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_string(tags);
    Ok(Some(
        text.map_err(|error| Problem::Damaged(error.to_string()))?,
    ))
}

pub fn of_text(text: Option<&str>) -> Result<Tags, Problem> {
    match text {
        None => Ok(Tags::new()),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| Problem::Damaged(format!("an object's tags: {error}"))),
    }
}
