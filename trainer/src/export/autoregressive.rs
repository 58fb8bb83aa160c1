//! An autoregressive model as graphs and tables: a graph for the logits of every variable
//! and head, one for what a flow gives to its records, one for the LSTM's step.
//! [`ns_model_format::autoregressive`] says how they are run.

use std::collections::BTreeMap;

use ns_model_format::autoregressive::{Autoregressive, BUDGET_BUCKETS, COUNT_BUCKETS, Variable};
use ns_model_format::manifest::{FORMAT_VERSION, Model, Provenance, Timeline};
use ns_model_format::{Bundle, BundleError, Manifest, Schema};

use super::doppelganger::sigmoids_first;
use super::graph::GraphWriter;
use super::{Tensors, safetensors};
use crate::arrays::Array;
use crate::autoregressive::chain::Chain;
use crate::autoregressive::fit::Options;
use crate::autoregressive::weights::Weights;

const TABLES: &str = "tables.safetensors";
const CONTEXT: &str = "context.onnx";
const STEP: &str = "step.onnx";

/// Puts a trained autoregressive model into a bundle.
///
/// # Errors
/// Weights that do not fit the chain or the schema.
pub(crate) fn bundle(
    weights: &Weights,
    chain: &Chain,
    options: &Options,
    schema: Schema,
    timeline: Timeline,
    provenance: Provenance,
) -> Result<Bundle, BundleError> {
    if !weights.fit(chain, options) {
        let (place, reason) = (TABLES.to_owned(), "weights of another model".to_owned());
        return Err(BundleError::Manifest { place, reason });
    }
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let widths = options.widths;
    let described = Autoregressive {
        tables: TABLES.to_owned(),
        units: options.units,
        context: widths.context,
        hidden: widths.hidden,
        head: widths.head,
        attributes: attributes(weights, chain),
        context_file: CONTEXT.to_owned(),
        step_file: STEP.to_owned(),
        heads: chain.heads.clone(),
    };
    let all_heads = chain.heads.len() * widths.head;
    for (variable, of) in chain.variables[1..].iter().zip(&weights.conditionals) {
        if let Some(file) = &variable.file {
            let mut graph = GraphWriter::new(&variable.name, "what is before to logits");
            let sum = graph.input("sum", options.units);
            let first = graph.node("Relu", &[&sum]);
            let second = graph.linear(&first, &of.hidden, &of.hidden_bias);
            let second = graph.node("Relu", &[&second]);
            let all = graph.node("Add", &[&first, &second]);
            let logits = graph.linear(&all, &of.out, &of.out_bias);
            graph.output(&logits, "logits", variable.size);
            files.insert(file.clone(), graph.finish());
        }
    }
    files.insert(CONTEXT.to_owned(), context_graph(weights, widths.context, widths.hidden));
    files.insert(STEP.to_owned(), step_graph(weights, widths.hidden, all_heads));
    for (head, out) in chain.heads.iter().zip(weights.records.out.chunks_exact(2)) {
        let mut graph = GraphWriter::new(&head.name, "what is known of a record to logits");
        let u = graph.input("u", widths.head);
        let first = graph.node("Relu", &[&u]);
        let logits = graph.linear(&first, &out[0], &out[1]);
        graph.output(&logits, "logits", head.size);
        files.insert(head.file.clone(), graph.finish());
    }
    files.insert(TABLES.to_owned(), safetensors(tables(weights, chain, options))?);
    let model = Model {
        class: "autoregressive".to_owned(),
        weights: TABLES.to_owned(),
        chunks: Vec::new(),
        autoregressive: Some(described),
    };
    let manifest = Manifest {
        format: FORMAT_VERSION,
        schema,
        model,
        timeline,
        provenance,
        files: BTreeMap::new(),
    };
    Bundle::new(manifest, files)
}

/// The variables, and whose tokens tell what is added to their logits.
fn attributes(weights: &Weights, chain: &Chain) -> Vec<Variable> {
    let mut variables = chain.variables.clone();
    for (variable, of) in variables[1..].iter_mut().zip(&weights.conditionals) {
        variable.contexts = of.evidence.iter().map(|context| context.of.clone()).collect();
    }
    variables
}

/// Every table, and beside them the matrices that the graphs hold too: all of the
/// model's weights in one file.
fn tables(weights: &Weights, chain: &Chain, options: &Options) -> Tensors {
    let mut all: Tensors = Vec::new();
    let widths = options.widths;
    let (units, gates) = (options.units, 4 * widths.hidden);
    let all_heads = chain.heads.len() * widths.head;
    let mut put = |name: String, columns: usize, values: &[f32]| {
        let shape = vec![values.len() / columns.max(1), columns];
        all.push((name, shape, Array::F32(values.to_vec())));
    };
    for (at, (variable, of)) in (1..).zip(chain.variables[1..].iter().zip(&weights.conditionals)) {
        for (place, (parent, table)) in variable.parents.iter().zip(&of.tables).enumerate() {
            let mut table = table.clone();
            // The start, a parent of all, always applies: it carries the bias.
            if place == 0 {
                for row in table.chunks_exact_mut(units) {
                    row.iter_mut().zip(&of.bias).for_each(|(value, bias)| *value += bias);
                }
            }
            put(format!("attributes.{at}.{parent}"), units, &table);
        }
        put(format!("attributes.{at}.hidden"), units, &of.hidden);
        put(format!("attributes.{at}.hidden_bias"), units, &of.hidden_bias);
        put(format!("attributes.{at}.out"), variable.size, &of.out);
        put(format!("attributes.{at}.out_bias"), variable.size, &of.out_bias);
    }
    let records = &weights.records;
    for (at, table) in records.context.iter().enumerate() {
        put(format!("context.{at}"), widths.context, table);
    }
    for (name, matrix) in ["first", "first_bias", "second", "second_bias"].iter().zip(&records.mix)
    {
        put(format!("context.{name}"), widths.context, matrix);
    }
    for (name, matrix) in ["gates", "gates_bias"].iter().zip(&records.context_gates) {
        put(format!("context.{name}"), gates, &sigmoids_first(matrix, gates));
    }
    for (name, matrix) in ["heads", "heads_bias"].iter().zip(&records.context_heads) {
        put(format!("context.{name}"), all_heads, matrix);
    }
    let heads = (0..chain.heads.len()).map(|at| at.to_string());
    let names = heads.chain(["remaining", "index", "budget"].map(str::to_owned));
    for (name, table) in names.zip(&records.input) {
        put(format!("record.{name}"), gates, &sigmoids_first(table, gates));
    }
    put("record.hidden".to_owned(), gates, &sigmoids_first(&records.hidden, gates));
    put("record.heads".to_owned(), all_heads, &records.heads);
    let counters = [("remaining", COUNT_BUCKETS), ("budget", BUDGET_BUCKETS)];
    for ((name, rows), table) in counters.into_iter().zip(&records.head_counters) {
        put(format!("head.{name}"), table.len() / rows, table);
    }
    let mut earlier = records.earlier.iter();
    for at in 0..chain.heads.len() {
        for (before, table) in (0..at).zip(&mut earlier) {
            put(format!("head.{at}.{before}"), widths.head, table);
        }
    }
    for (at, (head, out)) in chain.heads.iter().zip(records.out.chunks_exact(2)).enumerate() {
        put(format!("head.{at}.out"), head.size, &out[0]);
        put(format!("head.{at}.out_bias"), head.size, &out[1]);
    }
    for (at, of) in (1..).zip(&weights.conditionals) {
        for (index, context) in of.evidence.iter().enumerate() {
            let name = |part: &str| format!("evidence.{at}.{index}.{part}");
            let mut put = |part: &str, values: Array, count: usize| {
                all.push((name(part), vec![count], values));
            };
            let (keys, tokens) = (context.keys.len(), context.tokens.len());
            put("keys", Array::U32(context.keys.clone()), keys);
            put("ends", Array::U32(context.ends.clone()), keys);
            put("tokens", Array::U32(context.tokens.clone()), tokens);
            put("values", Array::F32(context.values.clone()), tokens);
        }
    }
    all
}

fn context_graph(weights: &Weights, context: usize, hidden: usize) -> Vec<u8> {
    let records = &weights.records;
    let gates = 4 * hidden;
    let mut graph = GraphWriter::new("context", "a flow's variables to what its records get");
    let plain = graph.input("context", context);
    let first = graph.node("Relu", &[&plain]);
    let mixed = graph.linear(&first, &records.mix[0], &records.mix[1]);
    let mixed = graph.node("Relu", &[&mixed]);
    let second = graph.linear(&mixed, &records.mix[2], &records.mix[3]);
    let all = graph.node("Add", &[&plain, &second]);
    let to_gates = sigmoids_first(&records.context_gates[0], gates);
    let gates_bias = sigmoids_first(&records.context_gates[1], gates);
    let to_gates = graph.linear(&all, &to_gates, &gates_bias);
    let to_heads = graph.linear(&all, &records.context_heads[0], &records.context_heads[1]);
    let out = graph.concat(&[&to_gates, &to_heads]);
    graph.output(&out, "gates", gates + records.context_heads[1].len());
    graph.finish()
}

fn step_graph(weights: &Weights, hidden: usize, all_heads: usize) -> Vec<u8> {
    let mut graph = GraphWriter::new("step", "what goes into the gates, and state, to heads");
    let x = graph.input("x", 4 * hidden);
    let h = graph.input("h", hidden);
    let c = graph.input("c", hidden);
    let weight = sigmoids_first(&weights.records.hidden, 4 * hidden);
    let all = graph.linear_onto(&h, &weight, 4 * hidden, &x);
    let (h_next, c_next) = graph.lstm_cell(&all, &c, hidden);
    let heads = graph.linear(&h_next, &weights.records.heads, &vec![0.0; all_heads]);
    graph.output(&heads, "heads", all_heads);
    graph.output(&h_next, "h_next", hidden);
    graph.output(&c_next, "c_next", hidden);
    graph.finish()
}
