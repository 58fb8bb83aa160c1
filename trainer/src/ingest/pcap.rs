//! PCAP and PCAPNG files to packets.

use std::path::Path;

use ns_model_format::{FiveTuple, Packet};
use pcap_file::pcap::PcapParser;
use pcap_file::pcapng::PcapNgParser;
use pcap_file::{Endianness, PcapError, TsResolution};

use super::{IngestError, NotUsed, OnError};

/// The packets of a capture in order of time, and what was left out.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// In order of time; of equal times, in the file's order.
    pub packets: Vec<Packet>,
    /// Records that are no usable packet, by reason.
    pub not_used: NotUsed,
    /// Records in the file: packets and those not used.
    pub records: u64,
}

/// One record of a capture file.
struct Record<'a> {
    link_type: u32,
    time_ns: i64,
    /// Bytes captured.
    data: &'a [u8],
    /// Bytes on the wire.
    original_len: u64,
}

/// Reads a capture from a file.
///
/// # Errors
/// The file cannot be read, is not a capture, is damaged (unless skipped), or
/// holds no usable packet.
pub fn read(path: &Path, on_error: OnError) -> Result<Capture, IngestError> {
    let bytes =
        std::fs::read(path).map_err(|source| IngestError::Io { path: path.to_owned(), source })?;
    parse(&bytes, path, on_error)
}

/// Whether a file's first bytes are those of a capture.
#[must_use]
pub fn is_capture(head: &[u8]) -> bool {
    head.get(..4).is_some_and(|magic| {
        matches!(
            magic,
            [0xa1, 0xb2, 0xc3, 0xd4]
                | [0xd4, 0xc3, 0xb2, 0xa1]
                | [0xa1, 0xb2, 0x3c, 0x4d]
                | [0x4d, 0x3c, 0xb2, 0xa1]
        ) || magic == PCAPNG_MAGIC
    })
}

const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Reads a capture from memory; `path` stands for it in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &[u8], path: &Path, on_error: OnError) -> Result<Capture, IngestError> {
    if !is_capture(bytes) {
        let reason = match bytes {
            [] => "it is empty".to_owned(),
            [0x1f, 0x8b, ..] => "it is compressed; decompress it first (gunzip)".to_owned(),
            _ => "it begins like no pcap or pcapng file".to_owned(),
        };
        return Err(IngestError::NotACapture { path: path.to_owned(), reason });
    }
    let mut capture = Capture::default();
    let read = if bytes.starts_with(&PCAPNG_MAGIC) {
        read_pcapng(bytes, &mut capture)
    } else {
        read_pcap(bytes, &mut capture)
    };
    if let Err((offset, reason)) = read {
        if on_error == OnError::Stop {
            let record = capture.records + 1;
            return Err(IngestError::Record { path: path.to_owned(), record, offset, reason });
        }
        capture.records += 1;
        count(&mut capture.not_used, "cut short or damaged from there on");
    }
    if capture.packets.is_empty() {
        let reasons = super::reasons(&capture.not_used);
        return Err(IngestError::Empty { path: path.to_owned(), reasons });
    }
    capture.packets.sort_by_key(|packet| packet.time_ns);
    Ok(capture)
}

/// Where in the file, and what is wrong there.
type Damage = (u64, String);

fn describe(error: &PcapError) -> String {
    match error {
        PcapError::IncompleteBuffer => {
            "the file ends in the middle of it (`--on-error skip` uses what comes before)"
                .to_owned()
        }
        other => other.to_string(),
    }
}

fn read_pcap(bytes: &[u8], capture: &mut Capture) -> Result<(), Damage> {
    let (mut rest, parser) = PcapParser::new(bytes).map_err(|error| (0, describe(&error)))?;
    let header = parser.header();
    let link_type = u32::from(header.datalink) & 0xffff;
    let fraction_ns = match header.ts_resolution {
        TsResolution::MicroSecond => 1_000,
        TsResolution::NanoSecond => 1,
    };
    while !rest.is_empty() {
        let offset = (bytes.len() - rest.len()) as u64;
        let (after, raw) =
            parser.next_raw_packet(rest).map_err(|error| (offset, describe(&error)))?;
        rest = after;
        let time_ns = i64::from(raw.ts_sec) * 1_000_000_000 + i64::from(raw.ts_frac) * fraction_ns;
        take(
            capture,
            &Record { link_type, time_ns, data: &raw.data, original_len: u64::from(raw.orig_len) },
        );
    }
    Ok(())
}

/// What an interface description block says that packets need.
struct Interface {
    link_type: u32,
    /// Ticks a second.
    ticks_per_s: u128,
}

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Fields of a block's body in the section's byte order.
struct Body<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl<'a> Body<'a> {
    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..at + 2)?.try_into().ok()?;
        Some(if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// draft-ietf-opsawg-pcapng, section 4.2.
    fn interface(&self) -> Option<Interface> {
        const IF_TSRESOL: u16 = 9;
        let mut interface =
            Interface { link_type: u32::from(self.u16(0)?), ticks_per_s: 1_000_000 };
        let mut at = 8;
        while let (Some(code), Some(length)) = (self.u16(at), self.u16(at + 2)) {
            if code == 0 {
                break;
            }
            if code == IF_TSRESOL
                && let Some(&value) = self.bytes.get(at + 4)
            {
                let base: u128 = if value & 0x80 == 0 { 10 } else { 2 };
                interface.ticks_per_s = base.checked_pow(u32::from(value & 0x7f))?;
            }
            at += 4 + usize::from(length).next_multiple_of(4);
        }
        Some(interface)
    }

    /// An enhanced packet block, or the older packet block, which differs in
    /// the width of its interface number only.
    fn packet(&self, old: bool, interfaces: &[Interface]) -> Option<Record<'a>> {
        let number = if old { u32::from(self.u16(0)?) } else { self.u32(0)? };
        let interface = interfaces.get(number as usize)?;
        let ticks = u128::from(self.u32(4)?) << 32 | u128::from(self.u32(8)?);
        let captured = self.u32(12)? as usize;
        let time_ns = ticks.checked_mul(1_000_000_000)? / interface.ticks_per_s;
        Some(Record {
            link_type: interface.link_type,
            time_ns: i64::try_from(time_ns).ok()?,
            data: self.bytes.get(20..20_usize.checked_add(captured)?)?,
            original_len: u64::from(self.u32(16)?),
        })
    }
}

fn read_pcapng(bytes: &[u8], capture: &mut Capture) -> Result<(), Damage> {
    let (mut rest, mut parser) = PcapNgParser::new(bytes).map_err(|error| (0, describe(&error)))?;
    let mut interfaces: Vec<Interface> = Vec::new();
    while !rest.is_empty() {
        let offset = (bytes.len() - rest.len()) as u64;
        let fail = |reason: &str| (offset, reason.to_owned());
        let (after, block) =
            parser.next_raw_block(rest).map_err(|error| (offset, describe(&error)))?;
        rest = after;
        let big_endian = parser.section().endianness == Endianness::Big;
        let body = Body { bytes: &block.body, big_endian };
        match block.type_ {
            SECTION_HEADER => interfaces.clear(),
            INTERFACE_DESCRIPTION => interfaces.push(
                body.interface().ok_or_else(|| fail("the interface description cannot be read"))?,
            ),
            ENHANCED_PACKET | OLD_PACKET => {
                let record = body.packet(block.type_ == OLD_PACKET, &interfaces);
                take(
                    capture,
                    &record.ok_or_else(|| fail("the packet block does not fit its interface"))?,
                );
            }
            SIMPLE_PACKET => {
                capture.records += 1;
                count(&mut capture.not_used, "without a time (simple packet block)");
            }
            _ => {}
        }
    }
    Ok(())
}

fn count(not_used: &mut NotUsed, reason: &str) {
    match not_used.get_mut(reason) {
        Some(count) => *count += 1,
        None => {
            not_used.insert(reason.to_owned(), 1);
        }
    }
}

fn take(capture: &mut Capture, record: &Record<'_>) {
    capture.records += 1;
    match packet(record) {
        Ok(packet) => capture.packets.push(packet),
        Err(reason) => count(&mut capture.not_used, &reason),
    }
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_ARP: u16 = 0x0806;
const VLAN_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];

fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

/// The network-layer bytes and what they are, by link type (tcpdump.org's list).
fn network_layer(link_type: u32, data: &[u8]) -> Result<(u16, usize), String> {
    const CUT: &str = "cut inside the link header";
    let cut = || CUT.to_owned();
    let by_version = |offset: usize| match data.get(offset).ok_or_else(cut)? >> 4 {
        4 => Ok((ETHERTYPE_IPV4, offset)),
        6 => Ok((ETHERTYPE_IPV6, offset)),
        version => Err(format!("IP version {version}")),
    };
    match link_type {
        // Ethernet, any number of VLAN tags.
        1 => {
            let mut offset = 14;
            let mut ether_type = be16(data, 12).ok_or_else(cut)?;
            while VLAN_TAGS.contains(&ether_type) {
                ether_type = be16(data, offset + 2).ok_or_else(cut)?;
                offset += 4;
            }
            Ok((ether_type, offset))
        }
        // Raw IP, under its number in files and those of some systems.
        12 | 14 | 101 => by_version(0),
        228 => Ok((ETHERTYPE_IPV4, 0)),
        229 => Ok((ETHERTYPE_IPV6, 0)),
        // BSD loopback: four bytes of address family in either order.
        0 | 108 => by_version(4),
        // Linux cooked, versions 1 and 2.
        113 => Ok((be16(data, 14).ok_or_else(cut)?, 16)),
        276 => Ok((be16(data, 0).ok_or_else(cut)?, 20)),
        other => Err(format!("of link type {other}")),
    }
}

/// The IPv4 packet of a record, or why it has none.
fn packet(record: &Record<'_>) -> Result<Packet, String> {
    let (ether_type, offset) = network_layer(record.link_type, record.data)?;
    match ether_type {
        ETHERTYPE_IPV4 => {}
        ETHERTYPE_IPV6 => return Err("IPv6".to_owned()),
        ETHERTYPE_ARP => return Err("ARP".to_owned()),
        0..0x600 => return Err("IEEE 802.3 frames".to_owned()),
        other => return Err(format!("of EtherType {other:#06x}")),
    }
    let ip = record.data.get(offset..).unwrap_or_default();
    if ip.len() < 20 {
        return Err("cut inside the IP header".to_owned());
    }
    let (version, ihl) = (ip[0] >> 4, ip[0] & 0x0f);
    let header_len = usize::from(ihl) * 4;
    if version != 4 {
        return Err("of EtherType IPv4 without an IPv4 header".to_owned());
    }
    if ihl < 5 {
        return Err("with an IP header length below 20".to_owned());
    }
    let total = u64::from(u16::from_be_bytes([ip[2], ip[3]]));
    let on_wire = record.original_len.saturating_sub(offset as u64);
    // Segmentation offload leaves 0: the packet is as long as its frame says.
    let total = if total == 0 { on_wire.min(u64::from(u16::MAX)) } else { total };
    if total < header_len as u64 {
        return Err("with an IP length below its header's".to_owned());
    }
    if total > on_wire {
        return Err("with an IP length beyond the frame".to_owned());
    }
    let fragment = u16::from_be_bytes([ip[6], ip[7]]);
    let (ip_flags, fragment_offset) = ((fragment >> 13) as u8, fragment & 0x1fff);
    let proto = ip[9];
    // What is captured of the transport layer; a later fragment has none.
    let end = ip.len().min(total as usize);
    let transport = match fragment_offset {
        0 => ip.get(header_len..end).unwrap_or_default(),
        _ => &[],
    };
    let has_ports = matches!(proto, 6 | 17 | 132 | 136 | 33);
    let port = |at: usize| if has_ports { be16(transport, at).unwrap_or(0) } else { 0 };
    if has_ports && fragment_offset == 0 && transport.len() < 4 {
        return Err("cut before the ports".to_owned());
    }
    let tcp = |at: usize| (proto == 6).then(|| transport.get(at).copied()).flatten();
    let transport_header = match proto {
        6 => u64::from(tcp(12).unwrap_or(0x50) >> 4) * 4,
        17 | 1 => 8,
        _ => 0,
    };
    let payload = total - header_len as u64;
    let address =
        |at: usize| std::net::Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]).into();
    Ok(Packet {
        time_ns: record.time_ns,
        tuple: FiveTuple {
            src_ip: address(12),
            dst_ip: address(16),
            src_port: port(0),
            dst_port: port(2),
            proto,
        },
        len_bytes: total as u16,
        tos: ip[1],
        ip_id: u16::from_be_bytes([ip[4], ip[5]]),
        ip_flags,
        fragment_offset,
        ttl: ip[8],
        ihl,
        tcp_flags: tcp(13).unwrap_or(0),
        tcp_window: match (tcp(14), tcp(15)) {
            (Some(high), Some(low)) => u16::from_be_bytes([high, low]),
            _ => 0,
        },
        payload_len: if fragment_offset == 0 {
            payload.saturating_sub(transport_header) as u16
        } else {
            payload as u16
        },
    })
}

#[cfg(test)]
pub(in crate::ingest) mod tests;
