use std::path::Path;

use ns_model_format::random::{Purpose, Stream};

use super::*;
use crate::config::{self, Resolved};
use crate::ingest::{Reading, Trace, table};

/// Flow records whose fields depend on one another: a flow's service says how large
/// and how long its records are, and each record is about as large as the one before.
fn rows(seed: u64, flows: u64) -> Vec<Vec<String>> {
    let mut random = Stream::new(seed, Purpose::Training, 0);
    let mut rows: Vec<(u64, Vec<String>)> = Vec::new();
    for _ in 0..flows {
        let (port, proto, scale) =
            [(53, "UDP", 1.0), (80, "TCP", 8.0), (443, "TCP", 20.0)][random.below(3)];
        let client = [10, 11, 12, 13, 14, 15, 16, 17][random.below(8).min(random.below(8))];
        let name = [
            format!("10.0.0.{client}"),
            format!("192.0.2.{}", port % 200),
            (1024 + random.below(60_000)).to_string(),
            port.to_string(),
            proto.to_owned(),
        ];
        let mut time = 1_700_000_000_000_000 + random.below(600_000_000) as u64;
        let mut packets = (scale * (1.0 + f64::from(random.uniform()))).ceil();
        for _ in 0..1 + random.below(4) {
            packets = (packets * (0.8 + 0.4 * f64::from(random.uniform()))).ceil();
            let bytes = packets * (60.0 + 30.0 * scale + f64::from(random.uniform()) * 40.0);
            let state = if random.uniform() < 0.8 { "SF" } else { "S0" };
            let seconds = packets * 0.013 * (0.5 + f64::from(random.uniform()));
            let record = [
                time.to_string(),
                format!("{seconds:.4}"),
                packets.to_string(),
                bytes.round().to_string(),
                state.to_owned(),
            ];
            rows.push((time, [&name[..], &record[..]].concat()));
            time += 1_000_000 + random.below(20_000_000) as u64;
        }
    }
    rows.sort();
    rows.into_iter().map(|(_, row)| row).collect()
}

const HEADER: &str = "srcip,dstip,srcport,dstport,proto,ts,td,pkt,byt,type";

fn trace(rows: &[Vec<String>]) -> (Trace, Resolved) {
    let text = include_str!("../../../configs/netflow.json");
    let file = config::parse(text, "netflow.json").expect("a configuration");
    let config = config::resolve(&file, Path::new(".")).expect("a good one");
    let lines: Vec<String> = rows.iter().map(|row| row.join(",")).collect();
    let csv = format!("{HEADER}\n{}\n", lines.join("\n"));
    let trace = table::parse(csv.as_bytes(), Path::new("x.csv"), &config, Reading::default());
    (trace.expect("a table"), config)
}

fn compare(real: &[Vec<String>], synthetic: &[Vec<String>]) -> Comparison {
    let (real, config) = trace(real);
    let options = Options { splits: 5, ..Options::default() };
    Comparison::new(&real, &trace(synthetic).0, None, &config, options).expect("enough flows")
}

fn evaluated(comparison: &Comparison) -> Evaluation {
    evaluate(comparison, &Names::default(), true, &mut |_, _| {}).expect("evaluated")
}

fn metric<'e>(evaluation: &'e Evaluation, name: &str) -> &'e Metric {
    evaluation.metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| {
        let names: Vec<&str> = evaluation.metrics.iter().map(|m| m.name.as_str()).collect();
        panic!("no {name} in {names:?}")
    })
}

/// Each column in an order of its own: all marginals stay, nothing else does.
fn shuffled(rows: &[Vec<String>]) -> Vec<Vec<String>> {
    let mut out = rows.to_vec();
    for column in 0..rows[0].len() {
        let mut cells: Vec<String> = rows.iter().map(|row| row[column].clone()).collect();
        Stream::new(3, Purpose::Shuffle, column as u64).shuffle(&mut cells);
        out.iter_mut().zip(cells).for_each(|(row, cell)| row[column] = cell);
    }
    out
}

#[test]
fn a_trace_is_no_distance_from_itself() {
    let rows = rows(1, 400);
    let evaluation = evaluated(&compare(&rows, &rows));
    assert!(evaluation.metrics.len() > 30, "{}", evaluation.metrics.len());
    for metric in &evaluation.metrics {
        assert!(metric.whole.abs() < 1e-12, "{}: {}", metric.name, metric.whole);
        assert!(metric.value >= 0.0 && metric.floor >= 0.0, "{metric:?}");
    }
    // Halves of it are further from one another than from random flows of all of it.
    let median = evaluation.summary.median_r.expect("a ratio");
    assert!((0.5..1.1).contains(&median), "{median}");
}

#[test]
fn flows_of_the_same_source_are_at_the_floor() {
    let evaluation = evaluated(&compare(&rows(1, 1500), &rows(2, 1500)));
    let summary = &evaluation.summary;
    let median = summary.median_r.expect("a ratio");
    assert!((0.7..1.3).contains(&median), "{median}");
    assert!(summary.p95_r.expect("a ratio") < 2.5, "{summary:?}");
    assert_eq!(summary.verdict, "as near as the real trace is to itself");
    let [low, high] = summary.median_r_interval.expect("an interval");
    assert!(low <= median && median <= high, "{low} {median} {high}");
    // The baseline keeps marginals and what follows what: it is not far off either.
    assert!(summary.baseline_median_r.expect("a ratio") < 3.0, "{summary:?}");
}

#[test]
fn shuffled_columns_keep_their_marginals_and_lose_all_else() {
    let rows = rows(1, 1500);
    let evaluation = evaluated(&compare(&rows, &shuffled(&rows)));
    for name in ["proto.jsd", "pkt.ks", "byt.w1", "td.ks", "type.jsd", "srcip.rank_jsd"] {
        let found = metric(&evaluation, name);
        assert!(found.whole < 1e-9, "{name}: {}", found.whole);
    }
    for name in ["joint.jsd", "contingency.tv", "spearman.abs", "pearson_log.abs", "flow_len.ks"] {
        let r = metric(&evaluation, name).r.expect("a ratio");
        assert!(r > 3.0, "{name}: R {r}");
    }
    assert!(evaluation.summary.groups["joint"] > 5.0, "{:?}", evaluation.summary.groups);
}

#[test]
fn another_source_is_far_away_and_the_baseline_is_nearer() {
    let mut other = rows(2, 800);
    for row in &mut other {
        // Everything is UDP to one port, in records of one size.
        for (column, cell) in [(3, "9999"), (4, "UDP"), (7, "3"), (8, "3000")] {
            cell.clone_into(&mut row[column]);
        }
    }
    let evaluation = evaluated(&compare(&rows(1, 800), &other));
    let summary = &evaluation.summary;
    // When records come was not changed.
    assert!(summary.groups["fields"] > 3.0 && summary.groups["joint"] > 3.0, "{summary:?}");
    assert!(summary.beats_baseline.expect("a baseline") < 0.5, "{summary:?}");
    assert_eq!(metric(&evaluation, "service.tv").whole, 1.0);
}

#[test]
fn an_evaluation_is_the_same_each_time_and_follows_its_seed() {
    let (a, b) = (rows(1, 300), rows(2, 300));
    let first = evaluated(&compare(&a, &b));
    assert_eq!(first, evaluated(&compare(&a, &b)));
    let (real, config) = trace(&a);
    let options = Options { splits: 5, seed: 2, ..Options::default() };
    let other = Comparison::new(&real, &trace(&b).0, None, &config, options).expect("enough");
    assert_ne!(first.metrics, evaluated(&other).metrics);
    // Whole traces do not depend on it.
    let whole = |e: &Evaluation| e.metrics.iter().map(|m| m.whole).collect::<Vec<_>>();
    assert_eq!(whole(&first), whole(&evaluated(&other)));
}

#[test]
fn the_document_is_read_as_it_was_written() {
    let comparison = compare(&rows(1, 200), &rows(2, 200));
    let whole = evaluate(&comparison, &Names::default(), false, &mut |_, _| {}).expect("evaluated");
    assert!(whole.downstream.is_some() && whole.classifier.is_some() && whole.privacy.is_some());
    let text = serde_json::to_string(&whole).expect("JSON");
    assert_eq!(serde_json::from_str::<Evaluation>(&text).expect("an evaluation"), whole);
    let text = text::tables(&whole);
    for part in ["median R", "Markov", "NetShare's table", "heavy hitters", "copies of real ones"] {
        assert!(text.contains(part), "{part}");
    }
}

#[test]
fn copies_are_found_and_told_from_chance() {
    let (train, test) = (rows(1, 600), rows(2, 600));
    let (real, config) = trace(&test);
    let trained_on = trace(&train).0;
    let options = Options { splits: 2, ..Options::default() };
    // A model that remembers everything, and one that remembers nothing.
    let privacy = |synthetic: &[Vec<String>]| {
        let synthetic = trace(synthetic).0;
        let comparison = Comparison::new(&real, &synthetic, Some(&trained_on), &config, options)
            .expect("enough");
        Privacy::of(&comparison)
    };
    let (copied, fresh) = (privacy(&train), privacy(&rows(3, 600)));
    let tuples = |privacy: &Privacy| {
        let found = privacy.copies.iter().find(|kind| kind.name == "tuple").expect("tuples");
        (found.synthetic.expect("some"), found.floor.expect("some"))
    };
    assert_eq!(tuples(&copied).0, 1.0, "{copied:?}");
    assert!(tuples(&fresh).0 < 0.02 && tuples(&fresh).1 < 0.02, "{fresh:?}");
    let nearer = |privacy: &Privacy| privacy.closest.as_ref().expect("trained on").nearer_to_train;
    assert!(nearer(&copied) > 0.95, "{copied:?}");
    assert!((0.4..0.6).contains(&nearer(&fresh)), "{fresh:?}");
}

#[test]
fn a_trace_of_one_conversation_cannot_be_halved() {
    let rows = rows(1, 1);
    let (one, config) = trace(&rows);
    let error = Comparison::new(&one, &one, None, &config, Options::default());
    let message = error.expect_err("too few").to_string();
    assert_eq!(message, "the real trace has 1 conversations; a comparison needs at least 4");
}

#[test]
fn what_comes_after_the_real_span_is_left_out() {
    let real = rows(1, 300);
    let mut longer = rows(2, 300);
    let mut late = longer.clone();
    for row in &mut late {
        let time: u64 = row[5].parse().expect("a time");
        row[5] = (time + 700_000_000).to_string();
    }
    longer.extend(late);
    let comparison = compare(&real, &longer);
    assert!(comparison.left_out > 0);
    let evaluation = evaluated(&comparison);
    assert!(evaluation.synthetic.span_s <= evaluation.real.span_s);
    assert!(evaluation.notes[0].contains("longer than the real one"), "{:?}", evaluation.notes);
}

#[test]
fn values_that_never_occurred_are_compared_too() {
    // Fields with missing numbers, and one constant in the real trace.
    let mut synthetic = rows(2, 200);
    let mut real = rows(1, 200);
    real.iter_mut().step_by(3).for_each(|row| "-".clone_into(&mut row[6]));
    real.iter_mut().for_each(|row| "SF".clone_into(&mut row[9]));
    synthetic.iter_mut().for_each(|row| "RSTO".clone_into(&mut row[9]));
    let evaluation = evaluated(&compare(&real, &synthetic));
    let missing = metric(&evaluation, "td_missing.abs");
    assert!((missing.whole - 1.0 / 3.0).abs() < 0.01, "{missing:?}");
    let constant = metric(&evaluation, "type.jsd");
    assert_eq!((constant.floor, constant.r), (0.0, None));
    assert!((constant.value - std::f64::consts::LN_2).abs() < 1e-9, "{constant:?}");
}

#[test]
fn a_small_test_part_still_sees_that_all_of_training_was_copied() {
    let (train, test) = (rows(1, 900), rows(2, 100));
    let (real, config) = trace(&test);
    let trained_on = trace(&train).0;
    let options = Options { splits: 2, ..Options::default() };
    let comparison = Comparison::new(&real, &trained_on, Some(&trained_on), &config, options);
    let privacy = Privacy::of(&comparison.expect("enough flows"));
    assert!(privacy.copies.iter().all(|kind| kind.synthetic == Some(1.0)), "{privacy:?}");
    assert!(privacy.closest.expect("trained on").nearer_to_train > 0.95);
}

#[test]
fn a_classifier_cannot_tell_halves_of_a_trace_apart() {
    // Hosts and ports of a flow must not tell in which half it is.
    let (real, config) = trace(&rows(1, 900));
    let floors = (0..6).map(|seed| {
        let options = Options { splits: 1, seed, baseline: false };
        let comparison = Comparison::new(&real, &real, None, &config, options).expect("enough");
        TwoSample::of(&comparison).expect("learned").floor
    });
    let floors: Vec<f64> = floors.collect();
    let mean = floors.iter().sum::<f64>() / 6.0;
    // 450 flows a side: one floor deviates by 0.019, the mean of six by 0.008.
    assert!((mean - 0.5).abs() < 0.03, "{floors:?}");
}

#[test]
fn a_column_of_a_table_may_be_called_like_anything() {
    let name = |name: &str, rows: &[Vec<String>]| {
        let (mut trace, mut config) = trace(rows);
        let column = trace.columns.iter_mut().find(|column| column.column.name == "type");
        name.clone_into(&mut column.expect("a type").column.name);
        let field = config.timeseries.iter_mut().find(|field| field.column == "type");
        name.clone_into(&mut field.expect("a type").column);
        (trace, config)
    };
    for called in ["direction", "gap", "../../x", "<script>"] {
        let ((real, config), (other, _)) =
            (name(called, &rows(1, 200)), name(called, &rows(2, 200)));
        let options = Options { splits: 2, ..Options::default() };
        let comparison = Comparison::new(&real, &other, None, &config, options).expect("enough");
        let evaluation = evaluated(&comparison);
        let mut names: Vec<&str> = evaluation.metrics.iter().map(|m| m.name.as_str()).collect();
        let expected = match called {
            "gap" => "column_gap.jsd".to_owned(),
            other => format!("{other}.jsd"),
        };
        assert!(names.contains(&expected.as_str()), "{names:?}");
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        let report = crate::visualize::report(&comparison, &evaluation, &[]);
        assert!(!report.html.contains("<script"));
        assert!(report.figures.iter().all(|figure| !figure.name.contains(['.', '/', '<'])));
    }
}

#[test]
fn what_never_varies_in_the_real_trace_is_not_passed_over() {
    let (mut real, mut synthetic) = (rows(1, 300), rows(2, 300));
    real.iter_mut().for_each(|row| "SF".clone_into(&mut row[9]));
    synthetic.iter_mut().for_each(|row| "RSTO".clone_into(&mut row[9]));
    let summary = evaluated(&compare(&real, &synthetic)).summary;
    assert_eq!(summary.broken, ["type.jsd"]);
    assert!(summary.verdict.ends_with("1 that never vary in the real trace differ"), "{summary:?}");
}

#[test]
fn the_baseline_is_as_long_as_the_real_trace() {
    let (real, config) = trace(&rows(1, 200));
    let mut longer = rows(2, 300);
    for (row, record) in longer.iter_mut().enumerate().filter(|(row, _)| row % 2 == 1) {
        record[5] =
            (record[5].parse::<u64>().expect("a time") + 2_000_000_000 + row as u64).to_string();
    }
    let train = trace(&longer).0;
    let comparison = Comparison::new(&real, &real, Some(&train), &config, Options::default());
    let comparison = comparison.expect("enough");
    let times = &comparison.baseline.as_ref().expect("a baseline").times_ns;
    assert!(times.last().expect("records") - times[0] <= comparison.frame.span_ns);
}
