//! `lookoutd plan`: what happens next. The next windows with their wake-up, keys, columns and rows, cut from the source as
//! the daemon would cut them, compared with what the scheduler will look for. The window that is live now comes first unless
//! it is cut already. Nothing is left behind: where embedded mode has no sample plant yet, one is made for the plan alone.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use super::asset::{AssetArgs, One};
use super::lookout::{self, Comparison};
use super::output::{self, Output};
use super::{ConfigArgs, runtime};
use crate::clock::Clock;
use crate::daemon::{Plant, closes_by};
use crate::feed::{Ledger, Policy, Publish};
use crate::ops::ask::{Question, ask};
use crate::signal::{TagList, Window, timestamp};
use crate::source::SourceError;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd plan --config lookoutd.toml
  lookoutd plan -n 12 --now 2026-01-01T00:07:00Z --output json")]
pub struct PlanArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    asset: AssetArgs,
    /// How many windows
    #[arg(short = 'n', long, default_value_t = 3)]
    windows: u32,
    /// As if it were this time, UTC
    #[arg(long, value_name = "TIME", value_parser = timestamp::instant)]
    now: Option<DateTime<Utc>>,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// One window to come.
#[derive(Debug, Serialize)]
struct Planned {
    start: String,
    end: String,
    cut_at: String,
    /// When it is cut at the latest, where inputs bring its samples: before, as soon as all of them have passed its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    closes_by: Option<String>,
    expected_rows: Option<usize>,
    history_over: bool,
    files: Vec<PlannedFile>,
}

/// One input file to come.
#[derive(Debug, Serialize)]
struct PlannedFile {
    component: String,
    key: String,
    columns: Vec<String>,
    rows: usize,
}

#[derive(Debug, Serialize)]
struct Plan {
    #[serde(skip_serializing_if = "String::is_empty")]
    asset: String,
    now: String,
    cadence: String,
    bucket: String,
    windows: Vec<Planned>,
    /// How the inputs are that its windows wait for, where the daemon answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    /// What the scheduler looks for, compared with the above.
    scheduler: Option<Comparison>,
    /// Why it could not be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduler_error: Option<String>,
}

pub fn run(args: PlanArgs) -> anyhow::Result<ExitCode> {
    let one = args.asset.one(&args.config.load()?)?;
    let now = args.now.unwrap_or_else(|| Clock::system().now());
    let plan = runtime()?.block_on(plan(&one, now, args.windows))?;
    let agrees = plan
        .scheduler
        .as_ref()
        .is_none_or(|comparison| comparison.disagreements.is_empty());
    let code = if agrees {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(3)
    };
    if args.output == Output::Json {
        output::json(&plan)?;
        return Ok(code);
    }
    if !plan.asset.is_empty() {
        say!("asset {}", plan.asset);
    }
    for window in &plan.windows {
        let expected = window
            .expected_rows
            .map_or_else(String::new, |rows| format!(", {rows} rows expected"));
        let latest = window
            .closes_by
            .as_ref()
            .map_or_else(String::new, |latest| {
                format!(" as soon as its inputs have passed it, {latest} at the latest")
            });
        say!(
            "window {}..{}   cut at {}{latest}{expected}",
            window.start,
            window.end,
            window.cut_at
        );
        if window.history_over {
            say!("  the history is over: nothing will be cut");
        }
        for file in &window.files {
            say!(
                "  {:<16} s3://{}/{}   Timestamp + {} columns   {} rows",
                file.component,
                plan.bucket,
                file.key,
                file.columns.len(),
                file.rows
            );
        }
    }
    for input in &plan.inputs {
        say!("input      {input}");
    }
    if let Some(error) = &plan.scheduler_error {
        say!("scheduler  cannot be compared: {error}");
    }
    if let Some(comparison) = &plan.scheduler {
        say!("scheduler  {} {}", comparison.scheduler, comparison.status);
        for one in &comparison.disagreements {
            say!("  DIFFERS  {}\n           {}", one.what, one.fix);
        }
        if agrees {
            say!("  looks for exactly these files");
        }
    }
    Ok(code)
}

async fn plan(one: &One, now: DateTime<Utc>, count: u32) -> anyhow::Result<Plan> {
    let config = &one.config;
    let data_dir = config.data_dir();
    let tags = one.tags.clone().unwrap_or_default();
    if config.is_live() {
        return live(one, now, count).await;
    }
    let mut plant = Plant::look_of(&one.asset, tags, config, &data_dir, now).await?;
    let (bucket, prefix) = lookout::input(config);
    let policy = Policy {
        cadence: config.feed.cadence,
        publish: config.feed.publish,
        catch_up: config.feed.catch_up,
        max_age: chrono::TimeDelta::zero(),
        resumed_at: now,
    };
    let live = policy.live(now);
    let cut_already = match Ledger::open_existing(&data_dir)? {
        Some(ledger) => ledger.of(one.asset.name()).get(live.start())?.is_some(),
        None => false,
    };
    let first = if cut_already { live.next() } else { live };
    let mut windows = Vec::new();
    // A history in S3 waits for the network, which a runtime's own thread must not.
    let rows = config.feed.rows;
    let readings = tokio::task::spawn_blocking(move || {
        let windows = (0..i64::from(count)).map(|n| first.offset(n));
        windows
            .map(|window| Ok((window, plant.source.read(&window, rows)?)))
            .collect::<Result<Vec<_>, SourceError>>()
    })
    .await??;
    for (window, reading) in readings {
        let files = reading
            .frames
            .iter()
            .filter(|frame| frame.rows() > 0)
            .map(|frame| PlannedFile {
                component: frame.component.clone(),
                key: format!(
                    "{prefix}{}",
                    config.naming.file_name(&frame.component, window.start())
                ),
                columns: frame
                    .columns
                    .iter()
                    .map(|column| column.name.clone())
                    .collect(),
                rows: frame.rows(),
            })
            .collect();
        windows.push(Planned {
            start: output::utc(window.start()),
            end: output::utc(window.end()),
            cut_at: output::utc(match config.feed.publish {
                Publish::Ahead => window.start(),
                Publish::Behind => window.end(),
            }),
            closes_by: None,
            expected_rows: reading.expected_rows,
            history_over: reading.ended,
            files,
        });
    }
    let (scheduler, scheduler_error) = match lookout::compare(config, Some(&plant.tags)).await {
        Ok(comparison) => (comparison, None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    Ok(Plan {
        asset: one.asset.name().to_owned(),
        now: output::utc(now),
        cadence: config.feed.cadence.to_string(),
        bucket,
        windows,
        inputs: Vec::new(),
        scheduler,
        scheduler_error,
    })
}

/// The windows that inputs bring: nothing is known of their samples, but when they close, and what they will be called.
async fn live(one: &One, now: DateTime<Utc>, count: u32) -> anyhow::Result<Plan> {
    let config = &one.config;
    let tags = match &one.tags {
        Some(tags) => tags.clone(),
        None => TagList::read(&config.source.tags)?.of(&one.asset),
    };
    let (bucket, prefix) = lookout::input(config);
    let cadence = config.feed.cadence;
    let rows = (cadence.seconds() / config.source.grid.seconds()) as usize;
    let first = config.feed.publish.live(now, cadence);
    let planned = |window: Window| Planned {
        start: output::utc(window.start()),
        end: output::utc(window.end()),
        cut_at: output::utc(window.end()),
        closes_by: Some(output::utc(closes_by(config, &window))),
        expected_rows: Some(rows),
        history_over: false,
        files: tags
            .components
            .iter()
            .map(|component| PlannedFile {
                component: component.name.clone(),
                key: format!(
                    "{prefix}{}",
                    config.naming.file_name(&component.name, window.start())
                ),
                columns: component.signals.clone(),
                rows,
            })
            .collect(),
    };
    let windows = (0..i64::from(count)).map(|n| planned(first.offset(n)));
    let asked = ask(&config.data_dir(), Question::All).unwrap_or_default();
    let at = asked.at.unwrap_or(now);
    let inputs = asked.inputs.iter();
    let inputs = inputs.map(|input| format!("{} {}", input.name, input.line(at)));
    let (scheduler, scheduler_error) = match lookout::compare(config, Some(&tags)).await {
        Ok(comparison) => (comparison, None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    Ok(Plan {
        asset: one.asset.name().to_owned(),
        now: output::utc(now),
        cadence: cadence.to_string(),
        bucket,
        windows: windows.collect(),
        inputs: inputs.collect(),
        scheduler,
        scheduler_error,
    })
}
