//! What is wrong in this process, said by the loop that found it: one registry for all of them.
//!
//! A loop raises a trouble where it logs it, and says when it is over. Health shows every trouble as a reason, with the
//! same subject, time, words and remedy, so nothing is an ERROR in the log and green elsewhere. It holds the present,
//! decides nothing, and takes every time as an argument. Whether a reason makes the process unready is a property of
//! its [`Code`], in one table that docs/operating.md repeats.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Serialize, Serializer};

use crate::clock;

/// Whether a reason makes the process unready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gravity {
    /// Windows are not delivered, or not scored, as they should be.
    Blocking,
    /// Somebody should look; the work goes on.
    Attention,
}

macro_rules! codes {
    ($($variant:ident $name:literal $gravity:ident $what:literal;)*) => {
        /// Every kind of reason, the gravest first.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $what] $variant,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// Its stable name, for machines; also the anchor in docs/operating.md.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether it makes the process unready.
            pub const fn gravity(self) -> Gravity {
                match self { $(Self::$variant => Gravity::$gravity,)* }
            }

            /// What it says, in a few words.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$variant => $what,)* }
            }
        }
    };
}

codes! {
    StateUnreadable "state-unreadable" Blocking "The ledger, the archive's index or the service's state cannot be used";
    LoopStalled "loop-stalled" Blocking "A loop has ended, or does not look at its work";
    StoreRefuses "store-refuses" Blocking "The store refuses uploads";
    StoreUnreachable "store-unreachable" Blocking "The store cannot be reached";
    SpoolPaused "spool-paused" Blocking "Cutting is paused, the disk is full";
    SourceFailing "source-failing" Blocking "Windows cannot be cut";
    JournalFailing "journal-failing" Blocking "What inputs bring cannot be kept";
    InputUnreachable "input-unreachable" Blocking "An input is not connected";
    InputRefusing "input-refusing" Blocking "All that an input brings is refused for its time";
    WindowsLate "windows-late" Blocking "Windows are not delivered";
    ClockStepped "clock-stepped" Blocking "The machine's clock was stepped";
    ClockOffset "clock-offset" Blocking "The machine's clock differs from the store's";
    ClockSuspect "clock-suspect" Blocking "A window of a time to come is recorded";
    NothingCut "nothing-cut" Blocking "No window was cut";
    SourceSilent "source-silent" Blocking "The last windows had no row";
    CredentialsExpire "credentials-expire" Blocking "Credentials were not renewed";
    SchedulerUnreachable "scheduler-unreachable" Blocking "The inference API cannot be asked";
    SchedulerGone "scheduler-gone" Blocking "The inference scheduler is not there";
    SchedulerNotRunning "scheduler-not-running" Blocking "The inference scheduler is not what it shall be";
    SchedulerRefused "scheduler-refused" Blocking "The inference scheduler cannot be made or changed";
    SchedulerDiffers "scheduler-differs" Attention "The inference scheduler is set up otherwise than configured";
    InputIncomplete "input-incomplete" Attention "An input does not bring all that it should";
    ResultsUnreadable "results-unreadable" Attention "Results cannot be read";
    ResultsMissing "results-missing" Attention "Results of executions are gone";
    ArchiveBehind "archive-behind" Attention "Executions wait to be archived";
    ArchiveDiffers "archive-differs" Attention "The archive or its copy holds something else";
    ArchiveDamaged "archive-damaged" Attention "A record of the archive is damaged";
    WindowsQuarantined "windows-quarantined" Attention "Windows are set aside";
    StateReplaced "state-replaced" Attention "A damaged file of this process's state is set aside, another was begun";
    AssetLeft "asset-left" Attention "An asset that has left the tag list has windows that are not delivered";
    WindowsUnscored "windows-unscored" Attention "Windows were delivered and never scored";
    SourceGap "source-gap" Attention "The last window had fewer rows than usual";
    ComponentsBlank "components-blank" Attention "A component had no value in the last window";
    HistoryOver "history-over" Attention "The history is over";
    ExecutionMissing "execution-missing" Attention "An execution did not come";
    ExecutionsFailing "executions-failing" Attention "The last executions failed";
    RetentionHeld "retention-held" Attention "A large deletion from the embedded store waits for somebody";
    StoreDamaged "store-damaged" Attention "An object in the embedded store cannot be read as it was stored";
    ModelUnusable "model-unusable" Attention "A model's file is missing or cannot be used";
    JobsFailing "jobs-failing" Attention "Background jobs of the service cannot go on";
    NotificationsFailing "notifications-failing" Attention "Notifications are not told";
    AdminUnavailable "admin-unavailable" Attention "Console, metrics and health are not served";
    ConfigurationRefused "configuration-refused" Attention "A new configuration was refused";
    NobodyWorks "nobody-works" Attention "A console looks at what a stopped daemon left";
    AnomalyActive "anomaly-active" Attention "A machine is anomalous";
}

/// What only the loops of an asset find wrong.
const OF_LINE: [Code; 11] = [
    Code::StoreRefuses,
    Code::StoreUnreachable,
    Code::SpoolPaused,
    Code::SourceFailing,
    Code::SchedulerRefused,
    Code::SchedulerDiffers,
    Code::ResultsUnreadable,
    Code::ResultsMissing,
    Code::ArchiveBehind,
    Code::ComponentsBlank,
    Code::HistoryOver,
];

/// What only a watcher finds wrong, with the scheduler that it keeps.
const OF_WATCHER: [Code; 5] = [
    Code::SchedulerRefused,
    Code::SchedulerDiffers,
    Code::ResultsUnreadable,
    Code::ResultsMissing,
    Code::ArchiveBehind,
];

/// What a reason is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Subject {
    /// The asset; empty where the tag list names none, and where it is no asset's.
    pub asset: String,
    /// A scheduler, a window, a loop, a file; empty where it is the whole process.
    pub thing: String,
}

/// Something that does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind.
    pub code: Code,
    /// What it is about.
    pub subject: Subject,
    /// Since when: the thing's own time where it has one.
    pub since: DateTime<Utc>,
    /// What was said.
    pub text: String,
    /// What somebody must do.
    pub remedy: Cow<'static, str>,
    /// It is expected to pass: no reason before it has lasted this long.
    pub after: TimeDelta,
    /// What was set aside for somebody to look at; it is over when that is gone.
    pub aside: Option<PathBuf>,
}

/// The troubles of all loops, or those of one asset: what a handle of an asset raises is about that. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    all: Arc<Mutex<BTreeMap<(Code, Subject), Trouble>>>,
    /// Empty: all of the process.
    asset: Arc<str>,
}

impl Code {
    /// The code of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// Whether it makes the process unready.
    pub fn is_blocking(self) -> bool {
        self.gravity() == Gravity::Blocking
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Trouble {
    /// A trouble of the whole process.
    pub fn new(
        code: Code,
        since: DateTime<Utc>,
        text: impl Into<String>,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            code,
            subject: Subject::default(),
            since,
            text: text.into(),
            remedy: remedy.into(),
            after: TimeDelta::zero(),
            aside: None,
        }
    }

    /// It is about this.
    pub fn about(mut self, thing: impl Into<String>) -> Self {
        self.subject.thing = thing.into();
        self
    }

    /// It is about a file that was set aside, and lasts until somebody takes that away.
    pub fn aside(mut self, path: &Path) -> Self {
        self.subject.thing = path.display().to_string();
        self.aside = Some(path.to_owned());
        self
    }

    /// It is no reason before it has lasted this long.
    pub fn after(mut self, patience: TimeDelta) -> Self {
        self.after = patience;
        self
    }
}

impl Troubles {
    /// Those of the asset of this name.
    pub fn of(&self, asset: &str) -> Self {
        Self {
            all: self.all.clone(),
            asset: asset.into(),
        }
    }

    /// Something does not work. One of the same code and thing that goes on keeps its beginning and takes the latest
    /// words.
    pub fn raise(&self, mut trouble: Trouble) {
        let mut troubles = self.lock();
        if trouble.subject.asset.is_empty() {
            trouble.subject.asset = self.asset.to_string();
        }
        let key = (trouble.code, trouble.subject.clone());
        if let Some(known) = troubles.get(&key) {
            trouble.since = trouble.since.min(known.since);
        }
        troubles.insert(key, trouble);
    }

    /// It works again.
    pub fn over(&self, code: Code, thing: &str) {
        self.lock().remove(&(code, self.subject(thing)));
    }

    /// All of one code are over.
    pub fn all_over(&self, code: Code) {
        self.lock()
            .retain(|(known, subject), _| *known != code || !self.is_of(subject));
    }

    /// Whatever was wrong with the asset is no matter any more: it has left.
    pub fn left(&self) {
        let is_own = |code: &Code, subject: &Subject| {
            // Without a name it has the process's own troubles as well.
            subject.asset == *self.asset && (!self.asset.is_empty() || OF_LINE.contains(code))
        };
        self.lock()
            .retain(|(code, subject), _| !is_own(code, subject));
    }

    /// The asset's scheduler is another, or kept otherwise: what was wrong before is no matter, and is found again where it lasts.
    pub fn kept_otherwise(&self) {
        self.lock().retain(|(code, subject), _| {
            subject.asset != *self.asset || !OF_WATCHER.contains(code)
        });
    }

    /// Whether the machine's clock, which shows `now`, has been set. Where it has not, that is a trouble of the process, whoever
    /// finds it, and over for all as soon as one sees that it has.
    pub fn clock_is_set(&self, now: DateTime<Utc>) -> bool {
        let process = self.of("");
        let set = clock::is_set(now);
        match set {
            true => process.over(Code::ClockSuspect, ""),
            false => process.raise(Trouble::new(
                Code::ClockSuspect,
                now,
                format!(
                    "this machine's clock shows {}: it has not been set, and no window is cut or executed until it is",
                    now.to_rfc3339_opts(SecondsFormat::Secs, true)
                ),
                "let the machine synchronise its time: timedatectl or chronyc tracking tell how it goes",
            )),
        }
        set
    }

    /// Those about files that are gone are over.
    pub fn taken_away(&self, is_there: impl Fn(&Path) -> bool) {
        self.lock()
            .retain(|_, trouble| trouble.aside.as_deref().is_none_or(&is_there));
    }

    /// The trouble of that code and thing.
    pub fn get(&self, code: Code, thing: &str) -> Option<Trouble> {
        self.lock().get(&(code, self.subject(thing))).cloned()
    }

    /// What does not work now, the gravest first.
    pub fn now(&self) -> Vec<Trouble> {
        let troubles = self.lock();
        let own = troubles
            .values()
            .filter(|trouble| self.is_of(&trouble.subject));
        own.cloned().collect()
    }

    fn subject(&self, thing: &str) -> Subject {
        Subject {
            asset: self.asset.to_string(),
            thing: thing.to_owned(),
        }
    }

    fn is_of(&self, subject: &Subject) -> bool {
        self.asset.is_empty() || subject.asset == *self.asset
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Code, Subject), Trouble>> {
        self.all
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn a_trouble_keeps_its_beginning_and_takes_the_latest_words() {
        let troubles = Troubles::default();
        let say = |seconds, text: &str| {
            troubles.raise(
                Trouble::new(Code::ResultsUnreadable, at(seconds), text, "allow it").about("s"),
            );
        };
        say(10, "denied");
        say(70, "refused");
        let known = troubles.get(Code::ResultsUnreadable, "s").unwrap();
        assert_eq!((known.since, known.text.as_str()), (at(10), "refused"));
        troubles.over(Code::ResultsUnreadable, "t");
        assert_eq!(troubles.now().len(), 1);
        troubles.over(Code::ResultsUnreadable, "s");
        assert!(troubles.now().is_empty());
    }

    #[test]
    fn what_was_set_aside_is_a_trouble_until_somebody_takes_it_away() {
        let troubles = Troubles::default();
        let aside = Path::new("archive/1.json.damaged");
        troubles.raise(Trouble::new(Code::ArchiveDamaged, at(1), "t", "r").aside(aside));
        troubles.raise(Trouble::new(Code::ArchiveBehind, at(1), "t", "r").about("s"));
        troubles.taken_away(|_| true);
        assert_eq!(troubles.now().len(), 2);
        troubles.taken_away(|path| path != aside);
        let left = troubles.now();
        assert_eq!((left.len(), left[0].code), (1, Code::ArchiveBehind));
    }

    #[test]
    fn each_asset_has_its_own_troubles_and_the_process_sees_all() {
        let troubles = Troubles::default();
        let (one, other) = (troubles.of("pump-1"), troubles.of("pump-2"));
        for asset in [&one, &other] {
            asset.raise(Trouble::new(Code::SourceFailing, at(1), "t", "r"));
        }
        one.over(Code::SourceFailing, "");
        assert_eq!((one.now().len(), other.now().len()), (0, 1));
        one.all_over(Code::SourceFailing);
        assert_eq!(troubles.now()[0].subject.asset, "pump-2");
        other.left();
        assert!(troubles.now().is_empty());
    }

    #[test]
    fn what_was_wrong_with_a_scheduler_is_no_matter_once_another_is_kept() {
        let troubles = Troubles::default();
        let (one, other) = (troubles.of("pump-1"), troubles.of("pump-2"));
        for asset in [&one, &other] {
            asset.raise(Trouble::new(Code::SchedulerRefused, at(1), "t", "r").about("old"));
            asset
                .raise(Trouble::new(Code::ResultsUnreadable, at(1), "t", "r").about("old results"));
            asset.raise(Trouble::new(Code::StoreRefuses, at(1), "t", "r"));
        }
        one.kept_otherwise();
        assert_eq!(one.now().len(), 1);
        assert_eq!(one.now()[0].code, Code::StoreRefuses);
        assert_eq!(other.now().len(), 3);
    }

    #[test]
    fn a_clock_that_is_not_set_is_one_trouble_of_the_process_and_over_for_all() {
        let troubles = Troubles::default();
        let (one, other) = (troubles.of("pump-1"), troubles.of("pump-2"));
        for (nth, asset) in [&one, &other, &troubles].into_iter().enumerate() {
            assert!(!asset.clock_is_set(at(nth as i64 * 60)));
        }
        let said = troubles.now();
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].subject, Subject::default());
        // Somebody who did not say it sees that it is set.
        assert!(other.clock_is_set("2026-03-01T00:00:00Z".parse().unwrap()));
        assert!(troubles.now().is_empty());
    }

    #[test]
    fn every_code_is_in_the_table_of_the_documents() {
        let operating =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md"))
                .unwrap();
        let rows: Vec<(&str, &str)> = operating
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `")?.split(" | ");
                let code = cells.next()?.trim_end_matches('`');
                Some((code, cells.next()?))
            })
            .filter(|(_, gravity)| ["blocking", "attention"].contains(gravity))
            .collect();
        let codes: Vec<(&str, &str)> = Code::ALL
            .iter()
            .map(|code| {
                let gravity = match code.gravity() {
                    Gravity::Blocking => "blocking",
                    Gravity::Attention => "attention",
                };
                (code.name(), gravity)
            })
            .collect();
        assert_eq!(rows, codes);
        for code in Code::ALL {
            assert_eq!(Code::named(code.name()), Some(*code));
        }
    }
}
