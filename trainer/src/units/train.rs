//! The unit that trains: a chunk's networks, from nothing or from the first chunk's,
//! with checkpoints to go on from, and of what it passes through the best.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ns_model_format::random::{Purpose, Stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::generators::{self, Made};
use super::plan::{GENERATOR, TRAINED};
use super::score::{self, Scored};
use super::{Ended, Facts, Means, Plan, Step, Unit, UnitError, Watch, autoregressive};
use crate::config::Resolved;
use crate::curve::{Adversarial, Curve, Likelihood, Point};
use crate::model::weights::GeneratorWeights;
use crate::train::{Checkpoint, Losses, TrainError, Trainer};
use crate::work::{WorkError, WorkFolder};

/// Scores and marks are taken so often in a training.
const MARKS: u64 = 10;
/// A training that diverges goes back so often before it fails.
const MOST_SETBACKS: usize = 3;
/// What a setback does to the learning rates.
const SETBACK_RATE: f64 = 0.5;
/// Losses beyond it explode: a critic whose penalty holds stays far below.
const MOST_LOSS: f32 = 1e7;
/// So many collapsed scores in a row end a training.
const MOST_COLLAPSED: usize = 3;

/// An iteration of training.
#[derive(Clone, Copy, Debug)]
pub struct Trained {
    /// Iterations done in the unit.
    pub iteration: u64,
    /// Passes over its samples.
    pub epochs: f64,
    /// Samples (flows, or segments of them) an iteration.
    pub batch_size: usize,
    /// The iteration's losses, of a DoppelGANger.
    pub losses: Losses,
    /// How far the records' network is, of an autoregressive model.
    pub likelihood: Option<Likelihood>,
    /// Before an autoregressive model's iterations: of how many variables the networks are
    /// trained, and how many there are.
    pub of_variables: Option<(usize, usize)>,
}

/// What a checkpoint says beside the networks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    /// Of what the training depends on.
    digest: String,
    /// Time that was trained so far.
    elapsed_s: f64,
    scores: Vec<Scored>,
    events: Vec<String>,
    setbacks: usize,
    /// Those after which the best so far was taken.
    best: Option<u64>,
    /// Whether a score ended it before its length.
    #[serde(default)]
    ended: bool,
}

/// The folder of a unit and the names in it.
struct Folder(PathBuf);

impl Folder {
    fn checkpoint(&self, iteration: u64) -> PathBuf {
        self.0.join(format!("checkpoint-{iteration:010}.safetensors"))
    }

    /// One that is kept, by `epoch_checkpoint_freq`.
    fn epoch(&self, epoch: u64) -> PathBuf {
        self.0.join(format!("epoch-{epoch}.safetensors"))
    }

    /// What a setback goes back to: training comes by there however often it is killed.
    fn mark(&self) -> PathBuf {
        self.0.join("mark.safetensors")
    }

    fn best(&self) -> PathBuf {
        self.0.join("best.safetensors")
    }

    /// The generator as it is when training is stopped.
    fn so_far(&self) -> PathBuf {
        self.0.join("so-far.safetensors")
    }

    /// Checkpoints to go on from, the newest first.
    fn checkpoints(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let is_checkpoint = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("checkpoint-") && name.ends_with(".safetensors")
        };
        let mut found: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(is_checkpoint).collect();
        // Numbers have leading zeros.
        found.sort();
        found.reverse();
        found
    }
}

/// The folder of a chunk's training.
fn folder(work: &WorkFolder, cell: &str, chunk: usize) -> Folder {
    Folder(work.units().join(cell).join(format!("chunk-{chunk}")))
}

/// The same as a path.
pub(super) fn unit_folder(work: &WorkFolder, cell: &str, chunk: usize) -> PathBuf {
    folder(work, cell, chunk).0
}

/// The training curve of a chunk.
pub(crate) fn curve_file(work: &WorkFolder, cell: &str, chunk: usize) -> PathBuf {
    folder(work, cell, chunk).0.join("metrics.jsonl")
}

/// The best generator of a chunk that there is: of a training that is done, or so far.
pub(super) fn generator_so_far(
    work: &WorkFolder,
    cell: &str,
    chunk: usize,
) -> Option<(GeneratorWeights, Made)> {
    let folder = folder(work, cell, chunk);
    let paths = [folder.0.join(GENERATOR), folder.so_far()];
    paths.iter().find_map(|path| generators::read(path).ok())
}

/// Removes what is only there to go on from.
pub(super) fn clean(work: &WorkFolder, cell: &str, chunk: usize) {
    let folder = folder(work, cell, chunk);
    let rest = [folder.mark(), folder.best(), folder.so_far()];
    let scored = ["pcap", "csv", "pcap.part", "csv.part"];
    let scored = scored.map(|extension| folder.0.join(format!("{}.{extension}", score::SCORED)));
    for path in folder.checkpoints().into_iter().chain(rest).chain(scored) {
        // What cannot be removed does no harm.
        let _ = std::fs::remove_file(path);
    }
}

/// Each chunk has chance of its own; the first one's is that of a whole span.
fn chunk_seed(seed: u64, chunk: usize) -> u64 {
    match chunk {
        0 => seed,
        _ => Stream::new(seed, Purpose::Chunks, chunk as u64).next_u64(),
    }
}

/// One chunk's training as it goes.
struct Training<'a> {
    work: &'a WorkFolder,
    folder: Folder,
    facts: Facts,
    config: Resolved,
    trainer: Trainer,
    curve: Curve,
    record: Record,
    begin: Instant,
    /// Time trained when it began.
    before: Duration,
    chunk: usize,
    length: u64,
    /// Iterations of an epoch.
    per_epoch: u64,
    /// Whether flows are held out to score by.
    scores: bool,
}

pub(super) fn run(
    work: &WorkFolder,
    plan: &Plan,
    unit: &Unit,
    (cell, chunk): (usize, usize),
    means: Means<'_>,
    watch: &mut Watch<'_>,
) -> Result<Ended, UnitError> {
    let planned = &plan.cells[cell];
    let folder = folder(work, &planned.name, chunk);
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| WorkError::Write { path, source }
    };
    let config = work.cell(&planned.name)?;
    std::fs::create_dir_all(&folder.0).map_err(fail(&folder.0))?;
    if config.autoregressive.is_some() {
        return autoregressive::run(work, plan, unit, cell, means, watch);
    }
    if unit.outputs.iter().all(|path| work.path().join(path).exists()) {
        return Ok(Ended::Done);
    }
    let prepared = work.prepared();
    let (facts, samples) = (Facts::read(&prepared)?, Facts::samples(&prepared, chunk)?);
    facts.fit(plan, &prepared)?;
    let per_epoch = samples.iterations_per_epoch(config.model.batch_size) as u64;
    let seed = chunk_seed(work.run().seed, chunk);
    let mut trainer = Trainer::new(samples, config.model.clone(), seed, means.device)?;
    let first = first_weights(plan, &config, (cell, chunk), work)?;
    if let Some((weights, _)) = &first {
        trainer.start_from(weights)?;
    }
    let digest = digest(&planned.config, &facts, seed, unit.iterations);
    let mut record = Record { digest, ..Record::default() };
    resume(&folder, &mut trainer, &mut record)?;
    let path = curve_file(work, &planned.name, chunk);
    let curve = Curve::go_on(path, trainer.iterations(), config.model.batch_size)?;
    let before = Duration::try_from_secs_f64(record.elapsed_s).unwrap_or_default();
    let scores = facts.held_out.is_some() && plan.chunks == 1;
    let (length, begin) = (unit.iterations, Instant::now());
    let mut training = Training {
        work,
        folder,
        facts,
        config,
        trainer,
        curve,
        record,
        begin,
        before,
        chunk,
        length,
        per_epoch,
        scores,
    };
    let stopped = training.train(plan.chunks, means, watch)?;
    if stopped {
        if training.save_if_sound()? {
            let (generator, made) = training.best()?;
            generators::write(&training.folder.so_far(), &generator, &made)?;
        }
        return Ok(Ended::Stopped);
    }
    let (mut generator, made) = training.best()?;
    if let Some((_, Some(theirs))) = first
        && training.trainer.iterations() == 0
    {
        // Not moved: what is exported is what the first one exports.
        generator = theirs;
    }
    let Training { folder, trainer, record, .. } = &training;
    trainer.checkpoint()?.write(&folder.0.join(TRAINED), record)?;
    generators::write(&folder.0.join(GENERATOR), &generator, &made)?;
    drop(training);
    clean(work, &planned.name, chunk);
    Ok(Ended::Done)
}

/// What a chunk starts from, if from anything, and its generator.
fn first_weights(
    plan: &Plan,
    config: &Resolved,
    (cell, chunk): (usize, usize),
    work: &WorkFolder,
) -> Result<Option<(Checkpoint, Option<GeneratorWeights>)>, UnitError> {
    let from = |folder: &Path| -> Result<_, UnitError> {
        let (checkpoint, _) = Checkpoint::read::<serde_json::Value>(&folder.join(TRAINED))?;
        let generator = folder.join(GENERATOR);
        let generator = match generator.exists() {
            true => Some(generators::read(&generator)?.0),
            false => None,
        };
        Ok(Some((checkpoint, generator)))
    };
    if chunk > 0 {
        return match config.chunks.reduce_time {
            Some(_) => from(&folder(work, &plan.cells[cell].name, 0).0),
            None => Ok(None),
        };
    }
    let Some(path) = &config.pretrain_dir else { return Ok(None) };
    from(&pretrained(path)?)
}

/// The folder of the first chunk of an earlier training.
fn pretrained(path: &Path) -> Result<PathBuf, UnitError> {
    let fail = |reason: String| UnitError::Pretrained { path: path.to_owned(), reason };
    if path.join(TRAINED).exists() {
        return Ok(path.to_owned());
    }
    let entries = std::fs::read_dir(path.join("units")).map_err(|error| {
        fail(format!("expected a work folder of a training, or a chunk's folder in it ({error})"))
    })?;
    let chunks = entries.flatten().map(|entry| entry.path().join("chunk-0"));
    let mut found: Vec<PathBuf> = chunks.filter(|path| path.join(TRAINED).exists()).collect();
    found.sort();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(fail("no training in it was finished".to_owned())),
        several => {
            let names: Vec<String> = several.iter().map(|p| p.display().to_string()).collect();
            Err(fail(format!("it has several models; name one: `{}`", names.join("`, `"))))
        }
    }
}

/// Of what a training depends on.
pub(super) fn digest(
    config: &serde_json::Value,
    facts: &Facts,
    seed: u64,
    iterations: u64,
) -> String {
    let all = serde_json::json!([config, facts.input_sha256, seed, iterations, facts.held_out]);
    let digest = Sha256::digest(all.to_string());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Goes on from the newest checkpoint that is whole.
fn resume(folder: &Folder, trainer: &mut Trainer, record: &mut Record) -> Result<(), UnitError> {
    let mark = Some(folder.mark()).filter(|mark| mark.exists());
    for path in folder.checkpoints().into_iter().chain(mark) {
        match Checkpoint::read::<Record>(&path) {
            Ok((_, found)) if found.digest != record.digest => {
                return Err(UnitError::OtherTraining { path });
            }
            Ok((checkpoint, found)) => {
                trainer.resume(&checkpoint)?;
                *record = found;
                return Ok(());
            }
            // The one before it may be whole.
            Err(WorkError::Damaged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Training<'_> {
    /// Trains to the end; whether it was stopped before.
    fn train(
        &mut self,
        chunks: usize,
        means: Means<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<bool, UnitError> {
        let every = self.length.div_ceil(MARKS).max(1);
        let run = self.work.run();
        let interval = Duration::try_from_secs_f64(run.checkpoint_s).unwrap_or(Duration::MAX);
        let per_kept = self.config.epoch_checkpoint_freq.map(|n| n.saturating_mul(self.per_epoch));
        let mut saved = Instant::now();
        if self.trainer.iterations() == 0 {
            self.mark()?;
        }
        // Killed between the checkpoint before a score and the score.
        let iteration = self.trainer.iterations();
        let scored = self.record.scores.last().is_some_and(|last| last.iteration == iteration);
        if self.scores && !scored && iteration > 0 && iteration.is_multiple_of(every) {
            self.pass_by(iteration, every, None)?;
        }
        let mut stopped = false;
        while self.trainer.iterations() < self.length && !stopped && !self.record.ended {
            if means.time.is_some_and(|time| self.elapsed() >= time) {
                break;
            }
            let losses = match self.iteration() {
                Ok(losses) => losses,
                Err(error) => {
                    self.go_back(error)?;
                    continue;
                }
            };
            let iteration = self.trainer.iterations();
            if self.curve.is_due(iteration, self.elapsed()) {
                self.point(losses, chunks)?;
            }
            let epochs = iteration as f64 / self.per_epoch as f64;
            let batch_size = self.config.model.batch_size;
            let (likelihood, of_variables) = (None, None);
            let trained =
                Trained { iteration, epochs, batch_size, losses, likelihood, of_variables };
            stopped = !watch(&Step::Trained(trained));
            if let Err(error) = self.pass_by(iteration, every, per_kept) {
                match error {
                    UnitError::Train(error) => self.go_back(error)?,
                    error => return Err(error),
                }
                continue;
            }
            if saved.elapsed() >= interval {
                self.save_if_sound()?;
                saved = Instant::now();
            }
            if stopped || self.record.ended || iteration == self.length {
                self.point(losses, chunks)?;
            }
        }
        let iteration = self.trainer.iterations();
        let scored = self.record.scores.last().is_some_and(|last| last.iteration == iteration);
        if !stopped && !scored && iteration > 0 {
            self.score()?;
        }
        Ok(stopped)
    }

    /// Does what is due after certain iterations, however long they took.
    fn pass_by(
        &mut self,
        iteration: u64,
        every: u64,
        per_kept: Option<u64>,
    ) -> Result<(), UnitError> {
        if iteration.is_multiple_of(every) && iteration < self.length {
            if self.scores {
                // A score takes its time; what was trained is not to be lost with it.
                self.save()?;
            }
            self.score()?;
            self.mark()?;
        }
        if per_kept.is_some_and(|per_kept| iteration.is_multiple_of(per_kept)) {
            let path = self.folder.epoch(iteration / self.per_epoch);
            self.trainer.checkpoint()?.write(&path, &self.record)?;
        }
        Ok(())
    }

    /// Writes a checkpoint, unless a weight is no number any more: the next iteration
    /// finds that too, whenever this one is due.
    fn save_if_sound(&mut self) -> Result<bool, UnitError> {
        match self.save() {
            Ok(()) => Ok(true),
            Err(UnitError::Train(TrainError::Diverged { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One iteration, whose losses are such as training can go on with.
    fn iteration(&mut self) -> Result<Losses, TrainError> {
        let losses = self.trainer.iteration()?;
        let iteration = self.trainer.iterations();
        for (what, value) in [
            ("the critic's loss", losses.critic),
            ("the attribute critic's loss", losses.attribute_critic),
            ("the generator's loss", losses.generator),
        ] {
            if value.abs() > MOST_LOSS {
                return Err(TrainError::Diverged { iteration, what, value });
            }
        }
        Ok(losses)
    }

    /// After what made training diverge: back to the last mark, with smaller steps.
    fn go_back(&mut self, error: TrainError) -> Result<(), UnitError> {
        if !matches!(error, TrainError::Diverged { .. }) || self.record.setbacks >= MOST_SETBACKS {
            return Err(error.into());
        }
        let rate = self.trainer.rate() * SETBACK_RATE;
        let (mark, at_mark) = Checkpoint::read::<Record>(&self.folder.mark())?;
        self.trainer.resume(&mark)?;
        self.trainer.set_rate(rate);
        let back_to = self.trainer.iterations();
        let mut events = std::mem::take(&mut self.record.events);
        events.push(format!(
            "chunk {}: {error}; went back to iteration {back_to} with {rate} of the learning rates",
            self.chunk
        ));
        let setbacks = self.record.setbacks + 1;
        let elapsed_s = self.record.elapsed_s;
        self.record = Record { events, setbacks, elapsed_s, ..at_mark };
        self.mark()?;
        // What was saved since leads to where training diverged.
        for path in self.folder.checkpoints() {
            let _ = std::fs::remove_file(path);
        }
        self.save()
    }

    /// Keeps the place that a setback goes back to.
    fn mark(&mut self) -> Result<(), UnitError> {
        self.record.elapsed_s = self.elapsed().as_secs_f64();
        Ok(self.trainer.checkpoint()?.write(&self.folder.mark(), &self.record)?)
    }

    /// Writes a checkpoint, and removes those that are older than the last few.
    fn save(&mut self) -> Result<(), UnitError> {
        self.record.elapsed_s = self.elapsed().as_secs_f64();
        let path = self.folder.checkpoint(self.trainer.iterations());
        self.trainer.checkpoint()?.write(&path, &self.record)?;
        let kept = self.work.run().keep_checkpoints.max(1) as usize;
        for path in self.folder.checkpoints().into_iter().skip(kept) {
            std::fs::remove_file(&path).map_err(|source| WorkError::Write { path, source })?;
        }
        Ok(())
    }

    /// Judges the generator as it is, and ends training if that is plain from it.
    fn score(&mut self) -> Result<(), UnitError> {
        if !self.scores {
            return Ok(());
        }
        let iteration = self.trainer.iterations();
        let generator = self.trainer.generator_weights()?;
        let scored = score::of_generator(
            self.work,
            &self.facts,
            &self.config,
            &generator,
            iteration,
            &self.folder.0,
        )?;
        let is_best = !scored.collapsed
            && scored.median_r.is_some_and(|r| {
                let of_best = |s: &&Scored| Some(s.iteration) == self.record.best;
                let best = self.record.scores.iter().find(of_best);
                best.and_then(|best| best.median_r).is_none_or(|best| r < best)
            });
        self.record.scores.push(scored);
        if is_best {
            self.record.best = Some(iteration);
            generators::write(&self.folder.best(), &generator, &self.made(iteration))?;
        }
        let scores = &self.record.scores;
        let since = scores.iter().filter(|s| Some(s.iteration) > self.record.best).count();
        let (chunk, patience) = (self.chunk, self.work.run().patience);
        if iteration >= self.length {
            return Ok(());
        }
        let collapsed = scores.len() >= MOST_COLLAPSED
            && scores[scores.len() - MOST_COLLAPSED..].iter().all(|scored| scored.collapsed);
        let reason = if collapsed {
            format!("the last {MOST_COLLAPSED} scores found a collapsed model")
        } else if patience.is_some_and(|n| self.record.best.is_some() && since >= n as usize) {
            format!("{since} scores without a better one")
        } else {
            return Ok(());
        };
        self.record.ended = true;
        let event = format!("chunk {chunk}: ended at iteration {iteration}: {reason}");
        self.record.events.push(event);
        Ok(())
    }

    /// The best generator: by its score, or else as it is now.
    fn best(&self) -> Result<(GeneratorWeights, Made), UnitError> {
        if let Some(iteration) = self.record.best {
            let (generator, _) = generators::read(&self.folder.best())?;
            return Ok((generator, self.made(iteration)));
        }
        let made = self.made(self.trainer.iterations());
        Ok((self.trainer.generator_weights()?, made))
    }

    fn made(&self, iteration: u64) -> Made {
        Made {
            iterations: self.trainer.iterations(),
            iteration,
            scores: self.record.scores.clone(),
            events: self.record.events.clone(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.before + self.begin.elapsed()
    }

    /// Writes a line of the curve.
    fn point(&mut self, losses: Losses, chunks: usize) -> Result<(), UnitError> {
        let iteration = self.trainer.iterations();
        // JSON has no word for what is no number.
        let norm = |norm: f32| if norm.is_finite() { norm } else { f32::MAX };
        let [generator_gradient, critic_gradient] = self.trainer.gradient_norms()?.map(norm);
        let [unique, unique_real] = self.trainer.unique_attributes()?;
        let point = Point {
            iteration,
            iterations: self.length,
            chunk: self.chunk,
            chunks,
            epochs: iteration as f64 / self.per_epoch as f64,
            elapsed_s: self.elapsed().as_secs_f64(),
            samples_per_s: 0.0,
            rate: self.trainer.rate(),
            adversarial: Some(Adversarial {
                critic: losses.critic,
                attribute_critic: losses.attribute_critic,
                generator: losses.generator,
                gradient_penalty: losses.gradient_penalty,
                attribute_gradient_penalty: losses.attribute_gradient_penalty,
                gap: losses.gap,
                generator_gradient,
                critic_gradient,
                unique,
                unique_real,
            }),
            likelihood: None,
        };
        Ok(self.curve.write(point)?)
    }
}
