//! The command line of `ns-train`.

use clap::{Parser, Subcommand};
use ns_model_format::BundleError;
use ns_runtime::exit::Exit;

use crate::files::CannotWrite;
use crate::generate::GenerateError;
use crate::{GeneratorError, WorkError};
use crate::{check, convert, evaluate, init, split, visualize};

mod generate;
mod progress;
mod signals;
mod status;
mod train;
mod unit;

const EXIT_CODES: &str = "\
Exit codes:
  0 done, 1 training or generation failed, 2 wrong usage or input, 7 output not written,
  130 or 143 stopped by SIGINT or SIGTERM (the model so far, or a whole trace, is kept)";

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
    Train(train::TrainArgs),
    /// Say how a training stands, while it runs or after.
    Status(status::StatusArgs),
    /// Do one unit of work of a training, for schedulers of many machines.
    Unit(unit::UnitArgs),
    /// Generate a synthetic trace in a work folder, from its model.
    Generate(generate::GenerateArgs),
    /// Train a model in a work folder, and generate a synthetic trace there.
    TrainAndGenerate(train::TrainAndGenerateArgs),
    /// Write captures as a table, CSV or Parquet.
    Convert(convert::ConvertArgs),
    /// Compare a synthetic trace with the real one.
    Evaluate(evaluate::cli::EvaluateArgs),
    /// Compare them, and make a page with pictures of it.
    Visualize(visualize::cli::VisualizeArgs),
}

/// Parses the command line and runs it; errors go to standard error.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let result = match Cli::parse().command {
        Command::Init(args) => init::run(&args).map(|()| Exit::Done),
        Command::Check(args) => check::run(&args).map(|()| Exit::Done),
        Command::Split(args) => split::run(&args).map(|()| Exit::Done),
        Command::Train(args) => train::train(&args),
        Command::Status(args) => status::run(&args).map(|()| Exit::Done),
        Command::Unit(args) => unit::run(&args),
        Command::Generate(args) => generate::generate(&args),
        Command::TrainAndGenerate(args) => train::train_and_generate(&args),
        Command::Convert(args) => convert::run(&args).map(|()| Exit::Done),
        Command::Evaluate(args) => evaluate::cli::run(&args),
        Command::Visualize(args) => visualize::cli::run(args).map(|()| Exit::Done),
    };
    result
        .unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            if let Some(hint) = error.downcast_ref().and_then(GeneratorError::hint) {
                eprintln!("hint: {hint}");
            }
            exit_of(&error)
        })
        .into()
}

/// The exit code of an error: training that diverged has failed, an output
/// that cannot be written is one, everything else is wrong input.
fn exit_of(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<GeneratorError>() {
        Some(GeneratorError::Unit(error)) if error.is_training() => Exit::Failed,
        Some(GeneratorError::Unit(error)) if error.is_output() => Exit::Output,
        Some(GeneratorError::NoModelYet { .. }) => Exit::Interrupted,
        Some(GeneratorError::Bundle(BundleError::Io { .. })) => Exit::Output,
        Some(GeneratorError::Work(WorkError::Write { .. })) => Exit::Output,
        Some(GeneratorError::Generate(GenerateError::Runtime(error))) => Exit::of_runtime(error),
        Some(GeneratorError::Generate(GenerateError::Sink(error))) => Exit::of_sink(error),
        Some(_) => Exit::Usage,
        None if error.is::<CannotWrite>() => Exit::Output,
        None => match error.downcast_ref() {
            Some(BundleError::Io { .. }) => Exit::Output,
            _ => Exit::Usage,
        },
    }
}
