//! Matrix products into memory that is already there.
//!
//! candle's own product allocates its result and takes its thread count from
//! the environment; ours writes where it is told, with as many threads as it
//! is told. The sum over the inner dimension runs in one order whatever the
//! threads, so their number changes no bit of the result.

use super::real::Real;
use candle_core::{CpuStorage, InplaceOp3, Layout, Result};
use gemm::Parallelism;

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

    /// The same numbers with rows and columns exchanged.
    pub(crate) fn transposed(self) -> View {
        View {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    fn of(layout: &Layout) -> Result<View> {
        let (rows, columns) = layout.shape().dims2()?;
        match *layout.stride() {
            [row_stride, column_stride] => Ok(View { rows, columns, row_stride, column_stride }),
            _ => candle_core::bail!("a matrix product takes matrices"),
        }
    }

    fn extent(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// `out = a b`, or `out += a b`.
///
/// # Panics
///
/// Where shapes do not chain or a view leaves its slice.
pub(crate) fn gemm_into<T: Real>(
    threads: usize,
    out: (&mut [T], View),
    a: (&[T], View),
    b: (&[T], View),
    add: bool,
) {
    let ((out, out_view), (a, a_view), (b, b_view)) = (out, a, b);
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
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
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
            parallelism,
        );
    }
}

/// The product as an operation in place.
pub(crate) struct Product {
    /// Threads it may use.
    pub(crate) threads: usize,
}

impl Product {
    fn run<T: Real>(
        &self,
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
        gemm_into(
            self.threads,
            (out_values, views.0),
            (a_values, views.1),
            (b_values, views.2),
            false,
        );
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
            CpuStorage::F64(_) => self.run::<f64>((out, out_layout), (a, a_layout), (b, b_layout)),
            _ => self.run::<f32>((out, out_layout), (a, a_layout), (b, b_layout)),
        }
    }
}
