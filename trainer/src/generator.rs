//! NetShare's own interface: a configuration, trained and generated from in a
//! work folder.

mod error;
mod resume;

pub use error::GeneratorError;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use candle_core::{Device, DeviceLocation};
use ns_model_format::Bundle;
use ns_model_format::schema::TraceKind;
use ns_runtime::stats::Report;
use ns_runtime::{GenerateOptions, SinkError, engine};

use crate::autoregressive::ModelClass;
use crate::config::{self, Cell, ConfigError, Resolved};
use crate::device;
use crate::evaluate::{self, Done, Evaluation, Options, Sides};
use crate::files::{check_writable, is_one_of};
use crate::fit::{self, Prepared};
use crate::generate::{self, GenerateError, Generating};
use crate::ingest::sample::{HELD_OUT, MILLION};
use crate::ingest::{Reading, files};
use crate::init;
use crate::input::is_capture;
use crate::split::write_held_out;
use crate::units::{
    self, Ended, Executor, Facts, Happened, HeldOut, Local, Plan, PlannedTrace, Progress, Standing,
    Task, UnitError,
};
use crate::visualize;
use crate::work::{GENERATION, Run, WorkError, WorkFolder, folder_of_config, write_json};

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
    /// One, unless the configuration is a grid.
    cells: Vec<Cell>,
    /// The configuration as it was written.
    text: String,
    /// Its file, if it has one.
    path: Option<PathBuf>,
    /// The folder that paths in it start from.
    folder: Option<PathBuf>,
    inputs: Vec<PathBuf>,
    reading: Reading,
    model: Option<ModelClass>,
    epochs: Option<u64>,
    max_time: Option<Duration>,
    device: device::Choice,
    threads: Option<usize>,
    patience: Option<u32>,
    checkpoints: Checkpoints,
    bundle: Option<PathBuf>,
    generation: Option<GenerateOptions>,
}

/// When checkpoints are written, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Checkpoints {
    /// Time from one to the next: at most so much is lost when the machine is.
    pub every: Duration,
    /// How many are kept while training goes on.
    pub keep: u32,
}

impl Default for Checkpoints {
    fn default() -> Checkpoints {
        let every = Duration::from_secs_f64(crate::work::CHECKPOINT_S);
        Checkpoints { every, keep: crate::work::KEEP_CHECKPOINTS }
    }
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
        let name = path.display().to_string();
        let folder = folder_of_config(path);
        let cells = config::cells(&text, &name, &folder).map_err(|source| match source {
            // It names the file itself.
            ConfigError::Syntax { .. } => GeneratorError::Read(source),
            source => GeneratorError::Config { path: path.to_owned(), source },
        })?;
        let (path, folder) = (Some(path.to_owned()), Some(folder));
        Ok(Generator { path, folder, ..Generator::new(cells, text) })
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
        let cells = config::cells(&text, "the configuration by default", Path::new("."))
            .map_err(GeneratorError::Read)?;
        Ok(Generator { inputs, reading, ..Generator::new(cells, text) })
    }

    /// As a work folder was trained: to do so again, or to generate.
    ///
    /// # Errors
    /// It is no work folder, or its configuration cannot be used.
    pub fn from_work(work: impl AsRef<Path>) -> Result<Generator, GeneratorError> {
        let work = WorkFolder::open(work)?;
        let (text, cells) = work.read_config()?;
        let run = work.run();
        let every = Duration::try_from_secs_f64(run.checkpoint_s).unwrap_or(Duration::MAX);
        Ok(Generator {
            path: Some(work.config()),
            folder: run.config_folder.clone(),
            inputs: run.inputs.clone(),
            reading: Reading { held_out: run.held_out, ..run.reading() },
            model: run.model,
            epochs: run.epochs,
            max_time: run.max_seconds.and_then(|time| Duration::try_from_secs_f64(time).ok()),
            patience: run.patience,
            checkpoints: Checkpoints { every, keep: run.keep_checkpoints },
            bundle: run.bundle.clone(),
            ..Generator::new(cells, text)
        })
    }

    fn new(cells: Vec<Cell>, text: String) -> Generator {
        Generator {
            inputs: cells.iter().filter_map(|cell| cell.config.input.clone()).take(1).collect(),
            cells,
            text,
            path: None,
            folder: None,
            reading: Reading::default(),
            model: None,
            epochs: None,
            max_time: None,
            device: device::Choice::Auto,
            threads: None,
            patience: None,
            checkpoints: Checkpoints::default(),
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

    /// Trains such networks, instead of the configuration's. To be said before
    /// [`Generator::epochs`].
    #[must_use]
    pub fn model(mut self, class: ModelClass) -> Generator {
        self.model = Some(class);
        self.cells.iter_mut().for_each(|cell| cell.config.set_class(class));
        self
    }

    /// Passes over the flows, instead of the configuration's; 0 leaves the model untrained.
    #[must_use]
    pub fn epochs(mut self, epochs: u64) -> Generator {
        self.epochs = Some(epochs);
        self.cells.iter_mut().for_each(|cell| cell.config.set_epochs(epochs));
        self
    }

    /// Training ends after this time, if it is not done before.
    #[must_use]
    pub fn max_time(mut self, time: Duration) -> Generator {
        self.max_time = Some(time);
        self
    }

    /// Threads to train with on the CPU, by default as many as there are cores: of a
    /// grid or several chunks, so many are trained at once. The result does not depend on it.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Generator {
        self.threads = Some(threads);
        self
    }

    /// Holds out this share of the flows (0 to 0.5): the model does not learn from them,
    /// and of those that training passes through, and of those of a grid, the one that is
    /// nearest to them is kept. It needs ONNX Runtime.
    #[must_use]
    pub fn held_out(mut self, share: f64) -> Generator {
        self.reading.held_out = (share.clamp(0.0, 0.5) * f64::from(MILLION)).round() as u32;
        self
    }

    /// With flows held out: ends training after so many scores without a better one. There
    /// are ten in the configured length.
    #[must_use]
    pub fn patience(mut self, scores: u32) -> Generator {
        self.patience = Some(scores);
        self
    }

    /// When checkpoints are written, and how many are kept.
    #[must_use]
    pub fn checkpoints(mut self, checkpoints: Checkpoints) -> Generator {
        self.checkpoints = checkpoints;
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
        self.cells.iter_mut().for_each(|cell| cell.config.overwrite = overwrite);
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

    /// The configuration with every choice made, and notices of what has no effect; of
    /// a grid its first model's.
    #[must_use]
    pub fn config(&self) -> &Resolved {
        // `config::cells` gives one at least.
        &self.cells[0].config
    }

    /// The models that are trained: one, unless the configuration is a grid.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The share of flows that is held out.
    pub(crate) fn held_out_share(&self) -> f64 {
        f64::from(self.reading.held_out) / f64::from(MILLION)
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
            && self.config().kind != TraceKind::Packets
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
        WorkFolder::check(work, self.config().overwrite, inputs)?;
        if let Ok(folder) = WorkFolder::open(work)
            && let Ok(plan) = Plan::read(&folder)
            && let Some(unit) = units::status::running(&folder, &plan)
        {
            return Err(UnitError::Locked { unit: unit.name.clone() }.into());
        }
        if self.reading.held_out > 0 {
            self.check_generation()?;
        }
        // What the folder loses when it is written over must not be what is read.
        let earlier = self.cells.iter().filter_map(|cell| cell.config.pretrain_dir.clone());
        let needed = files::list(inputs)?.into_iter().map(|file| (file, work.join("units")));
        let needed = needed.chain(earlier.map(|path| (path, work.to_owned())));
        for (path, lost) in needed {
            if let (Ok(path_is), Ok(lost)) = (path.canonicalize(), lost.canonicalize())
                && path_is.starts_with(lost)
            {
                return Err(WorkError::Input { path }.into());
            }
        }
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
        Ok(fit::prepare(inputs, self.config(), self.reading.seed, self.reading)?)
    }

    /// Trains into a work folder: the model, the training curve, and all that it
    /// was made from.
    ///
    /// # Errors
    /// As [`Generator::check`] and [`Generator::prepare`]; training diverged; a file
    /// that cannot be written.
    pub fn train(&self, work: impl AsRef<Path>) -> Result<Training, GeneratorError> {
        self.train_with(work, |_| true)
    }

    /// The same, watched: `watch` is called after every iteration, of whichever model and
    /// chunk; when it returns false, training ends and the bundle holds the model so far.
    /// [`Generator::resume`] goes on from there.
    ///
    /// # Errors
    /// As [`Generator::train`].
    pub fn train_with(
        &self,
        work: impl AsRef<Path>,
        watch: impl FnMut(&Progress) -> bool + Send,
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
        mut watch: impl FnMut(&Progress) -> bool + Send,
    ) -> Result<Training, GeneratorError> {
        let (work, plan) = self.plan_prepared(prepared, work)?;
        self.execute(work, &plan, &mut watch)
    }

    /// Makes a work folder with what was prepared and the plan of its training, and
    /// trains nothing: the plan's units can be done one by one, wherever the folder is
    /// seen, with [`crate::units::run_unit`] or `ns-train unit`.
    ///
    /// # Errors
    /// As [`Generator::check`]; a file that cannot be written.
    pub fn plan_prepared(
        &self,
        prepared: Prepared,
        work: impl AsRef<Path>,
    ) -> Result<(WorkFolder, Plan), GeneratorError> {
        let run = self.run(&prepared)?;
        let work = WorkFolder::create(work.as_ref(), self.config().overwrite, run, &self.text)?;
        let model = work.model();
        check_writable(&model)
            .map_err(|source| WorkError::Write { path: model.clone(), source })?;
        let folder = work.prepared();
        std::fs::create_dir_all(&folder)
            .map_err(|source| WorkError::Write { path: folder.clone(), source })?;
        let held_out = self.hold_out(&prepared, &folder)?;
        let facts = Facts::write(prepared, held_out, &folder)?;
        let plan = Plan::new(&self.cells, &facts);
        plan.write(&work)?;
        Ok((work, plan))
    }

    /// Writes the flows that are held out.
    fn hold_out(
        &self,
        prepared: &Prepared,
        folder: &Path,
    ) -> Result<Option<HeldOut>, GeneratorError> {
        /// More records make scores no surer, only slower.
        const MOST_RECORDS: f64 = 200_000.0;
        /// Halves of fewer cannot be compared.
        const FEWEST_FLOWS: u64 = 4;
        if self.reading.held_out == 0 {
            return Ok(None);
        }
        let found = prepared.not_used.get(HELD_OUT).copied().unwrap_or(0);
        let part = (MOST_RECORDS / found.max(1) as f64).min(1.0);
        let extension = if self.config().kind == TraceKind::Packets { "pcap" } else { "csv" };
        let file = PathBuf::from(format!("held-out.{extension}"));
        let inputs = files::list(&self.inputs)?;
        let path = folder.join(&file);
        let (records, flows) = write_held_out(&inputs, self.config(), self.reading, part, &path)
            .map_err(|error| UnitError::HoldOut { reason: format!("{error:#}") })?;
        if flows < FEWEST_FLOWS {
            let reason = format!(
                "{flows} flows are too few to judge by, {FEWEST_FLOWS} are needed; give a larger share"
            );
            return Err(UnitError::HoldOut { reason }.into());
        }
        let share = self.held_out_share() * part;
        Ok(Some(HeldOut { file, share, records }))
    }

    /// Goes on with a training into a work folder that was stopped or killed, from its
    /// last checkpoints: on the CPU, the model is byte for byte what it would have been.
    ///
    /// # Errors
    /// There is none, or its configuration or input has changed since; as [`Generator::train`].
    pub fn resume(work: impl AsRef<Path>) -> Result<Training, GeneratorError> {
        Generator::from_work(&work)?.resume_with(work, |_| true)
    }

    /// The same with this generator, which must be the one that began, and watched as
    /// [`Generator::train_with`] is.
    ///
    /// # Errors
    /// As [`Generator::resume`]; what is not as it was then, by name.
    pub fn resume_with(
        &self,
        work: impl AsRef<Path>,
        mut watch: impl FnMut(&Progress) -> bool + Send,
    ) -> Result<Training, GeneratorError> {
        let (work, plan) = self.check_resume(work)?;
        if plan
            .units
            .iter()
            .any(|unit| unit.task == Task::Choose && plan.standing(&work, unit) == Standing::Done)
        {
            // It may have been killed before it tidied up.
            units::clean(&work, &plan);
            let path = work.model();
            let bundle =
                Bundle::open(&path).map_err(|source| GeneratorError::Model { path, source })?;
            return Ok(Training { work, bundle, stopped: false });
        }
        self.execute(work, &plan, &mut watch)
    }

    /// Whether a training can go on with this generator: the same configuration,
    /// inputs, seed, and whatever else the result depends on.
    ///
    /// # Errors
    /// As [`Generator::resume_with`].
    pub fn check_resume(
        &self,
        work: impl AsRef<Path>,
    ) -> Result<(WorkFolder, Plan), GeneratorError> {
        let mut work = WorkFolder::open(work)?;
        if !Plan::exists(&work) {
            return Err(GeneratorError::NothingToResume { work: work.path().to_owned() });
        }
        let plan = Plan::read(&work)?;
        let changed = self.changes(work.run(), &plan);
        if !changed.is_empty() {
            return Err(GeneratorError::Changed { work: work.path().to_owned(), changed });
        }
        // Where the bundle goes is no matter of what is in it.
        if let Some(bundle) = &self.bundle {
            let bundle = std::path::absolute(bundle)
                .map_err(|source| WorkError::Write { path: bundle.clone(), source })?;
            work.set_bundle(bundle);
        }
        let model = work.model();
        check_writable(&model)
            .map_err(|source| WorkError::Write { path: model.clone(), source })?;
        Ok((work, plan))
    }

    /// Does what is left of a plan.
    fn execute(
        &self,
        work: WorkFolder,
        plan: &Plan,
        watch: &mut (dyn FnMut(&Progress) -> bool + Send),
    ) -> Result<Training, GeneratorError> {
        if work.run().held_out > 0 {
            self.check_generation()?;
        }
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let mut local = Local {
            device: self.open_device()?,
            threads: self.threads.unwrap_or_else(cores),
            time: self.max_time,
            onnxruntime: self.generation.as_ref().and_then(|options| options.onnxruntime.clone()),
        };
        let mut watch = |happened: &Happened| match happened {
            Happened::Trained(progress) => watch(progress),
            Happened::Generated(_) => true,
        };
        let stopped = local.run(&work, plan, &mut watch)? == Ended::Stopped;
        match stopped {
            true if !units::so_far(&work, plan)? => {
                return Err(GeneratorError::NoModelYet { work: work.path().to_owned() });
            }
            true => {}
            false => units::clean(&work, plan),
        }
        let path = work.model();
        let bundle =
            Bundle::open(&path).map_err(|source| GeneratorError::Model { path, source })?;
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
        if exists && !self.config().overwrite {
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

    /// Plans to generate a work folder's synthetic trace in parts, which are units of
    /// work as those of training are, or finds the plan of the same trace that was begun.
    ///
    /// # Errors
    /// As [`Generator::generate`]; parts of another trace are there, and may not be
    /// written over.
    pub fn plan_parts(
        &self,
        work: impl AsRef<Path>,
        parts: u64,
    ) -> Result<(WorkFolder, Plan), GeneratorError> {
        let work = WorkFolder::open(work)?;
        let synthetic = work.synthetic();
        let overwrite = self.config().overwrite;
        if synthetic.symlink_metadata().is_ok() && !overwrite {
            return Err(WorkError::Exists { path: synthetic }.into());
        }
        let mut options = self.generation.clone().unwrap_or_default();
        options.part = (0, parts);
        options.check()?;
        let d = GenerateOptions::default();
        let chosen = !options.conditions.is_empty() || options.attributes.is_some();
        let limits = (options.duration_ns, options.forever, options.max_flow_records);
        if chosen
            || limits != (d.duration_ns, d.forever, d.max_flow_records)
            || options.flow_rate != d.flow_rate
        {
            return Err(ns_runtime::RuntimeError::Option {
                option: "part",
                found: "together with other options".to_owned(),
                expected: "a seed and a count of flows alone",
            }
            .into());
        }
        let seed = if self.generation.is_some() { options.seed } else { work.run().seed };
        let model_sha256 = units::model_sha256(&work)?;
        let trace = PlannedTrace { model_sha256, seed, flows: options.flows, parts };
        let plan = Plan::of_trace(&work, trace);
        if Plan::generation_exists(&work) {
            let begun = Plan::read_generation(&work)?;
            if let Some(unit) = units::status::running(&work, &begun) {
                return Err(UnitError::Locked { unit: unit.name.clone() }.into());
            }
            if begun == plan {
                return Ok((work, plan));
            }
            if !overwrite {
                return Err(GeneratorError::OtherParts { folder: work.generation() });
            }
        }
        // Parts without a plan are of nobody knows what.
        work.remove_folder(GENERATION)?;
        std::fs::create_dir_all(work.generation())
            .map_err(|source| WorkError::Write { path: work.generation(), source })?;
        plan.write(&work)?;
        Ok((work, plan))
    }

    /// Generates a work folder's synthetic trace in parts, as many at once as there are
    /// threads: the same bytes as [`Generator::generate`] gives. Parts that are there
    /// from a run that was stopped are not generated again.
    ///
    /// # Errors
    /// As [`Generator::plan_parts`]; no ONNX Runtime; a file that cannot be written.
    pub fn generate_parts_with(
        &self,
        work: impl AsRef<Path>,
        parts: u64,
        mut watch: impl FnMut(&Generating) -> bool + Send,
    ) -> Result<Ended, GeneratorError> {
        self.check_generation()?;
        let (work, plan) = self.plan_parts(work, parts)?;
        let options = self.generation.clone().unwrap_or_default();
        let mut local = Local {
            device: Device::Cpu,
            threads: options.threads,
            time: None,
            onnxruntime: options.onnxruntime,
        };
        let mut watch = |happened: &Happened| match happened {
            Happened::Generated(made) => watch(made),
            Happened::Trained(_) => true,
        };
        Ok(local.run(&work, &plan, &mut watch)?)
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
        watch_training: impl FnMut(&Progress) -> bool + Send,
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
        let fields = match self.config().kind {
            TraceKind::Packets => evaluate::packet_fields().map_err(GeneratorError::Read)?,
            _ => self.config().clone(),
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
        write_json(&work.evaluation(), &evaluation)?;
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

    /// What is trained on, such as `the CPU, 2 threads`.
    ///
    /// # Errors
    /// No such device.
    pub(crate) fn device_name(&self) -> Result<String, GeneratorError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(match self.open_device()? {
            Device::Cpu => match self.threads.unwrap_or(cores) {
                1 => "the CPU, 1 thread".to_owned(),
                threads => format!("the CPU, {threads} threads"),
            },
            device => match device.location() {
                DeviceLocation::Cuda { gpu_id } => format!("the GPU `cuda:{gpu_id}`"),
                other => format!("{other:?}"),
            },
        })
    }

    fn open_device(&self) -> Result<Device, GeneratorError> {
        let fail = |error| GeneratorError::Device { reason: format!("{error:#}") };
        self.device.open_for(self.config().class()).map_err(fail)
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
            kind: self.config().kind,
            inputs: self.inputs.iter().map(absolute).collect::<Result<_, _>>()?,
            input_sha256: prepared.input_sha256.clone(),
            config_folder: self.folder.as_ref().map(absolute).transpose()?,
            seed: self.reading.seed,
            max_records: self.reading.max_records,
            on_error: self.reading.on_error,
            model: self.model,
            epochs: self.epochs,
            max_seconds: self.max_time.map(|time| time.as_secs_f64()),
            bundle: self.bundle.as_ref().map(absolute).transpose()?,
            held_out: self.reading.held_out,
            patience: self.patience,
            checkpoint_s: self.checkpoints.every.as_secs_f64(),
            keep_checkpoints: self.checkpoints.keep,
        })
    }
}
