//! All schedulers of an API at a glance: where many are kept, one listing serves everybody who looks, and only so many ask at
//! once. A thousand watchers must not ask the API a thousand times for what one page says.
//!
//! Guarantees: what is told is at most half of `inference.poll` old, and never older than the caller allows; an API that does
//! not let schedulers be listed is asked for each by its name, as where there are few.
//! Deliberately absent: what a scheduler is to be; `ensure` knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_lookoutequipment::Client;
use aws_sdk_lookoutequipment::types::InferenceSchedulerSummary;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tracing::info;

use super::api::{Advice, ApiError};
use super::scheduler::{Described, list_schedulers};

/// Schedulers that are asked for one by one; more are listed.
const ONE_BY_ONE: usize = 8;
/// Watchers whose requests are under way at the same time.
const AT_ONCE: usize = 8;

/// What is shared by those who look at the schedulers of one API. Cheap to clone.
#[derive(Clone)]
pub struct Roster(Arc<Inner>);

struct Inner {
    client: Client,
    /// How many schedulers are looked at.
    seats: AtomicUsize,
    /// The API does not let them be listed.
    refused: AtomicBool,
    listed: Mutex<Option<(Instant, Listing)>>,
    gate: Semaphore,
}

type Listing = Result<Arc<HashMap<String, Brief>>, ApiError>;

/// What a listing says of a scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brief {
    /// Its ARN, which another of the same name does not have.
    pub arn: String,
    /// Its model.
    pub model: String,
    /// PENDING, RUNNING, STOPPING or STOPPED.
    pub status: String,
    /// `DataUploadFrequency`.
    pub frequency: String,
    /// `DataDelayOffsetInMinutes`.
    pub delay_minutes: i64,
}

/// One who looks at a scheduler.
pub struct Seat(Roster);

impl Roster {
    /// For the schedulers that `client` reaches.
    pub fn new(client: Client) -> Self {
        Self(Arc::new(Inner {
            client,
            seats: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
            listed: Mutex::new(None),
            gate: Semaphore::new(AT_ONCE),
        }))
    }

    /// The API.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// A place for one who looks at a scheduler as long as it is held.
    pub fn seat(&self) -> Seat {
        self.0.seats.fetch_add(1, Ordering::Relaxed);
        Seat(self.clone())
    }

    /// Waits for its turn to ask.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.0.gate.acquire().await.ok()
    }

    /// All schedulers as they were within the last `age`; `None` where `count` of them are better asked for by their names.
    pub async fn all(
        &self,
        count: usize,
        age: Duration,
    ) -> Option<Result<Arc<HashMap<String, Brief>>, ApiError>> {
        if count <= ONE_BY_ONE || self.0.refused.load(Ordering::Relaxed) {
            return None;
        }
        let mut listed = self.0.listed.lock().await;
        if let Some((at, listing)) = &*listed
            && at.elapsed() < age
        {
            return Some(listing.clone());
        }
        let listing = list_schedulers(&self.0.client, "").await.map(|found| {
            let briefs = found.iter().filter_map(|summary| {
                let name = summary.inference_scheduler_name()?.to_owned();
                Some((name, Brief::from(summary)))
            });
            Arc::new(briefs.collect())
        });
        if let Err(error) = &listing
            && matches!(error.advice(), Advice::Hold(_))
            && error.failure.status.is_some()
        {
            info!(%error, "schedulers may not be listed: each is asked for by its name");
            self.0.refused.store(true, Ordering::Relaxed);
            return None;
        }
        *listed = Some((Instant::now(), listing.clone()));
        Some(listing)
    }
}

impl Seat {
    /// The scheduler of that name as it was within the last `age`, `Ok(None)` where there is none of that name; `None` where it
    /// is better asked for by its name.
    pub async fn look(
        &self,
        scheduler: &str,
        age: Duration,
    ) -> Option<Result<Option<Brief>, ApiError>> {
        let seats = self.0.0.seats.load(Ordering::Relaxed);
        let all = self.0.all(seats, age).await?;
        Some(all.map(|all| all.get(scheduler).cloned()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.seats.fetch_sub(1, Ordering::Relaxed);
    }
}

impl From<&InferenceSchedulerSummary> for Brief {
    fn from(summary: &InferenceSchedulerSummary) -> Self {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Self {
            arn: text(summary.inference_scheduler_arn()),
            model: text(summary.model_name()),
            status: text(summary.status().map(|status| status.as_str())),
            frequency: text(
                summary
                    .data_upload_frequency()
                    .map(|frequency| frequency.as_str()),
            ),
            delay_minutes: summary.data_delay_offset_in_minutes().unwrap_or(0),
        }
    }
}

impl From<&Described> for Brief {
    fn from(described: &Described) -> Self {
        Self {
            arn: described.arn.clone(),
            model: described.model.clone(),
            status: described.status.clone(),
            frequency: described.frequency.clone(),
            delay_minutes: described.delay_minutes,
        }
    }
}
