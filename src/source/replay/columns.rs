//! Columns of samples in the types they were recorded in, put together.
//!
//! Guarantees: files that disagree in a column's type give the type that one file with all of their rows would have: missing
//! or fractional numbers make integers doubles, as pandas' `concat` does.

use std::ops::Range;

use crate::signal::{Column, Frame, TagList, Values};

/// The type of a column's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    F64,
    F32,
    I64,
    Bool,
}

impl Form {
    /// A column without samples.
    pub fn empty(self) -> Values {
        match self {
            Form::F64 => Values::F64(Vec::new()),
            Form::F32 => Values::F32(Vec::new()),
            Form::I64 => Values::I64(Vec::new()),
            Form::Bool => Values::Bool(Vec::new()),
        }
    }

    /// The form of a column that has one of these in each file, or none; `None` where no file has it.
    pub fn of(forms: impl Iterator<Item = Option<Form>>) -> Option<Form> {
        let (mut all, mut lacking) = (None, false);
        for form in forms {
            match (form, all) {
                (None, _) => lacking = true,
                (Some(form), None) => all = Some(form),
                (Some(form), Some(known)) if form == known => {}
                (Some(_), Some(_)) => all = Some(Form::F64),
            }
        }
        match all {
            Some(Form::I64) if lacking => Some(Form::F64),
            all => all,
        }
    }
}

/// A column of the same type without samples.
fn nothing(like: &Values) -> Values {
    match like {
        Values::F64(_) => Values::F64(Vec::new()),
        Values::F32(_) => Values::F32(Vec::new()),
        Values::I64(_) => Values::I64(Vec::new()),
        Values::Bool(_) => Values::Bool(Vec::new()),
    }
}

/// Appends these rows of a column of the same type.
pub(super) fn append(column: &mut Values, from: &Values, rows: &[usize]) {
    match (column, from) {
        (Values::F64(column), Values::F64(from)) => {
            column.extend(rows.iter().map(|row| from[*row]))
        }
        (Values::F32(column), Values::F32(from)) => {
            column.extend(rows.iter().map(|row| from[*row]))
        }
        (Values::I64(column), Values::I64(from)) => {
            column.extend(rows.iter().map(|row| from[*row]))
        }
        (Values::Bool(column), Values::Bool(from)) => {
            column.extend(rows.iter().map(|row| from[*row]))
        }
        // A column's type is fixed when the history is opened, so the two never differ.
        _ => {}
    }
}

/// Appends a file's column to that of all files, whose form holds it (see [`Form::of`]). A file without the column has doubles
/// that are missing.
pub(super) fn join(column: &mut Values, from: &Values) {
    let rows = 0..from.len();
    match (column, from) {
        (Values::F64(column), from) => column.extend(rows.map(|row| from.get(row))),
        (Values::F32(column), Values::F32(from)) => column.extend(from),
        (Values::F32(column), _) => column.extend(rows.map(|_| f32::NAN)),
        (Values::I64(column), Values::I64(from)) => column.extend(from),
        (Values::I64(column), _) => column.extend(rows.map(|_| None)),
        (Values::Bool(column), Values::Bool(from)) => column.extend(from),
        (Values::Bool(column), _) => column.extend(rows.map(|_| None)),
    }
}

/// Sorts rows by time, keeps the last recorded of each time, and returns how many were dropped.
pub(super) fn sort_and_keep_last(times: &mut Vec<i64>, columns: &mut [Values]) -> usize {
    if times.windows(2).all(|pair| pair[0] < pair[1]) {
        return 0;
    }
    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by_key(|row| times[*row]);
    let kept: Vec<usize> = order
        .iter()
        .enumerate()
        .filter(|(at, row)| {
            order
                .get(at + 1)
                .is_none_or(|next| times[*next] != times[**row])
        })
        .map(|(_, row)| *row)
        .collect();
    let dropped = times.len() - kept.len();
    *times = kept.iter().map(|row| times[*row]).collect();
    for column in columns {
        let mut sorted = nothing(column);
        append(&mut sorted, column, &kept);
        *column = sorted;
    }
    dropped
}

/// Rows that one file gave, and which columns it has.
pub(super) type Piece = (Range<usize>, Vec<bool>);

/// As [`sort_and_keep_last`], for rows of files that have not the same columns, or of which each has some values alone: of one
/// time each value is that of the last row whose file has its column and recorded something for it. Returns of how many rows nothing was kept.
pub(super) fn sort_and_merge(
    times: &mut Vec<i64>,
    columns: &mut [Values],
    pieces: &[Piece],
) -> usize {
    let has = |row: usize, at: usize, column: &Values| {
        let piece = pieces.partition_point(|(rows, _)| rows.end <= row);
        let of_file = pieces.get(piece).is_some_and(|(_, has)| has[at]);
        of_file && !column.is_absent(row)
    };
    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by_key(|row| times[*row]);
    let alike: Vec<&[usize]> = order.chunk_by(|a, b| times[*a] == times[*b]).collect();
    let mut kept = vec![false; times.len()];
    for (at, column) in columns.iter_mut().enumerate() {
        let mut rows = Vec::with_capacity(alike.len());
        for one in &alike {
            let found = one.iter().rev().find(|row| has(**row, at, column));
            if let Some(row) = found {
                kept[*row] = true;
            }
            rows.extend(found.or(one.last()));
        }
        let mut merged = nothing(column);
        append(&mut merged, column, &rows);
        *column = merged;
    }
    let merged = alike.iter().filter_map(|one| one.first());
    *times = merged.map(|row| times[*row]).collect();
    kept.iter().filter(|kept| !**kept).count()
}

/// One frame per component, each with its columns of all.
pub(super) fn frames(tags: &TagList, times: &[i64], columns: Vec<Values>) -> Vec<Frame> {
    let mut columns = columns.into_iter();
    tags.components
        .iter()
        .map(|component| Frame {
            component: component.name.clone(),
            times: times.to_vec(),
            columns: component
                .signals
                .iter()
                .zip(columns.by_ref())
                .map(|(name, values)| Column {
                    name: name.clone(),
                    values,
                })
                .collect(),
        })
        .collect()
}
