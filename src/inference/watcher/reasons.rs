//! What the watcher's rounds found wrong, as troubles of this process: the same that it logs, with subject and remedy.

use super::Watcher;
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
}
