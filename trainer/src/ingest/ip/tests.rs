//! IPv6 packets byte by byte; IPv4's are among the tests of captures.

use std::path::Path;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::ingest::pcap;
use crate::ingest::{Checksums, OnError};

const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const DESTINATION: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// An IPv6 packet: traffic class 0xb8, hop limit 64.
fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16).to_be_bytes();
    let head = [0x6b, 0x80, 0, 0, len[0], len[1], next, 64];
    [&head[..], &SOURCE.octets(), &DESTINATION.octets(), payload].concat()
}

fn udp(payload: usize) -> Vec<u8> {
    let len = (8 + payload as u16).to_be_bytes();
    [&[0x13, 0x88, 0, 53, len[0], len[1], 0, 0][..], &vec![0; payload]].concat()
}

fn parse(data: &[u8], original_len: usize) -> Result<Packet, Unusable> {
    let original_len = original_len as u32;
    packet(&Record { link_type: 229, time_ns: Some(7), data, original_len }).map(|found| found.0)
}

fn whole(data: &[u8]) -> Result<Packet, Unusable> {
    parse(data, data.len())
}

#[test]
fn header_fields_are_those_that_were_written() {
    let found = whole(&ipv6(UDP, &udp(12))).expect("a good packet");
    assert_eq!((found.tuple.src_ip, found.tuple.dst_ip), (SOURCE.into(), DESTINATION.into()));
    assert_eq!((found.tuple.src_port, found.tuple.dst_port, found.tuple.proto), (5000, 53, UDP));
    assert_eq!((found.len_bytes, found.payload_len, found.ihl), (60, 12, 10));
    assert_eq!((found.tos, found.ttl, found.time_ns), (0xb8, 64, 7));
    assert_eq!((found.ip_id, found.ip_flags, found.fragment_offset), (0, 0, 0));
    let mut frame = Vec::new();
    PacketBuilder::ipv6(SOURCE.octets(), DESTINATION.octets(), 3)
        .tcp(40_000, 443, 7, 512)
        .syn()
        .write(&mut frame, &[0; 9])
        .expect("written to memory");
    let found = whole(&frame).expect("a good packet");
    assert_eq!((found.len_bytes, found.payload_len, found.ttl), (69, 9, 3));
    assert_eq!((found.tcp_flags, found.tcp_window), (2, 512));
}

#[test]
fn payload_follows_the_header_of_every_protocol_with_ports() {
    // UDP-Lite's 8 bytes, SCTP's 12, and as many as DCCP says.
    for (proto, header) in [(136, 8), (132, 12), (33, 24)] {
        let mut transport = udp(32);
        transport[4] = 6;
        let found = whole(&ipv6(proto, &transport)).expect("a good packet");
        assert_eq!((found.tuple.src_port, found.tuple.dst_port), (5000, 53));
        assert_eq!(usize::from(found.payload_len), transport.len() - header, "{proto}");
    }
}

#[test]
fn extension_headers_are_looked_through() {
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let long_routing = |next: u8| [&[next, 2, 0, 1][..], &[0; 20]].concat();
    let authentication = |next: u8| [&[next, 4, 0, 0][..], &[0; 20]].concat();
    let chain = [
        &options(43)[..],
        &long_routing(51),
        &authentication(60),
        &options(FRAGMENT),
        // Neither offset nor more: no fragment (RFC 6946).
        &[UDP, 0, 0, 0, 9, 9, 0x12, 0x34],
        &udp(5),
    ]
    .concat();
    let found = whole(&ipv6(0, &chain)).expect("a good packet");
    assert_eq!((found.tuple.src_port, found.tuple.dst_port, found.tuple.proto), (5000, 53, UDP));
    assert_eq!(usize::from(found.ihl) * 4, 40 + 8 + 24 + 24 + 8 + 8);
    assert_eq!((found.payload_len, usize::from(found.len_bytes)), (5, 40 + chain.len()));
    assert_eq!((found.ip_id, found.ip_flags, found.fragment_offset), (0x1234, 0, 0));
    // What is encrypted, or has a format of its own, is the protocol.
    for proto in [50, 135, 59, 89] {
        let found = whole(&ipv6(60, &[&options(proto)[..], &[0; 16]].concat()));
        assert_eq!(found.expect("a good packet").tuple.proto, proto);
    }
}

#[test]
fn fragments_are_told() {
    let fragment = |word: u16, rest: &[u8]| {
        let [high, low] = word.to_be_bytes();
        whole(&ipv6(FRAGMENT, &[&[UDP, 0, high, low, 0xaa, 0xbb, 0x12, 0x34][..], rest].concat()))
    };
    let first = fragment(1, &udp(8)).expect("a first fragment");
    assert_eq!((first.ip_id, first.ip_flags, first.fragment_offset), (0x1234, 1, 0));
    assert_eq!((first.tuple.src_port, first.payload_len, first.ihl), (5000, 8, 12));
    let last = fragment(185 << 3, &[1, 2, 3, 4, 5]).expect("a last fragment");
    assert_eq!((last.ip_flags, last.fragment_offset, last.tuple.proto), (0, 185, UDP));
    assert_eq!((last.tuple.src_port, last.payload_len, last.len_bytes), (0, 5, 53));
    // Of a later fragment nothing more is read: what looks like options is not.
    let [high, low] = (9_u16 << 3 | 1).to_be_bytes();
    let middle = [&[60, 0, high, low, 0, 0, 0, 1][..], &[UDP, 255, 0, 0, 0, 0, 0, 0]].concat();
    let found = whole(&ipv6(FRAGMENT, &middle)).expect("a fragment");
    assert_eq!((found.tuple.proto, found.fragment_offset, found.ip_flags), (60, 9, 1));
}

#[test]
fn what_cannot_be_used_is_named() {
    let good = ipv6(UDP, &udp(12));
    let reason = |data: &[u8]| whole(data).expect_err("not usable");
    assert_eq!(reason(&good[..39]), Unusable::CutInIpHeader);
    assert_eq!(reason(&[&[0x45][..], &good[1..]].concat()), Unusable::NoIpv6Header);
    assert_eq!(reason(&good[..59]), Unusable::LengthBeyondFrame);
    assert_eq!(parse(&good[..43], 60), Err(Unusable::CutBeforePorts));
    assert_eq!(parse(&good[..44], 60).expect("ports").payload_len, 12);
    assert_eq!(parse(&ipv6(0, &[0; 5])[..45], 99), Err(Unusable::CutInIpHeader));
    let beyond = ipv6(60, &[UDP, 9, 0, 0, 0, 0, 0, 0]);
    assert_eq!(reason(&beyond), Unusable::ExtensionBeyondLength);
    let mut mapped = good.clone();
    mapped[8..24].copy_from_slice(&Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets());
    assert_eq!(reason(&mapped), Unusable::MappedAddress);
    // Offload leaves a length of 0, and so does a packet without anything in it.
    let mut offloaded = good.clone();
    offloaded[4..6].copy_from_slice(&[0, 0]);
    assert_eq!(whole(&offloaded).expect("a good packet").len_bytes, 60);
    let padded = [&ipv6(59, &[])[..], &[0; 6]].concat();
    assert_eq!(whole(&padded).expect("a good packet").len_bytes, 40);
    assert_eq!(parse(&offloaded, 1 << 20).expect("a jumbogram").len_bytes, u16::MAX);
}

#[test]
fn checksums_cover_the_pseudo_header() {
    let ip =
        || PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(SOURCE.octets(), DESTINATION.octets(), 64);
    let mut frames = vec![Vec::new(); 3];
    ip().udp(5000, 53).write(&mut frames[0], &[1, 2, 3]).expect("written");
    ip().tcp(5000, 80, 1, 2).write(&mut frames[1], &[5; 100]).expect("written");
    ip().icmpv6_echo_request(7, 8).write(&mut frames[2], &[9; 55]).expect("written");
    let of = |frames: &[Vec<u8>]| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("six.pcap");
        std::fs::write(&path, pcap::tests::capture_of(frames)).expect("written");
        let found = Checksums::of(&[path], OnError::Stop).expect("a capture");
        (found.headers, found.transports, found.right_transports)
    };
    assert_eq!(of(&frames), (0, 3, 3));
    frames.iter_mut().for_each(|frame| frame[30] ^= 1);
    assert_eq!(of(&frames), (0, 3, 0));
}

#[test]
fn a_capture_of_both_versions_is_read_in_order() {
    let four = pcap::tests::udp_frame([10, 0, 0, 1], [10, 0, 0, 2], 5, 6, 7);
    let six = [&four[..12], &[0x86, 0xdd], &ipv6(UDP, &udp(1))].concat();
    let bytes = pcap::tests::capture_of(&[four, six]);
    let packets = pcap::parse(&bytes, Path::new("test"), OnError::Stop).expect("good").packets;
    let versions: Vec<bool> = packets.iter().map(|packet| packet.tuple.src_ip.is_ipv6()).collect();
    assert_eq!(versions, [false, true]);
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer(
        next in prop::sample::select(vec![0_u8, 43, 44, 51, 60, 6, 17, 58]),
        len in any::<u16>(),
        link_type in prop::sample::select(vec![12_u32, 101, 228, 229]),
        version in prop::sample::select(vec![0x60_u8, 0x45]),
        nexts in prop::collection::vec(
            (prop::sample::select(vec![0_u8, 43, 44, 51, 60, 17]), 0_u8..4, any::<[u8; 6]>()),
            0..40,
        ),
        cut in 0_usize..400,
        more in 0_usize..1000,
    ) {
        let rest: Vec<u8> =
            nexts.iter().flat_map(|(next, len, rest)| [&[*next, *len][..], rest].concat()).collect();
        let mut data = ipv6(next, &rest);
        data[0] = version;
        if len % 2 == 0 {
            data[4..6].copy_from_slice(&len.to_be_bytes());
        }
        data.truncate(cut);
        let original_len = (data.len() + more) as u32;
        let record = Record { link_type, time_ns: Some(0), data: &data, original_len };
        if let Ok(datagram) = Datagram::of(&record) {
            prop_assert!(datagram.header_len <= datagram.total);
            prop_assert!(datagram.total <= original_len as usize);
        }
        if let Ok((packet, _)) = packet(&record) {
            prop_assert!(packet.payload_len <= packet.len_bytes);
        }
    }
}
