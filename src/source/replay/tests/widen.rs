//! Histories of other forms: CSV, and a row for each value.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::follow::keep_in;
use super::*;
use crate::signal::{Mapping, timestamp};
use crate::source::replay::follow as following;
use crate::source::shape::Long;

/// A plant of two signals, with a missing value, over an hour and a half.
struct Rows(Vec<(i64, f64, f64)>);

fn rows() -> Rows {
    let value = |row: i64| match row % 11 {
        3 => f64::NAN,
        _ => row as f64 / 7.0,
    };
    Rows(
        (0..90)
            .map(|row| (start() + row * MINUTE, value(row), -row as f64))
            .collect(),
    )
}

fn two_tags() -> TagList {
    tags("Tag,UOM,Subsystem\na,,x\nb,,y\n")
}

fn text(value: f64) -> String {
    match value.is_nan() {
        true => String::new(),
        false => value.to_string(),
    }
}

impl Rows {
    fn wide_parquet(&self) -> Bytes {
        let (times, (a, b)): (Vec<_>, (Vec<_>, Vec<_>)) =
            self.0.iter().map(|(time, a, b)| (*time, (*a, *b))).unzip();
        let schema = "required double a; required double b; required int64 Timestamp (TIMESTAMP(MICROS,true));";
        let cells = vec![
            Cells::F64(some(&a)),
            Cells::F64(some(&b)),
            Cells::I64(some(&times)),
        ];
        parquet_file(schema, vec![cells])
    }

    fn long(&self) -> Vec<(i64, &'static str, f64)> {
        let cells = self.0.iter();
        cells
            .flat_map(|(time, a, b)| [(*time, "a", *a), (*time, "b", *b), (*time, "other", 1.0)])
            .collect()
    }

    fn long_parquet(&self, by_tag: bool) -> Bytes {
        let mut rows = self.long();
        if by_tag {
            rows.sort_by_key(|(_, tag, _)| *tag);
        }
        let schema = "required binary tag (STRING); optional double value; required int64 t (TIMESTAMP(MICROS,true));";
        let groups = rows.chunks(77).map(|rows| {
            let value = |value: f64| (!value.is_nan()).then_some(value);
            vec![
                Cells::Text(rows.iter().map(|row| Some(row.1)).collect()),
                Cells::F64(rows.iter().map(|row| value(row.2)).collect()),
                Cells::I64(rows.iter().map(|row| Some(row.0)).collect()),
            ]
        });
        parquet_file(schema, groups.collect())
    }

    fn wide_csv(&self) -> String {
        let lines = self.0.iter().map(|(time, a, b)| {
            let time = timestamp::format(*time);
            format!("{time},{},x,{}\n", text(*a), text(*b))
        });
        format!("Timestamp,a,note,b\n{}", lines.collect::<String>())
    }

    fn long_csv(&self) -> String {
        let lines = self.long().into_iter().rev();
        let lines = lines.map(|(time, tag, value)| {
            format!("{tag},{},Good,{}\n", text(value), timestamp::format(time))
        });
        format!("Name,Wert,Q,Timestamp\n{}", lines.collect::<String>())
    }
}

fn open_at(place: &Path, shape: &Shape) -> Result<following::Opened<LocalFiles>, SourceError> {
    let place = LocalFiles::at(place);
    following::open(place, &two_tags(), shape, &Progress::default(), None)
}

/// The input files of all windows of what lies at a place, and what was found beside them.
fn files_of(place: &Path, shape: &Shape) -> (Vec<Vec<u8>>, [usize; 3]) {
    let opened = open_at(place, shape).unwrap();
    let mapping = Mapping::new(Rebase::once(start(), wall().start().timestamp_micros()));
    let mut source = Follow::new(opened, mapping, Cadence::Pt5m, keep_in(&Default::default()));
    let (mut files, mut found) = (Vec::new(), [0; 3]);
    for n in -1..19 {
        let reading = source.read(&wall().offset(n), RowRule::Service).unwrap();
        found[0] += reading.words;
        found[1] += reading.bad;
        found[2] += reading.duplicates;
        for frame in &reading.frames {
            let mut bytes = Vec::new();
            frame.encode_csv(&mut bytes);
            files.push(bytes);
        }
    }
    (files, found)
}

fn put(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn named_long() -> Shape {
    Shape {
        long: Some(Long {
            tag: "Name".to_owned(),
            value: "Wert".to_owned(),
            quality: "Q".to_owned(),
        }),
        ..Shape::default()
    }
}

fn gzipped(text: &str) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap()
}

#[test]
fn wide_and_long_parquet_and_csv_of_one_history_give_the_same_files() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str, bytes: &[u8]| put(directory.path(), name, bytes);
    let rows = rows();
    let plain = Shape::default();
    let wanted = files_of(&at("wide.parquet", &rows.wide_parquet()), &plain);
    assert_eq!(wanted.1, [0; 3]);
    assert!(wanted.0.iter().any(|file| file.len() > 100));
    // A CSV in parts, one of them gzipped, beside a file that is none of the history.
    let csv = rows.wide_csv();
    let (head, body) = csv.split_once('\n').unwrap();
    let middle = body.match_indices('\n').nth(50).unwrap().0 + 1;
    let part = |body: &str| format!("{head}\n{body}");
    at("parts/1.csv", part(&body[..middle]).as_bytes());
    at("parts/2.csv.gz", &gzipped(&part(&body[middle..])));
    at("parts/tags.csv", b"Tag,UOM,Subsystem\na,,x\n");
    let mut shuffled: Vec<&str> = body.lines().collect();
    fastrand::Rng::with_seed(1).shuffle(&mut shuffled);
    for (place, shape) in [
        (at("long.parquet", &rows.long_parquet(false)), &plain),
        (at("by-tag.parquet", &rows.long_parquet(true)), &plain),
        (at("wide.csv", csv.as_bytes()), &plain),
        (at("wide.csv.gz", &gzipped(&csv)), &plain),
        (
            at(
                "unsorted.csv",
                part(&(shuffled.join("\n") + "\n")).as_bytes(),
            ),
            &plain,
        ),
        (at("long.csv", rows.long_csv().as_bytes()), &named_long()),
        (directory.path().join("parts"), &plain),
    ] {
        assert!(files_of(&place, shape) == wanted, "{}", place.display());
    }
}

#[test]
fn words_bad_qualities_and_doubled_values_of_a_long_history_are_counted_and_the_last_counts() {
    let directory = tempfile::tempdir().unwrap();
    let text = "Timestamp,tag,value,quality\n\
        2020-01-01T00:01:00,a,1,Good\n2020-01-01T00:01:00,a,2,\n2020-01-01T00:01:00,b,3,bad\n\
        2020-01-01T00:02:00,a,No Data,good\n2020-01-01T00:02:00,b,4,192\n2020-01-01T00:03:00,b,5,Uncertain\n";
    let place = put(directory.path(), "h.csv", text.as_bytes());
    let (files, found) = files_of(&place, &Shape::default());
    assert_eq!(found, [1, 1, 0]);
    let of = |tag: &str| {
        let own = files.iter().map(|file| String::from_utf8_lossy(file));
        let own = own.filter(|file| file.starts_with(&format!("Timestamp,{tag}\n")));
        let lines: Vec<String> = own
            .flat_map(|file| file.lines().skip(1).map(str::to_owned).collect::<Vec<_>>())
            .collect();
        lines
            .iter()
            .map(|line| line.rsplit(',').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of("a"),
        ["2", "", ""].map(|v| if v == "2" { "2.0" } else { v })
    );
    assert_eq!(of("b"), ["", "4.0", "5.0"]);
}

#[test]
fn what_is_wrong_with_a_csv_is_named_by_file_line_and_column() {
    let directory = tempfile::tempdir().unwrap();
    let at = |bytes: &[u8]| put(directory.path(), "h.csv", bytes);
    let refused = |text: &str, shape: &Shape| {
        let error = open_at(&at(text.as_bytes()), shape).err().expect(text);
        (error.causes(), error.is_retryable())
    };
    let plain = Shape::default();
    for (text, shape, retryable, words) in [
        (
            "Timestamp,a,b\nsoon,1,2\n",
            &plain,
            false,
            "h.csv: line 2 column Timestamp: `soon` is no timestamp",
        ),
        (
            "Timestamp,a,b\n2020-01-01T00:00,1,2,3\n",
            &plain,
            false,
            "line 2: the row has 4 fields, the header 3",
        ),
        (
            "Timestamp,a,b\n2020-01-01T00:00,1\n2020-01-01T00:01,1,2\n",
            &plain,
            false,
            "line 2: the row has 2 fields, the header 3",
        ),
        (
            "Timestamp,a,b\n2020-01-01T00:00,1",
            &plain,
            true,
            "it has no rows yet",
        ),
        (
            "Timestamp,a,b\n2020-01-01T00:00,1,2\n2020-01-01T00:01,\"1,2\n2020-01-01T00:02,1,2\n",
            &plain,
            true,
            "is it still being written?",
        ),
        ("Timestamp;a;b\n", &plain, false, "separated by commas"),
        (
            "Timestamp,a,B\n2020-01-01T00:00,1,2\n",
            &plain,
            false,
            "\"b\" (did you mean \"B\"?)",
        ),
        (
            "Timestamp,a,a,b\n",
            &plain,
            false,
            "column \"a\" appears twice",
        ),
        (
            "Timestamp,tag,value\n2020-01-01T00:00,c,2\n",
            &plain,
            false,
            "2 tag(s) of the tag list have no column",
        ),
        (
            "Timestamp,a,b\n",
            &named_long(),
            false,
            "no column is called \"Name\" as source.tag_column says; the file has Timestamp, a, b",
        ),
        ("Timestamp,a,b\n", &plain, true, "it has no rows yet"),
    ] {
        let (said, again) = refused(text, shape);
        assert!(
            said.contains(words) && again == retryable,
            "{text:?}: {said}"
        );
    }
    let cut = &gzipped(&rows().wide_csv())[..200];
    let error = open_at(&at(cut), &plain).err().unwrap();
    assert!(
        error.is_retryable() && error.causes().contains("cut short"),
        "{}",
        error.causes()
    );
}

#[test]
fn a_csv_that_is_appended_to_is_read_to_its_new_end() {
    let directory = tempfile::tempdir().unwrap();
    let csv = rows().wide_csv();
    let half = csv.match_indices('\n').nth(10).unwrap().0 + 1;
    let place = put(directory.path(), "h.csv", &csv.as_bytes()[..half]);
    let opened = open_at(&place, &Shape::default()).unwrap();
    assert_eq!(opened.extent().rows(), 10);
    let mapping = Mapping::new(Rebase::once(start(), wall().start().timestamp_micros()));
    let mut source = Follow::new(opened, mapping, Cadence::Pt5m, keep_in(&Default::default()));
    put(directory.path(), "h.csv", csv.as_bytes());
    let reading = source.read(&wall().offset(6), RowRule::Service).unwrap();
    assert_eq!(reading.frames[0].rows(), 5);
}

/// A writer flushes its buffer where that is full, which is in the middle of a row nearly always.
#[test]
fn a_row_of_a_csv_counts_once_its_line_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let text = "Timestamp,a,b\n2020-01-01T00:01:00,1,2\n2020-01-01T00:02:00,3,4.25\n";
    let whole = text.len();
    let rows = |bytes: &[u8], name: &str| {
        let place = put(directory.path(), name, bytes);
        let opened = open_at(&place, &Shape::default()).unwrap();
        opened.extent().rows()
    };
    let second = text.match_indices('\n').nth(1).unwrap().0 + 1;
    for end in second..whole {
        assert_eq!(rows(&text.as_bytes()[..end], "h.csv"), 1, "{end}");
    }
    assert_eq!(rows(text.as_bytes(), "h.csv"), 2);
    let quoted = "Timestamp,a,b\n\"2020-01-01T00:01:00\",\"1\",\"2\"\n\"2020-01-01T00:02:00\",\"3\",\"4.25\"\n";
    let second = quoted.match_indices('\n').nth(1).unwrap().0 + 1;
    for end in second..quoted.len() {
        assert_eq!(rows(&quoted.as_bytes()[..end], "q.csv"), 1, "{end}");
    }
    // What was compressed has its end.
    let unended = &text[..whole - 1];
    assert_eq!(rows(&gzipped(unended), "h.csv.gz"), 2);
}

/// A tag that has not spoken yet is no reason to feed nothing.
#[test]
fn a_tag_without_a_value_in_a_long_history_is_an_empty_column() {
    let directory = tempfile::tempdir().unwrap();
    let text = "Timestamp,tag,value\n2020-01-01T00:01:00,a,2\n2020-01-01T00:02:00,a,3\n";
    let place = put(directory.path(), "h.csv", text.as_bytes());
    let (files, _) = files_of(&place, &Shape::default());
    let mut cells: Vec<String> = files
        .iter()
        .map(|file| String::from_utf8_lossy(file))
        .filter(|file| file.starts_with("Timestamp,b\n"))
        .flat_map(|file| file.lines().skip(1).map(str::to_owned).collect::<Vec<_>>())
        .map(|line| line.rsplit(',').next().unwrap().to_owned())
        .collect();
    assert_eq!(cells.len(), 2);
    cells.dedup();
    assert_eq!(cells, [""]);
}

/// What comes late for one tag takes nothing away from the others of the same time.
#[test]
fn long_files_complete_each_other_value_by_value() {
    let directory = tempfile::tempdir().unwrap();
    let head = "Timestamp,tag,value\n";
    let early = "2020-01-01T00:01:00,a,1\n2020-01-01T00:01:00,b,2\n2020-01-01T00:02:00,a,3\n";
    let late = "2020-01-01T00:01:00,b,7\n2020-01-01T00:03:00,a,4\n";
    let one = put(
        directory.path(),
        "one.csv",
        format!("{head}{early}{late}").as_bytes(),
    );
    put(
        directory.path(),
        "two/1.csv",
        format!("{head}{early}").as_bytes(),
    );
    put(
        directory.path(),
        "two/2.csv",
        format!("{head}{late}").as_bytes(),
    );
    let wanted = files_of(&one, &Shape::default()).0;
    let found = files_of(&directory.path().join("two"), &Shape::default()).0;
    let texts = |files: Vec<Vec<u8>>| -> Vec<String> {
        let texts = files
            .into_iter()
            .map(|file| String::from_utf8(file).unwrap());
        texts.collect()
    };
    assert_eq!(texts(found), texts(wanted));
}

#[test]
fn a_file_of_another_kind_beside_a_history_with_named_columns_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let csv = rows().long_csv();
    put(directory.path(), "h/1.csv", csv.as_bytes());
    put(
        directory.path(),
        "h/tags.csv",
        b"Tag,UOM,Subsystem\na,,x\nb,,x\n",
    );
    put(
        directory.path(),
        "h/notes.csv",
        b"when,who,what,what\n1,2,3,4\n",
    );
    let shape = Shape {
        time: "Timestamp".to_owned(),
        ..named_long()
    };
    let opened = open_at(&directory.path().join("h"), &shape).unwrap();
    assert_eq!(opened.inventory().waiting, Vec::<String>::new());
    let shape = Shape {
        time: "when".to_owned(),
        ..Shape::default()
    };
    put(
        directory.path(),
        "w/1.csv",
        b"when,a,b\n2020-01-01T00:01:00,1,2\n",
    );
    put(
        directory.path(),
        "w/tags.csv",
        b"Tag,UOM,Subsystem\na,,x\nb,,x\n",
    );
    let opened = open_at(&directory.path().join("w"), &shape).unwrap();
    assert_eq!(opened.inventory().waiting, Vec::<String>::new());
}

/// A file that is written line by line all the time is read to its last whole line, and one that is begun anew is not taken for it.
#[test]
fn a_csv_that_never_rests_is_read_while_it_grows() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let directory = tempfile::tempdir().unwrap();
    let place = put(
        directory.path(),
        "h.csv",
        b"Timestamp,a,b\n2020-01-01T00:01:00,1,2\n",
    );
    put(directory.path(), "empty.csv", b"Timestamp,a,b\n");
    let opened = open_at(directory.path(), &Shape::default()).unwrap();
    assert_eq!(opened.inventory().waiting, Vec::<String>::new());
    let mapping = Mapping::new(Rebase::once(start(), wall().start().timestamp_micros()));
    let mut source = Follow::new(opened, mapping, Cadence::Pt5m, keep_in(&Default::default()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::OpenOptions::new().append(true).open(&place).unwrap();
            for second in 2.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let time = timestamp::format(start() + second * 1_000_000 + 60_000_000);
                file.write_all(format!("{time},3,4\n").as_bytes()).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        let mut rows = 0;
        for _ in 0..20 {
            if let Ok(reading) = source.read(&wall(), RowRule::Service) {
                rows = rows.max(reading.frames[0].rows());
            }
            if rows > 20 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(rows > 20, "{rows}");
    });
}
