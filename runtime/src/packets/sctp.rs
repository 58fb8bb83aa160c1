//! SCTP packets of one chunk each (RFC 9260): a model knows how long they are, not what they say.
//! Each is a right packet; together they are no association that a state machine would follow: it
//! has no handshake, and heartbeats are not answered.

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

#[cfg(test)]
mod tests {
    use super::*;

    /// The header's bytes.
    fn bytes(header: &Transport) -> Vec<u8> {
        let options = header.options.map(u64::to_be_bytes);
        // The words have 20 bytes, options follow.
        let words = header.words.map(u64::to_be_bytes);
        let all = [&words.as_flattened()[..20], options.as_flattened()].concat();
        all[..usize::from(header.len)].to_vec()
    }

    #[test]
    fn chunks_fill_their_packets_and_are_numbered() {
        let mut association = Association::new([7, u32::MAX]);
        let tags = association.tags;
        assert!(tags.iter().all(|&tag| tag != 0) && tags[0] != tags[1]);
        let mut packet = |from, len| bytes(&association.header(from, 5000 << 16 | 2905, len));
        let number =
            |bytes: &[u8]| u32::from_be_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]);
        // Data of both sides: its number goes round, its message counts from 0.
        for (from, len, expected, message) in
            [(0, 32, 7, 0), (1, 1400, u32::MAX, 0), (1, 36, 0, 1), (0, 40, 8, 1)]
        {
            let header = packet(from, len);
            assert_eq!(header[..4], [0x13, 0x88, 0x0b, 0x59]);
            assert_eq!(header[4..8], tags[1 - from].to_be_bytes());
            assert_eq!((header.len(), header[12], header[13]), (28, 0, 3));
            assert_eq!(header[14..16], (len as u16 - 12).to_be_bytes());
            assert_eq!((number(&header), header[22..24].to_vec()), (expected, vec![0, message]));
        }
        // What is acknowledged is the last that the other side sent.
        let sack = packet(0, 28);
        assert_eq!((sack[12], sack[15], number(&sack)), (3, 16, 0));
        for (len, kind) in [(16, 11), (20, 4), (24, 4)] {
            let header = packet(0, len);
            assert_eq!((header.len(), header[12], usize::from(header[15])), (len, kind, len - 12));
        }
    }

    #[test]
    fn packets_are_whole_words() {
        assert_eq!([16, 17, 1441].map(|len| whole_chunks(len, 65_515)), [16, 20, 1444]);
        assert_eq!(whole_chunks(65_515, 65_515), 65_512);
    }
}
