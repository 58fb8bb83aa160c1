//! Writes an ONNX graph node by node.

use prost::Message;

use super::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use ns_model_format::{Activation, FoldedLayout};

const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;
const FLOAT: i32 = 1;
const INT64: i32 = 7;
const ATTRIBUTE_INT: i32 = 2;

/// A graph under construction. Values are known by name; every method that
/// adds a node returns the name of its output.
pub(super) struct GraphWriter {
    graph: GraphProto,
    values: usize,
}

impl GraphWriter {
    pub(super) fn new(name: &str, doc: &str) -> GraphWriter {
        let graph = GraphProto {
            name: name.to_owned(),
            doc_string: doc.to_owned(),
            ..GraphProto::default()
        };
        GraphWriter { graph, values: 0 }
    }

    /// Declares an input of `[batch, dim]`.
    pub(super) fn input(&mut self, name: &str, dim: usize) -> String {
        self.graph.input.push(batch_of(name, dim));
        name.to_owned()
    }

    /// Declares `value` as the output `name` of `[batch, dim]`.
    pub(super) fn output(&mut self, value: &str, name: &str, dim: usize) {
        self.push("Identity", &[value], vec![name.to_owned()], &[]);
        self.graph.output.push(batch_of(name, dim));
    }

    /// `a @ weight + bias`; `weight` is `[rows, bias.len()]`.
    pub(super) fn linear(&mut self, a: &str, weight: &[f32], bias: &[f32]) -> String {
        let weight = self.matrix(weight, bias.len());
        let bias = self.floats(&[bias.len()], bias);
        self.node("Gemm", &[a, &weight, &bias])
    }

    /// `a @ weight + c`, where `c` is a value of `[batch, columns]`.
    pub(super) fn linear_onto(
        &mut self,
        a: &str,
        weight: &[f32],
        columns: usize,
        c: &str,
    ) -> String {
        let weight = self.matrix(weight, columns);
        self.node("Gemm", &[a, &weight, c])
    }

    /// Columns of several values side by side; a single value is itself.
    pub(super) fn concat(&mut self, values: &[&str]) -> String {
        if let [only] = values {
            return (*only).to_owned();
        }
        let output = self.fresh();
        self.push("Concat", values, vec![output.clone()], &[("axis", 1)]);
        output
    }

    /// Cuts columns into runs of the given widths.
    pub(super) fn split(&mut self, value: &str, widths: &[usize]) -> Vec<String> {
        if widths.len() == 1 {
            return vec![value.to_owned()];
        }
        let sizes: Vec<i64> = widths.iter().map(|&width| width as i64).collect();
        let sizes = self.integers(&sizes);
        let outputs: Vec<String> = widths.iter().map(|_| self.fresh()).collect();
        self.push("Split", &[value, &sizes], outputs.clone(), &[("axis", 1)]);
        outputs
    }

    /// A node of one output and no attributes.
    pub(super) fn node(&mut self, op_type: &str, inputs: &[&str]) -> String {
        let output = self.fresh();
        self.push(op_type, inputs, vec![output.clone()], &[]);
        output
    }

    /// Applies the activations of a folded layout to its columns: one node a
    /// kind, since the layout keeps equal kinds together.
    pub(super) fn activate(&mut self, value: &str, layout: &FoldedLayout) -> String {
        // Runs of equal activation, softmax by class count too.
        let mut segments = layout.segments.clone();
        segments.sort_by_key(|segment| segment.offset);
        let mut runs: Vec<(Activation, usize, usize)> = Vec::new();
        for segment in segments {
            let classes = match segment.activation {
                Activation::Softmax => segment.dim,
                _ => 0,
            };
            let width = segment.dim * layout.repeat;
            match runs.last_mut() {
                Some(run) if (run.0, run.1) == (segment.activation, classes) => run.2 += width,
                _ => runs.push((segment.activation, classes, width)),
            }
        }
        let widths: Vec<usize> = runs.iter().map(|run| run.2).collect();
        let parts = self.split(value, &widths);
        let parts: Vec<String> = parts
            .iter()
            .zip(runs)
            .map(|(part, (activation, classes, width))| match activation {
                Activation::Sigmoid => self.node("Sigmoid", &[part]),
                Activation::Tanh => self.node("Tanh", &[part]),
                Activation::Softmax => {
                    let rows = self.integers(&[-1, classes as i64]);
                    let back = self.integers(&[-1, width as i64]);
                    let grouped = self.node("Reshape", &[part, &rows]);
                    let softmax = self.fresh();
                    self.push("Softmax", &[&grouped], vec![softmax.clone()], &[("axis", -1)]);
                    self.node("Reshape", &[&softmax, &back])
                }
            })
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.concat(&parts)
    }

    /// The finished file.
    pub(super) fn finish(self) -> Vec<u8> {
        ModelProto {
            ir_version: IR_VERSION,
            producer_name: "ns-train".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        }
        .encode_to_vec()
    }

    fn fresh(&mut self) -> String {
        self.values += 1;
        format!("v{}", self.values)
    }

    fn push(&mut self, op: &str, inputs: &[&str], outputs: Vec<String>, ints: &[(&str, i64)]) {
        let attribute = |&(name, i): &(&str, i64)| AttributeProto {
            name: name.to_owned(),
            i,
            r#type: ATTRIBUTE_INT,
        };
        self.graph.node.push(NodeProto {
            name: format!("{op}_{}", self.graph.node.len()),
            op_type: op.to_owned(),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: outputs,
            attribute: ints.iter().map(attribute).collect(),
        });
    }

    fn matrix(&mut self, values: &[f32], columns: usize) -> String {
        self.floats(&[values.len() / columns.max(1), columns], values)
    }

    fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(dims, FLOAT, raw)
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(&[values.len()], INT64, raw)
    }

    fn initializer(&mut self, dims: &[usize], data_type: i32, raw_data: Vec<u8>) -> String {
        let name = self.fresh();
        self.graph.initializer.push(TensorProto {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type,
            name: name.clone(),
            raw_data,
        });
        name
    }
}

fn batch_of(name: &str, dim: usize) -> ValueInfoProto {
    let batch = DimensionProto { dim_value: None, dim_param: Some("batch".to_owned()) };
    let columns = DimensionProto { dim_value: Some(dim as i64), dim_param: None };
    let shape = Some(TensorShapeProto { dim: vec![batch, columns] });
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { tensor_type: Some(TensorTypeProto { elem_type: FLOAT, shape }) }),
    }
}
