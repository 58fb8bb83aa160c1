//! Before a run: how likely its conditions are, and which tokens before them go with them.
//!
//! What is common is drawn until it is met, at no more drafts than there are to one that
//! meets it. Drafts of what is rare would mostly be of other kinds of flows, and the few
//! that are not would carry all the weight. So the tokens of variables are drawn as many
//! times as often as those drafts weigh that have them, learned from drafts in rounds, as
//! in the cross-entropy method (Rubinstein, *The cross-entropy method for combinatorial and
//! continuous optimization*, 1999) with weights tempered while few carry them all, one
//! variable after another as in boosting, each from what those before it leave; and what
//! is drawn too often weighs as much less. So tilts never change what flows are, only how
//! many drafts it takes.

use ns_model_format::Schema;
use ns_model_format::autoregressive::{Autoregressive, Says};
use ns_model_format::random::{Purpose, Stream};

use super::plan::{DrawPlan, Means, Wished};
use crate::autoregressive::{Drafts, Rule, Wishes, forced_places};
use crate::error::RuntimeError;
use crate::form::Form;
use crate::networks::Networks;

/// Drafts of a round.
const DRAFTS: usize = 1024;
const ROUNDS: u64 = 6;
/// What at least this share of flows meet is drawn until it is met.
const COMMON: f64 = 1.0 / 32.0;
/// What a smaller share of flows meet is nothing that the model knows: an address of 128 bits
/// of which it knows a prefix is more frequent.
const LEAST_SHARE: f64 = 1e-30;
/// Weights carried by this share of the drafts are even enough.
const EVEN: f64 = 0.4;
/// Weights are tempered until this share of the drafts carries them.
const LEAST_EVEN: f64 = 0.05;
/// Drafts that are to carry a flow's weights, and drafts of a flow.
const CARRY: f64 = 16.0;
const MOST_OF_FLOW: f64 = 128.0;
/// Variables tilted in a round, if that takes away at least so much of the variance.
const OF_ROUND: usize = 4;
const LEAST_GAIN: f64 = 0.1;
/// A token's weight counts as if so many drafts more had the mean.
const PRIOR: f64 = 4.0;
/// A round changes no token's chance by more.
const MOST_TILT: f64 = 50.0;

/// Drafts, and how much they weigh.
#[derive(Clone)]
struct Looked {
    rows: Vec<f32>,
    weights: Vec<f64>,
    /// Share of the model's flows that meet the conditions.
    share: f64,
    /// Share of the drafts that carries the weights: (sum w)^2 / (n sum w^2).
    even: f64,
}

impl DrawPlan {
    /// Looks at how conditions are met, if there are any on the attributes of a model that
    /// draws given them: the same for every worker and part of a run.
    ///
    /// # Errors
    /// As good as no flow meets them; a network fails.
    pub(crate) fn prepare<N: Networks>(
        &mut self,
        networks: &mut N,
        form: &Form,
        schema: &Schema,
        seed: u64,
    ) -> Result<(), RuntimeError> {
        let (Means::Wished(wished), Some(model)) = (&mut self.means, form.tokens()) else {
            return Ok(());
        };
        let mut tilted = wished.wishes.clone();
        let (mut most_even, mut share) = (0.0, 0.0);
        for round in 0..ROUNDS {
            let looked = look(networks, model, schema, &tilted, (seed, round))?;
            if looked.share >= COMMON {
                // As it is.
                return Ok(());
            }
            if looked.even > most_even {
                most_even = looked.even;
                let each = (CARRY / looked.even).clamp(CARRY, MOST_OF_FLOW).ceil() as u32;
                *wished = Wished { wishes: tilted.clone(), singles: 0, each };
                share = looked.share;
            }
            if looked.even == 0.0 || looked.even >= EVEN {
                break;
            }
            learn(model, &looked, &mut tilted);
        }
        if share >= LEAST_SHARE {
            return Ok(());
        }
        let conditions = self.selection.list_on_attributes();
        let what = match share > 0.0 {
            true => {
                let exponent = -share.log10();
                format!(
                    "one of 10^{exponent:.0} flows of this model meets {conditions}: as good as none"
                )
            }
            false => format!("no flow of this model meets {conditions}"),
        };
        Err(RuntimeError::NothingMatches { what, more_tries_may_help: false })
    }
}

/// Makes drafts all over the span.
fn look<N: Networks>(
    networks: &mut N,
    model: &Autoregressive,
    schema: &Schema,
    wishes: &Wishes,
    (seed, round): (u64, u64),
) -> Result<Looked, RuntimeError> {
    let given = forced_places(model).len();
    let edges = match model.attributes.first().map(|variable| &variable.says) {
        Some(Says::Start { edges }) => &edges[..],
        _ => &[],
    };
    let (mut noise, mut condition) = (Vec::new(), Vec::new());
    for draft in 0..DRAFTS {
        let index = round * DRAFTS as u64 + draft as u64;
        let mut stream = Stream::new(seed, Purpose::Drafts, index);
        noise.extend((0..2 * model.attributes.len()).map(|_| stream.uniform()));
        // Bins have as many flows each.
        let place = (draft as f32 + 0.5) / DRAFTS as f32 * edges.len().saturating_sub(1) as f32;
        let position = match edges.get(place as usize..) {
            Some(&[from, to, ..]) => from + (to - from) * place.fract(),
            _ => 0.0,
        };
        schema.write_condition(position, true, true, &mut condition);
        condition.extend(std::iter::repeat_n(-1.0, given));
    }
    let (mut rows, mut logs) = (Vec::new(), Vec::new());
    let drafts =
        Drafts { each: 1, noise: &noise, condition: &condition, wishes, rule: Rule::Choose };
    networks.drafts(&drafts, &mut rows, &mut logs)?;
    let share = logs.iter().map(|log| log.exp()).sum::<f64>() / DRAFTS as f64;
    let weights = tempered(&logs, 1.0);
    let even = evenness(&weights);
    // Of weights that few carry, a root.
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..20 {
        let middle = (low + high) / 2.0;
        if evenness(&tempered(&logs, middle)) < LEAST_EVEN { high = middle } else { low = middle }
    }
    let weights = if even < LEAST_EVEN { tempered(&logs, low) } else { weights };
    Ok(Looked { rows, weights, share, even })
}

/// Weights to a power, of mean 1, or all 0.
fn tempered(logs: &[f64], power: f64) -> Vec<f64> {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weight = |log: &f64| match *log == f64::NEG_INFINITY {
        true => 0.0,
        false => (power * (log - most)).exp(),
    };
    let mut weights: Vec<f64> = logs.iter().map(weight).collect();
    let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
    if mean > 0.0 {
        weights.iter_mut().for_each(|weight| *weight /= mean);
    }
    weights
}

/// Of weights with mean 1.
fn evenness(weights: &[f64]) -> f64 {
    let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
    if squares > 0.0 { weights.len() as f64 / squares } else { 0.0 }
}

/// How the weights of drafts differ by a variable's token.
struct Effect {
    variable: usize,
    /// For each token, how many times the mean its drafts weigh.
    factors: Vec<f32>,
    /// How much of the weights' variance that is.
    gain: f64,
}

/// Tilts the variables whose tokens tell most of the weights.
fn learn(model: &Autoregressive, looked: &Looked, wishes: &mut Wishes) {
    let width = 2 * model.attributes.len();
    let mut weights = looked.weights.clone();
    let mut tilted = Vec::new();
    for _ in 0..OF_ROUND {
        let variables = (1..model.attributes.len())
            .filter(|at| wishes.takes_tilts(*at) && !tilted.contains(at));
        let effects = variables.map(|at| effect(model, at, &looked.rows, &weights));
        let Some(Effect { variable, factors, gain }) =
            effects.max_by(|one, other| one.gain.total_cmp(&other.gain))
        else {
            return;
        };
        if gain < LEAST_GAIN {
            return;
        }
        for (weight, row) in weights.iter_mut().zip(looked.rows.chunks_exact(width)) {
            if let Some(token) = drawn(model, variable, row) {
                *weight /= f64::from(factors[token]);
            }
        }
        let mean = weights.iter().sum::<f64>() / weights.len() as f64;
        weights.iter_mut().for_each(|weight| *weight /= mean);
        wishes.tilt(variable, &factors);
        tilted.push(variable);
    }
}

/// A row's token of a variable, if it was drawn: not told, and where it applies.
fn drawn(model: &Autoregressive, at: usize, row: &[f32]) -> Option<usize> {
    let variable = &model.attributes[at];
    let is_told = variable.told.is_some_and(|told| {
        (row[told.variable] as usize) + 1 < model.attributes[told.variable].size
    });
    let token = row[at] as usize;
    (!is_told && token < variable.size).then_some(token)
}

fn effect(model: &Autoregressive, at: usize, rows: &[f32], weights: &[f64]) -> Effect {
    let width = 2 * model.attributes.len();
    let mut sums = vec![(0.0, 0.0); model.attributes[at].size];
    let (mut all, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for (row, weight) in rows.chunks_exact(width).zip(weights) {
        if let Some(token) = drawn(model, at, row) {
            sums[token].0 += 1.0;
            sums[token].1 += weight;
            all += 1.0;
            sum += weight;
            squares += weight * weight;
        }
    }
    if sum <= 0.0 {
        return Effect { variable: at, factors: vec![1.0; sums.len()], gain: 0.0 };
    }
    let mean = sum / all;
    let factor = |&(count, sum): &(f64, f64)| {
        ((sum / mean + PRIOR) / (count + PRIOR)).clamp(1.0 / MOST_TILT, MOST_TILT)
    };
    let told: f64 = sums.iter().map(|of| of.0 * (mean * (factor(of) - 1.0)).powi(2)).sum::<f64>();
    // Chance alone tells as much of them, for each token.
    let tokens = sums.iter().filter(|of| of.0 > 0.0).count() as f64;
    let by_chance = (tokens - 1.0) * (squares / all - mean * mean);
    let gain = (told - by_chance) / weights.len() as f64;
    Effect { variable: at, factors: sums.iter().map(|of| factor(of) as f32).collect(), gain }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::DrawPlan;
    use crate::generate::GenerateOptions;

    #[test]
    fn roots_of_weights_are_more_even() {
        let logs: Vec<f64> = (0..100).map(|i| -f64::from(i)).collect();
        let evenness_at = |power| evenness(&tempered(&logs, power));
        assert!(evenness_at(1.0) < 0.03 && evenness_at(0.1) > 0.1);
        assert!((evenness_at(0.0) - 1.0).abs() < 1e-9);
        assert_eq!(evenness(&tempered(&[f64::NEG_INFINITY; 3], 1.0)), 0.0);
    }

    #[test]
    fn what_tells_the_weights_is_tilted_and_chance_is_not() {
        let bundle = crate::autoregressive::test_bundle();
        let manifest = bundle.manifest();
        let model = manifest.model.autoregressive.as_ref().unwrap();
        let conditions = vec!["address=300".parse().unwrap()];
        let options = GenerateOptions { conditions, ..GenerateOptions::default() };
        let plan = DrawPlan::new(&manifest.schema, Some(model), &options).unwrap();
        let mut stream = Stream::new(1, Purpose::Drafts, 0);
        let width = 2 * model.attributes.len();
        let mut looked = Looked { rows: Vec::new(), weights: Vec::new(), share: 0.0, even: 0.0 };
        let mut by_chance = Looked { weights: Vec::new(), ..looked.clone() };
        for _ in 0..DRAFTS {
            let mut row = vec![0.0; width];
            row[1] = stream.below(3) as f32;
            row[2] = 2.0;
            let chance = if stream.below(20) == 0 { 10.0 } else { 0.5 };
            looked.weights.push(if row[1] == 1.0 { 2.8 } else { 0.1 });
            by_chance.weights.push(chance);
            looked.rows.extend_from_slice(&row);
        }
        by_chance.rows = looked.rows.clone();
        let plain = plan.wishes().unwrap().clone();
        let mut tilted = plain.clone();
        learn(model, &by_chance, &mut tilted);
        assert_eq!(tilted, plain);
        learn(model, &looked, &mut tilted);
        let mut expected = plain;
        expected.tilt(1, &effect(model, 1, &looked.rows, &looked.weights).factors);
        assert_eq!(tilted, expected);
        let factors = effect(model, 1, &looked.rows, &looked.weights).factors;
        assert!(factors[1] > 20.0 * factors[0] && factors[1] < 40.0 * factors[2], "{factors:?}");
    }
}
