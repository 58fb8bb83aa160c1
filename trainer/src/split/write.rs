//! Writes the records of an input to the parts that their flows belong to.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ns_model_format::schema::TraceKind;

use super::parts::Part;
use crate::config::Resolved;
use crate::files::CannotWrite;
use crate::ingest::sample::FlowSampler;
use crate::ingest::{self, NotUsed, Reading, packets, table};

/// Which part a flow belongs to, if any, by the number that a sampler drew for it.
pub(super) type Parting<'a> = (&'a FlowSampler, &'a dyn Fn(u64) -> Option<usize>);

/// Writes every usable record, in the order of the input; returns what was not usable.
pub(super) fn write(
    inputs: &[PathBuf],
    config: &Resolved,
    reading: Reading,
    parting: Parting<'_>,
    parts: &mut [Part],
) -> anyhow::Result<NotUsed> {
    match config.kind {
        TraceKind::Packets => captures(inputs, config, reading, parting, parts),
        _ => tables(inputs, config, reading, parting, parts),
    }
}

/// Writes the records of flows that reading holds out, or the part `share` of
/// them, to a file of the input's kind; how many records, and of how many flows.
///
/// # Errors
/// The input cannot be read, or the file not be written.
pub(crate) fn write_held_out(
    inputs: &[PathBuf],
    config: &Resolved,
    reading: Reading,
    share: f64,
    path: &Path,
) -> anyhow::Result<(u64, u64)> {
    let held_out = (f64::from(reading.held_out) * share).ceil() as u32;
    let sampler = FlowSampler::of(Reading { held_out, ..reading });
    let mut parts = [Part::create(path.to_owned())?];
    let of = |flow| sampler.holds_out(flow).then_some(0);
    write(inputs, config, reading, (&sampler, &of), &mut parts)?;
    let [part] = parts;
    let found = (part.records, part.flows());
    let (file, path) = part.finish()?;
    file.persist(&path).with_context(|| CannotWrite(path))?;
    Ok(found)
}

fn captures(
    inputs: &[PathBuf],
    config: &Resolved,
    reading: Reading,
    (sampler, part_of): Parting<'_>,
    parts: &mut [Part],
) -> anyhow::Result<NotUsed> {
    let (mut link_type, mut problem) = (None, None);
    let not_used = packets::each_frame(inputs, config, reading, sampler, |frame| {
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
            let Some(part) = part_of(frame.flow) else { return Ok(()) };
            let part = &mut parts[part];
            part.count(frame.flow);
            part.write_frame(frame).with_context(|| CannotWrite(part.path().to_owned()))
        };
        problem = write().err();
    })?;
    problem.map_or(Ok(not_used), Err)
}

fn tables(
    inputs: &[PathBuf],
    config: &Resolved,
    reading: Reading,
    (sampler, part_of): Parting<'_>,
    parts: &mut [Part],
) -> anyhow::Result<NotUsed> {
    let header = header(inputs.first().map(PathBuf::as_path))?;
    for part in parts.iter_mut() {
        part.write_line(header.iter().map(String::as_str))?;
    }
    let mut problem = None;
    let (_, not_used) = table::each_row(inputs, config, reading, sampler, |row| {
        if let Some(part) = part_of(row.flow)
            && problem.is_none()
        {
            let part = &mut parts[part];
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
