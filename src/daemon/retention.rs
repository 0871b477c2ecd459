//! What `run` keeps for how long: the rules of the embedded store, the horizon that holds them back, and the archive's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::beside::said_of;
use super::{EMBEDDED_BUCKET, EMBEDDED_PREFIX, EMBEDDED_SCHEDULER, archive};
use crate::clock::Clock;
use crate::config::{Config, Keep, KeepRule};
use crate::feed::Ledger;
use crate::inference::{Index, expire};
use crate::ops::health::judge;
use crate::ops::judgement::Judgement;
use crate::signal::{Asset, TagList};
use crate::store::retention::{Retention, Rule, Terms};
use crate::vitals::{Code, Troubles, supervise};

/// The archive is looked through this often, or more often where little is kept.
const OFTEN: Duration = Duration::from_secs(3600);
const SELDOM: Duration = Duration::from_secs(60);

/// What runs: its configuration, and that of each asset.
#[derive(Clone, Debug)]
pub struct Running {
    /// Of the process.
    pub config: Config,
    /// Of each asset; of the process where the tag list names none.
    pub each: Vec<Config>,
}

impl Running {
    /// As configuration and tag list have it now.
    fn read(config: &Config) -> anyhow::Result<Self> {
        let assets = match config.source.tags.as_str() {
            "" => Vec::new(),
            tags => TagList::read(tags)
                .context("it is not known which assets' objects are to be kept")?
                .assets(),
        };
        let each = match assets.iter().any(Asset::is_named) {
            true => assets.iter().map(|asset| config.of(asset)).collect(),
            false => vec![config.clone()],
        };
        Ok(Self {
            config: config.clone(),
            each,
        })
    }

    /// The rules of `run`'s embedded store: those of the configuration, then its input and output.
    fn rules(&self) -> Vec<Rule> {
        let mut rules = others(&self.config.store.rules);
        if self.config.is_embedded() {
            rules.extend(self.each.iter().flat_map(own));
        }
        rules
    }

    fn terms(&self, data_dir: &Path) -> anyhow::Result<Terms> {
        Ok(Terms {
            rules: self.rules(),
            horizon: horizon(&self.each, data_dir)?,
            doubt: None,
        })
    }
}

/// What a store goes by, for whoever looks at its data directory from outside. Only `run` has input and output of its own, and
/// where it ran there is its ledger.
pub fn terms(config: &Config, data_dir: &Path) -> anyhow::Result<Terms> {
    if config.is_embedded() && data_dir.join("ledger.db").exists() {
        return Running::read(config)?.terms(data_dir);
    }
    Ok(Terms {
        rules: others(&config.store.rules),
        horizon: None,
        doubt: None,
    })
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
fn horizon(each: &[Config], data_dir: &Path) -> anyhow::Result<Option<DateTime<Utc>>> {
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
        for one in each {
            let scheduler = match one.inference.scheduler.as_str() {
                "" => EMBEDDED_SCHEDULER,
                scheduler => scheduler,
            };
            // Where nothing was ever scored, nothing waits for it: time alone counts. What is known no longer, because the
            // archive keeps no more of it, was listed up to the cursor.
            let scored = match index.newest(scheduler)? {
                Some(newest) => Some(newest.execution.data_end),
                None => index.cursor(scheduler, DateTime::<Utc>::MAX_UTC)?,
            };
            horizon = horizon.min(scored.unwrap_or(DateTime::<Utc>::MAX_UTC));
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
    let terms = Terms {
        rules: others(rules),
        horizon: None,
        doubt: None,
    };
    let retention = Retention::new(store.clone(), terms.rules.clone()).telling(troubles.clone());
    let (kept, clock, stop) = (retention.clone(), clock.clone(), shutdown.clone());
    let ask = move || std::future::ready(Some(terms.clone()));
    tokio::spawn(async move {
        let begin = || kept.clone().run(clock.clone(), ask.clone(), stop.clone());
        supervise(&stop, begin, |ended| {
            said_of("retention", ended, &troubles, &clock);
        })
        .await;
    });
    retention
}

/// Starts to keep the embedded store to the rules of what runs, and the archive to its span. Before anything runs nothing is
/// deleted.
pub fn start(
    running: watch::Receiver<Option<Running>>,
    data_dir: &Path,
    store: Option<&crate::store::Store>,
    clock: &Clock,
    judgement: Judgement,
    troubles: Troubles,
    shutdown: &CancellationToken,
) -> Option<Retention> {
    let (place, watched) = (data_dir.to_owned(), running.clone());
    let (time, stop, told) = (clock.clone(), shutdown.clone(), troubles.clone());
    tokio::spawn(async move {
        let begin = || keep_archive(place.clone(), watched.clone(), time.clone(), stop.clone());
        supervise(&stop, begin, |ended| {
            said_of("retention of the archive", ended, &told, &time);
        })
        .await;
    });
    let retention = Retention::new(store?.clone(), Vec::new()).telling(troubles.clone());
    let data_dir = data_dir.to_owned();
    let ask = move || {
        let (running, data_dir) = (running.borrow().clone(), data_dir.clone());
        let judgement = judgement.clone();
        async move {
            let running = running?;
            let asked = tokio::task::spawn_blocking(move || running.terms(&data_dir)).await;
            let mut terms = match asked {
                Ok(Ok(terms)) => terms,
                Ok(Err(error)) => {
                    warn!(
                        error = format!("{error:#}"),
                        "what is still to be delivered and archived is not known: nothing is deleted from the store"
                    );
                    return None;
                }
                Err(_) => return None,
            };
            terms.doubt = doubt(&judgement).await;
            Some(terms)
        }
    };
    let (kept, clock, stop) = (retention.clone(), clock.clone(), shutdown.clone());
    tokio::spawn(async move {
        let begin = || kept.clone().run(clock.clone(), ask.clone(), stop.clone());
        supervise(&stop, begin, |ended| {
            said_of("retention", ended, &troubles, &clock);
        })
        .await;
    });
    Some(retention)
}

/// What is said of the clock, by the one judgement.
async fn doubt(judgement: &Judgement) -> Option<String> {
    let snapshot = judgement.snapshot().await.ok()??;
    let reasons = judge(&snapshot).reasons;
    let of_clock = reasons.into_iter().find(|reason| {
        use Code::{ClockOffset, ClockStepped, ClockSuspect};
        matches!(reason.code, ClockSuspect | ClockStepped | ClockOffset)
    });
    of_clock.map(|reason| reason.text)
}

async fn keep_archive(
    data_dir: PathBuf,
    running: watch::Receiver<Option<Running>>,
    clock: Clock,
    shutdown: CancellationToken,
) {
    let mut said = Keep(None);
    loop {
        let keep = match &*running.borrow() {
            Some(running) => running.config.inference.archive_keep,
            None => Keep(None),
        };
        if keep != said {
            info!(%keep, "the archive keeps results for so long");
            said = keep;
        }
        let pace = keep.0.map_or(SELDOM, |keep| keep / 20).clamp(SELDOM, OFTEN);
        let was = clock.now();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = clock.pause(pace) => {}
        }
        let now = clock.now();
        // It was put forward meanwhile, rightly or not: by the next pass that may have turned out.
        let is_steady = (now - was).to_std().is_ok_and(|passed| passed < pace * 2);
        let Some(before) = keep
            .0
            .and_then(|keep| TimeDelta::from_std(keep).ok())
            .and_then(|keep| now.checked_sub_signed(keep))
            .filter(|_| is_steady)
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
    use crate::feed::{Entry, State};
    use crate::inference::Execution;
    use crate::signal::{Cadence, Window};
    use crate::store::{Options, Store};

    #[test]
    fn only_keys_that_the_feeder_and_the_service_write_are_of_the_rules_form() {
        let rules = Running::read(&Config::default()).unwrap().rules();
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

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn each_asset_has_rules_of_its_own_and_a_tag_list_that_cannot_be_read_has_none() {
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("tags.csv");
        std::fs::write(
            &list,
            "Tag,UOM,Subsystem,Asset,Name\nt1,,pump,north,\nt2,,pump,south,\n",
        )
        .unwrap();
        let mut config = Config::default();
        config.source.tags = list.display().to_string();
        config.s3.input_prefix = "in/{asset}/".into();
        config.inference.output_prefix = "out/{asset}/".into();
        config.store.rules = vec!["exports/=30d".parse().unwrap()];
        let running = Running::read(&config).unwrap();
        let prefixes: Vec<_> = running.rules().into_iter().map(|one| one.prefix).collect();
        let all = [
            "exports/",
            "in/north/",
            "out/north/",
            "in/south/",
            "out/south/",
        ];
        assert_eq!(prefixes, all);
        // No ledger: nobody ran here, and only what is configured counts.
        let terms = terms(&config, directory.path()).unwrap();
        assert_eq!((terms.rules.len(), terms.horizon), (1, None));
        drop(Ledger::open(directory.path(), at("2026-03-01T10:00:00Z")).unwrap());
        let own = super::terms(&config, directory.path()).unwrap();
        assert_eq!(own.rules.len(), 5);
        std::fs::remove_file(&list).unwrap();
        let unknown = super::terms(&config, directory.path()).unwrap_err();
        assert!(format!("{unknown:#}").contains("tags.csv"), "{unknown:#}");
    }

    #[test]
    fn the_horizon_is_before_what_is_not_delivered_not_scored_and_not_archived() {
        let directory = tempfile::tempdir().unwrap();
        let (each, now) = ([Config::default()], at("2026-03-01T12:00:00Z"));
        let found = || horizon(&each, directory.path()).unwrap().unwrap();
        assert_eq!(found(), DateTime::<Utc>::MAX_UTC);
        let (ledger, _) = Ledger::open(directory.path(), now).unwrap();
        let window = Window::new(at("2026-03-01T11:00:00Z"), Cadence::Pt5m).unwrap();
        ledger.record(&Entry::new(&window, State::Spooled)).unwrap();
        assert_eq!(found(), window.start());
        ledger.shipped(&window, now).unwrap();
        assert_eq!(found(), DateTime::<Utc>::MAX_UTC);

        let index = Index::open(&archive(directory.path()), now).unwrap();
        let execution = |start: &str, status: &str| Execution {
            scheduler: EMBEDDED_SCHEDULER.into(),
            model: "m".into(),
            model_version: None,
            scheduled: None,
            data_start: at(start),
            data_end: at(start) + TimeDelta::minutes(5),
            status: status.into(),
            failed_reason: None,
            result: None,
            input: String::new(),
        };
        let first = execution("2026-03-01T10:00:00Z", "SUCCESS");
        let second = execution("2026-03-01T10:05:00Z", "IN_PROGRESS");
        index.note(&[first.clone(), second.clone()]).unwrap();
        index.advance(EMBEDDED_SCHEDULER, now).unwrap();
        assert_eq!(found(), first.data_start, "not archived");
        index.given_up(&first, now).unwrap();
        assert_eq!(found(), second.data_start, "in progress");
        let done = execution("2026-03-01T10:05:00Z", "SUCCESS");
        index.note(std::slice::from_ref(&done)).unwrap();
        index.given_up(&done, now).unwrap();
        assert_eq!(found(), done.data_end, "nothing later is scored");
        // The archive keeps no more of it: what came later is still not scored. It keeps what another one ran.
        let other = Execution {
            scheduler: "other".into(),
            ..execution("2026-04-02T00:00:00Z", "SUCCESS")
        };
        index.note(std::slice::from_ref(&other)).unwrap();
        index.given_up(&other, at("2026-04-02T00:05:00Z")).unwrap();
        index.forget(at("2026-04-01T00:00:00Z")).unwrap();
        assert!(index.newest(EMBEDDED_SCHEDULER).unwrap().is_none());
        assert_eq!(found(), done.data_start);
    }

    #[tokio::test]
    async fn objects_are_kept_by_what_runs_now_and_all_of_them_before_anything_runs() {
        let directory = tempfile::tempdir().unwrap();
        let written = at("2026-01-01T00:00:00Z");
        let options = Options {
            clock: Clock::manual(written),
            ..Options::default()
        };
        let store = Store::open(&directory.path().join("s3"), &options).unwrap();
        store.create_bucket(EMBEDDED_BUCKET).unwrap();
        for prefix in ["input/", "other/"] {
            let key = format!("{prefix}pump_20260101000000.csv");
            store.put_blocking(EMBEDDED_BUCKET, &key, b"x").unwrap();
        }
        let left = || store.contents(EMBEDDED_BUCKET).unwrap().len();
        let until = async |wanted: usize| {
            while left() > wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let patience = Duration::from_secs(60);
        let clock = Clock::accelerated(written + TimeDelta::days(30), 36_000.0);
        let (running, seen) = watch::channel(None);
        let (stop, unjudged) = (CancellationToken::new(), watch::channel(None).1);
        let retention = start(
            seen,
            directory.path(),
            Some(&store),
            &clock,
            Judgement::from(unjudged),
            Troubles::default(),
            &stop,
        );
        // Some hours of that clock.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(left(), 2);
        let mut config = Config::default();
        for wanted in [1, 0] {
            running.send_replace(Some(Running {
                each: vec![config.clone()],
                config: config.clone(),
            }));
            tokio::time::timeout(patience, until(wanted)).await.unwrap();
            assert_eq!(left(), wanted, "and no more than that");
            config.s3.input_prefix = "other/".into();
        }
        stop.cancel();
        assert!(retention.unwrap().standing().is_some());
    }
}
