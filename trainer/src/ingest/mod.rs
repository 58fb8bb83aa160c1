//! From files to a [`Trace`]: columns of records in order of time.

mod cells;
mod checksums;
mod compact;
pub mod files;
mod ip;
mod link;
pub mod packets;
mod parquet;
pub mod pcap;
mod pcapng;
mod rows;
pub mod sample;
pub mod source;
pub mod table;
mod unusable;

pub use checksums::Checksums;
pub(crate) use rows::Rows;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ns_model_format::Column;
use ns_model_format::datetime::DatetimeStyle;
use ns_model_format::schema::{FieldKind, TimeUnit};
use serde::{Deserialize, Serialize};

/// What to do with a record that cannot be used because the input is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Stop with an error that names the place.
    #[default]
    Stop,
    /// Leave it out, and count it.
    Skip,
}

/// How inputs are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What to do with damage.
    pub on_error: OnError,
    /// Records to keep; of more, a sample of whole flows.
    pub max_records: u32,
    /// Seed of that sample.
    pub seed: u64,
    /// Of a million flows, so many are held out: left out, to judge a model by.
    pub held_out: u32,
}

impl Default for Reading {
    fn default() -> Reading {
        let max_records = sample::DEFAULT_MAX_RECORDS;
        Reading { on_error: OnError::default(), max_records, seed: 1, held_out: 0 }
    }
}

/// Why an input cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A folder without regular files.
    #[error("`{}` has no files", path.display())]
    NoFiles {
        /// The folder.
        path: PathBuf,
    },
    /// Not what it should be.
    #[error("`{}` is not a capture: {reason}", path.display())]
    NotACapture {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A capture that ends in the middle, or has a record that cannot be.
    #[error("`{}`: record {record}, at byte {offset}: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        record: u64,
        /// Where it begins in the file.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A CSV without a column that the configuration names.
    #[error("`{}`: no column `{column}`; it has {found}", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The columns it has.
        found: String,
    },
    /// A row of a CSV that cannot be split into cells.
    #[error("`{}`: row {row}: {reason}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Counted from 1, the header not counted.
        row: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that is no table.
    #[error("`{}` is not a table that can be read: {reason}", path.display())]
    NotATable {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A table that cannot be read on from a row.
    #[error("`{}`: row {row} and what follows cannot be read: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        row: u64,
        /// What is wrong.
        reason: String,
    },
    /// A cell that is not what its column should hold.
    #[error("`{}`: row {row}, column `{column}`: {reason}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// Counted from 1, the header not counted.
        row: u64,
        /// The column.
        column: String,
        /// What is wrong.
        reason: String,
    },
    /// Nothing usable in it.
    #[error("`{}`{} no usable records{}", path.display(), and_others(*others), reasons(not_used))]
    Empty {
        /// The file.
        path: PathBuf,
        /// Files read beside it.
        others: usize,
        /// Why not, with counts.
        not_used: NotUsed,
    },
}

fn and_others(others: usize) -> String {
    match others {
        0 => " has".to_owned(),
        1 => " and 1 other file have".to_owned(),
        _ => format!(" and {others} other files have"),
    }
}

/// Records that were not used, by reason.
pub type NotUsed = BTreeMap<String, u64>;

/// The time column of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeColumn {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: TimeUnit,
    /// Digits after the point that the input has.
    pub decimals: u8,
    /// How it is written, if as dates.
    pub datetime: Option<DatetimeStyle>,
}

/// A column of a trace, and how it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceColumn {
    /// Its cells.
    pub column: Column,
    /// How they are written.
    pub kind: FieldKind,
    /// How a missing one is written, if any is.
    pub missing: Option<String>,
}

impl TraceColumn {
    /// The cells of some rows.
    #[must_use]
    pub fn pick(&self, rows: &[usize]) -> TraceColumn {
        TraceColumn { column: self.column.pick(rows), ..self.clone() }
    }
}

/// Records in order of time, and the flows that they make.
#[derive(Clone, Debug)]
pub struct Trace {
    /// One entry a column, all of the same length. In a trace of conversations
    /// addresses and ports are those seen from the conversation's first sender.
    pub columns: Vec<TraceColumn>,
    /// Nanoseconds since the epoch, ascending; one entry a record.
    pub times_ns: Vec<i64>,
    /// Each record's row in the input, counted from 1.
    pub input_rows: Vec<u64>,
    /// How times are written.
    pub time: TimeColumn,
    /// The columns' order in the input, the time column among them.
    pub order: Vec<String>,
    /// Each flow's records in order of time; flows in order of their first.
    pub flows: Vec<Vec<u32>>,
    /// What was left out.
    pub not_used: NotUsed,
    /// The share of all flows that is here, 1 unless they were sampled.
    pub share: f64,
    /// What is worth telling of the records that are here, a sentence each.
    pub remarks: Vec<String>,
    /// SHA-256 of the input: [`files::joined_digest`] of its files'.
    pub input_sha256: String,
}

impl Trace {
    /// The column of a name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&TraceColumn> {
        self.columns.iter().find(|column| column.column.name == name)
    }
}

/// Groups records with equal keys into flows, and cuts a flow where it is idle
/// for longer than `idle_timeout_ns`. `times_ns` ascends.
pub(crate) fn group_flows<K: std::hash::Hash + Eq>(
    keys: impl IntoIterator<Item = K>,
    times_ns: &[i64],
    idle_timeout_ns: Option<i64>,
) -> Vec<Vec<u32>> {
    let mut live: std::collections::HashMap<K, usize> = std::collections::HashMap::new();
    let mut flows: Vec<Vec<u32>> = Vec::new();
    for (row, key) in keys.into_iter().enumerate() {
        let at = *live
            .entry(key)
            .and_modify(|at| {
                let idle =
                    flows[*at].last().map_or(0, |&last| times_ns[row] - times_ns[last as usize]);
                if idle_timeout_ns.is_some_and(|timeout| idle > timeout) {
                    *at = flows.len();
                }
            })
            .or_insert(flows.len());
        if at == flows.len() {
            flows.push(Vec::new());
        }
        flows[at].push(row as u32);
    }
    flows
}

/// `: 12 arp, 3 ipv6`, or nothing.
#[must_use]
pub fn reasons(not_used: &NotUsed) -> String {
    if not_used.is_empty() {
        return String::new();
    }
    let parts: Vec<String> =
        not_used.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    format!(": {}", parts.join(", "))
}

#[cfg(test)]
mod tests;
