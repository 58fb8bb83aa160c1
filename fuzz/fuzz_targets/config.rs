//! A configuration file, read and resolved.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ns_trainer::config;

fuzz_target!(|text: &str| {
    if let Ok(file) = config::parse(text, "fuzz.json") {
        let _ = config::resolve(&file, Path::new("."));
    }
});
