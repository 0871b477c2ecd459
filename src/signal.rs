//! The vocabulary: asset, cadence, window, component, frame, rebase, input file.
//!
//! Guarantees: everything here is a pure function of its arguments; all time is UTC; an instant is either a
//! `DateTime<Utc>` or an `i64` of microseconds since 1970-01-01T00:00:00Z ("micros").
//! Deliberately absent: clocks, networks, S3, Parquet. The one thing that touches a disk is `TagList::read`.

mod asset;
mod cadence;
mod component;
mod frame;
mod input_file;
mod mapping;
mod rebase;
pub mod timestamp;
mod window;

pub use asset::Asset;
pub use cadence::{Cadence, CadenceError};
pub use component::{Component, Place, Scale, TagList, TagListError};
pub use frame::{ABSENT, BAD, Column, Frame, Values, WORD};
pub use input_file::{
    Delimiter, DelimiterError, InputFileNameError, NameFormat, TimestampFormat,
    TimestampFormatError, ZoneOffset, ZoneOffsetError,
};
pub use mapping::{Earlier, Mapping};
pub use rebase::{Rebase, Segment};
pub use window::{RowRule, RowRuleError, Window, WindowError};
