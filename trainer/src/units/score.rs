//! How good a model is, by flows that it did not learn from.

use std::path::Path;
use std::sync::Arc;

use ns_model_format::Bundle;
use ns_model_format::manifest::{Candidate, Provenance};
use ns_model_format::schema::TraceKind;
use ns_runtime::GenerateOptions;
use serde::{Deserialize, Serialize};

use super::{Facts, UnitError};
use crate::config::Resolved;
use crate::evaluate::{self, EvaluateError, Options, Sides};
use crate::export::{self, ChunkModel};
use crate::generate;
use crate::model::weights::GeneratorWeights;
use crate::work::WorkFolder;

/// Random halves of the flows held out: enough to rank by.
const SPLITS: usize = 10;
/// A model whose flows have attributes of their own so much more seldom than the
/// real ones has collapsed.
const COLLAPSED: f64 = 0.1;

/// The name of what is scored, without its extension.
pub(super) const SCORED: &str = "scored";

/// How a model scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Scored {
    pub(super) iteration: u64,
    /// Median R against the flows held out; `None` if no metric has one.
    pub(super) median_r: Option<f64>,
    pub(super) p95_r: Option<f64>,
    /// Flows with attributes of their own, beside the real trace's.
    pub(super) unique: Option<f64>,
    pub(super) collapsed: bool,
}

impl Scored {
    /// As the manifest tells it.
    pub(super) fn candidate(&self, cell: &str, chosen: bool) -> Candidate {
        Candidate {
            cell: cell.to_owned(),
            iteration: self.iteration,
            median_r: self.median_r,
            p95_r: self.p95_r,
            unique: self.unique,
            collapsed: self.collapsed,
            chosen,
        }
    }
}

/// Scores a generator of a run of one chunk.
pub(super) fn of_generator(
    work: &WorkFolder,
    facts: &Facts,
    config: &Resolved,
    generator: &GeneratorWeights,
    iteration: u64,
    folder: &Path,
) -> Result<Scored, UnitError> {
    let chunk = ChunkModel { weights: generator.clone(), handed_over: None };
    let (schema, timeline) = (facts.schema.clone(), facts.timeline.clone());
    let model = &config.model;
    let (sample_len, initial) = (model.sample_len, model.initial_state);
    let bundle =
        export::bundle(&[chunk], sample_len, initial, schema, timeline, Provenance::default())?;
    of_bundle(work, facts, config, bundle, iteration, folder)
}

/// Scores a bundle: one trained span of its flows, as many as are held out, against
/// these. Generated through the runtime, so that what is judged is what ships.
pub(super) fn of_bundle(
    work: &WorkFolder,
    facts: &Facts,
    config: &Resolved,
    bundle: Bundle,
    iteration: u64,
    folder: &Path,
) -> Result<Scored, UnitError> {
    let Some(held_out) = &facts.held_out else {
        return Err(UnitError::HoldOut { reason: "none are".to_owned() });
    };
    let bundle = bundle.with_flows(held_out.share)?;
    let extension = if config.kind == TraceKind::Packets { "pcap" } else { "csv" };
    // Always the same name: one that a kill leaves is written over.
    let synthetic = folder.join(format!("{SCORED}.{extension}"));
    let mut options = GenerateOptions::default();
    options.seed = work.run().seed;
    // A poor model's flows may never end.
    let most = held_out.records.saturating_mul(10).saturating_add(10_000);
    let report =
        generate::generate(Arc::new(bundle), &synthetic, options, |made| made.records < most)
            .map_err(|error| UnitError::Generate(Box::new(error)))?;
    // A model that makes next to nothing cannot be compared: it is none to choose.
    let nothing = Scored { iteration, median_r: None, p95_r: None, unique: None, collapsed: true };
    if report.records == 0 {
        return Ok(nothing);
    }
    let fail = |error: EvaluateError| UnitError::Evaluate(Box::new(error));
    let fields = match config.kind {
        TraceKind::Packets => evaluate::packet_fields().map_err(|error| fail(error.into()))?,
        _ => config.clone(),
    };
    let sides = Sides {
        real: vec![work.prepared().join(&held_out.file)],
        synthetic: vec![synthetic.clone()],
        train: Vec::new(),
    };
    let reading = work.run().reading();
    let options = Options { splits: SPLITS, seed: work.run().seed, baseline: false };
    let compared = evaluate::inputs::compare(&sides, &fields, reading, options, &mut |_, _| {});
    let _ = std::fs::remove_file(&synthetic);
    let comparison = match compared {
        Ok((comparison, _)) => comparison,
        Err(EvaluateError::TooFew { what: "synthetic", .. }) => return Ok(nothing),
        Err(error) => return Err(fail(error)),
    };
    let found = comparison.metrics(|_| {});
    let own = |table: &evaluate::table::Table| table.units as f64 / table.flows().max(1) as f64;
    let unique = own(&comparison.synthetic) / own(&comparison.real).max(f64::MIN_POSITIVE);
    Ok(Scored {
        iteration,
        median_r: found.summary.median_r,
        p95_r: found.summary.p95_r,
        unique: Some(unique),
        collapsed: unique < COLLAPSED,
    })
}
