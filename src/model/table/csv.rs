//! A table in a CSV, plain or gzipped.
//!
//! A header, a time column (named Timestamp, or else the first) in any of the contract's formats, sorted, and one numeric
//! column per sensor. Which component a column belongs to is told by the tag list, or else by its own name
//! (`component\signal` or `component__signal`), or else all belong to one component named `asset`. A column that the tag list
//! does not have is left out, as in a Parquet history. An empty cell or NaN is a missing value, an infinite one is missing
//! and counted; anything else that is no number, and a row that does not fit the header, is an error that names file, line
//! and column. Of rows with the same time the last one counts.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::model::sensor::{Rows, Sensor};
use crate::model::timestamp;
use crate::records::{Records, shortened};
use crate::signal::TagList;

/// The component of columns that name none.
const DEFAULT_COMPONENT: &str = "asset";
/// Rows per block.
const BLOCK_ROWS: usize = 4096;

/// A table that is being read, block by block.
pub struct CsvTable {
    path: PathBuf,
    sensors: Vec<Sensor>,
    names: Vec<String>,
    columns: Vec<usize>,
    time: usize,
    width: usize,
    ignored: Vec<String>,
    infinite: u64,
    records: Records<Box<dyn Read + Send>>,
    held: Option<(i64, Vec<f64>)>,
    done: bool,
}

impl CsvTable {
    /// Opens a table.
    pub fn open(path: &Path, tags: Option<&TagList>) -> Result<Self> {
        let mut file =
            File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut head = [0; 4];
        let length = file
            .read(&mut head)
            .with_context(|| format!("cannot read {}", path.display()))?;
        file.rewind()
            .with_context(|| format!("cannot read {}", path.display()))?;
        let input: Box<dyn Read + Send> = match &head[..length] {
            [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
            _ => Box::new(file),
        };
        let broken = |problem: &dyn std::fmt::Display| {
            anyhow!("cannot read the header of {}: {problem}", path.display())
        };
        let mut records = Records::open(input).map_err(|error| broken(&error))?;
        let found = records.read().map_err(|error| broken(&error))?;
        if let Some(problem) = records.broken().filter(|_| found) {
            return Err(broken(&problem));
        }
        let mut header = Vec::with_capacity(records.len());
        for name in records.iter() {
            let name = std::str::from_utf8(name).map_err(|_| {
                broken(&format_args!(
                    "the name of column {} is not UTF-8",
                    header.len() + 1
                ))
            })?;
            header.push(name.trim().to_owned());
        }
        // A comma at the end of the line is no column.
        while header.len() > 2 && header.last().is_some_and(String::is_empty) {
            header.pop();
        }
        let time = header
            .iter()
            .position(|name| name.eq_ignore_ascii_case("timestamp"))
            .unwrap_or(0);
        let owners: Option<HashMap<&str, (usize, &str)>> = tags.map(|tags| {
            let tags = tags.tags().zip(tags.signals());
            tags.map(|((component, tag), (_, signal))| (tag, (component, signal)))
                .collect()
        });
        let (mut sensors, mut names, mut columns) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ignored, mut known) = (Vec::new(), HashSet::new());
        for (column, name) in header
            .iter()
            .enumerate()
            .filter(|(column, _)| *column != time)
        {
            let listed = owners.as_ref().and_then(|owners| owners.get(name.as_str()));
            let owner = tags.map(|tags| listed.map(|(at, _)| tags.components[*at].name.as_str()));
            let called = listed.map_or(name.as_str(), |(_, signal)| *signal);
            let Some(sensor) = sensor_of(called, owner)
                .with_context(|| format!("{} column {}", path.display(), column + 1))?
            else {
                ignored.push(name.clone());
                continue;
            };
            if !known.insert(sensor.clone()) {
                bail!(
                    "{}: two columns are {sensor}; rename or remove one",
                    path.display()
                );
            }
            sensors.push(sensor);
            names.push(name.clone());
            columns.push(column);
        }
        if sensors.is_empty() && !ignored.is_empty() {
            bail!(
                "{}: none of its columns is in the tag list: {}",
                path.display(),
                records.shown()
            );
        }
        if sensors.is_empty() {
            bail!(
                "{}: expected a time column and at least one sensor, separated by commas, found {}",
                path.display(),
                records.shown()
            );
        }
        let path = path.to_owned();
        Ok(Self {
            path,
            sensors,
            names,
            columns,
            time,
            width: header.len(),
            ignored,
            infinite: 0,
            records,
            held: None,
            done: false,
        })
    }

    /// The sensors, in the order of the columns.
    pub fn sensors(&self) -> &[Sensor] {
        &self.sensors
    }

    /// Columns that the tag list does not have.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Infinite values so far.
    pub fn infinite(&self) -> u64 {
        self.infinite
    }

    /// The next block of rows, sorted and unique in time across blocks; none at the end.
    pub fn next_block(&mut self) -> Result<Option<Rows>> {
        let mut rows = Rows {
            sensors: self.sensors.len(),
            ..Rows::default()
        };
        let mut values = Vec::with_capacity(self.sensors.len());
        while rows.len() < BLOCK_ROWS && !self.done {
            let more = self.records.read();
            if !more.with_context(|| format!("cannot read {}", self.path.display()))? {
                self.done = true;
                break;
            }
            let line = self.records.line();
            self.fits(line)?;
            let time = self.time_of(line)?;
            values.clear();
            for (at, column) in self.columns.iter().enumerate() {
                let cell = self.records.get(*column).unwrap_or_default();
                let value = value_of(cell).ok_or_else(|| {
                    anyhow!(
                        "{} line {line} column {}: `{}` is no number; leave the cell empty where there is no value",
                        self.path.display(),
                        self.names[at],
                        shortened(&String::from_utf8_lossy(cell))
                    )
                })?;
                self.infinite += u64::from(value.is_infinite());
                values.push(if value.is_finite() { value } else { f64::NAN });
            }
            match &mut self.held {
                Some((held, old)) if *held == time => old.clone_from(&values),
                Some((held, _)) if *held > time => bail!(
                    "{} line {line}: {} comes after {}; sort the rows by time",
                    self.path.display(),
                    timestamp::format(time),
                    timestamp::format(*held)
                ),
                Some((held, old)) => {
                    rows.push(*held, old);
                    *held = time;
                    old.clone_from(&values);
                }
                None => self.held = Some((time, values.clone())),
            }
        }
        if self.done
            && let Some((time, values)) = self.held.take()
        {
            rows.push(time, &values);
        }
        Ok(if rows.is_empty() { None } else { Some(rows) })
    }

    /// A training row has a cell for every column: one that lacks some is cut off, one that has more is of another file.
    fn fits(&self, line: u64) -> Result<()> {
        let at = || format!("{} line {line}", self.path.display());
        if let Some(broken) = self.records.broken() {
            bail!("{}: {broken}", at());
        }
        let found = self.records.len();
        let beyond = (self.width..found).filter_map(|cell| self.records.get(cell));
        if found < self.width || beyond.into_iter().any(|cell| !cell.trim_ascii().is_empty()) {
            bail!(
                "{}: the row has {found} fields, the header {}",
                at(),
                self.width
            );
        }
        Ok(())
    }

    fn time_of(&self, line: u64) -> Result<i64> {
        let cell = self.records.get(self.time).unwrap_or_default();
        timestamp::parse_bytes(cell).ok_or_else(|| {
            anyhow!(
                "{} line {line}: `{}` is no timestamp; expected {}",
                self.path.display(),
                shortened(&String::from_utf8_lossy(cell)),
                timestamp::EXPECTED
            )
        })
    }
}

/// The sensor that a column is; none where there is a tag list (`owner`) that lacks it.
fn sensor_of(name: &str, owner: Option<Option<&str>>) -> Result<Option<Sensor>> {
    if name.is_empty() {
        bail!("a column has no name");
    }
    let split = name.split_once('\\').or_else(|| name.split_once("__"));
    if let Some((component, signal)) =
        split.filter(|(component, signal)| !component.is_empty() && !signal.is_empty())
    {
        return Ok(Some(Sensor::new(component, signal)));
    }
    Ok(match owner {
        None => Some(Sensor::new(DEFAULT_COMPONENT, name)),
        Some(component) => component.map(|component| Sensor::new(component, name)),
    })
}

fn value_of(cell: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(cell).ok()?.trim();
    if text.is_empty()
        || ["na", "n/a", "null", "none", "-"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word))
    {
        return Some(f64::NAN);
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn read(text: &str) -> Result<Rows> {
        let file = written(text);
        let mut table = CsvTable::open(file.path(), None)?;
        let mut all = Rows {
            sensors: table.sensors().len(),
            ..Rows::default()
        };
        while let Some(block) = table.next_block()? {
            all.times.extend(block.times);
            all.values.extend(block.values);
        }
        Ok(all)
    }

    #[test]
    fn columns_find_their_component_by_tag_or_by_name() {
        let file = written("Timestamp,pump\\flow,fan__speed,level\n");
        let names = |tags| {
            let table = CsvTable::open(file.path(), tags)?;
            Ok::<_, anyhow::Error>(
                table
                    .sensors()
                    .iter()
                    .map(Sensor::to_string)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            names(None).unwrap(),
            ["pump\\flow", "fan\\speed", "asset\\level"]
        );
        let tags = TagList::parse(b"Tag,UOM,Subsystem\nlevel,m,tank\n", "tags.csv").unwrap();
        assert_eq!(
            names(Some(&tags)).unwrap(),
            ["pump\\flow", "fan\\speed", "tank\\level"]
        );
        let other = TagList::parse(b"Tag,UOM,Subsystem\nweight,t,tank\n", "tags.csv").unwrap();
        assert_eq!(names(Some(&other)).unwrap(), ["pump\\flow", "fan\\speed"]);
        let table = CsvTable::open(file.path(), Some(&other)).unwrap();
        assert_eq!(table.ignored(), ["level"]);
        let file = written("Timestamp,level\n");
        let error = CsvTable::open(file.path(), Some(&other)).err().unwrap();
        assert!(error.to_string().contains("level"), "{error:#}");
    }

    #[test]
    fn missing_cells_are_nan_and_the_last_of_equal_times_counts() {
        let rows =
            read("time,a,b\n2020-01-01 00:00,1,\n2020-01-01 00:05,2,NaN\n2020-01-01 00:05,3,4\n")
                .unwrap();
        assert_eq!(rows.len(), 2);
        assert!(rows.row(0)[1].is_nan());
        assert_eq!(rows.row(1), [3.0, 4.0]);
    }

    #[test]
    fn infinite_values_are_missing_and_counted() {
        let file = written("time,a,b\n2020-01-01 00:00,inf,1\n2020-01-01 00:05,-Infinity,1e999\n");
        let mut table = CsvTable::open(file.path(), None).unwrap();
        let rows = table.next_block().unwrap().unwrap();
        assert_eq!(rows.values.iter().filter(|value| value.is_nan()).count(), 3);
        assert_eq!(table.infinite(), 3);
    }

    #[test]
    fn blocks_join_without_losing_or_doubling_a_row() {
        let mut text = "Timestamp,a\n".to_owned();
        for n in 0..10_000_i64 {
            text += &format!("{},{n}\n", timestamp::format(n * 60_000_000));
        }
        let rows = read(&text).unwrap();
        assert_eq!(rows.len(), 10_000);
        assert!(
            rows.values
                .iter()
                .enumerate()
                .all(|(n, value)| *value == n as f64)
        );
    }

    #[test]
    fn bad_input_is_named_by_file_line_and_column() {
        for (text, words) in [
            ("Timestamp,a\n2020-01-01 00:00,x\n", ["line 2", "column a"]),
            ("Timestamp,a\nyesterday,1\n", ["line 2", "yesterday"]),
            (
                "Timestamp,a\n2020-01-02 00:00,1\n2020-01-01 00:00,1\n",
                ["line 3", "sort"],
            ),
            (
                "Timestamp\n2020-01-01 00:00\n",
                ["at least one sensor", "Timestamp"],
            ),
            ("Timestamp,a,a\n", ["asset\\a", "rename"]),
            (
                "Timestamp,a,b\n2020-01-01 00:00,1,5,2,5\n",
                ["line 2", "5 fields"],
            ),
            (
                "Timestamp,a,b\n\n2020-01-01 00:00,1\n",
                ["line 3", "2 fields"],
            ),
            (
                "Timestamp,a\n2020-01-01 00:00,\"1\n2020-01-01 00:01,2\n",
                ["line 2", "quote"],
            ),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
