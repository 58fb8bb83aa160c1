//! A classic PCAP: with microseconds, what every tool reads, or with nanoseconds.

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
pub(super) const FILE_SNAPLEN: u32 = 262_144;

/// Frames as records of a PCAP.
#[derive(Clone, Debug)]
pub struct PcapFormat {
    /// The one that the frames were rendered with.
    pub payload: Payload,
    /// Frames are cut to so many bytes, with their true length beside.
    pub snaplen: u32,
    /// When the run begins, in nanoseconds since the epoch.
    pub origin_ns: i64,
    /// Times are in nanoseconds (magic number 0xa1b23c4d), not in microseconds.
    pub nanoseconds: bool,
}

impl Format<Frame> for PcapFormat {
    fn header(&self) -> Vec<u8> {
        let ts_resolution =
            if self.nanoseconds { TsResolution::NanoSecond } else { TsResolution::MicroSecond };
        let header = PcapHeader {
            snaplen: FILE_SNAPLEN,
            datalink: DataLink::ETHERNET,
            ts_resolution,
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
        let time_ns = since_epoch_ns(self.origin_ns, event.time_ns);
        let seconds = u32::try_from(time_ns / 1_000_000_000).unwrap_or(u32::MAX);
        let fraction = (time_ns % 1_000_000_000) as u32;
        let fraction = if self.nanoseconds { fraction } else { fraction / 1000 };
        let len = event.item.len();
        let snaplen = self.snaplen.min(FILE_SNAPLEN) as usize;
        let mut header = [0; 16];
        let parts = [seconds, fraction, len.min(snaplen) as u32, len as u32];
        for (to, from) in header.chunks_exact_mut(4).zip(parts) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        out.extend_from_slice(&header);
        event.item.append_to(&self.payload, snaplen, out);
    }
}

/// The time of an event of a run that begins at `origin_ns`. No file has times before 1970.
#[inline]
pub(super) fn since_epoch_ns(origin_ns: i64, time_ns: u64) -> u64 {
    let time_ns = i128::from(origin_ns) + i128::from(time_ns);
    u64::try_from(time_ns.max(0)).unwrap_or(u64::MAX)
}

/// Writes frames as a PCAP.
pub type PcapSink = FileSink<PcapFormat>;

impl PcapSink {
    /// Begins a file with microseconds; see [`PcapFormat`].
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub fn create(
        target: &Target,
        payload: Payload,
        snaplen: u32,
        origin_ns: i64,
    ) -> Result<PcapSink, SinkError> {
        let format = PcapFormat { payload, snaplen, origin_ns, nanoseconds: false };
        FileSink::begin(target, format)
    }
}
