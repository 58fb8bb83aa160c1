//! Distances between two samples.

use std::collections::BTreeMap;

/// The largest difference of two empirical distribution functions (the
/// two-sample Kolmogorov-Smirnov statistic), 0 to 1. Sorts its inputs; `NaN`
/// if one is empty.
#[must_use]
pub fn kolmogorov_smirnov(a: &mut [f64], b: &mut [f64]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return f64::NAN;
    }
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
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

/// Both samples' shares of each value.
fn shares<T: Ord>(
    a: impl IntoIterator<Item = T>,
    b: impl IntoIterator<Item = T>,
) -> Vec<(f64, f64)> {
    let mut counts: BTreeMap<T, (f64, f64)> = BTreeMap::new();
    let (mut in_a, mut in_b) = (0.0, 0.0);
    for value in a {
        counts.entry(value).or_default().0 += 1.0;
        in_a += 1.0;
    }
    for value in b {
        counts.entry(value).or_default().1 += 1.0;
        in_b += 1.0;
    }
    counts.into_values().map(|(x, y)| (x / in_a, y / in_b)).collect()
}

/// Half the sum of the differences in share of each value, 0 to 1; `NaN` if a
/// sample is empty.
#[must_use]
pub fn total_variation<T: Ord>(
    a: impl IntoIterator<Item = T>,
    b: impl IntoIterator<Item = T>,
) -> f64 {
    shares(a, b).into_iter().map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0
}

/// Jensen-Shannon divergence with the natural logarithm, 0 to ln 2; `NaN` if a
/// sample is empty.
#[must_use]
pub fn jensen_shannon<T: Ord>(
    a: impl IntoIterator<Item = T>,
    b: impl IntoIterator<Item = T>,
) -> f64 {
    let term = |p: f64, q: f64| if p == 0.0 { 0.0 } else { p * (2.0 * p / (p + q)).ln() };
    shares(a, b).into_iter().map(|(p, q)| (term(p, q) + term(q, p)) / 2.0).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        // Uniforms on 0..100 and 25..125 differ by a quarter.
        let mut a: Vec<f64> = (0..100).map(f64::from).collect();
        let mut b: Vec<f64> = (25..125).map(f64::from).collect();
        assert!((kolmogorov_smirnov(&mut a, &mut b) - 0.25).abs() < 1e-12);
        assert!((total_variation([1, 1, 1, 2], [1, 2, 2, 2]) - 0.5).abs() < 1e-12);
        // Disjoint distributions are ln 2 apart.
        assert!((jensen_shannon([1, 1], [2, 3]) - std::f64::consts::LN_2).abs() < 1e-12);
    }

    #[test]
    fn a_sample_is_no_distance_from_itself() {
        let sample = [3, 1, 4, 1, 5, 9, 2, 6];
        let mut a: Vec<f64> = sample.iter().map(|&x| f64::from(x)).collect();
        let mut b = a.clone();
        assert_eq!(kolmogorov_smirnov(&mut a, &mut b), 0.0);
        assert_eq!(total_variation(sample, sample), 0.0);
        assert!(jensen_shannon(sample, sample).abs() < 1e-15);
    }

    #[test]
    fn an_empty_sample_has_no_distance() {
        assert!(kolmogorov_smirnov(&mut [], &mut [1.0]).is_nan());
        assert!(total_variation::<u8>([], [1]).is_nan());
    }
}
