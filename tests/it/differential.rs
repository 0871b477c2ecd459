//! Differential: files as people have them, from a seed, give the rows that pandas and pyarrow read, or a refusal that names
//! the place. `tests/golden/odd_files.py` makes them: rows, labels, tag lists, components in several files, Parquet.
//!
//! Without `LOOKOUTD_PYTHON` it says loudly that it is skipped. `LOOKOUTD_DIFFERENTIAL=3600` goes on with new seeds for so
//! many seconds, `LOOKOUTD_DIFFERENTIAL_SEED=17` runs one. What it finds becomes a named test beside the code.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lookoutd::model::labels;
use lookoutd::model::table::Table;
use lookoutd::service::csv_rows::{Cell, CsvRows};
use lookoutd::service::history::{PartWriter, each_row};
use lookoutd::signal::TagList;
use serde_json::Value;

/// Files per seed.
const FILES: usize = 500;

type Row = (i64, Vec<Option<u64>>);

#[test]
fn odd_files_are_read_as_pandas_reads_them_or_refused_by_name() {
    let Some(python) = crate::skipped::python() else {
        return;
    };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seconds = number("LOOKOUTD_DIFFERENTIAL").unwrap_or_default();
    let until = Instant::now() + Duration::from_secs(seconds);
    let only = number("LOOKOUTD_DIFFERENTIAL_SEED");
    let mut seed = only.unwrap_or(1);
    loop {
        let directory = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/odd_files.py");
        let made = Command::new(&python)
            .arg(script)
            .arg(directory.path())
            .args([seed.to_string(), FILES.to_string()])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "seed {seed}: {errors}");
        let cases = std::fs::read(directory.path().join("cases.json")).unwrap();
        let cases: Vec<Value> = serde_json::from_slice(&cases).unwrap();
        assert_eq!(cases.len(), FILES);
        for case in &cases {
            let path = directory.path().join(case["file"].as_str().unwrap());
            let judged = match case["kind"].as_str().unwrap() {
                "csv" => csv(&path, case),
                "labels" => read_labels(&path, case),
                "tags" => tags(&path, case),
                "component" => component(&path, case),
                "parquet" => parquet(&path, case),
                other => Err(format!("no kind {other}")),
            };
            if let Err(problem) = judged {
                let bytes = std::fs::read(&path).unwrap();
                let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(3000)]).into_owned();
                panic!("seed {seed}, file {}: {problem}\n{shown}", case["file"]);
            }
        }
        if only.is_some() || Instant::now() >= until {
            return;
        }
        seed += 1;
    }
}

/// The rows that are expected, each value by its bits.
fn expected(case: &Value, which: &str) -> Vec<Row> {
    let bits = |value: &Value| {
        let text = value.as_str()?;
        Some(u64::from_str_radix(text, 16).unwrap())
    };
    let row = |row: &Value| {
        let cells = row[1].as_array().unwrap();
        (row[0].as_i64().unwrap(), cells.iter().map(bits).collect())
    };
    case[which].as_array().unwrap().iter().map(row).collect()
}

fn same(found: &[Row], expected: &[Row]) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{} rows, expected {}", found.len(), expected.len()));
    }
    match found
        .iter()
        .zip(expected)
        .find(|(found, expected)| found != expected)
    {
        None => Ok(()),
        Some((found, expected)) => Err(format!("row {found:x?}, expected {expected:x?}")),
    }
}

fn csv(path: &Path, case: &Value) -> Result<(), String> {
    let wanted = expected(case, "rows");
    let bytes = std::fs::read(path).unwrap();
    let file = match (CsvRows::open(bytes.as_slice()), case["refuse"].as_str()) {
        (Err(error), Some(word)) if error.to_string().contains(word) => return Ok(()),
        (Err(error), refuse) => return Err(format!("refused: {error}; expected {refuse:?}")),
        (Ok(_), Some(word)) => return Err(format!("taken; expected to be refused as {word}")),
        (Ok(file), None) => file,
    };
    let columns: Vec<&str> = case["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    if file.time() != case["time"] || file.sensors() != columns {
        return Err(format!(
            "the header is {}, {:?}",
            file.time(),
            file.sensors()
        ));
    }
    let (mut rows, mut bad_times) = (Vec::new(), 0);
    let misfits = file.for_each(|time, cells| match time {
        _ if !cells.fits() => {}
        None => bad_times += 1,
        Some(time) => {
            let value = |column| match cells.get(column) {
                Cell::Number(number) => Some(number.to_bits()),
                Cell::Missing | Cell::Invalid => None,
            };
            rows.push((time, (0..columns.len()).map(value).collect()));
        }
    });
    let misfits = misfits.map_err(|error| error.to_string())?;
    same(&rows, &wanted)?;
    let lines: Vec<u64> = case["misfits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_u64().unwrap())
        .collect();
    let first = misfits.first.as_ref().map(|(line, _)| *line);
    if misfits.count != lines.len() as u64
        || first != lines.first().copied()
        || bad_times != case["bad_times"]
    {
        return Err(format!(
            "{misfits} ({} of {lines:?}), {bad_times} bad times",
            misfits.count
        ));
    }
    // A row of a history counts once its line has ended.
    if !bytes.ends_with(b"\n") && !bytes.ends_with(b"\r") {
        std::fs::write(path, [&bytes[..], b"\n"].concat()).unwrap();
    }
    as_training_table(path, expected(case, "table"), &columns)
}

/// The same file as a history to train on: the same rows, or a refusal with line or column.
fn as_training_table(path: &Path, mut wanted: Vec<Row>, columns: &[&str]) -> Result<(), String> {
    match table(path, None) {
        Err(error) => match ["line ", "the header", "column", "no rows"]
            .iter()
            .any(|place| error.contains(place))
        {
            true => Ok(()),
            false => Err(format!("the refusal names no place: {error}")),
        },
        Ok((_, rows)) => {
            // Whatever its order; of equal times the last counts.
            wanted.sort_by_key(|(time, _)| *time);
            let mut last = Vec::<Row>::new();
            for row in wanted.drain(..) {
                last.pop_if(|(time, _)| *time == row.0);
                last.push(row);
            }
            same(&rows, &last).map_err(|problem| format!("as a table of {columns:?}: {problem}"))
        }
    }
}

fn table(path: &Path, tags: Option<&TagList>) -> Result<(Vec<String>, Vec<Row>), String> {
    let read = || -> anyhow::Result<_> {
        let mut table = Table::open(path, tags, &Default::default())?;
        let mut rows = Vec::new();
        while let Some(block) = table.next_block()? {
            for (index, time) in block.times.iter().enumerate() {
                let bits = |value: &f64| (!value.is_nan()).then(|| value.to_bits());
                rows.push((*time, block.row(index).iter().map(bits).collect()));
            }
        }
        let names = table.sensors().iter().map(|sensor| sensor.signal.clone());
        Ok((names.collect(), rows))
    };
    read().map_err(|error| format!("{error:#}"))
}

fn read_labels(path: &Path, case: &Value) -> Result<(), String> {
    let read = labels::read(std::fs::File::open(path).unwrap());
    match (read, case["bad_line"].as_u64()) {
        (Err(error), Some(line)) if error.to_string().starts_with(&format!("line {line}:")) => {
            Ok(())
        }
        (Err(error), line) => Err(format!("refused: {error}; expected {line:?}")),
        (Ok(_), Some(line)) => Err(format!("taken; expected to be refused for line {line}")),
        (Ok(found), None) => {
            let found: Vec<Value> = found
                .iter()
                .map(|span| serde_json::json!([span.start, span.end]))
                .collect();
            match Value::Array(found) == case["spans"] {
                true => Ok(()),
                false => Err("other labels".to_owned()),
            }
        }
    }
}

fn tags(path: &Path, case: &Value) -> Result<(), String> {
    let read = TagList::parse(&std::fs::read(path).unwrap(), "tags.csv");
    match (read, case["bad_line"].as_u64()) {
        (Err(error), Some(line)) if error.to_string().starts_with(&format!("tags.csv:{line}:")) => {
            Ok(())
        }
        (Err(error), line) => Err(format!("refused: {error}; expected {line:?}")),
        (Ok(_), Some(line)) => Err(format!("taken; expected to be refused for line {line}")),
        (Ok(found), None) => {
            let mut found: Vec<Value> = found
                .components
                .iter()
                .flat_map(|component| {
                    let signals = component.signals.iter().zip(&component.units);
                    signals.map(|(signal, unit)| serde_json::json!([signal, unit, component.name]))
                })
                .collect();
            let mut wanted = case["tags"].as_array().unwrap().clone();
            for list in [&mut found, &mut wanted] {
                list.sort_by_key(|tag| tag[0].as_str().unwrap().to_owned());
            }
            match found == wanted {
                true => Ok(()),
                false => Err(format!("found {found:?}")),
            }
        }
    }
}

/// Files of one component, merged by time.
fn component(path: &Path, case: &Value) -> Result<(), String> {
    let columns: Vec<String> = case["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let mut writer = PartWriter::create(directory.path(), 0, "c", &columns);
    for text in std::fs::read(path).unwrap().split(|byte| *byte == 0) {
        let file = CsvRows::open(text).unwrap();
        let place = |name: &String| file.sensors().iter().position(|known| known == name);
        let (places, of): (Vec<usize>, Vec<usize>) = columns
            .iter()
            .enumerate()
            .filter_map(|(sensor, name)| Some((sensor, place(name)?)))
            .unzip();
        writer.begin(&places).unwrap();
        file.for_each(|time, cells| {
            let value = |column: &usize| match cells.get(*column) {
                Cell::Number(number) => number,
                Cell::Missing | Cell::Invalid => f64::NAN,
            };
            let values: Vec<f64> = of.iter().map(value).collect();
            writer.push(time.unwrap(), &values).unwrap();
        })
        .unwrap();
    }
    let part = writer.finish().unwrap();
    let mut rows = Vec::new();
    each_row(directory.path(), 0, &part, |time, values| {
        let bits = |value: &f64| (!value.is_nan()).then(|| value.to_bits());
        rows.push((time, values.iter().map(bits).collect()));
    })
    .unwrap();
    same(&rows, &expected(case, "rows"))
}

fn parquet(path: &Path, case: &Value) -> Result<(), String> {
    let mut list = String::from("Tag,UOM,Subsystem\n");
    for name in case["columns"].as_array().unwrap() {
        list += &format!("{},,c\n", name.as_str().unwrap());
    }
    let tags = TagList::parse(list.as_bytes(), "tags.csv").unwrap();
    let (_, rows) = table(path, Some(&tags))?;
    same(&rows, &expected(case, "rows"))
}
