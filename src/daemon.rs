//! The daemon: wires the components in dependency order, supervises their loops, drains them with a deadline.
//!
//! Guarantees: it holds the data directory's lock while it runs; it starts and cuts while S3 is unreachable; SIGTERM ends it
//! within the drain deadline and loses nothing, because what is sealed is durable; SIGHUP puts a new configuration in
//! place whole, between two windows, or refuses it whole. Nothing below this module sees the whole configuration.

mod beside;
mod boot;
mod feeder;
mod lookout;
mod plant;
pub mod retention;
pub mod standing;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::{self, Clock};
use crate::config::{Config, ConfigError, Loaded};
use crate::embedded::{EmbeddedS3, KeyPair};
use crate::feed::State;
use crate::feed::disk::LocalDisk;
use crate::ops::cors::Cors;
use crate::ops::judgement::Judgement;
use crate::ops::signals::Requests;
use crate::ops::site::{Site, Watched};
use crate::ops::tls::Tls;
use crate::ops::{ask, lock, notify as systemd, orphans};
use crate::s3::{Bucket, local_client};
use crate::store::Options;
use crate::vitals::{Code, Trouble, Troubles, Vitals};

use beside::{Beside, Surroundings};

pub use crate::service::{ACCOUNT, REGION};
pub use feeder::{Feeder, Parts, View};
pub use lookout::{
    EMBEDDED_SCHEDULER, Keeping, Lookout, Watch, archive, deliveries, service_config,
};
pub use plant::{Plant, PlantInfo, format_recorded, make_sample, open_replay};

/// The bucket of embedded mode.
pub const EMBEDDED_BUCKET: &str = "lookoutd";
/// The input prefix of embedded mode, where none is configured.
pub const EMBEDDED_PREFIX: &str = "input/";
/// How long loops may take to finish what they are doing.
const DRAIN: Duration = Duration::from_millis(1_500);
/// How long `--once` waits for the store.
const ONCE: Duration = Duration::from_secs(120);

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
    let mut config = load()?.config;
    let data_dir = config.data_dir();
    let mut lock = lock::lock(&data_dir)?;
    // The store outlives a reload: its address is part of what clients were told.
    let servers = CancellationToken::new();
    let vitals = Vitals::default();
    let opening = async {
        let store = Store::open(&config, &data_dir, &clock, servers.clone()).await?;
        let lookout = Lookout::open(
            &config,
            &data_dir,
            &store,
            clock.clone(),
            &vitals,
            servers.clone(),
        )
        .await?;
        anyhow::Ok((store, lookout))
    };
    let (store, mut lookout) = tokio::select! {
        () = requests.shutdown.cancelled() => return Ok(Ended::Stopped),
        opened = opening => opened?,
    };
    let (sites, seen) = watch::channel(None);
    let judgement = Judgement::from(seen);
    let troubles = vitals.troubles();
    let watched = Watched::default();
    ask::answer(&data_dir, judgement.clone(), servers.clone());
    orphans::reap(servers.clone());
    let mut beside = Beside::new(Surroundings {
        data_dir: data_dir.clone(),
        judgement,
        troubles: troubles.clone(),
        clock: clock.clone(),
        watched: watched.clone(),
        servers: servers.clone(),
        once,
    });
    beside.apply(&config, lookout.client()).await;
    let keeping = if once {
        None
    } else {
        let embedded = store.embedded.as_ref().map(EmbeddedS3::store);
        let troubles = troubles.clone();
        retention::start(&config, &data_dir, embedded, &clock, troubles, &servers)
    };
    let watchdog = tokio::spawn(systemd::watchdog(vitals.clone(), servers.clone()));
    let mut ready = false;
    let boot = boot::Boot {
        load,
        requests: &requests,
        once,
        clock: &clock,
        vitals: &vitals,
    };
    let waits = |config: &Config| {
        if !ready {
            systemd::ready();
            ready = true;
        }
        systemd::status("waiting for the history");
        // Nothing is fed yet, and whoever looks is told why.
        sites.send_replace(Some(Site {
            clock: clock.clone(),
            feed: None,
            history: lookout.history(config, &data_dir),
            archive: Some(Lookout::archived(config, &data_dir)),
            s3: Some(store.bucket.client().clone()),
            watched: watched.clone(),
            vitals: vitals.clone(),
            store: keeping.clone(),
        }));
    };
    let Some(mut plant) = boot
        .plant(&mut config, &data_dir, &mut beside, &lookout, waits)
        .await?
    else {
        systemd::stopping();
        servers.cancel();
        beside.finish().await;
        return Ok(Ended::Stopped);
    };
    if lookout.reopen(&config).await {
        beside.look(&config, lookout.client());
    }
    let ended = loop {
        let stop = CancellationToken::new();
        let mut feeder = Feeder::start(
            Parts {
                config: config.feed.clone(),
                naming: config.naming,
                prefix: store.prefix.clone(),
                data_dir: data_dir.clone(),
                tags: plant.tags.clone(),
                source: plant.source,
                bucket: store.bucket.clone(),
                clock: clock.clone(),
                disk: Arc::new(LocalDisk),
                vitals: vitals.clone(),
            },
            stop.clone(),
        )
        .await?;
        info!(
            version = env!("CARGO_PKG_VERSION"), data_dir = %data_dir.display(), cadence = %config.feed.cadence,
            bucket = store.bucket.name(), prefix = store.prefix, components = plant.tags.components.len(),
            signals = plant.tags.signal_count(), embedded = store.embedded.is_some(), "feeding"
        );
        let mut watch = if once {
            None
        } else {
            // A command that changes the scheduler is told what would become of it.
            if let Err(error) = lock.say(&Keeping::note(&config)) {
                warn!(%error, "commands are not told which scheduler is kept");
            }
            lookout.watch(
                &config,
                &data_dir,
                &store,
                clock.clone(),
                &vitals,
                stop.clone(),
            )
        };
        if !ready {
            systemd::status(&feeder.view().status_line().await);
            systemd::ready();
            ready = true;
        }
        sites.send_replace(Some(Site {
            clock: clock.clone(),
            feed: Some(feeder.site(&config, &store, &plant.tags)),
            history: lookout.history(&config, &data_dir),
            archive: Some(Lookout::archived(&config, &data_dir)),
            s3: Some(store.bucket.client().clone()),
            watched: watched.clone(),
            vitals: vitals.clone(),
            store: keeping.clone(),
        }));
        let view = feeder.view();
        let unset = !clock::is_set(clock.now());
        let next = loop {
            tokio::select! {
                () = clock.set(), if unset => match Plant::open(&config, &data_dir, clock.now()).await {
                    Ok(plant) => {
                        info!(now = %clock.now(), "the clock is set: feeding begins");
                        break Ok((config.clone(), plant));
                    }
                    Err(error) => {
                        error!(error = format!("{error:#}"), "the history cannot be opened: stopping, systemd starts anew");
                        break Err(Ended::Failed);
                    }
                },
                () = requests.shutdown.cancelled() => break Err(Ended::Stopped),
                outcome = feeder.failed() => {
                    error!(error = outcome, "a loop has failed: stopping, systemd starts anew");
                    break Err(Ended::Failed);
                }
                outcome = failed(&mut watch) => {
                    error!(error = outcome, "the watcher has failed: stopping, systemd starts anew");
                    break Err(Ended::Failed);
                }
                outcome = lookout.failed() => {
                    error!(error = outcome, "the service has failed: stopping, systemd starts anew");
                    break Err(Ended::Failed);
                }
                done = wait_once(view.clone(), &clock), if once => {
                    break Err(if done { Ended::Stopped } else { Ended::Waiting });
                }
                () = requests.reload.notified() => {
                    store.bucket.renew();
                    lookout.renew();
                    // A history that is far away must not hold a stop up.
                    let outcome = tokio::select! {
                        () = requests.shutdown.cancelled() => break Err(Ended::Stopped),
                        outcome = reload(load, &config, &data_dir, &clock) => outcome,
                    };
                    match outcome {
                        Ok(next) => break Ok(next),
                        Err(error) => refused(&error, troubles, &clock),
                    }
                }
                () = tokio::time::sleep(Duration::from_secs(10)) => systemd::status(&view.status_line().await),
            }
        };
        if next.is_err() {
            systemd::stopping();
        }
        stop.cancel();
        let next = match next {
            // The next feeder begins where this one ends: what is under way is waited for, as long as nobody wants to stop.
            Ok(next) => tokio::select! {
                () = feeder.finish() => Ok(next),
                () = requests.shutdown.cancelled() => Err(Ended::Stopped),
            },
            ended => ended,
        };
        if next.is_err() {
            feeder.drain(DRAIN).await;
        }
        if let Some(watch) = watch {
            // What it was doing is done again by the next start.
            watch.abort();
        }
        match next {
            Ok((new_config, new_plant)) => {
                config = new_config;
                plant = new_plant;
                let change = async {
                    lookout.reopen(&config).await;
                    beside.apply(&config, lookout.client()).await;
                };
                tokio::select! {
                    () = change => {}
                    () = requests.shutdown.cancelled() => break Ended::Stopped,
                }
                troubles.all_over(Code::ConfigurationRefused);
                info!("the new configuration is in place");
            }
            Err(ended) => break ended,
        }
    };
    watchdog.abort();
    servers.cancel();
    beside.finish().await;
    Ok(ended)
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

/// Returns when the watcher ends before it was told to.
async fn failed(watch: &mut Option<Watch>) -> String {
    let Some(task) = watch else {
        return std::future::pending().await;
    };
    let outcome = task.await;
    *watch = None;
    match outcome {
        Ok(Ok(())) => "it ended".to_owned(),
        Ok(Err(error)) => format!("{error:#}"),
        Err(error) => error.to_string(),
    }
}

/// Reads a new configuration and opens what it names, so that it can be swapped in without a failure halfway.
async fn reload(
    load: &dyn Fn() -> Result<Loaded, ConfigError>,
    old: &Config,
    data_dir: &Path,
    clock: &Clock,
) -> anyhow::Result<(Config, Plant)> {
    let new = reread(load, old, data_dir)?;
    let plant = Plant::open(&new, data_dir, clock.now()).await?;
    Ok((new, plant))
}

/// Reads a new configuration that may take the place of the old one without a restart.
fn reread(
    load: &dyn Fn() -> Result<Loaded, ConfigError>,
    old: &Config,
    data_dir: &Path,
) -> anyhow::Result<Config> {
    let new = load()?.config;
    let in_process = |config: &Config| config.inference.endpoint_url.is_empty();
    let fixed: [(&str, bool); 6] = [
        ("data_dir", new.data_dir() != *data_dir),
        ("s3", new.s3 != old.s3),
        ("service", new.service != old.service),
        (
            "inference.endpoint_url of an embedded service",
            old.is_embedded() && in_process(&new) != in_process(old),
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
    Ok(new)
}

/// Waits until the live window is recorded and the spool is empty.
async fn wait_once(view: View, clock: &Clock) -> bool {
    let wait = async {
        loop {
            if let Ok(true) = view.is_settled(clock.now()).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let settled = tokio::time::timeout(ONCE, wait).await.is_ok();
    if !settled {
        warn!("the store was not reached in time: what is sealed stays in the spool");
    }
    settled
}

/// The path of a data directory's ledger entry states, for people.
pub fn describe(state: State) -> &'static str {
    state.describe()
}
