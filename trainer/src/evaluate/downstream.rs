//! Group 5: is the synthetic trace as good to work with? The tasks of NetShare's
//! paper (SIGCOMM '22, section 6.3): heavy hitters and sketches, and classifiers
//! trained on one trace and tested on real flows.

use serde::{Deserialize, Serialize};

use super::EvaluateError;
use super::compare::Comparison;
use super::features::features;
use super::learn::{Learner, accuracy, spearman};
use super::sample::Sample;
use super::sketch::{self, Kind};
use super::table::{Frame, Role};
use ns_model_format::schema::TraceKind;

/// A key with a larger share of the records is a heavy hitter (NetShare's 0.1%).
const HEAVY: f64 = 0.001;
/// A sketch has one counter for so many of the real trace's keys: enough to be of use,
/// too few to be exact.
const KEYS_A_COUNTER: usize = 2;
const LEAST_COUNTERS: usize = 32;
/// Hash functions' seeds, over which errors are averaged.
const SKETCH_SEEDS: [u64; 5] = [1, 2, 3, 4, 5];
/// Flows to train on, and to test with, at most.
const MOST_FLOWS: usize = 2000;
/// Classes that are predicted; what is rarer is one class together.
const MOST_CLASSES: usize = 8;

/// Heavy hitters among the records of one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeavyHitters {
    /// What is counted: a column of addresses, or `flow`.
    pub key: String,
    /// How many there are in a real sample.
    pub real: usize,
    /// In the other half.
    pub floor: usize,
    /// In a synthetic sample.
    pub synthetic: usize,
    /// |synthetic - real| / real.
    pub relative_error: Option<f64>,
    /// |floor - real| / real.
    pub floor_error: Option<f64>,
}

/// How wrong a sketch is about heavy hitters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SketchError {
    /// What is counted.
    pub key: String,
    /// Which sketch.
    pub sketch: String,
    /// Its mean relative error on a real sample.
    pub real: f64,
    /// On the other half.
    pub floor: f64,
    /// On a synthetic sample.
    pub synthetic: f64,
    /// |synthetic - real| / real; null where the sketch is exact on the real sample.
    pub relative_error: Option<f64>,
    /// |floor - real| / real.
    pub floor_error: Option<f64>,
}

/// Whether what is best on one trace is best on the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// What was ranked: `sketches by srcip`, `classifiers`.
    pub of: String,
    /// Spearman's rank correlation of the real and the synthetic figures, 1 where all
    /// rank alike; null where one side has no ranks.
    pub synthetic: Option<f64>,
    /// The same of the other half.
    pub floor: Option<f64>,
}

/// A classifier's accuracy on real flows that it was not trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Which classifier.
    pub classifier: String,
    /// Trained on real flows.
    pub real: f64,
    /// Trained on as many synthetic flows.
    pub synthetic: f64,
    /// Trained on as many flows of the Markov baseline.
    pub baseline: Option<f64>,
    /// |synthetic - real| / real.
    pub relative_error: Option<f64>,
}

/// Train on synthetic, test on real.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classifiers {
    /// What is predicted of a flow.
    pub label: String,
    /// The classes.
    pub classes: Vec<String>,
    /// The share of the most frequent one: what guessing gives.
    pub majority: f64,
    /// Flows that each classifier is trained on at most.
    pub trained_on: usize,
    /// Flows that it is tested with.
    pub tested_on: usize,
    /// A classifier each.
    pub accuracy: Vec<Accuracy>,
}

/// The group's findings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Downstream {
    /// Heavy hitters by key.
    pub heavy_hitters: Vec<HeavyHitters>,
    /// Sketches by key.
    pub sketches: Vec<SketchError>,
    /// Classifiers; null where no column has classes to predict.
    pub classifiers: Option<Classifiers>,
    /// Whether what is best ranks alike.
    pub agreement: Vec<Agreement>,
}

impl Downstream {
    /// Works with the first split.
    ///
    /// # Errors
    /// Flows that nothing can be learned from.
    pub fn of(comparison: &Comparison) -> Result<Downstream, EvaluateError> {
        let [real, other] = comparison.halves(0);
        let synthetic = comparison.part(&comparison.synthetic, 0);
        let mut all = Downstream {
            heavy_hitters: Vec::new(),
            sketches: Vec::new(),
            classifiers: None,
            agreement: Vec::new(),
        };
        for (key, keys) in keys(&comparison.frame) {
            all.count(&key, &keys(&real), &keys(&other), &keys(&synthetic));
        }
        all.classifiers = classifiers(comparison, &real, &other, &synthetic)?;
        if let Some(classifiers) = &all.classifiers {
            let of = |of: fn(&Accuracy) -> f64| -> Vec<f64> {
                classifiers.accuracy.iter().map(of).collect()
            };
            all.agreement.push(Agreement {
                of: "classifiers".to_owned(),
                synthetic: spearman(&of(|row| row.real), &of(|row| row.synthetic)),
                floor: None,
            });
        }
        Ok(all)
    }

    fn count(&mut self, key: &str, real: &[u32], other: &[u32], synthetic: &[u32]) {
        let heavy = |keys: &[u32]| sketch::heavy_hitters(&counted(keys), HEAVY).len();
        let (of_real, of_other, of_synthetic) = (heavy(real), heavy(other), heavy(synthetic));
        let count_error = |found: usize| relative(of_real as f64, found as f64);
        self.heavy_hitters.push(HeavyHitters {
            key: key.to_owned(),
            real: of_real,
            floor: of_other,
            synthetic: of_synthetic,
            relative_error: count_error(of_synthetic),
            floor_error: count_error(of_other),
        });
        let distinct = counted(real).iter().filter(|count| **count > 0).count();
        let counters = (distinct / KEYS_A_COUNTER).max(LEAST_COUNTERS);
        let begin = self.sketches.len();
        for kind in Kind::ALL {
            let error = |keys: &[u32]| {
                sketch::estimation_error(keys.iter().copied(), kind, counters, HEAVY, &SKETCH_SEEDS)
            };
            let (Some(of_real), Some(of_other), Some(of_synthetic)) =
                (error(real), error(other), error(synthetic))
            else {
                continue;
            };
            self.sketches.push(SketchError {
                key: key.to_owned(),
                sketch: kind.name().to_owned(),
                real: of_real,
                floor: of_other,
                synthetic: of_synthetic,
                relative_error: relative(of_real, of_synthetic),
                floor_error: relative(of_real, of_other),
            });
        }
        let of = |of: fn(&SketchError) -> f64| -> Vec<f64> {
            self.sketches[begin..].iter().map(of).collect()
        };
        let real = of(|row| row.real);
        self.agreement.push(Agreement {
            of: format!("sketches by {key}"),
            synthetic: spearman(&real, &of(|row| row.synthetic)),
            floor: spearman(&real, &of(|row| row.floor)),
        });
    }
}

fn relative(real: f64, other: f64) -> Option<f64> {
    (real > 0.0).then(|| (other - real).abs() / real)
}

fn counted(keys: &[u32]) -> Vec<u64> {
    let mut counts = vec![0; keys.iter().max().map_or(0, |max| *max as usize + 1)];
    keys.iter().for_each(|&key| counts[key as usize] += 1);
    counts
}

type Keys = Box<dyn Fn(&Sample<'_>) -> Vec<u32>>;

/// What records are counted by.
fn keys(frame: &Frame) -> Vec<(String, Keys)> {
    let mut all: Vec<(String, Keys)> = frame
        .addresses()
        .map(|at| {
            let of = move |sample: &Sample<'_>| -> Vec<u32> {
                sample.rows.iter().map(|&row| sample.id(at, row)).collect()
            };
            (frame.columns[at].name.clone(), Box::new(of) as Keys)
        })
        .collect();
    let flows = |sample: &Sample<'_>| -> Vec<u32> {
        sample.rows.iter().map(|&row| sample.table.flow_of[row as usize]).collect()
    };
    all.push(("flow".to_owned(), Box::new(flows)));
    all
}

/// Which column has the classes: a record's type or label, the service, the
/// protocol; of other tables the last column with few values.
fn label_column(frame: &Frame) -> Option<usize> {
    let named = ["type", "label", "attack", "class", "category", "conn_state"];
    let is_class = |at: &usize| {
        matches!(frame.columns[*at].role, Role::Category | Role::Proto)
            && (2..=32).contains(&frame.columns[*at].values.len())
    };
    let by_name = || named.iter().filter_map(|name| frame.column(name)).find(is_class);
    let service = || frame.dst_port();
    match frame.kind {
        TraceKind::Packets => service(),
        _ => by_name().or_else(service).or_else(|| (0..frame.columns.len()).rev().find(is_class)),
    }
}

fn classifiers(
    comparison: &Comparison,
    real: &Sample<'_>,
    other: &Sample<'_>,
    synthetic: &Sample<'_>,
) -> Result<Option<Classifiers>, EvaluateError> {
    let frame = &comparison.frame;
    let Some(label) = label_column(frame) else { return Ok(None) };
    let classes: Vec<u32> =
        frame.columns[label].top.iter().copied().take(MOST_CLASSES - 1).collect();
    let train = comparison.train.as_ref().map(|table| comparison.part(table, 0));
    let baseline = comparison.baseline.as_ref().map(|table| comparison.part(table, 0));
    // The answering direction's ports would tell the service.
    let mut without = vec![label];
    if frame.dst_port() == Some(label) {
        without.extend(frame.src_port());
    }
    let of = |sample: &Sample<'_>| {
        let flows = features(sample, MOST_FLOWS, &without);
        let labels: Vec<u32> = flows
            .first
            .into_iter()
            .map(|row| {
                let id = sample.id(label, row);
                classes.iter().position(|class| *class == id).unwrap_or(classes.len()) as u32
            })
            .collect();
        (flows.matrix, labels)
    };
    let test = of(other);
    let real = of(train.as_ref().unwrap_or(real));
    let synthetic = of(synthetic);
    let baseline = baseline.as_ref().map(of);
    let mut counts = vec![0_usize; classes.len() + 1];
    test.1.iter().for_each(|&class| counts[class as usize] += 1);
    if counts.iter().filter(|count| **count > 0).count() < 2 {
        return Ok(None);
    }
    let seed = comparison.options().seed;
    let mut rows = Vec::new();
    for learner in Learner::ALL {
        let score = |train: &(super::learn::Matrix, Vec<u32>)| {
            accuracy(learner, &train.0, &train.1, &test.0, &test.1, seed)
        };
        let (of_real, of_synthetic) = (score(&real)?, score(&synthetic)?);
        rows.push(Accuracy {
            classifier: learner.name().to_owned(),
            real: of_real,
            synthetic: of_synthetic,
            baseline: baseline.as_ref().map(score).transpose()?,
            relative_error: relative(of_real, of_synthetic),
        });
    }
    let column = &frame.columns[label];
    let mut names: Vec<String> = classes.iter().map(|&id| column.text(id)).collect();
    names.push("other".to_owned());
    Ok(Some(Classifiers {
        label: column.name.clone(),
        classes: names,
        majority: counts.iter().max().copied().unwrap_or(0) as f64 / test.1.len().max(1) as f64,
        trained_on: real.0.rows.min(synthetic.0.rows),
        tested_on: test.0.rows,
        accuracy: rows,
    }))
}
