//! `lookoutd results import`: results folders of the cloud service, from a directory or a bucket, into the archive.
//!
//! Guarantees: it may be repeated and broken off at any time; every file it found is counted as imported, already there or
//! refused, and each refusal is told with its file, line and reason; `--dry-run` writes nothing. It follows no symbolic
//! link, and takes the data directory's lock, so that the daemon is not running meanwhile.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use futures_util::StreamExt;
use futures_util::stream;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::super::output::{self, Output};
use super::super::{ConfigArgs, runtime};
use crate::clock::Clock;
use crate::daemon::archive;
use crate::inference::{
    Found, Import, Index, MOST_BYTES, Refusal, ResultObject, Taken, cadence_of, look,
};
use crate::ops::lock;
use crate::s3::Bucket;
use crate::signal::Cadence;

/// Objects read at once.
const AT_ONCE: usize = 16;
/// Refusals that are printed; JSON has all.
const PRINTED: usize = 20;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd results import ./output --scheduler pump-scheduler --dry-run
  lookoutd results import ./output --scheduler pump-scheduler
  lookoutd results import s3://plant/demo/inference-data/output/ --scheduler pump-scheduler --config lookoutd.toml

Reads <data start>/results.jsonl and <data start>/results.csv, at any depth, as every version of the cloud service wrote
them. The store of s3:// is that of the [s3] section, or of the standard AWS chain. The daemon must be stopped.
Exit codes: 0 all taken, 3 something was refused, 75 the daemon is running.")]
pub struct ImportArgs {
    /// Directory, or s3://bucket/prefix
    #[arg(value_name = "FROM")]
    from: String,
    /// The scheduler to keep them under
    #[arg(long, value_name = "NAME")]
    scheduler: String,
    /// The model they came from, where it is known
    #[arg(long, value_name = "NAME", default_value = "imported")]
    model: String,
    /// Window length, PT5M to PT1H; otherwise the smallest step between two folders
    #[arg(long, value_name = "PERIOD")]
    cadence: Option<Cadence>,
    /// Reads and checks everything, and writes nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    config: ConfigArgs,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What became of everything that was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    dry_run: bool,
    scheduler: String,
    imported: usize,
    already_there: usize,
    rows: usize,
    anomalous_windows: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    refused: Vec<Refused>,
    /// Files that are no results.
    ignored: usize,
}

/// A file that was not taken.
#[derive(Debug, Serialize)]
struct Refused {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    reason: String,
}

/// What lies at the place to import from.
#[derive(Debug, Default)]
struct Listing {
    found: Vec<Found>,
    report: Report,
}

/// Where files are read from.
enum From {
    Directory,
    Bucket(Bucket),
}

pub fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(import(args))
}

async fn import(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?.config;
    let data_dir = config.data_dir();
    let mut import = Import {
        archive: archive(&data_dir),
        index: None,
        scheduler: args.scheduler.clone(),
        model: args.model.clone(),
        cadence: args.cadence,
        origin: args.from.clone(),
    };
    if let Some(problem) = import.problem() {
        bail!("{problem}");
    }
    let mut listing = Listing::default();
    let from = match args.from.strip_prefix("s3://") {
        Some(place) => {
            let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
            let bucket = Bucket::new(config.s3.client().await, bucket);
            for key in bucket.list(prefix, "", |_| true).await? {
                listing.note(&key);
            }
            From::Bucket(bucket)
        }
        None => {
            walk(Path::new(&args.from), &mut listing)
                .with_context(|| format!("cannot read {}", args.from))?;
            From::Directory
        }
    };
    if listing.found.is_empty() && listing.report.refused.is_empty() {
        bail!(
            "{} has no <data start>/results.jsonl or results.csv: name the output prefix of the scheduler, or a directory \
             with a copy of it",
            args.from
        );
    }
    listing
        .found
        .sort_by(|a, b| (a.start, &a.name).cmp(&(b.start, &b.name)));
    import.cadence = import.cadence.or_else(|| cadence_of(&listing.found));
    let clock = Clock::system();
    let _lock = if args.dry_run {
        None
    } else {
        let lock = lock::lock(&data_dir)?;
        import.index = Some(Index::open(&import.archive, clock.now())?);
        Some(lock)
    };
    let mut report = listing.report;
    report.dry_run = args.dry_run;
    report.scheduler.clone_from(&args.scheduler);
    let progress = progress(listing.found.len());
    let (place, shown) = (&from, &progress);
    let mut files = stream::iter(listing.found)
        .map(|found| async move {
            let bytes = place.read(&found.name).await;
            shown.inc(1);
            (found, bytes)
        })
        .buffered(AT_ONCE);
    while let Some((found, bytes)) = files.next().await {
        let taken = match bytes? {
            Ok(bytes) => import.take(&found, &bytes, from.object(&found.name), clock.now())?,
            Err(reason) => Taken::Refused(Refusal { line: None, reason }),
        };
        report.add(&found, taken);
    }
    progress.finish_and_clear();
    report.print(args.output)?;
    Ok(ExitCode::from(if report.refused.is_empty() {
        0
    } else {
        3
    }))
}

impl Listing {
    fn note(&mut self, name: &str) {
        match look(name) {
            None => self.report.ignored += 1,
            Some(Ok(found)) => self.found.push(found),
            Some(Err(reason)) => self.refuse(name, reason),
        }
    }

    fn refuse(&mut self, name: &str, reason: String) {
        self.report.refused.push(Refused {
            file: name.to_owned(),
            line: None,
            reason,
        });
    }
}

/// Every file below a directory, links excepted.
fn walk(root: &Path, listing: &mut Listing) -> std::io::Result<()> {
    let mut left: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                left.push(path);
            } else if kind.is_file() {
                listing.note(&path.to_string_lossy());
            } else if look(&path.to_string_lossy()).is_some() {
                let reason = "is a link or a device: copy the file itself".to_owned();
                listing.refuse(&path.to_string_lossy(), reason);
            }
        }
    }
    Ok(())
}

impl From {
    /// The bytes of a file; the inner error refuses it, the outer ends the import.
    async fn read(&self, name: &str) -> anyhow::Result<Result<Vec<u8>, String>> {
        let bytes = match self {
            From::Directory => {
                let mut bytes = Vec::new();
                std::fs::File::open(name)
                    .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
                    .with_context(|| format!("cannot read {name}"))?;
                bytes
            }
            From::Bucket(bucket) => match bucket.get(name).await? {
                Some(bytes) => bytes,
                None => return Ok(Err("is gone since it was listed".to_owned())),
            },
        };
        if bytes.len() as u64 > MOST_BYTES {
            return Ok(Err(format!(
                "is larger than {} and cannot be the results of one window",
                output::bytes(MOST_BYTES)
            )));
        }
        Ok(Ok(bytes))
    }

    fn object(&self, name: &str) -> Option<ResultObject> {
        match self {
            From::Directory => None,
            From::Bucket(bucket) => Some(ResultObject {
                bucket: bucket.name().to_owned(),
                key: name.to_owned(),
            }),
        }
    }
}

impl Report {
    fn add(&mut self, found: &Found, taken: Taken) {
        match taken {
            Taken::AlreadyThere => self.already_there += 1,
            Taken::Imported { rows, anomalous } => {
                self.imported += 1;
                self.rows += rows;
                self.anomalous_windows += usize::from(anomalous > 0);
                let start = output::utc(found.start);
                self.first.get_or_insert_with(|| start.clone());
                self.last = Some(start);
            }
            Taken::Refused(Refusal { line, reason }) => self.refused.push(Refused {
                file: found.name.clone(),
                line,
                reason,
            }),
        }
    }

    fn print(&self, output: Output) -> anyhow::Result<()> {
        if output == Output::Json {
            return output::json(self);
        }
        say!(
            "{} {} windows for {}{}, {} with anomalies, {} lines",
            if self.dry_run {
                "would import"
            } else {
                "imported"
            },
            self.imported,
            self.scheduler,
            match (&self.first, &self.last) {
                (Some(first), Some(last)) => format!(" from {first} to {last}"),
                _ => String::new(),
            },
            self.anomalous_windows,
            self.rows
        );
        say!(
            "{} already there, {} refused, {} other files ignored",
            self.already_there,
            self.refused.len(),
            self.ignored
        );
        for refused in self.refused.iter().take(PRINTED) {
            let line = refused
                .line
                .map_or_else(String::new, |line| format!(", line {line}"));
            say!("REFUSED {}{line}: {}", refused.file, refused.reason);
        }
        if self.refused.len() > PRINTED {
            say!(
                "and {} more: --output json has all",
                self.refused.len() - PRINTED
            );
        }
        Ok(())
    }
}

/// On a terminal, and on standard error, so that the report can be piped.
fn progress(files: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(files as u64);
    if let Ok(style) = ProgressStyle::with_template("{pos}/{len} files  {wide_bar}  {eta}") {
        bar.set_style(style);
    }
    bar
}
