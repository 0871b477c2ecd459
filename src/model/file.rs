//! The container of models and scoring states on disk and on the wire.
//!
//! ```text
//! magic 8 | version u32 LE | payload length u64 LE | BLAKE3 of version, length and payload, 32 | payload (postcard)
//! ```
//!
//! Reading refuses everything that is not exactly what was written: another kind of file, a newer version, too few or too
//! many bytes, any flipped bit. It never guesses.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind of file: its magic bytes and its name for people.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    magic: [u8; 8],
    name: &'static str,
}

impl Kind {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

/// A trained model.
pub const MODEL: Kind = Kind {
    magic: *b"LKTMODEL",
    name: "model file",
};
/// A scoring state.
pub const STATE: Kind = Kind {
    magic: *b"LKTSTATE",
    name: "scoring state",
};

const VERSION: u32 = 1;
const HEADER: usize = 8 + 4 + 8 + 32;

/// Why bytes were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelFileError {
    /// The bytes start like something else.
    #[error("this is not a lookoutd {0}: it does not start with its mark")]
    AnotherKind(&'static str),
    /// Written by a newer lookoutd.
    #[error(
        "this {kind} has format version {found}, this lookoutd reads up to {VERSION}; update lookoutd, or train again"
    )]
    Newer {
        /// What kind of file.
        kind: &'static str,
        /// Its version.
        found: u32,
    },
    /// Fewer or more bytes than were written.
    #[error(
        "this {kind} is {found} bytes long, but {expected} were written: it was cut off or appended to; restore it from a copy"
    )]
    Length {
        /// What kind of file.
        kind: &'static str,
        /// Bytes there should be.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The checksum does not match.
    #[error(
        "this {0} is damaged: its checksum does not match; restore it from a copy, or train again"
    )]
    Damaged(&'static str),
    /// The checksum matches, but the content is not one that is ever written.
    #[error(
        "this {0} holds what lookoutd never writes, although its checksum matches; restore it from a copy, or train again"
    )]
    Content(&'static str),
}

/// Wraps a value.
pub fn encode(kind: Kind, value: &impl Serialize) -> Vec<u8> {
    // Serialising plain numbers, texts and vectors into memory cannot fail.
    let payload = postcard::to_allocvec(value).unwrap_or_default();
    let length = payload.len() as u64;
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&kind.magic);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum(VERSION, length, &payload));
    bytes.extend_from_slice(&payload);
    bytes
}

/// Reads a value back.
pub fn decode<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, ModelFileError> {
    let found = bytes.len() as u64;
    let short = ModelFileError::Length {
        kind: kind.name,
        expected: HEADER as u64,
        found,
    };
    let (magic, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or_else(|| short.clone())?;
    if *magic != kind.magic {
        return Err(ModelFileError::AnotherKind(kind.name));
    }
    let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(|| short.clone())?;
    let version = u32::from_le_bytes(*version);
    if version > VERSION {
        return Err(ModelFileError::Newer {
            kind: kind.name,
            found: version,
        });
    }
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(|| short.clone())?;
    let length = u64::from_le_bytes(*length);
    let (sum, payload) = rest.split_first_chunk::<32>().ok_or(short)?;
    if payload.len() as u64 != length {
        return Err(ModelFileError::Length {
            kind: kind.name,
            expected: length.saturating_add(HEADER as u64),
            found,
        });
    }
    if checksum(version, length, payload) != *sum {
        return Err(ModelFileError::Damaged(kind.name));
    }
    postcard::from_bytes(payload).map_err(|_| ModelFileError::Content(kind.name))
}

/// The checksum that `encode` stored; it identifies the content.
pub fn fingerprint(bytes: &[u8]) -> [u8; 32] {
    bytes
        .get(HEADER - 32..HEADER)
        .and_then(|sum| sum.try_into().ok())
        .unwrap_or_default()
}

fn checksum(version: u32, length: u64, payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&version.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(payload);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_reads_back() {
        let value = (vec![1.5_f64, f64::INFINITY], "text".to_owned());
        assert_eq!(
            decode::<(Vec<f64>, String)>(STATE, &encode(STATE, &value)).unwrap(),
            value
        );
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let bytes = encode(MODEL, &vec![3_u32, 4, 5]);
        for length in 0..bytes.len() {
            assert!(
                decode::<Vec<u32>>(MODEL, &bytes[..length]).is_err(),
                "cut to {length}"
            );
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Vec<u32>>(MODEL, &flipped).is_err(), "bit {bit}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(
            decode::<Vec<u32>>(MODEL, &longer),
            Err(ModelFileError::Length { .. })
        ));
    }

    #[test]
    fn a_newer_version_and_another_kind_say_so() {
        let mut bytes = encode(MODEL, &7_u8);
        assert_eq!(
            decode::<u8>(STATE, &bytes),
            Err(ModelFileError::AnotherKind("scoring state"))
        );
        bytes[8] = 2;
        assert_eq!(
            decode::<u8>(MODEL, &bytes),
            Err(ModelFileError::Newer {
                kind: "model file",
                found: 2
            })
        );
    }
}
