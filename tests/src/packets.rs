//! Generated packets as an independent parser sees them.

use std::path::Path;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pcap_file::pcap::PcapReader;

use crate::read;

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// From and to.
    pub addresses: [[u8; 4]; 2],
    /// From and to; 0 without ports.
    pub ports: [u16; 2],
    /// The IP protocol.
    pub proto: u8,
    /// Its time to live.
    pub ttl: u8,
    /// When it was sent, since 1970.
    pub time_us: u64,
}

impl Seen {
    /// Addresses, ports and protocol, the same for both directions.
    #[must_use]
    pub fn conversation(self) -> ([([u8; 4], u16); 2], u8) {
        let mut ends = [0, 1].map(|end| (self.addresses[end], self.ports[end]));
        ends.sort();
        (ends, self.proto)
    }
}

/// The packets of a capture of IPv4, whose headers must be legal.
#[must_use]
pub fn packets(path: &Path) -> Vec<Seen> {
    let capture = read(path);
    let mut reader = PcapReader::new(&capture[..]).expect("a capture");
    let mut seen = Vec::new();
    while let Some(record) = reader.next_raw_packet() {
        let record = record.expect("a whole record");
        let packet = SlicedPacket::from_ethernet(&record.data).expect("legal headers");
        let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("not IPv4") };
        let header = ip.header();
        let ports = match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => [tcp.source_port(), tcp.destination_port()],
            Some(TransportSlice::Udp(udp)) => [udp.source_port(), udp.destination_port()],
            _ => [0, 0],
        };
        let addresses = [header.source(), header.destination()];
        seen.push(Seen {
            addresses,
            ports,
            proto: header.protocol().0,
            ttl: header.ttl(),
            time_us: u64::from(record.ts_sec) * 1_000_000 + u64::from(record.ts_frac),
        });
    }
    seen
}
