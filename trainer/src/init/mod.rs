//! `ns-train init`: looks at an input and writes a configuration that says why
//! each encoding was chosen.

mod cli;
mod profile;
pub(crate) mod roles;

pub use cli::InitArgs;
pub(crate) use cli::run;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use ns_model_format::Value;
use ns_model_format::schema::packet_field;

use self::profile::{ColumnProfile, Profile};
use self::roles::{Role, entity_rank, role, time_rank};
use crate::config::{self, ConfigError, FieldType};
use crate::fit::{self, FitError};
use crate::ingest::{self, IngestError, OnError, Reading, files};
use crate::input::is_capture;

/// A column with no more distinct values has one output a value, as in all
/// choices here by what measured best with this model at equal training.
const FEW: u64 = 64;
/// So many values of a `topk` are exact.
const TOP: usize = 64;
/// The same for addresses.
const FEW_ADDRESSES: u64 = 256;
/// Whole numbers below are quantities whose bits are learned: as a place in
/// their distribution they came out twice as far from the truth (packet lengths).
const MOST_AS_BITS: f64 = 65_536.0;
/// Text with this share of values that occur once is a name of the row itself.
const UNIQUE: f64 = 0.95;
/// Rows that a table should have before such a share means anything.
const ROWS_TO_TELL: u64 = 100;

/// Why no configuration can be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The input.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A column that was named is not there.
    #[error("no column `{column}`; there are `{found}`")]
    NoColumn {
        /// The column.
        column: String,
        /// Those that there are.
        found: String,
    },
    /// No column looks like the times of records.
    #[error("no column looks like the time of a record; name it with `--time COLUMN`: `{found}`")]
    NoTime {
        /// The columns.
        found: String,
    },
    /// No column looks like it names flows.
    #[error(
        "no column looks like it says which rows belong together; name one or more with \
         `--flow COLUMN,...`: `{found}`"
    )]
    NoFlow {
        /// The columns.
        found: String,
    },
    /// Neither a capture nor a table that tells enough.
    #[error("{input} is no capture; as a table")]
    NoTable {
        /// The input.
        input: String,
        /// What is wrong with it as a table.
        source: Box<InitError>,
    },
    /// Hints about columns, for a capture.
    #[error("`--time` and `--flow` are for tables; a capture's columns are known")]
    HintsForCapture,
    /// The built-in configuration does not fit the capture.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The capture.
    #[error(transparent)]
    Fit(Box<FitError>),
}

/// Rows of a table that are looked at.
const MOST_ROWS: u64 = 1_000_000;

/// What the user says about a table.
#[derive(Clone, Debug)]
pub struct Hints {
    /// The column of times.
    pub time: Option<String>,
    /// The columns that name a flow.
    pub flow: Vec<String>,
    /// Rows to look at.
    pub most_rows: u64,
}

impl Default for Hints {
    fn default() -> Hints {
        Hints { time: None, flow: Vec::new(), most_rows: MOST_ROWS }
    }
}

/// A configuration for an input, with comments: for a capture the built-in
/// one, for tables what the first one's columns say.
///
/// # Errors
/// An input that cannot be read, or a table whose columns do not tell time or flow.
pub fn configuration(
    inputs: &[PathBuf],
    hints: &Hints,
    on_error: OnError,
) -> Result<String, InitError> {
    if !is_capture(inputs)? {
        let files = files::list(inputs)?;
        // Without any input, what cannot be read is a file without a name.
        let first = files.first().map_or(Path::new(""), PathBuf::as_path);
        return for_table(first, hints, on_error).map_err(|source| InitError::NoTable {
            input: files::shown(inputs),
            source: Box::new(source),
        });
    }
    if hints.time.is_some() || !hints.flow.is_empty() {
        return Err(InitError::HintsForCapture);
    }
    for_captures(inputs, on_error)
}

/// The built-in configuration of captures, and what these captures are.
fn for_captures(inputs: &[PathBuf], on_error: OnError) -> Result<String, InitError> {
    let file = config::parse(config::DEFAULT_PCAP, "configs/pcap.json")?;
    let config = config::resolve(&file, Path::new("."))?;
    let reading = Reading { on_error, ..Reading::default() };
    let trace = fit::read(inputs, &config, reading).map_err(|e| InitError::Fit(Box::new(e)))?;
    let (flows, packets) = (trace.flows.len(), trace.times_ns.len());
    let both_ways = trace.column(packet_field::DIRECTION).map_or(0, |direction| {
        let answered = |flow: &&Vec<u32>| {
            flow.iter().any(|&row| direction.column.value(row as usize) == Value::Int(1))
        };
        trace.flows.iter().filter(answered).count()
    });
    let longest = trace.flows.iter().map(Vec::len).max().unwrap_or(0);
    let span_ns = trace.times_ns.last().zip(trace.times_ns.first()).map_or(0, |(b, a)| b - a);
    let mut text = format!(
        "// Written by `ns-train init` after {packets} packets of {}\n\
         // in {flows} conversations over {:.1} s: {:.0}% of these have both directions, the longest \
         has {longest} packets.\n",
        comment(&files::names(&files::list(inputs)?)),
        span_ns as f64 / 1e9,
        100.0 * both_ways as f64 / flows.max(1) as f64,
    );
    if !trace.not_used.is_empty() {
        let _ = writeln!(text, "// Not used{}.", ingest::reasons(&trace.not_used));
    }
    if both_ways == 0 {
        text += "// No packet has an answer: \"flow\": \"unidirectional\" would do as well.\n";
    }
    Ok(text + config::DEFAULT_PCAP)
}

/// A configuration for a CSV, with comments; `input` as it is to stand in it.
///
/// # Errors
/// The file cannot be read, or its columns do not tell time or flow.
pub fn for_table(path: &Path, hints: &Hints, on_error: OnError) -> Result<String, InitError> {
    let profile = Profile::read(path, hints.most_rows, on_error)?;
    let time = time_column(&profile, hints)?;
    let flow = flow_columns(&profile, time, hints)?;
    Ok(write(path, &profile, time, &flow))
}

fn names(profile: &Profile) -> String {
    let names: Vec<&str> = profile.columns.iter().map(|column| column.name.as_str()).collect();
    names.join("`, `")
}

fn named(profile: &Profile, name: &str) -> Result<usize, InitError> {
    profile
        .columns
        .iter()
        .position(|column| column.name == name)
        .ok_or_else(|| InitError::NoColumn { column: name.to_owned(), found: names(profile) })
}

fn time_column(profile: &Profile, hints: &Hints) -> Result<usize, InitError> {
    if let Some(name) = &hints.time {
        return named(profile, name);
    }
    let columns = profile.columns.iter().enumerate();
    // A date before a number, a usual name before others, then the order of columns.
    columns
        .filter(|(_, column)| column.may_be_time())
        .filter(|(_, column)| {
            time_rank(&column.name).is_some()
                || column.is_epoch()
                || column.kind() == FieldType::Datetime
        })
        .min_by_key(|(at, column)| (time_rank(&column.name).unwrap_or(usize::MAX), *at))
        .map(|(at, _)| at)
        .ok_or_else(|| InitError::NoTime { found: names(profile) })
}

/// The columns that name a flow: the 5-tuple, or what the rows are about and
/// what goes with it.
fn flow_columns(profile: &Profile, time: usize, hints: &Hints) -> Result<Vec<usize>, InitError> {
    if !hints.flow.is_empty() {
        return hints.flow.iter().map(|name| named(profile, name)).collect();
    }
    let columns = || profile.columns.iter().enumerate().filter(move |(at, _)| *at != time);
    let mut tuple: Vec<(Role, usize)> = Vec::new();
    for (at, column) in columns() {
        if let Some(role) = role(&column.name)
            && !tuple.iter().any(|(taken, _)| *taken == role)
        {
            tuple.push((role, at));
        }
    }
    if tuple.iter().any(|(role, _)| matches!(role, Role::SrcIp | Role::DstIp)) {
        return Ok(tuple.into_iter().map(|(_, at)| at).collect());
    }
    // Something that comes again: of the usual names the likeliest, else what
    // tells most rows apart.
    let repeats = |column: &ColumnProfile| {
        let is_name = !matches!(column.kind(), FieldType::Float | FieldType::Datetime);
        is_name && column.missing == 0 && (2..=profile.rows / 2).contains(&column.distinct())
    };
    let entity = columns()
        .filter(|(_, column)| repeats(column))
        .filter(|(_, column)| {
            entity_rank(&column.name).is_some() || column.kind() == FieldType::String
        })
        .min_by_key(|(at, column)| {
            let rank = entity_rank(&column.name).unwrap_or(usize::MAX);
            (rank, std::cmp::Reverse(column.distinct()), *at)
        })
        .map(|(at, _)| at)
        .ok_or_else(|| InitError::NoFlow { found: names(profile) })?;
    // What the entity determines is fixed with it.
    let fixed = columns().filter(|(at, column)| {
        let name = !matches!(column.kind(), FieldType::Float | FieldType::Datetime);
        *at == entity || (name && column.distinct() > 1 && profile.determines(entity, *at))
    });
    Ok(fixed.map(|(at, _)| at).collect())
}

/// How a column is encoded, and why.
struct Chosen {
    /// The keys after `column`, as JSON.
    keys: String,
    why: String,
    /// Nothing to be learned from it: it is left out.
    left_out: bool,
}

fn choose(column: &ColumnProfile, is_name: bool) -> Chosen {
    let distinct = column.distinct();
    let kept = |keys: String, why: String| Chosen { keys, why, left_out: false };
    let values = format!("{} distinct values", column.distinct_text());
    // What a `topk` keeps, and where the rest goes.
    let top = |k: usize, rest: &str| {
        if distinct <= k as u64 {
            return format!("{values}, each has its own output");
        }
        let share = 100.0 * column.top_share(k);
        format!("{values}: the {k} most frequent have {share:.0}%; {rest}")
    };
    let numbers = || format!("{} to {}", column.least, column.most);
    let spread = || (column.most + 1.0) / (column.least + 1.0) >= 1000.0 && column.least >= 0.0;
    let role = role(&column.name);
    let address = matches!(role, Some(Role::SrcIp | Role::DstIp));
    let word = quoted(&format!("word2vec_{}", vocabulary(&column.name)));
    let kind = match column.kind() {
        // Such numbers are names, and more digits than a float has tell them apart.
        FieldType::Integer if is_name && column.most >= 9e15 => FieldType::String,
        kind => kind,
    };
    match kind {
        _ if column.values == 0 => Chosen {
            keys: r#""type": "string", "encoding": "categorical""#.to_owned(),
            why: "it has no value in any row".to_owned(),
            left_out: true,
        },
        FieldType::Boolean => {
            kept(r#""type": "boolean""#.to_owned(), "two values: yes or no".to_owned())
        }
        kind @ (FieldType::IpString | FieldType::Mac) => {
            let kind = if kind == FieldType::Mac { "mac" } else { "ip_string" };
            if distinct <= FEW_ADDRESSES {
                let keys = format!(r#""type": "{kind}", "encoding": "categorical""#);
                return kept(keys, format!("{values}, each has its own output"));
            }
            let keys = format!(r#""type": "{kind}", "encoding": "bit""#);
            kept(keys, format!("{values}, as bits: addresses that were not seen come out too"))
        }
        FieldType::Datetime => {
            kept(r#""type": "datetime", "encoding": "quantile""#.to_owned(), values)
        }
        FieldType::Integer if distinct <= FEW => kept(
            r#""type": "integer", "encoding": "categorical""#.to_owned(),
            format!("{values}, each has its own output"),
        ),
        FieldType::Integer if matches!(role, Some(Role::SrcPort | Role::DstPort)) => kept(
            r#""type": "integer", "encoding": "word2vec_port""#.to_owned(),
            format!("{values}, as words by the company they keep"),
        ),
        FieldType::Integer if is_name && column.least >= 0.0 => {
            // With room for what other rows may have.
            let bits = ((column.most as u64).max(1).ilog2() + 1).next_multiple_of(8);
            let bits = if address { 32.max(bits) } else { bits };
            let keys = format!(r#""type": "integer", "encoding": "bit", "n_bits": {bits}"#);
            kept(keys, format!("{values}, as bits"))
        }
        FieldType::Integer if column.least >= 0.0 && column.most < MOST_AS_BITS => kept(
            r#""type": "integer", "encoding": "bit""#.to_owned(),
            format!("{} as bits: frequent values come out exactly", numbers()),
        ),
        kind @ (FieldType::Integer | FieldType::Float) => {
            let (kind, exact) = match kind {
                FieldType::Integer => ("integer", "frequent values come out exactly"),
                _ => ("float", "its own distribution"),
            };
            let (encoding, why) = if spread() {
                ("log_quantile", format!("{} over orders of magnitude: {exact}", numbers()))
            } else {
                ("quantile", format!("{}: {exact}", numbers()))
            };
            kept(format!(r#""type": "{kind}", "encoding": "{encoding}""#), why)
        }
        FieldType::String if distinct <= FEW => kept(
            r#""type": "string", "encoding": "categorical""#.to_owned(),
            format!("{values}, each has its own output"),
        ),
        FieldType::String => {
            let once = column.counts.values().filter(|count| **count == 1).count() as f64;
            let unique = once / column.values as f64 >= UNIQUE && column.values >= ROWS_TO_TELL;
            Chosen {
                keys: format!(
                    r#""type": "string", "encoding": "topk", "k": {TOP}, "fallback": {word}"#
                ),
                why: if unique {
                    "nearly every row has its own value: there is nothing to learn".to_owned()
                } else {
                    top(TOP, "the others are words by the company they keep")
                },
                left_out: unique,
            }
        }
    }
}

/// NAME of `word2vec_NAME`: addresses and ports share theirs.
fn vocabulary(column: &str) -> String {
    let plain: String =
        column.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    plain.to_ascii_lowercase()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A comment may not end early, whatever a column is called.
fn comment(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn write(path: &Path, profile: &Profile, time: usize, flow: &[usize]) -> String {
    let has = |names: &[&str]| profile.columns.iter().any(|c| names.contains(&c.name.as_str()));
    let netflow = has(&["pkt", "pkts", "packets", "ipkt"]) && has(&["byt", "bytes", "ibyt"]);
    let kind = if netflow { "netflow" } else { "custom" };
    let file = comment(&path.file_name().unwrap_or_default().to_string_lossy());
    let rows = if profile.whole { "" } else { "the first " };
    let mut text = format!(
        "// Written by `ns-train init` after {rows}{} rows of {file}.\n\
         // Read it, change what you know better, then: ns-train check, ns-train train.\n{{\n",
        profile.rows
    );
    let fields = |at: &[usize], is_name: bool| {
        let mut text = String::new();
        for &at in at {
            let column = &profile.columns[at];
            let Chosen { keys, why, left_out } = choose(column, is_name);
            let _ = writeln!(text, "                // {}", comment(&why));
            if column.missing > 0 && column.values > 0 {
                let share = 100.0 * column.missing as f64 / profile.rows as f64;
                let share = if share < 0.1 {
                    format!("{} rows", column.missing)
                } else {
                    format!("{share:.1}%")
                };
                let how = match column.kind() {
                    FieldType::String => "a word like any other",
                    _ if keys.contains("\"categorical\"") || keys.contains("\"topk\"") => {
                        "a category of its own"
                    }
                    _ => "an output of its own says whether there is a value",
                };
                let written = quoted(column.missing_text.as_deref().unwrap_or_default());
                let _ = writeln!(
                    text,
                    "                // {share} have no value ({}): {how}",
                    comment(&written)
                );
            }
            let out = if left_out { "// left out: " } else { "" };
            let name = quoted(&column.name);
            let _ = writeln!(text, "                {out}{{ \"column\": {name}, {keys} }},");
        }
        text
    };
    // A column without a name, or with one that another has, cannot be asked for.
    let name = |at: &usize| profile.columns[*at].name.as_str();
    let is_first = |at: &usize| (0..*at).all(|before| name(&before) != name(at));
    let others: Vec<usize> = (0..profile.columns.len())
        .filter(|at| *at != time && !flow.contains(at) && !name(at).is_empty() && is_first(at))
        .collect();
    let unit = match profile.columns[time].kind() {
        FieldType::Datetime => "written as dates".to_owned(),
        _ if profile.columns[time].is_epoch() => "the unit is told from its size".to_owned(),
        _ => "small numbers are taken as seconds; \"unit\" can say otherwise".to_owned(),
    };
    let _ = write!(
        text,
        r#"    "global_config": {{ "dataset_type": "{kind}" }},
    "pre_post_processor": {{
        "config": {{
            // Longer flows are cut into segments that carry on from one another.
            "max_flow_len": 30,
            // The time of a record: {unit}. Gaps within a flow are learned by their
            // distribution on a logarithmic axis.
            "timestamp": {{ "column": {time}, "encoding": "interarrival", "gap_encoding": "log_quantile" }},
            "word2vec": {{ "vec_size": 10 }},
            // What is fixed in a flow, and names it: rows that share these are a flow.
            "metadata": [
{metadata}            ],
            // What every record has its own of.
            "timeseries": [
{timeseries}            ],
        }},
    }},
{model}}}
"#,
        time = quoted(&profile.columns[time].name),
        metadata = fields(flow, true),
        timeseries = fields(&others, false),
        model = MODEL,
    );
    text
}

/// The networks' part of every configuration that is written.
const MODEL: &str = r#"    "model": {
        // `--model doppelganger` trains NetShare's model instead: encodings and what follows are for that.
        "class": "autoregressive",
        "config": {
            "batch_size": 100,
            "sample_len": 5,
            "epochs": 400,
            "d_rounds": 1,
            "g_lr": 5e-4,
            "d_lr": 5e-4,
            "attr_d_lr": 5e-4,
            // Smaller than NetShare's 5 x 512: nearer after equal minutes, faster in replay.
            "generator_attribute_num_layers": 3,
            "generator_attribute_num_units": 256,
            "discriminator_num_layers": 3,
            "discriminator_num_units": 256,
            "attr_discriminator_num_layers": 3,
            "attr_discriminator_num_units": 256,
            "generator_ema": 0.995,
        },
    },
"#;

#[cfg(test)]
mod tests;
