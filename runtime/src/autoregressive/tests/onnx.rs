//! The same with graphs written by hand.

use std::slice::from_ref;

use super::*;
use crate::Generator;
use crate::device::Device;
use crate::engine::{Graph, OnnxRuntime, StepGraph};
use crate::graphs::copy;
use crate::testing::graphs::{dense, lstm};

fn onnx_bundle(change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Bundle {
    let mut manifest = bundle().manifest().clone();
    let model = manifest.model.autoregressive.as_mut().unwrap();
    (model.units, model.context, model.hidden, model.head) = (96, 64, 64, 32);
    let mut files = BTreeMap::from([("none".to_owned(), Vec::new())]);
    for (at, variable) in model.attributes.iter_mut().enumerate().skip(1) {
        let graph = dense(at, ("sum", 96), ("logits", variable.size));
        files.insert(variable.file.insert(format!("variable.{at}.onnx")).clone(), graph);
    }
    for (at, head) in model.heads.iter_mut().enumerate() {
        head.file = format!("head.{at}.onnx");
        files.insert(head.file.clone(), dense(50 + at, ("u", 32), ("logits", head.size)));
    }
    (model.context_file, model.step_file) = ("context.onnx".to_owned(), "step.onnx".to_owned());
    let heads = model.heads.len() * 32;
    files.insert(model.context_file.clone(), dense(99, ("context", 64), ("gates", 256 + heads)));
    files.insert(model.step_file.clone(), lstm(100, 64, heads));
    files.insert(model.tables.clone(), tables_file(model, |_, _| true));
    change(&mut files);
    Bundle::new(manifest, files).unwrap()
}

fn generate(bundle: &Arc<Bundle>, options: GenerateOptions) -> Result<Events, RuntimeError> {
    Generator::open(bundle.clone(), options)?.stream(Echo)?.collect()
}

#[test]
fn the_means_change_nothing() {
    let bundle = Arc::new(onnx_bundle(|_| ()));
    let options = of_flows(400);
    let expected = generate(&bundle, options.clone()).unwrap();
    assert_eq!(flows(&expected).len(), 400);
    for (threads, slots) in [(1, 1), (1, 7), (2, 256)] {
        let options = GenerateOptions { threads, slots, queue_cap: 50, ..options.clone() };
        assert!(generate(&bundle, options).unwrap() == expected, "{threads}, {slots}");
    }
}

#[test]
fn onnx_runtime_finds_the_same() {
    let library = match OnnxRuntime::open(None, Device::Cpu) {
        Ok(library) => library,
        Err(error) => return println!("skipped: {error}"),
    };
    let bundle = onnx_bundle(|_| ());
    let near = |found: &[f32], expected: &[f32]| {
        assert_eq!(found.len(), expected.len());
        let far = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-5 * (1.0 + b.abs());
        let differ = found.iter().zip(expected).find(|&pair| far(pair));
        assert!(differ.is_none(), "{differ:?}");
    };
    let normals = |count: usize| {
        let mut values = vec![0.0; count];
        Stream::new(2, Purpose::Weights, 5).fill_normal(&mut values);
        values
    };
    let rows = 50;
    let (input, output) = (Tensor::new("context", 64), Tensor::new("gates", 352));
    let mut loader = Loader::new(&bundle, None, Device::Cpu);
    let mut own = loader.dense("context.onnx", from_ref(&input), &output).unwrap();
    assert!(matches!(own, DenseGraph::Own(_)) == crate::kernels::has_fused());
    let mut theirs =
        Graph::load(&library, &bundle, "context.onnx", vec![input], vec![output]).unwrap();
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    let input = normals(rows * 64);
    own.run(rows, |to| copy(&input, to), |out| found.extend(out.iter().flatten())).unwrap();
    theirs.run_into(rows, &[&input], &mut expected).unwrap();
    near(&found, &expected);
    let (x, heads) = (Tensor::new("x", 256), Tensor::new("heads", 96));
    let states = [("h", "h_next", 64), ("c", "c_next", 64)];
    let file = "step.onnx";
    let mut own = loader.recurrent(file, from_ref(&x), &heads, &states).unwrap();
    assert!(matches!(own, RecurrentGraph::Own(_)) == crate::kernels::has_fused());
    let mut theirs =
        StepGraph::load(&library, &bundle, file, vec![x], heads, states.into_iter()).unwrap();
    own.resize(rows).unwrap();
    theirs.resize(rows).unwrap();
    let x = normals(rows * 256);
    for _ in 0..3 {
        found.clear();
        own.step(&[], |to| copy(&x, to), |out| found.extend(out.iter().flatten())).unwrap();
        theirs.step(&[&x]).unwrap();
        near(&found, theirs.output().unwrap());
        (0..2).for_each(|at| near(own.state(at).unwrap(), theirs.state(at).unwrap()));
    }
    // Rows that stay keep their states.
    own.resize(20).unwrap();
    theirs.resize(20).unwrap();
    (0..2).for_each(|at| near(own.state(at).unwrap(), theirs.state(at).unwrap()));
}

#[test]
fn a_gpu_is_not_replaced_by_programs() {
    if let Err(error) = OnnxRuntime::open(None, Device::Cpu) {
        return println!("skipped: {error}");
    }
    let device = Device::Cuda(0);
    match generate(&Arc::new(onnx_bundle(|_| ())), GenerateOptions { device, ..of_flows(10) }) {
        Ok(events) => println!("there is a GPU: {} events", events.len()),
        Err(RuntimeError::Device { device: of, .. }) => assert_eq!(of, device),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn onnx_runtime_refuses_graphs_that_do_not_fit() {
    if let Err(error) = OnnxRuntime::open(None, Device::Cpu) {
        println!("skipped: {error}");
        return;
    }
    type Change = fn(&mut BTreeMap<String, Vec<u8>>);
    let cases: [(Change, &str); 4] = [
        (
            |files| _ = files.insert("head.1.onnx".to_owned(), dense(1, ("u", 32), ("logits", 5))),
            "graph `head.1.onnx`: output `logits` is [-1, 5]; expected [batch, 10]",
        ),
        (
            |files| {
                _ = files.insert("context.onnx".to_owned(), dense(1, ("x", 64), ("gates", 352)))
            },
            "graph `context.onnx`: has an input `x` that the manifest does not name",
        ),
        (
            |files| _ = files.insert("step.onnx".to_owned(), Vec::new()),
            "graph `step.onnx`: is not an ONNX model",
        ),
        (
            |files| _ = files.insert("tables".to_owned(), Vec::new()),
            "graph `tables`: is no safetensors file",
        ),
    ];
    for (change, expected) in cases {
        let bundle = Arc::new(onnx_bundle(change));
        let error = Generator::open(bundle, of_flows(1)).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
#[ignore = "prints a time, checks nothing"]
fn time_flows_and_records() {
    let bundle = Arc::new(onnx_bundle(|_| ()));
    let begin = std::time::Instant::now();
    let events = generate(&bundle, of_flows(20_000)).unwrap();
    let all = begin.elapsed();
    let mut engine = load(&bundle);
    let condition = [0.1, -1.0, -1.0, -1.0, -1.0].repeat(256);
    let (noise, mut rows, mut gates) = (uniforms(256 * 18), Vec::new(), Vec::new());
    let begin = std::time::Instant::now();
    for _ in 0..40 {
        engine.attributes(256, &noise, &condition, &mut rows).unwrap();
    }
    let chain = begin.elapsed() / (40 * 256);
    engine.gates(256, &rows, &condition, &mut gates).unwrap();
    engine.resize(256).unwrap();
    let noise = uniforms(256 * 6);
    let begin = std::time::Instant::now();
    for _ in 0..100 {
        engine.step(&gates, &noise).unwrap();
    }
    let step = begin.elapsed() / (100 * 256);
    println!("{} records in {all:?}; {chain:?} a flow, {step:?} a record", events.len());
}

fn load(bundle: &Bundle) -> AutoregressiveEngine<LanesGraph, DenseGraph, RecurrentGraph> {
    let model = bundle.manifest().model.autoregressive.as_ref().unwrap();
    let tables = Tables::read(model, bundle.file(&model.tables).unwrap()).unwrap();
    AutoregressiveEngine::load(bundle, model, Arc::new(tables), None, Device::Cpu).unwrap()
}
