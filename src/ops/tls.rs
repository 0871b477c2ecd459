//! TLS for listeners that others can reach: a certificate chain and its key from two PEM files, with rustls.
//!
//! Guarantees: a pair that does not fit together is refused before anything listens; files that were replaced are taken by
//! the next connections within two seconds, without a restart, and a pair that does not fit then is told once and the old one
//! stays; a handshake that does not end is cut off. It verifies no client: keys and tokens do that. The cryptography is that
//! of the AWS clients, so that there is one implementation in the binary.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    self, CertificateError, RootCertStore, ServerConfig, client, crypto::aws_lc_rs,
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tracing::{info, warn};

use super::stalls::Stalls;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Seconds of the last moment that a certificate can name.
const NEVER: u64 = 253_402_300_799;

/// A connection, encrypted or not.
pub type Stream = Either<Stalls<TcpStream>, TlsStream<Stalls<TcpStream>>>;

/// A certificate chain and its key. Clones share them.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    acceptor: TlsAcceptor,
    stamp: Stamp,
    looked: Instant,
}

/// When both files were last changed.
type Stamp = [Option<SystemTime>; 2];

/// Why a pair cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of its kind.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Both can be read and do not belong together.
    #[error("{} and {} cannot be used together: {problem}", certificate.display(), key.display())]
    Pair {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What is wrong.
        problem: rustls::Error,
    },
}

/// From when and until when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It holds now, until this time.
    Until(DateTime<Utc>),
    /// It ended.
    Ended(DateTime<Utc>),
    /// It begins later.
    Begins(DateTime<Utc>),
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({})", self.0.certificate.display())
    }
}

impl Tls {
    /// Reads a pair; `None` where neither file is named.
    pub fn open(certificate: &str, key: &str) -> Result<Option<Self>, TlsError> {
        if certificate.is_empty() && key.is_empty() {
            return Ok(None);
        }
        let (certificate, key) = (PathBuf::from(certificate), PathBuf::from(key));
        let stamp = stamp(&certificate, &key);
        let acceptor = acceptor(&certificate, &key)?;
        Ok(Some(Self(Arc::new(Inner {
            certificate,
            key,
            current: Mutex::new(Current {
                acceptor,
                stamp,
                looked: Instant::now(),
            }),
        }))))
    }

    /// Until when the certificate of the pair holds, seen from `now`.
    pub fn validity(&self, now: DateTime<Utc>) -> Result<Validity, TlsError> {
        let chain = chain(&self.0.certificate)?;
        validity(&chain[0], now).ok_or_else(|| TlsError::File {
            path: self.0.certificate.clone(),
            problem: "its first certificate cannot be understood".into(),
        })
    }

    /// The pair as it is now.
    fn acceptor(&self) -> TlsAcceptor {
        let mut current = lock(&self.0.current);
        if current.looked.elapsed() < LOOK_EVERY {
            return current.acceptor.clone();
        }
        current.looked = Instant::now();
        let stamp = stamp(&self.0.certificate, &self.0.key);
        if stamp == current.stamp {
            return current.acceptor.clone();
        }
        // A pair that is refused is not looked at again before a file changes.
        current.stamp = stamp;
        match acceptor(&self.0.certificate, &self.0.key) {
            Ok(acceptor) => {
                current.acceptor = acceptor;
                info!(certificate = %self.0.certificate.display(), "a new certificate is in use");
            }
            Err(error) => warn!(%error, "the new certificate is refused, the old one stays in use"),
        }
        current.acceptor.clone()
    }
}

/// Shakes hands where there is a certificate; passes the connection on where there is none.
pub async fn secure(tls: Option<&Tls>, stream: TcpStream) -> io::Result<Stream> {
    let stream = Stalls::new(stream);
    match tls {
        None => Ok(Either::Left(stream)),
        Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(stream)).await {
            Ok(accepted) => accepted.map(Either::Right),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        },
    }
}

/// What is wrong with naming one file and not the other.
pub fn half(certificate: &str, key: &str) -> Option<&'static str> {
    match (certificate.is_empty(), key.is_empty()) {
        (false, true) => Some("is needed with the certificate: the file of its private key, PEM"),
        (true, false) => Some("is needed with the key: the file of the certificate chain, PEM"),
        _ => None,
    }
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let chain = chain(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::File {
        path: key.to_owned(),
        problem: format!("no private key in PEM can be read from it ({error}); it begins with -----BEGIN PRIVATE KEY-----"),
    })?;
    let pair = |problem| TlsError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        problem,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, secret)
        })
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |problem: String| TlsError::File {
        path: path.to_owned(),
        problem,
    };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| {
            fail(format!(
                "no certificate in PEM can be read from it ({error})"
            ))
        })?;
    if chain.is_empty() {
        return Err(fail(
            "has no certificate; it begins with -----BEGIN CERTIFICATE-----".into(),
        ));
    }
    Ok(chain)
}

/// The library tells a certificate's dates only in its refusals: asked about the end of all time, it names the end.
fn validity(certificate: &CertificateDer<'_>, now: DateTime<Utc>) -> Option<Validity> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let algorithms = aws_lc_rs::default_provider()
        .signature_verification_algorithms
        .all;
    let ask = |seconds: u64| {
        client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &RootCertStore::empty(),
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
            algorithms,
        )
        .err()
    };
    let date = |time: UnixTime| DateTime::from_timestamp(i64::try_from(time.as_secs()).ok()?, 0);
    let now = u64::try_from(now.timestamp()).ok()?;
    if let Some(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
        not_before,
        ..
    })) = ask(now)
    {
        return date(not_before).map(Validity::Begins);
    }
    let end = match ask(NEVER) {
        Some(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after,
            ..
        })) => not_after.as_secs(),
        _ => NEVER,
    };
    let until = DateTime::from_timestamp(i64::try_from(end).ok()?, 0)?;
    Some(if end < now {
        Validity::Ended(until)
    } else {
        Validity::Until(until)
    })
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|path| {
        std::fs::metadata(path)
            .and_then(|file| file.modified())
            .ok()
    })
}

fn lock(current: &Mutex<Current>) -> MutexGuard<'_, Current> {
    current.lock().unwrap_or_else(PoisonError::into_inner)
}
