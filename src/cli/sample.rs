//! `lookoutd sample`: writes the sample plant, or one of many machines.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::simulate::topic_of;
use crate::sample::{SampleOptions, SampleSummary, write_plant, write_sample};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd sample plant                           334 days, 122 signals in 24 components
  lookoutd sample plant --days 40 --signals 20    smaller and faster
  lookoutd sample plant --assets 12 --days 40     twelve machines, each with faults of its own
  lookoutd sample plant --addresses               with the topics at which lookoutd simulate says it

With --assets, DIRECTORY has one tag list, tags_description.csv, with the column Asset, and for each machine a directory
of its name with signals.parquet, labels.csv and timeranges.txt: source.history = \"DIRECTORY/{asset}/signals.parquet\".")]
pub struct SampleArgs {
    /// Directory to write signals.parquet, tags_description.csv, labels.csv and timeranges.txt to
    directory: PathBuf,
    /// Days of history, ending on 2015-11-30
    #[arg(long, default_value_t = 334, value_parser = clap::value_parser!(u32).range(1..=3660))]
    days: u32,
    /// Signals, the first of the tag list; of each machine
    #[arg(long, default_value_t = 122, value_parser = clap::value_parser!(u16).range(1..=122))]
    signals: u16,
    /// Machines of a plant, each in a directory of its own; without it there is one, without a name
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    assets: Option<u16>,
    /// Adds the column Address to the tag list, with topics as `lookoutd simulate` makes them up
    #[arg(long)]
    addresses: bool,
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
    let mut progress = |done: f64| bar.set_position((done * 1000.0) as u64);
    let written = match args.assets {
        None => vec![(
            args.directory.display().to_string(),
            write_sample(&args.directory, &options, &mut progress)?,
        )],
        Some(count) => write_plant(&args.directory, &options, count, &mut progress)?,
    };
    bar.finish_and_clear();
    if args.addresses {
        add_addresses(&args.directory.join("tags_description.csv"))?;
    }
    for (name, summary) in &written {
        say!("{}", line(name, summary, args.assets.is_some()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds the column Address to a tag list.
fn add_addresses(list: &Path) -> anyhow::Result<()> {
    let mut lines = csv::Reader::from_path(list)?;
    let mut header = lines.headers()?.clone();
    let place = |name: &str| header.iter().position(|it| it == name);
    let (asset, tag, subsystem) = (place("Asset"), place("Tag"), place("Subsystem"));
    let mut with = csv::Writer::from_writer(Vec::new());
    header.push_field("Address");
    with.write_record(&header)?;
    for line in lines.records() {
        let mut line = line?;
        let cell = |place: Option<usize>| place.and_then(|at| line.get(at)).unwrap_or_default();
        let topic = topic_of(cell(asset), cell(subsystem), cell(tag));
        line.push_field(&topic);
        with.write_record(&line)?;
    }
    std::fs::write(list, with.into_inner()?)?;
    Ok(())
}

fn line(name: &str, summary: &SampleSummary, is_one_of_many: bool) -> String {
    let mut line = format!(
        "{name}: {} rows, {} signals in {} components",
        summary.rows, summary.signals, summary.components
    );
    if is_one_of_many {
        let from = summary.fault_start.format("%Y-%m-%d %H:%M");
        line += &format!("; {} fails on {from}", summary.fault_component);
    }
    line
}
