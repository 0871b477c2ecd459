//! `lookoutd model`: trains, scores and evaluates straight from recorded history, with no service in between.
//!
//! A history is a Parquet file with its tag list, or a CSV (also gzipped). Ranges are inclusive, UTC. The model file is
//! written whole or not at all.

mod picture;
mod report;

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::model::evaluate::Evaluator;
use crate::model::guard;
use crate::model::table::{Table, read_labels};
use crate::model::{
    Model, OffCondition, Options, Progress, Rows, Sampling, Span, Stage, Training, Warning,
    timestamp,
};
use crate::ops::log;
use crate::signal::TagList;

/// Model files: train, score, evaluate
#[derive(Debug, Args)]
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
}

#[derive(Debug, Args)]
struct HistoryArgs {
    /// History: a Parquet file, or a CSV (also .gz) with a Timestamp column
    #[arg(long, value_name = "FILE")]
    parquet: PathBuf,
    /// Tag list: which component each signal belongs to; needed for Parquet
    #[arg(long, value_name = "FILE")]
    tags: Option<PathBuf>,
}

/// Arguments of `model train`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd model train --parquet signals.parquet --tags tags_description.csv --labels labels.csv \\
      --timeranges timeranges.txt --sampling PT5M --off 'pump\\rpm<100' --out plant.model")]
pub struct TrainArgs {
    #[command(flatten)]
    history: HistoryArgs,
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
    #[arg(long, value_name = "MODEL")]
    out: PathBuf,
}

/// Arguments of `model score`.
#[derive(Debug, Args)]
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
    }
}

fn train(args: TrainArgs) -> Result<ExitCode> {
    let mut table = args.history.open()?;
    let labels = args
        .labels
        .as_deref()
        .map(read_labels)
        .transpose()?
        .unwrap_or_default();
    let range = args
        .timeranges
        .as_deref()
        .map(time_ranges)
        .transpose()?
        .map(|ranges| ranges[0]);
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
    write_whole(&args.out, &model.encode())?;
    report::trained(&model, &args.out);
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
    let mut lines = 0;
    let warnings = score_history(&model, &args.history, args.from, args.to, &mut |rows| {
        for row in rows {
            let prediction = u8::from(row.prediction);
            write!(
                out,
                "{},{},{},{prediction}",
                timestamp::format(row.time),
                row.u,
                row.anomaly_score
            )?;
            for column in 0..model.sensors().len() {
                let share = row.contributions.get(column).copied().unwrap_or_default();
                write!(out, ",{}", (share * 1e9).round() / 1e9)?;
            }
            writeln!(out)?;
            lines += 1;
        }
        Ok(())
    })?;
    out.flush().with_context(place)?;
    if lines == 0 {
        bail!(
            "{} has no row in the range; check --from and --to",
            args.history.parquet.display()
        );
    }
    std::fs::rename(&temporary, &args.out)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    report::warnings(&warnings);
    println!("{}: {lines} rows", args.out.display());
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
            args.history.parquet.display()
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

impl HistoryArgs {
    fn open(&self) -> Result<Table> {
        let tags = self.tags.as_deref().map(TagList::read).transpose()?;
        Table::open(&self.parquet, tags.as_ref())
    }
}

/// Scores the rows of a range block by block and hands the verdicts on; returns what to know about the data.
fn score_history(
    model: &Model,
    history: &HistoryArgs,
    from: Option<i64>,
    to: Option<i64>,
    take: &mut dyn FnMut(&[crate::model::Scored]) -> Result<()>,
) -> Result<Vec<Warning>> {
    let mut table = history.open()?;
    let places = model
        .align(table.sensors())
        .with_context(|| format!("cannot score {}", history.parquet.display()))?;
    let absent: Vec<_> = places
        .iter()
        .zip(model.sensors())
        .filter(|(place, _)| place.is_none())
        .map(|(_, sensor)| sensor.clone())
        .collect();
    let mut warnings = Vec::new();
    if !absent.is_empty() {
        warnings.push(Warning::AbsentSensors(absent));
    }
    let (from, to) = (from.unwrap_or(i64::MIN / 2), to.unwrap_or(i64::MAX / 2));
    let mut state = model.fresh_state();
    let mut start = from - 1;
    let mut first = true;
    while let Some(block) = table.next_block()? {
        let mut rows = Rows {
            sensors: places.len(),
            ..Rows::default()
        };
        for (index, &time) in block
            .times
            .iter()
            .enumerate()
            .filter(|(_, time)| (from..=to).contains(*time))
        {
            let values = block.row(index);
            rows.times.push(time);
            rows.values.extend(
                places
                    .iter()
                    .map(|place| place.map_or(f64::NAN, |column| values[column])),
            );
        }
        let Some(&last) = rows.times.last() else {
            continue;
        };
        if std::mem::take(&mut first) {
            warnings.extend(guard::resolution(model, &rows));
        }
        take(&model.score(&mut state, &rows, start, last))?;
        start = last;
    }
    if !first {
        // The last bin may end after the last row.
        let end = (start + model.step_us()).min(to);
        let nothing = Rows {
            sensors: places.len(),
            ..Rows::default()
        };
        take(&model.score(&mut state, &nothing, start, end))?;
    }
    Ok(warnings)
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
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The training and the evaluation range of a time ranges file.
fn time_ranges(path: &Path) -> Result<[Span; 2]> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut times = Vec::new();
    for (index, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let Some(time) = timestamp::parse(line) else {
            bail!(
                "{} line {}: `{line}` is no timestamp; expected {}",
                path.display(),
                index + 1,
                timestamp::EXPECTED
            );
        };
        times.push(time);
    }
    match times[..] {
        [a, b, c, d] if a < b && c < d => {
            Ok([Span { start: a, end: b }, Span { start: c, end: d }])
        }
        [_, _, _, _] => bail!("{}: a range ends before it starts", path.display()),
        _ => bail!(
            "{}: expected four lines, start and end of training and of evaluation; found {}",
            path.display(),
            times.len()
        ),
    }
}

fn time(text: &str) -> Result<i64, String> {
    timestamp::parse(text).ok_or_else(|| format!("expected {}", timestamp::EXPECTED))
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
        let words = match progress.stage {
            Stage::Reading => "reading",
            Stage::Cleaning => "scaling and filling",
            Stage::Learning => "learning relations",
            Stage::Calibrating => "calibrating",
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ranges_file_has_four_times() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            time_ranges(file.path())
        };
        let ranges = read(
            "2020-01-01 00:00:00\n2020-01-17 10:55:00\n2020-01-17 10:56:00\n2020-02-02 21:51:00\n",
        )
        .unwrap();
        assert_eq!(timestamp::format(ranges[1].start), "2020-01-17T10:56:00");
        assert!(read("2020-01-01 00:00:00\n2020-01-17 10:55:00\n").is_err());
        assert!(
            read("2020-01-02 00:00\n2020-01-01 00:00\n2020-01-17 10:56\n2020-02-02 21:51\n")
                .is_err()
        );
        assert!(
            read("tomorrow\n")
                .unwrap_err()
                .to_string()
                .contains("line 1")
        );
    }
}
