//! The frame: one component's rows of one window, as columns, and its encoding as an input file.
//!
//! Guarantees: every column is as long as `times`; `times` are wall-clock UTC micros in ascending order; the same frame
//! always encodes to the same bytes.
//! Deliberately absent: where rows come from, and which of them belong to a window.

mod csv;

/// One component's rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// The component's name.
    pub component: String,
    /// When each row happened: wall clock, UTC, microseconds since 1970.
    pub times: Vec<i64>,
    /// The signals, in the tag list's order.
    pub columns: Vec<Column>,
}

/// One signal's samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The signal's name.
    pub name: String,
    /// Its samples, one per row.
    pub values: Values,
}

/// A missing sample that was a word, such as `No Data`: told from others by its bits, and written like them.
pub const WORD: f64 = f64::from_bits(0x7ff8_0000_0000_77d5);

/// A missing sample whose quality was bad, likewise.
pub const BAD: f64 = f64::from_bits(0x7ff8_0000_0000_0bad);

/// No sample at all: a cell that nothing was recorded for, in a row that another signal made.
pub const ABSENT: f64 = f64::from_bits(0x7ff8_0000_0000_ab5e);

/// The samples of a column in the type they were recorded in; a missing float is NaN.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Double precision.
    F64(Vec<f64>),
    /// Single precision; its shortest text differs from the double's.
    F32(Vec<f32>),
    /// Integers, written without a point.
    I64(Vec<Option<i64>>),
    /// Switches, written as 1 and 0: the service accepts only numbers (contract 4.1).
    Bool(Vec<Option<bool>>),
}

impl Frame {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// Whether no signal has a value in any row.
    pub fn is_blank(&self) -> bool {
        !self.columns.iter().any(|column| column.values.has_value())
    }

    /// The same component and signals at these times, without a value.
    pub fn blank_at(&self, times: &[i64]) -> Frame {
        let columns = self.columns.iter().map(|column| Column {
            name: column.name.clone(),
            values: Values::F64(vec![f64::NAN; times.len()]),
        });
        Frame {
            component: self.component.clone(),
            times: times.to_vec(),
            columns: columns.collect(),
        }
    }
}

impl Values {
    /// The number of samples.
    pub fn len(&self) -> usize {
        match self {
            Values::F64(values) => values.len(),
            Values::F32(values) => values.len(),
            Values::I64(values) => values.len(),
            Values::Bool(values) => values.len(),
        }
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many samples are infinite; none of them is a number that can be written.
    pub fn infinite(&self) -> usize {
        match self {
            Values::F64(values) => values.iter().filter(|value| value.is_infinite()).count(),
            Values::F32(values) => values.iter().filter(|value| value.is_infinite()).count(),
            Values::I64(_) | Values::Bool(_) => 0,
        }
    }

    /// How many samples are missing because they were words.
    pub fn words(&self) -> usize {
        self.like(WORD)
    }

    /// How many samples are missing because their quality was bad.
    pub fn bad(&self) -> usize {
        self.like(BAD)
    }

    /// Whether nothing was recorded for this row.
    pub fn is_absent(&self, row: usize) -> bool {
        let Values::F64(values) = self else {
            return false;
        };
        values
            .get(row)
            .is_some_and(|value| value.to_bits() == ABSENT.to_bits())
    }

    fn like(&self, wanted: f64) -> usize {
        let is_like = |value: &&f64| value.to_bits() == wanted.to_bits();
        match self {
            Values::F64(values) => values.iter().filter(is_like).count(),
            Values::F32(_) | Values::I64(_) | Values::Bool(_) => 0,
        }
    }

    /// Whether there is a sample that can be written.
    pub fn has_value(&self) -> bool {
        match self {
            Values::F64(values) => values.iter().any(|value| value.is_finite()),
            Values::F32(values) => values.iter().any(|value| value.is_finite()),
            Values::I64(values) => values.iter().any(Option::is_some),
            Values::Bool(values) => values.iter().any(Option::is_some),
        }
    }

    /// The sample of `row` as a number, NaN where it is missing or `row` is out of range.
    pub fn get(&self, row: usize) -> f64 {
        let number = match self {
            Values::F64(values) => values.get(row).copied(),
            Values::F32(values) => values.get(row).map(|value| f64::from(*value)),
            Values::I64(values) => values.get(row).copied().flatten().map(|value| value as f64),
            Values::Bool(values) => values
                .get(row)
                .copied()
                .flatten()
                .map(|value| f64::from(u8::from(value))),
        };
        number.unwrap_or(f64::NAN)
    }
}
