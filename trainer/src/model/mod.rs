//! The networks of a DoppelGANger (Lin et al., IMC '20): an attribute
//! generator, a record generator and two critics.
//!
//! Forward and backward passes are written out, without automatic
//! differentiation: the gradient penalty of a ReLU critic needs no second
//! derivative (the critic says how), so every step is an ordinary
//! matrix product. Weights are kept `[inputs, outputs]`.

pub mod config;
pub mod reference;
pub mod weights;

pub(crate) mod attributes;
pub(crate) mod critic;
pub(crate) mod ops;
pub(crate) mod parameter;
pub(crate) mod records;

#[cfg(test)]
mod tests;

pub use config::{Discretize, DoppelgangerConfig, GradientPenaltyAt, NoiseDraw};
pub use weights::GeneratorWeights;
