//! A DoppelGANger generator as three graphs.
//!
//! What training keeps apart is folded here, once: BatchNorm into the next
//! layer's weights, two-way softmaxes into one sigmoid of the difference, the
//! gates reordered so that one Sigmoid covers input, forget and output gate.

use ns_model_format::layout::{Activation, FoldedLayout, Layout};
use ns_model_format::manifest::{
    AttributesGraph, Chunk, GatesGraph, InitialState, State, StepGraph, Tensor,
};

use super::graph::GraphWriter;
use crate::model::weights::{GeneratorWeights, HiddenLayer, Linear};

/// The networks' layouts, as training saw them.
#[derive(Clone, Copy, Debug)]
pub struct Layouts<'a> {
    /// Of a flow's attributes.
    pub attributes: &'a Layout,
    /// Of one record, the generation flag last.
    pub measurements: &'a Layout,
    /// Values of the condition.
    pub condition_dim: usize,
    /// Records a step.
    pub sample_len: usize,
    /// What h and c begin with.
    pub initial: InitialState,
}

/// The graphs of one chunk: the manifest's description, and each file's name
/// and contents.
#[must_use]
pub fn graphs(
    weights: &GeneratorWeights,
    layouts: Layouts<'_>,
    folder: &str,
) -> (Chunk, Vec<(String, Vec<u8>)>) {
    let attribute_columns = layouts.attributes.fold_layout(1);
    let record_columns = layouts.measurements.fold_layout(layouts.sample_len);
    let path = |file: &str| format!("{folder}/{file}");
    let (noise, hidden) = (weights.noise_dim(), weights.hidden_dim());
    let condition = Tensor::new("condition", layouts.condition_dim);
    let (first_noise, second_noise) = weights.attribute_noise_dims(layouts.condition_dim);
    let gates = Tensor::new("gates", 4 * hidden);
    let state = |input: &str, output: &str| State {
        input: input.to_owned(),
        output: output.to_owned(),
        dim: hidden,
        initial: layouts.initial,
    };
    let chunk = Chunk {
        attributes: AttributesGraph {
            file: path("attributes.onnx"),
            noise: Tensor::new("noise", first_noise + second_noise),
            condition: condition.clone(),
            attributes: Tensor::new("attributes", attribute_columns.width()),
            layout: attribute_columns,
        },
        gates: GatesGraph {
            file: path("gates.onnx"),
            attributes: Tensor::new("attributes", layouts.attributes.folded_dim()),
            condition,
            gates: gates.clone(),
        },
        step: StepGraph {
            file: path("step.onnx"),
            gates,
            noise: Tensor::new("noise", noise),
            states: vec![state("h", "h_next"), state("c", "c_next")],
            records: Tensor::new("records", record_columns.width()),
            layout: record_columns,
        },
        handed_over: None,
    };
    let files = vec![
        (chunk.attributes.file.clone(), attributes_graph(weights, layouts.attributes, &chunk)),
        (chunk.gates.file.clone(), gates_graph(weights, layouts.attributes, &chunk)),
        (chunk.step.file.clone(), step_graph(weights, layouts.measurements, &chunk)),
    ];
    (chunk, files)
}

fn attributes_graph(weights: &GeneratorWeights, layout: &Layout, chunk: &Chunk) -> Vec<u8> {
    let described = &chunk.attributes;
    let mut graph = GraphWriter::new("attributes", "noise and condition to a flow's attributes");
    let noise = graph.input(&described.noise.name, described.noise.dim);
    let condition = graph.input(&described.condition.name, described.condition.dim);
    let (first, second) = weights.attribute_noise_dims(described.condition.dim);
    let parts = match second {
        0 => vec![noise],
        _ => graph.split(&noise, &[first, second]),
    };
    // The last segments are those of the additional attributes.
    let (mut own, mut more) = (layout.clone(), Layout::default());
    while own.dim() > weights.attribute_head.bias.len() {
        more.segments.extend(own.segments.pop());
    }
    more.segments.reverse();
    let own_columns = own.fold_layout(1);
    let input = graph.concat(&[&parts[0], &condition]);
    let head = (&weights.attribute_head, &own, &own_columns);
    let mut out = network(&mut graph, input, &weights.attribute_hidden, head);
    if let Some(noise) = parts.get(1) {
        let mut yes_or_no = vec![false; own_columns.width()];
        for (segment, folded) in own.segments.iter().zip(&own_columns.segments) {
            if folded.dim != segment.dim {
                yes_or_no[folded.offset] = true;
            }
        }
        let sigmoids = own_columns
            .segments
            .iter()
            .filter(|segment| segment.activation == Activation::Sigmoid)
            .map(|segment| segment.dim)
            .sum();
        let discrete = graph.make_discrete(&out, &own_columns, &yes_or_no[..sigmoids]);
        let input = graph.concat(&[noise, &condition, &discrete]);
        let mut hidden = weights.additional_hidden.clone();
        let mut last = weights.additional_head.clone();
        let first = hidden.first_mut().map_or(&mut last, |layer| &mut layer.linear);
        let units = first.bias.len();
        let rest = first.weight.split_off((second + described.condition.dim) * units);
        let folded = fold_inputs(&rest, &own, &own_columns, &mut first.bias);
        first.weight.extend(folded);
        let more_columns = more.fold_layout(1);
        let additional = network(&mut graph, input, &hidden, (&last, &more, &more_columns));
        let all = graph.concat(&[&out, &additional]);
        let sources = own_columns.columns(0).into_iter();
        let sources =
            sources.chain(more_columns.columns(0).into_iter().map(|at| own_columns.width() + at));
        let mut order = vec![0; described.layout.width()];
        for (to, from) in described.layout.columns(0).into_iter().zip(sources) {
            order[to] = from;
        }
        out = graph.reorder(&all, &order);
    }
    graph.output(&out, &described.attributes.name, described.attributes.dim);
    graph.finish()
}

/// `[Linear, ReLU, BatchNorm] x n` and a head with its activations.
fn network(
    graph: &mut GraphWriter,
    input: String,
    hidden: &[HiddenLayer],
    (head, layout, columns): (&Linear, &Layout, &FoldedLayout),
) -> String {
    let mut value = input;
    // The affine map that BatchNorm is at inference, of the layer before.
    let mut pending: Option<(Vec<f32>, Vec<f32>)> = None;
    for layer in hidden {
        let linear = fold_batch_norm(&layer.linear, pending.as_ref());
        let out = graph.linear(&value, &linear.weight, &linear.bias);
        value = graph.node("Relu", &[&out]);
        pending = Some(layer.norm.affine());
    }
    let head = fold_batch_norm(head, pending.as_ref());
    let head = fold_head(&head, layout, columns);
    let out = graph.linear(&value, &head.weight, &head.bias);
    graph.activate(&out, columns)
}

fn gates_graph(weights: &GeneratorWeights, layout: &Layout, chunk: &Chunk) -> Vec<u8> {
    let described = &chunk.gates;
    let columns = described.gates.dim;
    let mut bias = weights.lstm_bias.clone();
    let mut rows =
        fold_inputs(&weights.lstm_attributes, layout, &chunk.attributes.layout, &mut bias);
    rows.extend_from_slice(&weights.lstm_condition);
    let mut graph = GraphWriter::new("gates", "a flow's attributes to its part of the gates");
    let attributes = graph.input(&described.attributes.name, described.attributes.dim);
    let condition = graph.input(&described.condition.name, described.condition.dim);
    let value = graph.concat(&[&attributes, &condition]);
    let weight = sigmoids_first(&rows, columns);
    let bias = sigmoids_first(&bias, columns);
    let out = graph.linear(&value, &weight, &bias);
    graph.output(&out, &described.gates.name, columns);
    graph.finish()
}

/// The rows of a linear map that takes discrete attributes in training form
/// (`[layout.dim(), bias.len()]`), as rows for their folded columns; what this
/// adds at every input goes into the bias.
fn fold_inputs(
    weight: &[f32],
    layout: &Layout,
    columns: &FoldedLayout,
    bias: &mut [f32],
) -> Vec<f32> {
    let outputs = bias.len();
    let mut rows = vec![0.0; columns.width() * outputs];
    let mut from = 0;
    for (segment, folded) in layout.segments.iter().zip(&columns.segments) {
        let source = |row: usize| &weight[row * outputs..(row + 1) * outputs];
        if folded.dim == segment.dim {
            for row in 0..segment.dim {
                let at = (folded.offset + row) * outputs;
                rows[at..at + outputs].copy_from_slice(source(from + row));
            }
        } else {
            // One-hot (1 - b, b) times two rows is the first plus b times their difference.
            let (no, yes) = (source(from), source(from + 1));
            let at = folded.offset * outputs;
            for output in 0..outputs {
                bias[output] += no[output];
                rows[at + output] = yes[output] - no[output];
            }
        }
        from += segment.dim;
    }
    rows
}

fn step_graph(weights: &GeneratorWeights, layout: &Layout, chunk: &Chunk) -> Vec<u8> {
    let described = &chunk.step;
    let hidden = weights.hidden_dim();
    let mut graph = GraphWriter::new("step", "a flow's gates, noise and state to its next records");
    let gates = graph.input(&described.gates.name, described.gates.dim);
    let noise = graph.input(&described.noise.name, described.noise.dim);
    let h = graph.input(&described.states[0].input, hidden);
    let c = graph.input(&described.states[1].input, hidden);
    let moving = graph.concat(&[&noise, &h]);
    let mut weight = weights.lstm_noise.clone();
    weight.extend_from_slice(&weights.lstm_hidden);
    let weight = sigmoids_first(&weight, 4 * hidden);
    let all = graph.linear_onto(&moving, &weight, 4 * hidden, &gates);
    let (h_next, c_next) = graph.lstm_cell(&all, &c, hidden);
    let head = fold_head(&weights.record_head, layout, &described.layout);
    let out = graph.linear(&h_next, &head.weight, &head.bias);
    let records = graph.activate(&out, &described.layout);
    graph.output(&records, &described.records.name, described.records.dim);
    graph.output(&h_next, &described.states[0].output, hidden);
    graph.output(&c_next, &described.states[1].output, hidden);
    graph.finish()
}

/// `x -> (x * scale + shift) @ weight + bias` as one linear map.
fn fold_batch_norm(linear: &Linear, affine: Option<&(Vec<f32>, Vec<f32>)>) -> Linear {
    let Some((scale, shift)) = affine else { return linear.clone() };
    let columns = linear.bias.len();
    let mut folded = linear.clone();
    for (row, (scale, shift)) in scale.iter().zip(shift).enumerate() {
        for column in 0..columns {
            let weight = linear.weight[row * columns + column];
            folded.weight[row * columns + column] = weight * scale;
            folded.bias[column] += weight * shift;
        }
    }
    folded
}

/// A merged head in training form (`repeat` times the layout's columns) with
/// its columns folded and in the bundle's order.
fn fold_head(head: &Linear, layout: &Layout, columns: &FoldedLayout) -> Linear {
    let (wide, narrow) = (head.bias.len(), columns.width());
    let inputs = head.weight.len() / wide.max(1);
    // For each folded column the training columns that it adds and takes away.
    let mut sources: Vec<(usize, Option<usize>)> = vec![(0, None); narrow];
    for repeat in 0..columns.repeat {
        let mut from = repeat * layout.dim();
        for (segment, folded) in layout.segments.iter().zip(&columns.segments) {
            let to = folded.offset + repeat * folded.dim;
            if segment.activation == Activation::Softmax && segment.dim == 2 {
                sources[to] = (from + 1, Some(from));
            } else {
                (0..segment.dim).for_each(|at| sources[to + at] = (from + at, None));
            }
            from += segment.dim;
        }
    }
    let pick = |row: &[f32]| -> Vec<f32> {
        let value = |&(plus, minus): &(usize, Option<usize>)| {
            row[plus] - minus.map_or(0.0, |minus| row[minus])
        };
        sources.iter().map(value).collect()
    };
    Linear {
        weight: (0..inputs)
            .flat_map(|row| pick(&head.weight[row * wide..(row + 1) * wide]))
            .collect(),
        bias: pick(&head.bias),
    }
}

/// Reorders each row's gates from input, forget, candidate, output (as trained)
/// to input, forget, output, candidate.
pub(super) fn sigmoids_first(rows: &[f32], columns: usize) -> Vec<f32> {
    let hidden = columns / 4;
    rows.chunks_exact(columns)
        .flat_map(|row| {
            let gate = |index: usize| &row[index * hidden..(index + 1) * hidden];
            [gate(0), gate(1), gate(3), gate(2)].concat()
        })
        .collect()
}
