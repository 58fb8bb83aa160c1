//! Which charts a comparison has.

use std::fmt::Write;

use ns_model_format::schema::TraceKind;

use super::figure::{Figure, Head, Section, cell};
use super::svg::{self, Axis, BarRow, Line, Matrix, RatioRow, Side, tick};
use crate::curve::{Adversarial, Likelihood, Point};
use crate::evaluate::compare::{Comparison, quantile};
use crate::evaluate::distance::Statistic;
use crate::evaluate::measure::{Labels, Measure, Picture, called};
use crate::evaluate::report::Evaluation;
use crate::evaluate::sample::Sample;
use crate::evaluate::{Group, joint, sequence};

/// Points of a distribution function.
const POINTS: usize = 256;
/// Bars of a chart.
const MOST_BARS: usize = 10;
/// Bins of a rate over time.
const MOST_BINS: usize = 300;

/// All charts, in the order of the report.
pub(super) fn figures(
    comparison: &Comparison,
    evaluation: &Evaluation,
    training: &[Point],
) -> Vec<Figure> {
    let half = comparison.halves(0);
    let samples = Samples {
        real: comparison.all(&comparison.real),
        synthetic: comparison.all(&comparison.synthetic),
        halves: half,
    };
    let mut all = vec![ratios(evaluation)];
    for measure in &comparison.measures {
        match measure.picture {
            Picture::None => {}
            _ if measure.of(&samples.real).is_empty() => {}
            Picture::Cdf { log } => all.push(distribution(measure, &samples, log, evaluation)),
            Picture::Tail => all.push(tail(measure, &samples, evaluation)),
            Picture::Bars(labels) => all.push(categories(measure, &samples, labels, evaluation)),
        }
    }
    all.extend(correlations(comparison, &samples));
    all.extend(rate(comparison, &samples));
    all.extend(rates(evaluation));
    all.extend(heavy_hitters(comparison, &samples));
    all.extend(accuracies(evaluation));
    all.extend(copies(evaluation));
    all.extend(curves(training));
    name_files(&mut all);
    all
}

/// Makes names that files can have: they come from columns, which may be called anything.
fn name_files(figures: &mut [Figure]) {
    let mut seen = std::collections::HashSet::new();
    for figure in figures {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let base: String = figure.name.chars().take(60).map(plain).collect();
        let mut names = std::iter::once(base.clone()).chain((2..).map(|n| format!("{base}_{n}")));
        // There is always one more number.
        figure.name = names.find(|name| seen.insert(name.to_lowercase())).unwrap_or(base);
    }
}

struct Samples<'a> {
    real: Sample<'a>,
    synthetic: Sample<'a>,
    halves: [Sample<'a>; 2],
}

impl Samples<'_> {
    /// Each side's statistic: real, synthetic, a half of the real one.
    fn of(&self, measure: &Measure) -> [(Side, Statistic); 3] {
        [
            (Side::Real, measure.of(&self.real)),
            (Side::Synthetic, measure.of(&self.synthetic)),
            (Side::Floor, measure.of(&self.halves[0])),
        ]
    }
}

/// The head of a measure's figure.
fn head(measure: &Measure, words: String) -> Head<'_> {
    let section = match measure.group {
        Group::Fields => Section::Fields,
        Group::Joint => Section::Joint,
        Group::Sequence => Section::Sequence,
        Group::Protocol => Section::Protocol,
    };
    Head { name: &measure.name, title: sentence(&measure.label), section, words }
}

/// The ratios of a measure's metrics in words.
fn ratio_words(measure: &Measure, evaluation: &Evaluation) -> String {
    let of = measure.distances.iter().filter_map(|distance| {
        let name = format!("{}.{}", measure.name, distance.name());
        let metric = evaluation.metrics.iter().find(|metric| metric.name == name)?;
        let r = metric.r.map_or("no R, the floor is 0".to_owned(), |r| format!("R {r:.2}"));
        Some(format!("{} {}: {r}", distance.label(), crate::evaluate::number(metric.value)))
    });
    of.collect::<Vec<_>>().join("; ")
}

fn ratios(evaluation: &Evaluation) -> Figure {
    let mut metrics: Vec<_> =
        evaluation.metrics.iter().filter_map(|metric| Some((metric, metric.r?))).collect();
    metrics.sort_by(|a, b| b.1.total_cmp(&a.1));
    let name = |metric: &crate::evaluate::Metric| {
        format!("{} ({})", metric.label, metric.distance.label())
    };
    let rows: Vec<RatioRow> = metrics
        .iter()
        .map(|(metric, r)| RatioRow {
            label: name(metric),
            r: *r,
            interval: metric.r_interval.unwrap_or([*r; 2]),
            baseline: metric.baseline_r,
        })
        .collect();
    let summary = &evaluation.summary;
    let r = |r: Option<f64>| r.map_or("none".to_owned(), |r| format!("{r:.2}"));
    let mut words = format!(
        "R of {} metrics, the largest first, with the interval of 95% of resampled splits. Median {}, \
         95th percentile {}.",
        rows.len(),
        r(summary.median_r),
        r(summary.p95_r)
    );
    if let Some((name, r)) = &summary.worst {
        let _ = write!(words, " The largest is {name} with {r:.2}.");
    }
    let data = metrics.iter().map(|(metric, r)| {
        let [low, high] = metric.r_interval.unwrap_or([*r; 2]);
        let baseline = metric.baseline_r.map_or(String::new(), cell);
        vec![metric.name.clone(), cell(*r), cell(low), cell(high), baseline]
    });
    let title = "R of every metric".to_owned();
    let head = Head { name: "ratios", title, section: Section::Ratios, words };
    let chart = svg::ratios(&head.title, &head.words, &rows);
    head.figure(chart, &["metric", "r", "r_low", "r_high", "markov_r"], data.collect())
}

fn with_unit(label: &str, unit: &str) -> String {
    match unit {
        "" | "value" | "flags" | "port" | "address" | "protocol" => label.to_owned(),
        unit if label.split(' ').any(|word| word == unit) => label.to_owned(),
        unit => format!("{label} ({unit})"),
    }
}

/// The quartiles of each side in words.
fn quartiles(sides: &[(Side, Statistic); 3], unit: &str) -> String {
    let of = sides.iter().take(2).filter_map(|(side, statistic)| {
        let Statistic::Sorted(numbers) = statistic else { return None };
        if numbers.is_empty() {
            return Some(format!("{}: nothing", side.name()));
        }
        let [low, middle, high] = [0.25, 0.5, 0.75].map(|share| tick(quantile(numbers, share)));
        Some(format!("{}: median {middle}, middle half {low} to {high} {unit}", side.name()))
    });
    of.collect::<Vec<_>>().join("; ")
}

fn distribution(
    measure: &Measure,
    samples: &Samples<'_>,
    log: bool,
    evaluation: &Evaluation,
) -> Figure {
    let sides = samples.of(measure);
    let lines: Vec<Line> = sides
        .iter()
        .map(|(side, statistic)| {
            let mut points = Vec::new();
            if let (Statistic::Sorted(numbers), false) = (statistic, statistic.is_empty()) {
                let mut last = 0.0;
                for step in 0..=POINTS {
                    let at = step * (numbers.len() - 1) / POINTS;
                    let share = (at + 1) as f64 / numbers.len() as f64;
                    // A step, not a slope: what has no values between has none.
                    points.push((numbers[at], last));
                    points.push((numbers[at], share));
                    last = share;
                }
            }
            Line { side: *side, name: side.name().to_owned(), points }
        })
        .collect();
    let words = format!(
        "Distribution functions. {}. {}",
        quartiles(&sides, measure.unit),
        ratio_words(measure, evaluation)
    );
    // Numbers below 0 have no logarithm.
    let below_0 = |(_, statistic): &(Side, Statistic)| matches!(statistic, Statistic::Sorted(numbers) if numbers.first().is_some_and(|x| *x < 0.0));
    let x = Axis::new(with_unit(&measure.label, measure.unit), log && !sides.iter().any(below_0));
    let axes = [x, Axis::new("share at or below", false)];
    let values = ["trace", &measure.name, "share_at_or_below"];
    Figure::of_lines(head(measure, words), axes, &lines, values)
}

fn tail(measure: &Measure, samples: &Samples<'_>, evaluation: &Evaluation) -> Figure {
    let sides = samples.of(measure);
    let lines: Vec<Line> = sides
        .iter()
        .map(|(side, statistic)| {
            let mut points = Vec::new();
            if let Statistic::Sorted(numbers) = statistic {
                let mut from = 0;
                for same in numbers.chunk_by(|a, b| a == b) {
                    let share = (numbers.len() - from) as f64 / numbers.len() as f64;
                    from += same.len();
                    // As many points as the eye can tell apart.
                    let is_new = points
                        .last()
                        .is_none_or(|(x, y): &(f64, f64)| same[0] > x * 1.01 || share < y * 0.99);
                    if same[0] > 0.0 && is_new {
                        points.push((same[0], share));
                    }
                }
            }
            Line { side: *side, name: side.name().to_owned(), points }
        })
        .collect();
    let words = format!(
        "Share of flows with at least so much, both axes logarithmic. {}. {}",
        quartiles(&sides, measure.unit),
        ratio_words(measure, evaluation)
    );
    let x = Axis::new(with_unit(&measure.label, measure.unit), true);
    let axes = [x, Axis::new("share at or above", true)];
    let values = ["trace", &measure.name, "share_at_or_above"];
    Figure::of_lines(head(measure, words), axes, &lines, values)
}

fn categories(
    measure: &Measure,
    samples: &Samples<'_>,
    labels: Labels,
    evaluation: &Evaluation,
) -> Figure {
    let shares = |statistic: &Statistic| -> std::collections::BTreeMap<u64, f64> {
        let Statistic::Counts(counts) = statistic else { return Default::default() };
        let total: f64 = counts.iter().map(|(_, count)| count).sum();
        counts.iter().map(|(value, count)| (*value, count / total)).collect()
    };
    let [real, synthetic] = [&samples.real, &samples.synthetic].map(|s| shares(&measure.of(s)));
    let halves = samples.halves.each_ref().map(|half| shares(&measure.of(half)));
    let of = |from: &std::collections::BTreeMap<u64, f64>, value: u64| {
        from.get(&value).copied().unwrap_or(0.0)
    };
    let mut values: Vec<u64> = real.keys().chain(synthetic.keys()).copied().collect();
    values.sort_unstable();
    values.dedup();
    values.sort_by(|a, b| {
        let most = |value| of(&real, value).max(of(&synthetic, value));
        most(*b).total_cmp(&most(*a))
    });
    let shown = values.len().min(MOST_BARS);
    let frame = samples.real.frame;
    let mut rows: Vec<BarRow> = values[..shown]
        .iter()
        .map(|&value| BarRow {
            label: labels.label(frame, value),
            values: vec![of(&real, value), of(&synthetic, value)],
            spread: (of(&halves[0], value) - of(&halves[1], value)).abs(),
        })
        .collect();
    if shown < values.len() {
        let rest = |from| values[shown..].iter().map(|&value| of(from, value)).sum();
        rows.push(BarRow {
            label: format!("{} others", values.len() - shown),
            values: vec![rest(&real), rest(&synthetic)],
            spread: 0.0,
        });
    }
    let listed = rows.iter().take(5).map(|row| {
        format!("{}: {:.1}% and {:.1}%", row.label, 100.0 * row.values[0], 100.0 * row.values[1])
    });
    let words = format!(
        "Shares, real and synthetic. {}. {}",
        listed.collect::<Vec<_>>().join("; "),
        ratio_words(measure, evaluation)
    );
    let sides = [Side::Real, Side::Synthetic];
    let noun = if measure.group == Group::Protocol { measure.unit } else { records(frame.kind) };
    let axis = format!("share of {noun}");
    Figure::of_bars(head(measure, words), &axis, &sides, &rows)
}

fn records(kind: TraceKind) -> &'static str {
    if kind == TraceKind::Packets { "packets" } else { "records" }
}

fn correlations(comparison: &Comparison, samples: &Samples<'_>) -> Option<Figure> {
    let (columns, names): (Vec<Option<usize>>, Vec<String>) =
        joint::correlated(&comparison.frame).into_iter().unzip();
    if names.len() < 2 {
        return None;
    }
    let of = |sample: &Sample<'_>| -> Vec<Vec<f64>> {
        let ranked = joint::ranked(sample, &columns);
        let row = |a: &Vec<f64>| {
            ranked.iter().map(|b| crate::evaluate::distance::pearson(a, b)).collect()
        };
        ranked.iter().map(row).collect()
    };
    let (real, synthetic, half) =
        (of(&samples.real), of(&samples.synthetic), of(&samples.halves[0]));
    let minus = |a: &[Vec<f64>], b: &[Vec<f64>]| -> Vec<Vec<f64>> {
        a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(x, y)| x - y).collect()).collect()
    };
    let matrices = [
        Matrix { name: "real", rows: real.clone() },
        Matrix { name: "synthetic", rows: synthetic.clone() },
        Matrix { name: "synthetic minus real", rows: minus(&synthetic, &real) },
        Matrix { name: "half of real minus real", rows: minus(&half, &real) },
    ];
    let (mut listed, mut rows) = (Vec::new(), Vec::new());
    for i in 0..names.len() {
        for j in i + 1..names.len() {
            let [of_real, of_synthetic] = [real[i][j], synthetic[i][j]];
            listed
                .push(format!("{} and {}: {of_real:.2} and {of_synthetic:.2}", names[i], names[j]));
            let numbers = [of_real, of_synthetic, half[i][j]].map(cell);
            rows.push([vec![names[i].clone(), names[j].clone()], numbers.to_vec()].concat());
        }
    }
    let words = format!("Rank correlations, real and synthetic. {}.", listed.join("; "));
    let title = "Rank correlations of a record's numbers (-1 to 1)".to_owned();
    let head = Head { name: "correlations", title, section: Section::Joint, words };
    let chart = svg::matrices(&head.title, &head.words, &names, &matrices);
    Some(head.figure(chart, &["a", "b", "real", "synthetic", "half_of_real"], rows))
}

/// Records a second over the span.
fn rate(comparison: &Comparison, samples: &Samples<'_>) -> Option<Figure> {
    let frame = &comparison.frame;
    let bin_ns = (frame.span_ns / MOST_BINS as i64).max(1);
    if frame.span_ns < 1_000 {
        return None;
    }
    let per_s = 1e9 / bin_ns as f64;
    let lines: Vec<Line> = [(Side::Real, &samples.real), (Side::Synthetic, &samples.synthetic)]
        .into_iter()
        .map(|(side, sample)| Line {
            side,
            name: side.name().to_owned(),
            points: sequence::in_bins(sample, bin_ns)
                .into_iter()
                .enumerate()
                .map(|(bin, count)| ((bin as f64 + 0.5) / per_s, count * per_s))
                .collect(),
        })
        .collect();
    let what = records(frame.kind);
    let mean = |line: &Line| {
        let rates: Vec<f64> = line.points.iter().map(|point| point.1).collect();
        let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
        format!(
            "{}: mean {}, least {}, most {}",
            line.name,
            tick(mean),
            tick(quantile(&rates, 0.0)),
            tick(quantile(&rates, 1.0))
        )
    };
    let words = format!(
        "{} a second in bins of {}, both from their first record on. {}.",
        sentence(what),
        crate::evaluate::seconds(bin_ns),
        lines.iter().map(mean).collect::<Vec<_>>().join("; ")
    );
    let (x, y) =
        (Axis::new("time from the first record (s)", false), Axis::new(format!("{what}/s"), false));
    let title = format!("{} a second over time", sentence(what));
    let head = Head { name: "rate_over_time", title, section: Section::Sequence, words };
    Some(Figure::of_lines(head, [x, y], &lines, ["trace", "time_s", "records_per_s"]))
}

fn rates(evaluation: &Evaluation) -> Option<Figure> {
    let mut sides = vec![Side::Real, Side::Synthetic];
    let has_baseline = evaluation.rates.iter().any(|rate| rate.baseline.is_some());
    sides.extend(has_baseline.then_some(Side::Markov));
    let rows: Vec<BarRow> = evaluation
        .rates
        .iter()
        .filter_map(|rate| {
            let mut values = vec![rate.real?, rate.synthetic.unwrap_or(f64::NAN)];
            values.extend(has_baseline.then(|| rate.baseline.unwrap_or(f64::NAN)));
            Some(BarRow { label: rate.name.replace('_', " "), values, spread: 0.0 })
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    let percent = |value: &f64| match value.is_nan() {
        true => "none".to_owned(),
        false => format!("{:.2}%", 100.0 * value),
    };
    let listed = rows.iter().map(|row| {
        format!("{}: {}", row.label, row.values.iter().map(percent).collect::<Vec<_>>().join(", "))
    });
    let names: Vec<&str> = sides.iter().map(|side| side.name()).collect();
    let words = format!("Shares, {}. {}.", names.join(", "), listed.collect::<Vec<_>>().join("; "));
    let title = "Consistency of protocols".to_owned();
    let head = Head { name: "protocol_rates", title, section: Section::Protocol, words };
    Some(Figure::of_bars(head, "share", &sides, &rows))
}

/// How many records the most frequent addresses have, by rank.
fn heavy_hitters(comparison: &Comparison, samples: &Samples<'_>) -> Vec<Figure> {
    let figure = |at: usize, name: &str, title: &str| {
        let sides = [
            (Side::Real, &samples.real),
            (Side::Synthetic, &samples.synthetic),
            (Side::Floor, &samples.halves[0]),
        ];
        let lines: Vec<Line> = sides
            .into_iter()
            .map(|(side, sample)| {
                let mut counts = sample.counts(at);
                counts.sort_unstable_by_key(|count| std::cmp::Reverse(*count));
                let total = sample.rows.len().max(1) as f64;
                let shares = counts.iter().take_while(|count| **count > 0);
                let points =
                    shares.enumerate().map(|(n, count)| ((n + 1) as f64, *count as f64 / total));
                // Every rank at first, then as many as the eye can tell apart.
                let mut next = 1.0;
                let points = points.filter(|(rank, _)| {
                    let takes = *rank >= next;
                    if takes {
                        next = (rank * 1.03).max(rank + 1.0);
                    }
                    takes
                });
                Line { side, name: side.name().to_owned(), points: points.collect() }
            })
            .collect();
        let first = |line: &Line| {
            let share = |rank: usize| {
                line.points.get(rank).map_or("none".to_owned(), |p| format!("{:.2}%", 100.0 * p.1))
            };
            format!("{}: first {}, tenth {}", line.name, share(0), share(9))
        };
        let words = format!(
            "Share of all {} by the rank of the address, both axes logarithmic. {}.",
            records(comparison.frame.kind),
            lines.iter().map(first).collect::<Vec<_>>().join("; ")
        );
        let (x, y) = (
            Axis::new("rank of the address", true),
            Axis::new(format!("share of {}", records(comparison.frame.kind)), true),
        );
        let head = Head { name, title: title.to_owned(), section: Section::Downstream, words };
        Figure::of_lines(head, [x, y], &lines, ["trace", "rank", "share"])
    };
    let of = |at: usize| {
        let name = format!("heavy_{}", comparison.frame.columns[at].name);
        figure(at, &name, &format!("Heavy hitters, {}", called(&comparison.frame, at).0))
    };
    comparison.frame.addresses().map(of).collect()
}

fn accuracies(evaluation: &Evaluation) -> Option<Figure> {
    let classifiers = evaluation.downstream.as_ref()?.classifiers.as_ref()?;
    let mut sides = vec![Side::Real, Side::Synthetic];
    let has_baseline = classifiers.accuracy.iter().any(|row| row.baseline.is_some());
    sides.extend(has_baseline.then_some(Side::Markov));
    let rows: Vec<BarRow> = classifiers
        .accuracy
        .iter()
        .map(|row| {
            let mut values = vec![row.real, row.synthetic];
            values.extend(has_baseline.then(|| row.baseline.unwrap_or(0.0)));
            BarRow { label: row.classifier.clone(), values, spread: 0.0 }
        })
        .collect();
    let listed = rows.iter().map(|row| {
        format!("{}: {:.1}% and {:.1}%", row.label, 100.0 * row.values[0], 100.0 * row.values[1])
    });
    let words = format!(
        "Accuracy on {} real flows that no classifier has seen, predicting {}, trained on real and on \
         synthetic flows. {}. Guessing the most frequent class gives {:.1}%.",
        classifiers.tested_on,
        classifiers.label,
        listed.collect::<Vec<_>>().join("; "),
        100.0 * classifiers.majority
    );
    let title = format!("Classifiers of {}, tested on real flows", classifiers.label);
    let head = Head { name: "classifiers", title, section: Section::Downstream, words };
    Some(Figure::of_bars(head, "accuracy (share)", &sides, &rows))
}

fn copies(evaluation: &Evaluation) -> Option<Figure> {
    let privacy = evaluation.privacy.as_ref()?;
    let sides = [Side::Synthetic, Side::Floor, Side::Markov];
    let or_0 = |share: Option<f64>| share.unwrap_or(0.0);
    let rows: Vec<BarRow> = privacy
        .copies
        .iter()
        .map(|kind| BarRow {
            label: kind.name.replace('_', " "),
            values: vec![or_0(kind.synthetic), or_0(kind.floor), or_0(kind.baseline)],
            spread: 0.0,
        })
        .collect();
    let listed = rows.iter().map(|row| {
        let [a, b, c] = [0, 1, 2].map(|at: usize| 100.0 * row.values[at]);
        format!("{}: {a:.2}%, {b:.2}%, {c:.2}%", row.label)
    });
    let of = if privacy.reference == "train" {
        "what was trained on"
    } else {
        "one half of the real trace"
    };
    let words = format!(
        "Share of distinct ones that occur in {of}: of the synthetic trace, of real flows that are not \
         in it, of the Markov baseline. {}.",
        listed.collect::<Vec<_>>().join("; ")
    );
    let title = "Exact copies".to_owned();
    let head = Head { name: "copies", title, section: Section::Privacy, words };
    Some(Figure::of_bars(head, "share that occurs in the reference", &sides, &rows))
}

fn curves(training: &[Point]) -> Option<Figure> {
    let last = training.last()?;
    match (last.adversarial, last.likelihood) {
        (_, Some(of_last)) => Some(likelihoods(training, last, of_last)),
        (Some(of_last), None) => Some(losses(training, last, of_last)),
        (None, None) => None,
    }
}

/// A line of what points have.
fn over_time(
    side: Side,
    name: &str,
    training: &[Point],
    of: impl Fn(&Point) -> Option<f32>,
) -> Line {
    let point = |point: &Point| Some((point.iteration as f64, f64::from(of(point)?)));
    Line { side, name: name.to_owned(), points: training.iter().filter_map(point).collect() }
}

/// Of a DoppelGANger.
fn losses(training: &[Point], last: &Point, of_last: Adversarial) -> Figure {
    let line = |side, name: &str, of: fn(Adversarial) -> f32| {
        over_time(side, name, training, |point| point.adversarial.map(of))
    };
    let lines = [
        line(Side::Real, "critic", |losses| losses.critic),
        line(Side::Synthetic, "generator", |losses| losses.generator),
    ];
    let words = format!(
        "Losses of critic and generator over {} iterations; at the end {:.3} and {:.3}. They are \
         Wasserstein losses: a level that stays says more than its height.",
        last.iteration, of_last.critic, of_last.generator
    );
    let (x, y) = (Axis::new("iteration (generator updates)", false), Axis::new("loss", false));
    let title = "Training losses".to_owned();
    let head = Head { name: "training", title, section: Section::Training, words };
    Figure::of_lines(head, [x, y], &lines, ["network", "iteration", "loss"])
}

/// Of an autoregressive model.
fn likelihoods(training: &[Point], last: &Point, of_last: Likelihood) -> Figure {
    let line = |side, name: &str, of: fn(Likelihood) -> Option<f32>| {
        over_time(side, name, training, |point| point.likelihood.and_then(of))
    };
    let lines = [
        line(Side::Synthetic, "training", |likelihood| Some(likelihood.nats)),
        line(Side::Real, "validation", |likelihood| likelihood.nats_validation),
    ];
    let least = lines[1].points.iter().copied().reduce(|a, b| if b.1 < a.1 { b } else { a });
    let validation = match (of_last.nats_validation, least) {
        (Some(at_end), Some((iteration, nats))) => format!(
            "{at_end:.3} for flows that are not learned from, of which the least was {nats:.3}, \
             after {iteration:.0} visits: the model is the average of its weights then"
        ),
        _ => "no pass was over, so flows that are not learned from were never looked at".to_owned(),
    };
    let words = format!(
        "Negative log-likelihood of a record given those before it, in nats, over {} of at most {} \
         visits of a batch; at the end {:.3} in training (with dropout), and {validation}. Less is \
         better. The networks of the flows' variables have no curve.",
        last.iteration, last.iterations, of_last.nats
    );
    let (x, y) = (Axis::new("visits of a batch", false), Axis::new("nats a record", false));
    let title = "Negative log-likelihood of records".to_owned();
    let head = Head { name: "training", title, section: Section::Training, words };
    Figure::of_lines(head, [x, y], &lines, ["flows", "iteration", "nats"])
}

/// With a capital letter.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(losses: impl Fn(u64) -> String) -> Vec<Point> {
        let line = |at: u64| {
            let losses = losses(at);
            let line = format!(
                r#"{{ "iteration": {at}, "iterations": 90, "chunk": 0, "chunks": 1, "epochs": 0.5,
                    "elapsed_s": 1.0, "samples_per_s": 1.0, {losses} }}"#
            );
            serde_json::from_str(&line).unwrap()
        };
        (1..=3).map(line).collect()
    }

    #[test]
    fn a_curve_is_called_what_it_is() {
        assert!(curves(&[]).is_none());
        let validation = ["null", "2.25", "2.5"];
        let nats = |at: u64| {
            let validation = validation[at as usize - 1];
            format!(r#""nats": {at}.5, "nats_validation": {validation}"#)
        };
        let figure = curves(&points(nats)).unwrap();
        assert_eq!(figure.title, "Negative log-likelihood of records");
        assert!(figure.words.contains("over 3 of at most 90 visits"), "{}", figure.words);
        assert!(figure.words.contains("the least was 2.250, after 2 visits"), "{}", figure.words);
        let csv = figure.csv();
        assert!(csv.starts_with("flows,iteration,nats\n"), "{csv}");
        assert_eq!(csv.matches("training,").count(), 3);
        assert_eq!(csv.matches("validation,").count(), 2);
        let before = curves(&points(nats)[..1]).unwrap();
        assert!(before.words.contains("no pass was over"), "{}", before.words);
        let critics = |at: u64| {
            format!(
                r#""critic": {at}.0, "generator": -1.0, "attribute_critic": 0.0,
                    "gradient_penalty": 0.0, "attribute_gradient_penalty": 0.0"#
            )
        };
        let figure = curves(&points(critics)).unwrap();
        assert_eq!(figure.title, "Training losses");
        assert!(figure.csv().contains("critic,3,3"), "{}", figure.csv());
    }
}
