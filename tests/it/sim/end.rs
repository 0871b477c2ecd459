//! The end of a simulation: with every fault gone, everything converges, and what is there is what must be there.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta};
use lookoutd::daemon::archive;
use lookoutd::feed::{Entry, State};
use lookoutd::inference::Archive;

use super::facts::{Execution, show, start_of_key};
use super::world::{ARCHIVE_PREFIX, SCHEDULER, World};
use crate::rig::{Objects, PREFIX, is_blank, objects_under};

/// How long failed executions are looked at again, by service and watcher.
const LATE_FOR: TimeDelta = TimeDelta::hours(23);

/// Whether a component of a window has no value.
fn some_blank(objects: &Objects) -> bool {
    objects.values().any(|bytes| is_blank(bytes))
}

impl World {
    /// Puts everything right and waits until nothing is left to do; then looks at all of it.
    pub async fn converge(
        &mut self,
        check: impl AsyncFn(&mut World) -> Result<(), String>,
    ) -> Result<(), String> {
        self.heal().await?;
        let mut rounds = 0;
        loop {
            self.run(300).await?;
            check(self).await?;
            let Some(gateway) = &self.gateway else {
                continue;
            };
            let view = gateway.feeder.view();
            if view
                .is_settled(self.now())
                .await
                .map_err(|error| format!("{error:#}"))?
                && self
                    .facts
                    .scheduler()?
                    .is_some_and(|(_, status)| status == "RUNNING")
            {
                break;
            }
            rounds += 1;
            if rounds > 600 {
                let recent = view.recent(5).map_err(|error| format!("{error:#}"))?;
                return Err(format!("two days later it has not settled: {recent:?}"));
            }
        }
        // Late results are asked for once an hour.
        let rounds = if self.setup.late_files { 27 } else { 2 };
        for _ in 0..rounds {
            self.run(300).await?;
            check(self).await?;
        }
        // Late enough in a window that its executions have been listed.
        let rest = (self.live().end() - self.now()).num_seconds();
        self.run(rest as u64 + 285).await?;
        check(self).await?;
        let settled = match &self.gateway {
            Some(gateway) => gateway.feeder.view().is_settled(self.now()).await,
            None => Ok(false),
        };
        if !settled.map_err(|error| format!("{error:#}"))? {
            return Err("settled once, and not any more".into());
        }
        self.windows_are_complete()?;
        self.executions_are_complete()
    }

    /// Every due window is in a final state, they tile time, and the store has the bytes that were sealed, and no others.
    fn windows_are_complete(&mut self) -> Result<(), String> {
        let mut entries = self.facts.entries(usize::MAX >> 1)?;
        entries.reverse();
        let live = self.live();
        // What was made while the clock was ahead counts when its time comes.
        let ahead: Vec<Entry> = entries
            .extract_if(.., |entry| entry.start >= live.end())
            .collect();
        let made =
            |entry: &Entry| !matches!(entry.state, State::Due | State::Empty | State::Skipped);
        if let Some(entry) = ahead.iter().find(|entry| !made(entry)) {
            return Err(format!("in the end of a time to come: {entry:?}"));
        }
        // A window may lie in a span that was given up: the clock was stepped forward over it, and back again.
        let mut reached = entries.first().map(|entry| entry.start);
        let mut cut = reached;
        for entry in &entries {
            let skipped = entry.state == State::Skipped;
            if Some(entry.start) > reached || (!skipped && Some(entry.start) < cut) {
                return Err(format!("a gap or an overlap before {entry:?}"));
            }
            reached = reached.max(Some(entry.end));
            if !skipped {
                cut = Some(entry.end);
            }
        }
        if !entries
            .iter()
            .any(|entry| entry.start <= live.start() && entry.end >= live.end())
        {
            return Err("the live window is not recorded".into());
        }
        for entry in entries.iter().chain(&ahead) {
            let start = entry.start.timestamp();
            let sealed = self.facts.sealed().get(&start);
            let taken = |key: &String| self.facts.is_taken(key);
            let fits = match entry.state {
                State::Due | State::Spooled => false,
                State::Shipped => {
                    sealed.is_some_and(|objects| objects.len() == 3 && !some_blank(objects))
                }
                State::Partial => {
                    sealed.is_some_and(|objects| objects.len() < 3 || some_blank(objects))
                }
                State::Empty => self
                    .past
                    .answers(start)
                    .iter()
                    .any(|answer| answer.is_empty()),
                State::Quarantined => sealed.is_some_and(|objects| objects.keys().any(taken)),
                State::Skipped => true,
                // The other bytes are those of a partner, and there is none.
                State::Covered => false,
            };
            if !fits {
                return Err(format!("in the end {entry:?} with {sealed:?}"));
            }
            if !matches!(entry.state, State::Shipped | State::Partial) {
                continue;
            }
            for (key, bytes) in sealed.into_iter().flatten() {
                if self.store.get(key).as_ref() != Some(bytes) {
                    return Err(format!("{key} is not in the store as it was sealed"));
                }
            }
        }
        let known = |key: &String| {
            let sealed = start_of_key(key).and_then(|start| self.facts.sealed().get(&start));
            sealed.is_some_and(|objects| objects.contains_key(key)) || self.facts.is_taken(key)
        };
        let mut strange = self.store.keys(PREFIX);
        strange.retain(|key| key.ends_with(".csv") && !known(key));
        if !strange.is_empty() {
            return Err(format!("objects that nobody sealed: {strange:?}"));
        }
        Ok(())
    }

    /// Each execution has ended, once; the archive has each once, with the bytes of its results, and its copy is equal.
    fn executions_are_complete(&mut self) -> Result<(), String> {
        let Some((uuid, _)) = self.facts.scheduler()? else {
            return Err("there is no scheduler in the end".into());
        };
        let live = self.live().start().timestamp();
        let mut executions = self.facts.service_executions(i64::MIN)?;
        executions.retain(|execution| execution.scheduler == uuid);
        // Those of a time to come are done again then, unless they are done.
        executions.retain(|one| one.boundary <= live || one.status == "SUCCESS");
        let archive = archive(&self.directory.path().join("data"));
        let mut records: BTreeMap<i64, Vec<lookoutd::inference::Execution>> = BTreeMap::new();
        for record in archive.walk().map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?.execution;
            records
                .entry(record.data_start.timestamp())
                .or_default()
                .push(record);
        }
        for (start, of_window) in &records {
            let mut statuses: Vec<&str> = of_window.iter().map(|one| one.status.as_str()).collect();
            statuses.sort_unstable();
            if !matches!(
                statuses[..],
                ["SUCCESS"] | ["FAILED"] | ["FAILED", "SUCCESS"]
            ) {
                return Err(format!("the archive has {} as {statuses:?}", show(*start)));
            }
        }
        let mut boundaries: BTreeSet<i64> = executions.iter().map(|one| one.boundary).collect();
        if boundaries.len() != executions.len() {
            return Err("a boundary was run twice".into());
        }
        boundaries.retain(|boundary| *boundary <= live);
        if let (true, Some(first), Some(last)) =
            (self.setup.catch_up, boundaries.first(), boundaries.last())
        {
            let missing = (*first..*last)
                .step_by(300)
                .find(|at| !boundaries.contains(at));
            if let Some(at) = missing {
                return Err(format!("no execution for {}", show(at)));
            }
        }
        // A clock that was stepped back comes to boundaries that were run before.
        if boundaries.last().is_none_or(|last| *last < live) {
            return Err(format!(
                "the last execution is that of {:?}",
                boundaries.last().map(|at| show(*at))
            ));
        }
        for execution in &executions {
            self.is_archived(
                execution,
                &archive,
                records.get(&(execution.boundary - 300)),
            )?;
        }
        self.archive_is_copied(&archive)
    }

    fn is_archived(
        &self,
        execution: &Execution,
        archive: &Archive,
        records: Option<&Vec<lookoutd::inference::Execution>>,
    ) -> Result<(), String> {
        let name = show(execution.boundary - 300);
        let Some(records) = records else {
            return Err(format!(
                "the archive lacks {name}, which is {} {}",
                execution.status, execution.reason
            ));
        };
        let latest = records
            .iter()
            .find(|one| one.status == "SUCCESS")
            .unwrap_or(&records[0]);
        let end = DateTime::from_timestamp(execution.boundary, 0).unwrap_or_default();
        match execution.status.as_str() {
            "SUCCESS" => {}
            "FAILED" => return Ok(()),
            status => return Err(format!("execution {name} is {status} in the end")),
        }
        if latest.status != "SUCCESS" {
            let old = end < self.facts.latest() - LATE_FOR;
            return match old {
                true => Ok(()),
                false => Err(format!("the archive has {name} as FAILED: {execution:?}")),
            };
        }
        let results = archive.results(latest).map_err(|error| error.to_string())?;
        let stored = execution
            .result
            .as_ref()
            .and_then(|key| self.store.get(key));
        if results.is_none() || results != stored {
            return Err(format!(
                "the archive has other results for {name} than the store"
            ));
        }
        Ok(())
    }

    fn archive_is_copied(&self, archive: &Archive) -> Result<(), String> {
        for (name, bytes) in objects_under(archive.root()) {
            if name.starts_with("index.") {
                continue;
            }
            if !name.starts_with(&format!("{SCHEDULER}/"))
                || name.contains(".conflict-")
                || name.contains(".damaged")
                || name.ends_with(".new")
            {
                return Err(format!("a strange file in the archive: {name}"));
            }
            if self.store.get(&format!("{ARCHIVE_PREFIX}{name}")) != Some(bytes) {
                return Err(format!("the copy of {name} is not equal"));
            }
        }
        Ok(())
    }
}
