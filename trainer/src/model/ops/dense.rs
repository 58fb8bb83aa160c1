//! Fused passes of fully connected layers and of the gradient penalty.

#[cfg(feature = "cuda")]
use super::cuda::{Array, Gpu};
use super::kernel::{InPlace, Kernel, expect_lengths, slice};
use super::real::{Real, wide};
use super::threads::{by_rows, cut, cut_blocks, least_rows, numbered, share_out, shares};
use super::{Ops, indicator};
use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor};

/// `max(x + bias, 0)`; a NaN stays one, so that divergence shows in the loss.
#[inline(always)]
fn rectify<T: Real>(x: T) -> T {
    if x <= T::of(0.0) { T::of(0.0) } else { x }
}

struct BiasRelu;

impl Kernel for BiasRelu {
    const NAME: &'static str = "bias and ReLU";

    fn run<T: Real>(&self, out: &mut [T], bias: &[T], _: &[T]) -> Result<()> {
        by_rows(out, bias.len(), |_, out| {
            wide(
                #[inline(always)]
                || {
                    for row in out.chunks_exact_mut(bias.len().max(1)) {
                        for (value, bias) in row.iter_mut().zip(bias) {
                            *value = rectify(*value + *bias);
                        }
                    }
                },
            );
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, bias: Array, _: Array) -> Result<()> {
        let arguments = [out.argument(), out.len as u64, bias.argument(), bias.len as u64];
        gpu.each("bias_relu", out.len, &arguments)
    }
}

struct Interpolate;

impl Kernel for Interpolate {
    const NAME: &'static str = "interpolation";

    fn run<T: Real>(&self, out: &mut [T], weights: &[T], bias: &[T]) -> Result<()> {
        let block = weights.len() * bias.len();
        expect_lengths(Self::NAME, &[out.len()], &[3 * block])?;
        let width = bias.len().max(1);
        let shares = shares(weights.len(), least_rows(3 * width));
        let parts = cut_blocks(out, block, &shares, width);
        share_out(numbered(parts, &shares).collect(), &|(first, mut thirds): (_, Vec<_>)| {
            let [real, fake, between] = &mut thirds[..] else { return };
            wide(
                #[inline(always)]
                || {
                    for (((real, fake), between), weight) in real
                        .chunks_exact_mut(width)
                        .zip(fake.chunks_exact_mut(width))
                        .zip(between.chunks_exact_mut(width))
                        .zip(&weights[first..])
                    {
                        for (((real, fake), between), bias) in
                            real.iter_mut().zip(fake).zip(between).zip(bias)
                        {
                            *between = rectify(*real + *weight * (*fake - *real) + *bias);
                            *real = rectify(*real + *bias);
                            *fake = rectify(*fake + *bias);
                        }
                    }
                },
            );
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, weights: Array, bias: Array) -> Result<()> {
        let block = weights.len * bias.len;
        expect_lengths(Self::NAME, &[out.len], &[3 * block])?;
        let sources = [weights.argument(), bias.argument(), bias.len as u64];
        let arguments = [&[out.argument(), block as u64][..], &sources].concat();
        gpu.each("interpolate_relu", block, &arguments)
    }
}

/// Where `out` is not positive it becomes 0, else the source.
struct TakeWherePositive;

impl Kernel for TakeWherePositive {
    const NAME: &'static str = "replacement behind a mask";

    fn run<T: Real>(&self, out: &mut [T], source: &[T], _: &[T]) -> Result<()> {
        expect_lengths(Self::NAME, &[out.len()], &[source.len()])?;
        by_rows(out, 1, |first, out| {
            wide(
                #[inline(always)]
                || {
                    for (value, source) in out.iter_mut().zip(&source[first..]) {
                        *value = if *value > T::of(0.0) { *source } else { T::of(0.0) };
                    }
                },
            );
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, source: Array, _: Array) -> Result<()> {
        expect_lengths(Self::NAME, &[out.len], &[source.len])?;
        let arguments = [out.argument(), out.len as u64, source.argument()];
        gpu.each("take_where_positive", out.len, &arguments)
    }
}

struct Mask;

impl Kernel for Mask {
    const NAME: &'static str = "mask";

    fn run<T: Real>(&self, out: &mut [T], activation: &[T], _: &[T]) -> Result<()> {
        expect_lengths(Self::NAME, &[out.len()], &[activation.len()])?;
        by_rows(out, 1, |first, out| {
            wide(
                #[inline(always)]
                || {
                    for (value, activation) in out.iter_mut().zip(&activation[first..]) {
                        *value = if *activation > T::of(0.0) { *value } else { T::of(0.0) };
                    }
                },
            );
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, activation: Array, _: Array) -> Result<()> {
        expect_lengths(Self::NAME, &[out.len], &[activation.len])?;
        gpu.each("mask", out.len, &[out.argument(), out.len as u64, activation.argument()])
    }
}

struct Multiply;

impl Kernel for Multiply {
    const NAME: &'static str = "product of numbers";

    fn run<T: Real>(&self, out: &mut [T], factors: &[T], _: &[T]) -> Result<()> {
        expect_lengths(Self::NAME, &[out.len()], &[factors.len()])?;
        by_rows(out, 1, |first, out| {
            wide(
                #[inline(always)]
                || {
                    for (value, factor) in out.iter_mut().zip(&factors[first..]) {
                        *value *= *factor;
                    }
                },
            );
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, factors: Array, _: Array) -> Result<()> {
        expect_lengths(Self::NAME, &[out.len], &[factors.len])?;
        gpu.each("multiply", out.len, &[out.argument(), out.len as u64, factors.argument()])
    }
}

/// `out = kept out + (1 - kept) source`.
struct Average {
    kept: f64,
}

impl Kernel for Average {
    const NAME: &'static str = "moving average";

    fn run<T: Real>(&self, out: &mut [T], source: &[T], _: &[T]) -> Result<()> {
        expect_lengths(Self::NAME, &[out.len()], &[source.len()])?;
        let (kept, taken) = (T::of(self.kept), T::of(1.0 - self.kept));
        by_rows(out, 1, |first, out| {
            wide(
                #[inline(always)]
                || {
                    for (value, source) in out.iter_mut().zip(&source[first..]) {
                        *value = kept * *value + taken * *source;
                    }
                },
            );
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, source: Array, _: Array) -> Result<()> {
        expect_lengths(Self::NAME, &[out.len], &[source.len])?;
        let arguments = [out.argument(), out.len as u64, source.argument(), self.kept.to_bits()];
        gpu.each("average", out.len, &arguments)
    }
}

/// One constant for each third of the rows (or one for all).
struct MaskedOuter {
    scales: Vec<f64>,
}

impl Kernel for MaskedOuter {
    const NAME: &'static str = "start of the backward pass";

    fn run<T: Real>(&self, out: &mut [T], activation: &[T], weight: &[T]) -> Result<()> {
        expect_lengths(Self::NAME, &[out.len()], &[activation.len()])?;
        let block = (out.len() / self.scales.len().max(1)).max(1);
        let width = weight.len().max(1);
        for ((out, activation), scale) in
            out.chunks_mut(block).zip(activation.chunks(block)).zip(&self.scales)
        {
            let scale = T::of(*scale);
            by_rows(out, width, |first, out| {
                let activation = &activation[first * width..];
                wide(
                    #[inline(always)]
                    || {
                        for (out, activation) in
                            out.chunks_exact_mut(width).zip(activation.chunks_exact(width))
                        {
                            for ((value, activation), weight) in
                                out.iter_mut().zip(activation).zip(weight)
                            {
                                let on = *activation > T::of(0.0);
                                *value = if on { scale * *weight } else { T::of(0.0) };
                            }
                        }
                    },
                );
            });
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, activation: Array, weight: Array) -> Result<()> {
        expect_lengths(Self::NAME, &[out.len], &[activation.len])?;
        let block = out.len / self.scales.len().max(1);
        for (index, scale) in self.scales.iter().enumerate() {
            let part = |array: Array| array.part(index * block, block).map(Array::argument);
            let (out, activation) = (part(out)?, part(activation)?);
            let weight = [weight.argument(), weight.len as u64, scale.to_bits()];
            let arguments = [&[out, block as u64, activation][..], &weight].concat();
            gpu.each("masked_outer", block, &arguments)?;
        }
        Ok(())
    }
}

/// Sixteen partial sums, in one order for every CPU.
#[inline(always)]
fn sum_of_squares<T: Real>(values: &[T]) -> T {
    let mut sums = [T::of(0.0); 16];
    let chunks = values.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += *value * *value;
        }
    }
    let mut total = T::of(0.0);
    for value in rest {
        total += *value * *value;
    }
    for sum in sums {
        total += sum;
    }
    total
}

/// The sum of all squares, a number of f64.
struct Square;

impl Square {
    fn of<T: Real>(storage: &CpuStorage, layout: &Layout) -> Result<f64> {
        /// Short enough that the sums of `T` are about as exact as its numbers.
        const PART: usize = 4096;
        let values: &[T] = slice(Some((storage, layout)))?;
        let mut total = 0.0;
        wide(
            #[inline(always)]
            || {
                for part in values.chunks(PART) {
                    total += sum_of_squares(part).to_f64();
                }
            },
        );
        Ok(total)
    }
}

impl CustomOp1 for Square {
    fn name(&self) -> &'static str {
        "sum of squares"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let total = match storage {
            CpuStorage::F64(_) => Square::of::<f64>(storage, layout)?,
            _ => Square::of::<f32>(storage, layout)?,
        };
        Ok((CpuStorage::F64(vec![total]), Shape::from(())))
    }
}

/// Row norms of the columns that count.
struct Norms {
    columns: Columns,
}

impl Kernel for Norms {
    const NAME: &'static str = "gradient norm";

    fn run<T: Real>(&self, out: &mut [T], gradient: &[T], _: &[T]) -> Result<()> {
        let width = (gradient.len() / out.len().max(1)).max(1);
        let shares = shares(out.len(), least_rows(width));
        share_out(numbered(cut(out, &shares, 1), &shares).collect(), &|(first, out)| {
            let out: &mut [T] = out;
            wide(
                #[inline(always)]
                || {
                    let rows = gradient[first * width..].chunks_exact(width);
                    for (norm, row) in out.iter_mut().zip(rows) {
                        let mut total = T::of(NORM_FLOOR);
                        for sample in row.chunks(self.columns.of_sample) {
                            let counted = self.columns.counted.min(sample.len());
                            total += sum_of_squares(&sample[..counted]);
                        }
                        *norm = total.root();
                    }
                },
            );
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, gradient: Array, _: Array) -> Result<()> {
        let width = gradient.len / out.len.max(1);
        let columns = [self.columns.of_sample as u64, self.columns.counted as u64];
        let arguments = [
            &[out.argument(), gradient.argument(), width as u64][..],
            &columns,
            &[NORM_FLOOR.to_bits()],
        ];
        gpu.blocks("gradient_norms", out.len, &arguments.concat())
    }
}

/// Multiplies each row by its factor; columns that do not count become 0.
struct ScaleRows {
    columns: Columns,
}

impl Kernel for ScaleRows {
    const NAME: &'static str = "gradient scale";

    fn run<T: Real>(&self, out: &mut [T], factors: &[T], _: &[T]) -> Result<()> {
        let width = (out.len() / factors.len().max(1)).max(1);
        by_rows(out, width, |first, out| {
            wide(
                #[inline(always)]
                || {
                    for (row, factor) in out.chunks_exact_mut(width).zip(&factors[first..]) {
                        for sample in row.chunks_mut(self.columns.of_sample) {
                            let counted = self.columns.counted.min(sample.len());
                            let (kept, rest) = sample.split_at_mut(counted);
                            kept.iter_mut().for_each(|value| *value *= *factor);
                            rest.fill(T::of(0.0));
                        }
                    }
                },
            );
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, factors: Array, _: Array) -> Result<()> {
        let width = out.len / factors.len.max(1);
        let columns = [width, self.columns.of_sample, self.columns.counted].map(|n| n as u64);
        let arguments =
            [&[out.argument(), out.len as u64, factors.argument()][..], &columns].concat();
        gpu.each("scale_rows", out.len, &arguments)
    }
}

/// Added to a squared norm, so that a gradient of 0 has a finite direction.
const NORM_FLOOR: f64 = 1e-8;

/// Which columns of a critic's input the penalty covers: of every sample's
/// the first ones. What follows is given, not generated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    /// Columns of one sample.
    pub(crate) of_sample: usize,
    /// Those that count.
    pub(crate) counted: usize,
}

/// Numbers in a line of the cache.
const LINE: usize = 16;

/// Sums over rows.
struct ColumnSums;

impl Kernel for ColumnSums {
    const NAME: &'static str = "column sums";

    fn run<T: Real>(&self, out: &mut [T], rows: &[T], _: &[T]) -> Result<()> {
        let width = out.len().max(1);
        // Columns in whole lines of the cache, each with all of its rows.
        let lines = (width / LINE).max(1);
        let shares = shares(lines, least_rows(rows.len() / lines));
        share_out(numbered(cut(out, &shares, LINE), &shares).collect(), &|(first, out)| {
            let out: &mut [T] = out;
            wide(
                #[inline(always)]
                || {
                    out.fill(T::of(0.0));
                    for row in rows.chunks_exact(width) {
                        for (sum, value) in out.iter_mut().zip(&row[first * LINE..]) {
                            *sum += *value;
                        }
                    }
                },
            );
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, rows: Array, _: Array) -> Result<()> {
        let width = out.len;
        let sums = |out: Array, rows: Array, parts: usize| {
            let sizes = [width, rows.len / width.max(1), parts].map(|size| size as u64);
            let arguments = [&[out.argument(), rows.argument()][..], &sizes].concat();
            gpu.blocks("column_sums", width.div_ceil(8) * parts, &arguments)
        };
        // Many rows in parts of so many, and then the sums of these.
        const PART: usize = 2048;
        let parts = (rows.len / width.max(1)).div_ceil(PART);
        if parts <= 1 {
            return sums(out, rows, 1);
        }
        let (_kept, of_parts) = gpu.zeros(parts * width)?;
        sums(of_parts, rows, parts)?;
        sums(out, of_parts, 1)
    }
}

/// Adds a block to every block of its size.
struct AddRepeated;

impl Kernel for AddRepeated {
    const NAME: &'static str = "repeated addition";

    fn run<T: Real>(&self, out: &mut [T], block: &[T], _: &[T]) -> Result<()> {
        by_rows(out, block.len(), |_, out| {
            wide(
                #[inline(always)]
                || {
                    for out in out.chunks_exact_mut(block.len().max(1)) {
                        for (value, addend) in out.iter_mut().zip(block) {
                            *value += *addend;
                        }
                    }
                },
            );
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, block: Array, _: Array) -> Result<()> {
        let arguments = [out.argument(), out.len as u64, block.argument(), block.len as u64];
        gpu.each("add_repeated", out.len, &arguments)
    }
}

fn positive(x: &Tensor) -> Result<Tensor> {
    indicator(&x.gt(0.0)?, x)
}

/// As a product, so that a NaN stays one.
fn relu(x: &Tensor) -> Result<Tensor> {
    x * positive(x)?
}

impl Ops {
    /// `x = relu(x + bias)` in place.
    pub(crate) fn bias_relu(self, x: &Tensor, bias: &Tensor) -> Result<()> {
        if self.fused() {
            return x.inplace_op2(bias, &InPlace(BiasRelu));
        }
        x.slice_set(&relu(&x.broadcast_add(bias)?)?, 0, 0)
    }

    /// `x` holds `x_r W` and `x_f W` in its first two thirds. Sets its last to
    /// `((1 - w) x_r + w x_f) W`, adds the bias everywhere and rectifies.
    pub(crate) fn interpolate_relu(
        self,
        x: &Tensor,
        weights: &Tensor,
        bias: &Tensor,
    ) -> Result<()> {
        if self.fused() {
            return x.inplace_op3(weights, bias, &InPlace(Interpolate));
        }
        let rows = weights.elem_count();
        let (real, fake) = (x.narrow(0, 0, rows)?, x.narrow(0, rows, rows)?);
        let between = (&real + (fake - &real)?.broadcast_mul(&weights.reshape((rows, 1))?)?)?;
        x.slice_set(&between, 0, 2 * rows)?;
        x.slice_set(&relu(&x.broadcast_add(bias)?)?, 0, 0)
    }

    /// `out = x` summed over its first dimension; `out` has the shape of what is left.
    pub(crate) fn sum_rows_into(self, out: &Tensor, x: &Tensor) -> Result<()> {
        if self.fused() {
            return out.inplace_op2(x, &InPlace(ColumnSums));
        }
        out.slice_set(&x.sum(0)?, 0, 0)
    }

    /// `[1, columns]`: means over rows.
    pub(crate) fn column_means(self, x: &Tensor) -> Result<Tensor> {
        let (rows, columns) = x.dims2()?;
        let sums = Tensor::zeros((1, columns), x.dtype(), x.device())?;
        self.sum_rows_into(&sums.flatten_all()?, x)?;
        sums / rows as f64
    }

    /// Adds `block` to each of the blocks that `x` consists of along its first dimension.
    pub(crate) fn add_repeated(self, x: &Tensor, block: &Tensor) -> Result<()> {
        if self.fused() {
            return x.inplace_op2(block, &InPlace(AddRepeated));
        }
        x.slice_set(&x.broadcast_add(block)?, 0, 0)
    }

    /// `x = (x > 0) * source`.
    pub(crate) fn take_where_positive(self, x: &Tensor, source: &Tensor) -> Result<()> {
        if self.fused() {
            return x.inplace_op2(source, &InPlace(TakeWherePositive));
        }
        x.slice_set(&(positive(x)? * source)?, 0, 0)
    }

    /// `x = (activation > 0) * x`.
    pub(crate) fn mask(self, x: &Tensor, activation: &Tensor) -> Result<()> {
        if self.fused() {
            return x.inplace_op2(activation, &InPlace(Mask));
        }
        x.slice_set(&(positive(activation)? * x)?, 0, 0)
    }

    /// `x = factors * x`, number by number.
    pub(crate) fn multiply(self, x: &Tensor, factors: &Tensor) -> Result<()> {
        if self.fused() {
            return x.inplace_op2(factors, &InPlace(Multiply));
        }
        x.slice_set(&(x * factors)?, 0, 0)
    }

    /// `average = kept * average + (1 - kept) * x`.
    pub(crate) fn average(self, average: &Tensor, x: &Tensor, kept: f64) -> Result<()> {
        if self.fused() {
            return average.inplace_op2(x, &InPlace(Average { kept }));
        }
        average.slice_set(&((average * kept)? + (x * (1.0 - kept))?)?, 0, 0)
    }

    /// The sum of the squares of all numbers, a number of f64.
    pub(crate) fn square(self, x: &Tensor) -> Result<Tensor> {
        if self.on_cpu() {
            return x.apply_op1_no_bwd(&Square);
        }
        x.sqr()?.sum_all()?.to_dtype(DType::F64)
    }

    /// `x = scale * weight * (activation > 0)`, with one scale for each equal
    /// share of the rows.
    pub(crate) fn masked_outer(
        self,
        x: &Tensor,
        activation: &Tensor,
        weight: &Tensor,
        scales: &[f64],
    ) -> Result<()> {
        if self.fused() {
            let kernel = MaskedOuter { scales: scales.to_vec() };
            return x.inplace_op3(activation, weight, &InPlace(kernel));
        }
        let rows = x.dim(0)? / scales.len().max(1);
        let weight = weight.reshape((1, weight.elem_count()))?;
        for (index, &scale) in scales.iter().enumerate() {
            let mask = positive(&activation.narrow(0, index * rows, rows)?)?;
            x.slice_set(&mask.broadcast_mul(&(&weight * scale)?)?, 0, index * rows)?;
        }
        Ok(())
    }

    /// Norms `[rows]` of the gradients' columns that count.
    pub(crate) fn gradient_norms(self, gradient: &Tensor, columns: Columns) -> Result<Tensor> {
        let (rows, width) = gradient.dims2()?;
        if self.fused() {
            let norms = Tensor::zeros(rows, gradient.dtype(), gradient.device())?;
            norms.inplace_op2(gradient, &InPlace(Norms { columns }))?;
            return Ok(norms);
        }
        gradient
            .reshape((rows, width / columns.of_sample, columns.of_sample))?
            .narrow(D::Minus1, 0, columns.counted)?
            .sqr()?
            .sum((1, 2))?
            .affine(1.0, NORM_FLOOR)?
            .sqrt()
    }

    /// Multiplies each row by its factor `[rows]`, and by 0 the columns that do not count.
    pub(crate) fn scale_rows(self, x: &Tensor, factors: &Tensor, columns: Columns) -> Result<()> {
        if self.fused() {
            return x.inplace_op2(factors, &InPlace(ScaleRows { columns }));
        }
        let (rows, width) = x.dims2()?;
        let shape = (rows, width / columns.of_sample, columns.of_sample);
        let given = columns.of_sample - columns.counted;
        let scaled = x
            .reshape(shape)?
            .narrow(2, 0, columns.counted)?
            .broadcast_mul(&factors.reshape((rows, 1, 1))?)?
            .pad_with_zeros(2, 0, given)?
            .reshape((rows, width))?;
        x.slice_set(&scaled.contiguous()?, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::places;

    #[test]
    fn numbers_are_multiplied_averaged_and_squared() {
        for (device, ops) in places() {
            let tensor = |values: &[f32]| Tensor::from_slice(values, (2, 2), &device).unwrap();
            let found = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let x = tensor(&[1.0, -2.0, 3.0, 0.0]);
            ops.multiply(&x, &tensor(&[2.0, 0.5, 0.0, 7.0])).unwrap();
            assert_eq!(found(&x), [2.0, -1.0, 0.0, 0.0]);
            ops.average(&x, &tensor(&[4.0, 4.0, 4.0, -8.0]), 0.75).unwrap();
            assert_eq!(found(&x), [2.5, 0.25, 1.0, -2.0]);
            let square: f64 = ops.square(&x).unwrap().to_scalar().unwrap();
            assert_eq!(square, 6.25 + 0.0625 + 1.0 + 4.0);
            let many = Tensor::full(0.5_f32, 10_001, &device).unwrap();
            let square: f64 = ops.square(&many).unwrap().to_scalar().unwrap();
            assert!((square - 2500.25).abs() < 1e-3, "{square}");
        }
    }
}
