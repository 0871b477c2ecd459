//! What a turn of the watcher has to ask the API: nothing, where the answer is known.
//!
//! The scheduler is asked for by its name when the listing that all watchers share says something else of it than the last
//! answer, and now and then for what a listing does not say. Executions are listed when `due` says that there is something to
//! be had, after a failure, when the scheduler has changed, and when the clock was stepped back.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::due::{Look, Rule};
use super::{Watcher, blocking};
use crate::inference::Wanted;
use crate::inference::api::ApiError;
use crate::inference::roster::Brief;
use crate::inference::scheduler::Described;

/// How often a scheduler is asked for by its name although nothing says that it has changed.
const DESCRIBE: Duration = Duration::from_secs(600);
/// The clock counts as stepped back where it has lost this.
const STEP: TimeDelta = TimeDelta::seconds(2);
/// The tag by which the service scores windows whose files come late.
const LATE_FILES: (&str, &str) = ("lookoutd:late-files", "score");

/// What was asked.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The scheduler as it was described, and when.
    scheduler: Option<(Instant, Described)>,
    /// When executions were last listed.
    executions: Option<Instant>,
    /// The last turn.
    turn: Option<(Instant, DateTime<Utc>)>,
}

/// What a turn asks.
pub(super) struct Asks {
    pub scheduler: Standing,
    /// Whether executions are listed.
    pub executions: bool,
}

/// How the scheduler stands.
pub(super) enum Standing {
    /// It has to be asked for.
    Ask,
    /// As it did.
    As(Box<Described>),
    /// Schedulers cannot be asked for.
    Unknown(ApiError),
}

impl Asks {
    /// Everything.
    pub(super) fn all() -> Self {
        Self {
            scheduler: Standing::Ask,
            executions: true,
        }
    }
}

impl Asked {
    /// The scheduler was described; `None` where it is not known how it stands.
    pub(super) fn described(&mut self, scheduler: Option<Described>) {
        let arn = |of: &Described| (of.arn.clone(), of.status.clone());
        let before = self.scheduler.take().map(|(_, before)| arn(&before));
        if before != scheduler.as_ref().map(arn) {
            self.executions = None;
        }
        self.scheduler = scheduler.map(|scheduler| (Instant::now(), scheduler));
    }

    /// Whether executions have to be listed whatever is due.
    pub(super) fn is_unlisted(&self) -> bool {
        self.executions.is_none()
    }

    /// Executions were listed.
    pub(super) fn listed(&mut self) {
        self.executions = Some(Instant::now());
    }
}

impl Watcher {
    /// One turn: a round that asks what has to be asked. True where there is more to archive at once.
    pub(super) async fn turn(&mut self) -> bool {
        if self.was_stepped_back() {
            self.asked.executions = None;
        }
        let scheduler = self.standing().await;
        let executions = match &scheduler {
            Standing::Unknown(_) => false,
            Standing::Ask | Standing::As(_) => self.must_list().await,
        };
        let asks = Asks {
            scheduler,
            executions,
        };
        if !asks.executions && !matches!(asks.scheduler, Standing::Ask) {
            return self.round_with(asks).await;
        }
        let roster = self.parts.roster.clone();
        let turn = self.pulse.during(roster.turn()).await;
        let more = self.round_with(asks).await;
        drop(turn);
        more
    }

    /// How long nothing has to be looked at, at the clock's pace.
    pub(super) async fn pause(&self) -> Duration {
        let poll = self.trouble.pause(self.parts.poll);
        match self.trouble.is_so() {
            true => poll,
            false => match self.due().await {
                Some(look) => look.pause.min(poll),
                None => poll,
            },
        }
    }

    async fn standing(&self) -> Standing {
        let target = &self.parts.target;
        if target.wanted == Wanted::Observe {
            return Standing::Ask;
        }
        // One answer for all of them, also where the API does not answer.
        let age = self.real(self.parts.poll) / 2;
        match (
            self.seat.look(&target.scheduler, age).await,
            &self.asked.scheduler,
        ) {
            (Some(Err(error)), _) => Standing::Unknown(error),
            (Some(Ok(Some(brief))), Some((at, described)))
                if brief == Brief::from(described) && at.elapsed() < self.real(DESCRIBE) =>
            {
                Standing::As(Box::new(described.clone()))
            }
            _ => Standing::Ask,
        }
    }

    /// Whether executions have to be listed.
    async fn must_list(&self) -> bool {
        let Some(listed) = self.asked.executions else {
            return true;
        };
        // Of a scheduler that others keep it is not known when its executions are due.
        if self.trouble.is_so() || self.parts.target.wanted == Wanted::Observe {
            return true;
        }
        let speed = self.parts.clock.speed();
        match self.due().await {
            Some(look) => look.open || self.rule().is_stale(listed.elapsed().mul_f64(speed)),
            None => true,
        }
    }

    /// When there is something to be had; `None` where that cannot be told.
    async fn due(&self) -> Option<Look> {
        let (rule, now) = (self.rule(), self.parts.clock.now());
        let (index, name) = (self.index.clone(), self.parts.target.scheduler.clone());
        let (first, last) = rule.span(now);
        let step = rule.cadence.duration();
        let begins = self.expected;
        let looked = blocking(move || {
            let known = index.outcomes(&name, first - step, last)?;
            let mut look = rule.look(now, &known, begins);
            // One that is older is asked for by itself.
            look.open |= !index.in_progress(&name, first - step, 1)?.is_empty();
            Ok::<_, crate::inference::IndexError>(look)
        });
        looked.await.ok()?.ok()
    }

    fn rule(&self) -> Rule {
        let target = &self.parts.target;
        let mut tags = target.tags.iter();
        Rule {
            cadence: target.cadence,
            delay: self.delay(),
            overlap: self.overlap(),
            late: tags.any(|(key, value)| (key.as_str(), value.as_str()) == LATE_FILES),
            poll: self.parts.poll,
        }
    }

    /// Whether the clock has been stepped back since the last turn.
    fn was_stepped_back(&mut self) -> bool {
        let (at, now) = (Instant::now(), self.parts.clock.now());
        let before = self.asked.turn.replace((at, now));
        before.is_some_and(|(then, was)| {
            let passed = (at - then).mul_f64(self.parts.clock.speed());
            let passed = TimeDelta::from_std(passed).unwrap_or(TimeDelta::zero());
            now < was + passed - STEP
        })
    }
}
