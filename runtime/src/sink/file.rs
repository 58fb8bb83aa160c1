//! Files of records: what comes first, then a record after another.

use std::path::Path;

use super::output::{Output, Target};
use super::part::PartWriter;
use super::{Item, Sent, Sink, SinkError};
use crate::render::Event;

/// How records lie in a file.
pub trait Format<T>: Send {
    /// What the file begins with.
    fn header(&self) -> Vec<u8>;
    /// Appends a record.
    fn append(&self, event: &Event<T>, out: &mut Vec<u8>);
}

/// Writes records to a file, or to standard output.
#[derive(Debug)]
pub struct FileSink<F> {
    output: Output,
    format: F,
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
        let mut output = Output::create(target)?;
        output.buffer.extend_from_slice(&format.header());
        output.end_record()?;
        Ok(FileSink { output, format, sent: Sent::default() })
    }
}

impl<T: Item, F: Format<T>> Sink<T> for FileSink<F> {
    fn write(&mut self, events: &[Event<T>]) -> Result<(), SinkError> {
        for event in events {
            self.format.append(event, &mut self.output.buffer);
            self.output.end_record()?;
            self.sent.count(event);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.output.flush()
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.output.finish()
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
        Ok(PartSink { writer, format, sent: Sent::default() })
    }
}

impl<T: Item, F: Format<T>> Sink<T> for PartSink<F> {
    fn write(&mut self, events: &[Event<T>]) -> Result<(), SinkError> {
        for event in events {
            let key = (event.time_ns, event.flow);
            self.writer.record(key, |out| self.format.append(event, out))?;
            self.sent.count(event);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.writer.flush()
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.writer.finish(self.sent.flows)
    }

    fn sent(&self) -> Sent {
        self.sent
    }
}
