//! `lookoutd console DIR`: the web console over a data directory that nobody works on: windows, executions, scores and events
//! as they were left. It takes the directory's lock while it looks, serves on loopback, and ends with Ctrl-C. Nothing is cut,
//! sent, scored or deleted; time stands at the newest record, so that what was so then is shown as it was.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{ConfigArgs, output, runtime};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::{Lookout, Store, archive, input_prefix};
use crate::executions::Place;
use crate::feed::disk::LocalDisk;
use crate::feed::{Ledger, Spool};
use crate::inference::Index;
use crate::ops::admin::{self, Admin};
use crate::ops::site::{AssetSite, FeedSite, Site, Watched};
use crate::ops::{lock, log, signals};
use crate::s3::Bucket;
use crate::signal::{Asset, TagList};
use crate::store::Options;
use crate::vitals::{Code, Trouble, Vitals};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd console /tmp/lookoutd-demo-4711
  lookoutd console /var/lib/lookoutd --config /etc/lookoutd/lookoutd.toml    with the store and tags that it names

Of a directory that a daemon works on, that daemon serves the console: admin.listen of its configuration.")]
pub struct ConsoleArgs {
    /// Data directory of a gateway, a service or a demo
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Configuration of the daemon it belonged to; otherwise what is embedded is looked for
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the console, on loopback; port 0 chooses a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: std::net::SocketAddr,
}

pub fn run(args: ConsoleArgs) -> anyhow::Result<ExitCode> {
    let directory = &args.directory;
    let known = ["ledger.db", "archive", "service/state.db"];
    if !known.iter().any(|name| directory.join(name).exists()) {
        bail!(
            "{} is no data directory: it has none of {}",
            directory.display(),
            known.join(", ")
        );
    }
    if !args.listen.ip().is_loopback() {
        bail!(
            "{} is not on loopback: whoever looks from elsewhere takes a tunnel",
            args.listen
        );
    }
    let quiet = log::Config {
        level: "error".into(),
        ..log::Config::default()
    };
    log::start(&quiet).map_err(anyhow::Error::msg)?;
    let config = ConfigArgs {
        config: args.config.clone(),
        data_dir: Some(directory.clone()),
        set: Vec::new(),
    };
    let config = match args.config {
        Some(_) => config.load()?.config,
        None => Config::default(),
    };
    let requests = signals::listen()?;
    let runtime = runtime()?;
    runtime.block_on(show(&args, &config, requests.shutdown))?;
    runtime.shutdown_timeout(Duration::from_millis(300));
    Ok(ExitCode::SUCCESS)
}

async fn show(
    args: &ConsoleArgs,
    config: &Config,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let directory = args.directory.as_path();
    let _lock = lock::lock(directory)?;
    let store = store(config, directory, &shutdown).await?;
    let ledger = Ledger::open_existing(directory)?;
    let now = newest(ledger.as_ref(), directory)?;
    let vitals = Vitals::default();
    vitals.troubles().raise(Trouble::new(
        Code::NobodyWorks,
        now,
        format!(
            "nobody works on {}: this is how it was at {}",
            directory.display(),
            output::utc(now)
        ),
        "start its daemon to go on; end this console first",
    ));
    let clock = Clock::manual(now);
    let tags = tags(config, directory)?;
    let state = directory.join("service/state.db");
    let assets = assets(config, directory, &store, ledger.zip(tags), &vitals);
    let site = Site {
        inputs: Vec::new(),
        clock,
        assets,
        history: Some(match state.exists() {
            true => Place::service(state),
            false => Lookout::archived(config, directory),
        }),
        archive: Some(Lookout::archived(config, directory)),
        s3: Some(store.bucket.client().clone()),
        vitals,
        store: None,
    };
    let admin = admin::Config {
        listen: args.listen.to_string(),
        ..admin::Config::default()
    };
    let (_keeps, seen) = watch::channel(Some(site));
    let console = Admin::start(&admin, seen, crate::console::router(), shutdown.clone())
        .await?
        .context("an address was given")?;
    output::mention(&format!(
        "console   {}\nas of     {}, its newest record; until Ctrl-C\n",
        console.url(),
        output::utc(now)
    ));
    shutdown.cancelled().await;
    Ok(())
}

/// What is left of each asset.
fn assets(
    config: &Config,
    directory: &Path,
    store: &Store,
    fed: Option<(Ledger, TagList)>,
    vitals: &Vitals,
) -> Vec<AssetSite> {
    let Some((ledger, list)) = fed else {
        return vec![AssetSite::default()];
    };
    let spool = Spool::attach(Arc::new(LocalDisk), directory);
    let site = |asset: Asset| {
        let own = config.of(&asset);
        AssetSite {
            feed: Some(Arc::new(FeedSite {
                prefix: input_prefix(&own).to_owned(),
                naming: own.naming,
                tags: list.of(&asset),
                bucket: store.bucket.clone(),
                ledger: ledger.of(asset.name()),
                spool: spool.of(asset.name()),
                health: vitals.of(asset.name()).health().clone(),
                delay: TimeDelta::minutes(i64::from(own.inference.delay_offset_minutes)),
                config: own.feed,
            })),
            watched: Watched::default(),
            asset,
        }
    };
    list.assets().into_iter().map(site).collect()
}

/// The store that the directory's files and results lie in: its own, on a free port, or the one that is configured.
async fn store(
    config: &Config,
    directory: &Path,
    shutdown: &CancellationToken,
) -> anyhow::Result<Store> {
    if config.is_embedded() && config.s3.endpoint_url.is_empty() && directory.join("s3").exists() {
        let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let options = Options {
            shared_disk: config.store.shared_disk,
            ..Options::default()
        };
        return Store::embed(
            directory,
            free,
            &config.s3.input_prefix,
            options,
            shutdown.clone(),
        )
        .await;
    }
    Ok(Store {
        bucket: Bucket::new(config.s3.client().await, &config.s3.bucket),
        prefix: config.s3.input_prefix.clone(),
        embedded: None,
    })
}

/// The tag list: the configured one, or that of the sample plant in the directory.
fn tags(config: &Config, directory: &Path) -> anyhow::Result<Option<TagList>> {
    let sample = directory.join("sample/tags_description.csv");
    Ok(match config.source.tags.as_str() {
        "" if sample.exists() => Some(TagList::read(sample)?),
        "" => None,
        named => Some(TagList::read(named)?),
    })
}

/// The end of the newest window or execution that is recorded; now, where there is none.
fn newest(ledger: Option<&Ledger>, directory: &Path) -> anyhow::Result<DateTime<Utc>> {
    let cut = match ledger {
        Some(ledger) => ledger.list(1)?.first().map(|entry| entry.end),
        None => None,
    };
    let archived = match Index::open_existing(&archive(directory))? {
        Some(index) => index.newest("")?.map(|row| row.execution.data_end),
        None => None,
    };
    Ok(cut.max(archived).unwrap_or_else(|| Clock::system().now()))
}
