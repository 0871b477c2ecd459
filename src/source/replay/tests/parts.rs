//! Histories of many files.

mod merging;

use std::fs;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::follow::{counted, five, keep_in, other_columns, play_once, read};
use super::*;
use crate::signal::Mapping;
use crate::source::replay::follow::{self as following, Identity, Listing, Place};
use crate::source::replay::{Inventory, Shelf};

/// A directory of files.
struct Plant {
    directory: tempfile::TempDir,
}

impl Plant {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let plant = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        files
            .iter()
            .for_each(|(name, bytes)| plant.put(name, bytes));
        plant
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("h").join(name)
    }

    /// Writes a file elsewhere and renames it into place.
    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = self.directory.path().join("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn opened(&self) -> following::Opened<LocalFiles> {
        self.opened_by(LocalFiles::at(&self.path(""))).unwrap()
    }

    fn opened_by<P: Place>(&self, place: P) -> Result<following::Opened<P>, SourceError> {
        let (shape, progress) = (Shape::default(), Progress::default());
        following::open(place, &one_tag(), &shape, &progress, None)
    }

    fn inventory(&self) -> Inventory {
        self.opened().inventory()
    }

    fn follow(&self) -> Follow<LocalFiles> {
        follow(self.opened())
    }
}

fn follow<P: Place>(opened: following::Opened<P>) -> Follow<P> {
    let mapping = Mapping::new(play_once(opened.extent()));
    Follow::new(opened, mapping, Cadence::Pt5m, keep_in(&Default::default()))
}

/// What the windows of both are.
fn assert_same(one: &mut dyn Source, other: &mut dyn Source, windows: std::ops::Range<i64>) {
    for n in windows {
        let window = wall().offset(n);
        let one = one.read(&window, RowRule::Service).unwrap();
        let other = other.read(&window, RowRule::Service).unwrap();
        assert_eq!(
            format!("{:?}", one.frames),
            format!("{:?}", other.frames),
            "{n}"
        );
        assert_eq!(
            (one.duplicates, one.infinite, one.ended, one.expected_rows),
            (
                other.duplicates,
                other.infinite,
                other.ended,
                other.expected_rows
            ),
            "{n}"
        );
    }
}

/// Rows of integers, some of them missing, and doubles.
fn mixed(minutes_of: std::ops::Range<i64>, integers: &str) -> Bytes {
    let times = some(&minutes(minutes_of.clone()));
    let count: Vec<Option<i64>> = minutes_of
        .clone()
        .map(|minute| (integers != "optional" || minute % 3 != 0).then_some(minute))
        .collect();
    let value = minutes_of.map(|minute| (minute % 7 != 0).then_some(minute as f64 / 3.0));
    let value = Cells::F64(value.collect());
    let time = "required int64 Timestamp (TIMESTAMP(MICROS,false));";
    match integers {
        "" => parquet_file(
            &format!("{time} optional double b;"),
            vec![vec![Cells::I64(times), value]],
        ),
        kind => parquet_file(
            &format!("{time} {kind} int64 a; optional double b;"),
            vec![vec![Cells::I64(times), Cells::I64(count), value]],
        ),
    }
}

#[test]
fn files_together_give_the_windows_of_one_file_with_their_rows() {
    let tags = tags("Tag,UOM,Subsystem\na,,c\nb,,d\n");
    for (kinds, lacking) in [
        (["required"; 3], 0),
        (["required", "optional", "required"], 0),
        (["required", "", "required"], 1),
    ] {
        let plant = Plant::new(&[
            ("2026/a.parquet", &mixed(0..40, kinds[0])),
            ("2026/b.parquet", &mixed(40..41, kinds[1])),
            ("2026/c.parquet", &mixed(41..90, kinds[2])),
        ]);
        // What pandas' concat gives of them.
        let integers: Vec<Option<i64>> = (0..90)
            .map(|minute| (minute != 40 || !kinds[1].is_empty()).then_some(minute))
            .map(|value| {
                value.filter(|minute| kinds[1] != "optional" || *minute != 40 || minute % 3 != 0)
            })
            .collect();
        let values = (0..90).map(|minute| (minute % 7 != 0).then_some(minute as f64 / 3.0));
        let whole = parquet_file(
            "required int64 Timestamp (TIMESTAMP(MICROS,false)); optional int64 a; optional double b;",
            vec![vec![
                Cells::I64(some(&minutes(0..90))),
                Cells::I64(integers),
                Cells::F64(values.collect()),
            ]],
        );
        let opened = following::open(
            LocalFiles::at(&plant.path("")),
            &tags,
            &Shape::default(),
            &Progress::default(),
            None,
        )
        .unwrap();
        let one = History::open(whole, "h.parquet", &tags, &Shape::default()).unwrap();
        assert_eq!(*opened.extent(), *one, "{kinds:?}");
        assert_eq!(
            (opened.inventory().files, opened.inventory().lacking),
            (3, lacking)
        );
        let rebase = Rebase::once(start(), wall().start().timestamp_micros());
        assert_same(&mut follow(opened), &mut Replay::new(one, rebase), -1..20);
    }
}

#[test]
fn of_rows_with_one_time_that_of_the_later_name_wins_and_the_others_are_counted() {
    let shifted = |add: f64| {
        let values: Vec<f64> = (5..15).map(|minute| minute as f64 + add).collect();
        plain(minutes(5..15), values)
    };
    let plant = Plant::new(&[
        ("b.parquet", &shifted(0.5)),
        ("a.parquet", &counted(0..20)),
        ("c.parquet", &shifted(0.0)),
    ]);
    fs::remove_file(plant.path("c.parquet")).unwrap();
    let mut source = plant.follow();
    let reading = source.read(&wall().offset(1), RowRule::Notebook).unwrap();
    assert_eq!(doubles(&reading.frames[0]), [5.5, 6.5, 7.5, 8.5, 9.5]);
    assert_eq!(reading.duplicates, 5);
    plant.put("c.parquet", &shifted(0.0));
    assert_eq!(read(&mut source, 1).unwrap().0, five(5));
}

#[test]
fn what_is_no_file_of_a_history_is_passed_over_and_listed() {
    let plant = Plant::new(&[
        ("_SUCCESS", b""),
        (".hidden.parquet", b"x"),
        ("._a.parquet", b"x"),
        ("_temporary/0/p.parquet", b"x"),
        ("a.parquet.tmp", b"x"),
        ("notes.txt", b"x"),
        ("year=2020/month=01/a.parquet", &counted(0..10)),
        ("year=2020/month=02/a.pq", &counted(10..20)),
        ("other.parquet", &other_columns()),
    ]);
    let inventory = plant.inventory();
    assert_eq!((inventory.files, inventory.skipped), (2, 6));
    for name in [
        "_SUCCESS",
        ".hidden.parquet",
        "._a.parquet",
        "_temporary",
        "a.parquet.tmp",
        "notes.txt",
    ] {
        assert!(
            inventory.shown.iter().any(|shown| shown.contains(name)),
            "{inventory:?}"
        );
    }
    let mut source = plant.follow();
    assert_eq!(read(&mut source, 3).unwrap(), (five(15), false));
    assert_eq!(read(&mut source, 4).unwrap(), (vec![], true));
}

#[test]
fn a_pattern_takes_what_it_matches() {
    let plant = Plant::new(&[
        ("p1/2020-01.parquet", &counted(0..10)),
        ("p1/2020-02.parquet", &counted(10..20)),
        ("p2/deep/2020-01.parquet", &counted(20..30)),
        ("p2/.2020-01.parquet", b"x"),
    ]);
    for (pattern, rows) in [
        ("*/2020-*.parquet", 20),
        ("p1/2020-0[2-9].parquet", 10),
        ("**/*.parquet", 30),
        ("**/2020-01.parquet", 20),
        ("p?/deep/*", 10),
        ("**/deep/*.parquet", 10),
        ("p1", 20),
    ] {
        let opened = plant
            .opened_by(LocalFiles::at(&plant.path(pattern)))
            .unwrap();
        assert_eq!(opened.extent().rows(), rows, "{pattern}");
    }
    for pattern in ["p3/*.parquet", "*.parquet", "p3"] {
        let error = plant
            .opened_by(LocalFiles::at(&plant.path(pattern)))
            .err()
            .unwrap();
        assert!(
            error.is_retryable() && error.causes().contains("source.history"),
            "{}",
            error.causes()
        );
    }
}

#[test]
fn a_history_that_grows_by_files_is_compacted_corrected_and_rotated_while_it_is_followed() {
    let plant = Plant::new(&[
        ("00.parquet", &counted(0..10)),
        ("01.parquet", &counted(10..20)),
    ]);
    let mut source = plant.follow();
    assert_eq!(read(&mut source, 3).unwrap().0, five(15));
    assert_eq!(read(&mut source, 4).unwrap(), (vec![], true));
    plant.put("02.parquet", &counted(20..30));
    assert_eq!(read(&mut source, 4).unwrap(), (five(20), false));
    // Compacted: the parts go, the whole comes.
    plant.put("00-02.parquet", &counted(0..30));
    for name in ["00.parquet", "01.parquet", "02.parquet"] {
        fs::remove_file(plant.path(name)).unwrap();
    }
    plant.put("03.parquet", &counted(30..40));
    assert_eq!(read(&mut source, 5).unwrap().0, five(25));
    // Corrected.
    plant.put(
        "03.parquet",
        &plain(minutes(30..40), (0..10).map(f64::from).collect()),
    );
    assert_eq!(read(&mut source, 6).unwrap().0, five(0));
    // Rotated away: what is gone has no rows, the rest stays.
    fs::remove_file(plant.path("00-02.parquet")).unwrap();
    assert_eq!(read(&mut source, 0).unwrap().0, Vec::<i64>::new());
    assert_eq!(read(&mut source, 7).unwrap().0, five(5));
    // All gone at once is a share that is away.
    fs::remove_file(plant.path("03.parquet")).unwrap();
    let error = read(&mut source, 7).unwrap_err();
    assert!(
        error.is_retryable() && error.causes().contains("mounted"),
        "{}",
        error.causes()
    );
    plant.put("03.parquet", &counted(30..40));
    assert_eq!(read(&mut source, 7).unwrap().0, five(35));
}

#[test]
fn a_file_that_cannot_be_read_holds_only_the_windows_that_it_could_have_rows_of() {
    let half = counted(10..20);
    let half = &half[..half.len() / 2];
    let plant = Plant::new(&[
        ("00.parquet", &counted(0..10)),
        ("01.parquet", half),
        ("02.parquet", &counted(20..30)),
        ("03.parquet", b"no Parquet at all"),
    ]);
    let mut source = plant.follow();
    assert_eq!(plant.inventory().waiting.len(), 2);
    for (n, held) in [
        (0, None),
        (1, Some("01.parquet")),
        (2, Some("01.parquet")),
        (3, Some("01.parquet")),
        (4, None),
        (5, Some("03.parquet")),
        (6, Some("03.parquet")),
    ] {
        match (read(&mut source, n), held) {
            (Ok((found, _)), None) => assert_eq!(found, five(5 * n)),
            (Err(error), Some(name)) => {
                assert!(
                    error.is_retryable() && error.causes().contains(name),
                    "{}",
                    error.causes()
                );
            }
            (other, held) => panic!("{n}: {other:?}, {held:?}"),
        }
    }
    plant.put("01.parquet", &counted(10..20));
    assert_eq!(read(&mut source, 2).unwrap().0, five(10));
    // One that was known holds what it had, too.
    plant.put("00.parquet", half);
    assert!(
        read(&mut source, 1)
            .unwrap_err()
            .causes()
            .contains("00.parquet")
    );
    assert_eq!(read(&mut source, 2).unwrap().0, five(10));
    fs::remove_file(plant.path("03.parquet")).unwrap();
    assert_eq!(read(&mut source, 6).unwrap(), (vec![], true));
}

#[test]
fn a_tag_that_no_file_has_is_refused_with_what_there_is() {
    let plant = Plant::new(&[("00.parquet", &other_columns())]);
    let error = plant
        .opened_by(LocalFiles::at(&plant.path("")))
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(!error.is_retryable());
    assert!(
        text.contains("\"a\" (did you mean \"b\"?)") && text.contains("00.parquet"),
        "{text}"
    );
}

#[test]
fn a_few_strays_in_one_of_many_files_stretch_nothing() {
    let mut times = minutes(20..40);
    times.insert(0, 0);
    let values = (0..times.len()).map(|row| row as f64).collect();
    let plant = Plant::new(&[
        ("00.parquet", &plain(minutes(0..20), vec![0.0; 20])),
        ("01.parquet", &plain(times, values)),
        ("02.parquet", &plain(minutes(40..60), vec![0.0; 20])),
        (
            "03.parquet",
            &plain(vec![2_000_000 * 86_400_000_000], vec![0.0]),
        ),
        ("04.parquet", &plain(minutes(60..80), vec![0.0; 20])),
    ]);
    let opened = plant.opened();
    let extent = opened.extent();
    assert_eq!(
        (extent.first(), extent.last()),
        (minutes(0..1)[0], minutes(79..80)[0])
    );
    assert_eq!((extent.strays().unwrap().rows, extent.rows()), (2, 82));
    assert_eq!(extent.interval(), Some(MINUTE));
}

/// A place that counts what the file system is asked. Its clock may stand still, and its files were changed long after one
/// another otherwise; its share may lose its handles.
struct Asked {
    files: LocalFiles,
    looks: Arc<AtomicUsize>,
    opens: Arc<AtomicUsize>,
    stale: Arc<AtomicUsize>,
    clock_stands: bool,
}

impl Asked {
    fn at(plant: &Plant) -> Self {
        Self {
            files: LocalFiles::at(&plant.path("")),
            looks: Arc::default(),
            opens: Arc::default(),
            stale: Arc::default(),
            clock_stands: false,
        }
    }

    fn timed(&self, file: &str, identity: Identity) -> Identity {
        let Identity::File {
            inode,
            size,
            modified,
            changed,
        } = identity
        else {
            return identity;
        };
        let digits: String = file.chars().filter(char::is_ascii_digit).collect();
        let digits = digits[digits.len().saturating_sub(5)..].parse::<i64>();
        let (modified, changed) = match self.clock_stands {
            true => ((0, 0), (0, 0)),
            false => (modified, (digits.unwrap_or_default() * 100, changed.1)),
        };
        Identity::File {
            inode,
            size,
            modified,
            changed,
        }
    }
}

impl Place for Asked {
    type Reader = Handle;

    fn name(&self) -> &str {
        self.files.name()
    }

    fn list(&mut self) -> Result<Listing, SourceError> {
        self.files.list()
    }

    fn look(&self, file: &str) -> Result<Option<Identity>, SourceError> {
        self.looks.fetch_add(1, Relaxed);
        let found = self.files.look(file)?;
        Ok(found.map(|found| self.timed(file, found)))
    }

    fn open(&self, file: &str, progress: &Progress) -> Result<(Handle, Identity), SourceError> {
        self.opens.fetch_add(1, Relaxed);
        let (opened, identity) = self.files.open(file, progress)?;
        let handle = Handle {
            file: opened,
            stale: self.stale.clone(),
        };
        Ok((handle, self.timed(file, identity)))
    }

    fn changes_at_once(&self) -> bool {
        false
    }
}

/// A handle that is stale for so many reads.
struct Handle {
    file: File,
    stale: Arc<AtomicUsize>,
}

impl parquet::file::reader::Length for Handle {
    fn len(&self) -> u64 {
        parquet::file::reader::Length::len(&self.file)
    }
}

impl ChunkReader for Handle {
    type T = <File as ChunkReader>::T;

    fn get_read(&self, start: u64) -> Result<Self::T, parquet::errors::ParquetError> {
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, parquet::errors::ParquetError> {
        let left = self.stale.load(Relaxed);
        if left > 0 {
            self.stale.store(left - 1, Relaxed);
            return Err(io::Error::from(io::ErrorKind::StaleNetworkFileHandle).into());
        }
        self.file.get_bytes(start, length)
    }
}

#[test]
fn a_stale_handle_is_opened_anew_and_one_that_stays_so_holds_with_its_cause() {
    let plant = Plant::new(&[
        ("00.parquet", &counted(0..10)),
        ("01.parquet", &counted(10..60)),
    ]);
    let place = Asked::at(&plant);
    let stale = place.stale.clone();
    let mut source = follow(plant.opened_by(place).unwrap());
    stale.store(1, Relaxed);
    assert_eq!(read(&mut source, 1).unwrap().0, five(5));
    stale.store(1000, Relaxed);
    let error = read(&mut source, 4).unwrap_err();
    assert!(
        error.is_retryable() && error.causes().contains("stale"),
        "{}",
        error.causes()
    );
    stale.store(0, Relaxed);
    assert_eq!(read(&mut source, 4).unwrap().0, five(20));
}

#[test]
fn a_file_written_again_within_a_tick_of_a_coarse_clock_is_known_by_its_footer() {
    let plant = Plant::new(&[
        ("00.parquet", &counted(0..10)),
        ("01.parquet", &counted(10..20)),
    ]);
    let place = Asked {
        clock_stands: true,
        ..Asked::at(&plant)
    };
    let mut source = follow(plant.opened_by(place).unwrap());
    assert_eq!(read(&mut source, 2).unwrap().0, five(10));
    let size = |bytes: &[u8]| bytes.len();
    let corrected = plain(minutes(10..20), (50..60).map(f64::from).collect());
    assert_eq!(size(&corrected), size(&counted(10..20)));
    fs::write(plant.path("01.parquet"), &corrected).unwrap();
    assert_eq!(read(&mut source, 2).unwrap().0, five(50));
}

#[test]
fn of_thousands_of_files_few_are_asked_and_fewer_opened_also_after_a_restart() {
    let count: usize = if std::env::var_os("LOOKOUTD_FULL").is_some() {
        10_000
    } else {
        1_500
    };
    let plant = Plant::new(&[]);
    for minute in 0..count as i64 {
        let path = plant.path(&format!("{}/{minute:05}.parquet", minute / 1000));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, counted(minute..minute + 1)).unwrap();
    }
    let (looks, opens): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let kept = tempfile::tempdir().unwrap();
    let opened = || {
        let place = Asked {
            looks: looks.clone(),
            opens: opens.clone(),
            ..Asked::at(&plant)
        };
        let shelf = Some(Shelf::at(kept.path()));
        let (shape, progress) = (Shape::default(), Progress::default());
        following::open(place, &one_tag(), &shape, &progress, shelf).unwrap()
    };
    let taken = |counter: &AtomicUsize| counter.swap(0, Relaxed);
    let first = opened();
    assert_eq!(taken(&opens), count);
    assert_eq!(first.extent().interval(), Some(MINUTE));
    drop(first);
    taken(&looks);
    let again = opened();
    assert_eq!(
        (taken(&looks), taken(&opens)),
        (count, 1),
        "only the newest is compared"
    );
    assert_eq!(
        (again.extent().rows(), again.inventory().files),
        (count, count)
    );
    let mut source = follow(again);
    for n in [0, 70, 71] {
        assert_eq!(read(&mut source, n).unwrap().0, five(5 * n));
        let (looks, opens) = (taken(&looks), taken(&opens));
        assert!(looks <= 1_020 && opens <= 6, "{looks} looks, {opens} opens");
    }
    // One that ends before the window is appended to, and a new one comes.
    let last = count as i64;
    plant.put("0/00349.parquet", &counted(349..350));
    plant.put(&format!("9/{last:05}.parquet"), &counted(last..last + 5));
    assert_eq!(read(&mut source, last / 5).unwrap().0, five(last));
    // What is kept of other tags, or is damaged, is not taken.
    let index = fs::read_dir(kept.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = fs::read(&index).unwrap();
    bytes[100] ^= 1;
    fs::write(&index, bytes).unwrap();
    taken(&opens);
    assert_eq!(opened().inventory().files, count + 1);
    assert!(taken(&opens) > count);
}
