//! The command line of `ns-train split`.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use ns_model_format::schema::TraceKind;
use serde::Serialize;

use super::parts::Part;
use super::{Assignment, By, see, write};
use crate::config::Resolved;
use crate::files::{self as files_of, CannotWrite};
use crate::ingest::sample::FlowSampler;
use crate::ingest::{self, Reading, files, packets, table};
use crate::input::InputArgs;

/// The names of two and of three parts.
const NAMES: [&str; 3] = ["train", "validation", "test"];

/// Arguments of `ns-train split`.
#[derive(Debug, Args)]
#[command(mut_arg("max_records", |arg| arg.hide(true)))]
#[command(after_help = "\
Examples:
  ns-train split --input capture.pcap --by flow --out parts
  ns-train split --input flows.csv --by time --parts 0.8,0.2 --out parts
Then:
  ns-train train --input parts/train.pcap --out model.ns")]
pub struct SplitArgs {
    #[command(flatten)]
    input: InputArgs,
    /// What the parts are cut by
    #[arg(long, value_enum)]
    by: By,
    /// Shares of the parts: two (train, test) or three (train, validation, test)
    #[arg(long, value_name = "SHARE,...", value_delimiter = ',', default_value = "0.7,0.15,0.15")]
    parts: Vec<f64>,
    /// The folder for the parts' files; made if it is not there
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Print one JSON document about the parts to standard output
    #[arg(long)]
    json: bool,
}

/// What is told of a part.
#[derive(Serialize)]
struct Told {
    file: String,
    records: u64,
    flows: u64,
}

/// Splits an input.
pub(crate) fn run(args: &SplitArgs) -> anyhow::Result<()> {
    let names = match args.parts.len() {
        2 => vec![NAMES[0], NAMES[2]],
        3 => NAMES.to_vec(),
        other => bail!("`--parts` has {other} shares; expected 2 or 3"),
    };
    let sum: f64 = args.parts.iter().sum();
    if !args.parts.iter().all(|share| *share > 0.0) || (sum - 1.0).abs() > 1e-6 {
        bail!("`--parts` adds up to {sum}; expected shares above 0 that add up to 1");
    }
    let (config, inputs) = args.input.configure()?;
    let inputs = files::list(&inputs)?;
    let reading = args.input.reading();
    let is_packets = config.kind == TraceKind::Packets;
    let assignment = match args.by {
        By::Flow => Assignment::drawn(&args.parts),
        By::Time => Assignment::by_start(&starts(&inputs, &config, reading)?, &args.parts),
    };
    std::fs::create_dir_all(&args.out).with_context(|| CannotWrite(args.out.clone()))?;
    for name in &names {
        for extension in ["pcap", "csv"] {
            files_of::refuse_input(&args.out.join(format!("{name}.{extension}")), &inputs)?;
        }
    }
    let extension = if is_packets { "pcap" } else { "csv" };
    let mut parts = names
        .iter()
        .map(|name| Part::create(args.out.join(format!("{name}.{extension}"))))
        .collect::<anyhow::Result<Vec<Part>>>()?;
    let sampler = FlowSampler::for_parts(reading.seed);
    let of = |flow| Some(assignment.part(flow));
    let not_used = write::write(&inputs, &config, reading, (&sampler, &of), &mut parts)?;
    if let Some(empty) = parts.iter().find(|part| part.records == 0) {
        bail!(
            "no flow for `{}`: the input has too few flows for these shares; nothing was written",
            empty.path().display()
        );
    }
    let told: Vec<Told> = parts
        .iter()
        .map(|part| Told {
            file: part.path().display().to_string(),
            records: part.records,
            flows: part.flows(),
        })
        .collect();
    // All are whole before the first takes its place.
    let finished = parts.into_iter().map(Part::finish).collect::<anyhow::Result<Vec<_>>>()?;
    for (file, path) in finished {
        file.persist(&path).with_context(|| CannotWrite(path))?;
    }
    for part in &told {
        eprintln!("wrote `{}`: {} records in {} flows", part.file, part.records, part.flows);
    }
    if !not_used.is_empty() {
        let total: u64 = not_used.values().sum();
        eprintln!("left out: {total} records{}", ingest::reasons(&not_used));
    }
    if args.json {
        println!("{}", serde_json::json!({ "parts": told, "not_used": not_used }));
    }
    Ok(())
}

/// When each flow starts, and its records.
fn starts(
    inputs: &[PathBuf],
    config: &Resolved,
    reading: Reading,
) -> anyhow::Result<HashMap<u64, super::Seen>> {
    let (mut seen, sampler) = (HashMap::new(), FlowSampler::for_parts(reading.seed));
    if config.kind == TraceKind::Packets {
        packets::each_frame(inputs, config, reading, &sampler, |frame| {
            see(&mut seen, frame.flow, frame.time_ns)
        })?;
    } else {
        table::each_row(inputs, config, reading, &sampler, |row| {
            see(&mut seen, row.flow, row.time_ns)
        })?;
    }
    Ok(seen)
}
