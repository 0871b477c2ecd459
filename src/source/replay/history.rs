//! A Parquet history, checked and indexed: when each chunk of rows happened.
//!
//! Guarantees: opening reads the footer once and the time column once, as a stream, a row group at a time; what is kept is
//! small. A chunk never spans two row groups.

use std::ops::{Deref, RangeInclusive};
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::ChunkReader;
use serde::{Deserialize, Serialize};

use super::super::SourceError;
use super::columns::Form;
use super::decode::{TimeReader, column_reader, needs_doubles, read_values};
use super::extent::Extent;
use super::footer::Footer;
use super::layout::{Absent, Kind, Layout, SignalColumn};
use super::steps::Steps;
use super::strays::Edges;
use crate::signal::{TagList, Values};
use crate::source::shape::Shape;

/// The rows that are decoded together: 17 hours of one-minute rows, 1 MB for 122 signals.
const CHUNK_ROWS: usize = 1024;

/// A checked and indexed history.
pub struct History<R: ChunkReader> {
    name: String,
    tags: TagList,
    shape: Shape,
    reader: Arc<R>,
    footer: Footer<R>,
    layout: Layout,
    index: Index,
    /// How many columns are read at once.
    lanes: usize,
}

/// When the rows of a file happened: what is found by reading its times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Index {
    pub extent: Extent,
    pub chunks: Vec<ChunkSpan>,
    /// The earliest and the latest times, where years lie between some of them.
    pub far: Vec<i64>,
}

impl Index {
    /// The earliest time, also one that lies years from all others.
    pub fn earliest(&self) -> i64 {
        self.far.first().map_or(self.extent.first, |time| *time)
    }

    /// The latest time, also one that lies years from all others.
    pub fn latest(&self) -> i64 {
        self.far.last().map_or(self.extent.last, |time| *time)
    }
}

/// Where a chunk lies and when it happened; `first > last` where it has no time at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ChunkSpan {
    group: u32,
    offset: u32,
    rows: u32,
    first: i64,
    last: i64,
}

/// A decoded chunk: times in recorded micros, and every signal's samples in the tag list's order.
pub(super) struct Chunk {
    /// `i64::MIN` stands for a null time, which no window contains.
    pub times: Vec<i64>,
    pub columns: Vec<Values>,
}

/// Rows of an unsorted history that are put in order at most.
pub(super) const ORDERED_ROWS: usize = 16 << 20;
/// Stands for a time that is null.
pub(super) const NULL_TIME: i64 = i64::MIN;
/// The times that can be written: the years 1 to 9999, in micros.
const YEARS: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// Rows that a file of any size may have, and the more it may have for each of its bytes. A page can claim any number of rows
/// that are all null or all alike in a few bytes, and reading them takes as long as if they were there; a history of a
/// plant has bytes for its rows, few where they compress well. A year of seconds in 30 KB is still let pass.
const FREE_ROWS: u64 = 1 << 20;
const ROWS_PER_BYTE: u64 = 1024;
pub(super) const NOT_PARQUET: &str = "not a Parquet file, or a truncated one";

impl<R: ChunkReader + 'static> History<R> {
    /// Where its bytes come from.
    pub(super) fn reader(&self) -> &R {
        &self.reader
    }

    pub(super) fn open(
        reader: R,
        name: &str,
        tags: &TagList,
        shape: &Shape,
    ) -> Result<History<R>, SourceError> {
        let mut history = Self::begin(reader, name, (tags, shape), Absent::Refused)?;
        history.index()?;
        match history.nothing() {
            Some(problem) => Err(history.invalid(problem)),
            None => Ok(history),
        }
    }

    /// Opens one file of several, which need not have every column; `None` where it has no row with a time, or no column at all
    /// of the tag list.
    pub(super) fn open_part(
        reader: R,
        name: &str,
        tags: &TagList,
        shape: &Shape,
    ) -> Result<Option<History<R>>, SourceError> {
        let reader = Arc::new(reader);
        let footer = Self::footer(&reader, name)?;
        if !Layout::has_any(footer.schema(), tags) {
            return Ok(None);
        }
        let mut history = Self::laid_out(reader, footer, name, (tags, shape), Absent::Empty)?;
        history.index()?;
        Ok(history.nothing().is_none().then_some(history))
    }

    /// Why it has nothing to replay.
    fn nothing(&self) -> Option<String> {
        let extent = &self.index.extent;
        if extent.rows == 0 {
            return Some("the file has no rows".to_owned());
        }
        let column = self.layout.time.descr.name();
        (extent.null_times == extent.rows).then(|| {
            format!("every row of column \"{column}\" is null; there is no time to replay")
        })
    }

    /// Opens a file whose times and kinds of columns are known already; `None` where it has other rows than that.
    pub(super) fn open_known(
        reader: R,
        name: &str,
        wanted: (&TagList, &Shape),
        index: Index,
        kinds: &[Option<Kind>],
    ) -> Result<Option<History<R>>, SourceError> {
        let mut history = Self::begin(reader, name, wanted, Absent::Empty)?;
        let mut rows = Vec::new();
        while let Some(entry) = history
            .footer
            .next()
            .map_err(|error| failed(name, NOT_PARQUET, error))?
        {
            rows.push(group_rows(&entry));
        }
        for span in &index.chunks {
            match rows.get_mut(span.group as usize) {
                Some(left) => *left = left.wrapping_sub(u64::from(span.rows)),
                None => return Ok(None),
            }
        }
        let signals = history.layout.signals.iter().map(Option::is_some);
        if rows.iter().any(|left| *left != 0) || signals.ne(kinds.iter().map(Option::is_some)) {
            return Ok(None);
        }
        for (signal, kind) in history.layout.signals.iter_mut().zip(kinds) {
            if let (Some(signal), Some(kind)) = (signal, kind) {
                signal.kind = *kind;
            }
        }
        history.index = index;
        Ok(Some(history))
    }

    fn begin(
        reader: R,
        name: &str,
        wanted: (&TagList, &Shape),
        absent: Absent,
    ) -> Result<History<R>, SourceError> {
        let reader = Arc::new(reader);
        let footer = Self::footer(&reader, name)?;
        Self::laid_out(reader, footer, name, wanted, absent)
    }

    fn footer(reader: &Arc<R>, name: &str) -> Result<Footer<R>, SourceError> {
        if reader.len() == 0 {
            return Err(invalid(
                name,
                vec!["the file is empty; expected a Parquet file".to_owned()],
            ));
        }
        Footer::open(reader.clone()).map_err(|error| failed(name, NOT_PARQUET, error))
    }

    fn laid_out(
        reader: Arc<R>,
        mut footer: Footer<R>,
        name: &str,
        (tags, shape): (&TagList, &Shape),
        absent: Absent,
    ) -> Result<History<R>, SourceError> {
        let layout = Layout::of(footer.schema(), tags, shape, absent)
            .map_err(|problems| invalid(name, problems))?;
        footer.keep_statistics(&layout.nullable_integers());
        Ok(History {
            name: name.to_owned(),
            tags: tags.clone(),
            shape: shape.clone(),
            reader,
            footer,
            layout,
            index: Index {
                extent: Extent::default(),
                chunks: Vec::new(),
                far: Vec::new(),
            },
            lanes: 1,
        })
    }

    /// Reads so many columns at once.
    pub(super) fn in_lanes(self, lanes: usize) -> Self {
        Self { lanes, ..self }
    }

    /// The history's name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag list it was checked against.
    pub fn tags(&self) -> &TagList {
        &self.tags
    }

    /// When its rows happened.
    pub(super) fn index_of_times(&self) -> &Index {
        &self.index
    }

    /// In which type each signal is read, in the tag list's order; `None` where the file has no such column.
    pub(super) fn kinds(&self) -> Vec<Option<Kind>> {
        let signals = self.layout.signals.iter();
        signals
            .map(|signal| signal.as_ref().map(|signal| signal.kind))
            .collect()
    }

    /// The chunks that may hold a row between `first` and `last`, inclusive.
    pub(super) fn overlapping(&self, first: i64, last: i64) -> Vec<usize> {
        let overlaps = |span: &ChunkSpan| span.first <= last && first <= span.last;
        self.index
            .chunks
            .iter()
            .enumerate()
            .filter(|(_, span)| overlaps(span))
            .map(|(index, _)| index)
            .collect()
    }

    /// The first time at or after `from` that a chunk begins with.
    pub(super) fn first_beginning(&self, from: i64) -> Option<i64> {
        let firsts = self.index.chunks.iter().map(|span| span.first);
        firsts.filter(|first| *first >= from).min()
    }

    /// How many chunks there are.
    pub(super) fn chunk_count(&self) -> usize {
        self.index.chunks.len()
    }

    /// Every time with its row, in the order of times and of rows within one time; rows without a time are left out.
    pub(super) fn sorted_times(&self) -> Result<Vec<(i64, u32)>, SourceError> {
        let mut times = Vec::with_capacity(self.rows());
        let mut row: u32 = 0;
        let mut groups = self
            .index
            .chunks
            .iter()
            .map(|span| span.group)
            .collect::<Vec<_>>();
        groups.dedup();
        for group in groups {
            let entry = self
                .footer
                .entry(group as usize)
                .map_err(|error| failed(&self.name, NOT_PARQUET, error))?;
            let time_failed = |error| {
                let column = self.layout.time.descr.name();
                failed(&self.name, &cannot_read(column, group as usize), error)
            };
            let mut reader = self.time_reader(&entry).map_err(time_failed)?;
            for span in self.index.chunks.iter().filter(|span| span.group == group) {
                let read = reader.read(span.rows as usize).map_err(time_failed)?;
                times.extend(
                    (row..)
                        .zip(read)
                        .filter_map(|(row, time)| time.map(|time| (time, row))),
                );
                row += span.rows;
            }
        }
        times.sort_unstable();
        Ok(times)
    }

    /// Decodes one chunk.
    pub(super) fn load(&self, index: usize) -> Result<Chunk, SourceError> {
        let ChunkSpan {
            group,
            offset,
            rows,
            ..
        } = self.index.chunks[index];
        let (group, offset, rows) = (group as usize, offset as usize, rows as usize);
        let what = |column: &str| cannot_read(column, group);
        let entry = self
            .footer
            .entry(group)
            .map_err(|error| failed(&self.name, NOT_PARQUET, error))?;
        let time_failed = |error| failed(&self.name, &what(self.layout.time.descr.name()), error);
        let mut reader = self.time_reader(&entry).map_err(time_failed)?;
        reader.skip(offset).map_err(time_failed)?;
        let times = reader.read(rows).map_err(time_failed)?;
        let mut columns: Vec<Values> = self.empty_columns();
        // In the file's order, which a reader over a network can read ahead.
        let mut order: Vec<(usize, &SignalColumn)> = Vec::new();
        for (at, signal) in self.layout.signals.iter().enumerate() {
            match signal {
                Some(signal) => order.push((at, signal)),
                None => columns[at] = Values::F64(vec![f64::NAN; rows]),
            }
        }
        order.sort_by_key(|(_, signal)| entry.column(signal.index).data_page_offset());
        let read = |(at, signal): &(usize, &SignalColumn)| {
            column_reader(&self.reader, entry.column(signal.index), group_rows(&entry))
                .and_then(|column| read_values(column, signal, offset, rows))
                .map(|values| (*at, values))
                .map_err(|error| failed(&self.name, &what(signal.descr.name()), error))
        };
        for (at, values) in in_lanes(self.lanes, &order, read)? {
            columns[at] = values;
        }
        Ok(Chunk {
            times: times
                .into_iter()
                .map(|time| time.unwrap_or(NULL_TIME))
                .collect(),
            columns,
        })
    }

    /// One column without samples per signal, in the type each is read in.
    pub(super) fn empty_columns(&self) -> Vec<Values> {
        let kinds = self.kinds().into_iter();
        kinds
            .map(|kind| kind.map_or(Form::F64, Kind::form).empty())
            .collect()
    }

    pub(super) fn invalid(&self, problem: String) -> SourceError {
        invalid(&self.name, vec![problem])
    }

    /// Visits every row group once.
    fn index(&mut self) -> Result<(), SourceError> {
        let mut steps = Steps::default();
        let mut edges = Edges::default();
        let mut previous = None;
        for group in 0.. {
            let entry = self
                .footer
                .next()
                .map_err(|error| failed(&self.name, NOT_PARQUET, error))?;
            let Some(entry) = entry else { break };
            self.index_times(group, &entry, &mut steps, &mut edges, &mut previous)?;
            self.settle_integers(group, &entry)?;
        }
        self.index.chunks.shrink_to_fit();
        if !self.is_sorted() && self.rows() <= ORDERED_ROWS {
            // What lies between two rows of such a file says nothing.
            steps = Steps::default();
            let times = self.sorted_times()?;
            self.index.extent.doubled = 0;
            for pair in times.windows(2) {
                steps.add(pair[1].0.abs_diff(pair[0].0));
                self.index.extent.doubled += usize::from(pair[0].0 == pair[1].0);
            }
        }
        self.index.extent.interval = steps.median();
        self.index.far = edges.far();
        self.index.extent.leave_out(edges);
        Ok(())
    }

    fn index_times(
        &mut self,
        group: u32,
        entry: &RowGroupMetaData,
        steps: &mut Steps,
        edges: &mut Edges,
        previous: &mut Option<i64>,
    ) -> Result<(), SourceError> {
        let rows = self.claimed_rows(group, entry)?;
        let time_failed = |error| {
            let column = self.layout.time.descr.name();
            failed(&self.name, &cannot_read(column, group as usize), error)
        };
        let mut reader = self.time_reader(entry).map_err(time_failed)?;
        for offset in (0..rows).step_by(CHUNK_ROWS) {
            let count = CHUNK_ROWS.min(rows - offset);
            let times = reader.read(count).map_err(time_failed)?;
            let mut span = ChunkSpan {
                group,
                offset: offset as u32,
                rows: count as u32,
                first: i64::MAX,
                last: NULL_TIME,
            };
            for (row, time) in times.into_iter().enumerate() {
                let Some(time) = time else {
                    self.index.extent.null_times += 1;
                    continue;
                };
                if !YEARS.contains(&time) {
                    return Err(self.outside_the_years(self.rows() + row, time));
                }
                span.first = span.first.min(time);
                span.last = span.last.max(time);
                edges.add(time);
                if let Some(previous) = previous.replace(time) {
                    steps.add(time.abs_diff(previous));
                    self.index.extent.sorted &= previous <= time;
                    self.index.extent.doubled += usize::from(previous == time);
                }
            }
            let extent = &mut self.index.extent;
            extent.first = extent.first.min(span.first);
            extent.last = extent.last.max(span.last);
            extent.rows += count;
            self.index.chunks.push(span);
        }
        Ok(())
    }

    /// The rows of a row group, if the file can hold so many.
    fn claimed_rows(&self, group: u32, entry: &RowGroupMetaData) -> Result<usize, SourceError> {
        let most = FREE_ROWS.saturating_add(self.reader.len().saturating_mul(ROWS_PER_BYTE));
        u32::try_from(entry.num_rows())
            .ok()
            .filter(|rows| u64::from(*rows) + self.rows() as u64 <= most)
            .map(|rows| rows as usize)
            .ok_or_else(|| {
                self.invalid(format!(
                    "row group {group} claims {} rows after {} before it; at most 2^32 - 1 are read, and {most} of a file of \
                     {} bytes: its footer is damaged",
                    entry.num_rows(),
                    self.rows(),
                    self.reader.len()
                ))
            })
    }

    fn outside_the_years(&self, row: usize, time: i64) -> SourceError {
        let column = self.layout.time.descr.name();
        self.invalid(format!(
            "row {row} (the first is 0) of column \"{column}\" is {time} microseconds from 1970, outside the years 1 to 9999; \
             write it as a timestamp in the unit that the column's type says"
        ))
    }

    /// Decides which integer columns must be read as doubles: the footer's null counts where it has them, else a look.
    fn settle_integers(&mut self, group: u32, entry: &RowGroupMetaData) -> Result<(), SourceError> {
        for signal in self.layout.signals.iter_mut().flatten() {
            let Kind::Integer { unsigned } = signal.kind else {
                continue;
            };
            let large = unsigned && signal.descr.physical_type() == parquet::basic::Type::INT64;
            let nulls = match signal.descr.max_def_level() {
                0 => Some(0),
                _ => entry
                    .column(signal.index)
                    .statistics()
                    .and_then(|statistics| statistics.null_count_opt()),
            };
            let doubles = match nulls {
                Some(0) if !large => false,
                Some(nulls) if nulls > 0 => true,
                _ => column_reader(&self.reader, entry.column(signal.index), group_rows(entry))
                    .and_then(|column| needs_doubles(column, signal, group_rows(entry) as usize))
                    .map_err(|error| {
                        let what = cannot_read(signal.descr.name(), group as usize);
                        failed(&self.name, &what, error)
                    })?,
            };
            if doubles {
                signal.kind = Kind::IntegerAsF64 { unsigned };
            }
        }
        Ok(())
    }

    fn time_reader(&self, entry: &RowGroupMetaData) -> Result<TimeReader, ParquetError> {
        let time = &self.layout.time;
        column_reader(&self.reader, entry.column(time.index), group_rows(entry))
            .map(|column| TimeReader::new(column, time, &self.shape))
    }
}

impl<R> Deref for History<R>
where
    R: ChunkReader,
{
    type Target = Extent;

    fn deref(&self) -> &Extent {
        &self.index.extent
    }
}

impl Chunk {
    /// The rows whose recorded time is between `first` and `last`, inclusive.
    pub fn rows_between(&self, first: i64, last: i64) -> impl Iterator<Item = usize> {
        let inside = move |time: i64| time != NULL_TIME && first <= time && time <= last;
        self.times
            .iter()
            .enumerate()
            .filter(move |(_, time)| inside(**time))
            .map(|(row, _)| row)
    }
}

/// Does the same with each thing in order, with several stretches of them at once.
fn in_lanes<T: Sync, V: Send>(
    lanes: usize,
    things: &[T],
    each: impl Fn(&T) -> Result<V, SourceError> + Sync,
) -> Result<Vec<V>, SourceError> {
    if lanes <= 1 || things.len() <= 1 {
        return things.iter().map(each).collect();
    }
    let each = &each;
    std::thread::scope(|scope| {
        let stretches = things.chunks(things.len().div_ceil(lanes));
        let started: Vec<_> = stretches
            .map(|stretch| scope.spawn(move || stretch.iter().map(each).collect()))
            .collect();
        let mut all = Vec::with_capacity(things.len());
        for lane in started {
            let done: Result<Vec<V>, SourceError> = lane
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.extend(done?);
        }
        Ok(all)
    })
}

pub(super) fn group_rows(group: &RowGroupMetaData) -> u64 {
    u64::try_from(group.num_rows()).unwrap_or_default()
}

fn cannot_read(column: &str, group: usize) -> String {
    format!("cannot read column \"{column}\" of row group {group}")
}

fn invalid(name: &str, problems: Vec<String>) -> SourceError {
    SourceError::Invalid {
        name: name.to_owned(),
        problems,
    }
}

/// A failed read: retryable where the reader itself failed, otherwise the file is broken.
pub(super) fn failed(name: &str, what: &str, error: ParquetError) -> SourceError {
    if let ParquetError::External(cause) = &error
        && let Some(io) = cause.downcast_ref::<std::io::Error>()
        && !matches!(
            io.kind(),
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData
        )
    {
        return SourceError::Unavailable {
            name: name.to_owned(),
            source: Box::new(error),
        };
    }
    invalid(name, vec![format!("{what}: {error}")])
}
