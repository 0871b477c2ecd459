//! The one judgement of a running process: every part asks the same snapshot, taken here and not older than half a second.
//!
//! Guarantees: one look at a time; where the disk hangs, whoever asks is told so after some seconds instead of waiting for
//! it, and the hanging look is not begun again beside itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::site::{Observer, Site, Snapshot};
use crate::feed::blocking;

/// Whoever asks within this sees the same snapshot.
const FRESH: Duration = Duration::from_millis(500);
/// A look that takes longer is told of, not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What runs in this process, and what is said of it. Cheap to clone.
#[derive(Clone)]
pub struct Judgement(Arc<Inner>);

struct Inner {
    sites: watch::Receiver<Option<Site>>,
    observer: Observer,
    latest: Mutex<Option<(Instant, Arc<Snapshot>)>>,
    looking: Arc<tokio::sync::Mutex<()>>,
}

impl From<watch::Receiver<Option<Site>>> for Judgement {
    fn from(sites: watch::Receiver<Option<Site>>) -> Self {
        Self(Arc::new(Inner {
            sites,
            observer: Observer::default(),
            latest: Mutex::default(),
            looking: Arc::default(),
        }))
    }
}

impl Judgement {
    /// What runs in this process; `None` while it starts.
    pub fn site(&self) -> Option<Site> {
        self.0.sites.borrow().clone()
    }

    /// What all parts say now; `None` while the process starts.
    pub async fn snapshot(&self) -> anyhow::Result<Option<Arc<Snapshot>>> {
        let Some(site) = self.site() else {
            return Ok(None);
        };
        if let Some(snapshot) = self.fresh() {
            return Ok(Some(snapshot));
        }
        let began = Instant::now();
        let looking = tokio::time::timeout(PATIENCE, self.0.looking.clone().lock_owned()).await;
        let Ok(looking) = looking else {
            return Ok(Some(Arc::new(stuck(&site))));
        };
        if let Some(snapshot) = self.fresh() {
            return Ok(Some(snapshot));
        }
        let (inner, observed) = (self.0.clone(), site.clone());
        let look = tokio::spawn(async move {
            let watching = inner.clone();
            let looked = blocking(move || watching.observer.look(&observed)).await;
            let snapshot = looked.map(Arc::new);
            if let Ok(snapshot) = &snapshot {
                *lock(&inner.latest) = Some((Instant::now(), snapshot.clone()));
            }
            drop(looking);
            snapshot
        });
        let left = PATIENCE.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, look).await {
            Ok(looked) => Ok(Some(looked??)),
            Err(_) => Ok(Some(Arc::new(stuck(&site)))),
        }
    }

    fn fresh(&self) -> Option<Arc<Snapshot>> {
        lock(&self.0.latest)
            .as_ref()
            .filter(|(at, _)| at.elapsed() < FRESH)
            .map(|(_, snapshot)| snapshot.clone())
    }
}

/// What can be said without the disk.
fn stuck(site: &Site) -> Snapshot {
    let mut snapshot = Snapshot::without_parts(site);
    snapshot.failures.push(format!(
        "ledger and executions were not read within {} s: the disk hangs, or is very slow",
        PATIENCE.as_secs()
    ));
    snapshot
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
