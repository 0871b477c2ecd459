//! Reads a stretch of rows of one column chunk into plain vectors, with Parquet's typed column readers.
//!
//! Guarantees: exactly the rows asked for, or an error; a null is `None`, or NaN in a float column.

use std::sync::Arc;

use parquet::basic::Type as Physical;
use parquet::column::reader::{
    ColumnReader, ColumnReaderImpl, get_column_reader, get_typed_column_reader,
};
use parquet::data_type::{
    BoolType, ByteArrayType, DataType, DoubleType, FixedLenByteArrayType, FloatType, Int32Type,
    Int64Type, Int96, Int96Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::ChunkReader;

use super::contain::contained;
use super::layout::{Kind, SignalColumn, TimeColumn, Unit};
use super::pages::Pages;
use crate::signal::{Values, WORD};
use crate::source::shape::{Shape, Ticks};

/// A reader of one column of one row group, at its first row.
pub(super) fn column_reader<R: ChunkReader + 'static>(
    reader: &Arc<R>,
    chunk: &ColumnChunkMetaData,
    rows: u64,
) -> Result<ColumnReader, ParquetError> {
    let pages = Pages::of(reader.clone(), chunk, rows)?;
    Ok(get_column_reader(chunk.column_descr_ptr(), Box::new(pages)))
}

/// A reader of the time column that yields rows in order.
pub(super) struct TimeReader {
    column: TimeCells,
    unit: Unit,
    local: bool,
    shape: Shape,
    /// Rows before the next.
    before: usize,
}

enum TimeCells {
    Int32(ColumnReaderImpl<Int32Type>),
    Int64(ColumnReaderImpl<Int64Type>),
    Int96(ColumnReaderImpl<Int96Type>),
    Float(ColumnReaderImpl<FloatType>),
    Double(ColumnReaderImpl<DoubleType>),
    Text(ColumnReaderImpl<ByteArrayType>),
}

impl TimeReader {
    pub fn new(column: ColumnReader, time: &TimeColumn, shape: &Shape) -> TimeReader {
        let cells = match time.descr.physical_type() {
            Physical::INT32 => TimeCells::Int32(get_typed_column_reader(column)),
            Physical::INT96 => TimeCells::Int96(get_typed_column_reader(column)),
            Physical::FLOAT => TimeCells::Float(get_typed_column_reader(column)),
            Physical::DOUBLE => TimeCells::Double(get_typed_column_reader(column)),
            Physical::BYTE_ARRAY => TimeCells::Text(get_typed_column_reader(column)),
            _ => TimeCells::Int64(get_typed_column_reader(column)),
        };
        TimeReader {
            column: cells,
            unit: time.unit,
            local: time.local,
            shape: shape.clone(),
            before: 0,
        }
    }

    pub fn skip(&mut self, rows: usize) -> Result<(), ParquetError> {
        let skipped = contained(|| match &mut self.column {
            TimeCells::Int32(reader) => reader.skip_records(rows),
            TimeCells::Int64(reader) => reader.skip_records(rows),
            TimeCells::Int96(reader) => reader.skip_records(rows),
            TimeCells::Float(reader) => reader.skip_records(rows),
            TimeCells::Double(reader) => reader.skip_records(rows),
            TimeCells::Text(reader) => reader.skip_records(rows),
        })?;
        self.before += skipped;
        complete(skipped, rows)
    }

    /// The next rows' times in micros; `None` where the time is null.
    pub fn read(&mut self, rows: usize) -> Result<Vec<Option<i64>>, ParquetError> {
        let TimeReader {
            column,
            unit,
            local,
            shape,
            before,
        } = self;
        let instant = |micros: i64| match local {
            true => shape.clock.instant(micros).map(Some),
            false => Ok(Some(micros)),
        };
        let ticks = match unit {
            Unit::Millis => Ticks::Millis,
            Unit::Nanos => Ticks::Nanos,
            Unit::Count(ticks) => *ticks,
            Unit::Micros | Unit::Int96 | Unit::Text => Ticks::Micros,
        };
        // A number that is none is no time, as a null is.
        let count = |count: f64| Ok(ticks.micros_of(count));
        let times = contained(|| match column {
            TimeCells::Int32(reader) => {
                read_rows(reader, rows, |value| instant(ticks.micros(value.into())))
            }
            TimeCells::Int64(reader) => {
                read_rows(reader, rows, |value| instant(ticks.micros(value)))
            }
            TimeCells::Int96(reader) => {
                read_rows(reader, rows, |value| instant(int96_micros(&value)))
            }
            TimeCells::Float(reader) => read_rows(reader, rows, |value| count(value.into())),
            TimeCells::Double(reader) => read_rows(reader, rows, count),
            TimeCells::Text(reader) => {
                read_rows(reader, rows, |value| match value.data().trim_ascii() {
                    [] => Ok(None),
                    text => shape.time_of(text).map(Some),
                })
            }
        })?;
        let first = *before;
        *before += rows;
        let named = |(row, time): (usize, Option<Result<Option<i64>, String>>)| match time {
            Some(Err(problem)) => Err(ParquetError::General(format!(
                "row {} of it (the first is 0): {problem}",
                first + row
            ))),
            Some(Ok(time)) => Ok(time),
            None => Ok(None),
        };
        times.into_iter().enumerate().map(named).collect()
    }
}

/// The samples of rows `skip..skip + rows`.
pub(super) fn read_values(
    column: ColumnReader,
    signal: &SignalColumn,
    skip: usize,
    rows: usize,
) -> Result<Values, ParquetError> {
    contained(|| read_kind(column, signal, skip, rows))
}

fn read_kind(
    column: ColumnReader,
    signal: &SignalColumn,
    skip: usize,
    rows: usize,
) -> Result<Values, ParquetError> {
    let physical = signal.descr.physical_type();
    Ok(match (signal.kind, physical) {
        (Kind::F64, _) => Values::F64(dense::<DoubleType, f64>(
            column,
            skip,
            rows,
            |value| value,
            f64::NAN,
        )?),
        (Kind::F32, _) => Values::F32(dense::<FloatType, f32>(
            column,
            skip,
            rows,
            |value| value,
            f32::NAN,
        )?),
        (Kind::Bool, _) => {
            Values::Bool(sparse::<BoolType, bool>(column, skip, rows, |value| value)?)
        }
        (Kind::Integer { unsigned }, Physical::INT32) => {
            Values::I64(sparse::<Int32Type, i64>(column, skip, rows, |value| {
                widen(value, unsigned)
            })?)
        }
        (Kind::Integer { .. }, _) => {
            Values::I64(sparse::<Int64Type, i64>(column, skip, rows, |value| value)?)
        }
        (Kind::Text, _) => Values::F64(dense::<ByteArrayType, f64>(
            column,
            skip,
            rows,
            |value| number_of(value.data()),
            f64::NAN,
        )?),
        (Kind::F16, _) => Values::F64(dense::<FixedLenByteArrayType, f64>(
            column,
            skip,
            rows,
            |value| half(value.data()),
            f64::NAN,
        )?),
        (Kind::Decimal { scale }, Physical::INT32) => Values::F64(dense::<Int32Type, f64>(
            column,
            skip,
            rows,
            |value| decimal(i128::from(value), scale),
            f64::NAN,
        )?),
        (Kind::Decimal { scale }, Physical::INT64) => Values::F64(dense::<Int64Type, f64>(
            column,
            skip,
            rows,
            |value| decimal(i128::from(value), scale),
            f64::NAN,
        )?),
        (Kind::Decimal { scale }, Physical::BYTE_ARRAY) => {
            Values::F64(dense::<ByteArrayType, f64>(
                column,
                skip,
                rows,
                |value| big_endian(value.data()).map_or(f64::NAN, |digits| decimal(digits, scale)),
                f64::NAN,
            )?)
        }
        (Kind::Decimal { scale }, _) => Values::F64(dense::<FixedLenByteArrayType, f64>(
            column,
            skip,
            rows,
            |value| big_endian(value.data()).map_or(f64::NAN, |digits| decimal(digits, scale)),
            f64::NAN,
        )?),
        (Kind::IntegerAsF64 { unsigned }, Physical::INT32) => Values::F64(dense::<Int32Type, f64>(
            column,
            skip,
            rows,
            |value| widen(value, unsigned) as f64,
            f64::NAN,
        )?),
        (Kind::IntegerAsF64 { unsigned }, _) => Values::F64(dense::<Int64Type, f64>(
            column,
            skip,
            rows,
            |value| {
                if unsigned {
                    value as u64 as f64
                } else {
                    value as f64
                }
            },
            f64::NAN,
        )?),
    })
}

/// Whether an integer column chunk has a null, or an unsigned value beyond `i64`, found by reading it.
pub(super) fn needs_doubles(
    column: ColumnReader,
    signal: &SignalColumn,
    rows: usize,
) -> Result<bool, ParquetError> {
    contained(|| find_null_or_large(column, signal, rows))
}

fn find_null_or_large(
    column: ColumnReader,
    signal: &SignalColumn,
    rows: usize,
) -> Result<bool, ParquetError> {
    const BATCH: usize = 8192;
    let unsigned = matches!(signal.kind, Kind::Integer { unsigned: true });
    let beyond = |value: Option<i64>| value.is_none_or(|value| unsigned && value < 0);
    let mut left = rows;
    if signal.descr.physical_type() == Physical::INT32 {
        let mut reader = get_typed_column_reader::<Int32Type>(column);
        while left > 0 {
            let batch = left.min(BATCH);
            if read_rows(&mut reader, batch, |_| ())?.contains(&None) {
                return Ok(true);
            }
            left -= batch;
        }
    } else {
        let mut reader = get_typed_column_reader::<Int64Type>(column);
        while left > 0 {
            let batch = left.min(BATCH);
            if read_rows(&mut reader, batch, |value| value)?
                .into_iter()
                .any(beyond)
            {
                return Ok(true);
            }
            left -= batch;
        }
    }
    Ok(false)
}

/// A day of the Julian calendar and the nanoseconds of it; the nearest micros that can be written where it is beyond them.
pub(super) fn int96_micros(value: &Int96) -> i64 {
    const EPOCH: i128 = 2_440_588;
    const DAY: i128 = 86_400_000_000;
    let [low, high, day] = [value.data()[0], value.data()[1], value.data()[2]];
    let nanos = i128::from(high) << 32 | i128::from(low);
    let micros = (i128::from(day.cast_signed()) - EPOCH) * DAY + nanos / 1000;
    micros.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// The number that a text is, also of a boolean; a word is a missing value that is counted, and what stands for none is one
/// that is not.
pub(super) fn number_of(text: &[u8]) -> f64 {
    const NONE: [&str; 7] = ["", "nan", "na", "n/a", "null", "none", "-"];
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    match text.parse() {
        Ok(number) => number,
        Err(_) if text.eq_ignore_ascii_case("true") => 1.0,
        Err(_) if text.eq_ignore_ascii_case("false") => 0.0,
        Err(_) if NONE.iter().any(|none| text.eq_ignore_ascii_case(none)) => f64::NAN,
        Err(_) => WORD,
    }
}

/// The double that is nearest to a decimal number.
pub(super) fn decimal(digits: i128, scale: u32) -> f64 {
    // Both are exact doubles, so that their quotient is the nearest one.
    if digits.unsigned_abs() <= 1 << 53 && scale <= 22 {
        return digits as f64 / 10f64.powi(scale.cast_signed());
    }
    format!("{digits}e-{scale}").parse().unwrap_or(f64::NAN)
}

/// A signed number of up to 16 bytes, the highest first; `None` where there are more or none.
pub(super) fn big_endian(bytes: &[u8]) -> Option<i128> {
    let first = *bytes.first()?;
    let mut all = [if first & 0x80 == 0 { 0 } else { 0xff }; 16];
    let from = all.len().checked_sub(bytes.len())?;
    all[from..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(all))
}

/// A number of half precision; the lower byte comes first.
pub(super) fn half(bytes: &[u8]) -> f64 {
    let &[low, high] = bytes else {
        return f64::NAN;
    };
    let bits = u16::from_le_bytes([low, high]);
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

fn widen(value: i32, unsigned: bool) -> i64 {
    if unsigned {
        i64::from(value as u32)
    } else {
        i64::from(value)
    }
}

fn dense<T: DataType, V: Copy>(
    column: ColumnReader,
    skip: usize,
    rows: usize,
    convert: impl Fn(T::T) -> V,
    missing: V,
) -> Result<Vec<V>, ParquetError> {
    let values = sparse::<T, V>(column, skip, rows, convert)?;
    Ok(values
        .into_iter()
        .map(|value| value.unwrap_or(missing))
        .collect())
}

fn sparse<T: DataType, V>(
    column: ColumnReader,
    skip: usize,
    rows: usize,
    convert: impl Fn(T::T) -> V,
) -> Result<Vec<Option<V>>, ParquetError> {
    let mut reader = get_typed_column_reader::<T>(column);
    complete(reader.skip_records(skip)?, skip)?;
    read_rows(&mut reader, rows, convert)
}

pub(super) fn read_rows<T: DataType, V>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    convert: impl Fn(T::T) -> V,
) -> Result<Vec<Option<V>>, ParquetError> {
    let mut values: Vec<T::T> = Vec::with_capacity(rows);
    let mut levels: Vec<i16> = Vec::new();
    let mut read = 0;
    while read < rows {
        let (records, _, _) =
            reader.read_records(rows - read, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            break;
        }
        read += records;
    }
    complete(read, rows)?;
    let mut values = values.into_iter().map(convert);
    if levels.is_empty() {
        return Ok(values.map(Some).collect());
    }
    // Only plain columns are read, so level 1 is a value and level 0 a null.
    Ok(levels
        .into_iter()
        .map(|level| if level > 0 { values.next() } else { None })
        .collect())
}

fn complete(found: usize, expected: usize) -> Result<(), ParquetError> {
    if found == expected {
        return Ok(());
    }
    Err(ParquetError::EOF(format!(
        "expected {expected} rows in a column, found {found}"
    )))
}
