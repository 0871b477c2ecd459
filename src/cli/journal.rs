//! `lookoutd journal`: what the plant said, from outside.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::ConfigArgs;
use super::output::{self, Output};
use crate::disk::LocalDisk;
use crate::journal::{
    DIRECTORY, HourFile, Journal, Kind, Quality, Sample, Signal, Timed, Verified,
};
use crate::signal::timestamp;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd journal verify                        reads all of it and compares its checksums
  lookoutd journal export pump.csv               what it has, as a long history")]
pub struct JournalArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reads everything that live inputs brought and is still kept, and compares checksums; changes nothing
    #[command(after_help = "\
Examples:
  lookoutd journal verify --data-dir /var/lib/lookoutd

It works beside a running daemon. Exit code 74 when something is damaged.")]
    Verify {
        #[command(flatten)]
        config: ConfigArgs,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Writes samples into a file, a row for each: Parquet where it is called so, otherwise CSV
    #[command(after_help = "\
Examples:
  lookoutd journal export pump.parquet --asset pump-1
  lookoutd journal export - --tag PT101 --from 2026-01-31T13:00:00 --to 2026-01-31T14:00:00

It works beside a running daemon. The file is a long history with the columns Timestamp, tag, value, quality and timed,
which source.history, replay and model train take as it is.")]
    Export {
        /// The file; - is standard output
        file: PathBuf,
        /// The asset; the only one by default
        #[arg(long)]
        asset: Option<String>,
        /// This tag alone; may be repeated
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// From this time on
        #[arg(long, value_name = "TIME", value_parser = time)]
        from: Option<i64>,
        /// Until before this time
        #[arg(long, value_name = "TIME", value_parser = time)]
        to: Option<i64>,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

pub fn run(args: JournalArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Verify { config, output } => {
            let (_, journal) = look(&config)?;
            tell(output, &journal.verify()?)
        }
        Command::Export {
            file,
            asset,
            tags,
            from,
            to,
            config,
        } => {
            let (path, journal) = look(&config)?;
            let signals = chosen(&journal, asset.as_deref(), &tags)
                .with_context(|| format!("looking at the journal in {}", path.display()))?;
            let span = (from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX));
            let rows = export(&journal, &signals, span, &file)
                .with_context(|| format!("writing {}", file.display()))?;
            if file != Path::new("-") {
                say!(
                    "exported {rows} samples of {} tags to {}",
                    signals.len(),
                    file.display()
                );
            }
            for damage in journal.damage() {
                complain!("DAMAGED   {}: {}", damage.path.display(), damage.text);
            }
            Ok(verdict(journal.damage().is_empty()))
        }
    }
}

fn look(config: &ConfigArgs) -> anyhow::Result<(PathBuf, Journal)> {
    let path = config.load()?.config.data_dir().join(DIRECTORY);
    if !path.is_dir() {
        bail!(
            "there is no journal in {}: live inputs make it when the first sample comes",
            path.display()
        );
    }
    let journal = Journal::look(&path, Arc::new(LocalDisk))?;
    Ok((path, journal))
}

fn verdict(is_whole: bool) -> ExitCode {
    match is_whole {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(74),
    }
}

fn tell(output: Output, verified: &Verified) -> anyhow::Result<ExitCode> {
    match output {
        Output::Json => say!("{}", serde_json::to_string(verified)?),
        Output::Text => {
            let span = verified.span.map(|(from, to)| {
                let shown = |nanos: i64| timestamp::format(nanos.div_euclid(1000));
                format!(", {} to {}", shown(from), shown(to))
            });
            say!(
                "verified {} samples of {} tags in {} segments, {}{}",
                verified.samples,
                verified.signals,
                verified.segments,
                output::bytes(verified.bytes),
                span.unwrap_or_default()
            );
            for (path, text) in &verified.damaged {
                say!("DAMAGED   {path}: {text}");
            }
        }
    }
    Ok(verdict(verified.damaged.is_empty()))
}

/// The signals of an asset, all or some.
fn chosen(
    journal: &Journal,
    asset: Option<&str>,
    tags: &[String],
) -> anyhow::Result<Vec<(Signal, String)>> {
    let named: Vec<(Signal, String, String)> = journal
        .signals()
        .into_iter()
        .filter_map(|signal| {
            let (asset, tag) = journal.name(signal)?;
            Some((signal, asset, tag))
        })
        .collect();
    let mut assets: Vec<&str> = named.iter().map(|(_, asset, _)| asset.as_str()).collect();
    assets.sort_unstable();
    assets.dedup();
    let asset = match (asset, &assets[..]) {
        (Some(asset), _) if assets.contains(&asset) => asset,
        (None, [only]) => only,
        (None, []) => bail!("it has no tag yet"),
        (named, _) => bail!(
            "{}: name one with --asset: {}",
            match named {
                Some(asset) => format!("no asset is called \"{asset}\""),
                None => "it has several assets".into(),
            },
            assets.join(", ")
        ),
    };
    if let Some(missing) = tags.iter().find(|tag| journal.find(asset, tag).is_none()) {
        let known = named.iter().filter(|(_, of, _)| of == asset);
        let known: Vec<&str> = known.map(|(_, _, tag)| tag.as_str()).take(10).collect();
        bail!("it has no tag \"{missing}\"; it has {}", known.join(", "));
    }
    let is_wanted = |of: &str, tag: &String| of == asset && (tags.is_empty() || tags.contains(tag));
    Ok(named
        .iter()
        .filter(|(_, of, tag)| is_wanted(of, tag))
        .map(|(signal, _, tag)| (*signal, tag.clone()))
        .collect())
}

fn export(
    journal: &Journal,
    signals: &[(Signal, String)],
    (from, to): (i64, i64),
    file: &Path,
) -> anyhow::Result<u64> {
    let numbers: Vec<Signal> = signals.iter().map(|(signal, _)| *signal).collect();
    let tag = |sample: &Sample| {
        let found = signals.iter().find(|(signal, _)| *signal == sample.signal);
        found.map_or("", |(_, tag)| tag)
    };
    if file.extension().is_some_and(|end| end == "parquet") {
        let mut made = HourFile::begin(Arc::new(LocalDisk), file.to_owned())?;
        journal.walk(&numbers, from, to, |sample| match sample.kind {
            Kind::Value => made.row(tag(sample), sample),
            Kind::Alive => Ok(()),
        })?;
        return Ok(made.end()?);
    }
    let out: Box<dyn Write> = match file == Path::new("-") {
        true => Box::new(io::stdout().lock()),
        false => Box::new(std::fs::File::create(file)?),
    };
    let mut table = csv::Writer::from_writer(out);
    table.write_record(["Timestamp", "tag", "value", "quality", "timed"])?;
    let mut rows = 0;
    journal.walk(&numbers, from, to, |sample| {
        if sample.kind == Kind::Alive {
            return Ok(());
        }
        rows += 1;
        let value = match sample.value.is_nan() {
            true => String::new(),
            false => sample.value.to_string(),
        };
        let [quality, timed] = words(sample);
        table
            .write_record([&time_text(sample.time), tag(sample), &value, quality, timed])
            .map_err(io::Error::other)
    })?;
    table.flush()?;
    Ok(rows)
}

fn words(sample: &Sample) -> [&'static str; 2] {
    let quality = match sample.quality {
        Quality::Good => "good",
        Quality::Uncertain => "uncertain",
        Quality::Bad => "bad",
    };
    let timed = match sample.timed {
        Timed::Source => "source",
        Timed::Server => "server",
        Timed::Arrival => "arrival",
    };
    [quality, timed]
}

fn time_text(nanos: i64) -> String {
    let time = chrono::DateTime::from_timestamp_nanos(nanos);
    time.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string()
}

fn time(text: &str) -> Result<i64, String> {
    timestamp::parse(text)
        .and_then(|micros| micros.checked_mul(1000))
        .ok_or_else(|| format!("expected {}", timestamp::EXPECTED))
}
