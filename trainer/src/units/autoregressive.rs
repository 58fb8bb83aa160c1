//! The unit that trains an autoregressive model: its variables' networks, each of which is
//! kept once it is done, then its records' network, with checkpoints to go on from.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::generators::Made;
use super::plan::{GENERATOR, TRAINED};
use super::train::{clean, digest, unit_folder};
use super::{Ended, Facts, Means, Plan, Step, Trained, Unit, UnitError, Watch};
use crate::arrays::Arrays;
use crate::autoregressive::fit::{self, Conditionals, Losses, RecordState, RecordTraining};
use crate::autoregressive::tokens::Flows;
use crate::autoregressive::weights::{Weights, put_conditionals, take_conditionals};
use crate::curve::{Curve, Likelihood, Point};
use crate::train::TrainError;
use crate::work::{WorkError, WorkFolder};

/// Of a limited time the variables have so much at most; what they leave is the records'.
const VARIABLES_SHARE: f64 = 0.5;
/// The networks of the variables, trained.
const VARIABLES: &str = "variables.safetensors";
const CHECKPOINT: &str = "checkpoint.safetensors";
/// The generator as it is when training is stopped.
const SO_FAR: &str = "so-far.safetensors";

/// What is known of a file beside its arrays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct About {
    /// Of what the training depends on.
    digest: String,
    elapsed_s: f64,
    state: RecordState,
    /// Networks of variables that the time ended.
    cut: usize,
}

/// The best model there is: trained, or so far.
pub(super) fn model_so_far(work: &WorkFolder, cell: &str) -> Option<(Weights, Made)> {
    let folder = unit_folder(work, cell, 0);
    let read = |path: PathBuf| {
        let (mut arrays, made) = Arrays::read::<Made>(&path).ok()?;
        Some((Weights::take(&mut arrays)?, made))
    };
    [GENERATOR, SO_FAR].iter().find_map(|file| read(folder.join(file)))
}

pub(super) fn run(
    work: &WorkFolder,
    plan: &Plan,
    unit: &Unit,
    cell: usize,
    means: Means<'_>,
    watch: &mut Watch<'_>,
) -> Result<Ended, UnitError> {
    let planned = &plan.cells[cell];
    let folder = unit_folder(work, &planned.name, 0);
    let config = work.cell(&planned.name)?;
    let prepared = work.prepared();
    let facts = Facts::read(&prepared)?;
    facts.fit(plan, &prepared)?;
    let path = prepared.join(Facts::samples_file(0));
    let (Some(chain), Some(config)) = (&facts.chain, &config.autoregressive) else {
        let reason = "the input was prepared for another model".to_owned();
        return Err(WorkError::Damaged { path, reason }.into());
    };
    let flows = Flows::read(&path, chain)?;
    let (options, seed) = (config.options(), work.run().seed);
    let digest = digest(&planned.config, &facts, seed, unit.iterations);
    let begin = Instant::now();
    let checkpoint = read(&folder.join(CHECKPOINT), &digest)?;
    let variables = read(&folder.join(VARIABLES), &digest)?;
    let last = checkpoint.as_ref().or(variables.as_ref());
    let before = last.map_or(0.0, |(_, about)| about.elapsed_s);
    let before = Duration::try_from_secs_f64(before).unwrap_or_default();
    let elapsed = || before + begin.elapsed();

    let training = TrainError::from;
    let of = chain.variables.len() - 1;
    let Conditionals { weights: conditionals, whole, cut } = match variables {
        Some((mut arrays, About { cut, .. })) => {
            Conditionals { weights: take_conditionals(&mut arrays), whole: true, cut }
        }
        None => {
            let mut done = |done: usize| watch(&Step::Trained(variables_done(done, of)));
            let trained = fit::conditionals(
                chain,
                &flows,
                (&options, seed),
                means.threads,
                means.time.map(|time| time.mul_f64(VARIABLES_SHARE)),
                &mut done,
            );
            let trained = trained.map_err(training)?;
            if trained.whole {
                let mut arrays = Arrays::default();
                put_conditionals(&trained.weights, &mut arrays);
                let (digest, elapsed_s) = (digest.clone(), elapsed().as_secs_f64());
                let about = About { digest, elapsed_s, cut: trained.cut, ..About::default() };
                arrays.write(&folder.join(VARIABLES), &about)?;
            }
            trained
        }
    };

    let mut records =
        RecordTraining::new(chain, &flows, (&options, seed), means.device).map_err(training)?;
    if let Some((mut arrays, about)) = checkpoint {
        records.resume(&mut arrays, about.state).map_err(training)?;
    }
    let curve = folder.join("metrics.jsonl");
    let mut curve = Curve::go_on(curve, records.steps(), records.flows_a_step())?;
    let run = work.run();
    let interval = Duration::try_from_secs_f64(run.checkpoint_s).unwrap_or(Duration::MAX);
    let mut saved = Instant::now();
    let save = |records: &RecordTraining<'_>| -> Result<(), UnitError> {
        let (digest, elapsed_s) = (digest.clone(), elapsed().as_secs_f64());
        let mut arrays = Arrays::default();
        let state = records.checkpoint(&mut arrays).map_err(training)?;
        let about = About { digest, elapsed_s, state, cut };
        Ok(arrays.write(&folder.join(CHECKPOINT), &about)?)
    };
    let mut stopped = !whole;
    while !records.is_over() && !stopped {
        if means.time.is_some_and(|time| elapsed() >= time) {
            break;
        }
        let losses = records.step().map_err(training)?;
        if !losses.train.is_finite() {
            let (iteration, value) = (records.steps(), losses.train as f32);
            return Err(TrainError::Diverged { iteration, what: "the loss", value }.into());
        }
        if curve.is_due(records.steps(), elapsed()) || records.is_over() {
            curve.write(point(&records, losses, elapsed()))?;
        }
        stopped = !watch(&Step::Trained(progress(&records, losses)));
        if saved.elapsed() >= interval || stopped {
            save(&records)?;
            saved = Instant::now();
        }
    }
    let weights = Weights { conditionals, records: records.finish().map_err(training)? };
    let made = Made {
        iterations: records.steps(),
        iteration: records.steps(),
        events: time_was_up(&records, (cut, of), stopped).into_iter().collect(),
        ..Made::default()
    };
    let mut arrays = Arrays::default();
    weights.put(&mut arrays);
    if stopped {
        arrays.write(&folder.join(SO_FAR), &made)?;
        return Ok(Ended::Stopped);
    }
    let mut state = Arrays::default();
    let about = About {
        state: records.checkpoint(&mut state).map_err(training)?,
        digest: digest.clone(),
        elapsed_s: elapsed().as_secs_f64(),
        cut,
    };
    state.write(&folder.join(TRAINED), &about)?;
    arrays.write(&folder.join(GENERATOR), &made)?;
    for file in [CHECKPOINT, VARIABLES, SO_FAR] {
        // What cannot be removed does no harm.
        let _ = std::fs::remove_file(folder.join(file));
    }
    clean(work, &planned.name, 0);
    Ok(Ended::Done)
}

/// A file of this training; none if it is not there or was cut short.
fn read(path: &Path, digest: &str) -> Result<Option<(Arrays, About)>, UnitError> {
    if !path.exists() {
        return Ok(None);
    }
    match Arrays::read::<About>(path) {
        Ok((_, about)) if about.digest != digest => {
            Err(UnitError::OtherTraining { path: path.to_owned() })
        }
        Ok(found) => Ok(Some(found)),
        Err(WorkError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn variables_done(done: usize, of: usize) -> Trained {
    Trained {
        iteration: 0,
        epochs: 0.0,
        batch_size: 0,
        losses: crate::train::Losses::default(),
        likelihood: None,
        of_variables: Some((done, of)),
    }
}

/// What the time has cut short, in a sentence.
fn time_was_up(
    records: &RecordTraining<'_>,
    (cut, of): (usize, usize),
    stopped: bool,
) -> Option<String> {
    let variables = (cut > 0).then(|| format!("the networks of {cut} of {of} variables"));
    let records = (!stopped && !records.is_over()).then(|| {
        let (done, all) = (records.epochs_done(), records.epochs());
        format!("the records' network after {done:.1} of at most {all} passes")
    });
    let ended: Vec<String> = variables.into_iter().chain(records).collect();
    (!ended.is_empty()).then(|| format!("the time was up; it ended {}", ended.join(", and ")))
}

fn progress(records: &RecordTraining<'_>, losses: Losses) -> Trained {
    Trained {
        iteration: records.steps().min(records.length()),
        epochs: records.epochs_done(),
        batch_size: records.flows_a_step(),
        losses: crate::train::Losses::default(),
        likelihood: Some(likelihood(losses)),
        of_variables: None,
    }
}

fn likelihood(Losses { train, validation }: Losses) -> Likelihood {
    Likelihood { nats: train as f32, nats_validation: validation.map(|nats| nats as f32) }
}

fn point(records: &RecordTraining<'_>, losses: Losses, elapsed: Duration) -> Point {
    Point {
        iteration: records.steps().min(records.length()),
        iterations: records.length(),
        chunk: 0,
        chunks: 1,
        epochs: records.epochs_done(),
        elapsed_s: elapsed.as_secs_f64(),
        samples_per_s: 0.0,
        rate: 1.0,
        adversarial: None,
        likelihood: Some(likelihood(losses)),
    }
}
