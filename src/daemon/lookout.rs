//! The inference half of the daemon: the API it talks to, in process or elsewhere, and the watcher.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_sdk_lookoutequipment::Client;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info};

use super::Store;
use super::wiring::{Common, Plan};
use crate::clock::Clock;
use crate::config::Config;
use crate::embedded::KeyPair;
use crate::executions::Place;
use crate::feed::Ledger;
use crate::inference::{
    self, Archive, Deliveries, Delivery, Roster, Target, Wanted, Watcher, describe,
};
use crate::ops::cors::Cors;
use crate::ops::lock;
use crate::s3::{Bucket, Keeper};
use crate::service::{self, ACCOUNT, AccessKey, Auth, REGION, Service};
use crate::vitals::Vitals;

/// The scheduler of embedded mode, where none is configured.
pub const EMBEDDED_SCHEDULER: &str = "lookoutd";

/// A scheduler that a running daemon keeps as configured: whatever anybody else does to it is undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// The daemon's process.
    pub pid: u32,
    /// The scheduler.
    pub scheduler: String,
    /// What it is kept as.
    pub wanted: Wanted,
}

impl Keeping {
    /// What a daemon that keeps these lets other processes know.
    pub(super) fn note<'a>(plans: impl Iterator<Item = &'a Plan>) -> String {
        let kept = plans.filter_map(|plan| {
            let config = &plan.config;
            let scheduler = match config.inference.scheduler.as_str() {
                "" if plan.asset.is_named() => return None,
                "" if config.is_embedded() && config.inference.endpoint_url.is_empty() => {
                    EMBEDDED_SCHEDULER
                }
                "" => return None,
                name => name,
            };
            Some(format!(" {scheduler} {}", config.inference.wanted.name()))
        });
        let kept: String = kept.collect();
        match kept.as_str() {
            "" => kept,
            some => format!("keeps{some}"),
        }
    }

    /// What the daemon on this data directory keeps the scheduler of that name as, if one runs and keeps it.
    pub fn by_daemon(data_dir: &Path, scheduler: &str) -> Option<Self> {
        let holder = lock::held_by(data_dir)?;
        let mut words = holder.note.split(' ');
        if words.next()? != "keeps" {
            return None;
        }
        loop {
            let (name, wanted) = (words.next()?, words.next()?);
            if name == scheduler {
                return Some(Self {
                    pid: holder.pid,
                    scheduler: name.to_owned(),
                    wanted: Wanted::named(wanted)?,
                });
            }
        }
    }
}

/// The API of a daemon.
pub struct Lookout {
    roster: Roster,
    keeper: Option<Keeper>,
    /// What its client was made from.
    opened: inference::Config,
    service: Option<Service>,
}

/// A watcher's task, which ends only by shutdown or by a failure of the archive.
pub type Watch = JoinHandle<anyhow::Result<()>>;

impl Lookout {
    /// The configured API; in embedded mode, where none is configured, a service on `service.listen`.
    pub async fn open(
        config: &Config,
        data_dir: &Path,
        store: &Store,
        clock: Clock,
        vitals: &Vitals,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        if store.embedded.is_none() || !config.inference.endpoint_url.is_empty() {
            let kept = config.inference.client(&config.s3).await;
            return Ok(Self {
                roster: Roster::new(kept.client),
                keeper: Some(kept.keeper),
                opened: config.inference.clone(),
                service: None,
            });
        }
        let listen: SocketAddr = config
            .service
            .listen
            .parse()
            .with_context(|| format!("service.listen \"{}\"", config.service.listen))?;
        let keys = KeyPair::load_or_create(data_dir)?;
        let service = service::Config {
            region: config.service.region.clone(),
            account: config.service.account.clone(),
            cors: config.service.cors(),
            vitals: vitals.clone(),
            keep_executions: config.service.keep_executions.0,
            // What the feeder cuts afterwards is to be scored afterwards.
            catch_up_max_age: config.feed.max_age.0.max(service::CATCH_UP_MAX_AGE),
            ..service_config(listen, data_dir.join("service"), &keys)
        };
        Self::serve(data_dir, service, &keys, store, clock, shutdown).await
    }

    async fn serve(
        data_dir: &Path,
        config: service::Config,
        keys: &KeyPair,
        store: &Store,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let service =
            Service::start(config, store.bucket.client().clone(), clock, shutdown).await?;
        let url = format!("http://{}", service.address());
        info!(url, credentials = %data_dir.join("credentials").display(), "embedded Lookout API is up");
        let client = inference::local_client(&url, &keys.access_key, &keys.secret_key);
        Ok(Self {
            roster: Roster::new(client),
            keeper: None,
            opened: inference::Config::default(),
            service: Some(service),
        })
    }

    /// The client.
    pub fn client(&self) -> &Client {
        self.roster.client()
    }

    /// What all who look at schedulers share.
    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Takes the client of another configuration, where the API is elsewhere. Whether it did.
    pub async fn reopen(&mut self, config: &Config) -> bool {
        let inference = &config.inference;
        if self.service.is_some() || self.opened == *inference {
            return false;
        }
        self.opened = inference.clone();
        let reached = inference.client(&config.s3).await;
        self.roster = Roster::new(reached.client);
        self.keeper = Some(reached.keeper);
        true
    }

    /// Asks for credentials anew with the next request.
    pub fn renew(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.ask_again();
        }
    }

    /// What keeps the credentials of an API that is elsewhere.
    pub fn keeper(&self) -> Option<&Keeper> {
        self.keeper.as_ref()
    }

    /// The service, where it is in process.
    pub fn service(&self) -> Option<&Service> {
        self.service.as_ref()
    }

    /// Returns when a loop of the service in process ends before it was told to, with the reason.
    pub async fn failed(&mut self) -> String {
        match &mut self.service {
            Some(service) => service.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Where executions can be looked up: the service's own state, or the archive of a service elsewhere.
    /// Of an archive, which may hold what others ran or what ran once, only the schedulers that are `kept`, and not kept
    /// stopped, are judged.
    pub fn history<'a>(
        &self,
        config: &Config,
        kept: impl Iterator<Item = &'a inference::Config>,
        data_dir: &Path,
    ) -> Option<Place> {
        if self.service.is_some() {
            return Some(Place::service(data_dir.join("service/state.db")));
        }
        let mut watched = kept.filter(|one| !one.scheduler.is_empty()).peekable();
        watched.peek()?;
        let run = watched.filter(|one| one.wanted != Wanted::Stopped);
        let judged = run.map(|one| one.scheduler.clone()).collect();
        Some(Self::archived(config, data_dir).judging(judged))
    }

    /// The archive of a data directory, to look executions up.
    pub fn archived(config: &Config, data_dir: &Path) -> Place {
        Place::archive(
            archive(data_dir).root().join("index.db"),
            config.feed.cadence,
            config.naming,
        )
    }

    /// The API, for the lines of assets.
    pub(super) fn api(&self) -> Api {
        Api {
            roster: self.roster.clone(),
            in_process: self.service.is_some(),
        }
    }
}

/// The API as the lines of assets use it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Api {
    roster: Roster,
    in_process: bool,
}

impl Api {
    /// Starts to keep and watch the scheduler of an asset, once `from` is cancelled; `None` where there is none to watch. In embedded mode, without a
    /// configured scheduler, it begins when the service has a model.
    pub fn watch(
        &self,
        plan: &Plan,
        common: &Common,
        vitals: &Vitals,
        from: Option<CancellationToken>,
        shutdown: CancellationToken,
    ) -> Option<Watch> {
        let (config, inference) = (&plan.config, &plan.config.inference);
        if inference.scheduler.is_empty() && (!self.in_process || plan.asset.is_named()) {
            return None;
        }
        let (bucket, prefix) = (common.bucket.name(), plan.prefix());
        let target = inference.target(config.feed.cadence, config.naming, bucket, prefix);
        let s3 = common.bucket.client().clone();
        let copy = (!inference.archive_prefix.is_empty()).then(|| {
            let bucket = Bucket::new(s3.clone(), &target.output_bucket);
            (bucket, inference.archive_prefix.clone())
        });
        let parts = inference::Parts {
            client: self.roster.client().clone(),
            target,
            s3,
            archive: archive(&common.data_dir),
            copy,
            poll: inference.poll.0,
            roster: self.roster.clone(),
            clock: common.clock.clone(),
            vitals: vitals.clone(),
        };
        let deliveries = deliveries(&common.data_dir, plan.asset.name());
        let work = watch(parts, common.clone(), deliveries, shutdown);
        let work = async move {
            if let Some(from) = from {
                from.cancelled().await;
            }
            work.await
        };
        let span = match plan.asset.name() {
            "" => tracing::Span::none(),
            asset => tracing::info_span!("asset", asset),
        };
        Some(tokio::spawn(work.instrument(span)))
    }
}

/// What the ledger of a data directory knows of how a window of an asset was delivered.
pub fn deliveries(data_dir: &Path, asset: &str) -> Deliveries {
    let (data_dir, asset) = (data_dir.to_owned(), asset.to_owned());
    Arc::new(move |start| {
        let ledger = Ledger::open_existing(&data_dir).ok().flatten()?.of(&asset);
        let entry = ledger.find(start).ok().flatten()?;
        Some(Delivery {
            said: entry.told(),
            shipped_at: entry.shipped_at,
        })
    })
}

/// The archive of a data directory.
pub fn archive(data_dir: &Path) -> Archive {
    Archive::new(data_dir.join("archive"))
}

/// How a service with one key pair is set up.
pub fn service_config(listen: SocketAddr, state: PathBuf, keys: &KeyPair) -> service::Config {
    service::Config {
        listen,
        data_dir: state,
        region: REGION.into(),
        account: ACCOUNT.into(),
        credentials: Auth::Keys(vec![AccessKey {
            id: keys.access_key.clone(),
            secret: keys.secret_key.clone(),
        }]),
        catch_up: false,
        vitals: Vitals::default(),
        catch_up_max_age: service::CATCH_UP_MAX_AGE,
        cors: Cors::default(),
        keep_executions: service::KEEP_EXECUTIONS,
    }
}

async fn watch(
    mut parts: inference::Parts,
    common: Common,
    deliveries: Deliveries,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if parts.target.scheduler.is_empty() {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = choose(&parts.client, &mut parts.target, parts.poll) => {}
        }
    }
    let watcher = Watcher::on(parts, common.index().await?);
    watcher.told_by(deliveries).run(shutdown).await
}

/// Waits for a model and names the scheduler; one that is there keeps its model.
async fn choose(client: &Client, target: &mut Target, poll: Duration) {
    loop {
        if let Some(model) = model(client, &target.model).await {
            target.scheduler = EMBEDDED_SCHEDULER.to_owned();
            target.model = model;
            return;
        }
        tokio::time::sleep(poll.min(Duration::from_secs(5))).await;
    }
}

async fn model(client: &Client, wanted: &str) -> Option<String> {
    if let Ok(Some(scheduler)) = describe(client, EMBEDDED_SCHEDULER).await
        && (wanted.is_empty() || wanted == scheduler.model)
    {
        return Some(scheduler.model);
    }
    let models = client.list_models().max_results(500).send().await.ok()?;
    models
        .model_summaries()
        .iter()
        .filter(|model| {
            model
                .status()
                .is_some_and(|status| status.as_str() == "SUCCESS")
        })
        .filter(|model| wanted.is_empty() || model.model_name() == Some(wanted))
        .max_by_key(|model| {
            model
                .created_at()
                .map(|time| (time.secs(), time.subsec_nanos()))
        })
        .and_then(|model| model.model_name())
        .map(str::to_owned)
}
