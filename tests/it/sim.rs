//! The simulation: random sequences of operations over the whole loop, checked against a reference model after each.
//!
//! A seed is a setup and a list of operations. A run that breaks an invariant is printed with its seed, then made shorter
//! as long as it still breaks one, and printed as a list that can be run again:
//!
//! ```text
//!  LOOKOUTD_SIM_SEEDS=200 cargo test --test it sim::           200 seeds instead of a few
//!  LOOKOUTD_SIM_SEED=17   cargo test --test it sim::           only this seed
//!  LOOKOUTD_SIM_OPS='[...]' LOOKOUTD_SIM_SEED=17 cargo ...     this list, with that seed's setup
//!  LOOKOUTD_SIM_DAYS=30   cargo test --test it sim::           so many simulated days for each seed
//!  LOOKOUTD_FULL=1        cargo test --test it sim::           twice as many seeds
//! ```

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lookoutd::feed::State;

use crate::errors::Errors;
use facts::show;
use ops::{Op, Setup, generate};
use world::World;

mod cases;
mod disk;
mod end;
mod facts;
mod ops;
mod plant;
mod quirks;
mod store;
mod wire;
mod world;

/// Monotonic time within which a live window is in the store when nothing stands in its way.
const LIVE_BOUND: Duration = Duration::from_secs(6);
/// Monotonic time within which an execution has ended when nothing stands in its way.
const EXECUTION_BOUND: Duration = Duration::from_secs(20);
/// How long after a trouble nothing is expected of the live window; its uploads may still hang.
const AFTER_TROUBLE: Duration = Duration::from_secs(12);
/// The same for executions: their requests may still hang, and missed windows are run first.
const AFTER_SERVICE_TROUBLE: Duration = Duration::from_secs(200);

/// What a run came to.
#[derive(Debug, Default)]
struct Tally {
    windows: usize,
    executions: usize,
    requests: u64,
}

/// What was broken, and after which operation.
#[derive(Debug)]
struct Broken {
    at: usize,
    what: String,
}

impl Broken {
    /// The words without what differs from run to run.
    fn kind(&self) -> String {
        self.what.chars().filter(|c| c.is_alphabetic()).collect()
    }
}

/// Runs a list of operations to its end.
fn simulate(setup: Setup, ops: &[Op]) -> Result<Tally, Broken> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let errors = Errors::watch();
    let at = Mutex::new(0);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut world = World::begin(setup).await?;
            for (index, op) in ops.iter().enumerate() {
                *at.lock().expect("a number") = index;
                step(&mut world, op, &errors).await?;
            }
            *at.lock().expect("a number") = ops.len();
            let check = async |world: &mut World| check(world, errors.take());
            world.converge(check).await?;
            Ok(Tally {
                windows: world.facts.sealed().len(),
                executions: world.facts.service_executions(i64::MIN)?.len(),
                requests: world.gateway_store.requests()
                    + world.service_store.requests()
                    + world.api.requests(),
            })
        })
    }));
    // What is left of it must not be taken for an ERROR that nobody expected.
    runtime.shutdown_background();
    drop(errors.take());
    let at = at.into_inner().expect("a number");
    match result {
        Ok(Ok(tally)) => Ok(tally),
        Ok(Err(what)) => Err(Broken { at, what }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let what = format!("a panic: {}", text.unwrap_or_default());
            Err(Broken { at, what })
        }
    }
}

/// One operation and everything that must hold after it.
async fn step(world: &mut World, op: &Op, errors: &Errors) -> Result<(), String> {
    let (wall, mono) = (world.now(), tokio::time::Instant::now());
    let passes = matches!(op, Op::Run { .. });
    world.note_troubles(passes);
    let latest = world.facts.latest();
    let scheduler = world.facts.scheduler()?;
    world.apply(op).await?;
    world.note_troubles(passes);
    let known: BTreeMap<i64, State> = known(world, wall);
    check(world, errors.take())?;
    if !passes {
        return Ok(());
    }
    let speed = world.setup.speed;
    let crossed = |start: i64| {
        let after = start as f64 - wall.timestamp_micros() as f64 / 1e6;
        mono + Duration::from_secs_f64(after.max(0.0) / speed)
    };
    let now = tokio::time::Instant::now();
    let mut start = world.live().start().timestamp();
    while start > wall.timestamp() {
        let boundary = crossed(start);
        if boundary > world.gateway_rough + AFTER_TROUBLE
            && boundary + LIVE_BOUND < now
            && !known.contains_key(&start)
        {
            live_window_was_in_time(world, start)?;
        }
        if boundary > world.service_rough + AFTER_SERVICE_TROUBLE
            && boundary + EXECUTION_BOUND < now
            && start > latest.timestamp() + 300
            && let Some((uuid, status)) = &scheduler
            && status == "RUNNING"
            && world.facts.scheduler()?.as_ref() == scheduler.as_ref()
        {
            match world.facts.status(uuid, start) {
                Some("SUCCESS" | "FAILED") => {}
                other => return Err(format!("the execution at {} is {other:?}", show(start))),
            }
        }
        start -= 300;
    }
    Ok(())
}

/// The windows that were recorded before the operation, from its beginning on: a clock that goes again where it was.
fn known(world: &World, wall: chrono::DateTime<chrono::Utc>) -> BTreeMap<i64, State> {
    let from = wall.timestamp();
    let to = world.now().timestamp();
    (from / 300..=to / 300)
        .map(|window| window * 300)
        .filter_map(|start| Some((start, world.facts.state(start)?)))
        .collect()
}

fn live_window_was_in_time(world: &mut World, start: i64) -> Result<(), String> {
    let bound = (LIVE_BOUND.as_secs_f64() * world.setup.speed) as i64 + 1;
    let state = world.facts.state(start);
    let entries = world.facts.entries(150)?;
    let entry = entries
        .iter()
        .find(|entry| entry.start.timestamp() == start);
    let shipped = entry.and_then(|entry| entry.shipped_at);
    match state {
        Some(State::Shipped | State::Partial) => match shipped {
            Some(shipped) if shipped.timestamp() - start > bound => Err(format!(
                "live window {} was shipped {} s after it began",
                show(start),
                shipped.timestamp() - start
            )),
            _ => Ok(()),
        },
        Some(State::Empty | State::Quarantined) => Ok(()),
        other => Err(format!(
            "live window {} is {other:?} although nothing stood in its way",
            show(start)
        )),
    }
}

fn check(world: &mut World, errors: Vec<String>) -> Result<(), String> {
    if world.platter.crowded() > 0 {
        return Err("a cut began with less than feed.min_free".into());
    }
    let now = world.now();
    let sealed = world.platter.sealed();
    let (past, store) = (world.past.clone(), world.store.clone());
    world.facts.clock_is_settled = world.has_seen_the_clock();
    world.facts.check(now, sealed, &past, &store, errors)
}

/// Makes a failing list shorter: halves, quarters and so on are left out as long as it fails.
fn shrink(setup: Setup, ops: Vec<Op>) -> (Vec<Op>, Broken) {
    let mut best = ops;
    let mut broken = Broken {
        at: 0,
        what: String::new(),
    };
    if let Err(first) = simulate(setup, &best) {
        best.truncate(first.at + 1);
        broken = first;
    }
    let began = Instant::now();
    let mut chunk = best.len().div_ceil(2);
    while chunk > 0 && began.elapsed() < Duration::from_secs(120) {
        let mut from = 0;
        let mut shorter = false;
        while from < best.len() {
            let mut fewer = best.clone();
            fewer.drain(from..(from + chunk).min(best.len()));
            match simulate(setup, &fewer) {
                // Another invariant is another case.
                Err(still) if still.kind() == broken.kind() => {
                    (best, broken, shorter) = (fewer, still, true);
                }
                _ => from += chunk,
            }
        }
        if !shorter || chunk > 1 {
            chunk /= 2;
        }
    }
    (best, broken)
}

/// Runs seeds on two threads; the first that fails is shrunk and told.
fn run(seeds: Vec<u64>, minutes: u32) {
    let began = Instant::now();
    let (next, count) = (AtomicU64::new(0), seeds.len());
    let failed: Mutex<Option<u64>> = Mutex::new(None);
    let (windows, executions) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst) as usize;
                    if at >= count || failed.lock().expect("a seed").is_some() {
                        return;
                    }
                    let seed = seeds[at];
                    let setup = Setup::of(seed);
                    match simulate(setup, &generate(seed, minutes)) {
                        Ok(tally) => {
                            let Tally { windows: cut, executions: run, requests } = tally;
                            windows.fetch_add(cut as u64, Ordering::SeqCst);
                            executions.fetch_add(run as u64, Ordering::SeqCst);
                            eprintln!("seed {seed}: {cut} windows, {run} executions, {requests} requests; {setup:?}");
                        }
                        Err(broken) => {
                            eprintln!(
                                "LOOKOUTD_SIM_SEED={seed} fails at {}: {}",
                                broken.at, broken.what
                            );
                            failed.lock().expect("a seed").get_or_insert(seed);
                        }
                    }
                }
            });
        }
    });
    if let Some(seed) = failed.into_inner().expect("a seed") {
        tell(seed, generate(seed, minutes));
    }
    eprintln!(
        "{count} seeds of {} h: {} windows, {} executions in {:.1} s",
        minutes / 60,
        windows.into_inner(),
        executions.into_inner(),
        began.elapsed().as_secs_f64()
    );
}

fn tell(seed: u64, ops: Vec<Op>) {
    let setup = Setup::of(seed);
    let (shortest, broken) = shrink(setup, ops);
    let list = serde_json::to_string(&shortest).expect("a list");
    panic!(
        "{} (operation {} of {})\n{setup:?}\nLOOKOUTD_SIM_SEED={seed} LOOKOUTD_SIM_OPS='{list}'",
        broken.what,
        broken.at,
        shortest.len()
    );
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_nothing_is_lost_or_doubled_and_everything_converges() {
    let full = crate::skipped::full("half of the seeds, and two thirds of each");
    // A few hours say much; the plain test takes a short time.
    let asked = full || std::env::vars().any(|(name, _)| name.starts_with("LOOKOUTD_SIM_"));
    let usual = if asked { 4 * 60 } else { 80 };
    let minutes = number("LOOKOUTD_SIM_DAYS").map_or(usual, |days| days as u32 * 1_440);
    if let Ok(list) = std::env::var("LOOKOUTD_SIM_OPS") {
        let ops: Vec<Op> =
            serde_json::from_str(&list).expect("LOOKOUTD_SIM_OPS is a list of operations");
        let setup = Setup::of(number("LOOKOUTD_SIM_SEED").unwrap_or(0));
        if let Err(broken) = simulate(setup, &ops) {
            panic!("{} (operation {}) {setup:?}", broken.what, broken.at);
        }
        return;
    }
    if let Some(seed) = number("LOOKOUTD_SIM_SEED") {
        return run(vec![seed], minutes);
    }
    let count = number("LOOKOUTD_SIM_SEEDS").unwrap_or(if full { 8 } else { 4 });
    run((0..count).collect(), minutes);
}
