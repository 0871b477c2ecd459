//! The detector on the evaluation data: conformance with the reference output, and accuracy per group with the protocol
//! under which the bar was measured (fit on the training rows, score the evaluation rows from a fresh state, the automatic
//! threshold, no point adjustment; F1 over all units of a group together, AUC-PR averaged over units).

use std::path::{Path, PathBuf};

use lookoutd::model::evaluate::{Evaluation, Evaluator, Points};
use lookoutd::model::table::{Table, read_labels};
use lookoutd::model::{
    Model, Options, Reason, Rows, Scored, ScoringState, Sensor, Span, Training, Warning, timestamp,
};

/// The evaluation data, or nothing, said loudly, where it is absent.
fn data() -> Option<PathBuf> {
    crate::skipped::shared("data/ad")
}

fn read(path: &Path) -> (Vec<Sensor>, Rows) {
    let mut table = Table::open(path, None, &Default::default()).unwrap();
    let mut all = Rows {
        sensors: table.sensors().len(),
        ..Rows::default()
    };
    while let Some(block) = table.next_block().unwrap() {
        all.times.extend(block.times);
        all.values.extend(block.values);
    }
    (table.sensors().to_vec(), all)
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The synthetic plant: everything a test needs of it.
struct Plant {
    sensors: Vec<Sensor>,
    rows: Rows,
    labels: Vec<Span>,
    /// First instant of the evaluation range.
    start: i64,
    end: i64,
    unit: PathBuf,
}

impl Plant {
    fn read() -> Self {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/synthetic-plant");
        let (sensors, rows) = read(&unit.join("sensors.csv.gz"));
        let start = json(&unit.join("meta.json"))["eval_start"]
            .as_str()
            .and_then(timestamp::parse)
            .unwrap();
        let labels = read_labels(&unit.join("labels.csv")).unwrap();
        let end = *rows.times.last().unwrap();
        Self {
            sensors,
            rows,
            labels,
            start,
            end,
            unit,
        }
    }

    fn options() -> Options {
        Options {
            off: Some("control\\motor-rpm<100".parse().unwrap()),
            ..Options::default()
        }
    }

    fn fit_on(&self, rows: &Rows, options: &Options) -> Model {
        let mut training =
            Training::in_memory(self.sensors.clone(), rows.clone(), self.labels.clone());
        training.to = Some(self.start - 1);
        Model::fit(training, options, &mut |_| {}).unwrap()
    }

    fn fit(&self) -> Model {
        self.fit_on(&self.rows, &Self::options())
    }

    fn score(&self, model: &Model, rows: &Rows) -> Vec<Scored> {
        model.score(&mut model.fresh_state(), rows, self.start - 1, self.end)
    }

    /// The rows with each cell of the evaluation range changed: (row, column, value) to value.
    fn changed(&self, change: impl Fn(usize, usize, f64) -> f64) -> Rows {
        let mut rows = self.rows.clone();
        let first = rows
            .times
            .iter()
            .position(|time| *time >= self.start)
            .unwrap();
        let width = rows.sensors;
        for (cell, value) in rows.values.iter_mut().enumerate().skip(first * width) {
            *value = change(cell / width - first, cell % width, *value);
        }
        rows
    }
}

fn evaluate(model: &Model, scored: &[Scored], labels: &[Span]) -> Evaluation {
    let mut evaluator = Evaluator::new(model, labels.to_vec());
    evaluator.push(scored);
    evaluator.finish().unwrap()
}

/// Figures of a group of units: F1 over all rows together, AUC-PR averaged over the units that have labels.
fn group(name: &str, units: &[(String, Points, Option<f64>)]) -> (f64, f64) {
    let mut sum = Points::default();
    let mut areas = Vec::new();
    for (unit, points, area) in units {
        println!(
            "  {unit}: F1 {:.4} AUC-PR {area:.4?} {points:?}",
            points.f1()
        );
        sum.true_positive += points.true_positive;
        sum.false_positive += points.false_positive;
        sum.false_negative += points.false_negative;
        sum.true_negative += points.true_negative;
        areas.extend(area);
    }
    let area = areas.iter().sum::<f64>() / areas.len() as f64;
    println!("{name}: AUC-PR {area:.4} F1 {:.4}", sum.f1());
    (area, sum.f1())
}

fn heavy(name: &str) -> bool {
    crate::skipped::full(&format!("{name}, which takes long in a debug build"))
}

/// Fits on the training rows of every unit folder of a group and scores the rest.
fn folders(name: &str) -> Option<(f64, f64)> {
    let mut paths: Vec<_> = std::fs::read_dir(data()?.join(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let units: Vec<_> = paths
        .iter()
        .map(|unit| {
            let (sensors, rows) = read(&unit.join("sensors.csv.gz"));
            let start = json(&unit.join("meta.json"))["eval_start"]
                .as_str()
                .and_then(timestamp::parse)
                .unwrap();
            let mut training = Training::in_memory(sensors, rows.clone(), Vec::new());
            training.to = Some(start - 1);
            let model = Model::fit(training, &Options::default(), &mut |_| {}).unwrap();
            let scored = model.score(
                &mut model.fresh_state(),
                &rows,
                start - 1,
                *rows.times.last().unwrap(),
            );
            let found = evaluate(
                &model,
                &scored,
                &read_labels(&unit.join("labels.csv")).unwrap(),
            );
            (
                unit.file_name().unwrap().to_string_lossy().into_owned(),
                found.points,
                found.auc_pr,
            )
        })
        .collect();
    Some(group(name, &units))
}

#[test]
fn the_synthetic_plant_scores_like_the_reference() {
    let plant = Plant::read();
    let model = plant.fit();
    let expected = json(&plant.unit.join("expected_model.json"));
    let threshold = expected["threshold_u"].as_f64().unwrap();
    assert!(
        (model.threshold() - threshold).abs() < 1e-9,
        "{} {threshold}",
        model.threshold()
    );

    let scored = plant.score(&model, &plant.rows);
    let (columns, scores) = read(&plant.unit.join("expected_scores.csv.gz"));
    let column = |name: &str| {
        columns
            .iter()
            .position(|sensor| sensor.signal == name)
            .unwrap()
    };
    let (u, score, prediction, off) = (
        column("u"),
        column("anomaly_score"),
        column("prediction"),
        column("off"),
    );
    assert_eq!(scored.len(), scores.len());
    let mut worst = 0.0_f64;
    let mut equal = 0;
    for (row, scored) in scored.iter().enumerate() {
        assert_eq!(scored.time, scores.times[row]);
        let expected = scores.row(row);
        worst = worst.max((scored.u - expected[u]).abs());
        assert!((scored.anomaly_score - expected[score]).abs() < 1e-6);
        equal += usize::from((expected[prediction] == 1.0) == scored.prediction);
        assert_eq!(expected[off] == 1.0, scored.reason == Reason::MachineOff);
    }
    println!(
        "largest difference of u {worst:e}, equal predictions {equal} of {}",
        scored.len()
    );
    assert!(worst <= 1e-6, "{worst}");
    assert!(equal as f64 >= 0.999 * scored.len() as f64);
}

#[test]
fn the_synthetic_plant_names_the_sensors_that_the_reference_names() {
    let plant = Plant::read();
    let model = plant.fit();
    let scored = plant.score(&model, &plant.rows);
    let file =
        std::fs::File::open(plant.unit.join("expected_contributions_every20.csv.gz")).unwrap();
    let mut reader = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
    let columns: Vec<usize> = reader
        .headers()
        .unwrap()
        .iter()
        .skip(1)
        .map(|name| {
            let name = name.replace("__", "\\");
            model
                .sensors()
                .iter()
                .position(|sensor| sensor.to_string() == name)
                .unwrap()
        })
        .collect();
    let mut compared = 0;
    for record in reader.records() {
        let record = record.unwrap();
        let scored = &scored[record[0].parse::<usize>().unwrap()];
        let sum: f64 = scored.contributions.iter().sum();
        assert!(
            scored.contributions.is_empty() || (sum - 1.0).abs() < 1e-9,
            "{sum}"
        );
        for (cell, column) in columns.iter().enumerate() {
            let expected: f64 = record[cell + 1].parse().unwrap();
            let found = scored.contributions.get(*column).copied().unwrap_or(0.0);
            // The file has six significant digits; rows that are off have arbitrary shares in the reference, none here.
            if scored.reason != Reason::MachineOff {
                assert!(
                    (found - expected).abs() <= 1e-6,
                    "{} {found} {expected}",
                    &record[0]
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 24 * 100, "{compared}");
}

#[test]
fn windows_with_restarts_between_them_give_the_bits_of_one_batch() {
    let plant = Plant::read();
    for sampling in [None, Some("PT30M".parse().unwrap())] {
        let options = Options {
            sampling,
            ..Plant::options()
        };
        let bytes = plant.fit_on(&plant.rows, &options).encode();
        let model = Model::decode(&bytes).unwrap();
        let whole = plant.score(&model, &plant.rows);
        let mut parts = Vec::new();
        let mut state = model.fresh_state().encode();
        let mut start = plant.start - 1;
        // Uneven windows: some hold a few rows, some half a bin.
        for minutes in [30, 10, 60, 5, 240, 15].into_iter().cycle() {
            let end = (start + minutes * 60_000_000).min(plant.end);
            let model = Model::decode(&bytes).unwrap();
            let mut restored = ScoringState::decode(&state).unwrap();
            parts.extend(model.score(&mut restored, &plant.rows, start, end));
            state = restored.encode();
            start = end;
            if start == plant.end {
                break;
            }
        }
        assert_eq!(whole.len(), parts.len());
        for (a, b) in whole.iter().zip(&parts) {
            assert_eq!(a, b);
            assert_eq!(a.u.to_bits(), b.u.to_bits());
            assert!(
                a.contributions
                    .iter()
                    .zip(&b.contributions)
                    .all(|(a, b)| a.to_bits() == b.to_bits())
            );
        }
    }
}

#[test]
fn the_model_file_does_not_depend_on_the_number_of_threads() {
    let plant = Plant::read();
    let fit = |threads| {
        plant
            .fit_on(
                &plant.rows,
                &Options {
                    threads: Some(threads),
                    ..Plant::options()
                },
            )
            .encode()
    };
    let one = fit(1);
    for threads in 2..=5 {
        assert!(one == fit(threads), "{threads} threads");
    }
}

/// Broken sensors must cost sensitivity, never cause a storm of false alarms. The reference's figures for these very
/// changes stand beside each.
#[test]
fn broken_sensors_cost_little_and_raise_no_storm() {
    let plant = Plant::read();
    let model = plant.fit();
    let figures = |model: &Model, rows: &Rows| {
        let scored = plant.score(model, rows);
        let points = evaluate(model, &scored, &plant.labels).points;
        (points.f1(), points.false_alarm_rate())
    };
    let absent = |every: usize| {
        plant.changed(move |_, column, value| {
            if column < 24 && column % every == 1 {
                f64::NAN
            } else {
                value
            }
        })
    };
    let holes = plant.changed(|row, column, value| {
        if column < 24 && (row * 31 + column * 17) % 10 == 0 {
            f64::NAN
        } else {
            value
        }
    });
    let first = plant
        .rows
        .times
        .iter()
        .position(|time| *time >= plant.start)
        .unwrap();
    let frozen = plant.rows.row(first + 960)[13];
    let stuck = plant.changed(|row, column, value| {
        if column == 13 && row >= 960 {
            frozen
        } else {
            value
        }
    });
    let mut holed = plant.rows.clone();
    for (cell, value) in holed.values.iter_mut().enumerate().take(first * 25) {
        if [3, 11].contains(&(cell % 25)) {
            *value = f64::NAN;
        }
    }
    let partial = plant.fit_on(&holed, &Plant::options());
    let left_out = partial
        .warnings()
        .iter()
        .filter(|warning| matches!(warning, Warning::MostlyMissing { .. }));
    assert_eq!(left_out.count(), 2);
    let checks = [
        (
            "nothing broken",
            figures(&model, &plant.rows),
            (0.652, 0.066),
        ),
        (
            "every tenth sensor missing",
            figures(&model, &absent(10)),
            (0.514, 0.037),
        ),
        (
            "every fourth sensor missing",
            figures(&model, &absent(4)),
            (0.486, 0.024),
        ),
        (
            "a tenth of the cells missing",
            figures(&model, &holes),
            (0.652, 0.068),
        ),
        ("one sensor stuck", figures(&model, &stuck), (0.646, 0.054)),
        (
            "two sensors absent in training",
            figures(&partial, &plant.rows),
            (0.655, 0.068),
        ),
    ];
    for (name, found, expected) in checks {
        println!(
            "{name}: F1 {:.4} FAR {:.4}, reference {expected:?}",
            found.0, found.1
        );
        assert!(
            (found.0 - expected.0).abs() < 0.005 && (found.1 - expected.1).abs() < 0.005,
            "{name}: {found:?}"
        );
    }
    let mut state = model.fresh_state();
    model.score(&mut state, &stuck, plant.start - 1, plant.end);
    let names: Vec<_> = model
        .stuck_sensors(&state)
        .iter()
        .map(|sensor| sensor.to_string())
        .collect();
    assert_eq!(names, [plant.sensors[13].to_string()]);
}

#[test]
fn tennessee_eastman_is_judged_as_well_as_by_the_reference() {
    let Some(data) = data() else { return };
    let (sensors, rows) = read(&data.join("tep/train_d00.csv.gz"));
    let model = Model::fit(
        Training::in_memory(sensors, rows, Vec::new()),
        &Options::default(),
        &mut |_| {},
    )
    .unwrap();
    assert!(
        model.warnings()[0]
            .to_string()
            .starts_with("short training")
    );
    let mut paths: Vec<_> = std::fs::read_dir(data.join("tep"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.to_string_lossy().contains("_test"));
    paths.sort();
    let units: Vec<_> = paths
        .iter()
        .map(|path| {
            let (_, rows) = read(path);
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // The fault begins with row 161; test file 00 has none.
            let labels = if name.contains("-00") {
                Vec::new()
            } else {
                vec![Span {
                    start: rows.times[160],
                    end: *rows.times.last().unwrap(),
                }]
            };
            let scored = model.score(
                &mut model.fresh_state(),
                &rows,
                rows.times[0] - 1,
                *rows.times.last().unwrap(),
            );
            let found = evaluate(&model, &scored, &labels);
            (name, found.points, found.auc_pr)
        })
        .collect();
    let (area, f1) = group("TEP", &units);
    assert!(area >= 0.999 - 0.01 && f1 >= 0.980 - 0.01);
}

#[test]
fn the_application_servers_are_judged_as_well_as_by_the_reference() {
    let Some((area, f1)) = folders("asd") else {
        return;
    };
    assert!(area >= 0.320 - 0.01 && f1 >= 0.223 - 0.01);
}

/// The bar of 0.570 / 0.423 is for three machines, of which two are here; the reference gives 0.697 / 0.472 on these two.
#[test]
fn the_server_machines_are_judged_as_well_as_by_the_reference() {
    if !heavy("SMD") {
        return;
    }
    let Some((area, f1)) = folders("smd") else {
        return;
    };
    assert!(area >= 0.697 - 0.01 && f1 >= 0.472 - 0.01);
}

/// Trained on the first 30 % of engines 1 to 50, a step a day; engines 51 to 70 are labelled in their last 50 cycles.
#[test]
fn every_worn_engine_is_in_alarm_when_it_fails() {
    let Some(data) = data() else { return };
    let file = std::fs::File::open(data.join("cmapss/train_FD001_engines.txt.gz")).unwrap();
    let text = std::io::read_to_string(flate2::read::GzDecoder::new(file)).unwrap();
    const DAY: i64 = 86_400_000_000;
    let mut engines: Vec<Rows> = vec![
        Rows {
            sensors: 24,
            ..Rows::default()
        };
        71
    ];
    for line in text.lines() {
        let numbers: Vec<f64> = line
            .split_whitespace()
            .map(|cell| cell.parse().unwrap())
            .collect();
        if let Some(engine) = engines.get_mut(numbers[0] as usize) {
            engine.push(numbers[1] as i64 * DAY, &numbers[2..]);
        }
    }
    let sensors: Vec<Sensor> = (1..=24)
        .map(|n| Sensor::new("engine", format!("s{n}")))
        .collect();
    let mut history = Rows {
        sensors: 24,
        ..Rows::default()
    };
    for engine in &engines[1..=50] {
        for row in 0..engine.len() * 3 / 10 {
            history.push(history.len() as i64 * DAY, engine.row(row));
        }
        history.push(history.len() as i64 * DAY, &[f64::NAN; 24]);
    }
    let options = Options {
        rate_per_week: 1.0,
        ..Options::default()
    };
    let model = Model::fit(
        Training::in_memory(sensors, history, Vec::new()),
        &options,
        &mut |_| {},
    )
    .unwrap();
    let mut units = Vec::new();
    let (mut standing, mut early) = (0, 0);
    for (number, engine) in engines.iter().enumerate().skip(51) {
        let last = *engine.times.last().unwrap();
        let label = Span {
            start: engine.times[engine.len() - 50],
            end: last,
        };
        let scored = model.score(&mut model.fresh_state(), engine, 0, last);
        let found = evaluate(&model, &scored, &[label]);
        standing += usize::from(
            found
                .predicted
                .last()
                .is_some_and(|event| event.event.end == last),
        );
        early += found
            .predicted
            .iter()
            .filter(|event| event.event.end < last - 125 * DAY)
            .count();
        units.push((format!("engine {number}"), found.points, found.auc_pr));
    }
    let (area, f1) = group("C-MAPSS", &units);
    assert_eq!((standing, early), (20, 0));
    assert!(area >= 0.951 - 0.01 && f1 >= 0.78 - 0.01);
}
