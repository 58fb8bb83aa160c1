//! What scheduling needs to know of a model class: widths, noise, states, and how rows
//! are read.

use std::sync::Arc;

use ns_model_format::autoregressive::Autoregressive;
use ns_model_format::manifest::{Chunk, InitialState};
use ns_model_format::random::Stream;
use ns_model_format::schema::TimeEncoding;
use ns_model_format::{Manifest, Schema};

use crate::decode::{AttributeDecoder, RecordDecoder};

/// The noise that a network is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Noise {
    pub(crate) dim: usize,
    pub(crate) kind: NoiseKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoiseKind {
    /// Standard normal.
    Normal,
    /// From 0 to 1.
    Uniform,
}

impl Noise {
    /// Fills a row.
    pub(crate) fn fill(self, mut stream: Stream, row: &mut [f32]) {
        match self.kind {
            NoiseKind::Normal => stream.fill_normal(row),
            NoiseKind::Uniform => stream.fill_uniform(row),
        }
    }

    /// Blocks of four 32-bit draws that a row takes.
    pub(crate) fn blocks(self) -> u32 {
        match self.kind {
            NoiseKind::Normal => blocks(self.dim),
            NoiseKind::Uniform => u32::try_from(self.dim.div_ceil(4)).unwrap_or(u32::MAX),
        }
    }
}

/// Blocks of four 32-bit draws that so many normals take.
pub(crate) fn blocks(normals: usize) -> u32 {
    u32::try_from(normals.next_multiple_of(2).div_ceil(4)).unwrap_or(u32::MAX)
}

/// A state tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateForm {
    pub(crate) dim: usize,
    pub(crate) initial: InitialState,
}

/// What a lane's networks take and give.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub(crate) attribute_noise: Noise,
    pub(crate) step_noise: Noise,
    pub(crate) gates_dim: usize,
    pub(crate) states: Vec<StateForm>,
    pub(crate) time: TimeEncoding,
    class: Class,
}

#[derive(Clone, Debug)]
enum Class {
    /// Vectors, folded.
    Folded(Arc<Chunk>),
    Tokens(Arc<Autoregressive>),
}

impl Form {
    /// One for each lane of a model.
    pub(crate) fn of(manifest: &Manifest) -> Vec<Form> {
        match &manifest.model.autoregressive {
            Some(model) => vec![Form::autoregressive(model)],
            None => {
                let time = manifest.schema.timestamp.encoding;
                manifest.model.chunks.iter().map(|chunk| Form::folded(chunk, time)).collect()
            }
        }
    }

    fn folded(chunk: &Chunk, time: TimeEncoding) -> Form {
        let normal = |dim| Noise { dim, kind: NoiseKind::Normal };
        let states = chunk.step.states.iter();
        Form {
            attribute_noise: normal(chunk.attributes.noise.dim),
            step_noise: normal(chunk.step.noise.dim),
            gates_dim: chunk.step.gates.dim,
            states: states.map(|s| StateForm { dim: s.dim, initial: s.initial }).collect(),
            time,
            class: Class::Folded(Arc::new(chunk.clone())),
        }
    }

    fn autoregressive(model: &Autoregressive) -> Form {
        let uniform = |dim| Noise { dim, kind: NoiseKind::Uniform };
        let zeros = |dim| StateForm { dim, initial: InitialState::Zero };
        let widths = crate::autoregressive::Widths::of(model);
        Form {
            attribute_noise: uniform(2 * model.attributes.len()),
            step_noise: uniform(2 * model.heads.len()),
            gates_dim: widths.gates(),
            states: vec![zeros(model.hidden), zeros(model.hidden), zeros(widths.progress())],
            // A gap is drawn, whatever the trace has.
            time: TimeEncoding::Interarrival,
            class: Class::Tokens(Arc::new(model.clone())),
        }
    }

    /// The model, if it is autoregressive.
    pub(crate) fn tokens(&self) -> Option<&Autoregressive> {
        match &self.class {
            Class::Tokens(model) => Some(model),
            Class::Folded(_) => None,
        }
    }

    pub(crate) fn attribute_decoder(&self, schema: &Schema) -> AttributeDecoder {
        match &self.class {
            Class::Folded(chunk) => AttributeDecoder::new(schema, &chunk.attributes.layout),
            Class::Tokens(model) => AttributeDecoder::of_tokens(schema, model),
        }
    }

    pub(crate) fn record_decoder(&self, schema: &Schema) -> RecordDecoder {
        match &self.class {
            Class::Folded(chunk) => RecordDecoder::new(schema, &chunk.step.layout),
            Class::Tokens(_) => RecordDecoder::of_tokens(schema),
        }
    }
}
