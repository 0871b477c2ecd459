//! `lookoutd sample`: writes the sample plant.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::sample::{SampleOptions, write_sample};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd sample plant                           334 days, 122 signals in 24 components
  lookoutd sample plant --days 40 --signals 20    smaller and faster")]
pub struct SampleArgs {
    /// Directory to write signals.parquet, tags_description.csv, labels.csv and timeranges.txt to
    directory: PathBuf,
    /// Days of history, ending on 2015-11-30
    #[arg(long, default_value_t = 334, value_parser = clap::value_parser!(u32).range(1..=3660))]
    days: u32,
    /// Signals, the first of the tag list
    #[arg(long, default_value_t = 122, value_parser = clap::value_parser!(u16).range(1..=122))]
    signals: u16,
    /// Seed; the same seed gives the same bytes
    #[arg(long, default_value_t = SampleOptions::default().seed)]
    seed: u64,
}

pub fn run(args: SampleArgs) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&args.directory)?;
    let bar = ProgressBar::new(1000).with_style(ProgressStyle::with_template(
        "writing the sample plant {bar:40} {percent}% {eta} left",
    )?);
    let options = SampleOptions {
        days: args.days,
        signals: usize::from(args.signals),
        seed: args.seed,
        ..SampleOptions::default()
    };
    let summary = write_sample(&args.directory, &options, &mut |done| {
        bar.set_position((done * 1000.0) as u64);
    })?;
    bar.finish_and_clear();
    say!(
        "{}: {} rows, {} signals in {} components",
        args.directory.display(),
        summary.rows,
        summary.signals,
        summary.components
    );
    Ok(ExitCode::SUCCESS)
}
