//! A PCAPNG with nanoseconds, where packets may say what their flow was labelled as.
//!
//! One section with one interface (draft-ietf-opsawg-pcapng), then an Enhanced Packet
//! Block a packet.

use std::borrow::Cow;

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness};

use super::file::{FileSink, Format};
use super::pcap::{FILE_SNAPLEN, since_epoch_ns};
use crate::packets::{Frame, LabelledFrame, Payload};
use crate::render::Event;

const ENHANCED_PACKET_BLOCK: u32 = 6;
/// The block but for its packet and options.
const FIXED_BYTES: usize = 32;
/// opt_comment: UTF-8 text.
const COMMENT: u16 = 1;
/// 10 to the -9 seconds.
const NANOSECONDS: u8 = 9;

/// Frames as blocks of a PCAPNG.
#[derive(Clone, Debug)]
pub struct PcapngFormat {
    /// The one that the frames were rendered with.
    pub payload: Payload,
    /// Frames are cut to so many bytes, with their true length beside.
    pub snaplen: u32,
    /// When the run begins, in nanoseconds since the epoch.
    pub origin_ns: i64,
}

/// Writes frames as a PCAPNG.
pub type PcapngSink = FileSink<PcapngFormat>;

impl PcapngFormat {
    fn file_header() -> Vec<u8> {
        let program = SectionHeaderOption::UserApplication(Cow::Borrowed("ns-replay"));
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![program],
            ..SectionHeaderBlock::default()
        };
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: FILE_SNAPLEN,
            options: vec![InterfaceDescriptionOption::IfTsResol(NANOSECONDS)],
        };
        let mut bytes = Vec::new();
        // Memory takes everything.
        if let Ok(mut writer) = PcapNgWriter::with_section_header(&mut bytes, section) {
            let _ = writer.write_pcapng_block(interface);
        }
        bytes
    }

    #[inline]
    fn append_frame(&self, time_ns: u64, frame: &Frame, comment: &str, out: &mut Vec<u8>) {
        let time_ns = since_epoch_ns(self.origin_ns, time_ns);
        let len = frame.len();
        let snaplen = self.snaplen.min(FILE_SNAPLEN) as usize;
        let kept = len.min(snaplen);
        let comment = shortened(comment);
        // The comment after its code and length, then the end of options.
        let options =
            if comment.is_empty() { 0 } else { 4 + comment.len().next_multiple_of(4) + 4 };
        let block = FIXED_BYTES + kept.next_multiple_of(4) + options;
        let head = [
            ENHANCED_PACKET_BLOCK,
            block as u32,
            0,
            (time_ns >> 32) as u32,
            time_ns as u32,
            kept as u32,
            len as u32,
        ];
        let mut header = [0; 28];
        for (to, from) in header.chunks_exact_mut(4).zip(head) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        out.extend_from_slice(&header);
        frame.append_to(&self.payload, snaplen, out);
        pad(kept, out);
        if !comment.is_empty() {
            out.extend_from_slice(&COMMENT.to_le_bytes());
            out.extend_from_slice(&(comment.len() as u16).to_le_bytes());
            out.extend_from_slice(comment.as_bytes());
            pad(comment.len(), out);
            out.extend_from_slice(&[0; 4]);
        }
        out.extend_from_slice(&(block as u32).to_le_bytes());
    }
}

/// What follows so many bytes up to a multiple of four.
#[inline]
fn pad(bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 3][..bytes.next_multiple_of(4) - bytes]);
}

/// An option's length has 16 bits.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(usize::from(u16::MAX))]
}

impl Format<Frame> for PcapngFormat {
    fn header(&self) -> Vec<u8> {
        PcapngFormat::file_header()
    }

    #[inline]
    fn append(&self, event: &Event<Frame>, out: &mut Vec<u8>) {
        self.append_frame(event.time_ns, &event.item, "", out);
    }
}

impl Format<LabelledFrame> for PcapngFormat {
    fn header(&self) -> Vec<u8> {
        PcapngFormat::file_header()
    }

    /// Labels become the packet's comment.
    #[inline]
    fn append(&self, event: &Event<LabelledFrame>, out: &mut Vec<u8>) {
        self.append_frame(event.time_ns, &event.item.frame, &event.item.labels, out);
    }
}
