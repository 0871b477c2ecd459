//! From input files to the rows of a window.
//!
//! Guarantees: rows with `start < time <= end` and no others; where one instant comes twice, the later row of a file
//! wins over the earlier and the file with the later stamp over the one before; rows may come in any order. Files of one
//! component may have all of its sensors or some each, as those that are ingested may, and are merged by the same rule: of
//! files with the same sensors the last row counts, those with others are merged with them cell by cell. The limits of
//! contract 3.8 (1 MB and 60 rows per minute of the window, 60 files per component) bound what is read, and hold by the sizes
//! of the listing before anything is fetched. A file that cannot be read, or is over a limit, fails the windows whose rows
//! would have been in it and no neighbour. Whatever is wrong is told as the reason the execution failed.
//!
//! Fetching is for the runtime's threads, [`merge`] is work for a blocking one.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::locate::{Found, MOST_FILES, Place};
use crate::model::{Rows, Sensor};
use crate::records::shortened;
use crate::s3::Bucket;
use crate::service::csv_rows::{Cell, CsvRows, Misfits};
use crate::service::s3_problem::Problem;
use crate::service::store::executions::{Failed, FailureKind};
use crate::signal::Window;
use component::{Component, Merge};

mod component;

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
    /// Its columns, for people.
    header: String,
    /// The sensors that it has, as positions in its component.
    signals: Vec<usize>,
    /// Rows in the window, with a value for each of them.
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
                    downloads.push(async move { Ok((place, get(bucket, &key, window).await?)) });
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

/// The bytes of a file: no more than a window may have, whatever has become of it since it was listed.
async fn get(bucket: &Bucket, key: &str, window: Window) -> Result<Result<Bytes, Failed>, Problem> {
    let what = format!("Could not read 's3://{}/{key}'", bucket.name());
    let most = most_bytes(window);
    let read = async {
        let opened = bucket.open(key, (0, None), None).await?;
        opened.collect(most as usize + 1).await
    };
    match read.await {
        Ok(bytes) if bytes.len() as u64 > most => Ok(Err(Failed::new(
            FailureKind::InputTooLarge,
            too_large(key, bytes.len() as u64, window, most),
        ))),
        Ok(bytes) => Ok(Ok(bytes)),
        Err(error) if error.failure.is_no_such_key() => Ok(Err(Failed::new(
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
            component.saw(file, content, window);
        }
        if let Some(failed) = component.lacks(group, window) {
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
        let is_empty = component.is_empty();
        for run in component.runs {
            merged.put(group, run);
        }
        if is_empty {
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

fn most_bytes(window: Window) -> u64 {
    window.cadence().minutes() as u64 * BYTES_PER_MINUTE
}

fn parse(body: &[u8], group: &Wanted, window: Window) -> Result<Content, String> {
    let file = CsvRows::open(body).map_err(|error| error.to_string())?;
    let header = shortened(&file.sensors().join(", "));
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (place, name) in file.sensors().iter().enumerate() {
        places.insert(name, place);
    }
    // The component's sensors that the file has, and where.
    let (signals, columns): (Vec<usize>, Vec<usize>) = group
        .signals
        .iter()
        .enumerate()
        .filter_map(|(nth, (signal, _))| Some((nth, *places.get(signal.as_str())?)))
        .unzip();
    if signals.is_empty() {
        let wanted: Vec<&str> = group
            .signals
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        return Err(format!(
            "none of the sensors of component '{}' ({}) is a column of the file, which has: {}. Header names must equal the \
             schema's.",
            group.component,
            shortened(&wanted.join(", ")),
            header
        ));
    }
    let (start, end) = (
        window.start().timestamp_micros(),
        window.end().timestamp_micros(),
    );
    let mut content = Content {
        header,
        signals,
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

#[cfg(test)]
mod tests {
    use super::component::Run;
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

    fn file(name: &str, stamp: &str, text: &str) -> Fetched {
        let stamp: chrono::DateTime<chrono::Utc> = stamp.parse().unwrap();
        Fetched {
            file: Found {
                key: format!("in/{name}.csv"),
                size: text.len() as u64,
                etag: None,
                stamp_us: stamp.timestamp_micros(),
            },
            body: Ok(Bytes::from(text.to_owned())),
        }
    }

    /// What files of the pump with the sensors b, a and c give.
    fn merged(files: Vec<Fetched>) -> Result<Vec<(i64, Vec<f64>)>, String> {
        let sensors = ["b", "a", "c"].map(|signal| Sensor::new("pump", signal));
        let place = Place {
            bucket: "plant".into(),
            prefix: "in/".into(),
            format: Default::default(),
        };
        let rows = merge(&place, &wanted(&sensors), vec![files], window(), 3)
            .map_err(|problem| problem.failed.reason)?;
        let start = window().start().timestamp_micros();
        let row = |nth: usize| {
            (
                (rows.times[nth] - start) / 60_000_000,
                rows.row(nth).to_vec(),
            )
        };
        Ok((0..rows.times.len()).map(row).collect())
    }

    const OWN: &str = "2022-05-13T12:10:00Z";

    fn shown(rows: &[(i64, Vec<f64>)]) -> String {
        let cell = |value: &f64| match value.is_nan() {
            true => "-".to_owned(),
            false => value.to_string(),
        };
        let row = |(minute, values): &(i64, Vec<f64>)| {
            let values: Vec<String> = values.iter().map(cell).collect();
            format!("{minute}: {}", values.join(" "))
        };
        rows.iter().map(row).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn files_with_some_sensors_each_are_the_rows_of_one_file() {
        let split = merged(vec![
            file(
                "pump-a",
                OWN,
                "t,a\n2022-05-13 12:11:00,1\n2022-05-13 12:12:00,4\n",
            ),
            file(
                "pump-bc",
                OWN,
                "t,c,b\n2022-05-13 12:11:00,3,2\n2022-05-13 12:13:00,6,5\n",
            ),
        ]);
        assert_eq!(shown(&split.unwrap()), "1: 2 1 3, 2: - 4 -, 3: 5 - 6");
        // A later file's value goes over an earlier one's, an empty cell of other sensors' file does not; of the same sensors
        // the last row counts as it is.
        let over = merged(vec![
            file(
                "1",
                OWN,
                "t,a,b,c\n2022-05-13 12:11:00,1,2,3\n2022-05-13 12:12:00,1,2,3\n",
            ),
            file("2", OWN, "t,a,b\n2022-05-13 12:11:00,,9\n"),
            file("3", OWN, "t,c,b,a\n2022-05-13 12:12:00,,7,8\n"),
        ]);
        assert_eq!(shown(&over.unwrap()), "1: 9 1 3, 2: 7 8 -");
    }

    #[test]
    fn a_sensor_that_no_file_of_the_window_has_fails_it_by_name() {
        let a = "t,a,b\n2022-05-13 12:11:00,1,2\n";
        let problem = merged(vec![file("pump", OWN, a)]).unwrap_err();
        assert!(
            problem.contains("sensor c of component 'pump'")
                && problem.contains("(in/pump.csv has a, b)"),
            "{problem}"
        );
        // Neither does it help that the next window's file has it; one of this window without a row does.
        let c = "t,c\n2022-05-13 12:16:00,3\n";
        let next = file("pump-next", "2022-05-13T12:15:00Z", c);
        assert!(merged(vec![file("pump", OWN, a), next]).is_err());
        let silent = file("pump-c", OWN, "t,c\n");
        let rows = merged(vec![file("pump", OWN, a), silent]).unwrap();
        assert_eq!(shown(&rows), "1: 2 1 -");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_missed_where_its_sensors_have_no_rows() {
        let minutes = |columns: &str| {
            let mut text = format!("t,{columns}\n");
            for minute in 11..=15 {
                let values = vec!["1"; columns.split(',').count()].join(",");
                text += &format!("2022-05-13 12:{minute}:00,{values}\n");
            }
            text
        };
        let broken = |stamp| file("pump-broken", stamp, "nothing\n");
        // The other sensors have all rows; c has none.
        let problem = merged(vec![file("pump-ab", OWN, &minutes("a,b")), broken(OWN)]).unwrap_err();
        assert!(problem.contains("pump-broken.csv"), "{problem}");
        // All have all rows: whatever it has, nothing is missing.
        let files = vec![
            file("pump-ab", OWN, &minutes("a,b")),
            file("pump-c", OWN, &minutes("c")),
            broken("2022-05-13T12:15:00Z"),
        ];
        assert_eq!(merged(files).unwrap().len(), 5);
    }

    #[test]
    fn rows_come_out_sorted_in_model_order() {
        let groups = wanted(&[
            Sensor::new("pump", "b"),
            Sensor::new("fan", "x"),
            Sensor::new("pump", "a"),
        ]);
        assert_eq!(groups.len(), 2);
        let run = |signals: &[usize], rows: &[(i64, &[f64])]| Run {
            signals: signals.to_vec(),
            rows: rows
                .iter()
                .map(|(time, values)| (*time, values.to_vec()))
                .collect(),
        };
        let mut merge = Merge::new(3);
        let pump: [(i64, &[f64]); 3] = [(20, &[1.0, 2.0]), (10, &[5.0, 6.0]), (20, &[3.0, 4.0])];
        merge.put(&groups[0], run(&[0, 1], &pump));
        merge.put(&groups[1], run(&[0], &[(20, &[7.0])]));
        let rows = merge.finish();
        assert_eq!(rows.times, [10, 20]);
        assert_eq!(rows.row(1), [3.0, 7.0, 4.0]);
        assert!(rows.row(0)[1].is_nan());
    }

    #[test]
    fn a_file_without_any_sensor_of_its_component_is_told_with_what_it_has() {
        let problem = parse(b"time,A,c\n", &group(), window()).err().unwrap();
        assert!(
            problem.contains("component 'pump' (b, a)") && problem.contains("A, c"),
            "{problem}"
        );
    }
}
