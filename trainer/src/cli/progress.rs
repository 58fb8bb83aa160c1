//! What commands say while they work, and how much of it.

use std::fmt::Arguments;
use std::time::Duration;

use clap::Args;
use indicatif::{HumanCount, ProgressBar};

use crate::curve::Likelihood;
use crate::generate::Generating;
use crate::terminal::progress_bar;
use crate::units::Progress;

/// How much a command says.
#[derive(Debug, Args)]
pub(super) struct Reporting {
    /// Say nothing but errors
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// No progress bar
    #[arg(long)]
    no_progress: bool,
    /// Print one JSON document about the result to standard output
    #[arg(long)]
    pub(super) json: bool,
}

impl Reporting {
    /// A line for people.
    pub(super) fn say(&self, text: Arguments<'_>) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// A bar from 0 to 1000, on a terminal.
    pub(super) fn bar(&self, what: &str) -> ProgressBar {
        progress_bar(what, self.quiet || self.no_progress)
    }
}

/// Shows how training goes.
pub(super) fn show_training(bar: &ProgressBar, progress: &Progress, limit: Option<Duration>) {
    if bar.is_hidden() {
        return;
    }
    let done = progress.iteration as f64 / progress.iterations.max(1) as f64;
    let seconds = progress.elapsed.as_secs_f64();
    let by_time = limit.map_or(0.0, |limit| seconds / limit.as_secs_f64());
    bar.set_position((done.max(by_time).min(1.0) * 1000.0) as u64);
    let rate = progress.done_now as f64 / seconds.max(1e-9);
    let by_length = progress.iterations.saturating_sub(progress.iteration) as f64 / rate.max(1e-9);
    let left = match limit {
        Some(limit) => by_length.min((limit.as_secs_f64() - seconds).max(0.0)),
        None => by_length,
    };
    let which = |what: &str, number: usize, of: usize| match of {
        1 => String::new(),
        of => format!("{what} {} of {of}, ", number + 1),
    };
    let losses = match progress.likelihood {
        Some(Likelihood { nats, nats_validation: Some(validation), .. }) => {
            format!("{nats:.3} nats a record, validation {validation:.3}")
        }
        Some(Likelihood { nats, .. }) => format!("{nats:.3} nats a record"),
        None => {
            format!("gap {:.3}, generator {:.3}", progress.losses.gap, progress.losses.generator)
        }
    };
    bar.set_message(format!(
        "{}{}epoch {:.1}, {} flows/s, {losses}, {} left",
        which("model", progress.cell, progress.cells),
        which("chunk", progress.chunk, progress.chunks),
        progress.epochs,
        HumanCount((rate * progress.batch_size as f64) as u64),
        indicatif::HumanDuration(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX)),
    ));
}

/// Shows how generation goes.
pub(super) fn show_generation(bar: &ProgressBar, progress: &Generating) {
    if bar.is_hidden() {
        return;
    }
    bar.set_position((progress.share.unwrap_or(0.0) * 1000.0) as u64);
    let (records, flows) = (HumanCount(progress.records), HumanCount(progress.flows));
    bar.set_message(format!("{records} records of {flows} flows"));
}
