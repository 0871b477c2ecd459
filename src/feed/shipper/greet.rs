//! The first meeting with the store, as long as it takes: how it treats conditional creates, and what it has already if the
//! ledger is new. Nothing is uploaded before; what is cut meanwhile waits in the spool.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use tracing::{debug, info, warn};

use super::super::{Entry, LedgerError, Pulse, State, blocking};
use super::backoff::Backoff;
use super::{LOOK_AGAIN, Rebuild, Shipper, is_unset};
use crate::s3::{Bucket, Conditional, S3Error};
use crate::signal::Window;

impl Shipper {
    /// Meets the store: finds out how it treats conditional creates, and learns what it has if the ledger is new.
    pub(super) async fn greet(&mut self, pulse: &Pulse) -> anyhow::Result<()> {
        let mut backoff = Backoff::urgent();
        let mut waits = false;
        loop {
            pulse.beat();
            let shared = self.shared.clone();
            let sealed = shared.sealed.notified();
            let live = shared.publish.live(shared.clock.now(), shared.cadence);
            let result = async {
                let conditional = self.bucket.probe(&self.prefix).await?;
                let found = match &self.rebuild {
                    Some(rebuild) => {
                        list_shipped(&self.bucket, rebuild, self.shared.clock.now()).await?
                    }
                    None => Vec::new(),
                };
                Ok((conditional, found))
            }
            .await;
            if is_unset(&self.bucket) {
                if !waits {
                    warn!(
                        "this machine's clock is years from the store's: nothing is uploaded until it is set"
                    );
                    waits = true;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            if waits && result.is_err() {
                // It was signed by the clock as it was before.
                waits = false;
                continue;
            }
            match result {
                Ok((conditional, found)) => {
                    self.shared.recovered();
                    match conditional {
                        Conditional::Honoured => {
                            debug!(
                                bucket = self.bucket.name(),
                                "the store honours conditional creates"
                            );
                        }
                        Conditional::Ignored => warn!(
                            bucket = self.bucket.name(),
                            "the store ignores If-None-Match: keys are looked up before each upload, and two writers may race"
                        ),
                        Conditional::Refused => warn!(
                            bucket = self.bucket.name(),
                            "the store refuses If-None-Match: keys are looked up before each upload, and two writers may race"
                        ),
                    }
                    let Some(rebuild) = &self.rebuild else {
                        return Ok(());
                    };
                    let (learnt, asset) = (rebuild.learnt.clone(), rebuild.asset.clone());
                    let (ledger, count) = (self.shared.ledger.clone(), found.len());
                    blocking(move || -> Result<(), LedgerError> {
                        for entry in found {
                            if ledger.get(entry.start)?.is_none() {
                                ledger.record(&entry)?;
                            }
                        }
                        // It is whole once that of the last asset is known.
                        match learnt.and(asset) {
                            true => ledger.rebuilt(),
                            false => Ok(()),
                        }
                    })
                    .await??;
                    if count > 0 {
                        info!(windows = count, "ledger rebuilt from the bucket");
                    }
                    return Ok(());
                }
                Err(error) => {
                    self.shared.trouble(&error);
                    // A new live window is worth an attempt; those of a backlog only wait.
                    tokio::select! {
                        () = tokio::time::sleep(backoff.after(error.disposition())) => {}
                        () = shared.next_live(&live, sealed) => {}
                    }
                }
            }
        }
    }
}

/// The windows that have begun and whose files are in the bucket, by their keys. One that lacks components is due again:
/// whether they had no rows or were never uploaded only a cut can tell, and what is there already stays as it is.
async fn list_shipped(
    bucket: &Bucket,
    rebuild: &Rebuild,
    now: DateTime<Utc>,
) -> Result<Vec<Entry>, S3Error> {
    let mut found: BTreeMap<Window, u32> = Default::default();
    let since = now.checked_sub_signed(rebuild.max_age).unwrap_or(now);
    let since = Window::containing(since, rebuild.cadence).start();
    for component in &rebuild.tags.components {
        let first = format!(
            "{}{}",
            rebuild.prefix,
            rebuild.naming.file_name(&component.name, since)
        );
        let stem = format!(
            "{}{}{}",
            rebuild.prefix, component.name, rebuild.naming.delimiter
        );
        for key in bucket.list(&stem, &first, |_| true).await? {
            let name = &key[rebuild.prefix.len()..];
            let names = rebuild.tags.components.iter().map(|c| c.name.as_str());
            if let Ok((owner, start)) = rebuild.naming.parse(names, name)
                && owner == component.name
                && let Ok(window) = Window::new(start, rebuild.cadence)
                && window.start() <= now
            {
                *found.entry(window).or_default() += 1;
            }
        }
    }
    let components = rebuild.tags.components.len() as u32;
    Ok(found
        .into_iter()
        .map(|(window, files)| {
            let (state, reason) = if files < components {
                (State::Due, "found in the bucket, incomplete")
            } else {
                (State::Shipped, "found in the bucket")
            };
            let mut entry = Entry::new(&window, state);
            if state == State::Shipped {
                entry.files = files;
            }
            entry.components = components;
            entry.reason = Some(reason.into());
            entry
        })
        .collect())
}
