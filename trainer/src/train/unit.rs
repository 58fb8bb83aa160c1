//! A unit of training: one chunk's samples, from nothing or from another unit's
//! weights. What comes out is a function of what goes in.

use candle_core::Device;

use super::{Losses, Samples, State, TrainError, Trainer};
use crate::model::config::DoppelgangerConfig;
use crate::model::weights::GeneratorWeights;

/// What a unit trains on, and how long.
#[derive(Debug)]
pub struct Unit {
    /// The samples.
    pub samples: Samples,
    /// Of all its chance.
    pub seed: u64,
    /// How many iterations.
    pub iterations: u64,
}

/// What has come out.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The generator to export.
    pub generator: GeneratorWeights,
    /// What another unit can start from.
    pub state: State,
    /// Iterations done.
    pub iterations: u64,
}

/// Trains a unit, from `first`'s weights where it is given. `watch` is called
/// after every iteration with how many are done; when it returns false, training
/// stops and the weights so far are the result.
///
/// # Errors
/// As [`Trainer::new`] and [`Trainer::iteration`]; a `first` of other networks.
pub fn train_unit(
    unit: Unit,
    config: &DoppelgangerConfig,
    first: Option<&Trained>,
    device: &Device,
    mut watch: impl FnMut(u64, Losses) -> bool,
) -> Result<Trained, TrainError> {
    let mut trainer = Trainer::new(unit.samples, config.clone(), unit.seed, device)?;
    if let Some(first) = first {
        trainer.start_from(&first.state)?;
    }
    while trainer.iterations() < unit.iterations {
        let losses = trainer.iteration()?;
        if !watch(trainer.iterations(), losses) {
            break;
        }
    }
    let (iterations, state) = (trainer.iterations(), trainer.state()?);
    let generator = match first {
        // Not yet moved: what is exported is what `first` exports.
        Some(first) if iterations == 0 => first.generator.clone(),
        _ => trainer.generator_weights()?,
    };
    Ok(Trained { generator, state, iterations })
}
