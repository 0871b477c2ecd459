//! Listing: from the API's pages to the index's rows, each execution once, and again those that may have changed.

use chrono::{DateTime, TimeDelta, Utc};
use tracing::debug;

use super::{Failure, Watcher, blocking};
use crate::inference::execution::{Execution, Filter, list_executions};

/// Executions asked for one by one between two listings.
const STRAGGLERS: usize = 10;
/// How often, and how far back, failed executions are asked for again: the service may score a window late.
const ASK_LATE: TimeDelta = TimeDelta::hours(1);
const LATE_FOR: TimeDelta = TimeDelta::hours(25);

impl Watcher {
    /// Takes note of every execution since the cursor, and of those that were in progress before.
    pub(super) async fn list(&mut self) -> Result<(), Failure> {
        let (name, now, beyond) = (
            self.parts.target.scheduler.clone(),
            self.parts.clock.now(),
            self.beyond(),
        );
        let (index, scheduler) = (self.index.clone(), name.clone());
        let cursor = blocking(move || {
            // What the service still says of them is noted again below.
            index.void(&scheduler, beyond)?;
            index.cursor(&scheduler, now)
        })
        .await??;
        let after = cursor.map(|cursor| cursor - self.overlap());
        let filter = Filter {
            after,
            ..Filter::default()
        };
        let mut token = None;
        loop {
            let page = list_executions(&self.parts.client, &name, &filter, token).await?;
            debug!(
                scheduler = name,
                executions = page.executions.len(),
                "executions listed"
            );
            self.note(page.executions).await?;
            token = page.next;
            if token.is_none() {
                break;
            }
        }
        let (index, scheduler) = (self.index.clone(), name.clone());
        blocking(move || index.advance(&scheduler, now)).await??;
        let Some(after) = after else { return Ok(()) };
        let (index, scheduler) = (self.index.clone(), name.clone());
        let stragglers =
            blocking(move || index.in_progress(&scheduler, after, STRAGGLERS)).await??;
        for straggler in stragglers {
            let filter = Filter {
                after: Some(straggler.data_start - TimeDelta::seconds(1)),
                before: Some(straggler.data_end + TimeDelta::seconds(1)),
                status: None,
            };
            let page = list_executions(&self.parts.client, &name, &filter, None).await?;
            self.note(page.executions).await?;
        }
        self.list_late(after).await
    }

    /// Takes note of windows before `before` that failed and have been scored since, once an hour.
    async fn list_late(&mut self, before: DateTime<Utc>) -> Result<(), Failure> {
        let now = self.parts.clock.now();
        if self.asked_late.is_some_and(|asked| lately(asked, now)) {
            return Ok(());
        }
        let (index, scheduler) = (self.index.clone(), self.parts.target.scheduler.clone());
        let failed = blocking(move || index.failed(&scheduler, now - LATE_FOR, before)).await??;
        if let (Some(first), Some(last)) = (failed.first(), failed.last()) {
            let filter = Filter {
                after: Some(first.data_start - TimeDelta::seconds(1)),
                before: Some(last.data_end + TimeDelta::seconds(1)),
                status: Some("SUCCESS".into()),
            };
            let mut token = None;
            loop {
                let (client, name) = (&self.parts.client, &self.parts.target.scheduler);
                let page = list_executions(client, name, &filter, token).await?;
                self.note(page.executions).await?;
                token = page.next;
                if token.is_none() {
                    break;
                }
            }
        }
        self.asked_late = Some(now);
        Ok(())
    }

    async fn note(&self, executions: Vec<Execution>) -> Result<(), Failure> {
        let index = self.index.clone();
        Ok(blocking(move || index.note(&executions)).await??)
    }

    /// A window that ends after this is one of a time to come: the service's clock was ahead, or this one's is behind.
    pub(super) fn beyond(&self) -> DateTime<Utc> {
        self.parts.clock.now() + self.parts.target.cadence.duration()
    }

    /// How far before the cursor is listed again, for executions that come out of order.
    pub(super) fn overlap(&self) -> TimeDelta {
        TimeDelta::hours(1).max(self.parts.target.cadence.duration() * 3)
    }
}

/// Within the last hour. Another hour than it was asked in, also one before it, is worth another look: clocks are stepped.
fn lately(asked: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    (now - asked).abs() < ASK_LATE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_results_are_asked_for_once_an_hour_and_after_a_step_back() {
        let asked = "2026-01-01T12:00:00Z".parse().unwrap();
        assert!(lately(asked, asked));
        assert!(lately(asked, asked + TimeDelta::minutes(59)));
        assert!(!lately(asked, asked + TimeDelta::hours(1)));
        assert!(!lately(asked, asked - TimeDelta::hours(1)));
        assert!(!lately(asked, asked - TimeDelta::days(365)));
    }
}
