//! A packet trace's schema in few words: every field a number of 32 bits.

use ns_model_format::codec::{BitCodec, Codec, FloatCodec, FloatOptions};
use ns_model_format::schema::{TimeEncoding, TimeUnit, Timestamp, TraceKind};
use ns_model_format::{Column, Field, FieldKind, Schema};

/// The schema of packets with these fields in one direction, which are its columns too.
pub(crate) fn packet_schema(attributes: &[&str], measurements: &[&str]) -> Schema {
    let field = |name: &&str| Field {
        missing: None,
        name: (*name).to_owned(),
        kind: FieldKind::Integer,
        codec: Codec::Bit(BitCodec::new(name, 32).unwrap()),
    };
    let time = Column::floats("time", vec![0.0, 1.0]);
    let columns = [&["time"], attributes, measurements].concat();
    Schema {
        kind: TraceKind::Packets,
        columns: columns.into_iter().map(str::to_owned).collect(),
        timestamp: Timestamp {
            column: "time".to_owned(),
            unit: TimeUnit::Microseconds,
            decimals: 0,
            encoding: TimeEncoding::Interarrival,
            codec: Codec::Float(FloatCodec::fit(&time, FloatOptions::default()).unwrap()),
            datetime: None,
        },
        conversations: false,
        attributes: attributes.iter().map(field).collect(),
        measurements: measurements.iter().map(field).collect(),
        self_norm: false,
        distinct: None,
        longest: None,
        segmentation: None,
        spanning: None,
        word2vec: Default::default(),
    }
}
