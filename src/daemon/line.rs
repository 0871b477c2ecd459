//! The line of one asset: its plant, then cutter, shipper and watcher over it, for as long as it is told to run.
//!
//! Guarantees: a line touches ledger and spool only after the line before it, of the same asset, has ended; one whose plant
//! cannot be opened waits for it alone, and says so as a reason of its asset.
//! Deliberately absent: other assets; the daemon runs a line for each.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::feeder::{Feeder, Parts, View};
use super::live::Course;
use super::lookout::{Api, Watch};
use super::plant::{Plant, may_come};
use super::wiring::{Common, Plan, Wiring};
use crate::clock;
use crate::ops::site::{AssetSite, FeedSite, Watched};
use crate::signal::TagList;
use crate::source::Source;

/// How often it is looked whether the plant is there.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The line of one asset.
pub struct Line {
    /// What it runs by.
    pub plan: Plan,
    /// How its scheduler stands.
    pub watched: Watched,
    said: Arc<Mutex<Said>>,
    stop: CancellationToken,
    /// `None` once it is known how it ended.
    task: Option<JoinHandle<Result<(), LineError>>>,
}

/// How far a line is.
#[derive(Clone, Default)]
enum Said {
    /// Its plant is being opened.
    #[default]
    Opening,
    /// Its plant is not there yet.
    Waits,
    /// It feeds.
    Feeds(Arc<FeedSite>, View),
}

/// Why a line ended before it was told to.
#[derive(Debug)]
pub enum LineError {
    /// Its plant, ledger or spool is not what it must be.
    Refused(anyhow::Error),
    /// A loop ended.
    Loop(String),
}

/// What a line begins with.
pub struct Beginning {
    /// A plant that is open.
    pub plant: Option<Plant>,
    /// The line that it takes the place of.
    pub after: Option<Line>,
    /// One window is cut, and nothing is waited for.
    pub once: bool,
    /// How many assets there are.
    pub assets: usize,
    /// Its scheduler is kept and watched from when this is cancelled on; `None`: from the first.
    pub watched_from: Option<CancellationToken>,
}

impl Line {
    /// Starts a line; `changed` is notified when it says something else of itself.
    pub fn start(wiring: &Wiring, plan: Plan, begins: Beginning, changed: Arc<Notify>) -> Self {
        let Beginning {
            plant,
            after,
            once,
            assets,
            watched_from,
        } = begins;
        let watched = match &after {
            Some(before) => before.watched.clone(),
            None => Watched::default(),
        };
        let kept_otherwise = after
            .as_ref()
            .is_some_and(|before| before.plan.config.inference != plan.config.inference);
        let (said, stop) = (
            Arc::new(Mutex::new(Said::Opening)),
            CancellationToken::new(),
        );
        let work = Work {
            vitals: wiring.vitals.of(plan.asset.name()),
            common: wiring.common(),
            api: wiring.api(),
            plan: plan.clone(),
            said: said.clone(),
            changed,
            once,
            assets,
            watched_from,
        };
        let until = stop.clone();
        let task = tokio::spawn(async move {
            if let Some(before) = after {
                before.end().await;
                work.vitals.ended();
            }
            if kept_otherwise {
                work.vitals.troubles().kept_otherwise();
            }
            let changed = work.changed.clone();
            let ended = work.run(plant, until).await;
            changed.notify_one();
            ended
        });
        Self {
            plan,
            watched,
            said,
            stop,
            task: Some(task),
        }
    }

    /// Tells it to end, and waits until nothing of it touches ledger and spool.
    pub async fn end(self) {
        self.stop.cancel();
        if let Some(task) = self.task {
            // It was told to: how it ended is no matter.
            let _ = task.await;
        }
    }

    /// Tells it to end.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// What gives up waiting for it: what is sealed stays sealed.
    pub fn abort_handle(&self) -> Option<AbortHandle> {
        self.task.as_ref().map(JoinHandle::abort_handle)
    }

    /// Whether it runs, and by that plan.
    pub(super) fn runs_by(&self, plan: &Plan) -> bool {
        !self.stop.is_cancelled() && self.plan == *plan
    }

    /// Whether nothing of it touches ledger and spool any more.
    pub fn has_ended(&self) -> bool {
        self.task.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Whether it has ended by itself, and why.
    pub async fn ended(&mut self) -> Option<LineError> {
        if self.stop.is_cancelled() {
            return None;
        }
        let task = self.task.take_if(|task| task.is_finished())?;
        Some(match task.await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => LineError::Loop("it ended".to_owned()),
            Err(error) => LineError::Loop(error.to_string()),
        })
    }

    /// Whether it has said how it is.
    pub fn has_said(&self) -> bool {
        !matches!(self.now(), Said::Opening)
    }

    /// Whether it feeds.
    pub fn feeds(&self) -> bool {
        matches!(self.now(), Said::Feeds(..))
    }

    /// Its ledger and spool, once it feeds.
    pub fn view(&self) -> Option<View> {
        match self.now() {
            Said::Feeds(_, view) => Some(view),
            _ => None,
        }
    }

    /// Its parts, for those who look at it.
    pub fn site(&self) -> AssetSite {
        AssetSite {
            asset: self.plan.asset.clone(),
            feed: match self.now() {
                Said::Feeds(feed, _) => Some(feed),
                _ => None,
            },
            watched: self.watched.clone(),
        }
    }

    fn now(&self) -> Said {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.clone()
    }
}

/// What the task of a line works with.
struct Work {
    plan: Plan,
    common: Common,
    api: Api,
    vitals: crate::vitals::Vitals,
    said: Arc<Mutex<Said>>,
    changed: Arc<Notify>,
    once: bool,
    assets: usize,
    watched_from: Option<CancellationToken>,
}

impl Work {
    async fn run(self, mut plant: Option<Plant>, stop: CancellationToken) -> Result<(), LineError> {
        let mut told = String::new();
        loop {
            // Another line may have taken its place before it came to run.
            if stop.is_cancelled() {
                return Ok(());
            }
            let opened = match plant.take() {
                Some(opened) => Some((opened.tags, opened.source)),
                // A history that is far away, or a sample plant in the making, must not hold a stop up.
                None => tokio::select! {
                    () = stop.cancelled() => None,
                    opened = self.plant() => Some(opened?),
                },
            };
            let Some(opened) = opened else {
                return Ok(());
            };
            match self.feed(opened, &stop).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // Alone it ends the process; one of several is named, and tries again.
                Err(LineError::Refused(error)) if self.plan.asset.is_named() && !self.once => {
                    self.waits(&format!("{error:#}"), &mut told);
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens the plant, as long as it takes.
    async fn plant(&self) -> Result<(TagList, Box<dyn Source>), LineError> {
        let mut told = String::new();
        loop {
            let (now, named) = (self.common.clock.now(), self.plan.asset.is_named());
            let opened = match (&self.plan.course, &self.plan.history) {
                (Some(course), _) => self.live(course).await,
                (None, Some(history)) => fed(history.plant(&self.plan.asset, now).await),
                (None, None) => {
                    fed(Plant::open(&self.plan.config, &self.common.data_dir, now).await)
                }
            };
            match opened {
                Ok(plant) => {
                    self.vitals.health().cutting_works();
                    return Ok(plant);
                }
                // Alone it ends the process; one of several is named, and the others feed.
                Err(error) if !self.once && (named || may_come(&error)) => {
                    self.waits(&format!("{error:#}"), &mut told);
                }
                Err(error) => return Err(LineError::Refused(error)),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// What inputs bring, from the journal.
    async fn live(&self, course: &Course) -> anyhow::Result<(TagList, Box<dyn Source>)> {
        let site = self.common.live(&self.plan.config).await?;
        let health = self.vitals.health();
        let source = course.source(&self.plan, &self.common, site, health)?;
        Ok((course.tags().clone(), source))
    }

    fn waits(&self, text: &str, told: &mut String) {
        let now = self.common.clock.now();
        self.vitals.health().cutting_failed(text, now);
        if text != told {
            warn!(
                asset = self.plan.asset.name(),
                error = text,
                "the plant cannot be opened yet: it is waited for"
            );
            text.clone_into(told);
        }
        self.say(Said::Waits);
    }

    fn say(&self, said: Said) {
        let mut known = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let as_before = matches!((&*known, &said), (Said::Waits, Said::Waits));
        *known = said;
        if !as_before {
            self.changed.notify_one();
        }
    }

    /// Feeds until it is told to stop; true where it is to begin again, because the clock was not set.
    async fn feed(
        &self,
        (tags, source): (TagList, Box<dyn Source>),
        stop: &CancellationToken,
    ) -> Result<bool, LineError> {
        let until = CancellationToken::new();
        let mut feeder = self
            .feeder(&tags, source, &until)
            .await
            .map_err(LineError::Refused)?;
        let mut watch = match self.once {
            true => None,
            false => self.watch(&until),
        };
        let site = self.site(&feeder, tags);
        self.say(Said::Feeds(Arc::new(site), feeder.view()));
        let unset = !clock::is_set(self.common.clock.now());
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(false),
            () = self.common.clock.set(), if unset => {
                info!(now = %self.common.clock.now(), "the clock is set: feeding begins");
                Ok(true)
            }
            outcome = feeder.failed() => Err(LineError::Loop(outcome)),
            outcome = failed(&mut watch) => Err(LineError::Loop(format!("the watcher: {outcome}"))),
        };
        until.cancel();
        if ended.is_ok() {
            feeder.finish().await;
        }
        if let Some(watch) = watch {
            // What it was doing is done again by the next start.
            watch.abort();
        }
        ended
    }

    fn watch(&self, until: &CancellationToken) -> Option<Watch> {
        let (vitals, from) = (&self.vitals, self.watched_from.clone());
        let api = &self.api;
        api.watch(&self.plan, &self.common, vitals, from, until.clone())
    }

    async fn feeder(
        &self,
        tags: &TagList,
        source: Box<dyn Source>,
        until: &CancellationToken,
    ) -> anyhow::Result<Feeder> {
        let shared = self.common.shared(self.assets).await?;
        let (plan, config) = (&self.plan, &self.plan.config);
        let parts = Parts {
            asset: plan.asset.clone(),
            config: config.feed.clone(),
            naming: config.naming,
            prefix: plan.prefix().to_owned(),
            data_dir: self.common.data_dir.clone(),
            tags: tags.clone(),
            source,
            bucket: self.common.bucket.clone(),
            clock: self.common.clock.clone(),
            disk: self.common.disk.clone(),
            vitals: self.vitals.clone(),
        };
        let feeder = Feeder::on(parts, shared, until.clone()).await?;
        info!(
            version = env!("CARGO_PKG_VERSION"), asset = plan.asset.name(), data_dir = %self.common.data_dir.display(),
            cadence = %config.feed.cadence, bucket = self.common.bucket.name(), prefix = plan.prefix(),
            components = tags.components.len(), signals = tags.signal_count(), embedded = self.common.is_embedded, "feeding"
        );
        Ok(feeder)
    }

    fn site(&self, feeder: &Feeder, tags: TagList) -> FeedSite {
        let config = &self.plan.config;
        let (ledger, spool) = feeder.parts();
        FeedSite {
            config: config.feed.clone(),
            naming: config.naming,
            prefix: self.plan.prefix().to_owned(),
            tags,
            bucket: self.common.bucket.clone(),
            ledger,
            spool,
            health: self.vitals.health().clone(),
            delay: TimeDelta::minutes(i64::from(config.inference.delay_offset_minutes)),
        }
    }
}

/// What of a plant is fed.
fn fed(plant: anyhow::Result<Plant>) -> anyhow::Result<(TagList, Box<dyn Source>)> {
    plant.map(|plant| (plant.tags, plant.source))
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
