//! The command line of `ns-train status`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::curve::{Adversarial, Likelihood, Point};
use crate::terminal::print;
use crate::units::status::{self, State, Status, UnitStatus};
use crate::{GeneratorError, WorkFolder};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ns-train status --work run
  ns-train status --work run --json
Training without `--work` to `model.ns` is at work in `model.ns.work`:
  ns-train status --work model.ns.work")]
pub(super) struct StatusArgs {
    /// The work folder of a training
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Print one JSON document to standard output
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let work = WorkFolder::open(&args.work).map_err(GeneratorError::from)?;
    let status = status::read(&work).map_err(GeneratorError::from)?;
    match args.json {
        true => print(&serde_json::to_string_pretty(&status)?)?,
        false => print(table(&status).trim_end())?,
    }
    Ok(())
}

fn name(state: State) -> &'static str {
    match state {
        State::Done => "done",
        State::Running => "running",
        State::Stopped => "stopped",
        State::Ready => "ready",
        State::Waiting => "waiting",
        State::Failed => "failed",
    }
}

/// For people.
fn table(status: &Status) -> String {
    let left = status.left_s.map_or_else(String::new, |s| format!(", about {} left", time(s)));
    let percent = 100.0 * status.iteration as f64 / status.iterations.max(1) as f64;
    let mut text = format!(
        "{}: {} of {} iterations ({percent:.0}%){left}\n\n",
        name(status.state),
        status.iteration,
        status.iterations
    );
    let width = status.units.iter().map(|unit| unit.name.len()).max().unwrap_or(0).max(4);
    let has_likelihood = |unit: &UnitStatus| unit.last.is_some_and(|l| l.likelihood.is_some());
    let losses = match status.units.iter().any(has_likelihood) {
        true => ["nats", "validation"],
        false => ["gap", "gradients"],
    };
    text += &format!(
        "{:width$}  {:8}{:>17}{:>9}{:>10}{:>9}{:>12}{:>9}{:>10}\n",
        "unit",
        "state",
        "iterations",
        "epochs",
        "flows/s",
        losses[0],
        losses[1],
        "left",
        "last seen"
    );
    for unit in &status.units {
        text += line(unit, width).trim_end();
        text.push('\n');
        if let Some(reason) = &unit.reason {
            text += &format!("{:width$}  {reason}\n", "");
        }
    }
    text
}

fn line(unit: &UnitStatus, width: usize) -> String {
    let start = format!("{:width$}  {:8}", unit.name, name(unit.state));
    let Some(last) = unit.last else { return start };
    let running = unit.state == State::Running;
    let of = |time_of: Option<f64>| time_of.filter(|_| running).map_or_else(String::new, time);
    let [first, second] = losses(&last);
    format!(
        "{start}{:>17}{:>9.1}{:>10.0}{first:>9}{second:>12}{:>9}{:>10}",
        format!("{}/{}", last.iteration, unit.iterations),
        last.epochs,
        last.samples_per_s,
        of(unit.left_s),
        of(unit.age_s),
    )
}

/// What the networks' losses say, in two cells.
fn losses(last: &Point) -> [String; 2] {
    if let Some(Likelihood { nats, nats_validation, .. }) = last.likelihood {
        let validation = nats_validation.map_or(String::new(), |nats| format!("{nats:.3}"));
        return [format!("{nats:.3}"), validation];
    }
    let Adversarial { gap, generator_gradient, critic_gradient, .. } =
        last.adversarial.unwrap_or_default();
    [format!("{gap:.3}"), format!("{generator_gradient:.2} {critic_gradient:.2}")]
}

/// A time in the unit that suits it.
fn time(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).as_secs();
    match seconds {
        ..100 => format!("{seconds} s"),
        100..6_000 => format!("{} min", seconds / 60),
        6_000..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
