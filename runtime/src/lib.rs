//! Streams synthetic traffic from a NetShare bundle.
//!
//! [`Generator`] turns a bundle into [`Event`]s in order of time. What an
//! event holds is up to a [`Render`].

mod attributes;
mod counters;
mod decode;
mod engine;
pub mod error;
pub mod generate;
pub mod locate;
mod networks;
mod onnx_check;
pub mod render;
mod rolling;
#[cfg(test)]
mod testing;
pub mod timeline;
mod worker;

pub use counters::GenerationStats;
pub use error::RuntimeError;
pub use generate::{GenerateOptions, Generator, StatsReader, Stream};
pub use render::{Event, Render};
