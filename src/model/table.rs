//! Recorded history as blocks of rows for training and evaluation, from a CSV or a Parquet file, and its labels.
//!
//! Blocks come in time order, every time once; a table is read once from first to last and never held whole.

mod csv;
mod parquet;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::labels;
use super::sensor::{Rows, Sensor, Span};
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

    /// Columns of the file that the tag list does not have: they are left out.
    pub fn ignored(&self) -> &[String] {
        match &self.0 {
            Kind::Csv(table) => table.ignored(),
            Kind::Parquet(table) => table.ignored(),
        }
    }

    /// Infinite values so far; each is read as missing.
    pub fn infinite(&self) -> u64 {
        match &self.0 {
            Kind::Csv(table) => table.infinite(),
            Kind::Parquet(table) => table.infinite(),
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

/// Reads a file of labels, see [`labels::read`].
pub fn read_labels(path: &Path) -> Result<Vec<Span>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    labels::read(file).with_context(|| path.display().to_string())
}
