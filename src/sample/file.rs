//! The history as pandas would have written it: optional doubles, the index `Timestamp` last, and the metadata from
//! which `read_table(...).to_pandas()` restores that index.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

/// A Parquet file being written, one row group at a time.
pub(super) struct HistoryFile<W: Write + Send> {
    writer: SerializedFileWriter<W>,
}

impl<W: Write + Send> HistoryFile<W> {
    pub fn create(out: W, signals: &[String]) -> Result<Self, ParquetError> {
        let mut fields = Vec::with_capacity(signals.len() + 1);
        for signal in signals {
            let field = Type::primitive_type_builder(signal, Physical::DOUBLE);
            fields.push(Arc::new(
                field.with_repetition(Repetition::OPTIONAL).build()?,
            ));
        }
        let time = Type::primitive_type_builder("Timestamp", Physical::INT64)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(Some(LogicalType::timestamp(false, TimeUnit::MICROS)));
        fields.push(Arc::new(time.build()?));
        let schema = Type::group_type_builder("schema")
            .with_fields(fields)
            .build()?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(vec![KeyValue::new(
                "pandas".to_owned(),
                pandas_metadata(signals),
            )]))
            .build();
        Ok(HistoryFile {
            writer: SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?,
        })
    }

    /// Writes one row group; `columns` yields the signals' samples in order, NaN where one is missing.
    pub fn write(
        &mut self,
        micros: &[i64],
        columns: impl Iterator<Item = Vec<f64>>,
    ) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        let mut levels = Vec::with_capacity(micros.len());
        for mut values in columns {
            levels.clear();
            levels.extend(values.iter().map(|value| i16::from(!value.is_nan())));
            values.retain(|value| !value.is_nan());
            write_column::<_, DoubleType>(&mut group, &values, &levels)?;
        }
        write_column::<_, Int64Type>(&mut group, micros, &vec![1; micros.len()])?;
        group.close()?;
        Ok(())
    }

    pub fn close(self) -> Result<W, ParquetError> {
        self.writer.into_inner()
    }
}

fn write_column<W: Write + Send, T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: &[i16],
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General(
            "more columns than the schema has".to_owned(),
        ));
    };
    column
        .typed::<T>()
        .write_batch(values, Some(levels), None)?;
    column.close()
}

/// The `pandas` entry of the footer, by the specification in pandas' developer guide.
fn pandas_metadata(signals: &[String]) -> String {
    let column = |name: &str, pandas_type: &str, numpy_type: &str| {
        serde_json::json!({
            "name": name, "field_name": name, "pandas_type": pandas_type, "numpy_type": numpy_type, "metadata": null
        })
    };
    let mut columns: Vec<_> = signals
        .iter()
        .map(|signal| column(signal, "float64", "float64"))
        .collect();
    columns.push(column("Timestamp", "datetime", "datetime64[us]"));
    serde_json::json!({
        "index_columns": ["Timestamp"],
        "column_indexes": [{
            "name": null, "field_name": null, "pandas_type": "unicode", "numpy_type": "object",
            "metadata": {"encoding": "UTF-8"}
        }],
        "columns": columns,
        "creator": {"library": "lookoutd", "version": env!("CARGO_PKG_VERSION")},
        "pandas_version": "2.0.0"
    })
    .to_string()
}
