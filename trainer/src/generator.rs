//! NetShare's own interface: a configuration, trained and generated from in a
//! work folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use candle_core::Device;
use ns_model_format::schema::TraceKind;
use ns_model_format::{Bundle, BundleError};
use ns_runtime::stats::Report;
use ns_runtime::{GenerateOptions, RuntimeError, SinkError, engine};

use crate::config::{self, ConfigError, Resolved, TrainingLength};
use crate::curve::Curve;
use crate::device;
use crate::evaluate::{self, Done, EvaluateError, Evaluation, Options, Sides};
use crate::files::{check_writable, is_one_of, write_whole};
use crate::fit::{self, FitError, Limits, Prepared, Progress};
use crate::generate::{self, GenerateError, Generating};
use crate::ingest::{IngestError, Reading, files};
use crate::init::{self, InitError};
use crate::input::is_capture;
use crate::visualize;
use crate::work::{Run, WorkError, WorkFolder, folder_of_config};

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
    /// Training.
    #[error(transparent)]
    Fit(Box<FitError>),
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

impl From<RuntimeError> for GeneratorError {
    fn from(error: RuntimeError) -> GeneratorError {
        GenerateError::from(error).into()
    }
}

/// A model that was trained into a work folder.
#[derive(Debug)]
#[non_exhaustive]
pub struct Training {
    /// The folder.
    pub work: WorkFolder,
    /// The model, which is written.
    pub bundle: Bundle,
    /// Whether the caller ended it: the model is the one so far.
    pub stopped: bool,
}

/// What a synthetic trace is judged by, and how.
#[derive(Clone, Debug, Default)]
pub struct Judging {
    /// Real flows that were not trained on; empty for those that were.
    pub real: Vec<PathBuf>,
    /// How the comparison is made.
    pub options: Options,
    /// Without downstream tasks, classifier and copies.
    pub quick: bool,
}

/// What is to be learned, and how: a configuration, its inputs, and what is said
/// beside it. One can train into any number of work folders.
#[derive(Clone, Debug)]
pub struct Generator {
    config: Resolved,
    /// The configuration as it was written.
    text: String,
    /// Its file, if it has one.
    path: Option<PathBuf>,
    /// The folder that paths in it start from.
    folder: Option<PathBuf>,
    inputs: Vec<PathBuf>,
    reading: Reading,
    epochs: Option<u64>,
    limits: Limits,
    device: device::Choice,
    bundle: Option<PathBuf>,
    generation: Option<GenerateOptions>,
}

impl Generator {
    /// From a configuration file. Its `original_data_file` is the input, unless
    /// [`Generator::inputs`] names others.
    ///
    /// # Errors
    /// It cannot be read or asks for what cannot be.
    pub fn from_config(path: impl AsRef<Path>) -> Result<Generator, GeneratorError> {
        let path = path.as_ref();
        let text = config::read_text(path).map_err(GeneratorError::Read)?;
        let file =
            config::parse(&text, &path.display().to_string()).map_err(GeneratorError::Read)?;
        let folder = folder_of_config(path);
        let config = config::resolve(&file, &folder)
            .map_err(|source| GeneratorError::Config { path: path.to_owned(), source })?;
        let (path, folder) = (Some(path.to_owned()), Some(folder));
        Ok(Generator { path, folder, ..Generator::new(config, text) })
    }

    /// Without a configuration: captures have a built-in one, of a table the
    /// columns are looked at as `ns-train init` does.
    ///
    /// # Errors
    /// An input cannot be read, or its columns do not tell time or flow.
    pub fn from_inputs(
        inputs: impl IntoIterator<Item = impl Into<PathBuf>>,
        reading: Reading,
    ) -> Result<Generator, GeneratorError> {
        let inputs: Vec<PathBuf> = inputs.into_iter().map(Into::into).collect();
        if inputs.is_empty() {
            return Err(GeneratorError::NoInput { config: None });
        }
        // Of a capture nothing has to be found out first.
        let text = match is_capture(&inputs)? {
            true => config::DEFAULT_PCAP.to_owned(),
            false => init::configuration(&inputs, &init::Hints::default(), reading.on_error)?,
        };
        let file = config::parse(&text, "the configuration by default");
        let config = file.and_then(|file| config::resolve(&file, Path::new(".")));
        let config = config.map_err(GeneratorError::Read)?;
        Ok(Generator { inputs, reading, ..Generator::new(config, text) })
    }

    /// As a work folder was trained: to do so again, or to generate.
    ///
    /// # Errors
    /// It is no work folder, or its configuration cannot be used.
    pub fn from_work(work: impl AsRef<Path>) -> Result<Generator, GeneratorError> {
        let work = WorkFolder::open(work)?;
        let (text, config) = work.read_config()?;
        let run = work.run();
        let seconds = run.max_seconds.and_then(|time| Duration::try_from_secs_f64(time).ok());
        Ok(Generator {
            path: Some(work.config()),
            folder: run.config_folder.clone(),
            inputs: run.inputs.clone(),
            reading: run.reading(),
            epochs: run.epochs,
            limits: Limits { time: seconds },
            bundle: run.bundle.clone(),
            ..Generator::new(config, text)
        })
    }

    fn new(config: Resolved, text: String) -> Generator {
        Generator {
            inputs: config.input.iter().cloned().collect(),
            config,
            text,
            path: None,
            folder: None,
            reading: Reading::default(),
            epochs: None,
            limits: Limits::default(),
            device: device::Choice::Auto,
            bundle: None,
            generation: None,
        }
    }

    /// Learns from these, files and folders of files.
    #[must_use]
    pub fn inputs(mut self, inputs: impl IntoIterator<Item = impl Into<PathBuf>>) -> Generator {
        self.inputs = inputs.into_iter().map(Into::into).collect();
        self
    }

    /// How the inputs are read; its seed is that of all chance, 1 by default.
    #[must_use]
    pub fn reading(mut self, reading: Reading) -> Generator {
        self.reading = reading;
        self
    }

    /// Seed of all chance: equal seeds and epochs give equal models.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Generator {
        self.reading.seed = seed;
        self
    }

    /// Passes over the flows, instead of the configuration's; 0 leaves the model untrained.
    #[must_use]
    pub fn epochs(mut self, epochs: u64) -> Generator {
        self.epochs = Some(epochs);
        self.config.length = TrainingLength::Epochs(epochs);
        self
    }

    /// Training ends after this time, if it is not done before.
    #[must_use]
    pub fn max_time(mut self, time: Duration) -> Generator {
        self.limits.time = Some(time);
        self
    }

    /// Where to train; by default on the first GPU, if there is one.
    #[must_use]
    pub fn device(mut self, device: device::Choice) -> Generator {
        self.device = device;
        self
    }

    /// Whether what exists in a work folder may be written over, instead of what
    /// the configuration says.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Generator {
        self.config.overwrite = overwrite;
        self
    }

    /// Writes the bundle there, and not into the work folder.
    #[must_use]
    pub fn bundle(mut self, path: impl Into<PathBuf>) -> Generator {
        self.bundle = Some(path.into());
        self
    }

    /// What to generate and with what means. By default one trained span, with
    /// the seed of the training, in one thread.
    #[must_use]
    pub fn generation(mut self, options: GenerateOptions) -> Generator {
        self.generation = Some(options);
        self
    }

    /// The configuration with every choice made, and notices of what has no effect.
    #[must_use]
    pub fn config(&self) -> &Resolved {
        &self.config
    }

    /// The seed of all chance.
    pub(crate) fn seed_used(&self) -> u64 {
        self.reading.seed
    }

    /// The inputs, which there must be, and of the kind that is configured.
    pub(crate) fn checked_inputs(&self) -> Result<&[PathBuf], GeneratorError> {
        if self.inputs.is_empty() {
            return Err(GeneratorError::NoInput { config: self.path.clone() });
        }
        // NetShare's packet configurations are also run on captures saved as CSV, and the reverse
        // is a mistake worth naming.
        if let Some(config) = &self.path
            && self.config.kind != TraceKind::Packets
            && is_capture(&self.inputs)?
        {
            let (input, config) = (files::shown(&self.inputs), config.clone());
            return Err(GeneratorError::IsACapture { input, config });
        }
        Ok(&self.inputs)
    }

    /// Whether [`Generator::train`] into a folder can begin, as far as that can be
    /// told before the inputs are read.
    ///
    /// # Errors
    /// The folder exists and may not be written over, an input is in the way, or
    /// there is none.
    pub fn check(&self, work: impl AsRef<Path>) -> Result<(), GeneratorError> {
        let (inputs, work) = (self.checked_inputs()?, work.as_ref());
        WorkFolder::check(work, self.config.overwrite, inputs)?;
        let Some(bundle) = &self.bundle else { return Ok(()) };
        if is_one_of(bundle, &files::list(inputs)?) {
            return Err(WorkError::Input { path: bundle.clone() }.into());
        }
        if let (Ok(folder), Ok(place)) = (std::path::absolute(work), std::path::absolute(bundle))
            && let Ok(inside) = place.strip_prefix(&folder)
        {
            return Ok(WorkFolder::check_bundle(inside, bundle)?);
        }
        Ok(check_writable(bundle)
            .map_err(|source| WorkError::Write { path: bundle.clone(), source })?)
    }

    /// Reads and encodes the inputs: the first half of training.
    ///
    /// # Errors
    /// They cannot be read, do not fit the configuration, or are too small; no
    /// such device, which the second half needs.
    pub fn prepare(&self) -> Result<Prepared, GeneratorError> {
        let inputs = self.checked_inputs()?;
        self.open_device()?;
        Ok(fit::prepare(inputs, &self.config, self.reading.seed, self.reading)?)
    }

    /// Trains on what was prepared: the second half, without a work folder.
    /// `watch` is called after every iteration; when it returns false, training
    /// ends and the bundle holds the model so far.
    ///
    /// # Errors
    /// No such device; training diverged.
    pub fn fit(
        &self,
        prepared: Prepared,
        watch: impl FnMut(&Progress) -> bool,
    ) -> Result<Bundle, GeneratorError> {
        let device = self.open_device()?;
        Ok(fit::train(prepared, &self.config, self.reading.seed, self.limits, &device, watch)?)
    }

    /// Trains into a work folder: the model, the training curve, and all that it
    /// was made from.
    ///
    /// # Errors
    /// As [`Generator::check`], [`Generator::prepare`] and [`Generator::fit`]; a
    /// file that cannot be written.
    pub fn train(&self, work: impl AsRef<Path>) -> Result<Training, GeneratorError> {
        self.train_with(work, |_| true)
    }

    /// The same, watched as [`Generator::fit`] is.
    ///
    /// # Errors
    /// As [`Generator::train`].
    pub fn train_with(
        &self,
        work: impl AsRef<Path>,
        watch: impl FnMut(&Progress) -> bool,
    ) -> Result<Training, GeneratorError> {
        self.check(&work)?;
        self.train_prepared(self.prepare()?, work, watch)
    }

    /// The same with what was prepared before.
    ///
    /// # Errors
    /// As [`Generator::train`].
    pub fn train_prepared(
        &self,
        prepared: Prepared,
        work: impl AsRef<Path>,
        mut watch: impl FnMut(&Progress) -> bool,
    ) -> Result<Training, GeneratorError> {
        let run = self.run(&prepared)?;
        let work = WorkFolder::create(work.as_ref(), self.config.overwrite, run, &self.text)?;
        let model = work.model();
        check_writable(&model)
            .map_err(|source| WorkError::Write { path: model.clone(), source })?;
        let mut curve = Curve::create(work.metrics(), self.config.model.batch_size)?;
        // Training does not end because a line of it could not be written.
        let (mut written, mut stopped) = (Ok(()), false);
        let result = self.fit(prepared, |progress| {
            if written.is_ok() {
                written = curve.add(progress);
            }
            stopped |= !watch(progress);
            !stopped
        });
        let written = written.and_then(|()| curve.finish());
        let bundle = result?;
        bundle.write(&model).map_err(GeneratorError::Bundle)?;
        written?;
        Ok(Training { work, bundle, stopped })
    }

    /// Generates a synthetic trace from a work folder's model into the folder.
    ///
    /// # Errors
    /// It is no work folder; there is one already that may not be written over; no
    /// ONNX Runtime; a file that cannot be written.
    pub fn generate(&self, work: impl AsRef<Path>) -> Result<Report, GeneratorError> {
        self.generate_with(work, |_| true)
    }

    /// The same, watched: when `watch` returns false, the trace ends there.
    ///
    /// # Errors
    /// As [`Generator::generate`].
    pub fn generate_with(
        &self,
        work: impl AsRef<Path>,
        watch: impl FnMut(&Generating) -> bool,
    ) -> Result<Report, GeneratorError> {
        let work = WorkFolder::open(work)?;
        let synthetic = work.synthetic();
        let exists = synthetic.symlink_metadata().is_ok();
        if exists && !self.config.overwrite {
            return Err(WorkError::Exists { path: synthetic }.into());
        }
        let path = work.model();
        let bundle =
            Bundle::open(&path).map_err(|source| GeneratorError::Model { path, source })?;
        let options = self.generation.clone().unwrap_or_else(|| {
            let mut options = GenerateOptions::default();
            options.seed = work.run().seed;
            options
        });
        let result = generate::generate(Arc::new(bundle), &synthetic, options, watch);
        // A disk that is full keeps what fitted.
        let full = matches!(result, Err(GenerateError::Sink(SinkError::Full { .. })));
        if exists && (full || result.is_ok()) {
            work.remove_evaluation()?;
        }
        Ok(result?)
    }

    /// Trains into a work folder, and generates a synthetic trace there.
    ///
    /// # Errors
    /// As [`Generator::train`] and [`Generator::generate`].
    pub fn train_and_generate(
        &self,
        work: impl AsRef<Path>,
    ) -> Result<(Training, Report), GeneratorError> {
        self.check_generation()?;
        let training = self.train(&work)?;
        let report = self.generate(work)?;
        Ok((training, report))
    }

    /// The same, watched: training that `watch_training` ends keeps the model so
    /// far, and nothing is generated.
    ///
    /// # Errors
    /// As [`Generator::train_and_generate`].
    pub fn train_and_generate_with(
        &self,
        work: impl AsRef<Path>,
        watch_training: impl FnMut(&Progress) -> bool,
        watch_generation: impl FnMut(&Generating) -> bool,
    ) -> Result<(Training, Option<Report>), GeneratorError> {
        self.check_generation()?;
        let training = self.train_with(&work, watch_training)?;
        if training.stopped {
            return Ok((training, None));
        }
        let report = self.generate_with(work, watch_generation)?;
        Ok((training, Some(report)))
    }

    /// Judges a work folder's synthetic trace by what it was trained on, and writes
    /// the report there: a page, its charts, and the evaluation.
    ///
    /// # Errors
    /// It is no work folder, or has no synthetic trace; traces that cannot be
    /// compared; a file that cannot be written.
    pub fn visualize(&self, work: impl AsRef<Path>) -> Result<Evaluation, GeneratorError> {
        self.visualize_with(work, &Judging::default(), &mut |_, _| {})
    }

    /// The same by other flows, if they are named; `done` is told what is next, and
    /// which share is done.
    ///
    /// # Errors
    /// As [`Generator::visualize`].
    pub fn visualize_with(
        &self,
        work: impl AsRef<Path>,
        judging: &Judging,
        done: &mut Done<'_>,
    ) -> Result<Evaluation, GeneratorError> {
        let work = WorkFolder::open(work)?;
        if !work.synthetic().exists() {
            return Err(GeneratorError::NoSynthetic { work: work.path().to_owned() });
        }
        let fields = match self.config.kind {
            TraceKind::Packets => evaluate::packet_fields().map_err(GeneratorError::Read)?,
            _ => self.config.clone(),
        };
        let trained_on = work.run().inputs.clone();
        let (real, train) = match judging.real.is_empty() {
            true => (trained_on, Vec::new()),
            false => (judging.real.clone(), trained_on),
        };
        let sides = Sides { real, train, synthetic: vec![work.synthetic()] };
        let reading = work.run().reading();
        let (comparison, names) =
            evaluate::inputs::compare(&sides, &fields, reading, judging.options, done)
                .map_err(Box::new)?;
        let evaluation =
            evaluate::evaluate(&comparison, &names, judging.quick, done).map_err(Box::new)?;
        // A model that was trained elsewhere has no curve.
        let curve = match work.metrics().exists() {
            true => crate::curve::read(&work.metrics())?,
            false => Vec::new(),
        };
        let fail = |(path, source)| WorkError::Write { path, source };
        let text = serde_json::to_string_pretty(&evaluation)
            .map_err(|error| fail((work.evaluation(), error.into())))?;
        write_whole(&work.evaluation(), format!("{text}\n").as_bytes())
            .map_err(|error| fail((work.evaluation(), error)))?;
        let report = visualize::report(&comparison, &evaluation, &curve);
        report.write(&work.report(), &work.plots()).map_err(fail)?;
        Ok(evaluation)
    }

    /// Whether there is what generation needs: better to know before an hour of
    /// training than after.
    ///
    /// # Errors
    /// No usable ONNX Runtime.
    pub fn check_generation(&self) -> Result<(), GeneratorError> {
        let given = self.generation.as_ref().and_then(|options| options.onnxruntime.as_deref());
        Ok(engine::load_library(given)?)
    }

    fn open_device(&self) -> Result<Device, GeneratorError> {
        let fail = |error| GeneratorError::Device { reason: format!("{error:#}") };
        self.device.open().map_err(fail)
    }

    /// What this run is made from.
    fn run(&self, prepared: &Prepared) -> Result<Run, WorkError> {
        let absolute = |path: &PathBuf| {
            std::path::absolute(path)
                .map_err(|source| WorkError::Read { path: path.clone(), source })
        };
        let (version, trainer) = Run::written_by();
        Ok(Run {
            version,
            trainer,
            kind: self.config.kind,
            inputs: self.inputs.iter().map(absolute).collect::<Result<_, _>>()?,
            input_sha256: prepared.input_sha256.clone(),
            config_folder: self.folder.as_ref().map(absolute).transpose()?,
            seed: self.reading.seed,
            max_records: self.reading.max_records,
            on_error: self.reading.on_error,
            epochs: self.epochs,
            max_seconds: self.limits.time.map(|time| time.as_secs_f64()),
            bundle: self.bundle.as_ref().map(absolute).transpose()?,
        })
    }
}
