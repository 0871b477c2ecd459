//! What `run` keeps for how long: the rules of the embedded store, the horizon that holds them back, and the archive's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{EMBEDDED_BUCKET, EMBEDDED_PREFIX, EMBEDDED_SCHEDULER, archive};
use crate::clock::Clock;
use crate::config::{Config, KeepRule};
use crate::feed::Ledger;
use crate::inference::{Index, expire};
use crate::signal::{Asset, TagList};
use crate::store::retention::{Retention, Rule};
use crate::vitals::Troubles;

/// The archive is looked through this often, or more often where little is kept.
const OFTEN: Duration = Duration::from_secs(3600);

/// The rules of `run`'s embedded store: its input and output, and those of the configuration.
pub fn rules(config: &Config) -> Vec<Rule> {
    let mut rules = others(&config.store.rules);
    if config.is_embedded() {
        for one in each(config) {
            rules.extend(own(&one));
        }
    }
    rules
}

/// The configuration of each asset, as the tag list has them now.
fn each(config: &Config) -> Vec<Config> {
    let list = match config.source.tags.as_str() {
        "" => None,
        tags => TagList::read(tags).ok(),
    };
    let assets = list.map(|list| list.assets()).unwrap_or_default();
    match assets.iter().any(Asset::is_named) {
        true => assets.iter().map(|asset| config.of(asset)).collect(),
        false => vec![config.clone()],
    }
}

/// The rules of one asset's input and output.
fn own(config: &Config) -> [Rule; 2] {
    let input = match config.s3.input_prefix.as_str() {
        "" => EMBEDDED_PREFIX,
        prefix => prefix,
    };
    let (naming, below) = (config.naming, input.to_owned());
    let input = Rule {
        bucket: Some(EMBEDDED_BUCKET.to_owned()),
        prefix: input.to_owned(),
        keep: config.store.keep_input.0,
        form: Some(Arc::new(move |key| {
            // COMPONENT<delimiter>STAMP.csv, in the prefix itself or in a folder of its component.
            let name = key.strip_prefix(below.as_str())?.rsplit('/').next()?;
            let stem = name.strip_suffix(".csv")?;
            let length = naming.stamp(DateTime::UNIX_EPOCH).len();
            let at = stem.len().checked_sub(length)?;
            let stamp = stem.get(at..)?;
            let component = stem.get(..at)?;
            let parsed = naming.parse_stamp(stamp)?;
            (component.len() > 1).then_some(parsed)
        })),
    };
    let below = config.inference.output_prefix.clone();
    let output = Rule {
        bucket: Some(EMBEDDED_BUCKET.to_owned()),
        prefix: below.clone(),
        keep: config.store.keep_output.0,
        form: Some(Arc::new(move |key| {
            // DATA START/results.jsonl
            let (start, name) = key.strip_prefix(below.as_str())?.split_once('/')?;
            let parsed = NaiveDateTime::parse_from_str(start, "%Y-%m-%dT%H:%M:%SZ").ok()?;
            name.starts_with("results").then(|| parsed.and_utc())
        })),
    };
    [input, output]
}

/// The rules of the configuration alone, which are all that `serve` has.
pub fn others(rules: &[KeepRule]) -> Vec<Rule> {
    let rules = rules.iter().map(|rule| Rule {
        bucket: None,
        prefix: rule.prefix.clone(),
        keep: rule.keep.0,
        form: None,
    });
    rules.collect()
}

/// Before which window everything is delivered, scored and archived.
pub fn horizon(config: &Config, data_dir: &Path) -> anyhow::Result<Option<DateTime<Utc>>> {
    let mut horizon = DateTime::<Utc>::MAX_UTC;
    if let Some(ledger) = Ledger::open_existing(data_dir).context("reading the ledger")? {
        for asset in ledger.assets()? {
            let ledger = ledger.of(&asset);
            let waiting = [ledger.oldest_due()?, ledger.oldest_spooled(1)?.pop()];
            for window in waiting.into_iter().flatten() {
                horizon = horizon.min(window.start());
            }
        }
    }
    if let Some(index) =
        Index::open_existing(&archive(data_dir)).context("reading the archive's index")?
    {
        for one in each(config) {
            let scheduler = match one.inference.scheduler.as_str() {
                "" => EMBEDDED_SCHEDULER,
                scheduler => scheduler,
            };
            // Where nothing was ever scored, nothing waits for it: time alone counts.
            if let Some(newest) = index.newest(scheduler)? {
                horizon = horizon.min(newest.execution.data_end);
            }
            let unfinished = index.in_progress(scheduler, DateTime::<Utc>::MAX_UTC, 1)?;
            let unarchived = index.to_archive(scheduler, DateTime::<Utc>::MAX_UTC, usize::MAX)?;
            for execution in unfinished.iter().chain(unarchived.first()) {
                horizon = horizon.min(execution.data_start);
            }
        }
    }
    Ok(Some(horizon))
}

/// Starts to keep a store of `serve` to the rules of the configuration, which are all that it has.
pub fn start_others(
    rules: &[KeepRule],
    store: &crate::store::Store,
    clock: &Clock,
    troubles: Troubles,
    shutdown: &CancellationToken,
) -> Retention {
    let retention = Retention::new(store.clone(), others(rules)).telling(troubles);
    let ask = async || None;
    tokio::spawn(retention.clone().run(clock.clone(), ask, shutdown.clone()));
    retention
}

/// Starts to keep the embedded store to its rules, and the archive to its span.
pub fn start(
    config: &Config,
    data_dir: &Path,
    store: Option<&crate::store::Store>,
    clock: &Clock,
    troubles: Troubles,
    shutdown: &CancellationToken,
) -> Option<Retention> {
    if let Some(keep) = config.inference.archive_keep.0 {
        info!(keep = %config.inference.archive_keep, "the archive keeps results for so long");
        tokio::spawn(keep_archive(
            data_dir.to_owned(),
            keep,
            clock.clone(),
            shutdown.clone(),
        ));
    }
    let retention = Retention::new(store?.clone(), rules(config)).telling(troubles);
    let (config, data_dir) = (Arc::new(config.clone()), data_dir.to_owned());
    let ask = move || {
        let (config, data_dir) = (config.clone(), data_dir.clone());
        async move {
            let asked = tokio::task::spawn_blocking(move || horizon(&config, &data_dir)).await;
            match asked {
                Ok(Ok(horizon)) => horizon,
                Ok(Err(error)) => {
                    warn!(
                        error = format!("{error:#}"),
                        "what is still to be delivered and archived is not known: its objects stay"
                    );
                    None
                }
                Err(_) => None,
            }
        }
    };
    tokio::spawn(retention.clone().run(clock.clone(), ask, shutdown.clone()));
    Some(retention)
}

async fn keep_archive(
    data_dir: PathBuf,
    keep: Duration,
    clock: Clock,
    shutdown: CancellationToken,
) {
    let pace = (keep / 20).clamp(Duration::from_secs(60), OFTEN);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = clock.pause(pace) => {}
        }
        let Some(before) = TimeDelta::from_std(keep)
            .ok()
            .and_then(|keep| clock.now().checked_sub_signed(keep))
        else {
            continue;
        };
        let archive = archive(&data_dir);
        let done = tokio::task::spawn_blocking(move || expire(&archive, before)).await;
        match done {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(records)) => {
                info!(records, %before, "deleted from the archive what was kept for long enough")
            }
            Ok(Err(error)) => {
                warn!(%error, "what is old in the archive could not be deleted: tried again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_the_feeder_and_the_service_write_are_of_the_rules_form() {
        let rules = rules(&Config::default());
        let fits = |rule: usize, key: &str| {
            rules[rule]
                .form
                .as_ref()
                .and_then(|form| form(key))
                .is_some()
        };
        assert_eq!(
            (rules[0].prefix.as_str(), rules[1].prefix.as_str()),
            ("input/", "output/")
        );
        assert!(fits(0, "input/pump_20260101000500.csv"));
        assert!(fits(0, "input/pump/pump_20260101000500.csv"));
        for other in [
            "input/notes.csv",
            "input/_20260101000500.csv",
            "input/pump_20261301000500.csv",
            "input/pump_20260101000500.txt",
            "labels.csv",
        ] {
            assert!(!fits(0, other), "{other}");
        }
        assert!(fits(1, "output/2026-01-01T00:05:00Z/results.jsonl"));
        for other in [
            "output/2026-01-01/results.jsonl",
            "output/results.jsonl",
            "output/2026-01-01T00:05:00Z/model.bin",
        ] {
            assert!(!fits(1, other), "{other}");
        }
    }
}
