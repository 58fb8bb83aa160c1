//! The command line of `ns-train check`.

use std::io::Write;

use anyhow::Context;
use clap::Args;

use super::{Loss, Report, Severity, check};
use crate::fit;
use crate::input::InputArgs;

/// Arguments of `ns-train check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ns-train check --input capture.pcap
  ns-train check --input flows.csv --config flows.json
  ns-train check --input flows.csv --config flows.json --json | jq '.findings[].what'")]
pub struct CheckArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
}

/// Checks an input and prints what was found.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let (config, inputs) = args.input.configure()?;
    let trace = fit::read(&inputs, &config, args.input.reading())?;
    let dataset = fit::encode(&inputs, &trace, &config, args.input.seed)?;
    let report = check(&trace, &config, &dataset);
    let text = if args.json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        let notices = config.notices();
        let lines = notices.iter().map(|notice| format!("note     {notice}\n"));
        table(&report) + &lines.collect::<String>()
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the report")
        }
        _ => Ok(()),
    }
}

fn table(report: &Report) -> String {
    let mut text = format!(
        "{} records in {} flows over {:.1} s; {} values an attribute vector, {} a record; about \
         {} MB of memory to train\n",
        report.records,
        report.flows,
        report.span_s,
        report.attribute_values,
        report.record_values,
        report.memory_bytes.div_ceil(1_000_000),
    );
    for (reason, count) in &report.not_used {
        text += &format!("not used {count} {reason}\n");
    }
    let width = |of: &dyn Fn(&Loss) -> usize, least: usize| {
        report.fields.iter().map(of).max().unwrap_or(0).max(least)
    };
    let names = width(&|loss| loss.column.chars().count(), 6);
    let encodings = width(&|loss| loss.encoding.chars().count(), 8);
    text += &format!(
        "\n{:names$}  {:11}  {:encodings$}  {:>6}  {:>8}  {:>10}  {:>10}\n",
        "column", "", "encoding", "values", "exact", "mean error", "largest"
    );
    for loss in &report.fields {
        let part = if loss.attribute { "attribute" } else { "measurement" };
        let error =
            |error: Option<f64>| error.map_or_else(|| "-".to_owned(), |e| format!("{e:.3e}"));
        text += &format!(
            "{:names$}  {part:11}  {:encodings$}  {:>6}  {:>7.2}%  {:>10}  {:>10}\n",
            loss.column,
            loss.encoding,
            loss.values,
            100.0 * loss.exact,
            error(loss.mean_error),
            error(loss.largest_error),
        );
    }
    text.push('\n');
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let column = finding.column.as_ref().map(|c| format!("`{c}`: ")).unwrap_or_default();
        text += &format!("{severity:8} {column}{}\n", finding.message);
    }
    if report.findings.is_empty() {
        text += "nothing found that speaks against training\n";
    }
    text
}
