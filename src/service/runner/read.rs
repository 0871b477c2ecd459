//! From input files to the rows of a window.
//!
//! Guarantees: rows with `start < time <= end` and no others; where one instant comes twice, the later row of a file
//! wins over the earlier and the file with the later stamp over the one before; rows may come in any order. The limits of
//! contract 3.8 (1 MB and 60 rows per minute of the window, 60 files per component) bound what is read. Whatever is wrong
//! is told as the reason the execution failed.

use std::collections::HashMap;

use aws_sdk_s3::Client;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::locate::{Found, MOST_FILES, Place};
use crate::model::{Rows, Sensor};
use crate::service::csv_rows::{Cell, CsvRows, Misfits};
use crate::service::s3_problem::{self, Problem};
use crate::signal::Window;

/// Downloads at once for one execution, of which many run at once.
const PARALLEL_GETS: usize = 8;
/// Raw input per minute of the window.
const BYTES_PER_MINUTE: u64 = 1_000_000;
/// Rows per minute of the window.
const ROWS_PER_MINUTE: i64 = 60;

/// The sensors of one component: their positions among the model's sensors.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Component name.
    pub component: String,
    /// `signal, column among the model's sensors`.
    pub signals: Vec<(String, usize)>,
}

/// What one file gave.
struct Content {
    rows: Vec<(i64, Vec<f64>)>,
    invalid_times: usize,
    /// Rows that do not fit the header: none of their cells can be trusted, so they are left out.
    misfits: Misfits,
    first_us: i64,
    last_us: i64,
}

/// Groups the model's sensors by component, in the order of first appearance.
pub fn wanted(sensors: &[Sensor]) -> Vec<Wanted> {
    let mut groups: Vec<Wanted> = Vec::new();
    for (column, sensor) in sensors.iter().enumerate() {
        let entry = (sensor.signal.clone(), column);
        match groups
            .iter_mut()
            .find(|group| group.component == sensor.component)
        {
            Some(group) => group.signals.push(entry),
            None => groups.push(Wanted {
                component: sensor.component.clone(),
                signals: vec![entry],
            }),
        }
    }
    groups
}

/// Downloads and merges the files of a window; `Err` is the reason the execution fails with.
pub async fn rows(
    s3: &Client,
    place: &Place,
    wanted: &[Wanted],
    files: &[Vec<Found>],
    window: Window,
    sensors: usize,
) -> Result<Rows, Problem> {
    let minutes = window.cadence().minutes();
    let most_bytes = minutes as u64 * BYTES_PER_MINUTE;
    for (group, found) in wanted.iter().zip(files) {
        if found.len() > MOST_FILES {
            return Err(Problem::from(format!(
                "Component '{}' has {} files for this window, the limit is {MOST_FILES}: write fewer, larger files",
                group.component,
                found.len()
            )));
        }
    }
    if let Some(large) = files.iter().flatten().find(|file| file.size > most_bytes) {
        return Err(too_large(&large.key, large.size, window, most_bytes).into());
    }
    let mut downloads = Vec::new();
    for (index, found) in files.iter().enumerate() {
        for file in found {
            downloads.push(async move {
                Ok::<_, Problem>((index, file, get(s3, &place.bucket, &file.key).await?))
            });
        }
    }
    let bodies: Vec<(usize, &Found, Bytes)> = stream::iter(downloads)
        .buffered(PARALLEL_GETS)
        .try_collect()
        .await?;

    let mut merged = Merge::new(sensors);
    let mut without: Vec<String> = Vec::new();
    let mut total_bytes = 0;
    for (index, group) in wanted.iter().enumerate() {
        let (mut kept, mut seen) = (0, Vec::new());
        for (_, file, body) in bodies.iter().filter(|(of, _, _)| *of == index) {
            let content = parse(body, group, window).map_err(|problem| {
                format!("File 's3://{}/{}': {problem}", place.bucket, file.key)
            })?;
            if !content.rows.is_empty() {
                total_bytes += file.size;
            }
            kept += content.rows.len();
            if content.misfits.count > 0 {
                tracing::warn!(
                    key = file.key,
                    rows = content.misfits.count,
                    first = %content.misfits,
                    "rows that do not fit their file's header were left out"
                );
            }
            seen.push(describe(file, &content));
            for (time, values) in content.rows {
                merged.put(time, group, &values);
            }
        }
        if kept == 0 {
            without.push(format!("{} ({})", group.component, seen.join("; ")));
        }
    }
    if total_bytes > most_bytes {
        return Err(too_large("the input", total_bytes, window, most_bytes).into());
    }
    if !without.is_empty() {
        return Err(Problem::from(format!(
            "Could not find data for sensor {} within expected range of ({}, {}]. Row timestamps must be UTC. Components \
             without a row in the window: {}",
            without[0].split(" (").next().unwrap_or_default(),
            window.start().format("%Y-%m-%dT%H:%M:%SZ"),
            window.end().format("%Y-%m-%dT%H:%M:%SZ"),
            without.join(", ")
        )));
    }
    let rows = merged.finish();
    if rows.times.len() as i64 > minutes * ROWS_PER_MINUTE {
        return Err(Problem::from(format!(
            "The window has {} rows, the limit for {} is {}: send at most one row per second",
            rows.times.len(),
            window.cadence(),
            minutes * ROWS_PER_MINUTE
        )));
    }
    Ok(rows)
}

async fn get(s3: &Client, bucket: &str, key: &str) -> Result<Bytes, Problem> {
    let problem = |cause: String, passes| Problem {
        reason: format!("Could not read 's3://{bucket}/{key}': {cause}"),
        passes,
    };
    let object = s3.get_object().bucket(bucket).key(key).send().await;
    let object =
        object.map_err(|error| problem(s3_problem::of(&error), s3_problem::passes(&error)))?;
    if object.e_tag().is_none() {
        return Err(problem(s3_problem::NOT_A_STORE.to_owned(), true));
    }
    let body = object
        .body
        .collect()
        .await
        .map_err(|error| problem(error.to_string(), true))?;
    Ok(body.into_bytes())
}

fn parse(body: &[u8], group: &Wanted, window: Window) -> Result<Content, String> {
    let file = CsvRows::open(body).map_err(|error| error.to_string())?;
    let position = |signal: &str| file.sensors().iter().position(|column| column == signal);
    let columns: Vec<Option<usize>> = group
        .signals
        .iter()
        .map(|(signal, _)| position(signal))
        .collect();
    let absent: Vec<&str> = group
        .signals
        .iter()
        .zip(&columns)
        .filter(|(_, column)| column.is_none())
        .map(|((signal, _), _)| signal.as_str())
        .collect();
    if !absent.is_empty() {
        return Err(format!(
            "sensor {} of component '{}' is no column of the file, which has: {}. Header names must equal the schema's.",
            absent.join(", "),
            group.component,
            file.sensors().join(", ")
        ));
    }
    let columns: Vec<usize> = columns.into_iter().flatten().collect();
    let (start, end) = (
        window.start().timestamp_micros(),
        window.end().timestamp_micros(),
    );
    let mut content = Content {
        rows: Vec::new(),
        invalid_times: 0,
        misfits: Misfits::default(),
        first_us: i64::MAX,
        last_us: i64::MIN,
    };
    let misfits = file.for_each(|time, cells| {
        if !cells.fits() {
            return;
        }
        let Some(time) = time else {
            content.invalid_times += 1;
            return;
        };
        content.first_us = content.first_us.min(time);
        content.last_us = content.last_us.max(time);
        if start < time && time <= end {
            let value = |column: &usize| match cells.get(*column) {
                Cell::Number(number) => number,
                Cell::Missing | Cell::Invalid => f64::NAN,
            };
            content
                .rows
                .push((time, columns.iter().map(value).collect()));
        }
    });
    content.misfits = misfits.map_err(|error| error.to_string())?;
    Ok(content)
}

/// What a file without rows in the window has instead.
fn describe(file: &Found, content: &Content) -> String {
    let shown = |micros: i64| {
        let time = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
        time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
    };
    let name = file.key.rsplit('/').next().unwrap_or(&file.key);
    match (content.first_us <= content.last_us, content.invalid_times) {
        _ if content.misfits.count > 0 => format!(
            "{name} has {} rows that do not fit its header, {}",
            content.misfits.count, content.misfits
        ),
        (true, _) => format!(
            "{name} has rows from {} to {}",
            shown(content.first_us),
            shown(content.last_us)
        ),
        (false, 0) => format!("{name} has no rows"),
        (false, count) => format!("{name} has {count} rows whose first column is no timestamp"),
    }
}

fn too_large(what: &str, size: u64, window: Window, most: u64) -> String {
    format!(
        "The input is too large: {what} has {size} bytes, the limit for {} is {most}",
        window.cadence()
    )
}

/// Rows by time, cell by cell.
struct Merge {
    sensors: usize,
    index: HashMap<i64, usize>,
    values: Vec<f64>,
}

impl Merge {
    fn new(sensors: usize) -> Merge {
        Merge {
            sensors,
            index: HashMap::new(),
            values: Vec::new(),
        }
    }

    /// Puts one component's cells of one instant; they replace what was there.
    fn put(&mut self, time: i64, group: &Wanted, values: &[f64]) {
        let next = self.index.len();
        let row = *self.index.entry(time).or_insert(next);
        if row == next {
            self.values.resize((next + 1) * self.sensors, f64::NAN);
        }
        for ((_, column), value) in group.signals.iter().zip(values) {
            self.values[row * self.sensors + column] = *value;
        }
    }

    fn finish(self) -> Rows {
        let mut order: Vec<(i64, usize)> = self.index.into_iter().collect();
        order.sort_unstable();
        let mut rows = Rows {
            times: Vec::new(),
            values: Vec::with_capacity(self.values.len()),
            sensors: self.sensors,
        };
        for (time, row) in order {
            rows.times.push(time);
            rows.values
                .extend_from_slice(&self.values[row * self.sensors..(row + 1) * self.sensors]);
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Cadence;

    fn window() -> Window {
        Window::new("2022-05-13T12:10:00Z".parse().unwrap(), Cadence::Pt5m).unwrap()
    }

    fn group() -> Wanted {
        wanted(&[
            Sensor::new("pump", "b"),
            Sensor::new("fan", "x"),
            Sensor::new("pump", "a"),
        ])
        .remove(0)
    }

    #[test]
    fn the_start_is_out_and_the_end_is_in() {
        let file = "Timestamp,a,b\n2022-05-13 12:15:00,1,2\n2022-05-13 12:15:00.000001,9,9\n2022-05-13 12:10:00,9,9\n\
                    2022-05-13 12:10:00.000001,3,4\n";
        let content = parse(file.as_bytes(), &group(), window()).unwrap();
        let values: Vec<Vec<f64>> = content.rows.into_iter().map(|(_, values)| values).collect();
        assert_eq!(values, [vec![2.0, 1.0], vec![4.0, 3.0]]);
    }

    #[test]
    fn rows_that_do_not_fit_are_left_out_and_named_where_no_other_is_there() {
        let good = "2022-05-13 12:11:00,1,2\n";
        for bad in [
            "2022-05-13 12:12:00,1,5,2,5\n",
            "2022-05-13 12:12:00,\"1,2\n",
        ] {
            let parsed = |rows: &str| {
                parse(
                    format!("Timestamp,a,b\n{rows}").as_bytes(),
                    &group(),
                    window(),
                )
                .unwrap()
            };
            let content = parsed(&format!("{bad}{good}"));
            assert_eq!((content.rows.len(), content.misfits.count), (1, 1));
            let content = parsed(&format!("{bad}{bad}"));
            assert!(content.rows.is_empty());
            let file = Found {
                key: "in/pump.csv".into(),
                size: 0,
                stamp_us: 0,
            };
            let told = describe(&file, &content);
            assert!(
                told.contains("pump.csv has 2 rows") && told.contains("line 2: "),
                "{told}"
            );
        }
    }

    #[test]
    fn the_last_of_duplicate_rows_wins_and_rows_come_out_sorted_in_model_order() {
        let groups = wanted(&[
            Sensor::new("pump", "b"),
            Sensor::new("fan", "x"),
            Sensor::new("pump", "a"),
        ]);
        assert_eq!(groups.len(), 2);
        let mut merge = Merge::new(3);
        merge.put(20, &groups[0], &[1.0, 2.0]);
        merge.put(10, &groups[0], &[5.0, 6.0]);
        merge.put(20, &groups[0], &[3.0, 4.0]);
        merge.put(20, &groups[1], &[7.0]);
        let rows = merge.finish();
        assert_eq!(rows.times, [10, 20]);
        assert_eq!(rows.row(1), [3.0, 7.0, 4.0]);
        assert!(rows.row(0)[1].is_nan());
    }

    #[test]
    fn an_absent_column_is_named_with_what_the_file_has() {
        let problem = parse(b"time,a,c\n", &group(), window()).err().unwrap();
        assert!(
            problem.contains("sensor b of component 'pump'") && problem.contains("a, c"),
            "{problem}"
        );
    }
}
