//! Fits a NetShare model to a capture or CSV and writes a bundle.
//!
//! Data goes one way: [`ingest`] reads a file into a trace, [`dataset`] fits
//! encoders and encodes it, [`train`] fits the networks of [`model`],
//! [`export`] writes them as a bundle. [`fit`] is its first half, [`units`] its
//! second, as units of work; [`config`] says which way; [`cli`] is `ns-train`.
//!
//! A [`Generator`] goes it for a configuration, and keeps what it makes in a
//! [`WorkFolder`]: the model, the training curve, a synthetic trace, and how good
//! that is, which [`evaluate`] finds out and [`visualize`] shows.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use ns_trainer::{Generator, curve};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let generator = Generator::from_config("config.json")?.max_time(Duration::from_secs(600));
//! let training = generator.train("work")?;
//! for point in curve::read(&training.work.metrics())? {
//!     println!("{} {:?}", point.iteration, point.likelihood.map(|of| of.nats));
//! }
//! let report = generator.generate("work")?;
//! println!("{} records of {} flows in {}", report.records, report.flows, report.target);
//! let evaluation = generator.visualize("work")?;
//! println!("{:?}: {}", evaluation.summary.median_r, evaluation.summary.verdict);
//!
//! // Or both, from a capture without a configuration, with an end to everything.
//! let generator = Generator::from_inputs(["capture.pcap"], Default::default())?;
//! generator.overwrite(true).epochs(40).train_and_generate_with(
//!     "work",
//!     |training| training.likelihood.is_none_or(|of| of.nats < 1e6),
//!     |generating| generating.records < 1_000_000,
//! )?;
//! # Ok(())
//! # }
//! ```

mod arrays;
pub mod autoregressive;
pub mod check;
mod chunks;
pub mod cli;
pub mod config;
pub mod convert;
pub mod curve;
pub mod dataset;
pub mod device;
mod encode;
mod encoders;
pub mod evaluate;
pub mod export;
mod files;
pub mod fit;
pub mod generate;
pub mod generator;
pub mod ingest;
pub mod init;
mod input;
pub mod model;
pub mod split;
mod terminal;
pub mod train;
pub mod units;
pub mod visualize;
pub mod work;

pub use generator::{Generator, GeneratorError, Training};
pub use work::{WorkError, WorkFolder};
