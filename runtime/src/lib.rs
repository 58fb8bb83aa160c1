//! Streams synthetic traffic from a NetShare bundle.

pub mod cli;
pub mod describe;
pub mod drive;
pub mod error;
pub mod exit;
pub mod generate;
pub mod pace;
pub mod packets;
pub mod render;
pub mod rows;
pub mod sink;
pub mod stats;

pub use packets::{Frame, PacketOptions, PacketRender, Payload};
pub use render::{Event, Render};
pub use rows::RowRender;
pub use sink::{Sink, SinkError};
