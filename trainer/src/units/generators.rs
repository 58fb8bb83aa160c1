//! Generators as files: what a unit of training is for.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::score::Scored;
use crate::arrays::{Array, Arrays};
use crate::model::weights::GeneratorWeights;
use crate::work::WorkError;

/// What is known of a generator beside its weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Made {
    /// Iterations that training went through.
    pub(super) iterations: u64,
    /// Those after which this generator was taken.
    pub(super) iteration: u64,
    /// What it was chosen among.
    pub(super) scores: Vec<Scored>,
    /// What happened.
    pub(super) events: Vec<String>,
}

/// Writes a generator.
pub(super) fn write(
    path: &Path,
    generator: &GeneratorWeights,
    made: &Made,
) -> Result<(), WorkError> {
    let mut arrays = Arrays::default();
    for (name, _, values) in generator.tensors() {
        arrays.put(name, Array::F32(values.to_vec()));
    }
    arrays.write(path, made)
}

/// Reads one.
pub(super) fn read(path: &Path) -> Result<(GeneratorWeights, Made), WorkError> {
    let (mut arrays, made) = Arrays::read(path)?;
    let generator = GeneratorWeights::from_tensors(|name| arrays.take_f32(name));
    let generator = generator.ok_or_else(|| WorkError::Damaged {
        path: path.to_owned(),
        reason: "its tensors are not those of a generator".to_owned(),
    })?;
    Ok((generator, made))
}
