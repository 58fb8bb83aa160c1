//! Which traces are compared, and in which fields.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ns_model_format::schema::TraceKind;

use crate::config::{self, ConfigError, Resolved};
use crate::fit;
use crate::ingest::{Checksums, Reading, Trace, files};
use crate::init;
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

/// A trace and where it came from.
#[derive(Debug)]
pub(crate) struct Side {
    /// Its files' names.
    pub(crate) file: String,
    /// What it holds.
    pub(crate) trace: Trace,
    /// Whether its packets' checksums are right, if it has packets.
    pub(crate) checksums: Option<Checksums>,
}

/// The configuration in which traces are compared: for captures the fields of
/// packets, for tables the user's or what `ns-train init` would choose for the real one.
pub(crate) fn fields(
    real: &[PathBuf],
    config: Option<&Path>,
    reading: Reading,
) -> anyhow::Result<Resolved> {
    if is_capture(real)? {
        return Ok(packet_fields()?);
    }
    let Some(path) = config else {
        let text = init::configuration(real, &init::Hints::default(), reading.on_error)?;
        let file = config::parse(&text, "the configuration by default")?;
        return Ok(config::resolve(&file, Path::new("."))?);
    };
    let resolved = config::resolve(&config::read(path)?, path.parent().unwrap_or(Path::new(".")))
        .with_context(|| format!("configuration `{}`", path.display()))?;
    if resolved.kind == TraceKind::Packets {
        bail!("`{}` describes a capture, but {} is none", path.display(), files::shown(real));
    }
    Ok(resolved)
}

/// Reads a trace.
pub(crate) fn read(
    inputs: &[PathBuf],
    config: &Resolved,
    reading: Reading,
) -> anyhow::Result<Side> {
    let wants_capture = config.kind == TraceKind::Packets;
    if is_capture(inputs)? != wants_capture {
        let (this, other) = match wants_capture {
            true => ("no capture", "one"),
            false => ("a capture", "none"),
        };
        bail!("{} is {this}, but the real trace is {other}", files::shown(inputs));
    }
    let list = files::list(inputs)?;
    Ok(Side {
        file: files::names(&list),
        trace: fit::read(inputs, config, reading)?,
        checksums: match wants_capture {
            true => Some(Checksums::of(&list, reading.on_error)?),
            false => None,
        },
    })
}
