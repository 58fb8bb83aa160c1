//! Fits a NetShare model to a capture or CSV and writes a bundle.
//!
//! Data goes one way: [`ingest`] reads a file into a trace, [`dataset`] fits
//! encoders and encodes it, [`train`] fits the networks of [`model`],
//! [`export`] writes them as a bundle. [`fit`] is the whole road; [`config`]
//! says which way; [`cli`] is `ns-train`.

pub mod check;
mod chunks;
pub mod cli;
pub mod config;
pub mod convert;
pub mod dataset;
pub mod device;
mod encode;
mod encoders;
pub mod evaluate;
pub mod export;
mod files;
pub mod fit;
pub mod ingest;
pub mod init;
mod input;
pub mod model;
pub mod split;
mod terminal;
pub mod train;
pub mod visualize;
