//! The shipper: uploads sealed windows from the spool, for ever, until the store has them.
//!
//! Two lanes work side by side. The live lane takes the live window the moment it is sealed; the backlog lane drains
//! what is older, oldest first, at a bounded rate, so a backlog cannot delay a live window. As many files go up at once as the
//! line carries in their time (`pace`), in the window's order. A window leaves the spool after the store acknowledged every file and the ledger recorded it. A key that
//! exists with other bytes sets the window aside and is never overwritten.

mod backoff;
mod greet;
mod pace;

use std::any::Any;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use backoff::Backoff;
pub use pace::Budget;
use pace::{Fared, Pace};

use super::{
    Config, Health, Ledger, Opened, Publish, Pulse, Spool, SpoolError, State, Vitals, blocking,
};
use crate::clock::Clock;
use crate::s3::{Bucket, Created, Disposition, S3Error};
use crate::signal::{Asset, Cadence, NameFormat, TagList, Window};

/// How often a lane looks at the spool when nothing wakes it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A lasting failure is logged again after this long.
const REMIND: Duration = Duration::from_secs(600);

/// A clock that is further from the store's is not set: nothing is named by it. Smaller differences are told, and waited for
/// by nobody: the store may be the one that is wrong.
const UNSET: TimeDelta = TimeDelta::days(365);

/// What to rebuild the ledger from when it is new but the bucket may not be.
pub struct Rebuild {
    /// How files are named.
    pub naming: NameFormat,
    /// Key prefix of the input files.
    pub prefix: String,
    /// Components and their order.
    pub tags: TagList,
    /// Window length.
    pub cadence: Cadence,
    /// How far back to look.
    pub max_age: TimeDelta,
    /// Whose it is, and which assets the ledger knows it of by now.
    pub asset: Asset,
    /// See `asset`.
    pub learnt: Arc<Learnt>,
}

/// The assets whose part of the bucket is in a new ledger.
#[derive(Debug)]
pub struct Learnt {
    assets: Mutex<HashSet<Asset>>,
    /// Of how many.
    of: usize,
}

impl Learnt {
    /// None yet, of so many.
    pub fn of(assets: usize) -> Self {
        Self {
            assets: Mutex::default(),
            of: assets.max(1),
        }
    }

    /// This one's is known now; whether it is that of all.
    fn and(&self, asset: Asset) -> bool {
        let mut assets = self.assets.lock().unwrap_or_else(PoisonError::into_inner);
        assets.insert(asset);
        assets.len() >= self.of
    }
}

/// What a shipper works with.
pub struct Parts {
    /// Where files go.
    pub bucket: Bucket,
    /// Key prefix of the input files.
    pub prefix: String,
    /// Where sealed windows wait.
    pub spool: Spool,
    /// Where their states are recorded.
    pub ledger: Ledger,
    /// The time.
    pub clock: Clock,
    /// How many uploads may go on at once, over all shippers that have it.
    pub budget: Budget,
    /// The loops of this process.
    pub vitals: Vitals,
    /// Given when the ledger is new.
    pub rebuild: Option<Rebuild>,
}

/// The task loop.
pub struct Shipper {
    shared: Arc<Shared>,
    bucket: Bucket,
    prefix: String,
    rebuild: Option<Rebuild>,
    vitals: Vitals,
}

struct Shared {
    spool: Spool,
    ledger: Ledger,
    clock: Clock,
    cadence: Cadence,
    publish: Publish,
    drain_pause: Duration,
    sealed: Arc<Notify>,
    pace: Arc<Pace>,
    budget: Budget,
    claimed: Mutex<HashSet<i64>>,
    reachable: Notify,
    trouble: Mutex<Option<Trouble>>,
    health: Health,
}

struct Trouble {
    since: Instant,
    said: Instant,
    text: String,
}

/// Which windows a lane ships. Those of the first go before those of the second, whosever they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Live,
    Backlog,
}

/// How one window fared.
enum Shipped {
    Done,
    Conflict(String),
    Failed(S3Error),
    Damaged(String),
}

impl Shipper {
    /// A shipper for what is sealed in the spool, which `sealed` tells of.
    pub fn new(config: &Config, parts: Parts, sealed: Arc<Notify>) -> Self {
        Self {
            shared: Arc::new(Shared {
                spool: parts.spool,
                ledger: parts.ledger,
                clock: parts.clock,
                cadence: config.cadence,
                publish: config.publish,
                drain_pause: Duration::from_secs(60) / config.drain_per_minute.max(1),
                sealed,
                pace: parts.budget.of(parts.bucket.answer_time()),
                budget: parts.budget,
                claimed: Mutex::default(),
                reachable: Notify::new(),
                trouble: Mutex::default(),
                health: parts.vitals.health().clone(),
            }),
            bucket: parts.bucket,
            prefix: parts.prefix,
            rebuild: parts.rebuild,
            vitals: parts.vitals,
        }
    }

    /// Whether a ledger that was just opened wants to be rebuilt from the bucket.
    pub fn wants_rebuild(opened: &Opened) -> bool {
        !matches!(opened, Opened::Existing)
    }

    /// What is alive as long as a step of shipping is under way, also when the loop was given up.
    pub fn under_way(&self) -> Weak<dyn Any + Send + Sync> {
        let shared: Weak<Shared> = Arc::downgrade(&self.shared);
        shared
    }

    /// Runs until `shutdown`. Uploads under way are abandoned then: what is sealed stays sealed.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let pulse = self.vitals.pulse("shipper", Duration::from_secs(400));
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            result = self.greet(&pulse) => result?,
        }
        let live = lane(Lane::Live, self.shared.clone(), self.bucket.clone(), pulse);
        let pulse = self.vitals.pulse("backlog", Duration::from_secs(400));
        let backlog = lane(Lane::Backlog, self.shared.clone(), self.bucket, pulse);
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            () = live => Ok(()),
            () = backlog => Ok(()),
        }
    }
}

async fn lane(lane: Lane, shared: Arc<Shared>, bucket: Bucket, pulse: Pulse) {
    let backoff_anew = || match lane {
        // The scheduler looks once: what its next look needs must not wait for it.
        Lane::Live => Backoff::urgent(),
        Lane::Backlog => Backoff::default(),
    };
    let mut backoff = backoff_anew();
    loop {
        pulse.beat();
        if is_unset(&bucket) {
            tokio::time::sleep(LOOK_AGAIN).await;
            bucket.ask().await;
            continue;
        }
        // Registered before looking, so that a window sealed in between is not missed.
        let sealed = shared.sealed.notified();
        let reachable = shared.reachable.notified();
        let claim = match shared.clone().claim(lane).await {
            Ok(Some(claim)) => claim,
            Ok(None) => {
                let idle = shared.clone();
                if lane == Lane::Backlog
                    && let Err(error) = blocking(move || idle.reconcile()).await.flatten()
                {
                    shared.local_trouble(&error);
                }
                tokio::select! {
                    () = sealed => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
                continue;
            }
            Err(error) => {
                shared.local_trouble(&error);
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
        };
        match shared.ship(&bucket, &claim.window, (lane, &pulse)).await {
            Ok(Shipped::Failed(error)) => {
                let wait = backoff.after(error.disposition());
                let failed = claim.window;
                drop(claim);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    // A new live window is worth an attempt of its own, also one sealed while the last attempt hung.
                    () = shared.next_live(&failed, sealed), if lane == Lane::Live => {}
                    // The other lane got through: the outage is over.
                    () = reachable => backoff = backoff_anew(),
                }
            }
            Ok(_) => {
                backoff = backoff_anew();
                drop(claim);
                if lane == Lane::Backlog {
                    tokio::time::sleep(shared.drain_pause).await;
                }
            }
            Err(error) => {
                shared.local_trouble(&error);
                drop(claim);
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}

/// Whether this machine's clock has not been set, by what the store said last.
fn is_unset(bucket: &Bucket) -> bool {
    let offset = bucket.readings().offset;
    offset.is_some_and(|offset| offset.abs() > UNSET)
}

/// A window that one lane is shipping; released when dropped.
struct Claim {
    shared: Arc<Shared>,
    window: Window,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared
            .claims()
            .remove(&self.window.start().timestamp());
    }
}

impl Shared {
    /// Until another window than `failed` is live and something was sealed, which `sealed` has listened for since before the
    /// attempt. Windows of a backlog that are sealed meanwhile are no reason to ask a store that does not answer.
    async fn next_live(&self, failed: &Window, sealed: Notified<'_>) {
        sealed.await;
        loop {
            let next = self.sealed.notified();
            if self.publish.live(self.clock.now(), self.cadence) != *failed {
                return;
            }
            next.await;
        }
    }

    /// The next window of a lane: the live one, or the oldest of the others. It costs a look into the ledger's index,
    /// however long the backlog is.
    async fn claim(self: Arc<Self>, lane: Lane) -> anyhow::Result<Option<Claim>> {
        // What is not live any more is backlog, also when it is the newest: or the live lane would drain a backlog from its
        // young end, at no rate.
        let live = self.publish.live(self.clock.now(), self.cadence);
        let shared = self.clone();
        let window = blocking(move || -> Result<Option<Window>, super::LedgerError> {
            // Held over the look, so that a window that another lane has just shipped is not seen as spooled and free.
            let mut claims = shared.claims();
            let free = |claims: &HashSet<i64>, window: &Window| {
                (*window == live) == (lane == Lane::Live)
                    && !claims.contains(&window.start().timestamp())
            };
            let window = match lane {
                Lane::Live => {
                    let entry = shared.ledger.get(live.start())?;
                    let spooled = entry.is_some_and(|entry| {
                        entry.state == State::Spooled && entry.cadence == live.cadence()
                    });
                    Some(live).filter(|window| spooled && free(&claims, window))
                }
                // All but the live one and those that are being shipped are free.
                Lane::Backlog => shared
                    .ledger
                    .oldest_spooled(claims.len() + 2)?
                    .into_iter()
                    .find(|window| free(&claims, window)),
            };
            claims.extend(window.iter().map(|window| window.start().timestamp()));
            Ok(window)
        })
        .await??;
        Ok(window.map(|window| Claim {
            shared: self,
            window,
        }))
    }

    /// Compares spool and ledger while nothing waits: what is recorded and not there any more is due again; what was shipped
    /// but could not be removed is removed. What is sealed but not recorded yet is the cutter's.
    fn reconcile(&self) -> anyhow::Result<()> {
        let recorded: HashSet<Window> = self.ledger.spooled()?.into_iter().collect();
        let sealed: HashSet<Window> = self.spool.windows()?.into_iter().collect();
        for window in recorded.difference(&sealed) {
            // A window that is being shipped leaves the spool after the ledger knows: look again.
            if self.state_unclaimed(window)? == Some(State::Spooled) {
                warn!(%window, "spool entry is gone: the window is cut again");
                let gone = Some("its spool entry is gone");
                self.ledger
                    .transition(window, State::Spooled, State::Due, gone)?;
            }
        }
        for window in sealed.difference(&recorded) {
            let state = self.state_unclaimed(window)?;
            if state.is_some_and(State::is_delivered) {
                self.spool.remove(window)?;
            }
        }
        Ok(())
    }

    /// The recorded state of a window that no lane is shipping.
    fn state_unclaimed(&self, window: &Window) -> anyhow::Result<Option<State>> {
        let claimed = self.claims().contains(&window.start().timestamp());
        let entry = self.ledger.get(window.start())?;
        Ok(entry.filter(|_| !claimed).map(|entry| entry.state))
    }

    async fn ship(
        self: &Arc<Self>,
        bucket: &Bucket,
        window: &Window,
        (lane, pulse): (Lane, &Pulse),
    ) -> anyhow::Result<Shipped> {
        let began = Instant::now();
        let outcome = self.upload(bucket, window, (lane, pulse)).await?;
        let (shared, window) = (self.clone(), *window);
        let now = self.clock.now();
        match &outcome {
            Shipped::Done => {
                let state = blocking(move || -> anyhow::Result<Option<State>> {
                    let state = shared.ledger.shipped(&window, now)?;
                    if state.is_some() {
                        shared.spool.remove(&window)?;
                    }
                    Ok(state)
                })
                .await??;
                self.recovered();
                self.health.uploaded(began.elapsed());
                let late_s = (now - window.end()).num_seconds();
                match state {
                    Some(state) => info!(%window, state = state.name(), late_s, "window shipped"),
                    None => {
                        warn!(%window, "the window was given up while it was uploaded: the store has it all the same")
                    }
                }
                return Ok(Shipped::Done);
            }
            Shipped::Conflict(reason) => {
                let text = reason.clone();
                let moved = blocking(move || -> anyhow::Result<bool> {
                    let (from, to) = (State::Spooled, State::Quarantined);
                    let moved = shared.ledger.transition(&window, from, to, Some(&text))?;
                    if moved {
                        shared.spool.quarantine(&window)?;
                    }
                    Ok(moved)
                })
                .await??;
                if moved {
                    error!(%window, reason, "window set aside: a key is taken by other bytes; compare them, then `lookoutd windows retry` or `skip`");
                }
            }
            Shipped::Damaged(what) => {
                let reason = what.clone();
                let (aside, moved) = blocking(move || -> anyhow::Result<_> {
                    let aside = shared.spool.quarantine(&window)?;
                    let (from, to) = (State::Spooled, State::Due);
                    let moved = shared.ledger.transition(&window, from, to, Some(&reason))?;
                    Ok((aside, moved))
                })
                .await??;
                match aside {
                    _ if !moved => {}
                    Some(aside) => {
                        let aside = aside.display();
                        warn!(%window, what, %aside, "spool entry is damaged: set aside, the window is cut again");
                    }
                    None => warn!(%window, "spool entry is gone: the window is cut again"),
                }
            }
            Shipped::Failed(error) => {
                self.trouble(error);
                let text = error.to_string();
                let recorded = blocking(move || shared.ledger.failed(&window, &text)).await?;
                if let Err(error) = recorded {
                    // The attempt count is a convenience; on a full disk it may go unrecorded.
                    debug!(%error, "attempt not recorded");
                }
            }
        }
        Ok(outcome)
    }

    /// Creates every file of a window at its key.
    async fn upload(
        self: &Arc<Self>,
        bucket: &Bucket,
        window: &Window,
        (lane, pulse): (Lane, &Pulse),
    ) -> anyhow::Result<Shipped> {
        let (spool, wanted) = (self.spool.clone(), *window);
        let manifest = match blocking(move || spool.manifest(&wanted)).await? {
            Ok(manifest) => manifest,
            Err(SpoolError::Damaged { what, .. }) => return Ok(Shipped::Damaged(what)),
            Err(error) => return Err(error.into()),
        };
        let mut uploads: FuturesUnordered<_> = manifest
            .files
            .into_iter()
            .map(|file| {
                let (shared, bucket, window) = (self.clone(), bucket.clone(), *window);
                async move {
                    // However long others go first, the lane is not stuck.
                    let turn = shared.pace.clone().turn(file.bytes, lane);
                    let turn = pulse.during(turn).await;
                    let (spool, wanted) = (shared.spool.clone(), file.clone());
                    let reading = shared.budget.reading().await;
                    let read = blocking(move || spool.read(&window, &wanted)).await?;
                    drop(reading);
                    let bytes = match read {
                        Ok(bytes) => bytes,
                        Err(SpoolError::Damaged { what, .. }) => {
                            return Ok(Shipped::Damaged(what));
                        }
                        Err(error) => return Err(anyhow::Error::from(error)),
                    };
                    let started = Instant::now();
                    let created = bucket.create_within(&file.key, &bytes, turn.deadline()).await;
                    turn.over(match &created {
                        Ok(_) => Fared::Done(started.elapsed()),
                        Err(error) if error.is_timeout() => Fared::TimedOut,
                        Err(_) => Fared::Otherwise,
                    });
                    Ok(match created {
                        Ok(Created::Conflict(what)) => {
                            Shipped::Conflict(format!("{}: {what}", file.key))
                        }
                        Ok(created) => {
                            debug!(
                                %window, key = file.key, bytes = file.bytes, ?created,
                                elapsed_ms = started.elapsed().as_millis() as u64, "file in the store"
                            );
                            Shipped::Done
                        }
                        Err(error) => Shipped::Failed(error),
                    })
                }
            })
            .collect();
        let mut worst = Shipped::Done;
        while let Some(outcome) = uploads.next().await {
            let outcome = outcome?;
            if outcome.rank() > worst.rank() {
                worst = outcome;
            }
        }
        Ok(worst)
    }

    /// The store failed.
    fn trouble(&self, error: &S3Error) {
        let disposition = error.disposition();
        let remedy = match disposition {
            Disposition::Hold(remedy) => Some(remedy),
            _ => None,
        };
        self.health
            .store_failed(error.to_string(), remedy, self.clock.now());
        // The key differs from file to file and says nothing new.
        self.say(
            &format!("{:?} {:?}", error.failure.code, disposition),
            |lasting_s| match disposition {
                Disposition::Hold(remedy) => error!(%error, remedy, lasting_s, "uploads are held"),
                _ => warn!(%error, lasting_s, "upload failed and will be tried again"),
            },
        );
    }

    /// Spool or ledger failed.
    fn local_trouble(&self, error: &anyhow::Error) {
        self.say(&format!("{error:#}"), |lasting_s| {
            warn!(
                error = format!("{error:#}"),
                lasting_s, "shipping failed on this machine and will be tried again"
            );
        });
    }

    /// Logs a trouble when it begins, when it changes, and again after a while.
    fn say(&self, what: &str, log: impl FnOnce(u64)) {
        let mut trouble = lock(&self.trouble);
        let known = trouble.as_ref();
        if known.is_some_and(|known| known.text == what && known.said.elapsed() < REMIND) {
            return;
        }
        let since = known.map_or_else(Instant::now, |known| known.since);
        log(since.elapsed().as_secs());
        *trouble = Some(Trouble {
            since,
            said: Instant::now(),
            text: what.to_owned(),
        });
    }

    fn recovered(&self) {
        self.health.store_works();
        if let Some(trouble) = lock(&self.trouble).take() {
            info!(after_s = trouble.since.elapsed().as_secs(), "uploads go on");
            self.reachable.notify_waiters();
        }
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, HashSet<i64>> {
        lock(&self.claimed)
    }
}

impl Shipped {
    /// A conflict must be seen before a failure, and either before success.
    fn rank(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed(_) => 1,
            Self::Damaged(_) => 2,
            Self::Conflict(_) => 3,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
