//! Kernels of small networks: products of matrices, and functions of many values.
//!
//! Every number is the same on every CPU and for every shape of a block: a product's terms
//! are added in order by fused multiply-adds, which are exact about their rounding, and no
//! function is the C library's.

use ns_model_format::wide::has_avx512;
pub(crate) use ns_model_format::wide::{has_fused, wide};

/// Columns are filled up to a multiple of so many.
const COLUMNS: usize = 16;
/// Rows are computed in blocks of so many.
pub(crate) const BLOCK: usize = 6;

/// Columns that so many take, with those that fill up the last panel.
pub(crate) fn padded(columns: usize) -> usize {
    columns.next_multiple_of(COLUMNS)
}

/// Columns of the panel that begins at `at`: two registers a row, as many rows as leave
/// registers for the rest.
#[inline(always)]
fn panel_width(at: usize, width: usize) -> usize {
    if has_avx512() && width - at >= 2 * COLUMNS { 2 * COLUMNS } else { COLUMNS }
}

/// A matrix `[inputs, columns]`, panel by panel of columns, row by row in each.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    inputs: usize,
    width: usize,
    panels: Vec<f32>,
}

impl Matrix {
    /// How many numbers a matrix of so many values holds, with those that fill up the last
    /// panel. `columns` is not 0.
    pub(crate) fn size(values: usize, columns: usize) -> usize {
        values / columns * padded(columns)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.panels.len()
    }

    /// From rows, one after the other. `columns` is not 0.
    pub(crate) fn new(values: &[f32], columns: usize) -> Matrix {
        let (inputs, width) = (values.len() / columns, padded(columns));
        let mut panels = Vec::with_capacity(Matrix::size(values.len(), columns));
        let mut at = 0;
        while at < width {
            let end = at + panel_width(at, width);
            for row in values.chunks_exact(columns) {
                panels.extend((at..end).map(|at| row.get(at).copied().unwrap_or(0.0)));
            }
            at = end;
        }
        Matrix { inputs, width, panels }
    }

    /// A weight.
    fn at(&self, row: usize, column: usize) -> f32 {
        // All panels but the last are as wide as the first.
        let first = column - column % panel_width(0, usize::MAX);
        let columns = panel_width(first, self.width);
        self.panels[first * self.inputs + row * columns + column - first]
    }

    /// Adds `a @ self` to `out`, for `rows` rows and those that fill up the last block.
    /// Rows of `a` are `stride` apart, those of `out` [`padded`] columns.
    #[inline(always)]
    pub(crate) fn multiply(&self, rows: usize, (a, stride): (&[f32], usize), out: &mut [f32]) {
        let width = self.width;
        let mut at = 0;
        while at < width {
            let columns = panel_width(at, width);
            let panel = &self.panels[at * self.inputs..][..columns * self.inputs];
            for row in (0..rows).step_by(BLOCK) {
                let (a, out) = (&a[row * stride..], &mut out[row * width + at..]);
                if columns == COLUMNS {
                    block::<{ COLUMNS / 2 }, COLUMNS>((a, stride), panel, (out, width));
                } else {
                    block::<COLUMNS, { 2 * COLUMNS }>((a, stride), panel, (out, width));
                }
            }
            at += columns;
        }
    }
}

/// A block of rows of `a` times a panel of `P` columns, two vectors of `L`, added to
/// `out`; both with how far apart their rows are.
#[inline(always)]
fn block<const L: usize, const P: usize>(
    (a, stride): (&[f32], usize),
    panel: &[f32],
    (out, width): (&mut [f32], usize),
) {
    let panel = panel.as_chunks::<P>().0;
    let [r0, r1, r2, r3, r4, r5]: [&[f32]; BLOCK] =
        std::array::from_fn(|row| &a[row * stride..][..panel.len()]);
    let mut left: [[f32; L]; BLOCK] = std::array::from_fn(|row| load(&out[row * width..]));
    let mut right: [[f32; L]; BLOCK] = std::array::from_fn(|row| load(&out[row * width + L..]));
    // Zipped: an index would be checked for every product.
    let rows = r0.iter().zip(r1).zip(r2).zip(r3).zip(r4).zip(r5);
    for (weights, (((((x0, x1), x2), x3), x4), x5)) in panel.iter().zip(rows) {
        let (one, two) = (load(weights), load(&weights[L..]));
        for (row, &x) in [x0, x1, x2, x3, x4, x5].into_iter().enumerate() {
            left[row] = fused(left[row], x, &one);
            right[row] = fused(right[row], x, &two);
        }
    }
    for row in 0..BLOCK {
        let out = &mut out[row * width..][..P];
        out[..L].copy_from_slice(&left[row]);
        out[L..].copy_from_slice(&right[row]);
    }
}

#[inline(always)]
fn load<const L: usize>(values: &[f32]) -> [f32; L] {
    let mut loaded = [0.0; L];
    loaded.copy_from_slice(&values[..L]);
    loaded
}

/// `sums + x * weights`.
#[inline(always)]
fn fused<const L: usize>(sums: [f32; L], x: f32, weights: &[f32; L]) -> [f32; L] {
    let mut added = sums;
    for (lane, sum) in added.iter_mut().enumerate() {
        *sum = x.mul_add(weights[lane], *sum);
    }
    added
}

/// So many rows lie side by side in what [`Columns`] makes, each in a lane.
pub(crate) const LANES: usize = 16;

/// A product with a matrix `[inputs, columns]` onto a bias, of [`LANES`] rows at once.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    inputs: usize,
    /// Columns that lie together: their bias, then their weights for each input.
    together: Vec<[f32; TOGETHER]>,
}

/// Columns that are summed at once: as many as leave registers for the rest, which are half
/// as many where vectors are half as wide.
const TOGETHER: usize = 12;

impl Columns {
    /// So many columns, with those that fill up.
    pub(crate) fn padded(columns: usize) -> usize {
        columns.next_multiple_of(TOGETHER)
    }

    /// How many numbers are held for so many inputs and columns.
    pub(crate) fn size(inputs: usize, columns: usize) -> usize {
        (1 + inputs).saturating_mul(Columns::padded(columns))
    }

    /// Of a matrix and as many columns as there are of the bias.
    pub(crate) fn new(matrix: &Matrix, bias: &[f32]) -> Columns {
        let columns = bias.len();
        let weight = |row, column| if column < columns { matrix.at(row, column) } else { 0.0 };
        let bias = |column| bias.get(column).copied().unwrap_or(0.0);
        let panel = |first: usize| {
            let bias = std::array::from_fn(|at| bias(first + at));
            let row = move |row| std::array::from_fn(|at| weight(row, first + at));
            std::iter::once(bias).chain((0..matrix.inputs).map(row))
        };
        let firsts = (0..Columns::padded(columns)).step_by(TOGETHER);
        Columns { inputs: matrix.inputs, together: firsts.flat_map(panel).collect() }
    }

    /// The product of rows, `[inputs][LANES]`, into `out`, `[padded columns][LANES]`.
    #[inline(always)]
    pub(crate) fn multiply(&self, rows: &[[f32; LANES]], out: &mut [[f32; LANES]]) {
        let (panels, is_wide) = (self.together.chunks_exact(1 + self.inputs), has_avx512());
        for (panel, out) in panels.zip(out.as_chunks_mut::<TOGETHER>().0) {
            if is_wide {
                lanes::<0, TOGETHER>(rows, panel, out);
            } else {
                lanes::<0, { TOGETHER / 2 }>(rows, panel, out);
                lanes::<{ TOGETHER / 2 }, { TOGETHER / 2 }>(rows, panel, out);
            }
        }
    }
}

/// Of columns that lie together, `N` from `FROM` on.
#[inline(always)]
fn lanes<const FROM: usize, const N: usize>(
    rows: &[[f32; LANES]],
    panel: &[[f32; TOGETHER]],
    out: &mut [[f32; LANES]; TOGETHER],
) {
    let [bias, weights @ ..] = panel else { return };
    let mut sums = [[0.0; LANES]; N];
    for at in 0..N {
        sums[at] = [bias[FROM + at]; LANES];
    }
    for (row, weights) in rows.iter().zip(weights) {
        for at in 0..N {
            sums[at] = fused(sums[at], weights[FROM + at], row);
        }
    }
    out[FROM..FROM + N].copy_from_slice(&sums);
}

/// Sums of rows, at least one, that are as long as `out`; added in their order.
#[inline(always)]
pub(crate) fn sum(rows: &[&[f32]], out: &mut [f32]) {
    // In registers, as many columns as there may be.
    let from = sum_blocks::<64>(rows, 0, out);
    let from = sum_blocks::<32>(rows, from, out);
    let from = sum_blocks::<COLUMNS>(rows, from, out);
    let from = sum_blocks::<{ COLUMNS / 2 }>(rows, from, out);
    for at in from..out.len() {
        out[at] = rows[0][at];
        for row in &rows[1..] {
            out[at] += row[at];
        }
    }
}

/// Sums so many columns at once, from column `from`, as often as there are; the first that is
/// left.
#[inline(always)]
fn sum_blocks<const N: usize>(rows: &[&[f32]], from: usize, out: &mut [f32]) -> usize {
    let blocks = out[from..].as_chunks_mut::<N>().0;
    let end = from + N * blocks.len();
    for (from, out) in (from..).step_by(N).zip(blocks) {
        let mut sums: [f32; N] = load(&rows[0][from..]);
        for row in &rows[1..] {
            let values: [f32; N] = load(&row[from..]);
            for (sum, value) in sums.iter_mut().zip(&values) {
                *sum += value;
            }
        }
        *out = sums;
    }
    end
}

/// e to the power of `x`, which is at most 0, to about 1e-7; 0 below -87, NaN of NaN.
/// Without a call or a branch, so that a loop over it is done in lanes.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding it leaves a whole number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let within = if x < -87.0 { -87.0 } else { x };
    let shifted = within.mul_add(std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    // ln 2 in two parts, the first of few bits.
    let rest = whole.mul_add(2.121_944_4e-4, whole.mul_add(-0.693_359_4, within));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    // Of a Taylor series up to half of ln 2.
    let series = rest.mul_add(1.0 / 720.0, 1.0 / 120.0);
    let series = rest.mul_add(series, 1.0 / 24.0);
    let series = rest.mul_add(series, 1.0 / 6.0);
    let series = rest.mul_add(series, 0.5);
    let series = rest.mul_add(series, 1.0);
    let series = rest.mul_add(series, 1.0);
    if x < -87.0 { 0.0 } else { series * power }
}

/// 1 / (1 + e^-x), to about 1e-7.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    let small = exp(-x.abs());
    let part = if x < 0.0 { small } else { 1.0 };
    part / (1.0 + small)
}

/// The hyperbolic tangent, to about 1e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let small = exp(-2.0 * x.abs());
    ((1.0 - small) / (1.0 + small)).copysign(x)
}

/// The softmax of every so many columns.
#[inline(always)]
pub(crate) fn softmax(logits: &[f32], classes: usize, out: &mut [f32]) {
    for (logits, out) in logits.chunks_exact(classes).zip(out.chunks_exact_mut(classes)) {
        // NaN is never the most, and stays.
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
        out.iter_mut().zip(logits).for_each(|(out, logit)| *out = logit - most);
    }
    out.iter_mut().for_each(|out| *out = exp(*out));
    for out in out.chunks_exact_mut(classes) {
        let sum: f32 = out.iter().sum();
        out.iter_mut().for_each(|out| *out /= sum);
    }
}

#[cfg(test)]
mod tests {
    use ns_model_format::random::{Purpose, Stream};

    use super::*;

    #[test]
    fn functions_are_close_to_exact_ones() {
        for at in 0..87_000 {
            let x = -(at as f32) / 1000.0;
            let expected = f64::from(x).exp();
            let found = f64::from(exp(x));
            assert!((found / expected - 1.0).abs() < 5e-7, "{x}: {found} {expected}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!([exp(-87.5), exp(f32::NEG_INFINITY)], [0.0; 2]);
        for at in -20_000..=20_000 {
            let x = at as f32 / 1000.0;
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(sigmoid(x)) - exact).abs() < 3e-7, "{x}");
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 3e-7, "{x}");
        }
        let ends = [f32::NEG_INFINITY, f32::INFINITY];
        assert_eq!((ends.map(sigmoid), ends.map(tanh)), ([0.0, 1.0], [-1.0, 1.0]));
        assert!([exp, sigmoid, tanh].iter().all(|function| function(f32::NAN).is_nan()));
    }

    #[test]
    fn rows_are_summed_in_order() {
        for len in [1, 24, 32, 64, 96, 130] {
            let row = |scale: f32| (0..len).map(|at| scale * at as f32).collect::<Vec<_>>();
            let rows = [row(1e8), row(1.0), row(-1e8)];
            let mut out = vec![5.0; len];
            wide(
                #[inline(always)]
                || sum(&rows.each_ref().map(|row| &row[..]), &mut out),
            );
            let expected = (0..len).map(|at| (rows[0][at] + rows[1][at]) + rows[2][at]);
            assert!(out.iter().copied().eq(expected), "{len}");
        }
    }

    #[test]
    fn products_add_their_terms_in_order() {
        let mut stream = Stream::new(4, Purpose::Weights, 0);
        let mut normals = |count| {
            let mut values = vec![0.0; count];
            stream.fill_normal(&mut values);
            values
        };
        for (inputs, columns) in [(1, 1), (3, 16), (64, 256), (5, 17), (7, 32), (96, 49), (2, 65)] {
            let (rows, stride, width) = (2 * BLOCK, inputs + 3, padded(columns));
            let (a, weights) = (normals(rows * stride), normals(inputs * columns));
            let before = normals(rows * width);
            let mut out = before.clone();
            let matrix = Matrix::new(&weights, columns);
            wide(
                #[inline(always)]
                || matrix.multiply(rows, (&a, stride), &mut out),
            );
            for (row, out) in out.chunks_exact(width).enumerate() {
                for (column, &found) in out[..columns].iter().enumerate() {
                    let terms = (0..inputs)
                        .map(|at| (a[row * stride + at], weights[at * columns + column]));
                    let first = before[row * width + column];
                    let expected = terms.fold(first, |sum, (x, weight)| x.mul_add(weight, sum));
                    assert_eq!(
                        found.to_bits(),
                        expected.to_bits(),
                        "{inputs} {columns}: {row} {column}"
                    );
                }
                assert_eq!(out[columns..], before[row * width..][columns..width]);
            }
        }
    }
}
