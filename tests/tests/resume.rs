//! Trainings that are stopped, killed, changed, and shared out.

use std::path::Path;
use std::time::Duration;

use ns_tests::{expect, iterations, lab_capture, names_in, read, start};
use serde_json::Value;

/// Few flows and small networks, so that iterations are short.
const CONFIG: &str = r#"{
    "global_config": { "dataset_type": "netflow", CHUNKS },
    "pre_post_processor": { "config": {
        "timestamp": { "column": "ts" },
        "metadata": [
            { "column": "srcip", "type": "integer", "encoding": "bit", "n_bits": 32 },
            { "column": "proto", "type": "string", "encoding": "categorical" }
        ],
        "timeseries": [{ "column": "pkt", "type": "integer", "encoding": "quantile" }]
    } },
    MANAGER
    "model": { "config": {
        "batch_size": 20, "sample_len": SAMPLE_LEN, "epochs": EPOCHS, "generator_ema": 0.9,
        "generator_attribute_num_units": 32, "discriminator_num_units": 32,
        "attr_discriminator_num_units": 32, "generator_feature_num_units": 16 MODEL
    } }
}"#;

fn config(changes: &[(&str, &str)]) -> String {
    let defaults = [
        ("CHUNKS", "\"n_chunks\": 1"),
        ("MANAGER", ""),
        ("SAMPLE_LEN", "2"),
        ("EPOCHS", "8"),
        ("MODEL", ""),
    ];
    let mut text = CONFIG.to_owned();
    for (name, value) in changes.iter().chain(&defaults) {
        text = text.replace(name, value);
    }
    text
}

/// Flow records whose protocol and size go together, five a host, one host after another.
fn write_input(folder: &Path) {
    let mut text = "ts,srcip,proto,pkt\n".to_owned();
    for row in 0..600_u32 {
        let (host, proto) = (row / 5, if row / 5 % 3 == 0 { "UDP" } else { "TCP" });
        let pkt = 1 + row % 5 + if proto == "UDP" { 40 } else { 0 };
        text += &format!("{},10.0.0.{host},{proto},{pkt}\n", 1_500_000_000 + row / 2);
    }
    std::fs::write(folder.join("flows.csv"), text).expect("written");
}

/// Expects an exit code of `ns-train`; standard error.
fn ns_train(code: i32, folder: &Path, arguments: &[&str]) -> String {
    expect(code, folder, "ns-train", arguments).1
}

fn status(folder: &Path, work: &str) -> Value {
    let (told, _) = expect(0, folder, "ns-train", &["status", "--work", work, "--json"]);
    serde_json::from_str(&told).expect("one document")
}

/// Starts, kills as soon as there is a checkpoint later than any before, three times;
/// whether it was three times not done when it was killed.
fn killed_three_times(folder: &Path, begin: &[&str], resume: &[&str], unit: &Path) -> bool {
    let newest = || {
        let entries = std::fs::read_dir(unit).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|n| n.starts_with("checkpoint-") && n.ends_with(".safetensors")).max()
    };
    (0..3).all(|sitting| {
        let before = newest();
        let mut child = start(folder, if sitting == 0 { begin } else { resume });
        while newest() <= before && child.try_wait().expect("it is waited for").is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().expect("it is killed by SIGKILL");
        child.wait().expect("it ends");
        !unit.join("trained.safetensors").exists()
    })
}

/// Does a test with trainings of more and more epochs, until none of them ends before it
/// is killed three times: how fast a machine is decides nothing.
fn with_enough_epochs(test: impl Fn(&Path) -> bool) {
    for epochs in ["40", "160", "640", "2560"] {
        let folder = tempfile::tempdir().expect("a folder");
        write_input(folder.path());
        let text = config(&[("EPOCHS", epochs)]);
        std::fs::write(folder.path().join("c.json"), text).expect("written");
        if test(folder.path()) {
            return;
        }
    }
    panic!("no training was killed before its end");
}

#[test]
fn killed_three_times_and_resumed_is_as_good_as_unbroken() {
    with_enough_epochs(killed_and_resumed);
}

fn killed_and_resumed(folder: &Path) -> bool {
    let input = ["train", "--config", "c.json", "--input", "flows.csv", "--held-out", "0.2"];
    ns_train(0, folder, &[&input[..], &["--out", "unbroken.ns"]].concat());

    let often = ["--checkpoint-minutes", "0.002"];
    let begin = [&input[..], &["--work", "run"], &often].concat();
    let resume = ["train", "--work", "run", "--resume"];
    if !killed_three_times(folder, &begin, &resume, &folder.join("run/units/model/chunk-0")) {
        return false;
    }
    let found = status(folder, "run");
    assert_eq!(
        (&found["state"], &found["units"][0]["state"]),
        (&"stopped".into(), &"stopped".into())
    );
    ns_train(0, folder, &resume);
    assert!(read(folder.join("run/model.ns")) == read(folder.join("unbroken.ns")), "other bytes");
    assert_eq!(status(folder, "run")["state"], "done");
    // The encoded input does not stay, nor what was only there to go on from.
    let unit = folder.join("run/units/model/chunk-0");
    assert_eq!(names_in(&unit), ["generator.safetensors", "metrics.jsonl", "trained.safetensors"]);
    assert!(!folder.join("run/units/prepared").exists());
    // Its curve has every iteration once, in order, though it was written in four sittings.
    let iterations = iterations(&folder.join("run/metrics.jsonl"));
    assert!(iterations.is_sorted_by(|a, b| a < b), "{iterations:?}");

    // So it is without a work folder: there is one until the bundle is whole.
    let begin = [&input[..], &["--out", "killed.ns"], &often].concat();
    let resume = [&begin[..], &["--resume"]].concat();
    let unit = folder.join("killed.ns.work/units/model/chunk-0");
    if !killed_three_times(folder, &begin, &resume, &unit) {
        return false;
    }
    let said = ns_train(2, folder, &begin);
    assert!(said.contains("not finished: `--resume` goes on with it"), "{said}");
    ns_train(0, folder, &resume);
    assert!(read(folder.join("killed.ns")) == read(folder.join("unbroken.ns")), "other bytes");
    assert!(!folder.join("killed.ns.work").exists());
    true
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    with_enough_epochs(damaged_and_resumed);
}

fn damaged_and_resumed(folder: &Path) -> bool {
    let input = ["train", "--config", "c.json", "--input", "flows.csv"];
    ns_train(0, folder, &[&input[..], &["--out", "unbroken.ns"]].concat());
    let begin = [&input[..], &["--work", "run", "--checkpoint-minutes", "0.002"]].concat();
    let resume = ["train", "--work", "run", "--resume"];
    let unit = folder.join("run/units/model/chunk-0");
    if !killed_three_times(folder, &begin, &resume, &unit) {
        return false;
    }
    for entry in std::fs::read_dir(&unit).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.to_string_lossy().contains("checkpoint-") {
            let half = read(&path);
            std::fs::write(&path, &half[..half.len() / 2]).expect("written");
        }
    }
    // There is still the mark that training passed before.
    ns_train(0, folder, &resume);
    assert!(read(folder.join("run/model.ns")) == read(folder.join("unbroken.ns")), "other bytes");
    true
}

#[test]
fn what_has_changed_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write_input(folder);
    std::fs::write(folder.join("c.json"), config(&[])).expect("written");
    let begin = ["train", "--config", "c.json", "--input", "flows.csv", "--work", "run"];
    ns_train(0, folder, &[&begin[..], &["--plan-only"]].concat());
    let resume = [&begin[..], &["--resume"]].concat();
    for (change, expected) in [
        (&["--seed", "2"][..], "`--seed` was 1 and is 2"),
        (&["--epochs", "3"], "`length.epochs` was 8 and is 3"),
        (&["--held-out", "0.5"], "`--held-out` was 0 and is 0.5"),
        (&["--max-records", "1000"], "`--max-records` was 4000000 and is 1000"),
    ] {
        let said = ns_train(2, folder, &[&resume[..], change].concat());
        assert!(said.contains(expected), "{said}");
    }
    std::fs::write(folder.join("other.json"), config(&[("SAMPLE_LEN", "3")])).expect("written");
    let other =
        ["train", "--config", "other.json", "--input", "flows.csv", "--work", "run", "--resume"];
    let said = ns_train(2, folder, &other);
    assert!(said.contains("`model.sample_len` was 2 and is 3"), "{said}");
    let said = ns_train(2, folder, &["train", "--work", "run", "--resume", "--epochs", "9"]);
    assert!(said.contains("`length.epochs` was 8 and is 9"), "{said}");
    std::fs::copy(folder.join("flows.csv"), folder.join("again.csv")).expect("copied");
    let said = ns_train(2, folder, &[&resume[..], &["--input", "again.csv"]].concat());
    assert!(said.contains("`--input` was `") && said.contains("/again.csv`"), "{said}");
    let mut rows = String::from_utf8(read(folder.join("flows.csv"))).expect("text");
    rows += "1600000000,10.0.0.1,TCP,1\n";
    std::fs::write(folder.join("flows.csv"), rows).expect("written");
    for arguments in [&resume[..], &["train", "--work", "run", "--resume"]] {
        let said = ns_train(2, folder, arguments);
        assert!(said.contains("the SHA-256 of the input was "), "{said}");
    }
    write_input(folder);
    ns_train(0, folder, &resume);
    let said = ns_train(2, folder, &["train", "--work", "none", "--resume"]);
    assert!(said.contains("`none` is no work folder"), "{said}");
}

#[test]
fn a_grid_in_chunks_is_trained_by_one_command_or_unit_by_unit() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write_input(folder);
    let grid = config(&[
        ("CHUNKS", "\"n_chunks\": 3"),
        ("SAMPLE_LEN", "[1, 2]"),
        ("MODEL", ", \"sample_len_expand\": true"),
    ]);
    std::fs::write(folder.join("grid.json"), grid).expect("written");
    let begin = ["train", "--config", "grid.json", "--input", "flows.csv"];
    let whole = [&begin[..], &["--work", "whole", "--threads", "2"]].concat();
    ns_train(0, folder, &whole);
    let found = status(folder, "whole");
    assert_eq!(found["state"], "done");
    let names: Vec<&str> = found["units"]
        .as_array()
        .expect("units")
        .iter()
        .filter_map(|u| u["name"].as_str())
        .collect();
    assert_eq!(names.len(), 2 * 3 + 2 + 2 + 1, "{names:?}");
    assert!(names.contains(&"sample_len=1/chunk-2") && names.contains(&"sample_len=2/score"));
    assert_eq!(found["iteration"], found["iterations"]);

    // One after another, in another order, each a process of its own.
    ns_train(0, folder, &[&begin[..], &["--work", "parts", "--plan-only"]].concat());
    let unit = |code: i32, name: &str| ns_train(code, folder, &["unit", "--work", "parts", name]);
    // What another process is at is seen, and left to it.
    let at = folder.join("parts/units/sample_len=1/chunk-0");
    std::fs::create_dir_all(&at).expect("made");
    let lock = std::fs::File::create(at.join("trained.lock")).expect("made");
    lock.lock().expect("locked");
    let found = status(folder, "parts");
    assert_eq!(
        (&found["state"], &found["units"][0]["state"]),
        (&"running".into(), &"running".into())
    );
    assert_eq!(found["units"][1]["state"], "waiting");
    assert!(unit(2, "sample_len=1/chunk-0").contains("is being done by another process"));
    drop(lock);
    let said = unit(2, "sample_len=2/chunk-1");
    assert!(said.contains("needs `units/sample_len=2/chunk-0/trained.safetensors`"), "{said}");
    assert!(unit(2, "nonesuch").contains("no unit `nonesuch` in the plan; it has `sample_len=1/"));
    for name in ["sample_len=2/chunk-0", "sample_len=1/chunk-0", "sample_len=2/chunk-2"] {
        unit(0, name);
    }
    for name in names.iter().copied().filter(|name| *name != "choose") {
        unit(0, name);
    }
    unit(0, "choose");
    assert!(
        read(folder.join("parts/model.ns")) == read(folder.join("whole/model.ns")),
        "other bytes"
    );

    // The table of what was chosen among is in the manifest.
    let bundle = ns_model_format::Bundle::open(&folder.join("whole/model.ns")).expect("a bundle");
    let choice = bundle.manifest().provenance.choice.as_ref().expect("a choice");
    assert_eq!(choice.candidates.iter().filter(|candidate| candidate.chosen).count(), 1);
    let cells: Vec<&str> = choice.candidates.iter().map(|c| c.cell.as_str()).collect();
    assert_eq!(cells, ["sample_len=1", "sample_len=2"]);
    let r = |chosen: bool| {
        let of = choice.candidates.iter().find(|candidate| candidate.chosen == chosen);
        of.and_then(|candidate| candidate.median_r).expect("a ratio")
    };
    assert!(r(true) <= r(false));
}

#[test]
fn the_best_by_flows_held_out_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let capture = lab_capture();
    let input = ["train", "--epochs", "4", "--held-out", "0.3", "--patience", "9", "--input"];
    let capture = capture.to_str().expect("plain");
    let more = [capture, "--out", "a.ns", "--model", "doppelganger"];
    ns_train(0, folder, &[&input[..], &more].concat());
    let bundle = ns_model_format::Bundle::open(&folder.join("a.ns")).expect("a bundle");
    let provenance = &bundle.manifest().provenance;
    assert!(provenance.not_used["of flows held out to judge the model by"] > 1000);
    let choice = provenance.choice.as_ref().expect("a choice");
    assert!((0.29..0.31).contains(&choice.held_out_share));
    assert!(choice.candidates.len() >= 9, "{:?}", choice.candidates);
    let chosen = choice.candidates.iter().find(|candidate| candidate.chosen).expect("one");
    let ratios = choice.candidates.iter().filter(|c| !c.collapsed).filter_map(|c| c.median_r);
    assert_eq!(ratios.min_by(f64::total_cmp), chosen.median_r);
    // The rate of generated traffic is that of all flows.
    assert!((800..1000).contains(&bundle.manifest().timeline.flows));
}

#[test]
fn training_that_diverges_goes_back_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write_input(folder);
    let wild = config(&[("MODEL", ", \"g_lr\": 1e30, \"d_lr\": 1e30")]);
    std::fs::write(folder.join("wild.json"), wild).expect("written");
    let begin = ["train", "--config", "wild.json", "--input", "flows.csv", "--work", "run"];
    let said = ns_train(1, folder, &begin);
    assert!(
        said.contains("error: no model was trained to its end; `model/chunk-0`: training diverged"),
        "{said}"
    );
    let found = status(folder, "run");
    assert_eq!(
        (&found["state"], &found["units"][0]["state"]),
        (&"failed".into(), &"failed".into())
    );
    assert!(!folder.join("run/model.ns").exists());
    // Of a grid the others are trained, and the bundle tells of the one that failed.
    let grid = config(&[("MODEL", ", \"g_lr\": [1e30, 1e-4]")]);
    std::fs::write(folder.join("grid.json"), grid).expect("written");
    let said = ns_train(0, folder, &["train", "--config", "grid.json", "--input", "flows.csv"]);
    assert!(said.contains("note: `g_lr=1e+30/chunk-0` failed: training diverged"), "{said}");
}

#[test]
fn training_starts_from_an_earlier_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write_input(folder);
    std::fs::write(folder.join("c.json"), config(&[])).expect("written");
    let input = ["--input", "flows.csv"];
    ns_train(
        0,
        folder,
        &[&["train", "--config", "c.json", "--work", "first"], &input[..]].concat(),
    );
    let manager = |more: &str| {
        format!("\"model_manager\": {{ \"config\": {{ \"pretrain_dir\": \"first\"{more} }} }},")
    };
    let train = |name: &str, changes: &[(&str, &str)]| {
        std::fs::write(folder.join(name), config(changes)).expect("written");
        let out = format!("{name}.ns");
        ns_train(0, folder, &[&["train", "--config", name, "--out", &out], &input[..]].concat());
        ns_model_format::Bundle::open(&folder.join(out)).expect("a bundle")
    };
    let weights = |bundle: &ns_model_format::Bundle| {
        bundle.file("weights.safetensors").expect("weights").to_vec()
    };
    let first = ns_model_format::Bundle::open(&folder.join("first/model.ns")).expect("a bundle");
    let more = train("more.json", &[("MANAGER", &manager(""))]);
    assert_ne!(weights(&more), weights(&first));
    let skipped = train("skip.json", &[("MANAGER", &manager(", \"skip_chunk0_train\": true"))]);
    assert_eq!(weights(&skipped), weights(&first));
    assert_eq!(skipped.manifest().provenance.iterations, 0);
    // What it starts from is not written over.
    let over = ["train", "--config", "more.json", "--work", "first", "--overwrite"];
    let said = ns_train(2, folder, &[&over[..], &input].concat());
    assert!(said.contains("is an input; give another work folder"), "{said}");
    assert!(folder.join("first/units/model/chunk-0/trained.safetensors").exists());
    // Networks of another size are another model.
    let other = config(&[("MANAGER", &manager("")), ("SAMPLE_LEN", "4")]);
    std::fs::write(folder.join("other.json"), other).expect("written");
    let said = ns_train(1, folder, &[&["train", "--config", "other.json"], &input[..]].concat());
    assert!(said.contains("weights to start from"), "{said}");
}

#[test]
fn checkpoints_by_epoch_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write_input(folder);
    let text = config(&[("MODEL", ", \"epoch_checkpoint_freq\": 3")]);
    std::fs::write(folder.join("c.json"), text).expect("written");
    ns_train(0, folder, &["train", "--config", "c.json", "--input", "flows.csv", "--work", "run"]);
    let unit = folder.join("run/units/model/chunk-0");
    assert!(unit.join("epoch-3.safetensors").exists() && unit.join("epoch-6.safetensors").exists());
    assert!(!unit.join("epoch-8.safetensors").exists());
    // One is a place to start from as the end is.
    std::fs::create_dir(folder.join("from")).expect("made");
    std::fs::copy(unit.join("epoch-3.safetensors"), folder.join("from/trained.safetensors"))
        .expect("copied");
    let manager = "\"model_manager\": { \"config\": { \"pretrain_dir\": \"from\" } },";
    std::fs::write(folder.join("d.json"), config(&[("MANAGER", manager)])).expect("written");
    ns_train(0, folder, &["train", "--config", "d.json", "--input", "flows.csv"]);
}
