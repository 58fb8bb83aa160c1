//! Fits a NetShare model to a capture or CSV and writes a bundle.

pub mod export;
pub mod model;
