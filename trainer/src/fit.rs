//! From input files to what training starts from.

use std::path::PathBuf;

use ns_model_format::schema::TraceKind;

use crate::config::{ConfigError, Resolved};
use crate::dataset::{self, Dataset, DatasetError};
use crate::ingest::{self, IngestError, NotUsed, Reading, Trace};

/// Why an input cannot be trained on.
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
    prepare_with(inputs, config, seed, reading, |trace| trace)
}

/// The same, with work on the trace between reading and encoding: columns may
/// change their values, flows may be left out. The configured columns must stay,
/// all of one length.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_with(
    inputs: &[PathBuf],
    config: &Resolved,
    seed: u64,
    reading: Reading,
    process: impl FnOnce(Trace) -> Trace,
) -> Result<Prepared, FitError> {
    let mut trace = process(read(inputs, config, reading)?);
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
