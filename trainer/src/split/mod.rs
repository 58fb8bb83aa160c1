//! `ns-train split`: an input in parts that share no flow, to train on one and
//! judge by the others.

mod cli;
mod parts;
mod write;

pub use cli::SplitArgs;
pub(crate) use cli::run;
pub(crate) use write::write_held_out;

use std::collections::HashMap;

/// What parts are cut by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// At times: the first part is the earliest. A flow belongs to the part in which it starts.
    Time,
    /// At random, by a seed: each part has flows from all of the span.
    Flow,
}

/// Which part each flow belongs to.
enum Assignment {
    /// By the number drawn for it: the upper end of each part's share.
    Drawn(Vec<f64>),
    /// As listed.
    Listed(HashMap<u64, usize>),
}

impl Assignment {
    /// `shares` add up to 1.
    fn drawn(shares: &[f64]) -> Assignment {
        let mut sum = 0.0;
        let ends = shares.iter().map(|share| {
            sum += share;
            sum
        });
        Assignment::Drawn(ends.collect())
    }

    /// Cuts flows in order of start so that each part has its share of the records.
    fn by_start(seen: &HashMap<u64, Seen>, shares: &[f64]) -> Assignment {
        let mut order: Vec<(i64, u64, u64)> =
            seen.iter().map(|(flow, seen)| (seen.start_ns, *flow, seen.records)).collect();
        order.sort_unstable();
        let total: u64 = order.iter().map(|(_, _, records)| records).sum();
        let Assignment::Drawn(ends) = Assignment::drawn(shares) else {
            return Assignment::Listed(HashMap::new());
        };
        let mut before = 0;
        let mut list = HashMap::with_capacity(order.len());
        for (_, flow, records) in order {
            let share = before as f64 / total.max(1) as f64;
            list.insert(flow, part_of(&ends, share));
            before += records;
        }
        Assignment::Listed(list)
    }

    fn part(&self, flow: u64) -> usize {
        match self {
            // 53 bits of the number as a share.
            Assignment::Drawn(ends) => part_of(ends, (flow >> 11) as f64 / (1_u64 << 53) as f64),
            Assignment::Listed(list) => list.get(&flow).copied().unwrap_or(0),
        }
    }
}

fn part_of(ends: &[f64], share: f64) -> usize {
    ends.partition_point(|end| *end <= share).min(ends.len() - 1)
}

/// A flow, while starts are looked for.
#[derive(Clone, Copy, Debug)]
struct Seen {
    start_ns: i64,
    records: u64,
}

/// Notes a record of a flow.
fn see(seen: &mut HashMap<u64, Seen>, flow: u64, time_ns: i64) {
    let seen = seen.entry(flow).or_insert(Seen { start_ns: time_ns, records: 0 });
    seen.start_ns = seen.start_ns.min(time_ns);
    seen.records += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_go_whole_to_the_part_in_which_they_start() {
        let mut seen = HashMap::new();
        // Flow 7 starts first and lasts to the end.
        for (flow, time) in [(7, 0), (8, 10), (9, 20), (7, 30), (5, 40), (4, 50), (7, 60), (3, 70)]
        {
            see(&mut seen, flow, time);
        }
        let parts = Assignment::by_start(&seen, &[0.5, 0.25, 0.25]);
        let part = |flow| parts.part(flow);
        assert_eq!([7, 8, 9, 5, 4, 3].map(part), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn drawn_parts_have_their_shares() {
        let parts = Assignment::drawn(&[0.7, 0.2, 0.1]);
        let mut counts = [0; 3];
        for flow in 0..100_000_u64 {
            counts[parts.part(flow.wrapping_mul(0x9e37_79b9_7f4a_7c15))] += 1;
        }
        assert!((69_000..71_000).contains(&counts[0]), "{counts:?}");
        assert!((19_000..21_000).contains(&counts[1]), "{counts:?}");
        assert_eq!(parts.part(u64::MAX), 2);
    }
}
