//! Is it real? Distances between a real and a synthetic trace, beside the noise
//! floor and a baseline.
//!
//! A distance alone says little: two halves of one trace differ too. So each is
//! given with that floor, and as R, the ratio of the two: 1 means as near as the
//! trace is to itself. [`evaluate`] is the whole of it; [`compare`] has how
//! samples are drawn, [`measure`] what is measured, [`distance`] the distances.

mod classifier;
pub mod cli;
pub mod compare;
pub mod distance;
pub mod downstream;
mod features;
mod fields;
pub mod inputs;
pub(crate) mod joint;
pub(crate) mod learn;
mod markov;
pub mod measure;
pub mod netshare;
pub mod privacy;
pub mod protocol;
pub mod report;
pub mod sample;
pub(crate) mod sequence;
pub(crate) mod sketch;
pub mod table;
mod text;

pub use classifier::TwoSample;
pub use compare::{Comparison, Options};
pub use distance::{Distance, Statistic};
pub use downstream::Downstream;
pub use inputs::{Sides, packet_fields};
pub use learn::LearnError;
pub use measure::{Group, Measure};
pub use privacy::Privacy;
pub use report::{Evaluation, Metric, Summary};
pub(crate) use text::number;

use std::path::PathBuf;

use self::report::{Rate, TraceFacts};
use self::sample::Sample;
use self::table::Table;
use crate::config::ConfigError;
use crate::fit::FitError;
use crate::generator::GeneratorError;
use crate::ingest::{Checksums, IngestError, NotUsed};

/// Why traces cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// Too few conversations to halve.
    #[error("the {what} trace has {found} conversations; a comparison needs at least {least}")]
    TooFew {
        /// Which trace.
        what: &'static str,
        /// How many it has.
        found: usize,
        /// How many it needs.
        least: usize,
    },
    /// Flows that nothing can be learned from.
    #[error(transparent)]
    Learn(#[from] learn::LearnError),
    /// A capture beside a table.
    #[error("{input} is {this}, and {others} are compared here")]
    OtherKind {
        /// The input.
        input: String,
        /// What it is.
        this: &'static str,
        /// What the others are.
        others: &'static str,
    },
    /// A configuration of captures for tables.
    #[error("`{}` describes a capture, but {real} is none", config.display())]
    NoCapture {
        /// The configuration.
        config: PathBuf,
        /// The real trace.
        real: String,
    },
    /// The fields of a table.
    #[error(transparent)]
    Fields(Box<GeneratorError>),
    /// The fields of packets.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A trace that cannot be read.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A trace that cannot be read in these fields.
    #[error(transparent)]
    Read(#[from] Box<FitError>),
}

impl From<GeneratorError> for EvaluateError {
    fn from(error: GeneratorError) -> EvaluateError {
        EvaluateError::Fields(Box::new(error))
    }
}

/// What a comparison is of, for the document.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The real trace's files.
    pub real: String,
    /// The synthetic trace's.
    pub synthetic: String,
    /// The training part's.
    pub train: String,
    /// Records that could not be used, in that order.
    pub not_used: [NotUsed; 3],
    /// Checksums of the real and the synthetic trace's packets, if they are captures.
    pub checksums: [Option<Checksums>; 2],
}

/// A step of an evaluation, for a progress bar.
pub type Done<'a> = dyn FnMut(&str, f64) + 'a;

/// Evaluates a comparison; `done` is told what is next, and which share is done.
/// `quick` leaves groups 5 to 7 out.
///
/// # Errors
/// Flows that nothing can be learned from.
pub fn evaluate(
    comparison: &Comparison,
    names: &Names,
    quick: bool,
    done: &mut Done<'_>,
) -> Result<Evaluation, EvaluateError> {
    let options = comparison.options();
    let (all, splits) = (if quick { 1.0 } else { 0.5 }, options.splits as f64);
    done("distances", 0.0);
    let found = comparison.metrics(|split| done("distances", all * split as f64 / splits));
    let (mut downstream, mut classifier, mut privacy) = (None, None, None);
    if !quick {
        done("downstream tasks", 0.5);
        downstream = Some(Downstream::of(comparison)?);
        done("classifier", 0.75);
        classifier = Some(TwoSample::of(comparison)?);
        done("copies", 0.95);
        privacy = Some(Privacy::of(comparison));
    }
    let [real_not_used, synthetic_not_used, train_not_used] = names.not_used.clone();
    let mut notes = Vec::new();
    if comparison.left_out > 0 {
        notes.push(format!(
            "the synthetic trace is longer than the real one ({}): its last {} records are left out",
            seconds(comparison.frame.span_ns),
            comparison.left_out
        ));
    }
    let span = |table: &Table| {
        let times = &table.times_ns;
        times.last().zip(times.first()).map_or(0, |(last, first)| last - first)
    };
    let (real, synthetic) = (span(&comparison.real), span(&comparison.synthetic));
    if (synthetic as f64) < 0.8 * real as f64 {
        notes.push(format!(
            "the synthetic trace is shorter in time, {} of {}: whatever is measured over time differs for that",
            seconds(synthetic),
            seconds(real)
        ));
    }
    if comparison.units < FEW_UNITS {
        notes.push(format!(
            "samples are of only {} conversations each: nothing here is certain",
            comparison.units
        ));
    }
    if comparison.synthetic.units < comparison.real.units / 2 {
        notes.push(format!(
            "the synthetic trace has only {} conversations (flows of one name are one), the real one {}: \
             samples are of {}",
            comparison.synthetic.units, comparison.real.units, comparison.units
        ));
    }
    Ok(Evaluation {
        version: report::VERSION,
        kind: comparison.frame.kind,
        real: facts(&comparison.real, &names.real, real_not_used),
        synthetic: facts(&comparison.synthetic, &names.synthetic, synthetic_not_used),
        train: comparison.train.as_ref().map(|train| facts(train, &names.train, train_not_used)),
        notes,
        splits: options.splits,
        sampled: comparison.units,
        seed: options.seed,
        netshare: netshare::table(&found.metrics, &comparison.frame),
        summary: found.summary,
        metrics: found.metrics,
        rates: rates(comparison, names.checksums),
        downstream,
        classifier,
        privacy,
    })
}

/// Samples of fewer conversations prove little.
const FEW_UNITS: usize = 50;

/// What is told of a trace that was read.
fn facts(table: &Table, file: &str, not_used: NotUsed) -> TraceFacts {
    let times = &table.times_ns;
    let span = times.last().zip(times.first()).map_or(0, |(last, first)| last - first);
    TraceFacts {
        file: file.to_owned(),
        records: table.len() as u64,
        flows: table.flows() as u64,
        conversations: table.units as u64,
        span_s: span as f64 / 1e9,
        not_used,
    }
}

/// Group 4 as it is rather than as distances.
fn rates(comparison: &Comparison, checksums: [Option<Checksums>; 2]) -> Vec<Rate> {
    let [real, synthetic] = [&comparison.real, &comparison.synthetic].map(|t| comparison.all(t));
    let baseline = comparison.baseline.as_ref().map(|table| comparison.all(table));
    let of = |measure: &Measure, sample: &Sample<'_>| match measure.of(sample) {
        Statistic::Figures(figures) => figures.first().copied().filter(|figure| !figure.is_nan()),
        _ => None,
    };
    let figures = comparison
        .measures
        .iter()
        .filter(|measure| measure.group == Group::Protocol && measure.unit == "share");
    let mut all: Vec<Rate> = figures
        .map(|measure| Rate {
            name: measure.name.clone(),
            label: measure.label.clone(),
            real: of(measure, &real),
            synthetic: of(measure, &synthetic),
            baseline: baseline.as_ref().and_then(|sample| of(measure, sample)),
        })
        .collect();
    type Counts = fn(&Checksums) -> (u64, u64);
    let kinds: [(&str, &str, Counts); 2] = [
        ("ip_checksum", "IP checksums that are right", |c| (c.right_headers, c.headers)),
        ("transport_checksum", "transport checksums that are right, of whole packets", |c| {
            (c.right_transports, c.transports)
        }),
    ];
    if checksums.iter().any(Option::is_some) {
        all.extend(kinds.into_iter().map(|(name, label, of)| {
            let [real, synthetic] = checksums.map(|side| {
                let (right, all) = of(&side?);
                (all > 0).then(|| right as f64 / all as f64)
            });
            Rate { name: name.to_owned(), label: label.to_owned(), real, synthetic, baseline: None }
        }));
    }
    all
}

/// A time of nanoseconds in a unit that suits it.
#[must_use]
pub fn seconds(ns: i64) -> String {
    let seconds = ns as f64 / 1e9;
    match seconds {
        ..1e-3 => format!("{} us", round(seconds * 1e6)),
        ..1.0 => format!("{} ms", round(seconds * 1e3)),
        _ => format!("{} s", round(seconds)),
    }
}

/// To three decimals.
fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests;
