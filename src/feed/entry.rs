//! What is recorded of a window: its state, its counts, and why. Plain values; the ledger keeps them.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use crate::signal::{Cadence, Window};

/// The recorded state of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// To be cut: backlog after a downtime.
    Due,
    /// Sealed in the spool, on its way.
    Spooled,
    /// The store has every component's file.
    Shipped,
    /// The store has every file, but not every component had values.
    Partial,
    /// The store has every component's file, some of them written by the gateway's partner.
    Covered,
    /// The source had no row in the window.
    Empty,
    /// Given up by rule, with the reason.
    Skipped,
    /// Set aside for the operator, with the reason.
    Quarantined,
}

/// What the ledger knows of a window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// The asset; empty where the tag list names none.
    #[serde(skip_serializing_if = "str_is_empty")]
    pub asset: String,
    /// Start of the window, UTC.
    #[serde(serialize_with = "utc_seconds")]
    pub start: DateTime<Utc>,
    /// End of the window, UTC. A skipped entry may span many windows.
    #[serde(serialize_with = "utc_seconds")]
    pub end: DateTime<Utc>,
    /// Its cadence.
    pub cadence: Cadence,
    /// Its state.
    pub state: State,
    /// Why, for skipped, quarantined and partial windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Files cut.
    pub files: u32,
    /// Components of the tag list.
    pub components: u32,
    /// Data rows.
    pub rows: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Components without a value in the window, in the tag list's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blank: Vec<String>,
    /// Values that were infinite, and are written as missing.
    #[serde(skip_serializing_if = "is_zero")]
    pub infinite: u64,
    /// Rows that were dropped because a later one has the same time.
    #[serde(skip_serializing_if = "is_zero")]
    pub doubled: u64,
    /// Where in the journal of a live source it was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<i64>,
    /// When it was cut.
    #[serde(serialize_with = "optional_utc_seconds")]
    pub cut_at: Option<DateTime<Utc>>,
    /// When the store had acknowledged all of it.
    #[serde(serialize_with = "optional_utc_seconds")]
    pub shipped_at: Option<DateTime<Utc>>,
    /// Failed attempts to ship.
    pub attempts: u32,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Part of the reason of a record that was made ahead of its time, until that comes.
pub(super) const AHEAD: &str = "recorded while the clock was ahead";

/// Counts by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Census {
    /// Backlog still to be cut.
    pub due: u64,
    /// In the spool.
    pub spooled: u64,
    /// Complete in the store.
    pub shipped: u64,
    /// In the store, with components missing.
    pub partial: u64,
    /// In the store, partly by the gateway's partner.
    pub covered: u64,
    /// Without rows.
    pub empty: u64,
    /// Given up (ranges, not windows).
    pub skipped: u64,
    /// Set aside.
    pub quarantined: u64,
}

impl Census {
    /// These and others.
    pub fn and(&self, other: &Census) -> Census {
        Census {
            due: self.due + other.due,
            spooled: self.spooled + other.spooled,
            shipped: self.shipped + other.shipped,
            partial: self.partial + other.partial,
            covered: self.covered + other.covered,
            empty: self.empty + other.empty,
            skipped: self.skipped + other.skipped,
            quarantined: self.quarantined + other.quarantined,
        }
    }
}

// === impl Entry ===

impl Entry {
    /// A record of `window` in `state`, with nothing counted yet.
    pub fn new(window: &Window, state: State) -> Self {
        Self {
            asset: String::new(),
            start: window.start(),
            end: window.end(),
            cadence: window.cadence(),
            state,
            reason: None,
            files: 0,
            components: 0,
            rows: 0,
            bytes: 0,
            blank: Vec::new(),
            infinite: 0,
            doubled: 0,
            journal: None,
            cut_at: None,
            shipped_at: None,
            attempts: 0,
            last_error: None,
        }
    }
}

impl Entry {
    /// What became of its files, in words.
    pub fn told(&self) -> String {
        let more = [&self.reason, &self.last_error].into_iter().flatten();
        more.fold(self.state.describe().to_owned(), |said, more| {
            format!("{said}: {more}")
        })
    }

    /// Whether it was recorded while the clock was ahead, and its time has not come.
    pub fn is_ahead(&self) -> bool {
        let reason = self.reason.as_deref();
        reason.is_some_and(|reason| reason.contains(AHEAD))
    }
}

// === impl State ===

impl State {
    /// Every state.
    pub const ALL: [State; 8] = [
        State::Due,
        State::Spooled,
        State::Shipped,
        State::Partial,
        State::Covered,
        State::Empty,
        State::Skipped,
        State::Quarantined,
    ];

    /// What people call it, where they are shown it: its name but for one.
    pub fn word(self) -> &'static str {
        match self {
            State::Quarantined => "set aside",
            other => other.name(),
        }
    }

    /// The state's name, as stored and given to programs.
    pub fn name(self) -> &'static str {
        match self {
            State::Due => "due",
            State::Spooled => "spooled",
            State::Shipped => "shipped",
            State::Partial => "partial",
            State::Covered => "covered",
            State::Empty => "empty",
            State::Skipped => "skipped",
            State::Quarantined => "quarantined",
        }
    }

    /// The state in words, for people.
    pub fn describe(self) -> &'static str {
        match self {
            State::Due => "to be cut",
            State::Spooled => "sealed, waiting for upload",
            State::Shipped => "complete in the store",
            State::Partial => "in the store, components missing or without values",
            State::Covered => "complete in the store, partly by the partner",
            State::Empty => "no rows in the source",
            State::Skipped => "given up by rule",
            State::Quarantined => "set aside for an operator",
        }
    }

    /// Whether the store has the window.
    pub fn is_delivered(self) -> bool {
        matches!(self, State::Shipped | State::Partial | State::Covered)
    }

    /// The state with this name, or of which people say this; a hyphen stands for a blank.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.replace(' ', "-");
        let mut all = Self::ALL.into_iter();
        all.find(|state| state.name() == name || state.word().replace(' ', "-") == name)
    }
}

fn str_is_empty(text: &str) -> bool {
    text.is_empty()
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn utc_seconds<S: serde::Serializer>(
    time: &DateTime<Utc>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn optional_utc_seconds<S: serde::Serializer>(
    time: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true)),
        None => serializer.serialize_none(),
    }
}
