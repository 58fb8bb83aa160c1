//! A frame as it waits in a queue: its headers, and how long it is.

use super::checksum;
use super::payload::Payload;
use super::repairs::Repairs;

/// Ethernet II, no tag.
pub const ETHERNET_BYTES: usize = 14;
/// IPv4 without options.
pub(super) const IPV4_BYTES: usize = 20;
/// Room for Ethernet, IPv4, and TCP with 20 bytes of options, in words of 8.
pub(super) const HEADER_WORDS: usize = 10;

/// Where the IPv4 header's fields are in a frame.
const IP: usize = ETHERNET_BYTES;
/// Where the transport header begins.
pub(super) const L4: usize = ETHERNET_BYTES + IPV4_BYTES;

/// An Ethernet frame with an IPv4 packet: the headers' bytes, and the payload
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

    /// The same packet cut to `ip_len` bytes, lengths and checksums made to
    /// fit; `None` if its headers alone are longer.
    #[must_use]
    pub fn shortened(&self, ip_len: u16, payload: &Payload) -> Option<Frame> {
        if ip_len >= self.ip_len {
            return Some(self.clone());
        }
        let headers = usize::from(self.header_len);
        let kept = (ETHERNET_BYTES + usize::from(ip_len)).checked_sub(headers)?;
        let old_sum = payload.sum(self.block, self.len() - headers);
        let new_sum = payload.sum(self.block, kept);
        let (old_len, new_len) = (u64::from(self.ip_len), u64::from(ip_len));
        let mut frame = self.clone();
        frame.ip_len = ip_len;
        frame.patch(IP + 10, old_len, new_len);
        frame.put_u16(IP + 2, ip_len);
        // The transport's checksum covers its length as well, in the pseudo-header;
        // UDP's a second time in its own header.
        let transport = if headers > L4 { self.headers()[IP + 9] } else { 0 };
        match transport {
            super::TCP => frame.patch(L4 + 16, old_sum + old_len, new_sum + new_len),
            super::UDP => {
                frame.patch(L4 + 6, old_sum + 2 * old_len, new_sum + 2 * new_len);
                if frame.get_u16(L4 + 6) == 0 {
                    frame.put_u16(L4 + 6, 0xffff);
                }
                frame.put_u16(L4 + 4, ip_len - IPV4_BYTES as u16);
            }
            super::ICMP => frame.patch(L4 + 2, old_sum, new_sum),
            _ => {}
        }
        Some(frame)
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
