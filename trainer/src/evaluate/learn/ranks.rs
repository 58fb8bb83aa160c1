//! Statistics of ranks.

/// The area under the ROC curve: the chance that a positive's score is above a
/// negative's, ties counting half (Mann and Whitney, 1947). Exact; `NaN`
/// without a positive or without a negative.
///
/// # Panics
/// If the slices differ in length.
pub(crate) fn auc(scores: &[f64], positive: &[bool]) -> f64 {
    assert_eq!(scores.len(), positive.len(), "a score for each");
    let positives = positive.iter().filter(|&&positive| positive).count() as f64;
    let negatives = positive.len() as f64 - positives;
    let of_positives = ranks(scores).into_iter().zip(positive).filter(|&(_, &positive)| positive);
    let sum: f64 = of_positives.map(|(rank, _)| rank).sum();
    (sum - positives * (positives + 1.0) / 2.0) / (positives * negatives)
}

/// Spearman's rank correlation, -1 to 1, ties given their mean rank. None if
/// there are less than 2 pairs, if either side is constant, or for `NaN`.
///
/// # Panics
/// If the slices differ in length.
pub(crate) fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "pairs");
    if a.iter().chain(b).any(|value| value.is_nan()) {
        return None;
    }
    // Ranks have the same mean on both sides.
    let mean = (a.len() as f64 + 1.0) / 2.0;
    let (mut product, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (x, y) in ranks(a).into_iter().zip(ranks(b)) {
        product += (x - mean) * (y - mean);
        of_a += (x - mean).powi(2);
        of_b += (y - mean).powi(2);
    }
    let scale = f64::sqrt(of_a * of_b);
    (scale > 0.0).then(|| (product / scale).clamp(-1.0, 1.0))
}

/// Each value's place by size, from 1; equal values share their mean place.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for ties in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let rank = before as f64 + (ties.len() as f64 + 1.0) / 2.0;
        ties.iter().for_each(|&at| ranks[at] = rank);
        before += ties.len();
    }
    ranks
}
