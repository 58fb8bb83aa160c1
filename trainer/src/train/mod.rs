//! Training: the samples, the order they are visited in, one iteration, and what
//! it takes to go on after any of them.

mod batch;
mod checkpoint;
mod error;
mod packed;
mod step;

#[cfg(test)]
mod tests;

pub use crate::model::ops::threads::{on_threads, set_threads};
pub use batch::Samples;
pub use checkpoint::{Checkpoint, Place};
pub use error::TrainError;
pub use step::{Losses, NamedTensor, Trainer};
