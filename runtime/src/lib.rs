//! Streams synthetic traffic from a NetShare bundle.
//!
//! [`Generator`] turns a bundle into [`Event`]s in order of time. What an
//! event holds is up to a [`Render`]: [`PacketRender`] makes frames,
//! [`RowRender`] lines of a CSV. [`drive::drive`] takes them to a [`Sink`].
//!
//! What is generated can be chosen by [`Condition`]s, and flows' attributes can
//! be given with [`GivenFlows`]:
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use ns_model_format::Bundle;
//! use ns_runtime::{GenerateOptions, Generator, GivenFlows, RowRender};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bundle = Arc::new(Bundle::open(Path::new("model.ns"))?);
//! let mut options = GenerateOptions::default();
//! options.flows = Some(100);
//! options.conditions = vec!["dstport=53".parse()?, "proto=17".parse()?];
//! let render = RowRender::new(&bundle.manifest().schema, 0);
//! let mut dns = Generator::open(bundle.clone(), options)?.stream(render.clone())?;
//! for event in &mut dns {
//!     println!("{}", event?.item);
//! }
//! println!("{:.1}% of the draws accepted", 100.0 * dns.stats().acceptance());
//!
//! let mut options = GenerateOptions::default();
//! let given = GivenFlows::read(Path::new("flows.csv"), &bundle.manifest().schema)?;
//! options.attributes = Some(Arc::new(given));
//! let flows = Generator::open(bundle, options)?.stream(render)?;
//! # Ok(())
//! # }
//! ```

mod attributes;
mod autoregressive;
pub mod cli;
mod common;
pub mod condition;
mod counters;
mod decode;
pub mod describe;
mod draw;
pub mod drive;
pub mod engine;
pub mod error;
pub mod exit;
pub mod flow_records;
mod form;
pub mod generate;
pub mod given;
mod kernels;
mod lane;
mod live;
pub mod locate;
pub mod networks;
mod onnx_check;
pub mod pace;
pub mod packets;
pub mod prefix;
mod program;
pub mod render;
mod rolling;
pub mod rows;
mod select;
mod shared;
pub mod sink;
pub mod stages;
pub mod stats;
mod strata;
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
