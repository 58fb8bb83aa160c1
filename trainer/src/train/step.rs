//! The trainer: networks, optimizers, and one iteration.

use super::batch::{Samples, Visits};
use super::error::TrainError;
use crate::model::attributes::{AttributeGenerator, Pass};
use crate::model::config::{DoppelgangerConfig, GradientPenaltyAt, NoiseDraw};
use crate::model::critic::{Critic, Judgement};
use crate::model::ops::Ops;
use crate::model::ops::dense::Columns;
use crate::model::ops::segments::{Segments, Shape};
use crate::model::parameter::{Adam, Initializer, Parameter};
use crate::model::records::{Input, RecordGenerator, Widths};
use crate::model::weights::GeneratorWeights;
use candle_core::{DType, Device, Tensor};
use ns_model_format::Layout;
use ns_model_format::manifest::InitialState;
use ns_model_format::random::{Purpose, Stream};

/// One iteration's losses, each of its last round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// The critic's: mean output for generated minus for real, plus the weighted penalty.
    pub critic: f32,
    /// The attribute critic's; 0 without one.
    pub attribute_critic: f32,
    /// The generator's: minus the critics' mean outputs for generated samples.
    pub generator: f32,
    /// The critic's gradient penalty, without its weight.
    pub gradient_penalty: f32,
    /// The attribute critic's gradient penalty, without its weight.
    pub attribute_gradient_penalty: f32,
}

/// The weights of all networks, critics included, as plain numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Every trained tensor.
    parameters: Vec<Vec<f32>>,
    /// Running statistics of the generator.
    statistics: Vec<Vec<f32>>,
}

/// A tensor's name, shape and numbers, row by row.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// Trains a DoppelGANger on samples.
pub struct Trainer {
    samples: Samples,
    config: DoppelgangerConfig,
    seed: u64,
    device: Device,
    ops: Ops,
    visits: Visits,
    iteration: u64,
    attributes: AttributeGenerator,
    /// Generates the additional attributes, given the others.
    additional: Option<AttributeGenerator>,
    records: RecordGenerator,
    critic: Critic,
    attribute_critic: Option<Critic>,
    generator_adam: Adam,
    critic_adam: Adam,
    attribute_critic_adam: Adam,
    /// Padded length in records.
    padded: usize,
    /// The moving average of the generator's weights, where wanted.
    averaged: Option<GeneratorWeights>,
}

/// The moving average takes the weights in every so many iterations: often
/// enough to be smooth, seldom enough to cost nothing.
const AVERAGE_EVERY: u64 = 5;

/// What generated samples are made from.
struct Drawn {
    pass: Pass,
    additional: Option<Pass>,
    input: Input,
}

impl Trainer {
    /// Builds the networks with their first weights.
    ///
    /// # Errors
    ///
    /// Hyperparameters out of range, samples that contradict themselves or are
    /// too few, or a failing device.
    pub fn new(
        samples: Samples,
        config: DoppelgangerConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Trainer, TrainError> {
        Trainer::with_ops(samples, config, seed, device, Ops::on(device))
    }

    pub(super) fn with_ops(
        samples: Samples,
        config: DoppelgangerConfig,
        seed: u64,
        device: &Device,
        ops: Ops,
    ) -> Result<Trainer, TrainError> {
        config.validate()?;
        samples.validate()?;
        let dtype = DType::F32;
        let padded = samples.padded_len(config.sample_len);
        let (attribute_dim, condition_dim) =
            (samples.attribute_layout.dim(), samples.condition_dim);
        let batch = config.batch_size * config.num_packing;
        let mut init = Initializer::new(seed, dtype, device, config.adam_amsgrad);
        let (own, additional) = samples.attribute_layouts()?;
        let mut generator = |inputs: usize, layout: &Layout| {
            AttributeGenerator::new(
                &mut init,
                inputs,
                (config.generator_attribute_num_layers, config.generator_attribute_num_units),
                Segments::new(layout),
                dtype,
                device,
            )
        };
        let inputs = config.attribute_latent_dim + condition_dim;
        let attributes = generator(inputs, &own)?;
        let additional = match samples.additional_dim {
            0 => None,
            _ => Some(generator(inputs + own.dim(), &additional)?),
        };
        let shape = Shape {
            steps: padded / config.sample_len,
            batch,
            per_step: config.sample_len,
            dim: samples.measurement_layout.dim(),
        };
        let widths = Widths {
            fixed: attribute_dim + condition_dim,
            noise: config.feature_latent_dim,
            hidden: config.generator_feature_num_units,
        };
        let segments = Segments::new(&samples.measurement_layout);
        let records = RecordGenerator::new(&mut init, &widths, segments, shape, dtype, device)?;
        let width = samples.row_dim(padded);
        let critic = Critic::new(
            &mut init,
            (config.discriminator_num_layers, config.discriminator_num_units),
            (config.batch_size, config.num_packing),
            Columns { of_sample: width, counted: width - condition_dim },
            dtype,
            device,
        )?;
        let attribute_critic = if config.use_attr_discriminator {
            Some(Critic::new(
                &mut init,
                (config.attr_discriminator_num_layers, config.attr_discriminator_num_units),
                (config.batch_size, config.num_packing),
                Columns { of_sample: widths.fixed, counted: attribute_dim },
                dtype,
                device,
            )?)
        } else {
            None
        };
        let adam = |lr, beta1| Adam::new(lr, beta1, config.adam_eps);
        Ok(Trainer {
            seed,
            device: device.clone(),
            ops,
            visits: Visits::new(seed, samples.len()),
            iteration: 0,
            attributes,
            additional,
            records,
            critic,
            attribute_critic,
            generator_adam: adam(config.g_lr, config.g_beta1),
            critic_adam: adam(config.d_lr, config.d_beta1),
            attribute_critic_adam: adam(config.attr_d_lr, config.attr_d_beta1),
            padded,
            averaged: None,
            samples,
            config,
        })
    }

    /// Iterations after which every sample has been visited about once.
    #[must_use]
    pub fn iterations_per_epoch(&self) -> usize {
        self.samples.iterations_per_epoch(self.config.batch_size)
    }

    /// Iterations done.
    #[must_use]
    pub fn iterations(&self) -> u64 {
        self.iteration
    }

    /// One iteration: `d_rounds` updates of the critics, then `g_rounds` of the generator.
    ///
    /// # Errors
    ///
    /// A loss that is not finite, or a failing device.
    pub fn iteration(&mut self) -> Result<Losses, TrainError> {
        self.iteration += 1;
        let mut stream = Stream::new(self.seed, Purpose::Training, self.iteration - 1);
        let mut judged = None;
        let mut drawn: Option<Drawn> = None;
        let mut alive = None;
        for _ in 0..self.config.d_rounds {
            let ready = match drawn.take() {
                Some(ready) if self.config.noise == NoiseDraw::PerIteration => ready,
                _ => self.draw(&mut stream)?,
            };
            alive = Some(self.generate(&mut stream)?);
            judged = Some(self.train_critics(&mut stream)?);
            drawn = Some(ready);
        }
        let (Some(judged), Some(mut drawn), Some(mut alive)) = (judged, drawn, alive) else {
            // `validate` has seen to at least one round.
            return Ok(Losses::default());
        };
        let mut generator = None;
        for round in 0..self.config.g_rounds {
            // The first round takes the samples that the critics judged last.
            if round > 0 {
                drawn = self.draw(&mut stream)?;
                alive = self.generate(&mut stream)?;
            }
            generator = Some(self.train_generator(&drawn, &alive)?);
        }
        let losses = self.losses(judged, generator)?;
        self.average()?;
        Ok(losses)
    }

    /// Draws real samples and noise, and generates attributes.
    fn draw(&mut self, stream: &mut Stream) -> Result<Drawn, TrainError> {
        let batch = self.config.batch_size * self.config.num_packing;
        let picked = self.visits.take(batch);
        let Trainer { config, samples, device, .. } = &*self;
        let (condition_dim, latent) = (samples.condition_dim, config.attribute_latent_dim);

        let upload = |values: Vec<f32>, rows: usize| {
            let columns = values.len() / rows.max(1);
            Tensor::from_vec(values, (rows, columns), device)
        };
        let rows = upload(samples.rows(&picked, self.padded), batch)?;
        self.critic.real()?.slice_set(&rows, 0, 0)?;
        let conditions = samples.condition_rows(&picked);
        let mut noise_and_condition = || {
            let mut input = Vec::with_capacity(batch * (latent + condition_dim));
            for sample in 0..batch {
                input.extend((0..latent).map(|_| stream.normal()));
                input.extend(&conditions[sample * condition_dim..(sample + 1) * condition_dim]);
            }
            upload(input, batch)
        };
        let input = noise_and_condition()?;
        let second = self.additional.is_some().then(&mut noise_and_condition).transpose()?;
        let steps = self.padded / config.sample_len * batch;
        let mut noise = vec![0.0; steps * config.feature_latent_dim];
        stream.fill_normal(&mut noise);
        let noise = upload(noise, steps)?;
        // Without values there is nothing to place, and tensors do not like it.
        let conditions = (condition_dim > 0).then(|| upload(conditions, batch)).transpose()?;
        let fixed = upload(samples.fixed_rows(&picked), batch)?;

        let pass = self.attributes.forward(self.ops, &input)?;
        let mut discrete = self.attributes.discrete(self.ops, &pass.attributes)?;
        let mut attributes = pass.attributes.clone();
        let mut additional = None;
        if let (Some(network), Some(input)) = (&mut self.additional, second) {
            let pass = network.forward(self.ops, &Tensor::cat(&[&input, &discrete], 1)?)?;
            // Scales are numbers: there is nothing to make discrete.
            discrete = Tensor::cat(&[&discrete, &pass.attributes], 1)?;
            attributes = Tensor::cat(&[&attributes, &pass.attributes], 1)?;
            additional = Some(pass);
        }
        // The condition of a generated sample is that of the real one beside
        // it, so it does not change in between either.
        let beside = |attributes: &Tensor| match &conditions {
            Some(conditions) => Tensor::cat(&[attributes, conditions], 1),
            None => Ok(attributes.clone()),
        };
        let generated = beside(&attributes)?;
        let sequence = self.padded * self.samples.measurement_layout.dim();
        self.critic.fake()?.slice_set(&generated, 1, sequence)?;
        if let Some(critic) = &self.attribute_critic {
            critic.real()?.slice_set(&fixed, 0, 0)?;
            critic.fake()?.slice_set(&generated, 0, 0)?;
        }
        let input = Input { fixed: beside(&discrete)?, noise };
        self.records.prepare(self.ops, &input)?;
        Ok(Drawn { pass, additional, input })
    }

    /// Draws a first state and generates records.
    fn generate(&self, stream: &mut Stream) -> Result<Tensor, TrainError> {
        let batch = self.config.batch_size * self.config.num_packing;
        let shape = (batch, self.config.generator_feature_num_units);
        let mut state = || {
            let mut values = vec![0.0; shape.0 * shape.1];
            if self.config.initial_state == InitialState::Normal {
                stream.fill_normal(&mut values);
            }
            Tensor::from_vec(values, shape, &self.device)
        };
        let (hidden, cell) = (state()?, state()?);
        Ok(self.records.forward(self.ops, (&hidden, &cell), &self.critic.fake()?)?)
    }

    fn train_critics(
        &mut self,
        stream: &mut Stream,
    ) -> Result<(Judgement, Option<Judgement>), TrainError> {
        let batch = self.config.batch_size;
        let at = self.config.gp_at;
        let device = &self.device;
        let mut weights = || {
            let values: Vec<f32> = match at {
                GradientPenaltyAt::Interpolate => (0..batch).map(|_| stream.uniform()).collect(),
                GradientPenaltyAt::Fake => vec![1.0; batch],
            };
            Tensor::from_vec(values, batch, device)
        };
        let (ops, config) = (self.ops, &self.config);
        let (critic, adam) = (&self.critic, &mut self.critic_adam);
        let drawn = weights()?;
        let mut judge = || {
            let judged = critic.gradients(ops, &drawn, config.d_gp_coe)?;
            adam.step(ops, critic.parameters())?;
            Ok::<_, TrainError>(judged)
        };
        let Some(critic) = &self.attribute_critic else { return Ok((judge()?, None)) };
        let adam = &mut self.attribute_critic_adam;
        let drawn = weights()?;
        let (judged, attributes) = ops.both(judge, || {
            let judged = critic.gradients(ops, &drawn, config.attr_d_gp_coe)?;
            adam.step(ops, critic.parameters())?;
            Ok::<_, TrainError>(judged)
        });
        Ok((judged?, Some(attributes?)))
    }

    /// Returns the loss.
    fn train_generator(&mut self, drawn: &Drawn, alive: &Tensor) -> Result<Tensor, TrainError> {
        let ops = self.ops;
        let attribute_dim = self.samples.attribute_layout.dim();
        let sequence = self.padded * self.samples.measurement_layout.dim();
        let (output, gradient) = self.critic.input_gradient(ops, 1.0)?;
        let mut loss = output.neg()?;
        let mut attribute_gradient = gradient.narrow(1, sequence, attribute_dim)?.contiguous()?;
        if let Some(critic) = &self.attribute_critic {
            let scale = self.config.g_attr_d_coe;
            let (output, gradient) = critic.input_gradient(ops, scale)?;
            loss = (loss - (output * scale)?)?;
            attribute_gradient = (attribute_gradient + gradient.narrow(1, 0, attribute_dim)?)?;
        }
        self.records.backward(ops, &drawn.input, alive, &gradient)?;
        // The additional network's input is discrete: no gradient passes through it.
        let own_dim = attribute_dim - self.samples.additional_dim;
        if let (Some(network), Some(pass)) = (&self.additional, &drawn.additional) {
            let part = attribute_gradient.narrow(1, own_dim, self.samples.additional_dim)?;
            network.backward(ops, pass, &part.force_contiguous()?)?;
            attribute_gradient = attribute_gradient.narrow(1, 0, own_dim)?.force_contiguous()?;
        }
        self.attributes.backward(ops, &drawn.pass, &attribute_gradient)?;
        let additional = self.additional.iter().flat_map(AttributeGenerator::parameters);
        let parameters =
            self.attributes.parameters().chain(additional).chain(self.records.parameters());
        self.generator_adam.step(ops, parameters)?;
        Ok(loss)
    }

    fn losses(
        &self,
        (critic, attributes): (Judgement, Option<Judgement>),
        generator: Option<Tensor>,
    ) -> Result<Losses, TrainError> {
        // One transfer for all numbers.
        let zero = Tensor::zeros((), DType::F32, &self.device)?;
        let attributes = attributes
            .unwrap_or_else(|| Judgement { distance: zero.clone(), penalty: zero.clone() });
        let numbers = Tensor::stack(
            &[
                &critic.distance,
                &critic.penalty,
                &attributes.distance,
                &attributes.penalty,
                generator.as_ref().unwrap_or(&zero),
            ],
            0,
        )?
        .to_vec1::<f32>()?;
        let number = |index: usize| numbers.get(index).copied().unwrap_or(f32::NAN);
        let losses = Losses {
            critic: number(0) + self.config.d_gp_coe as f32 * number(1),
            attribute_critic: number(2) + self.config.attr_d_gp_coe as f32 * number(3),
            generator: number(4),
            gradient_penalty: number(1),
            attribute_gradient_penalty: number(3),
        };
        for (what, value) in [
            ("the critic's loss", losses.critic),
            ("the attribute critic's loss", losses.attribute_critic),
            ("the generator's loss", losses.generator),
        ] {
            self.finite(what, value)?;
        }
        Ok(losses)
    }

    fn finite(&self, what: &'static str, value: f32) -> Result<(), TrainError> {
        if value.is_finite() {
            return Ok(());
        }
        Err(TrainError::Diverged { iteration: self.iteration, what, value })
    }

    /// Takes the generator's weights into their moving average. Early on the
    /// average forgets faster, so that the first weights do not linger.
    fn average(&mut self) -> Result<(), TrainError> {
        let decay = self.config.generator_ema;
        if decay == 0.0 || !self.iteration.is_multiple_of(AVERAGE_EVERY) {
            return Ok(());
        }
        let now = self.current_weights()?;
        let taken = (self.iteration / AVERAGE_EVERY) as f64;
        let part = (1.0 - decay.powi(AVERAGE_EVERY as i32)).max(1.0 / (1.0 + taken / 10.0));
        match &mut self.averaged {
            Some(averaged) => averaged.approach(&now, part as f32),
            None => self.averaged = Some(now),
        }
        Ok(())
    }

    /// The generator's weights, ready to export: their moving average where
    /// [`DoppelgangerConfig::generator_ema`] asks for it, else as they are now.
    ///
    /// # Errors
    ///
    /// A weight that is not finite, or a failing device.
    pub fn generator_weights(&self) -> Result<GeneratorWeights, TrainError> {
        match &self.averaged {
            Some(averaged) => Ok(averaged.clone()),
            None => self.current_weights(),
        }
    }

    fn current_weights(&self) -> Result<GeneratorWeights, TrainError> {
        let (attribute_hidden, attribute_head) = self.attributes.export()?;
        let mut weights =
            GeneratorWeights { attribute_hidden, attribute_head, ..GeneratorWeights::default() };
        if let Some(network) = &self.additional {
            (weights.additional_hidden, weights.additional_head) = network.export()?;
        }
        self.records.export(self.samples.attribute_layout.dim(), &mut weights)?;
        for (_, _, values) in weights.tensors() {
            for &value in values {
                self.finite("a generator weight", value)?;
            }
        }
        Ok(weights)
    }

    /// All that another training can start from, as it is now.
    ///
    /// # Errors
    ///
    /// A failing device.
    pub fn state(&self) -> Result<State, TrainError> {
        let parameters = self.parameters().map(Parameter::to_vec).collect::<Result<_, _>>()?;
        let statistics = self
            .statistics()
            .map(|tensor| tensor.to_dtype(DType::F32)?.to_vec1())
            .collect::<Result<_, _>>()?;
        Ok(State { parameters, statistics })
    }

    /// Starts from another training's weights, of networks of the same sizes:
    /// generator and critics. Optimizers and moving average begin anew.
    ///
    /// # Errors
    ///
    /// Networks of other sizes, or a failing device.
    pub fn start_from(&mut self, state: &State) -> Result<(), TrainError> {
        let sizes = |found: usize, expected: usize| match found == expected {
            true => Ok(()),
            false => Err(TrainError::Sizes { what: "weights to start from", found, expected }),
        };
        sizes(state.parameters.len(), self.parameters().count())?;
        sizes(state.statistics.len(), self.statistics().count())?;
        for (parameter, values) in self.parameters().zip(&state.parameters) {
            sizes(values.len(), parameter.value.elem_count())?;
            parameter.set(values)?;
        }
        let networks = [Some(&mut self.attributes), self.additional.as_mut()];
        let statistics = networks.into_iter().flatten().flat_map(|n| n.statistics_mut());
        for (tensor, values) in statistics.zip(&state.statistics) {
            sizes(values.len(), tensor.elem_count())?;
            *tensor = Tensor::from_slice(values.as_slice(), values.len(), &self.device)?
                .to_dtype(tensor.dtype())?;
        }
        Ok(())
    }

    fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        let additional = self.additional.iter().flat_map(AttributeGenerator::parameters);
        let generator =
            self.attributes.parameters().chain(additional).chain(self.records.parameters());
        let attribute_critic = self.attribute_critic.iter().flat_map(Critic::parameters);
        generator.chain(self.critic.parameters()).chain(attribute_critic)
    }

    fn statistics(&self) -> impl Iterator<Item = &Tensor> {
        let additional = self.additional.iter().flat_map(AttributeGenerator::statistics);
        self.attributes.statistics().chain(additional)
    }

    /// Every trained tensor with a name and a shape: the generator's (see
    /// [`GeneratorWeights::tensors`]) under `generator.`, then the critics'.
    ///
    /// # Errors
    ///
    /// As [`Self::generator_weights`].
    pub fn named_tensors(&self) -> Result<Vec<NamedTensor>, TrainError> {
        let mut tensors: Vec<_> = self
            .generator_weights()?
            .tensors()
            .into_iter()
            .map(|(name, shape, values)| (format!("generator.{name}"), shape, values.to_vec()))
            .collect();
        let critics = [("critic", Some(&self.critic))]
            .into_iter()
            .chain([("attribute_critic", self.attribute_critic.as_ref())]);
        for (name, critic) in critics {
            let parameters: Vec<&Parameter> =
                critic.map(|critic| critic.parameters().collect()).unwrap_or_default();
            for (index, parameter) in parameters.into_iter().enumerate() {
                let part = if index % 2 == 0 { "weight" } else { "bias" };
                let values = parameter.to_vec()?;
                for &value in &values {
                    self.finite("a critic weight", value)?;
                }
                let shape = parameter.value.dims().to_vec();
                tensors.push((format!("{name}.{}.{part}", index / 2), shape, values));
            }
        }
        Ok(tensors)
    }
}
