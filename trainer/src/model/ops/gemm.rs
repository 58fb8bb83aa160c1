//! Matrix products into memory that is already there.
//!
//! candle's own product allocates its result and takes its thread count from
//! the environment; ours writes where it is told, each thread its rows. The sum
//! over the inner dimension runs in one order whatever the threads, so their
//! number changes no bit of the result.

#[cfg(feature = "cuda")]
use super::cuda;
use super::real::{Real, wide};
use super::threads::{by_rows, cut, numbered, share_out, shares};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp3, Layout, Result};
use gemm::Parallelism;
use std::sync::Once;

/// `[rows, columns]` somewhere in a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// Rows.
    pub(crate) rows: usize,
    /// Columns.
    pub(crate) columns: usize,
    /// From one row to the next.
    pub(crate) row_stride: usize,
    /// From one column to the next.
    pub(crate) column_stride: usize,
}

impl View {
    /// Row after row without gaps.
    pub(crate) fn dense(rows: usize, columns: usize) -> View {
        View { rows, columns, row_stride: columns, column_stride: 1 }
    }

    pub(super) fn of(layout: &Layout) -> Result<View> {
        let (rows, columns) = layout.shape().dims2()?;
        match *layout.stride() {
            [row_stride, column_stride] => Ok(View { rows, columns, row_stride, column_stride }),
            _ => candle_core::bail!("a matrix product takes matrices"),
        }
    }

    /// Numbers from its first to its last.
    pub(super) fn extent(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// Multiplications that a thread is woken for at least.
const LEAST: usize = 1 << 18;

/// `out = a b`, or `out += a b`.
///
/// # Panics
///
/// Where shapes do not chain or a view leaves its slice.
pub(crate) fn gemm_into<T: Real>(
    (out, out_view): (&mut [T], View),
    (a, a_view): (&[T], View),
    (b, b_view): (&[T], View),
    add: bool,
) {
    if b_view.row_stride == 1 && b_view.column_stride > 1 && out_view.rows > 1 {
        return times_transposed((out, out_view), (a, a_view), (b, b_view), add);
    }
    let of_a_row = (b_view.rows * b_view.columns).max(1);
    let shares = shares(out_view.rows, LEAST.div_ceil(of_a_row));
    let parts = cut(out, &shares, out_view.row_stride).into_iter().zip(&shares);
    share_out(numbered(parts, &shares).collect(), &|(first, (out, &rows))| {
        let a = a.get(first * a_view.row_stride..).unwrap_or_default();
        let (out_view, a_view) = (View { rows, ..out_view }, View { rows, ..a_view });
        rows_into((out, out_view), (a, a_view), (b, b_view), add);
    });
}

/// A thread's part of the product.
fn rows_into<T: Real>(
    (out, out_view): (&mut [T], View),
    (a, a_view): (&[T], View),
    (b, b_view): (&[T], View),
    add: bool,
) {
    // Whole vectors are read where they lie; for a few columns more, all would be copied first.
    let whole = out_view.columns / VECTOR * VECTOR;
    let rest = out_view.columns - whole;
    if whole == 0 || rest == 0 || b_view.column_stride != 1 {
        return multiply((out, out_view), (a, a_view), (b, b_view), add);
    }
    let part = |view: View, columns| View { columns, ..view };
    multiply((out, part(out_view, whole)), (a, a_view), (b, part(b_view, whole)), add);
    let (out, b) = (&mut out[whole..], &b[whole..]);
    multiply((out, part(out_view, rest)), (a, a_view), (b, part(b_view, rest)), add);
}

/// Numbers in the widest vector.
const VECTOR: usize = 16;

/// The product with a matrix whose columns lie in memory as rows. The library
/// would copy them number by number; in tiles it takes a fraction of the time,
/// and in blocks of columns the copy stays in cache.
fn times_transposed<T: Real>(
    (out, out_view): (&mut [T], View),
    (a, a_view): (&[T], View),
    (b, b_view): (&[T], View),
    add: bool,
) {
    const BLOCK: usize = 256;
    let depth = b_view.rows;
    let mut copy = vec![T::of(0.0); depth * BLOCK.min(out_view.columns)];
    for first in (0..out_view.columns).step_by(BLOCK) {
        let columns = BLOCK.min(out_view.columns - first);
        let copy = &mut copy[..depth * columns];
        let source = &b[first * b_view.column_stride..];
        by_rows(copy, columns, |row, copy| {
            transpose(copy, columns, &source[row..], b_view.column_stride);
        });
        gemm_into(
            (&mut out[first..], View { columns, ..out_view }),
            (a, a_view),
            (copy, View::dense(depth, columns)),
            add,
        );
    }
}

/// Fills `out`, rows of `columns` numbers, with what begins in `source` every
/// `stride` numbers as its columns.
pub(crate) fn transpose<T: Real>(out: &mut [T], columns: usize, source: &[T], stride: usize) {
    /// Few enough lines to lie in the cache together at any stride, two of each.
    const TILE: (usize, usize) = (32, 8);
    let depth = out.len() / columns.max(1);
    wide(
        #[inline(always)]
        || {
            for top in (0..depth).step_by(TILE.0) {
                for left in (0..columns).step_by(TILE.1) {
                    let source = &source[left * stride + top..];
                    let out = &mut out[top * columns + left..];
                    let (height, width) = ((depth - top).min(TILE.0), (columns - left).min(TILE.1));
                    // A size known beforehand makes loops into moves.
                    if (height, width) == TILE {
                        tile(out, columns, source, stride, TILE);
                    } else {
                        tile(out, columns, source, stride, (height, width));
                    }
                }
            }
        },
    );
}

#[inline(always)]
fn tile<T: Real>(
    out: &mut [T],
    columns: usize,
    source: &[T],
    stride: usize,
    (height, width): (usize, usize),
) {
    for row in 0..height {
        let out = &mut out[row * columns..row * columns + width];
        for (column, out) in out.iter_mut().enumerate() {
            *out = source[column * stride + row];
        }
    }
}

/// The product by the library, of views as they are.
fn multiply<T: Real>(
    (out, out_view): (&mut [T], View),
    (a, a_view): (&[T], View),
    (b, b_view): (&[T], View),
    add: bool,
) {
    assert!(
        a_view.rows == out_view.rows
            && b_view.columns == out_view.columns
            && a_view.columns == b_view.rows,
        "matrix shapes do not chain"
    );
    assert!(
        out_view.extent() <= out.len() && a_view.extent() <= a.len() && b_view.extent() <= b.len(),
        "a matrix leaves its memory"
    );
    // A repeated element would be written twice at once.
    assert!(
        out_view.column_stride == 1
            && (out_view.row_stride >= out_view.columns || out_view.rows <= 1),
        "a product is written row by row"
    );
    // Rows that a thread repacks all of `b` for, in units of the six that it takes at once: for
    // a share of a batch it costs more than it saves.
    static PACKING: Once = Once::new();
    PACKING.call_once(|| gemm::set_lhs_packing_threshold_single_thread(32));
    // Sound: every index that the shapes and strides reach was checked to lie
    // in its slice; `out` is borrowed mutably, so nothing aliases it.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            out_view.rows,
            out_view.columns,
            a_view.columns,
            out.as_mut_ptr(),
            out_view.column_stride as isize,
            out_view.row_stride as isize,
            add,
            a.as_ptr(),
            a_view.column_stride as isize,
            a_view.row_stride as isize,
            b.as_ptr(),
            b_view.column_stride as isize,
            b_view.row_stride as isize,
            T::of(if add { 1.0 } else { 0.0 }),
            T::of(1.0),
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// The product as an operation in place.
pub(crate) struct Product;

impl Product {
    fn run<T: Real>(
        out: (&mut CpuStorage, &Layout),
        a: (&CpuStorage, &Layout),
        b: (&CpuStorage, &Layout),
    ) -> Result<()> {
        let views = (View::of(out.1)?, View::of(a.1)?, View::of(b.1)?);
        let out_values = T::values_mut(out.0)?.get_mut(out.1.start_offset()..).unwrap_or_default();
        let a_values = T::cpu_storage_as_slice(a.0)?.get(a.1.start_offset()..).unwrap_or_default();
        let b_values = T::cpu_storage_as_slice(b.0)?.get(b.1.start_offset()..).unwrap_or_default();
        if views.1.rows != views.0.rows
            || views.2.columns != views.0.columns
            || views.1.columns != views.2.rows
        {
            candle_core::bail!("matrix shapes do not chain: {:?}", views);
        }
        gemm_into((out_values, views.0), (a_values, views.1), (b_values, views.2), false);
        Ok(())
    }
}

impl InplaceOp3 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<()> {
        match out {
            CpuStorage::F64(_) => {
                Product::run::<f64>((out, out_layout), (a, a_layout), (b, b_layout))
            }
            _ => Product::run::<f32>((out, out_layout), (a, a_layout), (b, b_layout)),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        out: &mut CudaStorage,
        out_layout: &Layout,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<()> {
        let (gpu, out) = cuda::target((out, out_layout))?;
        let a_values = cuda::rest_of(&gpu, (a, a_layout))?;
        let b_values = cuda::rest_of(&gpu, (b, b_layout))?;
        gpu.gemm(
            (out, View::of(out_layout)?),
            (a_values, View::of(a_layout)?),
            (b_values, View::of(b_layout)?),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers whose products and sums are exact.
    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|index| (index * 7 % 23) as f32 - 11.0).collect()
    }

    #[test]
    fn products_of_every_layout_agree() {
        // Across blocks, tiles and vectors: whole ones, parts, and less than one.
        for (rows, depth, columns) in [(1, 5, 40), (7, 33, 9), (20, 300, 531), (3, 64, 512)] {
            let (a, b) = (numbers(rows * depth), numbers(depth * columns));
            let mut flipped = vec![0.0; b.len()];
            transpose(&mut flipped, depth, &b, columns);
            for row in 0..depth {
                for column in 0..columns {
                    assert_eq!(flipped[column * depth + row], b[row * columns + column]);
                }
            }
            let flipped_view = View { rows: depth, columns, row_stride: 1, column_stride: depth };
            for (b, view) in [(&b, View::dense(depth, columns)), (&flipped, flipped_view)] {
                let mut out = numbers(rows * columns);
                let out_view = View::dense(rows, columns);
                let a_view = View::dense(rows, depth);
                gemm_into((&mut out, out_view), (&a, a_view), (b, view), true);
                let before = numbers(rows * columns);
                for row in 0..rows {
                    for column in 0..columns {
                        let at = |k: usize| b[k * view.row_stride + column * view.column_stride];
                        let sum: f32 = (0..depth).map(|k| a[row * depth + k] * at(k)).sum();
                        let at = row * columns + column;
                        assert_eq!(out[at], before[at] + sum, "{rows} {depth} {columns}: {at}");
                    }
                }
            }
        }
    }
}
