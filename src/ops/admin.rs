//! The admin listener: health, metrics and the console over HTTP, read-only.
//!
//! Guarantees: it listens on loopback unless a token file is configured; with one, everything but `/livez` wants the token
//! (as a bearer token, or as the password of HTTP basic authentication), compared in constant time. On loopback without a
//! token it answers only requests that name this machine as their host, so that a web page elsewhere cannot read it
//! through the visitor's browser. Slow and idle clients are cut off, connections are bounded. With a certificate it speaks
//! TLS only. Deliberately absent: anything that changes state.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::date::dated;
use super::health::judge;
use super::judgement::Judgement;
use super::metrics;
use super::site::{Site, Snapshot};
use super::slots::{LEAVE, Slot, Slots};
use super::tls::{self, Tls, secure};
use crate::executions::Scores;
use crate::vitals::{Code, Trouble};

/// Connections at once; for the next one, the one that came first is let go.
const MOST_CONNECTIONS: usize = 32;
/// A client that has not sent its headers by then is cut off.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// All headers of a request together.
const MOST_HEADER_BYTES: usize = 64 << 10;
/// No answer takes longer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Where metrics, health and console are served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port; empty serves nothing.
    pub listen: String,
    /// File that holds the token; needed to listen on more than loopback.
    pub token_file: String,
    /// PEM file of the certificate chain; with it the listener speaks TLS only.
    pub tls_cert: String,
    /// PEM file of its private key.
    pub tls_key: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9181".into(),
            token_file: String::new(),
            tls_cert: String::new(),
            tls_key: String::new(),
        }
    }
}

impl Config {
    /// What is wrong with the values: key and problem.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        if self.listen.is_empty() {
            return Vec::new();
        }
        if let Some(problem) = tls::half(&self.tls_cert, &self.tls_key) {
            return vec![(
                if self.tls_key.is_empty() {
                    "admin.tls_key"
                } else {
                    "admin.tls_cert"
                },
                problem.to_owned(),
            )];
        }
        match self.listen.parse::<SocketAddr>() {
            Err(_) => vec![(
                "admin.listen",
                format!(
                    "\"{}\" is not an address and port: write it like 127.0.0.1:9181, or leave it empty to serve nothing",
                    self.listen
                ),
            )],
            Ok(address) if !address.ip().is_loopback() && self.token_file.is_empty() => vec![(
                "admin.listen",
                format!(
                    "{address} can be reached from other machines: set admin.token_file to a file with a token of at least 16 \
                     characters, or listen on 127.0.0.1"
                ),
            )],
            Ok(_) => Vec::new(),
        }
    }
}

impl Config {
    /// Token and certificate, read.
    pub fn look(&self) -> anyhow::Result<(Option<[u8; 32]>, Option<Tls>)> {
        if self.listen.is_empty() {
            return Ok((None, None));
        }
        let token = match self.token_file.as_str() {
            "" => None,
            path => Some(read_token(Path::new(path))?),
        };
        let tls = Tls::open(&self.tls_cert, &self.tls_key).context("admin.tls_cert")?;
        Ok((token, tls))
    }
}

/// What every answer is made from.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    judgement: Judgement,
    scores: Scores,
    token: Option<[u8; 32]>,
}

/// A running listener.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    protected: bool,
    encrypted: bool,
}

impl Admin {
    /// Binds and serves health, metrics and `pages` until `shutdown`. `sites` holds what runs in this process, and changes at a reload; `None` while
    /// it starts. `None` where the configuration says to serve nothing.
    pub async fn start(
        config: &Config,
        judgement: impl Into<Judgement>,
        pages: Router<Shared>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        if config.listen.is_empty() {
            return Ok(None);
        }
        if let Some((key, problem)) = config.problems().into_iter().next() {
            bail!("{key}: {problem}");
        }
        let listen: SocketAddr = config.listen.parse().context("admin.listen")?;
        let (token, tls) = config.look()?;
        if tls.is_none() && !listen.ip().is_loopback() {
            warn!(address = %listen, "the admin listener is reached from elsewhere without TLS, its token can be read on the way: set admin.tls_cert and admin.tls_key");
        }
        let encrypted = tls.is_some();
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("admin.listen: cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let judgement: Judgement = judgement.into();
        let seen = judgement.clone();
        let shared = Shared(Arc::new(Inner {
            judgement,
            scores: Scores::default(),
            token,
        }));
        let served = accept(listener, tls, router(shared, pages), shutdown.clone());
        tokio::spawn(async move {
            let ended = tokio::spawn(served).await;
            if shutdown.is_cancelled() {
                return;
            }
            let ended = ended.map_or_else(|error| error.to_string(), |()| "it ended".to_owned());
            error!(ended, "console, metrics and health are served no more");
            if let Some(site) = seen.site() {
                site.vitals.troubles().raise(Trouble::new(
                    Code::AdminUnavailable,
                    site.clock.now(),
                    format!("no console, metrics and health: {ended}"),
                    "restart lookoutd; the log has the cause",
                ));
            }
        });
        Ok(Some(Self {
            address,
            protected: token.is_some(),
            encrypted,
        }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether a token is asked for.
    pub fn is_protected(&self) -> bool {
        self.protected
    }

    /// The console's address for people.
    pub fn url(&self) -> String {
        let scheme = if self.encrypted { "https" } else { "http" };
        format!("{scheme}://{}/", self.address)
    }
}

impl Shared {
    /// What runs in this process; `None` while it starts.
    pub fn site(&self) -> Option<Site> {
        self.0.judgement.site()
    }

    /// What the results say, read through a bounded cache.
    pub fn scores(&self) -> &Scores {
        &self.0.scores
    }

    /// Looks up the newest scores, if the last look is some seconds ago.
    pub async fn refresh_scores(&self) {
        if let Some(site) = self.site() {
            let client = site.s3.clone();
            self.scores()
                .refresh_latest(site.history.as_ref(), client, site.clock.now())
                .await;
        }
    }

    /// What all parts say now, not older than half a second; `None` while the process starts.
    pub async fn snapshot(&self) -> anyhow::Result<Option<Arc<Snapshot>>> {
        self.0.judgement.snapshot().await
    }

    fn allows(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.0.token else {
            return if is_local(headers) {
                Ok(())
            } else {
                Err(Refusal::Host)
            };
        };
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(credential)
            .ok_or(Refusal::Token)?;
        if is_same(&digest(given.as_bytes()), token) {
            Ok(())
        } else {
            Err(Refusal::Token)
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Host,
    Token,
}

fn router(shared: Shared, pages: Router<Shared>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .merge(pages)
        .layer(from_fn_with_state(shared.clone(), guard))
        .layer(map_response(async |answer: Response| dated(answer)))
        .with_state(shared)
}

/// Lets through what is allowed, and puts the headers on that a browser needs to be careful.
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let refusal = match request.uri().path() {
        // A container's probe carries no token, and learns nothing but that the process answers.
        "/livez" => Ok(()),
        _ => shared.allows(request.headers()),
    };
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    // What follows a body that nobody wants here might be taken for a request.
    let has_body = request.headers().contains_key(header::TRANSFER_ENCODING)
        || request.headers().contains_key(header::CONTENT_LENGTH);
    let refused = refusal.is_err();
    let mut response = match refusal {
        Err(Refusal::Token) => (
            StatusCode::UNAUTHORIZED,
            [(
                header::WWW_AUTHENTICATE,
                "Basic realm=\"lookoutd\", charset=\"UTF-8\"",
            )],
            "the token of admin.token_file is wanted, as a bearer token or as the password\n",
        )
            .into_response(),
        Err(Refusal::Host) => (
            StatusCode::MISDIRECTED_REQUEST,
            "without admin.token_file only requests to localhost are answered\n",
        )
            .into_response(),
        Ok(()) if !is_read => (StatusCode::METHOD_NOT_ALLOWED, "read-only\n").into_response(),
        Ok(()) => match tokio::time::timeout(ANSWER_DEADLINE, next.run(request)).await {
            Ok(response) => response,
            Err(_) => (StatusCode::GATEWAY_TIMEOUT, "took too long\n").into_response(),
        },
    };
    let headers = response.headers_mut();
    // Whoever is refused is not listened to any further: requests that came along are not answered one by one.
    if has_body || !is_read || refused {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn livez(State(shared): State<Shared>) -> Response {
    let stalled = shared
        .site()
        .map(|site| site.vitals.stuck())
        .unwrap_or_default();
    match stalled.first() {
        None => "ok\n".into_response(),
        Some(one) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the {} has stopped looking at its work\n", one.name),
        )
            .into_response(),
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let snapshot = match shared.snapshot().await {
        Ok(Some(snapshot)) => snapshot,
        Ok(None) => {
            return (
                StatusCode::SERVICE_UNAVAILABLE,
                "{\"ready\":false,\"reasons\":[{\"code\":\"starting\"}]}\n",
            )
                .into_response();
        }
        Err(error) => return failed(&error),
    };
    let readiness = judge(&snapshot);
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, json(&readiness)).into_response()
}

async fn scrape(State(shared): State<Shared>) -> Response {
    let snapshot = match shared.snapshot().await {
        Ok(Some(snapshot)) => snapshot,
        Ok(None) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Err(error) => return failed(&error),
    };
    shared.refresh_scores().await;
    match metrics::encode(&snapshot, &shared.scores().latest()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => failed(&error.into()),
    }
}

/// An answer as JSON.
pub fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => failed(&error.into()),
    }
}

/// The answer to a request that failed here; the cause goes to the log.
pub fn failed(error: &anyhow::Error) -> Response {
    error!(error = format!("{error:#}"), "an admin request failed");
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        "it failed; the log has the cause\n",
    )
        .into_response()
}

async fn accept(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    shutdown: CancellationToken,
) {
    let slots = Slots::new(MOST_CONNECTIONS);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let slot = tokio::select! {
                    () = shutdown.cancelled() => return,
                    slot = slots.take() => slot,
                };
                let (tls, router, shutdown) = (tls.clone(), router.clone(), shutdown.clone());
                connections.spawn(async move {
                    serve(stream, tls.as_ref(), router, shutdown, &slot).await;
                });
            }
            Err(error) => {
                // Out of file descriptors and the like: wait for connections to end instead of spinning.
                warn!(%error, "admin connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<&Tls>,
    router: Router,
    shutdown: CancellationToken,
    slot: &Slot,
) {
    let stream = match secure(tls, stream).await {
        Ok(stream) => stream,
        Err(error) => return debug!(%error, "admin handshake failed"),
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(MOST_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => return,
        () = slot.wanted_back() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = tokio::time::sleep(LEAVE) => return debug!("admin connection cut off: its place is wanted"),
                () = shutdown.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "admin connection ended");
    }
}

fn read_token(path: &Path) -> anyhow::Result<[u8; 32]> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("admin.token_file {} cannot be read", path.display()))?;
    let token = text.trim();
    if token.len() < 16 {
        bail!(
            "admin.token_file {}: the token has {} characters, at least 16 are wanted; make one with: openssl rand -hex 24",
            path.display(),
            token.len()
        );
    }
    Ok(digest(token.as_bytes()))
}

/// The token in an Authorization header: a bearer token, or the password of basic authentication with any user name.
fn credential(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(rest.trim().to_owned()),
        "basic" => {
            let pair = aws_smithy_types::base64::decode(rest.trim()).ok()?;
            let pair = String::from_utf8(pair).ok()?;
            Some(pair.split_once(':')?.1.to_owned())
        }
        _ => None,
    }
}

/// Whether the request names this machine as its host.
fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        return false;
    };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Compares digests without stopping at the first difference.
fn is_same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter()
        .zip(b)
        .fold(0, |difference, (a, b)| difference | (a ^ b))
        == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_beyond_loopback_needs_a_token() {
        let config = |listen: &str, token: &str| Config {
            listen: listen.into(),
            token_file: token.into(),
            ..Config::default()
        };
        assert!(Config::default().problems().is_empty());
        assert!(config("", "").problems().is_empty());
        assert!(config("[::1]:9181", "").problems().is_empty());
        assert!(config("0.0.0.0:9181", "/t").problems().is_empty());
        assert!(
            config("0.0.0.0:9181", "").problems()[0]
                .1
                .contains("admin.token_file")
        );
        assert!(
            config("localhost", "").problems()[0]
                .1
                .contains("127.0.0.1:9181")
        );
    }

    #[test]
    fn tokens_come_as_bearer_or_as_password() {
        assert_eq!(credential("Bearer abc"), Some("abc".into()));
        let pair = aws_smithy_types::base64::encode("any:a:bc");
        assert_eq!(credential(&format!("Basic {pair}")), Some("a:bc".into()));
        assert_eq!(credential("Basic !!!"), None);
        assert_eq!(credential("abc"), None);
        assert!(is_same(&digest(b"x"), &digest(b"x")));
        assert!(!is_same(&digest(b"x"), &digest(b"y")));
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        let local = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            is_local(&headers)
        };
        for host in [
            "localhost",
            "LOCALHOST:9181",
            "127.0.0.1:9181",
            "127.0.0.1",
            "[::1]:9181",
            "[::1]",
        ] {
            assert!(local(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9181",
            "localhost.evil.example",
            "10.0.0.1:9181",
        ] {
            assert!(!local(host), "{host}");
        }
        assert!(!is_local(&HeaderMap::new()));
    }
}
