//! From a captured frame to the header fields of its IPv4 packet.

use super::compact::CompactPacket;
use super::link;
use super::unusable::Unusable;

/// One record of a capture file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// What the bytes begin with, by tcpdump.org's list.
    pub(super) link_type: u32,
    /// Nanoseconds since the epoch, none if they are out of range.
    pub(super) time_ns: Option<i64>,
    /// Bytes captured.
    pub(super) data: &'a [u8],
    /// Bytes on the wire.
    pub(super) original_len: u32,
}

const ICMP: u8 = 1;
const IPV4_IN_IP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;
/// TCP, UDP, DCCP, SCTP and UDP-Lite begin with two ports.
const WITH_PORTS: [u8; 5] = [TCP, UDP, 33, 132, 136];

/// The IPv4 packet of a record, and whether it carries another IP packet; or
/// why there is none.
pub(super) fn packet(record: &Record<'_>) -> Result<(CompactPacket, bool), Unusable> {
    let offset = link::ipv4_offset(record.link_type, record.data)?;
    let time_ns = record.time_ns.ok_or(Unusable::TimeOutOfRange)?;
    let captured = record.data.get(offset..).unwrap_or_default();
    let Some(ip) = captured.first_chunk::<20>() else {
        return Err(Unusable::CutInIpHeader);
    };
    let (version, ihl) = (ip[0] >> 4, ip[0] & 0x0f);
    let header_len = usize::from(ihl) * 4;
    if version != 4 {
        return Err(Unusable::NoIpv4Header);
    }
    if ihl < 5 {
        return Err(Unusable::ShortIpHeader);
    }
    let u16_at = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
    let u32_at = |at: usize| u32::from_be_bytes([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
    let on_wire = (record.original_len as usize).saturating_sub(offset);
    let total = match usize::from(u16_at(2)) {
        // Segmentation offload leaves 0: the packet is as long as its frame says.
        0 => on_wire.min(usize::from(u16::MAX)),
        total => total,
    };
    if total < header_len {
        return Err(Unusable::LengthBelowHeader);
    }
    if total > on_wire {
        return Err(Unusable::LengthBeyondFrame);
    }
    let fragment = u16_at(6);
    let is_first = fragment & 0x1fff == 0;
    let proto = ip[9];
    // What is captured of the transport layer; a later fragment has no header of it.
    let transport = match is_first {
        true => captured.get(header_len..captured.len().min(total)).unwrap_or_default(),
        false => &[],
    };
    let ports = match transport {
        [a, b, c, d, ..] if WITH_PORTS.contains(&proto) => {
            [u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])]
        }
        _ if WITH_PORTS.contains(&proto) && is_first => return Err(Unusable::CutBeforePorts),
        _ => [0, 0],
    };
    let tcp = |at: usize| if proto == TCP { transport.get(at).copied() } else { None };
    let transport_header = match proto {
        _ if !is_first => 0,
        TCP => usize::from(tcp(12).unwrap_or(0x50) >> 4) * 4,
        UDP | ICMP => 8,
        _ => 0,
    };
    let packet = CompactPacket {
        time_ns,
        addresses: [u32_at(12), u32_at(16)],
        number: 0,
        ports,
        // At most 65,535, as are parts of it.
        len_bytes: total as u16,
        ip_id: u16_at(4),
        fragment,
        tcp_window: match (tcp(14), tcp(15)) {
            (Some(high), Some(low)) => u16::from_be_bytes([high, low]),
            _ => 0,
        },
        payload_len: (total - header_len).saturating_sub(transport_header) as u16,
        proto,
        tos: ip[1],
        ttl: ip[8],
        ihl,
        tcp_flags: tcp(13).unwrap_or(0),
        exchanged: false,
    };
    Ok((packet, carries_ip(proto, transport)))
}

/// Whether a packet's payload is an IP packet: IP in IP (RFC 2003, RFC 4213)
/// and GRE (RFC 2784).
fn carries_ip(proto: u8, payload: &[u8]) -> bool {
    match (proto, payload) {
        (IPV4_IN_IP | IPV6_IN_IP, [first, ..]) => matches!(first >> 4, 4 | 6),
        (GRE, [_, _, high, low, ..]) => {
            matches!(u16::from_be_bytes([*high, *low]), 0x0800 | 0x86dd)
        }
        _ => false,
    }
}
