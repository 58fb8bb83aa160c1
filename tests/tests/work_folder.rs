//! Work folders: trained into, generated into, by the program and as a library.

use std::fmt::Write as _;
use std::path::Path;

use ns_runtime::GenerateOptions;
use ns_runtime::stats::Ending;
use ns_tests::{command, expect, interrupted, lab_capture, names_in, read};
use ns_trainer::evaluate::Evaluation;
use ns_trainer::{Generator, GeneratorError, WorkError, WorkFolder, curve};

fn json(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).expect("one JSON document")
}

#[test]
fn one_command_fills_a_work_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::copy(lab_capture(), folder.join("lab.pcap")).expect("copied");
    let input = ["--input", "lab.pcap", "--epochs", "1"];
    let both = [&["train-and-generate", "--work", "run", "--json"], &input[..]].concat();
    let (told, _) = expect(0, folder, "ns-train", &both);
    let all = ["config.json", "metrics.jsonl", "model.ns", "run.json", "synthetic.pcap", "units"];
    assert_eq!(names_in(&folder.join("run")), all);
    let told = json(told.as_bytes());
    assert!(told["generated"]["flows"].as_u64() > Some(0), "{told}");
    // The curve ends with the last iteration.
    let lines = String::from_utf8(read(folder.join("run/metrics.jsonl"))).expect("text");
    let last = json(lines.lines().last().expect("a line").as_bytes());
    assert_eq!(last["iteration"], told["iterations"]);
    assert_eq!(last["iteration"], last["iterations"]);
    assert!(last["nats"].is_f64() && last["critic"].is_null());
    assert!(
        last["nats_validation"].as_f64() > Some(0.0) && last["elapsed_s"].as_f64() > Some(0.0),
        "{last}"
    );
    let made_from = json(&read(folder.join("run/run.json")));
    assert_eq!(made_from["version"], 2);
    let canonical = |path: &Path| path.canonicalize().expect("it exists");
    let input_read = Path::new(made_from["inputs"][0].as_str().expect("a path"));
    assert!(input_read.is_absolute());
    assert_eq!(canonical(input_read), canonical(&folder.join("lab.pcap")));

    // The same as with one command after another, and as ns-replay's.
    expect(0, folder, "ns-train", &[&["train", "--out", "a.ns"], &input[..]].concat());
    assert_eq!(read(folder.join("a.ns")), read(folder.join("run/model.ns")));
    let replay = ["--bundle", "a.ns", "--pcap", "a.pcap", "--seed", "1"];
    expect(0, folder, "ns-replay", &replay);
    let synthetic = read(folder.join("run/synthetic.pcap"));
    assert_eq!(read(folder.join("a.pcap")), synthetic);

    // What is there is not written over, unless it may be; nor is what is not ours.
    std::fs::write(folder.join("run/notes.txt"), "mine").expect("written");
    let (_, said) = expect(2, folder, "ns-train", &both);
    assert!(said.contains("`run` exists; to write over it give `--overwrite`"), "{said}");
    let generate = ["generate", "--work", "run", "--flows", "50", "--seed", "9"];
    let (_, said) = expect(2, folder, "ns-train", &generate);
    assert!(said.contains("`run/synthetic.pcap` exists; to write over it"), "{said}");
    assert_eq!(read(folder.join("run/synthetic.pcap")), synthetic);
    std::fs::write(folder.join("run/evaluation.json"), "{}").expect("written");
    let again = [&generate[..], &["--threads", "2", "--overwrite"]].concat();
    let (_, said) = expect(0, folder, "ns-train", &again);
    assert!(said.contains("packets of 50 flows"), "{said}");
    let replay = ["--bundle", "a.ns", "--pcap", "b.pcap", "--seed", "9", "--flows", "50"];
    expect(0, folder, "ns-replay", &replay);
    assert_eq!(read(folder.join("run/synthetic.pcap")), read(folder.join("b.pcap")));
    assert!(!folder.join("run/evaluation.json").exists(), "it was about another trace");
    let train = [&["train", "--work", "run", "--overwrite"], &input[..]].concat();
    expect(0, folder, "ns-train", &train);
    assert_eq!(
        names_in(&folder.join("run")),
        ["config.json", "metrics.jsonl", "model.ns", "notes.txt", "run.json", "units"]
    );

    // The configuration is one, and the bundle goes elsewhere if it is to.
    let config = ["train", "--config", "run/config.json", "--work", "other", "--out", "other.ns"];
    expect(0, folder, "ns-train", &[&config[..], &input[..]].concat());
    assert_eq!(read(folder.join("other.ns")), read(folder.join("a.ns")));
    assert_eq!(
        names_in(&folder.join("other")),
        ["config.json", "metrics.jsonl", "run.json", "units"]
    );
    expect(0, folder, "ns-train", &["generate", "--work", "other", "-q"]);
    assert_eq!(read(folder.join("other/synthetic.pcap")), synthetic);

    // Nothing is begun that could not end well.
    for (arguments, expected) in [
        (&["--work", "x", "--out", "x/run.json"][..], "`x/run.json` is not for the bundle"),
        (&["--work", "x", "--out", "no/such/x.ns"], "cannot write `no/such/x.ns`"),
        (&["--work", "x", "--out", "lab.pcap"], "`lab.pcap` is an input"),
        (&["--work", "lab.pcap"], "`lab.pcap` is a file; expected a folder"),
        (&["--work", "x", "--input", "none.pcap"], "cannot read `none.pcap`"),
    ] {
        let arguments = [&["train"], &input[..], arguments].concat();
        let output = command(folder, "ns-train", &arguments).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{arguments:?}: {said}");
        assert!(!folder.join("x").exists(), "{arguments:?}");
    }
    let dry = ["train-and-generate", "--work", "x", "--input", "lab.pcap", "--dry-run"];
    expect(0, folder, "ns-train", &dry);
    assert!(!folder.join("x").exists());
}

#[test]
fn a_training_that_is_interrupted_leaves_its_model_in_the_work_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = lab_capture();
    let endless = ["train-and-generate", "--epochs", "1000000", "--work", "run"];
    // An autoregressive model's curve begins when its variables are done.
    let class = ["--model", "doppelganger", "--input"];
    let mut command = command(folder.path(), "ns-train", &[&endless[..], &class].concat());
    assert_eq!(interrupted(command.arg(&input)), Some(130));
    let work = folder.path().join("run");
    assert_eq!(names_in(&work), ["config.json", "metrics.jsonl", "model.ns", "run.json", "units"]);
    let points = curve::read(&work.join("metrics.jsonl")).expect("a curve");
    assert!(!points.is_empty());
    expect(0, folder.path(), "ns-train", &["generate", "--work", "run", "--flows", "5"]);
}

const CONFIG: &str = r#"{
    // the comments of a configuration are kept
    "global_config": { "dataset_type": "netflow", "original_data_file": "flows.csv" },
    "pre_post_processor": { "config": {
        "timestamp": { "column": "ts" },
        "metadata": [
            { "column": "srcip", "type": "integer", "encoding": "bit", "n_bits": 32 },
            { "column": "proto", "type": "string", "encoding": "categorical" },
        ],
        "timeseries": [ { "column": "pkt", "type": "integer", "encoding": "bit" } ],
    } },
    "model": { "config": { "batch_size": 20, "epochs": 500, "sample_len": 2, "d_rounds": 1 } },
}"#;

/// A configuration, and beside it the CSV that it names.
fn netflow(folder: &Path) {
    let mut rows = "srcip,proto,ts,pkt\n".to_owned();
    for row in 0..600 {
        let (host, proto) = (row % 40, ["TCP", "UDP"][row % 2]);
        let _ = writeln!(rows, "10.0.0.{host},{proto},{}.5,{}", 1000 + row, 1 + row * 7 % 50);
    }
    std::fs::write(folder.join("flows.csv"), rows).expect("written");
    std::fs::write(folder.join("config.json"), CONFIG).expect("written");
}

/// Rows of the synthetic CSV, all of which are whole.
fn rows_of(work: &WorkFolder) -> u64 {
    let mut reader = csv::Reader::from_path(work.synthetic()).expect("a CSV");
    assert_eq!(reader.headers().expect("a header"), vec!["srcip", "proto", "ts", "pkt"]);
    let rows: Result<Vec<csv::StringRecord>, csv::Error> = reader.records().collect();
    rows.expect("rows of as many cells").len() as u64
}

#[test]
fn a_library_s_user_trains_and_generates_from_a_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    netflow(folder);
    let generator = Generator::from_config(folder.join("config.json")).expect("a good file");
    let generator = generator.epochs(1).seed(3);
    let work = folder.join("work");
    let (training, report) = generator.train_and_generate(&work).expect("trained");
    assert!(!training.stopped);
    assert_eq!((report.ending, report.seed), (Ending::Done, 3));
    assert_eq!(read(work.join("config.json")), CONFIG.as_bytes());
    let points = curve::read(&training.work.metrics()).expect("a curve");
    let last = points.last().expect("a line");
    assert_eq!((last.iteration, last.epochs), (last.iterations, 1.0));
    assert_eq!(rows_of(&training.work), report.records);

    // The folder is enough to do all of it again: the copy of the configuration
    // names its input as the original does.
    for (name, again) in [
        ("a", Generator::from_config(work.join("config.json")).expect("read").epochs(1).seed(3)),
        ("b", Generator::from_work(&work).expect("a work folder")),
    ] {
        again.train(folder.join(name)).expect("trained");
        assert_eq!(read(folder.join(name).join("model.ns")), read(work.join("model.ns")));
    }
    let opened = WorkFolder::open(&work).expect("a work folder");
    assert_eq!(opened.run(), training.work.run());
    assert_eq!(opened.configuration().expect("read")[0].config.length, generator.config().length);

    let may =
        CONFIG.replacen("\"global_config\": {", "\"global_config\": { \"overwrite\": true,", 1);
    std::fs::write(folder.join("may.json"), may).expect("written");
    let overwriting = Generator::from_config(folder.join("may.json")).expect("read").epochs(1);
    overwriting.train(folder.join("a")).expect("the configuration allows it");

    let exists =
        |error: GeneratorError| matches!(error, GeneratorError::Work(WorkError::Exists { .. }));
    assert!(generator.train(&work).is_err_and(exists));
    assert!(generator.generate(&work).is_err_and(exists));
    let mut options = GenerateOptions::default();
    options.flows = Some(7);
    let generator = generator.overwrite(true).generation(options);
    assert_eq!(generator.generate(&work).expect("generated").flows, 7);
}

#[test]
fn what_was_generated_is_judged_in_its_work_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    netflow(folder);
    let generator = Generator::from_config(folder.join("config.json")).expect("a good file");
    let generator = generator.epochs(1).seed(3);
    let work = folder.join("work");
    generator.train(&work).expect("trained");
    // Nothing was generated yet.
    let error = generator.visualize(&work).expect_err("no synthetic trace").to_string();
    assert!(error.contains("no synthetic trace; `ns-train generate --work "), "{error}");
    generator.generate(&work).expect("generated");
    let evaluation = generator.visualize(&work).expect("judged");
    assert!(evaluation.summary.median_r.is_some() && evaluation.train.is_none());
    let opened = WorkFolder::open(&work).expect("a work folder");
    let written: Evaluation =
        serde_json::from_slice(&read(opened.evaluation())).expect("an evaluation");
    assert_eq!(written, evaluation);
    // The training curve is in the page.
    let page = String::from_utf8(read(opened.report())).expect("text");
    assert!(page.contains("Training losses"));
    assert!(opened.plots().join("training.csv").exists());
    // Another trace takes its place: what was said of this one goes.
    generator.clone().overwrite(true).generate(&work).expect("generated");
    assert!(!opened.report().exists() && !opened.evaluation().exists() && !opened.plots().exists());
    // By flows that were not trained on, from the command line.
    std::fs::copy(folder.join("flows.csv"), folder.join("test.csv")).expect("copied");
    let arguments = ["visualize", "--work", "work", "--real", "test.csv", "--splits", "3"];
    let (_, stderr) = expect(0, folder, "ns-train", &arguments);
    assert!(stderr.contains("median R") && stderr.contains("work/report.html"), "{stderr}");
    let written: Evaluation =
        serde_json::from_slice(&read(opened.evaluation())).expect("an evaluation");
    assert!(written.train.is_some() && written.splits == 3);
    let (_, stderr) = expect(2, folder, "ns-train", &["visualize", "--work", "nowhere"]);
    assert!(stderr.contains("`nowhere` is no work folder"), "{stderr}");
}

#[test]
fn a_library_s_user_can_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    netflow(folder);
    let generator = Generator::from_config(folder.join("config.json")).expect("a good file");
    let work = folder.join("work");
    let (training, report) = generator
        .train_and_generate_with(&work, |progress| progress.iteration < 4, |_| true)
        .expect("trained");
    assert!(training.stopped && report.is_none());
    let points = curve::read(&training.work.metrics()).expect("a curve");
    assert_eq!(points.last().map(|point| point.iteration), Some(4));
    assert!(!training.work.synthetic().exists());
    // Without end, and nobody looks further than a thousand records.
    let mut options = GenerateOptions::default();
    options.forever = true;
    let endless = generator.generation(options);
    let report = endless.generate_with(&work, |so_far| {
        assert_eq!(so_far.share, None);
        so_far.records < 1000
    });
    let report = report.expect("generated");
    assert_eq!(report.ending, Ending::Interrupted);
    let rows = rows_of(&training.work);
    assert!(rows == report.records && rows > 500, "{rows} rows");
}
