//! The gateway that runs: a line for each asset, what runs beside them, and who is told.
//!
//! Guarantees: a new configuration or tag list takes the place of the old one whole, or is refused whole; a line that it does
//! not change goes on, one that it changes begins when the one before it has ended, and none waits for another asset's. An
//! asset that has left the list is neither shipped nor deleted: what lies there of it is said.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::beside::{Beside, Surroundings};
use super::feeder::View;
use super::histories::History;
use super::line::{Beginning, Line, LineError};
use super::live::{Inputs, keep_courses};
use super::lookout::Keeping;
use super::plant::{Plant, may_come};
use super::retention::{self, Running};
use super::standing::Kept;
use super::wiring::{Plan, Wiring};
use super::{Ended, credentials, refused, reread};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Loaded};
use crate::embedded::EmbeddedS3;
use crate::feed::blocking;
use crate::ops::judgement::Judgement;
use crate::ops::lock::DataDirLock;
use crate::ops::signals::Requests;
use crate::ops::site::Site;
use crate::ops::{ask, notify as systemd, orphans};
use crate::signal::Asset;
use crate::vitals::{Code, Trouble};

/// How long loops may take to finish what they are doing.
const DRAIN: Duration = Duration::from_millis(1_500);
/// How long `--once` waits for the store.
const ONCE: Duration = Duration::from_secs(120);
/// How long systemd waits for lines to say how they are, at most.
const SAID_WITHIN: Duration = Duration::from_secs(5);
/// How often what nobody tells of is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long lines that begin together are waited for before they are shown.
const TOGETHER: Duration = Duration::from_millis(5);

/// A gateway that runs.
pub(super) struct Gateway {
    config: Config,
    wiring: Wiring,
    lock: DataDirLock,
    once: bool,
    servers: CancellationToken,
    sites: watch::Sender<Option<Site>>,
    /// What objects are kept by.
    running: watch::Sender<Option<Running>>,
    beside: Beside,
    watchdog: JoinHandle<()>,
    lines: Vec<Line>,
    /// Lines of assets that have left, until they have ended.
    leaving: Vec<Line>,
    inputs: Inputs,
    changed: Arc<Notify>,
    began: Instant,
    ready: bool,
    /// Assets that have left and have windows waiting.
    left: BTreeSet<String>,
}

impl Gateway {
    /// Starts what runs beside the lines.
    pub async fn start(
        config: Config,
        mut wiring: Wiring,
        lock: DataDirLock,
        once: bool,
        servers: CancellationToken,
    ) -> Self {
        let (sites, seen) = watch::channel(None);
        let judgement = Judgement::from(seen);
        let (vitals, clock) = (wiring.vitals.clone(), wiring.clock.clone());
        ask::answer(&wiring.data_dir, judgement.clone(), servers.clone());
        orphans::reap(servers.clone());
        let mut beside = Beside::new(Surroundings {
            data_dir: wiring.data_dir.clone(),
            judgement: judgement.clone(),
            troubles: vitals.troubles().clone(),
            clock: clock.clone(),
            servers: servers.clone(),
            once,
        });
        beside.apply(&config).await;
        let (running, kept_by) = watch::channel(None);
        if !once {
            let embedded = wiring.store.embedded.as_ref().map(EmbeddedS3::store);
            let troubles = vitals.troubles().clone();
            let data_dir = &wiring.data_dir;
            wiring.keeping = retention::start(
                kept_by, data_dir, embedded, &clock, judgement, troubles, &servers,
            );
        }
        Self {
            config,
            wiring,
            lock,
            once,
            watchdog: tokio::spawn(systemd::watchdog(vitals, servers.clone())),
            servers,
            sites,
            running,
            beside,
            lines: Vec::new(),
            leaving: Vec::new(),
            inputs: Inputs::default(),
            changed: Arc::default(),
            began: Instant::now(),
            ready: false,
            left: BTreeSet::new(),
        }
    }

    /// Runs until it is told to stop, or cannot go on.
    pub async fn work(
        &mut self,
        load: &dyn Fn() -> Result<Loaded, ConfigError>,
        requests: &Requests,
    ) -> anyhow::Result<Ended> {
        if !self.first(load).await? {
            self.show();
        }
        let until = Instant::now() + ONCE;
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let changed = self.changed.clone();
            let views: Vec<View> = self.lines.iter().filter_map(Line::view).collect();
            let (assets, clock) = (self.lines.len(), self.wiring.clock.clone());
            tokio::select! {
                () = requests.shutdown.cancelled() => return Ok(Ended::Stopped),
                () = changed.notified() => {
                    tokio::time::sleep(TOGETHER).await;
                    self.show();
                    self.look_for_left().await;
                }
                outcome = self.wiring.lookout.failed() => {
                    error!(error = outcome, "the service has failed: stopping, systemd starts anew");
                    return Ok(Ended::Failed);
                }
                () = self.wiring.store.failed() => {
                    error!("the embedded S3 has failed: stopping, systemd starts anew");
                    return Ok(Ended::Failed);
                }
                () = settled(views, assets, clock), if self.once => return Ok(Ended::Stopped),
                () = tokio::time::sleep_until(until), if self.once => {
                    warn!("the store was not reached in time: what is sealed stays in the spool");
                    return Ok(Ended::Waiting);
                }
                () = requests.reload.notified() => tokio::select! {
                    // A history that is far away must not hold a stop up.
                    () = requests.shutdown.cancelled() => return Ok(Ended::Stopped),
                    outcome = self.reload(load) => {
                        if let Err(error) = outcome {
                            refused(&error, self.wiring.vitals.troubles(), &self.wiring.clock);
                        }
                    }
                },
                _ = looks.tick() => self.look(load).await?,
            }
            if let Some(ended) = self.failed().await? {
                return Ok(ended);
            }
        }
    }

    /// Begins what the configuration names; false where the tag list is still to come.
    async fn first(
        &mut self,
        load: &dyn Fn() -> Result<Loaded, ConfigError>,
    ) -> anyhow::Result<bool> {
        let planned = match load() {
            Ok(loaded) => planned(loaded, &self.wiring.data_dir).await,
            Err(error) => Err(error.into()),
        };
        match planned {
            Ok(plans) => {
                self.wiring.vitals.health().cutting_works();
                self.begin(plans, None, false);
                self.begin_inputs().await?;
                Ok(true)
            }
            Err(error) if !self.once && may_come(&error) => {
                let text = format!("{error:#}");
                warn!(
                    error = text,
                    "the plant cannot be opened yet: it is waited for"
                );
                let now = self.wiring.clock.now();
                self.wiring.vitals.health().cutting_failed(&text, now);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Has a line for each plan: those that are as they were go on, unless all begin `anew`.
    fn begin(&mut self, mut plans: Vec<Plan>, mut plant: Option<Plant>, anew: bool) {
        keep_histories(&mut plans, &self.lines);
        keep_courses(&mut plans, self.lines.iter().map(|line| &line.plan));
        let assets = plans.len();
        let mut known: HashMap<Asset, Line> = HashMap::new();
        for line in self.leaving.drain(..).chain(self.lines.drain(..)) {
            known.insert(line.plan.asset.clone(), line);
        }
        for plan in plans {
            let before = known.remove(&plan.asset);
            let as_it_was = before.as_ref().is_some_and(|line| line.runs_by(&plan));
            let line = match before {
                Some(line) if as_it_was && !anew && plan.asset.is_named() => line,
                after => {
                    if let Some(line) = &after {
                        line.stop();
                    }
                    let begins = Beginning {
                        plant: plant.take(),
                        after,
                        once: self.once,
                        assets,
                        watched_from: None,
                    };
                    Line::start(&self.wiring, plan, begins, self.changed.clone())
                }
            };
            self.lines.push(line);
        }
        for (_, line) in known {
            line.stop();
            self.leaving.push(line);
        }
        self.began = Instant::now();
        // A command that changes a scheduler is told what would become of it.
        let plans = self.lines.iter().map(|line| &line.plan);
        if !self.once
            && let Err(error) = self.lock.say(&Keeping::note(plans))
        {
            warn!(%error, "commands are not told which schedulers are kept");
        }
        self.look_at_schedulers();
        self.keep();
        self.changed.notify_one();
    }

    /// Has objects kept by what runs now; what has left may still have some that are to be scored.
    fn keep(&self) {
        let lines = self.lines.iter().chain(&self.leaving);
        self.running.send_replace(Some(Running {
            config: self.config.clone(),
            each: lines.map(|line| line.plan.config.clone()).collect(),
        }));
    }

    /// Has the inputs run that are configured.
    async fn begin_inputs(&mut self) -> anyhow::Result<()> {
        let plans: Vec<&Plan> = self.lines.iter().map(|line| &line.plan).collect();
        let common = self.wiring.common();
        self.inputs.apply(&self.config, &plans, &common).await?;
        self.changed.notify_one();
        Ok(())
    }

    fn look_at_schedulers(&mut self) {
        let kept = self.lines.iter().filter_map(|line| {
            let inference = &line.plan.config.inference;
            (!inference.scheduler.is_empty()).then(|| Kept {
                scheduler: inference.scheduler.clone(),
                wanted: inference.wanted,
                watched: line.watched.clone(),
            })
        });
        let kept = kept.collect();
        self.beside.look(kept, self.wiring.lookout.roster());
    }

    /// Lets others see what runs now, and systemd know that it does.
    fn show(&mut self) {
        let site = self
            .wiring
            .site(&self.config, &self.lines, self.inputs.sites());
        self.sites.send_replace(Some(site));
        let waits = self.lines.is_empty() || !self.lines.iter().any(Line::feeds);
        let said = self.lines.iter().all(Line::has_said);
        if said || self.began.elapsed() >= SAID_WITHIN {
            if waits {
                systemd::status("waiting for the history");
            }
            if !self.ready {
                systemd::ready();
                self.ready = true;
            }
        }
    }

    /// What nobody tells of.
    async fn look(&mut self, load: &dyn Fn() -> Result<Loaded, ConfigError>) -> anyhow::Result<()> {
        if self.lines.is_empty() {
            self.first(load).await?;
        }
        if !self.ready {
            self.show();
        }
        let (store, api) = (&self.wiring.store.bucket, self.wiring.lookout.keeper());
        let (troubles, now) = (self.wiring.vitals.troubles(), self.wiring.clock.now());
        credentials::look(troubles, store, api, now);
        for at in (0..self.leaving.len()).rev() {
            if self.leaving[at].has_ended() {
                let line = self.leaving.swap_remove(at);
                self.wiring.vitals.of(line.plan.asset.name()).left();
            }
        }
        self.look_for_left().await;
        let views: Vec<_> = self.lines.iter().filter_map(Line::view).collect();
        match views.as_slice() {
            [] => {}
            [only] => systemd::status(&only.status_line().await),
            some => systemd::status(&format!(
                "{} of {} assets feed",
                some.len(),
                self.lines.len()
            )),
        }
        Ok(())
    }

    /// Says which assets have left the list with windows that are not delivered.
    async fn look_for_left(&mut self) {
        let common = self.wiring.common();
        let Some(shared) = common.opened() else {
            return;
        };
        let (ledger, spool) = (shared.ledger().clone(), shared.spool().clone());
        let here: BTreeSet<String> = self
            .lines
            .iter()
            .map(|line| line.plan.asset.name().to_owned())
            .collect();
        let found = blocking(move || -> anyhow::Result<_> {
            let mut known: BTreeSet<String> = ledger.assets()?.into_iter().collect();
            known.extend(spool.assets()?);
            let mut waiting = Vec::new();
            for asset in known.difference(&here) {
                let census = ledger.of(asset).census()?;
                let recorded = census.due + census.spooled;
                let sealed = spool.of(asset).windows()?.len() as u64;
                if recorded.max(sealed) > 0 {
                    let place = spool.of(asset).directory().to_owned();
                    waiting.push((asset.clone(), recorded.max(sealed), place));
                }
            }
            Ok(waiting)
        });
        let found = match found.await {
            Ok(Ok(found)) => found,
            // A ledger that cannot be read is told by those who need it.
            Ok(Err(_)) | Err(_) => return,
        };
        let troubles = self.wiring.vitals.troubles();
        let mut left = BTreeSet::new();
        for (asset, windows, place) in found {
            let trouble = Trouble::new(
                Code::AssetLeft,
                self.wiring.clock.now(),
                format!(
                    "{} is not in the tag list any more, and {windows} of its windows are not delivered; what is sealed of them lies \
                     in {}",
                    Asset::known(&asset),
                    place.display()
                ),
                format!(
                    "put it back into the list to have them delivered, or give them up: lookoutd windows skip --asset \"{asset}\" \
                     --state spooled --reason WHY, and the same with --state due"
                ),
            );
            troubles.of(&asset).raise(trouble);
            left.insert(asset);
        }
        for asset in self.left.difference(&left) {
            troubles.of(asset).over(Code::AssetLeft, "");
        }
        self.left = left;
    }

    /// How it ended, if a line has.
    async fn failed(&mut self) -> anyhow::Result<Option<Ended>> {
        for line in &mut self.lines {
            match line.ended().await {
                None => {}
                Some(LineError::Refused(error)) => return Err(error),
                Some(LineError::Loop(outcome)) => {
                    error!(
                        error = outcome,
                        asset = line.plan.asset.name(),
                        "a loop has failed: stopping, systemd starts anew"
                    );
                    return Ok(Some(Ended::Failed));
                }
            }
        }
        Ok(None)
    }

    /// Puts a new configuration in place, or refuses it before anything is stopped.
    async fn reload(
        &mut self,
        load: &dyn Fn() -> Result<Loaded, ConfigError>,
    ) -> anyhow::Result<()> {
        self.wiring.store.bucket.renew();
        self.wiring.lookout.renew();
        let data_dir = self.wiring.data_dir.clone();
        let loaded = reread(load, &self.config, &data_dir)?;
        let fed = self.lines.iter().any(Line::feeds);
        let plans = match planned(loaded.clone(), &data_dir).await {
            Err(error) if !fed && may_come(&error) => None,
            plans => Some(plans?),
        };
        let plant = match plans.as_deref() {
            // What one asset is fed from is opened first; where there are several, one that cannot be waits alone.
            Some([plan]) if fed && !plan.asset.is_named() && plan.course.is_none() => {
                Some(Plant::open(&plan.config, &data_dir, self.wiring.clock.now()).await?)
            }
            _ => None,
        };
        self.config = loaded.config;
        let anew = self.wiring.lookout.reopen(&self.config).await;
        self.beside.apply(&self.config).await;
        if let Some(plans) = plans {
            self.begin(plans, plant, anew);
            self.begin_inputs().await?;
        } else {
            self.keep();
        }
        let troubles = self.wiring.vitals.troubles();
        troubles.all_over(Code::ConfigurationRefused);
        info!("the new configuration is in place");
        Ok(())
    }

    /// Ends everything, what is sealed stays sealed.
    pub async fn end(mut self) {
        systemd::stopping();
        let inputs = std::mem::take(&mut self.inputs);
        inputs.stop();
        let lines: Vec<Line> = self.lines.drain(..).chain(self.leaving.drain(..)).collect();
        for line in &lines {
            line.stop();
        }
        let mut aborts: Vec<_> = lines.iter().filter_map(Line::abort_handle).collect();
        aborts.extend(inputs.abort_handles());
        let lines = futures_util::future::join_all(lines.into_iter().map(Line::end));
        let all = futures_util::future::join(lines, inputs.end());
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            warn!("a loop did not finish in time: what is sealed stays sealed");
            for task in aborts {
                task.abort();
            }
        }
        self.wiring.stop().await;
        self.watchdog.abort();
        self.servers.cancel();
        self.beside.finish().await;
    }
}

/// What each asset is run by. The tag list may lie on a share that hangs, which is no reason for others to wait.
async fn planned(loaded: Loaded, data_dir: &Path) -> anyhow::Result<Vec<Plan>> {
    let data_dir = data_dir.to_owned();
    blocking(move || Plan::all(&loaded, &data_dir)).await?
}

/// Histories that stay as they are stay open, for those who join as well.
fn keep_histories(plans: &mut [Plan], lines: &[Line]) {
    let mut known: Vec<&Arc<History>> = Vec::new();
    for history in lines.iter().filter_map(|line| line.plan.history.as_ref()) {
        if !known.iter().any(|one| Arc::ptr_eq(one, history)) {
            known.push(history);
        }
    }
    let mut same: HashMap<*const History, Option<Arc<History>>> = HashMap::new();
    for plan in plans {
        let Some(history) = &plan.history else {
            continue;
        };
        let found = same.entry(Arc::as_ptr(history)).or_insert_with(|| {
            let kept = known.iter().find(|one| ***one == *history);
            kept.map(|one| Arc::clone(one))
        });
        if let Some(kept) = found {
            plan.history = Some(kept.clone());
        }
    }
}

/// Waits until all of so many assets have cut and delivered their live window.
async fn settled(views: Vec<View>, assets: usize, clock: Clock) {
    loop {
        let mut all = assets > 0 && views.len() == assets;
        for view in &views {
            all &= view.is_settled(clock.now()).await.unwrap_or(false);
        }
        if all {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
