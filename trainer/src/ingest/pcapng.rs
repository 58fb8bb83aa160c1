//! PCAPNG: blocks, sections, interfaces (draft-ietf-opsawg-pcapng).

use super::ip::Record;
use super::pcap::{Event, Fault, LATEST_TIME_NS, check_captured};
use super::source::Source;
use super::unusable::Unusable;

/// A section header's type, the same in both byte orders.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// What other programs count as records beside packets: journal entries,
/// system calls, custom blocks.
const OTHER_RECORDS: [u32; 9] = [9, 0x204, 0x208, 0x216, 0x217, 0x221, 0x222, 0xbad, 0x4000_0bad];

/// Type, length, and length again at the end.
const BLOCK_FRAME: usize = 12;
/// Longest block, as Wireshark has it.
const MOST_BLOCK: usize = 16 << 20;
const MOST_INTERFACES: usize = 65_536;

/// What an interface description says that packets need.
struct Interface {
    link_type: u32,
    ticks: Ticks,
    /// Added to every time.
    offset_s: i64,
}

/// The unit of an interface's times.
#[derive(Clone, Copy)]
enum Ticks {
    Microseconds,
    Nanoseconds,
    PerSecond(u128),
    /// Finer than numbers here can say; no time in it is read.
    TooFine,
}

impl Interface {
    fn time_ns(&self, ticks: u64) -> Option<i64> {
        let ns = match self.ticks {
            Ticks::Nanoseconds => u128::from(ticks),
            Ticks::Microseconds => u128::from(ticks) * 1_000,
            Ticks::PerSecond(per_s) => u128::from(ticks).checked_mul(1_000_000_000)? / per_s,
            Ticks::TooFine => return None,
        };
        let offset = self.offset_s.checked_mul(1_000_000_000)?;
        let ns = i64::try_from(ns).ok()?.checked_add(offset)?;
        (0..=LATEST_TIME_NS).contains(&ns).then_some(ns)
    }
}

/// Fields of a block's body in the section's byte order.
struct Body<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl<'a> Body<'a> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..)?.first_chunk().copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = self.array(at)?;
        Some(if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = self.array(at)?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn i64(&self, at: usize) -> Option<i64> {
        let bytes = self.array(at)?;
        Some(if self.big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) })
    }

    fn interface(&self) -> Result<Interface, String> {
        const IF_TSRESOL: u16 = 9;
        const IF_TSOFFSET: u16 = 14;
        let link_type = self.u16(0).ok_or("the interface description is too short")?;
        let mut interface =
            Interface { link_type: u32::from(link_type), ticks: Ticks::Microseconds, offset_s: 0 };
        let mut at = 8;
        while let (Some(code), Some(length)) = (self.u16(at), self.u16(at + 2)) {
            match code {
                0 => break,
                IF_TSRESOL => {
                    interface.ticks = match self.bytes.get(at + 4) {
                        None | Some(6) => Ticks::Microseconds,
                        Some(9) => Ticks::Nanoseconds,
                        Some(&value) => {
                            let base: u128 = if value & 0x80 == 0 { 10 } else { 2 };
                            let per_s = base.checked_pow(u32::from(value & 0x7f));
                            per_s.map_or(Ticks::TooFine, Ticks::PerSecond)
                        }
                    }
                }
                IF_TSOFFSET => interface.offset_s = self.i64(at + 4).unwrap_or(0),
                _ => {}
            }
            at += 4 + usize::from(length).next_multiple_of(4);
        }
        Ok(interface)
    }

    /// An enhanced packet block, or the older packet block, which differs in
    /// the width of its interface number only.
    fn packet(&self, old: bool, interfaces: &[Interface]) -> Result<Record<'a>, String> {
        let short = "the packet block is too short";
        let number = if old { self.u16(0).map(u32::from) } else { self.u32(0) }.ok_or(short)?;
        let interface = interfaces.get(number as usize).ok_or_else(|| {
            format!("packet of interface {number}, but {} are described", interfaces.len())
        })?;
        let field = |at: usize| self.u32(at).ok_or(short);
        let ticks = u64::from(field(4)?) << 32 | u64::from(field(8)?);
        let captured = check_captured(field(12)?, interface.link_type)?;
        let original_len = field(16)?;
        let data = self
            .bytes
            .get(20..20 + captured)
            .ok_or_else(|| format!("{captured} captured bytes do not fit the packet block"))?;
        Ok(Record {
            link_type: interface.link_type,
            time_ns: interface.time_ns(ticks),
            data,
            original_len,
        })
    }
}

/// Reads the records of a file that begins with [`MAGIC`].
pub(super) fn read(source: &mut Source, mut take: impl FnMut(Event<'_>)) -> Result<(), Fault> {
    let mut big_endian = false;
    let mut interfaces: Vec<Interface> = Vec::new();
    loop {
        let offset = source.position();
        let fail = |reason: String| Fault::Damage { offset, reason };
        let head = source.fill(BLOCK_FRAME)?;
        if head.is_empty() && !source.is_cut() {
            return Ok(());
        }
        let Some(head) = source.fill(BLOCK_FRAME)?.first_chunk::<BLOCK_FRAME>() else {
            return Err(Fault::Cut);
        };
        if head.starts_with(&MAGIC) {
            big_endian = match &head[8..] {
                [0x1a, 0x2b, 0x3c, 0x4d] => true,
                [0x4d, 0x3c, 0x2b, 0x1a] => false,
                _ => return Err(fail("the section header has no byte order".to_owned())),
            };
        }
        let frame = Body { bytes: head, big_endian };
        let (kind, length) = match (frame.u32(0), frame.u32(4)) {
            (Some(kind), Some(length)) => (kind, length as usize),
            _ => return Err(Fault::Cut),
        };
        if !(BLOCK_FRAME..=MOST_BLOCK).contains(&length) || length % 4 != 0 {
            return Err(fail(format!(
                "block length {length}, expected a multiple of 4 from {BLOCK_FRAME} to {MOST_BLOCK}"
            )));
        }
        let Some(block) = source.fill(length)?.get(..length) else {
            return Err(Fault::Cut);
        };
        let body = Body { bytes: &block[8..length - 4], big_endian };
        let trailer = Body { bytes: &block[length - 4..], big_endian };
        if trailer.u32(0) != Some(length as u32) {
            return Err(fail(format!("the block's two lengths differ, the first is {length}")));
        }
        match kind {
            SECTION_HEADER => interfaces.clear(),
            INTERFACE_DESCRIPTION if interfaces.len() >= MOST_INTERFACES => {
                return Err(fail(format!("more than {MOST_INTERFACES} interfaces")));
            }
            INTERFACE_DESCRIPTION => interfaces.push(body.interface().map_err(fail)?),
            ENHANCED_PACKET | OLD_PACKET => {
                take(Event::Record(body.packet(kind == OLD_PACKET, &interfaces).map_err(fail)?));
            }
            SIMPLE_PACKET => take(Event::Unusable(Unusable::NoTime)),
            other if OTHER_RECORDS.contains(&other) => {
                take(Event::Unusable(Unusable::NoPacket(other)));
            }
            _ => {}
        }
        source.consume(length);
    }
}
