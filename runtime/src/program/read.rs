//! From an ONNX graph to a program.
//!
//! Follows onnx.proto's field numbers. Whatever is not known here gives `None`.

use std::collections::HashMap;
use std::sync::Arc;

use ns_model_format::manifest::Tensor;

use super::{Binary, Buffer, Onto, Operation, Program, Step, Unary, View};
use crate::kernels::Matrix;
use crate::onnx_check::{Fields, Value};

/// Operator sets in which the operators mean what they mean here.
const OPSETS: std::ops::RangeInclusive<u64> = 13..=21;
const FLOAT: u64 = 1;
const INT64: u64 = 7;

/// A constant.
struct Weights<'a> {
    dims: Vec<usize>,
    kind: u64,
    raw: &'a [u8],
}

impl Weights<'_> {
    /// Values, if they are float32 of so many axes.
    fn floats(&self, axes: usize) -> Option<Vec<f32>> {
        let (bytes, rest) = self.raw.as_chunks();
        let count = self.dims.iter().try_fold(1_usize, |count, &dim| count.checked_mul(dim))?;
        let fits = self.kind == FLOAT && self.dims.len() == axes && rest.is_empty();
        (fits && bytes.len() == count && count > 0)
            .then(|| bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }

    fn widths(&self) -> Option<Vec<usize>> {
        self.integers()?.into_iter().map(|width| usize::try_from(width).ok()).collect()
    }

    /// Columns of a row, of a shape of as many rows as that makes.
    fn columns(&self) -> Option<usize> {
        let [-1, columns] = self.integers()?[..] else { return None };
        usize::try_from(columns).ok().filter(|columns| *columns > 0)
    }

    fn integers(&self) -> Option<Vec<i64>> {
        let (bytes, rest) = self.raw.as_chunks();
        let fits = self.kind == INT64 && self.dims == [bytes.len()] && rest.is_empty();
        fits.then(|| bytes.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect())
    }
}

#[derive(Default)]
struct Node<'a> {
    operator: &'a [u8],
    inputs: Vec<&'a [u8]>,
    outputs: Vec<&'a [u8]>,
    /// Names and whole numbers.
    attributes: Vec<(&'a [u8], u64)>,
}

pub(super) fn program(
    model: &[u8],
    inputs: &[Tensor],
    outputs: &[Tensor],
    budget: &mut usize,
) -> Option<Program> {
    let (mut graph, mut opset) = (None, None);
    for field in Fields(model) {
        match field.ok()? {
            (7, Value::Bytes(bytes)) => graph = Some(bytes),
            (8, Value::Bytes(bytes)) => {
                for field in Fields(bytes) {
                    if let (2, Value::Number(version)) = field.ok()? {
                        opset = Some(version);
                    }
                }
            }
            _ => {}
        }
    }
    let mut reader = Reader {
        values: HashMap::new(),
        grouped: HashMap::new(),
        weights: HashMap::new(),
        matrices: HashMap::new(),
        steps: Vec::new(),
        buffers: Vec::new(),
        budget: *budget,
    };
    let (mut nodes, mut found_inputs, mut found_outputs) = (Vec::new(), Vec::new(), Vec::new());
    OPSETS.contains(&opset?).then_some(())?;
    for field in Fields(graph?) {
        match field.ok()? {
            (1, Value::Bytes(bytes)) => nodes.push(bytes),
            (5, Value::Bytes(bytes)) => {
                let (name, weights) = tensor(bytes)?;
                reader.weights.insert(name, weights);
            }
            (11, Value::Bytes(bytes)) => found_inputs.push(outlet(bytes)?),
            (12, Value::Bytes(bytes)) => found_outputs.push(outlet(bytes)?),
            _ => {}
        }
    }
    let agrees = |found: &[(&[u8], u64)], expected: &[Tensor]| {
        let has = |tensor: &Tensor| found.contains(&(tensor.name.as_bytes(), tensor.dim as u64));
        found.len() == expected.len() && expected.iter().all(has)
    };
    if !agrees(&found_inputs, inputs) || !agrees(&found_outputs, outputs) {
        return None;
    }
    let inputs = inputs.iter().map(|tensor| {
        let view = reader.buffer(tensor.dim)?;
        reader.values.insert(tensor.name.as_bytes(), view);
        Some(view)
    });
    let inputs = inputs.collect::<Option<_>>()?;
    // One at a time: a node is many times as large as the few bytes that may stand for it.
    nodes.iter().try_for_each(|bytes| reader.add(&node(bytes)?))?;
    let outputs = outputs.iter().map(|tensor| {
        let view = reader.values.get(tensor.name.as_bytes()).copied();
        view.filter(|view| view.dim == tensor.dim)
    });
    let outputs = outputs.collect::<Option<_>>()?;
    *budget = reader.budget;
    Some(Program { inputs, outputs, steps: reader.steps, buffers: reader.buffers })
}

struct Reader<'a> {
    values: HashMap<&'a [u8], View>,
    /// Values as rows of fewer columns each.
    grouped: HashMap<&'a [u8], (View, usize)>,
    weights: HashMap<&'a [u8], Weights<'a>>,
    /// Those of the weights that are in use: any number of nodes share one.
    matrices: HashMap<&'a [u8], Arc<Matrix>>,
    steps: Vec<Step>,
    buffers: Vec<Buffer>,
    /// Numbers that may yet be held.
    budget: usize,
}

impl<'a> Reader<'a> {
    fn buffer(&mut self, dim: usize) -> Option<View> {
        // First of all: a width that is filled up could be too large for a number.
        if !(1..=self.budget).contains(&dim) {
            return None;
        }
        self.budget = self.budget.checked_sub(Buffer::size(dim))?;
        self.buffers.push(Buffer::new(dim));
        Some(View { buffer: self.buffers.len() - 1, at: 0, dim })
    }

    fn value(&self, name: &[u8]) -> Option<View> {
        self.values.get(name).copied()
    }

    fn push(&mut self, operation: Operation, dim: usize) -> Option<View> {
        let view = self.buffer(dim)?;
        self.steps.push(Step { operation, out: view.buffer });
        Some(view)
    }

    fn add(&mut self, node: &Node<'a>) -> Option<()> {
        let attributes: &[(&[u8], u64)] = match node.operator {
            b"Split" | b"Concat" => &[(b"axis", 1)],
            // The last one.
            b"Softmax" => &[(b"axis", u64::MAX)],
            _ => &[],
        };
        if node.attributes != attributes {
            return None;
        }
        let unary = |unary, view: View| Some((Operation::Unary(unary, view), view.dim));
        let binary = |reader: &Self, binary, one: &[u8], other: &[u8]| {
            let (one, other) = (reader.value(one)?, reader.value(other)?);
            (one.dim == other.dim).then_some((Operation::Binary(binary, one, other), one.dim))
        };
        let (operation, dim) = match (node.operator, &node.inputs[..]) {
            (b"Relu", &[a]) => unary(Unary::Relu, self.value(a)?)?,
            (b"Sigmoid", &[a]) => unary(Unary::Sigmoid, self.value(a)?)?,
            (b"Tanh", &[a]) => unary(Unary::Tanh, self.value(a)?)?,
            (b"Add", &[a, b]) => binary(self, Binary::Add, a, b)?,
            (b"Mul", &[a, b]) => binary(self, Binary::Mul, a, b)?,
            (b"Gemm", &[a, weight, ref c @ ..]) => self.gemm(a, weight, c)?,
            (b"Concat", parts) => {
                let parts: Vec<View> =
                    parts.iter().map(|part| self.value(part)).collect::<Option<_>>()?;
                let dim = parts.iter().try_fold(0_usize, |sum, part| sum.checked_add(part.dim))?;
                (Operation::Concat(parts), dim)
            }
            (b"Identity", &[a]) => {
                let view = self.value(a)?;
                return self.name(node, &[view]);
            }
            (b"Reshape", &[a, shape]) => {
                let columns = self.weights.get(shape)?.columns()?;
                let &[output] = &node.outputs[..] else { return None };
                return match (self.value(a), self.grouped.get(a)) {
                    (Some(view), _) if view.dim % columns == 0 => {
                        self.group(output, (view, columns))
                    }
                    (None, Some(&(view, _))) if view.dim == columns => self.name(node, &[view]),
                    _ => None,
                };
            }
            (b"Softmax", &[a]) => {
                let &[output] = &node.outputs[..] else { return None };
                let &(view, classes) = self.grouped.get(a)?;
                let out = self.push(Operation::Softmax(view, classes), view.dim)?;
                return self.group(output, (out, classes));
            }
            (b"Split", &[a, widths]) => {
                let (view, widths) = (self.value(a)?, self.weights.get(widths)?.widths()?);
                let mut parts = Vec::with_capacity(widths.len());
                let mut at = view.at;
                for dim in widths {
                    parts.push(View { buffer: view.buffer, at, dim });
                    at = at.checked_add(dim)?;
                }
                if at != view.at + view.dim || parts.iter().any(|part| part.dim == 0) {
                    return None;
                }
                return self.name(node, &parts);
            }
            _ => return None,
        };
        let view = self.push(operation, dim)?;
        self.name(node, &[view])
    }

    fn gemm(&mut self, a: &[u8], weight: &'a [u8], c: &[&[u8]]) -> Option<(Operation, usize)> {
        let a = self.value(a)?;
        let &[inputs, columns] = &self.weights.get(weight)?.dims[..] else { return None };
        if inputs != a.dim {
            return None;
        }
        let matrix = self.matrix(weight, columns)?;
        // A bias is no larger than the buffer that the product gets.
        let onto = match c {
            [] => Onto::Nothing,
            [c] => match self.weights.get(c) {
                Some(bias) => Onto::Bias(bias.floats(1).filter(|bias| bias.len() == columns)?),
                None => Onto::Value(self.value(c).filter(|c| c.dim == columns)?),
            },
            _ => return None,
        };
        Some((Operation::Gemm(a, matrix, onto), columns))
    }

    fn matrix(&mut self, name: &'a [u8], columns: usize) -> Option<Arc<Matrix>> {
        if let Some(matrix) = self.matrices.get(name) {
            return Some(matrix.clone());
        }
        let values = self.weights.get(name)?.floats(2)?;
        self.budget = self.budget.checked_sub(Matrix::size(values.len(), columns))?;
        let matrix = Arc::new(Matrix::new(&values, columns));
        self.matrices.insert(name, matrix.clone());
        Some(matrix)
    }

    /// Gives a node's outputs their names; none is given twice.
    fn name(&mut self, node: &Node<'a>, views: &[View]) -> Option<()> {
        if node.outputs.len() != views.len() {
            return None;
        }
        node.outputs.iter().zip(views).try_for_each(|(name, view)| {
            self.is_new(name).then(|| _ = self.values.insert(name, *view))
        })
    }

    fn group(&mut self, name: &'a [u8], grouped: (View, usize)) -> Option<()> {
        self.is_new(name).then(|| _ = self.grouped.insert(name, grouped))
    }

    fn is_new(&self, name: &[u8]) -> bool {
        !self.weights.contains_key(name)
            && !self.values.contains_key(name)
            && !self.grouped.contains_key(name)
    }
}

fn node(message: &[u8]) -> Option<Node<'_>> {
    let mut node = Node::default();
    for field in Fields(message) {
        match field.ok()? {
            (1, Value::Bytes(name)) => node.inputs.push(name),
            (2, Value::Bytes(name)) => node.outputs.push(name),
            (4, Value::Bytes(name)) => node.operator = name,
            (5, Value::Bytes(attribute)) => {
                let (mut name, mut number) = (None, None);
                for field in Fields(attribute) {
                    match field.ok()? {
                        (1, Value::Bytes(bytes)) => name = Some(bytes),
                        (3, Value::Number(int)) => number = Some(int),
                        // Its type, INT.
                        (20, Value::Number(2)) => {}
                        _ => return None,
                    }
                }
                node.attributes.push((name?, number?));
            }
            _ => {}
        }
    }
    Some(node)
}

fn tensor(message: &[u8]) -> Option<(&[u8], Weights<'_>)> {
    let (mut name, mut kind, mut raw, mut dims) = (None, 0, None, Vec::new());
    for field in Fields(message) {
        match field.ok()? {
            (1, Value::Number(dim)) => dims.push(usize::try_from(dim).ok()?),
            (1, Value::Bytes(packed)) => {
                let mut packed = Fields(packed);
                while !packed.0.is_empty() {
                    dims.push(usize::try_from(packed.varint()?).ok()?);
                }
            }
            (2, Value::Number(number)) => kind = number,
            (8, Value::Bytes(bytes)) => name = Some(bytes),
            (9, Value::Bytes(bytes)) => raw = Some(bytes),
            _ => return None,
        }
    }
    Some((name?, Weights { dims, kind, raw: raw? }))
}

/// An input's or output's name and width, if it is `[batch, width]` of float32.
fn outlet(message: &[u8]) -> Option<(&[u8], u64)> {
    let inner = |message, wanted: u64| {
        let mut found = Fields(message).map_while(Result::ok);
        match found.find(|(number, _)| *number == wanted) {
            Some((_, Value::Bytes(bytes))) => Some(bytes),
            _ => None,
        }
    };
    let name = inner(message, 1)?;
    let tensor = inner(inner(message, 2)?, 1)?;
    let number = |message| {
        let number = |field| match field {
            (1, Value::Number(number)) => Some(number),
            _ => None,
        };
        Fields(message).map_while(Result::ok).find_map(number)
    };
    (number(tensor) == Some(FLOAT)).then_some(())?;
    let mut dims = Vec::new();
    for field in Fields(inner(tensor, 2)?) {
        let (1, Value::Bytes(dim)) = field.ok()? else { return None };
        dims.push(number(dim));
    }
    match dims[..] {
        [None, Some(dim)] => Some((name, dim)),
        _ => None,
    }
}
