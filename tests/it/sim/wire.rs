//! The wire of the simulation: what stands below the real AWS SDK clients in place of sockets.
//!
//! Requests to S3 go to a store in memory, requests to the Lookout API over loopback to the service. Faults are those of
//! the fault proxy. Guarantees: simulated time stands still while a request is with the service, and goes on while one
//! hangs, so that the clients' timeouts, retries and backoffs run as they do, and take no real time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_s3::config::{Credentials, IdentityCache, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use lookoutd::embedded::KeyPair;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::store::ObjectStore;
use crate::proxy::{Fault, Rule};

/// A request as the other side sees it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query, percent-encoded.
    pub uri: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// The access key that the store takes, and when those who ask have it too: a file that is replaced after the key was.
#[derive(Clone, Debug)]
pub struct Purse(Arc<Mutex<Keys>>);

#[derive(Debug)]
struct Keys {
    taken: String,
    before: String,
    known: Instant,
}

impl Purse {
    pub fn of(keys: &KeyPair) -> Purse {
        Purse(Arc::new(Mutex::new(Keys {
            taken: keys.access_key.clone(),
            before: keys.access_key.clone(),
            known: Instant::now(),
        })))
    }

    /// The store takes another key from now on; who asks knows it at `known`.
    pub fn replace(&self, known: Instant) {
        let held = self.held();
        let mut keys = lock(&self.0);
        keys.before = held;
        keys.taken.push('2');
        keys.known = known;
    }

    /// Everybody knows the key.
    pub fn heal(&self) {
        lock(&self.0).known = Instant::now();
    }

    /// Whether requests are signed with a key that is taken no more.
    pub fn is_old(&self) -> bool {
        Instant::now() < lock(&self.0).known
    }

    /// The key that requests are signed with.
    fn held(&self) -> String {
        let keys = lock(&self.0);
        match Instant::now() < keys.known {
            true => keys.before.clone(),
            false => keys.taken.clone(),
        }
    }

    fn takes(&self, asked: &Asked) -> bool {
        let named = format!("Credential={}/", lock(&self.0).taken);
        asked
            .header("authorization")
            .is_some_and(|by| by.contains(&named))
    }
}

impl ProvideCredentials for Purse {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let held = Credentials::new(self.held(), "secret", None, None, "simulation");
        future::ProvideCredentials::ready(Ok(held))
    }
}

/// Where requests go.
#[derive(Clone)]
pub enum Backend {
    Store(Arc<ObjectStore>),
    /// The service, while it runs.
    Service(Arc<Mutex<Option<SocketAddr>>>),
}

/// One link between two parts, with its faults. Cheap to clone.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    backend: Backend,
    rules: Mutex<Vec<Rule>>,
    down: AtomicBool,
    /// How long every request is on its way, in milliseconds.
    slow: AtomicU64,
    purse: Mutex<Option<Purse>>,
    unconditional: AtomicBool,
    requests: AtomicU64,
    last_trouble: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(have, _)| have == name);
        found.map(|(_, value)| value.as_str())
    }

    /// What rules look at: the key of an object, the operation of the API.
    fn subject(&self) -> &str {
        match self.header("x-amz-target") {
            Some(target) => target,
            None => self.uri.split('?').next().unwrap_or_default(),
        }
    }
}

impl Link {
    pub fn new(backend: Backend) -> Link {
        Link(Arc::new(Inner {
            backend,
            rules: Mutex::default(),
            down: AtomicBool::new(false),
            slow: AtomicU64::new(0),
            purse: Mutex::default(),
            unconditional: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            last_trouble: Mutex::default(),
        }))
    }

    pub fn inject(&self, rule: Rule) {
        lock(&self.0.rules).push(rule);
    }

    /// Nothing answers any more, or it does again.
    pub fn set_down(&self, down: bool) {
        self.0.down.store(down, Ordering::SeqCst);
    }

    /// Every request takes so long.
    pub fn set_slow(&self, milliseconds: u16) {
        self.0.slow.store(milliseconds.into(), Ordering::SeqCst);
    }

    /// Requests are signed with the key of `purse`, and refused without the one that is taken.
    pub fn paid_from(self, purse: &Purse) -> Link {
        *lock(&self.0.purse) = Some(purse.clone());
        self
    }

    /// The store ignores `If-None-Match`.
    pub fn ignore_conditions(&self, ignore: bool) {
        self.0.unconditional.store(ignore, Ordering::SeqCst);
    }

    /// No rules, and up, and fast.
    pub fn heal(&self) {
        lock(&self.0.rules).clear();
        self.set_down(false);
        self.set_slow(0);
        if let Some(purse) = &*lock(&self.0.purse) {
            purse.heal();
        }
    }

    /// Whether something can still go wrong here.
    pub fn is_troubled(&self) -> bool {
        self.0.down.load(Ordering::SeqCst)
            || self.0.slow.load(Ordering::SeqCst) > 0
            || lock(&self.0.purse).as_ref().is_some_and(Purse::is_old)
            || lock(&self.0.rules).iter().any(|rule| rule.times > 0)
    }

    /// When a request last met a fault.
    pub fn last_trouble(&self) -> Option<Instant> {
        *lock(&self.0.last_trouble)
    }

    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::SeqCst)
    }

    /// What an SDK client is given.
    pub fn http_client(&self) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(self.clone());
        http_client_fn(move |_, _| connector.clone())
    }

    /// An S3 client over this link: it gives up after two seconds and never retries.
    pub fn s3(&self, keys: &KeyPair) -> aws_sdk_s3::Client {
        let plain = crate::rig::client("http://store.sim", keys);
        let mut config = plain.config().to_builder().http_client(self.http_client());
        if let Some(purse) = &*lock(&self.0.purse) {
            let provider = SharedCredentialsProvider::new(purse.clone());
            config.set_credentials_provider(Some(provider));
            config.set_identity_cache(IdentityCache::no_cache());
        }
        aws_sdk_s3::Client::from_conf(
            config
                .stalled_stream_protection(
                    aws_sdk_s3::config::StalledStreamProtectionConfig::disabled(),
                )
                .build(),
        )
    }

    /// The product's own client of the API over this link.
    pub fn lookout(&self, keys: &KeyPair) -> aws_sdk_lookoutequipment::Client {
        let plain = lookoutd::inference::local_client(
            "http://lookout.sim",
            &keys.access_key,
            &keys.secret_key,
        );
        let config = plain.config().to_builder().http_client(self.http_client());
        aws_sdk_lookoutequipment::Client::from_conf(
            config
                .stalled_stream_protection(
                    aws_sdk_lookoutequipment::config::StalledStreamProtectionConfig::disabled(),
                )
                .build(),
        )
    }

    async fn answer(&self, asked: Asked) -> Result<Answer, ConnectorError> {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        // A round trip, so that what runs at the same time comes in between.
        let slow = self.0.slow.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(slow + fastrand::u64(1..12))).await;
        let refused_key = lock(&self.0.purse)
            .as_ref()
            .is_some_and(|purse| !purse.takes(&asked));
        let down = self.0.down.load(Ordering::SeqCst);
        let fault = Rule::next(&mut lock(&self.0.rules), &asked.method, asked.subject());
        if down || slow > 0 || refused_key || fault.is_some() {
            *lock(&self.0.last_trouble) = Some(Instant::now());
        }
        if down {
            return Err(refused());
        }
        if refused_key {
            return Ok(self.refusal(403, "InvalidAccessKeyId"));
        }
        match fault {
            None => self.forward(asked).await,
            Some(Fault::Answer(status, code)) => Ok(self.refusal(status, code)),
            Some(Fault::AnswerAfter(status, code)) => {
                self.forward(asked).await?;
                Ok(self.refusal(status, code))
            }
            // Half of a body is none: the store takes whole objects only.
            Some(Fault::CutBefore | Fault::CutBody) => Err(cut()),
            Some(Fault::CutAfter) => {
                self.forward(asked).await?;
                Err(cut())
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::HangAfter) => {
                self.forward(asked).await?;
                std::future::pending().await
            }
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                self.forward(asked).await
            }
            Some(Fault::Portal) => Ok(portal(asked.method == "HEAD")),
            Some(Fault::Document(text)) => Ok(Answer {
                status: 200,
                headers: vec![("content-type".into(), "application/xml".into())],
                body: text.as_bytes().to_vec(),
            }),
            Some(Fault::RefuseHeader(name, status, code)) => {
                let refused = asked
                    .headers
                    .iter()
                    .any(|(header, _)| header.starts_with(name));
                if refused {
                    return Ok(self.refusal(status, code));
                }
                self.forward(asked).await
            }
            Some(Fault::Damage) => {
                let mut bytes = asked.body.to_vec();
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
                self.forward(Asked {
                    body: bytes.into(),
                    ..asked
                })
                .await
            }
            Some(Fault::IgnoreCondition) => {
                let mut asked = asked;
                asked.headers.retain(|(name, _)| name != "if-none-match");
                self.forward(asked).await
            }
            // The process that asked is gone: it never hears of it.
            Some(Fault::Before(call)) => {
                call();
                std::future::pending().await
            }
            Some(Fault::After(call)) => {
                let done = self.forward(asked).await;
                call();
                drop(done);
                std::future::pending().await
            }
        }
    }

    async fn forward(&self, mut asked: Asked) -> Result<Answer, ConnectorError> {
        if self.0.unconditional.load(Ordering::SeqCst) {
            asked.headers.retain(|(name, _)| name != "if-none-match");
        }
        let address = match &self.0.backend {
            Backend::Store(store) => return Ok(store.answer(&asked)),
            Backend::Service(address) => (*lock(address)).ok_or_else(refused)?,
        };
        let (held, hold) = std::sync::mpsc::channel::<()>();
        // Simulated time stands still while something blocks.
        tokio::task::spawn_blocking(move || _ = hold.recv());
        let answer = over_tcp(address, asked).await;
        drop(held);
        answer
    }

    fn refusal(&self, status: u16, code: &str) -> Answer {
        match self.0.backend {
            Backend::Store(_) => super::store::refusal(status, code),
            Backend::Service(_) => Answer {
                status,
                headers: vec![("content-type".into(), "application/x-amz-json-1.0".into())],
                body: format!("{{\"__type\":\"{code}\",\"Message\":\"by the simulation\"}}")
                    .into_bytes(),
            },
        }
    }
}

impl HttpConnector for Link {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let link = self.clone();
        HttpConnectorFuture::new(async move {
            let uri: hyper::Uri = request.uri().parse().map_err(|error| {
                ConnectorError::user(Box::<hyper::http::uri::InvalidUri>::new(error))
            })?;
            let mut headers: Vec<(String, String)> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            if let Some(authority) = uri.authority()
                && !headers.iter().any(|(name, _)| name == "host")
            {
                headers.push(("host".into(), authority.to_string()));
            }
            let body = ByteStream::new(request.take_body())
                .collect()
                .await
                .map_err(|error| ConnectorError::user(error.into()))?;
            let asked = Asked {
                method: request.method().to_owned(),
                uri: uri
                    .path_and_query()
                    .map_or("/", |path| path.as_str())
                    .to_owned(),
                headers,
                body: body.into_bytes(),
            };
            let answer = link.answer(asked).await?;
            let status = answer
                .status
                .try_into()
                .map_err(|_| ConnectorError::user("a status out of range".into()))?;
            let mut response = HttpResponse::new(status, SdkBody::from(answer.body));
            for (name, value) in answer.headers {
                response.headers_mut().insert(name, value);
            }
            Ok(response)
        })
    }
}

async fn over_tcp(address: SocketAddr, asked: Asked) -> Result<Answer, ConnectorError> {
    let lost = |_| cut();
    let stream = TcpStream::connect(address).await.map_err(|_| refused())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(lost)?;
    let connection = tokio::spawn(connection);
    let mut request = hyper::Request::builder()
        .method(asked.method.as_str())
        .uri(&asked.uri);
    for (name, value) in &asked.headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(asked.body))
        .map_err(|error| ConnectorError::user(error.into()))?;
    let (parts, body) = sender
        .send_request(request)
        .await
        .map_err(lost)?
        .into_parts();
    let body = body.collect().await.map_err(lost)?.to_bytes().to_vec();
    connection.abort();
    let headers = parts.headers.iter().filter_map(|(name, value)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    });
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: headers.collect(),
        body,
    })
}

/// What a captive portal says to everything.
fn portal(head: bool) -> Answer {
    let page = b"<html><body>Welcome to the plant's guest network</body></html>";
    Answer {
        status: 200,
        headers: vec![
            ("content-type".into(), "text/html".into()),
            ("content-length".into(), page.len().to_string()),
        ],
        body: if head { Vec::new() } else { page.to_vec() },
    }
}

fn refused() -> ConnectorError {
    ConnectorError::io(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into())
}

fn cut() -> ConnectorError {
    ConnectorError::io(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
