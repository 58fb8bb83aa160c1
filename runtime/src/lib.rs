//! Streams synthetic traffic from a NetShare bundle.
//!
//! [`Generator`] turns a bundle into [`Event`]s in order of time. What an
//! event holds is up to a [`Render`]: [`PacketRender`] makes frames,
//! [`RowRender`] lines of a CSV. [`drive::drive`] takes them to a [`Sink`].

mod attributes;
pub mod cli;
pub mod condition;
mod counters;
mod decode;
pub mod describe;
mod draw;
pub mod drive;
pub mod engine;
pub mod error;
pub mod exit;
pub mod generate;
pub mod given;
pub mod locate;
pub mod networks;
mod onnx_check;
pub mod pace;
pub mod packets;
pub mod render;
mod rolling;
pub mod rows;
mod select;
pub mod sink;
pub mod stats;
#[cfg(test)]
mod testing;
pub mod timeline;
mod worker;

pub use condition::{Condition, ConditionError};
pub use counters::GenerationStats;
pub use error::RuntimeError;
pub use generate::{GenerateOptions, Generator, StatsReader, Stream};
pub use given::{GivenError, GivenFlows};
pub use packets::{Frame, PacketOptions, PacketRender, Payload};
pub use render::{Event, Render};
pub use rows::RowRender;
pub use sink::{Sink, SinkError};
