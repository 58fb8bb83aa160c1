//! Group 7: how much of the training data comes out again?

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::compare::Comparison;
use super::features::features;
use super::joint::mixed;
use super::learn::{Matrix, auc};
use super::sample::Sample;
use super::table::{Cells, Role};

/// Sequences shorter than this are alike by chance.
const LONG: usize = 8;
/// Real flows of each kind whose nearest neighbours are looked for.
const MOST_FLOWS: usize = 2000;
/// Synthetic flows among which they are looked for.
const MOST_SYNTHETIC: usize = 20_000;

/// A kind of copy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copies {
    /// For programs: `record`, `tuple`, `address_pair`, `sequence`.
    pub name: String,
    /// For people.
    pub label: String,
    /// The share of synthetic ones that occur in the reference.
    pub synthetic: Option<f64>,
    /// The share of real ones that are not in the reference and occur in it all the
    /// same: what chance, and what traffic repeats, gives.
    pub floor: Option<f64>,
    /// The share of the Markov baseline's.
    pub baseline: Option<f64>,
    /// How many synthetic ones were looked at.
    pub count: usize,
}

/// Distance to the closest record, from the real flows' side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Closest {
    /// The chance that a flow that was trained on has a nearer synthetic flow than one
    /// that was not: 0.5 where nothing was memorised, 1 where all was.
    pub nearer_to_train: f64,
    /// Where chance puts it 95% of the time, from the numbers of flows.
    pub by_chance: [f64; 2],
    /// The median distance of training flows to the closest synthetic one, in parts of
    /// that of flows that were not trained on.
    pub median_ratio: f64,
    /// Flows of each kind that were looked at.
    pub flows: [usize; 2],
}

/// What was found of the reference in the synthetic trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Privacy {
    /// What copies are looked for in: `train`, or `real` where no training part was
    /// given (one half of it, the other being the floor).
    pub reference: String,
    /// Copies by kind.
    pub copies: Vec<Copies>,
    /// Distances to the closest record; null without a training part.
    pub closest: Option<Closest>,
}

impl Privacy {
    /// Looks for copies, on the first split.
    #[must_use]
    pub fn of(comparison: &Comparison) -> Privacy {
        let [half, other] = comparison.halves(0);
        let synthetic = comparison.part(&comparison.synthetic, 0);
        let baseline = comparison.baseline.as_ref().map(|table| comparison.part(table, 0));
        let train = comparison.train.as_ref().map(|table| comparison.all(table));
        // All that was trained on: a copy is one wherever it comes from. Of a model that is
        // judged by flows it has not seen, these are the floor.
        let (reference, floor) = match &train {
            Some(train) => (train, &half),
            None => (&half, &other),
        };
        let kinds: [(&str, &str, Keys); 4] = [
            ("record", "records, all fields but their time", records),
            ("tuple", "names of flows (5-tuples)", tuples),
            ("address_pair", "pairs of addresses", pairs),
            ("sequence", "sequences of 8 or more records", sequences),
        ];
        let copies = kinds.into_iter().map(|(name, label, keys)| {
            let known: HashSet<u64> = keys(reference).into_iter().collect();
            let share = |sample: &Sample<'_>| -> (Option<f64>, usize) {
                let found: HashSet<u64> = keys(sample).into_iter().collect();
                let copied = found.iter().filter(|key| known.contains(key)).count();
                let share = copied as f64 / found.len() as f64;
                ((!found.is_empty()).then_some(share), found.len())
            };
            let (synthetic, count) = share(&synthetic);
            Copies {
                name: name.to_owned(),
                label: label.to_owned(),
                synthetic,
                floor: share(floor).0,
                baseline: baseline.as_ref().and_then(|sample| share(sample).0),
                count,
            }
        });
        let copies: Vec<Copies> =
            copies.filter(|kind| kind.synthetic.is_some() || kind.floor.is_some()).collect();
        Privacy {
            reference: if train.is_some() { "train" } else { "real" }.to_owned(),
            copies,
            closest: train.as_ref().and_then(|train| {
                let unseen = comparison.all(&comparison.real);
                closest(train, &unseen, &comparison.all(&comparison.synthetic))
            }),
        }
    }
}

/// What a sample has of one kind, a number each.
type Keys = fn(&Sample<'_>) -> Vec<u64>;

fn cell(sample: &Sample<'_>, at: usize, row: u32) -> u64 {
    match &sample.table.cells[at] {
        Cells::Ids(ids) => ids[row as usize].into(),
        Cells::Numbers(numbers) => numbers[row as usize].to_bits(),
    }
}

fn records(sample: &Sample<'_>) -> Vec<u64> {
    let columns = 0..sample.frame.columns.len();
    let record = |&row: &u32| mixed(columns.clone().map(|at| cell(sample, at, row)));
    sample.rows.iter().map(record).collect()
}

fn tuples(sample: &Sample<'_>) -> Vec<u64> {
    let columns = sample.frame.columns.iter().enumerate();
    let names: Vec<usize> = columns.filter(|(_, c)| c.is_attribute).map(|(at, _)| at).collect();
    let name = |flow: &[u32]| mixed(names.iter().map(|&at| cell(sample, at, flow[0])));
    sample.flows().map(name).collect()
}

fn pairs(sample: &Sample<'_>) -> Vec<u64> {
    let Some(columns) = sample.frame.address_pair() else { return Vec::new() };
    let pair = |flow: &[u32]| mixed(columns.map(|at| cell(sample, at, flow[0])));
    sample.flows().map(pair).collect()
}

/// Of packets, lengths and flags; of other records, all measurements.
fn sequences(sample: &Sample<'_>) -> Vec<u64> {
    use ns_model_format::schema::{TraceKind, packet_field};
    let frame = sample.frame;
    let columns: Vec<usize> = match frame.kind {
        TraceKind::Packets => [packet_field::LEN, packet_field::TCP_FLAGS]
            .iter()
            .filter_map(|name| frame.column(name))
            .collect(),
        _ => {
            let all = frame.columns.iter().enumerate();
            all.filter(|(_, c)| !c.is_attribute && c.role != Role::Address)
                .map(|(at, _)| at)
                .collect()
        }
    };
    let long = sample.flows().filter(|flow| flow.len() >= LONG);
    let sequence = |flow: &[u32]| {
        mixed(
            flow.iter()
                .flat_map(|&row| columns.iter().map(move |&at| (at, row)))
                .map(|(at, row)| cell(sample, at, row)),
        )
    };
    long.map(sequence).collect()
}

/// How near synthetic flows come to those that were trained on, and to others.
fn closest(train: &Sample<'_>, unseen: &Sample<'_>, synthetic: &Sample<'_>) -> Option<Closest> {
    let of = |sample: &Sample<'_>, most| features(sample, most, &[]).matrix;
    let [mut train, mut unseen] = [train, unseen].map(|sample| of(sample, MOST_FLOWS));
    let mut synthetic = of(synthetic, MOST_SYNTHETIC);
    if train.rows < 10 || unseen.rows < 10 || synthetic.rows < 10 {
        return None;
    }
    // As places among the real flows: on the features' own scales one flow far from all
    // others would be the nearest of everything that is unlike any.
    let places = Places::of(&train, &unseen);
    [&mut train, &mut unseen, &mut synthetic].into_iter().for_each(|matrix| places.put(matrix));
    let nearest = |from: &Matrix| -> Vec<f64> {
        from.values.chunks(from.cols).map(|row| least_square(row, &synthetic)).collect()
    };
    let (of_train, of_unseen) = (nearest(&train), nearest(&unseen));
    let scores: Vec<f64> = of_train.iter().chain(&of_unseen).map(|square| -square).collect();
    let trained: Vec<bool> = (0..scores.len()).map(|at| at < of_train.len()).collect();
    let (n, m) = (of_train.len() as f64, of_unseen.len() as f64);
    // The deviation of Mann and Whitney's statistic (1947) without ties.
    let spread = 1.96 * ((n + m + 1.0) / (12.0 * n * m)).sqrt();
    let median = |squares: &[f64]| super::compare::quantile(squares, 0.5).sqrt();
    let usual = median(&of_unseen);
    Some(Closest {
        nearer_to_train: auc(&scores, &trained),
        by_chance: [(0.5 - spread).max(0.0), (0.5 + spread).min(1.0)],
        median_ratio: if usual > 0.0 { median(&of_train) / usual } else { 1.0 },
        flows: [of_train.len(), of_unseen.len()],
    })
}

/// The sorted numbers of each feature among real flows.
struct Places(Vec<Vec<f64>>);

impl Places {
    fn of(train: &Matrix, unseen: &Matrix) -> Places {
        let column = |at: usize| {
            let both = [train, unseen];
            let numbers = both.iter().flat_map(|m| m.values.iter().skip(at).step_by(m.cols));
            let mut numbers: Vec<f64> = numbers.copied().collect();
            numbers.sort_unstable_by(f64::total_cmp);
            numbers
        };
        Places((0..train.cols).map(column).collect())
    }

    /// Puts the share of real numbers that are smaller, equal ones counted half, in each
    /// number's place.
    fn put(&self, matrix: &mut Matrix) {
        for row in matrix.values.chunks_mut(self.0.len()) {
            for (value, sorted) in row.iter_mut().zip(&self.0) {
                let below = sorted.partition_point(|x| x < value);
                let through = sorted.partition_point(|x| x <= value);
                *value = (below + through) as f64 / (2 * sorted.len()) as f64;
            }
        }
    }
}

/// The square of the distance to the nearest row.
fn least_square(row: &[f64], to: &Matrix) -> f64 {
    let square = |other: &[f64]| row.iter().zip(other).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
    to.values.chunks(to.cols).map(square).fold(f64::INFINITY, f64::min)
}
