//! Training: the samples, the order they are visited in, and one iteration.

mod batch;
mod error;
mod packed;
mod step;

#[cfg(test)]
mod tests;

pub use crate::model::ops::set_threads;
pub use batch::Samples;
pub use error::TrainError;
pub use step::{Losses, NamedTensor, Trainer};
