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
use crate::fit::{self, Prepared};
use crate::ingest::files;
use crate::input::InputArgs;
use crate::terminal::print;
use crate::train::Samples;
use crate::{Generator, GeneratorError, device};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ns-train train --input capture.pcap --out model.ns --max-minutes 5
  ns-train train --input flows.csv --config configs/netflow.json --epochs 40
  ns-train train --input monday.pcap.gz --input more/ --max-records 1000000
  ns-train train --input capture.pcap --work run    with the training curve, and all that it took
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
    #[arg(long, requires = "work")]
    overwrite: bool,
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

/// What both commands are told of the training.
#[derive(Debug, Args)]
struct TrainingArgs {
    #[command(flatten)]
    input: InputArgs,
    /// The bundle to write [default: model.ns, in the work folder if there is one]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Passes over the flows, instead of the configuration's; 0 writes an untrained model
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Stop training after this time, if it is not done before
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    max_minutes: Option<Duration>,
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

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "expected a number of minutes".to_owned())?;
    let most = 60.0 * 24.0 * 366.0;
    if !(minutes > 0.0 && minutes <= most) {
        return Err(format!("expected more than 0 and at most {most} minutes"));
    }
    Ok(Duration::from_secs_f64(minutes * 60.0))
}

impl TrainingArgs {
    /// The same as a library's user would say it.
    fn generator(&self, overwrite: bool) -> Result<Generator, GeneratorError> {
        let mut generator = self.input.generator()?.device(self.device);
        if let Some(epochs) = self.epochs {
            generator = generator.epochs(epochs);
        }
        if let Some(time) = self.max_minutes {
            generator = generator.max_time(time);
        }
        if let Some(out) = &self.out {
            generator = generator.bundle(out);
        }
        Ok(if overwrite { generator.overwrite(true) } else { generator })
    }
}

pub(super) fn train(args: &TrainArgs) -> anyhow::Result<Exit> {
    let generator = args.training.generator(args.overwrite)?;
    let Some(trained) = run(&args.training, &generator, args.work.as_deref())? else {
        return Ok(Exit::Done);
    };
    if args.training.reporting.json {
        print(&trained.summary.to_string())?;
    }
    Ok(trained.signals.exit())
}

pub(super) fn train_and_generate(args: &TrainAndGenerateArgs) -> anyhow::Result<Exit> {
    let TrainAndGenerateArgs { training, work, generation, .. } = args;
    let options = generation.options(training.input.seed, training.threads.unwrap_or(1));
    let generator = training.generator(args.overwrite)?.generation(options);
    generator.check_generation()?;
    let Some(trained) = run(training, &generator, Some(work))? else { return Ok(Exit::Done) };
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
) -> anyhow::Result<Option<Trained>> {
    let say = |text: std::fmt::Arguments<'_>| args.reporting.say(text);
    for notice in &generator.config().notices {
        say(format_args!("note: {notice}"));
    }
    let out = match (&args.out, work) {
        (Some(out), _) => out.clone(),
        (None, Some(work)) => work.join("model.ns"),
        (None, None) => PathBuf::from("model.ns"),
    };
    match work {
        _ if args.dry_run => {}
        Some(work) => generator.check(work)?,
        None => {
            if generator.config().overwrite {
                say(format_args!("note: `overwrite` is about work folders (`--work`) only"));
            }
            check_out(&out, generator)?;
        }
    }
    if let Some(threads) = args.threads {
        crate::train::set_threads(threads.into());
    }
    let prepared = generator.prepare()?;
    // From what is said next on, Ctrl-C keeps the model so far.
    let signals = Signals::listen()?;
    describe(&prepared, generator.checked_inputs()?, args);
    if args.dry_run {
        return Ok(None);
    }
    let bar = args.reporting.bar("training");
    let mut last = None;
    let watch = |progress: &fit::Progress| {
        show_training(&bar, progress, args.max_minutes);
        last = Some(*progress);
        signals.go_on()
    };
    let result = match work {
        Some(work) => generator.train_prepared(prepared, work, watch).map(|done| done.bundle),
        None => generator.fit(prepared, watch),
    };
    bar.finish_and_clear();
    let bundle = result?;
    if work.is_none() {
        bundle.write(&out)?;
    }
    if let Some(progress) = last {
        let seconds = progress.elapsed.as_secs_f64();
        say(format_args!(
            "trained {} iterations ({}) in {:.1} s, {:.1} ms an iteration{}",
            progress.iteration,
            how_far(&progress),
            seconds,
            1e3 * seconds / progress.iteration as f64,
            if signals.go_on() { "" } else { "; stopped early, the model so far is kept" },
        ));
    }
    say(format_args!("wrote `{}`", out.display()));
    let summary = summary(&bundle, &out, work);
    Ok(Some(Trained { summary, signals }))
}

/// Better to know before an hour of training than after.
fn check_out(out: &Path, generator: &Generator) -> anyhow::Result<()> {
    if out.is_dir() {
        bail!("`--out {}` is a folder; expected a file name", out.display());
    }
    crate::files::refuse_input(out, &files::list(generator.checked_inputs()?)?)?;
    crate::files::check_writable(out).with_context(|| format!("cannot write `{}`", out.display()))
}

fn describe(prepared: &Prepared, inputs: &[PathBuf], args: &TrainingArgs) {
    let say = |text: std::fmt::Arguments<'_>| args.reporting.say(text);
    let Prepared { dataset, flows, records, not_used, share, remarks, .. } = prepared;
    let span_s = dataset.timeline.arrivals.span_ns() as f64 / 1e9;
    say(format_args!(
        "read {}: {records} records in {flows} flows over {span_s:.1} s",
        files::shown(inputs)
    ));
    if *share < 1.0 {
        say(format_args!(
            "learning from a seeded sample of {:.3}% of the flows (`--max-records {}`)",
            share * 100.0,
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
        let Some(dims) = dataset.chunks.first() else { return };
        let sum = |of: fn(&Samples) -> usize| dataset.chunks.iter().map(of).sum::<usize>();
        say(format_args!(
            "  {} values an attribute vector, {} a record, records up to {}; {:.1} bytes a record in memory",
            dims.attribute_layout.dim(),
            dims.measurement_layout.dim(),
            dims.room,
            sum(Samples::bytes) as f64 / sum(Samples::records).max(1) as f64
        ));
    }
}

/// `2.0 epochs`, or which of several chunks the last iteration was in.
fn how_far(progress: &fit::Progress) -> String {
    match progress.chunks {
        1 => format!("{:.1} epochs", progress.epochs),
        chunks => format!("{} of {chunks} chunks", progress.chunk + 1),
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
