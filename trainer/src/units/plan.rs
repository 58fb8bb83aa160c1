//! Which units of work a run consists of, and what each needs and makes.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::UnitError;
use super::prepared::Facts;
use crate::autoregressive::fit;
use crate::config::{Cell, Resolved, TrainingLength};
use crate::work::{GENERATION, UNITS, WorkError, WorkFolder, write_json};

const PLAN: &str = "plan.json";
/// What units of generation are called, before a slash.
const GENERATE: &str = "generate";
const VERSION: u32 = 1;
const MOST_CHUNKS: usize = 10_000;

/// A run as units of work: `units/plan.json` for training, `generation/plan.json` for
/// generation in parts. Files are named from the work folder.
///
/// A unit can run once all its inputs exist, and has run when all its outputs do.
/// Nothing else orders them, so any scheduler can run them, on any machine that sees
/// the folder: `ns-train unit --work DIR NAME`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// The version of this file, 1.
    pub version: u32,
    /// The models that are trained: of a grid several, of which one is chosen.
    pub cells: Vec<PlannedCell>,
    /// Chunks of the span.
    pub chunks: usize,
    /// What is generated, if this is a plan of generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<PlannedTrace>,
    /// The units, each after those that make its inputs.
    pub units: Vec<Unit>,
}

/// A trace that is generated in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedTrace {
    /// Of the model's file: parts of one trace come from one model.
    pub model_sha256: String,
    /// The run's seed.
    pub seed: u64,
    /// So many flows; without it, those of one trained span.
    pub flows: Option<u64>,
    /// Parts, each with every so-many-th flow.
    pub parts: u64,
}

/// A model of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedCell {
    /// Its name, and that of its folder in `units`.
    pub name: String,
    /// Its configuration as resolved.
    pub config: serde_json::Value,
}

/// A unit of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(flatten)]
    pub task: Task,
    /// The files that it needs.
    pub inputs: Vec<PathBuf>,
    /// The files that it makes.
    pub outputs: Vec<PathBuf>,
    /// Iterations of training in it.
    pub iterations: u64,
}

/// What a unit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Trains the networks of a chunk.
    Train {
        /// The model, by its place in [`Plan::cells`].
        cell: usize,
        /// The chunk.
        chunk: usize,
    },
    /// Puts the networks of all chunks into a bundle.
    Bundle {
        /// The model.
        cell: usize,
    },
    /// Judges a bundle by the flows that were held out.
    Score {
        /// The model.
        cell: usize,
    },
    /// Chooses the bundle that is the result. Models whose training failed are left out.
    Choose,
    /// Generates a part of a trace.
    Generate {
        /// The part.
        part: u64,
    },
    /// Merges the parts into the trace.
    Merge,
}

/// How a unit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its outputs are there.
    Done,
    /// It was tried and cannot be done.
    Failed,
    /// Its inputs are there.
    Ready,
    /// Its inputs are not there yet.
    Waiting,
    /// Its inputs will never be there, because what makes them failed.
    Lost,
}

impl Plan {
    /// The plan of a prepared input.
    pub(crate) fn new(cells: &[Cell], facts: &Facts) -> Plan {
        let chunks = facts.samples.len();
        let name = |index: usize| cells[index].name.as_str();
        let prepared = Path::new("units/prepared");
        let (facts_file, samples) =
            (prepared.join(Facts::FILE), |chunk| Facts::samples_file(chunk));
        let of_chunk = |cell: usize, chunk: usize, file: &str| {
            Path::new("units").join(name(cell)).join(format!("chunk-{chunk}")).join(file)
        };
        let of_cell = |cell: usize, file: &str| Path::new("units").join(name(cell)).join(file);
        let mut units = Vec::new();
        for (cell, planned) in cells.iter().enumerate() {
            let config = &planned.config;
            for chunk in 0..chunks {
                let mut inputs = vec![facts_file.clone(), prepared.join(samples(chunk))];
                if chunk > 0 && config.chunks.reduce_time.is_some() {
                    inputs.extend([TRAINED, GENERATOR].map(|file| of_chunk(cell, 0, file)));
                }
                units.push(Unit {
                    name: format!("{}/chunk-{chunk}", name(cell)),
                    task: Task::Train { cell, chunk },
                    inputs,
                    outputs: [TRAINED, GENERATOR].map(|file| of_chunk(cell, chunk, file)).to_vec(),
                    iterations: match (&config.autoregressive, facts.batches) {
                        (Some(config), Some(batches)) => fit::steps(batches, config.epochs),
                        _ => length(config, facts.samples[chunk], chunk),
                    },
                });
            }
        }
        for cell in 0..cells.len() {
            let generators = (0..chunks).map(|chunk| of_chunk(cell, chunk, GENERATOR));
            units.push(Unit {
                name: format!("{}/bundle", name(cell)),
                task: Task::Bundle { cell },
                inputs: std::iter::once(facts_file.clone()).chain(generators).collect(),
                outputs: vec![of_cell(cell, MODEL)],
                iterations: 0,
            });
            if let Some(held_out) = &facts.held_out {
                units.push(Unit {
                    name: format!("{}/score", name(cell)),
                    task: Task::Score { cell },
                    inputs: vec![of_cell(cell, MODEL), prepared.join(&held_out.file)],
                    outputs: vec![of_cell(cell, SCORE)],
                    iterations: 0,
                });
            }
        }
        let scored = facts.held_out.is_some();
        let results = (0..cells.len()).flat_map(|cell| {
            let score = scored.then(|| of_cell(cell, SCORE));
            std::iter::once(of_cell(cell, MODEL)).chain(score)
        });
        units.push(Unit {
            name: "choose".to_owned(),
            task: Task::Choose,
            inputs: results.collect(),
            outputs: vec![CHOSEN.into()],
            iterations: 0,
        });
        let cells = cells.iter().map(|cell| PlannedCell {
            name: cell.name.clone(),
            // A Resolved is plain data with string keys: it always serializes.
            config: serde_json::to_value(&cell.config).unwrap_or_default(),
        });
        Plan { version: VERSION, cells: cells.collect(), chunks, trace: None, units }
    }

    /// The plan of a trace in parts. Where flows span chunks, every part carries its
    /// flows through all of them, so parts need nothing of one another.
    pub(crate) fn of_trace(work: &WorkFolder, trace: PlannedTrace) -> Plan {
        let folder = Path::new(GENERATION);
        let inside = |path: &Path| path.strip_prefix(work.path()).unwrap_or(path).to_owned();
        let part = |part: u64| folder.join(format!("part-{part}"));
        let generate = |number: u64| Unit {
            name: format!("{GENERATE}/part-{number}"),
            task: Task::Generate { part: number },
            inputs: vec![inside(&work.model())],
            outputs: vec![part(number)],
            iterations: 0,
        };
        let merge = Unit {
            name: format!("{GENERATE}/merge"),
            task: Task::Merge,
            inputs: (0..trace.parts).map(part).collect(),
            outputs: vec![folder.join(inside(&work.synthetic()))],
            iterations: 0,
        };
        let units = (0..trace.parts).map(generate).chain([merge]).collect();
        Plan { version: VERSION, cells: Vec::new(), chunks: 0, trace: Some(trace), units }
    }

    /// Whether a folder has a plan: whether training into it was begun.
    #[must_use]
    pub fn exists(work: &WorkFolder) -> bool {
        work.units().join(PLAN).exists()
    }

    /// Whether generation in parts was begun in a folder and is not done.
    #[must_use]
    pub fn generation_exists(work: &WorkFolder) -> bool {
        work.generation().join(PLAN).exists()
    }

    /// Writes the plan of a folder.
    pub(crate) fn write(&self, work: &WorkFolder) -> Result<(), WorkError> {
        let folder = if self.trace.is_some() { work.generation() } else { work.units() };
        write_json(&folder.join(PLAN), self)
    }

    /// Reads the plan of a folder's training.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn read(work: &WorkFolder) -> Result<Plan, WorkError> {
        Plan::read_file(work.units().join(PLAN))
    }

    /// Reads the plan of a folder's generation in parts.
    ///
    /// # Errors
    /// As [`Plan::read`].
    pub fn read_generation(work: &WorkFolder) -> Result<Plan, WorkError> {
        Plan::read_file(work.generation().join(PLAN))
    }

    /// Reads the plan that a unit of this name would be in.
    ///
    /// # Errors
    /// As [`Plan::read`].
    pub fn read_with(work: &WorkFolder, unit: &str) -> Result<Plan, WorkError> {
        let generation = unit.split('/').next() == Some(GENERATE) && Plan::generation_exists(work);
        if generation { Plan::read_generation(work) } else { Plan::read(work) }
    }

    fn read_file(path: PathBuf) -> Result<Plan, WorkError> {
        let text = std::fs::read_to_string(&path)
            .map_err(|source| WorkError::Read { path: path.clone(), source })?;
        let damaged = |reason: String| WorkError::Damaged { path: path.clone(), reason };
        let plan: Plan = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        let fits = |unit: &Unit| match unit.task {
            Task::Train { cell, chunk } => cell < plan.cells.len() && chunk < plan.chunks,
            Task::Bundle { cell } | Task::Score { cell } => cell < plan.cells.len(),
            Task::Choose => plan.trace.is_none(),
            Task::Generate { part } => plan.trace.as_ref().is_some_and(|t| part < t.parts),
            Task::Merge => plan.trace.is_some(),
        };
        if let Some(unit) = plan.units.iter().find(|unit| !fits(unit)) {
            return Err(damaged(format!("`{}` is of something that is not in it", unit.name)));
        }
        let known = plan.version == VERSION && plan.chunks <= MOST_CHUNKS;
        if !known || plan.cells.is_empty() != plan.trace.is_some() {
            return Err(damaged("it is of another version, or of no model".to_owned()));
        }
        let mut made: HashSet<&Path> = HashSet::new();
        let all: HashSet<&Path> =
            plan.units.iter().flat_map(|unit| &unit.outputs).map(PathBuf::as_path).collect();
        for unit in &plan.units {
            let before =
                |path: &&PathBuf| all.contains(path.as_path()) && !made.contains(path.as_path());
            if let Some(path) = unit.inputs.iter().find(before) {
                let (unit, path) = (&unit.name, path.display());
                return Err(damaged(format!("`{unit}` stands before what makes its `{path}`")));
            }
            made.extend(unit.outputs.iter().map(PathBuf::as_path));
        }
        // A plan may come from elsewhere; what it names stays inside its folder.
        let root = if plan.trace.is_some() { GENERATION } else { UNITS };
        let inside = |path: &Path| {
            path.starts_with(root)
                && path.components().all(|part| matches!(part, Component::Normal(_)))
        };
        // A bundle that training put elsewhere is read, where the folder says it is.
        let paths = plan.units.iter().flat_map(|unit| {
            let inputs = unit.inputs.iter().filter(|_| !matches!(unit.task, Task::Generate { .. }));
            inputs.chain(&unit.outputs)
        });
        let cells = plan.cells.iter().map(|cell| Path::new("units").join(&cell.name));
        match paths.cloned().chain(cells).find(|path| !inside(path)) {
            Some(path) => Err(damaged(format!("`{}` is not inside `{root}`", path.display()))),
            None => Ok(plan),
        }
    }

    /// The unit of a name.
    ///
    /// # Errors
    /// There is none; the names that there are.
    pub fn unit(&self, name: &str) -> Result<&Unit, UnitError> {
        self.units.iter().find(|unit| unit.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.units.iter().map(|unit| unit.name.as_str()).collect();
            UnitError::NoUnit { name: name.to_owned(), known: names.join("`, `") }
        })
    }

    /// How a unit stands, by the files that are there.
    #[must_use]
    pub fn standing(&self, work: &WorkFolder, unit: &Unit) -> Standing {
        let exists = |path: &PathBuf| work.path().join(path).exists();
        if unit.outputs.iter().all(exists) {
            return Standing::Done;
        }
        if work.path().join(unit.failure()).exists() {
            return Standing::Failed;
        }
        let mut standing = Standing::Ready;
        for missing in unit.inputs.iter().filter(|path| !exists(path)) {
            let maker = self.units.iter().find(|unit| unit.outputs.contains(missing));
            let never = maker.is_some_and(|maker| {
                matches!(self.standing(work, maker), Standing::Failed | Standing::Lost)
            });
            match (never, unit.task) {
                // It chooses among those that are there.
                (true, Task::Choose) => {}
                (true, _) => return Standing::Lost,
                (false, _) => standing = Standing::Waiting,
            }
        }
        standing
    }
}

impl Unit {
    /// Where it is said why it failed.
    pub(crate) fn failure(&self) -> PathBuf {
        self.beside("failed")
    }

    /// Its lock, held while it is done.
    pub(crate) fn lock(&self) -> PathBuf {
        self.beside("lock")
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let output = self.outputs.first().map_or(Path::new(""), PathBuf::as_path);
        match self.task {
            Task::Choose => Path::new(UNITS).join("choose").with_extension(extension),
            _ => output.with_extension(extension),
        }
    }
}

/// What training leaves for others to start from.
pub(super) const TRAINED: &str = "trained.safetensors";
/// The generator that it is for.
pub(super) const GENERATOR: &str = "generator.safetensors";
/// A model of a grid.
pub(super) const MODEL: &str = "model.ns";
/// How good it is.
pub(super) const SCORE: &str = "score.json";
/// Which model is the result of the run; it is written after the bundle.
pub(super) const CHOSEN: &str = "units/chosen.json";

/// Iterations of a chunk.
fn length(config: &Resolved, samples: u64, chunk: usize) -> u64 {
    if chunk == 0 && config.skip_chunk0_train {
        return 0;
    }
    let whole = match config.length {
        TrainingLength::Epochs(epochs) => {
            epochs.saturating_mul((samples / config.model.batch_size as u64).max(1))
        }
        TrainingLength::Iterations(iterations) => iterations,
    };
    match config.chunks.reduce_time {
        Some(times) if chunk > 0 => (whole as f64 / times).ceil() as u64,
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::OnError;
    use crate::work::Run;

    #[test]
    fn a_plan_stays_inside_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::for_tests(Vec::new(), OnError::Stop);
        let work = WorkFolder::create(
            &folder.path().join("work"),
            false,
            run,
            crate::config::DEFAULT_PCAP,
        )
        .unwrap();
        std::fs::create_dir(work.units()).unwrap();
        let unit = |cell: usize, output: &str| Unit {
            name: "a".to_owned(),
            task: Task::Bundle { cell },
            inputs: vec!["units/prepared/x".into()],
            outputs: vec![output.into()],
            iterations: 0,
        };
        let plan = |name: &str, unit: Unit| {
            let cells =
                vec![PlannedCell { name: name.to_owned(), config: serde_json::Value::Null }];
            Plan { version: 1, cells, chunks: 1, trace: None, units: vec![unit] }
        };
        let good = plan("model", unit(0, "units/model/model.ns"));
        good.write(&work).unwrap();
        assert_eq!(Plan::read(&work).unwrap(), good);
        assert_eq!(good.standing(&work, &good.units[0]), Standing::Waiting);
        for (bad, expected) in [
            (plan("..", unit(0, "units/x")), "`units/..` is not inside"),
            (plan("/tmp", unit(0, "units/x")), "`/tmp` is not inside"),
            (plan("a", unit(0, "units/../../x")), "`units/../../x` is not inside"),
            (plan("a", unit(0, "/etc/x")), "`/etc/x` is not inside"),
            (plan("a", unit(1, "units/x")), "something that is not in it"),
        ] {
            bad.write(&work).unwrap();
            let error = Plan::read(&work).unwrap_err().to_string();
            assert!(error.contains("is damaged") && error.contains(expected), "{error}");
        }
    }
}
