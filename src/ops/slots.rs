//! How many connections a listener has at once, and who leaves when it is full.
//!
//! Clients keep connections open that they do not use, so a listener that only waited for a free one would make new clients
//! wait until an old one's idle time is over. Here somebody who comes to a full listener makes the longest connected one
//! leave: at once if it is idle, after its answer if not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How long one that was asked to leave may take before the next is asked too.
const NEXT: Duration = Duration::from_millis(20);
/// How long one that was asked to leave may take in all. Somebody who reads an answer slowly enough would stay for ever.
pub const LEAVE: Duration = Duration::from_secs(10);
/// How long a new connection stays in any case.
const AT_LEAST: Duration = Duration::from_millis(200);

/// The connections of one listener.
#[derive(Clone, Debug)]
pub struct Slots {
    free: Arc<Semaphore>,
    full: Arc<Notify>,
}

/// One connection's; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    _permit: Option<OwnedSemaphorePermit>,
    full: Arc<Notify>,
}

impl Slots {
    /// So many at once.
    pub fn new(most: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most)),
            full: Arc::default(),
        }
    }

    /// A slot for somebody who waits to be accepted; while there is none, those who have one are asked to leave, one by one.
    pub async fn take(&self) -> Slot {
        let slot = |permit: Option<_>| Slot {
            _permit: permit,
            full: self.full.clone(),
        };
        loop {
            // Never closed, so an error cannot come.
            let permit = self.free.clone().acquire_owned();
            match tokio::time::timeout(NEXT, permit).await {
                Ok(permit) => return slot(permit.ok()),
                Err(_) => self.full.notify_one(),
            }
        }
    }
}

impl Slot {
    /// Until this one, connected for longer than the others that wait here, is to leave.
    pub async fn wanted_back(&self) {
        tokio::time::sleep(AT_LEAST).await;
        self.full.notified().await;
    }
}
