use super::{Checkpoint, Losses, NamedTensor, Samples, TrainError, Trainer};
use crate::model::config::{
    ConfigError, Discretize, DoppelgangerConfig, GradientPenaltyAt, NoiseDraw,
};
use crate::model::ops::{Ops, places};
use crate::model::reference::{self, StepInput};
use crate::model::weights::GeneratorWeights;
use candle_core::Device;
use ns_model_format::layout::{Activation, Layout, Segment};
use ns_model_format::manifest::InitialState;
use ns_model_format::random::{Purpose, Stream};

/// Flows of two kinds: one record of value .2, or four of value .8; the
/// attribute says which. One condition, one constant attribute.
fn toy(count: usize) -> Samples {
    let mut samples = Samples::new(attribute_layout(), measurement_layout(), 1, 0);
    for flow in 0..count {
        let long = flow % 4 == 0;
        let attributes = if long { [0.0, 1.0, 0.5] } else { [1.0, 0.0, 0.5] };
        let mut records = Vec::new();
        let length = if long { 4 } else { 1 };
        for record in 0..length {
            records.push(if long { 0.8 } else { 0.2 });
            records.extend(if record + 1 < length { [0.0, 1.0] } else { [1.0, 0.0] });
        }
        samples.push(&attributes, &[flow as f32 / count as f32], &records).unwrap();
    }
    samples
}

fn attribute_layout() -> Layout {
    let kind = Segment::new(2, Activation::Softmax);
    Layout { segments: vec![kind, Segment::new(1, Activation::Sigmoid)] }
}

fn measurement_layout() -> Layout {
    let flag = Segment::new(2, Activation::Softmax);
    Layout { segments: vec![Segment::new(1, Activation::Sigmoid), flag] }
}

fn small() -> DoppelgangerConfig {
    DoppelgangerConfig {
        batch_size: 16,
        sample_len: 2,
        d_rounds: 2,
        generator_feature_num_units: 12,
        generator_attribute_num_layers: 3,
        generator_attribute_num_units: 16,
        discriminator_num_layers: 3,
        discriminator_num_units: 24,
        attr_discriminator_num_layers: 3,
        attr_discriminator_num_units: 16,
        ..DoppelgangerConfig::default()
    }
}

fn train(
    samples: Samples,
    config: DoppelgangerConfig,
    (device, ops): &(Device, Ops),
) -> (Losses, Vec<NamedTensor>) {
    let mut trainer = Trainer::with_ops(samples, config, 11, device, *ops).unwrap();
    let mut losses = Losses::default();
    for _ in 0..4 {
        losses = trainer.iteration().unwrap();
    }
    (losses, trainer.named_tensors().unwrap())
}

fn variants() -> Vec<DoppelgangerConfig> {
    vec![
        small(),
        DoppelgangerConfig { num_packing: 3, g_rounds: 2, adam_amsgrad: true, ..small() },
        DoppelgangerConfig {
            noise_draw: NoiseDraw::PerRound,
            use_attr_discriminator: false,
            ..small()
        },
        DoppelgangerConfig { discretize: Discretize::Sample, ..small() },
        DoppelgangerConfig {
            gp_at: GradientPenaltyAt::Fake,
            initial_state: InitialState::Zero,
            sample_len: 10,
            ..small()
        },
        DoppelgangerConfig {
            generator_attribute_num_layers: 1,
            discriminator_num_layers: 2,
            ..small()
        },
    ]
}

#[test]
fn every_way_to_compute_trains_the_same_weights() {
    let places = places();
    let others =
        |config| places[1..].iter().map(move |place| (DoppelgangerConfig::clone(config), place));
    for (config, place) in variants().iter().flat_map(others) {
        let (losses, fused) = train(toy(40), config.clone(), &places[0]);
        let (plain_losses, plain) = train(toy(40), config, place);
        assert_eq!(fused.len(), plain.len());
        let (mut far, mut furthest, mut all) = (0, 0.0_f32, 0);
        for ((name, shape, fused), (_, plain_shape, plain)) in fused.iter().zip(&plain) {
            assert_eq!(shape, plain_shape);
            assert_eq!(shape.iter().product::<usize>(), fused.len(), "{name}");
            for (fused, plain) in fused.iter().zip(plain) {
                // Adam turns a gradient of almost 0 into a step of either sign.
                far += usize::from((fused - plain).abs() > 2e-4);
                furthest = furthest.max((fused - plain).abs());
                all += 1;
            }
        }
        let losses =
            [losses.critic - plain_losses.critic, losses.generator - plain_losses.generator];
        println!("{place:?}: {losses:?}, {far} of {all} weights, the furthest by {furthest}");
        // Exponentials and sums that a GPU rounds otherwise let more of them go either way.
        let (loss, share, most) =
            if place.0.is_cpu() { (1e-4, 0, 2e-4) } else { (2e-3, all / 100, 5e-3) };
        assert!(losses.iter().all(|difference| difference.abs() < loss), "{losses:?}");
        assert!(far <= share && furthest <= most, "{far} of {all} weights, by {furthest}");
    }
}

#[test]
fn every_way_to_draw_noise_and_attributes_trains_other_weights() {
    let ways = [
        small(),
        DoppelgangerConfig { noise_draw: NoiseDraw::PerRound, ..small() },
        DoppelgangerConfig { discretize: Discretize::Sample, ..small() },
    ];
    let [usual, per_round, sampled] = ways.map(|config| train(toy(40), config, &places()[0]).1);
    assert_ne!(usual, per_round);
    assert_ne!(usual, sampled);
    // With one round they are one way.
    let one = [NoiseDraw::PerIteration, NoiseDraw::PerRound].map(|noise_draw| {
        let config = DoppelgangerConfig { noise_draw, d_rounds: 1, ..small() };
        train(toy(40), config, &places()[0]).1
    });
    assert_eq!(one[0], one[1]);
}

#[test]
fn the_same_seed_gives_the_same_weights_for_any_thread_count() {
    // Wide enough that products are shared out among threads.
    let config = DoppelgangerConfig {
        batch_size: 64,
        discriminator_num_units: 256,
        generator_attribute_num_units: 256,
        ..small()
    };
    let run = |threads| {
        super::set_threads(threads);
        train(toy(40), config.clone(), &places()[0])
    };
    let one = run(1);
    assert_eq!(one, run(1));
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
    super::set_threads(0);
}

/// A trainer of samples that are like one another's in all but their number.
fn trainer(count: usize, config: &DoppelgangerConfig, seed: u64) -> Trainer {
    let mut samples = toy(count);
    samples.room = 6;
    Trainer::new(samples, config.clone(), seed, &Device::Cpu).unwrap()
}

fn go_on(trainer: &mut Trainer, iterations: u64) {
    for _ in 0..iterations {
        trainer.iteration().unwrap();
    }
}

#[test]
fn training_starts_from_another_s_weights() {
    let config = DoppelgangerConfig { generator_ema: 0.9, ..small() };
    let mut first = trainer(40, &config, 3);
    go_on(&mut first, 12);
    let first = first.checkpoint().unwrap();
    let from_first = |iterations| {
        let mut second = trainer(30, &config, 4);
        second.start_from(&first).unwrap();
        go_on(&mut second, iterations);
        second.generator_weights().unwrap()
    };
    assert_eq!(from_first(3), from_first(3));
    // Three small steps away, not a new beginning.
    let distance = |a: &GeneratorWeights, b: &GeneratorWeights| {
        let (a, b) = (a.tensors(), b.tensors());
        let pairs = a.iter().zip(&b).flat_map(|((_, _, a), (_, _, b))| a.iter().zip(b.iter()));
        pairs.map(|(a, b)| (a - b).abs()).sum::<f32>()
    };
    let mut anew = trainer(30, &config, 4);
    go_on(&mut anew, 3);
    let begun = from_first(0);
    let anew = anew.generator_weights().unwrap();
    assert!(distance(&from_first(3), &begun) < 0.1 * distance(&anew, &begun));
    // Networks for longer samples are others.
    let mut longer = toy(30);
    longer.room = 9;
    let mut longer = Trainer::new(longer, config.clone(), 1, &Device::Cpu).unwrap();
    let error = longer.start_from(&first).unwrap_err();
    assert!(error.to_string().contains("weights to start from"), "{error}");
    assert!(longer.resume(&first).is_err());
}

#[test]
fn a_checkpoint_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let averaged = DoppelgangerConfig { generator_ema: 0.9, ..small() };
    for config in variants().into_iter().chain([averaged]) {
        let mut unbroken = trainer(40, &config, 3);
        // In the middle of a pass, and of the average's interval.
        go_on(&mut unbroken, 7);
        unbroken.set_rate(0.5);
        unbroken.checkpoint().unwrap().write(&path, &"more").unwrap();
        let (checkpoint, more) = Checkpoint::read::<String>(&path).unwrap();
        assert_eq!((checkpoint.place.iteration, more.as_str()), (7, "more"));
        let mut resumed = trainer(40, &config, 3);
        resumed.resume(&checkpoint).unwrap();
        assert_eq!(resumed.checkpoint().unwrap(), checkpoint);
        go_on(&mut unbroken, 6);
        go_on(&mut resumed, 6);
        assert_eq!(resumed.checkpoint().unwrap(), unbroken.checkpoint().unwrap());
        assert_eq!(resumed.generator_weights().unwrap(), unbroken.generator_weights().unwrap());
    }
}

#[test]
fn weights_that_are_no_numbers_are_never_kept() {
    let config = DoppelgangerConfig { g_lr: 1e30, ..small() };
    let mut trainer = trainer(40, &config, 3);
    let diverged = (0..50).any(|_| trainer.iteration().is_err());
    assert!(diverged, "steps so large leave the numbers");
    let error = trainer.checkpoint().unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
}

#[test]
fn samples_come_back_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("samples.safetensors");
    let mut samples = toy(40);
    samples.room = 6;
    samples.write(&path).unwrap();
    assert_eq!(Samples::read(&path).unwrap(), samples);
}

#[test]
fn gradients_and_collapse_are_told() {
    let mut trainer = trainer(40, &small(), 3);
    go_on(&mut trainer, 1);
    let norms = trainer.gradient_norms().unwrap();
    assert!(norms.iter().all(|norm| norm.is_finite() && *norm > 0.0), "{norms:?}");
    let [generated, real] = trainer.unique_attributes().unwrap();
    assert!(generated > 0.0 && generated <= 1.0);
    // Two kinds of flows, in a batch of 16.
    assert_eq!(real, 2.0 / 16.0);
}

#[test]
fn another_seed_gives_other_weights() {
    let weights = |seed| {
        let trainer = Trainer::new(toy(9), small(), seed, &Device::Cpu).unwrap();
        trainer.generator_weights().unwrap()
    };
    assert_eq!(weights(1), weights(1));
    assert_ne!(weights(1), weights(2));
}

#[test]
fn weights_exist_before_training_and_have_their_shapes() {
    let trainer = Trainer::new(toy(9), small(), 1, &Device::Cpu).unwrap();
    let weights = trainer.generator_weights().unwrap();
    assert_eq!((weights.hidden_dim(), weights.noise_dim()), (12, 5));
    assert_eq!(weights.attribute_noise_dims(1), (5, 0));
    assert_eq!(weights.attribute_hidden.len(), 2);
    assert_eq!(weights.record_head.bias.len(), 2 * 3);
    for (name, shape, values) in weights.tensors() {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
    }
    assert_eq!(trainer.iterations_per_epoch(), 1);
}

#[test]
fn fewer_flows_than_a_batch_can_be_trained_on() {
    for place in &places() {
        for count in [2, 3, 15] {
            train(toy(count), small(), place);
        }
    }
}

#[test]
fn flows_of_length_one_and_no_condition_can_be_trained_on() {
    let mut samples = Samples::new(attribute_layout(), measurement_layout(), 0, 0);
    for _ in 0..15 {
        samples.push(&[1.0, 0.0, 0.5], &[], &[0.2, 1.0, 0.0]).unwrap();
    }
    for place in &places() {
        for config in variants() {
            train(samples.clone(), config, place);
        }
    }
}

#[test]
fn bad_samples_and_hyperparameters_are_errors() {
    let refuse = |samples: Samples, config: DoppelgangerConfig| {
        Trainer::new(samples, config, 1, &Device::Cpu).err().expect("an error")
    };
    assert!(matches!(refuse(toy(1), small()), TrainError::TooFewSamples { found: 1 }));
    assert!(matches!(refuse(Samples::default(), small()), TrainError::TooFewSamples { found: 0 }));
    let leaky = DoppelgangerConfig { leaky_relu: true, ..small() };
    assert!(matches!(refuse(toy(4), leaky), TrainError::Config(ConfigError::LeakyRelu)));
    let none = DoppelgangerConfig { d_rounds: 0, ..small() };
    assert!(matches!(refuse(toy(4), none), TrainError::Config(ConfigError::Count { .. })));
    let negative = DoppelgangerConfig { g_lr: f64::NAN, ..small() };
    assert!(matches!(refuse(toy(4), negative), TrainError::Config(ConfigError::Number { .. })));
    let mut flagless = measurement_layout();
    flagless.segments.pop();
    let mut samples = Samples::new(attribute_layout(), flagless, 0, 0);
    for _ in 0..2 {
        samples.push(&[1.0, 0.0, 0.5], &[], &[0.2]).unwrap();
    }
    assert!(matches!(refuse(samples, small()), TrainError::NoFields { .. }));
}

#[test]
fn bad_samples_are_refused_on_the_way_in() {
    let mut samples = toy(4);
    let good = ([1.0, 0.0, 0.5], [0.0], [0.2, 1.0, 0.0]);
    let mut refuse = |attributes: &[f32], condition: &[f32], records: &[f32]| {
        let error = samples.push(attributes, condition, records).expect_err("refused");
        assert_eq!(samples.len(), 4);
        error.to_string()
    };
    let error = refuse(&good.0[..2], &good.1, &good.2);
    assert_eq!(error, "a sample's attributes hold 2 values, expected 3");
    let error = refuse(&good.0, &[], &good.2);
    assert_eq!(error, "a sample's conditions hold 0 values, expected 1");
    let error = refuse(&good.0, &good.1, &[0.2, 1.0, 0.0, 0.5]);
    assert_eq!(error, "a sample's records hold 4 values, expected 6");
    let error = refuse(&good.0, &good.1, &[]);
    assert_eq!(error, "a sample's records hold 0 values, expected 3");
    let error = refuse(&good.0, &good.1, &[f32::NAN, 1.0, 0.0]);
    assert_eq!(error, "sample 4: value 0 of its measurements is not a finite number");
    samples.push(&good.0, &good.1, &good.2).unwrap();
}

#[test]
fn rows_hold_what_was_put_in() {
    let samples = toy(5);
    assert_eq!((samples.len(), samples.records(), samples.longest()), (5, 11, 4));
    let rows = samples.rows(&[4, 1], 4);
    let (long, short) = rows.split_at(4 * 3 + 3 + 1);
    let record = |value: f32, more: bool| [value, f32::from(!more), f32::from(more)];
    let four = [record(0.8, true), record(0.8, true), record(0.8, true), record(0.8, false)];
    assert_eq!(long, [&four.concat()[..], &[0.0, 1.0, 0.5, 0.8]].concat());
    let one = [&record(0.2, false)[..], &[0.0; 9]].concat();
    assert_eq!(short, [&one[..], &[1.0, 0.0, 0.5, 0.2]].concat());
}

#[test]
fn divergence_is_an_error() {
    let config = DoppelgangerConfig { g_lr: 1e30, d_lr: 1e30, attr_d_lr: 1e30, ..small() };
    let mut trainer = Trainer::new(toy(20), config, 1, &Device::Cpu).unwrap();
    let error = (0..5).find_map(|_| trainer.iteration().err()).expect("divergence");
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
}

/// Share of long flows, and mean length and first value of each kind.
fn generated(trainer: &Trainer, samples: &Samples) -> (f32, [f32; 2], [f32; 2]) {
    let weights = trainer.generator_weights().unwrap();
    let mut stream = Stream::new(1, Purpose::Attributes, 0);
    let count = 400;
    let (mut flows, mut lengths, mut values) = ([0.0f32; 2], [0.0; 2], [0.0; 2]);
    for flow in 0..count {
        let condition = [flow as f32 / count as f32];
        let mut draw = |count| (0..count).map(|_| stream.normal()).collect::<Vec<f32>>();
        let attributes = reference::forward_attributes(
            &weights,
            &samples.attribute_layout,
            &draw(5),
            &condition,
        );
        let attributes = reference::made_discrete(&attributes, &samples.attribute_layout);
        let kind = usize::from(attributes[1] == 1.0);
        let (mut hidden, mut cell) = (draw(weights.hidden_dim()), draw(weights.hidden_dim()));
        let mut length = 0;
        'flow: for step in 0..2 {
            let noise = draw(5);
            let input = StepInput { attributes: &attributes, condition: &condition, noise: &noise };
            let records = reference::forward_step(
                &weights,
                &samples.measurement_layout,
                input,
                &mut hidden,
                &mut cell,
            );
            if step == 0 {
                values[kind] += records[0];
            }
            for record in records.chunks(3) {
                length += 1;
                if record[2] <= 0.5 {
                    break 'flow;
                }
            }
        }
        flows[kind] += 1.0;
        lengths[kind] += length as f32;
    }
    let mean = |sums: [f32; 2]| [sums[0] / flows[0].max(1.0), sums[1] / flows[1].max(1.0)];
    (flows[1] / count as f32, mean(lengths), mean(values))
}

/// Statistical: seed 11; the bounds are about twice what is left after this many iterations.
#[test]
fn training_moves_generated_statistics_towards_the_data() {
    let samples = toy(400);
    let config = DoppelgangerConfig {
        batch_size: 64,
        d_rounds: 3,
        g_lr: 2e-3,
        d_lr: 2e-3,
        attr_d_lr: 2e-3,
        generator_feature_num_units: 24,
        generator_attribute_num_units: 32,
        discriminator_num_units: 48,
        attr_discriminator_num_units: 32,
        ..small()
    };
    let mut trainer = Trainer::new(samples.clone(), config, 11, &Device::Cpu).unwrap();
    let before = generated(&trainer, &samples);
    for _ in 0..600 {
        trainer.iteration().unwrap();
    }
    let after = generated(&trainer, &samples);
    println!("before {before:?}\nafter {after:?}");
    let (share, lengths, values) = after;
    assert!((share - 0.25).abs() < 0.1, "{before:?} {after:?}");
    assert!((lengths[0] - 1.0).abs() < 0.25 && (lengths[1] - 4.0).abs() < 0.5, "{after:?}");
    assert!((values[0] - 0.2).abs() < 0.1 && (values[1] - 0.8).abs() < 0.1, "{after:?}");
}
