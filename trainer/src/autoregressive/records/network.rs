//! The network of a flow's records: its context and its sequence, learned in shards.

use candle_core::{DType, Device, Error, Result, Tensor};
use ns_model_format::random::{Purpose, Stream};

use super::batch::{Batch, Window, shards, windows};
use super::context::{Context, Pass};
use super::sequence::{Outcome, Sequence, State};
use crate::autoregressive::chain::Chain;
use crate::autoregressive::conditional::{add_probabilities, correction};
use crate::autoregressive::table::{Rows, Table};
use crate::autoregressive::tokens::Flows;
use crate::model::ops::Ops;
use crate::model::parameter::{Adam, Initializer, Parameter, norm};

/// Longest gradient.
const CLIP: f64 = 1.0;
/// Decay a step of the moving average that is kept.
const DECAY: f64 = 0.99;

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
    context: Context,
    sequence: Sequence,
    /// Where the gradients of all shards but one go.
    twins: Vec<Sequence>,
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

/// What learning from a window leaves beside gradients.
struct Learned {
    /// Summed.
    loss: f64,
    records: usize,
    /// Of all gradients together.
    norm: f64,
}

/// A shard of a batch: some of its flows, from one on.
struct Shard<'a> {
    first: usize,
    chosen: &'a [usize],
    window: Window,
    /// What its records go on from.
    begin: Option<State>,
    sequence: &'a Sequence,
    stream: Stream,
}

impl RecordNetwork {
    pub(crate) fn new(
        chain: &Chain,
        widths: Widths,
        seed: u64,
        device: &Device,
    ) -> Result<RecordNetwork> {
        let mut init = Initializer::new(seed, DType::F32, device, false);
        Ok(RecordNetwork {
            context: Context::new(chain, widths.context, &mut init, device)?,
            sequence: Sequence::new(chain, widths, &mut init, device)?,
            twins: Vec::new(),
            ops: Ops::on(device),
            device: device.clone(),
        })
    }

    pub(crate) fn parameters(&self) -> Vec<&Parameter> {
        self.context.parameters().chain(self.sequence.parameters()).collect()
    }

    /// One visit of some flows: a step of Adam, at `rate`, and of the moving averages a window.
    /// The summed loss, and of how many records it is.
    pub(crate) fn visit(
        &mut self,
        flows: &Flows,
        chosen: &[usize],
        (adam, averages): (&mut Adam, &[Tensor]),
        rate: f64,
        stream: &mut Stream,
    ) -> Result<(f64, u64)> {
        let (mut loss, mut records) = (0.0, 0);
        let mut states = Vec::new();
        for window in windows(flows, chosen) {
            let learned = self.learn(flows, chosen, window, &mut states, stream)?;
            loss += learned.loss;
            records += learned.records as u64;
            adam.set(rate, if learned.norm > CLIP { CLIP / learned.norm } else { 1.0 });
            self.step(adam.begin(), averages)?;
        }
        Ok((loss, records))
    }

    /// Moves every parameter, and its average.
    fn step(&self, adam: Adam, averages: &[Tensor]) -> Result<()> {
        let ops = self.ops;
        let steps = f64::from(adam.steps());
        let kept = DECAY.min((1.0 + steps) / (10.0 + steps));
        let all = self.parameters().into_iter().zip(averages).collect();
        let moved = ops.each(all, |(parameter, average): (&Parameter, &Tensor)| {
            adam.apply(ops, parameter)?;
            ops.average(average, &parameter.value, kept)
        });
        moved.into_iter().collect()
    }

    /// Writes the gradients of the mean loss a record of a window; states of shards are handed
    /// on from window to window.
    ///
    /// Shards go forward and backward at once, each with random numbers and gradients of its
    /// own; these are added in the order of the shards.
    fn learn(
        &mut self,
        flows: &Flows,
        chosen: &[usize],
        (from, steps): Window,
        states: &mut Vec<Option<State>>,
        stream: &mut Stream,
    ) -> Result<Learned> {
        let lengths: Vec<usize> = chosen.iter().map(|&flow| flows.range(flow).len()).collect();
        // One is enough for a GPU to do.
        let shards = match self.ops.on_cpu() {
            true => shards(&lengths),
            false => std::iter::once(0..chosen.len()).collect(),
        };
        states.resize_with(shards.len(), || None);
        while self.twins.len() + 1 < shards.len() {
            self.twins.push(self.sequence.twin()?);
        }
        let records: usize = lengths.iter().map(|n| n.saturating_sub(from).min(steps)).sum();
        let scale = 1.0 / records.max(1) as f64;
        let context = self.context.forward(flows, chosen, Some(&mut *stream))?;
        let seed = stream.next_u64();
        let mut left = Vec::with_capacity(shards.len());
        let mut work = Vec::with_capacity(shards.len());
        let mut sequences = std::iter::once(&self.sequence).chain(&self.twins);
        for (number, shard) in shards.into_iter().enumerate() {
            let longest = lengths[shard.clone()].iter().copied().max().unwrap_or(0);
            // Those whose flows are over have no part in it, and take no gradients' place.
            if longest <= from {
                continue;
            }
            let Some(sequence) = sequences.next() else {
                candle_core::bail!("more shards than places for their gradients")
            };
            left.push(number);
            work.push(Shard {
                first: shard.start,
                chosen: &chosen[shard],
                window: (from, (longest - from).min(steps)),
                begin: states[number].take(),
                sequence,
                stream: Stream::new(seed, Purpose::Training, number as u64),
            });
        }
        let outcomes = self.ops.each(work, |shard| {
            let Shard { first, chosen, window, begin, sequence, mut stream } = shard;
            let batch = Batch::new(flows, chosen, window, &sequence.sizes, Some(&mut stream));
            let of_flows = context.rows.narrow(0, first, chosen.len())?;
            let outcome = sequence.learn(&batch, &of_flows, begin.as_ref(), (&mut stream, scale));
            outcome.map(|outcome| (first, outcome))
        });
        let of_context = context.rows.zeros_like()?;
        let mut loss = 0.0;
        for (&number, outcome) in left.iter().zip(outcomes) {
            let (first, Outcome { losses, end, of_context: gradient }) = outcome?;
            loss += losses.iter().sum::<f64>();
            states[number] = Some(end);
            of_context.slice_set(&gradient, 0, first)?;
        }
        let norm = self.gather(&context, &of_context, left.len())?;
        Ok(Learned { loss, records, norm })
    }

    /// Adds the gradients of so many shards, and writes those of the contexts, given that of
    /// their rows. The norm of all.
    fn gather(&self, pass: &Pass, of_rows: &Tensor, shards: usize) -> Result<f64> {
        enum Part<'a> {
            Whole(&'a Parameter),
            Table(&'a Table, &'a Rows),
            Shards(usize, &'a Parameter),
        }
        let ops = self.ops;
        let of_tables = self.context.backward(pass, of_rows)?;
        let twins = &self.twins[..shards.saturating_sub(1)];
        let twins: Vec<Vec<_>> = twins.iter().map(|twin| twin.parameters().collect()).collect();
        let tables = self.context.tables.iter().zip(&pass.looked_up);
        let tables = tables.map(|(table, rows)| Part::Table(table, rows));
        let whole = self.context.mix.iter().map(Part::Whole);
        let sequence = self.sequence.parameters().enumerate();
        let parts = tables.chain(whole).chain(sequence.map(|(at, own)| Part::Shards(at, own)));
        norm(ops.each(parts.collect(), |part| match part {
            Part::Whole(parameter) => ops.square(&parameter.gradient),
            Part::Table(table, rows) => {
                table.backward(ops, &of_tables, rows)?;
                let squares = table.parameters().map(|of| ops.square(&of.gradient));
                Tensor::stack(&squares.collect::<Result<Vec<_>>>()?, 0)?.sum_all()
            }
            Part::Shards(at, own) => {
                for twin in &twins {
                    let twin: &Parameter = twin[at];
                    ops.add_repeated(&own.gradient, &twin.gradient)?;
                }
                ops.square(&own.gradient)
            }
        }))
    }

    /// The last window of some flows, and the states that it goes on from.
    #[cfg(test)]
    pub(crate) fn last_window(
        &mut self,
        flows: &Flows,
        chosen: &[usize],
        stream: &mut Stream,
    ) -> Result<(Window, Vec<Option<State>>)> {
        let mut all: Vec<_> = windows(flows, chosen).collect();
        let (last, mut states) = (all.pop().unwrap_or_default(), Vec::new());
        for window in all {
            self.learn(flows, chosen, window, &mut states, stream)?;
        }
        Ok((last, states))
    }

    /// The loss a record of that window, and its gradients.
    #[cfg(test)]
    pub(crate) fn loss_and_gradients(
        &mut self,
        flows: &Flows,
        chosen: &[usize],
        (window, mut states): (Window, Vec<Option<State>>),
        stream: &mut Stream,
    ) -> Result<f64> {
        let learned = self.learn(flows, chosen, window, &mut states, stream)?;
        Ok(learned.loss / learned.records as f64)
    }

    /// The mean loss a record, head by head. A flow counts by the root of its length: else
    /// a long one, of which there are few and no two alike, would decide alone.
    pub(crate) fn evaluate(&self, flows: &Flows, batches: &[Vec<usize>]) -> Result<Vec<f64>> {
        let heads = self.sequence.sizes.len();
        let of_batches = self.ops.each(batches.iter().collect(), |chosen: &Vec<usize>| {
            let weight = |&flow: &usize| (flows.range(flow).len() as f32).sqrt().recip();
            let weights: Vec<f32> = chosen.iter().map(weight).collect();
            let (mut sums, mut all) = (vec![0.0; heads], 0.0);
            self.in_windows(flows, chosen, |mut batch, context, begin| {
                for of_head in &mut batch.weights {
                    for row in of_head.chunks_exact_mut(weights.len()) {
                        row.iter_mut().zip(&weights).for_each(|(to, weight)| *to *= weight);
                    }
                }
                all += batch.weights[0].iter().map(|&weight| f64::from(weight)).sum::<f64>();
                let (losses, end) = self.sequence.losses(&batch, context, begin)?;
                sums.iter_mut().zip(losses).for_each(|(sum, loss)| *sum += loss);
                Ok(end)
            })?;
            Ok::<_, Error>((sums, all))
        });
        let (mut sums, mut all) = (vec![0.0; heads], 0.0);
        for of_batch in of_batches {
            let (losses, weight) = of_batch?;
            sums.iter_mut().zip(losses).for_each(|(sum, loss)| *sum += loss);
            all += weight;
        }
        sums.iter_mut().for_each(|sum| *sum /= all.max(f64::MIN_POSITIVE));
        Ok(sums)
    }

    /// Does `work` with each window of some flows, given their contexts; it returns what the
    /// next one goes on from.
    fn in_windows(
        &self,
        flows: &Flows,
        chosen: &[usize],
        mut work: impl FnMut(Batch, &Tensor, Option<&State>) -> Result<State>,
    ) -> Result<()> {
        let context = self.context.forward(flows, chosen, None)?;
        let mut state = None;
        for window in windows(flows, chosen) {
            let batch = Batch::new(flows, chosen, window, &self.sequence.sizes, None);
            state = Some(work(batch, &context.rows, state.as_ref())?);
        }
        Ok(())
    }

    /// Moves the heads' biases such that the mean of what is predicted for the records of
    /// these flows, given what was before, is what they have.
    pub(crate) fn calibrate(&self, flows: &Flows, batches: &[Vec<usize>]) -> Result<()> {
        let heads = self.sequence.sizes.len();
        // A head's input does not depend on any bias.
        let inputs = self.ops.each(batches.iter().collect(), |chosen: &Vec<usize>| {
            let mut inputs = Vec::new();
            self.in_windows(flows, chosen, |batch, context, begin| {
                let pass = self.sequence.forward(&batch, context, begin, None)?;
                let given = batch.given();
                for head in 0..heads {
                    let rows = (0_u32..).zip(&batch.weights[head]).filter(|(_, w)| **w > 0.0);
                    let rows: Vec<u32> = rows.map(|(row, _)| row).collect();
                    if rows.is_empty() {
                        continue;
                    }
                    let tokens = rows.iter().map(|&row| batch.targets[head][row as usize]);
                    let tokens: Vec<u32> = tokens.collect();
                    let index = Tensor::from_slice(&rows, rows.len(), &self.device)?;
                    let input = self.sequence.head_input(head, &pass, &given)?;
                    inputs.push((head, input.index_select(&index, 0)?, tokens));
                }
                pass.tape.end()
            })?;
            Ok(inputs)
        });
        let inputs: Vec<(usize, Tensor, Vec<u32>)> =
            inputs.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        let calibrated = self.ops.each((0..heads).collect(), |head| {
            let own = inputs.iter().filter(|(of, ..)| *of == head);
            self.calibrate_head(
                head,
                &own.map(|(_, x, tokens)| (x, &tokens[..])).collect::<Vec<_>>(),
            )
        });
        calibrated.into_iter().collect()
    }

    fn calibrate_head(&self, head: usize, inputs: &[(&Tensor, &[u32])]) -> Result<()> {
        const ROUNDS: usize = 4;
        let size = self.sequence.sizes[head];
        let mut wanted = vec![0.05_f64; size];
        let mut rows = 0;
        for (_, tokens) in inputs {
            rows += tokens.len();
            tokens.iter().for_each(|&token| wanted[token as usize] += 1.0);
        }
        if rows == 0 {
            return Ok(());
        }
        let all: f64 = wanted.iter().sum();
        let [_, bias] = &self.sequence.out[head];
        let mut values = bias.to_vec()?;
        for _ in 0..ROUNDS {
            let mut mean = vec![0.0; size];
            for (input, _) in inputs {
                add_probabilities(&self.sequence.logits(head, input)?, &mut mean)?;
            }
            for ((value, wanted), mean) in values.iter_mut().zip(&wanted).zip(&mean) {
                *value += correction(wanted / all, mean / rows as f64);
            }
            bias.set(&values)?;
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
        let of = &self.sequence;
        let [gates, gates_bias] = &of.gates;
        let folded = |table: &Parameter| -> Result<Vec<f32>> {
            self.ops.matmul(&table.value, &gates.value)?.flatten_all()?.to_vec1()
        };
        let [to_input, input_bias] = &of.context_input;
        let bias = self.ops.matmul(&input_bias.value.unsqueeze(0)?, &gates.value)?;
        let bias = (bias.flatten_all()? + &gates_bias.value)?;
        let [from_hidden, from_context, head_bias] = &of.heads;
        Ok(RecordWeights {
            context: self.context.tables.iter().map(Table::whole).collect::<Result<_>>()?,
            mix: all(&self.context.mix.each_ref())?,
            context_gates: vec![folded(to_input)?, bias.to_vec1()?],
            context_heads: all(&[from_context, head_bias])?,
            input: of.input.iter().chain(&of.counters).map(folded).collect::<Result<_>>()?,
            hidden: of.hidden.to_vec()?,
            heads: from_hidden.to_vec()?,
            head_counters: all(&of.head_counters.each_ref())?,
            earlier: all(&of.earlier.iter().flatten().collect::<Vec<_>>())?,
            out: all(&of.out.iter().flatten().collect::<Vec<_>>())?,
        })
    }
}
