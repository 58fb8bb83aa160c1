//! What is drawn as one: the fields of a record that share a head, the combinations that
//! flows have of them, and pairs of addresses.

use std::collections::HashMap;

use ns_model_format::autoregressive::{Head, MOST_SUPPORT, RecordSays, Says, Variable};
use ns_model_format::codec::TokensCodec;
use ns_model_format::schema::packet_field::{DIRECTION, TCP_FLAGS};

use super::chain::{FEW, head, is_few_and_whole, is_protocol, variable};
use super::measured::{Measured, Records};

/// Most combinations of fields that are drawn together.
const MOST_COMBINATIONS: usize = 256;
/// Most sets of combinations that flows have, and so many of the flows must have one of them.
const MOST_SETS: usize = 256;
const SUPPORT_SHARE: f64 = 0.95;
/// Most pairs of addresses, and so many of the flows must have one of them.
const MOST_PAIRS: usize = 1024;
const PAIRS_SHARE: f64 = 0.01;

/// Of so many times that a combination was there, one is not looked at for how much can follow it.
const OUTLIERS: usize = 200;
/// That all of a combination are so near their flows' ends is chance with a probability of
/// `exp(-SURE)`.
const SURE: f64 = 16.0;
/// How often flows begin anew is learned if so many do, up to so often.
const FEWEST_AGAIN: usize = 4;
const MOST_AGAIN: usize = 7;
/// TCP's flags in the first packet of a connection: SYN, without ACK.
const TCP_BEGINS: (i64, i64) = (0x02, 0x10);

/// Which fields are drawn together, and which alone.
pub(super) fn divide(measured: &[Measured<'_>], changing: &[usize]) -> (Vec<usize>, Vec<usize>) {
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
pub(super) struct Joined {
    combinations: Vec<Vec<u32>>,
    pub(super) tokens: Vec<u32>,
}

impl Joined {
    pub(super) fn new(fields: &[usize], measured: &[Measured<'_>]) -> Joined {
        let combinations = combinations(fields, measured);
        let index: HashMap<&[u32], u32> = combinations.iter().map(Vec::as_slice).zip(0..).collect();
        let combination =
            |record| -> Vec<u32> { fields.iter().map(|&at| measured[at].tokens[record]).collect() };
        let count = measured[fields[0]].tokens.len();
        let tokens = (0..count).map(|record| index[combination(record).as_slice()]).collect();
        Joined { combinations, tokens }
    }
}

/// Which kinds of combinations a flow has. A kind is what some of the fields say: as many of
/// them as leave sets that most flows share. Sets of one flow alone count too: what has many
/// kinds is long, and without a set to keep to it would be full of one of them.
pub(super) fn support(
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
    /// Flows that share their set with another.
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
        let sets = frequent(few, 1, MOST_SETS);
        let index: HashMap<&[u32], u32> = sets.iter().map(Vec::as_slice).zip(0..).collect();
        let open = sets.len() as u32;
        let token = |set: &Vec<u32>| index.get(set.as_slice()).copied().unwrap_or(open);
        let tokens: Vec<u32> = of_flows.iter().map(token).collect();
        let mut flows = vec![0_usize; sets.len()];
        tokens.iter().filter(|token| **token < open).for_each(|&token| flows[token as usize] += 1);
        let covered = flows.into_iter().filter(|&flows| flows > 1).sum();
        Support { kinds, sets, tokens, covered }
    }
}

/// What is there so often, in ascending order; at most so many, the most frequent.
fn frequent<'a, T: Clone + Ord + std::hash::Hash + 'a>(
    all: impl Iterator<Item = &'a T>,
    least: u64,
    most: usize,
) -> Vec<T> {
    let mut counts: HashMap<&T, u64> = HashMap::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    let mut counts: Vec<(&T, u64)> =
        counts.into_iter().filter(|(_, count)| *count >= least).collect();
    counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let mut kept: Vec<T> = counts.into_iter().take(most).map(|(one, _)| one.clone()).collect();
    kept.sort_unstable();
    kept
}

/// The pairs of tokens that two fields of addresses have more than once. What is seen once
/// is as often as what has not been seen at all (Good, *The population frequencies of
/// species and the estimation of population parameters*, Biometrika 40, 1953), so pairs are
/// new as often as they should be.
pub(super) fn pair(
    fields: [usize; 2],
    codecs: [&TokensCodec; 2],
    tokens: [&[u32]; 2],
    name: String,
) -> Option<(Variable, Vec<u32>)> {
    let of_flows: Vec<[u32; 2]> = tokens[0].iter().zip(tokens[1]).map(|(&a, &b)| [a, b]).collect();
    let is_exact = |pair: &&[u32; 2]| pair.iter().zip(codecs).all(|(&t, codec)| codec.is_exact(t));
    let pairs = frequent(of_flows.iter().filter(is_exact), 2, MOST_PAIRS);
    let open = pairs.len();
    let token = |pair: &[u32; 2]| pairs.binary_search(pair).unwrap_or(open) as u32;
    let tokens: Vec<u32> = of_flows.iter().map(token).collect();
    let covered = tokens.iter().filter(|token| (**token as usize) < open).count();
    if (covered as f64) < PAIRS_SHARE.max(f64::MIN_POSITIVE) * tokens.len() as f64 {
        return None;
    }
    Some((variable(name, open + 1, Says::Pair { fields, pairs }), tokens))
}

/// The head of the fields that are drawn together: which combinations there are, and which
/// of them begin a flow or follow which.
pub(super) fn joint_head(
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
    let mut since = after.clone();
    let begins = begins(fields, combinations, measured);
    // What there was since something last began, and where first.
    let mut had: Vec<(usize, usize)> = Vec::new();
    let mut ends = vec![Vec::new(); combinations.len()];
    for (flow, range) in records.flows().enumerate() {
        let row = given.map_or(0, |at| attributes[flow * variables.len() + at] as usize);
        let (mut begun, count) = (0, range.len());
        for (at, record) in range.enumerate() {
            let token = tokens[record] as usize;
            had.iter().for_each(|&(earlier, _)| since[earlier][token] = true);
            if begins[token] {
                note_ends(&mut had, at - begun, &mut ends);
                begun = at;
            }
            if had.iter().all(|&(earlier, _)| earlier != token) {
                had.push((token, at - begun));
            }
            let lists = if at == 0 { &mut first } else { &mut later };
            lists[row][token] = true;
            if at > 0 {
                after[tokens[record - 1] as usize][token] = true;
            }
            if at + 1 == count {
                note_ends(&mut had, at + 1 - begun, &mut ends);
            }
        }
    }
    let list = |seen: Vec<bool>| {
        seen.into_iter().zip(0..).filter(|(seen, _)| *seen).map(|(_, at)| at).collect()
    };
    let lists = |all: Vec<Vec<bool>>| all.into_iter().map(list).collect::<Vec<Vec<u32>>>();
    let name = fields.iter().map(|&at| measured[at].field.name.as_str()).collect::<Vec<_>>();
    let size = combinations.len();
    let (first, later) = (lists(first), lists(later));
    let (after, since) = (lists(after), lists(since));
    let (fields, combinations) = (fields.to_vec(), combinations.clone());
    let room = ends.iter_mut().map(|ends| room(ends)).collect();
    let begins = list(begins);
    let says =
        RecordSays::Joint { fields, combinations, given, first, later, after, since, begins, room };
    head(name.join(" "), size, says)
}

/// Which combinations begin anew within a flow: a connection on the ports of one that is over.
fn begins(fields: &[usize], combinations: &[Vec<u32>], measured: &[Measured<'_>]) -> Vec<bool> {
    let place = fields.iter().position(|&at| measured[at].field.name == TCP_FLAGS);
    let (set, clear) = TCP_BEGINS;
    let begins = |combination: &Vec<u32>| {
        place.is_some_and(|place| {
            let value = measured[fields[place]].codec.value(&[combination[place]], 0.0);
            value.as_i64().is_some_and(|flags| flags & (set | clear) == set)
        })
    };
    combinations.iter().map(begins).collect()
}

/// How often flows begin anew after something else, if some do.
pub(super) fn again(
    fields: &[usize],
    Joined { combinations, tokens }: &Joined,
    measured: &[Measured<'_>],
    records: &Records<'_>,
) -> Option<(Variable, Vec<u32>)> {
    let begins = begins(fields, combinations, measured);
    let of_flow = |range: std::ops::Range<usize>| {
        let begins: Vec<bool> = tokens[range].iter().map(|&token| begins[token as usize]).collect();
        begins.windows(2).filter(|pair| pair[1] && !pair[0]).count()
    };
    let counts: Vec<usize> = records.flows().map(of_flow).collect();
    let some = counts.iter().filter(|&&count| count > 0).count();
    let most = counts.iter().copied().max().unwrap_or(0).saturating_add(1).min(MOST_AGAIN);
    let says = Says::Again { head: 0, most };
    let tokens = counts.into_iter().map(|count| count.min(most) as u32).collect();
    (some >= FEWEST_AGAIN).then(|| (variable("again".to_owned(), most + 1, says), tokens))
}

/// Notes, for each combination of a part of a flow of so many records, how many came after the
/// first of it, and how many there were.
fn note_ends(had: &mut Vec<(usize, usize)>, count: usize, ends: &mut [Vec<(usize, usize)>]) {
    for (token, at) in had.drain(..) {
        ends[token].push((count - 1 - at, count));
    }
}

/// How many records come after a combination at most, if it says that an end is near.
fn room(ends: &mut [(usize, usize)]) -> u32 {
    ends.sort_unstable();
    let Some(last) = ends.len().checked_sub(1) else { return u32::MAX };
    let (room, _) = ends[last - ends.len() / OUTLIERS];
    // Were it anywhere in them, it would be so near the end of all of them by chance.
    let by_chance = |&(_, count): &(usize, usize)| (count as f64 / (room + 1) as f64).ln().max(0.0);
    let sure = ends.iter().map(by_chance).sum::<f64>() > SURE;
    if sure { u32::try_from(room).unwrap_or(u32::MAX) } else { u32::MAX }
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
