//! How far a history reaches, and what is known of its rows as a whole.
//!
//! Guarantees: of one file it is what its times say; of several it is what one file with all of their rows would say, but for
//! two things that would need all times at once: rows doubled across files are not counted, and the sampling interval is
//! weighed file by file.

use serde::{Deserialize, Serialize};

use super::AtEnd;
use super::history::Index;
use super::strays::{Edges, Strays};
use crate::signal::{Cadence, Rebase};

/// What is known of the rows of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extent {
    pub(super) rows: usize,
    pub(super) null_times: usize,
    pub(super) sorted: bool,
    pub(super) doubled: usize,
    pub(super) strays: Option<Strays>,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) interval: Option<i64>,
}

impl Default for Extent {
    fn default() -> Self {
        Self {
            rows: 0,
            null_times: 0,
            sorted: true,
            doubled: 0,
            strays: None,
            first: i64::MAX,
            last: i64::MIN,
            interval: None,
        }
    }
}

impl Extent {
    /// That of several files, in the order of their names.
    pub(super) fn of<'a>(parts: impl Iterator<Item = &'a Index>) -> Extent {
        let mut parts: Vec<&Index> = parts.collect();
        if let [one] = parts[..] {
            return one.extent.clone();
        }
        let mut all = Extent::default();
        let mut edges = Edges::default();
        for Index { extent, far, .. } in &parts {
            all.rows += extent.rows;
            all.null_times += extent.null_times;
            all.doubled += extent.doubled;
            all.sorted &= extent.sorted;
            let timed = extent.rows - extent.null_times;
            match far.is_empty() {
                true => edges.add_span(extent.first, extent.last, timed),
                false => edges.add_all(far, timed),
            }
        }
        parts.retain(|part| part.extent.first <= part.extent.last);
        parts.sort_by_key(|part| (part.extent.first, part.extent.last));
        all.interval = interval(&parts);
        all.first = parts.first().map_or(i64::MAX, |part| part.earliest());
        all.last = parts
            .iter()
            .map(|part| part.latest())
            .max()
            .unwrap_or(i64::MIN);
        all.leave_out(edges);
        all
    }

    /// Leaves out what lies years from all others.
    pub(super) fn leave_out(&mut self, edges: Edges) {
        if let Some((first, last, strays)) = edges.judge() {
            self.first = first.unwrap_or(self.first);
            self.last = last.unwrap_or(self.last);
            self.strays = Some(strays);
        }
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
}

/// The median step: each file's own as often as it has steps, and those from one file to the next.
fn interval(parts: &[&Index]) -> Option<i64> {
    let own = parts.iter().filter_map(|part| {
        let steps = part.extent.rows.saturating_sub(part.extent.null_times + 1);
        Some((part.extent.interval?, steps))
    });
    let between = parts.windows(2).filter_map(|pair| {
        let step = pair[1].extent.first.saturating_sub(pair[0].extent.last);
        (step > 0).then_some((step, 1))
    });
    let mut steps: Vec<(i64, usize)> = own.chain(between).collect();
    steps.sort_unstable();
    let half = steps.iter().map(|(_, times)| times).sum::<usize>() / 2;
    let mut passed = 0;
    steps.into_iter().find_map(|(step, times)| {
        passed += times;
        (passed > half).then_some(step)
    })
}
