//! A classic PCAP with microseconds: what every tool reads.

use pcap_file::pcap::PcapHeader;
use pcap_file::{DataLink, Endianness, TsResolution};

use super::SinkError;
use super::file::{FileSink, Format};
use super::output::Target;
use crate::packets::{Frame, Payload};
use crate::render::Event;

/// Bytes kept of a frame unless said otherwise: every header, little filler.
pub const DEFAULT_SNAPLEN: u32 = 96;
/// What the file's header says. Readers refuse packets whose true length is
/// above it, so it is libpcap's largest, not the length to which we cut.
const FILE_SNAPLEN: u32 = 262_144;

/// Frames as records of a PCAP.
#[derive(Clone, Debug)]
pub struct PcapFormat {
    /// The one that the frames were rendered with.
    pub payload: Payload,
    /// Frames are cut to so many bytes, with their true length beside.
    pub snaplen: u32,
    /// When the run begins, in nanoseconds since the epoch.
    pub origin_ns: i64,
}

impl Format<Frame> for PcapFormat {
    fn header(&self) -> Vec<u8> {
        let header = PcapHeader {
            snaplen: FILE_SNAPLEN,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::MicroSecond,
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        let mut bytes = Vec::new();
        // Memory takes everything.
        let _ = header.write_to(&mut bytes);
        bytes
    }

    #[inline]
    fn append(&self, event: &Event<Frame>, out: &mut Vec<u8>) {
        let time_ns = i128::from(self.origin_ns) + i128::from(event.time_ns);
        let time_us = (time_ns / 1000).max(0) as u64;
        let seconds = u32::try_from(time_us / 1_000_000).unwrap_or(u32::MAX);
        let len = event.item.len();
        let snaplen = self.snaplen.min(FILE_SNAPLEN) as usize;
        let mut header = [0; 16];
        let parts = [seconds, (time_us % 1_000_000) as u32, len.min(snaplen) as u32, len as u32];
        for (to, from) in header.chunks_exact_mut(4).zip(parts) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        out.extend_from_slice(&header);
        event.item.append_to(&self.payload, snaplen, out);
    }
}

/// Writes frames as a PCAP.
pub type PcapSink = FileSink<PcapFormat>;

impl PcapSink {
    /// Begins the file; see [`PcapFormat`].
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub fn create(
        target: &Target,
        payload: Payload,
        snaplen: u32,
        origin_ns: i64,
    ) -> Result<PcapSink, SinkError> {
        FileSink::begin(target, PcapFormat { payload, snaplen, origin_ns })
    }
}
