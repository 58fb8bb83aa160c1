//! The generator in plain loops, with explicit noise and state: what exported
//! graphs are compared with.

use super::weights::{GeneratorWeights, HiddenLayer, Linear};
use ns_model_format::layout::{Activation, Layout};

fn linear(layer: &Linear, input: &[f32]) -> Vec<f32> {
    let mut output = layer.bias.clone();
    accumulate(&mut output, input, &layer.weight);
    output
}

/// `output += input @ weight`.
fn accumulate(output: &mut [f32], input: &[f32], weight: &[f32]) {
    for (value, row) in input.iter().zip(weight.chunks_exact(output.len().max(1))) {
        for (output, weight) in output.iter_mut().zip(row) {
            *output += value * weight;
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn activate(values: &mut [f32], layout: &Layout) {
    for row in values.chunks_exact_mut(layout.dim().max(1)) {
        let mut rest = row;
        for segment in &layout.segments {
            let (now, later) = rest.split_at_mut(segment.dim);
            match segment.activation {
                Activation::Sigmoid => now.iter_mut().for_each(|x| *x = sigmoid(*x)),
                Activation::Tanh => now.iter_mut().for_each(|x| *x = x.tanh()),
                Activation::Softmax => {
                    let most = now.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    now.iter_mut().for_each(|x| *x = (*x - most).exp());
                    let total: f32 = now.iter().sum();
                    now.iter_mut().for_each(|x| *x /= total);
                }
            }
            rest = later;
        }
    }
}

/// Every softmax segment as a one-hot vector of its greatest value, the rest as it is.
#[must_use]
pub fn made_discrete(attributes: &[f32], layout: &Layout) -> Vec<f32> {
    let mut discrete = attributes.to_vec();
    for row in discrete.chunks_exact_mut(layout.dim().max(1)) {
        let mut rest = row;
        for segment in &layout.segments {
            let (now, later) = rest.split_at_mut(segment.dim);
            if segment.activation == Activation::Softmax {
                let best = (0..now.len()).rev().max_by(|&a, &b| now[a].total_cmp(&now[b]));
                now.fill(0.0);
                if let Some(value) = best.and_then(|best| now.get_mut(best)) {
                    *value = 1.0;
                }
            }
            rest = later;
        }
    }
    discrete
}

/// One flow's attributes in training layout, BatchNorm with running statistics.
/// `noise` is that of the first network, then that of the additional one.
#[must_use]
pub fn forward_attributes(
    weights: &GeneratorWeights,
    layout: &Layout,
    noise: &[f32],
    condition: &[f32],
) -> Vec<f32> {
    let (first, _) = weights.attribute_noise_dims(condition.len());
    let (first, second) = noise.split_at(first.min(noise.len()));
    let network = |hidden: &[HiddenLayer], head: &Linear, input: Vec<f32>| {
        let mut x = input;
        for layer in hidden {
            x = linear(&layer.linear, &x);
            let (scale, shift) = layer.norm.affine();
            for (x, (scale, shift)) in x.iter_mut().zip(scale.iter().zip(&shift)) {
                *x = x.max(0.0) * scale + shift;
            }
        }
        linear(head, &x)
    };
    let input = [first, condition].concat();
    let mut attributes = network(&weights.attribute_hidden, &weights.attribute_head, input);
    let own = attributes.len();
    attributes.resize(layout.dim(), 0.0);
    activate(&mut attributes, layout);
    if own < attributes.len() {
        // One-hot rounding leaves what is not under a softmax, the rest of the row too.
        let discrete = made_discrete(&attributes, layout);
        let input = [second, condition, &discrete[..own]].concat();
        let more = network(&weights.additional_hidden, &weights.additional_head, input);
        attributes[own..].copy_from_slice(&more);
        let mut all = attributes.clone();
        activate(&mut all, layout);
        attributes[own..].copy_from_slice(&all[own..]);
    }
    attributes
}

/// One LSTM step's input beside the state.
#[derive(Clone, Copy, Debug)]
pub struct StepInput<'a> {
    /// `[A]`, made discrete.
    pub attributes: &'a [f32],
    /// `[C]`.
    pub condition: &'a [f32],
    /// `[Z]`.
    pub noise: &'a [f32],
}

/// One flow's next records in training layout, `[S * M]`, without the mask;
/// `hidden` and `cell` (`[H]`) go one step on.
#[must_use]
pub fn forward_step(
    weights: &GeneratorWeights,
    layout: &Layout,
    input: StepInput<'_>,
    hidden: &mut [f32],
    cell: &mut [f32],
) -> Vec<f32> {
    let mut gates = weights.lstm_bias.clone();
    accumulate(&mut gates, input.attributes, &weights.lstm_attributes);
    accumulate(&mut gates, input.condition, &weights.lstm_condition);
    accumulate(&mut gates, input.noise, &weights.lstm_noise);
    accumulate(&mut gates, hidden, &weights.lstm_hidden);
    let width = gates.len() / 4;
    for (unit, (hidden, cell)) in hidden.iter_mut().zip(cell).enumerate().take(width) {
        let gate = |index: usize| gates[index * width + unit];
        *cell = sigmoid(gate(1)) * *cell + sigmoid(gate(0)) * gate(2).tanh();
        *hidden = sigmoid(gate(3)) * cell.tanh();
    }
    let mut records = linear(&weights.record_head, hidden);
    activate(&mut records, layout);
    records
}
