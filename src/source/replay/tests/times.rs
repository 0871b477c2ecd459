//! Times as plants record them: by another name, as numbers of any unit, as texts, by the clock on the wall.

use super::*;
use crate::signal::timestamp;
use crate::source::shape::{LocalClock, Never, Ticks, Twice};

fn berlin(twice: Twice, never: Never) -> Shape {
    Shape {
        clock: LocalClock::of("Europe/Berlin", twice, never).unwrap(),
        ..Shape::default()
    }
}

/// The times of all rows of a history of one signal whose values count from 0, in the order of the values.
fn times_of(schema: &str, times: Cells, rows: usize, shape: &Shape) -> Vec<String> {
    let schema = format!("required double a; {schema};");
    let values = (0..rows).map(|row| Some(row as f64)).collect();
    let file = parquet_file(&schema, vec![vec![Cells::F64(values), times]]);
    let mut replay = Replay::new(open_as(file, &one_tag(), shape), Rebase::once(0, 0));
    let last = replay.history().last();
    let (mut found, mut next) = (Vec::new(), replay.history().first());
    while next <= last {
        let at = DateTime::from_timestamp_micros(next).unwrap();
        let window = Window::containing(at, Cadence::Pt1h);
        let reading = replay.read(&window, RowRule::Notebook).unwrap();
        let frame = &reading.frames[0];
        found.extend(doubles(frame).into_iter().zip(frame.times.clone()));
        next = window.next().start().timestamp_micros();
    }
    found.sort_by(|one, other| one.0.total_cmp(&other.0));
    found
        .into_iter()
        .map(|(_, time)| timestamp::format(time))
        .collect()
}

fn local(texts: &[&str]) -> Vec<Option<i64>> {
    texts.iter().map(|text| timestamp::parse(text)).collect()
}

const AUTUMN: [&str; 3] = [
    "2020-10-25T01:30:00",
    "2020-10-25T02:30:00",
    "2020-10-25T03:30:00",
];
const SPRING: [&str; 3] = [
    "2020-03-29T01:30:00",
    "2020-03-29T02:30:00",
    "2020-03-29T03:30:00",
];
const NAIVE: &str = "required int64 Timestamp (TIMESTAMP(MICROS,false))";

#[test]
fn local_times_over_both_changes_of_the_clock_are_instants_by_the_rule() {
    let read = |times: &[&str], twice, never| {
        times_of(NAIVE, Cells::I64(local(times)), 3, &berlin(twice, never))
    };
    let (e, l, r) = (Twice::Earlier, Twice::Later, Twice::Refuse);
    assert_eq!(
        read(&AUTUMN, e, Never::Refuse),
        [
            "2020-10-24T23:30:00",
            "2020-10-25T00:30:00",
            "2020-10-25T02:30:00"
        ]
    );
    assert_eq!(
        read(&AUTUMN, l, Never::Refuse),
        [
            "2020-10-24T23:30:00",
            "2020-10-25T01:30:00",
            "2020-10-25T02:30:00"
        ]
    );
    assert_eq!(
        read(&SPRING, r, Never::Forward)[..2],
        ["2020-03-29T00:30:00", "2020-03-29T01:00:00"]
    );
    assert_eq!(
        read(&SPRING, r, Never::Backward)[1],
        "2020-03-29T00:59:59.999999"
    );
    for (times, key) in [(AUTUMN, "source.time_twice"), (SPRING, "source.time_never")] {
        let cells = vec![
            Cells::F64(some(&[0.0, 1.0, 2.0])),
            Cells::I64(local(&times)),
        ];
        let file = parquet_file(&format!("required double a; {NAIVE};"), vec![cells]);
        let said = refusal_as(file, &one_tag(), &berlin(r, Never::Refuse));
        assert!(
            said.contains(key) && said.contains("row 1 of it") && said.contains(times[1]),
            "{said}"
        );
    }
    // A type that says UTC is UTC whatever the zone.
    let utc = "required int64 Timestamp (TIMESTAMP(MICROS,true))";
    assert_eq!(
        times_of(
            utc,
            Cells::I64(local(&AUTUMN)),
            3,
            &berlin(r, Never::Refuse)
        ),
        AUTUMN
    );
}

#[test]
fn a_time_column_of_any_name_and_type_is_read() {
    let wanted = ["2020-01-01T00:00:00", "2020-01-01T00:01:00"];
    let seconds = [1_577_836_800_i64, 1_577_836_860];
    let shape = |ticks| Shape {
        time: "when".to_owned(),
        ticks,
        ..Shape::default()
    };
    let as_f64 = |by: f64| Cells::F64(seconds.map(|second| Some(second as f64 * by)).to_vec());
    let as_i64 = |by: i64| Cells::I64(seconds.map(|second| Some(second * by)).to_vec());
    let as_i32 = Cells::I32(seconds.map(|second| i32::try_from(second).ok()).to_vec());
    let texts = Cells::Text(vec![
        Some("2020-01-01 01:00+01:00"),
        Some(" 2020/1/1 00:01Z "),
    ]);
    for (kind, cells, ticks) in [
        ("int64", as_i64(1), Some(Ticks::Seconds)),
        ("int64", as_i64(1_000), Some(Ticks::Millis)),
        ("int64", as_i64(1_000_000), Some(Ticks::Micros)),
        ("int64", as_i64(1_000_000_000), Some(Ticks::Nanos)),
        ("int32", as_i32, Some(Ticks::Seconds)),
        ("double", as_f64(1.0), Some(Ticks::Seconds)),
        ("double", as_f64(1e3), Some(Ticks::Millis)),
        ("binary", texts, None),
    ] {
        let suffix = if kind == "binary" { " (STRING)" } else { "" };
        let schema = format!("required {kind} when{suffix}");
        assert_eq!(times_of(&schema, cells, 2, &shape(ticks)), wanted, "{kind}");
    }
    let file = plain(minutes(0..3), vec![0.0; 3]);
    let said = refusal_as(file, &one_tag(), &shape(None));
    assert!(
        said.contains(
            "no column is called \"when\" as source.time_column says; the file has a, Timestamp"
        ),
        "{said}"
    );
    let bad = Cells::Text(vec![Some("2020-01-01 00:00"), Some("soon")]);
    let cells = vec![Cells::F64(some(&[0.0, 1.0])), bad];
    let file = parquet_file(
        "required double a; required binary Timestamp (STRING);",
        vec![cells],
    );
    let said = refusal(file, &one_tag());
    assert!(
        said.contains("row 1 of it") && said.contains("`soon` is no timestamp"),
        "{said}"
    );
}

#[test]
fn words_in_a_signal_are_missing_and_counted() {
    let texts = ["1.5", "No Data", "", "2", "NaN", "Bad"].map(Some);
    let cells = vec![
        Cells::Text(texts.into_iter().chain([None]).collect()),
        Cells::I64(some(&minutes(0..7))),
    ];
    let file = parquet_file(
        &format!("optional binary a (STRING); {NAIVE};"),
        vec![cells],
    );
    let mut replay = once(file, &one_tag());
    let window = Window::containing(wall().start(), Cadence::Pt1h);
    let reading = replay.read(&window, RowRule::Notebook).unwrap();
    let found = doubles(&reading.frames[0]);
    assert_eq!((found[0], found[3], found.len()), (1.5, 2.0, 7));
    assert_eq!(found.iter().filter(|value| value.is_nan()).count(), 5);
    assert_eq!((reading.words, reading.infinite), (2, 0));
}
