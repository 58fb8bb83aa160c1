//! A flow as a vector of numbers, for what learns from flows.

use super::distance::ranks;
use super::learn::Matrix;
use super::sample::Sample;
use super::table::{Cells, Role};
use ns_model_format::schema::{TraceKind, packet_field};

/// The most frequent categories of a column, each a number of its own.
const TOP: usize = 6;
/// Columns with more categories give no numbers: which one it is would be a name.
const MANY: usize = 256;

/// The numbers of flows.
#[derive(Clone, Debug)]
pub(super) struct Features {
    /// What each number is.
    pub(super) names: Vec<String>,
    /// A row a flow.
    pub(super) matrix: Matrix,
    /// The first record of each flow.
    pub(super) first: Vec<u32>,
}

/// The numbers of a sample's flows, of at most `most` spread evenly over it,
/// without what is told by the columns in `without`.
///
/// Nothing here names a flow, since flows of one host are on both sides of a test and
/// would be known again: addresses do not count (not even by how many flows share them,
/// a number that names a host in its sample), ports by what service or range they are in.
#[must_use]
pub(super) fn features(sample: &Sample<'_>, most: usize, without: &[usize]) -> Features {
    let frame = sample.frame;
    let used = |at: &usize| !without.contains(at);
    let columns: Vec<usize> = (0..frame.columns.len()).filter(used).collect();
    let mut names = vec!["ln_records".to_owned(), "ln_duration".to_owned()];
    names.extend(["mean_ln_gap".to_owned(), "sd_ln_gap".to_owned(), "rank_of_start".to_owned()]);
    for &at in &columns {
        let column = &frame.columns[at];
        let name = &column.name;
        match column.role {
            Role::Address => {}
            Role::Port => names.push(name.clone()),
            Role::Quantity => {
                names.extend(["first", "mean", "sd"].map(|what| format!("{what}_ln_{name}")));
            }
            Role::Category | Role::Proto if column.values.len() <= MANY => {
                let top = column.top.iter().take(TOP);
                names.extend(top.map(|&id| format!("{name}={}", column.text(id))));
                if is_scale(sample, at) {
                    names.push(format!("first_{name}"));
                }
            }
            Role::Category | Role::Proto => {}
        }
    }
    let flows = sample.flow_count();
    let taken = flows.min(most);
    let mut values = Vec::with_capacity(taken * names.len());
    let all: Vec<&[u32]> = sample.flows().collect();
    // The rank of its start: one record long before the others moves no other flow.
    let starts: Vec<f64> = all.iter().map(|flow| sample.time_ns(flow[0]) as f64).collect();
    let starts = ranks(&starts);
    let mut firsts = Vec::with_capacity(taken);
    for number in 0..taken {
        let flow = all[number * flows / taken];
        firsts.push(flow[0]);
        let (first, last) = (flow[0], flow[flow.len() - 1]);
        let gaps: Vec<f64> =
            flow.windows(2).map(|p| (sample.gap(p[0], p[1]) + 1e-6).ln()).collect();
        let (mean, sd) = mean_and_sd(&gaps);
        values.push((flow.len() as f64).ln());
        values.push((sample.gap(first, last) + 1e-6).ln());
        values.extend([mean, sd]);
        values.push(starts[number * flows / taken] / flows as f64);
        for &at in &columns {
            let column = &frame.columns[at];
            match (&sample.table.cells[at], column.role) {
                (Cells::Ids(_), Role::Address) => {}
                (Cells::Ids(_), Role::Port) => {
                    values.push(f64::from(port_range(sample.whole(at, first))));
                }
                (Cells::Numbers(_), _) => {
                    let logs: Vec<f64> = flow
                        .iter()
                        .map(|&row| sample.number(at, row))
                        .filter(|x| !x.is_nan())
                        .map(|x| x.signum() * x.abs().ln_1p())
                        .collect();
                    let (mean, sd) = mean_and_sd(&logs);
                    values.extend([logs.first().copied().unwrap_or(-1.0), mean, sd]);
                }
                (Cells::Ids(_), _) if column.values.len() <= MANY => {
                    for &top in column.top.iter().take(TOP) {
                        let count = flow.iter().filter(|&&row| sample.id(at, row) == top).count();
                        values.push(count as f64 / flow.len() as f64);
                    }
                    if is_scale(sample, at) {
                        values.push(sample.whole(at, first) as f64);
                    }
                }
                (Cells::Ids(_), _) => {}
            }
        }
    }
    let cols = names.len();
    Features { names, matrix: Matrix { rows: taken, cols, values }, first: firsts }
}

/// A port below 1024, or the range of 4096 that it is in.
fn port_range(port: i64) -> u32 {
    let port = port.clamp(0, 65_535) as u32;
    if port < 1024 { port } else { 1024 + port / 4096 }
}

/// Whether a category of packets is also a number on a scale.
fn is_scale(sample: &Sample<'_>, at: usize) -> bool {
    sample.frame.kind == TraceKind::Packets && sample.frame.columns[at].name == packet_field::TTL
}

fn mean_and_sd(numbers: &[f64]) -> (f64, f64) {
    if numbers.is_empty() {
        return (0.0, 0.0);
    }
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    (mean, (numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt())
}
