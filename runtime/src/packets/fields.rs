//! Where a schema keeps the fields of a packet.

use std::net::{IpAddr, Ipv4Addr};

use ns_model_format::schema::packet_field as name;
use ns_model_format::{Field, FieldKind, Schema, Value, cell};

use super::repairs::Repairs;
use super::{DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE};

/// Protocols that traces call by name.
const PROTOCOLS: [(&str, u8); 14] = [
    ("tcp", TCP),
    ("udp", UDP),
    ("icmp", ICMP),
    ("icmpv6", ICMPV6),
    ("ipv6-icmp", ICMPV6),
    ("igmp", 2),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ospf", 89),
    ("dccp", DCCP),
    ("sctp", SCTP),
    ("udplite", UDP_LITE),
    ("udp-lite", UDP_LITE),
];

/// A field that a header needs, if the schema has it. Small, so that all of
/// them share few cache lines: this is read for every packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    place: Place,
    index: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Absent,
    Attribute,
    Measurement,
}

impl Source {
    const ABSENT: Source = Source { place: Place::Absent, index: 0 };

    fn find(schema: &Schema, name: &str) -> Source {
        let position = |fields: &[Field]| fields.iter().position(|field| field.name == name);
        if let Some(index) = position(&schema.measurements) {
            Source { place: Place::Measurement, index: index as u32 }
        } else if let Some(index) = position(&schema.attributes) {
            Source { place: Place::Attribute, index: index as u32 }
        } else {
            Source::ABSENT
        }
    }

    /// The first of these names that the schema has.
    pub(crate) fn find_any(schema: &Schema, names: &[&str]) -> Source {
        let mut found = names.iter().map(|name| Source::find(schema, name));
        found.find(|source| source.is_there()).unwrap_or(Source::ABSENT)
    }

    /// Whether it may differ from packet to packet.
    pub(crate) fn varies(self) -> bool {
        self.place == Place::Measurement
    }

    fn is_there(self) -> bool {
        self.place != Place::Absent
    }

    /// By reference: a copy would wait for its own store, for every field.
    #[inline]
    fn value<'a>(self, values: &Values<'a>) -> Option<&'a Value> {
        match self.place {
            Place::Measurement => values.measurements.get(self.index as usize),
            Place::Absent => None,
            Place::Attribute => values.attributes.get(self.index as usize),
        }
    }

    fn word<'a>(self, values: &Values<'a>, index: u32) -> &'a str {
        let fields = match self.place {
            Place::Measurement => &values.schema.measurements,
            _ => &values.schema.attributes,
        };
        fields.get(self.index as usize).map_or("", |field| field.codec.word(index))
    }

    /// The value as a number of at most `most`, `None` if the schema has no such field.
    #[inline]
    pub(crate) fn number(self, values: &Values, most: u32, repairs: &mut Repairs) -> Option<u32> {
        let number = match self.value(values)? {
            Value::Int(number) => *number,
            value => self.unusual_number(values, *value),
        };
        if (0..=i64::from(most)).contains(&number) {
            return Some(number as u32);
        }
        repairs.add(Repairs::RANGE);
        Some(number.clamp(0, i64::from(most)) as u32)
    }

    #[inline(never)]
    fn unusual_number(self, values: &Values, value: Value) -> i64 {
        match value {
            Value::Text(index) => self.word(values, index).trim().parse().unwrap_or(-1),
            value => value.as_i64().unwrap_or(-1),
        }
    }

    /// The value as a number of any size, `None` if it is none.
    pub(crate) fn real(self, values: &Values) -> Option<f64> {
        match self.value(values)? {
            Value::Text(index) => self.word(values, *index).trim().parse().ok(),
            value => value.as_f64(),
        }
        .filter(|number| number.is_finite())
    }

    /// The value as an address.
    pub(crate) fn address(self, values: &Values, repairs: &mut Repairs) -> Option<IpAddr> {
        match self.value(values)? {
            Value::Wide(number) => return Some(cell::ip_address((*number).into())),
            Value::Text(index) => {
                if let Some(number) = cell::ip(self.word(values, *index).trim()) {
                    return Some(cell::ip_address(number));
                }
            }
            _ => {}
        }
        self.number(values, u32::MAX, repairs).map(|bits| Ipv4Addr::from(bits).into())
    }

    /// Whether addresses there may be of either version.
    fn is_of_both_versions(self, schema: &Schema) -> bool {
        let fields = match self.place {
            Place::Absent => return false,
            Place::Attribute => &schema.attributes,
            Place::Measurement => &schema.measurements,
        };
        fields.get(self.index as usize).is_some_and(|field| field.kind == FieldKind::Ip)
    }

    /// The value as an IP protocol number.
    pub(crate) fn protocol(self, values: &Values, repairs: &mut Repairs) -> Option<u8> {
        if let Value::Text(index) = self.value(values)? {
            let word = self.word(values, *index).trim();
            let named = PROTOCOLS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
            let protocol = named.map(|&(_, number)| number).or_else(|| word.parse().ok());
            repairs.add_if(protocol.is_none(), Repairs::PROTOCOL);
            return Some(protocol.unwrap_or(UDP));
        }
        self.number(values, 255, repairs).map(|number| number as u8)
    }
}

/// The values of one record.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) attributes: &'a [Value],
    pub(crate) measurements: &'a [Value],
}

/// All fields that a header needs.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    pub(crate) src_ip: Source,
    pub(crate) dst_ip: Source,
    pub(crate) src_port: Source,
    pub(crate) dst_port: Source,
    pub(crate) proto: Source,
    pub(crate) len: Source,
    pub(crate) payload_len: Source,
    pub(crate) tos: Source,
    pub(crate) id: Source,
    pub(crate) flag: Source,
    pub(crate) off: Source,
    pub(crate) ttl: Source,
    pub(crate) tcp_flags: Source,
    pub(crate) tcp_window: Source,
    pub(crate) direction: Source,
}

impl Fields {
    pub(crate) fn new(schema: &Schema) -> Fields {
        let find = |name| Source::find(schema, name);
        Fields {
            src_ip: find(name::SRC_IP),
            dst_ip: find(name::DST_IP),
            src_port: find(name::SRC_PORT),
            dst_port: find(name::DST_PORT),
            proto: find(name::PROTO),
            len: find(name::LEN),
            payload_len: find(name::PAYLOAD_LEN),
            tos: find(name::TOS),
            id: find(name::ID),
            flag: find(name::FLAG),
            off: find(name::OFF),
            ttl: find(name::TTL),
            tcp_flags: find(name::TCP_FLAGS),
            tcp_window: find(name::TCP_WINDOW),
            direction: if schema.conversations { find(name::DIRECTION) } else { Source::ABSENT },
        }
    }

    /// Whether packets may be of either IP version.
    pub(crate) fn of_both_versions(&self, schema: &Schema) -> bool {
        [self.src_ip, self.dst_ip].iter().any(|source| source.is_of_both_versions(schema))
    }

    /// Whether the 5-tuple may differ from packet to packet of a flow.
    pub(crate) fn tuple_varies(&self) -> bool {
        [self.src_ip, self.dst_ip, self.src_port, self.dst_port, self.proto]
            .iter()
            .any(|source| source.varies())
    }

    /// Whether per-packet fields are kept in the flow's attributes.
    pub(crate) fn needs_attributes(&self) -> bool {
        [
            self.len,
            self.payload_len,
            self.tos,
            self.id,
            self.flag,
            self.off,
            self.ttl,
            self.tcp_flags,
            self.tcp_window,
            self.direction,
        ]
        .iter()
        .any(|source| source.is_there() && !source.varies())
            || self.tuple_varies()
    }
}
