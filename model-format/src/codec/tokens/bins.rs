//! Bins of numbers: where they begin and end, and which number a place in one is.

use serde::{Deserialize, Serialize};

use super::TokenOptions;

/// Bins whose end is more times as large as their beginning are halved.
const WIDE: f64 = 4.0;
/// A bin of the largest numbers is not cut if it holds fewer.
const FEWEST_OF_TAIL: f64 = 4.0;

/// Bins one after the other: bin `i` is from edge `i` up to edge `i + 1`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bins {
    /// Ascending; at least two.
    pub(super) edges: Vec<f64>,
    /// Numbers between the edges of each bin, equally many a bin, between which a bin's
    /// numbers are equally often: what tells a tail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inner: Vec<f64>,
    /// Values are spread evenly over a bin's logarithm.
    log: bool,
    /// Whole numbers that no bin says, ascending; only of bins that are even and not cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) skipped: Vec<i64>,
}

impl Bins {
    /// Fits bins on ascending numbers, at least one; `values` have tokens of their own.
    pub(super) fn fit(sorted: &[f64], values: &[f64], options: &TokenOptions) -> Bins {
        let edges = bin_edges(sorted, options);
        let inner = inner_edges(sorted, &edges, options);
        let skipped = skipped(sorted, &edges, values, options);
        Bins { edges, inner, log: options.log, skipped }
    }

    /// Two bins an octave for whole numbers above `each`, up to `most`, which is above it too.
    pub(super) fn of_counts(each: u64, most: u64) -> Bins {
        let mut edges = vec![(each + 1) as f64];
        while edges.last().is_some_and(|&edge| edge <= most as f64) {
            let next = (each as f64 * 2_f64.powf(edges.len() as f64 / 2.0)).ceil() + 1.0;
            edges.push(next.min((most + 1) as f64));
        }
        Bins { edges, inner: Vec::new(), log: true, skipped: Vec::new() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.edges.len().saturating_sub(1)
    }

    /// Where the first begins and the last ends.
    pub(super) fn range(&self) -> [f64; 2] {
        [self.edges[0], self.edges[self.edges.len() - 1]]
    }

    /// The bin of a number; of one outside of all the nearest.
    pub(super) fn bin_of(&self, number: f64) -> usize {
        let bin = self.edges.partition_point(|edge| *edge <= number).saturating_sub(1);
        bin.min(self.len().saturating_sub(1))
    }

    /// The number that is `within` (0 to 1) of a bin, not rounded; a bin that there is not
    /// counts as the last.
    pub(super) fn number_at(&self, bin: usize, within: f64) -> f64 {
        let Bins { edges, inner, log, skipped } = self;
        let bins = self.len();
        let bin = bin.min(bins - 1);
        let skipped = inside(skipped, [edges[bin], edges[bin + 1]]);
        if !skipped.is_empty() {
            return among_others(skipped, [edges[bin], edges[bin + 1]], within);
        }
        let cuts = inner.len() / bins;
        let inner = &inner[bin * cuts..(bin + 1) * cuts];
        let place = within * (cuts + 1) as f64;
        let part = (place as usize).min(cuts);
        let within = place - part as f64;
        let from = if part == 0 { edges[bin] } else { inner[part - 1] };
        let to = if part == cuts { edges[bin + 1] } else { inner[part] };
        if *log && from > 0.0 {
            between_logs([from, to], within)
        } else {
            from + (to - from) * within
        }
    }

    /// Checks what was read; `integer` says whether the numbers are whole.
    ///
    /// # Errors
    /// Why they are no bins.
    pub(super) fn validate(&self, integer: bool) -> Result<(), String> {
        if self.edges.len() < 2 || !finite_and_ascending(&self.edges) {
            return Err("edges of bins are not in ascending order".to_owned());
        }
        if !self.inner_edges_fit() {
            return Err("a bin is cut outside of it".to_owned());
        }
        if !self.skipped_fit(integer) {
            return Err("numbers are skipped that no bin could say, or all of a bin".to_owned());
        }
        Ok(())
    }

    /// Whether every bin is cut equally often, inside of it and in order.
    fn inner_edges_fit(&self) -> bool {
        let Bins { edges, inner, .. } = self;
        let cuts = inner.len() / self.len();
        inner.len() == cuts * self.len()
            && inner.iter().all(|cut| cut.is_finite())
            && edges.windows(2).enumerate().all(|(bin, pair)| {
                let cuts = &inner[bin * cuts..(bin + 1) * cuts];
                cuts.is_sorted() && cuts.iter().all(|cut| (pair[0]..=pair[1]).contains(cut))
            })
    }

    /// Whether numbers are skipped only where that is defined, and not all of a bin's.
    fn skipped_fit(&self, integer: bool) -> bool {
        let Bins { edges, skipped, .. } = self;
        let some_left = |bin: &[f64]| {
            let skipped = inside(skipped, [bin[0], bin[1]]).len();
            let whole = bin.iter().all(|edge| edge.fract() == 0.0);
            skipped == 0 || whole && (skipped as f64) < bin[1] - bin[0]
        };
        skipped.is_empty()
            || self.inner.is_empty()
                && !self.log
                && integer
                && skipped.is_sorted_by(|one, next| one < next)
                && inside(skipped, self.range()).len() == skipped.len()
                && edges.windows(2).all(some_left)
    }
}

/// Whether numbers are finite, and each larger than the one before.
pub(super) fn finite_and_ascending(numbers: &[f64]) -> bool {
    numbers.iter().all(|number| number.is_finite())
        && numbers.windows(2).all(|pair| pair[0] < pair[1])
}

/// Edges of bins that hold about equally many of the numbers, ascending and sorted.
fn bin_edges(sorted: &[f64], options: &TokenOptions) -> Vec<f64> {
    let (first, last) = (sorted[0], sorted[sorted.len() - 1]);
    let quantile = |share: f64| {
        let at = share * (sorted.len() - 1) as f64;
        let (below, part) = (at.floor() as usize, at.fract());
        let above = sorted[(below + 1).min(sorted.len() - 1)];
        let value = sorted[below] + (above - sorted[below]) * part;
        if options.integer { value.floor() } else { value }
    };
    let bins = options.bins.max(1);
    let mut edges: Vec<f64> = (0..bins).map(|bin| quantile(bin as f64 / bins as f64)).collect();
    // The tail: half of what is left, again and again, as long as there is enough.
    let mut share = 0.5 / bins as f64;
    while share * sorted.len() as f64 >= FEWEST_OF_TAIL {
        edges.push(quantile(1.0 - share));
        share /= 2.0;
    }
    edges.extend(options.edges.iter().filter(|&&edge| first < edge && edge < last));
    // The last bin holds the largest.
    let end = if options.integer { last + 1.0 } else { last };
    edges.push(if end > first { end } else { first.next_up() });
    edges.sort_unstable_by(f64::total_cmp);
    edges.dedup();
    edges
}

/// Where each bin is cut so that its parts hold equally many of the numbers.
fn inner_edges(sorted: &[f64], edges: &[f64], options: &TokenOptions) -> Vec<f64> {
    let parts = options.parts.max(1);
    let mut inner = Vec::with_capacity((edges.len() - 1) * (parts - 1));
    for pair in edges.windows(2) {
        let from = sorted.partition_point(|number| *number < pair[0]);
        // The last edge belongs to the last bin.
        let to = sorted.partition_point(|number| *number < pair[1]);
        let inside = &sorted[from..to.max(from)];
        for part in 1..parts {
            let share = part as f64 / parts as f64;
            inner.push(match inside.len() {
                0 => pair[0] + (pair[1] - pair[0]) * share,
                count => inside[(share * count as f64) as usize],
            });
        }
    }
    inner
}

/// The numbers to skip, with those that have tokens, of bins that are left at least half as many
/// others as there are of the `sorted` numbers.
fn skipped(sorted: &[f64], edges: &[f64], values: &[f64], options: &TokenOptions) -> Vec<i64> {
    if options.skipped.is_empty() || options.parts > 1 || options.log || !options.integer {
        return Vec::new();
    }
    let mut all = options.skipped.clone();
    all.extend(values.iter().map(|&value| value as i64));
    all.sort_unstable();
    all.dedup();
    let of_bin = |bin: &[f64]| {
        let skipped = inside(&all, [bin[0], bin[1]]);
        let below = |edge: f64| sorted.partition_point(|&number| number < edge);
        let left = bin[1] - bin[0] - skipped.len() as f64;
        let rows = (below(bin[1]) - below(bin[0])) as f64;
        if left >= 1.0 && 2.0 * left >= rows { skipped } else { &[] }
    };
    edges.windows(2).flat_map(of_bin).copied().collect()
}

/// Nearly `from` to the power of 1 - `within` times `to` to that of `within`: within 1% of it, the
/// same at both ends and in the middle. Of operations that IEEE 754 rounds exactly, unlike a power:
/// the same number everywhere.
fn between_logs([mut from, mut to]: [f64; 2], mut within: f64) -> f64 {
    // What is far from one end is not near this: the half that it is in is looked at.
    while to > WIDE * from {
        let middle = from.sqrt() * to.sqrt();
        (from, to, within) = match within < 0.5 {
            true => (from, middle, 2.0 * within),
            false => (middle, to, 2.0 * within - 1.0),
        };
    }
    let left = (to / from).sqrt() * (1.0 - within);
    from + (to - from) * (within / (left + within))
}

/// Those of ascending numbers that are in a bin.
fn inside(numbers: &[i64], [from, to]: [f64; 2]) -> &[i64] {
    let below = |edge: f64| numbers.partition_point(|&number| (number as f64) < edge);
    &numbers[below(from)..below(to)]
}

/// Of a bin's whole numbers but those to be skipped, of which there are fewer, the one that is
/// at a place of 0 to 1.
fn among_others(skipped: &[i64], [from, to]: [f64; 2], within: f64) -> f64 {
    let others = (to - from) - skipped.len() as f64;
    let place = (within * others).floor().clamp(0.0, others - 1.0);
    // So many of those to be skipped come before it.
    let (mut before, mut end) = (0, skipped.len());
    while before < end {
        let middle = before + (end - before) / 2;
        if skipped[middle] as f64 - from - middle as f64 > place {
            end = middle;
        } else {
            before = middle + 1;
        }
    }
    from + place + before as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_between_are_nearly_even_in_logarithm() {
        for [from, to] in [[1.0, 1.5], [3.0, 12.0], [0.5, 70.0], [1.0, 7e7], [1e-300, 1e300]] {
            let mut last = 0.0;
            for at in 0..=1000 {
                let within = f64::from(at) / 1000.0;
                let found = between_logs([from, to], within);
                let exact = (from.ln() * (1.0 - within) + to.ln() * within).exp();
                assert!((found / exact - 1.0).abs() < 0.011, "{from} {to} {within}: {found}");
                assert!(found > last && found <= to * (1.0 + 1e-12));
                last = found;
            }
            assert_eq!(between_logs([from, to], 0.0), from);
        }
        assert!(between_logs([5e-324, f64::MAX], 0.7).is_finite());
    }
}
