//! NetShare's own table: the distances of its paper (SIGCOMM '22, section 6.1),
//! for comparison with its figures and with those of others.

use serde::{Deserialize, Serialize};

use super::report::Metric;

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

/// Abbreviation, what it stands for, and the metrics that it can be.
const ROWS: [(&str, &str, &[&str]); 12] = [
    ("SA", "source addresses, JSD by rank", &["srcip.rank_jsd"]),
    ("DA", "destination addresses, JSD by rank", &["dstip.rank_jsd"]),
    ("SP", "source ports, JSD", &["srcport.jsd"]),
    ("DP", "destination ports, JSD", &["dstport.jsd"]),
    ("PR", "protocols, JSD", &["proto.jsd"]),
    ("PS", "packet sizes, EMD in bytes", &["pkt_len.w1"]),
    ("PAT", "packet arrival times, EMD in parts of the span", &["time.w1_range"]),
    ("FS", "flow sizes, EMD in packets", &["flow_len.w1"]),
    ("TS", "flow start times, EMD in parts of the span", &["time.w1_range"]),
    ("TD", "flow durations, EMD", &["td.w1", "duration.w1"]),
    ("PKT", "packets, EMD", &["pkt.w1", "packets.w1", "orig_pkts.w1"]),
    ("BYT", "bytes, EMD", &["byt.w1", "bytes.w1", "orig_bytes.w1"]),
];
/// Rows of packets, and rows of flow records.
const PACKETS: [&str; 3] = ["PS", "PAT", "FS"];
const RECORDS: [&str; 4] = ["TS", "TD", "PKT", "BYT"];

/// The rows that metrics have.
#[must_use]
pub fn table(metrics: &[Metric], is_packets: bool) -> Vec<NetShareRow> {
    let others: &[&str] = if is_packets { &RECORDS } else { &PACKETS };
    ROWS.iter()
        .filter(|(name, ..)| !others.contains(name))
        .filter_map(|(name, label, known)| {
            let metric = metrics.iter().find(|metric| known.contains(&metric.name.as_str()))?;
            Some(NetShareRow {
                name: (*name).to_owned(),
                label: (*label).to_owned(),
                metric: metric.name.clone(),
                whole: metric.whole,
                floor: metric.floor,
                r: metric.r,
            })
        })
        .collect()
}
