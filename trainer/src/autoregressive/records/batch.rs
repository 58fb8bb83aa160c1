//! Which records a pass goes through: flows of like lengths together, in windows of their
//! records, and in shards that threads take.

use std::ops::Range;

use ns_model_format::autoregressive::{budget_bucket, count_bucket};
use ns_model_format::random::Stream;

use crate::autoregressive::tokens::Flows;
use crate::model::ops::tokens::Ids;

/// Records of a flow that a pass goes through at once: state is handed on, gradients are not.
pub(super) const WINDOW: usize = 512;
/// In so many visits the planned time is only about right, by a factor of `exp(0.7 z)`:
/// a plan is a hint.
const HINTED: f32 = 0.5;
const HINT_DEVIATION: f64 = 0.7;
/// Records of a shard's first window, about, and its flows, at least, unless a batch has fewer:
/// every shard costs a sum of gradients, and products of a few rows cost as much as those of some
/// more.
const SHARD_RECORDS: usize = 200;
const SHARD_FLOWS: usize = 2;
/// Shards of a batch, at most.
const MOST_SHARDS: usize = 32;

/// Some records of some flows, step by step: row `step * flows + flow`.
pub(super) struct Batch {
    pub(super) steps: usize,
    pub(super) flows: usize,
    /// A head's tokens of the record before.
    pub(super) previous: Vec<Ids>,
    pub(super) left: Ids,
    pub(super) so_far: Ids,
    pub(super) budget: Ids,
    /// A head's tokens; weight 0 where there is no record, or nothing to be drawn.
    pub(super) targets: Vec<Vec<u32>>,
    pub(super) weights: Vec<Vec<f32>>,
}

impl Batch {
    /// `steps` records of the chosen flows, `from` one on, of heads of these sizes. In training,
    /// hints are drawn.
    pub(super) fn new(
        flows: &Flows,
        chosen: &[usize],
        (from, steps): Window,
        sizes: &[usize],
        mut hints: Option<&mut Stream>,
    ) -> Batch {
        let (count, heads) = (chosen.len(), sizes.len());
        let rows = steps * count;
        let mut previous = vec![(vec![0_u32; rows], vec![0.0_f32; rows]); heads];
        let mut targets = vec![vec![0_u32; rows]; heads];
        let mut weights = vec![vec![0.0_f32; rows]; heads];
        let mut counters = [(); 3].map(|()| vec![0_u32; rows]);
        let mut there = vec![0.0_f32; rows];
        for (column, &flow) in chosen.iter().enumerate() {
            let range = flows.range(flow);
            let length = range.len();
            let mut planned = f64::from(flows.since_us[range.end - 1]);
            if let Some(stream) = &mut hints
                && stream.uniform() < HINTED
            {
                planned *= (HINT_DEVIATION * f64::from(stream.normal())).exp();
            }
            for step in 0..steps.min(length.saturating_sub(from)) {
                let (row, index) = (step * count + column, from + step);
                let record = range.start + index;
                there[row] = 1.0;
                for head in 0..heads {
                    let before = match index {
                        0 => sizes[head] as u32,
                        _ => flows.records[(record - 1) * heads + head],
                    };
                    previous[head].0[row] = before;
                    previous[head].1[row] = 1.0;
                    targets[head][row] = flows.records[record * heads + head];
                    // A first record has no gap.
                    weights[head][row] = f32::from(index > 0 || head + 1 < heads);
                }
                let elapsed = flows.since_us[record - usize::from(index > 0)];
                let left = f64::from((planned as f32 - elapsed).max(0.0));
                let gaps = (length - index.max(1)) as u32;
                counters[0][row] = count_bucket((length - index) as u32) as u32;
                counters[1][row] = count_bucket(index as u32) as u32;
                counters[2][row] = budget_bucket(left, gaps) as u32;
            }
        }
        let [left, so_far, budget] = counters.map(|ids| Ids::weighted(ids, there.clone()));
        Batch {
            steps,
            flows: count,
            previous: previous.into_iter().map(|(ids, w)| Ids::weighted(ids, w)).collect(),
            left,
            so_far,
            budget,
            targets,
            weights,
        }
    }

    /// A head's tokens with their weights.
    pub(super) fn wanted(&self, head: usize) -> Ids {
        Ids::weighted(self.targets[head].clone(), self.weights[head].clone())
    }

    /// Every head's tokens, as those after it are given them.
    pub(super) fn given(&self) -> Vec<Ids> {
        self.targets.iter().map(|tokens| Ids::new(tokens.clone())).collect()
    }
}

/// Where a window begins, in records of a flow, and of how many it is.
pub(super) type Window = (usize, usize);

/// Windows that some flows are gone through in.
pub(super) fn windows(flows: &Flows, chosen: &[usize]) -> impl Iterator<Item = Window> + use<> {
    let longest = chosen.iter().map(|&flow| flows.range(flow).len()).max().unwrap_or(0);
    (0..longest).step_by(WINDOW).map(move |from| (from, (longest - from).min(WINDOW)))
}

/// Cuts flows of these lengths, one after another, into shards of about as many records. It
/// depends on nothing else, so that the same weights are learned on any number of threads.
pub(super) fn shards(lengths: &[usize]) -> Vec<Range<usize>> {
    let records = |length: &usize| (*length).min(WINDOW);
    let all: usize = lengths.iter().map(records).sum();
    let count = (all / SHARD_RECORDS).min(lengths.len() / SHARD_FLOWS).clamp(1, MOST_SHARDS);
    let mut shards = Vec::with_capacity(count);
    let (mut begin, mut sum) = (0, 0);
    for (at, length) in lengths.iter().enumerate() {
        sum += records(length);
        let left = lengths.len() - at - 1;
        if at + 1 - begin >= SHARD_FLOWS
            && left >= SHARD_FLOWS
            && sum * count >= all * (shards.len() + 1)
        {
            shards.push(begin..at + 1);
            begin = at + 1;
        }
    }
    shards.push(begin..lengths.len());
    shards
}

/// Groups flows of like lengths: at most so many flows, and records with padding, a batch.
pub(crate) fn batches(
    flows: &Flows,
    chosen: &[usize],
    (most_flows, most_records): (usize, usize),
    stream: &mut Stream,
) -> Vec<Vec<usize>> {
    let mut keyed: Vec<(f64, usize)> = chosen
        .iter()
        .map(|&flow| {
            let length = flows.range(flow).len() as f64;
            (length * (0.15 * f64::from(stream.normal())).exp(), flow)
        })
        .collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut all: Vec<Vec<usize>> = Vec::new();
    let (mut batch, mut longest) = (Vec::new(), 0);
    for (_, flow) in keyed {
        let length = flows.range(flow).len().min(WINDOW);
        let with = longest.max(length);
        if !batch.is_empty()
            && (batch.len() >= most_flows || with * (batch.len() + 1) > most_records)
        {
            all.push(std::mem::take(&mut batch));
            longest = 0;
        }
        longest = longest.max(length);
        batch.push(flow);
    }
    if !batch.is_empty() {
        all.push(batch);
    }
    stream.shuffle(&mut all);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_alike_and_leave_out_no_flow() {
        let lengths: Vec<usize> = (0..200).map(|flow| 1 + flow / 10).collect();
        let all: usize = lengths.iter().sum();
        let shards = shards(&lengths);
        assert_eq!(shards.len(), all / SHARD_RECORDS);
        assert_eq!((shards[0].start, shards[shards.len() - 1].end), (0, 200));
        assert!(shards.windows(2).all(|pair| pair[0].end == pair[1].start));
        for shard in shards {
            let records: usize = lengths[shard].iter().sum();
            assert!(records.abs_diff(SHARD_RECORDS) < 60, "{records}");
        }
    }

    #[test]
    fn few_records_or_flows_are_one_shard() {
        let one =
            |lengths: &[usize]| matches!(&shards(lengths)[..], [one] if *one == (0..lengths.len()));
        assert!(one(&[]) && one(&[1; 100]) && one(&[10_000; 3]));
        assert_eq!(shards(&[10_000; 5]), [0..3, 3..5]);
        // One long flow after many short ones does not leave a shard of its own.
        assert!(one(&[[1; 9].as_slice(), &[900]].concat()));
    }

    #[test]
    fn windows_end_with_the_longest_flow() {
        let of = |lengths: &[usize]| {
            let ends = lengths.iter().scan(0, |end, length| {
                *end += *length as u64;
                Some(*end)
            });
            let flows = Flows { ends: ends.collect(), ..Flows::default() };
            windows(&flows, &(0..lengths.len()).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[3, WINDOW + 2, 1]), [(0, WINDOW), (WINDOW, 2)]);
        assert_eq!(of(&[WINDOW]), [(0, WINDOW)]);
        assert_eq!(of(&[]), []);
    }
}
