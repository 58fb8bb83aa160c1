//! From a trace to tokens: which variables a flow and its records have, in which order,
//! and their values.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ns_model_format::autoregressive::{
    Applies, Head, MOST_SUPPORT, RecordSays, Says, Told, Variable,
};
use ns_model_format::codec::{Codec, CodecError, TokenOptions, TokensCodec};
use ns_model_format::schema::packet_field::{DIRECTION, PROTO};
use ns_model_format::{Column, ColumnData, Field, FieldKind, Schema};

use serde::{Deserialize, Serialize};

use crate::arrays::{Array, Arrays};
use crate::config::FieldConfig;
use crate::ingest::Trace;
use crate::work::WorkError;

/// Bins of flow starts.
const START_BINS: usize = 128;
/// A field of a record is the flow's if so many of the records have the value that the
/// flow's first record (of their direction) has.
const CONSTANT_SHARE: f64 = 0.95;
/// A field of so few tokens is drawn together with others like it.
const FEW: usize = 32;
/// Most combinations of fields that are drawn together.
const MOST_COMBINATIONS: usize = 256;
/// Most sets of combinations that flows have, and so many of the flows must have one of them.
const MOST_SETS: usize = 256;
const SUPPORT_SHARE: f64 = 0.95;
/// Most pairs of addresses, and so many of the flows must have one of them.
const MOST_PAIRS: usize = 1024;
const PAIRS_SHARE: f64 = 0.01;
/// A gap of exactly so many microseconds has a token of its own if so many of all are; at
/// most so many.
const FREQUENT_GAP: f64 = 0.005;
const MOST_GAPS: usize = 64;
/// A value in a bin is often that of the record before if so many of those in bins are.
const REPEATS_SHARE: f64 = 0.01;
/// Numbers of a record whose means are planned.
const MOST_MEANS: usize = 3;
const DURATION_BINS: usize = 32;
const MEAN_BINS: usize = 24;
const GAP_BINS: usize = 64;
/// Where ports change their meaning: RFC 6335, and where systems begin to count.
const PORT_EDGES: [f64; 3] = [1024.0, 32768.0, 49152.0];

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

/// Whether a chain read from a file can be trained: its networks index by it.
pub(crate) fn is_chain(chain: &Chain) -> bool {
    let depends = |(at, variable): (usize, &Variable)| {
        let applies = variable.applies.iter().map(|applies| applies.variable);
        let told = variable.told.iter().map(|told| told.variable);
        variable.size > 0
            && variable.parents.iter().copied().chain(applies).chain(told).all(|before| before < at)
    };
    !chain.variables.is_empty()
        && !chain.heads.is_empty()
        && chain.variables.iter().enumerate().all(depends)
        && chain.heads.iter().all(|head| head.size > 0)
}

/// What is drawn, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Chain {
    pub(crate) variables: Vec<Variable>,
    pub(crate) heads: Vec<Head>,
}

/// How many neighbouring tokens of an ordinal variable share a row of a coarse table
/// beside their own: rare ones would be noise else.
pub(crate) fn coarse_of(variable: &Variable) -> Option<u32> {
    match variable.says {
        Says::Start { .. } => Some(8),
        Says::Count { .. } | Says::Duration { .. } | Says::Mean { .. } => Some(4),
        _ => None,
    }
}

/// Whether what is possible depends on a variable: networks always see it.
pub(crate) fn is_certain(variable: &Variable) -> bool {
    matches!(variable.says, Says::Support { .. }) || is_protocol(variable)
}

fn is_protocol(variable: &Variable) -> bool {
    variable.name == PROTO && variable.size > 1 && is_few_and_whole(variable)
}

/// How a field's values become tokens.
pub(crate) fn options(field: &FieldConfig, column: &Column, kind: &FieldKind) -> TokenOptions {
    let octets = match (kind, field.n_bits) {
        (FieldKind::Ipv4, _) | (FieldKind::Integer, Some(32)) => Some(4),
        (FieldKind::Ip, _) => Some(16),
        (FieldKind::Mac, _) => Some(6),
        _ => None,
    };
    let is_port = field.n_bits == Some(16)
        || field.column.to_ascii_lowercase().contains("port")
        || field.word2vec_name().is_some_and(|name| name.contains("port"));
    let distinct = distinct(column, 4 * FEW);
    let real = matches!(column.data, ColumnData::Float(_));
    match (octets, is_port) {
        (Some(octets), _) => TokenOptions {
            most_values: 1024,
            least_count: 2,
            octets: Some(octets),
            ..TokenOptions::default()
        },
        (None, true) => TokenOptions {
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
    let mut seen = std::collections::HashSet::new();
    for row in 0..column.len() {
        seen.insert(ns_model_format::codec::Choice::of(column, row));
        if seen.len() > limit {
            break;
        }
    }
    seen.len()
}

/// A measurement's tokens, one a record of the trace in its order of flows.
struct Measured<'a> {
    field: &'a Field,
    codec: &'a TokensCodec,
    tokens: Vec<u32>,
}

/// The codec of a field of an autoregressive model.
pub(crate) fn codec(field: &Field) -> Option<&TokensCodec> {
    match &field.codec {
        Codec::Tokens(codec) => Some(codec),
        _ => None,
    }
}

/// Finds the variables of a trace whose fields have tokens, and encodes it.
///
/// # Errors
/// Values without tokens.
pub(crate) fn encode(
    trace: &Trace,
    schema: &Schema,
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
        if one.field.name != DIRECTION && flows_of.constant_share(&one.tokens) >= CONSTANT_SHARE {
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
        let repeats = mark_repeats(&measured[at], trace, &rows, &ends, &mut of_head);
        let says = RecordSays::Field { field: at, repeats };
        heads.push(head(measured[at].field.name.clone(), size + usize::from(repeats), says));
        tokens.push(of_head);
    }
    let is_first = |at: usize| since_us_is_first(&ends, at);
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
    Ok((Chain { variables, heads }, Flows { attributes, ends, records, since_us }))
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

/// Nothing but bins.
fn only_bins() -> TokenOptions {
    TokenOptions { most_values: 0, integer: false, ..TokenOptions::default() }
}

fn since_us_is_first(ends: &[u64], record: usize) -> bool {
    record == 0 || ends.binary_search(&(record as u64)).is_ok()
}

fn variable(name: String, size: usize, says: Says) -> Variable {
    Variable { name, size, says, applies: None, told: None, file: None, parents: Vec::new() }
}

fn head(name: String, size: usize, says: RecordSays) -> Head {
    Head { name, size, says, file: String::new() }
}

/// The direction of every record, if flows have two.
fn directions(measured: &[Measured<'_>]) -> Option<Vec<u8>> {
    let found = measured.iter().find(|one| one.field.name == DIRECTION)?;
    let direction = |&token: &u32| match found.codec.value(&[token], 0.0).as_i64() {
        Some(1) => 1,
        _ => 0,
    };
    Some(found.tokens.iter().map(direction).collect())
}

/// The records of all flows, one flow after another.
struct Records<'a> {
    ends: &'a [u64],
    directions: Option<Vec<u8>>,
}

impl Records<'_> {
    fn directions_told(&self) -> Vec<Option<u8>> {
        match self.directions {
            Some(_) => vec![Some(0), Some(1)],
            None => vec![None],
        }
    }

    fn direction(&self, record: usize) -> usize {
        self.directions.as_ref().map_or(0, |directions| usize::from(directions[record]))
    }

    fn flows(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        self.ends.iter().scan(0, |begin, &end| {
            let range = *begin..end as usize;
            *begin = end as usize;
            Some(range)
        })
    }

    /// The share of records after a flow's first (of their direction) that say the same
    /// as that; 1 if there are none.
    fn constant_share(&self, tokens: &[u32]) -> f64 {
        let (mut same, mut all) = (0_u64, 0_u64);
        for range in self.flows() {
            let mut first = [None; 2];
            for record in range {
                let first = &mut first[self.direction(record)];
                match first {
                    None => *first = Some(tokens[record]),
                    Some(first) => {
                        all += 1;
                        same += u64::from(*first == tokens[record]);
                    }
                }
            }
        }
        if all == 0 { 1.0 } else { same as f64 / all as f64 }
    }
}

/// A measurement that is the flow's, in one direction.
fn constant(
    at: usize,
    one: &Measured<'_>,
    direction: Option<u8>,
    records: &Records<'_>,
) -> (Variable, Vec<u32>) {
    let absent = one.codec.sizes()[0];
    let wanted = usize::from(direction.unwrap_or(0));
    let token = |range: std::ops::Range<usize>| {
        let mut of_flow = range.filter(|&record| records.direction(record) == wanted);
        of_flow.next().map_or(absent as u32, |record| one.tokens[record])
    };
    let name = match direction {
        Some(1) => format!("{} back", one.field.name),
        _ => one.field.name.clone(),
    };
    let says = Says::Constant { measurement: at, direction };
    (variable(name, absent + 1, says), records.flows().map(token).collect())
}

/// Which fields are drawn together, and which alone.
fn divide(measured: &[Measured<'_>], changing: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let size = |at: &usize| measured[*at].codec.sizes()[0];
    let (mut few, mut single): (Vec<usize>, Vec<usize>) =
        changing.iter().copied().partition(|at| size(at) <= FEW);
    // The direction first, whatever the others: constants depend on it.
    few.sort_by_key(|at| (measured[*at].field.name != DIRECTION, size(at), *at));
    let mut joint: Vec<usize> = Vec::new();
    for at in few {
        joint.push(at);
        if combinations(&joint, measured).len() > MOST_COMBINATIONS && joint.len() > 1 {
            joint.pop();
            single.push(at);
        }
    }
    joint.sort_unstable();
    single.sort_unstable();
    (joint, single)
}

/// The combinations of tokens that some fields take, the most frequent first.
fn combinations(fields: &[usize], measured: &[Measured<'_>]) -> Vec<Vec<u32>> {
    let mut counts: HashMap<Vec<u32>, u64> = HashMap::new();
    for record in 0..measured.first().map_or(0, |one| one.tokens.len()) {
        let combination = fields.iter().map(|&at| measured[at].tokens[record]).collect();
        *counts.entry(combination).or_default() += 1;
    }
    let mut counts: Vec<(Vec<u32>, u64)> = counts.into_iter().collect();
    counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.into_iter().map(|(combination, _)| combination).collect()
}

/// Several fields of every record as one.
struct Joined {
    combinations: Vec<Vec<u32>>,
    tokens: Vec<u32>,
}

impl Joined {
    fn new(fields: &[usize], measured: &[Measured<'_>]) -> Joined {
        let combinations = combinations(fields, measured);
        let index: HashMap<&[u32], u32> = combinations.iter().map(Vec::as_slice).zip(0..).collect();
        let combination =
            |record| -> Vec<u32> { fields.iter().map(|&at| measured[at].tokens[record]).collect() };
        let count = measured[fields[0]].tokens.len();
        let tokens = (0..count).map(|record| index[combination(record).as_slice()]).collect();
        Joined { combinations, tokens }
    }
}

/// Which kinds of combinations a flow has, of the sets that more than one flow has. A kind
/// is what some of the fields say: as many of them as leave sets that most flows share.
fn support(
    fields: &[usize],
    joined: &Joined,
    measured: &[Measured<'_>],
    records: &Records<'_>,
) -> Option<(Variable, Vec<u32>)> {
    let of = |places: &[usize]| Support::new(places, joined, records);
    // The direction first, then what keeps most flows.
    let direction = fields.iter().position(|&at| measured[at].field.name == DIRECTION);
    let mut chosen: Vec<usize> = direction.into_iter().collect();
    let mut best = direction.map(|_| of(&chosen));
    loop {
        let left = (0..fields.len()).filter(|place| !chosen.contains(place));
        let next = left.map(|place| {
            let places = [&chosen[..], &[place]].concat();
            (of(&places), places)
        });
        // Of equals the first.
        let next = next.reduce(|a, b| if b.0.covered > a.0.covered { b } else { a });
        let Some((support, places)) = next.filter(|(support, _)| {
            support.covered as f64 >= SUPPORT_SHARE * support.tokens.len() as f64
        }) else {
            break;
        };
        (best, chosen) = (Some(support), places);
    }
    let Support { kinds, sets, tokens, .. } = best?;
    let size = sets.len() + 1;
    let says = Says::Support { head: 0, kinds, sets };
    Some((variable("combinations".to_owned(), size, says), tokens))
}

struct Support {
    kinds: Vec<u32>,
    sets: Vec<Vec<u32>>,
    tokens: Vec<u32>,
    /// Flows that have one of the sets.
    covered: usize,
}

impl Support {
    fn new(places: &[usize], joined: &Joined, records: &Records<'_>) -> Support {
        let mut numbers: HashMap<Vec<u32>, u32> = HashMap::new();
        let kind = |combination: &Vec<u32>| {
            let said = places.iter().map(|&place| combination[place]).collect();
            let next = numbers.len() as u32;
            *numbers.entry(said).or_insert(next)
        };
        let kinds: Vec<u32> = joined.combinations.iter().map(kind).collect();
        let set = |range: std::ops::Range<usize>| -> Vec<u32> {
            let mut there = vec![false; kinds.len()];
            let tokens = joined.tokens[range].iter();
            tokens.for_each(|&token| there[kinds[token as usize] as usize] = true);
            there.into_iter().zip(0..).filter_map(|(is, kind)| is.then_some(kind)).collect()
        };
        let of_flows: Vec<Vec<u32>> = records.flows().map(set).collect();
        let few = of_flows.iter().filter(|set| set.len() <= MOST_SUPPORT);
        let sets = frequent(few, MOST_SETS);
        let index: HashMap<&[u32], u32> = sets.iter().map(Vec::as_slice).zip(0..).collect();
        let open = sets.len() as u32;
        let token = |set: &Vec<u32>| index.get(set.as_slice()).copied().unwrap_or(open);
        let tokens: Vec<u32> = of_flows.iter().map(token).collect();
        let covered = tokens.iter().filter(|token| **token < open).count();
        Support { kinds, sets, tokens, covered }
    }
}

/// What is there more than once, in ascending order; at most so many, the most frequent.
fn frequent<'a, T: Clone + Ord + std::hash::Hash + 'a>(
    all: impl Iterator<Item = &'a T>,
    most: usize,
) -> Vec<T> {
    let mut counts: HashMap<&T, u64> = HashMap::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    let mut counts: Vec<(&T, u64)> = counts.into_iter().filter(|(_, count)| *count > 1).collect();
    counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let mut kept: Vec<T> = counts.into_iter().take(most).map(|(one, _)| one.clone()).collect();
    kept.sort_unstable();
    kept
}

/// The pairs of tokens that two fields of addresses have more than once. What is seen once
/// is as often as what has not been seen at all (Good, *The population frequencies of
/// species and the estimation of population parameters*, Biometrika 40, 1953), so pairs are
/// new as often as they should be.
fn pair(
    fields: [usize; 2],
    codecs: [&TokensCodec; 2],
    tokens: [&[u32]; 2],
    name: String,
) -> Option<(Variable, Vec<u32>)> {
    let of_flows: Vec<[u32; 2]> = tokens[0].iter().zip(tokens[1]).map(|(&a, &b)| [a, b]).collect();
    let is_exact = |pair: &&[u32; 2]| pair.iter().zip(codecs).all(|(&t, codec)| codec.is_exact(t));
    let pairs = frequent(of_flows.iter().filter(is_exact), MOST_PAIRS);
    let open = pairs.len();
    let token = |pair: &[u32; 2]| pairs.binary_search(pair).unwrap_or(open) as u32;
    let tokens: Vec<u32> = of_flows.iter().map(token).collect();
    let covered = tokens.iter().filter(|token| (**token as usize) < open).count();
    if (covered as f64) < PAIRS_SHARE.max(f64::MIN_POSITIVE) * tokens.len() as f64 {
        return None;
    }
    Some((variable(name, open + 1, Says::Pair { fields, pairs }), tokens))
}

/// Gives records whose value has no token of its own and is that of the record before one
/// more token, if there are enough of them.
fn mark_repeats(
    one: &Measured<'_>,
    trace: &Trace,
    rows: &[usize],
    ends: &[u64],
    tokens: &mut [u32],
) -> bool {
    let Some(column) = trace.column(&one.field.name) else { return false };
    let in_bin = |at: &usize| !one.codec.is_exact(one.tokens[*at]);
    let later = || (0..rows.len()).filter(|at| !since_us_is_first(ends, *at)).filter(in_bin);
    let value = |at: usize| column.column.value(rows[at]);
    let repeated: Vec<usize> = later().filter(|&at| value(at) == value(at - 1)).collect();
    if repeated.is_empty() || (repeated.len() as f64) < REPEATS_SHARE * later().count() as f64 {
        return false;
    }
    let repeat = one.codec.sizes()[0] as u32;
    repeated.into_iter().for_each(|at| tokens[at] = repeat);
    true
}

fn joint_head(
    fields: &[usize],
    Joined { combinations, tokens }: &Joined,
    measured: &[Measured<'_>],
    records: &Records<'_>,
    variables: &[Variable],
    attributes: &[u32],
) -> Head {
    // What a protocol has is certain. Else some variable tells most; but one of ports would
    // let TCP do what UDP does at the same port.
    let given = variables
        .iter()
        .position(is_protocol)
        .or_else(|| most_telling(tokens, combinations.len(), records, variables, attributes));
    let rows = given.map_or(1, |at| variables[at].size + 1);
    let mut first = vec![vec![false; combinations.len()]; rows];
    let mut later = first.clone();
    let mut after = vec![vec![false; combinations.len()]; combinations.len()];
    for (flow, range) in records.flows().enumerate() {
        let row = given.map_or(0, |at| attributes[flow * variables.len() + at] as usize);
        for (at, record) in range.enumerate() {
            let token = tokens[record] as usize;
            let lists = if at == 0 { &mut first } else { &mut later };
            lists[row][token] = true;
            if at > 0 {
                after[tokens[record - 1] as usize][token] = true;
            }
        }
    }
    let list = |seen: Vec<bool>| {
        seen.into_iter().zip(0..).filter(|(seen, _)| *seen).map(|(_, at)| at).collect()
    };
    let lists = |all: Vec<Vec<bool>>| all.into_iter().map(list).collect::<Vec<Vec<u32>>>();
    let name = fields.iter().map(|&at| measured[at].field.name.as_str()).collect::<Vec<_>>();
    let size = combinations.len();
    let (first, later, after) = (lists(first), lists(later), lists(after));
    let (fields, combinations) = (fields.to_vec(), combinations.clone());
    let says = RecordSays::Joint { fields, combinations, given, first, later, after };
    head(name.join(" "), size, says)
}

/// Whether a variable is a field of few tokens.
fn is_few_and_whole(variable: &Variable) -> bool {
    matches!(variable.says, Says::Field { place: 0, .. }) && variable.size <= FEW
}

/// The variable of few tokens that tells the most of a record's combination.
fn most_telling(
    tokens: &[u32],
    size: usize,
    records: &Records<'_>,
    variables: &[Variable],
    attributes: &[u32],
) -> Option<usize> {
    let information = |at: usize| {
        let width = variables[at].size + 1;
        let mut counts = vec![0_u64; width * size];
        for (flow, range) in records.flows().enumerate() {
            let row = attributes[flow * variables.len() + at] as usize;
            range.for_each(|record| counts[row * size + tokens[record] as usize] += 1);
        }
        let entropy = |counts: &mut dyn Iterator<Item = u64>| -> f64 {
            let all = tokens.len() as f64;
            counts.filter(|&n| n > 0).map(|n| -(n as f64 / all) * (n as f64 / all).ln()).sum()
        };
        let of_rows = entropy(&mut counts.chunks_exact(size).map(|row| row.iter().sum()));
        of_rows - entropy(&mut counts.iter().copied())
    };
    let few = variables.iter().enumerate().filter(|(_, variable)| is_few_and_whole(variable));
    // Of equals the first.
    few.map(|(at, _)| (at, information(at)))
        .reduce(|best, next| if next.1 > best.1 + 1e-12 { next } else { best })
        .map(|(at, _)| at)
}

/// The mean of a measurement of numbers.
fn mean(
    at: usize,
    one: &Measured<'_>,
    trace: &Trace,
    rows: &[usize],
    ends: &[u64],
) -> Option<(Variable, Vec<u32>)> {
    let column = &trace.column(&one.field.name)?.column;
    let mut begin = 0;
    let mut means = Vec::with_capacity(ends.len());
    for &end in ends {
        let numbers =
            rows[begin..end as usize].iter().filter_map(|&row| column.value(row).as_f64());
        // A running mean: a sum may be too large for a number.
        let mean = numbers.fold((0.0, 0.0), |(count, mean): (f64, f64), number| {
            (count + 1.0, mean + (number / (count + 1.0) - mean / (count + 1.0)))
        });
        means.push(mean.1);
        begin = end as usize;
    }
    let options = TokenOptions { bins: MEAN_BINS, ..only_bins() };
    let codec = TokensCodec::of_numbers(means.clone(), &options);
    let tokens = means.into_iter().map(|mean| codec.token_of(mean)).collect();
    let (size, name) = (codec.sizes()[0], format!("mean {}", one.field.name));
    Some((variable(name, size, Says::Mean { measurement: at, tokens: codec }), tokens))
}

/// The chain: the start, then what is easily told before what is not.
fn in_order(
    columns: Vec<(Variable, Vec<u32>)>,
    trace: &Trace,
    span_ns: u64,
) -> (Vec<Variable>, Vec<u32>) {
    let shares: Vec<f64> = trace
        .flows
        .iter()
        .map(|flow| {
            let since = trace.times_ns[flow[0] as usize].abs_diff(trace.times_ns[0]);
            since as f64 / span_ns.max(1) as f64
        })
        .collect();
    let edges = start_edges(&shares);
    let starts = shares.iter().map(|&share| start_token(&edges, share as f32)).collect();
    let size = edges.len() - 1;
    let mut all = vec![(variable("start".to_owned(), size, Says::Start { edges }), starts)];
    // An address and its octets stay together.
    let mut groups: Vec<Vec<(Variable, Vec<u32>)>> = Vec::new();
    for column in columns {
        match column.0.says {
            Says::Field { place, .. } if place > 0 => {
                if let Some(group) = groups.last_mut() {
                    group.push(column);
                }
            }
            _ => groups.push(vec![column]),
        }
    }
    let mut order: Vec<(f64, usize)> =
        groups.iter().map(|group| entropy(&group[0].1)).zip(0..).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    for (_, at) in order {
        all.append(&mut groups[at]);
    }
    // A pair tells its fields.
    let pair_of = |all: &[(Variable, Vec<u32>)]| {
        all.iter().zip(0..).find_map(|((variable, _), at)| match &variable.says {
            Says::Pair { fields, .. } => Some((at, *fields)),
            _ => None,
        })
    };
    if let Some((pair, fields)) = pair_of(&all) {
        let is_of =
            |says: &Says| matches!(says, Says::Field { field, .. } if fields.contains(field));
        let first = all.iter().position(|(v, _)| is_of(&v.says)).unwrap_or(pair);
        if first < pair {
            let moved = all.remove(pair);
            all.insert(first, moved);
        }
    }
    let position = |wanted: &dyn Fn(&Says) -> bool| all.iter().position(|(v, _)| wanted(&v.says));
    // A duration needs the count before it.
    let count = position(&|says| matches!(says, Says::Count { .. }));
    let duration = position(&|says| matches!(says, Says::Duration { .. }));
    if let (Some(count), Some(duration)) = (count, duration)
        && duration < count
    {
        let moved = all.remove(count);
        all.insert(duration, moved);
    }
    let mut applies: BTreeMap<usize, Applies> = BTreeMap::new();
    let (mut address, mut count) = (0, 0);
    for (at, (variable, tokens)) in all.iter().enumerate() {
        match &variable.says {
            Says::Field { place: 0, .. } => address = at,
            Says::Field { .. } => {
                let token = all[address].0.size as u32 - 1;
                applies.insert(at, Applies { variable: address, token, equal: true });
            }
            Says::Count { .. } => count = at,
            Says::Duration { .. } => {
                applies.insert(at, Applies { variable: count, token: 0, equal: false });
            }
            _ => {}
        }
        debug_assert_eq!(tokens.len(), trace.flows.len());
    }
    let flows = trace.flows.len();
    let mut attributes = vec![0; flows * all.len()];
    let width = all.len();
    for at in 0..width {
        for flow in 0..flows {
            let absent = applies.get(&at).is_some_and(|applies| {
                (all[applies.variable].1[flow] == applies.token) != applies.equal
            });
            attributes[flow * width + at] =
                if absent { all[at].0.size as u32 } else { all[at].1[flow] };
        }
    }
    let pair = pair_of(&all);
    let told = |says: &Says| match (says, pair) {
        (Says::Field { field, place: 0 }, Some((variable, fields))) => {
            let place = fields.iter().position(|of| of == field)?;
            Some(Told { variable, place })
        }
        _ => None,
    };
    let variables = all.into_iter().enumerate().map(|(at, (variable, _))| Variable {
        applies: applies.get(&at).copied(),
        told: told(&variable.says),
        file: (at > 0).then(|| format!("attribute-{at}.onnx")),
        ..variable
    });
    let mut variables: Vec<Variable> = variables.collect();
    for at in 1..variables.len() {
        // Octets of another address say nothing that the address's own token does not.
        let is_of = |before: usize| match (&variables[before].says, &variables[at].says) {
            (Says::Field { field, place }, Says::Field { field: own, .. }) if *place > 0 => {
                field == own
            }
            (Says::Field { place, .. }, _) => *place == 0,
            // A pair says what its fields do.
            (Says::Pair { .. }, _) => false,
            _ => true,
        };
        variables[at].parents = (0..at).filter(|&before| is_of(before)).collect();
    }
    (variables, attributes)
}

/// Edges of bins of about equally many flows.
fn start_edges(shares: &[f64]) -> Vec<f32> {
    let mut sorted = shares.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |bin: usize| sorted[bin * (sorted.len() - 1) / START_BINS] as f32;
    let mut edges: Vec<f32> = (1..START_BINS).map(at).filter(|e| *e > 0.0 && *e < 1.0).collect();
    edges.dedup();
    edges.insert(0, 0.0);
    edges.push(1.0);
    edges
}

fn start_token(edges: &[f32], share: f32) -> u32 {
    let bin = edges.partition_point(|edge| *edge <= share).saturating_sub(1);
    bin.min(edges.len() - 2) as u32
}

fn entropy(tokens: &[u32]) -> f64 {
    let mut counts: HashMap<u32, u64> = HashMap::new();
    tokens.iter().for_each(|&token| *counts.entry(token).or_default() += 1);
    let mut counts: Vec<u64> = counts.into_values().collect();
    // A sum of floats depends on its order.
    counts.sort_unstable();
    let all = tokens.len() as f64;
    counts.into_iter().map(|n| -(n as f64 / all) * (n as f64 / all).ln()).sum()
}
