use super::*;
use crate::model::ops::places;
use ns_model_format::random::{Purpose, Stream};

const BATCH: usize = 5;
const COEFFICIENT: f64 = 10.0;

fn normals(device: &Device, shape: (usize, usize), index: u64) -> Tensor {
    let mut stream = Stream::new(3, Purpose::Training, index);
    let values: Vec<f64> = (0..shape.0 * shape.1).map(|_| f64::from(stream.normal())).collect();
    Tensor::from_vec(values, shape, device).unwrap()
}

/// A critic of 3 hidden layers over 2 packed samples of 4 columns, 3 of which count.
fn critic(device: &Device) -> (Critic, Tensor) {
    let mut init = Initializer::new(7, DType::F64, device, false);
    let columns = Columns { of_sample: 4, counted: 3 };
    let critic = Critic::new(&mut init, (4, 6), (BATCH, 2), columns, DType::F64, device).unwrap();
    // First weights are small; greater ones make every term of the gradient count.
    for parameter in critic.parameters() {
        let larger = (&parameter.value * 3.0).unwrap();
        parameter.value.slice_set(&larger, 0, 0).unwrap();
    }
    critic.real().unwrap().slice_set(&normals(device, (2 * BATCH, 4), 0), 0, 0).unwrap();
    critic.fake().unwrap().slice_set(&normals(device, (2 * BATCH, 4), 1), 0, 0).unwrap();
    let weights: Vec<f64> = (0..BATCH).map(|row| 0.1 + 0.15 * row as f64).collect();
    (critic, Tensor::from_vec(weights, BATCH, device).unwrap())
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The loss from scratch, with input gradients by hand-rolled loops.
fn loss(critic: &Critic, weights: &Tensor) -> f64 {
    let rows = |tensor: Tensor| -> Vec<Vec<f64>> {
        numbers(&tensor).chunks(8).map(<[f64]>::to_vec).collect()
    };
    let (real, fake) = (rows(critic.real().unwrap()), rows(critic.fake().unwrap()));
    let layers: Vec<(Vec<Vec<f64>>, Vec<f64>)> = critic
        .layers
        .iter()
        .map(|layer| (layer.weight.value.to_vec2().unwrap(), numbers(&layer.bias.value)))
        .collect();
    let output_and_gradient = |x: &[f64]| {
        let (mut x, mut masks) = (x.to_vec(), Vec::new());
        for (index, (weight, bias)) in layers.iter().enumerate() {
            let mut y = bias.clone();
            for (x, row) in x.iter().zip(weight) {
                y.iter_mut().zip(row).for_each(|(y, w)| *y += x * w);
            }
            if index + 1 < layers.len() {
                masks.push(y.iter().map(|&y| y > 0.0).collect::<Vec<_>>());
                y.iter_mut().for_each(|y| *y = y.max(0.0));
            }
            x = y;
        }
        let mut chain = vec![1.0];
        for (index, (weight, _)) in layers.iter().enumerate().rev() {
            if let Some(mask) = masks.get(index) {
                chain.iter_mut().zip(mask).for_each(|(u, &on)| *u *= f64::from(u8::from(on)));
            }
            chain =
                weight.iter().map(|row| row.iter().zip(&chain).map(|(w, u)| w * u).sum()).collect();
        }
        (x[0], chain)
    };
    let mut total = 0.0;
    for ((real, fake), weight) in real.iter().zip(&fake).zip(numbers(weights)) {
        total += output_and_gradient(fake).0 - output_and_gradient(real).0;
        let between: Vec<f64> = real.iter().zip(fake).map(|(r, f)| r + weight * (f - r)).collect();
        let gradient = output_and_gradient(&between).1;
        let counted = |at: &usize| at % 4 != 3;
        let squares: f64 = (0..8).filter(counted).map(|at| gradient[at].powi(2)).sum();
        total += COEFFICIENT * ((squares + 1e-8).sqrt() - 1.0).powi(2);
    }
    total / BATCH as f64
}

fn compare(found: f64, expected: f64, scale: f64, what: &str) {
    assert!((found - expected).abs() <= 1e-6 * scale.max(1e-3), "{what}: {found} {expected}");
}

fn every_gradient_agrees(device: &Device, ops: Ops) {
    let (critic, weights) = critic(device);
    let judged = critic.gradients(ops, &weights, COEFFICIENT).unwrap();
    let value = numbers(&judged.distance)[0] + COEFFICIENT * numbers(&judged.penalty)[0];
    compare(value, loss(&critic, &weights), value.abs(), "loss");
    assert!(numbers(&judged.penalty)[0] > 0.01);
    let step = 1e-6;
    for (index, parameter) in critic.parameters().enumerate() {
        let before = numbers(&parameter.value);
        let gradient = numbers(&parameter.gradient);
        let scale = gradient.iter().fold(0.0f64, |most, g| most.max(g.abs()));
        for at in 0..before.len() {
            let moved = |by: f64| {
                let mut values = before.clone();
                values[at] += by;
                let values = Tensor::from_vec(values, parameter.value.shape(), device).unwrap();
                parameter.value.slice_set(&values, 0, 0).unwrap();
                loss(&critic, &weights)
            };
            let difference = (moved(step) - moved(-step)) / (2.0 * step);
            moved(0.0);
            compare(gradient[at], difference, scale.max(1e-2), &format!("tensor {index} [{at}]"));
        }
    }
}

#[test]
fn analytic_penalty_and_weight_gradients_equal_central_differences() {
    places().iter().for_each(|(device, ops)| every_gradient_agrees(device, *ops));
}

#[test]
fn the_gradient_for_generated_samples_equals_central_differences() {
    for (device, ops) in places() {
        let (critic, _) = critic(&device);
        let (output, gradient) = critic.input_gradient(ops, 2.0).unwrap();
        assert!(numbers(&output)[0].is_finite());
        let gradient = numbers(&gradient);
        let fake = critic.fake().unwrap();
        let before = numbers(&fake);
        let step = 1e-6;
        for at in 0..before.len() {
            let moved = |by: f64| {
                let mut values = before.clone();
                values[at] += by;
                let values = Tensor::from_vec(values, fake.shape(), &device).unwrap();
                fake.slice_set(&values, 0, 0).unwrap();
                -2.0 * numbers(&critic.input_gradient(ops, 2.0).unwrap().0)[0]
            };
            let difference = (moved(step) - moved(-step)) / (2.0 * step);
            moved(0.0);
            compare(gradient[at], difference, 1.0, &format!("input {at}"));
        }
    }
}

#[test]
fn a_nan_in_a_sample_reaches_the_loss() {
    for (device, ops) in places() {
        let (critic, weights) = critic(&device);
        let bad = (normals(&device, (2 * BATCH, 4), 1) * f64::NAN).unwrap();
        critic.fake().unwrap().slice_set(&bad, 0, 0).unwrap();
        let judged = critic.gradients(ops, &weights, COEFFICIENT).unwrap();
        assert!(numbers(&judged.distance)[0].is_nan());
    }
}
