//! A table in a CSV, plain or gzipped.
//!
//! A header, a time column (named Timestamp, or else the first) in any of the contract's formats, sorted, and one numeric
//! column per sensor. Which component a column belongs to is told by the tag list, or else by its own name
//! (`component\signal` or `component__signal`), or else all belong to one component named `asset`. An empty cell or NaN is
//! a missing value; anything else that is no number is an error that names file, line and column. Of rows with the same
//! time the last one counts.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::model::sensor::{Rows, Sensor};
use crate::model::timestamp;
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
    records: csv::Reader<Box<dyn Read + Send>>,
    record: csv::ByteRecord,
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
        let mut records = csv::ReaderBuilder::new()
            .buffer_capacity(1 << 18)
            .from_reader(input);
        let header = records
            .headers()
            .with_context(|| format!("cannot read the header of {}", path.display()))?
            .clone();
        let time = header
            .iter()
            .position(|name| name.trim().eq_ignore_ascii_case("timestamp"))
            .unwrap_or(0);
        let (mut sensors, mut names, mut columns) = (Vec::new(), Vec::new(), Vec::new());
        for (column, name) in header
            .iter()
            .enumerate()
            .filter(|(column, _)| *column != time)
        {
            let sensor = sensor_of(name.trim(), tags)
                .with_context(|| format!("{} column {name}", path.display()))?;
            if sensors.contains(&sensor) {
                bail!(
                    "{}: two columns are {sensor}; rename or remove one",
                    path.display()
                );
            }
            sensors.push(sensor);
            names.push(name.to_owned());
            columns.push(column);
        }
        if sensors.is_empty() {
            bail!(
                "{}: expected a time column and at least one sensor, found {}",
                path.display(),
                join(&header)
            );
        }
        let path = path.to_owned();
        Ok(Self {
            path,
            sensors,
            names,
            columns,
            time,
            records,
            record: csv::ByteRecord::new(),
            held: None,
            done: false,
        })
    }

    /// The sensors, in the order of the columns.
    pub fn sensors(&self) -> &[Sensor] {
        &self.sensors
    }

    /// The next block of rows, sorted and unique in time across blocks; none at the end.
    pub fn next_block(&mut self) -> Result<Option<Rows>> {
        let mut rows = Rows {
            sensors: self.sensors.len(),
            ..Rows::default()
        };
        let mut values = Vec::with_capacity(self.sensors.len());
        while rows.len() < BLOCK_ROWS && !self.done {
            let line = self.records.position().line();
            let more = self.records.read_byte_record(&mut self.record);
            if !more.with_context(|| format!("cannot read {}", self.path.display()))? {
                self.done = true;
                break;
            }
            let time = self.time_of(line)?;
            values.clear();
            for (at, column) in self.columns.iter().enumerate() {
                let cell = &self.record[*column];
                values.push(value_of(cell).ok_or_else(|| {
                    anyhow!(
                        "{} line {line} column {}: `{}` is no number; leave the cell empty where there is no value",
                        self.path.display(),
                        self.names[at],
                        String::from_utf8_lossy(cell)
                    )
                })?);
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

    fn time_of(&self, line: u64) -> Result<i64> {
        let cell = String::from_utf8_lossy(&self.record[self.time]);
        timestamp::parse(&cell).ok_or_else(|| {
            anyhow!(
                "{} line {line}: `{cell}` is no timestamp; expected {}",
                self.path.display(),
                timestamp::EXPECTED
            )
        })
    }
}

fn sensor_of(name: &str, tags: Option<&TagList>) -> Result<Sensor> {
    if name.is_empty() {
        bail!("a column has no name");
    }
    let split = name.split_once('\\').or_else(|| name.split_once("__"));
    if let Some((component, signal)) =
        split.filter(|(component, signal)| !component.is_empty() && !signal.is_empty())
    {
        return Ok(Sensor::new(component, signal));
    }
    let Some(tags) = tags else {
        return Ok(Sensor::new(DEFAULT_COMPONENT, name));
    };
    match tags.signals().find(|(_, signal)| *signal == name) {
        Some((component, _)) => Ok(Sensor::new(&tags.components[component].name, name)),
        None => bail!(
            "the tag list does not have {name}; add it with its subsystem, or remove the column"
        ),
    }
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
    let value: f64 = text.parse().ok()?;
    Some(if value.is_finite() { value } else { f64::NAN })
}

fn join(record: &csv::StringRecord) -> String {
    record.iter().collect::<Vec<_>>().join(",")
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
        let error = names(Some(&other)).unwrap_err();
        assert!(format!("{error:#}").contains("level"), "{error:#}");
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
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
