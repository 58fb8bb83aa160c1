//! A trained tensor with its gradient and its Adam state.

use super::ops::Ops;
#[cfg(feature = "cuda")]
use super::ops::cuda::{Array, Gpu};
use super::ops::kernel::{InPlace, Kernel, expect_lengths};
use super::ops::real::{Real, wide};
use super::ops::threads::{cut, least_rows, numbered, share_out, shares};
use candle_core::{DType, Device, Result, Tensor};
use ns_model_format::random::{Purpose, Stream};

/// Draws first weights; every tensor has its own stream.
pub(crate) struct Initializer {
    seed: u64,
    next: u64,
    dtype: DType,
    device: Device,
    amsgrad: bool,
}

impl Initializer {
    /// Tensors numbered from 0.
    pub(crate) fn new(seed: u64, dtype: DType, device: &Device, amsgrad: bool) -> Initializer {
        Initializer { seed, next: 0, dtype, device: device.clone(), amsgrad }
    }

    /// Uniform in `(-bound, bound)`, as PyTorch's layers begin.
    pub(crate) fn uniform(&mut self, shape: &[usize], bound: f64) -> Result<Parameter> {
        let mut stream = Stream::new(self.seed, Purpose::Weights, self.next);
        self.next += 1;
        let count = shape.iter().product();
        let values = (0..count).map(|_| (2.0 * stream.uniform() - 1.0) * bound as f32).collect();
        self.parameter(values, shape)
    }

    /// Normal around 0.
    pub(crate) fn normal(&mut self, shape: &[usize], deviation: f64) -> Result<Parameter> {
        let mut stream = Stream::new(self.seed, Purpose::Weights, self.next);
        self.next += 1;
        let count = shape.iter().product();
        let values = (0..count).map(|_| stream.normal() * deviation as f32).collect();
        self.parameter(values, shape)
    }

    /// Given values.
    pub(crate) fn given(&mut self, values: Vec<f32>) -> Result<Parameter> {
        self.next += 1;
        let shape = [values.len()];
        self.parameter(values, &shape)
    }

    /// The same value everywhere.
    pub(crate) fn constant(&mut self, shape: &[usize], value: f32) -> Result<Parameter> {
        self.next += 1;
        self.parameter(vec![value; shape.iter().product()], shape)
    }

    fn parameter(&self, mut values: Vec<f32>, shape: &[usize]) -> Result<Parameter> {
        let count = values.len();
        let rows = if self.amsgrad { 4 } else { 3 };
        values.resize(rows * count, 0.0);
        let packed = Tensor::from_vec(values, (rows, count), &self.device)?.to_dtype(self.dtype)?;
        let value = packed.narrow(0, 0, 1)?.reshape(shape)?;
        let gradient = Tensor::zeros(shape, self.dtype, &self.device)?;
        Ok(Parameter { packed, value, gradient })
    }
}

/// A tensor that training changes.
pub(crate) struct Parameter {
    /// Rows: value, first moment, second moment and, with AMSGrad, the
    /// greatest second moment: side by side, one pass updates them all.
    packed: Tensor,
    /// The value, a view of `packed`.
    pub(crate) value: Tensor,
    /// Written by backward passes.
    pub(crate) gradient: Tensor,
}

impl Parameter {
    /// The value's numbers.
    pub(crate) fn to_vec(&self) -> Result<Vec<f32>> {
        self.value.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
    }

    /// Value and moments, row after row.
    pub(crate) fn packed(&self) -> Result<Vec<f32>> {
        self.packed.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
    }

    /// How many numbers [`Parameter::packed`] is.
    pub(crate) fn packed_len(&self) -> usize {
        self.packed.elem_count()
    }

    /// Takes back what [`Parameter::packed`] gave.
    pub(crate) fn set_packed(&self, values: &[f32]) -> Result<()> {
        let values = Tensor::from_slice(values, self.packed.shape(), self.packed.device())?;
        self.packed.slice_set(&values.to_dtype(self.packed.dtype())?, 0, 0)
    }

    /// The same value and moments with a gradient of its own.
    pub(crate) fn twin(&self) -> Result<Parameter> {
        let Parameter { packed, value, gradient } = self;
        Ok(Parameter {
            packed: packed.clone(),
            value: value.clone(),
            gradient: gradient.zeros_like()?,
        })
    }

    /// Takes over a value of the same size; gradient and moments stay.
    pub(crate) fn set(&self, values: &[f32]) -> Result<()> {
        let value = Tensor::from_slice(values, (1, values.len()), self.packed.device())?;
        self.packed.slice_set(&value.to_dtype(self.packed.dtype())?, 0, 0)
    }
}

/// The norm of all gradients together.
pub(crate) fn gradient_norm(ops: Ops, parameters: &[&Parameter]) -> Result<f64> {
    norm(ops.each(parameters.to_vec(), |parameter| ops.square(&parameter.gradient)))
}

/// The root of a sum of squares: see [`Ops::square`].
pub(crate) fn norm(squares: Vec<Result<Tensor>>) -> Result<f64> {
    let squares = squares.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(Tensor::stack(&squares, 0)?.sum_all()?.to_scalar::<f64>()?.sqrt())
}

/// Adam (Kingma and Ba, ICLR '15), as PyTorch computes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adam {
    lr: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    steps: i32,
    /// Times `lr`: 1 unless training diverged before.
    rate: f64,
    /// A share of each value, times the learning rate, is taken away a step (Loshchilov
    /// and Hutter, ICLR '19).
    weight_decay: f64,
    /// What gradients are multiplied by.
    scale: f64,
}

impl Adam {
    /// Before the first step.
    pub(crate) fn new(lr: f64, beta1: f64, epsilon: f64) -> Adam {
        Adam {
            lr,
            beta1,
            beta2: 0.999,
            epsilon,
            steps: 0,
            rate: 1.0,
            weight_decay: 0.0,
            scale: 1.0,
        }
    }

    /// With decoupled weight decay.
    pub(crate) fn with_weight_decay(self, weight_decay: f64) -> Adam {
        Adam { weight_decay, ..self }
    }

    /// The next steps at `rate` times the learning rate, with gradients times `scale`.
    pub(crate) fn set(&mut self, rate: f64, scale: f64) {
        (self.rate, self.scale) = (rate, scale);
    }

    /// What a value is multiplied by before it is moved.
    fn kept(&self) -> f64 {
        1.0 - self.lr * self.rate * self.weight_decay
    }

    /// Steps taken.
    pub(crate) fn steps(&self) -> i32 {
        self.steps
    }

    /// As after so many steps, at `rate` times the configured learning rate.
    pub(crate) fn resume(&mut self, steps: i32, rate: f64) {
        self.steps = steps;
        self.rate = rate;
    }

    /// Moves every parameter against its gradient.
    pub(crate) fn step<'a>(
        &mut self,
        ops: Ops,
        parameters: impl IntoIterator<Item = &'a Parameter>,
    ) -> Result<()> {
        let adam = self.begin();
        parameters.into_iter().try_for_each(|parameter| adam.apply(ops, parameter))
    }

    /// Begins a step, which is then applied to every parameter.
    pub(crate) fn begin(&mut self) -> Adam {
        self.steps = self.steps.saturating_add(1);
        *self
    }

    /// Moves a parameter against its gradient.
    pub(crate) fn apply(&self, ops: Ops, parameter: &Parameter) -> Result<()> {
        match ops.fused() {
            true => parameter.packed.inplace_op2(&parameter.gradient, &InPlace(AdamKernel(*self))),
            false => self.step_plain(parameter),
        }
    }

    /// `lr / (1 - beta1^t)` and `1 / sqrt(1 - beta2^t)`.
    fn corrections(&self) -> (f64, f64) {
        let first = 1.0 - self.beta1.powi(self.steps);
        let second = 1.0 - self.beta2.powi(self.steps);
        (self.lr * self.rate / first, 1.0 / second.sqrt())
    }

    fn step_plain(&self, parameter: &Parameter) -> Result<()> {
        let packed = &parameter.packed;
        let (rows, count) = packed.dims2()?;
        let row = |index| packed.narrow(0, index, 1);
        let gradient = (parameter.gradient.reshape((1, count))? * self.scale)?;
        let (rate, correction) = self.corrections();
        let first = ((row(1)? * self.beta1)? + (&gradient * (1.0 - self.beta1))?)?;
        let second = ((row(2)? * self.beta2)? + (gradient.sqr()? * (1.0 - self.beta2))?)?;
        let greatest = if rows == 4 { row(3)?.maximum(&second)? } else { second.clone() };
        let size = greatest.sqrt()?.affine(correction, self.epsilon)?;
        let value = ((row(0)? * self.kept())? - ((&first * rate)? / size)?)?;
        packed.slice_set(&value, 0, 0)?;
        packed.slice_set(&first, 0, 1)?;
        packed.slice_set(&second, 0, 2)?;
        if rows == 4 {
            packed.slice_set(&greatest, 0, 3)?;
        }
        Ok(())
    }
}

struct AdamKernel(Adam);

impl Kernel for AdamKernel {
    const NAME: &'static str = "Adam";

    fn run<T: Real>(&self, out: &mut [T], gradient: &[T], _: &[T]) -> Result<()> {
        let count = gradient.len();
        if count == 0 {
            return Ok(());
        }
        let amsgrad = out.len() == 4 * count;
        expect_lengths(Self::NAME, &[out.len()], &[count * if amsgrad { 4 } else { 3 }])?;
        let (value, rest) = out.split_at_mut(count);
        let (first, rest) = rest.split_at_mut(count);
        let (second, greatest) = rest.split_at_mut(count);
        let shares = shares(count, least_rows(4));
        // Without amsgrad there is no greatest to share out, and no share has any.
        let greatest = cut(greatest, &shares, usize::from(amsgrad));
        let moments = cut(first, &shares, 1).into_iter().zip(cut(second, &shares, 1)).zip(greatest);
        let parts = cut(value, &shares, 1).into_iter().zip(moments);
        share_out(numbered(parts, &shares).collect(), &|(at, (value, moments))| {
            let ((first, second), greatest): ((&mut [T], &mut [T]), &mut [T]) = moments;
            self.update(value, first, second, greatest, &gradient[at..]);
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, gradient: Array, _: Array) -> Result<()> {
        let count = gradient.len;
        let amsgrad = out.len == 4 * count;
        expect_lengths(Self::NAME, &[out.len], &[count * if amsgrad { 4 } else { 3 }])?;
        let (rate, correction) = self.0.corrections();
        let Adam { beta1, beta2, epsilon, scale, .. } = self.0;
        let places = [out.argument(), count as u64, gradient.argument(), u64::from(amsgrad)];
        let numbers = [beta1, beta2, rate, correction, epsilon, self.0.kept(), scale];
        gpu.each("adam", count, &[&places[..], &numbers.map(f64::to_bits)].concat())
    }
}

impl AdamKernel {
    fn update<T: Real>(
        &self,
        value: &mut [T],
        first: &mut [T],
        second: &mut [T],
        greatest: &mut [T],
        gradient: &[T],
    ) {
        let (rate, correction) = self.0.corrections();
        let (rate, correction) = (T::of(rate), T::of(correction));
        let (beta1, beta2) = (T::of(self.0.beta1), T::of(self.0.beta2));
        let (new1, new2) = (T::of(1.0 - self.0.beta1), T::of(1.0 - self.0.beta2));
        let epsilon = T::of(self.0.epsilon);
        let (kept, scale) = (T::of(self.0.kept()), T::of(self.0.scale));
        if greatest.is_empty() {
            wide(
                #[inline(always)]
                || {
                    for (((value, first), second), gradient) in
                        value.iter_mut().zip(first).zip(second).zip(gradient)
                    {
                        let gradient = scale * *gradient;
                        *first = beta1 * *first + new1 * gradient;
                        *second = beta2 * *second + new2 * (gradient * gradient);
                        *value =
                            kept * *value - rate * *first / (second.root() * correction + epsilon);
                    }
                },
            );
        } else {
            for ((((value, first), second), greatest), gradient) in
                value.iter_mut().zip(first).zip(second).zip(greatest).zip(gradient)
            {
                let gradient = scale * *gradient;
                *first = beta1 * *first + new1 * gradient;
                *second = beta2 * *second + new2 * (gradient * gradient);
                *greatest = greatest.greater(*second);
                *value = kept * *value - rate * *first / (greatest.root() * correction + epsilon);
            }
        }
    }
}
