//! The command line of `ns-train unit`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ns_runtime::exit::Exit;

use super::signals::Signals;
use super::train::minutes;
use crate::autoregressive::ModelClass;
use crate::units::{Ended, Means, Plan, run_unit};
use crate::{GeneratorError, WorkFolder, device};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ns-train train --input capture.pcap --config grid.json --work run --plan-only
  ns-train status --work run                          the units, and which are ready
  ns-train unit --work run sample_len=5/chunk-0       on any machine that sees the folder
  ns-train generate --work run --parts 8 --plan-only
  ns-train unit --work run generate/part-0
A unit is ready when all its inputs are there, and done when all its outputs are: `units/plan.json`
(of generation, `generation/plan.json`) names them. A unit that was killed goes on from its last checkpoint when it is started again.")]
pub(super) struct UnitArgs {
    /// The unit, as `ns-train status` names it
    name: String,
    /// The work folder of a training
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Stop training after this time, if it is not done before; the unit is then done
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    max_minutes: Option<Duration>,
    /// Where to train: auto, cpu, or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: device::Choice,
    /// Threads to train or generate with; the result does not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

pub(super) fn run(args: &UnitArgs) -> anyhow::Result<Exit> {
    let work = WorkFolder::open(&args.work).map_err(GeneratorError::from)?;
    let plan = Plan::read_with(&work, &args.name).map_err(GeneratorError::from)?;
    let unit = plan.unit(&args.name).map_err(GeneratorError::from)?;
    let signals = Signals::listen()?;
    // All models of a plan are of one class.
    let class = match plan.cells.first() {
        Some(cell) => work.cell(&cell.name).map_err(GeneratorError::from)?.class(),
        None => ModelClass::Doppelganger,
    };
    let opened = args.device.open_for(class);
    let device = opened.map_err(|error| GeneratorError::Device { reason: format!("{error:#}") })?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or_else(cores, usize::from);
    let means = Means { device: &device, threads, time: args.max_minutes, onnxruntime: None };
    let ended = run_unit(&work, &plan, unit, means, &mut |_| signals.go_on());
    match ended.map_err(GeneratorError::from)? {
        Ended::Done => eprintln!("`{}` is done", unit.name),
        Ended::Stopped => eprintln!("`{}` was stopped; started again, it goes on", unit.name),
    }
    Ok(signals.exit())
}
