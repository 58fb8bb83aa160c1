//! A run as units of work: what trains, what puts together, what judges, what chooses.
//!
//! Units share nothing but files, which are written whole or not at all. A [`Plan`]
//! names them with the files that each needs and makes; [`run_unit`] does one;
//! an [`Executor`] does all, in an order of its choice. What is done is not done
//! again, so a run that was killed goes on from its files, and what comes out is
//! the same whoever ran which unit where.

mod executor;
mod finish;
mod generators;
mod plan;
mod prepared;
mod score;
pub mod status;
mod train;

pub use executor::{Executor, Local, Progress};
pub(crate) use finish::{clean, so_far};
pub use plan::{Plan, PlannedCell, Standing, Task, Unit};
pub(crate) use prepared::{Facts, HeldOut};
pub use train::{Step, Watch};

use std::path::PathBuf;
use std::time::Duration;

use candle_core::Device;
use ns_model_format::BundleError;

use crate::evaluate::EvaluateError;
use crate::files::write_whole;
use crate::fit::FitError;
use crate::generate::GenerateError;
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
            UnitError::Work(WorkError::Write { .. }) | UnitError::Bundle(BundleError::Io { .. })
        )
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
}

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
    let ended = crate::train::on_threads(means.threads, || match unit.task {
        Task::Train { cell, chunk } => train::run(work, plan, unit, (cell, chunk), means, watch),
        Task::Bundle { cell } => finish::bundle(work, plan, cell).map(|()| Ended::Done),
        Task::Score { cell } => finish::score(work, plan, cell).map(|()| Ended::Done),
        Task::Choose => finish::choose(work, plan).map(|()| {
            finish::clean(work, plan);
            Ended::Done
        }),
    });
    if let Err(error) = &ended
        && error.is_training()
    {
        let _ = write_whole(&failure, format!("{error}\n").as_bytes());
    }
    ended
}
