//! What is read, and how: the arguments that all commands on inputs share.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use ns_model_format::schema::TraceKind;

use crate::config::{self, Resolved};
use crate::ingest::sample::DEFAULT_MAX_RECORDS;
use crate::ingest::{OnError, Reading, files, pcap};
use crate::init;

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
    /// How the input is to be read.
    pub(crate) fn reading(&self) -> Reading {
        Reading { on_error: self.on_error, max_records: self.max_records, seed: self.seed }
    }

    /// The configuration, and the inputs that it or `--input` names.
    pub(crate) fn configure(&self) -> anyhow::Result<(Resolved, Vec<PathBuf>)> {
        let Some(path) = &self.config else {
            if self.input.is_empty() {
                bail!("no input: give `--input FILE`");
            }
            // Of a capture nothing has to be found out first.
            let text = match is_capture(&self.input)? {
                true => config::DEFAULT_PCAP.to_owned(),
                false => init::configuration(&self.input, &init::Hints::default(), self.on_error)?,
            };
            let file = config::parse(&text, "the configuration by default")?;
            return Ok((config::resolve(&file, Path::new("."))?, self.input.clone()));
        };
        let file = config::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut resolved = config::resolve(&file, folder)
            .with_context(|| format!("configuration `{}`", path.display()))?;
        let inputs = match (self.input.as_slice(), resolved.input.take()) {
            ([], Some(input)) => vec![input],
            ([], None) => bail!(
                "no input: give `--input FILE`, or `original_data_file` in `{}`",
                path.display()
            ),
            (inputs, _) => inputs.to_vec(),
        };
        // NetShare's packet configurations are also run on captures saved as CSV, and the reverse
        // is a mistake worth naming.
        if resolved.kind != TraceKind::Packets && is_capture(&inputs)? {
            bail!(
                "{} is a capture, but `{}` describes a CSV: its `dataset_type` is not `pcap`",
                files::shown(&inputs),
                path.display()
            );
        }
        Ok((resolved, inputs))
    }
}

/// Whether any file of the inputs is a capture: beside one there may be others.
pub(crate) fn is_capture(inputs: &[PathBuf]) -> anyhow::Result<bool> {
    for file in files::list(inputs)? {
        if pcap::is_capture(&files::head(&file, 4)?) {
            return Ok(true);
        }
    }
    Ok(false)
}
