//! NetFlow-like rows as what a flow exporter says of a flow.

use std::sync::Arc;

use ns_model_format::schema::{TraceKind, packet_field};
use ns_model_format::{Schema, Value};

use crate::packets::PacketError;
use crate::packets::fields::{Source, Values};
use crate::packets::{RepairCounts, Repairs};
use crate::prefix::AddressMap;
use crate::render::Render;
use crate::sink::Item;

/// What an exporter says of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowRecord {
    /// Whether the addresses are of IPv6.
    pub is_v6: bool,
    /// Source and destination; those of IPv4 in the lower 32 bits.
    pub addresses: [u128; 2],
    /// Source and destination.
    pub ports: [u16; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Type of service.
    pub tos: u8,
    /// All TCP flags of the flow.
    pub tcp_flags: u8,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// What had to be changed of the modelled values.
    pub repairs: Repairs,
}

impl Item for FlowRecord {
    const IS_FRAME: bool = false;
    /// Those of the flow's packets, which are elsewhere.
    fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    fn count_repairs(&self, counts: &mut RepairCounts) {
        counts.count(self.repairs);
    }
}

/// Renders a NetFlow-like trace's rows as [`FlowRecord`]s.
#[derive(Clone, Debug)]
pub struct FlowRecordRender {
    schema: Arc<Schema>,
    map: AddressMap,
    src_ip: Source,
    dst_ip: Source,
    src_port: Source,
    dst_port: Source,
    proto: Source,
    tos: Source,
    tcp_flags: Source,
    packets: Source,
    bytes: Source,
    duration: Source,
}

impl FlowRecordRender {
    /// For a NetFlow-like trace's schema. Fields that it lacks are zero, or one packet; a
    /// duration is in seconds.
    ///
    /// # Errors
    /// The schema's records are not flows.
    pub fn new(schema: &Schema, map: AddressMap) -> Result<FlowRecordRender, PacketError> {
        match schema.kind {
            TraceKind::Netflow => {}
            TraceKind::Packets => return Err(PacketError::NotFlows { what: "packets" }),
            _ => return Err(PacketError::NotFlows { what: "rows of a schema of its own" }),
        }
        let find = |names: &[&str]| Source::find_any(schema, names);
        Ok(FlowRecordRender {
            src_ip: find(&[packet_field::SRC_IP, "sa", "src_ip"]),
            dst_ip: find(&[packet_field::DST_IP, "da", "dst_ip"]),
            src_port: find(&[packet_field::SRC_PORT, "sp", "src_port"]),
            dst_port: find(&[packet_field::DST_PORT, "dp", "dst_port"]),
            proto: find(&[packet_field::PROTO, "pr"]),
            tos: find(&[packet_field::TOS]),
            tcp_flags: find(&[packet_field::TCP_FLAGS]),
            packets: find(&["pkt", "pkts", "packets", "ipkt"]),
            bytes: find(&["byt", "bytes", "ibyt"]),
            duration: find(&["td", "duration", "dur"]),
            schema: Arc::new(schema.clone()),
            map,
        })
    }
}

impl Render for FlowRecordRender {
    type Flow = Box<[Value]>;
    type Item = FlowRecord;

    fn begin_flow(&mut self, _flow: u64, attributes: &[Value]) -> Box<[Value]> {
        attributes.into()
    }

    fn record(&mut self, flow: &mut Box<[Value]>, _time_ns: u64, values: &[Value]) -> FlowRecord {
        let values = Values { schema: &self.schema, attributes: flow, measurements: values };
        let mut repairs = Repairs::NONE;
        let ips = [self.src_ip, self.dst_ip].map(|ip| ip.address(&values, &mut repairs));
        let is_v6 = ips.iter().flatten().any(std::net::IpAddr::is_ipv6);
        let addresses = ips.map(|ip| match ip {
            Some(std::net::IpAddr::V6(address)) => self.map.apply(true, address.into()),
            // One of IPv4 beside one of IPv6 is mapped into it, as in the input.
            Some(std::net::IpAddr::V4(address)) if is_v6 => {
                self.map.apply(true, address.to_ipv6_mapped().into())
            }
            Some(std::net::IpAddr::V4(address)) => self.map.apply(false, u32::from(address).into()),
            None => 0,
        });
        let mut number = |source: Source, most: u32| source.number(&values, most, &mut repairs);
        let ports = [self.src_port, self.dst_port].map(|port| number(port, 0xffff).unwrap_or(0));
        let tos = number(self.tos, 0xff).unwrap_or(0);
        let tcp_flags = number(self.tcp_flags, 0xff).unwrap_or(0);
        let protocol = self.proto.protocol(&values, &mut repairs).unwrap_or(0);
        let count = |source: Source, least: f64| source.real(&values).unwrap_or(least).max(least);
        // A cast of a float to a whole number ends at its bounds.
        FlowRecord {
            is_v6,
            addresses,
            ports: ports.map(|port| port as u16),
            protocol,
            tos: tos as u8,
            tcp_flags: tcp_flags as u8,
            packets: count(self.packets, 1.0).round() as u64,
            bytes: count(self.bytes, 0.0).round() as u64,
            duration_ms: (count(self.duration, 0.0) * 1e3).round() as u64,
            repairs,
        }
    }
}
