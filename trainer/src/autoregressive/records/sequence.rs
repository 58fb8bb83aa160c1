//! A flow's records given its context: an LSTM, and heads that draw a record's tokens one
//! after another.

use candle_core::{DType, Device, Result, Tensor};
use ns_model_format::autoregressive::{BUDGET_BUCKETS, COUNT_BUCKETS};
use ns_model_format::random::Stream;

use super::Widths;
use super::batch::Batch;
use crate::autoregressive::chain::Chain;
use crate::autoregressive::conditional::kept;
use crate::model::ops::Ops;
use crate::model::ops::lstm::Tape;
use crate::model::ops::tokens::Ids;
use crate::model::parameter::{Initializer, Parameter};

/// Inverted dropout of hidden values.
const HIDDEN_DROPOUT: f32 = 0.1;

/// Hidden and cell states of some flows, `[flows, H]`.
pub(super) type State = (Tensor, Tensor);

/// All but the context.
pub(super) struct Sequence {
    pub(super) input: Vec<Parameter>,
    /// Of records left, records so far, and the budget.
    pub(super) counters: [Parameter; 3],
    pub(super) context_input: [Parameter; 2],
    pub(super) gates: [Parameter; 2],
    pub(super) hidden: Parameter,
    /// From the hidden state, from the context, and a bias.
    pub(super) heads: [Parameter; 3],
    pub(super) head_counters: [Parameter; 2],
    pub(super) earlier: Vec<Vec<Parameter>>,
    pub(super) out: Vec<[Parameter; 2]>,
    /// Zeros, `[E]`: heads add their biases before.
    no_bias: Tensor,
    widths: Widths,
    /// Tokens of each head.
    pub(super) sizes: Vec<usize>,
    ops: Ops,
    device: Device,
}

/// What a forward pass leaves for the backward one.
pub(super) struct Pass {
    pub(super) tape: Tape,
    input: Tensor,
    dropped: Tensor,
    mask: Option<Tensor>,
    /// `[rows, heads E]`.
    heads: Tensor,
}

/// What learning from some records leaves.
pub(super) struct Outcome {
    /// The heads' losses, summed over records, each on its own.
    pub(super) losses: Vec<f64>,
    /// What the flows' next records go on from.
    pub(super) end: State,
    /// The gradient of the contexts, `[flows, C]`.
    pub(super) of_context: Tensor,
}

impl Sequence {
    pub(super) fn new(
        chain: &Chain,
        widths: Widths,
        init: &mut Initializer,
        device: &Device,
    ) -> Result<Sequence> {
        let heads = &chain.heads;
        let Widths { context, input, hidden, head } = widths;
        let all_heads = heads.len() * head;
        let bound = |width: usize| 1.0 / (width as f64).sqrt();
        let mut linear = |rows: usize, columns: usize| -> Result<[Parameter; 2]> {
            Ok([
                init.uniform(&[rows, columns], bound(rows))?,
                init.uniform(&[columns], bound(rows))?,
            ])
        };
        let context_input = linear(context, input)?;
        let gates = linear(input, 4 * hidden)?;
        let [from_hidden, head_bias] = linear(hidden, all_heads)?;
        let [from_context, _] = linear(context, all_heads)?;
        let mut out = Vec::new();
        for of in heads {
            out.push(linear(head, of.size)?);
        }
        let mut table =
            |rows: usize, columns: usize, deviation: f64| init.normal(&[rows, columns], deviation);
        let mut inputs = Vec::new();
        let mut earlier = Vec::new();
        for (at, of) in heads.iter().enumerate() {
            inputs.push(table(of.size + 1, input, 0.3)?);
            let before = heads[..at].iter().map(|before| table(before.size, head, 0.2));
            earlier.push(before.collect::<Result<Vec<_>>>()?);
        }
        Ok(Sequence {
            input: inputs,
            counters: [
                table(COUNT_BUCKETS, input, 0.3)?,
                table(COUNT_BUCKETS, input, 0.3)?,
                table(BUDGET_BUCKETS, input, 0.3)?,
            ],
            context_input,
            gates,
            head_counters: [
                table(COUNT_BUCKETS, all_heads, 0.2)?,
                table(BUDGET_BUCKETS, all_heads, 0.2)?,
            ],
            earlier,
            hidden: init.uniform(&[hidden, 4 * hidden], bound(hidden))?,
            heads: [from_hidden, from_context, head_bias],
            out,
            no_bias: Tensor::zeros(head, DType::F32, device)?,
            widths,
            sizes: heads.iter().map(|head| head.size).collect(),
            ops: Ops::on(device),
            device: device.clone(),
        })
    }

    /// The same weights with gradients of their own, for another thread.
    pub(super) fn twin(&self) -> Result<Sequence> {
        let all = |parameters: &Vec<Parameter>| -> Result<Vec<Parameter>> {
            parameters.iter().map(Parameter::twin).collect()
        };
        let two = |[first, second]: &[Parameter; 2]| {
            Ok::<_, candle_core::Error>([first.twin()?, second.twin()?])
        };
        let three = |[first, second, third]: &[Parameter; 3]| {
            Ok::<_, candle_core::Error>([first.twin()?, second.twin()?, third.twin()?])
        };
        Ok(Sequence {
            input: all(&self.input)?,
            counters: three(&self.counters)?,
            context_input: two(&self.context_input)?,
            gates: two(&self.gates)?,
            hidden: self.hidden.twin()?,
            heads: three(&self.heads)?,
            head_counters: two(&self.head_counters)?,
            earlier: self.earlier.iter().map(all).collect::<Result<_>>()?,
            out: self.out.iter().map(two).collect::<Result<_>>()?,
            no_bias: self.no_bias.clone(),
            widths: self.widths,
            sizes: self.sizes.clone(),
            ops: self.ops,
            device: self.device.clone(),
        })
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.input
            .iter()
            .chain(&self.counters)
            .chain(&self.context_input)
            .chain(&self.gates)
            .chain([&self.hidden])
            .chain(&self.heads)
            .chain(&self.head_counters)
            .chain(self.earlier.iter().flatten())
            .chain(self.out.iter().flatten())
    }

    /// Up to what the heads add to: `[rows, heads E]`. Of flows with these contexts, `[flows, C]`.
    pub(super) fn forward(
        &self,
        batch: &Batch,
        context: &Tensor,
        begin: Option<&State>,
        dropout: Option<&mut Stream>,
    ) -> Result<Pass> {
        let (ops, device) = (self.ops, &self.device);
        let Widths { input, hidden, head, .. } = self.widths;
        let (steps, flows) = (batch.steps, batch.flows);
        let rows = steps * flows;
        let all_heads = self.sizes.len() * head;
        let x = Tensor::zeros((rows, input), DType::F32, device)?;
        for (table, ids) in self.input.iter().zip(&batch.previous) {
            ops.look_up(&x, &table.value, ids)?;
        }
        for (table, ids) in self.counters.iter().zip([&batch.left, &batch.so_far, &batch.budget]) {
            ops.look_up(&x, &table.value, ids)?;
        }
        let [to_input, input_bias] = &self.context_input;
        let of_context = ops.matmul(context, &to_input.value)?;
        ops.add_repeated(&of_context, &input_bias.value)?;
        ops.add_repeated(&x.reshape((steps, flows, input))?, &of_context)?;
        let [gates, gates_bias] = &self.gates;
        let projected = ops.matmul(&x, &gates.value)?;
        ops.add_repeated(&projected, &gates_bias.value)?;
        let tape = Tape::new((steps, flows, hidden), DType::F32, device)?;
        if let Some((h, c)) = begin {
            tape.begin(h, c)?;
        }
        ops.lstm(&tape, &projected, &self.hidden.value)?;
        let states = tape.hidden(1)?;
        let (dropped, mask) = match dropout {
            Some(stream) => {
                let mask = kept(stream, rows * hidden, HIDDEN_DROPOUT);
                let mask = Tensor::from_vec(mask, (rows, hidden), device)?;
                let dropped = states.force_contiguous()?;
                ops.multiply(&dropped, &mask)?;
                (dropped, Some(mask))
            }
            None => (states, None),
        };
        let [from_hidden, from_context, head_bias] = &self.heads;
        let heads = ops.matmul(&dropped, &from_hidden.value)?;
        let of_context = ops.matmul(context, &from_context.value)?;
        ops.add_repeated(&of_context, &head_bias.value)?;
        ops.add_repeated(&heads.reshape((steps, flows, all_heads))?, &of_context)?;
        ops.look_up(&heads, &self.head_counters[0].value, &batch.left)?;
        ops.look_up(&heads, &self.head_counters[1].value, &batch.budget)?;
        Ok(Pass { tape, input: x, dropped, mask, heads })
    }

    /// What a head's logits are made from: `[rows, E]` after the ReLU.
    pub(super) fn head_input(&self, at: usize, pass: &Pass, given: &[Ids]) -> Result<Tensor> {
        let width = self.widths.head;
        let own = pass.heads.narrow(1, at * width, width)?.force_contiguous()?;
        for (table, ids) in self.earlier[at].iter().zip(given) {
            self.ops.look_up(&own, &table.value, ids)?;
        }
        self.ops.bias_relu(&own, &self.no_bias)?;
        Ok(own)
    }

    pub(super) fn logits(&self, at: usize, input: &Tensor) -> Result<Tensor> {
        let [weight, bias] = &self.out[at];
        let logits = self.ops.matmul(input, &weight.value)?;
        self.ops.add_repeated(&logits, &bias.value)?;
        Ok(logits)
    }

    /// The heads' losses, summed over records, each on its own, and what the flows' next
    /// records go on from.
    pub(super) fn losses(
        &self,
        batch: &Batch,
        context: &Tensor,
        begin: Option<&State>,
    ) -> Result<(Vec<f64>, State)> {
        let pass = self.forward(batch, context, begin, None)?;
        let given = batch.given();
        let mut losses = Vec::with_capacity(self.sizes.len());
        for at in 0..self.sizes.len() {
            let logits = self.logits(at, &self.head_input(at, &pass, &given)?)?;
            losses.push(self.ops.cross_entropy(&logits, &batch.wanted(at), 0.0)?);
        }
        Ok((losses, pass.tape.end()?))
    }

    /// Writes the gradients of the losses' sum, times `scale`.
    pub(super) fn learn(
        &self,
        batch: &Batch,
        context: &Tensor,
        begin: Option<&State>,
        (stream, scale): (&mut Stream, f64),
    ) -> Result<Outcome> {
        let ops = self.ops;
        let pass = self.forward(batch, context, begin, Some(&mut *stream))?;
        let given = batch.given();
        let mut losses = Vec::with_capacity(self.sizes.len());
        let mut gradients = Vec::with_capacity(self.sizes.len());
        for at in 0..self.sizes.len() {
            let input = self.head_input(at, &pass, &given)?;
            let mask = kept(stream, input.elem_count(), HIDDEN_DROPOUT);
            let mask = Tensor::from_vec(mask, input.shape(), &self.device)?;
            // What the ReLU let through stays above 0 where it is not left out.
            ops.multiply(&input, &mask)?;
            let logits = self.logits(at, &input)?;
            losses.push(ops.cross_entropy(&logits, &batch.wanted(at), scale)?);
            let [weight, bias] = &self.out[at];
            ops.matmul_into(&weight.gradient, &input.t()?, &logits)?;
            ops.sum_rows_into(&bias.gradient, &logits)?;
            let below = ops.matmul(&logits, &weight.value.t()?)?;
            ops.multiply(&below, &mask)?;
            ops.mask(&below, &input)?;
            for (table, ids) in self.earlier[at].iter().zip(&given) {
                scatter(ops, table, &below, ids)?;
            }
            gradients.push(below);
        }
        let gradient = Tensor::cat(&gradients, 1)?.contiguous()?;
        // Read before the backward pass writes where gates are.
        let end = pass.tape.end()?;
        let of_context = self.backward(batch, &pass, context, &gradient)?;
        Ok(Outcome { losses, end, of_context })
    }

    /// Writes the gradients of all that is below the heads; `gradient` is that of
    /// [`Pass::heads`]. Returns that of the context.
    fn backward(
        &self,
        batch: &Batch,
        pass: &Pass,
        context: &Tensor,
        gradient: &Tensor,
    ) -> Result<Tensor> {
        let ops = self.ops;
        let (steps, flows) = (batch.steps, batch.flows);
        let over_steps = |x: &Tensor| -> Result<Tensor> {
            let columns = x.dim(1)?;
            let sum = Tensor::zeros((flows, columns), DType::F32, &self.device)?;
            ops.sum_rows_into(&sum, &x.reshape((steps, flows, columns))?)?;
            Ok(sum)
        };
        let [from_hidden, from_context, head_bias] = &self.heads;
        scatter(ops, &self.head_counters[0], gradient, &batch.left)?;
        scatter(ops, &self.head_counters[1], gradient, &batch.budget)?;
        ops.matmul_into(&from_hidden.gradient, &pass.dropped.t()?, gradient)?;
        let of_heads = over_steps(gradient)?;
        ops.matmul_into(&from_context.gradient, &context.t()?, &of_heads)?;
        ops.sum_rows_into(&head_bias.gradient, &of_heads)?;
        let upstream = ops.matmul(gradient, &from_hidden.value.t()?)?;
        if let Some(mask) = &pass.mask {
            ops.multiply(&upstream, mask)?;
        }
        ops.lstm_backward(&pass.tape, &upstream, &self.hidden.value)?;
        let gates = pass.tape.gates()?;
        ops.matmul_into(&self.hidden.gradient, &pass.tape.hidden(0)?.t()?, &gates)?;
        let [weight, bias] = &self.gates;
        ops.matmul_into(&weight.gradient, &pass.input.t()?, &gates)?;
        ops.sum_rows_into(&bias.gradient, &gates)?;
        let x = ops.matmul(&gates, &weight.value.t()?)?;
        for (table, ids) in self.input.iter().zip(&batch.previous) {
            scatter(ops, table, &x, ids)?;
        }
        for (table, ids) in self.counters.iter().zip([&batch.left, &batch.so_far, &batch.budget]) {
            scatter(ops, table, &x, ids)?;
        }
        let of_input = over_steps(&x)?;
        let [to_input, input_bias] = &self.context_input;
        ops.matmul_into(&to_input.gradient, &context.t()?, &of_input)?;
        ops.sum_rows_into(&input_bias.gradient, &of_input)?;
        let of_context = ops.matmul(&of_heads, &from_context.value.t()?)?;
        ops.add_repeated(&of_context, &ops.matmul(&of_input, &to_input.value.t()?)?)?;
        Ok(of_context)
    }
}

/// Writes the gradient of a table whose rows were looked up.
fn scatter(ops: Ops, table: &Parameter, gradient: &Tensor, ids: &Ids) -> Result<()> {
    table.gradient.zero_set()?;
    ops.look_up_backward(&table.gradient, gradient, ids)
}
