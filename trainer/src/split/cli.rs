//! The command line of `ns-train split`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use ns_model_format::schema::TraceKind;
use serde::Serialize;

use super::parts::Part;
use super::{Assignment, By, see};
use crate::config::Resolved;
use crate::files::{self as files_of, CannotWrite};
use crate::ingest::{self, NotUsed, Reading, files, packets, table};
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
    let not_used = if is_packets {
        split_captures(&inputs, &config, reading, &assignment, &mut parts)?
    } else {
        split_tables(&inputs, &config, reading, &assignment, &mut parts)?
    };
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
    let mut seen = HashMap::new();
    if config.kind == TraceKind::Packets {
        packets::each_frame(inputs, config, reading, |frame| {
            see(&mut seen, frame.flow, frame.time_ns)
        })?;
    } else {
        table::each_row(inputs, config, reading, |row| see(&mut seen, row.flow, row.time_ns))?;
    }
    Ok(seen)
}

fn split_captures(
    inputs: &[PathBuf],
    config: &Resolved,
    reading: Reading,
    assignment: &Assignment,
    parts: &mut [Part],
) -> anyhow::Result<NotUsed> {
    let (mut link_type, mut problem) = (None, None);
    let not_used = packets::each_frame(inputs, config, reading, |frame| {
        if problem.is_some() {
            return;
        }
        let mut write = || -> anyhow::Result<()> {
            if link_type.is_none() {
                link_type = Some(frame.link_type);
                parts.iter_mut().try_for_each(|part| part.write_pcap_header(frame.link_type))?;
            }
            if link_type != Some(frame.link_type) {
                bail!(
                    "a PCAP has one link type, and the input has {} and {}",
                    link_type.unwrap_or_default(),
                    frame.link_type
                );
            }
            let part = &mut parts[assignment.part(frame.flow)];
            part.count(frame.flow);
            part.write_frame(frame).with_context(|| CannotWrite(part.path().to_owned()))
        };
        problem = write().err();
    })?;
    problem.map_or(Ok(not_used), Err)
}

fn split_tables(
    inputs: &[PathBuf],
    config: &Resolved,
    reading: Reading,
    assignment: &Assignment,
    parts: &mut [Part],
) -> anyhow::Result<NotUsed> {
    let header = header(inputs.first().map(PathBuf::as_path))?;
    for part in parts.iter_mut() {
        part.write_line(header.iter().map(String::as_str))?;
    }
    let mut problem = None;
    let (_, not_used) = table::each_row(inputs, config, reading, |row| {
        if problem.is_none() {
            let part = &mut parts[assignment.part(row.flow)];
            part.count(row.flow);
            let written = part.write_line(row.cells);
            problem = written.with_context(|| CannotWrite(part.path().to_owned())).err();
        }
    })?;
    problem.map_or(Ok(not_used), Err)
}

fn header(path: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let path = path.context("no input")?;
    Ok(ingest::Rows::open(path)?.header().to_vec())
}
