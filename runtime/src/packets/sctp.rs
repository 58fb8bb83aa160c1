//! SCTP packets of one chunk each (RFC 9260): a model knows how long they are, not what they say.

use super::Transport;

/// The common header, and a chunk that says nothing more.
pub(super) const LEAST_BYTES: usize = 16;
/// Before the chunk.
pub(super) const COMMON_BYTES: usize = 12;
/// The common header with that of a chunk of data; just as much have all other chunks.
const DATA_HEADER_BYTES: usize = 28;
/// Where the checksum is in the common header.
pub(super) const CHECKSUM_AT: usize = 8;
/// Where the chunk's length is.
pub(super) const LENGTH_AT: usize = 14;

/// Chunk types (section 3.2): data, and what answers it; a heartbeat, and what ends a handshake.
const DATA: u64 = 0;
const SACK: u64 = 3;
const HEARTBEAT: u64 = 4;
const COOKIE_ACK: u64 = 11;
/// A message that is one chunk.
const BEGIN_AND_END: u64 = 3;
/// Room for what comes.
const WINDOW: u64 = 106_496;

/// An association as its two sides number it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Association {
    /// By which each side knows packets that are for it.
    tags: [u32; 2],
    /// The transmission sequence number of each side's next chunk of data.
    next: [u32; 2],
    /// The number of its next message.
    message: [u16; 2],
}

impl Association {
    /// From two random numbers.
    pub(super) fn new([one, other]: [u32; 2]) -> Association {
        // No tag is 0 (section 5.3.1).
        let tags = [one.rotate_left(16).max(1), other.rotate_left(16).max(1)];
        Association { tags, next: [one, other], message: [0, 0] }
    }

    /// The header of a packet of `len` bytes, a multiple of 4 and at least [`LEAST_BYTES`],
    /// without its checksum: of data, if there is room for some.
    pub(super) fn header(&mut self, from: usize, ports: u64, len: usize) -> Transport {
        let to = 1 - from;
        let (kind, flags, rest, header) = match len {
            LEAST_BYTES => (COOKIE_ACK, 0, [0, 0], LEAST_BYTES),
            // What it knows the packet again by: a parameter of type 1.
            20 | 24 => (HEARTBEAT, 0, [1 << 16 | (len - 16) as u64, 0], len),
            DATA_HEADER_BYTES => {
                let acknowledged = self.next[to].wrapping_sub(1);
                (SACK, 0, [acknowledged.into(), WINDOW << 32], len)
            }
            _ => {
                let number = self.number(from);
                let message = self.message[from];
                self.message[from] = message.wrapping_add(1);
                let rest = [number.into(), u64::from(message) << 32];
                (DATA, BEGIN_AND_END, rest, DATA_HEADER_BYTES)
            }
        };
        let chunk = kind << 24 | flags << 16 | (len - COMMON_BYTES) as u64;
        Transport {
            len: header as u8,
            words: [ports << 32 | u64::from(self.tags[to]), chunk, rest[0] << 32],
            options: [rest[1], 0, 0],
        }
    }

    /// The number of a side's next packet, for a protocol that numbers these.
    pub(super) fn number(&mut self, from: usize) -> u32 {
        let number = self.next[from];
        self.next[from] = number.wrapping_add(1);
        number
    }
}

/// How long a packet of about `len` bytes is, `most` at most: chunks are padded to words of 4.
pub(super) fn whole_chunks(len: usize, most: usize) -> usize {
    len.next_multiple_of(4).min(most / 4 * 4)
}
