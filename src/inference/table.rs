//! Results as tables for other programs: CSV, and Parquet through the low-level column writers.
//!
//! One row per line of results: when, anomalous or not, reason, score, then one column per sensor with its share. A share
//! that a line does not give is empty (NULL in Parquet). Columns come in the order sensors first appear, so whoever writes
//! a table goes over the lines twice: for the [`Columns`], then for the rows. What is held in memory does not grow with
//! the rows.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, bail};
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

use super::result::Line;

/// Values of a row group of Parquet, at most, and its rows.
const GROUP_VALUES: usize = 500_000;
const GROUP_ROWS: usize = 50_000;

/// The sensors of a table, in the order of their columns.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    names: Vec<String>,
    places: HashMap<String, usize>,
}

impl Columns {
    /// Makes sure that every sensor of a line has a column.
    pub fn take(&mut self, line: &Line) {
        for (name, _) in &line.sensors {
            if !self.places.contains_key(name) {
                self.places.insert(name.clone(), self.names.len());
                self.names.push(name.clone());
            }
        }
    }

    /// The shares of a line, by column.
    fn shares(&self, line: &Line) -> Vec<Option<f64>> {
        let mut shares = vec![None; self.names.len()];
        for (name, share) in &line.sensors {
            if let Some(place) = self.places.get(name) {
                shares[*place] = Some(*share);
            }
        }
        shares
    }
}

/// A CSV file in the making: `timestamp,anomalous,reason,score,<component\sensor>,...`.
pub struct CsvTable<W: Write> {
    writer: csv::Writer<W>,
    columns: Columns,
}

impl<W: Write> CsvTable<W> {
    /// Writes the header.
    pub fn begin(out: W, columns: Columns) -> anyhow::Result<Self> {
        let mut writer = csv::Writer::from_writer(out);
        let header = ["timestamp", "anomalous", "reason", "score"];
        let sensors = columns.names.iter().map(String::as_str);
        writer.write_record(header.into_iter().chain(sensors))?;
        Ok(Self { writer, columns })
    }

    /// Writes a row.
    pub fn row(&mut self, line: &Line) -> anyhow::Result<()> {
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let mut record = vec![
            line.time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
            u8::from(line.anomalous).to_string(),
            line.reason.clone().unwrap_or_default(),
            number(line.score),
        ];
        record.extend(self.columns.shares(line).into_iter().map(number));
        self.writer.write_record(record)?;
        Ok(())
    }

    /// Writes what is left.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.writer.flush()?;
        Ok(())
    }
}

/// A Parquet file in the making: `timestamp` (microseconds UTC), `anomalous`, `reason`, `score`, and a double per sensor.
pub struct ParquetTable<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Columns,
    group: Group,
}

/// The rows of a row group, by column.
#[derive(Default)]
struct Group {
    times: Vec<i64>,
    anomalous: Vec<bool>,
    reasons: Vec<Option<ByteArray>>,
    scores: Vec<Option<f64>>,
    shares: Vec<Vec<Option<f64>>>,
}

impl<W: Write + Send> ParquetTable<W> {
    /// Writes the header.
    pub fn begin(out: W, columns: Columns) -> anyhow::Result<Self> {
        let mut fields = vec![
            Type::primitive_type_builder("timestamp", Physical::INT64)
                .with_repetition(Repetition::REQUIRED)
                .with_logical_type(Some(LogicalType::timestamp(true, TimeUnit::MICROS)))
                .build()?,
            Type::primitive_type_builder("anomalous", Physical::BOOLEAN)
                .with_repetition(Repetition::REQUIRED)
                .build()?,
            Type::primitive_type_builder("reason", Physical::BYTE_ARRAY)
                .with_repetition(Repetition::OPTIONAL)
                .with_logical_type(Some(LogicalType::String))
                .build()?,
        ];
        let sensors = columns.names.iter().map(String::as_str);
        for name in std::iter::once("score").chain(sensors) {
            fields.push(
                Type::primitive_type_builder(name, Physical::DOUBLE)
                    .with_repetition(Repetition::OPTIONAL)
                    .build()?,
            );
        }
        let schema = Type::group_type_builder("results")
            .with_fields(fields.into_iter().map(Arc::new).collect())
            .build()?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        Ok(Self {
            writer: SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?,
            group: Group::of(&columns),
            columns,
        })
    }

    /// Takes a row; every so many of them are written.
    pub fn row(&mut self, line: &Line) -> anyhow::Result<()> {
        let group = &mut self.group;
        group.times.push(line.time.timestamp_micros());
        group.anomalous.push(line.anomalous);
        let reason = line.reason.as_deref().map(ByteArray::from);
        group.reasons.push(reason);
        group.scores.push(line.score);
        for (column, share) in group.shares.iter_mut().zip(self.columns.shares(line)) {
            column.push(share);
        }
        let rows = group.times.len();
        if rows >= GROUP_ROWS || rows * (self.columns.names.len() + 4) >= GROUP_VALUES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is left, and the footer.
    pub fn end(mut self) -> anyhow::Result<()> {
        if !self.group.times.is_empty() {
            self.flush()?;
        }
        self.writer.close().context("closing the Parquet file")?;
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let rows = std::mem::replace(&mut self.group, Group::of(&self.columns));
        let mut group = self.writer.next_row_group()?;
        column::<Int64Type, _>(&mut group, &rows.times, None)?;
        column::<BoolType, _>(&mut group, &rows.anomalous, None)?;
        optional::<ByteArrayType, _>(&mut group, rows.reasons)?;
        optional::<DoubleType, _>(&mut group, rows.scores)?;
        for shares in rows.shares {
            optional::<DoubleType, _>(&mut group, shares)?;
        }
        group.close()?;
        Ok(())
    }
}

impl Group {
    fn of(columns: &Columns) -> Self {
        Self {
            shares: vec![Vec::new(); columns.names.len()],
            ..Self::default()
        }
    }
}

fn column<D, W>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[D::T],
    definition: Option<&[i16]>,
) -> anyhow::Result<()>
where
    D: parquet::data_type::DataType,
    W: Write + Send,
{
    let Some(mut column) = group.next_column()? else {
        bail!("the schema has fewer columns than were written");
    };
    column.typed::<D>().write_batch(values, definition, None)?;
    column.close()?;
    Ok(())
}

fn optional<D, W>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: Vec<Option<D::T>>,
) -> anyhow::Result<()>
where
    D: parquet::data_type::DataType,
    W: Write + Send,
{
    let definition: Vec<i16> = values
        .iter()
        .map(|value| i16::from(value.is_some()))
        .collect();
    let present: Vec<D::T> = values.into_iter().flatten().collect();
    column::<D, W>(group, &present, Some(&definition))
}

#[cfg(test)]
mod tests {
    use super::super::read_results;
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    fn lines() -> Vec<Line> {
        let text = concat!(
            "{\"timestamp\": \"2026-03-01T10:05:00.000000\", \"prediction\": 0}\n",
            "{\"timestamp\": \"2026-03-01T10:10:00.000000\", \"prediction\": 1, \"prediction_reason\": \"ANOMALY_DETECTED\", ",
            "\"anomaly_score\": 0.75, \"diagnostics\": [{\"name\": \"a\\\\x\", \"value\": 0.25}, {\"name\": \"b\\\\y\", \"value\": 0.75}]}\n",
        );
        read_results(text.as_bytes()).unwrap()
    }

    fn columns(lines: &[Line]) -> Columns {
        let mut columns = Columns::default();
        for line in lines {
            columns.take(line);
        }
        columns
    }

    #[test]
    fn csv_has_one_column_per_sensor_and_empty_cells_where_nothing_is_said() {
        let mut out = Vec::new();
        let mut table = CsvTable::begin(&mut out, columns(&lines())).unwrap();
        for line in lines() {
            table.row(&line).unwrap();
        }
        table.end().unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "timestamp,anomalous,reason,score,a\\x,b\\y\n\
             2026-03-01T10:05:00.000000,0,,,,\n\
             2026-03-01T10:10:00.000000,1,ANOMALY_DETECTED,0.75,0.25,0.75\n"
        );
    }

    fn parquet(lines: &[Line], times: usize) -> SerializedFileReader<bytes::Bytes> {
        let mut out = Vec::new();
        let mut table = ParquetTable::begin(&mut out, columns(lines)).unwrap();
        for _ in 0..times {
            for line in lines {
                table.row(line).unwrap();
            }
        }
        table.end().unwrap();
        SerializedFileReader::new(bytes::Bytes::from(out)).unwrap()
    }

    #[test]
    fn parquet_reads_back_as_it_was() {
        let reader = parquet(&lines(), 1);
        let rows: Vec<_> = reader
            .get_row_iter(None)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(rows.len(), 2);
        assert!(rows[0].get_string(2).is_err() && rows[0].get_double(3).is_err());
        assert_eq!(
            rows[1].get_timestamp_micros(0).unwrap(),
            lines()[1].time.timestamp_micros()
        );
        assert!(rows[1].get_bool(1).unwrap());
        assert_eq!(rows[1].get_string(2).unwrap(), "ANOMALY_DETECTED");
        assert_eq!(rows[1].get_double(5).unwrap(), 0.75);
        assert_eq!(parquet(&[], 1).metadata().file_metadata().num_rows(), 0);
    }

    #[test]
    fn a_parquet_table_is_written_group_by_group_and_every_row_is_in_one() {
        let reader = parquet(&lines(), 50_001);
        let rows: Vec<i64> = reader
            .metadata()
            .row_groups()
            .iter()
            .map(|group| group.num_rows())
            .collect();
        assert_eq!(rows, [50_000, 50_000, 2]);
    }
}
