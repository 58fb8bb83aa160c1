//! An evaluation as tables of text.

use std::fmt::Write;

use super::measure::Group;
use super::report::{Evaluation, Metric, TraceFacts};

/// The tables that `ns-train evaluate` prints.
#[must_use]
pub(super) fn tables(evaluation: &Evaluation) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, evaluation);
    out
}

/// A ratio, or a dash.
fn ratio(r: Option<f64>) -> String {
    r.map_or("-".to_owned(), |r| if r < 99.95 { format!("{r:.2}") } else { format!("{r:.0}") })
}

/// A distance with four digits that mean something.
#[must_use]
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        ..1e5 if value.fract() == 0.0 => format!("{value}"),
        1e5.. | ..1e-4 => format!("{value:.2e}"),
        1e3.. => format!("{value:.0}"),
        10.0.. => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn share(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{:.2}%", 100.0 * value))
}

/// At most so many letters, none of which moves a terminal's cursor.
fn cut(text: &str, width: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    match text.char_indices().nth(width) {
        Some(_) => text.chars().take(width - 1).collect::<String>() + "…",
        None => text,
    }
}

fn write(out: &mut String, evaluation: &Evaluation) -> std::fmt::Result {
    traces(out, evaluation)?;
    for group in Group::ALL {
        let of = || evaluation.metrics.iter().filter(move |metric| metric.group == group);
        if of().next().is_none() {
            continue;
        }
        writeln!(
            out,
            "\n{:<45} {:<19} {:>9} {:>9} {:>6} {:>14} {:>8}",
            group.name(),
            "distance",
            "value",
            "floor",
            "R",
            "95% of splits",
            "Markov R"
        )?;
        of().try_for_each(|metric| row(out, metric))?;
    }
    if !evaluation.rates.is_empty() {
        writeln!(out, "\n{:<45} {:>12} {:>12} {:>12}", "rates", "real", "synthetic", "Markov")?;
        for rate in &evaluation.rates {
            let label = cut(&rate.label, 45);
            let [real, synthetic, baseline] = [rate.real, rate.synthetic, rate.baseline].map(share);
            writeln!(out, "{label:<45} {real:>12} {synthetic:>12} {baseline:>12}")?;
        }
    }
    if !evaluation.netshare.is_empty() {
        writeln!(
            out,
            "\n{:<52} {:>10} {:>10} {:>11}",
            "NetShare's table", "whole", "floor", "R of halves"
        )?;
        for row in &evaluation.netshare {
            let name = format!("{:<4} {}", row.name, row.label);
            let (whole, floor) = (number(row.whole), number(row.floor));
            writeln!(out, "{name:<52} {whole:>10} {floor:>10} {:>11}", ratio(row.r))?;
        }
    }
    downstream(out, evaluation)?;
    classifier_and_copies(out, evaluation)?;
    summary(out, evaluation)
}

fn traces(out: &mut String, evaluation: &Evaluation) -> std::fmt::Result {
    let sides: Vec<(&str, &TraceFacts)> = [
        ("real", Some(&evaluation.real)),
        ("synthetic", Some(&evaluation.synthetic)),
        ("trained on", evaluation.train.as_ref()),
    ]
    .into_iter()
    .filter_map(|(name, side)| Some((name, side?)))
    .collect();
    write!(out, "{:<24}", "")?;
    for (name, _) in &sides {
        write!(out, " {name:>14}")?;
    }
    writeln!(out)?;
    type Of = fn(&TraceFacts) -> String;
    let rows: [(&str, Of); 5] = [
        ("records", |side| side.records.to_string()),
        ("flows, a direction each", |side| side.flows.to_string()),
        ("conversations", |side| side.conversations.to_string()),
        ("records a flow", |side| format!("{:.2}", side.records as f64 / side.flows.max(1) as f64)),
        ("records a second", |side| match side.span_s {
            span if span > 0.0 => number(side.records as f64 / span),
            _ => "-".to_owned(),
        }),
    ];
    for (name, of) in rows {
        write!(out, "{name:<24}")?;
        for (_, side) in &sides {
            write!(out, " {:>14}", of(side))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn row(out: &mut String, metric: &Metric) -> std::fmt::Result {
    let interval = metric.r_interval.map_or("-".to_owned(), |[low, high]| {
        format!("{}-{}", ratio(Some(low)), ratio(Some(high)))
    });
    writeln!(
        out,
        "{:<45} {:<19} {:>9} {:>9} {:>6} {:>14} {:>8}",
        cut(&metric.label, 45),
        metric.distance.label(),
        number(metric.value),
        number(metric.floor),
        ratio(metric.r),
        interval,
        ratio(metric.baseline_r)
    )
}

fn downstream(out: &mut String, evaluation: &Evaluation) -> std::fmt::Result {
    let Some(tasks) = &evaluation.downstream else { return Ok(()) };
    if !tasks.heavy_hitters.is_empty() {
        writeln!(
            out,
            "\n{:<28} {:>10} {:>10} {:>10}",
            "heavy hitters above 0.1%", "real", "synthetic", "floor"
        )?;
        for row in &tasks.heavy_hitters {
            writeln!(
                out,
                "{:<28} {:>10} {:>10} {:>10}",
                row.key, row.real, row.synthetic, row.floor
            )?;
        }
        writeln!(
            out,
            "\n{:<40} {:>10} {:>10} {:>10} {:>10}",
            "sketches, error", "real", "synthetic", "floor", "off by"
        )?;
        for row in &tasks.sketches {
            let name = format!("{} {}", row.key, row.sketch);
            let [real, synthetic, floor] = [row.real, row.synthetic, row.floor].map(number);
            let off = share(row.relative_error);
            writeln!(out, "{name:<40} {real:>10} {synthetic:>10} {floor:>10} {off:>10}")?;
        }
    }
    if let Some(classifiers) = &tasks.classifiers {
        let title = format!("accuracy on real {}", classifiers.label);
        writeln!(out, "\n{title:<28} {:>10} {:>10} {:>10}", "real", "synthetic", "Markov")?;
        for row in &classifiers.accuracy {
            let [real, synthetic] = [row.real, row.synthetic].map(|value| share(Some(value)));
            let name = format!("trained {}", row.classifier);
            writeln!(out, "{name:<28} {real:>10} {synthetic:>10} {:>10}", share(row.baseline))?;
        }
        writeln!(out, "{:<28} {:>10}", "guessing", share(Some(classifiers.majority)))?;
    }
    if !tasks.agreement.is_empty() {
        writeln!(out, "\n{:<28} {:>10} {:>10}", "rank agreement", "synthetic", "floor")?;
        let rank = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        for row in &tasks.agreement {
            writeln!(out, "{:<28} {:>10} {:>10}", row.of, rank(row.synthetic), rank(row.floor))?;
        }
    }
    Ok(())
}

fn classifier_and_copies(out: &mut String, evaluation: &Evaluation) -> std::fmt::Result {
    if let Some(test) = &evaluation.classifier {
        write!(
            out,
            "\nclassifier two-sample test, AUC {:.3} (0.5 if they cannot be told apart; real halves {:.3}",
            test.auc, test.floor
        )?;
        match test.baseline {
            Some(baseline) => writeln!(out, ", Markov {baseline:.3})")?,
            None => writeln!(out, ")")?,
        }
    }
    if let Some(privacy) = &evaluation.privacy {
        let title = match privacy.reference.as_str() {
            "train" => "copies of what was trained on",
            _ => "copies of real ones",
        };
        writeln!(out, "\n{title:<45} {:>12} {:>12} {:>12}", "synthetic", "floor", "Markov")?;
        for row in &privacy.copies {
            let [synthetic, floor, baseline] = [row.synthetic, row.floor, row.baseline].map(share);
            writeln!(out, "{:<45} {synthetic:>12} {floor:>12} {baseline:>12}", row.label)?;
        }
        if let Some(closest) = &privacy.closest {
            writeln!(
                out,
                "a flow that was trained on has a nearer synthetic one than an unseen flow has in {:.1}% \
                 of pairs (50% where nothing was memorised; by chance {:.1} to {:.1}%)",
                100.0 * closest.nearer_to_train,
                100.0 * closest.by_chance[0],
                100.0 * closest.by_chance[1]
            )?;
        }
    }
    Ok(())
}

fn summary(out: &mut String, evaluation: &Evaluation) -> std::fmt::Result {
    let summary = &evaluation.summary;
    let interval = summary
        .median_r_interval
        .map_or(String::new(), |[low, high]| format!(" ({low:.2}-{high:.2})"));
    writeln!(
        out,
        "\nmedian R {}{interval}, 95th percentile {}, over {} of {} metrics: {}",
        ratio(summary.median_r),
        ratio(summary.p95_r),
        summary.with_r,
        summary.metrics,
        summary.verdict
    )?;
    if let Some((name, r)) = &summary.worst {
        writeln!(out, "worst: {name}, R {}", ratio(Some(*r)))?;
    }
    if let Some(beats) = summary.beats_baseline {
        writeln!(
            out,
            "Markov baseline: median R {}, 95th percentile {}; nearer than it on {:.0}% of the metrics",
            ratio(summary.baseline_median_r),
            ratio(summary.baseline_p95_r),
            100.0 * beats
        )?;
    }
    Ok(())
}
