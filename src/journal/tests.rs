//! The journal against a map, against damage, and against a disk that fails or loses its power at any operation.

use std::collections::BTreeMap;

use super::*;
use crate::disk::LocalDisk;

mod history;
mod platter;

use platter::{Fault, Platter};

const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_780_000_000 * SECOND;
const DIR: &str = "/journal";

fn sample(signal: Signal, second: i64, value: f64) -> Sample {
    Sample {
        signal,
        time: START + second * SECOND,
        value,
        quality: Quality::Good,
        timed: Timed::Source,
        historical: false,
        kind: Kind::Value,
    }
}

fn open(platter: &Platter, segment: usize) -> Result<Journal, JournalError> {
    let options = Options {
        floor: 1000,
        segment,
        ..Options::default()
    };
    Journal::open(Path::new(DIR), Arc::new(platter.clone()), options)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(work)
}

/// Signal number, time, whether it is a sign of life.
type Id = (u32, i64, bool);

/// What a value is, for comparison: its bits, and whether it is uncertain.
fn seen(sample: &Sample) -> (Id, (u64, Quality)) {
    let bits = if sample.value.is_nan() {
        1
    } else {
        sample.value.to_bits()
    };
    let id = (sample.signal.0, sample.time, sample.kind == Kind::Alive);
    (id, (bits, sample.quality))
}

/// Everything in the journal at a position; nothing may be twice.
fn contents(journal: &Journal, upto: Position) -> BTreeMap<Id, (u64, Quality)> {
    let signals = journal.signals();
    let mut all = BTreeMap::new();
    for series in journal.read(&signals, i64::MIN, i64::MAX, upto).unwrap() {
        let ids: Vec<Id> = series.samples.iter().map(|sample| seen(sample).0).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        all.extend(series.samples.iter().map(seen));
    }
    all
}

/// The journal as it should be.
#[derive(Clone, Default)]
struct Model {
    versions: Vec<Sample>,
}

impl Model {
    fn at(&self, position: u64) -> BTreeMap<Id, (u64, Quality)> {
        let before = self.versions.iter().take(position as usize);
        before.map(seen).collect()
    }

    /// What is new in a batch, and how many say what is known, or something else.
    fn judge(&self, batch: &[Sample]) -> (Vec<Sample>, u64, u64) {
        let mut known = self.at(u64::MAX);
        let (mut new, mut collapsed, mut differing) = (Vec::new(), 0, 0);
        for sample in batch {
            let (id, value) = seen(sample);
            match known.insert(id, value) {
                Some(before) if before == value => {
                    collapsed += 1;
                    continue;
                }
                Some(_) => differing += 1,
                None => {}
            }
            new.push(*sample);
        }
        (new, collapsed, differing)
    }

    fn position(&self) -> u64 {
        self.versions.len() as u64
    }

    /// The journal has this, at every position that there was.
    fn holds(&self, journal: &Journal) {
        assert_eq!(journal.position().number(), self.position());
        for upto in (0..=self.position()).rev().step_by(3) {
            assert_eq!(
                contents(journal, Position(upto)),
                self.at(upto),
                "at {upto}"
            );
        }
    }

    /// The power was cut while this batch was written, and perhaps it was: all of it or nothing.
    fn adopt(&mut self, journal: &Journal, batch: &[Sample]) {
        let found = journal.position().number();
        if found > self.position() {
            let (new, _, _) = self.judge(batch);
            self.versions.extend(new);
        }
    }
}

/// Batches of few signals and few times, so that much comes twice.
fn batches(journal: &Journal, random: &mut fastrand::Rng, count: usize) -> Vec<Vec<Sample>> {
    let signals: Vec<Signal> = (0..4)
        .map(|number| journal.signal("pump-1", &format!("tag {number}")).unwrap())
        .collect();
    let mut one = |at: usize| Sample {
        quality: *random
            .choice(&[
                Quality::Good,
                Quality::Good,
                Quality::Uncertain,
                Quality::Bad,
            ])
            .unwrap(),
        kind: if random.u8(..6) == 0 {
            Kind::Alive
        } else {
            Kind::Value
        },
        value: *random.choice(&[1.0, 2.0, f64::NAN, -0.5]).unwrap(),
        // The hours differ too.
        ..sample(
            *random.choice(&signals).unwrap(),
            at as i64 + random.i64(-8..3) * *random.choice(&[1, 1, 1000]).unwrap(),
            0.0,
        )
    };
    let mut one = |at| {
        let sample = one(at);
        // As it is kept.
        let missing = sample.quality == Quality::Bad || sample.kind == Kind::Alive;
        Sample {
            value: if missing { f64::NAN } else { sample.value },
            ..sample
        }
    };
    (0..count)
        .map(|at| (0..1 + at % 5).map(|_| one(at)).collect())
        .collect()
}

fn check(receipt: Receipt, model: &mut Model, batch: &[Sample]) {
    let (new, collapsed, differing) = model.judge(batch);
    model.versions.extend(new);
    let expected = Receipt {
        position: Position(model.position()),
        collapsed,
        differing,
    };
    assert_eq!(receipt, expected);
}

#[test]
fn what_comes_again_changes_nothing_and_another_value_is_counted() {
    let platter = Platter::default();
    let journal = open(&platter, 4).unwrap();
    let amps = journal.signal("pump-1", "amps").unwrap();
    let append = |samples: &[(i64, f64)]| {
        let batch = samples.iter().map(|(at, value)| sample(amps, *at, *value));
        let receipt = block_on(journal.append(batch.collect())).unwrap();
        (
            receipt.position.number(),
            receipt.collapsed,
            receipt.differing,
        )
    };
    let values = |upto: u64| {
        let all = contents(&journal, Position(upto));
        let values = all.values().map(|(bits, _)| f64::from_bits(*bits));
        values.collect::<Vec<_>>()
    };
    assert_eq!(append(&[(1, 1.0), (2, 2.0)]), (2, 0, 0));
    assert_eq!(append(&[(1, 1.0), (2, 2.5)]), (3, 1, 1));
    // Into a segment, and again.
    assert_eq!(append(&[(3, 3.0)]), (4, 0, 0));
    assert_eq!(append(&[(1, 1.0), (3, 3.5)]), (5, 1, 1));
    assert_eq!(values(5), [1.0, 2.5, 3.5]);
    assert_eq!(values(2), [1.0, 2.0]);
    // One batch may say a thing twice.
    assert_eq!(append(&[(9, 1.0), (9, 1.0), (9, 2.0)]), (7, 1, 1));
}

#[test]
fn what_is_read_is_what_a_map_would_have_at_every_position_and_after_every_restart() {
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let platter = Platter::default();
        let segment = random.usize(3..40);
        let mut journal = open(&platter, segment).unwrap();
        let mut model = Model::default();
        for batch in batches(&journal, &mut random, 40) {
            let receipt = block_on(journal.append(batch.clone())).unwrap();
            check(receipt, &mut model, &batch);
            if random.u8(..8) == 0 {
                journal = open(&platter, segment).unwrap();
                assert_eq!(journal.damage(), []);
            }
        }
        model.holds(&journal);
        let looked = Journal::look(Path::new(DIR), Arc::new(platter.clone())).unwrap();
        model.holds(&looked);
        assert!(block_on(looked.append(vec![])).is_err());
    }
}

#[test]
fn the_power_cut_at_any_operation_loses_nothing_that_was_acknowledged_and_doubles_nothing() {
    let mut cuts = 0;
    for seed in 0..4 {
        let mut operation = 1;
        loop {
            let mut random = fastrand::Rng::with_seed(seed);
            let platter = Platter::default();
            platter.inject(operation, Fault::Cut);
            let segment = 5 + seed as usize;
            let mut model = Model::default();
            let mut open_at: Vec<Sample> = Vec::new();
            let mut was_cut = false;
            if let Ok(mut journal) = open(&platter, segment) {
                for (at, batch) in batches(&journal, &mut random, 12).into_iter().enumerate() {
                    match block_on(journal.append(batch.clone())) {
                        Ok(receipt) => check(receipt, &mut model, &batch),
                        Err(_) => {
                            (open_at, was_cut) = (batch, true);
                            break;
                        }
                    }
                    if at == 5 {
                        // A restart is cut as well.
                        let Ok(again) = open(&platter, segment) else {
                            break;
                        };
                        journal = again;
                    }
                }
            }
            let is_over = platter.operations() < operation;
            platter.restart(&mut random);
            let journal = open(&platter, segment).unwrap();
            model.adopt(&journal, &open_at);
            model.holds(&journal);
            // What was not acknowledged comes again; a name that had no sample yet may have gone too.
            batches(&journal, &mut random, 0);
            let receipt = block_on(journal.append(open_at.clone())).unwrap();
            check(receipt, &mut model, &open_at);
            model.holds(&open(&platter, segment).unwrap());
            assert!(was_cut || is_over || open_at.is_empty());
            cuts += 1;
            if is_over {
                break;
            }
            operation += 1;
        }
    }
    assert!(cuts > 150, "{cuts}");
}

#[test]
fn a_disk_that_is_full_or_fails_at_any_operation_leaves_a_journal_that_goes_on() {
    for (seed, fault) in [
        Fault::Full(0),
        Fault::Full(6),
        Fault::Broken(0),
        Fault::Broken(9),
    ]
    .into_iter()
    .enumerate()
    {
        let mut operation = 1;
        loop {
            let mut random = fastrand::Rng::with_seed(seed as u64);
            let platter = Platter::default();
            platter.inject(operation, fault);
            let mut journal = open(&platter, 7).unwrap();
            let mut model = Model::default();
            for (at, batch) in batches(&journal, &mut random, 14).into_iter().enumerate() {
                let mut tries = 0;
                let receipt = loop {
                    match block_on(journal.append(batch.clone())) {
                        Ok(receipt) => break receipt,
                        Err(JournalError::Full { .. }) if matches!(fault, Fault::Full(_)) => {}
                        Err(JournalError::Disk { .. }) if matches!(fault, Fault::Broken(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                    assert_eq!(contents(&journal, journal.position()), model.at(u64::MAX));
                    tries += 1;
                    assert!(tries < 20, "it does not go on");
                };
                check(receipt, &mut model, &batch);
                if at == 8 {
                    journal = open(&platter, 7).unwrap();
                    model.holds(&journal);
                }
            }
            model.holds(&journal);
            let is_over = platter.operations() < operation;
            // The power goes too: what was written after the fault is as durable as any.
            platter.restart(&mut random);
            model.holds(&open(&platter, 7).unwrap());
            if is_over {
                break;
            }
            operation += 1;
        }
    }
}

#[test]
fn below_the_floor_it_refuses_and_with_room_it_takes_again() {
    let platter = Platter::default();
    let journal = open(&platter, 100).unwrap();
    let signal = journal.signal("", "level").unwrap();
    platter.set_free(Some(999));
    let refused = block_on(journal.append(vec![sample(signal, 1, 1.0)])).unwrap_err();
    assert!(
        matches!(
            refused,
            JournalError::Full {
                free: 999,
                floor: 1000
            }
        ),
        "{refused}"
    );
    assert_eq!(contents(&journal, journal.position()).len(), 0);
    platter.set_free(Some(1000));
    block_on(journal.append(vec![sample(signal, 1, 1.0)])).unwrap();
    assert_eq!(contents(&journal, journal.position()).len(), 1);
}

#[test]
fn whoever_appends_at_the_same_time_shares_a_sync() {
    let platter = Platter::default();
    let journal = open(&platter, 10_000).unwrap();
    let signal = journal.signal("", "level").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let before = platter.operations();
    runtime.block_on(async {
        let writing = held(&journal.shared.writer);
        let mut tasks = Vec::new();
        for second in 0..200 {
            let journal = journal.clone();
            let work = async move { journal.append(vec![sample(signal, second, 1.0)]).await };
            tasks.push(tokio::spawn(work));
        }
        while journal.shared.room.available_permits() > WAITING - 200 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        drop(writing);
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    });
    let operations = platter.operations() - before;
    assert!(operations < 20, "{operations}");
    assert_eq!(contents(&journal, journal.position()).len(), 200);
}

#[test]
fn damage_is_set_aside_and_named_and_the_rest_goes_on() {
    let platter = Platter::default();
    let journal = open(&platter, 30).unwrap();
    let signal = journal.signal("", "level").unwrap();
    let other = journal.signal("", "other").unwrap();
    for second in 0..70 {
        let batch = vec![sample(signal, second, 1.0), sample(other, second, 2.0)];
        block_on(journal.append(batch)).unwrap();
    }
    let whole = contents(&journal, journal.position());
    let position = journal.position();
    drop(journal);
    let names = platter.names(Path::new(DIR));
    assert_eq!(names.len(), 4 + 1 + 1, "{names:?}");
    for (name, lost) in names.iter().zip([2, 30, 30, 30, 30, 0]) {
        let path = Path::new(DIR).join(name);
        let before = platter.read(&path).unwrap();
        let (at, lost) = match name {
            name if name.starts_with("log") => (before.len() / 2, lost),
            // The first block.
            name if name.starts_with("seg") => (30, 15),
            _ => (20, 70),
        };
        platter.change(&path, |bytes| bytes[at] ^= 1);
        let journal = open(&platter, 30).unwrap();
        let found = contents(&journal, position);
        assert_eq!(whole.len() - found.len(), lost, "{name}");
        let damage = journal.damage();
        assert_eq!(damage.len(), 1, "{name}: {damage:?}");
        assert_eq!(damage[0].path, path);
        assert_eq!(journal.position(), position);
        // What was lost may come again; a number is never given to another name.
        let level = journal.signal("", "level").unwrap();
        assert!(level == signal || name == "signals");
        assert_ne!(level, other);
        // As it was.
        for name in platter.names(Path::new(DIR)) {
            platter.remove(&Path::new(DIR).join(name)).unwrap();
        }
        return_all(&platter, &whole, signal, other);
    }
}

fn return_all(
    platter: &Platter,
    whole: &BTreeMap<Id, (u64, Quality)>,
    signal: Signal,
    other: Signal,
) {
    for name in platter.names(&Path::new(DIR).join("damaged")) {
        platter
            .remove(&Path::new(DIR).join("damaged").join(name))
            .unwrap();
    }
    let journal = open(platter, 30).unwrap();
    assert_eq!(journal.signal("", "level").unwrap(), signal);
    assert_eq!(journal.signal("", "other").unwrap(), other);
    for second in 0..70 {
        let batch = vec![sample(signal, second, 1.0), sample(other, second, 2.0)];
        block_on(journal.append(batch)).unwrap();
    }
    assert_eq!(contents(&journal, journal.position()), *whole);
}

#[tokio::test]
async fn one_asset_of_a_thousand_is_read_without_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Counting::default());
    let options = Options {
        floor: 0,
        segment: 6000,
        ..Options::default()
    };
    let journal = Journal::open(directory.path(), disk.clone(), options).unwrap();
    let signals: Vec<Signal> = (0..3000)
        .map(|number| {
            journal
                .signal(
                    &format!("asset-{}", number / 3),
                    &format!("tag-{}", number % 3),
                )
                .unwrap()
        })
        .collect();
    for second in 0..20 {
        journal
            .append(
                signals
                    .iter()
                    .map(|signal| sample(*signal, second, 1.0))
                    .collect(),
            )
            .await
            .unwrap();
    }
    let read = |signals: &[Signal]| {
        journal
            .read(signals, START, START + 20 * SECOND, journal.position())
            .unwrap()
    };
    // The last segment is made after its samples are acknowledged.
    drop(held(&journal.shared.writer));
    read(&signals[..3]);
    disk.bytes.store(0, std::sync::atomic::Ordering::SeqCst);
    let series = read(&signals[1500..1503]);
    assert!(series.iter().all(|series| series.samples.len() == 20));
    let bytes = disk.bytes.load(std::sync::atomic::Ordering::SeqCst);
    assert!(bytes < 10 * 600, "{bytes} bytes were read for one asset");
}

#[derive(Default)]
struct Counting {
    bytes: std::sync::atomic::AtomicUsize,
}

impl Disk for Counting {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        LocalDisk.write(path, bytes)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        LocalDisk.append(path, bytes)
    }
    fn sync(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let bytes = LocalDisk.read(path)?;
        self.bytes
            .fetch_add(bytes.len(), std::sync::atomic::Ordering::SeqCst);
        Ok(bytes)
    }
    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = LocalDisk.read_at(path, offset, length)?;
        self.bytes
            .fetch_add(bytes.len(), std::sync::atomic::Ordering::SeqCst);
        Ok(bytes)
    }
    fn length(&self, path: &Path) -> io::Result<u64> {
        LocalDisk.length(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        LocalDisk.list(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove_dir(path)
    }
    fn free(&self, path: &Path) -> io::Result<u64> {
        LocalDisk.free(path)
    }
}
