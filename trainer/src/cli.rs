//! The command line of `ns-train`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use indicatif::ProgressBar;
use ns_model_format::{Bundle, BundleError};
use ns_runtime::exit::Exit;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::config::TrainingLength;
use crate::files::CannotWrite;
use crate::fit::{self, Limits, Prepared};
use crate::ingest::files;
use crate::input::InputArgs;
use crate::terminal::progress_bar;
use crate::train::Samples;
use crate::{check, convert, device, evaluate, init, split, visualize};

const EXIT_CODES: &str = "\
Exit codes:
  0 done, 1 training failed, 2 wrong usage or input, 7 output not written,
  130 or 143 stopped by SIGINT or SIGTERM (the model so far is kept)";

/// Fits a generative model to a capture or CSV, for ns-replay to stream from.
#[derive(Debug, Parser)]
#[command(name = "ns-train", version, about, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at an input and write a configuration for it.
    Init(init::InitArgs),
    /// Say what an input would teach, and what speaks against it.
    Check(check::CheckArgs),
    /// Cut an input into parts that share no flow.
    Split(split::SplitArgs),
    /// Train a model and write it as one file.
    Train(TrainArgs),
    /// Write captures as a table, CSV or Parquet.
    Convert(convert::ConvertArgs),
    /// Compare a synthetic trace with the real one.
    Evaluate(evaluate::cli::EvaluateArgs),
    /// The same as a page with pictures.
    Visualize(visualize::cli::VisualizeArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ns-train train --input capture.pcap --out model.ns --max-minutes 5
  ns-train train --input flows.csv --config configs/netflow.json --epochs 40
  ns-train train --input monday.pcap.gz --input more/ --max-records 1000000
  ns-train train --input capture.pcap --dry-run     what would be learned, without training
Then:
  ns-replay --bundle model.ns --pcap synthetic.pcap")]
struct TrainArgs {
    #[command(flatten)]
    input: InputArgs,
    /// The bundle to write
    #[arg(long, value_name = "FILE", default_value = "model.ns")]
    out: PathBuf,
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
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// No progress bar
    #[arg(long)]
    no_progress: bool,
    /// Print one JSON document about the result to standard output
    #[arg(long)]
    json: bool,
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "expected a number of minutes".to_owned())?;
    let most = 60.0 * 24.0 * 366.0;
    if !(minutes > 0.0 && minutes <= most) {
        return Err(format!("expected more than 0 and at most {most} minutes"));
    }
    Ok(Duration::from_secs_f64(minutes * 60.0))
}

/// Parses the command line and runs it; errors go to standard error.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let result = match Cli::parse().command {
        Command::Init(args) => init::run(&args).map(|()| Exit::Done),
        Command::Check(args) => check::run(&args).map(|()| Exit::Done),
        Command::Split(args) => split::run(&args).map(|()| Exit::Done),
        Command::Train(args) => train(&args),
        Command::Convert(args) => convert::run(&args).map(|()| Exit::Done),
        Command::Evaluate(args) => evaluate::cli::run(&args),
        Command::Visualize(args) => visualize::cli::run(&args).map(|()| Exit::Done),
    };
    result
        .unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            exit_of(&error)
        })
        .into()
}

/// The exit code of an error: training that diverged has failed, an output
/// that cannot be written is one, everything else is wrong input.
fn exit_of(error: &anyhow::Error) -> Exit {
    match error.downcast_ref() {
        Some(fit::FitError::Train(_)) => Exit::Failed,
        Some(fit::FitError::Bundle(BundleError::Io { .. })) => Exit::Output,
        _ => match error.downcast_ref() {
            Some(BundleError::Io { .. }) => Exit::Output,
            _ if error.is::<CannotWrite>() => Exit::Output,
            _ => Exit::Usage,
        },
    }
}

fn train(args: &TrainArgs) -> anyhow::Result<Exit> {
    let say = |text: std::fmt::Arguments<'_>| {
        if !args.quiet {
            eprintln!("{text}");
        }
    };
    let (mut resolved, inputs) = args.input.configure()?;
    let seed = args.input.seed;
    for notice in &resolved.notices {
        say(format_args!("note: {notice}"));
    }
    if let Some(epochs) = args.epochs {
        resolved.length = TrainingLength::Epochs(epochs);
    }
    if !args.dry_run {
        crate::files::refuse_input(&args.out, &files::list(&inputs)?)?;
        check_writable(&args.out)?;
    }
    if let Some(threads) = args.threads {
        crate::train::set_threads(threads.into());
    }
    let device = args.device.open()?;
    let prepared = fit::prepare(&inputs, &resolved, seed, args.input.reading())?;
    // From what is said next on, Ctrl-C keeps the model so far.
    let stopped_by = listen_for_signals().context("cannot listen for Ctrl-C")?;
    let signal = || stopped_by.load(Ordering::Relaxed) as i32;
    describe(&prepared, &inputs, args, &say);
    if args.dry_run {
        return Ok(Exit::Done);
    }
    let limits = Limits { time: args.max_minutes };
    let bar = progress_bar("training", args.quiet || args.no_progress);
    let mut last = None;
    let result = fit::train(prepared, &resolved, seed, limits, &device, |progress| {
        show_progress(&bar, progress, args.max_minutes);
        last = Some(*progress);
        signal() == 0
    });
    bar.finish_and_clear();
    let bundle = result?;
    bundle.write(&args.out)?;
    if let Some(progress) = last {
        let seconds = progress.elapsed.as_secs_f64();
        say(format_args!(
            "trained {} iterations ({}) in {:.1} s, {:.1} ms an iteration{}",
            progress.iteration,
            how_far(&progress),
            seconds,
            1e3 * seconds / progress.iteration as f64,
            if signal() == 0 { "" } else { "; stopped early, the model so far is kept" },
        ));
    }
    say(format_args!("wrote `{}`", args.out.display()));
    if args.json {
        println!("{}", summary(&bundle, &args.out));
    }
    Ok(match signal() {
        SIGINT => Exit::Interrupted,
        SIGTERM => Exit::Terminated,
        _ => Exit::Done,
    })
}

/// Where the number of a signal that asks to stop will stand; 0 until then. A
/// second one ends the process at once.
fn listen_for_signals() -> std::io::Result<Arc<AtomicUsize>> {
    let stopped_by = Arc::new(AtomicUsize::new(0));
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Handlers run in the order of registration: on the first signal the flag is not set yet.
        let code = 128 + signal;
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&again))?;
        signal_hook::flag::register(signal, Arc::clone(&again))?;
        signal_hook::flag::register_usize(signal, Arc::clone(&stopped_by), signal as usize)?;
    }
    Ok(stopped_by)
}

/// Better to know before an hour of training than after.
fn check_writable(out: &Path) -> anyhow::Result<()> {
    if out.is_dir() {
        bail!("`--out {}` is a folder; expected a file name", out.display());
    }
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    tempfile::Builder::new()
        .prefix(".model-")
        .tempfile_in(folder)
        .map(drop)
        .with_context(|| format!("cannot write `{}`", out.display()))
}

fn describe(
    prepared: &Prepared,
    inputs: &[PathBuf],
    args: &TrainArgs,
    say: &dyn Fn(std::fmt::Arguments<'_>),
) {
    let fit::Prepared { dataset, flows, records, not_used, share, remarks, .. } = prepared;
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

fn show_progress(bar: &ProgressBar, progress: &fit::Progress, limit: Option<Duration>) {
    if bar.is_hidden() {
        return;
    }
    let done = progress.iteration as f64 / progress.iterations.max(1) as f64;
    let seconds = progress.elapsed.as_secs_f64();
    let by_time = limit.map_or(0.0, |limit| seconds / limit.as_secs_f64());
    let share = done.max(by_time).min(1.0);
    bar.set_position((share * 1000.0) as u64);
    let left = if share > 0.0 { seconds / share - seconds } else { 0.0 };
    bar.set_message(format!(
        "{}epoch {:.1}, {:.1} it/s, critic {:.3}, generator {:.3}, {} left",
        match progress.chunks {
            1 => String::new(),
            chunks => format!("chunk {} of {chunks}, ", progress.chunk + 1),
        },
        progress.epochs,
        progress.iteration as f64 / seconds.max(1e-9),
        progress.losses.critic,
        progress.losses.generator,
        indicatif::HumanDuration(Duration::from_secs_f64(left)),
    ));
}

fn summary(bundle: &Bundle, out: &Path) -> serde_json::Value {
    let manifest = bundle.manifest();
    serde_json::json!({
        "bundle": out.display().to_string(),
        "flows": manifest.timeline.flows,
        "records": manifest.timeline.records,
        "span_s": manifest.timeline.arrivals.span_ns() as f64 / 1e9,
        "iterations": manifest.provenance.iterations,
        "seed": manifest.provenance.seed,
        "not_used": manifest.provenance.not_used,
    })
}
