//! What several end-to-end tests and benches need.

mod files;
mod packets;
mod programs;
mod sample;

pub use files::{iterations, lab_capture, names_in, read, repository, shared_data};
pub use packets::{Seen, packets};
pub use programs::{command, expect, has_tool, interrupt, interrupted, program, signal, start};
pub use sample::{SampleModel, random_weights, sample_bundle};
