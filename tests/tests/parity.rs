//! What was trained is what is run: the exported graphs, run here and in onnxruntime, against
//! the same networks computed plainly from the weights in training form (which
//! the trainer's own tests hold against the networks that it trains).

use std::path::Path;

use ns_model_format::random::{Purpose, Stream};
use ns_model_format::{FoldedLayout, Layout};
use ns_runtime::Device;
use ns_runtime::doppelganger::DoppelgangerEngine;
use ns_runtime::networks::Networks;
use ns_tests::{SampleModel, random_weights, sample_bundle};
use ns_trainer::model::reference::{StepInput, forward_attributes, forward_step, made_discrete};

/// Sums of some hundred products in float32, in another order.
const TOLERANCE: f32 = 2e-5;

/// A vector in training form, in the columns of a graph that yields `repeat` of them.
fn in_columns(vectors: &[f32], layout: &Layout, columns: &FoldedLayout) -> Vec<f32> {
    let mut row = vec![0.0; columns.width()];
    let mut folded = vec![0.0; layout.folded_dim()];
    for (repeat, vector) in vectors.chunks(layout.dim()).enumerate() {
        layout.fold(vector, &mut folded);
        for (column, value) in columns.columns(repeat).into_iter().zip(&folded) {
            row[column] = *value;
        }
    }
    row
}

fn assert_near(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let near = (found - expected).abs() <= TOLERANCE * (1.0 + expected.abs());
        assert!(near, "{what}[{at}]: {found}, expected {expected}");
    }
}

#[test]
fn the_graphs_compute_what_the_weights_say() {
    check(false);
}

#[test]
fn so_does_the_network_of_additional_attributes() {
    check(true);
}

fn check(self_norm: bool) {
    let library = ns_runtime::locate::locate(None).expect("onnxruntime");
    check_in(self_norm, None);
    check_in(self_norm, Some(&library));
}

/// In a library, or where graphs are run without one.
fn check_in(self_norm: bool, library: Option<&Path>) {
    let sizes = SampleModel { hidden: 20, units: 32, sample_len: 3, ..SampleModel::default() };
    let model = SampleModel { self_norm, ..sizes };
    let bundle = sample_bundle(model);
    let schema = &bundle.manifest().schema;
    let weights = random_weights(schema, model);
    let chunk = &bundle.manifest().model.chunks[0];
    let (attribute_layout, record_layout) =
        (schema.attribute_layout(), schema.measurement_layout());
    let mut engine =
        DoppelgangerEngine::load(&bundle, chunk, library, Device::Cpu).expect("good graphs");
    let rows = 7;
    let mut random = Stream::new(5, Purpose::Training, 0);
    let mut normals = |dim: usize| {
        let mut values = vec![0.0; rows * dim];
        random.fill_normal(&mut values);
        values
    };
    let noise_dim = chunk.attributes.noise.dim;
    assert_eq!(noise_dim, if self_norm { 10 } else { 5 });
    let (noise, condition) = (normals(noise_dim), normals(schema.condition_dim()));
    let condition_of = |row: usize| {
        let dim = schema.condition_dim();
        &condition[row * dim..(row + 1) * dim]
    };

    let mut attributes = Vec::new();
    engine.attributes(rows, &noise, &condition, &mut attributes).expect("run");
    let width = chunk.attributes.layout.width();
    let mut discrete = Vec::new();
    let mut discrete_columns = Vec::new();
    for row in 0..rows {
        let noise = &noise[row * noise_dim..(row + 1) * noise_dim];
        let expected = forward_attributes(&weights, &attribute_layout, noise, condition_of(row));
        let columns = in_columns(&expected, &attribute_layout, &chunk.attributes.layout);
        assert_near("attributes", &attributes[row * width..(row + 1) * width], &columns);
        let made = made_discrete(&expected, &attribute_layout);
        discrete_columns.extend(in_columns(&made, &attribute_layout, &chunk.attributes.layout));
        discrete.push(made);
    }

    let mut gates = Vec::new();
    engine.gates(rows, &discrete_columns, &condition, &mut gates).expect("run");
    engine.resize(rows).expect("room");
    let (mut hidden, mut cell) = (normals(20), normals(20));
    engine.state(0).expect("h").copy_from_slice(&hidden);
    engine.state(1).expect("c").copy_from_slice(&cell);
    // Three steps, each with the state of the one before.
    for step in 0..3 {
        let noise = normals(5);
        engine.step(&gates, &noise).expect("run");
        let width = chunk.step.layout.width();
        for row in 0..rows {
            let input = StepInput {
                attributes: &discrete[row],
                condition: condition_of(row),
                noise: &noise[row * 5..(row + 1) * 5],
            };
            let (h, c) =
                (&mut hidden[row * 20..(row + 1) * 20], &mut cell[row * 20..(row + 1) * 20]);
            let expected = forward_step(&weights, &record_layout, input, h, c);
            let columns = in_columns(&expected, &record_layout, &chunk.step.layout);
            let records = engine.records().expect("records");
            let found = &records[row * width..(row + 1) * width];
            assert_near(&format!("records of step {step}"), found, &columns);
        }
        assert_near("h", engine.state(0).expect("h"), &hidden);
        assert_near("c", engine.state(1).expect("c"), &cell);
    }
}
