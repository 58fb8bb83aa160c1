//! A capture, to packets and on to conversations.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ns_trainer::config::{self, DEFAULT_PCAP, Resolved};
use ns_trainer::ingest::{OnError, packets, pcap};

static CONFIG: LazyLock<Resolved> = LazyLock::new(|| {
    let file = config::parse(DEFAULT_PCAP, "pcap.json").expect("the default configuration");
    config::resolve(&file, Path::new(".")).expect("the same")
});

fuzz_target!(|bytes: &[u8]| {
    for on_error in [OnError::Stop, OnError::Skip] {
        if let Ok(capture) = pcap::parse(bytes, Path::new("fuzz.pcap"), on_error) {
            let left_out: u64 = capture.not_used.values().sum();
            assert_eq!(capture.records, capture.packets.len() as u64 + left_out);
            assert!(capture.packets.is_sorted_by_key(|packet| packet.time_ns));
            let _ = packets::trace(capture, &CONFIG);
        }
    }
});
