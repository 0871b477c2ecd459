//! What the ledger says of a time that has not come: records that were made while the clock was ahead.
//!
//! What is in the spool or in the store stays, and counts when its time comes; until then it says nothing about the time
//! before it, of which no record may exist. What was only decided, that windows are due, empty or given up, is taken back,
//! and decided again when it is their turn.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};

use super::super::entry::AHEAD;
use super::{Ledger, LedgerError};
use crate::signal::Window;

/// How the parts of a reason are joined.
const JOINT: &str = "; ";

impl Ledger {
    /// The end of everything recorded before `before`: `None` for a ledger with nothing earlier. Windows that were recorded
    /// ahead of their time, and of which some before them are not recorded, say nothing until that has come.
    pub fn frontier(&self, before: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, LedgerError> {
        let reached: Option<i64> = self.run(|connection| {
            // The one that starts last ends last, but for a dozen of a shorter cadence within a longer one.
            let reached: Option<i64> = connection
                .prepare_cached(
                    "SELECT max(end) FROM (
                        SELECT end FROM (SELECT end FROM window
                            WHERE asset = ?2 AND start < ?1 AND coalesce(instr(reason, ?3), 0) = 0 ORDER BY start DESC LIMIT 16)
                        UNION ALL SELECT max(end) FROM skipped WHERE asset = ?2 AND start < ?1)",
                )?
                .query_row(params![before.timestamp(), self.asset, AHEAD], |row| {
                    row.get(0)
                })?;
            match reached {
                Some(end) => self::reached(connection, &self.asset, end, before.timestamp()).map(Some),
                None => Ok(None),
            }
        })?;
        Ok(reached.and_then(|end| DateTime::from_timestamp(end, 0)))
    }

    /// Takes back what was decided of windows after `live` that end beyond `now` by more than a cadence, and marks what stays
    /// and has not everything before it recorded. Returns how many records were taken back.
    pub fn void_future(&self, live: &Window, now: DateTime<Utc>) -> Result<usize, LedgerError> {
        let beyond = (now + live.cadence().duration())
            .timestamp()
            .max(live.end().timestamp());
        let anything: bool = self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM window WHERE asset = ?1 AND start >= ?2 AND end > ?3)
                        OR EXISTS (SELECT 1 FROM skipped WHERE asset = ?1 AND end > ?3)",
                )?
                .query_row(
                    params![self.asset, live.end().timestamp(), beyond],
                    |row| row.get(0),
                )
        })?;
        if !anything {
            return Ok(0);
        }
        self.change(|connection| {
            let transaction = connection.unchecked_transaction()?;
            let mut voided = transaction.execute(
                "DELETE FROM window WHERE asset = ?1 AND start >= ?2 AND end > ?3
                    AND state IN ('due', 'empty', 'skipped') AND files = 0",
                params![self.asset, live.end().timestamp(), beyond],
            )?;
            // What came of the time before the live window, while the range said that it was given up, needs the range's
            // beginning; where nothing came, all of it is decided again.
            transaction.execute(
                "UPDATE skipped SET end = ?2 WHERE asset = ?1 AND start < ?2 AND end > ?3 AND EXISTS (
                    SELECT 1 FROM window WHERE window.asset = ?1 AND window.start >= skipped.start AND window.start < ?2)",
                params![self.asset, live.start().timestamp(), beyond],
            )?;
            voided += transaction.execute(
                "DELETE FROM skipped WHERE asset = ?1 AND end > ?2",
                params![self.asset, beyond],
            )?;
            let joined = reached(&transaction, &self.asset, live.start().timestamp(), i64::MAX)?;
            // What was recorded before everything that lies before it was there when the clock went back: it is the present
            // that is wrong then, and nothing is missing between.
            transaction.execute(
                &format!(
                    "UPDATE window SET reason = coalesce(reason || '{JOINT}', '') || '{AHEAD}'
                     WHERE asset = ?1 AND start >= ?2 AND end > ?3 AND start > ?4 AND coalesce(instr(reason, '{AHEAD}'), 0) = 0
                        AND rowid > (SELECT min(rowid) FROM window WHERE asset = ?1 AND start < ?5)"
                ),
                params![
                    self.asset,
                    live.end().timestamp(),
                    beyond,
                    joined,
                    live.start().timestamp()
                ],
            )?;
            transaction.commit()?;
            Ok(voided)
        })
    }

    /// The time of the windows up to `live` has come: they count as any other. What lies before `since` has been counted.
    pub fn time_came(
        &self,
        since: Option<DateTime<Utc>>,
        live: &Window,
    ) -> Result<(), LedgerError> {
        let since = since.map_or(i64::MIN, |since| since.timestamp());
        let range = "asset = ?1 AND start >= ?2 AND start < ?3 AND instr(reason, ?4) > 0";
        let anything: bool = self.run(|connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT EXISTS (SELECT 1 FROM window WHERE {range})"
                ))?
                .query_row(
                    params![self.asset, since, live.end().timestamp(), AHEAD],
                    |row| row.get(0),
                )
        })?;
        if anything {
            self.change(|connection| {
                connection.execute(
                    &format!(
                        "UPDATE window SET reason = nullif(replace(replace(reason, ?5 || ?4, ''), ?4, ''), '') WHERE {range}"
                    ),
                    params![self.asset, since, live.end().timestamp(), AHEAD, JOINT],
                )
            })?;
        }
        Ok(())
    }
}

/// Where windows end that follow each other from `from` on, of those that start before `before`.
fn reached(connection: &Connection, asset: &str, from: i64, before: i64) -> rusqlite::Result<i64> {
    let mut windows = connection.prepare_cached(
        "SELECT start, end FROM window WHERE asset = ?1 AND start >= ?2 AND start < ?3 ORDER BY start",
    )?;
    let mut windows = windows.query(params![asset, from, before])?;
    let mut reached = from;
    while let Some(row) = windows.next()? {
        if row.get::<_, i64>(0)? > reached {
            break;
        }
        reached = row.get(1)?;
    }
    Ok(reached)
}

#[cfg(test)]
mod tests {
    use super::super::super::due::Due;
    use super::super::super::entry::{Entry, State};
    use super::*;
    use crate::signal::Cadence;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + minutes * 60, 0).unwrap()
    }

    fn window(minutes: i64) -> Window {
        Window::new(at(minutes), Cadence::Pt5m).unwrap()
    }

    fn record(ledger: &Ledger, minutes: i64, state: State) {
        let mut entry = Entry::new(&window(minutes), state);
        if matches!(state, State::Spooled | State::Shipped | State::Partial) {
            entry.files = 1;
        }
        if state == State::Partial {
            entry.reason = Some("1/2".into());
        }
        assert!(ledger.record(&entry).unwrap());
    }

    fn known(ledger: &Ledger) -> Vec<(i64, State, Option<String>)> {
        let mut entries = ledger.list(100).unwrap();
        entries.reverse();
        entries
            .into_iter()
            .map(|entry| {
                let minutes = (entry.start - at(0)).num_minutes();
                (minutes, entry.state, entry.reason)
            })
            .collect()
    }

    #[test]
    fn what_was_only_decided_of_a_time_to_come_is_taken_back_and_what_was_made_waits_for_its_time()
    {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path(), at(0)).unwrap();
        record(&ledger, 0, State::Shipped);
        // Two days ahead for a moment.
        let skipped = Due {
            live: None,
            backlog: None,
            skipped: Some((at(5), at(600), "older than feed.max_age")),
        };
        ledger.plan(&skipped).unwrap();
        for (minutes, state) in [
            (600, State::Shipped),
            (605, State::Partial),
            (610, State::Empty),
            (615, State::Due),
            (620, State::Spooled),
        ] {
            record(&ledger, minutes, state);
        }
        assert_eq!(ledger.frontier(at(5)).unwrap(), Some(at(5)));
        assert_eq!(ledger.frontier(at(10)).unwrap(), Some(at(600)));
        assert_eq!(ledger.void_future(&window(5), at(6)).unwrap(), 3);
        let ahead = Some(AHEAD.to_owned());
        assert_eq!(
            known(&ledger),
            [
                (0, State::Shipped, None),
                (600, State::Shipped, ahead.clone()),
                (605, State::Partial, Some(format!("1/2; {AHEAD}"))),
                (620, State::Spooled, ahead),
            ]
        );
        // Nothing more to take back, also when it is repeated.
        assert_eq!(ledger.void_future(&window(5), at(6)).unwrap(), 0);
        assert_eq!(ledger.frontier(at(15)).unwrap(), Some(at(5)));
        // Their time comes while nothing else was recorded: what lies between is missed, and they are not.
        assert_eq!(ledger.frontier(at(610)).unwrap(), Some(at(5)));
        ledger.time_came(Some(at(5)), &window(610)).unwrap();
        assert_eq!(
            known(&ledger)[1..3],
            [
                (600, State::Shipped, None),
                (605, State::Partial, Some("1/2".into()))
            ]
        );
        assert_eq!(ledger.frontier(at(610)).unwrap(), Some(at(610)));
        assert_eq!(ledger.frontier(at(625)).unwrap(), Some(at(610)));
    }

    #[test]
    fn a_range_that_reaches_into_the_future_keeps_what_lies_before_windows_that_came() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path(), at(0)).unwrap();
        record(&ledger, 0, State::Shipped);
        let skipped = Due {
            live: None,
            backlog: None,
            skipped: Some((at(5), at(600), "downtime")),
        };
        ledger.plan(&skipped).unwrap();
        // As a version that let it stand went on.
        record(&ledger, 40, State::Shipped);
        ledger.void_future(&window(45), at(46)).unwrap();
        assert_eq!(ledger.frontier(at(45)).unwrap(), Some(at(45)));
        let range = ledger.skips(None, 10).unwrap();
        assert_eq!((range[0].start, range[0].end), (at(5), at(45)));
    }

    #[test]
    fn a_step_back_by_seconds_takes_nothing_away_for_good() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path(), at(0)).unwrap();
        record(&ledger, 0, State::Shipped);
        record(&ledger, 5, State::Shipped);
        let before = known(&ledger);
        let now = at(5) - chrono::TimeDelta::seconds(3);
        assert_eq!(ledger.void_future(&window(0), now).unwrap(), 0);
        assert_eq!(known(&ledger), before, "nothing is missing between");
    }

    #[test]
    fn a_clock_that_goes_back_and_forth_again_finds_nothing_missing_between() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path(), at(0)).unwrap();
        record(&ledger, 600, State::Shipped);
        for minutes in [0, 5] {
            ledger
                .void_future(&window(minutes), at(minutes + 1))
                .unwrap();
            record(&ledger, minutes, State::Shipped);
        }
        assert_eq!(ledger.frontier(at(610)).unwrap(), Some(at(605)));
    }
}
