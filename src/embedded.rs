//! Embedded mode: S3 served in process on loopback, from the [`crate::store`] under the data directory, reached by the same
//! client as any store.
//!
//! Guarantees: requests must be signed with the key pair of [`KeyPair::load_or_create`]; connections are bounded, and a client
//! that stops sending is cut off; every answer has a request id. What strangers ask is counted, and no error of ours.

mod answers;
mod forms;
mod several;

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;

use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::service::S3ServiceBuilder;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::ops::cors::{self, Cors};
use crate::ops::date::dated;
use crate::ops::slots::{Slot, Slots};
use crate::ops::tls::{Tls, secure};
use crate::store::checksums::Passed;
use crate::store::service::Service;
use crate::store::{Options, Store};
use answers::{Gate, Hosts, OneKey};

/// Connections at once; for the next one, the one that came first is let go.
const MOST_CONNECTIONS: usize = 512;
/// A client that has not sent its headers by then, or that keeps a connection idle for so long, is cut off.
const HEADER_DEADLINE: Duration = Duration::from_secs(30);
/// All headers of a request together.
const MOST_HEADER_BYTES: usize = 128 << 10;
/// So much of a body that is refused is read, for so long at most.
const DRAINED: usize = 256 << 10;
const DRAIN_DEADLINE: Duration = Duration::from_secs(1);
/// So long a body may pause.
const BODY_PAUSE: Duration = Duration::from_secs(20);

/// What the key file's last line begins with.
const SUM: &str = "# checksum ";

/// The key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It does not hold what was written.
    #[error(
        "the key pair {path} is damaged: {problem}. Put the file back from a backup; or remove it, and at the next start a \
         new pair is made, which every client must then be given"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: &'static str,
    },
    /// The disk refused.
    #[error(
        "the key pair {path} cannot be read or written: {source}; make the data directory's disk work for this user, or set \
         data_dir"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// An access key and its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The access key id.
    pub access_key: String,
    /// The secret.
    pub secret_key: String,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyPair({}, ...)", self.access_key)
    }
}

/// A running embedded store.
#[derive(Debug)]
pub struct EmbeddedS3 {
    address: SocketAddr,
    /// Where this process reaches it, which needs no certificate.
    inside: SocketAddr,
    encrypted: bool,
    store: Store,
    /// Cancelled once a listener answers no more.
    ended: CancellationToken,
    shutdown: CancellationToken,
}

impl KeyPair {
    /// The key pair in `data_dir/credentials`, in the AWS shared-credentials format, made up at the first call. Only the
    /// owner can read the file.
    pub fn load_or_create(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("credentials");
        match std::fs::read(&path) {
            Ok(bytes) => {
                if std::fs::metadata(&path).is_ok_and(|file| file.mode() & 0o077 != 0) {
                    warn!(path = %path.display(), "others on this machine can read the key pair: chmod 600 it");
                }
                let text = String::from_utf8_lossy(&bytes);
                return Self::parse(&text).map_err(|problem| {
                    anyhow::Error::from(KeyFileError::Damaged {
                        path: path.clone(),
                        problem,
                    })
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(KeyFileError::Io { path, source }.into()),
        }
        let pair = Self {
            access_key: format!(
                "LOOKOUTD{}",
                random(12, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")?
            ),
            secret_key: random(
                40,
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            )?,
        };
        let staging = data_dir.join(".credentials.new");
        // Made anew, so that neither the mode nor the target of what lies there matters.
        let _ = std::fs::remove_file(&staging);
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&staging)
            .and_then(|mut file| {
                write!(
                    file,
                    "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n{SUM}{}\n",
                    pair.access_key,
                    pair.secret_key,
                    pair.sum()
                )?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&staging, &path))
            .and_then(|()| std::fs::File::open(data_dir)?.sync_all());
        written.map_err(|source| KeyFileError::Io { path, source })?;
        Ok(pair)
    }

    /// The pair in a file's text, or what is wrong with it. A file that was cut short is never read by half.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let value = |name: &str| {
            text.lines().find_map(|line| {
                let (key, value) = line.split_once('=')?;
                (key.trim() == name && !value.trim().is_empty()).then(|| value.trim().to_owned())
            })
        };
        let (Some(access_key), Some(secret_key)) =
            (value("aws_access_key_id"), value("aws_secret_access_key"))
        else {
            return Err("expected aws_access_key_id and aws_secret_access_key");
        };
        let pair = Self {
            access_key,
            secret_key,
        };
        match text.lines().find_map(|line| line.strip_prefix(SUM)) {
            Some(sum) if sum.trim() == pair.sum() => Ok(pair),
            Some(_) => Err("the keys are not those that its last line is the checksum of"),
            // Of an older lookoutd, or of a person.
            None if !text.ends_with('\n') => Err("it does not end with a line: it was cut short"),
            None if text.contains('#') => Err("its last line is not the checksum it was"),
            None => Ok(pair),
        }
    }

    fn sum(&self) -> String {
        let text = format!("{}\n{}", self.access_key, self.secret_key);
        blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
    }
}

impl EmbeddedS3 {
    /// Serves `root` on `listen` (port 0 chooses a free one) until `shutdown`.
    pub async fn start(
        root: &Path,
        listen: SocketAddr,
        keys: &KeyPair,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        Self::start_tls(root, listen, keys, None, Cors::default(), shutdown).await
    }

    /// As [`EmbeddedS3::start`]; with a certificate `listen` speaks TLS only, and a second listener on a free loopback port
    /// is for this process.
    pub async fn start_tls(
        root: &Path,
        listen: SocketAddr,
        keys: &KeyPair,
        tls: Option<Tls>,
        cors: Cors,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        Self::start_with(root, listen, keys, tls, cors, Options::default(), shutdown).await
    }

    /// As [`EmbeddedS3::start_tls`], over a store that is opened so.
    pub async fn start_with(
        root: &Path,
        listen: SocketAddr,
        keys: &KeyPair,
        tls: Option<Tls>,
        cors: Cors,
        options: Options,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let directory = root.to_owned();
        let opened = tokio::task::spawn_blocking(move || Store::open(&directory, &options));
        let store = opened.await.context("opening the store")??;
        let service = Service::new(store.clone());
        let mut builder = S3ServiceBuilder::new(service.clone());
        builder.set_auth(OneKey::new(keys));
        builder.set_host(Hosts);
        builder.set_route(several::Whole::of(service));
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("embedded S3 cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let gate = Arc::new(Gate::new(builder.build(), cors));
        let encrypted = tls.is_some();
        let mut inside = address;
        let ended = CancellationToken::new();
        let answer = |listener, tls, gate| {
            let (guard, shutdown) = (ended.clone().drop_guard(), shutdown.clone());
            tokio::spawn(async move {
                // Dropped as well where it panics.
                let _guard = guard;
                serve(listener, tls, gate, shutdown).await;
            });
        };
        if encrypted {
            let own = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
            inside = own.local_addr()?;
            answer(own, None, gate.clone());
        } else if !address.ip().is_loopback() {
            warn!(%address, "the embedded S3 is reached from elsewhere without TLS: requests are signed, but can be read on the way");
            inside = SocketAddr::from(([127, 0, 0, 1], address.port()));
            if !address.ip().is_unspecified() {
                inside = address;
            }
        }
        answer(listener, tls, gate);
        Ok(Self {
            address,
            inside,
            encrypted,
            store,
            ended,
            shutdown,
        })
    }

    /// Returns when a listener has ended before it was told to.
    pub async fn failed(&self) {
        self.ended.cancelled().await;
        if self.shutdown.is_cancelled() {
            std::future::pending().await
        }
    }

    /// Where this process reaches it.
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.inside)
    }

    /// Where others reach it.
    pub fn url(&self) -> String {
        let scheme = if self.encrypted { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Makes sure a bucket exists.
    pub fn create_bucket(&self, name: &str) -> anyhow::Result<()> {
        self.store
            .create_bucket(name)
            .with_context(|| format!("making the bucket {name}"))
    }

    /// The store that is served.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    gate: Arc<Gate>,
    shutdown: CancellationToken,
) {
    let slots = Slots::new(MOST_CONNECTIONS);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "embedded S3 could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let slot = tokio::select! {
            () = shutdown.cancelled() => return,
            slot = slots.take() => slot,
        };
        let (tls, gate, shutdown) = (tls.clone(), gate.clone(), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = converse(stream, tls, gate, &slot) => {}
            }
        });
    }
}

/// One connection to its end.
async fn converse(stream: TcpStream, tls: Option<Tls>, gate: Arc<Gate>, slot: &Slot) {
    // Small answers must not wait for more to send.
    let _ = stream.set_nodelay(true);
    let stream = match secure(tls.as_ref(), stream).await {
        Ok(stream) => stream,
        Err(error) => return debug!(%error, "embedded S3 handshake failed"),
    };
    let service = service_fn(move |request| {
        let gate = gate.clone();
        async move {
            // A length beside it may mean something else to a proxy in between: nothing that follows is a request.
            let chunked = request
                .headers()
                .contains_key(hyper::header::TRANSFER_ENCODING);
            if let Some(headers) = gate.cors().preflight(&request) {
                let mut answer = hyper::Response::new(s3s::Body::empty());
                *answer.headers_mut() = headers;
                answers::name(&mut answer, &answers::new_id());
                return Ok(dated(answer));
            }
            let page = gate.cors().allowed(request.headers());
            let mut answer = gate.answer(request).await;
            if let (Some(page), Ok(answer)) = (page, &mut answer) {
                cors::mark(answer.headers_mut(), page);
            }
            if let (true, Ok(answer)) = (chunked, &mut answer) {
                let close = hyper::header::HeaderValue::from_static("close");
                answer
                    .headers_mut()
                    .insert(hyper::header::CONNECTION, close);
            }
            answer.map(dated)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(MOST_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = slot.wanted_back() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "embedded S3 connection ended");
    }
}

/// A body whose sender may pause, but not for ever. What an answer left of it can be read afterwards.
struct Impatient {
    body: Rest,
    pause: Pin<Box<Sleep>>,
    held: Option<forms::Held>,
    /// What passed of a body that is read whole, where something was said of it.
    passed: Option<Passed>,
}

/// What is left of a body.
#[derive(Clone)]
struct Rest(Arc<Mutex<Incoming>>);

impl Rest {
    fn of(body: Incoming) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    fn body(&self, held: Option<forms::Held>, passed: Option<Passed>) -> s3s::Body {
        s3s::Body::http_body_unsync(Impatient {
            held,
            passed,
            body: self.clone(),
            pause: Box::pin(tokio::time::sleep(BODY_PAUSE)),
        })
    }

    fn incoming(&self) -> std::sync::MutexGuard<'_, Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all of it was read.
    fn has_ended(&self) -> bool {
        self.incoming().is_end_stream()
    }

    /// Reads a little of what nobody wanted: a client that is refused before it has sent all of a small body goes on with the
    /// same connection.
    async fn drain(&self) {
        let mut left = DRAINED;
        let read = std::future::poll_fn(|cx| {
            while left > 0 {
                match Pin::new(&mut *self.incoming()).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(())
        });
        let _ = tokio::time::timeout(DRAIN_DEADLINE, read).await;
    }
}

impl Body for Impatient {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            let polled = Pin::new(&mut *self.body.incoming()).poll_frame(cx);
            let Poll::Ready(frame) = polled else {
                return self
                    .pause
                    .as_mut()
                    .poll(cx)
                    .map(|()| Some(Err(std::io::ErrorKind::TimedOut.into())));
            };
            self.pause.as_mut().reset(Instant::now() + BODY_PAUSE);
            if let (Some(passed), Some(Ok(frame))) = (&self.passed, &frame)
                && let Some(bytes) = frame.data_ref()
            {
                passed.take(bytes);
            }
            let Some(held) = &mut self.held else {
                return Poll::Ready(frame.map(|frame| frame.map_err(std::io::Error::other)));
            };
            let going = match frame {
                Some(Ok(frame)) => match frame.data_ref().and_then(|bytes| held.take(bytes)) {
                    Some(going) => going,
                    None => continue,
                },
                None => held.rest(),
                Some(Err(error)) => return Poll::Ready(Some(Err(std::io::Error::other(error)))),
            };
            self.held = None;
            return Poll::Ready(Some(Ok(Frame::data(going))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.body.incoming().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.held {
            // It may become shorter or longer.
            Some(_) => SizeHint::default(),
            None => self.body.incoming().size_hint(),
        }
    }
}

fn random(length: usize, alphabet: &[u8]) -> anyhow::Result<String> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    // The alphabets are at most 64 long, so the bias of the remainder is small and harmless here.
    Ok(bytes
        .into_iter()
        .map(|byte| char::from(alphabet[usize::from(byte) % alphabet.len()]))
        .collect())
}
