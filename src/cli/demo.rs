//! `lookoutd demo`: the whole loop on the sample plant, with time running faster: files, a model, a scheduler, executions,
//! archived results, and at the end whether the fault in the plant was found. It uses the daemon's own parts; only the
//! clock differs. Feeding begins at once; the model is trained beside it, and the scheduler made when it is ready.

mod story;
mod trained;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::output::{self, Output};
use super::{above_zero, runtime};
use crate::clock::Clock;
use crate::config::{Config, Loaded};
use crate::daemon::{
    Beginning, Line, LineError, Plan, Plant, Wiring, archive, input_prefix, make_sample,
};
use crate::executions::Place;
use crate::feed::{Entry, State};
use crate::ops::admin::{self, Admin};
use crate::ops::{lock, log, signals};
use crate::s3::Bucket;
use crate::sample::{FIRST_FAULT_DAY, SampleOptions, SampleSummary, describe_sample};
use story::{Story, Summary};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd demo
  lookoutd demo --speed 120 --windows 30 --output json

It needs nothing: sample plant, S3, API and credentials are made in the data directory, whose path is printed. On a
terminal its console stays until Ctrl-C.
The plant runs healthy for the first half; then one of its components begins to fail.")]
pub struct DemoArgs {
    /// How many times faster than real time
    #[arg(long, default_value_t = 60.0, value_parser = above_zero)]
    speed: f64,
    /// Directory for everything; otherwise a new one under the system's temporary directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Says what was found after results of this many windows, and ends where no terminal looks on; 0 goes on until it is
    /// stopped
    #[arg(long, default_value_t = 24)]
    windows: usize,
    /// Address of the embedded S3; port 0 chooses a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    s3_listen: SocketAddr,
    /// Address of the web console; port 0 chooses a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    admin_listen: SocketAddr,
    /// Address of the embedded Lookout API; port 0 chooses a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Days of history: enough to learn a healthy machine from, few enough to be made in a moment.
const DAYS: u32 = 60;
/// The scheduler and the model.
const SCHEDULER: &str = "demo-scheduler";
const MODEL: &str = "demo-model";

pub fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let quiet = log::Config {
        level: "error".into(),
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
    } else if !summary.concluded {
        say_part!("\n{summary}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn demo(args: &DemoArgs, shutdown: CancellationToken) -> anyhow::Result<Summary> {
    let say = |text: String| {
        if args.output == Output::Text {
            say!("{text}");
        } else {
            complain!("{text}");
        }
    };
    let data_dir = match &args.data_dir {
        Some(directory) => directory.clone(),
        None => lock::create_scratch("lookoutd-demo").context("making a directory for the demo")?,
    };
    if data_dir.join("ledger.db").exists() {
        anyhow::bail!(
            "{} has been used: a demo begins anew, so give it a new directory, or remove that one",
            data_dir.display()
        );
    }
    let _lock = lock::lock(&data_dir)?;
    say(format!("data directory   {}", data_dir.display()));
    let options = SampleOptions {
        days: DAYS,
        // Its fault grows within an hour, so that a demo shows its beginning.
        last_day: FIRST_FAULT_DAY,
        ..SampleOptions::default()
    };
    let sample = describe_sample(&options)?;
    let directory = data_dir.join("sample");
    make_sample(&directory, &options).await?;
    let config = config(args, &sample);
    // Time begins to run when the plant is there.
    let clock = Clock::accelerated(Clock::system().now(), args.speed);
    let stop = CancellationToken::new();
    let wiring = Wiring::open(&config, &data_dir, clock.clone(), stop.clone()).await?;
    let (store, lookout) = (&wiring.store, &wiring.lookout);
    let service = lookout.service().context("the service is in process")?;
    let plant = Plant::open(&config, &data_dir, clock.now()).await?;
    let first = crate::signal::Window::containing(clock.now(), config.feed.cadence);
    let story = Story {
        component: sample.fault_component.clone(),
        fault_start: first.start() + lead(args, &config),
    };
    let endpoint_url = store
        .embedded
        .as_ref()
        .map(|server| server.endpoint_url())
        .unwrap_or_default();
    let (sites, seen) = watch::channel(None);
    let admin = admin::Config {
        listen: args.admin_listen.to_string(),
        ..admin::Config::default()
    };
    let console = Admin::start(&admin, seen, crate::console::router(), stop.clone()).await?;
    let console = console.map(|admin| admin.url()).unwrap_or_default();
    let api_url = format!("http://{}", service.address());
    for line in [
        format!(
            "embedded S3      {endpoint_url}  bucket {}",
            store.bucket.name()
        ),
        format!("embedded API     {api_url}"),
        format!("console          {console}"),
        format!(
            "credentials      {}",
            data_dir.join("credentials").display()
        ),
        format!(
            "sample plant     {} signals in {} components, {} rows",
            plant.tags.signal_count(),
            plant.tags.components.len(),
            plant.info.rows
        ),
        format!(
            "time             runs {}x: a window of {} every {:.1} s",
            args.speed,
            config.feed.cadence,
            config.feed.cadence.seconds() as f64 / args.speed
        ),
        format!(
            "story            healthy until {}, then {} begins to fail",
            output::utc(story.fault_start),
            story.component
        ),
        "lines            fed: a window's files are in S3; normal or ANOMALY: its result, soon after the window has ended"
            .to_owned(),
        "score            0 to 1, anomalous above 0.5; then the sensors behind it, with their shares\n"
            .to_owned(),
    ] {
        say(line);
    }
    let tags = plant.tags.clone();
    let conclude = |told: &Told, story: &Story| -> anyhow::Result<Summary> {
        let complete = told.complete(args.windows);
        let keys = complete.last().map(|entry| {
            let name = |name: &str| config.naming.file_name(name, entry.start);
            let components = tags.components.iter();
            components
                .map(|component| format!("{}{}", input_prefix(&config), name(&component.name)))
                .collect()
        });
        Ok(Summary {
            windows: complete.len(),
            files: complete.iter().map(|entry| u64::from(entry.files)).sum(),
            bytes: complete.iter().map(|entry| entry.bytes).sum(),
            windows_fed: told.fed.len(),
            bucket: store.bucket.name().to_owned(),
            endpoint_url: endpoint_url.clone(),
            api_url: api_url.clone(),
            event: event(&data_dir, story, clock.now()).map(|at| {
                format!(
                    "{console}scheduler?name={SCHEDULER}&event={}",
                    at.timestamp_micros()
                )
            }),
            console: console.clone(),
            data_dir: data_dir.display().to_string(),
            data_bytes: occupied(&data_dir),
            keys: keys.unwrap_or_default(),
            ..story.summary(&archive(&data_dir))?
        })
    };
    let loaded = Loaded {
        config: config.clone(),
        origins: Vec::new(),
    };
    let (is_trained, changed) = (CancellationToken::new(), Arc::new(Notify::new()));
    let mut lines = Vec::new();
    let mut plant = Some(plant);
    for plan in Plan::all(&loaded, &data_dir)? {
        let begins = Beginning {
            plant: plant.take(),
            after: None,
            once: false,
            assets: 1,
            watched_from: Some(is_trained.clone()),
        };
        lines.push(Line::start(&wiring, plan, begins, changed.clone()));
    }
    let mut training = Some(tokio::task::spawn_blocking({
        let (directory, tags, sample) = (directory.clone(), tags.clone(), sample.clone());
        move || trained::train(&directory, &tags, &sample, MODEL)
    }));
    let mut told = Told::default();
    // Whoever looks on has time to look around; a script has its answer.
    let stays = args.output == Output::Text && std::io::stdout().is_terminal();
    let mut concluded = false;
    while !shutdown.is_cancelled() {
        if args.windows > 0 && told.results.len() >= args.windows && !concluded {
            if !stays {
                break;
            }
            concluded = true;
            say(format!("\n{}", conclude(&told, &story)?));
            say("The console stays, and the plant goes on, until Ctrl-C.\n".to_owned());
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = changed.notified() => {
                sites.send_replace(Some(wiring.site(&config, &lines, Vec::new())));
                for line in &mut lines {
                    match line.ended().await {
                        None => {}
                        Some(LineError::Refused(error)) => return Err(error),
                        Some(LineError::Loop(reason)) => anyhow::bail!("a loop has failed: {reason}"),
                    }
                }
            }
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        if let Some(done) = training.take_if(|training| training.is_finished()) {
            let (model, about) = done.await??;
            service
                .store()
                .register_model(model, clock.now())
                .await
                .map_err(|fault| anyhow::anyhow!("the model cannot be registered: {fault}"))?;
            say(format!("           {about}; scheduler {SCHEDULER} is made"));
            is_trained.cancel();
        }
        for line in &lines {
            told.files(line, &store.bucket, &say)?;
        }
        told.results(&archive(&data_dir), &story, &say)?;
    }
    stop.cancel();
    for line in &lines {
        line.stop();
    }
    let ends = futures_util::future::join_all(lines.into_iter().map(Line::end));
    // What does not end in time is sealed, and stays so.
    let _ = tokio::time::timeout(Duration::from_secs(2), ends).await;
    wiring.stop().await;
    let mut summary = conclude(&told, &story)?;
    summary.concluded = concluded;
    Ok(summary)
}

/// When the first event after the fault began, as the console shows it.
fn event(data_dir: &Path, story: &Story, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let state = Place::service(data_dir.join("service/state.db")).open()?;
    let scheduler = state.scheduler(now, SCHEDULER).ok()??;
    let events = state.events(&scheduler.uuid, Some(story.fault_start), None, 100);
    events.ok()?.last().map(|event| event.start)
}

/// The bytes of all files in a directory; what goes away meanwhile does not count.
fn occupied(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => occupied(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

/// What was said already.
#[derive(Default)]
struct Told {
    fed: BTreeMap<DateTime<Utc>, Entry>,
    results: BTreeMap<DateTime<Utc>, ()>,
}

impl Told {
    /// The windows that went all the way, from files to results: the first `limit` of them, or all with 0.
    fn complete(&self, limit: usize) -> Vec<&Entry> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        self.results
            .keys()
            .filter_map(|start| self.fed.get(start))
            .take(limit)
            .collect()
    }

    fn files(&mut self, line: &Line, bucket: &Bucket, say: &dyn Fn(String)) -> anyhow::Result<()> {
        let Some(view) = line.view() else {
            return Ok(());
        };
        let mut recent = view.recent(50)?;
        recent.reverse();
        for entry in recent {
            let done = entry.state.is_delivered() || entry.state == State::Empty;
            if !done || self.fed.contains_key(&entry.start) {
                continue;
            }
            say(format!(
                "{}  fed      {} files, {} rows, {} -> s3://{}/{}*_{}.csv",
                output::utc(entry.start),
                entry.files,
                entry.rows,
                output::bytes(entry.bytes),
                bucket.name(),
                line.plan.prefix(),
                entry.start.format("%Y%m%d%H%M%S"),
            ));
            self.fed.insert(entry.start, entry);
        }
        Ok(())
    }

    fn results(
        &mut self,
        archive: &crate::inference::Archive,
        story: &Story,
        say: &dyn Fn(String),
    ) -> anyhow::Result<()> {
        for row in story::archived(archive)? {
            if self.results.insert(row.execution.data_start, ()).is_none() {
                say(story.line(&row));
            }
        }
        Ok(())
    }
}

/// The demo's configuration: as by default, with the plant and the scheduler named.
fn config(args: &DemoArgs, sample: &SampleSummary) -> Config {
    let mut config = Config::default();
    let start = sample.fault_start - lead(args, &config);
    config.source.start = start.format("%Y-%m-%dT%H:%M:%S").to_string();
    config.inference.scheduler = SCHEDULER.into();
    config.inference.model = MODEL.into();
    config.service.listen = args.listen.to_string();
    config.service.s3_listen = args.s3_listen.to_string();
    config
}

/// How long the plant runs healthy: half the demo, at least five windows.
fn lead(args: &DemoArgs, config: &Config) -> TimeDelta {
    let windows = match args.windows {
        0 => 12,
        windows => (windows / 2).clamp(5, 60),
    };
    config.feed.cadence.duration() * i32::try_from(windows).unwrap_or(12)
}
