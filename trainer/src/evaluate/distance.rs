//! Distances between two samples, from what was counted or measured of each.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// What is known of one sample: the part of it that a distance needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Statistic {
    /// Numbers in ascending order.
    Sorted(Vec<f64>),
    /// How often each value occurs, in ascending order of values.
    Counts(Vec<(u64, f64)>),
    /// Figures of the whole sample, always as many; `NaN` where there is none.
    Figures(Vec<f64>),
}

impl Statistic {
    /// Numbers in any order; what is not finite is left out.
    #[must_use]
    pub fn numbers(numbers: impl IntoIterator<Item = f64>) -> Statistic {
        let mut numbers: Vec<f64> = numbers.into_iter().filter(|x| x.is_finite()).collect();
        numbers.sort_unstable_by(f64::total_cmp);
        Statistic::Sorted(numbers)
    }

    /// Values in any order.
    #[must_use]
    pub fn values(values: impl IntoIterator<Item = u64>) -> Statistic {
        let mut values: Vec<u64> = values.into_iter().collect();
        values.sort_unstable();
        let mut counts: Vec<(u64, f64)> = Vec::new();
        for value in values {
            match counts.last_mut() {
                Some((last, count)) if *last == value => *count += 1.0,
                _ => counts.push((value, 1.0)),
            }
        }
        Statistic::Counts(counts)
    }

    /// Counts by value, the value being the place.
    #[must_use]
    pub fn dense(counts: &[u64]) -> Statistic {
        let seen = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        Statistic::Counts(seen.map(|(value, &count)| (value as u64, count as f64)).collect())
    }

    /// One figure.
    #[must_use]
    pub fn figure(figure: f64) -> Statistic {
        Statistic::Figures(vec![figure])
    }

    /// Whether there is nothing to compare.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Statistic::Sorted(numbers) => numbers.is_empty(),
            Statistic::Counts(counts) => counts.is_empty(),
            Statistic::Figures(figures) => figures.iter().all(|figure| figure.is_nan()),
        }
    }
}

/// A distance: 0 between equal samples, the larger the further apart they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// Kolmogorov and Smirnov: the largest difference of the distribution
    /// functions, 0 to 1.
    Ks,
    /// Wasserstein-1, the earth mover's distance, in the values' unit.
    W1,
    /// The same in parts of the real sample's range (NetShare's normalised EMD of times).
    W1Range,
    /// The same of ln(1 + |x|), in the real sample's standard deviations of that.
    W1Log,
    /// Jensen-Shannon divergence with the natural logarithm, 0 to ln 2.
    Jsd,
    /// The same of shares by rank: the most frequent value of one against the
    /// most frequent of the other, whatever they are (NetShare's, for addresses).
    RankJsd,
    /// Total variation: half the sum of the differences in share, 0 to 1.
    Tv,
    /// Mean absolute difference of figures.
    #[serde(rename = "abs")]
    Absolute,
    /// Mean difference of figures in parts of the real ones.
    #[serde(rename = "rel")]
    Relative,
}

impl Distance {
    /// As it stands in a metric's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Distance::Ks => "ks",
            Distance::W1 => "w1",
            Distance::W1Range => "w1_range",
            Distance::W1Log => "w1_log",
            Distance::Jsd => "jsd",
            Distance::RankJsd => "rank_jsd",
            Distance::Tv => "tv",
            Distance::Absolute => "abs",
            Distance::Relative => "rel",
        }
    }

    /// As people read it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Distance::Ks => "KS",
            Distance::W1 => "W1",
            Distance::W1Range => "W1 / range",
            Distance::W1Log => "W1 of log / sd",
            Distance::Jsd => "JSD",
            Distance::RankJsd => "JSD by rank",
            Distance::Tv => "TV",
            Distance::Absolute => "difference",
            Distance::Relative => "relative difference",
        }
    }

    /// The distance of `other` from `real`; none if `real` is empty, the
    /// statistics are not of the kind that this distance compares, or numbers are too
    /// large to be subtracted.
    ///
    /// An `other` that is empty where `real` is not is as far away as can be:
    /// 1 or ln 2 for shares, and for Wasserstein distances and figures as far as 0 is.
    #[must_use]
    pub fn between(self, real: &Statistic, other: &Statistic) -> Option<f64> {
        if real.is_empty() {
            return None;
        }
        self.of(real, other).filter(|distance| distance.is_finite())
    }

    fn of(self, real: &Statistic, other: &Statistic) -> Option<f64> {
        match (self, real, other) {
            (Distance::Ks, Statistic::Sorted(a), Statistic::Sorted(b)) => Some(ks(a, b)),
            (Distance::W1, Statistic::Sorted(a), Statistic::Sorted(b)) => Some(w1(a, b)),
            (Distance::W1Range, Statistic::Sorted(a), Statistic::Sorted(b)) => {
                Some(w1(a, b) / or_1(a[a.len() - 1] - a[0]))
            }
            (Distance::W1Log, Statistic::Sorted(a), Statistic::Sorted(b)) => {
                let (a, b) = (logarithms(a), logarithms(b));
                Some(w1(&a, &b) / or_1(standard_deviation(&a)))
            }
            (Distance::Jsd, Statistic::Counts(a), Statistic::Counts(b)) => Some(jsd(shares(a, b))),
            (Distance::RankJsd, Statistic::Counts(a), Statistic::Counts(b)) => {
                Some(jsd(shares(&by_rank(a), &by_rank(b))))
            }
            (Distance::Tv, Statistic::Counts(_), Statistic::Counts(b)) if b.is_empty() => Some(1.0),
            (Distance::Tv, Statistic::Counts(a), Statistic::Counts(b)) => {
                Some(shares(a, b).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0)
            }
            (Distance::Absolute, Statistic::Figures(a), Statistic::Figures(b)) => {
                mean_of_pairs(a, b, |x, y| (x - y).abs())
            }
            (Distance::Relative, Statistic::Figures(a), Statistic::Figures(b)) => {
                mean_of_pairs(a, b, |x, y| (x - y).abs() / x.abs().max(1.0))
            }
            _ => None,
        }
    }
}

fn or_1(scale: f64) -> f64 {
    if scale > 0.0 { scale } else { 1.0 }
}

fn mean_of_pairs(a: &[f64], b: &[f64], of: impl Fn(f64, f64) -> f64) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for (&x, &y) in a.iter().zip(b) {
        if !x.is_nan() {
            sum += of(x, if y.is_nan() { 0.0 } else { y });
            count += 1;
        }
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// Both ascend.
fn ks(a: &[f64], b: &[f64]) -> f64 {
    if b.is_empty() {
        return 1.0;
    }
    let (mut i, mut j, mut largest) = (0, 0, 0.0_f64);
    while i < a.len() && j < b.len() {
        let at = a[i].min(b[j]);
        while i < a.len() && a[i] <= at {
            i += 1;
        }
        while j < b.len() && b[j] <= at {
            j += 1;
        }
        largest = largest.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    largest
}

/// The area between the distribution functions. Both ascend.
fn w1(a: &[f64], b: &[f64]) -> f64 {
    if b.is_empty() {
        return w1(a, &[0.0]);
    }
    let (mut i, mut j, mut area) = (0, 0, 0.0);
    let mut last = a[0].min(b[0]);
    while i < a.len() || j < b.len() {
        let at = match (a.get(i), b.get(j)) {
            (Some(&x), Some(&y)) => x.min(y),
            (Some(&x), None) => x,
            (None, Some(&y)) => y,
            (None, None) => break,
        };
        area += (i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs() * (at - last);
        last = at;
        while i < a.len() && a[i] <= at {
            i += 1;
        }
        while j < b.len() && b[j] <= at {
            j += 1;
        }
    }
    area
}

/// ln(1 + |x|), ascending.
fn logarithms(numbers: &[f64]) -> Vec<f64> {
    let mut logs: Vec<f64> = numbers.iter().map(|x| x.abs().ln_1p()).collect();
    logs.sort_unstable_by(f64::total_cmp);
    logs
}

/// Of the sample itself, not of what it was drawn from: 1/n, as numpy's.
fn standard_deviation(numbers: &[f64]) -> f64 {
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    let deviation = (numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    // A constant deviates by rounding only.
    if deviation > 1e-9 * (1.0 + mean.abs()) { deviation } else { 0.0 }
}

/// Counts in descending order, the value being the rank.
fn by_rank(counts: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let mut counts: Vec<f64> = counts.iter().map(|(_, count)| *count).collect();
    counts.sort_unstable_by(|a, b| b.total_cmp(a));
    (0..).zip(counts).collect()
}

/// Both samples' shares of each value that either has.
fn shares<'c>(
    a: &'c [(u64, f64)],
    b: &'c [(u64, f64)],
) -> impl Iterator<Item = (f64, f64)> + use<'c> {
    let total = |counts: &[(u64, f64)]| or_1(counts.iter().map(|(_, count)| count).sum());
    let (in_a, in_b) = (total(a), total(b));
    let (mut i, mut j) = (0, 0);
    std::iter::from_fn(move || {
        let order = match (a.get(i), b.get(j)) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((x, _)), Some((y, _))) => x.cmp(y),
        };
        let (mut p, mut q) = (0.0, 0.0);
        if order.is_le() {
            p = a[i].1 / in_a;
            i += 1;
        }
        if order.is_ge() {
            q = b[j].1 / in_b;
            j += 1;
        }
        Some((p, q))
    })
}

fn jsd(shares: impl Iterator<Item = (f64, f64)>) -> f64 {
    let term = |p: f64, q: f64| if p == 0.0 { 0.0 } else { p * (2.0 * p / (p + q)).ln() };
    let (mut sum, mut other) = (0.0, 0.0);
    for (p, q) in shares {
        sum += (term(p, q) + term(q, p)) / 2.0;
        other += q;
    }
    // Against nothing all of the real mass is alone.
    if other == 0.0 { std::f64::consts::LN_2 } else { sum.max(0.0) }
}

/// Pearson's correlation; 0 where one side is constant.
#[must_use]
pub fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().min(b.len());
    if n < 2 {
        return 0.0;
    }
    let mean = |x: &[f64]| x[..n].iter().sum::<f64>() / n as f64;
    let (ma, mb) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        ab += (x - ma) * (y - mb);
        aa += (x - ma).powi(2);
        bb += (y - mb).powi(2);
    }
    // What is constant but for rounding has no correlation.
    let scale = (aa * bb).sqrt();
    if scale > 1e-12 * (ma * ma + mb * mb + 1e-30) * n as f64 { ab / scale } else { 0.0 }
}

/// The rank of each number from 0 on; equal ones share their mean rank.
#[must_use]
pub fn ranks(numbers: &[f64]) -> Vec<f64> {
    let mut order: Vec<u32> = (0..numbers.len() as u32).collect();
    let of = |at: u32| numbers[at as usize];
    order.sort_unstable_by(|&a, &b| of(a).total_cmp(&of(b)));
    let mut ranks = vec![0.0; numbers.len()];
    let mut begin = 0;
    for tied in order.chunk_by(|&a, &b| of(a) == of(b)) {
        let rank = begin as f64 + (tied.len() - 1) as f64 / 2.0;
        for &at in tied {
            ranks[at as usize] = rank;
        }
        begin += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests;
