//! Windows of a live source: when they close, what is in them, and what becomes of samples that come twice, late, early or not at all.
//! Inputs are played by the tests, which hand samples to the intake as any input does; all time is simulated.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use lookoutd::clock::Clock;
use lookoutd::feed::disk::LocalDisk;
use lookoutd::feed::{CatchUp, Config, Cut, Cutter, Entry, Ledger, Spool, State, Vitals};
use lookoutd::input::{Intake, IntakeError, Parts, Raw, Refusal, Tag, Taken, Trust, refused};
use lookoutd::journal::{DIRECTORY, Journal, Options, Quality, Timed};
use lookoutd::signal::{NameFormat, TagList};
use lookoutd::source::live::{
    self, Aggregate, Deadline, Grid, Live, Marked, Marks, Releases, Rules,
};

use crate::errors::Errors;
use crate::rig::*;

const TAGS: &str = "Tag,UOM,Subsystem,Address\namps,A,motor,t/amps\nvib,mm/s,bearing,t/vib\n";
const AMPS: usize = 0;
const VIB: usize = 1;

/// One machine with a motor and a bearing, from an input to the spool.
struct Machine {
    directory: PathBuf,
    clock: Clock,
    intake: Intake,
    cutter: Cutter,
    ledger: Ledger,
    spool: Spool,
}

impl Machine {
    /// On `directory`, from `now` on.
    fn open(directory: &Path, now: &str) -> Machine {
        let config = Config {
            catch_up: CatchUp::Backfill,
            ..feed_config()
        };
        Machine::with(directory, now, &config, Some(5))
    }

    fn with(directory: &Path, now: &str, config: &Config, delay: Option<i64>) -> Machine {
        let clock = Clock::manual(at(now));
        let disk = Arc::new(LocalDisk);
        let journal = Journal::open(&directory.join(DIRECTORY), disk.clone(), Options::default());
        let journal = journal.expect("a journal");
        let tags = TagList::parse(TAGS.as_bytes(), "tags.csv").expect("a tag list");
        let (marks, trust) = (
            marks(config),
            Trust::new(&clock, Duration::from_secs(60), || false),
        );
        let tag = |component: &str, tag: &str| Tag {
            component: component.to_owned(),
            tag: tag.to_owned(),
            address: format!("t/{tag}"),
            ..Tag::default()
        };
        let intake = Intake::new(Parts {
            name: "plc".to_owned(),
            tags: vec![tag("motor", "amps"), tag("bearing", "vib")],
            marks: vec![(marks.clone(), AMPS), (marks.clone(), VIB)],
            journal: journal.clone(),
            clock: clock.clone(),
            future: Duration::from_secs(60),
            aside: directory.join("refused"),
            trust: trust.clone(),
        });
        let (ledger, _) = Ledger::open(directory, at(now)).expect("a ledger");
        let spool = Spool::open(disk, directory).expect("a spool");
        lookoutd::feed::recover(&spool, &ledger).expect("a recovery");
        let of_trust = clock.clone();
        let source = Live::new(live::Parts {
            asset: Default::default(),
            tags,
            journal,
            marks,
            rules: Rules {
                grid: Grid::Pt1m,
                aggregate: Aggregate::Last,
                stale: TimeDelta::minutes(10),
            },
            deadline: Deadline {
                delay: delay.map(TimeDelta::minutes),
                upload: Arc::new(|| TimeDelta::seconds(10)),
                suspect: Arc::new(move || trust.is_suspect(&of_trust)),
            },
            began: at(now),
            releases: Releases::default(),
        });
        let cut = Cut {
            source: Box::new(source.expect("a source")),
            naming: NameFormat::default(),
            prefix: PREFIX.to_owned(),
            rows: config.rows,
            blank: config.blank,
            spool: spool.clone(),
            ledger: ledger.clone(),
        };
        let pulse = Vitals::default().pulse("cutter", Duration::from_secs(60));
        Machine {
            directory: directory.to_owned(),
            cutter: Cutter::new(
                config,
                cut,
                clock.clone(),
                Arc::default(),
                Arc::default(),
                pulse,
            ),
            clock,
            intake: intake.expect("an intake"),
            ledger,
            spool,
        }
    }

    /// It is `time`, and what has closed by then is cut.
    async fn it_is(&mut self, time: &str) {
        self.clock.advance_to(at(time));
        self.tick().await;
    }

    async fn tick(&mut self) {
        while self.cutter.step().await.expect("a step") {}
        self.cutter.keep_up().await.expect("late samples");
    }

    async fn take(&self, raw: Raw) -> Taken {
        self.intake.take(vec![raw]).await.expect("taken")
    }

    /// Both sensors every ten seconds from one time until another, as the clock goes.
    async fn works(&mut self, from: &str, to: &str) {
        let (mut now, to) = (at(from), at(to));
        while now <= to {
            self.clock.advance_to(now.max(self.clock.now()));
            let value = (now.timestamp() % 1_000) as f64;
            let both = vec![sample(AMPS, now, value), sample(VIB, now, -value)];
            self.intake.take(both).await.expect("taken");
            self.tick().await;
            now += TimeDelta::seconds(10);
        }
    }

    fn entry(&self, start: &str) -> Option<Entry> {
        self.ledger.get(at(start)).expect("a ledger")
    }

    fn state(&self, start: &str) -> Option<State> {
        self.entry(start).map(|entry| entry.state)
    }

    /// The cells of a component's file of a window, row by row.
    fn cells(&self, component: &str, start: &str) -> Vec<String> {
        let manifest = self.spool.manifest(&window(start)).expect("a manifest");
        let file = manifest
            .files
            .iter()
            .find(|file| file.component == component);
        let bytes = self.spool.read(&window(start), file.expect("a file"));
        let text = String::from_utf8(bytes.expect("bytes")).expect("text");
        let cell = |line: &str| line.split_once(',').expect("a cell").1.to_owned();
        text.lines().skip(1).map(cell).collect()
    }

    fn sealed(&self) -> Objects {
        objects_under(&self.directory.join("spool"))
            .into_iter()
            .filter(|(path, _)| path.ends_with(".csv"))
            .collect()
    }

    fn late(&self, start: &str) -> Vec<(String, u64)> {
        self.ledger.late(at(start)).expect("a ledger")
    }
}

fn marks(config: &Config) -> Marks {
    let tag = |component, tag: &str| Marked {
        input: 0,
        component,
        tag: tag.to_owned(),
    };
    let tags = vec![tag(0, "amps"), tag(1, "vib")];
    Marks::new(vec!["plc".to_owned()], tags, config.cadence, config.rows)
}

fn sample(tag: usize, time: DateTime<Utc>, value: f64) -> Raw {
    Raw {
        tag,
        time: time.timestamp_nanos_opt(),
        value,
        quality: Quality::Good,
        timed: Timed::Source,
        historical: false,
    }
}

fn raw(tag: usize, time: &str, value: f64) -> Raw {
    sample(tag, at(time), value)
}

#[tokio::test]
async fn a_window_is_cut_as_soon_as_every_sensor_has_passed_its_end_and_only_once() {
    let _errors = Errors::watch();
    let directory = directory();
    let mut machine = Machine::open(directory.path(), "2026-03-01T10:00:00Z");
    machine
        .works("2026-03-01T10:00:00Z", "2026-03-01T10:04:50Z")
        .await;
    machine.it_is("2026-03-01T10:05:00Z").await;
    assert_eq!(machine.state("2026-03-01T10:00:00Z"), None);
    machine.take(raw(AMPS, "2026-03-01T10:05:00Z", 1.5)).await;
    machine.it_is("2026-03-01T10:05:01Z").await;
    assert_eq!(
        machine.state("2026-03-01T10:00:00Z"),
        None,
        "the other is still to come"
    );
    machine.take(raw(VIB, "2026-03-01T10:05:00Z", 2.5)).await;
    machine.tick().await;
    let entry = machine.entry("2026-03-01T10:00:00Z").unwrap();
    assert_eq!(
        (entry.state, entry.rows, entry.files),
        (State::Spooled, 5, 2)
    );
    assert!(entry.journal.is_some());
    // 10:01:00 is 1772359260: the last sample of each interval is that of its row.
    assert_eq!(
        machine.cells("motor", "2026-03-01T10:00:00Z"),
        ["260.0", "320.0", "380.0", "440.0", "1.5"]
    );
    let before = machine.sealed();
    machine
        .works("2026-03-01T10:05:10Z", "2026-03-01T10:09:00Z")
        .await;
    assert_eq!(machine.sealed(), before);
}

#[tokio::test]
async fn a_silent_sensor_never_makes_a_window_miss_its_scheduler() {
    let _errors = Errors::watch();
    let directory = directory();
    let mut machine = Machine::open(directory.path(), "2026-03-01T10:00:00Z");
    machine
        .works("2026-03-01T10:00:00Z", "2026-03-01T10:02:00Z")
        .await;
    // Only one goes on.
    for second in (130..=300).step_by(10) {
        let now = at("2026-03-01T10:00:00Z") + TimeDelta::seconds(second);
        machine.clock.advance_to(now);
        machine.take(sample(AMPS, now, 7.0)).await;
    }
    machine.tick().await;
    assert_eq!(machine.state("2026-03-01T10:00:00Z"), Some(State::Spooled));
    // What it said last stands for ten minutes.
    assert!(
        !machine
            .cells("bearing", "2026-03-01T10:00:00Z")
            .contains(&String::new())
    );
    // Then both are cut off: the next window waits for them, until ten seconds before the scheduler looks.
    machine.it_is("2026-03-01T10:14:49Z").await;
    assert_eq!(machine.state("2026-03-01T10:05:00Z"), None);
    machine.it_is("2026-03-01T10:14:50Z").await;
    assert_eq!(machine.state("2026-03-01T10:05:00Z"), Some(State::Spooled));
    let cells = machine.cells("bearing", "2026-03-01T10:05:00Z");
    assert!(cells.iter().all(|cell| !cell.is_empty()), "{cells:?}");
    machine.it_is("2026-03-01T10:19:50Z").await;
    let cells = machine.cells("bearing", "2026-03-01T10:10:00Z");
    assert_eq!(
        cells.iter().filter(|cell| cell.is_empty()).count(),
        3,
        "{cells:?}"
    );
    // And at last nothing of it is left.
    machine.it_is("2026-03-01T10:24:50Z").await;
    assert_eq!(machine.state("2026-03-01T10:15:00Z"), Some(State::Empty));
}

#[tokio::test]
async fn a_window_without_a_scheduler_closes_a_minute_after_its_end() {
    let _errors = Errors::watch();
    let directory = directory();
    let config = feed_config();
    let mut machine = Machine::with(directory.path(), "2026-03-01T10:00:00Z", &config, None);
    machine.it_is("2026-03-01T10:05:59Z").await;
    assert_eq!(machine.state("2026-03-01T10:00:00Z"), None);
    machine.it_is("2026-03-01T10:06:00Z").await;
    assert_eq!(machine.state("2026-03-01T10:00:00Z"), Some(State::Empty));
}

#[tokio::test]
async fn redelivery_and_duplicates_change_no_byte_and_are_counted() {
    let _errors = Errors::watch();
    let mut sealed = Vec::new();
    for twice in [false, true] {
        let directory = directory();
        let mut machine = Machine::open(directory.path(), "2026-03-01T10:00:00Z");
        let start = at("2026-03-01T10:00:00Z");
        let batch: Vec<Raw> = (0..=31)
            .flat_map(|n| {
                [AMPS, VIB].map(|tag| sample(tag, start + TimeDelta::seconds(10 * n), n as f64))
            })
            .collect();
        machine.clock.advance_to(at("2026-03-01T10:05:10Z"));
        machine.intake.take(batch.clone()).await.unwrap();
        if twice {
            let mut again = batch.clone();
            again.reverse();
            let taken = machine.intake.take(again).await.unwrap();
            assert_eq!((taken.collapsed, taken.differing), (64, 0));
            // The last write of a time wins, and is told.
            let other = machine.take(raw(AMPS, "2026-03-01T10:00:30Z", 99.0)).await;
            assert_eq!(other.differing, 1);
            assert_eq!(machine.intake.figures().differing, 1);
            machine.take(raw(AMPS, "2026-03-01T10:00:30Z", 3.0)).await;
        }
        machine.tick().await;
        sealed.push(machine.sealed());
    }
    // Two windows: the first sample is of the one before.
    assert_eq!(sealed[0].len(), 4);
    assert_eq!(sealed[0], sealed[1]);
}

#[tokio::test]
async fn late_samples_are_counted_per_component_and_never_cut_again() {
    let _errors = Errors::watch();
    let directory = directory();
    let mut machine = Machine::open(directory.path(), "2026-03-01T10:00:00Z");
    machine
        .works("2026-03-01T10:00:00Z", "2026-03-01T10:10:10Z")
        .await;
    let before = machine.sealed();
    // By a window, and by a day.
    machine.take(raw(VIB, "2026-03-01T10:03:21Z", 1.0)).await;
    machine.take(raw(VIB, "2026-03-01T10:03:22Z", 1.0)).await;
    machine.take(raw(AMPS, "2026-02-28T10:03:00Z", 1.0)).await;
    machine
        .works("2026-03-01T10:10:20Z", "2026-03-01T10:12:00Z")
        .await;
    assert_eq!(machine.sealed(), before);
    assert_eq!(
        machine.late("2026-03-01T10:00:00Z"),
        [("bearing".to_owned(), 2)]
    );
    // The window of yesterday was never cut: nothing came late for it.
    assert_eq!(machine.late("2026-02-28T10:00:00Z"), []);
    assert_eq!(machine.intake.figures().late, 2);
    assert_eq!(machine.late("2026-03-01T10:05:00Z"), []);
}

#[tokio::test]
async fn a_re_cut_after_a_crash_gives_the_same_bytes_whatever_has_come_since() {
    let _errors = Errors::watch();
    let directory = directory();
    let mut machine = Machine::open(directory.path(), "2026-03-01T10:00:00Z");
    machine
        .works("2026-03-01T10:00:00Z", "2026-03-01T10:05:10Z")
        .await;
    let (before, entry) = (
        machine.sealed(),
        machine.entry("2026-03-01T10:00:00Z").unwrap(),
    );
    assert_eq!(before.len(), 4);
    machine
        .take(raw(AMPS, "2026-03-01T10:02:00Z", 4_711.0))
        .await;
    drop(machine);
    // The power went between seal and ledger: what is sealed is taken as it is.
    std::fs::remove_file(directory.path().join("ledger.db")).unwrap();
    let mut machine = Machine::open(directory.path(), "2026-03-01T10:06:00Z");
    machine.tick().await;
    assert_eq!(machine.sealed(), before);
    assert_eq!(
        machine.entry("2026-03-01T10:00:00Z").unwrap().journal,
        entry.journal
    );
    // A file of it is damaged: the manifest tells where it was cut.
    let sealed = directory.path().join("spool/20260301T100000Z-PT5M");
    for file in std::fs::read_dir(&sealed).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|end| end == "csv") {
            std::fs::write(path, "gone").unwrap();
            break;
        }
    }
    let window = window("2026-03-01T10:00:00Z");
    let moved = machine
        .ledger
        .transition(&window, State::Spooled, State::Due, Some("damaged"));
    assert!(moved.unwrap());
    machine.clock.advance_to(at("2026-03-01T10:24:00Z"));
    machine.tick().await;
    for (path, bytes) in &before {
        assert_eq!(machine.sealed().get(path), Some(bytes), "{path}");
    }
    drop(machine);
    // All of it is lost: the ledger tells.
    std::fs::remove_dir_all(&sealed).unwrap();
    let mut machine = Machine::open(directory.path(), "2026-03-01T10:25:00Z");
    machine.clock.advance_to(at("2026-03-01T10:41:00Z"));
    machine.tick().await;
    for (path, bytes) in &before {
        assert_eq!(machine.sealed().get(path), Some(bytes), "{path}");
    }
}

#[tokio::test]
async fn a_sample_of_the_future_moves_no_window_and_is_set_aside_where_it_can_be_seen() {
    let _errors = Errors::watch();
    let directory = directory();
    let mut machine = Machine::open(directory.path(), "2026-03-01T10:00:00Z");
    machine
        .works("2026-03-01T10:00:00Z", "2026-03-01T10:04:50Z")
        .await;
    machine.it_is("2026-03-01T10:05:00Z").await;
    let fast = [
        raw(AMPS, "2026-03-02T10:05:00Z", 8.0),
        raw(VIB, "2026-03-01T10:06:30Z", 8.0),
    ];
    let taken = machine.intake.take(fast.to_vec()).await.unwrap();
    assert_eq!((taken.taken, taken.refused), (0, 2));
    machine.tick().await;
    assert_eq!(machine.state("2026-03-01T10:00:00Z"), None);
    let figures = machine.intake.figures();
    assert_eq!(
        (figures.future, figures.offset_seconds),
        (2, Some(86_400.0))
    );
    let kept = refused(&directory.path().join("refused")).unwrap();
    let kept: Vec<_> = kept.into_iter().filter_map(|one| one.sample).collect();
    assert_eq!((kept[0].tag.as_str(), kept[0].value), ("amps", Some(8.0)));
    assert_eq!(kept.len(), 2);
    // Within a minute it is a sample as any other; before 2000 nothing is a time.
    assert_eq!(
        machine
            .take(raw(AMPS, "2026-03-01T10:05:50Z", 8.0))
            .await
            .taken,
        1
    );
    assert_eq!(
        machine
            .take(raw(AMPS, "1999-12-31T23:59:59Z", 8.0))
            .await
            .refused,
        1
    );
    assert_eq!(machine.intake.figures().ancient, 1);
    let refusal = Refusal {
        from: "t/amps",
        why: "is no number",
        payload: b"on fire",
    };
    machine.intake.refuse(&refusal).unwrap();
    let kept = refused(&directory.path().join("refused")).unwrap();
    assert_eq!(kept.last().unwrap().payload, "on fire");
    assert_eq!(machine.intake.figures().refused(), 4);
}

#[tokio::test]
async fn a_source_whose_clock_is_an_hour_off_is_refused_or_late_and_told_by_how_much() {
    let _errors = Errors::watch();
    for (off, name) in [(3_600, "ahead"), (-3_600, "behind")] {
        let directory = directory();
        let mut machine = Machine::open(directory.path(), "2026-03-01T10:00:00Z");
        let start = at("2026-03-01T10:00:00Z");
        for second in (0..660).step_by(10) {
            let now = start + TimeDelta::seconds(second);
            machine.clock.advance_to(now);
            let both = [AMPS, VIB].map(|tag| sample(tag, now + TimeDelta::seconds(off), 1.0));
            machine.intake.take(both.to_vec()).await.unwrap();
            machine.tick().await;
        }
        let figures = machine.intake.figures();
        assert_eq!(figures.offset_seconds, Some(off as f64), "{name}");
        assert_eq!(
            machine.state("2026-03-01T10:00:00Z"),
            Some(State::Empty),
            "{name}"
        );
        match off > 0 {
            true => {
                assert_eq!((figures.future, figures.taken), (132, 0));
                assert_eq!(figures.refusing_since, Some(start));
            }
            // What it brings is of windows before the first.
            false => assert_eq!((figures.future, figures.taken), (0, 132)),
        }
    }
}

#[tokio::test]
async fn bad_quality_is_missing_and_uncertain_is_a_value_and_both_are_counted() {
    let _errors = Errors::watch();
    let directory = directory();
    let mut machine = Machine::open(directory.path(), "2026-03-01T10:00:00Z");
    machine
        .works("2026-03-01T10:00:00Z", "2026-03-01T10:04:00Z")
        .await;
    machine.clock.advance_to(at("2026-03-01T10:05:10Z"));
    for quality in [Quality::Bad, Quality::Uncertain] {
        let tag = if quality == Quality::Bad { AMPS } else { VIB };
        let mut one = raw(tag, "2026-03-01T10:05:00Z", 3.25);
        one.quality = quality;
        machine.take(one).await;
        machine.take(raw(tag, "2026-03-01T10:05:01Z", 1.0)).await;
    }
    machine.tick().await;
    assert_eq!(machine.cells("motor", "2026-03-01T10:00:00Z")[4], "");
    assert_eq!(machine.cells("bearing", "2026-03-01T10:00:00Z")[4], "3.25");
    let figures = machine.intake.figures();
    assert_eq!((figures.bad, figures.uncertain, figures.missing), (1, 1, 1));
}

#[tokio::test]
async fn a_sensor_that_wakes_after_a_day_is_empty_until_then_and_waited_for_from_then_on() {
    let _errors = Errors::watch();
    let directory = directory();
    let mut machine = Machine::open(directory.path(), "2026-03-01T10:00:00Z");
    machine
        .works("2026-03-01T10:00:00Z", "2026-03-01T10:01:00Z")
        .await;
    // A day without the bearing.
    let mut now = at("2026-03-01T10:01:30Z");
    while now <= at("2026-03-02T10:00:00Z") {
        machine.clock.advance_to(now);
        machine.take(sample(AMPS, now, 5.0)).await;
        machine.tick().await;
        now += TimeDelta::seconds(30);
    }
    assert_eq!(
        machine.entry("2026-03-02T09:50:00Z").unwrap().blank,
        ["bearing"]
    );
    machine
        .works("2026-03-02T10:00:10Z", "2026-03-02T10:05:00Z")
        .await;
    assert_eq!(machine.state("2026-03-02T10:00:00Z"), Some(State::Spooled));
    assert!(
        !machine
            .cells("bearing", "2026-03-02T10:00:00Z")
            .contains(&String::new())
    );
}

#[tokio::test]
async fn an_input_that_floods_makes_a_window_like_any_other() {
    let _errors = Errors::watch();
    let directory = directory();
    let mut machine = Machine::open(directory.path(), "2026-03-01T10:00:00Z");
    let start = at("2026-03-01T10:00:00Z");
    machine.clock.advance_to(at("2026-03-01T10:05:01Z"));
    // A sample a millisecond, for a minute of them.
    let flood: Vec<Raw> = (0..60_000)
        .map(|n| {
            sample(
                AMPS,
                start + TimeDelta::milliseconds(4 * 60_000 + n),
                n as f64,
            )
        })
        .collect();
    for batch in flood.chunks(5_000) {
        machine.intake.take(batch.to_vec()).await.unwrap();
    }
    machine.take(raw(VIB, "2026-03-01T10:05:00Z", 1.0)).await;
    machine.take(raw(AMPS, "2026-03-01T10:05:00Z", 9.5)).await;
    machine.tick().await;
    assert_eq!(
        machine.cells("motor", "2026-03-01T10:00:00Z"),
        ["", "", "", "0.0", "9.5"]
    );
}

#[tokio::test]
async fn after_a_downtime_what_an_input_kept_is_backfilled_and_the_live_window_is_not_held_up() {
    let _errors = Errors::watch();
    let directory = directory();
    let mut machine = Machine::open(directory.path(), "2026-03-01T10:00:00Z");
    machine
        .works("2026-03-01T10:00:00Z", "2026-03-01T10:05:10Z")
        .await;
    drop(machine);
    // An hour later the broker has all of it.
    let mut machine = Machine::open(directory.path(), "2026-03-01T11:06:00Z");
    machine.intake.connected();
    machine.tick().await;
    assert_eq!(
        machine.state("2026-03-01T10:05:00Z"),
        Some(State::Due),
        "it waits for what was kept"
    );
    let mut kept = at("2026-03-01T10:05:20Z");
    while kept <= at("2026-03-01T11:06:00Z") {
        let both = [AMPS, VIB].map(|tag| sample(tag, kept, (kept.timestamp() % 1_000) as f64));
        machine.intake.take(both.to_vec()).await.unwrap();
        kept += TimeDelta::seconds(10);
    }
    machine.tick().await;
    let entries = machine.ledger.list(100).unwrap();
    assert_eq!(entries.len(), 14);
    let whole =
        |entry: &Entry| entry.state == State::Spooled && entry.rows == 5 && entry.blank.is_empty();
    assert!(entries.iter().all(whole), "{entries:#?}");
}

#[tokio::test]
async fn a_backlog_that_waits_does_not_starve_the_live_window_nor_the_other_way_round() {
    let _errors = Errors::watch();
    let directory = directory();
    let mut machine = Machine::open(directory.path(), "2026-03-01T10:00:00Z");
    machine
        .works("2026-03-01T10:00:00Z", "2026-03-01T10:05:10Z")
        .await;
    drop(machine);
    let mut machine = Machine::open(directory.path(), "2026-03-01T10:31:00Z");
    // The input is never connected: backlog waits a quarter of an hour, live windows go by their deadlines.
    machine.it_is("2026-03-01T10:39:50Z").await;
    assert_eq!(machine.state("2026-03-01T10:30:00Z"), Some(State::Empty));
    assert_eq!(machine.state("2026-03-01T10:20:00Z"), Some(State::Due));
    machine.it_is("2026-03-01T10:46:00Z").await;
    assert_eq!(machine.state("2026-03-01T10:20:00Z"), Some(State::Empty));
    // What is live by now waits for its samples, whether or not there is a backlog.
    assert_eq!(machine.state("2026-03-01T10:40:00Z"), None);
    machine.it_is("2026-03-01T10:49:50Z").await;
    assert_eq!(machine.state("2026-03-01T10:40:00Z"), Some(State::Empty));
}

#[tokio::test]
async fn while_the_clock_is_not_set_nothing_is_judged_by_it() {
    let _errors = Errors::watch();
    let directory = directory();
    let mut machine = Machine::open(directory.path(), "1970-01-01T00:00:30Z");
    let told = machine
        .intake
        .take(vec![raw(AMPS, "2026-03-01T10:00:00Z", 1.0)])
        .await;
    assert!(matches!(told, Err(IntakeError::Suspect)), "{told:?}");
    let untimed = Raw {
        time: None,
        ..raw(AMPS, "2026-03-01T10:00:00Z", 1.0)
    };
    let told = machine.intake.take(vec![untimed]).await;
    assert!(matches!(told, Err(IntakeError::Suspect)), "{told:?}");
    machine.tick().await;
    assert_eq!(machine.ledger.list(10).unwrap(), []);
    // It is set: all of it is taken.
    machine.clock.advance_to(at("2026-03-01T10:00:01Z"));
    assert_eq!(
        machine
            .take(raw(AMPS, "2026-03-01T10:00:00Z", 1.0))
            .await
            .taken,
        1
    );
    assert_eq!(machine.take(untimed).await.taken, 1);
    assert_eq!(machine.intake.figures().by_arrival, 1);
}

#[tokio::test]
async fn samples_without_a_time_never_fall_onto_each_other() {
    let directory = directory();
    let machine = Machine::open(directory.path(), "2026-03-01T10:00:00Z");
    let untimed = |value| Raw {
        time: None,
        ..raw(AMPS, "2026-03-01T10:00:00Z", value)
    };
    let taken = machine
        .intake
        .take((0..50).map(|n| untimed(f64::from(n))).collect())
        .await;
    let taken = taken.unwrap();
    assert_eq!((taken.taken, taken.collapsed, taken.differing), (50, 0, 0));
    let figures = machine.intake.figures();
    assert_eq!((figures.by_arrival, figures.offset_seconds), (50, None));
}
