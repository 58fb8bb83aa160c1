//! The networks of an autoregressive model: small graphs, and between them tables that
//! tokens are looked up in and draws from what the graphs say.
//!
//! docs/bundle-format.md is normative. Rows between the networks, of float32:
//! attributes are the N variables' tokens, then N places within bins; gates are the
//! context graph's output, the number of records, the planned microseconds, those that are left of the span, three tokens of
//! each joint head (what it is given, its support, how often it begins anew), and token and place of each constant
//! measurement.

mod alike;
mod chain;
mod drafts;
mod evidence;
mod head;
mod joint;
mod records;
mod sample;
mod set;
mod tables;
mod turn;
mod wish;

use std::path::Path;
use std::sync::Arc;

use ns_model_format::autoregressive::{Autoregressive, Variable};
use ns_model_format::manifest::Tensor;
use ns_model_format::{Bundle, Schema};

use crate::device::Device;
use crate::error::RuntimeError;
use crate::graphs::{Dense, DenseGraph, InLanes, LanesGraph, Loader, Recurrent, RecurrentGraph};
use crate::networks::Networks;
use chain::Chain;
pub(crate) use chain::forced_places;
pub use drafts::Drafts;
pub(crate) use drafts::Rule;
use records::Records;
pub(crate) use records::{BEFORE_SAID, SAID};
pub(crate) use tables::Tables;
pub(crate) use wish::Wishes;

/// Widths of a model's rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Widths {
    /// 4 H.
    lstm: usize,
    /// E.
    head: usize,
    heads: usize,
    joints: usize,
    joint_progress: usize,
    stepping: usize,
    constants: usize,
}

/// What is kept of a flow's time.
const CLOCK: usize = 5;

impl Widths {
    pub(crate) fn of(model: &Autoregressive) -> Widths {
        Widths {
            lstm: 4 * model.hidden,
            head: model.head,
            heads: model.heads.len(),
            joints: model.heads.iter().filter(|head| joint::is_joint(head)).count(),
            joint_progress: model.heads.iter().map(joint::progress).sum(),
            stepping: model.heads.iter().filter(|head| !head::steps(head).is_empty()).count(),
            constants: model.constants().count(),
        }
    }

    /// The context graph's output: for the LSTM, then for the heads.
    fn context(self) -> usize {
        self.lstm + self.heads * self.head
    }

    /// A row of gates. Its number of records is at [`Self::context`].
    pub(crate) fn gates(self) -> usize {
        self.constants_from() + 2 * self.constants
    }

    /// Where in it constant measurements begin.
    fn constants_from(self) -> usize {
        self.given() + joint::GIVEN * self.joints
    }

    /// Where in it the tokens of each joint head begin: what it is given, its support, how often
    /// it begins anew.
    fn given(self) -> usize {
        self.context() + 3
    }

    /// What is kept of a flow beside the LSTM's states: one more than each head's token,
    /// the next record's index, the time since the first as seconds and microseconds, the
    /// microseconds of the gaps as drawn and of the longest of them, what each joint head keeps ([`joint::progress`]),
    /// and for each head that says steps [`SAID`] numbers of the value before.
    pub(crate) fn progress(self) -> usize {
        self.steps_from() + SAID * self.stepping
    }

    /// Where in it what joint heads keep begins.
    fn joints_from(self) -> usize {
        self.clock() + CLOCK
    }

    /// Where in it what heads that say steps keep begins.
    fn steps_from(self) -> usize {
        self.joints_from() + self.joint_progress
    }

    /// Where in it the next record's index is.
    fn clock(self) -> usize {
        self.heads
    }
}

/// All graphs of a model.
pub(crate) struct Graphs<L, G, S> {
    /// Each variable's; the first has none.
    pub(crate) attributes: Vec<Option<L>>,
    pub(crate) context: G,
    pub(crate) step: S,
    pub(crate) heads: Vec<L>,
}

/// A model, ready to be run.
pub(crate) struct AutoregressiveEngine<L, G, S> {
    chain: Chain<L, G>,
    records: Records<L, S>,
}

impl AutoregressiveEngine<LanesGraph, DenseGraph, RecurrentGraph> {
    /// Loads a bundle's graphs.
    ///
    /// # Errors
    /// A graph that is not what the manifest says; no ONNX Runtime, if a graph needs it; no such
    /// device.
    pub(crate) fn load(
        bundle: &Bundle,
        model: &Autoregressive,
        tables: Arc<Tables>,
        onnxruntime: Option<&Path>,
        device: Device,
    ) -> Result<Self, RuntimeError> {
        let mut loader = Loader::new(bundle, onnxruntime, device);
        let widths = Widths::of(model);
        let (sum, u) = (Tensor::new("sum", model.units), Tensor::new("u", model.head));
        let logits = |size| Tensor::new("logits", size);
        let mut attribute = |variable: &Variable| {
            let file = variable.file.as_ref();
            file.map(|file| {
                loader.in_lanes(file, std::slice::from_ref(&sum), &logits(variable.size))
            })
            .transpose()
        };
        let graphs = Graphs {
            attributes: model.attributes.iter().map(&mut attribute).collect::<Result<_, _>>()?,
            context: loader.dense(
                &model.context_file,
                &[Tensor::new("context", model.context)],
                &Tensor::new("gates", widths.context()),
            )?,
            step: loader.recurrent(
                &model.step_file,
                &[Tensor::new("x", widths.lstm)],
                &Tensor::new("heads", widths.heads * widths.head),
                &[("h", "h_next", model.hidden), ("c", "c_next", model.hidden)],
            )?,
            heads: model
                .heads
                .iter()
                .map(|head| {
                    loader.in_lanes(&head.file, std::slice::from_ref(&u), &logits(head.size))
                })
                .collect::<Result<_, _>>()?,
        };
        let manifest = bundle.manifest();
        let span_ns = manifest.timeline.arrivals.span_ns();
        Ok(AutoregressiveEngine::new(model, &manifest.schema, span_ns, tables, graphs))
    }
}

impl<L: InLanes, G: Dense, S: Recurrent> AutoregressiveEngine<L, G, S> {
    /// `model` is one of a bundle that has been checked.
    pub(crate) fn new(
        model: &Autoregressive,
        schema: &Schema,
        span_ns: u64,
        tables: Arc<Tables>,
        Graphs { attributes, context, step, heads }: Graphs<L, G, S>,
    ) -> Self {
        AutoregressiveEngine {
            chain: Chain::new(model, span_ns, tables.clone(), attributes, context),
            records: Records::new(model, schema, tables, step, heads),
        }
    }
}

#[cfg(test)]
impl<L, G, S> AutoregressiveEngine<L, G, S> {
    fn context(&mut self) -> &mut G {
        self.chain.context()
    }
}

impl<L: InLanes, G: Dense, S: Recurrent> Networks for AutoregressiveEngine<L, G, S> {
    fn attributes(
        &mut self,
        rows: usize,
        noise: &[f32],
        condition: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError> {
        debug_assert_eq!(condition.len() % rows.max(1), 0);
        let rule = Rule::All;
        let drafts = Drafts { each: 1, noise, condition, wishes: &Wishes::default(), rule };
        self.chain.draw(&drafts, out, &mut Vec::new())
    }

    fn drafts(
        &mut self,
        drafts: &Drafts<'_>,
        out: &mut Vec<f32>,
        logs: &mut Vec<f64>,
    ) -> Result<(), RuntimeError> {
        self.chain.draw(drafts, out, logs)
    }

    fn gates(
        &mut self,
        rows: usize,
        attributes: &[f32],
        condition: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError> {
        self.chain.gates(rows, attributes, condition, out)
    }

    fn resize(&mut self, rows: usize) -> Result<(), RuntimeError> {
        self.records.resize(rows)
    }

    fn state(&mut self, index: usize) -> Result<&mut [f32], RuntimeError> {
        self.records.state(index)
    }

    fn step(&mut self, gates: &[f32], noise: &[f32]) -> Result<(), RuntimeError> {
        self.records.step(gates, noise)
    }

    fn records(&self) -> Result<&[f32], RuntimeError> {
        Ok(self.records.rows())
    }
}

#[cfg(test)]
pub(crate) use tests::bundle as test_bundle;
#[cfg(test)]
mod tests;
