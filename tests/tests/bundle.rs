//! The bundle against damage and malice: every bad file is one clear error.

use std::io::{Cursor, Write};

use ns_model_format::bundle::hex_sha256;
use ns_model_format::{Bundle, BundleError};
use ns_tests::{SampleModel, sample_bundle};

fn sample() -> Vec<u8> {
    sample_bundle(SampleModel { hidden: 4, units: 4, ..SampleModel::default() })
        .to_bytes()
        .expect("small enough")
}

fn refused(bytes: &[u8]) -> String {
    Bundle::from_bytes(bytes).expect_err("refused").to_string()
}

#[test]
fn a_bundle_comes_back_whole_and_equal_bundles_are_equal_bytes() {
    let bundle = sample_bundle(SampleModel::default());
    let bytes = bundle.to_bytes().expect("small enough");
    let back = Bundle::from_bytes(&bytes).expect("a good bundle");
    assert_eq!(back, bundle);
    assert_eq!(back.to_bytes().expect("small enough"), bytes);
    assert_eq!(sample_bundle(SampleModel::default()).to_bytes().expect("small enough"), bytes);
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.ns");
    let bundle = sample_bundle(SampleModel::default());
    bundle.write(&path).expect("written");
    assert_eq!(Bundle::open(&path).expect("readable"), bundle);
    let missing = folder.path().join("no/such/folder/model.ns");
    assert!(matches!(bundle.write(&missing), Err(BundleError::Io { .. })));
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "no temporary file is left: {left:?}");
}

#[test]
fn every_cut_is_noticed() {
    let bytes = sample();
    for length in (0..bytes.len()).step_by(97).chain(bytes.len() - 100..bytes.len()) {
        refused(&bytes[..length]);
    }
    assert_eq!(refused(&[]), "not a NetShare bundle: the file is empty");
    assert_eq!(refused(b"PNG"), "not a NetShare bundle: it does not begin like a zip archive");
    assert_eq!(
        refused(&bytes[..bytes.len() - 1]),
        "the bundle is damaged or cut short: the digest at its end is missing"
    );
}

#[test]
fn every_flipped_byte_is_noticed() {
    let mut bytes = sample();
    for at in (0..bytes.len()).step_by(53).chain(bytes.len() - 200..bytes.len()) {
        bytes[at] ^= 0x20;
        refused(&bytes);
        bytes[at] ^= 0x20;
    }
    Bundle::from_bytes(&bytes).expect("as it was");
}

/// A zip of these files with a right digest at its end: what an attacker can make.
fn forged(files: &[(&str, &[u8])], method: zip::CompressionMethod) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, contents) in files {
        archive.start_file(*name, options).expect("a file");
        archive.write_all(contents).expect("written");
    }
    archive.set_raw_comment(vec![b'-'; 71].into_boxed_slice()).expect("short");
    signed(archive.finish().expect("written").into_inner())
}

fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
    let body = bytes.len() - 71;
    bytes.truncate(body);
    let digest = hex_sha256(&bytes);
    bytes.extend_from_slice(b"sha256:");
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

/// The sample's files, its manifest changed.
fn with_manifest(change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    let bytes = sample();
    let mut archive = zip::ZipArchive::new(Cursor::new(&bytes)).expect("a zip");
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).expect("a file");
        let mut contents = Vec::new();
        std::io::copy(&mut file, &mut contents).expect("read");
        files.push((file.name().expect("a name").into_owned(), contents));
    }
    let mut manifest = serde_json::from_slice(&files[0].1).expect("JSON");
    change(&mut manifest);
    files[0].1 = serde_json::to_vec(&manifest).expect("JSON");
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, contents)| (name.as_str(), contents.as_slice())).collect();
    forged(&files, zip::CompressionMethod::Stored)
}

#[test]
fn a_newer_format_is_named() {
    let text = refused(&with_manifest(|manifest| manifest["format"] = 7.into()));
    assert_eq!(text, "bundle format 7 is newer than the newest known, 6");
    let text = refused(&with_manifest(|manifest| manifest["format"] = "1".into()));
    assert!(text.starts_with("manifest.json: format: "), "{text}");
}

#[test]
fn paths_that_lead_outside_are_refused() {
    for name in ["../model", "/etc/passwd", "a/../b", "a\\b", "", ".hidden", "a//b"] {
        let text = refused(&forged(
            &[("manifest.json", b"{}"), (name, b"x")],
            zip::CompressionMethod::Stored,
        ));
        assert!(text.contains("bad file name") || text.contains("zip: "), "{name}: {text}");
    }
}

#[test]
fn absurd_sizes_are_refused_before_anything_is_allocated() {
    let mut bytes = sample();
    // Every 4-byte size in the central directory says 4 GB.
    let directory: Vec<usize> =
        (0..bytes.len() - 4).filter(|&at| bytes[at..at + 4] == *b"PK\x01\x02").collect();
    assert!(!directory.is_empty());
    for at in directory {
        bytes[at + 20..at + 28].fill(0xfe);
    }
    let text = refused(&signed(bytes));
    assert!(text.contains("damaged"), "{text}");
}

#[test]
fn manifests_that_do_not_fit_are_refused_with_the_place() {
    let step = "/model/chunks/0/step";
    let cases: [(&str, serde_json::Value, &str); 10] = [
        ("/model/chunks", serde_json::json!([]), "model.chunks: 0 chunks"),
        (&format!("{step}/layout/repeat"), 4_000_000_000_u64.into(), "does not tile"),
        (&format!("{step}/layout/segments/0/offset"), 7.into(), "does not tile"),
        (&format!("{step}/file"), "chunk-0/other.onnx".into(), "is not in the bundle"),
        (&format!("{step}/gates/dim"), 17.into(), "step.gates has 17 values"),
        (&format!("{step}/states/0/dim"), 0.into(), "a tensor has 0 values"),
        ("/schema/attributes/0/codec/n_bits", 199.into(), "`n_bits` is 199"),
        ("/timeline/arrivals", serde_json::json!({"span_ns": 9, "bins": [[]]}), "has no flows"),
        ("/timeline/arrivals/bins/0/flows", 1e300.into(), "is out of range"),
        ("/timeline/arrivals/bins", serde_json::json!([[], [9e18]]), "is out of range"),
    ];
    for (place, value, expected) in cases {
        let text = refused(&with_manifest(|manifest| {
            *manifest.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = value.clone();
        }));
        assert!(text.contains(expected), "{place}: `{text}` does not say `{expected}`");
    }
    let added: [(&str, &str, serde_json::Value, &str); 7] = [
        (
            "/timeline",
            "chunk_starts_ns",
            serde_json::json!([0, 5]),
            "1 chunks; 2 begin in the span",
        ),
        ("/timeline", "chunk_starts_ns", serde_json::json!([5]), "chunks must begin at 0"),
        ("/timeline/arrivals", "bin_starts_ns", serde_json::json!([0]), "is out of range"),
        (
            "/schema",
            "spanning",
            serde_json::json!({"chunks": 2, "tags": "every_part"}),
            "flows span 2 chunks; the model has 1",
        ),
        (
            "/schema",
            "spanning",
            serde_json::json!({"chunks": 4_000_000_000_u32, "tags": "every_part"}),
            "more than 10000 chunks",
        ),
        (
            "/model/chunks/0",
            "handed_over",
            serde_json::json!({"begins": []}),
            "handed_over is out of range",
        ),
        (
            "/model/chunks/0",
            "handed_over",
            serde_json::json!({"begins": [0.5, 0.2], "goes_on": 0.5}),
            "handed_over is out of range",
        ),
    ];
    for (place, key, value, expected) in added {
        let text = refused(&with_manifest(|manifest| {
            let place = manifest.pointer_mut(place).unwrap_or_else(|| panic!("{place}"));
            place[key] = value.clone();
        }));
        assert!(text.contains(expected), "{place} {key}: `{text}` does not say `{expected}`");
    }
    let text = refused(&with_manifest(|manifest| manifest["extra"] = 1.into()));
    assert!(text.contains("unknown field `extra`"), "{text}");
}

#[test]
fn files_that_the_manifest_does_not_list_or_lists_otherwise_are_refused() {
    let text = refused(&with_manifest(|manifest| {
        manifest["files"]["weights.safetensors"]["sha256"] = "00".into();
    }));
    assert!(text.contains("`weights.safetensors` does not have the digest"), "{text}");
    let text = refused(&with_manifest(|manifest| {
        manifest["files"].as_object_mut().expect("files").remove("weights.safetensors");
    }));
    assert!(text.contains("`weights.safetensors` is not listed"), "{text}");
    let text = refused(&forged(&[("other.json", b"{}")], zip::CompressionMethod::Stored));
    assert_eq!(text, "not a NetShare bundle: it has no manifest.json");
}
