//! The units after training: the bundle of a model, its score, and the choice.

use std::path::PathBuf;

use ns_model_format::Bundle;
use ns_model_format::manifest::{Candidate, Choice, Provenance};
use serde::{Deserialize, Serialize};

use super::generators::Made;
use super::plan::{CHOSEN, MODEL, PlannedCell, SCORE};
use super::score::{self, Scored};
use super::{Facts, Plan, Standing, UnitError, autoregressive, train};
use crate::autoregressive::weights::Weights;
use crate::curve::{self, Point};
use crate::export::{self, ChunkModel};
use crate::work::{WorkError, WorkFolder, write_json};

/// Puts the networks of a model's chunks into a bundle.
pub(super) fn bundle(work: &WorkFolder, plan: &Plan, cell: usize) -> Result<(), UnitError> {
    let facts = Facts::read(&work.prepared())?;
    if facts.chain.is_some() {
        let name = &plan.cells[cell].name;
        let (weights, made) = autoregressive::model_so_far(work, name).ok_or_else(|| {
            let reason = "it has no model".to_owned();
            WorkError::Damaged { path: work.units().join(name), reason }
        })?;
        let bundle = assemble_autoregressive(work, plan, facts, cell, (weights, made))?;
        return Ok(bundle.write(&cell_file(work, plan, cell, MODEL))?);
    }
    let generators = (0..plan.chunks).map(|chunk| {
        train::generator_so_far(work, &plan.cells[cell].name, chunk).ok_or_else(|| {
            let reason = format!("chunk {chunk} has no generator");
            WorkError::Damaged { path: work.units().join(&plan.cells[cell].name), reason }
        })
    });
    let made = assemble(work, plan, facts, cell, generators.collect::<Result<_, _>>()?)?;
    Ok(made.write(&cell_file(work, plan, cell, MODEL))?)
}

fn cell_file(work: &WorkFolder, plan: &Plan, cell: usize, file: &str) -> PathBuf {
    work.units().join(&plan.cells[cell].name).join(file)
}

fn assemble(
    work: &WorkFolder,
    plan: &Plan,
    facts: Facts,
    cell: usize,
    generators: Vec<(crate::model::weights::GeneratorWeights, Made)>,
) -> Result<Bundle, UnitError> {
    let planned = &plan.cells[cell];
    facts.fit(plan, &work.prepared())?;
    let config = work.cell(&planned.name)?;
    let made: Vec<&Made> = generators.iter().map(|(_, made)| made).collect();
    let provenance = provenance(work, planned, &facts, &made);
    let chunks: Vec<ChunkModel> = generators
        .into_iter()
        .zip(facts.handed_over)
        .map(|((weights, _), handed_over)| ChunkModel { weights, handed_over })
        .collect();
    let (model, schema, timeline) = (&config.model, facts.schema, facts.timeline);
    let (sample_len, initial) = (model.sample_len, model.initial_state);
    Ok(export::bundle(&chunks, sample_len, initial, schema, timeline, provenance)?)
}

fn assemble_autoregressive(
    work: &WorkFolder,
    plan: &Plan,
    facts: Facts,
    cell: usize,
    (weights, made): (Weights, Made),
) -> Result<Bundle, UnitError> {
    let planned = &plan.cells[cell];
    facts.fit(plan, &work.prepared())?;
    let config = work.cell(&planned.name)?;
    let provenance = provenance(work, planned, &facts, &[&made]);
    let (Some(chain), Some(config)) = (&facts.chain, &config.autoregressive) else {
        let reason = "the input was prepared for another model".to_owned();
        return Err(WorkError::Damaged { path: work.prepared(), reason }.into());
    };
    let (schema, timeline) = (facts.schema, facts.timeline);
    let bundle = export::autoregressive::bundle;
    Ok(bundle(&weights, chain, &config.options(), schema, timeline, provenance)?)
}

/// Where a model comes from.
fn provenance(
    work: &WorkFolder,
    planned: &PlannedCell,
    facts: &Facts,
    made: &[&Made],
) -> Provenance {
    let choice = facts.held_out.as_ref().map(|held_out| Choice {
        held_out_share: held_out.share,
        held_out_records: held_out.records,
        candidates: made
            .iter()
            .flat_map(|made| {
                let chosen = |s: &Scored| s.iteration == made.iteration;
                made.scores.iter().map(move |s| s.candidate(&planned.name, chosen(s)))
            })
            .collect(),
    });
    Provenance {
        trainer: concat!("ns-train ", env!("CARGO_PKG_VERSION")).to_owned(),
        revision: option_env!("NETSHARE_REVISION").map(str::to_owned),
        input: facts.input.clone(),
        input_sha256: facts.input_sha256.clone(),
        config: planned.config.clone(),
        seed: work.run().seed,
        iterations: made.iter().map(|made| made.iterations).sum(),
        not_used: facts.not_used.clone(),
        privacy: None,
        choice,
        events: made.iter().flat_map(|made| made.events.clone()).collect(),
    }
}

/// Judges a model's bundle, unless its training did already.
pub(super) fn score(work: &WorkFolder, plan: &Plan, cell: usize) -> Result<(), UnitError> {
    let bundle = Bundle::open(&cell_file(work, plan, cell, MODEL))?;
    let provenance = &bundle.manifest().provenance;
    let candidates = provenance.choice.iter().flat_map(|choice| &choice.candidates);
    let known = candidates.into_iter().find(|candidate| candidate.chosen).map(|found| Scored {
        iteration: found.iteration,
        median_r: found.median_r,
        p95_r: found.p95_r,
        unique: found.unique,
        collapsed: found.collapsed,
    });
    let scored = match known {
        Some(known) => known,
        None => {
            let (facts, config) =
                (Facts::read(&work.prepared())?, work.cell(&plan.cells[cell].name)?);
            let iterations = provenance.iterations;
            let folder = work.units().join(&plan.cells[cell].name);
            score::of_bundle(work, &facts, &config, bundle, iterations, &folder)?
        }
    };
    Ok(write_json(&cell_file(work, plan, cell, SCORE), &scored)?)
}

/// What `units/chosen.json` says.
#[derive(Serialize, Deserialize)]
struct Chosen {
    cell: String,
    score: Option<Scored>,
    failed: Vec<(String, String)>,
}

/// Makes the best of the models that were trained the result of the run, with
/// its training curve. Without scores it is the first.
pub(super) fn choose(work: &WorkFolder, plan: &Plan) -> Result<(), UnitError> {
    let mut failed = Vec::new();
    for unit in &plan.units {
        if plan.standing(work, unit) == Standing::Failed {
            let reason = std::fs::read_to_string(work.path().join(unit.failure()));
            failed.push((unit.name.clone(), reason.unwrap_or_default().trim().to_owned()));
        }
    }
    let mut models: Vec<(usize, Bundle, Option<Scored>)> = Vec::new();
    for cell in 0..plan.cells.len() {
        let path = cell_file(work, plan, cell, MODEL);
        if !path.exists() {
            continue;
        }
        let score = cell_file(work, plan, cell, SCORE);
        let score = match std::fs::read(&score) {
            Ok(text) => Some(serde_json::from_slice(&text).map_err(|error| {
                WorkError::Damaged { path: score.clone(), reason: error.to_string() }
            })?),
            Err(_) => None,
        };
        models.push((cell, Bundle::open(&path)?, score));
    }
    let key = |score: &Option<Scored>| match score {
        Some(Scored { median_r: Some(r), collapsed, .. }) => (*collapsed, *r),
        _ => (true, f64::INFINITY),
    };
    let best = (0..models.len()).min_by(|&a, &b| {
        let (a, b) = (key(&models[a].2), key(&models[b].2));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    let Some(best) = best else { return Err(UnitError::NoModel { failures: failed }) };
    let candidates = models.iter().enumerate().flat_map(|(index, (cell, bundle, score))| {
        let name = &plan.cells[*cell].name;
        let choice = bundle.manifest().provenance.choice.as_ref();
        let mut all: Vec<Candidate> = choice.map(|c| c.candidates.clone()).unwrap_or_default();
        if all.is_empty() {
            all.extend(score.as_ref().map(|score| score.candidate(name, true)));
        }
        all.iter_mut().for_each(|candidate| candidate.chosen &= index == best);
        all
    });
    let candidates: Vec<Candidate> = candidates.collect();
    let (cell, bundle, score) = models.swap_remove(best);
    let mut provenance = bundle.manifest().provenance.clone();
    if let Some(choice) = &mut provenance.choice {
        choice.candidates = candidates;
    }
    let failures = failed.iter().map(|(unit, reason)| format!("`{unit}` failed: {reason}"));
    provenance.events.extend(failures);
    bundle.with_provenance(provenance)?.write(&work.model())?;
    let name = plan.cells[cell].name.clone();
    curve::write(&work.metrics(), &joined_curve(work, &name, plan.chunks)?)?;
    Ok(write_json(&work.path().join(CHOSEN), &Chosen { cell: name, score, failed })?)
}

/// The curves of a model's chunks, one after another.
fn joined_curve(work: &WorkFolder, cell: &str, chunks: usize) -> Result<Vec<Point>, UnitError> {
    let mut all: Vec<Point> = Vec::new();
    let mut curves = Vec::new();
    for chunk in 0..chunks {
        let path = train::curve_file(work, cell, chunk);
        curves.push(if path.exists() { curve::read_in_order(&path)? } else { Vec::new() });
    }
    let iterations = curves.iter().filter_map(|curve| curve.last()).map(|last| last.iterations);
    let iterations: u64 = iterations.fold(0, u64::saturating_add);
    let (mut done, mut elapsed) = (0, 0.0);
    for curve in curves {
        let (before, time) = (done, elapsed);
        for mut point in curve {
            point.iteration += before;
            point.iterations = iterations;
            point.elapsed_s += time;
            (done, elapsed) = (point.iteration, point.elapsed_s);
            all.push(point);
        }
    }
    Ok(all)
}

/// Writes the bundle of a run that was stopped: of the model that came farthest,
/// chunks that were not reached with the networks of the first. Whether there was anything.
pub(crate) fn so_far(work: &WorkFolder, plan: &Plan) -> Result<bool, UnitError> {
    let facts = Facts::read(&work.prepared())?;
    if facts.chain.is_some() {
        let of_cell = |cell: usize| {
            let model = autoregressive::model_so_far(work, &plan.cells[cell].name)?;
            Some((cell, model))
        };
        let reached = (0..plan.cells.len()).filter_map(of_cell);
        // Of equals the first.
        let best = reached.reduce(|a, b| if b.1.1.iterations > a.1.1.iterations { b } else { a });
        let Some((cell, model)) = best else { return Ok(false) };
        assemble_autoregressive(work, plan, facts, cell, model)?.write(&work.model())?;
        curve::write(&work.metrics(), &joined_curve(work, &plan.cells[cell].name, plan.chunks)?)?;
        return Ok(true);
    }
    let reached = (0..plan.cells.len()).filter_map(|cell| {
        let generator = |chunk| train::generator_so_far(work, &plan.cells[cell].name, chunk);
        let first = generator(0)?;
        let others = (1..plan.chunks).map(|chunk| {
            let not_reached = || (first.0.clone(), Made::default());
            generator(chunk).unwrap_or_else(not_reached)
        });
        let others: Vec<_> = others.collect();
        let generators: Vec<_> = std::iter::once(first).chain(others).collect();
        let iterations: u64 = generators.iter().map(|(_, made)| made.iterations).sum();
        Some((iterations, cell, generators))
    });
    // Of equals the first.
    let best = reached.reduce(|a, b| if b.0 > a.0 { b } else { a });
    let Some((_, cell, generators)) = best else { return Ok(false) };
    assemble(work, plan, facts, cell, generators)?.write(&work.model())?;
    curve::write(&work.metrics(), &joined_curve(work, &plan.cells[cell].name, plan.chunks)?)?;
    Ok(true)
}

/// Removes what only an unfinished run needs: among it the encoded input, which is
/// nobody's to find who is given the folder.
pub(crate) fn clean(work: &WorkFolder, plan: &Plan) {
    // What cannot be removed does no harm.
    let _ = std::fs::remove_dir_all(work.prepared());
    for (cell, planned) in plan.cells.iter().enumerate() {
        (0..plan.chunks).for_each(|chunk| train::clean(work, &planned.name, chunk));
        if plan.cells.len() == 1 {
            let _ = std::fs::remove_file(cell_file(work, plan, cell, MODEL));
        }
    }
}
