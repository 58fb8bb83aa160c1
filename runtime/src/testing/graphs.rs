//! ONNX graphs, written by hand.

use ns_model_format::random::{Purpose, Stream};

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

/// A graph under construction.
pub(crate) struct Writer {
    graph: Vec<u8>,
    weights: Stream,
}

impl Writer {
    pub(crate) fn new(seed: u64) -> Writer {
        Writer { graph: bytes(2, "test"), weights: Stream::new(seed, Purpose::Weights, 1) }
    }

    pub(crate) fn node(mut self, op: &str, inputs: &[&str], output: &str) -> Writer {
        let inputs = inputs.iter().flat_map(|input| bytes(1, input)).collect();
        self.graph.extend(bytes(1, [inputs, bytes(2, output), bytes(4, op)].concat()));
        self
    }

    /// `a @ weights + c`.
    pub(crate) fn gemm(
        mut self,
        a: (&str, usize),
        c: Option<&str>,
        output: (&str, usize),
    ) -> Writer {
        let name = format!("weights of {}", output.0);
        let values = matrix(&mut self.weights, a.1, output.1);
        self.floats(&name, &[a.1, output.1], values);
        let inputs: Vec<&str> = [a.0, &name].into_iter().chain(c).collect();
        self.node("Gemm", &inputs, output.0)
    }

    /// A bias for [`Writer::gemm`].
    pub(crate) fn bias(mut self, name: &str, columns: usize) -> Writer {
        let values = (0..columns).map(|_| self.weights.normal()).collect();
        self.floats(name, &[columns], values);
        self
    }

    fn floats(&mut self, name: &str, dims: &[usize], values: Vec<f32>) {
        let raw: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        let dims = dims.iter().flat_map(|&dim| number(1, dim as u64)).collect();
        let tensor = [dims, number(2, 1), bytes(8, name), bytes(9, raw)].concat();
        self.graph.extend(bytes(5, tensor));
    }

    /// Widths for [`Writer::cut`].
    pub(crate) fn widths(mut self, name: &str, widths: &[u64]) -> Writer {
        let raw: Vec<u8> = widths.iter().flat_map(|width| width.to_le_bytes()).collect();
        let dims = bytes(1, [widths.len() as u8]);
        let tensor = [dims, number(2, 7), bytes(8, name), bytes(9, raw)].concat();
        self.graph.extend(bytes(5, tensor));
        self
    }

    /// Columns cut into runs.
    pub(crate) fn cut(self, value: &str, widths: &str, outputs: &[&str]) -> Writer {
        self.of_columns("Split", &[value, widths], outputs)
    }

    /// Columns side by side.
    pub(crate) fn join(self, values: &[&str], output: &str) -> Writer {
        self.of_columns("Concat", values, &[output])
    }

    /// The softmax of each row.
    pub(crate) fn softmax(self, value: &str, output: &str) -> Writer {
        self.along("Softmax", -1, &[value], &[output])
    }

    fn of_columns(self, op: &str, inputs: &[&str], outputs: &[&str]) -> Writer {
        self.along(op, 1, inputs, outputs)
    }

    fn along(mut self, op: &str, axis: i64, inputs: &[&str], outputs: &[&str]) -> Writer {
        let axis = [bytes(1, "axis"), number(3, axis as u64), number(20, 2)].concat();
        let inputs: Vec<u8> = inputs.iter().flat_map(|input| bytes(1, input)).collect();
        let outputs: Vec<u8> = outputs.iter().flat_map(|output| bytes(2, output)).collect();
        self.graph.extend(bytes(1, [inputs, outputs, bytes(4, op), bytes(5, axis)].concat()));
        self
    }

    pub(crate) fn finish(mut self, inputs: &[(&str, usize)], outputs: &[(&str, usize)]) -> Vec<u8> {
        inputs.iter().for_each(|&(name, dim)| self.graph.extend(bytes(11, value(name, dim))));
        outputs.iter().for_each(|&(name, dim)| self.graph.extend(bytes(12, value(name, dim))));
        let opset = number(2, 17);
        [number(1, 8), bytes(7, self.graph), bytes(8, opset)].concat()
    }
}

pub(crate) fn dense(seed: usize, input: (&str, usize), output: (&str, usize)) -> Vec<u8> {
    Writer::new(seed as u64)
        .node("Relu", &[input.0], "relu")
        .gemm(("relu", input.1), None, output)
        .finish(&[input], &[output])
}

/// An LSTM's step as a model's graph has it; of both states come the heads.
pub(crate) fn lstm(seed: u64, h: usize, heads: usize) -> Vec<u8> {
    let width = h as u64;
    Writer::new(seed)
        .widths("parts", &[3 * width, width])
        .widths("gates", &[width; 3])
        .gemm(("h", h), Some("x"), ("all", 4 * h))
        .cut("all", "parts", &["open", "new"])
        .node("Sigmoid", &["open"], "opened")
        .node("Tanh", &["new"], "candidate")
        .cut("opened", "gates", &["in", "keep", "out"])
        .node("Mul", &["keep", "c"], "kept")
        .node("Mul", &["in", "candidate"], "added")
        .node("Add", &["kept", "added"], "c_new")
        .node("Tanh", &["c_new"], "bounded")
        .node("Mul", &["out", "bounded"], "h_new")
        .join(&["h_new", "c_new"], "both")
        .gemm(("both", 2 * h), None, ("heads", heads))
        .node("Identity", &["h_new"], "h_next")
        .node("Identity", &["c_new"], "c_next")
        .finish(
            &[("x", 4 * h), ("h", h), ("c", h)],
            &[("heads", heads), ("h_next", h), ("c_next", h)],
        )
}

/// A product's weights.
pub(crate) fn matrix(weights: &mut Stream, inputs: usize, columns: usize) -> Vec<f32> {
    let scale = 2.0 / (inputs as f32).sqrt();
    (0..inputs * columns).map(|_| scale * weights.normal()).collect()
}
