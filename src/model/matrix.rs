//! Symmetric matrices: sums of outer products, shrunk inverses, and the batched product the scores are made of.
//!
//! The Gram sums go through nalgebra (fixed block sizes, one thread per call). The product `H = G P` of scoring does not:
//! every element of it is one running sum over k in order, multiplied and then added, never fused, so that a row's bits
//! depend neither on the rows it was batched with nor on the processor.

use nalgebra::{Cholesky, DMatrix, DMatrixView, DMatrixViewMut, Dyn, SymmetricEigen};
use serde::{Deserialize, Serialize};

/// Count, sum and sum of outer products of rows: everything a covariance needs, and it can be added and subtracted.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Columns.
    pub width: usize,
    /// Rows added.
    pub count: f64,
    /// Column sums.
    pub sum: Vec<f64>,
    /// Column-major `width x width`; only the lower triangle is meaningful.
    pub gram: Vec<f64>,
}

/// A symmetric matrix, lower triangle by rows: (0,0) (1,0) (1,1) (2,0) ...
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Symmetric {
    /// Rows and columns.
    pub order: usize,
    /// `order * (order + 1) / 2` elements.
    pub lower: Vec<f64>,
}

/// A symmetric matrix laid out for the batched product: column panels of eight, each `order x 8`, zero padded.
#[derive(Clone, Debug)]
pub struct Panels {
    order: usize,
    packed: Vec<f64>,
}

/// A correlation matrix that could not be inverted; with shrinkage this only happens on values that are not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a correlation matrix of order {0} could not be inverted")]
pub struct NotInvertible(pub usize);

/// Columns of a Gram matrix that are summed in one call.
const COLUMNS: usize = 64;
/// Steps of the eigenvalue iteration per row; it needs two or three.
const STEPS: usize = 100;
const PANEL: usize = 8;
const GROUP: usize = 4;

impl Moments {
    /// No rows yet.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            count: 0.0,
            sum: vec![0.0; width],
            gram: vec![0.0; width * width],
        }
    }

    /// Adds row-major rows.
    pub fn add_rows(&mut self, rows: &[f64]) {
        let count = rows.len() / self.width;
        if count == 0 {
            return;
        }
        self.count += count as f64;
        for row in rows.chunks_exact(self.width) {
            for (sum, value) in self.sum.iter_mut().zip(row) {
                *sum += value;
            }
        }
        let (width, rows) = (self.width, &rows[..count * self.width]);
        let mut gram = DMatrixViewMut::from_slice(&mut self.gram, width, width);
        let transposed = DMatrixView::from_slice(rows, width, count);
        let rows = DMatrixView::from_slice_with_strides_generic(
            rows,
            Dyn(count),
            Dyn(width),
            Dyn(width),
            Dyn(1),
        );
        // From the diagonal down, some columns at a time.
        for first in (0..width).step_by(COLUMNS) {
            let (height, columns) = (width - first, COLUMNS.min(width - first));
            gram.view_mut((first, first), (height, columns)).gemm(
                1.0,
                &transposed.rows(first, height),
                &rows.columns(first, columns),
                1.0,
            );
        }
    }

    /// Adds (`sign` 1) or takes away (`sign` -1) another sum.
    pub fn add(&mut self, other: &Self, sign: f64) {
        self.count += sign * other.count;
        for (own, value) in self.sum.iter_mut().zip(&other.sum) {
            *own += sign * value;
        }
        for (own, value) in self.gram.iter_mut().zip(&other.gram) {
            *own += sign * value;
        }
    }

    /// The element of the Gram matrix at (row, column).
    pub fn gram_at(&self, row: usize, column: usize) -> f64 {
        let (row, column) = (row.max(column), row.min(column));
        self.gram[column * self.width + row]
    }
}

impl Symmetric {
    /// From a function of (row, column), called for the lower triangle.
    pub fn from_fn(order: usize, mut element: impl FnMut(usize, usize) -> f64) -> Self {
        let mut lower = Vec::with_capacity(order * (order + 1) / 2);
        for row in 0..order {
            for column in 0..=row {
                lower.push(element(row, column));
            }
        }
        Self { order, lower }
    }

    /// Whether it is a whole matrix of that order.
    pub fn is_of(&self, order: usize) -> bool {
        self.order == order && self.lower.len() == order * (order + 1) / 2
    }

    /// The element at (row, column).
    pub fn at(&self, row: usize, column: usize) -> f64 {
        let (row, column) = (row.max(column), row.min(column));
        self.lower[row * (row + 1) / 2 + column]
    }

    /// `(1 - amount) * self + amount * I`: shrinkage towards the identity (Ledoit and Wolf's target for a correlation
    /// matrix, here with a given amount).
    pub fn shrunk(&self, amount: f64) -> Self {
        Self::from_fn(self.order, |row, column| {
            (1.0 - amount) * self.at(row, column) + if row == column { amount } else { 0.0 }
        })
    }

    /// The same eigenvectors with every eigenvalue raised to at least `floor`.
    pub fn with_eigenvalues_at_least(&self, floor: f64) -> Result<Self, NotInvertible> {
        let error = NotInvertible(self.order);
        if !self.lower.iter().all(|value| value.is_finite()) {
            return Err(error);
        }
        let eigen = SymmetricEigen::try_new(self.full(), f64::EPSILON, STEPS * self.order);
        let eigen = eigen.ok_or(error)?;
        let vectors = &eigen.eigenvectors;
        let scaled = DMatrix::from_fn(self.order, self.order, |row, column| {
            vectors[(row, column)] * eigen.eigenvalues[column].max(floor)
        });
        let product = scaled * vectors.transpose();
        Ok(Self::from_fn(self.order, |row, column| {
            product[(row, column)]
        }))
    }

    /// The inverse by Cholesky factorisation.
    pub fn inverse(&self) -> Result<Self, NotInvertible> {
        let factor = Cholesky::new(self.full()).ok_or(NotInvertible(self.order))?;
        let inverse = factor.inverse();
        let inverse = Self::from_fn(self.order, |row, column| inverse[(row, column)]);
        if inverse.lower.iter().all(|value| value.is_finite()) {
            Ok(inverse)
        } else {
            Err(NotInvertible(self.order))
        }
    }

    fn full(&self) -> DMatrix<f64> {
        DMatrix::from_fn(self.order, self.order, |row, column| self.at(row, column))
    }
}

impl Panels {
    /// Numbers it holds, padding included.
    pub fn numbers(&self) -> usize {
        self.packed.len()
    }

    /// Lays out a matrix.
    pub fn new(matrix: &Symmetric) -> Self {
        let order = matrix.order;
        let panels = order.div_ceil(PANEL);
        let mut packed = vec![0.0; panels * order * PANEL];
        for (panel, block) in packed.chunks_exact_mut((order * PANEL).max(1)).enumerate() {
            for (k, eight) in block.chunks_exact_mut(PANEL).enumerate() {
                for (offset, value) in eight.iter_mut().enumerate() {
                    let column = panel * PANEL + offset;
                    if column < order {
                        *value = matrix.at(k, column);
                    }
                }
            }
        }
        Self { order, packed }
    }

    /// `out = rows * matrix`, both row-major with `order` columns and the same number of rows.
    pub fn multiply(&self, rows: &[f64], out: &mut [f64]) {
        debug_assert_eq!(rows.len(), out.len());
        pulp::Arch::new().dispatch(Multiply {
            order: self.order,
            packed: &self.packed,
            rows,
            out,
        });
    }
}

/// The product, compiled once per instruction set; without fused operations all of them give the same bits.
struct Multiply<'a> {
    order: usize,
    packed: &'a [f64],
    rows: &'a [f64],
    out: &'a mut [f64],
}

impl pulp::WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        const { assert!(PANEL.is_multiple_of(2 * S::F64_LANES)) };
        let Self {
            order,
            packed,
            rows,
            out,
        } = self;
        let count = rows.len() / order.max(1);
        let zeros = vec![0.0; order];
        for (panel, block) in packed.chunks_exact((order * PANEL).max(1)).enumerate() {
            let first = panel * PANEL;
            let width = PANEL.min(order - first);
            let (block, _) = S::as_simd_f64s(block);
            for at in (0..count).step_by(GROUP) {
                let group: [&[f64]; GROUP] = std::array::from_fn(|offset| match at + offset {
                    index if index < count => &rows[index * order..(index + 1) * order],
                    _ => &zeros[..],
                });
                let mut sums = [[0.0; PANEL]; GROUP];
                for pair in 0..PANEL / (2 * S::F64_LANES) {
                    product(simd, group, block, pair, &mut sums);
                }
                for (offset, sum) in sums.iter().enumerate().take(count - at) {
                    let from = (at + offset) * order + first;
                    out[from..from + width].copy_from_slice(&sum[..width]);
                }
            }
        }
    }
}

/// Four rows times two vectors' width of a panel: eight sums, each in a register of its own whatever the compiler is told
/// to optimise for.
#[inline(always)]
fn product<S: pulp::Simd>(
    simd: S,
    [a, b, c, d]: [&[f64]; GROUP],
    block: &[S::f64s],
    pair: usize,
    sums: &mut [[f64; PANEL]; GROUP],
) {
    let nothing = simd.splat_f64s(0.0);
    let (mut a0, mut b0, mut c0, mut d0) = (nothing, nothing, nothing, nothing);
    let (mut a1, mut b1, mut c1, mut d1) = (nothing, nothing, nothing, nothing);
    let add = |sum: &mut S::f64s, value, factor| {
        *sum = simd.add_f64s(*sum, simd.mul_f64s(value, factor));
    };
    let vectors = block.chunks_exact(PANEL / S::F64_LANES);
    for ((((vectors, a), b), c), d) in vectors.zip(a).zip(b).zip(c).zip(d) {
        let (first, second) = (vectors[2 * pair], vectors[2 * pair + 1]);
        let (a, b) = (simd.splat_f64s(*a), simd.splat_f64s(*b));
        add(&mut a0, a, first);
        add(&mut a1, a, second);
        add(&mut b0, b, first);
        add(&mut b1, b, second);
        let (c, d) = (simd.splat_f64s(*c), simd.splat_f64s(*d));
        add(&mut c0, c, first);
        add(&mut c1, c, second);
        add(&mut d0, d, first);
        add(&mut d1, d, second);
    }
    for (row, two) in sums
        .iter_mut()
        .zip([[a0, a1], [b0, b1], [c0, c1], [d0, d1]])
    {
        let (row, _) = S::as_mut_simd_f64s(row);
        row[2 * pair..2 * pair + 2].copy_from_slice(&two);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(order: usize) -> Symmetric {
        Symmetric::from_fn(order, |r, c| {
            if r == c {
                1.5
            } else {
                0.4 / (1.0 + (r - c) as f64)
            }
        })
    }

    fn numbers(count: usize) -> Vec<f64> {
        (0..count)
            .map(|n| ((n * 7919 + 13) % 101) as f64 / 17.0 - 2.5)
            .collect()
    }

    #[test]
    fn the_portable_path_gives_the_same_bits_as_this_processors() {
        for order in [1, 7, 16, 33] {
            let panels = Panels::new(&example(order));
            let rows = numbers(9 * order);
            let (mut here, mut portable) = (vec![0.0; rows.len()], vec![0.0; rows.len()]);
            panels.multiply(&rows, &mut here);
            pulp::Simd::vectorize(
                pulp::Scalar,
                Multiply {
                    order,
                    packed: &panels.packed,
                    rows: &rows,
                    out: &mut portable,
                },
            );
            let bits =
                |values: &[f64]| -> Vec<u64> { values.iter().map(|v| v.to_bits()).collect() };
            assert_eq!(bits(&here), bits(&portable), "order {order}");
        }
    }

    #[test]
    fn an_inverse_times_its_matrix_is_the_identity() {
        let matrix = example(11);
        let inverse = matrix.inverse().unwrap();
        for r in 0..11 {
            for c in 0..11 {
                let element: f64 = (0..11).map(|k| matrix.at(r, k) * inverse.at(k, c)).sum();
                assert!((element - f64::from(u8::from(r == c))).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_rows_bits_do_not_depend_on_its_batch() {
        for order in [1, 7, 8, 21] {
            let panels = Panels::new(&example(order));
            let rows = numbers(order * 13);
            let mut whole = vec![0.0; rows.len()];
            panels.multiply(&rows, &mut whole);
            for size in 1..7 {
                let mut parts = vec![0.0; rows.len()];
                for (input, output) in rows
                    .chunks(order * size)
                    .zip(parts.chunks_mut(order * size))
                {
                    panels.multiply(input, output);
                }
                assert!(
                    whole
                        .iter()
                        .zip(&parts)
                        .all(|(a, b)| a.to_bits() == b.to_bits())
                );
            }
            let matrix = example(order);
            let expected: f64 = (0..order).map(|k| rows[k] * matrix.at(k, order - 1)).sum();
            assert!((whole[order - 1] - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn moments_are_the_sums_of_products_for_any_width() {
        for width in [1, 3, 63, 64, 65, 150] {
            let rows = numbers(width * 9);
            let mut moments = Moments::new(width);
            moments.add_rows(&rows[..width * 4]);
            moments.add_rows(&rows[width * 4..]);
            for r in 0..width {
                for c in 0..width {
                    let expected: f64 = rows.chunks(width).map(|row| row[r] * row[c]).sum();
                    assert!(
                        (moments.gram_at(r, c) - expected).abs() < 1e-9,
                        "{width}: {r} {c}"
                    );
                }
            }
        }
    }

    #[test]
    fn moments_taken_away_leave_the_rest() {
        let rows = numbers(5 * 40);
        let mut whole = Moments::new(5);
        whole.add_rows(&rows);
        let mut part = Moments::new(5);
        part.add_rows(&rows[5 * 30..]);
        whole.add(&part, -1.0);
        let mut expected = Moments::new(5);
        expected.add_rows(&rows[..5 * 30]);
        assert_eq!(whole.count, 30.0);
        for r in 0..5 {
            for c in 0..5 {
                assert!((whole.gram_at(r, c) - expected.gram_at(r, c)).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn an_indefinite_matrix_gets_its_eigenvalues_raised() {
        let broken = Symmetric::from_fn(2, |r, c| if r == c { 1.0 } else { 1.5 });
        assert!(broken.inverse().is_err());
        let nothing = Symmetric::from_fn(3, |_, _| f64::NAN);
        assert!(nothing.with_eigenvalues_at_least(1e-6).is_err() && nothing.inverse().is_err());
        let repaired = broken.with_eigenvalues_at_least(1e-6).unwrap();
        assert!((repaired.at(0, 0) - 1.25).abs() < 1e-6 && (repaired.at(1, 0) - 1.25).abs() < 1e-6);
    }
}
