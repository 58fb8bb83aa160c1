//! The program itself, as far as it gets without a library that runs networks.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use ns_model_format::arrival::ArrivalProcess;
use ns_model_format::manifest::{
    AttributesGraph, Chunk, GatesGraph, InitialState, Model, Provenance, State, StepGraph, Tensor,
    Timeline,
};
use ns_model_format::schema::TraceKind;
use ns_model_format::{Bundle, Manifest, Schema};

mod schemas;

use schemas::packet_schema;

/// A bundle whose graphs are empty files.
fn bundle(kind: TraceKind, path: &Path) {
    let schema = Schema { kind, ..packet_schema(&["proto"], &["pkt_len"]) };
    let attributes = schema.attribute_layout().fold_layout(1);
    let records = schema.measurement_layout().fold_layout(1);
    let (file, condition) = ("none".to_owned(), Tensor::new("condition", schema.condition_dim()));
    let width = Tensor::new("attributes", attributes.width());
    let state = State {
        input: "h".to_owned(),
        output: "h_next".to_owned(),
        dim: 1,
        initial: InitialState::Zero,
    };
    let chunk = Chunk {
        attributes: AttributesGraph {
            file: file.clone(),
            noise: Tensor::new("noise", 1),
            condition: condition.clone(),
            attributes: width.clone(),
            layout: attributes,
        },
        gates: GatesGraph {
            file: file.clone(),
            attributes: width,
            condition,
            gates: Tensor::new("gates", 4),
        },
        step: StepGraph {
            file: file.clone(),
            gates: Tensor::new("gates", 4),
            noise: Tensor::new("noise", 1),
            states: vec![state],
            records: Tensor::new("records", records.width()),
            layout: records,
        },
        handed_over: None,
    };
    let manifest = Manifest {
        format: 1,
        schema,
        model: Model {
            class: "none".to_owned(),
            weights: file.clone(),
            chunks: vec![chunk],
            autoregressive: None,
        },
        timeline: Timeline {
            origin_ns: 0,
            flows: 2,
            records: 10,
            arrivals: ArrivalProcess::fit(&[0, 500_000_000], 1_000_000_000),
            chunk_starts_ns: Vec::new(),
        },
        provenance: Provenance::default(),
        files: BTreeMap::new(),
    };
    Bundle::new(manifest, BTreeMap::from([(file, Vec::new())])).unwrap().write(path).unwrap();
}

fn run(bundle: &Path, arguments: &str) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_ns-replay"))
        .arg("--bundle")
        .arg(bundle)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn a_wrong_command_line_or_bundle_is_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ns");
    let (exit, _, error) = run(&path, "--describe");
    assert_eq!((exit, error.starts_with("error: cannot use bundle")), (2, true), "{error}");
    bundle(TraceKind::Packets, &path);
    for wrong in [
        "",
        "--null --describe",
        "--null --pps 0",
        "--null --speed 2 --topspeed",
        "--pcap x --dst-mac 1:2:3",
        "--pcap - --json",
        "--pcap x --payload /nonexistent",
    ] {
        let (exit, stdout, error) = run(&path, wrong);
        assert_eq!((exit, stdout.as_str()), (2, ""), "{wrong}: {error}");
        assert!(error.starts_with("error: "), "{error}");
    }
}

#[test]
fn rows_have_no_packets_and_the_hint_names_csv() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ns");
    bundle(TraceKind::Netflow, &path);
    for target in ["--pcap x.pcap", "--iface lo"] {
        let (exit, _, error) = run(&path, target);
        assert_eq!(exit, 2);
        assert_eq!(
            error,
            "error: the bundle holds NetFlow records, not packets\n\
             hint: `--csv FILE` writes what it holds\n"
        );
    }
    assert_eq!(run(&path, "--csv out.csv --dry-run").0, 0);
}

#[test]
fn an_interface_that_is_not_there_is_4() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ns");
    bundle(TraceKind::Packets, &path);
    let (exit, _, error) = run(&path, "--iface nosuchif0 --dry-run");
    assert_eq!(exit, 4);
    assert!(error.starts_with("error: no interface `nosuchif0`; there are"), "{error}");
}

#[test]
fn an_output_that_cannot_be_written_is_7() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ns");
    bundle(TraceKind::Packets, &path);
    let (exit, _, error) = run(&path, "--pcap /nonexistent/x.pcap");
    assert_eq!(exit, 7);
    assert!(error.starts_with("error: cannot create `/nonexistent/x.pcap`"), "{error}");
}

#[test]
fn a_run_that_fails_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ns");
    bundle(TraceKind::Packets, &path);
    let out = folder.path().join("out.pcap");
    // Whatever is wrong first, the library or the empty graphs.
    let (exit, _, _) = run(&path, &format!("--pcap {}", out.display()));
    assert!(matches!(exit, 1 | 2));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn descriptions_and_dry_runs_are_json_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ns");
    bundle(TraceKind::Packets, &path);
    let (exit, text, _) = run(&path, "--describe");
    assert_eq!(exit, 0);
    assert!(text.starts_with("holds         packets, flows have one direction\n"), "{text}");
    let json = |arguments| {
        let (exit, text, error) = run(&path, arguments);
        assert_eq!((exit, error.as_str()), (0, ""));
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    assert_eq!(json("--describe --json")["kind"], "packets");
    let plan = json("--pcap x.pcap --dry-run --json --packets 10 --seed 7");
    assert_eq!((&plan["seed"], &plan["how_much"]), (&7.into(), &"10 packets".into()));
    assert!(!Path::new("x.pcap").exists());
}
