//! Activations by segment, one-hot rounding and sampling, and the generation flag's mask.

#[cfg(feature = "cuda")]
use super::cuda::{Array, Gpu};
use super::kernel::{InPlace, Kernel, expect_lengths};
use super::real::{Real, wide};
use super::threads::{by_rows, cut_blocks, least_rows, numbered, share_out, shares};
use super::{Ops, indicator};
use candle_core::{D, DType, Result, Tensor};
use ns_model_format::layout::{Activation, Layout, Segment};
use ns_model_format::random::Stream;

/// A layout's segments, ready to apply to rows of its width.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    each: Vec<Segment>,
    /// Runs of equal segments: how many, and which.
    runs: Vec<(usize, Segment)>,
    dim: usize,
    /// Of each segment its first column, its columns and its activation.
    #[cfg(feature = "cuda")]
    on_gpu: std::sync::OnceLock<Tensor>,
}

impl Segments {
    /// Of a layout in training form.
    pub(crate) fn new(layout: &Layout) -> Segments {
        let mut runs: Vec<(usize, Segment)> = Vec::new();
        for &segment in &layout.segments {
            // Values under an element-wise activation are one run whatever their segments.
            let piece = match segment.activation {
                Activation::Softmax => segment,
                activation => Segment::new(1, activation),
            };
            let count = segment.dim / piece.dim.max(1);
            match runs.last_mut() {
                Some((have, last)) if *last == piece => *have += count,
                _ => runs.push((count, piece)),
            }
        }
        Segments {
            each: layout.segments.clone(),
            runs,
            dim: layout.dim(),
            #[cfg(feature = "cuda")]
            on_gpu: std::sync::OnceLock::new(),
        }
    }

    /// Runs a kernel on every segment of every row of `out`; several lanes share a wide one.
    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, name: &str, out: Array, sources: &[u64]) -> Result<()> {
        let table = match self.on_gpu.get() {
            Some(table) => table,
            None => {
                let mut first = 0;
                let numbers = self.each.iter().flat_map(|segment| {
                    let activation = match segment.activation {
                        Activation::Sigmoid => 0,
                        Activation::Tanh => 1,
                        Activation::Softmax => 2,
                    };
                    first += segment.dim;
                    [first - segment.dim, segment.dim, activation].map(|number| number as u32)
                });
                let table = gpu.upload(numbers.collect())?;
                self.on_gpu.get_or_init(|| table)
            }
        };
        let widest = self.each.iter().map(|segment| segment.dim).max().unwrap_or(1);
        let lanes = widest.div_ceil(4).next_power_of_two().min(32);
        let rows = out.len / self.dim.max(1);
        let sizes = [self.each.len(), self.dim, rows, lanes].map(|size| size as u64);
        let arguments = [&[out.argument()][..], sources, &[gpu.table(table)?], &sizes].concat();
        gpu.each(name, rows * self.each.len() * lanes, &arguments)
    }

    /// Values a row.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Draws what [`Ops::sampled`] divides by, for `rows` rows: Exp(1) for
    /// every class of a softmax segment, 1 elsewhere.
    pub(crate) fn draw_race(&self, rows: usize, stream: &mut Stream) -> Vec<f32> {
        let mut race = vec![1.0; rows * self.dim];
        self.for_each(&mut race, |activation, values| {
            if activation == Activation::Softmax {
                // -ln(1 - u), not -ln(u): never 0, and fine where races are won.
                values.fill_with(|| -(-stream.uniform()).ln_1p());
            }
        });
        race
    }

    /// Calls `work` with each segment of each row.
    #[inline(always)]
    fn for_each<T>(&self, values: &mut [T], mut work: impl FnMut(Activation, &mut [T])) {
        for row in values.chunks_exact_mut(self.dim.max(1)) {
            let mut rest = row;
            for segment in &self.each {
                let (now, later) = rest.split_at_mut(segment.dim);
                work(segment.activation, now);
                rest = later;
            }
        }
    }

    /// Applies `work` to runs of segments as `[rows, count, dim]` and joins the results.
    fn map_runs(
        &self,
        inputs: &[&Tensor],
        work: impl Fn(Activation, &[Tensor]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let Some(first) = inputs.first() else { candle_core::bail!("nothing to map") };
        let shape = first.shape().clone();
        let rows = shape.elem_count() / self.dim.max(1);
        let flat =
            inputs.iter().map(|x| x.reshape((rows, self.dim))).collect::<Result<Vec<_>>>()?;
        let mut at = 0;
        let mut parts = Vec::with_capacity(self.runs.len());
        for &(count, segment) in &self.runs {
            let width = count * segment.dim;
            let run = flat
                .iter()
                .map(|x| x.narrow(1, at, width)?.contiguous()?.reshape((rows, count, segment.dim)))
                .collect::<Result<Vec<_>>>()?;
            parts.push(work(segment.activation, &run)?.reshape((rows, width))?);
            at += width;
        }
        Tensor::cat(&parts, 1)?.reshape(shape)
    }
}

struct Activate<'a>(&'a Segments);

impl Kernel for Activate<'_> {
    const NAME: &'static str = "activation";

    /// Three passes over a piece that stays in cache: what to exponentiate,
    /// the exponential of everything at once, and what follows from it.
    fn run<T: Real>(&self, out: &mut [T], _: &[T], _: &[T]) -> Result<()> {
        const PIECE: usize = 4096;
        let rows = (PIECE / self.0.dim.max(1)).max(1);
        let one = T::of(1.0);
        by_rows(out, self.0.dim, |_, out| {
            for piece in out.chunks_mut(rows * self.0.dim.max(1)) {
                self.0.for_each(piece, |activation, values| match activation {
                    Activation::Sigmoid => values.iter_mut().for_each(|x| *x = -*x),
                    Activation::Tanh => values.iter_mut().for_each(|x| *x += *x),
                    Activation::Softmax => {
                        let Some(&first) = values.first() else { return };
                        let most = values.iter().fold(first, |most, &x| x.greater(most));
                        values.iter_mut().for_each(|x| *x -= most);
                    }
                });
                wide(
                    #[inline(always)]
                    || piece.iter_mut().for_each(|x| *x = x.exponential()),
                );
                self.0.for_each(piece, |activation, values| match activation {
                    Activation::Sigmoid => values.iter_mut().for_each(|x| *x = one / (one + *x)),
                    Activation::Tanh => {
                        values.iter_mut().for_each(|x| *x = one - T::of(2.0) / (one + *x));
                    }
                    Activation::Softmax => {
                        let mut total = T::of(0.0);
                        values.iter().for_each(|x| total += *x);
                        values.iter_mut().for_each(|x| *x /= total);
                    }
                });
            }
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, _: Array, _: Array) -> Result<()> {
        self.0.launch(gpu, "activate", out, &[])
    }
}

struct ActivateBackward<'a>(&'a Segments);

impl Kernel for ActivateBackward<'_> {
    const NAME: &'static str = "gradient of the activation";

    fn run<T: Real>(&self, out: &mut [T], activated: &[T], _: &[T]) -> Result<()> {
        expect_lengths(Self::NAME, &[out.len()], &[activated.len()])?;
        let one = T::of(1.0);
        by_rows(out, self.0.dim, |first, out| {
            let mut rest = &activated[first * self.0.dim..];
            self.0.for_each(out, |activation, gradient| {
                let (y, later) = rest.split_at(gradient.len());
                rest = later;
                match activation {
                    Activation::Sigmoid => {
                        gradient.iter_mut().zip(y).for_each(|(d, y)| *d *= *y * (one - *y));
                    }
                    Activation::Tanh => {
                        gradient.iter_mut().zip(y).for_each(|(d, y)| *d *= one - *y * *y);
                    }
                    Activation::Softmax => {
                        let mut mean = T::of(0.0);
                        gradient.iter().zip(y).for_each(|(d, y)| mean += *d * *y);
                        gradient.iter_mut().zip(y).for_each(|(d, y)| *d = *y * (*d - mean));
                    }
                }
            });
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, activated: Array, _: Array) -> Result<()> {
        expect_lengths(Self::NAME, &[out.len], &[activated.len])?;
        self.0.launch(gpu, "activate_backward", out, &[activated.argument()])
    }
}

struct OneHot<'a>(&'a Segments);

impl Kernel for OneHot<'_> {
    const NAME: &'static str = "one-hot rounding";

    fn run<T: Real>(&self, out: &mut [T], _: &[T], _: &[T]) -> Result<()> {
        self.0.for_each(out, |activation, values| {
            if activation != Activation::Softmax || values.is_empty() {
                return;
            }
            let mut best = 0;
            for index in 1..values.len() {
                if values[index] > values[best] {
                    best = index;
                }
            }
            values.fill(T::of(0.0));
            values[best] = T::of(1.0);
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, _: Array, _: Array) -> Result<()> {
        self.0.launch(gpu, "one_hot", out, &[])
    }
}

/// Sizes of a generated batch: steps, samples, records a step, values a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// LSTM steps.
    pub(crate) steps: usize,
    /// Samples.
    pub(crate) batch: usize,
    /// Records a step.
    pub(crate) per_step: usize,
    /// Values a record.
    pub(crate) dim: usize,
}

impl Shape {
    fn sequence(&self) -> usize {
        self.steps * self.per_step * self.dim
    }

    /// Offset of a step's records of a sample, in records.
    fn records_at(&self, step: usize, sample: usize) -> usize {
        (step * self.batch + sample) * self.per_step
    }
}

struct Alive(Shape);

impl Kernel for Alive {
    const NAME: &'static str = "generation flag";

    fn run<T: Real>(&self, out: &mut [T], records: &[T], _: &[T]) -> Result<()> {
        let shape = self.0;
        let count = shape.steps * shape.batch * shape.per_step;
        expect_lengths(Self::NAME, &[out.len(), records.len()], &[count, count * shape.dim])?;
        let shares = shares(shape.batch, least_rows(shape.sequence()));
        let parts = cut_blocks(out, shape.batch * shape.per_step, &shares, shape.per_step);
        let parts = parts.into_iter().zip(&shares);
        share_out(numbered(parts, &shares).collect(), &|(first, (mut steps, &count))| {
            let steps: &mut Vec<&mut [T]> = &mut steps;
            for sample in 0..count {
                let mut alive = true;
                for (step, out) in steps.iter_mut().enumerate() {
                    let at = shape.records_at(step, first + sample);
                    let out = out[sample * shape.per_step..].iter_mut().take(shape.per_step);
                    for (record, out) in (at..).zip(out) {
                        *out = T::of(if alive { 1.0 } else { 0.0 });
                        // The flag's "yes" is a record's last value.
                        alive &= records[(record + 1) * shape.dim - 1] > T::of(0.5);
                    }
                }
            }
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, records: Array, _: Array) -> Result<()> {
        let Shape { steps, batch, per_step, dim } = self.0;
        let count = steps * batch * per_step;
        expect_lengths(Self::NAME, &[out.len, records.len], &[count, count * dim])?;
        let sizes = [steps, batch, per_step, dim].map(|size| size as u64);
        let arguments = [&[out.argument(), records.argument()][..], &sizes].concat();
        gpu.each("alive", batch, &arguments)
    }
}

struct Place(Shape);

impl Kernel for Place {
    const NAME: &'static str = "records into samples";

    fn run<T: Real>(&self, out: &mut [T], records: &[T], alive: &[T]) -> Result<()> {
        let shape = self.0;
        let width = out.len() / shape.batch.max(1);
        expect_lengths(Self::NAME, &[records.len()], &[alive.len() * shape.dim])?;
        if width < shape.sequence() {
            candle_core::bail!("{}: rows of {width} are too short", Self::NAME);
        }
        by_rows(out, width, |first, out| {
            for (sample, row) in out.chunks_exact_mut(width.max(1)).enumerate() {
                let steps = row[..shape.sequence()].chunks_exact_mut(shape.per_step * shape.dim);
                for (step, out) in steps.enumerate() {
                    let at = shape.records_at(step, first + sample);
                    for (record, out) in (at..).zip(out.chunks_exact_mut(shape.dim)) {
                        let values = &records[record * shape.dim..(record + 1) * shape.dim];
                        if alive[record] > T::of(0.0) {
                            out.copy_from_slice(values);
                        } else {
                            // As a product, so that a NaN is seen though masked.
                            for (out, value) in out.iter_mut().zip(values) {
                                *out = *value * T::of(0.0);
                            }
                        }
                    }
                }
            }
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, records: Array, alive: Array) -> Result<()> {
        let shape @ Shape { batch, per_step, dim, .. } = self.0;
        let (width, sequence) = (out.len / batch.max(1), shape.sequence());
        expect_lengths(Self::NAME, &[records.len, alive.len * dim], &[batch * sequence; 2])?;
        if width < sequence {
            candle_core::bail!("{}: rows of {width} are too short", Self::NAME);
        }
        let sizes = [width, sequence, batch, per_step, dim].map(|size| size as u64);
        let places = [out.argument(), records.argument(), alive.argument()];
        gpu.each("place_records", batch * sequence, &[&places[..], &sizes].concat())
    }
}

struct Take(Shape);

impl Kernel for Take {
    const NAME: &'static str = "records out of samples";

    fn run<T: Real>(&self, out: &mut [T], samples: &[T], alive: &[T]) -> Result<()> {
        let shape = self.0;
        let width = samples.len() / shape.batch.max(1);
        expect_lengths(Self::NAME, &[out.len()], &[alive.len() * shape.dim])?;
        if width < shape.sequence() {
            candle_core::bail!("{}: rows of {width} are too short", Self::NAME);
        }
        let of_step = shape.per_step * shape.dim;
        let shares = shares(shape.batch, least_rows(shape.sequence()));
        let parts = cut_blocks(out, shape.batch * of_step, &shares, of_step);
        share_out(numbered(parts, &shares).collect(), &|(first, mut steps)| {
            let steps: &mut Vec<&mut [T]> = &mut steps;
            for (step, out) in steps.iter_mut().enumerate() {
                for (sample, out) in (first..).zip(out.chunks_exact_mut(of_step)) {
                    let alive = &alive[shape.records_at(step, sample)..];
                    let values = &samples[sample * width + step * of_step..][..of_step];
                    let records =
                        out.chunks_exact_mut(shape.dim).zip(values.chunks_exact(shape.dim));
                    for ((out, values), alive) in records.zip(alive) {
                        if *alive > T::of(0.0) {
                            out.copy_from_slice(values);
                        } else {
                            out.fill(T::of(0.0));
                        }
                    }
                }
            }
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, samples: Array, alive: Array) -> Result<()> {
        let shape @ Shape { batch, per_step, dim, .. } = self.0;
        let (width, sequence) = (samples.len / batch.max(1), shape.sequence());
        expect_lengths(Self::NAME, &[out.len, alive.len * dim], &[batch * sequence; 2])?;
        if width < sequence {
            candle_core::bail!("{}: rows of {width} are too short", Self::NAME);
        }
        let sizes = [width, sequence, batch, per_step, dim].map(|size| size as u64);
        let places = [out.argument(), samples.argument(), alive.argument()];
        gpu.each("take_records", batch * sequence, &[&places[..], &sizes].concat())
    }
}

impl Ops {
    /// Activates raw outputs in place; `x` consists of rows of the segments' width.
    pub(crate) fn activate(self, x: &Tensor, segments: &Segments) -> Result<()> {
        if self.fused() {
            return x.inplace_op1(&InPlace(Activate(segments)));
        }
        let activated = segments.map_runs(&[x], |activation, x| match activation {
            Activation::Sigmoid => candle_nn::ops::sigmoid(&x[0]),
            Activation::Tanh => x[0].tanh(),
            Activation::Softmax => candle_nn::ops::softmax(&x[0], D::Minus1),
        })?;
        x.slice_set(&activated, 0, 0)
    }

    /// Turns the gradient of activated values into that of raw outputs, in place.
    pub(crate) fn activate_backward(
        self,
        gradient: &Tensor,
        activated: &Tensor,
        segments: &Segments,
    ) -> Result<()> {
        if self.fused() {
            return gradient.inplace_op2(activated, &InPlace(ActivateBackward(segments)));
        }
        let result = segments.map_runs(&[gradient, activated], |activation, x| {
            let (d, y) = (&x[0], &x[1]);
            match activation {
                Activation::Sigmoid => d * (y * y.affine(-1.0, 1.0)?)?,
                Activation::Tanh => d * y.sqr()?.affine(-1.0, 1.0)?,
                Activation::Softmax => y * d.broadcast_sub(&(d * y)?.sum_keepdim(D::Minus1)?)?,
            }
        })?;
        gradient.slice_set(&result, 0, 0)
    }

    /// Every softmax segment as a one-hot vector of its greatest value; the
    /// rest as it is. A new tensor.
    pub(crate) fn one_hot(self, x: &Tensor, segments: &Segments) -> Result<Tensor> {
        if self.fused() {
            let out = x.copy()?;
            out.inplace_op1(&InPlace(OneHot(segments)))?;
            return Ok(out);
        }
        segments.map_runs(&[x], |activation, x| {
            if activation != Activation::Softmax {
                return Ok(x[0].clone());
            }
            let classes = x[0].dim(D::Minus1)?;
            let places = Tensor::arange(0u32, classes as u32, x[0].device())?;
            let best = x[0].argmax_keepdim(D::Minus1)?.to_dtype(DType::U32)?;
            let places = places.reshape((1, 1, classes))?.broadcast_as(x[0].shape())?;
            indicator(&best.broadcast_as(x[0].shape())?.eq(&places)?, &x[0])
        })
    }

    /// Every softmax segment as a one-hot vector of a class drawn with its
    /// probability; the rest as it is. A new tensor.
    ///
    /// `race` is of [`Segments::draw_race`], in the shape of `x`: of exponential
    /// clocks that run at the classes' probabilities, each class's rings first with its
    /// own. A quotient is rounded alike everywhere, which sums of probabilities are
    /// not, so all bodies and devices draw the same classes.
    pub(crate) fn sampled(self, x: &Tensor, race: &Tensor, segments: &Segments) -> Result<Tensor> {
        self.one_hot(&(x / race)?, segments)
    }

    /// `[steps, batch, per_step]`: 1 while no earlier record's flag said stop.
    pub(crate) fn alive(self, records: &Tensor, shape: Shape) -> Result<Tensor> {
        let Shape { steps, batch, per_step, dim } = shape;
        if self.fused() {
            let alive = Tensor::zeros((steps, batch, per_step), records.dtype(), records.device())?;
            alive.inplace_op2(records, &InPlace(Alive(shape)))?;
            return Ok(alive);
        }
        let yes = records.reshape((steps, batch, per_step, dim))?.narrow(3, dim - 1, 1)?;
        let stops = indicator(&yes.le(0.5)?, records)?;
        let stops = stops.squeeze(3)?.transpose(0, 1)?.reshape((batch, steps * per_step))?;
        let before = (stops.cumsum(1)? - stops)?;
        indicator(&before.lt(0.5)?, records)?
            .reshape((batch, steps, per_step))?
            .transpose(0, 1)?
            .contiguous()
    }

    /// Writes `records` (`[steps, batch, per_step * dim]`), those not alive as
    /// zeros, to the first columns of `samples` (`[batch, columns]`).
    pub(crate) fn place_records(
        self,
        samples: &Tensor,
        records: &Tensor,
        alive: &Tensor,
        shape: Shape,
    ) -> Result<()> {
        if self.fused() {
            return samples.inplace_op3(records, alive, &InPlace(Place(shape)));
        }
        let Shape { steps, batch, per_step, dim } = shape;
        let kept = records
            .reshape((steps, batch, per_step, dim))?
            .broadcast_mul(&alive.unsqueeze(3)?)?
            .transpose(0, 1)?
            .contiguous()?
            .reshape((batch, shape.sequence()))?;
        samples.slice_set(&kept, 1, 0)
    }

    /// The way back, into `records`, 0 for those not alive.
    pub(crate) fn take_records(
        self,
        records: &Tensor,
        samples: &Tensor,
        alive: &Tensor,
        shape: Shape,
    ) -> Result<()> {
        if self.fused() {
            return records.inplace_op3(samples, alive, &InPlace(Take(shape)));
        }
        let Shape { steps, batch, per_step, dim } = shape;
        let taken = samples
            .narrow(1, 0, shape.sequence())?
            .reshape((batch, steps, per_step, dim))?
            .transpose(0, 1)?
            .broadcast_mul(&alive.unsqueeze(3)?)?
            .contiguous()?
            .reshape(records.shape())?;
        records.slice_set(&taken, 0, 0)
    }
}
