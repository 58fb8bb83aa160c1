//! Is it real? Distances between a real and a synthetic trace, beside the
//! noise floor.

pub mod cli;
pub mod metrics;
pub mod packets;
