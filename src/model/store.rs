//! The training rows in memory, in chunks, exact while they are few and compact when they are many.
//!
//! Up to `EXACT_CELLS` cells are kept as f64. Beyond that each cell is kept as the f32 difference from its column's first
//! value, which for a sensor far from zero loses no more than a standardised f32 would: about 1e-7 of its own range (`u`
//! moves by less than 1e-6 on the synthetic plant). The switch depends only on the number of cells, so the same data always
//! give the same model.

use super::lanes;

/// Rows per chunk.
pub const CHUNK_ROWS: usize = 4096;
/// The largest table that is kept as f64: 16 Mi cells are 128 MiB.
pub const EXACT_CELLS: usize = 16 << 20;

/// A table of f64 cells, NaN where missing.
#[derive(Debug)]
pub struct Store {
    width: usize,
    rows: usize,
    origin: Vec<f64>,
    limit: usize,
    compact: bool,
    chunks: Vec<Chunk>,
}

/// Consecutive rows of a store.
#[derive(Debug)]
enum Chunk {
    Exact(Vec<f64>),
    Compact(Vec<f32>),
}

impl Store {
    /// An empty table of `width` columns that becomes compact above `limit` cells.
    pub fn new(width: usize, limit: usize) -> Self {
        Self {
            width,
            rows: 0,
            origin: vec![f64::NAN; width],
            limit,
            compact: false,
            chunks: Vec::new(),
        }
    }

    /// Appends a row.
    pub fn push(&mut self, row: &[f64]) {
        for (origin, value) in self
            .origin
            .iter_mut()
            .zip(row)
            .filter(|(origin, value)| origin.is_nan() && !value.is_nan())
        {
            *origin = *value;
        }
        if !self.compact && (self.rows + 1) * self.width > self.limit {
            self.compact = true;
            for chunk in &mut self.chunks {
                chunk.make_compact(&self.origin);
            }
        }
        if self.rows.is_multiple_of(CHUNK_ROWS) {
            let cells = CHUNK_ROWS * self.width;
            self.chunks.push(if self.compact {
                Chunk::Compact(Vec::with_capacity(cells))
            } else {
                Chunk::Exact(Vec::with_capacity(cells))
            });
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(row, &self.origin);
        }
        self.rows += 1;
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Copies row `index` into `out`.
    pub fn read(&self, index: usize, out: &mut [f64]) {
        let (chunk, row) = (index / CHUNK_ROWS, index % CHUNK_ROWS);
        self.chunks[chunk].read(row, self.width, &self.origin, out);
    }

    /// Replaces every row by what `change` makes of it, in place; `width`, the new number of columns, is at most the old
    /// one, and values must be of the order of 1 afterwards. `change` gets the row's index, its old values and the place for
    /// the new ones, and a state that is made once per lane.
    pub fn transform<S>(
        &mut self,
        threads: usize,
        width: usize,
        state: impl Fn() -> S + Sync,
        change: impl Fn(&mut S, usize, &[f64], &mut [f64]) + Sync,
    ) {
        debug_assert!(width <= self.width);
        let (old_width, origin) = (self.width, std::mem::take(&mut self.origin));
        let work = |lane: Vec<(usize, &mut Chunk)>| {
            let mut state = state();
            let mut old = vec![0.0; old_width];
            let mut new = vec![0.0; width];
            for (at, chunk) in lane {
                let count = chunk.cells() / old_width;
                for row in 0..count {
                    chunk.read(row, old_width, &origin, &mut old);
                    change(&mut state, at * CHUNK_ROWS + row, &old, &mut new);
                    // A narrower row ends before the next old one begins.
                    chunk.write(row, &new);
                }
                chunk.truncate(count * width);
            }
        };
        lanes::run(
            threads,
            lanes::deal(self.chunks.iter_mut().enumerate()),
            work,
        );
        self.width = width;
        self.origin = vec![0.0; width];
    }

    /// Runs `work` over the row ranges of the chunks, dealt to lanes; one result per lane, in lane order.
    pub fn by_lane<R: Send>(
        &self,
        threads: usize,
        work: impl Fn(Vec<std::ops::Range<usize>>) -> R + Sync,
    ) -> Vec<R> {
        let ranges = (0..self.chunks.len())
            .map(|at| at * CHUNK_ROWS..((at + 1) * CHUNK_ROWS).min(self.rows));
        lanes::run(threads, lanes::deal(ranges), work)
    }
}

impl Chunk {
    fn cells(&self) -> usize {
        match self {
            Self::Exact(cells) => cells.len(),
            Self::Compact(cells) => cells.len(),
        }
    }

    fn truncate(&mut self, cells: usize) {
        match self {
            Self::Exact(old) => old.truncate(cells),
            Self::Compact(old) => old.truncate(cells),
        }
    }

    fn write(&mut self, row: usize, values: &[f64]) {
        let range = row * values.len()..(row + 1) * values.len();
        match self {
            Self::Exact(cells) => cells[range].copy_from_slice(values),
            Self::Compact(cells) => {
                for (cell, value) in cells[range].iter_mut().zip(values) {
                    *cell = *value as f32;
                }
            }
        }
    }

    fn push(&mut self, row: &[f64], origin: &[f64]) {
        match self {
            Self::Exact(cells) => cells.extend_from_slice(row),
            Self::Compact(cells) => cells.extend(
                row.iter()
                    .zip(origin)
                    .map(|(value, origin)| compact(*value, *origin)),
            ),
        }
    }

    fn read(&self, row: usize, width: usize, origin: &[f64], out: &mut [f64]) {
        let range = row * width..(row + 1) * width;
        match self {
            Self::Exact(cells) => out.copy_from_slice(&cells[range]),
            Self::Compact(cells) => {
                for ((out, cell), origin) in out.iter_mut().zip(&cells[range]).zip(origin) {
                    *out = origin + f64::from(*cell);
                }
            }
        }
    }

    fn make_compact(&mut self, origin: &[f64]) {
        if let Self::Exact(cells) = self {
            let origin = origin.iter().cycle();
            let mut small = Vec::with_capacity(cells.capacity());
            small.extend(
                cells
                    .iter()
                    .zip(origin)
                    .map(|(value, origin)| compact(*value, *origin)),
            );
            *self = Self::Compact(small);
        }
    }
}

fn compact(value: f64, origin: f64) -> f32 {
    // A column without any value yet has no origin, and only NaN to store.
    (value - origin) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(limit: usize) -> Store {
        let mut store = Store::new(2, limit);
        for n in 0..10_000 {
            let late = if n < 5 {
                f64::NAN
            } else {
                1e6 + f64::from(n % 17) * 0.1
            };
            store.push(&[f64::from(n), late]);
        }
        store
    }

    #[test]
    fn a_compact_table_reads_back_to_seven_digits_of_its_range() {
        let (exact, compact) = (fill(usize::MAX), fill(1000));
        assert!(compact.compact && !exact.compact);
        let (mut a, mut b) = ([0.0; 2], [0.0; 2]);
        for row in 0..10_000 {
            exact.read(row, &mut a);
            compact.read(row, &mut b);
            assert_eq!(a[0], b[0]);
            assert!(
                a[1].is_nan() && b[1].is_nan() || (a[1] - b[1]).abs() < 1e-6,
                "{a:?} {b:?}"
            );
        }
    }

    #[test]
    fn a_transformed_table_has_the_new_rows_in_order() {
        for limit in [1000, usize::MAX] {
            let mut store = fill(limit);
            store.transform(
                3,
                1,
                || (),
                |(), index, old, new| {
                    assert_eq!(old[0], index as f64);
                    new[0] = old[0] / 10_000.0;
                },
            );
            let mut row = [0.0];
            for index in [0, 4095, 4096, 9999] {
                store.read(index, &mut row);
                assert!((row[0] - index as f64 / 10_000.0).abs() < 1e-7);
            }
        }
    }
}
