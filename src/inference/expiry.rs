//! Records of the archive that were kept for long enough.
//!
//! Guarantees: rows of the index go before their files, so that none stands for a file that is gone; what is archived stays
//! whole or goes whole. A record is as old as its window. Nothing goes where that would be all there is: then it is the clock
//! that is ahead.

use std::io;
use std::path::Path;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

use super::{Archive, Index, IndexError};

/// Deletes what is archived of windows that began before `before`; how many records went.
pub fn expire(archive: &Archive, before: DateTime<Utc>) -> Result<u64, IndexError> {
    let Some(index) = Index::open_existing(archive)? else {
        return Ok(0);
    };
    if !index.forget(before)? {
        index.remember(before)?;
        return Ok(0);
    }
    let mut gone = 0;
    walk(archive.root(), &[], before, &mut gone)
        .map_err(|source| {
            super::ArchiveError::Io {
                path: archive.root().to_owned(),
                source,
            }
            .into()
        })
        .map(|()| gone)
}

/// SCHEDULER/YYYY/MM/DD/HHMMSS.json, .jsonl and .late.jsonl
fn walk(
    directory: &Path,
    names: &[String],
    before: DateTime<Utc>,
    gone: &mut u64,
) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let names: Vec<String> = names.iter().cloned().chain([name]).collect();
        if names.len() < 5 {
            if !entry.file_type()?.is_dir()
                || (names.len() == 4 && day(&names).is_none_or(|day| day > before.date_naive()))
            {
                continue;
            }
            walk(&entry.path(), &names, before, gone)?;
            if names.len() > 1 {
                // Only where nothing is left in it.
                let _ = std::fs::remove_dir(entry.path());
            }
        } else if start(&names).is_some_and(|start| start < before) {
            std::fs::remove_file(entry.path())?;
            *gone += u64::from(names[4].ends_with(".json"));
        }
    }
    Ok(())
}

fn day(names: &[String]) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(&names[1..4].join("-"), "%Y-%m-%d").ok()
}

fn start(names: &[String]) -> Option<DateTime<Utc>> {
    let (time, kind) = names[4].split_once('.')?;
    if !["json", "jsonl", "late.jsonl"].contains(&kind) {
        return None;
    }
    let text = format!("{} {time}", names[1..4].join("-"));
    let parsed = NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H%M%S").ok()?;
    Some(parsed.and_utc())
}
