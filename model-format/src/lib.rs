//! What the NetShare trainer and runtime share.
//!
//! * [`record`]: plain values, a [`FiveTuple`] and a [`Packet`].
//! * [`mod@column`]: a column of an input table, the form in which encoders are fitted.
//! * [`cell`]: from a cell of text to its value.
//! * [`datetime`]: times written as dates.
//! * [`layout`]: how encoded fields lie in a network's output.
//! * [`codec`]: one encoder a file; fit, encode and decode together.
//! * [`random`]: counter-based random streams, the only source of chance.
//! * [`schema`]: the fields of a trace, each with its fitted encoder.
//! * [`autoregressive`]: the variables of an autoregressive model.
//! * [`arrival`]: when flows start, [`flow_rate`]: how densely; [`chunks`]: parts of the span with networks of their own.
//! * [`manifest`] and [`bundle`]: the file `model.ns` (docs/bundle-format.md is normative).

pub mod arrival;
pub mod autoregressive;
pub mod bundle;
pub mod cell;
pub mod chunks;
pub mod codec;
pub mod column;
pub mod datetime;
mod exponential;
pub mod flow_rate;
pub mod layout;
pub mod manifest;
mod normal;
pub mod random;
pub mod record;
pub mod schema;
pub mod wide;

pub use bundle::{Bundle, BundleError};
pub use column::{Column, ColumnData};
pub use flow_rate::FlowRate;
pub use layout::{Activation, FoldedLayout, Layout, Segment};
pub use manifest::Manifest;
pub use record::{FiveTuple, Packet, Value};
pub use schema::{Field, FieldKind, Schema};
