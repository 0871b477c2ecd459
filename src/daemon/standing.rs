//! Asks the inference API now and then how the scheduler stands that this gateway keeps, for health and the console.
//! It changes nothing: bringing the scheduler to what it shall be is the watcher's work.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_lookoutequipment::Client;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::inference::{Wanted, describe, list_schedulers};
use crate::ops::site::Watched;

/// How often the API is asked, in real time.
const EVERY: Duration = Duration::from_secs(30);

/// Schedulers that are asked for one by one; more are listed.
const ONE_BY_ONE: usize = 8;

/// A scheduler that is kept, and who is told how it stands.
#[derive(Clone)]
pub struct Kept {
    /// Its name.
    pub scheduler: String,
    /// What it is kept as.
    pub wanted: Wanted,
    /// Who is told.
    pub watched: Watched,
}

/// Runs until `shutdown`.
pub async fn watch(client: Client, kept: Vec<Kept>, clock: Clock, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = look_at_all(&client, &kept, &clock) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn look_at_all(client: &Client, kept: &[Kept], clock: &Clock) {
    if kept.len() <= ONE_BY_ONE {
        for one in kept {
            look(client, &one.scheduler, one.wanted, &one.watched, clock).await;
        }
        return;
    }
    match list_schedulers(client, "").await {
        Ok(found) => {
            let found: HashMap<&str, &str> = found
                .iter()
                .filter_map(|one| Some((one.inference_scheduler_name()?, one.status()?.as_str())))
                .collect();
            for one in kept {
                let status = found.get(one.scheduler.as_str()).copied();
                one.watched
                    .seen(&one.scheduler, status, shall(one.wanted), clock.now());
            }
        }
        Err(error) => {
            let error = error.to_string();
            for one in kept {
                one.watched
                    .failed(&one.scheduler, error.clone(), clock.now());
            }
        }
    }
}

/// Asks once.
pub async fn look(
    client: &Client,
    scheduler: &str,
    wanted: Wanted,
    watched: &Watched,
    clock: &Clock,
) {
    match describe(client, scheduler).await {
        Ok(found) => {
            let status = found.as_ref().map(|found| found.status.as_str());
            watched.seen(scheduler, status, shall(wanted), clock.now());
        }
        Err(error) => watched.failed(scheduler, error.to_string(), clock.now()),
    }
}

fn shall(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Stopped => "STOPPED",
        Wanted::Running | Wanted::Observe => "RUNNING",
    }
}
