//! A CSV of flow records, under a configuration with every type of column.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ns_trainer::config::{self, Resolved};
use ns_trainer::ingest::{OnError, csv};

static CONFIG: LazyLock<Resolved> = LazyLock::new(|| {
    let file = config::parse(include_str!("../../configs/netflow.json"), "netflow.json");
    config::resolve(&file.expect("a shipped configuration"), Path::new(".")).expect("the same")
});

fuzz_target!(|bytes: &[u8]| {
    for on_error in [OnError::Stop, OnError::Skip] {
        if let Ok(trace) = csv::from_reader(bytes, Path::new("fuzz.csv"), &CONFIG, on_error) {
            let rows = trace.times_ns.len();
            assert!(trace.columns.iter().all(|column| column.len() == rows));
            assert!(trace.times_ns.is_sorted());
        }
    }
});
