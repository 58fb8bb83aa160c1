//! What an evaluation found: the document that `--json` prints.
//!
//! Names and meanings stay: a program that reads version 1 reads every later
//! document of version 1, which may have more keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::classifier::TwoSample;
use super::compare::{middle_95, quantile};
use super::distance::Distance;
use super::downstream::Downstream;
use super::measure::Group;
use super::netshare::NetShareRow;
use super::privacy::Privacy;

/// The version of the document.
pub const VERSION: u32 = 1;

/// One trace that was compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceFacts {
    /// Its files.
    pub file: String,
    /// Records that were compared.
    pub records: u64,
    /// Flows, a direction each.
    pub flows: u64,
    /// Flows that answer one another count once; these are what is sampled.
    pub conversations: u64,
    /// Time from the first record to the last, in seconds.
    pub span_s: f64,
    /// Records that could not be used, by reason.
    pub not_used: BTreeMap<String, u64>,
}

/// One metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// For programs: what is measured, a dot, which distance.
    pub name: String,
    /// For people: what is measured.
    pub label: String,
    /// The kind of question.
    pub group: Group,
    /// Which distance.
    pub distance: Distance,
    /// The unit of what is measured.
    pub unit: String,
    /// The distance between half of the real flows and as many synthetic ones,
    /// the mean over splits.
    pub value: f64,
    /// The same between two random halves of the real flows.
    pub floor: f64,
    /// `value / floor`; null where the floor is below 1e-6.
    pub r: Option<f64>,
    /// Where R lies in 95% of resamples of the splits.
    pub r_interval: Option<[f64; 2]>,
    /// `value` of the Markov baseline; null if it was not asked for.
    pub baseline: Option<f64>,
    /// R of the Markov baseline.
    pub baseline_r: Option<f64>,
    /// The distance between the whole real and the whole synthetic trace, for
    /// comparison with other tools; it depends on their sizes.
    pub whole: f64,
}

impl Metric {
    /// Whether it has no R, and is far away: of what lies between 0 and 1, by a tenth.
    fn is_broken(&self) -> bool {
        let is_bounded = !matches!(self.distance, Distance::W1 | Distance::W1Range);
        self.r.is_none() && is_bounded && self.value > 0.1
    }
}

/// What all metrics come to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Metrics.
    pub metrics: usize,
    /// Of these, those that have an R.
    pub with_r: usize,
    /// The median R.
    pub median_r: Option<f64>,
    /// Where it lies in 95% of resamples of the splits.
    pub median_r_interval: Option<[f64; 2]>,
    /// The 95th percentile of R.
    pub p95_r: Option<f64>,
    /// Metrics that have no R because the real trace never varies there, and in which
    /// the synthetic one is far away all the same.
    pub broken: Vec<String>,
    /// The largest R, and which metric has it.
    pub worst: Option<(String, f64)>,
    /// The median R of each group.
    pub groups: BTreeMap<String, f64>,
    /// The median R of the Markov baseline.
    pub baseline_median_r: Option<f64>,
    /// Its 95th percentile.
    pub baseline_p95_r: Option<f64>,
    /// The share of metrics on which the model is nearer to the real trace than
    /// the baseline, ties counted half.
    pub beats_baseline: Option<f64>,
    /// The median R in words.
    pub verdict: String,
}

impl Summary {
    pub(super) fn of(metrics: &[Metric], resampled: &[Vec<f64>]) -> Summary {
        let ratios: Vec<f64> = metrics.iter().filter_map(|metric| metric.r).collect();
        let some = |number: f64| (!number.is_nan()).then_some(number);
        let baseline: Vec<f64> = metrics.iter().filter_map(|metric| metric.baseline_r).collect();
        let duels: Vec<f64> = metrics
            .iter()
            .filter_map(|metric| {
                let order = metric.value.partial_cmp(&metric.baseline?)?;
                Some(match order {
                    std::cmp::Ordering::Less => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Greater => 0.0,
                })
            })
            .collect();
        let medians: Vec<f64> = (0..resampled.first().map_or(0, Vec::len))
            .map(|at| quantile(&resampled.iter().map(|r| r[at]).collect::<Vec<_>>(), 0.5))
            .collect();
        let groups = Group::ALL.into_iter().filter_map(|group| {
            let of: Vec<f64> =
                metrics.iter().filter(|m| m.group == group).filter_map(|m| m.r).collect();
            Some((group.name().to_owned(), some(quantile(&of, 0.5))?))
        });
        let worst = metrics
            .iter()
            .filter_map(|metric| Some((metric.name.clone(), metric.r?)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let median_r = some(quantile(&ratios, 0.5));
        let broken: Vec<String> =
            metrics.iter().filter(|m| m.is_broken()).map(|m| m.name.clone()).collect();
        let verdict = match broken.len() {
            0 => verdict(median_r).to_owned(),
            count => {
                format!("{}; {count} that never vary in the real trace differ", verdict(median_r))
            }
        };
        Summary {
            metrics: metrics.len(),
            with_r: ratios.len(),
            median_r,
            median_r_interval: metrics
                .iter()
                .any(|metric| metric.r_interval.is_some())
                .then(|| middle_95(&medians)),
            p95_r: some(quantile(&ratios, 0.95)),
            worst,
            groups: groups.collect(),
            baseline_median_r: some(quantile(&baseline, 0.5)),
            baseline_p95_r: some(quantile(&baseline, 0.95)),
            beats_baseline: (!duels.is_empty())
                .then(|| duels.iter().sum::<f64>() / duels.len() as f64),
            broken,
            verdict,
        }
    }
}

/// A median R in words.
fn verdict(median_r: Option<f64>) -> &'static str {
    match median_r {
        None => "the real trace is too small or too uniform for any ratio",
        Some(..1.25) => "as near as the real trace is to itself",
        Some(..2.0) => "close: differences are near the noise of the real trace",
        Some(..5.0) => "alike, with differences that are plain beside the noise",
        Some(_) => "far: most of what was measured differs",
    }
}

/// A rate of group 4, as it is rather than as a distance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// For programs.
    pub name: String,
    /// For people.
    pub label: String,
    /// Of the whole real trace.
    pub real: Option<f64>,
    /// Of the whole synthetic trace.
    pub synthetic: Option<f64>,
    /// Of the whole baseline.
    pub baseline: Option<f64>,
}

/// The whole document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// [`VERSION`].
    pub version: u32,
    /// What a record is: `packets`, `netflow` or `custom`.
    pub kind: ns_model_format::schema::TraceKind,
    /// The real trace.
    pub real: TraceFacts,
    /// The synthetic trace, as far as it is as long as the real one.
    pub synthetic: TraceFacts,
    /// What the model was trained on, if it was given.
    pub train: Option<TraceFacts>,
    /// What was done to the traces before they were compared, a sentence each.
    pub notes: Vec<String>,
    /// Times that the real trace was halved.
    pub splits: usize,
    /// Conversations in each sample.
    pub sampled: usize,
    /// Names the samples.
    pub seed: u64,
    /// What the metrics come to.
    pub summary: Summary,
    /// Groups 1 to 4.
    pub metrics: Vec<Metric>,
    /// Group 4 as rates.
    pub rates: Vec<Rate>,
    /// NetShare's own table.
    pub netshare: Vec<NetShareRow>,
    /// Group 5, unless it was left out.
    pub downstream: Option<Downstream>,
    /// Group 6, unless it was left out.
    pub classifier: Option<TwoSample>,
    /// Group 7, unless it was left out.
    pub privacy: Option<Privacy>,
}
