//! Tables as people have them, read to their end.

use super::*;
use std::io::Write;

use crate::model::timestamp;

fn written(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn all(mut table: Table) -> Result<(Table, Rows)> {
    let mut all = Rows {
        sensors: table.sensors().len(),
        ..Rows::default()
    };
    while let Some(block) = table.next_block()? {
        all.times.extend(block.times);
        all.values.extend(block.values);
    }
    Ok((table, all))
}

fn read(text: &str) -> Result<(Table, Rows)> {
    let file = written(text);
    all(Table::open(file.path(), None, &Shape::default())?)
}

#[test]
fn columns_find_their_component_by_tag_or_by_name() {
    let row = "2020-01-01 00:00,1,2,3\n";
    let file = written(&format!("Timestamp,pump\\flow,fan__speed,level\n{row}"));
    let open = |tags| Table::open(file.path(), tags, &Shape::default());
    let names = |tags| {
        let table = open(tags)?;
        let names = table.sensors().iter().map(Sensor::to_string);
        Ok::<_, anyhow::Error>(names.collect::<Vec<_>>())
    };
    assert_eq!(
        names(None).unwrap(),
        ["pump\\flow", "fan\\speed", "asset\\level"]
    );
    let tags = TagList::parse(b"Tag,UOM,Subsystem\nlevel,m,tank\n", "tags.csv").unwrap();
    assert_eq!(
        names(Some(&tags)).unwrap(),
        ["pump\\flow", "fan\\speed", "tank\\level"]
    );
    let other = TagList::parse(b"Tag,UOM,Subsystem\nweight,t,tank\n", "tags.csv").unwrap();
    assert_eq!(names(Some(&other)).unwrap(), ["pump\\flow", "fan\\speed"]);
    assert_eq!(open(Some(&other)).unwrap().ignored(), ["level"]);
    let file = written("Timestamp,level\n2020-01-01 00:00,1\n");
    let error = Table::open(file.path(), Some(&other), &Shape::default()).err();
    let error = format!("{:#}", error.unwrap());
    assert!(error.contains("level"), "{error}");
}

#[test]
fn columns_keep_their_order_whatever_component_they_belong_to() {
    let (table, rows) = read("time,p__a,q__b,p__c\n2020-01-01 00:00,1,2,3\n").unwrap();
    let names: Vec<String> = table.sensors().iter().map(Sensor::to_string).collect();
    assert_eq!(names, ["p\\a", "q\\b", "p\\c"]);
    assert_eq!(rows.row(0), [1.0, 2.0, 3.0]);
}

#[test]
fn missing_cells_are_nan_rows_are_put_in_order_and_the_last_of_equal_times_counts() {
    let (_, rows) =
        read("time,a,b\n2020-01-01 00:05,2,NaN\n2020-01-01 00:00,1,\n2020-01-01 00:05,3,4\n")
            .unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.row(0)[1].is_nan());
    assert_eq!(rows.row(1), [3.0, 4.0]);
}

#[test]
fn infinite_values_and_words_are_missing_and_counted() {
    let text = "time,a,b\n2020-01-01 00:00,inf,1\n2020-01-01 00:05,-Infinity,1e999\n2020-01-01 00:06,Bad,-\n";
    let (table, rows) = read(text).unwrap();
    assert_eq!(rows.values.iter().filter(|value| value.is_nan()).count(), 5);
    assert_eq!((table.infinite(), table.words(), table.bad()), (3, 1, 0));
}

#[test]
fn booleans_of_a_csv_are_one_and_zero() {
    let (table, rows) = read("time,a,b\n2020-01-01 00:00,true,FALSE\n").unwrap();
    assert_eq!((rows.row(0), table.words()), (&[1.0, 0.0][..], 0));
}

#[test]
fn a_csv_in_utf_16_is_refused_with_what_to_do() {
    let text = "Timestamp,a\n2020-01-01 00:00,1\n";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("h.csv");
    let units = text.encode_utf16().flat_map(u16::to_le_bytes);
    std::fs::write(
        &file,
        [0xff, 0xfe].into_iter().chain(units).collect::<Vec<_>>(),
    )
    .unwrap();
    let tags = TagList::parse(b"Tag,UOM,Subsystem\na,,x\n", "tags.csv").unwrap();
    for tags in [None, Some(&tags)] {
        let error = Table::open(&file, tags, &Shape::default()).err().unwrap();
        let error = format!("{error:#}");
        assert!(error.contains("UTF-16: save it as CSV in UTF-8"), "{error}");
    }
}

#[test]
fn blocks_join_without_losing_or_doubling_a_row() {
    let mut text = "Timestamp,a\n".to_owned();
    // A pause of years within.
    let at = |n: i64| {
        n * 60_000_000
            + if n < 5_000 {
                0
            } else {
                3 * 365 * 86_400_000_000
            }
    };
    for n in 0..10_000_i64 {
        text += &format!("{},{n}\n", timestamp::format(at(n)));
    }
    let (_, rows) = read(&text).unwrap();
    let expected: Vec<f64> = (0..10_000).map(f64::from).collect();
    assert!(rows.values == expected);
}

#[test]
fn a_directory_gives_the_rows_of_one_file_with_all() {
    let directory = tempfile::tempdir().unwrap();
    let line = |n: i64| format!("{},{n},{}\n", timestamp::format(n * 60_000_000), -n);
    let text = |range: std::ops::Range<i64>| {
        format!(
            "Timestamp,p__a,p__b\n{}",
            range.map(line).collect::<String>()
        )
    };
    let (_, wanted) = read(&text(0..300)).unwrap();
    for (name, range) in [("1.csv", 0..100), ("2.csv", 100..180), ("3.csv", 180..300)] {
        std::fs::write(directory.path().join(name), text(range)).unwrap();
    }
    for place in ["", "*.csv"] {
        let place = directory.path().join(place);
        let table = Table::open(&place, None, &Shape::default()).unwrap();
        let (table, rows) = all(table).unwrap();
        assert_eq!(rows, wanted);
        assert!(table.ignored().is_empty());
    }
}

fn in_directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn names(table: &Table) -> Vec<String> {
    table.sensors().iter().map(Sensor::to_string).collect()
}

#[test]
fn a_directory_of_csvs_has_the_columns_of_all() {
    let directory = in_directory(&[
        ("a.csv", "time,p__a,b\n2020-01-01 00:00,1,2\n"),
        ("b.csv", "time,b,q__c\n2020-01-01 00:01,3,4\n"),
    ]);
    for place in ["", "*.csv"] {
        let place = directory.path().join(place);
        let table = Table::open(&place, None, &Shape::default()).unwrap();
        assert_eq!(names(&table), ["p\\a", "asset\\b", "q\\c"]);
        let (table, rows) = all(table).unwrap();
        assert_eq!(rows.row(0)[..2], [1.0, 2.0]);
        assert_eq!(rows.row(1)[1..], [3.0, 4.0]);
        assert!(rows.row(0)[2].is_nan() && rows.row(1)[0].is_nan());
        assert!(table.ignored().is_empty());
    }
}

#[test]
fn a_tag_list_tells_what_a_directory_of_csvs_has_and_the_rest_is_left_out() {
    let list = "Tag,UOM,Subsystem\nx,,m\ny,,n\n";
    let directory = in_directory(&[
        ("a-tags.csv", list),
        ("b.csv", "Timestamp,x,old\n2020-01-01 00:00,1,2\n"),
        ("c.csv", "Timestamp,y,new\n2020-01-01 00:00,3,4\n"),
        ("d-notes.csv", "when,who\nmonday,me\n"),
    ]);
    let open = |list: &str| {
        let tags = TagList::parse(list.as_bytes(), "tags.csv").unwrap();
        Table::open(directory.path(), Some(&tags), &Shape::default())
    };
    let table = open(list).unwrap();
    assert_eq!(names(&table), ["m\\x", "n\\y"]);
    for left_out in ["old", "new"] {
        assert!(table.ignored().iter().any(|name| name == left_out));
    }
    let (_, rows) = all(table).unwrap();
    assert_eq!((rows.len(), rows.row(0)), (1, &[1.0, 3.0][..]));
    let error = open(&format!("{list}z,,m\n")).err().unwrap();
    assert!(format!("{error:#}").contains("\"z\""), "{error:#}");
}

#[test]
fn the_tag_list_wins_over_the_name_of_a_column_and_an_unnamed_one_is_left_out() {
    let tags = b"Tag,UOM,Subsystem\nline__flow,,pump\n";
    let tags = TagList::parse(tags, "tags.csv").unwrap();
    let file = written(",Timestamp,line__flow,fan__speed\n0,2020-01-01 00:00,1,2\n");
    let open = |tags| Table::open(file.path(), tags, &Shape::default());
    let table = open(Some(&tags)).unwrap();
    assert_eq!(names(&table), ["pump\\line__flow", "fan\\speed"]);
    assert!(table.ignored().is_empty());
    let (_, rows) = all(table).unwrap();
    assert_eq!(rows.row(0), [1.0, 2.0]);
    let error = format!("{:#}", open(None).err().unwrap());
    assert!(error.contains("column 1: a column has no name"), "{error}");
}

#[test]
fn bad_input_is_named_by_file_line_and_column() {
    for (text, words) in [
        ("Timestamp,a\nyesterday,1\n", ["line 2", "yesterday"]),
        (
            "Timestamp\n2020-01-01 00:00\n",
            ["at least one sensor", "Timestamp"],
        ),
        ("Timestamp,a,a\n", ["asset\\a", "rename"]),
        (
            "Timestamp,a,b\n2020-01-01 00:00,1,5,2,5\n",
            ["line 2", "5 fields"],
        ),
        (
            "Timestamp,a,b\n\n2020-01-01 00:00,1\n",
            ["line 3", "2 fields"],
        ),
        (
            "Timestamp,a\n2020-01-01 00:00,\"1\n2020-01-01 00:01,2\n",
            ["line 2", "quote"],
        ),
        (
            "time,tag,value\n2020-01-01 00:00,a,1\n",
            ["long history", "--tags"],
        ),
    ] {
        let error = format!("{:#}", read(text).err().unwrap());
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}
