//! The watcher: one loop that keeps the scheduler, lists its executions and archives them.
//!
//! ```text
//!  turn: what has to be asked now (`asking`, `due`) ─► round
//!  round: ensure ─► a part of the archive checked ─► list from the cursor ─► index ─► fetch results ─► archive file ─► copy in S3 ─► index: archived
//! ```
//!
//! Guarantees: nothing here ends the loop but shutdown, so that an unreachable API only delays; a crash between any two
//! steps is repaired by repeating them; history is listed once, afterwards only what is newer than the cursor, with an
//! overlap for what comes out of order. An execution that should have come and did not is said once. The API is asked for
//! executions when they are due, and for the scheduler together with those of others where there are many.

mod absent;
mod asking;
mod due;
mod fetching;
mod listing;
mod patrol;
mod reasons;

use std::time::Duration;

use anyhow::Context;
use aws_sdk_lookoutequipment::Client;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::Wanted;
use super::api::{Advice, ApiError};
use super::archive::Archive;
use super::ensure::{EnsureError, ensure};
use super::hint::Deliveries;
use super::index::Index;
use super::roster::{Roster, Seat};
use super::scheduler::{Described, Target};
use crate::clock::{self, Clock};
use crate::s3::{Bucket, Disposition, S3Error};
use crate::signal::Window;
use crate::vitals::{Pulse, Vitals};
use absent::Absent;
use asking::{Asks, Standing};

/// What a watcher is made of.
pub struct Parts {
    /// The API.
    pub client: Client,
    /// What the scheduler is to be.
    pub target: Target,
    /// The store that results are fetched from.
    pub s3: aws_sdk_s3::Client,
    /// Where the archive lies.
    pub archive: Archive,
    /// Bucket and key prefix of a copy of the archive.
    pub copy: Option<(Bucket, String)>,
    /// How often to look.
    pub poll: Duration,
    /// What is shared with the watchers of other schedulers of the API.
    pub roster: Roster,
    /// The time.
    pub clock: Clock,
    /// The loops of this process.
    pub vitals: Vitals,
}

/// The loop.
pub struct Watcher {
    parts: Parts,
    index: Index,
    /// The end of the first window whose execution is still to be looked for; `None` while the scheduler does not run.
    expected: Option<DateTime<Utc>>,
    /// When failed executions were last asked for again.
    asked_late: Option<DateTime<Utc>>,
    trouble: Trouble,
    patrol: patrol::Patrol,
    pulse: Pulse,
    absent: Absent,
    deliveries: Option<Deliveries>,
    seat: Seat,
    asked: asking::Asked,
}

/// How far back executions that did not come are looked for.
const LONGEST_GAP: TimeDelta = TimeDelta::days(30);
/// The longest pause after failures: what is told as over within a minute cannot be looked at less often.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long the loop may be silent: a scheduler may take minutes to change its state.
const SILENT: Duration = Duration::from_secs(600);

impl Watcher {
    /// Opens the archive's index, building it again where it is lost.
    pub async fn open(parts: Parts) -> anyhow::Result<Self> {
        let (archive, now) = (parts.archive.clone(), parts.clock.now());
        let index = blocking(move || Index::open(&archive, now)).await??;
        Ok(Self::on(parts, index))
    }

    /// A watcher over an index that is open, and that others may write too.
    pub fn on(parts: Parts, index: Index) -> Self {
        let pulse = parts.vitals.pulse("watcher", SILENT);
        Self {
            seat: parts.roster.seat(),
            asked: asking::Asked::default(),
            parts,
            pulse,
            index,
            expected: None,
            asked_late: None,
            trouble: Trouble::default(),
            patrol: patrol::Patrol::default(),
            absent: Absent::default(),
            deliveries: None,
        }
    }

    /// A watcher that can say of a failed execution how its files were delivered.
    pub fn told_by(mut self, deliveries: Deliveries) -> Self {
        self.deliveries = Some(deliveries);
        self
    }

    /// The index, to look at.
    pub fn index(&self) -> Index {
        self.index.clone()
    }

    /// Runs until `shutdown`. A round that is cut off is repeated by the next start.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            let more = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                more = self.turn() => more,
            };
            self.pulse.beat();
            if more {
                continue;
            }
            let pause = self.pause().await;
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.pulse.during(self.parts.clock.pause(pause)) => {}
            }
        }
    }

    /// One round in which everything is asked. True where there is more to archive at once.
    pub async fn round(&mut self) -> bool {
        self.round_with(Asks::all()).await
    }

    async fn round_with(&mut self, asks: Asks) -> bool {
        let mut failed = None;
        let lists = asks.executions;
        let answers = !matches!(asks.scheduler, Standing::Unknown(_));
        match asks.scheduler {
            _ if self.parts.target.wanted == Wanted::Observe => {}
            Standing::Ask => {
                let ensured = ensure(&self.parts.client, &self.parts.target).await;
                self.ensured(ensured.as_ref().err());
                match ensured {
                    Ok(ensured) => {
                        self.asked.described(ensured.scheduler.clone());
                        self.kept(ensured.scheduler, ensured.calls > 0).await;
                    }
                    Err(error) => failed = Some(self.not_kept(&error)),
                }
            }
            Standing::As(described) => {
                self.ensured(None);
                self.kept(Some(*described), false).await;
            }
            Standing::Unknown(error) => {
                let error = EnsureError::Api(error);
                self.ensured(Some(&error));
                failed = Some(self.not_kept(&error));
            }
        }
        let mut more = false;
        if let Err(error) = self.patrol().await {
            failed = failed.or(Some(told(error)));
        }
        // One that has just been changed, or begun to run, may have executions.
        match self
            .look(lists || answers && self.asked.is_unlisted())
            .await
        {
            Ok(left) => more = left,
            Err(error) => failed = failed.or(Some(error)),
        }
        if !more {
            self.told_behind().await;
        }
        match failed {
            None => {
                self.trouble.over();
                more
            }
            Some((error, advice)) => {
                self.trouble.say(error, advice);
                false
            }
        }
    }

    fn not_kept(&mut self, error: &EnsureError) -> (String, Advice) {
        self.expected = None;
        self.asked.described(None);
        (error.to_string(), error.advice())
    }

    /// Begins to expect executions where the scheduler runs, from the last known one on if nothing was changed.
    async fn kept(&mut self, scheduler: Option<Described>, changed: bool) {
        let running = scheduler.is_some_and(|scheduler| scheduler.status == "RUNNING");
        let now = self.parts.clock.now();
        if !running || !clock::is_set(now) {
            self.expected = None;
            return;
        }
        let first = Window::containing(now - self.delay(), self.parts.target.cadence).end();
        if let Some(expected) = self.expected
            && !changed
        {
            // One of a time to come was expected by a clock that was ahead.
            self.expected = Some(expected.min(first));
            return;
        }
        let (index, name) = (self.index.clone(), self.parts.target.scheduler.clone());
        let known = match changed {
            true => None,
            false => blocking(move || index.newest_begun(&name, now))
                .await
                .ok()
                .and_then(Result::ok)
                .flatten(),
        };
        self.expected = Some(match known {
            Some(known) => {
                first.min(known.execution.data_end + self.parts.target.cadence.duration())
            }
            None => first,
        });
    }

    /// Lists where it `asks`, archives, and looks for what did not come.
    async fn look(&mut self, asks: bool) -> Result<bool, (String, Advice)> {
        if asks {
            self.list().await.map_err(told)?;
            self.asked.listed();
        }
        let fetched = self.archive().await;
        self.fetched(fetched.as_ref().err());
        let more = fetched?;
        if asks {
            self.missing().await.map_err(told)?;
        }
        Ok(more)
    }

    /// Says which executions should have come by now and did not: a wake-up and one cadence ago, and nothing listed.
    async fn missing(&mut self) -> Result<(), Failure> {
        let Some(expected) = self.expected else {
            return Ok(());
        };
        let cadence = self.parts.target.cadence.duration();
        let overdue = self.parts.clock.now() - self.delay() - cadence;
        if expected > overdue {
            return Ok(());
        }
        // A clock that jumps by years asks for no more than this.
        let first = expected.max(overdue - LONGEST_GAP);
        let first = Window::containing(first, self.parts.target.cadence).start();
        let (index, name) = (self.index.clone(), self.parts.target.scheduler.clone());
        let (missing, next) = blocking(move || -> anyhow::Result<_> {
            let known = index.starts(&name, first - cadence, overdue)?;
            let (mut missing, mut end) = (Vec::new(), first);
            while end <= overdue {
                if !known.contains(&(end - cadence)) {
                    missing.push(end - cadence);
                }
                end += cadence;
            }
            Ok((missing, end))
        })
        .await??;
        self.expected = Some(next);
        if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
            let text = |time: &DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
            warn!(
                scheduler = self.parts.target.scheduler,
                windows = missing.len(),
                first = text(first),
                last = text(last),
                "expected executions did not come"
            );
        }
        Ok(())
    }

    fn delay(&self) -> TimeDelta {
        TimeDelta::minutes(self.parts.target.delay_minutes)
    }

    /// A time of the clock's pace in real time.
    fn real(&self, time: Duration) -> Duration {
        match self.parts.clock.speed() {
            speed if speed > 0.0 => time.div_f64(speed),
            _ => time,
        }
    }
}

/// Anything that ends a round early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    S3(#[from] S3Error),
    #[error(transparent)]
    Index(#[from] super::index::IndexError),
    #[error(transparent)]
    Archive(#[from] super::archive::ArchiveError),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

fn told(failure: Failure) -> (String, Advice) {
    let advice = match &failure {
        Failure::Api(error) => error.advice(),
        Failure::S3(error) => match error.disposition() {
            Disposition::Hold(remedy) => Advice::Hold(remedy),
            _ => Advice::Retry,
        },
        Failure::Index(_) | Failure::Archive(_) => {
            Advice::Hold("check the disk of the data directory")
        }
        Failure::Other(_) => Advice::Retry,
    };
    (failure.to_string(), advice)
}

/// What keeps failing, so that it is said once and its end too.
#[derive(Debug, Default)]
struct Trouble {
    error: Option<String>,
    rounds: u32,
}

impl Trouble {
    fn say(&mut self, error: String, advice: Advice) {
        self.rounds += 1;
        if self.error.as_ref() == Some(&error) {
            debug!(
                error,
                rounds = self.rounds,
                "the inference side still fails"
            );
            return;
        }
        match advice {
            Advice::Retry => warn!(
                error,
                "the inference side fails, trying again; feeding goes on"
            ),
            Advice::Hold(remedy) => {
                error!(
                    error,
                    remedy, "the inference side cannot go on; feeding goes on"
                );
            }
        }
        self.error = Some(error);
    }

    fn over(&mut self) {
        if self.error.take().is_some() {
            info!(rounds = self.rounds, "the inference side works again");
        }
        self.rounds = 0;
    }

    fn is_so(&self) -> bool {
        self.error.is_some()
    }

    /// The pause after this round: twice as long after every failed one.
    fn pause(&self, poll: Duration) -> Duration {
        poll.saturating_mul(1 << self.rounds.min(10))
            .min(LONGEST_PAUSE.max(poll))
            .min(poll.saturating_mul(4))
    }
}

/// One blocking hop for disk work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("disk work of the archive")
}
