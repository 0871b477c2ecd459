//! The one wiring: from a configuration to the parts of a site, and to those of each of its assets.
//!
//! ```text
//!  Config ─► Plan of each asset (list, own configuration, history) ─► Line: plant ─► cutter ─► spool ─► shipper
//!        └─► Wiring: store, API, ledger, spool, budget, vitals ───────────┘   └─► watcher, keeper of the scheduler
//! ```
//!
//! Whatever runs a gateway asks it: `run`, `demo`, `replay`. It opens in the order in which parts need each other, and holds
//! what all assets share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::feeder::Shared;
use super::histories::History;
use super::line::Line;
use super::live::{Course, LiveSite};
use super::lookout::{Api, Lookout, archive};
use super::{EMBEDDED_PREFIX, Store};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Loaded};
use crate::feed::disk::{Disk, LocalDisk};
use crate::inference::Index;
use crate::ops::site::{InputSite, Site};
use crate::signal::{Asset, Component, TagList, TagListError};
use crate::store::retention::Retention;
use crate::vitals::Vitals;

/// The parts of a site.
pub struct Wiring {
    /// Where everything of it lies.
    pub data_dir: PathBuf,
    /// The time.
    pub clock: Clock,
    /// The loops of this process.
    pub vitals: Vitals,
    /// Where input files go.
    pub store: Store,
    /// The API and, in embedded mode, the service behind it.
    pub lookout: Lookout,
    /// What the embedded store keeps, where it is cleared.
    pub keeping: Option<Retention>,
    common: Common,
}

/// What the lines of all assets share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Common {
    pub data_dir: PathBuf,
    pub clock: Clock,
    pub vitals: Vitals,
    pub disk: Arc<dyn Disk>,
    pub bucket: crate::s3::Bucket,
    pub is_embedded: bool,
    shared: Arc<OnceCell<Shared>>,
    index: Arc<OnceCell<Index>>,
    live: Arc<OnceCell<LiveSite>>,
}

/// What one asset is run by.
#[derive(Clone)]
pub struct Plan {
    /// The asset.
    pub asset: Asset,
    /// Its own configuration.
    pub config: Config,
    /// Its components; `None`: the tag list of the configuration, or of the sample plant.
    pub(super) tags: Option<TagList>,
    /// The history that it shares, where it has a name.
    pub(super) history: Option<Arc<History>>,
    /// How far its samples have come, where inputs bring them.
    pub(super) course: Option<Arc<Course>>,
}

impl PartialEq for Plan {
    /// What runs by the one may go on by the other.
    fn eq(&self, other: &Self) -> bool {
        let same_history = match (&self.history, &other.history) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let same_course = match (&self.course, &other.course) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same_history
            && same_course
            && self.asset == other.asset
            && self.config == other.config
            && self.tags == other.tags
    }
}

impl Wiring {
    /// Opens the parts of a site: the store first, then the API that reads from it.
    pub async fn open(
        config: &Config,
        data_dir: &Path,
        clock: Clock,
        servers: CancellationToken,
    ) -> anyhow::Result<Self> {
        let vitals = Vitals::default();
        let store = Store::open(config, data_dir, &clock, servers.clone()).await?;
        let (time, found) = (clock.clone(), &vitals);
        let lookout = Lookout::open(config, data_dir, &store, time, found, servers).await?;
        Ok(Self {
            data_dir: data_dir.to_owned(),
            common: Common {
                data_dir: data_dir.to_owned(),
                clock: clock.clone(),
                vitals: vitals.clone(),
                disk: Arc::new(LocalDisk),
                bucket: store.bucket.clone(),
                is_embedded: store.embedded.is_some(),
                shared: Arc::default(),
                index: Arc::default(),
                live: Arc::default(),
            },
            clock,
            vitals,
            store,
            lookout,
            keeping: None,
        })
    }

    /// What its lines share.
    pub(super) fn common(&self) -> Common {
        self.common.clone()
    }

    /// The API, for lines.
    pub(super) fn api(&self) -> Api {
        self.lookout.api()
    }

    /// What runs here, for those who look at it.
    pub fn site(&self, config: &Config, lines: &[Line], inputs: Vec<InputSite>) -> Site {
        let kept = lines.iter().map(|line| &line.plan.config.inference);
        Site {
            clock: self.clock.clone(),
            assets: lines.iter().map(Line::site).collect(),
            inputs,
            history: self.lookout.history(config, kept, &self.data_dir),
            archive: Some(Lookout::archived(config, &self.data_dir)),
            s3: Some(self.store.bucket.client().clone()),
            vitals: self.vitals.clone(),
            store: self.keeping.clone(),
        }
    }

    /// Ends what no line ends.
    pub async fn stop(&self) {
        if let Some(shared) = self.common.shared.get() {
            shared.stop().await;
        }
    }
}

impl Common {
    /// Ledger, spool and budget, opened when the first line needs them, for so many assets.
    pub async fn shared(&self, assets: usize) -> anyhow::Result<&Shared> {
        let open = || {
            let (disk, vitals) = (self.disk.clone(), &self.vitals);
            Shared::open(&self.data_dir, disk, &self.clock, vitals, assets)
        };
        self.shared.get_or_try_init(open).await
    }

    /// The journal, opened when the first needs it.
    pub async fn live(&self, config: &Config) -> anyhow::Result<&LiveSite> {
        self.live
            .get_or_try_init(|| LiveSite::open(self, config))
            .await
    }

    /// Ledger and spool, where a line has opened them.
    pub fn opened(&self) -> Option<&Shared> {
        self.shared.get()
    }

    /// The index of the archive, which all watchers write.
    pub async fn index(&self) -> anyhow::Result<Index> {
        let (archive, now) = (archive(&self.data_dir), self.clock.now());
        let open = || async move {
            let opened = tokio::task::spawn_blocking(move || Index::open(&archive, now));
            anyhow::Ok(opened.await??)
        };
        Ok(self.index.get_or_try_init(open).await?.clone())
    }
}

impl Plan {
    /// What each asset of a configuration is run by: one without a name where the tag list names none.
    pub fn all(loaded: &Loaded, data_dir: &Path) -> anyhow::Result<Vec<Plan>> {
        let config = &loaded.config;
        let only = |config: Config| Plan {
            asset: Asset::default(),
            config,
            tags: None,
            history: None,
            course: None,
        };
        let Some(list) = list(config)? else {
            let origin = |key: &str| loaded.origin(key).to_owned();
            // The sample plant has one asset.
            let one = config.of_all(&sample_list(), &origin)?;
            return Ok(one.into_iter().map(|(_, config)| only(config)).collect());
        };
        let configs = Self::configs(loaded, &list)?;
        if config.is_live() {
            let live = configs.into_iter().map(|(asset, config)| {
                let tags = list.of(&asset);
                Plan {
                    course: Some(Arc::new(Course::of(&config, tags.clone()))),
                    tags: Some(tags),
                    history: None,
                    asset,
                    config,
                }
            });
            return Ok(live.collect());
        }
        if let [(asset, config)] = configs.as_slice()
            && !asset.is_named()
        {
            return Ok(vec![only(config.clone())]);
        }
        let mut by_asset: std::collections::HashMap<Asset, TagList> = Default::default();
        for component in list.components {
            let of = by_asset.entry(component.asset.clone()).or_default();
            of.components.push(component);
        }
        let assets = configs.into_iter().map(|(asset, config)| {
            let tags = by_asset.remove(&asset).unwrap_or_default();
            (asset, config, tags)
        });
        let plan = |(asset, config, tags, history)| Plan {
            asset,
            config,
            tags: Some(tags),
            history: Some(history),
            course: None,
        };
        let shared = History::of_all(assets.collect(), data_dir);
        Ok(shared.into_iter().map(plan).collect())
    }

    /// The configuration of each asset of a tag list.
    pub fn configs(loaded: &Loaded, list: &TagList) -> Result<Vec<(Asset, Config)>, ConfigError> {
        let origin = |key: &str| loaded.origin(key).to_owned();
        loaded.config.of_all(list, &origin)
    }

    /// Key prefix of its input files.
    pub fn prefix(&self) -> &str {
        input_prefix(&self.config)
    }
}

/// Key prefix of the input files of a configuration.
pub fn input_prefix(config: &Config) -> &str {
    match config.s3.input_prefix.as_str() {
        "" if config.is_embedded() => EMBEDDED_PREFIX,
        prefix => prefix,
    }
}

/// The tag list of a configuration; `None` where it has the sample plant.
fn list(config: &Config) -> Result<Option<TagList>, TagListError> {
    match config.source.tags.as_str() {
        "" => Ok(None),
        tags => TagList::read(tags).map(Some),
    }
}

/// One asset without a name.
fn sample_list() -> TagList {
    TagList {
        components: vec![Component::default()],
    }
}
