//! A packet in 40 bytes: captures are millions of them.

use std::net::{IpAddr, Ipv4Addr};

use ns_model_format::{FiveTuple, Packet};

/// The header fields of one IPv4 packet, as [`Packet`] has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CompactPacket {
    /// Nanoseconds since the epoch.
    pub(super) time_ns: i64,
    /// Source and destination address.
    pub(super) addresses: [u32; 2],
    /// Number in the order of reading: of equal times, the smaller comes first.
    pub(super) number: u32,
    /// Source and destination port.
    pub(super) ports: [u16; 2],
    /// IP total length.
    pub(super) len_bytes: u16,
    /// IP identification.
    pub(super) ip_id: u16,
    /// The three flag bits above the fragment offset, as in the header.
    pub(super) fragment: u16,
    /// TCP window.
    pub(super) tcp_window: u16,
    /// Bytes after the transport header.
    pub(super) payload_len: u16,
    /// IP protocol number.
    pub(super) proto: u8,
    /// Type of service.
    pub(super) tos: u8,
    /// Time to live.
    pub(super) ttl: u8,
    /// Header length in 32-bit words.
    pub(super) ihl: u8,
    /// TCP flags.
    pub(super) tcp_flags: u8,
    /// Whether addresses and ports were exchanged, to be seen from the
    /// conversation's first sender.
    pub(super) exchanged: bool,
}

const _: () = assert!(size_of::<CompactPacket>() == 40);

/// Addresses, ports and protocol: what a packet of a conversation shares with
/// the others, whichever side sent it.
pub(super) type ConversationKey = ([u32; 2], [u16; 2], u8);

impl CompactPacket {
    /// The same for both directions of a conversation.
    #[must_use]
    pub(super) fn conversation(&self) -> ConversationKey {
        let [from, to] = [0, 1].map(|side| (self.addresses[side], self.ports[side]));
        let ((a, p), (b, q)) = if from <= to { (from, to) } else { (to, from) };
        ([a, b], [p, q], self.proto)
    }

    /// Exchanges source and destination.
    pub(super) fn exchange(&mut self) {
        self.addresses.swap(0, 1);
        self.ports.swap(0, 1);
        self.exchanged = !self.exchanged;
    }

    /// The fragment offset in units of 8 bytes.
    #[must_use]
    pub(super) fn fragment_offset(&self) -> u16 {
        self.fragment & 0x1fff
    }

    /// The three flag bits.
    #[must_use]
    pub(super) fn ip_flags(&self) -> u8 {
        (self.fragment >> 13) as u8
    }

    /// The packet with its fields spread out.
    #[must_use]
    pub(super) fn spread(&self) -> Packet {
        let address = |side: usize| IpAddr::V4(Ipv4Addr::from(self.addresses[side]));
        Packet {
            time_ns: self.time_ns,
            tuple: FiveTuple {
                src_ip: address(0),
                dst_ip: address(1),
                src_port: self.ports[0],
                dst_port: self.ports[1],
                proto: self.proto,
            },
            len_bytes: self.len_bytes,
            tos: self.tos,
            ip_id: self.ip_id,
            ip_flags: self.ip_flags(),
            fragment_offset: self.fragment_offset(),
            ttl: self.ttl,
            ihl: self.ihl,
            tcp_flags: self.tcp_flags,
            tcp_window: self.tcp_window,
            payload_len: self.payload_len,
        }
    }
}
