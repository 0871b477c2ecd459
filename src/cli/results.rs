//! `lookoutd results`: the archive, read. It needs neither the API nor the store, and checks every file's checksum.
//! `results import` brings the results of the cloud service in.

mod import;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};

use super::{ConfigArgs, output};
use crate::daemon::archive;
use crate::inference::{
    ArchiveError, Archived, Index, Line, read_results, top_sensors, write_csv, write_parquet,
};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  lookoutd results                                     one line per window
  lookoutd results --from 2026-01-01T00:00:00Z --top 5
  lookoutd results --format csv > results.csv
  lookoutd results --format parquet --out results.parquet
  lookoutd results import ./output --scheduler pump-scheduler

Exit codes: 0 all of it, 3 damaged records were left out, each named on standard error."
)]
pub struct ResultsArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: ConfigArgs,
    /// The scheduler; otherwise every archived one
    #[arg(long, value_name = "NAME", default_value = "")]
    scheduler: String,
    /// Windows that start at this time or later, UTC
    #[arg(long, value_name = "TIME")]
    from: Option<DateTime<Utc>>,
    /// Windows that start before this time, UTC
    #[arg(long, value_name = "TIME")]
    to: Option<DateTime<Utc>>,
    /// How many sensors to name
    #[arg(long, default_value_t = 3)]
    top: usize,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// File to write instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Brings results folders of the cloud service into the archive
    Import(import::ImportArgs),
}

/// The shape of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line per window, for people
    #[default]
    Table,
    /// One row per line of results, a column per sensor
    Csv,
    /// The lines as the service wrote them
    Jsonl,
    /// As csv, in a Parquet file; needs --out
    Parquet,
}

pub fn run(args: ResultsArgs) -> anyhow::Result<ExitCode> {
    if let Some(Command::Import(args)) = &args.command {
        return import::run(args);
    }
    let data_dir = args.config.load()?.config.data_dir();
    let archive = archive(&data_dir);
    let index = Index::open_existing(&archive)?.with_context(|| {
        format!(
            "no archive in {}: has the daemon run there with a scheduler? set --data-dir or --config",
            archive.root().display()
        )
    })?;
    let found = index.range(&args.scheduler, args.from, args.to)?;
    if args.format == Format::Parquet && args.out.is_none() {
        bail!("--format parquet needs --out FILE");
    }
    if args.format == Format::Table && args.out.is_some() {
        bail!("--out needs --format csv, jsonl or parquet");
    }
    let mut damaged = 0;
    let mut raw = Vec::new();
    let mut lines: Vec<Line> = Vec::new();
    for row in found.iter().filter(|row| row.archived_at.is_some()) {
        if args.format == Format::Table {
            break;
        }
        let bytes = match archive.results(&row.execution) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            // One record takes no other out of sight, and is not left out silently.
            Err(error @ ArchiveError::Damaged { .. }) => {
                complain!("warning: {} is left out: {error}", row.execution.window());
                damaged += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if args.format == Format::Jsonl {
            raw.extend_from_slice(&bytes);
        } else {
            lines.extend(
                read_results(&bytes)
                    .with_context(|| format!("archived results of {}", row.execution.window()))?,
            );
        }
    }
    let mut out: Box<dyn Write + Send> = match &args.out {
        Some(path) => Box::new(BufWriter::new(
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
        )),
        None => Box::new(std::io::stdout()),
    };
    match args.format {
        Format::Table => table(&found, args.top),
        Format::Jsonl => out.write_all(&raw)?,
        Format::Csv => write_csv(&mut out, &lines)?,
        Format::Parquet => write_parquet(&mut out, &lines)?,
    }
    out.flush()?;
    if args.format != Format::Table && !lines.is_empty() && args.out.is_some() {
        for (sensor, share) in top_sensors(&lines, args.top) {
            complain!("{:>5.1} %  {sensor}", share * 100.0);
        }
    }
    let open = |row: &&Archived| row.archived_at.is_none() && row.execution.status == "SUCCESS";
    let open = found.iter().filter(open).count();
    if args.format != Format::Table && open > 0 {
        complain!("{open} windows are not archived yet: their results are still to be fetched");
    }
    Ok(match damaged {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(3),
    })
}

fn table(found: &[Archived], top: usize) {
    let rows: Vec<_> = found
        .iter()
        .map(|row| {
            let sensors: Vec<String> = row
                .summary
                .top
                .iter()
                .take(top)
                .map(|(sensor, share)| format!("{sensor} {:.0} %", share * 100.0))
                .collect();
            vec![
                row.execution.scheduler.clone(),
                output::utc(row.execution.data_start),
                row.execution.status.clone(),
                format!("{}/{}", row.summary.anomalous, row.summary.rows),
                row.summary
                    .score
                    .map_or_else(String::new, |score| format!("{score:.3}")),
                row.execution
                    .failed_reason
                    .clone()
                    .unwrap_or_else(|| sensors.join(", ")),
            ]
        })
        .collect();
    output::table(
        &[
            "SCHEDULER",
            "WINDOW",
            "STATUS",
            "ANOMALOUS",
            "SCORE",
            "TOP SENSORS OR REASON",
        ],
        &rows,
    );
    let (windows, anomalous, failed) = (
        found.len(),
        found.iter().filter(|row| row.summary.anomalous > 0).count(),
        found
            .iter()
            .filter(|row| row.execution.status == "FAILED")
            .count(),
    );
    say!("\n{windows} windows, {anomalous} with anomalies, {failed} failed");
}
