//! Histories whose footer or pages claim what is not so: each is an error that names its place, and none is a panic, a long
//! wait or a lot of memory.

use parquet::file::metadata::{
    ColumnChunkMetaDataBuilder, ParquetMetaDataReader, ParquetMetaDataWriter,
};

use super::*;

const TIME: usize = 1;
const NULLABLE: &str = "required double a; optional int64 Timestamp (TIMESTAMP(MICROS,false));";
const PLAIN_ENCODING: i64 = 0;
const DELTA_ENCODING: i64 = 5;
const DICTIONARY_ENCODING: i64 = 8;

/// `file` with another number of rows in its first row group, and another description of one column of it.
fn claiming(
    file: &[u8],
    rows: Option<i64>,
    column: usize,
    claim: impl FnOnce(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder,
) -> Bytes {
    let metadata = ParquetMetaDataReader::new()
        .parse_and_finish(&Bytes::copy_from_slice(file))
        .unwrap();
    let mut builder = metadata.into_builder();
    let mut groups = builder.take_row_groups();
    let mut columns = groups[0].columns().to_vec();
    columns[column] = claim(columns[column].clone().into_builder())
        .build()
        .unwrap();
    let rows = rows.unwrap_or(groups[0].num_rows());
    groups[0] = groups[0]
        .clone()
        .into_builder()
        .set_num_rows(rows)
        .set_column_metadata(columns)
        .build()
        .unwrap();
    let mut out = file[..footer_start(file)].to_vec();
    ParquetMetaDataWriter::new(&mut out, &builder.set_row_groups(groups).build())
        .finish()
        .unwrap();
    Bytes::from(out)
}

fn footer_start(file: &[u8]) -> usize {
    let length = file[file.len() - 8..file.len() - 4].try_into().unwrap();
    file.len() - 8 - u32::from_le_bytes(length) as usize
}

fn five() -> Bytes {
    plain(minutes(0..5), vec![0.5; 5])
}

/// A varint in zigzag, as Thrift writes numbers.
fn thrift(number: i64) -> Vec<u8> {
    let mut left = (number << 1 ^ number >> 63) as u64;
    let mut bytes = Vec::new();
    loop {
        let low = (left & 0x7f) as u8;
        left >>= 7;
        bytes.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            return bytes;
        }
    }
}

/// A data page with a body as it is given.
fn data_page(values: i64, encoding: i64, body: &[u8]) -> Vec<u8> {
    let size = thrift(body.len() as i64);
    [
        &[0x15, 0x00, 0x15][..],
        &size,
        &[0x15],
        &size,
        &[0x2c, 0x15],
        &thrift(values),
        &[0x15],
        &thrift(encoding),
        &[0x15, 0x06, 0x15, 0x06, 0x00, 0x00],
        body,
    ]
    .concat()
}

/// A file of `rows` rows whose time column is `pages`.
fn with_time_pages(schema: &str, rows: i64, pages: &[u8]) -> Bytes {
    let file = parquet_file(
        schema,
        vec![vec![
            Cells::F64(some(&[0.5; 5])),
            Cells::I64(some(&minutes(0..5))),
        ]],
    );
    let at = footer_start(&file);
    let file = [&file[..at], pages, &file[at..]].concat();
    claiming(&file, Some(rows), TIME, |column| {
        column
            .set_dictionary_page_offset(None)
            .set_data_page_offset(at as i64)
            .set_total_compressed_size(pages.len() as i64)
            .set_num_values(rows)
    })
}

fn refusal_of_time(file: Bytes) -> String {
    let message = refusal(file, &one_tag());
    let place = "h.parquet: cannot read column \"Timestamp\" of row group 0: ";
    assert!(message.starts_with(place), "{message}");
    message
}

/// `bytes` with another number where `number` stands; both take as many bytes.
fn instead(bytes: &[u8], number: i64, other: i64) -> Bytes {
    let (old, new) = (thrift(number), thrift(other));
    let at = bytes
        .windows(old.len())
        .rposition(|part| part == old)
        .unwrap();
    let end = at + new.len();
    assert_eq!(old.len(), new.len());
    Bytes::from([&bytes[..at], &new, &bytes[end..]].concat())
}

#[test]
fn a_column_that_lies_outside_its_file_is_refused_by_name() {
    let file = five();
    let large = 1 << 40;
    let lies = |column, start, length| {
        claiming(&file, None, column, |column| {
            column
                .set_dictionary_page_offset(None)
                .set_data_page_offset(start)
                .set_total_compressed_size(length)
        })
    };
    for column in [TIME, 0] {
        // Parquet's own writer refuses to write what is negative.
        let cases = [
            (4, large, lies(column, 4, large)),
            (large, 1, lies(column, large, 1)),
            (i64::MAX, 1, lies(column, i64::MAX, 1)),
            (
                -large - 1,
                1,
                instead(&lies(column, large, 1), large, -large - 1),
            ),
            (
                4,
                -large - 1,
                instead(&lies(column, 4, large), large, -large - 1),
            ),
        ];
        for (start, length, file) in cases {
            let message = if column == TIME {
                refusal_of_time(file)
            } else {
                let mut replay = once(file, &one_tag());
                let error = replay.read(&wall(), RowRule::Service).unwrap_err();
                assert!(!error.is_retryable());
                error.to_string()
            };
            let name = ["a", "Timestamp"][column];
            let expected = format!(
                "h.parquet: cannot read column \"{name}\" of row group 0: EOF: the footer says that it has {length} bytes \
                 from offset {start}, in a file of "
            );
            assert!(message.starts_with(&expected), "{message}");
        }
    }
}

#[test]
fn a_page_that_needs_a_dictionary_where_there_is_none_is_refused() {
    let page = data_page(5, DICTIONARY_ENCODING, &[1, 10, 0]);
    let message = refusal_of_time(with_time_pages(PLAIN, 5, &page));
    assert!(message.contains("needs a dictionary"), "{message}");
}

#[test]
fn a_dictionary_offset_that_points_at_none_is_not_believed() {
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .build();
    let cells = vec![
        Cells::F64(some(&[0.5; 6])),
        Cells::I64(some(&minutes(0..6))),
    ];
    let file = parquet_with(PLAIN, vec![cells], properties);
    for offset in [0, 1 << 40] {
        let file = claiming(&file, None, TIME, |column| {
            column.set_dictionary_page_offset(Some(offset))
        });
        let reading = once(file, &one_tag())
            .read(&wall(), RowRule::Service)
            .unwrap();
        assert_eq!(reading.frames[0].rows(), 5);
    }
}

#[test]
fn rows_that_the_file_cannot_hold_are_refused_before_they_are_read() {
    // One run of nulls: five bytes that stand for as many rows as they like.
    let nulls = |rows: i64| {
        let run = &thrift(rows)[..];
        let levels = [&(run.len() as u32 + 1).to_le_bytes()[..], run, &[0]].concat();
        with_time_pages(NULLABLE, rows, &data_page(rows, PLAIN_ENCODING, &levels))
    };
    let message = refusal(nulls(2_000_000_000), &one_tag());
    let expected = "h.parquet: row group 0 claims 2000000000 rows";
    assert!(message.starts_with(expected), "{message}");
    assert!(refusal(nulls(10_000), &one_tag()).contains("every row of column"));
    for rows in [-1, i64::MAX] {
        let message = refusal(claiming(&five(), Some(rows), TIME, |same| same), &one_tag());
        assert!(
            message.contains(&format!("claims {rows} rows")),
            "{message}"
        );
    }
}

#[test]
fn a_page_that_claims_more_than_there_is_is_refused() {
    let times: Vec<u8> = minutes(0..5)
        .iter()
        .flat_map(|time| time.to_le_bytes())
        .collect();
    let whole = data_page(5, PLAIN_ENCODING, &times);
    let reading = once(with_time_pages(PLAIN, 5, &whole), &one_tag())
        .read(&wall(), RowRule::Service)
        .unwrap();
    assert_eq!(reading.frames[0].rows(), 4);
    for (rows, page, expected) in [
        (
            4,
            whole.clone(),
            "claims 5 rows, where its row group has 4 left",
        ),
        (6, whole.clone(), "expected 6 rows in a column, found 5"),
        (5, whole[..20].to_vec(), "a page claims 40 bytes"),
        (-1, data_page(-1, PLAIN_ENCODING, &times), "claims -1 rows"),
        (5, data_page(-5, PLAIN_ENCODING, &times), "claims -5 values"),
        (
            5,
            vec![0x15, 0x00, 0x15, 0x00, 0x15, 0x00, 0x00],
            "claims -1 values",
        ),
        (
            5,
            vec![0x15, 0x0e, 0x15, 0x50, 0x15, 0x50, 0x00],
            "no type that is known",
        ),
        (5, vec![0xff; 40], "the header of a page"),
    ] {
        let message = refusal(with_time_pages(PLAIN, rows, &page), &one_tag());
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_page_that_claims_to_be_huge_is_refused_before_memory_is_taken() {
    let size = i64::from(i32::MAX);
    let page = [
        &[0x15, 0x00, 0x15][..],
        &thrift(size),
        &[0x15, 0x00, 0x2c, 0x15, 0x0a],
    ]
    .concat();
    let page = [&page[..], &[0x15, 0x00, 0x15, 0x06, 0x15, 0x06, 0x00, 0x00]].concat();
    let message = refusal_of_time(with_time_pages(PLAIN, 5, &page));
    assert!(message.contains("a page has 2147483647 bytes"), "{message}");
}

#[test]
fn what_the_parquet_crate_panics_at_is_an_error_of_the_file() {
    // A delta page that announces no values, and a number in it that never ends.
    for body in [&[0x80, 0x01, 0x04, 0x00, 0x02][..], &[0xff; 16]] {
        let page = data_page(5, DELTA_ENCODING, body);
        let message = refusal_of_time(with_time_pages(PLAIN, 5, &page));
        assert!(message.contains("takes for granted"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_time_outside_the_years_1_to_9999_is_refused_with_its_row() {
    let first = -62_135_596_800_000_000;
    let last = 253_402_300_799_999_999;
    for time in [first - 1, last + 1, i64::MIN, i64::MIN + 1, i64::MAX] {
        let message = refusal(plain(vec![start(), time], vec![0.0; 2]), &one_tag());
        let expected = format!(
            "h.parquet: row 1 (the first is 0) of column \"Timestamp\" is {time} microseconds from 1970"
        );
        assert!(message.starts_with(&expected), "{message}");
    }
    for (column, cells) in [
        (
            "required int64 t (TIMESTAMP(MILLIS,true))",
            Cells::I64(vec![Some(i64::MAX / 2)]),
        ),
        ("required int96 t", Cells::I96(vec![last + 1])),
    ] {
        let schema = format!("{column}; required double a;");
        let file = parquet_file(&schema, vec![vec![cells, Cells::F64(vec![Some(1.0)])]]);
        let message = refusal(file, &one_tag());
        assert!(message.contains("outside the years"), "{message}");
    }
    // Days that 32 bits count to and micros do not.
    for (day, expected) in [(i32::MAX, i64::MAX), (i32::MIN, i64::MIN)] {
        let mut value = Int96::new();
        value.set_data(0, 0, day.cast_unsigned());
        assert_eq!(decode::int96_micros(&value), expected);
    }
}

#[test]
fn a_history_of_all_the_years_plays() {
    let all = [-62_135_596_800_000_000, 253_402_300_799_999_999];
    for at_end in [AtEnd::Loop, AtEnd::Stop] {
        let history = open(plain(all.to_vec(), vec![1.0, 2.0]), &one_tag());
        assert_eq!((history.first(), history.last()), (all[0], all[1]));
        let begin = history.default_start(Cadence::Pt5m, 3);
        let wall_start = wall().start().timestamp_micros();
        let rebase = history.rebase(begin, wall_start, Cadence::Pt5m, at_end);
        let mut replay = Replay::new(history, rebase);
        for n in 0..8 {
            replay.read(&wall().offset(n), RowRule::Service).unwrap();
        }
    }
}
