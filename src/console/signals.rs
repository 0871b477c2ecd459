//! The signals themselves, read back from the input files in the bucket: for the selected event, and for coverage.
//!
//! Guarantees: a bounded number of files is read, a few at a time, and only the wanted columns are kept. A chart gets the
//! smallest and the largest value of each stretch, so that no spike is lost. A file that is absent is a gap.

use aws_sdk_s3::Client;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;

use crate::executions::{Input, seconds};
use crate::s3::{Bucket, S3Error};
use crate::signal::{Cadence, Window, timestamp};

/// Files read at once.
const AT_ONCE: usize = 6;
/// Points of a chart.
const POINTS: usize = 1_200;
/// A file larger than this is not read for the console.
const LARGEST: usize = 32 << 20;

/// Some signals over time, aligned.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Traces {
    /// Seconds since 1970.
    pub t: Vec<f64>,
    /// `component\sensor` and its values; `null` where there is none.
    pub signals: Vec<(String, Vec<Option<f64>>)>,
    /// Input files that were wanted and absent.
    pub absent: usize,
}

/// What one sensor did over the windows that were read.
#[derive(Debug, Default, PartialEq)]
pub struct Seen {
    /// The sensor's column.
    pub sensor: String,
    /// Rows with a number.
    pub values: usize,
    /// Rows without one.
    pub missing: usize,
    /// The smallest.
    pub low: f64,
    /// The largest.
    pub high: f64,
    /// The last.
    pub last: Option<f64>,
}

impl Seen {
    /// Whether it had values and they were all the same.
    pub fn is_stuck(&self) -> bool {
        self.values > 1 && self.low == self.high
    }
}

/// One column's rows: time and value.
type Column = Vec<(f64, Option<f64>)>;

/// The signals `wanted` (as `component\sensor`) over the windows from `from` to `to`, at most `most` windows.
pub async fn traces(
    client: &Client,
    input: &Input,
    cadence: Cadence,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    wanted: &[String],
    most: usize,
) -> Result<Traces, S3Error> {
    let bucket = Bucket::new(client.clone(), &input.bucket);
    let mut windows = vec![Window::containing(from, cadence)];
    while windows.len() < most && windows[windows.len() - 1].end() <= to {
        windows.push(windows[windows.len() - 1].next());
    }
    let mut traces = Traces::default();
    let mut components: Vec<(&str, Vec<&str>)> = Vec::new();
    for name in wanted {
        let Some((component, sensor)) = name.split_once('\\') else {
            continue;
        };
        match components.iter_mut().find(|(known, _)| *known == component) {
            Some((_, sensors)) => sensors.push(sensor),
            None => components.push((component, vec![sensor])),
        }
    }
    let mut columns: Vec<(String, Column)> = Vec::new();
    for (component, sensors) in components {
        let keys: Vec<String> = windows
            .iter()
            .map(|window| {
                format!(
                    "{}{}",
                    input.prefix,
                    input.naming.file_name(component, window.start())
                )
            })
            .collect();
        let files: Vec<_> = stream::iter(keys)
            .map(|key| {
                let bucket = bucket.clone();
                async move { bucket.get(&key).await }
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        let mut found: Vec<Column> = vec![Vec::new(); sensors.len()];
        for file in files {
            match file? {
                Some(bytes) => pick(&bytes, &sensors, &mut found),
                None => traces.absent += 1,
            }
        }
        let names = sensors
            .iter()
            .map(|sensor| format!("{component}\\{sensor}"));
        columns.extend(names.zip(found));
    }
    align(columns, &mut traces);
    Ok(traces)
}

/// What each sensor of one component did over `windows`; `None` for a component whose files are all absent.
pub async fn seen(
    bucket: &Bucket,
    input_prefix: &str,
    naming: &crate::signal::NameFormat,
    component: &str,
    windows: &[Window],
) -> Result<Option<Vec<Seen>>, S3Error> {
    let mut all: Option<Vec<Seen>> = None;
    for window in windows {
        let key = format!(
            "{input_prefix}{}",
            naming.file_name(component, window.start())
        );
        if let Some(bytes) = bucket.get(&key).await? {
            count(&bytes, all.get_or_insert_default());
        }
    }
    Ok(all)
}

/// Takes the wanted columns out of one input file.
fn pick(bytes: &[u8], sensors: &[&str], into: &mut [Column]) {
    if bytes.len() > LARGEST {
        return;
    }
    let mut reader = csv::Reader::from_reader(bytes);
    let Ok(header) = reader.headers().cloned() else {
        return;
    };
    let places: Vec<Option<usize>> = sensors
        .iter()
        .map(|sensor| header.iter().position(|name| name == *sensor))
        .collect();
    for record in reader.records().filter_map(Result::ok) {
        let Some(time) = record.get(0).and_then(time) else {
            continue;
        };
        for (column, place) in into.iter_mut().zip(&places) {
            let value = place.and_then(|place| record.get(place)).and_then(number);
            column.push((seconds(time), value));
        }
    }
}

fn count(bytes: &[u8], seen: &mut Vec<Seen>) {
    if bytes.len() > LARGEST {
        return;
    }
    let mut reader = csv::Reader::from_reader(bytes);
    let Ok(header) = reader.headers().cloned() else {
        return;
    };
    if seen.is_empty() {
        seen.extend(header.iter().skip(1).map(|sensor| Seen {
            sensor: sensor.to_owned(),
            ..Seen::default()
        }));
    }
    for record in reader.records().filter_map(Result::ok) {
        for (sensor, text) in seen.iter_mut().zip(record.iter().skip(1)) {
            match number(text) {
                None => sensor.missing += 1,
                Some(value) => {
                    let first = sensor.values == 0;
                    sensor.low = if first { value } else { sensor.low.min(value) };
                    sensor.high = if first { value } else { sensor.high.max(value) };
                    sensor.values += 1;
                    sensor.last = Some(value);
                }
            }
        }
    }
}

/// Puts the columns on one time axis: the smallest and the largest value of each stretch, half a stretch apart.
fn align(columns: Vec<(String, Column)>, traces: &mut Traces) {
    let times = columns
        .iter()
        .flat_map(|(_, column)| column.iter().map(|(time, _)| *time));
    let (first, last) = times.fold((f64::MAX, f64::MIN), |(first, last), time| {
        (first.min(time), last.max(time))
    });
    if first > last {
        return;
    }
    let longest = columns
        .iter()
        .map(|(_, column)| column.len())
        .max()
        .unwrap_or(1);
    let stretches = longest.clamp(1, POINTS / 2);
    let width = ((last - first) / stretches as f64).max(f64::MIN_POSITIVE);
    for stretch in 0..stretches {
        let at = first + stretch as f64 * width;
        traces.t.extend([at, at + width / 2.0]);
    }
    for (name, column) in columns {
        let mut values = vec![None; stretches * 2];
        for (time, value) in column {
            let Some(value) = value else { continue };
            let at = (((time - first) / width) as usize).min(stretches - 1) * 2;
            values[at] = Some(values[at].map_or(value, |low: f64| low.min(value)));
            values[at + 1] = Some(values[at + 1].map_or(value, |high: f64| high.max(value)));
        }
        traces.signals.push((name, values));
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim()
        .parse()
        .ok()
        .filter(|value: &f64| value.is_finite())
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(timestamp::parse(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spike_survives_thinning_and_a_missing_cell_stays_missing() {
        let mut text = String::from("Timestamp,a,b\n");
        for second in 0..3_600 {
            let a = if second == 1_234 { 99.0 } else { 1.0 };
            text.push_str(&format!(
                "2026-01-01T00:{:02}:{:02}.000000,{a},\n",
                second / 60,
                second % 60
            ));
        }
        let mut columns = vec![Column::new(), Column::new()];
        pick(text.as_bytes(), &["a", "b"], &mut columns);
        let mut columns = columns.into_iter();
        let mut traces = Traces::default();
        align(
            vec![
                ("c\\a".into(), columns.next().unwrap()),
                ("c\\b".into(), columns.next().unwrap()),
            ],
            &mut traces,
        );
        assert_eq!(traces.t.len(), POINTS);
        assert!(traces.t.is_sorted());
        let highest = traces.signals[0]
            .1
            .iter()
            .flatten()
            .copied()
            .fold(f64::MIN, f64::max);
        assert_eq!(highest, 99.0);
        assert!(traces.signals[1].1.iter().all(Option::is_none));
    }

    #[test]
    fn stuck_and_missing_sensors_are_told_apart() {
        let mut seen = Vec::new();
        count(
            b"Timestamp,a,b,c\n2026-01-01T00:00:00,1,5,\n2026-01-01T00:00:01,2,5,\n",
            &mut seen,
        );
        let told: Vec<_> = seen
            .iter()
            .map(|s| (s.values, s.missing, s.is_stuck()))
            .collect();
        assert_eq!(told, [(2, 0, false), (2, 0, true), (0, 2, false)]);
    }
}
