//! The autoregressive model: tokens drawn one after another, each given those before.
//!
//! Trained by maximum likelihood. A flow's variables are a chain of small networks, one a
//! variable (as in NADE: Uria et al., JMLR '16); its records come from an LSTM that knows
//! how many are left and how much of the planned time. See
//! [`ns_model_format::autoregressive`] for what is drawn.

mod absent;
pub(crate) mod chain;
pub(crate) mod conditional;
mod config;
pub(crate) mod evidence;
pub(crate) mod fit;
mod joint;
mod measured;
pub(crate) mod records;
mod table;
pub(crate) mod tokens;
pub(crate) mod weights;

pub use config::{AutoregressiveConfig, ModelClass};

#[cfg(test)]
mod tests;
