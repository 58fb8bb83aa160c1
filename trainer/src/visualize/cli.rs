//! The command `ns-train visualize`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::{Report, report};
use crate::evaluate::cli::{CompareArgs, compare};
use crate::files::{self, CannotWrite};

/// What to make a report of.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ns-train visualize --real capture.pcap --synthetic synthetic.pcap --out report.html
Beside the page, a folder (here report-plots) gets every chart as SVG and its data as CSV.")]
pub struct VisualizeArgs {
    #[command(flatten)]
    compare: CompareArgs,
    /// The page to write
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Traces that cannot be compared, or a page that cannot be written.
pub(crate) fn run(args: &VisualizeArgs) -> anyhow::Result<()> {
    let sides = &args.compare;
    let inputs = [&sides.real, &sides.synthetic, &sides.train];
    for input in inputs.into_iter().filter(|paths| !paths.is_empty()) {
        files::refuse_input(&args.out, &crate::ingest::files::list(input)?)?;
    }
    let (comparison, evaluation) = compare(sides)?;
    let report = report(&comparison, &evaluation, &[]);
    let plots = plots_beside(&args.out);
    write(&report, &args.out, &plots)?;
    if !sides.how.quiet {
        eprintln!(
            "{}: median R {}",
            evaluation.summary.verdict,
            evaluation.summary.median_r.map_or("none".to_owned(), |r| format!("{r:.2}"))
        );
        eprintln!("wrote `{}`, and its charts to `{}`", args.out.display(), plots.display());
    }
    Ok(())
}

/// `report-plots` for `report.html`.
fn plots_beside(page: &Path) -> PathBuf {
    let stem = page.file_stem().unwrap_or_default().to_string_lossy();
    page.with_file_name(format!("{stem}-plots"))
}

/// Writes a page and the files of its charts, the page last: where it is, they are.
pub(crate) fn write(report: &Report, page: &Path, plots: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(plots).with_context(|| CannotWrite(plots.to_owned()))?;
    let whole = |path: &Path, text: &str| {
        files::write_whole(path, text.as_bytes()).with_context(|| CannotWrite(path.to_owned()))
    };
    for figure in &report.figures {
        whole(&plots.join(format!("{}.svg", figure.name)), &figure.svg())?;
        whole(&plots.join(format!("{}.csv", figure.name)), &figure.csv())?;
    }
    whole(page, &report.html)
}
