//! What flows of the same kind had: how often a token was there with one or two of the
//! tokens before it, added to a network's logits.
//!
//! Networks learn what many flows show and blur what few do, such as the port that one kind
//! of host uses. Counts do the opposite, so both are mixed as compressors mix contexts
//! (Mahoney, *Adaptive weighing of context models for lossless data compression*, Florida
//! Tech CS-2005-16): to the logit of token y, given the tokens c of a context, comes
//!
//! `w ln(1 + n(c, y) / p(y))`
//!
//! with n(c, y) the flows that have both, p(y) the share of y among all, and a weight w of
//! the context, at least 0, that is learned with the network. This is the logarithm of a
//! Dirichlet prior's estimate (MacKay and Peto, *A hierarchical Dirichlet language model*,
//! 1995) but for what all tokens of a context share. While weights are learned, a flow does
//! not count itself.

use std::collections::HashMap;
use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};
use ns_model_format::autoregressive::{MOST_CONTEXTS, MOST_EVIDENCE, Says, Variable};
use ns_model_format::random::{Purpose, Stream};

use super::chain::FEW;
use super::conditional::{counts, softmax_of};
use super::tokens::Flows;
use crate::model::ops::Ops;
use crate::model::parameter::{Adam, Initializer, Parameter};

const LEARNING_RATE: f64 = 5e-3;
/// Contexts are chosen by so many flows at most, and in so many steps of so many.
const CHOSEN_BY: usize = 1 << 13;
const STEPS: u64 = 300;
const BATCH: usize = 128;
/// Pairs are made of so many parents at most.
const PAIRED: usize = 14;
/// A flow whose context no flow had that counts.
const NONE: u32 = u32::MAX;

/// A context as it is kept: for each key, ascending, its tokens and what they get.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Context {
    /// One or two variables, ascending.
    pub(crate) of: Vec<usize>,
    pub(crate) keys: Vec<u32>,
    /// Where each key's tokens end.
    pub(crate) ends: Vec<u32>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) values: Vec<f32>,
}

impl Context {
    /// Whether it is one of a variable.
    pub(super) fn fits(&self, variable: &Variable) -> bool {
        self.of.iter().all(|before| variable.parents.contains(before))
            && self.keys.len() == self.ends.len()
            && self.ends.last().map_or(0, |&end| end as usize) == self.tokens.len()
            && self.values.len() == self.tokens.len()
            && self.tokens.iter().all(|&token| (token as usize) < variable.size)
    }
}

/// How often each token was there in a context.
struct Counts {
    of: Vec<usize>,
    keys: Vec<u32>,
    ends: Vec<u32>,
    tokens: Vec<u32>,
    /// What each gets at weight 1, and what if a flow fewer had it.
    values: Vec<[f32; 2]>,
    /// Of every flow, which key it has.
    places: Vec<u32>,
}

impl Counts {
    /// Of the flows in `rows`; if there are too many tokens, of those that most flows have.
    fn new(
        (variables, at): (&[Variable], usize),
        of: Vec<usize>,
        flows: &Flows,
        rows: &[usize],
        prior: &[f32],
    ) -> Counts {
        let width = variables.len();
        let token = |row: usize, variable: usize| flows.attributes[row * width + variable];
        let key = |row: usize| {
            Variable::key(of.iter().map(|&before| (token(row, before), variables[before].size)))
        };
        let mut found: Vec<(u32, u32)> =
            rows.iter().map(|&row| (key(row), token(row, at))).collect();
        found.sort_unstable();
        let mut counted: Vec<((u32, u32), u32)> = Vec::new();
        for pair in found {
            match counted.last_mut().filter(|(last, _)| *last == pair) {
                Some((_, count)) => *count += 1,
                None => counted.push((pair, 1)),
            }
        }
        if is_name(&variables[at]) {
            counted.retain(|(_, count)| *count > 1);
        }
        if counted.len() > MOST_EVIDENCE {
            let mut all: Vec<u32> = counted.iter().map(|(_, count)| *count).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            let least = all[MOST_EVIDENCE];
            counted.retain(|(_, count)| *count > least);
        }
        let (mut keys, mut ends, mut tokens, mut values) = (vec![], vec![], vec![], vec![]);
        for ((key, token), count) in counted {
            if keys.last() != Some(&key) {
                keys.push(key);
                ends.push(0);
            }
            tokens.push(token);
            let value = |count: u32| (count as f32 / prior[token as usize]).ln_1p();
            values.push([value(count), value(count - 1)]);
            if let Some(end) = ends.last_mut() {
                *end = tokens.len() as u32;
            }
        }
        let place: HashMap<u32, u32> = keys.iter().copied().zip(0..).collect();
        let places = (0..flows.len()).map(|row| place.get(&key(row)).copied().unwrap_or(NONE));
        let places = places.collect();
        Counts { of, keys, ends, tokens, values, places }
    }

    /// The tokens that flows with the same context had.
    fn list(&self, row: usize) -> Range<usize> {
        let place = self.places[row];
        if place == NONE {
            return 0..0;
        }
        let end = |at: u32| self.ends[at as usize] as usize;
        (if place == 0 { 0 } else { end(place - 1) })..end(place)
    }

    /// Tokens and what they get at weight 1; without the flow itself if its token is `own`.
    fn values(&self, row: usize, own: Option<u32>) -> impl Iterator<Item = (usize, f32)> {
        let list = self.list(row);
        let tokens = self.tokens[list.clone()].iter().zip(&self.values[list]);
        tokens.map(move |(&token, value)| (token as usize, value[usize::from(own == Some(token))]))
    }
}

/// The contexts of a variable, and how much each weighs.
pub(super) struct Evidence {
    at: usize,
    width: usize,
    size: usize,
    counts: Vec<Counts>,
    weights: Parameter,
    adam: Adam,
}

impl Evidence {
    /// Of these contexts, counted over the flows in `rows`.
    fn of(
        (variables, at): (&[Variable], usize),
        contexts: Vec<Vec<usize>>,
        flows: &Flows,
        rows: &[usize],
    ) -> Result<Evidence> {
        let (width, size) = (variables.len(), variables[at].size);
        let prior = prior((variables, at), flows, rows);
        let count = |of| Counts::new((variables, at), of, flows, rows, &prior);
        let counts: Vec<Counts> = contexts.into_iter().map(count).collect();
        let mut init = Initializer::new(0, DType::F32, &Device::Cpu, false);
        // What is no evidence for other flows never gets any weight.
        let weights = init.constant(&[counts.len()], 0.0)?;
        let adam = Adam::new(LEARNING_RATE, 0.9, 1e-8);
        Ok(Evidence { at, width, size, counts, weights, adam })
    }

    /// Those contexts that say most about the variable; none, if it has no parents, or is an
    /// octet, which is to be new.
    pub(super) fn chosen(
        (variables, at): (&[Variable], usize),
        flows: &Flows,
        rows: &[usize],
        seed: u64,
    ) -> Result<Option<Evidence>> {
        if rows.is_empty() || matches!(variables[at].says, Says::Field { place: 1.., .. }) {
            return Ok(None);
        }
        let some: Vec<usize> =
            rows.iter().copied().step_by(rows.len().div_ceil(CHOSEN_BY)).collect();
        let mut contexts = candidates((variables, at), flows, &some);
        if contexts.len() > MOST_CONTEXTS {
            let mut all = Evidence::of((variables, at), contexts, flows, &some)?;
            contexts = all.telling((variables, at), flows, &some, seed)?;
        }
        match contexts.is_empty() {
            true => Ok(None),
            false => Evidence::of((variables, at), contexts, flows, rows).map(Some),
        }
    }

    /// The contexts that move logits furthest, if counts alone say what comes.
    fn telling(
        &mut self,
        variables: (&[Variable], usize),
        flows: &Flows,
        rows: &[usize],
        seed: u64,
    ) -> Result<Vec<Vec<usize>>> {
        let start: Vec<f32> = prior(variables, flows, rows).iter().map(|p| p.ln()).collect();
        let mut drawn = Stream::new(seed, Purpose::Shuffle, u64::MAX - 3);
        for _ in 0..STEPS {
            let batch: Vec<usize> = (0..BATCH).map(|_| rows[drawn.below(rows.len())]).collect();
            let mut logits = start.repeat(batch.len());
            self.add_to(&mut logits, flows, &batch, true)?;
            for (logits, row) in logits.chunks_exact_mut(self.size).zip(&batch) {
                let mut gradient = softmax_of(logits);
                gradient[flows.attributes[row * self.width + self.at] as usize] -= 1.0;
                let gradient = gradient.iter().map(|value| value / BATCH as f32);
                logits.iter_mut().zip(gradient).for_each(|(to, value)| *to = value);
            }
            self.learn(&logits, flows, &batch)?;
        }
        let moved = |(counts, weight): (&Counts, f32)| {
            let square = |row: &usize| counts.values(*row, None).map(|(_, v)| v * v).sum::<f32>();
            weight * rows.iter().map(square).sum::<f32>().sqrt()
        };
        let weights = self.weights.to_vec()?;
        let mut order: Vec<(f32, usize)> =
            self.counts.iter().zip(weights).map(moved).zip(0..).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        order.truncate(MOST_CONTEXTS);
        order.retain(|(moved, _)| *moved > 0.0);
        let mut kept: Vec<Vec<usize>> =
            order.iter().map(|&(_, index)| self.counts[index].of.clone()).collect();
        kept.sort_unstable();
        Ok(kept)
    }

    /// The same contexts and weights, counted over other flows.
    pub(super) fn recount(&mut self, variables: &[Variable], flows: &Flows, rows: &[usize]) {
        let prior = prior((variables, self.at), flows, rows);
        for counts in &mut self.counts {
            let of = std::mem::take(&mut counts.of);
            *counts = Counts::new((variables, self.at), of, flows, rows, &prior);
        }
    }

    /// Adds to the logits of flows, `[rows, size]`; each without itself, if it counts and is
    /// to be left out.
    pub(super) fn add_to(
        &self,
        logits: &mut [f32],
        flows: &Flows,
        rows: &[usize],
        leave_out: bool,
    ) -> Result<()> {
        let weights = self.weights.to_vec()?;
        for (logits, &row) in logits.chunks_exact_mut(self.size).zip(rows) {
            let own = leave_out.then(|| flows.attributes[row * self.width + self.at]);
            for (counts, weight) in self.counts.iter().zip(&weights) {
                counts.values(row, own).for_each(|(token, value)| logits[token] += weight * value);
            }
        }
        Ok(())
    }

    /// A step of the weights, given the gradient of the logits of flows that were left out.
    pub(super) fn learn(&mut self, gradient: &[f32], flows: &Flows, rows: &[usize]) -> Result<()> {
        let mut sums = vec![0.0_f32; self.counts.len()];
        for (gradient, &row) in gradient.chunks_exact(self.size).zip(rows) {
            let own = Some(flows.attributes[row * self.width + self.at]);
            for (sum, counts) in sums.iter_mut().zip(&self.counts) {
                *sum +=
                    counts.values(row, own).map(|(at, value)| gradient[at] * value).sum::<f32>();
            }
        }
        let sums = Tensor::from_vec(sums, self.counts.len(), &Device::Cpu)?;
        self.weights.gradient.slice_set(&sums, 0, 0)?;
        self.adam.step(Ops::on(&Device::Cpu), [&self.weights])?;
        // Evidence for a token is never evidence against it.
        let weights: Vec<f32> = self.weights.to_vec()?.iter().map(|w| w.max(0.0)).collect();
        self.weights.set(&weights)
    }

    pub(super) fn weights(&self) -> Result<Vec<f32>> {
        self.weights.to_vec()
    }

    pub(super) fn set(&self, weights: &[f32]) -> Result<()> {
        self.weights.set(weights)
    }

    /// What there is to keep: contexts of no weight are not.
    pub(super) fn export(&self) -> Result<Vec<Context>> {
        let weights = self.weights.to_vec()?;
        let weighing = self.counts.iter().zip(weights).filter(|(_, weight)| *weight > 0.0);
        let context = |(counts, weight): (&Counts, f32)| Context {
            of: counts.of.clone(),
            keys: counts.keys.clone(),
            ends: counts.ends.clone(),
            tokens: counts.tokens.clone(),
            values: counts.values.iter().map(|[value, _]| weight * value).collect(),
        };
        Ok(weighing.map(context).collect())
    }
}

/// Whether a variable is one of the names that a flow is known by: an address, a port. What a
/// single flow had is no evidence of such, or flows that were learned from would come again.
fn is_name(variable: &Variable) -> bool {
    matches!(variable.says, Says::Field { .. }) && variable.size > FEW
}

/// How likely each token is.
fn prior((variables, at): (&[Variable], usize), flows: &Flows, rows: &[usize]) -> Vec<f32> {
    let counts = counts(flows, variables.len(), at, variables[at].size, rows);
    let all: f32 = counts.iter().map(|count| count + 0.1).sum();
    counts.iter().map(|count| (count + 0.1) / all).collect()
}

/// Every parent, and every pair of them; of many parents, of those that alone say most.
fn candidates(
    (variables, at): (&[Variable], usize),
    flows: &Flows,
    rows: &[usize],
) -> Vec<Vec<usize>> {
    let mut parents = variables[at].parents.clone();
    if parents.len() > PAIRED {
        let prior = prior((variables, at), flows, rows);
        // Nats that a parent saves, each flow left out of its own count.
        let saved = |parent: usize| {
            let counts = Counts::new((variables, at), vec![parent], flows, rows, &prior);
            let own = |row: usize| flows.attributes[row * variables.len() + at];
            let saved = |&row: &usize| {
                let others = counts
                    .list(row)
                    .map(|at| prior[counts.tokens[at] as usize] * counts.values[at][0].exp_m1());
                let value = counts.values(row, Some(own(row)));
                let value = value.filter(|(token, _)| *token == own(row) as usize);
                f64::from(value.map(|(_, v)| v).sum::<f32>() - others.sum::<f32>().ln())
            };
            rows.iter().map(saved).sum::<f64>()
        };
        let mut order: Vec<(f64, usize)> = parents.iter().map(|&p| (saved(p), p)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        parents = order[..PAIRED].iter().map(|(_, parent)| *parent).collect();
        parents.sort_unstable();
    }
    let mut all: Vec<Vec<usize>> = parents.iter().map(|&parent| vec![parent]).collect();
    for (place, &second) in parents.iter().enumerate() {
        all.extend(parents[..place].iter().map(|&first| vec![first, second]));
    }
    all
}
