//! `lookoutd demo`: everything embedded on the sample plant, with time running faster, so that a person sees files arrive
//! within seconds. It uses the daemon's own parts; only the clock differs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::output::{self, Output};
use super::runtime;
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::{Feeder, Parts, Plant, Store, make_sample};
use crate::feed::disk::LocalDisk;
use crate::feed::{Entry, State};
use crate::ops::admin::{self, Admin};
use crate::ops::site::{Site, Watched};
use crate::ops::{lock, log, signals};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd demo
  lookoutd demo --speed 120 --windows 12 --output json

It needs nothing: sample plant, S3 and credentials are made in the data directory, whose path is printed.")]
pub struct DemoArgs {
    /// How many times faster than real time
    #[arg(long, default_value_t = 60.0, value_parser = above_zero)]
    speed: f64,
    /// Directory for everything; otherwise a new one under the system's temporary directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Ends after this many windows; 0 goes on until it is stopped
    #[arg(long, default_value_t = 24)]
    windows: usize,
    /// Address of the embedded S3; port 0 chooses a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    s3_listen: SocketAddr,
    /// Address of the web console; port 0 chooses a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    admin_listen: SocketAddr,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What the demo did.
#[derive(Debug, Default, Serialize)]
struct Summary {
    windows: usize,
    files: u64,
    bytes: u64,
    bucket: String,
    endpoint_url: String,
    console: String,
    data_dir: String,
    keys: Vec<String>,
}

pub fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let quiet = log::Config {
        level: "warn".into(),
        ..log::Config::default()
    };
    log::start(&quiet).map_err(anyhow::Error::msg)?;
    let requests = signals::listen()?;
    let runtime = runtime()?;
    let result = runtime.block_on(demo(&args, requests.shutdown));
    runtime.shutdown_timeout(Duration::from_millis(300));
    let summary = result?;
    if args.output == Output::Json {
        output::json(&summary)?;
    } else {
        println!(
            "\n{} windows, {} files, {} in s3://{}/",
            summary.windows,
            summary.files,
            output::bytes(summary.bytes),
            summary.bucket
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn demo(args: &DemoArgs, shutdown: CancellationToken) -> anyhow::Result<Summary> {
    let say = |text: String| {
        if args.output == Output::Text {
            println!("{text}");
        } else {
            eprintln!("{text}");
        }
    };
    let data_dir = args.data_dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("lookoutd-demo-{}", std::process::id()))
    });
    let _lock = lock::lock(&data_dir)?;
    let config = Config::default();
    say(format!("data directory   {}", data_dir.display()));
    let stop = CancellationToken::new();
    let store = Store::embed(&data_dir, args.s3_listen, "", stop.clone()).await?;
    let endpoint_url = store
        .embedded
        .as_ref()
        .map(|server| server.endpoint_url())
        .unwrap_or_default();
    say(format!(
        "embedded S3      {endpoint_url}  bucket {}  credentials {}",
        store.bucket.name(),
        data_dir.join("credentials").display()
    ));
    make_sample(&data_dir.join("sample")).await?;
    // Time begins to run when the plant is there.
    let clock = Clock::accelerated(Clock::system().now(), args.speed);
    let plant = Plant::open(&config, &data_dir, clock.now()).await?;
    say(format!(
        "sample plant     {} signals in {} components, {} rows",
        plant.tags.signal_count(),
        plant.tags.components.len(),
        plant.info.rows
    ));
    say(format!(
        "time             runs {}x: a window of {} every {:.1} s",
        args.speed,
        config.feed.cadence,
        config.feed.cadence.seconds() as f64 / args.speed
    ));
    let (sites, seen) = watch::channel(None);
    let admin = admin::Config {
        listen: args.admin_listen.to_string(),
        ..admin::Config::default()
    };
    let console = Admin::start(&admin, seen, stop.clone()).await?;
    let console = console.map(|admin| admin.url()).unwrap_or_default();
    say(format!("console          {console}\n"));
    let mut feeder = Feeder::start(
        Parts {
            config: config.feed.clone(),
            naming: config.naming,
            prefix: store.prefix.clone(),
            data_dir: data_dir.clone(),
            tags: plant.tags.clone(),
            source: plant.source,
            bucket: store.bucket.clone(),
            clock: clock.clone(),
            disk: Arc::new(LocalDisk),
        },
        stop.clone(),
    )
    .await?;
    sites.send_replace(Some(Site {
        clock: clock.clone(),
        feed: Some(feeder.site(&config, &store, &plant.tags)),
        service: None,
        s3: Some(store.bucket.client().clone()),
        watched: Watched::default(),
    }));
    let mut seen: BTreeMap<i64, Entry> = BTreeMap::new();
    while (args.windows == 0 || seen.len() < args.windows) && !shutdown.is_cancelled() {
        tokio::select! {
            () = shutdown.cancelled() => {}
            reason = feeder.failed() => anyhow::bail!("a loop has failed: {reason}"),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        let mut recent = feeder.view().recent(50)?;
        recent.reverse();
        for entry in recent {
            let done = matches!(entry.state, State::Shipped | State::Partial | State::Empty);
            if !done || seen.contains_key(&entry.start.timestamp()) {
                continue;
            }
            say(format!(
                "{}  {} files, {} rows, {} -> s3://{}/{}*_{}.csv",
                output::utc(entry.start),
                entry.files,
                entry.rows,
                output::bytes(entry.bytes),
                store.bucket.name(),
                store.prefix,
                entry.start.format("%Y%m%d%H%M%S"),
            ));
            seen.insert(entry.start.timestamp(), entry);
        }
    }
    stop.cancel();
    feeder.drain(Duration::from_secs(2)).await;
    let keys = match seen.values().next_back() {
        Some(entry) => plant
            .tags
            .components
            .iter()
            .map(|component| {
                format!(
                    "{}{}",
                    store.prefix,
                    config.naming.file_name(&component.name, entry.start)
                )
            })
            .collect(),
        None => Vec::new(),
    };
    Ok(Summary {
        windows: seen.len(),
        files: seen.values().map(|entry| u64::from(entry.files)).sum(),
        bytes: seen.values().map(|entry| entry.bytes).sum(),
        bucket: store.bucket.name().to_owned(),
        endpoint_url,
        console,
        data_dir: data_dir.display().to_string(),
        keys,
    })
}

fn above_zero(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('x').parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("write it as a number above 0, such as 60".into()),
    }
}
