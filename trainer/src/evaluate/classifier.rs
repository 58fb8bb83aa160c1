//! Group 6: can a classifier tell them apart?

use serde::{Deserialize, Serialize};

use super::EvaluateError;
use super::compare::Comparison;
use super::features::features;
use super::learn::two_sample_auc;

/// Flows of each side at most.
const MOST_FLOWS: usize = 2000;

/// The classifier two-sample test (Lopez-Paz and Oquab, ICLR 2017).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwoSample {
    /// The area under the ROC curve of a random forest that tells real flows from
    /// synthetic ones, each flow judged by trees that did not see it; 0.5 where
    /// it cannot.
    pub auc: f64,
    /// The same between two halves of the real flows: what chance gives.
    pub floor: f64,
    /// The same of the Markov baseline.
    pub baseline: Option<f64>,
    /// Flows of each side.
    pub flows: usize,
    /// What it knows of a flow.
    pub features: Vec<String>,
}

impl TwoSample {
    /// Takes the test on the first split.
    ///
    /// # Errors
    /// Too few flows to learn from.
    pub fn of(comparison: &Comparison) -> Result<TwoSample, EvaluateError> {
        let [real, other] = comparison.halves(0);
        let seed = comparison.options().seed;
        let of = |sample: &_| features(sample, MOST_FLOWS, &[]);
        let (real, other) = (of(&real), of(&other));
        let synthetic = of(&comparison.part(&comparison.synthetic, 0));
        let baseline = comparison.baseline.as_ref().map(|table| of(&comparison.part(table, 0)));
        let auc = |other: &super::features::Features| {
            two_sample_auc(&real.matrix, &other.matrix, seed).map_err(EvaluateError::from)
        };
        Ok(TwoSample {
            auc: auc(&synthetic)?,
            floor: auc(&other)?,
            baseline: baseline.as_ref().map(auc).transpose()?,
            flows: real.matrix.rows.min(synthetic.matrix.rows),
            features: real.names,
        })
    }
}
