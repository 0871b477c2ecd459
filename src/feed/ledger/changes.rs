//! What changes in the ledger: each call is one durable transaction, and moves a window only from the states its caller named.
//!
//! Daemon and commands change the same rows: a window may be given up while it is uploaded, or retried while it is cut. Whoever
//! comes second finds another state than it expects, is told so, and changes nothing.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};

use super::super::due::Due;
use super::super::entry::{Entry, State};
use super::{COLUMNS, Ledger, LedgerError};
use crate::signal::{Cadence, Window};

impl Ledger {
    /// Records a decision: the backlog as due, the rest as skipped. One transaction.
    pub fn plan(&self, due: &Due) -> Result<(), LedgerError> {
        if due.backlog.is_none() && due.skipped.is_none() {
            return Ok(());
        }
        self.change(|connection| {
            let transaction = connection.unchecked_transaction()?;
            if let Some((from, to)) = due.backlog {
                make_due(&transaction, &self.asset, from, to.start(), None)?;
            }
            if let Some((from, to, reason)) = due.skipped {
                let cadence = due
                    .live
                    .or(due.backlog.map(|(from, _)| from))
                    .map(|window| window.cadence())
                    .unwrap_or(Cadence::Pt5m);
                skip(
                    &transaction,
                    &self.asset,
                    (from.timestamp(), to.timestamp()),
                    &cadence.to_string(),
                    reason,
                )?;
            }
            transaction.commit()
        })
    }

    /// Records what became of a window that was due or not known. False, and nothing is changed, where it is in another state
    /// by now.
    pub fn record(&self, entry: &Entry) -> Result<bool, LedgerError> {
        let changed = self.change(|connection| {
            connection.execute(
                &format!(
                    "INSERT INTO window ({COLUMNS})
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
                     ON CONFLICT (asset, start) DO UPDATE SET end = ?2, cadence = ?3, state = ?4, reason = ?5, files = ?6,
                        components = ?7, rows = ?8, bytes = ?9, cut_at = ?10, shipped_at = ?11, attempts = ?12,
                        last_error = ?13, blank = ?14, infinite = ?15, doubled = ?16, journal = ?17
                     WHERE window.state = 'due'"
                ),
                params![
                    entry.start.timestamp(),
                    entry.end.timestamp(),
                    entry.cadence.to_string(),
                    entry.state.name(),
                    entry.reason,
                    entry.files,
                    entry.components,
                    entry.rows as i64,
                    entry.bytes as i64,
                    entry.cut_at.map(|time| time.timestamp_millis()),
                    entry.shipped_at.map(|time| time.timestamp_millis()),
                    entry.attempts,
                    entry.last_error,
                    (!entry.blank.is_empty()).then(|| entry.blank.join(",")),
                    entry.infinite as i64,
                    entry.doubled as i64,
                    entry.journal,
                    self.asset,
                ],
            )
        })?;
        Ok(changed > 0)
    }

    /// The store has a spooled window: shipped, or partial where components are missing or have no value. Returns the new state;
    /// `None` where the window is not spooled any more, and nothing is changed.
    pub fn shipped(
        &self,
        window: &Window,
        now: DateTime<Utc>,
    ) -> Result<Option<State>, LedgerError> {
        let state: Option<String> = self.change(|connection| {
            connection
                .query_row(
                    "UPDATE window SET shipped_at = ?2, last_error = NULL,
                        state = CASE WHEN files < components OR blank IS NOT NULL THEN 'partial' ELSE 'shipped' END,
                        reason = CASE WHEN blank IS NOT NULL THEN 'no value of ' || replace(blank, ',', ', ')
                                      WHEN files < components THEN files || '/' || components END
                     WHERE asset = ?3 AND start = ?1 AND state = 'spooled' RETURNING state",
                    params![window.start().timestamp(), now.timestamp_millis(), self.asset],
                    |row| row.get(0),
                )
                .optional()
        })?;
        state.map(|state| self.state(&state)).transpose()
    }

    /// Shipping failed; the window stays spooled. Returns how often it has failed, 0 where it is not spooled any more.
    pub fn failed(&self, window: &Window, error: &str) -> Result<u32, LedgerError> {
        let attempts = self.change(|connection| {
            connection
                .query_row(
                    "UPDATE window SET attempts = attempts + 1, last_error = ?2
                     WHERE asset = ?3 AND start = ?1 AND state = 'spooled' RETURNING attempts",
                    params![window.start().timestamp(), error, self.asset],
                    |row| row.get(0),
                )
                .optional()
        })?;
        Ok(attempts.unwrap_or_default())
    }

    /// Moves a window that is in the state `from` to `to`. False, and nothing is changed, where it is in another state by now.
    pub fn transition(
        &self,
        window: &Window,
        from: State,
        to: State,
        reason: Option<&str>,
    ) -> Result<bool, LedgerError> {
        let changed = self.change(|connection| {
            connection.execute(
                "UPDATE window SET state = ?4, reason = ?5 WHERE asset = ?2 AND start = ?1 AND state = ?3",
                params![
                    window.start().timestamp(),
                    self.asset,
                    from.name(),
                    to.name(),
                    reason
                ],
            )
        })?;
        Ok(changed > 0)
    }

    /// Makes the windows due that were skipped with a range and lie between `from` and `to` as a whole; the rest of each range
    /// stays skipped. Returns how many windows those are.
    pub fn reopen(
        &self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        reason: &str,
    ) -> Result<u64, LedgerError> {
        self.change(|connection| {
            let transaction = connection.unchecked_transaction()?;
            let ranges: Vec<(i64, i64, String, String)> = transaction
                .prepare(
                    "SELECT start, end, cadence, reason FROM skipped WHERE asset = ?3 AND end > ?1 AND start < ?2",
                )?
                .query_map(
                    params![from.timestamp(), to.timestamp(), self.asset],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
                )?
                .collect::<rusqlite::Result<_>>()?;
            let mut reopened = 0;
            for (start, end, cadence, why) in ranges {
                let Some((first, until)) = whole_windows(
                    start.max(from.timestamp()),
                    end.min(to.timestamp()),
                    &cadence,
                ) else {
                    continue;
                };
                transaction.execute(
                    "DELETE FROM skipped WHERE asset = ?1 AND start = ?2",
                    params![self.asset, start],
                )?;
                for rest in [(start, first.start().timestamp()), (until.timestamp(), end)] {
                    if rest.0 < rest.1 {
                        skip(&transaction, &self.asset, rest, &cadence, &why)?;
                    }
                }
                reopened += make_due(&transaction, &self.asset, first, until, Some(reason))?;
            }
            transaction.commit()?;
            Ok(reopened)
        })
    }
}

/// Records the windows from `from` up to `to` as due where nothing is known of them; returns how many.
fn make_due(
    connection: &Connection,
    asset: &str,
    from: Window,
    to: DateTime<Utc>,
    reason: Option<&str>,
) -> rusqlite::Result<u64> {
    let mut insert = connection.prepare(
        "INSERT INTO window (asset, start, end, cadence, state, reason) VALUES (?1, ?2, ?3, ?4, 'due', ?5) ON CONFLICT DO NOTHING",
    )?;
    let (mut window, mut made) = (from, 0);
    while window.end() <= to {
        made += insert.execute(params![
            asset,
            window.start().timestamp(),
            window.end().timestamp(),
            window.cadence().to_string(),
            reason
        ])? as u64;
        window = window.next();
    }
    Ok(made)
}

/// Records a range as skipped; one that begins where another does makes that one longer.
fn skip(
    connection: &Connection,
    asset: &str,
    (from, to): (i64, i64),
    cadence: &str,
    reason: &str,
) -> rusqlite::Result<usize> {
    connection.execute(
        "INSERT INTO skipped (asset, start, end, cadence, reason) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (asset, start) DO UPDATE SET end = max(end, excluded.end)",
        params![asset, from, to, cadence, reason],
    )
}

/// The first window of `cadence` that lies in the range, and the end of the last one; `None` where there is none.
fn whole_windows(from: i64, to: i64, cadence: &str) -> Option<(Window, DateTime<Utc>)> {
    let cadence: Cadence = cadence.parse().ok()?;
    let (from, to) = (
        DateTime::from_timestamp(from, 0)?,
        DateTime::from_timestamp(to, 0)?,
    );
    let first = Window::containing(from, cadence);
    let first = if first.start() < from {
        first.next()
    } else {
        first
    };
    let until = Window::containing(to, cadence).start();
    (first.start() < until).then_some((first, until))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + minutes * 60, 0).unwrap()
    }

    fn window(minutes: i64) -> Window {
        Window::new(at(minutes), Cadence::Pt5m).unwrap()
    }

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path(), at(0)).unwrap();
        (directory, ledger)
    }

    fn skipped(ledger: &Ledger) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
        let ranges = ledger.skips(None, 100).unwrap();
        ranges.iter().rev().map(|e| (e.start, e.end)).collect()
    }

    #[test]
    fn who_comes_second_changes_nothing_and_is_told() {
        let (_directory, ledger) = ledger();
        let spooled = Entry::new(&window(0), State::Spooled);
        assert!(ledger.record(&spooled).unwrap());
        // An operator gives it up while it is being uploaded.
        let given_up = ledger.transition(&window(0), State::Spooled, State::Skipped, Some("x"));
        assert!(given_up.unwrap());
        assert_eq!(ledger.shipped(&window(0), at(5)).unwrap(), None);
        assert_eq!(ledger.failed(&window(0), "slow").unwrap(), 0);
        assert!(!ledger.record(&spooled).unwrap());
        let aside = ledger.transition(&window(0), State::Spooled, State::Quarantined, None);
        assert!(!aside.unwrap());
        let entry = ledger.get(at(0)).unwrap().unwrap();
        assert_eq!(
            (entry.state, entry.reason.as_deref()),
            (State::Skipped, Some("x"))
        );
        // And the other way round: what is shipped cannot be given up any more.
        assert!(
            ledger
                .record(&Entry::new(&window(5), State::Spooled))
                .unwrap()
        );
        assert_eq!(
            ledger.shipped(&window(5), at(6)).unwrap(),
            Some(State::Shipped)
        );
        let late = ledger.transition(&window(5), State::Spooled, State::Skipped, Some("x"));
        assert!(!late.unwrap());
        assert_eq!(ledger.get(at(5)).unwrap().unwrap().state, State::Shipped);
    }

    #[test]
    fn a_component_without_a_value_makes_a_window_partial_and_is_named() {
        let (_directory, ledger) = ledger();
        let mut entry = Entry::new(&window(0), State::Spooled);
        (entry.files, entry.components) = (3, 3);
        entry.blank = vec!["fan".into(), "pump".into()];
        (entry.infinite, entry.doubled, entry.journal) = (4, 5, Some(6));
        ledger.record(&entry).unwrap();
        assert_eq!(ledger.get(at(0)).unwrap().unwrap(), entry);
        assert_eq!(
            ledger.shipped(&window(0), at(5)).unwrap(),
            Some(State::Partial)
        );
        let reason = ledger.get(at(0)).unwrap().unwrap().reason;
        assert_eq!(reason.as_deref(), Some("no value of fan, pump"));
    }

    #[test]
    fn windows_of_a_skipped_range_are_found_and_taken_out_of_it() {
        let (_directory, ledger) = ledger();
        let due = Due {
            live: Some(window(60)),
            backlog: None,
            // A range may begin within a window, after a change of the cadence.
            skipped: Some((at(2), at(60), "downtime")),
        };
        ledger.plan(&due).unwrap();
        ledger.plan(&due).unwrap();
        assert_eq!(skipped(&ledger), [(at(2), at(60))]);
        for minutes in [5, 30, 55] {
            let found = ledger.find(at(minutes)).unwrap().unwrap();
            assert_eq!(
                (found.state, found.start, found.end),
                (State::Skipped, at(2), at(60))
            );
        }
        assert!(ledger.find(at(60)).unwrap().is_none());
        // In the middle, at the start, at the end; the part before the first boundary is no window.
        assert_eq!(ledger.reopen(at(30), at(35), "asked for").unwrap(), 1);
        assert_eq!(skipped(&ledger), [(at(2), at(30)), (at(35), at(60))]);
        assert_eq!(ledger.reopen(at(0), at(10), "asked for").unwrap(), 1);
        assert_eq!(ledger.reopen(at(55), at(60), "asked for").unwrap(), 1);
        assert_eq!(
            skipped(&ledger),
            [(at(2), at(5)), (at(10), at(30)), (at(35), at(55))]
        );
        assert_eq!(ledger.frontier(at(1000)).unwrap(), Some(at(60)));
        let due = ledger.find(at(30)).unwrap().unwrap();
        assert_eq!(
            (due.state, due.reason.as_deref()),
            (State::Due, Some("asked for"))
        );
        // Everything that is left, in one go.
        assert_eq!(ledger.between(at(0), at(60)).unwrap().len(), 6);
        assert_eq!(ledger.reopen(at(0), at(60), "asked for").unwrap(), 8);
        assert_eq!(skipped(&ledger), [(at(2), at(5))]);
        assert_eq!(ledger.census().unwrap().due, 11);
    }

    #[test]
    fn another_assets_windows_are_another_matter() {
        let (_directory, ledger) = ledger();
        let mut other = ledger.clone();
        other.asset = "pump-2".into();
        ledger
            .record(&Entry::new(&window(0), State::Spooled))
            .unwrap();
        assert!(other.get(at(0)).unwrap().is_none());
        assert!(other.record(&Entry::new(&window(0), State::Due)).unwrap());
        assert_eq!(other.get(at(0)).unwrap().unwrap().asset, "pump-2");
        assert_eq!(ledger.get(at(0)).unwrap().unwrap().state, State::Spooled);
        assert_eq!(
            (
                ledger.census().unwrap().spooled,
                ledger.census().unwrap().due
            ),
            (1, 0)
        );
        assert_eq!(other.oldest_due().unwrap(), Some(window(0)));
        assert_eq!(other.frontier(at(100)).unwrap(), Some(at(5)));
        assert!(other.list(10).unwrap().len() == 1 && other.spooled().unwrap().is_empty());
    }
}
