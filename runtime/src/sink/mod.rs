//! Where records go, behind one trait.

mod csv;
mod export;
mod file;
mod flows;
#[cfg(not(target_os = "linux"))]
mod ifaddrs;
mod interface;
#[cfg(target_os = "linux")]
mod ioctl;
mod link;
mod null;
mod output;
mod part;
mod pcap;
mod pcapng;
mod pnet;
mod port;
#[cfg(target_os = "linux")]
mod raw;
mod rotate;

pub use csv::{CsvFormat, CsvSink};
pub use export::{ExportFormat, ExportSink};
pub use file::{FileSink, Format, PartSink};
pub use flows::{FlowNotes, FlowRender, FlowSink};
pub use interface::{InterfaceReport, InterfaceSink, Log, OnDown, Oversize, WireOptions};
pub use link::{Interface, LinkState, interface_names};
pub use null::NullSink;
pub use output::Target;
pub use part::{MergeError, Merged, merge_parts};
pub use pcap::{DEFAULT_SNAPLEN, PcapFormat, PcapSink};
pub use pcapng::{PcapngFormat, PcapngSink};
pub use port::SendThrough;
pub use rotate::Rotation;

use std::path::PathBuf;

use serde::Serialize;

use crate::packets::{Frame, LabelledFrame, RepairCounts};
use crate::render::Event;

/// What a sink did with what it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Records written or sent.
    pub records: u64,
    /// Their bytes: full frames with their payload, or text.
    pub bytes: u64,
    /// Flows whose first record was among them.
    pub flows: u64,
    /// Records that the interface did not take in time.
    pub dropped: u64,
    /// Records that were due while the interface was down, and left out.
    pub down_skipped: u64,
    /// Datagrams of flow records that came where nobody listened.
    pub refused: u64,
    /// Frames above the MTU that were left out.
    pub oversize_skipped: u64,
    /// Frames above the MTU that were shortened.
    pub oversize_truncated: u64,
    /// Packets that needed each kind of repair.
    pub repaired: RepairCounts,
    /// Files begun.
    pub files: u64,
}

impl Sent {
    /// Records that were taken from the generator, whatever became of them.
    pub(crate) fn taken(&self) -> u64 {
        self.records + self.dropped + self.down_skipped + self.oversize_skipped
    }

    /// Counts a record as sent.
    #[inline]
    pub(crate) fn count<T: Item>(&mut self, event: &Event<T>) {
        self.records += 1;
        self.bytes = self.bytes.saturating_add(event.item.bytes() as u64);
        self.flows += u64::from(event.record == 0);
        event.item.count_repairs(&mut self.repaired);
    }
}

/// What can be counted of a rendered record.
pub trait Item: Send + 'static {
    /// Whether it is a frame, whose bytes are what is on the wire.
    const IS_FRAME: bool;
    /// Its length.
    fn bytes(&self) -> usize;
    /// Whether the side that did not begin the conversation sent it.
    fn is_reply(&self) -> bool {
        false
    }
    /// Adds what was repaired in it.
    fn count_repairs(&self, counts: &mut RepairCounts);
}

impl Item for Frame {
    const IS_FRAME: bool = true;
    #[inline]
    fn bytes(&self) -> usize {
        self.len()
    }
    #[inline]
    fn is_reply(&self) -> bool {
        self.side() == 1
    }
    #[inline]
    fn count_repairs(&self, counts: &mut RepairCounts) {
        counts.count(self.repairs());
    }
}

impl Item for LabelledFrame {
    const IS_FRAME: bool = true;
    #[inline]
    fn bytes(&self) -> usize {
        self.frame.bytes()
    }
    #[inline]
    fn is_reply(&self) -> bool {
        self.frame.side() == 1
    }
    #[inline]
    fn count_repairs(&self, counts: &mut RepairCounts) {
        self.frame.count_repairs(counts);
    }
}

impl Item for Box<str> {
    const IS_FRAME: bool = false;
    /// With the line's end.
    fn bytes(&self) -> usize {
        self.len() + 1
    }
    fn count_repairs(&self, _counts: &mut RepairCounts) {}
}

/// Why records could not be written or sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The reader of a pipe has gone: an end, not a failure.
    #[error("the reader of standard output has closed it")]
    Closed,
    /// The file could not be made, written or renamed.
    #[error("cannot {action} `{}`", path.display())]
    Output {
        /// `create`, `write`, `rename` or `rotate`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No room left; what was written before is whole.
    #[error("`{}` is full: kept {records} whole records, {bytes} bytes", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// Records in it.
        records: u64,
        /// Its size.
        bytes: u64,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Raw sockets are not allowed.
    #[error("no permission to send raw frames on `{name}`")]
    Permission {
        /// The interface.
        name: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No such interface.
    #[error("no interface `{name}`; there are {known}")]
    NoInterface {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The interface is not Ethernet.
    #[error("interface `{name}` has no Ethernet address")]
    NotEthernet {
        /// The interface.
        name: String,
    },
    /// The interface is down, or nothing is connected to it.
    #[error("interface `{name}` {state}")]
    Down {
        /// The interface.
        name: String,
        /// How it is.
        state: LinkState,
    },
    /// The interface is down and waited for: the last records of those to be written are not,
    /// and can be once [`Sink::ready`] says so.
    #[error("interface `{name}` is not ready: {unsent} packets wait")]
    NotReady {
        /// The interface.
        name: String,
        /// So many of the records are not written.
        unsent: usize,
    },
    /// A packet to where none may go; it was not sent.
    #[error("a packet to {destination} is refused: packets may only go to {allowed}")]
    Refused {
        /// Where it would have gone.
        destination: std::net::IpAddr,
        /// The networks that are allowed.
        allowed: String,
    },
    /// A frame above the MTU.
    #[error("a packet of {bytes} bytes exceeds the MTU of `{name}`, {mtu} bytes")]
    Oversize {
        /// The interface.
        name: String,
        /// The packet's IP total length.
        bytes: usize,
        /// The interface's MTU.
        mtu: usize,
    },
    /// There is no way to a collector of flow records.
    #[error("cannot send flow records to `{collector}`")]
    Collector {
        /// The collector.
        collector: std::net::SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Anything else that the system refused.
    #[error("cannot {action} on interface `{name}`")]
    Interface {
        /// What was tried.
        action: &'static str,
        /// The interface.
        name: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Takes records in order of time.
pub trait Sink<T>: Send {
    /// Writes or sends all of the records, in order.
    ///
    /// # Errors
    /// As [`SinkError`] says; what came before the failing record is written.
    fn write(&mut self, events: &[Event<T>]) -> Result<(), SinkError>;

    /// Hands everything to the system that was written before.
    ///
    /// # Errors
    /// As [`SinkError`] says.
    fn flush(&mut self) -> Result<(), SinkError>;

    /// Flushes, and gives a file its final name. Nothing may be written after.
    ///
    /// # Errors
    /// As [`SinkError`] says.
    fn finish(&mut self) -> Result<(), SinkError>;

    /// What was done so far.
    fn sent(&self) -> Sent;

    /// Whether it can be written to now; asked after [`SinkError::NotReady`].
    ///
    /// # Errors
    /// It never will be.
    fn ready(&mut self) -> Result<bool, SinkError> {
        Ok(true)
    }

    /// Does what may make the next write quicker, within a few microseconds: the sender has slept,
    /// and this record is due very soon.
    fn warm_up(&mut self, next: &Event<T>) {
        let _ = next;
    }

    /// What went to interfaces, if it sends to any, and what they have counted themselves.
    fn interfaces(&self) -> Vec<InterfaceReport> {
        Vec::new()
    }
}
