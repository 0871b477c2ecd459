//! A file of the history in the making: a row for each sample of an asset within an hour, in Parquet.
//!
//! | column | is |
//! |---|---|
//! | `Timestamp` | nanoseconds, UTC |
//! | `tag` | as the tag list has it |
//! | `value` | a double, null where it is missing |
//! | `quality` | `good`, `uncertain`, `bad` |
//! | `timed` | whose time it is: `source`, `server`, `arrival` |
//!
//! Guarantees: it is written in pieces, so that memory does not grow with it, and through the [`Disk`]; it is not durable before
//! its caller has synced it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use parquet::basic::{
    Compression, Encoding, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel,
};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

use super::{Quality, Sample, Timed};
use crate::disk::Disk;

/// Rows that are encoded together, and bytes that are written together.
const ROWS: usize = 1 << 18;
const BYTES: usize = 1 << 20;

/// Bytes on their way into a file.
struct Sink {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    buffer: Vec<u8>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.disk.append(&self.path, &self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// The file.
pub struct HourFile {
    writer: SerializedFileWriter<Sink>,
    times: Vec<i64>,
    tags: Vec<ByteArray>,
    values: Vec<Option<f64>>,
    qualities: Vec<Quality>,
    timed: Vec<Timed>,
    rows: u64,
}

impl HourFile {
    /// Makes the file, or makes it empty.
    pub fn begin(disk: Arc<dyn Disk>, path: PathBuf) -> io::Result<Self> {
        disk.write(&path, &[])?;
        let sink = Sink {
            disk,
            path,
            buffer: Vec::new(),
        };
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_column_dictionary_enabled("Timestamp".into(), false)
            .set_column_encoding("Timestamp".into(), Encoding::DELTA_BINARY_PACKED)
            .set_created_by(concat!("lookoutd ", env!("CARGO_PKG_VERSION")).into())
            .build();
        let writer = schema()
            .and_then(|schema| {
                SerializedFileWriter::new(sink, Arc::new(schema), Arc::new(properties))
            })
            .map_err(other)?;
        Ok(Self {
            writer,
            times: Vec::new(),
            tags: Vec::new(),
            values: Vec::new(),
            qualities: Vec::new(),
            timed: Vec::new(),
            rows: 0,
        })
    }

    /// Takes a sample of a tag.
    pub fn row(&mut self, tag: &str, sample: &Sample) -> io::Result<()> {
        self.times.push(sample.time);
        // Samples of a tag mostly follow each other, and share its bytes.
        let known = self
            .tags
            .last()
            .filter(|last| last.data() == tag.as_bytes());
        self.tags
            .push(known.cloned().unwrap_or_else(|| ByteArray::from(tag)));
        let value = (!sample.value.is_nan()).then_some(sample.value);
        self.values.push(value);
        self.qualities.push(sample.quality);
        self.timed.push(sample.timed);
        self.rows += 1;
        match self.times.len() < ROWS {
            true => Ok(()),
            false => self.group().map_err(other),
        }
    }

    /// Writes what is left, and how many rows it has.
    pub fn end(mut self) -> io::Result<u64> {
        if !self.times.is_empty() {
            self.group().map_err(other)?;
        }
        self.writer.finish().map_err(other)?;
        self.writer.inner_mut().flush()?;
        Ok(self.rows)
    }

    fn group(&mut self) -> Result<(), ParquetError> {
        let [good, uncertain, bad] = ["good", "uncertain", "bad"].map(ByteArray::from);
        let [source, server, arrival] = ["source", "server", "arrival"].map(ByteArray::from);
        let qualities = self.qualities.drain(..).map(|quality| match quality {
            Quality::Good => good.clone(),
            Quality::Uncertain => uncertain.clone(),
            Quality::Bad => bad.clone(),
        });
        let timed = self.timed.drain(..).map(|timed| match timed {
            Timed::Source => source.clone(),
            Timed::Server => server.clone(),
            Timed::Arrival => arrival.clone(),
        });
        let levels: Vec<i16> = self
            .values
            .iter()
            .map(|value| i16::from(value.is_some()))
            .collect();
        let values: Vec<f64> = self.values.drain(..).flatten().collect();
        let mut group = self.writer.next_row_group()?;
        column::<Int64Type>(&mut group, &self.times, None)?;
        column::<ByteArrayType>(&mut group, &self.tags, None)?;
        column::<DoubleType>(&mut group, &values, Some(&levels))?;
        column::<ByteArrayType>(&mut group, &qualities.collect::<Vec<_>>(), None)?;
        column::<ByteArrayType>(&mut group, &timed.collect::<Vec<_>>(), None)?;
        group.close()?;
        self.times.clear();
        self.tags.clear();
        Ok(())
    }
}

fn schema() -> Result<Type, ParquetError> {
    let text = |name| {
        Type::primitive_type_builder(name, Physical::BYTE_ARRAY)
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(Some(LogicalType::String))
            .build()
    };
    let time = Type::primitive_type_builder("Timestamp", Physical::INT64)
        .with_repetition(Repetition::REQUIRED)
        .with_logical_type(Some(LogicalType::timestamp(true, TimeUnit::NANOS)))
        .build()?;
    let value = Type::primitive_type_builder("value", Physical::DOUBLE)
        .with_repetition(Repetition::OPTIONAL)
        .build()?;
    let fields = [time, text("tag")?, value, text("quality")?, text("timed")?];
    Type::group_type_builder("samples")
        .with_fields(fields.into_iter().map(Arc::new).collect())
        .build()
}

fn column<D: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Sink>,
    values: &[D::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    if let Some(mut column) = group.next_column()? {
        column.typed::<D>().write_batch(values, levels, None)?;
        column.close()?;
    }
    Ok(())
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
