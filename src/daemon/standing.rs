//! Asks the inference API now and then how the scheduler stands that this gateway keeps, for health and the console.
//! It changes nothing: bringing the scheduler to what it shall be is the watcher's work.

use std::time::Duration;

use aws_sdk_lookoutequipment::Client;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::inference::{Wanted, describe};
use crate::ops::site::Watched;

/// How often the API is asked, in real time.
const EVERY: Duration = Duration::from_secs(30);

/// Runs until `shutdown`.
pub async fn watch(
    client: Client,
    scheduler: String,
    wanted: Wanted,
    watched: Watched,
    clock: Clock,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = look(&client, &scheduler, wanted, &watched, &clock) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
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
            let shall = match wanted {
                Wanted::Stopped => "STOPPED",
                Wanted::Running | Wanted::Observe => "RUNNING",
            };
            watched.seen(scheduler, status, shall, clock.now());
        }
        Err(error) => watched.failed(scheduler, error.to_string(), clock.now()),
    }
}
