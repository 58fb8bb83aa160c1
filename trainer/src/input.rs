//! What is read, and how: the arguments that all commands on inputs share.

use std::path::PathBuf;

use clap::Args;

use crate::config::Resolved;
use crate::generator::{Generator, GeneratorError};
use crate::ingest::sample::DEFAULT_MAX_RECORDS;
use crate::ingest::{IngestError, OnError, Reading, files, pcap};

/// An input and its configuration.
#[derive(Debug, Args)]
pub(crate) struct InputArgs {
    /// The capture (pcap, pcapng) or CSV to learn from, as it is or as gzip; a folder stands for
    /// its files, and several inputs are learned as one, in order of time
    #[arg(long, value_name = "PATH")]
    input: Vec<PathBuf>,
    /// Fields, encodings and model; without it, a capture has good defaults and a CSV what
    /// `ns-train init` chooses
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Records (packets, rows) to learn from at most; of a larger input, a seeded sample of whole
    /// flows. Memory is bounded by it
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_RECORDS)]
    #[arg(value_parser = clap::value_parser!(u32).range(100..))]
    pub(crate) max_records: u32,
    /// A damaged record or bad cell: stop with an error, or skip and count it
    #[arg(long, value_enum, default_value_t)]
    on_error: OnError,
    /// Seed of all chance: equal seeds and epochs give equal models
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

impl InputArgs {
    /// Whether an input or a configuration is named.
    pub(crate) fn is_said(&self) -> bool {
        !self.input.is_empty() || self.config.is_some()
    }

    /// How the input is to be read.
    pub(crate) fn reading(&self) -> Reading {
        let (on_error, max_records) = (self.on_error, self.max_records);
        Reading { on_error, max_records, seed: self.seed, held_out: 0 }
    }

    /// What the arguments say, as a library's user would.
    pub(crate) fn generator(&self) -> Result<Generator, GeneratorError> {
        let Some(path) = &self.config else {
            return Generator::from_inputs(&self.input, self.reading());
        };
        let generator = Generator::from_config(path)?.reading(self.reading());
        let given = !self.input.is_empty();
        Ok(if given { generator.inputs(&self.input) } else { generator })
    }

    /// The configuration, and the inputs that it or `--input` names.
    pub(crate) fn configure(&self) -> Result<(Resolved, Vec<PathBuf>), GeneratorError> {
        let generator = self.generator()?;
        let inputs = generator.checked_inputs()?.to_vec();
        Ok((generator.config().clone(), inputs))
    }
}

/// Whether any file of the inputs is a capture: beside one there may be others.
pub(crate) fn is_capture(inputs: &[PathBuf]) -> Result<bool, IngestError> {
    for file in files::list(inputs)? {
        if pcap::is_capture(&files::head(&file, 4)?) {
            return Ok(true);
        }
    }
    Ok(false)
}
