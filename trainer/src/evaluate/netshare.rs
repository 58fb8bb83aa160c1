//! NetShare's own table: the distances of its paper (SIGCOMM '22, section 6.1),
//! for comparison with its figures and with those of others.

use serde::{Deserialize, Serialize};

use super::report::Metric;
use super::table::Frame;
use ns_model_format::schema::TraceKind;

/// A row of NetShare's table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetShareRow {
    /// NetShare's abbreviation.
    pub name: String,
    /// What it stands for.
    pub label: String,
    /// The metric that it is.
    pub metric: String,
    /// Between the whole traces, as NetShare takes it.
    pub whole: f64,
    /// Between halves of the real trace.
    pub floor: f64,
    /// The metric's R.
    pub r: Option<f64>,
}

/// The rows that the metrics of a frame have.
#[must_use]
pub fn table(metrics: &[Metric], frame: &Frame) -> Vec<NetShareRow> {
    let named = |column: Option<usize>, distance: &str| {
        column.map(|at| format!("{}.{distance}", frame.columns[at].name))
    };
    let pair = frame.address_pair();
    let mut rows = vec![
        ("SA", "source addresses, JSD by rank", named(pair.map(|[src, _]| src), "rank_jsd")),
        ("DA", "destination addresses, JSD by rank", named(pair.map(|[_, dst]| dst), "rank_jsd")),
        ("SP", "source ports, JSD", named(frame.src_port(), "jsd")),
        ("DP", "destination ports, JSD", named(frame.dst_port(), "jsd")),
        ("PR", "protocols, JSD", named(frame.proto_column(), "jsd")),
    ];
    let fixed = |name: &str| Some(name.to_owned());
    rows.extend(if frame.kind == TraceKind::Packets {
        [
            ("PS", "packet sizes, EMD in bytes", fixed("pkt_len.w1")),
            ("PAT", "packet arrival times, EMD in parts of the span", fixed("time.w1_range")),
            ("FS", "flow sizes, EMD in packets", fixed("flow_len.w1")),
        ]
        .to_vec()
    } else {
        let record = frame.record;
        vec![
            ("TS", "flow start times, EMD in parts of the span", fixed("time.w1_range")),
            ("TD", "flow durations, EMD", named(record.duration, "w1")),
            ("PKT", "packets, EMD", named(record.packets, "w1")),
            ("BYT", "bytes, EMD", named(record.bytes, "w1")),
        ]
    });
    rows.into_iter()
        .filter_map(|(name, label, metric)| {
            let metric = metrics.iter().find(|found| Some(&found.name) == metric.as_ref())?;
            Some(NetShareRow {
                name: name.to_owned(),
                label: label.to_owned(),
                metric: metric.name.clone(),
                whole: metric.whole,
                floor: metric.floor,
                r: metric.r,
            })
        })
        .collect()
}
