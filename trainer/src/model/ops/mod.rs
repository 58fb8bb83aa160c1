//! What networks do to tensors: one function an operation, with a fused body
//! on the CPU, one on a GPU, and the same in ordinary tensor operations, by which
//! tests judge both.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod dense;
pub(crate) mod gemm;
pub(crate) mod kernel;
pub(crate) mod lstm;
pub(crate) mod real;
pub(crate) mod segments;
pub(crate) mod threads;
pub(crate) mod tokens;

use candle_core::{Device, Result, Tensor};
use gemm::Product;
use ns_model_format::random::Stream;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use threads::{on_threads, pool, threads};

/// Every way that operations can run on this machine. Tests run one body for each: fused
/// and as tensor operations on the CPU, and on a GPU where there is one.
#[cfg(test)]
pub(crate) fn places() -> Vec<(Device, Ops)> {
    let mut places = vec![(Device::Cpu, Ops::on(&Device::Cpu)), (Device::Cpu, Ops::Plain)];
    match crate::device::Choice::Cuda(0).open() {
        Ok(device) => {
            places.push((device.clone(), Ops::on(&device)));
            places.push((device, Ops::Plain));
        }
        Err(reason) => println!("not on a GPU: {reason:#}"),
    }
    places
}

/// How operations run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ops {
    /// Fused, on the CPU.
    Cpu,
    /// Fused, on a GPU.
    Gpu,
    /// As tensor operations.
    Plain,
}

impl Ops {
    /// Fused where there are bodies for the device.
    pub(crate) fn on(device: &Device) -> Ops {
        match device {
            Device::Cpu => Ops::Cpu,
            Device::Cuda(_) if cfg!(feature = "cuda") => Ops::Gpu,
            _ => Ops::Plain,
        }
    }

    /// Whether fused bodies run.
    pub(crate) fn fused(self) -> bool {
        self != Ops::Plain
    }

    /// Whether what has a fused body on the CPU alone has one here.
    pub(crate) fn on_cpu(self) -> bool {
        self == Ops::Cpu
    }

    /// Does all of a training's step on one pool, whose threads are still awake from one
    /// operation to the next. Outside of it, operations share out on the process's pool.
    pub(crate) fn on_a_pool<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        let threads = threads();
        match if self.on_cpu() && threads > 1 { pool(threads) } else { None } {
            Some(pool) => pool.install(|| on_threads(threads, work)),
            None => work(),
        }
    }

    /// Does two things that have nothing to do with each other, at once where
    /// threads are left: each fills the gaps in which the other has nothing to share out.
    pub(crate) fn both<A: Send, B: Send>(
        self,
        first: impl FnOnce() -> A + Send,
        second: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        let threads = threads();
        if !self.on_cpu() || threads == 1 {
            return (first(), second());
        }
        rayon::join(|| on_threads(threads, first), || on_threads(threads, second))
    }

    /// What each item comes to, in their order: on the CPU, as many at once as there are
    /// threads, and what is done for an item is not shared out again.
    pub(crate) fn each<I: Send, R: Send>(
        self,
        items: Vec<I>,
        run: impl Fn(I) -> R + Sync,
    ) -> Vec<R> {
        match if self.on_cpu() { threads().min(items.len()) } else { 1 } {
            0 | 1 => items.into_iter().map(run).collect(),
            _ => {
                let items = items.into_par_iter().with_max_len(1);
                items.map(|item| on_threads(1, || run(item))).collect()
            }
        }
    }

    /// The next normals of a stream, `[rows, columns]` of f32.
    pub(crate) fn normals(
        self,
        stream: &mut Stream,
        (rows, columns): (usize, usize),
        device: &Device,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if self == Ops::Gpu
            && let Some(draws) = stream.hand_over_normals(rows * columns)
        {
            return cuda::normals(device, &draws, rows * columns)?.reshape((rows, columns));
        }
        let mut values = vec![0.0; rows * columns];
        stream.fill_normal(&mut values);
        Tensor::from_vec(values, (rows, columns), device)
    }

    /// `out = a b` into a matrix whose rows follow one another.
    pub(crate) fn matmul_into(self, out: &Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
        if self.fused() {
            return out.inplace_op3(a, b, &Product);
        }
        out.slice_set(&product(a, b)?, 0, 0)
    }

    /// `a b` as a new matrix.
    pub(crate) fn matmul(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        if !self.on_cpu() {
            return product(a, b);
        }
        let out = Tensor::zeros((a.dim(0)?, b.dim(1)?), a.dtype(), a.device())?;
        self.matmul_into(&out, a, b)?;
        Ok(out)
    }
}

/// GPU products take matrices without gaps, transposed or not.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let packed = |tensor: &Tensor| {
        if tensor.is_contiguous() || tensor.t()?.is_contiguous() {
            Ok(tensor.clone())
        } else {
            tensor.contiguous()
        }
    };
    packed(a)?.matmul(&packed(b)?)
}

/// 1 where the condition holds, else 0, in the type of `like`.
pub(crate) fn indicator(condition: &Tensor, like: &Tensor) -> Result<Tensor> {
    condition.to_dtype(like.dtype())
}
