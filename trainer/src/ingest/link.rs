//! From a captured frame to the network-layer packet in it.
//!
//! Link types are those of tcpdump.org's list.

use super::unusable::Unusable;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;
const VLAN_TAGS: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];
const MPLS: [u16; 2] = [0x8847, 0x8848];

/// A version of IP that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

/// Where the IP packet of a frame begins and of which version the frame says that
/// it is, or why it has none.
pub(super) fn ip_offset(link_type: u32, data: &[u8]) -> Result<(usize, Version), Unusable> {
    match link_type {
        // Ethernet; with a length in place of a type, LLC follows.
        1 => ether_type(data, 14, be16(data, 12)?),
        // BSD loopback: four bytes of address family in either order, then IP of any version.
        0 | 108 => by_version(data, 4),
        // PPP, after a direction byte (204), possibly after HDLC's address and control.
        9 | 50 | 166 => ppp(data, 0),
        204 => ppp(data, 1),
        // PPP over Ethernet, from the PPPoE header on.
        51 => ppp(data, 6),
        // Cisco HDLC: address, control, EtherType.
        104 => ether_type(data, 4, be16(data, 2)?),
        // Raw IP, under its number in files and those of some systems.
        12 | 14 | 101 => by_version(data, 0),
        228 => Ok((0, Version::V4)),
        229 => Ok((0, Version::V6)),
        // Linux cooked, versions 1 and 2.
        113 => ether_type(data, 16, be16(data, 14)?),
        276 => ether_type(data, 20, be16(data, 0)?),
        239 => nflog(data),
        other => Err(Unusable::LinkType(other)),
    }
}

fn byte(data: &[u8], at: usize) -> Result<u8, Unusable> {
    data.get(at).copied().ok_or(Unusable::CutInLinkHeader)
}

fn be16(data: &[u8], at: usize) -> Result<u16, Unusable> {
    Ok(u16::from_be_bytes([byte(data, at)?, byte(data, at + 1)?]))
}

fn by_version(data: &[u8], offset: usize) -> Result<(usize, Version), Unusable> {
    match byte(data, offset)? >> 4 {
        4 => Ok((offset, Version::V4)),
        6 => Ok((offset, Version::V6)),
        version => Err(Unusable::IpVersion(version)),
    }
}

/// What an EtherType leads to. Every turn goes on in `data`, so it ends.
fn ether_type(
    data: &[u8],
    offset: usize,
    mut ether_type: u16,
) -> Result<(usize, Version), Unusable> {
    const SNAP: [u8; 6] = [0xaa, 0xaa, 0x03, 0, 0, 0];
    let mut offset = offset;
    loop {
        match ether_type {
            ETHERTYPE_IPV4 => return Ok((offset, Version::V4)),
            ETHERTYPE_IPV6 => return Ok((offset, Version::V6)),
            ETHERTYPE_ARP => return Err(Unusable::Arp),
            ETHERTYPE_PPPOE_SESSION => return ppp(data, offset + 6),
            tag if VLAN_TAGS.contains(&tag) => {
                ether_type = be16(data, offset + 2)?;
                offset += 4;
            }
            label if MPLS.contains(&label) => return mpls(data, offset),
            0..0x600 if data.get(offset..).is_some_and(|data| data.starts_with(&SNAP)) => {
                ether_type = be16(data, offset + 6)?;
                offset += 8;
                // A SNAP header inside a SNAP header is nothing that anybody sends.
                if ether_type < 0x600 {
                    return Err(Unusable::Ieee8023);
                }
            }
            0..0x600 => return Err(Unusable::Ieee8023),
            other => return Err(Unusable::EtherType(other)),
        }
    }
}

/// Label stack entries of four bytes up to the one marked as the bottom (RFC
/// 3032); the packet below is told by its first four bits.
fn mpls(data: &[u8], mut offset: usize) -> Result<(usize, Version), Unusable> {
    loop {
        let bottom = byte(data, offset + 2)? & 1 == 1;
        offset += 4;
        if bottom {
            return match by_version(data, offset) {
                Err(Unusable::IpVersion(_)) => Err(Unusable::MplsWithoutIp),
                found => found,
            };
        }
    }
}

/// RFC 1661, with the compressed fields of RFC 1662.
fn ppp(data: &[u8], mut offset: usize) -> Result<(usize, Version), Unusable> {
    if data.get(offset..offset + 2) == Some(&[0xff, 0x03]) {
        offset += 2;
    }
    // An odd first byte is all of the protocol field.
    let first = u16::from(byte(data, offset)?);
    let protocol = if first & 1 == 1 {
        offset += 1;
        first
    } else {
        let protocol = be16(data, offset)?;
        offset += 2;
        protocol
    };
    match protocol {
        0x0021 => Ok((offset, Version::V4)),
        0x0057 => Ok((offset, Version::V6)),
        0x0281 | 0x0283 => mpls(data, offset),
        other => Err(Unusable::PppProtocol(other)),
    }
}

/// Linux netfilter log: attributes of (length, type) in host byte order, which
/// the capture does not tell; the payload's length shows it.
fn nflog(data: &[u8]) -> Result<(usize, Version), Unusable> {
    const PAYLOAD: [u8; 2] = [9, 0];
    let mut offset = 4;
    let family = byte(data, 0)?;
    loop {
        let header = data.get(offset..offset + 4).ok_or(Unusable::CutInLinkHeader)?;
        let little = u16::from_le_bytes([header[0], header[1]]);
        let kind = [header[2], header[3]];
        let (length, kind) = if kind[1] == 0 && little >= 4 {
            (usize::from(little), kind)
        } else {
            (usize::from(little.swap_bytes()), [kind[1], kind[0]])
        };
        if kind == PAYLOAD {
            return match family {
                2 => Ok((offset + 4, Version::V4)),
                10 => Ok((offset + 4, Version::V6)),
                _ => by_version(data, offset + 4),
            };
        }
        if length < 4 {
            return Err(Unusable::CutInLinkHeader);
        }
        offset += length.next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The links that are read, each with the bytes before an IP packet that name its
    /// version, if any do.
    fn links() -> Vec<(u32, Vec<u8>)> {
        let ethernet = |rest: &[u8]| [&[2; 12], rest].concat();
        vec![
            (1, ethernet(&[8, 0])),
            (1, ethernet(&[0x81, 0, 0, 5, 8, 0])),
            (1, ethernet(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5, 8, 0])),
            (1, ethernet(&[0x88, 0x47, 0, 1, 0, 64, 0, 2, 1, 64])),
            (1, ethernet(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 42, 0, 0x21])),
            (1, ethernet(&[0x81, 0, 0, 5, 0x88, 0x64, 0x11, 0, 0, 1, 0, 42, 0, 0x21])),
            (1, ethernet(&[0, 60, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0])),
            (0, vec![2, 0, 0, 0]),
            (108, vec![0, 0, 0, 2]),
            (9, vec![0xff, 3, 0, 0x21]),
            (9, vec![0x21]),
            (50, vec![0xff, 3, 2, 0x81, 0, 1, 1, 64]),
            (51, vec![0x11, 0, 0, 1, 0, 42, 0, 0x21]),
            (204, vec![1, 0xff, 3, 0, 0x21]),
            (104, vec![0x0f, 0, 8, 0]),
            (101, vec![]),
            (228, vec![]),
            (113, [&[0; 14][..], &[8, 0]].concat()),
            (113, [&[0; 14][..], &[0x81, 0, 0, 5, 8, 0]].concat()),
            (276, [&[8, 0][..], &[0; 18]].concat()),
            (239, vec![2, 0, 0, 1, 8, 0, 1, 0, 9, 9, 9, 9, 24, 0, 9, 0]),
            (239, vec![2, 0, 0, 1, 0, 8, 0, 1, 9, 9, 9, 9, 0, 24, 0, 9]),
            // Of IPv6.
            (1, ethernet(&[0x86, 0xdd])),
            (1, ethernet(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5, 0x86, 0xdd])),
            (1, ethernet(&[0x88, 0x47, 0, 0, 1, 64])),
            (1, ethernet(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 42, 0, 0x57])),
            (1, ethernet(&[0, 60, 0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd])),
            (0, vec![24, 0, 0, 0]),
            (9, vec![0xff, 3, 0, 0x57]),
            (9, vec![0x57]),
            (104, vec![0x0f, 0, 0x86, 0xdd]),
            (229, vec![]),
            (113, [&[0; 14][..], &[0x86, 0xdd]].concat()),
            (276, [&[0x86, 0xdd][..], &[0; 18]].concat()),
            (239, vec![10, 0, 0, 1, 8, 0, 1, 0, 9, 9, 9, 9, 44, 0, 9, 0]),
        ]
    }

    const LINKS_OF_IPV4: usize = 22;

    #[test]
    fn every_link_leads_to_the_packet() {
        for (at, (link_type, header)) in links().into_iter().enumerate() {
            // Those that leave it to the packet lead to either version.
            let by_packet = matches!((link_type, &header[..]), (0 | 101 | 108, _))
                || header.windows(2).any(|pair| pair == [0x88, 0x47])
                || link_type == 50;
            for (first, version) in [(0x45, Version::V4), (0x60, Version::V6)] {
                if !by_packet && (version == Version::V6) != (at >= LINKS_OF_IPV4) {
                    continue;
                }
                let frame = [&header[..], &[first; 20]].concat();
                let expected = Ok((header.len(), version));
                assert_eq!(ip_offset(link_type, &frame), expected, "{link_type} {header:?}");
                for length in 0..header.len() {
                    // Where the header's rest says nothing more, the IP header is missing.
                    let cut = ip_offset(link_type, &frame[..length]);
                    assert!(cut.is_err() || cut == expected, "{link_type} {length}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_ip_is_named() {
        let ethernet = |rest: &[u8]| ip_offset(1, &[&[2; 12], rest, &[0; 30]].concat());
        for (rest, expected) in [
            (&[8, 6][..], "ARP"),
            (&[0, 40, 0x42, 0x42, 3], "IEEE 802.3 frames"),
            (&[0x88, 0xcc], "of EtherType 0x88cc"),
            (&[0x88, 0x64, 0x11, 0, 0, 1, 0, 9, 0xc0, 0x21], "of PPP protocol 0xc021"),
            (&[0x88, 0x47, 0, 0, 1, 1, 0x00], "of MPLS without an IP packet"),
        ] {
            assert_eq!(ethernet(rest).unwrap_err().to_string(), expected);
        }
        assert_eq!(ip_offset(105, &[]).unwrap_err().to_string(), "of link type 105");
        assert_eq!(ip_offset(101, &[0x50]).unwrap_err().to_string(), "of IP version 5");
    }

    proptest! {
        #[test]
        fn any_frame_has_an_answer(
            link in 0_usize..35,
            tail in prop::collection::vec(any::<u8>(), 0..80),
            keep in 0_usize..40,
        ) {
            let (link_type, header) = &links()[link];
            let frame = [&header[..keep.min(header.len())], &tail].concat();
            if let Ok((offset, _)) = ip_offset(*link_type, &frame) {
                // Of a cut header what is missing is less than the header.
                prop_assert!(offset <= frame.len() + 20);
            }
        }
    }
}
