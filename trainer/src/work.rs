//! A work folder: what was trained, from what, and what was made with it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ns_model_format::schema::TraceKind;
use serde::{Deserialize, Serialize};

use crate::autoregressive::ModelClass;
use crate::config::{self, Cell, ConfigError, Resolved};
use crate::files::{is_one_of, write_whole};
use crate::ingest::{OnError, Reading, files};

const RUN: &str = "run.json";
const CONFIG: &str = "config.json";
const METRICS: &str = "metrics.jsonl";
const MODEL: &str = "model.ns";
const SYNTHETIC: [&str; 2] = ["synthetic.pcap", "synthetic.csv"];
/// What a generation that was killed leaves.
const UNFINISHED: [&str; 2] = ["synthetic.pcap.part", "synthetic.csv.part"];
const EVALUATION: &str = "evaluation.json";
const REPORT: &str = "report.html";
const PLOTS: &str = "plots";
pub(crate) const UNITS: &str = "units";
/// The parts of a trace, while it is generated in parts.
pub(crate) const GENERATION: &str = "generation";
/// What is a folder.
const FOLDERS: [&str; 3] = [PLOTS, UNITS, GENERATION];

/// How often a checkpoint is written if nothing else is said, in seconds.
pub(crate) const CHECKPOINT_S: f64 = 60.0;
/// How many are kept.
pub(crate) const KEEP_CHECKPOINTS: u32 = 2;

fn checkpoint_s() -> f64 {
    CHECKPOINT_S
}

fn keep_checkpoints() -> u32 {
    KEEP_CHECKPOINTS
}

/// The newest version of `run.json` that this program knows.
const VERSION: u32 = 2;

/// Why a work folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// It, or a file in it, is there already.
    #[error(
        "`{}` exists; to write over it give `--overwrite`, or `\"overwrite\": true` in the \
         configuration's `global_config`",
        path.display()
    )]
    Exists {
        /// The folder, or the file.
        path: PathBuf,
    },
    /// A file where the folder should be.
    #[error("`{}` is a file; expected a folder", path.display())]
    NotAFolder {
        /// It.
        path: PathBuf,
    },
    /// Not made by us, and it holds a file whose name is ours.
    #[error(
        "`{}` is no work folder and has a `{name}` of its own, which is not written over; give \
         another folder",
        path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// The name.
        name: &'static str,
    },
    /// The bundle was to be where another file of the folder is.
    #[error("`{}` is not for the bundle; give it another name", path.display())]
    Reserved {
        /// The file.
        path: PathBuf,
    },
    /// An input would be written over, or be among what is written.
    #[error("`{}` is an input; give another work folder", path.display())]
    Input {
        /// The file or folder.
        path: PathBuf,
    },
    /// Nothing was trained there.
    #[error(
        "`{}` is no work folder (`ns-train train --work {0}` makes one): cannot read `{RUN}` in it",
        path.display()
    )]
    NotAWorkFolder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// `run.json` of a newer program.
    #[error(
        "`{}` has version {found}, and versions up to {VERSION} are known; use a newer ns-train",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Not what we wrote.
    #[error("`{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration in it.
    #[error("configuration `{}`", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// A file in it cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It, or a file in it, cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The folder, or the file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// What a model was made from: `run.json`. Beside the configuration it is all
/// that is needed to do so again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Run {
    /// The version of this file, 2.
    pub version: u32,
    /// The program and its version.
    pub trainer: String,
    /// What a record is.
    pub kind: TraceKind,
    /// The inputs as they were named, files and folders, as absolute paths.
    pub inputs: Vec<PathBuf>,
    /// Their SHA-256: [`crate::ingest::files::joined_digest`].
    pub input_sha256: String,
    /// The folder that paths in the configuration start from, if it was a file.
    pub config_folder: Option<PathBuf>,
    /// Seed of all chance.
    pub seed: u64,
    /// Records to learn from at most.
    pub max_records: u32,
    /// What was done with damage.
    pub on_error: OnError,
    /// The networks, if not those of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelClass>,
    /// Passes over the flows, if not those of the configuration.
    pub epochs: Option<u64>,
    /// The limit to the time of training, in seconds.
    pub max_seconds: Option<f64>,
    /// The bundle, if it is not in the folder.
    pub bundle: Option<PathBuf>,
    /// Of a million flows, so many are held out to judge the model by.
    #[serde(default)]
    pub held_out: u32,
    /// Scores without a better one after which training ends.
    #[serde(default)]
    pub patience: Option<u32>,
    /// Seconds from one checkpoint to the next.
    #[serde(default = "checkpoint_s")]
    pub checkpoint_s: f64,
    /// Checkpoints that are kept while training goes on.
    #[serde(default = "keep_checkpoints")]
    pub keep_checkpoints: u32,
}

impl Run {
    /// How the inputs were read, but for what was held out of them.
    #[must_use]
    pub fn reading(&self) -> Reading {
        let Run { on_error, max_records, seed, .. } = *self;
        Reading { on_error, max_records, seed, held_out: 0 }
    }

    /// Any run.
    #[cfg(test)]
    pub(crate) fn for_tests(inputs: Vec<PathBuf>, on_error: OnError) -> Run {
        let (version, trainer) = Run::written_by();
        Run {
            version,
            trainer,
            kind: TraceKind::Packets,
            inputs,
            input_sha256: "ab".to_owned(),
            config_folder: Some("/somewhere".into()),
            seed: u64::MAX,
            max_records: 1000,
            on_error,
            model: None,
            epochs: Some(3),
            max_seconds: Some(0.1),
            bundle: None,
            held_out: 100_000,
            patience: None,
            checkpoint_s: CHECKPOINT_S,
            keep_checkpoints: KEEP_CHECKPOINTS,
        }
    }

    /// The version that is written, and by whom.
    pub(crate) fn written_by() -> (u32, String) {
        (VERSION, concat!("ns-train ", env!("CARGO_PKG_VERSION")).to_owned())
    }

    /// Reads the file of a folder.
    fn read(folder: &Path) -> Result<Run, WorkError> {
        let path = folder.join(RUN);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| WorkError::NotAWorkFolder { path: folder.to_owned(), source })?;
        let damaged = |error: serde_json::Error| {
            let (path, reason) = (path.clone(), error.to_string());
            WorkError::Damaged { path, reason }
        };
        /// What every version has.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(&text).map_err(damaged)?;
        if version > VERSION {
            return Err(WorkError::Newer { path, found: version });
        }
        serde_json::from_str(&text).map_err(damaged)
    }
}

/// A folder that holds a [`Run`], and the names of all that belongs to it.
#[derive(Clone, Debug)]
pub struct WorkFolder {
    path: PathBuf,
    run: Run,
}

impl WorkFolder {
    /// Whether a folder can be made, or written over if `overwrite` allows that.
    /// Nothing is changed.
    ///
    /// # Errors
    /// It exists and is not empty; with `overwrite`, it is not ours and has a
    /// file with one of our names, or an input is in the way.
    pub fn check(path: &Path, overwrite: bool, inputs: &[PathBuf]) -> Result<(), WorkError> {
        let read = |source| WorkError::Read { path: path.to_owned(), source };
        let mut entries = match std::fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return Err(WorkError::NotAFolder { path: path.to_owned() });
            }
            entries => entries.map_err(read)?,
        };
        if entries.next().is_none() {
            return Ok(());
        }
        if !overwrite {
            return Err(WorkError::Exists { path: path.to_owned() });
        }
        // Inputs that cannot be listed cannot be read either, which says more.
        let read = [inputs, &files::list(inputs).unwrap_or_default()].concat();
        let ours = names().map(|name| path.join(name));
        let mut written = std::iter::once(path.to_owned()).chain(ours);
        if let Some(path) = written.find(|path| is_one_of(path, &read)) {
            return Err(WorkError::Input { path });
        }
        match Run::read(path) {
            Ok(_) => Ok(()),
            Err(WorkError::NotAWorkFolder { .. }) => {
                match names().find(|name| path.join(name).symlink_metadata().is_ok()) {
                    Some(name) => Err(WorkError::Foreign { path: path.to_owned(), name }),
                    None => Ok(()),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a folder for a run with its configuration's text, or writes over
    /// one if `overwrite` allows that: then what an earlier run left is removed,
    /// and any other file in it stays.
    ///
    /// # Errors
    /// As [`WorkFolder::check`]; it cannot be written.
    pub fn create(
        path: &Path,
        overwrite: bool,
        run: Run,
        config: &str,
    ) -> Result<WorkFolder, WorkError> {
        WorkFolder::check(path, overwrite, &run.inputs)?;
        let work = WorkFolder { path: path.to_owned(), run };
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| WorkError::Write { path, source }
        };
        std::fs::create_dir_all(path).map_err(fail(path))?;
        // The old `run.json` stays until the new one takes its place: without
        // one, the folder would not be ours.
        for name in names().filter(|&name| name != RUN && !FOLDERS.contains(&name)) {
            remove_file(&path.join(name)).map_err(fail(&path.join(name)))?;
        }
        work.remove_plots().map_err(fail(&work.plots()))?;
        work.remove_folder(UNITS)?;
        work.remove_folder(GENERATION)?;
        write_json(&work.path.join(RUN), &work.run)?;
        write_whole(&work.config(), config.as_bytes()).map_err(fail(&work.config()))?;
        Ok(work)
    }

    /// Whether a bundle in the folder, `inside` it, leaves the other files alone.
    pub(crate) fn check_bundle(inside: &Path, bundle: &Path) -> Result<(), WorkError> {
        match names().any(|name| name != MODEL && inside.starts_with(name)) {
            true => Err(WorkError::Reserved { path: bundle.to_owned() }),
            false => Ok(()),
        }
    }

    /// Opens a folder that was made before.
    ///
    /// # Errors
    /// It has no `run.json`, or one that is damaged or of a newer version.
    pub fn open(path: impl AsRef<Path>) -> Result<WorkFolder, WorkError> {
        let path = path.as_ref().to_owned();
        let run = Run::read(&path)?;
        Ok(WorkFolder { path, run })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its model was made from.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The configuration as it was used: the text as the user wrote it.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// The training curve, see [`crate::curve`].
    #[must_use]
    pub fn metrics(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    /// The bundle, in the folder unless it was wanted elsewhere.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        self.run.bundle.clone().unwrap_or_else(|| self.path.join(MODEL))
    }

    /// Puts the bundle elsewhere.
    pub(crate) fn set_bundle(&mut self, bundle: PathBuf) {
        self.run.bundle = Some(bundle);
    }

    /// The synthetic trace: a PCAP, or a CSV where records are no packets.
    #[must_use]
    pub fn synthetic(&self) -> PathBuf {
        self.path.join(SYNTHETIC[usize::from(self.run.kind != TraceKind::Packets)])
    }

    /// What an evaluation of the synthetic trace found.
    #[must_use]
    pub fn evaluation(&self) -> PathBuf {
        self.path.join(EVALUATION)
    }

    /// The same as a page.
    #[must_use]
    pub fn report(&self) -> PathBuf {
        self.path.join(REPORT)
    }

    /// The folder of its pictures.
    #[must_use]
    pub fn plots(&self) -> PathBuf {
        self.path.join(PLOTS)
    }

    /// The folder of its units of work, see [`crate::units`].
    #[must_use]
    pub fn units(&self) -> PathBuf {
        self.path.join(UNITS)
    }

    /// The folder of a trace that is generated in parts, until it is whole.
    #[must_use]
    pub fn generation(&self) -> PathBuf {
        self.path.join(GENERATION)
    }

    /// The encoded input, while training is not done.
    pub(crate) fn prepared(&self) -> PathBuf {
        self.units().join("prepared")
    }

    /// The models of the configuration with every choice made, as the run used them:
    /// one, unless it is a grid.
    ///
    /// # Errors
    /// The file is gone, or was changed into one that cannot be used.
    pub fn configuration(&self) -> Result<Vec<Cell>, WorkError> {
        self.read_config().map(|(_, cells)| cells)
    }

    /// The configuration of one of its models.
    pub(crate) fn cell(&self, name: &str) -> Result<Resolved, WorkError> {
        let cells = self.configuration()?;
        let cell = cells.into_iter().find(|cell| cell.name == name);
        cell.map(|cell| cell.config).ok_or_else(|| WorkError::Damaged {
            path: self.config(),
            reason: format!("it asks for no model `{name}` any more"),
        })
    }

    /// The same, with its text.
    pub(crate) fn read_config(&self) -> Result<(String, Vec<Cell>), WorkError> {
        let path = self.config();
        let folder = self.run.config_folder.as_deref().unwrap_or(&self.path);
        let read = || {
            let text = config::read_text(&path)?;
            let mut cells = config::cells(&text, &path.display().to_string(), folder)?;
            if let Some(class) = self.run.model {
                cells.iter_mut().for_each(|cell| cell.config.set_class(class));
            }
            if let Some(epochs) = self.run.epochs {
                cells.iter_mut().for_each(|cell| cell.config.set_epochs(epochs));
            }
            Ok((text, cells))
        };
        read().map_err(|source| WorkError::Config { path: path.clone(), source })
    }

    /// Removes what was said of a synthetic trace that is no longer there.
    pub(crate) fn remove_evaluation(&self) -> Result<(), WorkError> {
        let fail = |path: PathBuf| move |source| WorkError::Write { path, source };
        for path in [self.evaluation(), self.report()] {
            remove_file(&path).map_err(fail(path))?;
        }
        self.remove_plots().map_err(fail(self.plots()))
    }

    /// Removes all of it that is ours, and the folder if nothing else is in it.
    pub(crate) fn remove(self) -> Result<(), WorkError> {
        let remove = || -> std::io::Result<()> {
            self.remove_plots()?;
            for name in names().filter(|&name| !FOLDERS.contains(&name)) {
                remove_file(&self.path.join(name))?;
            }
            match std::fs::remove_dir(&self.path) {
                Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => Err(error),
                _ => Ok(()),
            }
        };
        self.remove_folder(UNITS)?;
        self.remove_folder(GENERATION)?;
        remove().map_err(|source| WorkError::Write { path: self.path.clone(), source })
    }

    /// Removes one of its folders with all that is in it.
    pub(crate) fn remove_folder(&self, name: &str) -> Result<(), WorkError> {
        let path = self.path.join(name);
        // A link may lead to a folder that is not ours.
        let removed = match path.symlink_metadata() {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path),
            _ => Ok(()),
        };
        removed.map_err(|source| WorkError::Write { path, source })
    }

    /// Removes the pictures, and their folder if nothing else is in it.
    fn remove_plots(&self) -> std::io::Result<()> {
        let plots = self.plots();
        // A link may lead to a folder that is not ours.
        if !plots.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            return Ok(());
        }
        for entry in std::fs::read_dir(&plots)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "svg" || extension == "csv") {
                remove_file(&path)?;
            }
        }
        match std::fs::remove_dir(&plots) {
            Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => Err(error),
            _ => Ok(()),
        }
    }
}

/// All names that are ours.
fn names() -> impl Iterator<Item = &'static str> {
    let files = [RUN, CONFIG, METRICS, MODEL, EVALUATION, REPORT, PLOTS, UNITS, GENERATION];
    files.into_iter().chain(SYNTHETIC).chain(UNFINISHED)
}

/// Writes a file of one JSON document, for people to read too.
pub(crate) fn write_json(path: &Path, document: &impl Serialize) -> Result<(), WorkError> {
    let text = serde_json::to_string_pretty(document).map_err(std::io::Error::from);
    let written = text.and_then(|text| write_whole(path, format!("{text}\n").as_bytes()));
    written.map_err(|source| WorkError::Write { path: path.to_owned(), source })
}

fn remove_file(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The folder that paths in a configuration start from: its own, but for the
/// copy in a work folder that of the file it was copied from.
pub(crate) fn folder_of_config(path: &Path) -> PathBuf {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let is_copy = path.file_name().is_some_and(|name| name == CONFIG);
    let run = if is_copy { Run::read(folder).ok() } else { None };
    run.and_then(|run| run.config_folder).unwrap_or_else(|| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(inputs: Vec<PathBuf>) -> Run {
        Run::for_tests(inputs, OnError::Skip)
    }

    fn create(path: &Path, overwrite: bool) -> Result<WorkFolder, WorkError> {
        WorkFolder::create(path, overwrite, run(Vec::new()), config::DEFAULT_PCAP)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path().join("a/b");
        let made = create(&work, false).unwrap();
        let opened = WorkFolder::open(&work).unwrap();
        assert_eq!(opened.run(), made.run());
        assert_eq!(opened.run().reading().on_error, OnError::Skip);
        // Traces that are judged are read whole.
        assert_eq!(opened.run().reading().held_out, 0);
        assert_eq!(std::fs::read_to_string(opened.config()).unwrap(), config::DEFAULT_PCAP);
        let cells = opened.configuration().unwrap();
        assert_eq!(cells[0].config.length, crate::config::TrainingLength::Epochs(3));
        // Its copy is read as the original was, another file beside it is not.
        assert_eq!(folder_of_config(&opened.config()), Path::new("/somewhere"));
        assert_eq!(folder_of_config(&work.join("mine.json")), work);
        assert_eq!(folder_of_config(Path::new("mine.json")), Path::new("."));
    }

    #[test]
    fn a_folder_that_exists_is_refused_unless_it_may_be_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        // Empty ones are as good as none.
        let work = create(path, false).unwrap();
        let message = create(path, false).unwrap_err().to_string();
        assert!(message.contains("`--overwrite`") && message.contains("exists"), "{message}");
        std::fs::create_dir(work.plots()).unwrap();
        for name in ["notes.txt", "model.ns", "synthetic.csv", "plots/a.svg", "plots/mine.txt"] {
            std::fs::write(path.join(name), name).unwrap();
        }
        create(path, true).unwrap();
        let left = |name: &str| path.join(name).exists();
        assert!(left("notes.txt") && left("plots/mine.txt"));
        assert!(!left("model.ns") && !left("synthetic.csv") && !left("plots/a.svg"));
        std::fs::remove_file(path.join("plots/mine.txt")).unwrap();
        create(path, true).unwrap();
        assert!(!left("plots"));
    }

    #[test]
    fn what_is_not_ours_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::write(path.join("notes.txt"), "").unwrap();
        assert!(WorkFolder::check(path, true, &[]).is_ok());
        std::fs::write(path.join("config.json"), "{}").unwrap();
        let error = create(path, true).unwrap_err();
        assert!(matches!(error, WorkError::Foreign { name: "config.json", .. }), "{error}");
        let file = path.join("notes.txt");
        assert!(matches!(create(&file, true), Err(WorkError::NotAFolder { .. })));
        // An input in the folder, or the folder itself as one.
        std::fs::remove_file(path.join("config.json")).unwrap();
        let work = create(path, true).unwrap();
        std::fs::write(work.synthetic(), "").unwrap();
        for input in [work.synthetic(), path.join(".")] {
            let error = WorkFolder::check(path, true, &[input]).unwrap_err();
            assert!(error.to_string().ends_with("is an input; give another work folder"));
        }
        assert!(work.synthetic().exists());
    }

    #[test]
    fn other_folders_and_newer_versions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let message = WorkFolder::open(path).unwrap_err().to_string();
        assert!(message.contains("makes one): cannot read `run.json`"), "{message}");
        assert!(message.contains(&format!("`ns-train train --work {}`", path.display())));
        for (text, expected) in [
            (r#"{ "version": 3, "other": [] }"#, "has version 3, and versions up to 2 are known"),
            (r#"{ "version": 1 }"#, "is damaged: missing field"),
            ("{", "is damaged: EOF"),
        ] {
            std::fs::write(path.join("run.json"), text).unwrap();
            for error in [WorkFolder::open(path).unwrap_err(), create(path, true).unwrap_err()] {
                assert!(error.to_string().contains(expected), "{error}");
            }
        }
    }
}
