//! etherparse is the oracle: every frame re-parses, every checksum is right.

use etherparse::{Icmpv4Slice, Ipv4HeaderSlice, TcpHeaderSlice, TcpOptionElement, UdpHeaderSlice};
use ns_model_format::codec::{BitCodec, CategoricalCodec, Codec, FloatCodec, FloatOptions};
use ns_model_format::schema::{TimeEncoding, TimeUnit, Timestamp, packet_field as name};
use ns_model_format::{Column, Field, FieldKind};
use proptest::prelude::*;

use super::*;

mod ipv6;

const ATTRIBUTES: [&str; 5] =
    [name::SRC_IP, name::DST_IP, name::SRC_PORT, name::DST_PORT, name::PROTO];

fn field(name: &str) -> Field {
    let codec = Codec::Bit(BitCodec::new(name, 32).unwrap());
    Field { name: name.to_owned(), kind: FieldKind::Integer, codec, missing: None }
}

fn schema(conversations: bool, measurements: &[&str]) -> Schema {
    let time = Column::floats("time", vec![0.0, 1.0]);
    Schema {
        kind: TraceKind::Packets,
        columns: Vec::new(),
        timestamp: Timestamp {
            column: "time".to_owned(),
            unit: TimeUnit::Seconds,
            decimals: 6,
            encoding: TimeEncoding::Interarrival,
            codec: Codec::Float(FloatCodec::fit(&time, FloatOptions::default()).unwrap()),
            datetime: None,
        },
        conversations,
        attributes: ATTRIBUTES.map(field).into(),
        measurements: measurements.iter().map(|name| field(name)).collect(),
        self_norm: false,
        distinct: None,
        longest: None,
        segmentation: None,
        spanning: None,
        word2vec: Default::default(),
    }
}

fn ints(values: &[i64]) -> Vec<Value> {
    values.iter().map(|&value| Value::Int(value)).collect()
}

/// The whole frame.
fn bytes(render: &PacketRender, frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.append_to(render.payload(), usize::MAX, &mut out);
    out
}

/// Checks a frame against the oracle; returns its IPv4 header and what follows.
fn check(frame: &[u8]) -> (Ipv4HeaderSlice<'_>, &[u8]) {
    let ip = Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap();
    let header = ip.to_header();
    assert_eq!(usize::from(ip.total_len()), frame.len() - 14, "total length");
    assert_eq!(header.header_checksum, header.calc_header_checksum(), "header checksum");
    assert!(ip.ttl() > 0);
    let offset = usize::from(ip.fragments_offset().value());
    assert!(!(ip.dont_fragment() && (ip.more_fragments() || offset > 0)));
    assert!(offset * 8 + usize::from(ip.total_len()) <= 65_535);
    let rest = &frame[34..];
    if ip.more_fragments() {
        assert_eq!(rest.len() % 8, 0);
    }
    if offset > 0 {
        return (ip, rest);
    }
    match ip.protocol().0 {
        TCP => {
            let tcp = TcpHeaderSlice::from_slice(rest).unwrap();
            let payload = &rest[tcp.slice().len()..];
            let expected = tcp.calc_checksum_ipv4(&ip, payload).unwrap();
            assert_eq!(tcp.checksum(), expected, "tcp checksum");
            assert!(tcp.options_iterator().all(|option| option.is_ok()), "options");
            if tcp.syn() {
                assert!(payload.is_empty() && !tcp.fin() && !tcp.rst());
            } else {
                let mut options = tcp.options_iterator().map(|option| option.unwrap());
                use TcpOptionElement::{Noop, Timestamp};
                let stamped = options.clone().any(|option| matches!(option, Timestamp(..)));
                assert!(options.all(|option| matches!(option, Noop | Timestamp(..))));
                let most = if stamped { 32 } else { 20 };
                assert!(payload.is_empty() || tcp.slice().len() == most);
            }
            assert!(tcp.ack() || tcp.syn() || tcp.rst());
            assert!(tcp.ack() || tcp.acknowledgment_number() == 0);
        }
        UDP => {
            let udp = UdpHeaderSlice::from_slice(rest).unwrap();
            assert_eq!(usize::from(udp.length()), rest.len());
            let expected = udp.to_header().calc_checksum_ipv4(&ip.to_header(), &rest[8..]);
            assert_ne!(udp.checksum(), 0);
            assert_eq!(udp.checksum(), expected.unwrap(), "udp checksum");
        }
        ICMP => {
            let icmp = Icmpv4Slice::from_slice(rest).unwrap();
            let expected = icmp.icmp_type().calc_checksum(icmp.payload());
            assert_eq!(icmp.checksum(), expected, "icmp checksum");
        }
        protocol => check_other(protocol, &frame[26..34], rest),
    }
    (ip, rest)
}

/// Checks what etherparse does not know, between these addresses.
fn check_other(protocol: u8, addresses: &[u8], rest: &[u8]) {
    match protocol {
        DCCP | UDP_LITE => {
            let pseudo = [addresses, &[0, protocol]].concat();
            let words =
                [pseudo, (rest.len() as u16).to_be_bytes().to_vec(), rest.to_vec()].concat();
            let word =
                |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
            let sum = words.chunks(2).map(word).sum::<u64>();
            assert_eq!(sum % 0xffff, 0, "checksum");
            // Zero would say that there is none.
            assert!(protocol != UDP_LITE || rest[6..8] != [0, 0]);
            if protocol == DCCP {
                assert_eq!((rest[4], rest[8]), (4, 2 << 1 | 1), "words of header, data");
            }
        }
        SCTP => {
            let chunk = usize::from(u16::from_be_bytes([rest[14], rest[15]]));
            assert_eq!((rest.len() % 4, chunk), (0, rest.len() - 12));
            assert!(rest[12] != 0 || chunk > 16, "data of no bytes");
            // CRC-32C bit by bit, lowest first, of all but itself.
            let bytes = rest.iter().enumerate();
            let bytes = bytes.map(|(at, &byte)| if (8..12).contains(&at) { 0 } else { byte });
            let crc = bytes.fold(u32::MAX, |crc, byte| {
                let of_bit = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
                (0..8).fold(crc ^ u32::from(byte), of_bit)
            });
            assert_eq!(u32::from_le_bytes([rest[8], rest[9], rest[10], rest[11]]), !crc);
        }
        _ => {}
    }
}

const ALL_MEASURED: [&str; 9] = [
    name::LEN,
    name::TOS,
    name::ID,
    name::FLAG,
    name::OFF,
    name::TTL,
    name::TCP_FLAGS,
    name::TCP_WINDOW,
    name::DIRECTION,
];

/// Numbers as a model would give them, and as it should not.
fn number(most: i64) -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (0..=most).prop_map(Value::Int),
        1 => any::<f64>().prop_map(Value::Float),
        1 => any::<i64>().prop_map(Value::Int),
        1 => any::<u32>().prop_map(Value::Text),
        4 => (0..=most.min(64)).prop_map(Value::Int),
    ]
}

fn measured() -> impl Strategy<Value = Vec<Value>> {
    let usual_off = prop_oneof![4 => Just(Value::Int(0)), 1 => number(8191)];
    (
        (number(1600), number(255), number(65_535), number(7), usual_off),
        (number(255), number(255), number(65_535), number(1)),
    )
        .prop_map(|((a, b, c, d, e), (f, g, h, i))| vec![a, b, c, d, e, f, g, h, i])
}

fn attributes() -> impl Strategy<Value = Vec<Value>> {
    let proto = prop_oneof![
        4 => Just(Value::Int(6)),
        2 => Just(Value::Int(17)),
        1 => Just(Value::Int(1)),
        2 => prop::sample::select(vec![33, 132, 136]).prop_map(Value::Int),
        1 => number(255),
    ];
    let (ip, port) = (i64::from(u32::MAX), 65_535);
    (number(ip), number(ip), number(port), number(port), proto)
        .prop_map(|(a, b, c, d, e)| vec![a, b, c, d, e])
}

proptest! {
    #[test]
    fn every_frame_parses_with_right_lengths_and_checksums(
        flow in any::<u64>(),
        seed in any::<u64>(),
        attributes in attributes(),
        records in prop::collection::vec(measured(), 1..12),
        filler in 0..4,
        lacking in 0..9_usize,
        cut in 20..1600_u16,
    ) {
        let payload = match filler {
            0 => Payload::quiet(),
            1 => Payload::zero(),
            2 => Payload::random(seed),
            _ => Payload::repeating(b"abc"),
        };
        let mut names = ALL_MEASURED.to_vec();
        names.remove(lacking);
        let options = PacketOptions { seed, payload, ..PacketOptions::default() };
        let mut render = PacketRender::new(&schema(true, &names), options).unwrap();
        let mut state = render.begin_flow(flow, &attributes);
        for (index, mut record) in records.into_iter().enumerate() {
            record.remove(lacking);
            let frame = render.record(&mut state, index as u64 * 1_000_000, &record);
            let whole = bytes(&render, &frame);
            prop_assert_eq!(whole.len(), frame.len());
            check(&whole);
            if let Some(short) = frame.shortened(cut, render.payload()) {
                let whole = bytes(&render, &short);
                prop_assert!(whole.len() - 14 <= usize::from(cut) || short == frame);
                if !Ipv4HeaderSlice::from_slice(&whole[14..]).unwrap().more_fragments() {
                    check(&whole);
                }
            }
        }
    }

    #[test]
    fn the_same_values_give_the_same_frames(
        attributes in attributes(),
        records in prop::collection::vec(measured(), 1..6),
    ) {
        let render = PacketRender::new(&schema(true, &ALL_MEASURED), PacketOptions::default());
        let mut one = render.unwrap();
        let mut other = one.clone();
        other.begin_flow(8, &attributes);
        let (mut a, mut b) = (one.begin_flow(7, &attributes), other.begin_flow(7, &attributes));
        for record in &records {
            prop_assert_eq!(one.record(&mut a, 5, record), other.record(&mut b, 5, record));
        }
    }
}

struct Conversation {
    render: PacketRender,
    flow: PacketFlow,
}

/// What a TCP frame says.
#[derive(Debug, PartialEq)]
struct Said {
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
    payload: usize,
    repairs: Repairs,
}

impl Conversation {
    fn new(proto: i64, names: &[&str]) -> Conversation {
        let mut render = PacketRender::new(&schema(true, names), PacketOptions::default()).unwrap();
        let attributes = ints(&[0x0a00_0001, 0x0a00_0002, 40_000, 80, proto]);
        let flow = render.begin_flow(1, &attributes);
        Conversation { render, flow }
    }

    fn frame(&mut self, values: &[i64]) -> (Vec<u8>, Repairs) {
        let frame = self.render.record(&mut self.flow, 0, &ints(values));
        let whole = bytes(&self.render, &frame);
        check(&whole);
        (whole, frame.repairs())
    }

    fn tcp(&mut self, values: &[i64]) -> Said {
        let (frame, repairs) = self.frame(values);
        let tcp = TcpHeaderSlice::from_slice(&frame[34..]).unwrap();
        Said {
            flags: frame[47],
            sequence: tcp.sequence_number(),
            acknowledgement: tcp.acknowledgment_number(),
            payload: frame.len() - 34 - tcp.slice().len(),
            repairs,
        }
    }
}

const FLAGGED: [&str; 3] = [name::LEN, name::DIRECTION, name::TCP_FLAGS];

#[test]
fn numbers_follow_the_payloads_of_both_sides() {
    let mut conversation = Conversation::new(6, &FLAGGED);
    let mut say = |len, direction, flags| conversation.tcp(&[len, direction, flags]);
    let syn = say(52, 0, 2);
    let answer = say(52, 1, 0x12);
    let ack = say(40, 0, 0x10);
    let request = say(140, 0, 0x18);
    let response = say(1500, 1, 0x10);
    let more = say(540, 1, 0x18);
    let end = say(40, 1, 0x11);
    let bye = say(40, 0, 0x11);
    let last = say(40, 1, 0x10);
    let (a, b) = (syn.sequence, answer.sequence);
    let said = |flags, sequence: u32, acknowledgement, payload| Said {
        flags,
        sequence,
        acknowledgement,
        payload,
        repairs: Repairs::NONE,
    };
    assert_eq!(syn, said(2, a, 0, 0));
    assert_eq!(answer, said(0x12, b, a + 1, 0));
    assert_eq!(ack, said(0x10, a + 1, b + 1, 0));
    assert_eq!(request, said(0x18, a + 1, b + 1, 100));
    assert_eq!(response, said(0x10, b + 1, a + 101, 1460));
    assert_eq!(more, said(0x18, b + 1461, a + 101, 500));
    assert_eq!(end, said(0x11, b + 1961, a + 101, 0));
    assert_eq!(bye, said(0x11, a + 101, b + 1962, 0));
    assert_eq!(last, said(0x10, b + 1962, a + 102, 0));
}

#[test]
fn what_is_acknowledged_after_a_fin_carries_options_not_data() {
    let mut conversation = Conversation::new(6, &FLAGGED);
    let mut say = |len, direction, flags| conversation.tcp(&[len, direction, flags]);
    say(140, 0, 0x18);
    let end = say(52, 0, 0x11);
    let more = say(540, 1, 0x18);
    // Twelve bytes as of timestamps, the same again, and no options at all.
    let acks = [52, 52, 40].map(|len| say(len, 0, 0x10));
    for ack in acks {
        assert_eq!((ack.flags, ack.payload, ack.repairs), (0x10, 0, Repairs::NONE));
        assert_eq!(ack.sequence, end.sequence + 1);
        assert_eq!(ack.acknowledgement, more.sequence + 488);
    }
    // Data is another thing: it is sent again, and counted.
    let again = say(1500, 0, 0x10);
    assert_eq!((again.payload, again.repairs), (1448, Repairs::TCP_ORDER));
    assert_eq!(again.sequence, end.sequence.wrapping_sub(1448));
    let pushed = say(60, 0, 0x18);
    assert_eq!((pushed.payload, pushed.repairs), (8, Repairs::TCP_ORDER));
}

#[test]
fn segments_carry_timestamps_where_both_syns_did() {
    let run = |lens: [i64; 2]| {
        let mut conversation = Conversation::new(6, &FLAGGED);
        let packets = [
            [lens[0], 0, 0x02],
            [lens[1], 1, 0x12],
            [52, 0, 0x10],
            [152, 0, 0x18],
            [52, 1, 0x10],
            [40, 1, 0x04],
        ];
        packets.map(|values| {
            let (frame, repairs) = conversation.frame(&values);
            let tcp = TcpHeaderSlice::from_slice(&frame[34..]).unwrap().to_header();
            let stamps = tcp.options_iterator().find_map(|option| match option {
                Ok(TcpOptionElement::Timestamp(value, echo)) => Some((value, echo)),
                _ => None,
            });
            assert_eq!((frame.len() - 14, repairs), (values[0] as usize, Repairs::NONE));
            (stamps, frame.len() - 34 - tcp.header_len())
        })
    };
    let [first, answer, ack, data, its_ack, reset] = run([60, 60]);
    let stamp = |packet: (Option<(u32, u32)>, usize)| packet.0.unwrap();
    assert_eq!(stamp(first).1, 0);
    assert_eq!(stamp(answer).1, stamp(first).0);
    assert_eq!((stamp(ack).1, ack.1), (stamp(answer).0, 0));
    assert_eq!((stamp(data).1, data.1), (stamp(answer).0, 100));
    assert_eq!((stamp(its_ack).1, its_ack.1), (stamp(data).0, 0));
    assert_eq!(reset, (None, 0));
    for lens in [[60, 52], [52, 60], [40, 40]] {
        let packets = run(lens).map(|packet| (packet.0.is_some(), packet.1));
        assert_eq!(packets[2..5], [(false, 12), (false, 112), (false, 12)], "{lens:?}");
    }
}

#[test]
fn acknowledgements_say_something_new_or_move_the_window() {
    let acks = |packets: &[[i64; 3]]| -> Vec<(u32, u16)> {
        let mut conversation = Conversation::new(6, &FLAGGED);
        let frames = packets.iter().map(|values| conversation.frame(values).0);
        let headers =
            frames.map(|frame| TcpHeaderSlice::from_slice(&frame[34..]).unwrap().to_header());
        headers.map(|tcp| (tcp.acknowledgment_number, tcp.window_size)).collect()
    };
    let (data, push, ack, end) = ([540, 1, 0x10], [540, 1, 0x18], [40, 0, 0x10], [40, 1, 0x11]);
    // Each of three acknowledges a part; with data, all is acknowledged at once.
    let said = acks(&[[140, 0, 0x18], data, data, data, push, ack, ack, ack, ack]);
    let steps = said[5..].windows(2).map(|pair| pair[1].0.wrapping_sub(pair[0].0));
    assert_eq!(steps.collect::<Vec<_>>(), [500, 500, 0]);
    assert_ne!(said[7].1, said[8].1);
    let said = acks(&[[140, 0, 0x18], ack, data, data, push, [140, 0, 0x18]]);
    assert_eq!(said[5].0.wrapping_sub(said[1].0), 1500);
    // The last of a connection acknowledges its end.
    let said = acks(&[[140, 0, 0x18], ack, data, end, [40, 0, 0x11], ack]);
    assert_eq!(said[5].0.wrapping_sub(said[1].0), 501);
    // What the trace does not show is there all the same.
    let said = acks(&[[52, 0, 2], ack, ack, ack]);
    let steps = said[1..].windows(2).map(|pair| pair[1].0.wrapping_sub(pair[0].0));
    assert_eq!(steps.collect::<Vec<_>>(), [2896, 2896]);
}

#[test]
fn a_flow_that_begins_in_its_middle_shows_whether_it_has_timestamps() {
    let mut conversation = Conversation::new(6, &FLAGGED);
    let mut say = |len, direction, flags| conversation.tcp(&[len, direction, flags]).payload;
    assert_eq!(say(140, 0, 0x18), 100);
    assert_eq!(say(52, 1, 0x10), 0);
    assert_eq!(say(140, 0, 0x18), 88);
    assert_eq!(say(52, 0, 0x18), 0);
    // No room for them.
    assert_eq!(say(45, 0, 0x18), 5);
}

#[test]
fn flags_that_the_model_lacks_follow_a_legal_order() {
    let mut conversation = Conversation::new(6, &[name::LEN, name::DIRECTION]);
    let flags: Vec<u8> = [[52, 0], [52, 1], [40, 0], [140, 0], [1500, 1], [40, 0]]
        .iter()
        .map(|values| conversation.tcp(values).flags)
        .collect();
    assert_eq!(flags, [0x02, 0x12, 0x10, 0x18, 0x18, 0x10]);
    // A flow that begins with data began before the capture.
    let mut conversation = Conversation::new(6, &[name::LEN, name::DIRECTION]);
    assert_eq!(conversation.tcp(&[1500, 0]).flags, 0x18);
    assert_eq!(conversation.tcp(&[53, 1]).flags, 0x18);
    // As long as an acknowledgement with timestamps.
    assert_eq!(conversation.tcp(&[52, 1]).flags, 0x10);
}

#[test]
fn only_illegal_flags_are_repaired() {
    let repaired = |past: &[[i64; 3]], values: [i64; 3]| {
        let mut conversation = Conversation::new(6, &FLAGGED);
        for values in past {
            conversation.tcp(values);
        }
        let said = conversation.tcp(&values);
        (said.flags, said.repairs)
    };
    let (flags, order) = (Repairs::TCP_FLAGS, Repairs::TCP_ORDER);
    let open: [[i64; 3]; 3] = [[60, 0, 2], [60, 1, 0x12], [40, 0, 0x10]];
    // A combination that no packet has.
    assert_eq!(repaired(&[], [40, 0, 0]), (0x10, flags));
    assert_eq!(repaired(&[], [40, 0, 0x03]), (0x02, flags));
    assert_eq!(repaired(&open, [40, 0, 0x03]), (0x11, flags));
    assert_eq!(repaired(&open, [40, 0, 0x06]), (0x04, flags));
    assert_eq!(repaired(&open, [40, 0, 0x15]), (0x14, flags));
    assert_eq!(repaired(&open, [40, 0, 0x01]), (0x11, flags));
    // A combination that may not follow.
    assert_eq!(repaired(&open, [40, 0, 0x02]), (0x10, order));
    assert_eq!(repaired(&[[60, 0, 2]], [60, 1, 0x02]), (0x12, order));
    let reset = [open[0], open[1], open[2], [40, 0, 0x14]];
    assert_eq!(repaired(&reset, [140, 0, 0x18]), (0x14, order));
    // Legal, however rare.
    for said in [[1500, 0, 0x10], [40, 0, 0x04], [40, 0, 0x11], [60, 0, 0x12], [40, 0, 0xc2]] {
        assert_eq!(repaired(&[], said), (said[2] as u8, Repairs::NONE));
    }
    assert_eq!(repaired(&[[60, 0, 2]], [60, 0, 2]), (2, Repairs::NONE));
    assert_eq!(repaired(&open[..2], [60, 0, 2]), (2, Repairs::NONE));
    assert_eq!(repaired(&reset, [60, 0, 2]), (2, Repairs::NONE));
    assert_eq!(repaired(&reset, [140, 1, 0x18]), (0x18, Repairs::NONE));
}

#[test]
fn a_syn_sent_again_keeps_its_number_and_a_new_one_does_not() {
    let mut conversation = Conversation::new(6, &FLAGGED);
    let first = conversation.tcp(&[60, 0, 2]);
    assert_eq!(conversation.tcp(&[60, 0, 2]), first);
    conversation.tcp(&[40, 1, 0x14]);
    let again = conversation.tcp(&[60, 0, 2]);
    assert_eq!((again.flags, again.repairs), (2, Repairs::NONE));
    assert_ne!(again.sequence, first.sequence);
    assert_eq!(conversation.tcp(&[60, 1, 0x12]).acknowledgement, again.sequence.wrapping_add(1));
}

#[test]
fn data_after_a_fin_is_sent_again() {
    let mut conversation = Conversation::new(6, &FLAGGED);
    let data = conversation.tcp(&[140, 0, 0x18]);
    let fin = conversation.tcp(&[40, 0, 0x11]);
    let again = conversation.tcp(&[140, 0, 0x18]);
    assert_eq!((again.sequence, again.repairs), (data.sequence, Repairs::TCP_ORDER));
    assert_eq!(conversation.tcp(&[40, 0, 0x11]), fin);
    assert_eq!(conversation.tcp(&[40, 0, 0x10]).sequence, fin.sequence + 1);
}

#[test]
fn a_syn_keeps_its_length_by_options() {
    use TcpOptionElement as Option;
    let options = |len, flags: i64| {
        let mut conversation = Conversation::new(6, &FLAGGED);
        if flags & 0x10 != 0 {
            conversation.tcp(&[60, 0, 2]);
        }
        let (frame, repairs) = conversation.frame(&[len, flags >> 4 & 1, flags]);
        let tcp = TcpHeaderSlice::from_slice(&frame[34..]).unwrap().to_header();
        let options: Vec<Option> = tcp.options_iterator().map(|option| option.unwrap()).collect();
        (frame.len() - 14, options, repairs.is_none())
    };
    let mss = Option::MaximumSegmentSize(1460);
    let (nop, sack, scale) =
        (Option::Noop, Option::SelectiveAcknowledgementPermitted, Option::WindowScale(7));
    assert_eq!(options(40, 2), (40, vec![], true));
    assert_eq!(options(44, 2), (44, vec![mss.clone()], true));
    let eight = vec![mss.clone(), nop.clone(), nop.clone(), sack.clone()];
    assert_eq!(options(48, 2), (48, eight.clone(), true));
    let twelve = [&eight[..], &[nop.clone(), scale.clone()]].concat();
    assert_eq!(options(52, 2), (52, twelve.clone(), true));
    let (len, all, as_modelled) = options(60, 2);
    assert_eq!((len, all.len(), as_modelled), (60, 5, true));
    assert!(matches!(all[2], Option::Timestamp(_, 0)));
    let (len, all, _) = options(60, 0x12);
    assert_eq!((len, all.len(), &all[3..]), (60, 5, &[nop.clone(), scale.clone()][..]));
    assert!(matches!(all[2], Option::Timestamp(..)));
    // One that has no room for timestamps accepts none.
    assert_eq!(options(52, 0x12), (52, twelve.clone(), true));
    // What no SYN can have.
    assert_eq!(options(1500, 2).0, 60);
    assert_eq!((options(1500, 2).2, options(45, 2).2), (false, false));
    assert_eq!(options(45, 2).0, 48);
}

#[test]
fn a_conversation_begins_with_its_source() {
    let mut conversation = Conversation::new(17, &[name::LEN, name::DIRECTION]);
    let (first, repairs) = conversation.frame(&[100, 1]);
    assert_eq!((&first[26..30], repairs), (&[10, 0, 0, 1][..], Repairs::DIRECTION));
    let (second, repairs) = conversation.frame(&[100, 1]);
    assert_eq!((&second[26..30], repairs), (&[10, 0, 0, 2][..], Repairs::NONE));
    assert_eq!((&second[..6], &second[6..12]), (&DEFAULT_SOURCE[..], &DEFAULT_DESTINATION[..]));
    assert_eq!(second[34..38], [0, 80, 0x9c, 0x40]);
}

#[test]
fn echoes_are_answered() {
    let mut conversation = Conversation::new(1, &[name::LEN, name::DIRECTION]);
    let request = conversation.frame(&[84, 0]).0;
    let reply = conversation.frame(&[84, 1]).0;
    assert_eq!((request[34], reply[34]), (8, 0));
    assert_eq!(request[38..42], reply[38..42], "identifier and sequence number");
    assert_eq!(request.len(), 98);
}

#[test]
fn sctp_is_cut_to_chunks_that_have_data() {
    let names = [name::PAYLOAD_LEN];
    let mut render = PacketRender::new(&schema(true, &names), PacketOptions::default()).unwrap();
    let mut flow = render.begin_flow(1, &ints(&[1, 2, 5000, 2905, i64::from(SCTP)]));
    let frame = render.record(&mut flow, 0, &ints(&[61]));
    // 12 bytes of SCTP's header and 61 more, in words of 4.
    assert_eq!(frame.len(), 14 + 20 + 76);
    let cut = |most: u16| frame.shortened(most, render.payload()).map(|short| short.len() - 14);
    assert_eq!([90, 55, 52, 51].map(cut), [Some(88), Some(52), Some(52), None]);
}

#[test]
fn fragments_are_legal_ones() {
    let names = [name::LEN, name::FLAG, name::OFF];
    let mut conversation = Conversation::new(17, &names);
    let mut say = |len, flag, off| {
        let (frame, repairs) = conversation.frame(&[len, flag, off]);
        (u16::from_be_bytes([frame[20], frame[21]]), frame.len() - 14, repairs)
    };
    assert_eq!(say(1500, 2, 0), (0x4000, 1500, Repairs::NONE));
    assert_eq!(say(1500, 1, 0), (0x2000, 1500, Repairs::NONE));
    assert_eq!(say(1500, 1, 185), (0x20b9, 1500, Repairs::NONE));
    assert_eq!(say(21, 0, 370), (0x0172, 21, Repairs::NONE));
    assert_eq!(say(1500, 3, 0), (0x2000, 1500, Repairs::FRAGMENT));
    assert_eq!(say(1500, 2, 185), (0x00b9, 1500, Repairs::FRAGMENT));
    assert_eq!(say(1499, 1, 0), (0, 1499, Repairs::FRAGMENT));
    assert_eq!(say(1500, 0, 8191), (8004, 1500, Repairs::FRAGMENT));
    assert_eq!(say(65_535, 0, 1), (1, 65_527, Repairs::LENGTH));
    assert_eq!(say(1500, 6, 0), (0x4000, 1500, Repairs::FRAGMENT));
}

#[test]
fn protocols_may_be_names() {
    let words = ["Icmp", "TCP", "udp", "47", "what"].map(str::to_owned).to_vec();
    let mut schema = schema(false, &[name::LEN]);
    let column = Column::texts("proto", words);
    schema.attributes[4].codec = Codec::Categorical(CategoricalCodec::fit(&column, None).unwrap());
    let mut render = PacketRender::new(&schema, PacketOptions::default()).unwrap();
    for index in 0..5 {
        let attributes = [ints(&[1, 2, 3, 4]), vec![Value::Text(index)]].concat();
        let mut flow = render.begin_flow(0, &attributes);
        let frame = render.record(&mut flow, 0, &ints(&[100]));
        let expected = match schema.attributes[4].codec.word(index) {
            "Icmp" => (ICMP, Repairs::NONE),
            "TCP" => (TCP, Repairs::NONE),
            "udp" => (UDP, Repairs::NONE),
            "47" => (47, Repairs::NONE),
            _ => (UDP, Repairs::PROTOCOL),
        };
        assert_eq!((bytes(&render, &frame)[23], frame.repairs()), expected);
    }
}

#[test]
fn rows_are_no_packets() {
    let mut rows = schema(false, &[]);
    rows.kind = TraceKind::Netflow;
    assert!(PacketRender::new(&rows, PacketOptions::default()).is_err());
}

/// How long a packet takes; run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "prints a time, checks nothing"]
fn time_a_packet() {
    for proto in [6, 17] {
        let mut render =
            PacketRender::new(&schema(true, &ALL_MEASURED), PacketOptions::default()).unwrap();
        let mut flow = render.begin_flow(1, &ints(&[1, 2, 3, 4, proto]));
        let records: Vec<Vec<Value>> =
            (0..64).map(|i| ints(&[40 + i * 22, 0, i, 2, 0, 64, 0x10, 64_240, i % 2])).collect();
        // The best of many short runs: others share the machine.
        let rounds = 100;
        let mut best = f64::INFINITY;
        for _ in 0..5_000 {
            let begin = std::time::Instant::now();
            for round in 0..rounds {
                for record in &records {
                    std::hint::black_box(render.record(&mut flow, round, record));
                }
            }
            best = best.min(begin.elapsed().as_nanos() as f64 / (rounds * 64) as f64);
        }
        println!("protocol {proto}: {best:.1} ns a packet");
    }
}
