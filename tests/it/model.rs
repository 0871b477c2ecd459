//! What the detector promises on any data: guards at training, broken input at scoring, states, files.

use lookoutd::model::evaluate::{Evaluator, ModelQuality};
use lookoutd::model::{
    FitError, Model, ModelFileError, Options, Reason, Rows, Scored, Sensor, Span, Training,
    Warning, guard,
};

const MINUTE: i64 = 60_000_000;
const ROWS: usize = 6000;
const SENSORS: usize = 6;

fn sensors(count: usize) -> Vec<Sensor> {
    (0..count)
        .map(|n| Sensor::new(format!("part-{}", n / 3), format!("signal-{n}")))
        .collect()
}

/// Rows every ten minutes from `first` on: two slow common factors, a little noise, two decimals.
fn plant(first: usize, rows: usize) -> Rows {
    let mut out = Rows {
        sensors: SENSORS,
        ..Rows::default()
    };
    let noise = |row: usize, column: usize| {
        let mut bits = (row as u64 * 31 + column as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits ^= bits >> 29;
        bits = bits.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits ^= bits >> 32;
        (bits >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    };
    for row in first..first + rows {
        let (day, slow) = (
            (row as f64 / 144.0 * std::f64::consts::TAU).sin(),
            (row as f64 / 900.0).sin(),
        );
        let values: Vec<f64> = (0..SENSORS)
            .map(|n| {
                50.0 + 10.0 * day * (1.0 + n as f64)
                    + 5.0 * slow * (n % 3) as f64
                    + 2.0 * noise(row, n)
            })
            .map(|value| (value * 100.0).round() / 100.0)
            .collect();
        out.push(row as i64 * 10 * MINUTE, &values);
    }
    out
}

fn fit_with(rows: Rows, options: &Options) -> Result<Model, FitError> {
    Model::fit(
        Training::in_memory(sensors(rows.sensors), rows, Vec::new()),
        options,
        &mut |_| {},
    )
}

fn fit(rows: Rows) -> Model {
    fit_with(rows, &Options::default()).unwrap()
}

fn score(model: &Model, rows: &Rows) -> Vec<Scored> {
    model.score(
        &mut model.fresh_state(),
        rows,
        rows.times[0] - 1,
        *rows.times.last().unwrap(),
    )
}

fn changed(mut rows: Rows, change: impl Fn(usize, usize, f64) -> f64) -> Rows {
    for (cell, value) in rows.values.iter_mut().enumerate() {
        *value = change(cell / rows.sensors, cell % rows.sensors, *value);
    }
    rows
}

fn share_predicted(scored: &[Scored]) -> f64 {
    scored.iter().filter(|row| row.prediction).count() as f64 / scored.len() as f64
}

#[test]
fn healthy_rows_are_quiet_and_a_broken_relation_names_its_sensor() {
    let model = fit(plant(0, ROWS));
    let healthy = plant(ROWS, 1000);
    assert!(share_predicted(&score(&model, &healthy)) < 0.02);
    let broken = changed(healthy, |row, column, value| {
        if column == 4 && row >= 500 {
            value + 12.0
        } else {
            value
        }
    });
    let scored = score(&model, &broken);
    assert!(share_predicted(&scored[520..]) > 0.95);
    for row in &scored[520..] {
        let worst =
            (0..SENSORS).max_by(|a, b| row.contributions[*a].total_cmp(&row.contributions[*b]));
        assert_eq!(worst, Some(4));
        assert_eq!(row.prediction, row.anomaly_score > 0.5);
        assert!((row.contributions.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }
}

#[test]
fn odd_sensors_are_named_and_only_useless_ones_left_out() {
    let model = fit(changed(plant(0, ROWS), |row, column, value| match column {
        0 => 7.5,
        1 => row as f64,
        2 => f64::from(u8::from(row % 700 < 300)),
        3 if row % 50 != 0 => f64::NAN,
        _ => value,
    }));
    let all = sensors(SENSORS);
    let used: Vec<_> = model.used_sensors().cloned().collect();
    assert_eq!(
        used,
        [
            all[0].clone(),
            all[2].clone(),
            all[4].clone(),
            all[5].clone()
        ]
    );
    let warnings = model.warnings();
    assert!(warnings.iter().any(
        |w| matches!(w, Warning::Constant { sensor, value } if *sensor == all[0] && *value == 7.5)
    ));
    assert!(
        warnings
            .iter()
            .any(|w| matches!(w, Warning::Counter { sensor, .. } if *sensor == all[1]))
    );
    assert!(
        warnings
            .iter()
            .any(|w| matches!(w, Warning::Categorical { sensor, values: 2 } if *sensor == all[2]))
    );
    assert!(warnings.iter().any(|w| matches!(w, Warning::MostlyMissing { sensor, share } if *sensor == all[3] && *share > 0.97)));
    assert_eq!(warnings.len(), 4);
    // A counter that goes on counting, or starts anew, is no anomaly.
    let next = changed(plant(ROWS, 500), |row, column, value| match column {
        0 => 7.5,
        1 => (row % 100) as f64,
        2 => f64::from(u8::from(row % 700 < 300)),
        3 => f64::NAN,
        _ => value,
    });
    assert!(share_predicted(&score(&model, &next)) < 0.02);
}

#[test]
fn short_training_warns_and_too_short_training_is_refused() {
    let model = fit(plant(0, 600));
    assert!(matches!(
        model.warnings()[0],
        Warning::ShortTraining {
            rows: 600,
            wanted: 1080,
            ..
        }
    ));
    assert!(matches!(
        fit_with(plant(0, 100), &Options::default()),
        Err(FitError::TooLittleHistory {
            rows: 100,
            read: 100
        })
    ));
    let off = Options {
        off: Some("part-0\\signal-0<1000".parse().unwrap()),
        ..Options::default()
    };
    assert!(matches!(
        fit_with(plant(0, ROWS), &off),
        Err(FitError::TooLittleHistory { rows: 0, .. })
    ));
    let empty = changed(plant(0, ROWS), |_, _, _| f64::NAN);
    assert!(matches!(
        fit_with(empty, &Options::default()),
        Err(FitError::TooLittleHistory { .. })
    ));
}

#[test]
fn unusable_training_input_is_refused_by_name() {
    let off = Options {
        off: Some("part-0\\rpm<1".parse().unwrap()),
        ..Options::default()
    };
    let error = fit_with(plant(0, ROWS), &off).unwrap_err();
    assert!(matches!(&error, FitError::OffSensorUnknown(sensor) if sensor.signal == "rpm"));
    let mut unsorted = plant(0, ROWS);
    unsorted.times.swap(10, 11);
    assert!(matches!(
        fit_with(unsorted, &Options::default()),
        Err(FitError::Unsorted { .. })
    ));
    let ragged = Training::in_memory(sensors(5), plant(0, ROWS), Vec::new());
    assert!(matches!(
        Model::fit(ragged, &Options::default(), &mut |_| {}),
        Err(FitError::Ragged {
            expected: 5,
            found: 6
        })
    ));
    let failing = Training {
        sensors: sensors(SENSORS),
        labels: Vec::new(),
        from: None,
        to: None,
        rows: Box::new(|| Err(anyhow::anyhow!("the disk is gone"))),
    };
    let error = Model::fit(failing, &Options::default(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("the disk is gone"));
    for options in [
        Options {
            trim: 0.5,
            ..Options::default()
        },
        Options {
            rate_per_week: 0.0,
            ..Options::default()
        },
    ] {
        assert!(matches!(
            fit_with(plant(0, ROWS), &options),
            Err(FitError::Option(_))
        ));
    }
}

#[test]
fn a_labelled_fault_is_not_learned() {
    let faulty = |row: usize, column: usize, value: f64| match column {
        4 if (2000..2400).contains(&row) => value + 12.0,
        _ => value,
    };
    let rows = changed(plant(0, ROWS), faulty);
    let label = Span {
        start: rows.times[2000],
        end: rows.times[2399],
    };
    let train = |labels, trim| {
        let training = Training::in_memory(sensors(SENSORS), rows.clone(), labels);
        Model::fit(
            training,
            &Options {
                trim,
                ..Options::default()
            },
            &mut |_| {},
        )
        .unwrap()
    };
    let (with, without) = (train(vec![label], 0.0), train(Vec::new(), 0.0));
    assert_eq!(with.training_rows(), ROWS - 400);
    let again = changed(plant(ROWS, 1000), |row, column, value| {
        if column == 4 && row >= 500 {
            value + 12.0
        } else {
            value
        }
    });
    let sum = |model: &Model| {
        score(model, &again)[520..]
            .iter()
            .map(|row| row.anomaly_score)
            .sum::<f64>()
    };
    assert!(
        sum(&with) > sum(&without) + 10.0,
        "{} {}",
        sum(&with),
        sum(&without)
    );
    assert!(sum(&train(Vec::new(), 0.05)) > sum(&without));
}

#[test]
fn rows_that_are_off_have_no_score_and_neither_has_the_start_up_after_them() {
    let off = |row: usize| row % 1000 >= 950;
    let mut rows = changed(plant(0, ROWS), |row, column, value| {
        if off(row) { 0.0 } else { value + column as f64 }
    });
    let options = Options {
        off: Some("part-0\\signal-0<1".parse().unwrap()),
        grace: 5,
        ..Options::default()
    };
    let model = fit_with(rows.clone(), &options).unwrap();
    assert_eq!(model.training_rows(), ROWS - 6 * 50 - 5 * 5);
    assert!(
        model
            .used_sensors()
            .all(|sensor| sensor.signal != "signal-0")
    );
    // The off sensor falls silent while the machine is off: the latest received value counts.
    for row in 960..990 {
        rows.values[row * SENSORS] = f64::NAN;
    }
    let scored = score(&model, &rows);
    for (row, scored) in scored.iter().enumerate() {
        let machine_off = off(row) || (row >= 1000 && row % 1000 < 5);
        assert_eq!(scored.reason == Reason::MachineOff, machine_off, "{row}");
        assert!(
            !machine_off
                || (scored.u == 0.0 && !scored.prediction && scored.contributions.is_empty())
        );
        assert!(machine_off || scored.contributions[0] == 0.0);
    }
    assert!(share_predicted(&scored) < 0.02);
}

#[test]
fn missing_values_never_raise_a_storm() {
    let model = fit(plant(0, ROWS));
    let one_part = changed(
        plant(ROWS, 1000),
        |_, column, value| if column < 3 { f64::NAN } else { value },
    );
    assert!(share_predicted(&score(&model, &one_part)) < 0.03);
    assert!(
        score(&model, &one_part)
            .iter()
            .all(|row| row.contributions[..3] == [0.0; 3])
    );
    let nothing = changed(plant(ROWS, 50), |_, _, _| f64::NAN);
    for row in score(&model, &nothing) {
        assert!(
            row.reason == Reason::NoAnomalyDetected && row.u == 0.0 && row.contributions.is_empty()
        );
    }
    let no_rows = Rows {
        sensors: SENSORS,
        ..Rows::default()
    };
    assert!(
        model
            .score(&mut model.fresh_state(), &no_rows, 0, 10 * MINUTE)
            .is_empty()
    );
}

#[test]
fn after_a_gap_scoring_starts_anew() {
    let model = fit(plant(0, ROWS));
    let (before, after) = (plant(ROWS, 100), plant(ROWS + 150, 100));
    let mut state = model.fresh_state();
    model.score(&mut state, &before, before.times[0] - 1, before.times[99]);
    let continued = model.score(&mut state, &after, before.times[99], after.times[99]);
    assert_eq!(continued, score(&model, &after));
}

#[test]
fn a_state_of_another_model_or_of_the_future_is_not_used() {
    let (model, other) = (fit(plant(0, ROWS)), fit(plant(0, 3000)));
    let rows = plant(ROWS, 100);
    let mut state = other.fresh_state();
    other.score(&mut state, &rows, rows.times[0] - 1, rows.times[99]);
    assert_eq!(
        model.score(&mut state, &rows, rows.times[99], rows.times[99]),
        []
    );
    assert_eq!(
        model.score(&mut state, &rows, rows.times[0] - 1, rows.times[99]),
        score(&model, &rows)
    );
    assert_eq!(
        model.score(&mut state, &rows, rows.times[0] - 1, rows.times[99]),
        score(&model, &rows)
    );
}

#[test]
fn a_sampled_model_answers_one_line_per_bin() {
    let options = Options {
        sampling: Some("PT1H".parse().unwrap()),
        ..Options::default()
    };
    let model = fit_with(plant(0, ROWS), &options).unwrap();
    assert_eq!(
        (model.step_us(), model.training_rows()),
        (60 * MINUTE, 1001)
    );
    let rows = plant(ROWS, 60);
    let scored = model.score(
        &mut model.fresh_state(),
        &rows,
        rows.times[0],
        rows.times[0] + 600 * MINUTE,
    );
    let times: Vec<_> = scored.iter().map(|row| row.time).collect();
    let expected: Vec<_> = (1..=10)
        .map(|hour| rows.times[0] + hour * 60 * MINUTE)
        .collect();
    assert_eq!(times, expected);
}

#[test]
fn windows_cut_anywhere_with_some_left_out_give_lines_of_their_own_and_none_twice() {
    for sampling in [None, Some("PT1H"), Some("PT5M")] {
        let options = Options {
            sampling: sampling.map(|word| word.parse().unwrap()),
            ..Options::default()
        };
        let model = fit_with(plant(0, ROWS), &options).unwrap();
        let rows = plant(ROWS, 200);
        let (first, last) = (rows.times[0] - 1, rows.times[199]);
        let whole = model.score(&mut model.fresh_state(), &rows, first, last);
        for every in 2..6 {
            let mut state = model.fresh_state();
            let (mut start, mut lines) = (first, Vec::new());
            // Uneven windows: some hold many rows, some half a bin.
            for (nth, minutes) in [60, 25, 120, 7, 40, 240].into_iter().cycle().enumerate() {
                let end = (start + minutes * MINUTE).min(last);
                if nth % every != 1 {
                    let found = model.score(&mut state, &rows, start, end);
                    let times: Vec<i64> = found.iter().map(|line| line.time).collect();
                    assert!(
                        times.iter().all(|time| start < *time && *time <= end),
                        "{sampling:?}, window {nth} ({start}, {end}]: {times:?}"
                    );
                    // Two hours have the lines that they have in one batch, but for a first that repeats a row before them.
                    if minutes >= 120 {
                        let own = whole.iter().map(|line| line.time);
                        let own: Vec<i64> = own.filter(|t| start < *t && *t <= end).collect();
                        assert!(
                            own.ends_with(&times) && times.len() + 1 >= own.len(),
                            "{sampling:?}, window {nth}"
                        );
                    }
                    lines.extend(times);
                }
                start = end;
                if start == last {
                    break;
                }
            }
            assert!(lines.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(lines.len() > whole.len() / 3);
        }
    }
}

#[test]
fn unknown_columns_are_refused_and_absent_ones_are_missing() {
    let model = fit(plant(0, ROWS));
    let mut columns = sensors(SENSORS);
    columns.swap(0, 5);
    columns.remove(1);
    assert_eq!(
        model.align(&columns).unwrap(),
        [Some(4), None, Some(1), Some(2), Some(3), Some(0)]
    );
    columns.push(Sensor::new("part-0", "renamed"));
    assert!(
        model
            .align(&columns)
            .unwrap_err()
            .to_string()
            .contains("part-0\\renamed")
    );
}

#[test]
fn coarser_rounding_than_in_training_is_named() {
    let model = fit(plant(0, ROWS));
    assert_eq!(guard::resolution(&model, &plant(ROWS, 500)), []);
    let rounded = changed(plant(ROWS, 500), |_, column, value| {
        if column == 2 { value.round() } else { value }
    });
    let warnings = guard::resolution(&model, &rounded);
    assert!(
        matches!(
            &warnings[..],
            [Warning::Resolution {
                training: 2,
                inference: 0,
                ..
            }]
        ),
        "{warnings:?}"
    );
}

#[test]
fn a_plant_that_runs_differently_is_a_change_of_regime() {
    let model = fit(plant(0, ROWS));
    let rows = changed(plant(ROWS, 1000), |row, column, value| {
        if row >= 600 {
            value + 15.0 * column as f64
        } else {
            value
        }
    });
    let label = Span {
        start: rows.times[100],
        end: rows.times[110],
    };
    let mut evaluator = Evaluator::new(&model, vec![label]);
    evaluator.push(&score(&model, &rows));
    let evaluation = evaluator.finish().unwrap();
    assert_eq!(evaluation.quality, ModelQuality::PoorQualityDetected);
    assert!(matches!(evaluation.warnings[..], [Warning::RegimeChange { share }] if share > 0.3));
}

#[test]
fn a_model_file_reads_back_whole_or_is_refused() {
    let model = fit(plant(0, ROWS));
    let bytes = model.encode();
    let again = Model::decode(&bytes).unwrap();
    assert!(again.encode() == bytes);
    let rows = plant(ROWS, 300);
    assert_eq!(score(&model, &rows), score(&again, &rows));
    assert!(matches!(
        Model::decode(&bytes[..bytes.len() - 1]),
        Err(ModelFileError::Length { .. })
    ));
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    assert_eq!(
        Model::decode(&flipped).unwrap_err(),
        ModelFileError::Damaged("model file")
    );
    let mut newer = bytes;
    newer[8..12].copy_from_slice(&7_u32.to_le_bytes());
    assert!(matches!(
        Model::decode(&newer),
        Err(ModelFileError::Newer { found: 7, .. })
    ));
    assert!(matches!(
        Model::decode(b"PAR1 something else"),
        Err(ModelFileError::AnotherKind(_))
    ));
}
