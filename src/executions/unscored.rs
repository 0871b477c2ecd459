//! Windows that were delivered and never scored: their files are in the store, and no execution of them ever came.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Answer, State};

/// Delivered windows that are looked at, the newest first.
pub const LOOKED_BACK: usize = 500;

/// A delivered window: its start and its end.
pub type Delivered = (DateTime<Utc>, DateTime<Utc>);

/// What was never scored of the newest windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unscored {
    /// How many.
    pub windows: usize,
    /// The first one's start.
    pub first: DateTime<Utc>,
    /// The last one's start.
    pub last: DateTime<Utc>,
}

impl State {
    /// Which of the `delivered` windows no execution of the scheduler ever looked at, the oldest first. One may come up to
    /// `allowed` after its window's end; windows before the first execution were delivered for no scheduler.
    pub fn unscored(
        &self,
        uuid: &str,
        delivered: &[Delivered],
        now: DateTime<Utc>,
        allowed: TimeDelta,
    ) -> Answer<Vec<DateTime<Utc>>> {
        let Some(oldest) = delivered.iter().map(|(_, end)| *end).min() else {
            return Ok(Vec::new());
        };
        let rows = self.executions(uuid, None, Some(oldest), None, 2 * LOOKED_BACK)?;
        let before = self.executions(uuid, None, None, Some(oldest), 1)?;
        let executed: HashSet<DateTime<Utc>> = rows.iter().map(|row| row.start).collect();
        let began = match before.is_empty() {
            false => Some(DateTime::<Utc>::MIN_UTC),
            true => executed.iter().min().copied(),
        };
        Ok(never(delivered, &executed, began, now - allowed))
    }
}

fn never(
    delivered: &[Delivered],
    executed: &HashSet<DateTime<Utc>>,
    began: Option<DateTime<Utc>>,
    overdue: DateTime<Utc>,
) -> Vec<DateTime<Utc>> {
    let Some(began) = began else {
        return Vec::new();
    };
    let mut missing: Vec<DateTime<Utc>> = delivered
        .iter()
        .filter(|(start, end)| *start > began && *end <= overdue && !executed.contains(start))
        .map(|(start, _)| *start)
        .collect();
    missing.sort_unstable();
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_nobody_looked_at_in_time_are_found_and_none_before_the_first_execution() {
        let at = |minutes: i64| DateTime::from_timestamp(minutes * 60, 0).unwrap();
        let delivered: Vec<Delivered> = (0..10).map(|n| (at(n * 5), at(n * 5 + 5))).collect();
        let executed: HashSet<_> = [2, 3, 6].map(|n| at(n * 5)).into_iter().collect();
        let now = at(50);
        assert_eq!(
            never(
                &delivered,
                &executed,
                Some(at(10)),
                now - TimeDelta::minutes(10)
            ),
            [at(20), at(25), at(35)]
        );
        assert!(never(&delivered, &executed, None, now).is_empty());
    }
}
