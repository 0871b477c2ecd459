//! The plant that is fed: its tag list, its history, and the fixed mapping between recorded and wall-clock time.
//!
//! The mapping is written down at the first start, twice, each copy with its checksum, and read again at every later one;
//! so a restart goes on where time is, not where it stopped.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use parquet::file::reader::ChunkReader;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::config::Config;
use crate::feed::Policy;
use crate::feed::disk::{Disk, LocalDisk};
use crate::s3::RangeReader;
use crate::sample::{SampleOptions, write_sample};
use crate::signal::{Rebase, TagList};
use crate::source::replay::{AtEnd, History, Replay};
use crate::source::{self, Source, recorded_time};

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
}

impl Plant {
    /// Opens what is configured, or the sample plant, which is made in `data_dir/sample` at the first start. Fixes the
    /// mapping of recorded time at the first call.
    pub async fn open(
        config: &Config,
        data_dir: &Path,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Self> {
        let plant = Self::look(config, data_dir, now).await?;
        if let Some(anchor) = &plant.unkept {
            for path in anchor_files(data_dir) {
                write_anchor(&path, anchor)
                    .with_context(|| format!("writing {}", path.display()))?;
            }
            info!(
                recorded = format_recorded(anchor.recorded),
                wall = format_recorded(anchor.wall),
                "recorded time is mapped"
            );
        }
        Ok(plant)
    }

    /// As [`Plant::open`], but leaves the mapping unfixed where there is none.
    pub async fn look(
        config: &Config,
        data_dir: &Path,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Self> {
        let mut source = config.source.clone();
        if source.parquet.is_empty() {
            let directory = data_dir.join("sample");
            make_sample(&directory, &embedded_sample()).await?;
            source.parquet = directory.join("signals.parquet").display().to_string();
            source.tags = directory.join("tags_description.csv").display().to_string();
        }
        let tags = TagList::read(&source.tags)?;
        match Place::open(&source.parquet, &config.s3).await? {
            Place::File(file) => Self::from_reader(file, source, tags, config, data_dir, now).await,
            Place::Object(object) => {
                Self::from_reader(object, source, tags, config, data_dir, now).await
            }
        }
    }

    async fn from_reader<R: ChunkReader + Send + 'static>(
        reader: R,
        source: source::Config,
        tags: TagList,
        config: &Config,
        data_dir: &Path,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Self> {
        let (config, data_dir) = (config.clone(), data_dir.to_owned());
        tokio::task::spawn_blocking(move || {
            let history = Replay::open(reader, &source.parquet, &tags)?;
            let (rebase, unkept) = anchor(&history, &source, &config, &data_dir, now)?;
            Ok(Self {
                unkept,
                info: PlantInfo {
                    history: source.parquet,
                    first: history.first(),
                    last: history.last(),
                    rows: history.rows(),
                    rebase,
                },
                source: Box::new(Replay::new(history, rebase)),
                tags,
            })
        })
        .await?
    }
}

/// Where a history lies.
enum Place {
    File(std::fs::File),
    Object(RangeReader),
}

impl Place {
    async fn open(location: &str, s3: &crate::s3::Config) -> anyhow::Result<Self> {
        let Some(object) = location.strip_prefix("s3://") else {
            let file =
                std::fs::File::open(location).map_err(|error| source::SourceError::Invalid {
                    name: location.to_owned(),
                    problems: vec![format!("cannot be opened: {error}; check source.parquet")],
                })?;
            return Ok(Self::File(file));
        };
        let (bucket, key) = object
            .split_once('/')
            .with_context(|| format!("\"{location}\": write it as s3://bucket/key"))?;
        Ok(Self::Object(
            RangeReader::open(s3.client().await, bucket, key).await?,
        ))
    }
}

/// Opens the history at `location`, a path or `s3://bucket/key`, and plays it by `rebase`.
pub async fn open_replay(
    location: &str,
    tags: &TagList,
    s3: &crate::s3::Config,
    rebase: Rebase,
) -> anyhow::Result<Box<dyn Source>> {
    let place = Place::open(location, s3).await?;
    let (name, tags) = (location.to_owned(), tags.clone());
    tokio::task::spawn_blocking(move || -> anyhow::Result<Box<dyn Source>> {
        Ok(match place {
            Place::File(file) => Box::new(Replay::new(Replay::open(file, &name, &tags)?, rebase)),
            Place::Object(object) => {
                Box::new(Replay::new(Replay::open(object, &name, &tags)?, rebase))
            }
        })
    })
    .await?
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

/// The kept mapping, or a new one that starts at the live window.
fn anchor<R: ChunkReader + 'static>(
    history: &History<R>,
    source: &source::Config,
    config: &Config,
    data_dir: &Path,
    now: DateTime<Utc>,
) -> anyhow::Result<(Rebase, Option<Anchor>)> {
    let cadence = config.feed.cadence;
    let kept = anchor_files(data_dir).map(|path| read_anchor(&path));
    let both = kept[0].is_some() && kept[0] == kept[1];
    let found = kept.into_iter().flatten().next();
    if let Some(anchor) = &found
        && anchor.parquet == source.parquet
        && anchor.start == source.start
        && anchor.at_end == source.at_end
        && anchor.cadence == cadence
    {
        // A copy that was lost is written again before the other one is.
        return Ok((anchor.rebase, (!both).then(|| anchor.clone())));
    }
    let recorded = if source.start.is_empty() {
        history.default_start(cadence, 3)
    } else {
        let start =
            recorded_time(&source.start).map_err(|problem| source::SourceError::Invalid {
                name: "source.start".into(),
                problems: vec![problem],
            })?;
        if start < history.first() || start > history.last() {
            bail!(source::SourceError::Invalid {
                name: source.parquet.clone(),
                problems: vec![format!(
                    "source.start {} is outside its history, {} to {}",
                    source.start,
                    format_recorded(history.first()),
                    format_recorded(history.last())
                )],
            });
        }
        start
    };
    let policy = Policy {
        cadence,
        publish: config.feed.publish,
        catch_up: config.feed.catch_up,
        max_age: chrono::TimeDelta::zero(),
        resumed_at: now,
    };
    let live = policy.live(now);
    let wall = live.start().timestamp_micros();
    let rebase = history.rebase(recorded, wall, cadence, source.at_end);
    if found.is_none() && data_dir.join("ledger.db").exists() {
        warn!("the mapping of recorded time is lost: it begins anew at the live window");
    }
    if found.is_some() {
        warn!("the source or its cadence has changed: the mapping of recorded time begins anew");
    }
    let anchor = Anchor {
        parquet: source.parquet.clone(),
        start: source.start.clone(),
        at_end: source.at_end,
        cadence,
        recorded,
        wall,
        rebase,
    };
    Ok((rebase, Some(anchor)))
}

fn anchor_files(data_dir: &Path) -> [PathBuf; 2] {
    ["rebase.json", "rebase.backup.json"].map(|name| data_dir.join(name))
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

fn write_anchor(path: &Path, anchor: &Anchor) -> anyhow::Result<()> {
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
