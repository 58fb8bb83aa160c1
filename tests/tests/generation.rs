//! Generation through ONNX Runtime, from bundles of random weights.
//!
//! Needs the library: `./run setup` lays it into `target/onnxruntime`, or
//! `ORT_DYLIB_PATH` names it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ns_model_format::manifest::Manifest;
use ns_model_format::{Bundle, Value};
use ns_runtime::{Event, GenerateOptions, Generator, Render, RuntimeError};
use ns_tests::{SampleModel, sample_bundle};

#[derive(Clone)]
struct Echo;

impl Render for Echo {
    type Flow = Vec<Value>;
    type Item = (Vec<Value>, Vec<Value>);

    fn begin_flow(&mut self, _flow: u64, attributes: &[Value]) -> Vec<Value> {
        attributes.to_vec()
    }

    fn record(&mut self, flow: &mut Vec<Value>, _time_ns: u64, values: &[Value]) -> Self::Item {
        (flow.clone(), values.to_vec())
    }
}

type Events = Vec<Event<<Echo as Render>::Item>>;

fn generate(bundle: &Arc<Bundle>, change: impl Fn(&mut GenerateOptions)) -> Events {
    let mut options = GenerateOptions::default();
    options.flows = Some(300);
    options.max_flow_records = 1_000;
    change(&mut options);
    let generator = Generator::open(bundle.clone(), options).expect("a bundle that runs");
    generator.stream(Echo).expect("workers").collect::<Result<_, _>>().expect("events")
}

#[test]
fn the_same_seed_gives_the_same_records_however_they_are_computed() {
    let bundle = Arc::new(sample_bundle(SampleModel::default()));
    let expected = generate(&bundle, |_| {});
    assert!(expected.len() > 300, "{}", expected.len());
    assert!(expected.is_sorted_by_key(|event| (event.time_ns, event.flow, event.record)));
    for (slots, threads, queue_cap) in
        [(1, 1, 1 << 18), (2, 1, 1), (3, 2, 17), (16, 3, 64), (61, 1, 256), (256, 4, 1 << 18)]
    {
        let found = generate(&bundle, |options| {
            (options.slots, options.threads, options.queue_cap) = (slots, threads, queue_cap);
        });
        assert!(found == expected, "{slots} slots, {threads} threads, cap {queue_cap}");
    }
    assert!(generate(&bundle, |options| options.seed = 1) != expected);
}

#[test]
fn rows_do_not_depend_on_the_batch_at_full_size() {
    // The sizes of the bench bundle: other kernels may run than at small ones.
    let model = SampleModel {
        hidden: 100,
        sample_len: 10,
        units: 512,
        goes_on_bias: 6.0,
        ..SampleModel::default()
    };
    let bundle = Arc::new(sample_bundle(model));
    let with = |slots| {
        generate(&bundle, |options| {
            options.slots = slots;
            options.flows = Some(40);
            options.max_flow_records = 300;
        })
    };
    let expected = with(256);
    assert!(expected.len() > 300, "{}", expected.len());
    for slots in [1, 2, 5, 33] {
        assert!(with(slots) == expected, "{slots} slots");
    }
}

#[test]
fn flows_differ() {
    let bundle = Arc::new(sample_bundle(SampleModel::default()));
    let events = generate(&bundle, |_| {});
    let flows: HashSet<String> = events.iter().map(|event| format!("{:?}", event.item.0)).collect();
    assert!(flows.len() > 200, "{} of 300 flows differ", flows.len());
}

type Files = BTreeMap<String, Vec<u8>>;

/// Why a bundle like the sample, changed, is refused.
fn refused(change: fn(&mut Manifest, &mut Files)) -> String {
    let bundle = sample_bundle(SampleModel::default());
    let mut manifest = bundle.manifest().clone();
    let file = |name: &String| (name.clone(), bundle.file(name).unwrap_or_default().to_vec());
    let mut files: Files = manifest.files.keys().map(file).collect();
    change(&mut manifest, &mut files);
    let bundle = Bundle::new(manifest, files).expect("a manifest whose parts fit");
    let opened: Result<Generator, RuntimeError> =
        Generator::open(Arc::new(bundle), GenerateOptions::default());
    opened.expect_err("refused").to_string()
}

#[test]
fn graphs_that_are_not_what_the_manifest_says_are_refused() {
    let error = refused(|manifest, _| {
        manifest.model.chunks[0].step.noise.name = "other".to_owned();
    });
    assert_eq!(
        error,
        "graph `chunk-0/step.onnx`: has an input `noise` that the manifest does not name"
    );
    let error = refused(|manifest, _| manifest.model.chunks[0].step.noise.dim += 1);
    assert!(error.contains("input `noise` is [-1, 5]; expected [batch, 6]"), "{error}");
    let error = refused(|manifest, _| {
        let chunk = &mut manifest.model.chunks[0];
        std::mem::swap(&mut chunk.attributes.file, &mut chunk.gates.file);
    });
    assert!(error.starts_with("graph `chunk-0/gates.onnx`: has an input"), "{error}");
    let error = refused(|_, files| {
        files.insert("chunk-0/gates.onnx".to_owned(), b"not a graph".to_vec());
    });
    assert_eq!(error, "graph `chunk-0/gates.onnx`: is not an ONNX model");
    let error = refused(|_, files| {
        if let Some(graph) = files.get_mut("chunk-0/gates.onnx") {
            graph.truncate(graph.len() - 7);
        }
    });
    assert!(error.starts_with("graph `chunk-0/gates.onnx`: "), "{error}");
}
