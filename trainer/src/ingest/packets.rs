//! Captures' packets as a [`Trace`].

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ns_model_format::schema::{FieldKind, TimeUnit, packet_field};
use ns_model_format::{Column, ColumnData, Packet, cell};

use super::compact::{Addresses, CompactPacket};
use super::pcap::{self, Counts};
use super::sample::{FlowSampler, Verdict};
use super::source::Source;
use super::unusable::Unusable;
use super::{
    IngestError, NotUsed, OnError, Reading, TimeColumn, Trace, TraceColumn, files, group_flows,
};
use crate::config::{ConfigError, FlowKind, Resolved};

/// The packets of captures in order of time: all, or a sample of whole flows.
#[derive(Debug)]
struct Packets {
    packets: Vec<CompactPacket>,
    /// Their IPv6 addresses.
    addresses: Addresses,
    not_used: NotUsed,
    share: f64,
    carrying: u64,
    input_sha256: String,
}

/// Reads captures and makes flows of their packets. Memory is bounded by
/// [`Reading::max_records`], however large the captures are.
///
/// # Errors
/// A column that packets do not have; a file that cannot be read, is not a
/// capture, or is damaged (unless skipped); no usable packet in any.
pub fn trace(
    paths: &[PathBuf],
    config: &Resolved,
    reading: Reading,
) -> Result<Trace, crate::fit::FitError> {
    // Columns first: better to know before gigabytes are read.
    let identity = Identity::of(config)?;
    let columns = columns_of(config)?;
    let packets = read(paths, &identity, reading)?;
    Ok(assemble(packets, &columns, &identity, config))
}

/// Reads the packets of captures: all that fit, in order of time.
fn read(paths: &[PathBuf], identity: &Identity, reading: Reading) -> Result<Packets, IngestError> {
    let mut sampler = FlowSampler::of(reading);
    let mut packets: Vec<CompactPacket> = Vec::new();
    let mut addresses = Addresses::default();
    let mut counts = Counts::default();
    let mut digests = Vec::new();
    let mut number = 0_u32;
    for path in paths {
        let io = |source| IngestError::Io { path: path.clone(), source };
        let mut source = Source::open(path).map_err(io)?;
        let read = pcap::stream(&mut source, path, reading.on_error, &mut counts, |packet, _| {
            let verdict = sampler.offer(identity.flow(&sampler, &packet));
            if verdict == Verdict::Leave {
                return;
            }
            // Above 2^32 numbers go round; then packets of one instant may change places.
            packets.push(CompactPacket::new(&packet, number, &mut addresses));
            number = number.wrapping_add(1);
            if verdict == Verdict::KeepAndThin {
                packets.retain(|packet| {
                    sampler.keeps(identity.flow(&sampler, &packet.spread(&addresses)))
                });
                addresses.keep_those_of(&mut packets);
            }
        });
        match read {
            // A folder of captures may well hold a note.
            Err(IngestError::NotACapture { .. })
                if reading.on_error == OnError::Skip && paths.len() > 1 =>
            {
                counts.tally.count(Unusable::NoCapture);
            }
            other => other?,
        }
        digests.push(source.finish().map_err(io)?);
    }
    let mut not_used = counts.tally.into_not_used();
    if packets.is_empty() {
        let path = paths.first().map_or(Path::new(""), PathBuf::as_path).to_owned();
        let others = paths.len().saturating_sub(1);
        return Err(IngestError::Empty { path, others, not_used });
    }
    sampler.count_not_used(&mut not_used);
    // In place; captures are nearly in order.
    packets.sort_unstable_by_key(|packet| (packet.time_ns, packet.number));
    Ok(Packets {
        packets,
        addresses,
        not_used,
        share: sampler.share(),
        carrying: counts.carrying,
        input_sha256: files::joined_digest(&digests),
    })
}

/// The columns of a packet as a table has them, without its time.
pub(crate) const COLUMNS: [&str; 16] = [
    packet_field::SRC_IP,
    packet_field::DST_IP,
    packet_field::SRC_PORT,
    packet_field::DST_PORT,
    packet_field::PROTO,
    packet_field::LEN,
    packet_field::VERSION,
    packet_field::IHL,
    packet_field::TOS,
    packet_field::ID,
    packet_field::FLAG,
    packet_field::OFF,
    packet_field::TTL,
    packet_field::TCP_FLAGS,
    packet_field::TCP_WINDOW,
    packet_field::PAYLOAD_LEN,
];

/// A packet as a row of a table.
#[derive(Clone, Debug)]
pub(crate) struct PacketRow {
    /// Nanoseconds since the epoch.
    pub(crate) time_ns: i64,
    /// One a name in [`COLUMNS`].
    pub(crate) cells: [Cell; COLUMNS.len()],
}

/// A value of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// A whole number of at most 32 bits.
    Number(i64),
    /// An address.
    Address(IpAddr),
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Number(number) => write!(f, "{number}"),
            Cell::Address(address) => write!(f, "{address}"),
        }
    }
}

impl Cell {
    /// A number that only equal cells of a column have.
    fn key(self) -> u128 {
        match self {
            Cell::Number(number) => number as u128,
            Cell::Address(address) => cell::ip_number(address),
        }
    }
}

impl PacketRow {
    /// Before which of [`COLUMNS`] the time stands: after the 5-tuple.
    pub(crate) const TIME_AT: usize = 5;
}

/// Hands all usable packets of captures over, file after file; returns what
/// was not used, by reason.
///
/// # Errors
/// As [`trace`].
pub(crate) fn each(
    paths: &[PathBuf],
    on_error: OnError,
    mut packet: impl FnMut(&PacketRow),
) -> Result<NotUsed, crate::fit::FitError> {
    let fields = COLUMNS.map(|name| PacketField::of(name, false));
    let fields: Vec<PacketField> = fields.into_iter().collect::<Result<_, _>>()?;
    let mut counts = Counts::default();
    let mut row = PacketRow { time_ns: 0, cells: [Cell::Number(0); COLUMNS.len()] };
    for path in paths {
        let io = |source| IngestError::Io { path: path.clone(), source };
        let mut source = Source::open(path).map_err(io)?;
        pcap::stream(&mut source, path, on_error, &mut counts, |found, _| {
            row.time_ns = found.time_ns;
            for (cell, field) in row.cells.iter_mut().zip(&fields) {
                *cell = field.cell(&found, false);
            }
            packet(&row);
        })?;
    }
    Ok(counts.tally.into_not_used())
}

/// A usable packet's frame as it was captured.
pub(crate) struct Frame<'a> {
    /// What the bytes begin with, by tcpdump.org's list.
    pub(crate) link_type: u32,
    /// Nanoseconds since the epoch.
    pub(crate) time_ns: i64,
    /// Bytes captured.
    pub(crate) data: &'a [u8],
    /// Bytes on the wire.
    pub(crate) original_len: u32,
    /// Drawn from what names the packet's flow and a seed.
    pub(crate) flow: u64,
}

/// Hands the frames of all usable packets of captures over, file after file;
/// returns what was not used, by reason.
///
/// # Errors
/// As [`trace`].
pub(crate) fn each_frame(
    paths: &[PathBuf],
    config: &Resolved,
    reading: Reading,
    sampler: &FlowSampler,
    mut frame: impl FnMut(&Frame<'_>),
) -> Result<NotUsed, crate::fit::FitError> {
    let identity = Identity::of(config)?;
    let mut counts = Counts::default();
    for path in paths {
        let io = |source| IngestError::Io { path: path.clone(), source };
        let mut source = Source::open(path).map_err(io)?;
        pcap::stream(&mut source, path, reading.on_error, &mut counts, |packet, record| {
            frame(&Frame {
                link_type: record.link_type,
                time_ns: packet.time_ns,
                data: record.data,
                original_len: record.original_len,
                flow: identity.flow(sampler, &packet),
            });
        })?;
    }
    Ok(counts.tally.into_not_used())
}

/// What makes packets one flow.
#[derive(Clone, Debug)]
enum Identity {
    /// A 5-tuple, in either direction.
    Conversation,
    /// Equal values of some fields.
    Fields(Vec<PacketField>),
}

impl Identity {
    fn of(config: &Resolved) -> Result<Identity, ConfigError> {
        if config.flow == FlowKind::Conversation {
            return Ok(Identity::Conversation);
        }
        let fields = config.metadata.iter().map(|field| PacketField::of(&field.column, false));
        Ok(Identity::Fields(fields.collect::<Result<_, _>>()?))
    }

    /// A flow's number; that of an IPv4 flow is the same whatever else there is.
    fn flow(&self, sampler: &FlowSampler, packet: &Packet) -> u64 {
        let mut hash = sampler.flow();
        let halves = |address: u128| [(address >> 64) as u64, address as u64];
        match self {
            Identity::Conversation => {
                let tuple = &packet.tuple;
                let mut ends = [(tuple.src_ip, tuple.src_port), (tuple.dst_ip, tuple.dst_port)];
                ends.sort_unstable();
                let [(a, p), (b, q)] = ends;
                match (a, b) {
                    (IpAddr::V4(a), IpAddr::V4(b)) => {
                        hash.add(u64::from(u32::from(a)) << 32 | u64::from(u32::from(b)));
                    }
                    _ => [a, b]
                        .into_iter()
                        .flat_map(|address| halves(cell::ip_number(address)))
                        .for_each(|half| hash.add(half)),
                }
                hash.add(u64::from(p) << 32 | u64::from(q) << 16 | u64::from(tuple.proto));
            }
            Identity::Fields(fields) => {
                for field in fields {
                    match field.cell(packet, false) {
                        Cell::Number(number) => hash.add(number as u64),
                        Cell::Address(IpAddr::V4(address)) => hash.add(u32::from(address).into()),
                        Cell::Address(IpAddr::V6(address)) => {
                            halves(address.into()).into_iter().for_each(|half| hash.add(half));
                        }
                    }
                }
            }
        }
        hash.finish()
    }
}

/// A column of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PacketField {
    /// Source (0) or destination (1) address.
    Address(usize),
    /// Source (0) or destination (1) port.
    Port(usize),
    /// IP protocol number.
    Proto,
    /// IP total length.
    Len,
    /// IP version.
    Version,
    /// Length of the IP headers in words.
    Ihl,
    /// Type of service.
    Tos,
    /// IP identification.
    Id,
    /// IP flag bits.
    Flag,
    /// Fragment offset.
    Off,
    /// Time to live.
    Ttl,
    /// TCP flags.
    TcpFlags,
    /// TCP window.
    TcpWindow,
    /// Bytes after the transport header.
    PayloadLen,
    /// 0 from the conversation's first sender, 1 towards it.
    Direction,
}

impl PacketField {
    fn of(name: &str, conversations: bool) -> Result<PacketField, ConfigError> {
        Ok(match name {
            packet_field::SRC_IP => PacketField::Address(0),
            packet_field::DST_IP => PacketField::Address(1),
            packet_field::SRC_PORT => PacketField::Port(0),
            packet_field::DST_PORT => PacketField::Port(1),
            packet_field::PROTO => PacketField::Proto,
            packet_field::LEN => PacketField::Len,
            packet_field::VERSION => PacketField::Version,
            packet_field::IHL => PacketField::Ihl,
            packet_field::TOS => PacketField::Tos,
            packet_field::ID => PacketField::Id,
            packet_field::FLAG => PacketField::Flag,
            packet_field::OFF => PacketField::Off,
            packet_field::TTL => PacketField::Ttl,
            packet_field::TCP_FLAGS => PacketField::TcpFlags,
            packet_field::TCP_WINDOW => PacketField::TcpWindow,
            packet_field::PAYLOAD_LEN => PacketField::PayloadLen,
            packet_field::DIRECTION if conversations => PacketField::Direction,
            _ => return Err(unknown(name)),
        })
    }

    /// Its value; `exchanged`: source and destination are those of the other direction.
    fn cell(self, packet: &Packet, exchanged: bool) -> Cell {
        let tuple = &packet.tuple;
        let number: i64 = match self {
            PacketField::Address(0) => return Cell::Address(tuple.src_ip),
            PacketField::Address(_) => return Cell::Address(tuple.dst_ip),
            PacketField::Port(0) => tuple.src_port.into(),
            PacketField::Port(_) => tuple.dst_port.into(),
            PacketField::Proto => tuple.proto.into(),
            PacketField::Len => packet.len_bytes.into(),
            PacketField::Version => {
                if tuple.src_ip.is_ipv6() {
                    6
                } else {
                    4
                }
            }
            PacketField::Ihl => packet.ihl.into(),
            PacketField::Tos => packet.tos.into(),
            PacketField::Id => packet.ip_id.into(),
            PacketField::Flag => packet.ip_flags.into(),
            PacketField::Off => packet.fragment_offset.into(),
            PacketField::Ttl => packet.ttl.into(),
            PacketField::TcpFlags => packet.tcp_flags.into(),
            PacketField::TcpWindow => packet.tcp_window.into(),
            PacketField::PayloadLen => packet.payload_len.into(),
            PacketField::Direction => exchanged.into(),
        };
        Cell::Number(number)
    }
}

/// A column as it grows: addresses are numbers of 32 bits while none is of IPv6.
struct Growing {
    name: String,
    field: PacketField,
    cells: ColumnData,
}

impl Growing {
    fn new(name: &str, field: PacketField, has_v6: bool, len: usize) -> Growing {
        let cells = match field {
            PacketField::Address(_) if has_v6 => ColumnData::Wide(Vec::with_capacity(len)),
            _ => ColumnData::Int(Vec::with_capacity(len)),
        };
        Growing { name: name.to_owned(), field, cells }
    }

    fn push(&mut self, packet: &Packet, exchanged: bool) {
        let cell = self.field.cell(packet, exchanged);
        match (&mut self.cells, cell) {
            (ColumnData::Wide(cells), cell) => cells.push(cell.key()),
            (ColumnData::Int(cells), Cell::Number(number)) => cells.push(number),
            // An IPv4 address mapped into IPv6 has its bits last.
            (ColumnData::Int(cells), cell) => cells.push((cell.key() as u32).into()),
            _ => {}
        }
    }

    fn finish(self) -> TraceColumn {
        let kind = match (&self.cells, self.field) {
            (ColumnData::Wide(_), _) => FieldKind::Ip,
            (_, PacketField::Address(_)) => FieldKind::Ipv4,
            _ => FieldKind::Integer,
        };
        TraceColumn { column: Column::new(&self.name, self.cells), kind, missing: None }
    }
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

/// The configured columns, with their names.
fn columns_of(config: &Resolved) -> Result<Vec<(String, PacketField)>, ConfigError> {
    let conversations = config.flow == FlowKind::Conversation;
    let fields = config.metadata.iter().chain(&config.timeseries);
    let column = |name: &str| Ok((name.to_owned(), PacketField::of(name, conversations)?));
    fields.map(|field| column(&field.column)).collect()
}

fn assemble(
    read: Packets,
    columns: &[(String, PacketField)],
    identity: &Identity,
    config: &Resolved,
) -> Trace {
    let Packets { mut packets, addresses, not_used, share, carrying, input_sha256 } = read;
    let times_ns: Vec<i64> = packets.iter().map(|packet| packet.time_ns).collect();
    let timeout = config.idle_timeout.map(|seconds| (seconds * 1e9) as i64);
    let flows = match identity {
        Identity::Conversation => {
            group_flows(packets.iter().map(CompactPacket::conversation), &times_ns, timeout)
        }
        Identity::Fields(fields) => {
            let key = |packet: &CompactPacket| -> Vec<u128> {
                let packet = packet.spread(&addresses);
                fields.iter().map(|field| field.cell(&packet, false).key()).collect()
            };
            group_flows(packets.iter().map(key), &times_ns, timeout)
        }
    };
    if matches!(identity, Identity::Conversation) {
        // Seen from the first sender, and who sent.
        for flow in &flows {
            let first = packets[flow[0] as usize];
            for &row in flow {
                let packet = &mut packets[row as usize];
                if !packet.goes_as(&first) {
                    packet.exchange();
                }
            }
        }
    }
    let names = |fields: &[crate::config::FieldConfig]| -> Vec<String> {
        fields.iter().map(|field| field.column.clone()).collect()
    };
    let mut order = names(&config.metadata);
    let total = packets.len();
    let of_v6 = packets.iter().filter(|packet| packet.is_v6()).count();
    let mut growing: Vec<Growing> = columns
        .iter()
        .map(|(name, field)| Growing::new(name, *field, !addresses.is_empty(), total))
        .collect();
    if (1..total).contains(&of_v6) && config.lacks_version() {
        let name = packet_field::VERSION;
        growing.push(Growing::new(name, PacketField::Version, false, total));
        order.push(name.to_owned());
    }
    for packet in &packets {
        let (spread, exchanged) = (packet.spread(&addresses), packet.is_exchanged());
        growing.iter_mut().for_each(|column| column.push(&spread, exchanged));
    }
    drop(packets);
    order.push(config.timestamp.column.clone());
    order.extend(names(&config.timeseries));
    let mut remarks = Vec::new();
    if of_v6 > 0 {
        remarks.push(format!(
            "{of_v6} of the packets are of IPv6, {} of IPv4: addresses have 128 bits",
            total - of_v6
        ));
    }
    if carrying > 0 {
        remarks.push(format!("{carrying} of the packets read carry another IP packet inside"));
    }
    Trace {
        columns: growing.into_iter().map(Growing::finish).collect(),
        input_rows: (1..=total as u64).collect(),
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
        not_used,
        share,
        remarks,
        input_sha256,
    }
}
