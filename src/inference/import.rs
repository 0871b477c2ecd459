//! Results of other days, brought into the archive: the `results.jsonl` and `results.csv` folders that the cloud service left.
//!
//! ```text
//!  <anything>/<data start, yyyy-MM-ddTHH:mm:ssZ>/results.jsonl | results.csv ─► archive, keyed by (scheduler, data start)
//! ```
//!
//! Guarantees: a file is taken whole, byte for byte, or refused with its line and the reason, and then nothing of it is
//! kept; what the archive has is never changed; taking a file again changes nothing. Lines of every era are read (contract
//! 5.2), and every one must lie in the window that its folder names. It does not convert: a table that some other program
//! made of results is no results file.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};

use super::archive::{Archive, ArchiveError, Checksum, Kept};
use super::execution::{Execution, ResultObject};
use super::index::{Index, IndexError};
use super::is_name;
use super::result::{Line, Summary, read_results};
use crate::signal::Cadence;

/// The names of results files.
const NAMES: [&str; 2] = ["results.jsonl", "results.csv"];
/// The largest results file: an hour of 300 sensors at a row a second is about 50 MB.
pub const MOST_BYTES: u64 = 256 << 20;

/// A results file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path or key, for messages and to read it.
    pub name: String,
    /// Start of its window.
    pub start: DateTime<Utc>,
}

/// Where imported executions go, and what they are said to be.
#[derive(Debug)]
pub struct Import {
    /// Where they go.
    pub archive: Archive,
    /// Its index; `None` only looks, and writes nothing.
    pub index: Option<Index>,
    /// The scheduler they are kept under.
    pub scheduler: String,
    /// The model they are said to come from.
    pub model: String,
    /// Window length, as far as it is known: see [`cadence_of`].
    pub cadence: Option<Cadence>,
    /// Where they came from.
    pub origin: String,
}

/// How a file was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in the archive now, or would be.
    Imported {
        /// Lines.
        rows: usize,
        /// Lines with prediction 1.
        anomalous: usize,
    },
    /// The archive had it.
    AlreadyThere,
    /// It is not taken.
    Refused(Refusal),
}

/// Why a file is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The line, from 1, where it is one line's fault.
    pub line: Option<usize>,
    /// What is wrong and what to do.
    pub reason: String,
}

/// What a path says: `None` where it is no results file, a reason where it is one and its folder names no time.
pub fn look(name: &str) -> Option<Result<Found, String>> {
    let mut parts = name.rsplit('/');
    let file = parts.next()?;
    if !NAMES.contains(&file) {
        return None;
    }
    let folder = parts.next().unwrap_or_default();
    Some(match folder_time(folder) {
        Some(start) => Ok(Found {
            name: name.to_owned(),
            start,
        }),
        None => Err(format!(
            "its folder \"{folder}\" is not the start of a window: expected a name like 2021-08-31T12:45:00Z; restore the \
             folder's name as it was in the output prefix"
        )),
    })
}

/// The window length that the starts of many windows tell: the smallest step between two of them, if it is a cadence.
pub fn cadence_of(found: &[Found]) -> Option<Cadence> {
    let mut starts: Vec<_> = found.iter().map(|found| found.start).collect();
    starts.sort_unstable();
    starts.dedup();
    let step = starts.windows(2).map(|pair| pair[1] - pair[0]).min()?;
    Cadence::ALL
        .into_iter()
        .find(|cadence| cadence.duration() == step)
}

/// Colons are kept by S3 and by `aws s3 cp` on Linux; other systems and browsers replace or encode them.
fn folder_time(folder: &str) -> Option<DateTime<Utc>> {
    let plain: String = folder
        .replace("%3A", ":")
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let shape = folder.len() <= 30 && plain.len() == 16 && plain.ends_with('Z');
    let time = NaiveDateTime::parse_from_str(&plain, "%Y%m%dT%H%M%SZ").ok();
    time.filter(|_| shape).map(|time| time.and_utc())
}

impl Import {
    /// What is wrong with the names, before anything is read.
    pub fn problem(&self) -> Option<String> {
        [("--scheduler", &self.scheduler), ("--model", &self.model)]
            .into_iter()
            .find(|(_, name)| !is_name(name))
            .map(|(flag, name)| {
                format!("{flag} \"{name}\": a name has 1 to 200 letters, digits, hyphens and underscores")
            })
    }

    /// Takes one file. An error is the archive's, and ends the import; what is wrong with the file is a refusal.
    pub fn take(
        &self,
        found: &Found,
        bytes: &[u8],
        object: Option<ResultObject>,
        now: DateTime<Utc>,
    ) -> Result<Taken, IndexError> {
        let refuse = |line, reason: String| Ok(Taken::Refused(Refusal { line, reason }));
        let lines = match read_results(bytes) {
            Ok(lines) => lines,
            Err(error) => return refuse(Some(error.line), error.problem),
        };
        let Some(end) = self.end(found.start, &lines) else {
            return match lines.iter().position(|line| !self.holds(found.start, line)) {
                Some(at) => refuse(
                    Some(numbered(bytes, at)),
                    format!(
                        "{} is outside the window that starts at {}{}",
                        lines[at].time.format("%Y-%m-%dT%H:%M:%S"),
                        found.start.format("%Y-%m-%dT%H:%M:%SZ"),
                        match self.cadence {
                            Some(cadence) => format!(
                                " and lasts {cadence}; if windows are longer, give --cadence"
                            ),
                            None => " and lasts an hour at most".to_owned(),
                        }
                    ),
                ),
                None => refuse(None, "it has no line".to_owned()),
            };
        };
        let execution = Execution {
            scheduler: self.scheduler.clone(),
            model: self.model.clone(),
            model_version: None,
            scheduled: None,
            data_start: found.start,
            data_end: end,
            status: "SUCCESS".to_owned(),
            failed_reason: None,
            result: object,
            input: self.origin.clone(),
        };
        let place = Archive::place(&execution);
        let before = match self.archive.record(&place) {
            Ok(before) => before,
            Err(error) => return refuse(None, error.to_string()),
        };
        let summary = Summary::of(bytes).unwrap_or_default();
        if let Some(before) = before.filter(|record| record.execution.status != "FAILED") {
            return match self.archive.results(&before.execution) {
                Ok(Some(kept)) if kept == bytes => {
                    if let Some(index) = &self.index
                        && index.get(&self.scheduler, found.start)?.is_none()
                    {
                        index.archived(&before.execution, &summary, now)?;
                    }
                    Ok(Taken::AlreadyThere)
                }
                Ok(_) => refuse(
                    None,
                    format!(
                        "the archive has other results for {} of {}: they stay; import it under another --scheduler",
                        found.start.format("%Y-%m-%dT%H:%M:%SZ"),
                        self.scheduler
                    ),
                ),
                // Its results were damaged, and these are the ones its record knows.
                Err(ArchiveError::Damaged { .. })
                    if before.results == Some(Checksum::of(bytes)) =>
                {
                    if let Some(index) = &self.index {
                        self.archive.keep(&before.execution, Some(bytes))?;
                        index.archived(&before.execution, &summary, now)?;
                    }
                    Ok(Taken::Imported {
                        rows: summary.rows,
                        anomalous: summary.anomalous,
                    })
                }
                Err(error) => refuse(None, error.to_string()),
            };
        }
        if let Some(index) = &self.index {
            match self.archive.keep(&execution, Some(bytes))? {
                Kept::AlreadyThere => {
                    index.archived(&execution, &summary, now)?;
                    return Ok(Taken::AlreadyThere);
                }
                Kept::Conflict(aside) => {
                    return refuse(
                        None,
                        format!(
                            "the archive has something else for this window: that stays, and this lies in {}",
                            aside.display()
                        ),
                    );
                }
                Kept::Written | Kept::Late => index.archived(&execution, &summary, now)?,
            }
        }
        Ok(Taken::Imported {
            rows: summary.rows,
            anomalous: summary.anomalous,
        })
    }

    /// The end of the window; `None` where a line is outside, or there is none.
    fn end(&self, start: DateTime<Utc>, lines: &[Line]) -> Option<DateTime<Utc>> {
        if lines.is_empty() || lines.iter().any(|line| !self.holds(start, line)) {
            return None;
        }
        let last = lines.iter().map(|line| line.time).max()?;
        let cadence = self.cadence.or_else(|| {
            Cadence::ALL
                .into_iter()
                .find(|cadence| last - start <= cadence.duration())
        })?;
        Some(start + cadence.duration())
    }

    /// The service's windows exclude their start; the preview's documents do not say, so the start is let pass.
    fn holds(&self, start: DateTime<Utc>, line: &Line) -> bool {
        let longest = self.cadence.unwrap_or(Cadence::Pt1h).duration();
        (TimeDelta::zero()..=longest).contains(&(line.time - start))
    }
}

/// The line number of the result at `at`; empty lines are no results but are counted.
fn numbered(bytes: &[u8], at: usize) -> usize {
    bytes
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .nth(at)
        .map_or(at + 1, |(index, _)| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "{\"timestamp\": \"2021-04-03T06:00:00.000000\", \"prediction\": 0}\n";

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn import(directory: &std::path::Path, write: bool) -> Import {
        let archive = Archive::new(directory.join("archive"));
        Import {
            index: write.then(|| Index::open(&archive, at("2026-11-01T00:00:00Z")).unwrap()),
            archive,
            scheduler: "pump".into(),
            model: "imported".into(),
            cadence: None,
            origin: "old/".into(),
        }
    }

    fn found(start: &str) -> Found {
        Found {
            name: format!("old/{start}/results.jsonl"),
            start: at(start),
        }
    }

    fn take(import: &Import, start: &str, text: &str) -> Taken {
        let now = at("2026-11-01T00:00:00Z");
        import
            .take(&found(start), text.as_bytes(), None, now)
            .unwrap()
    }

    #[test]
    fn folders_are_known_with_their_colons_replaced_or_encoded() {
        for folder in [
            "2021-08-31T12:45:00Z",
            "2021-08-31T12_45_00Z",
            "2021-08-31T12-45-00Z",
            "2021-08-31T12%3A45%3A00Z",
            "20210831T124500Z",
        ] {
            let found = look(&format!("a/b/{folder}/results.jsonl")).unwrap();
            assert_eq!(found.unwrap().start, at("2021-08-31T12:45:00Z"), "{folder}");
        }
        for folder in ["output", "2021-13-31T12:45:00Z", "2021-08-31", ""] {
            assert!(look(&format!("{folder}/results.csv")).unwrap().is_err());
        }
        assert_eq!(look("2021-08-31T12:45:00Z/results.parquet"), None);
    }

    #[test]
    fn a_file_is_taken_once_and_other_bytes_never_replace_it() {
        let directory = tempfile::tempdir().unwrap();
        let import = import(directory.path(), true);
        let start = "2021-04-03T05:55:00Z";
        let one = Taken::Imported {
            rows: 1,
            anomalous: 0,
        };
        assert_eq!(take(&import, start, V1), one);
        assert_eq!(take(&import, start, V1), Taken::AlreadyThere);
        let other = V1.replace("\"prediction\": 0", "\"prediction\": 1");
        let Taken::Refused(refusal) = take(&import, start, &other) else {
            panic!("other bytes were taken");
        };
        assert!(refusal.reason.contains("other results"), "{refusal:?}");
        let known = import.index.as_ref().unwrap().range("", None, None);
        let known = known.unwrap();
        assert_eq!(known.len(), 1);
        assert_eq!(known[0].execution.data_end, at("2021-04-03T06:00:00Z"));
        let kept = import.archive.results(&known[0].execution).unwrap();
        assert_eq!(kept.as_deref(), Some(V1.as_bytes()));
    }

    #[test]
    fn a_window_that_failed_is_completed_and_one_the_index_forgot_is_known_again() {
        let directory = tempfile::tempdir().unwrap();
        let import = import(directory.path(), true);
        let mut failed = super::super::archive::tests::execution("2021-04-03T05:55:00Z", "FAILED");
        failed.scheduler = "pump".into();
        import.archive.keep(&failed, None).unwrap();
        let start = "2021-04-03T05:55:00Z";
        assert!(matches!(take(&import, start, V1), Taken::Imported { .. }));
        let index = import.index.as_ref().unwrap();
        let row = index.get("pump", at(start)).unwrap().unwrap();
        assert_eq!(row.execution.status, "SUCCESS");
        assert_eq!(take(&import, start, V1), Taken::AlreadyThere);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_nothing_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let import = import(directory.path(), true);
        let table = "timestamp,prediction,anomaly_score\n2021-04-03 06:00:00,1,0.9\n";
        for (start, text, line, words) in [
            (
                "2021-04-03T05:55:00Z",
                format!("{V1}\nnonsense\n"),
                Some(3),
                "neither",
            ),
            (
                "2021-04-03T07:00:00Z",
                format!("\n{V1}"),
                Some(2),
                "outside the window",
            ),
            ("2021-04-03T05:55:00Z", "\n".to_owned(), None, "no line"),
            (
                "2021-04-03T05:55:00Z",
                table.to_owned(),
                Some(1),
                "prediction",
            ),
            (
                "2021-04-03T05:55:00Z",
                V1.replace('0', "\u{1}"),
                Some(1),
                "",
            ),
        ] {
            let Taken::Refused(refusal) = take(&import, start, &text) else {
                panic!("{text} was taken");
            };
            assert_eq!(refusal.line, line, "{refusal:?}");
            assert!(refusal.reason.contains(words), "{refusal:?}");
        }
        assert!(!directory.path().join("archive/pump").exists());
    }

    #[test]
    fn the_cadence_is_told_by_the_folders_or_by_the_lines() {
        let three = ["10:00:00Z", "10:30:00Z", "10:15:00Z"]
            .map(|time| found(&format!("2022-07-29T{time}")));
        assert_eq!(cadence_of(&three), Some(Cadence::Pt15m));
        assert_eq!(cadence_of(&three[..1]), None);
        let directory = tempfile::tempdir().unwrap();
        let mut import = import(directory.path(), true);
        take(&import, "2021-04-03T05:48:00Z", V1);
        let known = import.index.as_ref().unwrap().range("", None, None);
        assert_eq!(
            known.unwrap()[0].execution.data_end,
            at("2021-04-03T06:03:00Z")
        );
        import.cadence = Some(Cadence::Pt5m);
        let Taken::Refused(refusal) = take(&import, "2021-04-03T05:50:00Z", V1) else {
            panic!("a line after the window was taken");
        };
        assert!(refusal.reason.contains("--cadence"), "{refusal:?}");
    }

    #[test]
    fn a_look_changes_nothing_and_a_name_cannot_leave_the_archive() {
        let directory = tempfile::tempdir().unwrap();
        let mut import = import(directory.path(), false);
        assert!(matches!(
            take(&import, "2021-04-03T05:55:00Z", V1),
            Taken::Imported { .. }
        ));
        assert!(!directory.path().join("archive").exists());
        assert_eq!(import.problem(), None);
        for name in ["../x", "/etc", "a/b", "", "a\0b", ".."] {
            import.scheduler = name.into();
            assert!(import.problem().is_some(), "{name:?}");
        }
    }
}
