//! Embedded mode: S3 served in process on loopback, files under the data directory, reached by the same client as any store.
//!
//! Guarantees: conditional creates are atomic (they are taken one at a time), and a PUT is acknowledged after its bytes are
//! durable. Requests must be signed with the key pair of [`KeyPair::load_or_create`]. Listings are its own ([`listing`]); beyond
//! them it serves what s3s-fs implements and nothing more, and it is not meant to be reached from other machines.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

mod listing;

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
    root: PathBuf,
}

impl KeyPair {
    /// The key pair in `data_dir/credentials`, in the AWS shared-credentials format, made up at the first call. Only the
    /// owner can read the file.
    pub fn load_or_create(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("credentials");
        match std::fs::read(&path) {
            Ok(bytes) => {
                return Self::parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| {
                    anyhow!(
                        "{}: expected aws_access_key_id and aws_secret_access_key; remove the file to have it made anew",
                        path.display()
                    )
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
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
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&staging)
            .and_then(|mut file| {
                write!(
                    file,
                    "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
                    pair.access_key, pair.secret_key
                )?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&staging, &path));
        written.with_context(|| format!("writing {}", path.display()))?;
        Ok(pair)
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            text.lines().find_map(|line| {
                let (key, value) = line.split_once('=')?;
                (key.trim() == name).then(|| value.trim().to_owned())
            })
        };
        Some(Self {
            access_key: value("aws_access_key_id")?,
            secret_key: value("aws_secret_access_key")?,
        })
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
        std::fs::create_dir_all(root).with_context(|| format!("creating {}", root.display()))?;
        let files = s3s_fs::FileSystem::new(root)
            .map_err(|error| anyhow!("embedded S3 in {}: {error:?}", root.display()))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(
            keys.access_key.clone(),
            keys.secret_key.clone(),
        ));
        builder.set_route(listing::Listing::new(root.to_owned()));
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("embedded S3 cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        tokio::spawn(serve(
            listener,
            Arc::new(Store {
                s3: builder.build(),
                root: root.to_owned(),
                creating: Mutex::new(()),
            }),
            shutdown,
        ));
        Ok(Self {
            address,
            root: root.to_owned(),
        })
    }

    /// Where clients reach it.
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes sure a bucket exists.
    pub fn create_bucket(&self, name: &str) -> anyhow::Result<()> {
        let path = self.root.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))
    }
}

struct Store {
    s3: S3Service,
    root: PathBuf,
    creating: Mutex<()>,
}

async fn serve(listener: TcpListener, store: Arc<Store>, shutdown: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "embedded S3 could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        // Small answers must not wait for more to send.
        let _ = stream.set_nodelay(true);
        let (store, shutdown) = (store.clone(), shutdown.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let store = store.clone();
                async move { store.answer(request).await }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(75))
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = shutdown.cancelled() => {}
                result = connection => if let Err(error) = result {
                    debug!(%error, "embedded S3 connection ended");
                }
            }
        });
    }
}

impl Store {
    /// Answers one request. s3s-fs looks before it writes, so conditional creates go one at a time.
    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<hyper::Response<s3s::Body>, s3s::HttpError> {
        if request.method() != Method::PUT {
            return self.s3.call(request.map(s3s::Body::from)).await;
        }
        let conditional = request.headers().contains_key("if-none-match")
            || request.headers().contains_key("if-match");
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let one_at_a_time = if conditional {
            Some(self.creating.lock().await)
        } else {
            None
        };
        let path = self
            .root
            .join(&*percent_encoding::percent_decode_str(&path).decode_utf8_lossy());
        let was_there = path.exists();
        let response = self.s3.call(request.map(s3s::Body::from)).await;
        let stored = matches!(&response, Ok(response) if response.status().is_success());
        if !stored && conditional && !was_there && path.is_file() {
            // s3s-fs compares checksums after the bytes are in place: what it refuses must not stay there.
            if let Err(error) = std::fs::remove_file(&path) {
                warn!(%error, "embedded S3 could not take a refused object away");
            }
        }
        if stored {
            let synced = tokio::task::spawn_blocking(move || sync(&path)).await;
            if let Ok(Err(error)) = synced {
                warn!(%error, "embedded S3 could not make an object durable");
            }
        }
        drop(one_at_a_time);
        response
    }
}

/// Makes an object and its directory entry durable. A bucket is a directory and has no bytes of its own.
fn sync(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()?;
    match path.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
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
