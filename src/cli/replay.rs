//! `lookoutd replay`: cuts a bounded part of a history through the same source, names and encoder as the daemon, into a
//! directory or straight into the bucket. Running it again is harmless: the same input gives the same keys and bytes.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, Utc};
use clap::Args;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use tracing::info;

use super::asset::{self, AssetArgs};
use super::output::{self, Output};
use super::shape::ShapeArgs;
use super::{ConfigArgs, runtime};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::{Store, open_replay};
use crate::ops::{lock, log};
use crate::s3::{Bucket, Created, Disposition, S3Error};
use crate::signal::{Cadence, Rebase, RowRule, TagList, Window, timestamp};
use crate::source::{Source, recorded_time};

/// Objects on their way to the bucket at once.
const IN_FLIGHT: usize = 64;
/// Attempts for one object before the command gives up with a code that says what to do.
const ATTEMPTS: u32 = 8;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd replay --history signals.parquet --tags tags_description.csv \\
      --from 2020-01-10T00:00:00 --to 2020-01-11T00:00:00 --at 2026-01-01T00:00:00Z \\
      --cadence PT5M --rows notebook --out files
  lookoutd replay --config lookoutd.toml --from 2015-11-21T04:00:00 --to 2015-11-21T05:00:00 --speed 60

The recorded time FROM becomes the wall-clock time AT. Without --out files go to the configured bucket.")]
pub struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    asset: AssetArgs,
    /// History: a Parquet or CSV file, a directory of them, a pattern, s3://bucket/key or s3://bucket/prefix/; otherwise source.history
    #[arg(long, value_name = "PLACE", visible_alias = "parquet")]
    history: Option<String>,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Tag list with the columns Tag, UOM, Subsystem; otherwise source.tags
    #[arg(long, value_name = "FILE")]
    tags: Option<String>,
    /// Recorded time to begin with
    #[arg(long, value_name = "TIME", value_parser = recorded_time)]
    from: i64,
    /// Recorded time to end before
    #[arg(long, value_name = "TIME", value_parser = recorded_time)]
    to: i64,
    /// Wall-clock time that FROM becomes, UTC, on a boundary of the cadence; otherwise FROM itself
    #[arg(long, value_name = "TIME", value_parser = timestamp::instant)]
    at: Option<DateTime<Utc>>,
    /// Window length: PT5M, PT10M, PT15M, PT30M or PT1H; otherwise feed.cadence
    #[arg(long)]
    cadence: Option<Cadence>,
    /// Which rows a window has: service, (start, end], or notebook, [start, end); otherwise feed.rows
    #[arg(long)]
    rows: Option<RowRule>,
    /// Directory for the files, instead of the bucket
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How many times faster than real time, or max
    #[arg(long, default_value = "max", value_parser = speed)]
    speed: Speed,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug)]
enum Speed {
    Max,
    Times(f64),
}

#[derive(Debug, Default, serde::Serialize)]
struct Summary {
    windows: u64,
    empty: u64,
    files: u64,
    rows: u64,
    bytes: u64,
    already_there: u64,
    /// Rows that were dropped because a later one has the same time.
    doubled: u64,
    /// Values that are infinite and were written as missing.
    infinite: u64,
    /// Values that are words, such as `No Data`, and were written as missing.
    words: u64,
    /// Values of bad quality, which were written as missing.
    bad: u64,
}

pub fn run(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let mut args = args;
    // What is named here counts as configured, so that a bucket alone needs no [source] section.
    let places = [("history", &args.history), ("tags", &args.tags)];
    let places = places
        .into_iter()
        .filter_map(|(key, given)| Some((key, given.as_deref()?)));
    let given: Vec<_> = places
        .chain(args.shape.keys())
        .map(|(key, given)| (format!("source.{key}"), given.to_owned()))
        .collect();
    args.config.set.extend(given.iter().cloned());
    if args.history.is_some() {
        args.config
            .set
            .push(("source.parquet".to_owned(), String::new()));
    }
    let mut loaded = args.config.load()?;
    for own in loaded.config.asset.values_mut() {
        given.iter().for_each(|(key, _)| own.give_way(key));
    }
    let config = args.asset.one(&loaded)?.config;
    log::start(&config.log).map_err(anyhow::Error::msg)?;
    let place = |given: &Option<String>, configured: &str, flag: &str| match given {
        // As it is for the asset.
        Some(_) if !configured.is_empty() => Ok(configured.to_owned()),
        Some(place) => Ok(place.clone()),
        None if !configured.is_empty() => Ok(configured.to_owned()),
        None => Err(anyhow!("{flag} is needed, here or in the configuration")),
    };
    let history = place(&args.history, config.source.location(), "--history")?;
    let tags = TagList::read(place(&args.tags, &config.source.tags, "--tags")?)?;
    let tags = asset::part(&tags, args.asset.name())?;
    let cadence = args.cadence.unwrap_or(config.feed.cadence);
    let rows = args.rows.unwrap_or(config.feed.rows);
    let (from, to) = (args.from, args.to);
    if from >= to {
        bail!("--from must be before --to");
    }
    let at = match args.at {
        Some(at) => at,
        None => DateTime::from_timestamp_micros(from).context("--from")?,
    };
    let first = Window::new(at, cadence).with_context(|| {
        format!(
            "{} must be on a boundary of {cadence}",
            if args.at.is_some() {
                "--at"
            } else {
                "--from, without --at,"
            }
        )
    })?;
    let length = cadence.seconds() * 1_000_000;
    let count = (to - from + length - 1) / length;
    let job = Job {
        first,
        count,
        rows,
        speed: args.speed,
    };
    let runtime = runtime()?;
    let summary = runtime.block_on(async {
        let rebase = Rebase::once(from, at.timestamp_micros());
        let source =
            open_replay(&history, &tags, &config.source.shape(), &config.s3, rebase).await?;
        match &args.out {
            Some(directory) => to_directory(&job, source, &config, directory).await,
            None => to_bucket(&job, source, &config).await,
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(300));
    let summary = summary?;
    if args.output == Output::Json {
        output::json(&summary)?;
    } else {
        say!(
            "{} windows, {} of them empty; {} files, {} rows, {}",
            summary.windows,
            summary.empty,
            summary.files,
            summary.rows,
            output::bytes(summary.bytes)
        );
        if summary.doubled > 0 {
            say!(
                "{} rows were dropped because a later one has the same time: local times over the hour that comes twice? see source.time_zone",
                summary.doubled
            );
        }
        if summary.infinite > 0 {
            say!(
                "{} values are infinite and were written as missing",
                summary.infinite
            );
        }
        if summary.words > 0 {
            say!(
                "{} values are words and were written as missing",
                summary.words
            );
        }
        if summary.bad > 0 {
            say!(
                "{} values are of bad quality and were written as missing",
                summary.bad
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// File names and their bytes.
type Files = Vec<(String, Vec<u8>)>;

/// What was cut of one window.
struct Cut {
    files: Files,
    rows: u64,
    doubled: u64,
    infinite: u64,
    words: u64,
    bad: u64,
}

struct Job {
    first: Window,
    count: i64,
    rows: RowRule,
    speed: Speed,
}

impl Job {
    /// What was cut of the n-th window, and the source again. Reading may wait for a disk or a
    /// network, so it has a thread of its own.
    async fn cut(
        &self,
        mut source: Box<dyn Source>,
        config: &Config,
        n: i64,
    ) -> anyhow::Result<(Box<dyn Source>, Cut)> {
        let (window, rule) = (self.first.offset(n), self.rows);
        let (source, reading) = tokio::task::spawn_blocking(move || {
            let reading = source.read(&window, rule);
            (source, reading)
        })
        .await?;
        let reading = reading?;
        let (doubled, infinite) = (reading.duplicates as u64, reading.infinite as u64);
        let (words, bad) = (reading.words as u64, reading.bad as u64);
        let mut rows = 0;
        let files = reading
            .frames
            .iter()
            .filter(|frame| frame.rows() > 0)
            .map(|frame| {
                rows = rows.max(frame.rows() as u64);
                let mut bytes = Vec::new();
                frame.encode_csv(&mut bytes);
                (
                    config.naming.file_name(&frame.component, window.start()),
                    bytes,
                )
            })
            .collect();
        let cut = Cut {
            files,
            rows,
            doubled,
            infinite,
            words,
            bad,
        };
        Ok((source, cut))
    }

    async fn pace(&self, started: tokio::time::Instant, n: i64) {
        if let Speed::Times(times) = self.speed {
            let elapsed =
                self.first.cadence().duration().num_milliseconds() as f64 * n as f64 / times;
            tokio::time::sleep_until(started + Duration::from_millis(elapsed as u64)).await;
        }
    }
}

async fn to_directory(
    job: &Job,
    mut source: Box<dyn Source>,
    config: &Config,
    directory: &Path,
) -> anyhow::Result<Summary> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("creating {}", directory.display()))?;
    let (mut progress, mut summary) = (Progress::new(job.count), Summary::default());
    let started = tokio::time::Instant::now();
    for n in 0..job.count {
        job.pace(started, n).await;
        let cut;
        (source, cut) = job.cut(source, config, n).await?;
        summary.add(&cut);
        for (name, bytes) in cut.files {
            let path = directory.join(name);
            std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        }
        progress.step(&summary);
    }
    progress.finish();
    Ok(summary)
}

async fn to_bucket(
    job: &Job,
    mut source: Box<dyn Source>,
    config: &Config,
) -> anyhow::Result<Summary> {
    let servers = tokio_util::sync::CancellationToken::new();
    let data_dir = config.data_dir();
    // The embedded store's files belong to one process at a time.
    let _lock = if config.is_embedded() {
        Some(lock::lock(&data_dir)?)
    } else {
        None
    };
    let mut store = Store::open(config, &data_dir, &Clock::system(), servers.clone()).await?;
    store.bucket.probe(&store.prefix).await?;
    let (mut progress, mut summary) = (Progress::new(job.count), Summary::default());
    let started = tokio::time::Instant::now();
    let mut uploads = futures_util::stream::FuturesUnordered::new();
    for n in 0..job.count {
        job.pace(started, n).await;
        let cut;
        (source, cut) = job.cut(source, config, n).await?;
        summary.add(&cut);
        for (name, bytes) in cut.files {
            while uploads.len() >= IN_FLIGHT {
                if let Some(created) = uploads.next().await {
                    summary.settle(created?)?;
                }
            }
            uploads.push(create(
                &store.bucket,
                format!("{}{name}", store.prefix),
                bytes,
            ));
        }
        progress.step(&summary);
    }
    while let Some(created) = uploads.next().await {
        summary.settle(created?)?;
    }
    progress.finish();
    servers.cancel();
    Ok(summary)
}

/// Creates one object, with patience for what passes and none for what needs a person.
async fn create(
    bucket: &Bucket,
    key: String,
    bytes: Vec<u8>,
) -> Result<(String, Created), S3Error> {
    let mut attempt = 0;
    loop {
        match bucket.create(&key, &bytes).await {
            Ok(created) => return Ok((key, created)),
            Err(error) => {
                attempt += 1;
                if attempt >= ATTEMPTS || matches!(error.disposition(), Disposition::Hold(_)) {
                    return Err(error);
                }
                let ceiling = Duration::from_millis(250) * 2u32.pow(attempt.min(6));
                tokio::time::sleep(ceiling.mul_f64(fastrand::f64())).await;
            }
        }
    }
}

impl Summary {
    fn add(&mut self, cut: &Cut) {
        self.windows += 1;
        self.empty += u64::from(cut.files.is_empty());
        self.files += cut.files.len() as u64;
        self.rows += cut.rows;
        self.doubled += cut.doubled;
        self.infinite += cut.infinite;
        self.words += cut.words;
        self.bad += cut.bad;
        self.bytes += cut
            .files
            .iter()
            .map(|(_, bytes)| bytes.len() as u64)
            .sum::<u64>();
    }

    fn settle(&mut self, (key, created): (String, Created)) -> anyhow::Result<()> {
        match created {
            Created::Written => {}
            Created::AlreadyThere => self.already_there += 1,
            Created::Conflict(what) => bail!(
                "{key} exists with other bytes ({what}): it is left as it is; choose another --at or another prefix"
            ),
        }
        Ok(())
    }
}

/// A bar with rate and remaining time on a terminal, log lines elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    total: i64,
    said: tokio::time::Instant,
}

impl Progress {
    fn new(total: i64) -> Self {
        let style =
            ProgressStyle::with_template("{bar:40} {pos}/{len} windows  {per_sec}  {eta} left");
        let bar = match style {
            Ok(style) if std::io::stderr().is_terminal() => {
                Some(ProgressBar::new(total.max(0) as u64).with_style(style))
            }
            _ => None,
        };
        Self {
            bar,
            total,
            said: tokio::time::Instant::now(),
        }
    }

    fn step(&mut self, summary: &Summary) {
        if let Some(bar) = &self.bar {
            bar.set_position(summary.windows);
        } else if self.said.elapsed() > Duration::from_secs(5) {
            self.said = tokio::time::Instant::now();
            info!(
                windows = summary.windows,
                of = self.total,
                files = summary.files,
                bytes = summary.bytes,
                "replaying"
            );
        }
    }

    fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    match text.trim_end_matches('x').parse::<f64>() {
        Ok(times) if times > 0.0 && times.is_finite() => Ok(Speed::Times(times)),
        _ => Err("write it as a number above 0, such as 60, or max".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_numbers_above_zero_or_max() {
        assert!(matches!(speed("60"), Ok(Speed::Times(s)) if s == 60.0));
        assert!(matches!(speed("2.5x"), Ok(Speed::Times(s)) if s == 2.5));
        assert!(matches!(speed("max"), Ok(Speed::Max)));
        assert!(speed("0").is_err() && speed("-1").is_err() && speed("fast").is_err());
    }
}
