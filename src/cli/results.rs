//! `lookoutd results`: the archive, read. It needs neither the API nor the store, and checks every file's checksum.
//! `results import` brings the results of the cloud service in.
//!
//! Guarantees: every format is written as it is read, so that an archive of years is exported in the memory that one of a
//! day takes; what is left out is said, with its number and why.

mod import;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};

use super::asset::AssetArgs;
use super::{ConfigArgs, lookout, output};
use crate::daemon::archive;
use crate::inference::{
    Archive, ArchiveError, Archived, Columns, CsvTable, Index, Line, ParquetTable, Selection,
    Shares, Snapshot, read_results,
};
use crate::signal::timestamp;

/// Windows that are shown to people where they do not say how many.
const SHOWN: usize = 100;
/// Lines of a table that are held at once: so many have one width of columns.
const AT_ONCE: usize = 1_000;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  lookoutd results                                     one line per window, the newest 100
  lookoutd results -n 12
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
    #[command(flatten)]
    asset: AssetArgs,
    /// The scheduler; otherwise every archived one
    #[arg(long, value_name = "NAME", default_value = "")]
    scheduler: String,
    /// Windows that start at this time or later, UTC
    #[arg(long, value_name = "TIME", value_parser = timestamp::instant)]
    from: Option<DateTime<Utc>>,
    /// Windows that start before this time, UTC
    #[arg(long, value_name = "TIME", value_parser = timestamp::instant)]
    to: Option<DateTime<Utc>>,
    /// Only the newest so many windows; otherwise 100 in a table, all in an export
    #[arg(short = 'n', long, value_name = "WINDOWS")]
    limit: Option<usize>,
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
    let loaded = args.config.load()?;
    let scheduler = match args.asset.is_named() && args.scheduler.is_empty() {
        true => lookout::scheduler(&args.asset.one(&loaded)?.config, None)?,
        false => args.scheduler,
    };
    let data_dir = loaded.config.data_dir();
    let archive = archive(&data_dir);
    let index = Index::open_existing(&archive)?.with_context(|| {
        format!(
            "no archive in {}: has the daemon run there with a scheduler? set --data-dir or --config",
            archive.root().display()
        )
    })?;
    if args.format == Format::Parquet && args.out.is_none() {
        bail!("--format parquet needs --out FILE");
    }
    if args.format == Format::Table && args.out.is_some() {
        bail!("--out needs --format csv, jsonl or parquet");
    }
    let mut export = Export {
        which: Selection {
            scheduler,
            from: args.from,
            to: args.to,
            newest: match args.format {
                Format::Table => Some(args.limit.unwrap_or(SHOWN)),
                _ => args.limit,
            },
        },
        snapshot: index.snapshot()?,
        archive,
        left_out: LeftOut::default(),
    };
    if args.format == Format::Table {
        export.table(args.top)?;
        return Ok(ExitCode::SUCCESS);
    }
    let out: Box<dyn Write + Send> = match &args.out {
        Some(path) => Box::new(BufWriter::new(
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
        )),
        None => Box::new(BufWriter::new(std::io::stdout())),
    };
    let shares = match args.format {
        Format::Csv => export.csv(out)?,
        Format::Parquet => export.parquet(out)?,
        Format::Jsonl | Format::Table => {
            export.raw(out)?;
            Shares::default()
        }
    };
    if args.out.is_some() {
        for (sensor, share) in shares.top(args.top) {
            complain!("{:>5.1} %  {sensor}", share * 100.0);
        }
    }
    export.say_left_out()?;
    Ok(match export.left_out.damaged {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(3),
    })
}

/// What is asked of the archive, and what of it could not be given.
struct Export<'a> {
    which: Selection,
    snapshot: Snapshot<'a>,
    archive: Archive,
    left_out: LeftOut,
}

/// Windows whose results are not in the answer.
#[derive(Default)]
struct LeftOut {
    damaged: usize,
    failed: usize,
    without: usize,
    open: usize,
}

impl Export<'_> {
    /// The lines as the service wrote them.
    fn raw(&mut self, mut out: impl Write) -> anyhow::Result<()> {
        self.each(true, |_, bytes| Ok(out.write_all(bytes)?))?;
        Ok(out.flush()?)
    }

    fn csv(&mut self, out: impl Write) -> anyhow::Result<Shares> {
        let (columns, shares) = self.columns()?;
        let mut table = CsvTable::begin(out, columns)?;
        self.each_line(false, |line| table.row(line))?;
        table.end()?;
        Ok(shares)
    }

    fn parquet(&mut self, out: impl Write + Send) -> anyhow::Result<Shares> {
        let (columns, shares) = self.columns()?;
        let mut table = ParquetTable::begin(out, columns)?;
        self.each_line(false, |line| table.row(line))?;
        table.end()?;
        Ok(shares)
    }

    /// The sensors of all lines, and their shares: a table must know its columns before its first row.
    fn columns(&mut self) -> anyhow::Result<(Columns, Shares)> {
        let (mut columns, mut shares) = (Columns::default(), Shares::default());
        self.each_line(true, |line| {
            columns.take(line);
            shares.take(line);
            Ok(())
        })?;
        Ok((columns, shares))
    }

    fn each_line(
        &mut self,
        first: bool,
        mut with: impl FnMut(&Line) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.each(first, |row, bytes| {
            let lines = read_results(bytes)
                .with_context(|| format!("archived results of {}", row.execution.window()))?;
            lines.iter().try_for_each(&mut with)
        })
    }

    /// The results of each window, as they are read. What is left out is said and counted when it is met `first`.
    fn each(
        &mut self,
        first: bool,
        mut with: impl FnMut(&Archived, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (archive, mut left_out) = (&self.archive, LeftOut::default());
        self.snapshot.each(&self.which, |row| {
            if row.archived_at.is_none() {
                left_out.open += usize::from(row.execution.status == "SUCCESS");
                left_out.failed += usize::from(row.execution.status == "FAILED");
                return Ok(());
            }
            match archive.results(&row.execution) {
                Ok(Some(bytes)) => with(&row, &bytes),
                Ok(None) => {
                    let failed = row.execution.status == "FAILED";
                    left_out.failed += usize::from(failed);
                    left_out.without += usize::from(!failed);
                    Ok(())
                }
                // One record takes no other out of sight, and is not left out silently.
                Err(error @ ArchiveError::Damaged { .. }) => {
                    if first {
                        complain!("warning: {} is left out: {error}", row.execution.window());
                    }
                    left_out.damaged += 1;
                    Ok(())
                }
                Err(error) => Err(anyhow::Error::from(error)),
            }
        })?;
        if first {
            self.left_out = left_out;
        }
        Ok(())
    }

    fn say_left_out(&self) -> anyhow::Result<()> {
        let LeftOut {
            damaged,
            failed,
            without,
            open,
        } = self.left_out;
        for (count, what) in [
            (damaged, "are left out: their records are damaged"),
            (failed, "have no results: their executions failed"),
            (
                without,
                "have no results: they were gone when they were to be archived",
            ),
            (
                open,
                "are not archived yet: their results are still to be fetched",
            ),
            (
                self.older()?,
                "are left out: they are older than the newest that -n asks for",
            ),
        ] {
            if count > 0 {
                complain!("{count} windows {what}");
            }
        }
        Ok(())
    }

    /// Windows that are asked for and are not among the newest.
    fn older(&self) -> anyhow::Result<usize> {
        let all = self.snapshot.count(&self.which)?;
        Ok(self
            .which
            .newest
            .map_or(0, |newest| all.saturating_sub(newest)))
    }

    fn table(&self, top: usize) -> anyhow::Result<()> {
        let (mut windows, mut anomalous, mut failed) = (0, 0, 0);
        let mut lines: Vec<Vec<String>> = Vec::new();
        self.snapshot.each(&self.which, |row| {
            windows += 1;
            anomalous += usize::from(row.summary.anomalous > 0);
            failed += usize::from(row.execution.status == "FAILED");
            lines.push(cells(row, top));
            if lines.len() == AT_ONCE {
                output::table(&HEADER, &std::mem::take(&mut lines));
            }
            anyhow::Ok(())
        })?;
        if !lines.is_empty() || windows == 0 {
            output::table(&HEADER, &lines);
        }
        say!("\n{windows} windows, {anomalous} with anomalies, {failed} failed");
        let older = self.older()?;
        if older > 0 {
            say!("{older} older windows are left out: -n, --from and --to choose others");
        }
        Ok(())
    }
}

const HEADER: [&str; 6] = [
    "SCHEDULER",
    "WINDOW",
    "STATUS",
    "ANOMALOUS",
    "SCORE",
    "TOP SENSORS OR REASON",
];

fn cells(row: Archived, top: usize) -> Vec<String> {
    let sensors = row.summary.top.iter().take(top);
    let sensors: Vec<String> = sensors
        .map(|(sensor, share)| format!("{sensor} {:.0} %", share * 100.0))
        .collect();
    let score = row.summary.score;
    vec![
        row.execution.scheduler,
        output::utc(row.execution.data_start),
        row.execution.status,
        format!("{}/{}", row.summary.anomalous, row.summary.rows),
        score.map_or_else(String::new, |score| format!("{score:.3}")),
        row.execution
            .failed_reason
            .unwrap_or_else(|| sensors.join(", ")),
    ]
}
