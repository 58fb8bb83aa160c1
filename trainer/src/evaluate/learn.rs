//! Classical classifiers, and what they say of a synthetic trace.
//!
//! Train on synthetic, test on real: a downstream task of NetShare (Yin et al.,
//! SIGCOMM '22). And the classifier two-sample test: whether a classifier can
//! tell the two apart. The classifiers are smartcore's, but for naive Bayes,
//! which fails there where a feature is constant within a class. smartcore
//! panics on values that are not finite and recurses without end on distances
//! that are not, so none reach it: [`Matrix`] is checked, then standardised.

mod ranks;

use ns_model_format::random::{Purpose, Stream};
use smartcore::algorithm::neighbour::KNNAlgorithmName;
use smartcore::ensemble::random_forest_classifier::{
    RandomForestClassifier, RandomForestClassifierParameters,
};
use smartcore::ensemble::random_forest_regressor::{
    RandomForestRegressor, RandomForestRegressorParameters,
};
use smartcore::error::Failed;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linear::logistic_regression::{LogisticRegression, LogisticRegressionParameters};
use smartcore::neighbors::knn_classifier::{KNNClassifier, KNNClassifierParameters};
use smartcore::tree::decision_tree_classifier::{
    DecisionTreeClassifier, DecisionTreeClassifierParameters,
};
use smartcore::xgboost::{XGRegressor, XGRegressorParameters};

pub(crate) use ranks::{auc, spearman};

/// Features must be within plus and minus this, so that squares are finite.
const LARGEST: f64 = 1e100;
/// Standardised features are cut at plus and minus this; only those of rows
/// unlike any in training are larger.
const FARTHEST: f64 = 1e6;
/// Trees of a forest and their levels, where labels are predicted.
const TREES: u16 = 50;
const LEVELS: u16 = 10;
/// Trees of the forest that tells two samples apart, and the rows in a leaf at
/// least (Breiman's default for regression).
const TWO_SAMPLE_TREES: usize = 200;
const TWO_SAMPLE_LEAF: usize = 5;
/// Levels of a boosted tree, and about how many trees all classes have together.
const BOOSTED_LEVELS: u16 = 3;
const BOOSTED_TREES: usize = 75;
/// Neighbours that vote.
const NEIGHBOURS: usize = 5;

/// Why nothing was learned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LearnError {
    /// A matrix has not `rows` times `cols` values.
    #[error("matrix of {rows} x {cols}: {values} values")]
    Shape {
        /// Rows of the matrix.
        rows: usize,
        /// Features of a row.
        cols: usize,
        /// Values that there are.
        values: usize,
    },
    /// A matrix has not one label a row.
    #[error("{labels} labels for {rows} rows")]
    Labels {
        /// Rows of the matrix.
        rows: usize,
        /// Labels that there are.
        labels: usize,
    },
    /// Two matrices that belong together differ in features.
    #[error("{found} features, expected {expected}")]
    Features {
        /// Features of the other matrix.
        expected: usize,
        /// Features of this one.
        found: usize,
    },
    /// A matrix without features, or with too few rows to learn from.
    #[error("{rows} rows of {cols} features, at least {needed} of 1 are needed")]
    TooSmall {
        /// Rows of the matrix.
        rows: usize,
        /// Features of a row.
        cols: usize,
        /// Rows that are needed.
        needed: usize,
    },
    /// A feature that cannot be computed with.
    #[error("feature {col} of row {row}: {value} is not within 1e100 of 0")]
    Value {
        /// The row, counted from 0.
        row: usize,
        /// The feature, counted from 0.
        col: usize,
        /// Its value.
        value: f64,
    },
    /// The learner failed.
    #[error("`{learner}`: {source}")]
    Learner {
        /// Which one.
        learner: &'static str,
        /// Its reason.
        source: Failed,
    },
}

/// Features of samples, one sample a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix {
    /// Samples.
    pub(crate) rows: usize,
    /// Features of a sample.
    pub(crate) cols: usize,
    /// `[rows, cols]`, row after row.
    pub(crate) values: Vec<f64>,
}

impl Matrix {
    /// Refuses what the learners cannot take: a wrong shape, fewer rows than
    /// `needed`, no features, values that are not finite or are beyond 1e100.
    fn check(&self, needed: usize) -> Result<(), LearnError> {
        let Matrix { rows, cols, ref values } = *self;
        if rows.checked_mul(cols) != Some(values.len()) {
            return Err(LearnError::Shape { rows, cols, values: values.len() });
        }
        if rows < needed || cols == 0 {
            return Err(LearnError::TooSmall { rows, cols, needed });
        }
        // NaN is within nothing.
        match values.iter().position(|value| !(-LARGEST..=LARGEST).contains(value)) {
            Some(at) => {
                Err(LearnError::Value { row: at / cols, col: at % cols, value: values[at] })
            }
            None => Ok(()),
        }
    }

    /// The same, and refuses features that are not as many as another's.
    fn check_like(&self, other: &Matrix, needed: usize) -> Result<(), LearnError> {
        self.check(needed)?;
        match self.cols == other.cols {
            true => Ok(()),
            false => Err(LearnError::Features { expected: other.cols, found: self.cols }),
        }
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.cols..(row + 1) * self.cols]
    }

    /// Some of the rows, in the order given.
    fn select(&self, rows: &[usize]) -> Matrix {
        let values = rows.iter().flat_map(|&row| self.row(row)).copied().collect();
        Matrix { rows: rows.len(), cols: self.cols, values }
    }

    /// The rows of both.
    fn stack(mut self, other: &Matrix) -> Matrix {
        self.rows += other.rows;
        self.values.extend_from_slice(&other.values);
        self
    }

    /// smartcore's form, by columns: its trees go through one at a time.
    fn dense(&self) -> Result<DenseMatrix<f64>, Failed> {
        let by_columns = (0..self.cols)
            .flat_map(|col| self.values.iter().skip(col).step_by(self.cols))
            .copied()
            .collect();
        DenseMatrix::new(self.rows, self.cols, by_columns, true)
    }
}

/// What makes the features of the training rows have mean 0 and variance 1;
/// those that are constant there become 0.
struct Standardiser {
    /// Mean and standard deviation of each feature; 0 where it is constant.
    features: Vec<(f64, f64)>,
}

impl Standardiser {
    /// Takes a matrix that was checked.
    fn fit(train: &Matrix) -> Standardiser {
        let rows = train.rows as f64;
        let features = (0..train.cols).map(|col| {
            let column = || train.values.iter().skip(col).step_by(train.cols).copied();
            let mean = column().map(|value| value / rows).sum::<f64>();
            let variance = column().map(|value| (value - mean).powi(2) / rows).sum::<f64>();
            // A constant's mean may be off by rounding, and so not give 0.
            let constant = column().all(|value| value == train.values[col]);
            (mean, if constant { 0.0 } else { variance.sqrt() })
        });
        Standardiser { features: features.collect() }
    }

    fn apply(&self, matrix: &Matrix) -> Matrix {
        let one = |(value, (mean, deviation)): (&f64, &(f64, f64))| match *deviation > 0.0 {
            true => ((value - mean) / deviation).clamp(-FARTHEST, FARTHEST),
            false => 0.0,
        };
        let values = matrix.values.iter().zip(self.features.iter().cycle()).map(one).collect();
        Matrix { values, ..*matrix }
    }
}

/// A classifier, with what it is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learner {
    /// One tree of at most 10 levels by Gini impurity (CART: Breiman et al.,
    /// 1984).
    DecisionTree,
    /// 50 such trees, each on a bootstrap sample and a choice of features
    /// (Breiman, "Random Forests", 2001).
    RandomForest,
    /// Trees of 3 levels, each on what those before it leave of the 0/1 label,
    /// one class against the rest (Friedman, "Greedy Function Approximation",
    /// 2001, with squared loss).
    GradientBoosting,
    /// Multinomial, with a unit penalty on the squared weights.
    LogisticRegression,
    /// Normal features, independent given the class.
    NaiveBayes,
    /// The 5 nearest training rows vote.
    NearestNeighbours,
}

impl Learner {
    /// All of them.
    pub(crate) const ALL: [Learner; 6] = [
        Learner::DecisionTree,
        Learner::RandomForest,
        Learner::GradientBoosting,
        Learner::LogisticRegression,
        Learner::NaiveBayes,
        Learner::NearestNeighbours,
    ];

    /// As reports name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Learner::DecisionTree => "decision tree",
            Learner::RandomForest => "random forest",
            Learner::GradientBoosting => "gradient boosting",
            Learner::LogisticRegression => "logistic regression",
            Learner::NaiveBayes => "naive Bayes",
            Learner::NearestNeighbours => "nearest neighbours",
        }
    }

    /// Learns from standardised rows, of `classes` classes (2 or more) numbered
    /// from 0, and classifies others.
    fn predict(
        self,
        train: &Matrix,
        labels: &Vec<u32>,
        classes: usize,
        test: &Matrix,
        seed: u64,
    ) -> Result<Vec<u32>, Failed> {
        if self == Learner::NaiveBayes {
            return Ok(naive_bayes(train, labels, classes, test));
        }
        let (x, to_tell) = (train.dense()?, test.dense()?);
        match self {
            Learner::DecisionTree => {
                let mut settings =
                    DecisionTreeClassifierParameters::default().with_max_depth(LEVELS);
                settings.seed = Some(seed);
                DecisionTreeClassifier::fit(&x, labels, settings)?.predict(&to_tell)
            }
            Learner::RandomForest => {
                let settings = RandomForestClassifierParameters::default()
                    .with_max_depth(LEVELS)
                    .with_n_trees(TREES)
                    .with_seed(seed);
                RandomForestClassifier::fit(&x, labels, settings)?.predict(&to_tell)
            }
            Learner::GradientBoosting => boosted(&x, labels, classes, &to_tell),
            Learner::LogisticRegression => {
                let settings = LogisticRegressionParameters::default().with_alpha(1.0);
                LogisticRegression::fit(&x, labels, settings)?.predict(&to_tell)
            }
            Learner::NaiveBayes | Learner::NearestNeighbours => {
                let settings = KNNClassifierParameters::default()
                    .with_algorithm(KNNAlgorithmName::LinearSearch)
                    .with_k(NEIGHBOURS.min(train.rows));
                KNNClassifier::fit(&x, labels, settings)?.predict(&to_tell)
            }
        }
    }
}

/// The index of the largest score, the first of equals.
fn largest(scores: impl Iterator<Item = f64>) -> u32 {
    let mut best = (0, f64::NEG_INFINITY);
    for (class, score) in (0..).zip(scores) {
        if score > best.1 {
            best = (class, score);
        }
    }
    best.0
}

/// Gradient boosting by smartcore's regression trees: a class's score is the
/// regression of whether a row is of it.
fn boosted(
    x: &DenseMatrix<f64>,
    labels: &[u32],
    classes: usize,
    test: &DenseMatrix<f64>,
) -> Result<Vec<u32>, Failed> {
    let settings = || {
        XGRegressorParameters::default()
            .with_max_depth(BOOSTED_LEVELS)
            .with_n_estimators((BOOSTED_TREES / classes).max(5))
    };
    let scores = |class: u32| -> Result<Vec<f64>, Failed> {
        let is: Vec<f64> = labels.iter().map(|&label| f64::from(label == class)).collect();
        XGRegressor::fit(x, &is, settings())?.predict(test)
    };
    if classes == 2 {
        // The other class's regression would mirror this one.
        return Ok(scores(1)?.into_iter().map(|score| u32::from(score > 0.5)).collect());
    }
    let by_class = (0..classes as u32).map(scores).collect::<Result<Vec<_>, _>>()?;
    Ok((0..by_class[0].len())
        .map(|row| largest(by_class.iter().map(|scores| scores[row])))
        .collect())
}

/// Gaussian naive Bayes. To each variance is added 1e-9, as in scikit-learn,
/// where a feature is constant within a class.
fn naive_bayes(train: &Matrix, labels: &[u32], classes: usize, test: &Matrix) -> Vec<u32> {
    let cols = train.cols;
    let rows = || labels.iter().enumerate().map(|(at, &label)| (label as usize, train.row(at)));
    let mut counts = vec![0.0; classes];
    let (mut means, mut variances) = (vec![0.0; classes * cols], vec![1e-9; classes * cols]);
    rows().for_each(|(class, _)| counts[class] += 1.0);
    for (class, row) in rows() {
        let means = means[class * cols..].iter_mut();
        means.zip(row).for_each(|(mean, value)| *mean += value / counts[class]);
    }
    for (class, row) in rows() {
        let variances = variances[class * cols..].iter_mut();
        for ((variance, mean), value) in variances.zip(&means[class * cols..]).zip(row) {
            *variance += (value - mean).powi(2) / counts[class];
        }
    }
    let score = |class: usize, row: &[f64]| -> f64 {
        let moments = means[class * cols..].iter().zip(&variances[class * cols..]);
        let fits = row.iter().zip(moments).map(|(value, (mean, variance))| {
            -0.5 * ((value - mean).powi(2) / variance + variance.ln())
        });
        f64::ln(counts[class]) + fits.sum::<f64>()
    };
    let classify = |at| largest((0..classes).map(|class| score(class, test.row(at))));
    (0..test.rows).map(classify).collect()
}

/// The share of test rows whose label a learner predicts, 0 to 1, features
/// standardised by the training rows.
///
/// A label that training lacks counts as wrong; the only label of training is
/// what is predicted.
///
/// # Errors
/// If a matrix is empty, misshapen or not finite, if labels and rows or the
/// features of both matrices do not match, or if the learner fails.
pub(crate) fn accuracy(
    learner: Learner,
    train: &Matrix,
    labels: &[u32],
    test: &Matrix,
    test_labels: &[u32],
    seed: u64,
) -> Result<f64, LearnError> {
    train.check(1)?;
    test.check_like(train, 1)?;
    for (matrix, labels) in [(train, labels), (test, test_labels)] {
        if matrix.rows != labels.len() {
            return Err(LearnError::Labels { rows: matrix.rows, labels: labels.len() });
        }
    }
    let mut classes = labels.to_vec();
    classes.sort_unstable();
    classes.dedup();
    let predicted = if classes.len() == 1 {
        vec![0; test.rows]
    } else {
        // Numbered from 0, whatever the labels are.
        let number = |label| classes.partition_point(|&class| class < label) as u32;
        let numbered: Vec<u32> = labels.iter().map(|&label| number(label)).collect();
        let standardiser = Standardiser::fit(train);
        let (train, test) = (standardiser.apply(train), standardiser.apply(test));
        learner
            .predict(&train, &numbered, classes.len(), &test, seed)
            .map_err(|source| LearnError::Learner { learner: learner.name(), source })?
    };
    let hits = predicted.iter().zip(test_labels);
    let right = hits.filter(|&(&class, &label)| classes[class as usize] == label).count();
    Ok(right as f64 / test.rows as f64)
}

/// How well a classifier tells two samples apart (Lopez-Paz and Oquab,
/// "Revisiting Classifier Two-Sample Tests", ICLR '17): the area under the ROC
/// curve of a random forest on rows that it has not seen, 0.5 where it cannot
/// and 1 where it always can. `a` and `b` are `[rows, features]` with any
/// number of rows from 2.
///
/// Each sample is halved by `seed`; a forest trained on half of both scores the
/// other halves, and the mean of both ways is given. Below 0.5 there is nothing
/// but chance.
///
/// # Errors
/// If a matrix has less than 2 rows, is misshapen or not finite, if their
/// features do not match, or if the forest fails.
pub(crate) fn two_sample_auc(a: &Matrix, b: &Matrix, seed: u64) -> Result<f64, LearnError> {
    a.check(2)?;
    b.check_like(a, 2)?;
    let mut stream = Stream::new(seed, Purpose::Evaluation, u64::MAX - 1);
    let mut halves = |matrix: &Matrix| {
        let mut order: Vec<usize> = (0..matrix.rows).collect();
        stream.shuffle(&mut order);
        let (first, second) = order.split_at(matrix.rows / 2);
        [matrix.select(first), matrix.select(second)]
    };
    let (a, b) = (halves(a), halves(b));
    let fold = |learn: usize, tell: usize| -> Result<f64, LearnError> {
        let of_b = |half: usize| -> Vec<bool> {
            (0..a[half].rows + b[half].rows).map(|row| row >= a[half].rows).collect()
        };
        let train = a[learn].clone().stack(&b[learn]);
        let test = a[tell].clone().stack(&b[tell]);
        let standardiser = Standardiser::fit(&train);
        let labels: Vec<f64> = of_b(learn).into_iter().map(f64::from).collect();
        let settings = RandomForestRegressorParameters::default()
            .with_n_trees(TWO_SAMPLE_TREES)
            .with_min_samples_leaf(TWO_SAMPLE_LEAF)
            .with_seed(seed.wrapping_add(learn as u64));
        let scores = (standardiser.apply(&train).dense())
            .and_then(|x| RandomForestRegressor::fit(&x, &labels, settings))
            .and_then(|forest| forest.predict(&standardiser.apply(&test).dense()?))
            .map_err(|source| LearnError::Learner { learner: "random forest", source })?;
        Ok(auc(&scores, &of_b(tell)))
    };
    Ok((fold(0, 1)? + fold(1, 0)?) / 2.0)
}

#[cfg(test)]
mod tests;
