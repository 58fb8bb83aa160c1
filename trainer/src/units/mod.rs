//! A run as units of work: what trains, what puts together, what judges, what chooses.
//!
//! Units share nothing but files, which are written whole or not at all. A [`Plan`]
//! names them with the files that each needs and makes; [`run_unit`] does one;
//! an [`Executor`] does all, in an order of its choice. What is done is not done
//! again, so a run that was killed goes on from its files, and what comes out is
//! the same whoever ran which unit where.

mod autoregressive;
mod executor;
mod finish;
mod generate;
mod generators;
mod plan;
mod prepared;
mod score;
pub mod status;
mod train;

pub use executor::{Executor, Happened, Local, Progress};
pub(crate) use finish::{clean, so_far};
pub(crate) use generate::model_sha256;
pub use plan::{Plan, PlannedCell, PlannedTrace, Standing, Task, Unit};
pub(crate) use prepared::{Facts, HeldOut};
pub use train::Trained;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::Device;
use ns_model_format::BundleError;
use ns_runtime::sink::MergeError;

use crate::evaluate::EvaluateError;
use crate::files::write_whole;
use crate::fit::FitError;
use crate::generate::{GenerateError, Generating};
use crate::train::TrainError;
use crate::work::{WorkError, WorkFolder};

/// Why a unit of work cannot be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// No such unit.
    #[error("no unit `{name}` in the plan; it has `{known}`")]
    NoUnit {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// What it needs is not there.
    #[error("`{unit}` needs `{}`, which is not there yet", missing.display())]
    NotReady {
        /// The unit.
        unit: String,
        /// The first input that is missing.
        missing: PathBuf,
    },
    /// Somebody else does it.
    #[error("`{unit}` is being done by another process")]
    Locked {
        /// The unit.
        unit: String,
    },
    /// A checkpoint that another training wrote.
    #[error(
        "`{}` is of another training: configuration, input or seed have changed since", path.display()
    )]
    OtherTraining {
        /// The checkpoint.
        path: PathBuf,
    },
    /// `pretrain_dir` does not lead to one model.
    #[error("`pretrain_dir` `{}`: {reason}", path.display())]
    Pretrained {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing can be chosen.
    #[error("no model was trained to its end{}", causes(failures))]
    NoModel {
        /// Why not: unit and reason.
        failures: Vec<(String, String)>,
    },
    /// Training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A file of the work folder.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Generation of what is judged.
    #[error("cannot generate flows to judge the model by")]
    Generate(#[source] Box<GenerateError>),
    /// A part of a trace.
    #[error(transparent)]
    Part(#[from] Box<GenerateError>),
    /// The parts of a trace as one.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// Parts that were begun from another model.
    #[error(
        "the model has changed since generation in parts was begun; begin it anew with --overwrite"
    )]
    OtherModel,
    /// Judging.
    #[error("cannot judge the model by the flows held out")]
    Evaluate(#[source] Box<EvaluateError>),
    /// The flows held out.
    #[error("cannot hold out flows: {reason}")]
    HoldOut {
        /// Why not.
        reason: String,
    },
    /// The input or its encoding.
    #[error(transparent)]
    Fit(#[from] Box<FitError>),
}

fn causes(failures: &[(String, String)]) -> String {
    failures.iter().map(|(unit, reason)| format!("; `{unit}`: {reason}")).collect()
}

impl UnitError {
    /// Whether an output could not be written.
    #[must_use]
    pub fn is_output(&self) -> bool {
        matches!(
            self,
            UnitError::Work(WorkError::Write { .. })
                | UnitError::Bundle(BundleError::Io { .. })
                | UnitError::Merge(MergeError::Sink(_))
        ) || matches!(self, UnitError::Part(error) if matches!(**error, GenerateError::Sink(_)))
    }

    /// Whether training failed: other units of the run may still be done.
    #[must_use]
    pub fn is_training(&self) -> bool {
        matches!(self, UnitError::Train(_) | UnitError::NoModel { .. })
    }
}

/// What a unit may use, and when it should end.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// Where to train.
    pub device: &'a Device,
    /// Threads on the CPU; the result does not depend on it.
    pub threads: usize,
    /// Time to train for, what was trained before included.
    pub time: Option<Duration>,
    /// The ONNX Runtime library, where it is not in one of the usual places.
    pub onnxruntime: Option<&'a Path>,
}

/// What a unit has just done.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Step {
    /// An iteration of training.
    Trained(Trained),
    /// Records generated, or merged: how many so far.
    Generated(Generating),
}

/// Told of every step; says whether to go on.
pub type Watch<'a> = dyn FnMut(&Step) -> bool + 'a;

/// How a unit, or a run of them, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its outputs are there; of a run, of all units whose training did not fail.
    Done,
    /// It was stopped; what it had done is kept, and it can go on.
    Stopped,
}

/// Does a unit whose inputs are there.
///
/// # Errors
/// They are not, or it cannot be done: then why is also told in the folder.
pub fn run_unit(
    work: &WorkFolder,
    plan: &Plan,
    unit: &Unit,
    means: Means<'_>,
    watch: &mut Watch<'_>,
) -> Result<Ended, UnitError> {
    let failure = work.path().join(unit.failure());
    // What failed once may do better now: a disk has room again, a file was put back.
    let _ = std::fs::remove_file(&failure);
    match plan.standing(work, unit) {
        Standing::Done => return Ok(Ended::Done),
        Standing::Waiting | Standing::Lost => {
            let missing = unit.inputs.iter().find(|path| !work.path().join(path).exists());
            let (unit, missing) = (unit.name.clone(), missing.cloned().unwrap_or_default());
            return Err(UnitError::NotReady { unit, missing });
        }
        Standing::Ready | Standing::Failed => {}
    }
    let lock = lock(work, unit)?;
    // Whoever had it may have done the unit, and then the file that is locked has no name.
    if plan.standing(work, unit) == Standing::Done {
        return Ok(Ended::Done);
    }
    let ended = crate::train::on_threads(means.threads, || match unit.task {
        Task::Train { cell, chunk } => train::run(work, plan, unit, (cell, chunk), means, watch),
        Task::Bundle { cell } => finish::bundle(work, plan, cell).map(|()| Ended::Done),
        Task::Score { cell } => finish::score(work, plan, cell).map(|()| Ended::Done),
        Task::Choose => finish::choose(work, plan).map(|()| {
            finish::clean(work, plan);
            Ended::Done
        }),
        Task::Generate { part } => generate::part(work, plan, unit, part, means, watch),
        Task::Merge => generate::merge(work, unit, watch),
    });
    if matches!(ended, Ok(Ended::Done)) {
        let _ = std::fs::remove_file(work.path().join(unit.lock()));
    }
    drop(lock);
    if let Err(error) = &ended
        && error.is_training()
    {
        let _ = write_whole(&failure, format!("{error}\n").as_bytes());
    }
    ended
}

/// Keeps other processes from a unit as long as the file is open.
fn lock(work: &WorkFolder, unit: &Unit) -> Result<File, UnitError> {
    // Who only looks how it stands holds the lock for an instant.
    const WAIT: Duration = Duration::from_secs(2);
    let path = work.path().join(unit.lock());
    let fail = |source| WorkError::Write { path: path.clone(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    let lock = File::create(&path).map_err(fail)?;
    let deadline = Instant::now() + WAIT;
    while lock.try_lock().is_err() {
        if Instant::now() >= deadline {
            return Err(UnitError::Locked { unit: unit.name.clone() });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(lock)
}
