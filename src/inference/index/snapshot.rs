//! The index as an export reads it: one state of it from beginning to end, row by row, however many there are.

use std::sync::MutexGuard;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};

use super::{Archived, COLUMNS, Index, IndexError, limit, read_row};

/// Which executions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Of this scheduler; of all where it is empty.
    pub scheduler: String,
    /// Whose windows start at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Whose windows start before this time.
    pub to: Option<DateTime<Utc>>,
    /// The newest so many of these.
    pub newest: Option<usize>,
}

/// One state of the index, which does not change while it is looked at.
pub struct Snapshot<'a> {
    connection: MutexGuard<'a, Connection>,
    index: &'a Index,
}

impl Index {
    /// The index as it is now. Whoever writes goes on beside it.
    pub fn snapshot(&self) -> Result<Snapshot<'_>, IndexError> {
        let snapshot = Snapshot {
            connection: self.lock(),
            index: self,
        };
        let begun = snapshot.connection.execute_batch("BEGIN");
        begun.map_err(|source| snapshot.fail(source))?;
        Ok(snapshot)
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        // Nothing was written, so nothing is lost where it cannot be ended.
        let _ = self.connection.execute_batch("ROLLBACK");
    }
}

impl Snapshot<'_> {
    /// How many executions there are, the limit left aside.
    pub fn count(&self, which: &Selection) -> Result<usize, IndexError> {
        let (from, to) = bounds(which);
        let scheduler = self.scheduler(which)?;
        let condition = condition(&scheduler);
        let count: i64 = self
            .connection
            .query_row(
                &format!("SELECT count(*) FROM execution WHERE {condition}"),
                params![scheduler, from, to],
                |row| row.get(0),
            )
            .map_err(|source| self.fail(source))?;
        Ok(count as usize)
    }

    /// Each of them, the oldest first.
    pub fn each<E: From<IndexError>>(
        &self,
        which: &Selection,
        mut with: impl FnMut(Archived) -> Result<(), E>,
    ) -> Result<(), E> {
        let fail = |source| E::from(self.fail(source));
        let skipped = match which.newest {
            Some(newest) => self.count(which)?.saturating_sub(newest),
            None => 0,
        };
        let (from, to) = bounds(which);
        let scheduler = self.scheduler(which)?;
        let condition = condition(&scheduler);
        let mut statement = self
            .connection
            .prepare(&format!(
                "SELECT {COLUMNS} FROM execution WHERE {condition} ORDER BY start_us, scheduler LIMIT -1 OFFSET ?4"
            ))
            .map_err(fail)?;
        let mut rows = statement
            .query(params![scheduler, from, to, limit(skipped)])
            .map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            with(read_row(row).map_err(fail)?)?;
        }
        Ok(())
    }

    /// The scheduler that is asked for; where all are, and there is one, that one: its rows need no sorting.
    fn scheduler(&self, which: &Selection) -> Result<String, IndexError> {
        if !which.scheduler.is_empty() {
            return Ok(which.scheduler.clone());
        }
        let ends: (Option<String>, Option<String>) = self
            .connection
            .query_row(
                "SELECT (SELECT min(scheduler) FROM execution), (SELECT max(scheduler) FROM execution)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(|source| self.fail(source))?;
        Ok(match ends {
            (Some(first), Some(last)) if first == last => first,
            _ => String::new(),
        })
    }

    fn fail(&self, source: rusqlite::Error) -> IndexError {
        IndexError::Sqlite {
            path: self.index.path.clone(),
            source,
        }
    }
}

fn bounds(which: &Selection) -> (i64, i64) {
    let micros =
        |time: Option<DateTime<Utc>>, open| time.map_or(open, |time| time.timestamp_micros());
    (micros(which.from, i64::MIN), micros(which.to, i64::MAX))
}

/// Two, so that SQLite sees that the one needs no sorting.
fn condition(scheduler: &str) -> &'static str {
    if scheduler.is_empty() {
        "?1 = '' AND start_us >= ?2 AND start_us < ?3"
    } else {
        "scheduler = ?1 AND start_us >= ?2 AND start_us < ?3"
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::super::super::{Archive, Execution, Summary};
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + minutes * 60, 0).unwrap()
    }

    fn execution(scheduler: &str, minutes: i64) -> Execution {
        Execution {
            scheduler: scheduler.into(),
            model: "m".into(),
            model_version: None,
            scheduled: None,
            data_start: at(minutes),
            data_end: at(minutes + 5),
            status: "SUCCESS".into(),
            failed_reason: None,
            result: None,
            input: String::new(),
        }
    }

    #[test]
    fn one_state_is_read_from_the_oldest_to_the_newest_whatever_is_written_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(directory.path());
        let index = Index::open(&archive, at(0)).unwrap();
        for (scheduler, minutes) in [("b", 0), ("a", 5), ("b", 5), ("a", 10)] {
            let summary = Summary::default();
            let execution = execution(scheduler, minutes);
            index.archived(&execution, &summary, at(20)).unwrap();
        }
        let other = Index::open_existing(&archive).unwrap().unwrap();
        let snapshot = other.snapshot().unwrap();
        let all = Selection::default();
        assert_eq!(snapshot.count(&all).unwrap(), 4);
        index.note(&[execution("a", 15)]).unwrap();
        let found = |which: &Selection| {
            let mut found = Vec::new();
            let each = snapshot.each(which, |row| {
                let minutes = (row.execution.data_start - at(0)).num_minutes();
                found.push(format!("{}{minutes}", row.execution.scheduler));
                Ok::<(), IndexError>(())
            });
            each.unwrap();
            found
        };
        assert_eq!(found(&all), ["b0", "a5", "b5", "a10"]);
        let newest = Selection {
            newest: Some(2),
            ..all.clone()
        };
        assert_eq!(found(&newest), ["b5", "a10"]);
        let some = Selection {
            scheduler: "b".into(),
            from: Some(at(1)),
            to: Some(at(10) + TimeDelta::seconds(1)),
            ..all.clone()
        };
        assert_eq!(found(&some), ["b5"]);
        drop(snapshot);
        assert_eq!(other.snapshot().unwrap().count(&all).unwrap(), 5);
    }
}
