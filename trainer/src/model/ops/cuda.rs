//! Kernels on a GPU: their source is compiled once a process, and launched on memory that
//! candle has allocated, on candle's stream, so that they keep their order with its own.

use super::gemm::View;
use candle_core::cuda_backend::cudarc::cublas::{result, sys::cublasOperation_t};
use candle_core::cuda_backend::cudarc::driver::{
    DevicePtr, DevicePtrMut, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc;
use candle_core::cuda_backend::{CudaDevice, CudaStorage, WrapErr};
use candle_core::{DType, Device, Error, Layout, Result, Storage, Tensor};
use ns_model_format::random::Draws;
use std::ffi::c_int;
use std::sync::OnceLock;

const SOURCE: &str = include_str!("kernels.cu");

/// Threads a block, as the sums in `kernels.cu` have room for.
const BLOCK: usize = 256;

/// The kernels compiled for a number type.
fn compiled(double: bool) -> Result<&'static str> {
    static COMPILED: [OnceLock<std::result::Result<String, String>>; 2] =
        [const { OnceLock::new() }; 2];
    let compile = || {
        let name = if double { "double" } else { "float" };
        let source = format!("typedef {name} real;\n{SOURCE}");
        let compiled = nvrtc::compile_ptx(source).map_err(|error| error.to_string())?;
        Ok(compiled.to_src())
    };
    let text = COMPILED[usize::from(double)].get_or_init(compile);
    text.as_deref()
        .map_err(|error| Error::Msg(format!("cannot compile the GPU's kernels: {error}")))
}

/// Compiles the kernels and loads them, so that what is missing is found before the training.
pub(crate) fn prepare(device: &Device) -> Result<()> {
    let Device::Cuda(device) = device else { return Ok(()) };
    device.get_or_load_custom_func("adam", "ns f32", compiled(false)?).map(|_| ())
}

/// Standard normals on a GPU, as many as there are draws.
pub(crate) fn normals(device: &Device, draws: &Draws, count: usize) -> Result<Tensor> {
    let Device::Cuda(cuda) = device else { candle_core::bail!("no GPU to draw on") };
    let gpu = Gpu { device: cuda.clone(), double: false };
    let (tensor, out) = gpu.zeros(count)?;
    let Draws { key, counter, first } = *draws;
    let [key, counter] =
        [&key[..], &counter].map(|words| words.iter().map(|&word| u64::from(word)));
    let words: Vec<u64> = key.chain(counter).collect();
    let pairs = count / 2;
    let arguments = [&[out.argument(), pairs as u64][..], &words, &[first]].concat();
    gpu.each("normals", pairs, &arguments)?;
    Ok(tensor)
}

/// Numbers on a GPU, one after another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Array {
    address: u64,
    /// Numbers.
    pub(crate) len: usize,
    /// Bytes of one.
    size: usize,
}

impl Array {
    const NONE: Array = Array { address: 0, len: 0, size: 0 };

    /// As an argument of a kernel.
    pub(crate) fn argument(self) -> u64 {
        self.address
    }

    /// What lies `at` numbers further on.
    ///
    /// # Errors
    ///
    /// It is not all there.
    pub(crate) fn part(self, at: usize, len: usize) -> Result<Array> {
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            candle_core::bail!("numbers {at} to {at} + {len} of {}", self.len)
        }
        Ok(Array { address: self.address + (at * self.size) as u64, len, ..self })
    }
}

/// A GPU about to work on tensors of one number type.
pub(crate) struct Gpu {
    device: CudaDevice,
    double: bool,
}

impl Gpu {
    fn of(storage: &CudaStorage) -> Result<Gpu> {
        use candle_core::backend::BackendStorage;
        let double = match storage.dtype() {
            DType::F32 => false,
            DType::F64 => true,
            other => candle_core::bail!("a kernel takes f32 or f64, not {other:?}"),
        };
        Ok(Gpu { device: storage.device().clone(), double })
    }

    fn size(&self) -> usize {
        if self.double { 8 } else { 4 }
    }

    fn read_only(&self, storage: &CudaStorage, at: usize, len: usize) -> Result<Array> {
        let stream = self.device.cuda_stream();
        let address = if self.double {
            storage.as_cuda_slice::<f64>()?.device_ptr(&stream).0
        } else {
            storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0
        };
        let size = self.size();
        Ok(Array { address: address + (at * size) as u64, len, size })
    }

    fn written(&self, storage: &mut CudaStorage, at: usize, len: usize) -> Result<Array> {
        let stream = self.device.cuda_stream();
        let address = if self.double {
            storage.as_cuda_slice_mut::<f64>()?.device_ptr_mut(&stream).0
        } else {
            storage.as_cuda_slice_mut::<f32>()?.device_ptr_mut(&stream).0
        };
        let size = self.size();
        Ok(Array { address: address + (at * size) as u64, len, size })
    }

    /// Zeros to work with until it is dropped.
    pub(crate) fn zeros(&self, len: usize) -> Result<(Tensor, Array)> {
        let dtype = if self.double { DType::F64 } else { DType::F32 };
        let tensor = Tensor::zeros(len, dtype, &Device::Cuda(self.device.clone()))?;
        let array = match &*tensor.storage_and_layout().0 {
            Storage::Cuda(storage) => self.read_only(storage, 0, len)?,
            _ => candle_core::bail!("a GPU's tensor is elsewhere"),
        };
        Ok((tensor, array))
    }

    /// Zeros in double precision, and their address.
    pub(crate) fn doubles(&self, len: usize) -> Result<(Tensor, u64)> {
        let (tensor, array) = Gpu { device: self.device.clone(), double: true }.zeros(len)?;
        Ok((tensor, array.argument()))
    }

    /// The address of whole numbers (`u32`), as an argument.
    pub(crate) fn table(&self, table: &Tensor) -> Result<u64> {
        match &*table.storage_and_layout().0 {
            Storage::Cuda(storage) => {
                Ok(storage.as_cuda_slice::<u32>()?.device_ptr(&self.device.cuda_stream()).0)
            }
            _ => candle_core::bail!("a GPU's table is elsewhere"),
        }
    }

    /// A tensor of whole numbers on this GPU.
    pub(crate) fn upload(&self, numbers: Vec<u32>) -> Result<Tensor> {
        let len = numbers.len();
        Tensor::from_vec(numbers, len, &Device::Cuda(self.device.clone()))
    }

    /// Runs a kernel in at least so many threads, each with its own piece of work.
    pub(crate) fn each(&self, name: &str, count: usize, arguments: &[u64]) -> Result<()> {
        // Kernels count in 32 bits.
        if i32::try_from(count).is_err() {
            candle_core::bail!(
                "{count} numbers are too many for a GPU at once: take a smaller batch"
            )
        }
        self.blocks(name, count.div_ceil(BLOCK), arguments)
    }

    /// Runs a kernel in so many blocks of 256 threads.
    pub(crate) fn blocks(&self, name: &str, blocks: usize, arguments: &[u64]) -> Result<()> {
        if blocks == 0 {
            return Ok(());
        }
        let Ok(grid) = u32::try_from(blocks) else {
            candle_core::bail!("{blocks} blocks are too many for a GPU: take a smaller batch")
        };
        let module = if self.double { "ns f64" } else { "ns f32" };
        let function = self.device.get_or_load_custom_func(name, module, compiled(self.double)?)?;
        let mut launch = function.builder();
        for argument in arguments {
            launch.arg(argument);
        }
        let config = LaunchConfig {
            grid_dim: (grid, 1, 1),
            block_dim: (BLOCK as u32, 1, 1),
            shared_mem_bytes: 0,
        };
        // Sound: kernels stay within the lengths that their callers have checked and pass
        // along, and all memory belongs to tensors that the caller holds; the stream frees
        // nothing before it has run.
        #[allow(unsafe_code)]
        unsafe {
            launch.launch(config).w()?;
        }
        Ok(())
    }

    /// `out = a b`.
    ///
    /// # Errors
    ///
    /// Shapes do not chain, a view leaves its numbers or has gaps between columns and rows
    /// alike, or the GPU fails.
    pub(crate) fn gemm(
        &self,
        (out, out_view): (Array, View),
        (a, a_view): (Array, View),
        (b, b_view): (Array, View),
    ) -> Result<()> {
        let chained = a_view.rows == out_view.rows
            && b_view.columns == out_view.columns
            && a_view.columns == b_view.rows;
        let inside =
            out_view.extent() <= out.len && a_view.extent() <= a.len && b_view.extent() <= b.len;
        if !chained || !inside || out_view.column_stride != 1 {
            candle_core::bail!("matrices do not chain: {out_view:?} = {a_view:?} {b_view:?}")
        }
        if out_view.rows == 0 || out_view.columns == 0 {
            return Ok(());
        }
        let count = |value: usize| {
            c_int::try_from(value)
                .map_err(|_| Error::Msg("a matrix is too large for a GPU".to_owned()))
        };
        // What is a row to us is a column to BLAS: it computes the transposed product.
        let how = |view: View| {
            if view.column_stride == 1 || view.columns <= 1 {
                let stride = view.row_stride.max(view.columns).max(1);
                Ok((cublasOperation_t::CUBLAS_OP_N, count(stride)?))
            } else if view.row_stride == 1 || view.rows <= 1 {
                Ok((
                    cublasOperation_t::CUBLAS_OP_T,
                    count(view.column_stride.max(view.rows).max(1))?,
                ))
            } else {
                candle_core::bail!("a matrix has gaps: {view:?}")
            }
        };
        let ((of_a, stride_a), (of_b, stride_b)) = (how(a_view)?, how(b_view)?);
        let stride_out = count(out_view.row_stride.max(out_view.columns))?;
        let (m, n, k) = (count(out_view.columns)?, count(out_view.rows)?, count(a_view.columns)?);
        let blas = self.device.cublas_handle();
        let handle = *blas.handle();
        // Sound: the views were checked to lie in their arrays, which belong to tensors that
        // the caller holds; constants are read when the call is made.
        #[allow(unsafe_code)]
        unsafe {
            if self.double {
                let (one, zero) = (1.0_f64, 0.0_f64);
                let pointer = |array: Array| array.address as *const f64;
                result::dgemm(
                    handle,
                    of_b,
                    of_a,
                    m,
                    n,
                    k,
                    &raw const one,
                    pointer(b),
                    stride_b,
                    pointer(a),
                    stride_a,
                    &raw const zero,
                    out.address as *mut f64,
                    stride_out,
                )
            } else {
                let (one, zero) = (1.0_f32, 0.0_f32);
                let pointer = |array: Array| array.address as *const f32;
                result::sgemm(
                    handle,
                    of_b,
                    of_a,
                    m,
                    n,
                    k,
                    &raw const one,
                    pointer(b),
                    stride_b,
                    pointer(a),
                    stride_a,
                    &raw const zero,
                    out.address as *mut f32,
                    stride_out,
                )
            }
        }
        .w()
    }
}

/// A tensor's numbers; one that was not given has none.
pub(crate) fn source(gpu: &Gpu, source: Option<(&CudaStorage, &Layout)>) -> Result<Array> {
    let Some((storage, layout)) = source else { return Ok(Array::NONE) };
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a kernel takes contiguous tensors")
    };
    gpu.read_only(storage, start, end - start)
}

/// The GPU that a tensor lies on, and its numbers, to be rewritten.
pub(crate) fn target((storage, layout): (&mut CudaStorage, &Layout)) -> Result<(Gpu, Array)> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a kernel takes contiguous tensors")
    };
    let gpu = Gpu::of(storage)?;
    let array = gpu.written(storage, start, end - start)?;
    Ok((gpu, array))
}

/// Everything of a storage from a layout's start on, for views with strides of their own.
pub(crate) fn rest_of(gpu: &Gpu, (storage, layout): (&CudaStorage, &Layout)) -> Result<Array> {
    let start = layout.start_offset();
    let view = View::of(layout)?;
    gpu.read_only(storage, start, view.extent())
}
