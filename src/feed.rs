//! The feeder: cutter, spool, ledger, shipper. Samples go in on one side, input files come out in the bucket.
//!
//! Two task loops meet only on disk: the cutter seals windows into the spool, the shipper uploads what is sealed. The
//! ledger records each window's state; [`recover`] reconciles it with the spool at start, so that a crash at any point
//! loses and doubles nothing.

pub mod cutter;
pub use crate::disk;
mod due;
mod entry;
mod ledger;
pub mod shipper;
mod spool;

use std::collections::HashSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{ByteSize, Span};
use crate::signal::{Cadence, RowRule};

pub use crate::vitals::{Conditions, Health, Pulse, Uploads, Vitals};
pub use cutter::{Cut, CutError, Cutter};
pub use due::{CatchUp, Due, Policy, Publish};
pub use entry::{Census, Entry, State};
pub use ledger::{Ledger, LedgerError, Opened, Waiting};
pub use shipper::{Budget, Shipper};
pub use spool::{Found, InputFile, Manifest, Spool, SpoolError, is_of_asset};

/// What is cut, when, and how far back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Window length; the scheduler's `DataUploadFrequency`.
    pub cadence: Cadence,
    /// Which window is cut at a boundary: the one that begins (`ahead`) or the one that has ended (`behind`).
    pub publish: Publish,
    /// Which rows a window has: `(start, end]` (`service`) or `[start, end)` (`notebook`).
    pub rows: RowRule,
    /// Windows of a downtime: `skip` or `backfill`.
    pub catch_up: CatchUp,
    /// The file of a component without a value in a window that has rows: `write` it with empty cells, or `omit` it.
    pub blank: Blank,
    /// How far back missed windows are cut at all.
    pub max_age: Span,
    /// Cutting pauses while the spool's file system has less than this free.
    pub min_free: ByteSize,
    /// Windows of a backlog shipped in a minute, at most.
    pub drain_per_minute: u32,
}

/// What becomes of a component without a value in a window that has rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Blank {
    /// Its file is written with empty cells: the service fills them forward.
    #[default]
    Write,
    /// It has no file: the service fails the execution of the whole machine.
    Omit,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cadence: Cadence::Pt5m,
            publish: Publish::Ahead,
            rows: RowRule::Service,
            catch_up: CatchUp::Skip,
            blank: Blank::Write,
            max_age: Span(Duration::from_secs(24 * 3600)),
            min_free: ByteSize(64 << 20),
            drain_per_minute: 600,
        }
    }
}

/// What [`recover`] found and put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Sealed windows that the ledger did not know.
    pub adopted: usize,
    /// Windows that the store had acknowledged and that were still in the spool.
    pub removed: usize,
    /// Windows recorded as spooled that are not in the spool: due again.
    pub recut: usize,
    /// Windows that were given up and whose files were not set aside yet.
    pub aside: usize,
}

/// Reconciles ledger and spool after a start. The spool is the truth for what is sealed, the ledger for what is shipped.
pub fn recover(spool: &Spool, ledger: &Ledger) -> Result<Recovery, RecoverError> {
    let mut recovery = Recovery::default();
    let sealed = spool.windows()?;
    for window in &sealed {
        let known = ledger.get(window.start())?;
        match known.as_ref().map(|entry| entry.state) {
            Some(state) if state.is_delivered() => {
                spool.remove(window)?;
                recovery.removed += 1;
            }
            Some(State::Skipped | State::Quarantined | State::Empty) => {
                spool.quarantine(window)?;
                recovery.aside += 1;
            }
            Some(State::Spooled) => {}
            _ => {
                let mut entry = Entry::new(window, State::Spooled);
                match spool.manifest(window) {
                    Ok(manifest) => entry.count(&manifest),
                    // Recorded as it is: the shipper sets it aside and has it cut again.
                    Err(SpoolError::Damaged { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                ledger.record(&entry)?;
                recovery.adopted += 1;
            }
        }
    }
    let there: HashSet<_> = sealed.iter().collect();
    for window in ledger.spooled()? {
        if !there.contains(&window) {
            let gone = Some("its spool entry is gone");
            ledger.transition(&window, State::Spooled, State::Due, gone)?;
            recovery.recut += 1;
        }
    }
    Ok(recovery)
}

/// Why ledger and spool could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The spool cannot be read or changed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The ledger cannot be read or changed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// One blocking hop for disk work of a task loop. A panic inside becomes an error of the loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await?)
}
