//! Asks the inference API now and then how the scheduler stands that this gateway keeps, for health and the console.
//! It changes nothing: bringing the scheduler to what it shall be is the watcher's work.

use std::time::Duration;

use aws_sdk_lookoutequipment::Client;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::inference::{Roster, Wanted, describe};
use crate::ops::site::Watched;

/// How often the API is asked, in real time.
const EVERY: Duration = Duration::from_secs(30);

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
pub async fn watch(roster: Roster, kept: Vec<Kept>, clock: Clock, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = look_at_all(&roster, &kept, &clock) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn look_at_all(roster: &Roster, kept: &[Kept], clock: &Clock) {
    match roster.all(kept.len(), EVERY / 2).await {
        None => {
            for one in kept {
                let client = roster.client();
                look(client, &one.scheduler, one.wanted, &one.watched, clock).await;
            }
        }
        Some(Ok(found)) => {
            for one in kept {
                let status = found.get(&one.scheduler).map(|brief| brief.status.as_str());
                one.watched
                    .seen(&one.scheduler, status, shall(one.wanted), clock.now());
            }
        }
        Some(Err(error)) => {
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
