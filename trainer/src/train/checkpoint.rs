//! All that training is at one moment, so that it can go on from there as if it
//! had never stopped.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::arrays::Arrays;
use crate::work::WorkError;

/// How far a training is, beside its weights. All chance is drawn from streams that
/// are named by seed and iteration or pass, so these numbers are their state too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Iterations done.
    pub iteration: u64,
    /// The pass over the samples, counted from 0.
    pub(super) pass: u64,
    /// Samples of it that were visited.
    pub(super) visited: u64,
    /// Steps of Adam: generator, critic, attribute critic.
    pub(super) optimizer_steps: [i32; 3],
    /// What the learning rates are multiplied by.
    pub rate: f64,
}

/// The networks with their optimizers' moments, BatchNorm's statistics, the moving
/// average, and the place.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// How far.
    pub place: Place,
    /// Every trained tensor with its moments, row after row.
    pub(super) parameters: Vec<Vec<f32>>,
    /// Running statistics of the generator.
    pub(super) statistics: Vec<Vec<f32>>,
    /// The moving average of the generator's weights, where there is one.
    pub(super) averaged: Option<Vec<Vec<f32>>>,
}

/// What a file holds beside the tensors.
#[derive(Serialize, Deserialize)]
struct About<T> {
    place: Place,
    is_averaged: bool,
    more: T,
}

impl Checkpoint {
    /// Writes a file, whole or not at all, with `more` about it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path, more: &impl Serialize) -> Result<(), WorkError> {
        let mut arrays = Arrays::default();
        arrays.put_all("parameter", &self.parameters);
        arrays.put_all("statistic", &self.statistics);
        arrays.put_all("averaged", self.averaged.as_deref().unwrap_or_default());
        let is_averaged = self.averaged.is_some();
        arrays.write(path, &About { place: self.place, is_averaged, more })
    }

    /// Reads a file back, and what was said about it.
    ///
    /// # Errors
    /// It cannot be read, or is not as it was written.
    pub fn read<T: DeserializeOwned>(path: &Path) -> Result<(Checkpoint, T), WorkError> {
        let (mut arrays, about) = Arrays::read::<About<T>>(path)?;
        let averaged = arrays.take_all("averaged");
        let checkpoint = Checkpoint {
            place: about.place,
            parameters: arrays.take_all("parameter"),
            statistics: arrays.take_all("statistic"),
            averaged: about.is_averaged.then_some(averaged),
        };
        Ok((checkpoint, about.more))
    }
}
