//! The command `ns-train visualize`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::report;
use crate::Generator;
use crate::evaluate::Evaluation;
use crate::evaluate::cli::{CompareArgs, HowArgs, compare};
use crate::files::{self, CannotWrite};
use crate::generator::Judging;

/// What to make a report of.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ns-train visualize --work run                       what was generated there, against its input
  ns-train visualize --work run --real test.pcap      against flows that it has not seen
  ns-train visualize --real capture.pcap --synthetic synthetic.pcap --out report.html
Beside the page, a folder (plots in a work folder, else report-plots) gets every chart as SVG and
its data as CSV.")]
pub struct VisualizeArgs {
    /// A work folder: report.html, plots and evaluation.json are written there
    #[arg(long, value_name = "DIR", conflicts_with_all = ["synthetic", "train", "config", "out"])]
    work: Option<PathBuf>,
    /// The real trace: captures (pcap, pcapng) or tables, as they are or as gzip
    #[arg(long, value_name = "PATH", required_unless_present = "work")]
    real: Vec<PathBuf>,
    /// The synthetic trace, of the same kind
    #[arg(long, value_name = "PATH", required_unless_present = "work")]
    synthetic: Vec<PathBuf>,
    /// What the model was trained on, if that is not the real trace
    #[arg(long, value_name = "PATH")]
    train: Vec<PathBuf>,
    #[command(flatten)]
    how: HowArgs,
    /// The page to write [default: report.html]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Traces that cannot be compared, or a page that cannot be written.
pub(crate) fn run(args: VisualizeArgs) -> anyhow::Result<()> {
    let VisualizeArgs { work, real, synthetic, train, how, out } = args;
    if let Some(work) = work {
        let generator = Generator::from_work(&work)?;
        let judging = Judging { real, options: how.options(), quick: how.quick };
        let evaluation =
            how.with_bar(|done| Ok(generator.visualize_with(&work, &judging, done)?))?;
        say(&how, &evaluation, &work.join("report.html"), &work.join("plots"));
        return Ok(());
    }
    let page = out.unwrap_or_else(|| PathBuf::from("report.html"));
    for input in [&real, &synthetic, &train].into_iter().filter(|paths| !paths.is_empty()) {
        files::refuse_input(&page, &crate::ingest::files::list(input)?)?;
    }
    let sides = CompareArgs { real, synthetic, train, how };
    let (comparison, evaluation) = compare(&sides)?;
    let plots = plots_beside(&page);
    report(&comparison, &evaluation, &[])
        .write(&page, &plots)
        .map_err(|(path, error)| anyhow::Error::from(error).context(CannotWrite(path)))
        .context("no report")?;
    say(&sides.how, &evaluation, &page, &plots);
    Ok(())
}

fn say(how: &HowArgs, evaluation: &Evaluation, page: &Path, plots: &Path) {
    how.say_notes(evaluation);
    if how.quiet {
        return;
    }
    let summary = &evaluation.summary;
    let median = summary.median_r.map_or("none".to_owned(), |r| format!("{r:.2}"));
    eprintln!("median R {median}: {}", summary.verdict);
    eprintln!("wrote `{}`, and its charts to `{}`", page.display(), plots.display());
}

/// `report-plots` for `report.html`.
fn plots_beside(page: &Path) -> PathBuf {
    let stem = page.file_stem().unwrap_or_default().to_string_lossy();
    page.with_file_name(format!("{stem}-plots"))
}
