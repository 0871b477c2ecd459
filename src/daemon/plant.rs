//! The plant that is fed: its tag list, its history, and the fixed mapping between recorded and wall-clock time.
//!
//! The mapping is written down at the first start, twice, each copy with its checksum, and read again at every later one;
//! so a restart goes on where time is, not where it stopped. Where a looped history has grown it is written down again.

mod objects;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::clock;
use crate::config::Config;
use crate::feed::Policy;
use crate::feed::disk::{Disk, LocalDisk};
use crate::ops::lock;
use crate::sample::{SampleOptions, write_sample};
use crate::signal::{Asset, Cadence, Earlier, Mapping, Rebase, TagList, TagListError};
use crate::source::replay::follow::{self, Keep, Place};
use crate::source::replay::{AtEnd, Extent, Follow, Inventory, LocalFiles, Shelf, Strays};
use crate::source::shape::Shape;
use crate::source::{self, Progress, Source, SourceError, recorded_time};
use objects::Objects;

/// Days of the sample plant that embedded mode makes for itself.
const SAMPLE_DAYS: u32 = 40;

/// A plant, ready to be fed.
pub struct Plant {
    /// Components and their signals.
    pub tags: TagList,
    /// Where samples come from.
    pub source: Box<dyn Source>,
    /// What is known of its history.
    pub info: PlantInfo,
    /// A mapping that was made up now and is not kept yet.
    unkept: Option<Anchor>,
    /// Where the sample plant lies for whoever only looks.
    _borrowed: Option<Borrowed>,
}

/// A directory that is gone when nobody looks any more.
struct Borrowed(PathBuf);

impl Borrowed {
    fn new() -> std::io::Result<Self> {
        Ok(Self(lock::create_scratch("lookoutd-look")?))
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is known of a plant's history.
#[derive(Clone, Debug)]
pub struct PlantInfo {
    /// Name of the history.
    pub history: String,
    /// First and last recorded time, UTC microseconds.
    pub first: i64,
    /// Last recorded time, UTC microseconds.
    pub last: i64,
    /// Rows.
    pub rows: usize,
    /// Recorded time to wall-clock time.
    pub rebase: Rebase,
    /// Whether its rows are in the order of their times.
    pub sorted: bool,
    /// Rows that have the time of a later one, and are dropped.
    pub doubled: usize,
    /// Rows that lie years from all others.
    pub strays: Option<Strays>,
    /// Its files.
    pub inventory: Inventory,
}

/// The mapping as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Anchor {
    parquet: String,
    start: String,
    at_end: AtEnd,
    cadence: crate::signal::Cadence,
    /// Recorded time of the first window, UTC microseconds.
    recorded: i64,
    /// Its wall-clock time, UTC microseconds.
    wall: i64,
    rebase: Rebase,
    /// The mappings of earlier turns, where a looped history had another length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Earlier>,
}

impl Anchor {
    fn mapping(&self) -> Mapping {
        Mapping {
            now: self.rebase,
            earlier: self.earlier.clone(),
        }
    }
}

/// Whether what could not be opened may be there later: a share that is not mounted yet, a file that is being written, a
/// store that does not answer.
pub fn may_come(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<SourceError>()
            .is_some_and(SourceError::is_retryable)
            || cause
                .downcast_ref::<TagListError>()
                .is_some_and(TagListError::is_retryable)
    })
}

impl Plant {
    /// Opens what is configured, or the sample plant, which is made in `data_dir/sample` at the first start. Fixes the
    /// mapping of recorded time at the first call.
    pub async fn open(
        config: &Config,
        data_dir: &Path,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Self> {
        let place = MappingPlace::only(data_dir);
        Self::keep(config, data_dir, now, None, place).await
    }

    /// As [`Plant::open`], for the signals of `tags` and with the mapping at `place`.
    pub(super) async fn keep(
        config: &Config,
        data_dir: &Path,
        now: DateTime<Utc>,
        tags: Option<TagList>,
        place: MappingPlace,
    ) -> anyhow::Result<Self> {
        let plant = Self::find(config, data_dir, now, tags, (place.clone(), true)).await?;
        if let Some(anchor) = &plant.unkept {
            place
                .write(anchor)
                .with_context(|| format!("writing {}", place.0[0].display()))?;
            info!(
                recorded = format_recorded(anchor.recorded),
                wall = format_recorded(anchor.wall),
                "recorded time is mapped"
            );
        }
        Ok(plant)
    }

    /// As [`Plant::open`], but leaves nothing in `data_dir`: the mapping is not fixed where there is none, and a sample plant
    /// that is not there yet is made for the look alone.
    pub async fn look(
        config: &Config,
        data_dir: &Path,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Self> {
        Self::find(
            config,
            data_dir,
            now,
            None,
            (MappingPlace::only(data_dir), false),
        )
        .await
    }

    /// As [`Plant::look`], for one asset: `config` is that of the asset, `tags` its list.
    pub async fn look_of(
        asset: &Asset,
        tags: TagList,
        config: &Config,
        data_dir: &Path,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Self> {
        if !asset.is_named() {
            return Self::look(config, data_dir, now).await;
        }
        let place = match has_many(config.source.location()).await {
            true => MappingPlace::own(config, data_dir, asset),
            false => MappingPlace::of(config, data_dir),
        };
        Self::find(config, data_dir, now, Some(tags), (place, false)).await
    }

    /// What is one asset's of a history that is open.
    pub(super) fn shared(tags: TagList, source: Box<dyn Source>, info: PlantInfo) -> Self {
        Self {
            tags,
            source,
            info,
            unkept: None,
            _borrowed: None,
        }
    }

    async fn find(
        config: &Config,
        data_dir: &Path,
        now: DateTime<Utc>,
        tags: Option<TagList>,
        (place, keeps): (MappingPlace, bool),
    ) -> anyhow::Result<Self> {
        let mut source = config.source.clone();
        let mut borrowed = None;
        if source.location().is_empty() {
            let mut directory = data_dir.join("sample");
            if !keeps && !directory.exists() {
                let made = Borrowed::new().context("making a place for the sample plant")?;
                directory = made.0.join("sample");
                borrowed = Some(made);
            }
            make_sample(&directory, &embedded_sample()).await?;
            source.history = directory.join("signals.parquet").display().to_string();
            source.tags = directory.join("tags_description.csv").display().to_string();
        }
        let tags = match tags {
            Some(tags) => tags,
            None => TagList::read(&source.tags)?,
        };
        let opening = Opening {
            source,
            tags,
            config: config.clone(),
            data_dir: data_dir.to_owned(),
            now,
            place,
            keeps,
        };
        let location = opening.source.location().to_owned();
        let plant = match Somewhere::of(&location, &config.s3).await? {
            Somewhere::Files(files) => opening.at(files).await,
            Somewhere::Objects(objects) => opening.at(objects).await,
        }?;
        Ok(Self {
            _borrowed: borrowed,
            ..plant
        })
    }
}

/// What a plant is opened from.
struct Opening {
    source: source::Config,
    tags: TagList,
    config: Config,
    data_dir: PathBuf,
    now: DateTime<Utc>,
    place: MappingPlace,
    keeps: bool,
}

impl Opening {
    async fn at<P: Place + 'static>(self, place: P) -> anyhow::Result<Plant>
    where
        P::Reader: Send,
    {
        tokio::task::spawn_blocking(move || {
            let progress = Progress::default();
            let shelf = match self.keeps {
                true => Shelf::at(&self.data_dir),
                false => Shelf::of(&self.data_dir),
            };
            let opened = follow::open(
                place,
                &self.tags,
                &self.source.shape(),
                &progress,
                Some(shelf),
            )?;
            let history = opened.extent();
            let (anchor, kept) = self.anchor(history)?;
            let info = PlantInfo {
                history: self.source.location().to_owned(),
                first: history.first(),
                last: history.last(),
                rows: history.rows(),
                rebase: anchor.rebase,
                sorted: history.is_sorted(),
                doubled: history.doubled(),
                strays: history.strays(),
                inventory: opened.inventory(),
            };
            let mapping = anchor.mapping();
            let unkept = (!kept).then(|| anchor.clone());
            let keep: Keep = if self.keeps {
                keep_at(self.place, anchor)
            } else {
                Box::new(|_| Ok(()))
            };
            let cadence = self.config.feed.cadence;
            let follow = Follow::new(opened, mapping, cadence, keep);
            Ok(Plant {
                unkept,
                info,
                source: Box::new(follow.with_scratch(&self.data_dir)),
                tags: self.tags,
                _borrowed: None,
            })
        })
        .await?
    }
}

/// Writes a mapping that has changed to where it is kept.
fn keep_at(place: MappingPlace, mut anchor: Anchor) -> Keep {
    Box::new(move |mapping| {
        (anchor.rebase, anchor.earlier) = (mapping.now, mapping.earlier.clone());
        place.write(&anchor)
    })
}

/// Where a mapping is kept, twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MappingPlace([PathBuf; 2]);

impl MappingPlace {
    /// That of a data directory whose assets have no names.
    pub fn only(data_dir: &Path) -> Self {
        Self(["rebase.json", "rebase.backup.json"].map(|name| data_dir.join(name)))
    }

    /// That of all assets with the same history, beginning, end, cadence and rule of publishing: they share the history, and
    /// its mapping with it.
    pub fn of(config: &Config, data_dir: &Path) -> Self {
        let mut key = format!(
            "{}\n{}\n{:?}\n{}\n{:?}",
            config.source.location(),
            config.source.start,
            config.source.at_end,
            config.feed.cadence,
            config.feed.publish
        );
        let shape = config.source.shape();
        if shape != Shape::default() {
            key.push_str(&format!("\n{shape:?}"));
        }
        let name = &checksum(&key)[..16];
        Self(["json", "backup.json"].map(|end| data_dir.join(format!("rebase-{name}.{end}"))))
    }

    /// As [`MappingPlace::of`], where an asset has the history for itself: of many files it reads those that have its signals,
    /// which reach as far as they reach.
    pub fn own(config: &Config, data_dir: &Path, asset: &Asset) -> Self {
        let mut config = config.clone();
        config.source.start.push_str(&format!("\n{}", asset.name()));
        Self::of(&config, data_dir)
    }

    /// What tells it from others.
    pub fn key(self) -> PathBuf {
        let [first, _] = self.0;
        first
    }

    fn write(&self, anchor: &Anchor) -> io::Result<()> {
        self.0
            .iter()
            .try_for_each(|path| write_anchor(path, anchor))
    }
}

/// Where a history lies.
enum Somewhere {
    Files(LocalFiles),
    Objects(Objects),
}

impl Somewhere {
    async fn of(location: &str, s3: &crate::s3::Config) -> anyhow::Result<Self> {
        let Some(object) = location.strip_prefix("s3://") else {
            return Ok(Self::Files(LocalFiles::at(Path::new(location))));
        };
        let (bucket, key) = object
            .split_once('/')
            .with_context(|| format!("\"{location}\": write it as s3://bucket/key"))?;
        Ok(Self::Objects(Objects::at(s3.client().await, bucket, key)))
    }
}

/// Whether what lies at a location may be any number of files.
pub(super) async fn has_many(location: &str) -> bool {
    if let Some(object) = location.strip_prefix("s3://") {
        return object
            .split_once('/')
            .is_some_and(|(_, key)| key.is_empty() || key.ends_with('/'));
    }
    let files = LocalFiles::at(Path::new(location));
    let looked = tokio::task::spawn_blocking(move || files.may_be_many()).await;
    looked.unwrap_or_default()
}

/// Opens the history at `location`, files or objects, and plays it by `rebase`.
pub async fn open_replay(
    location: &str,
    tags: &TagList,
    shape: &Shape,
    s3: &crate::s3::Config,
    rebase: Rebase,
) -> anyhow::Result<Box<dyn Source>> {
    open_history(location, tags, shape, s3, move |_| rebase).await
}

/// As [`open_replay`], by a mapping that depends on the first recorded time.
pub async fn open_history(
    location: &str,
    tags: &TagList,
    shape: &Shape,
    s3: &crate::s3::Config,
    rebase: impl FnOnce(i64) -> Rebase + Send + 'static,
) -> anyhow::Result<Box<dyn Source>> {
    let place = Somewhere::of(location, s3).await?;
    let (tags, shape) = (tags.clone(), shape.clone());
    tokio::task::spawn_blocking(move || match place {
        Somewhere::Files(files) => play(files, &tags, &shape, rebase),
        Somewhere::Objects(objects) => play(objects, &tags, &shape, rebase),
    })
    .await?
}

fn play<P: Place + 'static>(
    place: P,
    tags: &TagList,
    shape: &Shape,
    rebase: impl FnOnce(i64) -> Rebase,
) -> anyhow::Result<Box<dyn Source>>
where
    P::Reader: Send,
{
    let opened = follow::open(place, tags, shape, &Progress::default(), None)?;
    let mapping = Mapping::new(rebase(opened.extent().first()));
    // Without a period there is nothing to fit, and to keep.
    let keep: Keep = Box::new(|_| Ok(()));
    Ok(Box::new(
        Follow::new(opened, mapping, Cadence::Pt5m, keep).as_it_is(),
    ))
}

/// Makes the sample plant unless it is there, completely or not at all.
pub async fn make_sample(directory: &Path, options: &SampleOptions) -> anyhow::Result<()> {
    if directory.join("signals.parquet").exists() {
        return Ok(());
    }
    let (directory, options) = (directory.to_owned(), options.clone());
    tokio::task::spawn_blocking(move || {
        let staging = directory.with_extension("new");
        LocalDisk.remove_dir(&staging)?;
        std::fs::create_dir_all(&staging)?;
        let summary = write_sample(&staging, &options, &mut |_| {})?;
        LocalDisk.remove_dir(&directory)?;
        std::fs::rename(&staging, &directory)?;
        info!(directory = %directory.display(), rows = summary.rows, signals = summary.signals, "sample plant made");
        Ok(())
    })
    .await?
}

fn embedded_sample() -> SampleOptions {
    SampleOptions {
        days: SAMPLE_DAYS,
        ..SampleOptions::default()
    }
}

impl Opening {
    /// The kept mapping, or a new one that starts at the live window; and whether it is kept as it is.
    fn anchor(&self, history: &Extent) -> anyhow::Result<(Anchor, bool)> {
        let cadence = self.config.feed.cadence;
        let kept = self.place.0.clone().map(|path| read_anchor(&path));
        let both = kept[0].is_some() && kept[0] == kept[1];
        let found = kept.into_iter().flatten().next();
        if let Some(anchor) = &found
            && anchor.parquet == self.source.location()
            && anchor.start == self.source.start
            && anchor.at_end == self.source.at_end
            && anchor.cadence == cadence
            && DateTime::from_timestamp_micros(anchor.wall).is_some_and(clock::is_set)
        {
            // A copy that was lost is written again before the other one is.
            return Ok((anchor.clone(), both));
        }
        let recorded = if self.source.start.is_empty() {
            history.default_start(cadence, 3)
        } else {
            let start = recorded_time(&self.source.start).map_err(|problem| {
                source::SourceError::Invalid {
                    name: "source.start".into(),
                    problems: vec![problem],
                }
            })?;
            if start < history.first() || start > history.last() {
                bail!(source::SourceError::Invalid {
                    name: self.source.location().to_owned(),
                    problems: vec![format!(
                        "source.start {} is outside its history, {} to {}",
                        self.source.start,
                        format_recorded(history.first()),
                        format_recorded(history.last())
                    )],
                });
            }
            start
        };
        let policy = Policy {
            cadence,
            publish: self.config.feed.publish,
            catch_up: self.config.feed.catch_up,
            max_age: chrono::TimeDelta::zero(),
            resumed_at: self.now,
        };
        let live = policy.live(self.now);
        let wall = live.start().timestamp_micros();
        let rebase = history.rebase(recorded, wall, cadence, self.source.at_end);
        // Nothing is cut before the clock is set; then the mapping is made anew, and kept.
        let passing = !clock::is_set(self.now);
        let is_only = self.place == MappingPlace::only(&self.data_dir);
        if !passing && is_only && found.is_none() && self.data_dir.join("ledger.db").exists() {
            warn!("the mapping of recorded time is lost: it begins anew at the live window");
        }
        if !passing && found.is_some() {
            warn!(
                "the source or its cadence has changed: the mapping of recorded time begins anew"
            );
        }
        let anchor = Anchor {
            parquet: self.source.location().to_owned(),
            start: self.source.start.clone(),
            at_end: self.source.at_end,
            cadence,
            recorded,
            wall,
            rebase,
            earlier: Vec::new(),
        };
        Ok((anchor, passing))
    }
}

/// A recorded time for people.
pub fn format_recorded(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros)
        .map(|time| time.format("%Y-%m-%dT%H:%M:%S").to_string())
        .unwrap_or_else(|| micros.to_string())
}

/// A copy of the mapping, if it is there and whole.
fn read_anchor(path: &Path) -> Option<Anchor> {
    let bytes = std::fs::read(path).ok()?;
    let whole = || -> Option<Anchor> {
        let text = std::str::from_utf8(&bytes).ok()?;
        let (json, sum) = text.trim_end().split_once('\n')?;
        serde_json::from_str(json)
            .ok()
            .filter(|_| sum == checksum(json))
    };
    let anchor = whole();
    if anchor.is_none() {
        warn!(path = %path.display(), "the kept mapping of recorded time is damaged");
    }
    anchor
}

fn write_anchor(path: &Path, anchor: &Anchor) -> io::Result<()> {
    // Assets that have a history of one place for themselves write one at a time.
    static WRITING: Mutex<()> = Mutex::new(());
    let _one = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let json = serde_json::to_string(anchor)?;
    let staging = path.with_extension("new");
    LocalDisk.write(
        &staging,
        format!("{json}\n{}\n", checksum(&json)).as_bytes(),
    )?;
    LocalDisk.sync(&staging)?;
    LocalDisk.rename(&staging, path)?;
    if let Some(parent) = path.parent() {
        LocalDisk.sync_dir(parent)?;
    }
    Ok(())
}

fn checksum(json: &str) -> String {
    Sha256::digest(json.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
