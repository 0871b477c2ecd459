//! The live half of a site: its journal, its inputs, and the sources that cut windows from what they bring.
//!
//! Guarantees: one journal for all assets, opened with the first who needs it; an input that a new configuration does not change goes
//! on; nothing of it is there where no input is configured.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::wiring::{Common, Plan};
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::feed::{Health, Uploads, blocking};
use crate::input::{Intake, Link, Parts, Settings, Tag, Trust, supervise, tags_of};
use crate::journal::{DIRECTORY, HISTORY, Journal, Options};
use crate::ops::site::InputSite;
use crate::signal::{Asset, Cadence, RowRule, TagList, Window};
use crate::source::Source;
use crate::source::live::{self, Deadline, Live, Marked, Marks, Releases, Rules};
use crate::vitals::{Code, Trouble, Troubles};

/// What an upload takes at least.
const UPLOAD: TimeDelta = TimeDelta::seconds(10);
/// A clock that differs from the store's by more is not trusted.
const DIFFERS: TimeDelta = TimeDelta::seconds(60);
/// How often hours that are over are looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// Where inputs keep what they must know after a restart.
const INPUTS: &str = "inputs";
/// What an input refused, below.
const REFUSED: &str = "refused";

/// The journal of a site, and whether its clock can be trusted. Cheap to clone.
#[derive(Clone)]
pub(super) struct LiveSite {
    pub journal: Journal,
    pub trust: Trust,
    pub releases: Releases,
    _sweeper: Arc<Sweeper>,
}

/// What grows the history from the journal, and ends with whoever has it.
struct Sweeper(JoinHandle<()>);

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writes hours that are over into the history, and lets go what need not be kept.
async fn sweep(journal: Journal, clock: Clock, troubles: Troubles) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let now = clock.now();
        if !clock::is_set(now) {
            continue;
        }
        match journal
            .sweep(now.timestamp_nanos_opt().unwrap_or_default())
            .await
        {
            Ok(swept) => {
                troubles.over(Code::JournalFailing, HISTORY);
                if !swept.files.is_empty() || swept.gone > 0 {
                    info!(
                        files = swept.files.len(),
                        samples = swept.samples,
                        gone = swept.gone,
                        bytes = swept.bytes,
                        "the history has grown from the journal"
                    );
                }
            }
            Err(error) => {
                warn!(%error, "the history does not grow: it is tried again");
                let trouble = Trouble::new(
                    Code::JournalFailing,
                    now,
                    format!("the history cannot grow from the journal: {error}"),
                    "free some space in the data directory, or look at its disk; nothing is lost, and it goes on by itself",
                );
                troubles.raise(trouble.about(HISTORY));
            }
        }
    }
}

impl LiveSite {
    /// Opens the journal of a data directory.
    pub async fn open(common: &Common, config: &Config) -> anyhow::Result<Self> {
        let (directory, disk) = (common.data_dir.join(DIRECTORY), common.disk.clone());
        let options = Options {
            floor: config.feed.min_free.0,
            keep: config.source.keep.0,
            max_bytes: config.source.max_bytes.0,
            ..Options::default()
        };
        let place = directory.clone();
        let opened = blocking(move || Journal::open(&place, disk, options)).await?;
        let journal = opened.with_context(|| format!("the journal in {}", directory.display()))?;
        let bucket = common.bucket.clone();
        let doubted = move || {
            let offset = bucket.readings().offset;
            offset.is_some_and(|offset| offset.abs() > DIFFERS)
        };
        let trust = Trust::new(&common.clock, config.source.future.0, doubted);
        let troubles = common.vitals.troubles().clone();
        let sweeping = sweep(journal.clone(), common.clock.clone(), troubles);
        Ok(Self {
            _sweeper: Arc::new(Sweeper(tokio::spawn(sweeping))),
            journal,
            trust,
            releases: Releases::default(),
        })
    }
}

/// How far the samples of one asset have come. It stays as long as its list, its inputs and its windows do.
pub(super) struct Course {
    tags: TagList,
    inputs: Vec<String>,
    windows: (Cadence, RowRule),
    marks: Marks,
}

impl PartialEq for Course {
    fn eq(&self, other: &Self) -> bool {
        self.tags == other.tags && self.inputs == other.inputs && self.windows == other.windows
    }
}

impl Course {
    /// Of an asset with this list.
    pub fn of(config: &Config, tags: TagList) -> Self {
        let by_input = tags_of(&config.input, &tags);
        let inputs: Vec<String> = by_input
            .iter()
            .filter(|(_, tags)| !tags.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        let component = |name: &str| {
            let mut names = tags.component_names();
            names.position(|known| known == name).unwrap_or_default() as u32
        };
        let marked = inputs
            .iter()
            .enumerate()
            .flat_map(|(input, name)| by_input[name].iter().map(move |tag| (input, tag)));
        let marked = marked.map(|(input, tag)| Marked {
            input,
            component: component(&tag.component),
            tag: tag.tag.clone(),
        });
        let windows = (config.feed.cadence, config.feed.rows);
        Self {
            marks: Marks::new(inputs.clone(), marked.collect(), windows.0, windows.1),
            tags,
            inputs,
            windows,
        }
    }

    /// Its components and their signals.
    pub fn tags(&self) -> &TagList {
        &self.tags
    }

    /// The place of each tag in its marks.
    fn places(&self) -> HashMap<String, usize> {
        // As they were given: by input, then as the list has them.
        self.marks
            .tags()
            .into_iter()
            .enumerate()
            .map(|(at, tag)| (tag, at))
            .collect()
    }

    /// A source of its windows.
    pub fn source(
        &self,
        plan: &Plan,
        common: &Common,
        site: &LiveSite,
        health: &Health,
    ) -> anyhow::Result<Box<dyn Source>> {
        let (config, clock) = (&plan.config, common.clock.clone());
        let (trust, of_trust, health) = (site.trust.clone(), clock.clone(), health.clone());
        let speed = clock.speed().max(1.0);
        let live = Live::new(live::Parts {
            asset: plan.asset.clone(),
            tags: self.tags.clone(),
            journal: site.journal.clone(),
            marks: self.marks.clone(),
            rules: Rules {
                grid: config.source.grid,
                aggregate: config.source.aggregate,
                stale: TimeDelta::from_std(config.source.stale.0).unwrap_or(TimeDelta::MAX),
            },
            deadline: Deadline {
                delay: delay(config),
                upload: Arc::new(move || upload(&health.now().uploads, speed)),
                suspect: Arc::new(move || trust.is_suspect(&of_trust)),
            },
            began: clock.now(),
            releases: site.releases.clone(),
        })?;
        Ok(Box::new(live))
    }
}

/// How long after a window's end its scheduler looks for files; `None` where there is none.
fn delay(config: &Config) -> Option<TimeDelta> {
    let has_scheduler = !config.inference.scheduler.is_empty() || config.is_embedded();
    let delay = TimeDelta::minutes(i64::from(config.inference.delay_offset_minutes));
    (has_scheduler && !delay.is_zero()).then_some(delay)
}

/// When a window of inputs closes at the latest, as long as uploads are quick.
pub fn closes_by(config: &Config, window: &Window) -> DateTime<Utc> {
    let deadline = Deadline {
        delay: delay(config),
        upload: Arc::new(|| UPLOAD),
        suspect: Arc::new(|| false),
    };
    deadline.of(window)
}

/// How long uploads of windows take, by a clock of that speed: longer than nineteen of twenty took.
fn upload(uploads: &Uploads, speed: f64) -> TimeDelta {
    let all: u64 = uploads.counts.iter().sum();
    let mut seen = 0;
    let class = uploads.counts.iter().position(|count| {
        seen += count;
        seen * 20 >= all * 19
    });
    let longest = Uploads::BOUNDS[Uploads::BOUNDS.len() - 1];
    let seconds = class.map_or(longest, |class| {
        Uploads::BOUNDS.get(class).copied().unwrap_or(longest)
    });
    let measured = TimeDelta::milliseconds((seconds * 1_500.0) as i64);
    let least = if all == 0 {
        UPLOAD
    } else {
        UPLOAD.max(measured)
    };
    TimeDelta::milliseconds((least.num_milliseconds() as f64 * speed) as i64)
}

/// The inputs that run.
#[derive(Default)]
pub(super) struct Inputs(BTreeMap<String, Running>);

struct Running {
    settings: Settings,
    tags: Vec<Tag>,
    courses: Vec<Arc<Course>>,
    intake: Intake,
    stale: TimeDelta,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn goes_on(&self, settings: &Settings, tags: &[Tag], courses: &[Arc<Course>]) -> bool {
        let same = self.courses.iter().zip(courses);
        self.settings == *settings
            && self.tags == tags
            && self.courses.len() == courses.len()
            && same.into_iter().all(|(one, other)| Arc::ptr_eq(one, other))
            && !self.task.is_finished()
    }
}

impl Inputs {
    /// Has an input run for each that is configured, as it is configured; those that are as they were go on.
    pub async fn apply(
        &mut self,
        config: &Config,
        plans: &[&Plan],
        common: &Common,
    ) -> anyhow::Result<()> {
        let wanted = match config.is_live() {
            true => wanted(config, plans),
            false => BTreeMap::new(),
        };
        let mut known = std::mem::take(&mut self.0);
        let mut begin = Vec::new();
        for (name, (tags, marks, courses)) in wanted {
            let settings = &config.input[&name];
            match known.remove(&name) {
                Some(running) if running.goes_on(settings, &tags, &courses) => {
                    self.0.insert(name, running);
                }
                before => {
                    if let Some(before) = before {
                        before.end().await;
                    }
                    begin.push((name, settings.clone(), tags, marks, courses));
                }
            }
        }
        for (_, running) in known {
            running.end().await;
        }
        if begin.is_empty() {
            return Ok(());
        }
        let site = common.live(config).await?;
        let assets: Vec<Asset> = plans.iter().map(|plan| plan.asset.clone()).collect();
        site.releases.of(&assets);
        let stale = TimeDelta::from_std(config.source.stale.0).unwrap_or(TimeDelta::MAX);
        for (name, settings, tags, marks, courses) in begin {
            let directory = common.data_dir.join(INPUTS).join(&name);
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("making {}", directory.display()))?;
            let intake = Intake::new(Parts {
                name: name.clone(),
                tags: tags.clone(),
                marks,
                journal: site.journal.clone(),
                clock: common.clock.clone(),
                future: config.source.future.0,
                aside: directory.join(REFUSED),
                trust: site.trust.clone(),
            })?;
            let stop = CancellationToken::new();
            let link = Link {
                intake: intake.clone(),
                directory,
                clock: common.clock.clone(),
                stop: stop.clone(),
            };
            let troubles = common.vitals.troubles().clone();
            let running = Running {
                task: tokio::spawn(supervise(settings.clone(), link, troubles)),
                settings,
                tags,
                courses,
                intake,
                stale,
                stop,
            };
            self.0.insert(name, running);
        }
        Ok(())
    }

    /// Those that run, for those who look at them.
    pub fn sites(&self) -> Vec<InputSite> {
        let site = |running: &Running| InputSite {
            kind: running.settings.kind(),
            intake: running.intake.clone(),
            stale: running.stale,
        };
        self.0.values().map(site).collect()
    }

    /// Tells all to end.
    pub fn stop(&self) {
        for running in self.0.values() {
            running.stop.cancel();
        }
    }

    /// What gives up waiting for them.
    pub fn abort_handles(&self) -> Vec<AbortHandle> {
        self.0
            .values()
            .map(|running| running.task.abort_handle())
            .collect()
    }

    /// Ends all.
    pub async fn end(self) {
        self.stop();
        futures_util::future::join_all(self.0.into_values().map(Running::end)).await;
    }
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await
            && !error.is_cancelled()
        {
            warn!(input = self.intake.name(), %error, "an input has ended badly");
        }
    }
}

/// Tags, the place of each in its asset's marks, and the courses these are of.
type Wanted = (Vec<Tag>, Vec<(Marks, usize)>, Vec<Arc<Course>>);

/// What each input brings.
fn wanted(config: &Config, plans: &[&Plan]) -> BTreeMap<String, Wanted> {
    let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
    for plan in plans {
        let Some(course) = &plan.course else {
            continue;
        };
        let places = course.places();
        for (name, tags) in tags_of(&config.input, &course.tags) {
            let (all, marks, courses) = wanted.entry(name).or_default();
            if !tags.is_empty() {
                courses.push(course.clone());
            }
            for tag in tags {
                if let Some(place) = places.get(tag.tag.as_str()) {
                    marks.push((course.marks.clone(), *place));
                    all.push(tag);
                }
            }
        }
    }
    wanted
}

/// Courses that stay as they are go on: what they have learnt of their tags is still so.
pub(super) fn keep_courses<'a>(plans: &mut [Plan], before: impl Iterator<Item = &'a Plan>) {
    let known: HashMap<&Asset, &Arc<Course>> = before
        .filter_map(|plan| Some((&plan.asset, plan.course.as_ref()?)))
        .collect();
    for plan in plans {
        if let (Some(course), Some(before)) = (&plan.course, known.get(&plan.asset))
            && ***before == **course
        {
            plan.course = Some(Arc::clone(before));
        }
    }
}
