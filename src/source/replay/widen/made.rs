//! The wide Parquet file that is made of a history of another form.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use crate::source::replay::history::NULL_TIME;
use crate::source::replay::ordered::nameless;

/// Bytes that are written at once, and rows at most and at least.
const BYTES: usize = 8 << 20;
const ROWS: [usize; 2] = [64, 8192];

/// Writes rows, a time and a double for each tag, in the order in which they come.
pub(super) struct Maker {
    writer: SerializedFileWriter<File>,
    file: File,
    rows: usize,
    times: Vec<i64>,
    columns: Vec<Vec<f64>>,
}

impl Maker {
    /// A scratch file with a column for each of these tags.
    pub fn new(tags: &[&str], scratch: &Path) -> io::Result<Self> {
        let time = Type::primitive_type_builder("Timestamp", Physical::INT64)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(Some(LogicalType::timestamp(true, TimeUnit::MICROS)));
        let mut fields = vec![Arc::new(time.build().map_err(other)?)];
        for tag in tags {
            let field = Type::primitive_type_builder(tag, Physical::DOUBLE)
                .with_repetition(Repetition::REQUIRED);
            fields.push(Arc::new(field.build().map_err(other)?));
        }
        let schema = Type::group_type_builder("schema").with_fields(fields);
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .build();
        let file = nameless(scratch)?;
        let [least, most] = ROWS;
        let rows = (BYTES / (8 * (tags.len() + 1))).clamp(least, most);
        let schema = Arc::new(schema.build().map_err(other)?);
        let writer = SerializedFileWriter::new(file.try_clone()?, schema, Arc::new(properties));
        Ok(Self {
            writer: writer.map_err(other)?,
            file,
            rows,
            times: Vec::with_capacity(rows),
            columns: vec![Vec::with_capacity(rows); tags.len()],
        })
    }

    /// Appends a row; [`NULL_TIME`] is none.
    pub fn row(&mut self, time: i64, values: impl Iterator<Item = f64>) -> io::Result<()> {
        self.times.push(time);
        for (column, value) in self.columns.iter_mut().zip(values) {
            column.push(value);
        }
        match self.times.len() < self.rows {
            true => Ok(()),
            false => self.flush().map_err(other),
        }
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        if let Some(mut column) = group.next_column()? {
            let levels = self.times.iter().map(|time| i16::from(*time != NULL_TIME));
            let levels: Vec<i16> = levels.collect();
            self.times.retain(|time| *time != NULL_TIME);
            let typed = column.typed::<Int64Type>();
            typed.write_batch(&self.times, Some(&levels), None)?;
            column.close()?;
        }
        for values in &mut self.columns {
            if let Some(mut column) = group.next_column()? {
                let typed = column.typed::<DoubleType>();
                typed.write_batch(values, None, None)?;
                column.close()?;
            }
            values.clear();
        }
        self.times.clear();
        group.close()?;
        Ok(())
    }

    /// The file, to be read.
    pub fn close(mut self) -> io::Result<File> {
        if !self.times.is_empty() {
            self.flush().map_err(other)?;
        }
        self.writer.close().map_err(other)?;
        Ok(self.file)
    }
}

fn other(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(cause) => io::Error::other(cause),
        },
        error => io::Error::other(error),
    }
}
