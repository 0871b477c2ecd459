//! The sample plant: a deterministic stand-in for the expander data set, so that everything runs with no download.
//!
//! Guarantees: the same options give the same bytes on every platform; a shorter history holds exactly the samples of
//! the longer one's end; memory holds one row group. The shape is the expander data set's (contract 11): 122 signals in
//! 24 components, one-minute rows to 2015-11-30T23:59, 74 missing minutes, a transmitter that was out, the labelled
//! stops and faults. In November one component drifts, fails, trips the machine, and is repaired.
//! Deliberately absent: any claim that it is a real machine's data.

mod file;
mod machine;
mod noise;
mod plant;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, ensure};
use chrono::{DateTime, NaiveDate, NaiveDateTime};

use self::file::HistoryFile;
use self::machine::State;
use self::noise::hash;
use self::plant::Signal;

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleOptions {
    /// Days of history.
    pub days: u32,
    /// The last of them, 2015-01-10 to 2015-11-30. The history's last labelled fault is the one to be found.
    pub last_day: NaiveDate,
    /// The first signals of the tag list, up to 122.
    pub signals: usize,
    /// Another seed is another year of the same machine.
    pub seed: u64,
    /// Which machine of a plant, from 1: each fails at its own time in a component of its own; 0 is the only one there is.
    pub machine: u16,
}

impl Default for SampleOptions {
    fn default() -> Self {
        SampleOptions {
            days: 334,
            last_day: LAST_DAY,
            signals: 122,
            seed: 20_150_101,
            machine: 0,
        }
    }
}

/// What was written; all times recorded UTC, spans with their first and last minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleSummary {
    /// Rows of the history.
    pub rows: usize,
    /// Signals of the history.
    pub signals: usize,
    /// Components of the tag list.
    pub components: usize,
    /// The component that fails last.
    pub fault_component: String,
    /// When the drift that announces the fault begins; it is not labelled.
    pub drift_start: NaiveDateTime,
    /// When the labelled fault begins.
    pub fault_start: NaiveDateTime,
    /// When the machine runs healthy again.
    pub fault_end: NaiveDateTime,
    /// The first minute to train on.
    pub train_start: NaiveDateTime,
    /// The last minute to train on.
    pub train_end: NaiveDateTime,
    /// The first minute to evaluate on.
    pub evaluation_start: NaiveDateTime,
    /// The last minute of the history.
    pub evaluation_end: NaiveDateTime,
}

const DAY: i64 = 24 * 60;
const LAST_DAY: NaiveDate = day(11, 30);

/// The first day of 2015 with a labelled fault; it grows within an hour, from 10:00 on.
pub const FIRST_FAULT_DAY: NaiveDate = day(1, 10);

const fn day(month: u32, day: u32) -> NaiveDate {
    match NaiveDate::from_ymd_opt(2015, month, day) {
        Some(day) => day,
        None => NaiveDate::MAX,
    }
}
const GROUP_ROWS: usize = 10_000;
const MAX_DAYS: u32 = 36_525;

/// What [`write_sample`] writes with these options, without writing it.
pub fn describe_sample(options: &SampleOptions) -> anyhow::Result<SampleSummary> {
    let all = plant::signal_count();
    ensure!(
        (1..=all).contains(&options.signals),
        "signals is {}; the plant has 1 to {all}",
        options.signals
    );
    ensure!(
        (1..=MAX_DAYS).contains(&options.days),
        "days is {}; use 1 to {MAX_DAYS}",
        options.days
    );
    ensure!(
        (FIRST_FAULT_DAY..=LAST_DAY).contains(&options.last_day),
        "the last day is {}; use {FIRST_FAULT_DAY} to {LAST_DAY}",
        options.last_day
    );
    let signals = plant::signals(options.signals);
    let span = span(options);
    let ahead = ahead(options);
    let component = fault_component(&signals, options);
    let fault = plant::last_fault(span.end + ahead, component);
    let announced = fault.announced - ahead;
    let evaluation = evaluation_start(span.start, span.end, announced);
    let mut components: Vec<u8> = signals.iter().map(|signal| signal.component).collect();
    components.sort_unstable();
    components.dedup();
    Ok(SampleSummary {
        rows: span
            .clone()
            .filter(|minute| plant::is_recorded(*minute))
            .count(),
        signals: signals.len(),
        components: components.len(),
        fault_component: plant::component_name(fault.component),
        drift_start: time(announced),
        fault_start: time(fault.from - ahead),
        fault_end: time(fault.to - ahead),
        train_start: time(span.start),
        train_end: time(evaluation - 1),
        evaluation_start: time(evaluation),
        evaluation_end: time(span.end - 1),
    })
}

/// Writes `signals.parquet`, `tags_description.csv`, `labels.csv` and `timeranges.txt` into `dir`, which is created
/// where it is missing; existing files of these names are replaced. `progress` hears the share that is done, 0 to 1.
pub fn write_sample(
    dir: &Path,
    options: &SampleOptions,
    progress: &mut dyn FnMut(f64),
) -> anyhow::Result<SampleSummary> {
    let summary = describe_sample(options)?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let signals = plant::signals(options.signals);
    let span = span(options);
    write_text(dir, "tags_description.csv", &tag_list(&signals))?;
    write_text(dir, "labels.csv", &labels(&span, ahead(options)))?;
    let ranges: String = [
        summary.train_start,
        summary.train_end,
        summary.evaluation_start,
        summary.evaluation_end,
    ]
    .iter()
    .map(|time| format!("{}\n", time.format("%Y-%m-%d %H:%M:%S")))
    .collect();
    write_text(dir, "timeranges.txt", &ranges)?;
    let rows = write_history(dir, options, &signals, span, progress)?;
    Ok(SampleSummary { rows, ..summary })
}

/// Writes a plant of `count` machines: the files of [`write_sample`] for each in a directory of its name, and above them one
/// tag list with the column `Asset`. Returns the name of each and what was written of it.
pub fn write_plant(
    dir: &Path,
    options: &SampleOptions,
    count: u16,
    progress: &mut dyn FnMut(f64),
) -> anyhow::Result<Vec<(String, SampleSummary)>> {
    let mut list = "Asset,Tag,UOM,Subsystem\n".to_owned();
    let mut written = Vec::new();
    for machine in 1..=count {
        let own = SampleOptions {
            machine,
            ..options.clone()
        };
        let asset = format!("machine-{machine:02}");
        let before = f64::from(machine - 1);
        let summary = write_sample(&dir.join(&asset), &own, &mut |done| {
            progress((before + done) / f64::from(count));
        })?;
        let tags = tag_list(&plant::signals(options.signals));
        list.extend(tags.lines().skip(1).map(|line| format!("{asset},{line}\n")));
        written.push((asset, summary));
    }
    write_text(dir, "tags_description.csv", &list)?;
    Ok(written)
}

/// How far the calendar of a plant's machine, with its stops and faults, is ahead of that of the only one: up to six days, in
/// hours, as long as five days of the history come before its last fault shows.
fn ahead(options: &SampleOptions) -> i64 {
    let most = (i64::from(options.days) - 28).clamp(0, 6) * 24;
    match options.machine {
        0 => 0,
        _ => (own_draw(options, 1) % (most as u64 + 1)) as i64 * 60,
    }
}

/// The component that fails in November: in a plant one after the other in an order of the seed, of those that several signals
/// tell of.
fn fault_component(signals: &[Signal], options: &SampleOptions) -> u8 {
    let several = |component: &u8| {
        let of = signals
            .iter()
            .filter(|signal| signal.component == *component);
        of.count() > 2
    };
    let mut components: Vec<u8> = signals.iter().map(|signal| signal.component).collect();
    components.sort_unstable();
    components.dedup();
    components.retain(several);
    if options.machine == 0 || components.is_empty() {
        return plant::fault_component(signals);
    }
    let first = hash(options.seed, 2) % components.len() as u64;
    let place = (first + u64::from(options.machine)) % components.len() as u64;
    components[place as usize]
}

/// The seed of a machine's history.
fn own_seed(options: &SampleOptions) -> u64 {
    match options.machine {
        0 => options.seed,
        _ => own_draw(options, 0),
    }
}

fn own_draw(options: &SampleOptions, salt: u64) -> u64 {
    hash(hash(options.seed, u64::from(options.machine)), salt)
}

fn span(options: &SampleOptions) -> Range<i64> {
    let end = plant::END - (LAST_DAY - options.last_day).num_minutes();
    end - i64::from(options.days) * DAY..end
}

/// The expander's own 1 September where there are three months before it; otherwise most of what precedes the drift,
/// or of a history that is shorter still, the first half.
fn evaluation_start(start: i64, end: i64, drift: i64) -> i64 {
    const SEPTEMBER: i64 = plant::at(9, 1, 0, 0);
    if start + 90 * DAY <= SEPTEMBER && SEPTEMBER < end {
        return SEPTEMBER;
    }
    let before_drift = drift - start;
    let minutes = if before_drift >= 5 * DAY {
        before_drift * 9 / 10
    } else {
        (end - start) / 2
    };
    start + (minutes / DAY * DAY).max(DAY / 2)
}

fn write_history(
    dir: &Path,
    options: &SampleOptions,
    signals: &[Signal],
    span: Range<i64>,
    progress: &mut dyn FnMut(f64),
) -> anyhow::Result<usize> {
    let path = dir.join("signals.parquet");
    let context = || format!("cannot write {}", path.display());
    let out = BufWriter::new(File::create(&path).with_context(context)?);
    let names: Vec<String> = signals.iter().map(Signal::name).collect();
    let mut file = HistoryFile::create(out, &names).with_context(context)?;
    let (seed, ahead) = (own_seed(options), ahead(options));
    let fault_component = fault_component(signals, options);
    let mut recorded = span.clone().filter(|minute| plant::is_recorded(*minute));
    let mut rows = 0;
    loop {
        let minutes: Vec<i64> = recorded.by_ref().take(GROUP_ROWS).collect();
        let Some(last) = minutes.last().copied() else {
            break;
        };
        let micros: Vec<i64> = minutes.iter().map(|minute| minute * 60_000_000).collect();
        let calendar = minutes.iter().map(|minute| minute + ahead).collect();
        let state = State::new(seed, fault_component, calendar);
        let mut components: Vec<Option<Vec<(f64, f64)>>> = vec![None; 32];
        let columns = signals.iter().map(|signal| {
            let component = components[usize::from(signal.component)]
                .get_or_insert_with(|| state.component(signal.component));
            state.record(signal, component)
        });
        file.write(&micros, columns).with_context(context)?;
        rows += micros.len();
        progress((last + 1 - span.start) as f64 / (span.end - span.start) as f64);
    }
    file.close()
        .with_context(context)?
        .flush()
        .with_context(context)?;
    Ok(rows)
}

fn tag_list(signals: &[Signal]) -> String {
    let mut text = "Tag,UOM,Subsystem\n".to_owned();
    for signal in signals {
        text += &format!(
            "{},{},{}\n",
            signal.name(),
            signal.unit.as_str(),
            plant::component_name(signal.component)
        );
    }
    text
}

fn labels(span: &Range<i64>, ahead: i64) -> String {
    let format = |minute: i64| time(minute).format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
    plant::LABELS
        .iter()
        .map(|(from, to)| (from - ahead, to - ahead))
        .filter(|(from, to)| *to >= span.start && *from < span.end)
        .map(|(from, to)| format!("{},{}\n", format(from.max(span.start)), format(to)))
        .collect()
}

fn write_text(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn time(minute: i64) -> NaiveDateTime {
    DateTime::from_timestamp(minute * 60, 0)
        .unwrap_or_default()
        .naive_utc()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{Cadence, RowRule, TagList, Window};
    use crate::source::Source;
    use crate::source::replay::{AtEnd, Replay};

    fn sample(options: &SampleOptions) -> (tempfile::TempDir, SampleSummary) {
        let dir = tempfile::tempdir().unwrap();
        let summary = write_sample(dir.path(), options, &mut |_| ()).unwrap();
        (dir, summary)
    }

    fn options(days: u32, signals: usize) -> SampleOptions {
        SampleOptions {
            days,
            signals,
            ..SampleOptions::default()
        }
    }

    #[test]
    fn each_machine_of_a_plant_fails_in_its_own_way_and_the_same_seed_gives_the_same_bytes() {
        let options = SampleOptions {
            days: 30,
            signals: 16,
            ..SampleOptions::default()
        };
        let write = || {
            let dir = tempfile::tempdir().unwrap();
            let written = write_plant(dir.path(), &options, 4, &mut |_| ()).unwrap();
            (dir, written)
        };
        let ((one, written), (other, again)) = (write(), write());
        assert_eq!(written, again);
        let names: Vec<&str> = written.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["machine-01", "machine-02", "machine-03", "machine-04"]
        );
        for name in &names {
            let file = format!("{name}/signals.parquet");
            let bytes = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(&file)).unwrap();
            assert!(bytes(&one) == bytes(&other), "{file}");
        }
        let mut failing: Vec<_> = written
            .iter()
            .map(|(_, one)| &one.fault_component)
            .collect();
        failing.sort_unstable();
        failing.dedup();
        assert_eq!(failing.len(), 4, "{written:?}");
        let mut times: Vec<_> = written.iter().map(|(_, one)| one.fault_start).collect();
        times.sort_unstable();
        times.dedup();
        assert!(times.len() > 1, "{times:?}");
        for (name, summary) in &written {
            let labels = read(&one.path().join(name), "labels.csv");
            let from = summary.fault_start.format("%Y-%m-%dT%H:%M:%S").to_string();
            assert!(labels.contains(&from), "{name}: {from} not in {labels}");
            assert!(summary.train_end < summary.drift_start);
        }
        let tags = TagList::read(one.path().join("tags_description.csv")).unwrap();
        let assets = tags.assets();
        let found: Vec<&str> = assets.iter().map(|asset| asset.name()).collect();
        assert_eq!(found, names);
    }

    fn read(dir: &Path, name: &str) -> String {
        std::fs::read_to_string(dir.join(name)).unwrap()
    }

    /// The rows between two minutes as one frame per component.
    fn rows(dir: &Path, from: i64, hours: i64) -> Vec<crate::signal::Frame> {
        let tags = TagList::read(dir.join("tags_description.csv")).unwrap();
        let history =
            Replay::open_file(&dir.join("signals.parquet"), &tags, &Default::default()).unwrap();
        let start = Window::containing(time(from).and_utc(), Cadence::Pt1h);
        let rebase = history.rebase(
            from * 60_000_000,
            start.start().timestamp_micros(),
            Cadence::Pt1h,
            AtEnd::Stop,
        );
        let mut replay = Replay::new(history, rebase);
        let mut frames: Vec<crate::signal::Frame> = Vec::new();
        for n in 0..hours {
            for (at, frame) in replay
                .read(&start.offset(n), RowRule::Notebook)
                .unwrap()
                .frames
                .into_iter()
                .enumerate()
            {
                match frames.get_mut(at) {
                    None => frames.push(frame),
                    Some(whole) => {
                        whole.times.extend(frame.times);
                        for (whole, part) in whole.columns.iter_mut().zip(frame.columns) {
                            let (
                                crate::signal::Values::F64(whole),
                                crate::signal::Values::F64(part),
                            ) = (&mut whole.values, part.values)
                            else {
                                panic!("a sample column is not double");
                            };
                            whole.extend(part);
                        }
                    }
                }
            }
        }
        frames
    }

    fn expander(name: &str) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/expander");
        std::fs::read_to_string(folder.join(name)).unwrap()
    }

    #[test]
    fn tags_labels_and_ranges_are_the_expanders() {
        let signals = plant::signals(122);
        let start = plant::END - 334 * DAY;
        let expected = expander("tags_description.csv");
        assert_eq!(tag_list(&signals), expected.replace('\r', ""));
        let expected = expander("labels.csv");
        let of_2015: Vec<&str> = expected.lines().filter(|line| *line < "2015-12").collect();
        assert_eq!(
            labels(&(start..plant::END), 0).lines().collect::<Vec<_>>(),
            of_2015
        );
        assert_eq!(time(start).to_string(), "2015-01-01 00:00:00");
        assert_eq!(
            time(evaluation_start(start, plant::END, plant::DRIFT_START)).to_string(),
            "2015-09-01 00:00:00"
        );
        assert_eq!(
            (start..plant::END)
                .filter(|minute| !plant::is_recorded(*minute))
                .count(),
            74
        );
    }

    #[test]
    fn the_same_options_give_the_same_bytes_and_another_seed_does_not() {
        let (first, summary) = sample(&options(2, 12));
        let (second, _) = sample(&options(2, 12));
        let (other, _) = sample(&SampleOptions {
            seed: 1,
            ..options(2, 12)
        });
        let bytes =
            |dir: &tempfile::TempDir| std::fs::read(dir.path().join("signals.parquet")).unwrap();
        assert_eq!(bytes(&first), bytes(&second));
        assert_ne!(bytes(&first), bytes(&other));
        assert_eq!(
            (summary.rows, summary.signals, summary.components),
            (2880, 12, 3)
        );
    }

    #[test]
    fn a_shorter_history_is_the_end_of_a_longer_one() {
        let (long, _) = sample(&options(3, 20));
        let (short, _) = sample(&options(1, 5));
        let from = plant::END - DAY;
        let (long, short) = (rows(long.path(), from, 24), rows(short.path(), from, 24));
        assert_eq!(short[0].rows(), 1440);
        for (long, short) in long.iter().zip(&short) {
            assert_eq!(long.times, short.times);
            assert_eq!(long.columns[..short.columns.len()], short.columns);
        }
    }

    #[test]
    fn a_month_trains_before_the_drift_and_evaluates_the_fault() {
        let (dir, summary) = sample(&options(30, 17));
        assert_eq!(summary.fault_component, "subsystem-07");
        assert!(
            summary.train_start < summary.train_end && summary.train_end < summary.evaluation_start
        );
        assert!(
            summary.evaluation_start < summary.drift_start
                && summary.fault_end < summary.evaluation_end
        );
        assert_eq!(
            read(dir.path(), "labels.csv"),
            "2015-11-11T18:00:00.000000,2015-11-13T12:00:00.000000\n"
        );
        let ranges = read(dir.path(), "timeranges.txt");
        assert_eq!(ranges.lines().count(), 4);
        assert!(ranges.ends_with("2015-11-30 23:59:00\n"));
        assert_eq!(summary.rows, 30 * 1440 - 1);
    }

    #[test]
    fn the_drift_moves_the_faulty_component_and_no_other() {
        let (dir, summary) = sample(&options(24, 40));
        let hour = |minute| rows(dir.path(), minute, 8);
        let (before, failing, after) = (
            hour(plant::at(11, 7, 8, 0)),
            hour(plant::at(11, 11, 20, 0)),
            hour(plant::at(11, 14, 8, 0)),
        );
        let mean = |frame: &crate::signal::Frame, column: usize| {
            (0..frame.rows())
                .map(|row| frame.columns[column].values.get(row))
                .sum::<f64>()
                / frame.rows() as f64
        };
        for (at, frame) in before.iter().enumerate() {
            for column in 0..frame.columns.len() {
                let (healthy, broken, repaired) = (
                    mean(frame, column),
                    mean(&failing[at], column),
                    mean(&after[at], column),
                );
                let name = &frame.columns[column].name;
                if frame.component == summary.fault_component {
                    assert!((broken - healthy).abs() > 0.1, "{name}: {healthy} {broken}");
                } else {
                    assert!(
                        (broken - healthy).abs() < 0.25,
                        "{name}: {healthy} {broken}"
                    );
                }
                assert!(
                    (repaired - healthy).abs() < 0.25,
                    "{name}: {healthy} {repaired}"
                );
                assert!(
                    frame.columns[column].values.get(0) >= 0.0
                        && frame.columns[column].values.get(0) <= 1.0
                );
            }
        }
    }

    #[test]
    fn the_machine_stands_still_in_march_and_one_transmitter_is_out() {
        let signals = plant::signals(122);
        let minutes = vec![plant::at(3, 24, 12, 0)];
        let state = State::new(1, 7, minutes);
        let record = |number: usize| {
            let signal = &signals[number - 1];
            state.record(signal, &state.component(signal.component))[0]
        };
        assert!(record(28).is_nan());
        assert!(
            record(71) < 0.01 && record(92) < 0.01,
            "speed and power are gone"
        );
        assert!(
            record(29) < 0.05 && record(101) > 0.1,
            "no vibration, but still a temperature"
        );
    }

    #[test]
    fn a_history_that_ends_in_january_is_the_machine_before_its_first_fault() {
        let (dir, summary) = sample(&SampleOptions {
            last_day: FIRST_FAULT_DAY,
            ..options(10, 122)
        });
        assert_eq!(summary.fault_component, "subsystem-02");
        assert_eq!(summary.fault_start, time(plant::at(1, 10, 10, 0)));
        assert_eq!(summary.evaluation_end, time(plant::at(1, 10, 23, 59)));
        assert!(
            summary.train_end < summary.evaluation_start
                && summary.evaluation_start < summary.fault_start
        );
        assert_eq!(read(dir.path(), "labels.csv").lines().count(), 1);
        assert_eq!(summary.rows, 10 * 1440);
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for bad in [
            options(0, 122),
            options(10, 0),
            options(10, 123),
            options(40_000, 1),
        ] {
            let message = write_sample(dir.path(), &bad, &mut |_| ())
                .unwrap_err()
                .to_string();
            assert!(message.contains("1 to"), "{message}");
        }
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}
