//! One window, from the source to the spool and the ledger: blocking, with every input as an argument.
//!
//! Guarantees: a window's files are durable before its state is recorded; what is sealed already, and whole, is recorded as it
//! is, so that a repetition after a crash gives the same bytes.

use chrono::{DateTime, Utc};
use tracing::{debug, warn};

use crate::feed::{
    Blank, Entry, Found, InputFile, Ledger, LedgerError, Manifest, Spool, SpoolError, State,
};
use crate::signal::{Frame, NameFormat, RowRule, Window};
use crate::source::{Reading, Source, SourceError};

/// Why windows after the end of a history that does not loop are skipped.
pub(super) const HISTORY_OVER: &str = "the history is over";

/// Turns one window into a sealed set of input files.
pub struct Cut {
    /// Where samples come from.
    pub source: Box<dyn Source>,
    /// How files are named.
    pub naming: NameFormat,
    /// Key prefix of the input files.
    pub prefix: String,
    /// Which rows a window has.
    pub rows: RowRule,
    /// What becomes of a component without a value.
    pub blank: Blank,
    /// Where sealed windows wait.
    pub spool: Spool,
    /// Where their states are recorded.
    pub ledger: Ledger,
}

/// Why a window could not be cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The spool refused.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl CutError {
    /// What is wrong, with its causes.
    pub fn causes(&self) -> String {
        match self {
            Self::Source(error) => error.causes(),
            error => error.to_string(),
        }
    }

    /// The disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Source(_) => false,
            Self::Spool(error) => error.is_full(),
            Self::Ledger(error) => error.is_full(),
        }
    }
}

impl Cut {
    /// Cuts `window` and returns what is recorded of it; after the end of the history that is a skip. The window's files
    /// are durable before its state is recorded. What is sealed already, and whole, is recorded as it is.
    pub fn cut(&mut self, window: &Window, now: DateTime<Utc>) -> Result<Entry, CutError> {
        if let Some(manifest) = self.spool.sealed(window)? {
            let mut entry = Entry::new(window, State::Spooled);
            entry.count(&manifest);
            return self.settle(window, entry);
        }
        let before = self.position(window)?;
        let reading = self.source.read_at(window, self.rows, before)?;
        let position = reading.position;
        if reading.ended {
            let mut entry = Entry::new(window, State::Skipped);
            entry.reason = Some(HISTORY_OVER.into());
            return self.settle(window, entry);
        }
        if reading.duplicates > 0 {
            warn!(%window, duplicates = reading.duplicates, "duplicate rows: the last one of each time was used");
        }
        if reading.infinite > 0 {
            warn!(%window, infinite = reading.infinite, "infinite values are written as missing");
        }
        let components = reading.frames.len();
        let (files, found) = self.files(window, reading);
        let mut entry = Entry::new(window, State::Empty);
        entry.components = components as u32;
        entry.cut_at = Some(now);
        entry.journal = position.and_then(|position| i64::try_from(position).ok());
        if files.is_empty() {
            let lost = self
                .ledger
                .get(window.start())?
                .filter(|known| known.files > 0);
            if let Some(known) = lost {
                entry.state = State::Quarantined;
                entry.files = known.files;
                entry.reason =
                    Some("its spool entry was lost and the source no longer has its rows".into());
            }
        } else {
            entry.state = State::Spooled;
            entry.count(&self.spool.seal(window, components, found, files, now)?);
        }
        self.settle(window, entry)
    }

    /// Where in the journal a window was read that was cut before and is lost or damaged: what some of its files say already, all of
    /// them must say.
    fn position(&self, window: &Window) -> Result<Option<u64>, CutError> {
        match self.spool.manifest(window) {
            Ok(manifest) => return Ok(manifest.found.journal),
            Err(SpoolError::Damaged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let known = self.ledger.get(window.start())?;
        let position = known.and_then(|known| known.journal);
        Ok(position.and_then(|position| u64::try_from(position).ok()))
    }

    /// Counts what came after its window was cut, and lets the source go what is shipped, of windows before `live`.
    pub fn keep_up(&mut self, live: &Window) {
        let ledger = &self.ledger;
        let waiting = || -> Result<Option<Window>, LedgerError> {
            let spooled = ledger.oldest_spooled(1)?.into_iter();
            Ok(spooled.chain(ledger.oldest_due()?).min())
        };
        match waiting() {
            Ok(oldest) => {
                let before = oldest.map_or(*live, |oldest| oldest.min(*live));
                self.source.release(before.start());
            }
            Err(error) => warn!(%error, "the source keeps what may be shipped already"),
        }
        self.source.late(&mut |late| {
            ledger.count_late(late).unwrap_or_else(|error| {
                warn!(%error, "late samples cannot be counted");
                false
            })
        });
    }

    /// The input files of a window, and what was found beside them. Where others have rows, a component without a value has a
    /// file with empty cells: without it the service would fail the execution of the whole machine.
    fn files(&self, window: &Window, reading: Reading) -> (Vec<(InputFile, Vec<u8>)>, Found) {
        let longest = reading.frames.iter().max_by_key(|frame| frame.rows());
        let times = longest.map(|frame| frame.times.clone()).unwrap_or_default();
        let mut found = Found {
            blank: Vec::new(),
            infinite: reading.infinite as u64,
            doubled: reading.duplicates as u64,
            journal: reading.position,
        };
        let mut files = Vec::with_capacity(reading.frames.len());
        if times.is_empty() {
            return (files, found);
        }
        for frame in &reading.frames {
            let blank = frame.is_blank();
            if blank {
                debug!(%window, component = frame.component, "component has no value");
                found.blank.push(frame.component.clone());
                if self.blank == Blank::Omit {
                    continue;
                }
            }
            files.push(if blank && frame.rows() == 0 {
                self.file(window, &frame.blank_at(&times))
            } else {
                self.file(window, frame)
            });
        }
        (files, found)
    }

    fn file(&self, window: &Window, frame: &Frame) -> (InputFile, Vec<u8>) {
        let mut bytes = Vec::new();
        frame.encode_csv(&mut bytes);
        let name = self.naming.file_name(&frame.component, window.start());
        let file = InputFile {
            component: frame.component.clone(),
            key: format!("{}{name}", self.prefix),
            name,
            bytes: 0,
            sha256: String::new(),
            rows: frame.rows() as u64,
        };
        (file, bytes)
    }

    /// Records what became of a window that was due. One that was given up meanwhile stays so, and what was sealed of it is set
    /// aside.
    fn settle(&self, window: &Window, entry: Entry) -> Result<Entry, CutError> {
        if self.ledger.record(&entry)? {
            return Ok(entry);
        }
        let known = self.ledger.get(window.start())?;
        if let Some(State::Skipped | State::Quarantined) = known.as_ref().map(|known| known.state) {
            self.spool.quarantine(window)?;
        }
        Ok(known.unwrap_or(entry))
    }
}

impl Entry {
    /// Takes the counts of a sealed window.
    pub fn count(&mut self, manifest: &Manifest) {
        self.files = manifest.files.len() as u32;
        self.components = manifest.components;
        self.rows = manifest.rows();
        self.bytes = manifest.bytes();
        self.blank = manifest.found.blank.clone();
        self.infinite = manifest.found.infinite;
        self.doubled = manifest.found.doubled;
        self.journal = manifest
            .found
            .journal
            .and_then(|position| i64::try_from(position).ok());
        self.cut_at = Some(manifest.cut_at);
    }
}
