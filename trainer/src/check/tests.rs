//! Tables with something wrong: each is found, with its number.

use std::path::Path;

use super::*;
use crate::config::{parse, resolve};
use crate::dataset;
use crate::ingest::{Reading, table};

const CONFIG: &str = r#"{
    "global_config": { "dataset_type": "custom" },
    "pre_post_processor": { "config": {
        "timestamp": { "column": "ts", "unit": "s" },
        "metadata": [ { "column": "host", "type": "string", "encoding": "categorical" } ],
        "timeseries": [ { "column": "x", "type": "float" } ]
    } }
}"#;

fn report_with(rows: &str, config: &str) -> Report {
    let config = resolve(&parse(config, "test").expect("good"), Path::new(".")).expect("good");
    let text = format!("ts,host,x\n{rows}");
    let trace = table::parse(text.as_bytes(), Path::new("test.csv"), &config, Reading::default());
    let trace = trace.expect("a good table");
    let dataset = dataset::build(&trace, &config, 1).expect("encodes");
    check(&trace, &config, &dataset)
}

fn report(rows: &str) -> Report {
    report_with(rows, CONFIG)
}

/// The figure of a finding, if it was found.
fn found(report: &Report, what: &str, column: Option<&str>) -> Option<f64> {
    let mut findings = report.findings.iter();
    findings.find(|f| f.what == what && f.column.as_deref() == column).map(|f| f.value)
}

/// So many rows of two hosts, with some `x`.
fn rows(count: usize, x: impl Fn(usize) -> String) -> String {
    (0..count).map(|row| format!("{row},h{},{}\n", row % 2, x(row))).collect()
}

#[test]
fn size_order_and_silence() {
    let small = report("0,a,1\n5,b,2\n3,a,3\n900,b,4\n");
    assert_eq!(found(&small, "few_records", None), Some(4.0));
    assert_eq!(found(&small, "few_flows", None), Some(2.0));
    assert_eq!(found(&small, "unsorted", None), Some(1.0));
    assert!(found(&small, "long_silence", None).is_some_and(|share| share > 0.99));
    assert_eq!((small.records, small.flows, small.span_s), (4, 2, 900.0));
    // The worst first.
    assert!(small.findings.is_sorted_by_key(|finding| std::cmp::Reverse(finding.severity)));
    let large = report(&rows(12_000, |row| (row % 97).to_string()));
    assert_eq!(found(&large, "few_records", None), None);
    assert_eq!(found(&large, "unsorted", None), None);
    assert_eq!(found(&large, "long_silence", None), None);
    assert_eq!(found(&large, "long_flows", None), Some(6_000.0));
}

#[test]
fn columns_that_teach_little() {
    let constant = report(&rows(100, |_| "7".to_owned()));
    assert_eq!(found(&constant, "constant", Some("x")), Some(1.0));
    let missing = report(&rows(100, |row| if row < 95 { "-".to_owned() } else { row.to_string() }));
    assert_eq!(found(&missing, "missing", Some("x")), Some(0.95));
    let outliers =
        report(&rows(1_000, |row| if row == 0 { "1e9".to_owned() } else { row.to_string() }));
    assert!(found(&outliers, "outliers", Some("x")).is_some_and(|width| width < 1e-5));
    assert_eq!(found(&report(&rows(1_000, |row| row.to_string())), "outliers", Some("x")), None);
    let words =
        CONFIG.replace(r#""type": "float""#, r#""type": "string", "encoding": "categorical""#);
    let imbalance =
        report_with(&rows(1_000, |row| if row < 3 { "b" } else { "a" }.to_owned()), &words);
    assert_eq!(found(&imbalance, "imbalance", Some("x")), Some(0.997));
    assert_eq!(found(&imbalance, "rare_categories", Some("x")), Some(1.0));
    let many = report_with(&rows(3_000, |row| format!("w{}", row / 2)), &words);
    assert_eq!(found(&many, "many_outputs", Some("x")), Some(1_500.0));
}

#[test]
fn flows_of_one_record() {
    let singles: String = (0..100).map(|row| format!("{row},h{row},1\n")).collect();
    assert_eq!(found(&report(&singles), "singletons", None), Some(1.0));
}

#[test]
fn what_an_encoding_loses() {
    // Seven digits of single precision: 0.001 in a range of 100,000 does not survive.
    let report = report(&rows(1_000, |row| format!("{}.123", row * 100)));
    let x = report.fields.iter().find(|loss| loss.column == "x").expect("the field");
    assert_eq!((x.attribute, x.values, x.rows), (false, 1, 1_000));
    assert!(x.exact < 1.0 && x.largest_error.is_some_and(|error| error < 0.1), "{x:?}");
    let host = report.fields.iter().find(|loss| loss.column == "host").expect("the field");
    assert_eq!((host.exact, host.mean_error), (1.0, None));
    assert!(report.memory_bytes > 1_000_000 && report.memory_bytes < 1_000_000_000);
}
