//! The command line of `ns-train convert`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::Writer;
use super::parquet::ParquetWriter;
use crate::files::{self, CannotWrite};
use crate::ingest::{self, OnError, packets};

/// Arguments of `ns-train convert`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ns-train convert --input capture.pcap --out packets.parquet
  ns-train convert --input captures/ --out packets.csv
  ns-train convert --input capture.pcap.gz --out - | head")]
pub struct ConvertArgs {
    /// The capture (pcap, pcapng), as it is or as gzip; a folder stands for its files
    #[arg(long, value_name = "PATH", required = true)]
    input: Vec<PathBuf>,
    /// The table to write, Parquet if its name ends in `.parquet`, else CSV; `-` is a CSV on
    /// standard output. Packets stand in the order of the files
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// A damaged record: stop with an error, or use what comes before
    #[arg(long, value_enum, default_value_t)]
    on_error: OnError,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// Writes captures as a table.
pub(crate) fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    let inputs = ingest::files::list(&args.input)?;
    files::refuse_input(&args.out, &inputs)?;
    let failed = || CannotWrite(args.out.clone());
    let (mut writer, file) = if args.out == Path::new("-") {
        (Writer::csv(Box::new(std::io::stdout().lock()))?, None)
    } else if args.out.is_dir() {
        bail!("`--out {}` is a folder; expected a file name", args.out.display());
    } else {
        let file = files::beside(&args.out).with_context(failed)?;
        let out = file.reopen().with_context(failed)?;
        let writer = if args.out.extension().is_some_and(|extension| extension == "parquet") {
            Writer::Parquet(ParquetWriter::new(out).with_context(failed)?)
        } else {
            Writer::csv(Box::new(out)).with_context(failed)?
        };
        (writer, Some(file))
    };
    let mut problem = None;
    let mut count = 0_u64;
    let not_used = packets::each(&inputs, args.on_error, |row| {
        // A full disk is noticed at the next packet; nothing more is written then.
        if problem.is_none() {
            count += 1;
            problem = writer.push(row).err();
        }
    })?;
    let written = problem.map_or_else(|| writer.finish(), Err);
    match written {
        // Whoever reads the pipe has had enough.
        Err(error) if file.is_none() && is_closed_pipe(&error) => return Ok(()),
        written => written.with_context(failed)?,
    }
    if let Some(file) = file {
        file.persist(&args.out).with_context(failed)?;
    }
    if !args.quiet {
        eprintln!(
            "{count} packets{}",
            match not_used.is_empty() {
                true => String::new(),
                false => format!("; not used{}", ingest::reasons(&not_used)),
            }
        );
    }
    Ok(())
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
