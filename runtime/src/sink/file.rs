//! Files of records: what comes first, then a record after another.

use std::path::Path;

use super::output::{Output, Target};
use super::part::PartWriter;
use super::rotate::{Numbered, Rotation};
use super::{Item, Sent, Sink, SinkError};
use crate::render::Event;

/// How records lie in a file.
pub trait Format<T>: Send {
    /// What the file begins with.
    fn header(&self) -> Vec<u8>;
    /// Appends a record.
    fn append(&self, event: &Event<T>, out: &mut Vec<u8>);
}

/// Writes records to a file, to one after another, or to standard output.
#[derive(Debug)]
pub struct FileSink<F> {
    output: Output,
    format: F,
    files: Option<Numbered>,
    /// Records in the files before.
    records_before: u64,
    sent: Sent,
}

impl<F> FileSink<F> {
    /// Begins the file.
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub fn begin<T>(target: &Target, format: F) -> Result<FileSink<F>, SinkError>
    where
        F: Format<T>,
    {
        FileSink::rotating(target, format, Rotation::default())
    }

    /// Begins the first of several files, each whole: `NAME-00000.EXTENSION` and so on.
    ///
    /// # Errors
    /// The file cannot be made or written; or it cannot be followed by another, since it
    /// is no regular file.
    pub fn rotating<T>(
        target: &Target,
        format: F,
        rotation: Rotation,
    ) -> Result<FileSink<F>, SinkError>
    where
        F: Format<T>,
    {
        let files = match target {
            _ if rotation.is_none() => None,
            Target::File(path) if path.metadata().map_or(true, |found| found.is_file()) => {
                Some(Numbered::new(path, rotation))
            }
            other => {
                let source = std::io::Error::other("only regular files can be many");
                let path = other.to_string().into();
                return Err(SinkError::Output { action: "rotate", path, source });
            }
        };
        let first = files.as_ref().map(|files| Target::File(files.path()));
        let output = open(first.as_ref().unwrap_or(target), &format.header())?;
        let sent = Sent { files: 1, ..Sent::default() };
        Ok(FileSink { output, format, files, records_before: 0, sent })
    }

    /// Ends this file and begins the next.
    fn next_file(&mut self, header: &[u8]) -> Result<(), SinkError> {
        let Some(files) = &mut self.files else { return Ok(()) };
        self.output.finish()?;
        let records = self.output.records();
        files.go_on();
        self.output = open(&Target::File(files.path()), header)?;
        self.records_before += records;
        self.sent.files += 1;
        Ok(())
    }

    fn append<T: Item>(&mut self, event: &Event<T>) -> Result<(), SinkError>
    where
        F: Format<T>,
    {
        if self.files.as_mut().is_some_and(|files| files.ends_before(event.time_ns)) {
            self.next_file(&self.format.header())?;
        }
        let begin = self.output.buffer.len();
        self.format.append(event, &mut self.output.buffer);
        let bytes = self.output.bytes();
        if self.files.as_ref().is_some_and(|files| files.is_too_long(bytes))
            && self.output.records() > 0
        {
            let record = self.output.buffer.split_off(begin);
            self.next_file(&self.format.header())?;
            self.output.buffer.extend_from_slice(&record);
        }
        self.output.end_record()?;
        self.sent.count(event);
        Ok(())
    }

    /// After an error, those records count that are in files.
    fn counted(&mut self, result: Result<(), SinkError>) -> Result<(), SinkError> {
        if result.is_err() {
            self.sent.records = self.records_before + self.output.records();
        }
        result
    }
}

fn open(target: &Target, header: &[u8]) -> Result<Output, SinkError> {
    let mut output = Output::create(target)?;
    output.buffer.extend_from_slice(header);
    output.end_record()?;
    Ok(output)
}

impl<T: Item, F: Format<T>> Sink<T> for FileSink<F> {
    fn write(&mut self, events: &[Event<T>]) -> Result<(), SinkError> {
        let written = events.iter().try_for_each(|event| self.append(event));
        self.counted(written)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let flushed = self.output.flush();
        self.counted(flushed)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        let finished = self.output.finish();
        self.counted(finished)
    }

    fn sent(&self) -> Sent {
        self.sent
    }
}

/// Writes one part of a run's records, to be merged with the others by [`super::merge_parts`].
#[derive(Debug)]
pub struct PartSink<F> {
    writer: PartWriter,
    format: F,
    sent: Sent,
}

impl<F> PartSink<F> {
    /// Begins the file; `format` is that of the merged one.
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub fn begin<T>(path: &Path, format: F) -> Result<PartSink<F>, SinkError>
    where
        F: Format<T>,
    {
        let writer = PartWriter::create(path, &format.header())?;
        let sent = Sent { files: 1, ..Sent::default() };
        Ok(PartSink { writer, format, sent })
    }

    /// After an error, those records count that are in the file.
    fn counted(&mut self, result: Result<(), SinkError>) -> Result<(), SinkError> {
        if result.is_err() {
            self.sent.records = self.writer.written();
        }
        result
    }
}

impl<T: Item, F: Format<T>> Sink<T> for PartSink<F> {
    fn write(&mut self, events: &[Event<T>]) -> Result<(), SinkError> {
        let written = events.iter().try_for_each(|event| {
            let key = (event.time_ns, event.flow);
            self.writer.record(key, |out| self.format.append(event, out))?;
            self.sent.count(event);
            Ok(())
        });
        self.counted(written)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let flushed = self.writer.flush();
        self.counted(flushed)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        let finished = self.writer.finish(self.sent.flows);
        self.counted(finished)
    }

    fn sent(&self) -> Sent {
        self.sent
    }
}
