//! What does not go together: tokens that are frequent enough to have met by chance, and
//! never did. Networks are smooth, so they give what was never seen a little of what is like
//! it; over all that a flow is, that little adds up.

use std::collections::HashSet;

use ns_model_format::autoregressive::{Absent, MOST_ABSENT, RecordSays, Says, Variable};

use super::chain::Chain;
use super::tokens::Flows;

/// Two tokens never met that would have so often if they had nothing to do with each
/// other. That this is chance is as likely as `exp(-EXPECTED)` (the Poisson distribution).
const EXPECTED: f64 = 4.0;
/// A count is at most so many times the largest there is with a token, with few flows of it
/// more: [`SPREAD`] over their number.
const FURTHER: f64 = 4.0;
const SPREAD: f64 = 16.0;
/// Of variables of at most so many tokens.
const FEW: usize = 64;
/// Tokens of more are not compared.
const MOST_TOKENS: usize = 1 << 11;

/// Says of every variable and head what does not go with what is drawn before it.
pub(super) fn note(chain: &mut Chain, flows: &Flows) {
    let width = chain.variables.len();
    let given = chain.heads.iter().find_map(|head| match head.says {
        RecordSays::Joint { given, .. } => given,
        _ => None,
    });
    for at in 1..width {
        let variable = &chain.variables[at];
        let is_support = matches!(variable.says, Says::Support { .. });
        if is_octet(variable) {
            continue;
        }
        let parents = variable.parents.iter().filter(|&&at| is_kind(&chain.variables[at]));
        let absent = parents.filter_map(|&before| {
            let token = |of: usize| flows.attributes.iter().skip(of).step_by(width).copied();
            let sizes = [chain.variables[before].size, variable.size];
            // What a protocol has is certain.
            let expected = if is_support && given == Some(before) { 0.0 } else { EXPECTED };
            let pairs = token(before).zip(token(at));
            let order = Order { rank: rank(variable), counts: counts(variable) };
            of(before, sizes, pairs, &order, expected)
        });
        chain.variables[at].absent = absent.collect();
    }
    let width = chain.heads.len();
    for at in 1..width {
        // The gap has too many reasons to be what it is.
        if !matches!(chain.heads[at].says, RecordSays::Field { .. }) {
            continue;
        }
        let is_joint =
            |before: &usize| matches!(chain.heads[*before].says, RecordSays::Joint { .. });
        let absent = (0..at).filter(is_joint).filter_map(|before| {
            let token = |of: usize| flows.records.iter().skip(of).step_by(width).copied();
            let sizes = [chain.heads[before].size, chain.heads[at].size];
            let pairs = token(before).zip(token(at));
            of(before, sizes, pairs, &Order::default(), EXPECTED)
        });
        chain.heads[at].absent = absent.collect();
    }
}

/// Whether a variable says what kind of flow it is: bins of numbers say less, and what one of
/// many excludes by chance is lost, since what is excluded by any is.
fn is_kind(variable: &Variable) -> bool {
    matches!(variable.says, Says::Field { .. } | Says::Support { .. } | Says::Constant { .. })
        && !is_octet(variable)
}

fn is_octet(variable: &Variable) -> bool {
    matches!(variable.says, Says::Field { place: 1.., .. })
}

/// What is known of the order of a variable's tokens.
#[derive(Debug, Default)]
struct Order {
    /// The place of each, if they have an order.
    rank: Option<Vec<usize>>,
    /// If they are counts of records, the least and the most of each.
    counts: Option<Vec<[f64; 2]>>,
}

fn counts(variable: &Variable) -> Option<Vec<[f64; 2]>> {
    let Says::Count { tokens } = &variable.says else { return None };
    Some((0..variable.size as u32).map(|token| tokens.ends(token)).collect())
}

/// The order of a variable's tokens, if they have one.
fn rank(variable: &Variable) -> Option<Vec<usize>> {
    let (Says::Count { tokens } | Says::Duration { tokens } | Says::Mean { tokens, .. }) =
        &variable.says
    else {
        return None;
    };
    let middle = |token: &u32| tokens.number_at(*token, 0.5);
    let mut order: Vec<u32> = (0..variable.size as u32).collect();
    order.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
    let mut rank = vec![0; variable.size];
    order.into_iter().zip(0..).for_each(|(token, at)| rank[token as usize] = at);
    Some(rank)
}

/// The pairs of tokens that were never seen together, although they should have been; none
/// if there are none.
fn of(
    before: usize,
    sizes: [usize; 2],
    pairs: impl Iterator<Item = (u32, u32)>,
    order: &Order,
    least: f64,
) -> Option<Absent> {
    if sizes.iter().any(|&size| size > MOST_TOKENS) {
        return None;
    }
    let mut counts = sizes.map(|size| vec![0_u64; size]);
    let mut met: HashSet<(usize, usize)> = HashSet::new();
    let mut all = 0_u64;
    for (a, b) in pairs.map(|(a, b)| (a as usize, b as usize)) {
        // A token past the last: a variable that does not apply.
        if a < sizes[0] && b < sizes[1] {
            counts[0][a] += 1;
            counts[1][b] += 1;
            all += 1;
            met.insert((a, b));
        }
    }
    let mut frequent: Vec<usize> = (0..sizes[1]).filter(|&b| counts[1][b] > 0).collect();
    frequent.sort_by_key(|&b| std::cmp::Reverse(counts[1][b]));
    let mut found: Vec<(f64, [u32; 2])> = Vec::new();
    for (a, &count) in counts[0].iter().enumerate().filter(|(_, count)| **count > 0) {
        let expected = |number: u64| count as f64 * number as f64 / all as f64;
        let pair = |b: usize| [a as u32, b as u32];
        for &b in &frequent {
            let times = expected(counts[1][b]);
            if times < least {
                break;
            }
            if !met.contains(&(a, b)) {
                found.push((times, pair(b)));
            }
        }
        // Each of what is above all that there is with this token may be rare, but not all
        // of it together; below likewise.
        let Some(rank) = &order.rank else { continue };
        let seen = || frequent.iter().filter(|&&b| met.contains(&(a, b))).map(|&b| rank[b]);
        let (Some(lowest), Some(highest)) = (seen().min(), seen().max()) else { continue };
        let sides: [&dyn Fn(usize) -> bool; 2] = [&|b| rank[b] > highest, &|b| rank[b] < lowest];
        for is_beyond in sides {
            let beyond = || frequent.iter().copied().filter(|&b| is_beyond(b));
            let times = expected(beyond().map(|b| counts[1][b]).sum());
            if times >= least {
                found.extend(beyond().map(|b| (times, pair(b))));
            }
        }
        // A heavy tail may go on beyond what was seen of it, but not anywhere.
        let few = order.counts.as_ref().filter(|_| sizes[0] <= FEW);
        if let Some(numbers) = few {
            let seen = frequent.iter().filter(|&&b| met.contains(&(a, b)));
            let most = seen.map(|&b| numbers[b][1]).fold(0.0, f64::max);
            let most = most * (SPREAD / count as f64).max(FURTHER);
            let beyond = frequent.iter().copied().filter(|&b| numbers[b][0] > most);
            found.extend(beyond.map(|b| (expected(counts[1][b]), pair(b))));
        }
    }
    // The surest, if they are too many.
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut pairs: Vec<[u32; 2]> = found.into_iter().map(|(_, pair)| pair).collect();
    pairs.truncate(MOST_ABSENT);
    pairs.sort_unstable();
    pairs.dedup();
    (!pairs.is_empty()).then_some(Absent { before, pairs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_should_have_met_is_absent() {
        // Token 2 of the second is too rare to have met token 1 of the first.
        let rows = [[0, 0], [0, 0], [0, 1], [1, 1], [1, 1], [0, 0]];
        let pairs = (0..10).flat_map(|_| rows).chain([[0, 2]]).map(|[a, b]| (a, b));
        let absent = of(7, [2, 3], pairs, &Order::default(), EXPECTED);
        assert_eq!(absent, Some(Absent { before: 7, pairs: vec![[1, 0]] }));
        let few = rows.iter().map(|&[a, b]| (a, b));
        assert_eq!(of(7, [2, 3], few, &Order::default(), EXPECTED), None);
    }

    #[test]
    fn what_is_beyond_all_that_was_seen_is_absent_together() {
        // Each of the numbers 10 to 19 is there once; with token 1 only the first three are.
        let large = (0..10).map(|b| (0, b));
        let pairs = large.chain((0..15).map(|at| (1, at % 3)));
        let order = Order { rank: Some((0..10).collect()), counts: None };
        let absent = of(0, [2, 10], pairs, &order, EXPECTED).expect("something is absent");
        assert_eq!(absent.pairs, (3..10).map(|b| [1, b]).collect::<Vec<_>>());
    }

    #[test]
    fn counts_go_on_beyond_what_was_seen_but_not_anywhere() {
        // Flows of 1, 2, 4 .. 512 records; of the second kind four, of at most 2.
        let pairs = (0..100).map(|at| (0, at % 10)).chain([(1, 0), (1, 0), (1, 1), (1, 1)]);
        let counts = (0..10).map(|b| [f64::from(1 << b); 2]).collect();
        let order = Order { rank: Some((0..10).collect()), counts: Some(counts) };
        let absent = of(0, [2, 10], pairs, &order, f64::INFINITY).expect("something is absent");
        assert_eq!(absent.pairs, (4..10).map(|b| [1, b]).collect::<Vec<_>>());
    }
}
