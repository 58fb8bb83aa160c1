//! Parts of a run that were generated apart, and how they become one file.
//!
//! A part holds the records of its flows as they will lie in the whole, each after
//! its place in time. Merging never looks into them, so it is the same for captures
//! and tables.
//!
//! All numbers are little-endian: `NSPART01`; the length of the whole file's header
//! (u32) and that header; then for every record its time (u64, nanoseconds), flow
//! (u64), length (u32) and bytes; at last [`END`] as a length, the count of records
//! (u64) and of flows (u64).

use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::SinkError;
use super::output::{Output, Target};

const MAGIC: &[u8; 8] = b"NSPART01";
/// A record's length that says that there are no more.
const END: u32 = u32::MAX;
/// No record, and no header, is longer.
const MOST_BYTES: u32 = 1 << 24;
const BUFFER_BYTES: usize = 64 << 10;

/// Writes a part.
#[derive(Debug)]
pub(super) struct PartWriter {
    output: Output,
    records: u64,
}

impl PartWriter {
    pub(super) fn create(path: &Path, header: &[u8]) -> Result<PartWriter, SinkError> {
        let mut output = Output::create(&Target::File(path.to_owned()))?;
        output.buffer.extend_from_slice(MAGIC);
        output.buffer.extend_from_slice(&(header.len() as u32).to_le_bytes());
        output.buffer.extend_from_slice(header);
        output.end_record()?;
        Ok(PartWriter { output, records: 0 })
    }

    pub(super) fn record(
        &mut self,
        (time_ns, flow): (u64, u64),
        append: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SinkError> {
        let buffer = &mut self.output.buffer;
        buffer.extend_from_slice(&time_ns.to_le_bytes());
        buffer.extend_from_slice(&flow.to_le_bytes());
        let at = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        append(buffer);
        let bytes = (buffer.len() - at - 4) as u32;
        buffer[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
        self.records += 1;
        self.output.end_record()
    }

    /// Records; after an error, those that are in the file.
    pub(super) fn written(&self) -> u64 {
        self.output.records()
    }

    pub(super) fn flush(&mut self) -> Result<(), SinkError> {
        self.output.flush()
    }

    pub(super) fn finish(&mut self, flows: u64) -> Result<(), SinkError> {
        let buffer = &mut self.output.buffer;
        buffer.extend_from_slice(&[0; 16]);
        buffer.extend_from_slice(&END.to_le_bytes());
        buffer.extend_from_slice(&self.records.to_le_bytes());
        buffer.extend_from_slice(&flows.to_le_bytes());
        self.output.end_record()?;
        self.output.finish()
    }
}

/// Why parts cannot be merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A part cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The part.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is no part, or damaged, or of another run.
    #[error("`{}` {reason}; generate it again", path.display())]
    Damaged {
        /// The part.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The whole cannot be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// What a merged file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Records.
    pub records: u64,
    /// Flows.
    pub flows: u64,
    /// The file's size.
    pub bytes: u64,
}

/// A part that is being read.
struct Part {
    path: PathBuf,
    file: BufReader<File>,
    /// The next record.
    time_ns: u64,
    flow: u64,
    record: Vec<u8>,
    read: u64,
    flows: u64,
}

impl Part {
    fn open(path: &Path) -> Result<(Part, Vec<u8>), MergeError> {
        let file = File::open(path)
            .map_err(|source| MergeError::Read { path: path.to_owned(), source })?;
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        let (path, record) = (path.to_owned(), Vec::new());
        let mut part = Part { path, file, time_ns: 0, flow: 0, record, read: 0, flows: 0 };
        if part.bytes::<8>()? != *MAGIC {
            return Err(part.damaged("is no part of a trace"));
        }
        let bytes = u32::from_le_bytes(part.bytes()?);
        part.fill(bytes)?;
        let header = std::mem::take(&mut part.record);
        Ok((part, header))
    }

    fn damaged(&self, reason: &'static str) -> MergeError {
        MergeError::Damaged { path: self.path.clone(), reason }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], MergeError> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).map_err(|error| self.short(error))?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: u32) -> Result<(), MergeError> {
        if bytes > MOST_BYTES {
            return Err(self.damaged("is damaged: it has a record of absurd length"));
        }
        self.record.resize(bytes as usize, 0);
        let read = self.file.read_exact(&mut self.record);
        read.map_err(|error| self.short(error))
    }

    fn short(&self, error: std::io::Error) -> MergeError {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damaged("ends too early"),
            _ => MergeError::Read { path: self.path.clone(), source: error },
        }
    }

    /// Reads the next record; false at the end.
    fn advance(&mut self) -> Result<bool, MergeError> {
        let before = (self.time_ns, self.flow);
        self.time_ns = u64::from_le_bytes(self.bytes()?);
        self.flow = u64::from_le_bytes(self.bytes()?);
        let bytes = u32::from_le_bytes(self.bytes()?);
        if bytes == END {
            let records = u64::from_le_bytes(self.bytes()?);
            self.flows = u64::from_le_bytes(self.bytes()?);
            if records != self.read {
                return Err(self.damaged("is damaged: its count of records is wrong"));
            }
            return Ok(false);
        }
        if self.read > 0 && (self.time_ns, self.flow) < before {
            return Err(self.damaged("is damaged: its records are not in order"));
        }
        self.read += 1;
        self.fill(bytes)?;
        Ok(true)
    }

    fn key(&self) -> (u64, u64) {
        (self.time_ns, self.flow)
    }
}

impl Ord for Part {
    /// The earliest is the greatest. A flow is in one part, and its records come in order.
    fn cmp(&self, other: &Part) -> std::cmp::Ordering {
        other.key().cmp(&self.key())
    }
}

impl PartialOrd for Part {
    fn partial_cmp(&self, other: &Part) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Part {
    fn eq(&self, other: &Part) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Part {}

/// Merges all parts of a run into the file that the run in one piece would have
/// written, byte for byte. `go_on` is asked now and then; when it returns false the
/// file is left out: there is `None` then.
///
/// # Errors
/// A part that is missing, damaged, or of another run; a file that cannot be written.
pub fn merge_parts(
    parts: &[PathBuf],
    target: &Target,
    mut go_on: impl FnMut(&Merged) -> bool,
) -> Result<Option<Merged>, MergeError> {
    const LOOK_EVERY: u64 = 4096;
    let mut output = Output::create(target)?;
    let mut merged = Merged::default();
    let mut heap = BinaryHeap::with_capacity(parts.len());
    let mut first_header: Option<Vec<u8>> = None;
    for path in parts {
        let (mut part, header) = Part::open(path)?;
        match &first_header {
            Some(first) if *first != header => return Err(part.damaged("is of another run")),
            Some(_) => {}
            None => {
                output.buffer.extend_from_slice(&header);
                output.end_record()?;
                merged.bytes += header.len() as u64;
                first_header = Some(header);
            }
        }
        if part.advance()? {
            heap.push(part);
        } else {
            merged.flows = merged.flows.saturating_add(part.flows);
        }
    }
    while let Some(mut part) = heap.peek_mut() {
        output.buffer.extend_from_slice(&part.record);
        output.end_record()?;
        merged.records += 1;
        merged.bytes += part.record.len() as u64;
        if !part.advance()? {
            merged.flows = merged.flows.saturating_add(part.flows);
            std::collections::binary_heap::PeekMut::pop(part);
        }
        if merged.records % LOOK_EVERY == 0 && !go_on(&merged) {
            return Ok(None);
        }
    }
    if !go_on(&merged) {
        return Ok(None);
    }
    output.finish()?;
    Ok(Some(merged))
}
