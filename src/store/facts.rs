//! What an object carries beside its bytes: headers, metadata, checksums. One JSON text in its row.

use std::collections::BTreeMap;

use s3s::dto::{Checksum, ChecksumType, Metadata, Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, s3_error};
use serde::{Deserialize, Serialize};

use super::Problem;

/// All of the metadata, and all other headers, as S3 has it.
const LONGEST_METADATA: usize = 2 << 10;
const LONGEST_HEADERS: usize = 8 << 10;

/// What the client said of its object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// As in the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// By the names of their kinds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub checksums: BTreeMap<String, String>,
    /// Whether the checksums are of the parts' checksums.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub composite: bool,
}

impl Facts {
    /// The text in the row; nothing for an object of which nothing was said.
    pub fn to_text(&self) -> Result<Option<String>, Problem> {
        if *self == Self::default() {
            return Ok(None);
        }
        let text = serde_json::to_string(self);
        Ok(Some(
            text.map_err(|error| Problem::Damaged(error.to_string()))?,
        ))
    }

    /// As the client gave them; S3 has limits, which a header of ours would burst otherwise.
    pub fn checked(self) -> Result<Self, S3Error> {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let metadata = self.metadata.iter();
        let of_metadata: usize = metadata.map(|(name, value)| name.len() + value.len()).sum();
        if of_metadata > LONGEST_METADATA {
            return Err(s3_error!(
                MetadataTooLarge,
                "Your metadata headers exceed the maximum allowed metadata size"
            ));
        }
        let said = [
            &self.content_type,
            &self.content_encoding,
            &self.content_disposition,
            &self.content_language,
            &self.cache_control,
            &self.expires,
            &self.redirect,
        ];
        if said.into_iter().map(length).sum::<usize>() > LONGEST_HEADERS {
            let mut error = S3Error::with_message(
                S3ErrorCode::RequestHeaderSectionTooLarge,
                "Your request header section exceeds the maximum allowed request header section size",
            );
            error.set_status_code(hyper::StatusCode::BAD_REQUEST);
            return Err(error);
        }
        Ok(self)
    }

    pub fn of_text(text: Option<&str>) -> Result<Self, Problem> {
        match text {
            None => Ok(Self::default()),
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Problem::Damaged(format!("an object's headers: {error}"))),
        }
    }

    /// The stored encoding, without that of the transfer.
    pub fn encoding(sent: Option<String>) -> Option<String> {
        let kept: Vec<&str> = sent
            .as_deref()?
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty() && !part.eq_ignore_ascii_case("aws-chunked"))
            .collect();
        (!kept.is_empty()).then(|| kept.join(", "))
    }

    pub fn expires(sent: Option<Timestamp>) -> Option<String> {
        let mut text = Vec::new();
        sent?.format(TimestampFormat::HttpDate, &mut text).ok()?;
        String::from_utf8(text).ok()
    }

    pub fn expires_at(&self) -> Option<Timestamp> {
        Timestamp::parse(TimestampFormat::HttpDate, self.expires.as_deref()?).ok()
    }

    pub fn metadata(sent: Option<Metadata>) -> BTreeMap<String, String> {
        sent.into_iter().flatten().collect()
    }

    pub fn to_metadata(&self) -> Option<Metadata> {
        let pairs = self.metadata.iter();
        let metadata: Metadata = pairs
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        (!metadata.is_empty()).then_some(metadata)
    }

    /// Keeps checksums.
    pub fn keep(&mut self, sums: &Checksum) {
        for algorithm in super::checksums::Algorithm::ALL {
            if let Some(sum) = algorithm.of(sums) {
                self.checksums
                    .insert(algorithm.name().to_owned(), sum.clone());
            }
        }
    }

    /// The checksums as an answer has them.
    pub fn to_checksum(&self) -> Checksum {
        let mut sums = Checksum::default();
        for algorithm in super::checksums::Algorithm::ALL {
            if let Some(sum) = self.checksums.get(algorithm.name()) {
                algorithm.put(&mut sums, sum.clone());
            }
        }
        if !self.checksums.is_empty() {
            let kind = if self.composite {
                ChecksumType::COMPOSITE
            } else {
                ChecksumType::FULL_OBJECT
            };
            sums.checksum_type = Some(ChecksumType::from_static(kind));
        }
        sums
    }
}
