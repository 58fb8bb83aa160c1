//! What is measured of a sample, and which distances are taken of it.

use serde::{Deserialize, Serialize};

use super::distance::{Distance, Statistic};
use super::sample::Sample;
use super::table::{Frame, Role};
use super::{fields, joint, protocol, sequence};
use crate::init::roles::{Figure, figure};

/// A kind of question that a metric asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Group {
    /// Is each field by itself distributed as in the real trace?
    Fields,
    /// Do fields go together as they do there?
    Joint,
    /// Do records follow one another as they do there?
    Sequence,
    /// Do protocols go their way as they do there?
    Protocol,
}

impl Group {
    /// All, in the order of reports.
    pub const ALL: [Group; 4] = [Group::Fields, Group::Joint, Group::Sequence, Group::Protocol];

    /// As it stands in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Group::Fields => "fields",
            Group::Joint => "joint",
            Group::Sequence => "sequence",
            Group::Protocol => "protocol",
        }
    }
}

/// How a measure is best looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    /// Not at all.
    None,
    /// Distribution functions.
    Cdf {
        /// Whether the axis of values is logarithmic.
        log: bool,
    },
    /// The share above a value, both axes logarithmic.
    Tail,
    /// A bar a value.
    Bars(Labels),
}

/// What the values of counts are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Categories of a column.
    Column(usize),
    /// TCP flags, as letters.
    TcpFlags,
    /// Ports that name a service, and ranges of the others.
    Service,
    /// How TCP connections begin and end: [`protocol::state_name`].
    TcpState,
}

impl Labels {
    /// What a value is called.
    #[must_use]
    pub fn label(self, frame: &Frame, value: u64) -> String {
        match self {
            Labels::Column(column) => {
                let text = frame.columns[column].text(value as u32);
                match frame.columns[column].role {
                    Role::Proto => protocol::name(&text).map_or(text, str::to_owned),
                    _ => text,
                }
            }
            Labels::TcpFlags => protocol::flag_letters(value as u8),
            Labels::Service => fields::service_name(value),
            Labels::TcpState => protocol::state_name(value),
        }
    }
}

type Extract = Box<dyn Fn(&Sample<'_>) -> Statistic + Send + Sync>;

/// Something that is measured of samples.
pub struct Measure {
    /// For programs; with a distance's name behind it, a metric's name.
    pub name: String,
    /// For people.
    pub label: String,
    /// The unit of its numbers, or what is counted.
    pub unit: &'static str,
    /// The kind of question.
    pub group: Group,
    /// The distances that are taken of it.
    pub distances: Vec<Distance>,
    /// How it is best looked at.
    pub picture: Picture,
    of: Extract,
}

impl std::fmt::Debug for Measure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Measure").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Measure {
    /// Something to measure, without a picture.
    pub fn new(
        group: Group,
        name: impl Into<String>,
        label: impl Into<String>,
        unit: &'static str,
        distances: &[Distance],
        of: impl Fn(&Sample<'_>) -> Statistic + Send + Sync + 'static,
    ) -> Measure {
        Measure {
            name: name.into(),
            label: label.into(),
            unit,
            group,
            distances: distances.to_vec(),
            picture: Picture::None,
            of: Box::new(of),
        }
    }

    /// The same with a picture.
    #[must_use]
    pub fn shown(self, picture: Picture) -> Measure {
        Measure { picture, ..self }
    }

    /// Measures a sample.
    #[must_use]
    pub fn of(&self, sample: &Sample<'_>) -> Statistic {
        (self.of)(sample)
    }
}

/// Everything that is measured of traces in a frame.
#[must_use]
pub fn measures(frame: &Frame) -> Vec<Measure> {
    let mut all = fields::measures(frame);
    all.extend(joint::measures(frame));
    all.extend(sequence::measures(frame));
    all.extend(protocol::measures(frame));
    all
}

/// Names of measures that are of no single column.
const TAKEN: [&str; 28] = [
    "time",
    "service",
    "joint",
    "proto_service_len",
    "address_pair",
    "contingency",
    "spearman",
    "pearson_log",
    "flow_spearman",
    "flow_len",
    "single",
    "flow_duration",
    "gap",
    "gap_overall",
    "gap_autocorrelation",
    "size_autocorrelation",
    "flow_bytes",
    "record_bigram",
    "rate",
    "burstiness",
    "valid_addresses",
    "bytes_of_packets",
    "port_protocol",
    "tcp_state",
    "flag_bigram",
    "handshake",
    "ratios",
    "training",
];

/// What the measures of a column begin with: its name, unless that is another measure's.
pub(super) fn name_of(frame: &Frame, column: usize) -> String {
    let name = &frame.columns[column].name;
    if TAKEN.contains(&name.as_str()) { format!("column_{name}") } else { name.clone() }
}

/// What a column is called, and the unit of its numbers.
#[must_use]
pub fn called(frame: &Frame, column: usize) -> (String, &'static str) {
    let column = &frame.columns[column];
    let (label, unit) = match column.name.as_str() {
        "srcip" => ("source address", "address"),
        "dstip" => ("destination address", "address"),
        "srcport" => ("source port", "port"),
        "dstport" => ("destination port", "port"),
        "proto" => ("protocol", "protocol"),
        "pkt_len" => ("packet length", "bytes"),
        "payload_len" => ("payload length", "bytes"),
        "ttl" => ("time to live", "hops"),
        "tos" => ("type of service", "value"),
        "flag" => ("IP flags", "value"),
        "off" => ("fragment offset", "8 bytes"),
        "tcp_flags" => ("TCP flags", "flags"),
        "td" => ("duration", "s"),
        "pkt" => ("packets", "packets"),
        "byt" => ("bytes", "bytes"),
        name => {
            let unit = match figure(name).filter(|_| column.role == Role::Quantity) {
                Some(Figure::Duration) => "s",
                Some(Figure::Packets) => "packets",
                Some(Figure::Bytes) => "bytes",
                None if column.role == Role::Quantity => "value",
                None => "",
            };
            return (name.to_owned(), unit);
        }
    };
    (label.to_owned(), unit)
}
