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

/// Adjacent columns of one kind.
#[derive(Clone, Copy)]
struct Run {
    activation: Activation,
    /// Of each softmax; 0 for other activations.
    classes: usize,
    width: usize,
}

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

    /// An LSTM's next hidden and cell state from what is in its gates, in the order
    /// input, forget, output, candidate.
    pub(super) fn lstm_cell(&mut self, gates: &str, c: &str, hidden: usize) -> (String, String) {
        let parts = self.split(gates, &[3 * hidden, hidden]);
        let squashed = self.node("Sigmoid", &[&parts[0]]);
        let candidate = self.node("Tanh", &[&parts[1]]);
        let parts = self.split(&squashed, &[hidden, hidden, hidden]);
        let kept = self.node("Mul", &[&parts[1], c]);
        let added = self.node("Mul", &[&parts[0], &candidate]);
        let c_next = self.node("Add", &[&kept, &added]);
        let bounded = self.node("Tanh", &[&c_next]);
        (self.node("Mul", &[&parts[2], &bounded]), c_next)
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
        self.by_run(value, layout, |graph, part, run| match run.activation {
            Activation::Sigmoid => graph.node("Sigmoid", &[part]),
            Activation::Tanh => graph.node("Tanh", &[part]),
            Activation::Softmax => graph.grouped("Softmax", part, run),
        })
    }

    /// Makes activated attributes discrete (see
    /// [`ns_model_format::manifest::GatesGraph`]); `yes_or_no` says of each
    /// column under a sigmoid whether it is a folded two-way softmax.
    pub(super) fn make_discrete(
        &mut self,
        value: &str,
        layout: &FoldedLayout,
        yes_or_no: &[bool],
    ) -> String {
        let (ones, zeros): (Vec<f32>, Vec<f32>) =
            yes_or_no.iter().map(|&yes| if yes { (1.0, 0.0) } else { (0.0, 1.0) }).unzip();
        self.by_run(value, layout, |graph, part, run| match run.activation {
            Activation::Sigmoid => {
                let half = graph.floats(&[1], &[0.5]);
                let above = graph.node("Greater", &[part, &half]);
                let rounded = graph.fresh();
                let to_float = [("to", i64::from(FLOAT))];
                graph.push("Cast", &[&above], vec![rounded.clone()], &to_float);
                let (ones, zeros) =
                    (graph.floats(&[ones.len()], &ones), graph.floats(&[zeros.len()], &zeros));
                let taken = graph.node("Mul", &[&rounded, &ones]);
                let kept = graph.node("Mul", &[part, &zeros]);
                graph.node("Add", &[&taken, &kept])
            }
            Activation::Tanh => part.to_owned(),
            Activation::Softmax => graph.grouped("Hardmax", part, run),
        })
    }

    /// The columns of a value in another order: output column `i` is `order[i]`.
    pub(super) fn reorder(&mut self, value: &str, order: &[usize]) -> String {
        let order: Vec<i64> = order.iter().map(|&column| column as i64).collect();
        let order = self.integers(&order);
        let output = self.fresh();
        self.push("Gather", &[value, &order], vec![output.clone()], &[("axis", 1)]);
        output
    }

    /// Applies `work` to each run of columns of one kind, and joins the results.
    fn by_run(
        &mut self,
        value: &str,
        layout: &FoldedLayout,
        mut work: impl FnMut(&mut GraphWriter, &str, Run) -> String,
    ) -> String {
        let mut segments = layout.segments.clone();
        segments.sort_by_key(|segment| segment.offset);
        let mut runs: Vec<Run> = Vec::new();
        for segment in segments {
            let classes = match segment.activation {
                Activation::Softmax => segment.dim,
                _ => 0,
            };
            let width = segment.dim * layout.repeat;
            match runs.last_mut() {
                Some(run) if (run.activation, run.classes) == (segment.activation, classes) => {
                    run.width += width;
                }
                _ => runs.push(Run { activation: segment.activation, classes, width }),
            }
        }
        let widths: Vec<usize> = runs.iter().map(|run| run.width).collect();
        let parts = self.split(value, &widths);
        let parts: Vec<String> =
            parts.iter().zip(runs).map(|(part, run)| work(self, part, run)).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.concat(&parts)
    }

    /// An operator over each softmax's classes.
    fn grouped(&mut self, op_type: &str, part: &str, run: Run) -> String {
        let rows = self.integers(&[-1, run.classes as i64]);
        let back = self.integers(&[-1, run.width as i64]);
        let grouped = self.node("Reshape", &[part, &rows]);
        let output = self.fresh();
        self.push(op_type, &[&grouped], vec![output.clone()], &[("axis", -1)]);
        self.node("Reshape", &[&output, &back])
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
