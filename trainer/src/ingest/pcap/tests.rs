//! Captures made byte by byte, in every form that is read.

use std::path::Path;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;

/// An Ethernet frame with a UDP packet.
pub(in crate::ingest) fn udp_frame(
    src: [u8; 4],
    dst: [u8; 4],
    src_port: u16,
    dst_port: u16,
    payload: usize,
) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(src, dst, 64)
        .udp(src_port, dst_port)
        .write(&mut frame, &vec![0; payload])
        .expect("written to memory");
    frame
}

fn tcp_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 57)
        .tcp(40_000, 443, 7, 512)
        .syn()
        .ack(8)
        .write(&mut frame, &[0; 100])
        .expect("written to memory");
    frame
}

/// A little-endian microsecond pcap with one frame a millisecond.
pub(in crate::ingest) fn capture_of(frames: &[Vec<u8>]) -> Vec<u8> {
    pcap(frames, 1, false, false)
}

fn pcap(frames: &[Vec<u8>], link_type: u32, big_endian: bool, nanoseconds: bool) -> Vec<u8> {
    let u32 = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let u16 = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut bytes = Vec::new();
    bytes.extend(u32(if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 }));
    bytes.extend([u16(2), u16(4)].concat());
    bytes.extend([u32(0), u32(0), u32(65535), u32(link_type)].concat());
    for (index, frame) in frames.iter().enumerate() {
        let fraction = if nanoseconds { 1_000_000 } else { 1_000 } * index as u32;
        let length = u32(frame.len() as u32);
        bytes.extend([u32(1_700_000_000), u32(fraction), length, length].concat());
        bytes.extend(frame);
    }
    bytes
}

fn read(bytes: &[u8]) -> Result<Capture, IngestError> {
    parse(bytes, Path::new("test"), OnError::Stop)
}

#[test]
fn both_byte_orders_and_resolutions_read_the_same() {
    let frames = [tcp_frame(), udp_frame([10, 0, 0, 1], [10, 0, 0, 2], 5, 6, 7)];
    let expected = read(&pcap(&frames, 1, false, false)).expect("a good capture").packets;
    assert_eq!(expected[1].time_ns - expected[0].time_ns, 1_000_000);
    for (big_endian, nanoseconds) in [(false, true), (true, false), (true, true)] {
        let capture = read(&pcap(&frames, 1, big_endian, nanoseconds)).expect("a good capture");
        assert_eq!(capture.packets, expected);
    }
}

#[test]
fn header_fields_are_those_that_were_written() {
    let packet = read(&capture_of(&[tcp_frame()])).expect("a good capture").packets[0];
    assert_eq!(packet.tuple.src_ip, std::net::Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!((packet.tuple.src_port, packet.tuple.dst_port), (40_000, 443));
    assert_eq!((packet.len_bytes, packet.payload_len, packet.ttl), (140, 100, 57));
    assert_eq!((packet.tcp_flags, packet.tcp_window), (0x12, 512));
    assert_eq!(packet.time_ns, 1_700_000_000_000_000_000);
}

#[test]
fn vlan_tags_and_raw_ip_lead_to_the_same_packet() {
    let frame = tcp_frame();
    let expected = read(&capture_of(std::slice::from_ref(&frame))).expect("good").packets;
    let mut tagged = frame.clone();
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    let mut stacked = tagged.clone();
    stacked.splice(12..12, [0x88, 0xa8, 0x00, 0x07]);
    for frame in [tagged, stacked] {
        assert_eq!(read(&capture_of(&[frame])).expect("good").packets, expected);
    }
    let raw = vec![frame[14..].to_vec()];
    for link_type in [12, 101, 228] {
        assert_eq!(read(&pcap(&raw, link_type, false, false)).expect("good").packets, expected);
    }
}

#[test]
fn what_cannot_be_used_is_counted_by_reason() {
    let mut arp = tcp_frame();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let mut six = tcp_frame();
    six[12..14].copy_from_slice(&[0x86, 0xdd]);
    let mut short_header = tcp_frame();
    short_header[14] = 0x42;
    let mut too_long = tcp_frame();
    too_long[16..18].copy_from_slice(&9_000_u16.to_be_bytes());
    let cut = tcp_frame()[..30].to_vec();
    let frames = [arp.clone(), arp, six, short_header, too_long, cut, tcp_frame()];
    let capture = read(&capture_of(&frames)).expect("one good packet");
    assert_eq!(capture.packets.len(), 1);
    assert_eq!(capture.records, 7);
    let counted: Vec<(&str, u64)> =
        capture.not_used.iter().map(|(reason, &count)| (reason.as_str(), count)).collect();
    assert_eq!(
        counted,
        [
            ("ARP", 2),
            ("cut inside the IP header", 1),
            ("of EtherType IPv6 without an IPv6 header", 1),
            ("with an IP header length below 20", 1),
            ("with an IP length beyond the frame", 1),
        ]
    );
    // Segmentation offload writes 0: the frame tells.
    let mut offloaded = tcp_frame();
    offloaded[16..18].copy_from_slice(&[0, 0]);
    assert_eq!(read(&capture_of(&[offloaded])).expect("good").packets[0].len_bytes, 140);
}

#[test]
fn a_capture_that_ends_early_is_used_up_to_there() {
    let whole = capture_of(&[tcp_frame(), tcp_frame()]);
    for missing in [1, 10, 140, 165] {
        let capture = read(&whole[..whole.len() - missing]).expect("one packet");
        assert_eq!((capture.packets.len(), capture.records), (1, 2));
        assert_eq!(capture.not_used["cut short by the end of the file"], 1);
    }
    let ng = pcapng(false, None, 1);
    let text = read(&ng[..ng.len() - 1]).expect_err("no packet").to_string();
    assert_eq!(text, "`test` has no usable records: 1 cut short by the end of the file");
    let mut gz = gzip(&whole);
    gz.truncate(gz.len() - 9);
    assert_eq!(read(&gz).expect("what comes before").not_used.len(), 1);
}

#[test]
fn other_damage_is_an_error_with_its_place_or_skipped() {
    let mut damaged = capture_of(&[tcp_frame(), tcp_frame(), tcp_frame()]);
    damaged[194 + 8..194 + 12].copy_from_slice(&[0xff; 4]);
    let text = read(&damaged).expect_err("a length that cannot be").to_string();
    assert_eq!(
        text,
        "`test`: record 2, at byte 194: 4294967295 captured bytes, more than 262144 \
         (`--on-error skip` uses what comes before)"
    );
    let capture = parse(&damaged, Path::new("test"), OnError::Skip).expect("one packet");
    assert_eq!(capture.packets.len(), 1);
    assert_eq!(capture.not_used["cut short or damaged from there on"], 1);
    let text = read(&gzip(&damaged)).expect_err("the same").to_string();
    assert!(text.contains("at byte 194") && text.contains("after decompression"), "{text}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("written to memory");
    encoder.finish().expect("written to memory")
}

#[test]
fn gzip_is_told_by_its_content() {
    let whole = capture_of(&[tcp_frame(), tcp_frame()]);
    let expected = read(&whole).expect("good").packets;
    assert_eq!(read(&gzip(&whole)).expect("good").packets, expected);
    // Members one after another, as `cat a.gz b.gz` makes them.
    let members = [gzip(&whole[..100]), gzip(&whole[100..])].concat();
    assert_eq!(read(&members).expect("good").packets, expected);
}

#[test]
fn old_versions_have_their_lengths_the_other_way_round() {
    let mut cut = tcp_frame();
    cut.truncate(60);
    let mut now = capture_of(&[cut]);
    now[24 + 12..24 + 16].copy_from_slice(&154_u32.to_le_bytes());
    let expected = read(&now).expect("good").packets;
    for version in [0, 2, 3] {
        let mut old = now.clone();
        old[6] = version;
        old[24 + 8..24 + 12].copy_from_slice(&154_u32.to_le_bytes());
        old[24 + 12..24 + 16].copy_from_slice(&60_u32.to_le_bytes());
        assert_eq!(read(&old).expect("good").packets, expected);
    }
}

#[test]
fn every_section_has_its_own_interfaces() {
    let one = pcapng(false, Some(9), 5_000_000_000);
    let other = pcapng(true, Some(6), 7_000_000);
    let packets = read(&[one.clone(), other, one].concat()).expect("good").packets;
    let seconds: Vec<i64> = packets.iter().map(|packet| packet.time_ns / 1_000_000_000).collect();
    assert_eq!(seconds, [5, 5, 7]);
}

#[test]
fn times_that_cannot_be_are_counted() {
    for (resolution, ticks) in [(Some(0), u64::MAX), (Some(0x7f), 1), (Some(9), u64::MAX)] {
        let text = read(&pcapng(false, resolution, ticks)).expect_err("no time").to_string();
        assert!(text.ends_with(": 1 with a time out of range"), "{text}");
    }
}

#[test]
fn packets_inside_packets_are_counted() {
    let frame = tcp_frame();
    let mut tunnel = frame.clone();
    tunnel[14 + 9] = 4;
    tunnel.splice(34.., frame[14..].iter().copied());
    let length = (tunnel.len() - 14) as u16;
    tunnel[16..18].copy_from_slice(&length.to_be_bytes());
    let mut source = Source::new(io::Cursor::new(capture_of(&[tunnel, frame]))).expect("read");
    let mut counts = Counts::default();
    let mut packets = Vec::new();
    stream(&mut source, Path::new("test"), OnError::Stop, &mut counts, |p, _| packets.push(p))
        .expect("good");
    assert_eq!((counts.carrying, packets.len()), (1, 2));
    let tuple = packets[0].tuple;
    assert_eq!((tuple.proto, tuple.src_port, tuple.dst_port), (4, 0, 0));
}

#[test]
fn what_is_no_capture_is_said_to_be_none() {
    for (bytes, expected) in [
        (&b""[..], "it is empty"),
        (b"srcip,dstip\n1,2\n", "it begins like no pcap"),
        (&[0x1f, 0x8b, 8, 0], "it is empty"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "it is compressed with zstd"),
        (&[0xa1, 0xb2, 0xc3, 0xd4, 0], "it ends inside its header, after 5 bytes"),
    ] {
        let text = read(bytes).expect_err("no capture").to_string();
        assert!(text.contains(expected), "{text}");
    }
    let text = read(&capture_of(&[])).expect_err("no packets").to_string();
    assert_eq!(text, "`test` has no usable records");
}

/// A pcapng section with one interface and one packet.
fn pcapng(big_endian: bool, resolution: Option<u8>, ticks: u64) -> Vec<u8> {
    let u32 = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let u16 = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let block = |kind: u32, body: Vec<u8>| {
        let length = u32(body.len() as u32 + 12);
        [&u32(kind)[..], &length, &body, &length].concat()
    };
    let section = [&u32(0x1a2b_3c4d)[..], &u16(1), &u16(0), &[0xff; 8]].concat();
    let mut interface = [&u16(1)[..], &u16(0), &u32(0)].concat();
    if let Some(resolution) = resolution {
        interface.extend([&u16(9)[..], &u16(1), &[resolution, 0, 0, 0], &u16(0), &u16(0)].concat());
    }
    let frame = tcp_frame();
    let length = u32(frame.len() as u32);
    let time = [u32((ticks >> 32) as u32), u32(ticks as u32)].concat();
    let mut packet = [&u32(0)[..], &time, &length, &length, &frame].concat();
    packet.resize(packet.len().next_multiple_of(4), 0);
    [block(0x0a0d_0d0a, section), block(1, interface), block(6, packet)].concat()
}

#[test]
fn pcapng_is_read_in_both_byte_orders_and_any_resolution() {
    let expected = read(&capture_of(&[tcp_frame()])).expect("good").packets;
    let seconds = 1_700_000_000_u64;
    for big_endian in [false, true] {
        for (resolution, ticks) in [
            (None, seconds * 1_000_000),
            (Some(6), seconds * 1_000_000),
            (Some(9), seconds * 1_000_000_000),
            (Some(0x80 | 20), seconds << 20),
        ] {
            let capture = read(&pcapng(big_endian, resolution, ticks)).expect("good");
            assert_eq!(capture.packets, expected, "{big_endian} {resolution:?}");
        }
    }
}

/// Captures of every kind, small.
fn kinds() -> Vec<Vec<u8>> {
    let frames = [tcp_frame(), udp_frame([10, 0, 0, 1], [10, 0, 0, 2], 5, 6, 7)];
    let mut kinds = Vec::new();
    for link_type in [0, 1, 9, 51, 101, 104, 108, 113, 204, 228, 239, 276] {
        kinds.push(pcap(&frames, link_type, link_type % 2 == 0, link_type % 3 == 0));
    }
    for big_endian in [false, true] {
        kinds.push(pcapng(big_endian, Some(9), 1_700_000_000_000_000_000));
        kinds.push([pcapng(big_endian, Some(0x94), 9), pcapng(!big_endian, None, 7)].concat());
    }
    kinds.push(gzip(&kinds[1]));
    kinds.push(gzip(&kinds[13]));
    kinds
}

proptest! {
    #[test]
    fn changed_captures_never_panic(
        kind in 0_usize..18,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
        skip in any::<bool>(),
    ) {
        let mut bytes = kinds()[kind].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        let on_error = if skip { OnError::Skip } else { OnError::Stop };
        if let Ok(capture) = parse(&bytes, Path::new("test"), on_error) {
            let not_used: u64 = capture.not_used.values().sum();
            prop_assert_eq!(capture.packets.len() as u64 + not_used, capture.records);
        }
    }

    #[test]
    fn any_bytes_after_a_good_beginning_have_an_answer(
        kind in 0_usize..18,
        keep in 0_usize..60,
        tail in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = kinds()[kind].clone();
        bytes.truncate(keep);
        bytes.extend(tail);
        let _ = parse(&bytes, Path::new("test"), OnError::Skip);
    }
}
