//! Streams synthetic traffic from a NetShare bundle.

pub mod packets;
pub mod render;

pub use render::{Event, Render};
