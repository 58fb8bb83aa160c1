//! A model without a library: the same rules, cheap arithmetic for weights.

pub(crate) mod graphs;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ns_model_format::arrival::ArrivalProcess;
use ns_model_format::chunks::HandedOver;
use ns_model_format::codec::{BitCodec, CategoricalCodec, Codec, FloatCodec, FloatOptions};
use ns_model_format::manifest::{
    AttributesGraph, Chunk, GatesGraph, InitialState, Model, Provenance, State, StepGraph, Tensor,
    Timeline,
};
use ns_model_format::schema::{
    Segmentation, SpanTags, Spanning, TimeEncoding, TimeUnit, Timestamp, TraceKind,
};
use ns_model_format::{Bundle, Column, Field, FieldKind, Manifest, Schema, Value};

use crate::error::RuntimeError;
use crate::networks::Networks;
use crate::render::Render;

pub(crate) const REPEAT: usize = 3;
const NOISE: usize = 2;
const STATE: usize = 2;

/// A bundle of one categorical attribute and one measurement of 4 bits.
pub(crate) fn bundle(encoding: TimeEncoding, segmentation: Option<Segmentation>) -> Bundle {
    chunked_bundle(encoding, segmentation, None, &[])
}

/// The same with chunks that begin at these times of a span of 100 ms; flows
/// of earlier ones begin in the second tenth of each but the first.
pub(crate) fn chunked_bundle(
    encoding: TimeEncoding,
    segmentation: Option<Segmentation>,
    tags: Option<SpanTags>,
    chunk_starts_ns: &[u64],
) -> Bundle {
    let chunks = chunk_starts_ns.len().max(1);
    let time = Column::floats("time", vec![0.0, 50_000.0]);
    let schema = Schema {
        kind: TraceKind::Custom,
        columns: ["kind", "time", "bits"].map(str::to_owned).to_vec(),
        timestamp: Timestamp {
            column: "time".to_owned(),
            unit: TimeUnit::Microseconds,
            decimals: 0,
            encoding,
            codec: Codec::Float(FloatCodec::fit(&time, FloatOptions::default()).unwrap()),
            datetime: None,
        },
        conversations: false,
        attributes: vec![Field {
            missing: None,
            name: "kind".to_owned(),
            kind: FieldKind::Integer,
            codec: Codec::Categorical(
                CategoricalCodec::fit(&Column::ints("kind", vec![10, 20, 30]), None).unwrap(),
            ),
        }],
        measurements: vec![Field {
            missing: None,
            name: "bits".to_owned(),
            kind: FieldKind::Integer,
            codec: Codec::Bit(BitCodec::new("bits", 4).unwrap()),
        }],
        self_norm: false,
        distinct: None,
        longest: None,
        segmentation,
        spanning: tags.map(|tags| Spanning { chunks: chunks as u32, tags }),
        word2vec: BTreeMap::new(),
    };
    let attributes = schema.attribute_layout().fold_layout(1);
    let records = schema.measurement_layout().fold_layout(REPEAT);
    let condition = Tensor::new("condition", schema.condition_dim());
    let state = |name: &str, initial| State {
        input: name.to_owned(),
        output: format!("{name}_next"),
        dim: STATE,
        initial,
    };
    let chunk = Chunk {
        attributes: AttributesGraph {
            file: "none".to_owned(),
            noise: Tensor::new("noise", NOISE),
            condition: condition.clone(),
            attributes: Tensor::new("attributes", attributes.width()),
            layout: attributes.clone(),
        },
        gates: GatesGraph {
            file: "none".to_owned(),
            attributes: Tensor::new("attributes", attributes.width()),
            condition,
            gates: Tensor::new("gates", attributes.width() + 1),
        },
        step: StepGraph {
            file: "none".to_owned(),
            gates: Tensor::new("gates", attributes.width() + 1),
            noise: Tensor::new("noise", NOISE),
            states: vec![state("h", InitialState::Normal), state("c", InitialState::Zero)],
            records: Tensor::new("records", records.width()),
            layout: records,
        },
        handed_over: None,
    };
    let starts: Vec<u64> = (0..300).map(|i| (i / 3) * 1_000_000).collect();
    let manifest = Manifest {
        format: 1,
        schema,
        model: Model {
            class: "fake".to_owned(),
            weights: "none".to_owned(),
            autoregressive: None,
            chunks: (0..chunks)
                .map(|index| Chunk {
                    handed_over: tags.filter(|_| index > 0).and_then(|_| {
                        HandedOver::fit(vec![0.1, 0.15, 0.2], if index == 1 { 0.5 } else { 0.0 })
                    }),
                    ..chunk.clone()
                })
                .collect(),
        },
        timeline: Timeline {
            origin_ns: 0,
            flows: 300,
            records: 1_000,
            arrivals: ArrivalProcess::fit(&starts, 100_000_000),
            chunk_starts_ns: chunk_starts_ns.to_vec(),
        },
        provenance: Provenance::default(),
        files: BTreeMap::new(),
    };
    Bundle::new(manifest, BTreeMap::from([("none".to_owned(), Vec::new())])).unwrap()
}

/// Rows depend on nothing but themselves, chaotically.
#[derive(Clone, Debug)]
pub(crate) struct Fake {
    pub(crate) chunk: Chunk,
    /// Chance that a record is a flow's last.
    pub(crate) stop: f32,
    pub(crate) states: Vec<Vec<f32>>,
    pub(crate) records: Vec<f32>,
    /// Fails in so many steps, with a panic if `panics`.
    pub(crate) fails_in: Option<usize>,
    pub(crate) panics: bool,
    /// Every record is NaN.
    pub(crate) broken: bool,
    /// Every attribute is NaN.
    pub(crate) broken_attributes: bool,
    /// Its chunk, which its records tell: networks of chunks differ.
    pub(crate) number: usize,
    /// What the rows of gates were computed from.
    pub(crate) asked: Option<Arc<Mutex<Vec<Asked>>>>,
}

/// A row of a gates network's input: the chunk, attributes, condition.
pub(crate) type Asked = (usize, Vec<f32>, Vec<f32>);

impl Fake {
    pub(crate) fn new(bundle: &Bundle, stop: f32) -> Fake {
        Fake {
            chunk: bundle.manifest().model.chunks[0].clone(),
            stop,
            states: vec![Vec::new(); 2],
            records: Vec::new(),
            fails_in: None,
            panics: false,
            broken: false,
            broken_attributes: false,
            number: 0,
            asked: None,
        }
    }
}

/// A number in [0, 1) that jumps for every small change.
fn mix(values: &[f32]) -> f32 {
    let hash = values.iter().fold(0x811c_9dc5_u32, |hash, value| {
        (hash ^ value.to_bits()).wrapping_mul(0x0100_0193).rotate_left(11)
    });
    (hash.wrapping_mul(0x9E37_79B1) >> 8) as f32 / 16_777_216.0
}

impl Networks for Fake {
    fn attributes(
        &mut self,
        rows: usize,
        noise: &[f32],
        condition: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError> {
        let width = self.chunk.attributes.attributes.dim;
        let condition = condition.chunks_exact(condition.len() / rows);
        out.clear();
        for (noise, condition) in noise.chunks_exact(NOISE).zip(condition) {
            let row = [noise, condition].concat();
            out.extend((0..width).map(|column| mix(&[&row[..], &[column as f32]].concat())));
        }
        if self.broken_attributes {
            out.fill(f32::NAN);
        }
        Ok(())
    }

    fn gates(
        &mut self,
        rows: usize,
        attributes: &[f32],
        condition: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError> {
        out.clear();
        let condition = condition.chunks_exact(condition.len() / rows);
        let attributes = attributes.chunks_exact(self.chunk.gates.attributes.dim);
        for (attributes, condition) in attributes.zip(condition) {
            out.extend_from_slice(attributes);
            // Attributes must come discrete.
            assert!(attributes.iter().all(|value| [0.0, 1.0].contains(value)));
            out.push(mix(&[condition, &vec![1.0; self.number]].concat()));
            if let Some(asked) = &self.asked {
                let row = (self.number, attributes.to_vec(), condition.to_vec());
                asked.lock().unwrap().push(row);
            }
        }
        Ok(())
    }

    fn resize(&mut self, rows: usize) -> Result<(), RuntimeError> {
        self.states.iter_mut().for_each(|state| state.resize(rows * STATE, 0.0));
        Ok(())
    }

    fn state(&mut self, index: usize) -> Result<&mut [f32], RuntimeError> {
        Ok(&mut self.states[index])
    }

    fn step(&mut self, gates: &[f32], noise: &[f32]) -> Result<(), RuntimeError> {
        if let Some(left) = &mut self.fails_in {
            assert!(*left > 0 || !self.panics, "told to");
            if *left == 0 {
                let (file, reason) = ("none".to_owned(), "told to".to_owned());
                return Err(RuntimeError::Run { file, reason });
            }
            *left -= 1;
        }
        let rows = noise.len() / NOISE;
        assert!(self.states.iter().all(|state| state.len() == rows * STATE));
        let layout = &self.chunk.step.layout;
        self.records.clear();
        self.records.resize(rows * layout.width(), 0.0);
        let gates_dim = self.chunk.step.gates.dim;
        for row in 0..rows {
            let gates = &gates[row * gates_dim..][..gates_dim];
            let noise = &noise[row * NOISE..][..NOISE];
            let (h, c) = (self.states[0][row * STATE], self.states[1][row * STATE]);
            let h = mix(&[gates, noise, &[h, c]].concat());
            self.states[0][row * STATE] = h;
            self.states[1][row * STATE] = c + 1.0;
            let out = &mut self.records[row * layout.width()..][..layout.width()];
            for record in 0..REPEAT {
                let columns = layout.columns(record);
                for (value, &column) in columns.iter().enumerate() {
                    out[column] = mix(&[h, record as f32, value as f32]);
                }
                // Gaps over seven decades, so that some flows hold the watermark back.
                out[columns[0]] = out[columns[0]].powi(12);
                let flag = columns[columns.len() - 1];
                out[flag] = f32::from(out[flag] >= self.stop);
            }
        }
        if self.broken {
            self.records.fill(f32::NAN);
            self.states.iter_mut().for_each(|state| state.fill(f32::NAN));
        }
        Ok(())
    }

    fn records(&self) -> Result<&[f32], RuntimeError> {
        Ok(&self.records)
    }
}

/// Keeps what it was told.
#[derive(Clone, Debug)]
pub(crate) struct Echo;

impl Render for Echo {
    type Flow = Vec<Value>;
    type Item = (Vec<Value>, Vec<Value>);

    fn begin_flow(&mut self, _flow: u64, attributes: &[Value]) -> Vec<Value> {
        attributes.to_vec()
    }

    fn record(&mut self, flow: &mut Vec<Value>, _time_ns: u64, values: &[Value]) -> Self::Item {
        (flow.clone(), values.to_vec())
    }
}
