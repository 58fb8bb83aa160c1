//! A CSV: a line of names, then a line a record.

use super::SinkError;
use super::file::{FileSink, Format};
use super::output::Target;
use crate::render::Event;

/// Rows as lines of a CSV.
#[derive(Clone, Debug)]
pub struct CsvFormat {
    /// The line of names, without its end.
    pub header: String,
}

impl Format<Box<str>> for CsvFormat {
    fn header(&self) -> Vec<u8> {
        format!("{}\n", self.header).into_bytes()
    }

    #[inline]
    fn append(&self, event: &Event<Box<str>>, out: &mut Vec<u8>) {
        out.extend_from_slice(event.item.as_bytes());
        out.push(b'\n');
    }
}

/// Writes rows as a CSV.
pub type CsvSink = FileSink<CsvFormat>;

impl CsvSink {
    /// Begins the file with `header`.
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub fn create(target: &Target, header: &str) -> Result<CsvSink, SinkError> {
        FileSink::begin(target, CsvFormat { header: header.to_owned() })
    }
}
