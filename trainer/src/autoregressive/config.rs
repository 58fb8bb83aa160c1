//! Hyperparameters of the autoregressive model.

use serde::{Deserialize, Serialize};

use super::fit::Options;
use super::records::Widths;
use crate::config::{ConfigError, ModelConfig};

/// Which networks are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ModelClass {
    /// Tokens one after another, by maximum likelihood.
    Autoregressive,
    /// NetShare's generative adversarial network.
    Doppelganger,
}

/// What an autoregressive model is built and trained with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AutoregressiveConfig {
    /// Width of the networks of a flow's variables.
    pub attribute_units: usize,
    /// Width of what a flow's variables say to its records.
    pub context_units: usize,
    /// Width of what goes into the LSTM's gates.
    pub input_units: usize,
    /// Width of the LSTM.
    pub num_units: usize,
    /// Width of a record's heads.
    pub head_units: usize,
    /// Learning rate of the record network.
    pub lr: f64,
    /// Share of every weight that a step takes away, times the learning rate.
    pub weight_decay: f64,
    /// Passes over the flows at most; without it, as many as the data needs.
    pub epochs: Option<u64>,
}

impl Default for AutoregressiveConfig {
    fn default() -> AutoregressiveConfig {
        AutoregressiveConfig {
            attribute_units: 48,
            context_units: 64,
            input_units: 32,
            num_units: 32,
            head_units: 32,
            lr: 3e-3,
            weight_decay: 0.05,
            epochs: None,
        }
    }
}

impl AutoregressiveConfig {
    /// From a configuration's keys.
    ///
    /// # Errors
    /// A value out of its range.
    pub(crate) fn resolve(keys: &ModelConfig) -> Result<AutoregressiveConfig, ConfigError> {
        let d = AutoregressiveConfig::default();
        let config = AutoregressiveConfig {
            attribute_units: keys.attribute_units.unwrap_or(d.attribute_units),
            context_units: keys.context_units.unwrap_or(d.context_units),
            input_units: keys.input_units.unwrap_or(d.input_units),
            num_units: keys.num_units.unwrap_or(d.num_units),
            head_units: keys.head_units.unwrap_or(d.head_units),
            lr: keys.lr.unwrap_or(d.lr),
            weight_decay: keys.weight_decay.unwrap_or(d.weight_decay),
            epochs: keys.max_epochs,
        };
        let fail =
            |key: &str, reason: String| Err(ConfigError::Value { key: key.to_owned(), reason });
        let widths = [
            ("attribute_units", config.attribute_units),
            ("context_units", config.context_units),
            ("input_units", config.input_units),
            ("num_units", config.num_units),
            ("head_units", config.head_units),
        ];
        for (key, width) in widths {
            if !(1..=4096).contains(&width) {
                return fail(key, format!("{width} is not 1 to 4096"));
            }
        }
        if !(config.lr > 0.0 && config.lr <= 1.0) {
            return fail("lr", format!("{} is not above 0 and at most 1", config.lr));
        }
        if !(0.0..=10.0).contains(&config.weight_decay) {
            return fail("weight_decay", format!("{} is not 0 to 10", config.weight_decay));
        }
        Ok(config)
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            units: self.attribute_units,
            widths: Widths {
                context: self.context_units,
                input: self.input_units,
                hidden: self.num_units,
                head: self.head_units,
            },
            learning_rate: self.lr,
            weight_decay: self.weight_decay,
            epochs: self.epochs,
        }
    }
}
