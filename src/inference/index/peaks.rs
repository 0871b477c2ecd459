//! The scores of an archive's executions over a stretch of time, as a picture wants them.

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::params;

use super::limit as limited;
use super::reading::Past;

impl Past {
    /// The highest score of each of `count` stretches of `step` since `from`; `None` for one without a scored window.
    pub fn peaks(
        &self,
        name: &str,
        from: DateTime<Utc>,
        step: TimeDelta,
        count: usize,
    ) -> rusqlite::Result<Vec<Option<f64>>> {
        let step = step.num_microseconds().unwrap_or(i64::MAX).max(1);
        // They are kept in order of their start; a window ends a stretch that it fills.
        let length = self.cadence(name)?.micros();
        let from = from.timestamp_micros().saturating_sub(length);
        let mut peaks = vec![None; count];
        let db = self.lock();
        let mut statement = db.prepare_cached(
            "SELECT (start_us - ?2 - 1) / ?4, max(score) FROM execution
             WHERE scheduler = ?1 AND start_us > ?2 AND start_us <= ?3 AND status = 'SUCCESS' AND score IS NOT NULL GROUP BY 1",
        )?;
        let before = from.saturating_add(step.saturating_mul(limited(count)));
        let mut rows = statement.query(params![name, from, before, step])?;
        while let Some(row) = rows.next()? {
            let place = usize::try_from(row.get::<_, i64>(0)?).unwrap_or(usize::MAX);
            if let Some(peak) = peaks.get_mut(place) {
                *peak = Some(row.get(1)?);
            }
        }
        Ok(peaks)
    }
}
