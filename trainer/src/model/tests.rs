use super::attributes::AttributeGenerator;
use super::config::Discretize;
use super::ops::segments::{Segments, Shape};
use super::ops::{Ops, places};
use super::parameter::{Adam, Initializer, Parameter};
use super::records::{Input, RecordGenerator, Widths};
use super::reference::{self, StepInput};
use super::weights::GeneratorWeights;
use candle_core::{DType, Device, Tensor};
use ns_model_format::layout::{Activation, Layout, Segment};
use ns_model_format::random::{Purpose, Stream};

fn normals(device: &Device, shape: &[usize], index: u64) -> Tensor {
    let mut stream = Stream::new(5, Purpose::Training, index);
    let count = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|_| f64::from(stream.normal())).collect();
    Tensor::from_vec(values, shape, device).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

fn layout() -> Layout {
    Layout {
        segments: vec![
            Segment::new(2, Activation::Softmax),
            Segment::new(2, Activation::Softmax),
            Segment::new(2, Activation::Sigmoid),
            Segment::new(1, Activation::Tanh),
            Segment::new(3, Activation::Softmax),
        ],
    }
}

/// Ends in the flag.
fn record_layout() -> Layout {
    Layout {
        segments: vec![
            Segment::new(1, Activation::Tanh),
            Segment::new(1, Activation::Sigmoid),
            Segment::new(2, Activation::Softmax),
        ],
    }
}

/// Checks each parameter's gradient against central differences of `loss`.
fn check_gradients<'a>(
    parameters: impl Iterator<Item = &'a Parameter>,
    mut loss: impl FnMut() -> f64,
) {
    let step = 1e-5;
    for (index, parameter) in parameters.enumerate() {
        let before = numbers(&parameter.value);
        let gradient = numbers(&parameter.gradient);
        let scale = gradient.iter().fold(1e-3f64, |most, g| most.max(g.abs()));
        for at in 0..before.len() {
            let mut moved = |by: f64| {
                let mut values = before.clone();
                values[at] += by;
                let values =
                    Tensor::from_vec(values, parameter.value.shape(), parameter.value.device())
                        .unwrap();
                parameter.value.slice_set(&values, 0, 0).unwrap();
                loss()
            };
            let difference = (moved(step) - moved(-step)) / (2.0 * step);
            moved(0.0);
            let error = (gradient[at] - difference).abs() / scale;
            assert!(error <= 1e-6, "{index}[{at}]: {} {difference}", gradient[at]);
        }
    }
}

#[test]
fn attribute_generator_gradients_equal_central_differences() {
    for (device, ops) in places() {
        let mut init = Initializer::new(1, DType::F64, &device, false);
        let segments = Segments::new(&layout());
        let make = |init: &mut Initializer| {
            AttributeGenerator::new(init, 4, (3, 7), segments.clone(), DType::F64, &device).unwrap()
        };
        let mut generator = make(&mut init);
        let input = normals(&device, &[6, 4], 0);
        let direction = normals(&device, &[6, 10], 1);
        let pass = generator.forward(ops, &input).unwrap();
        generator.backward(ops, &pass, &direction.copy().unwrap()).unwrap();
        // A second generator over the same tensors, since forward updates running statistics.
        let parameters: Vec<Tensor> =
            generator.parameters().map(|parameter| parameter.value.clone()).collect();
        let mut twin = make(&mut Initializer::new(1, DType::F64, &device, false));
        check_gradients(generator.parameters(), || {
            for (parameter, value) in twin.parameters().zip(&parameters) {
                parameter.value.slice_set(&value.copy().unwrap(), 0, 0).unwrap();
            }
            let out = twin.forward(ops, &input).unwrap().attributes;
            numbers(&(out * &direction).unwrap()).iter().sum()
        });
    }
}

struct Setup {
    generator: RecordGenerator,
    input: Input,
    state: (Tensor, Tensor),
    samples: Tensor,
    shape: Shape,
}

fn setup(device: &Device, dtype: DType) -> Setup {
    let shape = Shape { steps: 3, batch: 4, per_step: 2, dim: 4 };
    let widths = Widths { fixed: 5, noise: 2, hidden: 3 };
    let mut init = Initializer::new(2, dtype, device, false);
    let segments = Segments::new(&record_layout());
    let generator =
        RecordGenerator::new(&mut init, &widths, segments, shape, dtype, device).unwrap();
    let draw = |shape: &[usize], index| normals(device, shape, index).to_dtype(dtype).unwrap();
    // Large noise makes some flags say stop.
    let noise = (draw(&[12, 2], 3) * 3.0).unwrap();
    let input = Input { fixed: draw(&[4, 5], 2), noise };
    let state = (draw(&[4, 3], 4), draw(&[4, 3], 5));
    let samples = draw(&[4, 26], 6);
    Setup { generator, input, state, samples, shape }
}

#[test]
fn record_generator_gradients_equal_central_differences() {
    for (device, ops) in places() {
        let Setup { generator, input, state, samples, .. } = setup(&device, DType::F64);
        let direction = normals(&device, &[4, 26], 7);
        let run = || {
            generator.prepare(ops, &input).unwrap();
            generator.forward(ops, (&state.0, &state.1), &samples).unwrap()
        };
        let alive = run();
        let stopped = numbers(&alive).iter().filter(|&&on| on == 0.0).count();
        assert!((1..23).contains(&stopped), "{stopped} masked records test nothing");
        generator.backward(ops, &input, &alive, &direction).unwrap();
        check_gradients(generator.parameters(), || {
            run();
            let records = samples.narrow(1, 0, 24).unwrap();
            let direction = direction.narrow(1, 0, 24).unwrap();
            numbers(&(records * direction).unwrap()).iter().sum()
        });
    }
}

#[test]
fn records_after_a_stop_are_zero_and_other_columns_stay() {
    for (device, ops) in places() {
        let Setup { generator, input, state, samples, shape } = setup(&device, DType::F64);
        let before = numbers(&samples);
        generator.prepare(ops, &input).unwrap();
        generator.forward(ops, (&state.0, &state.1), &samples).unwrap();
        let after = numbers(&samples);
        for (row, old) in after.chunks(26).zip(before.chunks(26)) {
            assert_eq!(row[24..], old[24..]);
            let mut alive = true;
            for record in row[..24].chunks(shape.dim) {
                assert_eq!(record.iter().any(|&value| value != 0.0), alive);
                alive &= record[3] > 0.5;
            }
        }
        assert!(after.chunks(26).any(|row| row[20..24].iter().all(|&value| value == 0.0)));
    }
}

#[test]
fn softmax_segments_become_one_hot_and_the_rest_stays() {
    let x = [0.4f64, 0.6, 0.5, 0.5, 0.3, 0.7, -0.2, 0.2, 0.2, 0.6];
    for (device, ops) in places() {
        let tensor = Tensor::from_slice(&x, (1, 10), &device).unwrap();
        let discrete = numbers(&ops.one_hot(&tensor, &Segments::new(&layout())).unwrap());
        assert_eq!(discrete, [0.0, 1.0, 1.0, 0.0, 0.3, 0.7, -0.2, 0.0, 0.0, 1.0]);
        assert_eq!(numbers(&tensor), x);
    }
    let singles = x.map(|x| x as f32);
    let plain = reference::made_discrete(&singles, &layout());
    assert_eq!(plain, [0.0, 1.0, 1.0, 0.0, 0.3, 0.7, -0.2, 0.0, 0.0, 1.0]);
}

/// Statistical: one seed, the bound is four standard errors.
#[test]
fn sampled_classes_are_as_frequent_as_their_probabilities() {
    const ROWS: usize = 20_000;
    let x = [0.4f32, 0.6, 0.001, 0.999, 0.3, 0.7, -0.2, 0.0, 0.2, 0.8];
    let segments = Segments::new(&layout());
    let race = segments.draw_race(ROWS, &mut Stream::new(3, Purpose::Training, 0));
    let sampled = |(device, ops): &(Device, Ops)| {
        let many = Tensor::from_vec(x.repeat(ROWS), (ROWS, 10), device).unwrap();
        let race = Tensor::from_vec(race.clone(), (ROWS, 10), device).unwrap();
        let sampled = floats(&ops.sampled(&many, &race, &segments).unwrap());
        assert_eq!(floats(&many), x.repeat(ROWS));
        sampled
    };
    let places = places();
    let fused = sampled(&places[0]);
    for place in &places[1..] {
        assert_eq!(sampled(place), fused);
    }
    for classes in [0..2, 2..4, 7..10] {
        for row in fused.chunks(10) {
            let row = &row[classes.clone()];
            assert!(row.iter().all(|&value| value == 0.0 || value == 1.0), "{row:?}");
            assert_eq!(row.iter().sum::<f32>(), 1.0);
        }
        for class in classes {
            let expected = f64::from(x[class]);
            let found = fused.iter().skip(class).step_by(10).filter(|&&value| value == 1.0).count();
            let found = found as f64 / ROWS as f64;
            let bound = 4.0 * (expected * (1.0 - expected) / ROWS as f64).sqrt();
            assert!((found - expected).abs() <= bound, "{class}: {found}, expected {expected}");
        }
    }
    assert!(fused.chunks(10).all(|row| row[4..7] == x[4..7]));
}

#[test]
fn only_sampling_draws_from_the_stream() {
    let mut init = Initializer::new(1, DType::F32, &Device::Cpu, false);
    let segments = Segments::new(&layout());
    let generator =
        AttributeGenerator::new(&mut init, 4, (2, 7), segments, DType::F32, &Device::Cpu).unwrap();
    let x = Tensor::full(0.5f32, (3, 10), &Device::Cpu).unwrap();
    let stream = || Stream::new(3, Purpose::Training, 0);
    let next = |how| {
        let mut stream = stream();
        generator.discrete(Ops::on(&Device::Cpu), &x, how, &mut stream).unwrap();
        stream.next_u64()
    };
    assert_eq!(next(Discretize::Argmax), stream().next_u64());
    assert_ne!(next(Discretize::Sample), stream().next_u64());
}

#[test]
fn the_plain_forward_gives_what_training_generates() {
    let (device, ops) = (Device::Cpu, Ops::on(&Device::Cpu));
    let Setup { generator, input, state, samples, shape } = setup(&device, DType::F32);
    generator.prepare(ops, &input).unwrap();
    let alive = floats(&generator.forward(ops, (&state.0, &state.1), &samples).unwrap());
    let mut weights = GeneratorWeights::default();
    generator.export(3, &mut weights).unwrap();
    assert_eq!((weights.lstm_attributes.len(), weights.lstm_condition.len()), (36, 24));
    let (fixed, noise) = (floats(&input.fixed), floats(&input.noise));
    let (hidden, cell) = (floats(&state.0), floats(&state.1));
    let samples = floats(&samples);
    for sample in 0..shape.batch {
        let mut hidden = hidden[sample * 3..][..3].to_vec();
        let mut cell = cell[sample * 3..][..3].to_vec();
        for step in 0..shape.steps {
            let step_input = StepInput {
                attributes: &fixed[sample * 5..][..3],
                condition: &fixed[sample * 5 + 3..][..2],
                noise: &noise[(step * shape.batch + sample) * 2..][..2],
            };
            let layout = record_layout();
            let records =
                reference::forward_step(&weights, &layout, step_input, &mut hidden, &mut cell);
            for (index, record) in records.chunks(4).enumerate() {
                let on = alive[(step * shape.batch + sample) * 2 + index];
                let found = &samples[sample * 26 + (step * 2 + index) * 4..][..4];
                for (found, expected) in found.iter().zip(record) {
                    assert!((found - expected * on).abs() < 1e-5, "{found} {expected}");
                }
            }
        }
    }
}

#[test]
fn running_statistics_follow_pytorch() {
    for (device, ops) in places() {
        let mut init = Initializer::new(1, DType::F32, &device, false);
        let segments = Segments::new(&layout());
        let mut generator =
            AttributeGenerator::new(&mut init, 2, (2, 3), segments, DType::F32, &device).unwrap();
        let x =
            Tensor::from_slice(&[0.5f32, 1.0, -1.5, 2.0, 0.25, -0.75], (3, 2), &device).unwrap();
        generator.forward(ops, &x).unwrap();
        let (hidden, _) = generator.export().unwrap();
        let layer = &hidden[0];
        for unit in 0..3 {
            let outputs: Vec<f32> = floats(&x)
                .chunks(2)
                .map(|x| {
                    let weight = |input: usize| layer.linear.weight[input * 3 + unit];
                    (x[0] * weight(0) + x[1] * weight(1) + layer.linear.bias[unit]).max(0.0)
                })
                .collect();
            let mean = outputs.iter().sum::<f32>() / 3.0;
            let unbiased = outputs.iter().map(|y| (y - mean).powi(2)).sum::<f32>() / 2.0;
            assert!((layer.norm.mean[unit] - 0.9 * mean).abs() < 1e-6);
            assert!((layer.norm.variance[unit] - (0.1 + 0.9 * unbiased)).abs() < 1e-6);
        }
        // The plain forward takes them.
        let noise = [0.3, -0.2];
        let attributes = reference::forward_attributes(
            &GeneratorWeights {
                attribute_hidden: hidden,
                attribute_head: generator.export().unwrap().1,
                ..GeneratorWeights::default()
            },
            &layout(),
            &noise,
            &[],
        );
        assert_eq!(attributes.len(), 10);
        assert!((attributes[0] + attributes[1] - 1.0).abs() < 1e-6);
    }
}

/// Three steps of gradient 1, -2, 3 from 1 with lr 0.1, betas (0.5, 0.999),
/// worked out by the formulas of Kingma and Ba.
#[test]
fn adam_takes_the_published_steps() {
    for amsgrad in [false, true] {
        for (device, ops) in places() {
            let mut init = Initializer::new(1, DType::F64, &device, amsgrad);
            let parameter = init.constant(&[2], 1.0).unwrap();
            let mut adam = Adam::new(0.1, 0.5, 1e-8);
            let (mut m, mut v, mut most, mut expected) = (0.0f64, 0.0f64, 0.0f64, 1.0f64);
            for (step, gradient) in [1.0f64, -2.0, 0.01].into_iter().enumerate() {
                let tensor = Tensor::full(gradient, 2, &device).unwrap();
                parameter.gradient.slice_set(&tensor, 0, 0).unwrap();
                adam.step(ops, [&parameter]).unwrap();
                m = 0.5 * m + 0.5 * gradient;
                v = 0.999 * v + 0.001 * gradient * gradient;
                most = if amsgrad { most.max(v) } else { v };
                let t = step as i32 + 1;
                let (first, second) = (m / (1.0 - 0.5f64.powi(t)), most / (1.0 - 0.999f64.powi(t)));
                expected -= 0.1 * first / (second.sqrt() + 1e-8);
                for value in numbers(&parameter.value) {
                    assert!((value - expected).abs() < 1e-12, "{value} {expected}");
                }
            }
        }
    }
}
