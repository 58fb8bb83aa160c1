//! The whole road from an input file to a bundle, as a library.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::Device;
use ns_model_format::manifest::Provenance;
use ns_model_format::random::{Purpose, Stream};
use ns_model_format::schema::TraceKind;
use ns_model_format::{Bundle, BundleError};
use sha2::{Digest, Sha256};

use crate::config::{ConfigError, Resolved, TrainingLength};
use crate::dataset::{self, Dataset, DatasetError};
use crate::export::{self, ChunkModel};
use crate::ingest::{self, IngestError, NotUsed, OnError};
use crate::train::{Losses, Samples, TrainError, Trained, Unit, train_unit};

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
    /// The chunk that is trained, counted from 0.
    pub chunk: usize,
    /// How many there are.
    pub chunks: usize,
    /// Iterations done, over all chunks.
    pub iteration: u64,
    /// Iterations that the configured length is, over all chunks.
    pub iterations: u64,
    /// Passes over the chunk's samples.
    pub epochs: f64,
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

/// Trains chunk by chunk, and puts the result into a bundle. `watch` is called
/// after every iteration; when it returns false, training stops and the bundle
/// holds the weights so far: chunks that were not reached have the first one's.
///
/// A limit in time is shared out over the chunks by their lengths.
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
    let Prepared { dataset: Dataset { chunks, handed_over, schema, timeline, .. }, .. } = prepared;
    let model = &config.model;
    let lengths = lengths(&chunks, config);
    let iterations: u64 = lengths.iter().fold(0, |sum, &length| sum.saturating_add(length));
    let begin = Instant::now();
    let (mut done, mut stopped, count) = (0, false, chunks.len());
    let mut first: Option<Trained> = None;
    let mut weights = Vec::with_capacity(count);
    for (chunk, samples) in chunks.into_iter().enumerate() {
        let through: u64 = lengths[..=chunk].iter().fold(0, |sum, &n| sum.saturating_add(n));
        let share = through as f64 / iterations.max(1) as f64;
        let deadline = limits.time.map(|time| time.mul_f64(share));
        let in_time = |elapsed| deadline.is_none_or(|deadline| elapsed < deadline);
        if let Some(first) = &first
            && (stopped || !in_time(begin.elapsed()))
        {
            weights.push(first.generator.clone());
            continue;
        }
        let per_epoch = samples.iterations_per_epoch(model.batch_size) as f64;
        let unit = Unit { samples, seed: chunk_seed(seed, chunk), iterations: lengths[chunk] };
        let from = first.as_ref().filter(|_| config.chunks.reduce_time.is_some());
        let trained = train_unit(unit, model, from, device, |iteration, losses| {
            let progress = Progress {
                chunk,
                chunks: count,
                iteration: done + iteration,
                iterations,
                epochs: iteration as f64 / per_epoch,
                losses,
                elapsed: begin.elapsed(),
            };
            stopped |= !watch(&progress);
            !stopped && in_time(progress.elapsed)
        })?;
        done += trained.iterations;
        weights.push(trained.generator.clone());
        first.get_or_insert(trained);
    }
    let provenance = Provenance {
        trainer: concat!("ns-train ", env!("CARGO_PKG_VERSION")).to_owned(),
        revision: option_env!("NETSHARE_REVISION").map(str::to_owned),
        input: prepared.input,
        input_sha256: prepared.input_sha256,
        // A Resolved is plain data with string keys: it always serializes.
        config: serde_json::to_value(config).unwrap_or_default(),
        seed,
        iterations: done,
        not_used: prepared.not_used,
        privacy: None,
    };
    let chunks: Vec<ChunkModel> = weights
        .into_iter()
        .zip(handed_over)
        .map(|(weights, handed_over)| ChunkModel { weights, handed_over })
        .collect();
    let initial = model.initial_state;
    Ok(export::bundle(&chunks, model.sample_len, initial, schema, timeline, provenance)?)
}

/// Iterations of each chunk.
fn lengths(chunks: &[Samples], config: &Resolved) -> Vec<u64> {
    let length = |(chunk, samples): (usize, &Samples)| {
        let whole = match config.length {
            TrainingLength::Epochs(epochs) => {
                let per_epoch = samples.iterations_per_epoch(config.model.batch_size);
                epochs.saturating_mul(per_epoch as u64)
            }
            TrainingLength::Iterations(iterations) => iterations,
        };
        match config.chunks.reduce_time {
            Some(times) if chunk > 0 => (whole as f64 / times).ceil() as u64,
            _ => whole,
        }
    };
    chunks.iter().enumerate().map(length).collect()
}

/// Each chunk has chance of its own; the first one's is that of a whole span.
fn chunk_seed(seed: u64, chunk: usize) -> u64 {
    match chunk {
        0 => seed,
        _ => Stream::new(seed, Purpose::Chunks, chunk as u64).next_u64(),
    }
}
