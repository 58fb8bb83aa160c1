//! From trained weights to a bundle.

mod doppelganger;
mod graph;
mod proto;

pub use doppelganger::{Layouts, graphs};

use std::collections::BTreeMap;

use ns_model_format::manifest::{FORMAT_VERSION, InitialState, Model, Provenance, Timeline};
use ns_model_format::{Bundle, BundleError, Manifest, Schema};

use crate::model::weights::GeneratorWeights;

/// The file of the generator's weights, in training form.
const WEIGHTS: &str = "weights.safetensors";

/// Puts a trained DoppelGANger into a bundle.
///
/// # Errors
/// Weights that do not fit the schema.
pub fn bundle(
    weights: &GeneratorWeights,
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
    let (chunk, graphs) = graphs(weights, layouts, "chunk-0");
    let mut files: BTreeMap<String, Vec<u8>> = graphs.into_iter().collect();
    files.insert(WEIGHTS.to_owned(), safetensors(weights)?);
    let model = Model {
        class: "doppelganger".to_owned(),
        weights: WEIGHTS.to_owned(),
        chunks: vec![chunk],
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

fn safetensors(weights: &GeneratorWeights) -> Result<Vec<u8>, BundleError> {
    let fail = |error: safetensors::SafeTensorError| BundleError::Manifest {
        place: WEIGHTS.to_owned(),
        reason: error.to_string(),
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = weights
        .tensors()
        .into_iter()
        .map(|(name, shape, values)| {
            (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| {
            let dtype = safetensors::Dtype::F32;
            let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes);
            view.map(|view| (name.as_str(), view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(fail)?;
    safetensors::serialize(views, None).map_err(fail)
}
