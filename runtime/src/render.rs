//! What generated records become: the seam between generation and output.

use ns_model_format::Value;

use crate::timeline::Key;

/// Turns a flow's generated values into what a sink takes: a packet's header
/// bytes, a CSV row. Every worker has its own clone, so nothing is shared.
pub trait Render: Clone + Send + 'static {
    /// What is remembered from record to record of a flow (sequence numbers, say).
    type Flow: Send;
    /// One rendered record.
    type Item: Send + 'static;

    /// Begins a flow. `flow` is its number, unique in a run; `attributes` are
    /// the values of [`ns_model_format::Schema::attributes`], in order.
    fn begin_flow(&mut self, flow: u64, attributes: &[Value]) -> Self::Flow;

    /// Renders the flow's next record. `time_ns` counts from the beginning of
    /// the run; `measurements` are the values of
    /// [`ns_model_format::Schema::measurements`], in order. Must not depend on
    /// other flows or on anything but its arguments: the output is
    /// byte-identical for any number of workers.
    fn record(&mut self, flow: &mut Self::Flow, time_ns: u64, measurements: &[Value])
    -> Self::Item;

    /// Ends a flow: it has no further records.
    fn end_flow(&mut self, flow: Self::Flow, end: FlowEnd) {
        let _ = (flow, end);
    }
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEnd {
    /// The flow's number.
    pub flow: u64,
    /// Nanoseconds from the beginning of the run to its last record, also one that
    /// conditions left out; of a flow that was cut, possibly later.
    pub time_ns: u64,
    /// Whether it came to its own end: the run did not end before, and it was not
    /// longer than a flow may be.
    pub complete: bool,
}

/// A record in its place in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<T> {
    /// Nanoseconds from the beginning of the run.
    pub time_ns: u64,
    /// The flow's number.
    pub flow: u64,
    /// The record's number in its flow, from 0.
    pub record: u32,
    /// The record, rendered.
    pub item: T,
}

impl<T> Event<T> {
    /// Its place in the order.
    #[inline]
    pub(crate) fn key(&self) -> Key {
        Key { time_ns: self.time_ns, flow: self.flow }
    }
}
