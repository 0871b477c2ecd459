//! The simulated world: a gateway (feeder and watcher), a service, a store and somebody at the controls, on one thread
//! whose monotonic time is tokio's paused one and whose wall clock runs beside it, faster and stepped at will.
//!
//! The gateway and the service are what the daemon starts, with the real SDK clients; a crash drops everything of one and
//! starts it anew from what lies on its disk. Nothing sleeps in real time.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use lookoutd::clock::Clock;
use lookoutd::config::{ByteSize, Span};
use lookoutd::daemon::{Feeder, Parts, archive, service_config};
use lookoutd::embedded::KeyPair;
use lookoutd::feed::{CatchUp, Config, Publish};
use lookoutd::inference::{self, Wanted, Watcher};
use lookoutd::s3::Bucket;
use lookoutd::service::Service;
use lookoutd::signal::{NameFormat, Window};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::disk::Platter;
use super::facts::Facts;
use super::ops::{Meddling, Moment, Op, Setup, To, api_faults, store_faults};
use super::plant::{self, Hole, Past, Reader};
use super::store::ObjectStore;
use super::wire::{Backend, Link, Purse};
use crate::proxy::{Fault, Rule};
use crate::rig::{BUCKET, PREFIX, at, directory, feed_config, tags};

/// When simulations begin: between two boundaries.
const BEGIN: &str = "2026-01-01T00:02:00Z";
pub const SCHEDULER: &str = "sim";
pub const ARCHIVE_PREFIX: &str = "archive/";
/// Cutting pauses below this.
const MIN_FREE: u64 = 3_000;
const POLL: Duration = Duration::from_secs(270);
/// Monotonic time within which the loops see that the clock was put back.
const SETTLED: Duration = Duration::from_secs(7);

/// Everything.
pub struct World {
    pub setup: Setup,
    pub clock: Clock,
    pub directory: TempDir,
    pub platter: Arc<Platter>,
    pub past: Past,
    pub store: Arc<ObjectStore>,
    pub gateway_store: Link,
    pub service_store: Link,
    pub api: Link,
    pub config: Config,
    pub gateway: Option<Gateway>,
    pub facts: Facts,
    /// When something last stood in the gateway's or the service's way.
    pub gateway_rough: Instant,
    pub service_rough: Instant,
    service: Option<Service>,
    address: Arc<Mutex<Option<SocketAddr>>>,
    keys: KeyPair,
    direct: aws_sdk_lookoutequipment::Client,
    gateway_crash: Arc<Notify>,
    service_crash: Arc<Notify>,
    gateway_order: Arc<Notify>,
    /// Whether it is to be reloaded then, and how long it stays down otherwise.
    ordered: Option<(bool, Duration)>,
    purse: Purse,
    /// What is to happen when the armed crash comes: power cut, and how long it stays down.
    gateway_fate: (bool, Duration),
    service_fate: Duration,
    random: fastrand::Rng,
    /// How often the gateway was started.
    starts: usize,
    /// When it was started last, or the clock put back.
    unsettled: Instant,
}

/// A running gateway.
pub struct Gateway {
    pub feeder: Feeder,
    watcher: JoinHandle<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl World {
    /// Everything new and running.
    pub async fn begin(setup: Setup) -> Result<World, String> {
        fastrand::seed(setup.seed);
        let directory = directory();
        let gateway_crash = Arc::new(Notify::new());
        let gateway_order = Arc::new(Notify::new());
        let (crash, order) = (gateway_crash.clone(), gateway_order.clone());
        let platter = Platter::new(
            directory.path().join("graveyard"),
            move || crash.notify_one(),
            move || order.notify_one(),
        );
        platter.set_min_free(MIN_FREE);
        let clock = Clock::accelerated(at(BEGIN), setup.speed);
        let store = Arc::new(ObjectStore::new(setup.keeps_checksums));
        let address = Arc::new(Mutex::new(None));
        let keys = KeyPair {
            access_key: "SIM".into(),
            secret_key: "secret".into(),
        };
        let api = Link::new(Backend::Service(address.clone()));
        let direct = Link::new(Backend::Service(address.clone())).lookout(&keys);
        let purse = Purse::of(&keys);
        let link = || Link::new(Backend::Store(store.clone())).paid_from(&purse);
        let (gateway_store, service_store) = (link(), link());
        gateway_store.ignore_conditions(setup.ignores_condition);
        std::fs::create_dir_all(directory.path().join("data")).map_err(|e| e.to_string())?;
        let config = Config {
            catch_up: if setup.backfill {
                CatchUp::Backfill
            } else {
                CatchUp::Skip
            },
            min_free: ByteSize(MIN_FREE),
            ..feed_config()
        };
        let mut world = World {
            facts: Facts::new(&directory.path().join("data"), &config),
            past: Past::new(clock.clone()),
            service_store,
            gateway: None,
            service: None,
            gateway_rough: Instant::now(),
            service_rough: Instant::now(),
            service_crash: Arc::default(),
            gateway_fate: (false, Duration::ZERO),
            service_fate: Duration::ZERO,
            random: fastrand::Rng::with_seed(setup.seed ^ 0xd15c),
            starts: 0,
            unsettled: Instant::now(),
            setup,
            clock,
            directory,
            platter,
            store,
            gateway_store,
            api,
            config,
            address,
            keys,
            direct,
            gateway_crash,
            gateway_order,
            ordered: None,
            purse,
        };
        world.start_service().await?;
        if let Some(service) = &world.service {
            let registered = service
                .store()
                .register_model(plant::model(), world.clock.now());
            registered.await.map_err(|fault| fault.to_string())?;
        }
        world.start_gateway().await?;
        Ok(world)
    }

    pub fn live(&self) -> Window {
        Publish::Ahead.live(self.clock.now(), self.config.cadence)
    }

    /// Does one operation.
    pub async fn apply(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Run { minutes } => self.run(u64::from(*minutes) * 60).await?,
            Op::Tick { times } => {
                for _ in 0..*times {
                    if let Some(gateway) = &self.gateway {
                        gateway.feeder.tick();
                    }
                    tokio::task::yield_now().await;
                }
            }
            Op::Step { seconds } => self.step_clock(*seconds).await?,
            Op::Ahead { seconds, minutes } => self.excursion(*seconds, *minutes).await?,
            Op::Rewrite { ahead } => {
                let from = self.live().offset(2 + i64::from(*ahead)).start();
                self.past.rewrite(from);
            }
            Op::Rotate => {
                let to = self.live().start();
                self.past.dig(Hole {
                    from: to - TimeDelta::days(3_650),
                    to,
                    component: None,
                    fills: None,
                });
            }
            Op::Ends { ahead, minutes } => {
                let at = self.live().offset(1 + i64::from(*ahead)).start();
                let appended = Instant::now() + self.real(u64::from(*minutes) * 60);
                self.past.end(at, appended);
            }
            Op::Breaks { minutes } => {
                let mended = Instant::now() + self.real(u64::from(*minutes) * 60);
                self.past.break_until(mended);
            }
            Op::Hole {
                ahead,
                minutes,
                component,
                fills,
            } => {
                let from = self.live().offset(1 + i64::from(*ahead)).start();
                self.past.dig(Hole {
                    from,
                    to: from + TimeDelta::minutes(i64::from(*minutes)),
                    component: component.map(usize::from),
                    fills: fills.map(|minutes| from + TimeDelta::minutes(i64::from(minutes))),
                });
            }
            Op::SourceFails { reads } => self.past.fail(u32::from(*reads)),
            Op::Store {
                to,
                fault,
                after,
                times,
            } => {
                let (fault, held) = store_faults()[usize::from(*fault)].clone();
                if held && *to == To::Gateway {
                    self.facts.expect("uploads are held");
                }
                // The watcher fetches results over the same link.
                self.facts.expect("the inference side cannot go on");
                let rule = Rule::any(usize::from(*times), fault).after(usize::from(*after));
                self.link(*to).inject(rule);
            }
            Op::StoreDown { to } => self.link(*to).set_down(true),
            Op::StoreUp { to } => self.link(*to).set_down(false),
            Op::Slow { to, milliseconds } => self.link(*to).set_slow(*milliseconds),
            Op::Keys { minutes } => {
                self.facts.expect("uploads are held");
                self.facts.expect("the inference side cannot go on");
                let known = Instant::now() + self.real(u64::from(*minutes) * 60);
                self.purse.replace(known);
            }
            Op::Api {
                fault,
                after,
                times,
            } => {
                self.facts.expect("the inference side cannot go on");
                let fault = api_faults()[usize::from(*fault)].clone();
                let rule = Rule::any(usize::from(*times), fault).after(usize::from(*after));
                self.api.inject(rule);
            }
            Op::ApiDown => self.api.set_down(true),
            Op::ApiUp => self.api.set_down(false),
            Op::Crash { at, power, down } => {
                self.gateway_fate = (*power, self.real(u64::from(*down) * 60));
                self.arm(*at).await?;
            }
            Op::ServiceCrash { at, down } => {
                self.service_fate = self.real(u64::from(*down) * 60);
                match at {
                    Some((request, after)) => {
                        let fault = fuse(&self.service_crash, *after);
                        let rule = Rule::any(1, fault).after(usize::from(*request));
                        self.service_store.inject(rule);
                    }
                    None => self.crash_service().await?,
                }
            }
            Op::Stop { down } => {
                self.stop_gateway().await;
                tokio::time::sleep(self.real(u64::from(*down) * 60)).await;
                self.start_gateway().await?;
            }
            Op::Orderly { at, reload, down } => {
                self.ordered = Some((*reload, self.real(u64::from(*down) * 60)));
                self.platter.wait_for(*at);
            }
            Op::ServiceStop { down } => {
                self.stop_service().await;
                tokio::time::sleep(self.real(u64::from(*down) * 60)).await;
                self.start_service().await?;
            }
            Op::Full { room } => {
                self.facts.expect("cutting is paused");
                self.platter.fill(u64::from(*room));
            }
            Op::Room => self.platter.empty(),
            Op::Reload {
                backfill,
                hours,
                drain,
            } => {
                self.hand_over().await;
                self.config.catch_up = if *backfill {
                    CatchUp::Backfill
                } else {
                    CatchUp::Skip
                };
                self.config.max_age = Span(Duration::from_secs(u64::from(*hours) * 3600));
                self.config.drain_per_minute = u32::from(*drain);
                self.start_gateway().await?;
            }
            Op::Scheduler { by } => self.meddle(*by).await,
            Op::Taken { component } => {
                let window = self.live().offset(2);
                let name = &tags().components[usize::from(*component)].name;
                let name = NameFormat::default().file_name(name, window.start());
                let key = format!("{PREFIX}{name}");
                if !self.facts.is_sealed(&window) && self.store.place(&key, b"theirs") {
                    self.facts.taken(key);
                    self.facts.expect("window set aside");
                }
            }
        }
        Ok(())
    }

    /// Time passes, this many seconds by the wall clock; what crashes meanwhile is started again.
    pub async fn run(&mut self, seconds: u64) -> Result<(), String> {
        let end = Instant::now() + self.real(seconds);
        let (gateway, service) = (self.gateway_crash.clone(), self.service_crash.clone());
        let order = self.gateway_order.clone();
        loop {
            tokio::select! {
                biased;
                () = gateway.notified() => self.crash_gateway().await?,
                () = order.notified() => self.do_as_ordered().await?,
                () = service.notified() => self.crash_service().await?,
                () = tokio::time::sleep_until(end) => return Ok(()),
            }
        }
    }

    /// Puts everything right, for good.
    pub async fn heal(&mut self) -> Result<(), String> {
        for link in [&self.gateway_store, &self.service_store, &self.api] {
            link.heal();
        }
        self.platter.arm(0);
        self.platter.wait_for(0);
        self.platter.empty();
        self.past.heal();
        // A crash that has been rung for already still comes.
        self.run(1).await
    }

    /// Whether something stands in the gateway's way.
    pub fn gateway_is_troubled(&self) -> bool {
        self.gateway_store.is_troubled()
            || self.past.is_failing()
            || self.platter.is_full()
            || self.platter.is_armed()
            // A crash may wait there.
            || self.api.is_troubled()
    }

    pub fn service_is_troubled(&self) -> bool {
        self.service_store.is_troubled() || self.service.is_none()
    }

    /// Whether the gateway has seen the clock as it is.
    pub fn has_seen_the_clock(&self) -> bool {
        self.gateway.is_some()
            && !self.platter.is_dead()
            && Instant::now() > self.unsettled + SETTLED
    }

    /// Remembers when something last stood in the way of the gateway and of the service; `calm` is false for an operation
    /// that is a trouble itself.
    pub fn note_troubles(&mut self, calm: bool) {
        let now = Instant::now();
        let past = [self.gateway_store.last_trouble(), self.past.last_failed()];
        for at in past.into_iter().flatten() {
            self.gateway_rough = self.gateway_rough.max(at);
        }
        if let Some(at) = self.service_store.last_trouble() {
            self.service_rough = self.service_rough.max(at);
        }
        if !calm || self.gateway_is_troubled() {
            self.gateway_rough = now;
        }
        if !calm || self.service_is_troubled() {
            self.service_rough = now;
        }
    }

    /// Wall-clock seconds as monotonic time.
    pub fn real(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds).div_f64(self.setup.speed)
    }

    fn link(&self, to: To) -> &Link {
        match to {
            To::Gateway => &self.gateway_store,
            To::Service => &self.service_store,
        }
    }

    async fn step_clock(&mut self, seconds: i64) -> Result<(), String> {
        // Before the first window there is nothing to compare with.
        let earliest = at(BEGIN) + TimeDelta::minutes(1);
        let to = (self.clock.now() + TimeDelta::seconds(seconds)).max(earliest);
        self.clock.advance(to - self.clock.now());
        if self.gateway.is_some() && seconds > 0 {
            self.facts.resumes(self.live().start());
        }
        if seconds < 0 {
            self.facts.voided(self.now());
            self.unsettled = Instant::now();
        }
        // The loops look within a second.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    /// The clock is ahead for some minutes of its own, and put right: as if it had not been.
    async fn excursion(&mut self, seconds: i64, minutes: u8) -> Result<(), String> {
        // A service that catches up runs every window of the time that was skipped.
        let seconds = match self.setup.catch_up {
            true => seconds.min(200_000),
            false => seconds,
        };
        let before = self.facts.excursion_begins(self.live().start());
        let starts = self.starts;
        self.clock.advance(TimeDelta::seconds(seconds));
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.run(u64::from(minutes) * 60).await?;
        self.clock.advance(TimeDelta::seconds(-seconds));
        self.unsettled = Instant::now();
        self.run((SETTLED.as_secs_f64() * self.setup.speed) as u64)
            .await?;
        let live = self.live().start();
        let began_anew = self.starts != starts;
        self.facts
            .excursion_ends(before, live, self.now(), began_anew);
        Ok(())
    }

    async fn arm(&mut self, moment: Moment) -> Result<(), String> {
        match moment {
            Moment::Now => return self.crash_gateway().await,
            Moment::Disk(operation) => self.platter.arm(operation),
            Moment::Store(request, after) => {
                let rule = Rule::any(1, fuse(&self.gateway_crash, after));
                self.gateway_store.inject(rule.after(usize::from(request)));
            }
            Moment::Api(request, after) => {
                let rule = Rule::any(1, fuse(&self.gateway_crash, after));
                self.api.inject(rule.after(usize::from(request)));
            }
        }
        Ok(())
    }

    /// The gateway starts, as often as systemd would.
    async fn start_gateway(&mut self) -> Result<(), String> {
        for _ in 0..50 {
            match self.try_start_gateway().await {
                Ok(gateway) => {
                    self.gateway = Some(gateway);
                    self.gateway_rough = Instant::now();
                    return Ok(());
                }
                Err(error) if self.platter.is_dead() => {
                    drop(error);
                    self.bury_gateway().await;
                }
                Err(error) => return Err(format!("the gateway does not start: {error:#}")),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err("the gateway does not start".into())
    }

    async fn try_start_gateway(&mut self) -> anyhow::Result<Gateway> {
        let data_dir = self.directory.path().join("data");
        self.starts += 1;
        self.unsettled = Instant::now();
        self.facts.resumes(self.live().start());
        self.facts.found_in_spool();
        self.facts.config(&self.config);
        let s3 = self.gateway_store.s3(&self.keys);
        let stop = CancellationToken::new();
        let feeder = Feeder::start(
            Parts {
                asset: Default::default(),
                vitals: Default::default(),
                config: self.config.clone(),
                naming: NameFormat::default(),
                prefix: PREFIX.to_owned(),
                data_dir: data_dir.clone(),
                tags: tags(),
                source: Box::new(Reader(self.past.clone())),
                bucket: Bucket::new(s3.clone(), BUCKET),
                clock: self.clock.clone(),
                disk: self.platter.mount(),
            },
            stop.clone(),
        )
        .await?;
        let wanted = inference::Config {
            scheduler: SCHEDULER.into(),
            model: plant::MODEL.into(),
            wanted: Wanted::Running,
            tags: self.scheduler_tags().join(", "),
            ..inference::Config::default()
        };
        let target = wanted.target(self.config.cadence, NameFormat::default(), BUCKET, PREFIX);
        let client = self.api.lookout(&self.keys);
        let watcher = Watcher::open(inference::Parts {
            roster: inference::Roster::new(client.clone()),
            client,
            target,
            copy: Some((Bucket::new(s3.clone(), BUCKET), ARCHIVE_PREFIX.into())),
            s3,
            archive: archive(&data_dir),
            poll: POLL,
            clock: self.clock.clone(),
            vitals: Default::default(),
        })
        .await?;
        Ok(Gateway {
            feeder,
            watcher: tokio::spawn(watcher.run(stop.clone())),
            stop,
        })
    }

    fn scheduler_tags(&self) -> Vec<&'static str> {
        let tags = [
            (self.setup.catch_up, "lookoutd:catch-up=on"),
            (self.setup.late_files, "lookoutd:late-files=score"),
        ];
        let wanted = tags.into_iter().filter(|(wanted, _)| *wanted);
        wanted.map(|(_, tag)| tag).collect()
    }

    /// The gateway dies where it is; it starts again when it has been down for as long as it shall.
    async fn crash_gateway(&mut self) -> Result<(), String> {
        self.bury_gateway().await;
        let down = std::mem::take(&mut self.gateway_fate.1);
        tokio::time::sleep(down).await;
        self.start_gateway().await
    }

    async fn bury_gateway(&mut self) {
        self.platter.unplug();
        if let Some(gateway) = self.gateway.take() {
            gateway.watcher.abort();
        }
        // Simulated time passes only when nothing of it blocks any more.
        tokio::time::sleep(Duration::from_millis(2)).await;
        if self.gateway_fate.0 {
            self.platter.lose(&mut self.random);
        } else {
            self.platter.keep();
        }
        self.gateway_rough = Instant::now();
    }

    /// As the daemon does at SIGTERM.
    async fn stop_gateway(&mut self) {
        if let Some(mut gateway) = self.gateway.take() {
            gateway.stop.cancel();
            gateway.feeder.drain(Duration::from_millis(1_500)).await;
            gateway.watcher.abort();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.platter.unplug();
        self.platter.keep();
        self.gateway_rough = Instant::now();
    }

    /// What was ordered for this moment, unless it has crashed meanwhile.
    async fn do_as_ordered(&mut self) -> Result<(), String> {
        let Some((reload, down)) = self.ordered.take() else {
            return Ok(());
        };
        if self.gateway.is_none() || self.platter.is_dead() {
            return Ok(());
        }
        match reload {
            true => self.hand_over().await,
            false => {
                self.stop_gateway().await;
                tokio::time::sleep(down).await;
            }
        }
        self.start_gateway().await
    }

    /// As the daemon does at SIGHUP: what is under way is waited for.
    async fn hand_over(&mut self) {
        if let Some(mut gateway) = self.gateway.take() {
            gateway.stop.cancel();
            gateway.feeder.finish().await;
            gateway.watcher.abort();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.platter.unplug();
        self.platter.keep();
        self.gateway_rough = Instant::now();
    }

    async fn start_service(&mut self) -> Result<(), String> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = lookoutd::service::Config {
            // Simulated outages last as long as they like.
            catch_up_max_age: Duration::from_secs(3660 * 24 * 3600),
            ..service_config(listen, self.directory.path().join("service"), &self.keys)
        };
        let s3 = self.service_store.s3(&self.keys);
        let never = CancellationToken::new();
        let started = Service::start(config, s3, self.clock.clone(), never).await;
        let service = started.map_err(|error| format!("the service does not start: {error}"))?;
        *self.address.lock().map_err(|e| e.to_string())? = Some(service.address());
        self.service = Some(service);
        self.service_rough = Instant::now();
        Ok(())
    }

    /// The service dies where it is, and starts again later.
    async fn crash_service(&mut self) -> Result<(), String> {
        self.stop_service().await;
        let down = std::mem::take(&mut self.service_fate);
        tokio::time::sleep(down).await;
        self.start_service().await
    }

    async fn stop_service(&mut self) {
        if let Ok(mut address) = self.address.lock() {
            *address = None;
        }
        drop(self.service.take());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    /// Somebody else has the scheduler in hand. What the service refuses is not done.
    async fn meddle(&mut self, by: Meddling) {
        self.service_rough = Instant::now();
        if self.service.is_none() {
            return;
        }
        let api = &self.direct;
        match by {
            Meddling::Stop => {
                let stop = api.stop_inference_scheduler();
                drop(stop.inference_scheduler_name(SCHEDULER).send().await);
            }
            Meddling::Start => {
                let start = api.start_inference_scheduler();
                drop(start.inference_scheduler_name(SCHEDULER).send().await);
            }
            Meddling::Delete => {
                let stop = api.stop_inference_scheduler();
                drop(stop.inference_scheduler_name(SCHEDULER).send().await);
                for _ in 0..40 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    let delete = api.delete_inference_scheduler();
                    let deleted = delete.inference_scheduler_name(SCHEDULER).send().await;
                    if deleted.is_ok() {
                        break;
                    }
                }
            }
        }
    }

    /// The wall clock.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }
}

/// A fault that rings for a crash before or after the request is served.
fn fuse(bell: &Arc<Notify>, after: bool) -> Fault {
    let bell = bell.clone();
    let ring: Arc<dyn Fn() + Send + Sync> = Arc::new(move || bell.notify_one());
    if after {
        Fault::After(ring)
    } else {
        Fault::Before(ring)
    }
}
