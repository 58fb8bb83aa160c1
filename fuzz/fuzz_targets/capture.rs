//! A capture, to packets.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ns_trainer::ingest::{OnError, pcap};

fuzz_target!(|bytes: &[u8]| {
    for on_error in [OnError::Stop, OnError::Skip] {
        if let Ok(capture) = pcap::parse(bytes, Path::new("fuzz.pcap"), on_error) {
            let left_out: u64 = capture.not_used.values().sum();
            assert_eq!(capture.records, capture.packets.len() as u64 + left_out);
            assert!(capture.packets.is_sorted_by_key(|packet| packet.time_ns));
        }
    }
});
