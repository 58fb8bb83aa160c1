//! From trained weights to a bundle.

pub(crate) mod autoregressive;
mod doppelganger;
mod graph;
mod proto;

pub use doppelganger::{Layouts, graphs};

use std::collections::BTreeMap;

use ns_model_format::chunks::HandedOver;
use ns_model_format::manifest::{Chunk, FORMAT_VERSION, InitialState, Model, Provenance, Timeline};
use ns_model_format::{Bundle, BundleError, Manifest, Schema};

use crate::arrays::Array;
use crate::model::weights::GeneratorWeights;

/// The file of the generator's weights, in training form.
const WEIGHTS: &str = "weights.safetensors";

/// What was trained for one chunk of the span.
#[derive(Clone, Debug)]
pub struct ChunkModel {
    /// The generator.
    pub weights: GeneratorWeights,
    /// How flows of earlier chunks go on in it.
    pub handed_over: Option<HandedOver>,
}

/// Puts trained DoppelGANgers, one a chunk of the timeline, into a bundle.
///
/// # Errors
/// Weights that do not fit the schema, or chunks that do not fit the timeline.
pub fn bundle(
    chunks: &[ChunkModel],
    sample_len: usize,
    initial: InitialState,
    schema: Schema,
    timeline: Timeline,
    provenance: Provenance,
) -> Result<Bundle, BundleError> {
    let (attributes, measurements) = (schema.attribute_layout(), schema.measurement_layout());
    let layouts = Layouts {
        attributes: &attributes,
        measurements: &measurements,
        condition_dim: schema.condition_dim(),
        sample_len,
        initial,
    };
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut described = Vec::with_capacity(chunks.len());
    for (index, model) in chunks.iter().enumerate() {
        let (chunk, graphs) = graphs(&model.weights, layouts, &format!("chunk-{index}"));
        files.extend(graphs);
        described.push(Chunk { handed_over: model.handed_over.clone(), ..chunk });
    }
    files.insert(WEIGHTS.to_owned(), safetensors(of_chunks(chunks))?);
    let model = Model {
        class: "doppelganger".to_owned(),
        weights: WEIGHTS.to_owned(),
        chunks: described,
        autoregressive: None,
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

/// Tensors by name, with their shape.
type Tensors = Vec<(String, Vec<usize>, Array)>;

/// The weights of all chunks; where there are several, each has its own folder
/// of names.
fn of_chunks(chunks: &[ChunkModel]) -> Tensors {
    let folder = |index: usize| match chunks.len() {
        1 => String::new(),
        _ => format!("chunk-{index}/"),
    };
    let all = chunks.iter().enumerate().flat_map(|(index, chunk)| {
        let tensors = chunk.weights.tensors().into_iter();
        tensors.map(move |(name, shape, values)| {
            (folder(index) + &name, shape, Array::F32(values.to_vec()))
        })
    });
    all.collect()
}

fn safetensors(tensors: Tensors) -> Result<Vec<u8>, BundleError> {
    let fail = |error: safetensors::SafeTensorError| BundleError::Manifest {
        place: WEIGHTS.to_owned(),
        reason: error.to_string(),
    };
    let tensors: Vec<_> =
        tensors.into_iter().map(|(name, shape, values)| (name, shape, values.bytes())).collect();
    let views = tensors
        .iter()
        .map(|(name, shape, (dtype, _, bytes))| {
            let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes);
            view.map(|view| (name.as_str(), view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(fail)?;
    safetensors::serialize(views, None).map_err(fail)
}
