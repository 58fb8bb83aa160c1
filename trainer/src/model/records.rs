//! The record generator: an LSTM that eats attributes and noise and emits
//! `per_step` records a step.

use super::ops::Ops;
use super::ops::lstm::Tape;
use super::ops::segments::{Segments, Shape};
use super::parameter::{Initializer, Parameter};
use super::weights::{GeneratorWeights, Linear};
use candle_core::{DType, Device, Result, Tensor};

/// One LSTM layer and a head that emits all records of a step at once.
///
/// Attributes and condition do not change along a sequence: what they put
/// into the gates is computed once. No gradient flows back into them.
pub(crate) struct RecordGenerator {
    /// `[A + C, 4H]`: discrete attributes, then the condition.
    fixed: Parameter,
    /// `[Z, 4H]`.
    noise: Parameter,
    /// `[H, 4H]`.
    hidden: Parameter,
    bias: Parameter,
    /// `[H, S * M]`.
    head: Parameter,
    head_bias: Parameter,
    segments: Segments,
    shape: Shape,
    /// `[steps * batch, 4H]`.
    projected: Tensor,
    tape: Tape,
    /// `[steps, batch, S * M]`, activated but not masked.
    records: Tensor,
    upstream: Tensor,
}

/// What [`RecordGenerator::prepare`] was given.
pub(crate) struct Input {
    /// `[batch, A + C]`.
    pub(crate) fixed: Tensor,
    /// `[steps * batch, Z]`.
    pub(crate) noise: Tensor,
}

/// Widths of a record generator.
pub(crate) struct Widths {
    /// A + C.
    pub(crate) fixed: usize,
    /// Z.
    pub(crate) noise: usize,
    /// H.
    pub(crate) hidden: usize,
}

impl RecordGenerator {
    /// For batches of one shape.
    pub(crate) fn new(
        init: &mut Initializer,
        widths: &Widths,
        segments: Segments,
        shape: Shape,
        dtype: DType,
        device: &Device,
    ) -> Result<RecordGenerator> {
        let hidden = widths.hidden;
        let bound = 1.0 / (hidden as f64).sqrt();
        let gates = 4 * hidden;
        let outputs = shape.per_step * shape.dim;
        let rows = shape.steps * shape.batch;
        Ok(RecordGenerator {
            fixed: init.uniform(&[widths.fixed, gates], bound)?,
            noise: init.uniform(&[widths.noise, gates], bound)?,
            hidden: init.uniform(&[hidden, gates], bound)?,
            bias: init.uniform(&[gates], bound)?,
            head: init.uniform(&[hidden, outputs], bound)?,
            head_bias: init.uniform(&[outputs], bound)?,
            segments,
            shape,
            projected: Tensor::zeros((rows, gates), dtype, device)?,
            tape: Tape::new((shape.steps, shape.batch, hidden), dtype, device)?,
            records: Tensor::zeros((rows, outputs), dtype, device)?,
            upstream: Tensor::zeros((rows, hidden), dtype, device)?,
        })
    }

    /// Every trained tensor.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        [&self.fixed, &self.noise, &self.hidden, &self.bias, &self.head, &self.head_bias]
            .into_iter()
    }

    /// What attributes, condition and noise put into the gates: the same for
    /// every first state.
    pub(crate) fn prepare(&self, ops: Ops, input: &Input) -> Result<()> {
        let fixed = ops.matmul(&input.fixed, &self.fixed.value)?;
        ops.add_repeated(&fixed, &self.bias.value)?;
        ops.matmul_into(&self.projected, &input.noise, &self.noise.value)?;
        let rows = (self.shape.steps, self.shape.batch, fixed.dim(1)?);
        ops.add_repeated(&self.projected.reshape(rows)?, &fixed)
    }

    /// Generates from a first state `[batch, H]` into the first columns of
    /// `samples` (`[batch, columns]`). Returns which records are alive.
    pub(crate) fn forward(
        &self,
        ops: Ops,
        (hidden, cell): (&Tensor, &Tensor),
        samples: &Tensor,
    ) -> Result<Tensor> {
        self.tape.begin(hidden, cell)?;
        ops.lstm(&self.tape, &self.projected, &self.hidden.value)?;
        ops.matmul_into(&self.records, &self.tape.hidden(1)?, &self.head.value)?;
        ops.add_repeated(&self.records, &self.head_bias.value)?;
        ops.activate(&self.records, &self.segments)?;
        let alive = ops.alive(&self.records, self.shape)?;
        ops.place_records(samples, &self.records, &alive, self.shape)?;
        Ok(alive)
    }

    /// Writes every parameter's gradient, given that of the samples that the
    /// last [`Self::forward`] made. The mask counts as constant.
    pub(crate) fn backward(
        &self,
        ops: Ops,
        input: &Input,
        alive: &Tensor,
        gradient: &Tensor,
    ) -> Result<()> {
        let raw = self.records.zeros_like()?;
        ops.take_records(&raw, gradient, alive, self.shape)?;
        ops.activate_backward(&raw, &self.records, &self.segments)?;
        ops.matmul_into(&self.head.gradient, &self.tape.hidden(1)?.t()?, &raw)?;
        ops.sum_rows_into(&self.head_bias.gradient, &raw)?;
        ops.matmul_into(&self.upstream, &raw, &self.head.value.t()?)?;
        ops.lstm_backward(&self.tape, &self.upstream, &self.hidden.value)?;
        let gates = self.tape.gates()?;
        let states = self.tape.hidden(0)?;
        ops.matmul_into(&self.hidden.gradient, &states.t()?, &gates)?;
        ops.matmul_into(&self.noise.gradient, &input.noise.t()?, &gates)?;
        let Shape { steps, batch, .. } = self.shape;
        let fixed = gates.narrow(0, 0, batch)?.zeros_like()?;
        ops.sum_rows_into(&fixed, &gates.reshape((steps, batch, fixed.dim(1)?))?)?;
        ops.matmul_into(&self.fixed.gradient, &input.fixed.t()?, &fixed)?;
        ops.sum_rows_into(&self.bias.gradient, &fixed)
    }

    /// Adds its part to plain weights; `attributes` is A.
    pub(crate) fn export(&self, attributes: usize, weights: &mut GeneratorWeights) -> Result<()> {
        let mut fixed = self.fixed.to_vec()?;
        weights.lstm_bias = self.bias.to_vec()?;
        weights.lstm_condition = fixed.split_off(attributes * weights.lstm_bias.len());
        weights.lstm_attributes = fixed;
        weights.lstm_noise = self.noise.to_vec()?;
        weights.lstm_hidden = self.hidden.to_vec()?;
        weights.record_head =
            Linear { weight: self.head.to_vec()?, bias: self.head_bias.to_vec()? };
        Ok(())
    }
}
