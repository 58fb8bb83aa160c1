//! The whole road from an input file to a bundle, as a library.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::Device;
use ns_model_format::manifest::Provenance;
use ns_model_format::random::{Purpose, Stream};
use ns_model_format::schema::TraceKind;
use ns_model_format::{Bundle, BundleError};

use crate::config::{ConfigError, Resolved, TrainingLength};
use crate::dataset::{self, Dataset, DatasetError};
use crate::export::{self, ChunkModel};
use crate::ingest::{self, IngestError, NotUsed, Reading, Trace};
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
        _ => ingest::table::read(&files, config, reading)?,
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
