//! The files that parts are written to.

use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::NamedTempFile;

use crate::files::{self, CannotWrite};
use crate::ingest::packets::Frame;

/// One part: its file, and what it has so far.
pub(super) struct Part {
    path: PathBuf,
    out: BufWriter<NamedTempFile>,
    pub(super) records: u64,
    flows: HashSet<u64>,
}

impl Part {
    pub(super) fn create(path: PathBuf) -> anyhow::Result<Part> {
        let file = files::beside(&path).with_context(|| CannotWrite(path.clone()))?;
        let out = BufWriter::with_capacity(1 << 18, file);
        Ok(Part { path, out, records: 0, flows: HashSet::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn flows(&self) -> u64 {
        self.flows.len() as u64
    }

    pub(super) fn count(&mut self, flow: u64) {
        self.records += 1;
        self.flows.insert(flow);
    }

    /// Begins a PCAP with nanoseconds.
    pub(super) fn write_pcap_header(&mut self, link_type: u32) -> std::io::Result<()> {
        // Magic of nanoseconds, version 2.4, no time zone, any snaplen.
        self.out.write_all(&0xa1b2_3c4d_u32.to_le_bytes())?;
        for half in [2_u16, 4] {
            self.out.write_all(&half.to_le_bytes())?;
        }
        for word in [0_u32, 0, 262_144, link_type] {
            self.out.write_all(&word.to_le_bytes())?;
        }
        Ok(())
    }

    /// Appends a record as it was captured.
    pub(super) fn write_frame(&mut self, frame: &Frame<'_>) -> anyhow::Result<()> {
        let second = frame.time_ns.div_euclid(1_000_000_000);
        let Ok(second) = u32::try_from(second) else {
            bail!("a record of {second} s since 1970 has no place in a PCAP");
        };
        let nanosecond = frame.time_ns.rem_euclid(1_000_000_000) as u32;
        for word in [second, nanosecond, frame.data.len() as u32, frame.original_len] {
            self.out.write_all(&word.to_le_bytes())?;
        }
        Ok(self.out.write_all(frame.data)?)
    }

    /// Appends a line of a CSV (RFC 4180).
    pub(super) fn write_line<'c>(
        &mut self,
        cells: impl IntoIterator<Item = &'c str>,
    ) -> anyhow::Result<()> {
        for (index, cell) in cells.into_iter().enumerate() {
            if index > 0 {
                self.out.write_all(b",")?;
            }
            if cell.contains([',', '"', '\n', '\r']) {
                write!(self.out, "\"{}\"", cell.replace('"', "\"\""))?;
            } else {
                self.out.write_all(cell.as_bytes())?;
            }
        }
        Ok(self.out.write_all(b"\n")?)
    }

    /// The temporary file, whole.
    pub(super) fn finish(self) -> anyhow::Result<(NamedTempFile, PathBuf)> {
        let failed = || CannotWrite(self.path.clone());
        let file =
            self.out.into_inner().map_err(|error| error.into_error()).with_context(failed)?;
        Ok((file, self.path.clone()))
    }
}
