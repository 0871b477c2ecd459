//! Results as tables for other programs: CSV, and Parquet through the low-level column writers.
//!
//! One row per line of results: when, anomalous or not, reason, score, then one column per sensor with its share. A share
//! that a line does not give is empty (NULL in Parquet). Columns come in the order sensors first appear.

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

/// Rows of a Parquet row group; what is held at once beside the lines.
const GROUP_ROWS: usize = 50_000;

/// Writes `timestamp,anomalous,reason,score,<component\sensor>,...`.
pub fn write_csv(out: impl Write, lines: &[Line]) -> anyhow::Result<()> {
    let sensors = sensors(lines);
    let mut writer = csv::Writer::from_writer(out);
    let header = ["timestamp", "anomalous", "reason", "score"];
    writer.write_record(header.into_iter().chain(sensors.iter().copied()))?;
    for line in lines {
        let mut record = vec![
            line.time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
            u8::from(line.anomalous).to_string(),
            line.reason.clone().unwrap_or_default(),
            line.score
                .map(|score| score.to_string())
                .unwrap_or_default(),
        ];
        let shares = shares(line);
        record.extend(
            sensors
                .iter()
                .map(|sensor| shares.get(sensor).map(f64::to_string).unwrap_or_default()),
        );
        writer.write_record(record)?;
    }
    writer.flush()?;
    Ok(())
}

/// Writes a Parquet file: `timestamp` (microseconds UTC), `anomalous`, `reason`, `score`, and a double per sensor.
pub fn write_parquet(out: impl Write + Send, lines: &[Line]) -> anyhow::Result<()> {
    let sensors = sensors(lines);
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
    for name in std::iter::once("score").chain(sensors.iter().copied()) {
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
    let mut writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
    for lines in lines.chunks(GROUP_ROWS) {
        let mut group = writer.next_row_group()?;
        let times: Vec<i64> = lines
            .iter()
            .map(|line| line.time.timestamp_micros())
            .collect();
        column::<Int64Type, _>(&mut group, &times, None)?;
        let anomalous: Vec<bool> = lines.iter().map(|line| line.anomalous).collect();
        column::<BoolType, _>(&mut group, &anomalous, None)?;
        let reasons: Vec<Option<ByteArray>> = lines
            .iter()
            .map(|line| line.reason.as_deref().map(ByteArray::from))
            .collect();
        optional::<ByteArrayType, _>(&mut group, reasons)?;
        optional::<DoubleType, _>(&mut group, lines.iter().map(|line| line.score).collect())?;
        let shares: Vec<_> = lines.iter().map(shares).collect();
        for sensor in &sensors {
            let values = shares.iter().map(|shares| shares.get(sensor).copied());
            optional::<DoubleType, _>(&mut group, values.collect())?;
        }
        group.close()?;
    }
    writer.close().context("closing the Parquet file")?;
    Ok(())
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

/// Every sensor of the lines, in the order of first appearance.
fn sensors(lines: &[Line]) -> Vec<&str> {
    let mut seen = std::collections::HashSet::new();
    lines
        .iter()
        .flat_map(|line| &line.sensors)
        .map(|(name, _)| name.as_str())
        .filter(|name| seen.insert(*name))
        .collect()
}

fn shares(line: &Line) -> HashMap<&str, f64> {
    line.sensors
        .iter()
        .map(|(name, share)| (name.as_str(), *share))
        .collect()
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

    #[test]
    fn csv_has_one_column_per_sensor_and_empty_cells_where_nothing_is_said() {
        let mut out = Vec::new();
        write_csv(&mut out, &lines()).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "timestamp,anomalous,reason,score,a\\x,b\\y\n\
             2026-03-01T10:05:00.000000,0,,,,\n\
             2026-03-01T10:10:00.000000,1,ANOMALY_DETECTED,0.75,0.25,0.75\n"
        );
    }

    #[test]
    fn parquet_reads_back_as_it_was() {
        let mut out = Vec::new();
        write_parquet(&mut out, &lines()).unwrap();
        let reader = SerializedFileReader::new(bytes::Bytes::from(out)).unwrap();
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
        write_parquet(Vec::new(), &[]).unwrap();
    }
}
