//! The whole road from an input file to a bundle, as a library.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::Device;
use ns_model_format::manifest::Provenance;
use ns_model_format::schema::TraceKind;
use ns_model_format::{Bundle, BundleError};

use crate::config::{ConfigError, Resolved, TrainingLength};
use crate::dataset::{self, Dataset, DatasetError};
use crate::export;
use crate::ingest::{self, IngestError, NotUsed, Reading, Trace};
use crate::train::{Losses, TrainError, Trainer};

/// Why an input did not become a bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// The input.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The configuration does not fit the input.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The input's values.
    #[error("{input}")]
    Dataset {
        /// The input.
        input: String,
        /// What is wrong with its values.
        source: DatasetError,
    },
    /// Training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Writing.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// An input, read and encoded.
#[derive(Debug)]
pub struct Prepared {
    /// What training needs.
    pub dataset: Dataset,
    /// Flows in it.
    pub flows: u64,
    /// Records in it.
    pub records: u64,
    /// Records left out, by reason.
    pub not_used: NotUsed,
    /// The share of all flows that is learned from, 1 unless they were sampled.
    pub share: f64,
    /// What is worth telling of the records, a sentence each.
    pub remarks: Vec<String>,
    /// The input's file names.
    pub input: String,
    /// SHA-256 of the input: [`ingest::files::joined_digest`].
    pub input_sha256: String,
}

/// Reads and encodes an input: files, and folders of files.
///
/// # Errors
/// The input cannot be read, does not fit the configuration, or is too small.
pub fn prepare(
    inputs: &[PathBuf],
    config: &Resolved,
    seed: u64,
    reading: Reading,
) -> Result<Prepared, FitError> {
    let mut trace = read(inputs, config, reading)?;
    let dataset = encode(inputs, &trace, config, seed)?;
    Ok(Prepared {
        dataset,
        flows: trace.flows.len() as u64,
        records: trace.times_ns.len() as u64,
        not_used: std::mem::take(&mut trace.not_used),
        share: trace.share,
        remarks: std::mem::take(&mut trace.remarks),
        input: ingest::files::names(&ingest::files::list(inputs)?),
        input_sha256: std::mem::take(&mut trace.input_sha256),
    })
}

/// Reads an input: the first half of [`prepare`].
///
/// # Errors
/// The input cannot be read or does not fit the configuration.
pub fn read(inputs: &[PathBuf], config: &Resolved, reading: Reading) -> Result<Trace, FitError> {
    let files = ingest::files::list(inputs)?;
    Ok(match config.kind {
        TraceKind::Packets => ingest::packets::trace(&files, config, reading)?,
        _ => ingest::csv::read(&files, config, reading)?,
    })
}

/// Encodes what was read: the second half of [`prepare`].
///
/// # Errors
/// Values that cannot be encoded, or too few flows.
pub fn encode(
    inputs: &[PathBuf],
    trace: &Trace,
    config: &Resolved,
    seed: u64,
) -> Result<Dataset, FitError> {
    dataset::build(trace, config, seed)
        .map_err(|source| FitError::Dataset { input: ingest::files::shown(inputs), source })
}

/// How training goes, after every iteration.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Iterations done.
    pub iteration: u64,
    /// Iterations that the configured length is.
    pub iterations: u64,
    /// Iterations of one pass over the samples.
    pub iterations_per_epoch: u64,
    /// The losses of this iteration.
    pub losses: Losses,
    /// Time since training began.
    pub elapsed: Duration,
}

/// What ends training before its length is reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Time to train for.
    pub time: Option<Duration>,
}

/// Trains, and puts the result into a bundle. `watch` is called after every
/// iteration; when it returns false, training stops and the bundle holds the
/// weights so far.
///
/// # Errors
/// Training diverged, or the parts do not fit.
pub fn train(
    prepared: Prepared,
    config: &Resolved,
    seed: u64,
    limits: Limits,
    device: &Device,
    mut watch: impl FnMut(&Progress) -> bool,
) -> Result<Bundle, FitError> {
    let Prepared { dataset: Dataset { samples, schema, timeline }, not_used, .. } = prepared;
    let mut trainer = Trainer::new(samples, config.model.clone(), seed, device)?;
    let iterations_per_epoch = trainer.iterations_per_epoch() as u64;
    let iterations = match config.length {
        TrainingLength::Epochs(epochs) => epochs.saturating_mul(iterations_per_epoch),
        TrainingLength::Iterations(iterations) => iterations,
    };
    let begin = Instant::now();
    let mut iteration = 0;
    while iteration < iterations {
        let losses = trainer.iteration()?;
        iteration += 1;
        let elapsed = begin.elapsed();
        let progress = Progress { iteration, iterations, iterations_per_epoch, losses, elapsed };
        if !watch(&progress) || limits.time.is_some_and(|time| elapsed >= time) {
            break;
        }
    }
    let provenance = Provenance {
        trainer: concat!("ns-train ", env!("CARGO_PKG_VERSION")).to_owned(),
        revision: option_env!("NETSHARE_REVISION").map(str::to_owned),
        input: prepared.input,
        input_sha256: prepared.input_sha256,
        // A Resolved is plain data with string keys: it always serializes.
        config: serde_json::to_value(config).unwrap_or_default(),
        seed,
        iterations: iteration,
        not_used,
        privacy: None,
    };
    let weights = trainer.generator_weights()?;
    let model = &config.model;
    Ok(export::bundle(
        &weights,
        model.sample_len,
        model.initial_state,
        schema,
        timeline,
        provenance,
    )?)
}
