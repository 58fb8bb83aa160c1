//! Group 4: protocols going their way.
//!
//! The first four are NetShare's consistency tests (SIGCOMM '22, appendix):
//! valid addresses, bytes against packets, ports against protocols, smallest sizes.

use std::net::Ipv6Addr;

use ns_model_format::schema::{TraceKind, packet_field};

use super::distance::{Distance, Statistic};
use super::measure::{Group, Labels, Measure, Picture};
use super::sample::Sample;
use super::table::{Frame, TupleColumns};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Services that are spoken over one transport protocol, by port (IANA); those
/// that are spoken over both (DNS, and HTTP since QUIC) are not among them.
const SERVICES: [(i64, u8); 16] = [
    (22, TCP),
    (25, TCP),
    (21, TCP),
    (23, TCP),
    (110, TCP),
    (143, TCP),
    (445, TCP),
    (3389, TCP),
    (123, UDP),
    (161, UDP),
    (67, UDP),
    (68, UDP),
    (1900, UDP),
    (5353, UDP),
    (137, UDP),
    (138, UDP),
];
/// Services that are spoken over TCP and UDP, and over nothing else.
const EITHER: [i64; 3] = [53, 80, 443];

/// A share of what was looked at; none if that is nothing.
fn share(of: impl Iterator<Item = bool>) -> Statistic {
    let (mut yes, mut all) = (0_u64, 0_u64);
    for holds in of {
        yes += u64::from(holds);
        all += 1;
    }
    Statistic::figure(if all == 0 { f64::NAN } else { yes as f64 / all as f64 })
}

fn rate(
    name: &str,
    label: &str,
    of: impl Fn(&Sample<'_>) -> Statistic + Send + Sync + 'static,
) -> Measure {
    Measure::new(Group::Protocol, name, label, "share", &[Distance::Absolute], of)
}

/// What is measured of protocols.
pub(super) fn measures(frame: &Frame) -> Vec<Measure> {
    let Some(tuple) = frame.tuple else { return Vec::new() };
    let mut all = vec![valid_addresses(tuple), ports(tuple)];
    all.extend(bytes_of_packets(frame, tuple));
    let length = frame.column(packet_field::LEN);
    if let (TraceKind::Packets, Some(length)) = (frame.kind, length) {
        all.push(smallest_lengths(tuple, length));
        all.extend(frame.column(packet_field::OFF).map(fragments));
        if let Some(flags) = frame.column(packet_field::TCP_FLAGS) {
            all.extend(tcp(tuple, flags));
        }
    }
    all
}

/// NetShare's test 1: a source is neither multicast (RFC 5771) nor 255/8, a
/// destination is not in 0/8 (RFC 1122). Of IPv6 a source is not multicast, a
/// destination not unspecified (RFC 4291).
fn valid_addresses(tuple: TupleColumns) -> Measure {
    rate("valid_addresses", "packets and records with valid addresses", move |sample| {
        let of = |column: usize, v4: fn(i64) -> bool, v6: fn(Ipv6Addr) -> bool| -> Vec<bool> {
            let column = &sample.frame.columns[column];
            // What is no address is not judged.
            let valid = |id| match column.ipv6(id) {
                Some(address) => v6(address),
                None => column.number(id).is_none_or(|address| v4(address >> 24)),
            };
            (0..column.values.len() as u32).map(valid).collect()
        };
        let is_source = |top: i64| top >> 4 != 14 && top != 255;
        let sources = of(tuple.src_ip, is_source, |address| !address.is_multicast());
        let destinations = of(tuple.dst_ip, |top| top != 0, |address| !address.is_unspecified());
        share(sample.rows.iter().map(|&row| {
            sources[sample.id(tuple.src_ip, row) as usize]
                && destinations[sample.id(tuple.dst_ip, row) as usize]
        }))
    })
}

/// Bytes of the shortest IP header of a record's version.
fn ip_header(sample: &Sample<'_>, tuple: TupleColumns, row: u32) -> f64 {
    if is_v6(sample, tuple, row) { 40.0 } else { 20.0 }
}

fn is_v6(sample: &Sample<'_>, tuple: TupleColumns, row: u32) -> bool {
    let source = &sample.frame.columns[tuple.src_ip];
    source.ipv6(sample.id(tuple.src_ip, row)).is_some()
}

/// NetShare's test 2: as many bytes as so many packets can have.
fn bytes_of_packets(frame: &Frame, tuple: TupleColumns) -> Option<Measure> {
    let (packets, bytes) = (frame.record.packets?, frame.record.bytes?);
    Some(rate(
        "bytes_of_packets",
        "records with as many bytes as their packets allow",
        move |sample| {
            share(sample.rows.iter().map(|&row| {
                let (packets, bytes) = (sample.number(packets, row), sample.number(bytes, row));
                let least = match sample.frame.proto(sample.id(tuple.proto, row)) {
                    Some(TCP) => 20.0,
                    Some(UDP) => 8.0,
                    _ => 0.0,
                };
                let least = least + ip_header(sample, tuple, row);
                least * packets <= bytes && bytes <= 65535.0 * packets
            }))
        },
    ))
}

/// NetShare's test 3: a service's protocol is the one that it is spoken over.
fn ports(tuple: TupleColumns) -> Measure {
    rate("port_protocol", "known services over their protocol", move |sample| {
        share(sample.rows.iter().filter_map(|&row| {
            let proto = sample.frame.proto(sample.id(tuple.proto, row))?;
            let ports = [sample.whole(tuple.src_port, row), sample.whole(tuple.dst_port, row)];
            ports.iter().find_map(|port| {
                let single = SERVICES.iter().find(|(known, _)| known == port);
                match single {
                    Some((_, over)) => Some(*over == proto),
                    None => EITHER.contains(port).then_some(proto == TCP || proto == UDP),
                }
            })
        }))
    })
}

/// NetShare's test 4: no packet is shorter than its headers.
fn smallest_lengths(tuple: TupleColumns, length: usize) -> Measure {
    rate("smallest_length", "packets as long as their headers", move |sample| {
        share(sample.rows.iter().map(|&row| {
            let least = match sample.frame.proto(sample.id(tuple.proto, row)) {
                Some(TCP) => 20.0,
                Some(UDP | ICMP) => 8.0,
                Some(ICMPV6) if is_v6(sample, tuple, row) => 8.0,
                _ => 0.0,
            };
            sample.number(length, row) >= least + ip_header(sample, tuple, row)
        }))
    })
}

fn fragments(offset: usize) -> Measure {
    rate("fragments", "packets that are later fragments", move |sample| {
        share(sample.rows.iter().map(|&row| sample.whole(offset, row) > 0))
    })
}

/// Of TCP packets: each flow's flags.
fn tcp_flows<'s>(
    sample: &'s Sample<'_>,
    tuple: TupleColumns,
    flags: usize,
) -> impl Iterator<Item = Vec<u8>> + 's {
    let is_tcp =
        move |flow: &&[u32]| sample.frame.proto(sample.id(tuple.proto, flow[0])) == Some(TCP);
    let of = move |&row: &u32| sample.whole(flags, row) as u8 & 0x3f;
    sample.flows().filter(is_tcp).map(move |flow| flow.iter().map(of).collect())
}

fn tcp(tuple: TupleColumns, flags: usize) -> Vec<Measure> {
    let flows = move |of: fn(&[u8]) -> bool| {
        move |sample: &Sample<'_>| share(tcp_flows(sample, tuple, flags).map(|flow| of(&flow)))
    };
    vec![
        rate(
            "syn_first",
            "TCP flows that begin with SYN",
            flows(|flow| flow.first().is_some_and(|flags| flags & SYN != 0)),
        ),
        rate(
            "terminated",
            "TCP flows with FIN or RST",
            flows(|flow| flow.iter().any(|flags| flags & (FIN | RST) != 0)),
        ),
        rate("illegal_flags", "TCP packets with illegal flags", move |sample| {
            let packets = tcp_flows(sample, tuple, flags).flatten();
            share(packets.map(is_illegal))
        }),
        rate("handshake", "two-sided TCP conversations with a handshake", move |sample| {
            let conversations = Conversation::all(sample, tuple, flags);
            share(conversations.iter().filter(|c| c.two_sided).map(Conversation::has_handshake))
        }),
        Measure::new(
            Group::Protocol,
            "tcp_state",
            "how TCP conversations begin and end",
            "conversations",
            &[Distance::Tv],
            move |sample| {
                let conversations = Conversation::all(sample, tuple, flags);
                Statistic::values(conversations.iter().map(Conversation::state))
            },
        )
        .shown(Picture::Bars(Labels::TcpState)),
        Measure::new(
            Group::Protocol,
            "flag_bigram",
            "pairs of successive TCP flags",
            "pair",
            &[Distance::Jsd],
            move |sample| {
                let pairs = tcp_flows(sample, tuple, flags).flat_map(|flow| {
                    let pairs =
                        flow.windows(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair[1]));
                    pairs.collect::<Vec<u64>>()
                });
                Statistic::values(pairs)
            },
        ),
    ]
}

/// No flags at all, SYN with FIN or RST, or FIN without ACK (RFC 9293, section 3.5 on).
fn is_illegal(flags: u8) -> bool {
    flags == 0
        || flags & (SYN | FIN) == SYN | FIN
        || flags & (SYN | RST) == SYN | RST
        || flags & (FIN | ACK) == FIN
}

/// A TCP conversation, both directions.
#[derive(Clone, Debug, Default)]
struct Conversation {
    /// Flags of its first three packets.
    first: Vec<u8>,
    fin: bool,
    rst: bool,
    two_sided: bool,
}

impl Conversation {
    /// Those of a sample, in order of their unit.
    fn all(sample: &Sample<'_>, tuple: TupleColumns, flags: usize) -> Vec<Conversation> {
        let mut all: Vec<Option<(u32, Conversation)>> = vec![None; sample.table.units];
        for &row in &sample.rows {
            if sample.frame.proto(sample.id(tuple.proto, row)) != Some(TCP) {
                continue;
            }
            let flow = sample.table.flow_of[row as usize];
            let unit = sample.table.unit_of[flow as usize];
            let flags = sample.whole(flags, row) as u8;
            let place = &mut all[unit as usize];
            let (first_flow, conversation) =
                place.get_or_insert_with(|| (flow, Conversation::default()));
            conversation.two_sided |= *first_flow != flow;
            conversation.fin |= flags & FIN != 0;
            conversation.rst |= flags & RST != 0;
            if conversation.first.len() < 3 {
                conversation.first.push(flags);
            }
        }
        all.into_iter().flatten().map(|(_, conversation)| conversation).collect()
    }

    /// SYN, SYN and ACK, ACK (RFC 9293, section 3.5).
    fn has_handshake(&self) -> bool {
        let step = self.first.iter().map(|flags| flags & (SYN | ACK));
        step.eq([SYN, SYN | ACK, ACK])
    }

    /// How it begins (2 bits), ends (2 bits), and whether both sides speak (1 bit).
    fn state(&self) -> u64 {
        let begins = match self.first.first().map(|flags| flags & (SYN | ACK)) {
            Some(SYN) => 0,
            Some(flags) if flags == SYN | ACK => 1,
            _ => 2,
        };
        let ends = if self.rst { 1 } else { u64::from(!self.fin) * 2 };
        begins << 3 | ends << 1 | u64::from(self.two_sided)
    }
}

/// The name of a protocol number (IANA), of those that are usual.
pub(super) fn name(number: &str) -> Option<&'static str> {
    let names = [
        ("1", "ICMP"),
        ("2", "IGMP"),
        ("4", "IP in IP"),
        ("6", "TCP"),
        ("17", "UDP"),
        ("33", "DCCP"),
        ("41", "IPv6 in IP"),
        ("47", "GRE"),
        ("50", "ESP"),
        ("51", "AH"),
        ("58", "ICMPv6"),
        ("89", "OSPF"),
        ("132", "SCTP"),
        ("136", "UDP-Lite"),
    ];
    names.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// A state of [`Labels::TcpState`] in words.
#[must_use]
pub fn state_name(state: u64) -> String {
    let begins = ["SYN", "SYN-ACK", "midway"][(state >> 3 & 3).min(2) as usize];
    let ends = ["FIN", "RST", "open"][(state >> 1 & 3).min(2) as usize];
    let sides = if state & 1 == 1 { "both sides" } else { "one side" };
    format!("{begins} to {ends}, {sides}")
}

/// TCP flags as letters, tcpdump's but for the dot.
#[must_use]
pub fn flag_letters(flags: u8) -> String {
    let letters = [(0x02, 'S'), (0x10, 'A'), (0x08, 'P'), (0x01, 'F'), (0x04, 'R'), (0x20, 'U')];
    let set: String =
        letters.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, letter)| *letter).collect();
    if set.is_empty() { "none".to_owned() } else { set }
}
