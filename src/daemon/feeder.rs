//! The feeding half of the daemon: for each asset cutter and shipper, over one ledger, one spool and one budget of uploads.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, warn};

use crate::clock::Clock;
use crate::feed::disk::Disk;
use crate::feed::{
    Budget, Config, Cut, Cutter, Ledger, Opened, Publish, Shipper, Spool, State, Vitals, blocking,
    recover, shipper,
};
use crate::s3::Bucket;
use crate::signal::{Asset, Cadence, NameFormat, TagList};
use crate::source::Source;
use crate::vitals::{Code, Trouble};

use super::ticks::Ticks;

/// What a feeder is made of.
pub struct Parts {
    /// Whose windows it cuts.
    pub asset: Asset,
    /// What is cut, and when.
    pub config: Config,
    /// How files are named.
    pub naming: NameFormat,
    /// Key prefix of the input files.
    pub prefix: String,
    /// Where spool and ledger lie.
    pub data_dir: PathBuf,
    /// Components and their signals.
    pub tags: TagList,
    /// Where samples come from.
    pub source: Box<dyn Source>,
    /// Where files go.
    pub bucket: Bucket,
    /// The time.
    pub clock: Clock,
    /// The file system of the spool.
    pub disk: Arc<dyn Disk>,
    /// The loops of this process.
    pub vitals: Vitals,
}

/// What the feeders of all assets share: ledger, spool, the budget of uploads, the cron jobs. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    ledger: Ledger,
    spool: Spool,
    budget: Budget,
    /// Of which assets a new ledger has learnt what the bucket holds.
    learnt: Option<Arc<shipper::Learnt>>,
    ticks: Option<Ticks>,
}

/// A running feeder.
pub struct Feeder {
    view: View,
    vitals: Vitals,
    wake: Arc<Notify>,
    tasks: JoinSet<anyhow::Result<()>>,
    shutdown: CancellationToken,
    /// Alive while a thread does something on the disk for a loop, also for one that was given up.
    under_way: [Weak<dyn Any + Send + Sync>; 2],
    /// What ends with it, where it is the only one.
    own: Option<Shared>,
}

/// A feeder's ledger and spool, to look at.
#[derive(Clone)]
pub struct View {
    ledger: Ledger,
    spool: Spool,
    publish: Publish,
    cadence: Cadence,
}

impl Shared {
    /// Opens ledger and spool of a data directory, for so many assets.
    pub async fn open(
        data_dir: &Path,
        disk: Arc<dyn Disk>,
        clock: &Clock,
        vitals: &Vitals,
        assets: usize,
    ) -> anyhow::Result<Self> {
        let (data_dir, now) = (data_dir.to_owned(), clock.now());
        let (ledger, opened, spool) = blocking(move || -> anyhow::Result<_> {
            let (ledger, opened) = Ledger::open(&data_dir, now)?;
            Ok((ledger, opened, Spool::open(disk, &data_dir)?))
        })
        .await??;
        if let Opened::Replaced(aside) = &opened {
            error!(aside = %aside.display(), "the ledger was damaged and is set aside: it is rebuilt from the spool and the bucket");
            let trouble = Trouble::new(
                Code::StateReplaced,
                now,
                format!(
                    "the ledger was damaged and lies at {}: another is built from the spool and the bucket",
                    aside.display()
                ),
                "windows that were skipped or set aside by hand are not known any more: look through lookoutd windows list, then \
                 remove the file",
            );
            vitals.troubles().raise(trouble.aside(aside));
        }
        let learnt = Shipper::wants_rebuild(&opened).then(|| Arc::new(shipper::Learnt::of(assets)));
        let ticks = match clock.is_system() {
            true => Some(Ticks::start().await?),
            false => None,
        };
        Ok(Self {
            ledger,
            spool,
            budget: Budget::default(),
            learnt,
            ticks,
        })
    }

    /// Ends the cron jobs.
    pub async fn stop(&self) {
        if let Some(ticks) = &self.ticks {
            ticks.stop().await;
        }
    }

    /// The ledger, of the asset without a name.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The spool, of the asset without a name.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// What the shipper of an asset must learn of the bucket, if anything.
    fn rebuild(&self, parts: &Parts) -> Option<shipper::Rebuild> {
        let learnt = self.learnt.clone()?;
        Some(shipper::Rebuild {
            naming: parts.naming,
            prefix: parts.prefix.clone(),
            tags: parts.tags.clone(),
            cadence: parts.config.cadence,
            max_age: TimeDelta::from_std(parts.config.max_age.0).unwrap_or(TimeDelta::days(1)),
            asset: parts.asset.clone(),
            learnt,
        })
    }
}

impl Feeder {
    /// Reconciles what the last run left and starts the loops, for the only asset of a data directory.
    pub async fn start(parts: Parts, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let (data_dir, disk) = (parts.data_dir.clone(), parts.disk.clone());
        let shared = Shared::open(&data_dir, disk, &parts.clock, &parts.vitals, 1).await?;
        let feeder = Self::on(parts, &shared, shutdown).await?;
        Ok(Self {
            own: Some(shared),
            ..feeder
        })
    }

    /// As [`Feeder::start`], for one asset of those that share ledger and spool.
    pub async fn on(
        parts: Parts,
        shared: &Shared,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let asset = parts.asset.clone();
        let (ledger, spool) = (shared.ledger.of(asset.name()), shared.spool.clone());
        let own = ledger.clone();
        let spool = blocking(move || -> anyhow::Result<_> {
            let spool = spool.open_of(asset.name())?;
            let recovery = recover(&spool, &own)?;
            if recovery != Default::default() {
                info!(
                    asset = asset.name(),
                    adopted = recovery.adopted,
                    removed = recovery.removed,
                    recut = recovery.recut,
                    aside = recovery.aside,
                    "spool and ledger reconciled"
                );
            }
            Ok(spool)
        })
        .await??;
        let rebuild = shared.rebuild(&parts);
        let vitals = parts.vitals;
        let (wake, sealed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let cutter = Cutter::new(
            &parts.config,
            Cut {
                source: parts.source,
                naming: parts.naming,
                prefix: parts.prefix.clone(),
                rows: parts.config.rows,
                blank: parts.config.blank,
                spool: spool.clone(),
                ledger: ledger.clone(),
            },
            parts.clock.clone(),
            wake.clone(),
            sealed.clone(),
            vitals.pulse("cutter", Duration::from_secs(60)),
        );
        if let Some(ticks) = &shared.ticks {
            ticks.wake(parts.config.cadence, &wake).await?;
        }
        let shipper = Shipper::new(
            &parts.config,
            shipper::Parts {
                bucket: parts.bucket,
                prefix: parts.prefix,
                spool: spool.clone(),
                ledger: ledger.clone(),
                clock: parts.clock,
                budget: shared.budget.clone(),
                vitals: vitals.clone(),
                rebuild,
            },
            sealed,
        );
        let under_way = [cutter.under_way(), shipper.under_way()];
        let span = match parts.asset.name() {
            "" => tracing::Span::none(),
            asset => tracing::info_span!("asset", asset),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(cutter.run(shutdown.clone()).instrument(span.clone()));
        tasks.spawn(shipper.run(shutdown.clone()).instrument(span));
        Ok(Self {
            view: View {
                ledger,
                spool,
                publish: parts.config.publish,
                cadence: parts.config.cadence,
            },
            vitals,
            wake,
            tasks,
            shutdown,
            under_way,
            own: None,
        })
    }

    /// A tick like the cron job's: a hint to look at what is due.
    pub fn tick(&self) {
        self.wake.notify_one();
    }

    /// The pulses of the loops.
    pub fn vitals(&self) -> Vitals {
        self.vitals.clone()
    }

    /// Its ledger and its spool.
    pub(super) fn parts(&self) -> (Ledger, Spool) {
        (self.view.ledger.clone(), self.view.spool.clone())
    }

    /// What it has done so far.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Returns when a loop ends before it was told to, with the reason.
    pub async fn failed(&mut self) -> String {
        let ended = self.tasks.join_next().await;
        if self.shutdown.is_cancelled() {
            return std::future::pending().await;
        }
        match ended {
            Some(Ok(Ok(()))) => "a loop ended".to_owned(),
            Some(Ok(Err(error))) => format!("{error:#}"),
            Some(Err(error)) => error.to_string(),
            None => std::future::pending().await,
        }
    }

    /// Waits for the loops, which were told to stop, and for what threads do for them: nothing touches ledger and spool then.
    pub async fn finish(&mut self) {
        if let Some(own) = self.own.take() {
            own.stop().await;
        }
        while self.tasks.join_next().await.is_some() {}
        while self.under_way.iter().any(|work| work.strong_count() > 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// As [`Feeder::finish`], but gives up after `deadline`.
    pub async fn drain(&mut self, deadline: Duration) {
        if tokio::time::timeout(deadline, self.finish()).await.is_err() {
            warn!("a loop did not finish in time: what is sealed stays sealed");
            self.tasks.abort_all();
        }
    }
}

// === impl View ===

impl View {
    /// Whether the live window is recorded and nothing waits in the spool.
    pub async fn is_settled(&self, now: DateTime<Utc>) -> anyhow::Result<bool> {
        let (ledger, spool, live) = (
            self.ledger.clone(),
            self.spool.clone(),
            self.publish.live(now, self.cadence),
        );
        blocking(move || {
            let recorded = ledger
                .get(live.start())?
                .is_some_and(|entry| entry.state != State::Due);
            Ok(recorded
                && ledger.oldest_due()?.is_none()
                && ledger.spooled()?.is_empty()
                && spool.windows()?.is_empty())
        })
        .await?
    }

    /// One line for `systemctl status`.
    pub async fn status_line(&self) -> String {
        let ledger = self.ledger.clone();
        let read = blocking(move || {
            ledger
                .census()
                .and_then(|census| Ok((census, ledger.list(1)?)))
        });
        match read.await {
            Ok(Ok((census, recent))) => {
                let last = recent.first().map_or_else(
                    || "no window yet".to_owned(),
                    |entry| {
                        format!(
                            "window {} {}",
                            entry.start.to_rfc3339_opts(SecondsFormat::Secs, true),
                            super::describe(entry.state)
                        )
                    },
                );
                let waiting = census.due + census.spooled;
                let aside = if census.quarantined > 0 {
                    format!(", {} set aside", census.quarantined)
                } else {
                    String::new()
                };
                format!(
                    "{last}; {waiting} waiting, {} delivered{aside}",
                    census.shipped + census.partial + census.covered
                )
            }
            _ => "the ledger cannot be read".to_owned(),
        }
    }

    /// The newest windows first.
    pub fn recent(&self, limit: usize) -> anyhow::Result<Vec<crate::feed::Entry>> {
        Ok(self.ledger.list(limit)?)
    }
}
