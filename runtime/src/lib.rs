//! Streams synthetic traffic from a NetShare bundle, in a program of yours.
//!
//! [`Generator`] opens a bundle, from a path or from memory. Its [`Stream`] has [`Event`]s
//! in order of time: as an iterator, or those that are due by a clock of the caller's
//! ([`Stream::next_due`]). What an event holds is up to a [`Render`]: [`PacketRender`] makes
//! frames, [`RowRender`] lines of a CSV. [`drive::drive`] takes them to a [`Sink`], paced
//! or not, as `ns-replay` does.
//!
//! ```no_run
//! use std::path::Path;
//! use std::time::{Duration, Instant};
//!
//! use ns_runtime::{Due, GenerateOptions, Generator, PacketOptions, PacketRender};
//!
//! # fn send(frame: &[u8]) {}
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut options = GenerateOptions::default();
//! options.forever = true;
//! options.onnxruntime = Some("/opt/onnxruntime/libonnxruntime.so".into());
//! let generator = Generator::from_path(Path::new("model.ns"), options)?;
//! let schema = &generator.bundle().manifest().schema;
//! let render = PacketRender::new(schema, PacketOptions::default())?;
//! let payload = render.payload().clone();
//! let mut packets = generator.stream(render)?;
//! let (begin, mut frame) = (Instant::now(), Vec::new());
//! loop {
//!     let now_ns = begin.elapsed().as_nanos() as u64;
//!     match packets.next_due(now_ns)? {
//!         Due::Now(packet) => {
//!             frame.clear();
//!             packet.item.append_to(&payload, usize::MAX, &mut frame);
//!             send(&frame);
//!         }
//!         Due::At(time_ns) => std::thread::sleep(Duration::from_nanos(time_ns - now_ns)),
//!         Due::Never => break,
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What is generated can be chosen by [`Condition`]s, and flows' attributes can
//! be given with [`GivenFlows`]:
//!
//! ```no_run
//! # use std::{path::Path, sync::Arc};
//! # use ns_runtime::{GenerateOptions, Generator, GivenFlows, RowRender};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let bundle = Arc::new(ns_model_format::Bundle::open(Path::new("model.ns"))?);
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
//!
//! With one worker, the default, everything happens in the thread that asks for events;
//! more have a thread each, which end when the stream is dropped. Generators and streams
//! can be sent to other threads, and there can be any number of them. Nothing is written
//! to standard output or error. The only thing that a process has once is ONNX Runtime (which
//! keeps one thread of its own): the first path given for it, or found, is the one that
//! counts, and an autoregressive bundle seldom needs it.

mod attributes;
mod autoregressive;
pub mod cli;
mod common;
pub mod condition;
mod counters;
mod decode;
pub mod describe;
pub mod device;
pub mod doppelganger;
mod draw;
pub mod drive;
pub mod engine;
pub mod error;
pub mod exit;
pub mod flow_records;
mod form;
pub mod generate;
pub mod given;
mod graphs;
mod hashed;
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
pub mod signals;
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
pub use device::Device;
pub use error::RuntimeError;
pub use generate::{Due, GenerateOptions, Generator, StatsReader, Stream};
pub use given::{GivenError, GivenFlows};
pub use ns_model_format::{Bundle, FlowRate};
pub use packets::{Frame, PacketOptions, PacketRender, Payload};
pub use render::{Event, Render};
pub use rows::RowRender;
pub use sink::{Sink, SinkError};
