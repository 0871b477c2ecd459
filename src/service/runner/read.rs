//! From input files to the rows of a window.
//!
//! Guarantees: rows with `start < time <= end` and no others; where one instant comes twice, the later row of a file
//! wins over the earlier and the file with the later stamp over the one before; rows may come in any order. The limits of
//! contract 3.8 (1 MB and 60 rows per minute of the window, 60 files per component) bound what is read, and hold by the sizes
//! of the listing before anything is fetched. A file that cannot be read, or is over a limit, fails the windows whose rows
//! would have been in it and no neighbour. Whatever is wrong is told as the reason the execution failed.
//!
//! Fetching is for the runtime's threads, [`merge`] is work for a blocking one.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::locate::{Found, MOST_FILES, Place};
use crate::model::events::joins;
use crate::model::{Rows, Sensor};
use crate::s3::Bucket;
use crate::service::csv_rows::{Cell, CsvRows, Misfits};
use crate::service::s3_problem::Problem;
use crate::service::store::executions::{Failed, FailureKind};
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

/// A file that was found, and its bytes or why they are not read.
pub struct Fetched {
    file: Found,
    body: Result<Bytes, Failed>,
}

/// Which window's stamps a file has: names are stamped with the start of a window or its end, so any length of a cadence of
/// them is the input of one window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stamps {
    Before,
    Own,
    After,
}

impl Stamps {
    fn of(file: &Found, window: Window) -> Stamps {
        match file.stamp_us {
            stamp if stamp < window.start().timestamp_micros() => Stamps::Before,
            stamp if stamp < window.end().timestamp_micros() => Stamps::Own,
            _ => Stamps::After,
        }
    }
}

/// Downloads the files of each component, as far as they are within the limits. A fault of the store that may pass is one of
/// the execution; a file that the store refuses for good is that file's.
pub async fn fetch(
    bucket: &Bucket,
    files: Vec<Vec<Found>>,
    window: Window,
) -> Result<Vec<Vec<Fetched>>, Problem> {
    let refused = over_the_limits(&files, window);
    let mut fetched: Vec<Vec<Fetched>> = Vec::with_capacity(files.len());
    let mut downloads = Vec::new();
    for (index, found) in files.into_iter().enumerate() {
        let mut of_one = Vec::with_capacity(found.len());
        for file in found {
            match refused(index, &file) {
                Some(failed) => of_one.push(Fetched {
                    file,
                    body: Err(failed),
                }),
                None => {
                    let place = (index, of_one.len());
                    let key = file.key.clone();
                    downloads.push(async move { Ok((place, get(bucket, &key).await?)) });
                    of_one.push(Fetched {
                        file,
                        body: Ok(Bytes::new()),
                    });
                }
            }
        }
        fetched.push(of_one);
    }
    let bodies: Vec<((usize, usize), Result<Bytes, Failed>)> = stream::iter(downloads)
        .buffer_unordered(PARALLEL_GETS)
        .try_collect::<Vec<_>>()
        .await
        .map_err(|problem: Problem| problem)?;
    for ((component, nth), body) in bodies {
        if let Some(file) = fetched
            .get_mut(component)
            .and_then(|files| files.get_mut(nth))
        {
            file.body = body;
        }
    }
    Ok(fetched)
}

/// Which files are not fetched, by the listing's sizes: one that is too large alone, and a window's worth of stamps with more
/// files or bytes than a window may have.
fn over_the_limits(
    files: &[Vec<Found>],
    window: Window,
) -> impl Fn(usize, &Found) -> Option<Failed> + use<> {
    let most_bytes = most_bytes(window);
    let mut bytes = [0_u64; 3];
    let mut counts = vec![[0_usize; 3]; files.len()];
    for (index, found) in files.iter().enumerate() {
        for file in found {
            let stamps = Stamps::of(file, window) as usize;
            bytes[stamps] += file.size;
            counts[index][stamps] += 1;
        }
    }
    move |index, file| {
        let stamps = Stamps::of(file, window) as usize;
        let count = counts[index][stamps];
        let text = if file.size > most_bytes {
            too_large(&file.key, file.size, window, most_bytes)
        } else if bytes[stamps] > most_bytes {
            too_large("the input", bytes[stamps], window, most_bytes)
        } else if count > MOST_FILES {
            format!(
                "it has {count} files for this window, the limit is {MOST_FILES}: write fewer, larger files"
            )
        } else {
            return None;
        };
        Some(Failed::new(FailureKind::InputTooLarge, text))
    }
}

async fn get(bucket: &Bucket, key: &str) -> Result<Result<Bytes, Failed>, Problem> {
    let what = format!("Could not read 's3://{}/{key}'", bucket.name());
    match bucket.fetch(key).await {
        Ok(Some(object)) => Ok(Ok(object.bytes)),
        Ok(None) => Ok(Err(Failed::new(
            FailureKind::Store,
            format!("{what}: it was listed and is not there any more"),
        ))),
        Err(error) => {
            let problem = Problem::store(what, &error);
            if problem.passes {
                return Err(problem);
            }
            Ok(Err(problem.failed))
        }
    }
}

/// Merges the files of a window; `Err` is the reason the execution fails with.
pub fn merge(
    place: &Place,
    wanted: &[Wanted],
    files: Vec<Vec<Fetched>>,
    window: Window,
    sensors: usize,
) -> Result<Rows, Problem> {
    let mut merged = Merge::new(sensors);
    let mut without: Vec<String> = Vec::new();
    let mut total_bytes = 0;
    for (group, files) in wanted.iter().zip(files) {
        let mut component = Component::default();
        for Fetched { file, body } in files {
            let content = body.and_then(|body| {
                parse(&body, group, window).map_err(|problem| {
                    let text = format!("File 's3://{}/{}': {problem}", place.bucket, file.key);
                    Failed::new(FailureKind::Input, text)
                })
            });
            let content = match content {
                Ok(content) => content,
                Err(failed) => {
                    component.unread.push((file, failed));
                    continue;
                }
            };
            if !content.rows.is_empty() {
                total_bytes += file.size;
            }
            if content.misfits.count > 0 {
                tracing::warn!(
                    key = file.key,
                    rows = content.misfits.count,
                    first = %content.misfits,
                    "rows that do not fit their file's header were left out"
                );
            }
            component.saw(&file, &content);
            for (time, values) in content.rows {
                component.times.push(time);
                merged.put(time, group, &values);
            }
        }
        if let Some(failed) = component.lacks(window) {
            return Err(Problem {
                failed: Failed {
                    kind: failed.kind,
                    reason: match failed.kind {
                        FailureKind::InputTooLarge => {
                            format!("Component '{}': {}", group.component, failed.reason)
                        }
                        _ => failed.reason,
                    },
                },
                passes: false,
            });
        }
        if component.times.is_empty() {
            for (_, failed) in component.unread {
                if !component.seen.contains(&failed.reason) {
                    component.seen.push(failed.reason);
                }
            }
            without.push(format!(
                "{} ({})",
                group.component,
                component.seen.join("; ")
            ));
        }
    }
    let most_bytes = most_bytes(window);
    if total_bytes > most_bytes {
        return Err(Problem::new(
            FailureKind::InputTooLarge,
            too_large("the input", total_bytes, window, most_bytes),
        ));
    }
    if !without.is_empty() {
        return Err(Problem::new(
            FailureKind::NoRows,
            format!(
                "Could not find data for sensor {} within expected range of ({}, {}]. Row timestamps must be UTC. \
                 Components without a row in the window: {}",
                without[0].split(" (").next().unwrap_or_default(),
                window.start().format("%Y-%m-%dT%H:%M:%SZ"),
                window.end().format("%Y-%m-%dT%H:%M:%SZ"),
                without.join(", ")
            ),
        ));
    }
    let rows = merged.finish();
    let most_rows = window.cadence().minutes() * ROWS_PER_MINUTE;
    if rows.times.len() as i64 > most_rows {
        return Err(Problem::new(
            FailureKind::InputTooLarge,
            format!(
                "The window has {} rows, the limit for {} is {most_rows}: send at most one row per second",
                rows.times.len(),
                window.cadence(),
            ),
        ));
    }
    Ok(rows)
}

/// What the files of one component gave.
#[derive(Default)]
struct Component {
    /// Times of the rows in the window.
    times: Vec<i64>,
    /// What each file that was read has.
    seen: Vec<String>,
    /// First and last row of the files that were read, from their stamps on.
    reach: Option<(i64, i64)>,
    /// Files that were not read.
    unread: Vec<(Found, Failed)>,
}

impl Component {
    fn saw(&mut self, file: &Found, content: &Content) {
        self.seen.push(describe(file, content));
        if content.first_us <= content.last_us {
            let (first, last) = (
                content.first_us - file.stamp_us,
                content.last_us - file.stamp_us,
            );
            let (low, high) = self.reach.unwrap_or((first, last));
            self.reach = Some((low.min(first), high.max(last)));
        }
    }

    /// Why the window cannot do without a file that was not read: rows are missing where those of such a file would have been,
    /// judged by how far the files that were read reach from their stamps.
    fn lacks(&mut self, window: Window) -> Option<Failed> {
        if self.unread.is_empty() {
            return None;
        }
        let Some((low, high)) = self.reach.filter(|_| !self.times.is_empty()) else {
            let own = |(file, _): &&(Found, Failed)| Stamps::of(file, window) == Stamps::Own;
            return self.unread.iter().find(own).map(|(_, why)| why.clone());
        };
        let holes = self.holes(window);
        let missed = self.unread.iter().find(|(file, _)| {
            let (first, last) = (file.stamp_us + low, file.stamp_us + high);
            holes.iter().any(|(from, to)| first < *to && *from < last)
        });
        missed.map(|(_, why)| why.clone())
    }

    /// The stretches of the window without a row, between the rows around them, by the component's own pace.
    fn holes(&mut self, window: Window) -> Vec<(i64, i64)> {
        let (start, end) = (
            window.start().timestamp_micros(),
            window.end().timestamp_micros(),
        );
        self.times.sort_unstable();
        self.times.dedup();
        let mut paces: Vec<i64> = self
            .times
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .collect();
        paces.sort_unstable();
        let pace = paces
            .get(paces.len() / 2)
            .copied()
            .unwrap_or(window.cadence().micros());
        let rows = self.times.iter().copied();
        let points: Vec<i64> = std::iter::once(start).chain(rows).chain([end]).collect();
        let ends_with_a_row = self.times.last() == Some(&end);
        points
            .windows(2)
            .filter(|pair| !joins(pair[0], pair[1], pace))
            .map(|pair| match pair[1] == end && !ends_with_a_row {
                // The end is part of the window, and there is no row there.
                true => (pair[0], end + 1),
                false => (pair[0], pair[1]),
            })
            .collect()
    }
}

fn most_bytes(window: Window) -> u64 {
    window.cadence().minutes() as u64 * BYTES_PER_MINUTE
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
                etag: None,
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
