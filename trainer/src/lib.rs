//! Fits a NetShare model to a capture or CSV and writes a bundle.

pub mod model;
pub mod train;
