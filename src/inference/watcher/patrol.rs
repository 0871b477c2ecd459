//! The patrol: a part of the archive is compared with its checksums in every round, all of it at the start and once a day.
//!
//! A damaged file is set aside and its execution opened in the index, so that fetching brings it back as it brought it in.

use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{error, warn};

use super::{Failure, Watcher, blocking};
use crate::inference::archive::{ArchiveError, Checked};
use crate::vitals::{Code, Trouble};

/// Records checked in a round: some thousand small files, a second on a slow card.
const AT_ONCE: usize = 500;
/// How long after the start of one patrol the next begins.
const AGAIN: TimeDelta = TimeDelta::days(1);

/// How far the patrol has come.
#[derive(Debug, Default)]
pub(super) struct Patrol {
    /// Days still to be checked, the newest last.
    days: Vec<PathBuf>,
    next: Option<DateTime<Utc>>,
    /// Not the first of this process: results that were lost for good have been told.
    repeated: bool,
}

impl Watcher {
    /// Checks the next part.
    pub(super) async fn patrol(&mut self) -> Result<(), Failure> {
        let now = self.parts.clock.now();
        let archive = self.parts.archive.clone();
        if self.patrol.days.is_empty() {
            if self.patrol.next.is_some_and(|next| now < next) {
                return Ok(());
            }
            self.patrol.repeated = self.patrol.next.is_some();
            let listing = archive.clone();
            self.patrol.days = blocking(move || listing.days()).await??;
            self.patrol.next = Some(now + AGAIN);
        }
        let mut days = std::mem::take(&mut self.patrol.days);
        let (days, damaged) = blocking(move || -> Result<_, ArchiveError> {
            let (mut checked, mut damaged) = (0, Vec::new());
            while checked < AT_ONCE
                && let Some(day) = days.pop()
            {
                for record in archive.check_day(&day)? {
                    checked += 1;
                    if record.damage.is_some() {
                        damaged.push(record);
                    }
                }
            }
            Ok((days, damaged))
        })
        .await??;
        self.patrol.days = days;
        for record in damaged {
            self.mend(record).await?;
        }
        Ok(())
    }

    /// Sets a damaged file aside and has it fetched again.
    async fn mend(&self, damaged: Checked) -> Result<(), Failure> {
        let Some((path, what)) = damaged.damage else {
            return Ok(());
        };
        let (archive, file) = (self.parts.archive.clone(), path.clone());
        let aside = blocking(move || archive.set_aside(&file)).await??;
        if aside.is_none() && self.patrol.repeated {
            return Ok(());
        }
        let place = aside.unwrap_or_default();
        let (path, aside) = (path.display(), place.display());
        let own = damaged.scheduler == self.parts.target.scheduler;
        let Some(start) = damaged.data_start.filter(|_| own) else {
            error!(
                %path, what, %aside,
                "an archived record is damaged and set aside; this gateway does not watch its scheduler: import it again with `lookoutd results import`"
            );
            let trouble = Trouble::new(
                Code::ArchiveDamaged,
                self.parts.clock.now(),
                format!("the archived record {path} is damaged, {what}; it lies at {aside}"),
                "import it again with lookoutd results import, then remove the file",
            );
            self.pulse.troubles().raise(trouble.aside(&place));
            return Ok(());
        };
        warn!(%path, what, %aside, "an archived record is damaged: set aside, its results are fetched again");
        let (index, scheduler) = (self.index.clone(), damaged.scheduler);
        let known = damaged.record.map(|record| record.execution);
        blocking(move || index.reopen(&scheduler, start, known.as_ref())).await??;
        Ok(())
    }
}
