//! From traces to metrics: values, noise floors, ratios, intervals.

use ns_model_format::random::{Purpose, Stream};

use super::EvaluateError;
use super::distance::Statistic;
use super::markov;
use super::measure::{Measure, measures};
use super::report::{Metric, Summary};
use super::sample::{Sample, draw};
use super::table::{Frame, Table};
use crate::config::Resolved;
use crate::ingest::Trace;

/// A floor smaller than this divides by nothing that means anything.
const LEAST_FLOOR: f64 = 1e-6;
/// Resamples that an interval is taken from.
const RESAMPLES: usize = 1000;

/// How a comparison is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How many times the real trace is halved.
    pub splits: usize,
    /// Names which halves, and everything else that is drawn.
    pub seed: u64,
    /// Whether the Markov baseline is fitted and judged beside the model.
    pub baseline: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { splits: 20, seed: 1, baseline: true }
    }
}

/// A real and a synthetic trace, ready to be compared.
#[derive(Debug)]
pub struct Comparison {
    /// What they have in common.
    pub frame: Frame,
    /// The real trace.
    pub real: Table,
    /// The synthetic one, at most as long in time as the real one.
    pub synthetic: Table,
    /// What the model was trained on, if it is known and not the real trace.
    pub train: Option<Table>,
    /// What the Markov baseline made.
    pub baseline: Option<Table>,
    /// What is measured.
    pub measures: Vec<Measure>,
    /// Records of the synthetic trace that came later than the real one is long.
    pub left_out: usize,
    /// Units that each sample has.
    pub units: usize,
    options: Options,
}

impl Comparison {
    /// Makes traces ready that were read with the same configuration.
    ///
    /// # Errors
    /// A trace that is too small to be halved.
    pub fn new(
        real: &Trace,
        synthetic: &Trace,
        train: Option<&Trace>,
        config: &Resolved,
        options: Options,
    ) -> Result<Comparison, EvaluateError> {
        let mut frame = Frame::of(real, config);
        let real = frame.table(real, false);
        let made = synthetic.times_ns.len();
        // Of a trace that has too few flows in so much time, all of it.
        let synthetic = match frame.table(synthetic, true) {
            short if short.units < real.units / 2 => frame.table(synthetic, false),
            table => table,
        };
        let train = train.map(|train| frame.table(train, false));
        frame.note(&real, &synthetic);
        // As many flows as the real trace has, so that samples of one size can be drawn.
        let baseline = options.baseline.then(|| {
            let fitted_to = train.as_ref().unwrap_or(&real);
            markov::generate(&mut frame, fitted_to, real.flows(), options.seed)
        });
        let enough = |table: &Table, what, least| match table.units {
            units if units < least => Err(EvaluateError::TooFew { what, found: units, least }),
            _ => Ok(()),
        };
        enough(&real, "real", 4)?;
        enough(&synthetic, "synthetic", 4)?;
        let units = (real.units / 2).min(synthetic.units);
        let measures = measures(&frame);
        let left_out = made - synthetic.len();
        Ok(Comparison {
            frame,
            real,
            synthetic,
            train,
            baseline,
            measures,
            left_out,
            units,
            options,
        })
    }

    /// How it is made.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// All of a table.
    #[must_use]
    pub fn all<'t>(&'t self, table: &'t Table) -> Sample<'t> {
        Sample::all(&self.frame, table)
    }

    /// Two halves of the real trace that share no unit, the `split`th time.
    #[must_use]
    pub fn halves(&self, split: usize) -> [Sample<'_>; 2] {
        let chosen = draw(&self.real, 2, self.units, self.options.seed, 2 * split as u64);
        let [a, b] = [0, 1].map(|half: usize| Sample::new(&self.frame, &self.real, &chosen[half]));
        [a, b]
    }

    /// As many units of another table.
    #[must_use]
    pub fn part<'t>(&'t self, table: &'t Table, split: usize) -> Sample<'t> {
        let units = self.units.min(table.units);
        let chosen = draw(table, 1, units, self.options.seed, 2 * split as u64 + 1);
        Sample::new(&self.frame, table, &chosen[0])
    }

    /// The distances of all measures: each split's halves from one another, and
    /// from as many synthetic flows. `done` is called after every split.
    #[must_use]
    pub fn metrics(&self, mut done: impl FnMut(usize)) -> Metrics {
        let of = |sample: &Sample<'_>| -> Vec<Statistic> {
            self.measures.iter().map(|measure| measure.of(sample)).collect()
        };
        let mut splits = Vec::with_capacity(self.options.splits);
        for split in 0..self.options.splits {
            let halves = self.halves(split).map(|half| of(&half));
            let synthetic = of(&self.part(&self.synthetic, split));
            let baseline = self.baseline.as_ref().map(|table| of(&self.part(table, split)));
            let mean = |at: usize, other: &[Statistic], distance: super::Distance| {
                let from = |half: &Vec<Statistic>| distance.between(&half[at], &other[at]);
                Some((from(&halves[0])? + from(&halves[1])?) / 2.0)
            };
            let distances = self.each().map(|(at, distance)| Distances {
                floor: distance.between(&halves[0][at], &halves[1][at]),
                value: mean(at, &synthetic, distance),
                baseline: baseline.as_ref().and_then(|other| mean(at, other, distance)),
            });
            splits.push(distances.collect::<Vec<_>>());
            done(split + 1);
        }
        let real = of(&self.all(&self.real));
        let synthetic = of(&self.all(&self.synthetic));
        let whole = self.each().map(|(at, distance)| distance.between(&real[at], &synthetic[at]));
        Metrics::new(self, &splits, whole.collect())
    }

    /// Each measure's number with each of its distances.
    fn each(&self) -> impl Iterator<Item = (usize, super::Distance)> {
        let measures = self.measures.iter().enumerate();
        measures.flat_map(|(at, measure)| measure.distances.iter().map(move |&d| (at, d)))
    }
}

/// The distances of one metric in one split.
#[derive(Clone, Copy, Debug)]
struct Distances {
    floor: Option<f64>,
    value: Option<f64>,
    baseline: Option<f64>,
}

/// All metrics, and what they come to.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// One entry a distance of a measure, of those that the real trace has.
    pub metrics: Vec<Metric>,
    /// What they come to.
    pub summary: Summary,
}

impl Metrics {
    fn new(comparison: &Comparison, splits: &[Vec<Distances>], whole: Vec<Option<f64>>) -> Metrics {
        let resamples = resamples(splits.len(), comparison.options.seed);
        let mut metrics = Vec::new();
        // The R of each resample, a vector a metric that has one.
        let mut resampled: Vec<Vec<f64>> = Vec::new();
        for (at, (measure, distance)) in comparison.each().enumerate() {
            let of = |of: fn(&Distances) -> Option<f64>| -> Option<Vec<f64>> {
                splits.iter().map(|split| of(&split[at])).collect()
            };
            let measure = &comparison.measures[measure];
            let (Some(values), Some(floors), Some(whole)) =
                (of(|d| d.value), of(|d| d.floor), whole[at])
            else {
                continue;
            };
            let (value, floor) = (mean(&values), mean(&floors));
            let baseline = of(|d| d.baseline).map(|distances| mean(&distances));
            let ratio = |value: f64| (floor > LEAST_FLOOR).then(|| value / floor);
            let mut interval = None;
            if let Some(r) = ratio(value) {
                let again: Vec<f64> = resamples
                    .iter()
                    .map(|chosen| {
                        let floor = mean_of(&floors, chosen);
                        if floor > LEAST_FLOOR { mean_of(&values, chosen) / floor } else { r }
                    })
                    .collect();
                interval = (splits.len() > 1).then(|| middle_95(&again));
                resampled.push(again);
            }
            metrics.push(Metric {
                name: format!("{}.{}", measure.name, distance.name()),
                label: measure.label.clone(),
                group: measure.group,
                distance,
                unit: measure.unit.to_owned(),
                value,
                floor,
                r: ratio(value),
                r_interval: interval,
                baseline,
                baseline_r: baseline.and_then(ratio),
                whole,
            });
        }
        let summary = Summary::of(&metrics, &resampled);
        Metrics { metrics, summary }
    }
}

/// Which splits each resample has.
fn resamples(splits: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut random = Stream::new(seed, Purpose::Evaluation, u64::MAX - 1);
    (0..RESAMPLES).map(|_| (0..splits).map(|_| random.below(splits)).collect()).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn mean_of(values: &[f64], chosen: &[usize]) -> f64 {
    chosen.iter().map(|&at| values[at]).sum::<f64>() / chosen.len().max(1) as f64
}

/// Where the middle 95% of some numbers lie.
pub(super) fn middle_95(numbers: &[f64]) -> [f64; 2] {
    [quantile(numbers, 0.025), quantile(numbers, 0.975)]
}

/// A quantile of numbers in any order, interpolated between neighbours (type 7 of
/// Hyndman and Fan, 1996, numpy's default); `NaN` of none.
#[must_use]
pub fn quantile(numbers: &[f64], share: f64) -> f64 {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable_by(f64::total_cmp);
    let Some(last) = numbers.len().checked_sub(1) else { return f64::NAN };
    let at = share * last as f64;
    let (low, high) = (numbers[at.floor() as usize], numbers[at.ceil() as usize]);
    low + (high - low) * at.fract()
}
