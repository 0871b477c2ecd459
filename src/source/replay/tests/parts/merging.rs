//! Files of different columns.

use super::*;

/// A file for each component, as historians export them, and one more that corrects some rows of one component.
#[test]
fn files_of_different_columns_with_the_same_times_blank_nothing_of_each_other() {
    let tags = tags("Tag,UOM,Subsystem\na,,c\nb,,d\n");
    let one = |column: &str, rows: std::ops::Range<i64>, add: f64| {
        let values = rows
            .clone()
            .map(|minute| (minute % 7 != 0).then_some(minute as f64 + add));
        parquet_file(
            &format!(
                "required int64 Timestamp (TIMESTAMP(MICROS,false)); optional double {column};"
            ),
            vec![vec![
                Cells::I64(some(&minutes(rows.clone()))),
                Cells::F64(values.collect()),
            ]],
        )
    };
    let plant = Plant::new(&[
        ("c.parquet", &one("a", 0..90, 0.0)),
        ("d.parquet", &one("b", 3..80, 0.5)),
        ("e.parquet", &one("a", 20..26, 100.0)),
    ]);
    let values = |from: std::ops::Range<i64>, add: f64| {
        (0..90)
            .map(|minute| {
                (from.contains(&minute) && minute % 7 != 0).then_some(minute as f64 + add)
            })
            .collect::<Vec<_>>()
    };
    let mut a = values(0..90, 0.0);
    a.splice(20..26, values(20..26, 100.0)[20..26].iter().copied());
    let whole = parquet_file(
        "required int64 Timestamp (TIMESTAMP(MICROS,false)); optional double a; optional double b;",
        vec![vec![
            Cells::I64(some(&minutes(0..90))),
            Cells::F64(a),
            Cells::F64(values(3..80, 0.5)),
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
    let rebase = Rebase::once(start(), wall().start().timestamp_micros());
    let (mut many, mut single) = (follow(opened), Replay::new(one, rebase));
    for n in 0..18 {
        let window = wall().offset(n);
        let [many, single] = [&mut many as &mut dyn Source, &mut single]
            .map(|source| source.read(&window, RowRule::Service).unwrap());
        assert_eq!(
            format!("{:?}", many.frames),
            format!("{:?}", single.frames),
            "{n}"
        );
    }
}
