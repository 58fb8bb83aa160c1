//! A trace that is generated in parts is the trace.

use std::path::Path;

use ns_tests::{expect, lab_capture, read, repository};
use serde_json::Value;

/// Expects an exit code of `ns-train`; standard output and standard error.
fn ns_train(code: i32, folder: &Path, arguments: &[&str]) -> (String, String) {
    expect(code, folder, "ns-train", arguments)
}

/// A work folder `run` with a model of the shipped capture in it, in three chunks: flows
/// are handed over.
fn trained(folder: &Path) {
    let mut config = std::fs::read_to_string(repository().join("configs/pcap.json")).expect("read");
    // Small and quick: what it learns does not matter.
    for (from, to) in [("\"n_chunks\": 1", "\"n_chunks\": 3"), (": 400", ": 1"), (": 256", ": 32")]
    {
        assert!(config.contains(from), "{from}");
        config = config.replace(from, to);
    }
    std::fs::write(folder.join("config.json"), config).expect("written");
    let capture = lab_capture();
    let capture = capture.to_str().expect("a name");
    let train = ["train", "-q", "--config", "config.json", "--input", capture, "--work", "run"];
    // Only this class has chunks.
    ns_train(0, folder, &[&train[..], &["--model", "doppelganger"]].concat());
}

fn generate<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["generate", "-q", "--work", "run", "--flows", "600", "--seed", "5"], more].concat()
}

#[test]
fn parts_merge_into_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    trained(folder);
    let work = folder.join("run");
    ns_train(0, folder, &generate(&[]));
    let whole = read(work.join("synthetic.pcap"));

    // A trace that is there is not written over by accident.
    let (_, said) = ns_train(2, folder, &generate(&["--parts", "3"]));
    assert!(said.contains("synthetic.pcap"), "{said}");

    // From one command, several threads.
    let parts = generate(&["--parts", "3", "--threads", "2", "--overwrite", "--json"]);
    let (json, _) = ns_train(0, folder, &parts);
    assert!(read(work.join("synthetic.pcap")) == whole, "parts from one command");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["flows"], 600);
    assert!(!work.join("generation").exists());

    // As units, in any order, each a process of its own.
    ns_train(0, folder, &generate(&["--parts", "3", "--plan-only", "--overwrite"]));
    let (_, said) = ns_train(2, folder, &["unit", "--work", "run", "generate/merge"]);
    assert!(said.contains("generation/part-0"), "{said}");
    for part in [2, 0] {
        ns_train(0, folder, &["unit", "--work", "run", &format!("generate/part-{part}")]);
    }
    let (status, _) = ns_train(0, folder, &["status", "--work", "run", "--json"]);
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let units = status["units"].as_array().expect("units").iter();
    let state = |name: &str| {
        let unit = units.clone().find(|unit| unit["name"] == name).expect("listed");
        unit["state"].as_str().expect("a state").to_owned()
    };
    let states = ["generate/part-0", "generate/part-1", "generate/merge"].map(state);
    assert_eq!(states, ["done", "ready", "waiting"]);

    // Another trace is not mixed with it.
    let (_, said) =
        ns_train(2, folder, &["generate", "--work", "run", "--parts", "3", "--flows", "9"]);
    assert!(said.contains("synthetic.pcap"), "the trace is in the way first: {said}");
    std::fs::remove_file(work.join("synthetic.pcap")).expect("removed");
    let (_, said) =
        ns_train(2, folder, &["generate", "--work", "run", "--parts", "3", "--flows", "9"]);
    assert!(said.contains("parts of another trace"), "{said}");

    // A damaged part is named, and nothing is written.
    let damaged = work.join("generation/part-2");
    let good = read(&damaged);
    std::fs::write(&damaged, &good[..good.len() / 2]).expect("written");
    ns_train(0, folder, &["unit", "--work", "run", "generate/part-1"]);
    let (_, said) = ns_train(2, folder, &["unit", "--work", "run", "generate/merge"]);
    assert!(said.contains("part-2` ends too early"), "{said}");
    assert!(!work.join("synthetic.pcap").exists());

    // The same command goes on with what is missing.
    std::fs::remove_file(&damaged).expect("removed");
    ns_train(0, folder, &generate(&["--parts", "3"]));
    assert!(read(work.join("synthetic.pcap")) == whole, "parts as units");
}
