//! The feeding half of the daemon: ledger, spool, cutter, shipper and the cron job that wakes them.

use std::any::Any;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_cron_scheduler::{Job, JobScheduler};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::feed::disk::Disk;
use crate::feed::{
    Config, Cut, Cutter, Ledger, Opened, Publish, Shipper, Spool, State, Vitals, blocking, recover,
    shipper,
};
use crate::ops::site::FeedSite;
use crate::s3::Bucket;
use crate::signal::{Cadence, NameFormat, TagList};
use crate::source::Source;
use crate::vitals::{Code, Trouble};

use super::Store;

/// What a feeder is made of.
pub struct Parts {
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

/// A running feeder.
pub struct Feeder {
    view: View,
    vitals: Vitals,
    wake: Arc<Notify>,
    tasks: JoinSet<anyhow::Result<()>>,
    shutdown: CancellationToken,
    /// Alive while a thread does something on the disk for a loop, also for one that was given up.
    under_way: [Weak<dyn Any + Send + Sync>; 2],
    cron: Option<JobScheduler>,
}

/// A feeder's ledger and spool, to look at.
#[derive(Clone)]
pub struct View {
    ledger: Ledger,
    spool: Spool,
    publish: Publish,
    cadence: Cadence,
}

impl Feeder {
    /// Reconciles what the last run left and starts the loops.
    pub async fn start(parts: Parts, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let now = parts.clock.now();
        let (data_dir, disk) = (parts.data_dir.clone(), parts.disk.clone());
        let (ledger, opened, spool) = blocking(move || -> anyhow::Result<_> {
            let (ledger, opened) = Ledger::open(&data_dir, now)?;
            let spool = Spool::open(disk, &data_dir)?;
            let recovery = recover(&spool, &ledger)?;
            if recovery != Default::default() {
                info!(
                    adopted = recovery.adopted,
                    removed = recovery.removed,
                    recut = recovery.recut,
                    aside = recovery.aside,
                    "spool and ledger reconciled"
                );
            }
            Ok((ledger, opened, spool))
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
            parts.vitals.troubles().raise(trouble.aside(aside));
        }
        let rebuild = Shipper::wants_rebuild(&opened).then(|| shipper::Rebuild {
            naming: parts.naming,
            prefix: parts.prefix.clone(),
            tags: parts.tags.clone(),
            cadence: parts.config.cadence,
            max_age: TimeDelta::from_std(parts.config.max_age.0).unwrap_or(TimeDelta::days(1)),
        });
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
        let cron = if parts.clock.is_system() {
            Some(poke(parts.config.cadence, wake.clone()).await?)
        } else {
            None
        };
        let shipper = Shipper::new(
            &parts.config,
            parts.bucket,
            parts.prefix,
            spool.clone(),
            ledger.clone(),
            parts.clock,
            sealed,
            vitals.clone(),
            rebuild,
        );
        let under_way = [cutter.under_way(), shipper.under_way()];
        let mut tasks = JoinSet::new();
        tasks.spawn(cutter.run(shutdown.clone()));
        tasks.spawn(shipper.run(shutdown.clone()));
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
            cron,
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

    /// Its parts, for metrics, health and the console.
    pub fn site(&self, config: &crate::config::Config, store: &Store, tags: &TagList) -> FeedSite {
        FeedSite {
            config: config.feed.clone(),
            naming: config.naming,
            prefix: store.prefix.clone(),
            tags: tags.clone(),
            bucket: store.bucket.clone(),
            ledger: self.view.ledger.clone(),
            spool: self.view.spool.clone(),
            health: self.vitals.health().clone(),
            delay: TimeDelta::minutes(i64::from(config.inference.delay_offset_minutes)),
        }
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
        if let Some(mut cron) = self.cron.take()
            && let Err(error) = cron.shutdown().await
        {
            warn!(%error, "the cron scheduler did not stop");
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

/// A cron job that wakes the cutter at each boundary. It only pokes: what is due comes from the ledger and the clock.
async fn poke(cadence: Cadence, wake: Arc<Notify>) -> anyhow::Result<JobScheduler> {
    let schedule = match cadence.minutes() {
        60 => "0 0 * * * *".to_owned(),
        minutes => format!("0 */{minutes} * * * *"),
    };
    let cron = JobScheduler::new().await.context("cron scheduler")?;
    let job = Job::new_async(schedule.as_str(), move |_, _| {
        let wake = wake.clone();
        Box::pin(async move { wake.notify_one() })
    })
    .with_context(|| format!("cron schedule {schedule}"))?;
    cron.add(job).await.context("cron scheduler")?;
    cron.start().await.context("cron scheduler")?;
    Ok(cron)
}
