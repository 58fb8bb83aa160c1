//! The command lines of `ns-train train` and `train-and-generate`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use ns_model_format::Bundle;
use ns_runtime::exit::Exit;
use serde_json::json;

use super::generate::{self, GenerationArgs};
use super::progress::{Reporting, show_training};
use super::signals::Signals;
use crate::autoregressive::ModelClass;
use crate::fit::Prepared;
use crate::generator::Checkpoints;
use crate::ingest::files;
use crate::input::InputArgs;
use crate::terminal::print;
use crate::train::Samples;
use crate::units::Progress;
use crate::{Generator, GeneratorError, device};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ns-train train --input capture.pcap --out model.ns --max-minutes 5
  ns-train train --input flows.csv --config configs/netflow.json --epochs 40
  ns-train train --input monday.pcap.gz --input more/ --max-records 1000000
  ns-train train --input capture.pcap --work run    with the training curve, and all that it took
  ns-train train --work run --resume                go on after Ctrl-C, a crash, a power cut
  ns-train train --input capture.pcap --held-out 0.1 --patience 3    keep the best by unseen flows
  ns-train train --input capture.pcap --dry-run     what would be learned, without training
Then:
  ns-replay --bundle model.ns --pcap synthetic.pcap")]
pub(super) struct TrainArgs {
    #[command(flatten)]
    training: TrainingArgs,
    /// A folder for all that belongs to the training: model, training curve, configuration. It must
    /// not exist, or be empty
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Write over a work folder that exists; files in it that are not its own stay
    #[arg(long)]
    overwrite: bool,
    /// Go on with a training that was stopped or killed: the same command once more, or just the
    /// folder (without `--work`, the bundle)
    #[arg(long, conflicts_with_all = ["overwrite", "dry_run", "plan_only"])]
    resume: bool,
    /// Prepare the input and write the plan of the training, and train nothing: `ns-train unit` does
    /// its units one by one, on any machine
    #[arg(long, requires = "work", conflicts_with_all = ["dry_run", "max_minutes"])]
    plan_only: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ns-train train-and-generate --input capture.pcap --work run --max-minutes 5
  ns-train train-and-generate --config flows.json --work run --epochs 40 --flows 5000
Then:
  ns-train generate --work run --seed 2 --overwrite
  ns-replay --bundle run/model.ns --pcap more.pcap --flows 100000")]
pub(super) struct TrainAndGenerateArgs {
    #[command(flatten)]
    training: TrainingArgs,
    /// A folder for all that belongs to it: model, training curve, configuration, and the synthetic
    /// trace as `synthetic.pcap` or `synthetic.csv`. It must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Write over a work folder that exists; files in it that are not its own stay
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    generation: GenerationArgs,
}

/// The share of flows that a grid's models are chosen by.
const HELD_OUT_OF_GRID: f64 = 0.1;

/// What both commands are told of the training.
#[derive(Debug, Args)]
struct TrainingArgs {
    #[command(flatten)]
    input: InputArgs,
    /// The bundle to write [default: model.ns, in the work folder if there is one]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The networks, instead of the configuration's
    #[arg(long, value_name = "CLASS")]
    model: Option<ModelClass>,
    /// Passes over the flows, instead of the configuration's; 0 writes an untrained model
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Stop training after this time, if it is not done before
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    max_minutes: Option<Duration>,
    /// Hold out this share of the flows, and keep the model that comes nearest to them [default: 0,
    /// of a grid 0.1]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    held_out: Option<f64>,
    /// With flows held out: stop after so many scores without a better one; there are ten in the
    /// configured length
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    patience: Option<u32>,
    /// Write a checkpoint so often: at most so much is lost when the machine is
    #[arg(long, value_name = "MINUTES", default_value = "1", value_parser = minutes)]
    checkpoint_minutes: Duration,
    /// Checkpoints to keep while training goes on
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    keep_checkpoints: u32,
    /// Where to train: auto, cpu, or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: device::Choice,
    /// Threads to train with; the result does not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Read and check everything, say what would be learned, and stop
    #[arg(long)]
    dry_run: bool,
    /// Say more: every field's encoder
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    reporting: Reporting,
}

pub(super) fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "expected a number of minutes".to_owned())?;
    let most = 60.0 * 24.0 * 366.0;
    if !(minutes > 0.0 && minutes <= most) {
        return Err(format!("expected more than 0 and at most {most} minutes"));
    }
    Ok(Duration::from_secs_f64(minutes * 60.0))
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 0.5 => Ok(share),
        _ => Err("expected a share of the flows, above 0 and at most 0.5".to_owned()),
    }
}

impl TrainingArgs {
    /// The same as a library's user would say it.
    fn generator(&self, overwrite: bool) -> Result<Generator, GeneratorError> {
        self.apply(self.input.generator()?, overwrite)
    }

    /// What beside the input is said.
    fn apply(&self, generator: Generator, overwrite: bool) -> Result<Generator, GeneratorError> {
        let checkpoints =
            Checkpoints { every: self.checkpoint_minutes, keep: self.keep_checkpoints };
        let mut generator = self.means(generator).checkpoints(checkpoints);
        if let Some(class) = self.model {
            generator = generator.model(class);
        }
        // A grid is there to choose from.
        let of_grid = (generator.cells().len() > 1).then_some(HELD_OUT_OF_GRID);
        if let Some(share) = self.held_out.or(of_grid) {
            generator = generator.held_out(share);
        }
        if let Some(scores) = self.patience {
            generator = generator.patience(scores);
        }
        if let Some(epochs) = self.epochs {
            generator = generator.epochs(epochs);
        }
        if let Some(out) = &self.out {
            generator = generator.bundle(out);
        }
        Ok(if overwrite { generator.overwrite(true) } else { generator })
    }

    /// What is said beside the folder of a training that goes on. What the model depends on
    /// must be as it was.
    fn on_top(&self, generator: Generator, temporary: bool) -> Generator {
        let mut generator = self.means(generator);
        if let Some(class) = self.model {
            generator = generator.model(class);
        }
        if let Some(epochs) = self.epochs {
            generator = generator.epochs(epochs);
        }
        if let Some(share) = self.held_out {
            generator = generator.held_out(share);
        }
        if let Some(scores) = self.patience {
            generator = generator.patience(scores);
        }
        match (&self.out, temporary) {
            (None, false) => generator,
            _ => generator.bundle(self.beside().1),
        }
    }

    /// What it may use.
    fn means(&self, generator: Generator) -> Generator {
        let mut generator = generator.device(self.device);
        if let Some(time) = self.max_minutes {
            generator = generator.max_time(time);
        }
        match self.threads {
            Some(threads) => generator.threads(threads.into()),
            None => generator,
        }
    }

    /// Where a training is at work without `--work`, and where its bundle goes.
    fn beside(&self) -> (PathBuf, PathBuf) {
        let out = self.out.clone().unwrap_or_else(|| PathBuf::from("model.ns"));
        let mut work = out.clone().into_os_string();
        work.push(".work");
        (work.into(), out)
    }
}

pub(super) fn train(args: &TrainArgs) -> anyhow::Result<Exit> {
    let TrainArgs { training, work, .. } = args;
    if args.resume {
        let (beside, _) = training.beside();
        let (place, temporary) = match work {
            Some(work) => (work.as_path(), false),
            None => (beside.as_path(), true),
        };
        // Nothing said of the input: it is the one that the training was begun with.
        let generator = match training.input.is_said() {
            true if temporary => training.generator(false)?.bundle(training.beside().1),
            true => training.generator(false)?,
            false => training.on_top(Generator::from_work(place)?, temporary),
        };
        generator.check_resume(place)?;
        let signals = Signals::listen()?;
        let trained = execute(training, &generator, (place, temporary), None, signals)?;
        return finish(training, trained);
    }
    let generator = training.generator(args.overwrite)?;
    if args.plan_only
        && let Some(work) = work
    {
        generator.check(work)?;
        let prepared = generator.prepare()?;
        describe(&prepared, &generator, training)?;
        let (_, plan) = generator.plan_prepared(prepared, work)?;
        let units = plan.units.len();
        let work = work.display();
        training.reporting.say(format_args!(
            "planned {units} units of work in `{work}`; `ns-train status --work {work}` lists them"
        ));
        return Ok(Exit::Done);
    }
    match run(training, &generator, work.as_deref(), args.overwrite)? {
        Some(trained) => finish(training, trained),
        None => Ok(Exit::Done),
    }
}

fn finish(args: &TrainingArgs, trained: Trained) -> anyhow::Result<Exit> {
    if args.reporting.json {
        print(&trained.summary.to_string())?;
    }
    Ok(trained.signals.exit())
}

pub(super) fn train_and_generate(args: &TrainAndGenerateArgs) -> anyhow::Result<Exit> {
    let TrainAndGenerateArgs { training, work, generation, .. } = args;
    let options = generation.options(training.input.seed, training.threads.unwrap_or(1));
    let generator = training.generator(args.overwrite)?.generation(options);
    generator.check_generation()?;
    let Some(trained) = run(training, &generator, Some(work), args.overwrite)? else {
        return Ok(Exit::Done);
    };
    let Trained { mut summary, signals } = trained;
    if signals.go_on() {
        let report = generate::run(&generator, work, &training.reporting, &signals)?;
        summary["generated"] = serde_json::to_value(report)?;
    } else {
        let work = work.display();
        let reporting = &training.reporting;
        reporting.say(format_args!("nothing generated; `ns-train generate --work {work}` does"));
    }
    if training.reporting.json {
        print(&summary.to_string())?;
    }
    Ok(signals.exit())
}

/// What comes of training, beside the files.
struct Trained {
    summary: serde_json::Value,
    signals: Signals,
}

/// Trains with a bar, into a work folder or just a bundle, and says what was
/// done; `None` if it was only to be said what would be.
fn run(
    args: &TrainingArgs,
    generator: &Generator,
    work: Option<&Path>,
    overwrite: bool,
) -> anyhow::Result<Option<Trained>> {
    let say = |text: std::fmt::Arguments<'_>| args.reporting.say(text);
    for notice in &generator.config().notices() {
        say(format_args!("note: {notice}"));
    }
    if args.patience.is_some() && generator.config().class() == ModelClass::Autoregressive {
        say(format_args!(
            "note: `--patience` has no effect on an autoregressive model: of its weights those that tell flows aside best are kept"
        ));
    }
    let says_overwrite = generator.config().overwrite;
    let (beside, out) = args.beside();
    let beside_generator;
    let (place, generator, temporary) = match work {
        Some(work) => (work, generator, false),
        // The folder is there only while it is needed.
        None => {
            // `overwrite` of a configuration is about folders that somebody named.
            beside_generator = generator.clone().bundle(&out).overwrite(overwrite);
            (beside.as_path(), &beside_generator, true)
        }
    };
    if !args.dry_run {
        if temporary {
            if says_overwrite && !overwrite {
                say(format_args!("note: `overwrite` is about work folders (`--work`) only"));
            }
            check_out(&out, generator)?;
            if beside.exists() && !generator.config().overwrite {
                bail!(
                    "`{}` holds a training for `{}` that is not finished: `--resume` goes on with it, \
                     `--overwrite` begins anew",
                    beside.display(),
                    out.display()
                );
            }
        }
        generator.check(place)?;
    }
    let prepared = generator.prepare()?;
    // From what is said next on, Ctrl-C keeps the model so far.
    let signals = Signals::listen()?;
    describe(&prepared, generator, args)?;
    if generator.cells().len() > 1 {
        say(format_args!("a grid of {} models, of which one is chosen", generator.cells().len()));
    }
    if args.dry_run {
        return Ok(None);
    }
    execute(args, generator, (place, temporary), Some(prepared), signals).map(Some)
}

/// Trains what was prepared, or goes on with a training.
fn execute(
    args: &TrainingArgs,
    generator: &Generator,
    (place, temporary): (&Path, bool),
    prepared: Option<Prepared>,
    signals: Signals,
) -> anyhow::Result<Trained> {
    let say = |text: std::fmt::Arguments<'_>| args.reporting.say(text);
    say(format_args!("training on {}", generator.device_name()?));
    let bar = args.reporting.bar("training");
    let mut last = None;
    let watch = |progress: &Progress| {
        show_training(&bar, progress, args.max_minutes);
        last = Some(*progress);
        signals.go_on()
    };
    let result = match prepared {
        Some(prepared) => generator.train_prepared(prepared, place, watch),
        None => generator.resume_with(place, watch),
    };
    bar.finish_and_clear();
    let training = result?;
    let (bundle, stopped) = (&training.bundle, training.stopped);
    let out = training.work.model();
    if let Some(progress) = last {
        let seconds = progress.elapsed.as_secs_f64();
        say(format_args!(
            "trained {} iterations ({}) in {:.1} s, {:.1} ms an iteration{}",
            progress.done_now,
            how_far(&progress),
            seconds,
            1e3 * seconds / progress.done_now.max(1) as f64,
            if stopped { "; stopped early, the model so far is kept" } else { "" },
        ));
    }
    let provenance = &bundle.manifest().provenance;
    for event in &provenance.events {
        say(format_args!("note: {event}"));
    }
    if let Some(choice) = &provenance.choice {
        for candidate in choice.candidates.iter().filter(|candidate| candidate.chosen) {
            let r = candidate.median_r.map_or("none".to_owned(), |r| format!("{r:.2}"));
            say(format_args!(
                "chose `{}` after {} iterations of {} candidates: median R {r} against the flows held out",
                candidate.cell,
                candidate.iteration,
                choice.candidates.len(),
            ));
        }
    }
    let work = (!temporary).then_some(place);
    let mut summary = summary(bundle, &out, work);
    summary["stopped"] = stopped.into();
    say(format_args!("wrote `{}`", out.display()));
    if stopped {
        let option = if temporary {
            format!("--out {}", out.display())
        } else {
            format!("--work {}", place.display())
        };
        say(format_args!("`ns-train train {option} --resume` goes on"));
    } else if temporary {
        training.work.remove()?;
    }
    Ok(Trained { summary, signals })
}

/// Better to know before an hour of training than after.
fn check_out(out: &Path, generator: &Generator) -> anyhow::Result<()> {
    if out.is_dir() {
        bail!("`--out {}` is a folder; expected a file name", out.display());
    }
    crate::files::refuse_input(out, &files::list(generator.checked_inputs()?)?)?;
    crate::files::check_writable(out).with_context(|| format!("cannot write `{}`", out.display()))
}

fn describe(
    prepared: &Prepared,
    generator: &Generator,
    args: &TrainingArgs,
) -> Result<(), GeneratorError> {
    let say = |text: std::fmt::Arguments<'_>| args.reporting.say(text);
    let Prepared { dataset, flows, records, not_used, share, remarks, .. } = prepared;
    let span_s = dataset.timeline.arrivals.span_ns() as f64 / 1e9;
    say(format_args!(
        "read {}: {records} records in {flows} flows over {span_s:.1} s",
        files::shown(generator.checked_inputs()?)
    ));
    let sampled = share / (1.0 - generator.held_out_share());
    if sampled < 1.0 - 1e-6 {
        say(format_args!(
            "learning from a seeded sample of {:.3}% of the flows (`--max-records {}`)",
            sampled * 100.0,
            args.input.max_records
        ));
    }
    for remark in remarks {
        say(format_args!("{remark}"));
    }
    if !not_used.is_empty() {
        let total: u64 = not_used.values().sum();
        say(format_args!("not used: {total} records{}", crate::ingest::reasons(not_used)));
    }
    if let Some(cut) = &dataset.schema.segmentation {
        say(format_args!(
            "flows above {} records are cut into segments: {} in all",
            cut.max_records,
            dataset.samples()
        ));
    }
    for note in &dataset.notes {
        say(format_args!("note: {note}"));
    }
    if dataset.chunks.len() > 1 {
        let samples: Vec<String> = dataset.chunks.iter().map(|c| c.len().to_string()).collect();
        say(format_args!(
            "{} chunks with networks of their own, of {} samples",
            samples.len(),
            samples.join(", ")
        ));
    }
    if args.verbose || args.dry_run {
        for (what, fields) in [
            ("attribute", &dataset.schema.attributes),
            ("measurement", &dataset.schema.measurements),
        ] {
            for field in fields {
                say(format_args!("  {what:11} {:12} {}", field.name, field.codec.describe()));
            }
        }
        let Some(dims) = dataset.chunks.first() else { return Ok(()) };
        let sum = |of: fn(&Samples) -> usize| dataset.chunks.iter().map(of).sum::<usize>();
        say(format_args!(
            "  {} values an attribute vector, {} a record, records up to {}; {:.1} bytes a record in memory",
            dims.attribute_layout.dim(),
            dims.measurement_layout.dim(),
            dims.room,
            sum(Samples::bytes) as f64 / sum(Samples::records).max(1) as f64
        ));
    }
    Ok(())
}

/// `2.0 epochs`, or of how many networks it was.
fn how_far(progress: &Progress) -> String {
    match (progress.cells, progress.chunks) {
        (1, 1) => format!("{:.1} epochs", progress.epochs),
        (1, chunks) => format!("{chunks} chunks"),
        (cells, 1) => format!("{cells} models"),
        (cells, chunks) => format!("{cells} models of {chunks} chunks"),
    }
}

fn summary(bundle: &Bundle, out: &Path, work: Option<&Path>) -> serde_json::Value {
    let manifest = bundle.manifest();
    let mut summary = json!({
        "bundle": out.display().to_string(),
        "flows": manifest.timeline.flows,
        "records": manifest.timeline.records,
        "span_s": manifest.timeline.arrivals.span_ns() as f64 / 1e9,
        "iterations": manifest.provenance.iterations,
        "seed": manifest.provenance.seed,
        "not_used": manifest.provenance.not_used,
    });
    if let Some(work) = work {
        summary["work"] = work.display().to_string().into();
    }
    summary
}
