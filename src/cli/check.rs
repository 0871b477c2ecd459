//! `lookoutd check`: the configuration first, then every dependency live. All findings at once, each with its remedy.

use std::process::ExitCode;

use chrono::TimeDelta;
use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::asset::{AssetArgs, One};
use super::lookout::{self, Comparison};
use super::output::{self, Output};
use super::{ConfigArgs, exit_code, runtime};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::{EMBEDDED_SCHEDULER, Plant, PlantInfo, Store, format_recorded};
use crate::executions::Place;
use crate::feed::disk::{Disk, LocalDisk};
use crate::inference::{Advice, ApiError};
use crate::input::{Tag, tags_of};
use crate::ops::lock;
use crate::ops::tls::{Tls, Validity};
use crate::s3::{Conditional, Disposition};
use crate::service::store::examine;
use crate::signal::TagList;
use crate::source::replay::Inventory;
use crate::store::Options;
use crate::store::opening::refuse_shared;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd check --offline --config lookoutd.toml    configuration, tag list and data directory only
  lookoutd check --config lookoutd.toml              also the history and the store

Exit codes: 0 all well, 3 findings, 73 data directory, 78 configuration.")]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    asset: AssetArgs,
    /// Looks at nothing beyond this machine, and does not open the history
    #[arg(long)]
    offline: bool,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Look {
    #[serde(skip_serializing_if = "String::is_empty")]
    asset: String,
    what: &'static str,
    ok: bool,
    detail: String,
    #[serde(skip)]
    code: u8,
}

pub fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let loaded = args.config.load()?;
    let config = loaded.config.clone();
    let mut looks = vec![Look {
        asset: String::new(),
        what: "configuration",
        ok: true,
        detail: "every key is known and fits".into(),
        code: 0,
    }];
    looks.push(data_dir(&config));
    looks.extend(service_state(&config));
    looks.extend(certificate(&config));
    if !config.source.tags.is_empty() {
        let mut brought = Vec::new();
        looks.push(match TagList::read(&config.source.tags) {
            Ok(tags) => {
                brought = inputs(&config, &tags);
                good("tag list", describe_list(&tags))
            }
            Err(error) => bad("tag list", &error.into()),
        });
        looks.extend(brought);
    }
    if config.notify.is_on() {
        looks.push(notifications(&config));
    }
    if !config.is_embedded() && config.inference.scheduler.is_empty() {
        looks.push(good(
            "scoring",
            "inference.scheduler names none: files are delivered, nobody scores them as far as this gateway knows".into(),
        ));
    }
    let assets = match args.asset.all(&loaded) {
        Ok(assets) => assets,
        Err(error) => {
            looks.push(bad("assets", &error));
            Vec::new()
        }
    };
    if !args.offline {
        runtime()?.block_on(online(&config, &assets, &mut looks));
    }
    let code = looks.iter().map(|look| look.code).max().unwrap_or(0);
    if args.output == Output::Json {
        output::json(&looks)?;
    } else {
        for look in &looks {
            say!(
                "{:<4} {:<16} {}{}",
                if look.ok { "ok" } else { "BAD" },
                look.what,
                if look.asset.is_empty() {
                    String::new()
                } else {
                    format!("{}: ", look.asset)
                },
                look.detail
            );
        }
    }
    Ok(ExitCode::from(match code {
        0 => 0,
        code @ (73 | 78) => code,
        _ => 3,
    }))
}

/// The secret and the program are there; nothing is sent.
fn notifications(config: &Config) -> Look {
    match config.notify.targets() {
        Ok(targets) => {
            let places: Vec<_> = targets.iter().map(|target| target.place()).collect();
            good(
                "notifications",
                format!("to {}; lookoutd notify test sends one", places.join(", ")),
            )
        }
        Err(error) => bad("notifications", &error.into()),
    }
}

/// Every page and row of the service's database, if there is one.
fn service_state(config: &Config) -> Option<Look> {
    let directory = config.data_dir().join("service");
    directory.exists().then(|| match examine(&directory) {
        Ok(()) => good("service state", "whole".into()),
        Err(error) => bad("service state", &error.into()),
    })
}

fn data_dir(config: &Config) -> Look {
    let path = config.data_dir();
    let probe = path.join(".check");
    let tried = lock::create_private(&path)
        .and_then(|()| LocalDisk.write(&probe, b"lookoutd\n"))
        .and_then(|()| LocalDisk.sync(&probe))
        .and_then(|()| std::fs::remove_file(&probe))
        .and_then(|()| LocalDisk.free(&path));
    match tried {
        Ok(free) if free < config.feed.min_free.0 => Look {
            asset: String::new(),
            what: "data directory",
            ok: false,
            detail: format!(
                "{}: {} free, cutting pauses below feed.min_free {}: make room",
                path.display(),
                output::bytes(free),
                config.feed.min_free
            ),
            code: 3,
        },
        Ok(free) => good(
            "data directory",
            format!("{}, {} free", path.display(), output::bytes(free)),
        ),
        Err(error) => Look {
            asset: String::new(),
            what: "data directory",
            ok: false,
            detail: format!(
                "{}: {error}; create it and make it writable for this user, or set data_dir",
                path.display()
            ),
            code: 73,
        },
    }
}

/// The admin listener's certificate, where it has one.
fn certificate(config: &Config) -> Option<Look> {
    const SOON: TimeDelta = TimeDelta::days(14);
    let now = Clock::system().now();
    let look = |ok, detail, code| Look {
        asset: String::new(),
        what: "admin TLS",
        ok,
        detail,
        code,
    };
    let until = Tls::open(&config.admin.tls_cert, &config.admin.tls_key)
        .and_then(|tls| tls.map(|tls| tls.validity(now)).transpose());
    Some(match until {
        Ok(None) => return None,
        Ok(Some(Validity::Until(end))) if end - now > SOON => look(
            true,
            format!("certificate and key fit, until {}", output::utc(end)),
            0,
        ),
        Ok(Some(Validity::Until(end))) => look(
            false,
            format!("the certificate ends on {}: renew it", output::utc(end)),
            3,
        ),
        Ok(Some(Validity::Ended(end))) => look(
            false,
            format!("the certificate ended on {}: renew it", output::utc(end)),
            3,
        ),
        Ok(Some(Validity::Begins(begin))) => look(
            false,
            format!(
                "the certificate begins on {}: is this machine's clock right?",
                output::utc(begin)
            ),
            3,
        ),
        Err(error) => look(false, error.to_string(), 78),
    })
}

/// What a history is, and what of it somebody may not expect.
fn describe_history(info: &PlantInfo) -> String {
    let mut text = format!(
        "{} rows from {} to {}",
        info.rows,
        format_recorded(info.first),
        format_recorded(info.last)
    );
    let Inventory {
        files,
        lacking,
        waiting,
        skipped,
        shown,
    } = &info.inventory;
    if *files != 1 || *skipped > 0 {
        text.push_str(&format!(" in {files} files"));
    }
    if *skipped > 0 {
        text.push_str(&format!(
            "; {skipped} names are passed over: {}",
            shown.join(", ")
        ));
    }
    if *lacking > 0 {
        text.push_str(&format!(
            "; {lacking} of its files lack a column of the tag list, which is empty there"
        ));
    }
    if let Some(first) = waiting.first() {
        text.push_str(&format!(
            "; {} files cannot be read now, windows that they may have rows of wait: {first}",
            waiting.len()
        ));
    }
    if !info.sorted {
        text.push_str("; its rows are not sorted by time: they are put in order at each start, sort the file to spare that");
    }
    if info.doubled > 0 {
        text.push_str(&format!(
            "; {} rows have the same time as a later one and are dropped: local times over the hour that comes twice? see source.time_zone",
            info.doubled
        ));
    }
    if let Some(strays) = info.strays {
        text.push_str(&format!(
            "; {} rows lie years from all others, such as one at {}, and are left out: is that a \"no date\"?",
            strays.rows,
            format_recorded(strays.example)
        ));
    }
    text
}

/// What each input brings by the tag list. Whether the two fit is said with the assets.
fn inputs(config: &Config, tags: &TagList) -> Vec<Look> {
    let by_input = tags_of(&config.input, tags);
    let look = |(name, tags): (String, Vec<Tag>)| {
        let kind = config.input.get(&name).map_or("", |input| input.kind());
        good(
            "input",
            format!("{name} ({kind}) brings {} tags", tags.len()),
        )
    };
    by_input.into_iter().map(look).collect()
}

/// What is in a tag list.
fn describe_list(tags: &TagList) -> String {
    let assets = match tags.assets().as_slice() {
        [one] if !one.is_named() => String::new(),
        some => format!(" of {} assets", some.len()),
    };
    format!(
        "{} signals in {} components{assets}",
        tags.signal_count(),
        tags.components.len()
    )
}

/// History and scheduler of each asset.
async fn online_of(one: &One, looks: &mut Vec<Look>) {
    let (config, now) = (&one.config, Clock::system().now());
    let before = looks.len();
    if !config.source.location().is_empty() {
        let tags = one.tags.clone().unwrap_or_default();
        let plant = Plant::look_of(&one.asset, tags, config, &config.data_dir(), now).await;
        looks.push(match plant {
            Ok(plant) => good("history", describe_history(&plant.info)),
            Err(error) => bad("history", &error),
        });
    }
    scheduler(one, looks).await;
    for look in &mut looks[before..] {
        one.asset.name().clone_into(&mut look.asset);
    }
}

async fn online(config: &Config, assets: &[One], looks: &mut Vec<Look>) {
    for one in assets {
        online_of(one, looks).await;
    }
    // Of several, the place of the first.
    let config = assets.first().map_or(config, |one| &one.config);
    if config.is_embedded() {
        let options = Options {
            shared_disk: config.store.shared_disk,
            ..Options::default()
        };
        looks.push(
            match refuse_shared(&config.data_dir().join("s3"), &options) {
                Ok(()) => good("store", "embedded, served by `lookoutd run`".into()),
                Err(error) => bad("store", &error.into()),
            },
        );
        return;
    }
    let store = match Store::open(
        config,
        &config.data_dir(),
        &Clock::system(),
        CancellationToken::new(),
    )
    .await
    {
        Ok(store) => store,
        Err(error) => return looks.push(bad("store", &error)),
    };
    let Store {
        mut bucket, prefix, ..
    } = store;
    let place = format!("s3://{}/{prefix}", bucket.name());
    match bucket.probe(&prefix).await {
        Ok(Conditional::Honoured) => looks.push(good("store", format!("{place} takes conditional creates"))),
        Ok(conditional) => looks.push(Look {
            asset: String::new(),
            what: "store",
            ok: false,
            detail: format!(
                "{place} {}: keys are looked up before each upload, and two writers may overwrite each other; run one gateway per \
                 prefix",
                conditional.lacking().unwrap_or_default()
            ),
            code: 3,
        }),
        Err(error) => {
            let remedy = match error.disposition() {
                Disposition::Hold(remedy) => remedy,
                Disposition::Throttled => "the store asks for patience: try again later",
                Disposition::Retry | Disposition::Exists => "check s3.endpoint_url and that the store is up",
            };
            looks.push(Look {
                asset: String::new(),
                what: "store",
                ok: false,
                detail: format!("{error}; {remedy}"),
                code: 3,
            });
        }
    }
}

/// The API, the scheduler, and whether it looks for what is written.
async fn scheduler(one: &One, looks: &mut Vec<Look>) {
    let config = &one.config;
    if config.is_embedded()
        && config.inference.endpoint_url.is_empty()
        && lock::holder(&config.data_dir()).is_none()
    {
        return looks.extend(embedded(config));
    }
    // A tag list that cannot be read has been reported already.
    match lookout::compare(config, one.tags.as_ref()).await {
        Ok(None) => {}
        Ok(Some(comparison)) if comparison.disagreements.is_empty() => {
            let Comparison {
                scheduler, status, ..
            } = comparison;
            looks.push(good(
                "scheduler",
                if status == "absent" {
                    format!("{scheduler} is absent: lookoutd run creates it")
                } else {
                    format!("{scheduler} is {status} and looks for what is written")
                },
            ));
        }
        Ok(Some(comparison)) => {
            for one in comparison.disagreements {
                looks.push(Look {
                    asset: String::new(),
                    what: "scheduler",
                    ok: false,
                    detail: format!("{}; {}", one.what, one.fix),
                    code: 3,
                });
            }
        }
        Err(error) => {
            let remedy = error
                .downcast_ref::<ApiError>()
                .map(|error| match error.advice() {
                    Advice::Hold(remedy) => remedy,
                    Advice::Retry => "check inference.endpoint_url and that the service is up",
                })
                .unwrap_or("check [inference]");
            looks.push(Look {
                asset: String::new(),
                what: "scheduler",
                ok: false,
                detail: format!("{error:#}; {remedy}"),
                code: 3,
            });
        }
    }
}

/// The scheduler of an embedded service that does not run now, or never did: keys and scheduler are made at the start, the
/// model must be there.
fn embedded(config: &Config) -> Option<Look> {
    let inference = &config.inference;
    let name = match inference.scheduler.as_str() {
        "" => EMBEDDED_SCHEDULER,
        name => name,
    };
    if inference.model.is_empty() {
        return Some(good(
            "scheduler",
            format!("{name} is made as soon as the embedded service has a model"),
        ));
    }
    let state = Place::service(config.data_dir().join("service/state.db")).open();
    let model = match state.map(|state| state.model(&inference.model)) {
        Some(Ok(model)) => model,
        Some(Err(error)) => return Some(bad("scheduler", &error.into())),
        None => None,
    };
    Some(match model {
        Some(status) if status == "SUCCESS" => good(
            "scheduler",
            format!(
                "{name} is made or kept by lookoutd run; its model {} is there",
                inference.model
            ),
        ),
        other => Look {
            asset: String::new(),
            what: "scheduler",
            ok: false,
            detail: match other {
                Some(status) => format!("model {} is {status}", inference.model),
                None => format!(
                    "the embedded service has no model {}: train or register it (lookoutd model register), or correct \
                     inference.model",
                    inference.model
                ),
            },
            code: 3,
        },
    })
}

fn good(what: &'static str, detail: String) -> Look {
    Look {
        asset: String::new(),
        what,
        ok: true,
        detail,
        code: 0,
    }
}

fn bad(what: &'static str, error: &anyhow::Error) -> Look {
    Look {
        asset: String::new(),
        what,
        ok: false,
        detail: format!("{error:#}"),
        code: exit_code(error),
    }
}
