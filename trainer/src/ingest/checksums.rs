//! Whether packets' checksums are right (RFC 1071), where enough is captured to tell.

use std::net::IpAddr;
use std::path::PathBuf;

use super::ip::{Datagram, ICMP, ICMPV6, Record, TCP, UDP};
use super::pcap::{self, Counts};
use super::source::Source;
use super::{IngestError, OnError};

/// How many checksums could be computed, and how many of these are right. A capture
/// of a host's own traffic may have wrong ones: its interface fills them in later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksums {
    /// IPv4 headers that are captured whole; IPv6's have none.
    pub headers: u64,
    /// Of these, those whose checksum is right.
    pub right_headers: u64,
    /// TCP, UDP, ICMP and ICMPv6 packets that are captured whole and no fragments, without
    /// UDP packets that carry no checksum.
    pub transports: u64,
    /// Of these, those whose checksum is right.
    pub right_transports: u64,
}

impl Checksums {
    /// Computes those of captures' usable packets.
    ///
    /// # Errors
    /// As reading them otherwise.
    pub(crate) fn of(paths: &[PathBuf], on_error: OnError) -> Result<Checksums, IngestError> {
        let mut found = Checksums::default();
        let mut counts = Counts::default();
        for path in paths {
            let io = |source| IngestError::Io { path: path.clone(), source };
            let mut source = Source::open(path).map_err(io)?;
            let take = |_, record: &Record<'_>| found.take(record);
            match pcap::stream(&mut source, path, on_error, &mut counts, take) {
                Err(IngestError::NotACapture { .. }) if on_error == OnError::Skip => {}
                other => other?,
            }
        }
        Ok(found)
    }

    fn take(&mut self, record: &Record<'_>) {
        let Ok(datagram) = Datagram::of(record) else { return };
        let Some(header) = datagram.captured.get(..datagram.header_len) else { return };
        let is_v6 = datagram.addresses[0].is_ipv6();
        if !is_v6 {
            self.headers += 1;
            self.right_headers += u64::from(is_right(sum(header)));
        }
        let payload = datagram.captured.get(datagram.header_len..datagram.total);
        let (Some(payload), true) = (payload, datagram.is_whole()) else { return };
        let proto = datagram.proto;
        let has_none = proto == UDP && payload.get(6..8) == Some(&[0, 0]);
        let pseudo = match proto {
            ICMP if !is_v6 => 0,
            // Addresses, protocol and length (RFC 9293, section 3.1; RFC 768; RFC 8200, section
            // 8.1, where a routing header's last address counts: few have one).
            TCP | UDP if !has_none => pseudo_header(&datagram, payload.len()),
            ICMPV6 if is_v6 => pseudo_header(&datagram, payload.len()),
            _ => return,
        };
        self.transports += 1;
        self.right_transports += u64::from(is_right(pseudo + sum(payload)));
    }
}

fn pseudo_header(datagram: &Datagram<'_>, len: usize) -> u64 {
    let address = |address: &IpAddr| match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    datagram.addresses.iter().map(address).sum::<u64>() + u64::from(datagram.proto) + len as u64
}

/// The sum of big-endian words, the last one filled up with a zero byte.
fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let last = words.remainder().first().map_or(0, |byte| u64::from(*byte) << 8);
    words.by_ref().map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u64>() + last
}

/// Whether words that include their checksum sum up to all ones.
fn is_right(mut sum: u64) -> bool {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071, section 3: 0001 f203 f4f5 f6f7 sum up to ddf2.
    #[test]
    fn the_sum_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        let folded = sum(&bytes);
        assert_eq!((folded & 0xffff) + (folded >> 16), 0xddf2);
        assert!(is_right(folded + u64::from(!0xddf2_u16)));
        assert!(!is_right(folded));
        assert_eq!(sum(&[0x12, 0x34, 0x56]), 0x1234 + 0x5600);
    }

    #[test]
    fn those_of_the_shipped_capture_are_right_where_they_are_whole() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/captures/lab.pcap");
        let found = Checksums::of(&[path.into()], OnError::Stop).expect("a capture");
        assert_eq!(found.headers, found.right_headers);
        assert!(found.headers > 1000, "{found:?}");
    }
}
