//! Hyperparameters, under NetShare's names.

use ns_model_format::manifest::InitialState;
use serde::Serialize;
use thiserror::Error;

/// Where the gradient penalty is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientPenaltyAt {
    /// At random points between a real and a generated sample (Gulrajani et al., NeurIPS '17).
    Interpolate,
    /// At generated samples, which is what NetShare's constant weight amounts to.
    Fake,
}

/// When attribute and record noise, and the real batch, are drawn anew. The
/// LSTM's first state is drawn anew for every critic round either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseDraw {
    /// Once an iteration, as DoppelGANger's authors do: the critic rounds of an
    /// iteration share their real batch and their generated attributes.
    PerIteration,
    /// For every round.
    PerRound,
}

/// How a generated flow's attributes are made discrete before the LSTM sees
/// them in training. Generation takes the likeliest class either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Discretize {
    /// The likeliest class, as DoppelGANger's authors do.
    Argmax,
    /// A class drawn with its probability.
    Sample,
}

/// What a DoppelGANger is built and trained with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DoppelgangerConfig {
    /// Samples a critic judges at once.
    pub batch_size: usize,
    /// Records the LSTM emits a step.
    pub sample_len: usize,
    /// Critic updates an iteration.
    pub d_rounds: usize,
    /// Generator updates an iteration.
    pub g_rounds: usize,
    /// Samples that a critic sees side by side (Lin et al., PacGAN, NeurIPS '18).
    pub num_packing: usize,
    /// Learning rate of the generator.
    pub g_lr: f64,
    /// Learning rate of the critic.
    pub d_lr: f64,
    /// Learning rate of the attribute critic.
    pub attr_d_lr: f64,
    /// Adam's first decay, generator.
    pub g_beta1: f64,
    /// Adam's first decay, critic.
    pub d_beta1: f64,
    /// Adam's first decay, attribute critic.
    pub attr_d_beta1: f64,
    /// Weight of the critic's gradient penalty.
    pub d_gp_coe: f64,
    /// Weight of the attribute critic's gradient penalty.
    pub attr_d_gp_coe: f64,
    /// Weight of the attribute critic in the generator's loss.
    pub g_attr_d_coe: f64,
    /// Adam's epsilon.
    pub adam_eps: f64,
    /// Adam with the greatest second moment so far (Reddi et al., ICLR '18).
    pub adam_amsgrad: bool,
    /// LSTM width.
    pub generator_feature_num_units: usize,
    /// Layers of the attribute generator, the output included.
    pub generator_attribute_num_layers: usize,
    /// Width of the attribute generator.
    pub generator_attribute_num_units: usize,
    /// Layers of the critic, the output included.
    pub discriminator_num_layers: usize,
    /// Width of the critic.
    pub discriminator_num_units: usize,
    /// Layers of the attribute critic, the output included.
    pub attr_discriminator_num_layers: usize,
    /// Width of the attribute critic.
    pub attr_discriminator_num_units: usize,
    /// Whether there is a critic of attributes alone.
    pub use_attr_discriminator: bool,
    /// Noise values of the attribute generator.
    pub attribute_latent_dim: usize,
    /// Noise values of an LSTM step.
    pub feature_latent_dim: usize,
    /// The LSTM's first state.
    pub initial_state: InitialState,
    /// Where the gradient penalty is taken.
    pub gp_at: GradientPenaltyAt,
    /// When noise is drawn anew.
    pub noise_draw: NoiseDraw,
    /// How attributes are made discrete in training.
    pub discretize: Discretize,
    /// Decay a step of the moving average of the generator's weights, which is
    /// then what is exported (Yazici et al., ICLR '19); 0: the weights as they are.
    pub generator_ema: f64,
    /// Leaky ReLU in the critics: not available, the exact penalty is derived for ReLU.
    pub leaky_relu: bool,
}

impl Default for DoppelgangerConfig {
    /// NetShare's defaults.
    fn default() -> DoppelgangerConfig {
        DoppelgangerConfig {
            batch_size: 100,
            sample_len: 10,
            d_rounds: 5,
            g_rounds: 1,
            num_packing: 1,
            g_lr: 1e-4,
            d_lr: 1e-4,
            attr_d_lr: 1e-4,
            g_beta1: 0.5,
            d_beta1: 0.5,
            attr_d_beta1: 0.5,
            d_gp_coe: 10.0,
            attr_d_gp_coe: 10.0,
            g_attr_d_coe: 1.0,
            adam_eps: 1e-8,
            adam_amsgrad: false,
            generator_feature_num_units: 100,
            generator_attribute_num_layers: 5,
            generator_attribute_num_units: 512,
            discriminator_num_layers: 5,
            discriminator_num_units: 512,
            attr_discriminator_num_layers: 5,
            attr_discriminator_num_units: 512,
            use_attr_discriminator: true,
            attribute_latent_dim: 5,
            feature_latent_dim: 5,
            initial_state: InitialState::Normal,
            gp_at: GradientPenaltyAt::Interpolate,
            noise_draw: NoiseDraw::PerIteration,
            discretize: Discretize::Argmax,
            generator_ema: 0.0,
            leaky_relu: false,
        }
    }
}

/// A hyperparameter that no model can have.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A count or width below or above what is possible.
    #[error("`{name}`: {found} is not in {least} to {most}")]
    Count {
        /// The key.
        name: &'static str,
        /// Its value.
        found: usize,
        /// The least possible.
        least: usize,
        /// The most possible.
        most: usize,
    },
    /// A rate, decay or weight that is negative, too great or not a number.
    #[error("`{name}`: {found} is not in 0 to {below} (exclusive)")]
    Number {
        /// The key.
        name: &'static str,
        /// Its value.
        found: f64,
        /// What it must be less than.
        below: f64,
    },
    /// Leaky ReLU was asked for.
    #[error("`leaky_relu`: the exact gradient penalty is derived for ReLU critics only")]
    LeakyRelu,
}

impl DoppelgangerConfig {
    /// Whether a model can be built with these.
    ///
    /// # Errors
    ///
    /// The first hyperparameter that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        // Limits keep a mistyped width from asking for terabytes.
        let counts = [
            ("batch_size", self.batch_size, 2, 1 << 16),
            ("sample_len", self.sample_len, 1, 4096),
            ("d_rounds", self.d_rounds, 1, 1 << 16),
            ("g_rounds", self.g_rounds, 1, 1 << 16),
            ("num_packing", self.num_packing, 1, 1 << 10),
            ("generator_feature_num_units", self.generator_feature_num_units, 1, 1 << 14),
            ("generator_attribute_num_layers", self.generator_attribute_num_layers, 1, 256),
            ("generator_attribute_num_units", self.generator_attribute_num_units, 1, 1 << 14),
            ("discriminator_num_layers", self.discriminator_num_layers, 2, 256),
            ("discriminator_num_units", self.discriminator_num_units, 1, 1 << 14),
            ("attr_discriminator_num_layers", self.attr_discriminator_num_layers, 2, 256),
            ("attr_discriminator_num_units", self.attr_discriminator_num_units, 1, 1 << 14),
            ("attribute_latent_dim", self.attribute_latent_dim, 1, 1 << 14),
            ("feature_latent_dim", self.feature_latent_dim, 1, 1 << 14),
        ];
        for (name, found, least, most) in counts {
            if !(least..=most).contains(&found) {
                return Err(ConfigError::Count { name, found, least, most });
            }
        }
        let numbers = [
            ("g_lr", self.g_lr, f64::INFINITY),
            ("d_lr", self.d_lr, f64::INFINITY),
            ("attr_d_lr", self.attr_d_lr, f64::INFINITY),
            ("g_beta1", self.g_beta1, 1.0),
            ("d_beta1", self.d_beta1, 1.0),
            ("attr_d_beta1", self.attr_d_beta1, 1.0),
            ("d_gp_coe", self.d_gp_coe, f64::INFINITY),
            ("attr_d_gp_coe", self.attr_d_gp_coe, f64::INFINITY),
            ("g_attr_d_coe", self.g_attr_d_coe, f64::INFINITY),
            ("adam_eps", self.adam_eps, f64::INFINITY),
            ("generator_ema", self.generator_ema, 1.0),
        ];
        for (name, found, below) in numbers {
            if !(found >= 0.0 && found < below) {
                return Err(ConfigError::Number { name, found, below });
            }
        }
        if self.leaky_relu { Err(ConfigError::LeakyRelu) } else { Ok(()) }
    }
}
