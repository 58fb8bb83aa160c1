//! From a captured frame to the header fields of its IP packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ns_model_format::{FiveTuple, Packet};

use super::link::{self, Version};
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

pub(super) const ICMP: u8 = 1;
const IPV4_IN_IP: u8 = 4;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;
pub(super) const ICMPV6: u8 = 58;
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;
/// What begins with two ports.
const WITH_PORTS: [u8; 5] = [TCP, UDP, DCCP, SCTP, UDP_LITE];

const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
/// IPv6 extension headers that are looked through (RFC 8200, section 4; RFC 4302): options hop
/// by hop, routing, fragment, authentication, options of the destination.
const EXTENSIONS: [u8; 5] = [0, 43, FRAGMENT, AUTHENTICATION, 60];

/// The flag bit that says that more fragments follow, as a packet's `ip_flags` have it.
const MORE_FRAGMENTS: u8 = 1;
/// A packet's length is kept in 16 bits.
const MOST_BYTES: usize = u16::MAX as usize;

/// What an IP header says, with what follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram<'a> {
    time_ns: i64,
    pub(super) addresses: [IpAddr; 2],
    /// The transport's, that of a later fragment too.
    pub(super) proto: u8,
    /// Bytes of all IP headers, IPv6 extension headers included.
    pub(super) header_len: usize,
    /// Bytes of the whole packet: at least the headers', at most 65,535.
    pub(super) total: usize,
    tos: u8,
    ttl: u8,
    id: u16,
    flags: u8,
    fragment_offset: u16,
    /// What is captured of the packet from its first byte on, perhaps with what
    /// the link added behind it.
    pub(super) captured: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// That of a record, or why there is none.
    pub(super) fn of(record: &Record<'a>) -> Result<Datagram<'a>, Unusable> {
        let (offset, version) = link::ip_offset(record.link_type, record.data)?;
        let time_ns = record.time_ns.ok_or(Unusable::TimeOutOfRange)?;
        let captured = record.data.get(offset..).unwrap_or_default();
        let on_wire = (record.original_len as usize).saturating_sub(offset);
        let datagram = match version {
            Version::V4 => Datagram::v4(time_ns, captured, on_wire)?,
            Version::V6 => Datagram::v6(time_ns, captured, on_wire)?,
        };
        if datagram.total > on_wire {
            return Err(Unusable::LengthBeyondFrame);
        }
        Ok(datagram)
    }

    /// RFC 791.
    fn v4(time_ns: i64, captured: &'a [u8], on_wire: usize) -> Result<Datagram<'a>, Unusable> {
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
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]).into();
        let total = match usize::from(u16_at(2)) {
            // Segmentation offload leaves 0: the packet is as long as its frame says.
            0 => on_wire.min(MOST_BYTES),
            total => total,
        };
        if total < header_len {
            return Err(Unusable::LengthBelowHeader);
        }
        let fragment = u16_at(6);
        Ok(Datagram {
            time_ns,
            addresses: [address(12), address(16)],
            proto: ip[9],
            header_len,
            total,
            tos: ip[1],
            ttl: ip[8],
            id: u16_at(4),
            flags: (fragment >> 13) as u8,
            fragment_offset: fragment & 0x1fff,
            captured,
        })
    }

    /// RFC 8200. What IPv4's header has and this one does not is 0, unless a
    /// fragment header has it; of its identification the lower half is kept.
    fn v6(time_ns: i64, captured: &'a [u8], on_wire: usize) -> Result<Datagram<'a>, Unusable> {
        const HEADER: usize = 40;
        const NO_NEXT_HEADER: u8 = 59;
        let Some(ip) = captured.first_chunk::<HEADER>() else {
            return Err(Unusable::CutInIpHeader);
        };
        if ip[0] >> 4 != 6 {
            return Err(Unusable::NoIpv6Header);
        }
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&ip[at..at + 16]);
            let address = Ipv6Addr::from(octets);
            // It would be taken for that of an IPv4 packet, and is on no wire (RFC 4291).
            match address.to_ipv4_mapped() {
                Some(_) => Err(Unusable::MappedAddress),
                None => Ok(IpAddr::V6(address)),
            }
        };
        let total = match usize::from(u16::from_be_bytes([ip[4], ip[5]])) {
            // Offload leaves 0 here too, and jumbograms have it (RFC 2675).
            0 if ip[6] != NO_NEXT_HEADER => on_wire,
            payload => HEADER + payload,
        };
        let mut datagram = Datagram {
            time_ns,
            addresses: [address(8)?, address(24)?],
            proto: ip[6],
            header_len: HEADER,
            total: total.min(MOST_BYTES),
            tos: ip[0] << 4 | ip[1] >> 4,
            ttl: ip[7],
            id: 0,
            flags: 0,
            fragment_offset: 0,
            captured,
        };
        if datagram.total < HEADER {
            return Err(Unusable::LengthBelowHeader);
        }
        // Every turn goes on by 8 bytes at least in what is captured, so it ends.
        while EXTENSIONS.contains(&datagram.proto) && datagram.is_first_fragment() {
            let rest = captured.get(datagram.header_len..).unwrap_or_default();
            let Some([next, len, high, low, _, _, id @ ..]) = rest.first_chunk::<8>() else {
                return Err(Unusable::CutInIpHeader);
            };
            let len = usize::from(*len);
            datagram.header_len += match datagram.proto {
                AUTHENTICATION => 4 * (len + 2),
                FRAGMENT => {
                    let word = u16::from_be_bytes([*high, *low]);
                    datagram.flags = if word & 1 == 1 { MORE_FRAGMENTS } else { 0 };
                    datagram.fragment_offset = word >> 3;
                    datagram.id = u16::from_be_bytes(*id);
                    8
                }
                _ => 8 * (len + 1),
            };
            datagram.proto = *next;
            if datagram.header_len > datagram.total {
                return Err(Unusable::ExtensionBeyondLength);
            }
        }
        Ok(datagram)
    }

    pub(super) fn is_first_fragment(&self) -> bool {
        self.fragment_offset == 0
    }

    /// Whether it is no fragment.
    pub(super) fn is_whole(&self) -> bool {
        self.fragment_offset == 0 && self.flags & MORE_FRAGMENTS == 0
    }

    /// What is captured of the transport layer; a later fragment has no header of it.
    fn transport(&self) -> &'a [u8] {
        if !self.is_first_fragment() {
            return &[];
        }
        let end = self.captured.len().min(self.total);
        self.captured.get(self.header_len..end).unwrap_or_default()
    }
}

/// The IP packet of a record, and whether it carries another IP packet; or why
/// there is none.
pub(super) fn packet(record: &Record<'_>) -> Result<(Packet, bool), Unusable> {
    let datagram = Datagram::of(record)?;
    let (proto, transport) = (datagram.proto, datagram.transport());
    let is_first = datagram.is_first_fragment();
    let [src_ip, dst_ip] = datagram.addresses;
    let [src_port, dst_port] = match transport {
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
        UDP | UDP_LITE | ICMP => 8,
        SCTP => 12,
        DCCP => usize::from(transport.get(4).copied().unwrap_or(4)) * 4,
        ICMPV6 if src_ip.is_ipv6() => 8,
        _ => 0,
    };
    let payload = datagram.total - datagram.header_len;
    let packet = Packet {
        time_ns: datagram.time_ns,
        tuple: FiveTuple { src_ip, dst_ip, src_port, dst_port, proto },
        // At most 65,535, as are parts of it.
        len_bytes: datagram.total as u16,
        tos: datagram.tos,
        ip_id: datagram.id,
        ip_flags: datagram.flags,
        fragment_offset: datagram.fragment_offset,
        ttl: datagram.ttl,
        ihl: (datagram.header_len / 4).min(usize::from(u8::MAX)) as u8,
        tcp_flags: tcp(13).unwrap_or(0),
        tcp_window: match (tcp(14), tcp(15)) {
            (Some(high), Some(low)) => u16::from_be_bytes([high, low]),
            _ => 0,
        },
        payload_len: payload.saturating_sub(transport_header) as u16,
    };
    Ok((packet, carries_ip(proto, transport)))
}

/// Whether a packet's payload is an IP packet: IP in IP (RFC 2003, RFC 2473, RFC
/// 4213) and GRE (RFC 2784).
fn carries_ip(proto: u8, payload: &[u8]) -> bool {
    match (proto, payload) {
        (IPV4_IN_IP | IPV6_IN_IP, [first, ..]) => matches!(first >> 4, 4 | 6),
        (GRE, [_, _, high, low, ..]) => {
            matches!(u16::from_be_bytes([*high, *low]), 0x0800 | 0x86dd)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
