//! Models without training.

use std::collections::BTreeMap;

use ns_model_format::arrival::ArrivalProcess;
use ns_model_format::codec::{BitCodec, CategoricalCodec, Choice, Codec, FloatCodec, FloatOptions};
use ns_model_format::manifest::{InitialState, Provenance, Timeline};
use ns_model_format::random::{Purpose, Stream};
use ns_model_format::schema::{
    FieldKind, TimeEncoding, TimeUnit, Timestamp, TraceKind, packet_field,
};
use ns_model_format::{Bundle, Column, Field, Schema};
use ns_trainer::export::{self, ChunkModel};
use ns_trainer::model::weights::{BatchNorm, GeneratorWeights, HiddenLayer, Linear};

/// Sizes of a random model.
#[derive(Clone, Copy, Debug)]
pub struct SampleModel {
    /// Seed of its weights.
    pub seed: u64,
    /// Records a step.
    pub sample_len: usize,
    /// LSTM width.
    pub hidden: usize,
    /// Attribute generator width.
    pub units: usize,
    /// Added to the generation flag's yes: the larger, the longer the flows.
    pub goes_on_bias: f32,
    /// Whether float measurements are on each flow's own scale.
    pub self_norm: bool,
}

impl SampleModel {
    /// Of the sizes that generation is measured with.
    #[must_use]
    pub fn of_bench(goes_on_bias: f32) -> SampleModel {
        SampleModel {
            seed: 1,
            sample_len: 10,
            hidden: 100,
            units: 512,
            goes_on_bias,
            self_norm: false,
        }
    }
}

impl Default for SampleModel {
    fn default() -> SampleModel {
        SampleModel {
            seed: 1,
            sample_len: 5,
            hidden: 24,
            units: 32,
            goes_on_bias: 1.0,
            self_norm: false,
        }
    }
}

/// A packet model with random weights: structure without training.
#[must_use]
pub fn sample_bundle(model: SampleModel) -> Bundle {
    let schema = packet_schema(model);
    let weights = random_weights(&schema, model);
    let starts: Vec<u64> = (0..500).map(|flow| flow * 20_000_000).collect();
    let timeline = Timeline {
        origin_ns: 1_700_000_000_000_000_000,
        flows: 500,
        records: 5000,
        arrivals: ArrivalProcess::fit(&starts, 10_000_000_000),
        chunk_starts_ns: Vec::new(),
    };
    let provenance = Provenance { trainer: "ns-tests".to_owned(), ..Provenance::default() };
    let initial = InitialState::Normal;
    let chunk = ChunkModel { weights, handed_over: None };
    export::bundle(&[chunk], model.sample_len, initial, schema, timeline, provenance)
        .expect("a bundle whose parts fit")
}

fn packet_schema(model: SampleModel) -> Schema {
    let bits = |name: &str, n_bits, kind| Field {
        name: name.to_owned(),
        kind,
        codec: Codec::Bit(BitCodec::new(name, n_bits).expect("a legal width")),
        missing: None,
    };
    let float = |name: &str, low: i64, high: i64| {
        let options = FloatOptions { integer: true, ..FloatOptions::default() };
        let column = Column::ints(name, vec![low, high]);
        let codec = FloatCodec::fit(&column, options).expect("two numbers");
        Field {
            name: name.to_owned(),
            kind: FieldKind::Integer,
            codec: Codec::Float(codec),
            missing: None,
        }
    };
    let choices = |name: &str, values: &[i64]| {
        let choices: Vec<Choice> = values.iter().map(|&value| Choice::Int(value)).collect();
        let column = Column::ints(name, values.to_vec());
        let codec = CategoricalCodec::fit(&column, Some(&choices)).expect("distinct choices");
        Field {
            name: name.to_owned(),
            kind: FieldKind::Integer,
            codec: Codec::Categorical(codec),
            missing: None,
        }
    };
    let gaps = Column::floats(packet_field::TIME, vec![0.0, 5e5]);
    let options = FloatOptions { log1p: true, ..FloatOptions::default() };
    let timestamp = Timestamp {
        column: packet_field::TIME.to_owned(),
        unit: TimeUnit::Microseconds,
        decimals: 0,
        encoding: TimeEncoding::Interarrival,
        codec: Codec::Float(FloatCodec::fit(&gaps, options).expect("two numbers")),
        datetime: None,
    };
    let attributes = vec![
        bits(packet_field::SRC_IP, 32, FieldKind::Ipv4),
        bits(packet_field::DST_IP, 32, FieldKind::Ipv4),
        bits(packet_field::SRC_PORT, 16, FieldKind::Integer),
        bits(packet_field::DST_PORT, 16, FieldKind::Integer),
        choices(packet_field::PROTO, &[1, 6, 17]),
    ];
    let measurements = vec![
        choices(packet_field::DIRECTION, &[0, 1]),
        choices(packet_field::TCP_FLAGS, &[2, 16, 17, 18, 24]),
        float(packet_field::LEN, 40, 1500),
        float(packet_field::TTL, 32, 128),
    ];
    let names = attributes.iter().chain(&measurements).map(|field| field.name.clone());
    Schema {
        kind: TraceKind::Packets,
        columns: names.chain([packet_field::TIME.to_owned()]).collect(),
        timestamp,
        conversations: true,
        attributes,
        measurements,
        self_norm: model.self_norm,
        distinct: None,
        longest: None,
        segmentation: None,
        spanning: None,
        word2vec: BTreeMap::new(),
    }
}

/// Weights of the right shapes, normal, so that outputs vary from flow to flow.
#[must_use]
pub fn random_weights(schema: &Schema, model: SampleModel) -> GeneratorWeights {
    let (attributes, record) = (schema.attribute_layout().dim(), schema.measurement_layout().dim());
    let SampleModel { seed, sample_len, hidden, units, goes_on_bias, .. } = model;
    let condition = schema.condition_dim();
    let mut random = Stream::new(seed, Purpose::Weights, 0);
    let mut normals = |count: usize, scale: f32| -> Vec<f32> {
        (0..count).map(|_| scale * random.normal()).collect()
    };
    let noise = 5;
    let mut linear = |inputs: usize, outputs: usize, gain: f32| Linear {
        weight: normals(inputs * outputs, gain / (inputs as f32).sqrt()),
        bias: normals(outputs, 0.1),
    };
    let norm = || BatchNorm {
        gamma: vec![1.5; units],
        beta: vec![0.1; units],
        mean: vec![0.4; units],
        variance: vec![0.3; units],
    };
    let attribute_hidden = vec![
        HiddenLayer { linear: linear(noise + condition, units, 1.4), norm: norm() },
        HiddenLayer { linear: linear(units, units, 1.4), norm: norm() },
    ];
    let additional = schema.additional_layout().dim();
    let own = attributes - additional;
    let attribute_head = linear(units, own, 3.0);
    let (mut additional_hidden, mut additional_head) = (Vec::new(), Linear::default());
    if additional > 0 {
        let inputs = linear(noise + condition + own, units, 1.4);
        additional_hidden = vec![HiddenLayer { linear: inputs, norm: norm() }];
        additional_head = linear(units, additional, 1.0);
    }
    let mut record_head = linear(hidden, sample_len * record, 4.0);
    for repeat in 0..sample_len {
        record_head.bias[(repeat + 1) * record - 1] += goes_on_bias;
    }
    GeneratorWeights {
        attribute_hidden,
        attribute_head,
        additional_hidden,
        additional_head,
        lstm_attributes: linear(attributes, 4 * hidden, 1.0).weight,
        lstm_condition: linear(condition, 4 * hidden, 1.0).weight,
        lstm_noise: linear(noise, 4 * hidden, 1.0).weight,
        lstm_hidden: linear(hidden, 4 * hidden, 1.0).weight,
        lstm_bias: linear(1, 4 * hidden, 1.0).bias,
        record_head,
    }
}
