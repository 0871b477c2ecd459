//! Histories that change while they are followed.

use std::sync::{Arc, Mutex};

use super::*;
use crate::signal::Mapping;
use crate::source::replay::follow::{self, Identity, Keep, Listing, Place};

/// Minute by minute, the number of the minute as the only signal.
pub(super) fn counted(range: std::ops::Range<i64>) -> Bytes {
    let values: Vec<f64> = range.clone().map(|minute| minute as f64).collect();
    let times = some(&minutes(range));
    parquet_file(
        "required int64 Timestamp (TIMESTAMP(MICROS,false)); required double a;",
        vec![vec![Cells::I64(times), Cells::F64(some(&values))]],
    )
}

pub(super) type Kept = Arc<Mutex<Vec<Mapping>>>;

struct Site {
    directory: tempfile::TempDir,
    kept: Kept,
}

impl Site {
    fn new(history: &Bytes) -> Self {
        let site = Self {
            directory: tempfile::tempdir().unwrap(),
            kept: Kept::default(),
        };
        site.put(history);
        site
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("h.parquet")
    }

    /// Writes the file in place, as `open(path, "wb")` does.
    fn put(&self, history: &[u8]) {
        std::fs::write(self.path(), history).unwrap();
    }

    /// Replaces the file by a rename.
    fn replace(&self, history: &[u8]) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, history).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    fn follow(&self, rebase: fn(&Extent) -> Rebase) -> Follow<LocalFiles> {
        let place = LocalFiles::at(&self.path());
        let progress = Progress::default();
        let opened = follow::open(place, &one_tag(), &Shape::default(), &progress, None).unwrap();
        let mapping = Mapping::new(rebase(opened.extent()));
        Follow::new(opened, mapping, Cadence::Pt5m, keep_in(&self.kept))
    }
}

pub(super) fn keep_in(kept: &Kept) -> Keep {
    let kept = kept.clone();
    Box::new(move |mapping| {
        kept.lock().unwrap().push(mapping.clone());
        Ok(())
    })
}

pub(super) fn play_once(_: &Extent) -> Rebase {
    Rebase::once(start(), wall().start().timestamp_micros())
}

fn play_looped(history: &Extent) -> Rebase {
    history.rebase(
        start(),
        wall().start().timestamp_micros(),
        Cadence::Pt5m,
        AtEnd::Loop,
    )
}

/// The minutes that the n-th window plays; whether the history is over.
pub(super) fn read(source: &mut dyn Source, n: i64) -> Result<(Vec<i64>, bool), SourceError> {
    let reading = source.read(&wall().offset(n), RowRule::Notebook)?;
    let values = &reading.frames[0].columns[0].values;
    let minutes = (0..values.len()).map(|row| values.get(row) as i64);
    Ok((minutes.collect(), reading.ended))
}

pub(super) fn five(first: i64) -> Vec<i64> {
    (first..first + 5).collect()
}

#[test]
fn a_history_that_is_appended_to_is_asked_again_before_it_is_called_over() {
    let site = Site::new(&counted(0..10));
    let mut source = site.follow(play_once);
    assert_eq!(read(&mut source, 1).unwrap(), (five(5), false));
    assert_eq!(read(&mut source, 2).unwrap(), (vec![], true));
    site.put(&counted(0..20));
    assert_eq!(read(&mut source, 2).unwrap(), (five(10), false));
    // And once more, by a rename: another inode, the first one untouched.
    site.replace(&counted(0..30));
    assert_eq!(read(&mut source, 5).unwrap(), (five(25), false));
    assert_eq!(read(&mut source, 6).unwrap(), (vec![], true));
    assert!(
        site.kept.lock().unwrap().is_empty(),
        "played once, the mapping stays"
    );
}

#[test]
fn a_history_of_the_same_size_is_known_by_its_times() {
    let site = Site::new(&counted(0..1440));
    let mut source = site.follow(play_once);
    assert_eq!(read(&mut source, 100).unwrap().0, five(500));
    let rolled = counted(10..1450);
    assert_eq!(
        rolled.len() as u64,
        std::fs::metadata(site.path()).unwrap().len()
    );
    site.put(&rolled);
    for n in 101..110 {
        assert_eq!(read(&mut source, n).unwrap().0, five(5 * n));
    }
}

#[test]
fn a_history_that_is_being_written_or_away_is_not_now_and_goes_on_by_itself() {
    let site = Site::new(&counted(0..60));
    let mut source = site.follow(play_once);
    assert_eq!(read(&mut source, 0).unwrap().0, five(0));
    let next = counted(0..90);
    for (what, bytes) in [
        ("not complete", &next[..next.len() / 2]),
        ("not complete", &[]),
        (
            "not a Parquet file",
            b"no Parquet at all, but a few words\n".as_slice(),
        ),
        ("have no column", &other_columns()),
    ] {
        site.put(bytes);
        let error = read(&mut source, 1).unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(error.causes().contains(what), "{what}: {}", error.causes());
    }
    std::fs::remove_file(site.path()).unwrap();
    let error = read(&mut source, 1).unwrap_err();
    assert!(
        error.is_retryable() && error.causes().contains("mounted"),
        "{}",
        error.causes()
    );
    site.put(&next);
    for n in 1..18 {
        assert_eq!(read(&mut source, n).unwrap(), (five(5 * n), false));
    }
}

/// A history of another plant.
pub(super) fn other_columns() -> Bytes {
    parquet_file(
        "required int64 Timestamp (TIMESTAMP(MICROS,false)); required double b;",
        vec![vec![
            Cells::I64(some(&minutes(0..3))),
            Cells::F64(some(&[1.0, 2.0, 3.0])),
        ]],
    )
}

#[test]
fn a_loop_goes_on_to_the_new_end_and_the_mapping_is_kept_first() {
    let site = Site::new(&counted(0..30));
    let mut source = site.follow(play_looped);
    let firsts = |source: &mut Follow<LocalFiles>, windows: std::ops::Range<i64>| -> Vec<i64> {
        windows.map(|n| read(source, n).unwrap().0[0]).collect()
    };
    assert_eq!(firsts(&mut source, 0..8), [0, 5, 10, 15, 20, 25, 0, 5]);
    // In the second turn, at minute 10 of it.
    site.replace(&counted(0..45));
    assert_eq!(firsts(&mut source, 8..16), [10, 15, 20, 25, 30, 35, 40, 0]);
    assert_eq!(
        firsts(&mut source, 0..8),
        [0, 5, 10, 15, 20, 25, 0, 5],
        "what was before stays"
    );
    let kept = site.kept.lock().unwrap().clone();
    assert_eq!(kept.len(), 1);
    // A restart that knows what was kept goes on alike.
    let place = LocalFiles::at(&site.path());
    let opened = follow::open(
        place,
        &one_tag(),
        &Shape::default(),
        &Progress::default(),
        None,
    )
    .unwrap();
    let mut again = Follow::new(opened, kept[0].clone(), Cadence::Pt5m, keep_in(&site.kept));
    assert_eq!(
        firsts(&mut again, 4..16),
        [20, 25, 0, 5, 10, 15, 20, 25, 30, 35, 40, 0]
    );
    assert_eq!(site.kept.lock().unwrap().len(), 1, "nothing new to keep");
}

#[test]
fn a_mapping_that_cannot_be_kept_is_not_used() {
    let site = Site::new(&counted(0..30));
    let place = LocalFiles::at(&site.path());
    let opened = follow::open(
        place,
        &one_tag(),
        &Shape::default(),
        &Progress::default(),
        None,
    )
    .unwrap();
    let mapping = Mapping::new(play_looped(opened.extent()));
    let full = Arc::new(Mutex::new(true));
    let disk = full.clone();
    let keep: Keep = Box::new(move |_| match *disk.lock().unwrap() {
        true => Err(io::ErrorKind::StorageFull.into()),
        false => Ok(()),
    });
    let mut source = Follow::new(opened, mapping, Cadence::Pt5m, keep);
    site.replace(&counted(0..45));
    assert!(read(&mut source, 0).unwrap_err().is_retryable());
    *full.lock().unwrap() = false;
    assert_eq!(read(&mut source, 0).unwrap().0, five(0));
    assert_eq!(read(&mut source, 8).unwrap().0, five(40));
}

/// A file that is written again whenever it is read, for so many times.
struct Restless {
    file: LocalFiles,
    path: PathBuf,
    left: Arc<Mutex<usize>>,
}

impl Place for Restless {
    type Reader = File;

    fn name(&self) -> &str {
        self.file.name()
    }

    fn list(&mut self) -> Result<Listing, SourceError> {
        self.file.list()
    }

    fn look(&self, file: &str) -> Result<Option<Identity>, SourceError> {
        self.file.look(file)
    }

    fn open(&self, file: &str, progress: &Progress) -> Result<(File, Identity), SourceError> {
        let opened = self.file.open(file, progress)?;
        let mut left = self.left.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            std::fs::write(&self.path, counted(0..60 + *left as i64)).unwrap();
        }
        Ok(opened)
    }

    fn changes_at_once(&self) -> bool {
        false
    }
}

#[test]
fn a_window_is_never_put_together_of_two_versions() {
    let site = Site::new(&counted(0..60));
    for (changes, comes_through) in [(1, true), (2, true), (9, false)] {
        let place = Restless {
            file: LocalFiles::at(&site.path()),
            path: site.path(),
            left: Arc::new(Mutex::new(changes)),
        };
        let left = place.left.clone();
        let opened = follow::open(
            place,
            &one_tag(),
            &Shape::default(),
            &Progress::default(),
            None,
        )
        .unwrap();
        let mapping = Mapping::new(Rebase::once(start(), wall().start().timestamp_micros()));
        let mut source = Follow::new(opened, mapping, Cadence::Pt5m, keep_in(&site.kept));
        let first = read(&mut source, 1);
        assert_eq!(first.is_ok(), comes_through, "{changes}: {first:?}");
        *left.lock().unwrap() = 0;
        assert_eq!(read(&mut source, 1).unwrap().0, five(5));
    }
}

#[test]
fn a_directory_is_told_what_to_name_where_one_file_is_wanted() {
    let site = Site::new(&counted(0..10));
    let error = Replay::open_file(site.directory.path(), &one_tag(), &Shape::default())
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(!error.is_retryable());
    assert!(
        text.contains("is a directory") && text.contains("h.parquet"),
        "{text}"
    );
}
