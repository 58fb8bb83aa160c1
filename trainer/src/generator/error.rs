//! What can go wrong between a configuration and a synthetic trace.

use std::path::PathBuf;

use ns_model_format::BundleError;
use ns_runtime::RuntimeError;

use crate::config::ConfigError;
use crate::evaluate::EvaluateError;
use crate::fit::FitError;
use crate::generate::GenerateError;
use crate::ingest::IngestError;
use crate::init::InitError;
use crate::units::UnitError;
use crate::work::WorkError;

/// Why there is no model, or no synthetic trace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GeneratorError {
    /// Nothing to learn from.
    #[error("no input: give `--input FILE`{}", or_name_it_in(config))]
    NoInput {
        /// The configuration, which names none.
        config: Option<PathBuf>,
    },
    /// A configuration of a table for a capture.
    #[error(
        "{input} is a capture, but `{}` describes a CSV: its `dataset_type` is not `pcap`",
        config.display()
    )]
    IsACapture {
        /// The inputs.
        input: String,
        /// The configuration.
        config: PathBuf,
    },
    /// The configuration cannot be read.
    #[error(transparent)]
    Read(ConfigError),
    /// The configuration asks for what cannot be.
    #[error("configuration `{}`", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What cannot be.
        source: ConfigError,
    },
    /// No configuration can be made for the input.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The input cannot be read.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The device to train on cannot be opened.
    #[error("{reason}")]
    Device {
        /// Why not, and what to do.
        reason: String,
    },
    /// The input, or its encoding.
    #[error(transparent)]
    Fit(Box<FitError>),
    /// A unit of work: training, and what follows it.
    #[error(transparent)]
    Unit(Box<UnitError>),
    /// There is no training to go on with.
    #[error("`{}` holds no training to go on with; `--overwrite` begins anew", work.display())]
    NothingToResume {
        /// The work folder.
        work: PathBuf,
    },
    /// Training was stopped before there was a model.
    #[error("`{}` was stopped before there was a model; `--resume` goes on with it", work.display())]
    NoModelYet {
        /// The work folder.
        work: PathBuf,
    },
    /// A trace was begun in parts, with another model, seed, length or number of parts.
    #[error(
        "`{}` has parts of another trace; generate that one to its end, or begin anew with \
         `--overwrite`",
        folder.display()
    )]
    OtherParts {
        /// Where they are.
        folder: PathBuf,
    },
    /// What a training was begun with is not what it is to go on with.
    #[error(
        "`{}` was trained otherwise so far: {}; undo that, or begin anew with `--overwrite`",
        work.display(), changed.join(", ")
    )]
    Changed {
        /// The work folder.
        work: PathBuf,
        /// What has changed, by name.
        changed: Vec<String>,
    },
    /// The work folder.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The bundle cannot be written.
    #[error(transparent)]
    Bundle(BundleError),
    /// The folder's bundle cannot be used.
    #[error("cannot use bundle `{}`", path.display())]
    Model {
        /// The bundle.
        path: PathBuf,
        /// What is wrong with it.
        source: BundleError,
    },
    /// Generation.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Nothing was generated yet.
    #[error("`{0}` has no synthetic trace; `ns-train generate --work {0}` makes one", work.display())]
    NoSynthetic {
        /// The work folder.
        work: PathBuf,
    },
    /// The synthetic trace cannot be compared with a real one.
    #[error(transparent)]
    Evaluate(#[from] Box<EvaluateError>),
}

fn or_name_it_in(config: &Option<PathBuf>) -> String {
    let name = |path: &PathBuf| format!(", or `original_data_file` in `{}`", path.display());
    config.as_ref().map(name).unwrap_or_default()
}

impl GeneratorError {
    /// What the reader can do about it, where the error itself does not say.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            GeneratorError::Generate(GenerateError::Runtime(error)) => error.hint(),
            _ => None,
        }
    }
}

impl From<FitError> for GeneratorError {
    fn from(error: FitError) -> GeneratorError {
        GeneratorError::Fit(Box::new(error))
    }
}

impl From<UnitError> for GeneratorError {
    fn from(error: UnitError) -> GeneratorError {
        GeneratorError::Unit(Box::new(error))
    }
}

impl From<RuntimeError> for GeneratorError {
    fn from(error: RuntimeError) -> GeneratorError {
        GenerateError::from(error).into()
    }
}
