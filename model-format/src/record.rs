//! Plain values: a cell, a 5-tuple, a packet.

use std::net::IpAddr;

/// One cell of a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A whole number; IPv4 addresses are whole numbers too, in host order.
    Int(i64),
    /// A real number.
    Float(f64),
    /// Text, as an index into the word list of whoever gave the value: the
    /// column when encoding ([`crate::Column::words`]), the encoder when
    /// decoding ([`crate::codec::Codec::word`]).
    Text(u32),
    /// A whole number of more than 63 bits, such as an IPv6 address.
    Wide(Wide),
    /// Nothing: the input has no value there.
    Missing,
}

/// A whole number of 128 bits, kept as two halves so that a [`Value`] stays small.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Wide([u64; 2]);

impl From<u128> for Wide {
    fn from(value: u128) -> Wide {
        Wide([(value >> 64) as u64, value as u64])
    }
}

impl From<Wide> for u128 {
    fn from(Wide([high, low]): Wide) -> u128 {
        u128::from(high) << 64 | u128::from(low)
    }
}

impl Value {
    /// The number in the cell, `None` for text and for nothing.
    #[must_use]
    pub fn as_f64(self) -> Option<f64> {
        match self {
            // Every integer a field can hold (48 bits at most) is exact in f64.
            Value::Int(value) => Some(value as f64),
            Value::Float(value) => Some(value),
            Value::Wide(value) => Some(u128::from(value) as f64),
            Value::Text(_) | Value::Missing => None,
        }
    }

    /// The cell as a whole number, rounded half away from zero; `None` for
    /// text and for what is not finite.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(value),
            Value::Float(value) if value.is_finite() => Some(value.round() as i64),
            _ => None,
        }
    }
}

/// The five fields that name a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FiveTuple {
    /// Source address.
    pub src_ip: IpAddr,
    /// Destination address.
    pub dst_ip: IpAddr,
    /// Source port, 0 where the protocol has none.
    pub src_port: u16,
    /// Destination port, 0 where the protocol has none.
    pub dst_port: u16,
    /// IP protocol number (6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6).
    pub proto: u8,
}

impl FiveTuple {
    /// The same conversation seen from the other end.
    #[must_use]
    pub fn reversed(self) -> FiveTuple {
        FiveTuple {
            src_ip: self.dst_ip,
            dst_ip: self.src_ip,
            src_port: self.dst_port,
            dst_port: self.src_port,
            proto: self.proto,
        }
    }
}

/// The header fields of one IP packet (RFC 791, RFC 8200, RFC 9293). What only IPv4's header
/// has is 0 in one of IPv6, unless its fragment header has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Capture time in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// Addresses, ports and protocol as sent.
    pub tuple: FiveTuple,
    /// Total length of the IP packet in bytes, its headers included.
    pub len_bytes: u16,
    /// Type-of-service byte or traffic class (DSCP and ECN).
    pub tos: u8,
    /// IP identification, of a fragment header's the lower half.
    pub ip_id: u16,
    /// The three flag bits (bit 2 reserved, bit 1 don't fragment, bit 0 more fragments).
    pub ip_flags: u8,
    /// Fragment offset in units of 8 bytes.
    pub fragment_offset: u16,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Length of the IP headers in 32-bit words, IPv6 extension headers included.
    pub ihl: u8,
    /// TCP flags (CWR ECE URG ACK PSH RST SYN FIN), 0 if not TCP or not captured.
    pub tcp_flags: u8,
    /// TCP window as sent, 0 if not TCP or not captured.
    pub tcp_window: u16,
    /// Bytes after the transport header.
    pub payload_len: u16,
}
