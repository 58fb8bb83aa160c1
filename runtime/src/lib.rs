//! Streams synthetic traffic from a NetShare bundle.

pub mod render;

pub use render::{Event, Render};
