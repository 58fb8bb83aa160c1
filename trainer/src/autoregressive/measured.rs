//! The fields of a trace's records as tokens, flow by flow, and what they say of their flow.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ns_model_format::autoregressive::{LONGEST_STEP, MOST_FIELD_STEPS, Says, Variable};
use ns_model_format::codec::{TokenOptions, TokensCodec};
use ns_model_format::schema::packet_field::DIRECTION;
use ns_model_format::{Field, Value};

use super::chain::variable;
use crate::ingest::Trace;

/// A field of a record is the flow's if so many of the records have the value that the
/// flow's first record (of their direction) has.
pub(super) const CONSTANT_SHARE: f64 = 0.95;
/// A step from the value before has a token if so many of the values are told by it, and so many
/// times as many as of values that have nothing to do with each other.
const STEPS_SHARE: f64 = 0.01;
const FEWEST_STEPS: f64 = 4.0;
const BY_CHANCE: usize = 4;
/// Steps are told where they tell so many of a field's values. Where fewer, as of lengths of
/// packets, models were no better or worse for it; there only a value without a token of its own is
/// said to be that of the record before.
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

    /// The share of records after a flow's first (of their direction) that have the same value
    /// as that; 1 if there are none.
    pub(super) fn constant_share(&self, same: impl Fn(usize, usize) -> bool) -> f64 {
        let (mut constant, mut all) = (0_u64, 0_u64);
        for range in self.flows() {
            let mut first = [None; 2];
            for record in range {
                let first = &mut first[self.direction(record)];
                match first {
                    None => *first = Some(record),
                    Some(first) => {
                        all += 1;
                        constant += u64::from(same(*first, record));
                    }
                }
            }
        }
        if all == 0 { 1.0 } else { constant as f64 / all as f64 }
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

/// Gives records whose value is that of the record before, or a few ticks from it, tokens that say
/// so: all of them where most records are such; else those without a token of their own whose value
/// is the same, if there are enough of them. Gives the steps that have a token.
pub(super) fn mark_steps(
    one: &Measured<'_>,
    trace: &Trace,
    rows: &[usize],
    ends: &[u64],
    tokens: &mut [u32],
) -> Vec<i32> {
    let Some(column) = trace.column(&one.field.name) else { return Vec::new() };
    let tick = one.field.tick();
    let step = |before: usize, at: usize| {
        let value = |at: usize| column.column.value(rows[at]);
        let ticks = match (value(before), value(at)) {
            (before, value) if before == value => return Some(0),
            (Value::Int(before), Value::Int(value)) => value.checked_sub(before)? as f64,
            (Value::Float(before), Value::Float(value)) => (value - before) / tick,
            _ => return None,
        };
        let step = ticks.round();
        let is_one = step.abs() <= f64::from(LONGEST_STEP) && (ticks - step).abs() < 0.01;
        is_one.then_some(step as i32)
    };
    let mut later: Vec<usize> = (0..rows.len()).filter(|at| !is_first_of_flow(ends, *at)).collect();
    let mut counts: BTreeMap<i32, [usize; 2]> = BTreeMap::new();
    for (place, &at) in later.iter().enumerate() {
        // Values that have nothing to do with each other differ by as much now and then.
        let other = later[(place + later.len() / 2) % later.len()] - 1;
        for (way, step) in [step(at - 1, at), step(other, at)].into_iter().enumerate() {
            step.into_iter().for_each(|step| counts.entry(step).or_default()[way] += 1);
        }
    }
    let least = (STEPS_SHARE * later.len() as f64).max(FEWEST_STEPS);
    let stands_out = |&(step, [found, by_chance]): &(i32, [usize; 2])| {
        found as f64 >= least && (step == 0 || found >= BY_CHANCE * by_chance)
    };
    let mut found: Vec<(i32, [usize; 2])> = counts.into_iter().filter(stands_out).collect();
    found.sort_by_key(|&(step, [count, _])| (Reverse(count), step));
    found.truncate(MOST_FIELD_STEPS);
    let told: usize = found.iter().map(|(_, [count, _])| count).sum();
    let mut steps: Vec<i32> = found.into_iter().map(|(step, _)| step).collect();
    steps.sort_unstable();
    if (told as f64) < MOSTLY * later.len() as f64 {
        later.retain(|&at| !one.codec.is_exact(one.tokens[at]));
        let repeated = later.iter().filter(|&&at| step(at - 1, at) == Some(0)).count();
        let enough = repeated as f64 >= (STEPS_SHARE * later.len() as f64).max(1.0);
        steps = if enough { vec![0] } else { Vec::new() };
    }
    let own = one.codec.sizes()[0];
    for at in later {
        let place = step(at - 1, at).and_then(|step| steps.binary_search(&step).ok());
        place.into_iter().for_each(|place| tokens[at] = (own + place) as u32);
    }
    steps
}

/// Whether a record is its flow's first.
pub(super) fn is_first_of_flow(ends: &[u64], record: usize) -> bool {
    record == 0 || ends.binary_search(&(record as u64)).is_ok()
}

/// Nothing but bins.
pub(super) fn only_bins() -> TokenOptions {
    TokenOptions { most_values: 0, integer: false, ..TokenOptions::default() }
}
