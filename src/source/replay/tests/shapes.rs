//! Histories as other programs leave them: unsorted, with times of no date, decimals, half floats, infinite values.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use parquet::data_type::{ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType};

use super::super::decode::{big_endian, decimal, half};
use super::*;

/// The same rows of four types of signals in another order; a row group of so many rows.
fn shuffled(order: &[i64], group: usize) -> Bytes {
    let groups = order.chunks(group).map(|rows| {
        let times: Vec<i64> = rows.iter().map(|row| start() + row * MINUTE).collect();
        let some_of = |row: &i64| row % 7 != 3;
        vec![
            Cells::I64(some(&times)),
            Cells::F64(
                rows.iter()
                    .map(|row| some_of(row).then_some(*row as f64))
                    .collect(),
            ),
            Cells::F32(rows.iter().map(|row| Some(*row as f32 / 3.0)).collect()),
            Cells::I64(rows.iter().map(|row| Some(row << 40)).collect()),
            Cells::Bool(
                rows.iter()
                    .map(|row| some_of(row).then_some(row % 2 == 0))
                    .collect(),
            ),
        ]
    });
    parquet_file(
        "required int64 Timestamp (TIMESTAMP(MICROS,false)); optional double a; required float b; required int64 c; \
         optional boolean d;",
        groups.collect(),
    )
}

fn four_tags() -> TagList {
    tags("Tag,UOM,Subsystem\na,,x\nb,,x\nc,,y\nd,,y\n")
}

/// Frames as text, in which a missing value equals itself.
fn windows_of(file: Bytes, count: i64) -> Vec<String> {
    let mut replay = once(file, &four_tags());
    let windows = (0..count).map(|n| wall().offset(n));
    windows
        .map(|window| format!("{:?}", replay.read(&window, RowRule::Service).unwrap()))
        .collect()
}

#[test]
fn an_unsorted_history_gives_the_windows_of_the_sorted_one_and_is_put_in_order_once() {
    let rows = 5_000;
    let sorted: Vec<i64> = (0..rows).collect();
    let mut random = sorted.clone();
    fastrand::Rng::with_seed(7).shuffle(&mut random);
    let interleaved: Vec<i64> = (0..3)
        .flat_map(|part| {
            sorted
                .iter()
                .copied()
                .filter(move |row| row / 60 % 3 == part)
        })
        .collect();
    let expected = windows_of(shuffled(&sorted, 1_700), rows / 5);
    for order in [&random, &interleaved] {
        assert!(windows_of(shuffled(order, 1_700), rows / 5) == expected);
        let mut replay = once(shuffled(order, 1_700), &four_tags());
        assert!(!replay.history().is_sorted());
        for n in 0..200 {
            replay
                .read(&wall().offset(n * 5), RowRule::Service)
                .unwrap();
        }
        let next = |minute: i64| start() + minute * MINUTE;
        assert_eq!(
            replay.next_time(next(1_234) - 1).unwrap(),
            Some(next(1_234))
        );
        assert_eq!(replay.next_time(next(rows)).unwrap(), None);
        // Each chunk is decoded once, and then no more.
        assert_eq!(
            replay.progress().seen(),
            1 + replay.history().chunk_count() as u64
        );
    }
}

#[test]
fn of_doubled_times_the_last_in_the_file_wins_sorted_or_not_and_all_are_counted() {
    // The hour that comes twice: an hour of rows, then the same times again with other values.
    let order: Vec<i64> = (0..60).chain(0..120).collect();
    let values: Vec<f64> = (0..180).map(f64::from).collect();
    let times: Vec<i64> = order.iter().map(|row| start() + row * MINUTE).collect();
    let file = parquet_file(
        "required int64 Timestamp (TIMESTAMP(MICROS,false)); required double a;",
        vec![vec![Cells::I64(some(&times)), Cells::F64(some(&values))]],
    );
    let mut replay = once(file, &one_tag());
    assert!(!replay.history().is_sorted());
    assert_eq!(replay.history().doubled(), 60);
    let reading = replay.read(&wall(), RowRule::Notebook).unwrap();
    assert_eq!(reading.duplicates, 5);
    assert_eq!(
        reading.frames[0].columns[0].values,
        Values::F64(vec![60.0, 61.0, 62.0, 63.0, 64.0])
    );
    // Next to each other they are no matter of order.
    let times: Vec<i64> = (0..100).map(|row| start() + row / 2 * MINUTE).collect();
    let file = parquet_file(
        "required int64 Timestamp (TIMESTAMP(MICROS,false)); required double a;",
        vec![vec![
            Cells::I64(some(&times)),
            Cells::F64(some(&values[..100])),
        ]],
    );
    let history = open(file, &one_tag());
    assert_eq!((history.is_sorted(), history.doubled()), (true, 50));
}

#[test]
fn a_time_of_no_date_stretches_nothing() {
    for stray in [-62_135_596_800_000_000, 0, 253_402_300_799_000_000] {
        let mut times = minutes(0..500);
        times[100] = stray;
        let values: Vec<f64> = (0..500).map(f64::from).collect();
        let file = parquet_file(
            "required int64 Timestamp (TIMESTAMP(MICROS,false)); required double a;",
            vec![vec![Cells::I64(some(&times)), Cells::F64(some(&values))]],
        );
        let history = open(file, &one_tag());
        assert_eq!(
            (history.first(), history.last()),
            (start(), start() + 499 * MINUTE)
        );
        assert_eq!(
            history.strays().unwrap(),
            Strays {
                rows: 1,
                example: stray
            }
        );
        assert_eq!(history.interval(), Some(MINUTE));
        // The row before it and those after it are where they belong.
        let mut replay = Replay::new(
            history,
            Rebase::once(start(), wall().start().timestamp_micros()),
        );
        let reading = replay.read(&wall().offset(20), RowRule::Notebook).unwrap();
        assert_eq!(offsets(&reading.frames[0]).len(), 4);
        assert!(
            replay
                .read(&wall().offset(100), RowRule::Notebook)
                .unwrap()
                .ended
        );
    }
}

#[test]
fn infinite_values_are_missing_and_counted() {
    let values = [1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 5.0];
    let narrow = values.map(|value| value as f32);
    let file = parquet_file(
        "required int64 Timestamp (TIMESTAMP(MICROS,false)); required double a; required float b;",
        vec![vec![
            Cells::I64(some(&minutes(0..5))),
            Cells::F64(some(&values)),
            Cells::F32(some(&narrow)),
        ]],
    );
    let mut replay = once(file, &tags("Tag,UOM,Subsystem\na,,c\nb,,c\n"));
    let reading = replay.read(&wall(), RowRule::Notebook).unwrap();
    assert_eq!(reading.infinite, 4);
    let mut csv = Vec::new();
    reading.frames[0].encode_csv(&mut csv);
    let csv = String::from_utf8(csv).unwrap();
    let cells: Vec<_> = csv.lines().skip(1).map(|line| &line[26..]).collect();
    assert_eq!(cells, [",1.0,1.0", ",,", ",,", ",,", ",5.0,5.0"]);
}

/// A history of one signal in big-endian bytes, of a fixed length or not.
fn of_bytes(kind: &str, cells: &[Option<Vec<u8>>], fixed: bool) -> Bytes {
    let schema = Arc::new(
        parse_message_type(&format!(
            "message m {{ required int64 Timestamp (TIMESTAMP(MICROS,false)); optional {kind}; }}"
        ))
        .unwrap(),
    );
    let mut out = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut out, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let times = minutes(0..cells.len() as i64);
    column
        .typed::<Int64Type>()
        .write_batch(&times, None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let levels: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
    let bytes: Vec<ByteArray> = cells
        .iter()
        .flatten()
        .map(|cell| cell.clone().into())
        .collect();
    if fixed {
        let bytes: Vec<FixedLenByteArray> =
            bytes.into_iter().map(FixedLenByteArray::from).collect();
        let typed = column.typed::<FixedLenByteArrayType>();
        typed.write_batch(&bytes, Some(&levels), None).unwrap();
    } else {
        let typed = column.typed::<ByteArrayType>();
        typed.write_batch(&bytes, Some(&levels), None).unwrap();
    }
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    out.into()
}

fn values_of(file: Bytes) -> Vec<f64> {
    let reading = once(file, &one_tag())
        .read(&wall(), RowRule::Notebook)
        .unwrap();
    let values = &reading.frames[0].columns[0].values;
    (0..values.len()).map(|row| values.get(row)).collect()
}

#[test]
fn decimals_of_every_width_and_half_floats_are_read_as_doubles() {
    let expected = [-15.25, 0.0, 7.5, f64::NAN];
    let same = |found: Vec<f64>| {
        found.len() == 4
            && found
                .iter()
                .zip(expected)
                .all(|(a, b)| *a == b || (a.is_nan() && b.is_nan()))
    };
    let wide = |digits: i128, bytes: usize| digits.to_be_bytes()[16 - bytes..].to_vec();
    for bytes in [2, 4, 9, 16] {
        let cells = [Some(-1525), Some(0), Some(750), None]
            .map(|digits| digits.map(|digits| wide(digits, bytes)));
        let precision = [4, 9, 20, 38][[2, 4, 9, 16].iter().position(|b| *b == bytes).unwrap()];
        let fixed = of_bytes(
            &format!("fixed_len_byte_array({bytes}) a (DECIMAL({precision},2))"),
            &cells,
            true,
        );
        assert!(same(values_of(fixed)), "{bytes}");
        let free = of_bytes(&format!("binary a (DECIMAL({precision},2))"), &cells, false);
        assert!(same(values_of(free)), "{bytes}");
    }
    let time = || Cells::I64(some(&minutes(0..4)));
    let schema = |kind: &str| {
        format!("required int64 Timestamp (TIMESTAMP(MICROS,false)); optional {kind};")
    };
    let narrow = Cells::I32(vec![Some(-1525), Some(0), Some(750), None]);
    assert!(same(values_of(parquet_file(
        &schema("int32 a (DECIMAL(9,2))"),
        vec![vec![time(), narrow]]
    ))));
    let long = Cells::I64(vec![Some(-1525), Some(0), Some(750), None]);
    assert!(same(values_of(parquet_file(
        &schema("int64 a (DECIMAL(18,2))"),
        vec![vec![time(), long]]
    ))));
    let halves = [Some(0xcba0u16), Some(0), Some(0x4780), None]
        .map(|bits| bits.map(|bits| bits.to_le_bytes().to_vec()));
    assert!(same(values_of(of_bytes(
        "fixed_len_byte_array(2) a (FLOAT16)",
        &halves,
        true
    ))));
}

#[test]
fn a_decimal_is_the_nearest_double() {
    assert_eq!(decimal(12_345, 2), 123.45);
    assert_eq!(decimal(-1, 10), -1e-10);
    assert_eq!(decimal(9_007_199_254_740_993, 0), 9_007_199_254_740_992.0);
    assert_eq!(
        decimal(12_345_678_901_234_567_890_123, 10),
        1_234_567_890_123.456_7
    );
    assert_eq!(decimal(i128::MIN, 38), -1.701_411_834_604_692_3);
    assert_eq!(
        (
            big_endian(&[0xff]),
            big_endian(&[0x00, 0x80]),
            big_endian(&[])
        ),
        (Some(-1), Some(128), None)
    );
    assert_eq!(big_endian(&[0; 17]), None);
    for (bits, value) in [
        (0x3c00u16, 1.0),
        (0x0001, 2f64.powi(-24)),
        (0x7bff, 65_504.0),
        (0xfc00, f64::NEG_INFINITY),
        (0x8000, 0.0),
    ] {
        assert_eq!(half(&bits.to_le_bytes()), value);
    }
    assert!(half(&0x7e00u16.to_le_bytes()).is_nan());
}

/// Bytes to which the way is long.
struct Far {
    bytes: Bytes,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl parquet::file::reader::Length for Far {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl ChunkReader for Far {
    type T = <Bytes as ChunkReader>::T;

    fn get_read(&self, start: u64) -> Result<Self::T, parquet::errors::ParquetError> {
        self.bytes.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, parquet::errors::ParquetError> {
        let now = self.now.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(now, Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(3));
        self.now.fetch_sub(1, Relaxed);
        self.bytes.get_bytes(start, length)
    }
}

#[test]
fn columns_of_a_remote_history_are_read_at_once_and_give_the_same_rows() {
    let rows: Vec<i64> = (0..50).collect();
    let file = shuffled(&rows, 50);
    for (lanes, at_once) in [(1, 1..=1), (3, 2..=3), (24, 2..=4)] {
        let most = Arc::<AtomicUsize>::default();
        let far = Far {
            bytes: file.clone(),
            now: Arc::default(),
            most: most.clone(),
        };
        let history = Replay::open(far, "h.parquet", &four_tags(), &Shape::default()).unwrap();
        let rebase = Rebase::once(start(), wall().start().timestamp_micros());
        let mut replay = Replay::new(history.in_lanes(lanes), rebase);
        let reading = replay.read(&wall(), RowRule::Service).unwrap();
        assert_eq!(format!("{reading:?}"), windows_of(file.clone(), 1)[0]);
        assert!(at_once.contains(&most.load(Relaxed)), "{lanes}: {most:?}");
    }
}
