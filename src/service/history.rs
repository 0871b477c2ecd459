//! A dataset's rows on disk: one file per component, sorted by time, each time once; read merged.
//!
//! A row is its time (i64) and one f64 per sensor, little endian; the rows of a component are one file, and an index names
//! the files (`super::files`).
//!
//! Guarantees: whatever order rows came in, they are read in time order, each time once. Memory while reading is one row per
//! component.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::files::Dataset;
use super::schema::Schema;
use crate::model::{Rows, Sensor};

mod runs;

pub use runs::PartWriter;

/// Rows per block handed out.
const BLOCK_ROWS: usize = 4096;

/// What a dataset consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// The components, in the schema's order.
    pub components: Vec<Part>,
}

/// One component's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Component name.
    pub component: String,
    /// Its sensors, in the order of a row.
    pub sensors: Vec<String>,
    /// Rows in the file.
    pub rows: u64,
    /// Rows that were dropped because a later one had their time.
    pub duplicates: u64,
    /// First time, microseconds, if there is a row.
    pub first_us: Option<i64>,
    /// Last time.
    pub last_us: Option<i64>,
    /// The name of the file; empty until it has one.
    #[serde(default)]
    pub file: String,
}

/// The rows of some of a dataset's sensors, merged by time.
pub struct History {
    sensors: Vec<Sensor>,
    parts: Vec<PartReader>,
    to_us: i64,
}

struct PartReader {
    file: BufReader<File>,
    width: usize,
    /// `position in the file's row, position in the merged row`.
    columns: Vec<(usize, usize)>,
    head: Option<(i64, Vec<f64>)>,
}

impl History {
    /// Opens the rows of `schema`'s sensors with `from_us <= time <= to_us`.
    pub fn open(dataset: &Dataset, schema: &Schema, from_us: i64, to_us: i64) -> Result<History> {
        let index = &dataset.index;
        let (mut sensors, mut parts) = (Vec::new(), Vec::new());
        for component in &schema.components {
            let number = index
                .components
                .iter()
                .position(|part| part.component == component.name);
            let number = number
                .with_context(|| format!("the dataset has no component '{}'", component.name))?;
            let part = &index.components[number];
            let mut columns = Vec::new();
            for sensor in &component.sensors {
                let column = part.sensors.iter().position(|known| known == sensor);
                let column = column.with_context(|| {
                    format!("the dataset has no sensor '{}\\{sensor}'", component.name)
                })?;
                columns.push((column, sensors.len()));
                sensors.push(Sensor::new(component.name.clone(), sensor.clone()));
            }
            parts.push(PartReader::open(
                &dataset.rows(part),
                part,
                columns,
                from_us,
            )?);
        }
        Ok(History {
            sensors,
            parts,
            to_us,
        })
    }

    /// The sensors, in the schema's order.
    pub fn sensors(&self) -> &[Sensor] {
        &self.sensors
    }

    /// The next block in time order; none at the end.
    pub fn next_block(&mut self) -> Result<Option<Rows>> {
        let mut rows = Rows {
            sensors: self.sensors.len(),
            ..Rows::default()
        };
        let mut row = vec![f64::NAN; self.sensors.len()];
        while rows.len() < BLOCK_ROWS {
            let heads = self
                .parts
                .iter()
                .filter_map(|part| part.head.as_ref().map(|(time, _)| *time));
            let Some(time) = heads.min().filter(|time| *time <= self.to_us) else {
                break;
            };
            row.fill(f64::NAN);
            for part in &mut self.parts {
                part.take(time, &mut row)?;
            }
            rows.push(time, &row);
        }
        Ok((!rows.is_empty()).then_some(rows))
    }
}

impl PartReader {
    fn open(
        path: &Path,
        part: &Part,
        columns: Vec<(usize, usize)>,
        from_us: i64,
    ) -> Result<PartReader> {
        let mut file =
            File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let width = part.sensors.len();
        // Rows are of one size and sorted: halve to the first row of the range.
        let (mut low, mut high) = (0, part.rows);
        while low < high {
            let middle = low + (high - low) / 2;
            file.seek(SeekFrom::Start(middle * row_bytes(width) as u64))?;
            let mut time = [0; 8];
            file.read_exact(&mut time)
                .with_context(|| format!("{} is cut short", path.display()))?;
            if i64::from_le_bytes(time) < from_us {
                low = middle + 1
            } else {
                high = middle
            }
        }
        file.seek(SeekFrom::Start(low * row_bytes(width) as u64))?;
        let mut reader = PartReader {
            file: BufReader::with_capacity(1 << 18, file),
            width,
            columns,
            head: None,
        };
        reader.advance()?;
        Ok(reader)
    }

    /// Copies the head row into `row` if it is of `time`, and goes on to the next.
    fn take(&mut self, time: i64, row: &mut [f64]) -> Result<()> {
        match &self.head {
            Some((head, values)) if *head == time => {
                for (from, to) in &self.columns {
                    row[*to] = values[*from];
                }
                self.advance()
            }
            _ => Ok(()),
        }
    }

    fn advance(&mut self) -> Result<()> {
        self.head = read_row(&mut self.file, self.width)?;
        Ok(())
    }
}

/// Every row of component `number` in the directory that it was written in, in order.
pub fn each_row(
    directory: &Path,
    number: usize,
    part: &Part,
    mut row: impl FnMut(i64, &[f64]),
) -> Result<()> {
    let path = directory.join(format!("{number}.rows"));
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut file = BufReader::with_capacity(1 << 20, file);
    while let Some((time, values)) = read_row(&mut file, part.sensors.len())? {
        row(time, &values);
    }
    Ok(())
}

fn row_bytes(width: usize) -> usize {
    8 * (width + 1)
}

fn write_row(output: &mut impl Write, time: i64, values: &[f64]) -> std::io::Result<()> {
    output.write_all(&time.to_le_bytes())?;
    values
        .iter()
        .try_for_each(|value| output.write_all(&value.to_le_bytes()))
}

fn read_row(input: &mut impl Read, width: usize) -> Result<Option<(i64, Vec<f64>)>> {
    let mut bytes = vec![0; row_bytes(width)];
    match input.read_exact(&mut bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error).context("cannot read the dataset's rows"),
    }
    let mut numbers = bytes.chunks_exact(8).map(|chunk| {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        eight
    });
    let time = numbers.next().map(i64::from_le_bytes).unwrap_or_default();
    Ok(Some((time, numbers.map(f64::from_le_bytes).collect())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::files::Files;
    use crate::service::schema::SchemaComponent;

    fn schema(components: &[(&str, &[&str])]) -> Schema {
        let component = |(name, sensors): &(&str, &[&str])| SchemaComponent {
            name: (*name).into(),
            time: "Timestamp".into(),
            sensors: sensors.iter().map(|sensor| (*sensor).into()).collect(),
        };
        Schema {
            components: components.iter().map(component).collect(),
        }
    }

    #[test]
    fn unsorted_and_duplicate_rows_are_read_sorted_and_the_last_wins() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path());
        files.prepare().unwrap();
        let workspace = files.workspace("job").unwrap();
        let names = ["a".to_owned(), "b".to_owned()];
        let mut writer = PartWriter::create(&workspace, 0, "c", &names);
        writer.begin(&[0, 1]).unwrap();
        for (time, a) in [(30, 3.0), (10, 1.0), (20, 9.0), (20, 2.0), (40, 4.0)] {
            writer.push(time, &[a, -a]).unwrap();
        }
        let part = writer.finish().unwrap();
        assert_eq!(
            (part.rows, part.duplicates, part.first_us, part.last_us),
            (4, 1, Some(10), Some(40))
        );
        let mut other = PartWriter::create(&workspace, 1, "d", &names[..1]);
        other.begin(&[0]).unwrap();
        other.push(20, &[7.0]).unwrap();
        other.push(50, &[8.0]).unwrap();
        let parts = vec![part, other.finish().unwrap()];
        let staged = files.stage_dataset("job", parts).unwrap();
        files.place(&staged).unwrap();
        let dataset = files.dataset(&staged.name).unwrap();
        dataset.verify().unwrap();
        let wanted = schema(&[("d", &["a"]), ("c", &["b"])]);
        let mut history = History::open(&dataset, &wanted, 20, 40).unwrap();
        let rows = history.next_block().unwrap().unwrap();
        assert_eq!(rows.times, [20, 30, 40]);
        assert_eq!(rows.row(0), [7.0, -2.0]);
        assert!(rows.row(1)[0].is_nan() && rows.row(1)[1] == -3.0);
        assert!(history.next_block().unwrap().is_none());
    }
}
