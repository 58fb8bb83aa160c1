//! The same with graphs that ONNX Runtime runs, written by hand.

use super::*;
use crate::Generator;
use crate::engine::load_library;

/// Messages of onnx.proto, as far as they are needed here.
fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(field: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3, &mut out);
    varint(value, &mut out);
    out
}

fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3 | 2, &mut out);
    varint(value.as_ref().len() as u64, &mut out);
    out.extend_from_slice(value.as_ref());
    out
}

/// A value of `[batch, dim]`.
fn value(name: &str, dim: usize) -> Vec<u8> {
    let shape = [bytes(1, bytes(2, "batch")), bytes(1, number(1, dim as u64))].concat();
    let tensor = [number(1, 1), bytes(2, shape)].concat();
    [bytes(1, name), bytes(2, bytes(1, tensor))].concat()
}

struct Writer {
    graph: Vec<u8>,
    weights: Stream,
}

impl Writer {
    fn new(seed: u64) -> Writer {
        Writer { graph: bytes(2, "test"), weights: Stream::new(seed, Purpose::Weights, 1) }
    }

    fn node(mut self, op: &str, inputs: &[&str], output: &str) -> Writer {
        let inputs = inputs.iter().flat_map(|input| bytes(1, input)).collect();
        self.graph.extend(bytes(1, [inputs, bytes(2, output), bytes(4, op)].concat()));
        self
    }

    /// `a @ weights + c`.
    fn gemm(mut self, a: (&str, usize), c: Option<&str>, output: (&str, usize)) -> Writer {
        let name = format!("weights of {}", output.0);
        let scale = 2.0 / (a.1 as f32).sqrt();
        let values = (0..a.1 * output.1).map(|_| scale * self.weights.normal());
        let raw: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        let dims = [number(1, a.1 as u64), number(1, output.1 as u64)].concat();
        let tensor = [dims, number(2, 1), bytes(8, &name), bytes(9, raw)].concat();
        self.graph.extend(bytes(5, tensor));
        let inputs: Vec<&str> = [a.0, &name].into_iter().chain(c).collect();
        self.node("Gemm", &inputs, output.0)
    }

    fn finish(mut self, inputs: &[(&str, usize)], outputs: &[(&str, usize)]) -> Vec<u8> {
        inputs.iter().for_each(|&(name, dim)| self.graph.extend(bytes(11, value(name, dim))));
        outputs.iter().for_each(|&(name, dim)| self.graph.extend(bytes(12, value(name, dim))));
        let opset = number(2, 17);
        [number(1, 8), bytes(7, self.graph), bytes(8, opset)].concat()
    }
}

fn dense(seed: usize, input: (&str, usize), output: (&str, usize)) -> Vec<u8> {
    Writer::new(seed as u64)
        .node("Relu", &[input.0], "relu")
        .gemm(("relu", input.1), None, output)
        .finish(&[input], &[output])
}

fn step(h: usize, heads: usize) -> Vec<u8> {
    Writer::new(100)
        .gemm(("x", 4 * h), Some("c"), ("sum of c", h))
        .node("Tanh", &["sum of c"], "c_next")
        .gemm(("h", h), Some("c_next"), ("sum of h", h))
        .node("Tanh", &["sum of h"], "h_next")
        .gemm(("h_next", h), None, ("heads", heads))
        .finish(
            &[("x", 4 * h), ("h", h), ("c", h)],
            &[("heads", heads), ("h_next", h), ("c_next", h)],
        )
}

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
    files.insert(model.step_file.clone(), step(64, heads));
    files.insert(model.tables.clone(), tables_file(model, |_, _| true));
    change(&mut files);
    Bundle::new(manifest, files).unwrap()
}

fn generate(bundle: &Arc<Bundle>, options: GenerateOptions) -> Result<Events, RuntimeError> {
    Generator::open(bundle.clone(), options)?.stream(Echo)?.collect()
}

#[test]
fn onnx_runtime_runs_the_graphs_and_the_means_change_nothing() {
    if let Err(error) = load_library(None) {
        println!("skipped: {error}");
        return;
    }
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
fn onnx_runtime_refuses_graphs_that_do_not_fit() {
    if let Err(error) = load_library(None) {
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

fn load(bundle: &Bundle) -> AutoregressiveEngine<Graph, StepGraph> {
    let model = bundle.manifest().model.autoregressive.as_ref().unwrap();
    let tables = Tables::read(model, bundle.file(&model.tables).unwrap()).unwrap();
    AutoregressiveEngine::load(bundle, model, Arc::new(tables), None).unwrap()
}
