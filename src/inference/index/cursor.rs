//! Where listing has come to, under any clock: what was listed of a time to come moves nothing forward, and what is not
//! archived in its time can be counted.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{OptionalExtension, params};
use tracing::warn;

use super::{Archived, Index, IndexError};

impl Index {
    /// Up to which data start everything has been listed. One that lies in the future, because an execution of a time to come
    /// was listed, is moved back to the newest execution that has begun: later ones are to come before it.
    pub fn cursor(
        &self,
        scheduler: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, IndexError> {
        self.transact(|db| {
            let micros: Option<i64> = db
                .query_row(
                    "SELECT start_us FROM cursor WHERE scheduler = ?1",
                    [scheduler],
                    |row| row.get(0),
                )
                .optional()?;
            let Some(ahead) = micros.filter(|micros| *micros > now.timestamp_micros()) else {
                return Ok(micros.and_then(DateTime::from_timestamp_micros));
            };
            let begun: Option<i64> = db.query_row(
                "SELECT max(start_us) FROM execution WHERE scheduler = ?1 AND start_us <= ?2",
                params![scheduler, now.timestamp_micros()],
                |row| row.get(0),
            )?;
            match begun {
                Some(begun) => db.execute(
                    "UPDATE cursor SET start_us = ?2 WHERE scheduler = ?1",
                    params![scheduler, begun],
                )?,
                None => db.execute("DELETE FROM cursor WHERE scheduler = ?1", [scheduler])?,
            };
            warn!(
                scheduler,
                was = %DateTime::from_timestamp_micros(ahead).unwrap_or_default(),
                "executions of a time to come were listed: the clock was ahead, listing goes on from now"
            );
            Ok(begun.and_then(DateTime::from_timestamp_micros))
        })
    }

    /// Moves the cursor to the newest execution noted that has begun, after a listing that was read to its end.
    pub fn advance(&self, scheduler: &str, now: DateTime<Utc>) -> Result<(), IndexError> {
        self.transact(|db| {
            db.execute(
                "INSERT INTO cursor (scheduler, start_us)
                 SELECT scheduler, start_us FROM execution WHERE scheduler = ?1 AND start_us <= ?2 ORDER BY start_us DESC LIMIT 1
                 ON CONFLICT (scheduler) DO UPDATE SET start_us = max(start_us, excluded.start_us)",
                params![scheduler, now.timestamp_micros()],
            )?;
            Ok(())
        })
    }

    /// Forgets what was listed, but not archived, of windows that end after `beyond`, unless it is SUCCESS: the service does
    /// them again when their time comes.
    pub fn void(&self, scheduler: &str, beyond: DateTime<Utc>) -> Result<usize, IndexError> {
        self.transact(|db| {
            db.execute(
                "DELETE FROM execution INDEXED BY open WHERE scheduler = ?1 AND start_us > ?2 AND status <> 'SUCCESS' AND archived_us IS NULL
                    AND unixepoch(execution ->> '$.data_end') > ?3",
                params![
                    scheduler,
                    // No window is longer than an hour.
                    (beyond - TimeDelta::hours(1)).timestamp_micros(),
                    beyond.timestamp()
                ],
            )
        })
    }

    /// How many finished executions whose windows began before `before` are not archived, and the start of the oldest.
    pub fn open_before(
        &self,
        scheduler: &str,
        before: DateTime<Utc>,
    ) -> Result<Option<(usize, DateTime<Utc>)>, IndexError> {
        let (count, oldest): (i64, Option<i64>) = self.transact(|db| {
            db.prepare_cached(
                "SELECT count(*), min(start_us) FROM execution INDEXED BY open
                 WHERE scheduler = ?1 AND archived_us IS NULL AND status <> 'IN_PROGRESS' AND start_us < ?2",
            )?
            .query_row(params![scheduler, before.timestamp_micros()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
        })?;
        let oldest = oldest.and_then(DateTime::from_timestamp_micros);
        Ok(oldest.map(|oldest| (count as usize, oldest)))
    }

    /// The newest execution of a scheduler whose window has begun at `now`.
    pub fn newest_begun(
        &self,
        scheduler: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<Archived>, IndexError> {
        let found = self.select(
            "scheduler = ?1 AND start_us <= ?2 ORDER BY start_us DESC LIMIT 1",
            params![scheduler, now.timestamp_micros()],
        )?;
        Ok(found.into_iter().next())
    }

    /// How executions stand whose windows begin from `from` up to `to`, both included, by data start: whether they are a success
    /// or have failed, `None` while neither.
    pub fn outcomes(
        &self,
        scheduler: &str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<BTreeMap<DateTime<Utc>, Option<bool>>, IndexError> {
        self.transact(|db| {
            db.prepare_cached(
                "SELECT start_us, CASE status WHEN 'SUCCESS' THEN 1 WHEN 'FAILED' THEN 0 END FROM execution
                 WHERE scheduler = ?1 AND start_us BETWEEN ?2 AND ?3",
            )?
            .query_map(
                params![scheduler, from.timestamp_micros(), to.timestamp_micros()],
                |row| {
                    let start = DateTime::from_timestamp_micros(row.get(0)?).unwrap_or_default();
                    Ok((start, row.get(1)?))
                },
            )?
            .collect()
        })
    }

    /// The data starts that are known from `from` up to `to`, both included.
    pub fn starts(
        &self,
        scheduler: &str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<BTreeSet<DateTime<Utc>>, IndexError> {
        self.transact(|db| {
            db.prepare_cached(
                "SELECT start_us FROM execution WHERE scheduler = ?1 AND start_us BETWEEN ?2 AND ?3",
            )?
            .query_map(
                params![scheduler, from.timestamp_micros(), to.timestamp_micros()],
                |row| Ok(DateTime::from_timestamp_micros(row.get(0)?).unwrap_or_default()),
            )?
            .collect()
        })
    }
}
