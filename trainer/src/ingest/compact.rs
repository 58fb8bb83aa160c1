//! A packet in 40 bytes: captures are millions of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ns_model_format::{FiveTuple, Packet};

/// The header fields of one packet, as [`Packet`] has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CompactPacket {
    /// Nanoseconds since the epoch.
    pub(super) time_ns: i64,
    /// Source and destination address: those of IPv4 themselves, of those of IPv6
    /// where they are in [`Addresses`].
    addresses: [u32; 2],
    /// Number in the order of reading: of equal times, the smaller comes first.
    pub(super) number: u32,
    /// Source and destination port.
    ports: [u16; 2],
    /// Length of the IP packet.
    len_bytes: u16,
    /// IP identification.
    ip_id: u16,
    /// The three flag bits above the fragment offset, as in IPv4's header.
    fragment: u16,
    /// TCP window.
    tcp_window: u16,
    /// Bytes after the transport header.
    payload_len: u16,
    /// IP protocol number.
    proto: u8,
    /// Type of service.
    tos: u8,
    /// Time to live.
    ttl: u8,
    /// Header length in 32-bit words.
    ihl: u8,
    /// TCP flags.
    tcp_flags: u8,
    /// [`IPV6`] and [`EXCHANGED`].
    marks: u8,
}

const _: () = assert!(size_of::<CompactPacket>() == 40);

/// The packet is one of IPv6.
const IPV6: u8 = 1;
/// Addresses and ports were exchanged, to be seen from the conversation's first sender.
const EXCHANGED: u8 = 2;

/// IPv6 addresses, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    list: Vec<u128>,
    /// Where they are in it.
    places: HashMap<u128, u32>,
}

impl Addresses {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn place(&mut self, address: u128) -> u32 {
        *self.places.entry(address).or_insert_with(|| {
            self.list.push(address);
            // Memory ends long before these numbers do.
            (self.list.len() - 1) as u32
        })
    }

    /// Forgets those that no packet has.
    pub(super) fn keep_those_of(&mut self, packets: &mut [CompactPacket]) {
        let old = std::mem::take(self);
        for packet in packets.iter_mut().filter(|packet| packet.is_v6()) {
            packet.addresses = packet.addresses.map(|place| self.place(old.list[place as usize]));
        }
    }
}

/// Addresses, ports, protocol and version: what a packet of a conversation shares with
/// the others, whichever side sent it.
pub(super) type ConversationKey = ([(u32, u16); 2], u8, bool);

impl CompactPacket {
    /// A packet, its addresses of IPv6 taken into `addresses`.
    pub(super) fn new(packet: &Packet, number: u32, addresses: &mut Addresses) -> CompactPacket {
        let tuple = &packet.tuple;
        let mut marks = 0;
        let bits = [tuple.src_ip, tuple.dst_ip].map(|address| match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                marks = IPV6;
                addresses.place(address.into())
            }
        });
        CompactPacket {
            time_ns: packet.time_ns,
            addresses: bits,
            number,
            ports: [tuple.src_port, tuple.dst_port],
            len_bytes: packet.len_bytes,
            ip_id: packet.ip_id,
            fragment: u16::from(packet.ip_flags) << 13 | packet.fragment_offset,
            tcp_window: packet.tcp_window,
            payload_len: packet.payload_len,
            proto: tuple.proto,
            tos: packet.tos,
            ttl: packet.ttl,
            ihl: packet.ihl,
            tcp_flags: packet.tcp_flags,
            marks,
        }
    }

    /// Whether it is one of IPv6.
    #[must_use]
    pub(super) fn is_v6(&self) -> bool {
        self.marks & IPV6 != 0
    }

    /// The same for both directions of a conversation.
    #[must_use]
    pub(super) fn conversation(&self) -> ConversationKey {
        let mut ends = [0, 1].map(|side| (self.addresses[side], self.ports[side]));
        ends.sort_unstable();
        (ends, self.proto, self.is_v6())
    }

    /// Whether it goes the way that another of its conversation goes.
    #[must_use]
    pub(super) fn goes_as(&self, other: &CompactPacket) -> bool {
        (self.addresses, self.ports) == (other.addresses, other.ports)
    }

    /// Exchanges source and destination.
    pub(super) fn exchange(&mut self) {
        self.addresses.swap(0, 1);
        self.ports.swap(0, 1);
        self.marks ^= EXCHANGED;
    }

    /// Whether source and destination are exchanged.
    #[must_use]
    pub(super) fn is_exchanged(&self) -> bool {
        self.marks & EXCHANGED != 0
    }

    /// The packet with its fields spread out; `addresses` are those that it was made with.
    #[must_use]
    pub(super) fn spread(&self, addresses: &Addresses) -> Packet {
        let address = |side: usize| match self.addresses[side] {
            place if self.is_v6() => Ipv6Addr::from(addresses.list[place as usize]).into(),
            bits => IpAddr::V4(Ipv4Addr::from(bits)),
        };
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
            ip_flags: (self.fragment >> 13) as u8,
            fragment_offset: self.fragment & 0x1fff,
            ttl: self.ttl,
            ihl: self.ihl,
            tcp_flags: self.tcp_flags,
            tcp_window: self.tcp_window,
            payload_len: self.payload_len,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet() -> impl Strategy<Value = Packet> {
        let addresses = prop_oneof![
            any::<[u32; 2]>().prop_map(|both| both.map(|bits| Ipv4Addr::from(bits).into())),
            // Few, so that some are met twice.
            [0_u128..9, 0_u128..9].prop_map(|both| both.map(|bits| Ipv6Addr::from(bits).into())),
        ];
        (addresses, any::<[u16; 7]>(), any::<[u8; 6]>(), 0_u8..8).prop_map(
            |([src_ip, dst_ip], words, bytes, ip_flags): ([IpAddr; 2], _, _, _)| Packet {
                time_ns: i64::from(words[0]),
                tuple: FiveTuple {
                    src_ip,
                    dst_ip,
                    src_port: words[1],
                    dst_port: words[2],
                    proto: bytes[0],
                },
                len_bytes: words[3],
                tos: bytes[1],
                ip_id: words[4],
                ip_flags,
                fragment_offset: words[5] & 0x1fff,
                ttl: bytes[2],
                ihl: bytes[3],
                tcp_flags: bytes[4],
                tcp_window: words[6],
                payload_len: words[3] / 2,
            },
        )
    }

    proptest! {
        #[test]
        fn packets_come_back_as_they_were(
            packets in prop::collection::vec(packet(), 1..40),
            keep in 1_usize..40,
        ) {
            let mut addresses = Addresses::default();
            let mut compact: Vec<CompactPacket> = (0..)
                .zip(&packets)
                .map(|(number, packet)| CompactPacket::new(packet, number, &mut addresses))
                .collect();
            compact.truncate(keep);
            addresses.keep_those_of(&mut compact);
            for (compact, packet) in compact.iter().zip(&packets) {
                prop_assert_eq!(compact.spread(&addresses), *packet);
                let mut turned = *compact;
                turned.exchange();
                prop_assert_eq!(turned.spread(&addresses).tuple, packet.tuple.reversed());
                prop_assert_eq!(turned.conversation(), compact.conversation());
            }
            let of = |packet: &Packet| [packet.tuple.src_ip, packet.tuple.dst_ip];
            let mut kept: Vec<IpAddr> = packets.iter().take(keep).flat_map(of).collect();
            kept.retain(IpAddr::is_ipv6);
            kept.sort_unstable();
            kept.dedup();
            prop_assert_eq!(addresses.list.len(), kept.len());
        }
    }
}
