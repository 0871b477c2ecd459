//! The detector on the evaluation data: conformance with the reference output, and accuracy per group with the protocol
//! under which the bar was measured (fit on the training rows, score the evaluation rows from a fresh state, the automatic
//! threshold, no point adjustment; F1 over all units of a group together, AUC-PR averaged over units).

use std::path::{Path, PathBuf};

use lookoutd::model::table::{Table, read_labels};
use lookoutd::model::{Model, Options, Rows, Sensor, Span, Training, timestamp};

/// The evaluation data, or nothing, said loudly, where it is absent.
fn data() -> Option<PathBuf> {
    let shared = std::env::var_os("LOOKOUTD_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
        PathBuf::from,
    );
    let data = shared.join("data/ad");
    if data.is_dir() {
        return Some(data);
    }
    eprintln!(
        "SKIPPED: no evaluation data at {}; set LOOKOUTD_SHARED",
        data.display()
    );
    None
}

fn read(path: &Path) -> (Vec<Sensor>, Rows) {
    let mut table = Table::open(path, None).unwrap();
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

#[test]
fn the_synthetic_plant_scores_like_the_reference() {
    let Some(data) = data() else { return };
    let unit = data.join("synthetic-plant");
    let (sensors, rows) = read(&unit.join("sensors.csv.gz"));
    let meta = json(&unit.join("meta.json"));
    let start = timestamp::parse(meta["eval_start"].as_str().unwrap()).unwrap();
    let labels: Vec<Span> = read_labels(&unit.join("labels.csv")).unwrap();
    let options = Options {
        off: Some("control\\motor-rpm<100".parse().unwrap()),
        ..Options::default()
    };
    let mut training = Training::in_memory(sensors.clone(), rows.clone(), labels);
    training.to = Some(start - 1);
    let model = Model::fit(training, &options, &mut |_| {}).unwrap();
    let expected = json(&unit.join("expected_model.json"));
    let threshold = expected["threshold_u"].as_f64().unwrap();
    assert!(
        (model.threshold() - threshold).abs() < 1e-9,
        "{} {threshold}",
        model.threshold()
    );

    let end = *rows.times.last().unwrap();
    let scored = model.score(&mut model.fresh_state(), &rows, start - 1, end);
    let (columns, scores) = read(&unit.join("expected_scores.csv.gz"));
    let column = |name: &str| {
        columns
            .iter()
            .position(|sensor| sensor.signal == name)
            .unwrap()
    };
    let (u, prediction, off) = (column("u"), column("prediction"), column("off"));
    assert_eq!(scored.len(), scores.len());
    let mut worst = 0.0_f64;
    let mut equal = 0;
    for (row, scored) in scored.iter().enumerate() {
        assert_eq!(scored.time, scores.times[row]);
        let expected = scores.row(row);
        worst = worst.max((scored.u - expected[u]).abs());
        equal += usize::from((expected[prediction] == 1.0) == scored.prediction);
        assert_eq!(
            expected[off] == 1.0,
            scored.reason == lookoutd::model::Reason::MachineOff
        );
    }
    println!(
        "largest difference of u {worst:e}, equal predictions {equal} of {}",
        scored.len()
    );
    assert!(worst <= 1e-6, "{worst}");
    assert!(equal as f64 >= 0.999 * scored.len() as f64);
}
