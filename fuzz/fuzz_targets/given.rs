//! Given attributes and conditions, for the bundles of packets and of flow records.
//!
//! The first line is a condition, the rest a CSV.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ns_model_format::Bundle;
use ns_runtime::{GenerateOptions, GivenFlows};

static BUNDLES: LazyLock<[Bundle; 2]> = LazyLock::new(|| {
    let packets = include_bytes!("../../tests/golden/packets-1.ns");
    let netflow = include_bytes!("../../tests/golden/netflow-1.ns");
    [&packets[..], netflow].map(|bytes| Bundle::from_bytes(bytes).expect("a golden bundle"))
});

fuzz_target!(|text: &str| {
    let (condition, csv) = text.split_once('\n').unwrap_or((text, ""));
    for bundle in &*BUNDLES {
        let mut options = GenerateOptions::default();
        options.conditions.extend(condition.parse());
        let _ = options.check_against(bundle);
        let schema = &bundle.manifest().schema;
        if let Ok(flows) = GivenFlows::from_reader(csv.as_bytes(), Path::new("x.csv"), schema) {
            assert!(!flows.is_empty());
        }
    }
});
