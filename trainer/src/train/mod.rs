//! Training: the samples, the order they are visited in, and one iteration.

mod batch;
mod error;
mod packed;
mod step;
mod unit;

#[cfg(test)]
mod tests;

pub use crate::model::ops::set_threads;
pub use batch::Samples;
pub use error::TrainError;
pub use step::{Losses, NamedTensor, State, Trainer};
pub use unit::{Trained, Unit, train_unit};
