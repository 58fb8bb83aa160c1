//! Looks a graph file over before ONNX Runtime sees it.
//!
//! A bundle may come from anyone. ONNX can name files of weights beside the
//! model, hold loops that never end, and call operators of other vendors; a
//! model of ours does none of it, so the file is walked once and refused.
//! It packs weights once for each node that uses them, so nodes of a few bytes
//! that share a matrix could ask for any amount of memory; that is refused too.
//! The walk follows onnx.proto's field numbers and copies nothing.

use std::collections::HashMap;

/// Bytes of weights that nodes may have together, however small the graph.
const MOST_SHARED: usize = 64 << 20;
/// Nodes may have a graph's bytes so many times.
const MOST_TIMES: usize = 4;

/// What a model of ours may compute with. Each is a bounded amount of work for
/// the sizes of its inputs.
const OPERATORS: [&str; 45] = [
    "Abs",
    "Add",
    "ArgMax",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "Cos",
    "Div",
    "Equal",
    "Erf",
    "Exp",
    "Gather",
    "Gelu",
    "Gemm",
    "Greater",
    "Hardmax",
    "Identity",
    "LayerNormalization",
    "Less",
    "Log",
    "LogSoftmax",
    "LSTM",
    "MatMul",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Pow",
    "Reciprocal",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Sin",
    "Slice",
    "Softmax",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Transpose",
];

/// Refuses what a bundle's graph must not have.
///
/// Errors are sentences without a subject: "uses the operator `Loop`".
pub(crate) fn check(model: &[u8]) -> Result<(), String> {
    let mut graphs = 0;
    for field in Fields(model) {
        match field? {
            // graph
            (7, Value::Bytes(graph)) => {
                graphs += 1;
                check_graph(graph)?;
            }
            // training_info, functions
            (20 | 25, _) => return Err("has training information or functions".to_owned()),
            _ => {}
        }
    }
    if graphs == 1 { Ok(()) } else { Err("is not an ONNX model".to_owned()) }
}

fn check_graph(graph: &[u8]) -> Result<(), String> {
    let mut weights = HashMap::new();
    for field in Fields(graph) {
        match field? {
            // node
            (1, Value::Bytes(node)) => check_node(node)?,
            // initializer
            (5, Value::Bytes(tensor)) => {
                check_tensor(tensor)?;
                tensor_name(tensor)?.map(|name| weights.insert(name, tensor.len()));
            }
            // sparse_initializer
            (15, _) => return Err("has sparse weights".to_owned()),
            _ => {}
        }
    }
    let most = MOST_SHARED.saturating_add(MOST_TIMES.saturating_mul(graph.len()));
    let mut used = 0_usize;
    for field in Fields(graph) {
        let (1, Value::Bytes(node)) = field? else { continue };
        // What is computed from weights alone is a weight too: it may be kept as one.
        let (mut outputs, mut is_known, mut bytes) = (Vec::new(), true, 0_usize);
        for field in Fields(node) {
            match field? {
                // input
                (1, Value::Bytes(name)) => match weights.get(name) {
                    Some(&found) => bytes = bytes.saturating_add(found),
                    None => is_known &= name.is_empty(),
                },
                // output
                (2, Value::Bytes(name)) => outputs.push(name),
                // attribute
                (5, Value::Bytes(attribute)) => bytes = bytes.saturating_add(attribute.len()),
                _ => {}
            }
        }
        used = used.saturating_add(bytes);
        if is_known {
            weights.extend(outputs.into_iter().map(|name| (name, bytes)));
        }
        if used > most {
            let bytes = graph.len();
            return Err(format!(
                "has nodes that share weights of more than {most} bytes in a graph of {bytes}"
            ));
        }
    }
    Ok(())
}

fn tensor_name(tensor: &[u8]) -> Result<Option<&[u8]>, String> {
    // Of several the last counts.
    let mut name = None;
    for field in Fields(tensor) {
        if let (8, Value::Bytes(found)) = field? {
            name = Some(found);
        }
    }
    Ok(name)
}

fn check_node(node: &[u8]) -> Result<(), String> {
    for field in Fields(node) {
        match field? {
            // op_type
            (4, Value::Bytes(name)) if !OPERATORS.iter().any(|op| op.as_bytes() == name) => {
                let name = String::from_utf8_lossy(&name[..name.len().min(40)]).into_owned();
                return Err(format!("uses the operator `{name}`"));
            }
            // domain
            (7, Value::Bytes(domain)) if !domain.is_empty() && domain != b"ai.onnx" => {
                return Err("uses operators outside the ONNX standard".to_owned());
            }
            // attribute
            (5, Value::Bytes(attribute)) => check_attribute(attribute)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_attribute(attribute: &[u8]) -> Result<(), String> {
    for field in Fields(attribute) {
        match field? {
            // t, tensors
            (5 | 10, Value::Bytes(tensor)) => check_tensor(tensor)?,
            // g, graphs, sparse_tensor, sparse_tensors
            (6 | 11 | 22 | 23, _) => return Err("has a graph within a graph".to_owned()),
            _ => {}
        }
    }
    Ok(())
}

fn check_tensor(tensor: &[u8]) -> Result<(), String> {
    for field in Fields(tensor) {
        match field? {
            // external_data, data_location
            (13, _) => return Err("keeps weights in another file".to_owned()),
            (14, Value::Number(location)) if location != 0 => {
                return Err("keeps weights in another file".to_owned());
            }
            _ => {}
        }
    }
    Ok(())
}

pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of a protobuf message: number and value.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "is not an ONNX model".to_owned()))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.bytes(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.bytes(length)?)
            }
            5 => self.bytes(4).map(|_| Value::Fixed)?,
            // Groups are not in onnx.proto.
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::graphs::Writer;

    /// Field `number` of a message, of length-delimited contents.
    fn field(number: u8, contents: &[u8]) -> Vec<u8> {
        let tag = u16::from(number) << 3 | 2;
        let mut out = vec![(tag & 0x7f) as u8 | 0x80, (tag >> 7) as u8, contents.len() as u8];
        out.extend_from_slice(contents);
        out
    }

    fn model(graph: &[u8]) -> Vec<u8> {
        field(7, graph)
    }

    #[test]
    fn plain_operators_pass() {
        assert_eq!(check(&model(&field(1, &field(4, b"Gemm")))), Ok(()));
    }

    #[test]
    fn what_a_model_of_ours_never_has_is_refused() {
        let refused = |model: &[u8]| check(model).unwrap_err();
        assert!(refused(&model(&field(1, &field(4, b"Loop")))).contains("`Loop`"));
        let foreign = [field(4, b"Gemm"), field(7, b"com.evil")].concat();
        assert!(refused(&model(&field(1, &foreign))).contains("outside the ONNX standard"));
        let nested = field(5, &field(6, b""));
        assert!(refused(&model(&field(1, &nested))).contains("graph within a graph"));
        let external = field(5, &field(13, b"x"));
        assert!(refused(&model(&external)).contains("another file"));
        // data_location: EXTERNAL, a varint
        let external = field(5, &[14 << 3, 1]);
        assert!(refused(&model(&external)).contains("another file"));
        assert!(refused(b"").contains("not an ONNX model"));
        assert!(refused(&[0x3a, 0xff, 0xff]).contains("not an ONNX model"));
    }

    #[test]
    fn weights_that_many_nodes_share_are_counted_for_each() {
        let shared = |nodes: usize| {
            let mut writer = Writer::new(1).gemm(("a", 512), None, ("0", 512));
            for node in 0..nodes {
                writer = writer.node("Gemm", &["a", "weights of 0"], &node.to_string());
            }
            check(&writer.finish(&[("a", 512)], &[("0", 512)]))
        };
        assert_eq!(shared(50), Ok(()));
        let error = shared(5000).unwrap_err();
        assert!(error.starts_with("has nodes that share weights of more than 7"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(&bytes);
            let _ = check(&model(&bytes[..bytes.len().min(120)]));
        }
    }
}
