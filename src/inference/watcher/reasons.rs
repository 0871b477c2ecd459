//! What the watcher's rounds found wrong, as troubles of this process: the same that it logs, with subject and remedy.

use std::path::Path;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::absent::Missing;
use super::{Watcher, blocking};
use crate::inference::Execution;
use crate::inference::api::Advice;
use crate::inference::ensure::EnsureError;
use crate::vitals::{Code, Trouble};

impl Watcher {
    /// The scheduler is what it shall be, or why not.
    pub(super) fn ensured(&self, error: Option<&EnsureError>) {
        let troubles = self.pulse.troubles();
        let name = &self.parts.target.scheduler;
        for code in [Code::SchedulerDiffers, Code::SchedulerRefused] {
            let is_so = error.is_some_and(|error| {
                // An API that does not answer is asked by who looks at the scheduler, and told by that.
                let differs = matches!(error, EnsureError::WrongModel { .. });
                match code {
                    Code::SchedulerDiffers => differs,
                    _ => !differs && matches!(error.advice(), Advice::Hold(_)),
                }
            });
            if !is_so {
                troubles.over(code, name);
            }
        }
        let Some(error) = error else {
            return;
        };
        let code = match error {
            EnsureError::WrongModel { .. } => Code::SchedulerDiffers,
            _ => Code::SchedulerRefused,
        };
        if let Advice::Hold(remedy) = error.advice() {
            let now = self.parts.clock.now();
            troubles.raise(Trouble::new(code, now, error.to_string(), remedy).about(name.as_str()));
        }
    }

    /// Finished executions are archived, or why not.
    pub(super) fn fetched(&self, error: Option<&(String, Advice)>) {
        let troubles = self.pulse.troubles();
        let name = &self.parts.target.scheduler;
        let Some((error, advice)) = error else {
            return troubles.over(Code::ResultsUnreadable, name);
        };
        let place = format!(
            "s3://{}/{}",
            self.parts.target.output_bucket, self.parts.target.output_prefix
        );
        let trouble = Trouble::new(
            Code::ResultsUnreadable,
            self.parts.clock.now(),
            format!("results of {name} are not archived: {error}"),
            match advice {
                Advice::Hold(_) => format!(
                    "let the gateway's credentials read the output prefix: s3:GetObject on {place}*"
                ),
                Advice::Retry => format!("check the network and the store of {place}"),
            },
        )
        .about(name.as_str());
        let patience = match advice {
            Advice::Hold(_) => chrono::TimeDelta::zero(),
            Advice::Retry => chrono::TimeDelta::seconds(60),
        };
        troubles.raise(trouble.after(patience));
    }

    /// Results objects are not there.
    pub(super) fn told_missing(&self, missing: Option<&Missing>) {
        let troubles = self.pulse.troubles();
        let name = &self.parts.target.scheduler;
        let Some(missing) = missing else {
            return troubles.over(Code::ResultsMissing, name);
        };
        let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let target = &self.parts.target;
        let trouble = Trouble::new(
            Code::ResultsMissing,
            missing.first,
            format!(
                "the results of {} executions of {name} are not there, from {} to {}",
                missing.windows,
                text(missing.first),
                text(missing.last)
            ),
            format!(
                "see what removes objects below s3://{}/{}, such as a lifecycle rule, or who changed the output prefix; a day after \
                 its window an execution is archived without its results",
                target.output_bucket, target.output_prefix
            ),
        );
        troubles.raise(trouble.about(name.as_str()));
    }

    /// The archive has other bytes for a window than came now.
    pub(super) fn told_conflict(&self, execution: &Execution, aside: &Path) {
        let trouble = Trouble::new(
            Code::ArchiveDiffers,
            execution.data_end,
            format!(
                "the archive holds something else for {} of {}: that stays, what came lies at {}",
                execution.window(),
                execution.scheduler,
                aside.display()
            ),
            "find out who wrote the results twice; keep the right file, then remove the one set aside",
        );
        self.pulse.troubles().raise(trouble.aside(aside));
    }

    /// The copy in S3 has other bytes for a window than the archive.
    pub(super) fn told_copy_differs(&self, execution: &Execution, object: &str) {
        let trouble = Trouble::new(
            Code::ArchiveDiffers,
            execution.data_end,
            format!(
                "{object}, the copy of {} of {}, holds something else than the archive: it is left alone",
                execution.window(),
                execution.scheduler
            ),
            "give each gateway an inference.archive_prefix of its own; this reason goes with the next start",
        );
        self.pulse.troubles().raise(trouble.about(object));
    }

    /// Archived results are damaged, and their object is gone.
    pub(super) fn told_lost(&self, execution: &Execution) {
        let file = self
            .parts
            .archive
            .results_file(&execution.scheduler, execution.data_start);
        let aside = file.with_added_extension("damaged");
        let trouble = Trouble::new(
            Code::ArchiveDamaged,
            execution.data_end,
            format!(
                "the results of {} of {} are damaged and their object is gone: what is left lies at {}",
                execution.window(),
                execution.scheduler,
                aside.display()
            ),
            "put the file back from a copy of the archive, if there is one, then remove the one set aside",
        );
        self.pulse.troubles().raise(trouble.aside(&aside));
    }

    /// The newest results can be read, or why not.
    pub(super) fn told_unreadable(&self, execution: &Execution, error: Option<&str>) {
        let (troubles, name) = (self.pulse.troubles(), &execution.scheduler);
        let thing = format!("{name} results");
        let Some(error) = error else {
            return troubles.over(Code::ResultsUnreadable, &thing);
        };
        let trouble = Trouble::new(
            Code::ResultsUnreadable,
            execution.data_end,
            format!(
                "the results of {} of {name} are no results: {error}; they are archived as they are",
                execution.window()
            ),
            "look at what writes below the output prefix beside the service; this reason goes with the next results",
        );
        troubles.raise(trouble.about(thing));
    }

    /// Finished executions wait to be archived for longer than it takes.
    pub(super) async fn told_behind(&self) {
        let (index, name) = (self.index.clone(), self.parts.target.scheduler.clone());
        let target = &self.parts.target;
        let long = TimeDelta::hours(1).max(target.cadence.duration() * 3);
        let before = self.parts.clock.now() - long;
        let open = blocking(move || index.open_before(&name, before)).await;
        let (troubles, name) = (self.pulse.troubles(), target.scheduler.as_str());
        // An index that cannot be read is told where it is used.
        let Some((count, oldest)) = open.ok().and_then(Result::ok).flatten() else {
            return troubles.over(Code::ArchiveBehind, name);
        };
        let trouble = Trouble::new(
            Code::ArchiveBehind,
            oldest,
            format!(
                "{count} executions of {name} are not archived, the oldest of {}",
                oldest.to_rfc3339_opts(SecondsFormat::Secs, true)
            ),
            "see the log for what fails; it goes on by itself when the store and the disk answer",
        );
        // A history that is listed for the first time takes a while.
        troubles.raise(trouble.about(name).after(TimeDelta::zero()));
    }
}
