//! The order of the chain: what is drawn of a flow, each variable given those before it.

use std::collections::{BTreeMap, HashMap};

use ns_model_format::autoregressive::{Absent, Applies, Head, RecordSays, Says, Told, Variable};
use ns_model_format::codec::TokensCodec;
use ns_model_format::schema::packet_field::PROTO;
use serde::{Deserialize, Serialize};

use crate::ingest::Trace;

/// Bins of flow starts.
const START_BINS: usize = 128;
/// Rows that ports share.
const KINDS_OF_PORTS: usize = 4;
/// The first port that is no system port (RFC 6335).
pub(super) const FIRST_FREE: f64 = 1024.0;
/// A field of so few tokens is drawn together with others like it.
pub(super) const FEW: usize = 32;

/// What is drawn, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Chain {
    pub(crate) variables: Vec<Variable>,
    pub(crate) heads: Vec<Head>,
    /// For each variable, which row of a networks' table each token (and that it does not
    /// apply) shares with tokens like it; none, if it shares nothing.
    pub(crate) shared: Vec<Vec<u32>>,
}

impl Chain {
    /// The rows that the tokens of a variable share with one another.
    pub(super) fn shared(&self, at: usize) -> &[u32] {
        self.shared.get(at).map_or(&[], Vec::as_slice)
    }
}

/// Whether a chain read from a file can be trained: its networks index by it.
pub(crate) fn is_chain(chain: &Chain) -> bool {
    let depends = |(at, variable): (usize, &Variable)| {
        let applies = variable.applies.iter().map(|applies| applies.variable);
        let told = variable.told.iter().map(|told| told.variable);
        let absent = |absent: &Absent| {
            let fits = |pair: &[u32; 2]| (pair[1] as usize) < variable.size;
            variable.parents.contains(&absent.before) && absent.pairs.iter().all(fits)
        };
        variable.size > 0
            && variable.absent.iter().all(absent)
            && variable.parents.iter().copied().chain(applies).chain(told).all(|before| before < at)
    };
    let shares = |(at, variable): (usize, &Variable)| {
        let rows = chain.shared(at);
        let most = rows.len().max(KINDS_OF_PORTS);
        rows.is_empty()
            || rows.len() == variable.size + 1 && rows.iter().all(|&row| (row as usize) < most)
    };
    !chain.variables.is_empty()
        && !chain.heads.is_empty()
        && chain.variables.iter().enumerate().all(shares)
        && chain.variables.iter().enumerate().all(depends)
        && chain.heads.iter().all(|head| head.size > 0)
}

/// The rows that tokens of a variable share: neighbours of an ordinal one; of ports, with their
/// `codec`, the system ports, bins of such, and all from 1024 on.
pub(super) fn shared_rows(variable: &Variable, codec: Option<&TokensCodec>) -> Vec<u32> {
    let tokens = 0..=variable.size as u32;
    let neighbours = |by: u32| tokens.clone().map(|token| token / by).collect();
    match (&variable.says, codec) {
        (Says::Start { .. }, _) => neighbours(8),
        (Says::Count { .. } | Says::Duration { .. } | Says::Mean { .. }, _) => neighbours(4),
        (Says::Field { place: 0, .. }, Some(codec)) => {
            let row = |token: u32| match token as usize >= variable.size {
                true => 3,
                false if codec.number_at(token, 0.0) >= FIRST_FREE => 2,
                false => u32::from(!codec.is_exact(token)),
            };
            tokens.map(row).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether what is possible depends on a variable: networks always see it.
pub(crate) fn is_certain(variable: &Variable) -> bool {
    matches!(variable.says, Says::Support { .. } | Says::Again { .. }) || is_protocol(variable)
}

pub(super) fn is_protocol(variable: &Variable) -> bool {
    variable.name == PROTO && variable.size > 1 && is_few_and_whole(variable)
}

/// Whether a variable is a field of few tokens.
pub(super) fn is_few_and_whole(variable: &Variable) -> bool {
    matches!(variable.says, Says::Field { place: 0, .. }) && variable.size <= FEW
}

pub(super) fn variable(name: String, size: usize, says: Says) -> Variable {
    Variable {
        name,
        size,
        says,
        applies: None,
        told: None,
        file: None,
        parents: Vec::new(),
        absent: Vec::new(),
        contexts: Vec::new(),
    }
}

pub(super) fn head(name: String, size: usize, says: RecordSays) -> Head {
    Head { name, size, says, file: String::new(), absent: Vec::new() }
}

/// The chain: the start, then what is easily told before what is not.
pub(super) fn in_order(
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
