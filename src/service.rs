//! The Lookout-compatible service: protocol, state, operations and the runner that scores windows.
//!
//! ```text
//!  client ──HTTP──► protocol ─► sigv4 ─► shapes ─► operations ─► store ◄─ runner ──► S3: read input files, put results
//!                                                        └── changed ──────►┘  └──► model: score
//! ```
//!
//! Guarantees: what an answered request changed survives a crash; every claimed execution ends SUCCESS or FAILED, once,
//! also across restarts; one slow scheduler delays no other. Without keys the service listens on loopback only.
//! Deliberately absent: IAM, encryption keys (stored, validated, not used), metrics in CloudWatch.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Span;
use crate::ops::cors::Cors;
use crate::ops::date::dated;
use crate::ops::slots::{LEAVE, Slot, Slots};
use crate::ops::tls::{Tls, secure};
use crate::vitals::{Pulse, Vitals};
use buckets::Buckets;
use jobs::Jobs;
use operations::Identity;
use protocol::Frontend;
use runner::Runner;
use store::executions::CatchUp;
use store::{Store, StoreError};

pub mod buckets;
pub mod csv_rows;
pub mod faults;
pub mod files;
pub mod history;
pub mod jobs;
pub mod operations;
pub mod options;
pub mod patience;
pub mod protocol;
pub mod runner;
pub mod s3_problem;
pub mod schema;
pub mod shapes;
pub mod sigv4;
pub mod store;

pub use sigv4::AccessKey;

/// Region in the ARNs of a service that is given none.
pub const REGION: &str = "us-east-1";
/// Account in the ARNs of a service that is given none.
pub const ACCOUNT: &str = "000000000000";

/// How long executions are remembered where nothing else is said.
pub const KEEP_EXECUTIONS: Duration = Duration::from_secs(400 * 24 * 3600);
/// The shortest time that can be asked for.
const LEAST_KEPT: Duration = Duration::from_secs(2 * 24 * 3600);
/// Connections at once; for the next one, the one that came first is let go.
const MOST_CONNECTIONS: usize = 512;
/// A client that has not sent its headers by then is cut off.
const HEADER_DEADLINE: Duration = Duration::from_secs(15);
/// All headers of a request together.
const MOST_HEADER_BYTES: usize = 64 << 10;
/// How long a loop of the service may be silent.
const SILENT: Duration = Duration::from_secs(120);
/// How far back missed windows are run where nothing else is said.
pub const CATCH_UP_MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// How far back they can be run.
const LONGEST_CATCH_UP: Duration = Duration::from_secs(3660 * 24 * 3600);
/// How long open requests and executions may go on after shutdown was asked for: a stop takes two seconds at most, and an
/// execution that is cut off is run again at the next start.
const DRAIN: Duration = Duration::from_millis(1_500);

/// What the service in process, and `lookoutd serve`, is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address of the Lookout-compatible API; on loopback only.
    pub listen: String,
    /// Address of the embedded S3; on loopback only.
    pub s3_listen: String,
    /// Region in the ARNs of what is made.
    pub region: String,
    /// Account in the ARNs of what is made, 12 digits.
    pub account: String,
    /// Web pages whose browsers may call the API and the embedded S3.
    pub cors_origins: Vec<String>,
    /// How long the service remembers executions and events.
    pub keep_executions: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9180".into(),
            s3_listen: "127.0.0.1:9190".into(),
            region: REGION.into(),
            account: ACCOUNT.into(),
            cors_origins: Vec::new(),
            keep_executions: Span(KEEP_EXECUTIONS),
        }
    }
}

impl Settings {
    /// What cannot be: key and problem. Addresses are the caller's.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if !is_region(&self.region) {
            let region = &self.region;
            problems.push((
                "service.region",
                format!("\"{region}\" is no region: write small letters, digits and hyphens, such as eu-west-1"),
            ));
        }
        if !is_account(&self.account) {
            let account = &self.account;
            problems.push((
                "service.account",
                format!("\"{account}\" must be 12 digits, such as 123456789012"),
            ));
        }
        if self.keep_executions.0 < LEAST_KEPT {
            problems.push((
                "service.keep_executions",
                format!(
                    "\"{}\" is too short: late windows are looked for in what is kept, write 2days or more",
                    self.keep_executions
                ),
            ));
        }
        if let Err(problem) = Cors::new(&self.cors_origins) {
            problems.push(("service.cors_origins", problem));
        }
        problems
    }

    /// The pages that may call; none where an origin is wrong.
    pub fn cors(&self) -> Cors {
        Cors::new(&self.cors_origins).unwrap_or_default()
    }
}

fn is_region(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(fits)
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|digit| digit.is_ascii_digit())
}

/// How the service is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the API listens; port 0 picks one.
    pub listen: SocketAddr,
    /// Where the state lies.
    pub data_dir: PathBuf,
    /// Region in ARNs.
    pub region: String,
    /// Account in ARNs, 12 digits.
    pub account: String,
    /// Who may call.
    pub credentials: Auth,
    /// Run the windows that were missed while the service was down, for every scheduler.
    pub catch_up: bool,
    /// The loops of this process.
    pub vitals: Vitals,
    /// How far back missed windows are run at all.
    pub catch_up_max_age: Duration,
    /// The web pages that may call.
    pub cors: Cors,
    /// How long executions and events are remembered.
    pub keep_executions: Duration,
}

/// Who may call the API.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Requests signed with one of these keys.
    Keys(Vec<AccessKey>),
    /// Anyone; only on a loopback address.
    Open,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No keys on an address others can reach.
    #[error(
        "refusing to listen on {0} without access keys: configure keys, or listen on 127.0.0.1"
    )]
    OpenBeyondLoopback(SocketAddr),
    /// `Auth::Keys` with an empty list.
    #[error("no access key is configured: every request would be refused")]
    NoKeys,
    /// The account is not 12 digits.
    #[error("account '{0}' must be 12 digits, for example 123456789012")]
    Account(String),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The state cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A running service.
pub struct Service {
    address: SocketAddr,
    store: Store,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

impl Service {
    /// Opens the state, listens, and runs until `shutdown` is cancelled. `clock` drives the schedules; signatures are
    /// checked in real time whatever it shows.
    pub async fn start(
        config: Config,
        s3: aws_sdk_s3::Client,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> Result<Service, ServiceError> {
        Self::start_tls(config, None, s3, clock, shutdown).await
    }

    /// As [`Service::start`]; with a certificate the listener speaks TLS only.
    pub async fn start_tls(
        config: Config,
        tls: Option<Tls>,
        s3: aws_sdk_s3::Client,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> Result<Service, ServiceError> {
        let keys = match config.credentials {
            Auth::Keys(keys) if keys.is_empty() => return Err(ServiceError::NoKeys),
            Auth::Keys(keys) => Some(keys),
            Auth::Open if config.listen.ip().is_loopback() => None,
            Auth::Open => return Err(ServiceError::OpenBeyondLoopback(config.listen)),
        };
        if !is_account(&config.account) {
            return Err(ServiceError::Account(config.account));
        }
        let directory = config.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&directory)).await;
        let store = match opened {
            Ok(store) => store?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let wrap = |source| ServiceError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(wrap)?;
        let address = listener.local_addr().map_err(wrap)?;
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(%address, "the API is reached from elsewhere without TLS: requests are signed, but can be read on the way");
        }

        let (changed, changes) = watch::channel(0);
        let frontend = Arc::new(Frontend {
            store: store.clone(),
            identity: Identity {
                region: config.region,
                account: config.account,
            },
            keys,
            clock: clock.clone(),
            wall: Clock::system(),
            changed,
            cors: config.cors,
            large: Frontend::large(),
        });
        let mut tasks = JoinSet::new();
        let vitals = config.vitals;
        let accepting = vitals.pulse("API listener", SILENT);
        tasks.spawn(accept(listener, tls, frontend, accepting, shutdown.clone()));
        let buckets = Arc::new(Buckets::new(s3));
        let jobs = Jobs {
            store: store.clone(),
            buckets: Arc::clone(&buckets),
            clock: clock.clone(),
            changed: changes.clone(),
            vitals: vitals.clone(),
            keep_executions: config.keep_executions,
        };
        let catch_up = CatchUp {
            all: config.catch_up,
            max_age: TimeDelta::from_std(config.catch_up_max_age.min(LONGEST_CATCH_UP))
                .unwrap_or_default(),
        };
        let runner = Runner::new(
            store.clone(),
            buckets,
            clock,
            changes,
            catch_up,
            vitals.pulse("schedules", SILENT),
        );
        tasks.spawn(jobs.run(shutdown.clone()));
        tasks.spawn(runner.run(shutdown.clone(), DRAIN));
        tracing::info!(%address, "service listening");
        Ok(Service {
            address,
            store,
            tasks,
            shutdown,
        })
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The state, for what has no operation in the API: registering a model file.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns when a loop ends before it was told to, with the reason.
    pub async fn failed(&mut self) -> String {
        let ended = self.tasks.join_next().await;
        if self.shutdown.is_cancelled() {
            return std::future::pending().await;
        }
        match ended {
            Some(Ok(())) => "a loop of the service ended".to_owned(),
            Some(Err(error)) => error.to_string(),
            None => std::future::pending().await,
        }
    }

    /// Returns once everything has stopped after `shutdown`.
    pub async fn stopped(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "service task failed");
            }
        }
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<Tls>,
    frontend: Arc<Frontend>,
    pulse: Pulse,
    shutdown: CancellationToken,
) {
    let slots = Slots::new(MOST_CONNECTIONS);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = pulse.during(listener.accept()) => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let slot = tokio::select! {
                    () = shutdown.cancelled() => break,
                    slot = slots.take() => slot,
                };
                let (tls, frontend, shutdown) =
                    (tls.clone(), Arc::clone(&frontend), shutdown.clone());
                connections.spawn(async move {
                    serve(stream, tls.as_ref(), frontend, shutdown, &slot).await;
                });
            }
            Err(error) => {
                // Out of file descriptors and the like: wait for connections to end instead of spinning.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let drained = tokio::time::timeout(DRAIN, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
    if drained.is_err() {
        tracing::warn!(open = connections.len(), "connections cut off at shutdown");
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<&Tls>,
    frontend: Arc<Frontend>,
    shutdown: CancellationToken,
    slot: &Slot,
) {
    // Small answers on a kept-alive connection: waiting to fill a segment only adds latency.
    let _ = stream.set_nodelay(true);
    let stream = match secure(tls, stream).await {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "handshake failed"),
    };
    let service = service_fn(move |request| {
        let frontend = Arc::clone(&frontend);
        async move { frontend.answer(request).await.map(dated) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(MOST_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = slot.wanted_back() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(LEAVE, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!("connection cut off: its place is wanted"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
