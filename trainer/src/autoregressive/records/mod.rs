//! A flow's records: an LSTM that is given the record before, how many are left, and how
//! much of the planned time, and heads that draw a record's tokens one after another.

mod batch;
mod context;
mod network;
mod sequence;

pub(crate) use batch::batches;
pub(crate) use network::{RecordNetwork, RecordWeights, Widths};
