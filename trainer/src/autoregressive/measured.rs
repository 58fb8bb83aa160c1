//! The fields of a trace's records as tokens, flow by flow, and what they say of their flow.

use ns_model_format::Field;
use ns_model_format::autoregressive::{Says, Variable};
use ns_model_format::codec::{TokenOptions, TokensCodec};
use ns_model_format::schema::packet_field::DIRECTION;

use super::chain::variable;
use crate::ingest::Trace;

/// A field of a record is the flow's if so many of the records have the value that the
/// flow's first record (of their direction) has.
pub(super) const CONSTANT_SHARE: f64 = 0.95;
/// A value in a bin is often that of the record before if so many of those in bins are.
const REPEATS_SHARE: f64 = 0.01;
/// Where so many of a field's values are repeated, that is learned as one token, and not of each
/// value by itself. Where fewer are, as of lengths of packets, models were worse for it.
const MOSTLY: f64 = 0.6;
const MEAN_BINS: usize = 24;

/// A measurement's tokens, one a record of the trace in its order of flows.
pub(super) struct Measured<'a> {
    pub(super) field: &'a Field,
    pub(super) codec: &'a TokensCodec,
    pub(super) tokens: Vec<u32>,
}

/// The direction of every record, if flows have two.
pub(super) fn directions(measured: &[Measured<'_>]) -> Option<Vec<u8>> {
    let found = measured.iter().find(|one| one.field.name == DIRECTION)?;
    let direction = |&token: &u32| match found.codec.value(&[token], 0.0).as_i64() {
        Some(1) => 1,
        _ => 0,
    };
    Some(found.tokens.iter().map(direction).collect())
}

/// The records of all flows, one flow after another.
pub(super) struct Records<'a> {
    pub(super) ends: &'a [u64],
    pub(super) directions: Option<Vec<u8>>,
}

impl Records<'_> {
    pub(super) fn directions_told(&self) -> Vec<Option<u8>> {
        match self.directions {
            Some(_) => vec![Some(0), Some(1)],
            None => vec![None],
        }
    }

    fn direction(&self, record: usize) -> usize {
        self.directions.as_ref().map_or(0, |directions| usize::from(directions[record]))
    }

    pub(super) fn flows(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        self.ends.iter().scan(0, |begin, &end| {
            let range = *begin..end as usize;
            *begin = end as usize;
            Some(range)
        })
    }

    /// The share of records after a flow's first (of their direction) that say the same
    /// as that; 1 if there are none.
    pub(super) fn constant_share(&self, tokens: &[u32]) -> f64 {
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
pub(super) fn constant(
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

/// The mean of a measurement of numbers.
pub(super) fn mean(
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

/// Gives records whose value is that of the record before one more token: all of them where most
/// records are such, else those without a token of their own, if there are enough of them.
pub(super) fn mark_repeats(
    one: &Measured<'_>,
    trace: &Trace,
    rows: &[usize],
    ends: &[u64],
    tokens: &mut [u32],
) -> bool {
    let Some(column) = trace.column(&one.field.name) else { return false };
    let value = |at: usize| column.column.value(rows[at]);
    let later = || (0..rows.len()).filter(|at| !is_first_of_flow(ends, *at));
    let in_bin = |at: &usize| !one.codec.is_exact(one.tokens[*at]);
    let enough = |among: Vec<usize>, share: f64| {
        let is_repeat = |at: &usize| value(*at) == value(at - 1);
        let repeated: Vec<usize> = among.iter().copied().filter(is_repeat).collect();
        let enough = (share * among.len() as f64).max(1.0);
        (repeated.len() as f64 >= enough).then_some(repeated)
    };
    let repeated = enough(later().collect(), MOSTLY)
        .or_else(|| enough(later().filter(in_bin).collect(), REPEATS_SHARE));
    let Some(repeated) = repeated else { return false };
    let repeat = one.codec.sizes()[0] as u32;
    repeated.into_iter().for_each(|at| tokens[at] = repeat);
    true
}

/// Whether a record is its flow's first.
pub(super) fn is_first_of_flow(ends: &[u64], record: usize) -> bool {
    record == 0 || ends.binary_search(&(record as u64)).is_ok()
}

/// Nothing but bins.
pub(super) fn only_bins() -> TokenOptions {
    TokenOptions { most_values: 0, integer: false, ..TokenOptions::default() }
}
