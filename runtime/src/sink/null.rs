//! Nowhere: records are counted only.

use super::{Item, Sent, Sink, SinkError};
use crate::render::Event;

/// Counts records.
#[derive(Debug, Default)]
pub struct NullSink {
    sent: Sent,
}

impl NullSink {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> NullSink {
        NullSink::default()
    }
}

impl<T: Item> Sink<T> for NullSink {
    fn write(&mut self, events: &[Event<T>]) -> Result<(), SinkError> {
        for event in events {
            self.sent.count(event);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn sent(&self) -> Sent {
        self.sent
    }
}
