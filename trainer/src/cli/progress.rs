//! What commands say while they work, and how much of it.

use std::fmt::Arguments;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::fit;
use crate::generate::Generating;

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
        let shown = !self.quiet && !self.no_progress && std::io::stderr().is_terminal();
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(1000), target);
        let template = format!("{what} [{{bar:30}}] {{percent:>3}}% {{msg}}");
        // The template is ours and valid; if it were not, the default would do.
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar
    }
}

/// Shows how training goes.
pub(super) fn show_training(bar: &ProgressBar, progress: &fit::Progress, limit: Option<Duration>) {
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

/// Shows how generation goes.
pub(super) fn show_generation(bar: &ProgressBar, progress: &Generating) {
    if bar.is_hidden() {
        return;
    }
    bar.set_position((progress.share.unwrap_or(0.0) * 1000.0) as u64);
    let (records, flows) = (HumanCount(progress.records), HumanCount(progress.flows));
    bar.set_message(format!("{records} records of {flows} flows"));
}
