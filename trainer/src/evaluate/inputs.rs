//! Which traces are compared, and in which fields.

use std::path::{Path, PathBuf};

use ns_model_format::schema::TraceKind;

use super::compare::{Comparison, Options};
use super::{Done, EvaluateError, Names};
use crate::config::{self, ConfigError, Resolved};
use crate::fit;
use crate::generator::Generator;
use crate::ingest::{Checksums, Reading, Trace, files};
use crate::input::is_capture;

/// The fields that captures are compared in, whatever a model learned of them:
/// those that packets carry from end to end. The IP identification and the TCP
/// window are left out, which are counters of single hosts.
const PACKETS: &str = r#"{
    "global_config": { "dataset_type": "pcap" },
    "pre_post_processor": { "config": {
        "flow": "conversation",
        "timestamp": { "column": "time", "encoding": "interarrival" },
        "metadata": [
            { "column": "srcip", "type": "integer", "encoding": "bit", "n_bits": 32 },
            { "column": "dstip", "type": "integer", "encoding": "bit", "n_bits": 32 },
            { "column": "srcport", "type": "integer", "encoding": "categorical" },
            { "column": "dstport", "type": "integer", "encoding": "categorical" },
            { "column": "proto", "type": "integer", "encoding": "categorical" }
        ],
        "timeseries": [
            { "column": "direction", "type": "integer", "encoding": "categorical" },
            { "column": "pkt_len", "type": "float", "normalization": "ZERO_ONE" },
            { "column": "ttl", "type": "integer", "encoding": "categorical" },
            { "column": "tos", "type": "integer", "encoding": "categorical" },
            { "column": "flag", "type": "integer", "encoding": "categorical" },
            { "column": "off", "type": "integer", "encoding": "categorical" },
            { "column": "tcp_flags", "type": "integer", "encoding": "categorical" }
        ]
    } }
}"#;

/// The configuration in which captures are read to be compared.
///
/// # Errors
/// None: it is built in, and a test reads it.
pub fn packet_fields() -> Result<Resolved, ConfigError> {
    config::resolve(&config::parse(PACKETS, "the fields of packets")?, Path::new("."))
}

/// The configuration in which traces are read to be compared: of captures the fields
/// of packets, of tables the user's or what `ns-train init` would choose for the real one.
///
/// # Errors
/// An input or a configuration that cannot be read, or that do not fit.
pub fn fields(
    real: &[PathBuf],
    config: Option<&Path>,
    reading: Reading,
) -> Result<Resolved, EvaluateError> {
    if is_capture(real)? {
        return Ok(packet_fields()?);
    }
    let Some(path) = config else {
        return Ok(Generator::from_inputs(real, reading)?.config().clone());
    };
    let fields = Generator::from_config(path)?.config().clone();
    if fields.kind == TraceKind::Packets {
        let (config, real) = (path.to_owned(), files::shown(real));
        return Err(EvaluateError::NoCapture { config, real });
    }
    Ok(fields)
}

/// The files of the traces that are compared.
#[derive(Clone, Debug, Default)]
pub struct Sides {
    /// The real trace.
    pub real: Vec<PathBuf>,
    /// The synthetic one.
    pub synthetic: Vec<PathBuf>,
    /// What the model was trained on, if that is not the real trace; else empty.
    pub train: Vec<PathBuf>,
}

/// Reads traces and makes them ready to be compared; `done` is told what is next.
///
/// # Errors
/// A trace that cannot be read, of another kind, or too small to be halved.
pub fn compare(
    sides: &Sides,
    fields: &Resolved,
    reading: Reading,
    options: Options,
    done: &mut Done<'_>,
) -> Result<(Comparison, Names), EvaluateError> {
    done("reading", 0.0);
    let read = |inputs: &[PathBuf]| read(inputs, fields, reading);
    let (real, synthetic) = (read(&sides.real)?, read(&sides.synthetic)?);
    let train = if sides.train.is_empty() { None } else { Some(read(&sides.train)?) };
    done("fitting the baseline", 0.0);
    let trained_on = train.as_ref().map(|side| &side.trace);
    let comparison = Comparison::new(&real.trace, &synthetic.trace, trained_on, fields, options)?;
    let (file, not_used) = train.map(|side| (side.file, side.trace.not_used)).unwrap_or_default();
    let names = Names {
        not_used: [real.trace.not_used, synthetic.trace.not_used, not_used],
        checksums: [real.checksums, synthetic.checksums],
        real: real.file,
        synthetic: synthetic.file,
        train: file,
    };
    Ok((comparison, names))
}

/// A trace and where it came from.
struct Side {
    /// Its files' names.
    file: String,
    trace: Trace,
    /// Whether its packets' checksums are right, if it has packets.
    checksums: Option<Checksums>,
}

fn read(inputs: &[PathBuf], fields: &Resolved, reading: Reading) -> Result<Side, EvaluateError> {
    let is_wanted = fields.kind == TraceKind::Packets;
    if is_capture(inputs)? != is_wanted {
        let (this, others) = match is_wanted {
            true => ("no capture", "captures"),
            false => ("a capture", "tables"),
        };
        return Err(EvaluateError::OtherKind { input: files::shown(inputs), this, others });
    }
    let list = files::list(inputs)?;
    Ok(Side {
        file: files::names(&list),
        trace: fit::read(inputs, fields, reading).map_err(Box::new)?,
        checksums: match is_wanted {
            true => Some(Checksums::of(&list, reading.on_error)?),
            false => None,
        },
    })
}
