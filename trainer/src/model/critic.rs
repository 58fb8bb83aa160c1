//! A critic and its step: WGAN with gradient penalty (Gulrajani et al.,
//! NeurIPS '17), exact and without a second derivative.
//!
//! With activations `a_l = relu(a_{l-1} W_l + b_l)`, masks `m_l = (a_l > 0)` and
//! the output `a_{L-1} w_L + b_L`, the backward chain of a sample is
//! `u_{L-1} = w_L m_{L-1}`, `u_{l-1} = (u_l W_l^T) m_{l-1}`, and its input
//! gradient `g = u_1 W_1^T`. The masks' derivative is 0 almost everywhere, so
//! for a penalty `P(g)` with `s_0 = dP/dg` and the masked linear forward chain
//! `s_l = (s_{l-1} W_l) m_l`, the gradient is `dP/dW_l = s_{l-1}^T u_l` and
//! `dP/dw_L = sum of s_{L-1}`.
//!
//! The gradient of the loss itself is `a_{l-1}^T d_l`, where `d` is the same
//! chain as `u` up to a factor. So with the rows `[real; fake; between]` stacked,
//! one backward chain gives `d` and `u`, and once the last third of every `a`
//! is overwritten by `s`, one product a weight gives the whole gradient.

use super::ops::Ops;
use super::ops::dense::Columns;
use super::parameter::{Initializer, Parameter};
use candle_core::{DType, Device, Result, Tensor};

struct Dense {
    weight: Parameter,
    bias: Parameter,
}

/// A ReLU network with one output a row.
pub(crate) struct Critic {
    layers: Vec<Dense>,
    columns: Columns,
    batch: usize,
    /// `[3 * batch, inputs]`: real, generated, and the penalty's gradient.
    input: Tensor,
    /// Of every hidden layer `[3 * batch, units]`: activations and backward chain.
    activations: Vec<Tensor>,
    chain: Vec<Tensor>,
    /// `[batch, units]`.
    scratch: Tensor,
    /// `[3 * batch, 1]`: what the output's gradient is multiplied by, row by row.
    shares: Tensor,
}

/// What a step found, each a tensor of one number (on the device until read).
pub(crate) struct Judgement {
    /// Mean output for generated minus mean output for real samples.
    pub(crate) distance: Tensor,
    /// Mean of `(|g| - 1)^2`, without its coefficient.
    pub(crate) penalty: Tensor,
}

/// What a row counts in the gradient of the loss: real, generated, and the penalty's.
fn scales(batch: usize) -> [f64; 3] {
    let share = 1.0 / batch as f64;
    [-share, share, 1.0]
}

impl Critic {
    /// `packing` samples side by side are one row; `layers` counts the output.
    pub(crate) fn new(
        init: &mut Initializer,
        (layers, units): (usize, usize),
        (batch, packing): (usize, usize),
        columns: Columns,
        dtype: DType,
        device: &Device,
    ) -> Result<Critic> {
        let inputs = packing * columns.of_sample;
        let mut width = inputs;
        let mut dense = Vec::with_capacity(layers);
        for layer in 0..layers {
            let next = if layer + 1 == layers { 1 } else { units };
            let bound = 1.0 / (width as f64).sqrt();
            dense.push(Dense {
                weight: init.uniform(&[width, next], bound)?,
                bias: init.uniform(&[next], bound)?,
            });
            width = next;
        }
        let zeros = |rows: usize, columns: usize| Tensor::zeros((rows, columns), dtype, device);
        let hidden = || (1..layers).map(|_| zeros(3 * batch, units)).collect::<Result<Vec<_>>>();
        Ok(Critic {
            layers: dense,
            columns,
            batch,
            input: zeros(3 * batch, inputs)?,
            activations: hidden()?,
            chain: hidden()?,
            scratch: zeros(batch, units)?,
            shares: {
                let rows = |scale: f64| Tensor::full(scale, (batch, 1), device)?.to_dtype(dtype);
                let [real, fake, between] = scales(batch).map(rows);
                Tensor::cat(&[real?, fake?, between?], 0)?
            },
        })
    }

    /// Where the caller puts real samples, `[batch * packing, of_sample]`.
    pub(crate) fn real(&self) -> Result<Tensor> {
        self.samples(&self.rows(&self.input, 0)?)
    }

    /// Where the caller puts generated samples, as [`Self::real`].
    pub(crate) fn fake(&self) -> Result<Tensor> {
        self.samples(&self.rows(&self.input, 1)?)
    }

    /// Every trained tensor.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.layers.iter().flat_map(|layer| [&layer.weight, &layer.bias])
    }

    fn samples(&self, rows: &Tensor) -> Result<Tensor> {
        rows.reshape(((), self.columns.of_sample))
    }

    fn rows(&self, of: &Tensor, third: usize) -> Result<Tensor> {
        of.narrow(0, third * self.batch, self.batch)
    }

    fn hidden(&self) -> usize {
        self.layers.len() - 1
    }

    fn output(&self, ops: Ops, activation: &Tensor) -> Result<Tensor> {
        let last = &self.layers[self.hidden()];
        ops.matmul(activation, &last.weight.value)?.broadcast_add(&last.bias.value)
    }

    /// From the first hidden layer's activation on, in place.
    fn forward(&self, ops: Ops, activations: &[Tensor]) -> Result<()> {
        for layer in 1..self.hidden() {
            ops.matmul_into(
                &activations[layer],
                &activations[layer - 1],
                &self.layers[layer].weight.value,
            )?;
            ops.bias_relu(&activations[layer], &self.layers[layer].bias.value)?;
        }
        Ok(())
    }

    /// The chain `u` down to the first hidden layer, in place.
    fn backward(
        &self,
        ops: Ops,
        activations: &[Tensor],
        chain: &[Tensor],
        scales: &[f64],
    ) -> Result<()> {
        let top = self.hidden() - 1;
        let weight = self.layers[top + 1].weight.value.flatten_all()?;
        ops.masked_outer(&chain[top], &activations[top], &weight, scales)?;
        for layer in (0..top).rev() {
            let weight = self.layers[layer + 1].weight.value.t()?;
            ops.matmul_into(&chain[layer], &chain[layer + 1], &weight)?;
            ops.mask(&chain[layer], &activations[layer])?;
        }
        Ok(())
    }

    /// Writes the gradient of `mean D(fake) - mean D(real) + coefficient *
    /// penalty` into every parameter. `weights` `[batch]` says where between
    /// real (0) and generated (1) the penalty is taken. Leaves the inputs alone.
    pub(crate) fn gradients(
        &self,
        ops: Ops,
        weights: &Tensor,
        coefficient: f64,
    ) -> Result<Judgement> {
        let batch = self.batch;
        let (activations, chain) = (&self.activations, &self.chain);
        let first = &self.layers[0];

        let judged = |tensor: &Tensor| tensor.narrow(0, 0, 2 * batch);
        ops.matmul_into(&judged(&activations[0])?, &judged(&self.input)?, &first.weight.value)?;
        ops.interpolate_relu(&activations[0], weights, &first.bias.value)?;
        self.forward(ops, activations)?;
        let output = self.output(ops, &judged(&activations[self.hidden() - 1])?)?;
        let distance = (output.narrow(0, batch, batch)?.mean_all()?
            - output.narrow(0, 0, batch)?.mean_all()?)?;

        self.backward(ops, activations, chain, &scales(batch))?;

        // The penalty's gradient with respect to the input gradient.
        let gradient = self.rows(&self.input, 2)?;
        ops.matmul_into(&gradient, &self.rows(&chain[0], 2)?, &first.weight.value.t()?)?;
        let norms = ops.gradient_norms(&gradient, self.columns)?;
        let excess = (&norms - 1.0)?;
        let penalty = excess.sqr()?.mean_all()?;
        let factors = ((excess * (2.0 * coefficient / batch as f64))? / norms)?;
        ops.scale_rows(&gradient, &factors, self.columns)?;

        // Its forward chain replaces the activations in between.
        let mut source = gradient;
        for (layer, activation) in activations.iter().enumerate() {
            ops.matmul_into(&self.scratch, &source, &self.layers[layer].weight.value)?;
            source = self.rows(activation, 2)?;
            ops.take_where_positive(&source, &self.scratch)?;
        }

        let mut below = &self.input;
        for (layer, dense) in self.layers[..self.hidden()].iter().enumerate() {
            ops.matmul_into(&dense.weight.gradient, &below.t()?, &chain[layer])?;
            ops.sum_rows_into(&dense.bias.gradient, &judged(&chain[layer])?)?;
            below = &activations[layer];
        }
        // The last bias cancels: its gradient stays 0.
        let last = &self.layers[self.hidden()].weight.gradient;
        ops.matmul_into(last, &below.t()?, &self.shares)?;
        Ok(Judgement { distance, penalty })
    }

    /// `mean D(fake)` and the gradient of `-scale * mean D(fake)` with respect to
    /// the generated samples, `[batch * packing, of_sample]`.
    pub(crate) fn input_gradient(&self, ops: Ops, scale: f64) -> Result<(Tensor, Tensor)> {
        let first = &self.layers[0];
        let fake = |tensors: &[Tensor]| {
            tensors.iter().map(|tensor| self.rows(tensor, 1)).collect::<Result<Vec<_>>>()
        };
        let (activations, chain) = (fake(&self.activations)?, fake(&self.chain)?);
        ops.matmul_into(&activations[0], &self.rows(&self.input, 1)?, &first.weight.value)?;
        ops.bias_relu(&activations[0], &first.bias.value)?;
        self.forward(ops, &activations)?;
        let output = self.output(ops, &activations[self.hidden() - 1])?.mean_all()?;
        self.backward(ops, &activations, &chain, &[-scale / self.batch as f64])?;
        // The third that every critic step overwrites is free until then.
        let gradient = self.rows(&self.input, 2)?;
        ops.matmul_into(&gradient, &chain[0], &first.weight.value.t()?)?;
        Ok((output, self.samples(&gradient)?))
    }
}

#[cfg(test)]
#[path = "critic_tests.rs"]
mod tests;
