//! The networks.

pub mod weights;
