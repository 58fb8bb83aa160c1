//! Work on tensors as candle operations in place: one body for the CPU, one for a GPU.

#[cfg(feature = "cuda")]
use super::cuda::{self, Array, Gpu};
use super::real::Real;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, InplaceOp3, Layout, Result};

/// Work on contiguous memory that no sequence of tensor operations does in one pass.
pub(crate) trait Kernel {
    /// For error texts.
    const NAME: &'static str;

    /// Rewrites `out`; a source that was not given is empty.
    fn run<T: Real>(&self, out: &mut [T], first: &[T], second: &[T]) -> Result<()>;

    /// The same on a GPU.
    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, first: Array, second: Array) -> Result<()>;
}

/// A kernel as a candle operation.
pub(crate) struct InPlace<K>(pub(crate) K);

/// The numbers of a contiguous tensor; none if there is no tensor.
pub(super) fn slice<'a, T: Real>(source: Option<(&'a CpuStorage, &Layout)>) -> Result<&'a [T]> {
    let Some((storage, layout)) = source else { return Ok(&[]) };
    match layout.contiguous_offsets() {
        Some((start, end)) => T::cpu_storage_as_slice(storage)?
            .get(start..end)
            .ok_or_else(|| candle_core::Error::Msg("a view leaves its memory".to_owned())),
        None => candle_core::bail!("a kernel takes contiguous tensors"),
    }
}

impl<K: Kernel> InPlace<K> {
    fn run<T: Real>(
        &self,
        out: (&mut CpuStorage, &Layout),
        first: Option<(&CpuStorage, &Layout)>,
        second: Option<(&CpuStorage, &Layout)>,
    ) -> Result<()> {
        let Some((start, end)) = out.1.contiguous_offsets() else {
            candle_core::bail!("a kernel takes contiguous tensors")
        };
        let Some(values) = T::values_mut(out.0)?.get_mut(start..end) else {
            candle_core::bail!("a view leaves its memory")
        };
        self.0.run(values, slice(first)?, slice(second)?)
    }

    fn dispatch(
        &self,
        out: (&mut CpuStorage, &Layout),
        first: Option<(&CpuStorage, &Layout)>,
        second: Option<(&CpuStorage, &Layout)>,
    ) -> Result<()> {
        match out.0 {
            CpuStorage::F64(_) => self.run::<f64>(out, first, second),
            _ => self.run::<f32>(out, first, second),
        }
    }

    #[cfg(feature = "cuda")]
    fn launch(
        &self,
        out: (&mut CudaStorage, &Layout),
        first: Option<(&CudaStorage, &Layout)>,
        second: Option<(&CudaStorage, &Layout)>,
    ) -> Result<()> {
        let (gpu, out) = cuda::target(out)?;
        let (first, second) = (cuda::source(&gpu, first)?, cuda::source(&gpu, second)?);
        self.0.launch(&gpu, out, first, second)
    }
}

impl<K: Kernel> InplaceOp1 for InPlace<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(&self, out: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.dispatch((out, layout), None, None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, out: &mut CudaStorage, layout: &Layout) -> Result<()> {
        self.launch((out, layout), None, None)
    }
}

impl<K: Kernel> InplaceOp2 for InPlace<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
    ) -> Result<()> {
        self.dispatch((out, layout), Some((first, first_layout)), None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        out: &mut CudaStorage,
        layout: &Layout,
        first: &CudaStorage,
        first_layout: &Layout,
    ) -> Result<()> {
        self.launch((out, layout), Some((first, first_layout)), None)
    }
}

impl<K: Kernel> InplaceOp3 for InPlace<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        self.dispatch((out, layout), Some((first, first_layout)), Some((second, second_layout)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        out: &mut CudaStorage,
        layout: &Layout,
        first: &CudaStorage,
        first_layout: &Layout,
        second: &CudaStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        self.launch((out, layout), Some((first, first_layout)), Some((second, second_layout)))
    }
}

/// Fails where lengths do not fit: kernels index by them.
pub(crate) fn expect_lengths(name: &str, found: &[usize], expected: &[usize]) -> Result<()> {
    if found != expected {
        candle_core::bail!("{name}: lengths {found:?}, expected {expected:?}");
    }
    Ok(())
}
