//! A trace as tokens: how its fields' values and times become tokens, and which variables
//! and heads a model of it has.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use ns_model_format::autoregressive::{RecordSays, Says, Variable};
use ns_model_format::codec::{Choice, Codec, CodecError, TokenOptions, TokensCodec};
use ns_model_format::schema::packet_field::DIRECTION;
use ns_model_format::{Column, ColumnData, Field, FieldKind, Schema};

use super::absent;
use super::chain::{Chain, FEW, FIRST_FREE, head, in_order, shared_rows, variable};
use super::joint::{Joined, again, divide, joint_head, pair, support};
use super::measured::{
    CONSTANT_SHARE, Measured, Records, constant, directions, is_first_of_flow, mark_steps, mean,
    only_bins,
};
use crate::arrays::{Array, Arrays};
use crate::config::FieldConfig;
use crate::encoders::configured;
use crate::ingest::{Trace, TraceColumn};
use crate::work::WorkError;

/// A gap of exactly so many microseconds has a token of its own if so many of all are; at
/// most so many.
const FREQUENT_GAP: f64 = 0.005;
const MOST_GAPS: usize = 64;
/// Numbers of a record with tokens of their own, at most: each is a cost of every record, and
/// rarer ones lie in bins as well.
const MOST_OF_RECORDS: usize = 96;
/// Numbers of a record whose means are planned.
const MOST_MEANS: usize = 3;
const DURATION_BINS: usize = 32;
const GAP_BINS: usize = 64;
/// Where ports change their meaning: RFC 6335, and where systems begin to count.
const PORT_EDGES: [f64; 3] = [1024.0, DYNAMIC as f64, 49152.0];
/// The first port that systems give out.
const DYNAMIC: i64 = 32768;
/// A host or service has a token if so many of all records are its, and so many at least.
const HEAVY: f64 = 0.002;
const HEAVY_LEAST: f64 = 16.0;

/// A trace as tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Flows {
    /// `[flows, variables]`; a variable's size where it does not apply.
    pub(crate) attributes: Vec<u32>,
    /// Where each flow's records end.
    pub(crate) ends: Vec<u64>,
    /// `[records, heads]`.
    pub(crate) records: Vec<u32>,
    /// Microseconds since the flow's first record.
    pub(crate) since_us: Vec<f32>,
}

impl Flows {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Writes them to a file.
    pub(crate) fn write(self, path: &Path) -> Result<(), WorkError> {
        let mut arrays = Arrays::default();
        arrays.put("attributes", Array::U32(self.attributes));
        arrays.put("ends", Array::U64(self.ends));
        arrays.put("records", Array::U32(self.records));
        arrays.put("since_us", Array::F32(self.since_us));
        arrays.write(path, &())
    }

    /// Reads them back: flows of this chain.
    pub(crate) fn read(path: &Path, chain: &Chain) -> Result<Flows, WorkError> {
        let (mut arrays, ()) = Arrays::read(path)?;
        let damaged =
            |reason: &str| WorkError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        let mut all = || {
            Some(Flows {
                attributes: arrays.take_u32("attributes")?,
                ends: arrays.take_u64("ends")?,
                records: arrays.take_u32("records")?,
                since_us: arrays.take_f32("since_us")?,
            })
        };
        let flows = all().ok_or_else(|| damaged("it has no flows as tokens"))?;
        let (variables, heads) = (chain.variables.len(), chain.heads.len());
        let begins = std::iter::once(0).chain(flows.ends.iter().copied());
        let records = flows.since_us.len();
        let fits = flows.attributes.len() == flows.len() * variables
            && flows.records.len() == records * heads
            && begins.zip(&flows.ends).all(|(begin, end)| begin < *end)
            && flows.ends.last().copied().unwrap_or(0) == records as u64
            && flows
                .attributes
                .iter()
                .zip(chain.variables.iter().cycle())
                .all(|(&token, variable)| token as usize <= variable.size)
            && flows
                .records
                .iter()
                .zip(chain.heads.iter().cycle())
                .all(|(&token, head)| (token as usize) < head.size);
        if fits { Ok(flows) } else { Err(damaged("its flows are not of this plan")) }
    }

    /// The records of a flow.
    pub(crate) fn range(&self, flow: usize) -> std::ops::Range<usize> {
        let begin = if flow == 0 { 0 } else { self.ends[flow - 1] as usize };
        begin..self.ends[flow] as usize
    }
}

/// What a field's values are names of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Names {
    /// Hosts, by so many octets.
    Hosts(u8),
    Ports,
}

fn names(field: &FieldConfig, kind: &FieldKind) -> Option<Names> {
    let is_port = field.n_bits == Some(16)
        || field.column.to_ascii_lowercase().contains("port")
        || field.word2vec_name().is_some_and(|name| name.contains("port"));
    match (kind, field.n_bits) {
        (FieldKind::Ipv4, _) | (FieldKind::Integer, Some(32)) => Some(Names::Hosts(4)),
        (FieldKind::Ip, _) => Some(Names::Hosts(16)),
        (FieldKind::Mac, _) => Some(Names::Hosts(6)),
        _ => is_port.then_some(Names::Ports),
    }
}

/// What is to become of a field's values by what other fields have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Named {
    /// Those with a token although few flows have them: names that other fields of the same
    /// names have tokens for, such as a server's port where its answer came first; and hosts and
    /// services that many records are of, such as a group that one host sends to all the time.
    known: Vec<Choice>,
    /// Ports from 1024 on that flows have, which no bin is to say again: a connection is known by
    /// them.
    skipped: Vec<i64>,
}

impl Named {
    /// Says so to the field.
    pub(crate) fn tell(self, options: &mut TokenOptions) {
        options.known = self.known;
        options.skipped = self.skipped;
    }
}

/// For each field, what is to become of its values by what other fields have.
///
/// # Errors
/// Fields that are not there, and values that cannot be tokens.
pub(crate) fn named(trace: &Trace, fields: &[FieldConfig]) -> Result<Vec<Named>, CodecError> {
    let firsts: Vec<usize> = trace.flows.iter().map(|flow| flow[0] as usize).collect();
    let heavy = (trace.times_ns.len() as f64 * HEAVY).max(HEAVY_LEAST);
    let mut there: Vec<HashSet<Choice>> = Vec::new();
    let mut known: BTreeMap<Names, HashSet<Choice>> = BTreeMap::new();
    let mut ports: BTreeSet<i64> = BTreeSet::new();
    for field in fields {
        let TraceColumn { column, kind, .. } = configured(trace, field)?;
        let mut values = HashSet::new();
        if let Some(names) = names(field, kind) {
            let column = column.pick(&firsts);
            let codec = TokensCodec::fit_with(&column, &options(field, &column, kind, true))?;
            let mut tokens = Vec::new();
            codec.tokens(&column, &mut tokens)?;
            let octets = codec.sizes().len();
            let known = known.entry(names).or_default();
            let mut records: HashMap<Choice, usize> = HashMap::new();
            for (row, flow) in trace.flows.iter().enumerate() {
                let value = Choice::of(&column, row);
                if codec.is_exact(tokens[row * octets]) {
                    known.insert(value.clone());
                }
                *records.entry(value).or_default() += flow.len();
            }
            let is_dynamic = |value: &Choice| {
                names == Names::Ports && matches!(value, Choice::Int(port) if *port >= DYNAMIC)
            };
            let is_heavy = |(value, records): &(&Choice, &usize)| {
                **records as f64 >= heavy && !is_dynamic(value)
            };
            known.extend(records.iter().filter(is_heavy).map(|(value, _)| value.clone()));
            if names == Names::Ports {
                // A system port is a service's, and no connection's alone.
                ports.extend(records.keys().filter_map(|value| match value {
                    Choice::Int(port) => Some(*port).filter(|port| *port as f64 >= FIRST_FREE),
                    _ => None,
                }));
            }
            values.extend(records.into_keys());
        }
        there.push(values);
    }
    let of_field = |(field, values): (&FieldConfig, HashSet<Choice>)| {
        let names = names(field, &configured(trace, field)?.kind);
        let known = names.and_then(|names| known.get(&names));
        let mut known: Vec<Choice> =
            known.map_or_else(Vec::new, |known| known.intersection(&values).cloned().collect());
        known.retain(|value| *value != Choice::Missing);
        known.sort_unstable();
        let skipped = match names {
            Some(Names::Ports) => ports.iter().copied().collect(),
            _ => Vec::new(),
        };
        Ok(Named { known, skipped })
    };
    fields.iter().zip(there).map(of_field).collect()
}

/// How the values of a field become tokens. Only one that is `fixed` in a flow can fall to octets.
pub(crate) fn options(
    field: &FieldConfig,
    column: &Column,
    kind: &FieldKind,
    fixed: bool,
) -> TokenOptions {
    let names = names(field, kind);
    let distinct = distinct(column, 4 * FEW);
    let real = matches!(column.data, ColumnData::Float(_));
    let number = real || matches!(column.data, ColumnData::Int(_));
    let most_values = match number && !fixed {
        true => MOST_OF_RECORDS,
        false => TokenOptions::default().most_values,
    };
    match names {
        Some(Names::Hosts(octets)) => TokenOptions {
            most_values: 1024,
            least_count: 2,
            octets: fixed.then_some(octets),
            ..TokenOptions::default()
        },
        Some(Names::Ports) => TokenOptions {
            most_values: 1024,
            stands_out: true,
            parts: 1,
            edges: PORT_EDGES.to_vec(),
            ..TokenOptions::default()
        },
        // A few values each have a token, however rare.
        _ if distinct <= 2 * FEW => TokenOptions {
            least_count: 1,
            integer: !real || *kind == FieldKind::Integer,
            ..TokenOptions::default()
        },
        _ => TokenOptions {
            most_values,
            least_count: 4,
            bins: if real { 64 } else { 32 },
            log: real,
            integer: !matches!(kind, FieldKind::Float { .. }),
            ..TokenOptions::default()
        },
    }
}

/// Distinct values of a column, counted up to a limit.
fn distinct(column: &Column, limit: usize) -> usize {
    let mut seen = HashSet::new();
    for row in 0..column.len() {
        seen.insert(Choice::of(column, row));
        if seen.len() > limit {
            break;
        }
    }
    seen.len()
}

/// The codec of a field of an autoregressive model.
pub(crate) fn codec(field: &Field) -> Option<&TokensCodec> {
    match &field.codec {
        Codec::Tokens(codec) => Some(codec),
        _ => None,
    }
}

/// Finds the variables of a trace whose fields have tokens, and encodes it; its attributes are
/// these `fields`.
///
/// # Errors
/// Values without tokens.
pub(crate) fn encode(
    trace: &Trace,
    (schema, fields): (&Schema, &[FieldConfig]),
    span_ns: u64,
) -> Result<(Chain, Flows), CodecError> {
    let flows = trace.flows.len();
    let rows: Vec<usize> = trace.flows.iter().flatten().map(|&row| row as usize).collect();
    let mut ends = Vec::with_capacity(flows);
    let mut total = 0_u64;
    for flow in &trace.flows {
        total += flow.len() as u64;
        ends.push(total);
    }
    let mut since_us = Vec::with_capacity(rows.len());
    let mut gaps_us = Vec::with_capacity(rows.len());
    for flow in &trace.flows {
        let time = |at: usize| trace.times_ns[flow[at] as usize];
        for at in 0..flow.len() {
            since_us.push((time(at) - time(0)) as f64 / 1000.0);
            gaps_us.push((time(at) - time(at.saturating_sub(1))) as f64 / 1000.0);
        }
    }
    let firsts: Vec<usize> = trace.flows.iter().map(|flow| flow[0] as usize).collect();
    let mut measured = Vec::new();
    for field in &schema.measurements {
        let (Some(codec), Some(column)) = (codec(field), trace.column(&field.name)) else {
            continue;
        };
        let mut tokens = Vec::with_capacity(rows.len());
        codec.tokens(&column.column.pick(&rows), &mut tokens)?;
        measured.push(Measured { field, codec, tokens });
    }
    let flows_of = Records { ends: &ends, directions: directions(&measured) };
    let mut columns: Vec<(Variable, Vec<u32>)> = Vec::new();

    // What the flow is: its fields, its plan, and what of its records does not change.
    for (at, field) in schema.attributes.iter().enumerate() {
        let (Some(codec), Some(column)) = (codec(field), trace.column(&field.name)) else {
            continue;
        };
        let sizes = codec.sizes();
        let mut tokens = Vec::with_capacity(flows * sizes.len());
        codec.tokens(&column.column.pick(&firsts), &mut tokens)?;
        for (place, &size) in sizes.iter().enumerate() {
            let name = match place {
                0 => field.name.clone(),
                place => format!("{} octet {place}", field.name),
            };
            let says = Says::Field { field: at, place };
            let of_place = tokens.iter().skip(place).step_by(sizes.len()).copied().collect();
            columns.push((variable(name, size, says), of_place));
        }
    }
    let addresses = |(at, (v, _)): (usize, &(Variable, Vec<u32>))| match v.says {
        Says::Field { field, place: 0 } => {
            let codec = codec(&schema.attributes[field])?;
            codec.octets_follow().map(|_| (at, field, codec))
        }
        _ => None,
    };
    let found: Vec<_> = columns.iter().enumerate().filter_map(addresses).take(2).collect();
    if let [(a, source, of_source), (b, destination, of_destination)] = found[..] {
        let name = format!("{} {}", columns[a].0.name, columns[b].0.name);
        let (fields, codecs) = ([source, destination], [of_source, of_destination]);
        columns.extend(pair(fields, codecs, [&columns[a].1, &columns[b].1], name));
    }
    let longest = trace.flows.iter().map(Vec::len).max().unwrap_or(1);
    let counts = TokensCodec::of_counts(longest as u64);
    let tokens = trace.flows.iter().map(|flow| counts.token_of(flow.len() as f64)).collect();
    let says = Says::Count { tokens: counts.clone() };
    columns.push((variable("records".to_owned(), counts.sizes()[0], says), tokens));
    let durations: Vec<f64> = ends.iter().map(|&end| since_us[end as usize - 1]).collect();
    let longer = || durations.iter().zip(&trace.flows).filter(|(_, flow)| flow.len() > 1);
    if longer().next().is_some() {
        let codec = of_times(longer().map(|(d, _)| *d).collect(), DURATION_BINS);
        let (size, says) = (codec.sizes()[0], Says::Duration { tokens: codec.clone() });
        let tokens = durations.iter().zip(&trace.flows).map(|(d, flow)| match flow.len() {
            1 => size as u32,
            _ => codec.token_of(at_least_one(*d)),
        });
        let tokens = tokens.collect();
        columns.push((variable("duration".to_owned(), size, says), tokens));
    }
    let mut changing: Vec<usize> = Vec::new();
    for (at, one) in measured.iter().enumerate() {
        let column = trace.column(&one.field.name).map(|column| &column.column);
        // What shares a bin may be one value, or a counter's.
        let same = |a: usize, b: usize| {
            let value = |at: usize| column.map(|column| column.value(rows[at]));
            let token = one.tokens[a];
            token == one.tokens[b] && (one.codec.is_exact(token) || value(a) == value(b))
        };
        if one.field.name != DIRECTION && flows_of.constant_share(same) >= CONSTANT_SHARE {
            for direction in flows_of.directions_told() {
                columns.push(constant(at, one, direction, &flows_of));
            }
        } else {
            changing.push(at);
        }
    }
    let (joint, single) = divide(&measured, &changing);
    let joined = (!joint.is_empty()).then(|| Joined::new(&joint, &measured));
    let of_flows = |joined: &Joined| support(&joint, joined, &measured, &flows_of);
    columns.extend(joined.as_ref().and_then(of_flows));
    let again_of = |joined: &Joined| again(&joint, joined, &measured, &flows_of);
    columns.extend(joined.as_ref().and_then(again_of));
    let is_number = |at: &usize| measured[*at].field.kind != FieldKind::Text;
    let of_many = |at: &usize| measured[*at].codec.sizes()[0] > FEW;
    let numbers = single.iter().copied().filter(is_number).filter(of_many);
    for at in numbers.take(MOST_MEANS) {
        columns.extend(mean(at, &measured[at], trace, &rows, &ends));
    }
    let (variables, attributes) = in_order(columns, trace, span_ns);

    // What a record is.
    let mut heads = Vec::new();
    let mut tokens: Vec<Vec<u32>> = Vec::new();
    if let Some(joined) = joined {
        heads.push(joint_head(&joint, &joined, &measured, &flows_of, &variables, &attributes));
        tokens.push(joined.tokens);
    }
    for at in single {
        let size = measured[at].codec.sizes()[0];
        let mut of_head = measured[at].tokens.clone();
        let steps = mark_steps(&measured[at], trace, &rows, &ends, &mut of_head);
        let size = size + steps.len();
        let says = RecordSays::Field { field: at, steps };
        heads.push(head(measured[at].field.name.clone(), size, says));
        tokens.push(of_head);
    }
    let is_first = |at: usize| is_first_of_flow(&ends, at);
    let later = gaps_us.iter().enumerate().filter(|&(at, _)| !is_first(at)).map(|(_, &gap)| gap);
    let mut later: Vec<f64> = later.collect();
    if later.is_empty() {
        later.push(0.0);
    }
    let gaps = of_times(later, GAP_BINS);
    let token =
        |(at, gap): (usize, &f64)| if is_first(at) { 0 } else { gaps.token_of(at_least_one(*gap)) };
    tokens.push(gaps_us.iter().enumerate().map(token).collect());
    let size = gaps.sizes()[0];
    heads.push(head("gap".to_owned(), size, RecordSays::Gap { tokens: gaps }));
    for (at, head) in heads.iter_mut().enumerate() {
        head.file = format!("head-{at}.onnx");
    }
    let mut records = vec![0; rows.len() * heads.len()];
    for (at, of_head) in tokens.iter().enumerate() {
        let places = records.iter_mut().skip(at).step_by(heads.len());
        places.zip(of_head).for_each(|(place, &token)| *place = token);
    }
    let since_us = since_us.into_iter().map(|since| since as f32).collect();
    let flows = Flows { attributes, ends, records, since_us };
    let of_ports = |variable: &Variable| match variable.says {
        Says::Field { field, place: 0 } => {
            let of = &schema.attributes[field];
            codec(of).filter(|_| names(&fields[field], &of.kind) == Some(Names::Ports))
        }
        _ => None,
    };
    let shared = variables.iter().map(|v| shared_rows(v, of_ports(v))).collect();
    let mut chain = Chain { variables, heads, shared };
    absent::note(&mut chain, &flows);
    Ok((chain, flows))
}

/// Less than a microsecond is one, but for none.
fn at_least_one(time_us: f64) -> f64 {
    if time_us > 0.0 { time_us.max(1.0) } else { 0.0 }
}

/// Tokens of times in microseconds: bins that are even in the logarithm, from 1 on; and what
/// clocks that tick slowly say again and again, none above all.
fn of_times(times_us: Vec<f64>, bins: usize) -> TokensCodec {
    let least = (FREQUENT_GAP * times_us.len() as f64).ceil().max(4.0);
    let options = TokenOptions {
        most_values: MOST_GAPS,
        least_count: least as u64,
        bins,
        log: true,
        ..only_bins()
    };
    let zeros = times_us.iter().filter(|time| **time == 0.0).count();
    let least_us = if zeros as f64 >= least { 0.0 } else { 1.0 };
    let at_least = |time: f64| at_least_one(time).max(least_us);
    TokensCodec::of_numbers(times_us.into_iter().map(at_least).collect(), &options)
}
