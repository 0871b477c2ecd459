//! The service against the stores that `run` and `check` meet in [`crate::quirks`]: executions succeed, or fail with the reason
//! that is true, and go on when the quirk is gone. In simulated time, with the whole loop around it.

use std::sync::Mutex;

use super::cases::plain;
use super::ops::Setup;
use super::world::World;
use crate::errors::Errors;
use crate::quirks::{Quirk, Served, quirks};

/// Wall-clock seconds in a second of monotonic time.
const SPEED: f64 = 10.0;
/// Wall-clock seconds until the scheduler has run, of another window, and in which an execution is given up that waits for a
/// store.
const BEGUN: u64 = 8 * 60;
const ANOTHER: u64 = 7 * 60;
const GIVEN_UP: u64 = 24 * 60;

#[test]
fn each_quirk_of_a_store_is_served_through_or_fails_with_its_reason_and_passes() {
    let left = Mutex::new(quirks());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().pop();
                    let Some(quirk) = next else { return };
                    survive(quirk);
                }
            });
        }
    });
}

fn survive(quirk: Quirk) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    // What the watcher says of failed executions is its own tests' matter.
    let errors = Errors::watch();
    let name = quirk.name;
    let survived = runtime.block_on(survives(quirk));
    drop(errors.take());
    runtime.shutdown_background();
    survived.unwrap_or_else(|problem| panic!("{name}: {problem}"));
}

async fn survives(quirk: Quirk) -> Result<(), String> {
    let setup = Setup {
        speed: SPEED,
        ..plain()
    };
    let mut world = World::begin(setup).await?;
    for rule in &quirk.rules {
        world.service_store.inject(rule.clone());
    }
    world.run(BEGUN).await?;
    match quirk.served {
        Served::Succeed => world.run(ANOTHER).await?,
        Served::Fail(part) => {
            world.run(ANOTHER).await?;
            failed(&mut world, part)?;
        }
        Served::FailLate(part) => {
            let early = world.facts.service_executions(i64::MIN)?;
            if !early.iter().any(|one| one.status == "IN_PROGRESS") {
                return Err(format!("nothing waits: {early:?}"));
            }
            world.run(GIVEN_UP).await?;
            failed(&mut world, part)?;
        }
    }
    world.service_store.heal();
    let healed = world.now().timestamp();
    world.run(ANOTHER).await?;
    let executions = world.facts.service_executions(i64::MIN)?;
    let mut after = executions.iter().filter(|one| one.boundary > healed);
    if !after.any(|one| one.status == "SUCCESS") {
        return Err(format!("none has succeeded since: {executions:?}"));
    }
    for one in executions.iter().filter(|one| one.status == "SUCCESS") {
        let results = one.result.as_ref().and_then(|key| world.store.get(key));
        if results.is_none_or(|bytes| bytes.is_empty()) {
            return Err(format!("no results of {one:?}"));
        }
    }
    if matches!(quirk.served, Served::Succeed)
        && let Some(one) = executions.iter().find(|one| one.status == "FAILED")
    {
        return Err(format!("has failed: {one:?}"));
    }
    Ok(())
}

fn failed(world: &mut World, part: &str) -> Result<(), String> {
    let executions = world.facts.service_executions(i64::MIN)?;
    let failed = executions.iter().find(|one| one.status == "FAILED");
    match failed {
        Some(one) if one.reason.contains(part) => Ok(()),
        _ => Err(format!("no {part:?} in {executions:?}")),
    }
}
