//! What follows a packet's headers: filler, and its share of the checksum.
//!
//! A model knows how long a payload is, not what it says. Every payload is the
//! beginning of one of a few fixed blocks, so a queued packet needs to name
//! only the block, and the checksum of any length is one table look-up.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ns_model_format::random::{Purpose, Stream};

use super::frame::Frame;
use super::{UDP, UDP_LITE, checksum};

/// The longest payload: an IPv4 packet of 65535 bytes with a bare header.
const BLOCK_BYTES: usize = 65_535 - 20;
/// Larger files say no more: nothing past [`BLOCK_BYTES`] is ever sent.
const MOST_FILE_BYTES: u64 = 1 << 30;

/// Why a payload file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The file could not be read.
    #[error("cannot read payload file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Nothing to repeat.
    #[error("payload file `{}` is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Larger than any payload file may be.
    #[error("payload file `{}` has {bytes} bytes; at most {MOST_FILE_BYTES} are taken", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
}

/// One filler and its partial sums.
#[derive(Debug)]
struct Block {
    bytes: Box<[u8]>,
    /// Entry `k`: the ones' complement sum of the first `k` 16-bit words.
    sums: Box<[u16]>,
}

impl Block {
    fn new(bytes: Vec<u8>) -> Block {
        let mut sums = Vec::with_capacity(bytes.len() / 2 + 1);
        let mut sum = 0_u16;
        sums.push(sum);
        for word in bytes.chunks_exact(2) {
            let word = u16::from_be_bytes([word[0], word[1]]);
            sum = checksum::fold(u64::from(sum) + u64::from(word));
            sums.push(sum);
        }
        Block { bytes: bytes.into(), sums: sums.into() }
    }

    /// The 16-bit ones' complement sum of the first `len` bytes, padded with a
    /// zero byte if `len` is odd (RFC 1071).
    fn sum(&self, len: usize) -> u64 {
        let whole = u64::from(self.sums[len / 2]);
        if len % 2 == 1 { whole + (u64::from(self.bytes[len - 1]) << 8) } else { whole }
    }
}

/// Services whose protocol analysers take zeros for a broken message, with the
/// byte that they leave alone: (IP protocol, first and last port, index into [`QUIET_BYTES`]).
/// Found by dissecting frames of 24 lengths from and to every port below 20000 with tshark 4.0: where
/// zeros are broken, the byte that leaves fewest broken. Of SCTP's none helps: signalling (M2UA, M3UA,
/// M2PA, IUA, SUA) has a header of its own.
const QUIET_SERVICES: [(u8, u16, u16, u8); 82] = [
    (6, 42, 42, 2),
    (6, 53, 53, 1),
    (6, 88, 88, 1),
    (6, 123, 123, 1),
    (6, 161, 162, 3),
    (6, 210, 210, 1),
    (6, 513, 513, 2),
    (6, 547, 547, 1),
    (6, 925, 925, 1),
    (6, 1153, 1153, 2),
    (6, 1194, 1194, 1),
    (6, 1998, 1998, 1),
    (6, 2234, 2234, 2),
    (6, 2240, 2240, 2),
    (6, 2571, 2571, 1),
    (6, 3002, 3003, 2),
    (6, 3006, 3006, 2),
    (6, 3014, 3014, 1),
    (6, 3016, 3019, 1),
    (6, 3306, 3306, 1),
    (6, 3369, 3369, 1),
    (6, 3724, 3724, 1),
    (6, 4222, 4222, 2),
    (6, 4249, 4250, 2),
    (6, 5000, 5000, 2),
    (6, 5094, 5094, 1),
    (6, 5353, 5353, 1),
    (6, 5534, 5534, 2),
    (6, 5997, 5997, 1),
    (6, 6000, 6063, 1),
    (6, 6160, 6160, 1),
    (6, 7171, 7172, 1),
    (6, 7871, 7871, 2),
    (6, 8023, 8023, 1),
    (6, 8085, 8085, 2),
    (6, 8567, 8567, 1),
    (6, 9092, 9092, 2),
    (6, 14001, 14001, 1),
    (17, 123, 123, 1),
    (17, 213, 213, 1),
    (17, 464, 464, 3),
    (17, 503, 503, 1),
    (17, 581, 581, 1),
    (17, 854, 854, 1),
    (17, 921, 921, 1),
    (17, 925, 925, 1),
    (17, 938, 938, 1),
    (17, 1052, 1052, 1),
    (17, 1194, 1194, 4),
    (17, 1718, 1719, 5),
    (17, 2157, 2157, 1),
    (17, 2887, 2887, 1),
    (17, 3130, 3130, ICP_HIT),
    (17, 3343, 3343, 1),
    (17, 4533, 4534, 1),
    (17, 4569, 4569, 2),
    (17, 4791, 4791, 5),
    (17, 5000, 5000, 1),
    (17, 5031, 5031, 1),
    (17, 5094, 5094, 1),
    (17, 5246, 5247, 2),
    (17, 5350, 5351, 1),
    (17, 5678, 5678, 1),
    (17, 5683, 5683, 1),
    (17, 6073, 6073, 1),
    (17, 6118, 6118, 3),
    (17, 6635, 6635, 1),
    (17, 6970, 6970, 1),
    (17, 9201, 9201, 2),
    (17, 9875, 9875, 3),
    (17, 10253, 10253, 1),
    (17, 10500, 10500, 1),
    (17, 12000, 12004, 1),
    (17, 12222, 12223, 1),
    (17, 14390, 14390, 1),
    (17, 14392, 14392, 1),
    (17, 14394, 14394, 1),
    (17, 14396, 14396, 1),
    (17, 14398, 14398, 1),
    (17, 17220, 17220, 1),
    (17, 17755, 17756, 1),
    (17, 19999, 20000, 1),
];
/// IP protocols of which analysers take zeros for broken, and their blocks: found the same way.
const QUIET_PROTOCOLS: [(u8, u8); 14] = [
    (0, EXTENSION),
    // Of IGMP zeros are the head of a message, often cut short.
    (2, 1),
    (41, IPV6),
    (43, EXTENSION),
    (44, EXTENSION),
    (48, 1),
    (51, EXTENSION),
    (54, 3),
    (60, EXTENSION),
    (93, 1),
    (113, 1),
    (115, 1),
    (137, 1),
    (140, 3),
];

/// Services whose messages have a fixed part, and its length: no filler makes
/// a shorter one valid. (SSH: RFC 4253 section 6; LDAP; PPTP: RFC 2637; DNS and its kin: RFC 1035;
/// TFTP: RFC 1350; BOOTP: RFC 951 with RFC 1542's padding; NTP: RFC 5905;
/// NetBIOS datagrams: RFC 1002; XDMCP; ICP: RFC 2186; the marker of IKE behind NAT: RFC 3948.)
const SHORTEST_MESSAGES: [(u8, u16, u16); 15] = [
    (6, 22, 5),
    (6, 389, 4),
    (6, 1723, 12),
    (17, 53, 12),
    (17, 67, 300),
    (17, 68, 300),
    (17, 69, 4),
    (17, 123, 48),
    (17, 137, 12),
    (17, 138, 10),
    (17, 177, 6),
    (17, 3130, 21),
    (17, 4500, 4),
    (17, 5353, 12),
    (17, 5355, 12),
];

/// Whose services it carries: UDP-Lite those of UDP (RFC 3828).
fn service_protocol(protocol: u8) -> u8 {
    if protocol == UDP_LITE { UDP } else { protocol }
}

/// The shortest payload, if there is any, that a packet between these ports can have.
pub(super) fn shortest_message(protocol: u8, ports: [u16; 2]) -> u16 {
    let protocol = service_protocol(protocol);
    SHORTEST_MESSAGES
        .iter()
        .find(|&&(service, port, _)| service == protocol && ports.contains(&port))
        .map_or(0, |&(_, _, bytes)| bytes)
}

/// The block after those of [`QUIET_BYTES`]: a cache's answer (RFC 2186) begins
/// with opcode, version and length, and no repeated byte makes a valid one.
const ICP_HIT: u8 = 6;
const ICP_HIT_BYTES: [u8; 4] = [2, 2, 0, 20];

/// An IPv6 packet that carries nothing (RFC 8200, section 4.7), from `fd00::1` to `fd00::2`.
const IPV6: u8 = 7;
const IPV6_BYTES: [u8; 40] = {
    let mut header = [0; 40];
    (header[0], header[6], header[7]) = (6 << 4, 59, 64);
    (header[8], header[23]) = (0xfd, 1);
    (header[24], header[39]) = (0xfd, 2);
    header
};

/// What analysers read as an extension header (RFC 8200, section 4) with nothing after it: of
/// options 16 bytes, all padding.
const EXTENSION: u8 = 8;
const EXTENSION_BYTES: [u8; 4] = [59, 1, 1, 12];

const QUIET_BYTES: [u8; 6] = [0x00, 0xff, 0x41, 0x02, 0x30, 0x20];

/// The fillers of a run; cheap to clone.
#[derive(Clone, Debug)]
pub struct Payload {
    blocks: Arc<[Block]>,
    by_service: bool,
}

impl Payload {
    /// Zeros, but for services whose dissectors would report a malformed
    /// message: those get another byte, repeated. Payload is filler, not protocol
    /// data: a payload shorter than a service's shortest message is malformed
    /// whatever it holds.
    #[must_use]
    pub fn quiet() -> Payload {
        let repeated = QUIET_BYTES.map(|byte| vec![byte; BLOCK_BYTES]);
        let begun = [&ICP_HIT_BYTES[..], &IPV6_BYTES, &EXTENSION_BYTES].map(|begin| {
            let mut bytes = begin.to_vec();
            bytes.resize(BLOCK_BYTES, 0);
            bytes
        });
        let blocks = repeated.into_iter().chain(begun).map(Block::new).collect();
        Payload { blocks, by_service: true }
    }

    /// Zeros.
    #[must_use]
    pub fn zero() -> Payload {
        Payload::repeating(&[0])
    }

    /// One pseudo-random block, a function of the seed; every payload is its beginning.
    #[must_use]
    pub fn random(seed: u64) -> Payload {
        // Flow numbers count from 0, so the last index is no flow's.
        let mut stream = Stream::new(seed, Purpose::Packets, u64::MAX);
        let words = std::iter::repeat_with(|| stream.next_u32().to_le_bytes());
        Payload::of_block(words.take(BLOCK_BYTES / 4 + 1).flatten().collect())
    }

    /// The bytes given, over and over, from the beginning in every packet. No
    /// bytes at all count as one zero.
    #[must_use]
    pub fn repeating(bytes: &[u8]) -> Payload {
        let bytes = if bytes.is_empty() { &[0] } else { bytes };
        Payload::of_block(bytes.iter().copied().cycle().take(BLOCK_BYTES).collect())
    }

    /// A file's bytes, over and over.
    ///
    /// # Errors
    /// The file cannot be read, is empty or larger than 1 GiB.
    pub fn from_file(path: &Path) -> Result<Payload, PayloadError> {
        use std::io::Read;
        let fail = |source| PayloadError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(fail)?;
        let bytes = file.metadata().map_err(fail)?.len();
        if bytes > MOST_FILE_BYTES {
            return Err(PayloadError::TooLarge { path: path.to_owned(), bytes });
        }
        let mut contents = Vec::new();
        file.take(BLOCK_BYTES as u64).read_to_end(&mut contents).map_err(fail)?;
        if contents.is_empty() {
            return Err(PayloadError::Empty { path: path.to_owned() });
        }
        Ok(Payload::repeating(&contents))
    }

    fn of_block(mut bytes: Vec<u8>) -> Payload {
        bytes.truncate(BLOCK_BYTES);
        Payload { blocks: Arc::new([Block::new(bytes)]), by_service: false }
    }

    /// The block for a flow's packets.
    pub(super) fn block_for(&self, protocol: u8, ports: [u16; 2]) -> u8 {
        if !self.by_service {
            return 0;
        }
        let of_protocol = QUIET_PROTOCOLS.binary_search_by_key(&protocol, |&(quiet, _)| quiet);
        if let Ok(at) = of_protocol {
            return QUIET_PROTOCOLS[at].1;
        }
        let protocol = service_protocol(protocol);
        // Analysers go by the lower port first.
        let [one, other] = ports;
        let of = |port: u16| {
            let quiet = QUIET_SERVICES.iter().find(|&&(service, first, last, _)| {
                service == protocol && (first..=last).contains(&port)
            });
            let zeros = || (shortest_message(protocol, [port; 2]) > 0).then_some(0);
            quiet.map(|&(.., block)| block).or_else(zeros)
        };
        of(one.min(other)).or_else(|| of(one.max(other))).unwrap_or(0)
    }

    /// The ones' complement sum of a payload of `len` bytes.
    #[inline]
    pub(super) fn sum(&self, block: u8, len: usize) -> u64 {
        self.blocks[usize::from(block)].sum(len)
    }

    /// What follows the frame's headers.
    #[inline]
    #[must_use]
    pub fn of(&self, frame: &Frame) -> &[u8] {
        let len = frame.len() - frame.headers().len();
        let block = usize::from(frame.block()).min(self.blocks.len() - 1);
        &self.blocks[block].bytes[..len]
    }
}

impl Default for Payload {
    fn default() -> Payload {
        Payload::quiet()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fillers_are_those_that_services_leave_alone() {
        let payload = Payload::quiet();
        let first = |protocol: u8, ports: [u16; 2]| {
            payload.blocks[usize::from(payload.block_for(protocol, ports))].bytes[0]
        };
        // X displays, from either side; the ports before and after; the same of UDP.
        assert_eq!([6000, 6001, 6063, 6064].map(|p| first(6, [40_000, p])), [0xff, 0xff, 0xff, 0]);
        assert_eq!([first(6, [6005, 443]), first(17, [6005, 443])], [0xff, 0]);
        assert_eq!([first(17, [3130, 3130]), first(2, [0, 0]), first(1, [0, 0])], [2, 0xff, 0]);
        assert_eq!([41, 60, 47].map(|protocol| first(protocol, [0, 0])), [0x60, 59, 0]);
        assert!(QUIET_PROTOCOLS.is_sorted_by_key(|&(protocol, _)| protocol));
        // None twice.
        for (at, &(protocol, from, to, block)) in QUIET_SERVICES.iter().enumerate() {
            assert!(from <= to && usize::from(block) < payload.blocks.len());
            let after = QUIET_SERVICES.get(at + 1);
            assert!(after.is_none_or(|&(next, begin, ..)| (next, begin) > (protocol, to)));
        }
        // Names asked for from the port of NTP.
        assert_eq!([first(17, [123, 53]), first(17, [123, 54])], [0, 0xff]);
        let own = Payload::repeating(b"xy");
        assert_eq!(own.block_for(6, [6000, 443]), 0);
    }
}
