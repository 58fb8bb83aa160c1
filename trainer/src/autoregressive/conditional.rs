//! One variable of a flow, given those before it.
//!
//! Rows of the parents' tables are added up; `h = relu(sum + b)`,
//! `h + relu(h L + l)`, and logits. Every variable has a network of its own, so each ends
//! when its own validation loss is lowest, and all can be trained at once. To the logits
//! comes what flows of the same kind had ([`super::evidence`]).

use candle_core::{DType, Device, Result, Tensor};
use ns_model_format::autoregressive::{UNSEEN, Variable};
use ns_model_format::random::{Purpose, Stream};

use super::chain::{Chain, is_certain};
use super::evidence::{Context, Evidence};
use super::table::{Output, Rows, Table};
use super::tokens::Flows;
use crate::model::ops::Ops;
use crate::model::ops::tokens::Ids;
use crate::model::parameter::{Adam, Initializer, Parameter};

const LEARNING_RATE: f64 = 5e-4;
const WEIGHT_DECAY: f64 = 0.3;
/// Inverted dropout of whole parents, and of hidden values.
const DROPOUT: f32 = 0.1;
const HIDDEN_DROPOUT: f32 = 0.1;
/// Steps between looks at the validation loss, at least.
const LOOK_EVERY: usize = 40;
/// Looks without a better one that end training.
const PATIENCE: usize = 10;
const MOST_STEPS: usize = 6000;
/// Rows of which the loss is computed at once.
const EVALUATED: usize = 1024;
/// The logit of what is not drawn, far enough from what counts as drawn for any input.
const NEVER: f32 = 2.0 * UNSEEN;
/// Rounds of calibration.
const ROUNDS: usize = 4;

struct Parent {
    /// Its place in the chain.
    at: usize,
    /// It is never left out: what is possible depends on it.
    certain: bool,
    /// `[size + 1, D]`.
    table: Table,
}

/// The network of a variable; on the CPU, whatever trains the records': so small ones would only
/// wait for a GPU.
struct Network {
    parents: Vec<Parent>,
    bias: Parameter,
    hidden: Parameter,
    hidden_bias: Parameter,
    out: Output,
    out_bias: Parameter,
    units: usize,
    /// What flows of the same kind had.
    evidence: Option<Evidence>,
    ops: Ops,
}

/// What a network was trained to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConditionalWeights {
    /// A table a parent, `[size + 1, D]`.
    pub(crate) tables: Vec<Vec<f32>>,
    pub(crate) bias: Vec<f32>,
    /// `[D, D]`.
    pub(crate) hidden: Vec<f32>,
    pub(crate) hidden_bias: Vec<f32>,
    /// `[D, size]`.
    pub(crate) out: Vec<f32>,
    pub(crate) out_bias: Vec<f32>,
    /// What is added to the logits.
    pub(crate) evidence: Vec<Context>,
}

/// Which flows are trained on, and which are looked at to end in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) train: &'a [usize],
    pub(crate) validation: &'a [usize],
}

/// What a forward pass leaves for the backward one.
struct Pass {
    rows: Vec<Rows>,
    /// After the first ReLU.
    first: Tensor,
    /// The same with dropout.
    dropped: Tensor,
    /// What that is multiplied by, if there is dropout.
    mask: Option<Tensor>,
    second: Tensor,
    sum: Tensor,
    /// `[D, size]`.
    out: Tensor,
}

impl Network {
    fn new(
        (chain, at): (&Chain, usize),
        counts: &[f32],
        units: usize,
        seed: u64,
    ) -> Result<Network> {
        let variable = &chain.variables[at];
        let mut init = Initializer::new(seed, DType::F32, &Device::Cpu, false);
        let bound = 1.0 / (units as f64).sqrt();
        let mut parents = Vec::new();
        for &parent in &variable.parents {
            let of = &chain.variables[parent];
            let rows = (of.size, chain.shared(parent));
            let table = Table::new(&mut init, rows, units, [0.3, 0.3])?;
            parents.push(Parent { at: parent, certain: is_certain(of), table });
        }
        Ok(Network {
            parents,
            bias: init.constant(&[units], 0.0)?,
            hidden: init.uniform(&[units, units], bound)?,
            hidden_bias: init.uniform(&[units], bound)?,
            out: Output::new(&mut init, (variable.size, chain.shared(at)), units)?,
            out_bias: init.given(counts.iter().map(|count| (count + 0.1).ln()).collect())?,
            units,
            evidence: None,
            ops: Ops::on(&Device::Cpu),
        })
    }

    fn parameters(&self) -> Vec<&Parameter> {
        let tables = self.parents.iter().flat_map(|parent| parent.table.parameters());
        let rest = [&self.bias, &self.hidden, &self.hidden_bias, &self.out_bias];
        tables.chain(rest).chain(self.out.parameters()).collect()
    }

    /// Logits of some flows; `dropout` is drawn from in training. Flows that are `counted` by
    /// the evidence are left out of their own.
    fn forward(
        &self,
        flows: &Flows,
        width: usize,
        (rows, counted): (&[usize], bool),
        mut dropout: Option<&mut Stream>,
    ) -> Result<(Pass, Tensor)> {
        let ops = self.ops;
        let sum = Tensor::zeros((rows.len(), self.units), DType::F32, &Device::Cpu)?;
        let mut looked_up = Vec::with_capacity(self.parents.len());
        for parent in &self.parents {
            let tokens: Vec<u32> =
                rows.iter().map(|&row| flows.attributes[row * width + parent.at]).collect();
            let weights: Vec<f32> = match &mut dropout {
                Some(stream) if !parent.certain => kept(stream, rows.len(), DROPOUT),
                _ => Vec::new(),
            };
            let of_parent = parent.table.rows(tokens, weights);
            parent.table.add_to(ops, &sum, &of_parent)?;
            looked_up.push(of_parent);
        }
        ops.bias_relu(&sum, &self.bias.value)?;
        let first = sum;
        let (dropped, mask) = match dropout {
            Some(stream) => {
                let mask = kept(stream, rows.len() * self.units, HIDDEN_DROPOUT);
                let mask = Tensor::from_vec(mask, (rows.len(), self.units), &Device::Cpu)?;
                let dropped = first.force_contiguous()?;
                ops.multiply(&dropped, &mask)?;
                (dropped, Some(mask))
            }
            None => (first.clone(), None),
        };
        let second = ops.matmul(&dropped, &self.hidden.value)?;
        ops.bias_relu(&second, &self.hidden_bias.value)?;
        let sum = first.force_contiguous()?;
        ops.add_repeated(&sum, &second)?;
        let out = self.out.whole(ops)?;
        let logits = ops.matmul(&sum, &out)?;
        ops.add_repeated(&logits, &self.out_bias.value)?;
        if let Some(evidence) = &self.evidence {
            let (count, size) = logits.dims2()?;
            let mut added = vec![0.0; count * size];
            evidence.add_to(&mut added, flows, rows, counted)?;
            ops.add_repeated(&logits, &Tensor::from_vec(added, (count, size), &Device::Cpu)?)?;
        }
        Ok((Pass { rows: looked_up, first, dropped, mask, second, sum, out }, logits))
    }

    /// Writes every parameter's gradient; `gradient` is that of the logits.
    fn backward(&self, pass: &Pass, gradient: &Tensor) -> Result<()> {
        let ops = self.ops;
        self.out.backward(ops, &pass.sum, gradient)?;
        ops.sum_rows_into(&self.out_bias.gradient, gradient)?;
        let above = ops.matmul(gradient, &pass.out.t()?)?;
        let second = above.force_contiguous()?;
        ops.mask(&second, &pass.second)?;
        ops.matmul_into(&self.hidden.gradient, &pass.dropped.t()?, &second)?;
        ops.sum_rows_into(&self.hidden_bias.gradient, &second)?;
        let below = ops.matmul(&second, &self.hidden.value.t()?)?;
        if let Some(mask) = &pass.mask {
            ops.multiply(&below, mask)?;
        }
        ops.add_repeated(&below, &above)?;
        ops.mask(&below, &pass.first)?;
        ops.sum_rows_into(&self.bias.gradient, &below)?;
        let mut parents = self.parents.iter().zip(&pass.rows);
        parents.try_for_each(|(parent, rows)| parent.table.backward(ops, &below, rows))
    }

    /// Of all that is trained.
    fn values(&self) -> Result<Vec<Vec<f32>>> {
        let weights = self.evidence.iter().map(Evidence::weights);
        self.parameters().into_iter().map(Parameter::to_vec).chain(weights).collect()
    }

    fn set(&self, values: &[Vec<f32>]) -> Result<()> {
        let parameters = self.parameters();
        let (own, weights) = values.split_at(parameters.len().min(values.len()));
        parameters.into_iter().zip(own).try_for_each(|(to, from)| to.set(from))?;
        self.evidence.iter().zip(weights).try_for_each(|(to, from)| to.set(from))
    }

    /// With what tokens share added to their own, and the output's bias such that the mean
    /// of what is predicted for the flows is what they have.
    fn calibrated(
        &mut self,
        (variables, at): (&[Variable], usize),
        flows: &Flows,
        rows: &[usize],
    ) -> Result<ConditionalWeights> {
        let width = variables.len();
        let size = variables[at].size;
        if let Some(evidence) = &mut self.evidence {
            evidence.recount(variables, flows, rows);
        }
        let mut bias = self.out_bias.to_vec()?;
        let mut wanted = counts(flows, width, at, size, rows);
        let never: Vec<bool> = wanted.iter().map(|&count| count == 0.0).collect();
        let prior = softmax_of(&bias);
        wanted.iter_mut().zip(&prior).for_each(|(count, p)| *count += 0.2 * p);
        let all: f32 = wanted.iter().sum();
        let absent: Vec<(usize, Vec<Vec<u32>>)> = variables[at]
            .absent
            .iter()
            .map(|of| (of.before, of.lists(variables[of.before].size)))
            .collect();
        for _ in 0..ROUNDS {
            let mut mean = vec![0.0_f64; size];
            for rows in rows.chunks(EVALUATED) {
                let (_, logits) = self.forward(flows, width, (rows, false), None)?;
                for (mut logits, row) in logits.to_vec2::<f32>()?.into_iter().zip(rows) {
                    // No flow that is learned from has what it is not.
                    for (before, lists) in &absent {
                        let token = flows.attributes[row * width + before] as usize;
                        let never = lists.get(token).into_iter().flatten();
                        never.for_each(|&never| logits[never as usize] = f32::NEG_INFINITY);
                    }
                    add_softmax(&logits, &mut mean);
                }
            }
            for ((bias, wanted), mean) in bias.iter_mut().zip(&wanted).zip(&mean) {
                *bias += correction(f64::from(wanted / all), mean / rows.len() as f64);
            }
            self.out_bias.set(&bias)?;
        }
        // What no flow has is not drawn, but can be given: an address.
        if never.contains(&false) {
            let unseen = bias.iter_mut().zip(&never).filter(|(_, never)| **never);
            unseen.for_each(|(bias, _)| *bias = NEVER);
        }
        Ok(ConditionalWeights {
            tables: self
                .parents
                .iter()
                .map(|parent| parent.table.whole())
                .collect::<Result<_>>()?,
            bias: self.bias.to_vec()?,
            hidden: self.hidden.to_vec()?,
            hidden_bias: self.hidden_bias.to_vec()?,
            out: self.out.whole(self.ops)?.flatten_all()?.to_vec1()?,
            out_bias: bias,
            evidence: self.evidence.as_ref().map_or_else(|| Ok(Vec::new()), Evidence::export)?,
        })
    }
}

/// Inverted dropout of so many values: 0, or what makes up for the zeros.
pub(super) fn kept(stream: &mut Stream, count: usize, dropout: f32) -> Vec<f32> {
    let mut mask = vec![0.0; count];
    stream.fill_uniform(&mut mask);
    let scale = 1.0 / (1.0 - dropout);
    mask.iter_mut().for_each(|kept| *kept = if *kept < dropout { 0.0 } else { scale });
    mask
}

pub(super) fn zero(tensor: &Tensor) -> Result<()> {
    tensor.zero_set()
}

/// How much a bias moves so that a token with the mean probability `mean` gets `wanted`.
pub(super) fn correction(wanted: f64, mean: f64) -> f32 {
    (wanted / mean.max(1e-8)).ln().clamp(-2.0, 2.0) as f32
}

pub(super) fn softmax_of(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|logit| (logit - most).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.into_iter().map(|value| value / sum).collect()
}

/// Adds the probabilities of every row.
pub(super) fn add_probabilities(logits: &Tensor, sums: &mut [f64]) -> Result<()> {
    logits.to_vec2::<f32>()?.iter().for_each(|row| add_softmax(row, sums));
    Ok(())
}

fn add_softmax(logits: &[f32], sums: &mut [f64]) {
    let probabilities = softmax_of(logits);
    sums.iter_mut().zip(probabilities).for_each(|(sum, p)| *sum += f64::from(p));
}

/// How many flows have each token.
pub(super) fn counts(
    flows: &Flows,
    width: usize,
    at: usize,
    size: usize,
    rows: &[usize],
) -> Vec<f32> {
    let mut counts = vec![0.0; size];
    for &row in rows {
        if let Some(count) = counts.get_mut(flows.attributes[row * width + at] as usize) {
            *count += 1.0;
        }
    }
    counts
}

/// Trains the network of a variable as long as `go_on` says yes, which it is asked every
/// [`LOOK_EVERY`] steps. Returns the best network so far, and whether it was trained to its
/// end.
pub(crate) fn train(
    (chain, at): (&Chain, usize),
    flows: &Flows,
    parts: Parts<'_>,
    (units, untrained): (usize, bool),
    seed: u64,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(ConditionalWeights, bool)> {
    let variables = &chain.variables[..];
    let width = variables.len();
    let size = variables[at].size as u32;
    // Where it applies, and nothing tells it.
    let open = variables[at].told.map(|told| (told.variable, variables[told.variable].size - 1));
    let is_drawn = |row: &usize| {
        let token = |variable: usize| flows.attributes[row * width + variable];
        token(at) < size && open.is_none_or(|(by, open)| token(by) as usize == open)
    };
    let drawn = |rows: &[usize]| rows.iter().copied().filter(is_drawn).collect::<Vec<usize>>();
    let (mut train, validation) = (drawn(parts.train), drawn(parts.validation));
    let everything = [&train[..], &validation[..]].concat();
    let start = counts(flows, width, at, size as usize, &train);
    let mut network = Network::new((chain, at), &start, units, seed)?;
    // Nothing to learn, nothing to learn it from, or not to be learned.
    if size < 2 || train.len() < 2 || untrained {
        return Ok((network.calibrated((variables, at), flows, &everything)?, true));
    }
    network.evidence = Evidence::chosen((variables, at), flows, &train, seed)?;
    let batch = (train.len() / 16).clamp(64, 512).min(train.len());
    let mut adam = Adam::new(LEARNING_RATE, 0.9, 1e-8).with_weight_decay(WEIGHT_DECAY);
    let mut best = (f64::INFINITY, network.values()?);
    let (mut steps, mut since, mut looked) = (0, 0, 0);
    let (mut pass_number, mut whole) = (0, go_on());
    while whole {
        let mut order = Stream::new(seed, Purpose::Shuffle, pass_number);
        order.shuffle(&mut train);
        pass_number += 1;
        for rows in train.chunks(batch) {
            let mut dropout = Stream::new(seed, Purpose::Training, steps as u64);
            let (pass, logits) = network.forward(flows, width, (rows, true), Some(&mut dropout))?;
            let targets = rows.iter().map(|row| flows.attributes[row * width + at]).collect();
            let scale = 1.0 / rows.len() as f64;
            network.ops.cross_entropy(&logits, &Ids::new(targets), scale)?;
            network.backward(&pass, &logits)?;
            if let Some(evidence) = &mut network.evidence {
                evidence.learn(&logits.flatten_all()?.to_vec1()?, flows, rows)?;
            }
            adam.step(network.ops, network.parameters())?;
            steps += 1;
            // A pass over large data takes long.
            if steps % LOOK_EVERY == 0 && !go_on() {
                whole = false;
                break;
            }
        }
        // What ends is looked at too: it may be the best.
        if whole && steps - looked < LOOK_EVERY && steps < MOST_STEPS {
            continue;
        }
        looked = steps;
        let mut loss = 0.0;
        let looked_at = if validation.is_empty() { &train } else { &validation };
        for rows in looked_at.chunks(EVALUATED) {
            let (_, logits) = network.forward(flows, width, (rows, validation.is_empty()), None)?;
            let targets = rows.iter().map(|row| flows.attributes[row * width + at]).collect();
            loss += network.ops.cross_entropy(&logits, &Ids::new(targets), 0.0)?;
        }
        let loss = loss / looked_at.len() as f64;
        if loss < best.0 - 1e-4 {
            best = (loss, network.values()?);
            since = 0;
        } else {
            since += 1;
        }
        if since >= PATIENCE || steps >= MOST_STEPS {
            break;
        }
    }
    network.set(&best.1)?;
    Ok((network.calibrated((variables, at), flows, &everything)?, whole))
}
