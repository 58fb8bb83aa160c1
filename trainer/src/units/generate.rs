//! Generates a trace in parts, and merges them.
//!
//! Part `k` of `n` has every flow whose number leaves `k` when divided by `n`. A flow's
//! chance is keyed by its number, so a part needs nothing of the others, and merged
//! they are the trace that one process would have generated, byte for byte.

use std::path::Path;
use std::sync::Arc;

use ns_model_format::Bundle;
use ns_runtime::GenerateOptions;
use ns_runtime::sink::{Target, merge_parts};
use ns_runtime::stats::Ending;

use super::{Ended, Means, Plan, Step, Unit, UnitError, Watch};
use crate::files::sha256;
use crate::generate::{self, Generating};
use crate::work::{GENERATION, WorkError, WorkFolder};

/// The extension of what is not done yet.
const NEW: &str = "new";

/// The digest that says which model a trace's parts come from.
pub(crate) fn model_sha256(work: &WorkFolder) -> Result<String, WorkError> {
    let path = work.model();
    sha256(&path).map_err(|source| WorkError::Read { path, source })
}

/// Generates a part.
pub(super) fn part(
    work: &WorkFolder,
    plan: &Plan,
    unit: &Unit,
    part: u64,
    means: Means<'_>,
    watch: &mut Watch<'_>,
) -> Result<Ended, UnitError> {
    let Some(trace) = &plan.trace else { return Err(UnitError::OtherModel) };
    if model_sha256(work)? != trace.model_sha256 {
        return Err(UnitError::OtherModel);
    }
    let bundle = Arc::new(Bundle::open(&work.model())?);
    let mut options = GenerateOptions::default();
    options.seed = trace.seed;
    options.flows = trace.flows;
    options.part = (part, trace.parts);
    options.threads = means.threads;
    options.onnxruntime = means.onnxruntime.map(Path::to_owned);
    let path = work.path().join(&unit.outputs[0]);
    // What is stopped, or fills a disk, is whole to its sink, but no part.
    let new = path.with_extension(NEW);
    let watch = |made: &Generating| watch(&Step::Generated(*made));
    let report = generate::generate_part(&bundle, &new, options, watch).map_err(Box::new)?;
    if report.ending != Ending::Done {
        std::fs::remove_file(&new).map_err(|source| WorkError::Write { path: new, source })?;
        return Ok(Ended::Stopped);
    }
    std::fs::rename(&new, &path).map_err(|source| WorkError::Write { path, source })?;
    Ok(Ended::Done)
}

/// Merges the parts into the work folder's synthetic trace, and removes them.
pub(super) fn merge(
    work: &WorkFolder,
    unit: &Unit,
    watch: &mut Watch<'_>,
) -> Result<Ended, UnitError> {
    let paths: Vec<_> = unit.inputs.iter().map(|path| work.path().join(path)).collect();
    let merged = work.path().join(&unit.outputs[0]).with_extension(NEW);
    let made = merge_parts(&paths, &Target::File(merged.clone()), |so_far| {
        let (records, flows) = (so_far.records, so_far.flows);
        watch(&Step::Generated(Generating { records, flows, share: None }))
    })?;
    if made.is_none() {
        return Ok(Ended::Stopped);
    }
    let whole = work.synthetic();
    std::fs::rename(&merged, &whole).map_err(|source| WorkError::Write { path: whole, source })?;
    work.remove_evaluation()?;
    // The trace is there: what cannot be removed is in the way of nothing.
    let _ = work.remove_folder(GENERATION);
    Ok(Ended::Done)
}
