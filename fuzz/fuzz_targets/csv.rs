//! A table with every type of column, whole and thinned.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ns_trainer::config::{self, Resolved};
use ns_trainer::ingest::{OnError, Reading, table};

static CONFIG: LazyLock<Resolved> = LazyLock::new(|| {
    let file = config::parse(include_str!("../every_type.json"), "every_type.json");
    config::resolve(&file.expect("a good file"), Path::new(".")).expect("a good configuration")
});

fuzz_target!(|bytes: &[u8]| {
    for on_error in [OnError::Stop, OnError::Skip] {
        for max_records in [u32::MAX, 3] {
            let reading = Reading { on_error, max_records, ..Reading::default() };
            if let Ok(trace) = table::parse(bytes, Path::new("fuzz.csv"), &CONFIG, reading) {
                let rows = trace.times_ns.len();
                assert!(rows as u64 <= u64::from(max_records));
                assert!(trace.columns.iter().all(|column| column.column.len() == rows));
                assert!(trace.times_ns.is_sorted());
            }
        }
    }
});
