//! Which columns of a Parquet file are the time and the signals, and in which type each is read.
//!
//! Guarantees: every problem of a file is found at once and named; nothing is guessed where two columns could be meant.

use std::collections::{HashMap, HashSet};

use parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};
use serde::{Deserialize, Serialize};

use super::columns::Form;
use crate::signal::TagList;
use crate::source::shape::{Shape, Ticks};

/// Where everything is in a file.
pub(super) struct Layout {
    pub time: TimeColumn,
    /// In the tag list's order; `None` where there is no such column.
    pub signals: Vec<Option<SignalColumn>>,
}

/// What a tag without a column is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// A problem.
    Refused,
    /// A column without a value.
    Empty,
}

/// The time column.
pub(super) struct TimeColumn {
    pub index: usize,
    pub descr: ColumnDescPtr,
    pub unit: Unit,
    /// Whether a time is what a clock shows, and not yet an instant.
    pub local: bool,
}

/// One signal's column.
pub(super) struct SignalColumn {
    pub index: usize,
    pub descr: ColumnDescPtr,
    pub kind: Kind,
}

/// What the time column counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
    Int96,
    /// A number that counts this from 1970 on.
    Count(Ticks),
    /// A text.
    Text,
}

/// In which type a signal is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Kind {
    F64,
    F32,
    Bool,
    /// Integers; `unsigned` ones are stored in the signed type's bits.
    Integer {
        unsigned: bool,
    },
    /// Integers of a column that has missing ones, or some beyond `i64`: read as doubles, as pandas does.
    IntegerAsF64 {
        unsigned: bool,
    },
    /// Integers of which the last `scale` digits are behind the point, in 4, 8 or up to 16 bytes: read as doubles.
    Decimal {
        scale: u32,
    },
    /// Half precision, in two bytes: read as doubles.
    F16,
    /// Numbers as texts, read as doubles; a word is a missing value.
    Text,
}

impl Kind {
    /// The type of its samples.
    pub fn form(self) -> Form {
        match self {
            Kind::F64
            | Kind::IntegerAsF64 { .. }
            | Kind::Decimal { .. }
            | Kind::F16
            | Kind::Text => Form::F64,
            Kind::F32 => Form::F32,
            Kind::Integer { .. } => Form::I64,
            Kind::Bool => Form::Bool,
        }
    }
}

impl Layout {
    /// Whether there is a column for a tag at all.
    pub fn has_any(schema: &SchemaDescriptor, tags: &TagList) -> bool {
        let columns = schema.columns().iter();
        let names: HashSet<&str> = columns
            .map(|column| column.path().parts()[0].as_str())
            .collect();
        tags.tags().any(|(_, tag)| names.contains(tag))
    }

    /// Finds the time column and every tag's column, or says all that is wrong.
    pub fn of(
        schema: &SchemaDescriptor,
        tags: &TagList,
        shape: &Shape,
        absent: Absent,
    ) -> Result<Layout, Vec<String>> {
        let mut problems = Vec::new();
        let time = find_time(schema, tags, shape)
            .map_err(|problem| problems.push(problem))
            .ok();
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, column) in schema.columns().iter().enumerate() {
            by_name
                .entry(column.path().parts()[0].as_str())
                .or_default()
                .push(index);
        }
        let mut signals = Vec::new();
        let mut missing = Vec::new();
        for (component, tag) in tags.tags() {
            let component = &tags.components[component].name;
            match by_name.get(tag).map(Vec::as_slice) {
                None if absent == Absent::Empty => signals.push(None),
                None => missing.push(tag),
                Some([index]) => {
                    let descr = schema.column(*index);
                    match kind_of(&descr) {
                        Ok(kind) => signals.push(Some(SignalColumn { index: *index, descr, kind })),
                        Err(found) => problems.push(format!(
                            "column \"{tag}\" ({component}) is {found}; a signal must be a float, integer, decimal or boolean column"
                        )),
                    }
                }
                Some(several)
                    if several
                        .iter()
                        .any(|index| schema.column(*index).path().parts().len() > 1) =>
                {
                    problems.push(format!(
                        "column \"{tag}\" ({component}) is nested; flatten it to one plain column"
                    ));
                }
                Some(several) => problems.push(format!(
                    "column \"{tag}\" appears {} times; keep one",
                    several.len()
                )),
            }
        }
        if !missing.is_empty() {
            problems.push(describe_missing(&missing, by_name.keys().copied()));
        }
        match time {
            Some(time) if problems.is_empty() => Ok(Layout { time, signals }),
            _ => Err(problems),
        }
    }
}

impl Layout {
    /// Columns of which it must be known whether they have nulls.
    pub fn nullable_integers(&self) -> Vec<usize> {
        self.signals
            .iter()
            .flatten()
            .filter(|signal| {
                matches!(signal.kind, Kind::Integer { .. }) && signal.descr.max_def_level() > 0
            })
            .map(|signal| signal.index)
            .collect()
    }
}

/// Tags without a column, and the columns they may be meant to be.
pub(super) fn describe_missing<'a>(
    missing: &[&str],
    columns: impl Iterator<Item = &'a str>,
) -> String {
    const SHOWN: usize = 10;
    let mut columns: Vec<&str> = columns.collect();
    columns.sort_unstable();
    let described = missing.iter().take(SHOWN).map(|tag| {
        let nearest = columns
            .iter()
            .map(|column| {
                (
                    strsim::damerau_levenshtein(&tag.to_lowercase(), &column.to_lowercase()),
                    *column,
                )
            })
            .min()
            .filter(|(distance, _)| *distance <= tag.len() / 4 + 1);
        match nearest {
            Some((_, column)) if !missing.contains(&column) => {
                format!("\"{tag}\" (did you mean \"{column}\"?)")
            }
            _ => format!("\"{tag}\""),
        }
    });
    let listed = described.collect::<Vec<_>>().join(", ");
    let more = missing.len().saturating_sub(SHOWN);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!(
        "{} tag(s) of the tag list have no column: {listed}{more}; the file has {} columns",
        missing.len(),
        columns.len()
    )
}

pub(super) fn find_time(
    schema: &SchemaDescriptor,
    tags: &TagList,
    shape: &Shape,
) -> Result<TimeColumn, String> {
    let plain = |column: &ColumnDescPtr| column.path().parts().len() == 1;
    let columns = || {
        schema
            .columns()
            .iter()
            .enumerate()
            .filter(|(_, column)| plain(column))
    };
    let take = |(index, column): (usize, &ColumnDescPtr)| match unit_of(column)
        .or_else(|| count_of(column, shape.ticks))
    {
        Some(unit) => Ok(TimeColumn {
            index,
            descr: column.clone(),
            unit,
            local: is_local(column, unit),
        }),
        None if is_number(column) => Err(format!(
            "column \"{}\" is {}: set source.time_unit to what it counts from 1970 on, s, ms, us or ns",
            column.name(),
            describe(column)
        )),
        None => Err(format!(
            "column \"{}\" is {}, not a timestamp; write it as a timestamp of milliseconds, microseconds or nanoseconds",
            column.name(),
            describe(column)
        )),
    };
    if !shape.time.is_empty() {
        let called: Vec<_> = columns()
            .filter(|(_, column)| column.name() == shape.time)
            .collect();
        return match called.as_slice() {
            [one] => take(*one),
            [] => Err(format!(
                "no column is called \"{}\" as source.time_column says; {}",
                shape.time,
                names(columns().map(|(_, column)| column.name()))
            )),
            _ => Err(format!(
                "several columns are called {}; keep one",
                shape.time
            )),
        };
    }
    let named: Vec<_> = columns()
        .filter(|(_, column)| column.name().eq_ignore_ascii_case("timestamp"))
        .collect();
    match named.as_slice() {
        [one] => return take(*one),
        [] => {}
        several => {
            return match several
                .iter()
                .filter(|(_, column)| column.name() == "Timestamp")
                .collect::<Vec<_>>()[..]
            {
                [one] => take(*one),
                _ => Err("several columns are called Timestamp; keep one".to_owned()),
            };
        }
    }
    let is_tag = |name: &str| tags.tags().any(|(_, tag)| tag == name);
    let typed: Vec<_> = columns()
        .filter(|(_, column)| unit_of(column).is_some() && !is_tag(column.name()))
        .collect();
    match typed.as_slice() {
        [one] => take(*one),
        [] => Err(
            "no timestamp column; expected one called Timestamp, or one column of a timestamp type; \
             source.time_column names another"
                .to_owned(),
        ),
        several => Err(format!(
            "cannot tell which is the timestamp column: {}; call one of them Timestamp, or name it in source.time_column",
            several
                .iter()
                .map(|(_, column)| format!("\"{}\"", column.name()))
                .collect::<Vec<_>>()
                .join(", ")
        )),
    }
}

/// The first of the names of a file's columns.
fn names<'a>(columns: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let all: Vec<&str> = columns.collect();
    let more = if all.len() > SHOWN { ", ..." } else { "" };
    let shown = all.iter().take(SHOWN).copied().collect::<Vec<_>>();
    format!("the file has {}{more}", shown.join(", "))
}

/// Whether a column may count something, and its type says not what.
fn is_number(column: &ColumnDescPtr) -> bool {
    let plain = matches!(
        (column.logical_type_ref(), column.converted_type()),
        (Some(LogicalType::Integer(_)), _)
            | (
                None,
                ConvertedType::NONE
                    | ConvertedType::INT_32
                    | ConvertedType::INT_64
                    | ConvertedType::UINT_32
                    | ConvertedType::UINT_64
            )
    );
    plain
        && column.max_rep_level() == 0
        && matches!(
            column.physical_type(),
            Physical::INT32 | Physical::INT64 | Physical::FLOAT | Physical::DOUBLE
        )
}

/// What a column of numbers counts, or a column of texts is.
fn count_of(column: &ColumnDescPtr, ticks: Option<Ticks>) -> Option<Unit> {
    match ticks {
        _ if is_text(column) => Some(Unit::Text),
        Some(ticks) if is_number(column) => Some(Unit::Count(ticks)),
        _ => None,
    }
}

fn is_text(column: &ColumnDescPtr) -> bool {
    let text = matches!(
        (column.logical_type_ref(), column.converted_type()),
        (Some(LogicalType::String), _) | (None, ConvertedType::UTF8)
    );
    text && column.max_rep_level() == 0 && column.physical_type() == Physical::BYTE_ARRAY
}

/// Whether a column has what a clock shows. Its older types say nothing of it, as Arrow understands them.
fn is_local(column: &ColumnDescPtr, unit: Unit) -> bool {
    match column.logical_type_ref() {
        Some(LogicalType::Timestamp(timestamp)) => !timestamp.is_adjusted_to_u_t_c,
        _ => !matches!(unit, Unit::Count(_)),
    }
}

fn unit_of(column: &ColumnDescPtr) -> Option<Unit> {
    if column.max_rep_level() > 0 {
        return None;
    }
    match (
        column.physical_type(),
        column.logical_type_ref(),
        column.converted_type(),
    ) {
        (Physical::INT96, _, _) => Some(Unit::Int96),
        (Physical::INT64, Some(LogicalType::Timestamp(timestamp)), _) => {
            Some(match timestamp.unit {
                TimeUnit::MILLIS => Unit::Millis,
                TimeUnit::MICROS => Unit::Micros,
                TimeUnit::NANOS => Unit::Nanos,
            })
        }
        (Physical::INT64, None, ConvertedType::TIMESTAMP_MILLIS) => Some(Unit::Millis),
        (Physical::INT64, None, ConvertedType::TIMESTAMP_MICROS) => Some(Unit::Micros),
        _ => None,
    }
}

pub(super) fn kind_of(column: &ColumnDescPtr) -> Result<Kind, String> {
    if column.path().parts().len() > 1
        || column.get_basic_info().repetition() == Repetition::REPEATED
    {
        return Err("nested".to_owned());
    }
    let unsigned = match (column.logical_type_ref(), column.converted_type()) {
        (None, ConvertedType::NONE) => false,
        (Some(LogicalType::Decimal(_)), _) | (None, ConvertedType::DECIMAL) => {
            return decimal_of(column);
        }
        (Some(LogicalType::Float16), _)
            if column.physical_type() == Physical::FIXED_LEN_BYTE_ARRAY =>
        {
            return Ok(Kind::F16);
        }
        (Some(LogicalType::Integer(integer)), _) => !integer.is_signed,
        // What Arrow writes for a column without a single value.
        (Some(LogicalType::Unknown), _) if column.physical_type() == Physical::INT32 => {
            return Ok(Kind::IntegerAsF64 { unsigned: false });
        }
        (
            None,
            ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64,
        ) => true,
        (
            None,
            ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::INT_64,
        ) => false,
        _ if is_text(column) => return Ok(Kind::Text),
        _ => return Err(describe(column)),
    };
    match column.physical_type() {
        Physical::DOUBLE => Ok(Kind::F64),
        Physical::FLOAT => Ok(Kind::F32),
        Physical::BOOLEAN => Ok(Kind::Bool),
        Physical::INT32 | Physical::INT64 => Ok(Kind::Integer { unsigned }),
        Physical::INT96 | Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY => {
            Err(describe(column))
        }
    }
}

fn decimal_of(column: &ColumnDescPtr) -> Result<Kind, String> {
    let fits = match column.physical_type() {
        Physical::INT32 | Physical::INT64 | Physical::BYTE_ARRAY => true,
        Physical::FIXED_LEN_BYTE_ARRAY => (1..=16).contains(&column.type_length()),
        _ => false,
    };
    match u32::try_from(column.type_scale()) {
        Ok(scale) if fits && scale <= 38 => Ok(Kind::Decimal { scale }),
        _ => Err("a decimal column of more than 38 digits".to_owned()),
    }
}

fn describe(column: &ColumnDescPtr) -> String {
    let what = match (
        column.logical_type_ref(),
        column.converted_type(),
        column.physical_type(),
    ) {
        (Some(LogicalType::String), _, _) | (_, ConvertedType::UTF8, _) => "a text column",
        (Some(LogicalType::Decimal(_)), _, _) | (_, ConvertedType::DECIMAL, _) => {
            "a decimal column"
        }
        (Some(LogicalType::Date), _, _) | (_, ConvertedType::DATE, _) => "a date column",
        (Some(LogicalType::Time(_)), _, _) => "a time-of-day column",
        (Some(LogicalType::Timestamp(_)), _, _) | (_, _, Physical::INT96) => "a timestamp column",
        (Some(LogicalType::Float16), _, _) => "a half-precision column",
        (None, ConvertedType::NONE, physical) => return format!("a plain {physical} column"),
        (logical, converted, physical) => {
            return match logical {
                Some(logical) => format!("a {physical} column of type {logical:?}"),
                None => format!("a {physical} column of type {converted}"),
            };
        }
    };
    what.to_owned()
}
