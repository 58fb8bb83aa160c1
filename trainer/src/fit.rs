//! The whole road from an input file to a bundle, as a library.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::Device;
use ns_model_format::manifest::Provenance;
use ns_model_format::schema::TraceKind;
use ns_model_format::{Bundle, BundleError};
use sha2::{Digest, Sha256};

use crate::config::{ConfigError, Resolved, TrainingLength};
use crate::dataset::{self, Dataset, DatasetError};
use crate::export;
use crate::ingest::{self, IngestError, NotUsed, OnError};
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
    #[error("`{}`", path.display())]
    Dataset {
        /// The input.
        path: PathBuf,
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
    /// Records left out, by reason.
    pub not_used: NotUsed,
    /// The input's file name.
    pub input: String,
    /// SHA-256 of the input.
    pub input_sha256: String,
}

/// Reads and encodes an input.
///
/// # Errors
/// The input cannot be read, does not fit the configuration, or is too small.
pub fn prepare(
    path: &Path,
    config: &Resolved,
    seed: u64,
    on_error: OnError,
) -> Result<Prepared, FitError> {
    let trace = match config.kind {
        TraceKind::Packets => ingest::packets::trace(ingest::pcap::read(path, on_error)?, config)?,
        _ => ingest::csv::read(path, config, on_error)?,
    };
    let dataset = dataset::build(&trace, config, seed)
        .map_err(|source| FitError::Dataset { path: path.to_owned(), source })?;
    Ok(Prepared {
        dataset,
        not_used: trace.not_used,
        input: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        input_sha256: sha256_of(path)?,
    })
}

fn sha256_of(path: &Path) -> Result<String, IngestError> {
    let fail = |source| IngestError::Io { path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(fail)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(fail)?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
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
