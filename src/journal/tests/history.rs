//! The history that a journal leaves: each sample once, whatever happens meanwhile.

use std::collections::BTreeMap;

use bytes::Bytes;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::RowAccessor;

use super::platter::{Fault, Platter};
use super::*;

const HOUR: i64 = 3600;

/// All rows of the history, file by file in the order of their names; the directories of days are known.
fn rows(platter: &Platter, journal: &Journal) -> Vec<(Id, (u64, Quality))> {
    let mut rows = Vec::new();
    for path in platter
        .all()
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "parquet"))
    {
        let parts: Vec<_> = path
            .components()
            .map(|part| part.as_os_str().to_str().unwrap())
            .collect();
        let asset = if parts.len() == 5 { parts[2] } else { "" };
        let file = SerializedFileReader::new(Bytes::from(platter.read(path).unwrap())).unwrap();
        for row in file.get_row_iter(None).unwrap() {
            let row = row.unwrap();
            let signal = journal.find(asset, row.get_string(1).unwrap()).unwrap();
            let value = row.get_double(2).ok();
            let quality = match row.get_string(3).unwrap().as_str() {
                "good" => Quality::Good,
                "uncertain" => Quality::Uncertain,
                _ => Quality::Bad,
            };
            let time = row.get_long(0).unwrap();
            rows.push((
                (signal.0, time, false),
                (value.map_or(1, f64::to_bits), quality),
            ));
        }
    }
    rows
}

/// The history has the model's values, none twice.
fn history_is(platter: &Platter, journal: &Journal, model: &Model) {
    let rows = rows(platter, journal);
    let mut seen = std::collections::BTreeSet::new();
    for row in &rows {
        assert!(
            seen.insert(format!("{row:?}")),
            "{row:?} is twice in the history"
        );
    }
    let found: BTreeMap<_, _> = rows.into_iter().collect();
    let mut expected = model.at(u64::MAX);
    expected.retain(|(_, _, alive), _| !alive);
    assert_eq!(found, expected);
}

fn now(hours: i64) -> i64 {
    START + hours * HOUR * SECOND
}

/// Batches with a value of their own for each sample, so that no value comes again by another version.
fn hours(
    journal: &Journal,
    random: &mut fastrand::Rng,
    from: i64,
    count: usize,
) -> Vec<Vec<Sample>> {
    let mut value = 0.0;
    let mut batches = batches(journal, random, count);
    let named = journal.signal("", "level").unwrap();
    for (at, batch) in batches.iter_mut().enumerate() {
        for sample in batch.iter_mut() {
            value += 1.0;
            let second = from * HOUR + at as i64 * 400 + random.i64(0..5);
            sample.time = START + second * SECOND;
            if !sample.value.is_nan() {
                sample.value = value + from as f64 * 1e6;
            }
            if random.u8(..4) == 0 {
                sample.signal = named;
            }
        }
    }
    batches
}

fn options() -> Options {
    Options {
        floor: 0,
        segment: 9,
        keep: Duration::from_secs(3 * HOUR as u64),
        ..Options::default()
    }
}

fn reopened(platter: &Platter) -> Result<Journal, JournalError> {
    Journal::open(Path::new(DIR), Arc::new(platter.clone()), options())
}

#[test]
fn each_sample_is_in_the_history_once_late_ones_too_and_its_segments_go() {
    let platter = Platter::default();
    let journal = reopened(&platter).unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    let mut model = Model::default();
    for from in 0..8 {
        for batch in hours(&journal, &mut random, from, 9) {
            let receipt = block_on(journal.append(batch.clone())).unwrap();
            check(receipt, &mut model, &batch);
        }
        block_on(journal.sweep(now(from))).unwrap();
    }
    let late: Vec<Sample> = hours(&journal, &mut random, 2, 3).concat();
    let receipt = block_on(journal.append(late.clone())).unwrap();
    check(receipt, &mut model, &late);
    assert!(receipt.differing > 0 || receipt.collapsed < late.len() as u64);

    // Nothing is released yet.
    let held = block_on(journal.sweep(now(20))).unwrap();
    assert_eq!((held.gone, held.held > 0), (0, true), "{held:?}");
    history_is(&platter, &journal, &model);
    let again = block_on(journal.sweep(now(20))).unwrap();
    assert_eq!((again.files.len(), again.samples), (0, 0), "{again:?}");

    let segments = looked(&journal.shared.live).segments.len();
    journal.release(now(4));
    let some = block_on(journal.sweep(now(20))).unwrap();
    assert!(some.gone > 0 && some.held > 0, "{some:?}");
    journal.release(now(100));
    let all = block_on(journal.sweep(now(20))).unwrap();
    assert_eq!(
        some.gone + all.gone,
        segments as u64 - 1,
        "the last stays: {all:?}"
    );
    history_is(&platter, &journal, &model);
    assert_eq!(journal.position().number(), model.position());
    assert_eq!(
        reopened(&platter).unwrap().position().number(),
        model.position()
    );

    // What is gone is not known any more.
    let receipt = block_on(journal.append(vec![model.versions[0]])).unwrap();
    assert_eq!(receipt.collapsed + receipt.differing, 0);
}

#[test]
fn a_journal_that_is_too_large_lets_the_oldest_go_and_says_it_before() {
    let platter = Platter::default();
    let options = Options {
        keep: Duration::from_secs(1_000_000),
        max_bytes: 4000,
        ..options()
    };
    let journal = Journal::open(Path::new(DIR), Arc::new(platter.clone()), options).unwrap();
    journal.release(i64::MAX);
    let mut random = fastrand::Rng::with_seed(4);
    let mut was_said = false;
    let mut gone = 0;
    for from in 0..40 {
        for batch in hours(&journal, &mut random, from, 3) {
            block_on(journal.append(batch)).unwrap();
        }
        let swept = block_on(journal.sweep(now(from + 2))).unwrap();
        assert!(swept.bytes <= 4000, "{swept:?}");
        assert!(swept.gone == 0 || was_said, "it was not said before");
        was_said |= matches!(swept.next, Some((_, Leaving::Size)));
        gone += swept.gone;
    }
    assert!(gone > 3, "{gone}");
}

#[test]
fn the_power_cut_at_any_operation_of_a_sweep_neither_loses_nor_doubles_a_row() {
    for seed in 0..2 {
        let mut operation = 4;
        loop {
            let mut random = fastrand::Rng::with_seed(seed);
            let platter = Platter::default();
            let mut model = Model::default();
            let mut open_at = Vec::new();
            let journal = reopened(&platter).unwrap();
            platter.inject(operation, Fault::Cut);
            'life: for from in 0..3 {
                let mut come = hours(&journal, &mut random, from, 4);
                come.push(hours(&journal, &mut random, 0, 1).concat());
                for batch in come {
                    match block_on(journal.append(batch.clone())) {
                        Ok(receipt) => check(receipt, &mut model, &batch),
                        Err(_) => {
                            open_at = batch;
                            break 'life;
                        }
                    }
                }
                if block_on(journal.sweep(now(from + 2))).is_err() {
                    break;
                }
                journal.release(now(from));
            }
            let is_over = platter.operations() < operation;
            platter.restart(&mut random);
            let journal = reopened(&platter).unwrap();
            assert_eq!(journal.damage(), []);
            batches(&journal, &mut random, 0);
            journal.signal("", "level").unwrap();
            model.adopt(&journal, &open_at);
            block_on(journal.append(open_at.clone())).unwrap();
            let (new, _, _) = model.judge(&open_at);
            model.versions.extend(new);
            block_on(journal.sweep(now(20))).unwrap();
            history_is(&platter, &journal, &model);
            if is_over {
                break;
            }
            operation += 1;
        }
    }
}

#[test]
fn a_disk_that_is_full_or_fails_in_a_sweep_delays_it_and_no_more() {
    for fault in [Fault::Full(2), Fault::Broken(4)] {
        let mut operation = 1;
        loop {
            let mut random = fastrand::Rng::with_seed(7);
            let platter = Platter::default();
            let mut model = Model::default();
            let journal = reopened(&platter).unwrap();
            for batch in hours(&journal, &mut random, 0, 20) {
                let receipt = block_on(journal.append(batch.clone())).unwrap();
                check(receipt, &mut model, &batch);
            }
            let before = platter.operations();
            platter.inject(before + operation, fault);
            let mut tries = 0;
            while block_on(journal.sweep(now(20))).is_err() {
                tries += 1;
                assert!(tries < 10);
            }
            history_is(&platter, &journal, &model);
            if platter.operations() < before + operation {
                break;
            }
            operation += 1;
        }
        assert!(operation > 10);
    }
}
