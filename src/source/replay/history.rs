//! A Parquet history, checked and indexed: when each chunk of rows happened.
//!
//! Guarantees: opening reads the footer once and the time column once, as a stream, a row group at a time; what is kept is
//! small. A chunk never spans two row groups.

use std::ops::RangeInclusive;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::ChunkReader;

use super::super::SourceError;
use super::AtEnd;
use super::decode::{TimeReader, column_reader, needs_doubles, read_values};
use super::footer::Footer;
use super::layout::{Kind, Layout};
use super::steps::Steps;
use super::strays::{Edges, Strays};
use crate::signal::{Cadence, Rebase, TagList, Values};

/// The rows that are decoded together: 17 hours of one-minute rows, 1 MB for 122 signals.
const CHUNK_ROWS: usize = 1024;

/// A checked and indexed history.
pub struct History<R: ChunkReader> {
    name: String,
    tags: TagList,
    reader: Arc<R>,
    footer: Footer<R>,
    layout: Layout,
    chunks: Vec<ChunkSpan>,
    rows: usize,
    null_times: usize,
    sorted: bool,
    /// Rows with the time of the one before.
    doubled: usize,
    strays: Option<Strays>,
    first: i64,
    last: i64,
    interval: Option<i64>,
}

/// Where a chunk lies and when it happened; `first > last` where it has no time at all.
struct ChunkSpan {
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
const NULL_TIME: i64 = i64::MIN;
/// The times that can be written: the years 1 to 9999, in micros.
const YEARS: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// Rows that a file of any size may have, and the more it may have for each of its bytes. A page can claim any number of rows
/// that are all null or all alike in a few bytes, and reading them takes as long as if they were there; a history of a
/// plant has bytes for its rows, few where they compress well. A year of seconds in 30 KB is still let pass.
const FREE_ROWS: u64 = 1 << 20;
const ROWS_PER_BYTE: u64 = 1024;
const NOT_PARQUET: &str = "not a Parquet file, or a truncated one";

/// The names of the columns of a file, in their order.
pub(super) fn column_names<R: ChunkReader + 'static>(
    reader: R,
    name: &str,
) -> Result<Vec<String>, SourceError> {
    let footer =
        Footer::open(Arc::new(reader)).map_err(|error| failed(name, NOT_PARQUET, error))?;
    let columns = footer.schema().columns().iter();
    Ok(columns
        .map(|column| column.path().parts()[0].clone())
        .collect())
}

impl<R: ChunkReader + 'static> History<R> {
    pub(super) fn open(reader: R, name: &str, tags: &TagList) -> Result<History<R>, SourceError> {
        if reader.len() == 0 {
            return Err(invalid(
                name,
                vec!["the file is empty; expected a Parquet file".to_owned()],
            ));
        }
        let reader = Arc::new(reader);
        let mut footer =
            Footer::open(reader.clone()).map_err(|error| failed(name, NOT_PARQUET, error))?;
        let layout =
            Layout::of(footer.schema(), tags).map_err(|problems| invalid(name, problems))?;
        footer.keep_statistics(&layout.nullable_integers());
        let mut history = History {
            name: name.to_owned(),
            tags: tags.clone(),
            reader,
            footer,
            layout,
            chunks: Vec::new(),
            rows: 0,
            null_times: 0,
            sorted: true,
            doubled: 0,
            strays: None,
            first: i64::MAX,
            last: i64::MIN,
            interval: None,
        };
        history.index()?;
        Ok(history)
    }

    /// The history's name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag list it was checked against.
    pub fn tags(&self) -> &TagList {
        &self.tags
    }

    /// Rows that have the time of a later one, of which windows take the last. In an unsorted history of very many rows only
    /// those next to each other are counted.
    pub fn doubled(&self) -> usize {
        self.doubled
    }

    /// Rows that lie years from all others, which the first and the last time leave out.
    pub fn strays(&self) -> Option<Strays> {
        self.strays
    }

    /// The first recorded time, in micros.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// The last recorded time, in micros.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// The number of rows, including those without a time.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows without a time; no window contains them.
    pub fn null_times(&self) -> usize {
        self.null_times
    }

    /// Whether times never step back; windows of an unsorted history are slower to read.
    pub fn is_sorted(&self) -> bool {
        self.sorted
    }

    /// The sampling interval in micros: the median step between consecutive rows, `None` for a single row.
    pub fn interval(&self) -> Option<i64> {
        self.interval
    }

    /// The rows a window has when none is missing.
    pub fn expected_rows(&self, cadence: Cadence) -> Option<usize> {
        let interval = self.interval?;
        usize::try_from((cadence.micros() + interval / 2) / interval).ok()
    }

    /// Where the sample notebook starts: `windows` windows before one sample after the last, in micros.
    pub fn default_start(&self, cadence: Cadence, windows: i64) -> i64 {
        self.last + self.interval.unwrap_or_default() - windows * cadence.micros()
    }

    /// The mapping that plays the recorded instant `start` at `wall` (both micros).
    pub fn rebase(&self, start: i64, wall: i64, cadence: Cadence, at_end: AtEnd) -> Rebase {
        match at_end {
            AtEnd::Loop => Rebase::looping(start, wall, self.first, self.last, cadence),
            AtEnd::Stop => Rebase::once(start, wall),
        }
    }

    /// The chunks that may hold a row between `first` and `last`, inclusive.
    pub(super) fn overlapping(&self, first: i64, last: i64) -> Vec<usize> {
        let overlaps = |span: &ChunkSpan| span.first <= last && first <= span.last;
        self.chunks
            .iter()
            .enumerate()
            .filter(|(_, span)| overlaps(span))
            .map(|(index, _)| index)
            .collect()
    }

    /// The first time at or after `from` that a chunk begins with.
    pub(super) fn first_beginning(&self, from: i64) -> Option<i64> {
        let firsts = self.chunks.iter().map(|span| span.first);
        firsts.filter(|first| *first >= from).min()
    }

    /// How many chunks there are.
    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// Every time with its row, in the order of times and of rows within one time; rows without a time are left out.
    pub(super) fn sorted_times(&self) -> Result<Vec<(i64, u32)>, SourceError> {
        let mut times = Vec::with_capacity(self.rows);
        let mut row: u32 = 0;
        let mut groups = self
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
            for span in self.chunks.iter().filter(|span| span.group == group) {
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
        } = self.chunks[index];
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
        let mut columns = self.empty_columns();
        // In the file's order, which a reader over a network can read ahead.
        let mut order: Vec<usize> = (0..columns.len()).collect();
        order.sort_by_key(|at| {
            entry
                .column(self.layout.signals[*at].index)
                .data_page_offset()
        });
        for at in order {
            let signal = &self.layout.signals[at];
            columns[at] =
                column_reader(&self.reader, entry.column(signal.index), group_rows(&entry))
                    .and_then(|column| read_values(column, signal, offset, rows))
                    .map_err(|error| failed(&self.name, &what(signal.descr.name()), error))?;
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
        self.layout
            .signals
            .iter()
            .map(|signal| match signal.kind {
                Kind::F64 | Kind::IntegerAsF64 { .. } | Kind::Decimal { .. } | Kind::F16 => {
                    Values::F64(Vec::new())
                }
                Kind::F32 => Values::F32(Vec::new()),
                Kind::Integer { .. } => Values::I64(Vec::new()),
                Kind::Bool => Values::Bool(Vec::new()),
            })
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
        if self.rows == 0 {
            return Err(self.invalid("the file has no rows".to_owned()));
        }
        if previous.is_none() {
            let column = self.layout.time.descr.name();
            return Err(self.invalid(format!(
                "every row of column \"{column}\" is null; there is no time to replay"
            )));
        }
        self.chunks.shrink_to_fit();
        if !self.sorted && self.rows <= ORDERED_ROWS {
            // What lies between two rows of such a file says nothing.
            steps = Steps::default();
            let times = self.sorted_times()?;
            self.doubled = 0;
            for pair in times.windows(2) {
                steps.add(pair[1].0.abs_diff(pair[0].0));
                self.doubled += usize::from(pair[0].0 == pair[1].0);
            }
        }
        self.interval = steps.median();
        if let Some((first, last, strays)) = edges.judge() {
            self.first = first.unwrap_or(self.first);
            self.last = last.unwrap_or(self.last);
            self.strays = Some(strays);
        }
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
                    self.null_times += 1;
                    continue;
                };
                if !YEARS.contains(&time) {
                    return Err(self.outside_the_years(self.rows + row, time));
                }
                span.first = span.first.min(time);
                span.last = span.last.max(time);
                edges.add(time);
                if let Some(previous) = previous.replace(time) {
                    steps.add(time.abs_diff(previous));
                    self.sorted &= previous <= time;
                    self.doubled += usize::from(previous == time);
                }
            }
            self.first = self.first.min(span.first);
            self.last = self.last.max(span.last);
            self.rows += count;
            self.chunks.push(span);
        }
        Ok(())
    }

    /// The rows of a row group, if the file can hold so many.
    fn claimed_rows(&self, group: u32, entry: &RowGroupMetaData) -> Result<usize, SourceError> {
        let most = FREE_ROWS.saturating_add(self.reader.len().saturating_mul(ROWS_PER_BYTE));
        u32::try_from(entry.num_rows())
            .ok()
            .filter(|rows| u64::from(*rows) + self.rows as u64 <= most)
            .map(|rows| rows as usize)
            .ok_or_else(|| {
                self.invalid(format!(
                    "row group {group} claims {} rows after {} before it; at most 2^32 - 1 are read, and {most} of a file of \
                     {} bytes: its footer is damaged",
                    entry.num_rows(),
                    self.rows,
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
        for signal in &mut self.layout.signals {
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
            .map(|column| TimeReader::new(column, time))
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

/// A column of the same type without samples.
pub(super) fn nothing(like: &Values) -> Values {
    match like {
        Values::F64(_) => Values::F64(Vec::new()),
        Values::F32(_) => Values::F32(Vec::new()),
        Values::I64(_) => Values::I64(Vec::new()),
        Values::Bool(_) => Values::Bool(Vec::new()),
    }
}

fn group_rows(group: &RowGroupMetaData) -> u64 {
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
fn failed(name: &str, what: &str, error: ParquetError) -> SourceError {
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
