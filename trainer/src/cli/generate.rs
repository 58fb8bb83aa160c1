//! The command line of `ns-train generate`.

use std::path::{Path, PathBuf};

use clap::Args;
use ns_runtime::GenerateOptions;
use ns_runtime::exit::Exit;
use ns_runtime::stats::{Ending, Report};

use super::progress::{Reporting, show_generation};
use super::signals::Signals;
use crate::terminal::print;
use crate::units::Ended;
use crate::{Generator, GeneratorError, WorkFolder};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ns-train generate --work run
  ns-train generate --work run --flows 100000 --seed 2 --overwrite
  ns-train generate --work run --flows 1000000 --parts 8 --threads 4    goes on where it was killed
Other places than a file, and more to choose from:
  ns-replay --bundle run/model.ns --pcap udp.pcap --where proto=17")]
pub(super) struct GenerateArgs {
    /// The work folder of a training; `synthetic.pcap` or `synthetic.csv` is written there
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    #[command(flatten)]
    generation: GenerationArgs,
    /// The same seed and model give the same trace [default: that of the training]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Threads to generate with; the result does not depend on it
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Generate in so many parts, as many at once as there are threads, and merge them: the same
    /// trace. A part that is done stays when the command is killed, until the trace is whole
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=512))]
    parts: Option<u64>,
    /// Write the plan of the parts and generate nothing: `ns-train unit` does them one by one, on
    /// any machine
    #[arg(long, requires = "parts")]
    plan_only: bool,
    /// Write over a trace that exists; what was said of it is removed
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    reporting: Reporting,
}

/// How much is generated, and with what.
#[derive(Debug, Args)]
pub(super) struct GenerationArgs {
    /// Generate so many flows; without it, one trained span
    #[arg(long, value_name = "N")]
    flows: Option<u64>,
    /// The ONNX Runtime library, which then runs all of the networks
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
}

impl GenerationArgs {
    /// The same as the runtime's options.
    pub(super) fn options(&self, seed: u64, threads: u16) -> GenerateOptions {
        let mut options = GenerateOptions::default();
        options.seed = seed;
        options.threads = threads.into();
        options.flows = self.flows;
        options.onnxruntime = self.onnxruntime.clone();
        options
    }
}

pub(super) fn generate(args: &GenerateArgs) -> anyhow::Result<Exit> {
    let generator = Generator::from_work(&args.work)?;
    let seed = args.seed.unwrap_or_else(|| generator.seed_used());
    let generator = generator.generation(args.generation.options(seed, args.threads));
    let generator = if args.overwrite { generator.overwrite(true) } else { generator };
    if let Some(parts) = args.parts {
        return in_parts(&generator, args, parts);
    }
    let signals = Signals::listen()?;
    let report = run(&generator, &args.work, &args.reporting, &signals)?;
    if args.reporting.json {
        print(&serde_json::to_string(&report)?)?;
    }
    Ok(signals.exit())
}

fn in_parts(generator: &Generator, args: &GenerateArgs, parts: u64) -> anyhow::Result<Exit> {
    let (work, reporting) = (&args.work, &args.reporting);
    if args.plan_only {
        generator.plan_parts(work, parts)?;
        let work = work.display();
        reporting.say(format_args!(
            "planned {parts} parts and their merging in `{work}`; `ns-train status --work {work}` \
             lists them"
        ));
        return Ok(Exit::Done);
    }
    let signals = Signals::listen()?;
    let bar = reporting.bar("generating");
    let mut last = None;
    let result = generator.generate_parts_with(work, parts, |progress| {
        last = Some(*progress);
        show_generation(&bar, progress);
        signals.go_on()
    });
    bar.finish_and_clear();
    match (result?, last) {
        (Ended::Stopped, _) => reporting.say(format_args!(
            "stopped; the same command goes on with the parts that are not done"
        )),
        (Ended::Done, made) => {
            let path = WorkFolder::open(work)?.synthetic();
            let (records, flows) = made.map_or((0, 0), |made| (made.records, made.flows));
            if reporting.json {
                let target = path.display().to_string();
                let json =
                    serde_json::json!({ "target": target, "records": records, "flows": flows });
                print(&json.to_string())?;
            }
            let path = path.display();
            reporting.say(format_args!("`{path}`: {records} records of {flows} flows"));
        }
    }
    Ok(signals.exit())
}

/// Generates with a bar, and says what was done.
pub(super) fn run(
    generator: &Generator,
    work: &Path,
    reporting: &Reporting,
    signals: &Signals,
) -> Result<Report, GeneratorError> {
    let bar = reporting.bar("generating");
    let result = generator.generate_with(work, |progress| {
        show_generation(&bar, progress);
        signals.go_on()
    });
    bar.finish_and_clear();
    let report = result?;
    reporting.say(format_args!("{}", report.to_text().trim_end()));
    if report.ending != Ending::Done {
        reporting.say(format_args!("stopped early; what is written is whole"));
    }
    Ok(report)
}
