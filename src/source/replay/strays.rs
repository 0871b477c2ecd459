//! Times that lie years from all others: the "no date" of a database, a controller that began to count in 1970.
//!
//! Guarantees: a few such rows stretch neither the span of a history nor what is looked for in it; a real pause of years, with
//! many rows on both sides, is none. Memory is constant.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

/// Rows on one side that may be strays; more are a history.
const MOST: usize = 16;
/// How far from the others they lie, in micros: ten years.
const FAR: i64 = 10 * 365 * 86_400_000_000;

/// The earliest and the latest times, noted while times stream by.
#[derive(Default)]
pub(super) struct Edges {
    seen: usize,
    earliest: BinaryHeap<i64>,
    latest: BinaryHeap<Reverse<i64>>,
}

/// Rows that lie years from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strays {
    /// How many.
    pub rows: usize,
    /// One of them, in micros.
    pub example: i64,
}

impl Edges {
    pub fn add(&mut self, time: i64) {
        self.seen += 1;
        if self.earliest.len() < 2 * MOST {
            self.earliest.push(time);
            self.latest.push(Reverse(time));
            return;
        }
        if self.earliest.peek().is_some_and(|largest| time < *largest) {
            self.earliest.pop();
            self.earliest.push(time);
        }
        if self
            .latest
            .peek()
            .is_some_and(|Reverse(least)| time > *least)
        {
            self.latest.pop();
            self.latest.push(Reverse(time));
        }
    }

    /// Adds the rows of a file of which the first and the last time are known: as many as may be strays, and one more.
    pub fn add_span(&mut self, first: i64, last: i64, rows: usize) {
        let shown = rows.min(4 * MOST);
        for at in 0..shown {
            self.add(if at < shown.div_ceil(2) { first } else { last });
        }
        self.seen += rows - shown;
    }

    /// Adds the rows of a file of which these times are the earliest and the latest.
    pub fn add_all(&mut self, times: &[i64], rows: usize) {
        times.iter().for_each(|time| self.add(*time));
        self.seen += rows.saturating_sub(times.len());
    }

    /// The times that were noted, in order, where years lie between some of them; otherwise none.
    pub fn far(&self) -> Vec<i64> {
        let mut times = self.earliest.clone().into_sorted_vec();
        let mut late: Vec<i64> = self.latest.iter().map(|Reverse(time)| *time).collect();
        late.sort_unstable();
        let both = (times.len() + late.len()).saturating_sub(self.seen);
        times.extend(late.into_iter().skip(both));
        match times.windows(2).any(is_far) {
            true => times,
            false => Vec::new(),
        }
    }

    /// The first and the last time that are not strays, and the strays, where there are some.
    pub fn judge(self) -> Option<(Option<i64>, Option<i64>, Strays)> {
        if self.seen < 4 * MOST {
            return None;
        }
        let early = self.earliest.into_sorted_vec();
        let mut late: Vec<i64> = self.latest.into_iter().map(|Reverse(time)| time).collect();
        late.sort_unstable();
        // The gap that is farthest inside: what lies beyond it is a stray.
        let before = early
            .windows(2)
            .take(MOST)
            .rposition(is_far)
            .map(|at| at + 1);
        let skipped = late.len() - 1 - MOST;
        let after = late
            .windows(2)
            .skip(skipped)
            .position(is_far)
            .map(|at| at + skipped + 1);
        let rows = before.unwrap_or(0) + after.map_or(0, |at| late.len() - at);
        let example = before
            .map(|_| early[0])
            .or(after.map(|_| late[late.len() - 1]))?;
        Some((
            before.map(|at| early[at]),
            after.map(|at| late[at - 1]),
            Strays { rows, example },
        ))
    }
}

fn is_far(pair: &[i64]) -> bool {
    pair[1].saturating_sub(pair[0]) > FAR
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn judged(times: impl IntoIterator<Item = i64>) -> Option<(Option<i64>, Option<i64>, Strays)> {
        let mut edges = Edges::default();
        times.into_iter().for_each(|time| edges.add(time));
        edges.judge()
    }

    #[test]
    fn a_few_rows_decades_away_are_strays_on_either_side() {
        let plain = || (20_000..20_100).map(|day| day * DAY);
        assert_eq!(judged(plain()), None);
        let (nothing, ever) = (-700_000 * DAY, 2_900_000 * DAY);
        let (first, last) = (20_000 * DAY, 20_099 * DAY);
        let strays = |rows, example| Strays { rows, example };
        assert_eq!(
            judged(plain().chain([ever])),
            Some((None, Some(last), strays(1, ever)))
        );
        assert_eq!(
            judged([nothing, nothing, 0].into_iter().chain(plain())),
            Some((Some(first), None, strays(3, nothing)))
        );
        assert_eq!(
            judged([nothing, ever].into_iter().chain(plain())),
            Some((Some(first), Some(last), strays(2, nothing)))
        );
    }

    #[test]
    fn a_pause_of_decades_between_many_rows_is_none() {
        let old = (0..40).map(|day| day * DAY);
        let new = (20_000..20_100).map(|day| day * DAY);
        assert_eq!(judged(old.chain(new)), None);
        assert_eq!(judged([0, 20_000 * DAY]), None);
    }
}
