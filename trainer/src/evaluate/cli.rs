//! `ns-train evaluate`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use ns_runtime::exit::Exit;

use super::report::Evaluation;
use super::{Comparison, Done, Options, Sides, evaluate, inputs, text};
use crate::ingest::sample::DEFAULT_MAX_RECORDS;
use crate::ingest::{OnError, Reading};
use crate::terminal;

/// What to compare.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ns-train evaluate --real capture.pcap --synthetic synthetic.pcap
  ns-train evaluate --real test.csv --train train.csv --synthetic flows.csv --config my.json
  ns-train evaluate --real capture.pcap --synthetic synthetic.pcap --json --fail-above 2
R is the distance between real and synthetic over that between two random halves of the real
flows: 1 means as near as the trace is to itself. With --train, --real is to hold flows that the
model has not seen: `ns-train split` makes such parts.
Exit codes:
  0 done, 1 further away than --fail-above allows, 2 wrong usage or input")]
pub struct EvaluateArgs {
    #[command(flatten)]
    pub(crate) compare: CompareArgs,
    /// End with exit code 1 if the median R is above this, or if the synthetic trace differs where
    /// the real one never varies
    #[arg(long, value_name = "R", value_parser = ratio)]
    fail_above: Option<f64>,
    /// Print one JSON document to standard output instead of tables
    #[arg(long)]
    json: bool,
}

/// Two traces, and how they are compared.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The real trace: captures (pcap, pcapng) or tables, as they are or as gzip
    #[arg(long, value_name = "PATH", required = true)]
    pub(crate) real: Vec<PathBuf>,
    /// The synthetic trace, of the same kind
    #[arg(long, value_name = "PATH", required = true)]
    pub(crate) synthetic: Vec<PathBuf>,
    /// What the model was trained on, if that is not the real trace: the baseline is fitted on it,
    /// and copies are looked for in it
    #[arg(long, value_name = "PATH")]
    pub(crate) train: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

/// How traces are compared.
#[derive(Debug, Args)]
pub struct HowArgs {
    /// Fields of a table, as for training; without it, what `ns-train init` would choose. Captures
    /// are always compared in the fields of packets
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Times that the real trace is halved
    #[arg(long, value_name = "N", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    splits: u16,
    /// Seed of the halves, and of all else that is drawn
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Without the Markov chain that is fitted and judged beside the model
    #[arg(long)]
    no_baseline: bool,
    /// Only fields, joint, sequence and protocol: no downstream tasks, classifier, copies
    #[arg(long)]
    pub(crate) quick: bool,
    /// Records of each trace to compare at most; of more, a seeded sample of whole flows
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_RECORDS)]
    #[arg(value_parser = clap::value_parser!(u32).range(100..))]
    max_records: u32,
    /// A damaged record or bad cell: stop with an error, or skip and count it
    #[arg(long, value_enum, default_value_t)]
    on_error: OnError,
    /// Say nothing but errors and the result
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// No progress bar
    #[arg(long)]
    no_progress: bool,
}

/// Runs the command.
///
/// # Errors
/// A trace that cannot be read, of the wrong kind, or too small to be halved.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<Exit> {
    let (_, evaluation) = compare(&args.compare)?;
    args.compare.how.say_notes(&evaluation);
    let printed = if args.json {
        serde_json::to_string_pretty(&evaluation).context("cannot write the evaluation as JSON")?
    } else {
        text::tables(&evaluation)
    };
    terminal::print(printed.trim_end()).context("cannot print the evaluation")?;
    let summary = &evaluation.summary;
    let Some(most) = args.fail_above else { return Ok(Exit::Done) };
    // What has no ratio cannot be said to be near enough.
    let is_far = summary.median_r.is_none_or(|median| median > most);
    if is_far {
        let median = summary.median_r.map_or("none".to_owned(), |median| format!("{median:.2}"));
        eprintln!("the median R is {median}, above {most}");
    }
    if !summary.broken.is_empty() {
        let broken = summary.broken.join("`, `");
        eprintln!("the real trace never varies there, and the synthetic one differs: `{broken}`");
    }
    Ok(if is_far || !summary.broken.is_empty() { Exit::Failed } else { Exit::Done })
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if ratio >= 0.0 && f64::is_finite(ratio) => Ok(ratio),
        _ => Err("expected a number of 0 or more".to_owned()),
    }
}

/// Reads traces and compares them.
pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<(Comparison, Evaluation)> {
    let how = &args.how;
    if how.config.is_some() && crate::input::is_capture(&args.real)? && !how.quiet {
        eprintln!("note: `--config` is for tables; captures are compared in the fields of packets");
    }
    let fields = inputs::fields(&args.real, how.config.as_deref(), how.reading())?;
    let sides = Sides {
        real: args.real.clone(),
        synthetic: args.synthetic.clone(),
        train: args.train.clone(),
    };
    how.with_bar(|done| {
        let (comparison, names) =
            inputs::compare(&sides, &fields, how.reading(), how.options(), done)?;
        let evaluation = evaluate(&comparison, &names, how.quick, done)?;
        Ok((comparison, evaluation))
    })
}

impl HowArgs {
    pub(crate) fn options(&self) -> Options {
        Options { splits: self.splits.into(), seed: self.seed, baseline: !self.no_baseline }
    }

    fn reading(&self) -> Reading {
        let (on_error, max_records) = (self.on_error, self.max_records);
        Reading { on_error, max_records, seed: self.seed, held_out: 0 }
    }

    /// Works with a bar.
    pub(crate) fn with_bar<T>(
        &self,
        work: impl FnOnce(&mut Done<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let bar = terminal::progress_bar("evaluating", self.quiet || self.no_progress);
        bar.enable_steady_tick(Duration::from_millis(200));
        let result = work(&mut |what, share| {
            bar.set_message(what.to_owned());
            bar.set_position((share * 1000.0) as u64);
        });
        bar.finish_and_clear();
        result
    }

    /// Says what was done to the traces.
    pub(crate) fn say_notes(&self, evaluation: &Evaluation) {
        if !self.quiet {
            evaluation.notes.iter().for_each(|note| eprintln!("note: {note}"));
        }
    }
}
