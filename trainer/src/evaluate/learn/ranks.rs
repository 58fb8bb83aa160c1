//! Statistics of ranks.

use crate::evaluate::distance::{pearson, ranks};

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
    // Ranks count from 0.
    (sum - positives * (positives - 1.0) / 2.0) / (positives * negatives)
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
    let (a, b) = (ranks(a), ranks(b));
    let varies = |ranks: &[f64]| ranks.iter().any(|rank| *rank != ranks[0]);
    (varies(&a) && varies(&b)).then(|| pearson(&a, &b).clamp(-1.0, 1.0))
}
