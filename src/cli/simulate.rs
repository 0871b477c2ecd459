//! `lookoutd simulate`: plays a recording live, as a plant would say it, so that a site is rehearsed before a cable is laid.
//!
//! Guarantees: a recorded row is said at its own time of day, which `--since` and `--from` fix, so that several processes of a rehearsal
//! and a second run say the same; what is said is acknowledged by the broker, or said again. The faults it makes are counted.

mod messages;
mod publisher;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, ValueEnum};
use tokio::time::Instant;

pub(super) use self::messages::topic_of;
use self::messages::{Signals, Spoil};
use self::publisher::Publisher;
use super::output::{self, Output};
use super::shape::ShapeArgs;
use super::{TimeArgs, runtime};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::{make_sample, open_history};
use crate::input::mqtt::Spoken;
use crate::sample::SampleOptions;
use crate::signal::{Cadence, Rebase, RowRule, TagList, Window};
use crate::source::{Source, recorded_time};

/// Days of the sample plant that are made where no history is named; its fault is among them.
const DAYS: u32 = 20;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd simulate --to mqtt://127.0.0.1:1883                   the sample plant, in real time
  lookoutd simulate --to mqtt://127.0.0.1:1883 --speed 60 --since 2026-01-01T00:00:00Z
  lookoutd simulate --to mqtt://broker:1883 --history signals.parquet --tags tags.csv --from 2015-11-20T00:00:00
  lookoutd simulate --to mqtt://broker:1883 --every 1s --for 10m  every signal once a second
  lookoutd simulate --to mqtt://broker:1883 --jitter 90s --gaps 0.01 --duplicates 0.05 --bad 0.01 --clock=-1h

The recorded time --from happens at --since (without it: now). A tag is said at its Address, PLACE#/POINTER of a JSON document for
example; one without at plant/SUBSYSTEM/TAG. An input reads it with:
  kind = \"mqtt\"   payload = \"json\"   time = \"/time\"   quality = \"/quality\"")]
pub struct SimulateArgs {
    /// The broker: mqtt://HOST:1883, or mqtts://HOST:8883
    #[arg(long, value_name = "URL")]
    to: String,
    /// History: a Parquet or CSV file, a directory of them, a pattern; {asset} in it is each asset's name. Otherwise the sample plant
    #[arg(long, value_name = "PLACE", requires = "tags")]
    history: Option<String>,
    /// Tag list with the columns Tag, Subsystem, and Address where topics are not made up
    #[arg(long, value_name = "FILE")]
    tags: Option<PathBuf>,
    /// Only this asset of the tag list
    #[arg(long, value_name = "NAME")]
    asset: Option<String>,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Recorded time to begin with; otherwise the history's first
    #[arg(long, value_name = "TIME", value_parser = recorded_time, allow_hyphen_values = true)]
    from: Option<i64>,
    #[command(flatten)]
    time: TimeArgs,
    /// Ends after this real time; otherwise at the history's end
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    lasts: Option<Duration>,
    /// What a message holds
    #[arg(long, value_enum, default_value_t)]
    payload: Form,
    /// Says every signal once in this time, with the value recorded last, instead of when a row was recorded
    #[arg(long, value_name = "SPAN", value_parser = span)]
    every: Option<Duration>,
    #[command(flatten)]
    faults: Faults,
    #[command(flatten)]
    broker: BrokerArgs,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What goes wrong in plants.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What goes wrong")]
struct Faults {
    /// Messages come late, by up to this; their times stay what they are
    #[arg(long, value_name = "SPAN", value_parser = span)]
    jitter: Option<Duration>,
    /// Share of samples that are never said
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    gaps: f64,
    /// Share of samples that are said twice
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    duplicates: f64,
    /// Share of samples whose quality is bad
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    bad: f64,
    /// How far the plant's clock is ahead; --clock=-1h is an hour behind
    #[arg(long, value_name = "SPAN", value_parser = signed, allow_hyphen_values = true)]
    clock: Option<TimeDelta>,
    /// Chooses which samples that are; the same seed chooses the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// How the broker is spoken to.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The broker")]
struct BrokerArgs {
    /// 5 or 3.1.1
    #[arg(long, value_name = "VERSION", default_value = "5", value_parser = spoken)]
    mqtt: Spoken,
    /// File with the user's name
    #[arg(long, value_name = "FILE", default_value = "")]
    user_file: String,
    /// File with the password
    #[arg(long, value_name = "FILE", default_value = "")]
    password_file: String,
    /// PEM file of the authorities that are trusted
    #[arg(long, value_name = "FILE", default_value = "")]
    tls_ca: String,
    /// PEM file of our certificate
    #[arg(long, value_name = "FILE", default_value = "", requires = "tls_key")]
    tls_cert: String,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", default_value = "")]
    tls_key: String,
}

/// What a message holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// {"value": 21.5, "time": "2026-01-01T00:00:00Z", "quality": "good"}
    #[default]
    Json,
    /// 21.5
    Number,
}

/// What was done.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(super) struct Summary {
    /// Messages that were said.
    published: u64,
    /// Of those, the ones that the broker acknowledged.
    acknowledged: u64,
    /// How often the broker was lost.
    losses: u64,
    /// Samples that were left out.
    gaps: u64,
    /// Samples that were said twice.
    duplicates: u64,
    /// Samples whose quality was bad.
    bad: u64,
}

pub fn run(args: SimulateArgs) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let summary = runtime.block_on(simulate(&args));
    runtime.shutdown_timeout(Duration::from_millis(300));
    let summary = summary?;
    match args.output {
        Output::Json => output::json(&summary)?,
        Output::Text => say!(
            "{} messages, {} acknowledged; {} samples left out, {} said twice, {} bad",
            summary.published,
            summary.acknowledged,
            summary.gaps,
            summary.duplicates,
            summary.bad
        ),
    }
    Ok(ExitCode::SUCCESS)
}

async fn simulate(args: &SimulateArgs) -> anyhow::Result<Summary> {
    let clock = args.time.clock();
    let anchor = args.time.since.unwrap_or_else(|| clock.now());
    let (history, list) = place(args).await?;
    let sources = open(args, &history, &list, anchor).await?;
    let broker = &args.broker;
    let config = crate::input::mqtt::Config {
        url: args.to.clone(),
        version: broker.mqtt,
        user_file: broker.user_file.clone(),
        password_file: broker.password_file.clone(),
        tls_ca: broker.tls_ca.clone(),
        tls_cert: broker.tls_cert.clone(),
        tls_key: broker.tls_key.clone(),
        ..crate::input::mqtt::Config::default()
    };
    if let Some((key, problem)) = config.problems().into_iter().next() {
        let flag = if key == "url" {
            "--to".to_owned()
        } else {
            format!("--{}", key.replace('_', "-"))
        };
        bail!("{flag} {problem}");
    }
    let id = format!("lookoutd-simulate-{:08x}", fastrand::u32(..));
    let options = config.options(&id).map_err(anyhow::Error::msg)?;
    let mut publisher = Publisher::connect(options).await?;
    let mut spoil = Spoil::new(&args.faults);
    let end = args.lasts.map(|lasts| Instant::now() + lasts);
    let play = play(args, &clock, sources, &mut publisher, &mut spoil);
    match end {
        None => play.await?,
        Some(end) => {
            if let Ok(played) = tokio::time::timeout_at(end, play).await {
                played?;
            }
        }
    }
    let mut summary = publisher.finish().await;
    (summary.gaps, summary.duplicates, summary.bad) = spoil.counts();
    Ok(summary)
}

/// One asset's history, and where its signals are said.
struct Playing {
    source: Box<dyn Source>,
    signals: Signals,
}

async fn play(
    args: &SimulateArgs,
    clock: &Clock,
    mut playing: Vec<Playing>,
    publisher: &mut Publisher,
    spoil: &mut Spoil,
) -> anyhow::Result<()> {
    let start = clock.now();
    let mut window = Window::containing(start, Cadence::Pt5m);
    let mut waiting = Vec::new();
    loop {
        let mut is_over = true;
        for one in std::mem::take(&mut playing) {
            let (one, said) = read(one, window, args).await?;
            is_over &= said.is_none();
            let from = start.timestamp_micros();
            let said = said.into_iter().flatten().filter(|it| it.time >= from);
            waiting.extend(said.flat_map(|it| spoil.spoil(it)));
            playing.push(one);
        }
        waiting.sort_by_key(|said: &messages::Said| said.at);
        let end = window.end().timestamp_micros();
        let due = waiting.partition_point(|said| is_over || said.at < end);
        let mut due: std::collections::VecDeque<_> = waiting.drain(..due).collect();
        while let Some(first) = due.front() {
            let at = first.at;
            if let Some(at) = DateTime::from_timestamp_micros(at) {
                publisher.serve_until(clock.sleep_until(at)).await?;
            }
            // What is due by now is said at once.
            let now = clock.now().timestamp_micros().max(at);
            let count = due.partition_point(|said| said.at <= now);
            let batch: Vec<_> = due.drain(..count).collect();
            publisher
                .publish(messages::documents(&batch, args.payload))
                .await?;
        }
        if is_over {
            return Ok(());
        }
        window = window.next();
    }
}

/// What an asset says in a window; none: it is over. Reading may wait for a disk, so it has a thread of its own.
async fn read(
    mut one: Playing,
    window: Window,
    args: &SimulateArgs,
) -> anyhow::Result<(Playing, Option<Vec<messages::Said>>)> {
    let every = args.every;
    tokio::task::spawn_blocking(move || {
        let reading = one.source.read(&window, RowRule::Notebook)?;
        let said = match reading.ended {
            true => None,
            false => Some(one.signals.said(&reading.frames, &window, every)),
        };
        Ok((one, said))
    })
    .await?
}

/// Where the history is, and its tag list; without one it is the sample plant, made once.
async fn place(args: &SimulateArgs) -> anyhow::Result<(String, TagList)> {
    let (history, tags) = match (&args.history, &args.tags) {
        (Some(history), Some(tags)) => (history.clone(), tags.clone()),
        (_, tags) => {
            let directory = std::env::temp_dir().join(format!("lookoutd-sample-{DAYS}"));
            let options = SampleOptions {
                days: DAYS,
                ..SampleOptions::default()
            };
            make_sample(&directory, &options).await?;
            let own = directory.join("tags_description.csv");
            let history = directory.join("signals.parquet").display().to_string();
            (history, tags.clone().unwrap_or(own))
        }
    };
    Ok((history, TagList::read(tags)?))
}

async fn open(
    args: &SimulateArgs,
    history: &str,
    list: &TagList,
    anchor: DateTime<Utc>,
) -> anyhow::Result<Vec<Playing>> {
    let shape = args.shape.shape()?;
    let assets = list.assets();
    let wanted = |name: &str| args.asset.as_deref().is_none_or(|asset| asset == name);
    let mut playing = Vec::new();
    for asset in assets.iter().filter(|asset| wanted(asset.name())) {
        let tags = list.of(asset);
        let location = history.replace("{asset}", asset.name());
        let (from, anchor) = (args.from, anchor.timestamp_micros());
        let rebase = move |first: i64| Rebase::once(from.unwrap_or(first), anchor);
        let s3 = &Config::default().s3;
        let source = open_history(&location, &tags, &shape, s3, rebase)
            .await
            .with_context(|| format!("the history {location}"))?;
        playing.push(Playing {
            source,
            signals: Signals::of(&tags),
        });
    }
    if playing.is_empty() {
        bail!(
            "the tag list has no asset {}",
            args.asset.as_deref().unwrap_or_default()
        );
    }
    Ok(playing)
}

fn span(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(crate::config::Span(span)) if !span.is_zero() => Ok(span),
        _ => Err("write it as a span of time, such as 30s or 5m".into()),
    }
}

fn signed(text: &str) -> Result<TimeDelta, String> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.trim_start_matches('+')),
    };
    let delta = TimeDelta::from_std(span(rest)?).map_err(|_| "is too long".to_owned())?;
    Ok(delta * sign)
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("write it as a share from 0 to 1, such as 0.01".into()),
    }
}

fn spoken(text: &str) -> Result<Spoken, String> {
    match text {
        "5" => Ok(Spoken::Five),
        "3.1.1" | "3" | "4" => Ok(Spoken::Three),
        _ => Err("write it as 5 or 3.1.1".into()),
    }
}
