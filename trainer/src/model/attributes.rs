//! The attribute generator: noise and condition in, attributes out.

use super::config::Discretize;
use super::ops::Ops;
use super::ops::segments::Segments;
use super::parameter::{Initializer, Parameter};
use super::weights::{BatchNorm, HiddenLayer, Linear};
use candle_core::{DType, Device, Result, Tensor};
use ns_model_format::random::Stream;

/// Share of the running statistics that a batch replaces (PyTorch's meaning).
const MOMENTUM: f64 = 0.9;

/// Linear, ReLU, BatchNorm.
struct Hidden {
    weight: Parameter,
    bias: Parameter,
    gamma: Parameter,
    beta: Parameter,
    /// Running statistics `[units]`, for inference.
    mean: Tensor,
    variance: Tensor,
}

/// What a hidden layer leaves behind for its backward pass.
struct Tape {
    input: Tensor,
    rectified: Tensor,
    normalized: Tensor,
    /// `[1, units]`.
    inverse_deviation: Tensor,
}

/// `[Linear, ReLU, BatchNorm] x (layers - 1)` and a linear head under grouped activations.
pub(crate) struct AttributeGenerator {
    hidden: Vec<Hidden>,
    head: Parameter,
    head_bias: Parameter,
    segments: Segments,
}

/// A training-mode forward pass.
pub(crate) struct Pass {
    tapes: Vec<Tape>,
    last: Tensor,
    /// `[batch, A]`, activated.
    pub(crate) attributes: Tensor,
}

impl AttributeGenerator {
    /// `layers` counts the head.
    pub(crate) fn new(
        init: &mut Initializer,
        inputs: usize,
        (layers, units): (usize, usize),
        segments: Segments,
        dtype: DType,
        device: &Device,
    ) -> Result<AttributeGenerator> {
        let mut width = inputs;
        let mut hidden = Vec::with_capacity(layers - 1);
        for _ in 1..layers {
            let bound = 1.0 / (width as f64).sqrt();
            hidden.push(Hidden {
                weight: init.uniform(&[width, units], bound)?,
                bias: init.uniform(&[units], bound)?,
                gamma: init.constant(&[units], 1.0)?,
                beta: init.constant(&[units], 0.0)?,
                mean: Tensor::zeros(units, dtype, device)?,
                variance: Tensor::ones(units, dtype, device)?,
            });
            width = units;
        }
        let bound = 1.0 / (width as f64).sqrt();
        let head = init.uniform(&[width, segments.dim()], bound)?;
        let head_bias = init.uniform(&[segments.dim()], bound)?;
        Ok(AttributeGenerator { hidden, head, head_bias, segments })
    }

    /// Every trained tensor.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.hidden
            .iter()
            .flat_map(|layer| [&layer.weight, &layer.bias, &layer.gamma, &layer.beta])
            .chain([&self.head, &self.head_bias])
    }

    /// The running statistics, layer by layer.
    pub(crate) fn statistics(&self) -> impl Iterator<Item = &Tensor> {
        self.hidden.iter().flat_map(|layer| [&layer.mean, &layer.variance])
    }

    /// The same, to be replaced by others of the same size.
    pub(crate) fn statistics_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        self.hidden.iter_mut().flat_map(|layer| [&mut layer.mean, &mut layer.variance])
    }

    /// With the statistics of this batch, which also enter the running ones.
    pub(crate) fn forward(&mut self, ops: Ops, input: &Tensor) -> Result<Pass> {
        let batch = input.dim(0)?;
        let mut tapes = Vec::with_capacity(self.hidden.len());
        let mut x = input.clone();
        for layer in &mut self.hidden {
            let rectified = ops.matmul(&x, &layer.weight.value)?;
            ops.bias_relu(&rectified, &layer.bias.value)?;
            let mean = ops.column_means(&rectified)?;
            let centred = rectified.broadcast_sub(&mean)?;
            let variance = ops.column_means(&centred.sqr()?)?;
            let inverse_deviation =
                variance.affine(1.0, f64::from(BatchNorm::EPSILON))?.sqrt()?.recip()?;
            let normalized = centred.broadcast_mul(&inverse_deviation)?;
            let output =
                normalized.broadcast_mul(&layer.gamma.value)?.broadcast_add(&layer.beta.value)?;
            // The running variance is the unbiased one.
            let unbiased = batch as f64 / (batch - 1).max(1) as f64;
            let blend = |running: &Tensor, new: &Tensor, scale: f64| -> Result<Tensor> {
                (running * (1.0 - MOMENTUM))? + (new.flatten_all()? * (scale * MOMENTUM))?
            };
            layer.mean = blend(&layer.mean, &mean, 1.0)?;
            layer.variance = blend(&layer.variance, &variance, unbiased)?;
            tapes.push(Tape { input: x, rectified, normalized, inverse_deviation });
            x = output;
        }
        let attributes = ops.matmul(&x, &self.head.value)?;
        ops.add_repeated(&attributes, &self.head_bias.value)?;
        ops.activate(&attributes, &self.segments)?;
        Ok(Pass { tapes, last: x, attributes })
    }

    /// Softmax segments of attributes as one-hot vectors. The stream is drawn
    /// from only to sample.
    pub(crate) fn discrete(
        &self,
        ops: Ops,
        attributes: &Tensor,
        how: Discretize,
        stream: &mut Stream,
    ) -> Result<Tensor> {
        match how {
            Discretize::Argmax => ops.one_hot(attributes, &self.segments),
            Discretize::Sample => {
                let race = self.segments.draw_race(attributes.dim(0)?, stream);
                let race = Tensor::from_vec(race, attributes.shape(), attributes.device())?;
                ops.sampled(attributes, &race.to_dtype(attributes.dtype())?, &self.segments)
            }
        }
    }

    /// Writes every parameter's gradient; `gradient` `[batch, A]` is that of
    /// the attributes and is overwritten.
    pub(crate) fn backward(&self, ops: Ops, pass: &Pass, gradient: &Tensor) -> Result<()> {
        ops.activate_backward(gradient, &pass.attributes, &self.segments)?;
        ops.matmul_into(&self.head.gradient, &pass.last.t()?, gradient)?;
        ops.sum_rows_into(&self.head_bias.gradient, gradient)?;
        let mut above = ops.matmul(gradient, &self.head.value.t()?)?;
        for (index, (layer, tape)) in self.hidden.iter().zip(&pass.tapes).enumerate().rev() {
            let product = (&above * &tape.normalized)?;
            ops.sum_rows_into(&layer.gamma.gradient, &product)?;
            ops.sum_rows_into(&layer.beta.gradient, &above)?;
            // With n = gamma / deviation: n (dy - mean dy - normalized * mean(dy * normalized)).
            let centred = above.broadcast_sub(&ops.column_means(&above)?)?;
            let along = tape.normalized.broadcast_mul(&ops.column_means(&product)?)?;
            let scale = tape.inverse_deviation.broadcast_mul(&layer.gamma.value)?;
            let raw = (centred - along)?.broadcast_mul(&scale)?;
            ops.mask(&raw, &tape.rectified)?;
            ops.matmul_into(&layer.weight.gradient, &tape.input.t()?, &raw)?;
            ops.sum_rows_into(&layer.bias.gradient, &raw)?;
            if index > 0 {
                above = ops.matmul(&raw, &layer.weight.value.t()?)?;
            }
        }
        Ok(())
    }

    /// Plain numbers: the hidden layers and the head.
    pub(crate) fn export(&self) -> Result<(Vec<HiddenLayer>, Linear)> {
        let plain = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.to_vec1::<f32>();
        let hidden = self
            .hidden
            .iter()
            .map(|layer| {
                Ok(HiddenLayer {
                    linear: Linear { weight: layer.weight.to_vec()?, bias: layer.bias.to_vec()? },
                    norm: BatchNorm {
                        gamma: layer.gamma.to_vec()?,
                        beta: layer.beta.to_vec()?,
                        mean: plain(&layer.mean)?,
                        variance: plain(&layer.variance)?,
                    },
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok((hidden, Linear { weight: self.head.to_vec()?, bias: self.head_bias.to_vec()? }))
    }
}
