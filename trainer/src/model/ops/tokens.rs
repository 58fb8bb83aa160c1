//! What networks of tokens do: rows of tables looked up and added, and the loss of the
//! token that was there.

use super::Ops;
#[cfg(feature = "cuda")]
use super::cuda::{Array, Gpu};
use super::kernel::{InPlace, Kernel, expect_lengths};
use super::real::{Real, wide};
use candle_core::{D, DType, Device, Result, Tensor};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A token a row, each with a weight.
#[derive(Debug)]
pub(crate) struct Ids {
    ids: Vec<u32>,
    /// 1 each, if there are none.
    weights: Vec<f32>,
    on_device: OnceLock<(Tensor, Tensor)>,
    /// See [`Ids::table`].
    #[cfg(feature = "cuda")]
    on_gpu: OnceLock<Tensor>,
}

impl Ids {
    /// All of weight 1.
    pub(crate) fn new(ids: Vec<u32>) -> Ids {
        Ids::weighted(ids, Vec::new())
    }

    pub(crate) fn weighted(ids: Vec<u32>, weights: Vec<f32>) -> Ids {
        Ids {
            ids,
            weights,
            on_device: OnceLock::new(),
            #[cfg(feature = "cuda")]
            on_gpu: OnceLock::new(),
        }
    }

    fn weight(&self, row: usize) -> f32 {
        self.weights.get(row).copied().unwrap_or(1.0)
    }

    /// Ids `[rows]` and weights `[rows, 1]` as tensors.
    fn tensors(&self, dtype: DType, device: &Device) -> Result<&(Tensor, Tensor)> {
        if let Some(tensors) = self.on_device.get() {
            return Ok(tensors);
        }
        let rows = self.ids.len();
        let weights: Vec<f32> = (0..rows).map(|row| self.weight(row)).collect();
        let ids = Tensor::from_slice(&self.ids, rows, device)?;
        let weights = Tensor::from_vec(weights, (rows, 1), device)?.to_dtype(dtype)?;
        Ok(self.on_device.get_or_init(|| (ids, weights)))
    }

    /// What kernels take: the ids, the bits of their weights, the rows in the order of their
    /// ids, and where each id that occurs begins among these; the address of each, and how
    /// many ids occur.
    #[cfg(feature = "cuda")]
    fn table(&self, gpu: &Gpu) -> Result<([u64; 4], usize)> {
        let rows = self.ids.len();
        let table = match self.on_gpu.get() {
            Some(table) => table,
            None => {
                let mut order: Vec<u32> = (0..rows as u32).collect();
                let id = |row: u32| self.ids[row as usize];
                order.sort_by_key(|&row| id(row));
                let begins = |&at: &usize| at == 0 || id(order[at]) != id(order[at - 1]);
                let starts = (0..rows).filter(begins).map(|at| at as u32);
                let weights = (0..rows).map(|row| self.weight(row).to_bits());
                let numbers = self.ids.iter().copied().chain(weights);
                let numbers = numbers.chain(order.iter().copied()).chain(starts);
                let table = gpu.upload(numbers.chain([rows as u32]).collect())?;
                self.on_gpu.get_or_init(|| table)
            }
        };
        let address = gpu.table(table)?;
        let part = |index: usize| address + (index * rows * size_of::<u32>()) as u64;
        Ok(([0, 1, 2, 3].map(part), table.elem_count() - 3 * rows - 1))
    }

    fn check(&self, name: &str, rows: usize, size: usize) -> Result<()> {
        expect_lengths(name, &[rows], &[self.ids.len()])?;
        match self.ids.iter().find(|&&id| id as usize >= size) {
            Some(id) => candle_core::bail!("{name}: token {id} of {size}"),
            None => Ok(()),
        }
    }
}

/// `out[row] += weight[row] table[id[row]]`.
struct LookUp<'a>(&'a Ids, usize);

impl Kernel for LookUp<'_> {
    const NAME: &'static str = "look-up";

    fn run<T: Real>(&self, out: &mut [T], table: &[T], _: &[T]) -> Result<()> {
        let LookUp(ids, width) = *self;
        ids.check(Self::NAME, out.len() / width.max(1), table.len() / width.max(1))?;
        wide(
            #[inline(always)]
            || {
                for (row, (out, &id)) in out.chunks_exact_mut(width).zip(&ids.ids).enumerate() {
                    let weight = ids.weight(row);
                    if weight == 0.0 {
                        continue;
                    }
                    let weight = T::of(f64::from(weight));
                    for (out, value) in out.iter_mut().zip(&table[id as usize * width..][..width]) {
                        *out += weight * *value;
                    }
                }
            },
        );
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, table: Array, _: Array) -> Result<()> {
        let LookUp(ids, width) = *self;
        ids.check(Self::NAME, out.len / width.max(1), table.len / width.max(1))?;
        let ([id, weight, ..], _) = ids.table(gpu)?;
        let sizes = [out.len as u64, width as u64];
        let arguments = [&[out.argument(), table.argument(), id, weight][..], &sizes].concat();
        gpu.each("look_up", out.len, &arguments)
    }
}

/// `out[id[row]] += weight[row] gradient[row]`, in the order of the rows.
struct LookUpBackward<'a>(&'a Ids, usize);

impl Kernel for LookUpBackward<'_> {
    const NAME: &'static str = "gradient of a look-up";

    fn run<T: Real>(&self, out: &mut [T], gradient: &[T], _: &[T]) -> Result<()> {
        let LookUpBackward(ids, width) = *self;
        ids.check(Self::NAME, gradient.len() / width.max(1), out.len() / width.max(1))?;
        wide(
            #[inline(always)]
            || {
                for (row, (gradient, &id)) in gradient.chunks_exact(width).zip(&ids.ids).enumerate()
                {
                    let weight = ids.weight(row);
                    if weight == 0.0 {
                        continue;
                    }
                    let weight = T::of(f64::from(weight));
                    let out = &mut out[id as usize * width..][..width];
                    for (out, value) in out.iter_mut().zip(gradient) {
                        *out += weight * *value;
                    }
                }
            },
        );
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, gradient: Array, _: Array) -> Result<()> {
        let LookUpBackward(ids, width) = *self;
        ids.check(Self::NAME, gradient.len / width.max(1), out.len / width.max(1))?;
        let (table, occurring) = ids.table(gpu)?;
        let count = occurring * width;
        let sizes = [count as u64, width as u64];
        let arguments = [&[out.argument(), gradient.argument()][..], &table, &sizes].concat();
        gpu.each("look_up_backward", count, &arguments)
    }
}

/// Logits become the gradient of `scale sum(weight -ln softmax(logits)[id])`.
struct CrossEntropy<'a> {
    ids: &'a Ids,
    size: usize,
    scale: f64,
    /// The sum, without the scale.
    loss: Mutex<f64>,
}

impl Kernel for CrossEntropy<'_> {
    const NAME: &'static str = "cross-entropy";

    fn run<T: Real>(&self, out: &mut [T], _: &[T], _: &[T]) -> Result<()> {
        let size = self.size.max(1);
        self.ids.check(Self::NAME, out.len() / size, size)?;
        let mut loss = 0.0;
        wide(
            #[inline(always)]
            || {
                for (row, (logits, &id)) in
                    out.chunks_exact_mut(size).zip(&self.ids.ids).enumerate()
                {
                    let weight = f64::from(self.ids.weight(row));
                    let target = logits[id as usize].to_f64();
                    let mut most = logits[0];
                    logits.iter().for_each(|&logit| most = most.greater(logit));
                    logits.iter_mut().for_each(|logit| *logit = (*logit - most).exponential());
                    let sum = logits.iter().fold(0.0, |sum, &value| sum + value.to_f64());
                    loss += weight * (sum.ln() + most.to_f64() - target);
                    let scale = T::of(weight * self.scale / sum);
                    logits.iter_mut().for_each(|value| *value *= scale);
                    logits[id as usize] -= T::of(weight * self.scale);
                }
            },
        );
        *self.loss.lock().unwrap_or_else(PoisonError::into_inner) = loss;
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, _: Array, _: Array) -> Result<()> {
        let size = self.size.max(1);
        let rows = out.len / size;
        self.ids.check(Self::NAME, rows, size)?;
        let ([id, weight, ..], _) = self.ids.table(gpu)?;
        let (losses, address) = gpu.doubles(rows)?;
        let sizes = [rows as u64, size as u64, self.scale.to_bits()];
        let arguments = [&[out.argument(), address, id, weight][..], &sizes].concat();
        // A warp a row.
        gpu.each("cross_entropy", 32 * rows, &arguments)?;
        let loss = losses.sum_all()?.to_scalar()?;
        *self.loss.lock().unwrap_or_else(PoisonError::into_inner) = loss;
        Ok(())
    }
}

impl Ops {
    /// Adds to each row of `out` its token's row of the table.
    pub(crate) fn look_up(self, out: &Tensor, table: &Tensor, ids: &Ids) -> Result<()> {
        if self.fused() {
            return out.inplace_op2(table, &InPlace(LookUp(ids, table.dim(1)?)));
        }
        let (index, weights) = ids.tensors(out.dtype(), out.device())?;
        let rows = table.index_select(index, 0)?.broadcast_mul(weights)?;
        out.slice_set(&(out + rows)?, 0, 0)
    }

    /// Adds to the gradient of a table that of the rows looked up.
    pub(crate) fn look_up_backward(self, out: &Tensor, gradient: &Tensor, ids: &Ids) -> Result<()> {
        if self.fused() {
            return out.inplace_op2(gradient, &InPlace(LookUpBackward(ids, out.dim(1)?)));
        }
        let (index, weights) = ids.tensors(out.dtype(), out.device())?;
        out.slice_set(&out.index_add(index, &gradient.broadcast_mul(weights)?, 0)?, 0, 0)
    }

    /// The summed loss of the tokens that were there, each times its weight; the logits
    /// become its gradient, times `scale`.
    pub(crate) fn cross_entropy(self, logits: &Tensor, ids: &Ids, scale: f64) -> Result<f64> {
        let size = logits.dim(1)?;
        if self.fused() {
            let kernel = InPlace(CrossEntropy { ids, size, scale, loss: Mutex::new(0.0) });
            logits.inplace_op1(&kernel)?;
            return Ok(kernel.0.loss.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
        let (index, weights) = ids.tensors(logits.dtype(), logits.device())?;
        let most = logits.max_keepdim(D::Minus1)?;
        let shifted = logits.broadcast_sub(&most)?;
        let exponentials = shifted.exp()?;
        let sums = exponentials.sum_keepdim(D::Minus1)?;
        let index = index.unsqueeze(1)?;
        let losses = (sums.log()? - shifted.gather(&index, 1)?)?;
        let loss = (losses * weights)?.sum_all()?.to_dtype(DType::F64)?.to_scalar()?;
        let one_hot = logits.zeros_like()?.scatter_add(&index, &weights.ones_like()?, 1)?;
        let gradient = (exponentials.broadcast_div(&sums)? - one_hot)?;
        logits.slice_set(&(gradient.broadcast_mul(weights)? * scale)?, 0, 0)?;
        Ok(loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::places;

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn rows_of_tables_are_added_and_their_gradients_gathered() {
        for (device, ops) in places() {
            let tensor =
                |v: &[f32], columns| Tensor::from_slice(v, (v.len() / columns, columns), &device);
            let table = tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2).unwrap();
            let ids = Ids::weighted(vec![2, 0, 2], vec![1.0, 0.0, 2.0]);
            let out = tensor(&[10.0; 6], 2).unwrap();
            ops.look_up(&out, &table, &ids).unwrap();
            assert_eq!(values(&out), [15.0, 16.0, 10.0, 10.0, 20.0, 22.0]);
            let gradient = table.zeros_like().unwrap();
            ops.look_up_backward(&gradient, &out, &ids).unwrap();
            assert_eq!(values(&gradient), [0.0, 0.0, 0.0, 0.0, 55.0, 60.0]);
            if ops.fused() {
                let beyond = Ids::new(vec![0, 3, 0]);
                assert!(ops.look_up(&out, &table, &beyond).is_err());
            }
        }
    }

    #[test]
    fn cross_entropy_and_its_gradient_agree_with_differences() {
        let logits = [0.3_f32, -1.0, 2.0, 0.0, 0.5, -0.5];
        let loss_of = |logits: &[f32]| -> f64 {
            let ids = [1_usize, 2];
            let weights = [0.5, 2.0];
            let row = |row: usize| {
                let row_logits = &logits[3 * row..][..3];
                let sum: f64 = row_logits.iter().map(|&x| f64::from(x).exp()).sum();
                weights[row] * (sum.ln() - f64::from(row_logits[ids[row]]))
            };
            row(0) + row(1)
        };
        for (device, ops) in places() {
            let tensor = Tensor::from_slice(&logits, (2, 3), &device).unwrap();
            let ids = Ids::weighted(vec![1, 2], vec![0.5, 2.0]);
            let loss = ops.cross_entropy(&tensor, &ids, 0.25).unwrap();
            assert!((loss - loss_of(&logits)).abs() < 1e-5, "{loss}");
            for (at, found) in values(&tensor).into_iter().enumerate() {
                let mut moved = [logits, logits];
                moved[0][at] += 1e-3;
                moved[1][at] -= 1e-3;
                let expected = 0.25 * (loss_of(&moved[0]) - loss_of(&moved[1])) / 2e-3;
                assert!((f64::from(found) - expected).abs() < 1e-4, "{at}: {found} {expected}");
            }
        }
    }
}
