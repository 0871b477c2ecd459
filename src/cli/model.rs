//! `lookoutd model`: trains, scores and evaluates straight from recorded history, with no service in between.
//!
//! A history is Parquet with its tag list, or CSV (also gzipped), one file or many. Ranges are inclusive, UTC. The model file is
//! written whole or not at all.

mod history;
mod picture;
mod register;
mod registry;
mod report;

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::shape::ShapeArgs;
use crate::disk::{Disk, LocalDisk};
use crate::model::evaluate::Evaluator;
use crate::model::table::read_labels;
use crate::model::{Model, OffCondition, Options, Progress, Sampling, Stage, Training, timestamp};
use crate::ops::log;
use history::{HistoryArgs, score_history, time, time_ranges};

/// Model files: train, score, evaluate
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd model train --history signals.parquet --tags tags_description.csv --out plant.model
  lookoutd model evaluate plant.model --history signals.parquet --tags tags_description.csv --labels labels.csv
  lookoutd model list --config lookoutd.toml")]
pub struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

/// What to do with a model.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Learns a model from history
    Train(TrainArgs),
    /// Scores a range of history, one line per row
    Score(ScoreArgs),
    /// Compares predictions with labels: events found, warning time, false events, the worst sensors
    Evaluate(EvaluateArgs),
    /// Takes a model file up as a model of the API, while its service is stopped
    Register(register::RegisterArgs),
    /// The models of the API
    List(registry::ListArgs),
    /// One model of the API: status, ranges, quality, metrics
    Show(registry::ShowArgs),
    /// Deletes a model of the API
    Delete(registry::DeleteArgs),
}

/// Arguments of `model train`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd model train --history signals.parquet --tags tags_description.csv --labels labels.csv \\
      --timeranges timeranges.txt --sampling PT5M --off 'pump\\rpm<100' --out plant.model
  lookoutd model train --dataset pump-dataset --name pump-model --timeranges timeranges.txt --config lookoutd.toml")]
pub struct TrainArgs {
    /// History: a Parquet or CSV file (also .csv.gz), a directory of them, or a pattern
    #[arg(
        long,
        value_name = "PLACE",
        visible_alias = "parquet",
        required_unless_present = "dataset"
    )]
    history: Option<PathBuf>,
    /// Tag list: which component each signal belongs to; needed for Parquet
    #[arg(long, value_name = "FILE")]
    tags: Option<PathBuf>,
    /// The asset, where the tag list names several
    #[arg(long, value_name = "NAME", requires = "tags")]
    asset: Option<String>,
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    from_api: registry::DatasetArgs,
    /// Spans known to be abnormal, one start,end per line; nothing is learned from them
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Four lines: start and end of training, start and end of evaluation
    #[arg(long, value_name = "FILE")]
    timeranges: Option<PathBuf>,
    /// Sampling rate to train and score at, PT1S to PT1H; without it rows are taken as they are
    #[arg(long, value_name = "RATE")]
    sampling: Option<Sampling>,
    /// When the asset is off, such as 'component\sensor<100'
    #[arg(long, value_name = "CONDITION")]
    off: Option<OffCondition>,
    /// Tolerated false events per week: 0.5 is calm, 10 is sensitive
    #[arg(long, value_name = "PER_WEEK", default_value_t = 2.0)]
    rate: f64,
    /// Share of the most unusual training rows to leave out, such as 0.01 where faults are not labelled
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    trim: f64,
    /// Where to write the model
    #[arg(long, value_name = "MODEL", required_unless_present = "dataset")]
    out: Option<PathBuf>,
}

/// Arguments of `model score`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd model score plant.model --history signals.parquet --out scores.csv
  lookoutd model score plant.model --history january.csv.gz --from 2026-01-10T00:00:00 --out scores.csv")]
pub struct ScoreArgs {
    /// Model file
    model: PathBuf,
    #[command(flatten)]
    history: HistoryArgs,
    /// First instant to score
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// Last instant to score
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<i64>,
    /// Where to write Timestamp, u, anomaly_score, prediction and one contribution per sensor
    #[arg(long, value_name = "CSV")]
    out: PathBuf,
}

/// Arguments of `model evaluate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd model evaluate plant.model --history signals.parquet \\
      --labels labels.csv --timeranges timeranges.txt --plot picture.png")]
pub struct EvaluateArgs {
    /// Model file
    model: PathBuf,
    #[command(flatten)]
    history: HistoryArgs,
    /// Labelled events, one start,end per line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// First instant of the range
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// Last instant of the range
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<i64>,
    /// Takes the range from the third and fourth line of a time ranges file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
    timeranges: Option<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    /// Picture of score, threshold, labels and predictions over time: a .png or .svg
    #[arg(long, value_name = "PICTURE")]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Table,
    Json,
}

/// Runs a model command.
pub fn run(args: ModelArgs) -> Result<ExitCode> {
    match args.command {
        ModelCommand::Train(args) => train(args),
        ModelCommand::Score(args) => score(args),
        ModelCommand::Evaluate(args) => evaluate(args),
        ModelCommand::Register(args) => register::run(&args),
        ModelCommand::List(args) => registry::list(&args),
        ModelCommand::Show(args) => registry::show(&args),
        ModelCommand::Delete(args) => registry::delete(&args),
    }
}

fn train(args: TrainArgs) -> Result<ExitCode> {
    let ranges = args.timeranges.as_deref().map(time_ranges).transpose()?;
    if let Some(dataset) = &args.from_api.dataset {
        let ranges = ranges.map(|ranges| ranges.map(|range| (range.start, range.end)));
        return registry::train(&args, dataset, ranges);
    }
    let (Some(history), Some(out)) = (args.history, args.out) else {
        bail!("--history and --out are needed, or --dataset and --name");
    };
    let history = HistoryArgs {
        history,
        tags: args.tags,
        asset: args.asset,
        shape: args.shape,
    };
    let mut table = history.open()?;
    let labels = args
        .labels
        .as_deref()
        .map(read_labels)
        .transpose()?
        .unwrap_or_default();
    let counted = args.labels.as_deref().map(|path| (path, labels.len()));
    let range = ranges.map(|ranges| ranges[0]);
    let options = Options {
        sampling: args.sampling,
        off: args.off,
        rate_per_week: args.rate,
        trim: args.trim,
        ..Options::default()
    };
    let training = Training {
        sensors: table.sensors().to_vec(),
        labels,
        from: range.map(|range| range.start),
        to: range.map(|range| range.end),
        rows: Box::new(|| table.next_block()),
    };
    let show = Show::new()?;
    let model = Model::fit(training, &options, &mut |progress| show.progress(progress))?;
    show.finish();
    write_whole(&out, &model.encode())?;
    report::data(counted, &table);
    report::trained(&model, &out);
    Ok(ExitCode::SUCCESS)
}

fn score(args: ScoreArgs) -> Result<ExitCode> {
    let model = read_model(&args.model)?;
    let temporary = args.out.with_extension("partial");
    let place = || format!("cannot write {}", temporary.display());
    let mut out = BufWriter::new(std::fs::File::create(&temporary).with_context(place)?);
    let names: Vec<String> = model
        .sensors()
        .iter()
        .map(|sensor| quoted(&sensor.to_string()))
        .collect();
    writeln!(
        out,
        "Timestamp,u,anomaly_score,prediction,{}",
        names.join(",")
    )
    .with_context(place)?;
    let (mut lines, mut number) = (0, zmij::Buffer::new());
    let warnings = score_history(&model, &args.history, args.from, args.to, &mut |rows| {
        for row in rows {
            out.write_all(timestamp::format(row.time).as_bytes())?;
            for value in [row.u, row.anomaly_score] {
                out.write_all(b",")?;
                out.write_all(number.format(value).as_bytes())?;
            }
            out.write_all(if row.prediction { b",1" } else { b",0" })?;
            for column in 0..model.sensors().len() {
                let share = row.contributions.get(column).copied().unwrap_or_default();
                let rounded = (share * 1e9).round() / 1e9;
                out.write_all(b",")?;
                out.write_all(number.format(rounded).as_bytes())?;
            }
            out.write_all(b"\n")?;
            lines += 1;
        }
        Ok(())
    })?;
    out.flush().with_context(place)?;
    if lines == 0 {
        bail!(
            "{} has no row in the range; check --from and --to",
            args.history.history.display()
        );
    }
    std::fs::rename(&temporary, &args.out)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    report::warnings(&warnings);
    say!("{}: {lines} rows", args.out.display());
    Ok(ExitCode::SUCCESS)
}

fn evaluate(args: EvaluateArgs) -> Result<ExitCode> {
    let model = read_model(&args.model)?;
    let labels = args
        .labels
        .as_deref()
        .map(read_labels)
        .transpose()?
        .unwrap_or_default();
    let (mut from, mut to) = (args.from, args.to);
    if let Some(path) = &args.timeranges {
        let range = time_ranges(path)?[1];
        (from, to) = (Some(range.start), Some(range.end));
    }
    let mut evaluator = Evaluator::new(&model, labels);
    let warnings = score_history(&model, &args.history, from, to, &mut |rows| {
        evaluator.push(rows);
        Ok(())
    })?;
    let Some(mut evaluation) = evaluator.finish() else {
        bail!(
            "{} has no row in the range; check --from and --to",
            args.history.history.display()
        );
    };
    evaluation.warnings.extend(warnings);
    if let Some(path) = &args.plot {
        picture::draw(&evaluation, &args.model.display().to_string(), path)?;
    }
    match args.output {
        Format::Table => report::table(&model, &evaluation, &args.model),
        Format::Json => report::json(&model, &evaluation)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn read_model(path: &Path) -> Result<Model> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Model::decode(&bytes).with_context(|| path.display().to_string())
}

/// Writes beside the file and renames, so that a reader never sees half a model.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("partial");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        let directory = path.parent().filter(|parent| *parent != Path::new(""));
        LocalDisk.sync_dir(directory.unwrap_or(Path::new(".")))
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// A CSV cell, quoted where it must be.
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// Progress: a bar on a terminal, log lines elsewhere.
struct Show {
    bar: Option<ProgressBar>,
    stage: std::cell::Cell<Option<Stage>>,
}

impl Show {
    fn new() -> Result<Self> {
        let style =
            ProgressStyle::with_template("{spinner} {msg:32} {human_pos:>10} rows  {elapsed}");
        let bar = std::io::stderr()
            .is_terminal()
            .then(ProgressBar::new_spinner);
        if let (Some(bar), Ok(style)) = (&bar, style) {
            bar.set_style(style);
            bar.enable_steady_tick(std::time::Duration::from_millis(120));
        }
        if bar.is_none() {
            log::start(&log::Config::default()).map_err(anyhow::Error::msg)?;
        }
        Ok(Self {
            bar,
            stage: std::cell::Cell::new(None),
        })
    }

    fn progress(&self, progress: Progress) {
        let words = progress.stage.as_str();
        let new = self.stage.replace(Some(progress.stage)) != Some(progress.stage);
        match &self.bar {
            Some(bar) => {
                bar.set_message(words);
                bar.set_position(progress.total.unwrap_or(progress.rows) as u64);
            }
            None if new => tracing::info!(
                step = words,
                rows = progress.total.unwrap_or(progress.rows),
                "training"
            ),
            None => {}
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
