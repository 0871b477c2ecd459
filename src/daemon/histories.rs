//! Histories that several assets share: opened once and decoded once for each window, whoever asks first.
//!
//! Guarantees: an asset gets the rows that it would read alone, so only a history of one file is shared: of many files each asset
//! reads those that have its signals; an asset whose tags the history does not have is left out, and opens it alone, so that it
//! alone is refused; a history that hangs keeps a few threads and its own assets waiting.
//! Deliberately absent: what lies in a history; `source` knows.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::plant::{MappingPlace, Plant, PlantInfo, has_many, may_come};
use crate::clock;
use crate::config::Config;
use crate::signal::{Asset, RowRule, TagList, Values, Window};
use crate::source::replay::column_names;
use crate::source::{Progress, Reading, Source, SourceError};

/// Windows that are decoded and not yet handed to every asset, at most: one that is live, one of a backlog.
const DECODED: usize = 2;
/// How many assets of one history may cut at once.
const AT_ONCE: usize = 4;
/// A history that cannot be opened is not asked for again by every one of its assets.
const TRIED: Duration = Duration::from_secs(4);

/// A history and the assets that share it. Two are equal where the same assets read the same columns of it.
pub(super) struct History {
    /// The configuration of one of them, of which only what they have in common is used.
    config: Config,
    data_dir: PathBuf,
    members: Vec<(Asset, TagList)>,
    opened: tokio::sync::Mutex<Opened>,
}

#[derive(Default)]
struct Opened {
    shared: Option<Shared>,
    /// There is nothing to share: each has to say for itself what is wrong.
    alone: bool,
    /// When it last could not be opened, and why.
    failed: Option<(Instant, String)>,
}

#[derive(Clone)]
struct Shared {
    decoder: Arc<Mutex<Decoder>>,
    /// Whether the clock was set when recorded time was mapped.
    mapped: bool,
    gate: Arc<Semaphore>,
    progress: Progress,
    info: PlantInfo,
    /// Which components of the whole are an asset's.
    ranges: HashMap<Asset, Range<usize>>,
}

impl PartialEq for History {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place() && self.members == other.members
    }
}

impl History {
    /// What is shared by assets whose configurations agree in what a history depends on; in the order of `assets`.
    pub fn of_all(
        assets: Vec<(Asset, Config, TagList)>,
        data_dir: &Path,
    ) -> Vec<(Asset, Config, TagList, Arc<History>)> {
        let mut members: HashMap<PathBuf, Vec<(Asset, TagList)>> = HashMap::new();
        let key = |config: &Config| MappingPlace::of(config, data_dir).key();
        for (asset, config, tags) in &assets {
            let shared = members.entry(key(config)).or_default();
            shared.push((asset.clone(), tags.clone()));
        }
        let mut histories: HashMap<PathBuf, Arc<History>> = HashMap::new();
        assets
            .into_iter()
            .map(|(asset, config, tags)| {
                let key = key(&config);
                let history = histories.entry(key.clone()).or_insert_with(|| {
                    Arc::new(History {
                        config: config.clone(),
                        data_dir: data_dir.to_owned(),
                        members: members.remove(&key).unwrap_or_default(),
                        opened: tokio::sync::Mutex::default(),
                    })
                });
                let history = history.clone();
                (asset, config, tags, history)
            })
            .collect()
    }

    fn place(&self) -> MappingPlace {
        MappingPlace::of(&self.config, &self.data_dir)
    }

    /// The plant of one of its assets.
    pub async fn plant(&self, asset: &Asset, now: DateTime<Utc>) -> anyhow::Result<Plant> {
        let tags = self.members.iter().find(|(member, _)| member == asset);
        let tags = tags.map(|(_, tags)| tags.clone()).unwrap_or_default();
        if let Some(shared) = self.shared(now).await?
            && let Some(range) = shared.ranges.get(asset)
        {
            let slice = Slice {
                shared: shared.clone(),
                range: range.clone(),
            };
            return Ok(Plant::shared(tags, Box::new(slice), shared.info.clone()));
        }
        let place = match has_many(self.config.source.location()).await {
            true => MappingPlace::own(&self.config, &self.data_dir, asset),
            false => self.place(),
        };
        self.open(tags, now, place).await
    }

    async fn open(
        &self,
        tags: TagList,
        now: DateTime<Utc>,
        place: MappingPlace,
    ) -> anyhow::Result<Plant> {
        Plant::keep(&self.config, &self.data_dir, now, Some(tags), place).await
    }

    /// What its assets share; `None` where there is nothing to share, or each has to say for itself what is wrong.
    async fn shared(&self, now: DateTime<Utc>) -> anyhow::Result<Option<Shared>> {
        if self.members.len() < 2 || has_many(self.config.source.location()).await {
            return Ok(None);
        }
        let mut opened = self.opened.lock().await;
        if opened.alone {
            return Ok(None);
        }
        // What was mapped by a clock that was not set is mapped anew.
        if let Some(shared) = &opened.shared
            && (shared.mapped || !clock::is_set(now))
        {
            return Ok(Some(shared.clone()));
        }
        if let Some((at, why)) = &opened.failed
            && at.elapsed() < TRIED
        {
            return Err(SourceError::Unavailable {
                name: self.config.source.location().to_owned(),
                source: why.clone().into(),
            }
            .into());
        }
        let members = self.whole_members().await;
        if members.len() < 2 {
            return Ok(None);
        }
        let (mut components, mut ranges) = (Vec::new(), HashMap::new());
        for (asset, tags) in members {
            let first = components.len();
            components.extend(tags.components);
            ranges.insert(asset, first..components.len());
        }
        match self.open(TagList { components }, now, self.place()).await {
            Ok(plant) => {
                let progress = plant.source.progress();
                let shared = Shared {
                    decoder: Arc::new(Mutex::new(Decoder {
                        source: plant.source,
                        readers: ranges.len(),
                        decoded: Vec::new(),
                    })),
                    mapped: clock::is_set(now),
                    gate: Arc::new(Semaphore::new(AT_ONCE)),
                    progress,
                    info: plant.info,
                    ranges,
                };
                opened.shared = Some(shared.clone());
                Ok(Some(shared))
            }
            Err(error) if may_come(&error) => {
                opened.failed = Some((Instant::now(), format!("{error:#}")));
                Err(error)
            }
            Err(_) => {
                opened.alone = true;
                Ok(None)
            }
        }
    }

    /// The members all of whose tags are columns of the history, as far as that can be told without opening it.
    async fn whole_members(&self) -> Vec<(Asset, TagList)> {
        let path = PathBuf::from(self.config.source.location());
        let members = self.members.clone();
        if self.config.source.location().starts_with("s3://") {
            return members;
        }
        let known = tokio::task::spawn_blocking(move || column_names(&path)).await;
        let Ok(Ok(known)) = known else {
            return members;
        };
        // The tags of a long history are not told before all of it is read.
        let called = |name: &str| known.iter().any(|known| known.eq_ignore_ascii_case(name));
        if self.config.source.shape().long.is_some() || (called("tag") && called("value")) {
            return members;
        }
        let known: HashSet<String> = known.into_iter().collect();
        let is_whole = |tags: &TagList| tags.tags().all(|(_, tag)| known.contains(tag));
        let whole = members.into_iter().filter(|(_, tags)| is_whole(tags));
        whole.collect()
    }
}

/// Decodes each window once for all assets.
struct Decoder {
    source: Box<dyn Source>,
    /// How many assets ask for each window.
    readers: usize,
    decoded: Vec<Decoded>,
}

struct Decoded {
    window: Window,
    rows: RowRule,
    reading: Reading,
    /// Who has it.
    taken: BTreeSet<usize>,
}

impl Decoder {
    fn read(
        &mut self,
        window: &Window,
        rows: RowRule,
        range: &Range<usize>,
    ) -> Result<Reading, SourceError> {
        let known = self
            .decoded
            .iter()
            .position(|known| known.window == *window && known.rows == rows);
        // Who asks again wants it read again.
        let at = match known {
            Some(at) if !self.decoded[at].taken.contains(&range.start) => at,
            known => {
                if let Some(at) = known {
                    self.decoded.remove(at);
                }
                let reading = self.source.read(window, rows)?;
                if self.decoded.len() >= DECODED {
                    self.decoded.remove(0);
                }
                self.decoded.push(Decoded {
                    window: *window,
                    rows,
                    reading,
                    taken: BTreeSet::new(),
                });
                self.decoded.len() - 1
            }
        };
        let decoded = &mut self.decoded[at];
        decoded.taken.insert(range.start);
        let frames = decoded.reading.frames.get(range.clone());
        let frames = frames.map(<[_]>::to_vec).unwrap_or_default();
        let columns = || frames.iter().flat_map(|frame| &frame.columns);
        let reading = Reading {
            infinite: columns()
                .map(|column| Values::infinite(&column.values))
                .sum(),
            words: columns().map(|column| Values::words(&column.values)).sum(),
            bad: columns().map(|column| Values::bad(&column.values)).sum(),
            expected_rows: decoded.reading.expected_rows,
            duplicates: decoded.reading.duplicates,
            ended: decoded.reading.ended,
            position: None,
            frames,
        };
        if decoded.taken.len() >= self.readers {
            self.decoded.remove(at);
        }
        Ok(reading)
    }
}

/// One asset's part of a history.
struct Slice {
    shared: Shared,
    range: Range<usize>,
}

impl Source for Slice {
    fn read(&mut self, window: &Window, rows: RowRule) -> Result<Reading, SourceError> {
        let decoder = &self.shared.decoder;
        let mut decoder = decoder.lock().unwrap_or_else(PoisonError::into_inner);
        decoder.read(window, rows, &self.range)
    }

    fn progress(&self) -> Progress {
        self.shared.progress.clone()
    }

    fn gate(&self) -> Option<Arc<Semaphore>> {
        Some(self.shared.gate.clone())
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::signal::{Cadence, Column, Frame};

    /// Counts how often it was read.
    struct Counting(Arc<Mutex<usize>>);

    impl Source for Counting {
        fn read(&mut self, window: &Window, _: RowRule) -> Result<Reading, SourceError> {
            *self.0.lock().unwrap() += 1;
            let frame = |name: &str, values: Vec<f64>| Frame {
                component: name.into(),
                times: vec![window.start().timestamp_micros()],
                columns: vec![Column {
                    name: "s".into(),
                    values: Values::F64(values),
                }],
            };
            Ok(Reading {
                frames: vec![
                    frame("motor", vec![1.0]),
                    frame("bearing", vec![f64::INFINITY]),
                    frame("motor", vec![2.0]),
                ],
                infinite: 1,
                ..Reading::default()
            })
        }
    }

    #[test]
    fn a_window_is_decoded_once_for_all_assets_and_each_has_its_part() {
        let reads = Arc::new(Mutex::new(0));
        let mut decoder = Decoder {
            source: Box::new(Counting(reads.clone())),
            readers: 2,
            decoded: Vec::new(),
        };
        let at = |minutes| {
            "2026-03-01T10:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::minutes(minutes)
        };
        let window = |minutes| Window::new(at(minutes), Cadence::Pt5m).unwrap();
        let (one, other) = (0..2, 2..3);
        let first = decoder.read(&window(0), RowRule::Service, &one).unwrap();
        assert_eq!((first.frames.len(), first.infinite), (2, 1));
        // Another window in between, as a backlog makes it.
        decoder.read(&window(-5), RowRule::Service, &one).unwrap();
        let second = decoder.read(&window(0), RowRule::Service, &other).unwrap();
        assert_eq!((second.frames.len(), second.infinite), (1, 0));
        assert_eq!(second.frames[0].columns[0].values, Values::F64(vec![2.0]));
        assert_eq!(*reads.lock().unwrap(), 2);
        // What all have is forgotten, and what one asks for again is read again.
        decoder.read(&window(0), RowRule::Service, &other).unwrap();
        decoder.read(&window(-5), RowRule::Service, &one).unwrap();
        assert_eq!(*reads.lock().unwrap(), 4);
        assert!(decoder.decoded.len() <= DECODED);
    }
}
