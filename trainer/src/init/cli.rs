//! The command line of `ns-train init`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::{Hints, MOST_ROWS, configuration};
use crate::config;
use crate::files::{self, CannotWrite};
use crate::ingest::OnError;

/// Arguments of `ns-train init`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ns-train init --input flows.csv --out flows.json
  ns-train init --input readings.csv --time when --flow device_id --out readings.json
  ns-train init --input capture.pcap --out capture.json
Then:
  ns-train check --input flows.csv --config flows.json
  ns-train train --input flows.csv --config flows.json")]
pub struct InitArgs {
    /// The capture or CSV to look at; of several files, the first
    #[arg(long, value_name = "PATH", required = true)]
    input: Vec<PathBuf>,
    /// The configuration to write; standard output if not given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The column of the records' times, if it cannot be told
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// The columns that name a flow, if they cannot be told
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    flow: Vec<String>,
    /// Rows of a CSV to look at
    #[arg(long, value_name = "N", default_value_t = MOST_ROWS)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// A row that cannot be split: stop with an error, or skip it
    #[arg(long, value_enum, default_value_t)]
    on_error: OnError,
    /// Write over a file that exists
    #[arg(long)]
    force: bool,
}

/// Writes a configuration for an input.
pub(crate) fn run(args: &InitArgs) -> anyhow::Result<()> {
    let hints = Hints { time: args.time.clone(), flow: args.flow.clone(), most_rows: args.rows };
    let text = configuration(&args.input, &hints, args.on_error)?;
    // What is written must at least be read again.
    let file = config::parse(&text, "the configuration")?;
    config::resolve(&file, Path::new("."))?;
    let Some(out) = &args.out else {
        std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write the output")?;
        return Ok(());
    };
    if out.exists() && !args.force {
        bail!("`{}` exists; give `--force` to write over it", out.display());
    }
    files::write_whole(out, text.as_bytes()).with_context(|| CannotWrite(out.clone()))?;
    eprintln!(
        "wrote `{}`: {} columns name a flow, {} are in every record",
        out.display(),
        file.pre_post_processor.config.metadata.len(),
        file.pre_post_processor.config.timeseries.len()
    );
    Ok(())
}
