//! A flow's records: an LSTM that is given the record before, how many are left, and how
//! much of the planned time, and heads that draw a record's tokens one after another.

use candle_core::{DType, Device, Result, Tensor};
use ns_model_format::autoregressive::{
    BUDGET_BUCKETS, COUNT_BUCKETS, RecordSays, Says, Variable, budget_bucket, count_bucket,
};
use ns_model_format::random::Stream;

use super::chain::{Chain, is_certain};
use super::conditional::{add_probabilities, correction, kept};
use super::table::{Rows, Table};
use super::tokens::Flows;
use crate::model::ops::Ops;
use crate::model::ops::lstm::Tape;
use crate::model::ops::tokens::Ids;
use crate::model::parameter::{Adam, Initializer, Parameter};

/// Inverted dropout of whole variables, and of hidden values.
const VARIABLE_DROPOUT: f32 = 0.25;
const HIDDEN_DROPOUT: f32 = 0.1;
/// In so many visits the planned time is only about right, by a factor of `exp(0.7 z)`:
/// a plan is a hint.
const HINTED: f32 = 0.5;
const HINT_DEVIATION: f64 = 0.7;
/// Longest gradient.
const CLIP: f64 = 1.0;
/// Records that a pass goes through at once: state is handed on, gradients are not.
const WINDOW: usize = 512;

/// Widths of a record network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Widths {
    /// C.
    pub(crate) context: usize,
    /// I, what goes into the gates.
    pub(crate) input: usize,
    /// H.
    pub(crate) hidden: usize,
    /// E.
    pub(crate) head: usize,
}

/// The network.
pub(crate) struct RecordNetwork {
    context: Vec<Table>,
    mix: [Parameter; 4],
    input: Vec<Parameter>,
    counters: [Parameter; 3],
    context_input: [Parameter; 2],
    gates: [Parameter; 2],
    hidden: Parameter,
    heads: [Parameter; 3],
    head_counters: [Parameter; 2],
    earlier: Vec<Vec<Parameter>>,
    out: Vec<[Parameter; 2]>,
    /// Zeros, `[E]`: heads add their biases before.
    no_bias: Tensor,
    /// Variables that are never left out: what is possible depends on them.
    certain: Vec<bool>,
    /// Variables that are always left out.
    ignored: Vec<bool>,
    widths: Widths,
    sizes: Vec<usize>,
    /// How its operations run.
    pub(crate) ops: Ops,
    device: Device,
}

/// What it was trained to, by name: see [`RecordNetwork::export`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RecordWeights {
    /// A table a variable, `[size + 1, C]`.
    pub(crate) context: Vec<Vec<f32>>,
    /// `[C, C]`, `[C]`, `[C, C]`, `[C]`.
    pub(crate) mix: Vec<Vec<f32>>,
    /// `[C, 4H]`, `[4H]`: with the bias of the gates.
    pub(crate) context_gates: Vec<Vec<f32>>,
    /// `[C, heads E]`, `[heads E]`.
    pub(crate) context_heads: Vec<Vec<f32>>,
    /// A table a head, `[size + 1, 4H]`; then for records left, records so far, budget.
    pub(crate) input: Vec<Vec<f32>>,
    /// `[H, 4H]`: gates in the order input, forget, candidate, output.
    pub(crate) hidden: Vec<f32>,
    /// `[H, heads E]`.
    pub(crate) heads: Vec<f32>,
    /// `[32, heads E]`, `[64, heads E]`.
    pub(crate) head_counters: Vec<Vec<f32>>,
    /// For each head, for each before it, `[size, E]`.
    pub(crate) earlier: Vec<Vec<f32>>,
    /// For each head `[E, size]` and `[size]`.
    pub(crate) out: Vec<Vec<f32>>,
}

/// Some records of some flows, step by step.
struct Batch {
    steps: usize,
    flows: usize,
    /// A variable's tokens, a flow each.
    context: Vec<Rows>,
    /// A head's tokens of the record before.
    previous: Vec<Ids>,
    left: Ids,
    so_far: Ids,
    budget: Ids,
    /// A head's tokens; weight 0 where there is no record, or nothing to be drawn.
    targets: Vec<Vec<u32>>,
    weights: Vec<Vec<f32>>,
    records: usize,
}

/// What a forward pass leaves for the backward one.
struct Pass {
    tape: Tape,
    input: Tensor,
    dropped: Tensor,
    mask: Option<Tensor>,
    /// Before and after mixing; its hidden values.
    plain: Tensor,
    rectified: Tensor,
    mixed: Tensor,
    context: Tensor,
    /// `[rows, heads E]`.
    heads: Tensor,
}

fn is_pair(variable: &Variable) -> bool {
    matches!(variable.says, Says::Pair { .. })
}

impl RecordNetwork {
    pub(crate) fn new(
        chain: &Chain,
        widths: Widths,
        seed: u64,
        device: &Device,
    ) -> Result<RecordNetwork> {
        let Chain { variables, heads, .. } = chain;
        let mut init = Initializer::new(seed, DType::F32, device, false);
        let Widths { context, input, hidden, head } = widths;
        let all_heads = heads.len() * head;
        let bound = |width: usize| 1.0 / (width as f64).sqrt();
        let mut tables = Vec::new();
        for (at, variable) in chain.variables.iter().enumerate() {
            // A pair says nothing that its fields do not.
            let own = if is_pair(variable) { 0.0 } else { 0.2 };
            let rows = (variable.size, chain.shared(at));
            tables.push(Table::new(&mut init, rows, context, [own, 0.2])?);
        }
        let mut linear = |rows: usize, columns: usize| -> Result<[Parameter; 2]> {
            Ok([
                init.uniform(&[rows, columns], bound(rows))?,
                init.uniform(&[columns], bound(rows))?,
            ])
        };
        let [first, first_bias] = linear(context, context)?;
        let [second, second_bias] = linear(context, context)?;
        let context_input = linear(context, input)?;
        let [gate, gate_bias] = linear(input, 4 * hidden)?;
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
        let given = heads.iter().filter_map(|head| match head.says {
            RecordSays::Joint { given, .. } => given,
            _ => None,
        });
        let all = variables.iter().enumerate();
        let told = all.filter(|(_, variable)| is_certain(variable)).map(|(at, _)| at);
        let certain: Vec<usize> = given.chain(told).collect();
        Ok(RecordNetwork {
            context: tables,
            mix: [first, first_bias, second, second_bias],
            input: inputs,
            counters: [
                table(COUNT_BUCKETS, input, 0.3)?,
                table(COUNT_BUCKETS, input, 0.3)?,
                table(BUDGET_BUCKETS, input, 0.3)?,
            ],
            context_input,
            gates: [gate, gate_bias],
            head_counters: [
                table(COUNT_BUCKETS, all_heads, 0.2)?,
                table(BUDGET_BUCKETS, all_heads, 0.2)?,
            ],
            earlier,
            hidden: init.uniform(&[hidden, 4 * hidden], bound(hidden))?,
            heads: [from_hidden, from_context, head_bias],
            out,
            no_bias: Tensor::zeros(head, DType::F32, device)?,
            ignored: variables.iter().map(is_pair).collect(),
            certain: (0..variables.len()).map(|at| certain.contains(&at)).collect(),
            widths,
            sizes: heads.iter().map(|head| head.size).collect(),
            ops: Ops::on(device),
            device: device.clone(),
        })
    }

    pub(crate) fn parameters(&self) -> Vec<&Parameter> {
        let context = self.context.iter().flat_map(Table::parameters);
        context
            .chain(&self.mix)
            .chain(&self.input)
            .chain(&self.counters)
            .chain(&self.context_input)
            .chain(&self.gates)
            .chain([&self.hidden])
            .chain(&self.heads)
            .chain(&self.head_counters)
            .chain(self.earlier.iter().flatten())
            .chain(self.out.iter().flatten())
            .collect()
    }

    fn batch(
        &self,
        flows: &Flows,
        chosen: &[usize],
        (from, steps): (usize, usize),
        mut dropout: Option<&mut Stream>,
    ) -> Batch {
        let (variables, heads) = (self.context.len(), self.sizes.len());
        let count = chosen.len();
        let context = (0..variables)
            .map(|at| {
                let token = |&flow: &usize| flows.attributes[flow * variables + at];
                let tokens: Vec<u32> = chosen.iter().map(token).collect();
                let weights: Vec<f32> = match &mut dropout {
                    Some(_) if self.ignored[at] => vec![0.0; chosen.len()],
                    Some(stream) if !self.certain[at] => {
                        kept(stream, chosen.len(), VARIABLE_DROPOUT)
                    }
                    _ => Vec::new(),
                };
                self.context[at].rows(tokens, weights)
            })
            .collect();
        let planned: Vec<f64> = chosen
            .iter()
            .map(|&flow| {
                let last = flows.range(flow).end - 1;
                let planned = f64::from(flows.since_us[last]);
                let Some(stream) = &mut dropout else { return planned };
                match stream.uniform() < HINTED {
                    true => planned * (HINT_DEVIATION * f64::from(stream.normal())).exp(),
                    false => planned,
                }
            })
            .collect();
        let rows = steps * count;
        let mut previous = vec![(vec![0_u32; rows], vec![0.0_f32; rows]); heads];
        let mut targets = vec![vec![0_u32; rows]; heads];
        let mut weights = vec![vec![0.0_f32; rows]; heads];
        let mut counters = vec![vec![0_u32; rows]; 3];
        let mut there = vec![0.0_f32; rows];
        let mut records = 0;
        for (column, (&flow, planned)) in chosen.iter().zip(planned).enumerate() {
            let range = flows.range(flow);
            let length = range.len();
            for step in 0..steps.min(length.saturating_sub(from)) {
                let (row, index) = (step * count + column, from + step);
                let record = range.start + index;
                records += 1;
                there[row] = 1.0;
                for head in 0..heads {
                    let size = self.sizes[head] as u32;
                    let before = match index {
                        0 => size,
                        _ => flows.records[(record - 1) * heads + head],
                    };
                    previous[head].0[row] = before;
                    previous[head].1[row] = 1.0;
                    targets[head][row] = flows.records[record * heads + head];
                    // A first record has no gap.
                    weights[head][row] = f32::from(index > 0 || head + 1 < heads);
                }
                let elapsed = flows.since_us[record - usize::from(index > 0)];
                let left = f64::from((planned as f32 - elapsed).max(0.0));
                let gaps = (length - index.max(1)) as u32;
                counters[0][row] = count_bucket((length - index) as u32) as u32;
                counters[1][row] = count_bucket(index as u32) as u32;
                counters[2][row] = budget_bucket(left, gaps) as u32;
            }
        }
        let mut counters = counters.into_iter().map(|ids| Ids::weighted(ids, there.clone()));
        let mut next = || counters.next().unwrap_or_else(|| Ids::new(Vec::new()));
        Batch {
            steps,
            flows: count,
            context,
            previous: previous.into_iter().map(|(ids, w)| Ids::weighted(ids, w)).collect(),
            left: next(),
            so_far: next(),
            budget: next(),
            targets,
            weights,
            records,
        }
    }

    /// Up to what the heads add to: `[rows, heads E]`.
    fn forward(
        &self,
        batch: &Batch,
        begin: Option<&(Tensor, Tensor)>,
        dropout: Option<&mut Stream>,
    ) -> Result<Pass> {
        let (ops, device) = (self.ops, &self.device);
        let Widths { context, input, hidden, head } = self.widths;
        let (steps, flows) = (batch.steps, batch.flows);
        let rows = steps * flows;
        let all_heads = self.sizes.len() * head;
        let zeros = |rows, columns| Tensor::zeros((rows, columns), DType::F32, device);
        let plain = zeros(flows, context)?;
        for (table, rows) in self.context.iter().zip(&batch.context) {
            table.add_to(ops, &plain, rows)?;
        }
        let [first, first_bias, second, second_bias] = &self.mix;
        let rectified = plain.relu()?;
        let mixed = ops.matmul(&rectified, &first.value)?;
        ops.bias_relu(&mixed, &first_bias.value)?;
        let all = ops.matmul(&mixed, &second.value)?;
        ops.add_repeated(&all, &second_bias.value)?;
        let all = (all + &plain)?;

        let x = zeros(rows, input)?;
        for (table, ids) in self.input.iter().zip(&batch.previous) {
            ops.look_up(&x, &table.value, ids)?;
        }
        for (table, ids) in self.counters.iter().zip([&batch.left, &batch.so_far, &batch.budget]) {
            ops.look_up(&x, &table.value, ids)?;
        }
        let [to_input, input_bias] = &self.context_input;
        let of_context = ops.matmul(&all, &to_input.value)?;
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
        let mask = match dropout {
            Some(stream) => {
                let mask = kept(stream, rows * hidden, HIDDEN_DROPOUT);
                Some(Tensor::from_vec(mask, (rows, hidden), device)?)
            }
            None => None,
        };
        let dropped = match &mask {
            Some(mask) => (&states * mask)?,
            None => states,
        };
        let [from_hidden, from_context, head_bias] = &self.heads;
        let heads = ops.matmul(&dropped, &from_hidden.value)?;
        let of_context = ops.matmul(&all, &from_context.value)?;
        ops.add_repeated(&of_context, &head_bias.value)?;
        ops.add_repeated(&heads.reshape((steps, flows, all_heads))?, &of_context)?;
        ops.look_up(&heads, &self.head_counters[0].value, &batch.left)?;
        ops.look_up(&heads, &self.head_counters[1].value, &batch.budget)?;
        Ok(Pass { tape, input: x, dropped, mask, plain, rectified, mixed, context: all, heads })
    }

    /// What a head's logits are made from: `[rows, E]` after the ReLU.
    fn head_input(&self, at: usize, pass: &Pass, earlier: &[Ids]) -> Result<Tensor> {
        let width = self.widths.head;
        let own = pass.heads.narrow(1, at * width, width)?.force_contiguous()?;
        for (table, ids) in self.earlier[at].iter().zip(earlier) {
            self.ops.look_up(&own, &table.value, ids)?;
        }
        self.ops.bias_relu(&own, &self.no_bias)?;
        Ok(own)
    }

    fn logits(&self, at: usize, input: &Tensor) -> Result<Tensor> {
        let [weight, bias] = &self.out[at];
        let logits = self.ops.matmul(input, &weight.value)?;
        self.ops.add_repeated(&logits, &bias.value)?;
        Ok(logits)
    }

    /// The heads' losses, summed over records, each on its own; in training the gradients
    /// of their sum, times `scale`, too.
    fn losses(
        &self,
        batch: &Batch,
        begin: Option<&(Tensor, Tensor)>,
        mut training: Option<(&mut Stream, f64)>,
    ) -> Result<(Vec<f64>, (Tensor, Tensor))> {
        let ops = self.ops;
        let pass =
            self.forward(batch, begin, training.as_mut().map(|(stream, _)| &mut **stream))?;
        let end = pass.tape.end()?;
        let mut losses = Vec::with_capacity(self.sizes.len());
        let mut gradients = Vec::with_capacity(self.sizes.len());
        let targets =
            |head: usize| Ids::weighted(batch.targets[head].clone(), batch.weights[head].clone());
        let wanted: Vec<Ids> = (0..self.sizes.len()).map(targets).collect();
        let tokens = |head: &Vec<u32>| Ids::new(head.clone());
        let earlier: Vec<Ids> = batch.targets.iter().map(tokens).collect();
        for (at, wanted) in wanted.iter().enumerate() {
            let input = self.head_input(at, &pass, &earlier)?;
            let (scale, mask) = match &mut training {
                Some((stream, scale)) => {
                    let mask = kept(stream, input.elem_count(), HIDDEN_DROPOUT);
                    (*scale, Some(Tensor::from_vec(mask, input.shape(), &self.device)?))
                }
                None => (0.0, None),
            };
            let Some(mask) = mask else {
                let logits = self.logits(at, &input)?;
                losses.push(ops.cross_entropy(&logits, wanted, scale)?);
                continue;
            };
            let dropped = (&input * &mask)?;
            let logits = self.logits(at, &dropped)?;
            losses.push(ops.cross_entropy(&logits, wanted, scale)?);
            let [weight, bias] = &self.out[at];
            ops.matmul_into(&weight.gradient, &dropped.t()?, &logits)?;
            ops.sum_rows_into(&bias.gradient, &logits)?;
            let below = (ops.matmul(&logits, &weight.value.t()?)? * mask)?;
            ops.mask(&below, &input)?;
            for (table, ids) in self.earlier[at].iter().zip(&earlier) {
                table.gradient.zero_set()?;
                ops.look_up_backward(&table.gradient, &below, ids)?;
            }
            gradients.push(below);
        }
        if training.is_some() {
            let gradient = Tensor::cat(&gradients, 1)?.contiguous()?;
            self.backward(batch, &pass, &gradient)?;
        }
        Ok((losses, end))
    }

    /// Writes the gradients of all that is below the heads; `gradient` is that of
    /// [`Pass::heads`].
    fn backward(&self, batch: &Batch, pass: &Pass, gradient: &Tensor) -> Result<()> {
        let ops = self.ops;
        let (steps, flows) = (batch.steps, batch.flows);
        let scatter = |table: &Parameter, gradient: &Tensor, ids: &Ids| -> Result<()> {
            table.gradient.zero_set()?;
            ops.look_up_backward(&table.gradient, gradient, ids)
        };
        let over_steps = |x: &Tensor| -> Result<Tensor> {
            let columns = x.dim(1)?;
            let sum = Tensor::zeros((flows, columns), DType::F32, &self.device)?;
            ops.sum_rows_into(&sum, &x.reshape((steps, flows, columns))?)?;
            Ok(sum)
        };
        let [from_hidden, from_context, head_bias] = &self.heads;
        scatter(&self.head_counters[0], gradient, &batch.left)?;
        scatter(&self.head_counters[1], gradient, &batch.budget)?;
        ops.matmul_into(&from_hidden.gradient, &pass.dropped.t()?, gradient)?;
        let of_heads = over_steps(gradient)?;
        ops.matmul_into(&from_context.gradient, &pass.context.t()?, &of_heads)?;
        ops.sum_rows_into(&head_bias.gradient, &of_heads)?;
        let upstream = ops.matmul(gradient, &from_hidden.value.t()?)?;
        let upstream = match &pass.mask {
            Some(mask) => (upstream * mask)?,
            None => upstream,
        };
        ops.lstm_backward(&pass.tape, &upstream, &self.hidden.value)?;
        let gates = pass.tape.gates()?;
        ops.matmul_into(&self.hidden.gradient, &pass.tape.hidden(0)?.t()?, &gates)?;
        let [weight, bias] = &self.gates;
        ops.matmul_into(&weight.gradient, &pass.input.t()?, &gates)?;
        ops.sum_rows_into(&bias.gradient, &gates)?;
        let x = ops.matmul(&gates, &weight.value.t()?)?;
        for (table, ids) in self.input.iter().zip(&batch.previous) {
            scatter(table, &x, ids)?;
        }
        for (table, ids) in self.counters.iter().zip([&batch.left, &batch.so_far, &batch.budget]) {
            scatter(table, &x, ids)?;
        }
        let of_input = over_steps(&x)?;
        let [to_input, input_bias] = &self.context_input;
        ops.matmul_into(&to_input.gradient, &pass.context.t()?, &of_input)?;
        ops.sum_rows_into(&input_bias.gradient, &of_input)?;
        let all = (ops.matmul(&of_heads, &from_context.value.t()?)?
            + ops.matmul(&of_input, &to_input.value.t()?)?)?;
        let [first, first_bias, second, second_bias] = &self.mix;
        ops.matmul_into(&second.gradient, &pass.mixed.t()?, &all)?;
        ops.sum_rows_into(&second_bias.gradient, &all)?;
        let below = ops.matmul(&all, &second.value.t()?)?;
        ops.mask(&below, &pass.mixed)?;
        ops.matmul_into(&first.gradient, &pass.rectified.t()?, &below)?;
        ops.sum_rows_into(&first_bias.gradient, &below)?;
        let below = ops.matmul(&below, &first.value.t()?)?;
        ops.mask(&below, &pass.plain)?;
        let all = (all + below)?;
        let mut tables = self.context.iter().zip(&batch.context);
        tables.try_for_each(|(table, rows)| table.backward(ops, &all, rows))
    }

    /// One visit of some flows: a step of Adam a window. The summed loss, and of how many
    /// records it is.
    pub(crate) fn visit(
        &self,
        flows: &Flows,
        chosen: &[usize],
        adam: &mut Adam,
        rate: f64,
        stream: &mut Stream,
    ) -> Result<(f64, u64)> {
        let longest = chosen.iter().map(|&flow| flows.range(flow).len()).max().unwrap_or(0);
        let (mut from, mut state) = (0, None);
        let (mut loss, mut records) = (0.0, 0);
        while from < longest {
            let steps = (longest - from).min(WINDOW);
            let batch = self.batch(flows, chosen, (from, steps), Some(&mut *stream));
            let scale = 1.0 / batch.records.max(1) as f64;
            let (losses, end) = self.losses(&batch, state.as_ref(), Some((&mut *stream, scale)))?;
            loss += losses.iter().sum::<f64>();
            records += batch.records as u64;
            let mut square = 0.0_f64;
            for parameter in self.parameters() {
                square += f64::from(parameter.gradient_square()?.to_scalar::<f32>()?);
            }
            let length = square.sqrt();
            adam.set(rate, if length > CLIP { CLIP / length } else { 1.0 });
            adam.step(self.ops, self.parameters())?;
            state = Some(end);
            from += steps;
        }
        Ok((loss, records))
    }

    /// The loss a record of some flows, and its gradients.
    #[cfg(test)]
    pub(crate) fn loss_and_gradients(
        &self,
        flows: &Flows,
        chosen: &[usize],
        stream: &mut Stream,
    ) -> Result<f64> {
        let batch = self.batch(flows, chosen, (0, WINDOW), Some(&mut *stream));
        let scale = 1.0 / batch.records as f64;
        let (losses, _) = self.losses(&batch, None, Some((stream, scale)))?;
        Ok(losses.iter().sum::<f64>() * scale)
    }

    /// The mean loss a record, head by head. A flow counts by the root of its length: else
    /// a long one, of which there are few and no two alike, would decide alone.
    pub(crate) fn evaluate(&self, flows: &Flows, batches: &[Vec<usize>]) -> Result<Vec<f64>> {
        let mut sums = vec![0.0; self.sizes.len()];
        let mut all = 0.0;
        for chosen in batches {
            let weights: Vec<f32> = chosen
                .iter()
                .map(|&flow| (flows.range(flow).len() as f32).sqrt().recip())
                .collect();
            self.windows(flows, chosen, |mut batch, begin| {
                for of_head in &mut batch.weights {
                    for row in of_head.chunks_exact_mut(weights.len()) {
                        row.iter_mut().zip(&weights).for_each(|(to, weight)| *to *= weight);
                    }
                }
                all += batch.weights[0].iter().map(|&weight| f64::from(weight)).sum::<f64>();
                let (losses, end) = self.losses(&batch, begin, None)?;
                sums.iter_mut().zip(losses).for_each(|(sum, loss)| *sum += loss);
                Ok(end)
            })?;
        }
        sums.iter_mut().for_each(|sum| *sum /= all.max(f64::MIN_POSITIVE));
        Ok(sums)
    }

    fn windows(
        &self,
        flows: &Flows,
        chosen: &[usize],
        mut work: impl FnMut(Batch, Option<&(Tensor, Tensor)>) -> Result<(Tensor, Tensor)>,
    ) -> Result<()> {
        let longest = chosen.iter().map(|&flow| flows.range(flow).len()).max().unwrap_or(0);
        let (mut from, mut state) = (0, None);
        while from < longest {
            let steps = (longest - from).min(WINDOW);
            let batch = self.batch(flows, chosen, (from, steps), None);
            state = Some(work(batch, state.as_ref())?);
            from += steps;
        }
        Ok(())
    }

    /// Moves the heads' biases such that the mean of what is predicted for the records of
    /// these flows, given what was before, is what they have.
    pub(crate) fn calibrate(&self, flows: &Flows, batches: &[Vec<usize>]) -> Result<()> {
        const ROUNDS: usize = 4;
        let heads = self.sizes.len();
        // A head's input does not depend on any bias.
        let mut inputs: Vec<Vec<(Tensor, Vec<u32>)>> = vec![Vec::new(); heads];
        for chosen in batches {
            self.windows(flows, chosen, |batch, begin| {
                let pass = self.forward(&batch, begin, None)?;
                let targets = |head: usize| Ids::new(batch.targets[head].clone());
                let earlier: Vec<Ids> = (0..heads).map(targets).collect();
                for (head, inputs) in inputs.iter_mut().enumerate() {
                    let rows = (0_u32..).zip(&batch.weights[head]).filter(|(_, w)| **w > 0.0);
                    let rows: Vec<u32> = rows.map(|(row, _)| row).collect();
                    if rows.is_empty() {
                        continue;
                    }
                    let tokens = rows.iter().map(|&row| batch.targets[head][row as usize]);
                    let tokens = tokens.collect();
                    let index = Tensor::from_slice(&rows, rows.len(), &self.device)?;
                    let input = self.head_input(head, &pass, &earlier)?;
                    inputs.push((input.index_select(&index, 0)?, tokens));
                }
                pass.tape.end()
            })?;
        }
        for (head, inputs) in inputs.iter().enumerate() {
            let size = self.sizes[head];
            let mut wanted = vec![0.05_f64; size];
            let mut rows = 0;
            for (_, tokens) in inputs {
                rows += tokens.len();
                tokens.iter().for_each(|&token| wanted[token as usize] += 1.0);
            }
            if rows == 0 {
                continue;
            }
            let all: f64 = wanted.iter().sum();
            let [_, bias] = &self.out[head];
            let mut values = bias.to_vec()?;
            for _ in 0..ROUNDS {
                let mut mean = vec![0.0; size];
                for (input, _) in inputs {
                    add_probabilities(&self.logits(head, input)?, &mut mean)?;
                }
                for ((value, wanted), mean) in values.iter_mut().zip(&wanted).zip(&mean) {
                    *value += correction(wanted / all, mean / rows as f64);
                }
                bias.set(&values)?;
            }
        }
        Ok(())
    }

    pub(crate) fn values(&self) -> Result<Vec<Vec<f32>>> {
        self.parameters().into_iter().map(Parameter::to_vec).collect()
    }

    pub(crate) fn set(&self, values: &[Vec<f32>]) -> Result<()> {
        self.parameters().into_iter().zip(values).try_for_each(|(to, from)| to.set(from))
    }

    /// With everything folded that goes into the gates through a matrix.
    pub(crate) fn export(&self) -> Result<RecordWeights> {
        let all = |parameters: &[&Parameter]| -> Result<Vec<Vec<f32>>> {
            parameters.iter().map(|parameter| parameter.to_vec()).collect()
        };
        let [gates, gates_bias] = &self.gates;
        let folded = |table: &Parameter| -> Result<Vec<f32>> {
            self.ops.matmul(&table.value, &gates.value)?.flatten_all()?.to_vec1()
        };
        let [to_input, input_bias] = &self.context_input;
        let bias = self.ops.matmul(&input_bias.value.unsqueeze(0)?, &gates.value)?;
        let bias = (bias.flatten_all()? + &gates_bias.value)?;
        let [from_hidden, from_context, head_bias] = &self.heads;
        let [first, first_bias, second, second_bias] = &self.mix;
        Ok(RecordWeights {
            context: self.context.iter().map(Table::whole).collect::<Result<_>>()?,
            mix: all(&[first, first_bias, second, second_bias])?,
            context_gates: vec![folded(to_input)?, bias.to_vec1()?],
            context_heads: all(&[from_context, head_bias])?,
            input: self.input.iter().chain(&self.counters).map(folded).collect::<Result<_>>()?,
            hidden: self.hidden.to_vec()?,
            heads: from_hidden.to_vec()?,
            head_counters: all(&[&self.head_counters[0], &self.head_counters[1]])?,
            earlier: all(&self.earlier.iter().flatten().collect::<Vec<_>>())?,
            out: all(&self.out.iter().flatten().collect::<Vec<_>>())?,
        })
    }
}

/// Groups flows of like lengths: at most so many flows, and records with padding, a batch.
pub(crate) fn batches(
    flows: &Flows,
    chosen: &[usize],
    (most_flows, most_records): (usize, usize),
    stream: &mut Stream,
) -> Vec<Vec<usize>> {
    let mut keyed: Vec<(f64, usize)> = chosen
        .iter()
        .map(|&flow| {
            let length = flows.range(flow).len() as f64;
            (length * (0.15 * f64::from(stream.normal())).exp(), flow)
        })
        .collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut all: Vec<Vec<usize>> = Vec::new();
    let (mut batch, mut longest) = (Vec::new(), 0);
    for (_, flow) in keyed {
        let length = flows.range(flow).len().min(WINDOW);
        let with = longest.max(length);
        if !batch.is_empty()
            && (batch.len() >= most_flows || with * (batch.len() + 1) > most_records)
        {
            all.push(std::mem::take(&mut batch));
            longest = 0;
        }
        longest = longest.max(length);
        batch.push(flow);
    }
    if !batch.is_empty() {
        all.push(batch);
    }
    stream.shuffle(&mut all);
    all
}
