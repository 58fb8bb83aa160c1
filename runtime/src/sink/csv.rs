//! A CSV: a line of names, then a line a record.

use super::output::{Output, Target};
use super::{Sent, Sink, SinkError};
use crate::render::Event;

/// Writes rows as a CSV.
#[derive(Debug)]
pub struct CsvSink {
    output: Output,
    sent: Sent,
}

impl CsvSink {
    /// Begins the file with `header`.
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub fn create(target: &Target, header: &str) -> Result<CsvSink, SinkError> {
        let mut output = Output::create(target)?;
        output.buffer.extend_from_slice(header.as_bytes());
        output.buffer.push(b'\n');
        output.end_record()?;
        Ok(CsvSink { output, sent: Sent::default() })
    }
}

impl Sink<Box<str>> for CsvSink {
    fn write(&mut self, events: &[Event<Box<str>>]) -> Result<(), SinkError> {
        for event in events {
            self.output.buffer.extend_from_slice(event.item.as_bytes());
            self.output.buffer.push(b'\n');
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
