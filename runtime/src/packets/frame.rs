//! A frame as it waits in a queue: its headers, and how long it is.

use super::payload::Payload;
use super::repairs::Repairs;
use super::{checksum, sctp};

/// Ethernet II, no tag.
pub const ETHERNET_BYTES: usize = 14;
/// IPv4 without options.
pub(super) const IPV4_BYTES: usize = 20;
/// IPv6 without extension headers.
pub(super) const IPV6_BYTES: usize = 40;
/// IPv6's fragment header.
pub(super) const FRAGMENT_BYTES: usize = 8;
/// The number of IPv6's fragment header.
pub(super) const FRAGMENT: u8 = 44;
/// Room for Ethernet, IPv6, and TCP with 20 bytes of options, in words of 8.
pub(super) const HEADER_WORDS: usize = 12;

/// Where the IP header's fields are in a frame.
const IP: usize = ETHERNET_BYTES;

/// An Ethernet frame with an IP packet: the headers' bytes, and the payload
/// by its length and [`Payload`] block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Words, so that they go from registers to where the frame is kept without
    /// a copy by bytes.
    pub(super) header: [[u8; 8]; HEADER_WORDS],
    pub(super) header_len: u8,
    pub(super) block: u8,
    pub(super) repairs: Repairs,
    pub(super) ip_len: u16,
    /// Which side of the conversation sends it.
    pub(super) side: u8,
}

impl Frame {
    /// The bytes of all headers, from the Ethernet destination on.
    #[inline]
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        &self.header.as_flattened()[..usize::from(self.header_len)]
    }

    /// Length of the whole frame with its payload, without a check sequence.
    #[inline]
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        ETHERNET_BYTES + usize::from(self.ip_len)
    }

    /// Which side of its conversation sends it: 0 the one that sent first, 1 the other.
    #[inline]
    #[must_use]
    pub fn side(&self) -> usize {
        self.side.into()
    }

    /// Whether it is an IPv6 packet, and its destination, that of IPv4 in the lower 32 bits.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> (bool, u128) {
        let field = |at: usize, len: usize| {
            let bytes = &self.header.as_flattened()[at..at + len];
            bytes.iter().fold(0, |number, &byte| number << 8 | u128::from(byte))
        };
        match self.is_v6() {
            true => (true, field(IP + 24, 16)),
            false => (false, field(IP + 16, 4)),
        }
    }

    /// What had to be changed of the modelled values.
    #[must_use]
    pub fn repairs(&self) -> Repairs {
        self.repairs
    }

    #[inline]
    pub(super) fn block(&self) -> u8 {
        self.block
    }

    /// Appends the first `most` bytes of the frame.
    #[inline]
    pub fn append_to(&self, payload: &Payload, most: usize, out: &mut Vec<u8>) {
        let headers = self.headers();
        out.extend_from_slice(&headers[..headers.len().min(most)]);
        let rest = payload.of(self);
        out.extend_from_slice(&rest[..rest.len().min(most.saturating_sub(headers.len()))]);
    }

    /// The same packet cut to `ip_len` bytes (an SCTP packet to whole words of 4), lengths and
    /// checksums made to fit; `None` if its headers alone are longer, or a chunk of data would have
    /// none.
    #[must_use]
    pub fn shortened(&self, ip_len: u16, payload: &Payload) -> Option<Frame> {
        if ip_len >= self.ip_len {
            return Some(self.clone());
        }
        let headers = usize::from(self.header_len);
        let (is_v6, l4) = (self.is_v6(), ETHERNET_BYTES + self.ip_header_len());
        let protocol = if headers > l4 { self.protocol() } else { 0 };
        let (ip_len, least) = match protocol {
            // A chunk of data has some.
            super::SCTP => (ip_len - (ip_len.checked_sub(self.ip_header_len() as u16)? % 4), 4),
            _ => (ip_len, 0),
        };
        let kept = (ETHERNET_BYTES + usize::from(ip_len)).checked_sub(headers)?;
        if kept < least {
            return None;
        }
        let old_sum = payload.sum(self.block, self.len() - headers);
        let new_sum = payload.sum(self.block, kept);
        let (old_len, new_len) = (u64::from(self.ip_len), u64::from(ip_len));
        let mut frame = self.clone();
        frame.ip_len = ip_len;
        if is_v6 {
            frame.put_u16(IP + 4, ip_len - IPV6_BYTES as u16);
        } else {
            frame.patch(IP + 10, old_len, new_len);
            frame.put_u16(IP + 2, ip_len);
        }
        // The transport's checksum covers its length as well, in the pseudo-header;
        // UDP's a second time in its own header.
        match protocol {
            super::TCP => frame.patch(l4 + 16, old_sum + old_len, new_sum + new_len),
            super::UDP => {
                frame.patch(l4 + 6, old_sum + 2 * old_len, new_sum + 2 * new_len);
                frame.put_u16(l4 + 6, checksum::never_zero(frame.get_u16(l4 + 6)));
                frame.put_u16(l4 + 4, ip_len - self.ip_header_len() as u16);
            }
            super::DCCP => frame.patch(l4 + 6, old_sum + old_len, new_sum + new_len),
            super::UDP_LITE => {
                frame.patch(l4 + 6, old_sum + old_len, new_sum + new_len);
                frame.put_u16(l4 + 6, checksum::never_zero(frame.get_u16(l4 + 6)));
            }
            super::SCTP => {
                let chunk = self.get_u16(l4 + sctp::LENGTH_AT) - (self.ip_len - ip_len);
                frame.put_u16(l4 + sctp::LENGTH_AT, chunk);
                frame.seal(payload);
            }
            super::ICMP => frame.patch(l4 + 2, old_sum, new_sum),
            super::ICMPV6 => frame.patch(l4 + 2, old_sum + old_len, new_sum + new_len),
            _ => {}
        }
        Some(frame)
    }

    /// Writes the checksum of an SCTP packet: CRC-32C of all its bytes, the lowest first (RFC
    /// 9260, appendix A).
    #[inline(never)]
    pub(super) fn seal(&mut self, payload: &Payload) {
        let l4 = ETHERNET_BYTES + self.ip_header_len();
        let at = l4 + sctp::CHECKSUM_AT;
        self.header.as_flattened_mut()[at..at + 4].fill(0);
        let of_header = crc32c::crc32c(&self.headers()[l4..]);
        let checksum = crc32c::crc32c_append(of_header, payload.of(self));
        self.header.as_flattened_mut()[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
    }

    fn byte(&self, at: usize) -> u8 {
        self.header.as_flattened()[at]
    }

    fn is_v6(&self) -> bool {
        self.byte(IP) >> 4 == 6
    }

    /// Whether a fragment header follows IPv6's.
    fn has_fragment_header(&self) -> bool {
        self.is_v6() && self.byte(IP + 6) == FRAGMENT
    }

    /// Bytes before the transport header.
    fn ip_header_len(&self) -> usize {
        match (self.is_v6(), self.has_fragment_header()) {
            (false, _) => IPV4_BYTES,
            (true, false) => IPV6_BYTES,
            (true, true) => IPV6_BYTES + FRAGMENT_BYTES,
        }
    }

    /// The transport's.
    fn protocol(&self) -> u8 {
        match (self.is_v6(), self.has_fragment_header()) {
            (false, _) => self.byte(IP + 9),
            (true, false) => self.byte(IP + 6),
            (true, true) => self.byte(IP + IPV6_BYTES),
        }
    }

    fn patch(&mut self, at: usize, old: u64, new: u64) {
        let checksum = checksum::update(self.get_u16(at), old, new);
        self.put_u16(at, checksum);
    }

    fn get_u16(&self, at: usize) -> u16 {
        let header = self.header.as_flattened();
        u16::from_be_bytes([header[at], header[at + 1]])
    }

    fn put_u16(&mut self, at: usize, value: u16) {
        self.header.as_flattened_mut()[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }
}
