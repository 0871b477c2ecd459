//! The five checksums that clients send and ask for: which are wanted, whether they fit, and those of objects put together
//! from parts.

use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_types::base64;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::Checksum;
use s3s::{S3Error, S3ErrorCode, s3_error};

use super::Problem;

/// A kind of checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Algorithm {
    /// ISO HDLC.
    Crc32,
    /// Castagnoli.
    Crc32c,
    /// 20 bytes.
    Sha1,
    /// 32 bytes.
    Sha256,
    /// 8 bytes.
    Crc64Nvme,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Sha1,
        Self::Sha256,
        Self::Crc64Nvme,
    ];

    /// As S3 writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Crc64Nvme => "CRC64NVME",
        }
    }

    /// By its name, in any case.
    pub fn named(name: &str) -> Result<Self, S3Error> {
        let found = Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name.trim()));
        found.ok_or_else(|| s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]"))
    }

    /// The header that carries it.
    pub fn header(self) -> String {
        format!("x-amz-checksum-{}", self.name().to_ascii_lowercase())
    }

    /// How long it is.
    fn bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Where an answer or a request has it.
    pub fn of(self, sums: &Checksum) -> Option<&String> {
        match self {
            Self::Crc32 => sums.checksum_crc32.as_ref(),
            Self::Crc32c => sums.checksum_crc32c.as_ref(),
            Self::Sha1 => sums.checksum_sha1.as_ref(),
            Self::Sha256 => sums.checksum_sha256.as_ref(),
            Self::Crc64Nvme => sums.checksum_crc64nvme.as_ref(),
        }
    }

    /// Puts it there.
    pub fn put(self, sums: &mut Checksum, value: String) {
        let place = match self {
            Self::Crc32 => &mut sums.checksum_crc32,
            Self::Crc32c => &mut sums.checksum_crc32c,
            Self::Sha1 => &mut sums.checksum_sha1,
            Self::Sha256 => &mut sums.checksum_sha256,
            Self::Crc64Nvme => &mut sums.checksum_crc64nvme,
        };
        *place = Some(value);
    }

    /// That of a sequence of parts' checksums.
    fn of_parts(self, sums: &[u8]) -> Vec<u8> {
        match self {
            Self::Crc32 => Crc32::checksum(sums).to_vec(),
            Self::Crc32c => Crc32c::checksum(sums).to_vec(),
            Self::Sha1 => Sha1::checksum(sums).to_vec(),
            Self::Sha256 => Sha256::checksum(sums).to_vec(),
            Self::Crc64Nvme => Crc64Nvme::checksum(sums).to_vec(),
        }
    }
}

/// What has passed of a request's body on its way to those who read it whole, and keep no bytes.
#[derive(Clone)]
pub struct Passed(Arc<Mutex<(ChecksumHasher, Md5)>>);

impl Passed {
    /// For a body of which something is said.
    pub fn of(headers: &hyper::HeaderMap) -> Option<Self> {
        let wanted: Vec<Algorithm> = Algorithm::ALL
            .into_iter()
            .filter(|algorithm| headers.contains_key(algorithm.header()))
            .collect();
        let said = !wanted.is_empty() || headers.contains_key("content-md5");
        said.then(|| Self(Arc::new(Mutex::new((hasher(&wanted), Md5::new())))))
    }

    /// More of it.
    pub fn take(&self, bytes: &[u8]) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.0.update(bytes);
        sums.1.update(bytes);
    }

    /// The checksums of all of it.
    pub fn finish(&self) -> (Checksum, [u8; 16]) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, md5) = std::mem::replace(&mut *sums, (hasher(&[]), Md5::new()));
        (asked.finalize(), md5.finalize())
    }
}

/// Takes these kinds while a body comes in.
pub fn hasher(wanted: &[Algorithm]) -> ChecksumHasher {
    let mut hasher = ChecksumHasher::default();
    for algorithm in wanted {
        match algorithm {
            Algorithm::Crc32 => hasher.crc32 = Some(Crc32::new()),
            Algorithm::Crc32c => hasher.crc32c = Some(Crc32c::new()),
            Algorithm::Sha1 => hasher.sha1 = Some(Sha1::new()),
            Algorithm::Sha256 => hasher.sha256 = Some(Sha256::new()),
            Algorithm::Crc64Nvme => hasher.crc64nvme = Some(Crc64Nvme::new()),
        }
    }
    hasher
}

/// Refuses a body whose checksums are not those that were sent with it.
pub fn compare(sent: &Checksum, found: &Checksum) -> Result<(), S3Error> {
    for algorithm in Algorithm::ALL {
        let Some(sent) = algorithm.of(sent) else {
            continue;
        };
        if !base64::decode(sent).is_ok_and(|sum| sum.len() == algorithm.bytes()) {
            return Err(s3_error!(
                InvalidRequest,
                "Value for {} header is invalid.",
                algorithm.header()
            ));
        }
        if algorithm.of(found) != Some(sent) {
            return Err(s3_error!(
                BadDigest,
                "The {} you specified did not match the calculated checksum.",
                algorithm.name()
            ));
        }
    }
    Ok(())
}

/// Refuses a body whose Content-MD5 is not its own.
pub fn compare_md5(sent: &str, found: [u8; 16]) -> Result<(), S3Error> {
    match base64::decode(sent) {
        Ok(sum) if sum == found => Ok(()),
        Ok(sum) if sum.len() == 16 => Err(s3_error!(
            BadDigest,
            "The Content-MD5 you specified did not match what we received."
        )),
        _ => Err(s3_error!(
            InvalidDigest,
            "The Content-MD5 you specified was invalid."
        )),
    }
}

/// Each part's checksum and size put together: the checksum of checksums, with the number of parts behind it.
pub fn composite(algorithm: Algorithm, parts: &[(String, u64)]) -> Result<String, Problem> {
    let mut all = Vec::new();
    for (sum, _) in parts {
        all.extend(decoded(sum)?);
    }
    let sum = base64::encode(algorithm.of_parts(&all));
    Ok(format!("{sum}-{}", parts.len()))
}

/// Each part's checksum and size put together: the checksum of all the bytes.
pub fn full_object(algorithm: Algorithm, parts: &[(String, u64)]) -> Result<String, Problem> {
    let (polynomial, width): (u64, u32) = match algorithm {
        Algorithm::Crc32 => (0xedb8_8320, 32),
        Algorithm::Crc32c => (0x82f6_3b78, 32),
        Algorithm::Crc64Nvme => (0x9a6c_9329_ac4b_c9b5, 64),
        Algorithm::Sha1 | Algorithm::Sha256 => {
            return Err(s3_error!(
                InvalidRequest,
                "The FULL_OBJECT checksum type cannot be used with the {} checksum algorithm.",
                algorithm.name()
            )
            .into());
        }
    };
    let mut crc = 0;
    for (sum, size) in parts {
        let next = decoded(sum)?
            .iter()
            .fold(0, |crc, byte| crc << 8 | u64::from(*byte));
        crc = advance(crc, *size, polynomial, width) ^ next;
    }
    let bytes = crc.to_be_bytes();
    Ok(base64::encode(&bytes[8 - (width / 8) as usize..]))
}

/// A reflected CRC after so many zero bytes more: that many times eight steps of its register, by squaring.
fn advance(crc: u64, zeros: u64, polynomial: u64, width: u32) -> u64 {
    // One zero bit: the register as a matrix, a column for each of its bits.
    let mut step = [0u64; 64];
    step[0] = polynomial;
    for (bit, column) in step.iter_mut().enumerate().take(width as usize).skip(1) {
        *column = 1 << (bit - 1);
    }
    let times = |matrix: &[u64; 64], mut vector: u64| {
        let mut product = 0;
        let mut at = 0;
        while vector != 0 {
            if vector & 1 == 1 {
                product ^= matrix[at];
            }
            vector >>= 1;
            at += 1;
        }
        product
    };
    let square = |matrix: &[u64; 64]| {
        let mut squared = [0u64; 64];
        for bit in 0..width as usize {
            squared[bit] = times(matrix, matrix[bit]);
        }
        squared
    };
    // Eight bits are a byte.
    for _ in 0..3 {
        step = square(&step);
    }
    let (mut crc, mut zeros) = (crc, zeros);
    while zeros > 0 {
        if zeros & 1 == 1 {
            crc = times(&step, crc);
        }
        zeros >>= 1;
        if zeros > 0 {
            step = square(&step);
        }
    }
    crc
}

fn decoded(sum: &str) -> Result<Vec<u8>, Problem> {
    base64::decode(sum).map_err(|_| {
        S3Error::with_message(S3ErrorCode::InvalidPart, "A part has no checksum").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_parts_give_that_of_the_whole() {
        let bytes: Vec<u8> = (0..100_003u32).map(|n| (n * 7 % 251) as u8).collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let sum = |bytes: &[u8]| base64::encode(algorithm.of_parts(bytes));
            for cuts in [vec![0], vec![1, 65_536], vec![50_000, 99_999, 100_000]] {
                let mut parts = Vec::new();
                let mut from = 0;
                for cut in cuts.into_iter().chain([bytes.len()]) {
                    let part = &bytes[from..cut];
                    parts.push((sum(part), part.len() as u64));
                    from = cut;
                }
                let whole = full_object(algorithm, &parts).unwrap();
                assert_eq!(whole, sum(&bytes), "{algorithm:?}");
            }
        }
    }

    #[test]
    fn a_checksum_that_is_none_is_another_error_than_one_that_does_not_fit() {
        let found = Checksum {
            checksum_crc32: Some(base64::encode([1, 2, 3, 4])),
            ..Checksum::default()
        };
        let sent = |text: &str| Checksum {
            checksum_crc32: Some(text.into()),
            ..Checksum::default()
        };
        let code = |text: &str| compare(&sent(text), &found).unwrap_err().code().clone();
        assert_eq!(code("AAAA"), S3ErrorCode::InvalidRequest);
        assert_eq!(code("AQIDBQ=="), S3ErrorCode::BadDigest);
        assert!(compare(&sent("AQIDBA=="), &found).is_ok());
    }
}
