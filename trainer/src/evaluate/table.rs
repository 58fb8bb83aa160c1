//! Traces made ready to be compared: the same columns, cells as numbers, flows.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ns_model_format::schema::{FieldKind, TraceKind, packet_field};
use ns_model_format::{Column, ColumnData, Value, cell};

use crate::config::{FieldType, Resolved};
use crate::ingest::Trace;
use crate::init::roles::{Role as TupleRole, figure, role};

/// A column of whole numbers with more distinct values is a quantity, unless
/// its name or its encoding says that it names something.
const FEW: usize = 64;
/// Categories that are the most frequent ones.
const TOP: usize = 64;

/// What a column is to a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An address: which one matters less than how often.
    Address,
    /// A port: exact where it names a service.
    Port,
    /// The transport protocol.
    Proto,
    /// A value that is one of some.
    Category,
    /// A number on a scale.
    Quantity,
}

/// A column that all compared traces have.
#[derive(Clone, Debug)]
pub struct FrameColumn {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Whether it is fixed in a flow.
    pub is_attribute: bool,
    /// How it is written.
    pub kind: FieldKind,
    /// The values that categories stand for, as they were met; empty for quantities.
    pub values: Vec<Cell>,
    /// The most frequent categories of the real trace, the first most so.
    pub top: Vec<u32>,
    /// Whether there are records without a value here.
    pub may_miss: bool,
    index: HashMap<Cell, u32>,
}

/// A value of a column that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// A whole number, an IPv4 address too.
    Int(i64),
    /// An IPv6 address.
    Wide(u128),
    /// Text, or a real number as it is written.
    Text(String),
    /// No value.
    Missing,
}

impl Cell {
    /// An address of 128 bits: one of IPv4 is the same in a trace that has no others.
    fn of_wide(number: u128) -> Cell {
        match cell::ip_address(number) {
            IpAddr::V4(address) => Cell::Int(u32::from(address).into()),
            IpAddr::V6(_) => Cell::Wide(number),
        }
    }
}

impl FrameColumn {
    fn id(&mut self, cell: Cell) -> u32 {
        if let Some(&id) = self.index.get(&cell) {
            return id;
        }
        let id = self.values.len() as u32;
        self.index.insert(cell.clone(), id);
        self.values.push(cell);
        id
    }

    /// The whole number that a category stands for.
    #[must_use]
    pub fn number(&self, id: u32) -> Option<i64> {
        match self.values.get(id as usize)? {
            Cell::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The IPv6 address that a category stands for.
    #[must_use]
    pub fn ipv6(&self, id: u32) -> Option<Ipv6Addr> {
        match self.values.get(id as usize)? {
            Cell::Wide(number) => Some(Ipv6Addr::from(*number)),
            _ => None,
        }
    }

    /// A category as it is written.
    #[must_use]
    pub fn text(&self, id: u32) -> String {
        match self.values.get(id as usize) {
            Some(Cell::Int(number)) if matches!(self.kind, FieldKind::Ipv4 | FieldKind::Ip) => {
                u32::try_from(*number)
                    .map_or(number.to_string(), |bits| Ipv4Addr::from(bits).to_string())
            }
            Some(Cell::Int(number)) => number.to_string(),
            Some(Cell::Wide(number)) => Ipv6Addr::from(*number).to_string(),
            Some(Cell::Text(text)) => text.clone(),
            Some(Cell::Missing) | None => "(none)".to_owned(),
        }
    }
}

/// Where the columns of a flow's 5-tuple are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TupleColumns {
    /// Source address.
    pub src_ip: usize,
    /// Destination address.
    pub dst_ip: usize,
    /// Source port.
    pub src_port: usize,
    /// Destination port.
    pub dst_port: usize,
    /// Protocol.
    pub proto: usize,
}

/// Where the figures of a flow record are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordColumns {
    /// Packets.
    pub packets: Option<usize>,
    /// Bytes.
    pub bytes: Option<usize>,
    /// Duration.
    pub duration: Option<usize>,
}

/// What compared traces have in common.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What a record is.
    pub kind: TraceKind,
    /// The columns, attributes first.
    pub columns: Vec<FrameColumn>,
    /// The 5-tuple, if there is one.
    pub tuple: Option<TupleColumns>,
    /// The figures of a flow record.
    pub record: RecordColumns,
    /// When the real trace begins, in nanoseconds since the epoch.
    pub origin_ns: i64,
    /// From its first record to its last.
    pub span_ns: i64,
    /// Bins of time in which records are counted, the longest first.
    pub bins_ns: Vec<i64>,
}

/// Cells of a column.
#[derive(Clone, Debug)]
pub enum Cells {
    /// Indices of [`FrameColumn::values`].
    Ids(Vec<u32>),
    /// Numbers, `NaN` where there is none.
    Numbers(Vec<f64>),
}

/// A trace in the columns of its frame. A flow is one direction; flows that
/// answer one another make a unit, which is sampled whole.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Nanoseconds since the epoch, ascending; one entry a record.
    pub times_ns: Vec<i64>,
    /// What times are counted from: see [`Frame::table`].
    pub origin_ns: i64,
    /// One entry a column of the frame.
    pub cells: Vec<Cells>,
    /// Each record's flow.
    pub flow_of: Vec<u32>,
    /// Each flow's unit.
    pub unit_of: Vec<u32>,
    /// How many units there are.
    pub units: usize,
}

impl Frame {
    /// The frame of a real trace: which columns there are, and what they are.
    #[must_use]
    pub fn of(real: &Trace, config: &Resolved) -> Frame {
        let fields = config.metadata.iter().zip(std::iter::repeat(true));
        let fields = fields.chain(config.timeseries.iter().zip(std::iter::repeat(false)));
        let columns: Vec<FrameColumn> = fields
            // Which side sent it is told by source and destination.
            .filter(|(field, _)| !is_direction(config.kind, &field.column))
            .filter_map(|(field, is_attribute)| {
                let column = real.column(&field.column)?;
                let is_quantity = is_quantity(&column.column, field.kind, field.encoding());
                let is_figure = figure(&field.column).is_some()
                    && matches!(column.column.data, ColumnData::Int(_) | ColumnData::Float(_));
                Some(FrameColumn {
                    name: field.column.clone(),
                    role: match role(&field.column) {
                        Some(TupleRole::SrcIp | TupleRole::DstIp) => Role::Address,
                        Some(TupleRole::SrcPort | TupleRole::DstPort) => Role::Port,
                        Some(TupleRole::Proto) => Role::Proto,
                        None if matches!(column.kind, FieldKind::Ipv4 | FieldKind::Ip) => {
                            Role::Address
                        }
                        None if is_quantity || is_figure => Role::Quantity,
                        None => Role::Category,
                    },
                    is_attribute,
                    kind: column.kind.clone(),
                    values: Vec::new(),
                    top: Vec::new(),
                    may_miss: false,
                    index: HashMap::new(),
                })
            })
            .collect();
        let tuple = {
            let at = |wanted| columns.iter().position(|column| role(&column.name) == Some(wanted));
            let find = || {
                Some(TupleColumns {
                    src_ip: at(TupleRole::SrcIp)?,
                    dst_ip: at(TupleRole::DstIp)?,
                    src_port: at(TupleRole::SrcPort)?,
                    dst_port: at(TupleRole::DstPort)?,
                    proto: at(TupleRole::Proto)?,
                })
            };
            find().filter(|tuple| {
                let of = [tuple.src_ip, tuple.dst_ip, tuple.src_port, tuple.dst_port, tuple.proto];
                of.iter().all(|&column| columns[column].is_attribute)
            })
        };
        let record = if config.kind == TraceKind::Packets {
            RecordColumns::default()
        } else {
            use crate::init::roles::Figure::{Bytes, Duration, Packets};
            let at = |wanted| {
                columns.iter().position(|column| {
                    column.role == Role::Quantity && figure(&column.name) == Some(wanted)
                })
            };
            RecordColumns { packets: at(Packets), bytes: at(Bytes), duration: at(Duration) }
        };
        let times = &real.times_ns;
        let span_ns = times.last().zip(times.first()).map_or(0, |(last, first)| last - first);
        let origin_ns = times.first().copied().unwrap_or(0);
        let bins_ns = bins(span_ns);
        Frame { kind: config.kind, columns, tuple, record, origin_ns, span_ns, bins_ns }
    }

    /// The column of a name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The column that plays a part in a 5-tuple, by its name.
    fn with_role(&self, wanted: TupleRole) -> Option<usize> {
        self.columns.iter().position(|column| role(&column.name) == Some(wanted))
    }

    /// The protocol, if there is one.
    #[must_use]
    pub fn proto_column(&self) -> Option<usize> {
        self.with_role(TupleRole::Proto)
    }

    /// The destination port, if there is one.
    #[must_use]
    pub fn dst_port(&self) -> Option<usize> {
        self.with_role(TupleRole::DstPort)
    }

    /// The source port, if there is one.
    #[must_use]
    pub fn src_port(&self) -> Option<usize> {
        self.with_role(TupleRole::SrcPort)
    }

    /// Source and destination address, if there are both.
    #[must_use]
    pub fn address_pair(&self) -> Option<[usize; 2]> {
        Some([self.with_role(TupleRole::SrcIp)?, self.with_role(TupleRole::DstIp)?])
    }

    /// The columns of addresses.
    pub fn addresses(&self) -> impl Iterator<Item = usize> {
        let all = self.columns.iter().enumerate();
        all.filter(|(_, column)| column.role == Role::Address).map(|(at, _)| at)
    }

    /// The protocol number that a category of the protocol column stands for.
    #[must_use]
    pub fn proto(&self, id: u32) -> Option<u8> {
        let column = &self.columns[self.tuple?.proto];
        match column.values.get(id as usize)? {
            Cell::Int(number) => u8::try_from(*number).ok(),
            Cell::Text(text) => match text.to_ascii_lowercase().as_str() {
                "tcp" => Some(6),
                "udp" => Some(17),
                "icmp" => Some(1),
                "icmpv6" | "icmp6" | "ipv6-icmp" => Some(58),
                other => other.parse().ok(),
            },
            _ => None,
        }
    }

    /// The index of a column's category, a new one if it was not met.
    pub(super) fn category(&mut self, column: usize, cell: Cell) -> u32 {
        self.columns[column].id(cell)
    }

    /// Takes note of what the real trace has most, and of where either has nothing.
    pub fn note(&mut self, real: &Table, synthetic: &Table) {
        for (at, column) in self.columns.iter_mut().enumerate() {
            let missing = |table: &Table| table.numbers(at).iter().any(|x| x.is_nan());
            match &real.cells[at] {
                Cells::Numbers(_) => column.may_miss = missing(real) || missing(synthetic),
                Cells::Ids(ids) => {
                    let mut counts = vec![0_u32; column.values.len()];
                    ids.iter().for_each(|&id| counts[id as usize] += 1);
                    let mut order: Vec<u32> = (0..counts.len() as u32).collect();
                    order.sort_by_key(|&id| std::cmp::Reverse(counts[id as usize]));
                    order.truncate(TOP);
                    column.top = order;
                }
            }
        }
    }

    /// Puts a trace into this frame's columns.
    ///
    /// Its times are counted from the real trace's beginning if it begins within a span
    /// of that, as what a model generates and parts of one trace do; else from its own
    /// first record. With `to_span`, what comes later than the real trace is long is left
    /// out, so that traces of one length are compared.
    pub fn table(&mut self, trace: &Trace, to_span: bool) -> Table {
        let first = trace.times_ns.first().copied().unwrap_or(0);
        let is_of_its_time = first.abs_diff(self.origin_ns) < self.span_ns.unsigned_abs();
        let origin_ns = if is_of_its_time { self.origin_ns } else { first };
        let end = origin_ns.saturating_add(self.span_ns);
        let rows = match to_span {
            true => trace.times_ns.partition_point(|time| *time <= end),
            false => trace.times_ns.len(),
        };
        let direction = trace
            .column(packet_field::DIRECTION)
            .filter(|_| is_direction(self.kind, packet_field::DIRECTION));
        let is_answer = |row: usize| {
            direction.is_some_and(|direction| direction.column.value(row) == Value::Int(1))
        };
        // A conversation's packets are seen from its first sender; here, as they were sent.
        let swapped = |column: usize, tuple: Option<TupleColumns>| {
            let tuple = tuple.filter(|_| direction.is_some())?;
            let pairs = [(tuple.src_ip, tuple.dst_ip), (tuple.src_port, tuple.dst_port)];
            pairs.iter().find_map(|&(a, b)| match column {
                _ if column == a => Some(b),
                _ if column == b => Some(a),
                _ => None,
            })
        };
        let tuple = self.tuple;
        let names: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let mut cells = Vec::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            let Some(column) = trace.column(name) else {
                cells.push(Cells::Numbers(vec![f64::NAN; rows]));
                continue;
            };
            let other = swapped(at, tuple).and_then(|other| trace.column(&names[other]));
            let source = |row: usize| match other {
                Some(other) if is_answer(row) => &other.column,
                _ => &column.column,
            };
            cells.push(match self.columns[at].role {
                Role::Quantity => Cells::Numbers(
                    (0..rows)
                        .map(|row| source(row).value(row).as_f64().unwrap_or(f64::NAN))
                        .collect(),
                ),
                _ => {
                    let frame = &mut self.columns[at];
                    let mut words: HashMap<u32, u32> = HashMap::new();
                    Cells::Ids(
                        (0..rows)
                            .map(|row| match source(row).value(row) {
                                Value::Int(number) => frame.id(Cell::Int(number)),
                                Value::Wide(number) => frame.id(Cell::of_wide(number.into())),
                                Value::Float(number) => frame.id(Cell::Text(number.to_string())),
                                Value::Text(word) => *words.entry(word).or_insert_with(|| {
                                    let words = column.column.words();
                                    let text = words.get(word as usize).cloned();
                                    frame.id(Cell::Text(text.unwrap_or_default()))
                                }),
                                _ => frame.id(Cell::Missing),
                            })
                            .collect(),
                    )
                }
            });
        }
        let mut table = Table {
            times_ns: trace.times_ns[..rows].to_vec(),
            origin_ns,
            cells,
            ..Table::default()
        };
        match direction {
            Some(_) => table.flows_of_conversations(&trace.flows, is_answer),
            None => table.flows_as_they_are(&trace.flows, self),
        }
        table
    }
}

/// Whether a column says which side of a conversation sent a packet; a table may have
/// a column of that name that says something else.
fn is_direction(kind: TraceKind, name: &str) -> bool {
    kind == TraceKind::Packets && name == packet_field::DIRECTION
}

/// Bins of powers of ten nanoseconds, at most four, of which the real span has at least 20.
fn bins(span_ns: i64) -> Vec<i64> {
    let decades = (3..=18).rev().map(|power| 10_i64.pow(power));
    decades.filter(|bin| span_ns / bin >= 20).take(4).collect()
}

/// Whether numbers are on a scale: text and what is encoded as names is not.
fn is_quantity(column: &Column, kind: FieldType, encoding: Option<&str>) -> bool {
    match (kind, &column.data) {
        (FieldType::Float | FieldType::Datetime, _) => true,
        (FieldType::Integer, ColumnData::Int(cells)) => {
            let named = encoding.is_some_and(|name| {
                matches!(name, "categorical" | "topk") || name.starts_with("word2vec_")
            });
            let mut distinct = std::collections::HashSet::new();
            !named && cells.iter().any(|cell| distinct.insert(*cell) && distinct.len() > FEW)
        }
        _ => false,
    }
}

impl Table {
    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.times_ns.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times_ns.is_empty()
    }

    /// How many flows.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.unit_of.len()
    }

    /// The categories of a column; none for a quantity.
    #[must_use]
    pub fn ids(&self, column: usize) -> &[u32] {
        match &self.cells[column] {
            Cells::Ids(ids) => ids,
            Cells::Numbers(_) => &[],
        }
    }

    /// The numbers of a quantity; none for others.
    #[must_use]
    pub fn numbers(&self, column: usize) -> &[f64] {
        match &self.cells[column] {
            Cells::Numbers(numbers) => numbers,
            Cells::Ids(_) => &[],
        }
    }

    /// A conversation is a unit; each of its directions is a flow.
    fn flows_of_conversations(&mut self, flows: &[Vec<u32>], is_answer: impl Fn(usize) -> bool) {
        self.flow_of = vec![0; self.len()];
        for rows in flows {
            let mut directions: [Option<u32>; 2] = [None; 2];
            let unit = self.units as u32;
            for &row in rows.iter().filter(|row| (**row as usize) < self.times_ns.len()) {
                let direction = &mut directions[usize::from(is_answer(row as usize))];
                self.flow_of[row as usize] = *direction.get_or_insert_with(|| {
                    self.unit_of.push(unit);
                    self.unit_of.len() as u32 - 1
                });
            }
            self.units += usize::from(directions != [None; 2]);
        }
    }

    /// Flows as they were read; where a 5-tuple names them, those in opposite
    /// directions make a unit.
    pub(super) fn flows_as_they_are(&mut self, flows: &[Vec<u32>], frame: &Frame) {
        self.flow_of = vec![0; self.len()];
        let mut units: HashMap<([Endpoint; 2], u32), u32> = HashMap::new();
        for rows in flows {
            let rows =
                rows.iter().map(|row| *row as usize).filter(|row| *row < self.times_ns.len());
            let mut first = None;
            for row in rows {
                first.get_or_insert(row);
                self.flow_of[row] = self.unit_of.len() as u32;
            }
            let Some(first) = first else { continue };
            let next = self.units as u32;
            let unit = match frame.tuple {
                Some(tuple) => {
                    let cell = |column: usize| frame.value(self, column, first);
                    let mut ends = [
                        (cell(tuple.src_ip), cell(tuple.src_port)),
                        (cell(tuple.dst_ip), cell(tuple.dst_port)),
                    ];
                    ends.sort();
                    let proto = self.ids(tuple.proto).get(first).copied().unwrap_or(0);
                    *units.entry((ends, proto)).or_insert(next)
                }
                None => next,
            };
            self.units += usize::from(unit == next);
            self.unit_of.push(unit);
        }
    }
}

/// One end of a conversation: address and port, as text.
type Endpoint = (String, String);

impl Frame {
    fn value(&self, table: &Table, column: usize, row: usize) -> String {
        table.ids(column).get(row).map(|&id| self.columns[column].text(id)).unwrap_or_default()
    }
}
