//! `manifest.json`: everything about a model that is not a weight.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arrival::ArrivalProcess;
use crate::autoregressive::Autoregressive;
use crate::chunks::{Chunks, HandedOver};
use crate::layout::FoldedLayout;
use crate::schema::Schema;

/// The format version that this crate writes. It reads this and all before.
pub const FORMAT_VERSION: u32 = 6;

/// The contents of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] at the time of writing.
    pub format: u32,
    /// The fields and their encoders.
    pub schema: Schema,
    /// The networks.
    pub model: Model,
    /// The trained span and when flows start in it.
    pub timeline: Timeline,
    /// Where the model comes from.
    pub provenance: Provenance,
    /// Every other file of the bundle, by path. Filled in by [`crate::Bundle::new`].
    #[serde(default)]
    pub files: BTreeMap<String, FileEntry>,
}

/// A file of the bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its contents, lower-case hexadecimal.
    pub sha256: String,
}

/// The networks of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The model class, `doppelganger` or `autoregressive`. It says how the graphs were
    /// trained; how they are run is all in [`Chunk`] or [`Autoregressive`].
    pub class: String,
    /// The safetensors file with the generator's weights, in training form.
    pub weights: String,
    /// One set of graphs a chunk of the trace, in order of time; at least one, unless
    /// the model is autoregressive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<Chunk>,
    /// The graphs of an autoregressive model, for the whole span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoregressive: Option<Autoregressive>,
}

/// The graphs that generate one chunk of the trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunk {
    /// noise, condition -> attributes.
    pub attributes: AttributesGraph,
    /// attributes, condition -> what every step of the flow is given, once a flow.
    pub gates: GatesGraph,
    /// gates, noise, states -> records, states.
    pub step: StepGraph,
    /// How flows that started in earlier chunks go on here, if any did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over: Option<HandedOver>,
}

/// An input or output of a graph: `[batch, dim]` of float32.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Its name in the graph.
    pub name: String,
    /// Its width.
    pub dim: usize,
}

impl Tensor {
    /// A tensor of `[batch, dim]`.
    #[must_use]
    pub fn new(name: &str, dim: usize) -> Tensor {
        Tensor { name: name.to_owned(), dim }
    }
}

/// The graph that generates a flow's attributes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributesGraph {
    /// The ONNX file's path in the bundle.
    pub file: String,
    /// Input: standard normal noise.
    pub noise: Tensor,
    /// Input: [`Schema::condition_dim`] values.
    pub condition: Tensor,
    /// Output: the attributes after their activations.
    pub attributes: Tensor,
    /// The output's columns: the folded [`Schema::attribute_layout`].
    pub layout: FoldedLayout,
}

/// The graph that turns a flow's attributes into what its steps are given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatesGraph {
    /// The ONNX file's path in the bundle.
    pub file: String,
    /// Input: the attributes in the columns of [`AttributesGraph::layout`],
    /// made discrete: a folded two-way output is 0 or 1 (1 if above 0.5), a
    /// softmax is 1 at its first largest value and 0 elsewhere, others are as generated.
    pub attributes: Tensor,
    /// Input: [`Schema::condition_dim`] values.
    pub condition: Tensor,
    /// Output.
    pub gates: Tensor,
}

/// The graph that generates a flow's next records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepGraph {
    /// The ONNX file's path in the bundle.
    pub file: String,
    /// Input: [`GatesGraph::gates`].
    pub gates: Tensor,
    /// Input: standard normal noise, drawn anew every step.
    pub noise: Tensor,
    /// Inputs and outputs that a step hands to the next.
    pub states: Vec<State>,
    /// Output: the records after their activations.
    pub records: Tensor,
    /// The output's columns: the folded [`Schema::measurement_layout`],
    /// `repeat` records a step.
    pub layout: FoldedLayout,
}

/// A state tensor of a step graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Name of the input.
    pub input: String,
    /// Name of the output.
    pub output: String,
    /// Width of both.
    pub dim: usize,
    /// What a flow begins with.
    pub initial: InitialState,
}

/// What a flow's state begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitialState {
    /// Standard normal noise.
    Normal,
    /// Zeros.
    Zero,
}

/// The trained span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeline {
    /// When the span began, in nanoseconds since the epoch.
    pub origin_ns: i64,
    /// Flows that the model learned from.
    pub flows: u64,
    /// Records that the model learned from.
    pub records: u64,
    /// When flows start.
    pub arrivals: ArrivalProcess,
    /// Where the chunks of the span begin, in nanoseconds from its beginning;
    /// empty for one chunk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunk_starts_ns: Vec<u64>,
}

impl Timeline {
    /// The chunks of the span.
    #[must_use]
    pub fn chunks(&self) -> Chunks {
        Chunks::new(&self.chunk_starts_ns, self.arrivals.span_ns())
    }
}

/// Where the model comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// `ns-train` and its version.
    pub trainer: String,
    /// The source revision that it was built from, if known.
    pub revision: Option<String>,
    /// The input's file name, without its folder.
    pub input: String,
    /// SHA-256 of the input.
    pub input_sha256: String,
    /// The configuration as resolved: every key with the value used.
    pub config: serde_json::Value,
    /// The seed of training.
    pub seed: u64,
    /// Iterations run.
    pub iterations: u64,
    /// Input records that were not used, by reason.
    pub not_used: BTreeMap<String, u64>,
    /// The privacy budget spent, `null` if training was not private.
    pub privacy: Option<serde_json::Value>,
    /// How the model was chosen, where flows were held out to choose it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// What happened in training that its reader should know, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
}

/// How a model was chosen among those that training passed through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The share of the input's flows that was held out.
    pub held_out_share: f64,
    /// Records of the flows that candidates were compared with.
    pub held_out_records: u64,
    /// Every candidate.
    pub candidates: Vec<Candidate>,
}

/// A model that could have been chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Which model of a grid; `model` without one.
    pub cell: String,
    /// Iterations of training it had, in all chunks.
    pub iteration: u64,
    /// Median R against the flows held out; `None` if it could not be compared with them.
    pub median_r: Option<f64>,
    /// 95th percentile of R.
    pub p95_r: Option<f64>,
    /// How many of its flows had attributes of their own, beside how many of the real ones.
    pub unique: Option<f64>,
    /// Whether so few had that the model had collapsed, and was not to be chosen.
    pub collapsed: bool,
    /// Whether this is the model.
    pub chosen: bool,
}

/// Limits on what a manifest may ask the runtime to allocate.
const MOST_DIM: usize = 1 << 20;
const MOST_RECORDS_A_STEP: usize = 4096;
const MOST_CHUNKS: usize = 10_000;

impl Manifest {
    /// Checks that all parts fit one another, so that nothing read from a
    /// bundle is indexed unchecked. Returns the place and what is wrong there.
    pub(crate) fn validate(&self) -> Result<(), (String, String)> {
        let at = |place: &str| {
            let place = place.to_owned();
            move |reason: String| (place.clone(), reason)
        };
        // Before anything is sized by it.
        if self.schema.spanning.is_some_and(|spanning| spanning.chunks as usize > MOST_CHUNKS) {
            let reason = format!("more than {MOST_CHUNKS} chunks");
            return Err(at("schema.spanning")(reason));
        }
        self.schema.validate().map_err(at("schema"))?;
        self.timeline.arrivals.validate().map_err(at("timeline.arrivals"))?;
        if let Some(autoregressive) = &self.model.autoregressive {
            return self.validate_autoregressive(autoregressive);
        }
        if self.model.chunks.is_empty() || self.model.chunks.len() > MOST_CHUNKS {
            let found = self.model.chunks.len();
            return Err(at("model.chunks")(format!("{found} chunks; expected 1 to {MOST_CHUNKS}")));
        }
        let chunks = self.timeline.chunks();
        chunks.validate().map_err(at("timeline.chunk_starts_ns"))?;
        if chunks.count() != self.model.chunks.len() {
            let (begin, found) = (chunks.count(), self.model.chunks.len());
            return Err(at("model.chunks")(format!("{found} chunks; {begin} begin in the span")));
        }
        if let Some(spanning) = self.schema.spanning
            && spanning.chunks as usize != chunks.count()
        {
            let (found, expected) = (spanning.chunks, chunks.count());
            let reason = format!("flows span {found} chunks; the model has {expected}");
            return Err(at("schema.spanning")(reason));
        }
        if self.schema.distinct.is_some() && chunks.count() > 1 {
            let reason = "`distinct` is for one chunk".to_owned();
            return Err(at("schema.distinct")(reason));
        }
        self.file_exists(&self.model.weights).map_err(at("model.weights"))?;
        for (index, chunk) in self.model.chunks.iter().enumerate() {
            let place = format!("model.chunks[{index}]");
            self.validate_chunk(chunk).map_err(at(&place))?;
        }
        Ok(())
    }

    fn validate_autoregressive(&self, model: &Autoregressive) -> Result<(), (String, String)> {
        let fail = |reason: String| ("model.autoregressive".to_owned(), reason);
        if !self.model.chunks.is_empty() || self.timeline.chunks().count() != 1 {
            return Err(fail("there are chunks beside it".to_owned()));
        }
        let schema = &self.schema;
        if schema.self_norm || schema.segmentation.is_some() || schema.spanning.is_some() {
            return Err(fail("flows are cut, or on scales of their own".to_owned()));
        }
        if schema.longest.is_some() {
            let reason = "how many records a flow has is planned: `longest` is for others";
            return Err(fail(reason.to_owned()));
        }
        if schema.distinct.is_some() {
            return Err(fail(
                "no two flows are alike in any case: `distinct` is for others".to_owned(),
            ));
        }
        self.file_exists(&self.model.weights).map_err(fail)?;
        model
            .files()
            .chain([&model.tables])
            .try_for_each(|file| self.file_exists(file))
            .map_err(fail)?;
        model.validate(schema).map_err(fail)
    }

    fn file_exists(&self, file: &str) -> Result<(), String> {
        let known = self.files.contains_key(file);
        known.then_some(()).ok_or_else(|| format!("file `{file}` is not in the bundle"))
    }

    fn validate_chunk(&self, chunk: &Chunk) -> Result<(), String> {
        let Chunk { attributes, gates, step, handed_over } = chunk;
        if let Some(handed_over) = handed_over {
            handed_over.validate()?;
        }
        for file in [&attributes.file, &gates.file, &step.file] {
            self.file_exists(file)?;
        }
        let expect = |what: &str, found: usize, expected: usize| {
            if found == expected {
                return Ok(());
            }
            Err(format!("{what} has {found} values, the fields need {expected}"))
        };
        let condition = self.schema.condition_dim();
        expect("attributes.condition", attributes.condition.dim, condition)?;
        expect("gates.condition", gates.condition.dim, condition)?;
        let same_layout = |what: &str, layout: &FoldedLayout, expected: &crate::Layout| {
            if layout.repeat == 0 || layout.repeat > MOST_RECORDS_A_STEP || !layout.is_tiling() {
                return Err(format!("{what}.layout does not tile its columns"));
            }
            if *layout != expected.fold_layout(layout.repeat) {
                return Err(format!("{what}.layout is not that of the fields"));
            }
            Ok(())
        };
        same_layout("attributes", &attributes.layout, &self.schema.attribute_layout())?;
        same_layout("step", &step.layout, &self.schema.measurement_layout())?;
        expect("attributes.layout.repeat", attributes.layout.repeat, 1)?;
        expect("attributes.attributes", attributes.attributes.dim, attributes.layout.width())?;
        expect("gates.attributes", gates.attributes.dim, attributes.layout.width())?;
        expect("step.gates", step.gates.dim, gates.gates.dim)?;
        expect("step.records", step.records.dim, step.layout.width())?;
        let dims = [attributes.noise.dim, step.noise.dim, gates.gates.dim, step.records.dim];
        let state_dims = step.states.iter().map(|state| state.dim);
        match dims.into_iter().chain(state_dims).find(|&dim| dim == 0 || dim > MOST_DIM) {
            Some(dim) => Err(format!("a tensor has {dim} values; expected 1 to {MOST_DIM}")),
            None => Ok(()),
        }
    }
}
