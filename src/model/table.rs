//! Recorded history as blocks of rows for training and evaluation, from a CSV or a Parquet file, and its labels.
//!
//! Blocks come in time order, every time once; a table is read once from first to last and never held whole.

mod csv;
mod parquet;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::sensor::{Rows, Sensor, Span};
use super::timestamp;
use crate::signal::TagList;

/// A table that is being read, block by block.
pub struct Table(Kind);

enum Kind {
    Csv(Box<csv::CsvTable>),
    Parquet(Box<parquet::ParquetTable>),
}

impl Table {
    /// Opens a table. What it is shows in its first bytes. A Parquet file needs the tag list, a CSV can do without.
    pub fn open(path: &Path, tags: Option<&TagList>) -> Result<Self> {
        if !is_parquet(path)? {
            return Ok(Self(Kind::Csv(Box::new(csv::CsvTable::open(path, tags)?))));
        }
        let Some(tags) = tags else {
            bail!(
                "{} is a Parquet file; give its tag list (--tags), which tells the components",
                path.display()
            );
        };
        Ok(Self(Kind::Parquet(Box::new(parquet::ParquetTable::open(
            path, tags,
        )?))))
    }

    /// Opens the table that a model with these sensors is to score. Without a tag list, the columns of a Parquet file that are
    /// called like a sensor are that sensor; one that could be a sensor of two components is refused.
    pub fn open_for(sensors: &[Sensor], path: &Path, tags: Option<&TagList>) -> Result<Self> {
        match tags {
            None if is_parquet(path)? => Self::open(path, Some(&parquet::tags_of(sensors, path)?)),
            tags => Self::open(path, tags),
        }
    }

    /// The sensors, in the order of the columns.
    pub fn sensors(&self) -> &[Sensor] {
        match &self.0 {
            Kind::Csv(table) => table.sensors(),
            Kind::Parquet(table) => table.sensors(),
        }
    }

    /// The next block of rows, sorted and unique in time across blocks; none at the end.
    pub fn next_block(&mut self) -> Result<Option<Rows>> {
        match &mut self.0 {
            Kind::Csv(table) => table.next_block(),
            Kind::Parquet(table) => table.next_block(),
        }
    }
}

/// Whether a file begins as a Parquet file does.
fn is_parquet(path: &Path) -> Result<bool> {
    let mut head = [0; 4];
    let length = File::open(path)
        .and_then(|mut file| file.read(&mut head))
        .with_context(|| format!("cannot open {}", path.display()))?;
    Ok(head[..length] == *b"PAR1")
}

/// Reads labels: one `start,end` per line, with or without a header.
pub fn read_labels(path: &Path) -> Result<Vec<Span>> {
    let mut reader = ::csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_path(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let mut labels = Vec::new();
    for (index, record) in reader.records().enumerate() {
        let at = || format!("{} line {}", path.display(), index + 1);
        let record = record.with_context(at)?;
        let times: Vec<_> = record.iter().take(2).map(timestamp::parse).collect();
        match times[..] {
            [Some(start), Some(end)] if start <= end => labels.push(Span { start, end }),
            [Some(_), Some(_)] => bail!("{}: the label ends before it starts", at()),
            [None, None] if index == 0 => {}
            _ => bail!(
                "{}: expected start,end, each {}; found {}",
                at(),
                timestamp::EXPECTED,
                record.iter().collect::<Vec<_>>().join(",")
            ),
        }
    }
    Ok(labels)
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

    #[test]
    fn labels_read_with_and_without_a_header() {
        let plain = read_labels(written("2020-01-01 00:00,2020-01-02 00:00\n").path()).unwrap();
        let headed =
            read_labels(written("start,end\n2020-01-01 00:00,2020-01-02 00:00\n").path()).unwrap();
        assert_eq!(plain, headed);
        assert_eq!(plain.len(), 1);
        assert!(read_labels(written("2020-01-02 00:00,2020-01-01 00:00\n").path()).is_err());
        assert!(read_labels(written("2020-01-01 00:00\n").path()).is_err());
    }
}
