//! When flows start: a renewal process whose gaps depend on the time in the span.
//!
//! The span is cut into equal bins. Each bin holds the empirical distribution
//! of the gaps that follow a start in it, as quantile knots. The process is
//! stepped from start to start, so flows come out in order; past the span it
//! goes round.

use serde::{Deserialize, Serialize};

/// Most knots of a bin; its distribution is linear between knots.
const MOST_KNOTS: usize = 65;
/// Flows that a bin should hold for its distribution to mean something.
const FLOWS_A_BIN: usize = 50;
const MOST_BINS: usize = 128;

/// The fitted process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrivalProcess {
    /// Length of the span in nanoseconds, at least 1.
    span_ns: u64,
    /// Per bin, ascending gaps in nanoseconds at equal steps of probability
    /// from 0 to 1. A bin without starts has its left neighbour's.
    bins: Vec<Vec<f64>>,
}

impl ArrivalProcess {
    /// Fits the process on flow starts, in nanoseconds from the beginning of
    /// the span, ascending, all within the span. The gap after the last start
    /// goes round to the first.
    ///
    /// Panics if `starts` is empty or not ascending within the span.
    #[must_use]
    pub fn fit(starts: &[u64], span_ns: u64) -> ArrivalProcess {
        let span_ns = span_ns.max(1);
        assert!(!starts.is_empty(), "no flow starts");
        assert!(starts.is_sorted() && starts[starts.len() - 1] <= span_ns, "starts out of order");
        let bins = (starts.len() / FLOWS_A_BIN).clamp(1, MOST_BINS);
        let mut gaps: Vec<Vec<f64>> = vec![Vec::new(); bins];
        for (index, &start) in starts.iter().enumerate() {
            let next = match starts.get(index + 1) {
                Some(&next) => next,
                None => starts[0] + span_ns,
            };
            let bin = bin_of(start, span_ns, bins);
            gaps[bin].push((next - start) as f64);
        }
        let first = gaps.iter().position(|gaps| !gaps.is_empty()).unwrap_or(0);
        // Bins before the first start are reached only from the span's end.
        let mut previous = knots(gaps[first].clone());
        let bins = gaps
            .into_iter()
            .map(|gaps| {
                if !gaps.is_empty() {
                    previous = knots(gaps);
                }
                previous.clone()
            })
            .collect();
        ArrivalProcess { span_ns, bins }
    }

    /// The process of all flows, where this one was fitted to a sample that
    /// holds `share` (above 0, at most 1) of them: the gaps are as much shorter.
    #[must_use]
    pub fn of_whole(mut self, share: f64) -> ArrivalProcess {
        self.bins.iter_mut().flatten().for_each(|gap| *gap *= share);
        self
    }

    /// Length of the span in nanoseconds.
    #[must_use]
    pub fn span_ns(&self) -> u64 {
        self.span_ns
    }

    /// The gap in nanoseconds after a start at `time_ns` (from the beginning of
    /// the first span; any later span reads the same bins), for a uniform draw
    /// in (0, 1).
    #[must_use]
    pub fn gap_ns(&self, time_ns: u64, uniform: f64) -> u64 {
        let bin = bin_of(time_ns % self.span_ns, self.span_ns, self.bins.len());
        let knots = &self.bins[bin];
        let at = uniform.clamp(0.0, 1.0) * (knots.len() - 1) as f64;
        let low = (at as usize).min(knots.len() - 1);
        let high = (low + 1).min(knots.len() - 1);
        let gap = knots[low] + (knots[high] - knots[low]) * (at - low as f64);
        gap.round() as u64
    }

    /// Where in the span a time lies, in \[0, 1): the condition that the
    /// attribute generator is given.
    #[must_use]
    pub fn position(&self, time_ns: u64) -> f32 {
        ((time_ns % self.span_ns) as f64 / self.span_ns as f64) as f32
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        let ascending = |knots: &Vec<f64>| {
            !knots.is_empty()
                && knots.iter().all(|gap| gap.is_finite() && *gap >= 0.0 && *gap < 9e18)
                && knots.is_sorted()
        };
        if self.span_ns == 0
            || self.span_ns > i64::MAX as u64 / 4
            || !(1..=MOST_BINS).contains(&self.bins.len())
            || !self.bins.iter().all(ascending)
        {
            return Err("the arrival process is out of range".to_owned());
        }
        // Time must pass, else an endless run would never leave its first instant.
        if self.bins.iter().flatten().all(|gap| *gap < 1.0) {
            return Err("the arrival process has no gap above zero".to_owned());
        }
        Ok(())
    }
}

fn bin_of(time_ns: u64, span_ns: u64, bins: usize) -> usize {
    ((u128::from(time_ns) * bins as u128 / u128::from(span_ns)) as usize).min(bins - 1)
}

/// Quantile knots of a sample. The piecewise-linear distribution through them
/// has the sample's mean exactly, so that the arrival rate is kept.
fn knots(mut gaps: Vec<f64>) -> Vec<f64> {
    gaps.sort_by(f64::total_cmp);
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let count = gaps.len().clamp(1, MOST_KNOTS);
    let mut knots: Vec<f64> = (0..count)
        .map(|knot| {
            let at = knot as f64 * (gaps.len() - 1) as f64 / (count.max(2) - 1) as f64;
            let (low, part) = (at as usize, at.fract());
            let high = (low + 1).min(gaps.len() - 1);
            gaps[low] + (gaps[high] - gaps[low]) * part
        })
        .collect();
    let linear_mean = if count == 1 {
        knots[0]
    } else {
        knots.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).sum::<f64>() / (count - 1) as f64
    };
    if linear_mean > 0.0 {
        knots.iter_mut().for_each(|gap| *gap *= mean / linear_mean);
    }
    knots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Stream};

    fn generate(process: &ArrivalProcess, until: u64) -> Vec<u64> {
        let mut random = Stream::new(3, Purpose::Arrivals, 0);
        let (mut time, mut starts) = (0, Vec::new());
        while time < until {
            starts.push(time);
            time += process.gap_ns(time, random.uniform_f64());
        }
        starts
    }

    #[test]
    fn the_rate_over_time_is_kept() {
        // 1000 flows in the first half of ten seconds, 200 in the second.
        let span = 10_000_000_000_u64;
        let mut starts: Vec<u64> = (0..1000).map(|i| i * 5_000_000).collect();
        starts.extend((0..200).map(|i| 5_000_000_000 + i * 25_000_000));
        let process = ArrivalProcess::fit(&starts, span);
        process.validate().unwrap();
        let generated = generate(&process, 20 * span);
        let per_span = generated.len() as f64 / 20.0;
        assert!((1150.0..1250.0).contains(&per_span), "{per_span}");
        let late = generated.iter().filter(|&&start| start % span >= span / 2).count() as f64;
        assert!((180.0..220.0).contains(&(late / 20.0)), "{late}");
    }

    #[test]
    fn one_flow_repeats_every_span() {
        let process = ArrivalProcess::fit(&[0], 1_000);
        assert_eq!(generate(&process, 3_000), [0, 1_000, 2_000]);
    }

    #[test]
    fn bursts_at_one_instant_are_kept() {
        // 300 flows at time 0, then nothing: gaps of zero and one of the whole span.
        let process = ArrivalProcess::fit(&[0; 300], 1_000_000);
        process.validate().unwrap();
        let generated = generate(&process, 50_000_000);
        let per_span = generated.len() as f64 / 50.0;
        assert!((150.0..600.0).contains(&per_span), "{per_span}");
    }

    #[test]
    fn a_sample_gives_the_rate_of_the_whole() {
        // 1200 flows in a minute, of which every fifth is in the sample.
        let span = 60_000_000_000_u64;
        let starts: Vec<u64> = (0..240).map(|i| i * 250_000_000).collect();
        let process = ArrivalProcess::fit(&starts, span).of_whole(0.2);
        process.validate().unwrap();
        let per_span = generate(&process, 20 * span).len() as f64 / 20.0;
        assert!((1150.0..1250.0).contains(&per_span), "{per_span}");
        assert_eq!(process.span_ns(), span);
    }

    #[test]
    fn a_process_that_stands_still_is_refused() {
        let process = ArrivalProcess { span_ns: 1, bins: vec![vec![0.0, 0.0]] };
        assert!(process.validate().is_err());
    }
}
