//! Awkward captures: every frame is used or counted, and what is usable trains.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use ns_tests::{program, shared_data};
use ns_trainer::ingest::{IngestError, OnError, pcap};

/// What tshark finds in a file: its frames, and whether it reads it to the end.
struct Reference {
    frames: u64,
    complaint: String,
}

fn tshark(path: &Path) -> Option<Reference> {
    let fields = ["-n", "-T", "fields", "-e", "frame.number"];
    let output = Command::new("tshark").arg("-r").arg(path).args(fields).output().ok()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    // Run by root it warns of that on the standard error too.
    let complaint = stderr.lines().find(|line| line.starts_with("tshark: ")).unwrap_or_default();
    let frames = String::from_utf8_lossy(&output.stdout).lines().count() as u64;
    Some(Reference { frames, complaint: complaint.to_owned() })
}

/// The awkward captures, or none, said, where they or tshark are missing.
fn robust_captures() -> Vec<PathBuf> {
    let Some(folder) = shared_data().map(|data| data.join("robust")).filter(|path| path.is_dir())
    else {
        println!("skipped: ../shared/data/robust is not there");
        return Vec::new();
    };
    if Command::new("tshark").arg("--version").output().is_err() {
        println!("skipped: tshark is not installed");
        return Vec::new();
    }
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

const CUT: &str = "cut short by the end of the file";
const DAMAGED: &str = "cut short or damaged from there on";

#[test]
fn every_frame_that_tshark_lists_is_used_or_counted() {
    for path in robust_captures() {
        let name = path.display();
        let reference = tshark(&path).expect("tshark runs");
        let (used, not_used) = match pcap::read(&path, OnError::Skip) {
            Ok(capture) => (capture.packets.len() as u64, capture.not_used),
            Err(IngestError::Empty { not_used, .. }) => (0, not_used),
            Err(error) => {
                assert!(!reference.complaint.is_empty(), "{error}");
                println!("{error}; {}", reference.complaint);
                continue;
            }
        };
        if reference.complaint.contains("doesn't support") {
            assert_eq!(used, 0, "{name}: {not_used:?}");
            continue;
        }
        let of = |reason: &str| not_used.get(reason).copied().unwrap_or(0);
        let frames = used + not_used.values().sum::<u64>() - of(CUT) - of(DAMAGED);
        assert_eq!(frames, reference.frames, "{name}: {used} used, {not_used:?}");
        // What is damaged for one is for the other.
        let says = |text: &str| u64::from(reference.complaint.contains(text));
        assert_eq!(of(CUT), says("cut short"), "{name}: {}", reference.complaint);
        assert_eq!(of(DAMAGED), says("damaged or corrupt"), "{name}: {}", reference.complaint);
        let stops = matches!(
            pcap::read(&path, OnError::Stop),
            Err(IngestError::Record { .. } | IngestError::NotACapture { .. })
        );
        assert_eq!(stops, of(DAMAGED) > 0, "{name}");
    }
}

#[test]
fn every_capture_with_two_flows_becomes_a_bundle() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bundles = 0;
    for path in robust_captures() {
        let Ok(capture) = pcap::read(&path, OnError::Skip) else { continue };
        let flows: HashSet<_> = capture
            .packets
            .iter()
            .map(|packet| packet.tuple.min(packet.tuple.reversed()))
            .collect();
        let out = folder.path().join("model.ns");
        let output = Command::new(program("ns-train"))
            .args(["train", "--epochs", "0", "--on-error", "skip", "--device", "cpu", "--input"])
            .arg(&path)
            .arg("--out")
            .arg(&out)
            .output()
            .expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        if flows.len() < 2 {
            assert_eq!(output.status.code(), Some(2), "{}: {stderr}", path.display());
            assert!(stderr.contains("training needs at least 2"), "{stderr}");
            continue;
        }
        assert!(output.status.success(), "{}: {stderr}", path.display());
        ns_model_format::Bundle::open(&out).expect("a good bundle");
        bundles += 1;
    }
    println!("{bundles} bundles");
}
