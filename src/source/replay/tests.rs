//! Histories of every shape, written here with Parquet's own writer and read back through the source.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DoubleType, FloatType, Int32Type, Int64Type, Int96,
    Int96Type,
};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;
use crate::signal::{Cadence, Frame};

mod damaged;
mod follow;
mod parts;
mod shapes;
mod times;
mod widen;

const MINUTE: i64 = 60_000_000;

enum Cells {
    F64(Vec<Option<f64>>),
    F32(Vec<Option<f32>>),
    I32(Vec<Option<i32>>),
    I64(Vec<Option<i64>>),
    I96(Vec<i64>),
    Text(Vec<Option<&'static str>>),
    Bool(Vec<Option<bool>>),
}

/// Writes row groups of columns; a column whose cells are all present may be required, one with nulls must be optional.
fn parquet_file(schema: &str, groups: Vec<Vec<Cells>>) -> Bytes {
    parquet_with(schema, groups, WriterProperties::builder().build())
}

fn parquet_with(schema: &str, groups: Vec<Vec<Cells>>, properties: WriterProperties) -> Bytes {
    let schema = Arc::new(parse_message_type(&format!("message m {{ {schema} }}")).unwrap());
    let mut out = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut out, schema.clone(), Arc::new(properties)).unwrap();
    for group in groups {
        let mut group_writer = writer.next_row_group().unwrap();
        for (cells, field) in group.into_iter().zip(schema.get_fields()) {
            let mut column = group_writer.next_column().unwrap().unwrap();
            macro_rules! write {
                ($kind:ty, $cells:expr) => {{
                    let cells: Vec<Option<_>> = $cells;
                    let levels: Vec<i16> =
                        cells.iter().map(|cell| i16::from(cell.is_some())).collect();
                    let values: Vec<_> = cells.into_iter().flatten().collect();
                    let levels = field.is_optional().then_some(levels.as_slice());
                    column
                        .typed::<$kind>()
                        .write_batch(&values, levels, None)
                        .unwrap();
                }};
            }
            match cells {
                Cells::F64(cells) => write!(DoubleType, cells),
                Cells::F32(cells) => write!(FloatType, cells),
                Cells::I32(cells) => write!(Int32Type, cells),
                Cells::I64(cells) => write!(Int64Type, cells),
                Cells::Bool(cells) => write!(BoolType, cells),
                Cells::Text(cells) => write!(
                    ByteArrayType,
                    cells
                        .into_iter()
                        .map(|cell| cell.map(ByteArray::from))
                        .collect()
                ),
                Cells::I96(micros) => write!(
                    Int96Type,
                    micros
                        .into_iter()
                        .map(|micros| Some(int96(micros)))
                        .collect()
                ),
            }
            column.close().unwrap();
        }
        group_writer.close().unwrap();
    }
    writer.close().unwrap();
    Bytes::from(out)
}

fn int96(micros: i64) -> Int96 {
    let day = micros.div_euclid(86_400_000_000);
    let nanos = micros.rem_euclid(86_400_000_000) as u64 * 1000;
    let mut value = Int96::new();
    value.set_data(nanos as u32, (nanos >> 32) as u32, (day + 2_440_588) as u32);
    value
}

fn tags(text: &str) -> TagList {
    TagList::parse(text.as_bytes(), "tags.csv").unwrap()
}

fn one_tag() -> TagList {
    tags("Tag,UOM,Subsystem\na,,c\n")
}

/// Recorded times, minute by minute from 2020-01-01.
fn minutes(range: std::ops::Range<i64>) -> Vec<i64> {
    range.map(|minute| start() + minute * MINUTE).collect()
}

fn start() -> i64 {
    DateTime::parse_from_rfc3339("2020-01-01T00:00:00Z")
        .unwrap()
        .timestamp_micros()
}

fn some<T: Copy>(values: &[T]) -> Vec<Option<T>> {
    values.iter().copied().map(Some).collect()
}

fn wall() -> Window {
    Window::new(
        DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z")
            .unwrap()
            .to_utc(),
        Cadence::Pt5m,
    )
    .unwrap()
}

fn open(file: Bytes, tags: &TagList) -> History<Bytes> {
    open_as(file, tags, &Shape::default())
}

fn open_as(file: Bytes, tags: &TagList, shape: &Shape) -> History<Bytes> {
    Replay::open(file, "h.parquet", tags, shape)
        .map_err(|error| error.to_string())
        .unwrap()
}

fn refusal(file: Bytes, tags: &TagList) -> String {
    refusal_as(file, tags, &Shape::default())
}

fn refusal_as(file: Bytes, tags: &TagList, shape: &Shape) -> String {
    let error = Replay::open(file, "h.parquet", tags, shape)
        .err()
        .expect("the file must be refused");
    assert!(!error.is_retryable());
    error.to_string()
}

fn once(file: Bytes, tags: &TagList) -> Replay<Bytes> {
    let rebase = Rebase::once(start(), wall().start().timestamp_micros());
    Replay::new(open(file, tags), rebase)
}

fn offsets(frame: &Frame) -> Vec<i64> {
    frame
        .times
        .iter()
        .map(|time| time - wall().start().timestamp_micros())
        .collect()
}

fn doubles(frame: &Frame) -> Vec<f64> {
    (0..frame.rows())
        .map(|row| frame.columns[0].values.get(row))
        .collect()
}

const PLAIN: &str = "required double a; required int64 Timestamp (TIMESTAMP(MICROS,false));";

fn plain(times: Vec<i64>, values: Vec<f64>) -> Bytes {
    parquet_file(
        PLAIN,
        vec![vec![Cells::F64(some(&values)), Cells::I64(some(&times))]],
    )
}

#[test]
fn rows_keep_their_true_offset_and_the_rule_decides_the_edges() {
    let mut times = minutes(0..12);
    times.remove(3);
    let values: Vec<f64> = (0..11).map(f64::from).collect();
    let mut replay = once(plain(times, values), &one_tag());
    let service = replay.read(&wall(), RowRule::Service).unwrap();
    assert_eq!(
        offsets(&service.frames[0]),
        [MINUTE, 2 * MINUTE, 4 * MINUTE, 5 * MINUTE]
    );
    assert_eq!(doubles(&service.frames[0]), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(service.expected_rows, Some(5));
    let notebook = replay.read(&wall(), RowRule::Notebook).unwrap();
    assert_eq!(
        offsets(&notebook.frames[0]),
        [0, MINUTE, 2 * MINUTE, 4 * MINUTE]
    );
}

#[test]
fn every_timestamp_unit_reads_as_the_same_instant() {
    let times = minutes(0..6);
    let cases: Vec<(&str, Cells)> = vec![
        (
            "required int64 t (TIMESTAMP(MILLIS,true))",
            Cells::I64(times.iter().map(|t| Some(t / 1000)).collect()),
        ),
        (
            "required int64 t (TIMESTAMP(MICROS,true))",
            Cells::I64(some(&times)),
        ),
        (
            "optional int64 t (TIMESTAMP(NANOS,false))",
            Cells::I64(times.iter().map(|t| Some(t * 1000 + 999)).collect()),
        ),
        (
            "required int64 t (TIMESTAMP_MILLIS)",
            Cells::I64(times.iter().map(|t| Some(t / 1000)).collect()),
        ),
        (
            "required int64 t (TIMESTAMP_MICROS)",
            Cells::I64(some(&times)),
        ),
        ("required int96 t", Cells::I96(times.clone())),
    ];
    for (time, cells) in cases {
        let file = parquet_file(
            &format!("{time}; required double a;"),
            vec![vec![cells, Cells::F64(vec![Some(1.0); 6])]],
        );
        let history = open(file, &one_tag());
        assert_eq!(
            (history.first(), history.last()),
            (times[0], times[5]),
            "{time}"
        );
        assert_eq!(history.interval(), Some(MINUTE), "{time}");
        let mut replay = Replay::new(
            history,
            Rebase::once(start(), wall().start().timestamp_micros()),
        );
        assert_eq!(
            replay.read(&wall(), RowRule::Service).unwrap().frames[0].rows(),
            5,
            "{time}"
        );
    }
}

#[test]
fn every_numeric_type_is_read_in_its_own() {
    let schema = "required int64 __index_level_0__ (TIMESTAMP(MICROS,false)); optional float f; required int32 i; \
        optional int64 n; optional boolean b; required int32 u (INTEGER(32,false)); required int64 big (INTEGER(64,false)); \
        required int32 small (INTEGER(16,true)); optional int32 void;";
    let file = parquet_file(
        schema,
        vec![vec![
            Cells::I64(some(&minutes(1..3))),
            Cells::F32(vec![Some(0.1), None]),
            Cells::I32(vec![Some(-7), Some(8)]),
            Cells::I64(vec![Some(3), None]),
            Cells::Bool(vec![Some(true), None]),
            Cells::I32(vec![Some(-1), Some(1)]),
            Cells::I64(vec![Some(-1), Some(1)]),
            Cells::I32(vec![Some(-2), Some(2)]),
            Cells::I32(vec![None, None]),
        ]],
    );
    let tags = tags("f,,c\ni,,c\nn,,c\nb,,c\nu,,d\nbig,,d\nsmall,,d\nvoid,,d\n");
    let reading = once(file, &tags).read(&wall(), RowRule::Service).unwrap();
    let mut csv = Vec::new();
    reading
        .frames
        .iter()
        .for_each(|frame| frame.encode_csv(&mut csv));
    assert_eq!(
        String::from_utf8(csv).unwrap(),
        "Timestamp,f,i,n,b\n2026-01-01T00:01:00.000000,0.1,-7,3.0,1\n2026-01-01T00:02:00.000000,,8,,\n\
         Timestamp,u,big,small,void\n2026-01-01T00:01:00.000000,4294967295,1.8446744073709552e+19,-2,\n\
         2026-01-01T00:02:00.000000,1,1.0,2,\n"
    );
}

#[test]
fn an_integer_null_in_another_row_group_makes_the_column_double_even_without_statistics() {
    let schema = "optional int64 a; required int64 Timestamp (TIMESTAMP(MICROS,false));";
    let groups = || {
        vec![
            vec![
                Cells::I64(vec![Some(1); 6]),
                Cells::I64(some(&minutes(0..6))),
            ],
            vec![Cells::I64(vec![None; 2]), Cells::I64(some(&minutes(6..8)))],
        ]
    };
    for statistics in [EnabledStatistics::Chunk, EnabledStatistics::None] {
        let properties = WriterProperties::builder()
            .set_statistics_enabled(statistics)
            .build();
        let file = parquet_with(schema, groups(), properties);
        let reading = once(file, &one_tag())
            .read(&wall(), RowRule::Service)
            .unwrap();
        assert_eq!(
            reading.frames[0].columns[0].values,
            Values::F64(vec![1.0; 5]),
            "{statistics:?}"
        );
    }
}

#[test]
fn of_equal_times_the_last_wins_and_unsorted_rows_are_sorted() {
    let times: Vec<i64> = [4, 2, 1, 2, 5, 2]
        .iter()
        .map(|minute| start() + minute * MINUTE)
        .collect();
    let mut replay = once(plain(times, vec![4.0, 2.0, 1.0, 2.1, 5.0, 2.2]), &one_tag());
    assert!(!replay.history().is_sorted());
    let reading = replay.read(&wall(), RowRule::Service).unwrap();
    assert_eq!(
        offsets(&reading.frames[0]),
        [MINUTE, 2 * MINUTE, 4 * MINUTE, 5 * MINUTE]
    );
    assert_eq!(doubles(&reading.frames[0]), [1.0, 2.2, 4.0, 5.0]);
    assert_eq!(reading.duplicates, 2);
}

#[test]
fn rows_without_a_time_are_counted_and_ignored() {
    let schema = "required double a; optional int64 Timestamp (TIMESTAMP(MICROS,false));";
    let mut times = some(&minutes(0..4));
    times[2] = None;
    let file = parquet_file(
        schema,
        vec![vec![
            Cells::F64(some(&[0.0, 1.0, 2.0, 3.0])),
            Cells::I64(times),
        ]],
    );
    let mut replay = once(file, &one_tag());
    assert_eq!(
        (replay.history().null_times(), replay.history().rows()),
        (1, 4)
    );
    assert_eq!(
        doubles(&replay.read(&wall(), RowRule::Service).unwrap().frames[0]),
        [1.0, 3.0]
    );
}

#[test]
fn windows_across_chunks_and_row_groups_give_every_row_once() {
    let count = 9_000;
    let groups = [0..2_500, 2_500..2_501, 2_501..count].map(|range| {
        vec![
            Cells::F64(range.clone().map(|row| Some(row as f64)).collect()),
            Cells::I64(some(&minutes(range))),
        ]
    });
    let mut replay = once(parquet_file(PLAIN, groups.into()), &one_tag());
    let mut seen = Vec::new();
    for n in 0..count / 5 {
        let reading = replay.read(&wall().offset(n), RowRule::Notebook).unwrap();
        assert_eq!(reading.frames[0].rows(), 5);
        assert_eq!(replay.resident.len(), 1);
        seen.extend(doubles(&reading.frames[0]));
    }
    assert!(
        seen.iter()
            .enumerate()
            .all(|(row, value)| *value == row as f64)
    );
    // The same window again, after others, is the same answer.
    let again = replay.read(&wall().offset(500), RowRule::Notebook).unwrap();
    assert_eq!(
        doubles(&again.frames[0]),
        [2500.0, 2501.0, 2502.0, 2503.0, 2504.0]
    );
}

#[test]
fn a_loop_goes_on_at_the_beginning_and_a_stop_ends() {
    let file = plain(minutes(0..10), (0..10).map(f64::from).collect());
    let history = open(file.clone(), &one_tag());
    assert_eq!(
        history.default_start(Cadence::Pt5m, 1),
        start() + 5 * MINUTE
    );
    let wall_start = wall().start().timestamp_micros();
    let rebase = history.rebase(
        history.default_start(Cadence::Pt5m, 1),
        wall_start,
        Cadence::Pt5m,
        AtEnd::Loop,
    );
    let mut replay = Replay::new(history, rebase);
    // Minute 0 closes the window that ends where the loop begins again.
    for (n, expected) in [
        (0, [6.0, 7.0, 8.0, 9.0, 0.0]),
        (1, [1.0, 2.0, 3.0, 4.0, 5.0]),
        (2, [6.0, 7.0, 8.0, 9.0, 0.0]),
    ] {
        let reading = replay.read(&wall().offset(n), RowRule::Service).unwrap();
        assert_eq!(doubles(&reading.frames[0]), expected, "window {n}");
        assert_eq!(offsets(&reading.frames[0])[4], (n + 1) * 5 * MINUTE);
        assert!(!reading.ended);
    }
    let history = open(file, &one_tag());
    let rebase = history.rebase(start() + 5 * MINUTE, wall_start, Cadence::Pt5m, AtEnd::Stop);
    let mut replay = Replay::new(history, rebase);
    assert!(!replay.read(&wall(), RowRule::Service).unwrap().ended);
    let over = replay.read(&wall().next(), RowRule::Service).unwrap();
    assert!(over.ended && over.frames[0].rows() == 0 && over.frames[0].columns.len() == 1);
}

#[test]
fn every_problem_of_a_file_is_named_at_once() {
    let schema = "required double signal-01; required binary text (UTF8); optional group deep { required double a; required double b; } \
        required int32 day (DATE); required double Timestamp;";
    // No row group: the schema alone is enough to refuse.
    let file = parquet_file(schema, vec![]);
    let message = refusal(
        file,
        &tags("signal-1,,c\ntext,,c\ndeep,,c\nday,,c\nother,,c\n"),
    );
    for part in [
        "h.parquet: ",
        "column \"Timestamp\" is a plain DOUBLE column: set source.time_unit to what it counts from 1970 on, s, ms, us or ns",
        "column \"deep\" (c) is nested",
        "column \"day\" (c) is a date column",
        "2 tag(s) of the tag list have no column: \"signal-1\" (did you mean \"signal-01\"?), \"other\"",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
}

#[test]
fn a_missing_or_ambiguous_timestamp_column_is_refused() {
    let none = parquet_file("required double a; required int64 when;", vec![]);
    assert!(refusal(none, &one_tag()).contains("no timestamp column"));
    let two = parquet_file(
        "required double a; required int64 x (TIMESTAMP(MICROS,false)); required int64 y (TIMESTAMP(MICROS,false));",
        vec![],
    );
    assert!(
        refusal(two, &one_tag())
            .contains("cannot tell which is the timestamp column: \"x\", \"y\"")
    );
    let plain = parquet_file("required double a; required int64 timestamp;", vec![]);
    assert!(
        refusal(plain, &one_tag())
            .contains("column \"timestamp\" is a plain INT64 column: set source.time_unit")
    );
}

#[test]
fn broken_files_are_refused_by_name() {
    assert!(refusal(Bytes::new(), &one_tag()).contains("h.parquet: the file is empty"));
    assert!(
        refusal(
            Bytes::from_static(b"Tag,UOM,Subsystem\nand so on"),
            &one_tag()
        )
        .contains("not a Parquet file")
    );
    let utf16 = Bytes::from_static(b"\xff\xfeT\0a\0g\0,\0a\0\n\0");
    assert!(refusal(utf16, &one_tag()).contains("UTF-16: save it as CSV in UTF-8"));
    assert!(refusal(parquet_file(PLAIN, vec![]), &one_tag()).contains("the file has no rows"));
    let whole = plain(minutes(0..5000), vec![0.5; 5000]);
    for length in [5, 100, whole.len() / 2, whole.len() - 1] {
        assert!(
            refusal(whole.slice(..length), &one_tag()).contains("truncated"),
            "{length}"
        );
    }
    let schema = "required double a; optional int64 Timestamp (TIMESTAMP(MICROS,false));";
    let file = parquet_file(
        schema,
        vec![vec![Cells::F64(vec![Some(1.0)]), Cells::I64(vec![None])]],
    );
    assert!(refusal(file, &one_tag()).contains("every row of column \"Timestamp\" is null"));
}

#[test]
fn a_damaged_page_is_an_error_and_not_a_wrong_sample() {
    let mut bytes = plain(
        minutes(0..5000),
        (0..5000).map(|row| f64::from(row).sin()).collect(),
    )
    .to_vec();
    // The first column's first page header.
    bytes[4..24].fill(0xff);
    let mut replay = once(Bytes::from(bytes), &one_tag());
    let error = replay.read(&wall(), RowRule::Service).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot read column \"a\" of row group 0"),
        "{error}"
    );
}

#[test]
fn a_missing_file_may_come_back_and_a_local_file_reads_like_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("h.parquet");
    assert!(
        Replay::open_file(&path, &one_tag(), &Shape::default())
            .err()
            .unwrap()
            .is_retryable()
    );
    std::fs::File::create(&path)
        .unwrap()
        .write_all(&plain(minutes(0..10), vec![2.5; 10]))
        .unwrap();
    let history = Replay::open_file(&path, &one_tag(), &Shape::default()).unwrap();
    let mut replay = Replay::new(
        history,
        Rebase::once(start(), wall().start().timestamp_micros()),
    );
    assert_eq!(
        doubles(&replay.read(&wall(), RowRule::Service).unwrap().frames[0]),
        [2.5; 5]
    );
}
