//! What can go wrong in training.

use crate::model::config::ConfigError;
use thiserror::Error;

/// Why training cannot begin or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A hyperparameter is out of range.
    #[error("config: {0}")]
    Config(#[from] ConfigError),
    /// Fewer samples than a critic can be trained on.
    #[error("{found} samples are too few to train on; at least 2 are needed")]
    TooFewSamples {
        /// How many there are.
        found: usize,
    },
    /// A layout without values, or without the flag that every record ends in.
    #[error("{which}: no fields to generate")]
    NoFields {
        /// `attributes` or `measurements`.
        which: &'static str,
    },
    /// A sample of another size than its layouts, or weights of other networks.
    #[error("{what} hold {found} values, expected {expected}")]
    Sizes {
        /// Which part.
        what: &'static str,
        /// Values there.
        found: usize,
        /// Values that there should be.
        expected: usize,
    },
    /// A sample holds a value that is not a finite number.
    #[error("sample {sample}: value {index} of its {part} is not a finite number")]
    NotFinite {
        /// `attributes`, `conditions` or `measurements`.
        part: &'static str,
        /// The sample's number.
        sample: usize,
        /// The value's place in that part of the sample.
        index: usize,
    },
    /// A loss or a weight is no longer a finite number.
    #[error("training diverged in iteration {iteration}: {what} is {value}")]
    Diverged {
        /// Iterations begun, this one included.
        iteration: u64,
        /// Which number.
        what: &'static str,
        /// It.
        value: f32,
    },
    /// A tensor operation failed.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
}
