//! Packets from modelled values: Ethernet, IPv4 or IPv6, and TCP, UDP, ICMP or ICMPv6, SCTP, DCCP
//! or UDP-Lite.
//!
//! Headers are written field by field, checksums are sums of what is known of
//! a flow beforehand and of what a packet adds. Lengths and checksums are always
//! valid for the whole frame with its payload. Modelled values are kept unless
//! no packet could carry them; what is changed is counted ([`Repairs`]).

mod checksum;
pub(crate) mod fields;
mod frame;
mod labelled;
mod payload;
mod repairs;
mod sctp;
mod tcp;
#[cfg(test)]
mod tests;

pub use frame::{ETHERNET_BYTES, Frame};
pub use labelled::{LabelledFlow, LabelledFrame, LabelledRender};
pub use payload::{Payload, PayloadError};
pub use repairs::{RepairCounts, Repairs};

use std::net::IpAddr;
use std::sync::Arc;

use ns_model_format::random::{Purpose, Stream};
use ns_model_format::schema::TraceKind;
use ns_model_format::{Schema, Value};

use crate::prefix::AddressMap;
use crate::render::Render;
use checksum::{words, words_of_u128};
use fields::{Fields, Values};
use frame::{FRAGMENT, FRAGMENT_BYTES, HEADER_WORDS, IPV4_BYTES, IPV6_BYTES};
use sctp::Association;
use tcp::{Connection, MOST_OPTION_BYTES, Segment, TCP_BYTES};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;
/// What IPv6 has nothing after (RFC 8200, section 4.7).
const NO_NEXT_HEADER: u8 = 59;
/// IPv6 extension headers: what says that one follows must have it follow.
const EXTENSIONS: [u8; 5] = [0, 43, FRAGMENT, 51, 60];
/// Of a flow without a transport header.
const NO_TRANSPORT: u8 = u8::MAX;
const ETHERTYPE_IPV4: u64 = 0x0800;
const ETHERTYPE_IPV6: u64 = 0x86dd;
const SHORT_HEADER_BYTES: usize = 8;
/// DCCP's generic header with sequence numbers of 48 bits (RFC 4340, section 5.1).
const DCCP_BYTES: usize = 16;

const DONT_FRAGMENT: u32 = 2;
const MORE_FRAGMENTS: u32 = 1;
const MOST_BYTES: usize = 65_535;
/// An Ethernet packet.
const MTU: usize = 1500;
/// Where IPv6 finds IPv4's addresses (RFC 6052).
const OF_IPV4: u128 = 0x0064_ff9b << 96;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Locally administered source address, for frames that no interface lends its own.
pub const DEFAULT_SOURCE: Mac = [2, 0, 0, 0, 0, 1];
/// Locally administered unicast destination.
pub const DEFAULT_DESTINATION: Mac = [2, 0, 0, 0, 0, 2];

/// Why a schema cannot be rendered as packets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Its records are rows.
    #[error("the bundle holds {what}, not packets")]
    NotPackets {
        /// What it holds.
        what: &'static str,
    },
    /// Its records are no flow records.
    #[error("the bundle holds {what}, not flow records")]
    NotFlows {
        /// What it holds.
        what: &'static str,
    },
}

/// What packets need beside the model.
#[derive(Clone, Debug)]
pub struct PacketOptions {
    /// The run's seed: sequence numbers and identifiers follow from it.
    pub seed: u64,
    /// Source of frames in a flow's own direction, destination of the others.
    pub source: Mac,
    /// Destination of frames in a flow's own direction, source of the others.
    pub destination: Mac,
    /// What follows the headers.
    pub payload: Payload,
    /// Where the model's addresses go.
    pub map: AddressMap,
}

impl Default for PacketOptions {
    fn default() -> PacketOptions {
        PacketOptions {
            seed: 0,
            source: DEFAULT_SOURCE,
            destination: DEFAULT_DESTINATION,
            payload: Payload::default(),
            map: AddressMap::default(),
        }
    }
}

/// Renders a packet trace's records as [`Frame`]s.
#[derive(Clone, Debug)]
pub struct PacketRender {
    schema: Arc<Schema>,
    fields: Fields,
    options: PacketOptions,
    keeps_attributes: bool,
    tuple_varies: bool,
    of_both_versions: bool,
    /// Destination and source, for each direction, and four bytes of zeros.
    ethernet: [[u64; 2]; 2],
}

impl PacketRender {
    /// For a packet trace's schema. Fields that it lacks get usual values.
    ///
    /// # Errors
    /// The schema's records are not packets.
    pub fn new(schema: &Schema, options: PacketOptions) -> Result<PacketRender, PacketError> {
        match schema.kind {
            TraceKind::Packets => {}
            TraceKind::Netflow => {
                return Err(PacketError::NotPackets { what: "NetFlow records" });
            }
            _ => return Err(PacketError::NotPackets { what: "rows of a schema of its own" }),
        }
        let fields = Fields::new(schema);
        let ethernet = |destination: Mac, source: Mac| {
            let mut header = [[0; 8]; 2];
            let bytes = header.as_flattened_mut();
            bytes[..6].copy_from_slice(&destination);
            bytes[6..12].copy_from_slice(&source);
            header.map(u64::from_be_bytes)
        };
        let (one, other) = (options.source, options.destination);
        Ok(PacketRender {
            keeps_attributes: fields.needs_attributes(),
            tuple_varies: fields.tuple_varies(),
            of_both_versions: fields.of_both_versions(schema),
            schema: Arc::new(schema.clone()),
            fields,
            ethernet: [ethernet(other, one), ethernet(one, other)],
            options,
        })
    }

    /// The payload that the frames' checksums count with.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.options.payload
    }

    fn tuple(&self, values: &Values) -> Tuple {
        // A value out of range here is one decision of the model for a whole
        // flow; it is counted on the packets by `record`.
        let mut repairs = Repairs::NONE;
        let fields = &self.fields;
        let port = |source: fields::Source, repairs: &mut Repairs| {
            source.number(values, 0xffff, repairs).unwrap_or(0) as u16
        };
        let addresses = [fields.src_ip, fields.dst_ip].map(|ip| ip.address(values, &mut repairs));
        let is_v6 = addresses.iter().flatten().any(IpAddr::is_ipv6);
        let ips = [0, 1].map(|side| match (addresses[side], is_v6) {
            (Some(IpAddr::V6(address)), _) => address.into(),
            (Some(IpAddr::V4(address)), false) => u32::from(address).into(),
            (Some(IpAddr::V4(address)), true) => {
                repairs.add(Repairs::VERSION);
                OF_IPV4 | u128::from(u32::from(address))
            }
            // 10.0.0.1 and 10.0.0.2, fd00::1 and fd00::2.
            (None, false) => 0x0a00_0001 + side as u128,
            (None, true) => (0xfd00 << 112) + 1 + side as u128,
        });
        let ips = ips.map(|address| self.options.map.apply(is_v6, address));
        let ports = [port(fields.src_port, &mut repairs), port(fields.dst_port, &mut repairs)];
        let modelled = fields.proto.protocol(values, &mut repairs).unwrap_or(UDP);
        let protocol = match modelled {
            ICMP if is_v6 => ICMPV6,
            ICMPV6 if !is_v6 && self.of_both_versions => ICMP,
            extension if is_v6 && EXTENSIONS.contains(&extension) => NO_NEXT_HEADER,
            protocol => protocol,
        };
        repairs.add_if(protocol != modelled, Repairs::PROTOCOL);
        let ip_sum = words_of_u128(ips[0]) + words_of_u128(ips[1]);
        Tuple {
            is_v6,
            ips,
            ports,
            protocol,
            transport: if protocol == ICMPV6 && !is_v6 { NO_TRANSPORT } else { protocol },
            repairs,
            block: self.options.payload.block_for(protocol, ports),
            shortest_message: payload::shortest_message(protocol, ports),
            ip_sum,
            l4_sum: ip_sum + u64::from(protocol) + u64::from(ports[0]) + u64::from(ports[1]),
        }
    }
}

/// A flow's addresses, and what they add to checksums; the same in both
/// directions, since a sum does not know order.
#[derive(Clone, Debug)]
struct Tuple {
    is_v6: bool,
    /// Those of IPv4 in the lower 32 bits.
    ips: [u128; 2],
    ports: [u16; 2],
    protocol: u8,
    /// The same where it has a header that is written, or [`NO_TRANSPORT`].
    transport: u8,
    repairs: Repairs,
    block: u8,
    /// Bytes that a payload has at least, if there is one.
    shortest_message: u16,
    ip_sum: u64,
    l4_sum: u64,
}

/// What is remembered of a flow between its packets.
#[derive(Clone, Debug)]
pub struct PacketFlow {
    tuple: Tuple,
    started: bool,
    /// Each side's next IP identification.
    next_id: [u16; 2],
    connection: Connection,
    association: Association,
    icmp_identifier: u16,
    /// Sequence numbers of the last echo request and of the last reply.
    icmp_sequence: [u16; 2],
    attributes: Box<[Value]>,
}

impl Render for PacketRender {
    type Flow = PacketFlow;
    type Item = Frame;

    fn begin_flow(&mut self, flow: u64, attributes: &[Value]) -> PacketFlow {
        let mut stream = Stream::new(self.options.seed, Purpose::Packets, flow);
        let initial = [stream.next_u32(), stream.next_u32()];
        let ids = stream.next_u32();
        let tuple = self.tuple(&Values { schema: &self.schema, attributes, measurements: &[] });
        PacketFlow {
            tuple,
            started: false,
            next_id: [ids as u16, (ids >> 16) as u16],
            connection: Connection::new(initial),
            association: Association::new(initial),
            icmp_identifier: stream.next_u32() as u16,
            icmp_sequence: [0, 0],
            attributes: if self.keeps_attributes { attributes.into() } else { Box::default() },
        }
    }

    fn record(&mut self, flow: &mut PacketFlow, time_ns: u64, measurements: &[Value]) -> Frame {
        let fields = &self.fields;
        if self.tuple_varies {
            flow.tuple = self.tuple(&Values {
                schema: &self.schema,
                attributes: &flow.attributes,
                measurements,
            });
        }
        let PacketFlow { tuple, next_id, connection, association, attributes, .. } = flow;
        let values = Values { schema: &self.schema, attributes, measurements };
        let mut repairs = tuple.repairs;

        let modelled = fields.direction.number(&values, 1, &mut repairs).unwrap_or(0);
        let from = if flow.started { modelled as usize } else { 0 };
        repairs.add_if(from != modelled as usize, Repairs::DIRECTION);
        flow.started = true;
        let to = 1 - from;

        // Everything of the IP header but its length.
        let tos = fields.tos.number(&values, 0xff, &mut repairs).unwrap_or(0);
        let ttl = fields.ttl.number(&values, 0xff, &mut repairs).unwrap_or(64);
        repairs.add_if(ttl == 0, Repairs::TTL);
        let ttl = ttl.max(1);
        let id = match fields.id.number(&values, 0xffff, &mut repairs) {
            Some(id) => id as u16,
            None => {
                next_id[from] = next_id[from].wrapping_add(1);
                next_id[from]
            }
        };
        let usual_flag = if tuple.protocol == TCP && !tuple.is_v6 { DONT_FRAGMENT } else { 0 };
        let flag = fields.flag.number(&values, 7, &mut repairs).unwrap_or(usual_flag);
        let off = fields.off.number(&values, 0x1fff, &mut repairs).unwrap_or(0);

        // A fragment after the first has no transport header.
        let protocol = if off == 0 { tuple.transport } else { NO_TRANSPORT };
        let l4_least = match protocol {
            TCP => TCP_BYTES,
            UDP | ICMP | ICMPV6 | UDP_LITE => SHORT_HEADER_BYTES,
            DCCP => DCCP_BYTES,
            SCTP => sctp::LEAST_BYTES,
            _ => 0,
        };
        let is_fragment = off > 0 || flag & MORE_FRAGMENTS != 0;
        let ip_header = match (tuple.is_v6, is_fragment) {
            (false, _) => IPV4_BYTES,
            (true, false) => IPV6_BYTES,
            (true, true) => IPV6_BYTES + FRAGMENT_BYTES,
        };
        let least = ip_header + l4_least;
        let modelled = match fields.len.number(&values, u32::MAX, &mut repairs) {
            Some(len) => len as usize,
            None => {
                let payload = fields.payload_len.number(&values, 0xffff, &mut repairs);
                let headers = match protocol {
                    SCTP => ip_header + sctp::COMMON_BYTES,
                    _ => least,
                };
                headers + payload.unwrap_or(0) as usize
            }
        };
        let flags = match protocol {
            TCP => fields.tcp_flags.number(&values, 0xff, &mut repairs).map(|flags| flags as u8),
            _ => None,
        };
        let may_speak = match protocol {
            UDP | UDP_LITE => true,
            TCP => flags.is_some_and(|flags| flags & (tcp::SYN | tcp::RST) == 0),
            _ => false,
        };
        let stamps = match protocol {
            TCP => {
                connection.stamp_bytes_of(flags.unwrap_or(0), modelled.saturating_sub(ip_header))
            }
            _ => 0,
        };
        let least = match modelled > least + stamps && may_speak {
            true => least + stamps + usize::from(tuple.shortest_message),
            false => least,
        };
        // A later fragment leaves room for the 8 bytes or more before it.
        let most = if off == 0 { MOST_BYTES } else { MOST_BYTES - 8 };
        let ip_len = match modelled.clamp(least, most) {
            len if protocol == SCTP => {
                ip_header + sctp::whole_chunks(len - ip_header, most - ip_header)
            }
            len => len,
        };
        repairs.add_if(ip_len != modelled, Repairs::LENGTH);

        let payload = &self.options.payload;
        let ports = u64::from(tuple.ports[from]) << 16 | u64::from(tuple.ports[to]);
        let mut ip_len = ip_len as u16;
        let mut l4 = Transport { len: l4_least as u8, ..Transport::default() };
        match protocol {
            TCP => {
                let window = fields.tcp_window.number(&values, 0xffff, &mut repairs);
                let len = usize::from(ip_len) - ip_header;
                // As many as there is room for, in words of 4 bytes.
                let room = 8 * HEADER_WORDS - ETHERNET_BYTES - ip_header - TCP_BYTES;
                let most_options = MOST_OPTION_BYTES.min(room / 4 * 4);
                let segment = connection.segment(from, flags, len, most_options, &mut repairs);
                ip_len = (ip_header + segment.len) as u16;
                let window = window.unwrap_or_else(|| segment.window.into());
                let header = TCP_BYTES + segment.options;
                let payload_len = segment.len - header;
                l4.len = header as u8;
                let mut sum = 0;
                if segment.options > 0 {
                    let usual_header = if tuple.is_v6 { IPV6_BYTES } else { IPV4_BYTES };
                    let most_segment = (MTU - usual_header - TCP_BYTES) as u16;
                    sum = l4.add_options((connection, from), &segment, most_segment, time_ns);
                }
                let urgent = if segment.flags & tcp::URG != 0 { payload_len as u32 } else { 0 };
                let offset_and_flags = (header as u32 / 4) << 12 | u32::from(segment.flags);
                sum += tuple.l4_sum
                    + (header + payload_len) as u64
                    + words(segment.sequence)
                    + words(segment.acknowledgement)
                    + u64::from(offset_and_flags)
                    + u64::from(window)
                    + u64::from(urgent)
                    + payload.sum(tuple.block, payload_len);
                let checksum = u64::from(checksum::finish(sum));
                l4.words = [
                    ports << 32 | u64::from(segment.sequence),
                    u64::from(segment.acknowledgement) << 32
                        | u64::from(offset_and_flags << 16 | window),
                    checksum << 48 | u64::from(urgent) << 32,
                ];
            }
            UDP => {
                let len = u64::from(ip_len) - ip_header as u64;
                let payload_sum = payload.sum(tuple.block, len as usize - SHORT_HEADER_BYTES);
                let sum = tuple.l4_sum + 2 * len + payload_sum;
                let checksum = checksum::never_zero(checksum::finish(sum));
                l4.words[0] = ports << 32 | len << 16 | u64::from(checksum);
            }
            UDP_LITE => {
                // A coverage of 0: the checksum counts all (RFC 3828, section 3.1).
                let len = usize::from(ip_len) - ip_header;
                let payload_sum = payload.sum(tuple.block, len - SHORT_HEADER_BYTES);
                let sum = tuple.l4_sum + len as u64 + payload_sum;
                let checksum = checksum::never_zero(checksum::finish(sum));
                l4.words[0] = ports << 32 | u64::from(checksum);
            }
            DCCP => {
                // Data, without an acknowledgement (RFC 4340, section 5.1).
                let number = association.number(from);
                let (words_of_header, data_and_extended) = (DCCP_BYTES as u64 / 4, 2 << 1 | 1);
                let len = usize::from(ip_len) - ip_header;
                let sum = tuple.l4_sum
                    + len as u64
                    + (words_of_header << 8)
                    + (data_and_extended << 8)
                    + words(number)
                    + payload.sum(tuple.block, len - DCCP_BYTES);
                let checksum = u64::from(checksum::finish(sum));
                l4.words[0] = ports << 32 | words_of_header << 24 | checksum;
                l4.words[1] = data_and_extended << 56 | u64::from(number);
            }
            SCTP => l4 = association.header(from, ports, usize::from(ip_len) - ip_header),
            ICMP | ICMPV6 => {
                // Echo, and echo reply from the other side (RFC 792, RFC 4443).
                let kind = match (tuple.is_v6, from) {
                    (false, 0) => 8 << 8,
                    (false, _) => 0,
                    (true, 0) => 128 << 8,
                    (true, _) => 129 << 8,
                };
                // A reply answers the oldest request without one, or the last again.
                let [asked, answered] = &mut flow.icmp_sequence;
                let sequence = if from == 0 {
                    *asked = asked.wrapping_add(1);
                    *asked
                } else {
                    if answered != asked {
                        *answered = answered.wrapping_add(1);
                    }
                    *answered
                };
                let (identifier, sequence) = (u64::from(flow.icmp_identifier), u64::from(sequence));
                let len = usize::from(ip_len) - ip_header;
                let payload_sum = payload.sum(tuple.block, len - SHORT_HEADER_BYTES);
                // ICMPv6 counts addresses, length and protocol too.
                let pseudo = match tuple.is_v6 {
                    true => tuple.ip_sum + len as u64 + u64::from(ICMPV6),
                    false => 0,
                };
                let sum = pseudo + kind + identifier + sequence + payload_sum;
                let checksum = u64::from(checksum::finish(sum));
                l4.words[0] = kind << 48 | checksum << 32 | identifier << 16 | sequence;
            }
            _ => {}
        }

        let ip = Ip {
            source: tuple.ips[from],
            destination: tuple.ips[to],
            tos,
            ttl,
            protocol: tuple.protocol,
            len: ip_len.into(),
            id,
            fragment: legal_fragment(
                tuple.is_v6,
                flag,
                off,
                ip_len.into(),
                ip_header,
                &mut repairs,
            ),
        };
        let header = match tuple.is_v6 {
            false => ip.v4(self.ethernet[from], tuple.ip_sum, &l4),
            true => ip.v6(self.ethernet[from], is_fragment, &l4),
        };
        let mut frame = Frame {
            header: header.map(u64::to_be_bytes),
            header_len: (ETHERNET_BYTES + ip_header) as u8 + l4.len,
            block: tuple.block,
            repairs,
            ip_len,
            side: from as u8,
        };
        if protocol == SCTP {
            frame.seal(payload);
        }
        frame
    }
}

/// What an IP header says, of either version.
struct Ip {
    source: u128,
    destination: u128,
    tos: u32,
    ttl: u32,
    protocol: u8,
    /// Of the whole packet.
    len: u64,
    id: u16,
    /// Flags and offset as in IPv4's header.
    fragment: u16,
}

impl Ip {
    /// The headers of an IPv4 packet, in words (RFC 791).
    #[inline]
    fn v4(&self, ethernet: [u64; 2], ip_sum: u64, l4: &Transport) -> [u64; HEADER_WORDS] {
        let version_and_tos = 0x4500 | u64::from(self.tos);
        let ttl_and_protocol = u64::from(self.ttl << 8) | u64::from(self.protocol);
        let (len, id, fragment) = (self.len, u64::from(self.id), u64::from(self.fragment));
        let sum = ip_sum + version_and_tos + len + id + fragment + ttl_and_protocol;
        let checksum = u64::from(checksum::finish(sum));
        let (source, destination) = (self.source as u64, self.destination as u64);
        let [l4_0, l4_1, l4_2] = l4.words;
        let [options_0, options_1, options_2] = l4.options;
        // The Ethernet header's 14 bytes leave every later field 2 bytes before
        // the end of a word.
        [
            ethernet[0],
            ethernet[1] | ETHERTYPE_IPV4 << 16 | version_and_tos,
            len << 48 | id << 32 | fragment << 16 | ttl_and_protocol,
            checksum << 48 | source << 16 | destination >> 16,
            destination << 48 | l4_0 >> 16,
            l4_0 << 48 | l4_1 >> 16,
            l4_1 << 48 | l4_2 >> 16 | options_0 >> 48,
            options_0 << 16 | options_1 >> 48,
            options_1 << 16 | options_2 >> 48,
            options_2 << 16,
            0,
            0,
        ]
    }

    /// Those of an IPv6 packet (RFC 8200), without a flow label.
    #[inline(never)]
    fn v6(&self, ethernet: [u64; 2], is_fragment: bool, l4: &Transport) -> [u64; HEADER_WORDS] {
        let next = if is_fragment { FRAGMENT } else { self.protocol };
        let (tos, ttl) = (u64::from(self.tos), u64::from(self.ttl));
        let payload_len = self.len - IPV6_BYTES as u64;
        let mut header = [0; HEADER_WORDS];
        header[0] = ethernet[0];
        header[1] = ethernet[1] | ETHERTYPE_IPV6 << 16;
        let mut at = 1;
        // What finds no room is no header any more.
        let mut push = |word: u64| {
            for (at, part) in [(at, word >> 48), (at + 1, word << 16)] {
                if let Some(room) = header.get_mut(at) {
                    *room |= part;
                }
            }
            at += 1;
        };
        push(6 << 60 | tos << 52 | payload_len << 16 | u64::from(next) << 8 | ttl);
        for address in [self.source, self.destination] {
            push((address >> 64) as u64);
            push(address as u64);
        }
        if is_fragment {
            // Where IPv4 has the offset after three flags, this has it before (section 4.5).
            let more = u64::from(u32::from(self.fragment >> 13) & MORE_FRAGMENTS);
            let offset = u64::from(self.fragment & 0x1fff);
            let word = offset << 3 | more;
            push(u64::from(self.protocol) << 56 | word << 32 | u64::from(self.id));
        }
        let [options_0, options_1, options_2] = l4.options;
        push(l4.words[0]);
        push(l4.words[1]);
        // TCP's options begin in the middle of a word.
        push(l4.words[2] | options_0 >> 32);
        push(options_0 << 32 | options_1 >> 32);
        push(options_1 << 32 | options_2 >> 32);
        header
    }
}

/// A transport header in registers, from its first byte on.
#[derive(Default)]
struct Transport {
    /// Bytes of it, options included.
    len: u8,
    /// The header without options.
    words: [u64; 3],
    options: [u64; 3],
}

impl Transport {
    /// Adds a segment's options; returns their sum.
    #[inline(never)]
    fn add_options(
        &mut self,
        (connection, from): (&mut Connection, usize),
        segment: &Segment,
        most_segment: u16,
        time_ns: u64,
    ) -> u64 {
        let mut options = [[0; 8]; 3];
        let bytes = &mut options.as_flattened_mut()[..segment.options.min(MOST_OPTION_BYTES)];
        connection.write_options(from, segment, most_segment, time_ns, bytes);
        self.options = options.map(u64::from_be_bytes);
        self.options.iter().map(|&word| words((word >> 32) as u32) + words(word as u32)).sum()
    }
}

/// The IPv4 flags and offset word nearest to what was modelled (RFC 791, RFC
/// 6864): the reserved bit clear, no fragment that must not be one, no datagram
/// beyond 65535 bytes, no fragment but the last with a broken multiple of 8. IPv6
/// says of no packet that it must not be fragmented.
#[inline]
fn legal_fragment(
    is_v6: bool,
    flag: u32,
    off: u32,
    ip_len: usize,
    ip_header: usize,
    repairs: &mut Repairs,
) -> u16 {
    let known = if is_v6 { MORE_FRAGMENTS } else { DONT_FRAGMENT | MORE_FRAGMENTS };
    if off == 0 && (flag == DONT_FRAGMENT & known || flag == 0) {
        return (flag << 13) as u16;
    }
    let mut legal = flag & known;
    if !(ip_len - ip_header).is_multiple_of(8) || ip_len == ip_header {
        legal &= !MORE_FRAGMENTS;
    }
    if off > 0 || legal & MORE_FRAGMENTS != 0 {
        legal &= !DONT_FRAGMENT;
    }
    let off_legal = off.min(((MOST_BYTES - ip_len) / 8) as u32);
    repairs.add_if(legal != flag || off_legal != off, Repairs::FRAGMENT);
    (legal << 13 | off_legal) as u16
}
