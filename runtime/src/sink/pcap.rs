//! A classic PCAP with microseconds: what every tool reads.

use pcap_file::pcap::PcapHeader;
use pcap_file::{DataLink, Endianness, TsResolution};

use super::output::{Output, Target};
use super::{Sent, Sink, SinkError};
use crate::packets::{Frame, Payload};
use crate::render::Event;

/// Bytes kept of a frame unless said otherwise: every header, little filler.
pub const DEFAULT_SNAPLEN: u32 = 96;
/// What the file's header says. Readers refuse packets whose true length is
/// above it, so it is libpcap's largest, not the length to which we cut.
const FILE_SNAPLEN: u32 = 262_144;

/// Writes frames as a PCAP.
#[derive(Debug)]
pub struct PcapSink {
    output: Output,
    payload: Payload,
    snaplen: usize,
    origin_ns: i64,
    sent: Sent,
}

impl PcapSink {
    /// Begins the file. Frames are cut to `snaplen` bytes, with their true
    /// length beside; the run begins at `origin_ns`, in nanoseconds since the
    /// epoch. `payload` is the one that the frames were rendered with.
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub fn create(
        target: &Target,
        payload: Payload,
        snaplen: u32,
        origin_ns: i64,
    ) -> Result<PcapSink, SinkError> {
        let mut output = Output::create(target)?;
        let header = PcapHeader {
            snaplen: FILE_SNAPLEN,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::MicroSecond,
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        header.write_to(&mut output.buffer).map_err(|error| SinkError::Output {
            action: "write",
            path: target.to_string().into(),
            source: std::io::Error::other(error),
        })?;
        output.end_record()?;
        let snaplen = snaplen.min(FILE_SNAPLEN) as usize;
        Ok(PcapSink { output, payload, snaplen, origin_ns, sent: Sent::default() })
    }
}

impl Sink<Frame> for PcapSink {
    fn write(&mut self, events: &[Event<Frame>]) -> Result<(), SinkError> {
        for event in events {
            let time_ns = i128::from(self.origin_ns) + i128::from(event.time_ns);
            let time_us = (time_ns / 1000).max(0) as u64;
            let seconds = u32::try_from(time_us / 1_000_000).unwrap_or(u32::MAX);
            let len = event.item.len();
            let mut header = [0; 16];
            let parts =
                [seconds, (time_us % 1_000_000) as u32, len.min(self.snaplen) as u32, len as u32];
            for (to, from) in header.chunks_exact_mut(4).zip(parts) {
                to.copy_from_slice(&from.to_le_bytes());
            }
            self.output.buffer.extend_from_slice(&header);
            event.item.append_to(&self.payload, self.snaplen, &mut self.output.buffer);
            self.output.end_record()?;
            self.sent.count(event);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.output.flush()
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.output.finish()
    }

    fn sent(&self) -> Sent {
        self.sent
    }
}
