//! The daemon: wires the components in dependency order, supervises their loops, drains them with a deadline.
//!
//! Guarantees: it holds the data directory's lock while it runs; it starts and cuts while S3 is unreachable; SIGTERM ends it
//! within the drain deadline and loses nothing, because what is sealed is durable; SIGHUP puts a new configuration in
//! place whole, between two windows, or refuses it whole. Nothing below this module sees the whole configuration.

mod beside;
pub mod credentials;
mod feeder;
mod gateway;
mod histories;
mod line;
mod live;
mod lookout;
mod plant;
pub mod retention;
pub mod standing;
mod ticks;
mod wiring;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::{Config, ConfigError, Loaded};
use crate::embedded::{EmbeddedS3, KeyPair};
use crate::feed::State;
use crate::ops::cors::Cors;
use crate::ops::lock;
use crate::ops::signals::Requests;
use crate::ops::tls::Tls;
use crate::s3::{Bucket, local_client};
use crate::store::Options;
use crate::vitals::{Code, Trouble, Troubles};

use gateway::Gateway;

pub use crate::service::{ACCOUNT, REGION};
pub use feeder::{Feeder, Parts, Shared, View};
pub use line::{Beginning, Line, LineError};
pub use live::closes_by;
pub use lookout::{
    EMBEDDED_SCHEDULER, Keeping, Lookout, Watch, archive, deliveries, service_config,
};
pub use plant::{Plant, PlantInfo, format_recorded, make_sample, open_history, open_replay};
pub use wiring::{Plan, Wiring, input_prefix};

/// The bucket of embedded mode.
pub const EMBEDDED_BUCKET: &str = "lookoutd";
/// The input prefix of embedded mode, where none is configured.
pub const EMBEDDED_PREFIX: &str = "input/";
/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By a signal, or because `--once` was done.
    Stopped,
    /// `--once` gave up waiting; what is sealed stays in the spool.
    Waiting,
    /// A loop failed.
    Failed,
}

/// The store that a configuration names, embedded or elsewhere.
pub struct Store {
    /// The bucket of the input files.
    pub bucket: Bucket,
    /// Their key prefix.
    pub prefix: String,
    /// The embedded server, if that is the store.
    pub embedded: Option<EmbeddedS3>,
}

/// Runs the daemon until a signal, or for one window with `once`. `load` reads the configuration, again on SIGHUP. `clock`
/// is what windows and executions go by.
pub async fn run(
    load: &dyn Fn() -> Result<Loaded, ConfigError>,
    requests: Requests,
    once: bool,
    clock: Clock,
) -> anyhow::Result<Ended> {
    let loaded = load()?;
    say_older_names(&loaded.config);
    let data_dir = loaded.config.data_dir();
    let lock = lock::lock(&data_dir)?;
    // The store outlives a reload: its address is part of what clients were told.
    let servers = CancellationToken::new();
    let opening = Wiring::open(&loaded.config, &data_dir, clock, servers.clone());
    let wiring = tokio::select! {
        () = requests.shutdown.cancelled() => return Ok(Ended::Stopped),
        opened = opening => opened?,
    };
    let mut gateway = Gateway::start(loaded.config, wiring, lock, once, servers).await;
    let ended = gateway.work(load, &requests).await;
    gateway.end().await;
    ended
}

/// Says that a new configuration is refused, where somebody may look.
fn refused(error: &anyhow::Error, troubles: &Troubles, clock: &Clock) {
    error!(
        error = format!("{error:#}"),
        "the new configuration is refused, the old one stays"
    );
    troubles.raise(Trouble::new(
        Code::ConfigurationRefused,
        clock.now(),
        format!("the new configuration is refused, the old one stays: {error:#}"),
        "correct the file and send SIGHUP again; lookoutd check names every finding",
    ));
}

impl Store {
    /// Returns when the embedded server has ended before it was told to.
    pub async fn failed(&self) {
        match &self.embedded {
            Some(embedded) => embedded.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Opens the configured store, or serves one under `data_dir`.
    pub async fn open(
        config: &Config,
        data_dir: &Path,
        clock: &Clock,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        if !config.is_embedded() {
            return Ok(Self {
                bucket: config.s3.open().await,
                prefix: config.s3.input_prefix.clone(),
                embedded: None,
            });
        }
        let listen: SocketAddr = config
            .service
            .s3_listen
            .parse()
            .with_context(|| format!("service.s3_listen \"{}\"", config.service.s3_listen))?;
        // Objects get the time that windows and executions go by.
        let options = Options {
            clock: clock.clone(),
            shared_disk: config.store.shared_disk,
            ..Options::default()
        };
        Self::embed_tls(
            data_dir,
            listen,
            &config.s3.input_prefix,
            options,
            None,
            config.service.cors(),
            shutdown,
        )
        .await
    }

    /// Serves a store under `data_dir` on `listen`.
    pub async fn embed(
        data_dir: &Path,
        listen: SocketAddr,
        prefix: &str,
        options: Options,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        Self::embed_tls(
            data_dir,
            listen,
            prefix,
            options,
            None,
            Cors::default(),
            shutdown,
        )
        .await
    }

    /// As [`Store::embed`], for others with TLS where there is a certificate, and for web pages.
    pub async fn embed_tls(
        data_dir: &Path,
        listen: SocketAddr,
        prefix: &str,
        options: Options,
        tls: Option<Tls>,
        cors: Cors,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let keys = KeyPair::load_or_create(data_dir)?;
        let root = data_dir.join("s3");
        let server =
            EmbeddedS3::start_with(&root, listen, &keys, tls, cors, options, shutdown).await?;
        server.create_bucket(EMBEDDED_BUCKET)?;
        info!(url = server.url(), bucket = EMBEDDED_BUCKET, credentials = %data_dir.join("credentials").display(), "embedded S3 is up");
        let client = local_client(&server.endpoint_url(), &keys.access_key, &keys.secret_key);
        Ok(Self {
            bucket: Bucket::new(client, EMBEDDED_BUCKET),
            prefix: if prefix.is_empty() {
                EMBEDDED_PREFIX.to_owned()
            } else {
                prefix.to_owned()
            },
            embedded: Some(server),
        })
    }
}

/// Says which keys have another name now.
fn say_older_names(config: &Config) {
    if !config.source.parquet.is_empty() {
        warn!(
            "source.parquet is the older name of source.history, which takes directories and patterns too: rename it"
        );
    }
}

/// Reads a new configuration that may take the place of the old one without a restart.
fn reread(
    load: &dyn Fn() -> Result<Loaded, ConfigError>,
    old: &Config,
    data_dir: &Path,
) -> anyhow::Result<Loaded> {
    let loaded = load()?;
    let new = &loaded.config;
    say_older_names(new);
    let in_process = |config: &Config| config.inference.endpoint_url.is_empty();
    // Where in the bucket is a matter of each line.
    let elsewhere = |config: &Config| crate::s3::Config {
        input_prefix: String::new(),
        ..config.s3.clone()
    };
    let fixed: [(&str, bool); 6] = [
        ("data_dir", new.data_dir() != *data_dir),
        ("s3", elsewhere(new) != elsewhere(old)),
        ("service", new.service != old.service),
        (
            "inference.endpoint_url of an embedded service",
            old.is_embedded() && in_process(new) != in_process(old),
        ),
        (
            "inference.archive_keep",
            new.inference.archive_keep != old.inference.archive_keep,
        ),
        ("store", new.store != old.store),
    ];
    let changed: Vec<_> = fixed
        .iter()
        .filter_map(|(key, changed)| changed.then_some(*key))
        .collect();
    if !changed.is_empty() {
        anyhow::bail!("{} can only change with a restart", changed.join(", "));
    }
    // What would not start is refused before anything is stopped.
    if new.notify != old.notify {
        new.notify.targets()?;
    }
    if new.admin != old.admin {
        new.admin.look()?;
    }
    Ok(loaded)
}

/// The path of a data directory's ledger entry states, for people.
pub fn describe(state: State) -> &'static str {
    state.describe()
}
