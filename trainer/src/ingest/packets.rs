//! A capture's packets as a [`Trace`].

use ns_model_format::schema::{FieldKind, TimeUnit, packet_field};
use ns_model_format::{Column, FiveTuple, Packet};

use super::pcap::Capture;
use super::{TimeColumn, Trace, TraceColumn, group_flows};
use crate::config::{ConfigError, FlowKind, Resolved};

/// Picks the configured columns of a capture and makes flows of its packets.
///
/// # Errors
/// A column that packets do not have.
pub fn trace(capture: Capture, config: &Resolved) -> Result<Trace, ConfigError> {
    let packets = &capture.packets;
    let times_ns: Vec<i64> = packets.iter().map(|packet| packet.time_ns).collect();
    let timeout = config.idle_timeout.map(|seconds| (seconds * 1e9) as i64);
    let conversations = config.flow == FlowKind::Conversation;
    let flows = if conversations {
        let key = |packet: &Packet| packet.tuple.min(packet.tuple.reversed());
        group_flows(packets.iter().map(key), &times_ns, timeout)
    } else {
        group_flows(group_keys(packets, config)?, &times_ns, timeout)
    };
    // Seen from the first sender, and who sent.
    let mut tuples: Vec<FiveTuple> = packets.iter().map(|packet| packet.tuple).collect();
    let mut directions = vec![0_i64; packets.len()];
    if conversations {
        for flow in &flows {
            let first = packets[flow[0] as usize].tuple;
            for &row in flow {
                let row = row as usize;
                directions[row] = i64::from(tuples[row] != first);
                tuples[row] = first;
            }
        }
    }
    let mut columns = Vec::new();
    let mut order = Vec::new();
    for field in &config.metadata {
        order.push(field.column.clone());
    }
    order.push(config.timestamp.column.clone());
    for field in config.metadata.iter().chain(&config.timeseries) {
        let name = field.column.as_str();
        let cells: Vec<i64> = match name {
            packet_field::DIRECTION if conversations => directions.clone(),
            _ => packets
                .iter()
                .zip(&tuples)
                .map(|(packet, tuple)| cell(name, packet, tuple))
                .collect::<Option<_>>()
                .ok_or_else(|| unknown(name))?,
        };
        let kind = match name {
            packet_field::SRC_IP | packet_field::DST_IP => FieldKind::Ipv4,
            _ => FieldKind::Integer,
        };
        columns.push(TraceColumn { column: Column::ints(name, cells), kind, missing: None });
    }
    order.extend(config.timeseries.iter().map(|field| field.column.clone()));
    Ok(Trace {
        columns,
        input_rows: (1..=packets.len() as u64).collect(),
        times_ns,
        // NetShare's CSV of a capture has microseconds.
        time: TimeColumn {
            name: config.timestamp.column.clone(),
            unit: config.timestamp.unit.unwrap_or(TimeUnit::Microseconds),
            decimals: 0,
            datetime: None,
        },
        order,
        flows,
        not_used: capture.not_used,
    })
}

/// One direction's flows: packets that share all metadata columns.
fn group_keys(packets: &[Packet], config: &Resolved) -> Result<Vec<Vec<i64>>, ConfigError> {
    let key = |packet: &Packet| -> Result<Vec<i64>, ConfigError> {
        let names = config.metadata.iter().map(|field| field.column.as_str());
        names.map(|name| cell(name, packet, &packet.tuple).ok_or_else(|| unknown(name))).collect()
    };
    packets.iter().map(key).collect()
}

fn unknown(name: &str) -> ConfigError {
    ConfigError::Column {
        column: name.to_owned(),
        reason: format!(
            "packets have no such column (or only conversations have); they have `{}`",
            packet_field::ALL.join("`, `")
        ),
    }
}

fn cell(name: &str, packet: &Packet, tuple: &FiveTuple) -> Option<i64> {
    let address = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(address) => i64::from(u32::from(address)),
        // Only IPv4 packets are read.
        std::net::IpAddr::V6(_) => 0,
    };
    Some(match name {
        packet_field::SRC_IP => address(tuple.src_ip),
        packet_field::DST_IP => address(tuple.dst_ip),
        packet_field::SRC_PORT => tuple.src_port.into(),
        packet_field::DST_PORT => tuple.dst_port.into(),
        packet_field::PROTO => tuple.proto.into(),
        packet_field::LEN => packet.len_bytes.into(),
        packet_field::VERSION => 4,
        packet_field::IHL => packet.ihl.into(),
        packet_field::TOS => packet.tos.into(),
        packet_field::ID => packet.ip_id.into(),
        packet_field::FLAG => packet.ip_flags.into(),
        packet_field::OFF => packet.fragment_offset.into(),
        packet_field::TTL => packet.ttl.into(),
        packet_field::TCP_FLAGS => packet.tcp_flags.into(),
        packet_field::TCP_WINDOW => packet.tcp_window.into(),
        packet_field::PAYLOAD_LEN => packet.payload_len.into(),
        _ => return None,
    })
}
