//! The report: one HTML file that needs nothing else.

use std::fmt::Write;

use super::charts::sentence;
use super::figure::{Figure, Section};
use super::svg::escape;
use crate::evaluate::report::{Evaluation, Metric, TraceFacts};
use crate::evaluate::{Group, number};

/// Rows of a figure's data that stand under it.
const MOST_ROWS: usize = 12;

/// The whole page.
pub(super) fn page(evaluation: &Evaluation, figures: &[Figure]) -> String {
    let mut out = String::new();
    let title = format!("{} against {}", evaluation.synthetic.file, evaluation.real.file);
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>\n{}{}</style>\n</head>\n<body>\n",
        escape(&title),
        super::PAGE_STYLE,
        super::CHART_STYLE
    );
    let _ = write!(out, "<header><h1>Is it real?</h1><p class=\"quiet\">{}</p>", escape(&title));
    verdict(&mut out, evaluation);
    let shown: Vec<Section> = Section::ALL
        .into_iter()
        .filter(|section| figures.iter().any(|figure| figure.section == *section))
        .collect();
    out.push_str("<nav aria-label=\"Parts\"><ul>");
    out.push_str("<li><a href=\"#table\">Distances</a></li>");
    for section in &shown {
        let _ = write!(out, "<li><a href=\"#{}\">{}</a></li>", section.id(), section.title());
    }
    out.push_str("<li><a href=\"#traces\">Traces</a></li><li><a href=\"#reading\">How to read this</a></li></ul></nav></header>\n<main>\n");
    table(&mut out, evaluation);
    for section in shown {
        let _ = write!(
            out,
            "<section aria-labelledby=\"{0}\"><h2 id=\"{0}\">{1}</h2>",
            section.id(),
            section.title()
        );
        notes(&mut out, section, evaluation);
        out.push_str("<div class=\"plots\">\n");
        for figure in figures.iter().filter(|figure| figure.section == section) {
            self::figure(&mut out, figure);
        }
        out.push_str("</div></section>\n");
    }
    traces(&mut out, evaluation);
    out.push_str("</main>\n");
    let _ = write!(
        out,
        "<footer><h2 id=\"reading\">How to read this</h2><p>R is a distance over its noise floor: the same \
         distance between two random halves of the real conversations, of {} each, the mean of {} splits \
         (seed {}). 1 is as near as the real trace is to itself; to 1.25 the verdict is \u{201c}as near\u{201d}, to 2 \
         \u{201c}close\u{201d}, to 5 \u{201c}alike\u{201d}, above \u{201c}far\u{201d}, by the median over fields, joint, sequence and \
         protocol. A floor below 1e-6 gives no R.</p>\
         <p>KS is the largest difference of two distribution functions (0 to 1); TV half the sum of \
         differences in share (0 to 1); JSD the Jensen-Shannon divergence (0 to 0.69), by rank where which \
         value it is does not matter; W1 how far values must be moved on average, in their unit, in parts of \
         the range, or of ln(1 + x) in standard deviations; a difference is of shares or correlations. \
         Whiskers (\u{201c}halves\u{201d}) show by how much two halves of the real trace differ. The Markov baseline is \
         an order-2 chain over whole records, fitted to what the model was trained on if that was given, else \
         to the real trace. docs/evaluation.md defines every figure. Written by ns-train {}.</p></footer>\n\
         </body>\n</html>\n",
        evaluation.sampled,
        evaluation.splits,
        evaluation.seed,
        env!("CARGO_PKG_VERSION")
    );
    out
}

fn ratio(r: Option<f64>) -> String {
    r.map_or("–".to_owned(), |r| format!("{r:.2}"))
}

fn percent(share: Option<f64>) -> String {
    share.map_or("–".to_owned(), |share| format!("{:.1}%", 100.0 * share))
}

fn verdict(out: &mut String, evaluation: &Evaluation) {
    let summary = &evaluation.summary;
    let class = match summary.median_r {
        None => "",
        Some(..1.25) if summary.broken.is_empty() => "good",
        Some(..5.0) => "fair",
        Some(_) => "bad",
    };
    let interval = summary
        .median_r_interval
        .map_or(String::new(), |[low, high]| format!(" (95% of resamples: {low:.2} to {high:.2})"));
    let _ = write!(
        out,
        "<div class=\"verdict {class}\"><strong>{}</strong><p>Median R {}{interval}, 95th percentile {}, over {} \
         of {} metrics.{}</p></div>",
        sentence(&summary.verdict),
        ratio(summary.median_r),
        ratio(summary.p95_r),
        summary.with_r,
        summary.metrics,
        summary.worst.as_ref().map_or(String::new(), |(name, r)| {
            let metric = evaluation.metrics.iter().find(|metric| metric.name == *name);
            let label = metric.map_or(name.as_str(), |metric| metric.label.as_str());
            format!(" Furthest: {} with {r:.2}.", escape(label))
        })
    );
    for note in &evaluation.notes {
        let _ = write!(out, "<p>Note: {}</p>", escape(note));
    }
    out.push_str("<ul class=\"tiles\">");
    let mut tile = |figure: String, what: &str| {
        let _ = write!(out, "<li><b>{}</b>{}</li>", escape(&figure), escape(what));
    };
    for (group, r) in &summary.groups {
        tile(format!("{r:.2}"), &format!("median R, {group}"));
    }
    if let Some(beats) = summary.beats_baseline {
        tile(percent(Some(beats)), "of metrics nearer than the Markov baseline");
        tile(ratio(summary.baseline_median_r), "median R of that baseline");
    }
    if let Some(test) = &evaluation.classifier {
        tile(
            format!("{:.3}", test.auc),
            "AUC of a classifier that tells them apart (0.5: it cannot)",
        );
    }
    if let Some(closest) = evaluation.privacy.as_ref().and_then(|privacy| privacy.closest.as_ref())
    {
        tile(
            percent(Some(closest.nearer_to_train)),
            "of training flows nearer to synthetic ones than unseen flows are (50%: none memorised)",
        );
    }
    out.push_str("</ul>");
}

/// What a section says beside its charts.
fn notes(out: &mut String, section: Section, evaluation: &Evaluation) {
    let mut say = |text: String| {
        let _ = write!(out, "<p>{}</p>", escape(&text));
    };
    match section {
        Section::Privacy => {
            say("A model repeats what its training data repeats; what matters is whether copies are more \
                 frequent than among real flows that it has not seen. No figure here is a guarantee: that \
                 takes training with differential privacy."
                .to_owned());
            let privacy = evaluation.privacy.as_ref();
            if let Some(closest) = privacy.and_then(|privacy| privacy.closest.as_ref()) {
                say(format!(
                    "A flow that was trained on has a nearer synthetic flow than one that was not in {} of pairs \
                     (of {} and {} flows; 50% where nothing was memorised, by chance {} to {}). Its median \
                     distance to the closest synthetic flow is {:.2} times that of unseen flows.",
                    percent(Some(closest.nearer_to_train)),
                    closest.flows[0],
                    closest.flows[1],
                    percent(Some(closest.by_chance[0])),
                    percent(Some(closest.by_chance[1])),
                    closest.median_ratio
                ));
            } else {
                say("What the model was trained on was not given apart from what it is judged by (--train; for a \
                     work folder --real), \
                     so distances to the closest record cannot be told from chance."
                    .to_owned());
            }
        }
        Section::Downstream => {
            if let Some(tasks) = &evaluation.downstream {
                tasks_tables(out, tasks);
            }
        }
        _ => {}
    }
}

fn tasks_tables(out: &mut String, tasks: &crate::evaluate::Downstream) {
    if !tasks.heavy_hitters.is_empty() {
        let rows = tasks.heavy_hitters.iter().map(|row| {
            vec![
                row.key.clone(),
                row.real.to_string(),
                row.synthetic.to_string(),
                row.floor.to_string(),
                percent(row.relative_error),
                percent(row.floor_error),
            ]
        });
        let header = ["key", "real", "synthetic", "other half", "off by", "halves off by"];
        plain_table(out, "Heavy hitters: keys with 0.1% of the records or more", &header, rows);
        let rows = tasks.sketches.iter().map(|row| {
            vec![
                format!("{} by {}", row.sketch, row.key),
                percent(Some(row.real)),
                percent(Some(row.synthetic)),
                percent(Some(row.floor)),
                percent(row.relative_error),
                percent(row.floor_error),
            ]
        });
        let header = ["sketch", "real", "synthetic", "other half", "off by", "halves off by"];
        plain_table(out, "Mean relative error of sketches on heavy hitters", &header, rows);
    }
    let rank = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
    let rows = tasks
        .agreement
        .iter()
        .map(|row| vec![row.of.clone(), rank(row.synthetic), rank(row.floor)]);
    let header = ["what is ranked", "synthetic", "other half"];
    plain_table(
        out,
        "Rank agreement with the real trace (Spearman; 1: the same order)",
        &header,
        rows,
    );
}

fn plain_table(
    out: &mut String,
    caption: &str,
    header: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) {
    let _ = write!(
        out,
        "<div class=\"scroll\"><table><caption>{}</caption><thead><tr>",
        escape(caption)
    );
    for name in header {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(name));
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{}</td>", escape(&cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>\n");
}

fn figure(out: &mut String, figure: &Figure) {
    let wide = if figure.section == Section::Ratios { " class=\"wide\"" } else { "" };
    let _ = write!(
        out,
        "<figure{wide} id=\"plot-{0}\"><h3>{1}</h3>{2}<figcaption>{3}</figcaption>",
        escape(&figure.name),
        escape(&figure.title),
        figure.chart,
        escape(&figure.words)
    );
    if figure.rows.len() <= MOST_ROWS {
        out.push_str("<details><summary>Data</summary>");
        let header: Vec<&str> = figure.columns.iter().map(String::as_str).collect();
        // The first column is a name, also where it looks like a number.
        let short = |(at, cell): (usize, &String)| match cell.parse::<f64>() {
            Ok(value) if at > 0 => number(value),
            _ => cell.clone(),
        };
        let rows = figure.rows.iter().map(|row| row.iter().enumerate().map(short).collect());
        plain_table(out, &figure.title, &header, rows);
        out.push_str("</details>");
    }
    out.push_str("</figure>\n");
}

/// The R table, by group.
fn table(out: &mut String, evaluation: &Evaluation) {
    out.push_str(
        "<section aria-labelledby=\"table\"><h2 id=\"table\">Distances</h2><div class=\"scroll\"><table>\
         <caption>Distance between half of the real flows and as many synthetic ones, its noise floor, and their \
         ratio</caption><thead><tr><th scope=\"col\">measured</th><th scope=\"col\" class=\"text\">distance</th>\
         <th scope=\"col\">R</th><th scope=\"col\">Markov R</th><th scope=\"col\">value</th>\
         <th scope=\"col\">floor</th><th scope=\"col\">R, 95% of resamples</th></tr></thead>",
    );
    for group in Group::ALL {
        let of = || evaluation.metrics.iter().filter(move |metric| metric.group == group);
        if of().next().is_none() {
            continue;
        }
        let median = evaluation.summary.groups.get(group.name()).copied();
        let _ = write!(
            out,
            "<tbody><tr class=\"group\"><th colspan=\"7\" scope=\"rowgroup\">{}, median R {}</th></tr>",
            sentence(group.name()),
            ratio(median)
        );
        of().for_each(|metric| row(out, metric));
        out.push_str("</tbody>");
    }
    out.push_str("</table></div>");
    if !evaluation.netshare.is_empty() {
        let rows = evaluation.netshare.iter().map(|row| {
            vec![
                format!("{}: {}", row.name, row.label),
                number(row.whole),
                number(row.floor),
                ratio(row.r),
            ]
        });
        let header = ["measured", "whole traces", "floor (halves)", "R (halves)"];
        plain_table(out, "NetShare's own table", &header, rows);
    }
    out.push_str("</section>\n");
}

fn row(out: &mut String, metric: &Metric) {
    let class = match metric.r {
        None => "",
        Some(..1.25) => "near",
        Some(..2.0) => "",
        Some(..5.0) => "fair",
        Some(_) => "far",
    };
    let interval =
        metric.r_interval.map_or("–".to_owned(), |[low, high]| format!("{low:.2} to {high:.2}"));
    let _ = write!(
        out,
        "<tr class=\"{class}\"><td>{}</td><td class=\"text\">{}</td><td class=\"r\">{}</td>\
         <td>{}</td><td>{}</td><td>{}</td><td>{interval}</td></tr>",
        escape(&metric.label),
        metric.distance.label(),
        ratio(metric.r),
        ratio(metric.baseline_r),
        number(metric.value),
        number(metric.floor)
    );
}

/// What was compared.
fn traces(out: &mut String, evaluation: &Evaluation) {
    out.push_str("<section aria-labelledby=\"traces\"><h2 id=\"traces\">Traces</h2>");
    let sides: [(&str, Option<&TraceFacts>); 3] = [
        ("real", Some(&evaluation.real)),
        ("synthetic", Some(&evaluation.synthetic)),
        ("trained on", evaluation.train.as_ref()),
    ];
    let rows = sides.into_iter().filter_map(|(name, facts)| {
        let facts = facts?;
        Some(vec![
            format!("{name}: {}", facts.file),
            facts.records.to_string(),
            facts.flows.to_string(),
            facts.conversations.to_string(),
            number(facts.span_s),
            match facts.not_used.values().sum::<u64>() {
                0 => "none".to_owned(),
                _ => crate::ingest::reasons(&facts.not_used).trim_start_matches(": ").to_owned(),
            },
        ])
    });
    let header = ["trace", "records", "flows", "conversations", "span (s)", "not used"];
    plain_table(
        out,
        "A flow is one direction; a conversation is what answers one another",
        &header,
        rows,
    );
    out.push_str("</section>\n");
}
