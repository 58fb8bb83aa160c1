//! Chunks from the configuration to generated records: a trace of which it is
//! known which flows span chunks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ns_model_format::Bundle;
use ns_runtime::{GenerateOptions, Generator, RowRender};
use ns_tests::{interrupted, program};

/// Three chunks of 100 s. In the first 300 flows start, of which every third is
/// `long`: two records, and four more in the second chunk, from 10 to 30 s after
/// it began. All others have one record and are `short`.
fn trace() -> String {
    let mut rows: Vec<(u64, u64, &str)> = Vec::new();
    let mut id = 0;
    for chunk in 0..3_u64 {
        for flow in 0..300 {
            let start = chunk * 100_000_000 + flow * 330_000;
            id += 1;
            if chunk == 0 && flow % 3 == 0 {
                rows.extend([(start, id, "long"), (start + 200_000, id, "long")]);
                let begin = 110_000_000 + flow * 60_000;
                rows.extend((0..4).map(|record| (begin + record * 500_000, id, "long")));
            } else {
                rows.push((start, id, "short"));
            }
        }
    }
    rows.push((300_000_000, 1, "short"));
    rows.sort_unstable();
    let mut text = "ts,id,kind,bytes\n".to_owned();
    for (time, id, kind) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{time},{id},{kind},{}", if kind == "long" { 900 } else { 100 });
    }
    text
}

const CONFIG: &str = r#"{
    "global_config": { "dataset_type": "custom", "n_chunks": 3 },
    "pre_post_processor": { "config": {
        "split_name": "SPLIT_NAME",
        "df2chunks": "fixed_time",
        "truncate": "per_chunk",
        "timestamp": { "column": "ts", "unit": "us", "encoding": "interarrival" },
        "metadata": [
            { "column": "id", "type": "integer", "encoding": "bit", "n_bits": 10 },
            { "column": "kind", "type": "string", "encoding": "categorical" }
        ],
        "timeseries": [ { "column": "bytes", "type": "integer", "encoding": "bit", "n_bits": 10 } ]
    } },
    "model": { "config": {
        "batch_size": 60, "sample_len": 1, "epochs": 200, "d_rounds": 2,
        "g_lr": 1e-3, "d_lr": 1e-3, "attr_d_lr": 1e-3, "generator_ema": 0.99,
        "generator_feature_num_units": 32,
        "generator_attribute_num_layers": 3, "generator_attribute_num_units": 48,
        "discriminator_num_layers": 3, "discriminator_num_units": 64,
        "attr_discriminator_num_layers": 3, "attr_discriminator_num_units": 48
    } },
    "model_manager": { "config": { "pretrain_non_dp": true, "pretrain_non_dp_reduce_time": 2.0 } }
}"#;

fn train(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program("ns-train"))
        .args(["train", "--input", "trace.csv", "--config", "config.json", "--out", "model.ns"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    stderr
}

fn write(folder: &Path, split_name: &str) {
    std::fs::write(folder.join("trace.csv"), trace()).expect("written");
    let config = CONFIG.replace("SPLIT_NAME", split_name);
    std::fs::write(folder.join("config.json"), config).expect("written");
}

/// A record: its time in seconds and its line.
type Flows = BTreeMap<u64, Vec<(f64, Box<str>)>>;

fn generate(bundle: &Arc<Bundle>, flows: u64, change: impl Fn(&mut GenerateOptions)) -> Flows {
    let manifest = bundle.manifest();
    let mut options = GenerateOptions::default();
    (options.seed, options.flows, options.max_flow_records) = (5, Some(flows), 500);
    change(&mut options);
    let render = RowRender::new(&manifest.schema, manifest.timeline.origin_ns);
    let generator = Generator::open(Arc::clone(bundle), options).expect("graphs that run");
    let mut flows = Flows::new();
    for event in generator.stream(render).expect("a stream") {
        let event = event.expect("an event");
        let record = (event.time_ns as f64 / 1e9, event.item);
        flows.entry(event.flow).or_default().push(record);
    }
    flows
}

/// Statistical: seeds 1 and 5; the bounds are about twice what is left after
/// this much training.
#[test]
fn flows_that_span_chunks_come_out_as_they_went_in() {
    for split_name in ["multichunk_dep_v2", "multichunk_dep_v1"] {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), split_name);
        let said = train(folder.path(), &["--seed", "1"]);
        assert!(said.contains("3 chunks with networks of their own"), "{said}");
        let bundle = Arc::new(Bundle::open(&folder.path().join("model.ns")).expect("a bundle"));
        let flows = generate(&bundle, 1800, |_| {});
        assert_eq!(flows.len(), 1800);
        let chunk = |time: f64| (time % 300.0 / 100.0) as usize;
        let in_chunk = |flow: &[(f64, Box<str>)], of: usize| {
            flow.iter().filter(|(time, _)| chunk(*time) == of).count()
        };
        // In the second round too: past the span everything goes round.
        let (mut first, mut spans, mut long, mut records, mut elsewhere) = (0, 0, 0, 0, 0);
        for flow in flows.values() {
            let name = |line: &str| line.split(',').skip(1).take(2).collect::<Vec<_>>().join(",");
            assert!(flow.iter().all(|(_, line)| name(line) == name(&flow[0].1)), "{flow:?}");
            if chunk(flow[0].0) > 0 {
                elsewhere += usize::from(chunk(flow[flow.len() - 1].0) != chunk(flow[0].0));
                continue;
            }
            first += 1;
            let there = in_chunk(flow, 1);
            spans += usize::from(there > 0);
            long += usize::from(there > 0 && flow[0].1.contains("long"));
            records += there;
            elsewhere += in_chunk(flow, 2);
            // Begins where such parts began: from 10 to 28 s.
            let begin = flow.iter().map(|(time, _)| time % 300.0 - 100.0).find(|&at| at >= 0.0);
            assert!(begin.is_none_or(|begin| (9.9..29.0).contains(&begin)), "{begin:?}");
        }
        let share = spans as f64 / first as f64;
        let length = records as f64 / spans as f64;
        let told = format!("{split_name}: {share} of {first}, {length} records, {long} long");
        println!("{told}, {elsewhere} elsewhere");
        assert!((500..700).contains(&first), "{told}");
        assert!((share - 1.0 / 3.0).abs() < 0.1, "{told}");
        assert!((length - 4.0).abs() < 1.0, "{told}");
        assert!(long as f64 > 0.9 * spans as f64, "{told}");
        assert!(elsewhere < 30, "{told}, {elsewhere} elsewhere");
        for (slots, threads, queue_cap) in [(3, 1, 1), (256, 2, 1 << 18), (40, 3, 99)] {
            let other = generate(&bundle, 1800, |options| {
                (options.slots, options.threads, options.queue_cap) = (slots, threads, queue_cap);
            });
            assert!(other == flows, "{slots} slots, {threads} threads");
        }
    }
}

#[test]
fn a_limit_in_time_still_gives_every_chunk_networks() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "multichunk_dep_v2");
    train(folder.path(), &["--epochs", "1000000", "--max-minutes", "0.05"]);
    let bundle = Arc::new(Bundle::open(&folder.path().join("model.ns")).expect("a bundle"));
    let manifest = bundle.manifest();
    assert_eq!(manifest.model.chunks.len(), 3);
    assert!(manifest.provenance.iterations > 3);
    // Half as long each as the first: all have been trained.
    let weights = |chunk: usize| bundle.file(&manifest.model.chunks[chunk].step.file);
    assert_ne!(weights(0), weights(1));
    assert_ne!(weights(0), weights(2));
    // Untrained, all are the same.
    train(folder.path(), &["--epochs", "0"]);
    let bundle = Bundle::open(&folder.path().join("model.ns")).expect("a bundle");
    let weights = |chunk: usize| bundle.file(&manifest.model.chunks[chunk].step.file);
    assert_eq!(weights(0), weights(1));
    assert_eq!(weights(0), weights(2));
}

#[test]
fn ctrl_c_in_the_first_chunk_gives_all_its_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "multichunk_dep_v2");
    let mut training = Command::new(program("ns-train"));
    training
        .args(["train", "--input", "trace.csv", "--config", "config.json", "--out", "model.ns"])
        .args(["--epochs", "1000000"])
        .current_dir(folder.path());
    assert_eq!(interrupted(&mut training), Some(130));
    let bundle = Bundle::open(&folder.path().join("model.ns")).expect("a whole bundle");
    let manifest = bundle.manifest();
    assert!(manifest.provenance.iterations > 0);
    let weights = |chunk: usize| bundle.file(&manifest.model.chunks[chunk].step.file);
    assert!(weights(0) == weights(1) && weights(0) == weights(2));
}
