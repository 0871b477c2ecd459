//! Looking after the archive: every record compared with its checksums, day by day, and damaged files set aside.
//!
//! Guarantees: a damaged file is renamed, never removed, and never over one that was set aside before; whatever else belongs
//! to its record stays in its place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDateTime, Utc};

use super::{Archive, ArchiveError, Checksum, Record, at, entries};
use crate::inference::execution::Execution;

/// A record and what was found of it.
#[derive(Debug)]
pub struct Checked {
    /// Whose it is.
    pub scheduler: String,
    /// Its data start; `None` where the file's name is none.
    pub data_start: Option<DateTime<Utc>>,
    /// The record, where that file is whole.
    pub record: Option<Record>,
    /// The damaged file and what is wrong with it.
    pub damage: Option<(PathBuf, String)>,
}

impl Archive {
    /// The directories of days that hold records, by scheduler and time.
    pub fn days(&self) -> Result<Vec<PathBuf>, ArchiveError> {
        let mut days = Vec::new();
        for scheduler in entries(&self.root)? {
            for year in entries(&scheduler)? {
                for month in entries(&year)? {
                    days.extend(entries(&month)?.into_iter().filter(|day| day.is_dir()));
                }
            }
        }
        Ok(days)
    }

    /// The records of a day, each checked.
    pub fn check_day(&self, day: &Path) -> Result<Vec<Checked>, ArchiveError> {
        let mut found = Vec::new();
        for path in entries(day)? {
            let is_record = path
                .extension()
                .is_some_and(|extension| extension == "json");
            let Some(place) = path
                .strip_prefix(&self.root)
                .ok()
                .and_then(|path| path.to_str())
                .and_then(|path| path.strip_suffix(".json"))
                .filter(|_| is_record)
            else {
                continue;
            };
            let (scheduler, time) = place.split_once('/').unwrap_or((place, ""));
            let mut checked = Checked {
                scheduler: scheduler.to_owned(),
                data_start: NaiveDateTime::parse_from_str(
                    time.trim_end_matches(".late"),
                    "%Y/%m/%d/%H%M%S",
                )
                .ok()
                .map(|start| start.and_utc()),
                record: None,
                damage: None,
            };
            let results = self.record(place).and_then(|record| match record {
                Some(record) => {
                    let checked_results = self.checked(place, &record);
                    checked.record = Some(record);
                    checked_results.map(drop)
                }
                None => Ok(()),
            });
            match results {
                Ok(()) => {}
                Err(ArchiveError::Damaged { path, what }) => checked.damage = Some((path, what)),
                Err(error) => return Err(error),
            }
            found.push(checked);
        }
        Ok(found)
    }

    /// Every record, by scheduler and time. A damaged one comes as its error.
    pub fn walk(&self) -> Result<Vec<Result<Record, ArchiveError>>, ArchiveError> {
        let mut found = Vec::new();
        for day in self.days()? {
            for checked in self.check_day(&day)? {
                match (checked.damage, checked.record) {
                    (Some((path, what)), _) => {
                        found.push(Err(ArchiveError::Damaged { path, what }))
                    }
                    (None, Some(record)) => found.push(Ok(record)),
                    (None, None) => {}
                }
            }
        }
        Ok(found)
    }

    /// Sets a damaged file aside; where it lies now, `None` if it was not there.
    pub fn set_aside(&self, damaged: &Path) -> Result<Option<PathBuf>, ArchiveError> {
        let mut aside = damaged.with_added_extension("damaged");
        let mut copy = 1;
        while aside.symlink_metadata().is_ok() {
            aside = damaged.with_added_extension(format!("damaged-{copy}"));
            copy += 1;
        }
        match fs::rename(damaged, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map_err(at(damaged)).map(|()| Some(aside)),
        }
    }

    /// What is left of archived results, and what their record, if that is whole, says they must be. Results whose record is
    /// damaged are taken as they are.
    pub fn left_of(&self, execution: &Execution) -> (Option<Vec<u8>>, Option<Checksum>) {
        let place = Self::place(execution);
        let late = format!("{place}.late");
        for place in [late, place] {
            let record = self.record(&place).ok().flatten();
            let Some(record) = record else {
                if let Ok(bytes) = fs::read(self.root.join(format!("{place}.jsonl"))) {
                    return (Some(bytes), None);
                }
                continue;
            };
            // A failure says nothing of the results that came late.
            if record.execution.status == execution.status {
                let bytes = self.checked(&place, &record).ok().flatten();
                return (bytes, record.results);
            }
        }
        (None, None)
    }

    /// The results in a file of an archive, if they are what the record beside it says.
    pub fn read_checked(results: &Path) -> Result<Vec<u8>, ArchiveError> {
        let missing = |path: &Path| ArchiveError::Damaged {
            path: path.to_owned(),
            what: "is gone".into(),
        };
        // <root>/<scheduler>/<yyyy>/<MM>/<dd>/<HHmmss>.jsonl
        let root = results.ancestors().nth(5).ok_or_else(|| missing(results))?;
        let archive = Archive::new(root);
        let place = results.strip_prefix(root).ok().and_then(Path::to_str);
        let place = place
            .and_then(|place| place.strip_suffix(".jsonl"))
            .ok_or_else(|| missing(results))?;
        let record = archive
            .record(place)?
            .ok_or_else(|| missing(&results.with_extension("json")))?;
        archive
            .checked(place, &record)?
            .ok_or_else(|| missing(results))
    }
}
