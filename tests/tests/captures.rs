//! Awkward captures: every frame is used or counted, and what is usable trains.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use ns_model_format::Bundle;
use ns_tests::{lab_capture, program, shared_data};
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

fn train(arguments: &[&str], out: &Path) -> (Option<i32>, String) {
    let output = Command::new(program("ns-train"))
        .args(["train", "--epochs", "0", "--device", "cpu", "--out"])
        .arg(out)
        .args(arguments)
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("the program starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The shipped capture in two halves (the second compressed, and cut short in
/// its last record) and whole.
fn halves(folder: &Path) -> (PathBuf, PathBuf) {
    const HEADER: usize = 24;
    let whole = std::fs::read(lab_capture()).expect("the shipped capture");
    let mut middle = HEADER;
    while middle < whole.len() / 2 {
        let captured = whole[middle + 8..middle + 12].try_into().expect("four bytes");
        middle += 16 + u32::from_le_bytes(captured) as usize;
    }
    let parts = folder.join("parts");
    std::fs::create_dir(&parts).expect("a folder");
    // In order of name the later half comes first.
    std::fs::write(parts.join("2.pcap"), &whole[..middle]).expect("written");
    let mut gzip = flate2::write::GzEncoder::new(
        std::fs::File::create(parts.join("1.pcap.gz")).expect("a file"),
        flate2::Compression::fast(),
    );
    gzip.write_all(&whole[..HEADER]).expect("written");
    gzip.write_all(&whole[middle..whole.len() - 1]).expect("written");
    gzip.finish().expect("written");
    std::fs::write(parts.join(".notes"), "hidden").expect("written");
    let cut = folder.join("whole.pcap");
    std::fs::write(&cut, &whole[..whole.len() - 1]).expect("written");
    (parts, cut)
}

#[test]
fn a_folder_of_parts_gives_the_model_of_the_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let (parts, whole) = halves(folder.path());
    let out = folder.path().join("model.ns");
    let learn = |input: &Path, more: &[&str]| {
        let input = input.to_str().expect("a plain path");
        let (code, stderr) = train(&[&["--input", input], more].concat(), &out);
        assert_eq!(code, Some(0), "{stderr}");
        let bundle = Bundle::open(&out).expect("a good bundle");
        (bundle.manifest().clone(), stderr)
    };
    let (of_parts, stderr) = learn(&parts, &[]);
    assert!(stderr.contains("1 cut short by the end of the file"), "{stderr}");
    let (of_whole, _) = learn(&whole, &[]);
    assert_eq!(of_parts.provenance.input, "1.pcap.gz, 2.pcap");
    assert_ne!(of_parts.provenance.input_sha256, of_whole.provenance.input_sha256);
    assert_eq!(of_parts.schema, of_whole.schema);
    assert_eq!(of_parts.timeline, of_whole.timeline);
    let parts: Vec<PathBuf> = ["2.pcap", "1.pcap.gz"].map(|name| parts.join(name)).to_vec();
    let second = parts[1].to_str().expect("a plain path");
    let (of_two, _) = learn(&parts[0], &["--input", second]);
    assert_eq!(of_two.timeline, of_whole.timeline);
    // A sample keeps the rate of the whole.
    let (sampled, stderr) = learn(&whole, &["--max-records", "2000"]);
    assert!(stderr.contains("a seeded sample of"), "{stderr}");
    let ratio = sampled.timeline.records as f64 / of_whole.timeline.records as f64;
    assert!((0.5..2.0).contains(&ratio), "{ratio}");
    assert!(sampled.provenance.not_used["of flows outside the sample"] > 1000);
}

#[test]
fn an_error_names_the_file_and_the_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut damaged = std::fs::read(lab_capture()).expect("the shipped capture");
    damaged[24 + 8..24 + 12].copy_from_slice(&[0xff; 4]);
    let path = folder.path().join("damaged.pcap");
    std::fs::write(&path, damaged).expect("written");
    let lab = lab_capture();
    let inputs = [lab.as_path(), path.as_path()].map(|path| path.to_str().expect("a plain path"));
    let arguments = ["--input", inputs[0], "--input", inputs[1]];
    let out = folder.path().join("model.ns");
    let (code, stderr) = train(&arguments, &out);
    assert_eq!(code, Some(2), "{stderr}");
    let expected = "damaged.pcap`: record 1, at byte 24: 4294967295 captured bytes";
    assert!(stderr.contains(expected), "{stderr}");
    let (code, stderr) = train(&[&arguments[..], &["--on-error", "skip"]].concat(), &out);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("1 cut short or damaged from there on"), "{stderr}");
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
        let input = path.to_str().expect("a plain path");
        let (code, stderr) = train(&["--on-error", "skip", "--input", input], &out);
        if flows.len() < 2 {
            assert_eq!(code, Some(2), "{}: {stderr}", path.display());
            assert!(stderr.contains("training needs at least 2"), "{stderr}");
            continue;
        }
        assert_eq!(code, Some(0), "{}: {stderr}", path.display());
        Bundle::open(&out).expect("a good bundle");
        bundles += 1;
    }
    println!("{bundles} bundles");
}
