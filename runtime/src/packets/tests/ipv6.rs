//! IPv6, with etherparse as the oracle as well.

use etherparse::{Icmpv6Slice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice};
use ns_model_format::cell;

use super::*;

/// A schema whose addresses may be of both versions.
fn both(measurements: &[&str]) -> Schema {
    let mut schema = schema(true, measurements);
    for field in &mut schema.attributes[..2] {
        field.kind = FieldKind::Ip;
        field.codec = Codec::Bit(BitCodec::new(&field.name, 128).unwrap());
    }
    schema
}

fn address(text: &str) -> Value {
    Value::Wide(cell::ip(text).unwrap().into())
}

/// A frame of either version is right in all that etherparse knows; returns where its
/// transport header begins.
fn check_either(frame: &[u8]) -> usize {
    if frame[12..14] == [8, 0] {
        check(frame);
        return 34;
    }
    assert_eq!(frame[12..14], [0x86, 0xdd]);
    let ip = Ipv6HeaderSlice::from_slice(&frame[14..]).unwrap();
    assert_eq!(usize::from(ip.payload_length()), frame.len() - 54, "payload length");
    assert!(ip.hop_limit() > 0 && ip.flow_label().value() == 0);
    let (mut next, mut at, mut offset) = (ip.next_header(), 54, 0);
    if next.0 == FRAGMENT {
        let fragment = Ipv6FragmentHeaderSlice::from_slice(&frame[54..]).unwrap();
        offset = usize::from(fragment.fragment_offset().value());
        assert!(!fragment.more_fragments() || (frame.len() - 62).is_multiple_of(8));
        assert!(offset * 8 + frame.len() - 62 <= 65_535);
        (next, at) = (fragment.next_header(), 62);
    }
    assert!(!EXTENSIONS.contains(&next.0) && next.0 != ICMP, "{next:?}");
    let rest = &frame[at..];
    match next.0 {
        _ if offset > 0 => {}
        TCP => {
            let tcp = TcpHeaderSlice::from_slice(rest).unwrap();
            let payload = &rest[tcp.slice().len()..];
            assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv6(&ip, payload).unwrap());
            assert!(tcp.options_iterator().all(|option| option.is_ok()), "options");
            assert!(!tcp.syn() || payload.is_empty());
        }
        UDP => {
            let udp = UdpHeaderSlice::from_slice(rest).unwrap();
            assert_eq!(usize::from(udp.length()), rest.len());
            let expected = udp.to_header().calc_checksum_ipv6(&ip.to_header(), &rest[8..]);
            assert_ne!(udp.checksum(), 0, "which IPv6 forbids");
            assert_eq!(udp.checksum(), expected.unwrap());
        }
        ICMPV6 => {
            let icmp = Icmpv6Slice::from_slice(rest).unwrap();
            assert!(icmp.is_checksum_valid(ip.source(), ip.destination()));
            assert!(matches!(rest[0], 128 | 129));
        }
        protocol => check_other(protocol, &frame[22..54], rest),
    }
    at
}

fn addresses() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => any::<u128>().prop_map(|bits| Value::Wide(bits.into())),
        2 => any::<u32>().prop_map(|bits| {
            Value::Wide(cell::ip_number(std::net::Ipv4Addr::from(bits).into()).into())
        }),
        1 => number(i64::from(u32::MAX)),
    ]
}

proptest! {
    #[test]
    fn every_frame_of_either_version_is_right(
        flow in any::<u64>(),
        seed in any::<u64>(),
        pair in [addresses(), addresses()],
        attributes in attributes(),
        extension in prop::option::of(prop::sample::select(vec![0_i64, 43, 44, 51, 58, 59, 60])),
        records in prop::collection::vec(measured(), 1..12),
        lacking in 0..9_usize,
        cut in 20..1600_u16,
    ) {
        let mut attributes = attributes;
        attributes[..2].copy_from_slice(&pair);
        if let Some(protocol) = extension {
            attributes[4] = Value::Int(protocol);
        }
        let mut names = ALL_MEASURED.to_vec();
        names.remove(lacking);
        let options = PacketOptions { seed, payload: Payload::random(seed), ..Default::default() };
        let mut render = PacketRender::new(&both(&names), options).unwrap();
        let mut state = render.begin_flow(flow, &attributes);
        for (index, mut record) in records.into_iter().enumerate() {
            record.remove(lacking);
            let frame = render.record(&mut state, index as u64 * 1_000_000, &record);
            let whole = bytes(&render, &frame);
            prop_assert_eq!(whole.len(), frame.len());
            check_either(&whole);
            let Some(short) = frame.shortened(cut, render.payload()) else { continue };
            let whole = bytes(&render, &short);
            prop_assert!(whole.len() - 14 <= usize::from(cut) || short == frame);
            // Of a fragment that more follow a part is no such fragment.
            let more = match whole[12] {
                8 => whole[20] & 0x20 != 0,
                _ => whole[20] == FRAGMENT && whole[57] & 1 == 1,
            };
            if !more {
                check_either(&whole);
            }
        }
    }
}

struct Speaker {
    render: PacketRender,
    flow: PacketFlow,
}

impl Speaker {
    fn new(pair: [&str; 2], proto: i64, names: &[&str]) -> Speaker {
        let mut render = PacketRender::new(&both(names), PacketOptions::default()).unwrap();
        let rest = ints(&[40_000, 80, proto]);
        let flow = render.begin_flow(1, &[&pair.map(address)[..], &rest].concat());
        Speaker { render, flow }
    }

    fn frame(&mut self, values: &[i64]) -> (Vec<u8>, Repairs) {
        let frame = self.render.record(&mut self.flow, 0, &ints(values));
        let whole = bytes(&self.render, &frame);
        check_either(&whole);
        (whole, frame.repairs())
    }
}

const PAIR: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

#[test]
fn header_fields_are_the_modelled_ones() {
    let names = [name::LEN, name::DIRECTION, name::TOS, name::TTL, name::TCP_FLAGS];
    let mut speaker = Speaker::new(PAIR, 6, &names);
    let (frame, repairs) = speaker.frame(&[80, 0, 0xb8, 57, 2]);
    let ip = Ipv6HeaderSlice::from_slice(&frame[14..]).unwrap();
    assert_eq!((ip.traffic_class(), ip.hop_limit(), frame.len()), (0xb8, 57, 94));
    assert_eq!(ip.source_addr().to_string(), PAIR[0]);
    assert_eq!(ip.destination_addr().to_string(), PAIR[1]);
    assert_eq!(repairs, Repairs::NONE);
    let tcp = TcpHeaderSlice::from_slice(&frame[54..]).unwrap();
    assert_eq!((tcp.source_port(), tcp.destination_port(), tcp.syn()), (40_000, 80, true));
    let first = tcp.options_iterator().next().unwrap().unwrap();
    assert_eq!(first, TcpOptionElement::MaximumSegmentSize(1440));
    let (frame, _) = speaker.frame(&[80, 1, 0, 64, 0x12]);
    let ip = Ipv6HeaderSlice::from_slice(&frame[14..]).unwrap();
    assert_eq!(ip.source_addr().to_string(), PAIR[1]);
    assert_eq!(frame[54..58], [0, 80, 0x9c, 0x40]);
}

#[test]
fn what_is_shorter_than_its_headers_is_repaired() {
    for (proto, least) in [(6, 60), (17, 48), (58, 48), (89, 40)] {
        let mut speaker = Speaker::new(PAIR, proto, &[name::LEN]);
        assert_eq!(speaker.frame(&[20]).1, Repairs::LENGTH, "{proto}");
        let (frame, repairs) = speaker.frame(&[least]);
        assert_eq!((frame.len() - 14, repairs), (least as usize, Repairs::NONE), "{proto}");
        let (frame, repairs) = speaker.frame(&[least - 1]);
        assert_eq!((frame.len() - 14, repairs), (least as usize, Repairs::LENGTH), "{proto}");
    }
}

#[test]
fn echoes_are_those_of_the_version() {
    for (pair, proto, at, kinds) in [
        (PAIR, 58, 54, [128, 129]),
        (PAIR, 1, 54, [128, 129]),
        (["10.0.0.1", "10.0.0.2"], 1, 34, [8, 0]),
        (["10.0.0.1", "10.0.0.2"], 58, 34, [8, 0]),
    ] {
        let mut speaker = Speaker::new(pair, proto, &[name::LEN, name::DIRECTION]);
        let (request, repairs) = speaker.frame(&[104, 0]);
        let reply = speaker.frame(&[104, 1]).0;
        assert_eq!([request[at], reply[at]], kinds);
        assert_eq!(request[at + 4..at + 8], reply[at + 4..at + 8]);
        let changed = (proto == 58) != (at == 54);
        assert_eq!(repairs, if changed { Repairs::PROTOCOL } else { Repairs::NONE });
    }
    // Without addresses of IPv6, a protocol of any number is only a number.
    let mut conversation = Conversation::new(58, &[name::LEN]);
    let (frame, repairs) = conversation.frame(&[84]);
    assert_eq!((frame[23], repairs), (58, Repairs::NONE));
}

#[test]
fn fragments_have_a_header_of_their_own() {
    let mut speaker = Speaker::new(PAIR, 17, &[name::LEN, name::FLAG, name::OFF, name::ID]);
    let mut say = |len, flag, off| {
        let (frame, repairs) = speaker.frame(&[len, flag, off, 7]);
        let is_fragment = frame[20] == FRAGMENT;
        let word = u16::from_be_bytes([frame[56], frame[57]]);
        (is_fragment.then_some((word >> 3, word & 1)), frame.len() - 14, repairs)
    };
    assert_eq!(say(1480, 0, 0), (None, 1480, Repairs::NONE));
    assert_eq!(say(1480, 2, 0), (None, 1480, Repairs::FRAGMENT), "IPv6 has no such flag");
    assert_eq!(say(1480, 1, 0), (Some((0, 1)), 1480, Repairs::NONE));
    assert_eq!(say(1480, 1, 179), (Some((179, 1)), 1480, Repairs::NONE));
    assert_eq!(say(53, 0, 358), (Some((358, 0)), 53, Repairs::NONE));
    assert_eq!(say(1479, 1, 0), (Some((0, 0)), 1479, Repairs::FRAGMENT));
    assert_eq!(say(40, 0, 9), (Some((9, 0)), 48, Repairs::LENGTH));
}

#[test]
fn a_packet_is_of_one_version() {
    let mut speaker = Speaker::new(["2001:db8::1", "10.0.0.2"], 17, &[name::LEN]);
    let (frame, repairs) = speaker.frame(&[100]);
    let ip = Ipv6HeaderSlice::from_slice(&frame[14..]).unwrap();
    assert_eq!(ip.destination_addr().to_string(), "64:ff9b::a00:2");
    assert_eq!(repairs, Repairs::VERSION);
}

#[test]
fn mapped_addresses_are_in_every_checksum() {
    let maps = ["10.0.0.0/8=192.0.2.0/24", "2001:db8::/32=fd00:1::/48"];
    let options = PacketOptions {
        map: crate::prefix::AddressMap(maps.map(|map| map.parse().unwrap()).into()),
        ..PacketOptions::default()
    };
    let schema = both(&[name::LEN, name::DIRECTION]);
    let mut render = PacketRender::new(&schema, options).unwrap();
    for (from, to, mapped) in [
        ("10.1.2.3", "10.9.8.7", ["192.0.2.3", "192.0.2.7"]),
        ("2001:db8:5:6::1", "2620::7", ["fd00:1:0:6::1", "2620::7"]),
        ("10.1.2.3", "8.8.8.8", ["192.0.2.3", "8.8.8.8"]),
    ] {
        for protocol in [TCP, UDP, ICMP, 47] {
            let ports = [40_000, 80, i64::from(protocol)].map(Value::Int);
            let attributes = [[address(from), address(to)].as_slice(), &ports].concat();
            let mut flow = render.begin_flow(1, &attributes);
            for side in [0, 1] {
                let frame = render.record(&mut flow, 0, &ints(&[200, side]));
                check_either(&bytes(&render, &frame));
                let (is_v6, number) = frame.destination();
                let found = crate::prefix::address_of(is_v6, number).to_string();
                assert_eq!(
                    (found.as_str(), frame.side()),
                    (mapped[1 - side as usize], side as usize)
                );
            }
        }
    }
}
